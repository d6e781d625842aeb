//! The packed ring (virtio 1.3, 2.8): one table that driver and device both write.

use super::split::need_event;
use super::{Desc, F_NEXT, F_WRITE, Layout, Lent, RingFault, RingSpec};
use crate::mem::GuestMemory;
use packet::arch::prefetch_read;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

const F_AVAIL: u16 = 1 << 7;
const F_USED: u16 = 1 << 15;
/// Event suppression flags (virtio 1.3, 2.8.10).
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESC: u16 = 2;

/// A place in the ring and the wrap counter there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    #[cfg(test)]
    pub(super) fn new(index: u16, wrap: bool) -> Place {
        Place { index, wrap }
    }

    #[inline(always)]
    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    /// One descriptor on; true at the table's end, which is rare, hence a branch: it costs less than
    /// arithmetic.
    #[inline(always)]
    fn step(&mut self, size: u16) -> bool {
        self.index += 1;
        let end = self.index >= size;
        if end {
            rare();
            *self = Place { index: 0, wrap: !self.wrap };
        }
        end
    }

    /// The flags of a used descriptor here.
    #[inline(always)]
    fn used_flags(self, written: bool) -> u16 {
        (if self.wrap { F_AVAIL | F_USED } else { 0 }) | if written { F_WRITE } else { 0 }
    }

    /// What an available descriptor here has of `F_AVAIL` and `F_USED` (virtio 1.3, 2.8.1).
    #[inline(always)]
    fn available_flags(self) -> u16 {
        if self.wrap { F_AVAIL } else { F_USED }
    }

    fn bits(self) -> u32 {
        u32::from(self.index) | u32::from(self.wrap) << 15
    }
}

/// Tells the compiler that a branch is rare.
#[cold]
#[inline(always)]
fn rare() {}

/// A packed ring in guest memory. The pointers cover what `new` checked: `size` descriptors and two
/// event structures.
#[derive(Debug)]
pub(crate) struct Packed {
    desc: *mut u64,
    driver_event: *mut u32,
    device_event: *mut u32,
    size: u16,
    event_idx: bool,
    /// Next descriptor to read.
    next: Place,
    /// Next descriptor to mark used.
    used: Place,
    /// The first descriptor marked since the last publication, whose flags are not written yet, and
    /// those flags.
    held: Option<(u16, u16)>,
    /// `used.index` at the last interrupt, if there was one.
    signalled: Option<u16>,
}

impl Packed {
    /// A ring at the given addresses; `None` if it is not wholly in guest memory, not aligned, or
    /// its size is 0 or over 32768.
    pub(crate) fn new(spec: &RingSpec, mem: &GuestMemory) -> Option<Packed> {
        let at = |addr: u64, len: u64, align: usize| {
            mem.user(addr, len).filter(|p| p.align_offset(align) == 0)
        };
        let index = (spec.base & 0x7fff) as u16;
        if spec.size == 0 || spec.size > 1 << 15 || index >= spec.size {
            return None;
        }
        let desc = at(spec.desc, 16 * u64::from(spec.size), 16)?.cast::<u64>();
        let driver_event = at(spec.driver, 4, 4)?.cast::<u32>();
        let device_event = at(spec.device, 4, 4)?.cast::<u32>();
        // All buffers are given back within the burst, so used and available places are the same.
        let place = Place { index, wrap: spec.base & 0x8000 != 0 };
        let mut ring = Packed {
            desc,
            driver_event,
            device_event,
            size: spec.size,
            event_idx: spec.event_idx,
            next: place,
            used: place,
            held: None,
            signalled: None,
        };
        let place = ring.recover(place);
        (ring.next, ring.used) = (place, place);
        // A polling device wants no kicks.
        ring.want_kicks(false);
        Some(ring)
    }

