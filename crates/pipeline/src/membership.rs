//! What hosts and routers say of multicast groups: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810).
//!
//! Whoever sends a packet may lie in each byte of it, so nothing is believed but what is there: records
//! end with the packet, whatever their number is said to be.

use flow::{Layers, ether_type, ip_proto, locate};
use packet::checksum::{internet, partial};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Types of IGMP messages.
pub(crate) const IGMP_QUERY: u16 = 0x11;
const IGMP_V1_REPORT: u16 = 0x12;
const IGMP_V2_REPORT: u16 = 0x16;
const IGMP_LEAVE: u16 = 0x17;
const IGMP_V3_REPORT: u16 = 0x22;
/// Types of MLD messages, among ICMPv6's.
pub(crate) const MLD_QUERY: u16 = 130;
const MLD_REPORT: u16 = 131;
const MLD_DONE: u16 = 132;
const MLD_V2_REPORT: u16 = 143;
/// Types of records in which no source means that the group is left: MODE_IS_INCLUDE and
/// CHANGE_TO_INCLUDE_MODE (RFC 3376, 4.2.12).
const INCLUDES: [u8; 2] = [1, 3];
/// All types of records.
const RECORDS: std::ops::RangeInclusive<u8> = 1..=6;

/// True for types of IGMP messages by which hosts join and leave.
pub(crate) fn is_igmp_report(kind: u16) -> bool {
    matches!(kind, IGMP_V1_REPORT | IGMP_V2_REPORT | IGMP_LEAVE | IGMP_V3_REPORT)
}

/// True for types of ICMPv6 messages that are MLD's.
pub(crate) fn is_mld(kind: u16) -> bool {
    matches!(kind, MLD_QUERY | MLD_REPORT | MLD_DONE | MLD_V2_REPORT)
}

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// I am a router.
    Query,
    /// I want this group. IPv4 addresses are mapped.
    Join(Ipv6Addr),
    /// I want it no more.
    Leave(Ipv6Addr),
}

/// Reads a frame, and tells what is said there. Nothing is said where the checksum is wrong.
pub(crate) fn read(frame: &[u8], say: impl FnMut(Said)) {
    let (layers, _) = locate(frame, frame.len());
    let Layers { dl_type, network, nw_proto, transport, end, .. } = layers;
    let (Some(ip), Some(message)) = (frame.get(network..), frame.get(transport..end)) else {
        return;
    };
    if transport == 0 || message.len() < 8 {
        return;
    }
    match (dl_type, nw_proto) {
        (ether_type::IPV4, ip_proto::IGMP) => igmp(ip, message, say),
        (ether_type::IPV6, ip_proto::ICMPV6) => mld(ip, message, say),
        _ => {}
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn address4(bytes: &[u8]) -> Option<Ipv6Addr> {
    let bytes = bytes.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*bytes).to_ipv6_mapped())
}

fn address6(bytes: &[u8]) -> Option<Ipv6Addr> {
    bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b))
}

/// `message` has 8 bytes at least.
fn igmp(ip: &[u8], message: &[u8], mut say: impl FnMut(Said)) {
    if internet(0, message) != 0 {
        return;
    }
    let group = address4(&message[4..]);
    let said = match u16::from(message[0]) {
        // A switch that asks in a router's place has no address (RFC 4541, 2.1.1): it needs no reports.
        IGMP_QUERY if ip.get(12..16) != Some(&[0; 4]) => Some(Said::Query),
        IGMP_V1_REPORT | IGMP_V2_REPORT => group.map(Said::Join),
        IGMP_LEAVE => group.map(Said::Leave),
        IGMP_V3_REPORT => return records(message, 4, address4, say),
        _ => None,
    };
    said.into_iter().for_each(&mut say);
}

/// `message` has 8 bytes at least.
fn mld(ip: &[u8], message: &[u8], mut say: impl FnMut(Said)) {
    let Some(addresses) = ip.get(8..40) else { return };
    // RFC 8200, 8.1.
    let pseudo = partial(u64::from(ip_proto::ICMPV6) + message.len() as u64, addresses);
    if internet(pseudo, message) != 0 {
        return;
    }
    let group = address6(&message[8..]);
    let said = match u16::from(message[0]) {
        MLD_QUERY if addresses[..16] != [0; 16] => Some(Said::Query),
        MLD_REPORT => group.map(Said::Join),
        MLD_DONE => group.map(Said::Leave),
        MLD_V2_REPORT => return records(message, 16, address6, say),
        _ => None,
    };
    said.into_iter().for_each(&mut say);
}

