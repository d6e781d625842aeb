//! What a packet must be for a field to exist (ovs-fields(7), "Prerequisites").

use crate::field::{Field, Prereq};
use crate::key::{FullKey, FullMask};
use crate::matching::Match;
use flow::{DL_TYPE_NONE, FRAG_LATER, ether_type, ip_proto};

/// Neighbour solicitation and advertisement (RFC 4861, 4.3 and 4.4).
pub(crate) const ND_SOLICIT: u16 = 135;
pub(crate) const ND_ADVERT: u16 = 136;
/// Bit of a VLAN tag's control information that says that there is a tag.
const TAG_PRESENT: u16 = 0x1000;
/// `packet_type` of a packet without an Ethernet header whose type is an EtherType.
const NS_ETHERTYPE: u32 = 1;

/// Bits of `ct_state`.
pub(crate) mod ct {
    /// The connection is known: new, established, related, reply, or translated.
    pub(crate) const KNOWN: u32 = 0x01 | 0x02 | 0x04 | 0x08 | 0x40 | 0x80;
    pub(crate) const INVALID: u32 = 0x10;
    pub(crate) const TRACKED: u32 = 0x20;
}

/// The EtherType of a key, also where the packet type alone says it.
pub(crate) fn ether_type_of(key: &FullKey) -> u16 {
    let packet_type = key.packet_type.get();
    match packet_type >> 16 {
        NS_ETHERTYPE => packet_type as u16,
        _ => key.pkt.dl_type.get(),
    }
}

pub(crate) fn is_ip(key: &FullKey) -> bool {
    matches!(ether_type_of(key), ether_type::IPV4 | ether_type::IPV6)
}

fn is_arp(key: &FullKey) -> bool {
    matches!(ether_type_of(key), ether_type::ARP | ether_type::RARP)
}

fn is_mpls(key: &FullKey) -> bool {
    matches!(ether_type_of(key), ether_type::MPLS | ether_type::MPLS_MCAST)
}

/// True for a packet of an IP protocol that has its transport header.
fn has_transport(key: &FullKey, proto: u8) -> bool {
    is_ip(key) && key.pkt.nw_proto == proto && key.pkt.nw_frag & FRAG_LATER == 0
}

fn is_icmp(key: &FullKey, dl_type: u16, proto: u8) -> bool {
    // Unlike with ports, it does not matter that later fragments have no such header (OVS).
    ether_type_of(key) == dl_type && key.pkt.nw_proto == proto
}

/// True for ICMPv6 of one of two types with code 0.
fn is_nd(key: &FullKey, types: [u16; 2]) -> bool {
    is_icmp(key, ether_type::IPV6, ip_proto::ICMPV6)
        && types.contains(&key.pkt.tp_src.get())
        && key.pkt.tp_dst.get() == 0
}

/// All prerequisites that can be told from a packet's headers.
fn holds(prereq: Prereq, key: &FullKey) -> bool {
    match prereq {
        Prereq::None | Prereq::Ct => true,
        Prereq::Ethernet => key.packet_type.get() == 0,
        Prereq::Vlan => key.pkt.vlan[0].tci.get() & TAG_PRESENT != 0,
        Prereq::Arp => is_arp(key),
        Prereq::Ipv4 => ether_type_of(key) == ether_type::IPV4,
        Prereq::Ipv6 => ether_type_of(key) == ether_type::IPV6,
        Prereq::Ip => is_ip(key),
        Prereq::Mpls => is_mpls(key),
        Prereq::Tcp => has_transport(key, ip_proto::TCP),
        Prereq::Udp => has_transport(key, ip_proto::UDP),
        Prereq::Sctp => has_transport(key, ip_proto::SCTP),
        Prereq::Icmpv4 => is_icmp(key, ether_type::IPV4, ip_proto::ICMP),
        Prereq::Icmpv6 => is_icmp(key, ether_type::IPV6, ip_proto::ICMPV6),
        Prereq::Nd => is_nd(key, [ND_SOLICIT, ND_ADVERT]),
        Prereq::NdSolicit => is_nd(key, [ND_SOLICIT; 2]),
        Prereq::NdAdvert => is_nd(key, [ND_ADVERT; 2]),
    }
}

/// True if a match is only for connections that connection tracking knows.
pub(crate) fn matches_known_connection(m: &Match) -> bool {
    let (state, mask) = (m.value.ct_state.get(), m.mask.0.ct_state.get());
    state & ct::KNOWN != 0 || state & ct::TRACKED != 0 && mask & !state & ct::INVALID != 0
}

