//! What a bench found: pairs of windows, their medians, and how sure those are.

use serde::Serialize;

/// How often the pairs are drawn anew for the interval.
const RESAMPLES: usize = 10_000;

/// One measured window of one system.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Length in seconds.
    pub seconds: f64,
    /// Packets per second through the switch, both directions together.
    pub pps: f64,
    /// Processor cycles per packet as the switch itself says, if it does.
    pub cycles_per_packet: Option<f64>,
    /// Share of the window in which something else had the switch's core, 0 to 1.
    pub switch_waited: f64,
    /// The same for the load's core.
    pub load_waited: f64,
    /// Share of the window that the host took from the switch's core, 0 to 1.
    pub stolen: f64,
}

/// A window of each system, one right after the other.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The system in question.
    pub left: Window,
    /// What it is compared with.
    pub right: Window,
}

impl Pair {
    /// Left packets per second for each of right.
    pub fn ratio(&self) -> f64 {
        self.left.pps / self.right.pps
    }
}

/// A median with its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Median {
    /// The median.
    pub value: f64,
    /// 2.5 % of the resampled medians are below.
    pub low: f64,
    /// 2.5 % of the resampled medians are above.
    pub high: f64,
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} (95 % interval {:.3} to {:.3})", self.value, self.low, self.high)
    }
}

/// The median of the pairs' ratios; `None` without pairs.
pub fn median_ratio(pairs: &[Pair]) -> Option<Median> {
    let ratios: Vec<f64> = pairs.iter().map(Pair::ratio).collect();
    let value = median(ratios.clone())?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| median(ratios.iter().map(|_| ratios[random.below(ratios.len())]).collect()))
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
    Some(Median { value, low: at(0.025), high: at(0.975) })
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

/// xorshift64: the same draws every time, so that a report can be computed again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(left: f64, right: f64) -> Pair {
        let window = |pps| Window {
            seconds: 1.0,
            pps,
            cycles_per_packet: None,
            switch_waited: 0.0,
            load_waited: 0.0,
            stolen: 0.0,
        };
        Pair { left: window(left), right: window(right) }
    }

    #[test]
    fn median_of_even_odd_and_no_numbers() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn interval_holds_the_median_and_narrows_to_equal_ratios() {
        let equal = median_ratio(&[pair(2.0, 1.0), pair(4.0, 2.0)]).unwrap();
        assert_eq!((equal.low, equal.value, equal.high), (2.0, 2.0, 2.0));
        let spread: Vec<Pair> = (1..=15).map(|n| pair(f64::from(n), 10.0)).collect();
        let spread = median_ratio(&spread).unwrap();
        assert!((spread.value - 0.8).abs() < 1e-9);
        assert!(spread.low < 0.8 && spread.high > 0.8 && spread.low > 0.1 && spread.high < 1.5);
        assert!(median_ratio(&[]).is_none());
    }
}
