//! Two bridges with the same addresses on both: no frame of one appears on the other.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::scene::LINK_LIMIT;
use lab::switch::{Kind, SocketMode, Switch};
use lab::testpmd::{Options, Testpmd};
use lab::{alone, cpu};

/// Frames that go round on each bridge before the other is looked at.
const ENOUGH_FRAMES: u64 = 50_000;

const FLOW_LIMIT: Duration = Duration::from_secs(90);

/// The frames of the two bridges are told apart by their length, in bytes.
const FRAME_BYTES: [u16; 2] = [64, 192];

#[test]
fn no_frame_crosses_between_bridges() -> Result<()> {
    let _alone = alone();
    let switch = Switch::start(Kind::from_environment()?, 0x1)?;
    let mode = SocketMode::SwitchConnects;
    let mut loads = Vec::new();
    for (number, frame_bytes) in FRAME_BYTES.into_iter().enumerate() {
        let bridge = format!("br{number}");
        switch.add_bridge(&bridge)?;
        let first = switch.add_vhost_port(&bridge, &format!("p{}", 2 * number), mode)?;
        let second = switch.add_vhost_port(&bridge, &format!("p{}", 2 * number + 1), mode)?;
        // Port N of either testpmd has the same MAC address.
        let options = Options { frame_bytes, core: cpu::load_core(), ..Options::default() };
        loads.push(Testpmd::start(&options, &[&first, &second])?);
    }
    switch.wait_link_up(&["p0", "p1", "p2", "p3"], LINK_LIMIT)?;
    let [first, second] = &mut loads[..] else { unreachable!("two bridges") };

    // The second only listens while every frame of the first is flooded: its destination never answers.
    second.start_sink()?;
    first.start_loop(4)?;
    first.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    ensure!(second.received()? == 0, "{} frames crossed", second.received()?);
    second.stop_forwarding()?;

    // Both at once, with the same addresses.
    second.start_loop(4)?;
    second.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    first.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    for (load, frame_bytes) in loads.iter_mut().zip(FRAME_BYTES) {
        load.drain()?;
        for (port, counters) in load.counters()?.iter().enumerate() {
            let own_bytes = counters.rx_packets * u64::from(frame_bytes);
            ensure!(counters.rx_packets > 0, "port {port} received nothing");
            ensure!(counters.rx_bytes == own_bytes, "port {port}: a foreign frame: {counters:?}");
        }
    }
    // Each bridge has learned both addresses for itself.
    for bridge in ["br0", "br1"] {
        let learned = switch.appctl(&["fdb/show", bridge])?;
        for mac in ["02:10:00:00:00:00", "02:10:00:00:00:01"] {
            ensure!(learned.contains(mac), "{bridge} has not learned {mac}:\n{learned}");
        }
    }
    Ok(())
}
