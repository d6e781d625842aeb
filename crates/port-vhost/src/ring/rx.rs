//! Bursts out of a guest's transmit ring: private copies of headers, borrowed payload.

use super::{F_INDIRECT, F_NEXT, F_WRITE, Layout, Lent, MAX_PIECES, Piece, Ring, RingFault};
use packet::arch::prefetch_read;
use packet::{BURST, BurstBuf, DropReason, HEADER_BYTES, MAX_FRAME, Offload};
use port::{Finished, QueueCounters};

/// A buffer of a received packet: one piece, or a range of [`Ring::pieces`].
#[derive(Clone, Copy)]
struct Source {
    ptr: *mut u8,
    len: u32,
    /// Range of `pieces` if `ptr` is null.
    first: u16,
    count: u16,
}

const NOTHING: Source = Source { ptr: std::ptr::null_mut(), len: 0, first: 0, count: 0 };

impl<L: Layout> Ring<L> {
    /// Takes up to [`BURST`] packets out of a guest's transmit ring.
    #[inline(always)]
    pub(crate) fn rx(&mut self, buf: &mut BurstBuf, c: &QueueCounters) -> Result<(), RingFault> {
        buf.clear();
        if !self.layout.has_new() {
            return Ok(());
        }
        let mut sources = [NOTHING; BURST];
        let n = self.find_sources(&mut sources)?;
        if n == 0 {
            return Ok(());
        }
        self.lent_count = n;
        let (mut header_bytes, mut payload_bytes) = (0, 0);
        for s in &sources[..n] {
            match self.fetch(buf, s, c) {
                Ok((head, len)) => {
                    header_bytes += head as u64;
                    payload_bytes += (len - head) as u64;
                }
                Err(reason) => c.drops.add(reason, 1),
            }
        }
        self.pieces.clear();
        c.burst(buf.len() as u64, header_bytes, payload_bytes);
        Ok(())
    }

    /// Takes the next buffers of the ring into `sources` and `lent`, and asks for their first lines, so
    /// that they are on the way before the first of them is needed.
    #[inline(always)]
    fn find_sources(&mut self, sources: &mut [Source; BURST]) -> Result<usize, RingFault> {
        self.layout.refresh(BURST)?;
        let mut window = self.window;
        let mut n = 0;
        while n < BURST {
            let start = self.layout.mark();
            let Some(d) = self.layout.pop()? else { break };
            if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) == 0
                && let Some(ptr) = self.translate(&mut window, &d)
            {
                prefetch_read(ptr);
                prefetch_read(ptr.wrapping_add(64));
                sources[n] = Source { ptr, len: d.len, ..NOTHING };
                self.lent[n] = Lent { id: d.id, count: 1, written: 0 };
                n += 1;
                continue;
            }
            let first = self.pieces.len();
            let (lent, len) = self.gather(d, false)?;
            let count = self.pieces.len() - first;
            if n > 0 && first + count > MAX_PIECES - BURST {
                // More than a burst has segments for: the next one begins with it.
                self.layout.rewind(start, 0);
                break;
            }
            // A burst has 2 * MAX_PIECES pieces at most; a longer buffer than 4 GiB is dropped as any
            // that is too long.
            let len = len.min(u32::MAX as usize) as u32;
            let (first, count) = (first as u16, count as u16);
            sources[n] = Source { ptr: std::ptr::null_mut(), len, first, count };
            self.lent[n] = lent;
            n += 1;
            if self.pieces.len() > MAX_PIECES - BURST {
                // A first buffer of that many: what follows may find no segment left.
                break;
            }
        }
        self.window = window;
        if n > 0 {
            self.layout.prefetch(n);
        }
        Ok(n)
    }

    /// Makes a packet of one buffer; returns its private and whole length.
    #[inline(always)]
    fn fetch(
        &self,
        buf: &mut BurstBuf,
        s: &Source,
        c: &QueueCounters,
    ) -> Result<(usize, usize), DropReason> {
        let len = s.len as usize;
        let Some(frame) = len.checked_sub(self.header).filter(|&n| n >= 14) else {
            return Err(DropReason::RxShortFrame);
        };
        if frame > MAX_FRAME {
            return Err(DropReason::RxOversize);
        }
        if s.ptr.is_null() {
            return self.fetch_pieces(buf, s, c);
        }
        let head = frame.min(HEADER_BYTES);
        let p = buf.push().ok_or(DropReason::RxTooManySegments)?;
        // SAFETY: `translate` found all `s.len` bytes in guest memory, which `mem` keeps mapped;
        // header + head is not more.
        let asks = offload_asked(unsafe { p.fetch(s.ptr, self.header + head, self.header) });
        if frame > head {
            let rest = s.ptr.wrapping_add(self.header + head);
            // SAFETY: as above; the ring stays claimed, and so mapped, until the burst ends.
            if !unsafe { buf.add_segment(rest, frame - head) } {
                buf.pop();
                return Err(DropReason::RxTooManySegments);
            }
        }
        if asks {
            let said = buf.last().and_then(|p| Offload::from_device(p.before(self.header)));
            self.take_offload(buf, said.unwrap_or_default(), c)?;
        }
        Ok((head, frame))
    }

    /// As [`Ring::fetch`] for a buffer in several pieces, with the virtio-net header anywhere.
    #[cold]
    fn fetch_pieces(
        &self,
        buf: &mut BurstBuf,
        s: &Source,
        c: &QueueCounters,
    ) -> Result<(usize, usize), DropReason> {
        let pieces = &self.pieces[usize::from(s.first)..][..usize::from(s.count)];
        if buf.segments_left() < pieces.len() {
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
        for piece in split.iter().chain(&pieces[borrowed..]).filter(|p| p.len > 0) {
            // SAFETY: pieces are guest memory, mapped until the burst ends, see `fetch`.
            if !unsafe { buf.add_segment(piece.ptr, piece.len) } {
                buf.pop();
                return Err(DropReason::RxTooManySegments);
            }
        }
        if offload_asked(&device) {
            self.take_offload(buf, Offload::from_device(&device).unwrap_or_default(), c)?;
        }
        Ok((head, s.len as usize - self.header))
    }

    /// Takes over what the guest says of the packet added last, or takes that back.
    #[inline(never)]
    fn take_offload(
        &self,
        buf: &mut BurstBuf,
        said: Offload,
        c: &QueueCounters,
    ) -> Result<(), DropReason> {
        let Some(p) = buf.last() else { return Ok(()) };
        let (header, len) = (p.header(), p.len());
        match said.check(header, len, self.abilities) {
            Ok(offload) => {
                if offload.is_super() {
                    let (packets, bytes) = offload.on_wire(len);
                    c.finished(&Finished {
                        super_frames: 1,
                        more_packets: packets - 1,
                        more_bytes: bytes - len as u64,
                        ..Finished::default()
                    });
                }
                buf.set_offload(offload);
                Ok(())
            }
            Err(reason) => {
                buf.pop();
                Err(reason)
            }
        }
    }
}

/// True if a virtio-net header asks for checksumming or segmentation.
#[inline(always)]
fn offload_asked(header: &[u8]) -> bool {
    header[0] & 1 != 0 || header[1] != 0
}
