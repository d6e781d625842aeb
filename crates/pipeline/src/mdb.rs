//! The multicast table of one bridge: which ports want which group, and behind which ports there are
//! multicast routers, by VLAN (RFC 4541; limits and order as OVS's).
//!
//! Groups are bounded in number; a full table forgets the one that was joined longest ago. Routers are
//! bounded by the ports and the VLANs that these carry.

use crate::events::{Event, Events};
use crate::port::{OfPort, PortId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// `other_config:mcast-snooping-aging-time` of a bridge that names none, in seconds
/// (ovs-vswitchd.conf.db(5)).
pub const DEFAULT_MCAST_AGING_S: u32 = 300;
/// Shortest ageing; OVS takes a smaller value as this one.
pub const MIN_MCAST_AGING_S: u32 = 15;
/// Longest ageing.
pub const MAX_MCAST_AGING_S: u32 = 3600;
/// `other_config:mcast-snooping-table-size` of a bridge that names none, in groups.
pub const DEFAULT_MCAST_TABLE_SIZE: u32 = 2048;
/// Smallest table.
pub const MIN_MCAST_TABLE_SIZE: u32 = 10;
/// Largest table.
pub const MAX_MCAST_TABLE_SIZE: u32 = 1_000_000;
/// How long a router is remembered after its last query: more than the 125 seconds between two
/// (RFC 3376, 8.2), and OVS's.
const ROUTER_MS: u64 = 180_000;

/// A group in a VLAN; frames without a tag are in VLAN 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub vlan: u16,
    /// IPv4 addresses are mapped (RFC 4291, 2.5.5.2).
    pub address: Ipv6Addr,
}

/// A port that was heard: a member of a group, or one with a router behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub port: PortId,
    pub number: OfPort,
    /// When it was heard last.
    pub seen_ms: u64,
}

/// Ports, the one that was heard longest ago first.
type Ports = Vec<Heard>;

/// Puts a port last; true if it was not there.
fn hear(ports: &mut Ports, heard: Heard) -> Changed {
    let before = ports.len();
    ports.retain(|p| p.port != heard.port);
    ports.push(heard);
    ports.len() > before
}

/// Drops what pleases; true if that was something.
fn drop_if(ports: &mut Ports, gone: impl Fn(&Heard) -> bool) -> Changed {
    let before = ports.len();
    ports.retain(|p| !gone(p));
    ports.len() < before
}

#[derive(Debug, Default)]
struct Entry {
    /// Its place in `by_use`.
    order: u64,
    members: Ports,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Mdb {
    groups: HashMap<Group, Entry>,
    /// By the last join, oldest first.
    by_use: BTreeMap<u64, Group>,
    routers: BTreeMap<u16, Ports>,
    next_order: u64,
    aging_ms: u64,
    max: usize,
    events: Arc<Events>,
}

/// Whether a change of the table can change where packets go.
type Changed = bool;

impl Mdb {
    /// An empty table. Ageing in seconds and size in groups; values outside the limits are taken as the
    /// limit. What it does is counted in `events`.
    pub fn new(aging_s: u32, max: u32, events: Arc<Events>) -> Mdb {
        let mut mdb = Mdb {
            groups: HashMap::new(),
            by_use: BTreeMap::new(),
            routers: BTreeMap::new(),
            next_order: 0,
            aging_ms: 0,
            max: 0,
            events,
        };
        mdb.configure(aging_s, max);
        mdb
    }

    /// Sets ageing and size, as in [`Mdb::new`]. A table with more groups shrinks at once.
    pub fn configure(&mut self, aging_s: u32, max: u32) -> Changed {
        self.aging_ms = u64::from(aging_s.clamp(MIN_MCAST_AGING_S, MAX_MCAST_AGING_S)) * 1000;
        self.max = max.clamp(MIN_MCAST_TABLE_SIZE, MAX_MCAST_TABLE_SIZE) as usize;
        let before = self.groups.len();
        while self.groups.len() > self.max {
            self.evict();
        }
        self.groups.len() != before
    }

    /// A port wants a group. It gets all groups already if there is a router behind it.
    pub fn join(&mut self, group: Group, heard: Heard) -> Changed {
        if self.routers(group.vlan).iter().any(|r| r.port == heard.port) {
            return false;
        }
        if !self.groups.contains_key(&group) {
            if self.groups.len() >= self.max {
                self.evict();
            }
            self.events.add(Event::GroupLearned, 1);
        }
        let entry = self.groups.entry(group).or_default();
        self.by_use.remove(&entry.order);
        self.next_order += 1;
        entry.order = self.next_order;
        self.by_use.insert(entry.order, group);
        hear(&mut entry.members, heard)
    }

