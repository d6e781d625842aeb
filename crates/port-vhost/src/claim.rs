//! A cell that one thread at a time claims, and nobody ever waits for on the packet path.
//!
//! PMD threads try once (receive) or spin for a bounded time (transmit) and go on without; control
//! threads, which may wait, claim a ring before they change or unmap anything under it. An
//! uncontended claim is one locked instruction for each burst.

use packet::arch::cycles;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const FREE: u8 = 0;
const CLAIMED: u8 = 1;
/// Claimed, without a guard: see [`Claimed::lend`].
const LENT: u8 = 2;

/// Cycles for which a control thread tries before it yields: a few tries, as the holder may need
/// its processor.
const SHORT_SPIN: u64 = 3_000;

/// A value and the right to use it.
#[derive(Debug, Default)]
pub(crate) struct Claim<T> {
    state: AtomicU8,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through `Claimed`, of which there is at most one at a time
// (`state` is FREE before and CLAIMED while it lives), so sharing the cell only moves the value's
// use between threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for Claim<T> {}

/// The right to use the value, given up on drop.
pub(crate) struct Claimed<'a, T> {
    claim: &'a Claim<T>,
}

impl<T> Claim<T> {
    pub(crate) fn new(value: T) -> Self {
        Claim { state: AtomicU8::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Claims the value if it is free.
    #[inline(always)]
    pub(crate) fn try_claim(&self) -> Option<Claimed<'_, T>> {
        let won = self.state.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        // Not `then_some`: the drop of a guard that was not won would free the cell.
        won.is_ok().then(|| Claimed { claim: self })
    }

    /// Claims the value, trying for `limit` [`cycles`]: as long as another thread may take for one
    /// burst. It tries twice at least.
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

    /// Takes back up a claim that was [`Claimed::lend`]ed; `None` if there is none.
    #[inline(always)]
    pub(crate) fn resume(&self) -> Option<Claimed<'_, T>> {
        // A swap that only one caller can win, so that even a stray call makes no second guard.
        let won = self.state.compare_exchange(LENT, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        // Not `then_some`: the drop of a guard that was not won would free the cell.
        won.is_ok().then(|| Claimed { claim: self })
    }
}

impl<T> Claimed<'_, T> {
    /// Keeps the claim but lets go of the guard, until [`Claim::resume`].
    #[inline(always)]
    pub(crate) fn lend(self) {
        self.claim.state.store(LENT, Ordering::Release);
        std::mem::forget(self);
    }
}

impl<T> Deref for Claimed<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one (state is CLAIMED, set by a compare-and-swap from FREE
        // or LENT), so nobody else has a reference.
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
        self.claim.state.store(FREE, Ordering::Release);
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
