//! The daemon's main thread: starts everything, then follows the database until told to stop.

use crate::commands;
use crate::desired::{Desired, SELECTION};
use crate::options::Options;
use crate::process::{self, PidFile};
use crate::switch::Switch;
use crate::{log, report, startfile};
use anyhow::{Context, Result, bail};
use ovsdb::client::{Client, ClientError};
use ovsdb::jsonrpc::Message;
use ovsdb::replica::{Event as DbEvent, Replica};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// The lock that keeps two daemons from following one database.
const LOCK: &str = "ovs_vswitchd";
/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often statistics are written, in milliseconds: the default, and the least that
/// `other_config:stats-update-interval` may say, of OVS.
const STATS_MS: u64 = 5000;
/// How long a lost database is waited for before the next attempt.
const RECONNECT: Duration = Duration::from_secs(1);
/// Configuration changes that come together are followed together.
const BATCH: usize = 1000;

/// What the main thread waits for.
pub(crate) enum Event {
    /// A message from connection number so and so to the database, or its end.
    Db(u64, Result<Message, ClientError>),
    /// An interface's state changed.
    Interface,
    /// To end.
    Stop(&'static str),
}

/// The switch, as threads that answer commands share it with the main thread.
pub(crate) type Shared = Arc<Mutex<Switch>>;

pub(crate) fn locked(switch: &Shared) -> MutexGuard<'_, Switch> {
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the database is.
enum Source {
    /// Served by this process.
    Own(ovsdb::server::Server),
    /// Served by another one.
    Remote(PathBuf),
}

/// Runs the daemon until it is told to stop.
pub(crate) fn run(options: &Options) -> Result<()> {
    process::leave_session();
    let rundir = &options.rundir;
    std::fs::create_dir_all(rundir).with_context(|| format!("{}", rundir.display()))?;
    log::start(options.log_file.as_deref())?;
    let start = options.config.as_deref().map(startfile::read).transpose()?;
    let _pid = PidFile::create(&options.pid_file())?;
    let source = open_source(options)?;
    let (events, inbox) = channel();
    stop_on_signals(events.clone())?;
    let from_interfaces = Mutex::new(events.clone());
    let notify = Arc::new(move || {
        let sender = from_interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sender.send(Event::Interface);
    });
    let switch = Arc::new(Mutex::new(Switch::new(rundir.clone(), notify)?));
    let control = rundir.join(format!("vswitchd.{}.ctl", std::process::id()));
    let stop = events.clone();
    let _unixctl = unixctl::Server::bind(&control, commands::all(&switch, stop))
        .with_context(|| format!("{}", control.display()))?;
    info!("vswitchd {} started, run directory {}", env!("CARGO_PKG_VERSION"), rundir.display());
    let mut main = Main { source, events, switch, link: None, links: 0, ready: false };
    main.connect(start)?;
    main.run(&inbox)
}

fn open_source(options: &Options) -> Result<Source> {
    let Some(remote) = &options.ovsdb else {
        let server =
            ovsdb::server::Server::start(&options.db_file(), &options.rundir.join("db.sock"))?;
        return Ok(Source::Own(server));
    };
    match remote.strip_prefix("unix:") {
        Some(path) => Ok(Source::Remote(path.into())),
        None => bail!("--ovsdb {remote}: only unix:PATH is supported"),
    }
}

fn stop_on_signals(events: Sender<Event>) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            let _ = events.send(Event::Stop("signal"));
        }
    })?;
    Ok(())
}

/// A connection to the database.
struct Link {
    number: u64,
    replica: Replica,
    active: bool,
}

struct Main {
    source: Source,
    events: Sender<Event>,
    switch: Shared,
    link: Option<Link>,
    /// Connections made so far.
    links: u64,
    ready: bool,
}

