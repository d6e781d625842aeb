//! Many queues on several threads: moved by load without losing a packet, and flows spread over the queues
//! of one guest.

use crate::bench::{Daemon, Patience, wait_for};
use crate::threads::queues;
use crate::traffic::{add_port, frame, guest, receive, send};
use std::collections::BTreeMap;
use std::time::Duration;
use virtio_driver::payload::{Checker, Flow};
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, NetHeader, SocketMode};

/// Numbered frames from one guest to another; fewer under way than a ring holds, so that none is lost for
/// want of room.
struct Stream {
    flow: Flow,
    sent: u64,
    checker: Checker,
}

impl Stream {
    /// From the guest with this address to that with the other.
    fn new(from: u8, to: u8) -> Stream {
        let flow = Flow::between(u16::from(from), from, to);
        Stream { flow, sent: 0, checker: Checker::new(&[flow]) }
    }

    fn received(&self) -> u64 {
        self.checker.report(self.flow.id).received
    }

    /// Sends so many frames, or as many as find room.
    fn send(&mut self, from: &mut Driver, frames: u64) {
        let mut frame = Vec::new();
        for _ in 0..frames {
            self.flow.frame(self.sent, 60 + (self.sent % 200) as usize, &mut frame);
            match from.tx(0, &[&frame]).expect("the device follows the rules") {
                0 => return,
                n => self.sent += n as u64,
            }
        }
    }

    /// Takes in what has come.
    fn take(&mut self, to: &mut Driver) {
        let checker = &mut self.checker;
        let look = |_: &NetHeader, frame: &[u8]| {
            checker.check(frame);
        };
        to.rx(0, 256, look).expect("the device follows the rules");
    }

    fn check(&self, what: &str) {
        let report = self.checker.report(self.flow.id);
        assert_eq!(report.lost(self.sent), 0, "{what}: {} sent: {report:?}", self.sent);
        assert_eq!((report.corrupt, report.duplicated, report.reordered), (0, 0, 0), "{what}");
    }
}

/// Gives guest `n` the address `n + 1`, as all others learn.
fn introduce(guests: &mut [Driver]) {
    for n in 0..guests.len() {
        send(&mut guests[n], &frame(n as u8 + 1, 0xff, 0));
        for (other, guest) in guests.iter_mut().enumerate().filter(|(other, _)| *other != n) {
            assert_eq!(receive(guest).len(), 1, "{other} of {n}");
        }
    }
}

/// Runs streams, given with their ends, until each has received `frames` more; then until nothing is under
/// way.
fn run(guests: &mut [Driver], streams: &mut [(Stream, usize, usize)], frames: u64) {
    let goals: Vec<u64> = streams.iter().map(|(s, ..)| s.received() + frames).collect();
    let mut patience = Patience::new();
    loop {
        let mut busy = false;
        for ((stream, from, to), goal) in streams.iter_mut().zip(&goals) {
            let before = stream.received();
            let more = before < *goal;
            let [from, to] = guests.get_disjoint_mut([*from, *to]).expect("two guests");
            let room = 64 - (stream.sent - stream.received()).min(64);
            stream.send(from, if more { room } else { 0 });
            stream.take(to);
            busy |= more || stream.received() < stream.sent;
            if stream.received() > before {
                patience = Patience::new();
            }
        }
        if !busy {
            return;
        }
        assert!(patience.waited() < Duration::from_secs(10), "nothing more comes");
        std::thread::yield_now();
    }
}

