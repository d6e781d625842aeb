//! The load: one thread that is both guests of each system, or what is at the far end of its wires, driving the rings of
//! the one that is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use lab::cpu;
use packet::arch::cycles;
use virtio_driver::saturate::Turn;
use virtio_driver::{Driver, NetHeader, Saturator, Stamp};

use super::LOAD_CORE;
use super::nic::{Nic, NicLoad};

/// What the load of a window is doing.
const WARM: u8 = 0;
const COUNT: u8 = 1;
const END: u8 = 2;

/// Writes the frame with this number that a guest, by its number, sends.
pub type WriteFrame = dyn Fn(u8, u16, &mut Vec<u8>) + Send + Sync;

/// What the guests send.
#[derive(Clone)]
pub struct Sending {
    /// Frames of one queue in flight or waiting.
    pub depth: u16,
    /// Its frames.
    pub frame: Arc<WriteFrame>,
    /// What is left to the switch to do for each.
    pub header: NetHeader,
    /// How frames change as they are sent again.
    pub stamp: Option<Stamp>,
    /// Whether what is received is looked at.
    pub reading: bool,
    /// Whether the second guest of each pair sends too.
    pub both_ways: bool,
}

/// What is at the other side of a busy port.
pub enum Peer {
    /// A guest.
    Guest(Box<Driver>),
    /// A wire's far end.
    Nic(Nic),
}

/// All that is connected to a system and not idle.
pub struct Peers {
    /// What sends and receives.
    pub busy: Vec<Peer>,
    /// A guest that takes mirrored packets and sends nothing.
    pub watcher: Option<Box<Driver>>,
}

/// A [`Peer`]'s queue under load.
enum Source<'a> {
    Guest(Saturator<'a>),
    /// What it gets are copies, and not what came through.
    Watcher(Saturator<'a>),
    Nic(NicLoad<'a>),
}

impl Source<'_> {
    /// Sends and receives what there is.
    fn turn(&mut self, copies: &mut u64) -> Result<Turn> {
        match self {
            Source::Watcher(saturator) => {
                let taken = saturator.turn()?.received;
                *copies += u64::from(taken);
                Ok(Turn { sent: taken, ..Turn::default() })
            }
            Source::Guest(saturator) => Ok(saturator.turn()?),
            Source::Nic(nic) => Ok(nic.turn()),
        }
    }
}

/// What one window counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Buffers received by all guests: frames, as far as each fits one.
    pub received: u64,
    /// Bytes in them, virtio-net headers included.
    pub received_bytes: u64,
    /// Mirrored frames that were taken.
    pub copies: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// The same in cycles of the time-stamp counter.
    pub cycles: u64,
    /// Cycles of turns that found something: what the load itself costs.
    pub busy_cycles: u64,
    /// The longest time between two looks at the rings.
    pub longest_gap: Duration,
    /// The longest time without a frame.
    pub longest_silence: Duration,
}

impl Tally {
    /// Cycles the load spends on each frame, receiving and sending it, misses on lines that come from the switch included.
    pub fn load_cycles_per_packet(&self) -> Option<f64> {
        (self.received > 0).then(|| self.busy_cycles as f64 / self.received as f64)
    }

    /// Share of the time in which the load found nothing to do, 0 to 1: near 0 it is what limits, not the switch.
    pub fn load_idle(&self) -> f64 {
        1.0 - self.busy_cycles as f64 / self.cycles.max(1) as f64
    }
}

/// The thread with the guests of all systems.
pub struct Load {
    phase: Arc<AtomicU8>,
    commands: Option<Sender<usize>>,
    answers: Receiver<Result<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts the thread with the peers of each system, number 0 first.
    pub fn start(peers: Vec<Peers>, sending: Sending) -> Result<Load> {
        let phase = Arc::new(AtomicU8::new(WARM));
        let (commands, orders) = channel();
        let (reports, answers) = channel();
        let thread = {
            let phase = Arc::clone(&phase);
            std::thread::spawn(move || {
                if let Err(error) = serve(peers, &sending, &phase, &orders, &reports) {
                    let _ = reports.send(Err(error));
                }
            })
        };
        let load = Load { phase, commands: Some(commands), answers, thread: Some(thread) };
        // The first answer says that all frames are made.
        load.answers.recv().context("the load has ended")??;
        Ok(load)
    }

