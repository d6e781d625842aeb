//! Commands of `ovs-appctl`: shapes, and mistakes.

use crate::bench::{Daemon, run, vswitchctl, wait_for};
use crate::ovs::Ovs;
use virtio_driver::payload::Flow;
use virtio_driver::{Config, Driver, SocketMode};

/// Text with every number replaced by `#` and runs of blanks by one: its shape.
fn shape(text: &str) -> Vec<String> {
    let one = |line: &str| {
        let mut out = String::new();
        for c in line.chars() {
            let c = if c.is_ascii_digit() { '#' } else { c };
            let repeated = (c == '#' || c == ' ') && out.ends_with(c);
            if !repeated {
                out.push(c);
            }
        }
        out.replace("#.#", "#").trim_end().to_owned()
    };
    text.lines().map(one).collect()
}

/// The same situation in OVS and here: a bridge, two ports, one frame that was flooded.
#[test]
fn outputs_have_the_shape_of_ovs() {
    let ovs = Ovs::start();
    let d = Daemon::start();
    let made = ovs.vsctl(
        "add-br br0 -- set Bridge br0 datapath_type=dummy -- add-port br0 p1 -- set Interface p1 \
         type=dummy-pmd -- add-port br0 p2 -- set Interface p2 type=dummy-pmd",
    );
    assert_eq!((made.status, &*made.err), (0, ""));
    d.vsctl(
        "add-br br0 -- add-port br0 p1 -- set Interface p1 type=dpdkvhostuser -- add-port br0 p2 -- \
         set Interface p2 type=dpdkvhostuser",
    );
    let mut sent = Vec::new();
    Flow::between(1, 1, 2).frame(1, 100, &mut sent);
    let hex: String = sent.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(ovs.appctl(&format!("netdev-dummy/receive p1 {hex}")).err, "");
    let mut guest =
        Driver::connect(Config::new(SocketMode::Connect(d.rundir().join("p1")))).expect("answers");
    d.wait_column("p1", "link_state", "up");
    guest.tx(0, &[&sent]).expect("sent");
    let learned = |text: &str| text.contains("02:00:00:00:00:01");
    wait_for("OVS learns", || learned(&ovs.appctl("fdb/show br0").out).then_some(()));
    wait_for("we learn", || learned(&d.appctl("fdb/show br0")).then_some(()));

    assert_eq!(shape(&d.appctl("fdb/show br0")), shape(&ovs.appctl("fdb/show br0").out));
    threads_have_the_shape_of_ovs(&d, &ovs);
    histograms_have_the_shape_of_ovs(&d, &ovs, &mut guest, &sent);
    megaflows_have_the_shape_of_ovs(&d, &ovs);
    ports_have_the_shape_of_ovs(&d, &ovs);
}

fn threads_have_the_shape_of_ovs(d: &Daemon, ovs: &Ovs) {
    for command in ["dpif-netdev/pmd-rxq-show", "dpif-netdev/pmd-stats-show"] {
        // Labels, without values: whether a ratio has decimals, or a cycle count is there, is chance.
        let labels = |text: &str| {
            let label = |l: &String| l.split(':').next().unwrap_or_default().to_owned();
            let mut labels: Vec<_> = shape(text).iter().map(label).collect();
            labels.retain(|l| !l.contains("cycles"));
            labels.sort();
            labels.dedup();
            labels
        };
        assert_eq!(labels(&d.appctl(command)), labels(&ovs.appctl(command).out), "{command}");
    }
    // In order, without values, and without what came in OVS 3.2.
    let lines = |text: &str| -> Vec<String> {
        let name = |l: &str| {
            let name = l.split(':').next().unwrap_or_default();
            name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
        };
        text.lines().filter(|l| !l.to_lowercase().contains("sleep")).map(name).collect()
    };
    let command = "dpif-netdev/pmd-perf-show";
    let (ours, theirs) = (d.appctl(command), ovs.appctl(command).out);
    assert_eq!(lines(&ours), lines(&theirs), "{ours}{theirs}");
    let column = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.contains(name)).unwrap_or_default();
        line.find("  (").map(|at| (line.find(name), at))
    };
    for name in ["Iterations:", "busy iterations:", "Used TSC cycles:", "EMC hits:", "Upcalls:"] {
        assert_eq!(column(&ours, name), column(&theirs, name), "{name}: {ours}{theirs}");
    }
    assert_eq!(
        column(&ours, "sleep iterations:"),
        column(&ours, "busy iterations:").map(|(_, at)| (Some(4), at))
    );
    let upcalls = ours.lines().find(|l| l.contains("- Upcalls:")).expect("a line");
    assert!(!upcalls.contains(" 0.0 us/upcall"), "measured: {upcalls}");
}

