//! Packets of every kind, right and wrong.

use crate::rng::Rng;
use crate::vocabulary::*;

/// Longest ordinary payload.
const PAYLOAD: usize = 60;
/// Payload of one packet in fifty, and of one in two hundred.
const LARGE: [usize; 2] = [1400, 8000];

/// A frame of a kind, 14 bytes or more.
pub fn frame(rng: &mut Rng, shape: &Shape) -> Vec<u8> {
    let mut f = Vec::with_capacity(128);
    f.extend(rng.familiar(&MACS));
    f.extend(rng.familiar(&MACS));
    for tag in 0..shape.tags {
        let outer_of_two = shape.tags == 2 && tag == 0;
        let tpid: u16 = match rng.chance(if outer_of_two { 60 } else { 10 }) {
            true => 0x88a8,
            false => 0x8100,
        };
        f.extend(tpid.to_be_bytes());
        f.extend(tci(rng).to_be_bytes());
    }
    l3(rng, shape, &mut f);
    if rng.chance(40) && f.len() < 60 {
        f.resize(60, 0);
    } else if rng.chance(10) {
        f.extend(random_bytes(rng, 10));
    }
    if rng.chance(15) {
        spoil(rng, &mut f, 14 + 4 * usize::from(shape.tags));
    }
    f
}

fn tci(rng: &mut Rng) -> u16 {
    let priority = rng.pick(&[0u16, 0, 3, 7]) << 13;
    let dei = u16::from(rng.chance(5)) << 12;
    priority | dei | rng.familiar(&VIDS)
}

