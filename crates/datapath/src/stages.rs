//! Where a burst's time goes. One burst in 64 is timed, stage by stage, with the time-stamp counter: the
//! others cost a branch that is always predicted for each stage, and nothing is decided by the time.
//!
//! The counter is read without waiting for what was begun before, so a stage that ends with stores or
//! loads under way leaves them to the next; reading it makes a timed burst some tens of cycles longer
//! for each stage, that is, about a cycle a packet when bursts are full.

use crate::WalkCounters;
use crate::counters::Counter;
use packet::arch::cycles;

/// One burst in so many is timed.
const ONE_IN: u32 = 64;

/// The stages' stopwatch.
pub(crate) struct Stages {
    /// Bursts until the next one that is timed.
    wait: u32,
    /// The burst under way, or the next one, is.
    on: bool,
    /// When its present stage began.
    since: u64,
}

impl Default for Stages {
    fn default() -> Stages {
        Stages { wait: ONE_IN, on: false, since: 0 }
    }
}

impl Stages {
    /// A burst may come now.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        if self.on {
            self.start();
        }
    }

    #[cold]
    #[inline(never)]
    fn start(&mut self) {
        self.since = cycles();
    }

    /// What was done since the last stage belongs to none.
    #[inline(always)]
    pub(crate) fn skip(&mut self) {
        if self.on {
            self.since = cycles();
        }
    }

    /// A stage ends here.
    #[inline(always)]
    pub(crate) fn mark(&mut self, stage: &Counter) {
        if self.on {
            self.count(stage);
        }
    }

    #[cold]
    #[inline(never)]
    fn count(&mut self, stage: &Counter) {
        let now = cycles();
        stage.add(now.wrapping_sub(self.since));
        self.since = cycles();
    }

    /// The burst, of `packets` packets, is done with.
    #[inline(always)]
    pub(crate) fn end(&mut self, packets: usize, counters: &WalkCounters) {
        if self.on {
            self.count(&counters.give_back_cycles);
            counters.timed_packets.add(packets as u64);
            self.wait = ONE_IN;
        }
        self.wait -= 1;
        self.on = self.wait == 0;
    }
}
