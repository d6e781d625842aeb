//! Guests on the ports, while things change around them.

use crate::bench::{DEADLINE, Daemon, Patience, wait_for};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use virtio_driver::payload::{Checker, Flow};
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, SocketMode};

/// A driver for a port that the switch listens on (`dpdkvhostuser`).
pub fn guest(d: &Daemon, name: &str) -> Driver {
    let config = Config::new(SocketMode::Connect(d.rundir().join(name)));
    let driver = Driver::connect(config).expect("the switch answers");
    d.wait_column(name, "link_state", "up");
    driver
}

pub fn add_port(d: &Daemon, bridge: &str, name: &str) {
    d.vsctl(&format!("add-port {bridge} {name} -- set Interface {name} type=dpdkvhostuser"));
}

/// Sends one frame and waits until it was taken.
pub fn send(driver: &mut Driver, frame: &[u8]) {
    wait_for("room in the ring", || {
        (driver.tx(0, &[frame]).expect("the device follows the rules") == 1).then_some(())
    });
}

/// Frames that have come.
pub fn take(driver: &mut Driver) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    driver
        .rx(0, 256, |_, frame| frames.push(frame.to_vec()))
        .expect("the device follows the rules");
    frames
}

/// Waits for frames.
pub fn receive(driver: &mut Driver) -> Vec<Vec<u8>> {
    wait_for("a frame", || Some(take(driver)).filter(|f| !f.is_empty()))
}

/// Has a checker look at frames that have come.
fn check(driver: &mut Driver, checker: &mut Checker) {
    let look = |_: &virtio_driver::NetHeader, frame: &[u8]| {
        checker.check(frame);
    };
    driver.rx(0, 64, look).expect("the device follows the rules");
}

pub fn frame(from: u8, to: u8, sequence: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Flow::between(1, from, to).frame(sequence, 100, &mut out);
    out
}

/// Two guests that know each other's address.
fn introduced(d: &Daemon, a: (&str, u8), b: (&str, u8)) -> (Driver, Driver) {
    let (mut one, mut two) = (guest(d, a.0), guest(d, b.0));
    send(&mut one, &frame(a.1, b.1, 0));
    receive(&mut two);
    send(&mut two, &frame(b.1, a.1, 0));
    receive(&mut one);
    (one, two)
}

#[test]
fn unknown_addresses_are_flooded_in_the_bridge_and_nowhere_else() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-br br1");
    for (bridge, name) in
        [("br0", "a1"), ("br0", "a2"), ("br0", "a3"), ("br1", "b1"), ("br1", "b2")]
    {
        add_port(&d, bridge, name);
    }
    let mut guests: Vec<Driver> = ["a1", "a2", "a3", "b1", "b2"].map(|n| guest(&d, n)).into();
    send(&mut guests[0], &frame(1, 9, 1));
    assert_eq!(receive(&mut guests[1]), [frame(1, 9, 1)]);
    assert_eq!(receive(&mut guests[2]), [frame(1, 9, 1)]);
    // Learned: the answer goes to one port. The same address in the other bridge is another's.
    send(&mut guests[2], &frame(9, 1, 2));
    assert_eq!(receive(&mut guests[0]), [frame(9, 1, 2)]);
    send(&mut guests[4], &frame(3, 1, 3));
    assert_eq!(receive(&mut guests[3]), [frame(3, 1, 3)]);
    // All that was sent before has been dealt with when this arrives, from the same core.
    send(&mut guests[2], &frame(9, 1, 4));
    assert_eq!(receive(&mut guests[0]), [frame(9, 1, 4)]);
    for (n, guest) in guests.iter_mut().enumerate() {
        assert_eq!(take(guest).len(), 0, "guest {n} got more");
    }
    let fdb = d.appctl("fdb/show br0");
    assert!(fdb.contains("02:00:00:00:00:01") && fdb.contains("02:00:00:00:00:09"), "{fdb}");
    let other = d.appctl("fdb/show br1");
    assert!(other.contains("02:00:00:00:00:03") && !other.contains(":09 "), "{other}");
    // A port that moves to the other bridge takes its guest along, connected, and leaves the first.
    let port = d.vsctl("get Port a3 _uuid");
    d.vsctl(&format!("remove Bridge br0 ports {port} -- add Bridge br1 ports {port}"));
    send(&mut guests[3], &frame(4, 0xff, 5));
    assert_eq!(receive(&mut guests[2]), [frame(4, 0xff, 5)]);
    assert_eq!(receive(&mut guests[4]), [frame(4, 0xff, 5)]);
    // Nothing that was decided for the other bridge is left: this very flow was cached there.
    send(&mut guests[2], &frame(9, 1, 6));
    assert_eq!(receive(&mut guests[3]), [frame(9, 1, 6)]);
    assert_eq!(receive(&mut guests[4]), [frame(9, 1, 6)]);
    assert!(take(&mut guests[0]).is_empty() && take(&mut guests[1]).is_empty(), "it left br0");
    assert!(!guests[2].disconnected().expect("its socket works"));
}

