//! Rewriting, held against composing a frame with the new fields from scratch.

use super::*;
use flow::odp::compose;
use flow::{Extracted, extract};
use frames::{Random, any_frame, frame};
use packet::checksum::{crc32c, internet, partial};
use packet::{BurstBuf, Offload};
use zerocopy::IntoBytes;

#[path = "../../../flow/tests/frames/mod.rs"]
mod frames;

fn key_of(frame: &[u8]) -> FlowKey {
    let mut out = Extracted::default();
    extract(frame, frame.len(), 0, &mut out).expect("all bytes are there");
    out.key
}

fn changed(frame: &[u8], change: impl FnOnce(&mut Burst<'_>)) -> Vec<u8> {
    let mut buf = BurstBuf::new();
    let mut burst = buf.frame(frame).expect("a frame");
    change(&mut burst);
    burst.copy_out(0, usize::MAX)
}

fn rewritten(frame: &[u8], value: FlowKey, mask: FlowMask) -> Vec<u8> {
    let r = Rewrite { value, mask };
    changed(frame, |burst| Changes::new(&r).apply(burst, 0))
}

/// Random bits in the fields that a rewrite can change, but for the types of messages.
fn some_fields(r: &mut Random, key: &FlowKey) -> FlowKey {
    let mut all = FlowKey::default();
    (all.dl_src.0, all.dl_dst.0) = ([0xff; 6], [0xff; 6]);
    match key.dl_type.get() {
        0x0800 => {
            (all.nw_src, all.nw_dst) = (U32::new(!0), U32::new(!0));
            (all.nw_tos, all.nw_ttl) = (0xff, 0xff);
        }
        0x86dd => {
            (all.ipv6_src, all.ipv6_dst) = ([0xff; 16], [0xff; 16]);
            (all.nw_tos, all.nw_ttl, all.ipv6_label) = (0xff, 0xff, U32::new(0xf_ffff));
        }
        0x0806 => {
            (all.nw_src, all.nw_dst, all.nw_proto) = (U32::new(!0), U32::new(!0), 0xff);
            (all.arp_sha.0, all.arp_tha.0) = ([0xff; 6], [0xff; 6]);
        }
        // Not the bottom mark: what follows would be read differently.
        0x8847 | 0x8848 => all.mpls_lse[0] = U32::new(0xffff_feff),
        _ => {}
    }
    match key.nw_proto {
        _ if !matches!(key.dl_type.get(), 0x0800 | 0x86dd) => {}
        6 | 17 | 132 => (all.tp_src, all.tp_dst) = (0xffff.into(), 0xffff.into()),
        58 if key.dl_type.get() == 0x86dd && matches!(key.tp_src.get(), 135 | 136) => {
            (all.nd_target, all.igmp_group) = ([0xff; 16], U32::new(!0));
            match key.tcp_flags.get() {
                1 => all.arp_sha.0 = [0xff; 6],
                2 => all.arp_tha.0 = [0xff; 6],
                _ => {}
            }
        }
        _ => {}
    }
    for byte in all.as_mut_bytes() {
        *byte &= match r.below(3) {
            0 => 0,
            1 => r.next() as u8,
            _ => 0xff,
        };
    }
    all
}

fn random_key(r: &mut Random) -> FlowKey {
    let words: [u64; flow::WORDS] = std::array::from_fn(|_| r.next());
    zerocopy::transmute!(words)
}

fn masked(bits: FlowKey) -> FlowMask {
    let mut mask = FlowMask::empty();
    *mask.bits_mut() = bits;
    mask
}

/// `key` with the bits of `mask` from `value`.
fn merged(key: &FlowKey, value: &FlowKey, mask: &FlowMask) -> FlowKey {
    let words: [u64; flow::WORDS] = std::array::from_fn(|i| {
        let m = mask.bits().words()[i];
        key.words()[i] & !m | value.words()[i] & m
    });
    zerocopy::transmute!(words)
}

#[test]
fn a_rewritten_frame_is_the_frame_with_the_new_fields() {
    let mut r = Random::new(31);
    let (mut changes, mut partials) = (0, 0);
    for _ in 0..20_000 {
        let key = key_of(&frame(&mut r));
        let before = compose(&key);
        let mask = masked(some_fields(&mut r, &key));
        let mut value = random_key(&mut r);
        (value.dl_type, value.tcp_flags) = (key.dl_type, key.tcp_flags);
        if matches!(key.dl_type.get(), 0x0800 | 0x86dd) {
            value.nw_proto = key.nw_proto;
        }
        let mut expected = merged(&key, &value, &mask);
        let ports = matches!(key.nw_proto, 6 | 17 | 132) && key.nw_frag & flow::FRAG_LATER == 0;
        if matches!(key.dl_type.get(), 0x0800 | 0x86dd) && !ports {
            (expected.tp_src, expected.tp_dst) = (key.tp_src, key.tp_dst);
        }
        // IPv6 cut short cannot be composed with more; ICMPv6 over IPv4 has no checksum that counts.
        if (key.dl_type.get(), key.nw_proto) == (0x86dd, 0)
            || (key.dl_type.get(), key.nw_proto) == (0x0800, 58)
        {
            continue;
        }
        // An option that becomes all zero looks like none to the composer.
        if key.nw_proto == 58 && (expected.arp_sha.0 == [0; 6] || expected.arp_tha.0 == [0; 6]) {
            expected.tcp_flags = key.tcp_flags;
        }
        let after = rewritten(&before, value, mask);
        assert_eq!(after, compose(&expected), "{before:02x?}\n{mask:?}");
        if let Some((frame, mut offload)) = unfinished(&before) {
            let r = Rewrite { value, mask };
            let mut finished = changed(&frame, |burst| {
                burst.packet_mut(0).offload = offload;
                Changes::new(&r).apply(burst, 0);
            });
            offload.complete(&mut finished);
            assert_eq!(finished, after, "with its checksum to be completed: {before:02x?}");
            partials += 1;
        }
        changes += usize::from(after != before);
    }
    assert!(changes > 10_000 && partials > 3_000, "{changes} {partials}");
}

/// The frame with a checksum that covers the pseudo-header only, if it can have one.
fn unfinished(frame: &[u8]) -> Option<(Vec<u8>, Offload)> {
    let (l, _) = locate(frame, frame.len());
    let whole = frame.len() == l.end && l.transport > 0 && !l.routed;
    let at = address_sum(&l, None).filter(|_| whole)?.at();
    let addresses = if l.dl_type == ether_type::IPV4 { 12..20 } else { 8..40 };
    let sum = partial(0, &frame[l.network..][addresses]);
    let sum = sum + u64::from(l.nw_proto) + (l.end - l.transport) as u64;
    let mut frame = frame.to_vec();
    frame[at..at + 2].copy_from_slice(&(!internet(sum, &[])).to_be_bytes());
    let (start, offset) = (l.transport as u16, (at - l.transport) as u16);
    let asks = Offload { flags: 1, csum_start: start, csum_offset: offset, ..Offload::default() };
    Some((frame, asks))
}

#[test]
fn a_rewrite_of_any_frame_changes_no_field_that_it_does_not_name() {
    let mut r = Random::new(32);
    for _ in 0..20_000 {
        let before = any_frame(&mut r);
        if before.len() < 14 {
            continue;
        }
        let key = key_of(&before);
        let mut bits = some_fields(&mut r, &key);
        if key.dl_type.get() == 0x86dd {
            // A zero address in the first of two like options hides that there are two.
            (bits.arp_sha, bits.arp_tha) = Default::default();
        }
        let mut value = random_key(&mut r);
        (value.dl_type, value.tcp_flags) = (key.dl_type, key.tcp_flags);
        if matches!(key.dl_type.get(), 0x0800 | 0x86dd) {
            value.nw_proto = key.nw_proto;
        }
        let after = rewritten(&before, value, masked(bits));
        assert_eq!(after.len(), before.len());
        let mut others = masked(bits);
        let words: [u64; flow::WORDS] = std::array::from_fn(|i| !others.bits().words()[i]);
        *others.bits_mut() = zerocopy::transmute!(words);
        assert!(others.agrees(&key_of(&after), &key), "{before:02x?}\n{after:02x?}");
    }
}

#[test]
fn checksums_that_are_not_there_stay_away_and_wrong_ones_stay_wrong() {
    let mut key = FlowKey { dl_type: 0x0800.into(), nw_proto: 17, ..FlowKey::default() };
    (key.nw_src, key.tp_src) = (U32::new(0x0a00_0001), 7.into());
    let mut f = compose(&key);
    let mut bits = FlowKey::default();
    (bits.nw_src, bits.tp_src) = (U32::new(!0), 0xffff.into());
    let value = FlowKey { nw_src: U32::new(0x0102_0304), tp_src: 9.into(), ..key };
    f[40..42].fill(0);
    let after = rewritten(&f, value, masked(bits));
    assert_eq!((&after[40..42], key_of(&after).tp_src.get()), (&[0, 0][..], 9));
    f[40..42].copy_from_slice(&[0x12, 0x34]);
    let after = rewritten(&f, value, masked(bits));
    let pseudo = |f: &[u8]| partial(0, &f[26..34]) + 17 + (f.len() - 34) as u64;
    assert_eq!(internet(pseudo(&f), &f[34..]), internet(pseudo(&after), &after[34..]));
    // Changed so that the checksum comes out as 0, which UDP writes as 0xffff.
    let wanted = u16::from_be_bytes([after[40], after[41]]);
    let mut zero = value;
    zero.tp_src = {
        let sum = u32::from(9 + wanted);
        ((sum & 0xffff) as u16).into()
    };
    let at_zero = rewritten(&after, zero, masked(bits));
    assert_eq!(at_zero[40..42], [0xff, 0xff]);
}

#[test]
fn sctp_checksums_follow_over_payload_that_is_not_read() {
    let key = FlowKey { dl_type: 0x0800.into(), nw_proto: 132, ..FlowKey::default() };
    let mut f = compose(&key);
    f.extend((0..1000u32).map(|i| i as u8));
    let total = (f.len() - 14) as u16;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    f[42..46].fill(0);
    let sum = crc32c(&f[34..]).to_le_bytes();
    f[42..46].copy_from_slice(&sum);
    let bits = FlowKey { tp_dst: 0xffff.into(), ..FlowKey::default() };
    let mut after = rewritten(&f, FlowKey { tp_dst: 4711.into(), ..key }, masked(bits));
    let sum: [u8; 4] = after[42..46].try_into().expect("4 bytes");
    after[42..46].fill(0);
    assert_eq!(sum, crc32c(&after[34..]).to_le_bytes());
    assert_eq!(key_of(&after).tp_dst.get(), 4711);
}

#[test]
fn the_final_destination_is_what_counts_behind_a_routing_header() {
    let key = FlowKey { dl_type: 0x86dd.into(), nw_proto: 17, ..FlowKey::default() };
    let plain = compose(&key);
    for left in [0, 1] {
        let mut f = plain[..54].to_vec();
        f.extend([17, 0, 0, left, 0, 0, 0, 0]);
        f.extend(&plain[54..]);
        (f[18], f[19], f[20]) = (0, f[19] + 8, 43);
        let sum = [f[68], f[69]];
        let bits = FlowKey { ipv6_dst: [0xff; 16], ..FlowKey::default() };
        let after = rewritten(&f, FlowKey { ipv6_dst: [9; 16], ..key }, masked(bits));
        assert_eq!(after[38..54], [9; 16]);
        assert_eq!([after[68], after[69]] == sum, left > 0);
    }
}

#[test]
fn tags_and_labels_are_pushed_and_popped() {
    let mut r = Random::new(33);
    for _ in 0..5_000 {
        let before = any_frame(&mut r);
        if before.len() < 14 {
            continue;
        }
        let key = key_of(&before);
        let vlan = Vlan { tpid: 0x8100.into(), tci: (r.next() as u16 | 0x1000).into() };
        let pushed = changed(&before, |b| assert!(push_vlan(b.packet_mut(0), vlan)));
        assert_eq!((key_of(&pushed).vlan[0], pushed.len()), (vlan, before.len() + 4));
        assert_eq!(changed(&pushed, |b| pop_vlan(b.packet_mut(0))), before);
        if key.vlan[0] == Vlan::default() && !matches!(key.dl_type.get(), 0x8100 | 0x88a8) {
            assert_eq!(changed(&before, |b| pop_vlan(b.packet_mut(0))), before, "no tag");
        }
        let lse = U32::new((r.next() as u32) & !0x100);
        let pushed = changed(&before, |b| assert!(push_mpls(b, 0, 0x8847, lse)));
        let read = key_of(&pushed);
        assert_eq!((read.dl_type.get(), read.mpls_lse[0]), (0x8847, lse), "{before:02x?}");
        assert_eq!(pushed.len(), before.len() + 4);
        let old = locate(&before, before.len()).0;
        let ethertype = u16::from_be_bytes([before[old.network - 2], before[old.network - 1]]);
        assert_eq!(changed(&pushed, |b| pop_mpls(b, 0, ethertype)), before);
    }
}

#[test]
fn there_is_room_for_so_many_tags_and_no_more() {
    let vlan = Vlan { tpid: 0x8100.into(), tci: 0x1001.into() };
    let mut buf = BurstBuf::new();
    let mut burst = buf.frame(&[0; 60]).expect("a frame");
    let pushed = (0..100).take_while(|_| push_vlan(burst.packet_mut(0), vlan)).count();
    assert_eq!(pushed, packet::HEADROOM / 4);
}
