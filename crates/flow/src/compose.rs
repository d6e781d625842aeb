//! From a key to a frame that has these fields: for tracing with a packet, and for tests.

use crate::key::{DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey};
use crate::{MPLS_LABELS, ether_type, ip_proto};
use packet::checksum::{crc32c, internet, partial};
use zerocopy::IntoBytes;

/// Bytes of payload: enough for no frame to be shorter than Ethernet's minimum.
const PAYLOAD: u8 = 64;

/// A frame with the fields of `key` and 64 bytes of payload, with right lengths and checksums. Fields
/// that no frame has together, as a port and a later fragment, are left out where they do not fit.
pub fn compose(key: &FlowKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend(key.dl_dst.0);
    out.extend(key.dl_src.0);
    let mut tags = 0;
    for tag in key.vlan.iter().take_while(|tag| tag.tci.get() & 0x1000 != 0) {
        let tpid = if tag.tpid.get() == 0 { ether_type::VLAN } else { tag.tpid.get() };
        out.extend(tpid.to_be_bytes());
        out.extend((tag.tci.get() & !0x1000).to_be_bytes());
        tags += 1;
    }
    let dl_type = key.dl_type.get();
    if dl_type < 0x600 || dl_type == DL_TYPE_NONE {
        // IEEE 802.3: a length, then an LLC header that is not SNAP's.
        out.extend(u16::from(PAYLOAD).to_be_bytes());
        out.extend([0; PAYLOAD as usize]);
        return out;
    }
    out.extend(key.dl_type.as_bytes());
    match dl_type {
        ether_type::IPV4 => ipv4(&mut out, key),
        ether_type::IPV6 => ipv6(&mut out, key),
        ether_type::ARP | ether_type::RARP => arp(&mut out, key),
        ether_type::MPLS | ether_type::MPLS_MCAST => mpls(&mut out, key),
        // A tag that is cut short.
        ether_type::VLAN | ether_type::VLAN_AD if tags < key.vlan.len() => {}
        _ => out.extend(payload()),
    }
    out
}

fn payload() -> impl Iterator<Item = u8> {
    0..PAYLOAD
}

