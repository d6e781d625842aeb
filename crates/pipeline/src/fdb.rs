//! The MAC table of one bridge: which port an address was last seen on, by VLAN.
//!
//! Entries age from their last use and are bounded in number. A full table takes the oldest entry of
//! the port that has the most, so that a guest that sends from many addresses loses its own.

use crate::events::{Event, Events};
use crate::port::{OfPort, PortId};
use flow::Mac;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

/// `other_config:mac-aging-time` of a bridge that names none, in seconds (ovs-vswitchd.conf.db(5)).
pub const DEFAULT_AGING_S: u32 = 300;
/// Shortest ageing; OVS takes a smaller value as this one.
pub const MIN_AGING_S: u32 = 15;
/// Longest ageing.
pub const MAX_AGING_S: u32 = 3600;
/// `other_config:mac-table-size` of a bridge that names none, in entries.
pub const DEFAULT_TABLE_SIZE: u32 = 8192;
/// Smallest table.
pub const MIN_TABLE_SIZE: u32 = 10;
/// Largest table: about 150 MB.
pub const MAX_TABLE_SIZE: u32 = 1_000_000;
/// How long after a gratuitous ARP from an ordinary port no gratuitous ARP from a bond moves the
/// address: it may be the first one, sent back by the switch at the other end of the bond.
pub const GRAT_ARP_LOCK_MS: u64 = 5000;

/// An address in a VLAN; frames without a tag are in VLAN 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub vlan: u16,
    pub mac: Mac,
}

/// What packets of one flow teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lesson {
    pub address: Address,
    pub port: PortId,
    /// The packet is an ARP that announces its own sender.
    pub gratuitous_arp: bool,
    /// The port is a bond.
    pub bond: bool,
}

/// One entry as `fdb/show` shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    address: Address,
    port: OfPort,
    used_ms: Option<u64>,
    order: u64,
}

/// `fdb/show`: least recently used first, static entries last; ages in seconds.
pub(crate) fn show(mut rows: Vec<Row>, now_ms: u64) -> String {
    rows.sort_by_key(|r| (r.used_ms.is_none(), r.used_ms, r.order));
    let mut out = " port  VLAN  MAC                Age\n".to_owned();
    for Row { address, port, used_ms, .. } in rows {
        // Writing to a String cannot fail.
        let _ = write!(out, "{port:>5}  {:>4}  {}  ", address.vlan, address.mac);
        let _ = match used_ms {
            Some(used) => writeln!(out, "{:>3}", now_ms.saturating_sub(used) / 1000),
            None => writeln!(out, "static"),
        };
    }
    out
}

#[derive(Debug)]
struct Entry {
    port: PortId,
    /// `None` for one from `fdb/add`, which never ages, moves or gives way.
    used_ms: Option<u64>,
    /// Place among entries used in the same millisecond.
    order: u64,
    /// Locked against gratuitous ARPs from bonds until then.
    locked_until_ms: u64,
}

/// What the table knows of a port.
#[derive(Debug)]
struct PortEntries {
    number: OfPort,
    /// Learned entries, least recently used first.
    by_use: BTreeSet<(u64, u64, Address)>,
}

/// `fdb/stats-show`.
#[derive(Debug, Default)]
struct Totals {
    learned: u64,
    expired: u64,
    evicted: u64,
    moved: u64,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Fdb {
    entries: HashMap<Address, Entry>,
    ports: HashMap<PortId, PortEntries>,
    statics: usize,
    aging_ms: u64,
    max: usize,
    next_order: u64,
    totals: Totals,
    events: Arc<Events>,
}

/// Whether a change of the table can change where packets go.
pub(crate) type Changed = bool;

impl Fdb {
    /// An empty table, which counts in `events` too.
    pub fn new(events: Arc<Events>) -> Fdb {
        Fdb {
            entries: HashMap::new(),
            ports: HashMap::new(),
            statics: 0,
            aging_ms: u64::from(DEFAULT_AGING_S) * 1000,
            max: DEFAULT_TABLE_SIZE as usize,
            next_order: 0,
            totals: Totals::default(),
            events,
        }
    }