/// The records of a report of IGMPv3 (RFC 3376, 4.2) or MLDv2 (RFC 3810, 5.2), which differ by the size
/// of their addresses.
fn records(
    message: &[u8],
    size: usize,
    address: fn(&[u8]) -> Option<Ipv6Addr>,
    mut say: impl FnMut(Said),
) {
    let mut at = 8;
    for _ in 0..be16(message, 6) {
        let Some(record) = message.get(at..).filter(|r| r.len() >= 4 + size) else { return };
        let (kind, words, sources) = (record[0], usize::from(record[1]), be16(record, 2));
        if let Some(group) = address(&record[4..]).filter(|_| RECORDS.contains(&kind)) {
            let leaves = sources == 0 && INCLUDES.contains(&kind);
            say(if leaves { Said::Leave(group) } else { Said::Join(group) });
        }
        at += 4 + size + usize::from(sources) * size + words * 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame with an IGMP message, of 10.0.0.`from`.
    fn igmp_frame(from: u8, mut message: Vec<u8>) -> Vec<u8> {
        let sum = internet(0, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut ip = vec![0x46, 0xc0, 0, 24 + message.len() as u8, 0, 0, 0, 0, 1, 2, 0, 0];
        ip.extend(if from == 0 { [0; 4] } else { [10, 0, 0, from] });
        // The router alert option.
        ip.extend([224, 0, 0, 22, 0x94, 4, 0, 0]);
        [&[1, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, from, 8, 0][..], &ip, &message].concat()
    }

    /// A frame with an MLD message, of fe80::`from`, or of :: for 0.
    fn mld_frame(from: u8, mut message: Vec<u8>) -> Vec<u8> {
        let mut addresses = [0; 32];
        addresses[0..2].copy_from_slice(if from == 0 { &[0, 0] } else { &[0xfe, 0x80] });
        addresses[15] = from;
        (addresses[16], addresses[17], addresses[31]) = (0xff, 2, 22);
        let pseudo = partial(58 + message.len() as u64, &addresses);
        let sum = internet(pseudo, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut f = vec![0x33, 0x33, 0, 0, 0, 22, 2, 0, 0, 0, 0, from, 0x86, 0xdd];
        f.extend([0x60, 0, 0, 0, 0, 8 + message.len() as u8, 0, 1]);
        f.extend(addresses);
        // Hop by hop: the router alert option (RFC 2711).
        f.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        f.extend(message);
        f
    }

    fn said(frame: &[u8]) -> Vec<Said> {
        let mut all = Vec::new();
        read(frame, |s| all.push(s));
        all
    }

    fn v4(last: u8) -> Ipv6Addr {
        Ipv4Addr::new(224, 1, 1, last).to_ipv6_mapped()
    }

    fn v6(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, last)
    }

    fn igmpv3() -> Vec<u8> {
        let mut m = vec![0x22, 0, 0, 0, 0, 0, 0, 4];
        m.extend([4, 0, 0, 0, 224, 1, 1, 1]);
        // One source, and a word that is not of this version.
        m.extend([1, 1, 0, 1, 224, 1, 1, 2, 10, 0, 0, 1, 9, 9, 9, 9]);
        m.extend([3, 0, 0, 0, 224, 1, 1, 3]);
        m.extend([7, 0, 0, 0, 224, 1, 1, 4]);
        m
    }

    fn mldv2() -> Vec<u8> {
        let mut m = vec![143, 0, 0, 0, 0, 0, 0, 2];
        m.extend([4, 0, 0, 1]);
        m.extend(v6(1).octets());
        m.extend([7; 16]);
        m.extend([3, 0, 0, 0]);
        m.extend(v6(2).octets());
        m
    }

    fn mldv1(kind: u8) -> Vec<u8> {
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &v6(3).octets()].concat()
    }

    #[test]
    fn every_version_is_read() {
        let group = |kind| igmp_frame(1, vec![kind, 0, 0, 0, 224, 1, 1, 5]);
        assert_eq!(said(&group(0x12)), [Said::Join(v4(5))]);
        assert_eq!(said(&group(0x16)), [Said::Join(v4(5))]);
        assert_eq!(said(&group(0x17)), [Said::Leave(v4(5))]);
        assert_eq!(said(&group(0x11)), [Said::Query]);
        assert_eq!(said(&igmp_frame(0, vec![0x11, 0, 0, 0, 0, 0, 0, 0])), []);
        let all = [Said::Join(v4(1)), Said::Join(v4(2)), Said::Leave(v4(3))];
        assert_eq!(said(&igmp_frame(1, igmpv3())), all);
        assert_eq!(said(&mld_frame(1, mldv1(131))), [Said::Join(v6(3))]);
        assert_eq!(said(&mld_frame(1, mldv1(132))), [Said::Leave(v6(3))]);
        assert_eq!(said(&mld_frame(1, mldv1(130))), [Said::Query]);
        assert_eq!(said(&mld_frame(0, mldv1(130))), []);
        assert_eq!(said(&mld_frame(1, mldv2())), [Said::Join(v6(1)), Said::Leave(v6(2))]);
    }

    #[test]
    fn a_wrong_checksum_says_nothing() {
        for mut frame in [igmp_frame(1, igmpv3()), mld_frame(1, mldv1(131)), mld_frame(1, mldv2())]
        {
            *frame.last_mut().expect("not empty") ^= 1;
            assert_eq!(said(&frame), []);
        }
    }

    #[test]
    fn padding_is_no_part_of_the_message() {
        let mut frame = igmp_frame(1, vec![0x22, 0, 0, 0, 0, 0, 0, 9]);
        frame.extend([4, 0, 0, 0, 224, 1, 1, 1]);
        assert_eq!(said(&frame), []);
    }

    proptest! {
        /// All truncations of messages with one byte of them changed, with a checksum that is right.
        #[test]
        fn nothing_that_is_cut_or_lies_does_harm(which in 0usize..3, at in 0usize..60, byte: u8) {
            let message = [igmpv3(), mldv1(131), mldv2()][which].clone();
            for len in 8..=message.len() {
                let mut message = message[..len].to_vec();
                if let Some(b) = message.get_mut(at) {
                    *b = byte;
                }
                let frame = match which {
                    0 => igmp_frame(1, message),
                    _ => mld_frame(1, message),
                };
                prop_assert!(said(&frame).len() <= len / 8);
                for cut in 0..frame.len() {
                    said(&frame[..cut]);
                }
            }
        }
    }
}
