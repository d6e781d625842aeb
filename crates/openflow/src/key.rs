//! The pipeline's key: a packet's fields, and all else that a flow may match.
//!
//! A [`FlowKey`] is what the datapath reads from each packet and caches by; a [`FullKey`] begins with
//! one and adds what only the slow path knows: OpenFlow's port number, registers, metadata, tunnel and
//! connection tracking fields. All numbers are big-endian, so that a field is a run of bits wherever it
//! lies (`Field::at`).

use flow::{FlowKey, FlowMask};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Words in a [`FullKey`].
pub const KEY_WORDS: usize = 112;
/// Tunnel options that can have a field (`tun_metadata0` to `tun_metadata63`).
pub const TUN_METADATA: usize = 64;
/// Longest tunnel option that a field can hold, in bytes. Known users have 4 or 8.
pub const TUN_METADATA_BYTES: usize = 8;

/// Outer header of a packet that came through a tunnel, or that one will be given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelKey {
    /// Key or VNI.
    pub id: U64,
    /// Outer IPv4 source.
    pub src: U32,
    /// Outer IPv4 destination.
    pub dst: U32,
    /// Outer IPv6 source.
    pub ipv6_src: [u8; 16],
    /// Outer IPv6 destination.
    pub ipv6_dst: [u8; 16],
    /// `oam` is 1 (OVS `tun_flags`).
    pub flags: U16,
    /// Outer DSCP and ECN.
    pub tos: u8,
    /// Outer TTL.
    pub ttl: u8,
    /// VXLAN group policy ID.
    pub gbp_id: U16,
    /// VXLAN group policy flags.
    pub gbp_flags: u8,
    /// ERSPAN version.
    pub erspan_ver: u8,
    /// ERSPAN index, 20 bits.
    pub erspan_idx: U32,
    /// ERSPAN direction, 1 bit.
    pub erspan_dir: u8,
    /// ERSPAN hardware ID, 6 bits.
    pub erspan_hwid: u8,
    /// GTP-U flags.
    pub gtpu_flags: u8,
    /// GTP-U message type.
    pub gtpu_msgtype: u8,
    /// Bit n (from the least significant) says that option n is there.
    pub present: U64,
    /// Options, right-aligned.
    pub metadata: [[u8; TUN_METADATA_BYTES]; TUN_METADATA],
}

impl Default for TunnelKey {
    fn default() -> Self {
        TunnelKey::new_zeroed()
    }
}

impl Default for FullKey {
    fn default() -> Self {
        FullKey::new_zeroed()
    }
}

/// All that a flow can match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct FullKey {
    /// The packet's own fields. Its `in_port` and `recirc_id` are always 0 here.
    pub pkt: FlowKey,
    /// OpenFlow number of the input port; the upper 16 bits are 0 for reserved ones too.
    pub in_port: U32,
    /// Output port in the action set; the upper 16 bits are 0 for reserved ones too.
    pub actset_output: U32,
    /// OpenFlow metadata.
    pub metadata: U64,
    /// Registers 0 to 15.
    pub regs: [U32; 16],
    /// Packet mark.
    pub pkt_mark: U32,
    /// Queue, 0 for the default (`skb_priority`).
    pub skb_priority: U32,
    /// Conjunction that matched.
    pub conj_id: U32,
    /// Hash from the datapath.
    pub dp_hash: U32,
    /// Namespace and type; 0 is Ethernet.
    pub packet_type: U32,
    /// Connection state bits.
    pub ct_state: U32,
    /// Connection mark.
    pub ct_mark: U32,
    /// Connection zone.
    pub ct_zone: U16,
    /// Protocol of the connection's original direction.
    pub ct_nw_proto: u8,
    /// Always 0.
    pub pad0: u8,
    /// Connection label.
    pub ct_label: [u8; 16],
    /// Original direction's IPv4 source.
    pub ct_nw_src: U32,
    /// Original direction's IPv4 destination.
    pub ct_nw_dst: U32,
    /// Original direction's IPv6 source.
    pub ct_ipv6_src: [u8; 16],
    /// Original direction's IPv6 destination.
    pub ct_ipv6_dst: [u8; 16],
    /// Original direction's source port.
    pub ct_tp_src: U16,
    /// Original direction's destination port.
    pub ct_tp_dst: U16,
    /// Always 0.
    pub pad1: [u8; 4],
    /// Outer header.
    pub tunnel: TunnelKey,
    /// Always 0.
    pub pad2: [u8; 8],
}

const _: () = assert!(size_of::<FullKey>() == KEY_WORDS * 8);

impl FullKey {
    /// A packet that came in by OpenFlow port `in_port`.
    pub fn new(packet: &FlowKey, in_port: u32) -> FullKey {
        let pkt = FlowKey { in_port: 0, recirc_id: 0, ..*packet };
        FullKey { pkt, in_port: U32::new(in_port), ..FullKey::default() }
    }

    /// The key as words, in memory order.
    #[inline(always)]
    pub fn words(&self) -> &[u64; KEY_WORDS] {
        zerocopy::transmute_ref!(self)
    }

    /// The key as words, to be changed.
    #[inline(always)]
    pub fn words_mut(&mut self) -> &mut [u64; KEY_WORDS] {
        zerocopy::transmute_mut!(self)
    }
}

/// A set of bits of a [`FullKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FullMask(pub FullKey);

impl FullMask {
    /// The set as words.
    #[inline(always)]
    pub fn words(&self) -> &[u64; KEY_WORDS] {
        self.0.words()
    }

    /// Adds all bits of `other`.
    pub fn add(&mut self, other: &FullMask) {
        for (w, o) in self.0.words_mut().iter_mut().zip(other.words()) {
            *w |= o;
        }
    }

    /// Adds the bits of `other` that are not in `but`.
    pub fn add_except(&mut self, other: &FullMask, but: &FullMask) {
        let both = other.words().iter().zip(but.words());
        for (w, (o, b)) in self.0.words_mut().iter_mut().zip(both) {
            *w |= o & !b;
        }
    }

    /// Removes all bits of `other`.
    pub fn remove(&mut self, other: &FullMask) {
        for (w, o) in self.0.words_mut().iter_mut().zip(other.words()) {
            *w &= !o;
        }
    }

    /// `key` with all bits outside the mask cleared.
    pub fn apply(&self, key: &FullKey) -> FullKey {
        let mut out = *key;
        for (w, m) in out.words_mut().iter_mut().zip(self.words()) {
            *w &= m;
        }
        out
    }

    /// True if `a` and `b` agree in all bits of the mask.
    pub fn agrees(&self, a: &FullKey, b: &FullKey) -> bool {
        let (a, b) = (a.words(), b.words());
        self.words().iter().enumerate().all(|(i, m)| (a[i] ^ b[i]) & m == 0)
    }

    /// True if all bits of `other` are in the mask.
    pub fn covers(&self, other: &FullMask) -> bool {
        self.words().iter().zip(other.words()).all(|(m, o)| o & !m == 0)
    }

    /// True if there is no bit.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|w| *w == 0)
    }

    /// The bits that the datapath can see, for a megaflow: with its input port and recirculation,
    /// which every megaflow matches.
    pub fn megaflow(&self) -> FlowMask {
        let mut mask = FlowMask::default();
        let mut ours = FlowMask::empty();
        *ours.bits_mut() = self.0.pkt;
        mask.add(&ours);
        mask
    }
}
