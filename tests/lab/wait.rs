//! Waiting: polling a condition until a deadline, and giving up early when the person asked to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at: short against everything waited for, long enough to cost nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process end with an error, so that owners drop and stop what they started.
/// For signal handlers' threads.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Fails once [`interrupt`] was called.
pub fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Polls `condition` until it yields a value, fails, or `limit` has passed; `what` completes
/// the sentence "waited N s for ...".
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        check_interrupted()?;
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Lets `time` pass, as a measuring window or for a load to build up; ends early when interrupted.
pub fn pass(time: Duration) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        check_interrupted()?;
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    check_interrupted()
}
