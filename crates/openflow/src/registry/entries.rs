//! The entries of the field registry.

use super::{NICIRA, ONF, class};
use crate::field::{Field, Format, Oxm, Prereq, View};
use crate::key::{FullKey, TUN_METADATA, TUN_METADATA_BYTES, TunnelKey};
use flow::Vlan;
use std::mem::offset_of;

use Format::{CtState, Decimal, Ethernet, Frag, Hex, Ipv4, Ipv6};
use Format::{PacketType, Port16, Port32, TcpFlags, TunnelFlags};

/// Where a part of a [`FullKey`] is.
macro_rules! at {
    ($($part:tt).+) => { offset_of!(FullKey, $($part).+) };
}
const TCI: usize = at!(pkt.vlan) + offset_of!(Vlan, tci);
const LSE: usize = at!(pkt.mpls_lse);

/// Fields of where the packet came from, before tunnel options.
pub(super) const FIRST: [Field; 19] = [
    Field::new("dp_hash", at!(dp_hash), 32, Hex).masked().nxm("NXM_NX_DP_HASH", class::NXM_NX, 35),
    Field::new("packet_type", at!(packet_type), 32, PacketType).oxm("OXM_OF_PACKET_TYPE", 44),
    Field::new("conj_id", at!(conj_id), 32, Decimal).nxm("NXM_NX_CONJ_ID", class::NXM_NX, 37),
    Field::new("tun_id", at!(tunnel.id), 64, Hex)
        .alias("tunnel_id")
        .masked()
        .rw()
        .nxm("NXM_NX_TUN_ID", class::NXM_NX, 16)
        .oxm("OXM_OF_TUNNEL_ID", 38),
    tunnel("tun_src", at!(tunnel.src), 32, Ipv4).nxm("NXM_NX_TUN_IPV4_SRC", class::NXM_NX, 31),
    tunnel("tun_dst", at!(tunnel.dst), 32, Ipv4).nxm("NXM_NX_TUN_IPV4_DST", class::NXM_NX, 32),
    tunnel("tun_ipv6_src", at!(tunnel.ipv6_src), 128, Ipv6).nxm(
        "NXM_NX_TUN_IPV6_SRC",
        class::NXM_NX,
        109,
    ),
    tunnel("tun_ipv6_dst", at!(tunnel.ipv6_dst), 128, Ipv6).nxm(
        "NXM_NX_TUN_IPV6_DST",
        class::NXM_NX,
        110,
    ),
    tunnel("tun_flags", at!(tunnel.flags), 1, TunnelFlags).within(2, 0).values(1, 2).nxm(
        "NXM_NX_TUN_FLAGS",
        class::NXM_NX,
        104,
    ),
    Field::new("tun_ttl", at!(tunnel.ttl), 8, Decimal).rw(),
    Field::new("tun_tos", at!(tunnel.tos), 8, Decimal).rw(),
    tunnel("tun_gbp_id", at!(tunnel.gbp_id), 16, Decimal).nxm(
        "NXM_NX_TUN_GBP_ID",
        class::NXM_NX,
        38,
    ),
    tunnel("tun_gbp_flags", at!(tunnel.gbp_flags), 8, Hex).nxm(
        "NXM_NX_TUN_GBP_FLAGS",
        class::NXM_NX,
        39,
    ),
    tunnel("tun_erspan_idx", at!(tunnel.erspan_idx), 20, Hex)
        .within(4, 0)
        .values(0xf_ffff, 4)
        .nxm_exp("NXOXM_ET_ERSPAN_IDX", NICIRA, 11),
    tunnel("tun_erspan_ver", at!(tunnel.erspan_ver), 4, Decimal).nxm_exp(
        "NXOXM_ET_ERSPAN_VER",
        NICIRA,
        12,
    ),
    tunnel("tun_erspan_dir", at!(tunnel.erspan_dir), 1, Decimal).nxm_exp(
        "NXOXM_ET_ERSPAN_DIR",
        NICIRA,
        13,
    ),
    tunnel("tun_erspan_hwid", at!(tunnel.erspan_hwid), 6, Hex).nxm_exp(
        "NXOXM_ET_ERSPAN_HWID",
        NICIRA,
        14,
    ),
    // OVS prints the next two by names that it does not read.
    Field::new("tun_gtpu_flags", at!(tunnel.gtpu_flags), 8, Hex)
        .alias("gtpu_flags")
        .masked()
        .nxm_exp("NXOXM_ET_GTPU_FLAGS", NICIRA, 15),
    Field::new("tun_gtpu_msgtype", at!(tunnel.gtpu_msgtype), 8, Decimal)
        .alias("gtpu_msgtype")
        .masked()
        .nxm_exp("NXOXM_ET_GTPU_MSGTYPE", NICIRA, 16),
];

