//! The fast path: caches, and the walk of a burst through them.
//!
//! The principal type is [`Datapath`], one for each PMD thread; [`Datapath::walk`] in `walk.rs` is the
//! way of a burst from a receive queue to transmit queues and reads top to bottom. There is no
//! thread here, no clock, no socket and no log line: `now` comes in as an argument, answers to misses
//! from a [`flow::Translate`].
#![forbid(unsafe_code)]

mod budget;
mod cache;
mod capture;
mod check;
mod classifier;
mod counters;
mod execute;
mod histogram;
mod lane;
mod megaflow;
mod output;
mod ports;
mod punt;
mod rewrite;
mod stages;
mod steer;
mod untold;
mod walk;

pub use capture::{
    BYTES_PER_SECOND, Capture, Captured, Counts, Direction, Filter, LOOKS_PER_SECOND, Reader,
};
pub use classifier::MASKS_MAX;
pub use counters::{Counter, WalkCounters, WalkCounts};
pub use histogram::{BINS, Bins, Histogram};
pub use megaflow::{FlowState, FlowStats, Megaflow, Registry};
pub use ports::PortMap;
pub use punt::{PUNTS_MAX, PuntQueue, Punted};
pub use steer::Steered;
pub use walk::{Context, Datapath};
