//! The main thread: follows the database, and writes to it what became of the configuration.

use crate::daemon::{Event, Shared, Stop, locked};
use crate::database::{Attempt, Failed, LOCK, Link, Source};
use crate::desired::Desired;
use crate::startfile::StartFile;
use crate::{process, report};
use anyhow::{Context, Result, anyhow};
use ovsdb::client::ClientError;
use ovsdb::jsonrpc::Message;
use ovsdb::replica::Event as DbEvent;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often flows whose time is over are removed, and messages for controllers taken in: a flow ends
/// well within a second of its time, as in OVS.
const EXPIRY: Duration = Duration::from_millis(250);
/// How often statistics are written, in milliseconds: the default, and the least that
/// `other_config:stats-update-interval` may say, of OVS.
const STATS_MS: u64 = 5000;
/// The least time between two reports of interfaces' states: a guest that comes and goes all the time must
/// not keep the database's other clients busy. Half of OVS's, so that changes are told within 100 ms.
const STATE_INTERVAL: Duration = Duration::from_millis(50);
/// How long a lost database is left alone before the next attempt.
const RECONNECT: Duration = Duration::from_secs(1);
/// Events that come together are followed together, so many at most.
const BATCH: usize = 1000;

/// What the main thread works with.
pub(crate) struct Main {
    source: Source,
    events: Sender<Event>,
    switch: Shared,
    /// Until it has been applied.
    start: Option<Arc<StartFile>>,
    link: Option<Link>,
    /// Attempts to connect so far, and whether one is under way.
    attempts: u64,
    connecting: bool,
    /// When the last attempt ended.
    tried: Instant,
    /// The last complaint of each kind, so as not to repeat it.
    told: Option<String>,
    refused: Option<String>,
    /// The parent process knows that we are configured.
    ready: bool,
    config_changed: bool,
    state_changed: bool,
    ticked: Instant,
    expired: Instant,
    wrote_state: Instant,
    wrote_statistics: Instant,
}

impl Main {
    pub(crate) fn new(
        source: Source,
        events: Sender<Event>,
        switch: Shared,
        start: Option<StartFile>,
    ) -> Main {
        let now = Instant::now();
        Main {
            source,
            events,
            switch,
            start: start.map(Arc::new),
            link: None,
            attempts: 0,
            connecting: false,
            tried: now,
            told: None,
            refused: None,
            ready: false,
            config_changed: false,
            state_changed: false,
            ticked: now,
            expired: now,
            wrote_state: now,
            wrote_statistics: now,
        }
    }

    /// Connects to our own database at once, to another's when it can be had.
    pub(crate) fn connect_first(&mut self) -> Result<()> {
        let attempt = self.attempt()?;
        if let Source::Remote(_) = self.source {
            attempt.run_in_thread(self.events.clone())?;
            return Ok(());
        }
        let link = attempt.run(self.events.clone());
        self.connected(link.map(Box::new))?;
        match self.told.take() {
            Some(error) => Err(anyhow!(error)),
            None => self.work(),
        }
    }

    fn attempt(&mut self) -> Result<Attempt> {
        self.attempts += 1;
        self.connecting = true;
        let attempt = Attempt::new(&self.source, self.attempts, self.start.clone());
        attempt.context("connecting to the database")
    }

