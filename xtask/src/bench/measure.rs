//! Windows: each system in turn runs for a moment, and what disturbed it is told apart from what it does.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::cpu::{self, ThreadTime};
use lab::wait;
use serde::Serialize;

use super::load::{Load, Tally};
use super::system::{Kind, PollStats, Stage, System};
use super::{LOAD_CORE, SWITCH_CORE, canary};

/// A window counts only if the measured threads waited for their core less than this share of it.
const WAITED_LIMIT: f64 = 0.03;

/// A window counts only if the host took less than this share of each core; one tick of 10 ms always may appear.
const STOLEN_LIMIT: f64 = 0.10;

/// A window counts only if neither thread stood still longer than this: a process may be stopped from outside.
const STILL_LIMIT: Duration = Duration::from_millis(15);

/// A round counts only if the cores' distance, by the canary, stayed within this factor.
const MOVED: f64 = 1.5;

/// Windows thrown away before a scenario makes do with fewer, for each one wanted.
const DISCARDS_PER_WINDOW: usize = 3;

/// One measured window of one system.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Which system.
    pub system: Kind,
    /// Cycles of a cache line's round trip between the cores just before.
    pub round_trip_cycles: f64,
    /// Length in seconds.
    pub seconds: f64,
    /// Packets per second through the system, both directions together.
    pub pps: f64,
    /// What the polling thread says of itself.
    #[serde(flatten)]
    pub stats: PollStats,
    /// Bytes in a received buffer, virtio-net header included: whether super-frames came cut.
    pub bytes_a_buffer: Option<f64>,
    /// Mirrored frames that were taken, for each packet.
    pub copies_a_packet: f64,
    /// Cycles that the load spends on each packet.
    pub load_cycles_per_packet: Option<f64>,
    /// Share of the window in which the load had nothing to do, 0 to 1.
    pub load_idle: Option<f64>,
    /// Share of the window in which something else had the switch's core, 0 to 1.
    pub switch_waited: f64,
    /// The same for the load's core.
    pub load_waited: f64,
    /// Share of the window that the host took from the switch's and the load's core, 0 to 1.
    pub stolen: [f64; 2],
    /// The longest time the load did not look at the rings, in milliseconds.
    pub longest_gap_ms: f64,
    /// The longest time without a frame, in milliseconds.
    pub longest_silence_ms: f64,
    /// Why it does not count, if so.
    pub discarded: Option<&'static str>,
}

impl Window {
    /// Why it does not count, if so; the load's threads may have waited for their core for `load_waited_limit` of it.
    pub fn judge(&self, load_waited_limit: f64) -> Option<&'static str> {
        let still = STILL_LIMIT.as_secs_f64() * 1e3;
        if self.longest_gap_ms > still || self.longest_silence_ms > still {
            Some("stood still")
        } else if self.switch_waited > WAITED_LIMIT {
            Some("something else on the switch's core")
        } else if self.load_waited > load_waited_limit {
            Some("something else on the load's core")
        } else if self.stolen.iter().any(|share| *share > STOLEN_LIMIT) {
            Some("stolen by the host")
        } else {
            None
        }
    }
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds that must count.
    pub rounds: usize,
    /// Length of each window.
    pub length: Duration,
    /// Time after a system goes on until caches and rings are as they stay.
    pub settle: Duration,
    /// Time before the first window of a system in a scenario: megaflows and caches come to be.
    pub warm_up: Duration,
    /// Disturbed windows count too: to see that all works, not how fast.
    pub lenient: bool,
}

/// A window of each system, one right after the other.
pub type Round = Vec<Window>;

/// What is measured together: systems, and the load with their guests in the same order.
pub struct Bench<'a> {
    pub systems: Vec<&'a mut System>,
    pub load: Load,
    pub plan: Plan,
}

