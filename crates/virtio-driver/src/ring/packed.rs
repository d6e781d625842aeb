//! The packed virtqueue, driver side (virtio 1.3 section 2.8).
//!
//! A chain's buffer id is its token. Descriptors of a chain take consecutive slots; the first one's flags are written last, so the device
//! sees a whole chain or nothing (2.8.21.1).

use super::{
    DESC_INDIRECT, DESC_LEN, DESC_NEXT, DESC_WRITE, Full, Parts, Piece, Recycled, RingAddresses,
    RingFeatures, Used, need_event, packed_word, writable_bytes, write_table,
};
use crate::error::Violation;
use crate::mapping::{Shared, Span};
use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU64, fence};

const DESC_AVAIL: u16 = 1 << 7;
const DESC_USED: u16 = 1 << 15;
/// Event suppression flags (2.8.10): always, never, at a descriptor.
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESC: u16 = 2;

/// Buffers recycled in one go: they are taken back first and posted after, so that a buffer returned twice shows.
/// As many as devices return at once, so the first one that is used says that the others' lines can be asked for.
const RECYCLE_BURST: usize = 32;

/// Descriptors in a cache line.
const LINE_DESCS: usize = 4;

/// What is known of a chain, indexed by buffer id.
#[derive(Debug, Clone, Copy, Default)]
struct Buffer {
    /// First piece, or table: what [`PackedRing::recycle`] writes again.
    gpa: u64,
    len: u32,
    flags: u16,
    /// Slots it takes; 0: not outstanding.
    descs: u16,
    /// Bytes the device may write.
    writable: u32,
    /// Running number of the post.
    posted_at: u32,
}

/// A slot and the wrap counter there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    slot: u16,
    wrap: bool,
}

impl Cursor {
    const START: Cursor = Cursor { slot: 0, wrap: true };

    fn advance(&mut self, by: u16, size: u16) {
        // In 32 bits: slot + by can exceed 65535 in the largest ring.
        let to = u32::from(self.slot) + u32::from(by);
        if to >= u32::from(size) {
            self.slot = (to - u32::from(size)) as u16;
            self.wrap = !self.wrap;
        } else {
            self.slot = to as u16;
        }
    }

    fn bits(self) -> u16 {
        self.slot | u16::from(self.wrap) << 15
    }

    fn avail_flags(self) -> u16 {
        if self.wrap { DESC_AVAIL } else { DESC_USED }
    }

    fn used_flags(self) -> u16 {
        if self.wrap { DESC_AVAIL | DESC_USED } else { 0 }
    }
}

struct Windows {
    span: Span,
    desc: Shared<AtomicU64>,
    /// Ours: offset and wrap, flags.
    driver_event: Shared<AtomicU16>,
    /// The device's.
    device_event: Shared<AtomicU16>,
}

impl Windows {
    fn new(size: u16, span: Span) -> Windows {
        let parts = Parts::of(true, size);
        Windows {
            desc: span.shared(0, 2 * usize::from(size)),
            driver_event: span.shared(parts.avail, 2),
            device_event: span.shared(parts.used, 2),
            span,
        }
    }
}

/// A packed ring as its driver sees it.
pub struct PackedRing {
    features: RingFeatures,
    mem: Windows,
    buffers: Box<[Buffer]>,
    /// Address last written to each slot, so that recycling writes only what changed.
    slot_gpa: Box<[u64]>,
    /// Ids by position, a power of two of them.
    order: Box<[u16]>,
    avail: Cursor,
    used: Cursor,
    free: u16,
    post_pos: u32,
    used_pos: u32,
    /// Slots posted since the last kick decision.
    unkicked: u16,
    /// IN_ORDER: the batch being handed out ends at this position, with this length.
    batch: Option<(u32, u32)>,
}

impl fmt::Debug for PackedRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedRing(avail {:?}, used {:?}, free {})", self.avail, self.used, self.free)
    }
}

