//! Shared mappings of guest memory and typed windows into them: the only unsafe code of this crate.
//!
//! Another process reads and writes these bytes at any moment, so nothing here hands out `&[u8]`: payload goes through raw copies,
//! ring fields through atomics.
#![allow(unsafe_code, reason = "mapping memory and copying to and from it")]

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fmt;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A file mapped shared and writable from its beginning; unmapped on drop.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory owned by this value, and all access to it is by raw copy or atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives no plain reference to the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd`, populated at once so that no page fault falls into a measurement.
    pub fn new(fd: BorrowedFd<'_>, len: usize) -> rustix::io::Result<Arc<Mapping>> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a null hint lets the kernel choose, so no existing mapping is replaced; the file is ours and is not truncated.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, 0)?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Arc::new(Mapping { base, len }))
    }

    /// The address of the first byte in this process.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; every window holds an `Arc` of this, so none is left. A failure leaks, nothing else.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A stretch of guest memory, with its guest address.
#[derive(Clone)]
pub struct Span {
    map: Arc<Mapping>,
    offset: usize,
    len: usize,
    gpa: u64,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:#x}+{:#x})", self.gpa, self.len)
    }
}

impl Span {
    /// `len` bytes of `map` from `offset`, which the guest knows as `gpa`.
    ///
    /// # Panics
    /// If the stretch is not inside the mapping.
    pub fn new(map: Arc<Mapping>, offset: usize, len: usize, gpa: u64) -> Span {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= map.len),
            "a span must lie inside its mapping"
        );
        Span { map, offset, len, gpa }
    }

    /// Guest physical address of byte `at`.
    pub fn gpa(&self, at: usize) -> u64 {
        self.gpa + at as u64
    }

    /// Address of byte `at` in this process, which SET_VRING_ADDR wants.
    pub fn user_addr(&self, at: usize) -> u64 {
        self.map.address() + (self.offset + at) as u64
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the span has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of this span.
    ///
    /// # Panics
    /// If the part is not inside.
    pub fn part(&self, at: usize, len: usize) -> Span {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "a part must lie inside its span"
        );
        Span {
            map: Arc::clone(&self.map),
            offset: self.offset + at,
            len,
            gpa: self.gpa + at as u64,
        }
    }

    #[inline]
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "access outside a span");
        // SAFETY: offset + at + len is inside the mapping: checked above and in `new`.
        unsafe { self.map.base.as_ptr().add(self.offset + at) }
    }

    /// Copies `bytes` in at `at`.
    ///
    /// # Panics
    /// If they do not fit.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.at(at, bytes.len());
        // SAFETY: `to` has room for bytes.len() (checked by `at`); a Rust slice never overlaps guest memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Appends `len` bytes from `at` to `out`: a private copy, read once.
    ///
    /// # Panics
    /// If they are not inside.
    #[inline]
    pub fn read(&self, at: usize, len: usize, out: &mut Vec<u8>) {
        let from = self.at(at, len);
        out.reserve(len);
        // SAFETY: `from` has len bytes (checked by `at`), the vector has room for them (reserved), and after the copy they are initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// Asks for the cache line of byte `at`, to write it soon; beyond the end nothing happens.
    #[inline]
    pub fn prefetch_write(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        if at < self.len {
            // Not the intrinsic, which becomes a prefetch for reading where the processor is not known to have this one;
            // a store after that waits for the line all over again.
            // SAFETY: a prefetch has no effect that can be observed, and the address is inside the mapping.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) self.at(at, 1), options(nostack, preserves_flags, readonly))
            };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// `N` bytes from `at`: a private copy, read once.
    ///
    /// # Panics
    /// If they are not inside.
    #[inline]
    pub fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let from = self.at(at, N);
        let mut bytes = [0; N];
        // SAFETY: `from` has N bytes (checked by `at`), and a local array never overlaps guest memory.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), N) };
        bytes
    }

    /// Sets every byte.
    pub fn fill(&self, byte: u8) {
        let to = self.at(0, self.len);
        // SAFETY: the whole span is inside the mapping.
        unsafe { std::ptr::write_bytes(to, byte, self.len) };
    }

    /// A typed window of `count` elements at byte `at`.
    ///
    /// # Panics
    /// If it is not inside or not aligned for `A`.
    pub fn shared<A: Atomic>(&self, at: usize, count: usize) -> Shared<A> {
        let bytes = count.checked_mul(size_of::<A>()).expect("a window's size fits usize");
        let first = self.at(at, bytes).cast::<A>();
        assert!(first.is_aligned(), "a window must be aligned for its type");
        let first = NonNull::new(first).expect("inside a mapping, so not null");
        Shared { first, count, _map: Arc::clone(&self.map) }
    }
}

/// Types a ring field can be read and written as while the device does the same.
pub trait Atomic: sealed::Sealed {}
mod sealed {
    pub trait Sealed {}
}
macro_rules! atomics {
    ($($t:ty),*) => { $(impl sealed::Sealed for $t {} impl Atomic for $t {})* };
}
atomics!(AtomicU8, AtomicU16, AtomicU32, AtomicU64);

/// An array of atomics in guest memory; keeps the mapping alive.
pub struct Shared<A: Atomic> {
    first: NonNull<A>,
    count: usize,
    _map: Arc<Mapping>,
}

// SAFETY: only atomics are reachable through it, and they may be used from any thread.
unsafe impl<A: Atomic> Send for Shared<A> {}
// SAFETY: as above.
unsafe impl<A: Atomic> Sync for Shared<A> {}

impl<A: Atomic> Deref for Shared<A> {
    type Target = [A];
    #[inline]
    fn deref(&self) -> &[A] {
        // SAFETY: `Span::shared` checked bounds and alignment; any bit pattern is a value of an atomic integer, atomics may change
        // under a shared reference, and `_map` keeps the memory mapped.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}
