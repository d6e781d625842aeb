//! Packets into a guest's receive ring: the one copy of their payload.

use super::{F_INDIRECT, F_NEXT, F_WRITE, Layout, Lent, MAX_PIECES, Piece, Ring, RingFault};
use packet::arch::{copy_small, prefetch_write};
use packet::{BURST, Burst, DropReason, Packet, Set};
use port::QueueCounters;

/// Pieces walked in one transmit call, tries that come to nothing included; the buffer that exceeds
/// it is walked to its end, so [`MAX_PIECES`] may come on top. A burst of 64 KiB frames over merged
/// buffers of 1.5 KiB takes 1408.
pub(super) const TX_PIECES: usize = 2 * MAX_PIECES;

/// What became of a transmit call.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    packets: u64,
    header_bytes: u64,
    payload_bytes: u64,
    /// Counted as dropped.
    dropped: u64,
}

/// Bounds of one transmit call.
struct Limits {
    /// Bytes of a frame at most.
    longest: usize,
    /// Pieces that may still be walked.
    pieces: usize,
}

/// A buffer to be filled, in one piece.
#[derive(Clone, Copy)]
struct Room {
    ptr: *mut u8,
    len: usize,
}

impl<L: Layout> Ring<L> {
    /// Puts the packets of `set`, as far as they are no longer than `longest`, into a guest's receive
    /// ring. Drops are counted in `c`.
    #[inline(always)]
    pub(crate) fn tx(
        &mut self,
        burst: &Burst<'_>,
        set: Set,
        longest: usize,
        c: &QueueCounters,
    ) -> Result<(), RingFault> {
        let mut sum = Sent::default();
        let result = self.send(burst, set, longest, c, &mut sum);
        if sum.packets > 0 {
            c.burst(sum.packets, sum.header_bytes, sum.payload_bytes);
            self.publish();
        }
        if result.is_err() {
            let lost = set.len() as u64 - sum.packets - sum.dropped;
            c.drops.add(DropReason::TxRingBroken, lost);
        }
        result
    }

    /// As [`Ring::tx`], without counting and without telling the guest.
    ///
    /// Buffers are looked for first and filled then, so that all their cache lines are on the way
    /// before the first of them is needed.
    #[inline(always)]
    fn send(
        &mut self,
        burst: &Burst<'_>,
        set: Set,
        longest: usize,
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<(), RingFault> {
        let start = self.layout.mark();
        let mut rooms = [Room { ptr: std::ptr::null_mut(), len: 0 }; BURST];
        let found = self.find_rooms(&mut rooms, set.len(), self.header + longest)?;
        let (mut left, mut done) = (set, 0);
        for (room, lent) in rooms[..found].iter().zip(&mut self.lent) {
            let Some(i) = left.first() else { break };
            let p = &burst.packets()[i];
            let total = self.header + p.len();
            if total > room.len {
                break;
            }
            // SAFETY: `find_rooms` found `room.len` writable bytes of guest memory.
            unsafe { store(room.ptr, self.header, burst, i, p, sum) };
            lent.written = total as u32;
            (left, done) = (left.without(Set::one(i)), done + 1);
        }
        self.layout.give(&self.lent[..done]);
        if left.is_empty() {
            return Ok(());
        }
        self.layout.rewind(start, done);
        self.tx_slow(burst, left, Limits { longest, pieces: TX_PIECES }, c, sum)
    }

    /// Takes the next buffers of the ring into `rooms` and `lent`, `want` of them at most and as long as
    /// they are in one piece. The length of a room is the buffer's, or `most` if that is less.
    #[inline(always)]
    fn find_rooms(
        &mut self,
        rooms: &mut [Room; BURST],
        want: usize,
        most: usize,
    ) -> Result<usize, RingFault> {
        let want = want.min(BURST);
        self.layout.refresh(want)?;
        let mut window = self.window;
        let mut n = 0;
        while n < want {
            let Some(d) = self.layout.pop()? else { break };
            if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) != F_WRITE {
                break;
            }
            let Some(ptr) = self.translate(&mut window, &d) else { break };
            prefetch_write(ptr);
            prefetch_write(ptr.wrapping_add(64));
            rooms[n] = Room { ptr, len: most.min(d.len as usize) };
            self.lent[n] = Lent { id: d.id, count: 1, written: 0 };
            n += 1;
        }
        self.window = window;
        if n > 0 {
            self.layout.prefetch(n);
        }
        Ok(n)
    }

