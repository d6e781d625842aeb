//! A blocking OVSDB client over a Unix socket (RFC 7047, section 4).
//!
//! It is used in one of two ways. A short program calls and waits: [`Client::call`],
//! [`Client::next_notification`]. A daemon, which must wait for other things too, lets a thread
//! read ([`Client::read_in_thread`]) and takes the messages from its own channel; its calls then
//! are [`Client::send`], and the replies come with the other messages.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Error;
use crate::jsonrpc::{Connection, Message, ProtocolError};

/// A server that takes nothing for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call waits for its reply unless [`Client::set_call_timeout`] says otherwise.
/// A server compacting a large database file answers after some seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Notifications kept while waiting for a reply. Servers merge updates for slow clients, so more
/// means that the peer does not behave.
const NOTIFICATIONS_MAX: usize = 10_000;

/// Why a client cannot go on, or a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke or carried something that is no OVSDB message.
    #[error("connection to the database: {0}")]
    Protocol(#[from] ProtocolError),
    /// The server answered a call with an error.
    #[error("{method}: {error}")]
    Server {
        /// The method called.
        method: String,
        /// What the server said.
        error: Error,
    },
    /// No reply in time.
    #[error("{method}: no reply from the database within {} s", .timeout.as_secs_f32())]
    TimedOut {
        /// The method called.
        method: String,
        /// How long it waited.
        timeout: Duration,
    },
    /// The server's answer is not what the protocol says.
    #[error("the database server sent {0}")]
    Unexpected(String),
    /// A thread reads this connection, so nobody can wait on it.
    #[error("this connection is read by a thread of its own; its replies arrive there")]
    ReadElsewhere,
}

impl ClientError {
    /// True if the connection is of no use any more and the owner should connect anew.
    pub fn should_reconnect(&self) -> bool {
        !matches!(self, Self::Server { .. } | Self::ReadElsewhere)
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Protocol(error.into())
    }
}

