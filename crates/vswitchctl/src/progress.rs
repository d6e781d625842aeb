//! A sign of life on standard error while something takes long.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take before it says that it is still at work, and how often it does.
const PATIENCE: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(500);

/// Does `work`, telling a person at the terminal that `what` goes on if it takes long.
pub fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let start = Instant::now();
            let mut pause = PATIENCE;
            let mut shown = false;
            while end.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                (pause, shown) = (EVERY, true);
                let seconds = start.elapsed().as_secs_f32();
                let _ = write!(std::io::stderr(), "\r{what}: {seconds:.1} s");
            }
            if shown {
                // Leaves no trace of the line.
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        });
        let result = work();
        drop(ended);
        result
    })
}