/// What a command can is said by itself, and what it cannot is not passed over.
#[test]
fn commands_say_what_they_can_and_cannot() {
    let d = Daemon::start();
    let usage = "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]";
    let ctl = |words: &[&str]| run(vswitchctl().arg("--rundir").arg(d.rundir()).args(words));
    for help in ["--help", "-h"] {
        let told = ctl(&["ofproto/trace", help]);
        assert_eq!((told.out, told.status), (format!("Usage: ofproto/trace {usage}\n"), 0));
    }
    assert_eq!(d.appctl("fdb/show --help"), "Usage: fdb/show bridge\n");
    let told = ctl(&["exit", "--help"]);
    assert_eq!(told.out, "Usage: exit [--cleanup]\n", "and does not end");
    for option in ["-it", "-ms"] {
        let refused = ctl(&["dpif-netdev/pmd-perf-show", option, "5"]);
        assert!(refused.err.contains("histories of rounds are not kept"), "{refused:?}");
        assert_ne!(refused.status, 0);
        assert!(d.appctl(&format!("dpif-netdev/pmd-perf-show {option} 0")).contains("pmd thread"));
    }
}

/// The histograms of `other_config:pmd-perf-metrics` have the bins and the columns of OVS's.
fn histograms_have_the_shape_of_ovs(d: &Daemon, ovs: &Ovs, guest: &mut Driver, sent: &[u8]) {
    let command = "dpif-netdev/pmd-perf-show";
    assert!(!d.appctl(command).contains("Histograms"), "only if asked for");
    let on = "set Open_vSwitch . other_config:pmd-perf-metrics=true";
    d.vsctl(on);
    assert_eq!(ovs.vsctl(on).err, "");
    assert_eq!(d.appctl("dpif-netdev/pmd-stats-clear"), "");
    let table = |text: &str| -> Vec<String> {
        text.lines().skip_while(|l| *l != "Histograms").map(str::to_owned).collect()
    };
    let bound = |table: &[String], row: usize, column: usize| {
        table[row + 2].split_whitespace().nth(2 * column).map(str::to_owned)
    };
    // Both follow their configuration in their own time.
    let theirs =
        wait_for("OVS's", || Some(table(&ovs.appctl(command).out)).filter(|t| !t.is_empty()));
    let counted =
        |t: &[String]| bound(t, 0, 0).is_some() && t[3].contains("  1         1           ");
    let ours = wait_for("ours", || {
        guest.tx(0, &[sent]).expect("sent");
        Some(table(&d.appctl(command))).filter(|t| t.len() > 3 && counted(t))
    });
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}");
    assert_eq!(ours[1], theirs[1]);
    for row in 0..32 {
        for column in 0..7 {
            let both = [&ours, &theirs].map(|t| bound(t, row, column));
            assert_eq!(both[0], both[1], "bin {row} of column {column}");
        }
        assert_eq!(
            ours[row + 2].len(),
            theirs[row + 2].len(),
            "{} {}",
            ours[row + 2],
            theirs[row + 2]
        );
    }
    assert_eq!(ours[34..36], theirs[34..36]);
    let columns = |line: &str| {
        let starts = |(i, pair): (usize, &[u8])| (pair[0] == b' ' && pair[1] != b' ').then_some(i);
        line.as_bytes().windows(2).enumerate().filter_map(starts).collect::<Vec<_>>()
    };
    assert_eq!(columns(&ours[36]), columns(&theirs[36]), "{ours:#?}\n{theirs:#?}");
    assert!(!d.appctl(&format!("{command} -nh")).contains("Histograms"));
    // One burst in 64 is timed, stage by stage.
    let text = wait_for("a timed burst", || {
        for _ in 0..50 {
            guest.tx(0, &[sent]).expect("sent");
        }
        Some(d.appctl(&format!("{command} -nh"))).filter(|t| t.contains("  Timed packets: "))
    });
    for stage in ["receive", "tell", "look up", "execute", "transmit", "give back"] {
        let line = text.lines().find(|l| l.starts_with(&format!("  stage {stage}: ")));
        assert!(line.is_some_and(|l| l.ends_with(" cycles/pkt")), "{stage}: {text}");
    }
}

fn megaflows_have_the_shape_of_ovs(d: &Daemon, ovs: &Ovs) {
    let ours = d.appctl("dpctl/dump-flows");
    let theirs = ovs.appctl("dpctl/dump-flows").out;
    let start = "flow-dump from pmd on cpu core: ";
    assert!(ours.starts_with(start) && theirs.starts_with(start), "{ours}\n{theirs}");
    // The bridge's own port has number 1, as in OVS's datapath of its own.
    let flow = "recirc_id(0),in_port(2),packet_type(ns=0,id=0),eth(src=02:00:00:00:00:01,\
                dst=02:00:00:00:00:02),eth_type(0x0800)";
    assert!(ours.contains(flow), "{ours}\n{theirs}");
    let tail = |text: &str| text.contains(", packets:") && text.contains(", used:");
    assert!(tail(&ours) && tail(&theirs), "{ours}\n{theirs}");
    let more = d.appctl("dpctl/dump-flows -m --names");
    let line = more.lines().nth(1).expect("a flow");
    assert!(line.starts_with("ufid:") && line.contains(", dp:ovs, actions:"), "{more}");
    assert_eq!(line.split(',').next().map(str::len), Some("ufid:".len() + 36), "{more}");
    assert!(line.contains("in_port(p1)") && line.contains("actions:p2"), "{more}");
    assert_eq!(d.appctl("dpctl/dump-flows pmd=7"), "");
}

