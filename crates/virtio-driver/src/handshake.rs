//! Bringing a back end up: feature negotiation, memory, rings, in QEMU's order or virtio-user's.

use crate::config::{Config, MemoryStyle, MessageOrder};
use crate::driver::{Driver, Pair};
use crate::error::Error;
use crate::memory::{GuestMemory, Region};
use crate::notify::Event;
use crate::queue::Base;
use crate::session::Session;
use crate::wire::{
    MAX_TABLE_REGIONS, MemRegion, Request, VRING_NO_FD, VringAddr, feature, mem_table, protocol,
    status, u64_body, vring_state,
};
use std::os::fd::BorrowedFd;

/// What front end and back end agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Device features.
    pub features: u64,
    /// Protocol features.
    pub protocol: u64,
    /// Memory regions the back end takes.
    pub memory_slots: u64,
}

/// Agrees on features with a fresh connection. Nothing of memory or rings is sent yet.
pub fn negotiate(session: &mut Session, config: &Config) -> Result<Agreed, Error> {
    session.acks = false;
    session.set(Request::SET_OWNER, &[], &[])?;
    let offered = session.ask(Request::GET_FEATURES, &[])?.as_u64()?;
    let mut features = offered & config.features;
    let missing = config.required & !offered;
    if missing != 0 {
        return Err(Error::MissingFeatures { missing, offered });
    }
    let mut protocol = 0;
    if features & feature::PROTOCOL_FEATURES != 0 {
        protocol =
            session.ask(Request::GET_PROTOCOL_FEATURES, &[])?.as_u64()? & config.protocol_features;
        session.set(Request::SET_PROTOCOL_FEATURES, &u64_body(protocol), &[])?;
        session.acks = protocol & protocol::REPLY_ACK != 0;
    }
    check_queues(session, config, protocol)?;
    let mut memory_slots = MAX_TABLE_REGIONS as u64;
    if protocol & protocol::CONFIGURE_MEM_SLOTS != 0 {
        memory_slots = session.ask(Request::GET_MAX_MEM_SLOTS, &[])?.as_u64()?;
    } else if config.memory_style == MemoryStyle::Slots {
        return Err(Error::Config(
            "memory by slots, but the back end does not offer CONFIGURE_MEM_SLOTS".into(),
        ));
    }
    if config.queue_pairs == 1 {
        features &= !feature::MQ;
    }
    Ok(Agreed { features, protocol, memory_slots })
}

fn check_queues(session: &Session, config: &Config, protocol: u64) -> Result<(), Error> {
    if config.queue_pairs == 1 {
        return Ok(());
    }
    let has = match protocol & protocol::MQ {
        0 => 1,
        // The specification counts queues; OVS and DPDK answer with pairs, and QEMU takes the number for pairs too.
        _ => session.ask(Request::GET_QUEUE_NUM, &[])?.as_u64()?,
    };
    if has < u64::from(config.queue_pairs) {
        return Err(Error::TooFewQueues { has, wanted: config.queue_pairs });
    }
    Ok(())
}

/// Sends memory and rings and sets the device going. `bases` gives each ring's base.
pub(crate) fn start(driver: &mut Driver, bases: &[u32]) -> Result<(), Error> {
    let agreed = *driver.agreed();
    let order = driver.config().order;
    let rings = driver.ring_count();
    set_status(driver, &[status::ACKNOWLEDGE, status::DRIVER])?;
    if let (Some(mtu), true) = (driver.config().mtu, agreed.protocol & protocol::MTU != 0) {
        driver.session().set(Request::NET_SET_MTU, &u64_body(mtu.into()), &[])?;
    }
    for index in 0..rings {
        driver.send_event(Request::SET_VRING_CALL, index)?;
    }
    if order == MessageOrder::Qemu {
        enable_all(driver)?;
    }
    send_features(driver)?;
    set_status(driver, &[status::FEATURES_OK])?;
    send_memory(driver)?;
    for index in 0..rings {
        if order == MessageOrder::Qemu && index > 0 && index % 2 == 0 {
            send_features(driver)?;
        }
        start_ring(driver, index, bases[usize::from(index)])?;
    }
    if order == MessageOrder::VirtioUser {
        enable_all(driver)?;
    }
    set_status(driver, &[status::DRIVER_OK])?;
    for pair in driver.pairs_mut() {
        pair.rx.refill()?;
        pair.rx.base.kick.signal();
        pair.tx.base.kick.signal();
    }
    settle(driver.session())
}

fn enable_all(driver: &mut Driver) -> Result<(), Error> {
    if driver.agreed().features & feature::PROTOCOL_FEATURES == 0 {
        return Ok(()); // rings are enabled from the start
    }
    for index in 0..driver.ring_count() {
        driver.send_enable(index, true)?;
    }
    Ok(())
}