    /// Runs until it is time to stop.
    pub(crate) fn run(&mut self, inbox: &Receiver<Event>) -> Result<Stop> {
        loop {
            let first = match inbox.recv_timeout(self.idle_time()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("nobody is left")),
            };
            for event in first.into_iter().chain(inbox.try_iter().take(BATCH)) {
                match event {
                    Event::Stop(stop) => return Ok(stop),
                    Event::Interface => self.state_changed = true,
                    Event::Db(number, message) => self.handle(number, message),
                    Event::Connected(link) => self.connected(link)?,
                }
            }
            self.work()?;
        }
    }

    /// Gives the connection up, and what served it.
    pub(crate) fn disconnect(self) -> Source {
        self.source
    }

    /// How long nothing is due.
    fn idle_time(&self) -> Duration {
        let tick = EXPIRY.saturating_sub(self.expired.elapsed());
        match self.state_changed {
            true => tick.min(STATE_INTERVAL.saturating_sub(self.wrote_state.elapsed())),
            false => tick,
        }
    }

    /// Does what is due.
    fn work(&mut self) -> Result<()> {
        if self.link.is_none() && !self.connecting && self.tried.elapsed() >= RECONNECT {
            self.tried = Instant::now();
            self.attempt()?.run_in_thread(self.events.clone())?;
        }
        if self.state_changed {
            locked(&self.switch).interface_changed();
        }
        if std::mem::take(&mut self.config_changed) {
            self.follow()?;
        }
        if self.expired.elapsed() >= EXPIRY {
            self.expired = Instant::now();
            self.expire();
        }
        if self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            locked(&self.switch).tick();
            self.state_changed = true;
        }
        let interval = locked(&self.switch).desired.number("stats-update-interval");
        let due = Duration::from_millis(interval.unwrap_or(0).max(STATS_MS));
        if self.wrote_statistics.elapsed() >= due {
            self.wrote_statistics = Instant::now();
            self.report(true);
        } else if self.state_changed && self.wrote_state.elapsed() >= STATE_INTERVAL {
            self.report(false);
        }
        Ok(())
    }

    /// Removes flows whose time is over, without holding the switch: while somebody loads many flows
    /// this waits, and commands must not.
    fn expire(&self) {
        let (pipeline, clock) = {
            let s = locked(&self.switch);
            (s.pipeline.clone(), s.clock)
        };
        pipeline.expire(clock.now_ms());
        locked(&self.switch).collect_messages();
    }

    /// Takes the result of an attempt to connect. Fails if there is no use in trying again.
    fn connected(&mut self, link: Result<Box<Link>, Failed>) -> Result<()> {
        self.connecting = false;
        self.tried = Instant::now();
        match link {
            Ok(link) => {
                self.told = None;
                self.start = None;
                self.config_changed = true;
                if !link.active {
                    warn!("another vswitchd process is running, waiting until it ends");
                }
                self.link = Some(*link);
            }
            Err(Failed::StartFile(e)) => return Err(e.context("applying the start file")),
            Err(Failed::Database(e)) => {
                let text = format!("{e}");
                if self.told.as_ref() != Some(&text) {
                    warn!("{text}; trying again every second");
                }
                self.told = Some(text);
            }
        }
        Ok(())
    }

    /// Takes a message from the database.
    fn handle(&mut self, number: u64, message: Result<Message, ClientError>) {
        let Some(link) = self.link.as_mut().filter(|l| l.number == number) else { return };
        match message.and_then(|m| link.replica.handle(m)) {
            Ok(DbEvent::Updated) => self.config_changed = true,
            Ok(DbEvent::Lock(name, held)) if name == LOCK => {
                link.active = held;
                self.config_changed = true;
                info!("{} the lock on the database", if held { "got" } else { "lost" });
            }
            Ok(DbEvent::Reply(_, Err(e))) => {
                let text = format!("{e}");
                if self.refused.as_ref() != Some(&text) {
                    warn!("the database refused an update: {text}");
                }
                self.refused = Some(text);
            }
            Ok(_) => {}
            Err(e) => self.lost(&e),
        }
    }

    fn lost(&mut self, e: &ClientError) {
        error!("database connection lost: {e}; the switch goes on as it is");
        self.link = None;
        self.tried = Instant::now();
    }

    /// Makes the switch follow the configuration and says so. Without the lock the configuration is
    /// another daemon's, and so are the interfaces.
    fn follow(&mut self) -> Result<()> {
        let Some(link) = &self.link else { return Ok(()) };
        let desired = if link.active { Desired::read(&link.replica) } else { Desired::default() };
        {
            let mut switch = locked(&self.switch);
            let idle = !link.active && switch.desired == desired;
            if !idle && (switch.desired != desired || !self.ready) {
                switch.follow(desired);
            }
        }
        if !link.active {
            return Ok(());
        }
        self.report(false);
        if !std::mem::replace(&mut self.ready, true) {
            info!("configured");
            process::ready()?;
        }
        Ok(())
    }

    fn report(&mut self, statistics: bool) {
        self.state_changed = false;
        self.wrote_state = Instant::now();
        let Some(link) = self.link.as_mut().filter(|l| l.active) else { return };
        let operations = report::operations(&locked(&self.switch), &link.replica, statistics);
        if operations.is_empty() {
            return;
        }
        if let Err(e) = link.replica.send_transact(operations) {
            self.lost(&e);
        }
    }
}