    /// Sets ageing (seconds) and size (entries); values outside the limits are taken as the limit.
    /// A table with more entries shrinks at once.
    pub fn configure(&mut self, aging_s: u32, max: u32) -> Changed {
        self.aging_ms = u64::from(aging_s.clamp(MIN_AGING_S, MAX_AGING_S)) * 1000;
        self.max = max.clamp(MIN_TABLE_SIZE, MAX_TABLE_SIZE) as usize;
        let mut changed = false;
        while self.entries.len() > self.max && self.evict() {
            changed = true;
        }
        changed
    }

    /// From now on addresses can be learned on the port.
    pub fn add_port(&mut self, id: PortId, number: OfPort) {
        let by_use = BTreeSet::new();
        self.ports.insert(id, PortEntries { number, by_use });
    }

    /// Forgets the port and all addresses on it, static ones too.
    pub fn remove_port(&mut self, id: PortId) -> Changed {
        self.ports.remove(&id);
        let before = self.entries.len();
        let statics = &mut self.statics;
        self.entries.retain(|_, e| {
            *statics -= usize::from(e.port == id && e.used_ms.is_none());
            e.port != id
        });
        self.entries.len() != before
    }

    /// The port that the address is on.
    pub fn lookup(&self, address: Address) -> Option<(PortId, OfPort)> {
        let entry = self.entries.get(&address)?;
        Some((entry.port, self.ports.get(&entry.port)?.number))
    }

    /// A packet with this source was seen at `now_ms`. Learns nothing from multicast sources, on
    /// ports that are gone, or from what was seen before the last sight of the address elsewhere.
    pub fn learn(&mut self, lesson: &Lesson, now_ms: u64) -> Changed {
        let Lesson { address, port, .. } = *lesson;
        if address.mac.is_multicast() || !self.ports.contains_key(&port) {
            return false;
        }
        let lock_ms = match lesson.gratuitous_arp && !lesson.bond {
            true => now_ms.saturating_add(GRAT_ARP_LOCK_MS),
            false => 0,
        };
        let order = self.next_order;
        self.next_order += 1;
        let Some(entry) = self.entries.get_mut(&address) else {
            return self.insert(lesson, now_ms, order, lock_ms);
        };
        let Some(used_ms) = entry.used_ms else {
            return false;
        };
        let moved = entry.port != port;
        let locked = lesson.bond && lesson.gratuitous_arp && now_ms < entry.locked_until_ms;
        if moved && (now_ms < used_ms || locked) {
            return false;
        }
        if let Some(old) = self.ports.get_mut(&entry.port) {
            old.by_use.remove(&(used_ms, entry.order, address));
        }
        let used_ms = used_ms.max(now_ms);
        entry.locked_until_ms = entry.locked_until_ms.max(lock_ms);
        (entry.port, entry.used_ms, entry.order) = (port, Some(used_ms), order);
        self.totals.moved += u64::from(moved);
        self.events.add(Event::MacMoved, moved.into());
        if let Some(new) = self.ports.get_mut(&port) {
            new.by_use.insert((used_ms, order, address));
        }
        moved
    }

    fn insert(&mut self, lesson: &Lesson, now_ms: u64, order: u64, lock_ms: u64) -> Changed {
        if self.entries.len() >= self.max && !self.evict() {
            return false;
        }
        let Lesson { address, port, .. } = *lesson;
        if let Some(entries) = self.ports.get_mut(&port) {
            entries.by_use.insert((now_ms, order, address));
        }
        let entry = Entry { port, used_ms: Some(now_ms), order, locked_until_ms: lock_ms };
        self.entries.insert(address, entry);
        self.totals.learned += 1;
        self.events.add(Event::MacLearned, 1);
        true
    }

