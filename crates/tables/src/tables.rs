//! All tables of one bridge.

use crate::config::{TableConfig, TableCounters};
use crate::rule::Rule;
use crate::table::Table;
use crate::timeout::Timeouts;
use openflow::{Action, Command, FlowMod, FullKey, FullMask};
use std::cmp::Reverse;
use std::sync::Arc;

/// The highest table that takes flows: OVS keeps 254 to itself, and 255 means "all tables".
pub const MAX_TABLE: u8 = 253;

/// A flow that is gone, and why.
#[derive(Debug, Clone)]
pub struct Removed {
    /// The flow. Controllers are told if its flags say `send_flow_rem`.
    pub rule: Arc<Rule>,
    /// Why.
    pub reason: Reason,
}

/// Why a flow was removed, numbered as OpenFlow 1.4's `OFPRR_*` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No packet came for `idle_timeout`.
    IdleTimeout = 0,
    /// `hard_timeout` was over.
    HardTimeout = 1,
    /// A flow mod asked for it.
    Delete = 2,
    /// The group that it used was deleted.
    GroupDelete = 3,
    /// The meter that it used was deleted.
    MeterDelete = 4,
    /// Its table was full.
    Eviction = 5,
}

/// The tables of one bridge. Copying is cheap, and a changed copy leaves the original as it was.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Those that have or had flows or a configuration.
    pub(crate) tables: imbl::OrdMap<u8, Arc<Table>>,
    pub(crate) timeouts: Timeouts,
    counters: Arc<[Arc<TableCounters>]>,
    next_serial: u64,
    /// Those of the flow that was added or changed last.
    pub(crate) last_actions: Arc<[Action]>,
}

impl Default for Tables {
    fn default() -> Self {
        Tables::new()
    }
}

impl Tables {
    /// No flows.
    pub fn new() -> Tables {
        Tables {
            tables: imbl::OrdMap::new(),
            timeouts: Timeouts::default(),
            counters: (0..=u8::MAX).map(|_| Arc::default()).collect(),
            next_serial: 0,
            last_actions: Arc::new([]),
        }
    }

    /// The flow of a table that `key` matches, conjunctions resolved. Adds to `seen` every bit of the
    /// key that the answer depended on.
    pub fn lookup(&self, table: u8, key: &FullKey, seen: &mut FullMask) -> Option<&Arc<Rule>> {
        self.tables.get(&table)?.lookup(key, seen)
    }

    /// How often a table was looked up; the same for all copies.
    pub fn counters(&self, table: u8) -> &Arc<TableCounters> {
        &self.counters[usize::from(table)]
    }

    /// Configures a table. Flows that are too many for it now are evicted if it evicts.
    pub fn set_table_config(&mut self, table: u8, config: TableConfig) -> Vec<Removed> {
        let configured = match self.tables.get(&table) {
            Some(t) => t.configured(Arc::new(config)),
            None => Table::new(Arc::new(config)),
        };
        self.tables.insert(table, Arc::new(configured));
        self.evict_surplus(table)
    }

    /// A table's configuration, if it was given one.
    pub fn table_config(&self, table: u8) -> Option<&TableConfig> {
        Some(&self.tables.get(&table)?.config)
    }

    /// Flows in a table.
    pub fn len_of(&self, table: u8) -> usize {
        self.tables.get(&table).map_or(0, |t| t.len)
    }

    /// Flows in all tables.
    pub fn len(&self) -> usize {
        self.tables.values().map(|t| t.len).sum()
    }

    /// True if there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flows that a flow mod or filter is about: its table or all, its match (a part of it, or for
    /// strict commands the same match and priority), cookie, output port and group. By table, then
    /// falling priority, then age.
    pub fn select(&self, filter: &FlowMod) -> Vec<&Arc<Rule>> {
        let strict = matches!(filter.command, Command::ModifyStrict | Command::DeleteStrict);
        let of_table = self.tables.iter().filter(|(n, _)| filter.table.is_none_or(|t| t == **n));
        let (cookie, mask) = filter.cookie_filter;
        let mut out: Vec<&Arc<Rule>> = Vec::new();
        for (_, table) in of_table {
            match strict {
                true => out.extend(table.get(&filter.matches, filter.priority)),
                false if mask == u64::MAX && cookie != 0 => {
                    out.extend(table.with_cookie(cookie, &filter.matches));
                }
                false => out.extend(table.within(&filter.matches)),
            }
        }
        out.retain(|r| {
            (r.cookie ^ cookie) & mask == 0
                && filter.out_port.is_none_or(|p| r.outputs_to(p))
                && filter.out_group.is_none_or(|g| r.uses_group(g))
        });
        out.sort_unstable_by_key(|r| (r.table, Reverse(r.priority), r.serial));
        out
    }

    /// How many flows of a table have this cookie; no more than `most` are counted.
    pub fn count_with_cookie(&self, table: u8, cookie: u64, most: usize) -> usize {
        self.tables.get(&table).map_or(0, |t| t.count_with_cookie(cookie, most))
    }

    /// All flows, in no order within a table.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.tables.values().flat_map(|t| t.rules())
    }

    /// Removes what `chosen` says.
    pub fn remove_if(&mut self, reason: Reason, chosen: impl Fn(&Rule) -> bool) -> Vec<Removed> {
        let rules: Vec<Arc<Rule>> = self.rules().filter(|r| chosen(r)).cloned().collect();
        self.remove_all(rules, reason)
    }

    pub(crate) fn remove_all(&mut self, rules: Vec<Arc<Rule>>, reason: Reason) -> Vec<Removed> {
        rules.into_iter().map(|rule| self.remove(rule, reason)).collect()
    }

    pub(crate) fn remove(&mut self, rule: Arc<Rule>, reason: Reason) -> Removed {
        self.timeouts.forget(&rule);
        if let Some(table) = self.tables.get_mut(&rule.table) {
            Arc::make_mut(table).remove(&rule);
        }
        Removed { rule, reason }
    }

    /// The table, made if there is none.
    pub(crate) fn table_mut(&mut self, table: u8) -> &mut Table {
        let entry =
            self.tables.entry(table).or_insert_with(|| Arc::new(Table::new(Arc::default())));
        Arc::make_mut(entry)
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }
}
