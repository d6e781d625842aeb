//! How much may be logged of one port: a front end that connects and misbehaves again and again must
//! not fill the host's disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Log lines about one port at once: enough to tell what happened when something does.
const MAX_LINES: u32 = 100;
/// One more line is allowed each time this has passed: 8640 a day, about a megabyte.
const REFILL: Duration = Duration::from_secs(10);

/// Log lines that may be written, and those that were not.
#[derive(Debug)]
pub(crate) struct LogBudget(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u32,
    /// When `left` was last added to.
    since: Instant,
    withheld: u64,
}

impl LogBudget {
    pub(crate) fn new(now: Instant) -> LogBudget {
        LogBudget(Mutex::new(State { left: MAX_LINES, since: now, withheld: 0 }))
    }

    /// Asks for a line. If it may be written, what to add to it: how many before it were not.
    pub(crate) fn take(&self, now: Instant) -> Option<String> {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = now.saturating_duration_since(s.since).as_secs() / REFILL.as_secs();
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        if lines > 0 {
            s.left = s.left.saturating_add(lines).min(MAX_LINES);
            s.since += REFILL.saturating_mul(lines);
        }
        if s.left == 0 {
            s.withheld += 1;
            return None;
        }
        s.left -= 1;
        match std::mem::take(&mut s.withheld) {
            0 => Some(String::new()),
            n => Some(format!(" ({n} lines about this port before it were withheld)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_with_time_and_say_what_is_missing() {
        let start = Instant::now();
        let budget = LogBudget::new(start);
        let granted = |at: Instant, n: usize| (0..n).filter(|_| budget.take(at).is_some()).count();
        assert_eq!(granted(start, 1000), 100);
        assert_eq!(granted(start + REFILL / 2, 10), 0);
        let why = budget.take(start + REFILL).expect("a line");
        assert_eq!(why, " (910 lines about this port before it were withheld)");
        assert_eq!(granted(start + REFILL * 3, 10), 2);
        assert_eq!(granted(start + REFILL * 1000, 1000), 100, "no more than at first");
        assert_eq!(granted(start, 10), 0, "time does not go back");
    }
}