impl Bench<'_> {
    /// Lets system number `at` run for a moment that does not count.
    pub fn warm(&mut self, at: usize, time: Duration) -> Result<()> {
        self.systems[at].resume()?;
        self.load.begin(at)?;
        wait::pass(time)?;
        let ended = self.load.end();
        self.systems[at].pause()?;
        ended.map(drop)
    }

    /// The stages of system number `at` under load, if it says them.
    pub fn stages(&mut self, at: usize, time: Duration) -> Result<Vec<Stage>> {
        self.systems[at].resume()?;
        self.load.begin(at)?;
        wait::pass(self.plan.settle)?;
        self.systems[at].clear_stats()?;
        wait::pass(time)?;
        self.load.end()?;
        let stages = self.systems[at].stages();
        self.systems[at].pause()?;
        Ok(stages)
    }

    /// Measures one window of system number `at`.
    pub fn window(&mut self, at: usize) -> Result<Window> {
        let round_trip_cycles = canary::round_trip_cycles()?;
        let system = &mut self.systems[at];
        system.resume()?;
        self.load.begin(at)?;
        wait::pass(self.plan.settle)?;
        system.clear_stats()?;
        let before = Snapshot::take(system)?;
        self.load.count();
        wait::pass(self.plan.length)?;
        let after = Snapshot::take(system)?;
        let tally = self.load.end()?;
        let stats = system.stats()?;
        system.pause()?;
        let mut window = before.window(&after, &tally, stats, system.kind());
        window.round_trip_cycles = round_trip_cycles;
        window.discarded = window.judge(WAITED_LIMIT).filter(|_| !self.plan.lenient);
        Ok(window)
    }
}

/// Takes rounds with `take` until enough are complete, in each of which the systems of `order` come one after the other,
/// turned by one place from round to round. Windows that do not count are kept apart and taken again.
pub fn rounds(
    order: &[usize],
    plan: &Plan,
    mut take: impl FnMut(usize) -> Result<Window>,
) -> Result<(Vec<Round>, Vec<Window>)> {
    let (mut rounds, mut discards) = (Vec::new(), Vec::new());
    let limit = plan.rounds * order.len() * DISCARDS_PER_WINDOW;
    while rounds.len() < plan.rounds && discards.len() <= limit {
        let mut round: Vec<Option<Window>> = vec![None; order.len()];
        for step in 0..order.len() {
            let place = (step + rounds.len()) % order.len();
            while round[place].is_none() && discards.len() <= limit {
                let window = take(order[place])?;
                match window.discarded {
                    None => round[place] = Some(window),
                    Some(_) => discards.push(window),
                }
            }
        }
        let Some(mut complete) = round.into_iter().collect::<Option<Round>>() else { break };
        if of_one_place(&complete) || plan.lenient {
            rounds.push(complete);
        } else {
            complete.iter_mut().for_each(|w| w.discarded = Some("the host moved a core"));
            discards.append(&mut complete);
        }
    }
    Ok((rounds, discards))
}

/// Whether the cores were equally far from each other in all windows.
fn of_one_place(round: &[Window]) -> bool {
    let times = || round.iter().map(|w| w.round_trip_cycles);
    times().fold(0.0, f64::max) <= MOVED * times().fold(f64::INFINITY, f64::min)
}

/// Counters at the beginning or the end of a window.
struct Snapshot {
    switch: Vec<ThreadTime>,
    load: Vec<ThreadTime>,
    stolen_ticks: [u64; 2],
}

impl Snapshot {
    fn take(system: &System) -> Result<Snapshot> {
        let stolen = |core| cpu::stolen_ticks(core).context("steal time");
        Ok(Snapshot {
            switch: system.threads()?,
            load: cpu::threads(std::process::id())?,
            stolen_ticks: [stolen(SWITCH_CORE)?, stolen(LOAD_CORE)?],
        })
    }

    fn window(&self, after: &Snapshot, tally: &Tally, stats: PollStats, system: Kind) -> Window {
        let length = tally.seconds;
        let waited =
            |a: &[ThreadTime], b: &[ThreadTime]| cpu::busiest(a, b).wait_ns as f64 / 1e9 / length;
        let stolen = |core: usize| {
            let ticks = after.stolen_ticks[core].saturating_sub(self.stolen_ticks[core]);
            ticks as f64 / 100.0 / length
        };
        Window {
            system,
            round_trip_cycles: 0.0,
            seconds: length,
            pps: tally.received as f64 / length,
            stats,
            bytes_a_buffer: Some(tally.received_bytes as f64 / tally.received.max(1) as f64),
            copies_a_packet: tally.copies as f64 / tally.received.max(1) as f64,
            load_cycles_per_packet: tally.load_cycles_per_packet(),
            load_idle: Some(tally.load_idle()),
            switch_waited: waited(&self.switch, &after.switch),
            load_waited: waited(&self.load, &after.load),
            stolen: [stolen(0), stolen(1)],
            longest_gap_ms: tally.longest_gap.as_secs_f64() * 1e3,
            longest_silence_ms: tally.longest_silence.as_secs_f64() * 1e3,
            discarded: None,
        }
    }
}
