//! How a PMD thread that has nothing to do waits for packets instead of polling.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What a thread knows after [`Port::wait_for`](crate::Port::wait_for).
#[derive(Debug, Clone)]
pub enum Wait {
    /// The queue has packets, or cannot tell when it will: it must be polled.
    Poll,
    /// The queue does not run: nothing comes before the thread's [`Waker`] is rung.
    Quiet,
    /// This eventfd is signalled when packets come. Others may hold it too and do with it what they
    /// like, so it is neither read nor believed: wait for the edge (`EPOLLET`), then look.
    Signal(Arc<OwnedFd>),
    /// This device is readable for as long as it has packets, so the thread need not look first.
    Readable(Arc<OwnedFd>),
}

/// Wakes a thread that waits: an eventfd of that thread's own.
#[derive(Debug)]
pub struct Waker(File);

impl Waker {
    /// `event` is a non-blocking eventfd.
    pub fn new(event: OwnedFd) -> Waker {
        Waker(event.into())
    }

    /// Wakes the thread, now or when it next waits.
    pub fn ring(&self) {
        // A full counter already says what this would.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
