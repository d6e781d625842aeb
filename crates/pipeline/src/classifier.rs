//! One OpenFlow table: finds the flow of the highest priority that matches a key, and records which
//! bits of the key the answer depended on.
//!
//! Flows with the same mask form a group, kept in a hash table by their masked value. Groups are
//! searched from the highest priority down until none that is left could win. In each, fields are
//! compared in stages, those that every megaflow matches anyway first: a group in which no flow has
//! the packet's input port never makes a megaflow depend on its addresses.

use crate::rule::{Match, Rule};
use flow::{FlowKey, FlowMask, WORDS};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use zerocopy::big_endian::{U16, U32};

/// A key reduced to the words that a group looks at.
type Packed = Box<[u64]>;

/// A table. Copying one shares all its groups; changing a copy copies only the groups changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// By falling highest priority.
    groups: Vec<Arc<Group>>,
}

/// The flows with one mask.
#[derive(Debug, Clone)]
struct Group {
    mask: FlowMask,
    /// How many flows have each priority.
    priorities: BTreeMap<u16, u32>,
    /// Positions of the words that `mask` has bits in.
    words: Vec<usize>,
    /// The masks at those positions.
    word_masks: Vec<u64>,
    stages: Vec<Stage>,
    /// By masked value; flows of one value by falling priority.
    flows: HashMap<Packed, Vec<Arc<Rule>>>,
}

/// What is compared before the whole of a group's mask is.
#[derive(Debug, Clone)]
struct Stage {
    mask: FlowMask,
    word_masks: Vec<u64>,
    /// How many flows have a value, in this stage's bits.
    values: HashMap<Packed, u32>,
}

/// The fields looked at by each stage in addition to those before: what every megaflow matches,
/// Ethernet, then the network layer. What remains is compared last.
fn stage_fields() -> [FlowMask; 3] {
    let always = FlowMask::default();
    let mut ethernet = always;
    let bits = ethernet.bits_mut();
    bits.dl_src.0 = [0xff; 6];
    bits.dl_dst.0 = [0xff; 6];
    for tag in &mut bits.vlan {
        (tag.tpid, tag.tci) = (U16::new(u16::MAX), U16::new(u16::MAX));
    }
    let mut network = FlowMask::exact();
    let bits = network.bits_mut();
    bits.tp_src = U16::new(0);
    bits.tp_dst = U16::new(0);
    bits.tcp_flags = U16::new(0);
    bits.igmp_group = U32::new(0);
    bits.nd_target = [0; 16];
    [always, ethernet, network]
}

/// `mask`'s bits that are also in `fields`.
fn common(mask: &FlowMask, fields: &FlowMask) -> FlowMask {
    let mut out = FlowMask::empty();
    *out.bits_mut() = mask.apply(fields.bits());
    out
}

fn pack<'a>(key: &FlowKey, words: &[usize], masks: &[u64], to: &'a mut [u64; WORDS]) -> &'a [u64] {
    for (out, (at, mask)) in to.iter_mut().zip(words.iter().zip(masks)) {
        *out = key.words()[*at] & mask;
    }
    &to[..words.len()]
}

impl Group {
    fn new(mask: FlowMask) -> Group {
        let bits = mask.bits().words();
        let words: Vec<usize> = (0..WORDS).filter(|&i| bits[i] != 0).collect();
        let at = |m: &FlowMask| words.iter().map(|&i| m.bits().words()[i]).collect();
        let mut stages: Vec<Stage> = Vec::new();
        for fields in stage_fields() {
            let stage = common(&mask, &fields);
            let before = stages.last().map_or(FlowMask::empty(), |s| s.mask);
            if stage != before && stage != mask {
                stages.push(Stage { mask: stage, word_masks: at(&stage), values: HashMap::new() });
            }
        }
        Group {
            mask,
            priorities: BTreeMap::new(),
            word_masks: at(&mask),
            words,
            stages,
            flows: HashMap::new(),
        }
    }

    fn lookup(&self, key: &FlowKey, seen: &mut FlowMask) -> Option<&Arc<Rule>> {
        let mut room = [0; WORDS];
        for stage in &self.stages {
            seen.add(&stage.mask);
            let value = pack(key, &self.words, &stage.word_masks, &mut room);
            if !stage.values.contains_key(value) {
                return None;
            }
        }
        seen.add(&self.mask);
        let value = pack(key, &self.words, &self.word_masks, &mut room);
        self.flows.get(value)?.first()
    }

