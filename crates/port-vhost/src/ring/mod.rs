//! Virtqueues as the device sees them: bursts out of a guest's transmit ring, and into its receive
//! ring.
//!
//! A [`Ring`] is generic over the ring's [`Layout`] (split or packed), chosen once when it starts;
//! everything about buffers, headers and copying is here. What the guest can write is read once and
//! checked: a ring that breaks a rule of virtio is a [`RingFault`], and its port disables it.

mod packed;
mod split;
#[cfg(test)]
mod tests;

pub(crate) use packed::Packed;
pub(crate) use split::Split;

use crate::mem::{GuestMemory, Window};
use packet::arch::{copy_small, prefetch_read, prefetch_write};
use packet::{BURST, Burst, BurstBuf, DropReason, HEADER_BYTES, MAX_FRAME};
use port::QueueCounters;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// Descriptor flags (virtio 1.3, 2.7.5 and 2.8.1).
pub(crate) const F_NEXT: u16 = 1;
pub(crate) const F_WRITE: u16 = 2;
pub(crate) const F_INDIRECT: u16 = 4;

/// Pieces that the buffers of one burst, or of one packet to a guest, may have: 64 KiB in pieces of
/// 64 bytes.
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
    /// An indirect table that is empty, not a multiple of 16 bytes, or in another one.
    #[error("an indirect descriptor table is malformed")]
    Indirect,
}

impl RingFault {
    /// The fault with this number, as stored in an atomic.
    pub(crate) fn from_code(code: u8) -> Option<RingFault> {
        use RingFault::*;
        [AvailJump, BadIndex, Loop, BadAddress, Direction, Indirect]
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

/// A buffer that the guest made available and that has to be given back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lent {
    /// Head index (split) or buffer ID (packed).
    id: u16,
    /// Descriptors it takes in the ring.
    count: u16,
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
    /// The first descriptor of the next buffer.
    fn pop(&mut self) -> Result<Option<Desc>, RingFault>;
    /// The descriptor that follows `d` in its buffer.
    fn more(&mut self, d: &Desc) -> Result<Desc, RingFault>;
    fn mark(&self) -> Self::Mark;
    fn rewind(&mut self, mark: Self::Mark);
    /// Descriptors in the ring.
    fn size(&self) -> u16;
    /// Writes that a buffer is used, `written` bytes of it; the guest does not see it yet.
    fn give(&mut self, lent: Lent, written: u32);
    /// Lets the guest see all that was given. Returns true if it wants an interrupt for it.
    fn publish(&mut self) -> bool;
    /// As `VHOST_USER_GET_VRING_BASE` reports it.
    fn base(&self) -> u32;
}

/// A piece of a buffer, here.
#[derive(Debug, Clone, Copy)]
struct Piece {
    ptr: *mut u8,
    len: usize,
}

/// A buffer of a received packet: one piece, or a range of [`Ring::pieces`].
#[derive(Clone, Copy)]
struct Source {
    ptr: *mut u8,
    len: usize,
    /// Range of `pieces` if `ptr` is null.
    first: usize,
    count: usize,
}

impl Default for Source {
    fn default() -> Self {
        Source { ptr: std::ptr::null_mut(), len: 0, first: 0, count: 0 }
    }
}

/// What became of a transmit call.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    packets: u64,
    header_bytes: u64,
    payload_bytes: u64,
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
    call: Option<EventFd>,
    /// Buffers behind the packets of the burst that is out.
    lent: Vec<Lent>,
    pieces: Vec<Piece>,
    /// Buffers merged for one packet, and bytes written to each.
    merged: Vec<(Lent, usize)>,
}

// SAFETY: the raw pointers in `pieces` and in the layouts point into the mappings that `mem` keeps;
// those are process-wide, so the ring can move to another thread.
unsafe impl<L> Send for Ring<L> {}

impl<L: Layout> Ring<L> {
    pub(crate) fn new(
        layout: L,
        mem: Arc<GuestMemory>,
        spec: &RingSpec,
        call: Option<EventFd>,
    ) -> Self {
        Ring {
            layout,
            mem,
            window: Window::default(),
            header: spec.header,
            mergeable: spec.mergeable,
            call,
            lent: Vec::with_capacity(BURST),
            pieces: Vec::with_capacity(MAX_PIECES),
            merged: Vec::with_capacity(MAX_PIECES),
        }
    }

