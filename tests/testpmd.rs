//! DPDK's virtio driver in all the shapes a guest can have: frames flow, and both sides count the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::scene::{PORTS, TestpmdLoop};
use lab::switch::{Kind, SocketMode, Switch};
use lab::testpmd::{Options, PortCounters};
use lab::{alone, cpu, wait};

/// The switch polls on core 0.
const CORE_MASK: u64 = 0x1;

/// Frames that must come back before a loop counts as flowing: many times all rings of the scene.
const ENOUGH_FRAMES: u64 = 100_000;

/// Time for them on a core shared with others.
const FLOW_LIMIT: Duration = Duration::from_secs(90);

/// Time until the statistics column has followed: OVS writes it every 5 s.
const STATISTICS_LIMIT: Duration = Duration::from_secs(20);

/// Private memory allowed to our daemon, in kilobytes: what step 1 promises.
const MEMORY_LIMIT_KB: u64 = 64 * 1024;

#[test]
fn split_rings() -> Result<()> {
    forwards(SocketMode::SwitchConnects, &Options { mergeable: false, ..Options::default() })
}

#[test]
fn split_rings_with_mergeable_buffers() -> Result<()> {
    forwards(SocketMode::SwitchConnects, &Options::default())
}

#[test]
fn split_rings_in_order() -> Result<()> {
    forwards(SocketMode::SwitchConnects, &Options { in_order: true, ..Options::default() })
}

#[test]
fn split_rings_vectorized() -> Result<()> {
    let options =
        Options { mergeable: false, in_order: false, vectorized: true, ..Options::default() };
    forwards(SocketMode::SwitchConnects, &options)
}

#[test]
fn packed_rings() -> Result<()> {
    let options = Options { packed: true, mergeable: false, ..Options::default() };
    forwards(SocketMode::SwitchConnects, &options)
}

#[test]
fn packed_rings_with_mergeable_buffers() -> Result<()> {
    forwards(SocketMode::SwitchConnects, &Options { packed: true, ..Options::default() })
}

#[test]
fn packed_rings_in_order() -> Result<()> {
    let options = Options { packed: true, in_order: true, ..Options::default() };
    forwards(SocketMode::SwitchConnects, &options)
}

#[test]
fn packed_rings_in_order_without_mergeable_buffers() -> Result<()> {
    let options = Options { packed: true, mergeable: false, in_order: true, ..Options::default() };
    forwards(SocketMode::SwitchConnects, &options)
}

#[test]
fn small_rings() -> Result<()> {
    forwards(SocketMode::SwitchConnects, &Options { queue_size: 256, ..Options::default() })
}

#[test]
fn large_frames_of_the_ordinary_mtu() -> Result<()> {
    forwards(SocketMode::SwitchConnects, &Options { frame_bytes: 1514, ..Options::default() })
}

#[test]
fn switch_listens_split() -> Result<()> {
    forwards(SocketMode::SwitchListens, &Options::default())
}

#[test]
fn switch_listens_packed() -> Result<()> {
    forwards(SocketMode::SwitchListens, &Options { packed: true, ..Options::default() })
}

#[test]
fn two_queues_on_two_cores() -> Result<()> {
    let _alone = alone();
    ensure!(cpu::count() >= 2, "this test needs two cores");
    let options = Options { queues: 2, core: cpu::load_core(), ..Options::default() };
    let mode = SocketMode::SwitchConnects;
    let mut scene = TestpmdLoop::start(Kind::from_environment()?, 0x3, mode, &options)?;
    loops_and_counts(&mut scene)?;
    for port in 0..PORTS.len() {
        let counters = scene.testpmd.extended_counters(port)?;
        for counter in
            ["rx_q0_good_packets", "rx_q1_good_packets", "tx_q0_good_packets", "tx_q1_good_packets"]
        {
            let value = counters.get(counter).with_context(|| format!("no {counter}"))?;
            ensure!(*value > 0, "port {port}: {counter} is 0: a queue is not served");
        }
    }
    Ok(())
}

