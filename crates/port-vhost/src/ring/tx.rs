//! Packets into a guest's receive ring: the one copy of their payload.

use super::{F_INDIRECT, F_NEXT, F_WRITE, Layout, Lent, MAX_PIECES, Piece, Ring, RingFault};
use packet::arch::{copy_small, prefetch_write};
use packet::{BURST, Burst, DropReason};
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

impl<L: Layout> Ring<L> {
    /// Puts the packets of `picks` into a guest's receive ring. Drops are counted in `c`.
    #[inline(always)]
    pub(crate) fn tx(
        &mut self,
        burst: &mut Burst<'_>,
        picks: &[u8],
        c: &QueueCounters,
    ) -> Result<(), RingFault> {
        let mut sum = Sent::default();
        let result = self.send(burst, picks, c, &mut sum);
        if sum.packets > 0 {
            c.burst(sum.packets, sum.header_bytes, sum.payload_bytes);
            self.notify(c);
        }
        if result.is_err() {
            let lost = picks.len() as u64 - sum.packets - sum.dropped;
            c.drops.add(DropReason::TxRingBroken, lost);
        }
        result
    }

    /// As [`Ring::tx`], without counting and without telling the guest.
    #[inline(always)]
    fn send(
        &mut self,
        burst: &mut Burst<'_>,
        picks: &[u8],
        c: &QueueCounters,
        sum: &mut Sent,
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
            unsafe { self.store(ptr, burst, i, sum) };
            self.layout.give(Lent { id, count: 1 }, total as u32);
            done += 1;
        }
        if done < picks.len() {
            self.tx_slow(burst, &picks[done..], c, sum)?;
        }
        Ok(())
    }

    /// Writes header and packet `i` to one contiguous buffer.
    ///
    /// The device header goes straight to the guest. Put before the private bytes and copied with
    /// them, it would be loaded while it is still in the store buffer, behind the stores that wait
    /// for the last packet's cache lines, and no two packets' lines would be fetched at once.
    ///
    /// # Safety
    /// `ptr` is writable for the virtio-net header and the packet.
    #[inline(always)]
    unsafe fn store(&self, ptr: *mut u8, burst: &Burst<'_>, i: usize, sum: &mut Sent) {
        let p = &burst.packets()[i];
        let (head, len) = (p.header(), p.len());
        let [.., lo, hi] = net_header(1);
        // SAFETY: `header` is 10 or 12, head.len() <= len, and the caller promises room for both.
        unsafe {
            ptr.cast::<u64>().write_unaligned(0);
            ptr.add(8).cast::<u16>().write_unaligned(0);
            if self.header == 12 {
                ptr.add(10).cast::<[u8; 2]>().write_unaligned([lo, hi]);
            }
            copy_small(head.as_ptr(), ptr.add(self.header), head.len());
        }
        sum.packets += 1;
        sum.header_bytes += head.len() as u64;
        if len > head.len() {
            let mut at = ptr.wrapping_add(self.header + head.len());
            for s in burst.segments(i) {
                // SAFETY: the segments are the rest of the packet's length.
                unsafe { std::ptr::copy_nonoverlapping(s.as_ptr(), at, s.len()) };
                at = at.wrapping_add(s.len());
            }
            sum.payload_bytes += (len - head.len()) as u64;
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
        let mut budget = TX_PIECES;
        for (k, &i) in picks.iter().enumerate() {
            let i = usize::from(i);
            let need = self.header + burst.packets()[i].len();
            let start = self.layout.mark();
            if self.collect(need, &mut budget)? {
                self.scatter(burst, i, need, sum);
                for k in 0..self.merged.len() {
                    let (lent, written) = self.merged[k];
                    self.layout.give(lent, written as u32);
                }
                continue;
            }
            self.layout.rewind(start);
            if !self.mergeable && !self.merged.is_empty() {
                c.drops.add(DropReason::TxBufferTooSmall, 1);
                sum.dropped += 1;
            } else {
                let rest = (picks.len() - k) as u64;
                c.drops.add(DropReason::TxRingFull, rest);
                sum.dropped += rest;
                break;
            }
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
            self.merged.push((lent, len.min(need - have)));
            have += len;
        }
        Ok(true)
    }

    /// Writes header and packet `i`, `need` bytes in all, over the collected pieces.
    fn scatter(&mut self, burst: &mut Burst<'_>, i: usize, need: usize, sum: &mut Sent) {
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
