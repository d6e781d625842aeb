//! The server: one thread that waits for all sockets at once, reads whole messages, has them
//! answered by [`crate::service`] and sends what there is to send. No socket ever blocks it, so
//! half a message, garbage or a client that does not read concerns that client alone.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::file::{DbFile, FileError};
use crate::jsonrpc::Parser;
use crate::lock::ClientId;
use crate::schema::DatabaseSchema;
use crate::service::Service;
use crate::store::Store;

/// Most clients on the socket at a time; further ones are disconnected at once. A host has a
/// handful: the switch, a network agent or two, command lines. In-process clients do not count.
pub const MAX_CLIENTS: usize = 256;
/// With more than this many bytes waiting to be sent to a client, nothing more is read from it: it
/// has to read its replies before it can ask for more.
pub const READ_PAUSE_BYTES: usize = 1 << 20;
/// Bytes read from a client in its turn.
const READ_BYTES: usize = 64 << 10;
/// How long no connection is accepted after accepting has failed, for example for want of file
/// descriptors, which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: i32 = 64;
/// Mode of the socket: the owner and its group may configure the switch.
const SOCKET_MODE: Mode = Mode::from_raw_mode(0o770);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The socket cannot be listened on.
    #[error("{}: cannot listen: {source}", path.display())]
    Listen {
        /// Where the socket was to be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A schema built into this program is wrong.
    #[error("built-in schema: {0}")]
    Schema(#[from] crate::Error),
    /// The operating system gives no thread or file descriptor.
    #[error("cannot start the database server: {0}")]
    Io(#[from] io::Error),
}

/// A running server. Dropping it stops it: clients are disconnected, the socket is removed, the
/// file is closed.
#[derive(Debug)]
pub struct Server {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
    socket_path: PathBuf,
}

/// What other threads ask of the server's thread.
#[derive(Debug)]
struct Control {
    requests: Mutex<Requests>,
    /// Readable when there are requests.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Requests {
    stop: bool,
    new_clients: Vec<UnixStream>,
}

impl Control {
    fn request(&self, ask: impl FnOnce(&mut Requests)) {
        ask(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner));
        // Fails only when the counter is full, and then the thread wakes up anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn take(&self) -> Requests {
        let _ = rustix::io::read(&self.wake, &mut [0; 8][..]);
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Server {
    /// Opens the database in `db_file`, creating it with the built-in Open_vSwitch schema if there
    /// is none, and serves it, and `_Server`, on the unix socket `socket`. A stale socket there is
    /// replaced.
    ///
    /// # Errors
    /// Any [`StartError`]; an existing database file is unchanged then.
    pub fn start(db_file: &Path, socket: &Path) -> Result<Self, StartError> {
        let (file, db) = DbFile::open(db_file, &DatabaseSchema::open_vswitch()?)?;
        let server_db = Store::server(&[db.schema()])?;
        let service = Service::new(vec![Store::new(db, file), server_db]);
        let failed = |source| StartError::Listen { path: socket.to_owned(), source };
        let listener = listen(socket).map_err(failed)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(io::Error::from)?;
        let control = Arc::new(Control { requests: Mutex::default(), wake });
        let serving = Serving {
            service,
            listener,
            control: control.clone(),
            clients: BTreeMap::new(),
            next_id: 0,
            accept_after: None,
        };
        let thread = std::thread::Builder::new().name("ovsdb".into()).spawn(|| serving.run())?;
        Ok(Self { control, thread: Some(thread), socket_path: socket.to_owned() })
    }

    /// A connection to this server that needs no socket file, for its own process.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn connect_in_process(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.control.request(|requests| requests.new_clients.push(ours));
        Ok(theirs)
    }

    /// Stops the server, as dropping it does.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.request(|requests| requests.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = std::fs::remove_file(&self.socket_path);
            if thread.join().is_err() {
                tracing::error!("the database server's thread had panicked");
            }
        }
    }
}

/// Listens on a unix socket, replacing one that nobody serves any more.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "there is a file that is no socket",
            ));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            let text = "another process serves this socket; stop it or choose another one";
            return Err(io::Error::new(ErrorKind::AddrInUse, text));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let address = SocketAddrUnix::new(path).map_err(|_| {
        io::Error::new(ErrorKind::InvalidInput, "the path is longer than 107 bytes")
    })?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before it is bound, so that the file never has more than this mode, not even for a moment.
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// A client's connection.
struct Connection {
    stream: UnixStream,
    parser: Parser,
    /// There may be whole messages in `parser`, left there until replies have been read.
    stalled: bool,
    in_process: bool,
}

