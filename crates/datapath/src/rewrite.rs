//! Changing packets: header fields get new values, tags and labels are pushed and popped.
//!
//! Checksums follow by difference (RFC 1624), so a wrong one stays wrong and payload is never read.
//! A header that the packet does not have, or not whole, stays as it is. A checksum that is to be completed
//! yet (virtio's `NEEDS_CSUM`) covers the pseudo-header alone: it follows addresses only, and is not
//! complemented.

use flow::{FlowKey, FlowMask, Layers, Rewrite, Vlan, ether_type, ip_proto, locate};
use packet::checksum::{crc32c_change, update};
use packet::{Burst, Packet};
use zerocopy::IntoBytes;
use zerocopy::big_endian::U32;

/// What a rewrite changes, found once for a run of packets.
pub(crate) struct Changes<'a> {
    value: &'a FlowKey,
    mask: &'a FlowKey,
    ethernet: bool,
    beyond_ethernet: bool,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(r: &'a Rewrite) -> Changes<'a> {
        let mask = r.mask.bits();
        let none = [0; 6];
        let rest = FlowKey { dl_src: Default::default(), dl_dst: Default::default(), ..*mask };
        Changes {
            value: &r.value,
            mask,
            ethernet: mask.dl_src.0 != none || mask.dl_dst.0 != none,
            beyond_ethernet: rest != *FlowMask::empty().bits(),
        }
    }

    /// Changes packet `i`.
    pub(crate) fn apply(&self, burst: &mut Burst<'_>, i: usize) {
        let (v, m) = (self.value, self.mask);
        if self.ethernet && burst.packets()[i].header().len() >= 14 {
            let h = burst.packet_mut(i).header_mut();
            put(h, 0, v.dl_dst.0, m.dl_dst.0, &[]);
            put(h, 6, v.dl_src.0, m.dl_src.0, &[]);
        }
        if !self.beyond_ethernet {
            return;
        }
        let layers = layers(burst, i);
        if layers.dl_type != v.dl_type.get() {
            return;
        }
        let partial = burst.packets()[i].offload.partial_at();
        let h = burst.packet_mut(i).header_mut();
        match layers.dl_type {
            ether_type::IPV4 if layers.end > 0 => ipv4(h, &layers, partial, v, m),
            ether_type::IPV6 if layers.end > 0 => ipv6(h, &layers, partial, v, m),
            ether_type::ARP | ether_type::RARP => arp(h, layers.network, v, m),
            ether_type::MPLS | ether_type::MPLS_MCAST => {
                let (value, mask) = (v.mpls_lse[0].to_bytes(), m.mpls_lse[0].to_bytes());
                put(h, layers.network, value, mask, &[]);
            }
            _ => {}
        }
    }
}

/// The headers of packet `i`, which become private as far as they can.
pub(crate) fn layers(burst: &mut Burst<'_>, i: usize) -> Layers {
    loop {
        let p = &burst.packets()[i];
        let (layers, result) = locate(p.header(), p.len());
        let Err(flow::Need(want)) = result else { return layers };
        // Each turn has more bytes than the one before, or is the last.
        if burst.pull(i, want).len() < want {
            return layers;
        }
    }
}

/// Where a checksum is.
#[derive(Clone, Copy)]
enum Sum {
    Plain(usize),
    /// UDP's: 0 means that there is none, so one that comes out as 0 is stored as 0xffff.
    Udp(usize),
    /// That of a pseudo-header, not complemented.
    Partial(usize),
}

impl Sum {
    fn at(self) -> usize {
        let (Sum::Plain(at) | Sum::Udp(at) | Sum::Partial(at)) = self;
        at
    }
}

/// Gives the bytes at `at` the bits of `value` that are in `mask`, and has the checksums follow.
/// Does nothing if the header is cut short there.
fn put<const N: usize>(h: &mut [u8], at: usize, value: [u8; N], mask: [u8; N], sums: &[Sum]) {
    if mask == [0; N] {
        return;
    }
    let Some(&old) = h.get(at..).and_then(|h| h.first_chunk::<N>()) else {
        return;
    };
    let new: [u8; N] = std::array::from_fn(|i| old[i] & !mask[i] | value[i] & mask[i]);
    if new == old {
        return;
    }
    h[at..at + N].copy_from_slice(&new);
    for &sum in sums {
        let Some(Ok(stored)) = h.get_mut(sum.at()..sum.at() + 2).map(<&mut [u8; 2]>::try_from)
        else {
            continue;
        };
        let before = u16::from_be_bytes(*stored);
        let after = update(before, &old, &new);
        match sum {
            Sum::Plain(_) => *stored = after.to_be_bytes(),
            Sum::Partial(_) => *stored = (!update(!before, &old, &new)).to_be_bytes(),
            Sum::Udp(_) if before == 0 => {}
            Sum::Udp(_) => *stored = (if after == 0 { 0xffff } else { after }).to_be_bytes(),
        }
    }
}

