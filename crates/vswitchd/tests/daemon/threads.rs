//! PMD threads: on which cores they run, and which queues they poll.

use crate::bench::{Daemon, wait_for};
use std::collections::BTreeMap;

/// Names of the PMD threads and the cores that they may run on.
fn pmds(d: &Daemon) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", d.pid())).expect("it runs").flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            line.trim().to_owned()
        };
        let name = field("Name:");
        if name.starts_with("pmd-c") {
            found.insert(name, field("Cpus_allowed_list:"));
        }
    }
    found
}

/// Ports by core, as `pmd-rxq-show` has them.
pub fn queues(d: &Daemon) -> BTreeMap<String, Vec<String>> {
    let mut by_core: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut core = String::new();
    for line in d.appctl("dpif-netdev/pmd-rxq-show").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["pmd", "thread", "numa_id", _, "core_id", c] => {
                core = c.trim_end_matches(':').to_owned();
                by_core.entry(core.clone()).or_default();
            }
            ["port:", port, "queue-id:", ..] => {
                by_core.entry(core.clone()).or_default().push(port.to_owned());
            }
            _ => {}
        }
    }
    by_core
}

#[test]
fn threads_run_on_exactly_the_cores_of_the_mask() {
    let d = Daemon::start();
    assert_eq!(pmds(&d), [("pmd-c00".to_owned(), "0".to_owned())].into(), "one on each node");
    d.vsctl("add-br br0");
    for name in ["p1", "p2", "p3", "p4"] {
        d.vsctl(&format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"));
    }
    let two = std::thread::available_parallelism().map_or(1, usize::from) >= 2;
    assert!(two, "this test needs two cores");
    for (mask, cores) in [("0x2", &["1"][..]), ("3", &["0", "1"]), ("0X1", &["0"])] {
        d.vsctl(&format!("set Open_vSwitch . other_config:pmd-cpu-mask={mask}"));
        let wanted: BTreeMap<String, String> =
            cores.iter().map(|c| (format!("pmd-c0{c}"), (*c).to_owned())).collect();
        wait_for("threads", || (pmds(&d) == wanted).then_some(()));
        let queues = queues(&d);
        assert_eq!(queues.keys().collect::<Vec<_>>(), cores.iter().collect::<Vec<_>>());
        let each = 4 / cores.len();
        assert!(queues.values().all(|ports| ports.len() == each), "{queues:?}");
    }
    d.vsctl("clear Open_vSwitch . other_config");
    wait_for("the default", || (pmds(&d).len() == 1).then_some(()));
}

#[test]
fn plans_change_only_when_something_changed() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-port br0 p1 -- set Interface p1 type=dpdkvhostuser");
    let threads = pmds(&d);
    for n in 0..3 {
        d.vsctl(&format!("set Open_vSwitch . external_ids:n={n} other_config:x={n}"));
    }
    assert_eq!(pmds(&d), threads);
    assert_eq!(d.log_lines("PMD thread on core").len(), 1, "{}", d.log());
    assert_eq!(d.log_lines("added interface").len(), 2, "the bridge's own, and p1");
}

/// Which core polls the first queue of each port, and whether it is isolated.
fn shown(d: &Daemon) -> Vec<(String, String, bool)> {
    let (mut core, mut isolated, mut out) = (String::new(), false, Vec::new());
    for line in d.appctl("dpif-netdev/pmd-rxq-show").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["pmd", .., n] => core = n.trim_end_matches(':').to_owned(),
            ["isolated", ":", yes] => isolated = yes == "true",
            ["port:", name, ..] => out.push((name.to_owned(), core.clone(), isolated)),
            _ => {}
        }
    }
    out.sort();
    out
}

#[test]
fn queues_are_pinned_isolated_and_placed_anew() {
    let d = Daemon::start();
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=0x3 -- add-br br0");
    for port in ["a", "b", "c"] {
        d.vsctl(&format!("add-port br0 {port} -- set Interface {port} type=dpdkvhostuser"));
    }
    let is = |want: [(&str, &str, bool); 3]| {
        let want = want.map(|(p, c, i)| (p.to_owned(), c.to_owned(), i));
        let got = shown(&d);
        assert_eq!(got, want);
    };
    // There and back.
    is([("a", "0", false), ("b", "1", false), ("c", "1", false)]);
    d.vsctl("set Open_vSwitch . other_config:pmd-rxq-assign=roundrobin");
    is([("a", "0", false), ("b", "1", false), ("c", "0", false)]);
    d.vsctl("set Interface a other_config:pmd-rxq-affinity=0:1");
    is([("a", "1", true), ("b", "0", false), ("c", "0", false)]);
    d.vsctl(
        "set Open_vSwitch . other_config:pmd-rxq-assign=group other_config:pmd-rxq-isolate=false",
    );
    is([("a", "1", false), ("b", "0", false), ("c", "0", false)]);
    assert_eq!(d.appctl("dpif-netdev/pmd-rxq-rebalance"), "pmd rxq rebalance requested.\n");
    d.vsctl("set Open_vSwitch . other_config:pmd-rxq-assign=fastest");
    assert_eq!(d.log_lines("\"fastest\" is none of").len(), 1, "{}", d.log());
}