/// State of the server's thread.
struct Serving {
    service: Service,
    listener: UnixListener,
    control: Arc<Control>,
    clients: BTreeMap<ClientId, Connection>,
    next_id: ClientId,
    accept_after: Option<Instant>,
}

impl Serving {
    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!("database server: poll: {error}; stopping");
                    return;
                }
            };
            if ready.woken {
                let requests = self.control.take();
                if requests.stop {
                    return;
                }
                requests.new_clients.into_iter().for_each(|stream| self.admit(stream, true));
            }
            if ready.connection {
                self.accept();
            }
            for client in ready.clients {
                self.read(client);
            }
            self.service.expire(Instant::now());
            self.send_all();
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> rustix::io::Result<Ready> {
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|&after| after > now);
        let until = [self.service.next_deadline(), self.accept_after].into_iter().flatten().min();
        let timeout = until.map(|until| {
            // Rounded up, so as not to wake a moment too early and then spin.
            let left = until.saturating_duration_since(now) + Duration::from_millis(1);
            rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let accepting = self.accept_after.is_none();
        let listening = if accepting { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.control.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), listening),
        ];
        for (&id, client) in &self.clients {
            let backlog = self.service.output(id).map_or(0, |output| output.len());
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, backlog <= READ_PAUSE_BYTES);
            events.set(PollFlags::OUT, backlog > 0);
            fds.push(PollFd::from_borrowed_fd(client.stream.as_fd(), events));
        }
        poll(&mut fds, timeout.as_ref())?;
        // An error or a hang-up is found by reading.
        let readable = |fd: &PollFd<'_>| {
            fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        };
        let clients = self.clients.keys().zip(&fds[2..]).filter(|(_, fd)| readable(fd));
        Ok(Ready {
            woken: readable(&fds[0]),
            connection: accepting && readable(&fds[1]),
            clients: clients.map(|(&id, _)| id).collect(),
        })
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let others = self.clients.values().filter(|other| !other.in_process).count();
                    if others >= MAX_CLIENTS {
                        tracing::warn!("database server: {MAX_CLIENTS} clients, refusing another");
                    } else if stream.set_nonblocking(true).is_ok() {
                        self.admit(stream, false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!("database server: cannot accept a connection: {error}");
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, in_process: bool) {
        let id = self.next_id;
        self.next_id += 1;
        self.service.connect(id);
        self.clients
            .insert(id, Connection { stream, parser: Parser::new(), stalled: false, in_process });
    }

    fn drop_client(&mut self, id: ClientId) {
        self.clients.remove(&id);
        self.service.disconnect(id);
    }

    /// Reads from a client once and handles the messages that are complete.
    fn read(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mut chunk = [0; READ_BYTES];
        match client.stream.read(&mut chunk) {
            Ok(0) => return self.drop_client(id),
            Ok(n) => client.parser.feed(&chunk[..n]),
            Err(error) if is_transient(&error) => return,
            Err(error) => {
                tracing::debug!("database client {id}: {error}");
                return self.drop_client(id);
            }
        }
        self.handle_messages(id);
    }

    /// Handles a client's complete messages, until too many replies wait to be sent.
    fn handle_messages(&mut self, id: ClientId) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            let backlog = self.service.output(id).map_or(0, |output| output.len());
            client.stalled = backlog > READ_PAUSE_BYTES;
            if client.stalled {
                return;
            }
            match client.parser.next() {
                Ok(Some(message)) => self.service.handle(id, message, Instant::now()),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!("database client {id}: {error}; disconnecting it");
                    return self.drop_client(id);
                }
            }
        }
    }

    /// Sends to every client what its socket takes.
    fn send_all(&mut self) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in ids {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let Some(output) = self.service.output(id) else { continue };
            let sent = send_some(&mut client.stream, output);
            if let Err(error) = &sent {
                tracing::debug!("database client {id}: {error}");
            }
            if sent.is_err() || self.service.is_hopeless(id) {
                self.drop_client(id);
            } else if client.stalled {
                // What this adds to the output is sent when the socket has been polled again.
                self.handle_messages(id);
            }
        }
    }
}

/// What [`Serving::wait`] found.
struct Ready {
    woken: bool,
    connection: bool,
    clients: Vec<ClientId>,
}

fn send_some(stream: &mut UnixStream, output: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    let result = loop {
        if sent == output.len() {
            break Ok(());
        }
        match stream.write(&output[sent..]) {
            Ok(0) => break Err(ErrorKind::WriteZero.into()),
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    output.drain(..sent);
    if output.is_empty() {
        // A large reply is not to hold memory for as long as its client stays connected.
        output.shrink_to(READ_BYTES);
    }
    result
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
