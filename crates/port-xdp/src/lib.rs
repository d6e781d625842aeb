//! AF_XDP ports: receive queues of a netdev that stays with its kernel driver, polled through rings that are
//! shared with the kernel. The principal type is [`XdpPort`].
//!
//! A socket for each queue has rings ([`ring`]) and frames of its own ([`umem`]); a program
//! ([`program`], its instructions: [`code`]) sends what a queue receives to its socket, and lets pass to the host what
//! other queues receive. It is attached by a `bpf_link`, which goes with the process, however that ends.
//!
//! Frames are received where they lie and copied once, into whoever gets them; what is sent is copied into a
//! frame, and finished there. Only if it is asked for ([`Config::tx_csum`]), checksums are left to the kernel, and frames
//! pass from port to port as they are ([`Config::shared`]).
//!
//! Rings and program are our own, over `libc`: `xsk-rs` needs clang, m4 and libelf to build, leaves its program
//! attached when the process is killed, and its ring operations are calls into C; `aya` would bring a loader
//! for what are six instructions, or fifty; its `aya-obj` reads the kernel's types.
//!
//! `unsafe` is in [`sys`] (system calls), [`umem`], [`ring`] (shared memory), [`queue`] (lent frames) and
//! [`transmit`] (copies, headers of frames that are passed on).

mod alarm;
mod code;
mod open;
mod program;
mod queue;
mod repair;
mod ring;
mod shared;
mod sys;
mod transmit;
mod umem;

use packet::{Burst, BurstBuf, DropReason, Set};
use port::{Counters, Port, Wait, Waker};
use program::Program;
use queue::Queue;
pub use shared::{MAX_SHARED_FRAMES, SharedFrames};
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Receive queues of a port at most, as in OVS.
pub const MAX_QUEUES: usize = 16;
/// Bytes of a received frame beyond the MTU: Ethernet header (14) and a VLAN tag (4).
const FRAME_OVERHEAD: u32 = 18;
/// How long a queue's last socket may take to go: the kernel does it later. And the program of a process
/// that was killed.
const QUEUE_LIMIT: Duration = Duration::from_millis(200);
const PROGRAM_LIMIT: Duration = Duration::from_millis(50);

/// Why the kernel does not complete checksums.
const NO_TX_CSUM: &str = "the kernel has no AF_XDP metadata (Linux 6.8), or the driver no \"tx-checksum\" with zero-copy";

/// How the kernel hands frames over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The driver receives into our frames.
    ZeroCopy,
    /// The driver's XDP hook; frames are copied.
    Native,
    /// Behind the driver, for those without XDP; frames are copied, and only queue 0 may work.
    Generic,
}

impl Mode {
    /// As OVS calls it in `options:xdp-mode`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::ZeroCopy => "native-with-zerocopy",
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }
}

/// What a port is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the interface.
    pub name: String,
    /// Index of the netdev.
    pub index: u32,
    /// The mode, or the best that works.
    pub mode: Option<Mode>,
    /// Queues, from 0 on: 1 to [`MAX_QUEUES`].
    pub queues: usize,
    /// Descriptors of each receive and transmit ring: a power of two, 64 to 8192.
    pub rx_size: u32,
    /// See `rx_size`.
    pub tx_size: u32,
    /// Largest IP packet that is sent, in bytes.
    pub mtu: u32,
    /// Whether checksums are recognised that senders on this host have left to be done, and completed for who cannot:
    /// by default where frames are copied, for those of a wire have theirs.
    pub csum_repair: Option<bool>,
    /// Whether checksums that senders left to be done are left to the kernel and the driver (Linux 6.8) where they can,
    /// and not completed in software. Not by default: where frames are copied, a device that leaves checksums open for
    /// its other end, as veth does, does so with these, and an XDP program there sees wrong ones.
    pub tx_csum: bool,
    /// Whether the driver completes checksums with zero-copy ("tx-checksum" of the netdev's xsk-features).
    pub driver_csum: bool,
    /// Whether the driver says the VLAN tags that it takes out of what is received ("vlan-tag" of the netdev's
    /// xdp-rx-metadata-features, Linux 6.8): the XDP program then puts them back.
    pub driver_tags: bool,
    /// The threads that poll run the driver's receiving too, where its interrupts would: of use with
    /// `napi_defer_hard_irqs` and `gro_flush_timeout` of the netdev, and Linux 5.11.
    pub busy_poll: bool,
    /// Frames longer than a page pass, where the kernel and the driver can do that (Linux 6.6).
    pub long_frames: bool,
    /// Whether segments of TCP that come in one burst are joined to super-frames ([`Burst::coalesce`]).
    pub gro: bool,
    /// Frames that its queues share with those of other ports, so that what one received another sends without copying
    /// its payload (Linux 5.10).
    pub shared: Option<Arc<SharedFrames>>,
    /// How long it may take at most until the kernel has let go of what was there before, a closed port or one of a
    /// process that was killed. Not waited for is what another's program has.
    pub patience: Duration,
    /// Queues that send to the netdev, where that is known, for errors to name the number.
    pub senders: Option<u32>,
}

