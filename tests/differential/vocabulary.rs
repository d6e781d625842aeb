//! The values that generated flows and packets have in common, so that packets hit flows, and the
//! kinds of packets there are.

use crate::rng::Rng;

/// Ethernet addresses: neighbours in a bit or two, multicast, broadcast, none.
pub const MACS: [[u8; 6]; 8] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 2],
    [2, 0, 0, 0, 0, 3],
    [2, 0, 0, 1, 0, 1],
    [0, 0x11, 0x22, 0x33, 0x44, 0x55],
    [1, 0, 0x5e, 0, 0, 5],
    [0x33, 0x33, 0, 0, 0, 1],
    [0xff; 6],
];
/// IPv4 addresses.
pub const IPV4: [u32; 9] = [
    0x0a00_0001,
    0x0a00_0002,
    0x0a00_0101,
    0x0a01_0001,
    0x0b00_0001,
    0xc0a8_0101,
    0xe000_0005,
    0,
    u32::MAX,
];
/// IPv6 addresses.
pub const IPV6: [u128; 6] = [
    0xfe80_0000_0000_0000_0000_0000_0000_0001,
    0xfe80_0000_0000_0000_0000_0000_0000_0002,
    0x2001_0db8_0000_0000_0000_0000_0000_0001,
    0x2001_0db8_0000_0001_0000_0000_0000_0001,
    0xff02_0000_0000_0000_0000_0001_ff00_0001,
    0,
];
/// Ports of TCP, UDP and SCTP.
pub const TP_PORTS: [u16; 8] = [0, 1, 53, 80, 81, 443, 0x8050, 0xffff];
/// VLAN IDs.
pub const VIDS: [u16; 5] = [0, 10, 11, 100, 4095];
/// MPLS labels.
pub const LABELS: [u32; 5] = [0, 3, 16, 17, 0xf_ffff];
/// DSCP and ECN.
pub const TOS: [u8; 6] = [0, 0, 0x28, 0x2b, 1, 0xff];
/// TTLs and hop limits; those that end are frequent.
pub const TTLS: [u8; 6] = [0, 1, 2, 64, 64, 255];
/// TCP flags, 12 bits.
pub const TCP_FLAGS: [u16; 7] = [0x02, 0x12, 0x10, 0x11, 0x04, 0, 0xfff];
/// IPv6 flow labels.
pub const FLOW_LABELS: [u32; 4] = [0, 0, 1, 0xf_edcb];
/// EtherTypes of no protocol that flows know.
pub const ETHER_TYPES: [u16; 4] = [0x1234, 0x88cc, 0x0600, 0x9000];
/// Numbers with little meaning, for registers.
pub const NUMBERS: [u64; 8] = [0, 1, 2, 3, 5, 0xff, 0x1_0000, 0x1234_5678_9abc_def0];

/// What is above the Ethernet header and the tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L3 {
    /// An EtherType that is nothing to flows.
    Other,
    /// A length instead of an EtherType, and an LLC header.
    Llc,
    /// A length and a SNAP header, with IPv4 behind it.
    Snap,
    Ipv4,
    Ipv6,
    Arp,
    Rarp,
    /// So many labels, with IPv4 behind them.
    Mpls(u8),
}

/// What is above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    /// Neighbour solicitation (135) or advertisement (136).
    Nd(u8),
    Igmp,
    Other,
}

/// Which part of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frag {
    Whole,
    First,
    Later,
}

/// A kind of packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// VLAN tags.
    pub tags: u8,
    /// Above Ethernet.
    pub l3: L3,
    /// Above IP.
    pub l4: L4,
    /// Which part of an IP packet.
    pub frag: Frag,
}

impl Shape {
    /// A random one; usual ones are usual.
    pub fn random(rng: &mut Rng) -> Shape {
        let l3 = rng.weighted(&[
            (40, L3::Ipv4),
            (25, L3::Ipv6),
            (10, L3::Arp),
            (2, L3::Rarp),
            (5, L3::Mpls(1)),
            (4, L3::Mpls(2)),
            (3, L3::Mpls(3)),
            (1, L3::Mpls(4)),
            (4, L3::Other),
            (2, L3::Llc),
            (3, L3::Snap),
        ]);
        let l4 = match l3 {
            L3::Ipv6 => rng.weighted(&[
                (30, L4::Tcp),
                (25, L4::Udp),
                (7, L4::Sctp),
                (10, L4::Icmp),
                (12, L4::Nd(135)),
                (12, L4::Nd(136)),
                (4, L4::Other),
            ]),
            _ => rng.weighted(&[
                (35, L4::Tcp),
                (30, L4::Udp),
                (10, L4::Sctp),
                (15, L4::Icmp),
                (5, L4::Igmp),
                (5, L4::Other),
            ]),
        };
        Shape {
            tags: rng.weighted(&[(65, 0), (25, 1), (10, 2)]),
            l3,
            l4,
            frag: rng.weighted(&[(86, Frag::Whole), (7, Frag::First), (7, Frag::Later)]),
        }
    }
}
