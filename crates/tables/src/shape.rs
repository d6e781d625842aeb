//! The mask that the flows of a subtable share, and values under it, as the few words that matter.
//!
//! A [`FullKey`] is large and flows look at little of it. A [`Shape`] lists the words of a mask that
//! have bits, in the order in which a lookup compares them: what every packet of a port shares first,
//! then Ethernet, then the network layer, then the transport layer. A flow's value is one word for
//! each of them.

use flow::Mac;
use openflow::{FullKey, FullMask, KEY_WORDS, Match};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::OnceLock;
use zerocopy::big_endian::{U16, U32};

/// Steps of a lookup: metadata and input port, Ethernet, network layer, transport layer.
pub(crate) const STAGES: usize = 4;
/// A mask without its empty words.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Position in the key and bits. A word that has bits of several stages is there several times.
    words: Box<[(u16, u64)]>,
    /// Where each stage ends in `words`.
    ends: [u16; STAGES],
    hash: u64,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        self.words == other.words
    }
}
impl Eq for Shape {}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Which stage looks at which bits.
fn stages() -> &'static [[u64; KEY_WORDS]; STAGES] {
    static BITS: OnceLock<[[u64; KEY_WORDS]; STAGES]> = OnceLock::new();
    BITS.get_or_init(|| {
        let ones = [0xff; 16];
        let [mut ethernet, mut network, mut transport] = [FullKey::default(); 3];
        let e = &mut ethernet.pkt;
        (e.dl_src, e.dl_dst, e.dl_type) = (Mac::BROADCAST, Mac::BROADCAST, U16::new(u16::MAX));
        e.mpls_lse = [U32::new(u32::MAX); flow::MPLS_LABELS];
        for tag in &mut e.vlan {
            (tag.tpid, tag.tci) = (U16::new(u16::MAX), U16::new(u16::MAX));
        }
        let t = &mut transport.pkt;
        (t.tp_src, t.tp_dst) = (U16::new(u16::MAX), U16::new(u16::MAX));
        (t.tcp_flags, t.igmp_group) = (U16::new(u16::MAX), U32::new(u32::MAX));
        t.nd_target = ones;
        (t.arp_sha, t.arp_tha) = (Mac::BROADCAST, Mac::BROADCAST);
        (transport.ct_tp_src, transport.ct_tp_dst) = (U16::new(u16::MAX), U16::new(u16::MAX));
        // What remains of the packet's own fields belongs to the network layer.
        network.pkt = *flow::FlowMask::exact().bits();
        (network.ct_nw_src, network.ct_nw_dst) = (U32::new(u32::MAX), U32::new(u32::MAX));
        (network.ct_ipv6_src, network.ct_ipv6_dst, network.ct_nw_proto) = (ones, ones, 0xff);
        let (ethernet, transport) = (*ethernet.words(), *transport.words());
        let network: [u64; KEY_WORDS] =
            std::array::from_fn(|i| network.words()[i] & !ethernet[i] & !transport[i]);
        let metadata = std::array::from_fn(|i| !(ethernet[i] | network[i] | transport[i]));
        [metadata, ethernet, network, transport]
    })
}

impl Shape {
    /// The shape of a mask.
    pub fn new(mask: &FullMask) -> Shape {
        let used: Vec<usize> = (0..KEY_WORDS).filter(|&i| mask.words()[i] != 0).collect();
        let mut words = Vec::with_capacity(used.len() + 2);
        let mut ends = [0; STAGES];
        for (end, bits) in ends.iter_mut().zip(stages()) {
            let of_stage = used.iter().map(|&i| (i as u16, mask.words()[i] & bits[i]));
            words.extend(of_stage.filter(|(_, bits)| *bits != 0));
            *end = words.len() as u16;
        }
        let hash = words.iter().fold(START, |h, (i, bits)| fold(fold(h, u64::from(*i)), *bits));
        Shape { words: words.into(), ends, hash }
    }

    /// The words of one stage, with where it begins.
    pub fn stage(&self, stage: usize) -> &[(u16, u64)] {
        let from = if stage == 0 { 0 } else { self.ends[stage - 1] };
        &self.words[from.into()..self.ends[stage].into()]
    }

    /// All its words.
    pub fn words(&self) -> &[(u16, u64)] {
        &self.words
    }

