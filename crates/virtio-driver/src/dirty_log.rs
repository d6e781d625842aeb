//! The dirty page log of live migration (vhost-user "Migration"): one bit for each 4 KiB page of guest memory, set by the back end.

use crate::error::Error;
use crate::mapping::{Mapping, Shared, Span};
use crate::session::Session;
use crate::wire::Request;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes one bit stands for.
pub const LOG_PAGE: u64 = 4096;

/// A log in shared memory.
pub struct DirtyLog {
    file: OwnedFd,
    bits: Shared<AtomicU8>,
}

impl std::fmt::Debug for DirtyLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DirtyLog({} bytes)", self.bits.len())
    }
}

impl DirtyLog {
    /// A clean log for guest addresses below `end`.
    pub fn new(end: u64) -> Result<DirtyLog, Error> {
        let len = (end.div_ceil(LOG_PAGE).div_ceil(8)).next_multiple_of(LOG_PAGE);
        let file = memfd_create("dirty-log", MemfdFlags::CLOEXEC)
            .map_err(Error::sys("making the dirty log"))?;
        ftruncate(&file, len).map_err(Error::sys("sizing the dirty log"))?;
        let map = Mapping::new(file.as_fd(), len as usize)
            .map_err(Error::sys("mapping the dirty log"))?;
        let bits = Span::new(map, 0, len as usize, 0).shared(0, len as usize);
        Ok(DirtyLog { file, bits })
    }

    /// Sends SET_LOG_BASE and waits for its answer.
    pub fn announce(&self, session: &Session) -> Result<(), Error> {
        let body = [(self.bits.len() as u64).to_le_bytes(), 0u64.to_le_bytes()].concat();
        session.send_log_base(&body, self.file.as_fd())
    }

    /// Whether the page of guest address `gpa` was written.
    pub fn is_dirty(&self, gpa: u64) -> bool {
        let page = gpa / LOG_PAGE;
        self.bits
            .get((page / 8) as usize)
            .is_some_and(|byte| byte.load(Ordering::Acquire) & (1 << (page % 8)) != 0)
    }

    /// Takes the addresses of all dirty pages, cleaning the log.
    pub fn take(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (at, byte) in self.bits.iter().enumerate() {
            let byte = byte.swap(0, Ordering::AcqRel);
            pages.extend(
                (0..8)
                    .filter(|bit| byte & (1 << bit) != 0)
                    .map(|bit| (at as u64 * 8 + bit) * LOG_PAGE),
            );
        }
        pages
    }
}

impl Session {
    /// SET_LOG_BASE has a reply of its own (with LOG_SHMFD), acknowledgement or not.
    fn send_log_base(&self, body: &[u8], fd: std::os::fd::BorrowedFd<'_>) -> Result<(), Error> {
        let request = Request::SET_LOG_BASE;
        self.send(request, crate::wire::FLAG_VERSION, body, &[fd])?;
        self.answer(request).map(|_| ())
    }
}
