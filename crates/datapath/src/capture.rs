//! Capture: copies of a port's packets for somebody who watches it.
//!
//! What a thread spends on it is bounded, whatever the port carries and whoever reads: packets are looked
//! at and bytes are copied within a budget, into a ring of the thread's own that is never waited for.
//! What is beyond that is counted and not captured.

use crate::walk::extract_deep;
use flow::{DpPort, Extracted, FlowKey, FlowMask, extract};
use packet::{Burst, MAX_FRAME, Offload, Set};
use qos::{Bucket, Limit, Now};
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Packets that one capture looks at in a second at most, all threads together: at 50 to 100 ns each, 5 %
/// of a core.
pub const LOOKS_PER_SECOND: u64 = 500_000;
/// Bytes that one capture copies in a second at most, [`HEAD`] for each packet included: 2 % of a core.
pub const BYTES_PER_SECOND: u64 = 64 << 20;
/// The part of a second for which both may be saved up.
const SAVED_PART: u64 = 20;
/// Bytes that wait for the reader, for each thread: a sixteenth of a second of all that may be copied.
const RING_BYTES: usize = 4 << 20;

/// Bytes in front of each frame in a ring.
const HEAD: usize = size_of::<Head>();

/// Which way a packet goes, as the switch sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Received from the port, before its limits.
    In,
    /// About to be sent to the port, after its limits.
    Out,
}

/// Packets that agree with `key` in the bits of `mask`. Ports and recirculation are not seen.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    /// The packet's fields.
    pub key: FlowKey,
    /// The bits that matter.
    pub mask: FlowMask,
}

/// What is said of a frame in a ring.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    time_ns: u64,
    /// Length of the frame, and of what was kept of it, which follows.
    len: u32,
    kept: u32,
    offload: [u8; Offload::BYTES],
    out: u8,
    pad: [u8; 5],
}

/// A captured packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// When it was looked at, by the capture's clock.
    pub time_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// Length of the whole frame in bytes.
    pub len: usize,
    /// What was left to do for it.
    pub offload: Offload,
    /// Its first bytes.
    pub frame: Vec<u8>,
}

/// What became of the packets that a capture met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Captured.
    pub captured: u64,
    /// Beyond the budget; with a filter, they might not have been wanted.
    pub over_budget: u64,
    /// Wanted when the reader had left no room.
    pub no_room: u64,
}

/// One thread's way to the reader.
struct Lane {
    ring: Producer<u8>,
    /// Where a record is put together.
    record: Box<[u8]>,
}

/// A capture of one port, shared by all threads that receive from it or send to it.
pub struct Capture {
    filter: Option<Filter>,
    /// Bytes kept of each frame at most.
    snaplen: usize,
    now: Now,
    looks: Bucket,
    bytes: Bucket,
    /// By number of thread. Only that thread locks one, so it never waits.
    lanes: Box<[Mutex<Lane>]>,
    ended: AtomicBool,
    captured: AtomicU64,
    over_budget: AtomicU64,
    no_room: AtomicU64,
}

/// The other end of a capture's rings.
pub struct Reader(Vec<Consumer<u8>>);

impl Capture {
    /// A capture for threads with numbers below `threads`; what others meet finds no room. Of each frame
    /// `snaplen` bytes are kept, at least 1 and at most [`MAX_FRAME`]. `now` tells nanoseconds of a clock
    /// that never goes back.
    pub fn new(
        filter: Option<Filter>,
        snaplen: usize,
        threads: usize,
        now: Now,
    ) -> (Arc<Capture>, Reader) {
        let snaplen = snaplen.clamp(1, MAX_FRAME);
        let lane = |_| {
            let (ring, reader) = RingBuffer::new(RING_BYTES);
            (Mutex::new(Lane { ring, record: vec![0; HEAD + snaplen].into() }), reader)
        };
        let (lanes, readers): (Vec<_>, Vec<_>) = (0..threads).map(lane).unzip();
        let bucket = |rate| Bucket::new(Limit { rate, burst: rate / SAVED_PART });
        let capture = Capture {
            filter,
            snaplen,
            now,
            looks: bucket(LOOKS_PER_SECOND),
            bytes: bucket(BYTES_PER_SECOND),
            lanes: lanes.into(),
            ended: AtomicBool::new(false),
            captured: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
        };
        (Arc::new(capture), Reader(readers))
    }

