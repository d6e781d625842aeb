//! Captures of ports (`vswitchctl capture`): each is started by a command and has a thread, which hands what
//! comes to the one client that connects to the capture's socket.
//!
//! The client reads pieces: a letter ([`serve`]), four bytes of length, big-endian, and as many bytes. It
//! ends the capture by closing its sending side.

mod describe;
mod pcapng;
mod serve;

use crate::daemon::{Shared, locked};
use crate::switch::Switch;
use datapath::{BYTES_PER_SECOND, Capture, Captured, Counts, Filter, LOOKS_PER_SECOND, Reader};
use packet::MAX_FRAME;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Captures at once, of all ports: each costs a thread, and 4 MiB for each polling thread.
const CAPTURES_MAX: usize = 4;
/// Bytes kept of each packet for a line of text: all headers that a line tells of.
const SNAPLEN_TEXT: usize = 256;
/// Polling threads that may come during a capture and are seen.
const SPARE_THREADS: usize = 2;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) port: String,
    pub(crate) filter: Option<Filter>,
    /// As it was given.
    pub(crate) filter_text: String,
    /// Packets after which it ends.
    pub(crate) count: Option<u64>,
    /// Bytes kept of each packet.
    pub(crate) snaplen: Option<usize>,
    /// A file of packets instead of lines of text.
    pub(crate) pcapng: bool,
}

/// One that runs.
struct Running {
    id: u64,
    port: String,
    filter: String,
    capture: Arc<Capture>,
}

/// All that run.
#[derive(Default)]
pub(crate) struct Captures {
    next_id: u64,
    running: Vec<Running>,
}

/// A capture for its thread.
struct Started {
    id: u64,
    capture: Arc<Capture>,
    reader: Reader,
    /// Time of day when the switch's clock was 0.
    zero: Duration,
}

impl Captures {
    /// Those that watch a port.
    pub(crate) fn of(&self, port: &str) -> Vec<Arc<Capture>> {
        let here = self.running.iter().filter(|r| r.port == port);
        here.map(|r| r.capture.clone()).collect()
    }

    /// `capture/list`.
    pub(crate) fn show(&self) -> String {
        let mut out = String::new();
        for r in &self.running {
            let filter = if r.filter.is_empty() { "all packets" } else { &r.filter };
            let counts = r.capture.counts();
            let _ = writeln!(out, "{}: {filter}; {}", r.port, told(counts.captured, &counts));
        }
        out
    }
}

impl Switch {
    /// Has a port watched from now on. Should it be closed and opened again, it is watched again.
    fn start_capture(&mut self, wanted: &Wanted) -> Result<Started, String> {
        let port = &wanted.port;
        let Some(r) = self.running.get(port) else {
            return Err(format!("there is no open interface {port} (see vswitchctl show)"));
        };
        if r.opened.is_patch() {
            return Err(format!(
                "{port} is a patch port, through which packets go without being handled; capture a port \
                 at one of its ends"
            ));
        }
        if self.captures.running.len() >= CAPTURES_MAX {
            return Err(format!(
                "{CAPTURES_MAX} captures run, which is as many as can; end one of them (capture/list)"
            ));
        }
        let whole = if wanted.pcapng { MAX_FRAME } else { SNAPLEN_TEXT };
        let threads = self.pool.threads().iter().map(|t| t.thread.number + 1).max().unwrap_or(0);
        let clock = self.clock;
        let (capture, reader) = Capture::new(
            wanted.filter,
            wanted.snaplen.map_or(whole, |n| n.min(whole)),
            threads + SPARE_THREADS,
            Arc::new(move || clock.now_ns()),
        );
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let zero = today.saturating_sub(Duration::from_nanos(clock.now_ns()));
        let id = self.captures.next_id;
        self.captures.next_id += 1;
        let (port, filter) = (port.clone(), wanted.filter_text.clone());
        self.captures.running.push(Running { id, port, filter, capture: capture.clone() });
        self.publish_ports();
        Ok(Started { id, capture, reader, zero })
    }

    /// Has a capture end; no thread has it after this.
    fn end_capture(&mut self, id: u64) {
        self.captures.running.retain(|r| r.id != id);
        self.publish_ports();
    }
}

/// Starts a capture; returns the socket to which its client is to connect within some seconds.
///
/// # Errors
/// A line that says what is wrong.
pub(crate) fn start(switch: &Shared, wanted: Wanted) -> Result<PathBuf, String> {
    let (started, rundir) = {
        let mut s = locked(switch);
        (s.start_capture(&wanted)?, s.rundir.clone())
    };
    let id = started.id;
    let path = rundir.join(format!("capture.{}.{id}.sock", std::process::id()));
    let spawned = serve::spawn(switch.clone(), path.clone(), started, wanted);
    if let Err(e) = spawned {
        locked(switch).end_capture(id);
        return Err(format!("{}: {e}", path.display()));
    }
    Ok(path)
}

/// The sums of a capture of which `captured` packets reached the client.
fn told(captured: u64, counts: &Counts) -> String {
    let mut out = format!("{captured} packets captured");
    let missed = counts.over_budget + counts.no_room;
    if missed == 0 {
        return out + ", none missed";
    }
    let _ = write!(out, ", {missed} not captured: ");
    if counts.over_budget > 0 {
        let mib = BYTES_PER_SECOND >> 20;
        let _ = write!(
            out,
            "{} beyond the budget of {LOOKS_PER_SECOND} packets and {mib} MiB a second",
            counts.over_budget
        );
    }
    if counts.no_room > 0 {
        let and = if counts.over_budget > 0 { ", " } else { "" };
        let _ = write!(out, "{and}{} when the reader was too slow", counts.no_room);
    }
    out
}

/// The time of day at which a packet was captured, since 1970, UTC.
fn time(zero: Duration, packet: &Captured) -> Duration {
    zero + Duration::from_nanos(packet.time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let counts = |over_budget, no_room| Counts { captured: 9, over_budget, no_room };
        assert_eq!(told(8, &counts(0, 0)), "8 packets captured, none missed");
        let text = told(8, &counts(3, 4));
        assert_eq!(
            text,
            "8 packets captured, 7 not captured: 3 beyond the budget of 500000 packets and 64 MiB a \
             second, 4 when the reader was too slow"
        );
    }
}