    /// Where to go on, if a former device was killed. Nothing in a packed ring says where its device
    /// stands, but each used descriptor carries the wrap counter it was marked with.
    ///
    /// A driver that keeps its ring and looks at it gives the right base, but the former device may
    /// have died before it published the first buffer of a burst: its ID and length are written,
    /// what follows is marked, and only its flags are missing. They are written here, as the driver
    /// will never get past it otherwise. QEMU gives a base from when the ring last started; where
    /// the marks contradict it, the one place they all agree with is taken. (That place is exact
    /// because `give` marks all descriptors of a chain.)
    #[cold]
    fn recover(&self, base: Place) -> Place {
        let mut at = base;
        let mut after = base;
        after.advance(1, self.size);
        if self.size > 1 && self.is_available(at) && self.is_marked(after) {
            let written = self.length(at.index) > 0;
            self.flags(at.index).store(at.used_flags(written).to_le(), Ordering::Release);
        }
        for _ in 0..self.size {
            if !self.is_marked(at) {
                break;
            }
            at.advance(1, self.size);
        }
        if !self.contradict(at) {
            return at;
        }
        let places = [true, false].map(|wrap| self.place_in(wrap));
        places.into_iter().find(|&p| self.fits(p)).unwrap_or(at)
    }

    /// True if no device at `p` has left the ring as it is: a mark before `p` is of its lap and one
    /// after it of the lap before. Available descriptors count only where there is no mark at all,
    /// because another device leaves those of used chains as they were.
    pub(super) fn contradict(&self, p: Place) -> bool {
        let mut marks = (0..self.size).filter_map(|i| Some((i, self.mark_of(i)?))).peekable();
        match marks.peek() {
            Some(_) => marks.any(|(i, wrap)| (wrap == p.wrap) != (i < p.index)),
            None => !self.fits(p),
        }
    }

    /// The wrap counter that descriptor `i` was marked used with, if it is not available.
    fn mark_of(&self, i: u16) -> Option<bool> {
        let flags = u16::from_le(self.flags(i).load(Ordering::Acquire));
        let (avail, used) = (flags & F_AVAIL != 0, flags & F_USED != 0);
        (avail == used).then_some(used)
    }

    /// True if the descriptor at `p` is used, in the lap of `p`.
    fn is_marked(&self, p: Place) -> bool {
        self.mark_of(p.index) == Some(p.wrap)
    }

    /// True if the descriptor at `p` is available, in the lap of `p`.
    fn is_available(&self, p: Place) -> bool {
        let flags = u16::from_le(self.flags(p.index).load(Ordering::Acquire));
        (flags & F_AVAIL != 0) == p.wrap && (flags & F_USED != 0) != p.wrap
    }

    /// The only place of lap `wrap` at which a device may stand: the first descriptor that is not as
    /// one leaves it behind.
    fn place_in(&self, wrap: bool) -> Place {
        let index = (0..self.size).find(|&i| !self.is_before(i, wrap));
        // None: all are, so the next lap has begun.
        index.map_or(Place { index: 0, wrap: !wrap }, |index| Place { index, wrap })
    }

    /// True if descriptor `i` is as a device in lap `wrap` leaves it behind: used, or available for
    /// the next lap. One that it has still before it is neither.
    fn is_before(&self, i: u16, wrap: bool) -> bool {
        let flags = u16::from_le(self.flags(i).load(Ordering::Relaxed));
        let (avail, used) = (flags & F_AVAIL != 0, flags & F_USED != 0);
        if avail == used { used == wrap } else { avail != wrap }
    }

    /// True if all descriptors are as a device at `p` leaves them, available ones too.
    fn fits(&self, p: Place) -> bool {
        (0..self.size).all(|i| self.is_before(i, p.wrap) == (i < p.index))
    }

    /// The length that descriptor `i` carries.
    fn length(&self, i: u16) -> u32 {
        let p = self.desc.wrapping_add(usize::from(i) * 2 + 1).cast::<u32>();
        // SAFETY: i is below `size`; the length is the third word of a descriptor.
        u32::from_le(unsafe { p.read_volatile() })
    }

