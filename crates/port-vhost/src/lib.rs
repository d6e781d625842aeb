//! Vhost-user ports: virtual machines' virtio-net devices, by shared memory.
//!
//! The principal type is [`VhostPort`]. A thread of its own ([`link`]) connects to the front end or
//! waits for it, and runs the [`session`] that follows its messages, maps guest memory and starts and
//! stops rings; PMD threads move bursts through the rings and never talk to the session. What the
//! two share is a [`vring::Vring`] for each queue, which whoever uses it claims.
//!
//! The `vhost` crate's message types are used; its dispatcher refuses stock QEMU's order of messages,
//! and the `virtio-queue` crate's rings cost 9 to 14 times as much a packet, so both are our own.
//!
//! `unsafe` is in [`claim`], in [`call`], [`link`] and [`message`] (descriptors from the kernel
//! and from the front end), in [`numa`] (a question to the kernel), in [`ring`] (guest memory) and in
//! [`sigbus`] (guest memory that went away).

mod call;
mod claim;
mod features;
mod link;
mod log_budget;
mod mem;
mod message;
mod numa;
mod ring;
mod session;
mod sigbus;
mod vring;

pub use link::Mode;
pub use ring::RingFault;

use log_budget::LogBudget;
use packet::{Abilities, Burst, BurstBuf, DropCounts, DropReason, Set, longest_untagged};
use port::{Counters, Port, Wait, Waker};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vring::Vring;

/// Queue pairs of one port at most. The same as DPDK's vhost library, so that a guest that worked
/// there works here.
pub const MAX_QUEUE_PAIRS: usize = 128;
const MAX_VRINGS: usize = 2 * MAX_QUEUE_PAIRS;

/// What a port is made from.
pub struct Config {
    /// Name of the interface.
    pub name: String,
    /// Which side listens.
    pub mode: Mode,
    /// The socket.
    pub path: PathBuf,
    /// Largest IP packet in bytes, 68 to 9702; longer frames to the guest are dropped.
    pub mtu: u32,
    /// What is offered to front ends.
    pub offers: Offers,
    /// Called, from the port's thread, when a front end comes or goes or its queues change.
    pub on_change: Box<dyn Fn() + Send + Sync>,
}

/// Offloads that front ends are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Offers {
    /// None: each frame is whole, with its checksums.
    Nothing,
    /// Checksums.
    Checksums,
    /// Checksums and super-frames.
    All,
}

/// What is known of the front end, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// A front end is connected.
    pub connected: bool,
    /// Virtio features that were negotiated.
    pub features: u64,
    /// Size of each ring that runs, by its index; 0 if it does not.
    pub vring_sizes: Vec<u16>,
    /// Regions of guest memory.
    pub mem_regions: usize,
    /// Why the last connection was given up, if the front end did not close it.
    pub last_error: Option<String>,
}

