//! Threads that wait for guests' kicks: no packet is late for it, and what it costs and saves.

use datapath::FlowState;
use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Seen, Translate, Translation};
use pmd::{Clock, Pool, PortEntry, Topology};
use port_vhost::{Mode, VhostPort};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, SocketMode};

const PATIENCE: Duration = Duration::from_secs(20);
/// A round trip that takes longer was not woken for: half of the longest wait of a thread.
const LATE: Duration = Duration::from_millis(50);
/// Each test has a thread that polls, on the same core.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Nothing;
impl Effects for Nothing {
    fn apply(&self, _: &Seen) {}
}

/// Port 1 to port 2 and back.
struct Cross;
impl Translate for Cross {
    fn translate(&self, key: &FlowKey) -> Translation {
        let actions = vec![Action::Output(DpPort(3 - key.in_port))];
        Translation { mask: FlowMask::default(), actions, effects: Arc::new(Nothing) }
    }
    fn generation(&self) -> u64 {
        0
    }
}

/// Two guests on a switch of one thread; this thread plays both guests.
struct Lab {
    pool: Pool,
    a: Driver,
    b: Driver,
    sequence: u64,
    _dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// Bit 0 of `variant` is for event indices, bit 1 for packed rings.
    fn new(variant: usize) -> Lab {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a directory");
        let open = |n: u32| {
            let config = port_vhost::Config {
                name: format!("port{n}"),
                mode: Mode::Server,
                path: dir.path().join(format!("port{n}")),
                mtu: 1500,
                offers: port_vhost::Offers::All,
                on_change: Box::new(|| {}),
            };
            let port = Arc::new(VhostPort::open(config).expect("the port opens"));
            (
                port.clone(),
                PortEntry {
                    number: DpPort(n),
                    port,
                    policer: None,
                    captures: Vec::new(),
                    node: None,
                    polled: true,
                    by_worker: false,
                    affinity: Default::default(),
                },
            )
        };
        let ((p, one), (q, two)) = (open(1), open(2));
        let topology = Topology::read(Path::new("/nonexistent"));
        let mut pool = Pool::new(topology, Arc::new(Cross), Clock::default(), 100);
        pool.set_cores(&[]);
        pool.set_ports(vec![one, two]);
        let connect = |port: &VhostPort| {
            let mut config = Config::new(SocketMode::Connect(port.path().to_owned()));
            config.patience = PATIENCE;
            for (bit, feature) in [feature::EVENT_IDX, feature::RING_PACKED].into_iter().enumerate()
            {
                if variant >> bit & 1 != 0 {
                    config = config.with(feature);
                }
            }
            Driver::connect(config).expect("connects")
        };
        let (a, b) = (connect(&p), connect(&q));
        Lab { pool, a, b, sequence: 0, _dir: dir, _alone: alone }
    }

    /// How often the thread has waited.
    fn waits(&self) -> u64 {
        self.pool.counters()["datapath_sleep_iterations"]
    }

    /// One frame there and one back; how long that took.
    fn round_trip(&mut self) -> Duration {
        let mut frame = Vec::new();
        Flow::between(1, 1, 2).frame(self.sequence, 60, &mut frame);
        self.sequence += 1;
        let start = Instant::now();
        pass(&mut self.a, &mut self.b, &frame);
        pass(&mut self.b, &mut self.a, &frame);
        let time = start.elapsed();
        for guest in [&mut self.a, &mut self.b] {
            assert!(guest.drain_tx(0, Instant::now() + PATIENCE).expect("drains"));
        }
        time
    }
}

fn pass(from: &mut Driver, to: &mut Driver, frame: &[u8]) {
    assert_eq!(from.tx(0, &[frame]).expect("sends"), 1);
    let start = Instant::now();
    while to.rx(0, 1, |_, f| assert_eq!(f, frame)).expect("receives") == 0 {
        assert!(start.elapsed() < PATIENCE, "a frame does not arrive");
        std::hint::spin_loop();
    }
}

/// The median and the 99th percentile.
fn quantiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn pauses_around_the_threshold_make_no_frame_late() {
    for variant in 0..4 {
        let mut lab = Lab::new(variant);
        lab.round_trip();
        let before = lab.waits();
        let mut random = 1u32;
        // Without and with waiting. A lost wake-up is made good by the end of the longest wait; but a
        // busy machine may stop this process for as long, whatever the thread does.
        let mut late = [0, 0];
        for n in 0..2000 {
            // The thread waits after 1 to 2 ms, by a clock of milliseconds.
            let waiting = n / 50 % 2;
            lab.pool.set_idle_wait(Some(waiting as u64));
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let more_us = u64::from(random >> 16) % 1300;
            std::thread::sleep(Duration::from_micros(900 + more_us));
            late[waiting] += usize::from(lab.round_trip() > LATE);
        }
        let waits = lab.waits() - before;
        println!("variant {variant}: {waits} waits, round trips over {LATE:?}: {late:?} of 1000");
        assert!(waits > 50, "variant {variant}: {waits} waits");
        assert!(late[1] <= 20 + 2 * late[0], "variant {variant}: {late:?} of 1000 are late");
    }
}

