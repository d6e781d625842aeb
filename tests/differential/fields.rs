//! The fields that generated flows match, read and write, and random values and masks for them.

use crate::rng::Rng;
use crate::vocabulary::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What must be matched before a field may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Vlan,
    Mpls,
    Arp,
    Ipv4,
    Ipv6,
    Ip,
    Tcp,
    Udp,
    Sctp,
    Icmp4,
    Icmp6,
    /// Neighbour solicitation or advertisement.
    Nd,
    Solicit,
    Advert,
}

/// How values look and where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Mac,
    Ip4,
    Ip6,
    Tp,
    Vid,
    /// With the presence bit 0x1000 or without.
    Tci,
    /// A VLAN ID that is written with the presence bit.
    Vlan13,
    Tos,
    Dscp,
    Ttl,
    Proto,
    Label,
    FlowLabel,
    TcpFlags,
    Small,
    Number,
    ArpOp,
    IcmpType,
    Icmp6Type,
}

/// How it may be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// Not at all by generated flows.
    Never,
    /// Whole.
    Whole,
    /// Any bits.
    Bits,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Name in matches and in `set_field`.
    pub name: &'static str,
    /// Name in `load` and `move`.
    pub nxm: &'static str,
    /// Width.
    pub bits: u8,
    /// Prerequisites.
    pub needs: Needs,
    /// Values.
    pub kind: Kind,
    /// How it may be matched.
    pub matching: Matching,
    /// Whether actions may write it.
    pub writable: bool,
}

const fn f(
    name: &'static str,
    nxm: &'static str,
    bits: u8,
    needs: Needs,
    kind: Kind,
    matching: Matching,
    writable: bool,
) -> Field {
    Field { name, nxm, bits, needs, kind, matching, writable }
}

use Kind as K;
use Matching as M;
use Needs as N;

