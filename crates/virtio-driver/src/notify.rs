//! Eventfds: kicks to the device, calls from it.

use crate::error::Error;
use crate::session::remaining;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// One eventfd, non-blocking.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// A new eventfd with count 0.
    pub fn new() -> Result<Event, Error> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        eventfd(0, flags).map(Event).map_err(Error::sys("making an eventfd"))
    }

    /// The descriptor to send to the back end.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Adds one. A full counter means that the other side has a wake-up pending, so that is no error.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes the count; 0 if nothing was signalled.
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// Waits for a signal, or for `socket` to be closed by its peer, until the deadline. Says whether there was a signal.
    pub fn wait(&self, socket: BorrowedFd<'_>, deadline: Instant) -> Result<bool, Error> {
        loop {
            let mut fds = [
                PollFd::new(&self.0, PollFlags::IN),
                PollFd::from_borrowed_fd(socket, PollFlags::RDHUP),
            ];
            match poll(&mut fds, Some(&remaining(deadline))) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(Error::sys("waiting for a call")(errno)),
                Ok(_) => {}
            }
            if fds[0].revents().contains(PollFlags::IN) {
                self.take();
                return Ok(true);
            }
            if !fds[1].revents().is_empty() {
                return Err(Error::Disconnected { doing: "waiting for a call" });
            }
            return Ok(false);
        }
    }
}
