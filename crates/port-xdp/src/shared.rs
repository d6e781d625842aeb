//! Frames that queues share, so that one sends what another received without copying it.
//!
//! Every frame has one owner, a queue, and a queue has as many at all times: who sends another's frame gives it one of
//! its own for it ([`Share::exchange`]). So nobody waits for frames to come back, and a queue that is slow to send
//! keeps no other from receiving. A frame that was sent is not written again before the burst that it came in is over,
//! for others may still be sent its payload ([`Share::is_idle`]).

use crate::QUEUE_LIMIT;
use crate::umem::{FRAME, Umem};
use rustix::fd::OwnedFd;
use std::io::Result;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// Frames that can be shared at most: 4 GiB of them.
pub const MAX_SHARED_FRAMES: usize = 1 << 20;
/// The owner of a frame that no queue has.
const NOBODY: u32 = 0;

/// Memory in which queues of several ports have their frames. It is taken when the first of them is opened, and goes
/// with the last.
#[derive(Debug)]
pub struct SharedFrames {
    count: usize,
    area: Mutex<Weak<Area>>,
}

/// The right to open a queue.
pub(crate) type Turn<'a> = MutexGuard<'a, Weak<Area>>;

/// What is known of a frame.
#[derive(Debug)]
struct Frame {
    /// The queue that has it.
    owner: AtomicU32,
    /// The number of the frame that its lender has when the burst is over: its own, unless it was exchanged.
    instead: AtomicU32,
}

/// All frames, and who uses them.
#[derive(Debug)]
pub(crate) struct Area {
    umem: Arc<Umem>,
    frames: Box<[Frame]>,
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    /// The last queue's number.
    last: u32,
    /// Sockets that have the area, by their queues; the kernel takes any of them for it.
    sockets: Vec<(u32, OwnedFd)>,
    /// What goes for all of them.
    terms: (Asked, Terms),
    /// Queues that are closed, and until when the kernel may use their frames.
    closed: Vec<(Instant, u32)>,
}

/// What must be the same for all sockets of an area.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) zero_copy: bool,
    /// Whether checksums are left to the kernel.
    pub(crate) csum: bool,
    pub(crate) long_frames: bool,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.zero_copy { "zero-copy" } else { "copies by the kernel" })?;
        f.write_str(if self.csum { ", checksums left to it" } else { "" })?;
        f.write_str(if self.long_frames { "" } else { ", none of several frames" })
    }
}

/// What came of it, as `Queue` has it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    pub(crate) metadata: usize,
    pub(crate) parts: bool,
}

/// What a queue is opened with.
pub(crate) struct Memory {
    pub(crate) umem: Arc<Umem>,
    /// Where its frames are.
    pub(crate) frames: Vec<u64>,
    pub(crate) share: Option<Share>,
    /// Sockets that have the area already, and on which terms.
    pub(crate) joined: Option<(Vec<OwnedFd>, Terms)>,
}

impl Memory {
    /// Frames of the queue's own.
    pub(crate) fn own(count: usize) -> Result<Memory> {
        let frames = (0..count).map(address).collect();
        Ok(Memory { umem: Arc::new(Umem::new(count)?), frames, share: None, joined: None })
    }
}

fn address(number: usize) -> u64 {
    (number * FRAME) as u64
}

fn number(address: u64) -> usize {
    address as usize / FRAME
}

/// Whatever panicked, what is kept there was whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedFrames {
    /// So many frames of 4 KiB, [`MAX_SHARED_FRAMES`] at most, and what is missing to a multiple of 512.
    pub fn new(count: usize) -> SharedFrames {
        SharedFrames { count: count.min(MAX_SHARED_FRAMES), area: Mutex::default() }
    }

    /// As many as were asked for.
    pub fn count(&self) -> usize {
        self.count
    }

    /// One queue is opened at a time: the first one makes the area known to the kernel, the next ones name it.
    pub(crate) fn turn(&self) -> Turn<'_> {
        lock(&self.area)
    }

    /// Frames for a queue. Sleeps if some are to become free.
    ///
    /// # Errors
    /// Says why it cannot have any.
    pub(crate) fn take(
        &self,
        turn: &mut Turn<'_>,
        count: usize,
        asked: Asked,
    ) -> std::result::Result<Memory, String> {
        let area = match turn.upgrade() {
            Some(area) => area,
            None => Arc::new(Area::new(self.count).map_err(|e| format!("no memory: {e}"))?),
        };
        let joined = area.joined(asked)?;
        let share = Area::take(&area, count)?;
        **turn = Arc::downgrade(&area);
        let frames = share.owned().map(address).collect();
        Ok(Memory { umem: area.umem.clone(), frames, share: Some(share), joined })
    }
}

impl Area {
    fn new(count: usize) -> Result<Area> {
        let umem = Umem::new(count)?;
        let frame = |number| Frame { owner: NOBODY.into(), instead: AtomicU32::new(number) };
        let frames = (0..number(umem.bytes() as u64) as u32).map(frame).collect();
        Ok(Area { umem: Arc::new(umem), frames, users: Mutex::default() })
    }