    /// The rest of a transmit call, one packet at a time: chained, indirect, small and merged
    /// buffers, and rings that run out.
    #[cold]
    fn tx_slow(
        &mut self,
        burst: &Burst<'_>,
        mut set: Set,
        mut limits: Limits,
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<(), RingFault> {
        while let Some(i) = set.first() {
            let drop = |reason, sum: &mut Sent, n: usize| {
                c.drops.add(reason, n as u64);
                sum.dropped += n as u64;
            };
            let p = &burst.packets()[i];
            let need = self.header + p.len();
            let start = self.layout.mark();
            if p.len() > limits.longest {
                drop(DropReason::TxMtuExceeded, sum, 1);
            } else if self.collect(need, &mut limits.pieces)? {
                self.scatter(burst, i, need, sum);
                self.layout.give(&self.merged);
            } else {
                self.layout.rewind(start, 0);
                if self.mergeable || self.merged.is_empty() {
                    drop(DropReason::TxRingFull, sum, set.len());
                    break;
                }
                drop(DropReason::TxBufferTooSmall, sum, 1);
            }
            set = set.without(Set::one(i));
        }
        self.pieces.clear();
        Ok(())
    }

    /// Collects buffers for `need` bytes in `pieces` and `merged`, taking the pieces off `budget`;
    /// false if there are not enough, or the budget is spent.
    fn collect(&mut self, need: usize, budget: &mut usize) -> Result<bool, RingFault> {
        self.pieces.clear();
        self.merged.clear();
        let mut have = 0;
        while have < need {
            if !self.merged.is_empty() && !self.mergeable {
                return Ok(false);
            }
            if *budget == 0 || self.pieces.len() >= MAX_PIECES {
                return Ok(false);
            }
            self.layout.refresh(1)?;
            let Some(d) = self.layout.pop()? else {
                return Ok(false);
            };
            let before = self.pieces.len();
            let (lent, len) = self.gather(d, true)?;
            *budget = budget.saturating_sub(self.pieces.len() - before);
            self.merged.push(Lent { written: len.min(need - have) as u32, ..lent });
            have += len;
        }
        Ok(true)
    }

    /// Writes header and packet `i`, `need` bytes in all, over the collected pieces.
    fn scatter(&mut self, burst: &Burst<'_>, i: usize, need: usize, sum: &mut Sent) {
        let buffers = if self.mergeable { self.merged.len() as u16 } else { 1 };
        let device = net_header(buffers);
        let head = burst.packets()[i].header();
        let mut out = Scatter { pieces: &self.pieces, at: 0 };
        // SAFETY: `collect` found at least `need` bytes of guest memory in `pieces`, and header plus
        // segments are `need` bytes.
        unsafe {
            out.write(device.as_ptr(), self.header);
            out.write(head.as_ptr(), head.len());
            for s in burst.segments(i) {
                out.write(s.as_ptr(), s.len());
            }
        }
        sum.packets += 1;
        sum.header_bytes += head.len() as u64;
        sum.payload_bytes += (need - self.header - head.len()) as u64;
    }
}

/// Writes a virtio-net header of `header` bytes and packet `i`, which is `p`, to one contiguous buffer.
///
/// The device header goes straight to the guest. Put before the private bytes and copied with
/// them, it would be loaded while it is still in the store buffer, behind the stores that wait
/// for the last packet's cache lines, and no two packets' lines would be fetched at once.
///
/// # Safety
/// `ptr` is writable for the virtio-net header and the packet.
#[inline(always)]
unsafe fn store(
    ptr: *mut u8,
    header: usize,
    burst: &Burst<'_>,
    i: usize,
    p: &Packet,
    sum: &mut Sent,
) {
    let (private, len) = p.private();
    // SAFETY: `header` is 10 or 12, private bytes and segments are the packet's length, and the
    // caller promises room for all.
    unsafe {
        // As `net_header` has it: ten zeros and 1 for `num_buffers`.
        ptr.cast::<u64>().write_unaligned(0);
        if header == 12 {
            ptr.add(8).cast::<u32>().write_unaligned((1u32 << 16).to_le());
        } else {
            ptr.add(8).cast::<u16>().write_unaligned(0);
        }
        copy_small(private, ptr.add(header), len);
    }
    sum.packets += 1;
    sum.header_bytes += len as u64;
    if p.len() > len {
        let mut at = ptr.wrapping_add(header + len);
        for s in burst.segments(i) {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(s.as_ptr(), at, s.len()) };
            at = at.wrapping_add(s.len());
        }
        sum.payload_bytes += (p.len() - len) as u64;
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
