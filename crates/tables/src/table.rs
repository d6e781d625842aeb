//! One OpenFlow table: finds the flow of the highest priority that matches a key, and records which
//! bits of the key the answer depended on.
//!
//! Flows with the same mask form a [`Subtable`]. Subtables are searched from the highest priority down
//! until none that is left could win; in each, fields are compared in stages, and addresses of which
//! no prefix of the right length is stored are not compared at all.

use crate::config::TableConfig;
use crate::conjunction;
use crate::eviction::Evictions;
use crate::prefix::{Address, MAX_TRACKED, Prefixes};
use crate::rule::Rule;
use crate::shape::{ByShape, Shape};
use crate::subtable::{Found, Subtable, Tracked};
use openflow::{FullKey, FullMask, Match};
use std::cmp::Reverse;
use std::sync::Arc;
use zerocopy::big_endian::U32;

/// Where a subtable stands among the others: by falling highest priority, then by age.
type Place = (Reverse<u16>, u64);

/// A table. Copying one shares all its flows; changing a copy copies what leads to the change.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub config: Arc<TableConfig>,
    pub len: usize,
    pub evictions: Evictions,
    subtables: imbl::OrdMap<Place, Arc<Subtable>>,
    by_shape: ByShape<Place>,
    next_id: u64,
    tracked: Vec<Tracked>,
    /// The flows that have a cookie, by it and their serial numbers: who keeps many flows apart by
    /// cookies changes and deletes them by cookie.
    by_cookie: imbl::OrdMap<(u64, u64), Arc<Rule>>,
}

impl Table {
    /// An empty table.
    pub fn new(config: Arc<TableConfig>) -> Table {
        Table {
            tracked: tracked(&config),
            evictions: Evictions::new(&config),
            config,
            len: 0,
            subtables: imbl::OrdMap::new(),
            by_shape: ByShape::default(),
            next_id: 0,
            by_cookie: imbl::OrdMap::new(),
        }
    }

    /// The same flows with another configuration.
    pub fn configured(&self, config: Arc<TableConfig>) -> Table {
        let fresh = tracked(&config);
        if fresh.iter().map(|t| t.address).eq(self.tracked.iter().map(|t| t.address)) {
            let mut table = Table { evictions: Evictions::new(&config), config, ..self.clone() };
            self.rules().for_each(|r| table.evictions.add(r));
            return table;
        }
        let mut table = Table::new(config);
        self.rules().for_each(|r| table.insert(Arc::clone(r), &r.matches().value));
        table
    }

    /// The flow that `key` matches, conjunctions resolved. Adds to `seen` every bit that the answer
    /// depended on.
    pub fn lookup(&self, key: &FullKey, seen: &mut FullMask) -> Option<&Arc<Rule>> {
        let mut parts = Vec::new();
        let best = self.search(key, seen, &mut parts);
        parts.retain(|r| best.is_none_or(|b| r.priority > b.priority));
        if parts.is_empty() {
            return best;
        }
        let mut key = *key;
        for id in conjunction::satisfied(&mut parts) {
            key.conj_id = U32::new(id);
            let whole = self.search(&key, seen, &mut Vec::new());
            if whole.is_some() {
                return whole;
            }
        }
        best
    }

