//! A log-linear histogram: any 64-bit value, to within 1.6 %, in 16 KiB.

/// Steps of each power of two, as a power of two.
const STEP_BITS: u32 = 6;
const STEPS: u64 = 1 << STEP_BITS;

/// Counts of values.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    largest: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Histogram {
        let counts = vec![0; ((64 - STEP_BITS + 1) as usize) << STEP_BITS];
        Histogram { counts, total: 0, largest: 0 }
    }

    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.largest = self.largest.max(value);
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value counted, 0 of none.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// The least value of the bucket below which `share` of all values are; 0 of none.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += u64::from(*count);
            if below >= wanted {
                return least(bucket as u64);
            }
        }
        self.largest
    }
}

/// Values below 64 have a bucket each; each power of two above has 64.
fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    ((u64::from(shift) << STEP_BITS) + (value >> shift)) as usize
}

fn least(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let shift = (bucket >> STEP_BITS) - 1;
    (STEPS + bucket % STEPS) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_begins_at_or_little_below_it() {
        for value in
            (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) + (1 << bit) / 3]).chain([0, u64::MAX])
        {
            let least = least(bucket(value) as u64);
            assert!(least <= value && (value - least) as f64 <= value as f64 / 64.0, "{value}");
        }
        assert!(bucket(u64::MAX) < Histogram::new().counts.len());
    }

    #[test]
    fn quantiles_are_where_they_belong() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=1000).for_each(|value| histogram.record(value));
        assert_eq!((histogram.total(), histogram.largest()), (1000, 1000));
        assert!((histogram.quantile(0.5) as f64 - 500.0).abs() < 8.0);
        assert!((histogram.quantile(0.99) as f64 - 990.0).abs() < 16.0);
    }
}
