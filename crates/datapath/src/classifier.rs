//! The megaflow classifier: for each input port a tuple-space search, one hash table for each mask in
//! use.

use crate::budget::Budget;
use crate::lane::Template;
use crate::megaflow::Megaflow;
use flow::{Extracted, FlowKey, FlowMask, HOT_WORDS, WORDS};
use packet::BURST;
use packet::arch::{HashKey, hash_more, hash6, prefetch_read};

/// Masks of one port's flows: what a packet of it is searched for under, at most, but for one more that
/// takes the flows beyond, each with all its bits. Real pipelines have some tens in all.
pub const MASKS_MAX: usize = 64;
/// Ports with flows apart; all that have higher numbers share one place. Numbers of ports are given out
/// from 1 on and are used again.
const PORTS_MAX: usize = 65_536;
/// Slots of a new table.
const SLOTS_MIN: usize = 64;
/// Slots looked at for one key at most. A table is at most half full, so that chains of more than 30
/// do not happen by chance; whoever could make longer ones would slow its thread down for all.
const PROBES_MAX: usize = 128;
/// How often a table is doubled in a row to make its flows fit within [`PROBES_MAX`].
const DOUBLINGS_MAX: usize = 3;
/// Index of no flow, and of a flow that was removed.
const EMPTY: u32 = u32::MAX;
const GONE: u32 = u32::MAX - 1;

/// All flows with one mask, by the hash of their masked key.
struct Subtable {
    mask: FlowMask,
    words: [u64; WORDS],
    hot_only: bool,
    /// Open addressing with linear probing: hash and flow index. At most half of them are used.
    slots: Box<[(u32, u32)]>,
    /// Flows in it, and slots that are not [`EMPTY`].
    flows: usize,
    used: usize,
    /// Hits since the last ranking.
    hits: u64,
}

impl Subtable {
    fn new(mask: &FlowMask) -> Subtable {
        Subtable {
            mask: *mask,
            words: *mask.bits().words(),
            hot_only: mask.is_hot_only(),
            slots: vec![(0, EMPTY); SLOTS_MIN].into(),
            flows: 0,
            used: 0,
            hits: 0,
        }
    }

    #[inline(always)]
    fn hash(&self, key: &FlowKey, secret: &HashKey) -> u32 {
        let words = key.words();
        let mut hot = [0; HOT_WORDS];
        for (i, h) in hot.iter_mut().enumerate() {
            *h = words[i] & self.words[i];
        }
        let hash = hash6(&hot, secret);
        if self.hot_only {
            return hash;
        }
        let mut rest = [0; WORDS - HOT_WORDS];
        for (i, r) in rest.iter_mut().enumerate() {
            *r = words[HOT_WORDS + i] & self.words[HOT_WORDS + i];
        }
        hash_more(hash, &rest, secret)
    }

    /// Fetches the slot that a flow with this hash has if it has its own.
    #[inline(always)]
    fn prefetch(&self, hash: u32) {
        prefetch_read((&raw const self.slots[hash as usize & (self.slots.len() - 1)]).cast());
    }

    /// The flow in that slot, if its hash is this.
    #[inline(always)]
    fn first(&self, hash: u32) -> Option<u32> {
        let (h, flow) = self.slots[hash as usize & (self.slots.len() - 1)];
        (h == hash && flow < GONE).then_some(flow)
    }

