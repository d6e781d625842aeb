//! Bursts out of a guest's transmit ring: private copies of headers, borrowed payload.

use super::{
    F_INDIRECT, F_NEXT, F_WRITE, HEADER, LEGACY_HEADER, Layout, Lent, MAX_PIECES, Piece, Ring,
};
use super::{RingFault, translate};
use packet::arch::prefetch_read;
use packet::{Abilities, BURST, BurstBuf, DropReason, HEADER_BYTES, MAX_FRAME, Offload};
use port::{Finished, QueueCounters};

/// Bytes of a frame at least: an Ethernet header.
const MIN_FRAME: usize = 14;

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

/// Bytes that were received.
#[derive(Default)]
struct Got {
    private: u64,
    all: u64,
}

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
        let got = match self.header {
            HEADER => self.fetch_all::<HEADER>(buf, &sources[..n], c),
            _ => self.fetch_all::<LEGACY_HEADER>(buf, &sources[..n], c),
        };
        self.pieces.clear();
        c.burst(buf.len() as u64, got.private, got.all - got.private);
        Ok(())
    }

    /// Takes the next buffers of the ring into `sources` and `lent`, and asks for their first lines, so
    /// that they are on the way before the first of them is needed.
    #[inline(always)]
    fn find_sources(&mut self, sources: &mut [Source; BURST]) -> Result<usize, RingFault> {
        self.layout.refresh(BURST)?;
        let mut n = 0;
        loop {
            n += self.find_plain(sources, n)?;
            if n == BURST || !self.find_other(sources, &mut n)? {
                break;
            }
        }
        if n > 0 {
            self.layout.prefetch(n, n == BURST);
        }
        Ok(n)
    }

    /// Takes buffers in one piece, to be sources from number `from` on.
    #[inline(never)]
    fn find_plain(
        &mut self,
        sources: &mut [Source; BURST],
        from: usize,
    ) -> Result<usize, RingFault> {
        let (mem, mut window) = (&*self.mem, self.window);
        let slots = sources[from..].iter_mut().zip(&mut self.lent[from..]);
        let found = self.layout.offer(slots, |(source, lent), d| {
            if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) != 0 {
                return false;
            }
            let Some(ptr) = translate(mem, &mut window, d) else { return false };
            prefetch_read(ptr);
            prefetch_read(ptr.wrapping_add(64));
            (source.ptr, source.len) = (ptr, d.len);
            *lent = Lent::new(d.id, 1);
            true
        });
        self.window = window;
        found
    }

    /// Takes a buffer of any kind to be source number `n`; false if there is none, or the burst has to end.
    #[inline(never)]
    fn find_other(
        &mut self,
        sources: &mut [Source; BURST],
        n: &mut usize,
    ) -> Result<bool, RingFault> {
        let start = self.layout.mark();
        let Some(d) = self.layout.pop()? else { return Ok(false) };
        let first = self.pieces.len();
        let (lent, len) = self.gather(d, false)?;
        let count = self.pieces.len() - first;
        if *n > 0 && first + count > MAX_PIECES - BURST {
            // More than a burst has segments for: the next one begins with it.
            self.layout.rewind(start, 0);
            return Ok(false);
        }
        // A burst has 2 * MAX_PIECES pieces at most; a longer buffer than 4 GiB is dropped as any
        // that is too long.
        let len = len.min(u32::MAX as usize) as u32;
        let (first, count) = (first as u16, count as u16);
        sources[*n] = Source { ptr: std::ptr::null_mut(), len, first, count };
        self.lent[*n] = lent;
        *n += 1;
        // After a buffer of that many pieces, what follows may find no segment left.
        Ok(*n < BURST && self.pieces.len() <= MAX_PIECES - BURST)
    }

    /// Makes packets of buffers that begin with a virtio-net header of `H` bytes. Those that are none are
    /// counted as dropped.
    #[inline(never)]
    fn fetch_all<const H: usize>(
        &self,
        buf: &mut BurstBuf,
        sources: &[Source],
        c: &QueueCounters,
    ) -> Got {
        let mut got = Got::default();
        for s in sources {
            let fetched = match s.ptr.is_null() {
                false => self.fetch::<H>(buf, s, c),
                true => self.fetch_pieces(buf, s, c),
            };
            match fetched {
                Ok(private) => {
                    got.private += private as u64;
                    got.all += s.len as u64 - H as u64;
                }
                Err(reason) => c.drops.add(reason, 1),
            }
        }
        got
    }

    /// Makes a packet of a buffer in one piece; returns how many bytes are private.
    #[inline(always)]
    fn fetch<const H: usize>(
        &self,
        buf: &mut BurstBuf,
        s: &Source,
        c: &QueueCounters,
    ) -> Result<usize, DropReason> {
        let frame = frame_len(s.len as usize, H)?;
        let head = frame.min(HEADER_BYTES);
        // SAFETY: `translate` found all `s.len` bytes in guest memory, which `mem` keeps mapped.
        let device = unsafe { buf.fetch::<H>(s.ptr, head) }.ok_or(DropReason::RxTooManySegments)?;
        if offload_asked(device) {
            let said = Offload::from_device(device).unwrap_or_default();
            self.take_offload(buf, said, frame, c)?;
        }
        if frame > head {
            let rest = s.ptr.wrapping_add(H + head);
            // SAFETY: as above; the ring stays claimed, and so mapped, until the burst ends.
            if !unsafe { buf.add_segment(rest, frame - head) } {
                buf.pop();
                return Err(DropReason::RxTooManySegments);
            }
        }
        Ok(head)
    }

    /// As [`Ring::fetch`] for a buffer in several pieces, with the virtio-net header anywhere.
    #[cold]
    fn fetch_pieces(
        &self,
        buf: &mut BurstBuf,
        s: &Source,
        c: &QueueCounters,
    ) -> Result<usize, DropReason> {
        frame_len(s.len as usize, self.header)?;
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
        let len = s.len as usize - self.header;
        if offload_asked(&device) {
            let said = Offload::from_device(&device).unwrap_or_default();
            self.take_offload(buf, said, len, c)?;
        }
        Ok(head)
    }

    /// Takes over what the guest says of the packet added last, a frame of `len` bytes, or takes that back.
    #[inline(always)]
    fn take_offload(
        &self,
        buf: &mut BurstBuf,
        said: Offload,
        len: usize,
        c: &QueueCounters,
    ) -> Result<(), DropReason> {
        match said.checksum_alone(len).filter(|_| self.abilities.has(Abilities::CSUM)) {
            Some(offload) => {
                buf.set_offload(offload);
                Ok(())
            }
            None => self.take_checked(buf, said, len, c),
        }
    }

    /// As [`Ring::take_offload`] for super-frames, and for lies.
    #[inline(never)]
    fn take_checked(
        &self,
        buf: &mut BurstBuf,
        said: Offload,
        len: usize,
        c: &QueueCounters,
    ) -> Result<(), DropReason> {
        let Some(p) = buf.last() else { return Ok(()) };
        let header = p.header();
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

/// Length of the frame in a buffer of `len` bytes, behind a virtio-net header of `header` bytes.
#[inline(always)]
fn frame_len(len: usize, header: usize) -> Result<usize, DropReason> {
    let frame = len.wrapping_sub(header);
    // One comparison for what is too short, or wrapped, and what is too long.
    if frame.wrapping_sub(MIN_FRAME) <= MAX_FRAME - MIN_FRAME {
        Ok(frame)
    } else if len < header + MIN_FRAME {
        Err(DropReason::RxShortFrame)
    } else {
        Err(DropReason::RxOversize)
    }
}

/// True if a virtio-net header asks for checksumming or segmentation.
#[inline(always)]
fn offload_asked(header: &[u8]) -> bool {
    header[0] & 1 != 0 || header[1] != 0
}