fn ipv4(out: &mut Vec<u8>, key: &FlowKey) {
    let start = out.len();
    let fragment: u16 = match key.nw_frag & (FRAG_ANY | FRAG_LATER) {
        0 => 0,
        FRAG_ANY => 0x2000,
        _ => 100,
    };
    out.extend([0x45, key.nw_tos, 0, 0, 0, 0]);
    out.extend(fragment.to_be_bytes());
    out.extend([key.nw_ttl, key.nw_proto, 0, 0]);
    out.extend(key.nw_src.as_bytes());
    out.extend(key.nw_dst.as_bytes());
    let pseudo = partial(0, &out[start + 12..]);
    transport(out, key, pseudo);
    let total = (out.len() - start) as u16;
    out[start + 2..start + 4].copy_from_slice(&total.to_be_bytes());
    let sum = internet(0, &out[start..start + 20]);
    out[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
}

fn ipv6(out: &mut Vec<u8>, key: &FlowKey) {
    let start = out.len();
    let word = 6 << 28 | u32::from(key.nw_tos) << 20 | key.ipv6_label.get() & 0xf_ffff;
    let fragment: Option<[u8; 2]> = match key.nw_frag & (FRAG_ANY | FRAG_LATER) {
        0 => None,
        FRAG_ANY => Some([0, 1]),
        _ => Some([0x10, 0]),
    };
    out.extend(word.to_be_bytes());
    out.extend([0, 0, if fragment.is_some() { 44 } else { key.nw_proto }, key.nw_ttl]);
    out.extend(key.ipv6_src);
    out.extend(key.ipv6_dst);
    let pseudo = partial(0, &out[start + 8..]);
    if let Some([high, low]) = fragment {
        out.extend([key.nw_proto, 0, high, low, 0, 0, 0, 1]);
    }
    // A packet whose extension headers are cut short is all that has a hop-by-hop header here.
    if key.nw_proto != 0 || fragment.is_some() {
        transport(out, key, pseudo);
    }
    let length = (out.len() - start - 40) as u16;
    out[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
}

/// Transport header and payload; `pseudo` is the sum of the IP addresses.
fn transport(out: &mut Vec<u8>, key: &FlowKey, pseudo: u64) {
    if key.nw_frag & FRAG_LATER != 0 {
        return out.extend(payload());
    }
    let start = out.len();
    let ports = |out: &mut Vec<u8>| {
        out.extend(key.tp_src.as_bytes());
        out.extend(key.tp_dst.as_bytes());
    };
    let kind = [key.tp_src.get() as u8, key.tp_dst.get() as u8];
    let sum_at = match key.nw_proto {
        ip_proto::TCP => {
            ports(out);
            out.extend([0; 8]);
            out.extend((key.tcp_flags.get() & 0xfff | 0x5000).to_be_bytes());
            out.extend([0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        ip_proto::UDP => {
            ports(out);
            out.extend([0, 8 + PAYLOAD, 0, 0]);
            6
        }
        ip_proto::SCTP => {
            ports(out);
            out.extend([0; 8]);
            out.extend(payload());
            let sum = crc32c(&out[start..]);
            return out[start + 8..start + 12].copy_from_slice(&sum.to_le_bytes());
        }
        ip_proto::ICMPV6 if matches!(kind, [135 | 136, 0]) => {
            return neighbour_discovery(out, key, pseudo);
        }
        ip_proto::IGMP => {
            out.extend(kind);
            out.extend([0; 2]);
            out.extend(key.igmp_group.as_bytes());
            2
        }
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            out.extend(kind);
            out.extend([0; 6]);
            2
        }
        _ => return out.extend(payload()),
    };
    out.extend(payload());
    let alone = matches!(key.nw_proto, ip_proto::ICMP | ip_proto::IGMP);
    store_sum(out, start, sum_at, key.nw_proto, (!alone).then_some(pseudo));
}

/// Stores the checksum of what begins at `start`, with a pseudo-header if there is one.
fn store_sum(out: &mut [u8], start: usize, at: usize, proto: u8, pseudo: Option<u64>) {
    let length = (out.len() - start) as u64;
    let before = pseudo.map_or(0, |sum| sum + u64::from(proto) + length);
    let sum = match internet(before, &out[start..]) {
        0 if proto == ip_proto::UDP => 0xffff,
        sum => sum,
    };
    out[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 4861, with the options that have an address or are said to come first.
fn neighbour_discovery(out: &mut Vec<u8>, key: &FlowKey, pseudo: u64) {
    let start = out.len();
    out.extend([key.tp_src.get() as u8, 0, 0, 0]);
    out.extend(key.igmp_group.as_bytes());
    out.extend(key.nd_target);
    let first = key.tcp_flags.get() as u8;
    let mut options = [(1, key.arp_sha.0), (2, key.arp_tha.0)];
    if first == 2 {
        options.reverse();
    }
    for (kind, address) in options {
        if address != [0; 6] || kind == first {
            out.extend([kind, 1]);
            out.extend(address);
        }
    }
    store_sum(out, start, 2, ip_proto::ICMPV6, Some(pseudo));
}

fn arp(out: &mut Vec<u8>, key: &FlowKey) {
    out.extend([0, 1, 0x08, 0, 6, 4, 0, key.nw_proto]);
    out.extend(key.arp_sha.0);
    out.extend(key.nw_src.as_bytes());
    out.extend(key.arp_tha.0);
    out.extend(key.nw_dst.as_bytes());
}

/// All entries to the bottom of the stack. Without a bottom there is nothing after the last one that
/// has a bit, unless the key has no room for more.
fn mpls(out: &mut Vec<u8>, key: &FlowKey) {
    let entries = &key.mpls_lse;
    let bottom = entries.iter().position(|lse| lse.get() & 0x100 != 0).map(|at| at + 1);
    let used = entries.iter().rposition(|lse| lse.get() != 0).map_or(0, |at| at + 1);
    let count = bottom.unwrap_or(used);
    for lse in &entries[..count] {
        out.extend(lse.as_bytes());
    }
    if bottom.is_some() || count == MPLS_LABELS {
        out.extend(payload());
    }
}
