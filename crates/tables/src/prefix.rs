//! Which prefixes of an address are stored, and how many bits of it decide that.
//!
//! A table keeps the prefixes that its flows match in a few address fields. One search for a packet's
//! address then tells which prefix lengths can match at all, so that the subtables of the others are
//! passed over, and how many leading bits of the address that depended on.

use openflow::{FullKey, FullMask};
use std::num::NonZeroU32;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Fields of a table that are tracked at most: more would cost each lookup more than they save
/// (`Flow_Table.prefixes` of OVS allows 3; both kinds of addresses make 4).
pub(crate) const MAX_TRACKED: usize = 4;

/// An address field: a run of whole bytes of the key, at most 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    /// First byte.
    pub at: u16,
    /// Bytes.
    pub bytes: u8,
}

impl Address {
    /// Its value, left-aligned.
    pub fn get(self, key: &FullKey) -> u128 {
        let (at, n) = (usize::from(self.at), usize::from(self.bytes));
        let mut out = [0; 16];
        out[..n].copy_from_slice(&key.as_bytes()[at..at + n]);
        u128::from_be_bytes(out)
    }

    /// The length of the prefix that `mask` matches of it: `None` for no prefix, or for none at all.
    pub fn prefix(self, mask: &FullMask) -> Option<u8> {
        let bits = self.get(&mask.0);
        let len = bits.leading_ones();
        (len > 0 && len + bits.trailing_zeros() == 128).then_some(len as u8)
    }

    /// Adds its first `bits` bits to a mask.
    pub fn see(self, bits: u8, seen: &mut FullMask) {
        let (at, n) = (usize::from(self.at), usize::from(self.bytes));
        let ones = leading(bits).to_be_bytes();
        let bytes = &mut seen.0.as_mut_bytes()[at..at + n];
        bytes.iter_mut().zip(ones).for_each(|(b, o)| *b |= o);
    }
}

/// The first `bits` bits.
fn leading(bits: u8) -> u128 {
    match bits {
        0 => 0,
        n => u128::MAX << (128 - u32::from(n.min(128))),
    }
}

/// A prefix, left-aligned and zero behind its length, with how often it is in a set. In halves, so that
/// a [`Child`] is three words.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    high: u64,
    low: u64,
    len: u8,
    count: NonZeroU32,
}

impl Prefix {
    fn new(address: u128, len: u8) -> Prefix {
        let address = address & leading(len);
        let (high, low) = ((address >> 64) as u64, address as u64);
        Prefix { high, low, len, count: NonZeroU32::MIN }
    }

    fn address(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    fn is(&self, other: &Prefix) -> bool {
        (self.high, self.low, self.len) == (other.high, other.low, other.len)
    }
}

/// Which lengths match an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lengths {
    /// Bit n - 1 for length n.
    matching: u128,
    /// Bits of the address that this depended on.
    pub bits: u8,
}

impl Lengths {
    /// True if a stored prefix of so many bits (at least one) covers the address.
    pub fn has(&self, len: u8) -> bool {
        len == 0 || self.matching >> (len - 1) & 1 != 0
    }

    fn add(&mut self, len: u8) {
        if len > 0 {
            self.matching |= 1 << (len - 1);
        }
        self.bits = self.bits.max(len);
    }
}

const _: () = assert!(size_of::<Child>() == 24);

/// Bits of an address that one node of the trie decides by: as many as a word has bits for.
const STRIDE: u8 = 6;

/// A counted set of prefixes, as a trie. Copies share what is equal.
///
/// Whoever looks for an address goes through one node for each [`STRIDE`] bits, until nothing or one
/// prefix is left: few cache lines even among a million prefixes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes(Node);

/// What is stored below one address prefix of a multiple of [`STRIDE`] bits.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Which prefixes of up to 5 bits more there are: bit `2^n - 1 + v` for value `v` of `n` bits.
    own: u64,
    /// For which values of the next 6 bits there are longer ones.
    longer: u64,
    /// One for each of `own`, which is a prefix, then one for each of `longer`.
    children: Vec<Child>,
}

#[derive(Debug, Clone)]
enum Child {
    One(Prefix),
    Many(Arc<Node>),
}

/// Where a bit is, or would be, among the set bits of a word.
fn rank(word: u64, bit: u32) -> usize {
    (word & ((1 << bit) - 1)).count_ones() as usize
}

/// The next bits of an address.
fn chunk(address: u128, depth: u8) -> u32 {
    (address << (STRIDE * depth) >> (128 - u32::from(STRIDE))) as u32
}

/// `2^n` ones.
fn row(n: u32) -> u64 {
    u64::MAX >> (64 - (1u32 << n))
}

impl Node {
    /// Whether a prefix ends in this node, and its bit in `own`, or else in `longer`.
    fn bit(p: &Prefix, depth: u8) -> (bool, u32) {
        let next = chunk(p.address(), depth);
        match p.len - STRIDE * depth {
            n @ ..STRIDE => (true, (1 << n) - 1 + (next >> (STRIDE - n))),
            _ => (false, next),
        }
    }

    /// Whether there is something at a bit, and where it is or would be.
    fn at(&self, (own, bit): (bool, u32)) -> (bool, usize) {
        match own {
            true => (self.own >> bit & 1 != 0, rank(self.own, bit)),
            false => {
                let before = self.own.count_ones() as usize;
                (self.longer >> bit & 1 != 0, before + rank(self.longer, bit))
            }
        }
    }

    fn flip(&mut self, (own, bit): (bool, u32)) {
        let word = if own { &mut self.own } else { &mut self.longer };
        *word ^= 1 << bit;
    }