#[test]
fn flows_on_in_port_decide() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for name in ["p1", "p2", "p3"] {
        add_port(&d, "br0", name);
    }
    let mut guests: Vec<Driver> = ["p1", "p2", "p3"].map(|n| guest(&d, n)).into();
    assert_eq!(d.appctl("ofctl/add-flow br0 priority=9,in_port=1,actions=output:3"), "");
    send(&mut guests[0], &frame(1, 2, 1));
    assert_eq!(receive(&mut guests[2]), [frame(1, 2, 1)]);
    // A change of the tables reaches what is cached.
    assert_eq!(d.appctl("ofctl/add-flow br0 priority=10,in_port=1,actions=output:2"), "");
    d.appctl("revalidator/wait");
    send(&mut guests[0], &frame(1, 2, 2));
    assert_eq!(receive(&mut guests[1]), [frame(1, 2, 2)]);
    assert!(take(&mut guests[2]).is_empty());
    assert_eq!(d.appctl("ofctl/add-flow br0 priority=11,in_port=p1,actions=drop"), "");
    d.appctl("revalidator/wait");
    send(&mut guests[0], &frame(1, 2, 3));
    send(&mut guests[1], &frame(2, 1, 4));
    assert_eq!(receive(&mut guests[0]), [frame(2, 1, 4)]);
    assert!(take(&mut guests[1]).is_empty());
    let flows = d.appctl("ofctl/dump-flows br0");
    assert!(flows.contains("n_packets=1") && flows.contains("priority=11,in_port=1"), "{flows}");
}

/// Frames between two guests, counted, while other ports come and go, one that never reads among
/// them, and while threads and numbers change.
#[test]
fn traffic_goes_on_while_ports_and_threads_change() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-br br1");
    for (bridge, name) in [("br0", "a"), ("br0", "b"), ("br1", "other")] {
        add_port(&d, bridge, name);
    }
    let (mut a, mut b) = introduced(&d, ("a", 1), ("b", 2));
    let flow = Flow::between(7, 1, 2);
    let mut checker = Checker::new(&[flow]);
    let (mut sent, mut scratch) = (0, Vec::new());
    let mut longest = Duration::ZERO;
    let steps: &[&str] = &[
        "add-port br0 x1 -- set Interface x1 type=dpdkvhostuser",
        "add-port br1 x2 -- set Interface x2 type=dpdkvhostuser",
        "set Open_vSwitch . other_config:pmd-cpu-mask=3",
        "set Interface x1 mtu_request=3000 ofport_request=44",
        "add-port br0 x3 -- set Interface x3 type=nonsense",
        "del-port x1",
        "set Open_vSwitch . other_config:pmd-cpu-mask=2",
        "set Bridge br0 other_config:mac-aging-time=100",
        "del-br br1",
        "set Open_vSwitch . other_config:pmd-cpu-mask=1",
        "del-port x3",
    ];
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for step in steps {
                d.try_vsctl(&step.split_whitespace().collect::<Vec<_>>());
            }
        });
        let mut progress = Patience::new();
        // Fewer under way than a ring holds: none is lost for want of room.
        while !changes.is_finished() || sent < 1000 {
            let received = checker.report(7).received;
            if sent - received < 64 {
                flow.frame(sent, 60 + (sent % 1400) as usize, &mut scratch);
                sent += a.tx(0, &[&scratch]).expect("the device follows the rules") as u64;
            } else {
                std::thread::yield_now();
            }
            check(&mut b, &mut checker);
            longest = longest.max(progress.waited());
            if checker.report(7).received > received {
                progress = Patience::new();
            }
            assert!(longest < DEADLINE, "nothing more comes:\n{}", d.log());
        }
    });
    let mut last = Patience::new();
    while checker.report(7).received < sent && last.waited() < Duration::from_secs(5) {
        check(&mut b, &mut checker);
    }
    let report = checker.report(7);
    let lost = report.lost(sent);
    if lost > 0 {
        let counts = ["a", "b"].map(|i| d.appctl(&format!("ofctl/dump-ports br0 {i}")));
        let named = ["a", "b"].map(|i| d.get(i, "statistics")).join("\n");
        let threads = d.appctl("coverage/show");
        panic!("{lost} of {sent} lost: {report:?}\n{counts:?}\n{named}\n{threads}");
    }
    assert_eq!((report.corrupt, report.duplicated), (0, 0));
    assert!(longest < STALL, "nothing came for {longest:?}");
    assert!(!a.disconnected().expect("works") && !b.disconnected().expect("works"));
}

/// The longest that traffic may stand still.
const STALL: Duration = Duration::from_millis(100);

