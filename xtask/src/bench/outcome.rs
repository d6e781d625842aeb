//! What a scenario came to: medians for each system, and ratios with their intervals.

use serde::Serialize;

use super::measure::{Round, Window};
use super::scenario::Scenario;
use super::statistics::{Median, lower_quartile, median};
use super::system::Kind;

/// Batches of at least this many packets are full bursts: 32 is what all three systems take at once.
pub const FULL_BATCH: f64 = 30.0;

/// One system in one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Which system.
    pub system: Kind,
    /// Median packets per second, both directions together.
    pub pps: f64,
    /// Median cycles per packet of the polling thread, if it says them.
    pub cycles_per_packet: Option<f64>,
    /// A quarter of the windows took fewer.
    pub cycles_lower_quartile: Option<f64>,
    /// Median packets of a batch, if it says them.
    pub batch: Option<f64>,
    /// Median cycles of the load itself for each packet.
    pub load_cycles_per_packet: Option<f64>,
}

impl Figures {
    fn of(system: Kind, windows: &[&Window]) -> Option<Figures> {
        let all = |get: fn(&Window) -> Option<f64>| -> Vec<f64> {
            windows.iter().filter_map(|w| get(w)).collect()
        };
        Some(Figures {
            system,
            pps: median(all(|w| Some(w.pps)))?,
            cycles_per_packet: median(all(|w| w.stats.cycles_per_packet)),
            cycles_lower_quartile: lower_quartile(all(|w| w.stats.cycles_per_packet)),
            batch: median(all(|w| w.stats.batch)),
            load_cycles_per_packet: median(all(|w| w.load_cycles_per_packet)),
        })
    }

    /// Whether the cycles are those of full bursts; unknown where the system does not say.
    pub fn full_bursts(&self) -> Option<bool> {
        self.batch.map(|batch| batch >= FULL_BATCH)
    }
}

/// One system for each of another, pair by pair.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// The system in question.
    pub of: Kind,
    /// What it is compared with.
    pub to: Kind,
    /// Packets per second.
    pub pps: Option<Median>,
    /// Cycles per packet.
    pub cycles: Option<Median>,
}

/// A scenario's result.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was measured.
    pub scenario: Scenario,
    /// For each system.
    pub figures: Vec<Figures>,
    /// The first system to each other one.
    pub ratios: Vec<Ratio>,
    /// Cycles of a cache line's round trip between the cores, before and after.
    pub round_trip_cycles: [f64; 2],
    /// Windows that count.
    pub rounds: Vec<Round>,
    /// Windows that do not.
    pub discarded: Vec<Window>,
}

impl Outcome {
    /// Puts it together.
    pub fn new(
        scenario: &Scenario,
        systems: &[Kind],
        rounds: Vec<Round>,
        discarded: Vec<Window>,
        round_trip_cycles: [f64; 2],
    ) -> Outcome {
        let column = |at: usize| rounds.iter().map(|round| &round[at]).collect::<Vec<_>>();
        let figures = systems.iter().enumerate().filter_map(|(at, &s)| Figures::of(s, &column(at)));
        let figures = figures.collect();
        let ratios = (1..systems.len())
            .map(|at| ratio([systems[0], systems[at]], &column(0), &column(at)))
            .collect();
        let scenario = *scenario;
        Outcome { scenario, figures, ratios, round_trip_cycles, rounds, discarded }
    }

    /// The figures of one system.
    pub fn figures_of(&self, system: Kind) -> Option<&Figures> {
        self.figures.iter().find(|f| f.system == system)
    }

    /// The ratio of the first system to `to`.
    pub fn ratio_to(&self, to: Kind) -> Option<&Ratio> {
        self.ratios.iter().find(|r| r.to == to)
    }
}

/// The ratios of windows that stand side by side.
pub fn ratio([of, to]: [Kind; 2], left: &[&Window], right: &[&Window]) -> Ratio {
    let pairs = || left.iter().zip(right);
    let pps: Vec<f64> = pairs().map(|(l, r)| l.pps / r.pps).filter(|r| r.is_finite()).collect();
    let cycles: Vec<f64> = pairs()
        .filter_map(|(l, r)| Some(l.stats.cycles_per_packet? / r.stats.cycles_per_packet?))
        .filter(|r| r.is_finite())
        .collect();
    Ratio { of, to, pps: Median::of(&pps), cycles: Median::of(&cycles) }
}
