//! The `learn` action: flows that packets make (ovs-actions(7), "The learn action").
//!
//! A translation says what would be learned; applying its effects learns it. That is done at once if
//! nobody changes flows at the moment, so that the next packet meets the flow, and else as soon as the
//! change is over.

use crate::bridge::{Bridge, BridgeId};
use crate::core::{Control, Core};
use crate::note::NoteKind;
use crate::walk::Walk;
use openflow::{
    Action, Command, FlowMod, Learn, LearnSource, LearnSpec, Match, OfPort, format_actions,
    format_match, settle_actions,
};
use std::sync::{Arc, PoisonError, TryLockError};
use tables::{Rule, Tables};

/// Flows that wait to be learned while somebody changes flows. Each takes about 3 kB; what is more is
/// learned from a later packet.
const MAX_QUEUED: usize = 4096;
/// How often a flow that is learned again and again has its hard timeout begin anew, at most.
const REFRESH_MS: u64 = 1000;

/// A flow to be learned.
#[derive(Debug)]
pub(crate) struct Learned {
    bridge: BridgeId,
    /// Most flows with its cookie in its table; 0 for no limit.
    limit: u32,
    flow: FlowMod,
}

/// What is to be done about a flow that packets teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Its hard timeout begins anew: no packet is forwarded otherwise than before.
    Refresh,
    Change,
}

impl Learned {
    fn existing<'a>(&self, tables: &'a Tables) -> Option<&'a Arc<Rule>> {
        tables.select(&self.flow).first().copied()
    }

    /// True if a flow does what the one to be learned would do.
    fn does_the_same(&self, rule: &Rule) -> bool {
        rule.actions[..] == self.flow.actions[..] && Some(rule.cookie) == self.flow.new_cookie
    }

    /// True if the limit lets the flow be there: it is there, or there are fewer than the limit. Who is
    /// at the limit does not take the place of a flow with the same match either (OVS).
    fn has_room(&self, tables: &Tables) -> bool {
        if self.limit == 0 || self.existing(tables).is_some_and(|r| self.does_the_same(r)) {
            return true;
        }
        let (table, cookie) = (self.flow.table.unwrap_or(0), self.flow.new_cookie.unwrap_or(0));
        let limit = self.limit as usize;
        tables.count_with_cookie(table, cookie, limit) < limit
    }

    fn need(&self, tables: &Tables, now_ms: u64) -> Need {
        let Some(rule) = self.existing(tables) else { return Need::Change };
        if !self.does_the_same(rule) {
            return Need::Change;
        }
        let old = now_ms.saturating_sub(rule.modified_ms) >= REFRESH_MS;
        match rule.hard_timeout() != 0 && old {
            false => Need::Nothing,
            // Effects of megaflows know the rule as it was.
            true if rule.actions.iter().any(|a| matches!(a, Action::FinTimeout { .. })) => {
                Need::Change
            }
            true => Need::Refresh,
        }
    }
}

impl Walk<'_> {
    /// `learn`.
    #[inline(never)]
    pub fn learn(&mut self, learn: &Learn) {
        let mut matches = Match::any();
        let mut actions = Vec::new();
        if learn.fin_idle_timeout != 0 || learn.fin_hard_timeout != 0 {
            let (idle, hard) = (learn.fin_idle_timeout, learn.fin_hard_timeout);
            actions.push(Action::FinTimeout { idle, hard });
        }
        for spec in &learn.specs {
            match spec {
                LearnSpec::Match { dst, src } => {
                    let value = self.source(src);
                    dst.set(&mut matches.value, value);
                    dst.add_to(&mut matches.mask);
                }
                LearnSpec::Load { dst, src } => {
                    actions.push(Action::Load { dst: *dst, value: self.source(src) });
                }
                LearnSpec::Output(src) => actions.extend(output(self.h.read(src))),
            }
        }
        matches.value = matches.mask.apply(&matches.value);
        let actions = settle_actions(actions, &matches);
        let flow = flow_mod(learn, matches, actions);
        let learned = Learned { bridge: self.bridge.id, limit: learn.limit, flow };
        let has_room = learned.has_room(&self.bridge.tables);
        match self.side_effects {
            true => self.note(NoteKind::Detail, || describe(&learned.flow)),
            false => self.warn("suppressing side effects, so learn action ignored"),
        }
        if has_room {
            self.caused.learn(self.core, learned);
        }
        if let Some(dst) = &learn.result_dst {
            self.h.write(dst.field, u128::from(has_room) << dst.first, dst.mask());
        }
    }

    fn source(&mut self, src: &LearnSource) -> u128 {
        match src {
            LearnSource::Constant(value) => *value,
            LearnSource::Field(part) => self.h.read(part),
        }
    }
}

