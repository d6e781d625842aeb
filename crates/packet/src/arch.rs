//! Processor-specific instructions behind safe or plainly unsafe functions, each with a portable twin.
//!
//! x86-64 needs nothing beyond its baseline (SSE2).

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

/// Copies `len` bytes, written for the headers of frames: up to 192 bytes it is a few wide moves, the
/// last of which overlap, with no loop and no call.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes and they do not overlap. Either may be
/// written by another process meanwhile; the bytes copied are then any mixture.
#[inline(always)]
pub unsafe fn copy_small(src: *const u8, dst: *mut u8, len: usize) {
    /// Copies `N` bytes, `at` bytes into both; plain moves, as `N` is known.
    ///
    /// # Safety
    /// `at + N` bytes are readable at `src` and writable at `dst`.
    #[inline(always)]
    unsafe fn part<const N: usize>(src: *const u8, dst: *mut u8, at: usize) {
        // SAFETY: the caller's own promise.
        unsafe { core::ptr::copy_nonoverlapping(src.add(at), dst.add(at), N) };
    }
    // SAFETY: in each case all parts end at `len` or before.
    unsafe {
        match len {
            64..=80 => {
                part::<64>(src, dst, 0);
                part::<16>(src, dst, len - 16);
            }
            81..=128 => {
                part::<64>(src, dst, 0);
                part::<64>(src, dst, len - 64);
            }
            129..=192 => {
                part::<128>(src, dst, 0);
                part::<64>(src, dst, len - 64);
            }
            32..=63 => {
                part::<32>(src, dst, 0);
                part::<32>(src, dst, len - 32);
            }
            16..=31 => {
                part::<16>(src, dst, 0);
                part::<16>(src, dst, len - 16);
            }
            _ => copy_other(src, dst, len),
        }
    }
}

/// Lengths that [`copy_small`] is not made for. Out of the way, as a call within a loop costs those who do not
/// make it registers.
///
/// # Safety
/// As of [`copy_small`].
#[cold]
#[inline(never)]
unsafe fn copy_other(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: by the caller.
    unsafe { core::ptr::copy_nonoverlapping(src, dst, len) };
}

/// Copies `len` bytes and adds them up as 16-bit words in native order, a last odd byte as the first of a
/// word; the result is not folded. Each byte is read once, so what was added up is what was written.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes and they do not overlap. Either may be
/// written by another process meanwhile.
#[inline]
pub unsafe fn copy_sum(src: *const u8, dst: *mut u8, len: usize) -> u64 {
    // SAFETY: as the caller says.
    unsafe { add_up::<true>(src, dst, len) }
}

/// Adds up `len` bytes as [`copy_sum`] does.
///
/// # Safety
/// `src` is readable for `len` bytes, which another process may write meanwhile.
#[inline]
pub unsafe fn sum(src: *const u8, len: usize) -> u64 {
    // SAFETY: nothing is written.
    unsafe { add_up::<false>(src, core::ptr::null_mut(), len) }
}

