//! Output: packets are collected by port during a burst and sent port by port at its end.

use crate::untold::Untold;
use crate::{PortMap, WalkCounters};
use flow::DpPort;
use packet::{Burst, DropReason, Set};

/// Where the packets of a burst go.
pub(crate) struct Outputs {
    /// Packets of the burst for each port.
    by_port: Vec<Set>,
    touched: Vec<DpPort>,
    /// Packets that wait here; only those of runs with other actions than output are kept account of.
    waiting: Set,
    /// Who has to be told of what was sent.
    pub(crate) untold: Untold,
}

/// What is needed to send.
pub(crate) struct Sender<'a, 'b, 'c> {
    pub(crate) burst: &'a mut Burst<'b>,
    pub(crate) ports: &'c PortMap,
    pub(crate) counters: &'c WalkCounters,
    pub(crate) thread: usize,
}

impl Outputs {
    pub(crate) fn new() -> Outputs {
        Outputs {
            by_port: Vec::new(),
            touched: Vec::new(),
            waiting: Set::NONE,
            untold: Untold::default(),
        }
    }

    /// Makes room for as many ports as there are; allocates only after ports were added.
    #[inline(always)]
    pub(crate) fn fit(&mut self, ports: &PortMap) {
        if self.by_port.len() < ports.end() {
            self.by_port.resize(ports.end(), Set::NONE);
            self.touched.reserve(ports.end());
            self.untold.fit(ports.end());
        }
    }

    /// Sends the packets of `set`, not none, to `to` at the end of the burst.
    #[inline(always)]
    pub(crate) fn add(&mut self, to: DpPort, set: Set, sender: &mut Sender<'_, '_, '_>) {
        let Some(waiting) = self.by_port.get_mut(to.0 as usize) else {
            sender.counters.drops.add(DropReason::InvalidPort, set.len() as u64);
            return;
        };
        if waiting.is_empty() {
            self.touched.push(to);
        } else if waiting.meets(set) {
            // A flow that outputs to one port twice.
            send(to, std::mem::take(waiting), sender);
            self.untold.sent(to);
        }
        *waiting = waiting.with(set);
    }

    /// Notes that these packets wait.
    pub(crate) fn wait(&mut self, set: Set) {
        self.waiting = self.waiting.with(set);
    }

    /// Packets that wait, as far as they were noted.
    pub(crate) fn waiting(&self) -> Set {
        self.waiting
    }

    /// Sends everything collected.
    #[inline(always)]
    pub(crate) fn flush(&mut self, sender: &mut Sender<'_, '_, '_>) {
        for to in self.touched.drain(..) {
            send(to, std::mem::take(&mut self.by_port[to.0 as usize]), sender);
            self.untold.sent(to);
        }
        self.waiting = Set::NONE;
    }
}

#[inline(always)]
fn send(to: DpPort, set: Set, sender: &mut Sender<'_, '_, '_>) {
    let Some((port, extras)) = sender.ports.with_extras(to) else {
        sender.counters.drops.add(DropReason::InvalidPort, set.len() as u64);
        return;
    };
    let set = extras.map_or(set, |e| e.send(sender.burst, set, sender.thread));
    if set.is_empty() {
        return;
    }
    port.tx(sender.thread, sender.burst, set);
    sender.counters.tx_batches.add(1);
    sender.counters.tx_packets.add(set.len() as u64);
}
