//! Memory for frames, shared with the kernel.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::io::Result;

/// Bytes of a frame: a page, which the kernel wants at most.
pub(crate) const FRAME: usize = 4096;
/// Bytes of a huge page, the common size.
const HUGE_PAGE: usize = 2 << 20;

/// An area of frames.
#[derive(Debug)]
pub(crate) struct Umem {
    base: *mut c_void,
    bytes: usize,
    pub(crate) huge: bool,
}

// SAFETY: it is an address range; whoever reads or writes it has to see to who else does.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

impl Umem {
    /// Room for so many frames: in huge pages if there are any, else in ordinary ones.
    pub(crate) fn new(frames: usize) -> Result<Umem> {
        let bytes = (frames * FRAME).next_multiple_of(HUGE_PAGE);
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let huge_flags = flags | MapFlags::HUGETLB | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = |flags| unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) };
        let (base, huge) = match map(huge_flags) {
            Ok(base) => (base, true),
            Err(_) => (map(flags)?, false),
        };
        Ok(Umem { base, bytes, huge })
    }

    pub(crate) fn base(&self) -> u64 {
        self.base.expose_provenance() as u64
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes `at` to `at + len` of the area, if they are in it: the kernel says where, and is checked.
    pub(crate) fn at(&self, at: u64, len: usize) -> Option<*mut u8> {
        let at = usize::try_from(at).ok()?;
        let inside = at.checked_add(len).is_some_and(|end| end <= self.bytes);
        inside.then(|| self.base.cast::<u8>().wrapping_add(at))
    }

    /// Where in the area a byte is, if it is there.
    pub(crate) fn offset(&self, ptr: *const u8) -> Option<u64> {
        let at = ptr.addr().wrapping_sub(self.base.addr());
        (at < self.bytes).then_some(at as u64)
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the socket that used it is closed first (`Queue`), and so are bursts.
        let _ = unsafe { munmap(self.base, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_are_none() {
        let umem = Umem::new(2).expect("memory");
        assert!(umem.at(0, FRAME).is_some());
        assert!(umem.at(umem.bytes() as u64, 0).is_some());
        assert!(umem.at(umem.bytes() as u64, 1).is_none());
        assert!(umem.at(u64::MAX, 2).is_none());
        let first = umem.at(0, 1).expect("there");
        assert_eq!(umem.offset(first.wrapping_add(5000)), Some(5000));
        for outside in [first.wrapping_sub(1), first.wrapping_add(umem.bytes())] {
            assert_eq!(umem.offset(outside), None);
        }
    }
}
