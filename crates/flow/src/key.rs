//! The flow key: every packet field that a flow may match, in sixteen 8-byte words.
//!
//! The layout is for speed. The first [`HOT_WORDS`] words hold all that an Ethernet, IPv4, TCP or
//! UDP packet has, in the order of the wire where possible, so that extraction is a few wide moves
//! and hashing and comparing touch 48 bytes. The rest is for IPv6, ARP addresses and MPLS.

use std::fmt;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words in a key.
pub const WORDS: usize = 16;
/// Words that a packet without IPv6, ARP addresses or MPLS can set.
pub const HOT_WORDS: usize = 6;
/// `dl_type` of a frame that has a length instead of an EtherType and no SNAP header
/// (OVS `OFP_DL_TYPE_NOT_ETH_TYPE`).
pub const DL_TYPE_NONE: u16 = 0x05ff;
/// MPLS labels that are read (OVS `FLOW_MAX_MPLS_LABELS`).
pub const MPLS_LABELS: usize = 3;
/// `nw_frag` bit: the packet is a fragment.
pub const FRAG_ANY: u8 = 1;
/// `nw_frag` bit: a fragment with a non-zero offset, so it has no transport header.
pub const FRAG_LATER: u8 = 2;

/// EtherTypes.
pub mod ether_type {
    #![expect(missing_docs, reason = "the names are the field's own")]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const VLAN_AD: u16 = 0x88a8;
    pub const IPV6: u16 = 0x86dd;
    pub const RARP: u16 = 0x8035;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MCAST: u16 = 0x8848;
}

/// IP protocol numbers.
pub mod ip_proto {
    #![expect(missing_docs, reason = "the names are the field's own")]
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// An Ethernet address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// True for broadcast and multicast addresses.
    #[inline(always)]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(s: &str) -> Result<Mac, String> {
        let mut mac = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut mac {
            let part = parts.next().unwrap_or("");
            if part.is_empty() || part.len() > 2 {
                return Err(format!("{s}: invalid Ethernet address"));
            }
            *byte = u8::from_str_radix(part, 16)
                .map_err(|_| format!("{s}: invalid Ethernet address"))?;
        }
        if parts.next().is_some() {
            return Err(format!("{s}: invalid Ethernet address"));
        }
        Ok(Mac(mac))
    }
}

/// One VLAN tag: EtherType of the tag and its control information. All zero if there is none; a
/// tag that is there has bit 12 (`CFI`) of `tci` set, as OVS has it in `vlan_tci`.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Vlan {
    /// EtherType of the tag, 0x8100 or 0x88a8.
    pub tpid: U16,
    /// Priority (3 bits), presence (1), VLAN ID (12).
    pub tci: U16,
}

/// The fields of one packet. Fields that the packet does not have are zero.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(64))]
pub struct FlowKey {
    /// Ethernet destination.
    pub dl_dst: Mac,
    /// Ethernet source.
    pub dl_src: Mac,
    /// EtherType of what follows the VLAN tags.
    pub dl_type: U16,
    /// IP protocol, or the low 8 bits of the ARP operation.
    pub nw_proto: u8,
    /// [`FRAG_ANY`] and [`FRAG_LATER`].
    pub nw_frag: u8,
    /// Datapath port that the packet came in by.
    pub in_port: u32,
    /// 0 until the packet is recirculated.
    pub recirc_id: u32,
    /// Outer and inner VLAN tag.
    pub vlan: [Vlan; 2],
    /// IPv4 source, or ARP sender protocol address.
    pub nw_src: U32,
    /// IPv4 destination, or ARP target protocol address.
    pub nw_dst: U32,
    /// Transport source port, or ICMP type.
    pub tp_src: U16,
    /// Transport destination port, or ICMP code.
    pub tp_dst: U16,
    /// The 12 TCP flag bits, or the type of neighbour discovery's option (OVS `nd_options_type`).
    pub tcp_flags: U16,
    /// DSCP and ECN.
    pub nw_tos: u8,
    /// TTL or hop limit.
    pub nw_ttl: u8,
    /// IPv6 source.
    pub ipv6_src: [u8; 16],
    /// IPv6 destination.
    pub ipv6_dst: [u8; 16],
    /// IPv6 flow label, 20 bits.
    pub ipv6_label: U32,
    /// IGMP group, or neighbour discovery's reserved word.
    pub igmp_group: U32,
    /// ARP sender hardware address, or neighbour discovery's source link-layer option.
    pub arp_sha: Mac,
    /// ARP target hardware address, or neighbour discovery's target link-layer option.
    pub arp_tha: Mac,
    /// The first MPLS label stack entries, outermost first; the last one read may not be the last
    /// there is.
    pub mpls_lse: [U32; MPLS_LABELS],
    /// Neighbour discovery target.
    pub nd_target: [u8; 16],
}

const _: () = assert!(size_of::<FlowKey>() == WORDS * 8);
const _: () = assert!(std::mem::offset_of!(FlowKey, ipv6_src) == HOT_WORDS * 8);

impl FlowKey {
    /// The key as words, in memory order.
    #[inline(always)]
    pub fn words(&self) -> &[u64; WORDS] {
        zerocopy::transmute_ref!(self)
    }

    /// The first [`HOT_WORDS`] words.
    #[inline(always)]
    pub fn hot(&self) -> &[u64; HOT_WORDS] {
        self.words().first_chunk().expect("16 words hold 6")
    }
}

/// A set of bits of a [`FlowKey`]: those which a decision depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowMask(FlowKey);

impl Default for FlowMask {
    /// What every megaflow matches: input port, recirculation, EtherType.
    fn default() -> Self {
        FlowMask(FlowKey {
            in_port: u32::MAX,
            recirc_id: u32::MAX,
            dl_type: U16::new(u16::MAX),
            ..FlowKey::default()
        })
    }
}

impl FlowMask {
    /// No bit at all. Real megaflows start from [`FlowMask::default`].
    pub fn empty() -> Self {
        FlowMask(FlowKey::default())
    }

    /// Every bit.
    pub fn exact() -> Self {
        let ones = [u64::MAX; WORDS];
        FlowMask(zerocopy::transmute!(ones))
    }

    /// The bits as if they were a key.
    pub fn bits(&self) -> &FlowKey {
        &self.0
    }

    /// The bits, to be added to.
    pub fn bits_mut(&mut self) -> &mut FlowKey {
        &mut self.0
    }

    /// Adds all bits of `other`.
    pub fn add(&mut self, other: &FlowMask) {
        let mut words = *self.0.words();
        for (w, o) in words.iter_mut().zip(other.0.words()) {
            *w |= o;
        }
        self.0 = zerocopy::transmute!(words);
    }

    /// `key` with all bits outside the mask cleared.
    pub fn apply(&self, key: &FlowKey) -> FlowKey {
        let mut words = *key.words();
        for (w, m) in words.iter_mut().zip(self.0.words()) {
            *w &= m;
        }
        zerocopy::transmute!(words)
    }

    /// True if no bit beyond the first [`HOT_WORDS`] words is set.
    pub fn is_hot_only(&self) -> bool {
        self.0.words()[HOT_WORDS..].iter().all(|&w| w == 0)
    }

    /// True if `a` and `b` agree in all bits of the mask.
    pub fn agrees(&self, a: &FlowKey, b: &FlowKey) -> bool {
        let (a, b) = (a.words(), b.words());
        self.0.words().iter().enumerate().all(|(i, m)| (a[i] ^ b[i]) & m == 0)
    }
}