    /// The stages that have bits.
    pub fn used_stages(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..STAGES).filter(|s| !self.stage(*s).is_empty())
    }

    /// `key` under this mask.
    pub fn value(&self, key: &FullKey) -> Box<[u64]> {
        self.words.iter().map(|(at, bits)| key.words()[usize::from(*at)] & bits).collect()
    }

    /// True if `key` has `value` under this mask.
    #[inline]
    pub fn agrees(&self, key: &FullKey, value: &[u64]) -> bool {
        let words = self.words.iter().zip(value);
        words.fold(0, |d, ((at, bits), v)| d | ((key.words()[usize::from(*at)] & bits) ^ v)) == 0
    }

    /// The mask as a whole.
    pub fn mask(&self) -> FullMask {
        let mut mask = FullMask::default();
        see(&self.words, &mut mask);
        mask
    }

    /// A match with this mask.
    pub fn matching(&self, value: &[u64]) -> Match {
        let mut out = Match { mask: self.mask(), ..Match::any() };
        for ((at, _), v) in self.words.iter().zip(value) {
            out.value.words_mut()[usize::from(*at)] |= v;
        }
        out
    }

    /// How one more stage of a key changes its hash. Begin with [`START`].
    #[inline]
    pub fn hash_stage(&self, stage: usize, hash: u64, key: &FullKey) -> u64 {
        let words = self.stage(stage).iter();
        words.fold(hash, |h, (at, bits)| fold(h, key.words()[usize::from(*at)] & bits))
    }

    /// The hash of a value after each stage.
    pub fn hashes(&self, value: &[u64]) -> [u64; STAGES] {
        let (mut hash, mut from) = (START, 0);
        self.ends.map(|end| {
            let part = &value[from..usize::from(end)];
            from = end.into();
            hash = part.iter().fold(hash, |h, w| fold(h, *w));
            hash
        })
    }

    /// The mask of the two transport ports, the source in the upper half.
    pub fn ports(&self) -> u32 {
        ports_of(&self.mask().0)
    }
}

/// Adds words of a shape to a mask.
#[inline]
pub(crate) fn see(words: &[(u16, u64)], seen: &mut FullMask) {
    let out = seen.0.words_mut();
    for (at, bits) in words {
        out[usize::from(*at)] |= bits;
    }
}

/// The stage that looks at the byte at `at` of a key.
pub(crate) fn stage_of(at: usize) -> usize {
    let mut byte = [0; 8];
    byte[at % 8] = 0xff;
    let bits = u64::from_ne_bytes(byte);
    stages().iter().position(|s| s[at / 8] & bits != 0).unwrap_or(0)
}

/// The transport ports of a key, the source in the upper half.
#[inline]
pub(crate) fn ports_of(key: &FullKey) -> u32 {
    u32::from(key.pkt.tp_src.get()) << 16 | u32::from(key.pkt.tp_dst.get())
}

/// Adds bits of the transport ports to a mask.
pub(crate) fn see_ports(bits: u32, seen: &mut FullMask) {
    let pkt = &mut seen.0.pkt;
    pkt.tp_src = U16::new(pkt.tp_src.get() | (bits >> 16) as u16);
    pkt.tp_dst = U16::new(pkt.tp_dst.get() | bits as u16);
}

/// Hash of no words.
pub(crate) const START: u64 = 0;

/// Two odd numbers that nobody outside knows, so that nobody can choose values that collide.
fn secrets() -> (u64, u64) {
    static SECRETS: OnceLock<(u64, u64)> = OnceLock::new();
    *SECRETS.get_or_init(|| {
        let random = RandomState::new();
        (random.hash_one(1) | 1, random.hash_one(2) | 1)
    })
}

/// Adds one word to a hash: the product's halves, mixed.
#[inline]
pub(crate) fn fold(hash: u64, word: u64) -> u64 {
    let (a, b) = secrets();
    let product = u128::from(hash ^ word ^ a) * u128::from(b);
    (product as u64).wrapping_add((product >> 64) as u64).rotate_left(23)
}

/// Hashes keys that are hashes already.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = fold(self.0, u64::from(*b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// A persistent map by hash.
pub(crate) type ByHash<V> =
    imbl::GenericHashMap<u64, V, BuildHasherDefault<Hashed>, imbl::shared_ptr::DefaultSharedPtr>;
/// A persistent map by shape.
pub(crate) type ByShape<V> = imbl::GenericHashMap<
    std::sync::Arc<Shape>,
    V,
    BuildHasherDefault<Hashed>,
    imbl::shared_ptr::DefaultSharedPtr,
>;