/// A front end shares its kick descriptor, so it can make it blocking, full, and signalled all the time.
#[test]
fn a_guest_that_spoils_its_kicks_makes_nobody_wait() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let mut lab = Lab::new(0);
    lab.pool.set_idle_wait(Some(1));
    lab.round_trip();
    let full = rustix::io::dup(lab.a.pair(0).tx.kick_event().fd()).expect("a descriptor");
    let flags = fcntl_getfl(&full).expect("flags");
    let most = (u64::MAX - 1).to_ne_bytes();
    lab.a.pair(0).tx.kick_event().take();
    rustix::io::write(&full, &most).expect("is empty");
    fcntl_setfl(&full, flags - OFlags::NONBLOCK).expect("settable");
    // The other guest's frames wake the thread as ever.
    let send = |lab: &mut Lab, n: u8| {
        std::thread::sleep(Duration::from_millis(4));
        let start = Instant::now();
        pass(&mut lab.b, &mut lab.a, &[n; 60]);
        assert!(lab.b.drain_tx(0, Instant::now() + PATIENCE).expect("drains"));
        start.elapsed()
    };
    let times: Vec<Duration> = (0..50).map(|n| send(&mut lab, n)).collect();
    assert!(quantiles(times.clone()).0 < LATE, "{times:?}");
    // Signalled without end, full and empty in turn: the thread is kept awake, and works.
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Relaxed) {
                let _ = rustix::io::read(&full, &mut [0; 8]);
                let _ = rustix::io::write(&full, &most);
            }
        });
        for n in 0..50 {
            send(&mut lab, n);
        }
        stop.store(true, Relaxed);
    });
    fcntl_setfl(&full, flags).expect("settable");
    lab.round_trip();
}

#[test]
fn a_thread_that_waits_does_all_else_in_time() {
    let mut lab = Lab::new(0);
    lab.pool.set_idle_wait(Some(1));
    lab.round_trip();
    let start = lab.waits();
    let until = |what: &str, done: &mut dyn FnMut() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "{what}: not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until("a wait", &mut || lab.waits() > start);
    // Flows that the revalidator ended are removed, all of them, without a packet.
    let registry = lab.pool.threads()[0].thread.registry.clone();
    let flows = registry.flows();
    assert_eq!(flows.len(), 2);
    for flow in &flows {
        registry.kill(flow);
    }
    until("removal", &mut || flows.iter().all(|f| f.state() == FlowState::Removed));
    // Frames of the switch itself wake it.
    let times = (1..=50u8).map(|n| {
        std::thread::sleep(Duration::from_millis(4));
        let start = Instant::now();
        assert!(lab.pool.execute(vec![n; 60], DpPort(1), vec![Action::Output(DpPort(2))]));
        assert_eq!(lab.b.rx(0, 1, |_, f| assert_eq!(f, [n; 60])).expect("receives"), 1);
        start.elapsed()
    });
    let (median, _) = quantiles(times.collect());
    assert!(median < LATE, "{median:?} for a frame of the switch");
    // So do a new plan, and the end.
    let start = Instant::now();
    lab.pool.set_ports(Vec::new());
    lab.pool.stop();
    assert!(start.elapsed() < PATIENCE);
}

/// What being woken costs. Run it alone and in a release build for figures that mean something:
/// `cargo test --release -p pmd --test idle -- --nocapture latency`.
#[test]
fn latency_after_a_wait_and_without() {
    for variant in [0, 2] {
        let mut lab = Lab::new(variant);
        let measure = |lab: &mut Lab, ms| {
            lab.pool.set_idle_wait(Some(ms));
            lab.round_trip();
            let before = lab.waits();
            let times = (0..500).map(|_| {
                std::thread::sleep(Duration::from_millis(4));
                lab.round_trip()
            });
            let times = times.collect();
            (quantiles(times), lab.waits() - before)
        };
        let ((polled, polled_99), none) = measure(&mut lab, 0);
        let ((woken, woken_99), waits) = measure(&mut lab, 1);
        println!(
            "variant {variant}: round trip after 4 ms of silence, polling: median {polled:?}, p99 \
             {polled_99:?}; woken by a kick: median {woken:?}, p99 {woken_99:?}"
        );
        assert_eq!(none, 0, "it was told not to wait");
        assert!(waits >= 400, "it waited {waits} times in 500");
    }
}
