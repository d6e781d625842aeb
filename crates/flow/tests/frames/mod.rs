//! Frames of every protocol that the extraction knows, whole, cut short and corrupted, from a seed.

#![allow(dead_code, reason = "each test uses a part")]

/// A small generator of numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize) % n
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A well-formed frame, up to its checksums.
pub fn frame(r: &mut Random) -> Vec<u8> {
    let mut out = r.bytes::<12>().to_vec();
    for _ in 0..r.pick(&[0, 0, 0, 1, 1, 2, 3]) {
        out.extend(r.pick(&[[0x81, 0x00], [0x88, 0xa8]]));
        out.extend(r.bytes::<2>());
    }
    let (dl_type, payload): (u16, Vec<u8>) = match r.below(16) {
        0..5 => (0x0800, ipv4(r)),
        5..11 => (0x86dd, ipv6(r)),
        11 => (r.pick(&[0x0806, 0x8035]), arp(r)),
        12 | 13 => (r.pick(&[0x8847, 0x8848]), mpls(r)),
        14 => (r.pick(&[0x88cc, 0x0600, 0x9000]), r.bytes::<50>().to_vec()),
        _ => (r.below(0x600) as u16, r.bytes::<60>().to_vec()),
    };
    if r.chance(20) {
        // In an IEEE 802.3 frame with a SNAP header.
        out.extend((payload.len() as u16 + 8).min(1500).to_be_bytes());
        out.extend([0xaa, 0xaa, 3, 0, 0, 0]);
    }
    out.extend(dl_type.to_be_bytes());
    out.extend(payload);
    if r.chance(4) {
        let padding = r.pick(&[1, 6, 46, 300]);
        out.extend((0..padding).map(|_| r.next() as u8));
    }
    out
}

/// A frame that is well-formed, cut short or changed in a few bytes.
pub fn any_frame(r: &mut Random) -> Vec<u8> {
    let mut f = frame(r);
    if r.chance(3) {
        let at = 1 + r.below(f.len());
        f.truncate(at);
    }
    if r.chance(3) && !f.is_empty() {
        for _ in 0..=r.below(3) {
            let at = r.below(f.len().min(90));
            f[at] = if r.chance(2) { r.next() as u8 } else { f[at] ^ 1 << r.below(8) };
        }
    }
    f
}

fn ipv4(r: &mut Random) -> Vec<u8> {
    let options = r.pick(&[0, 0, 0, 4, 40]);
    let proto = r.pick(&[1, 2, 6, 6, 17, 17, 132, 58, 47]);
    let body = transport(r, proto);
    let mut out = vec![0x45 + (options / 4) as u8, r.next() as u8];
    out.extend((20 + options as u16 + body.len() as u16).to_be_bytes());
    out.extend(r.bytes::<2>());
    let fragment: [u16; 6] = [0, 0, 0x4000, 0x2000, 0x2001, 0x00b9];
    out.extend(r.pick(&fragment).to_be_bytes());
    out.extend([r.next() as u8, proto, 0, 0]);
    out.extend(r.bytes::<8>());
    out.extend(r.bytes::<40>().iter().take(options));
    out.extend(body);
    out
}

fn ipv6(r: &mut Random) -> Vec<u8> {
    let proto = r.pick(&[6, 17, 132, 58, 58, 58, 1, 59, 135]);
    let mut kinds = Vec::new();
    for _ in 0..r.pick(&[0, 0, 0, 1, 1, 2, 4]) {
        kinds.push(r.pick(&[0u8, 43, 60, 51, 44]));
    }
    let mut rest = Vec::new();
    for (k, &kind) in kinds.iter().enumerate() {
        let next = *kinds.get(k + 1).unwrap_or(&proto);
        let units = r.below(3);
        let size = match kind {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        let mut header = vec![next, units as u8];
        header.extend((2..size).map(|_| r.next() as u8));
        if kind == 44 {
            let offset: [u16; 5] = [0, 0, 1, 8, 0x1001];
            header[2..4].copy_from_slice(&r.pick(&offset).to_be_bytes());
        } else if kind == 43 {
            header[3] = r.pick(&[0, 0, 1, 3]);
        }
        rest.extend(header);
    }
    rest.extend(transport(r, proto));
    let mut out = vec![0x60 | r.below(16) as u8];
    out.extend(r.bytes::<3>());
    out.extend((rest.len() as u16).to_be_bytes());
    out.extend([*kinds.first().unwrap_or(&proto), r.next() as u8]);
    out.extend(r.bytes::<32>());
    out.extend(rest);
    out
}

fn transport(r: &mut Random, proto: u8) -> Vec<u8> {
    let size = r.pick(&[0, 1, 8, 33, 64]);
    let payload: Vec<u8> = (0..size).map(|_| r.next() as u8).collect();
    let mut out = r.bytes::<4>().to_vec();
    match proto {
        6 => {
            out.extend(r.bytes::<8>());
            out.extend([0x50 | r.below(16) as u8, r.next() as u8]);
            out.extend(r.bytes::<6>());
            if r.chance(4) {
                out[12] += 0x20;
                out.extend(r.bytes::<8>());
            }
        }
        17 => {
            out.extend((8 + size as u16).to_be_bytes());
            out.extend(if r.chance(4) { [0, 0] } else { r.bytes::<2>() });
        }
        132 => out.extend(r.bytes::<8>()),
        58 if r.chance(2) => return neighbour_discovery(r),
        _ => out.extend(r.bytes::<4>()),
    }
    out.extend(payload);
    out
}

fn neighbour_discovery(r: &mut Random) -> Vec<u8> {
    let mut out = vec![r.pick(&[135, 136]), r.pick(&[0, 0, 0, 0, 1])];
    out.extend(r.bytes::<6>());
    out.extend(r.bytes::<16>());
    for _ in 0..r.below(4) {
        let units = r.pick(&[1, 1, 1, 2, 0]);
        let mut option = vec![r.pick(&[1u8, 2, 1, 2, 5, 14]), units];
        option.extend((2..units.max(1) as usize * 8).map(|_| r.next() as u8));
        if r.chance(6) {
            option[2..].fill(0);
        }
        out.extend(option);
    }
    out
}

fn arp(r: &mut Random) -> Vec<u8> {
    let mut out = vec![0, 1, 8, 0, 6, 4, r.pick(&[0, 0, 0, 1]), r.pick(&[1, 2, 3, 77])];
    out.extend(r.bytes::<20>());
    out
}

fn mpls(r: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let depth = r.pick(&[1, 1, 2, 3, 4]);
    for at in 0..depth {
        let mut lse = r.bytes::<4>();
        lse[2] = lse[2] & 0xfe | u8::from(at + 1 == depth);
        out.extend(lse);
    }
    out.extend(ipv4(r));
    out
}
