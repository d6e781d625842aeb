//! Rings shared with the kernel: of descriptors or of frames' addresses, with one producer and one consumer
//! (Documentation/networking/af_xdp.rst).

use crate::sys::RingOffsets;
use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io::Result;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering::*};

/// One end of a ring whose elements are `T`, integers or structures of them.
pub(crate) struct Ring<T> {
    map: *mut c_void,
    bytes: usize,
    offsets: RingOffsets,
    size: u32,
    /// Our index; the other side's as far as is known.
    own: u32,
    other: u32,
    /// Our index at [`Ring::begin`].
    began: u32,
    of: PhantomData<T>,
}

// SAFETY: an address range that is owned, with one user at a time (`&mut self`).
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// Maps a ring of `size` elements, a power of two, that the socket has been given.
    pub(crate) fn map(
        socket: &OwnedFd,
        at: u64,
        size: u32,
        offsets: RingOffsets,
    ) -> Result<Ring<T>> {
        let bytes = offsets.descriptors as usize + size as usize * size_of::<T>();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = unsafe { mmap(std::ptr::null_mut(), bytes, access, flags, socket, at) }?;
        Ok(Ring { map, bytes, offsets, size, own: 0, other: 0, began: 0, of: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: the kernel says where its words are; they are aligned, in the mapping, and only changed
        // atomically by both sides.
        unsafe { &*self.map.cast::<u8>().add(offset as usize).cast::<AtomicU32>() }
    }

    fn element(&self, index: u32) -> *mut T {
        let n = (index & (self.size - 1)) as usize;
        let first = self.map.cast::<u8>().wrapping_add(self.offsets.descriptors as usize);
        first.cast::<T>().wrapping_add(n)
    }

    /// The kernel sleeps, and has to be woken to see what was produced.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.flags).load(Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// As producer: whether there is room for `n` more.
    pub(crate) fn has_room(&mut self, n: u32) -> bool {
        if self.own.wrapping_sub(self.other).saturating_add(n) <= self.size {
            return true;
        }
        self.other = self.word(self.offsets.consumer).load(Acquire);
        self.own.wrapping_sub(self.other).saturating_add(n) <= self.size
    }

    /// As producer, with room: puts one in, to be published.
    pub(crate) fn push(&mut self, value: T) {
        // SAFETY: inside the mapping; the consumer is done with it (`has_room`).
        unsafe { self.element(self.own).write(value) };
        self.own = self.own.wrapping_add(1);
    }

    /// As producer: begins to count.
    pub(crate) fn begin(&mut self) {
        self.began = self.own;
    }

    /// As producer: elements pushed since [`Ring::begin`].
    pub(crate) fn pushed(&self) -> u32 {
        self.own.wrapping_sub(self.began)
    }

    /// As producer: lets the kernel see what was pushed.
    pub(crate) fn publish(&mut self) {
        self.word(self.offsets.producer).store(self.own, Release);
    }

    /// As consumer: the next one, to be released.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.own == self.other {
            self.other = self.word(self.offsets.producer).load(Acquire);
            if self.own == self.other {
                return None;
            }
        }
        // SAFETY: inside the mapping; the producer has published it.
        let value = unsafe { self.element(self.own).read() };
        self.own = self.own.wrapping_add(1);
        Some(value)
    }

    /// As consumer: gives back room for what was popped.
    pub(crate) fn release(&mut self) {
        self.word(self.offsets.consumer).store(self.own, Release);
    }

    /// As consumer: whether there is something, without taking it.
    pub(crate) fn has_more(&self) -> bool {
        self.word(self.offsets.producer).load(Acquire) != self.own
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, and nothing refers to it.
        let _ = unsafe { munmap(self.map, self.bytes) };
    }
}
