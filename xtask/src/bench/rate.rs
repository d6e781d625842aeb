//! A scenario with a saturating load: packets per second and cycles per packet of each system.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::wait;

use super::load::{Load, Peers};
use super::measure::{self, Bench, Plan, Round, Window};
use super::outcome::Outcome;
use super::scenario::Scenario;
use super::settings::Settings;
use super::system::{Kind, Stage, System};
use super::{NO_ROUND, print, setup};

/// Time in which stages are counted.
const STAGES: Duration = Duration::from_millis(200);

/// Sets all systems up for `scenario` and takes windows of each in turn.
pub fn run(systems: &mut [System], scenario: &Scenario, plan: &Plan) -> Result<Outcome> {
    // A capture's own threads take turns on these cores: that is part of its cost, which is the most it can be then.
    let lenient = plan.lenient || scenario.settings == Settings::Captured;
    let plan = &Plan { lenient, ..*plan };
    let part: Vec<&mut System> = setup::taking_part(systems, scenario).collect();
    let order: Vec<usize> = (0..part.len()).collect();
    let kinds: Vec<Kind> = part.iter().map(|s| s.kind()).collect();
    let found = with_guests(part, scenario, *plan, |bench| {
        let (rounds, discarded) = take_rounds(bench, &order, plan)?;
        Ok((rounds, discarded, bench.stages(0, STAGES)?))
    })?;
    let (rounds, discarded, stages): (Vec<Round>, Vec<Window>, Vec<Stage>) = found.0;
    let silent = rounds.iter().flatten().find(|w| w.pps == 0.0);
    ensure!(
        silent.is_none(),
        "{}: {} forwards nothing",
        scenario.name,
        silent.map_or("", |w| w.system.name())
    );
    let outcome = Outcome::new(scenario, &kinds, rounds, discarded).context(NO_ROUND)?;
    Ok(Outcome { stages, private_memory_kb: found.1, ..outcome })
}

/// `system` against itself: how noisy the machine is.
pub fn noise(system: &mut System, scenario: &Scenario, plan: &Plan) -> Result<Option<Outcome>> {
    let kind = system.kind();
    let (found, _) =
        with_guests(vec![system], scenario, *plan, |bench| take_rounds(bench, &[0, 0], plan))?;
    Ok(Outcome::new(scenario, &[kind, kind], found.0, found.1))
}

fn take_rounds(
    bench: &mut Bench<'_>,
    order: &[usize],
    plan: &Plan,
) -> Result<(Vec<Round>, Vec<Window>)> {
    measure::rounds(order, plan, |at| {
        let window = bench.window(at)?;
        print::window(&window);
        Ok(window)
    })
}

/// Connects the guests, lets each system warm up, does `work`, and lets the guests go. Also the private memory of each.
fn with_guests<T>(
    mut systems: Vec<&mut System>,
    scenario: &Scenario,
    plan: Plan,
    work: impl FnOnce(&mut Bench<'_>) -> Result<T>,
) -> Result<(T, Vec<(Kind, u64)>)> {
    let (mut peers, mut idle, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for system in &mut systems {
        let guests = setup::prepare(system, scenario)?;
        memory.push((system.kind(), system.private_memory_kb()?));
        peers.push(Peers { busy: guests.busy, watcher: guests.watcher });
        idle.push(guests.idle);
    }
    let load = Load::start(peers, setup::sending(scenario))?;
    let count = systems.len();
    let mut bench = Bench { systems, load, plan };
    for at in 0..count {
        bench.warm(at, plan.warm_up)?;
    }
    let done = work(&mut bench)?;
    let Bench { systems, load, .. } = bench;
    // The guests go away.
    drop(load);
    drop(idle);
    for system in systems {
        setup::finish(system)?;
    }
    wait::check_interrupted()?;
    Ok((done, memory))
}
