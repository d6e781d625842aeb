//! What a port is to the rest of the switch: queues to receive bursts from, a way to send parts of a
//! burst, and counters.
//!
//! The principal type is the trait [`Port`], implemented by each driver crate and by [`sim::SimPort`]
//! for tests. Dynamic dispatch is per burst, never per packet. A port never sees a flow.
#![forbid(unsafe_code)]

mod counters;
pub mod hold;
pub mod sim;
mod wait;

pub use counters::{Counters, Finished, QueueCounters};
pub use wait::{Wait, Waker};

use packet::{Burst, BurstBuf, Set};
use std::sync::Arc;

/// A port of the switch. Its methods may be called by several PMD threads at the same time; a queue
/// that is in use by another thread is skipped, not waited for.
pub trait Port: Send + Sync {
    /// Name, unique in the daemon.
    fn name(&self) -> &str;

    /// Receive queues that carry traffic now. Changes as guests come and go.
    fn rx_queues(&self) -> usize;

    /// Transmit queues that [`Port::tx`]'s `thread` is spread over; as many as receive queues by default.
    fn tx_queues(&self) -> usize {
        self.rx_queues()
    }

    /// The NUMA node that its packets are on, where that is known. Changes as guests come and go.
    fn node(&self) -> Option<usize> {
        None
    }

    /// Takes the next burst from receive queue `queue` into `buf` and lends it. `None` if there is
    /// nothing, or the queue is disabled or in use.
    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>>;

    /// Packets that wait in receive queue `queue`, as far as that is known without a look at each: 0
    /// otherwise, as by default. Called after a full burst, if somebody wants to know.
    fn waiting(&self, queue: usize) -> usize {
        let _ = queue;
        0
    }

    /// Sends these packets of `burst` in the order of their arrival. `thread` numbers the calling PMD
    /// thread, to spread threads over the port's transmit queues. What cannot be sent is dropped and
    /// counted by the port.
    fn tx(&self, thread: usize, burst: &mut Burst<'_>, set: Set);

    /// Tells the other side that bursts of receive queue `queue` are done with, if it wants to be told
    /// (an interrupt). The caller has passed a full memory barrier since the burst was dropped. False if
    /// that has to be tried again, as always while a burst of the queue is out.
    fn tell_taken(&self, queue: usize) -> bool {
        let _ = queue;
        true
    }

    /// Tells the other side that there is something to receive, if it wants to be told (an interrupt).
    /// The caller is thread number `thread` and has passed a full memory barrier since it called
    /// [`Port::tx`]. False if that has to be tried again.
    fn tell_sent(&self, thread: usize) -> bool {
        let _ = thread;
        true
    }

    /// Sums of all counters since the port was added.
    fn counters(&self) -> Counters;

    /// Asks to be told of packets in receive queue `queue`, because the calling thread wants to wait
    /// for them. From then until [`Port::wait_over`] the port also rings `waker` when the queue starts,
    /// or may have lost the request. Off the packet path, may be called again at any time; a port that
    /// cannot tell, as by default, keeps its threads polling.
    fn wait_for(&self, queue: usize, waker: &Arc<Waker>) -> Wait {
        let _ = (queue, waker);
        Wait::Poll
    }

    /// The thread polls queue `queue` again and does not want to be told any more.
    fn wait_over(&self, queue: usize, waker: &Arc<Waker>) {
        let _ = (queue, waker);
    }
}