    /// As `VHOST_USER_GET_VRING_BASE` reports it.
    pub(crate) fn base(&self) -> u32 {
        self.layout.base()
    }

    /// Sets where interrupts go.
    pub(crate) fn set_call(&mut self, call: Option<EventFd>) {
        self.call = call;
    }

    /// Host address of a buffer that lies in one region.
    #[inline(always)]
    fn translate(&mut self, addr: u64, len: u32) -> Option<*mut u8> {
        if let Some(p) = self.window.at(addr, u64::from(len)) {
            return Some(p);
        }
        self.translate_elsewhere(addr, len)
    }

    #[cold]
    fn translate_elsewhere(&mut self, addr: u64, len: u32) -> Option<*mut u8> {
        self.window = self.mem.find(addr)?;
        self.window.at(addr, u64::from(len))
    }

    /// Takes up to [`BURST`] packets out of a guest's transmit ring.
    #[inline(always)]
    pub(crate) fn rx(&mut self, buf: &mut BurstBuf, c: &QueueCounters) -> Result<(), RingFault> {
        buf.clear();
        self.layout.refresh(BURST)?;
        let mut sources = [Source::default(); BURST];
        let mut n = 0;
        while n < BURST {
            let Some(d) = self.layout.pop()? else { break };
            let mut lent = Lent { id: d.id, count: 1 };
            if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) == 0
                && let Some(ptr) = self.translate(d.addr, d.len)
            {
                prefetch_read(ptr);
                prefetch_read(ptr.wrapping_add(64));
                sources[n] = Source { ptr, len: d.len as usize, first: 0, count: 0 };
            } else {
                let first = self.pieces.len();
                let (whole, len) = self.gather(d, false)?;
                lent = whole;
                let count = self.pieces.len() - first;
                sources[n] = Source { ptr: std::ptr::null_mut(), len, first, count };
            }
            self.lent.push(lent);
            n += 1;
        }
        let mut sum = Sent::default();
        for s in &sources[..n] {
            match self.fetch(buf, s) {
                Ok((head, len)) => {
                    sum.header_bytes += head as u64;
                    sum.payload_bytes += (len - head) as u64;
                }
                Err(reason) => c.drops.add(reason, 1),
            }
        }
        self.pieces.clear();
        if n > 0 {
            c.burst(buf.len() as u64, sum.header_bytes, sum.payload_bytes);
        }
        Ok(())
    }

    /// Makes a packet of one buffer; returns its private and whole length.
    #[inline(always)]
    fn fetch(&self, buf: &mut BurstBuf, s: &Source) -> Result<(usize, usize), DropReason> {
        let Some(frame) = s.len.checked_sub(self.header).filter(|&n| n >= 14) else {
            return Err(DropReason::RxShortFrame);
        };
        if frame > MAX_FRAME {
            return Err(DropReason::RxOversize);
        }
        if s.ptr.is_null() {
            return self.fetch_pieces(buf, s);
        }
        let head = frame.min(HEADER_BYTES);
        let p = buf.push().ok_or(DropReason::RxTooManySegments)?;
        // SAFETY: `translate` found all `s.len` bytes in guest memory, which `mem` keeps mapped;
        // header + head is not more.
        let asks = offload_asked(unsafe { p.fetch(s.ptr, self.header + head, self.header) });
        if frame > head {
            let rest = s.ptr.wrapping_add(self.header + head);
            // SAFETY: as above; the ring stays claimed, and so mapped, until the burst ends.
            unsafe { buf.add_segment(rest, frame - head) };
        }
        if asks {
            buf.pop();
            return Err(DropReason::RxInvalidOffload);
        }
        Ok((head, frame))
    }

    /// As [`Ring::fetch`] for a buffer in several pieces, with the virtio-net header anywhere.
    #[cold]
    fn fetch_pieces(&self, buf: &mut BurstBuf, s: &Source) -> Result<(usize, usize), DropReason> {
        let pieces = &self.pieces[s.first..s.first + s.count];
        // What `gather` did not keep was too much for one burst.
        if pieces.iter().map(|p| p.len).sum::<usize>() != s.len
            || buf.segments_left() < pieces.len()
        {
            return Err(DropReason::RxTooManySegments);
        }
        let mut device = [0u8; 12];
        let mut skip = 0;
        let p = buf.push().ok_or(DropReason::RxTooManySegments)?;
        let mut head = 0;
        let mut split = None;
        let mut borrowed = pieces.len();
        for (i, piece) in pieces.iter().enumerate() {
            let mut at = 0;
            if skip < self.header {
                at = piece.len.min(self.header - skip);
                // SAFETY: `gather` found the piece in guest memory; skip + at <= header <= 12.
                unsafe {
                    std::ptr::copy_nonoverlapping(piece.ptr, device.as_mut_ptr().add(skip), at)
                };
                skip += at;
            }
            let n = (piece.len - at).min(HEADER_BYTES - head);
            if n > 0 {
                // SAFETY: at + n is within the piece.
                unsafe { p.fetch_more(piece.ptr.add(at), n) };
                head += n;
            }
            if piece.len > at + n {
                split =
                    Some(Piece { ptr: piece.ptr.wrapping_add(at + n), len: piece.len - at - n });
                borrowed = i + 1;
                break;
            }
        }
        if offload_asked(&device) {
            buf.pop();
            return Err(DropReason::RxInvalidOffload);
        }
        for piece in split.iter().chain(&pieces[borrowed..]) {
            // SAFETY: pieces are guest memory, mapped until the burst ends, see `fetch`.
            unsafe { buf.add_segment(piece.ptr, piece.len) };
        }
        Ok((head, s.len - self.header))
    }

    /// Appends the pieces of the buffer that starts with `d` to `pieces`; returns what to give back
    /// and the buffer's length. Pieces beyond [`MAX_PIECES`] are walked but not kept.
    #[cold]
    fn gather(&mut self, first: Desc, writable: bool) -> Result<(Lent, usize), RingFault> {
        let mut d = first;
        let mut count = 1u16;
        let mut total = 0usize;
        loop {
            if d.flags & F_INDIRECT != 0 {
                // An indirect descriptor is alone in its buffer (virtio 1.3, 2.7.5.3.1, 2.8.7).
                if d.flags & F_NEXT != 0 || count > 1 {
                    return Err(RingFault::Indirect);
                }
                total += self.gather_indirect(&d, writable)?;
            } else {
                total += self.gather_piece(&d, writable)?;
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
        Ok((Lent { id, count }, total))
    }

    /// Appends one descriptor's memory, which may lie in several regions.
    fn gather_piece(&mut self, d: &Desc, writable: bool) -> Result<usize, RingFault> {
        if (d.flags & F_WRITE != 0) != writable {
            return Err(RingFault::Direction);
        }
        let (mut addr, mut left) = (d.addr, u64::from(d.len));
        while left > 0 {
            let (ptr, n) = self.mem.piece(addr, left).ok_or(RingFault::BadAddress)?;
            if self.pieces.len() < MAX_PIECES {
                self.pieces.push(Piece { ptr, len: n as usize });
            }
            left -= n;
            addr = addr.checked_add(n).or((left == 0).then_some(0)).ok_or(RingFault::BadAddress)?;
        }
        Ok(d.len as usize)
    }

    /// Appends the memory of an indirect table's descriptors, each read once.
    fn gather_indirect(&mut self, table: &Desc, writable: bool) -> Result<usize, RingFault> {
        let entries = table.len / 16;
        if entries == 0 || !table.len.is_multiple_of(16) || entries > 1 << 15 {
            return Err(RingFault::Indirect);
        }
        let (mut total, mut at) = (0, 0u32);
        for _ in 0..entries {
            let addr = table.addr.checked_add(u64::from(at) * 16).ok_or(RingFault::BadAddress)?;
            let window = self.mem.find(addr).ok_or(RingFault::BadAddress)?;
            let p = window.at(addr, 16).ok_or(RingFault::BadAddress)?.cast::<u64>();
            // SAFETY: 16 bytes of guest memory at p; they may be unaligned.
            let (lo, hi) = unsafe { (p.read_unaligned(), p.add(1).read_unaligned()) };
            let (d, last) = L::indirect_entry(lo, hi, at + 1 == entries);
            if d.flags & F_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            total += self.gather_piece(&d, writable)?;
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

    /// Gives the buffers of the last burst back to the guest.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, c: &QueueCounters) {
        for &lent in &self.lent {
            self.layout.give(lent, 0);
        }
        if !self.lent.is_empty() {
            self.lent.clear();
            self.notify(c);
        }
    }

    #[inline(always)]
    fn notify(&mut self, c: &QueueCounters) {
        if self.layout.publish()
            && let Some(call) = &self.call
        {
            // The descriptor is non-blocking; a full counter already says what this would.
            let _ = call.write(1);
            c.notified();
        }
    }

    /// Puts the packets of `picks` into a guest's receive ring. Drops are counted in `c`.
    #[inline(always)]
    pub(crate) fn tx(
        &mut self,
        burst: &mut Burst<'_>,
        picks: &[u8],
        c: &QueueCounters,
    ) -> Result<(), RingFault> {
        self.layout.refresh(picks.len().min(BURST))?;
        let mut room = [(std::ptr::null_mut::<u8>(), 0usize, 0u16); BURST];
        let mut marks = [L::Mark::default(); BURST];
        let mut n = 0;
        while n < picks.len().min(BURST) {
            marks[n] = self.layout.mark();
            let Some(d) = self.layout.pop()? else { break };
            if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) != F_WRITE {
                self.layout.rewind(marks[n]);
                break;
            }
            let Some(ptr) = self.translate(d.addr, d.len) else {
                self.layout.rewind(marks[n]);
                break;
            };
            prefetch_write(ptr);
            prefetch_write(ptr.wrapping_add(64));
            room[n] = (ptr, d.len as usize, d.id);
            n += 1;
        }
        let mut sum = Sent::default();
        let mut done = 0;
        for &i in &picks[..n] {
            let i = usize::from(i);
            let (ptr, cap, id) = room[done];
            let total = self.header + burst.packets()[i].len();
            if total > cap {
                self.layout.rewind(marks[done]);
                break;
            }
            // SAFETY: `translate` found `cap` writable bytes of guest memory at ptr.
            unsafe { self.store(ptr, burst, i, &mut sum) };
            self.layout.give(Lent { id, count: 1 }, total as u32);
            done += 1;
        }
        if done < picks.len() {
            self.tx_slow(burst, &picks[done..], c, &mut sum)?;
        }
        if sum.packets > 0 {
            c.burst(sum.packets, sum.header_bytes, sum.payload_bytes);
            self.notify(c);
        }
        Ok(())
    }

    /// Writes header and packet `i` to one contiguous buffer.
    ///
    /// # Safety
    /// `ptr` is writable for the virtio-net header and the packet.
    #[inline(always)]
    unsafe fn store(&self, ptr: *mut u8, burst: &mut Burst<'_>, i: usize, sum: &mut Sent) {
        let p = burst.packet_mut(i);
        let len = p.len();
        let head =
            if self.header == 12 { p.prefixed(net_header(1)) } else { p.prefixed([0u8; 10]) };
        let private = head.len() - self.header;
        // SAFETY: head.len() <= header + len, which the caller promises to be writable.
        unsafe { copy_small(head.as_ptr(), ptr, head.len()) };
        sum.packets += 1;
        sum.header_bytes += private as u64;
        if len > private {
            let mut at = ptr.wrapping_add(self.header + private);
            for s in burst.segments(i) {
                // SAFETY: the segments are the rest of the packet's length.
                unsafe { std::ptr::copy_nonoverlapping(s.as_ptr(), at, s.len()) };
                at = at.wrapping_add(s.len());
            }
            sum.payload_bytes += (len - private) as u64;
        }
    }

    /// The rest of a transmit call, one packet at a time: chained, indirect, small and merged
    /// buffers, and rings that run out.
    #[cold]
    fn tx_slow(
        &mut self,
        burst: &mut Burst<'_>,
        picks: &[u8],
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<(), RingFault> {
        for (k, &i) in picks.iter().enumerate() {
            let i = usize::from(i);
            let need = self.header + burst.packets()[i].len();
            let start = self.layout.mark();
            match self.collect(need) {
                Ok(true) => {
                    self.scatter(burst, i, need, sum);
                    for k in 0..self.merged.len() {
                        let (lent, written) = self.merged[k];
                        self.layout.give(lent, written as u32);
                    }
                }
                Ok(false) => {
                    self.layout.rewind(start);
                    let small = !self.mergeable && !self.merged.is_empty();
                    if small {
                        c.drops.add(DropReason::TxBufferTooSmall, 1);
                    } else {
                        c.drops.add(DropReason::TxRingFull, (picks.len() - k) as u64);
                        break;
                    }
                }
                Err(fault) => {
                    c.drops.add(DropReason::TxRingBroken, (picks.len() - k) as u64);
                    return Err(fault);
                }
            }
        }
        self.pieces.clear();
        Ok(())
    }

    /// Collects buffers for `need` bytes in `pieces` and `merged`; false if there are not enough.
    fn collect(&mut self, need: usize) -> Result<bool, RingFault> {
        self.pieces.clear();
        self.merged.clear();
        let mut have = 0;
        while have < need {
            if self.merged.len() == MAX_PIECES || self.pieces.len() == MAX_PIECES {
                return Ok(false);
            }
            if !self.merged.is_empty() && !self.mergeable {
                return Ok(false);
            }
            self.layout.refresh(1)?;
            let Some(d) = self.layout.pop()? else {
                return Ok(false);
            };
            let before = self.pieces.len();
            let (lent, _) = self.gather(d, true)?;
            let len: usize = self.pieces[before..].iter().map(|p| p.len).sum();
            self.merged.push((lent, len.min(need - have)));
            have += len;
        }
        Ok(true)
    }

    /// Writes header and packet `i`, `need` bytes in all, over the collected pieces.
    fn scatter(&mut self, burst: &mut Burst<'_>, i: usize, need: usize, sum: &mut Sent) {
        let buffers = if self.mergeable { self.merged.len() as u16 } else { 1 };
        let p = burst.packet_mut(i);
        let head = match self.header {
            12 => p.prefixed(net_header(buffers)),
            _ => p.prefixed([0u8; 10]),
        };
        let private = head.len() - self.header;
        let mut out = Scatter { pieces: &self.pieces, at: 0 };
        // SAFETY: `collect` found at least `need` bytes of guest memory in `pieces`, and header plus
        // segments are `need` bytes.
        unsafe {
            out.write(head.as_ptr(), head.len());
            for s in burst.segments(i) {
                out.write(s.as_ptr(), s.len());
            }
        }
        sum.packets += 1;
        sum.header_bytes += private as u64;
        sum.payload_bytes += (need - self.header - private) as u64;
    }
}

/// A cursor over pieces of guest memory to write to.
struct Scatter<'a> {
    pieces: &'a [Piece],
    /// Bytes written of the first piece.
    at: usize,
}

impl Scatter<'_> {
    /// Copies `len` bytes from `src` to where the cursor is; what does not fit is left out.
    ///
    /// # Safety
    /// `src` is readable for `len` bytes; the pieces are writable.
    unsafe fn write(&mut self, mut src: *const u8, mut len: usize) {
        while len > 0 {
            let Some(p) = self.pieces.first() else { return };
            let n = len.min(p.len - self.at);
            // SAFETY: at + n <= p.len, and n <= len.
            unsafe { std::ptr::copy_nonoverlapping(src, p.ptr.add(self.at), n) };
            self.at += n;
            src = src.wrapping_add(n);
            len -= n;
            if self.at == p.len {
                self.pieces = &self.pieces[1..];
                self.at = 0;
            }
        }
    }
}

/// A virtio-net header without offload (virtio 1.3, 5.1.6): ten zeros and `num_buffers`.
#[inline(always)]
fn net_header(buffers: u16) -> [u8; 12] {
    let [lo, hi] = buffers.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, lo, hi]
}

/// True if a virtio-net header asks for checksumming or segmentation, which were not offered.
#[inline(always)]
fn offload_asked(header: &[u8]) -> bool {
    header[0] & 1 != 0 || header[1] != 0
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
        picks: &[u8],
        c: &QueueCounters,
    ) -> Result<(), RingFault> {
        either!(self, r => r.tx(burst, picks, c))
    }

    #[inline(always)]
    pub(crate) fn give_back(&mut self, c: &QueueCounters) {
        either!(self, r => r.give_back(c))
    }

    pub(crate) fn base(&self) -> u32 {
        either!(self, r => r.base())
    }

    pub(crate) fn set_call(&mut self, call: Option<EventFd>) {
        either!(self, r => r.set_call(call))
    }
}