#[test]
fn memory_stays_small() -> Result<()> {
    let _alone = alone();
    let kind = Kind::from_environment()?;
    let options = Options { core: cpu::load_core(), ..Options::default() };
    let mut scene = TestpmdLoop::start(kind, CORE_MASK, SocketMode::SwitchConnects, &options)?;
    loops_and_counts(&mut scene)?;
    let kb = cpu::private_memory_kb(scene.switch.daemon().id())?;
    println!("{kind}: {kb} kB of private memory with two ports");
    // OVS-DPDK is not held to what this switch promises.
    ensure!(kind != Kind::Ours || kb < MEMORY_LIMIT_KB, "{kb} kB, limit {MEMORY_LIMIT_KB} kB");
    Ok(())
}

#[test]
fn a_front_end_that_dies_leaves_the_other_port_alone() -> Result<()> {
    let _alone = alone();
    let options = Options { core: cpu::load_core(), ..Options::default() };
    let mode = SocketMode::SwitchConnects;
    let kind = Kind::from_environment()?;
    let mut scene = TestpmdLoop::start(kind, CORE_MASK, mode, &options)?;
    let third = scene.switch.add_vhost_port("br0", "p2", mode)?;
    let dying = lab::testpmd::Testpmd::start(&options, &[&third])?;
    scene.switch.wait_link_up(&["p2"], FLOW_LIMIT)?;
    scene.testpmd.start_loop(8)?;
    scene.testpmd.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    drop(dying); // SIGKILL
    wait::until("p2 to be down", FLOW_LIMIT, || {
        Ok((scene.switch.interface("p2", "link_state")? == "down").then_some(()))
    })?;
    scene.testpmd.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    // The same port takes the next front end.
    let _next = lab::testpmd::Testpmd::start(&options, &[&third])?;
    scene.switch.wait_link_up(&["p2"], FLOW_LIMIT)?;
    scene.switch.check_alive()
}

fn forwards(mode: SocketMode, options: &Options) -> Result<()> {
    let _alone = alone();
    let options = Options { core: cpu::load_core(), ..options.clone() };
    let mut scene = TestpmdLoop::start(Kind::from_environment()?, CORE_MASK, mode, &options)?;
    loops_and_counts(&mut scene)?;
    scene.switch.stop()
}

/// Lets frames go round, stops them, and compares the counters of both sides.
fn loops_and_counts(scene: &mut TestpmdLoop) -> Result<()> {
    scene.testpmd.start_loop(8)?;
    scene.testpmd.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    scene.testpmd.drain()?;
    let counters = scene.testpmd.counters()?;
    for (port, peer) in PORTS.iter().zip(&counters) {
        same_counters(&scene.switch, port, peer)?;
    }
    scene.switch.check_alive()
}

/// The switch's statistics of `port` are those of its `peer`, and it saw nothing malformed.
fn same_counters(switch: &Switch, port: &str, peer: &PortCounters) -> Result<()> {
    if switch.kind() == Kind::OvsDpdk && !switch.statistics(port)?.contains_key("rx_packets") {
        // OVS 3.1 counts nothing on `dpdkvhostuser` ports.
        return Ok(());
    }
    let expected = [
        ("rx_packets", peer.tx_packets),
        ("rx_bytes", peer.tx_bytes),
        ("tx_packets", peer.rx_packets),
        ("tx_bytes", peer.rx_bytes),
    ];
    let same = || {
        let statistics = switch.statistics(port)?;
        let equal = expected.iter().all(|(name, value)| statistics.get(*name) == Some(value));
        Ok(equal.then_some(statistics))
    };
    let waited = wait::until("equal counters", STATISTICS_LIMIT, same);
    let statistics = waited.with_context(|| {
        format!("{port}: testpmd has {expected:?}, the switch {:?}", switch.statistics(port))
    })?;
    for name in ["rx_errors", "rx_dropped"] {
        // OVS leaves out what its ports cannot count; ours counts both.
        let value = statistics.get(name).copied();
        let value = if switch.kind() == Kind::Ours { value } else { value.or(Some(0)) };
        ensure!(value == Some(0), "{port}: {name} is {value:?}");
    }
    Ok(())
}
