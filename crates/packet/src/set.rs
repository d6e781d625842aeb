//! A set of a burst's packets.

use crate::BURST;

/// Packets of a burst by index, a bit for each. Iterates in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set(u32);

const _: () = assert!(BURST == u32::BITS as usize);

impl Set {
    /// No packet.
    pub const NONE: Set = Set(0);

    /// Packets `start` to `end - 1`, not none.
    #[inline(always)]
    pub fn range(start: usize, end: usize) -> Set {
        debug_assert!(start < end && end <= BURST);
        Set(u32::MAX >> (32 - (end - start)) << start)
    }

    /// One packet.
    #[inline(always)]
    pub fn one(i: usize) -> Set {
        debug_assert!(i < BURST);
        Set(1 << i)
    }

    /// The packets for which `keep` says yes.
    #[inline(always)]
    pub fn filter(self, mut keep: impl FnMut(usize) -> bool) -> Set {
        Set(self.fold(0, |bits, i| bits | u32::from(keep(i)) << i))
    }

    /// These and the `other` packets.
    #[inline(always)]
    pub fn with(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    /// These but not the `other` packets.
    #[inline(always)]
    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    /// True if a packet is in both sets.
    #[inline(always)]
    pub fn meets(self, other: Set) -> bool {
        self.0 & other.0 != 0
    }

    /// The first packet.
    #[inline(always)]
    pub fn first(mut self) -> Option<usize> {
        self.next()
    }

    /// All but the first packet.
    #[inline(always)]
    pub fn after_first(self) -> Set {
        Set(self.0 & self.0.wrapping_sub(1))
    }

    /// The last packet.
    #[inline(always)]
    pub fn last(self) -> Option<usize> {
        self.0.checked_ilog2().map(|i| i as usize)
    }

    /// True if there is none.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl Iterator for Set {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let i = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (i < 32).then_some(i as usize)
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (Set::len(*self), Some(Set::len(*self)))
    }
}

#[cfg(test)]
mod tests {
    use super::Set;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let all = Set::range(0, 32);
        assert_eq!((all.len(), all.first(), Set::NONE.first()), (32, Some(0), None));
        let some = Set::range(3, 6).with(Set::one(31));
        assert_eq!(some.collect::<Vec<_>>(), [3, 4, 5, 31]);
        assert_eq!(some.without(Set::range(4, 32)).collect::<Vec<_>>(), [3]);
        assert!(some.meets(Set::one(31)) && !some.meets(Set::one(2)) && Set::NONE.is_empty());
        assert_eq!(some.filter(|i| i % 2 == 1).collect::<Vec<_>>(), [3, 5, 31]);
    }
}
