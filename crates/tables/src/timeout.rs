//! Which flows end when.
//!
//! Flows with timeouts stand in a queue by the earliest time at which they could end. A flow that is
//! at the head and had packets meanwhile goes back to where it belongs now, so that a flow is looked at
//! once in each of its timeouts and not each second.

use crate::rule::Rule;
use crate::tables::{Removed, Tables};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Flows with reduced timeouts that are noted one by one until the next [`Tables::expire`]; beyond
/// that, all flows are looked at instead. It bounds the memory if nobody asks what has expired.
const MAX_SHORTENED: usize = 65_536;

/// Flows whose timeouts were reduced since the queue was looked at.
#[derive(Debug, Default)]
pub(crate) struct Shortened(Mutex<Vec<Weak<Rule>>>);

impl Shortened {
    /// Notes a flow.
    pub fn note(&self, rule: &Arc<Rule>) {
        // A list of weak references is whole even if a thread ended while it held the lock.
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() <= MAX_SHORTENED {
            list.push(Arc::downgrade(rule));
        }
    }

    fn take(&self) -> Vec<Weak<Rule>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The queue. Copies share what is equal, and the list of flows with reduced timeouts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeouts {
    /// By the time of the next look, then by serial number.
    queue: imbl::OrdMap<(u64, u64), Arc<Rule>>,
    pub shortened: Arc<Shortened>,
}

impl Timeouts {
    /// Puts a flow where its timeouts, if it has any, say that it belongs.
    pub fn add(&mut self, rule: &Arc<Rule>) {
        if let Some((end, _)) = rule.end() {
            rule.due_ms.store(end, Relaxed);
            self.queue.insert((end, rule.serial), Arc::clone(rule));
        }
    }

    /// Takes a flow out.
    pub fn forget(&mut self, rule: &Arc<Rule>) {
        let key = (rule.due_ms.load(Relaxed), rule.serial);
        if self.queue.get(&key).is_some_and(|r| Arc::ptr_eq(r, rule)) {
            self.queue.remove(&key);
        }
    }

    /// The first flow, if it is to be looked at now; it is out of the queue then.
    fn next(&mut self, now_ms: u64) -> Option<Arc<Rule>> {
        let key = self.queue.get_min().map(|(key, _)| *key)?;
        (key.0 <= now_ms).then(|| self.queue.remove(&key)).flatten()
    }
}

impl Tables {
    /// Removes the flows whose time is over. Costs nothing for flows whose timeouts are far away.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Removed> {
        self.resort_shortened();
        let mut out = Vec::new();
        while let Some(rule) = self.timeouts.next(now_ms) {
            if !self.tables.get(&rule.table).is_some_and(|t| t.has(&rule)) {
                continue;
            }
            match rule.end() {
                Some((end, reason)) if end <= now_ms => out.push(self.remove(rule, reason)),
                _ => self.requeue(&rule),
            }
        }
        out
    }

    /// Puts a flow where its timeouts say now.
    pub(crate) fn requeue(&mut self, rule: &Arc<Rule>) {
        let Some(table) = self.tables.get_mut(&rule.table) else {
            return;
        };
        let table = Arc::make_mut(table);
        table.evictions.remove(rule);
        self.timeouts.forget(rule);
        self.timeouts.add(rule);
        table.evictions.add(rule);
    }

    /// Moves flows with reduced timeouts forward.
    pub(crate) fn resort_shortened(&mut self) {
        let list = self.timeouts.shortened.take();
        let rules: Vec<Arc<Rule>> = match list.len() > MAX_SHORTENED {
            true => self.rules().filter(|r| r.end().is_some()).cloned().collect(),
            false => list.iter().filter_map(Weak::upgrade).collect(),
        };
        for rule in rules {
            if self.tables.get(&rule.table).is_some_and(|t| t.has(&rule)) {
                self.requeue(&rule);
            }
        }
    }
}
