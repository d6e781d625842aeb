//! Whose turn it is among the queues of a thread: while several have more packets than the thread can
//! take, each gets the same share of its cycles, whatever its packets cost. Queues that had nothing for
//! long are looked at less often, so that a hundred idle guests do not cost the busy ones half their rate.
//!
//! Without this, burst for burst, a tenant whose packets are ten times as dear as others' (many masks,
//! misses, rewrites) would get ten times their share.

/// Cycles that a queue may be ahead of one that waits: some bursts, so that batches stay whole, and
/// some tens of microseconds.
const AHEAD_MAX: u64 = 100_000;

/// Looks in vain after which a queue counts as quiet.
const QUIET_AFTER: u32 = 1000;
/// A quiet queue is looked at in one of so many rounds. A round with a few busy queues takes some
/// microseconds, so a guest that begins to send waits for some tens at most.
const QUIET_ONE_IN: usize = 16;

#[derive(Clone, Copy, Default)]
struct Queue {
    /// Cycles spent on it since queues last began to wait.
    spent: u64,
    /// It had packets when it was last polled, so it may have more. If it has none after all, that
    /// costs the others one round.
    waits: bool,
    /// Looks in vain since it had packets.
    in_vain: u32,
}

/// The queues of one thread, by their place in its plan.
pub(crate) struct Turns {
    queues: Vec<Queue>,
    /// The queues that are looked at in every round, and the quiet ones, by number.
    awake: Vec<usize>,
    quiet: Vec<usize>,
    /// Where among the quiet ones this round begins, and how many it looks at.
    from: usize,
    some: usize,
    /// A queue has become quiet or woken.
    changed: bool,
    /// The least that was spent on any that waits, and what others may not exceed meanwhile.
    least: u64,
    limit: u64,
}

impl Turns {
    pub(crate) fn new(queues: usize) -> Turns {
        Turns {
            queues: vec![Queue::default(); queues],
            awake: (0..queues).collect(),
            quiet: Vec::with_capacity(queues),
            from: 0,
            some: 0,
            changed: false,
            least: 0,
            limit: u64::MAX,
        }
    }

    /// Queues to look at in this round.
    #[inline(always)]
    pub(crate) fn looks(&self) -> usize {
        self.awake.len() + self.some
    }

    /// The number of the `k`th of them.
    #[inline(always)]
    pub(crate) fn look(&self, k: usize) -> usize {
        match self.awake.get(k) {
            Some(i) => *i,
            None => self.quiet[(self.from + k - self.awake.len()) % self.quiet.len()],
        }
    }

    /// Whether to poll queue `i` in this round.
    #[inline(always)]
    pub(crate) fn may(&self, i: usize) -> bool {
        self.queues.get(i).is_none_or(|q| q.spent <= self.limit)
    }

    /// Queue `i` was polled and had packets that cost `cycles`.
    #[inline(always)]
    pub(crate) fn took(&mut self, i: usize, cycles: u64) {
        if let Some(q) = self.queues.get_mut(i) {
            // Who had nothing to do earns no claim by it.
            let was_quiet = q.in_vain >= QUIET_AFTER;
            let before = if q.waits { q.spent } else { q.spent.max(self.least) };
            *q = Queue { spent: before.saturating_add(cycles), waits: true, in_vain: 0 };
            self.changed |= was_quiet;
        }
    }

    /// Queue `i` was polled and had nothing.
    #[inline(always)]
    pub(crate) fn idled(&mut self, i: usize) {
        if let Some(q) = self.queues.get_mut(i) {
            q.waits = false;
            q.in_vain = q.in_vain.saturating_add(1);
            self.changed |= q.in_vain == QUIET_AFTER;
        }
    }

    /// Tells the quiet queues from the others.
    #[cold]
    fn sort(&mut self) {
        self.awake.clear();
        self.quiet.clear();
        for (i, q) in self.queues.iter().enumerate() {
            let list = if q.in_vain < QUIET_AFTER { &mut self.awake } else { &mut self.quiet };
            list.push(i);
        }
        (self.from, self.some) = (0, self.quiet.len().div_ceil(QUIET_ONE_IN));
    }

