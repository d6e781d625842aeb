//! Threads that wait for guests' kicks: no packet is late for it, and what it costs and saves.

use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Seen, Translate, Translation};
use pmd::{Clock, Pool, PortEntry, Topology};
use port_vhost::{Mode, VhostPort};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, SocketMode};

const PATIENCE: Duration = Duration::from_secs(20);

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
}

impl Lab {
    /// Bit 0 of `variant` is for event indices, bit 1 for packed rings.
    fn new(variant: usize) -> Lab {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |n: u32| {
            let config = port_vhost::Config {
                name: format!("port{n}"),
                mode: Mode::Server,
                path: dir.path().join(format!("port{n}")),
                mtu: 1500,
                on_change: Box::new(|| {}),
            };
            let port = Arc::new(VhostPort::open(config).expect("the port opens"));
            (port.clone(), PortEntry { number: DpPort(n), port, node: None, polled: true })
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
        Lab { pool, a, b, sequence: 0, _dir: dir }
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
    // The thread waits after 1 to 2 ms, by a clock of milliseconds.
    for variant in 0..4 {
        let mut lab = Lab::new(variant);
        lab.pool.set_idle_wait(Some(1));
        lab.round_trip();
        let before = lab.waits();
        let mut random = 1u32;
        let mut late = 0;
        for _ in 0..1000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(
                Duration::from_micros(900) + Duration::from_micros(u64::from(random >> 16) % 1300),
            );
            // A lost wake-up would be made good by the longest wait, of which a part is over.
            late += usize::from(lab.round_trip() > Duration::from_millis(50));
        }
        let waits = lab.waits() - before;
        println!("variant {variant}: {waits} waits, {late} of 1000 round trips over 50 ms");
        assert!(waits > 50, "variant {variant}: {waits} waits");
        // A busy machine may stop this process for as long, but not often.
        assert!(late < 20, "variant {variant}: {late} of 1000 round trips took over 50 ms");
    }
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