/// An output to a port that there can be.
fn output(value: u128) -> Option<Action> {
    let port = OfPort(u16::try_from(value).ok()?);
    let allowed = port.is_port() || [OfPort::IN_PORT, OfPort::FLOOD, OfPort::ALL].contains(&port);
    allowed.then_some(Action::Output { port, max_len: None })
}

fn flow_mod(learn: &Learn, matches: Match, actions: Vec<Action>) -> FlowMod {
    FlowMod {
        table: Some(learn.table),
        matches,
        priority: learn.priority,
        new_cookie: Some(learn.cookie),
        idle_timeout: learn.idle_timeout,
        hard_timeout: learn.hard_timeout,
        send_flow_rem: learn.send_flow_rem,
        actions,
        ..FlowMod::new(Command::ModifyStrict)
    }
}

/// A flow to be learned, as `ofproto/trace` says it.
fn describe(flow: &FlowMod) -> String {
    use std::fmt::Write;
    let mut out = format!("table={} ", flow.table.unwrap_or(0));
    out += &format_match(&flow.matches, &(), Some(flow.priority));
    // Writing to a String cannot fail.
    let _ = write!(out, " priority={}", flow.priority);
    for (name, value) in [("idle", flow.idle_timeout), ("hard", flow.hard_timeout)] {
        if value != 0 {
            let _ = write!(out, " {name}={value}");
        }
    }
    if let Some(cookie) = flow.new_cookie.filter(|c| *c != 0) {
        let _ = write!(out, " cookie={cookie:#x}");
    }
    if flow.send_flow_rem {
        out += " send_flow_rem";
    }
    out + " actions=" + &format_actions(&flow.actions, &())
}

impl Core {
    /// Has a flow in force that packets of `now_ms` taught; waits for nobody.
    pub fn learn(&self, learned: &Arc<Learned>, now_ms: u64) {
        let snapshot = self.snapshot.load();
        let Some(bridge) = snapshot.bridges.get(&learned.bridge) else { return };
        if learned.need(&bridge.tables, now_ms) == Need::Nothing {
            return;
        }
        let mut control = match self.changing.try_lock() {
            Ok(control) => control,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.enqueue(learned, now_ms),
        };
        self.learn_now(&mut control, learned, now_ms);
        drop(control);
        self.drain();
    }

    fn learn_now(&self, control: &mut Control, learned: &Learned, now_ms: u64) {
        let snapshot = self.snapshot.load();
        let Some(bridge) = snapshot.bridges.get(&learned.bridge) else { return };
        let need = learned.need(&bridge.tables, now_ms);
        if need == Need::Nothing || !learned.has_room(&bridge.tables) {
            return;
        }
        let mut changed = Bridge::clone(bridge);
        // A full table learns nothing, as one that refuses a flow mod.
        if let Ok(evicted) = changed.tables.apply(&learned.flow, now_ms) {
            if !evicted.is_empty() {
                changed.gone(evicted);
                crate::change::forget_learned(&mut changed);
            }
            self.put_bridge(control, changed, need == Need::Change);
        }
    }

    fn enqueue(&self, learned: &Arc<Learned>, now_ms: u64) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < MAX_QUEUED {
            queue.push((Arc::clone(learned), now_ms));
        }
    }

    /// Learns what waits, if nobody changes anything: whoever does, does this afterwards.
    pub fn drain(&self) {
        loop {
            let waiting = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if queue.is_empty() {
                    return;
                }
                std::mem::take(&mut *queue)
            };
            let mut control = match self.changing.try_lock() {
                Ok(control) => control,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    waiting.iter().for_each(|(l, at)| self.enqueue(l, *at));
                    return;
                }
            };
            for (learned, at) in waiting {
                self.learn_now(&mut control, &learned, at);
            }
        }
    }
}

/// What `delete_learned` counts: cookies of flows that are learned, with their tables.
pub(crate) fn teachers(tables: &Tables) -> std::collections::BTreeSet<(u64, u8)> {
    let mut out = std::collections::BTreeSet::new();
    for rule in tables.rules() {
        collect(&rule.actions, &mut out);
    }
    out
}

/// True if flows that these actions learn go with them.
pub(crate) fn deletes_learned(actions: &[Action]) -> bool {
    let mut found = std::collections::BTreeSet::new();
    collect(actions, &mut found);
    !found.is_empty()
}

/// Nesting is bounded where actions are read.
fn collect(actions: &[Action], out: &mut std::collections::BTreeSet<(u64, u8)>) {
    for action in actions {
        match action {
            Action::Learn(learn) if learn.delete_learned => {
                out.insert((learn.cookie, learn.table));
            }
            Action::Clone(inner) | Action::WriteActions(inner) => collect(inner, out),
            _ => {}
        }
    }
}
