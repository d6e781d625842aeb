//! Bursts read from a descriptor: the first bytes of each frame are private, the rest stays in a buffer of
//! the queue's own, which is lent until the burst is over.

use crate::send::VNET;
use packet::{BURST, Burst, BurstBuf, DropReason, HEADER_BYTES, Lender, MAX_FRAME, Offload};
use port::{Finished, QueueCounters};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering::*};

/// Bytes of a frame that are not private. One more than any frame has, so that longer ones show.
const REST: usize = MAX_FRAME - HEADER_BYTES + 1;

/// Where one frame is read to.
pub(crate) struct Slot {
    vnet: [u8; VNET],
    head: [u8; HEADER_BYTES],
    rest: Box<[u8]>,
}

impl Slot {
    fn new() -> Slot {
        // Pages of it that no frame reaches take no memory.
        Slot { vnet: [0; VNET], head: [0; HEADER_BYTES], rest: vec![0; REST].into_boxed_slice() }
    }

    /// The parts, in the order of what comes.
    pub(crate) fn pieces(&mut self) -> [libc::iovec; 3] {
        let piece =
            |b: &mut [u8]| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() };
        [piece(&mut self.vnet), piece(&mut self.head), piece(&mut self.rest)]
    }
}

/// A receive queue's buffers, and who may use them.
pub(crate) struct Receiver {
    /// A thread fills the slots, or a burst of them is out.
    taken: AtomicBool,
    slots: UnsafeCell<Vec<Slot>>,
    /// Segments of TCP that come in one burst are joined.
    gro: bool,
    pub(crate) counters: QueueCounters,
}

// SAFETY: the slots are reached only by who changed `taken` from false to true.
unsafe impl Sync for Receiver {}

/// What came for a slot.
pub(crate) struct Got {
    /// Bytes, the virtio-net header among them.
    pub(crate) bytes: usize,
    /// A tag that the kernel took out: TPID and TCI.
    pub(crate) tag: Option<[u8; 4]>,
}

impl Receiver {
    pub(crate) fn new(gro: bool) -> Receiver {
        let slots = UnsafeCell::new((0..BURST).map(|_| Slot::new()).collect());
        Receiver { taken: AtomicBool::new(false), slots, gro, counters: QueueCounters::default() }
    }

    /// Fills `buf` with what `read` puts into slots and lends it. `read` says what each of the first slots
    /// has got.
    pub(crate) fn rx<'b>(
        &'b self,
        buf: &'b mut BurstBuf,
        read: impl FnOnce(&mut [Slot], &mut dyn FnMut(usize, &Slot, Got)),
    ) -> Option<Burst<'b>> {
        buf.clear();
        if self.taken.swap(true, Acquire) {
            return None;
        }
        let (mut private, mut borrowed) = (0, 0);
        // SAFETY: `taken` was false, so nobody else has a reference.
        let slots = unsafe { &mut *self.slots.get() };
        read(slots, &mut |_, slot, got| match add(buf, slot, &got) {
            Ok((head, len)) => {
                private += head as u64;
                borrowed += (len - head) as u64;
            }
            Err(reason) => self.counters.drops.add(reason, 1),
        });
        if buf.is_empty() {
            self.taken.store(false, Release);
            return None;
        }
        self.counters.burst(buf.len() as u64, private, borrowed);
        let mut burst = buf.lend(self);
        let supers = burst.offloaded().filter(|i| burst.packets()[i].offload.is_super());
        if !supers.is_empty() {
            let super_frames = supers.len() as u64;
            let (more_packets, more_bytes) = burst.more_on_wire(supers);
            self.counters.finished(&Finished {
                super_frames,
                more_packets,
                more_bytes,
                ..Finished::default()
            });
        }
        if self.gro {
            // Their packets and bytes are counted already.
            let super_frames = burst.coalesce() as u64;
            self.counters.finished(&Finished { super_frames, ..Finished::default() });
        }
        Some(burst)
    }
}

