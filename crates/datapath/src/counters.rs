//! What a PMD thread counts as it walks: plain adds by one writer, read by any.

use crate::Histogram;
use packet::{DropCounts, DropReason};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one PMD thread's walks, in packets unless said otherwise.
        #[derive(Debug)]
        #[repr(align(128))]
        pub struct WalkCounters {
            $($(#[$doc])* pub $name: Counter,)*
            /// Packets dropped by the walk itself; ports count their own.
            pub drops: DropCounts,
            /// Cycles that each upcall took.
            pub upcall_spans: Histogram,
        }

        impl Default for WalkCounters {
            fn default() -> Self {
                WalkCounters {
                    $($name: Counter::default(),)*
                    drops: DropCounts::default(),
                    // As in OVS.
                    upcall_spans: Histogram::log(1000, 1_000_000),
                }
            }
        }

        impl WalkCounters {
            /// Names, as `coverage/show` has them, and values.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                let mut all = vec![$((concat!("datapath_", stringify!($name)), self.$name.get()),)*];
                all.extend(DropReason::ALL.iter().map(|&r| (r.name(), self.drops.get(r))));
                all
            }

            /// All counts but the drops, as they are now.
            pub fn counts(&self) -> WalkCounts {
                WalkCounts { $($name: self.$name.get(),)* }
            }
        }

        /// The counts of [`WalkCounters`] at one time.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct WalkCounts { $($(#[$doc])* pub $name: u64,)* }

        impl WalkCounts {
            /// What was counted after `earlier`.
            pub fn since(&self, earlier: &WalkCounts) -> WalkCounts {
                WalkCounts { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// Packets received.
    received,
    /// Found by the exact-match cache.
    emc_hits,
    /// Found by the megaflow classifier.
    megaflow_hits,
    /// Subtables searched for those.
    subtable_lookups,
    /// Answered by the pipeline.
    upcalls,
    /// The pipeline's answer could not be kept because the flow table was full.
    upcalls_not_installed,
    /// Looked up again by an action.
    recirculated,
    /// Megaflows found to differ from what the pipeline says, an error of the switch.
    wrong_megaflows,
    /// Calls of a port's transmit function.
    tx_batches,
    /// Packets given to those.
    tx_packets,
    /// CPU cycles of iterations that found packets.
    busy_cycles,
    /// CPU cycles of iterations that found none.
    idle_cycles,
    /// Iterations of the poll loop that found packets.
    busy_iterations,
    /// Iterations of the poll loop that found none.
    idle_iterations,
    /// CPU cycles that went by while the thread slept or waited for a kick; in neither of the above.
    sleep_cycles,
    /// Iterations of the poll loop that ended with that.
    sleep_iterations,
    /// Packets of bursts that were timed by stage, one burst in 64.
    timed_packets,
    /// CPU cycles of those bursts: taking them from their receive queues.
    receive_cycles,
    /// Interrupting who wants it for the burst before.
    tell_cycles,
    /// Reading keys and finding megaflows; upcalls are not among it.
    look_up_cycles,
    /// Running actions.
    execute_cycles,
    /// Sending.
    transmit_cycles,
    /// Giving buffers back.
    give_back_cycles,
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, without a locked instruction: only one thread may call this.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
