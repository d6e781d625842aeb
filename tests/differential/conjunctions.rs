//! Flows that OVS overlooks when it searches for the flow of a conjunction's id.

use openflow::{Action, Match};
use std::sync::Arc;
use tables::Rule;

/// Flows with the match of a part of a conjunction of higher priority, where there are conjunctions of
/// higher priority that no flow answers for.
pub fn overlooked(rules: &[Arc<Rule>]) -> impl Iterator<Item = &Arc<Rule>> {
    rules.iter().filter(|r| {
        let before = |p: &&Arc<Rule>| p.table == r.table && p.priority > r.priority;
        let mut parts = rules.iter().filter(before).filter(|p| p.conjunctive);
        let hidden = parts.clone().any(|p| p.matches() == r.matches());
        let answered = |id| rules.iter().filter(before).any(|f| f.matches() == whole(id));
        !r.conjunctive && hidden && parts.any(|p| !ids(p).all(answered))
    })
}

/// The conjunctions that a flow is a part of.
fn ids(rule: &Rule) -> impl Iterator<Item = u32> {
    rule.actions.iter().filter_map(|a| match a {
        Action::Conjunction { id, .. } => Some(*id),
        _ => None,
    })
}

/// What the flow matches that answers for a conjunction, whatever else its packets have.
fn whole(id: u32) -> Match {
    openflow::parse_match(&format!("conj_id={id}"), &()).unwrap_or_else(|e| panic!("{id}: {e}"))
}
