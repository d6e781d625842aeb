//! Packets into a guest's receive ring: the one copy of their payload. What the guest cannot be given as it
//! is, is finished on the way: checksums are completed, super-frames cut into its buffers.

use super::{
    F_INDIRECT, F_NEXT, F_WRITE, HEADER, LEGACY_HEADER, Layout, Lent, MAX_PIECES, Piece, Ring,
};
use super::{RingFault, translate};
use packet::arch::{copy_small, prefetch_write};
use packet::{Abilities, BURST, Burst, DropReason, Offload, Packet, Segment, Segments, Set};
use port::{Finished, QueueCounters};

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
    /// Frames of the call that were sent or counted as dropped.
    frames: u64,
    done: Finished,
}

impl Sent {
    /// A frame, or a segment of one, of `head` private and `payload` other bytes.
    #[inline(always)]
    fn add(&mut self, head: usize, payload: usize) {
        self.packets += 1;
        self.header_bytes += head as u64;
        self.payload_bytes += payload as u64;
    }
}

/// Bounds of one transmit call.
struct Limits {
    /// Bytes of a frame without tags at most.
    longest: usize,
    /// Pieces that may still be walked.
    pieces: usize,
}

/// A buffer to be filled, in one piece.
#[derive(Clone, Copy)]
struct Room {
    ptr: *mut u8,
    len: u32,
}

impl<L: Layout> Ring<L> {
    /// Puts the packets of `set`, as far as an MTU whose longest untagged frame has `longest` bytes allows
    /// them, into a guest's receive ring. Drops are counted in `c`.
    #[inline(always)]
    pub(crate) fn tx(
        &mut self,
        burst: &mut Burst<'_>,
        set: Set,
        longest: usize,
        c: &QueueCounters,
    ) -> Result<(), RingFault> {
        let mut sum = Sent::default();
        let result = match burst.offloaded().meets(set) {
            false => self.send::<false>(burst, set, longest, &mut sum),
            // The usual guest completes checksums itself.
            true if !burst.supers().meets(set) && self.abilities.has(Abilities::CSUM) => {
                self.send::<true>(burst, set, longest, &mut sum)
            }
            true => self.finish(burst, set, longest, c, &mut sum),
        };
        let result = match result {
            Ok(Set::NONE) => Ok(()),
            Ok(left) => self.send_rest(burst, left, longest, c, &mut sum),
            Err(fault) => Err(fault),
        };
        if sum.done != Finished::default() {
            c.finished(&sum.done);
        }
        if sum.packets > 0 {
            c.burst(sum.packets, sum.header_bytes, sum.payload_bytes);
            self.publish();
        }
        if result.is_err() {
            c.drops.add(DropReason::TxRingBroken, set.len() as u64 - sum.frames);
        }
        result
    }

