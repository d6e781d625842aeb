//! The megaflow classifier: tuple-space search, one hash table for each mask in use.

use crate::megaflow::Megaflow;
use flow::{Extracted, FlowKey, FlowMask, HOT_WORDS, WORDS};
use packet::arch::{hash_more, hash6};

/// Slots of a new table.
const SLOTS_MIN: usize = 64;
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
    fn hash(&self, key: &FlowKey, seed: u64) -> u32 {
        let words = key.words();
        let mut hot = [0; HOT_WORDS];
        for (i, h) in hot.iter_mut().enumerate() {
            *h = words[i] & self.words[i];
        }
        let hash = hash6(&hot, seed);
        if self.hot_only {
            return hash;
        }
        let mut rest = [0; WORDS - HOT_WORDS];
        for (i, r) in rest.iter_mut().enumerate() {
            *r = words[HOT_WORDS + i] & self.words[HOT_WORDS + i];
        }
        hash_more(hash, &rest)
    }

    #[inline(always)]
    fn find(&self, hash: u32, mut is_right: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let (h, flow) = self.slots[at];
            if flow == EMPTY {
                return None;
            }
            if h == hash && flow != GONE && is_right(flow) {
                return Some(flow);
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, hash: u32, flow: u32) {
        if (self.used + 1) * 2 > self.slots.len() {
            self.rebuild();
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].1 != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = (hash, flow);
        self.flows += 1;
        self.used += 1;
    }

    /// Makes room: twice the slots that the flows need, without those that are gone.
    fn rebuild(&mut self) {
        let slots = ((self.flows + 1) * 4).next_power_of_two().max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![(0, EMPTY); slots].into());
        (self.flows, self.used) = (0, 0);
        for (hash, flow) in old {
            if flow != EMPTY && flow != GONE {
                self.insert(hash, flow);
            }
        }
    }

    fn remove(&mut self, hash: u32, flow: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].1 != EMPTY {
            if self.slots[at] == (hash, flow) {
                self.slots[at].1 = GONE;
                self.flows -= 1;
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

/// All megaflows of a thread by mask. Flows are named by their index elsewhere.
pub(crate) struct Classifier {
    subtables: Vec<Subtable>,
    seed: u64,
}

impl Classifier {
    pub(crate) fn new(seed: u64) -> Classifier {
        Classifier { subtables: Vec::new(), seed }
    }

    /// The flow of a packet, and how many subtables were searched. Masks never overlap in what they
    /// say of a packet, so the first hit is the answer.
    #[inline]
    pub(crate) fn find(
        &mut self,
        packet: &Extracted,
        mut is_right: impl FnMut(u32) -> bool,
    ) -> (Option<u32>, usize) {
        for (i, t) in self.subtables.iter_mut().enumerate() {
            let hash = t.hash(&packet.key, self.seed);
            if let Some(flow) = t.find(hash, &mut is_right) {
                t.hits += 1;
                return (Some(flow), i + 1);
            }
        }
        (None, self.subtables.len())
    }

    /// Adds a flow.
    pub(crate) fn insert(&mut self, flow: &Megaflow, index: u32) {
        let i = match self.subtables.iter().position(|t| t.mask == flow.wildcards) {
            Some(i) => i,
            None => {
                self.subtables.push(Subtable::new(&flow.wildcards));
                self.subtables.len() - 1
            }
        };
        let t = &mut self.subtables[i];
        let hash = t.hash(&flow.origin, self.seed);
        t.insert(hash, index);
    }

    /// Takes a flow out.
    pub(crate) fn remove(&mut self, flow: &Megaflow, index: u32) {
        if let Some(i) = self.subtables.iter().position(|t| t.mask == flow.wildcards) {
            let t = &mut self.subtables[i];
            let hash = t.hash(&flow.origin, self.seed);
            t.remove(hash, index);
            if t.flows == 0 {
                self.subtables.swap_remove(i);
            }
        }
    }

    /// Puts the subtables that are hit most first.
    pub(crate) fn rank(&mut self) {
        self.subtables.sort_unstable_by_key(|t| std::cmp::Reverse(t.hits));
        for t in &mut self.subtables {
            t.hits = 0;
        }
    }
}
