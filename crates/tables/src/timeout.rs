//! Which flows end when.
//!
//! Flows with timeouts stand in a queue by the earliest time at which they could end. A flow that is
//! at the head and had packets meanwhile goes back to where it belongs now, so that a flow is looked at
//! once in each of its timeouts and not each second.

use crate::rule::Rule;
use crate::tables::{Removed, Tables};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Flows with reduced timeouts that are noted one by one until the next [`Tables::expire`]; beyond
/// that, all flows are looked at instead. It bounds the memory if nobody asks what has expired.
const MAX_SHORTENED: usize = 65_536;

/// Flows whose timeouts were reduced and that do not stand in the queue accordingly. All copies of a
/// bridge's tables share the list, so that nothing is lost with a copy that is dropped.
#[derive(Debug, Default)]
pub(crate) struct Shortened(Mutex<Vec<Weak<Rule>>>);

impl Shortened {
    /// Notes a flow.
    pub fn note(&self, rule: &Arc<Rule>) {
        let mut list = self.list();
        if list.len() <= MAX_SHORTENED {
            list.push(Arc::downgrade(rule));
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Weak<Rule>>> {
        // A list of weak references is whole even if a thread ended while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue. Copies share what is equal, and the list of flows with reduced timeouts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeouts {
    /// By the time of the next look, then by serial number.
    queue: imbl::OrdMap<(u64, u64), Arc<Rule>>,
    /// The time of the next look, by serial number.
    due: imbl::OrdMap<u64, u64>,
    pub shortened: Arc<Shortened>,
}

impl Timeouts {
    /// Puts a flow where its timeouts, if it has any, say that it belongs.
    pub fn add(&mut self, rule: &Arc<Rule>) {
        if let Some((end, _)) = rule.end() {
            self.due.insert(rule.serial, end);
            self.queue.insert((end, rule.serial), Arc::clone(rule));
        }
    }

    /// Takes a flow out.
    pub fn forget(&mut self, rule: &Rule) {
        if let Some(due) = self.due.remove(&rule.serial) {
            self.queue.remove(&(due, rule.serial));
        }
    }

    /// True if the flow is looked at before it ends.
    fn is_settled(&self, rule: &Rule) -> bool {
        let due = self.due.get(&rule.serial);
        rule.end().is_none_or(|(end, _)| due.is_some_and(|due| *due <= end))
    }

    /// The first flow, if it is to be looked at now.
    fn first(&self, now_ms: u64) -> Option<&Arc<Rule>> {
        let ((due, _), rule) = self.queue.get_min()?;
        (*due <= now_ms).then_some(rule)
    }
}

impl Tables {
    /// True if [`Tables::expire`] would remove flows or put some in another order. Then the changed
    /// tables should replace the old ones even if no flow was removed, or it does the same again.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.timeouts.first(now_ms).is_some() || !self.timeouts.shortened.list().is_empty()
    }

    /// Removes the flows whose time is over. Costs nothing for flows whose timeouts are far away.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Removed> {
        self.resort_shortened();
        let mut out = Vec::new();
        while let Some(rule) = self.timeouts.first(now_ms).cloned() {
            match rule.end() {
                Some((end, reason)) if end <= now_ms => out.push(self.remove(rule, reason)),
                _ => {
                    self.timeouts.forget(&rule);
                    self.timeouts.add(&rule);
                }
            }
        }
        out
    }

    /// Moves flows with reduced timeouts forward.
    pub(crate) fn resort_shortened(&mut self) {
        let shortened = Arc::clone(&self.timeouts.shortened);
        let mut list = shortened.list();
        if list.len() > MAX_SHORTENED {
            let all: Vec<Arc<Rule>> = self.rules().cloned().collect();
            all.iter().for_each(|rule| self.resort(rule));
            return list.clear();
        }
        list.retain(|rule| {
            let Some(rule) = rule.upgrade() else {
                return false;
            };
            let settled = self.timeouts.is_settled(&rule);
            self.resort(&rule);
            !settled
        });
    }

    /// Moves a flow forward if it is in its table and has to be looked at earlier.
    fn resort(&mut self, rule: &Arc<Rule>) {
        if self.timeouts.is_settled(rule) {
            return;
        }
        if let Some(table) = self.tables.get_mut(&rule.table)
            && table.has(rule)
        {
            let table = Arc::make_mut(table);
            table.evictions.remove(rule);
            table.evictions.add(rule);
            self.timeouts.forget(rule);
            self.timeouts.add(rule);
        }
    }
}
