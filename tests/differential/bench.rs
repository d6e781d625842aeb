//! Both switches side by side: loads a scenario into both, compares, and makes failures small.

use crate::compare::{self, Difference};
use crate::megaflow;
use crate::minimise::minimise;
use crate::ours::Ours;
use crate::ovs::Ovs;
use crate::scenario::{Observed, Outputs, Scenario};
use anyhow::Result;
use std::cmp::Ordering;

/// Packets of a failing scenario that are traced at most.
const TRACED: usize = 3;

/// OVS, started again when it has ended, and a new switch of ours for each scenario.
#[derive(Default)]
pub struct Bench {
    ovs: Option<Ovs>,
    /// How often OVS ended by itself.
    pub aborts: usize,
    /// Packets that were not compared.
    pub withheld: usize,
}

/// What was found of megaflows.
#[derive(Default)]
pub struct Megaflows {
    /// Packets compared.
    pub packets: u64,
    /// How many have a megaflow here that looks at fewer bits than OVS's.
    pub wider: u64,
    /// Those that look at more.
    pub narrower: Vec<String>,
    /// Those that have other steps.
    pub steps: Vec<String>,
}

/// What one comparison found.
pub struct Outcome {
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
    /// OVS's doing.
    pub theirs: Observed,
    /// Ours.
    pub ours: Observed,
    /// The scenario without flows that one of them refused.
    pub ran: Scenario,
}

impl Bench {
    /// OVS, running.
    pub fn ovs(&mut self) -> Result<&mut Ovs> {
        if self.ovs.is_none() {
            self.ovs = Some(Ovs::start()?);
        }
        self.ovs.as_mut().ok_or_else(|| anyhow::anyhow!("not started"))
    }

    /// Runs a scenario on both; `None` if OVS did not live through it.
    pub fn compare(&mut self, scenario: &Scenario) -> Result<Option<Outcome>> {
        let Some(refused) = self.survives(|ovs| ovs.load(scenario))? else { return Ok(None) };
        let ours = Ours::load(scenario)?;
        let mut difference = None;
        let mut ran = scenario.clone();
        if !refused.is_empty() || !ours.refused.is_empty() {
            difference = compare::refusals(&refused, &ours.refused);
            let mut index = 0..;
            ran.flows.retain(|_| {
                let i = index.next().unwrap_or(0);
                !refused.contains_key(&i) && !ours.refused.contains_key(&i)
            });
        }
        let mut ours = Ours::load(&ran)?.run(&ran)?;
        // What is withheld teaches the tables nothing, so that other packets may meet something then.
        while !ours.withheld.is_empty() {
            self.withheld += ours.withheld.len();
            let mut index = 0..;
            ran.inputs.retain(|_| !ours.withheld.contains(&index.next().unwrap_or(0)));
            ours = Ours::load(&ran)?.run(&ran)?;
        }
        let Some(theirs) = self.survives(|ovs| match ran.flows == scenario.flows {
            true => ovs.run_loaded(&ran),
            false => ovs.run(&ran),
        })?
        else {
            return Ok(None);
        };
        difference = difference.or_else(|| compare::first(&theirs, &ours));
        if difference.is_none() && !scenario.stateful {
            let uncounted = ours.uncounted;
            ours = Ours::load(&ran)?.run_bursts(&ran)?;
            ours.uncounted = uncounted;
            let mut summed = theirs.clone();
            // Once, or once before and once after the changes.
            let times = theirs.outputs.chunks(ran.inputs.len().max(1));
            summed.outputs = times.map(sum).collect();
            // Packets that leave a port twice may take turns with others of their burst.
            let all = summed.outputs.iter_mut().chain(&mut ours.outputs);
            all.flat_map(|o| o.values_mut()).for_each(|frames| frames.sort_unstable());
            difference = compare::first(&summed, &ours);
        }
        Ok(Some(Outcome { difference, theirs, ours, ran }))
    }

    /// Compares what both say about each packet of a scenario that packets do not change.
    pub fn compare_megaflows(&mut self, scenario: &Scenario, sums: &mut Megaflows) -> Result<()> {
        let mut ours = Ours::load(scenario)?;
        let Some(refused) = self.survives(|ovs| ovs.load(scenario))? else { return Ok(()) };
        if scenario.stateful || !refused.is_empty() || !ours.refused.is_empty() {
            return Ok(());
        }
        for input in &scenario.inputs {
            let Some((key, ours_says)) = ours.answer(input, scenario) else { continue };
            let Some(trace) = self.survives(|ovs| ovs.trace(input))? else { return Ok(()) };
            let tags = crate::known::tags(&input.frame);
            let Some(theirs) = megaflow::theirs(&trace, tags) else { continue };
            sums.packets += 1;
            let bits = |mask| megaflow::telling(&key, mask);
            let (our_bits, their_bits) = (bits(&ours_says.mask), bits(&theirs.mask));
            let story = |what: &str| {
                format!("seed {}: {what}\n{trace}\nhere:\n{}", scenario.seed, ours.trace(input))
            };
            match megaflow::count(&our_bits).cmp(&megaflow::count(&their_bits)) {
                Ordering::Less => sums.wider += 1,
                Ordering::Equal => {}
                Ordering::Greater => {
                    let more = megaflow::excess(&our_bits, &their_bits).join(", ");
                    sums.narrower.push(story(&format!("looks also at {more}")));
                }
            }
            let (a, b) = (megaflow::steps(&theirs.actions), megaflow::steps(&ours_says.actions));
            if a != b {
                sums.steps.push(story(&format!("OVS does {a}, here {b}")));
            }
        }
        Ok(())
    }

    /// `None`, and a new OVS next time, if OVS ended meanwhile.
    fn survives<T>(&mut self, act: impl FnOnce(&mut Ovs) -> Result<T>) -> Result<Option<T>> {
        let ovs = self.ovs()?;
        match act(ovs) {
            Ok(value) => Ok(Some(value)),
            Err(_) if ovs.has_ended() => {
                self.ovs = None;
                self.aborts += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The smallest scenario with a difference of the same kind, and its story.
    pub fn explain(&mut self, scenario: &Scenario, difference: &Difference) -> Result<String> {
        let small = minimise(scenario, |candidate| match self.compare(candidate) {
            Ok(Some(o)) => o.difference.is_some_and(|d| d.kind() == difference.kind()),
            _ => false,
        });
        let Some(outcome) = self.compare(&small)? else {
            return Ok("OVS ended when it was tried again".to_owned());
        };
        let found = outcome.difference.as_ref().unwrap_or(difference);
        let mut traces = Vec::new();
        let _ = self.survives(|ovs| {
            for (i, input) in outcome.ran.inputs.iter().enumerate().take(TRACED) {
                let theirs = ovs.trace(input)?;
                traces.push((i, theirs, Ours::load(&outcome.ran)?.trace(input)));
            }
            Ok(())
        })?;
        let shown = if found.kind() == 0 { &small } else { &outcome.ran };
        Ok(compare::report(shown, found, &outcome.theirs, &outcome.ours, &traces))
    }
}

/// All outputs, each port's in order.
fn sum(outputs: &[Outputs]) -> Outputs {
    let mut all = Outputs::new();
    for (port, frames) in outputs.iter().flatten() {
        all.entry(*port).or_default().extend(frames.iter().cloned());
    }
    all
}