const fn tunnel(name: &'static str, at: usize, bits: u8, format: Format) -> Field {
    Field::new(name, at, bits, format).masked().rw()
}

/// Metadata, ports and connection tracking.
pub(super) const SECOND: [Field; 17] = [
    Field::new("metadata", at!(metadata), 64, Hex).masked().rw().oxm("OXM_OF_METADATA", 2),
    Field::new("in_port", at!(in_port) + 2, 16, Port16).rw().nxm(
        "NXM_OF_IN_PORT",
        class::NXM_OF,
        0,
    ),
    Field::new("in_port_oxm", at!(in_port) + 2, 32, Port32)
        .within(2, 0)
        .view(View::Port32)
        .rw()
        .oxm("OXM_OF_IN_PORT", 0),
    Field::new("actset_output", at!(actset_output) + 2, 32, Port32)
        .within(2, 0)
        .view(View::Port32)
        .oxm_exp("ONFOXM_ET_ACTSET_OUTPUT", ONF, 43),
    Field::new("skb_priority", at!(skb_priority), 32, Hex),
    Field::new("pkt_mark", at!(pkt_mark), 32, Hex).masked().rw().nxm(
        "NXM_NX_PKT_MARK",
        class::NXM_NX,
        33,
    ),
    ct("ct_state", at!(ct_state), 32, CtState).nxm("NXM_NX_CT_STATE", class::NXM_NX, 105),
    Field::new("ct_zone", at!(ct_zone), 16, Hex).nxm("NXM_NX_CT_ZONE", class::NXM_NX, 106),
    ct("ct_mark", at!(ct_mark), 32, Hex).rw().nxm("NXM_NX_CT_MARK", class::NXM_NX, 107),
    ct("ct_label", at!(ct_label), 128, Hex).rw().nxm("NXM_NX_CT_LABEL", class::NXM_NX, 108),
    Field::new("ct_nw_proto", at!(ct_nw_proto), 8, Decimal).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_NW_PROTO",
        class::NXM_NX,
        119,
    ),
    ct("ct_nw_src", at!(ct_nw_src), 32, Ipv4).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_NW_SRC",
        class::NXM_NX,
        120,
    ),
    ct("ct_nw_dst", at!(ct_nw_dst), 32, Ipv4).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_NW_DST",
        class::NXM_NX,
        121,
    ),
    ct("ct_ipv6_src", at!(ct_ipv6_src), 128, Ipv6).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_IPV6_SRC",
        class::NXM_NX,
        122,
    ),
    ct("ct_ipv6_dst", at!(ct_ipv6_dst), 128, Ipv6).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_IPV6_DST",
        class::NXM_NX,
        123,
    ),
    ct("ct_tp_src", at!(ct_tp_src), 16, Decimal).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_TP_SRC",
        class::NXM_NX,
        124,
    ),
    ct("ct_tp_dst", at!(ct_tp_dst), 16, Decimal).needs(Prereq::Ct).nxm(
        "NXM_NX_CT_TP_DST",
        class::NXM_NX,
        125,
    ),
];

const fn ct(name: &'static str, at: usize, bits: u8, format: Format) -> Field {
    Field::new(name, at, bits, format).masked()
}

