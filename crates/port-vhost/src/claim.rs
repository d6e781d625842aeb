//! A cell that one thread at a time claims, and nobody waits for without bound on the packet path.
//!
//! PMD threads try once (receive) or wait for a bounded time (transmit, see [`port::hold`]) and go on
//! without; control threads, which may wait, claim a ring before they change or unmap anything under it.
//!
//! A locked instruction waits for all stores before it, and those of a burst go to cache lines that
//! another core has. So a thread that has claimed a cell many times in a row becomes its *owner* and
//! then needs none: it says that it is busy, by a plain store, and looks whether it still is the owner.
//! Another thread that wants the cell first ends the ownership and has the kernel run a memory barrier
//! on all processors that run this process (`membarrier(2)`): after that, either the owner sees that it
//! is none any more, or the other thread sees that it is busy. That costs the other some microseconds,
//! once.

use packet::arch::cycles;
use port::hold::{self, FREE, HELD as CLAIMED};
use rustix::thread::{MembarrierCommand, membarrier};
use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::*, compiler_fence};
use std::time::{Duration, Instant};

/// Claimed, without a guard: see [`Claimed::lend`]. Besides the states of [`port::hold`].
const LENT: u8 = 3;

/// No thread owns the cell: claims are made by compare-and-swap.
const NOBODY: usize = 0;
/// An ownership is being ended. No thread has this number, as no thread-local variable has this address.
const ENDING: usize = 1;

/// Claims in a row after which a thread owns the cell. Some milliseconds under load, so that threads
/// which share a cell do not spend their time ending each other's ownership.
const OWNER_AFTER: u32 = 1024;

/// Cycles for which a control thread tries before it yields: a few tries, as the holder may need
/// its processor.
const SHORT_SPIN: u64 = 3_000;

/// Whether the kernel has the barrier that ending an ownership needs; without it there are no owners.
static HAS_BARRIER: LazyLock<bool> =
    LazyLock::new(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok());

/// A number of the calling thread's own. A thread that is started after this one has ended may get the
/// same, and with it what this one owned, which is then free: an owner is never more than one thread.
#[inline(always)]
fn me() -> usize {
    thread_local! { static HERE: u64 = const { 0 } }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// A value and the right to use it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Claim<T> {
    /// The thread that claims with plain stores to `busy`, or [`NOBODY`], or [`ENDING`].
    owner: AtomicUsize,
    /// The owner's state; others only wait for it to become [`FREE`].
    busy: AtomicU8,
    /// The state of everybody else's claims, changed by compare-and-swap.
    state: AtomicU8,
    /// Who lent, while `busy` is [`LENT`].
    lender: AtomicUsize,
    /// Who claimed last, and how often in a row; used while `state` is [`CLAIMED`].
    row: Cell<(usize, u32)>,
    value: UnsafeCell<T>,
}

// SAFETY: the value and `row` are reached only through a claim, of which there is at most one at a time:
// by the owner (`busy` is not FREE and `owner` was the owner's own after that was written) or by
// compare-and-swap of `state` while there is no owner and `busy` is FREE (see `try_shared`). So sharing
// the cell only moves the value's use between threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for Claim<T> {}

/// The right to use the value, given up on drop.
pub(crate) struct Claimed<'a, T> {
    claim: &'a Claim<T>,
    by_owner: bool,
}

impl<T> Claim<T> {
    pub(crate) fn new(value: T) -> Self {
        Claim {
            owner: AtomicUsize::new(NOBODY),
            busy: AtomicU8::new(FREE),
            state: AtomicU8::new(FREE),
            lender: AtomicUsize::new(NOBODY),
            row: Cell::new((NOBODY, 0)),
            value: UnsafeCell::new(value),
        }
    }

