//! Histograms of what a PMD thread measures, with the bins that OVS's `dpif-netdev/pmd-perf-show` has.

use crate::counters::Counter;

/// Bins of a histogram, the last of which has no end.
pub const BINS: usize = 32;

/// Counts of values by size: one writer, any reader.
#[derive(Debug)]
pub struct Histogram {
    /// The largest value of each bin.
    bounds: [u64; BINS],
    counts: [Counter; BINS],
    sum: Counter,
}

/// The counts of a [`Histogram`] at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bins {
    /// Values by bin.
    pub counts: [u64; BINS],
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// Bins that end at even distances from `first` to `last`.
    pub fn linear(first: u32, last: u32) -> Histogram {
        let step = f64::from(last - first) / (BINS - 2) as f64;
        Histogram::new(last, |i| f64::from(first) + i as f64 * step)
    }

    /// Bins that end at even ratios from `first` to `last`, and at different whole numbers; if `first`
    /// is 0, from 1 with one for 0 before it.
    pub fn log(first: u32, last: u32) -> Histogram {
        let before = usize::from(first == 0);
        let (low, high) = (f64::from(first.max(1)).ln(), f64::from(last).ln());
        let step = (high - low) / (BINS - 2 - before) as f64;
        Histogram::new(last, |i| match i.checked_sub(before) {
            Some(i) => (low + i as f64 * step).exp(),
            None => 0.0,
        })
    }

    fn new(last: u32, bound: impl Fn(usize) -> f64) -> Histogram {
        let mut bounds = [u64::MAX; BINS];
        for i in 0..BINS - 1 {
            let next = if i == 0 { 0 } else { bounds[i - 1] + 1 };
            bounds[i] = (bound(i) as u64).max(next);
        }
        bounds[BINS - 2] = last.into();
        Histogram {
            bounds,
            counts: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
        }
    }

    /// Counts a value. Only one thread may call this.
    pub fn add(&self, value: u64) {
        let bin = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bin].add(1);
        self.sum.add(value);
    }

    /// The largest value of each bin; the last one's has no meaning.
    pub fn bounds(&self) -> &[u64; BINS] {
        &self.bounds
    }

    /// All counts as they are now.
    pub fn bins(&self) -> Bins {
        Bins { counts: std::array::from_fn(|i| self.counts[i].get()), sum: self.sum.get() }
    }
}

impl Bins {
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Bins) -> Bins {
        let counts = |i: usize| self.counts[i].wrapping_sub(earlier.counts[i]);
        Bins { counts: std::array::from_fn(counts), sum: self.sum.wrapping_sub(earlier.sum) }
    }

    /// The average of all values; 0 if there are none.
    pub fn average(&self) -> f64 {
        let n: u64 = self.counts.iter().sum();
        if n == 0 { 0.0 } else { self.sum as f64 / n as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_first_bin_that_reaches_it() {
        for h in
            [Histogram::log(0, 1000), Histogram::log(500, 24_000_000), Histogram::linear(0, 32)]
        {
            assert!(h.bounds().is_sorted_by(|a, b| a < b), "{:?}", h.bounds());
            let start = h.bins();
            let values = (0..2000).chain([23_999_999, 24_000_001, u64::MAX / 4]);
            for value in values.clone() {
                let before = h.bins();
                h.add(value);
                let bin = h.bins().since(&before).counts.iter().position(|&n| n == 1);
                let bin = bin.expect("one bin");
                assert!(value <= h.bounds()[bin] && (bin == 0 || value > h.bounds()[bin - 1]));
            }
            let all = h.bins().since(&start);
            assert_eq!(all.sum, values.clone().sum::<u64>());
            assert_eq!(all.counts.iter().sum::<u64>(), values.count() as u64);
        }
    }

    #[test]
    fn averages() {
        let h = Histogram::linear(0, 30);
        assert_eq!(h.bins().average(), 0.0);
        [1, 2, 6].into_iter().for_each(|n| h.add(n));
        assert_eq!(h.bins().average(), 3.0);
    }
}
