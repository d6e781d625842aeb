//! Guest memory: what the front end shares, where it is mapped here, and translation of addresses.
//!
//! A [`GuestMemory`] is an immutable snapshot; adding or removing a region makes another one that
//! shares the mappings. A mapping goes away when the last snapshot with it does, and every running
//! ring holds its snapshot, so no ring can outlive its memory. Nothing is populated: pages that the
//! guest never used and no descriptor names cost nothing here.

use crate::sigbus::Guard;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use vm_memory::{FileOffset, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

/// Memory regions of one guest at most: what Linux's vhost and QEMU's `vhost-user` with
/// configurable memory slots use.
pub(crate) const MAX_SLOTS: usize = 509;
/// Bytes of address space for one guest at most. The processor has 128 TiB: one front end with a
/// large sparse file must not leave nothing for the others.
const MAX_MAPPED: u64 = 4 << 40;

/// Why memory offered by a front end was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemError {
    /// More regions than `MAX_SLOTS`.
    #[error("more than {MAX_SLOTS} memory regions")]
    TooMany,
    /// Size zero, or address plus size beyond 64 bits.
    #[error("memory region at {gpa:#x} has an impossible size of {size:#x}")]
    Size {
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Overlaps a region that is there already.
    #[error("memory region at {gpa:#x}, size {size:#x}, overlaps another")]
    Overlap {
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// No such region.
    #[error("no memory region at {gpa:#x}, size {size:#x}")]
    Missing {
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The file is shorter than the region, so touching its end would be a bus error.
    #[error("the file behind the memory region at {gpa:#x} has {have:#x} bytes, {need:#x} needed")]
    ShortFile {
        /// Guest physical address.
        gpa: u64,
        /// Length of the file.
        have: u64,
        /// Offset plus size of the region.
        need: u64,
    },
    /// More than `MAX_MAPPED` bytes in all.
    #[error("the memory region at {gpa:#x} takes the guest over {MAX_MAPPED:#x} mapped bytes")]
    TooLarge {
        /// Guest physical address.
        gpa: u64,
    },
    /// The file was truncated, or its pages cannot be had, while it was in use.
    #[error("the memory region at {gpa:#x} is gone: its file was truncated, or is out of pages")]
    Gone {
        /// Guest physical address.
        gpa: u64,
    },
    /// `mmap` or `fstat` failed.
    #[error("cannot map the memory region at {gpa:#x}: {why}")]
    Map {
        /// Guest physical address.
        gpa: u64,
        /// The system's words.
        why: String,
    },
}

/// One region as the front end describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionSpec {
    /// Guest physical address of the first byte.
    pub(crate) gpa: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// The front end's own address of the first byte; ring addresses are given in these.
    pub(crate) user_addr: u64,
    /// Where the region starts in its file.
    pub(crate) offset: u64,
}

/// A mapped region.
#[derive(Debug, Clone)]
struct Region {
    spec: RegionSpec,
    /// How often it was added: QEMU 7.2 adds and removes each region once for each queue pair.
    added: u32,
    /// Address here of the first byte.
    host: usize,
    map: Arc<Mapping>,
}

/// A guarded mapping; the guard goes first.
#[derive(Debug)]
struct Mapping {
    guard: Guard,
    _map: MmapRegion,
    /// Bytes of address space.
    len: u64,
}

/// A range of guest addresses and where it is mapped: all that translation needs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    gpa: u64,
    size: u64,
    host: usize,
}

impl Window {
    /// The host address of `gpa` if `len` bytes from there are inside the window.
    #[inline(always)]
    pub(crate) fn at(&self, gpa: u64, len: u64) -> Option<*mut u8> {
        let offset = gpa.wrapping_sub(self.gpa);
        if offset < self.size && len <= self.size - offset {
            Some((self.host + offset as usize) as *mut u8)
        } else {
            None
        }
    }
}

/// All regions of a guest at one time, sorted by guest address.
#[derive(Debug, Default)]
pub(crate) struct GuestMemory {
    windows: Vec<Window>,
    regions: Vec<Region>,
}

impl GuestMemory {
    /// A snapshot with one more region. Adding one that is there already, exactly so, counts.
    /// `bell` is rung when its memory is found to be gone.
    pub(crate) fn with(
        &self,
        spec: RegionSpec,
        file: File,
        bell: &Arc<EventFd>,
    ) -> Result<GuestMemory, MemError> {
        if self.regions.len() >= MAX_SLOTS {
            return Err(MemError::TooMany);
        }
        let RegionSpec { gpa, size, .. } = spec;
        let fits = |start: u64| start.checked_add(size).is_some();
        if size == 0 || !fits(gpa) || !fits(spec.user_addr) || !fits(spec.offset) {
            return Err(MemError::Size { gpa, size });
        }
        if let Some(i) = self.regions.iter().position(|r| r.spec == spec) {
            let mut regions = self.regions.clone();
            regions[i].added = regions[i].added.saturating_add(1);
            return Ok(Self::of(regions));
        }
        let apart = |r: &Region| gpa + size <= r.spec.gpa || r.spec.gpa + r.spec.size <= gpa;
        if !self.regions.iter().all(apart) {
            return Err(MemError::Overlap { gpa, size });
        }
        let mapped = self.regions.iter().map(|r| r.map.len).sum::<u64>();
        if mapped.saturating_add(spec.offset + size) > MAX_MAPPED {
            return Err(MemError::TooLarge { gpa });
        }
        let mut regions = self.regions.clone();
        regions.push(map(spec, file, bell)?);
        Ok(Self::of(regions))
    }

    /// A snapshot without the region at `gpa` of `size` bytes, once it was removed as often as added.
    pub(crate) fn without(&self, gpa: u64, size: u64) -> Result<GuestMemory, MemError> {
        let mut regions = self.regions.clone();
        let is_it = |r: &Region| (r.spec.gpa, r.spec.size) == (gpa, size);
        let i = regions.iter().position(is_it).ok_or(MemError::Missing { gpa, size })?;
        regions[i].added -= 1;
        if regions[i].added == 0 {
            regions.remove(i);
        }
        Ok(Self::of(regions))
    }

    fn of(mut regions: Vec<Region>) -> GuestMemory {
        regions.sort_by_key(|r| r.spec.gpa);
        let window = |r: &Region| Window { gpa: r.spec.gpa, size: r.spec.size, host: r.host };
        GuestMemory { windows: regions.iter().map(window).collect(), regions }
    }

    /// The window that has `len` bytes at `gpa`, or the one that has the first byte.
    #[inline]
    pub(crate) fn find(&self, gpa: u64) -> Option<Window> {
        let after = self.windows.partition_point(|w| w.gpa <= gpa);
        let w = self.windows[..after].last()?;
        w.at(gpa, 1).map(|_| *w)
    }

    /// The first piece of `len` bytes at `gpa`: host address and how many bytes are contiguous
    /// there, at most `len`. `None` if the first byte is not guest memory.
    pub(crate) fn piece(&self, gpa: u64, len: u64) -> Option<(*mut u8, u64)> {
        let w = self.find(gpa)?;
        let n = len.min(w.size - (gpa - w.gpa));
        Some((w.at(gpa, n)?, n))
    }

    /// The host address of `len` bytes at the front end's own address `user_addr`, where its rings
    /// are.
    pub(crate) fn user(&self, user_addr: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|r| {
            let w = Window { gpa: r.spec.user_addr, size: r.spec.size, host: r.host };
            w.at(user_addr, len)
        })
    }

    /// Fails if memory of a region was found to be gone.
    pub(crate) fn check(&self) -> Result<(), MemError> {
        match self.regions.iter().find(|r| r.map.guard.is_broken()) {
            Some(r) => Err(MemError::Gone { gpa: r.spec.gpa }),
            None => Ok(()),
        }
    }

    /// Number of regions.
    pub(crate) fn len(&self) -> usize {
        self.regions.len()
    }
}

