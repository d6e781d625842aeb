//! `coverage/show`: counted events and their rates.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How often counts are kept, and for how long: rates are shown over 5 seconds, a minute, an hour.
const STEP: Duration = Duration::from_secs(5);
const STEPS: usize = 720;

/// Counts at regular times.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    kept: VecDeque<BTreeMap<String, u64>>,
    last: Option<Instant>,
}

impl Coverage {
    /// Keeps `counts` if it is time.
    pub(crate) fn sample(&mut self, counts: BTreeMap<String, u64>) {
        if self.last.is_some_and(|l| l.elapsed() < STEP) {
            return;
        }
        self.last = Some(Instant::now());
        self.kept.push_front(counts);
        self.kept.truncate(STEPS + 1);
    }

    /// Events in the last `steps` before the last sample, per second.
    fn rate(&self, name: &str, steps: usize) -> f64 {
        let Some(now) = self.kept.front() else { return 0.0 };
        let then = self.kept.get(steps).or(self.kept.back()).unwrap_or(now);
        let count = |m: &BTreeMap<String, u64>| m.get(name).copied().unwrap_or(0);
        count(now).saturating_sub(count(then)) as f64 / (steps as f64 * STEP.as_secs_f64())
    }

    /// The text of `coverage/show`.
    pub(crate) fn show(&self, counts: &BTreeMap<String, u64>) -> String {
        let mut out = String::from(
            "Event coverage, avg rate over last: 5 seconds, last minute, last hour:\n",
        );
        for (name, total) in counts.iter().filter(|(_, n)| **n > 0) {
            let [a, b, c] = [1, 12, STEPS].map(|steps| self.rate(name, steps));
            out += &format!("{name:<34} {a:5.1}/sec {b:9.3}/sec {c:13.4}/sec   total: {total}\n");
        }
        let never = counts.values().filter(|n| **n == 0).count();
        out + &format!("{never} events never hit\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_totals() {
        let mut c = Coverage::default();
        let counts = |n| BTreeMap::from([("a".to_owned(), n), ("b".to_owned(), 0)]);
        c.sample(counts(10));
        c.last = None;
        c.sample(counts(60));
        let text = c.show(&counts(61));
        assert!(text.contains("a                                   10.0/sec     0.833/sec"));
        assert!(text.contains("total: 61") && text.contains("1 events never hit"));
    }
}
