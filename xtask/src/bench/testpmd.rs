//! The outside check: DPDK's testpmd as both guests' virtio drivers, 64-byte frames going round through both ports.
//!
//! Its own driver costs 200 to 350 cycles a packet, so it becomes the limit before a fast switch does; but nobody here wrote it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::cpu::{self, ThreadTime};
use lab::hugepages::Hugepages;
use lab::progress::Step;
use lab::scene::TestpmdLoop;
use lab::switch::{self, SocketMode};
use lab::testpmd::{self, MEMORY_MB};
use lab::wait;

use super::measure::{Plan, Window, rounds};
use super::outcome::Outcome;
use super::scenario;
use super::system::{Kind, parse_stats};
use super::{NO_ROUND, SWITCH_CORE, canary, print};

/// Time after a system goes on until caches and rings are as they stay.
const SETTLE: Duration = Duration::from_millis(300);

/// DPDK's other threads share the load's core and take 4 to 5 % of it by themselves.
const LOAD_WAITED_LIMIT: f64 = 0.08;

/// Bursts of 32 frames on each port to begin with: half a ring each way.
const FIRST_BURSTS: u16 = 8;

/// Compares the switches among `kinds`; the floor has no part in this.
pub fn run(kinds: &[Kind], plan: &Plan) -> Result<Outcome> {
    let switches: Vec<Kind> = kinds.iter().copied().filter(|&k| k != Kind::DpdkIo).collect();
    ensure!(!switches.is_empty(), "testpmd checks ours and ovs-dpdk: name one of them");
    let hugepages = load_hugepages(switches.len());
    let mount = hugepages.as_ref().map(Hugepages::dir);
    let mut systems = Vec::new();
    for &kind in &switches {
        systems.push(System::start(kind, mount)?);
    }
    let order: Vec<usize> = (0..systems.len()).collect();
    let (rounds, discards) = rounds(&order, plan, |at| {
        let window = systems[at].window(plan.length)?;
        print::window(&window);
        Ok(window)
    })?;
    Outcome::new(&scenario::TESTPMD, &switches, rounds, discards).context(NO_ROUND)
}

/// Hugepages for all testpmds alike, or for none.
fn load_hugepages(testpmds: usize) -> Option<Hugepages> {
    match Hugepages::reserve(testpmds as u64 * MEMORY_MB) {
        Ok(hugepages) => Some(hugepages),
        Err(error) => {
            println!("testpmd runs without hugepages: {error:#}");
            None
        }
    }
}

/// A switch with its load; stopped except while [`System::window`] runs.
struct System {
    kind: Kind,
    scene: TestpmdLoop,
}

impl System {
    fn start(kind: Kind, hugepages: Option<&Path>) -> Result<System> {
        let step = Step::start(format!("setting up {kind} with testpmd"));
        let options = testpmd::Options {
            hugepages: hugepages.map(Path::to_owned),
            core: cpu::load_core(),
            frame_bytes: scenario::TESTPMD.frame_bytes,
            ..testpmd::Options::default()
        };
        let mask = 1 << SWITCH_CORE;
        let switch = if kind == Kind::Ours { switch::Kind::Ours } else { switch::Kind::OvsDpdk };
        let mut scene = TestpmdLoop::start(switch, mask, SocketMode::SwitchConnects, &options)?;
        scene.testpmd.start_loop(FIRST_BURSTS)?;
        scene.testpmd.wait_received(100_000, Duration::from_secs(30))?;
        scene.switch.daemon().prefer()?;
        scene.testpmd.process().prefer()?;
        let system = System { kind, scene };
        system.pause()?;
        step.done();
        Ok(system)
    }

    fn pause(&self) -> Result<()> {
        // The load first, so that it does not fill rings that nobody empties.
        self.scene.testpmd.process().pause()?;
        self.scene.switch.daemon().pause()
    }

    fn resume(&self) -> Result<()> {
        self.scene.switch.daemon().resume()?;
        self.scene.testpmd.process().resume()
    }

    fn window(&mut self, wanted: Duration) -> Result<Window> {
        let round_trip_cycles = canary::round_trip_cycles()?;
        self.resume()?;
        wait::pass(SETTLE)?;
        let _ = self.scene.switch.appctl(&["dpif-netdev/pmd-stats-clear"])?;
        let before = self.snapshot()?;
        wait::pass(wanted)?;
        let after = self.snapshot()?;
        let statistics = self.scene.switch.appctl(&["dpif-netdev/pmd-stats-show"])?;
        self.pause()?;
        let length = after.time.duration_since(before.time).as_secs_f64();
        let waited =
            |a: &[ThreadTime], b: &[ThreadTime]| cpu::busiest(a, b).wait_ns as f64 / 1e9 / length;
        let stolen = after.stolen_ticks.saturating_sub(before.stolen_ticks) as f64 / 100.0 / length;
        let mut window = Window {
            system: self.kind,
            round_trip_cycles,
            seconds: length,
            pps: after.received.saturating_sub(before.received) as f64 / length,
            stats: parse_stats(&statistics),
            load_cycles_per_packet: None,
            copies_a_packet: 0.0,
            load_idle: None,
            bytes_a_buffer: None,
            switch_waited: waited(&before.switch, &after.switch),
            load_waited: waited(&before.load, &after.load),
            stolen: [stolen, 0.0],
            longest_gap_ms: 0.0,
            longest_silence_ms: 0.0,
            discarded: None,
        };
        // Stopped from outside in the meantime?
        window.longest_gap_ms = 1e3 * (length - wanted.as_secs_f64() - 0.1).max(0.0);
        window.discarded = window.judge(LOAD_WAITED_LIMIT);
        Ok(window)
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let switch = cpu::threads(self.scene.switch.daemon().id())?;
        let load = cpu::threads(self.scene.testpmd.process().id())?;
        let stolen_ticks = cpu::stolen_ticks(SWITCH_CORE)?;
        let asked = Instant::now();
        let received = self.scene.testpmd.received().context("testpmd's counters")?;
        // The counters were read somewhere between question and answer.
        let time = asked + asked.elapsed() / 2;
        Ok(Snapshot { time, received, switch, load, stolen_ticks })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // A stopped process could not end by itself.
        let _ = self.resume();
    }
}

/// Counters at the beginning or the end of a window.
struct Snapshot {
    time: Instant,
    received: u64,
    switch: Vec<ThreadTime>,
    load: Vec<ThreadTime>,
    stolen_ticks: u64,
}