/// Fields of the packet itself, layer by layer.
pub(super) const PACKET: [Field; 44] = [
    Field::new("eth_src", at!(pkt.dl_src), 48, Ethernet)
        .alias("dl_src")
        .masked()
        .rw()
        .needs(Prereq::Ethernet)
        .nxm("NXM_OF_ETH_SRC", class::NXM_OF, 2)
        .oxm("OXM_OF_ETH_SRC", 4),
    Field::new("eth_dst", at!(pkt.dl_dst), 48, Ethernet)
        .alias("dl_dst")
        .masked()
        .rw()
        .needs(Prereq::Ethernet)
        .nxm("NXM_OF_ETH_DST", class::NXM_OF, 1)
        .oxm("OXM_OF_ETH_DST", 3),
    Field::new("eth_type", at!(pkt.dl_type), 16, Hex)
        .alias("dl_type")
        .needs(Prereq::Ethernet)
        .nxm("NXM_OF_ETH_TYPE", class::NXM_OF, 3)
        .oxm("OXM_OF_ETH_TYPE", 5),
    Field::new("vlan_tci", TCI, 16, Hex).masked().rw().needs(Prereq::Ethernet).nxm(
        "NXM_OF_VLAN_TCI",
        class::NXM_OF,
        4,
    ),
    Field::new("dl_vlan", TCI, 12, Decimal)
        .values(0xffff, 2)
        .view(View::DlVlan)
        .rw()
        .needs(Prereq::Ethernet),
    Field::new("vlan_vid", TCI, 12, Decimal)
        .values(0x1fff, 2)
        .masked()
        .rw()
        .needs(Prereq::Ethernet)
        .oxm("OXM_OF_VLAN_VID", 6),
    Field::new("dl_vlan_pcp", TCI, 3, Decimal)
        .within(2, 13)
        .view(View::Tag)
        .rw()
        .needs(Prereq::Ethernet),
    Field::new("vlan_pcp", TCI, 3, Decimal)
        .within(2, 13)
        .view(View::Tag)
        .rw()
        .needs(Prereq::Vlan)
        .oxm("OXM_OF_VLAN_PCP", 7),
    Field::new("mpls_label", LSE, 20, Decimal)
        .within(4, 12)
        .values(0xf_ffff, 4)
        .rw()
        .needs(Prereq::Mpls)
        .oxm("OXM_OF_MPLS_LABEL", 34),
    Field::new("mpls_tc", LSE, 3, Decimal)
        .within(4, 9)
        .rw()
        .needs(Prereq::Mpls)
        .oxm("OXM_OF_MPLS_TC", 35),
    Field::new("mpls_bos", LSE, 1, Decimal)
        .within(4, 8)
        .needs(Prereq::Mpls)
        .oxm("OXM_OF_MPLS_BOS", 36),
    Field::new("mpls_ttl", LSE + 3, 8, Decimal).rw().needs(Prereq::Mpls).nxm(
        "NXM_NX_MPLS_TTL",
        class::NXM_NX,
        30,
    ),
    Field::new("ip_src", at!(pkt.nw_src), 32, Ipv4)
        .alias("nw_src")
        .masked()
        .rw()
        .needs(Prereq::Ipv4)
        .nxm("NXM_OF_IP_SRC", class::NXM_OF, 7)
        .oxm("OXM_OF_IPV4_SRC", 11),
    Field::new("ip_dst", at!(pkt.nw_dst), 32, Ipv4)
        .alias("nw_dst")
        .masked()
        .rw()
        .needs(Prereq::Ipv4)
        .nxm("NXM_OF_IP_DST", class::NXM_OF, 8)
        .oxm("OXM_OF_IPV4_DST", 12),
    Field::new("ipv6_src", at!(pkt.ipv6_src), 128, Ipv6)
        .masked()
        .rw()
        .needs(Prereq::Ipv6)
        .nxm("NXM_NX_IPV6_SRC", class::NXM_NX, 19)
        .oxm("OXM_OF_IPV6_SRC", 26),
    Field::new("ipv6_dst", at!(pkt.ipv6_dst), 128, Ipv6)
        .masked()
        .rw()
        .needs(Prereq::Ipv6)
        .nxm("NXM_NX_IPV6_DST", class::NXM_NX, 20)
        .oxm("OXM_OF_IPV6_DST", 27),
    Field::new("ipv6_label", at!(pkt.ipv6_label), 20, Hex)
        .within(4, 0)
        .values(0xf_ffff, 4)
        .masked()
        .rw()
        .needs(Prereq::Ipv6)
        .nxm("NXM_NX_IPV6_LABEL", class::NXM_NX, 27)
        .oxm("OXM_OF_IPV6_FLABEL", 28),
    Field::new("nw_proto", at!(pkt.nw_proto), 8, Decimal)
        .alias("ip_proto")
        .needs(Prereq::Ip)
        .nxm("NXM_OF_IP_PROTO", class::NXM_OF, 6)
        .oxm("OXM_OF_IP_PROTO", 10),
    Field::new("nw_tos", at!(pkt.nw_tos), 8, Decimal).values(0xfc, 1).rw().needs(Prereq::Ip).nxm(
        "NXM_OF_IP_TOS",
        class::NXM_OF,
        5,
    ),
    Field::new("ip_dscp", at!(pkt.nw_tos), 6, Decimal)
        .within(1, 2)
        .rw()
        .needs(Prereq::Ip)
        .oxm("OXM_OF_IP_DSCP", 8),
    Field::new("nw_ecn", at!(pkt.nw_tos), 2, Decimal)
        .alias("ip_ecn")
        .rw()
        .needs(Prereq::Ip)
        .nxm("NXM_NX_IP_ECN", class::NXM_NX, 28)
        .oxm("OXM_OF_IP_ECN", 9),
    Field::new("nw_ttl", at!(pkt.nw_ttl), 8, Decimal).rw().needs(Prereq::Ip).nxm(
        "NXM_NX_IP_TTL",
        class::NXM_NX,
        29,
    ),
    Field::new("ip_frag", at!(pkt.nw_frag), 2, Frag)
        .alias("nw_frag")
        .masked()
        .needs(Prereq::Ip)
        .nxm("NXM_NX_IP_FRAG", class::NXM_NX, 26),
    // The upper byte of ARP's operation is not kept; it is 0 in all that are in use (RFC 826).
    Field::new("arp_op", at!(pkt.nw_proto), 16, Decimal)
        .within(1, 0)
        .values(0xff, 2)
        .rw()
        .needs(Prereq::Arp)
        .nxm("NXM_OF_ARP_OP", class::NXM_OF, 15)
        .oxm("OXM_OF_ARP_OP", 21),
    arp("arp_spa", at!(pkt.nw_src), 32, Ipv4)
        .nxm("NXM_OF_ARP_SPA", class::NXM_OF, 16)
        .oxm("OXM_OF_ARP_SPA", 22),
    arp("arp_tpa", at!(pkt.nw_dst), 32, Ipv4)
        .nxm("NXM_OF_ARP_TPA", class::NXM_OF, 17)
        .oxm("OXM_OF_ARP_TPA", 23),
    arp("arp_sha", at!(pkt.arp_sha), 48, Ethernet)
        .nxm("NXM_NX_ARP_SHA", class::NXM_NX, 17)
        .oxm("OXM_OF_ARP_SHA", 24),
    arp("arp_tha", at!(pkt.arp_tha), 48, Ethernet)
        .nxm("NXM_NX_ARP_THA", class::NXM_NX, 18)
        .oxm("OXM_OF_ARP_THA", 25),
    ports("tcp_src", at!(pkt.tp_src), Prereq::Tcp)
        .alias("tp_src")
        .nxm("NXM_OF_TCP_SRC", class::NXM_OF, 9)
        .oxm("OXM_OF_TCP_SRC", 13),
    ports("tcp_dst", at!(pkt.tp_dst), Prereq::Tcp)
        .alias("tp_dst")
        .nxm("NXM_OF_TCP_DST", class::NXM_OF, 10)
        .oxm("OXM_OF_TCP_DST", 14),
    Field::new("tcp_flags", at!(pkt.tcp_flags), 12, TcpFlags)
        .masked()
        .needs(Prereq::Tcp)
        .nxm("NXM_NX_TCP_FLAGS", class::NXM_NX, 34)
        .oxm_exp("ONFOXM_ET_TCP_FLAGS", ONF, 42),
    ports("udp_src", at!(pkt.tp_src), Prereq::Udp)
        .nxm("NXM_OF_UDP_SRC", class::NXM_OF, 11)
        .oxm("OXM_OF_UDP_SRC", 15),
    ports("udp_dst", at!(pkt.tp_dst), Prereq::Udp)
        .nxm("NXM_OF_UDP_DST", class::NXM_OF, 12)
        .oxm("OXM_OF_UDP_DST", 16),
    ports("sctp_src", at!(pkt.tp_src), Prereq::Sctp).oxm("OXM_OF_SCTP_SRC", 17),
    ports("sctp_dst", at!(pkt.tp_dst), Prereq::Sctp).oxm("OXM_OF_SCTP_DST", 18),
    // ICMP's types and codes are in the lower bytes of the ports' words.
    Field::new("icmp_type", at!(pkt.tp_src) + 1, 8, Decimal)
        .rw()
        .needs(Prereq::Icmpv4)
        .nxm("NXM_OF_ICMP_TYPE", class::NXM_OF, 13)
        .oxm("OXM_OF_ICMPV4_TYPE", 19),
    Field::new("icmp_code", at!(pkt.tp_dst) + 1, 8, Decimal)
        .rw()
        .needs(Prereq::Icmpv4)
        .nxm("NXM_OF_ICMP_CODE", class::NXM_OF, 14)
        .oxm("OXM_OF_ICMPV4_CODE", 20),
    Field::new("icmpv6_type", at!(pkt.tp_src) + 1, 8, Decimal)
        .rw()
        .needs(Prereq::Icmpv6)
        .nxm("NXM_NX_ICMPV6_TYPE", class::NXM_NX, 21)
        .oxm("OXM_OF_ICMPV6_TYPE", 29),
    Field::new("icmpv6_code", at!(pkt.tp_dst) + 1, 8, Decimal)
        .rw()
        .needs(Prereq::Icmpv6)
        .nxm("NXM_NX_ICMPV6_CODE", class::NXM_NX, 22)
        .oxm("OXM_OF_ICMPV6_CODE", 30),
    Field::new("nd_target", at!(pkt.nd_target), 128, Ipv6)
        .masked()
        .rw()
        .needs(Prereq::Nd)
        .nxm("NXM_NX_ND_TARGET", class::NXM_NX, 23)
        .oxm("OXM_OF_IPV6_ND_TARGET", 31),
    Field::new("nd_sll", at!(pkt.arp_sha), 48, Ethernet)
        .masked()
        .rw()
        .needs(Prereq::NdSolicit)
        .nxm("NXM_NX_ND_SLL", class::NXM_NX, 24)
        .oxm("OXM_OF_IPV6_ND_SLL", 32),
    Field::new("nd_tll", at!(pkt.arp_tha), 48, Ethernet)
        .masked()
        .rw()
        .needs(Prereq::NdAdvert)
        .nxm("NXM_NX_ND_TLL", class::NXM_NX, 25)
        .oxm("OXM_OF_IPV6_ND_TLL", 33),
    // What neighbour discovery has besides lies where other protocols have other things.
    Field::new("nd_reserved", at!(pkt.igmp_group), 32, Decimal).rw().needs(Prereq::Nd).nxm(
        "ERICOXM_OF_ICMPV6_ND_RESERVED",
        class::ERICSSON,
        1,
    ),
    Field::new("nd_options_type", at!(pkt.tcp_flags) + 1, 8, Decimal).rw().needs(Prereq::Nd).nxm(
        "ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE",
        class::ERICSSON,
        2,
    ),
];

