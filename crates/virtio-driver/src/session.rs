//! One vhost-user connection: sends any message with any descriptors, receives replies with a deadline.
//!
//! Nothing here checks whether a message makes sense now: tests of a back end need the ones that do not.

use crate::error::Error;
use crate::wire::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, HEADER_LEN, MAX_BODY, MAX_FDS, Request,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two attempts to reach a socket that is not there yet.
const RETRY: Duration = Duration::from_millis(2);

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// Request number.
    pub request: Request,
    /// Header flags.
    pub flags: u32,
    /// Body.
    pub body: Vec<u8>,
    /// Descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The body as one 64-bit number.
    pub fn as_u64(&self) -> Result<u64, Error> {
        self.body.as_slice().try_into().map(u64::from_le_bytes).map_err(|_| Error::BadAnswer {
            request: self.request,
            why: format!("8 bytes expected, {} came", self.body.len()),
        })
    }
}

/// A connection to a back end.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    /// How long an answer may take.
    pub patience: Duration,
    /// Whether REPLY_ACK was negotiated, so that [`Session::set`] asks for an acknowledgement and checks it.
    pub acks: bool,
}

/// The time left until `deadline`, for `poll`.
pub(crate) fn remaining(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: left.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: left.subsec_nanos().into(),
    }
}

/// Waits until `fd` can be read (or is closed); false at the deadline.
fn readable(fd: BorrowedFd<'_>, deadline: Instant) -> Result<bool, Error> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&remaining(deadline))) {
            Ok(n) => return Ok(n > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::sys("waiting for the back end")(errno)),
        }
    }
}

impl Session {
    /// Wraps a connected socket.
    pub fn new(stream: UnixStream, patience: Duration) -> Session {
        Session { stream, patience, acks: false }
    }