impl Field {
    /// True if all packets of a match have the field, as far as the match says: what a flow's match
    /// must say for its actions to use the field.
    pub fn prereqs_met(&self, m: &Match) -> bool {
        match self.prereq {
            Prereq::Ct => matches_known_connection(m),
            // A code that is not matched is 0 in the match's value.
            prereq => holds(prereq, &m.value),
        }
    }

    /// True if a packet has the field.
    pub fn is_present(&self, key: &FullKey) -> bool {
        match self.prereq {
            Prereq::Ct => key.ct_nw_proto != 0,
            prereq => holds(prereq, key),
        }
    }

    /// Adds to a mask the bits that [`Field::is_present`] looks at for this packet.
    pub fn add_prereqs(&self, mask: &mut FullMask) {
        let m = &mut mask.0;
        match self.prereq {
            Prereq::None => return,
            Prereq::Ethernet => return m.packet_type = u32::MAX.into(),
            Prereq::Vlan => {
                return m.pkt.vlan[0].tci |= zerocopy::big_endian::U16::new(TAG_PRESENT);
            }
            Prereq::Ct => return m.ct_nw_proto = u8::MAX,
            _ => m.pkt.dl_type = u16::MAX.into(),
        }
        if matches!(
            self.prereq,
            Prereq::Arp | Prereq::Ipv4 | Prereq::Ipv6 | Prereq::Ip | Prereq::Mpls
        ) {
            return;
        }
        m.pkt.nw_proto = u8::MAX;
        if matches!(self.prereq, Prereq::Tcp | Prereq::Udp | Prereq::Sctp) {
            m.pkt.nw_frag |= FRAG_LATER;
        }
        if matches!(self.prereq, Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert) {
            (m.pkt.tp_src, m.pkt.tp_dst) = (u16::MAX.into(), u16::MAX.into());
        }
    }
}

/// The bits of the packet's own fields that a match with this value can look at, for the headers that
/// the value names; the others mean nothing.
pub(crate) fn possible(m: &Match) -> FullMask {
    let mut out = m.mask;
    let (value, p) = (&m.value, &mut out.0.pkt);
    let exact = |mask: u8| mask == u8::MAX;
    let typed = m.mask.0.pkt.dl_type.get() == u16::MAX || m.mask.0.packet_type.get() != 0;
    let dl_type = if typed { ether_type_of(value) } else { DL_TYPE_NONE };
    let proto = if exact(m.mask.0.pkt.nw_proto) { value.pkt.nw_proto } else { 0 };
    let (ipv4, ipv6) = (dl_type == ether_type::IPV4, dl_type == ether_type::IPV6);
    let arp = matches!(dl_type, ether_type::ARP | ether_type::RARP);
    if !ipv4 && !arp {
        (p.nw_src, p.nw_dst) = Default::default();
    }
    if !ipv6 {
        (p.ipv6_src, p.ipv6_dst, p.ipv6_label) = Default::default();
    }
    if !ipv4 && !ipv6 {
        (p.nw_tos, p.nw_ttl, p.nw_frag) = Default::default();
        p.nw_proto &= if arp { u8::MAX } else { 0 };
    }
    if !matches!(dl_type, ether_type::MPLS | ether_type::MPLS_MCAST) {
        p.mpls_lse = Default::default();
    }
    let icmp = ipv4 && proto == ip_proto::ICMP || ipv6 && proto == ip_proto::ICMPV6;
    let ports = matches!(proto, ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP);
    // ICMP has 8 bits where others have 16.
    let transport = match (ipv4 || ipv6, ports, icmp) {
        (true, true, _) => u16::MAX,
        (true, _, true) => 0xff,
        _ => 0,
    };
    for port in [&mut p.tp_src, &mut p.tp_dst] {
        *port = (port.get() & transport).into();
    }
    keep_shared(p, value, proto == ip_proto::TCP && (ipv4 || ipv6), arp);
    out
}

/// Clears what ARP, TCP and neighbour discovery share where the packet is none of them.
fn keep_shared(p: &mut flow::FlowKey, value: &FullKey, tcp: bool, arp: bool) {
    let (solicit, advert) = (is_nd(value, [ND_SOLICIT; 2]), is_nd(value, [ND_ADVERT; 2]));
    let nd = solicit || advert;
    if !arp && !solicit {
        p.arp_sha = Default::default();
    }
    if !arp && !advert {
        p.arp_tha = Default::default();
    }
    if !nd {
        (p.nd_target, p.igmp_group) = Default::default();
    }
    let flags = match (tcp, nd) {
        (true, _) => 0xfff,
        // The type of neighbour discovery's options is said as a whole, or TCP's flags were meant.
        (_, true) if p.tcp_flags.get() & 0xff == 0xff => 0xff,
        _ => 0,
    };
    p.tcp_flags = (p.tcp_flags.get() & flags).into();
}
