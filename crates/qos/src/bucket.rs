//! A token bucket in one word.

use packet::Set;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ticks of a nanosecond. So fine that a frame of 64 bytes at 100 Gbit/s costs over 100 ticks, and so
/// coarse that 64 bits are 18 years.
const TICKS: u64 = 32;
/// Binary digits behind the point of what one unit costs.
const SHIFT: u32 = 24;
/// The longest time in which a bucket fills, ticks: half a year, so that sums do not run over.
const DEPTH_MAX: u128 = 1 << 59;

/// How much may pass: bytes or packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Units a second, at least 1.
    pub rate: u64,
    /// Units that may pass at once after a pause, at least 1.
    pub burst: u64,
}

/// A token bucket of one rate, as RFC 2697 has it without the excess bucket.
///
/// Its state is the time at which it will be full again, which says as much as a level and the time of
/// the last look at it would in two words. So threads share it by compare-and-swap, once a burst.
///
/// What costs more than a full bucket holds passes when the bucket is full and leaves it in debt, so
/// that the rate is kept for frames of any size: a limit is never a standstill.
#[derive(Debug)]
pub struct Bucket {
    /// When it is full, ticks.
    full_at: AtomicU64,
    /// Ticks in which a unit flows in, times 2^[`SHIFT`].
    unit: u64,
    /// Ticks in which an empty bucket fills.
    depth: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(limit: Limit) -> Bucket {
        let second = u128::from(1_000_000_000 * TICKS) << SHIFT;
        // At most 2^59 for a rate of 1. Rounded up: rather too little than more than the limit.
        let unit = second.div_ceil(u128::from(limit.rate.max(1))) as u64;
        let depth = (u128::from(limit.burst) * u128::from(unit)) >> SHIFT;
        Bucket { full_at: AtomicU64::new(0), unit, depth: depth.clamp(1, DEPTH_MAX) as u64 }
    }

    /// As [`Bucket::pass`] for members of `set` that cost `total` together: while there is enough for all, as it mostly is,
    /// no single one is looked at.
    #[inline]
    pub fn pass_together(
        &self,
        now_ns: u64,
        set: Set,
        total: u64,
        units: impl FnMut(usize) -> u64,
    ) -> Set {
        let now = now_ns.saturating_mul(TICKS);
        let old = self.full_at.load(Relaxed);
        let full_at = old.max(now).saturating_add(self.cost(total));
        // Another thread's change sends this one the long way, which begins with a look of its own.
        if full_at - now <= self.depth
            && self.full_at.compare_exchange(old, full_at, Relaxed, Relaxed).is_ok()
        {
            return set;
        }
        self.pass(now_ns, set, units)
    }

    /// Takes what the members of `set` cost, in order, and returns those that there was enough for.
    /// `now_ns` are nanoseconds of a clock that never goes back by much; `units` tells what one costs.
    #[inline(never)]
    pub fn pass(&self, now_ns: u64, set: Set, mut units: impl FnMut(usize) -> u64) -> Set {
        let now = now_ns.saturating_mul(TICKS);
        let mut old = self.full_at.load(Relaxed);
        loop {
            let mut full_at = old.max(now);
            let passed = set.filter(|i| {
                let cost = self.cost(units(i));
                let enough = full_at == now || full_at - now + cost <= self.depth;
                full_at = full_at.saturating_add(if enough { cost } else { 0 });
                enough
            });
            if passed.is_empty() {
                return passed;
            }
            match self.full_at.compare_exchange_weak(old, full_at, Relaxed, Relaxed) {
                Ok(_) => return passed,
                Err(other) => old = other,
            }
        }
    }

