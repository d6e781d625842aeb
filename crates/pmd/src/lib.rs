//! PMD threads: pinned, each polling the receive queues that placement gives it.
//!
//! The principal type is [`Pool`], owned by the control thread: it starts and stops threads, assigns
//! queues, and publishes to each thread an immutable [`Plan`] by pointer swap. The poll loop in
//! `poll.rs` has no packet logic; that is the datapath's walk. [`Revalidator`] keeps megaflows right.
#![forbid(unsafe_code)]

mod balance;
mod idle;
mod numa;
mod perf;
mod place;
mod poll;
mod pool;
mod revalidate;
mod sleep;
mod turns;

pub use balance::AutoBalance;
pub use numa::{Topology, parse_cpu_mask};
pub use perf::{Column, Perf};
pub use place::{Assign, Load, Place, Placed, Placement, Rules, improvement, place};
pub use poll::{Plan, Rxq, Thread};
pub use pool::{Clock, INTERVAL, MEASURED, Pool, PortEntry, RxqView, ThreadView, WORKER};
pub use revalidate::{Limits, Revalidator};
pub use sleep::SleepMax;

/// Stack of a thread that asks the pipeline, in bytes: as much as a process's first thread has. The
/// pipeline follows actions within actions, hundreds deep, and takes up to 10 kB for each where it is
/// not optimised. Pages that are not touched cost nothing.
const STACK_BYTES: usize = 8 << 20;
