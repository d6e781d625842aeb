//! Progress of anything that takes over two seconds: one changing line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a step that is not on a terminal says that it is still alive.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// A step under way. [`Step::done`] prints how long it took; dropping it without that clears its line.
pub struct Step {
    what: String,
    start: Instant,
    bar: Option<ProgressBar>,
    last_plain: Instant,
}

impl Step {
    /// Announces the step at once.
    pub fn start(what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg}");
            let bar = ProgressBar::new_spinner().with_prefix(what.clone());
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            eprintln!("- {what} ...");
        }
        Step { what, start: Instant::now(), bar, last_plain: Instant::now() }
    }

    /// Shows what the step is doing right now.
    pub fn say(&mut self, now: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(now.to_owned());
        } else if self.last_plain.elapsed() >= PLAIN_INTERVAL {
            self.last_plain = Instant::now();
            eprintln!("  {} s: {now}", self.start.elapsed().as_secs());
        }
    }

    /// Prints the step with its time.
    pub fn done(self) {
        let line = format!("- {}: {:.1} s", self.what, self.start.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
