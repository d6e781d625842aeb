//! The driver: a connection, guest memory and queue pairs, and what a test does with them in normal running.

use crate::config::{Config, SocketMode};
use crate::dirty_log::DirtyLog;
use crate::error::Error;
use crate::handshake::{self, Agreed};
use crate::layout::{Layout, NetHeader};
use crate::memory::GuestMemory;
use crate::queue::{Base, RxQueue, TxQueue};
use crate::session::Session;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

/// One receive and one transmit queue; rings 2n and 2n + 1.
#[derive(Debug)]
pub struct Pair {
    /// Receive queue.
    pub rx: RxQueue,
    /// Transmit queue.
    pub tx: TxQueue,
}

impl Pair {
    pub(crate) fn new(
        config: &Config,
        features: u64,
        memory: &mut GuestMemory,
    ) -> Result<Pair, Error> {
        Ok(Pair {
            rx: RxQueue::new(config, features, memory)?,
            tx: TxQueue::new(config, features, memory)?,
        })
    }
}

/// A guest's virtio-net driver on a vhost-user back end.
///
/// Queues are polled: the device is asked for no calls except while a wait is running. For several threads, split [`Driver::pairs_mut`].
#[derive(Debug)]
pub struct Driver {
    config: Config,
    listener: Option<UnixListener>,
    session: Session,
    agreed: Agreed,
    memory: GuestMemory,
    pairs: Vec<Pair>,
    pub(crate) log: Option<DirtyLog>,
    pub(crate) status: u64,
}

/// A wait this long between looks at the ring, at most: a lost call then shows as slowness in a test's log, not as a hang.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

impl Driver {
    /// Waits for the back end, agrees on features, hands over memory and rings and fills the receive queues.
    pub fn connect(config: Config) -> Result<Driver, Error> {
        config.check()?;
        let listener = listen(&config.socket)?;
        let mut session = open(&config, listener.as_ref())?;
        let agreed = handshake::negotiate(&mut session, &config)?;
        let mut memory = GuestMemory::new(&config.region_specs())?;
        let pairs = handshake::make_pairs(&config, agreed.features, &mut memory)?;
        let mut driver =
            Driver { config, listener, session, agreed, memory, pairs, log: None, status: 0 };
        let bases = driver.initial_bases();
        handshake::start(&mut driver, &bases)?;
        Ok(driver)
    }

    /// Bases of rings that never ran: 0; packed: slot 0 with both wrap counters 1.
    pub(crate) fn initial_bases(&self) -> Vec<u32> {
        (0..self.ring_count()).map(|index| self.base(index).ring.resume_base()).collect()
    }