impl Main {
    /// Connects to the database and makes a copy of it, with a start file applied.
    fn connect(&mut self, start: Option<startfile::StartFile>) -> Result<()> {
        let client = match &self.source {
            Source::Own(server) => Client::from_stream(server.connect_in_process()?)?,
            Source::Remote(path) => Client::connect(path)?,
        };
        let mut replica = Replica::start(client, "Open_vSwitch", SELECTION)?;
        let active = replica.lock(LOCK)?;
        if !active {
            warn!("another vswitchd process is running, waiting until it ends");
        }
        if matches!(self.source, Source::Own(_)) {
            let operations = report::root_operations(&replica);
            apply(&mut replica, operations)?;
        }
        if let Some(start) = start {
            let operations = start.operations(&replica)?;
            apply(&mut replica, operations).context("applying the start file")?;
        }
        self.links += 1;
        let (number, events) = (self.links, self.events.clone());
        replica.read_in_thread(move |m| events.send(Event::Db(number, m)).is_ok())?;
        self.link = Some(Link { number, replica, active });
        Ok(())
    }

    fn run(&mut self, inbox: &Receiver<Event>) -> Result<()> {
        let mut ticked = Instant::now();
        let mut wrote_stats = Instant::now();
        let mut lost = Instant::now();
        self.follow()?;
        loop {
            let (mut config, mut state) = (false, false);
            let wait = TICK.saturating_sub(ticked.elapsed());
            let mut next = match inbox.recv_timeout(wait) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for _ in 0..BATCH {
                match next {
                    Some(Event::Stop(why)) => {
                        info!("stopping: {why}");
                        return Ok(());
                    }
                    Some(Event::Interface) => state = true,
                    Some(Event::Db(number, message)) => config |= self.handle(number, message),
                    None => break,
                }
                next = inbox.try_recv().ok();
            }
            if let Some(Event::Stop(why)) = next {
                info!("stopping: {why}");
                return Ok(());
            }
            if self.link.is_none() && lost.elapsed() >= RECONNECT {
                lost = Instant::now();
                match self.connect(None) {
                    Ok(()) => config = true,
                    Err(e) => info!("database: {e:#}"),
                }
            }
            if state {
                locked(&self.switch).queues_changed();
            }
            if config {
                self.follow()?;
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                locked(&self.switch).tick();
                state = true;
            }
            let interval = locked(&self.switch).desired.number("stats-update-interval");
            let due = Duration::from_millis(interval.unwrap_or(0).max(STATS_MS));
            let statistics = wrote_stats.elapsed() >= due;
            if statistics {
                wrote_stats = Instant::now();
            }
            if state || statistics {
                self.report(statistics);
            }
        }
    }

    /// Takes a message from the database; true if the configuration may have changed.
    fn handle(&mut self, number: u64, message: Result<Message, ClientError>) -> bool {
        let Some(link) = self.link.as_mut().filter(|l| l.number == number) else { return false };
        match message.and_then(|m| link.replica.handle(m)) {
            Ok(DbEvent::Updated) => true,
            Ok(DbEvent::Lock(name, held)) if name == LOCK => {
                link.active = held;
                info!("{} the lock on the database", if held { "got" } else { "lost" });
                held
            }
            Ok(DbEvent::Reply(_, Err(e))) => {
                warn!("database refused an update: {e}");
                false
            }
            Ok(_) => false,
            Err(e) => {
                error!("database connection lost: {e}; the switch goes on as it is");
                self.link = None;
                false
            }
        }
    }

    /// Makes the switch follow the configuration and says so.
    fn follow(&mut self) -> Result<()> {
        let Some(link) = self.link.as_ref().filter(|l| l.active) else { return Ok(()) };
        let desired = Desired::read(&link.replica);
        {
            let mut switch = locked(&self.switch);
            if switch.desired != desired || !self.ready {
                switch.follow(desired);
            }
        }
        self.report(false);
        if !std::mem::replace(&mut self.ready, true) {
            process::ready()?;
        }
        Ok(())
    }

    fn report(&mut self, statistics: bool) {
        let Some(link) = self.link.as_mut().filter(|l| l.active) else { return };
        let operations = report::operations(&locked(&self.switch), &link.replica, statistics);
        if operations.is_empty() {
            return;
        }
        if let Err(e) = link.replica.send_transact(operations) {
            error!("database connection lost: {e}; the switch goes on as it is");
            self.link = None;
        }
    }
}

/// Runs operations before the connection is given to its thread, and waits for their effect.
fn apply(replica: &mut Replica, operations: Vec<serde_json::Value>) -> Result<()> {
    if operations.is_empty() {
        return Ok(());
    }
    replica.transact(operations)?;
    while replica.next_update(Some(Duration::from_millis(100)))? {}
    Ok(())
}
