//! Who has to be told of the last burst: guests that sleep until they are interrupted.
//!
//! Whether a guest wants an interrupt may be looked at only after a full memory barrier, or both sides
//! may miss what the other writes. A barrier waits for all stores before it, and those of a burst go to
//! cache lines that another core has. So the barrier is put off until the next burst was received, or
//! until there is none: by then they are long done.

use crate::PortMap;
use flow::DpPort;
use std::sync::atomic::{Ordering::SeqCst, fence};

/// Ports that were sent to, and receive queues whose buffers went back, since anybody was told.
#[derive(Default)]
pub(crate) struct Untold {
    sent: Vec<DpPort>,
    taken: Vec<(DpPort, usize)>,
}

impl Untold {
    /// Makes room for `ports` ports.
    pub(crate) fn fit(&mut self, ports: usize) {
        self.sent.reserve(ports);
        self.taken.reserve(ports);
    }

    /// Packets were sent to a port.
    #[inline(always)]
    pub(crate) fn sent(&mut self, to: DpPort) {
        if self.sent.last() != Some(&to) {
            self.sent.push(to);
        }
    }

    /// A burst of a receive queue is done with.
    #[inline(always)]
    pub(crate) fn taken(&mut self, from: DpPort, queue: usize) {
        self.taken.push((from, queue));
    }

    /// Tells all of them.
    #[inline(always)]
    pub(crate) fn tell(&mut self, ports: &PortMap, thread: usize) {
        if self.sent.is_empty() && self.taken.is_empty() {
            return;
        }
        fence(SeqCst);
        for to in self.sent.drain(..) {
            if let Some(port) = ports.get(to) {
                port.tell_sent(thread);
            }
        }
        for (from, queue) in self.taken.drain(..) {
            if let Some(port) = ports.get(from) {
                port.tell_taken(queue);
            }
        }
    }
}