    /// Connects to a listening back end, trying until the deadline.
    pub fn connect(path: &Path, patience: Duration) -> Result<Session, Error> {
        let deadline = Instant::now() + patience;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Session::new(stream, patience)),
                Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Err(_) => return Err(Error::NoPeer { path: path.to_owned() }),
            }
        }
    }

    /// Waits on a listening socket for a back end that connects to us.
    pub fn accept(
        listener: &UnixListener,
        path: &Path,
        patience: Duration,
    ) -> Result<Session, Error> {
        if !readable(listener.as_fd(), Instant::now() + patience)? {
            return Err(Error::NoPeer { path: path.to_owned() });
        }
        let (stream, _) = listener.accept().map_err(Error::io("accepting the back end"))?;
        Ok(Session::new(stream, patience))
    }

    /// The socket, for polling or shutting down.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends raw bytes with descriptors, for messages that are not even framed right.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::Config(format!(
                "{} descriptors in one message; {MAX_FDS} is the limit",
                fds.len()
            )));
        }
        let mut sent = 0;
        while sent < bytes.len() {
            match sendmsg(
                &self.stream,
                &[IoSlice::new(&bytes[sent..])],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(n) => sent += n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                    return Err(Error::Disconnected { doing: "sending a message" });
                }
                Err(errno) => return Err(Error::sys("sending a message")(errno)),
            }
            control.clear(); // descriptors go with the first part only
        }
        Ok(())
    }

    /// Sends a message. `flags` are given as they go out: usually [`FLAG_VERSION`].
    pub fn send(
        &self,
        request: Request,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        for word in [request.0, flags, body.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        self.send_bytes(&bytes, fds)
    }

    fn fill(
        &self,
        buf: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let mut got = 0;
        while got < buf.len() {
            if !readable(self.stream.as_fd(), deadline)? {
                return Ok(false);
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [IoSliceMut::new(&mut buf[got..])];
            let n = match recvmsg(&self.stream, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(msg) => msg.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(errno) => return Err(Error::sys("receiving a message")(errno)),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if n == 0 {
                return Err(Error::Disconnected { doing: "waiting for a message" });
            }
            got += n;
        }
        Ok(true)
    }

    /// Receives one message; `None` at the deadline.
    pub fn recv(&self, deadline: Instant) -> Result<Option<Message>, Error> {
        let mut fds = Vec::new();
        let mut header = [0u8; HEADER_LEN];
        if !self.fill(&mut header, &mut fds, deadline)? {
            return Ok(None);
        }
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (request, flags, size) = (Request(word(0)), word(4), word(8) as usize);
        if size > MAX_BODY {
            return Err(Error::BadAnswer {
                request,
                why: format!("a body of {size} bytes; at most {MAX_BODY} make sense"),
            });
        }
        let mut body = vec![0; size];
        if !self.fill(&mut body, &mut fds, deadline)? {
            return Err(Error::NoAnswer { request });
        }
        Ok(Some(Message { request, flags, body, fds }))
    }

    pub(crate) fn answer(&self, request: Request) -> Result<Message, Error> {
        let message =
            self.recv(Instant::now() + self.patience)?.ok_or(Error::NoAnswer { request })?;
        if message.request != request
            || message.flags & FLAG_REPLY == 0
            || message.flags & 3 != FLAG_VERSION
        {
            let why = format!("{} with flags {:#x} came instead", message.request, message.flags);
            return Err(Error::BadAnswer { request, why });
        }
        Ok(message)
    }

    /// Sends a question and returns its answer.
    pub fn ask(&self, request: Request, body: &[u8]) -> Result<Message, Error> {
        self.send(request, FLAG_VERSION, body, &[])?;
        self.answer(request)
    }

    /// Sends a message without an answer of its own; with REPLY_ACK, waits for the acknowledgement and checks it.
    pub fn set(&self, request: Request, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        if !self.acks {
            return self.send(request, FLAG_VERSION, body, fds);
        }
        self.send(request, FLAG_VERSION | FLAG_NEED_REPLY, body, fds)?;
        match self.answer(request)?.as_u64()? {
            0 => Ok(()),
            code => Err(Error::Refused { request, code }),
        }
    }

    /// Whether the back end has closed the connection.
    pub fn closed(&self) -> Result<bool, Error> {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN | PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
            .map_err(|e| Error::io("polling the socket")(io::Error::from(e)))?;
        Ok(fds[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::u64_body;

    fn pair() -> (Session, Session) {
        let (a, b) = UnixStream::pair().unwrap();
        (Session::new(a, Duration::from_secs(2)), Session::new(b, Duration::from_secs(2)))
    }

    #[test]
    fn descriptors_travel_with_messages() {
        let (front, back) = pair();
        let file = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        front
            .send(
                Request::SET_VRING_KICK,
                FLAG_VERSION,
                &u64_body(3),
                &[file.as_fd(), file.as_fd()],
            )
            .unwrap();
        let message = back.recv(Instant::now() + back.patience).unwrap().unwrap();
        assert_eq!((message.request, message.as_u64().unwrap()), (Request::SET_VRING_KICK, 3));
        assert_eq!(message.fds.len(), 2);
    }

    #[test]
    fn answers_are_checked() {
        let (mut front, back) = pair();
        front.acks = true;
        let reply = |code: u64| {
            back.send(Request::SET_OWNER, FLAG_VERSION | FLAG_REPLY, &u64_body(code), &[]).unwrap()
        };
        reply(0);
        front.set(Request::SET_OWNER, &[], &[]).unwrap();
        assert_eq!(
            back.recv(Instant::now() + back.patience).unwrap().unwrap().flags,
            FLAG_VERSION | FLAG_NEED_REPLY
        );
        reply(5);
        assert!(matches!(
            front.set(Request::SET_OWNER, &[], &[]),
            Err(Error::Refused { code: 5, .. })
        ));
        reply(0);
        assert!(matches!(front.ask(Request::GET_FEATURES, &[]), Err(Error::BadAnswer { .. })));
        front.patience = Duration::from_millis(10);
        assert!(matches!(front.ask(Request::GET_FEATURES, &[]), Err(Error::NoAnswer { .. })));
        assert!(!front.closed().unwrap());
        drop(back);
        assert!(front.closed().unwrap());
        assert!(matches!(front.ask(Request::GET_FEATURES, &[]), Err(Error::Disconnected { .. })));
    }
}