/// A thread has to be overloaded for a minute, which is twelve seconds here.
#[test]
fn overloaded_threads_give_queues_away_and_no_packet_is_lost() {
    let d = Daemon::start_faked("VSWITCH_LOAD_INTERVAL", "1");
    // Every thread that does anything counts as overloaded.
    d.vsctl(
        "set Open_vSwitch . other_config:pmd-cpu-mask=3 other_config:pmd-auto-lb=true \
         other_config:pmd-auto-lb-load-threshold=1 -- add-br br0",
    );
    for name in ["a", "b", "c", "d"] {
        add_port(&d, "br0", name);
    }
    let mut guests: Vec<Driver> = ["a", "b", "c", "d"].map(|name| guest(&d, name)).into();
    introduce(&mut guests);
    let on = |d: &Daemon, core: &str| queues(d)[core].clone();
    // There and back: those that will send are together.
    assert_eq!(
        (on(&d, "0"), on(&d, "1")),
        (vec!["a".into(), "d".into()], vec!["b".into(), "c".into()])
    );
    let mut streams = [(Stream::new(1, 2), 0, 1), (Stream::new(4, 3), 3, 2)];
    let mut patience = Patience::new();
    while d.log_lines("queues are placed anew").is_empty() {
        run(&mut guests, &mut streams, 2000);
        assert!(patience.waited() < Duration::from_secs(100), "{}", d.log());
    }
    run(&mut guests, &mut streams, 2000);
    let found = d.log_lines("PMD auto load balance: loads");
    println!("{}", found.join("\n"));
    assert!(found.iter().all(|l| l.contains("variance improvement")), "{found:?}");
    let senders: Vec<bool> = ["0", "1"].map(|core| on(&d, core).iter().any(|p| p == "a")).into();
    let other = on(&d, if senders[0] { "1" } else { "0" });
    assert!(other.contains(&"d".to_owned()), "{:?}", queues(&d));
    for (stream, from, _) in &streams {
        stream.check(["a", "b", "c", "d"][*from]);
    }
}

/// Packets received and cycles for each, by core, from `pmd-stats-show`.
fn stats(d: &Daemon) -> BTreeMap<String, (u64, f64)> {
    let (mut core, mut out) = (String::new(), BTreeMap::<String, (u64, f64)>::new());
    for line in d.appctl("dpif-netdev/pmd-stats-show").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["pmd", "thread", .., n] => core = n.trim_end_matches(':').to_owned(),
            ["main", "thread:"] => core.clear(),
            ["packets", "received:", n] if !core.is_empty() => {
                out.entry(core.clone()).or_default().0 = n.parse().expect("a number");
            }
            ["avg", "processing", "cycles", "per", "packet:", n, _] if !core.is_empty() => {
                out.entry(core.clone()).or_default().1 = n.parse().expect("a number");
            }
            _ => {}
        }
    }
    out
}

/// Frames that each guest sends while the daemon stands still: they fit into a ring of 256.
const HEAP: u64 = 200;
/// How often.
const HEAPS: u64 = 20;

/// Guests of one bridge, each of which sends to its neighbour, and threads on the cores of `mask`. What
/// each thread received, and how many packets all threads together can do in a cycle.
///
/// The guests need the same cores, so they fill their rings while the daemon is stopped, and wait while it
/// empties them: its cycles are then those that its packets take.
fn aggregate(guests: usize, mask: &str) -> (Vec<u64>, f64) {
    let d = Daemon::start();
    d.vsctl(&format!("set Open_vSwitch . other_config:pmd-cpu-mask={mask} -- add-br br0"));
    let names: Vec<String> = (0..guests).map(|n| format!("g{n}")).collect();
    for name in &names {
        add_port(&d, "br0", name);
    }
    let mut drivers: Vec<Driver> = names.iter().map(|name| guest(&d, name)).collect();
    introduce(&mut drivers);
    let to = |n: usize| (n + 1) % guests;
    let mut streams: Vec<(Stream, usize, usize)> =
        (0..guests).map(|n| (Stream::new(n as u8 + 1, to(n) as u8 + 1), n, to(n))).collect();
    run(&mut drivers, &mut streams, 100);
    d.appctl("dpif-netdev/pmd-stats-clear");
    for _ in 0..HEAPS {
        d.signal("-STOP");
        for (stream, from, _) in &mut streams {
            stream.send(&mut drivers[*from], HEAP);
        }
        d.signal("-CONT");
        wait_for("a heap of frames", || {
            for (stream, _, to) in &mut streams {
                stream.take(&mut drivers[*to]);
            }
            streams.iter().all(|(s, ..)| s.received() == s.sent).then_some(())
        });
    }
    for ((stream, ..), name) in streams.iter().zip(&names) {
        stream.check(name);
    }
    let stats = stats(&d);
    println!("{guests} guests, threads {mask}: packets and cycles for each, by core: {stats:?}");
    (stats.values().map(|s| s.0).collect(), stats.values().map(|s| 1.0 / s.1).sum())
}