impl PackedRing {
    pub(super) fn new(size: u16, span: Span, features: RingFeatures) -> PackedRing {
        let n = usize::from(size);
        let mut ring = PackedRing {
            features,
            mem: Windows::new(size, span),
            buffers: vec![Buffer::default(); n].into(),
            slot_gpa: vec![0; n].into(),
            order: vec![0; n.next_power_of_two()].into(),
            avail: Cursor::START,
            used: Cursor::START,
            free: size,
            post_pos: 0,
            used_pos: 0,
            unkicked: 0,
            batch: None,
        };
        ring.refuse_calls();
        ring
    }

    pub(super) fn size(&self) -> u16 {
        self.buffers.len() as u16
    }
    pub(super) fn free(&self) -> u16 {
        self.free
    }
    pub(super) fn outstanding(&self) -> u16 {
        self.post_pos.wrapping_sub(self.used_pos) as u16
    }

    fn order_slot(&self, position: u32) -> usize {
        position as usize & (self.order.len() - 1)
    }

    fn enter(&mut self, id: u16, first: Piece, flags: u16, descs: u16, writable: u32) {
        let posted_at = self.post_pos;
        self.buffers[usize::from(id)] =
            Buffer { gpa: first.gpa, len: first.len, flags, descs, writable, posted_at };
        let slot = self.order_slot(posted_at);
        self.order[slot] = id;
        self.post_pos = posted_at.wrapping_add(1);
        self.avail.advance(descs, self.size());
        self.free -= descs;
        self.unkicked += descs;
    }

    fn write_desc(&mut self, at: Cursor, gpa: u64, second: u64) {
        let slot = usize::from(at.slot);
        self.slot_gpa[slot] = gpa;
        self.mem.desc[2 * slot].store(gpa.to_le(), Relaxed);
        self.mem.desc[2 * slot + 1].store(second, Release);
    }

    fn can_post(&self, descs: usize, id: u16) -> Result<(), Full> {
        let known = self.buffers.get(usize::from(id));
        let idle = known.is_some_and(|buffer| buffer.descs == 0);
        if descs == 0 || descs > usize::from(self.free) || !idle { Err(Full) } else { Ok(()) }
    }

    pub(super) fn post(&mut self, pieces: &[Piece], id: u16) -> Result<(), Full> {
        self.can_post(pieces.len(), id)?;
        let flags = |i: usize, at: Cursor| {
            let write = if pieces[i].writable { DESC_WRITE } else { 0 };
            let next = if i + 1 < pieces.len() { DESC_NEXT } else { 0 };
            write | next | at.avail_flags()
        };
        let mut at = self.avail;
        for (i, piece) in pieces.iter().enumerate().skip(1) {
            at.advance(1, self.size());
            self.write_desc(at, piece.gpa, packed_word(piece.len, id, flags(i, at)));
        }
        let first = flags(0, self.avail);
        self.write_desc(self.avail, pieces[0].gpa, packed_word(pieces[0].len, id, first));
        let kept = first & !(DESC_AVAIL | DESC_USED);
        self.enter(id, pieces[0], kept, pieces.len() as u16, writable_bytes(pieces));
        Ok(())
    }

    pub(super) fn post_indirect(
        &mut self,
        table: &Span,
        pieces: &[Piece],
        id: u16,
    ) -> Result<(), Full> {
        self.can_post(1, id)?;
        write_table(table, pieces, true);
        let whole =
            Piece { gpa: table.gpa(0), len: (pieces.len() * DESC_LEN) as u32, writable: false };
        let flags = DESC_INDIRECT | self.avail.avail_flags();
        self.write_desc(self.avail, whole.gpa, packed_word(whole.len, id, flags));
        self.enter(id, whole, DESC_INDIRECT, 1, writable_bytes(pieces));
        Ok(())
    }

    /// Nothing: each descriptor became visible with its flags.
    pub(super) fn publish(&mut self) {}

