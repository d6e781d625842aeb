//! Making a running system what a scenario wants, and the guests that go with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::hugepages::Hugepages;
use lab::scene::{BRIDGE, PORTS};
use lab::switch::Switch;
use lab::wait;
use virtio_driver::config::{Config, SocketMode};
use virtio_driver::wire::feature;
use virtio_driver::{Driver, NetHeader, Stamp};

use super::load::{Peer, Sending};
use super::nic::Nic;
use super::scenario::{End, Flows, Offload, Ring, Scenario};
use super::system::{Kind, MTU, System};
use super::{flow_table, frames};

/// Descriptors of a busy ring.
pub(super) const QUEUE_SIZE: u16 = 256;

/// Descriptors of an idle guest's rings, as QEMU's guests have.
const IDLE_QUEUE_SIZE: u16 = 256;

/// Frames in flight or waiting in each busy transmit ring.
const DEPTH: u16 = 192;

/// The same of super-frames: 2 MB, as guests' TCP windows are.
const TCP_DEPTH: u16 = 32;

/// Bytes of headers that the MTU does not count.
const ETHERNET_BYTES: u16 = 14;

/// Room for the virtio-net header, in bytes.
const VIRTIO_HEADER_BYTES: u32 = 12;

/// Time for the first frames to be taken.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Time for a guest to be connected that is tried again.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Whether busy guests have their memory in huge pages, as virtual machines on a switch with DPDK must.
pub static HUGE_PAGES: AtomicBool = AtomicBool::new(false);

/// Megabytes of the busy guests of all systems at most: 14 guests on three systems, each in a huge page; two with buffers
/// of 64 KB in ten.
const GUESTS_MB: u64 = 256;

/// Huge pages for the guests of all systems alike, or for none.
pub fn reserve_huge_pages() -> Option<Hugepages> {
    let reserved = Hugepages::reserve(GUESTS_MB);
    HUGE_PAGES.store(reserved.is_ok(), Relaxed);
    reserved.map_err(|error| println!("guests are without huge pages: {error:#}")).ok()
}

/// The guests of a system.
pub struct Guests {
    /// Those that send and receive, or wires' far ends.
    pub busy: Vec<Peer>,
    /// That which takes mirrored packets.
    pub watcher: Option<Box<Driver>>,
    /// Those that are connected and silent.
    pub idle: Vec<Driver>,
}

/// The systems that do the scenario's work.
pub fn taking_part<'a>(
    systems: &'a mut [System],
    scenario: &Scenario,
) -> impl Iterator<Item = &'a mut System> {
    let (floor, settings) = (scenario.has_floor(), scenario.settings);
    let takes_part = move |kind| settings.known_to(kind) && (floor || kind != Kind::DpdkIo);
    systems.iter_mut().filter(move |system| takes_part(system.kind()))
}

/// Configures `system`, which is stopped, connects its guests and stops it again.
pub fn prepare(system: &mut System, scenario: &Scenario) -> Result<Guests> {
    system.resume()?;
    system.check_alive()?;
    let mtu = match scenario.offload {
        Offload::SuperFrames | Offload::Cut => MTU,
        _ => scenario.frame_bytes.saturating_sub(ETHERNET_BYTES).max(MTU),
    };
    system.set_ends(scenario.ends)?;
    system.set_mtu(mtu)?;
    system.set_tso(scenario.offload != Offload::None)?;
    let idle_sockets = system.set_idle_ports(scenario.ports.saturating_sub(2))?;
    if let Some(switch) = system.switch() {
        configure(switch, scenario)?;
    }
    let watching = system.apply(scenario.settings)?;
    let role = if system.guests_listen() { SocketMode::Listen } else { SocketMode::Connect };
    let [first, second] = system.sockets().map(|socket| driver_config(role(socket), scenario));
    let connect = |config| connect(system.kind(), &config);
    let watcher = watching.map(|socket| driver_config(SocketMode::Connect(socket), scenario));
    let watcher = watcher.map(connect).transpose()?.map(Box::new);
    let (more, idle) = idle_sockets.split_at(usize::from(scenario.busy.saturating_sub(2)));
    let idle = idle.iter().map(|socket| connect(idle_config(socket.clone())));
    let idle = idle.collect::<Result<_>>()?;
    let peer = |at: usize, config| -> Result<Peer> {
        Ok(match scenario.ends[at] {
            End::Nic => Peer::Nic(Nic::open(&system.far_end(at))?),
            End::Guest => Peer::Guest(Box::new(connect(config)?)),
        })
    };
    let mut busy = vec![peer(0, first)?, peer(1, second)?];
    for socket in more {
        let config = driver_config(SocketMode::Connect(socket.clone()), scenario);
        busy.push(Peer::Guest(Box::new(connect(config)?)));
    }
    system.wait_link_up()?;
    say_hello(&mut busy, scenario)?;
    system.pause()?;
    Ok(Guests { busy, watcher, idle })
}

