//! The answering side: a listening socket, one thread for each client.
//!
//! A client can stall only itself: it has its own thread, a bound on what it sends, a time limit on
//! taking its answers, and when all places are taken the one that has been silent longest goes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::{Commands, message};

/// Clients served at once. People and scripts use one or two; each costs a thread.
const CLIENTS_MAX: usize = 32;
/// Connections the kernel keeps waiting for `accept`; more than clients are served at once.
const BACKLOG: i32 = 64;
/// Largest request: a flow file of a million lines of 250 bytes travels as one parameter, so that it
/// is applied whole or not at all. Who may connect may configure everything anyway.
const REQUEST_BYTES_MAX: u64 = 256 << 20;
/// Stack of a thread that runs commands, in bytes: as much as a process's first thread has, which is
/// what commands that follow flow tables need. Pages that are not touched cost nothing.
const STACK_BYTES: usize = 8 << 20;
/// A client that takes none of its answer for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server being dropped waits for answers still on their way.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Owner and group may connect, as with the control sockets of OVS.
const SOCKET_MODE: u32 = 0o770;
/// Pause after `accept` failed for lack of descriptors or memory: no busy loop meanwhile.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A running server. Dropping it closes all connections and removes the socket.
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    listener: UnixListener,
    commands: Commands,
    clients: Mutex<Clients>,
    /// Signalled when a client has left.
    left: Condvar,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Clients {
    next_id: u64,
    by_id: BTreeMap<u64, Connected>,
}

struct Connected {
    stream: UnixStream,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Nothing to do for it since then: it may lose its place.
    Idle(Instant),
    /// A command of it runs.
    Running,
    /// It has not taken its answer yet: it may lose its place too.
    Answering(Instant),
}

impl Server {
    /// Listens on `path` and answers `commands` from threads of its own.
    ///
    /// A socket left behind by a process that died is replaced. Fails where another process
    /// listens on it, where `path` is something else than a socket, or where it is longer than
    /// the 107 bytes a Unix socket address holds.
    pub fn bind(path: impl AsRef<Path>, commands: Commands) -> io::Result<Server> {
        let path = path.as_ref();
        let shared = Arc::new(Shared {
            listener: listen(path)?,
            commands,
            clients: Mutex::default(),
            left: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("unixctl".to_owned())
            .spawn(move || accept_clients(&for_thread))?;
        Ok(Server { path: path.to_owned(), shared, acceptor: Some(acceptor) })
    }

    /// The socket listened on.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = fs::remove_file(&self.path);
        // Wakes the acceptor: accept() fails on a socket that was shut down.
        let _ = rustix::net::shutdown(&self.shared.listener, Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let clients = self.shared.lock_clients();
        for client in clients.by_id.values() {
            let _ = client.stream.shutdown(match client.state {
                State::Idle(_) => std::net::Shutdown::Both,
                State::Running | State::Answering(_) => std::net::Shutdown::Read,
            });
        }
        // A client whose command still runs is often the very one that stops the process: it gets
        // its answer, and its thread ends by itself after that.
        let wait = self
            .shared
            .left
            .wait_timeout_while(clients, LAST_ANSWER_TIMEOUT, |clients| !clients.by_id.is_empty());
        drop(wait);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before bind(), so that the socket file never exists with wider permissions.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
    match rustix::net::bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) => {
            remove_stale(path)?;
            rustix::net::bind(&socket, &address)?;
        }
        other => other?,
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| {
        let text = format!("{}: {what}", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    };
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("exists and is not a socket; remove it or choose another place");
    }
    match UnixStream::connect(path) {
        Ok(_) => in_use("another running process listens on this socket"),
        Err(_) => fs::remove_file(path),
    }
}

fn accept_clients(shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let admitted = shared.listener.accept().and_then(|(stream, _)| admit(shared, stream));
        if admitted.is_err() && !shared.stopping.load(Ordering::SeqCst) {
            thread::sleep(ACCEPT_RETRY);
        }
    }
}

/// Gives the client a place and a thread; without a place the connection is closed.
fn admit(shared: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let Some(id) = shared.enter(stream.try_clone()?) else {
        return Ok(());
    };
    let for_thread = Arc::clone(shared);
    let named = thread::Builder::new().name("unixctl-client".to_owned());
    let spawned = named.stack_size(STACK_BYTES).spawn(move || {
        let _place = Place { shared: &for_thread, id };
        // How the connection ended is the client's business: there is nobody else to tell.
        let _ = serve(&for_thread, id, stream);
    });
    spawned.map(drop).inspect_err(|_| shared.leave(id))
}

/// A client's place, left even if its command panics: otherwise the client would wait for ever.
struct Place<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

fn serve(shared: &Shared, id: u64, stream: UnixStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = message::read(&mut stream, REQUEST_BYTES_MAX)? {
        let request = Request::parse(request)?;
        shared.set_state(id, State::Running);
        let answer = match request.params {
            Ok(params) => shared.commands.run(&request.method, &params),
            Err(text) => Err(text),
        };
        let reply = match answer {
            Ok(text) => json!({"id": request.id, "result": with_newline(text), "error": null}),
            Err(text) => json!({"id": request.id, "result": null, "error": with_newline(text)}),
        };
        shared.set_state(id, State::Answering(Instant::now()));
        message::write(stream.get_mut(), &reply)?;
        shared.set_state(id, State::Idle(Instant::now()));
    }
    Ok(())
}

/// Clients print the text as it comes, so each that is not empty ends its line.
fn with_newline(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

struct Request {
    id: Value,
    method: String,
    params: Result<Vec<String>, String>,
}

impl Request {
    /// Refuses what is no request at all; wrong parameters get an answer instead.
    fn parse(mut message: Value) -> io::Result<Request> {
        let id = message["id"].take();
        let Value::String(method) = message["method"].take() else {
            return Err(message::invalid("a request needs a method"));
        };
        let Value::Array(params) = message["params"].take() else {
            return Err(message::invalid("a request needs a list of parameters"));
        };
        let params = params
            .into_iter()
            .map(|p| match p {
                Value::String(text) => Ok(text),
                _ => Err(format!("\"{method}\" command has non-string argument")),
            })
            .collect();
        Ok(Request { id, method, params })
    }
}

impl Shared {
    /// The lock guards plain data that is valid after every statement, so a panic of another
    /// holder does no harm.
    fn lock_clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, id: u64, state: State) {
        if let Some(client) = self.lock_clients().by_id.get_mut(&id) {
            client.state = state;
        }
    }

    fn leave(&self, id: u64) {
        self.lock_clients().by_id.remove(&id);
        self.left.notify_all();
    }

    /// Takes a place for a new client, sending away the one that has been silent longest if all are
    /// taken. `None`: every place has a command running.
    fn enter(&self, stream: UnixStream) -> Option<u64> {
        let mut clients = self.lock_clients();
        if clients.by_id.len() >= CLIENTS_MAX {
            let silent = clients.by_id.iter().filter_map(|(id, client)| match client.state {
                State::Idle(since) | State::Answering(since) => Some((since, *id)),
                State::Running => None,
            });
            let (_, oldest) = silent.min()?;
            let gone = clients.by_id.remove(&oldest)?;
            // Its thread notices and ends.
            let _ = gone.stream.shutdown(std::net::Shutdown::Both);
        }
        let id = clients.next_id;
        clients.next_id += 1;
        clients.by_id.insert(id, Connected { stream, state: State::Idle(Instant::now()) });
        Some(id)
    }
}

#[cfg(test)]
mod tests;
