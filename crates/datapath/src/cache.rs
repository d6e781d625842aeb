//! The exact-match cache: from a packet's hash to the megaflow that it had last time.
//!
//! An entry is a 32-bit signature and a flow's index; the megaflow itself is compared with the packet
//! before it is believed, so a signature needs not be right, and nothing has to be flushed when a
//! flow goes. Eight entries share a cache line: 64 KiB of cache hold 8192 flows where storing keys
//! would take 512 KiB.

use packet::arch::prefetch_read;

/// Entries of the cache in all, as many as OVS's EMC has.
const ENTRIES: usize = 8192;
const WAYS: usize = 8;
const BUCKETS: usize = ENTRIES / WAYS;
/// Index of no flow.
const NONE: u32 = u32::MAX;
/// A full bucket takes a new flow once in this many times, so that more flows than the cache holds
/// do not throw each other out all the time.
const REPLACE_ONE_IN: u32 = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    signatures: [u32; WAYS],
    flows: [u32; WAYS],
}

/// See the module's description.
pub(crate) struct Cache {
    buckets: Box<[Bucket]>,
    turn: u32,
}

impl Cache {
    pub(crate) fn new() -> Cache {
        let empty = Bucket { signatures: [0; WAYS], flows: [NONE; WAYS] };
        Cache { buckets: vec![empty; BUCKETS].into(), turn: 0 }
    }

    #[inline(always)]
    fn index(hash: u32) -> usize {
        hash as usize % BUCKETS
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch_read((&raw const self.buckets[Self::index(hash)]).cast());
    }

    /// The first flow with this hash that `is_right` accepts.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, mut is_right: impl FnMut(u32) -> bool) -> Option<u32> {
        let b = &self.buckets[Self::index(hash)];
        let mut hits = 0u32;
        for (i, &s) in b.signatures.iter().enumerate() {
            hits |= u32::from(s == hash) << i;
        }
        while hits != 0 {
            let flow = b.flows[hits.trailing_zeros() as usize % WAYS];
            if flow != NONE && is_right(flow) {
                return Some(flow);
            }
            hits &= hits - 1;
        }
        None
    }

    /// Remembers `flow` for `hash`, in the place of a flow that `is_gone` if there is one.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, flow: u32, is_gone: impl Fn(u32) -> bool) {
        let b = &mut self.buckets[Self::index(hash)];
        let same = b.signatures.iter().position(|&s| s == hash);
        let slot = match same.or_else(|| b.flows.iter().position(|&f| f == NONE || is_gone(f))) {
            Some(slot) => slot,
            None => {
                self.turn = self.turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if !(self.turn >> 16).is_multiple_of(REPLACE_ONE_IN) {
                    return;
                }
                (self.turn >> 8) as usize % WAYS
            }
        };
        b.signatures[slot] = hash;
        b.flows[slot] = flow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in_and_only_believes_what_is_right() {
        let mut c = Cache::new();
        c.insert(77, 5, |_| false);
        assert_eq!(c.find(77, |f| f == 5), Some(5));
        assert_eq!(c.find(77, |_| false), None);
        assert_eq!(c.find(78, |_| true), None);
        c.insert(77, 6, |_| false);
        assert_eq!(c.find(77, |_| true), Some(6), "the newer flow takes the signature's place");
    }

    #[test]
    fn signature_zero_of_an_empty_slot_is_no_flow() {
        assert_eq!(Cache::new().find(0, |_| true), None);
    }

    #[test]
    fn a_full_bucket_still_lets_new_flows_in_sometimes() {
        let mut c = Cache::new();
        let hash = |i: u32| i * BUCKETS as u32;
        for i in 0..1000 {
            c.insert(hash(i), i, |_| false);
        }
        let kept = (0..1000).filter(|&i| c.find(hash(i), |f| f == i).is_some()).count();
        assert_eq!(kept, WAYS);
        assert!((WAYS as u32..1000).any(|i| c.find(hash(i), |f| f == i).is_some()));
        c.insert(hash(5000), 5000, |f| f < 1000);
        assert_eq!(c.find(hash(5000), |_| true), Some(5000), "in the place of one that is gone");
    }
}