    /// A port wants a group no more. One that nobody wants is forgotten when its turn comes
    /// ([`Mdb::expire`]); until then its packets go to no member, as in OVS.
    pub fn leave(&mut self, group: Group, port: PortId) -> Changed {
        let entry = self.groups.get_mut(&group);
        entry.is_some_and(|e| drop_if(&mut e.members, |m| m.port == port))
    }

    /// There is a router behind a port.
    pub fn router(&mut self, vlan: u16, heard: Heard) -> Changed {
        hear(self.routers.entry(vlan).or_default(), heard)
    }

    /// The ports that want a group; `None` if it is not known.
    pub fn members(&self, group: Group) -> Option<&[Heard]> {
        self.groups.get(&group).map(|e| &*e.members)
    }

    /// The ports with routers.
    pub fn routers(&self, vlan: u16) -> &[Heard] {
        self.routers.get(&vlan).map_or(&[], |r| r)
    }

    /// Forgets the group that was joined longest ago.
    fn evict(&mut self) {
        if let Some((_, group)) = self.by_use.pop_first() {
            self.groups.remove(&group);
            self.events.add(Event::GroupEvicted, 1);
        }
    }

    /// Forgets what was not heard of for long. Groups are looked at from the one that was joined longest
    /// ago on, until one has nothing to forget.
    pub fn expire(&mut self, now_ms: u64) -> Changed {
        let mut changed = false;
        let is_old = |h: &Heard, age_ms| now_ms.saturating_sub(h.seen_ms) >= age_ms;
        while let Some(oldest) = self.by_use.first_entry() {
            let Some(entry) = self.groups.get_mut(oldest.get()) else { break };
            let gone = drop_if(&mut entry.members, |m| is_old(m, self.aging_ms));
            if entry.members.is_empty() {
                self.groups.remove(&oldest.remove());
                self.events.add(Event::GroupExpired, 1);
            } else if !gone {
                break;
            }
            changed = true;
        }
        for routers in self.routers.values_mut() {
            changed |= drop_if(routers, |r| is_old(r, ROUTER_MS));
        }
        self.routers.retain(|_, routers| !routers.is_empty());
        changed
    }

    /// Forgets all.
    pub fn flush(&mut self) -> Changed {
        let before = self.groups.len() + self.routers.len();
        self.groups.clear();
        self.by_use.clear();
        self.routers.clear();
        before > 0
    }

    /// Forgets a port.
    pub fn remove_port(&mut self, port: PortId) -> Changed {
        let of_groups = self.groups.values_mut().map(|e| &mut e.members);
        let all = of_groups.chain(self.routers.values_mut());
        all.fold(false, |changed, ports| drop_if(ports, |p| p.port == port) | changed)
    }

