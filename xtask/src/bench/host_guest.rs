//! TCP between the host and a virtual machine: `cargo xtask bench --host-guest`.
//!
//! The same guest on this switch, on OVS-DPDK, and on a Linux bridge that a veth pair joins with its host; iperf3
//! both ways. On the switches the host's end is the bridge's own port. All run at once, those whose turn it is not are
//! stopped. QEMU emulates the guest's processor, which is then most of every figure; user-mode Linux (`--guests user-mode`) is not
//! emulated.
//! A thread that polls for ever keeps one of two cores from all else, iperf3 included, which a Linux bridge does not:
//! `--pmd-sleep-max` lets it sleep.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::guest::{self, Guest, Options};
use lab::netns::{Namespace, run_beside};
use lab::packages;
use lab::progress::Step;
use lab::scene::{BRIDGE, LINK_LIMIT};
use lab::switch::SocketMode;
use lab::wait;
use serde::Serialize;

use super::LOAD_CORE;
use super::guests::{self, start_system};
use super::statistics::median;
use super::system::{Kind, System};

/// The guest's port; the two that systems have are for other loads.
const PORT: &str = "vm";
/// The host's address; the guest has that of guest 0.
const HOST: &str = "10.9.0.200";
/// Seconds of a run.
const SECONDS: u32 = 3;
/// Time in which the guest's iperf3 listens after it was started.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);

/// What joins the host and its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// A switch.
    System(Kind),
    /// veth, a Linux bridge, and a tap that QEMU itself reads.
    LinuxBridge,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Path::System(kind) => kind.name(),
            Path::LinuxBridge => "linux-bridge",
        })
    }
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// From the host.
    ToGuest,
    /// From the guest.
    ToHost,
}

/// One path, one way.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// What joins them.
    pub path: Path,
    /// Which way.
    pub way: Way,
    /// Median of the runs, megabits a second received.
    pub mbits: f64,
    /// Every run.
    pub runs: Vec<f64>,
}

/// The host's side.
enum Host {
    Switch(Box<System>),
    Linux(Namespace),
}

/// A path with its guest.
struct Scene {
    /// First to be dropped.
    guest: Guest,
    host: Host,
}

