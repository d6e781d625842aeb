//! Checksums: the Internet's (RFC 1071), with updates in place (RFC 1624), and SCTP's CRC32c
//! (RFC 9260, appendix A).

/// CRC32c's polynomial, bits reflected.
const CRC32C_POLY: u32 = 0x82f6_3b78;

/// The Internet checksum of `bytes`, on top of `start` (what [`partial`] gave for other, even-sized
/// parts). To be stored as it is.
pub fn internet(start: u64, bytes: &[u8]) -> u16 {
    fold(partial(start, bytes)) ^ 0xffff
}

/// Adds the 16-bit words of `bytes` to a sum; a last odd byte counts as the first of a word.
pub fn partial(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words.iter().fold(start, |sum, &w| sum + u64::from(u16::from_be_bytes(w)));
    rest.first().map_or(sum, |&b| sum + (u64::from(b) << 8))
}

/// A sum of words as one.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum `sum` after `old` was replaced by `new` in what it covers (RFC 1624, equation 3).
/// Both have the same, even size and begin at an even distance from where the sum begins.
#[inline]
pub fn update(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let (words, _) = old.as_chunks::<2>();
    let kept = u64::from(sum ^ 0xffff);
    let without =
        words.iter().fold(kept, |sum, &w| sum + u64::from(u16::from_be_bytes(w) ^ 0xffff));
    internet(without, new)
}

/// What a CRC32c changes by (to be xored to it) when `difference` is xored to the data that it
/// covers, `after` bytes before the end of the data. The other data needs not be known.
pub fn crc32c_change(difference: &[u8], after: usize) -> u32 {
    let mut power = 1 << (31 - 8); // x^8
    let mut crc = crc32c_feed(0, difference);
    let mut left = after;
    while left > 0 {
        if left & 1 == 1 {
            crc = times(crc, power);
        }
        power = times(power, power);
        left >>= 1;
    }
    crc
}

/// The CRC32c of `bytes`. SCTP stores it with the least significant byte first.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !crc32c_feed(!0, bytes)
}

fn crc32c_feed(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &b| (0..8).fold(crc ^ u32::from(b), |crc, _| times_x(crc)))
}

/// A polynomial times x, modulo CRC32c's.
fn times_x(a: u32) -> u32 {
    a >> 1 ^ if a & 1 == 1 { CRC32C_POLY } else { 0 }
}

/// The product of two polynomials, modulo CRC32c's.
fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = times_x(b);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet(0, &bytes), !0xddf2);
        assert_eq!(internet(0, &[0x12]), !0x1200);
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn updates_agree_with_sums_from_scratch() {
        let mut state = 7u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        for round in 0..2000usize {
            let mut data: Vec<u8> = (0..20 + round % 64).map(|_| byte()).collect();
            let (sum, crc) = (internet(0, &data), crc32c(&data));
            let old: [u8; 4] = data[8..12].try_into().expect("4 bytes");
            let new: [u8; 4] = std::array::from_fn(|_| byte());
            data[8..12].copy_from_slice(&new);
            assert_eq!(update(sum, &old, &new), internet(0, &data));
            let difference: [u8; 4] = std::array::from_fn(|i| old[i] ^ new[i]);
            assert_eq!(crc ^ crc32c_change(&difference, data.len() - 12), crc32c(&data));
        }
    }
}
