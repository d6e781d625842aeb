//! The connection to the database: made again whenever it is lost, without holding up the main thread.

use crate::daemon::Event;
use crate::desired::SELECTION;
use crate::report;
use crate::startfile::StartFile;
use ovsdb::client::{Client, ClientError};
use ovsdb::replica::Replica;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The lock that keeps two daemons from following one database, and its name in OVS.
pub(crate) const LOCK: &str = "ovs_vswitchd";
/// Updates to take in before the connection goes to its thread; a client that changes the database
/// all the time must not keep the daemon from starting.
const FIRST_UPDATES_MAX: usize = 1000;
/// How long the update with a row that another client made may take to come.
const ROW_LIMIT: Duration = Duration::from_secs(5);

/// Where the database is.
pub(crate) enum Source {
    /// Served by this process.
    Own(ovsdb::server::Server),
    /// Served by another one, on this socket.
    Remote(PathBuf),
}

/// A connection to the database, with a copy of what the daemon follows.
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) replica: Replica,
    /// We hold [`LOCK`].
    pub(crate) active: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The database cannot be reached or makes no sense: to be tried again.
    Database(ClientError),
    /// The start file does not fit the database: to be put right by a person.
    StartFile(anyhow::Error),
}

impl<E: Into<ClientError>> From<E> for Failed {
    fn from(e: E) -> Self {
        Failed::Database(e.into())
    }
}

/// An attempt to connect.
pub(crate) struct Attempt {
    pub(crate) number: u64,
    /// A stream to our own server, or the path of another's.
    target: Result<UnixStream, PathBuf>,
    start: Option<Arc<StartFile>>,
}

impl Attempt {
    /// The next attempt, `number` of all. `start` is applied if it succeeds.
    pub(crate) fn new(
        source: &Source,
        number: u64,
        start: Option<Arc<StartFile>>,
    ) -> std::io::Result<Attempt> {
        let target = match source {
            Source::Own(server) => Ok(server.connect_in_process()?),
            Source::Remote(path) => Err(path.clone()),
        };
        Ok(Attempt { number, target, start })
    }

    /// Connects and makes the copy; what comes later goes to `events`. Waits for the server, which
    /// may take long.
    pub(crate) fn run(self, events: Sender<Event>) -> Result<Link, Failed> {
        let own = self.target.is_ok();
        let client = match self.target {
            Ok(stream) => Client::from_stream(stream)?,
            Err(path) => Client::connect(path)?,
        };
        let mut replica = Replica::start(client, "Open_vSwitch", SELECTION)?;
        let active = replica.lock(LOCK)?;
        if own {
            let operations = report::root_operations(&replica);
            match apply(&mut replica, operations) {
                // A client that was faster made the row: it comes as an update.
                Err(ClientError::Server { .. }) if replica.next_update(Some(ROW_LIMIT))? => {}
                other => other?,
            }
        }
        if let Some(start) = &self.start {
            let operations = start.operations(&replica).map_err(Failed::StartFile)?;
            apply(&mut replica, operations).map_err(|e| match e {
                ClientError::Server { .. } => Failed::StartFile(e.into()),
                other => other.into(),
            })?;
        }
        let number = self.number;
        replica.read_in_thread(move |m| events.send(Event::Db(number, m)).is_ok())?;
        Ok(Link { number, replica, active })
    }

    /// As [`Attempt::run`] in a thread of its own, which sends [`Event::Connected`].
    pub(crate) fn run_in_thread(self, events: Sender<Event>) -> std::io::Result<()> {
        let run = move || {
            let link = self.run(events.clone()).map(Box::new);
            let _ = events.send(Event::Connected(link));
        };
        std::thread::Builder::new().name("database".into()).spawn(run).map(drop)
    }
}

/// Runs operations, with their effect on the copy: a server sends updates before the reply to the
/// transaction that caused them (RFC 7047, section 4.1.6).
fn apply(replica: &mut Replica, operations: Vec<serde_json::Value>) -> Result<(), ClientError> {
    if operations.is_empty() {
        return Ok(());
    }
    replica.transact(operations)?;
    for _ in 0..FIRST_UPDATES_MAX {
        if !replica.next_update(Some(Duration::ZERO))? {
            break;
        }
    }
    Ok(())
}