    /// Adds `rule`; returns the one that had the same match and priority before.
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let mut room = [0; WORDS];
        let value = &rule.matches.value;
        let packed = pack(value, &self.words, &self.word_masks, &mut room);
        let list = self.flows.entry(packed.into()).or_default();
        // Falling priorities, so the comparison is the other way round.
        match list.binary_search_by(|r| rule.priority.cmp(&r.priority)) {
            Ok(at) => return Some(std::mem::replace(&mut list[at], rule)),
            Err(at) => list.insert(at, Arc::clone(&rule)),
        }
        *self.priorities.entry(rule.priority).or_default() += 1;
        for stage in &mut self.stages {
            let packed = pack(value, &self.words, &stage.word_masks, &mut room);
            *stage.values.entry(packed.into()).or_default() += 1;
        }
        None
    }

    fn remove(&mut self, matches: &Match, priority: u16) {
        let mut room = [0; WORDS];
        let packed = pack(&matches.value, &self.words, &self.word_masks, &mut room);
        let Some(list) = self.flows.get_mut(packed) else {
            return;
        };
        let Ok(at) = list.binary_search_by(|r| priority.cmp(&r.priority)) else {
            return;
        };
        list.remove(at);
        if list.is_empty() {
            self.flows.remove(packed);
        }
        if let Some(n) = self.priorities.get_mut(&priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&priority);
            }
        }
        for stage in &mut self.stages {
            let packed = pack(&matches.value, &self.words, &stage.word_masks, &mut room);
            if let Some(n) = stage.values.get_mut(packed) {
                *n -= 1;
                if *n == 0 {
                    stage.values.remove(packed);
                }
            }
        }
    }

    /// The highest priority of its flows.
    fn highest(&self) -> u16 {
        self.priorities.last_key_value().map_or(0, |(p, _)| *p)
    }
}

impl Table {
    /// The flow that `key` (with an OpenFlow `in_port`) matches. Adds to `seen` every bit that the
    /// answer depended on.
    pub fn lookup(&self, key: &FlowKey, seen: &mut FlowMask) -> Option<&Arc<Rule>> {
        let mut best: Option<&Arc<Rule>> = None;
        for group in &self.groups {
            if best.is_some_and(|b| b.priority >= group.highest()) {
                break;
            }
            if let Some(rule) = group.lookup(key, seen)
                && best.is_none_or(|b| rule.priority > b.priority)
            {
                best = Some(rule);
            }
        }
        best
    }

