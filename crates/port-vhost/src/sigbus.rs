//! Survives memory that a front end takes away: a file truncated under its mapping makes every
//! access a bus error, which would end the switch and with it all other ports.
//!
//! [`Guard`] enters a mapping into a process-wide table. On SIGBUS at an address of the table the
//! handler puts zeroed private memory over the mapping from the faulting page to its end, marks it
//! broken and rings the port's bell; the access is then repeated and reads zeros, and the session,
//! woken by the bell, gives the connection up. Any other bus error is passed to the action that was
//! installed before, and ends the process as usual.
//!
//! The handler calls `mmap`, `write` and `sigaction` only. POSIX lists the last two as
//! async-signal-safe; `mmap` on Linux is a bare system call that takes no lock in user space.

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use vmm_sys_util::eventfd::EventFd;

/// Mappings guarded at one time, for all ports: 16 guests with all of their 509 regions, or a
/// thousand with eight.
const MAX_RANGES: usize = 8192;
const FREE: usize = 0;
/// Taken, but not filled in yet.
const BUSY: usize = usize::MAX;

/// One guarded mapping.
struct Slot {
    /// Odd while the slot is filled in, another number each time: what was read between two looks
    /// at the same even number belongs together.
    generation: AtomicUsize,
    /// First address, or [`FREE`] or [`BUSY`].
    start: AtomicUsize,
    end: AtomicUsize,
    /// Page size of the mapping, a power of two.
    page: AtomicUsize,
    /// The eventfd to ring.
    bell: AtomicI32,
    broken: AtomicBool,
}

/// What a slot says, read at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: usize,
    end: usize,
    page: usize,
    bell: c_int,
}

static RANGES: [Slot; MAX_RANGES] = [const { Slot::new() }; MAX_RANGES];

/// The action before ours, never freed.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// A mapping in the table, taken out on drop. Drop it before the mapping itself.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: usize,
    /// Keeps the descriptor open that the slot names.
    _bell: Arc<EventFd>,
}

impl Guard {
    /// Guards `len` bytes at `start`, mapped from a file with pages of `page` bytes. `None` if the
    /// table is full or the handler cannot be installed.
    pub(crate) fn new(start: usize, len: usize, page: usize, bell: Arc<EventFd>) -> Option<Guard> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if !*INSTALLED.get_or_init(install) {
            return None;
        }
        let range = Range {
            start,
            end: start.saturating_add(len),
            page: page.next_power_of_two().max(4096),
            bell: bell.as_raw_fd(),
        };
        let slot = RANGES.iter().position(|s| s.take(range))?;
        Some(Guard { slot, _bell: bell })
    }

    /// True if memory of this mapping was found to be gone.
    pub(crate) fn is_broken(&self) -> bool {
        RANGES[self.slot].broken.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        RANGES[self.slot].free();
    }
}

fn install() -> bool {
    // SAFETY: `sigaction` is plain data, for which zeros are valid; both pointers are to live values
    // and `on_bus_error` has the signature that SA_SIGINFO asks for.
    unsafe {
        let before: *mut libc::sigaction = Box::into_raw(Box::new(std::mem::zeroed()));
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), before) != 0 {
            return false;
        }
        BEFORE.store(before, Ordering::Release);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) == 0
    }
}