    /// Claims the value if it is free.
    #[inline(always)]
    pub(crate) fn try_claim(&self) -> Option<Claimed<'_, T>> {
        let me = me();
        if self.owner.load(Relaxed) == me {
            if self.busy.load(Relaxed) != FREE {
                return None;
            }
            self.busy.store(CLAIMED, Relaxed);
            // The processor may still do these two the other way round; the barrier that whoever ends
            // the ownership has run here sees to it that this is noticed by one of the two.
            compiler_fence(SeqCst);
            if self.owner.load(Relaxed) == me {
                return Some(Claimed { claim: self, by_owner: true });
            }
            self.busy.store(FREE, Release);
        }
        self.try_shared(me)
    }

    /// Claims by compare-and-swap, ending another thread's ownership first.
    #[inline(never)]
    fn try_shared(&self, me: usize) -> Option<Claimed<'_, T>> {
        if self.owner.load(Relaxed) != NOBODY {
            self.end_ownership();
        }
        self.state.compare_exchange(FREE, CLAIMED, Acquire, Relaxed).ok()?;
        let claimed = Claimed { claim: self, by_owner: false };
        // Only now: who became the owner did so while it had `state`. The barrier lies behind an
        // ownership that has ended, so its owner is seen to be busy as long as it is.
        if self.owner.load(Acquire) != NOBODY || self.busy.load(Acquire) != FREE {
            return None;
        }
        let (last, times) = self.row.get();
        let times = if last == me { times + 1 } else { 0 };
        if times < OWNER_AFTER {
            self.row.set((me, times));
            return Some(claimed);
        }
        self.row.set((NOBODY, 0));
        Some(if *HAS_BARRIER { self.own(claimed, me) } else { claimed })
    }

    /// Makes thread `me`, which has claimed by compare-and-swap, the owner.
    #[cold]
    fn own<'a>(&'a self, claimed: Claimed<'a, T>, me: usize) -> Claimed<'a, T> {
        // Both hold until `claimed` is dropped, so nobody finds neither.
        self.busy.store(CLAIMED, Relaxed);
        self.owner.store(me, Release);
        drop(claimed);
        Claimed { claim: self, by_owner: true }
    }

    #[cold]
    fn end_ownership(&self) {
        let owner = self.owner.load(Relaxed);
        if owner == NOBODY || owner == ENDING {
            return;
        }
        if self.owner.compare_exchange(owner, ENDING, AcqRel, Relaxed).is_ok() {
            // It worked once in this process, or there would be no owner, and has no other way to fail.
            let done = membarrier(MembarrierCommand::PrivateExpedited);
            debug_assert!(done.is_ok());
            self.owner.store(if done.is_ok() { NOBODY } else { owner }, Release);
        }
    }

    /// Claims the value, waiting as long as [`hold::wait`] does for another thread.
    #[inline(always)]
    pub(crate) fn claim(&self) -> Option<Claimed<'_, T>> {
        self.try_claim().or_else(|| self.wait())
    }

    #[cold]
    fn wait(&self) -> Option<Claimed<'_, T>> {
        // While the owner is busy, others have `state` for a moment only, to find that out.
        hold::wait(&[&self.busy, &self.state], || self.try_claim())
    }

    /// Claims the value, trying for `limit` [`cycles`], and twice at least.
    #[inline(always)]
    pub(crate) fn claim_within(&self, limit: u64) -> Option<Claimed<'_, T>> {
        self.try_claim().or_else(|| self.spin(limit))
    }

    #[cold]
    fn spin(&self, limit: u64) -> Option<Claimed<'_, T>> {
        let start = cycles();
        loop {
            std::hint::spin_loop();
            if let Some(c) = self.try_claim() {
                return Some(c);
            }
            if cycles().wrapping_sub(start) >= limit {
                return None;
            }
        }
    }

    /// Claims the value, waiting up to `patience`: for control threads. A holder keeps it for one
    /// burst only, but may lose its processor meanwhile, so the wait yields and then sleeps.
    pub(crate) fn claim_for(&self, patience: Duration) -> Option<Claimed<'_, T>> {
        let start = Instant::now();
        loop {
            if let Some(c) = self.claim_within(SHORT_SPIN) {
                return Some(c);
            }
            if start.elapsed() < Duration::from_millis(1) {
                std::thread::yield_now();
            } else if start.elapsed() < patience {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                return None;
            }
        }
    }

    /// Takes back up a claim that this thread [`Claimed::lend`]ed; `None` if there is none.
    #[inline(always)]
    pub(crate) fn resume(&self) -> Option<Claimed<'_, T>> {
        if self.busy.load(Relaxed) == LENT && self.lender.load(Relaxed) == me() {
            self.busy.store(CLAIMED, Relaxed);
            return Some(Claimed { claim: self, by_owner: true });
        }
        // A swap that only one caller can win, so that even a stray call makes no second guard.
        let won = self.state.compare_exchange(LENT, CLAIMED, Acquire, Relaxed);
        // Not `then_some`: the drop of a guard that was not won would free the cell.
        won.is_ok().then(|| Claimed { claim: self, by_owner: false })
    }
}

impl<T> Claimed<'_, T> {
    /// Keeps the claim but lets go of the guard, until [`Claim::resume`].
    #[inline(always)]
    pub(crate) fn lend(self) {
        if self.by_owner {
            self.claim.lender.store(me(), Relaxed);
            self.claim.busy.store(LENT, Relaxed);
        } else {
            self.claim.state.store(LENT, Release);
        }
        std::mem::forget(self);
    }
}

impl<T> Deref for Claimed<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, see `Claim`, so nobody else has a reference.
        unsafe { &*self.claim.value.get() }
    }
}

