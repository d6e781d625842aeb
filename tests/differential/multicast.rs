//! Multicast snooping: generated settings, and frames that say who wants which group or are for one.
//! After them, the multicast tables are compared too.

use crate::ports::{Settings, VLANS, compare};
use crate::rng::Rng;
use packet::checksum::{internet, partial};
use pipeline::Snooping;

/// Frames for each case.
const FRAMES: usize = 100;
/// IPv4 groups: some that are joined, and 224.0.0.0/24, which is for all.
const GROUPS4: [[u8; 4]; 5] =
    [[224, 1, 1, 1], [224, 1, 1, 2], [239, 255, 0, 1], [224, 0, 0, 9], [224, 0, 1, 0]];
/// Last bytes of IPv6 groups; of the first kind is ff02::1.
const GROUPS6: [[u8; 2]; 4] = [[2, 1], [2, 5], [0x0e, 1], [0x0e, 2]];

fn group6([scope, last]: [u8; 2]) -> Vec<u8> {
    [&[0xff, scope][..], &[0; 13], &[last]].concat()
}

/// A report of IGMPv3 or MLDv2, with a count that may lie.
fn records(rng: &mut Rng, kind: u8, group: impl Fn(&mut Rng) -> Vec<u8>) -> Vec<u8> {
    let n = rng.below(4);
    let said = if rng.chance(10) { rng.below(300) } else { n } as u16;
    let mut m = vec![kind, 0, 0, 0, 0, 0];
    m.extend(said.to_be_bytes());
    for i in 0..n {
        let group = group(rng);
        let sources = rng.pick(&[0, 0, 0, 1, 2]);
        let said = if rng.chance(5) { rng.pick(&[1, 9]) } else { sources } as u8;
        // After a record of a type that is not known, OVS reads no more.
        let last = 6 + u8::from(i + 1 == n);
        m.extend([1 + rng.below(last.into()) as u8, 0, 0, said]);
        m.extend(&group);
        m.extend(vec![7; sources * group.len()]);
    }
    m
}

fn igmp(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.pick(&[0x11, 0x12, 0x16, 0x16, 0x17, 0x22, 0x22, 0x13]);
    if kind == 0x22 {
        return records(rng, kind, |rng| rng.pick(&GROUPS4).to_vec());
    }
    [&[kind, 0, 0, 0][..], &rng.pick(&GROUPS4)].concat()
}

fn mld(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.pick(&[130, 131, 131, 132, 143, 143, 128]);
    if kind == 143 {
        return records(rng, kind, |rng| group6(rng.pick(&GROUPS6)));
    }
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group6(rng.pick(&GROUPS6))].concat()
}

/// Puts a checksum, mostly a right one, and cuts it, mostly not. OVS does not live through an MLDv1 report
/// that is cut.
fn finish(rng: &mut Rng, mut m: Vec<u8>, sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    if rng.chance(10) && !matches!(m[0], 131 | 132) {
        m.truncate(8 + rng.below(m.len() - 7));
    }
    let sum = sum(&m).wrapping_add(u16::from(rng.chance(10)));
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    m
}

fn ipv4(rng: &mut Rng, from: u8) -> (Vec<u8>, Vec<u8>) {
    let dst = rng.pick(&GROUPS4);
    let (proto, payload) = match rng.below(3) {
        0 => (17, vec![4, 0, 4, 0, 0, 8, 0, 0]),
        _ => {
            let m = igmp(rng);
            (2, finish(rng, m, |m| internet(0, m)))
        }
    };
    let len = 20 + payload.len() as u8;
    let mut f = vec![0x45, 0, 0, len, 0, 0, 0, 0, 1, proto, 0, 0];
    f.extend(if rng.chance(15) { [0; 4] } else { [10, 0, 0, from] });
    f.extend(dst);
    f.extend(payload);
    (vec![1, 0, 0x5e, dst[1] & 0x7f, dst[2], dst[3]], f)
}

fn ipv6(rng: &mut Rng, from: u8) -> (Vec<u8>, Vec<u8>) {
    let (dst, mut src) = (group6(rng.pick(&GROUPS6)), vec![0; 16]);
    if rng.chance(85) {
        (src[0], src[1], src[15]) = (0xfe, 0x80, from);
    }
    let addresses = [src, dst.clone()].concat();
    let (proto, payload) = match rng.below(3) {
        0 => (17, vec![4, 0, 4, 0, 0, 8, 0, 0]),
        _ => {
            let m = mld(rng);
            let sum = |m: &[u8]| internet(partial(58 + m.len() as u64, &addresses), m);
            (58, finish(rng, m, sum))
        }
    };
    let mut f = vec![0x60, 0, 0, 0, 0, payload.len() as u8, proto, 1];
    f.extend(addresses);
    f.extend(payload);
    (vec![0x33, 0x33, dst[12], dst[13], dst[14], dst[15]], f)
}

fn frame(rng: &mut Rng) -> Vec<u8> {
    let from = rng.below(6) as u8;
    let (dst, payload, dl_type) = match rng.below(10) {
        0..5 => {
            let (dst, packet) = ipv4(rng, from);
            (dst, packet, [8, 0])
        }
        5..9 => {
            let (dst, packet) = ipv6(rng, from);
            (dst, packet, [0x86, 0xdd])
        }
        _ => (vec![1, 0, 0x5e, 1, 1, 1], vec![0; 46], [0x88, 0xb6]),
    };
    let dst = match rng.below(20) {
        0 => vec![0xff; 6],
        1 => vec![2, 0, 0, 0, 0, rng.below(6) as u8],
        _ => dst,
    };
    let mut f = [dst, vec![2, 0, 0, 0, 0, from]].concat();
    if rng.chance(40) {
        f.extend([0x81, 0]);
        f.extend((rng.pick(&VLANS[..3]) as u16).to_be_bytes());
    }
    f.extend(dl_type);
    f.extend(payload);
    f
}

fn settings(rng: &mut Rng, settings: &mut Settings) {
    settings.snooping = Some(Snooping {
        table_size: rng.pick(&[2048, 10]),
        flood_unregistered: rng.chance(70),
        ..Snooping::default()
    });
    for row in &mut settings.rows {
        row.mcast_flood = rng.chance(15);
        row.mcast_flood_reports = rng.chance(15);
        // To ports that are flagged OVS sends in VLANs that they do not carry, too.
        if row.mcast_flood || row.mcast_flood_reports || rng.chance(60) {
            (row.vlan_mode, row.tag) = (None, None);
            row.trunks.clear();
        }
    }
}

#[test]
fn snooping() {
    compare(FRAMES, settings, frame);
}
