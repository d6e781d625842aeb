//! The paced load: one thread that sends frames at a given rate to one guest's port and receives them at the other's.
//!
//! Each frame carries the time at which it was due, so a frame that had to wait for the switch is late by all of it. Only what this
//! thread itself was kept from (something else had its core) says nothing about the switch: frames due then, or while it catches up, are
//! *spoiled* and counted apart.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use lab::cpu;
use packet::arch::cycles;
use virtio_driver::{Driver, paced};

use super::LOAD_CORE;
use super::frames;
use super::histogram::Histogram;
use super::setup::QUEUE_SIZE;

/// Where frames carry their due time: behind the UDP header.
const MARK_AT: usize = 42;

/// Frames sent before the next look at what has come.
const SEND_AT_ONCE: u16 = 32;

/// Frames that wait for the switch at most; later ones wait for room.
const DEPTH: u16 = QUEUE_SIZE;

/// Not to have looked at the clock for so long means that something else had the core.
const AWAY: Duration = Duration::from_micros(50);

/// Frames due so long before this thread was kept away may have come meanwhile.
const UNDER_WAY: Duration = Duration::from_micros(200);

/// Cycles of this duration are measured to know how many a second has.
const CALIBRATION: Duration = Duration::from_millis(20);

/// One run at one rate.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// System, by its number among the drivers.
    pub system: usize,
    /// Frames a second; infinite: as many as the ring takes.
    pub pps: f64,
    /// Frames due at the same time.
    pub burst: u32,
    /// Frames due before this has passed do not count.
    pub settle: Duration,
    /// Frames due in this time count.
    pub count: Duration,
    /// How long what has not come is waited for.
    pub drain: Duration,
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// Frames that were due.
    pub due: u64,
    /// Frames of them that came.
    pub received: u64,
    /// Latencies of those, in cycles, without the spoiled ones.
    pub latency: Histogram,
    /// Frames that came and are spoiled.
    pub spoiled: u64,
    /// Cycles a second.
    pub hertz: f64,
    /// Wall-clock seconds from the first to the last frame that was due.
    pub seconds: f64,
}

/// The thread with the guests of all systems.
pub struct Pacer {
    orders: Option<Sender<Order>>,
    answers: Receiver<Result<Run>>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Starts the thread with the drivers of each system's guests, the sending one first.
    pub fn start(drivers: Vec<[Driver; 2]>, frame_bytes: usize) -> Pacer {
        let (orders, inbox) = channel();
        let (reports, answers) = channel();
        let thread = std::thread::spawn(move || {
            if let Err(error) = serve(drivers, frame_bytes, &inbox, &reports) {
                let _ = reports.send(Err(error));
            }
        });
        Pacer { orders: Some(orders), answers, thread: Some(thread) }
    }

    /// Does a run; this thread sleeps meanwhile.
    pub fn run(&self, order: Order) -> Result<Run> {
        let orders = self.orders.as_ref().context("the load has ended")?;
        orders.send(order).map_err(|_| anyhow!("the load has ended"))?;
        self.answers.recv().context("the load has ended")?
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut drivers: Vec<[Driver; 2]>,
    frame_bytes: usize,
    orders: &Receiver<Order>,
    reports: &Sender<Result<Run>>,
) -> Result<()> {
    cpu::take(LOAD_CORE)?;
    let mut frame = Vec::new();
    frames::write(0, 0, frame_bytes, &mut frame);
    let mut guests = Vec::new();
    for [from, to] in &mut drivers {
        let sender = from.pair(0).tx.sender(&frame, MARK_AT, DEPTH)?;
        guests.push((sender, to.pair(0).rx.receiver(MARK_AT)?));
    }
    let hertz = hertz();
    while let Ok(order) = orders.recv() {
        let (sender, receiver) = &mut guests[order.system];
        if reports.send(run(sender, receiver, &order, hertz)).is_err() {
            break;
        }
    }
    Ok(())
}

fn hertz() -> f64 {
    let (began, first) = (Instant::now(), cycles());
    while began.elapsed() < CALIBRATION {}
    cycles().wrapping_sub(first) as f64 / began.elapsed().as_secs_f64()
}

/// When frames are due; all times are cycles.
struct Schedule {
    first: u64,
    count_from: u64,
    end: u64,
    /// Cycles from one burst to the next; 0: frames are always due.
    interval: f64,
    burst: u32,
    /// When the burst under way is due, from `first`, and what is left of it.
    offset: f64,
    left: u32,
}

impl Schedule {
    fn new(order: &Order, hertz: f64) -> Schedule {
        let first = cycles();
        let time = |duration: Duration| (duration.as_secs_f64() * hertz) as u64;
        let count_from = first + time(order.settle);
        Schedule {
            first,
            count_from,
            end: count_from + time(order.count),
            interval: hertz / order.pps * f64::from(order.burst),
            burst: order.burst,
            offset: 0.0,
            left: order.burst,
        }
    }

