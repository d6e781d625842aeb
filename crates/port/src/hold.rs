//! How long a PMD thread waits for what another thread holds: a queue that both send to.
//!
//! Who holds it does so for a burst, some tens of microseconds, but may lose its processor meanwhile, and a thread that
//! does not wait for that drops its burst. So it waits: at first without letting go of its own processor, then giving it
//! to others between two looks, as the holder may need that very one. But a holder can be stuck for long, on a page of a
//! guest's memory that somebody has to bring first. That costs other threads [`PATIENCE`] once, not for each burst: who
//! gives up marks the hold as [`OVERDUE`], and nobody waits for one that is. The mark is in the word that the holder
//! overwrites when it lets go, so it goes with the hold, and neither claiming nor letting go costs anything for it.

use packet::arch::cycles;
use std::sync::atomic::{AtomicU8, Ordering::*};
use std::time::{Duration, Instant};

/// Nobody has what the word stands for.
pub const FREE: u8 = 0;
/// Somebody has. Its holder may overwrite the word; all that others may do is to make it [`OVERDUE`].
pub const HELD: u8 = 1;
/// Somebody has, and another thread waited for it in vain.
pub const OVERDUE: u8 = 2;

/// [`cycles`] for which a thread that waits keeps its processor: some 20 us, in which most bursts are over.
const SPIN: u64 = 50_000;

/// How long a thread waits before it gives a hold up: some turns of other programs on the holder's processor.
pub const PATIENCE: Duration = Duration::from_millis(10);

/// The longest that the time from one look to the next counts for: a thread that was kept from its own processor, as on
/// a host where all are busy, would not have done anything else, and the holder may be as badly off.
const LOOK: Duration = Duration::from_millis(1);

/// Waits until `try_claim` gives something, which it did not just now, for [`PATIENCE`] at most. One of `words` is
/// [`HELD`] by who has it; if several are, the first is. Not at all if the hold is [`OVERDUE`].
#[cold]
pub fn wait<T>(words: &[&AtomicU8], mut try_claim: impl FnMut() -> Option<T>) -> Option<T> {
    let start = cycles();
    let (mut last, mut waited) = (None, Duration::ZERO);
    while words.iter().all(|word| word.load(Relaxed) != OVERDUE) {
        if cycles().wrapping_sub(start) < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
        let claimed = try_claim();
        if claimed.is_some() {
            return claimed;
        }
        let now = Instant::now();
        waited += now.duration_since(last.replace(now).unwrap_or(now)).min(LOOK);
        if waited >= PATIENCE {
            let mark = |word: &&AtomicU8| word.compare_exchange(HELD, OVERDUE, Relaxed, Relaxed);
            words.iter().find(|word| mark(word).is_ok());
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_claim(word: &AtomicU8) -> Option<()> {
        word.compare_exchange(FREE, HELD, Acquire, Relaxed).ok().map(drop)
    }

    #[test]
    fn a_hold_that_ends_in_time_is_waited_for() {
        let (word, start) = (AtomicU8::new(HELD), cycles());
        let claimed = wait(&[&word], || {
            // Longer than it keeps its processor.
            if cycles().wrapping_sub(start) > 4 * SPIN {
                word.store(FREE, Release);
            }
            try_claim(&word)
        });
        assert!(claimed.is_some());
        assert_eq!(word.load(Relaxed), HELD);
    }

    #[test]
    fn one_thread_waits_in_vain_once_for_the_same_hold() {
        let (word, free) = (AtomicU8::new(HELD), AtomicU8::new(FREE));
        let words = [&free, &word];
        let start = Instant::now();
        assert!(wait(&words, || try_claim(&word)).is_none());
        assert!(start.elapsed() >= PATIENCE);
        assert_eq!((free.load(Relaxed), word.load(Relaxed)), (FREE, OVERDUE));
        for _ in 0..1000 {
            assert!(wait(&words, || -> Option<()> { panic!("nobody looks again") }).is_none());
        }
        // Let go and claimed again: another hold.
        word.store(FREE, Release);
        try_claim(&word).expect("free");
        assert!(wait(&words, || Some(())).is_some());
    }
}