/// See [`copy_sum`]; copies only if `COPY`. Adds up halves of words of eight bytes, which can be done 2^32
/// times before a sum overflows.
///
/// # Safety
/// `src` is readable for `len` bytes and, if `COPY`, `dst` writable.
#[inline(always)]
unsafe fn add_up<const COPY: bool>(src: *const u8, dst: *mut u8, len: usize) -> u64 {
    let (mut low, mut high) = (0u64, 0u64);
    let whole = len & !7;
    for at in (0..whole).step_by(8) {
        // SAFETY: at + 8 <= len.
        let word = unsafe { src.add(at).cast::<u64>().read_unaligned() };
        if COPY {
            // SAFETY: as above.
            unsafe { dst.add(at).cast::<u64>().write_unaligned(word) };
        }
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let (mut last, n) = ([0u8; 8], len - whole);
    // SAFETY: n < 8 bytes, up to `len`.
    unsafe {
        core::ptr::copy_nonoverlapping(src.add(whole), last.as_mut_ptr(), n);
        if COPY {
            core::ptr::copy_nonoverlapping(last.as_ptr(), dst.add(whole), n);
        }
    }
    low + high + u64::from_ne_bytes(last)
}

/// Sixteen bytes each of what [`masked_equal`] compares; aligned, so that they need no load of their own.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(16))]
pub struct Quarter(pub [u8; 16]);

/// True if all `parts`, as far as `mask` says, are what `value` says, which has no other bits. Made for the
/// headers of frames: no loop, and one branch.
#[inline(always)]
pub fn masked_equal(parts: [&[u8; 16]; 4], mask: &[Quarter; 4], value: &[Quarter; 4]) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::*;
        // SAFETY: SSE2 is in the baseline; all loads are of 16 bytes, and quarters are aligned.
        unsafe {
            let differ = |i: usize| {
                let part = _mm_loadu_si128(parts[i].as_ptr().cast());
                let mask = _mm_load_si128(mask[i].0.as_ptr().cast());
                let value = _mm_load_si128(value[i].0.as_ptr().cast());
                _mm_xor_si128(_mm_and_si128(part, mask), value)
            };
            let some = _mm_or_si128(
                _mm_or_si128(differ(0), differ(1)),
                _mm_or_si128(differ(2), differ(3)),
            );
            _mm_movemask_epi8(_mm_cmpeq_epi8(some, _mm_setzero_si128())) == 0xffff
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    masked_equal_portable(parts, mask, value)
}

/// The twin of [`masked_equal`].
#[cfg(any(test, not(target_arch = "x86_64")))]
fn masked_equal_portable(parts: [&[u8; 16]; 4], mask: &[Quarter; 4], value: &[Quarter; 4]) -> bool {
    let differ = |i: usize| {
        let [part, mask, value] = [*parts[i], mask[i].0, value[i].0].map(u128::from_ne_bytes);
        part & mask ^ value
    };
    differ(0) | differ(1) | differ(2) | differ(3) == 0
}

/// Secret words that make hashes unpredictable. CRC32 would cost the same, but it is linear: whoever
/// knows that finds keys that collide whatever the seed is.
#[derive(Debug, Clone, Copy)]
pub struct HashKey([u64; 6]);

impl HashKey {
    /// A key from a random seed (splitmix64).
    pub fn new(mut seed: u64) -> HashKey {
        HashKey(std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }))
    }
}

/// Hashes six words (the part of a flow key that every packet has) to 32 bits: three independent
/// multiplications, so that their latencies overlap.
#[inline(always)]
pub fn hash6(w: &[u64; 6], key: &HashKey) -> u32 {
    let k = &key.0;
    let h = mix(w[0] ^ k[0], w[3] ^ k[3])
        ^ mix(w[1] ^ k[1], w[4] ^ k[4])
        ^ mix(w[2] ^ k[2], w[5] ^ k[5]);
    (h ^ h >> 32) as u32
}

/// Folds more words into a hash: for the long keys and for masked subtable keys.
#[inline(always)]
pub fn hash_more(hash: u32, words: &[u64], key: &HashKey) -> u32 {
    let mut h = u64::from(hash);
    for (i, &x) in words.iter().enumerate() {
        h = mix(x ^ key.0[i % 6], h ^ key.0[(i + 1) % 6]);
    }
    (h ^ h >> 32) as u32
}