impl Status {
    /// What was negotiated: what the guest takes, named as OVS names it (`tx_`, as the switch sends it), and
    /// what it gives.
    pub fn offloads(&self) -> [(&'static str, bool); 8] {
        let (takes, gives) = (features::can_take(self.features), features::may_ask(self.features));
        let tso = Abilities::TSO4.with(Abilities::TSO6, true);
        [
            ("tx_tcp_csum_offload", takes.has(Abilities::CSUM)),
            ("tx_udp_csum_offload", takes.has(Abilities::CSUM)),
            ("tx_tcp_seg_offload", takes.has(tso)),
            ("tx_udp_seg_offload", takes.has(Abilities::USO)),
            ("rx_csum_offload", gives.has(Abilities::CSUM)),
            ("rx_tcp_seg_offload", gives.has(tso)),
            ("rx_udp_seg_offload", gives.has(Abilities::USO)),
            ("userspace-tso", takes.has(tso) && gives.has(tso)),
        ]
    }
}

/// What the port's thread, PMD threads and the daemon share.
struct Shared {
    name: String,
    on_change: Box<dyn Fn() + Send + Sync>,
    /// Made when a front end first touches them.
    vrings: Box<[OnceLock<Box<Vring>>]>,
    /// Receive queues to poll, see [`Port::rx_queues`].
    rx_queues: AtomicUsize,
    /// Pairs among which a live transmit queue is looked for.
    tx_queues: AtomicUsize,
    mtu: AtomicU32,
    /// NUMA node of the last guest's memory; negative if unknown.
    node: AtomicI32,
    /// As [`Offers`].
    offers: AtomicU8,
    /// Drops before a queue was chosen; written by several threads, so by locked additions.
    no_queue: AtomicU64,
    contended: AtomicU64,
    ring_faults: AtomicU64,
    connections: AtomicU64,
    protocol_errors: AtomicU64,
    /// Of all log lines that a front end can cause, over all its connections.
    log: LogBudget,
    status: Mutex<Status>,
    /// Rung by PMD threads when a ring broke a rule.
    bell: Arc<EventFd>,
    /// Rung when the port is to go.
    stop: EventFd,
}

impl Shared {
    /// Queue `i`, made if need be. `i` is less than [`MAX_VRINGS`].
    fn vring(&self, i: usize) -> &Vring {
        self.vrings[i].get_or_init(|| Box::new(Vring::new(self.bell.clone())))
    }

    /// The virtio features that front ends are offered.
    fn offered(&self) -> u64 {
        let offers = self.offers.load(Relaxed);
        let with = |least: Offers, more| if offers >= least as u8 { more } else { 0 };
        features::PLAIN
            | with(Offers::Checksums, features::CHECKSUMS)
            | with(Offers::All, features::SUPER_FRAMES)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs what a front end did wrong, as long as the budget lasts.
    fn warn(&self, what: std::fmt::Arguments<'_>) {
        if let Some(more) = self.log.take(Instant::now()) {
            tracing::warn!("{}: {what}{more}", self.name);
        }
    }

    /// Logs what a front end did, as long as the budget lasts.
    fn info(&self, what: std::fmt::Arguments<'_>) {
        if let Some(more) = self.log.take(Instant::now()) {
            tracing::info!("{}: {what}{more}", self.name);
        }
    }
}

/// A vhost-user port.
pub struct VhostPort {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    mode: Mode,
}

impl VhostPort {
    /// Opens the port: binds its socket ([`Mode::Server`]) and starts its thread.
    ///
    /// # Errors
    /// If the socket cannot be bound, another process listens on it, or no thread can be made.
    pub fn open(config: Config) -> std::io::Result<VhostPort> {
        let Config { name, mode, path, mtu, offers, on_change } = config;
        let listener = link::prepare(mode, &path)?;
        let shared = Arc::new(Shared {
            name,
            on_change,
            vrings: (0..MAX_VRINGS).map(|_| OnceLock::new()).collect(),
            rx_queues: AtomicUsize::new(1),
            tx_queues: AtomicUsize::new(0),
            mtu: AtomicU32::new(mtu),
            node: AtomicI32::new(-1),
            offers: AtomicU8::new(offers as u8),
            no_queue: AtomicU64::new(0),
            contended: AtomicU64::new(0),
            ring_faults: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            log: LogBudget::new(Instant::now()),
            status: Mutex::default(),
            bell: Arc::new(EventFd::new(EFD_NONBLOCK)?),
            stop: EventFd::new(EFD_NONBLOCK)?,
        });
        let (for_thread, socket) = (shared.clone(), path.clone());
        let thread = std::thread::Builder::new()
            .name(format!("vhost {}", shared.name))
            .spawn(move || link::run(&for_thread, mode, &socket, listener))?;
        Ok(VhostPort { shared, thread: Mutex::new(Some(thread)), path, mode })
    }

    /// Disconnects the front end and ends the port's thread. PMD threads find all queues disabled.
    pub fn close(&self) {
        let _ = self.shared.stop.write(1);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("{}: the port's thread panicked", self.shared.name);
        }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which side listens.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What is known of the front end.
    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }

