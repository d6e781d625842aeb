//! `cargo xtask bench`: packets per second of this switch and of another, alternating in one run.
//!
//! Each system has its own testpmd with a virtio driver on two vhost-user ports; 64-byte frames go round
//! through both. Both systems are set up once and all but the one being measured is stopped (SIGSTOP), so that the
//! two windows of a pair lie a second apart and see the same neighbours. Only the ratio means something.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::cpu::{self, ThreadTime};
use lab::hugepages::Hugepages;
use lab::progress::Step;
use lab::scene::TestpmdLoop;
use lab::switch::{Kind, SocketMode};
use lab::testpmd::{self, MEMORY_MB};
use lab::{packages, wait};
use serde_json::json;

use crate::build;
use crate::report::{Median, Pair, Window, median, median_ratio};

/// The switch polls on core 0, the load on core 1.
const SWITCH_CORE: usize = 0;

/// Time after a system goes on until caches and rings are as they stay.
const SETTLE: Duration = Duration::from_millis(300);

/// A window counts only if the measured threads waited for their core less than this share of it.
const WAITED_LIMIT: f64 = 0.03;

/// DPDK's other threads share the load's core and take 4 to 5 % of it by themselves.
const LOAD_WAITED_LIMIT: f64 = 0.08;

/// Windows thrown away before the bench gives up, for each one wanted: the machine is too busy.
const DISCARDS_PER_PAIR: usize = 4;

/// Bursts of 32 frames on each port to begin with: half a ring each way.
const FIRST_BURSTS: u16 = 8;

/// Compare packets per second with OVS-DPDK in one alternating run.
///
/// Needs root (hugepages for OVS-DPDK and for both testpmds) and two cores that have nothing else to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench
  cargo xtask bench --pairs 40 --json result.json
  cargo xtask bench --left ovs-dpdk        OVS-DPDK with itself: how noisy this machine is")]
pub struct Arguments {
    /// Pairs of windows that must count
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=1000))]
    pairs: u16,
    /// Seconds of each window
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Write every window to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// The system in question: ours or ovs-dpdk
    #[arg(long, default_value_t = Kind::Ours)]
    left: Kind,
    /// The system it is compared with: ours or ovs-dpdk
    #[arg(long, default_value_t = Kind::OvsDpdk)]
    right: Kind,
    /// Frame length in bytes, without frame check sequence
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(60..=1514))]
    frame_bytes: u16,
}