    pub(super) fn should_kick(&mut self) -> bool {
        let posted = std::mem::take(&mut self.unkicked);
        if posted == 0 {
            return false;
        }
        fence(SeqCst); // flags must be visible before the device's wish is read (2.8.21.3)
        match u16::from_le(self.mem.device_event[1].load(Relaxed)) & 3 {
            EVENT_ENABLE => true,
            EVENT_DESC => {
                let wish = u16::from_le(self.mem.device_event[0].load(Relaxed));
                let (mut event, wrap) = (wish & 0x7fff, wish >> 15 != 0);
                if wrap != self.avail.wrap {
                    event = event.wrapping_sub(self.size());
                }
                need_event(event, self.avail.slot, self.avail.slot.wrapping_sub(posted))
            }
            _ => false,
        }
    }

    fn is_used(&self, at: Cursor) -> bool {
        let word = u64::from_le(self.mem.desc[2 * usize::from(at.slot) + 1].load(Relaxed));
        let flags = (word >> 48) as u16;
        (flags & DESC_AVAIL != 0) == at.wrap && (flags & DESC_USED != 0) == at.wrap
    }

    pub(super) fn has_used(&self) -> bool {
        self.batch.is_some() || (self.outstanding() > 0 && self.is_used(self.used))
    }

    /// Reads the used descriptor at the cursor, once it was seen to be used, and checks it against what was posted.
    fn element(&self) -> Result<(u16, Buffer, u32), Violation> {
        fence(Acquire); // pairs with the device's release of the flags: id and length are read after them
        let word = u64::from_le(self.mem.desc[2 * usize::from(self.used.slot) + 1].load(Relaxed));
        let id = (word >> 32) as u16;
        // Without the write flag a used descriptor's length means nothing (2.8.6); DPDK's vhost leaves the old one there.
        let written = (word >> 48) as u16 & DESC_WRITE != 0;
        let len = if written { word as u32 } else { 0 };
        let Some(&buffer) = self.buffers.get(usize::from(id)) else {
            return Err(Violation::IdOutOfRange { id: id.into(), size: self.size() });
        };
        if buffer.descs == 0 {
            return Err(Violation::NotOutstanding { id });
        }
        if len > buffer.writable {
            return Err(Violation::LengthTooLong { id, len, posted: buffer.writable });
        }
        Ok((id, buffer, len))
    }

    /// IN_ORDER: a used descriptor may stand for a batch that ends with its buffer (2.8.9).
    fn check_order(&self, id: u16, last: u32) -> Result<(), Violation> {
        if last.wrapping_sub(self.used_pos) < u32::from(self.outstanding()) {
            return Ok(());
        }
        Err(Violation::OutOfOrder { id, oldest: self.order[self.order_slot(self.used_pos)] })
    }

    fn take(&mut self, id: u16) {
        let size = self.size();
        let descs = std::mem::take(&mut self.buffers[usize::from(id)].descs);
        self.used.advance(descs, size);
        self.free += descs;
        self.used_pos = self.used_pos.wrapping_add(1);
    }

    /// Steps over a used descriptor that breaks the rules, so that it is reported once.
    fn skip(&mut self) {
        let size = self.size();
        self.used.advance(1, size);
    }

    pub(super) fn pop(&mut self) -> Result<Option<Used>, Violation> {
        if self.batch.is_none() && !self.has_used() {
            return Ok(None);
        }
        if self.features.in_order {
            return self.pop_in_order().map(Some);
        }
        let (id, _, len) = self.element().inspect_err(|_| self.skip())?;
        self.take(id);
        Ok(Some(Used { token: id, len }))
    }

    fn pop_in_order(&mut self) -> Result<Used, Violation> {
        let (last, len) = match self.batch {
            Some(batch) => batch,
            None => {
                let found = self.element().and_then(|(id, buffer, len)| {
                    self.check_order(id, buffer.posted_at).map(|()| (buffer.posted_at, len))
                });
                found.inspect_err(|_| self.skip())?
            }
        };
        let id = self.order[self.order_slot(self.used_pos)];
        let here = self.used_pos == last;
        self.batch = (!here).then_some((last, len));
        let buffer = self.buffers[usize::from(id)];
        if buffer.descs == 0 {
            self.batch = None; // possible only after an earlier violation
            self.skip();
            return Err(Violation::NotOutstanding { id });
        }
        let len = if here { len } else { buffer.writable };
        self.take(id);
        Ok(Used { token: id, len })
    }