pub(crate) fn send_features(driver: &Driver) -> Result<(), Error> {
    let log = if driver.is_logging() { feature::LOG_ALL } else { 0 };
    driver.session().set(Request::SET_FEATURES, &u64_body(driver.agreed().features | log), &[])
}

/// Adds status bits one after another, where STATUS was negotiated.
fn set_status(driver: &mut Driver, bits: &[u64]) -> Result<(), Error> {
    if driver.agreed().protocol & protocol::STATUS == 0 {
        return Ok(());
    }
    for bit in bits {
        driver.status |= bit;
        driver.session().set(Request::SET_STATUS, &u64_body(driver.status), &[])?;
    }
    Ok(())
}

/// Announces every region.
pub(crate) fn send_memory(driver: &Driver) -> Result<(), Error> {
    let (session, memory) = (driver.session(), driver.memory());
    let regions = memory.regions();
    match driver.config().memory_style {
        MemoryStyle::Slots => regions.iter().try_for_each(|region| send_region(session, region)),
        MemoryStyle::Table => {
            if regions.len() > MAX_TABLE_REGIONS {
                let why = format!(
                    "{} regions; a memory table carries {MAX_TABLE_REGIONS}: use slots",
                    regions.len()
                );
                return Err(Error::Config(why));
            }
            let table: Vec<MemRegion> = regions.iter().map(Region::descriptor).collect();
            let fds: Vec<BorrowedFd<'_>> = regions.iter().map(Region::fd).collect();
            session.set(Request::SET_MEM_TABLE, &mem_table(&table), &fds)?;
            barrier(session)
        }
    }
}

pub(crate) fn send_region(session: &Session, region: &Region) -> Result<(), Error> {
    session.set(Request::ADD_MEM_REG, &region.descriptor().single_body(), &[region.fd()])?;
    barrier(session)
}

/// Without acknowledgements, asks something so that what was sent before is known to be done (QEMU does the same).
pub(crate) fn barrier(session: &Session) -> Result<(), Error> {
    if session.acks { Ok(()) } else { settle(session) }
}

/// Asks something, so that the back end has finished with what came before. DPDK acknowledges a message first and then sets its device
/// going; frames sent in between would be dropped there.
pub(crate) fn settle(session: &Session) -> Result<(), Error> {
    session.ask(Request::GET_FEATURES, &[]).map(|_| ())
}

/// Sends all of one ring but its call descriptor and enabling.
pub(crate) fn start_ring(driver: &Driver, index: u16, base: u32) -> Result<(), Error> {
    let session = driver.session();
    let ring = driver.base(index);
    let index32 = u32::from(index);
    session.set(Request::SET_VRING_NUM, &vring_state(index32, ring.ring.size().into()), &[])?;
    session.set(Request::SET_VRING_BASE, &vring_state(index32, base), &[])?;
    send_address(driver, index)?;
    driver.send_event(Request::SET_VRING_KICK, index)?;
    if driver.config().order == MessageOrder::Qemu {
        driver.send_event(Request::SET_VRING_CALL, index)?;
    }
    if ring.err.is_some() {
        driver.send_event(Request::SET_VRING_ERR, index)?;
    }
    Ok(())
}

pub(crate) fn send_address(driver: &Driver, index: u16) -> Result<(), Error> {
    let at = driver.base(index).ring.addresses();
    let flags = u32::from(driver.is_logging());
    let addr = VringAddr {
        index: index.into(),
        flags,
        desc: at.desc,
        used: at.used,
        avail: at.avail,
        log: at.log,
    };
    driver.session().set(Request::SET_VRING_ADDR, &addr.body(), &[])
}

impl Driver {
    /// Sends a ring's kick, call or error descriptor.
    pub(crate) fn send_event(&self, request: Request, index: u16) -> Result<(), Error> {
        let ring: &Base = self.base(index);
        let event: Option<&Event> = match request {
            Request::SET_VRING_KICK => Some(&ring.kick),
            Request::SET_VRING_CALL => Some(&ring.call),
            _ => ring.err.as_ref(),
        };
        match event {
            Some(event) => self.session().set(request, &u64_body(index.into()), &[event.fd()]),
            None => self.session().set(request, &u64_body(u64::from(index) | VRING_NO_FD), &[]),
        }
    }

    /// Sends SET_VRING_ENABLE.
    pub(crate) fn send_enable(&self, index: u16, on: bool) -> Result<(), Error> {
        self.session().set(Request::SET_VRING_ENABLE, &vring_state(index.into(), on.into()), &[])
    }
}

/// Makes the queues of a driver.
pub(crate) fn make_pairs(
    config: &Config,
    features: u64,
    memory: &mut GuestMemory,
) -> Result<Vec<Pair>, Error> {
    (0..config.queue_pairs).map(|_| Pair::new(config, features, memory)).collect()
}
