//! Vhost-user messages on the socket: a header of 12 bytes, a body, and file descriptors.

use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vhost::vhost_user::message::FrontendReq;
use vm_memory::ByteValued;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Largest message body. The largest in use, a memory table of 8 regions, has 264 bytes; the `vhost`
/// crate's own limit is the same.
const MAX_BODY: usize = 4096;
/// File descriptors with one message: a memory table of 8 regions. More are closed unseen by the
/// kernel and reported as truncation.
const MAX_FDS: usize = 32;
/// How long the rest of a message may take once it began, and a reply may take to be sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Header flags: version 1 (bits 0 and 1), reply (2), reply wanted (3).
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

/// One message from the front end.
#[derive(Debug)]
pub(crate) struct Message {
    /// Request code, known or not.
    pub(crate) code: u32,
    /// The front end waits for an answer even if this request has none of its own.
    pub(crate) wants_ack: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<File>,
}

impl Message {
    /// The request, if it is one of the specification's.
    pub(crate) fn request(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.code).ok()
    }

    /// The body as a fixed structure.
    pub(crate) fn body<T: ByteValued + Default>(&self) -> Result<T, ProtocolError> {
        let mut value = T::default();
        if self.body.len() != size_of::<T>() {
            return Err(ProtocolError::Size { code: self.code, size: self.body.len() });
        }
        value.as_mut_slice().copy_from_slice(&self.body);
        Ok(value)
    }

    /// The one file descriptor that belongs to the request.
    pub(crate) fn one_fd(&mut self) -> Result<File, ProtocolError> {
        match self.fds.len() {
            1 => Ok(self.fds.remove(0)),
            have => Err(ProtocolError::Fds { code: self.code, have, want: 1 }),
        }
    }
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The front end closed the connection.
    #[error("the front end closed the connection")]
    Closed,
    /// The socket failed, or the rest of a message did not come in time.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The header is not one of this protocol's.
    #[error("message {code}: bad header (flags {flags:#x}, {size} bytes)")]
    Header {
        /// Request code.
        code: u32,
        /// Header flags.
        flags: u32,
        /// Body size announced.
        size: u32,
    },
    /// The body's size does not fit the request.
    #[error("message {code}: a body of {size} bytes does not fit")]
    Size {
        /// Request code.
        code: u32,
        /// Body size.
        size: usize,
    },
    /// The number of file descriptors does not fit the request.
    #[error("message {code}: {have} file descriptors, {want} expected")]
    Fds {
        /// Request code.
        code: u32,
        /// File descriptors received.
        have: usize,
        /// File descriptors that belong to it.
        want: usize,
    },
    /// A value in the body is out of its range, or does not fit the device's state.
    #[error("message {code}: {what}")]
    Value {
        /// Request code.
        code: u32,
        /// What is wrong.
        what: String,
    },
    /// Memory could not be mapped.
    #[error("memory: {0}")]
    Memory(#[from] crate::mem::MemError),
    /// A request that was not offered, or is unknown.
    #[error("message {code} is not supported")]
    Unsupported {
        /// Request code.
        code: u32,
    },
}

/// A connection to a front end.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Speaks on `stream`; reads and writes are bounded in time from here on.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { stream })
    }

    /// The socket, to be polled.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads one message. Call when the socket is readable; a message that began must end in time.
    pub(crate) fn receive(&self) -> Result<Message, ProtocolError> {
        let mut header = [0u8; 12];
        let mut fds = Vec::new();
        let mut have = 0;
        while have < header.len() {
            have += self.read_some(&mut header[have..], &mut fds)?;
        }
        let word = |i: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|b| header[4 * i + b]));
        let (code, flags, size) = (word(0), word(1), word(2));
        if flags & VERSION_MASK != VERSION || flags & REPLY != 0 || size as usize > MAX_BODY {
            return Err(ProtocolError::Header { code, flags, size });
        }
        let mut body = vec![0u8; size as usize];
        let mut have = 0;
        while have < body.len() {
            have += self.read_some(&mut body[have..], &mut fds)?;
        }
        Ok(Message { code, wants_ack: flags & NEED_REPLY != 0, body, fds })
    }

    /// Reads some bytes, and the file descriptors that came with them.
    fn read_some(&self, into: &mut [u8], fds: &mut Vec<File>) -> Result<usize, ProtocolError> {
        let mut raw = [-1; MAX_FDS];
        let mut iov = [libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() }];
        // SAFETY: the vector describes `into`, which is writable for its length.
        let (n, count) = match unsafe { self.stream.recv_with_fds(&mut iov, &mut raw) } {
            Ok(got) => got,
            Err(e) if e.errno() == libc::EINTR => return Ok(0),
            Err(e) => return Err(io::Error::from(e).into()),
        };
        for &fd in &raw[..count] {
            use std::os::fd::FromRawFd;
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            fds.push(unsafe { File::from_raw_fd(fd) });
        }
        if n == 0 {
            return Err(ProtocolError::Closed);
        }
        Ok(n)
    }

    /// Answers request `code` with `body`.
    pub(crate) fn reply(&self, code: u32, body: &[u8]) -> Result<(), ProtocolError> {
        let mut out = Vec::with_capacity(12 + body.len());
        for word in [code, VERSION | REPLY, body.len() as u32] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(body);
        io::Write::write_all(&mut &self.stream, &out)?;
        Ok(())
    }
}

/// Waits until one of `fds` is readable or closed; returns which are.
pub(crate) fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let timeout = timeout.map(|t| rustix::event::Timespec {
        tv_sec: t.as_secs() as i64,
        tv_nsec: t.subsec_nanos().into(),
    });
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {
                return Ok([0; N].map(|_: u8| false)).map(|mut ready| {
                    for (r, p) in ready.iter_mut().zip(&polled) {
                        *r = !p.revents().is_empty();
                    }
                    ready
                });
            }
            Err(e) if io::Error::from(e).kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}