/// All fields but the ports, which generated flows treat apart.
pub const FIELDS: &[Field] = &[
    f("dl_src", "NXM_OF_ETH_SRC", 48, N::Nothing, K::Mac, M::Bits, true),
    f("dl_dst", "NXM_OF_ETH_DST", 48, N::Nothing, K::Mac, M::Bits, true),
    f("vlan_tci", "NXM_OF_VLAN_TCI", 16, N::Nothing, K::Tci, M::Bits, true),
    f("dl_vlan", "", 12, N::Nothing, K::Vid, M::Whole, false),
    f("dl_vlan_pcp", "", 3, N::Nothing, K::Small, M::Whole, false),
    f("vlan_vid", "OXM_OF_VLAN_VID", 12, N::Vlan, K::Vlan13, M::Bits, true),
    f("vlan_pcp", "OXM_OF_VLAN_PCP", 3, N::Vlan, K::Small, M::Whole, true),
    f("mpls_label", "OXM_OF_MPLS_LABEL", 20, N::Mpls, K::Label, M::Whole, true),
    f("mpls_tc", "OXM_OF_MPLS_TC", 3, N::Mpls, K::Small, M::Whole, true),
    f("mpls_bos", "OXM_OF_MPLS_BOS", 1, N::Mpls, K::Small, M::Whole, false),
    f("mpls_ttl", "NXM_NX_MPLS_TTL", 8, N::Mpls, K::Ttl, M::Whole, true),
    f("nw_src", "NXM_OF_IP_SRC", 32, N::Ipv4, K::Ip4, M::Bits, true),
    f("nw_dst", "NXM_OF_IP_DST", 32, N::Ipv4, K::Ip4, M::Bits, true),
    f("ipv6_src", "NXM_NX_IPV6_SRC", 128, N::Ipv6, K::Ip6, M::Bits, true),
    f("ipv6_dst", "NXM_NX_IPV6_DST", 128, N::Ipv6, K::Ip6, M::Bits, true),
    f("ipv6_label", "NXM_NX_IPV6_LABEL", 20, N::Ipv6, K::FlowLabel, M::Bits, true),
    f("nw_proto", "", 8, N::Ip, K::Proto, M::Whole, false),
    f("nw_tos", "NXM_OF_IP_TOS", 8, N::Ip, K::Tos, M::Whole, false),
    f("ip_dscp", "OXM_OF_IP_DSCP", 6, N::Ip, K::Dscp, M::Whole, true),
    f("nw_ecn", "NXM_NX_IP_ECN", 2, N::Ip, K::Small, M::Whole, true),
    f("nw_ttl", "NXM_NX_IP_TTL", 8, N::Ip, K::Ttl, M::Whole, true),
    f("arp_op", "NXM_OF_ARP_OP", 16, N::Arp, K::ArpOp, M::Whole, true),
    f("arp_spa", "NXM_OF_ARP_SPA", 32, N::Arp, K::Ip4, M::Bits, true),
    f("arp_tpa", "NXM_OF_ARP_TPA", 32, N::Arp, K::Ip4, M::Bits, true),
    f("arp_sha", "NXM_NX_ARP_SHA", 48, N::Arp, K::Mac, M::Bits, true),
    f("arp_tha", "NXM_NX_ARP_THA", 48, N::Arp, K::Mac, M::Bits, true),
    f("tcp_src", "NXM_OF_TCP_SRC", 16, N::Tcp, K::Tp, M::Bits, true),
    f("tcp_dst", "NXM_OF_TCP_DST", 16, N::Tcp, K::Tp, M::Bits, true),
    f("tcp_flags", "NXM_NX_TCP_FLAGS", 12, N::Tcp, K::TcpFlags, M::Bits, false),
    f("udp_src", "NXM_OF_UDP_SRC", 16, N::Udp, K::Tp, M::Bits, true),
    f("udp_dst", "NXM_OF_UDP_DST", 16, N::Udp, K::Tp, M::Bits, true),
    f("sctp_src", "OXM_OF_SCTP_SRC", 16, N::Sctp, K::Tp, M::Bits, true),
    f("sctp_dst", "OXM_OF_SCTP_DST", 16, N::Sctp, K::Tp, M::Bits, true),
    f("icmp_type", "NXM_OF_ICMP_TYPE", 8, N::Icmp4, K::IcmpType, M::Whole, true),
    f("icmp_code", "NXM_OF_ICMP_CODE", 8, N::Icmp4, K::Small, M::Whole, true),
    f("icmpv6_type", "NXM_NX_ICMPV6_TYPE", 8, N::Icmp6, K::Icmp6Type, M::Whole, true),
    f("icmpv6_code", "NXM_NX_ICMPV6_CODE", 8, N::Icmp6, K::Small, M::Whole, true),
    f("nd_target", "NXM_NX_ND_TARGET", 128, N::Nd, K::Ip6, M::Bits, true),
    f("nd_sll", "NXM_NX_ND_SLL", 48, N::Solicit, K::Mac, M::Bits, true),
    f("nd_tll", "NXM_NX_ND_TLL", 48, N::Advert, K::Mac, M::Bits, true),
    f("nd_reserved", "ERICOXM_OF_ICMPV6_ND_RESERVED", 32, N::Nd, K::Number, M::Whole, true),
    f("nd_options_type", "ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE", 8, N::Nd, K::Small, M::Whole, true),
    f("reg0", "NXM_NX_REG0", 32, N::Nothing, K::Number, M::Bits, true),
    f("reg1", "NXM_NX_REG1", 32, N::Nothing, K::Number, M::Bits, true),
    f("reg2", "NXM_NX_REG2", 32, N::Nothing, K::Number, M::Bits, true),
    f("reg15", "NXM_NX_REG15", 32, N::Nothing, K::Number, M::Bits, true),
    f("xreg0", "OXM_OF_PKT_REG0", 64, N::Nothing, K::Number, M::Bits, true),
    f("xreg1", "OXM_OF_PKT_REG1", 64, N::Nothing, K::Number, M::Bits, true),
    f("xxreg0", "NXM_NX_XXREG0", 128, N::Nothing, K::Number, M::Bits, true),
    f("metadata", "OXM_OF_METADATA", 64, N::Nothing, K::Number, M::Bits, true),
    f("pkt_mark", "NXM_NX_PKT_MARK", 32, N::Nothing, K::Number, M::Bits, true),
    f("tun_id", "NXM_NX_TUN_ID", 64, N::Nothing, K::Number, M::Bits, true),
    f("tun_src", "NXM_NX_TUN_IPV4_SRC", 32, N::Nothing, K::Ip4, M::Bits, true),
    f("ct_mark", "NXM_NX_CT_MARK", 32, N::Nothing, K::Small, M::Whole, false),
    f("ct_zone", "NXM_NX_CT_ZONE", 16, N::Nothing, K::Small, M::Whole, false),
];

/// Finds a field.
pub fn field(name: &str) -> &'static Field {
    FIELDS.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no field {name}"))
}

impl Field {
    /// All bits.
    pub fn ones(&self) -> u128 {
        u128::MAX >> (128 - u32::from(self.bits))
    }