    /// Opens a new connection in place of the old one and negotiates; rings and memory stay as they are.
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        self.session = open(&self.config, self.listener.as_ref())?;
        let mut same = self.config.clone();
        same.required = self.agreed.features;
        same.features = self.agreed.features;
        let agreed = handshake::negotiate(&mut self.session, &same)?;
        self.agreed = agreed;
        self.status = 0;
        Ok(())
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// The features in force.
    pub fn agreed(&self) -> &Agreed {
        &self.agreed
    }
    /// The connection, for messages of a test's own.
    pub fn session(&self) -> &Session {
        &self.session
    }
    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
    /// Guest memory, to take some for a test's own descriptors.
    pub fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }
    /// The queue pairs.
    pub fn pairs_mut(&mut self) -> &mut [Pair] {
        &mut self.pairs
    }
    /// One queue pair.
    ///
    /// # Panics
    /// If there is no such pair.
    pub fn pair(&mut self, pair: usize) -> &mut Pair {
        &mut self.pairs[pair]
    }
    /// Rings in all: two a pair.
    pub fn ring_count(&self) -> u16 {
        2 * self.config.queue_pairs
    }

    pub(crate) fn base(&self, index: u16) -> &Base {
        let pair = &self.pairs[usize::from(index / 2)];
        if index.is_multiple_of(2) { &pair.rx.base } else { &pair.tx.base }
    }

    pub(crate) fn split_base(&mut self, index: u16) -> (&mut GuestMemory, &mut Base) {
        let pair = &mut self.pairs[usize::from(index / 2)];
        (
            &mut self.memory,
            if index.is_multiple_of(2) { &mut pair.rx.base } else { &mut pair.tx.base },
        )
    }

    /// Sends frames, each in one descriptor with an empty header. The number that found room, first to last.
    pub fn tx<F: AsRef<[u8]>>(&mut self, pair: usize, frames: &[F]) -> Result<usize, Error> {
        self.tx_chain(pair, &NetHeader::default(), frames, &Layout::whole())
    }

    /// Sends frames with this header and layout. The number that found room, first to last.
    pub fn tx_chain<F: AsRef<[u8]>>(
        &mut self,
        pair: usize,
        header: &NetHeader,
        frames: &[F],
        layout: &Layout,
    ) -> Result<usize, Error> {
        let tx = &mut self.pairs[pair].tx;
        tx.reclaim()?;
        let mut sent = 0;
        for frame in frames {
            if !tx.push(header, frame.as_ref(), layout)? {
                break;
            }
            sent += 1;
        }
        tx.flush();
        Ok(sent)
    }

    /// Gives each waiting frame to `take`, up to `limit`; see [`RxQueue::receive`].
    pub fn rx(
        &mut self,
        pair: usize,
        limit: usize,
        take: impl FnMut(&NetHeader, &[u8]),
    ) -> Result<usize, Error> {
        self.pairs[pair].rx.receive(limit, take)
    }

    /// Takes back sent frames; their number.
    pub fn reclaim(&mut self, pair: usize) -> Result<usize, Error> {
        self.pairs[pair].tx.reclaim()
    }

    /// Sleeps until a frame waits on the pair's receive queue. False at the deadline; an error if the back end goes away.
    pub fn wait_rx(&mut self, pair: usize, deadline: Instant) -> Result<bool, Error> {
        wait(&self.session, &mut self.pairs[pair].rx.base, deadline)
    }

    /// Sleeps until a sent frame can be reclaimed. False at the deadline; an error if the back end goes away.
    pub fn wait_tx(&mut self, pair: usize, deadline: Instant) -> Result<bool, Error> {
        wait(&self.session, &mut self.pairs[pair].tx.base, deadline)
    }

    /// Reclaims until the device has sent everything. False at the deadline.
    pub fn drain_tx(&mut self, pair: usize, deadline: Instant) -> Result<bool, Error> {
        loop {
            self.reclaim(pair)?;
            if self.pairs[pair].tx.in_flight() == 0 {
                return Ok(true);
            }
            if !self.wait_tx(pair, deadline)? {
                return Ok(false);
            }
        }
    }

    /// Whether the back end has closed the connection.
    pub fn disconnected(&self) -> Result<bool, Error> {
        self.session.closed()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let SocketMode::Listen(path) = &self.config.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn wait(session: &Session, base: &mut Base, deadline: Instant) -> Result<bool, Error> {
    loop {
        base.call.take();
        base.ring.ask_for_call();
        let ready = base.ring.has_used();
        let result = match ready {
            true => Ok(true),
            false => {
                base.call.wait(session.stream().as_fd(), deadline.min(Instant::now() + LOOK_AGAIN))
            }
        };
        base.ring.refuse_calls();
        result?;
        if base.ring.has_used() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

fn listen(socket: &SocketMode) -> Result<Option<UnixListener>, Error> {
    let SocketMode::Listen(path) = socket else { return Ok(None) };
    remove_stale(path)?;
    UnixListener::bind(path).map(Some).map_err(Error::io("listening on the vhost-user socket"))
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { what: "removing the old vhost-user socket", source: error })
        }
        _ => Ok(()),
    }
}

fn open(config: &Config, listener: Option<&UnixListener>) -> Result<Session, Error> {
    match (&config.socket, listener) {
        (SocketMode::Listen(path), Some(listener)) => {
            Session::accept(listener, path, config.patience)
        }
        (SocketMode::Connect(path) | SocketMode::Listen(path), _) => {
            Session::connect(path, config.patience)
        }
    }
}
