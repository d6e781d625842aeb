//! The flows of one table that have the same mask, by their masked values.

use crate::prefix::{Address, Lengths, MAX_TRACKED, Ports, Prefixes};
use crate::rule::Rule;
use crate::shape::{ByHash, STAGES, START, Shape, ports_of, see, see_ports, stage_of};
use openflow::{FullKey, FullMask};
use std::sync::Arc;

/// How a table follows the prefixes of one address field.
#[derive(Debug, Clone)]
pub(crate) struct Tracked {
    pub address: Address,
    pub prefixes: Prefixes,
}

/// What one lookup found out about a packet's addresses, once for all subtables.
#[derive(Debug, Default)]
pub(crate) struct Found([Option<Lengths>; MAX_TRACKED]);

/// A prefix that the mask has in a tracked field.
#[derive(Debug, Clone, Copy)]
struct PrefixUse {
    /// Which of the tracked fields.
    field: usize,
    len: u8,
    /// Before which stage it is asked for.
    stage: usize,
}

/// Flows whose values have the same hash, by falling priority: in all likelihood the same value.
#[derive(Debug, Clone)]
enum Bucket {
    One(Arc<Rule>),
    Many(Arc<Vec<Arc<Rule>>>),
}

impl Bucket {
    fn rules(&self) -> &[Arc<Rule>] {
        match self {
            Bucket::One(rule) => std::slice::from_ref(rule),
            Bucket::Many(rules) => rules,
        }
    }
}

/// The flows with one mask. Copying one shares everything.
#[derive(Debug, Clone)]
pub(crate) struct Subtable {
    pub shape: Arc<Shape>,
    tracked: Arc<[PrefixUse]>,
    /// How many flows have each hash after each stage; only for stages that others follow.
    partial: [Option<ByHash<u32>>; STAGES],
    last: usize,
    /// By the hash of the whole value.
    buckets: ByHash<Bucket>,
    /// How many flows have each priority.
    priorities: imbl::OrdMap<u16, u32>,
    /// The mask of the transport ports, and their values.
    port_mask: u32,
    ports: Ports,
}

impl Subtable {
    /// An empty one.
    pub fn new(shape: Arc<Shape>, tracked: &[Tracked]) -> Subtable {
        let mask = shape.mask();
        let uses = tracked.iter().enumerate().filter_map(|(field, t)| {
            let len = t.address.prefix(&mask)?;
            Some(PrefixUse { field, len, stage: stage_of(t.address.at.into()) })
        });
        let last = shape.used_stages().next_back().unwrap_or(0);
        let index = |stage| stage != last && !shape.stage(stage).is_empty();
        Subtable {
            tracked: uses.collect(),
            partial: std::array::from_fn(|s| index(s).then(ByHash::default)),
            last,
            buckets: ByHash::default(),
            priorities: imbl::OrdMap::new(),
            port_mask: shape.ports(),
            ports: Ports::default(),
            shape,
        }
    }

    /// The flows that `key` matches, by falling priority. Adds to `seen` the bits that this depended
    /// on.
    pub fn lookup(
        &self,
        key: &FullKey,
        tracked: &[Tracked],
        found: &mut Found,
        seen: &mut FullMask,
    ) -> impl Iterator<Item = &Arc<Rule>> {
        let rules = self.find(key, tracked, found, seen);
        rules.iter().filter(|r| r.shape.agrees(key, &r.value))
    }

    fn find(
        &self,
        key: &FullKey,
        tracked: &[Tracked],
        found: &mut Found,
        seen: &mut FullMask,
    ) -> &[Arc<Rule>] {
        let mut hash = START;
        for stage in 0..=self.last {
            if self.is_elsewhere(stage, key, tracked, found, seen) {
                return &[];
            }
            hash = self.shape.hash_stage(stage, hash, key);
            if stage == self.last {
                break;
            }
            see(self.shape.stage(stage), seen);
            if self.partial[stage].as_ref().is_some_and(|m| !m.contains_key(&hash)) {
                return &[];
            }
        }
        let bucket = self.buckets.get(&hash);
        if bucket.is_none()
            && self.port_mask != 0
            && let Some(bits) = self.ports.absent(ports_of(key) & self.port_mask)
        {
            see_ports(bits & self.port_mask, seen);
            return &[];
        }
        see(self.shape.stage(self.last), seen);
        bucket.map_or(&[], Bucket::rules)
    }

    /// True if no flow here has the prefix that the packet's address has, in a field that this stage
    /// looks at.
    fn is_elsewhere(
        &self,
        stage: usize,
        key: &FullKey,
        tracked: &[Tracked],
        found: &mut Found,
        seen: &mut FullMask,
    ) -> bool {
        self.tracked.iter().filter(|p| p.stage == stage).any(|p| {
            let field = &tracked[p.field];
            let lengths = *found.0[p.field]
                .get_or_insert_with(|| field.prefixes.find(field.address.get(key)));
            if lengths.has(p.len) {
                return false;
            }
            field.address.see(lengths.bits.min(p.len), seen);
            true
        })
    }