    /// The flags of descriptor `i`, shared with the guest. `i` is less than `size`.
    #[inline(always)]
    fn flags(&self, i: u16) -> &AtomicU16 {
        debug_assert!(i < self.size);
        // SAFETY: i is a `Place` index, which stays below `size`; the flags are the last 2 of a
        // descriptor's 16 bytes.
        unsafe { AtomicU16::from_ptr(self.desc.add(usize::from(i) * 2).cast::<u16>().add(7)) }
    }

    /// Marks the second to last descriptor of a chain at `at` used as well; returns what comes after it. The driver steps over
    /// them without looking, but whoever has to find the device's place can tell them from available
    /// ones, see `recover`.
    #[cold]
    #[inline(never)]
    fn pass_chain(&self, mut at: Place, count: u16) -> Place {
        // A buffer of a driver that lies about its length cannot lead out of the ring.
        for _ in 1..count.min(self.size) {
            at.advance(1, self.size);
            self.flags(at.index).store(at.used_flags(false).to_le(), Ordering::Release);
        }
        at.advance(1, self.size);
        at
    }

    /// Reads the next descriptor, whose flags are known, and steps over it.
    #[inline(always)]
    fn read(&mut self, flags: u16) -> Desc {
        // SAFETY: `next.index` stays below `size`.
        let d = unsafe { read_desc(self.desc, self.next.index, flags) };
        self.next.advance(1, self.size);
        d
    }
}

/// Descriptor `i` of a table, whose flags are known, read once.
///
/// # Safety
/// The table has more than `i` descriptors and is aligned to 16.
#[inline(always)]
unsafe fn read_desc(table: *const u64, i: u16, flags: u16) -> Desc {
    // SAFETY: by the caller.
    let (addr, rest) = unsafe {
        let p = table.add(usize::from(i) * 2);
        (p.read_volatile(), p.add(1).read_volatile())
    };
    let rest = u64::from_le(rest);
    Desc { addr: u64::from_le(addr), len: rest as u32, id: (rest >> 32) as u16, flags, next: 0 }
}

impl Layout for Packed {
    type Mark = Place;
    const ID_IS_LAST: bool = true;

    fn indirect_entry(lo: u64, hi: u64, table_ends: bool) -> (Desc, bool) {
        let hi = u64::from_le(hi);
        let flags = (hi >> 48) as u16 & F_WRITE;
        (Desc { addr: u64::from_le(lo), len: hi as u32, flags, id: 0, next: 0 }, table_ends)
    }

    fn refresh(&mut self, _want: usize) -> Result<(), RingFault> {
        Ok(())
    }

    #[inline(always)]
    fn offer<S>(
        &mut self,
        slots: impl Iterator<Item = S>,
        mut take: impl FnMut(S, &Desc) -> bool,
    ) -> Result<usize, RingFault> {
        // Copies, as the compiler must presume that what `take` writes changes `self`.
        let (table, size, mut at) = (self.desc, self.size, self.next);
        let mut expected = at.available_flags();
        let mut n = 0;
        for slot in slots {
            // SAFETY: `at.index` stays below `size`; the flags are the last 2 of a descriptor's 16 bytes.
            let flags = unsafe {
                AtomicU16::from_ptr(table.add(usize::from(at.index) * 2).cast::<u16>().add(7))
            };
            let flags = u16::from_le(flags.load(Ordering::Acquire));
            if flags & (F_AVAIL | F_USED) != expected {
                break;
            }
            // SAFETY: as above.
            if !take(slot, &unsafe { read_desc(table, at.index, flags) }) {
                break;
            }
            if at.step(size) {
                expected = at.available_flags();
            }
            n += 1;
        }
        self.next = at;
        Ok(n)
    }

    fn more(&mut self, d: &Desc) -> Result<Desc, RingFault> {
        debug_assert!(d.flags & F_NEXT != 0);
        // The whole chain was made available with its first descriptor (virtio 1.3, 2.8.21.1).
        let flags = u16::from_le(self.flags(self.next.index).load(Ordering::Relaxed));
        Ok(self.read(flags))
    }