    /// Sends what [`Ring::send`] left. If a frame beyond `longest` kept the others back, those that their tags allow
    /// are sent as all others are; the rest goes one by one.
    #[cold]
    fn send_rest(
        &mut self,
        burst: &mut Burst<'_>,
        mut left: Set,
        longest: usize,
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<(), RingFault> {
        let packets = burst.packets();
        let is_long = left.first().is_some_and(|i| packets[i].len() > longest);
        if is_long && !burst.supers().meets(left) {
            let fitting = left.filter(|i| packets[i].fits(longest));
            drop(c, DropReason::TxMtuExceeded, left.len() - fitting.len(), sum);
            left = self.send::<true>(burst, fitting, usize::MAX, sum)?;
        }
        let limits = Limits { longest, pieces: TX_PIECES };
        self.tx_slow(burst, left, limits, c, sum)
    }

    /// As [`Ring::send`] for a burst with offloads: checksums that the guest cannot complete are completed.
    /// If there are super-frames, all is left.
    #[inline(never)]
    fn finish(
        &mut self,
        burst: &mut Burst<'_>,
        mut set: Set,
        longest: usize,
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<Set, RingFault> {
        let offloaded = burst.offloaded();
        let mut supers = false;
        for i in set.filter(|i| offloaded.meets(Set::one(i))) {
            let p = &burst.packets()[i];
            if p.offload.is_super() {
                supers = true;
            } else if !p.suits(self.abilities) {
                match burst.complete_checksum(i) {
                    Ok(()) => sum.done.checksums += 1,
                    Err(reason) => {
                        drop(c, reason, 1, sum);
                        set = set.without(Set::one(i));
                    }
                }
            }
        }
        if supers { Ok(set) } else { self.send::<true>(burst, set, longest, sum) }
    }

    /// Sends packets as far as the guest's next buffers hold them, each in one piece; returns the others.
    /// Unless `OFFLOADS`, nothing is left to do for any packet.
    ///
    /// Buffers are looked for first and filled then, so that all their cache lines are on the way
    /// before the first of them is needed.
    #[inline(always)]
    fn send<const OFFLOADS: bool>(
        &mut self,
        burst: &Burst<'_>,
        set: Set,
        longest: usize,
        sum: &mut Sent,
    ) -> Result<Set, RingFault> {
        let start = self.layout.mark();
        let mut rooms = [Room { ptr: std::ptr::null_mut(), len: 0 }; BURST];
        let found = self.find_rooms(&mut rooms, set.len())?;
        let rooms = &rooms[..found];
        let left = match self.header {
            HEADER => self.fill::<HEADER, OFFLOADS>(rooms, burst, set, longest, sum),
            _ => self.fill::<LEGACY_HEADER, OFFLOADS>(rooms, burst, set, longest, sum),
        };
        let done = set.len() - left.len();
        sum.frames += done as u64;
        sum.packets += done as u64;
        self.layout.give(&self.lent[..done]);
        if !left.is_empty() {
            self.layout.rewind(start, done);
        }
        Ok(left)
    }

    /// Fills `rooms` with packets of `set` until one does not fit or is longer than `longest`; returns those
    /// that are left.
    #[inline(never)]
    fn fill<const H: usize, const OFFLOADS: bool>(
        &mut self,
        rooms: &[Room],
        burst: &Burst<'_>,
        set: Set,
        longest: usize,
        sum: &mut Sent,
    ) -> Set {
        let packets = burst.packets();
        let (mut left, mut private, mut all) = (set, 0, 0);
        for (room, lent) in rooms.iter().zip(&mut self.lent) {
            let Some(p) = left.first().and_then(|i| packets.get(i)) else { break };
            let total = H + p.len();
            if total > room.len as usize || p.len() > longest {
                break;
            }
            // SAFETY: `find_rooms` found `room.len` writable bytes of guest memory.
            private += unsafe { store::<H, OFFLOADS>(room.ptr, burst, left, p) };
            all += p.len();
            *lent = lent.with_written(total as u32);
            left = left.after_first();
        }
        sum.header_bytes += private as u64;
        sum.payload_bytes += (all - private) as u64;
        left
    }

    /// Takes the next buffers of the ring into `rooms` and `lent`, `want` of them at most and as long as
    /// they are in one piece.
    #[inline(never)]
    fn find_rooms(&mut self, rooms: &mut [Room; BURST], want: usize) -> Result<usize, RingFault> {
        let want = want.min(BURST);
        self.layout.refresh(want)?;
        let (mem, mut window) = (&*self.mem, self.window);
        let slots = rooms[..want].iter_mut().zip(&mut self.lent);
        let found = self.layout.offer(slots, |(room, lent), d| {
            if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) != F_WRITE {
                return false;
            }
            let Some(ptr) = translate(mem, &mut window, d) else { return false };
            prefetch_write(ptr);
            prefetch_write(ptr.wrapping_add(64));
            *room = Room { ptr, len: d.len };
            *lent = Lent::new(d.id, 1);
            true
        });
        self.window = window;
        let found = found?;
        if found > 0 {
            self.layout.prefetch(found, found == want);
        }
        Ok(found)
    }

    /// The rest of a transmit call, one packet at a time: chained, indirect, small and merged
    /// buffers, and rings that run out.
    #[cold]
    fn tx_slow(
        &mut self,
        burst: &mut Burst<'_>,
        mut set: Set,
        mut limits: Limits,
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<(), RingFault> {
        while let Some(i) = set.first() {
            let p = &burst.packets()[i];
            let end = if !p.fits(limits.longest) {
                End::TooLong
            } else if p.offload.is_super() && !p.suits(self.abilities) {
                self.tx_cut(burst, i, &mut limits, c, sum)?
            } else {
                self.tx_whole(burst, i, &mut limits, sum)?
            };
            match end {
                End::Sent => sum.frames += 1,
                End::TooLong => drop(c, DropReason::TxMtuExceeded, 1, sum),
                // Whoever takes super-frames without merging has buffers for them; if not, it gets segments.
                End::NoFit if burst.packets()[i].offload.is_super() => {
                    match self.tx_cut(burst, i, &mut limits, c, sum)? {
                        End::Sent => sum.frames += 1,
                        _ => drop(c, DropReason::TxBufferTooSmall, 1, sum),
                    }
                }
                End::NoFit => drop(c, DropReason::TxBufferTooSmall, 1, sum),
                End::Full => {
                    drop(c, DropReason::TxRingFull, set.len(), sum);
                    break;
                }
            }
            set = set.without(Set::one(i));
        }
        self.pieces.clear();
        Ok(())
    }

    /// Sends packet `i` as it is.
    fn tx_whole(
        &mut self,
        burst: &Burst<'_>,
        i: usize,
        limits: &mut Limits,
        sum: &mut Sent,
    ) -> Result<End, RingFault> {
        let p = &burst.packets()[i];
        let need = self.header + p.len();
        let start = self.layout.mark();
        if !self.collect(need, &mut limits.pieces)? {
            return Ok(self.give_up(start));
        }
        self.scatter(burst, i, need, sum);
        self.layout.give(&self.merged);
        if p.offload.is_super() {
            let (packets, bytes) = p.on_wire();
            sum.done.super_frames += 1;
            sum.done.more_packets += packets - 1;
            sum.done.more_bytes += bytes - p.len() as u64;
        }
        Ok(End::Sent)
    }

    /// Sends packet `i`, a super-frame, as the packets that it stands for. Those for which there is no
    /// room are counted as dropped.
    fn tx_cut(
        &mut self,
        burst: &mut Burst<'_>,
        i: usize,
        limits: &mut Limits,
        c: &QueueCounters,
        sum: &mut Sent,
    ) -> Result<End, RingFault> {
        let mut cut = match burst.cut(i) {
            Ok(cut) => cut,
            Err(reason) => {
                c.drops.add(reason, 1);
                return Ok(End::Sent);
            }
        };
        while let Some(payload) = cut.advance() {
            let start = self.layout.mark();
            let need = self.header + cut.headers().len() + payload;
            if !self.collect(need, &mut limits.pieces)? {
                let end = self.give_up(start);
                let reason = match end {
                    End::Full => DropReason::TxRingFull,
                    _ => DropReason::TxBufferTooSmall,
                };
                c.drops.add(reason, 1 + cut.rest() as u64);
                break;
            }
            self.scatter_segment(&mut cut, payload, sum);
            self.layout.give(&self.merged);
        }
        Ok(End::Sent)
    }

    /// Puts back what [`Ring::collect`] took in vain; returns why it was.
    fn give_up(&mut self, start: L::Mark) -> End {
        self.layout.rewind(start, 0);
        if self.mergeable || self.merged.is_empty() { End::Full } else { End::NoFit }
    }

    /// Collects buffers for `need` bytes in `pieces` and `merged`, taking the pieces off `budget`;
    /// false if there are not enough, or the budget is spent.
    fn collect(&mut self, need: usize, budget: &mut usize) -> Result<bool, RingFault> {
        self.pieces.clear();
        self.merged.clear();
        let mut have = 0;
        while self.mergeable && have < need {
            match self.collect_plain(need - have, budget)? {
                0 => break,
                bytes => have += bytes,
            }
        }
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
            self.merged.push(lent.with_written(len.min(need - have) as u32));
            have += len;
        }
        Ok(true)
    }

    /// [`Ring::collect`] for the usual mergeable buffers, of one descriptor and in one piece: takes some until one is
    /// not, or there are enough; returns their bytes. Their descriptors and first lines are on the way together.
    fn collect_plain(&mut self, need: usize, budget: &mut usize) -> Result<usize, RingFault> {
        let want = BURST.min(*budget).min(MAX_PIECES.saturating_sub(self.pieces.len()));
        self.layout.refresh(want)?;
        let (mem, mut window) = (&*self.mem, self.window);
        let (pieces, merged) = (&mut self.pieces, &mut self.merged);
        let mut have = 0;
        let found = self.layout.offer(std::iter::repeat_n((), want), |(), d| {
            if have >= need || d.len == 0 || d.flags & (F_NEXT | F_INDIRECT | F_WRITE) != F_WRITE {
                return false;
            }
            let Some(ptr) = translate(mem, &mut window, d) else { return false };
            prefetch_write(ptr);
            prefetch_write(ptr.wrapping_add(64));
            let len = d.len as usize;
            pieces.push(Piece { ptr, len });
            merged.push(Lent::new(d.id, 1).with_written(len.min(need - have) as u32));
            have += len;
            true
        });
        self.window = window;
        let found = found?;
        *budget -= found;
        if found > 0 {
            self.layout.prefetch(found, true);
        }
        Ok(have)
    }

    /// Writes header and packet `i`, `need` bytes in all, over the collected pieces.
    fn scatter(&mut self, burst: &Burst<'_>, i: usize, need: usize, sum: &mut Sent) {
        let p = &burst.packets()[i];
        let device = self.net_header(&p.offload);
        let head = p.header();
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
        sum.add(head.len(), need - self.header - head.len());
    }

    /// Writes a segment with `payload` bytes of payload over the collected pieces. Payload comes first, as
    /// its sum may have to go into the headers.
    fn scatter_segment(&mut self, cut: &mut Segments<'_>, payload: usize, sum: &mut Sent) {
        let finish = !self.abilities.accept(&cut.offload());
        let head = cut.headers().len();
        let mut out = Scatter { pieces: &self.pieces, at: 0 };
        out.skip(self.header + head);
        // SAFETY: `collect` found guest memory for the header, the segment's headers and its payload.
        out.fill(payload, |ptr, n| unsafe { cut.copy(ptr, n, finish) });
        let offload = if finish { Offload::default() } else { cut.offload() };
        if finish {
            cut.complete();
            sum.done.checksums += 1;
        }
        let device = self.net_header(&offload);
        let mut out = Scatter { pieces: &self.pieces, at: 0 };
        // SAFETY: as above.
        unsafe {
            out.write(device.as_ptr(), self.header);
            out.write(cut.headers().as_ptr(), head);
        }
        sum.done.segments += 1;
        sum.add(head, payload);
    }

    /// The virtio-net header of what goes into the collected buffers (virtio 1.3, 5.1.6).
    fn net_header(&self, offload: &Offload) -> [u8; 12] {
        let buffers = if self.mergeable { self.merged.len() as u16 } else { 1 };
        let (first, second) = offload.words();
        let mut header = [0; 12];
        header[..8].copy_from_slice(&first.to_ne_bytes());
        header[8..10].copy_from_slice(&second.to_ne_bytes());
        header[10..].copy_from_slice(&buffers.to_le_bytes());
        header
    }
}

/// What became of a frame.
enum End {
    Sent,
    /// The ring has not enough buffers, or the call has walked enough.
    Full,
    /// The next buffer is too small, and must not be merged with others.
    NoFit,
    TooLong,
}

/// Counts frames that are not sent.
fn drop(c: &QueueCounters, reason: DropReason, frames: usize, sum: &mut Sent) {
    c.drops.add(reason, frames as u64);
    sum.frames += frames as u64;
}

/// Writes a virtio-net header of `H` bytes and `p`, the first packet of `left`, to one contiguous buffer;
/// returns how many of its bytes were private.
///
/// The device header goes straight to the guest. Put before the private bytes and copied with
/// them, it would be loaded while it is still in the store buffer, behind the stores that wait
/// for the last packet's cache lines, and no two packets' lines would be fetched at once.
///
/// # Safety
/// `ptr` is writable for the virtio-net header and the packet.
#[inline(always)]
unsafe fn store<const H: usize, const OFFLOADS: bool>(
    ptr: *mut u8,
    burst: &Burst<'_>,
    left: Set,
    p: &Packet,
) -> usize {
    let (private, len) = p.private();
    // SAFETY: private bytes and segments are the packet's length, and the caller promises room for them
    // and the header.
    unsafe {
        // As `net_header` has it, with 1 for `num_buffers`.
        let (first, second) = if OFFLOADS { p.offload.words() } else { (0, 0) };
        ptr.cast::<u64>().write_unaligned(first);
        if H == HEADER {
            let second = u32::from(u16::from_le(second));
            ptr.add(8).cast::<u32>().write_unaligned((second | 1 << 16).to_le());
        } else {
            ptr.add(8).cast::<u16>().write_unaligned(second);
        }
        copy_small(private, ptr.add(H), len);
    }
    if p.len() > len {
        let segments = left.first().map_or(&[][..], |i| burst.segments(i));
        // SAFETY: as above.
        unsafe { store_segments(ptr.wrapping_add(H + len), segments) };
    }
    len
}

/// The rest of [`store`]. A function of its own, so that the loop over small frames has no call in its way for
/// which it would have to keep its variables in memory.
///
/// # Safety
/// `at` is writable for all `segments`.
#[inline(never)]
unsafe fn store_segments(mut at: *mut u8, segments: &[Segment<'_>]) {
    for s in segments {
        // SAFETY: by the caller.
        unsafe { std::ptr::copy_nonoverlapping(s.as_ptr(), at, s.len()) };
        at = at.wrapping_add(s.len());
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
    unsafe fn write(&mut self, mut src: *const u8, len: usize) {
        self.fill(len, |dst, n| {
            // SAFETY: `fill` gives `len` bytes in all, each time as many as are writable.
            unsafe { std::ptr::copy_nonoverlapping(src, dst, n) };
            src = src.wrapping_add(n);
        });
    }

    /// Goes on by `len` bytes.
    fn skip(&mut self, len: usize) {
        self.fill(len, |_, _| ());
    }

    /// Gives the next `len` bytes to `put`, piece by piece; what does not fit is left out.
    fn fill(&mut self, mut len: usize, mut put: impl FnMut(*mut u8, usize)) {
        while len > 0 {
            let Some(p) = self.pieces.first() else { return };
            let n = len.min(p.len - self.at);
            put(p.ptr.wrapping_add(self.at), n);
            self.at += n;
            len -= n;
            if self.at == p.len {
                self.pieces = &self.pieces[1..];
                self.at = 0;
            }
        }
    }
}
