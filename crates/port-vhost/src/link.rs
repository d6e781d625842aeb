//! The port's thread: connects to the front end, or waits for it, again and again.

use crate::Shared;
use crate::message::{Connection, ProtocolError, wait_readable};
use crate::session::Session;
use rustix::fs::inotify;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

/// Which side of the socket listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The front end listens, the switch connects (`dpdkvhostuserclient`).
    Client,
    /// The switch listens, the front end connects (`dpdkvhostuser`).
    Server,
}

/// Longest wait before the next attempt to connect when nothing was seen to change.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// After a connection that lasted less than this, however it ended, the next one waits: a peer that
/// connects and goes again and again must not keep the switch busy with that.
const SETTLED: Duration = Duration::from_secs(1);

/// A wait that doubles from a millisecond to [`RETRY_MAX`].
#[derive(Debug, Clone, Copy, Default)]
struct BackOff(Duration);

impl BackOff {
    fn longer(&mut self) {
        self.0 = (self.0 * 2).clamp(Duration::from_millis(1), RETRY_MAX);
    }

    fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }

    /// After a connection that lasted for `time`.
    fn after(&mut self, time: Duration) {
        match time < SETTLED {
            true => self.longer(),
            false => self.reset(),
        }
    }
}

/// Binds the listening socket, if this side listens. A stale socket file is replaced.
pub(crate) fn prepare(mode: Mode, path: &Path) -> io::Result<Option<UnixListener>> {
    if mode == Mode::Client {
        return Ok(None);
    }
    let taken = || {
        let why = format!("{}: another process listens on this socket", path.display());
        io::Error::new(ErrorKind::AddrInUse, why)
    };
    match connect(path) {
        Ok(_) => return Err(taken()),
        // Its queue of connections is full.
        Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(taken()),
        Err(_) if path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket()) => {
            std::fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// Runs until the port is closed.
pub(crate) fn run(shared: &Shared, mode: Mode, path: &Path, listener: Option<UnixListener>) {
    let result = match &listener {
        Some(listener) => serve(shared, listener),
        None => keep_connecting(shared, path),
    };
    if let Err(e) = result {
        warn!("{}: the port's thread ends: {e}", shared.name);
    }
    if mode == Mode::Server {
        let _ = std::fs::remove_file(path);
    }
}

fn stopped(shared: &Shared, timeout: Duration) -> io::Result<bool> {
    Ok(wait_readable([fd(&shared.stop)], Some(timeout))?[0])
}

/// An eventfd to be polled.
pub(crate) fn fd(event: &EventFd) -> BorrowedFd<'_> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open as long as `event`, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

fn serve(shared: &Shared, listener: &UnixListener) -> io::Result<()> {
    let mut pause = BackOff::default();
    loop {
        if stopped(shared, pause.0)? {
            return Ok(());
        }
        let [stop, _] = wait_readable([fd(&shared.stop), listener.as_fd()], None)?;
        if stop {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let start = Instant::now();
                session(shared, stream, Some(listener));
                pause.after(start.elapsed());
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => {
                shared.warn(format_args!("accept: {e}"));
                if stopped(shared, RETRY_MAX)? {
                    return Ok(());
                }
            }
        }
    }
}

fn keep_connecting(shared: &Shared, path: &Path) -> io::Result<()> {
    // Two waits: a change in the directory ends the one for a front end to appear, but not the one
    // after a short connection, or a front end could end that by touching files.
    let (mut retry, mut pause) = (BackOff::default(), BackOff::default());
    let mut told = None;
    let mut watch = Watch::default();
    loop {
        if watch.wait(shared, path, retry.0)? {
            retry.reset();
        }
        if stopped(shared, Duration::ZERO)? {
            return Ok(());
        }
        match connect(path) {
            Ok(stream) => {
                told = None;
                retry.reset();
                let start = Instant::now();
                session(shared, stream, None);
                pause.after(start.elapsed());
                if stopped(shared, pause.0)? {
                    return Ok(());
                }
            }
            Err(e) => {
                if told != Some(e.kind()) {
                    let path = path.display();
                    shared.info(format_args!("{path}: {e}; waiting for the front end"));
                    told = Some(e.kind());
                }
                retry.longer();
            }
        }
    }
}

/// Connects without ever blocking: a front end that does not accept is tried again later.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Watches the socket's directory, so that a front end is found the moment it appears.
#[derive(Default)]
struct Watch(Option<OwnedFd>);

impl Watch {
    /// Waits for `time`, for a change in the directory, or for the port to be closed; true if there
    /// was a change.
    fn wait(&mut self, shared: &Shared, path: &Path, time: Duration) -> io::Result<bool> {
        if self.0.is_none() {
            self.0 = open_watch(path).ok();
        }
        let Some(watch) = &self.0 else {
            stopped(shared, time)?;
            return Ok(false);
        };
        let [_, changed] = wait_readable([fd(&shared.stop), watch.as_fd()], Some(time))?;
        if changed {
            let mut buf = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(watch, &mut buf);
            while let Ok(event) = reader.next() {
                // The directory itself went: watch again from the start.
                if event.events().contains(inotify::ReadFlags::IGNORED) {
                    self.0 = None;
                    break;
                }
            }
        }
        Ok(changed)
    }
}

fn open_watch(path: &Path) -> io::Result<OwnedFd> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::ATTRIB
        | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&watch, dir, events)?;
    Ok(watch)
}

/// Serves one front end until it goes, misbehaves, or the port is closed.
fn session(shared: &Shared, stream: UnixStream, listener: Option<&UnixListener>) {
    shared.connections.fetch_add(1, Relaxed);
    shared.status().connected = true;
    shared.status().last_error = None;
    shared.info(format_args!("front end connected"));
    let result = Connection::new(stream, fd(&shared.stop))
        .map_err(ProtocolError::from)
        .and_then(|conn| Session::new(shared, conn).run(listener));
    let last_error = match result {
        Ok(()) | Err(ProtocolError::Closed) => {
            shared.info(format_args!("front end disconnected"));
            None
        }
        Err(e) => {
            shared.protocol_errors.fetch_add(1, Relaxed);
            shared.warn(format_args!("connection to the front end reset: {e}"));
            Some(e.to_string())
        }
    };
    *shared.status() = crate::Status { last_error, ..Default::default() };
    (shared.on_change)();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen};

    #[test]
    fn a_socket_whose_queue_is_full_is_somebodys() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let flags = SocketFlags::CLOEXEC;
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let busy = rustix::net::socket_with(family, kind, flags, None).expect("socket");
        bind(&busy, &SocketAddrUnix::new(&path).expect("short")).expect("binds");
        listen(&busy, 0).expect("listens");
        let mut queue = Vec::new();
        while let Ok(stream) = connect(&path) {
            queue.push(stream);
            assert!(queue.len() < 100, "a queue that is never full");
        }
        let refused = prepare(Mode::Server, &path).expect_err("taken").kind();
        assert_eq!(refused, ErrorKind::AddrInUse);
        assert!(path.exists());
        drop((queue, busy));
        assert!(prepare(Mode::Server, &path).expect("stale").is_some());
    }

    #[test]
    fn short_connections_wait_longer_and_longer() {
        let mut pause = BackOff::default();
        let short = SETTLED / 2;
        let waits: Vec<u128> =
            (0..12).map(|_| (pause.after(short), pause.0.as_millis()).1).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        pause.after(SETTLED);
        assert_eq!(pause.0, Duration::ZERO);
    }
}