/// Whether cores are free for it is chance, so how much it is faster is printed and not judged.
#[test]
fn fourteen_guests_are_served_by_one_thread_and_by_two() {
    let (_, two_guests) = aggregate(2, "1");
    let (received, one) = aggregate(14, "1");
    assert_eq!(received, [14 * HEAP * HEAPS]);
    let (received, two) = aggregate(14, "3");
    let (kept, raised) = (one / two_guests, two / one);
    println!(
        "14 guests do {kept:.2} of what two do, and {raised:.2} times that with a second thread"
    );
    assert_eq!(received, [7 * HEAP * HEAPS; 2], "each thread has its half");
}

#[test]
fn flows_are_spread_over_a_guests_queues_by_hash_if_it_is_asked_for() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    add_port(&d, "br0", "a");
    add_port(&d, "br0", "b");
    let mut from = guest(&d, "a");
    let mut config = Config::new(SocketMode::Connect(d.rundir().join("b"))).with(feature::MQ);
    config.queue_pairs = 2;
    let mut to = Driver::connect(config).expect("the switch answers");
    wait_for("two queues", || {
        let flows = d.appctl("dpif-netdev/pmd-rxq-show").matches("port: b ").count();
        (flows == 2).then_some(())
    });
    let flows: Vec<Flow> = (0..40).map(|id| Flow::between(id, 1, 2)).collect();
    // The queues on which each flow came in.
    let mut pass = |flows: &[Flow]| {
        let mut queues = [Checker::new(flows), Checker::new(flows)];
        for sequence in 0..3 {
            for flow in flows {
                let mut frame = Vec::new();
                flow.frame(sequence, 100, &mut frame);
                send(&mut from, &frame);
            }
        }
        let sum = |queues: &[Checker; 2], flow: &Flow| -> Vec<u64> {
            queues.iter().map(|q| q.report(flow.id).received).collect()
        };
        wait_for("all frames", || {
            for (n, checker) in queues.iter_mut().enumerate() {
                let look = |_: &NetHeader, frame: &[u8]| {
                    checker.check(frame);
                };
                to.rx(n, 64, look).expect("the device follows the rules");
            }
            flows.iter().all(|f| sum(&queues, f).iter().sum::<u64>() == 3).then_some(())
        });
        flows.iter().map(|f| sum(&queues, f)).collect::<Vec<_>>()
    };
    assert!(pass(&flows).iter().all(|n| n[..] == [3, 0]), "one thread has one queue");
    let steer = |how: &str| d.vsctl(&format!("set Interface b other_config:tx-steering={how}"));
    steer("hash");
    let spread = pass(&flows);
    assert!(spread.iter().all(|n| n.contains(&3)), "a flow stays on its queue: {spread:?}");
    let second = spread.iter().filter(|n| n[1] == 3).count();
    assert!((5..=35).contains(&second), "{second} of 40 on the second queue");
    assert_eq!(d.log_lines("b: Tx packet steering mode has been set to 'hash'").len(), 1);
    steer("random");
    assert!(pass(&flows).iter().all(|n| n[..] == [3, 0]), "as by default");
    assert_eq!(d.log_lines("\"random\" is neither thread nor hash").len(), 1, "{}", d.log());
}