    /// Times that a front end connected, connections given up for a protocol error, and rings
    /// stopped because they broke a rule.
    pub fn session_counts(&self) -> (u64, u64, u64) {
        let s = &self.shared;
        (s.connections.load(Relaxed), s.protocol_errors.load(Relaxed), s.ring_faults.load(Relaxed))
    }

    /// Largest IP packet in bytes.
    pub fn mtu(&self) -> u32 {
        self.shared.mtu.load(Relaxed)
    }

    /// Changes the MTU, for frames sent from now on.
    pub fn set_mtu(&self, mtu: u32) {
        self.shared.mtu.store(mtu, Relaxed);
    }

    /// Changes what front ends are offered that connect from now on. A guest keeps what it negotiated, also
    /// when its front end connects again.
    pub fn set_offers(&self, offers: Offers) {
        self.shared.offers.store(offers as u8, Relaxed);
    }

    /// The transmit queue for a PMD thread: its own if there are enough, else shared.
    #[inline(always)]
    fn tx_ring(&self, thread: usize) -> Option<&Vring> {
        let n = self.shared.tx_queues.load(Relaxed);
        (0..n)
            .map(|k| 2 * ((thread + k) % n))
            .find_map(|i| self.shared.vrings[i].get().filter(|v| v.is_live()))
            .map(|ring| &**ring)
    }
}

impl Drop for VhostPort {
    fn drop(&mut self) {
        self.close();
    }
}

impl Port for VhostPort {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn rx_queues(&self) -> usize {
        self.shared.rx_queues.load(Relaxed)
    }

    fn tx_queues(&self) -> usize {
        self.shared.tx_queues.load(Relaxed)
    }

    /// Of the guest's rings, found when they started. It stays when the guest goes: most come back to it.
    fn node(&self) -> Option<usize> {
        usize::try_from(self.shared.node.load(Relaxed)).ok()
    }

    #[inline(always)]
    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        self.shared.vrings.get(2 * queue + 1)?.get()?.rx(buf)
    }

    #[inline(always)]
    fn tx(&self, thread: usize, burst: &mut Burst<'_>, set: Set) {
        let longest = longest_untagged(self.shared.mtu.load(Relaxed));
        let missed = match self.tx_ring(thread) {
            Some(ring) if ring.tx(burst, set, longest) => return,
            Some(_) => &self.shared.contended,
            None => &self.shared.no_queue,
        };
        missed.fetch_add(set.len() as u64, Relaxed);
    }

    #[inline(always)]
    fn tell_taken(&self, queue: usize) -> bool {
        let ring = self.shared.vrings.get(2 * queue + 1).and_then(OnceLock::get);
        ring.is_none_or(|ring| ring.tell())
    }

    #[inline(always)]
    fn tell_sent(&self, thread: usize) -> bool {
        self.tx_ring(thread).is_none_or(Vring::tell)
    }

    fn waiting(&self, queue: usize) -> usize {
        let ring = self.shared.vrings.get(2 * queue + 1).and_then(OnceLock::get);
        ring.map_or(0, |ring| ring.waiting())
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for (i, vring) in self.shared.vrings.iter().enumerate() {
            match vring.get() {
                Some(v) if i % 2 == 1 => v.counters.add_rx(&mut sum),
                Some(v) => v.counters.add_tx(&mut sum),
                None => {}
            }
        }
        let early = DropCounts::default();
        let s = &self.shared;
        early.add(DropReason::TxNoQueue, s.no_queue.load(Relaxed));
        early.add(DropReason::TxContention, s.contended.load(Relaxed));
        sum.tx_dropped += sum.add_drops(&early);
        sum
    }

    fn wait_for(&self, queue: usize, waker: &Arc<Waker>) -> Wait {
        let i = 2 * queue + 1;
        if i < MAX_VRINGS { self.shared.vring(i).wait_for(waker) } else { Wait::Quiet }
    }

    fn wait_over(&self, queue: usize, waker: &Arc<Waker>) {
        if let Some(vring) = self.shared.vrings.get(2 * queue + 1).and_then(OnceLock::get) {
            vring.wait_over(waker);
        }
    }
}
