//! What a PMD thread counts as it walks: plain adds by one writer, read by any.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one PMD thread's walks, in packets unless said otherwise.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct WalkCounters { $($(#[$doc])* pub $name: Counter,)* }

        impl WalkCounters {
            /// Names and values.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }

            /// Starts from zero again.
            pub fn clear(&self) {
                $(self.$name.0.store(0, Relaxed);)*
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
    /// Calls of a port's transmit function.
    tx_batches,
    /// Packets given to those.
    tx_packets,
    /// Dropped because the actions say so.
    dropped_by_actions,
    /// Output to a port that is gone.
    dropped_invalid_port,
    /// CPU cycles of iterations that found packets.
    busy_cycles,
    /// CPU cycles of iterations that found none.
    idle_cycles,
    /// Iterations of the poll loop that found packets.
    busy_iterations,
    /// Iterations of the poll loop that found none.
    idle_iterations,
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
