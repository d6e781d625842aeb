//! What a scenario came to: medians for each system, and ratios with their intervals.

use serde::Serialize;

use super::measure::{Round, Window};
use super::scenario::Scenario;
use super::statistics::{Median, lower_quartile, median};
use super::system::{Kind, Stage};

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

/// How far the cores are from each other: the host moves them, and then everything changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// They share a cache.
    Near,
    /// They do not.
    Far,
}

/// A cache line's round trip takes 200 to 260 cycles within a group of cores and 820 to 890 across, on the EPYC this was seen on.
const NEAR_LIMIT_CYCLES: f64 = 450.0;

impl Place {
    /// By the canary's round trip.
    pub fn of(round_trip_cycles: f64) -> Place {
        if round_trip_cycles < NEAR_LIMIT_CYCLES { Place::Near } else { Place::Far }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Place::Near => "near",
            Place::Far => "far",
        })
    }
}

/// What all rounds with the cores in the same place came to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Where the cores were.
    pub place: Place,
    /// Median cycles of a cache line's round trip.
    pub round_trip_cycles: f64,
    /// Rounds.
    pub rounds: usize,
    /// For each system.
    pub figures: Vec<Figures>,
    /// The first system to each other one.
    pub ratios: Vec<Ratio>,
}

impl Summary {
    fn of(place: Place, systems: &[Kind], rounds: &[Round]) -> Option<Summary> {
        let at_place = |round: &&Round| Place::of(round[0].round_trip_cycles) == place;
        let rounds: Vec<&Round> = rounds.iter().filter(at_place).collect();
        let column = |at: usize| rounds.iter().map(|round| &round[at]).collect::<Vec<_>>();
        let trips = rounds.iter().map(|round| round[0].round_trip_cycles);
        let figures = systems.iter().enumerate().filter_map(|(at, &s)| Figures::of(s, &column(at)));
        let pair = |at| ratio([systems[0], systems[at]], &column(0), &column(at));
        Some(Summary {
            place,
            round_trip_cycles: median(trips.collect())?,
            rounds: rounds.len(),
            figures: figures.collect(),
            ratios: (1..systems.len()).map(pair).collect(),
        })
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

/// A scenario's result.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was measured.
    pub scenario: Scenario,
    /// Where most rounds were.
    pub main: Summary,
    /// The others, if the host moved the cores meanwhile.
    pub elsewhere: Option<Summary>,
    /// Private memory of each system with all guests connected, in kilobytes.
    pub private_memory_kb: Vec<(Kind, u64)>,
    /// Cycles of the first system by stage, if it says them.
    pub stages: Vec<Stage>,
    /// Windows that count.
    pub rounds: Vec<Round>,
    /// Windows that do not.
    pub discarded: Vec<Window>,
}

impl Outcome {
    /// Puts it together; `None` if no round counts.
    pub fn new(
        scenario: &Scenario,
        systems: &[Kind],
        rounds: Vec<Round>,
        discarded: Vec<Window>,
    ) -> Option<Outcome> {
        let near = Summary::of(Place::Near, systems, &rounds);
        let far = Summary::of(Place::Far, systems, &rounds);
        let count = |summary: &Option<Summary>| summary.as_ref().map_or(0, |s| s.rounds);
        let (main, elsewhere) = if count(&far) > count(&near) { (far, near) } else { (near, far) };
        Some(Outcome {
            scenario: *scenario,
            main: main?,
            elsewhere,
            private_memory_kb: Vec::new(),
            stages: Vec::new(),
            rounds,
            discarded,
        })
    }

    /// What the rounds with the cores at `place` came to.
    pub fn at(&self, place: Place) -> Option<&Summary> {
        [Some(&self.main), self.elsewhere.as_ref()].into_iter().flatten().find(|s| s.place == place)
    }

    /// Median of the mirrored frames that were taken for each packet of `system`.
    pub fn copies_a_packet(&self, system: Kind) -> Option<f64> {
        let windows = self.rounds.iter().flatten().filter(|w| w.system == system);
        median(windows.map(|w| w.copies_a_packet).collect())
    }
}

/// The ratios of windows that stand side by side.
fn ratio([of, to]: [Kind; 2], left: &[&Window], right: &[&Window]) -> Ratio {
    let pairs = || left.iter().zip(right);
    let pps: Vec<f64> = pairs().map(|(l, r)| l.pps / r.pps).filter(|r| r.is_finite()).collect();
    let cycles: Vec<f64> = pairs()
        .filter_map(|(l, r)| Some(l.stats.cycles_per_packet? / r.stats.cycles_per_packet?))
        .filter(|r| r.is_finite())
        .collect();
    Ratio { of, to, pps: Median::of(&pps), cycles: Median::of(&cycles) }
}