    /// A value that packets have, or a register might.
    pub fn value(&self, rng: &mut Rng) -> u128 {
        let value = match self.kind {
            Kind::Mac => mac_number(rng.familiar(&MACS)),
            Kind::Ip4 => rng.familiar(&IPV4).into(),
            Kind::Ip6 => rng.familiar(&IPV6),
            Kind::Tp => rng.familiar(&TP_PORTS).into(),
            Kind::Vid => rng.familiar(&VIDS).into(),
            Kind::Tci => match rng.chance(80) {
                true => u128::from(0x1000 | rng.familiar(&VIDS) | rng.pick(&[0u16, 3, 7]) << 13),
                false => 0,
            },
            Kind::Vlan13 => rng.familiar(&VIDS).into(),
            Kind::Tos => u128::from(rng.familiar(&TOS) & 0xfc),
            Kind::Dscp => u128::from(rng.familiar(&TOS) >> 2),
            Kind::Ttl => rng.familiar(&TTLS).into(),
            Kind::Proto => rng.pick(&[1u8, 2, 6, 17, 47, 58, 132]).into(),
            Kind::Label => rng.familiar(&LABELS).into(),
            Kind::FlowLabel => rng.familiar(&FLOW_LABELS).into(),
            Kind::TcpFlags => rng.familiar(&TCP_FLAGS).into(),
            Kind::Small => rng.familiar(&[0u128, 0, 1, 2, 3]),
            Kind::Number if rng.chance(5) => u128::from(rng.bits()) << 64 | u128::from(rng.bits()),
            Kind::Number if rng.chance(50) => 0,
            Kind::Number => rng.familiar(&NUMBERS).into(),
            Kind::ArpOp => rng.pick(&[1u8, 2, 3, 254]).into(),
            Kind::IcmpType => rng.pick(&[8u8, 0, 3]).into(),
            Kind::Icmp6Type => rng.pick(&[128u8, 129, 135, 136]).into(),
        };
        value & self.ones()
    }

    /// A mask: mostly of a kind that people use.
    pub fn mask(&self, rng: &mut Rng) -> u128 {
        let ones = self.ones();
        let mask = match rng.below(10) {
            // A prefix.
            0..4 => ones << rng.below(usize::from(self.bits)),
            4 | 5 => 1 << rng.below(usize::from(self.bits)),
            6 => ones >> rng.below(usize::from(self.bits)),
            7 if self.kind == Kind::Tci => 0x1fff,
            7 if self.kind == Kind::Mac => 1 << 40,
            _ => u128::from(rng.bits()) << 64 | u128::from(rng.bits()),
        };
        match (mask & ones, self.kind) {
            // OpenFlow 1.5 cannot say a part of a tag without saying that there is one, nor a part of its
            // priority.
            (mask, Kind::Tci) if mask & 0xe000 != 0 => mask | 0xf000,
            (mask, Kind::Tci) => mask | 0x1000,
            (0, _) => 1,
            (mask, _) => mask,
        }
    }

    /// A value as it is written for `name=` and `set_field`.
    pub fn text(&self, value: u128) -> String {
        match self.kind {
            Kind::Mac => mac_text(value),
            Kind::Ip4 => Ipv4Addr::from(value as u32).to_string(),
            Kind::Ip6 => Ipv6Addr::from(value).to_string(),
            Kind::Vlan13 => format!("{:#x}", value | 0x1000),
            Kind::Number | Kind::Tci | Kind::TcpFlags => format!("{value:#x}"),
            _ => value.to_string(),
        }
    }

    /// `value/mask` as it is written.
    pub fn masked_text(&self, value: u128, mask: u128) -> String {
        let prefix = mask.leading_ones() == mask.count_ones();
        match self.kind {
            Kind::Ip4 if (mask << 96).leading_ones() == mask.count_ones() => {
                format!("{}/{}", self.text(value), mask.count_ones())
            }
            Kind::Ip6 if prefix => format!("{}/{}", self.text(value), mask.count_ones()),
            // ovs-ofctl takes a mask that begins with a digit for a prefix length and what follows for
            // an error.
            Kind::Ip6 => {
                let (value, mask) = (value | 0xf << 124 & IPV6[0], mask | 0xf << 124);
                format!("{}/{}", self.text(value & mask), self.text(mask))
            }
            Kind::Mac | Kind::Ip4 => format!("{}/{}", self.text(value), self.text(mask)),
            Kind::Vlan13 => format!("{:#x}/{:#x}", value | 0x1000, mask | 0x1000),
            _ => format!("{}/{mask:#x}", self.text(value)),
        }
    }
}

/// An address as a number.
fn mac_number(mac: [u8; 6]) -> u128 {
    mac.iter().fold(0, |n, b| n << 8 | u128::from(*b))
}

fn mac_text(value: u128) -> String {
    let bytes: Vec<String> = value.to_be_bytes()[10..].iter().map(|b| format!("{b:02x}")).collect();
    bytes.join(":")
}
