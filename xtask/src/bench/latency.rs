//! A scenario with a paced load: latency of each system against the load that is offered to all of them alike.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::cpu;
use lab::wait;
use serde::Serialize;

use super::load::Peer;
use super::measure::Plan;
use super::outcome::Place;
use super::pacing::{Order, Pacer, Run};
use super::scenario::{Group, Pace, Scenario};
use super::statistics::{Median, median};
use super::system::{Kind, System};
use super::{NO_ROUND, canary, print, setup};

/// Offered loads, as shares of what the reference forwards at most.
const SHARES: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// The one of them that has a row of its own.
pub const HALF: f64 = 0.5;
/// Those of scenarios about bursts.
const BURST_SHARES: [f64; 3] = [0.1, 0.3, HALF];
const SMOKE_SHARES: [f64; 1] = [HALF];

/// How long frames that have not come are waited for.
const DRAIN: Duration = Duration::from_millis(20);

/// Windows are this much shorter than those of a rate: a moment in which the host takes a core spoils p99 of one whole.
const SHORTER: u32 = 3;

/// A window counts only if fewer of its frames than this share are spoiled.
const SPOILED_LIMIT: f64 = 0.3;

/// A window counts only if the switch's thread waited for its core less than this share of it: 1 % would be p99.
const WAITED_LIMIT: f64 = 0.005;

/// Runs whose median is the reference's highest rate.
const REFERENCE_RUNS: usize = 5;

/// Windows taken again, for each one wanted.
const RETRIES: usize = 4;

/// One window.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Which system.
    pub system: Kind,
    /// Share of the reference's highest rate.
    pub share: f64,
    /// Frames a second that were due.
    pub offered_pps: f64,
    /// Frames that were due.
    pub due: u64,
    /// Frames of them that came.
    pub received: u64,
    /// Latency from the time a frame was due, in microseconds: half of the frames.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The longest.
    pub longest_us: f64,
    /// Cycles of the polling thread for each packet, while it had some.
    pub cycles_per_packet: Option<f64>,
    /// Cycles of a cache line's round trip between the cores just before.
    pub round_trip_cycles: f64,
    /// Frames that came and do not count, as something else had the load's core when they were due.
    pub spoiled: u64,
    /// Share of the window in which something else had the switch's core.
    pub switch_waited: f64,
    /// Whether it counts.
    pub counts: bool,
}

/// Medians of the windows of one system at one load.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Which system.
    pub system: Kind,
    /// Share of the reference's highest rate.
    pub share: f64,
    /// Frames a second that were due.
    pub offered_pps: f64,
    /// Latency in microseconds: half of the frames.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// Cycles of the polling thread for each packet, while it had some.
    pub cycles_per_packet: Option<f64>,
    /// Share of frames that did not come, in all windows together.
    pub lost: f64,
    /// Windows.
    pub windows: usize,
}

/// A scenario's result.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was measured.
    pub scenario: Scenario,
    /// Whose highest rate the offered loads are shares of.
    pub reference: Kind,
    /// That rate, one way, in frames a second, with the cores where most windows were.
    pub reference_pps: f64,
    /// Where that was.
    pub place: Place,
    /// For each system and load.
    pub points: Vec<Point>,
    /// p99 at half load of the first system for each of the second, window by window.
    pub half_load_p99_ratio: Option<Median>,
    /// All windows.
    pub windows: Vec<Window>,
}

impl Outcome {
    /// One system's point at half load.
    pub fn half_load(&self, system: Kind) -> Option<&Point> {
        self.points.iter().find(|p| p.system == system && p.share == HALF)
    }
}

