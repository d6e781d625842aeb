//! Checking megaflows against the pipeline as packets hit them: caching must never change an answer.

use crate::Megaflow;
use crate::walk::{Context, State};
use flow::{FlowKey, Translation, odp};
use packet::Set;
use std::sync::Arc;

/// What debug builds check: about a packet of each full burst.
const DEBUG_ONE_IN: u32 = 32;
const DEBUG_PATIENCE_MS: u64 = 1000;

/// When to check, and what was found.
pub(crate) struct Check {
    /// One in so many packets that hit; 0 for none.
    one_in: u32,
    patience_ms: u64,
    passed: u32,
    suspect: Option<Suspect>,
}

/// A megaflow that differed once.
struct Suspect {
    flow: Arc<Megaflow>,
    key: FlowKey,
    generation: u64,
    since_ms: u64,
}

impl Default for Check {
    fn default() -> Self {
        Check::new(if cfg!(debug_assertions) { DEBUG_ONE_IN } else { 0 }, DEBUG_PATIENCE_MS)
    }
}

impl Check {
    pub(crate) fn new(one_in: u32, patience_ms: u64) -> Check {
        Check { one_in, patience_ms, passed: 0, suspect: None }
    }

    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.one_in != 0
    }
}

impl State {
    /// Checks some of the packets of `set` that have a flow.
    #[cold]
    pub(crate) fn check(&mut self, set: Set, c: &Context<'_>) {
        if let Some(s) = self
            .check
            .suspect
            .take_if(|s| c.now_ms.saturating_sub(s.since_ms) > self.check.patience_ms)
            && let Some(answer) = differs(&s.flow, &s.key, s.generation, c)
        {
            self.condemn(&s, &answer, c);
        }
        for i in set {
            let number = self.flow_of[i];
            let Some(flow) = self.flow(number).filter(|_| !State::is_passing(number)) else {
                continue;
            };
            let flow = flow.clone();
            self.check.passed += 1;
            if self.check.passed < self.check.one_in {
                continue;
            }
            self.check.passed = 0;
            let (key, generation) = (self.packets[i].key, c.translate.generation());
            let Some(answer) = differs(&flow, &key, generation, c) else { continue };
            let suspect = Suspect { flow, key, generation, since_ms: c.now_ms };
            if self.check.patience_ms == 0 {
                self.condemn(&suspect, &answer, c);
            } else {
                self.check.suspect.get_or_insert(suspect);
            }
        }
    }

    fn condemn(&self, s: &Suspect, answer: &Translation, c: &Context<'_>) {
        let text = |mask, actions| {
            let packet = odp::format_match(&s.key, mask, &odp::number);
            format!("{packet}, actions:{}", odp::format_actions(actions, &odp::number))
        };
        debug_assert!(
            false,
            "a cached megaflow differs from what the pipeline says\ncached: {}\nfresh:  {}",
            text(&s.flow.wildcards, &s.flow.actions),
            text(&answer.mask, &answer.actions)
        );
        c.counters.wrong_megaflows.add(1);
        self.registry.kill(&s.flow);
    }
}

/// The pipeline's answer for `key`, if it contradicts `flow` although `flow` is known to be right for
/// the pipeline's `generation` and that is its generation still.
fn differs(
    flow: &Megaflow,
    key: &FlowKey,
    generation: u64,
    c: &Context<'_>,
) -> Option<Translation> {
    let current = || !flow.needs_check(generation) && c.translate.generation() == generation;
    if !current() {
        return None;
    }
    let answer = c.translate.translate(key);
    (current() && !flow.agrees(&answer)).then_some(answer)
}
