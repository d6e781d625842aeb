//! The daemon: starts everything, runs the main thread until told to stop, and ends everything in order.

use crate::commands;
use crate::database::Source;
use crate::follow::Main;
use crate::options::Options;
use crate::process::{self, PidFile};
use crate::switch::Switch;
use crate::{database, log, startfile};
use anyhow::{Context, Result, bail};
use ovsdb::client::ClientError;
use ovsdb::jsonrpc::Message;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::info;

/// What the main thread waits for.
pub(crate) enum Event {
    /// A message from connection number so and so to the database, or its end.
    Db(u64, Result<Message, ClientError>),
    /// What became of an attempt to connect to the database.
    Connected(Result<Box<database::Link>, database::Failed>),
    /// An interface's state changed.
    Interface,
    /// To end.
    Stop(Stop),
}

/// An order to end.
pub(crate) struct Stop {
    /// For the log.
    pub(crate) why: &'static str,
    /// Dropped when everything has ended: whoever holds the other half may wait for that.
    pub(crate) ended: Option<Sender<()>>,
}

/// The switch, as threads that answer commands share it with the main thread.
pub(crate) type Shared = Arc<Mutex<Switch>>;

pub(crate) fn locked(switch: &Shared) -> MutexGuard<'_, Switch> {
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the daemon until it is told to stop.
pub(crate) fn run(options: &Options) -> Result<()> {
    process::leave_session();
    let start = options.config.as_deref().map(startfile::read).transpose()?;
    let rundir = &options.rundir;
    let made = std::fs::create_dir_all(rundir);
    made.with_context(|| format!("cannot make the run directory {}", rundir.display()))?;
    log::start(options.log_file.as_deref(), process::is_detached())?;
    let pid_file = PidFile::create(&options.pid_file())?;
    process::remove_stale_controls(rundir);
    let source = open_source(options)?;
    let (events, inbox) = channel();
    stop_on_signals(events.clone())?;
    let switch = new_switch(options, events.clone())?;
    let control = rundir.join(format!("vswitchd.{}.ctl", std::process::id()));
    let unixctl = unixctl::Server::bind(&control, commands::all(&switch, events.clone()))
        .with_context(|| format!("cannot listen on {}", control.display()))?;
    info!("vswitchd {} started, run directory {}", env!("CARGO_PKG_VERSION"), rundir.display());
    let mut main = Main::new(source, events, switch.clone(), start);
    let result = main.connect_first().and_then(|()| main.run(&inbox));
    let result = result.map(|stop| {
        info!("stopping: {}", stop.why);
        stop.ended
    });
    // Nobody is to be told what follows any more; then no packet is moved; then the file is closed.
    let source = main.disconnect();
    locked(&switch).stop();
    drop(source);
    drop(pid_file);
    let ended = result.map(drop);
    drop(unixctl);
    ended
}

/// The switch, telling the main thread when an interface changes.
fn new_switch(options: &Options, events: Sender<Event>) -> Result<Shared> {
    let events = Mutex::new(events);
    let notify = Arc::new(move || {
        let sender = events.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sender.send(Event::Interface);
    });
    let switch = Switch::new(options.rundir.clone(), options.sysfs.clone(), notify);
    let mut switch = switch.context("starting the revalidator")?;
    if let Some(seconds) = options.load_interval {
        switch.fake_load_interval(Duration::from_secs(seconds));
    }
    Ok(Arc::new(Mutex::new(switch)))
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
            let _ = events.send(Event::Stop(Stop { why: "signal", ended: None }));
        }
    })?;
    Ok(())
}