    /// Ticks in which `units` flow in.
    #[inline(always)]
    fn cost(&self, units: u64) -> u64 {
        let ticks = (u128::from(units) * u128::from(self.unit)) >> SHIFT;
        ticks.min(DEPTH_MAX) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// xorshift64: the same numbers every time.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    const SECOND: u64 = 1_000_000_000;

    /// Offers frames at 1.5 to 3 times the rate, in bursts of 1 to 32, and checks every moment against
    /// the limit; returns bytes passed and nanoseconds gone.
    fn offer(limit: Limit, bytes: u64, seed: u64, together: bool) -> (u64, u64) {
        let bucket = Bucket::new(limit);
        let mut state = seed;
        let start = random(&mut state) % (1 << 50);
        let (mut now, mut passed) = (start, 0);
        for _ in 0..200_000 {
            let n = 1 + random(&mut state) % 32;
            let set = Set::range(0, n as usize);
            let set = match together {
                true => bucket.pass_together(now, set, n * bytes, |_| bytes),
                false => bucket.pass(now, set, |_| bytes),
            };
            passed += set.len() as u64 * bytes;
            let most = (u128::from(limit.rate) * u128::from(now - start)).div_ceil(SECOND.into());
            let debt = bytes.saturating_sub(limit.burst);
            // A tick of rounding for each frame.
            let most = most + u128::from(limit.burst + debt) + most / 1000;
            assert!(u128::from(passed) <= most, "{passed} of {most}: {limit:?}, {bytes}");
            let due = u128::from(n * bytes) * u128::from(SECOND) / u128::from(limit.rate);
            let percent = 33 + random(&mut state) % 33;
            now += (due * u128::from(percent) / 100) as u64;
        }
        (passed, now - start)
    }

    #[test]
    fn the_rate_is_kept_for_frames_of_any_size() {
        for mbit in [1, 10, 100, 1000, 10_000] {
            for (seed, bytes) in [(1, 50), (2, 1486), (3, 65_522)] {
                for burst in [2048, 65_536, 5_000_000] {
                    let limit = Limit { rate: mbit * 125_000, burst };
                    // A bucket that holds less than a burst of frames wastes what flows in meanwhile.
                    let wastes = burst < 64 * bytes;
                    let (passed, ns) = offer(limit, bytes, seed, true);
                    // Rounding apart, it is the same one by one.
                    let (alone, _) = offer(limit, bytes, seed, false);
                    assert!(alone.abs_diff(passed) < passed / 10_000 + 2 * bytes, "{limit:?}");
                    let later = passed.saturating_sub(burst);
                    let got = later as f64 / (ns as f64 / SECOND as f64);
                    let ratio = got / limit.rate as f64;
                    let least = if wastes { 0.0 } else { 0.98 };
                    assert!(
                        (least..1.02).contains(&ratio),
                        "{ratio} of {limit:?} for {bytes} bytes"
                    );
                }
            }
        }
    }

    #[test]
    fn frames_beyond_the_bucket_pass_at_the_rate() {
        let limit = Limit { rate: 1_000_000, burst: 1 };
        let bucket = Bucket::new(limit);
        let mut passed = 0;
        // Offered every microsecond for ten seconds.
        for us in 0..10_000_000 {
            passed += 1500 * bucket.pass(us * 1000, Set::one(0), |_| 1500).len();
        }
        assert!((9_800_000..10_010_000).contains(&passed), "{passed}");
    }

    #[test]
    fn it_starts_full_and_is_full_again_after_a_pause() {
        let bucket = Bucket::new(Limit { rate: 1000, burst: 10 });
        let pass = |now| bucket.pass(now, Set::range(0, 32), |_| 1).len();
        assert_eq!((pass(7), pass(7), pass(7)), (10, 0, 0));
        // A thousandth of a second is one unit; an old look at the clock gives nothing.
        assert_eq!((pass(SECOND / 1000 + 8), pass(SECOND / 2000)), (1, 0));
        assert_eq!(pass(SECOND), 10);
    }

    #[test]
    fn extremes_neither_overflow_nor_stop() {
        for rate in [0, 1, u64::MAX] {
            for burst in [0, 1, u64::MAX] {
                let bucket = Bucket::new(Limit { rate, burst });
                for now in [0, 1, SECOND, u64::MAX - 1, u64::MAX] {
                    bucket.pass(now, Set::range(0, 32), |_| 1 << 40);
                }
                // The first of a full bucket always passes.
                let fresh = Bucket::new(Limit { rate, burst });
                assert!(!fresh.pass(1, Set::one(3), |_| u64::MAX).is_empty());
            }
        }
    }

    #[test]
    fn threads_share_it_and_pass_no_more_than_one_would() {
        let limit = Limit { rate: 1_000_000, burst: 5000 };
        let bucket = Bucket::new(limit);
        let clock = AtomicU64::new(0);
        let pass = || {
            let mut passed = 0;
            loop {
                let now = clock.fetch_add(10_000, Relaxed);
                if now >= SECOND {
                    return passed;
                }
                passed += bucket.pass_together(now, Set::range(0, 32), 32 * 7, |_| 7).len() * 7;
            }
        };
        let passed: usize = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(pass)).collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).sum()
        });
        assert!((980_000..=1_005_000).contains(&passed), "{passed}");
    }
}