/// Sets all systems up and measures each at each load in turn.
pub fn run(systems: &mut [System], scenario: &Scenario, plan: &Plan) -> Result<Outcome> {
    let mut part: Vec<&mut System> = setup::taking_part(systems, scenario).collect();
    let mut drivers = Vec::new();
    for system in &mut part {
        let busy = <[Peer; 2]>::try_from(setup::prepare(system, scenario)?.busy);
        let Ok([Peer::Guest(first), Peer::Guest(second)]) = busy else {
            anyhow::bail!("{}: latency is measured between guests", scenario.name);
        };
        drivers.push([*first, *second]);
    }
    let pacer = Pacer::start(drivers, scenario.frame_bytes.into());
    let at = part.iter().position(|s| s.kind() == Kind::OvsDpdk).unwrap_or(0);
    let reference = part[at].kind();
    let (references, windows) = (Vec::new(), Vec::new());
    let mut sweep =
        Sweep { systems: part, pacer, scenario, plan, reference: at, references, windows };
    let shares: &[f64] = match scenario.group {
        _ if plan.lenient => &SMOKE_SHARES,
        Group::Bursts => &BURST_SHARES,
        _ => &SHARES,
    };
    for &share in shares {
        sweep.measure(share)?;
    }
    let Sweep { systems, pacer, windows, references, .. } = sweep;
    drop(pacer);
    let kinds: Vec<Kind> = systems.iter().map(|s| s.kind()).collect();
    for system in systems {
        setup::finish(system)?;
    }
    let counting = windows.iter().filter(|w| w.counts);
    let trip = median(counting.map(|w| w.round_trip_cycles).collect()).context(NO_ROUND)?;
    let place = Place::of(trip);
    let points = shares.iter().flat_map(|&share| points(&kinds, share, place, &windows)).collect();
    let reference_pps = references.iter().find(|(p, _)| *p == place).map_or(0.0, |r| r.1);
    Ok(Outcome {
        scenario: *scenario,
        reference,
        reference_pps,
        place,
        points,
        half_load_p99_ratio: half_load_ratio(&kinds, &windows),
        windows,
    })
}

/// One run of one system.
struct Driven {
    run: Run,
    /// Share of it in which something else had the switch's core.
    switch_waited: f64,
    cycles_per_packet: Option<f64>,
}

struct Sweep<'a> {
    systems: Vec<&'a mut System>,
    pacer: Pacer,
    scenario: &'a Scenario,
    plan: &'a Plan,
    /// The system whose highest rate is the measure, by number.
    reference: usize,
    /// That rate by where the cores are, as soon as it is known.
    references: Vec<(Place, f64)>,
    windows: Vec<Window>,
}

