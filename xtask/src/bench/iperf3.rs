//! iperf3 between two virtual machines on each system in turn: `cargo xtask bench --iperf3`.
//!
//! What arrives in a second is mostly the guests' own work ([`super::guests`]), so the polling thread's cycles for
//! each byte are measured besides.

use anyhow::{Context, Result, ensure};
use lab::{guest, packages, wait};
use serde::Serialize;

use super::guests::{self, Scene};
use super::statistics::Median;
use super::system::Kind;

/// Seconds of a run.
const SECONDS: u32 = 3;

/// One run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Run {
    /// On which system.
    pub system: Kind,
    /// Megabits of payload that arrived in a second.
    pub megabits: f64,
    /// Cycles of the polling thread, polls of empty queues not among them, for each byte of payload that arrived.
    pub cycles_a_byte: f64,
}

/// What all runs came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// A run of each system, first the one in question.
    pub rounds: Vec<Vec<Run>>,
    /// By how many times more arrives with the first system than with the second.
    pub rate: Option<Median>,
    /// Cycles a byte of the first by those of the second.
    pub cycles: Option<Median>,
}

/// Sets the systems up and takes `rounds` runs of each, alternating.
pub fn run(kinds: &[Kind], rounds: usize, run: guests::Run) -> Result<Outcome> {
    packages::ensure(packages::for_machine(run.machine))?;
    let mut scenes = Vec::new();
    for &kind in kinds.iter().filter(|kind| **kind != Kind::DpdkIo) {
        let mut scene = Scene::start(kind, Vec::new(), run)?;
        scene.resume()?;
        scene.guests[1].run("iperf3 -s -D")?;
        let address = guest::address(scene.guests[1].number());
        scene.guests[0].run(&format!("ping -c 3 -W 10 {address}"))?;
        scene.pause()?;
        scenes.push(scene);
    }
    ensure!(!scenes.is_empty(), "iperf3 needs a switch");
    let mut all = Vec::new();
    for round in 0..rounds {
        let mut runs = Vec::new();
        for step in 0..scenes.len() {
            let at = (step + round) % scenes.len();
            runs.push((at, take(&mut scenes[at])?));
            wait::check_interrupted()?;
        }
        runs.sort_by_key(|(at, _)| *at);
        all.push(runs.into_iter().map(|(_, run)| run).collect());
    }
    for scene in &mut scenes {
        scene.system.check_alive()?;
    }
    let outcome = Outcome::new(all);
    if let (Some(rate), Some(cycles), [first, second, ..]) = (outcome.rate, outcome.cycles, kinds) {
        println!("{first} / {second}: received {rate}\n{first} / {second}: cycles a byte {cycles}");
    }
    Ok(outcome)
}

fn take(scene: &mut Scene) -> Result<Run> {
    scene.resume()?;
    scene.system.clear_stats()?;
    scene.guests[1].wait_iperf3()?;
    let address = guest::address(scene.guests[1].number());
    let said = scene.guests[0].run(&format!("iperf3 -f k -t {SECONDS} -c {address}"))?;
    let cycles = scene.system.processing_cycles()?;
    scene.pause()?;
    let kilobits = received(&said).with_context(|| format!("iperf3: {said}"))?;
    let bytes = kilobits * 125.0 * f64::from(SECONDS);
    let system = scene.system.kind();
    let run = Run { system, megabits: kilobits / 1e3, cycles_a_byte: cycles as f64 / bytes };
    println!("  {system:9} {:7.1} Mbit/s, {:.3} cycles a byte", run.megabits, run.cycles_a_byte);
    Ok(run)
}

/// Kilobits a second that the receiver saw, from iperf3's last lines.
fn received(said: &str) -> Option<f64> {
    let line = said.lines().rev().find(|line| line.contains("receiver"))?;
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if words.peek() == Some(&"Kbits/sec") {
            return word.parse().ok().filter(|rate| *rate > 0.0);
        }
    }
    None
}

impl Outcome {
    fn new(rounds: Vec<Vec<Run>>) -> Outcome {
        let ratio = |of: fn(&Run) -> f64| {
            let pairs = rounds.iter().filter_map(|runs| Some((runs.first()?, runs.get(1)?)));
            Median::of(&pairs.map(|(a, b)| of(a) / of(b)).collect::<Vec<_>>())
        };
        let (rate, cycles) = (ratio(|run| run.megabits), ratio(|run| run.cycles_a_byte));
        Outcome { rounds, rate, cycles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_is_read() {
        let said = "[  5]   0.00-3.00   sec   205 MBytes   573000 Kbits/sec    0             sender\n\
                    [  5]   0.00-3.01   sec   204 MBytes   569123 Kbits/sec                  receiver\n";
        assert_eq!(received(said), Some(569_123.0));
        assert_eq!(received("iperf3: error - unable to connect"), None);
    }

    #[test]
    fn ratios_are_of_pairs() {
        let run = |system, megabits, cycles_a_byte| Run { system, megabits, cycles_a_byte };
        let pair = |rate| vec![run(Kind::Ours, rate, 1.0), run(Kind::OvsDpdk, 100.0, 2.0)];
        let outcome = Outcome::new(vec![pair(110.0), pair(130.0), pair(120.0)]);
        assert_eq!(outcome.rate.map(|m| (m.value * 10.0).round()), Some(12.0));
        assert_eq!(outcome.cycles.map(|m| m.value), Some(0.5));
        assert!(Outcome::new(vec![vec![run(Kind::Ours, 1.0, 1.0)]]).rate.is_none());
    }
}
