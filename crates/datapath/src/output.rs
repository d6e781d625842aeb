//! Output: packets are collected by port during a burst and sent port by port at its end.

use crate::execute::Set;
use crate::{PortMap, WalkCounters};
use flow::DpPort;
use packet::{BURST, Burst, DropReason};

/// Packets of the burst for one port.
#[derive(Clone, Copy)]
struct Picks {
    count: u8,
    index: [u8; BURST],
}

const NO_PICKS: Picks = Picks { count: 0, index: [0; BURST] };

/// Where the packets of a burst go.
pub(crate) struct Outputs {
    by_port: Vec<Picks>,
    touched: Vec<DpPort>,
    /// Packets that wait here, by index; only those of runs with other actions than output are kept
    /// account of.
    waiting: u32,
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
        Outputs { by_port: Vec::new(), touched: Vec::new(), waiting: 0 }
    }

    /// Makes room for as many ports as there are; allocates only after ports were added.
    #[inline(always)]
    pub(crate) fn fit(&mut self, ports: &PortMap) {
        if self.by_port.len() < ports.end() {
            self.by_port.resize(ports.end(), NO_PICKS);
            self.touched.reserve(ports.end());
        }
    }

    /// Sends packet `i` to `to` at the end of the burst.
    #[inline(always)]
    pub(crate) fn add(&mut self, to: DpPort, i: u8, sender: &mut Sender<'_, '_, '_>) {
        let Some(picks) = self.by_port.get_mut(to.0 as usize) else {
            sender.counters.drops.add(DropReason::InvalidPort, 1);
            return;
        };
        match usize::from(picks.count) {
            0 => self.touched.push(to),
            // A flow that outputs to one port twice can fill the list early.
            BURST => {
                send(to, picks, sender);
            }
            _ => {}
        }
        picks.index[usize::from(picks.count)] = i;
        picks.count += 1;
    }

    /// Notes that these packets wait.
    pub(crate) fn wait(&mut self, set: Set) {
        self.waiting |= set.bits();
    }

    /// Packets that wait, as far as they were noted.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Sends everything collected.
    #[inline(always)]
    pub(crate) fn flush(&mut self, sender: &mut Sender<'_, '_, '_>) {
        for to in self.touched.drain(..) {
            send(to, &mut self.by_port[to.0 as usize], sender);
        }
        self.waiting = 0;
    }
}

#[inline(always)]
fn send(to: DpPort, picks: &mut Picks, sender: &mut Sender<'_, '_, '_>) {
    let list = &picks.index[..usize::from(picks.count)];
    picks.count = 0;
    match sender.ports.get(to) {
        Some(port) => {
            port.tx(sender.thread, sender.burst, list);
            sender.counters.tx_batches.add(1);
            sender.counters.tx_packets.add(list.len() as u64);
        }
        None => sender.counters.drops.add(DropReason::InvalidPort, list.len() as u64),
    }
}
