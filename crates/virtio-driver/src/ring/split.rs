//! The split virtqueue, driver side (virtio 1.3 section 2.7).
//!
//! Free descriptors wait in a queue, first in first out. A device that keeps the order therefore gets descriptors in table order, which is
//! what IN_ORDER demands of the driver (2.7.9), with no second allocator. Private arrays mirror all that the ring's correctness rests on;
//! guest memory is only written, and read where the device writes.

use super::{
    DESC_INDIRECT, DESC_LEN, DESC_NEXT, DESC_WRITE, Full, Parts, Piece, Recycled, RingAddresses,
    RingFeatures, Used, need_event, split_word, writable_bytes, write_table,
};
use crate::error::Violation;
use crate::mapping::{Shared, Span};
use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};

/// In `avail.flags`: no calls, please.
const NO_INTERRUPT: u16 = 1;
/// In `used.flags`: no kicks, please.
const NO_NOTIFY: u16 = 1;

/// What is known of a chain, indexed by its head descriptor.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// Position in the available ring, running.
    posted_at: u32,
    /// Bytes the device may write.
    writable: u32,
    /// Descriptors in the table; 0: not outstanding.
    descs: u16,
    token: u16,
}

/// The windows into guest memory.
struct Windows {
    span: Span,
    desc: Shared<AtomicU64>,
    avail_head: Shared<AtomicU16>,
    avail_ring: Shared<AtomicU16>,
    used_event: Shared<AtomicU16>,
    used_head: Shared<AtomicU16>,
    used_ring: Shared<AtomicU32>,
    avail_event: Shared<AtomicU16>,
}

impl Windows {
    fn new(size: u16, span: Span) -> Windows {
        let n = usize::from(size);
        let parts = Parts::of(false, size);
        Windows {
            desc: span.shared(0, 2 * n),
            avail_head: span.shared(parts.avail, 2),
            avail_ring: span.shared(parts.avail + 4, n),
            used_event: span.shared(parts.avail + 4 + 2 * n, 1),
            used_head: span.shared(parts.used, 2),
            used_ring: span.shared(parts.used + 4, 2 * n),
            avail_event: span.shared(parts.used + 4 + 8 * n, 1),
            span,
        }
    }
}

/// A split ring as its driver sees it.
pub struct SplitRing {
    mask: u32,
    features: RingFeatures,
    mem: Windows,
    heads: Box<[Head]>,
    /// Links of direct chains, as written.
    next: Box<[u16]>,
    /// The available ring as written: heads by position.
    order: Box<[u16]>,
    /// Free descriptors, first in first out.
    free: Box<[u16]>,
    free_from: u32,
    free_len: u16,
    /// Next position to post at; positions run on, the ring shows their low bits.
    post_pos: u32,
    /// Positions below this are visible to the device.
    published: u32,
    /// `published` at the last kick decision.
    kicked: u32,
    /// Used elements taken so far.
    used_pos: u32,
    /// Used elements known to be there.
    used_seen: u32,
    /// IN_ORDER: the batch being handed out, up to and including this position, and the last buffer's length.
    batch: Option<(u32, u32)>,
}

impl fmt::Debug for SplitRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, posted, published, used) =
            (self.free_len, self.post_pos, self.published, self.used_pos);
        write!(f, "SplitRing(posted {posted}, published {published}, used {used}, free {free})")
    }
}

impl SplitRing {
    pub(super) fn new(size: u16, span: Span, features: RingFeatures) -> SplitRing {
        let n = usize::from(size);
        let mut ring = SplitRing {
            mask: u32::from(size) - 1,
            features,
            mem: Windows::new(size, span),
            heads: vec![Head::default(); n].into(),
            next: vec![0; n].into(),
            order: vec![0; n].into(),
            free: (0..size).collect(),
            free_from: 0,
            free_len: size,
            post_pos: 0,
            published: 0,
            kicked: 0,
            used_pos: 0,
            used_seen: 0,
            batch: None,
        };
        ring.refuse_calls();
        ring
    }

