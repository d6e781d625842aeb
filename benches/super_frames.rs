//! Super-frames of 64 KB guest to guest, beside a plain copy of as many bytes between as many buffers: what
//! passing one on costs, what cutting one into segments costs, and how close each is to the copy.
//!
//! One thread is the switch, another both guests; the copy is made by the switch's thread in windows that
//! alternate with the others. Not a criterion bench: medians of many short windows, in cycles a byte.

use benches::{Pairs, listening_port, pin};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::DpPort;
use packet::arch::cycles;
use port::Port;
use port_vhost::VhostPort;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use virtio_driver::config::{self, SocketMode};
use virtio_driver::wire::feature;
use virtio_driver::{Driver, NetHeader};

/// Frames in flight each way.
const DEPTH: u16 = 32;
/// Ethernet, IPv4, TCP with timestamps.
const HEADERS: usize = 66;
const SEGMENT: usize = 1448;
const FRAME: usize = HEADERS + 45 * SEGMENT;
const WINDOWS: usize = 31;
const WINDOW: Duration = Duration::from_millis(40);

/// A super-frame of TCP over IPv4; its checksums are nobody's business here.
fn frame(_: u16, out: &mut Vec<u8>) {
    out.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    out.extend(((FRAME - 14) as u16).to_be_bytes());
    out.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    out.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x10]);
    out.resize(FRAME, 0x5a);
}

/// Descriptors of a ring with buffers of that size.
fn ring(buffer: usize) -> u16 {
    if buffer > FRAME { 2 * DEPTH } else { 256 }
}

fn guest(dir: &Path, name: &str, features: u64, buffer: usize) -> (Arc<VhostPort>, Driver) {
    let (port, path) = listening_port(dir, name);
    let all = features | feature::MRG_RXBUF | feature::CSUM | feature::HOST_TSO4;
    let mut config = config::Config::new(SocketMode::Connect(path)).with(all);
    (config.tx_buffer, config.rx_buffer) = ((FRAME + 12) as u32, buffer as u32);
    config.queue_size = ring(buffer);
    (port, Driver::connect(config).expect("the port answers"))
}

/// Both guests, sending over and over until `stop`.
fn load(mut a: Driver, mut b: Driver, stop: &AtomicBool) {
    pin(1);
    let header = NetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: HEADERS as u16,
        gso_size: SEGMENT as u16,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    let mut a = a.pair(0).saturate_with(DEPTH, &header, frame).expect("frames fit");
    let mut b = b.pair(0).saturate_with(DEPTH, &header, frame).expect("frames fit");
    while !stop.load(Relaxed) {
        a.turn().expect("the switch keeps to the rules");
        b.turn().expect("the switch keeps to the rules");
    }
}

/// Cycles of the polling thread for each byte that arrived.
fn window(datapath: &mut Datapath, ports: &[Arc<VhostPort>; 2], c: &Context<'_>) -> f64 {
    let sent = || ports.iter().map(|p| p.counters().tx_payload_bytes).sum::<u64>();
    let (before, mut spent) = (sent(), 0);
    let began = Instant::now();
    while began.elapsed() < WINDOW {
        for (port, number) in ports.iter().zip([1, 2]) {
            let start = cycles();
            if datapath.walk(&**port, 0, DpPort(number), c) > 0 {
                spent += cycles() - start;
            }
        }
    }
    spent as f64 / (sent() - before) as f64
}

/// A plain copy from as much memory as the guests send from to as much as they receive into.
struct Copy {
    from: Vec<u8>,
    to: Vec<u8>,
    next: (usize, usize),
}

impl Copy {
    fn new(buffers: usize) -> Copy {
        let from = vec![1; 2 * usize::from(DEPTH) * FRAME];
        Copy { from, to: vec![1; 2 * buffers], next: (0, 0) }
    }

    /// Cycles for each byte.
    fn window(&mut self) -> f64 {
        let (mut bytes, start) = (0, cycles());
        let began = Instant::now();
        while began.elapsed() < WINDOW {
            let (from, to) = self.next;
            self.to[to..to + FRAME].copy_from_slice(&self.from[from..from + FRAME]);
            std::hint::black_box(&mut self.to);
            let after = |at: usize, all: usize| if at + 2 * FRAME <= all { at + FRAME } else { 0 };
            self.next = (after(from, self.from.len()), after(to, self.to.len()));
            bytes += FRAME;
        }
        (cycles() - start) as f64 / bytes as f64
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn case(name: &str, features: u64, buffer: usize) {
    let dir = tempfile::tempdir().expect("directory");
    let (port_a, driver_a) = guest(dir.path(), "a", features, buffer);
    let (port_b, driver_b) = guest(dir.path(), "b", features, buffer);
    let mut map = PortMap::default();
    map.set(DpPort(1), Some(port_a.clone()));
    map.set(DpPort(2), Some(port_b.clone()));
    let counters = WalkCounters::default();
    let (punts, stop) = (PuntQueue::default(), AtomicBool::new(false));
    let context = Context {
        ports: &map,
        translate: &Pairs,
        counters: &counters,
        punts: &punts,
        thread: 0,
        now_ms: 1,
        flow_limit: 200_000,
        exact_match: true,
    };
    let mut datapath = Datapath::new(1, Arc::<Registry>::default());
    let buffers = usize::from(ring(buffer)) * buffer;
    let (ports, mut copy) = ([port_a, port_b], Copy::new(buffers));
    std::thread::scope(|s| {
        s.spawn(|| load(driver_a, driver_b, &stop));
        window(&mut datapath, &ports, &context);
        copy.window();
        let rounds = (0..WINDOWS).map(|_| (window(&mut datapath, &ports, &context), copy.window()));
        let (ours, plain): (Vec<f64>, Vec<f64>) = rounds.unzip();
        let (ours, plain) = (median(ours), median(plain));
        let share = 100.0 * plain / ours;
        println!("{name:52} {ours:6.3} cycles/byte, a copy {plain:6.3}: {share:3.0} %");
        stop.store(true, Relaxed);
    });
}

fn main() {
    pin(0);
    println!(
        "{FRAME}-byte super-frames, both ways, one polling core; medians of {WINDOWS} windows"
    );
    let takes = feature::GUEST_CSUM | feature::GUEST_TSO4;
    case("passed on, buffers of 64 KB", takes, FRAME + 12);
    case("passed on, merged buffers of 4 KB", takes, 4096);
    case("passed on, merged buffers of 1536 bytes", takes, 1536);
    case("cut, checksums left to the receiver", feature::GUEST_CSUM, 2048);
    case("cut, checksums completed", 0, 2048);
}
