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
use tracing::{info, warn};
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
/// A connection that lasted less than this counts as another failed attempt.
const SETTLED: Duration = Duration::from_secs(1);

/// Binds the listening socket, if this side listens. A stale socket file is replaced.
pub(crate) fn prepare(mode: Mode, path: &Path) -> io::Result<Option<UnixListener>> {
    if mode == Mode::Client {
        return Ok(None);
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            let why = format!("{}: another process listens on this socket", path.display());
            return Err(io::Error::new(ErrorKind::AddrInUse, why));
        }
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
    let mut wait = Duration::ZERO;
    loop {
        // A peer that connects and fails again and again must not keep us busy with that.
        if stopped(shared, wait)? {
            return Ok(());
        }
        let [stop, _] = wait_readable([fd(&shared.stop), listener.as_fd()], None)?;
        if stop {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let start = Instant::now();
                let failed = session(shared, stream, Some(listener));
                wait = match failed && start.elapsed() < SETTLED {
                    true => (wait * 2).clamp(Duration::from_millis(1), RETRY_MAX),
                    false => Duration::ZERO,
                };
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => {
                warn!("{}: accept: {e}", shared.name);
                if stopped(shared, RETRY_MAX)? {
                    return Ok(());
                }
            }
        }
    }
}

fn keep_connecting(shared: &Shared, path: &Path) -> io::Result<()> {
    let mut wait = Duration::ZERO;
    let mut told = None;
    let mut watch = Watch::default();
    loop {
        if watch.wait(shared, path, wait)? {
            wait = Duration::ZERO;
        }
        if stopped(shared, Duration::ZERO)? {
            return Ok(());
        }
        match connect(path) {
            Ok(stream) => {
                told = None;
                let start = Instant::now();
                session(shared, stream, None);
                if start.elapsed() >= SETTLED {
                    wait = Duration::ZERO;
                }
            }
            Err(e) if told != Some(e.kind()) => {
                info!("{}: {}: {e}; waiting for the front end", shared.name, path.display());
                told = Some(e.kind());
            }
            Err(_) => {}
        }
        wait = (wait * 2).clamp(Duration::from_millis(1), RETRY_MAX);
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

/// Serves one front end until it goes, misbehaves, or the port is closed. True if it misbehaved.
fn session(shared: &Shared, stream: UnixStream, listener: Option<&UnixListener>) -> bool {
    shared.connections.fetch_add(1, Relaxed);
    shared.status().connected = true;
    shared.status().last_error = None;
    info!("{}: front end connected", shared.name);
    let result = Connection::new(stream, fd(&shared.stop))
        .map_err(ProtocolError::from)
        .and_then(|conn| Session::new(shared, conn).run(listener));
    let last_error = match result {
        Ok(()) | Err(ProtocolError::Closed) => {
            info!("{}: front end disconnected", shared.name);
            None
        }
        Err(e) => {
            shared.protocol_errors.fetch_add(1, Relaxed);
            warn!("{}: connection to the front end reset: {e}", shared.name);
            Some(e.to_string())
        }
    };
    let failed = last_error.is_some();
    *shared.status() = crate::Status { last_error, ..Default::default() };
    (shared.on_change)();
    failed
}