/// Maps a region. The file is mapped from its beginning, not from the region's offset, and to a
/// whole number of its pages: a hugetlbfs file accepts nothing else. (A tmpfs with transparent huge
/// pages names their size too, but its files need not end on one.)
fn map(spec: RegionSpec, file: File, bell: &Arc<EventFd>) -> Result<Region, MemError> {
    let RegionSpec { gpa, size, offset, .. } = spec;
    let why = |e: &dyn std::fmt::Display| MemError::Map { gpa, why: e.to_string() };
    let meta = file.metadata().map_err(|e| why(&e))?;
    let need = offset + size;
    if !meta.is_file() {
        return Err(why(&"its descriptor is not a file's"));
    }
    if meta.len() < need {
        return Err(MemError::ShortFile { gpa, have: meta.len(), need });
    }
    let page = meta.blksize().max(4096);
    let len = need.checked_next_multiple_of(page).map_or(meta.len(), |n| n.min(meta.len()));
    let bytes = usize::try_from(len).map_err(|e| why(&e))?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let map = MmapRegion::build(Some(FileOffset::new(file, 0)), bytes, prot, flags)
        .map_err(|e| why(&e))?;
    let start = map.as_ptr() as usize;
    let host = start + usize::try_from(offset).map_err(|e| why(&e))?;
    let guard = Guard::new(start, bytes, page as usize, bell.clone())
        .ok_or_else(|| why(&"too many guest memory regions in all ports together"))?;
    Ok(Region { spec, added: 1, host, map: Arc::new(Mapping { guard, _map: map, len }) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    fn bell() -> Arc<EventFd> {
        Arc::new(EventFd::new(EFD_NONBLOCK).expect("eventfd"))
    }

    fn file(len: u64) -> File {
        let fd = memfd_create("mem-test", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, len).expect("size");
        File::from(fd)
    }

    fn spec(gpa: u64, size: u64, offset: u64) -> RegionSpec {
        RegionSpec { gpa, size, user_addr: gpa.wrapping_add(0x7000_0000), offset }
    }

    #[test]
    fn translates_inside_and_refuses_outside() {
        let none = GuestMemory::default();
        let m = none.with(spec(0x10000, 0x4000, 0x1000), file(0x5000), &bell()).expect("fits");
        let m = m.with(spec(0, 0x1000, 0), file(0x1000), &bell()).expect("fits");
        let (base, n) = m.piece(0x10000, 0x9000).expect("inside");
        assert_eq!(n, 0x4000);
        assert_eq!(m.user(0x7001_0010, 16), Some(base.wrapping_add(0x10)));
        let w = m.find(0x13fff).expect("last byte");
        assert_eq!(w.at(0x13fff, 1), Some(base.wrapping_add(0x3fff)));
        for (gpa, len) in
            [(0x13fff, 2), (0xffff, 1), (0x14000, 1), (u64::MAX, 2), (0x10000, u64::MAX)]
        {
            assert_eq!(w.at(gpa, len), None, "{gpa:#x}+{len:#x}");
        }
        assert!(m.find(0x14000).is_none() && m.find(0x2000).is_none());
    }

    #[test]
    fn refuses_what_cannot_be() {
        let m = GuestMemory::default()
            .with(spec(0x1000, 0x1000, 0), file(0x1000), &bell())
            .expect("fits");
        let refused = |s, f| m.with(s, f, &bell()).expect_err("must be refused").to_string();
        assert!(refused(spec(0x1800, 0x1000, 0), file(0x1000)).contains("overlaps"));
        assert!(refused(spec(0x4000, 0, 0), file(0x1000)).contains("impossible"));
        assert!(refused(spec(u64::MAX - 10, 0x1000, 0), file(0x1000)).contains("impossible"));
        assert!(refused(spec(0x4000, 0x1000, u64::MAX), file(0x1000)).contains("impossible"));
        assert!(refused(spec(0x4000, 0x1000, 1), file(0x1000)).contains("0x1001 needed"));
        assert!(m.without(0x1000, 0x800).is_err());
        assert_eq!(m.without(0x1000, 0x1000).expect("there").len(), 0);
    }

    #[test]
    fn a_region_goes_when_it_was_removed_as_often_as_added() {
        let one = GuestMemory::default()
            .with(spec(0x1000, 0x1000, 0), file(0x1000), &bell())
            .expect("fits");
        let two = one.with(spec(0x1000, 0x1000, 0), file(0x1000), &bell()).expect("the same again");
        assert_eq!(two.len(), 1);
        let left = two.without(0x1000, 0x1000).expect("there");
        assert!(left.find(0x1800).is_some());
        assert!(left.without(0x1000, 0x1000).expect("still").find(0x1800).is_none());
    }

    #[test]
    fn holds_509_regions() {
        let mut m = GuestMemory::default();
        for i in 0..MAX_SLOTS as u64 {
            m = m.with(spec(i * 0x2000, 0x1000, 0), file(0x1000), &bell()).expect("509 fit");
        }
        assert!(matches!(
            m.with(spec(1 << 40, 0x1000, 0), file(0x1000), &bell()),
            Err(MemError::TooMany)
        ));
        assert!(m.find(508 * 0x2000 + 0xfff).is_some() && m.find(508 * 0x2000 + 0x1000).is_none());
    }
}