    /// All queues had their chance.
    pub(crate) fn end_round(&mut self) {
        self.from += self.some;
        if self.from >= self.quiet.len() {
            self.from = 0;
        }
        if std::mem::take(&mut self.changed) {
            self.sort();
        }
        // A quiet queue does not wait: it is awake by now if it had packets.
        let awake = self.awake.iter().filter_map(|i| self.queues.get(*i));
        match awake.filter(|q| q.waits).map(|q| q.spent).min() {
            Some(least) => {
                self.least = least;
                self.limit = least.saturating_add(AHEAD_MAX);
            }
            // Nobody waits: what was is forgotten.
            None if self.limit != u64::MAX => {
                for q in &mut self.queues {
                    q.spent = 0;
                }
                (self.least, self.limit) = (0, u64::MAX);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of queues that cost so much for a burst and have packets when `busy` says so; returns
    /// what was spent on each.
    fn rounds<const N: usize>(
        turns: &mut Turns,
        n: usize,
        cost: [u64; N],
        busy: impl Fn(usize, usize) -> bool,
    ) -> [u64; N] {
        let mut spent = [0; N];
        for round in 0..n {
            for i in 0..N {
                if !turns.may(i) {
                    continue;
                }
                match busy(round, i) {
                    true => {
                        turns.took(i, cost[i]);
                        spent[i] += cost[i];
                    }
                    false => turns.idled(i),
                }
            }
            turns.end_round();
        }
        spent
    }

    #[test]
    fn dear_packets_buy_no_larger_share() {
        let mut turns = Turns::new(3);
        let spent = rounds(&mut turns, 10_000, [4_000, 40_000, 300_000], |_, _| true);
        let least = *spent.iter().min().expect("three");
        let most = *spent.iter().max().expect("three");
        assert!(most - least <= AHEAD_MAX + 300_000, "{spent:?}");
        assert!(least > 10_000_000, "{spent:?}");
    }

    #[test]
    fn a_queue_without_competition_is_polled_in_every_round() {
        let mut turns = Turns::new(2);
        let spent = rounds(&mut turns, 1000, [4_000, 40_000], |_, i| i == 1);
        assert_eq!(spent, [0, 40_000_000]);
        // A partner that has a few packets now and then takes no more than a round.
        let spent = rounds(&mut turns, 1000, [100, 40_000], |round, i| i == 1 || round % 2 == 0);
        assert_eq!(spent, [50_000, 40_000_000]);
    }

    #[test]
    fn quiet_queues_are_looked_at_in_some_rounds_and_at_once_when_they_wake() {
        let mut turns = Turns::new(33);
        rounds(&mut turns, 2000, [100; 33], |_, i| i == 32);
        let looks = |turns: &mut Turns| {
            let round = |_| {
                let seen = (0..turns.looks()).filter(|&k| turns.look(k) < 32).count();
                turns.end_round();
                seen
            };
            (0..QUIET_ONE_IN).map(round).sum::<usize>()
        };
        assert_eq!(looks(&mut turns), 32, "each once");
        turns.took(5, 100);
        turns.end_round();
        let each_round = 1 + 31_usize.div_ceil(QUIET_ONE_IN);
        assert_eq!(looks(&mut turns), each_round * QUIET_ONE_IN, "the one that woke, and some");
    }

    #[test]
    fn idleness_earns_nothing() {
        let mut turns = Turns::new(2);
        rounds(&mut turns, 1000, [4_000, 40_000], |_, i| i == 1);
        let spent = rounds(&mut turns, 1000, [4_000, 40_000], |_, _| true);
        assert!(spent[1] + AHEAD_MAX + 40_000 >= spent[0], "{spent:?}");
        assert!(spent[0] + AHEAD_MAX + 40_000 >= spent[1], "{spent:?}");
    }
}
