//! Wires: veth pairs with one end in a switch's host, and an AF_XDP socket of the load's at the other.
//!
//! What the load sends is received for the switch by the kernel on the load's core; what the switch sends costs its own
//! core the kernel's work for both ends, as always with veth.

use anyhow::{Context, Result};
use lab::netns::on_host;
use lab::process;
use lab::switch::Switch;
use packet::{BURST, Burst, BurstBuf, HEADER_BYTES, Lender, Set};
use port::Port;
use port_xdp::{Config, Mode, XdpPort};
use std::process::Command;
use virtio_driver::saturate::Turn;

/// Descriptors of each ring: few, so that frames are still in the caches when they are used again.
const RING: u32 = 256;

/// Joins the switch's host and this one: `name` there, `far_end` here, both up and silent.
pub fn wire(switch: &Switch, name: &str, far_end: &str) -> Result<()> {
    let pid = std::process::id();
    let add = format!("ip link add {name} type veth peer name {far_end} netns {pid}");
    on_host(switch, &add)?;
    for line in ["addrgenmode none", "up"] {
        on_host(switch, &format!("ip link set {name} {line}"))?;
        let words = line.split(' ');
        process::output(Command::new("ip").args(["link", "set", far_end]).args(words))?;
    }
    Ok(())
}

/// A wire's far end.
pub struct Nic {
    port: XdpPort,
}

impl Nic {
    /// Opens the netdev.
    pub fn open(name: &str) -> Result<Nic> {
        let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
        let index = index.trim().parse().context("no index")?;
        let config = Config {
            mode: Some(Mode::Native),
            rx_size: RING,
            tx_size: RING,
            csum_repair: Some(false),
            long_frames: false,
            ..Config::new(name, index)
        };
        let port = XdpPort::open(&config)?;
        Ok(Nic { port })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        let mut buf = BurstBuf::new();
        if let Some(mut burst) = buf.frame(frame) {
            self.port.tx(0, &mut burst, Set::one(0));
        }
    }

    /// Under load with `depth` different frames, which are sent over and over; none if it is 0.
    pub fn load(&self, depth: u16, fill: impl Fn(u16, &mut Vec<u8>)) -> NicLoad<'_> {
        let frame = |number| {
            let mut frame = Vec::new();
            fill(number, &mut frame);
            frame
        };
        let frames = (0..depth).map(frame).collect();
        let (out, into) = (BurstBuf::new(), BurstBuf::new());
        NicLoad { port: &self.port, frames, next: 0, out, into }
    }
}

/// See [`Nic::load`].
pub struct NicLoad<'a> {
    port: &'a XdpPort,
    frames: Vec<Vec<u8>>,
    next: usize,
    out: BurstBuf,
    into: BurstBuf,
}

/// The frames are the load's own.
struct Nobody;

impl Lender for Nobody {
    fn give_back(&self) {}
}

impl NicLoad<'_> {
    /// Takes what came, and sends a burst.
    pub fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        while let Some(burst) = self.port.rx(0, &mut self.into) {
            turn.received += burst.len() as u32;
            turn.bytes += burst.packets().iter().map(|p| p.len() as u64).sum::<u64>();
        }
        turn.sent = self.send();
        turn
    }

    fn send(&mut self) -> u32 {
        if self.frames.is_empty() {
            return 0;
        }
        self.out.clear();
        while let Some(packet) = self.out.push() {
            let frame = &self.frames[self.next];
            self.next = (self.next + 1) % self.frames.len();
            packet.set_header(&frame[..frame.len().min(HEADER_BYTES)]);
        }
        let mut burst: Burst<'_> = self.out.lend(&Nobody);
        self.port.tx(0, &mut burst, Set::range(0, BURST));
        BURST as u32
    }
}