    pub(super) fn size(&self) -> u16 {
        self.heads.len() as u16
    }
    pub(super) fn free(&self) -> u16 {
        self.free_len
    }
    pub(super) fn outstanding(&self) -> u16 {
        self.published.wrapping_sub(self.used_pos) as u16
    }

    fn take_free(&mut self) -> u16 {
        let desc = self.free[(self.free_from & self.mask) as usize];
        self.free_from = self.free_from.wrapping_add(1);
        self.free_len -= 1;
        desc
    }

    fn give_free(&mut self, desc: u16) {
        let to = self.free_from.wrapping_add(u32::from(self.free_len));
        self.free[(to & self.mask) as usize] = desc;
        self.free_len += 1;
    }

    fn write_desc(&self, at: u16, gpa: u64, second: u64) {
        self.mem.desc[2 * usize::from(at)].store(gpa.to_le(), Relaxed);
        self.mem.desc[2 * usize::from(at) + 1].store(second, Relaxed);
    }

    fn enter(&mut self, head: u16, descs: u16, writable: u32, token: u16) {
        self.heads[usize::from(head)] = Head { posted_at: self.post_pos, writable, descs, token };
        let slot = (self.post_pos & self.mask) as usize;
        self.order[slot] = head;
        self.mem.avail_ring[slot].store(head.to_le(), Relaxed);
        self.post_pos = self.post_pos.wrapping_add(1);
    }

    pub(super) fn post(&mut self, pieces: &[Piece], token: u16) -> Result<(), Full> {
        if pieces.is_empty() || pieces.len() > usize::from(self.free_len) {
            return Err(Full);
        }
        let head = self.take_free();
        let mut at = head;
        for (i, piece) in pieces.iter().enumerate() {
            let write = if piece.writable { DESC_WRITE } else { 0 };
            if i + 1 < pieces.len() {
                let next = self.take_free();
                self.next[usize::from(at)] = next;
                self.write_desc(at, piece.gpa, split_word(piece.len, write | DESC_NEXT, next));
                at = next;
            } else {
                self.write_desc(at, piece.gpa, split_word(piece.len, write, 0));
            }
        }
        self.enter(head, pieces.len() as u16, writable_bytes(pieces), token);
        Ok(())
    }

    pub(super) fn post_indirect(
        &mut self,
        table: &Span,
        pieces: &[Piece],
        token: u16,
    ) -> Result<(), Full> {
        if self.free_len == 0 {
            return Err(Full);
        }
        write_table(table, pieces, false);
        let head = self.take_free();
        self.write_desc(
            head,
            table.gpa(0),
            split_word((pieces.len() * DESC_LEN) as u32, DESC_INDIRECT, 0),
        );
        self.enter(head, 1, writable_bytes(pieces), token);
        Ok(())
    }

    pub(super) fn publish(&mut self) {
        self.published = self.post_pos;
        self.mem.avail_head[1].store((self.published as u16).to_le(), Release);
    }

    pub(super) fn should_kick(&mut self) -> bool {
        let (old, new) = (self.kicked, self.published);
        if old == new {
            return false;
        }
        self.kicked = new;
        fence(SeqCst); // the index must be visible before the device's wish is read (2.7.13.4)
        if self.features.event_idx {
            let event = u16::from_le(self.mem.avail_event[0].load(Relaxed));
            need_event(event, new as u16, old as u16)
        } else {
            u16::from_le(self.mem.used_head[0].load(Relaxed)) & NO_NOTIFY == 0
        }
    }

    #[inline]
    fn used_index(&self) -> u16 {
        u16::from_le(self.mem.used_head[1].load(Acquire))
    }

    pub(super) fn has_used(&self) -> bool {
        self.used_pos != self.used_seen || self.used_index() != self.used_seen as u16
    }