impl Config {
    /// One queue of a netdev with an MTU of 1500, everything else as it is unless somebody asks.
    pub fn new(name: &str, index: u32) -> Config {
        Config {
            name: name.to_owned(),
            index,
            mode: None,
            queues: 1,
            rx_size: 2048,
            tx_size: 2048,
            mtu: 1500,
            csum_repair: None,
            tx_csum: false,
            driver_csum: false,
            driver_tags: false,
            busy_poll: false,
            long_frames: true,
            gro: false,
            shared: None,
            patience: QUEUE_LIMIT,
            senders: None,
        }
    }
}

/// A netdev's queues.
pub struct XdpPort {
    name: String,
    index: u32,
    mode: Mode,
    huge_pages: bool,
    queues: Vec<Queue>,
    mtu: AtomicU32,
    contended: AtomicU64,
    /// Last: sockets go before the program that names them.
    program: Program,
}

impl XdpPort {
    /// Opens the netdev's queues. If that is in a lesser mode, why is logged.
    ///
    /// # Errors
    /// Says which step failed.
    pub fn open(config: &Config) -> Result<XdpPort> {
        let all = [Mode::ZeroCopy, Mode::Native, Mode::Generic];
        let wanted = config.mode.as_ref().map_or(&all[..], std::slice::from_ref);
        let mut refused: Vec<(Mode, Error)> = Vec::new();
        for &mode in wanted {
            match XdpPort::try_mode(config, mode, !refused.is_empty()) {
                Ok(port) => {
                    for (mode, e) in refused {
                        let (name, mode) = (&config.name, mode.name());
                        tracing::info!("{name}: xdp-mode {mode} is not to be had: {e}");
                    }
                    if config.tx_csum && !port.leaves_checksums() {
                        let name = &config.name;
                        tracing::info!("{name}: checksums are completed in software: {NO_TX_CSUM}");
                    }
                    if let Some(Err(e)) = &port.program.tags {
                        let name = &config.name;
                        tracing::warn!("{name}: the driver is not asked for VLAN tags: {e}");
                    }
                    port.tell_unshared();
                    return Ok(port);
                }
                // No other mode helps against that.
                Err(e) if matches!(e.kind(), ErrorKind::ResourceBusy | ErrorKind::OutOfMemory) => {
                    return Err(e);
                }
                Err(e) => refused.push((mode, explained(e, config))),
            }
        }
        // The last one is the one that asks least of the driver.
        let last = refused.pop().unwrap_or((Mode::Generic, ErrorKind::Unsupported.into()));
        Err(named(last.1, &format!("xdp-mode {}", last.0.name())))
    }

    /// Opens all queues in one mode. After another was tried the kernel may not have freed the memory of that yet.
    fn try_mode(config: &Config, mode: Mode, after_another: bool) -> Result<XdpPort> {
        let attach = || Program::attach(config, mode);
        let (busy, memory) = (ErrorKind::ResourceBusy, ErrorKind::OutOfMemory);
        let passing = if after_another { &[busy, memory][..] } else { &[busy] };
        let limit = |most: Duration| if after_another { most } else { most.min(config.patience) };
        let program = until_free(limit(PROGRAM_LIMIT), passing, attach)?;
        let mut queues = Vec::new();
        for number in 0..config.queues as u32 {
            let open = || Queue::open(config, number, mode);
            let queue = until_free(limit(QUEUE_LIMIT), passing, open);
            let queue = queue.map_err(|e| named(e, &format!("queue {number}")))?;
            program.give(number, queue.socket()).map_err(|e| named(e, "the queue's socket"))?;
            queues.push(queue);
        }
        Ok(XdpPort {
            name: config.name.clone(),
            index: config.index,
            mode,
            huge_pages: queues.iter().all(Queue::has_huge_pages),
            queues,
            mtu: AtomicU32::new(config.mtu),
            contended: AtomicU64::new(0),
            program,
        })
    }

    /// Whether checksums are recognised that senders have left to be done.
    pub fn repairs_checksums(&self) -> bool {
        self.queues.iter().all(|q| q.repair)
    }

