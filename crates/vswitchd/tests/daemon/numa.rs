//! Placement by NUMA node, on a faked machine of two nodes with four cores each; its cores need not exist.
//! Guests' memory is where it really is, which is node 0 wherever these tests run.

use crate::bench::{Daemon, run, wait_for};
use crate::threads::queues;
use crate::traffic::{add_port, frame, guest, receive, send};
use std::path::Path;
use std::process::Command;

/// Nodes with their cores, and netdevs with their nodes, as sysfs has them.
fn machine(nodes: &[(usize, &str)], netdevs: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let write = |path: String, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
        std::fs::write(path, text).expect("file");
    };
    for (node, cores) in nodes {
        write(format!("devices/system/node/node{node}/cpulist"), cores);
    }
    for (name, node) in netdevs {
        write(format!("class/net/{name}/device/numa_node"), node);
    }
    dir
}

/// The only kind of machine that these tests can tell anything on.
fn check_real_machine() {
    let second = Path::new("/sys/devices/system/node/node1");
    assert!(!second.exists(), "this test needs a machine with one NUMA node: memory must be on 0");
}

/// Ports that the threads of these cores poll.
fn polled(d: &Daemon) -> Vec<(String, Vec<String>)> {
    queues(d).into_iter().collect()
}

fn is(cores: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |ports: &[&str]| ports.iter().map(|p| (*p).to_owned()).collect();
    cores.iter().map(|(core, ports)| ((*core).to_owned(), owned(ports))).collect()
}

#[test]
fn queues_are_polled_on_the_node_of_their_memory() {
    check_real_machine();
    let fake = machine(&[(0, "0-3"), (1, "4-7")], &[("pl0", "1"), ("pl1", "-1")]);
    let d = Daemon::start_on(fake.path());
    assert_eq!(d.log_lines("PMD thread on core").len(), 2, "one of each node: {}", d.log());
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=0x60 -- add-br br0");
    // Linux's own frames would go to the guests.
    let links = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; ip link add pl0 type veth peer name pl1 \
                 && ip link set pl0 up && ip link set pl1 up";
    let nsenter = ["-t", &d.pid().to_string(), "-n", "--", "sh", "-c", links];
    assert_eq!(run(Command::new("nsenter").args(nsenter)).status, 0);
    // Both cores are of node 1, so its NIC is at home and guests are not.
    d.vsctl("add-port br0 pl0 -- set Interface pl0 type=afxdp");
    for name in ["a", "b"] {
        add_port(&d, "br0", name);
    }
    let shown = |core, node| {
        let text = d.appctl(&format!("dpif-netdev/pmd-rxq-show -pmd {core}"));
        assert!(text.contains(&format!("pmd thread numa_id {node} core_id {core}:\n")), "{text}");
    };
    shown(5, 1);
    shown(6, 1);
    let told = || d.log_lines("available (non-isolated) pmd thread on numa node 0. Port '").len();
    assert_eq!(told(), 0, "nothing is known of guests that are not there: {}", d.log());
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    wait_for("both to be reported", || (told() == 2).then_some(()));
    let text =
        "Port 'a' rx queue 0 will be assigned to a pmd on numa node 1. This may lead to reduced";
    assert_eq!(d.log_lines(text).len(), 1, "{}", d.log());
    assert!(d.get("a", "status:numa").contains('0'));
    // A thread on each node: each queue is at home.
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=0x42");
    assert_eq!(polled(&d), is(&[("1", &["a", "b"]), ("6", &["pl0"])]), "{}", d.log());
    send(&mut a, &frame(1, 2, 1));
    assert_eq!(receive(&mut b), [frame(1, 2, 1)]);
    // They stay reported as long as nothing changes, and once more when they go abroad again.
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=0x40");
    wait_for("both to be reported again", || (told() == 4).then_some(()));
    assert_eq!(polled(&d), is(&[("6", &["a", "b", "pl0"])]));
    d.vsctl("add-port br0 c -- set Interface c type=dpdkvhostuser");
    send(&mut b, &frame(2, 1, 2));
    assert_eq!(receive(&mut a), [frame(2, 1, 2)]);
    assert_eq!(told(), 4, "{}", d.log());
    // A NIC that is on no node goes anywhere; the default mask is a core of each node.
    d.vsctl("add-port br0 pl1 -- set Interface pl1 type=afxdp");
    d.vsctl("clear Open_vSwitch . other_config");
    wait_for("a thread for each node", || {
        let by_core = queues(&d);
        (by_core.keys().map(String::as_str).collect::<Vec<_>>() == ["0", "4"]
            && by_core["0"].contains(&"a".to_owned())
            && by_core["4"].contains(&"pl0".to_owned()))
        .then_some(())
    });
}

/// Where the text is compared with what OVS 3.1 prints on a machine of its own faking.
#[test]
fn threads_and_queues_are_shown_as_ovs_shows_them() {
    let fake = machine(&[(0, "0-3"), (1, "4-7")], &[]);
    let d = Daemon::start_on(fake.path());
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=0x22 -- add-br br0");
    add_port(&d, "br0", "p1");
    let text =
        |secs: u32, threads: &str| format!("Displaying last {secs} seconds pmd usage %\n{threads}");
    let one = "pmd thread numa_id 0 core_id 1:\n  isolated : false\n  port: p1                queue-id:  0 \
               (enabled)   pmd usage: NOT AVAIL\n  overhead: NOT AVAIL\n";
    let other = "pmd thread numa_id 1 core_id 5:\n  isolated : false\n";
    let show = |args: &str| d.appctl(format!("dpif-netdev/pmd-rxq-show {args}").trim());
    let masked = |args: &str| show(args).replace(" 0 %", "NOT AVAIL");
    assert_eq!(masked(""), text(60, &format!("{one}{other}")));
    for (asked, shown) in [("7", 10), ("5", 5), ("60", 60), ("61", 60), ("0", 60), ("x", 60)] {
        assert_eq!(masked(&format!("-secs {asked} -pmd 5")), text(shown, other), "-secs {asked}");
    }
    assert_eq!(masked("-pmd 1 -secs 30 netdev@ovs-netdev"), text(30, one));
    let run = d.try_appctl(&["dpif-netdev/pmd-rxq-show", "-secs"]);
    assert!(run.err.contains("number of seconds"), "{run:?}");
}