    /// The flow with this value and priority.
    pub fn get(&self, value: &[u64], priority: u16) -> Option<&Arc<Rule>> {
        self.with_value(value).find(|r| r.priority == priority)
    }

    /// The flows with this value, by falling priority.
    pub fn with_value<'a>(&'a self, value: &[u64]) -> impl Iterator<Item = &'a Arc<Rule>> {
        let bucket = self.buckets.get(&self.shape.hashes(value)[STAGES - 1]);
        let rules = bucket.map_or(&[][..], Bucket::rules);
        rules.iter().filter(move |r| *r.value == *value)
    }

    /// Puts `rule` in the place of the one with the same value and priority, which is there.
    pub fn replace(&mut self, rule: Arc<Rule>) {
        let hash = self.shape.hashes(&rule.value)[STAGES - 1];
        let same = |r: &Arc<Rule>| r.priority == rule.priority && r.value == rule.value;
        match self.buckets.get_mut(&hash) {
            Some(Bucket::One(old)) if same(old) => *old = rule,
            Some(Bucket::Many(rules)) => {
                if let Some(old) = Arc::make_mut(rules).iter_mut().find(|r| same(r)) {
                    *old = rule;
                }
            }
            _ => {}
        }
    }

    /// Adds a flow; none with the same value and priority is there. `value` is its value as a whole.
    pub fn insert(&mut self, rule: Arc<Rule>, value: &FullKey, tracked: &mut [Tracked]) {
        let hashes = self.shape.hashes(&rule.value);
        for (map, hash) in self.partial.iter_mut().zip(hashes) {
            if let Some(map) = map {
                count_up(map, hash);
            }
        }
        *self.priorities.entry(rule.priority).or_insert(0) += 1;
        if self.port_mask != 0 {
            self.ports.add(ports_of(value));
        }
        for p in self.tracked.iter() {
            let field = &mut tracked[p.field];
            field.prefixes.add(field.address.get(value), p.len);
        }
        match self.buckets.get_mut(&hashes[STAGES - 1]) {
            None => {
                self.buckets.insert(hashes[STAGES - 1], Bucket::One(rule));
            }
            Some(bucket) => {
                let mut rules = bucket.rules().to_vec();
                let at = rules.partition_point(|r| r.priority >= rule.priority);
                rules.insert(at, rule);
                *bucket = Bucket::Many(Arc::new(rules));
            }
        }
    }

    /// Removes a flow that is there.
    pub fn remove(&mut self, rule: &Rule, tracked: &mut [Tracked]) {
        let hashes = self.shape.hashes(&rule.value);
        for (map, hash) in self.partial.iter_mut().zip(hashes) {
            if let Some(map) = map {
                count_down(map, hash);
            }
        }
        if let Some(n) = self.priorities.get_mut(&rule.priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&rule.priority);
            }
        }
        let value = self.shape.matching(&rule.value).value;
        if self.port_mask != 0 {
            self.ports.remove(ports_of(&value));
        }
        for p in self.tracked.iter() {
            let field = &mut tracked[p.field];
            field.prefixes.remove(field.address.get(&value), p.len);
        }
        let hash = hashes[STAGES - 1];
        let mut left = self.buckets.get(&hash).map_or(Vec::new(), |b| b.rules().to_vec());
        left.retain(|r| r.priority != rule.priority || r.value != rule.value);
        match left.len() {
            0 => self.buckets.remove(&hash),
            1 => self.buckets.insert(hash, Bucket::One(left.remove(0))),
            _ => self.buckets.insert(hash, Bucket::Many(Arc::new(left))),
        };
    }

    /// The highest priority of its flows.
    pub fn highest(&self) -> u16 {
        self.priorities.get_max().map_or(0, |(p, _)| *p)
    }

    /// True if it has flows of this priority.
    pub fn has_priority(&self, priority: u16) -> bool {
        self.priorities.contains_key(&priority)
    }

    /// True if it has no flow.
    pub fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    /// All its flows, in no order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.buckets.values().flat_map(Bucket::rules)
    }
}

fn count_up(map: &mut ByHash<u32>, hash: u64) {
    match map.get_mut(&hash) {
        Some(n) => *n += 1,
        None => drop(map.insert(hash, 1)),
    }
}

fn count_down(map: &mut ByHash<u32>, hash: u64) {
    if let Some(n) = map.get_mut(&hash) {
        *n -= 1;
        if *n == 0 {
            map.remove(&hash);
        }
    }
}
