//! Packets on their way to controllers: a bounded queue that any thread puts in and any takes out.

use crossbeam_queue::ArrayQueue;
use flow::{DpPort, Punt};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Packets that a [`PuntQueue`] holds by default: some milliseconds of a flood, 64 MiB at the very most.
pub const PUNTS_MAX: usize = 1024;

/// One packet for a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punted {
    /// The frame's first bytes, at most `punt.max_len`, as the actions before had left them.
    pub frame: Vec<u8>,
    /// Length of the whole frame in bytes.
    pub len: usize,
    /// Datapath port that it came in by.
    pub in_port: DpPort,
    /// Why, and for whom.
    pub punt: Punt,
}

/// The queue. What finds it full is lost and counted.
#[derive(Debug)]
pub struct PuntQueue {
    queue: ArrayQueue<Punted>,
    lost: AtomicU64,
}

impl Default for PuntQueue {
    fn default() -> Self {
        PuntQueue::new(PUNTS_MAX)
    }
}

impl PuntQueue {
    /// A queue of at most `capacity` packets, 1 or more.
    pub fn new(capacity: usize) -> PuntQueue {
        PuntQueue { queue: ArrayQueue::new(capacity.max(1)), lost: AtomicU64::new(0) }
    }

    /// Adds what `packet` makes, unless the queue is full. Returns whether it did.
    pub(crate) fn push(&self, packet: impl FnOnce() -> Punted) -> bool {
        // A full queue costs no copy; two threads may still race for the last place.
        let taken = !self.queue.is_full() && self.queue.push(packet()).is_ok();
        if !taken {
            self.lost.fetch_add(1, Relaxed);
        }
        taken
    }

    /// Takes the oldest packet.
    pub fn pop(&self) -> Option<Punted> {
        self.queue.pop()
    }

    /// Packets that found the queue full so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}