    /// Takes the least recently used entry of the port with the most; false if there is none.
    fn evict(&mut self) -> bool {
        let most = self.ports.iter_mut().max_by_key(|(id, p)| (p.by_use.len(), **id));
        let Some((_, _, address)) = most.and_then(|(_, p)| p.by_use.pop_first()) else {
            return false;
        };
        self.entries.remove(&address);
        self.totals.evicted += 1;
        self.events.add(Event::MacEvicted, 1);
        true
    }

    /// Removes what was not used for the ageing time.
    pub fn expire(&mut self, now_ms: u64) -> Changed {
        let mut expired = 0;
        for port in self.ports.values_mut() {
            while let Some(&(used_ms, _, address)) = port.by_use.first() {
                if now_ms.saturating_sub(used_ms) < self.aging_ms {
                    break;
                }
                port.by_use.pop_first();
                self.entries.remove(&address);
                expired += 1;
            }
        }
        self.totals.expired += expired;
        self.events.add(Event::MacExpired, expired);
        expired > 0
    }

    /// Removes all learned entries.
    pub fn flush(&mut self) -> Changed {
        let before = self.entries.len();
        self.entries.retain(|_, e| e.used_ms.is_none());
        for port in self.ports.values_mut() {
            port.by_use.clear();
        }
        self.entries.len() != before
    }

    /// Puts a static entry. Returns the port of the static entry that it replaces; `Err` if the
    /// table is full of static entries.
    pub fn add_static(&mut self, address: Address, port: PortId) -> Result<Option<OfPort>, ()> {
        let mut replaced = None;
        match self.entries.get(&address).map(|e| (e.port, e.used_ms, e.order)) {
            Some((old, Some(used_ms), order)) => {
                if let Some(p) = self.ports.get_mut(&old) {
                    p.by_use.remove(&(used_ms, order, address));
                }
            }
            Some((old, None, _)) => {
                replaced = self.ports.get(&old).map(|p| p.number);
                self.statics -= 1;
            }
            None if self.entries.len() >= self.max && !self.evict() => return Err(()),
            None => {}
        }
        let entry = Entry { port, used_ms: None, order: self.next_order, locked_until_ms: 0 };
        self.next_order += 1;
        self.statics += 1;
        self.entries.insert(address, entry);
        Ok(replaced)
    }

    /// Removes a static entry; false if there is none.
    pub fn remove_static(&mut self, address: Address) -> bool {
        let found = self.entries.get(&address).is_some_and(|e| e.used_ms.is_none());
        if found {
            self.entries.remove(&address);
            self.statics -= 1;
        }
        found
    }

    /// What `fdb/show` shows, in no order: a plain copy, so that nobody waits while it is made text.
    pub fn rows(&self) -> Vec<Row> {
        let row = |(address, entry): (&Address, &Entry)| {
            let port = self.ports.get(&entry.port)?.number;
            Some(Row { address: *address, port, used_ms: entry.used_ms, order: entry.order })
        };
        self.entries.iter().filter_map(row).collect()
    }

    /// `fdb/stats-show` of a bridge called `bridge`.
    pub fn stats(&self, bridge: &str) -> String {
        let t = &self.totals;
        format!(
            "Statistics for bridge \"{bridge}\":\n  \
             Current/maximum MAC entries in the table: {}/{}\n  \
             Current static MAC entries in the table : {}\n  \
             Total number of learned MAC entries     : {}\n  \
             Total number of expired MAC entries     : {}\n  \
             Total number of evicted MAC entries     : {}\n  \
             Total number of port moved MAC entries  : {}\n",
            self.entries.len(),
            self.max,
            self.statics,
            t.learned,
            t.expired,
            t.evicted,
            t.moved,
        )
    }