extern "C" fn on_bus_error(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler, and SIGBUS has an address.
    // A bus error that somebody sent (`kill`) has a code of 0 or less and no address.
    let at = unsafe { if (*info).si_code > 0 { (*info).si_addr() as usize } else { 0 } };
    if !RANGES.iter().any(|slot| slot.replace(at)) {
        let before = BEFORE.load(Ordering::Acquire);
        // SAFETY: `before` was filled in before the handler was installed and is never freed. With
        // the former action back, the faulting instruction runs again and the process ends.
        unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
    }
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(FREE),
            end: AtomicUsize::new(0),
            page: AtomicUsize::new(4096),
            bell: AtomicI32::new(-1),
            broken: AtomicBool::new(false),
        }
    }

    /// Fills the slot in, if it is free.
    fn take(&self, range: Range) -> bool {
        if self.start.compare_exchange(FREE, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        // Only the one who made it BUSY gets here, so the generation has one writer.
        let generation = self.generation.load(Ordering::Relaxed);
        self.generation.store(generation.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.end.store(range.end, Ordering::Relaxed);
        self.page.store(range.page, Ordering::Relaxed);
        self.bell.store(range.bell, Ordering::Relaxed);
        self.broken.store(false, Ordering::Relaxed);
        self.start.store(range.start, Ordering::Relaxed);
        self.generation.store(generation.wrapping_add(2), Ordering::Release);
        true
    }

    fn free(&self) {
        self.start.store(FREE, Ordering::Release);
    }

    /// What the slot says; `None` if it is free, or filled in just now.
    fn read(&self) -> Option<Range> {
        let generation = self.generation.load(Ordering::Acquire);
        let range = Range {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            page: self.page.load(Ordering::Relaxed),
            bell: self.bell.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let same = self.generation.load(Ordering::Relaxed) == generation;
        let taken = range.start != FREE && range.start != BUSY;
        (same && taken && generation.is_multiple_of(2)).then_some(range)
    }

    /// If `at` is inside, puts private memory there and tells the port. Runs in the signal handler,
    /// on a thread that uses the mapping that `at` is in: the slot of that one does not change, and
    /// one that changes is another's.
    fn replace(&self, at: usize) -> bool {
        let Some(Range { start, end, page, bell }) = self.read() else { return false };
        if !(start..end).contains(&at) {
            return false;
        }
        let from = (at & !(page - 1)).max(start);
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: errno is thread-local and put back. All of the range was filled in by one owner
        // (see `read`), so it lies in one mapping; `at` is inside, and this thread is using it, so
        // the owner still keeps mapping, slot and descriptor. The memory is only ever reached by
        // raw pointers.
        unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let new = libc::mmap(from as *mut c_void, end - from, prot, flags, -1, 0);
            if new != libc::MAP_FAILED {
                self.broken.store(true, Ordering::Release);
                let one = 1u64;
                libc::write(bell, (&raw const one).cast(), 8);
            }
            *errno = saved;
            new != libc::MAP_FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::ExitStatusExt;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    const LEN: usize = 8 * 4096;

    /// A mapping that stays for the rest of the process, and its file.
    fn mapped() -> (*mut u8, OwnedFd) {
        let fd = memfd_create("sigbus-test", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, LEN as u64).expect("size");
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so nothing is replaced.
        let p = unsafe { mmap(std::ptr::null_mut(), LEN, prot, MapFlags::SHARED, &fd, 0) };
        (p.expect("mmap").cast(), fd)
    }

    #[test]
    fn a_truncated_file_reads_as_zeros_and_is_reported() {
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK).expect("eventfd"));
        let (p, fd) = mapped();
        let guard = Guard::new(p as usize, LEN, 4096, bell.clone()).expect("room");
        // SAFETY: p is mapped for LEN bytes, whatever becomes of its file, because it is guarded.
        unsafe {
            p.write_volatile(7);
            p.add(5 * 4096).write_volatile(8);
            assert!(!guard.is_broken() && bell.read().is_err());
            ftruncate(&fd, 4096).expect("truncate");
            assert_eq!(p.add(5 * 4096).read_volatile(), 0);
            assert!(guard.is_broken());
            assert_eq!(bell.read().expect("rung"), 1);
            p.add(7 * 4096).write_volatile(1);
            assert!(bell.read().is_err(), "one fault is enough for the rest of the mapping");
            p.add(2 * 4096).write_volatile(1);
            assert_eq!(p.read_volatile(), 7, "what the file still has stays");
        }
        let slot = guard.slot;
        drop(guard);
        assert_eq!(RANGES[slot].start.load(Ordering::Relaxed), FREE);
    }

    #[test]
    fn a_slot_that_changes_is_never_read_in_parts() {
        let slot = Slot::new();
        let stop = AtomicBool::new(false);
        let range = |k: usize| Range { start: k, end: k + 7, page: k + 1, bell: k as c_int };
        let mut seen = std::collections::BTreeSet::new();
        std::thread::scope(|s| {
            s.spawn(|| {
                for k in (1..1_000).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    assert!(slot.take(range(k)) && !slot.take(range(0)));
                    slot.free();
                }
            });
            let mut looks = 0;
            while looks < 1_000_000 || seen.len() < 20 {
                looks += 1;
                let Some(r) = slot.read() else { continue };
                if r != range(r.start) {
                    stop.store(true, Ordering::Relaxed);
                    panic!("of two owners: {r:?}");
                }
                seen.insert(r.start);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(slot.read(), None);
        assert!(slot.take(range(5)));
        assert_eq!(slot.read(), Some(range(5)));
    }

    #[test]
    fn any_other_bus_error_still_ends_the_process() {
        const ROLE: &str = "SIGBUS_TEST_DIES";
        if std::env::var_os(ROLE).is_some() {
            let (p, fd) = mapped();
            let (q, _fd) = mapped();
            let bell = Arc::new(EventFd::new(EFD_NONBLOCK).expect("eventfd"));
            let _guard = Guard::new(q as usize, LEN, 4096, bell).expect("room");
            ftruncate(&fd, 0).expect("truncate");
            // SAFETY: mapped, but without memory behind it: this process must die here.
            unsafe { p.read_volatile() };
            return;
        }
        let me = std::env::current_exe().expect("this test");
        let name = "sigbus::tests::any_other_bus_error_still_ends_the_process";
        let out = std::process::Command::new(me).args(["--exact", name]).env(ROLE, "1").output();
        let status = out.expect("runs").status;
        assert!(matches!(status.signal(), Some(libc::SIGBUS | libc::SIGABRT)), "{status}");
    }
}
