//! Receive coalescing on the running switch, and super-frames that leave it through AF_XDP: TCP between a
//! namespace whose frames come one by one, as from a wire, and a QEMU guest with TSO. Both kernels check every
//! checksum.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::guest::{self, Guest, Options};
use lab::netns::{Namespace, wire};
use lab::switch::{Kind, SocketMode, Switch};
use lab::{alone, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// Seconds of iperf3.
const SECONDS: u32 = 2;
const FAR: &str = "v0";

/// What one run of TCP came to.
struct Run {
    /// Megabits a second that arrived.
    rate: f64,
    /// Cycles that the switch's threads spent on each byte of payload that arrived.
    cycles_a_byte: f64,
    /// Super-frames that came from the namespace's port, which counts from the last change of its settings on,
    /// and that went to the guest.
    received: u64,
    sent: u64,
}

struct Scene {
    /// First to be dropped.
    guest: Guest,
    near: Namespace,
    switch: Switch,
}

impl Scene {
    fn start() -> Result<Scene> {
        let switch = Switch::start(Kind::Ours, 0x1)?;
        switch.add_bridge("br0")?;
        let port = switch.add_vhost_port("br0", "p0", SocketMode::SwitchConnects)?;
        let mut guest = Guest::start(0, &port, &Options::default())?;
        let near = Namespace::new()?;
        wire(&switch, FAR, &near, "v0p", "10.9.0.9")?;
        // What a wire carries has its checksums, and is no longer than the MTU.
        near.run("ethtool -K v0p tx off")?;
        switch.ctl(&["add-port", "br0", FAR, "--", "set", "Interface", FAR, "type=afxdp"])?;
        guest.wait_booted()?;
        let address = guest::address(0);
        guest.run(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"))?;
        switch.wait_link_up(&["p0"], LIMIT)?;
        guest.run("iperf3 -s -D")?;
        let scene = Scene { guest, near, switch };
        scene.near.run(&format!("ping -c 3 -i 0.1 -W 10 {address}"))?;
        Ok(scene)
    }

    fn set(&self, settings: &[&str]) -> Result<()> {
        self.switch.ctl(&[&["set", "Interface", FAR], settings].concat()).map(drop)?;
        self.near.run(&format!("ping -c 1 -i 0.2 -w 20 {}", guest::address(0))).map(drop)
    }

    /// TCP from the namespace to the guest.
    fn run(&self) -> Result<Run> {
        let (cycles, before) = (self.cycles()?, self.switch.statistics("p0")?);
        let (bytes, rate) = self.iperf("")?;
        let cycles_a_byte = (self.cycles()? - cycles) as f64 / bytes;
        // Both rows are written now and then.
        wait::until("statistics of what was sent", LIMIT, || {
            let (guest, far) = (self.switch.statistics("p0")?, self.switch.statistics(FAR)?);
            let passed = guest["tx_bytes"] - before["tx_bytes"];
            let sent = guest["tx_super_frames"] - before["tx_super_frames"];
            let received = far["rx_super_frames"];
            Ok((passed as f64 > bytes).then_some(Run { rate, cycles_a_byte, received, sent }))
        })
    }

    /// Bytes of payload that arrived, and megabits a second.
    fn iperf(&self, more: &str) -> Result<(f64, f64)> {
        let address = guest::address(0);
        let command = format!("timeout 60 iperf3 -f m -t {SECONDS} -c {address}{more}");
        let said = self.near.run(&command)?;
        let line = said.lines().rev().find(|l| l.contains("receiver")).context("no rate")?;
        let rate: f64 = line.split_whitespace().nth(6).context("no rate")?.parse()?;
        Ok((rate * 125e3 * f64::from(SECONDS), rate))
    }

    /// Cycles that threads of the switch spent on packets.
    fn cycles(&self) -> Result<u64> {
        let shown = self.switch.appctl(&["dpif-netdev/pmd-stats-show"])?;
        let lines = shown.lines().filter_map(|l| l.trim().strip_prefix("processing cycles: "));
        lines.map(|l| Ok(l.split(' ').next().context("no number")?.parse::<u64>()?)).sum()
    }
}

/// A kernel's counts of wrong checksums.
fn no_wrong_checksums(snmp: &str) -> Result<()> {
    for protocol in ["Ip:", "Tcp:"] {
        let mut lines = snmp.lines().filter(|l| l.starts_with(protocol));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            let wrong = ["InCsumErrors", "InHdrErrors", "InErrs"].contains(&name);
            ensure!(!wrong || value == "0", "{protocol} {name} is {value}");
        }
    }
    Ok(())
}

#[test]
fn segments_from_a_netdev_come_to_a_guest_as_super_frames() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::start()?;
    for kind in ["type=afxdp", "type=system"] {
        scene.set(&[kind, "options:rx-gro=false"])?;
        let plain = scene.run()?;
        scene.set(&["options:rx-gro=true"])?;
        let joined = scene.run()?;
        for (what, run) in [("without", &plain), ("with", &joined)] {
            let (rate, cycles) = (run.rate, run.cycles_a_byte);
            println!("{kind} {what} rx-gro: {rate} Mbit/s, {cycles:.2} cycles a byte");
        }
        ensure!(plain.received == 0 && plain.sent == 0, "nobody asked for it");
        ensure!(joined.received > 100 && joined.sent > 100, "{} {}", joined.received, joined.sent);
    }
    scene.set(&["type=afxdp"])?;
    println!("from the guest: {} Mbit/s", scene.iperf(" -R")?.1);
    wait::until("segments", LIMIT, || {
        Ok((scene.switch.statistics(FAR)?.get("tx_sw_segments") > Some(&1000)).then_some(()))
    })?;
    no_wrong_checksums(&scene.near.run("cat /proc/net/snmp")?)?;
    no_wrong_checksums(&scene.guest.run("cat /proc/net/snmp")?)?;
    scene.switch.ctl(&["--no-wait", "set", "Interface", FAR, "options:rx-gro=on"])?;
    wait::until("an error", LIMIT, || {
        Ok(scene.switch.interface(FAR, "error")?.contains("neither true nor false").then_some(()))
    })?;
    scene.switch.check_alive()
}
