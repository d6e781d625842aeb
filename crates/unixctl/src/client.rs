//! The calling side: one connection, one call at a time.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::message;

/// Largest reply accepted. A dump of a million flows at 300 bytes each fits; a peer that never
/// stops sending does not fill the memory.
const REPLY_BYTES_MAX: u64 = 512 << 20;

/// A call on the wire; it borrows, since a parameter may be a file of 100 MB.
#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    method: &'a str,
    params: &'a [String],
}

/// Why a call got no answer from a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke or timed out.
    #[error("{method}: the connection failed: {source}")]
    Io {
        /// The command being called.
        method: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server went away before answering, as it does after `exit`.
    #[error("{method}: the server closed the connection without answering")]
    Closed {
        /// The command being called.
        method: String,
    },
    /// The peer does not speak unixctl.
    #[error("{method}: the server's reply is not a unixctl reply: {what}")]
    Protocol {
        /// The command being called.
        method: String,
        /// What is wrong with the reply.
        what: String,
    },
}

/// A connection to a unixctl server.
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Client {
    /// Connects to the socket at `path`. Calls wait for their answer without limit.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client, Error> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path)
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        Ok(Client { stream: BufReader::new(stream), next_id: 0 })
    }

    /// From now on a call fails when the server is silent for `timeout` (`None`: never; zero is
    /// taken as one millisecond).
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|t| t.max(Duration::from_millis(1)));
        self.stream.get_ref().set_read_timeout(timeout)?;
        self.stream.get_ref().set_write_timeout(timeout)
    }

    /// Calls `method`. The inner result is the server's: its text, or its error text.
    pub fn call(
        &mut self,
        method: &str,
        params: &[String],
    ) -> Result<Result<String, String>, Error> {
        let io_error = |source| Error::Io { method: method.to_owned(), source };
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let request = Request { id, method, params };
        message::write(self.stream.get_mut(), &request).map_err(io_error)?;
        match message::read(&mut self.stream, REPLY_BYTES_MAX) {
            Ok(Some(reply)) => parse_reply(reply, id)
                .map_err(|what| Error::Protocol { method: method.to_owned(), what }),
            Ok(None) => Err(Error::Closed { method: method.to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(Error::Protocol { method: method.to_owned(), what: e.to_string() })
            }
            Err(source) => Err(io_error(source)),
        }
    }
}

fn parse_reply(mut reply: Value, id: u64) -> Result<Result<String, String>, String> {
    if reply.get("id") != Some(&Value::from(id)) {
        return Err("it answers another request".to_owned());
    }
    match (reply["result"].take(), reply["error"].take()) {
        (Value::String(text), Value::Null) => Ok(Ok(text)),
        (Value::Null, Value::String(text)) => Ok(Err(text)),
        _ => Err("it carries neither a result nor an error text".to_owned()),
    }
}