impl<T> DerefMut for Claimed<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` makes this reference unique.
        unsafe { &mut *self.claim.value.get() }
    }
}

impl<T> Drop for Claimed<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        let state = if self.by_owner { &self.claim.busy } else { &self.claim.state };
        state.store(FREE, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_claim_at_a_time() {
        let cell = Claim::new(1);
        let first = cell.try_claim().expect("free");
        assert!(cell.try_claim().is_none());
        assert!(cell.resume().is_none());
        drop(first);
        let mut second = cell.try_claim().expect("free again");
        *second = 2;
        second.lend();
        assert!(cell.try_claim().is_none());
        assert_eq!(*cell.resume().expect("lent"), 2);
        assert!(cell.try_claim().is_some());
    }

    #[test]
    fn a_claim_in_vain_ends_in_time() {
        let cell = Claim::new(());
        let held = cell.try_claim().expect("free");
        let start = cycles();
        assert!(cell.claim_within(100_000).is_none());
        assert!(cycles() - start >= 100_000);
        drop(held);
        assert!(cell.claim_within(0).is_some());
    }

    /// Another thread wants the cell while this one has it, for two milliseconds if it does not lose its processor
    /// meanwhile for longer than the other has patience: then it is tried again.
    fn is_waited_for(cell: &Claim<()>) {
        loop {
            let held = cell.try_claim().expect("free");
            let start = Instant::now();
            let got = std::thread::scope(|s| {
                let other = s.spawn(|| cell.claim().is_some());
                std::thread::sleep(hold::PATIENCE / 5);
                drop(held);
                other.join().expect("no panic")
            });
            if got {
                return;
            }
            assert!(start.elapsed() >= hold::PATIENCE, "given up after {:?}", start.elapsed());
        }
    }

    /// A holder that loses its processor, whether it owns the cell or not, costs another thread nothing but time; one
    /// that is stuck, that time once.
    #[test]
    fn holders_are_waited_for_and_stuck_ones_once() {
        for claims in [1, 2 * OWNER_AFTER] {
            let cell = Claim::new(());
            let own = || (1..claims).for_each(|_| drop(cell.try_claim().expect("free")));
            own();
            is_waited_for(&cell);
            own();
            let held = cell.try_claim().expect("free");
            std::thread::scope(|s| {
                s.spawn(|| {
                    let start = Instant::now();
                    (0..100).for_each(|_| assert!(cell.claim().is_none()));
                    let took = start.elapsed();
                    assert!(took >= hold::PATIENCE && took < 50 * hold::PATIENCE, "{took:?}");
                });
            });
            drop(held);
            is_waited_for(&cell);
        }
    }

    #[test]
    fn who_claims_often_becomes_the_owner_until_another_comes() {
        let cell = Claim::new(0u32);
        for _ in 0..2 * OWNER_AFTER {
            let mut held = cell.try_claim().expect("free");
            *held += 1;
            held.lend();
            assert!(cell.try_claim().is_none(), "lent");
            drop(cell.resume().expect("lent by this thread"));
        }
        assert_eq!(cell.owner.load(Relaxed) == me(), *HAS_BARRIER);
        let held = cell.try_claim().expect("free");
        std::thread::scope(|s| {
            s.spawn(|| assert!(cell.try_claim().is_none() && cell.resume().is_none()));
        });
        assert_eq!(cell.owner.load(Relaxed), NOBODY, "no owner any more, but busy");
        assert!(cell.try_claim().is_none());
        held.lend();
        drop(cell.resume().expect("lent"));
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(*cell.try_claim().expect("free"), 2 * OWNER_AFTER));
        });
    }

    /// One thread claims all the time and owns the cell again and again, others now and then; no two at
    /// once.
    #[test]
    fn owners_and_others_exclude_each_other() {
        let cell = Claim::new((0u64, 0u64));
        let bump = |both: &mut (u64, u64)| {
            both.0 += 1;
            std::hint::black_box(&mut *both);
            assert_eq!(both.0, both.1 + 1);
            both.1 = both.0;
        };
        let (mine, others) = (400_000, 200);
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut left = mine;
                while left > 0 {
                    let Some(mut held) = cell.try_claim() else { continue };
                    bump(&mut held);
                    if left % 3 == 0 {
                        held.lend();
                        let mut again = cell.resume().expect("lent");
                        bump(&mut again);
                    }
                    left -= 1;
                }
            });
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..others {
                        bump(&mut cell.claim_for(LONG).expect("free"));
                        std::thread::sleep(Duration::from_micros(300));
                    }
                });
            }
        });
        assert_eq!(cell.claim_for(LONG).expect("free").0, mine + mine / 3 + 2 * others);
    }

    #[test]
    fn claims_exclude_each_other_across_threads() {
        let cell = Claim::new(0u64);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..10_000 {
                        *cell.claim_for(LONG).expect("free") += 1;
                    }
                });
            }
        });
        assert_eq!(*cell.claim_for(LONG).expect("free"), 40_000);
    }
}
