//! Hashes of packets' fields, for actions that spread packets (ovs-actions(7), "multipath" and
//! "bundle"; ovs-ofctl(8), "Group Syntax"). The functions are our own: where OVS puts a packet is not
//! documented, only what it depends on.

use crate::headers::{Headers, is_ip, is_tag};
use flow::{FlowKey, FlowMask, Mac, ether_type, ip_proto};
use openflow::{Field, HashFields, MultipathAlgorithm};
use zerocopy::big_endian::U16;

/// Mixes a number into a hash: every bit of either changes about half of the result's
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub(crate) fn mix(hash: u64, n: u64) -> u64 {
    let mut z = hash
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(n)
        .wrapping_add(0x632b_e59b_d9b4_e019);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn mix_wide(hash: u64, n: u128) -> u64 {
    mix(mix(hash, n as u64), (n >> 64) as u64)
}

fn number(mac: Mac) -> u64 {
    mac.0.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Which parts of a packet a hash is made of.
#[derive(Clone, Copy)]
struct Parts {
    ethernet: bool,
    source: bool,
    destination: bool,
    proto: bool,
    ports: &'static [u8],
}

const NO_PORTS: &[u8] = &[];
const TCP_SCTP: &[u8] = &[ip_proto::TCP, ip_proto::SCTP];
const TCP_SCTP_UDP: &[u8] = &[ip_proto::TCP, ip_proto::SCTP, ip_proto::UDP];

fn parts(fields: HashFields) -> Parts {
    let l3 =
        Parts { ethernet: false, source: true, destination: true, proto: false, ports: NO_PORTS };
    match fields {
        HashFields::EthSrc => Parts { source: false, destination: false, ..l3 },
        HashFields::SymmetricL4 => Parts { ethernet: true, proto: true, ports: TCP_SCTP, ..l3 },
        HashFields::SymmetricL3L4 => Parts { proto: true, ports: TCP_SCTP, ..l3 },
        HashFields::SymmetricL3L4Udp => Parts { proto: true, ports: TCP_SCTP_UDP, ..l3 },
        HashFields::NwSrc => Parts { destination: false, ..l3 },
        HashFields::NwDst => Parts { source: false, ..l3 },
        HashFields::SymmetricL3 => l3,
    }
}

/// A hash of some of the packet's fields; the answer depends on them.
pub(crate) fn fields(h: &mut Headers, fields: HashFields, basis: u64) -> u64 {
    if fields == HashFields::EthSrc {
        h.depend(&FlowKey { dl_src: Mac::BROADCAST, ..FlowKey::default() });
        return mix(basis, number(h.pkt().dl_src));
    }
    some(h, parts(fields), basis)
}

/// What a select group hashes that says nothing of it: both ends' addresses and ports, alike for both
/// directions.
pub(crate) fn both_ends(h: &mut Headers) -> u64 {
    let l4 = parts(HashFields::SymmetricL4);
    some(h, Parts { ports: TCP_SCTP_UDP, ..l4 }, 0)
}

fn some(h: &mut Headers, parts: Parts, basis: u64) -> u64 {
    let mut hash = basis;
    if parts.ethernet {
        let (dst, src) = h.addresses();
        hash = mix(hash, number(dst) ^ number(src));
        hash = mix(hash, u64::from(h.dl_type()));
        let mut bits = FlowKey::default();
        for tag in &mut bits.vlan {
            tag.tci = U16::new(0x1fff);
        }
        h.depend(&bits);
        let vids = h.pkt().vlan.iter().filter(|t| is_tag(t));
        hash = mix(hash, vids.fold(0, |n, t| n ^ u64::from(t.tci.get() & 0xfff)));
    }
    // A packet whose label was just popped has no network layer to be seen yet.
    if !is_ip(h.dl_type()) || h.now.was_mpls {
        return hash;
    }
    let mut bits = FlowKey::default();
    let all = *FlowMask::exact().bits();
    match (h.dl_type() == ether_type::IPV4, parts.source, parts.destination) {
        (true, src, dst) => {
            bits.nw_src = if src { all.nw_src } else { bits.nw_src };
            bits.nw_dst = if dst { all.nw_dst } else { bits.nw_dst };
        }
        (false, src, dst) => {
            bits.ipv6_src = if src { all.ipv6_src } else { bits.ipv6_src };
            bits.ipv6_dst = if dst { all.ipv6_dst } else { bits.ipv6_dst };
        }
    }
    bits.nw_proto = if parts.proto { 0xff } else { 0 };
    // Whoever hashes ports hashes the protocol too.
    if parts.ports.contains(&h.pkt().nw_proto) && h.pkt().nw_frag & flow::FRAG_ANY == 0 {
        (bits.tp_src, bits.tp_dst) = (all.tp_src, all.tp_dst);
    }
    h.depend(&bits);
    let pkt = h.pkt();
    let is_v4 = h.dl_type() == ether_type::IPV4;
    let address = |v4: u32, v6: [u8; 16]| if is_v4 { v4.into() } else { u128::from_be_bytes(v6) };
    let chosen = |on: bool, n: u128| if on { n } else { 0 };
    let src = chosen(parts.source, address(pkt.nw_src.get(), pkt.ipv6_src));
    let dst = chosen(parts.destination, address(pkt.nw_dst.get(), pkt.ipv6_dst));
    hash = mix_wide(hash, src ^ dst);
    if parts.proto {
        hash = mix(hash, pkt.nw_proto.into());
    }
    match bits.tp_src.get() {
        0 => hash,
        _ => mix(hash, u64::from(pkt.tp_src.get() ^ pkt.tp_dst.get())),
    }
}

/// A hash of named fields (`selection_method=hash,fields(…)`), as far as the packet has them.
pub(crate) fn named(h: &mut Headers, fields: &[(&'static Field, u128)], basis: u64) -> u64 {
    fields.iter().fold(basis, |hash, (field, mask)| {
        if !h.has(field) {
            return mix(hash, 1);
        }
        h.depend_on(field, *mask);
        mix_wide(hash, field.get(&h.now.key) & mask)
    })
}

/// Chooses one of `n` links, at least one.
pub(crate) fn link(algorithm: MultipathAlgorithm, hash: u64, n: u32, arg: u32) -> u32 {
    let n = n.max(1);
    let folded = (hash ^ hash >> 32) as u32;
    match algorithm {
        MultipathAlgorithm::ModuloN => folded % n,
        // The upper bits say which of n parts of all hashes this is in.
        MultipathAlgorithm::HashThreshold => ((u64::from(folded) * u64::from(n)) >> 32) as u32,
        MultipathAlgorithm::Hrw => (0..n).max_by_key(|i| mix(hash, u64::from(*i))).unwrap_or(0),
        MultipathAlgorithm::IterHash => iterate(hash, n, arg),
    }
}

/// "Iterative hash": hashes again and again until one of `n` of `arg` or more links comes up, so that
/// few packets move when links are added.
fn iterate(hash: u64, n: u32, arg: u32) -> u32 {
    let modulo = n.max(arg).max(1).next_power_of_two();
    let mut hash = hash;
    // Each try succeeds with a chance of n in `modulo`; whoever asks for one in a million gets what
    // the last try gives.
    for _ in 0..MAX_TRIES {
        hash = mix(hash, 0);
        let link = hash as u32 & (modulo - 1);
        if link < n {
            return link;
        }
    }
    hash as u32 % n
}
const MAX_TRIES: u32 = 64;

/// Chooses one of several by weight, so that who goes or comes changes nothing between the others
/// ("highest random weight"). `None` if all weights are 0.
pub(crate) fn weighted(hash: u64, of: impl Iterator<Item = (u32, u16)>) -> Option<u32> {
    let mut best: Option<(f64, u32)> = None;
    for (id, weight) in of.filter(|(_, weight)| *weight > 0) {
        // A number between 0 and 1, then an exponential variable with a mean of 1 / weight.
        let unit = ((mix(hash, id.into()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let time = -unit.ln() / f64::from(weight);
        if best.is_none_or(|(t, _)| time < t) {
            best = Some((time, id));
        }
    }
    best.map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_algorithms_spread_evenly() {
        use MultipathAlgorithm::*;
        for algorithm in [ModuloN, HashThreshold, Hrw, IterHash] {
            for n in [1u32, 2, 7, 16] {
                let mut counts = vec![0; n as usize];
                for i in 0..7000 {
                    counts[link(algorithm, mix(3, i), n, 0) as usize] += 1;
                }
                let fair = 7000 / n;
                let near = |c: &u32| c.abs_diff(fair) * 4 < fair;
                assert!(counts.iter().all(near), "{algorithm:?} {n}: {counts:?}");
            }
        }
    }

    #[test]
    fn few_packets_move_when_a_link_goes() {
        let moved = |algorithm| {
            let links = |n| (0..4000).map(move |i| link(algorithm, mix(1, i), n, 0));
            links(8).zip(links(7)).filter(|(a, b)| a != b && *a != 7).count()
        };
        assert_eq!(moved(MultipathAlgorithm::Hrw), 0);
        assert_eq!(moved(MultipathAlgorithm::IterHash), 0);
        assert!(moved(MultipathAlgorithm::ModuloN) > 2000);
    }

    #[test]
    fn weights_are_shares() {
        let buckets = [(0, 10), (1, 30), (2, 0), (3, 60)];
        let mut counts = [0u32; 4];
        for i in 0..10_000 {
            let chosen = weighted(mix(9, i), buckets.into_iter()).expect("weights");
            counts[chosen as usize] += 1;
        }
        for ((_, weight), count) in buckets.iter().zip(counts) {
            assert!(count.abs_diff(u32::from(*weight) * 100) < 250, "{counts:?}");
        }
        assert_eq!(weighted(1, [(5, 0)].into_iter()), None);
    }
}