    /// Sockets that have the area, unless the first one is to come.
    fn joined(&self, asked: Asked) -> std::result::Result<Option<(Vec<OwnedFd>, Terms)>, String> {
        let users = lock(&self.users);
        if users.sockets.is_empty() {
            return Ok(None);
        }
        let (theirs, terms) = users.terms;
        if asked != theirs {
            return Err(format!("it asks for {asked}, and those that share frames for {theirs}"));
        }
        let sockets = users.sockets.iter().map(|(_, socket)| socket.try_clone());
        let sockets = sockets.collect::<Result<_>>().map_err(|e| format!("a descriptor: {e}"))?;
        Ok(Some((sockets, terms)))
    }

    /// A new owner of `count` frames.
    fn take(area: &Arc<Area>, count: usize) -> std::result::Result<Share, String> {
        loop {
            let mut users = area.users();
            if area.free().count() >= count {
                users.last += 1;
                for frame in area.free().take(count) {
                    frame.owner.store(users.last, Relaxed);
                }
                return Ok(Share { area: area.clone(), queue: users.last });
            }
            let Some(&(until, _)) = users.closed.first() else {
                let (left, all) = (area.free().count(), area.frames.len());
                return Err(format!("it needs {count} frames, and {left} of {all} are left"));
            };
            drop(users);
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Who uses it now. Frames of queues that are closed for long enough are nobody's.
    fn users(&self) -> MutexGuard<'_, Users> {
        let mut users = lock(&self.users);
        let now = Instant::now();
        for (_, queue) in users.closed.extract_if(.., |(until, _)| *until <= now) {
            self.abandon(queue);
        }
        users
    }

    /// Frames that nobody has, and of no burst that is out.
    fn free(&self) -> impl Iterator<Item = &Frame> {
        let numbered = self.frames.iter().enumerate();
        let free = numbered.filter(|(n, f)| f.owner.load(Relaxed) == NOBODY && f.is_idle(*n));
        free.map(|(_, f)| f)
    }

    fn abandon(&self, queue: u32) {
        for frame in self.frames.iter().filter(|f| f.owner.load(Relaxed) == queue) {
            frame.owner.store(NOBODY, Relaxed);
        }
    }
}

impl Frame {
    fn is_idle(&self, number: usize) -> bool {
        self.instead.load(Acquire) == number as u32
    }
}

/// A queue's part in an area.
#[derive(Debug)]
pub(crate) struct Share {
    area: Arc<Area>,
    queue: u32,
}

impl Share {
    /// The queue's socket is bound.
    pub(crate) fn bound(&self, socket: &OwnedFd, asked: Asked, terms: Terms) -> Result<()> {
        let mut users = lock(&self.area.users);
        users.terms = (asked, terms);
        users.sockets.push((self.queue, socket.try_clone()?));
        Ok(())
    }

    /// Frames that queues have, and all.
    pub(crate) fn use_of_all(&self) -> (usize, usize) {
        let (_users, all) = (self.area.users(), self.area.frames.len());
        (all - self.area.free().count(), all)
    }

    /// Numbers of the queue's frames.
    fn owned(&self) -> impl Iterator<Item = usize> {
        let numbered = self.area.frames.iter().enumerate();
        numbered.filter(|(_, f)| f.owner.load(Relaxed) == self.queue).map(|(n, _)| n)
    }

    fn frame(&self, address: u64) -> Option<&Frame> {
        self.area.frames.get(number(address))
    }

    /// Whether a frame is the queue's: the kernel says which it received or sent, and is checked.
    pub(crate) fn owns(&self, frame: u64) -> bool {
        self.frame(frame).is_some_and(|f| f.owner.load(Relaxed) == self.queue)
    }

    /// Whether a frame is in no burst that is out.
    pub(crate) fn is_idle(&self, frame: u64) -> bool {
        self.frame(frame).is_some_and(|f| f.is_idle(number(frame)))
    }

    /// Makes a frame that was lent the queue's, to be sent, and `own`, which may be written, its lender's. False if
    /// that was done already. Only for who has the burst.
    pub(crate) fn exchange(&self, lent: u64, own: u64) -> bool {
        let (Some(one), Some(other)) = (self.frame(lent), self.frame(own)) else { return false };
        if !one.is_idle(number(lent)) {
            return false;
        }
        // Whoever sees these has got the burst's queue or this one after us.
        one.instead.store(number(own) as u32, Relaxed);
        other.owner.store(one.owner.load(Relaxed), Relaxed);
        one.owner.store(self.queue, Relaxed);
        true
    }

    /// What the queue has for a frame that it lent, as the burst is over: the same, or what it was exchanged for.
    pub(crate) fn back(&self, lent: u64) -> u64 {
        let Some(frame) = self.frame(lent) else { return lent };
        let instead = frame.instead.load(Relaxed) as usize;
        if instead != number(lent) {
            // Nobody reads it any more.
            frame.instead.store(number(lent) as u32, Release);
        }
        address(instead)
    }
}

impl Drop for Share {
    /// The queue has closed its socket.
    fn drop(&mut self) {
        let mut users = lock(&self.area.users);
        let count = users.sockets.len();
        users.sockets.retain(|(queue, _)| *queue != self.queue);
        match users.sockets.len() < count {
            // The kernel lets go of the socket, and a driver of the frames, somewhat later.
            true => users.closed.push((Instant::now() + QUEUE_LIMIT, self.queue)),
            false => self.area.abandon(self.queue),
        }
    }
}

#[cfg(test)]
mod tests;