const fn arp(name: &'static str, at: usize, bits: u8, format: Format) -> Field {
    Field::new(name, at, bits, format).masked().rw().needs(Prereq::Arp)
}

const fn ports(name: &'static str, at: usize, prereq: Prereq) -> Field {
    Field::new(name, at, 16, Decimal).masked().rw().needs(prereq)
}

/// A family of numbered fields, made of their numbers and names.
macro_rules! family {
    ($make:ident, $name:literal, $wire:literal: $($n:literal)+) => {
        [$($make($n, concat!($name, $n), concat!($wire, $n)),)+]
    };
}

const fn reg_entry(n: usize, name: &'static str, nxm: &'static str) -> Field {
    let f = Field::new(name, at!(regs) + 4 * n, 32, Hex).masked().rw();
    f.nxm(nxm, class::NXM_NX, n as u8)
}

/// Two registers; the even one is the upper half.
const fn xreg_entry(n: usize, name: &'static str, oxm: &'static str) -> Field {
    let f = Field::new(name, at!(regs) + 8 * n, 64, Hex).masked().rw();
    let oxm = Oxm { name: oxm, class: class::PACKET_REGS, number: n as u8, experimenter: 0 };
    Field { oxm: Some(oxm), ..f }
}

/// Four registers; the first is the uppermost.
const fn xxreg_entry(n: usize, name: &'static str, nxm: &'static str) -> Field {
    let f = Field::new(name, at!(regs) + 16 * n, 128, Hex).masked().rw();
    f.nxm(nxm, class::NXM_NX, 111 + n as u8)
}

const fn option_entry(n: usize, name: &'static str, nxm: &'static str) -> Field {
    let at = at!(tunnel) + offset_of!(TunnelKey, metadata) + TUN_METADATA_BYTES * n;
    let bits = 8 * TUN_METADATA_BYTES as u8;
    let f = Field::new(name, at, bits, Hex).masked().rw();
    f.nxm(nxm, class::NXM_NX, 40 + n as u8)
}

pub(super) const REGS: [Field; 16] =
    family!(reg_entry, "reg", "NXM_NX_REG": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
pub(super) const XREGS: [Field; 8] = family!(xreg_entry, "xreg", "OXM_OF_PKT_REG": 0 1 2 3 4 5 6 7);
pub(super) const XXREGS: [Field; 4] = family!(xxreg_entry, "xxreg", "NXM_NX_XXREG": 0 1 2 3);
pub(super) const OPTIONS: [Field; TUN_METADATA] = family!(option_entry, "tun_metadata", "NXM_NX_TUN_METADATA":
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
