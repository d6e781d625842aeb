//! Checksums that a sender left to be done and nobody did.
//!
//! The other end of a veth pair gives frames whose TCP or UDP checksum covers the pseudo-header only: Linux completes
//! them when they leave a host, and these have not left it. XDP sees the bytes and not what was to be done with them. But
//! such a checksum is exactly the pseudo-header's sum, uncomplemented, and so it can be told.
//!
//! That harms no other packet. One in 65,536 whole checksums is the same number by chance; completing it gives the same
//! number again, because the sum of everything else is then that number's complement. What is lost is that a packet that
//! was corrupted on its way, and then has that number by chance, is not found out: as seldom as any checksum misses one.

use packet::{Offload, checksum};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is left to do for a frame of `len` bytes that begins with `head`, if its checksum is its pseudo-header's sum.
pub(crate) fn left_to_do(head: &[u8], len: usize) -> Option<Offload> {
    let half = |at: usize| Some(u16::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let mut at = 12;
    // Two tags at most, as everywhere.
    for _ in 0..2 {
        if matches!(half(at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    let ip = at + 2;
    let (protocol, addresses, start, end) = match half(at)? {
        // Fragments have a checksum together.
        0x0800 if half(ip + 6)? & 0x3fff == 0 => {
            let words = usize::from(head.get(ip)? & 0xf).max(5);
            let end = ip + usize::from(half(ip + 2)?);
            (*head.get(ip + 9)?, ip + 12..ip + 20, ip + words * 4, end)
        }
        0x86dd => {
            let end = ip + 40 + usize::from(half(ip + 4)?);
            (*head.get(ip + 6)?, ip + 8..ip + 40, ip + 40, end)
        }
        _ => return None,
    };
    let (csum_offset, least) = match protocol {
        TCP => (16, 20),
        UDP => (6, 8),
        _ => return None,
    };
    // The checksum is completed over all that follows, so that must be the segment.
    if end != len || start + least > end {
        return None;
    }
    let transport = (end - start) as u64 + u64::from(protocol);
    let sum = checksum::internet(transport, head.get(addresses)?) ^ 0xffff;
    let flags = Offload::NEEDS_CSUM;
    let offload = Offload { flags, csum_start: start as u16, csum_offset, ..Offload::default() };
    (half(start + usize::from(csum_offset))? == sum).then_some(offload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of TCP or UDP whose checksum is the pseudo-header's sum, and where that is.
    fn partial(tags: usize, v6: bool, protocol: u8, payload: usize) -> (Vec<u8>, usize) {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        f.extend([0x81, 0, 0, 7].repeat(tags));
        let transport = if protocol == TCP { 20 } else { 8 } + payload;
        let [high, low] = (transport as u16 + if v6 { 0 } else { 20 }).to_be_bytes();
        let addresses = f.len() + if v6 { 10 } else { 14 };
        if v6 {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
            f.extend((0..32).map(|i| 0xf0 + i / 3));
        } else {
            f.extend([8, 0, 0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0]);
            f.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let start = f.len();
        let sum = checksum::internet(transport as u64 + u64::from(protocol), &f[addresses..start]);
        f.extend((0..transport).map(|i| (i * 7) as u8));
        let at = start + if protocol == TCP { 16 } else { 6 };
        f[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
        (f, at)
    }

    #[test]
    fn a_checksum_of_the_pseudo_header_is_told_and_no_other() {
        for (tags, v6, protocol) in
            [(0, false, TCP), (1, false, UDP), (2, true, TCP), (0, true, UDP), (2, false, TCP)]
        {
            for payload in [0, 1, 1000] {
                let (mut f, at) = partial(tags, v6, protocol, payload);
                let o = left_to_do(&f, f.len()).expect("told");
                assert_eq!(o.partial_at(), Some(at));
                assert!(o.needs_csum() && !o.is_super());
                assert!(left_to_do(&f, f.len() + 1).is_none(), "something behind the segment");
                f[at] ^= 1;
                assert!(left_to_do(&f, f.len()).is_none(), "another checksum");
            }
        }
    }

    #[test]
    fn fragments_other_protocols_and_pieces_of_headers_are_left_alone() {
        let (f, _) = partial(0, false, TCP, 100);
        for len in 0..f.len() {
            assert!(left_to_do(&f[..len], len).is_none(), "{len}");
        }
        // More fragments follow, a later one, ICMP, no IP.
        for (at, value) in [(20, 0x20), (21, 1), (23, 1), (12, 9)] {
            let mut other = f.clone();
            other[at] = value;
            assert!(left_to_do(&other, other.len()).is_none(), "{at}");
        }
    }

    /// A whole checksum that is the pseudo-header's sum by chance is the same once completed.
    #[test]
    fn what_was_whole_stays_what_it_was() {
        let (mut f, at) = partial(0, false, TCP, 2);
        let start = 34;
        // The payload is made so that the whole checksum is that number.
        let sum = u16::from_be_bytes([f[at], f[at + 1]]);
        let end = f.len();
        f[end - 2..].fill(0);
        f[at..at + 2].fill(0);
        let rest = checksum::internet(u64::from(sum), &f[start..]);
        let wanted = checksum::internet(u64::from(!rest) + u64::from(sum), &[]);
        f[end - 2..].copy_from_slice(&wanted.to_be_bytes());
        let whole = checksum::internet(u64::from(sum), &f[start..]);
        assert_eq!(whole, sum, "by chance");
        f[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut completed = f.clone();
        left_to_do(&f, f.len()).expect("told").complete(&mut completed);
        assert_eq!(completed, f);
    }
}