    /// Whether checksums are left to the kernel.
    pub fn leaves_checksums(&self) -> bool {
        self.queues.iter().all(|q| q.metadata > 0)
    }

    /// Whether VLAN tags that the driver takes out of what is received are put back.
    pub fn keeps_tags(&self) -> bool {
        matches!(self.program.tags, Some(Ok(())))
    }

    fn tell_unshared(&self) {
        for (number, queue) in self.queues.iter().enumerate() {
            let Some(why) = &queue.unshared else { continue };
            let name = &self.name;
            tracing::info!(
                "{name}: queue {number} shares no frames, so what it passes on is copied: {why}"
            );
        }
    }

    /// Frames that queues share, those taken and all, if all queues of the port do.
    pub fn shared_frames(&self) -> Option<(usize, usize)> {
        let shares: Option<Vec<_>> = self.queues.iter().map(|q| q.share.as_ref()).collect();
        Some(shares?.first()?.use_of_all())
    }

    /// Whether polling runs the driver's receiving.
    pub fn busy_polls(&self) -> bool {
        self.queues.iter().all(|q| q.busy_poll)
    }

    /// The netdev's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How frames are handed over.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether all frames lie in huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The largest MTU whose frames can be received, in bytes.
    pub fn mtu_limit(&self) -> u32 {
        let longest = self.queues.iter().map(Queue::longest_received).min();
        longest.unwrap_or_default() as u32 - FRAME_OVERHEAD
    }

    /// The longest IP packet that is sent, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Relaxed)
    }

    /// Changes what [`XdpPort::mtu`] says.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Relaxed);
    }
}

/// Tries again while the kernel has not let go of what was there before, which errors of these kinds say, for `limit`
/// at most. Sleeps meanwhile.
///
/// # Errors
/// The last one.
pub fn until_free<T>(
    limit: Duration,
    passing: &[ErrorKind],
    mut open: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match open() {
            Err(e) if passing.contains(&e.kind()) && start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

/// With what to do about it, where that is known.
fn explained(e: Error, config: &Config) -> Error {
    if e.kind() != ErrorKind::StorageFull {
        return e;
    }
    let (has, more) =
        (config.queues, "a veth receives with as many queues as its other end sends with");
    let what = match config.senders {
        Some(n) => format!(
            "{more}: that sends with {n}, so options:n_rxq={n}, or ethtool -L there tx {has}"
        ),
        None => {
            format!("{more}: see ethtool -l there for options:n_rxq, or ethtool -L there tx {has}")
        }
    };
    named(e, &what)
}

/// An error that says what it is of.
fn named(e: Error, what: &str) -> Error {
    Error::new(e.kind(), format!("{what}: {e}"))
}

impl Port for XdpPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx_queues(&self) -> usize {
        self.queues.len()
    }

    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        self.queues.get(queue)?.rx(buf)
    }

    fn tx(&self, thread: usize, burst: &mut Burst<'_>, set: Set) {
        let queue = self.queues.get(thread % self.queues.len().max(1));
        if !queue.is_some_and(|q| q.tx(burst, set, self.mtu())) {
            self.contended.fetch_add(set.len() as u64, Relaxed);
        }
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for queue in &self.queues {
            queue.add_to(&mut sum);
        }
        let contended = self.contended.load(Relaxed);
        sum.drops[DropReason::TxContention as usize] += contended;
        sum.tx_dropped += contended;
        sum
    }

    fn wait_for(&self, queue: usize, waker: &Arc<Waker>) -> Wait {
        self.queues.get(queue).map_or(Wait::Quiet, |q| q.wait_for(waker))
    }

    fn wait_over(&self, queue: usize, waker: &Arc<Waker>) {
        if let Some(queue) = self.queues.get(queue) {
            queue.wait_over(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many times it is tried if it fails twice.
    fn tries(fails: ErrorKind, passing: &[ErrorKind], limit: Duration) -> (u32, bool) {
        let mut tries = 0;
        let done = until_free(limit, passing, || {
            tries += 1;
            if tries > 2 { Ok(()) } else { Err(fails.into()) }
        });
        (tries, done.is_ok())
    }

    #[test]
    fn what_passes_is_waited_for_and_nothing_else() {
        let (busy, memory) = (ErrorKind::ResourceBusy, ErrorKind::OutOfMemory);
        let long = Duration::from_secs(60);
        assert_eq!(tries(busy, &[busy], long), (3, true));
        assert_eq!(tries(memory, &[busy, memory], long), (3, true));
        assert_eq!(tries(memory, &[busy], long), (1, false));
        assert_eq!(tries(busy, &[busy], Duration::ZERO), (1, false));
    }
}
