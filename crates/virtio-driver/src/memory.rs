//! Guest memory: memfd regions, their guest addresses, and a bump allocator that lays rings and buffers out in them.

use crate::error::Error;
use crate::mapping::{Mapping, Span};
use crate::wire::MemRegion;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Where the first region lies unless told otherwise: above 4 GiB, so that a 32-bit truncation anywhere shows.
pub const FIRST_GPA: u64 = 0x1_0000_0000;
/// Distance left between regions, so that an access across an end is an error and not the next region.
pub const REGION_GAP: u64 = 0x4000_0000;
/// Cache line; buffers and rings start on one.
pub const CACHE_LINE: usize = 64;
const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// How to make a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// Bytes, rounded up to a page (2 MiB with `huge`).
    pub size: u64,
    /// Guest address; `None` puts it after the regions there are, with a gap.
    pub gpa: Option<u64>,
    /// Bytes of the file before the region begins (QEMU's hotplugged and below-4G parts have this).
    pub mmap_offset: u64,
    /// Back it with 2 MiB hugetlb pages.
    pub huge: bool,
}

impl RegionSpec {
    /// A plain region of `size` bytes.
    pub fn of(size: u64) -> RegionSpec {
        RegionSpec { size, gpa: None, mmap_offset: 0, huge: false }
    }
}

/// One region: a memfd, mapped.
#[derive(Debug)]
pub struct Region {
    id: u32,
    file: OwnedFd,
    whole: Span,
    mmap_offset: u64,
    used: usize,
}

impl Region {
    /// Names the region for as long as the memory lives; never reused.
    pub fn id(&self) -> u32 {
        self.id
    }
    /// What the back end is told.
    pub fn descriptor(&self) -> MemRegion {
        MemRegion {
            gpa: self.whole.gpa(0),
            size: self.whole.len() as u64,
            user_addr: self.whole.user_addr(0),
            mmap_offset: self.mmap_offset,
        }
    }
    /// The file the back end maps.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
    /// All of its bytes.
    pub fn span(&self) -> &Span {
        &self.whole
    }
}

/// All regions of a guest.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Region>,
    next_id: u32,
}

impl GuestMemory {
    /// Memory with these regions, ids 0, 1, ….
    pub fn new(specs: &[RegionSpec]) -> Result<GuestMemory, Error> {
        let mut memory = GuestMemory::default();
        for spec in specs {
            memory.add(spec)?;
        }
        Ok(memory)
    }

    /// Makes a region and returns its id. Errors if the memory cannot be had or the address is taken.
    pub fn add(&mut self, spec: &RegionSpec) -> Result<u32, Error> {
        let page = if spec.huge { HUGE_PAGE } else { PAGE };
        let size = spec.size.next_multiple_of(page);
        let mmap_offset = spec.mmap_offset.next_multiple_of(page);
        let after =
            self.regions.iter().map(|r| r.descriptor()).map(|d| d.gpa + d.size + REGION_GAP).max();
        let gpa = spec.gpa.unwrap_or(after.unwrap_or(FIRST_GPA));
        let id = self.next_id;
        let overlaps = |d: MemRegion| gpa < d.gpa + d.size && d.gpa < gpa + size;
        if size == 0 || self.regions.iter().any(|r| overlaps(r.descriptor())) {
            return Err(Error::Region {
                region: id,
                why: "its size is 0 or its address range overlaps another region",
            });
        }
        let mut flags = MemfdFlags::CLOEXEC;
        if spec.huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let file =
            memfd_create("guest-memory", flags).map_err(Error::sys("making guest memory"))?;
        ftruncate(&file, mmap_offset + size).map_err(Error::sys("sizing guest memory"))?;
        let total = usize::try_from(mmap_offset + size).map_err(|_| Error::Region {
            region: id,
            why: "it is larger than this process can map",
        })?;
        let map = Mapping::new(file.as_fd(), total)
            .map_err(Error::sys("mapping guest memory (hugepages: vm.nr_hugepages)"))?;
        let whole = Span::new(Arc::clone(&map), mmap_offset as usize, size as usize, gpa);
        self.regions.push(Region { id, file, whole, mmap_offset, used: 0 });
        self.next_id += 1;
        Ok(id)
    }

    /// Forgets a region. Spans into it stay mapped here, but the back end must have been told.
    pub fn remove(&mut self, id: u32) -> Result<Region, Error> {
        let at = self
            .regions
            .iter()
            .position(|r| r.id == id)
            .ok_or(Error::Region { region: id, why: "there is none" })?;
        Ok(self.regions.remove(at))
    }

    /// The regions there are.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// A region by id.
    pub fn region(&self, id: u32) -> Result<&Region, Error> {
        self.regions
            .iter()
            .find(|r| r.id == id)
            .ok_or(Error::Region { region: id, why: "there is none" })
    }

    /// Takes `len` zeroed bytes, cache-line aligned, from a region. They are given back only with the region.
    pub fn alloc(&mut self, id: u32, len: usize, what: &'static str) -> Result<Span, Error> {
        let region = self
            .regions
            .iter_mut()
            .find(|r| r.id == id)
            .ok_or(Error::Region { region: id, why: "there is none" })?;
        let start = region.used.next_multiple_of(CACHE_LINE);
        let end = start.checked_add(len).filter(|&end| end <= region.whole.len());
        let end = end.ok_or(Error::OutOfMemory { region: id, len: len as u64, what })?;
        region.used = end;
        Ok(region.whole.part(start, len))
    }

    /// The end of the highest region: what a dirty log must cover.
    pub fn end(&self) -> u64 {
        self.regions.iter().map(|r| r.descriptor()).map(|d| d.gpa + d.size).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn regions_keep_apart_and_run_out_with_an_error() {
        let offset = RegionSpec { mmap_offset: 5000, ..RegionSpec::of(10_000) };
        let mut memory = GuestMemory::new(&[RegionSpec::of(4096), offset]).unwrap();
        let second = memory.regions()[1].descriptor();
        assert_eq!((second.size, second.mmap_offset), (12288, 8192));
        assert!(second.gpa >= FIRST_GPA + 4096 + REGION_GAP);
        let a = memory.alloc(0, 100, "test").unwrap();
        let b = memory.alloc(0, 100, "test").unwrap();
        assert_eq!(b.gpa(0) - a.gpa(0), 128);
        assert!(matches!(memory.alloc(0, 4096, "test"), Err(Error::OutOfMemory { region: 0, .. })));
        a.write(4, &7u32.to_le_bytes());
        assert_eq!(a.shared::<AtomicU32>(4, 1)[0].load(Ordering::Relaxed), 7);
        let mut out = vec![1];
        a.read(4, 2, &mut out);
        assert_eq!(out, [1, 7, 0]);
        let taken = RegionSpec { gpa: Some(FIRST_GPA), ..RegionSpec::of(4096) };
        assert!(matches!(memory.add(&taken), Err(Error::Region { .. })));
        memory.remove(0).unwrap();
        assert_eq!(memory.add(&taken).unwrap(), 2, "ids are not reused");
    }
}
