//! When what could not be opened is tried again, if nobody tells that what was in its way is gone.

use std::time::{Duration, Instant};

/// How long it is left alone: at first, and at most. A try may give a NIC another number of queues and take them back,
/// which stops it for some milliseconds.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(16);

/// What was tried in vain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    at: Instant,
    delay: Duration,
}

impl Retry {
    /// It was tried just now; `before` is what was known before that.
    pub(crate) fn after(before: Option<Retry>) -> Retry {
        let delay = before.map_or(FIRST, |b| (2 * b.delay).min(LONGEST));
        Retry { at: Instant::now(), delay }
    }

    /// It may be tried again.
    pub(crate) fn is_due(&self) -> bool {
        self.at.elapsed() >= self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_less_and_less_often() {
        let mut delays = Vec::new();
        let mut last = None;
        for _ in 0..7 {
            let retry = Retry::after(last);
            assert!(!retry.is_due());
            delays.push(retry.delay.as_secs());
            last = Some(retry);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 16, 16]);
        let at = Instant::now().checked_sub(FIRST).expect("the machine runs for longer");
        assert!(Retry { at, delay: FIRST }.is_due());
    }
}