    #[inline(always)]
    fn find(&self, hash: u32, mut is_right: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        for _ in 0..PROBES_MAX {
            let (h, flow) = self.slots[at];
            if flow == EMPTY {
                return None;
            }
            if h == hash && flow != GONE && is_right(flow) {
                return Some(flow);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Adds a flow; false if there is no place for it within [`PROBES_MAX`].
    fn insert(&mut self, hash: u32, flow: u32) -> bool {
        if (self.used + 1) * 2 > self.slots.len() {
            self.rebuild();
        }
        self.put(hash, flow)
    }

    fn put(&mut self, hash: u32, flow: u32) -> bool {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        for _ in 0..PROBES_MAX {
            if self.slots[at].1 == EMPTY {
                self.slots[at] = (hash, flow);
                self.flows += 1;
                self.used += 1;
                return true;
            }
            at = (at + 1) & mask;
        }
        false
    }

    /// Makes room: twice the slots that the flows need, without those that are gone. A flow that
    /// finds no place is left out; its packets ask the pipeline.
    fn rebuild(&mut self) {
        let kept = |&&(_, flow): &&(u32, u32)| flow != EMPTY && flow != GONE;
        let flows: Vec<(u32, u32)> = self.slots.iter().filter(kept).copied().collect();
        let slots = ((flows.len() + 1) * 4).next_power_of_two().max(SLOTS_MIN);
        for doublings in 0..=DOUBLINGS_MAX {
            self.slots = vec![(0, EMPTY); slots << doublings].into();
            (self.flows, self.used) = (0, 0);
            let placed = flows.iter().filter(|&&(hash, flow)| self.put(hash, flow)).count();
            if placed == flows.len() {
                return;
            }
        }
    }

    fn remove(&mut self, hash: u32, flow: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        for _ in 0..PROBES_MAX {
            if self.slots[at] == (hash, flow) {
                self.slots[at].1 = GONE;
                self.flows -= 1;
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

/// Packets of a burst, by index, that have no flow yet.
pub(crate) struct Waiting {
    list: [u8; BURST],
    count: usize,
}

impl Waiting {
    pub(crate) fn new() -> Waiting {
        Waiting { list: [0; BURST], count: 0 }
    }

    /// Adds a packet; there are never more than a burst has.
    #[inline(always)]
    pub(crate) fn push(&mut self, i: usize) {
        self.list[self.count] = i as u8;
        self.count += 1;
    }

    #[inline(always)]
    pub(crate) fn list(&self) -> &[u8] {
        &self.list[..self.count]
    }

    /// Keeps the packets for which `keep`, told the place in the list and the packet, says so.
    #[inline(always)]
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(usize, usize) -> bool) {
        let mut kept = 0;
        for at in 0..self.count {
            let i = self.list[at];
            if keep(at, i.into()) {
                self.list[kept] = i;
                kept += 1;
            }
        }
        self.count = kept;
    }
}

/// The flows of packets from one port, by mask.
struct PortFlows {
    subtables: Vec<Subtable>,
    budget: Budget,
    guess: Guess,
}

/// The flow that a port's next packet may have.
#[derive(Clone, Copy)]
pub(crate) struct Guess {
    /// Its number; [`u32::MAX`] if there is no telling.
    pub(crate) flow: u32,
    /// What its frames look like, if that can be said.
    pub(crate) template: Option<Template>,
}

impl Guess {
    const NONE: Guess = Guess { flow: EMPTY, template: None };
}

impl Default for PortFlows {
    fn default() -> Self {
        PortFlows { subtables: Vec::new(), budget: Budget::default(), guess: Guess::NONE }
    }
}

/// All megaflows of a thread, by input port and mask: the masks that one port's packets bring about
/// are searched for its own packets only. Flows are named by their index elsewhere.
pub(crate) struct Classifier {
    ports: Vec<PortFlows>,
    secret: HashKey,
}

impl Classifier {
    pub(crate) fn new(secret: HashKey) -> Classifier {
        Classifier { ports: Vec::new(), secret }
    }

    /// Where the flows of a port are.
    #[inline(always)]
    fn place(in_port: u32) -> usize {
        (in_port as usize).min(PORTS_MAX - 1)
    }

    fn port(&mut self, in_port: u32) -> &mut PortFlows {
        let at = Self::place(in_port);
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, PortFlows::default);
        }
        &mut self.ports[at]
    }

    /// What a port may still do.
    pub(crate) fn budget(&mut self, in_port: u32) -> &mut Budget {
        &mut self.port(in_port).budget
    }

    /// The flow that a port's next packet may have.
    #[inline(always)]
    pub(crate) fn guess(&self, in_port: u32) -> &Guess {
        self.ports.get(Self::place(in_port)).map_or(&Guess::NONE, |port| &port.guess)
    }

    /// Sets what [`Classifier::guess`] tells: flow number `flow`, which `find` finds if it is there.
    #[inline(always)]
    pub(crate) fn set_guess<'a>(
        &mut self,
        in_port: u32,
        flow: u32,
        find: impl FnOnce() -> Option<&'a Megaflow>,
    ) {
        if let Some(port) = self.ports.get_mut(Self::place(in_port))
            && port.guess.flow != flow
        {
            port.guess = Guess { flow, template: find().and_then(Template::new) };
        }
    }

    /// Looks for the flows of packets of one burst, which all came in by one port. Those that have one
    /// are told to `found` and taken from `waiting`. Returns how many subtables were searched for them.
    ///
    /// Masks never overlap in what they say of a packet, so the first hit is the answer. For each
    /// subtable, all hashes are made first, then all slots read, then all flows, so that the packets
    /// wait for memory together.
    #[inline]
    pub(crate) fn find(
        &mut self,
        packets: &[Extracted; BURST],
        waiting: &mut Waiting,
        fetch: impl Fn(u32),
        is_right: impl Fn(u32, usize) -> bool,
        mut found: impl FnMut(usize, u32),
    ) -> usize {
        let Some(&first) = waiting.list().first() else { return 0 };
        let Some(port) = self.ports.get_mut(Self::place(packets[usize::from(first)].key.in_port))
        else {
            return 0;
        };
        let (mut hashes, mut searched) = ([0; BURST], 0);
        for (rank, t) in port.subtables.iter_mut().enumerate() {
            for (hash, i) in hashes.iter_mut().zip(waiting.list()) {
                *hash = t.hash(&packets[usize::from(*i)].key, &self.secret);
                t.prefetch(*hash);
            }
            for hash in &hashes[..waiting.list().len()] {
                if let Some(flow) = t.first(*hash) {
                    fetch(flow);
                }
            }
            let before = waiting.list().len();
            waiting.retain(|at, i| match t.find(hashes[at], |f| is_right(f, i)) {
                Some(flow) => {
                    found(i, flow);
                    false
                }
                None => true,
            });
            let hits = before - waiting.list().len();
            t.hits += hits as u64;
            searched += hits * (rank + 1);
            if waiting.list().is_empty() {
                break;
            }
        }
        searched
    }

    /// The mask to keep a flow with that is right with `mask`: the same if the port has it or may have
    /// one more, or else all bits.
    pub(crate) fn mask(&mut self, in_port: u32, mask: &FlowMask) -> FlowMask {
        let port = self.port(in_port);
        let has = |mask: &FlowMask| port.subtables.iter().any(|t| t.mask == *mask);
        let exact = FlowMask::exact();
        let used = port.subtables.len() - usize::from(has(&exact));
        if used < MASKS_MAX || has(mask) { *mask } else { exact }
    }

    /// Adds a flow; false if there is no place for it.
    pub(crate) fn insert(&mut self, flow: &Megaflow, index: u32) -> bool {
        let secret = self.secret;
        let port = self.port(flow.origin.in_port);
        let i = match port.subtables.iter().position(|t| t.mask == flow.wildcards) {
            Some(i) => i,
            None => {
                port.subtables.push(Subtable::new(&flow.wildcards));
                port.subtables.len() - 1
            }
        };
        let t = &mut port.subtables[i];
        let hash = t.hash(&flow.origin, &secret);
        let placed = t.insert(hash, index);
        port.budget.flows += usize::from(placed);
        placed
    }

    /// Takes a flow out.
    pub(crate) fn remove(&mut self, flow: &Megaflow, index: u32) {
        let secret = self.secret;
        let port = self.port(flow.origin.in_port);
        port.budget.flows = port.budget.flows.saturating_sub(1);
        if port.guess.flow == index {
            // The number may be given to another flow.
            port.guess = Guess::NONE;
        }
        if let Some(i) = port.subtables.iter().position(|t| t.mask == flow.wildcards) {
            let t = &mut port.subtables[i];
            let hash = t.hash(&flow.origin, &secret);
            t.remove(hash, index);
            if t.flows == 0 {
                port.subtables.swap_remove(i);
            }
        }
    }

    /// Puts the subtables that are hit most first.
    pub(crate) fn rank(&mut self) {
        for port in &mut self.ports {
            port.subtables.sort_unstable_by_key(|t| std::cmp::Reverse(t.hits));
            for t in &mut port.subtables {
                t.hits = 0;
            }
        }
    }
}