    /// Nothing is captured or counted from now on.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// What became of the packets so far.
    pub fn counts(&self) -> Counts {
        Counts {
            captured: self.captured.load(Relaxed),
            over_budget: self.over_budget.load(Relaxed),
            no_room: self.no_room.load(Relaxed),
        }
    }

    /// Copies those packets of `set`, which may be none, that are wanted and that there is budget and room for.
    #[inline(never)]
    pub(crate) fn take(&self, burst: &mut Burst<'_>, set: Set, way: Direction, thread: usize) {
        if set.is_empty() || self.ended.load(Relaxed) {
            return;
        }
        let now = (self.now)();
        let looked = self.looks.pass(now, set, |_| 1);
        count(&self.over_budget, set.len() - looked.len());
        let wanted = match &self.filter {
            None => looked,
            Some(filter) => looked.filter(|i| filter.matches(burst, i)),
        };
        let packets = burst.packets();
        let cost = |i: usize| (HEAD + packets[i].len().min(self.snaplen)) as u64;
        let paid = self.bytes.pass(now, wanted, cost);
        count(&self.over_budget, wanted.len() - paid.len());
        if paid.is_empty() {
            return;
        }
        let lane = self.lanes.get(thread).and_then(|lane| lane.try_lock().ok());
        let kept =
            lane.map_or(Set::NONE, |mut lane| paid.filter(|i| lane.push(burst, i, way, now)));
        count(&self.captured, kept.len());
        count(&self.no_room, paid.len() - kept.len());
    }
}

impl Lane {
    /// Puts packet `i` into the ring; false if there is no room.
    fn push(&mut self, burst: &Burst<'_>, i: usize, way: Direction, time_ns: u64) -> bool {
        let packet = &burst.packets()[i];
        let (head, frame) = self.record.split_at_mut(HEAD);
        let n = packet.len().min(frame.len());
        if self.ring.slots() < HEAD + n {
            return false;
        }
        burst.copy_to(i, &mut frame[..n]);
        let (first, rest) = packet.offload.words();
        let mut offload = [0; Offload::BYTES];
        offload[..8].copy_from_slice(&first.to_ne_bytes());
        offload[8..].copy_from_slice(&rest.to_ne_bytes());
        let (len, kept, out) = (packet.len() as u32, n as u32, u8::from(way == Direction::Out));
        let said = Head { time_ns, len, kept, offload, out, pad: [0; 5] };
        head.copy_from_slice(said.as_bytes());
        self.ring.push_entire_slice(&self.record[..HEAD + n]).is_ok()
    }
}

impl Filter {
    fn matches(&self, burst: &mut Burst<'_>, i: usize) -> bool {
        let mut out = Extracted::default();
        let p = &burst.packets()[i];
        if extract(p.header(), p.len(), 0, &mut out).is_err() {
            extract_deep(burst, i, 0, DpPort(0), &mut out);
        }
        self.mask.agrees(&out.key, &self.key)
    }
}

impl Reader {
    /// Takes what has come, in the order of time.
    pub fn take(&mut self) -> Vec<Captured> {
        let mut all: Vec<Captured> = self.0.iter_mut().flat_map(drain).collect();
        all.sort_by_key(|p| p.time_ns);
        all
    }
}

/// Takes the records that are in a ring now.
fn drain(ring: &mut Consumer<u8>) -> Vec<Captured> {
    let mut out = Vec::new();
    let mut left = ring.slots();
    let mut head = [0; HEAD];
    // A record is put in whole.
    while left >= HEAD && ring.pop_entire_slice(&mut head).is_ok() {
        let Ok(head) = Head::read_from_bytes(&head) else { break };
        let mut frame = vec![0; head.kept as usize];
        if ring.pop_entire_slice(&mut frame).is_err() {
            break;
        }
        left = left.saturating_sub(HEAD + frame.len());
        out.push(Captured {
            time_ns: head.time_ns,
            direction: if head.out == 0 { Direction::In } else { Direction::Out },
            len: head.len as usize,
            offload: Offload::from_device(&head.offload).unwrap_or_default(),
            frame,
        });
    }
    out
}

/// Several threads count here, each at most once a burst.
fn count(counter: &AtomicU64, n: usize) {
    if n > 0 {
        counter.fetch_add(n as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests;
