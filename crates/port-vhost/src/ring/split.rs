//! The split ring (virtio 1.3, 2.7): descriptor table, available ring and used ring.

use super::{Desc, F_NEXT, Layout, Lent, RingFault, RingSpec};
use crate::mem::GuestMemory;
use packet::arch::{prefetch_read, prefetch_write};
use std::sync::atomic::{AtomicU16, Ordering};

/// Available ring flag: the driver wants no interrupts (virtio 1.3, 2.7.7).
const NO_INTERRUPT: u16 = 1;
/// Used ring flag: the device wants no kicks (virtio 1.3, 2.7.10).
const NO_NOTIFY: u16 = 1;

/// A split ring in guest memory. The pointers cover what `new` checked: `size` descriptors, and both
/// rings with their event words.
#[derive(Debug)]
pub(crate) struct Split {
    desc: *const u64,
    avail: *mut u16,
    used: *mut u16,
    mask: u16,
    event_idx: bool,
    /// Next available entry to read.
    next: u16,
    /// The driver's available index as last seen.
    seen: u16,
    /// Next used entry to write.
    used_next: u16,
    /// The last head that was read.
    last_head: u16,
    /// The used index at the last interrupt, if there was one.
    signalled: Option<u16>,
}

impl Split {
    /// A ring at the given addresses; `None` if it is not wholly in guest memory, not aligned, or its
    /// size is not a power of two up to 32768.
    ///
    /// The ring starts at the used index in guest memory, not at the base given. A device that gives
    /// all buffers back within the burst, as this one does, stops with both equal, and a driver that
    /// makes a new ring zeroes both; so they differ only after a crash. Then QEMU gives the used
    /// index as base itself, while Cloud Hypervisor gives the available index, with which all
    /// buffers that were posted would be lost. A used index that lies costs its guest only: what it
    /// makes available is checked as ever.
    pub(crate) fn new(spec: &RingSpec, mem: &GuestMemory) -> Option<Split> {
        let n = u64::from(spec.size);
        if !spec.size.is_power_of_two() || spec.size > 1 << 15 {
            return None;
        }
        let at = |addr: u64, len: u64, align: usize| {
            mem.user(addr, len).filter(|p| p.align_offset(align) == 0)
        };
        let desc = at(spec.desc, 16 * n, 16)?.cast::<u64>();
        let avail = at(spec.driver, 6 + 2 * n, 2)?.cast::<u16>();
        let used = at(spec.device, 6 + 8 * n, 4)?.cast::<u16>();
        let mut ring = Split {
            desc,
            avail,
            used,
            mask: spec.size - 1,
            event_idx: spec.event_idx,
            next: 0,
            seen: 0,
            used_next: 0,
            last_head: 0,
            signalled: None,
        };
        let start = u16::from_le(ring.word(ring.used, 1).load(Ordering::Acquire));
        (ring.next, ring.seen, ring.used_next) = (start, start, start);
        // A polling device wants no kicks: the flag says so; with event indices the driver kicks
        // once in 65536 buffers, when it passes the index that stays in `avail_event`.
        let flags = if spec.event_idx { 0 } else { NO_NOTIFY };
        ring.word(ring.used, 0).store(flags.to_le(), Ordering::Relaxed);
        Some(ring)
    }

    /// Word `i` of the available or used ring, shared with the guest.
    #[inline(always)]
    fn word(&self, ring: *mut u16, i: usize) -> &AtomicU16 {
        // SAFETY: callers pass `avail` or `used` and an index that `new` checked to be inside: 0, 1,
        // or entry `mask` at most plus the event word. The ring holds its memory while it lives.
        unsafe { AtomicU16::from_ptr(ring.add(i)) }
    }

    /// Buffers that are available and were not taken yet.
    pub(crate) fn waiting(&self) -> u16 {
        let available = u16::from_le(self.word(self.avail, 1).load(Ordering::Relaxed));
        available.wrapping_sub(self.next).min(self.mask + 1)
    }

    /// Descriptor `i`, read once. `i` is at most `mask`.
    #[inline(always)]
    fn desc(&self, i: u16) -> Desc {
        debug_assert!(i <= self.mask);
        // SAFETY: the index is masked to the table, which `new` checked.
        unsafe { read_desc(self.desc, i & self.mask) }
    }
}

/// Descriptor `i` of a table, read once.
///
/// # Safety
/// The table has more than `i` descriptors and is aligned to 16.
#[inline(always)]
unsafe fn read_desc(table: *const u64, i: u16) -> Desc {
    // SAFETY: by the caller.
    let (addr, rest) = unsafe {
        let p = table.add(usize::from(i) * 2);
        (p.read_volatile(), p.add(1).read_volatile())
    };
    Desc::split(addr, rest, i)
}

impl Layout for Split {
    type Mark = u16;
    const ID_IS_LAST: bool = false;

    fn indirect_entry(lo: u64, hi: u64, _table_ends: bool) -> (Desc, bool) {
        let d = Desc::split(lo, hi, 0);
        (d, d.flags & F_NEXT == 0)
    }