/// The 128-bit product of two words, folded: depends on all bits of both, and not linearly.
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let m = u128::from(a) * u128::from(b);
    m as u64 ^ (m >> 64) as u64
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
    fn sums_of_every_length_and_place_are_those_of_the_checksum() {
        let src: Vec<u8> = (0..300u32).map(|i| (i * i + 251) as u8).collect();
        let folded = |mut sum: u64| {
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            u16::from_ne_bytes((sum as u16).to_be_bytes())
        };
        for (from, len) in (0..9).flat_map(|from| (0..280).map(move |len| (from, len))) {
            let mut dst = vec![0u8; 300];
            // SAFETY: both vectors hold 300 bytes.
            let (copied, only) = unsafe {
                (
                    copy_sum(src.as_ptr().add(from), dst.as_mut_ptr(), len),
                    sum(src.as_ptr().add(from), len),
                )
            };
            let part = &src[from..from + len];
            assert_eq!((&dst[..len], copied), (part, only));
            assert!(dst[len..].iter().all(|&b| b == 0), "wrote past length {len}");
            let right = crate::checksum::internet(0, part) ^ 0xffff;
            assert_eq!(folded(only), right, "{from} {len}");
        }
    }

    #[test]
    fn masked_comparisons_see_every_bit_that_the_mask_has() {
        let part: [[u8; 16]; 4] =
            std::array::from_fn(|i| std::array::from_fn(|j| (i * 16 + j * 37) as u8));
        let mask = part.map(|p| Quarter(p.map(|b| b ^ b.rotate_left(3) ^ 0x5a)));
        let value =
            std::array::from_fn(|i| Quarter(std::array::from_fn(|j| part[i][j] & mask[i].0[j])));
        for bit in 0..=512 {
            let mut other = part;
            let (i, j, b) =
                (bit / 128 % 4, bit / 8 % 16, if bit < 512 { 1 << (bit % 8) } else { 0 });
            other[i][j] ^= b;
            let parts = other.each_ref();
            let right = mask[i].0[j] & b == 0;
            assert_eq!(masked_equal(parts, &mask, &value), right, "bit {bit}");
            assert_eq!(masked_equal_portable(parts, &mask, &value), right, "bit {bit}");
        }
    }

    #[test]
    fn hashes_differ_in_every_word_and_key() {
        let key = HashKey::new(42);
        let base = [1u64, 2, 3, 4, 5, 6];
        let h = hash6(&base, &key);
        assert_eq!(h, hash6(&base, &HashKey::new(42)));
        assert_ne!(h, hash6(&base, &HashKey::new(43)));
        for i in 0..6 {
            let mut k = base;
            k[i] ^= 1 << 40;
            assert_ne!(h, hash6(&k, &key), "word {i} does not count");
            assert_ne!(hash_more(h, &base, &key), hash_more(h, &k, &key), "word {i} of more");
        }
    }

    #[test]
    fn hash_spreads_sequential_ports_over_buckets() {
        let key = HashKey::new(7);
        let mut buckets = vec![0u32; 1024];
        for port in 0..8192u64 {
            buckets[hash6(&[9, 9, 9, 9, 9, port << 16], &key) as usize & 1023] += 1;
        }
        assert!(*buckets.iter().max().expect("not empty") < 32, "8 expected in each bucket");
    }

    /// Addresses that collide under any CRC32 of this word, and differences that survive simple
    /// multiplicative hashes, do not collide here.
    #[test]
    fn known_collisions_of_linear_hashes_do_not_collide() {
        let word = |dst: [u8; 6]| {
            u64::from_le_bytes([dst[0], dst[1], dst[2], dst[3], dst[4], dst[5], 2, 0])
        };
        let macs = [
            [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0x01],
            [0xe0, 0x47, 0x63, 0xc7, 0xdf, 0x01],
            [0xc6, 0x71, 0x0a, 0xdb, 0xd9, 0x01],
        ];
        for seed in 0..100 {
            let key = HashKey::new(seed);
            let mut hashes = macs.map(|m| hash6(&[word(m), 1, 2, 0, 0, 0], &key));
            hashes.sort_unstable();
            assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2], "seed {seed}");
            let more = |w: [u64; 2]| hash_more(5, &w, &key);
            assert_ne!(more([1, 2]), more([1 ^ 1 << 63, 2 ^ 1 << 63 ^ 1 << 31]), "seed {seed}");
        }
    }

    #[test]
    fn cycles_go_forward() {
        let a = cycles();
        assert!((0..1_000_000).any(|_| cycles() > a));
    }
}
