//! Medians, quartiles, and how sure they are.

use serde::Serialize;

/// How often values are drawn anew for an interval.
const RESAMPLES: usize = 10_000;

/// A median with its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Median {
    /// The median.
    pub value: f64,
    /// 2.5 % of the resampled medians are below.
    pub low: f64,
    /// 2.5 % of the resampled medians are above.
    pub high: f64,
    /// Values it is the median of.
    pub of: usize,
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} (95 % interval {:.3} to {:.3})", self.value, self.low, self.high)
    }
}

impl Median {
    /// Of these values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Median> {
        let value = median(values.to_vec())?;
        let mut random = Random::new();
        let mut resample = || {
            let drawn = values.iter().map(|_| values[random.below(values.len())]);
            median(drawn.collect())
        };
        let mut medians: Vec<f64> = (0..RESAMPLES).filter_map(|_| resample()).collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
        Some(Median { value, low: at(0.025), high: at(0.975), of: values.len() })
    }
}

/// The median of some numbers; `None` of none.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        n if n % 2 == 1 => Some(numbers[middle]),
        _ => Some(f64::midpoint(numbers[middle - 1], numbers[middle])),
    }
}

/// A quarter of the numbers is below; `None` of none.
pub fn lower_quartile(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 4).copied()
}

/// xorshift64: the same draws every time, so that a report can be computed again.
pub struct Random(u64);

impl Random {
    /// From the beginning.
    pub fn new() -> Random {
        Random(0x9E37_79B9_7F4A_7C15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_odd_and_no_numbers() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(lower_quartile(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(lower_quartile(vec![]), None);
    }

    #[test]
    fn interval_holds_the_median_and_narrows_to_equal_values() {
        let equal = Median::of(&[2.0, 2.0]).unwrap();
        assert_eq!((equal.low, equal.value, equal.high), (2.0, 2.0, 2.0));
        let spread: Vec<f64> = (1..=15).map(|n| f64::from(n) / 10.0).collect();
        let spread = Median::of(&spread).unwrap();
        assert!((spread.value - 0.8).abs() < 1e-9);
        assert!(spread.low < 0.8 && spread.high > 0.8 && spread.low > 0.1 && spread.high < 1.5);
        assert!(Median::of(&[]).is_none());
    }
}
