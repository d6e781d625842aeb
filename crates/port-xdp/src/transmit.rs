//! What is sent: copied into frames of the queue's own, and finished there, but for checksums that the kernel was asked
//! to complete ([`Metadata`]).

use crate::queue::{CONTINUED, Descriptor, METADATA, Queue, TX_PARTS, Tx, frame_of};
use crate::shared::Share;
use crate::sys;
use crate::umem::FRAME;
use packet::{Abilities, Burst, DropReason, Offload, Packet, Segment, Set, longest_untagged};
use port::Finished;

/// Frames that the kernel sends in one call where it copies (`TX_BATCH_SIZE`).
const KICK: u32 = 32;

/// Stands in front of a frame, if its descriptor says so (`XDP_TX_METADATA`; `struct xsk_tx_metadata`, of which Linux 6.8
/// knows the first 16 bytes).
#[repr(C)]
pub(crate) struct Metadata {
    flags: u64,
    csum_start: u16,
    csum_offset: u16,
    rest: [u16; 6],
}

impl Metadata {
    /// Has a checksum completed.
    fn new(offload: &Offload) -> Metadata {
        let Offload { csum_start, csum_offset, .. } = *offload;
        let flags = libc::XDP_TXMD_FLAGS_CHECKSUM.into();
        Metadata { flags, csum_start, csum_offset, rest: [0; 6] }
    }
}

/// What went out in one call.
#[derive(Default)]
struct Sum {
    packets: u64,
    header_bytes: u64,
    payload_bytes: u64,
    done: Finished,
}

impl Sum {
    fn add(&mut self, head: usize, payload: usize) {
        self.packets += 1;
        self.header_bytes += head as u64;
        self.payload_bytes += payload as u64;
    }
}

impl Queue {
    /// Bytes of a packet that one frame has room for.
    fn room(&self) -> usize {
        FRAME - self.metadata
    }

    /// Whether the kernel completes a frame's checksum. Who would be told of one outside of the frame stops sending,
    /// so only what is in its first bytes, read once, is left to it.
    fn leaves_checksum(&self, p: &Packet) -> bool {
        let inside = p.offload.partial_at().is_some_and(|at| at + 2 <= p.header().len());
        self.metadata > 0 && inside && p.suits(Abilities::CSUM)
    }

    /// Sends packets of a burst. False if another thread has been at it for too long.
    pub(crate) fn tx(&self, burst: &mut Burst<'_>, set: Set, mtu: u32) -> bool {
        let longest = longest_untagged(mtu);
        if !self.tx.take() {
            return false;
        }
        // SAFETY: taken just now.
        let tx = unsafe { &mut *self.tx.value.get() };
        tx.take_back(self.share.as_ref());
        tx.ring.begin();
        let mut sum = Sum::default();
        for i in set {
            let p = &burst.packets()[i];
            let result = match p.fits(longest) {
                false => Err((DropReason::TxMtuExceeded, p.on_wire().0)),
                true => self.put(tx, burst, i, &mut sum),
            };
            if let Err((reason, packets)) = result {
                self.sent.drops.add(reason, packets);
            }
        }
        tx.ring.publish();
        self.sent.burst(sum.packets, sum.header_bytes, sum.payload_bytes);
        if sum.done != Finished::default() {
            self.sent.finished(&sum.done);
        }
        if tx.ring.needs_wakeup() {
            for _ in 0..tx.ring.pushed().div_ceil(KICK) {
                sys::kick_tx(&self.socket);
            }
        }
        self.tx.release();
        true
    }

    /// Puts a packet into the transmit ring, in as many frames as it takes.
    ///
    /// # Errors
    /// Why not, and how many packets of the wire are missing: of a super-frame, those for which there was no
    /// room any more.
    fn put(
        &self,
        tx: &mut Tx,
        burst: &mut Burst<'_>,
        i: usize,
        sum: &mut Sum,
    ) -> Result<(), (DropReason, u64)> {
        let p = &burst.packets()[i];
        if p.offload.is_super() {
            return self.put_cut(tx, burst, i, sum);
        }
        if !p.suits(Abilities::NONE) && !self.leaves_checksum(p) {
            burst.complete_checksum(i).map_err(|reason| (reason, 1))?;
            sum.done.checksums += 1;
        }
        let p = &burst.packets()[i];
        if let Some(share) = &self.share
            && self.pass_on(share, tx, p, burst.segments(i))
        {
            let head = p.header().len();
            sum.add(head, 0);
            sum.done.more_bytes += (p.len() - head) as u64;
            return Ok(());
        }
        self.put_whole(tx, p, burst.segments(i)).map_err(|reason| (reason, 1))?;
        sum.add(p.header().len(), p.len() - p.header().len());
        Ok(())
    }