impl Scene {
    fn start(path: Path, run: guests::Run) -> Result<Scene> {
        let (guest, host) = match path {
            Path::System(kind) => on_switch(kind, run)?,
            Path::LinuxBridge => on_linux(run)?,
        };
        let step = Step::start(format!("booting a guest on {path}"));
        let mut scene = Scene { guest, host };
        scene.guest.wait_booted()?;
        scene.guest.pin(LOAD_CORE)?;
        let address = guest::address(0);
        scene.guest.run(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"))?;
        if let Host::Switch(system) = &scene.host {
            let switch = system.switch().context("a switch")?;
            switch.wait_link_up(&[PORT], LINK_LIMIT)?;
        }
        scene.guest.run("iperf3 -s -D")?;
        scene.run(Way::ToGuest, 1)?;
        scene.pause()?;
        step.done();
        Ok(scene)
    }

    fn path(&self) -> Path {
        match &self.host {
            Host::Switch(system) => Path::System(system.kind()),
            Host::Linux(_) => Path::LinuxBridge,
        }
    }

    fn pause(&self) -> Result<()> {
        self.guest.process().pause()?;
        match &self.host {
            Host::Switch(system) => system.pause(),
            Host::Linux(_) => Ok(()),
        }
    }

    fn resume(&self) -> Result<()> {
        if let Host::Switch(system) = &self.host {
            system.resume()?;
        }
        self.guest.process().resume()
    }

    /// Megabits a second.
    fn run(&self, way: Way, seconds: u32) -> Result<f64> {
        let pid = match &self.host {
            Host::Switch(system) => system.switch().context("a switch")?.daemon().id(),
            Host::Linux(namespace) => namespace.pid(),
        };
        let reverse = if way == Way::ToHost { " -R" } else { "" };
        let (address, limit) = (guest::address(0), seconds + 20);
        let line = format!("timeout {limit} iperf3 -f m -t {seconds} -c {address}{reverse}");
        // Between two runs the server closes its socket for a moment, and resets who came too early.
        let mut last = None;
        let report = wait::until("the guest's iperf3", LISTEN_LIMIT, || {
            Ok(run_beside(pid, &line).map_err(|error| last = Some(error)).ok())
        });
        let report = report.map_err(|error| last.map_or(error, |l| l.context("iperf3 failed")));
        received_mbits(&report?)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A stopped process could not end by itself.
        let _ = self.resume();
    }
}

fn on_switch(kind: Kind, run: guests::Run) -> Result<(Guest, Host)> {
    let system = start_system(kind, run.sleep_us)?;
    system.resume()?;
    let switch = system.switch().context("a guest needs a switch")?;
    // Segmentation is what OVS 3.1 offers only where it connects.
    let port = switch.add_vhost_port(BRIDGE, PORT, SocketMode::SwitchConnects)?;
    let host = switch.daemon().id();
    run_beside(host, &format!("ip addr add {HOST}/24 dev {BRIDGE}"))?;
    run_beside(host, &format!("ip link set {BRIDGE} up"))?;
    let guest = Guest::start(0, &port, &options(run))?;
    Ok((guest, Host::Switch(Box::new(system))))
}

fn on_linux(run: guests::Run) -> Result<(Guest, Host)> {
    let namespace = Namespace::new()?;
    for line in [
        "ip link add lbr type bridge",
        "ip link set lbr up",
        "ip link add host type veth peer name hostp",
        "ip link set hostp master lbr up",
        "ip link set host up",
        &format!("ip addr add {HOST}/24 dev host"),
        "ip tuntap add tap0 mode tap vnet_hdr",
        "ip link set tap0 master lbr up",
    ] {
        namespace.run(line)?;
    }
    let guest = Guest::start_on_tap(0, &namespace, "tap0", &options(run))?;
    Ok((guest, Host::Linux(namespace)))
}

fn options(run: guests::Run) -> Options {
    Options { machine: run.machine, ..Options::default() }
}

/// The rate in iperf3's summary of the receiving side.
fn received_mbits(report: &str) -> Result<f64> {
    let line = report.lines().rev().find(|l| l.contains("receiver") && l.contains("Mbits/sec"));
    let line = line.with_context(|| format!("iperf3 reported no rate:\n{report}"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "Mbits/sec").context("no unit")?;
    words[at.saturating_sub(1)].parse().with_context(|| format!("no rate in {line}"))
}

/// Sets the paths up and measures each in turn, `rounds` times.
pub fn run(kinds: &[Kind], rounds: usize, run: guests::Run) -> Result<Vec<Point>> {
    packages::ensure(packages::for_machine(run.machine))?;
    let switches = kinds.iter().filter(|kind| **kind != Kind::DpdkIo);
    let paths: Vec<Path> = switches.map(|k| Path::System(*k)).chain([Path::LinuxBridge]).collect();
    let mut scenes = Vec::new();
    for &path in &paths {
        scenes.push(Scene::start(path, run)?);
    }
    let mut points = Vec::new();
    for way in [Way::ToGuest, Way::ToHost] {
        let mut runs = vec![Vec::new(); scenes.len()];
        for round in 0..rounds {
            for step in 0..scenes.len() {
                let at = (step + round) % scenes.len();
                let scene = &scenes[at];
                scene.resume()?;
                let value = scene.run(way, SECONDS);
                scene.pause()?;
                wait::check_interrupted()?;
                runs[at].push(value.with_context(|| format!("{}, {way:?}", scene.path()))?);
            }
        }
        for (scene, runs) in scenes.iter().zip(runs) {
            let (path, mbits) = (scene.path(), median(runs.clone()).context("no run")?);
            ensure!(mbits > 0.0, "{path}: nothing was received");
            points.push(Point { path, way, mbits, runs });
        }
        print(way, &points);
    }
    Ok(points)
}

/// The figures of one way, with what the first is of the others.
fn print(way: Way, points: &[Point]) {
    println!("\n{way:?}, Mbit/s received");
    let points: Vec<&Point> = points.iter().filter(|p| p.way == way).collect();
    for p in &points {
        let ratio = points[0].mbits / p.mbits;
        println!(
            "  {:>14} {:>8.0}   {} is {ratio:.2} of it   {:.0?}",
            p.path, p.mbits, points[0].path, p.runs
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_counts() {
        let report = "[  5]   0.00-3.00   sec   359 MBytes  1003 Mbits/sec    0             sender\n\
                      [  5]   0.00-3.04   sec   358 MBytes   988 Mbits/sec                  receiver\n";
        assert_eq!(received_mbits(report).unwrap(), 988.0);
        assert!(received_mbits("iperf3: error - unable to connect to server").is_err());
    }
}
