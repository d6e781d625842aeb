//! Who has to be told of the last burst: guests that sleep until they are interrupted.
//!
//! Whether a guest wants an interrupt may be looked at only after a full memory barrier, or both sides
//! may miss what the other writes. A barrier waits for all stores before it, and those of a burst go to
//! cache lines that another core has. So the barrier is put off until the next burst was received, or
//! until there is none: by then they are long done.

use crate::PortMap;
use flow::DpPort;
use std::sync::atomic::{Ordering::SeqCst, fence};

/// Ports that were sent to, and receive queues whose buffers went back, since they were told. Each is
/// there once.
#[derive(Default)]
pub(crate) struct Untold {
    sent: Vec<DpPort>,
    /// Whether a port is in `sent`.
    is_sent: Vec<bool>,
    /// Mostly one, as the next burst tells it: only a queue whose own burst that is stays.
    taken: Vec<(DpPort, usize)>,
}

impl Untold {
    /// Makes room for `ports` ports.
    pub(crate) fn fit(&mut self, ports: usize) {
        self.is_sent.resize(ports, false);
        self.sent.reserve(ports);
        self.taken.reserve(ports);
    }

    /// Packets were sent to a port.
    #[inline(always)]
    pub(crate) fn sent(&mut self, to: DpPort) {
        if let Some(is_sent) = self.is_sent.get_mut(to.0 as usize)
            && !std::mem::replace(is_sent, true)
        {
            self.sent.push(to);
        }
    }

    /// A burst of a receive queue is done with.
    #[inline(always)]
    pub(crate) fn taken(&mut self, from: DpPort, queue: usize) {
        if !self.taken.contains(&(from, queue)) {
            self.taken.push((from, queue));
        }
    }

    /// Tells all of them; who could not be told is told the next time.
    #[inline(always)]
    pub(crate) fn tell(&mut self, ports: &PortMap, thread: usize) {
        if self.sent.is_empty() && self.taken.is_empty() {
            return;
        }
        fence(SeqCst);
        let is_sent = &mut self.is_sent;
        self.sent.retain(|to| {
            let again = ports.get(*to).is_some_and(|port| !port.tell_sent(thread));
            is_sent[to.0 as usize] = again;
            again
        });
        let again = |port: &dyn port::Port, queue| !port.tell_taken(queue);
        self.taken.retain(|(from, queue)| ports.get(*from).is_some_and(|p| again(p, *queue)));
    }
}