    /// Sends the frame that a packet was received in: its first bytes are written in front of the payload, which stays
    /// where it is. False if that cannot be, and a copy is to be sent.
    fn pass_on(&self, share: &Share, tx: &mut Tx, p: &Packet, borrowed: &[Segment<'_>]) -> bool {
        let ([payload], head) = (borrowed, p.header()) else { return false };
        let Some(at) = self.umem.offset(payload.as_ptr()) else { return false };
        let frame = frame_of(at);
        let start = at - frame;
        let fits =
            (head.len() + self.metadata) as u64 <= start && start as usize + payload.len() <= FRAME;
        if !fits || p.offload.needs_csum() || !tx.ring.has_room(1) {
            return false;
        }
        let at = at - head.len() as u64;
        let Some(to) = self.umem.at(at, head.len()) else { return false };
        if tx.free.pop_if(|own| share.exchange(frame, *own)).is_none() {
            return false;
        }
        // SAFETY: the bytes in front of the payload are in its frame, which is the queue's now; of those, nobody reads any.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), to, head.len()) };
        tx.ring.push(Descriptor { at, len: p.len() as u32, options: 0 });
        true
    }

    /// Cuts a super-frame.
    #[cold]
    fn put_cut(
        &self,
        tx: &mut Tx,
        burst: &mut Burst<'_>,
        i: usize,
        sum: &mut Sum,
    ) -> Result<(), (DropReason, u64)> {
        let all = burst.packets()[i].on_wire().0;
        let mut cut = burst.cut(i).map_err(|reason| (reason, all))?;
        let finish = self.metadata == 0;
        while let Some(payload) = cut.advance() {
            let head = cut.headers().len();
            let offload = if finish { Offload::NONE } else { cut.offload() };
            let places = self.places(tx, head + payload, &offload);
            let places = places.map_err(|reason| (reason, 1 + cut.rest() as u64))?;
            let (first, room) = places.get(0);
            // SAFETY: the places have room for all together, the first one for the headers at least.
            unsafe {
                cut.copy(first.add(head), room - head, finish);
                for i in 1..places.count {
                    let (to, room) = places.get(i);
                    cut.copy(to, room, finish);
                }
                if finish {
                    cut.complete();
                }
                std::ptr::copy_nonoverlapping(cut.headers().as_ptr(), first, head);
            }
            sum.add(head, payload);
            sum.done.segments += 1;
        }
        Ok(())
    }

    /// Puts a packet as it is into as many frames as it takes, mostly one.
    fn put_whole(
        &self,
        tx: &mut Tx,
        p: &Packet,
        borrowed: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let places = self.places(tx, p.len(), &p.offload)?;
        let (mut place, mut used) = (0, 0);
        for (mut from, mut left) in pieces(p, borrowed) {
            while left > 0 {
                let (to, room) = places.get(place);
                let n = left.min(room - used);
                // SAFETY: the pieces are readable while the burst is borrowed, and the places together as long
                // as they are.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, to.add(used), n);
                    from = from.add(n);
                }
                (left, used) = (left - n, used + n);
                if used == room {
                    (place, used) = (place + 1, 0);
                }
            }
        }
        Ok(())
    }

    /// As many free frames as `len` bytes need, with their descriptors pushed and the kernel told what is left to do.
    fn places(&self, tx: &mut Tx, len: usize, offload: &Offload) -> Result<Places, DropReason> {
        let (room, metadata) = (self.room(), self.metadata);
        let count = if len <= room { 1 } else { len.div_ceil(room) };
        if count > if self.parts { TX_PARTS } else { 1 } {
            return Err(DropReason::TxMtuExceeded);
        }
        if !tx.ring.has_room(count as u32) || tx.free.len() < count {
            return Err(DropReason::TxRingFull);
        }
        let mut places = Places { at: [std::ptr::null_mut(); TX_PARTS], count, len, room };
        let frames = tx.free.len() - count;
        for (place, &frame) in places.at.iter_mut().zip(&tx.free[frames..]) {
            let frame = self.umem.at(frame, FRAME).ok_or(DropReason::TxRingBroken)?;
            *place = frame.wrapping_add(metadata);
        }
        // Metadata is the first frame's.
        let mut told = 0;
        if metadata > 0 && offload.needs_csum() {
            // SAFETY: the frame has that many bytes in front of the place, its beginning is aligned, and it is free.
            unsafe { places.at[0].sub(METADATA).cast::<Metadata>().write(Metadata::new(offload)) };
            told = libc::XDP_TX_METADATA;
        }
        for (i, frame) in tx.free.drain(frames..).enumerate() {
            let more = if i + 1 < count { CONTINUED } else { 0 };
            let (at, len) = (frame + metadata as u64, places.get(i).1 as u32);
            tx.ring.push(Descriptor { at, len, options: more | told });
            told = 0;
        }
        Ok(places)
    }
}

/// Where the parts of a packet go.
struct Places {
    at: [*mut u8; TX_PARTS],
    count: usize,
    /// Bytes of all together.
    len: usize,
    /// Of each but the last.
    room: usize,
}

impl Places {
    /// Part `i`, and its bytes.
    fn get(&self, i: usize) -> (*mut u8, usize) {
        (self.at[i], (self.len - i * self.room).min(self.room))
    }
}

/// The pieces that a packet consists of.
fn pieces(p: &Packet, borrowed: &[Segment<'_>]) -> impl Iterator<Item = (*const u8, usize)> {
    let private = [(p.header().as_ptr(), p.header().len())].into_iter();
    private.chain(borrowed.iter().map(|s| (s.as_ptr(), s.len())))
}
