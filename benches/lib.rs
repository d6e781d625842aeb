//! What the microbenches share: frames, and a port that costs nothing.
//!
//! `cargo bench -p benches` runs them; all count packets, so `elem/s` is packets a second on one core
//! with warm caches. They rank changes; only `cargo xtask bench` compares switches.
//! `cargo xtask instructions` counts instructions instead, see `instructions.rs`.
#![forbid(unsafe_code)]

use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Seen, Translate, Translation};
use packet::{BURST, Burst, BurstBuf, Lender, Set};
use port::{Counters, Port};
use port_vhost::{Config, Mode, Offers, VhostPort};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A UDP frame of 64 bytes over IPv4 whose source port is `flow`.
pub fn udp_frame(flow: u16) -> [u8; 64] {
    let mut f = [0u8; 64];
    f[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    f[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17]);
    f[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    f[34..36].copy_from_slice(&flow.to_be_bytes());
    f[36..38].copy_from_slice(&2000u16.to_be_bytes());
    f[38..40].copy_from_slice(&30u16.to_be_bytes());
    f
}

/// A UDP frame of 78 bytes over IPv6.
pub fn udp6_frame() -> [u8; 78] {
    let mut f = [0u8; 78];
    f[..16].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0]);
    f[18..22].copy_from_slice(&[0, 24, 17, 64]);
    f[22] = 0xfe;
    f[38] = 0xfe;
    f[54..62].copy_from_slice(&[1, 0, 2, 0, 0, 24, 0, 0]);
    f
}

/// Effects of packets that cause none.
pub struct Nothing;

impl Effects for Nothing {
    fn apply(&self, _: &Seen) {}
}

/// From ports 1 and 2, 3 and 4, and so on, each to the other.
pub struct Pairs;

impl Translate for Pairs {
    fn translate(&self, key: &FlowKey) -> Translation {
        let to = ((key.in_port - 1) ^ 1) + 1;
        let actions = vec![Action::Output(DpPort(to))];
        Translation { mask: FlowMask::default(), actions, effects: Arc::new(Nothing) }
    }

    fn generation(&self) -> u64 {
        0
    }
}

/// Keeps this thread on a core; says so if it cannot.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        println!("core {core}: not pinned: {error}");
    }
}

/// A port that waits for its guest at a socket in `dir`, and where that is.
///
/// # Panics
/// If the socket cannot be made.
pub fn listening_port(dir: &Path, name: &str) -> (Arc<VhostPort>, PathBuf) {
    let path = dir.join(name);
    let port = VhostPort::open(Config {
        name: name.into(),
        mode: Mode::Server,
        path: path.clone(),
        mtu: 1500,
        offers: Offers::All,
        on_change: Box::new(|| ()),
    });
    (Arc::new(port.expect("socket in a temporary directory")), path)
}

thread_local! {
    static GIVEN_BACK: Cell<u64> = const { Cell::new(0) };
}

/// A port that always has a full burst and swallows what is sent to it.
pub struct Endless {
    frames: Vec<[u8; 64]>,
    next: AtomicUsize,
}

impl Endless {
    /// Receives these frames, round and round.
    pub fn new(frames: Vec<[u8; 64]>) -> Endless {
        Endless { frames, next: AtomicUsize::new(0) }
    }
}

impl Lender for Endless {
    fn give_back(&self) {
        GIVEN_BACK.set(GIVEN_BACK.get() + 1);
    }
}

impl Port for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    fn rx_queues(&self) -> usize {
        1
    }

    fn rx<'b>(&'b self, _queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        buf.clear();
        let mut next = self.next.load(Relaxed);
        for _ in 0..BURST {
            buf.push()?.set_header(&self.frames[next]);
            next += 1;
            if next == self.frames.len() {
                next = 0;
            }
        }
        self.next.store(next, Relaxed);
        Some(buf.lend(self))
    }

    fn tx(&self, _thread: usize, _burst: &mut Burst<'_>, set: Set) {
        std::hint::black_box(set);
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}