    /// `touch` gets each buffer's id and length before the device can see it again. The device sees all of them at
    /// once: one that polls takes the lines away that are being written.
    #[inline]
    pub(super) fn recycle(
        &mut self,
        limit: u16,
        touch: impl FnMut(u16, u32),
    ) -> Result<Recycled, Violation> {
        let mut first = None;
        let result = self.recycle_all(limit, touch, &mut first);
        if let Some((slot, word)) = first {
            self.mem.desc[2 * slot + 1].store(word, Release);
        }
        result
    }

    /// See [`PackedRing::recycle`]; leaves out the second word of the first descriptor, with its flags.
    #[inline]
    fn recycle_all(
        &mut self,
        limit: u16,
        mut touch: impl FnMut(u16, u32),
        first: &mut Option<(usize, u64)>,
    ) -> Result<Recycled, Violation> {
        let mut done = Recycled::default();
        if !self.features.in_order {
            self.recycle_plain(limit, &mut touch, &mut done, first)?;
        }
        let mut burst = [Used { token: 0, len: 0 }; RECYCLE_BURST];
        let limit = usize::from(limit);
        loop {
            let want = burst.len().min(limit.saturating_sub(done.buffers as usize));
            let (taken, result) = self.take_burst(&mut burst[..want]);
            for used in &burst[..taken] {
                done.bytes += u64::from(used.len);
                touch(used.token, used.len);
                self.repost(used.token, first);
            }
            done.buffers += taken as u32;
            result?;
            if taken < want || want == 0 {
                return Ok(done);
            }
        }
    }

    /// The quick way for buffers of one descriptor: each is posted again as soon as it was taken back. Ends at what is
    /// not so, or not right, which the other way deals with.
    #[inline]
    fn recycle_plain(
        &mut self,
        limit: u16,
        touch: &mut impl FnMut(u16, u32),
        done: &mut Recycled,
        first: &mut Option<(usize, u64)>,
    ) -> Result<(), Violation> {
        let size = self.size();
        let start = self.post_pos;
        let (mut used, mut avail, mut n) = (self.used, self.avail, 0u32);
        let mut twice = None;
        while n < u32::from(limit) {
            let word = self.mem.desc[2 * usize::from(used.slot) + 1].load(Acquire);
            let word = u64::from_le(word);
            let (flags, id) = ((word >> 48) as u16, (word >> 32) as u16);
            if flags & (DESC_AVAIL | DESC_USED) != used.used_flags() {
                break;
            }
            if (n as usize).is_multiple_of(RECYCLE_BURST) {
                self.fetch_used(used, RECYCLE_BURST.min(usize::from(limit) - n as usize));
            }
            // See `element` about the length.
            let len = if flags & DESC_WRITE != 0 { word as u32 } else { 0 };
            let Some(buffer) = self.buffers.get_mut(usize::from(id)) else { break };
            if buffer.descs != 1 || len > buffer.writable {
                break;
            }
            if buffer.posted_at.wrapping_sub(start) < n {
                // Posted again in this very call, so not visible yet: the device returned it twice.
                twice = Some(Violation::NotOutstanding { id });
                break;
            }
            done.bytes += u64::from(len);
            touch(id, len);
            let slot = usize::from(avail.slot);
            if self.slot_gpa[slot] != buffer.gpa {
                self.slot_gpa[slot] = buffer.gpa;
                self.mem.desc[2 * slot].store(buffer.gpa.to_le(), Relaxed);
            }
            let word = packed_word(buffer.len, id, buffer.flags | avail.avail_flags());
            match first {
                None => *first = Some((slot, word)),
                Some(_) => self.mem.desc[2 * slot + 1].store(word, Release),
            }
            buffer.posted_at = start.wrapping_add(n);
            let place = buffer.posted_at as usize & (self.order.len() - 1);
            self.order[place] = id;
            used.advance(1, size);
            avail.advance(1, size);
            n += 1;
        }
        (self.used, self.avail) = (used, avail);
        self.used_pos = self.used_pos.wrapping_add(n);
        self.post_pos = start.wrapping_add(n);
        self.unkicked += n as u16;
        done.buffers += n;
        match twice {
            Some(violation) => {
                self.skip();
                Err(violation)
            }
            None => Ok(()),
        }
    }