    /// `mdb/show`: groups, then routers, each from the one that was heard longest ago; ages in seconds.
    pub fn show(&self, now_ms: u64) -> String {
        let mut out = " port  VLAN  GROUP                Age\n".to_owned();
        let mut line = |vlan: u16, h: &Heard, what: &str| {
            let age = now_ms.saturating_sub(h.seen_ms) / 1000;
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{:>5}  {vlan:>4}  {what}{age:>3}", h.number);
        };
        for group in self.by_use.values() {
            let text = match group.address.to_ipv4_mapped() {
                Some(address) => address.to_string(),
                None => group.address.to_string(),
            };
            for member in self.members(*group).unwrap_or_default() {
                line(group.vlan, member, &format!("{text}         "));
            }
        }
        let routers = self.routers.iter();
        let mut routers: Vec<_> = routers.flat_map(|(v, r)| r.iter().map(|r| (*v, r))).collect();
        routers.sort_by_key(|(_, r)| r.seen_ms);
        for (vlan, router) in routers {
            line(vlan, router, "querier             ");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn group(n: u8) -> Group {
        Group { vlan: 0, address: Ipv4Addr::new(224, 1, 1, n).to_ipv6_mapped() }
    }

    fn port(n: u16, seen_ms: u64) -> Heard {
        Heard { port: PortId(n.into()), number: OfPort(n), seen_ms }
    }

    fn members(mdb: &Mdb, n: u8) -> Option<Vec<u16>> {
        Some(mdb.members(group(n))?.iter().map(|m| m.number.0).collect())
    }

    #[test]
    fn joins_age_and_leaves_count_at_once() {
        let events = Arc::new(Events::default());
        let mut mdb = Mdb::new(1, 100, events.clone());
        assert!(mdb.join(group(1), port(1, 0)) && mdb.join(group(1), port(2, 0)));
        assert!(!mdb.join(group(1), port(1, 10_000)), "again");
        assert!(!mdb.expire(14_999));
        assert!(mdb.expire(15_000), "fifteen seconds at least");
        assert_eq!(members(&mdb, 1), Some(vec![1]));
        assert!(!mdb.leave(group(1), PortId(2)) && mdb.leave(group(1), PortId(1)));
        assert_eq!(members(&mdb, 1), Some(vec![]));
        assert!(mdb.expire(15_000));
        assert_eq!(members(&mdb, 1), None);
        let count = |name| events.list().into_iter().find(|(of, _)| *of == name).map(|(_, n)| n);
        assert_eq!(count("mcast_snooping_learned"), Some(1));
        assert_eq!(count("mcast_snooping_expired"), Some(1));
    }

    #[test]
    fn routers_need_not_join_and_are_forgotten_after_three_minutes() {
        let mut mdb = Mdb::new(300, 100, Arc::default());
        assert!(mdb.router(0, port(1, 0)));
        assert!(!mdb.join(group(1), port(1, 0)));
        let tagged = Group { vlan: 7, ..group(1) };
        assert!(mdb.join(tagged, port(1, 0)), "it is none in that VLAN");
        assert!(!mdb.router(0, port(1, 1000)));
        assert!(!mdb.expire(180_999) && mdb.expire(181_000));
        assert!(mdb.routers(0).is_empty());
    }

    #[test]
    fn a_full_table_forgets_the_group_that_was_joined_longest_ago() {
        let mut mdb = Mdb::new(300, 10, Arc::default());
        (0..10).for_each(|n| assert!(mdb.join(group(n), port(1, 0))));
        mdb.join(group(0), port(2, 0));
        assert!(mdb.join(group(10), port(1, 0)));
        assert_eq!((members(&mdb, 0), members(&mdb, 1)), (Some(vec![1, 2]), None));
        let mut mdb = Mdb::new(300, 20, Arc::default());
        (0..20).for_each(|n| assert!(mdb.join(group(n), port(1, 0))));
        assert!(mdb.configure(300, 10));
        assert_eq!((members(&mdb, 9), members(&mdb, 10)), (None, Some(vec![1])));
    }

    #[test]
    fn text() {
        let mut mdb = Mdb::new(300, 10, Arc::default());
        mdb.join(group(1), port(1, 0));
        let address = "ff0e::1:2".parse().expect("an address");
        let local = Heard { number: OfPort::LOCAL, ..port(3, 2000) };
        mdb.join(Group { vlan: 4095, address }, local);
        mdb.router(20, port(2, 0));
        let expected = " port  VLAN  GROUP                Age\n\
            \x20   1     0  224.1.1.1           3\n\
            LOCAL  4095  ff0e::1:2           1\n\
            \x20   2    20  querier               3\n";
        assert_eq!(mdb.show(3500), expected);
        assert!(mdb.remove_port(PortId(1)) && mdb.flush() && !mdb.flush());
        assert_eq!(mdb.show(0), " port  VLAN  GROUP                Age\n");
    }

    proptest! {
        /// The index agrees with the groups, and the limit holds, whatever happens.
        #[test]
        fn stays_consistent(steps in proptest::collection::vec((0u8..6, 0u8..30, 0u16..4), 0..200)) {
            let mut mdb = Mdb::new(15, 10, Arc::default());
            for (now_ms, (what, n, p)) in (0u64..).step_by(1000).zip(steps) {
                match what {
                    0 => { mdb.leave(group(n), PortId(p.into())); }
                    1 => { mdb.expire(now_ms); }
                    2 => { mdb.remove_port(PortId(p.into())); }
                    3 if n == 0 => { mdb.flush(); }
                    3 => { mdb.router(u16::from(n % 3), port(p, now_ms)); }
                    _ => { mdb.join(group(n), port(p, now_ms)); }
                }
                prop_assert!(mdb.groups.len() <= 10);
                prop_assert_eq!(mdb.groups.len(), mdb.by_use.len());
                for (order, group) in &mdb.by_use {
                    let entry = &mdb.groups[group];
                    prop_assert_eq!(entry.order, *order);
                    prop_assert!(entry.members.is_sorted_by_key(|m| m.seen_ms));
                }
            }
        }
    }
}