    #[inline(always)]
    fn refresh(&mut self, want: usize) -> Result<(), RingFault> {
        if usize::from(self.seen.wrapping_sub(self.next)) < want {
            self.seen = u16::from_le(self.word(self.avail, 1).load(Ordering::Acquire));
            if self.seen.wrapping_sub(self.next) > self.mask + 1 {
                return Err(RingFault::AvailJump);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn offer<S>(
        &mut self,
        slots: impl Iterator<Item = S>,
        mut take: impl FnMut(S, &Desc) -> bool,
    ) -> Result<usize, RingFault> {
        // Copies, as the compiler must presume that what `take` writes changes `self`.
        let (table, avail, mask) = (self.desc, self.avail, self.mask);
        let (mut next, mut last_head) = (self.next, self.last_head);
        let known = self.seen.wrapping_sub(next);
        let mut result = Ok(());
        for slot in slots.take(known.into()) {
            let entry = 2 + usize::from(next & mask);
            // SAFETY: the entry is masked to the ring, which `new` checked; see `word`.
            let head = unsafe { AtomicU16::from_ptr(avail.add(entry)) }.load(Ordering::Relaxed);
            let head = u16::from_le(head);
            if head > mask {
                result = Err(RingFault::BadIndex);
                break;
            }
            // SAFETY: `head` is within the table, which `new` checked and aligned.
            if !take(slot, &unsafe { read_desc(table, head) }) {
                break;
            }
            last_head = head;
            next = next.wrapping_add(1);
        }
        let n = next.wrapping_sub(self.next);
        (self.next, self.last_head) = (next, last_head);
        result.map(|()| n.into())
    }

    fn more(&mut self, d: &Desc) -> Result<Desc, RingFault> {
        if d.next > self.mask {
            return Err(RingFault::BadIndex);
        }
        Ok(self.desc(d.next))
    }

    fn mark(&self) -> u16 {
        self.next
    }

    fn rewind(&mut self, mark: u16, buffers: usize) {
        self.next = mark.wrapping_add(buffers as u16);
    }

    fn size(&self) -> u16 {
        self.mask + 1
    }

    #[inline(always)]
    fn give(&mut self, lent: &[Lent]) {
        // Copies, as the compiler must presume that what is written to the guest changes `self`.
        let (used, mask, mut next) = (self.used, self.mask, self.used_next);
        for lent in lent {
            let entry = 2 + 4 * usize::from(next & mask);
            // SAFETY: the entry is masked to the ring, which `new` checked; elements are aligned to 4.
            unsafe { used.add(entry).cast::<u64>().write_unaligned(lent.used_element()) };
            next = next.wrapping_add(1);
        }
        self.used_next = next;
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.word(self.used, 1).store(self.used_next.to_le(), Ordering::Release);
    }

    #[inline(always)]
    fn prefetch(&self, n: usize, more: bool) {
        for line in 0..=n as u16 / 8 {
            let i = usize::from(self.used_next.wrapping_add(8 * line) & self.mask);
            prefetch_write(self.used.wrapping_add(2 + 4 * i).cast());
        }
        prefetch_write(self.used.cast());
        if !more {
            return;
        }
        // A driver that keeps the order of its buffers, as most do, posts the next ones next to these.
        let last = self.last_head.wrapping_add(1);
        for line in 0..n.div_ceil(4) as u16 {
            let i = usize::from(last.wrapping_add(4 * line) & self.mask);
            prefetch_read(self.desc.wrapping_add(2 * i).cast());
        }
        let i = usize::from(self.next.wrapping_add(n as u16) & self.mask);
        prefetch_read(self.avail.wrapping_add(2 + i).cast());
    }

    #[inline(always)]
    fn wants_interrupt(&mut self) -> bool {
        if self.event_idx {
            let event = self.word(self.avail, 2 + usize::from(self.mask) + 1);
            let event = u16::from_le(event.load(Ordering::Relaxed));
            let new = self.used_next;
            match self.signalled.replace(new) {
                Some(since) => need_event(event, new, since),
                None => true,
            }
        } else {
            u16::from_le(self.word(self.avail, 0).load(Ordering::Relaxed)) & NO_INTERRUPT == 0
        }
    }

    fn base(&self) -> u32 {
        u32::from(self.used_next)
    }

    fn want_kicks(&mut self, on: bool) {
        if self.event_idx {
            // The driver kicks when it passes this index: with the next buffer, or, as it has passed
            // the one before already, in 65535 buffers.
            let event = if on { self.next } else { self.next.wrapping_sub(1) };
            let at = 2 + 4 * (usize::from(self.mask) + 1);
            self.word(self.used, at).store(event.to_le(), Ordering::Relaxed);
        } else {
            let flags = if on { 0 } else { NO_NOTIFY };
            self.word(self.used, 0).store(flags.to_le(), Ordering::Relaxed);
        }
    }

    fn has_new(&self) -> bool {
        u16::from_le(self.word(self.avail, 1).load(Ordering::Acquire)) != self.next
    }
}

/// True if going from `old` to `new` passes `event` (virtio 1.3, 2.7.7.1).
#[inline(always)]
pub(super) fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
