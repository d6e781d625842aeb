//! `cargo xtask bench`: this switch beside OVS-DPDK and beside DPDK without a switch, alternating in one run.
//!
//! Each system polls on one core ([`system`]); on the other, one thread is the guests on both ports of each ([`load`]).
//! All but the system being measured are stopped (SIGSTOP). Windows of a fraction of a second alternate ([`measure`]),
//! so that those of a pair see the same neighbours; only ratios and cycles of the same run mean something. What is
//! measured is in [`scenario`]; how a system is made so, in [`setup`].

mod canary;
mod flow_table;
mod frames;
mod guests;
mod histogram;
mod host_guest;
mod iperf3;
mod latency;
mod load;
mod measure;
mod nic;
mod outcome;
mod pacing;
mod print;
mod rate;
mod report;
mod results;
mod scenario;
mod settings;
mod setup;
mod sizes;
mod statistics;
mod system;
mod testpmd;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::cpu::{self, PreferredSession};
use lab::guest::Machine;
use lab::packages;

use crate::build;
use measure::Plan;
use results::Results;
use scenario::{Pace, Scenario};
use system::{Kind, System};

/// The systems poll on core 0, the load on core 1.
const SWITCH_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// See [`Plan`].
const SETTLE: Duration = Duration::from_millis(80);
const WARM_UP: Duration = Duration::from_millis(400);

/// To see that every scenario works.
const SMOKE: Plan = Plan {
    rounds: 1,
    length: Duration::from_millis(50),
    settle: Duration::from_millis(10),
    warm_up: Duration::from_millis(50),
    lenient: true,
};

/// Said where nothing can be said.
const NO_ROUND: &str = "other processes keep taking the cores: no window counts";

/// Compare with OVS-DPDK and with DPDK without a switch in one alternating run.
///
/// Needs root (hugepages for DPDK) and two cores that have nothing else to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench                              the headline scenarios
  cargo xtask bench --only 64b,64b-packed        some scenarios; --list names them all
  cargo xtask bench --testpmd                    the outside check: DPDK's testpmd as load
  cargo xtask bench --sizes                      qperf between virtual machines, 1 B to 128 MB
  cargo xtask bench --host-guest                 iperf3 between the host and a virtual machine
  cargo xtask bench --iperf3                     iperf3 between virtual machines
  cargo xtask bench --systems ours,ovs-dpdk      without DPDK's own floor
  cargo xtask bench --systems ovs-dpdk,dpdk-io   OVS-DPDK beside the floor
  cargo xtask bench --pairs 40                   narrower intervals
  cargo xtask bench --systems ours,before --before /tmp/vswitchd --only 64b
                                                 what a change gave")]
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
    /// Where all results go, every window included
    #[arg(long, default_value = "target/bench/results.json", value_name = "FILE")]
    json: PathBuf,
    /// Where the report goes
    #[arg(long, default_value = "target/bench/report.html", value_name = "FILE")]
    html: PathBuf,
    /// Run every scenario for a moment, to see that all work: for CI
    #[arg(long)]
    smoke: bool,
    /// The outside check instead: DPDK's testpmd as load
    #[arg(long)]
    testpmd: bool,
    /// By message size instead: qperf over TCP (1 B to 128 MB) and UDP (to 1 KB) between virtual machines. Takes some twenty
    /// minutes; with --all sizes double instead of growing fourfold; a fifth of --pairs is how often each is measured
    #[arg(long, conflicts_with_all = ["only", "testpmd", "smoke"])]
    sizes: bool,
    /// iperf3 between virtual machines instead, --pairs runs of each system; written to the JSON file only
    #[arg(long, conflicts_with_all = ["only", "testpmd", "smoke", "sizes", "host_guest"])]
    iperf3: bool,
    /// Between the host and a virtual machine instead: iperf3 both ways, beside OVS-DPDK and beside a Linux bridge
    #[arg(long, conflicts_with_all = ["only", "testpmd", "smoke", "sizes"])]
    host_guest: bool,
    /// With virtual machines: what runs them, `qemu`, which emulates their processors, or `user-mode` Linux, which does not
    #[arg(long, value_name = "MACHINE", default_value_t)]
    guests: Machine,
    /// With virtual machines: how long threads of the switches may sleep at low load (`pmd-sleep-max`, microseconds), which
    /// leaves processors to the guests where there are few
    #[arg(long, value_name = "US", default_value_t = 0)]
    pmd_sleep_max: u16,
    /// Name the scenarios and stop
    #[arg(long)]
    list: bool,
    /// The systems, the one in question first
    #[arg(long, value_delimiter = ',', default_values_t = system::ALL, value_name = "SYSTEM")]
    systems: Vec<Kind>,
    /// Another build of vswitchd, measured as the system `before`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["testpmd", "sizes"])]
    before: Option<PathBuf>,
}

