//! Virtqueues as the device sees them: bursts out of a guest's transmit ring, and into its receive
//! ring.
//!
//! A [`Ring`] is generic over the ring's [`Layout`] (split or packed), chosen once when it starts;
//! everything about buffers is here, receiving is in [`rx`] and sending in [`tx`]. What the guest
//! can write is read once and checked: a ring that breaks a rule of virtio is a [`RingFault`], and
//! its port disables it.

mod packed;
mod rx;
mod split;
#[cfg(test)]
mod tests;
mod tx;

pub(crate) use packed::Packed;
pub(crate) use split::Split;

use crate::call::Call;
use crate::mem::{GuestMemory, Window};
use packet::{Abilities, BURST, Burst, BurstBuf, Set};
use port::QueueCounters;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Descriptor flags (virtio 1.3, 2.7.5 and 2.8.1).
pub(crate) const F_NEXT: u16 = 1;
pub(crate) const F_WRITE: u16 = 2;
pub(crate) const F_INDIRECT: u16 = 4;

/// Bytes of a virtio-net header (virtio 1.3, 5.1.6), and of a legacy driver's without mergeable buffers.
const HEADER: usize = 12;
const LEGACY_HEADER: usize = 10;

/// Pieces that one buffer may have: 64 KiB in pieces of 64 bytes; QEMU takes as many. All buffers
/// of a received burst together have no more, because it ends before the buffer that would exceed
/// it (walked in vain, so a guest can make a PMD thread walk twice as many). A packet that is sent
/// is given up when its buffers have as many; a transmit call as a whole has [`tx::TX_PIECES`].
const MAX_PIECES: usize = 1024;

/// The rule that a guest's ring broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum RingFault {
    /// More new buffers than the ring has descriptors (virtio 1.3, 2.7.13).
    #[error("the available index jumped by more than the ring's size")]
    AvailJump = 1,
    /// A head or next index beyond the descriptor table.
    #[error("a descriptor index is beyond the table")]
    BadIndex,
    /// More descriptors than the ring has: a loop.
    #[error("a descriptor chain is longer than the ring")]
    Loop,
    /// A buffer outside the memory that the front end shared.
    #[error("a buffer lies outside guest memory")]
    BadAddress,
    /// A readable buffer where a writable one belongs, or the other way round.
    #[error("a buffer has the wrong direction")]
    Direction,
    /// More pieces in one buffer than `MAX_PIECES`.
    #[error("a buffer has more than {MAX_PIECES} pieces")]
    TooManyPieces,
    /// An indirect table that is empty, not a multiple of 16 bytes, or in another one.
    #[error("an indirect descriptor table is malformed")]
    Indirect,
}

impl RingFault {
    /// The fault with this number, as stored in an atomic.
    pub(crate) fn from_code(code: u8) -> Option<RingFault> {
        use RingFault::*;
        [AvailJump, BadIndex, Loop, BadAddress, Direction, TooManyPieces, Indirect]
            .into_iter()
            .find(|f| *f as u8 == code)
    }
}

/// One descriptor, read once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    /// Split: index of this descriptor. Packed: the buffer ID.
    id: u16,
    /// Split: index of the next one.
    next: u16,
}

impl Desc {
    /// Decodes the 16 bytes of a split descriptor (le64 addr, le32 len, le16 flags, le16 next) from
    /// two words. A packed descriptor has its ID where `flags` is here, and its flags last.
    #[inline(always)]
    fn split(addr: u64, rest: u64, id: u16) -> Desc {
        let (rest, addr) = (u64::from_le(rest), u64::from_le(addr));
        Desc { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16, id }
    }
}

/// A buffer that the guest made available and that has to be given back. One word, as there is one to be
/// stored and loaded for each packet: 16 bits of ID, 16 of descriptors, 32 of bytes written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lent(u64);

impl Lent {
    /// `id` is the head's index (split) or the buffer ID (packed), `count` the descriptors it takes in the
    /// ring.
    #[inline(always)]
    fn new(id: u16, count: u16) -> Lent {
        Lent(u64::from(id) | u64::from(count) << 16)
    }

    /// The same with this many bytes written to it.
    #[inline(always)]
    fn with_written(self, bytes: u32) -> Lent {
        Lent(self.0 & 0xffff_ffff | u64::from(bytes) << 32)
    }

