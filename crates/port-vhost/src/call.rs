//! What interrupts a guest: a descriptor that its front end gave. Nothing a front end does with it makes a PMD thread
//! wait for long.

use crate::link::fd;
use crate::message::ProtocolError;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{SendFlags, send};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use vhost::vhost_user::message::FrontendReq as Req;
use vmm_sys_util::eventfd::EventFd;

/// A call descriptor, or one to report errors by.
#[derive(Debug)]
pub(crate) enum Call {
    /// As the specification has it.
    Event(EventFd),
    /// One end of a socket pair: user-mode Linux.
    Socket(UnixStream),
}

impl Call {
    /// Takes what the front end sent in message `code`. A write to anything else might do something.
    pub(crate) fn new(code: u32, file: File) -> Result<Call, ProtocolError> {
        if is_event(&file) {
            never_block(&file)?;
            // SAFETY: `into_raw_fd` gives up the descriptor, so the EventFd is its only owner.
            return Ok(Call::Event(unsafe { EventFd::from_raw_fd(file.into_raw_fd()) }));
        }
        let socket = UnixStream::from(OwnedFd::from(file));
        // It has an address of its kind, if it is one.
        if socket.local_addr().is_ok() && socket.peer_addr().is_ok() {
            return Ok(Call::Socket(socket));
        }
        let what = "the descriptor is neither an eventfd nor a connected Unix socket".to_string();
        Err(ProtocolError::Value { code, what })
    }

    /// Interrupts. Waits only for an eventfd that was made blocking and full, see [`Call::unblock`].
    pub(crate) fn tell(&self) {
        // Who cannot take more has not seen the last one yet.
        match self {
            Call::Event(event) => drop(event.write(1)),
            Call::Socket(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let _ = send(socket, &1u64.to_ne_bytes(), flags);
            }
        }
    }

    /// Sees to it that nobody waits in [`Call::tell`]. A front end shares an eventfd's flags and its counter, so it can
    /// make it blocking and full at any time. True if it did.
    pub(crate) fn unblock(&self) -> bool {
        let Call::Event(event) = self else { return false };
        match fcntl_getfl(fd(event)) {
            Ok(flags) if !flags.contains(OFlags::NONBLOCK) => {
                // From now on nobody waits; who does already goes on when the counter is taken.
                let _ = fcntl_setfl(fd(event), flags | OFlags::NONBLOCK);
                let _ = event.read();
                true
            }
            _ => false,
        }
    }
}

/// A kick descriptor from the front end, which can be waited for.
pub(crate) fn checked_kick(file: File) -> Result<File, ProtocolError> {
    if is_event(&file) {
        never_block(&file)?;
        return Ok(file);
    }
    let what = "the descriptor is not an eventfd".to_string();
    Err(ProtocolError::Value { code: Req::SET_VRING_KICK as u32, what })
}

/// False too if /proc cannot say.
fn is_event(file: &File) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    name.is_ok_and(|n| n.as_os_str() == "anon_inode:[eventfd]")
}

/// Makes reads and writes fail where they would wait.
fn never_block(file: &File) -> std::io::Result<()> {
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn call(fd: impl Into<OwnedFd>) -> Result<Call, ProtocolError> {
        Call::new(Req::SET_VRING_CALL as u32, File::from(fd.into()))
    }

    #[test]
    fn a_socket_is_told_and_never_waited_for() {
        let (mut guest, ours) = UnixStream::pair().expect("a pair");
        let call = call(ours).expect("fits");
        call.tell();
        let mut told = [0; 8];
        guest.read_exact(&mut told).expect("told");
        assert_eq!(u64::from_ne_bytes(told), 1);
        for _ in 0..100_000 {
            call.tell();
        }
        drop(guest);
        call.tell();
        assert!(!call.unblock());
    }

    #[test]
    fn nothing_else_is_written_to() {
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        assert!(call(read).is_err());
        assert!(call(write).is_err());
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        assert!(call(stream).is_err());
        assert!(call(std::os::unix::net::UnixDatagram::unbound().expect("socket")).is_err());
    }
}
