//! Ready-made arrangements of a switch and its load, shared by tests, demo and bench.

use std::time::Duration;

use anyhow::Result;

use crate::guest::{self, Guest};
use crate::switch::{Kind, SocketMode, Switch, VhostPort};
use crate::testpmd::{self, Testpmd};

/// Time for a connected front end to be seen as up.
pub const LINK_LIMIT: Duration = Duration::from_secs(60);

/// The bridge of all scenes with one.
pub const BRIDGE: &str = "br0";
/// The ports of all scenes with two.
pub const PORTS: [&str; 2] = ["p0", "p1"];

/// A switch with one bridge, two vhost-user ports, and a testpmd on both.
#[derive(Debug)]
pub struct TestpmdLoop {
    /// First to be dropped: the load.
    pub testpmd: Testpmd,
    /// The switch under test.
    pub switch: Switch,
}

impl TestpmdLoop {
    /// Sets it up without traffic.
    pub fn start(
        kind: Kind,
        core_mask: u64,
        mode: SocketMode,
        options: &testpmd::Options,
    ) -> Result<TestpmdLoop> {
        let (switch, ports) = two_ports(kind, core_mask, mode)?;
        let testpmd = Testpmd::start(options, &[&ports[0], &ports[1]])?;
        switch.wait_link_up(&PORTS, LINK_LIMIT)?;
        Ok(TestpmdLoop { testpmd, switch })
    }
}

/// A switch with one bridge and two vhost-user ports, and a QEMU guest on each with an address set.
#[derive(Debug)]
pub struct TwoGuests {
    /// First to be dropped: the guests. Guest N has the address [`guest::address`] of N.
    pub guests: [Guest; 2],
    /// The switch under test.
    pub switch: Switch,
}

impl TwoGuests {
    /// Boots both at once.
    pub fn start(kind: Kind, core_mask: u64, mode: SocketMode, queues: u16) -> Result<TwoGuests> {
        let options = guest::Options { queues, ..Default::default() };
        TwoGuests::start_with(kind, core_mask, mode, [&options, &options])
    }

    /// As [`TwoGuests::start`], each guest with options of its own.
    pub fn start_with(
        kind: Kind,
        core_mask: u64,
        mode: SocketMode,
        options: [&guest::Options; 2],
    ) -> Result<TwoGuests> {
        let (switch, ports) = two_ports(kind, core_mask, mode)?;
        let first = Guest::start(0, &ports[0], options[0])?;
        let second = Guest::start(1, &ports[1], options[1])?;
        let mut guests = [first, second];
        for guest in &mut guests {
            guest.wait_booted()?;
            let address = guest::address(guest.number());
            guest.run(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"))?;
        }
        switch.wait_link_up(&PORTS, LINK_LIMIT)?;
        Ok(TwoGuests { guests, switch })
    }
}

fn two_ports(kind: Kind, core_mask: u64, mode: SocketMode) -> Result<(Switch, [VhostPort; 2])> {
    let switch = Switch::start(kind, core_mask)?;
    switch.add_bridge(BRIDGE)?;
    let first = switch.add_vhost_port(BRIDGE, PORTS[0], mode)?;
    let second = switch.add_vhost_port(BRIDGE, PORTS[1], mode)?;
    Ok((switch, [first, second]))
}