    /// `fdb/stats-clear`.
    pub fn clear_stats(&mut self) {
        self.totals = Totals::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(n: u32) -> Address {
        let [a, b, c, d] = n.to_be_bytes();
        Address { vlan: 0, mac: Mac([2, 0, a, b, c, d]) }
    }

    fn lesson(n: u32, port: u64) -> Lesson {
        Lesson { address: address(n), port: PortId(port), gratuitous_arp: false, bond: false }
    }

    fn table() -> Fdb {
        let mut fdb = Fdb::new(Arc::default());
        for p in 1..=3 {
            fdb.add_port(PortId(p), OfPort(p as u16));
        }
        fdb
    }

    fn port_of(fdb: &Fdb, n: u32) -> Option<u16> {
        fdb.lookup(address(n)).map(|(_, p)| p.0)
    }

    #[test]
    fn use_keeps_an_address_and_silence_loses_it() {
        let mut fdb = table();
        assert!(fdb.learn(&lesson(1, 1), 0));
        assert!(fdb.learn(&lesson(2, 2), 0));
        assert!(!fdb.learn(&lesson(1, 1), 200_000), "seen again, nothing moved");
        assert!(!fdb.expire(299_999));
        assert!(fdb.expire(300_000));
        assert_eq!((port_of(&fdb, 1), port_of(&fdb, 2)), (Some(1), None));
        assert!(!fdb.expire(499_999));
        assert!(fdb.expire(500_000));
        assert_eq!(port_of(&fdb, 1), None);
    }

    #[test]
    fn ageing_time_is_clamped_and_applies_to_old_entries() {
        let mut fdb = table();
        fdb.learn(&lesson(1, 1), 0);
        fdb.configure(1, 100);
        assert!(!fdb.expire(14_999));
        assert!(fdb.expire(15_000));
    }

    #[test]
    fn an_older_sight_does_not_move_an_address_back() {
        let mut fdb = table();
        fdb.learn(&lesson(1, 1), 100);
        assert!(fdb.learn(&lesson(1, 2), 200));
        assert!(!fdb.learn(&lesson(1, 1), 150), "reported late by the revalidator");
        assert_eq!(port_of(&fdb, 1), Some(2));
        assert!(fdb.learn(&lesson(1, 1), 250));
        assert_eq!(port_of(&fdb, 1), Some(1));
        assert!(fdb.stats("br0").contains("port moved MAC entries  : 2\n"));
    }

    #[test]
    fn a_full_table_takes_from_the_port_with_the_most() {
        let mut fdb = table();
        fdb.configure(300, 10);
        fdb.learn(&lesson(1000, 2), 0);
        for n in 0..50 {
            fdb.learn(&lesson(n, 1), 1 + u64::from(n));
        }
        assert_eq!(port_of(&fdb, 1000), Some(2), "the victim keeps its oldest entry");
        assert_eq!(port_of(&fdb, 40), None);
        assert_eq!(port_of(&fdb, 41), Some(1));
        assert_eq!(fdb.entries.len(), 10);
        assert!(fdb.stats("b").contains("evicted MAC entries     : 41\n"));
    }

    #[test]
    fn static_entries_stay() {
        let mut fdb = table();
        fdb.configure(300, 10);
        assert_eq!(fdb.add_static(address(1), PortId(1)), Ok(None));
        assert_eq!(fdb.add_static(address(1), PortId(2)), Ok(Some(OfPort(1))));
        assert!(!fdb.learn(&lesson(1, 3), 5));
        assert!(!fdb.flush() && !fdb.expire(1 << 40));
        assert_eq!(port_of(&fdb, 1), Some(2));
        for n in 2..=10 {
            assert_eq!(fdb.add_static(address(n), PortId(1)), Ok(None));
        }
        assert_eq!(fdb.add_static(address(11), PortId(1)), Err(()));
        assert!(!fdb.learn(&lesson(12, 1), 5), "full of static entries");
        assert!(fdb.remove_static(address(1)) && !fdb.remove_static(address(1)));
        assert!(fdb.learn(&lesson(12, 1), 5));
        assert!(fdb.remove_port(PortId(1)));
        assert_eq!((fdb.entries.len(), fdb.statics), (0, 0));
    }

    #[test]
    fn multicast_sources_and_removed_ports_teach_nothing() {
        let mut fdb = table();
        let mut multicast = lesson(1, 1);
        multicast.address.mac = Mac([3, 0, 0, 0, 0, 1]);
        assert!(!fdb.learn(&multicast, 0));
        fdb.remove_port(PortId(1));
        fdb.add_port(PortId(9), OfPort(1));
        assert!(!fdb.learn(&lesson(1, 1), 0), "the old port 1 is not the new port 1");
        assert!(fdb.entries.is_empty());
    }

    #[test]
    fn gratuitous_arp_locks_against_its_reflection_by_a_bond() {
        let mut fdb = table();
        let garp = |port, bond| Lesson { gratuitous_arp: true, bond, ..lesson(1, port) };
        assert!(fdb.learn(&garp(1, false), 0));
        assert!(!fdb.learn(&garp(2, true), 4_999));
        assert!(fdb.learn(&garp(2, true), 5_000));
        assert!(fdb.learn(&garp(3, false), 5_001), "ordinary ports are not locked out");
    }

    #[test]
    fn text() {
        let mut fdb = table();
        fdb.add_port(PortId(4), OfPort::LOCAL);
        fdb.learn(&lesson(1, 1), 1_000);
        fdb.learn(&Lesson { address: Address { vlan: 4095, ..address(2) }, ..lesson(2, 4) }, 3_000);
        fdb.add_static(address(3), PortId(3)).expect("there is room");
        let expected = " port  VLAN  MAC                Age\n\
            \x20   1     0  02:00:00:00:00:01    2\n\
            LOCAL  4095  02:00:00:00:00:02    0\n\
            \x20   3     0  02:00:00:00:00:03  static\n";
        assert_eq!(show(fdb.rows(), 3_500), expected);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Learn(u32, u64, u64),
        Static(u32, u64),
        Unstatic(u32),
        Expire(u64),
        Flush,
        Resize(u32),
        Replug(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (0u32..30, 1u64..4, 0u64..50_000).prop_map(|(n, p, t)| Step::Learn(n, p, t)),
            1 => (0u32..30, 1u64..4).prop_map(|(n, p)| Step::Static(n, p)),
            1 => (0u32..30).prop_map(Step::Unstatic),
            2 => (0u64..70_000).prop_map(Step::Expire),
            1 => Just(Step::Flush),
            1 => (5u32..25).prop_map(Step::Resize),
            1 => (1u64..4).prop_map(Step::Replug),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        /// The indexes agree with the entries and the limits hold, whatever happens.
        #[test]
        fn stays_consistent(steps in steps()) {
            let mut fdb = table();
            fdb.configure(15, 10);
            for step in steps {
                match step {
                    Step::Learn(n, p, t) => { fdb.learn(&lesson(n, p), t); }
                    Step::Static(n, p) => { let _ = fdb.add_static(address(n), PortId(p)); }
                    Step::Unstatic(n) => { fdb.remove_static(address(n)); }
                    Step::Expire(t) => { fdb.expire(t); }
                    Step::Flush => { fdb.flush(); }
                    Step::Resize(n) => { fdb.configure(15, n); }
                    Step::Replug(p) => {
                        fdb.remove_port(PortId(p));
                        fdb.add_port(PortId(p), OfPort(p as u16));
                    }
                }
                let learned: usize = fdb.ports.values().map(|p| p.by_use.len()).sum();
                prop_assert_eq!(learned + fdb.statics, fdb.entries.len());
                prop_assert!(learned == 0 || fdb.entries.len() <= fdb.max);
                for (id, port) in &fdb.ports {
                    for (used, order, address) in &port.by_use {
                        let e = &fdb.entries[address];
                        prop_assert_eq!((e.port, e.used_ms, e.order), (*id, Some(*used), *order));
                    }
                }
            }
        }
    }
}
