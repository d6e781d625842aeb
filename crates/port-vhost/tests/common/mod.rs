//! Ports in this process with a thread that forwards between them as a PMD does, and drivers as their
//! guests.
#![allow(dead_code, reason = "each test program uses a part")]

use packet::{BurstBuf, DropReason, Set};
use port::{Counters, Port};
use port_vhost::{Config, Mode, Offers, VhostPort};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use virtio_driver::payload::{Checker, Flow};
use virtio_driver::{Config as Guest, Driver, Layout, NetHeader, SocketMode};

/// How long anything may take on a busy machine before it counts as not happening.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ports 0 and 1 are joined, 2 and 3, and so on.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub ports: Vec<Arc<VhostPort>>,
    stop: Arc<AtomicBool>,
    pub turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    pub fn new(modes: &[Mode], mtu: u32) -> Lab {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = open_ports(dir.path(), modes, mtu);
        let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (p, s, t) = (ports.clone(), stop.clone(), turns.clone());
        let thread = Some(std::thread::spawn(move || forward(&p, &s, &t)));
        Lab { dir, ports, stop, turns, thread }
    }

    pub fn socket(&self, port: usize) -> PathBuf {
        self.ports[port].path().to_owned()
    }

    /// A guest's configuration for a port.
    pub fn guest(&self, port: usize) -> Guest {
        guest(&self.ports[port])
    }

    pub fn counters(&self, port: usize) -> Counters {
        self.ports[port].counters()
    }

    /// Waits until the forwarding thread has finished with all that was in the rings before.
    pub fn settle(&self) {
        let turn = self.turns.load(Ordering::Relaxed);
        until("the ports are polled", || self.turns.load(Ordering::Relaxed) > turn + 2);
    }

    pub fn drops(&self, port: usize, reason: DropReason) -> u64 {
        self.counters(port).drops[reason as usize]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().expect("once").join();
        if !std::thread::panicking() {
            result.expect("the forwarding thread did not panic");
        }
    }
}

/// Ports with sockets in `dir`.
pub fn open_ports(dir: &Path, modes: &[Mode], mtu: u32) -> Vec<Arc<VhostPort>> {
    let open = |(i, &mode): (usize, &Mode)| {
        let config = Config {
            name: format!("port{i}"),
            mode,
            path: dir.join(format!("port{i}")),
            mtu,
            offers: Offers::All,
            on_change: Box::new(|| {}),
        };
        Arc::new(VhostPort::open(config).expect("the port opens"))
    };
    modes.iter().enumerate().map(open).collect()
}

/// A guest's configuration for a port.
pub fn guest(port: &VhostPort) -> Guest {
    let path = port.path().to_owned();
    let mut config = Guest::new(match port.mode() {
        Mode::Client => SocketMode::Listen(path),
        Mode::Server => SocketMode::Connect(path),
    });
    config.patience = PATIENCE;
    config
}

fn forward(ports: &[Arc<VhostPort>], stop: &AtomicBool, turns: &AtomicU64) {
    let mut buf = BurstBuf::new();
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for (i, from) in ports.iter().enumerate() {
            for queue in 0..from.rx_queues() {
                if let Some(mut burst) = from.rx(queue, &mut buf) {
                    let n = burst.len();
                    ports[i ^ 1].tx(queue, &mut burst, Set::range(0, n));
                    drop(burst);
                    fence(Ordering::SeqCst);
                    ports[i ^ 1].tell_sent(queue);
                    from.tell_taken(queue);
                    idle = false;
                }
            }
        }
        turns.fetch_add(1, Ordering::Relaxed);
        if idle {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

/// Looks until `ready`, or fails.
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Frames of a flow from one guest to another.
pub struct Traffic<'a> {
    pub pair: usize,
    pub flow: Flow,
    pub window: u64,
    pub len: &'a dyn Fn(u64) -> usize,
    pub layout: &'a dyn Fn(u64) -> Layout,
}

pub fn whole(_: u64) -> Layout {
    Layout::whole()
}

/// Sends the frames numbered by `range`; all must arrive, in order and with every byte right.
pub fn exchange(
    what: &str,
    from: &mut Driver,
    to: &mut Driver,
    t: &Traffic<'_>,
    range: Range<u64>,
) {
    let mut checker = Checker::new(&[t.flow]);
    let (mut next, mut got) = (range.start, range.start);
    let deadline = Instant::now() + PATIENCE;
    let mut frame = Vec::new();
    while got < range.end {
        while next < range.end && next < got + t.window {
            t.flow.frame(next, (t.len)(next), &mut frame);
            let sent = from.tx_chain(t.pair, &NetHeader::default(), &[&frame], &(t.layout)(next));
            if sent.unwrap_or_else(|e| panic!("{what}: {e}")) == 0 {
                break;
            }
            next += 1;
        }
        let n = to.rx(t.pair, 64, |_, frame| {
            assert!(checker.check(frame), "{what}: a frame of {} bytes is wrong", frame.len());
        });
        let n = n.unwrap_or_else(|e| panic!("{what}: {e}"));
        got += n as u64;
        if n == 0 {
            assert!(Instant::now() < deadline, "{what}: {got} of {next} frames came");
            std::thread::yield_now();
        }
    }
    let report = checker.report(t.flow.id);
    let seen = (report.received, report.reordered, report.duplicated, report.corrupt);
    assert_eq!(seen, (range.end - range.start, 0, 0, 0), "{what}");
    assert!(from.drain_tx(t.pair, deadline).expect("drains"), "{what}: buffers did not come back");
}

/// A few frames both ways.
pub fn ping(what: &str, a: &mut Driver, b: &mut Driver) {
    let go =
        |flow| Traffic { pair: 0, flow, window: 8, len: &|n| 60 + 97 * n as usize, layout: &whole };
    exchange(what, a, b, &go(Flow::between(1, 1, 2)), 0..12);
    exchange(what, b, a, &go(Flow::between(2, 2, 1)), 0..12);
}
