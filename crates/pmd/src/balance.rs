//! When queues are placed anew by themselves (`other_config:pmd-auto-lb`).

use std::time::Duration;

/// How long a thread must be overloaded before anything is done, as in OVS.
const OVERLOADED_FOR: Duration = Duration::from_secs(60);

/// The four settings, with OVS's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoBalance {
    /// `pmd-auto-lb`.
    pub on: bool,
    /// Percentage of its cycles from which on a thread is overloaded (`pmd-auto-lb-load-threshold`, 0 to
    /// 100).
    pub load: u64,
    /// Percentage by which the variance of loads must fall (`pmd-auto-lb-improvement-threshold`, 0 to 100).
    pub improvement: u64,
    /// Time between two attempts (`pmd-auto-lb-rebal-interval`, in minutes, 0 to 20000; 0 is 1).
    pub interval: Duration,
}

impl Default for AutoBalance {
    fn default() -> Self {
        AutoBalance { on: false, load: 95, improvement: 25, interval: Duration::from_secs(60) }
    }
}

/// What was seen of the load.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    overloaded: Duration,
    since_attempt: Duration,
}

impl Watch {
    /// Takes the loads of all threads over the last `interval`, in percent; true if a placement that
    /// improves them is to be looked for now.
    pub(crate) fn take(
        &mut self,
        loads: &[u64],
        interval: Duration,
        settings: AutoBalance,
    ) -> bool {
        self.since_attempt = self.since_attempt.saturating_add(interval);
        if !settings.on || loads.len() < 2 || loads.iter().all(|&l| l < settings.load) {
            self.overloaded = Duration::ZERO;
            return false;
        }
        self.overloaded += interval;
        let due = self.overloaded >= OVERLOADED_FOR && self.since_attempt >= settings.interval;
        if due {
            *self = Watch::default();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(5);

    #[test]
    fn a_minute_of_overload_makes_an_attempt() {
        let on = AutoBalance { on: true, ..AutoBalance::default() };
        let mut watch = Watch::default();
        let mut attempts = |loads: &[u64], steps: usize, settings| {
            (0..steps).filter(|_| watch.take(loads, STEP, settings)).count()
        };
        assert_eq!(attempts(&[99, 10], 100, AutoBalance::default()), 0, "off");
        assert_eq!(attempts(&[94, 10], 100, on), 0);
        assert_eq!(attempts(&[99], 100, on), 0, "nowhere to go");
        assert_eq!(attempts(&[95, 10], 11, on), 0);
        assert_eq!(attempts(&[10, 10], 1, on), 0, "it begins again");
        assert_eq!(attempts(&[95, 10], 11, on), 0);
        assert_eq!(attempts(&[95, 10], 1, on), 1);
        assert_eq!(attempts(&[95, 10], 24, on), 2);
        let seldom = AutoBalance { interval: Duration::from_secs(600), ..on };
        assert_eq!(attempts(&[95, 10], 119, seldom), 0);
        assert_eq!(attempts(&[95, 10], 1, seldom), 1);
    }
}