    /// Adds a flow; one with the same match and priority is replaced and returned.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let mask = rule.matches.mask;
        let at = self.groups.iter().position(|g| g.mask == mask);
        let at = at.unwrap_or_else(|| {
            self.groups.push(Arc::new(Group::new(mask)));
            self.groups.len() - 1
        });
        let before = self.groups[at].highest();
        let group = Arc::make_mut(&mut self.groups[at]);
        let fresh = group.flows.is_empty();
        let replaced = group.insert(rule);
        if fresh || group.highest() != before {
            self.sort();
        }
        replaced
    }

    /// Removes the flow with this match and priority, if there is one.
    pub fn remove(&mut self, matches: &Match, priority: u16) {
        let Some(at) = self.groups.iter().position(|g| g.mask == matches.mask) else {
            return;
        };
        let before = self.groups[at].highest();
        let group = Arc::make_mut(&mut self.groups[at]);
        group.remove(matches, priority);
        let (empty, changed) = (group.flows.is_empty(), group.highest() != before);
        if empty {
            self.groups.remove(at);
        } else if changed {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.groups.sort_by_key(|g| std::cmp::Reverse(g.highest()));
    }

    /// All flows, in no order.
    pub fn flows(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let groups = self.groups.iter();
        groups.flat_map(|g| g.flows.values().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Counts;
    use proptest::prelude::*;

    /// Keys of few values in one field of each stage and of one later word.
    fn key() -> impl Strategy<Value = FlowKey> {
        (0u32..3, 0u8..3, 0u32..3, 0u16..3, 0u8..3).prop_map(|(port, mac, ip, tp, v6)| {
            let mut key = FlowKey {
                in_port: port,
                nw_src: U32::new(ip),
                tp_dst: U16::new(tp),
                ..FlowKey::default()
            };
            key.dl_src.0[5] = mac;
            key.ipv6_dst[15] = v6;
            key
        })
    }

    fn rules() -> impl Strategy<Value = Vec<Arc<Rule>>> {
        // All bits, one bit or none of each field.
        let bits = || prop_oneof![2 => Just(0u8), 2 => Just(0xff), 1 => Just(1), 1 => Just(2)];
        let rule = (key(), bits(), bits(), bits(), bits(), bits());
        proptest::collection::vec(rule, 0..40).prop_map(|list| {
            let rules = list.into_iter().enumerate();
            rules
                .map(|(i, (value, a, b, c, d, e))| {
                    let mut mask = FlowMask::empty();
                    let m = mask.bits_mut();
                    (m.in_port, m.dl_src.0[5], m.nw_src) = (a.into(), b, U32::new(c.into()));
                    (m.tp_dst, m.ipv6_dst[15]) = (U16::new(d.into()), e);
                    Arc::new(Rule {
                        serial: i as u64,
                        priority: i as u16,
                        cookie: 0,
                        matches: Match { value: mask.apply(&value), mask },
                        actions: Arc::new([]),
                        created_ms: 0,
                        counts: Arc::new(Counts::default()),
                    })
                })
                .collect()
        })
    }

    /// Which rule, and the bits that this depended on.
    fn find(table: &Table, key: &FlowKey) -> (Option<u64>, FlowMask) {
        let mut seen = FlowMask::empty();
        let serial = table.lookup(key, &mut seen).map(|r| r.serial);
        (serial, seen)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// As a plain search, with a mask that is enough, and unharmed by flows that came and went.
        #[test]
        fn finds_the_highest_priority(
            rules in rules(),
            keys in proptest::collection::vec(key(), 1..12),
            left in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let mut table = Table::default();
            rules.iter().for_each(|r| { table.insert(Arc::clone(r)); });
            let before = table.clone();
            for (r, _) in rules.iter().zip(&left).filter(|(_, left)| !**left) {
                table.remove(&r.matches, r.priority);
            }
            let all = || rules.iter().zip(&left);
            prop_assert_eq!(table.flows().count(), all().filter(|(_, left)| **left).count());
            prop_assert_eq!(before.flows().count(), rules.len());
            for key in &keys {
                let (serial, seen) = find(&table, key);
                let plain = all().rev().find(|(r, left)| {
                    **left && r.matches.mask.agrees(&r.matches.value, key)
                });
                prop_assert_eq!(serial, plain.map(|(r, _)| r.serial));
                for other in keys.iter().filter(|k| seen.agrees(k, key)) {
                    prop_assert_eq!(find(&table, other), (serial, seen));
                }
            }
        }
    }

    /// A group without the packet's address is left before its ports are looked at.
    #[test]
    fn stops_at_the_first_stage_that_no_flow_has() {
        let mut mask = FlowMask::empty();
        mask.bits_mut().in_port = u32::MAX;
        mask.bits_mut().nw_src = U32::new(u32::MAX);
        mask.bits_mut().tp_dst = U16::new(u16::MAX);
        let value = FlowKey { in_port: 1, nw_src: U32::new(5), ..FlowKey::default() };
        let mut table = Table::default();
        table.insert(Arc::new(Rule {
            serial: 1,
            priority: 1,
            cookie: 0,
            matches: Match { value, mask },
            actions: Arc::new([]),
            created_ms: 0,
            counts: Arc::new(Counts::default()),
        }));
        let seen = |key| find(&table, &key).1;
        let other_port = seen(FlowKey { in_port: 2, ..value });
        assert_eq!((other_port.bits().in_port, other_port.bits().nw_src.get()), (u32::MAX, 0));
        let other_address = seen(FlowKey { nw_src: U32::new(6), ..value });
        assert_eq!(
            (other_address.bits().nw_src.get(), other_address.bits().tp_dst.get()),
            (u32::MAX, 0)
        );
        assert_eq!(seen(value), mask);
    }
}