    /// When the next frame is due. At an infinite rate, now.
    fn due(&self, now: u64) -> u64 {
        if self.interval == 0.0 { now } else { self.first + self.offset as u64 }
    }

    /// Frames due by `now`, up to `limit`.
    fn count_due(&self, now: u64, limit: u16) -> u16 {
        let until = now.min(self.end - 1).saturating_sub(self.first) as f64;
        if self.interval == 0.0 {
            return if now < self.end { limit } else { 0 };
        }
        if until < self.offset {
            return 0;
        }
        let bursts = ((until - self.offset) / self.interval) as u64;
        let frames = u64::from(self.left) + bursts.saturating_mul(self.burst.into());
        frames.min(limit.into()) as u16
    }

    /// Takes the next frame: when it is due.
    fn take(&mut self, now: u64) -> u64 {
        let due = self.due(now);
        self.left -= 1;
        if self.left == 0 {
            self.left = self.burst;
            self.offset += self.interval;
        }
        due
    }
}

/// The last two stretches in which due frames are spoiled, in cycles.
struct Spoiled {
    away: u64,
    under_way: u64,
    stretches: [(u64, u64); 2],
    last_look: u64,
    count: u64,
}

impl Spoiled {
    fn new(now: u64, hertz: f64) -> Spoiled {
        let cycles = |time: Duration| (time.as_secs_f64() * hertz) as u64;
        let (away, under_way) = (cycles(AWAY), cycles(UNDER_WAY));
        Spoiled { away, under_way, stretches: [(0, 0); 2], last_look: now, count: 0 }
    }

    /// To be called at each look at the clock.
    #[inline]
    fn look(&mut self, now: u64) {
        let gap = now.saturating_sub(self.last_look);
        if gap > self.away {
            // As long again to catch up.
            self.stretches = [self.stretches[1], (self.last_look - self.under_way, now + gap)];
        }
        self.last_look = now;
    }

    #[inline]
    fn has(&self, due: u64) -> bool {
        self.stretches.iter().any(|(from, to)| (*from..*to).contains(&due))
    }
}

fn run(
    sender: &mut paced::Sender<'_>,
    receiver: &mut paced::Receiver<'_>,
    order: &Order,
    hertz: f64,
) -> Result<Run> {
    let mut schedule = Schedule::new(order, hertz);
    let (count_from, end) = (schedule.count_from, schedule.end);
    let give_up = end + (order.drain.as_secs_f64() * hertz) as u64;
    let mut latency = Histogram::new();
    let mut spoiled = Spoiled::new(schedule.first, hertz);
    let mut due = 0;
    loop {
        let now = cycles();
        spoiled.look(now);
        due += send_due(sender, &mut schedule, now)?;
        let now = cycles();
        receiver.receive(&mut |mark| {
            // Frames of another run, or that are not ours, are not in the time that counts.
            if !(count_from..end).contains(&mark) {
                return;
            }
            if spoiled.has(mark) {
                spoiled.count += 1;
            } else {
                latency.record(now.saturating_sub(mark));
            }
        })?;
        let received = latency.total() + spoiled.count;
        if (schedule.due(now) >= end && received >= due) || now > give_up {
            break;
        }
    }
    // What was due and could not even be sent is lost too.
    let now = spoiled.last_look;
    while schedule.interval > 0.0 && schedule.due(now) < end {
        due += u64::from(schedule.take(now) >= count_from);
    }
    let received = latency.total() + spoiled.count;
    let seconds = order.count.as_secs_f64();
    Ok(Run { due, received, latency, spoiled: spoiled.count, hertz, seconds })
}

/// Sends what is due, and says how many of those count.
fn send_due(sender: &mut paced::Sender<'_>, schedule: &mut Schedule, now: u64) -> Result<u64> {
    let limit = schedule.count_due(now, SEND_AT_ONCE);
    if limit == 0 {
        return Ok(0);
    }
    let count_from = schedule.count_from;
    let mut counted = 0;
    sender.send(limit, &mut || {
        let due = schedule.take(now);
        counted += u64::from(due >= count_from);
        due
    })?;
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_due_together_and_at_the_mean_rate() {
        let order = Order {
            system: 0,
            pps: 64.0,
            burst: 4,
            settle: Duration::ZERO,
            count: Duration::from_secs(1),
            drain: Duration::ZERO,
        };
        let mut schedule = Schedule::new(&order, 6400.0);
        let first = schedule.first;
        assert_eq!(schedule.count_due(first, 32), 4);
        assert_eq!(schedule.count_due(first + 399, 32), 4);
        assert_eq!(schedule.count_due(first + 400, 32), 8);
        assert_eq!(schedule.count_due(first + 1_000_000, 1000), 64, "none after the end");
        let due: Vec<u64> = (0..9).map(|_| schedule.take(first) - first).collect();
        assert_eq!(due, [0, 0, 0, 0, 400, 400, 400, 400, 800]);
        assert_eq!(schedule.count_due(first + 800, 32), 3);
        assert_eq!(schedule.count_due(first + 799, 32), 0);
    }
}
