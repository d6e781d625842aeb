//! What the processors did: run time of threads, time they waited for a core, time stolen by the host.

use std::fs;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Scheduler times of one thread, from `/proc/PID/task/TID/schedstat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadTime {
    /// Thread id.
    pub tid: u32,
    /// Nanoseconds on a core.
    pub run_ns: u64,
    /// Nanoseconds ready to run while something else had the core.
    pub wait_ns: u64,
}

/// The times of all threads of process `pid`.
pub fn threads(pid: u32) -> Result<Vec<ThreadTime>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
        let name = entry?.file_name();
        let Ok(tid) = name.to_string_lossy().parse::<u32>() else { continue };
        // A thread may end between the listing and the reading.
        let path = format!("/proc/{pid}/task/{tid}/schedstat");
        let Ok(text) = fs::read_to_string(path) else { continue };
        let mut numbers = text.split_whitespace().map(str::parse);
        if let (Some(Ok(run_ns)), Some(Ok(wait_ns))) = (numbers.next(), numbers.next()) {
            threads.push(ThreadTime { tid, run_ns, wait_ns });
        }
    }
    Ok(threads)
}

/// What the busiest thread did between two readings of [`threads`].
pub fn busiest(before: &[ThreadTime], after: &[ThreadTime]) -> ThreadTime {
    let difference = |now: &ThreadTime| {
        let then = before.iter().find(|t| t.tid == now.tid).copied().unwrap_or_default();
        ThreadTime {
            tid: now.tid,
            run_ns: now.run_ns.saturating_sub(then.run_ns),
            wait_ns: now.wait_ns.saturating_sub(then.wait_ns),
        }
    };
    after.iter().map(difference).max_by_key(|t| t.run_ns).unwrap_or_default()
}

/// Ticks (1/100 s) that the host took from `core` since boot: the eighth number of its line in `/proc/stat`.
pub fn stolen_ticks(core: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().find(|l| l.split_whitespace().next() == Some(&format!("cpu{core}")));
    let line = line.with_context(|| format!("there is no core {core}"))?;
    let ticks = line.split_whitespace().nth(8).and_then(|t| t.parse().ok());
    ticks.context("/proc/stat has no steal time")
}

/// Private memory of process `pid` in kilobytes, which does not count what guests share with it.
pub fn private_memory_kb(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let kb = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok());
    kb.context("/proc has no RssAnon")
}

/// The processor's model, for reports.
pub fn model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("model name"));
    line.map_or_else(|| "unknown".into(), |l| l.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// Processors of this machine.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The core for load when the switch polls on core 0: core 1, or the same where there is only one.
pub fn load_core() -> usize {
    usize::from(count() > 1)
}

/// Keeps all threads of process `pid`, and those that they start, on `core`.
pub fn pin_process(pid: u32, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    for thread in threads(pid)? {
        let tid = rustix::process::Pid::from_raw(thread.tid.cast_signed());
        // One that has ended meanwhile is nowhere.
        let _ = sched_setaffinity(tid, &set);
    }
    Ok(())
}

/// The processes that process `pid` has started and not outlived.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in threads(pid)? {
        let path = format!("/proc/{pid}/task/{}/children", thread.tid);
        let text = fs::read_to_string(path).context("the kernel does not list children")?;
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(found)
}

/// Keeps this thread on `core`, and before what else wants it (nice -20). Needs root.
pub fn take(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))?;
    // Of the calling thread only: on Linux each has its own.
    rustix::process::setpriority_process(None, -20).context("cannot be preferred: this needs root")
}

/// This session goes before others (autogroup -20) until the value is dropped.
///
/// Where the kernel groups sessions, a thread's own nice value counts only within its session.
#[derive(Debug)]
pub struct PreferredSession(());

const AUTOGROUP: &str = "/proc/self/autogroup";

impl PreferredSession {
    /// Needs root; nothing happens where sessions are not grouped, or this one is in no group of its own
    /// (as what a container's first process starts): a thread's nice value counts everywhere then.
    pub fn new() -> Result<PreferredSession> {
        match fs::write(AUTOGROUP, "-20") {
            Err(e) if !is_ungrouped(&e) => Err(e).context("cannot be preferred: this needs root"),
            _ => Ok(PreferredSession(())),
        }
    }
}

/// `error` of writing to AUTOGROUP: the kernel groups no sessions, or this one is in the root group,
/// whose weight cannot change (`sched_group_set_shares`).
fn is_ungrouped(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput)
}

impl Drop for PreferredSession {
    fn drop(&mut self) {
        // Nothing is lost but a preference that the session's end takes away too.
        let _ = fs::write(AUTOGROUP, "0");
    }
}