/// Runs the bench.
pub fn run(arguments: &Arguments) -> Result<()> {
    println!("{} and {}, alternating, on {}", arguments.left, arguments.right, cpu::model());
    ensure!(cpu::count() >= 2, "the bench needs a core for the switch and one for the load");
    ensure!(
        arguments.seconds > 0.0 && arguments.seconds <= 60.0,
        "--seconds must be within 0 and 60"
    );
    packages::ensure(packages::FOR_BENCH)?;
    if [arguments.left, arguments.right].contains(&Kind::Ours) {
        lab::switch::use_binaries_in(build::release()?);
    }
    let hugepages = load_hugepages();
    let mount = hugepages.as_ref().map(Hugepages::dir);
    let mut left = System::start(arguments.left, mount, arguments.frame_bytes)?;
    let mut right = System::start(arguments.right, mount, arguments.frame_bytes)?;

    let mut discarded = 0;
    let noise_pairs = usize::from(arguments.pairs).div_ceil(3).max(3);
    println!("\nnoise: {} against itself", arguments.right);
    let noise = measure_noise(&mut right, arguments.seconds, noise_pairs, &mut discarded)?;
    println!("\n{} against {}", arguments.left, arguments.right);
    let pairs = usize::from(arguments.pairs);
    let pairs = measure_pairs(&mut left, &mut right, arguments.seconds, pairs, &mut discarded)?;

    let noise_ratio = median_ratio(&noise).context("no pairs")?;
    let ratio = median_ratio(&pairs).context("no pairs")?;
    println!("\nnoise ratio     {noise_ratio}");
    print_summary(arguments, &pairs, ratio, discarded);
    for (name, system) in [("left", &left), ("right", &right)] {
        let kb = cpu::private_memory_kb(system.scene.switch.daemon().id())?;
        println!("{:9} private memory {:.1} MB ({name})", system.kind(), kb as f64 / 1024.0);
    }
    if let Some(path) = &arguments.json {
        let report = json!({
            "left": arguments.left.to_string(), "right": arguments.right.to_string(),
            "processor": cpu::model(), "frame_bytes": arguments.frame_bytes,
            "load_on_hugepages": hugepages.is_some(), "discarded_pairs": discarded,
            "noise_ratio": noise_ratio, "ratio": ratio, "noise": noise, "pairs": pairs,
        });
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(())
}

fn print_summary(arguments: &Arguments, pairs: &[Pair], ratio: Median, discarded: usize) {
    println!("ratio           {ratio}, {} pairs, {discarded} discarded", pairs.len());
    let left: Vec<&Window> = pairs.iter().map(|p| &p.left).collect();
    let right: Vec<&Window> = pairs.iter().map(|p| &p.right).collect();
    for (kind, windows) in [(arguments.left, left), (arguments.right, right)] {
        let of = |get: fn(&Window) -> Option<f64>| {
            median(windows.iter().filter_map(|w| get(w)).collect())
        };
        let mpps = of(|w| Some(w.pps)).unwrap_or(0.0) / 1e6;
        let stolen = of(|w| Some(w.stolen)).unwrap_or(0.0) * 100.0;
        let cycles = of(|w| w.cycles_per_packet);
        let cycles = cycles.map_or("not given".to_owned(), |c| format!("{c:.0}"));
        println!("{kind:9} median {mpps:.3} Mpps, cycles/packet {cycles}, stolen {stolen:.1} %");
    }
}

/// Hugepages for both testpmds alike, or for neither.
fn load_hugepages() -> Option<Hugepages> {
    match Hugepages::reserve(2 * MEMORY_MB) {
        Ok(hugepages) => Some(hugepages),
        Err(error) => {
            println!("both testpmds run without hugepages: {error:#}");
            None
        }
    }
}

/// A switch with its load; stopped except while [`System::window`] runs.
struct System {
    scene: TestpmdLoop,
}

impl System {
    fn start(kind: Kind, hugepages: Option<&Path>, frame_bytes: u16) -> Result<System> {
        let step = Step::start(format!("setting up {kind}"));
        let options = testpmd::Options {
            hugepages: hugepages.map(Path::to_owned),
            core: cpu::load_core(),
            frame_bytes,
            ..testpmd::Options::default()
        };
        let mask = 1 << SWITCH_CORE;
        let mut scene = TestpmdLoop::start(kind, mask, SocketMode::SwitchConnects, &options)?;
        scene.testpmd.start_loop(FIRST_BURSTS)?;
        scene.testpmd.wait_received(100_000, Duration::from_secs(30))?;
        scene.switch.daemon().prefer()?;
        scene.testpmd.process().prefer()?;
        let system = System { scene };
        system.pause()?;
        step.done();
        Ok(system)
    }

    fn kind(&self) -> Kind {
        self.scene.switch.kind()
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

    /// Measures one window.
    fn window(&mut self, seconds: f64) -> Result<Window> {
        self.resume()?;
        wait::pass(SETTLE)?;
        let _ = self.scene.switch.appctl(&["dpif-netdev/pmd-stats-clear"])?;
        let before = self.snapshot()?;
        wait::pass(Duration::from_secs_f64(seconds))?;
        let after = self.snapshot()?;
        let statistics = self.scene.switch.appctl(&["dpif-netdev/pmd-stats-show"])?;
        self.pause()?;
        let length = after.time.duration_since(before.time).as_secs_f64();
        let share = |ns: u64| ns as f64 / 1e9 / length;
        let waited = |a: &[ThreadTime], b: &[ThreadTime]| share(cpu::busiest(a, b).wait_ns);
        let ticks = after.stolen_ticks.saturating_sub(before.stolen_ticks);
        Ok(Window {
            seconds: length,
            pps: after.received.saturating_sub(before.received) as f64 / length,
            cycles_per_packet: cycles_per_packet(&statistics),
            switch_waited: waited(&before.switch, &after.switch),
            load_waited: waited(&before.load, &after.load),
            stolen: ticks as f64 / 100.0 / length,
        })
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let switch = cpu::threads(self.scene.switch.daemon().id())?;
        let load = cpu::threads(self.scene.testpmd.process().id())?;
        let stolen_ticks = cpu::stolen_ticks(SWITCH_CORE)?;
        let asked = Instant::now();
        let received = self.scene.testpmd.received()?;
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

/// The first `avg processing cycles per packet: 123.45 (…)` or, if missing, `avg cycles per packet`.
fn cycles_per_packet(statistics: &str) -> Option<f64> {
    let value = |name: &str| {
        let line = statistics.lines().find_map(|l| l.trim().strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    value("avg processing cycles per packet:").or_else(|| value("avg cycles per packet:"))
}

fn undisturbed(window: &Window) -> bool {
    window.switch_waited <= WAITED_LIMIT && window.load_waited <= LOAD_WAITED_LIMIT
}

/// Takes pairs with `take` until `wanted` count; those in which another process had a core are only counted.
fn collect(
    wanted: usize,
    discarded: &mut usize,
    mut take: impl FnMut(usize) -> Result<Pair>,
) -> Result<Vec<Pair>> {
    let limit = *discarded + wanted * DISCARDS_PER_PAIR;
    let mut pairs = Vec::new();
    println!("pair    left Mpps   right Mpps    ratio   switch/load waited %, stolen %");
    while pairs.len() < wanted {
        let pair = take(pairs.len() + *discarded)?;
        let counts = undisturbed(&pair.left) && undisturbed(&pair.right);
        let share = |w: &Window| {
            let percent = [w.switch_waited, w.load_waited, w.stolen].map(|s| s * 100.0);
            format!("{:.1}/{:.1}, {:.1}", percent[0], percent[1], percent[2])
        };
        println!(
            "{:4} {:12.3} {:12.3} {:8.3}   {} | {}{}",
            pairs.len() + 1,
            pair.left.pps / 1e6,
            pair.right.pps / 1e6,
            pair.ratio(),
            share(&pair.left),
            share(&pair.right),
            if counts { "" } else { "  discarded" },
        );
        if counts {
            pairs.push(pair);
        } else {
            *discarded += 1;
            ensure!(
                *discarded < limit,
                "other processes keep taking the cores: {discarded} pairs discarded"
            );
        }
    }
    Ok(pairs)
}

fn measure_noise(
    system: &mut System,
    seconds: f64,
    wanted: usize,
    discarded: &mut usize,
) -> Result<Vec<Pair>> {
    collect(wanted, discarded, |_| {
        Ok(Pair { left: system.window(seconds)?, right: system.window(seconds)? })
    })
}

/// The order within a pair changes from pair to pair, so that neither always comes first.
fn measure_pairs(
    left: &mut System,
    right: &mut System,
    seconds: f64,
    wanted: usize,
    discarded: &mut usize,
) -> Result<Vec<Pair>> {
    collect(wanted, discarded, |number| {
        if number % 2 == 0 {
            let left = left.window(seconds)?;
            Ok(Pair { left, right: right.window(seconds)? })
        } else {
            let right = right.window(seconds)?;
            Ok(Pair { left: left.window(seconds)?, right })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::cycles_per_packet;

    #[test]
    fn cycles_are_read_from_either_line() {
        let text = "pmd thread:\n  avg cycles per packet: 700.50 (7/1)\n  avg processing cycles per packet: 585.25 (5/1)\n";
        assert_eq!(cycles_per_packet(text), Some(585.25));
        assert_eq!(cycles_per_packet("  avg cycles per packet: 700.50 (7/1)"), Some(700.5));
        assert_eq!(cycles_per_packet("nothing"), None);
    }
}
