//! Being told of packets only while somebody waits for them.
//!
//! The kernel tells everybody who watches a socket of each packet that it received and of each that it sent, which takes
//! some 240 cycles even if that one does not care. So threads watch an epoll descriptor, which watches the socket while a
//! thread waits and is empty while it polls.

use port::Waker;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use std::io::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module's documentation.
pub(crate) struct Alarm {
    epoll: Arc<OwnedFd>,
    /// The thread that waits.
    armed: Mutex<Option<Arc<Waker>>>,
}

impl Alarm {
    pub(crate) fn new() -> Result<Alarm> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        Ok(Alarm { epoll, armed: Mutex::new(None) })
    }

    /// Arms it for the thread of `waker`; what is signalled when packets come.
    pub(crate) fn arm(&self, socket: &OwnedFd, waker: &Arc<Waker>) -> Result<Arc<OwnedFd>> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if armed.is_none() {
            epoll::add(&*self.epoll, socket, EventData::new_u64(0), EventFlags::IN)?;
        }
        *armed = Some(waker.clone());
        Ok(self.epoll.clone())
    }

    /// Disarms it, unless another thread waits by now.
    pub(crate) fn disarm(&self, socket: &OwnedFd, waker: &Arc<Waker>) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if armed.as_ref().is_some_and(|w| Arc::ptr_eq(w, waker)) {
            *armed = None;
            // It can only fail if it was not there.
            let _ = epoll::delete(&*self.epoll, socket);
        }
    }
}
