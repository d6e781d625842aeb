//! What a port is to the rest of the switch: queues to receive bursts from, a way to send parts of a
//! burst, and counters.
//!
//! The principal type is the trait [`Port`], implemented by each driver crate and by [`sim::SimPort`]
//! for tests. Dynamic dispatch is per burst, never per packet. A port never sees a flow.
#![forbid(unsafe_code)]

mod counters;
pub mod sim;

pub use counters::{Counters, QueueCounters};

use packet::{Burst, BurstBuf, Set};

/// A port of the switch. Its methods may be called by several PMD threads at the same time; a queue
/// that is in use by another thread is skipped, not waited for.
pub trait Port: Send + Sync {
    /// Name, unique in the daemon.
    fn name(&self) -> &str;

    /// Receive queues that carry traffic now. Changes as guests come and go.
    fn rx_queues(&self) -> usize;

    /// Takes the next burst from receive queue `queue` into `buf` and lends it. `None` if there is
    /// nothing, or the queue is disabled or in use.
    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>>;

    /// Sends these packets of `burst` in the order of their arrival. `thread` numbers the calling PMD
    /// thread, to spread threads over the port's transmit queues. What cannot be sent is dropped and
    /// counted by the port.
    fn tx(&self, thread: usize, burst: &mut Burst<'_>, set: Set);

    /// Tells the other side that bursts of receive queue `queue` are done with, if it wants to be told
    /// (an interrupt). The caller has passed a full memory barrier since the burst was dropped.
    fn tell_taken(&self, queue: usize) {
        let _ = queue;
    }

    /// Tells the other side that there is something to receive, if it wants to be told (an interrupt).
    /// The caller is thread number `thread` and has passed a full memory barrier since it called
    /// [`Port::tx`].
    fn tell_sent(&self, thread: usize) {
        let _ = thread;
    }

    /// Sums of all counters since the port was added.
    fn counters(&self) -> Counters;
}
