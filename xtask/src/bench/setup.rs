//! Making a running system what a scenario wants, and the guests that go with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::scene::{BRIDGE, PORTS};
use lab::wait;
use virtio_driver::config::{Config, SocketMode};
use virtio_driver::wire::feature;
use virtio_driver::{Driver, Stamp};

use super::frames;
use super::load::Sending;
use super::scenario::{Flows, Pace, Ring, Scenario, Table};
use super::system::System;

/// Descriptors of a busy ring.
const QUEUE_SIZE: u16 = 1024;

/// Frames in flight or waiting in each busy transmit ring.
const DEPTH: u16 = 512;

/// The MTU unless a scenario has longer frames.
const MTU: u16 = 1500;

/// Bytes of headers that the MTU does not count.
const ETHERNET_BYTES: u16 = 14;

/// Room for the virtio-net header, in bytes.
const VIRTIO_HEADER_BYTES: u32 = 12;

/// Time for the first frames to be taken.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Configures `system` and connects its guests. The system must be running.
pub fn prepare(system: &System, scenario: &Scenario) -> Result<[Driver; 2]> {
    if let Some(switch) = system.switch() {
        switch.set_flows(BRIDGE, &flow_table(scenario))?;
        let mtu = scenario.frame_bytes.saturating_sub(ETHERNET_BYTES).max(MTU);
        for port in PORTS {
            switch.ctl(&["set", "Interface", port, &format!("mtu_request={mtu}")])?;
        }
        let probability = if scenario.table.exact_match() { 100 } else { 0 };
        let setting = format!("other_config:emc-insert-inv-prob={probability}");
        switch.ctl(&["set", "Open_vSwitch", ".", &setting])?;
    }
    let [first, second] = system.sockets();
    let mut drivers = [
        Driver::connect(driver_config(SocketMode::Connect(first), scenario))?,
        Driver::connect(driver_config(SocketMode::Connect(second), scenario))?,
    ];
    system.wait_link_up()?;
    say_hello(&mut drivers, scenario)?;
    Ok(drivers)
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
    config.queue_pairs = scenario.queues;
    config.queue_size = QUEUE_SIZE;
    let whole = u32::from(scenario.frame_bytes) + VIRTIO_HEADER_BYTES;
    config.rx_buffer = config.rx_buffer.max(whole);
    config.tx_buffer = config.tx_buffer.max(whole);
    config
}

/// Each guest sends a frame, so that both addresses are learned.
fn say_hello(drivers: &mut [Driver; 2], scenario: &Scenario) -> Result<()> {
    let deadline = Instant::now() + HELLO_LIMIT;
    for (guest, driver) in (0..).zip(drivers) {
        let mut frame = Vec::new();
        frames::write(guest, 0, scenario.frame_bytes.into(), &mut frame);
        driver.tx(0, &[frame])?;
        ensure!(driver.drain_tx(0, deadline)?, "the first frame of guest {guest} is not taken");
    }
    wait::pass(Duration::from_millis(20))
}

/// What the guests send in `scenario`.
pub fn sending(scenario: &Scenario) -> Sending {
    let Pace::Saturating = scenario.pace;
    let flows = scenario.flows.count();
    let bytes = usize::from(scenario.frame_bytes);
    let frame = move |guest, number: u16, out: &mut Vec<u8>| {
        frames::write(guest, u32::from(number) % flows, bytes, out);
    };
    // Round and round, the buffers carry a number of flows that divides theirs by themselves.
    let stamped = !u32::from(DEPTH).is_multiple_of(flows);
    let values = match scenario.flows {
        Flows::Uniform(count) => stamped.then(|| frames::uniform(count)),
        Flows::Zipf(count) => Some(frames::zipf(count)),
    };
    Sending {
        depth: DEPTH,
        frame: Arc::new(frame),
        stamp: values.map(|values| Stamp { at: frames::PORTS_AT, values, next: 0 }),
        both_ways: scenario.both_ways,
    }
}

/// The flows of a scenario as text, one on each line.
fn flow_table(scenario: &Scenario) -> String {
    match scenario.table {
        Table::Normal => "actions=NORMAL\n".to_owned(),
        Table::PortToPort => {
            "in_port=p0,actions=output:p1\nin_port=p1,actions=output:p0\n".to_owned()
        }
        Table::TenTables | Table::Megaflows(_) | Table::Masks(_) => "actions=NORMAL\n".to_owned(),
    }
}

/// Waits until the guests, whose drivers are gone, are no longer seen, and stops the system again.
pub fn finish(system: &System) -> Result<()> {
    system.resume()?;
    system.wait_link_down()?;
    system.pause()
}
