//! Conjunctive matches (ovs-fields(7), "Conjunctive match fields"): flows that each match one dimension
//! of a larger match.

use crate::rule::Rule;
use openflow::Action;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The ids of the conjunctions that have all their dimensions among `parts`, by falling priority of
/// the parts, then by id. Flows of different priority are parts of different conjunctions.
pub(crate) fn satisfied(parts: &mut [&Arc<Rule>]) -> Vec<u32> {
    parts.sort_by_key(|r| Reverse(r.priority));
    let mut out = Vec::new();
    for group in parts.chunk_by(|a, b| a.priority == b.priority) {
        let mut dimensions: BTreeMap<(u32, u8), u64> = BTreeMap::new();
        for action in group.iter().flat_map(|r| r.actions.iter()) {
            if let Action::Conjunction { id, clause, n_clauses } = action {
                *dimensions.entry((*id, *n_clauses)).or_default() |= 1 << (clause & 63);
            }
        }
        let all = |n: u8| u64::MAX >> (64 - u32::from(n.clamp(1, 64)));
        let whole = dimensions.iter().filter(|((_, n), bits)| **bits == all(*n));
        out.extend(whole.map(|((id, _), _)| *id));
    }
    out
}
