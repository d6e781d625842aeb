//! What one port may use of its thread: places in the flow table, and the pipeline's time. Tenants
//! share threads, so nobody may take all of either.

use flow::DpPort;

/// Megaflows that a port may have whatever the others have, while the table is not full.
const FLOWS_MIN: usize = 256;
/// Upcalls that a port may make in a row: the beginning of a busy guest's day.
const UPCALLS_AT_ONCE: u64 = 1024;
/// Upcalls for each millisecond that a port may make in the long run while others use the thread too.
/// At some 5 us each, they take less than a tenth of its time.
const UPCALLS_PER_MS: u64 = 16;

/// One port's account.
pub(crate) struct Budget {
    /// Megaflows that it has.
    pub(crate) flows: usize,
    upcalls: u64,
    refilled_ms: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { flows: 0, upcalls: UPCALLS_AT_ONCE, refilled_ms: 0 }
    }
}

impl Budget {
    /// Whether one more megaflow may be installed where there are `total` of at most `limit`: a port
    /// may have as many as there are places left. So a single busy port has half of the table, and
    /// there is always room for one that comes later.
    pub(crate) fn allows_flow(&self, total: usize, limit: usize) -> bool {
        let free = limit.saturating_sub(total);
        free > 0 && self.flows < free.max(FLOWS_MIN)
    }

    /// Takes one upcall from the account; false if it is used up. A port that is `alone` on its thread
    /// takes nothing from anybody.
    pub(crate) fn take_upcall(&mut self, now_ms: u64, alone: bool) -> bool {
        let earned = now_ms.saturating_sub(self.refilled_ms).saturating_mul(UPCALLS_PER_MS);
        self.refilled_ms = now_ms;
        self.upcalls = self.upcalls.saturating_add(earned).min(UPCALLS_AT_ONCE);
        if alone {
            return true;
        }
        let allowed = self.upcalls > 0;
        self.upcalls -= u64::from(allowed);
        allowed
    }
}

/// Whether one port alone uses a thread, looked at by the millisecond.
#[derive(Default)]
pub(crate) struct Company {
    ms: u64,
    port: Option<DpPort>,
    /// More than one port had packets in this millisecond, and in the last one that had any.
    now: bool,
    before: bool,
}

impl Company {
    /// Packets came from `port`.
    #[inline(always)]
    pub(crate) fn note(&mut self, port: DpPort, now_ms: u64) {
        if self.ms != now_ms {
            *self = Company { ms: now_ms, port: Some(port), now: false, before: self.now };
        } else if self.port != Some(port) {
            self.now |= self.port.is_some();
            self.port = Some(port);
        }
    }

    pub(crate) fn is_alone(&self) -> bool {
        !self.now && !self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_whole_table() {
        let limit = 10_000;
        let mut total = 0;
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut b = Budget::default();
            while b.allows_flow(total, limit) {
                b.flows += 1;
                total += 1;
            }
            held.push(b.flows);
        }
        assert_eq!(held, [5000, 2500, 1250, 625], "half of what is left, each time");
        let mut small = Budget::default();
        while small.allows_flow(small.flows, 5) {
            small.flows += 1;
        }
        assert_eq!(small.flows, 5, "a small table may be filled");
    }

    #[test]
    fn upcalls_are_earned_by_time() {
        let mut b = Budget::default();
        let mut count = |now_ms| (0..5000).filter(|_| b.take_upcall(now_ms, false)).count() as u64;
        assert_eq!((count(10), count(10)), (UPCALLS_AT_ONCE, 0));
        assert_eq!((count(15), count(14), count(1_000_000)), (5 * UPCALLS_PER_MS, 0, 1024));
        assert!(b.take_upcall(1_000_000, true), "alone on the thread");
        assert!(!b.take_upcall(1_000_000, false));
    }

    #[test]
    fn company_is_noticed_and_forgotten() {
        let mut c = Company::default();
        let (a, b) = (DpPort(1), DpPort(2));
        c.note(a, 5);
        c.note(a, 5);
        assert!(c.is_alone());
        c.note(b, 5);
        c.note(a, 6);
        assert!(!c.is_alone(), "a moment ago");
        c.note(a, 7);
        c.note(a, 8);
        assert!(c.is_alone());
    }
}