    /// Asks for the lines of the next descriptors, which will be written too, so that all are under way from the
    /// device's core before the second is needed.
    #[inline]
    fn fetch_used(&self, used: Cursor, ready: usize) {
        let ready = ready.min(self.outstanding().into());
        for i in (LINE_DESCS..ready).step_by(LINE_DESCS) {
            let mut slot = usize::from(used.slot) + i;
            if slot >= self.buffers.len() {
                slot -= self.buffers.len();
            }
            self.mem.span.prefetch_write(DESC_LEN * slot);
        }
    }

    /// Takes back used buffers; how many, and what ended it.
    #[inline]
    fn take_burst(&mut self, burst: &mut [Used]) -> (usize, Result<(), Violation>) {
        for (taken, place) in burst.iter_mut().enumerate() {
            match self.pop() {
                Ok(Some(used)) => *place = used,
                Ok(None) => return (taken, Ok(())),
                Err(violation) => return (taken, Err(violation)),
            }
        }
        (burst.len(), Ok(()))
    }

    /// Posts a single-descriptor buffer again as it was; if it is the first, what makes it visible goes to `first`.
    #[inline]
    fn repost(&mut self, id: u16, first: &mut Option<(usize, u64)>) {
        let buffer = self.buffers[usize::from(id)];
        let at = self.avail;
        let slot = usize::from(at.slot);
        if self.slot_gpa[slot] != buffer.gpa {
            self.slot_gpa[slot] = buffer.gpa;
            self.mem.desc[2 * slot].store(buffer.gpa.to_le(), Relaxed);
        }
        let flags = buffer.flags & !DESC_NEXT | at.avail_flags();
        let word = packed_word(buffer.len, id, flags);
        match first {
            None => *first = Some((slot, word)),
            Some(_) => self.mem.desc[2 * slot + 1].store(word, Release),
        }
        let first = Piece { gpa: buffer.gpa, len: buffer.len, writable: false };
        self.enter(id, first, buffer.flags, 1, buffer.writable);
    }

    pub(super) fn ask_for_call(&mut self) {
        let (bits, flags) = if self.features.event_idx {
            (self.used.bits(), EVENT_DESC)
        } else {
            (0, EVENT_ENABLE)
        };
        self.mem.driver_event[0].store(bits.to_le(), Relaxed);
        self.mem.driver_event[1].store(flags.to_le(), Release);
        fence(SeqCst); // the wish must be visible before the caller looks again (2.8.10)
    }

    pub(super) fn refuse_calls(&mut self) {
        self.mem.driver_event[1].store(EVENT_DISABLE.to_le(), Relaxed);
    }

    pub(super) fn resume_base(&self) -> u32 {
        let mut at = self.used;
        let mut position = self.used_pos;
        while position != self.post_pos && self.is_used(at) {
            let id = self.order[self.order_slot(position)];
            at.advance(self.buffers[usize::from(id)].descs, self.size());
            position = position.wrapping_add(1);
        }
        u32::from(at.bits()) | u32::from(at.bits()) << 16
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        let parts = Parts::of(true, self.size());
        let span = &self.mem.span;
        RingAddresses {
            desc: span.user_addr(0),
            avail: span.user_addr(parts.avail),
            used: span.user_addr(parts.used),
            log: span.gpa(0),
        }
    }

    pub(super) fn move_to(&mut self, span: Span) {
        let mut bytes = Vec::new();
        self.mem.span.read(0, Parts::of(true, self.size()).total, &mut bytes);
        span.write(0, &bytes);
        self.mem = Windows::new(self.size(), span);
    }
}
