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
use std::sync::atomic::Ordering::Relaxed;

/// Group, importance, time of its place in the queue, serial number.
type Rank = (u64, u16, u64, u64);

/// The flows of one table that can be evicted, in order. Empty for tables that do not evict.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evictions {
    groups_by: Option<Arc<[Subfield]>>,
    queue: imbl::OrdMap<Rank, Arc<Rule>>,
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

    /// Adds a flow whose place in the queue of timeouts is known.
    pub fn add(&mut self, rule: &Arc<Rule>) {
        let Some(rank) = self.rank(rule) else {
            return;
        };
        if self.queue.insert(rank, Arc::clone(rule)).is_none() {
            self.resize(rank.0, |n| n + 1);
        }
    }

    /// Takes one out, before its place in the queue of timeouts changes.
    pub fn remove(&mut self, rule: &Rule) {
        let Some(rank) = self.rank(rule) else {
            return;
        };
        if self.queue.remove(&rank).is_some() {
            self.resize(rank.0, |n| n.saturating_sub(1));
        }
    }

    fn rank(&self, rule: &Rule) -> Option<Rank> {
        let fields = self.groups_by.as_ref()?;
        rule.end()?;
        let group = if fields.is_empty() {
            START
        } else {
            let value = rule.matches().value;
            fields.iter().fold(START, |h, f| {
                let v = f.get(&value);
                fold(fold(h, v as u64), (v >> 64) as u64)
            })
        };
        Some((group, rule.importance, rule.due_ms.load(Relaxed), rule.serial))
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

    fn next(&self) -> Option<Arc<Rule>> {
        let (_, group) = self.by_size.get_max()?;
        self.queue.get_next(&(*group, 0, 0, 0)).map(|(_, rule)| Arc::clone(rule))
    }
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
            let rule = self.tables.get(&table)?.evictions.next()?;
            let (end, _) = rule.end()?;
            // It had packets since it was put in order.
            if end > rule.due_ms.load(Relaxed) {
                self.requeue(&rule);
            } else {
                return Some(self.remove(rule, Reason::Eviction));
            }
        }
    }
}