    /// Adds a prefix as often as it says.
    fn add(&mut self, p: Prefix, depth: u8) {
        let bit = Node::bit(&p, depth);
        let (there, at) = self.at(bit);
        if !there {
            self.flip(bit);
            return self.children.insert(at, Child::One(p));
        }
        match &mut self.children[at] {
            Child::One(old) if old.is(&p) => old.count = old.count.saturating_add(p.count.get()),
            Child::One(old) => {
                let mut node = Node::default();
                node.add(*old, depth + 1);
                node.add(p, depth + 1);
                self.children[at] = Child::Many(Arc::new(node));
            }
            Child::Many(node) => Arc::make_mut(node).add(p, depth + 1),
        }
    }

    /// Takes a prefix out once.
    fn remove(&mut self, p: &Prefix, depth: u8) {
        let bit = Node::bit(p, depth);
        let (there, at) = self.at(bit);
        if !there {
            return;
        }
        match &mut self.children[at] {
            Child::One(old) if !old.is(p) => {}
            Child::One(old) => match NonZeroU32::new(old.count.get() - 1) {
                Some(left) => old.count = left,
                None => {
                    self.children.remove(at);
                    self.flip(bit);
                }
            },
            Child::Many(node) => {
                let below = Arc::make_mut(node);
                below.remove(p, depth + 1);
                // One prefix alone needs no node.
                if let [Child::One(last)] = below.children.as_slice() {
                    self.children[at] = Child::One(*last);
                }
            }
        }
    }

    fn find(&self, address: u128, depth: u8, out: &mut Lengths) {
        let next = chunk(address, depth);
        for n in 0..u32::from(STRIDE) {
            if self.own >> ((1 << n) - 1 + (next >> (u32::from(STRIDE) - n))) & 1 != 0 {
                out.add(STRIDE * depth + n as u8);
            }
        }
        if self.longer >> next & 1 == 0 {
            out.bits = out.bits.max(STRIDE * depth + self.deciding(next));
            return;
        }
        match &self.children[self.at((false, next)).1] {
            Child::Many(node) => node.find(address, depth + 1, out),
            Child::One(p) => {
                let common = (p.address() ^ address).leading_zeros() as u8;
                match common >= p.len {
                    true => out.add(p.len),
                    false => out.bits = out.bits.max(common + 1),
                }
            }
        }
    }

    /// How many of this node's bits decide what is stored here: one more than the longest beginning
    /// of `next` below which there is anything.
    fn deciding(&self, next: u32) -> u8 {
        let stride = u32::from(STRIDE);
        let below = |k: u32| {
            let start = next >> (stride - k);
            let longer = self.longer >> (start << (stride - k)) & row(stride - k);
            let own = |n: u32| self.own >> ((1 << n) - 1 + (start << (n - k))) & row(n - k);
            longer != 0 || (k + 1..stride).any(|n| own(n) != 0)
        };
        (0..stride).rev().find(|k| below(*k)).map_or(0, |k| k as u8 + 1)
    }
}

impl Prefixes {
    /// Adds the first `len` bits of an address.
    pub fn add(&mut self, address: u128, len: u8) {
        self.0.add(Prefix::new(address, len), 0);
    }

    /// Takes one back that was added.
    pub fn remove(&mut self, address: u128, len: u8) {
        self.0.remove(&Prefix::new(address, len), 0);
    }

    /// Which prefixes cover `address`.
    pub fn find(&self, address: u128) -> Lengths {
        let mut out = Lengths::default();
        self.0.find(address, 0, &mut out);
        out
    }
}

/// A counted set of values of the two transport ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports(Prefixes);

impl Ports {
    /// Adds a value.
    pub fn add(&mut self, value: u32) {
        self.0.add(u128::from(value) << 96, 32);
    }

    /// Takes one back that was added.
    pub fn remove(&mut self, value: u32) {
        self.0.remove(u128::from(value) << 96, 32);
    }

    /// The bits of `value` that show that it is not in the set, if it is not.
    pub fn absent(&self, value: u32) -> Option<u32> {
        let found = self.0.find(u128::from(value) << 96);
        (!found.has(32)).then(|| (leading(found.bits) >> 96) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Addresses that agree in their beginnings, and prefixes of them.
    fn prefix() -> impl Strategy<Value = (u128, u8)> {
        let address = (0u128..4, 0u32..128, 0u128..4, 0u32..128);
        let address = address.prop_map(|(a, at, b, by)| a << at ^ b << by);
        (address, prop_oneof![0u8..=128, 0u8..=13, 120u8..=128])
    }

    fn covers(p: &(u128, u8), address: u128) -> bool {
        (p.0 ^ address) & leading(p.1) == 0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// As one would find out by looking at all of them.
        #[test]
        fn finds_the_lengths_and_the_bits(
            all in proptest::collection::vec(prefix(), 0..24),
            gone in 0usize..24,
            (address, _) in prefix(),
        ) {
            let mut set = Prefixes::default();
            all.iter().for_each(|p| set.add(p.0, p.1));
            let gone = gone.min(all.len());
            let before = set.clone();
            all[..gone].iter().for_each(|p| set.remove(p.0, p.1));
            for (set, left) in [(&set, &all[gone..]), (&before, &all[..])] {
                let found = set.find(address);
                for len in 1..=128 {
                    let covered = left.iter().any(|p| p.1 == len && covers(p, address));
                    prop_assert_eq!(found.has(len), covered);
                }
                let bits = left.iter().map(|p| match covers(p, address) {
                    true => p.1,
                    false => ((p.0 & leading(p.1)) ^ address).leading_zeros() as u8 + 1,
                });
                prop_assert_eq!(found.bits, bits.max().unwrap_or(0));
            }
            all[gone..].iter().for_each(|p| set.remove(p.0, p.1));
            prop_assert_eq!(set.find(address), Lengths::default());
            prop_assert!(set.0.children.is_empty());
        }
    }
}