    #[inline(always)]
    fn id(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    fn count(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    fn written(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// As in a packed ring's used descriptor, without its flags: le32 len, le16 id (virtio 1.3, 2.8.14).
    #[inline(always)]
    fn length_and_id(self) -> u64 {
        self.0.rotate_left(32) & 0xffff_ffff_ffff
    }

    /// As an element of a split ring's used ring: le32 id, le32 len (virtio 1.3, 2.7.8).
    #[inline(always)]
    fn used_element(self) -> u64 {
        (self.0 & 0xffff_ffff_0000_ffff).to_le()
    }
}

/// Where a ring lies, in the front end's addresses, and how it is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingSpec {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    /// As in `VHOST_USER_SET_VRING_BASE`.
    pub(crate) base: u32,
    pub(crate) event_idx: bool,
    /// Bytes of virtio-net header: 12, or 10 for a legacy driver without mergeable buffers.
    pub(crate) header: usize,
    pub(crate) mergeable: bool,
    /// What the guest may ask for, or can be given.
    pub(crate) abilities: Abilities,
}

/// The order in which a driver and a device pass buffers through shared memory.
pub(crate) trait Layout {
    /// A position to come back to.
    type Mark: Copy + Default;
    /// True if the last descriptor of a buffer carries its ID, and indirect tables are read in order
    /// (packed); false if the first does, and indirect tables are linked (split).
    const ID_IS_LAST: bool;

    /// Decodes an entry of an indirect table, the table's last one or not; true with the last of
    /// the buffer.
    fn indirect_entry(lo: u64, hi: u64, table_ends: bool) -> (Desc, bool);

    /// Looks for new buffers if fewer than `want` are known of.
    fn refresh(&mut self, want: usize) -> Result<(), RingFault>;
    /// Offers the next buffers' first descriptors, as far as they are known of, each with one of `slots`,
    /// until `take` refuses one; returns how many it took.
    fn offer<S>(
        &mut self,
        slots: impl Iterator<Item = S>,
        take: impl FnMut(S, &Desc) -> bool,
    ) -> Result<usize, RingFault>;
    /// The first descriptor of the next buffer.
    fn pop(&mut self) -> Result<Option<Desc>, RingFault> {
        let mut first = None;
        self.offer([&mut first].into_iter(), |first, d| {
            *first = Some(*d);
            true
        })?;
        Ok(first)
    }
    /// The descriptor that follows `d` in its buffer.
    fn more(&mut self, d: &Desc) -> Result<Desc, RingFault>;
    fn mark(&self) -> Self::Mark;
    /// Goes back to `mark`, or to `buffers` buffers of one descriptor each after it.
    fn rewind(&mut self, mark: Self::Mark, buffers: usize);
    /// Descriptors in the ring.
    fn size(&self) -> u16;
    /// Writes that buffers are used; the guest does not see it yet.
    fn give(&mut self, lent: &[Lent]);
    /// Lets the guest see all that was given.
    fn publish(&mut self);
    /// True if the guest wants an interrupt for what was published since the last call. A full memory
    /// barrier must lie between the two, or both sides may miss what the other writes (virtio 1.3,
    /// 2.7.7.1 and 2.8.10).
    fn wants_interrupt(&mut self) -> bool;
    /// Asks for the cache lines that giving back `n` buffers will need while they are worked on and, if
    /// there may be `more`, those that a next burst as long will need: of lines that the driver is about to
    /// write, it would be robbed.
    fn prefetch(&self, n: usize, more: bool);
    /// As `VHOST_USER_GET_VRING_BASE` reports it: after the last buffer that was given back.
    fn base(&self) -> u32;
    /// Tells the driver whether to kick when it makes the next buffer available. A ring begins with
    /// `false`, and a driver may kick all the same.
    fn want_kicks(&mut self, on: bool);
    /// Whether the next buffer is available; touches no state.
    fn has_new(&self) -> bool;
}

/// Host address of a buffer that lies in one region. `window` is where the last one was; the caller has it
/// among its locals, so that it stays in registers.
#[inline(always)]
fn translate(mem: &GuestMemory, window: &mut Window, d: &Desc) -> Option<*mut u8> {
    if let Some(p) = window.at(d.addr, u64::from(d.len)) {
        return Some(p);
    }
    *window = window_of(mem, d)?;
    window.at(d.addr, u64::from(d.len))
}

#[cold]
#[inline(never)]
fn window_of(mem: &GuestMemory, d: &Desc) -> Option<Window> {
    mem.find(d.addr)
}

/// A piece of a buffer, here.
#[derive(Debug, Clone, Copy)]
struct Piece {
    ptr: *mut u8,
    len: usize,
}

/// A running virtqueue.
#[derive(Debug)]
pub(crate) struct Ring<L> {
    layout: L,
    mem: Arc<GuestMemory>,
    /// The memory that the last buffer was found in.
    window: Window,
    header: usize,
    mergeable: bool,
    abilities: Abilities,
    call: Option<Arc<Call>>,
    /// Buffers behind the packets of the burst that is out, or that are being filled.
    lent: [Lent; BURST],
    lent_count: usize,
    pieces: Vec<Piece>,
    /// Buffers merged for one packet.
    merged: Vec<Lent>,
    /// Something was published and the guest was not told yet.
    untold: bool,
}

// SAFETY: the raw pointers in `pieces` and in the layouts point into the mappings that `mem` keeps;
// those are process-wide, so the ring can move to another thread.
unsafe impl<L> Send for Ring<L> {}

impl<L: Layout> Ring<L> {
    pub(crate) fn new(
        layout: L,
        mem: Arc<GuestMemory>,
        spec: &RingSpec,
        call: Option<Arc<Call>>,
    ) -> Self {
        Ring {
            layout,
            mem,
            window: Window::default(),
            header: spec.header,
            mergeable: spec.mergeable,
            abilities: spec.abilities,
            call,
            lent: [Lent::default(); BURST],
            lent_count: 0,
            // A burst ends with the buffer that exceeds MAX_PIECES, which has as many at most.
            pieces: Vec::with_capacity(2 * MAX_PIECES),
            merged: Vec::with_capacity(MAX_PIECES),
            untold: false,
        }
    }

    /// As `VHOST_USER_GET_VRING_BASE` reports it.
    pub(crate) fn base(&self) -> u32 {
        self.layout.base()
    }

    /// Sets where interrupts go.
    pub(crate) fn set_call(&mut self, call: Option<Arc<Call>>) {
        self.call = call;
    }

    /// Appends the pieces of the buffer that starts with `d` to `pieces`, [`MAX_PIECES`] at most;
    /// returns what to give back and the buffer's length.
    #[cold]
    fn gather(&mut self, first: Desc, writable: bool) -> Result<(Lent, usize), RingFault> {
        let limit = self.pieces.len() + MAX_PIECES;
        let mut d = first;
        let mut count = 1u16;
        let mut total = 0usize;
        loop {
            if d.flags & F_INDIRECT != 0 {
                // It ends the chain, but may follow others (virtio 1.3, 2.7.5.3.1 and 2.7.5.3.2).
                if d.flags & F_NEXT != 0 {
                    return Err(RingFault::Indirect);
                }
                total += self.gather_indirect(&d, writable, limit)?;
            } else {
                total += self.gather_piece(&d, writable, limit)?;
            }
            if d.flags & F_NEXT == 0 {
                break;
            }
            if count >= self.layout.size() {
                return Err(RingFault::Loop);
            }
            d = self.layout.more(&d)?;
            count += 1;
        }
        let id = if L::ID_IS_LAST { d.id } else { first.id };
        Ok((Lent::new(id, count), total))
    }

    /// Appends one descriptor's memory, which may lie in several regions. An empty descriptor counts
    /// as a piece too, or a chain of them would have no limit.
    fn gather_piece(&mut self, d: &Desc, write: bool, limit: usize) -> Result<usize, RingFault> {
        if (d.flags & F_WRITE != 0) != write {
            return Err(RingFault::Direction);
        }
        let (mut addr, mut left) = (d.addr, u64::from(d.len));
        loop {
            if self.pieces.len() >= limit {
                return Err(RingFault::TooManyPieces);
            }
            if left == 0 {
                let nowhere = std::ptr::NonNull::dangling().as_ptr();
                self.pieces.push(Piece { ptr: nowhere, len: 0 });
                return Ok(0);
            }
            let (ptr, n) = self.mem.piece(addr, left).ok_or(RingFault::BadAddress)?;
            self.pieces.push(Piece { ptr, len: n as usize });
            left -= n;
            if left == 0 {
                return Ok(d.len as usize);
            }
            addr = addr.checked_add(n).ok_or(RingFault::BadAddress)?;
        }
    }

    /// Appends the memory of an indirect table's descriptors, each read once.
    fn gather_indirect(&mut self, table: &Desc, w: bool, limit: usize) -> Result<usize, RingFault> {
        let entries = table.len / 16;
        if entries == 0 || !table.len.is_multiple_of(16) || entries > 1 << 15 {
            return Err(RingFault::Indirect);
        }
        let (mut total, mut at) = (0, 0u32);
        for _ in 0..entries {
            let addr = table.addr.checked_add(u64::from(at) * 16).ok_or(RingFault::BadAddress)?;
            let window = self.mem.find(addr).ok_or(RingFault::BadAddress)?;
            let p = window.at(addr, 16).ok_or(RingFault::BadAddress)?;
            // SAFETY: `at` found 16 bytes of guest memory.
            let (lo, hi) = unsafe { read_entry(p) };
            let (d, last) = L::indirect_entry(lo, hi, at + 1 == entries);
            if d.flags & F_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            total += self.gather_piece(&d, w, limit)?;
            if last {
                return Ok(total);
            }
            at = if L::ID_IS_LAST { at + 1 } else { u32::from(d.next) };
            if at >= entries {
                return Err(RingFault::BadIndex);
            }
        }
        Err(RingFault::Loop)
    }

    /// Gives the buffers of the last burst back to the guest; false if there were none.
    #[inline(always)]
    pub(crate) fn give_back(&mut self) -> bool {
        let n = std::mem::take(&mut self.lent_count);
        if n > 0 {
            self.layout.give(&self.lent[..n]);
            self.publish();
        }
        n > 0
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.layout.publish();
        self.untold = true;
    }

    /// Interrupts the guest if it wants that for what was published. Not done at once, because the
    /// memory barrier that has to come between would wait for the index to get to the guest.
    #[inline(always)]
    pub(crate) fn tell(&mut self, c: &QueueCounters) {
        if std::mem::take(&mut self.untold)
            && self.layout.wants_interrupt()
            && let Some(call) = &self.call
        {
            // The descriptor is non-blocking; a full counter already says what this would.
            call.tell();
            c.notified();
        }
    }

    /// Asks the driver for a kick with the next buffer. True if one is there already, for which no
    /// kick may come.
    pub(crate) fn ask_for_kicks(&mut self) -> bool {
        self.layout.want_kicks(true);
        // The wish must be visible before the ring is looked at, or both sides may miss it (virtio
        // 1.3, 2.7.13.4.1 and 2.8.21.3.1 have the driver's half).
        fence(Ordering::SeqCst);
        self.layout.has_new()
    }

    /// Tells the driver that no kicks are needed.
    pub(crate) fn refuse_kicks(&mut self) {
        self.layout.want_kicks(false);
    }
}

/// The two words of an indirect table's entry, each byte read exactly once. A driver may put the
/// table anywhere (virtio 1.3, 2.7.5.3 asks for no alignment).
///
/// # Safety
/// `p` is readable for 16 bytes, which the guest may write meanwhile.
unsafe fn read_entry(p: *const u8) -> (u64, u64) {
    let words = p.cast::<u64>();
    if words.is_aligned() {
        // SAFETY: aligned, and 16 bytes by the caller.
        return unsafe { (words.read_volatile(), words.add(1).read_volatile()) };
    }
    // SAFETY: i < 8, so both bytes are among the caller's 16.
    let word =
        |at| u64::from_ne_bytes(std::array::from_fn(|i| unsafe { p.add(at + i).read_volatile() }));
    (word(0), word(8))
}

/// A ring of either layout.
#[derive(Debug)]
pub(crate) enum AnyRing {
    Split(Ring<Split>),
    Packed(Ring<Packed>),
}

macro_rules! either {
    ($self:ident, $ring:ident => $body:expr) => {
        match $self {
            AnyRing::Split($ring) => $body,
            AnyRing::Packed($ring) => $body,
        }
    };
}

impl AnyRing {
    #[inline(always)]
    pub(crate) fn rx(&mut self, buf: &mut BurstBuf, c: &QueueCounters) -> Result<(), RingFault> {
        either!(self, r => r.rx(buf, c))
    }

    #[inline(always)]
    pub(crate) fn tx(
        &mut self,
        burst: &mut Burst<'_>,
        set: Set,
        longest: usize,
        c: &QueueCounters,
    ) -> Result<(), RingFault> {
        either!(self, r => r.tx(burst, set, longest, c))
    }

    #[inline(always)]
    pub(crate) fn give_back(&mut self) -> bool {
        either!(self, r => r.give_back())
    }

    /// Owes the guest what `was`, which this ring replaces, owed it.
    pub(crate) fn take_over(&mut self, was: &AnyRing) {
        let owed = either!(was, r => r.untold);
        either!(self, r => r.untold |= owed);
    }

    #[inline(always)]
    pub(crate) fn tell(&mut self, c: &QueueCounters) {
        either!(self, r => r.tell(c))
    }

    pub(crate) fn base(&self) -> u32 {
        either!(self, r => r.base())
    }

    pub(crate) fn set_call(&mut self, call: Option<Arc<Call>>) {
        either!(self, r => r.set_call(call))
    }

    /// Buffers that wait to be received. A packed ring has no index that says it: 0.
    pub(crate) fn waiting(&self) -> usize {
        match self {
            AnyRing::Split(ring) => ring.layout.waiting().into(),
            AnyRing::Packed(_) => 0,
        }
    }

    pub(crate) fn ask_for_kicks(&mut self) -> bool {
        either!(self, r => r.ask_for_kicks())
    }

    pub(crate) fn refuse_kicks(&mut self) {
        either!(self, r => r.refuse_kicks())
    }
}