/// The transport checksum that covers the IP addresses, if there is one.
fn address_sum(l: &Layers, partial: Option<usize>) -> Option<Sum> {
    let size = l.end.checked_sub(l.transport).filter(|_| l.transport > 0)?;
    let whole = whole_address_sum(l, size)?;
    Some(if partial == Some(whole.at()) { Sum::Partial(whole.at()) } else { whole })
}

/// As [`address_sum`], of a packet without offload and with `size` bytes behind the IP header.
fn whole_address_sum(l: &Layers, size: usize) -> Option<Sum> {
    match l.nw_proto {
        ip_proto::TCP if size >= 20 => Some(Sum::Plain(l.transport + 16)),
        ip_proto::UDP if size >= 8 => Some(Sum::Udp(l.transport + 6)),
        ip_proto::ICMPV6 if l.dl_type == ether_type::IPV6 && size >= 4 => {
            Some(Sum::Plain(l.transport + 2))
        }
        _ => None,
    }
}

fn ipv4(h: &mut [u8], l: &Layers, partial: Option<usize>, v: &FlowKey, m: &FlowKey) {
    let at = l.network;
    let header = Sum::Plain(at + 10);
    let behind = address_sum(l, partial);
    let both = [header, behind.unwrap_or(header)];
    let sums = if behind.is_some() { &both[..] } else { &both[..1] };
    put(h, at + 12, v.nw_src.to_bytes(), m.nw_src.to_bytes(), sums);
    put(h, at + 16, v.nw_dst.to_bytes(), m.nw_dst.to_bytes(), sums);
    put(h, at, [0, v.nw_tos], [0, m.nw_tos], &[header]);
    put(h, at + 8, [v.nw_ttl, 0], [m.nw_ttl, 0], &[header]);
    transport(h, l, partial, v, m);
}

fn ipv6(h: &mut [u8], l: &Layers, partial: Option<usize>, v: &FlowKey, m: &FlowKey) {
    let at = l.network;
    let sum = address_sum(l, partial);
    let sums = sum.as_slice();
    put(h, at + 8, v.ipv6_src, m.ipv6_src, sums);
    // With segments left, checksums count the last segment, which is not here.
    put(h, at + 24, v.ipv6_dst, m.ipv6_dst, if l.routed { &[] } else { sums });
    let word = |k: &FlowKey| u32::from(k.nw_tos) << 20 | k.ipv6_label.get() & 0xf_ffff;
    put(h, at, word(v).to_be_bytes(), word(m).to_be_bytes(), &[]);
    put(h, at + 7, [v.nw_ttl], [m.nw_ttl], &[]);
    transport(h, l, partial, v, m);
}

/// Ports of TCP, UDP and SCTP; type and code of ICMP; neighbour discovery.
fn transport(h: &mut [u8], l: &Layers, partial: Option<usize>, v: &FlowKey, m: &FlowKey) {
    let at = l.transport;
    let Some(size) = l.end.checked_sub(at).filter(|_| at > 0 && l.nw_proto == v.nw_proto) else {
        return;
    };
    let ports = |k: &FlowKey| {
        let ([a, b], [c, d]) = (k.tp_src.to_bytes(), k.tp_dst.to_bytes());
        [a, b, c, d]
    };
    let (value, mask) = (ports(v), ports(m));
    // What is to be completed yet does not cover these.
    let plain = |sum: Sum| Some(sum).filter(|s| partial != Some(s.at()));
    match l.nw_proto {
        ip_proto::TCP if h.get(at + 12).is_some_and(|&b| flow::tcp_header_fits(b, size)) => {
            put(h, at, value, mask, plain(Sum::Plain(at + 16)).as_slice());
        }
        ip_proto::UDP if size >= 8 => {
            put(h, at, value, mask, plain(Sum::Udp(at + 6)).as_slice());
        }
        ip_proto::SCTP if size >= 12 => sctp(h, at, size, value, mask),
        ip_proto::ICMP | ip_proto::ICMPV6 if size >= 8 => {
            let sum = plain(Sum::Plain(at + 2));
            put(h, at, [value[1], value[3]], [mask[1], mask[3]], sum.as_slice());
            if l.nw_proto == ip_proto::ICMPV6 && l.dl_type == ether_type::IPV6 {
                neighbour_discovery(h, at, l.end, sum.as_slice(), v, m);
            }
        }
        _ => {}
    }
}

