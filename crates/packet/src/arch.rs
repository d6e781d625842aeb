//! Processor-specific instructions behind safe or plainly unsafe functions, each with a portable twin.
//!
//! x86-64 needs nothing beyond its baseline (SSE2) except CRC32 of SSE4.2. This workspace is built for
//! `x86-64-v2`, which has it (every server since 2009); built for less, it is looked for at run time.

/// Asks for the cache line at `p` to be brought close for reading. Any address is allowed.
#[inline(always)]
pub fn prefetch_read(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it does not fault whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(p.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache line at `p` to be brought close for writing. Any address is allowed.
#[inline(always)]
pub fn prefetch_write(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it does not fault whatever the address.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, preserves_flags, readonly))
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// The time-stamp counter (x86-64), or nanoseconds of the monotonic clock elsewhere.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC has no precondition on x86-64.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::{sync::OnceLock, time::Instant};
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Copies `len` bytes, written for the 26 to 320 bytes of a small frame: 16-byte moves with an
/// overlapping tail, no call and no branch on the length's low bits.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes and they do not overlap. Either may be
/// written by another process meanwhile; the bytes copied are then any mixture.
#[inline(always)]
pub unsafe fn copy_small(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
        if (16..=320).contains(&len) {
            let mut at = 0;
            while at + 16 < len {
                // SAFETY: at + 16 < len, so both sides are within the caller's ranges.
                unsafe {
                    let v = _mm_loadu_si128(src.add(at).cast::<__m128i>());
                    _mm_storeu_si128(dst.add(at).cast::<__m128i>(), v);
                }
                at += 16;
            }
            // SAFETY: len >= 16, so the last 16 bytes lie within the caller's ranges.
            unsafe {
                let v = _mm_loadu_si128(src.add(len - 16).cast::<__m128i>());
                _mm_storeu_si128(dst.add(len - 16).cast::<__m128i>(), v);
            }
            return;
        }
    }
    // SAFETY: the caller's own promise.
    unsafe { core::ptr::copy_nonoverlapping(src, dst, len) };
}

/// Hashes six words (the part of a flow key that every packet has) and a seed to 32 bits.
#[inline(always)]
pub fn hash6(w: &[u64; 6], seed: u64) -> u32 {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse4.2"))]
    // SAFETY: this is built for processors with SSE4.2.
    return unsafe { hash6_crc(w, seed) };
    #[cfg(all(target_arch = "x86_64", not(target_feature = "sse4.2")))]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: SSE4.2 was just seen to be present.
        return unsafe { hash6_crc(w, seed) };
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse4.2")))]
    hash6_portable(w, seed)
}

/// Three independent CRC32C lanes, so that their latencies overlap, folded by a multiplication.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[inline]
fn hash6_crc(w: &[u64; 6], seed: u64) -> u32 {
    use core::arch::x86_64::_mm_crc32_u64 as crc;
    let a = crc(crc(seed & 0xffff_ffff, w[0]), w[3]);
    let b = crc(crc(seed >> 32, w[1]), w[4]);
    let c = crc(crc(!seed & 0xffff_ffff, w[2]), w[5]);
    fold(a | (b << 32), c)
}

/// The same use without CRC instructions; other values, equally good.
#[cfg_attr(all(target_arch = "x86_64", target_feature = "sse4.2"), cfg(test))]
fn hash6_portable(w: &[u64; 6], seed: u64) -> u32 {
    let mut h = seed ^ 0x9e37_79b9_7f4a_7c15;
    for &x in w {
        h = (h ^ x).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 32;
    }
    fold(h, seed)
}

/// Folds more words into a hash: for the long keys and for masked subtable keys.
#[inline(always)]
pub fn hash_more(hash: u32, words: &[u64]) -> u32 {
    let mut h = u64::from(hash);
    for &x in words {
        h = (h ^ x).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 32;
    }
    h as u32
}

/// Mixes two words into 32 bits, non-linearly: CRC alone lets an attacker solve for collisions.
#[inline(always)]
fn fold(a: u64, b: u64) -> u32 {
    let m = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    (m as u64 ^ (m >> 64) as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_small_copies_every_length() {
        let src: Vec<u8> = (0..400u32).map(|i| (i * 7 + 3) as u8).collect();
        for len in 0..=src.len() {
            let mut dst = vec![0u8; 400];
            // SAFETY: both vectors hold 400 bytes.
            unsafe { copy_small(src.as_ptr(), dst.as_mut_ptr(), len) };
            assert_eq!(dst[..len], src[..len], "length {len}");
            assert!(dst[len..].iter().all(|&b| b == 0), "wrote past length {len}");
        }
    }

    #[test]
    fn hashes_differ_in_every_word_and_seed() {
        let base = [1u64, 2, 3, 4, 5, 6];
        for hash in [hash6, hash6_portable] {
            let h = hash(&base, 42);
            assert_eq!(h, hash(&base, 42));
            assert_ne!(h, hash(&base, 43));
            for i in 0..6 {
                let mut k = base;
                k[i] ^= 1 << 40;
                assert_ne!(h, hash(&k, 42), "word {i} does not count");
            }
        }
    }

    #[test]
    fn hash_spreads_sequential_ports_over_buckets() {
        let mut buckets = vec![0u32; 1024];
        for port in 0..8192u64 {
            buckets[hash6(&[9, 9, 9, 9, 9, port << 16], 7) as usize & 1023] += 1;
        }
        assert!(*buckets.iter().max().expect("not empty") < 32, "8 expected in each bucket");
    }

    #[test]
    fn cycles_go_forward() {
        let a = cycles();
        assert!((0..1_000_000).any(|_| cycles() > a));
    }
}