    /// Begins to drive the rings of `system`, by its number among the peers.
    pub fn begin(&self, system: usize) -> Result<()> {
        self.phase.store(WARM, Relaxed);
        let commands = self.commands.as_ref().context("the load has ended")?;
        commands.send(system).map_err(|_| anyhow!("the load has ended"))
    }

    /// Counts from now on.
    pub fn count(&self) {
        self.phase.store(COUNT, Relaxed);
    }

    /// Ends what [`Load::begin`] began.
    pub fn end(&self) -> Result<Tally> {
        self.phase.store(END, Relaxed);
        self.answers.recv().context("the load has ended")?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.phase.store(END, Relaxed);
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut peers: Vec<Peers>,
    sending: &Sending,
    phase: &AtomicU8,
    orders: &Receiver<usize>,
    reports: &Sender<Result<Tally>>,
) -> Result<()> {
    cpu::take(LOAD_CORE)?;
    let mut guests = Vec::new();
    for connected in &mut peers {
        guests.push(sources(connected, sending)?);
    }
    let _ = reports.send(Ok(Tally::default()));
    while let Ok(system) = orders.recv() {
        if reports.send(window(&mut guests[system], phase)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Prepares all queues of the peers of a system.
fn sources<'a>(peers: &'a mut Peers, sending: &Sending) -> Result<Vec<Source<'a>>> {
    let mut all = Vec::new();
    for (guest, peer) in (0..).zip(&mut peers.busy) {
        let depth = if guest % 2 == 0 || sending.both_ways { sending.depth } else { 0 };
        let driver = match peer {
            Peer::Guest(driver) => driver,
            Peer::Nic(nic) => {
                all.push(Source::Nic(nic.load(depth, |n, out| (sending.frame)(guest, n, out))));
                continue;
            }
        };
        for pair in driver.pairs_mut() {
            let mut saturator = pair
                .saturate_with(depth, &sending.header, |n, out| (sending.frame)(guest, n, out))?;
            if let Some(stamp) = &sending.stamp {
                saturator.stamp(stamp.clone())?;
            }
            if sending.reading {
                saturator.read_frames();
            }
            all.push(Source::Guest(saturator));
        }
    }
    let watched = peers.watcher.iter_mut().flat_map(|driver| driver.pairs_mut());
    for pair in watched {
        all.push(Source::Watcher(pair.saturate(0, |_, _| {})?));
    }
    Ok(all)
}

/// Drives the rings until told to end.
fn window(guests: &mut [Source<'_>], phase: &AtomicU8) -> Result<Tally> {
    while phase.load(Relaxed) == WARM {
        for guest in &mut *guests {
            guest.turn(&mut 0)?;
        }
    }
    let began = Instant::now();
    let mut counter = Counter::new(cycles());
    while phase.load(Relaxed) == COUNT {
        for guest in &mut *guests {
            let turn = guest.turn(&mut counter.tally.copies)?;
            counter.add(cycles(), &turn);
        }
    }
    Ok(counter.finish(began.elapsed()))
}

/// Counts turns; all times are cycles.
struct Counter {
    tally: Tally,
    first: u64,
    last: u64,
    last_frame: u64,
    gap: u64,
    silence: u64,
}

impl Counter {
    fn new(now: u64) -> Counter {
        Counter {
            tally: Tally::default(),
            first: now,
            last: now,
            last_frame: now,
            gap: 0,
            silence: 0,
        }
    }

    #[inline]
    fn add(&mut self, now: u64, turn: &Turn) {
        let (received, sent) = (turn.received, turn.sent);
        let spent = now.wrapping_sub(self.last);
        self.last = now;
        self.gap = self.gap.max(spent);
        self.tally.received += u64::from(received);
        self.tally.received_bytes += turn.bytes;
        if received > 0 {
            self.silence = self.silence.max(now.wrapping_sub(self.last_frame));
            self.last_frame = now;
        }
        if received + sent > 0 {
            self.tally.busy_cycles += spent;
        }
    }

    fn finish(mut self, elapsed: Duration) -> Tally {
        self.silence = self.silence.max(self.last.wrapping_sub(self.last_frame));
        let cycles = self.last.wrapping_sub(self.first);
        let time = |c: u64| elapsed.mul_f64(c as f64 / cycles.max(1) as f64);
        self.tally.longest_gap = time(self.gap.min(cycles));
        self.tally.longest_silence = time(self.silence.min(cycles));
        self.tally.cycles = cycles;
        self.tally.seconds = elapsed.as_secs_f64();
        self.tally
    }
}