fn ports_have_the_shape_of_ovs(d: &Daemon, ovs: &Ovs) {
    // `dpif/show` and `dpctl/show`: the words around the devices' own descriptions.
    let show = d.appctl("dpif/show");
    assert!(show.starts_with("netdev@ovs-netdev: hit:"), "{show}");
    assert!(
        show.contains("\n  br0:\n") && show.contains("\n    p1 1/2: (dpdkvhostuser: "),
        "{show}"
    );
    let shapes = shape(&d.appctl("dpctl/show"));
    let theirs = shape(&ovs.appctl("dpctl/show").out);
    assert_eq!(shapes[1..3], theirs[1..3]);
    let port = |lines: &[String]| lines.iter().any(|l| l.starts_with(" port #: p# ("));
    assert!(port(&shapes) && port(&theirs), "{shapes:?} {theirs:?}");
    let (ours, theirs) = (d.appctl("coverage/show"), ovs.appctl("coverage/show").out);
    let head = ours.lines().next().unwrap_or_default().trim_end_matches(':');
    assert!(theirs.starts_with(head), "{theirs}");
    assert!(ours.lines().any(|l| l.contains("/sec") && l.contains("total: ")), "{ours}");
    assert!(shape(&ours).last().is_some_and(|l| l == "# events never hit"), "{ours}");
}

#[test]
fn counters_can_be_cleared() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-port br0 p1 -- set Interface p1 type=dpdkvhostuser");
    let mut guest =
        Driver::connect(Config::new(SocketMode::Connect(d.rundir().join("p1")))).expect("answers");
    d.wait_column("p1", "link_state", "up");
    let mut sent = Vec::new();
    Flow::between(1, 1, 2).frame(1, 100, &mut sent);
    guest.tx(0, &[&sent]).expect("sent");
    let received = |n: &str| {
        d.appctl("dpif-netdev/pmd-stats-show -pmd 0").contains(&format!("packets received: {n}\n"))
    };
    wait_for("the frame", || received("1").then_some(()));
    assert_eq!(d.appctl("dpif-netdev/pmd-stats-clear"), "");
    assert!(received("0"));
    // Totals of events go on: a rate would be wrong otherwise.
    assert_eq!(d.appctl("coverage/read-counter datapath_received").trim(), "1");
}

#[test]
fn mistakes_name_what_was_wrong() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for (command, told) in [
        ("nonsense", "\"nonsense\" is not a valid command"),
        ("fdb/show", "requires at least 1 arguments"),
        ("fdb/show br7", "br7"),
        ("dpif/dump-flows br7", "no such bridge \"br7\""),
        ("dpctl/dump-flows --colour", "unknown option --colour"),
        ("dpctl/dump-flows pmd=x", "pmd=x"),
        ("dpctl/dump-flows system@x", "\"system@x\""),
        ("dpif-netdev/pmd-rxq-show -pmd", "core number"),
        ("dpif-netdev/pmd-stats-show -nh", "\"-nh\""),
        ("vlog/set loud", "\"loud\""),
        ("coverage/read-counter x", "No such counter"),
        ("ofctl/add-flow br0 in_port=77777,actions=drop", "77777"),
    ] {
        let words: Vec<&str> = command.split_whitespace().collect();
        let run = d.try_appctl(&words);
        assert!(run.status != 0 && run.err.contains(told), "{command}: {run:?}");
    }
}

#[test]
fn the_daemon_tells_about_itself() {
    let d = Daemon::start();
    assert!(d.appctl("version").starts_with("vswitchd 0."));
    let list = d.appctl("list-commands");
    for command in ["dpif/show", "dpctl/dump-flows", "fdb/show", "exit", "memory/show", "vlog/set"]
    {
        assert!(list.contains(command), "{command}: {list}");
    }
    assert!(d.appctl("memory/show").contains("ports:0"));
    assert_eq!(d.appctl("vlog/set vswitchd:dbg"), "");
    let levels = d.appctl("vlog/list");
    let own = levels.lines().find(|l| l.starts_with("vswitchd ")).expect("our module");
    assert!(own.contains("DBG"), "{levels}");
    assert_eq!(d.appctl("vlog/set off"), "");
    d.vsctl("add-br quiet");
    assert!(d.log_lines("quiet").is_empty());
}

/// Commands that wait for the revalidator do not hold the switch meanwhile.
#[test]
fn waiting_commands_hold_up_no_configuration() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..20).for_each(|_| drop(d.appctl("fdb/show br0")))))
            .collect();
        for n in 0..5 {
            d.vsctl(&format!("add-port br0 p{n} -- set Interface p{n} type=dpdkvhostuser"));
        }
        asking.into_iter().for_each(|a| a.join().expect("no panic"));
    });
}