    /// The ordinary flow of the highest priority that `key` matches, and all flows of higher priority
    /// that are parts of conjunctions.
    fn search<'a>(
        &'a self,
        key: &FullKey,
        seen: &mut FullMask,
        parts: &mut Vec<&'a Arc<Rule>>,
    ) -> Option<&'a Arc<Rule>> {
        let mut best: Option<&Arc<Rule>> = None;
        let mut found = Found::default();
        for ((Reverse(highest), _), subtable) in &self.subtables {
            if best.is_some_and(|b| b.priority >= *highest) {
                break;
            }
            for rule in subtable.lookup(key, &self.tracked, &mut found, seen) {
                if rule.conjunctive {
                    parts.push(rule);
                    continue;
                }
                if best.is_none_or(|b| rule.priority > b.priority) {
                    best = Some(rule);
                }
                break;
            }
        }
        best
    }

    /// The flow with this match and priority.
    pub fn get(&self, matches: &Match, priority: u16) -> Option<&Arc<Rule>> {
        let shape = Shape::new(&matches.mask);
        let subtable = self.subtables.get(self.by_shape.get(&shape)?)?;
        subtable.get(&shape.value(&matches.value), priority)
    }

    /// The flow with the match and priority of `rule`.
    pub fn same(&self, rule: &Rule) -> Option<&Arc<Rule>> {
        let subtable = self.subtables.get(self.by_shape.get(&rule.shape)?)?;
        subtable.get(&rule.value, rule.priority)
    }

    /// Flows that it takes at most.
    pub fn limit(&self) -> Option<usize> {
        self.config.flow_limit.map(|n| n as usize)
    }

    /// The shape of a mask, shared with the flows that have it already.
    pub fn shape(&self, mask: &FullMask) -> Arc<Shape> {
        let shape = Shape::new(mask);
        match self.by_shape.get_key_value(&shape) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(shape),
        }
    }

    /// True if `rule` itself is in the table.
    pub fn has(&self, rule: &Arc<Rule>) -> bool {
        self.same(rule).is_some_and(|r| Arc::ptr_eq(r, rule))
    }

    /// Adds a flow; none with the same match and priority is there. `value` is that of its match.
    pub fn insert(&mut self, rule: Arc<Rule>, value: &FullKey) {
        self.len += 1;
        self.evictions.add(&rule);
        self.index_cookie(&rule);
        let place = self.by_shape.get(&rule.shape).copied().unwrap_or_else(|| {
            let place = (Reverse(rule.priority), self.next_id);
            self.next_id += 1;
            let subtable = Subtable::new(Arc::clone(&rule.shape), &self.tracked);
            self.subtables.insert(place, Arc::new(subtable));
            self.by_shape.insert(Arc::clone(&rule.shape), place);
            place
        });
        if let Some(subtable) = self.subtables.get_mut(&place) {
            Arc::make_mut(subtable).insert(rule, value, &mut self.tracked);
            self.settle(place);
        }
    }

    /// Puts `rule` in the place of `old`, which is there and has the same match and priority.
    pub fn replace(&mut self, old: &Rule, rule: Arc<Rule>) {
        self.evictions.remove(old);
        self.evictions.add(&rule);
        self.by_cookie.remove(&(old.cookie, old.serial));
        self.index_cookie(&rule);
        let place = self.by_shape.get(&rule.shape);
        if let Some(subtable) = place.and_then(|p| self.subtables.get_mut(p)) {
            Arc::make_mut(subtable).replace(rule);
        }
    }

    fn index_cookie(&mut self, rule: &Arc<Rule>) {
        if rule.cookie != 0 {
            self.by_cookie.insert((rule.cookie, rule.serial), Arc::clone(rule));
        }
    }

    /// Removes a flow that is there.
    pub fn remove(&mut self, rule: &Rule) {
        let Some(place) = self.by_shape.get(&rule.shape).copied() else {
            return;
        };
        if let Some(subtable) = self.subtables.get_mut(&place) {
            Arc::make_mut(subtable).remove(rule, &mut self.tracked);
            self.evictions.remove(rule);
            self.by_cookie.remove(&(rule.cookie, rule.serial));
            self.len -= 1;
            self.settle(place);
        }
    }

    /// Moves a subtable to where its highest priority belongs, or out if it is empty.
    fn settle(&mut self, place: Place) {
        let Some(subtable) = self.subtables.get(&place) else {
            return;
        };
        let shape = Arc::clone(&subtable.shape);
        if subtable.is_empty() {
            self.subtables.remove(&place);
            self.by_shape.remove(&shape);
        } else if subtable.highest() != place.0.0 {
            let now = (Reverse(subtable.highest()), place.1);
            if let Some(subtable) = self.subtables.remove(&place) {
                self.subtables.insert(now, subtable);
                self.by_shape.insert(shape, now);
            }
        }
    }

    /// All flows, in no order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.subtables.values().flat_map(|s| s.rules())
    }

    /// The flows with a cookie other than 0 whose match is `wider` or a part of it.
    pub fn with_cookie(&self, cookie: u64, wider: &Match) -> Vec<&Arc<Rule>> {
        let all = self.by_cookie.range((cookie, 0)..=(cookie, u64::MAX)).map(|(_, r)| r);
        let any = wider.mask.is_empty();
        all.filter(|r| any || r.matches().is_within(wider)).collect()
    }

    /// How many flows have this cookie; no more than `most` are counted.
    pub fn count_with_cookie(&self, cookie: u64, most: usize) -> usize {
        match cookie {
            0 => self.rules().filter(|r| r.cookie == 0).take(most).count(),
            _ => self.by_cookie.range((cookie, 0)..=(cookie, u64::MAX)).take(most).count(),
        }
    }

    /// The flows whose match is `wider` or a part of it.
    pub fn within(&self, wider: &Match) -> Vec<&Arc<Rule>> {
        let shape = Shape::new(&wider.mask);
        let mut out = Vec::new();
        for subtable in self.subtables.values() {
            if *subtable.shape == shape {
                let value = shape.value(&wider.value);
                out.extend(subtable.with_value(&value));
            } else if let Some(test) = Part::of(&wider.mask, &wider.value, &subtable.shape, true) {
                out.extend(subtable.rules().filter(|r| test.agrees(&r.value)));
            }
        }
        out
    }

    /// True if a flow of this priority could match a packet that `m` matches.
    pub fn overlaps(&self, m: &Match, priority: u16) -> bool {
        let up_to = self.subtables.values().take_while(|s| s.highest() >= priority);
        up_to.filter(|s| s.has_priority(priority)).any(|subtable| {
            // Where the subtable looks at no other bits than `m`, one value is all there is to find.
            let mask = subtable.shape.mask();
            if m.mask.covers(&mask) {
                return subtable.get(&subtable.shape.value(&m.value), priority).is_some();
            }
            Part::of(&m.mask, &m.value, &subtable.shape, false).is_none_or(|test| {
                subtable.rules().any(|r| r.priority == priority && test.agrees(&r.value))
            })
        })
    }
}

fn tracked(config: &TableConfig) -> Vec<Tracked> {
    let addresses: Vec<Address> = config.addresses();
    let one = |address| Tracked { address, prefixes: Prefixes::default() };
    addresses.into_iter().take(MAX_TRACKED).map(one).collect()
}

/// The bits of a match that a shape has too, against which values of the shape are compared.
struct Part {
    /// Bits and their values, in the shape's order.
    words: Vec<(u64, u64)>,
}

impl Part {
    /// With `whole`, none unless the shape has all bits of the mask.
    fn of(mask: &FullMask, value: &FullKey, shape: &Shape, whole: bool) -> Option<Part> {
        if whole && !shape.mask().covers(mask) {
            return None;
        }
        let words = shape.words().iter().map(|(at, bits)| {
            let bits = bits & mask.words()[usize::from(*at)];
            (bits, value.words()[usize::from(*at)] & bits)
        });
        Some(Part { words: words.collect() })
    }

    fn agrees(&self, value: &[u64]) -> bool {
        self.words.iter().zip(value).all(|((bits, want), v)| v & bits == *want)
    }
}