/// EtherType and all behind it.
fn l3(rng: &mut Rng, shape: &Shape, f: &mut Vec<u8>) {
    match shape.l3 {
        L3::Other => {
            f.extend(rng.familiar(&ETHER_TYPES).to_be_bytes());
            f.extend(payload(rng));
        }
        L3::Llc => {
            let body = [vec![0x42, 0x42, 3], random_bytes(rng, 40)].concat();
            f.extend((body.len() as u16).to_be_bytes());
            f.extend(body);
        }
        L3::Snap => {
            let mut body = vec![0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
            if rng.chance(10) {
                body[3 + rng.below(3)] = 1;
            }
            body.extend(ipv4(rng, shape));
            f.extend((body.len() as u16).to_be_bytes());
            f.extend(body);
        }
        L3::Ipv4 => {
            f.extend([8, 0]);
            f.extend(ipv4(rng, shape));
        }
        L3::Ipv6 => {
            f.extend([0x86, 0xdd]);
            f.extend(ipv6(rng, shape));
        }
        L3::Arp | L3::Rarp => {
            f.extend(if shape.l3 == L3::Arp { [8, 6] } else { [0x80, 0x35] });
            f.extend(arp(rng));
        }
        L3::Mpls(labels) => {
            f.extend(if rng.chance(80) { [0x88, 0x47] } else { [0x88, 0x48] });
            mpls(rng, shape, labels, f);
        }
    }
}

fn mpls(rng: &mut Rng, shape: &Shape, labels: u8, f: &mut Vec<u8>) {
    for n in 1..=labels {
        let bottom = (n == labels) ^ rng.chance(3);
        let (label, tc) = (rng.familiar(&LABELS), rng.below(8) as u32);
        let lse = label << 12 | tc << 9 | u32::from(bottom) << 8 | u32::from(rng.familiar(&TTLS));
        f.extend(lse.to_be_bytes());
    }
    match rng.chance(80) {
        true => f.extend(ipv4(rng, shape)),
        false => f.extend(payload(rng)),
    }
}

fn arp(rng: &mut Rng) -> Vec<u8> {
    let mut b = vec![0, 1, 8, 0, 6, 4];
    if rng.chance(5) {
        b[rng.below(6)] ^= 1;
    }
    b.extend(rng.pick(&[1u16, 1, 2, 2, 3, 4, 254, 256, 0]).to_be_bytes());
    b.extend(rng.familiar(&MACS));
    b.extend(rng.familiar(&IPV4).to_be_bytes());
    b.extend(rng.familiar(&MACS));
    b.extend(rng.familiar(&IPV4).to_be_bytes());
    b
}

fn ipv4(rng: &mut Rng, shape: &Shape) -> Vec<u8> {
    let (src, dst) = (rng.familiar(&IPV4), rng.familiar(&IPV4));
    let sum = sum(&src.to_be_bytes()) + sum(&dst.to_be_bytes());
    let (proto, body) = l4(rng, shape, Some(sum));
    let body = if shape.frag == Frag::Later { random_bytes(rng, PAYLOAD) } else { body };
    let options = if rng.chance(10) { 4 * rng.range(1, 10) } else { 0 };
    let total = 20 + options + body.len();
    let mut b = vec![0x45 + (options / 4) as u8, rng.familiar(&TOS)];
    b.extend((total as u16).to_be_bytes());
    b.extend((rng.bits() as u16).to_be_bytes());
    b.extend(fragment_bits(rng, shape.frag).to_be_bytes());
    b.extend([rng.familiar(&TTLS), proto, 0, 0]);
    b.extend(src.to_be_bytes());
    b.extend(dst.to_be_bytes());
    b.extend((0..options).map(|_| if rng.chance(70) { 1 } else { rng.bits() as u8 }));
    let check = match rng.chance(95) {
        true => !fold(self::sum(&b)),
        false => rng.bits() as u16,
    };
    b[10..12].copy_from_slice(&check.to_be_bytes());
    b.extend(body);
    b
}

fn fragment_bits(rng: &mut Rng, frag: Frag) -> u16 {
    match frag {
        Frag::Whole => rng.pick(&[0, 0x4000]),
        Frag::First => 0x2000,
        Frag::Later => rng.pick(&[0x2000, 0]) | rng.pick(&[1, 100, 0x1fff]),
    }
}

fn ipv6(rng: &mut Rng, shape: &Shape) -> Vec<u8> {
    let (src, dst) = (rng.familiar(&IPV6), rng.familiar(&IPV6));
    let sum = sum(&src.to_be_bytes()) + sum(&dst.to_be_bytes());
    let (proto, body) = l4(rng, shape, Some(sum));
    let mut kinds: Vec<u8> = Vec::new();
    while rng.chance(15) && kinds.len() < 4 {
        kinds.push(rng.pick(&[0, 43, 60, 51, 135]));
    }
    if shape.frag != Frag::Whole {
        kinds.insert(rng.below(kinds.len() + 1), 44);
    }
    let body = if shape.frag == Frag::Later { random_bytes(rng, PAYLOAD) } else { body };
    let mut extensions = Vec::new();
    for (i, kind) in kinds.iter().enumerate() {
        let next = kinds.get(i + 1).copied().unwrap_or(proto);
        extensions.extend(extension(rng, *kind, next, shape.frag));
    }
    let version = 6 << 28 | u32::from(rng.familiar(&TOS)) << 20 | rng.familiar(&FLOW_LABELS);
    let mut b = version.to_be_bytes().to_vec();
    b.extend(((extensions.len() + body.len()) as u16).to_be_bytes());
    b.extend([kinds.first().copied().unwrap_or(proto), rng.familiar(&TTLS)]);
    b.extend(src.to_be_bytes());
    b.extend(dst.to_be_bytes());
    b.extend(extensions);
    b.extend(body);
    b
}

fn extension(rng: &mut Rng, kind: u8, next: u8, frag: Frag) -> Vec<u8> {
    match kind {
        44 => {
            let bits = match frag {
                Frag::Whole => 0u16,
                Frag::First => 1,
                Frag::Later => rng.pick(&[8, 9, 0xfff8]),
            };
            let [high, low] = bits.to_be_bytes();
            vec![next, 0, high, low, 0, 0, 0, 7]
        }
        51 => {
            // Its length is in words of 4 bytes, less 2.
            let words = rng.range(3, 6);
            let mut b = vec![0; 4 * words];
            (b[0], b[1]) = (next, (words - 2) as u8);
            b
        }
        _ => {
            let extra = rng.below(3);
            let mut b = vec![0; 8 + 8 * extra];
            (b[0], b[1]) = (next, extra as u8);
            // Padding of all that is left (RFC 8200, 4.2), or no segments left (4.4).
            (b[2], b[3]) = (1, (b.len() - 4) as u8);
            b
        }
    }
}

/// IP protocol number and what it says. `pseudo` is the sum of the addresses.
fn l4(rng: &mut Rng, shape: &Shape, pseudo: Option<u32>) -> (u8, Vec<u8>) {
    let is_v6 = shape.l3 == L3::Ipv6;
    let (proto, mut b, check_at) = match shape.l4 {
        L4::Tcp => (6, tcp(rng), Some(16)),
        L4::Udp => (17, udp(rng), Some(6)),
        L4::Sctp => (132, sctp(rng), None),
        L4::Icmp if is_v6 => (58, icmp(rng, &[128, 129, 1, 133, 134, 137]), Some(2)),
        L4::Icmp => (1, icmp(rng, &[8, 0, 3, 5, 11]), Some(2)),
        L4::Nd(kind) => (58, neighbour(rng, kind), Some(2)),
        L4::Igmp => (2, igmp(rng), None),
        L4::Other => (rng.pick(&[47, 50, 4, 59, 255]), payload(rng), None),
    };
    if let (Some(at), Some(pseudo)) = (check_at, pseudo)
        && rng.chance(90)
    {
        let with_pseudo = if proto == 1 { 0 } else { pseudo + u32::from(proto) + b.len() as u32 };
        let check = !fold(with_pseudo + sum(&b));
        // RFC 768: zero says that there is none, so a sum of zero is sent as ones.
        let check = if proto == 17 && check == 0 { 0xffff } else { check };
        b[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }
    (proto, b)
}

fn tcp(rng: &mut Rng) -> Vec<u8> {
    let mut b = rng.familiar(&TP_PORTS).to_be_bytes().to_vec();
    b.extend(rng.familiar(&TP_PORTS).to_be_bytes());
    b.extend(rng.bits().to_be_bytes());
    let options = if rng.chance(20) { 4 * rng.range(1, 10) } else { 0 };
    let length = if rng.chance(95) { 5 + options / 4 } else { rng.below(16) };
    b.extend((((length as u16) << 12) | rng.familiar(&TCP_FLAGS)).to_be_bytes());
    b.extend([0x10, 0, 0, 0, 0, 0]);
    b.extend(vec![1; options]);
    b.extend(payload(rng));
    b
}

fn udp(rng: &mut Rng) -> Vec<u8> {
    let mut b = rng.familiar(&TP_PORTS).to_be_bytes().to_vec();
    b.extend(rng.familiar(&TP_PORTS).to_be_bytes());
    let data = payload(rng);
    let length = if rng.chance(95) { 8 + data.len() as u16 } else { rng.bits() as u16 };
    b.extend(length.to_be_bytes());
    b.extend([0, 0]);
    b.extend(data);
    b
}

fn sctp(rng: &mut Rng) -> Vec<u8> {
    let mut b = rng.familiar(&TP_PORTS).to_be_bytes().to_vec();
    b.extend(rng.familiar(&TP_PORTS).to_be_bytes());
    b.extend((rng.bits() as u32).to_be_bytes());
    b.extend([0; 4]);
    b.extend(payload(rng));
    let check = if rng.chance(90) { crc32c(&b) } else { rng.bits() as u32 };
    b[8..12].copy_from_slice(&check.to_le_bytes());
    b
}

/// CRC32c, which SCTP has for a checksum (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
    !bytes.iter().fold(u32::MAX, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
}

fn icmp(rng: &mut Rng, types: &[u8]) -> Vec<u8> {
    let mut b = vec![rng.pick(types), rng.pick(&[0, 0, 1, 3]), 0, 0, 0, 1, 0, 2];
    b.extend(payload(rng));
    b
}

fn igmp(rng: &mut Rng) -> Vec<u8> {
    let mut b = vec![rng.pick(&[0x11, 0x16, 0x17, 0x22]), 0, 0, 0];
    b.extend(rng.familiar(&IPV4).to_be_bytes());
    let check = !fold(sum(&b));
    b[2..4].copy_from_slice(&check.to_be_bytes());
    b
}

/// Neighbour solicitation or advertisement with link-layer options (RFC 4861, 4.3 to 4.6).
fn neighbour(rng: &mut Rng, kind: u8) -> Vec<u8> {
    let mut b = vec![kind, u8::from(rng.chance(5)), 0, 0];
    b.extend(rng.pick(&[0u32, 0, 0xe000_0000]).to_be_bytes());
    b.extend(rng.familiar(&IPV6).to_be_bytes());
    for _ in 0..rng.weighted(&[(20, 0), (65, 1), (15, 2)]) {
        let usual = if kind == 135 { 1 } else { 2 };
        let kind = rng.weighted(&[(80, usual), (15, 3 - usual), (5, 5)]);
        let units = rng.weighted(&[(92, 1u8), (4, 0), (4, 2)]);
        b.extend([kind, units]);
        b.extend(rng.familiar(&MACS));
        b.extend(vec![0; 8 * usize::from(units.saturating_sub(1))]);
    }
    b
}

fn payload(rng: &mut Rng) -> Vec<u8> {
    let large = match rng.below(200) {
        0 => Some(LARGE[1]),
        1..5 => Some(LARGE[0]),
        _ => None,
    };
    match large {
        Some(n) => vec![0x5a; n],
        None => random_bytes(rng, PAYLOAD),
    }
}

/// Up to `most` random bytes.
fn random_bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    (0..rng.below(most + 1)).map(|_| rng.bits() as u8).collect()
}

/// Cuts the frame anywhere, or changes a byte or a bit behind the first `head` ones.
fn spoil(rng: &mut Rng, f: &mut Vec<u8>, head: usize) {
    let near = f.len().min(head + 80);
    match rng.below(4) {
        // Near a header, or anywhere behind the addresses.
        0 | 1 => f.truncate(rng.range(14, near.max(14))),
        2 if head < near => f[rng.range(head, near - 1)] = rng.bits() as u8,
        _ => {
            let at = rng.range(12, near - 1);
            f[at] ^= 1 << rng.below(8);
        }
    }
    // Marks have a type of their own.
    for at in [12, 16, 20] {
        if f.get(at..at + 2) == Some(&crate::ovs::MARK_TYPE.to_be_bytes()) {
            f[at] = 0;
        }
    }
}

/// One's complement sum of 16-bit words, not folded.
fn sum(bytes: &[u8]) -> u32 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
