//! DPDK's vhost back end between two guests with no switch in between: what DPDK itself sets as the floor.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::hugepages::Hugepages;
use crate::process::Process;
use crate::testpmd::{self, MEMORY_MB, Testpmd};

/// Packet buffers: what two ports and the thread's cache hold at once, and some.
const PACKET_BUFFERS: u32 = 4096;

/// A buffer holds a frame of 9000 bytes whole, as OVS's do at that MTU.
const BUFFER_BYTES: u32 = 10_240;

/// testpmd with two `net_vhost` devices, forwarding what comes on one to the other.
#[derive(Debug)]
pub struct Floor {
    testpmd: Testpmd,
    _hugepages: Hugepages,
}

/// What the forwarding thread spent since the last [`Floor::clear`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Time-stamp counter cycles of bursts that had packets, for each packet.
    pub cycles_per_packet: f64,
    /// Packets received.
    pub packets: u64,
}

impl Floor {
    /// Starts it on `core`; it listens on [`Floor::sockets`].
    pub fn start(core: usize) -> Result<Floor> {
        let hugepages = Hugepages::reserve(MEMORY_MB)?;
        let dir = testpmd::new_dir()?;
        let mut arguments = vec![
            format!("--lcores=0@{core},1@{core}"),
            "--no-pci".to_owned(),
            "--no-telemetry".to_owned(),
            format!("--file-prefix={}", testpmd::file_prefix(dir.path())),
            format!("--huge-dir={}", hugepages.dir().display()),
            format!("--socket-mem={MEMORY_MB}"),
        ];
        for (number, socket) in sockets_in(dir.path()).iter().enumerate() {
            arguments.push(format!("--vdev=net_vhost{number},iface={}", socket.display()));
        }
        // Its ports have no link until the guests come.
        arguments.extend(["--", "-i", "--nb-cores=1", "--disable-link-check"].map(str::to_owned));
        arguments.push("--record-core-cycles".to_owned());
        arguments.push(format!("--total-num-mbufs={PACKET_BUFFERS}"));
        arguments.push(format!("--mbuf-size={BUFFER_BYTES}"));
        let mut testpmd = Testpmd::launch(dir, &arguments)?;
        testpmd.command("set fwd io")?;
        testpmd.command("start")?;
        Ok(Floor { testpmd, _hugepages: hugepages })
    }

    /// The sockets of both ports.
    pub fn sockets(&self) -> [PathBuf; 2] {
        sockets_in(self.testpmd.dir())
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        self.testpmd.process()
    }

    /// Begins to count anew.
    pub fn clear(&mut self) -> Result<()> {
        self.testpmd.command("clear fwd stats all").map(drop)
    }

    /// What was spent since [`Floor::clear`]; nothing if no packet came.
    pub fn spent(&mut self) -> Result<Option<Spent>> {
        parse_spent(&self.testpmd.command("show fwd stats all")?)
    }
}

fn sockets_in(dir: &std::path::Path) -> [PathBuf; 2] {
    ["p0", "p1"].map(|name| dir.join(name))
}

/// Reads `CPU cycles/packet=71.02 (total cycles=710 / total io packets=10) at 2445 MHz Clock`.
fn parse_spent(text: &str) -> Result<Option<Spent>> {
    let Some((_, rest)) = text.split_once("CPU cycles/packet=") else { return Ok(None) };
    let number = |after: &str| {
        let (_, rest) = rest.split_once(after)?;
        rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()
    };
    let packets = number("total io packets=").and_then(|n| n.parse().ok());
    let cycles = rest.split_whitespace().next().and_then(|n| n.parse().ok());
    let (packets, cycles_per_packet) =
        packets.zip(cycles).with_context(|| format!("testpmd printed: {rest}"))?;
    Ok(Some(Spent { cycles_per_packet, packets }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_cycles_are_read() {
        let text = "  ++\n  CPU cycles/packet=71.02 (total cycles=710 / total io packets=10) at 2445 MHz Clock\n";
        let spent = parse_spent(text).unwrap();
        assert_eq!(spent, Some(Spent { cycles_per_packet: 71.02, packets: 10 }));
        assert_eq!(parse_spent("RX-packets: 0").unwrap(), None);
        assert!(parse_spent("CPU cycles/packet=many").is_err());
    }
}