/// Two threads send to one guest while other programs take their processors away, also in the midst of a burst.
#[test]
fn threads_that_send_to_one_guest_wait_for_each_other() {
    /// Frames of each flow.
    const FRAMES: u64 = 30_000;
    let d = Daemon::start();
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=3 -- add-br br0");
    for (name, core) in [("a", 0), ("b", 1), ("to", 0)] {
        add_port(&d, "br0", name);
        d.vsctl(&format!("set Interface {name} other_config:pmd-rxq-affinity=0:{core}"));
    }
    let (mut a, mut to) = introduced(&d, ("a", 1), ("to", 3));
    let mut b = guest(&d, "b");
    send(&mut b, &frame(2, 3, 0));
    receive(&mut to);
    let flows = [Flow::between(7, 1, 3), Flow::between(8, 2, 3)];
    let mut checker = Checker::new(&flows);
    let mut sent = [0; 2];
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while busy.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut scratch = Vec::new();
        let mut progress = Patience::new();
        while sent.iter().any(|n| *n < FRAMES) && progress.waited() < DEADLINE {
            for (i, (flow, guest)) in flows.iter().zip([&mut a, &mut b]).enumerate() {
                // Fewer under way than a ring holds: none is lost for want of room.
                while sent[i] < FRAMES && sent[i] - checker.report(flow.id).received < 64 {
                    flow.frame(sent[i], 1460, &mut scratch);
                    sent[i] +=
                        guest.tx(0, &[&scratch]).expect("the device follows the rules") as u64;
                }
            }
            check(&mut to, &mut checker);
        }
        busy.store(false, Relaxed);
    });
    let mut last = Patience::new();
    let lost = |checker: &Checker| [0, 1].map(|i| checker.report(flows[i].id).lost(sent[i]));
    while lost(&checker) != [0, 0] && last.waited() < Duration::from_secs(5) {
        check(&mut to, &mut checker);
    }
    let drops = d.appctl("coverage/read-counter tx_contention_drops");
    assert_eq!((lost(&checker), drops.trim()), ([0, 0], "0"), "{}", d.appctl("coverage/show"));
    assert_eq!(sent, [FRAMES; 2], "within {DEADLINE:?}");
}

/// Guests that go and come back find the port's counts where they were.
#[test]
fn statistics_survive_reconnects_and_are_written_every_five_seconds() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    add_port(&d, "br0", "a");
    add_port(&d, "br0", "b");
    let (mut a, mut b) = introduced(&d, ("a", 1), ("b", 2));
    for n in 1..=20 {
        send(&mut a, &frame(1, 2, n));
        assert_eq!(receive(&mut b).len(), 1);
    }
    let start = Instant::now();
    d.wait_column("a", "statistics:rx_packets", "21");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(d.get("b", "statistics:tx_packets"), "21");
    a.disconnect();
    d.wait_column("a", "link_state", "down");
    a.reconnect().expect("the switch answers again");
    d.wait_column("a", "link_state", "up");
    send(&mut a, &frame(1, 2, 21));
    assert_eq!(receive(&mut b).len(), 1);
    d.wait_column("a", "statistics:rx_packets", "22");
    let status = d.get("a", "status");
    assert!(status.contains("num_connections=\"2\""), "{status}");
}

/// Several queues: polled as the guest has them, by all threads.
#[test]
fn queues_of_a_guest_are_spread_over_the_threads() {
    let d = Daemon::start();
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=3 -- add-br br0");
    add_port(&d, "br0", "a");
    let mut config = Config::new(SocketMode::Connect(d.rundir().join("a"))).with(feature::MQ);
    config.queue_pairs = 4;
    let driver = Driver::connect(config).expect("the switch answers");
    let by_core = || {
        let show = d.appctl("dpif-netdev/pmd-rxq-show");
        let sections = show.split("core_id ").skip(1).map(|s| s.matches("port: a ").count());
        sections.collect::<Vec<_>>()
    };
    wait_for("four queues on two threads", || (by_core() == [2, 2]).then_some(()));
    drop(driver);
    wait_for("one queue", || (by_core().iter().sum::<usize>() == 1).then_some(()));
}

#[test]
fn resident_memory_is_under_64_mb() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    add_port(&d, "br0", "a");
    add_port(&d, "br0", "b");
    let (_a, _b) = introduced(&d, ("a", 1), ("b", 2));
    // Guest memory is mapped from memfds; everything else is the daemon's own.
    let text = std::fs::read_to_string(format!("/proc/{}/smaps", d.pid())).expect("readable");
    let (mut own, mut shared, mut guests) = (0u64, false, 0u64);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            shared = line.contains("memfd:");
        } else if first == "Rss:" {
            let kb: u64 = words.next().and_then(|n| n.parse().ok()).expect("a number");
            *(if shared { &mut guests } else { &mut own }) += kb;
        }
    }
    assert!(guests > 0, "two guests' memory is mapped:\n{text}");
    assert!(own < 64 << 10, "{own} KB of its own, {guests} KB of guests");
}
