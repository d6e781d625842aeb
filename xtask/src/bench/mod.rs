//! `cargo xtask bench`: this switch beside OVS-DPDK and beside DPDK without a switch, alternating in one run.
//!
//! Each system polls on one core ([`system`]); on the other, one thread is the guests on both ports of each ([`load`]).
//! All but the system being measured are stopped (SIGSTOP). Windows of a fraction of a second alternate ([`measure`]),
//! so that those of a pair see the same neighbours; only ratios and cycles of the same run mean something. What is
//! measured is in [`scenario`]; how a system is made so, in [`setup`].

mod canary;
mod frames;
mod load;
mod measure;
mod outcome;
mod scenario;
mod setup;
mod statistics;
mod system;
mod testpmd;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::cpu::{self, PreferredSession};
use lab::{packages, wait};

use crate::build;
use load::Load;
use measure::{Bench, Window};
use outcome::{Figures, Outcome};
use scenario::Scenario;
use system::{Kind, System};

/// The systems poll on core 0, the load on core 1.
const SWITCH_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Time before the first window of a system in a scenario: megaflows and caches come to be.
const WARM_UP: Duration = Duration::from_millis(400);

/// Compare with OVS-DPDK and with DPDK without a switch in one alternating run.
///
/// Needs root (hugepages for DPDK) and two cores that have nothing else to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench                              the headline scenarios
  cargo xtask bench --only 64b,64b-packed        some scenarios; --list names them all
  cargo xtask bench --testpmd                    the outside check: DPDK's testpmd as load
  cargo xtask bench --systems ours,ovs-dpdk      without DPDK's own floor
  cargo xtask bench --systems ovs-dpdk,dpdk-io   OVS-DPDK beside the floor
  cargo xtask bench --pairs 40                   narrower intervals")]
pub struct Arguments {
    /// Windows of each system that must count
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    /// Seconds of each window
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Scenarios to measure
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Every scenario instead of the headline ones
    #[arg(long)]
    all: bool,
    /// The outside check instead: DPDK's testpmd as load
    #[arg(long)]
    testpmd: bool,
    /// Name the scenarios and stop
    #[arg(long)]
    list: bool,
    /// The systems, the one in question first
    #[arg(long, value_delimiter = ',', default_values_t = system::ALL, value_name = "SYSTEM")]
    systems: Vec<Kind>,
}

/// Runs the bench.
pub fn run(arguments: &Arguments) -> Result<()> {
    let scenarios = chosen(arguments)?;
    if arguments.list {
        scenario::ALL.iter().for_each(|s| println!("{}", s.name));
        return Ok(());
    }
    let names: Vec<&str> = arguments.systems.iter().map(|kind| kind.name()).collect();
    println!("{} on {}", names.join(", "), cpu::model());
    ensure!(cpu::count() >= 2, "the bench needs a core for the switch and one for the load");
    ensure!(arguments.seconds > 0.0 && arguments.seconds <= 60.0, "--seconds: within 0 and 60");
    packages::ensure(packages::FOR_BENCH)?;
    if arguments.systems.contains(&Kind::Ours) {
        lab::switch::use_binaries_in(build::release()?);
    }
    let _preferred = PreferredSession::new()?;
    if arguments.testpmd {
        let length = Duration::from_secs_f64(arguments.seconds);
        let outcome = testpmd::run(&arguments.systems, arguments.pairs.into(), length)?;
        print_outcome(&outcome);
        return Ok(());
    }
    let mut systems = Vec::new();
    for kind in &arguments.systems {
        systems.push(System::start(*kind)?);
    }
    for (number, scenario) in scenarios.iter().enumerate() {
        println!("\n{}/{} {}", number + 1, scenarios.len(), scenario.name);
        let outcome = measure_scenario(&mut systems, scenario, arguments)?;
        print_outcome(&outcome);
    }
    Ok(())
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Scenario>> {
    if arguments.only.is_empty() {
        return Ok(scenario::ALL.iter().filter(|s| arguments.all || s.headline).collect());
    }
    let find = |name: &String| {
        let found = scenario::ALL.iter().find(|s| s.name == name);
        found.with_context(|| format!("no scenario is called {name}: --list names them"))
    };
    arguments.only.iter().map(find).collect()
}

/// Sets all systems up for a scenario and takes windows of each in turn.
fn measure_scenario(
    systems: &mut [System],
    scenario: &Scenario,
    arguments: &Arguments,
) -> Result<Outcome> {
    let before = canary::round_trip_cycles()?;
    let mut part: Vec<&mut System> = systems
        .iter_mut()
        .filter(|system| system.kind() != Kind::DpdkIo || scenario.has_floor())
        .collect();
    let mut drivers = Vec::new();
    for system in &mut part {
        system.resume()?;
        system.check_alive()?;
        drivers.push(setup::prepare(system, scenario)?);
        system.pause()?;
    }
    let load = Load::start(drivers, setup::sending(scenario))?;
    let kinds: Vec<Kind> = part.iter().map(|s| s.kind()).collect();
    let order: Vec<usize> = (0..part.len()).collect();
    let mut bench = Bench { systems: part, load };
    for &at in &order {
        bench.warm(at, WARM_UP)?;
    }
    let length = Duration::from_secs_f64(arguments.seconds);
    let (rounds, discards) = measure::rounds(&order, arguments.pairs.into(), |at| {
        let window = bench.window(at, length)?;
        print_window(&window);
        Ok(window)
    })?;
    ensure!(!rounds.is_empty(), "other processes keep taking the cores: no window counts");
    let Bench { systems, load } = bench;
    // The guests go away.
    drop(load);
    for system in systems {
        setup::finish(system)?;
    }
    let after = canary::round_trip_cycles()?;
    wait::check_interrupted()?;
    Ok(Outcome::new(scenario, &kinds, rounds, discards, [before, after]))
}

fn print_window(window: &Window) {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.1}"));
    println!(
        "  {:9} {:7.3} Mpps {:>7} cycles/packet, batch {:>5}, load {:>5}, idle {:2.0} %{}",
        window.system,
        window.pps / 1e6,
        number(window.stats.cycles_per_packet),
        number(window.stats.batch),
        number(window.load_cycles_per_packet),
        window.load_idle.unwrap_or_default() * 100.0,
        window.discarded.map_or(String::new(), |why| format!("   discarded: {why}")),
    );
}

fn print_outcome(outcome: &Outcome) {
    for figures in &outcome.figures {
        println!("  {}", describe(figures));
    }
    for ratio in &outcome.ratios {
        if let Some(pps) = ratio.pps {
            println!("  {} / {}: packets {pps}", ratio.of, ratio.to);
        }
        if let Some(cycles) = ratio.cycles {
            println!("  {} / {}: cycles  {cycles}", ratio.of, ratio.to);
        }
    }
    let [before, after] = outcome.round_trip_cycles;
    println!(
        "  {} windows discarded; a line goes from core to core and back in {before:.0} cycles before, {after:.0} after",
        outcome.discarded.len()
    );
}

fn describe(figures: &Figures) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.0}"));
    let bursts = match figures.full_bursts() {
        Some(false) => " (bursts not full)",
        _ => "",
    };
    format!(
        "{:9} median {:.3} Mpps, {} cycles/packet, lower quartile {}{bursts}; load {}",
        figures.system,
        figures.pps / 1e6,
        number(figures.cycles_per_packet),
        number(figures.cycles_lower_quartile),
        number(figures.load_cycles_per_packet),
    )
}
