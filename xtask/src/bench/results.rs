//! Everything a run found, as it goes into the JSON file and the report.

use std::path::Path;

use anyhow::{Context, Result};
use lab::cpu;
use serde::Serialize;

use super::host_guest;
use super::iperf3;
use super::latency;
use super::measure::Plan;
use super::outcome::{Figures, Outcome};
use super::sizes;
use super::system::Kind;

/// A run.
#[derive(Serialize)]
pub struct Results {
    /// The processor's model.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// What was compared, the one in question first.
    pub systems: Vec<Kind>,
    /// Rounds wanted of each scenario.
    pub rounds: usize,
    /// Seconds of each window.
    pub window_seconds: f64,
    /// Whether the load's guests had their memory in huge pages.
    pub huge_pages: bool,
    /// OVS-DPDK against itself.
    pub noise: Option<Outcome>,
    /// Scenarios with a saturating load.
    pub rates: Vec<Outcome>,
    /// Scenarios with a paced load.
    pub latencies: Vec<latency::Outcome>,
    /// By message size, between virtual machines.
    pub sizes: Vec<sizes::Point>,
    /// iperf3 between virtual machines.
    pub iperf3: Option<iperf3::Outcome>,
    /// What ran the virtual machines, if there were any.
    pub guests: String,
    /// How long the switches' threads could sleep where there were virtual machines, microseconds.
    pub pmd_sleep_max_us: u16,
    /// Between the host and a virtual machine.
    pub host_guest: Vec<host_guest::Point>,
}

impl Results {
    /// Of a run that begins.
    pub fn new(systems: &[Kind], plan: &Plan) -> Results {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Results {
            processor: cpu::model(),
            kernel: kernel.trim().to_owned(),
            systems: systems.to_vec(),
            rounds: plan.rounds,
            window_seconds: plan.length.as_secs_f64(),
            huge_pages: false,
            noise: None,
            rates: Vec::new(),
            latencies: Vec::new(),
            sizes: Vec::new(),
            iperf3: None,
            guests: String::new(),
            pmd_sleep_max_us: 0,
            host_guest: Vec::new(),
        }
    }

    /// Whether any scenario was measured.
    pub fn has_windows(&self) -> bool {
        !self.rates.is_empty() || !self.latencies.is_empty()
    }

    /// A scenario's outcome by name.
    pub fn rate(&self, name: &str) -> Option<&Outcome> {
        self.rates.iter().find(|o| o.scenario.name == name)
    }

    /// What the settings of a scenario cost each system: cycles a packet over those of the same without settings, with the
    /// cores in the same place.
    pub fn over_plain(&self, outcome: &Outcome) -> Vec<(Kind, f64)> {
        let plain = outcome.scenario.plain().and_then(|plain| self.rate(plain.name));
        let over = |with: &Figures| {
            let without = plain?.at(outcome.main.place)?.figures_of(with.system)?;
            Some((with.system, with.cycles_per_packet? - without.cycles_per_packet?))
        };
        outcome.main.figures.iter().filter_map(over).collect()
    }

    /// Windows that did not count, of all scenarios.
    pub fn discarded(&self) -> usize {
        let rates = self.rates.iter().chain(&self.noise).map(|o| o.discarded.len());
        let latencies =
            self.latencies.iter().map(|o| o.windows.iter().filter(|w| !w.counts).count());
        rates.chain(latencies).sum()
    }

    /// Windows that counted, of all scenarios.
    pub fn counted(&self) -> usize {
        let rates = self.rates.iter().chain(&self.noise).flat_map(|o| &o.rounds).map(Vec::len);
        let latencies =
            self.latencies.iter().map(|o| o.windows.iter().filter(|w| w.counts).count());
        rates.chain(latencies).sum()
    }

    /// Kilobytes of private memory that one more idle port costs `system`: from 2 to 128 of them.
    pub fn idle_port_kb(&self, system: Kind) -> Option<f64> {
        let memory = |o: &Outcome| {
            o.private_memory_kb.iter().find(|(k, _)| *k == system).map(|m| m.1 as f64)
        };
        let with = |ports: u16| {
            let mut all = self
                .rates
                .iter()
                .filter(|o| o.scenario.ports == ports && o.scenario.name != "testpmd");
            all.find_map(memory)
        };
        Some((with(128)? - with(2)?) / 126.0)
    }

    /// Writes the file, and directories that lead to it.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        write(path, &serde_json::to_string_pretty(self)?)
    }
}

/// Writes a file, and directories that lead to it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, text));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}