impl Sweep<'_> {
    /// The highest rate of the reference with the cores at `place`, one way.
    fn reference_pps(&mut self, place: Place) -> Result<f64> {
        if let Some((_, pps)) = self.references.iter().find(|(p, _)| *p == place) {
            return Ok(*pps);
        }
        let mut rates = Vec::new();
        for _ in 0..REFERENCE_RUNS {
            let Driven { run, .. } = self.drive(self.reference, f64::INFINITY, 1)?;
            // The host may move a core at any moment.
            if Place::of(canary::round_trip_cycles()?) == place || self.plan.lenient {
                rates.push(run.received as f64 / run.seconds);
            }
        }
        ensure!(!rates.is_empty(), "the host keeps moving the cores");
        let kind = self.systems[self.reference].kind();
        let pps = median(rates).unwrap_or_default();
        ensure!(pps > 0.0, "{}: {kind} forwards nothing", self.scenario.name);
        println!("  {kind} forwards {:.3} Mpps one way at most, cores {place}", pps / 1e6);
        self.references.push((place, pps));
        Ok(pps)
    }

    /// A run of one system.
    fn drive(&mut self, at: usize, pps: f64, burst: u32) -> Result<Driven> {
        let order = Order {
            system: at,
            pps,
            burst,
            settle: self.plan.settle / SHORTER,
            count: self.plan.length / SHORTER,
            drain: DRAIN,
        };
        let system = &mut self.systems[at];
        system.resume()?;
        system.clear_stats()?;
        let before = system.threads()?;
        let run = self.pacer.run(order);
        let after = system.threads()?;
        let stats = system.stats()?;
        system.pause()?;
        wait::check_interrupted()?;
        let waited = cpu::busiest(&before, &after).wait_ns as f64 / 1e9;
        let switch_waited = waited / order.count.as_secs_f64();
        Ok(Driven { run: run?, switch_waited, cycles_per_packet: stats.cycles_per_packet })
    }

    fn measure(&mut self, share: f64) -> Result<()> {
        for round in 0..self.plan.rounds {
            for step in 0..self.systems.len() {
                let at = (step + round) % self.systems.len();
                for _ in 0..RETRIES {
                    let window = self.window(at, share)?;
                    let counts = window.counts;
                    self.windows.push(window);
                    if counts {
                        break;
                    }
                }
            }
        }
        let kinds: Vec<Kind> = self.systems.iter().map(|s| s.kind()).collect();
        for place in [Place::Near, Place::Far] {
            points(&kinds, share, place, &self.windows).iter().for_each(print::point);
        }
        Ok(())
    }

    fn window(&mut self, at: usize, share: f64) -> Result<Window> {
        let Pace::Paced { burst } = self.scenario.pace else {
            anyhow::bail!("{} is not paced", self.scenario.name);
        };
        let round_trip_cycles = canary::round_trip_cycles()?;
        let offered_pps = share * self.reference_pps(Place::of(round_trip_cycles))?;
        let Driven { run, switch_waited, cycles_per_packet } =
            self.drive(at, offered_pps, burst)?;
        let system = self.systems[at].kind();
        ensure!(run.received > 0, "{}: {system} forwards nothing", self.scenario.name);
        let us = |cycles: u64| cycles as f64 / run.hertz * 1e6;
        let whole = run.spoiled as f64 <= SPOILED_LIMIT * run.due as f64;
        Ok(Window {
            system,
            share,
            offered_pps,
            due: run.due,
            received: run.received,
            p50_us: us(run.latency.quantile(0.5)),
            p99_us: us(run.latency.quantile(0.99)),
            p999_us: us(run.latency.quantile(0.999)),
            longest_us: us(run.latency.largest()),
            cycles_per_packet,
            round_trip_cycles,
            spoiled: run.spoiled,
            switch_waited,
            counts: self.plan.lenient || whole && switch_waited < WAITED_LIMIT,
        })
    }
}

/// Each system at one load, with the cores at `place`.
fn points(kinds: &[Kind], share: f64, place: Place, windows: &[Window]) -> Vec<Point> {
    let point = |&system: &Kind| {
        let there = |w: &Window| Place::of(w.round_trip_cycles) == place && w.counts;
        let of = |w: &&Window| w.system == system && w.share == share && there(w);
        let windows: Vec<&Window> = windows.iter().filter(of).collect();
        let middle = |get: fn(&Window) -> f64| median(windows.iter().map(|w| get(w)).collect());
        let due: u64 = windows.iter().map(|w| w.due).sum();
        let received: u64 = windows.iter().map(|w| w.received).sum();
        Some(Point {
            system,
            share,
            offered_pps: middle(|w| w.offered_pps)?,
            p50_us: middle(|w| w.p50_us)?,
            p99_us: middle(|w| w.p99_us)?,
            p999_us: middle(|w| w.p999_us)?,
            cycles_per_packet: median(windows.iter().filter_map(|w| w.cycles_per_packet).collect()),
            lost: 1.0 - received as f64 / due.max(1) as f64,
            windows: windows.len(),
        })
    };
    kinds.iter().filter_map(point).collect()
}

/// Of the first two systems, where the cores were in the same place.
fn half_load_ratio(kinds: &[Kind], windows: &[Window]) -> Option<Median> {
    let of = |kind: Kind| {
        windows.iter().filter(move |w| w.system == kind && w.share == HALF && w.counts)
    };
    let (&left, &right) = (kinds.first()?, kinds.get(1)?);
    let same =
        |l: &Window, r: &Window| Place::of(l.round_trip_cycles) == Place::of(r.round_trip_cycles);
    let pairs = of(left).zip(of(right)).filter(|(l, r)| same(l, r));
    let ratios: Vec<f64> = pairs.map(|(l, r)| l.p99_us / r.p99_us).collect();
    Median::of(&ratios)
}