/// SCTP's checksum is a CRC of the whole packet, but what a change of the ports does to it depends
/// only on how far they are from the end.
fn sctp(h: &mut [u8], at: usize, size: usize, value: [u8; 4], mask: [u8; 4]) {
    let Some(&old) = h.get(at..).and_then(|h| h.first_chunk::<12>()) else {
        return;
    };
    put(h, at, value, mask, &[]);
    let difference: [u8; 4] = std::array::from_fn(|i| old[i] ^ h[at + i]);
    if difference == [0; 4] {
        return;
    }
    let change = crc32c_change(&difference, size - 4).to_le_bytes();
    for (stored, change) in h[at + 8..at + 12].iter_mut().zip(change) {
        *stored ^= change;
    }
}

/// RFC 4861: target, reserved word, and the first link-layer option.
fn neighbour_discovery(
    h: &mut [u8],
    at: usize,
    end: usize,
    sums: &[Sum],
    v: &FlowKey,
    m: &FlowKey,
) {
    let discovery = h.get(at..at + 2).is_some_and(|b| matches!(b, [135 | 136, 0]));
    if !discovery || end - at < 24 {
        return;
    }
    put(h, at + 4, v.igmp_group.to_bytes(), m.igmp_group.to_bytes(), sums);
    put(h, at + 8, v.nd_target, m.nd_target, sums);
    let mut option = at + 24;
    while option + 8 <= end {
        let Some(&[kind, units]) = h.get(option..).and_then(|h| h.first_chunk::<2>()) else {
            return;
        };
        let (address, mask) = match (kind, units) {
            (_, 0) => return,
            (1, 1) => (v.arp_sha, m.arp_sha),
            (2, 1) => (v.arp_tha, m.arp_tha),
            _ => {
                option += usize::from(units) * 8;
                continue;
            }
        };
        put(h, option + 2, address.0, mask.0, sums);
        break;
    }
    if at + 32 <= end {
        let kind = |k: &FlowKey| [k.tcp_flags.to_bytes()[1], 0];
        put(h, at + 24, kind(v), kind(m), sums);
    }
}

/// RFC 826, for Ethernet and IPv4.
fn arp(h: &mut [u8], at: usize, v: &FlowKey, m: &FlowKey) {
    if h.get(at..at + 28).is_none_or(|b| b[..6] != [0, 1, 0x08, 0, 6, 4]) {
        return;
    }
    if m.nw_proto != 0 {
        // An operation beyond 255 is matched as 0.
        let kept = if h[at + 6] == 0 { m.nw_proto } else { 0xff };
        put(h, at + 6, [0, v.nw_proto & m.nw_proto], [0xff, kept], &[]);
    }
    put(h, at + 8, v.arp_sha.0, m.arp_sha.0, &[]);
    put(h, at + 14, v.nw_src.to_bytes(), m.nw_src.to_bytes(), &[]);
    put(h, at + 18, v.arp_tha.0, m.arp_tha.0, &[]);
    put(h, at + 24, v.nw_dst.to_bytes(), m.nw_dst.to_bytes(), &[]);
}

/// Puts a VLAN tag in front of all others. False if there is no room.
pub(crate) fn push_vlan(p: &mut Packet, vlan: Vlan) -> bool {
    let Some(gap) = p.insert(12, 4) else { return false };
    gap[..2].copy_from_slice(vlan.tpid.as_bytes());
    gap[2..].copy_from_slice(&(vlan.tci.get() & !0x1000).to_be_bytes());
    true
}

/// Removes the outermost VLAN tag, if there is one.
pub(crate) fn pop_vlan(p: &mut Packet) {
    let tag = [ether_type::VLAN.to_be_bytes(), ether_type::VLAN_AD.to_be_bytes()];
    if p.header().get(12..14).is_some_and(|t| tag.iter().any(|tag| t == tag)) {
        p.remove(12, 4);
    }
}

/// Puts an MPLS label stack entry in front of what the tags enclose. False if there is no room.
pub(crate) fn push_mpls(burst: &mut Burst<'_>, i: usize, ethertype: u16, lse: U32) -> bool {
    let at = layers(burst, i).network;
    if at == 0 {
        return true;
    }
    let p = burst.packet_mut(i);
    let Some(gap) = p.insert(at, 4) else { return false };
    gap.copy_from_slice(lse.as_bytes());
    p.header_mut()[at - 2..at].copy_from_slice(&ethertype.to_be_bytes());
    true
}

/// Removes the outermost MPLS label stack entry, if there is one.
pub(crate) fn pop_mpls(burst: &mut Burst<'_>, i: usize, ethertype: u16) {
    let l = layers(burst, i);
    let p = burst.packet_mut(i);
    if matches!(l.dl_type, ether_type::MPLS | ether_type::MPLS_MCAST) && p.remove(l.network, 4) {
        p.header_mut()[l.network - 2..l.network].copy_from_slice(&ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
