//! kill -9 of the switch under load, and its restart: who was connected forwards again without being touched.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::scene::{BRIDGE, LINK_LIMIT, PORTS, TwoGuests};
use lab::switch::{Kind, SocketMode, Switch};
use lab::testpmd::{Options, Testpmd};
use lab::{alone, cpu, guest, wait};

const CORE_MASK: u64 = 0x1;

const ENOUGH_FRAMES: u64 = 20_000;

const FLOW_LIMIT: Duration = Duration::from_secs(90);

/// How often the switch is killed; once could be luck.
const KILLS: usize = 3;

#[test]
fn split_rings_forward_again_after_kill() -> Result<()> {
    testpmd_forwards_again(&Options::default())
}

#[test]
fn packed_rings_forward_again_after_kill() -> Result<()> {
    testpmd_forwards_again(&Options { packed: true, ..Options::default() })
}

#[test]
fn port_numbers_survive_a_kill() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::from_environment()?, CORE_MASK)?;
    switch.add_bridge(BRIDGE)?;
    for name in ["p0", "p1", "p2", "p3"] {
        switch.add_vhost_port(BRIDGE, name, SocketMode::SwitchConnects)?;
    }
    // A gap, so that numbers handed out anew in order would differ.
    switch.ctl(&["del-port", BRIDGE, "p1"])?;
    let before = [switch.ofport("p0")?, switch.ofport("p2")?, switch.ofport("p3")?];
    ensure!(before == [1, 3, 4], "ports are numbered in the order of their creation: {before:?}");
    for _ in 0..KILLS {
        switch.kill()?;
        switch.restart()?;
        wait::until("the port numbers of before", LINK_LIMIT, || {
            let after = ["p0", "p2", "p3"].map(|name| switch.ofport(name));
            Ok(after.iter().flatten().eq(&before).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn guests_that_listen_reconnect() -> Result<()> {
    guests_talk_again(SocketMode::SwitchConnects)
}

#[test]
fn guests_that_connect_reconnect() -> Result<()> {
    guests_talk_again(SocketMode::SwitchListens)
}

/// One testpmd sends all the time, another receives; neither gets a command while the switch is gone.
fn testpmd_forwards_again(options: &Options) -> Result<()> {
    let _alone = alone();
    let options = Options { core: cpu::load_core(), ..options.clone() };
    let mut switch = Switch::start(Kind::from_environment()?, CORE_MASK)?;
    switch.add_bridge(BRIDGE)?;
    let from = switch.add_vhost_port(BRIDGE, PORTS[0], SocketMode::SwitchConnects)?;
    let to = switch.add_vhost_port(BRIDGE, PORTS[1], SocketMode::SwitchConnects)?;
    let mut receiver = Testpmd::start(&options, &[&to])?;
    let mut sender = Testpmd::start(&options, &[&from])?;
    switch.wait_link_up(&PORTS, LINK_LIMIT)?;
    receiver.start_sink()?;
    sender.command("set fwd txonly")?;
    sender.command("start")?;
    receiver.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    for _ in 0..KILLS {
        switch.kill()?;
        let start = Instant::now();
        switch.restart()?;
        receiver.wait_received(1, FLOW_LIMIT)?;
        println!("first frame {:.3} s after the start", start.elapsed().as_secs_f64());
        receiver.wait_received(ENOUGH_FRAMES, FLOW_LIMIT)?;
    }
    Ok(())
}

fn guests_talk_again(mode: SocketMode) -> Result<()> {
    let _alone = alone();
    let mut scene = TwoGuests::start(Kind::from_environment()?, CORE_MASK, mode, 1)?;
    let [client, server] = &mut scene.guests;
    let address = guest::address(server.number());
    let ping = format!("ping -c 1 -W 1 {address}");
    client.run(&ping)?;
    server.run("iperf3 -s -D")?;
    client.run(&format!("iperf3 -c {address} -t 60 > /tmp/load 2>&1 &"))?;
    let received = "cat /sys/class/net/eth0/statistics/rx_bytes";
    let mut count = || -> Result<u64> { Ok(server.run(received)?.parse()?) };
    let before = count()?;
    wait::until("the load to flow", FLOW_LIMIT, || {
        Ok((count()? > before + 1_000_000).then_some(()))
    })?;
    scene.switch.kill()?;
    let (status, _) = client.try_run(&ping)?;
    ensure!(status != 0, "the guests reach each other without a switch");
    scene.switch.restart()?;
    let start = Instant::now();
    wait::until("ping after the restart", FLOW_LIMIT, || {
        Ok((client.try_run(&ping)?.0 == 0).then_some(()))
    })?;
    println!("ping answers {:.1} s after the switch did", start.elapsed().as_secs_f64());
    // The connection of before goes on as well.
    let after = count()?;
    wait::until(
        "the load to go on",
        FLOW_LIMIT,
        || Ok((count()? > after + 1_000_000).then_some(())),
    )
}
