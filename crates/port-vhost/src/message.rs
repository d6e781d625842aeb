//! Vhost-user messages on the socket: a header of 12 bytes, a body, and file descriptors.

use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
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

/// A connection to a front end. Nothing it does takes longer than [`PATIENCE`], or goes on when the
/// port is to be closed.
#[derive(Debug)]
pub(crate) struct Connection<'p> {
    stream: UnixStream,
    stop: BorrowedFd<'p>,
}

impl<'p> Connection<'p> {
    /// Speaks on `stream` until `stop` is readable.
    pub(crate) fn new(stream: UnixStream, stop: BorrowedFd<'p>) -> io::Result<Connection<'p>> {
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, stop })
    }

    /// The socket, to be polled.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads one message. Call when the socket is readable; a message that began must end in time.
    pub(crate) fn receive(&self) -> Result<Message, ProtocolError> {
        let mut header = [0u8; 12];
        let mut fds = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        self.fill(&mut header, &mut fds, deadline)?;
        let word = |i: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|b| header[4 * i + b]));
        let (code, flags, size) = (word(0), word(1), word(2));
        if flags & VERSION_MASK != VERSION || flags & REPLY != 0 || size as usize > MAX_BODY {
            return Err(ProtocolError::Header { code, flags, size });
        }
        let mut body = vec![0u8; size as usize];
        self.fill(&mut body, &mut fds, deadline)?;
        Ok(Message { code, wants_ack: flags & NEED_REPLY != 0, body, fds })
    }

    /// Reads until `into` is full.
    fn fill(
        &self,
        into: &mut [u8],
        fds: &mut Vec<File>,
        deadline: Instant,
    ) -> Result<(), ProtocolError> {
        let mut have = 0;
        while have < into.len() {
            self.wait(PollFlags::IN, deadline)?;
            have += self.read_some(&mut into[have..], fds)?;
            // No message has more; a peer that sends one with every byte must not fill our table.
            if fds.len() > MAX_FDS {
                return Err(io::Error::other("too many file descriptors").into());
            }
        }
        Ok(())
    }

    /// Waits until the socket is ready for `what`.
    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<(), ProtocolError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let fds = [(self.stop, PollFlags::IN), (self.stream.as_fd(), what)];
        match wait_ready(fds, Some(left))? {
            [true, _] => Err(ProtocolError::Closed),
            [_, true] => Ok(()),
            _ => Err(io::Error::new(ErrorKind::TimedOut, "the front end took too long").into()),
        }
    }

    /// Reads some bytes, and the file descriptors that came with them.
    fn read_some(&self, into: &mut [u8], fds: &mut Vec<File>) -> Result<usize, ProtocolError> {
        let mut raw = [-1; MAX_FDS];
        let mut iov = [libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() }];
        // SAFETY: the vector describes `into`, which is writable for its length.
        let (n, count) = match unsafe { self.stream.recv_with_fds(&mut iov, &mut raw) } {
            Ok(got) => got,
            Err(e) if [libc::EINTR, libc::EAGAIN].contains(&e.errno()) => return Ok(0),
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
        let deadline = Instant::now() + PATIENCE;
        let mut rest = &out[..];
        while !rest.is_empty() {
            self.wait(PollFlags::OUT, deadline)?;
            match io::Write::write(&mut &self.stream, rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&e.kind()) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Waits until one of `fds` is readable or closed; returns which are.
pub(crate) fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    wait_ready(fds.map(|fd| (fd, PollFlags::IN)), timeout)
}

/// Waits until one of `fds` is ready for what it is asked for, or closed; returns which are.
fn wait_ready<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|(fd, what)| PollFd::from_borrowed_fd(fd, what));
    let timeout = timeout.map(|t| rustix::event::Timespec {
        tv_sec: t.as_secs() as i64,
        tv_nsec: t.subsec_nanos().into(),
    });
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => return Ok(polled.each_ref().map(|p| !p.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
