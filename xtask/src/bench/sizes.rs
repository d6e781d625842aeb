//! Latency and bandwidth by message size, over TCP and UDP, between two virtual machines: `cargo xtask bench --sizes`.
//!
//! qperf in QEMU guests on each system, as people measure it on their clouds. What such figures are worth says
//! [`super::guests`].

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::progress::Step;
use lab::{guest, packages, wait};
use serde::Serialize;

use super::guests::{self, Scene};
use super::statistics::median;
use super::system::Kind;

/// The largest message over TCP and over UDP, in bytes.
const TCP_MAX: u64 = 128 << 20;
const UDP_MAX: u64 = 1 << 10;

/// Seconds of a run: one for each so many bytes of a message, so that emulated guests exchange some of the largest.
const BYTES_A_SECOND: u64 = 8 << 20;
const SECONDS_MAX: u64 = 12;

/// Time in which a guest's qperf listens after it was started.
const LISTEN_LIMIT: Duration = Duration::from_secs(20);

/// What qperf measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// Half of the time in which a message goes there and another comes back.
    TcpLatency,
    /// Bytes that arrive in a second.
    TcpBandwidth,
    /// As over TCP.
    UdpLatency,
    /// Bytes that arrive in a second, of more that are sent.
    UdpBandwidth,
}

/// All, in the order of the report.
pub const TESTS: [Test; 4] =
    [Test::TcpLatency, Test::UdpLatency, Test::TcpBandwidth, Test::UdpBandwidth];

impl Test {
    /// As qperf calls it, and the line of its output that counts.
    fn qperf(self) -> (&'static str, &'static str) {
        match self {
            Test::TcpLatency => ("tcp_lat", "latency"),
            Test::TcpBandwidth => ("tcp_bw", "bw"),
            Test::UdpLatency => ("udp_lat", "latency"),
            Test::UdpBandwidth => ("udp_bw", "recv_bw"),
        }
    }

    /// Whether less is better.
    pub fn is_latency(self) -> bool {
        matches!(self, Test::TcpLatency | Test::UdpLatency)
    }

    /// Message sizes, each `factor` times the one before, up to the largest.
    fn sizes(self, factor: u64) -> Vec<u64> {
        let max = match self {
            Test::TcpLatency | Test::TcpBandwidth => TCP_MAX,
            Test::UdpLatency | Test::UdpBandwidth => UDP_MAX,
        };
        let mut sizes: Vec<u64> = std::iter::successors(Some(1), |size| Some(size * factor))
            .take_while(|s| *s < max)
            .collect();
        sizes.push(max);
        sizes
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Test::TcpLatency => "TCP latency",
            Test::TcpBandwidth => "TCP bandwidth",
            Test::UdpLatency => "UDP latency",
            Test::UdpBandwidth => "UDP bandwidth",
        })
    }
}

/// One system at one size.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// What.
    pub test: Test,
    /// Bytes of a message.
    pub bytes: u64,
    /// Which system.
    pub system: Kind,
    /// Median of the runs: microseconds, or megabits a second.
    pub value: f64,
    /// Every run.
    pub runs: Vec<f64>,
}

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Runs of each system at each size.
    pub rounds: usize,
    /// Each size is so many times the one before.
    pub factor: u64,
    /// The virtual machines.
    pub guests: guests::Run,
}

/// Starts a system with its guests, of which the second's qperf listens.
fn start(kind: Kind, plan: &Plan) -> Result<Scene> {
    let mut scene = Scene::start(kind, vec![packages::QPERF.file.into()], plan.guests)?;
    scene.resume()?;
    scene.guests[1].run("qperf </dev/null >/dev/null 2>&1 &")?;
    wait_talking(&mut scene)?;
    scene.pause()?;
    Ok(scene)
}

/// Waits until a first message gets through.
fn wait_talking(scene: &mut Scene) -> Result<()> {
    let mut last = None;
    let waited = wait::until("the guests' qperf", LISTEN_LIMIT, || {
        let run = run_one(scene, Test::TcpLatency, 1);
        Ok(run.map_err(|error| last = Some(error)).ok())
    });
    waited
        .map(drop)
        .map_err(|error| last.map_or(error, |last| last.context("no message got through")))
}

/// Microseconds, or megabits a second.
fn run_one(scene: &mut Scene, test: Test, bytes: u64) -> Result<f64> {
    let (name, line) = test.qperf();
    let seconds = (bytes / BYTES_A_SECOND).clamp(1, SECONDS_MAX);
    let server = guest::address(scene.guests[1].number());
    let said =
        scene.guests[0].run(&format!("qperf {server} -t {seconds} -m {bytes} -uu {name}"))?;
    parse(&said, line).with_context(|| format!("qperf {name}, {bytes} bytes: {said}"))
}

