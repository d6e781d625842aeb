//! How long a cache line takes from one core to the other and back: the canary of where the host put them.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Release},
};

use anyhow::{Result, anyhow};
use lab::cpu;
use packet::arch::cycles;

use super::{LOAD_CORE, SWITCH_CORE};

/// Round trips in one measurement: a millisecond or two.
const ROUNDS: u32 = 10_000;

/// Round trips that are timed together, so that reading the clock does not count.
const TIMED: u32 = 10;

/// A line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU32);

/// Median cycles of a round trip of one cache line between the two cores. Nothing else may want them.
pub fn round_trip_cycles() -> Result<f64> {
    let line = Line::default();
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| cpu::take(SWITCH_CORE).map(|()| answer(&line.0)));
        let asker = scope.spawn(|| cpu::take(LOAD_CORE).map(|()| ask(&line.0)));
        let times = asker.join().map_err(|_| anyhow!("the canary panicked"))??;
        echo.join().map_err(|_| anyhow!("the canary panicked"))??;
        Ok(times)
    })
}

/// Each odd number is answered by the next even one.
fn answer(line: &AtomicU32) {
    for round in 0..ROUNDS {
        // No pause instruction: its length would be measured too.
        while line.load(Acquire) != 2 * round + 1 {}
        line.store(2 * round + 2, Release);
    }
}

fn ask(line: &AtomicU32) -> f64 {
    let mut times = Vec::new();
    for timed in 0..ROUNDS / TIMED {
        let before = cycles();
        for round in timed * TIMED..(timed + 1) * TIMED {
            line.store(2 * round + 1, Release);
            while line.load(Acquire) != 2 * round + 2 {}
        }
        times.push(cycles().wrapping_sub(before) as f64 / f64::from(TIMED));
    }
    super::statistics::median(times).unwrap_or_default()
}
