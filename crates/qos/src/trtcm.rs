//! Two rates with three colours (RFC 4115), for a port and for each of its queues, as OVS-DPDK's
//! `trtcm-policer` has it.
//!
//! A packet is green while its committed bucket has enough, else yellow while its excess bucket has, else red.
//! Its queue's meter colours it first, blind; the port's meter then sees those that are not red, and takes
//! green ones from either of its buckets, yellow ones from its excess bucket. What is red then is dropped.

use crate::{Bucket, Limit, policed_bytes};
use packet::{BURST, Packet, Set};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The rates of one meter; `None` lets nothing pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TwoRates {
    /// `cir` and `cbs`.
    pub committed: Option<Limit>,
    /// `eir` and `ebs`.
    pub excess: Option<Limit>,
}

/// What a port with queues may send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueLimits {
    /// All queues together.
    pub port: TwoRates,
    /// Each queue. Packets of others go by queue 0, which has the port's rates if it is not here.
    pub queues: BTreeMap<u16, TwoRates>,
}

/// What a queue has sent and dropped.
#[derive(Debug, Default)]
pub struct QueueCounts {
    packets: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl QueueCounts {
    /// Packets sent, bytes sent as [`policed_bytes`] counts, and packets dropped.
    pub fn read(&self) -> [u64; 3] {
        [&self.packets, &self.bytes, &self.errors].map(|n| n.load(Relaxed))
    }
}

/// One meter. Any number of threads share it.
struct Meter {
    committed: Option<Bucket>,
    excess: Option<Bucket>,
}

impl Meter {
    fn new(rates: &TwoRates) -> Meter {
        let (committed, excess) = (rates.committed.map(Bucket::new), rates.excess.map(Bucket::new));
        Meter { committed, excess }
    }

    /// Colours packets that are green or yellow so far: those that are green and yellow now.
    fn colour(&self, now: u64, green: Set, yellow: Set, units: &dyn Fn(usize) -> u64) -> [Set; 2] {
        let pass = |bucket: &Option<Bucket>, set: Set| {
            bucket.as_ref().map_or(Set::NONE, |b| b.pass(now, set, units))
        };
        let committed = pass(&self.committed, green);
        [committed, pass(&self.excess, green.without(committed).with(yellow))]
    }
}

/// The meters of a port at work.
pub(crate) struct Trtcm {
    port: Meter,
    /// By rising number; the first is 0.
    queues: Vec<(u16, Meter, Arc<QueueCounts>)>,
}

impl Trtcm {
    /// Full buckets. `counts` gives each queue's counts, which go on from what they are.
    pub(crate) fn new(limits: &QueueLimits, counts: impl Fn(u16) -> Arc<QueueCounts>) -> Trtcm {
        let mut rates = limits.queues.clone();
        rates.entry(0).or_insert(limits.port);
        let queues = rates.iter().map(|(&n, r)| (n, Meter::new(r), counts(n))).collect();
        Trtcm { port: Meter::new(&limits.port), queues }
    }

    /// Which packets of `set` may be sent.
    pub(crate) fn pass(&self, now: u64, packets: &[Packet], set: Set) -> Set {
        let mut place = [0; BURST];
        for i in set {
            let found = self.queues.binary_search_by_key(&packets[i].queue, |q| q.0);
            place[i] = found.unwrap_or(0);
        }
        let units = |i: usize| policed_bytes(&packets[i]);
        let (mut green, mut yellow) = (Set::NONE, Set::NONE);
        each_queue(&place, set, |queue, members| {
            let [g, y] = self.queues[queue].1.colour(now, members, Set::NONE, &units);
            (green, yellow) = (green.with(g), yellow.with(y));
        });
        let [green, yellow] = self.port.colour(now, green, yellow, &units);
        let passed = green.with(yellow);
        each_queue(&place, set, |queue, members| {
            let counts = &self.queues[queue].2;
            let dropped = members.without(passed);
            let sent = members.without(dropped);
            counts.packets.fetch_add(sent.map(|i| packets[i].on_wire().0).sum(), Relaxed);
            counts.bytes.fetch_add(sent.map(units).sum(), Relaxed);
            counts.errors.fetch_add(dropped.map(|i| packets[i].on_wire().0).sum(), Relaxed);
        });
        passed
    }
}

/// Calls `act` for each queue that packets of `set` go by, with those packets.
fn each_queue(place: &[usize; BURST], set: Set, mut act: impl FnMut(usize, Set)) {
    let mut rest = set;
    while let Some(first) = rest.first() {
        let members = rest.filter(|i| place[i] == place[first]);
        rest = rest.without(members);
        act(place[first], members);
    }
}

#[cfg(test)]
mod tests;