    fn mark(&self) -> Place {
        self.next
    }

    fn rewind(&mut self, mut mark: Place, buffers: usize) {
        // No more than were popped, which are no more than the ring has.
        mark.advance(buffers as u16, self.size);
        self.next = mark;
    }

    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn give(&mut self, lent: &[Lent]) {
        // Copies, as the compiler must presume that what is written to the guest changes `self`.
        let (table, size, mut at) = (self.desc, self.size, self.used);
        let (mut used, mut held) = (at.used_flags(false), self.held);
        for lent in lent {
            let flags = used | if lent.written() > 0 { F_WRITE } else { 0 };
            // SAFETY: `at.index` stays below `size`: these are the last 8 bytes of a descriptor.
            let half = unsafe { table.add(usize::from(at.index) * 2 + 1) };
            if held.is_some() {
                let word = lent.length_and_id() | u64::from(flags) << 48;
                // SAFETY: as above, and aligned to 8.
                unsafe { AtomicU64::from_ptr(half) }.store(word.to_le(), Ordering::Release);
            } else {
                // The driver reads in order, so what follows is seen only after these flags.
                held = Some((at.index, flags));
                // SAFETY: length and ID are 6 of the 8 bytes.
                unsafe {
                    half.cast::<u32>().write_volatile(lent.written().to_le());
                    half.cast::<u16>().add(2).write_volatile(lent.id().to_le());
                }
            }
            if lent.count() != 1 {
                at = self.pass_chain(at, lent.count());
                used = at.used_flags(false);
            } else if at.step(size) {
                used = at.used_flags(false);
            }
        }
        (self.used, self.held) = (at, held);
    }

    #[inline(always)]
    fn publish(&mut self) {
        if let Some((index, flags)) = self.held.take() {
            self.flags(index).store(flags.to_le(), Ordering::Release);
        }
    }

    #[inline(always)]
    fn prefetch(&self, n: usize, more: bool) {
        // What is given back is in this core's cache, where it was read.
        let mut at = self.next;
        if !more {
            return;
        }
        for _ in 0..n.div_ceil(4) {
            prefetch_read(self.desc.wrapping_add(2 * usize::from(at.index)).cast());
            at.advance(4.min(self.size), self.size);
        }
    }

    #[inline(always)]
    fn wants_interrupt(&mut self) -> bool {
        // SAFETY: `driver_event` is 4 aligned bytes of guest memory, see `new`.
        let event = unsafe { AtomicU32::from_ptr(self.driver_event) }.load(Ordering::Relaxed);
        let event = u32::from_le(event);
        let (off_wrap, wish) = (event as u16, (event >> 16) as u16 & 3);
        if wish != EVENT_DESC || !self.event_idx {
            self.signalled = Some(self.used.index);
            return wish != EVENT_DISABLE;
        }
        let new = self.used.index;
        let Some(mut old) = self.signalled.replace(new) else { return true };
        let mut off = off_wrap & 0x7fff;
        if new <= old {
            old = old.wrapping_sub(self.size);
        }
        if self.used.wrap != (off_wrap & 0x8000 != 0) {
            off = off.wrapping_sub(self.size);
        }
        need_event(off, new, old)
    }

    fn base(&self) -> u32 {
        self.used.bits() | self.used.bits() << 16
    }

    fn want_kicks(&mut self, on: bool) {
        let wish = if on { EVENT_ENABLE } else { EVENT_DISABLE };
        // SAFETY: `device_event` is 4 aligned bytes of guest memory, see `new`.
        let event = unsafe { AtomicU32::from_ptr(self.device_event) };
        event.store((u32::from(wish) << 16).to_le(), Ordering::Relaxed);
    }

    fn has_new(&self) -> bool {
        self.is_available(self.next)
    }
}
