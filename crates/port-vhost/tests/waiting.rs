//! A thread that waits for guests' kicks instead of polling: it is told of every packet, and of
//! nothing else.

mod common;

use common::{PATIENCE, exchange, guest, open_ports, until, whole};
use packet::{BurstBuf, Set};
use port::{Port, Wait, Waker};
use port_vhost::{Mode, VhostPort};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Instant;
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver};

const BOTH: [Mode; 2] = [Mode::Server, Mode::Client];

/// Turns of a spin loop between two frames, and between the thread's last look at its rings and its
/// asking for kicks, at most: a few microseconds.
const LONGEST_PAUSE: u64 = 100;

fn waker() -> Arc<Waker> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Arc::new(Waker::new(eventfd(0, flags).expect("an eventfd")))
}

/// Takes an eventfd's count; true if there was one.
fn take(event: BorrowedFd<'_>) -> bool {
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

/// Two ports and a thread that forwards between them and blocks, without any timeout, whenever it
/// finds nothing: a wake-up that is lost stops it for good.
struct Sleepy {
    _dir: tempfile::TempDir,
    ports: Vec<Arc<VhostPort>>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    waits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sleepy {
    fn new() -> Sleepy {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = open_ports(dir.path(), &BOTH, 1500);
        let (stop, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let waker = waker();
        let (p, w, s, n) = (ports.clone(), waker.clone(), stop.clone(), waits.clone());
        let thread = std::thread::spawn(move || {
            let mut buf = BurstBuf::new();
            let mut random = 7;
            while !s.load(Relaxed) {
                if !forward(&p, &mut buf) {
                    // The next frame comes before, while and after the thread asks for it.
                    pause(&mut random, LONGEST_PAUSE);
                    wait(&p, &w, &n);
                }
            }
        });
        Sleepy { _dir: dir, ports, waker, stop, waits, thread: Some(thread) }
    }
}

impl Drop for Sleepy {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.waker.ring();
        let result = self.thread.take().expect("once").join();
        if !std::thread::panicking() {
            result.expect("the forwarding thread did not panic");
        }
    }
}

/// One burst from each port to the other; false if there was none.
fn forward(ports: &[Arc<VhostPort>], buf: &mut BurstBuf) -> bool {
    let mut any = false;
    for (i, from) in ports.iter().enumerate() {
        if let Some(mut burst) = from.rx(0, buf) {
            let n = burst.len();
            ports[i ^ 1].tx(0, &mut burst, Set::range(0, n));
            any = true;
        }
    }
    any
}

/// Waits for packets or the waker; returns at once where a port says that it must be polled.
fn wait(ports: &[Arc<VhostPort>], waker: &Arc<Waker>, waits: &AtomicU64) {
    let asked: Vec<Wait> = ports.iter().map(|p| p.wait_for(0, waker)).collect();
    if !asked.iter().any(|w| matches!(w, Wait::Poll)) {
        let signals = asked.iter().filter_map(|w| match w {
            Wait::Signal(event) => Some(event.as_fd()),
            _ => None,
        });
        let sources: Vec<_> = signals.chain([waker.as_fd()]).collect();
        let mut fds: Vec<_> = sources.iter().map(|f| PollFd::new(f, PollFlags::IN)).collect();
        waits.fetch_add(1, Relaxed);
        poll(&mut fds, None).expect("polls");
        for source in sources {
            take(source);
        }
    }
    for port in ports {
        port.wait_over(0, waker);
    }
}

/// The layouts and ways to suppress kicks: bit 0 for event indices, bit 1 for packed rings.
fn variant(config: Config, n: usize) -> Config {
    let set = |c: Config, on, bit| if on { c.with(bit) } else { c.without(bit) };
    let config = set(config, n & 1 != 0, feature::EVENT_IDX);
    set(config, n & 2 != 0, feature::RING_PACKED)
}

fn connect(port: &VhostPort, n: usize) -> Driver {
    Driver::connect(variant(guest(port), n)).expect("connects")
}

/// Spins for some of up to `most` turns.
fn pause(random: &mut u64, most: u64) {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    for _ in 0..(*random >> 33) % most {
        std::hint::spin_loop();
    }
}

#[test]
fn no_wake_up_is_lost() {
    // More round trips than a ring has entries, several times over, so that indices and wrap
    // counters go round.
    const ROUNDS: u64 = 5000;
    for n in 0..4 {
        let lab = Sleepy::new();
        let (mut a, mut b) = (connect(&lab.ports[0], n), connect(&lab.ports[1], n));
        let (there, back) = (Flow::between(1, 1, 2), Flow::between(2, 2, 1));
        let mut random = n as u64 + 1;
        let mut frame = Vec::new();
        let deadline = |what: &str, done: &mut dyn FnMut() -> bool| {
            let start = Instant::now();
            while !done() {
                assert!(start.elapsed() < PATIENCE, "variant {n}: {what} does not arrive");
            }
        };
        for k in 0..ROUNDS {
            there.frame(k, 60, &mut frame);
            assert_eq!(a.tx(0, &[&frame]).expect("sends"), 1);
            deadline("a frame", &mut || b.rx(0, 1, |_, _| {}).expect("receives") == 1);
            pause(&mut random, LONGEST_PAUSE);
            back.frame(k, 60, &mut frame);
            assert_eq!(b.tx(0, &[&frame]).expect("sends"), 1);
            deadline("an answer", &mut || a.rx(0, 1, |_, _| {}).expect("receives") == 1);
            deadline("a buffer", &mut || {
                a.reclaim(0).expect("reclaims") + b.reclaim(0).expect("reclaims") > 0
                    || a.pair(0).tx.in_flight() + b.pair(0).tx.in_flight() == 0
            });
            pause(&mut random, LONGEST_PAUSE);
        }
        let waits = lab.waits.load(Relaxed);
        let kicks = a.pair(0).tx.stats().kicks + b.pair(0).tx.stats().kicks;
        assert!(waits > ROUNDS / 10, "variant {n}: it waited {waits} times only");
        assert!(kicks > 0, "variant {n}");
        println!("variant {n}: {} frames, {waits} waits, {kicks} kicks", 2 * ROUNDS);
    }
}

#[test]
fn kicks_come_while_a_thread_waits_and_not_else() {
    for n in 0..4 {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = open_ports(dir.path(), &BOTH, 1500);
        let (mut a, _b) = (connect(&ports[0], n), connect(&ports[1], n));
        let waker = waker();
        let mut buf = BurstBuf::new();
        until("both ports run", || {
            ports.iter().all(|p| p.status().vring_sizes.iter().all(|&s| s > 0))
        });
        let mut frame = Vec::new();
        Flow::between(1, 1, 2).frame(0, 60, &mut frame);
        let mut kicks = 0;
        let mut sent = |a: &mut Driver, buf: &mut BurstBuf, kicked: u64, what: &str| {
            assert_eq!(a.tx(0, &[&frame]).expect("sends"), 1);
            kicks += kicked;
            assert_eq!(a.pair(0).tx.stats().kicks, kicks, "variant {n}: {what}");
            until(what, || ports[0].rx(0, buf).is_some());
            until(what, || a.reclaim(0).expect("reclaims") == 1);
        };
        // The first buffer passes the index that the ring begins with.
        let first = u64::from(n == 1);
        sent(&mut a, &mut buf, first, "the first, polled for");
        for k in 0..600 {
            let Wait::Signal(event) = ports[0].wait_for(0, &waker) else {
                panic!("variant {n}: nothing is there, but it must be polled")
            };
            take(event.as_fd());
            sent(&mut a, &mut buf, 1, "waited for");
            assert!(take(event.as_fd()), "the kick came");
            ports[0].wait_over(0, &waker);
            for _ in 0..k % 3 {
                sent(&mut a, &mut buf, 0, "polled for");
            }
            assert!(!take(event.as_fd()));
        }
        // What is there already is not waited for.
        a.tx(0, &[&frame]).expect("sends");
        assert!(matches!(ports[0].wait_for(0, &waker), Wait::Poll), "variant {n}");
        ports[0].wait_over(0, &waker);
    }
}

#[test]
fn the_waiter_is_told_when_its_queue_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let ports = open_ports(dir.path(), &BOTH, 1500);
    let port = &ports[0];
    let waker = waker();
    let rung = || take(waker.as_fd());
    let told = |what: &str| until(what, rung);
    let quiet = || matches!(port.wait_for(0, &waker), Wait::Quiet);
    let signal = || -> Option<Arc<OwnedFd>> {
        match port.wait_for(0, &waker) {
            Wait::Signal(event) => Some(event),
            _ => None,
        }
    };
    assert!(quiet() && matches!(port.wait_for(99_999, &waker), Wait::Quiet));
    let mut a = connect(port, 0);
    told("a front end came");
    until("its queue runs", || signal().is_some());
    let settled = || until("no more of it", || !rung());
    settled();
    a.set_ring_enabled(1, false).expect("disables");
    told("it was disabled");
    assert!(quiet());
    settled();
    a.set_ring_enabled(1, true).expect("enables");
    told("it was enabled");
    assert!(signal().is_some());
    settled();
    let bases = a.stop_pair(0).expect("stops");
    told("it was stopped");
    assert!(quiet());
    a.start_pair(0, bases).expect("starts");
    told("it was started");
    until("it runs", || signal().is_some());
    settled();
    a.reset().expect("resets");
    told("a reset");
    until("it runs again", || signal().is_some());
    settled();
    drop(a);
    told("the front end went");
    until("it does not run", quiet);
    settled();
    // Who does not wait any more is not told, and another thread's end does not end this one's wait.
    let other = self::waker();
    port.wait_over(0, &other);
    let again = connect(port, 0);
    told("it was still waiting");
    until("it runs", || signal().is_some());
    port.wait_over(0, &waker);
    settled();
    drop(again);
    until("it does not run", || !port.status().connected);
    assert!(!rung());
}

#[test]
fn traffic_is_whole_through_a_thread_that_waits() {
    for n in 0..4 {
        let lab = Sleepy::new();
        let (mut a, mut b) = (connect(&lab.ports[0], n), connect(&lab.ports[1], n));
        for window in [1, 5, 64] {
            let flow = Flow::between(window as u16, 1, 2);
            let len = |k: u64| 60 + k as usize % 1400;
            let t = common::Traffic { pair: 0, flow, window, len: &len, layout: &whole };
            exchange(&format!("variant {n}, window {window}"), &mut a, &mut b, &t, 0..2000);
        }
    }
}