    /// Reads the used index; the number of elements to take.
    #[inline]
    fn ready(&mut self) -> Result<u32, Violation> {
        let index = self.used_index();
        let ready = index.wrapping_sub(self.used_pos as u16);
        let outstanding = self.outstanding();
        if ready > outstanding {
            return Err(Violation::UsedIndexAhead {
                used: index,
                last: self.used_pos as u16,
                outstanding,
            });
        }
        self.used_seen = self.used_pos.wrapping_add(u32::from(ready));
        Ok(u32::from(ready))
    }

    /// Reads the element at the used position and checks it against what was posted.
    #[inline]
    fn element(&self) -> Result<(u16, Head, u32), Violation> {
        let slot = 2 * (self.used_pos & self.mask) as usize;
        let id = u32::from_le(self.mem.used_ring[slot].load(Relaxed));
        let len = u32::from_le(self.mem.used_ring[slot + 1].load(Relaxed));
        let Some(&head) = self.heads.get(id as usize) else {
            return Err(Violation::IdOutOfRange { id, size: self.size() });
        };
        let id = id as u16;
        if head.descs == 0 {
            return Err(Violation::NotOutstanding { id });
        }
        if len > head.writable {
            return Err(Violation::LengthTooLong { id, len, posted: head.writable });
        }
        Ok((id, head, len))
    }

    /// IN_ORDER: an element may stand for a batch that ends with its buffer (2.7.9); `last` is that buffer's position.
    fn check_order(&self, id: u16, last: u32) -> Result<(), Violation> {
        let batch = last.wrapping_sub(self.used_pos);
        if batch < self.used_seen.wrapping_sub(self.used_pos) {
            return Ok(());
        }
        Err(Violation::OutOfOrder { id, oldest: self.order[(self.used_pos & self.mask) as usize] })
    }

    pub(super) fn pop(&mut self) -> Result<Option<Used>, Violation> {
        if self.used_pos == self.used_seen && self.ready()? == 0 {
            return Ok(None);
        }
        if self.features.in_order {
            return self.pop_in_order().map(Some);
        }
        let element = self.element();
        self.used_pos = self.used_pos.wrapping_add(1);
        let (id, head, len) = element?;
        self.release(id);
        Ok(Some(Used { token: head.token, len }))
    }

    fn pop_in_order(&mut self) -> Result<Used, Violation> {
        let (last, len) = match self.batch {
            Some(batch) => batch,
            None => {
                let found = self.element().and_then(|(id, head, len)| {
                    self.check_order(id, head.posted_at).map(|()| (head.posted_at, len))
                });
                let batch = found.inspect_err(|_| self.used_pos = self.used_pos.wrapping_add(1))?;
                self.batch = Some(batch);
                batch
            }
        };
        let id = self.order[(self.used_pos & self.mask) as usize];
        let head = self.heads[usize::from(id)];
        // Buffers a batch skips over count as wholly used.
        let len = if self.used_pos == last { len } else { head.writable };
        if self.used_pos == last {
            self.batch = None;
        }
        self.used_pos = self.used_pos.wrapping_add(1);
        if head.descs == 0 {
            self.batch = None; // possible only after an earlier violation
            return Err(Violation::NotOutstanding { id });
        }
        self.release(id);
        Ok(Used { token: head.token, len })
    }

    fn release(&mut self, id: u16) {
        let descs = std::mem::take(&mut self.heads[usize::from(id)].descs);
        let mut at = id;
        for _ in 0..descs {
            self.give_free(at);
            at = self.next[usize::from(at)];
        }
    }

    /// `touch` gets each buffer's token and length before the device can see it again.
    #[inline]
    pub(super) fn recycle(
        &mut self,
        limit: u16,
        mut touch: impl FnMut(u16, u32),
    ) -> Result<Recycled, Violation> {
        let ready = self.ready()?.min(u32::from(limit));
        let mut done = Recycled::default();
        if ready == 0 {
            // Not even the index is written: the device's core may keep its line.
            return Ok(done);
        }
        self.fetch_used(ready);
        let mut result = Ok(());
        while done.buffers < ready && result.is_ok() {
            result = self.recycle_some(ready - done.buffers, &mut done, &mut touch);
        }
        if result.is_err() {
            self.used_pos = self.used_pos.wrapping_add(1);
        }
        self.publish();
        result.map(|()| done)
    }

