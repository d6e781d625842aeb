//! Which flow has to go when a table is full (ovs-vswitchd.conf.db(5), `overflow_policy`).
//!
//! Only flows with a timeout can be evicted. Those that agree in the table's group fields are a group;
//! the largest group loses the least important of its flows, and of these the one that would end first.

use crate::config::TableConfig;
use crate::rule::Rule;
use crate::shape::{ByHash, START, fold};
use crate::tables::{Reason, Removed, Tables};
use openflow::Subfield;
use std::sync::Arc;

/// Group, importance, the time at which it would have ended when it was put in order, serial number.
type Rank = (u64, u16, u64, u64);

/// The flows of one table that can be evicted, in order. Empty for tables that do not evict.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evictions {
    groups_by: Option<Arc<[Subfield]>>,
    queue: imbl::OrdMap<Rank, Arc<Rule>>,
    /// By serial number.
    ranks: imbl::OrdMap<u64, Rank>,
    sizes: ByHash<usize>,
    /// Size and group.
    by_size: imbl::OrdSet<(usize, u64)>,
}

impl Evictions {
    /// For a table with this configuration.
    pub fn new(config: &TableConfig) -> Evictions {
        let groups_by = config.evict.then(|| config.groups.as_slice().into());
        Evictions { groups_by, ..Evictions::default() }
    }

    /// Adds a flow, if it has a timeout.
    pub fn add(&mut self, rule: &Arc<Rule>) {
        let (Some(fields), Some((end, _))) = (&self.groups_by, rule.end()) else {
            return;
        };
        let rank = (group(fields, rule), rule.importance, end, rule.serial);
        self.ranks.insert(rule.serial, rank);
        self.queue.insert(rank, Arc::clone(rule));
        self.resize(rank.0, |n| n + 1);
    }

    /// Takes one out.
    pub fn remove(&mut self, rule: &Rule) {
        if let Some(rank) = self.ranks.remove(&rule.serial) {
            self.queue.remove(&rank);
            self.resize(rank.0, |n| n.saturating_sub(1));
        }
    }

    fn resize(&mut self, group: u64, change: impl Fn(usize) -> usize) {
        let before = self.sizes.get(&group).copied().unwrap_or(0);
        self.by_size.remove(&(before, group));
        match change(before) {
            0 => {
                self.sizes.remove(&group);
            }
            now => {
                self.sizes.insert(group, now);
                self.by_size.insert((now, group));
            }
        }
    }

    /// The flow to evict, and when it would have ended when it was put in order.
    fn next(&self) -> Option<(u64, Arc<Rule>)> {
        let (_, group) = self.by_size.get_max()?;
        let (rank, rule) = self.queue.get_next(&(*group, 0, 0, 0))?;
        Some((rank.2, Arc::clone(rule)))
    }
}

/// A number for the values that a flow matches in some fields.
fn group(fields: &[Subfield], rule: &Rule) -> u64 {
    if fields.is_empty() {
        return START;
    }
    let value = rule.matches().value;
    fields.iter().fold(START, |h, f| {
        let v = f.get(&value);
        fold(fold(h, v as u64), (v >> 64) as u64)
    })
}

impl Tables {
    /// Evicts flows until the table has no more than its limit, if it evicts and finds any.
    pub(crate) fn evict_surplus(&mut self, table: u8) -> Vec<Removed> {
        let mut out = Vec::new();
        while self.tables.get(&table).is_some_and(|t| t.limit().is_some_and(|l| t.len > l)) {
            match self.evict(table) {
                Some(removed) => out.push(removed),
                None => break,
            }
        }
        out
    }

    /// Evicts one flow.
    pub(crate) fn evict(&mut self, table: u8) -> Option<Removed> {
        self.resort_shortened();
        loop {
            let (rank, rule) = self.tables.get(&table)?.evictions.next()?;
            if rule.end().is_none_or(|(end, _)| end <= rank) {
                return Some(self.remove(rule, Reason::Eviction));
            }
            // It had packets since it was put in order.
            let evictions = &mut self.table_mut(table).evictions;
            evictions.remove(&rule);
            evictions.add(&rule);
        }
    }
}