/// Reads a line like `latency = 9222 ns` or `bw = 44148928 bytes/sec` as microseconds or megabits a second.
fn parse(text: &str, name: &str) -> Result<f64> {
    let value = |line: &str| {
        let (label, value) = line.split_once('=')?;
        (label.trim() == name).then(|| value.trim().to_owned())
    };
    let value = text.lines().find_map(value).with_context(|| format!("no line says {name}"))?;
    let (number, unit) = value.split_once(' ').context("a figure without unit")?;
    let number: f64 = number.parse().with_context(|| format!("not a number: {number}"))?;
    ensure!(number > 0.0, "{name} is {number}");
    match unit.trim() {
        "ns" => Ok(number / 1e3),
        "bytes/sec" => Ok(number * 8.0 / 1e6),
        unit => bail!("{name} is in {unit}"),
    }
}

/// Sets the systems up and measures each at each size in turn.
pub fn run(kinds: &[Kind], plan: &Plan) -> Result<Vec<Point>> {
    packages::ensure(packages::for_machine(plan.guests.machine))?;
    packages::ensure(&[packages::QPERF])?;
    let mut scenes = Vec::new();
    for &kind in kinds.iter().filter(|kind| **kind != Kind::DpdkIo) {
        scenes.push(start(kind, plan)?);
    }
    let mut points = Vec::new();
    for test in TESTS {
        println!("\n{test}, {}", unit(test));
        println!("  {:>9} {}", "message", heads(&scenes));
        for bytes in test.sizes(plan.factor) {
            let step = Step::start(format!("{test}, {}", size(bytes)));
            let measured = measure(&mut scenes, test, bytes, plan)?;
            drop(step);
            let value = |scene: &Scene| {
                let point = measured.iter().find(|p| p.system == scene.system.kind());
                format!("{:>14}", point.map_or("-".to_owned(), |p| figure(p.value)))
            };
            let values: String = scenes.iter().map(value).collect();
            println!("  {:>9} {values}", size(bytes));
            points.extend(measured);
        }
    }
    for scene in &mut scenes {
        scene.system.check_alive()?;
    }
    ensure!(!points.is_empty(), "no run came to a figure");
    Ok(points)
}

fn heads(scenes: &[Scene]) -> String {
    scenes.iter().map(|scene| format!("{:>14}", scene.system.kind().name())).collect()
}

fn measure(scenes: &mut [Scene], test: Test, bytes: u64, plan: &Plan) -> Result<Vec<Point>> {
    let mut runs = vec![Vec::new(); scenes.len()];
    for round in 0..plan.rounds {
        for step in 0..scenes.len() {
            let at = (step + round) % scenes.len();
            let scene = &mut scenes[at];
            scene.resume()?;
            let value = run_one(scene, test, bytes);
            scene.pause()?;
            wait::check_interrupted()?;
            match value {
                Ok(value) => runs[at].push(value),
                // A size that guests have no memory for, or no time, says nothing about the others.
                Err(error) => println!("  {}: {error:#}", scene.system.kind()),
            }
        }
    }
    let point = |(scene, runs): (&Scene, Vec<f64>)| {
        let value = median(runs.clone())?;
        Some(Point { test, bytes, system: scene.system.kind(), value, runs })
    };
    Ok(scenes.iter().zip(runs).filter_map(point).collect())
}

/// What the figures of a test are in.
pub fn unit(test: Test) -> &'static str {
    if test.is_latency() { "microseconds one way" } else { "Mbit/s received" }
}

/// A message's size in words.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 => format!("{} MB", b >> 20),
        b if b >= 1 << 10 => format!("{} KB", b >> 10),
        b => format!("{b} B"),
    }
}

/// Three digits, as far as they mean anything.
pub fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_in_the_units_of_qperf() {
        let latency = "tcp_lat:\n    latency  =  9222 ns\n";
        assert_eq!(parse(latency, "latency").unwrap(), 9.222);
        let both =
            "udp_bw:\n    send_bw  =  12618176 bytes/sec\n    recv_bw  =   6250000 bytes/sec\n";
        assert_eq!(parse(both, "recv_bw").unwrap(), 50.0);
        for (text, name) in [
            (both, "bw"),
            ("latency = 3 fortnights", "latency"),
            ("latency = many ns", "latency"),
            ("latency = 0 ns", "latency"),
            ("failed to connect", "bw"),
        ] {
            assert!(parse(text, name).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_go_from_one_byte_to_the_largest() {
        assert_eq!(Test::UdpLatency.sizes(4), [1, 4, 16, 64, 256, 1024]);
        let doubling = Test::TcpBandwidth.sizes(2);
        assert_eq!((doubling.len(), doubling[27]), (28, TCP_MAX));
        assert_eq!(Test::TcpLatency.sizes(4).last(), Some(&TCP_MAX));
        assert_eq!([1, 1024, TCP_MAX].map(size), ["1 B", "1 KB", "128 MB"]);
    }
}