/// Both directions of the socket. A message is written whole even where the reading thread
/// answers an `echo` while the owner sends.
#[derive(Clone, Debug)]
struct Stream {
    read: Arc<UnixStream>,
    write: Arc<Mutex<UnixStream>>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.read).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    /// Holds the lock for all of `bytes`, which is what keeps messages whole.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection to an OVSDB server.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// `None` while a thread reads.
    connection: Option<Connection<Stream>>,
    notifications: VecDeque<Message>,
    next_id: u64,
    call_timeout: Option<Duration>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let connect_error = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(connect_error)?;
        Self::from_stream(stream).map_err(connect_error)
    }

    /// A client over a connected stream.
    ///
    /// # Errors
    /// That of setting up the socket.
    pub fn from_stream(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let write = Arc::new(Mutex::new(stream.try_clone()?));
        let stream = Stream { read: Arc::new(stream), write };
        Ok(Self {
            connection: Some(Connection::new(stream.clone())),
            stream,
            notifications: VecDeque::new(),
            next_id: 0,
            call_timeout: Some(CALL_TIMEOUT),
        })
    }

    /// How long calls wait for their reply from now on; `None` for ever. 30 s at first.
    pub fn set_call_timeout(&mut self, timeout: Option<Duration>) {
        self.call_timeout = timeout;
    }

    /// Sends a call and gives its number, which the reply will carry as `id`.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the server takes nothing.
    pub fn send(&mut self, method: &str, params: Value) -> Result<u64, ClientError> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let request = Message::Request { id: json!(id), method: method.to_owned(), params };
        self.stream.write_all(&request.to_bytes())?;
        Ok(id)
    }

    /// Calls `method` and waits for its reply. Notifications that come first are kept for
    /// [`Client::next_notification`].
    ///
    /// # Errors
    /// [`ClientError::Server`] when the server refuses, the others when the connection is lost.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        let id = self.send(method, params)?;
        let deadline = self.call_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let Some(message) = self.receive(deadline)? else {
                let timeout = self.call_timeout.unwrap_or_default();
                return Err(ClientError::TimedOut { method: method.to_owned(), timeout });
            };
            match message {
                Message::Reply { id: got, result } if got == json!(id) => return Ok(result),
                Message::Error { id: got, error } if got == json!(id) => {
                    return Err(server_error(method, &error));
                }
                // A reply to a call that had timed out.
                Message::Reply { .. } | Message::Error { .. } => {}
                other if self.notifications.len() < NOTIFICATIONS_MAX => {
                    self.notifications.push_back(other);
                }
                _ => return Err(ClientError::Unexpected("too many notifications".to_owned())),
            }
        }
    }

    /// Runs `operations` as one transaction on the database called `database` and gives their
    /// results, one for each.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ClientError::Server`] also when an operation or the commit failed.
    pub fn transact(
        &mut self,
        database: &str,
        operations: Vec<Value>,
    ) -> Result<Vec<Value>, ClientError> {
        let reply = self.call("transact", transact_params(database, operations))?;
        transact_results(reply)
    }

    /// The next notification (`update`, `locked`, …); `None` if none came within `timeout`
    /// (`None` waits for ever).
    ///
    /// # Errors
    /// As [`Client::call`], when the connection is lost.
    pub fn next_notification(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Option<Message>, ClientError> {
        if let Some(message) = self.notifications.pop_front() {
            return Ok(Some(message));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            match self.receive(deadline)? {
                Some(Message::Reply { .. } | Message::Error { .. }) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next message; `None` at the deadline.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<Message>, ClientError> {
        let connection = self.connection.as_mut().ok_or(ClientError::ReadElsewhere)?;
        // A zero timeout would mean none to the system.
        let left = deadline.map(|deadline| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
        });
        connection.stream().read.set_read_timeout(left)?;
        match connection.receive() {
            Ok(message) => Ok(Some(message)),
            Err(ProtocolError::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// From now on a thread reads the connection and gives each message to `deliver`, first those
    /// already kept, and at the end the error that ended it. It stops early when `deliver` says
    /// `false`. The thread ends with the connection, at the latest when the client is dropped.
    ///
    /// # Errors
    /// [`ClientError::ReadElsewhere`] the second time; that of starting a thread.
    pub fn read_in_thread(
        &mut self,
        mut deliver: impl FnMut(Result<Message, ClientError>) -> bool + Send + 'static,
    ) -> Result<(), ClientError> {
        let mut connection = self.connection.take().ok_or(ClientError::ReadElsewhere)?;
        let kept = std::mem::take(&mut self.notifications);
        connection.stream().read.set_read_timeout(None)?;
        let run = move || {
            let mut go_on = kept.into_iter().all(|message| deliver(Ok(message)));
            while go_on {
                let message = connection.receive().map_err(ClientError::from);
                let ended = message.is_err();
                go_on = deliver(message) && !ended;
            }
        };
        thread::Builder::new().name("ovsdb-client".to_owned()).spawn(run)?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Also wakes the reading thread.
        let _ = self.stream.read.shutdown(std::net::Shutdown::Both);
    }
}

/// Arguments of `transact`.
pub(crate) fn transact_params(database: &str, operations: Vec<Value>) -> Value {
    let mut params = vec![Value::from(database)];
    params.extend(operations);
    Value::Array(params)
}

/// The results of the operations in a reply to `transact` (RFC 7047, section 4.1.3): the first
/// error among them is that of the transaction.
///
/// # Errors
/// [`ClientError::Server`] for that error, [`ClientError::Unexpected`] for another kind of reply.
pub fn transact_results(reply: Value) -> Result<Vec<Value>, ClientError> {
    let Value::Array(results) = reply else {
        return Err(ClientError::Unexpected("a reply to transact that is not a list".to_owned()));
    };
    match results.iter().find(|result| result.get("error").is_some_and(|e| !e.is_null())) {
        Some(error) => Err(server_error("transact", error)),
        None => Ok(results),
    }
}

fn server_error(method: &str, error: &Value) -> ClientError {
    match Error::from_json(error) {
        Some(error) => ClientError::Server { method: method.to_owned(), error },
        None => ClientError::Unexpected(format!("an error without text to {method}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A client and the other end of its stream.
    fn pair() -> (Client, Connection<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::from_stream(ours).unwrap(), Connection::new(theirs))
    }

    fn update(n: i64) -> Message {
        Message::Notification { method: "update".to_owned(), params: json!([n]) }
    }

    #[test]
    fn calls_skip_notifications_which_come_later() {
        let (mut client, mut server) = pair();
        let serve = thread::spawn(move || {
            let echo = |n: i64| Message::Request {
                id: json!(n),
                method: "echo".to_owned(),
                params: json!([n]),
            };
            server.send(&update(1)).unwrap();
            server.send(&echo(7)).unwrap();
            assert!(matches!(server.receive().unwrap(), Message::Request { .. }));
            server.send(&update(2)).unwrap();
            server.send(&Message::Reply { id: json!(0), result: json!(["db"]) }).unwrap();
            let expect = Message::Reply { id: json!(7), result: json!([7]) };
            assert_eq!(server.receive().unwrap(), expect);
            server
        });
        assert_eq!(client.call("list_dbs", json!([])).unwrap(), json!(["db"]));
        assert_eq!(client.next_notification(None).unwrap(), Some(update(1)));
        assert_eq!(client.next_notification(None).unwrap(), Some(update(2)));
        let none = client.next_notification(Some(Duration::from_millis(1)));
        assert!(matches!(none, Ok(None)), "{none:?}");
        drop(serve.join().unwrap());
    }

    #[test]
    fn errors_are_told_apart() {
        let (mut client, mut server) = pair();
        client.set_call_timeout(Some(Duration::from_millis(20)));
        let error = client.call("get_schema", json!([])).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
        client.set_call_timeout(None);
        // The late reply to the first call is not taken for one to the second.
        server.send(&Message::Reply { id: json!(0), result: json!([]) }).unwrap();
        let results = json!([{}, {"error": "constraint violation", "details": "no"}]);
        server.send(&Message::Reply { id: json!(1), result: results }).unwrap();
        let error = client.transact("db", vec![json!({}), json!({})]).unwrap_err();
        assert!(!error.should_reconnect());
        assert_eq!(error.to_string(), "transact: constraint violation: no");
        drop(server);
        assert!(client.call("echo", json!([])).unwrap_err().should_reconnect());
    }

    #[test]
    fn a_thread_delivers_what_was_kept_then_what_comes_then_the_end() {
        let (mut client, mut server) = pair();
        server.send(&update(1)).unwrap();
        server.send(&Message::Reply { id: json!(0), result: json!(null) }).unwrap();
        client.call("x", json!([])).unwrap();
        let (tell, told) = mpsc::channel();
        client.read_in_thread(move |message| tell.send(message).is_ok()).unwrap();
        let id = client.send("transact", json!(["db"])).unwrap();
        server.send(&Message::Reply { id: json!(id), result: json!([]) }).unwrap();
        assert_eq!(told.recv().unwrap().unwrap(), update(1));
        let reply = told.recv().unwrap().unwrap();
        assert_eq!(reply, Message::Reply { id: json!(1), result: json!([]) });
        assert!(matches!(client.call("x", json!([])), Err(ClientError::ReadElsewhere)));
        drop(client);
        assert!(told.recv().unwrap().is_err());
        assert!(told.recv().is_err());
    }
}