/// Connects a guest. OVS-DPDK closes a new port of another MTU once more after it was added, and with it
/// a connection that came too early, so that is tried again; ours must take the first.
fn connect(kind: Kind, config: &Config) -> Result<Driver> {
    if kind != Kind::OvsDpdk {
        return Ok(Driver::connect(config.clone())?);
    }
    let mut last = None;
    let driver = wait::until("OVS-DPDK to take a guest", CONNECT_LIMIT, || {
        match Driver::connect(config.clone()) {
            Ok(driver) => Ok(Some(driver)),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        }
    });
    driver.with_context(|| format!("the last error was {last:?}"))
}

fn configure(switch: &Switch, scenario: &Scenario) -> Result<()> {
    let numbers = [switch.ofport(PORTS[0])?, switch.ofport(PORTS[1])?];
    switch.set_flows(BRIDGE, &flow_table::text(scenario.table, numbers))?;
    // 100 is the default of both.
    let probability = if scenario.table.exact_match() { 100 } else { 0 };
    let setting = format!("other_config:emc-insert-inv-prob={probability}");
    switch.ctl(&["set", "Open_vSwitch", ".", &setting]).map(drop)
}

fn idle_config(socket: PathBuf) -> Config {
    let mut config = Config::new(SocketMode::Connect(socket)).with(feature::MRG_RXBUF);
    config.queue_size = IDLE_QUEUE_SIZE;
    config
}

fn driver_config(socket: SocketMode, scenario: &Scenario) -> Config {
    let base = Config::new(socket);
    let mut config = match scenario.ring {
        Ring::Split => base.without(feature::MRG_RXBUF),
        Ring::SplitMergeable => base.with(feature::MRG_RXBUF),
        Ring::Packed => base.with(feature::MRG_RXBUF | feature::RING_PACKED),
    };
    if scenario.queues > 1 {
        config = config.with(feature::MQ);
    }
    let sends = feature::CSUM | feature::HOST_TSO4;
    config = match scenario.offload {
        Offload::None => config,
        Offload::Checksums => config.with(feature::CSUM | feature::GUEST_CSUM),
        Offload::SuperFrames => config.with(sends | feature::GUEST_CSUM | feature::GUEST_TSO4),
        Offload::Cut => config.with(sends),
    };
    config.huge_pages = HUGE_PAGES.load(Relaxed);
    config.queue_pairs = scenario.queues;
    config.queue_size = QUEUE_SIZE;
    let whole = u32::from(scenario.frame_bytes) + VIRTIO_HEADER_BYTES;
    if scenario.offload != Offload::Cut {
        config.rx_buffer = config.rx_buffer.max(whole);
    }
    config.tx_buffer = config.tx_buffer.max(whole);
    config
}

/// Each guest sends a frame, so that all addresses are learned.
fn say_hello(peers: &mut [Peer], scenario: &Scenario) -> Result<()> {
    let deadline = Instant::now() + HELLO_LIMIT;
    for (guest, peer) in (0..).zip(peers) {
        let mut frame = Vec::new();
        frames::write(guest, 0, scenario.frame_bytes.min(MTU).into(), &mut frame);
        let driver = match peer {
            Peer::Guest(driver) => driver,
            Peer::Nic(nic) => {
                nic.send(&frame);
                continue;
            }
        };
        driver.tx(0, &[frame])?;
        ensure!(driver.drain_tx(0, deadline)?, "the first frame of guest {guest} is not taken");
    }
    wait::pass(Duration::from_millis(20))
}

/// What the guests send in `scenario`.
pub fn sending(scenario: &Scenario) -> Sending {
    let flows = scenario.flows.count();
    let bytes = usize::from(scenario.frame_bytes);
    let tcp = matches!(scenario.offload, Offload::SuperFrames | Offload::Cut);
    let frame = move |guest, number: u16, out: &mut Vec<u8>| {
        let write = if tcp { frames::write_tcp } else { frames::write };
        write(guest, u32::from(number) % flows, bytes, out);
    };
    // Round and round, the buffers carry a number of flows that divides theirs by themselves.
    let stamped = !u32::from(DEPTH).is_multiple_of(flows);
    let values = match scenario.flows {
        Flows::Uniform(count) => (stamped || scenario.touched).then(|| frames::uniform(count)),
        Flows::Zipf(count) => Some(frames::zipf(count)),
    };
    Sending {
        depth: if tcp { TCP_DEPTH } else { DEPTH },
        header: match scenario.offload {
            Offload::None => NetHeader::default(),
            _ => frames::header(tcp),
        },
        frame: Arc::new(frame),
        stamp: values.map(|values| Stamp { at: frames::PORTS_AT, values, next: 0 }),
        reading: scenario.touched,
        both_ways: scenario.both_ways,
    }
}

/// Waits until the guests, whose drivers are gone, are no longer seen, takes away what was set, and stops the system again.
pub fn finish(system: &mut System) -> Result<()> {
    system.resume()?;
    system.wait_link_down()?;
    system.unapply()?;
    system.pause()
}
