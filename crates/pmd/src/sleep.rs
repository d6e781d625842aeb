//! Sleeping by load, as Open vSwitch does it (`other_config:pmd-sleep-max`; "PMD load based sleeping"
//! in its documentation): a thread whose queues give little sleeps after each round of them, a
//! microsecond longer each time.

use packet::BURST;
use std::collections::BTreeMap;

/// Packets that one queue has to give in a round for the thread not to sleep: half a burst.
pub(crate) const BUSY_PACKETS: usize = BURST / 2;
/// Microseconds that a sleep is longer than the one before.
const LONGER_US: u64 = 1;
/// The longest sleep that can be asked for, microseconds.
const MAX_US: u64 = 10_000;

/// `other_config:pmd-sleep-max`: how long threads may sleep, microseconds. 0 is never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SleepMax {
    /// For all threads but those below.
    pub default_us: u64,
    /// For threads on these cores.
    pub by_core: BTreeMap<usize, u64>,
}

impl SleepMax {
    /// Reads `50,8:0,9:100`: a default, and cores with values of their own, in any order; the last
    /// one of each counts, and more than 10000 is 10000. What cannot be read is left out and returned,
    /// to be complained of.
    pub fn parse(text: &str) -> (SleepMax, Vec<&str>) {
        let (mut max, mut wrong) = (SleepMax::default(), Vec::new());
        let parts = text.split([',', ' ']).map(str::trim).filter(|p| !p.is_empty());
        for part in parts {
            let us = |text: &str| text.parse::<u64>().ok().map(|us| us.min(MAX_US));
            match part.split_once(':').map_or((None, part), |(core, us)| (Some(core), us)) {
                (None, value) => match us(value) {
                    Some(us) => max.default_us = us,
                    None => wrong.push(part),
                },
                (Some(core), value) => match (core.parse(), us(value)) {
                    (Ok(core), Some(us)) => drop(max.by_core.insert(core, us)),
                    _ => wrong.push(part),
                },
            }
        }
        (max, wrong)
    }

    /// For the thread on `core`.
    pub fn of_core(&self, core: usize) -> u64 {
        self.by_core.get(&core).copied().unwrap_or(self.default_us)
    }
}

/// How long one thread sleeps.
#[derive(Debug, Default)]
pub(crate) struct LoadSleep {
    us: u64,
}

impl LoadSleep {
    /// A queue gave half a burst or more.
    #[inline(always)]
    pub(crate) fn busy(&mut self) {
        self.us = 0;
    }

    /// Microseconds to sleep after this round, of `max_us` at most.
    #[inline(always)]
    pub(crate) fn after_round(&mut self, max_us: u64) -> u64 {
        let now = self.us.min(max_us);
        self.us = (now + LONGER_US).min(max_us);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_grow_by_a_microsecond_until_a_queue_is_busy() {
        let mut sleep = LoadSleep::default();
        let rounds = |sleep: &mut LoadSleep, n: usize, max| -> Vec<u64> {
            (0..n).map(|_| sleep.after_round(max)).collect()
        };
        assert_eq!(rounds(&mut sleep, 3, 0), [0, 0, 0], "off");
        assert_eq!(rounds(&mut sleep, 6, 3), [0, 1, 2, 3, 3, 3]);
        sleep.busy();
        assert_eq!(rounds(&mut sleep, 3, 3), [0, 1, 2]);
        assert_eq!(rounds(&mut sleep, 2, 1), [1, 1], "a new maximum counts at once");
        assert_eq!(rounds(&mut sleep, 2, 0), [0, 0]);
        assert_eq!(BUSY_PACKETS, 16);
    }

    #[test]
    fn settings_are_read_as_ovs_reads_them() {
        let parse = |text| {
            let (max, wrong) = SleepMax::parse(text);
            (max.default_us, max.by_core.into_iter().collect::<Vec<_>>(), wrong)
        };
        assert_eq!(parse("50"), (50, vec![], vec![]));
        assert_eq!(parse("50,8:0,9:99"), (50, vec![(8, 0), (9, 99)], vec![]));
        assert_eq!(parse("1:100,2:0"), (0, vec![(1, 100), (2, 0)], vec![]));
        assert_eq!(parse("1:1,7,1:2,8"), (8, vec![(1, 2)], vec![]), "the last one counts");
        assert_eq!(parse("10001,3:99999"), (10_000, vec![(3, 10_000)], vec![]));
        assert_eq!(parse("x,5,:3,4:,-1,2:3:4"), (5, vec![], vec!["x", ":3", "4:", "-1", "2:3:4"]));
        assert_eq!(parse(""), (0, vec![], vec![]));
        let (max, _) = SleepMax::parse("50,8:0");
        assert_eq!((max.of_core(8), max.of_core(0)), (0, 50));
    }
}
