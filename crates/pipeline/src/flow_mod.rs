//! Changes of flow tables, and their dump.

use crate::action::NameOfPort;
use crate::classifier::Table;
use crate::flow_text::{self, FlowText};
use crate::rule::{Counts, Rule};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables of a bridge that have flows, by number.
pub(crate) type Tables = BTreeMap<u8, Arc<Table>>;

/// What a change of a table is made of.
#[derive(Debug, Clone)]
pub(crate) enum FlowMod {
    /// Adds a flow, in place of one with the same match and priority.
    Add(FlowText),
    /// Gives new actions to the flows that match; adds one if there are none.
    Modify(FlowText),
    /// Removes the flows that match.
    Delete(FlowText),
}

/// Where serial numbers of new flows come from, and the time.
pub(crate) struct Stamp<'a> {
    pub next_serial: &'a mut u64,
    pub now_ms: u64,
}

/// Applies one change.
pub(crate) fn apply(tables: &mut Tables, change: FlowMod, stamp: &mut Stamp<'_>) {
    match change {
        FlowMod::Add(flow) => add(tables, &flow, stamp),
        FlowMod::Modify(flow) => modify(tables, &flow, stamp),
        FlowMod::Delete(flow) => {
            for (table, rule) in select(tables, &flow) {
                remove(tables, table, &rule);
            }
        }
    }
}

fn add(tables: &mut Tables, flow: &FlowText, stamp: &mut Stamp<'_>) {
    *stamp.next_serial += 1;
    let rule = Rule {
        serial: *stamp.next_serial,
        priority: flow.priority,
        cookie: flow.cookie,
        matches: flow.matches,
        actions: Arc::clone(&flow.actions),
        created_ms: stamp.now_ms,
        counts: Arc::new(Counts::default()),
    };
    insert(tables, flow.table.unwrap_or(0), rule);
}

fn insert(tables: &mut Tables, table: u8, rule: Rule) {
    let table = tables.entry(table).or_default();
    Arc::make_mut(table).insert(Arc::new(rule));
}

fn remove(tables: &mut Tables, table: u8, rule: &Rule) {
    if let Some(flows) = tables.get_mut(&table) {
        Arc::make_mut(flows).remove(&rule.matches, rule.priority);
        if flows.flows().next().is_none() {
            tables.remove(&table);
        }
    }
}

/// OpenFlow 1.0's OFPFC_MODIFY: counts and age stay; the cookie changes unless it chose the flows;
/// where nothing matches, and no cookie was asked for, the flow is added.
fn modify(tables: &mut Tables, flow: &FlowText, stamp: &mut Stamp<'_>) {
    let chosen = select(tables, flow);
    if chosen.is_empty() && flow.cookie_filter.is_none() {
        return add(tables, flow, stamp);
    }
    for (table, rule) in chosen {
        let cookie = match flow.cookie_filter {
            Some(_) => rule.cookie,
            None => flow.cookie,
        };
        let rule = Rule { cookie, actions: Arc::clone(&flow.actions), ..(*rule).clone() };
        insert(tables, table, rule);
    }
}

/// The flows whose match is that of `flow` or a part of it, and that have its cookie and output
/// port if it names them.
fn select(tables: &Tables, flow: &FlowText) -> Vec<(u8, Arc<Rule>)> {
    let of_table = tables.iter().filter(|(n, _)| flow.table.is_none_or(|t| t == **n));
    let all = of_table.flat_map(|(n, table)| table.flows().map(|r| (*n, r)));
    let chosen = all.filter(|(_, rule)| {
        let (cookie, mask) = flow.cookie_filter.unwrap_or((0, 0));
        rule.matches.is_within(&flow.matches)
            && (rule.cookie ^ cookie) & mask == 0
            && flow.out_port.is_none_or(|p| rule.outputs_to(p))
    });
    chosen.map(|(n, r)| (n, Arc::clone(r))).collect()
}

/// The flows that `filter` chooses, one a line, by table, then falling priority, then age.
pub(crate) fn dump(
    tables: &Tables,
    filter: &FlowText,
    now_ms: u64,
    stats: bool,
    name: NameOfPort<'_>,
) -> String {
    let mut flows = select(tables, filter);
    flows.sort_by_key(|(table, r)| (*table, u16::MAX - r.priority, r.serial));
    let lines = flows.iter().map(|(table, r)| flow_text::format(*table, r, now_ms, stats, name));
    lines.map(|l| l + "\n").collect()
}