impl Lender for Receiver {
    fn give_back(&self) {
        self.taken.store(false, Release);
    }
}

/// Makes a packet of what a slot has got; returns its private and whole length.
fn add(buf: &mut BurstBuf, slot: &Slot, got: &Got) -> Result<(usize, usize), DropReason> {
    let len = got.bytes.checked_sub(VNET).filter(|&n| n >= 14).ok_or(DropReason::RxShortFrame)?;
    if len > MAX_FRAME {
        return Err(DropReason::RxOversize);
    }
    let head = len.min(HEADER_BYTES);
    let offload = Offload::from_device(&slot.vnet).unwrap_or_default();
    let offload = offload.check(&slot.head[..head], len, crate::ALL)?;
    let p = buf.push().ok_or(DropReason::RxTooManySegments)?;
    p.set_header(&slot.head[..head]);
    // SAFETY: the slot's memory is not touched before the burst is given back.
    if len > head && !unsafe { buf.add_segment(slot.rest.as_ptr(), len - head) } {
        buf.pop();
        return Err(DropReason::RxTooManySegments);
    }
    if !offload.is_none() {
        buf.set_offload(offload);
    }
    if let (Some(tag), Some(p)) = (got.tag, buf.last()) {
        // There is room in front of a frame just received.
        if let Some(gap) = p.insert(12, 4) {
            gap.copy_from_slice(&tag);
        }
    }
    Ok((head, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(slot: &mut Slot, vnet: [u8; VNET], frame: &[u8]) -> usize {
        let head = frame.len().min(HEADER_BYTES);
        slot.vnet = vnet;
        slot.head[..head].copy_from_slice(&frame[..head]);
        slot.rest[..frame.len() - head].copy_from_slice(&frame[head..]);
        VNET + frame.len()
    }

    #[test]
    fn frames_come_whole_with_tags_put_back_and_one_burst_at_a_time() {
        let (r, mut buf) = (Receiver::new(false), BurstBuf::new());
        let long: Vec<u8> = (0..9000u32).map(|i| i as u8).collect();
        let lengths = [13, 14, 60, 9000];
        let burst = r.rx(&mut buf, |slots, got| {
            for (i, n) in lengths.into_iter().enumerate() {
                let bytes = give(&mut slots[i], [0; VNET], &long[..n]);
                got(i, &slots[i], Got { bytes, tag: (i == 2).then_some([0x81, 0, 0, 7]) });
            }
            got(4, &slots[4], Got { bytes: VNET + MAX_FRAME + 1, tag: None });
            give(&mut slots[5], [1, 0, 0, 0, 0, 0, 14, 0, 45, 0], &long[..60]);
            got(5, &slots[5], Got { bytes: VNET + 60, tag: None });
        });
        let burst = burst.expect("frames");
        let mut other = BurstBuf::new();
        assert!(r.rx(&mut other, |_, _| unreachable!()).is_none(), "lent");
        assert_eq!(burst.len(), 3);
        assert_eq!(burst.copy_out(0, usize::MAX), long[..14]);
        let tagged = [&long[..12], &[0x81, 0, 0, 7], &long[12..60]].concat();
        assert_eq!(burst.copy_out(1, usize::MAX), tagged);
        assert_eq!(burst.copy_out(2, usize::MAX), long);
        drop(burst);
        for reason in
            [DropReason::RxShortFrame, DropReason::RxOversize, DropReason::RxChecksumOutside]
        {
            assert_eq!(r.counters.drops.get(reason), 1, "{reason:?}");
        }
        assert!(r.rx(&mut other, |_, _| {}).is_none(), "nothing there");
        assert!(
            r.rx(&mut other, |slots, got| {
                give(&mut slots[0], [1, 0, 0, 0, 0, 0, 14, 0, 4, 0], &long[..60]);
                got(0, &slots[0], Got { bytes: VNET + 60, tag: None });
            })
            .is_some_and(|b| b.packets()[0].offload.partial_at() == Some(18))
        );
    }
}