/// Runs the bench.
pub fn run(arguments: &Arguments) -> Result<()> {
    let scenarios = chosen(arguments)?;
    if arguments.list {
        scenario::ALL.iter().for_each(|s| println!("{:16} {}", s.name, s.describe()));
        return Ok(());
    }
    ensure!(cpu::count() >= 2, "the bench needs a core for the switch and one for the load");
    ensure!(arguments.seconds > 0.0 && arguments.seconds <= 60.0, "--seconds: within 0 and 60");
    let kinds = kinds(arguments)?;
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    println!("{} on {}", names.join(", "), cpu::model());
    if kinds.contains(&Kind::Ours) {
        lab::switch::use_binaries_in(build::release()?);
    }
    if let Some(program) = &arguments.before {
        let program = program.canonicalize().with_context(|| program.display().to_string())?;
        let _ = system::BEFORE.set(program);
    }
    let _preferred = PreferredSession::new()?;
    let plan = plan(arguments);
    let mut results = Results::new(&kinds, &plan);
    let guests = guests::Run { machine: arguments.guests, sleep_us: arguments.pmd_sleep_max };
    if arguments.iperf3 || arguments.sizes || arguments.host_guest {
        results.guests = guests.machine.to_string();
        results.pmd_sleep_max_us = guests.sleep_us;
    }
    if arguments.iperf3 {
        results.iperf3 = Some(iperf3::run(&kinds, plan.rounds, guests)?);
        return results.write_json(&arguments.json);
    }
    if arguments.sizes {
        let factor = if arguments.all { 2 } else { 4 };
        let rounds = usize::from(arguments.pairs).div_ceil(5);
        let plan = sizes::Plan { rounds, factor, guests };
        results.sizes = sizes::run(&kinds, &plan)?;
    } else if arguments.host_guest {
        let rounds = usize::from(arguments.pairs).div_ceil(3);
        results.host_guest = host_guest::run(&kinds, rounds, guests)?;
    } else if !arguments.testpmd || !arguments.only.is_empty() || arguments.all {
        let huge_pages = setup::reserve_huge_pages();
        results.huge_pages = huge_pages.is_some();
        // What was measured before a scenario failed is not lost.
        let measured = measure_all(&kinds, &scenarios, &plan, &mut results);
        measured.inspect_err(|_| {
            let _ = results.write_json(&arguments.json);
        })?;
    }
    if !arguments.sizes && !arguments.host_guest && (arguments.testpmd || arguments.all) {
        println!("\ntestpmd as load");
        let outcome = testpmd::run(&kinds, &plan)?;
        print::outcome(&outcome);
        results.rates.push(outcome);
    }
    if !arguments.smoke {
        println!();
        results.write_json(&arguments.json)?;
        results::write(&arguments.html, &report::page(&results))?;
    }
    Ok(())
}

/// The systems to measure; what they need is installed, unless this is only to see that all works.
fn kinds(arguments: &Arguments) -> Result<Vec<Kind>> {
    if !arguments.smoke {
        packages::ensure(packages::FOR_BENCH)?;
        return Ok(arguments.systems.clone());
    }
    let there = |kind: &Kind| match kind {
        Kind::Ours | Kind::Before => true,
        Kind::OvsDpdk => packages::OVS_DPDK.is_installed() && packages::OVS.is_installed(),
        Kind::DpdkIo => false,
    };
    Ok(arguments.systems.iter().copied().filter(there).collect())
}

fn plan(arguments: &Arguments) -> Plan {
    if arguments.smoke {
        return SMOKE;
    }
    Plan {
        rounds: arguments.pairs.into(),
        length: Duration::from_secs_f64(arguments.seconds),
        settle: SETTLE,
        warm_up: WARM_UP,
        lenient: false,
    }
}

fn measure_all(
    kinds: &[Kind],
    scenarios: &[&Scenario],
    plan: &Plan,
    results: &mut Results,
) -> Result<()> {
    let mut systems = Vec::new();
    for kind in kinds {
        systems.push(System::start(*kind)?);
    }
    let noisy = systems.iter_mut().find(|s| s.kind() == Kind::OvsDpdk);
    if let (Some(system), false) = (noisy, plan.lenient) {
        println!("\nnoise: {} against itself", system.kind());
        let rounds = plan.rounds.div_ceil(3).max(3);
        results.noise = rate::noise(system, &scenario::ALL[0], &Plan { rounds, ..*plan })?;
        match &results.noise {
            Some(outcome) => print::outcome(outcome),
            None => println!("{NO_ROUND}; how far windows differ by themselves is not known"),
        }
    }
    for (number, scenario) in scenarios.iter().enumerate() {
        let count = scenarios.len();
        println!("\n{}/{count} {}: {}", number + 1, scenario.name, scenario.describe());
        let what = || format!("scenario {}", scenario.name);
        if scenario.pace == Pace::Saturating {
            let outcome = rate::run(&mut systems, scenario, plan).with_context(what)?;
            print::outcome(&outcome);
            print::over_plain(&results.over_plain(&outcome));
            results.rates.push(outcome);
        } else {
            let outcome = latency::run(&mut systems, scenario, plan).with_context(what)?;
            print::latency_outcome(&outcome);
            results.latencies.push(outcome);
        }
    }
    Ok(())
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Scenario>> {
    if arguments.only.is_empty() {
        return Ok(scenario::ALL
            .iter()
            .filter(|s| arguments.all || arguments.smoke || s.headline)
            .collect());
    }
    let find = |name: &String| {
        let found = scenario::ALL.iter().find(|s| s.name == name);
        found.with_context(|| format!("no scenario is called {name}: --list names them"))
    };
    arguments.only.iter().map(find).collect()
}
