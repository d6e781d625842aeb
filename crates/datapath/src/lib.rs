//! The fast path: caches, and the walk of a burst through them.
//!
//! The principal type is [`Datapath`], one for each PMD thread; [`Datapath::walk`] in `walk.rs` is the
//! way of a burst from a receive queue to transmit queues and reads top to bottom. There is no
//! thread here, no clock, no socket and no log line: `now` comes in as an argument, answers to misses
//! from a [`flow::Translate`].
#![forbid(unsafe_code)]

mod cache;
mod classifier;
mod counters;
mod megaflow;
mod output;
mod ports;
mod walk;

pub use counters::{WalkCounters, WalkCounts};
pub use megaflow::{FlowState, FlowStats, Megaflow, Registry};
pub use ports::PortMap;
pub use walk::{Context, Datapath};
