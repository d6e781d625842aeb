//! The thread of a capture and its client.

use super::describe::line;
use super::pcapng::File;
use super::{Started, Wanted, time, told};
use crate::daemon::{Shared, locked};
use datapath::Captured;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// How long the client may take to connect.
const CONNECT_MS: i64 = 5000;
/// How long packets may wait in the rings, which hold several times as much.
const LOOK_MS: i64 = 10;
/// A client that takes nothing for this long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two tellings of how many packets there are.
const TELL: Duration = Duration::from_secs(1);
/// Owner and group may connect, as to the control socket.
const SOCKET_MODE: u32 = 0o770;

/// What a piece is: part of the output, the sums so far, the sums at the end.
const DATA: u8 = b'd';
const SO_FAR: u8 = b's';
const END: u8 = b'e';

/// The capture ends with this, whatever happens to its thread.
struct Place {
    switch: Shared,
    id: u64,
    socket: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        locked(&self.switch).end_capture(self.id);
    }
}

/// Listens on `socket` and starts the thread.
pub(super) fn spawn(
    switch: Shared,
    socket: PathBuf,
    started: Started,
    wanted: Wanted,
) -> io::Result<()> {
    let listener = listen(&socket)?;
    let spawned = std::thread::Builder::new().name("capture".into()).spawn({
        let socket = socket.clone();
        move || {
            let port = wanted.port.clone();
            let place = Place { switch, id: started.id, socket };
            match run(&listener, &place, started, wanted) {
                Ok(told) => debug!("{port}: {told}"),
                // A client that goes takes its capture with it.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
                Err(e) => warn!("capture of {port} ended: {e}"),
            }
        }
    });
    spawned.map(drop).inspect_err(|_| {
        let _ = std::fs::remove_file(&socket);
    })
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before bind(), so that the socket file never exists with wider permissions.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 1)?;
    Ok(UnixListener::from(socket))
}

/// Waits until there is something to read or to accept, or the other side is gone; false if `ms` pass.
fn is_ready(fd: &impl AsFd, ms: i64) -> io::Result<bool> {
    let limit = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Serves the client to the end of the capture; returns the sums.
fn run(
    listener: &UnixListener,
    place: &Place,
    started: Started,
    wanted: Wanted,
) -> io::Result<String> {
    if !is_ready(listener, CONNECT_MS)? {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody has connected"));
    }
    let (stream, _) = listener.accept()?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let _ = std::fs::remove_file(&place.socket);
    let file =
        if wanted.pcapng { Some(File::new(&wanted.port, &wanted.filter_text)) } else { None };
    let file = file.transpose().map_err(io::Error::other)?;
    Session { stream, file, started, wanted, captured: 0 }.run()
}

struct Session {
    stream: UnixStream,
    file: Option<File>,
    started: Started,
    wanted: Wanted,
    /// Packets given to the client.
    captured: u64,
}

impl Session {
    fn run(mut self) -> io::Result<String> {
        let mut last_told = Instant::now();
        loop {
            let over = self.client_ended()?;
            if over {
                self.started.capture.end();
            }
            let packets = self.started.reader.take();
            let done = self.put(&packets)? || over;
            if done {
                return self.end();
            }
            if last_told.elapsed() >= TELL {
                last_told = Instant::now();
                let told = self.told();
                piece(&mut self.stream, SO_FAR, told.as_bytes())?;
            }
        }
    }

    /// Waits a moment; true if the client has closed its sending side.
    fn client_ended(&mut self) -> io::Result<bool> {
        // It has nothing to say.
        Ok(is_ready(&self.stream, LOOK_MS)? && self.stream.read(&mut [0; 64])? == 0)
    }

    /// Gives packets to the client, no more than were asked for; true if it has all.
    fn put(&mut self, packets: &[Captured]) -> io::Result<bool> {
        let left = self.wanted.count.map_or(u64::MAX, |n| n - self.captured);
        let packets = &packets[..packets.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut out = self.file.as_mut().map_or_else(Vec::new, File::take);
        for packet in packets {
            let time = time(self.started.zero, packet);
            match &mut self.file {
                Some(file) => {
                    file.packet(time, packet).map_err(io::Error::other)?;
                    out.append(&mut file.take());
                }
                None => out.extend(line(time, &self.wanted.port, packet).as_bytes()),
            }
        }
        self.captured += packets.len() as u64;
        if !out.is_empty() {
            piece(&mut self.stream, DATA, &out)?;
        }
        Ok(packets.len() as u64 == left)
    }

    fn end(mut self) -> io::Result<String> {
        self.started.capture.end();
        if let Some(mut file) = self.file.take() {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let counts = self.started.capture.counts();
            let written = file.statistics(now.unwrap_or_default(), self.captured, &counts);
            written.map_err(io::Error::other)?;
            piece(&mut self.stream, DATA, &file.take())?;
        }
        let told = self.told();
        piece(&mut self.stream, END, told.as_bytes())?;
        Ok(told)
    }

    fn told(&self) -> String {
        told(self.captured, &self.started.capture.counts())
    }
}

/// Sends one piece.
fn piece(stream: &mut UnixStream, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut head = [kind; 5];
    head[1..].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&head)?;
    stream.write_all(bytes)
}