    /// Looks at one of each eight used elements, a cache line, so that all their lines are under way from
    /// the device's core before the first is needed.
    #[inline]
    fn fetch_used(&self, ready: u32) {
        let lines = (0..ready).step_by(8).map(|i| {
            let slot = 2 * (self.used_pos.wrapping_add(i) & self.mask) as usize;
            self.mem.used_ring[slot].load(Relaxed)
        });
        std::hint::black_box(lines.fold(0, |all, id| all ^ id));
    }

    /// Takes one used element and posts its buffer (IN_ORDER: its batch) again.
    #[inline]
    fn recycle_some(
        &mut self,
        left: u32,
        done: &mut Recycled,
        touch: &mut impl FnMut(u16, u32),
    ) -> Result<(), Violation> {
        let (id, head, len) = self.element()?;
        // Posted again in this very burst, so not yet visible: the device returned it twice.
        if head.posted_at.wrapping_sub(self.published) < self.heads.len() as u32 {
            return Err(Violation::NotOutstanding { id });
        }
        done.bytes += u64::from(len);
        if !self.features.in_order {
            self.used_pos = self.used_pos.wrapping_add(1);
            touch(head.token, len);
            self.repost(id);
            done.buffers += 1;
            return Ok(());
        }
        self.check_order(id, head.posted_at)?;
        let batch = head.posted_at.wrapping_sub(self.used_pos) + 1;
        if batch > left {
            let oldest = self.order[(self.used_pos & self.mask) as usize];
            return Err(Violation::OutOfOrder { id, oldest });
        }
        for _ in 0..batch {
            let oldest = self.order[(self.used_pos & self.mask) as usize];
            self.used_pos = self.used_pos.wrapping_add(1);
            touch(self.heads[usize::from(oldest)].token, len);
            self.repost(oldest);
        }
        done.buffers += batch;
        Ok(())
    }

    #[inline]
    fn repost(&mut self, id: u16) {
        let slot = (self.post_pos & self.mask) as usize;
        // A device that keeps the order gets what stands there already.
        if self.order[slot] != id {
            self.order[slot] = id;
            self.mem.avail_ring[slot].store(id.to_le(), Relaxed);
        }
        self.heads[usize::from(id)].posted_at = self.post_pos;
        self.post_pos = self.post_pos.wrapping_add(1);
    }

    pub(super) fn ask_for_call(&mut self) {
        self.mem.avail_head[0].store(0, Relaxed);
        self.mem.used_event[0].store((self.used_seen as u16).to_le(), Relaxed);
        fence(SeqCst); // the wish must be visible before the caller looks again (2.7.7)
    }

    pub(super) fn refuse_calls(&mut self) {
        if self.features.event_idx {
            // As far behind as can be: 65535 more buffers until the next call. The flag must stay 0 (2.7.7.1).
            self.mem.used_event[0].store((self.used_pos as u16).wrapping_sub(1).to_le(), Relaxed);
        } else {
            self.mem.avail_head[0].store(NO_INTERRUPT.to_le(), Relaxed);
        }
    }

    pub(super) fn resume_base(&self) -> u32 {
        u32::from(self.used_index())
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        let parts = Parts::of(false, self.size());
        let span = &self.mem.span;
        RingAddresses {
            desc: span.user_addr(0),
            avail: span.user_addr(parts.avail),
            used: span.user_addr(parts.used),
            log: span.gpa(parts.used),
        }
    }

    pub(super) fn move_to(&mut self, span: Span) {
        let mut bytes = Vec::new();
        self.mem.span.read(0, Parts::of(false, self.size()).total, &mut bytes);
        span.write(0, &bytes);
        self.mem = Windows::new(self.size(), span);
    }
}
