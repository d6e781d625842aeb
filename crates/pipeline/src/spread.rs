//! Actions that choose among several ways: groups, `bundle` and `multipath`.

use crate::action_set;
use crate::hash;
use crate::note::NoteKind;
use crate::walk::{Stop, TOO_MANY_LABELS, TOO_MANY_TAGS, Walk};
use openflow::{Bucket, Bundle, Group, GroupType, Multipath, OfPort};
use std::collections::BTreeSet;
use std::sync::Arc;
use tables::GroupEntry;

/// Groups.
impl Walk<'_> {
    /// `group:ID`; true if it does not exist, which ends the list of actions.
    pub fn group(&mut self, id: u32) -> bool {
        if !self.may_enter() {
            return false;
        }
        let bridge = self.bridge;
        let Some(entry) = bridge.groups.get(id) else {
            self.note(NoteKind::Warn, || format!("output to nonexistent group {id}"));
            return true;
        };
        let buckets = &entry.group.buckets;
        let chosen = match entry.group.kind {
            GroupType::All => {
                self.caused.group(&entry.counts, 0..buckets.len());
                buckets.iter().for_each(|b| self.bucket(b));
                return false;
            }
            GroupType::Indirect => buckets.first().map(|_| 0),
            GroupType::Select => self.select(&entry.group),
            GroupType::FastFailover => self.first_alive(buckets),
        };
        match chosen.and_then(|n| Some((n, buckets.get(n)?))) {
            Some((n, bucket)) => self.chosen(entry, n, bucket),
            None => self.detail("no live bucket"),
        }
        false
    }

    fn chosen(&mut self, entry: &Arc<GroupEntry>, n: usize, bucket: &Bucket) {
        if entry.group.kind != GroupType::Indirect {
            self.note(NoteKind::Detail, || format!("using bucket {}", bucket.id));
        }
        self.caused.group(&entry.counts, n..n + 1);
        self.bucket(bucket);
    }

    /// Position of the bucket that a select group chooses.
    fn select(&mut self, group: &Group) -> Option<usize> {
        let selection = &group.selection;
        let alive = group.buckets.iter().filter(|b| self.is_alive(b)).map(|b| (b.id, b.weight));
        let alive: Vec<(u32, u16)> = alive.collect();
        let hash = match (alive.len(), selection.fields.is_empty()) {
            // Where there is nothing to choose, nothing is looked at.
            (0, _) => return None,
            (1, _) => 0,
            (_, true) => hash::both_ends(&mut self.h),
            (_, false) => hash::named(&mut self.h, &selection.fields, selection.param),
        };
        let id = hash::weighted(hash, alive.into_iter())?;
        group.buckets.iter().position(|b| b.id == id)
    }

    fn first_alive(&mut self, buckets: &[Bucket]) -> Option<usize> {
        for (n, bucket) in buckets.iter().enumerate() {
            if self.is_alive(bucket) {
                return Some(n);
            }
            self.note(NoteKind::Detail, || match bucket.watch_group {
                Some(group) => format!("bucket {}: not live due to group {group}", bucket.id),
                None => format!("bucket {}: not live due to port {}", bucket.id, bucket.watch_port),
            });
        }
        None
    }

    /// True for buckets that watch nothing, or something that is alive.
    fn is_alive(&mut self, bucket: &Bucket) -> bool {
        self.lives_itself(bucket) || bucket.watch_group.is_some_and(|id| self.group_lives(id))
    }

    /// As [`Walk::is_alive`], without a look at the group that it watches.
    fn lives_itself(&self, bucket: &Bucket) -> bool {
        let watches_nothing = bucket.watch_port == OfPort::NONE && bucket.watch_group.is_none();
        watches_nothing || self.link_up(bucket.watch_port)
    }

    /// True if a group has a bucket that is alive, or watches a group that has one, and so on. Each
    /// group is looked at once, however they watch each other.
    fn group_lives(&mut self, id: u32) -> bool {
        let bridge = self.bridge;
        let (mut seen, mut next) = (BTreeSet::from([id]), vec![id]);
        while let Some(id) = next.pop() {
            let Some(entry) = bridge.groups.get(id) else { continue };
            for bucket in &entry.group.buckets {
                if !self.count_step() {
                    return false;
                }
                if self.lives_itself(bucket) {
                    return true;
                }
                next.extend(bucket.watch_group.filter(|id| seen.insert(*id)));
            }
        }
        false
    }

    fn link_up(&self, port: OfPort) -> bool {
        self.port(port).is_some_and(|p| p.link_up)
    }

    /// Runs a bucket on a copy of the packet.
    #[inline(never)]
    fn bucket(&mut self, bucket: &Bucket) {
        if self.stop != Stop::No || !self.may_enter() {
            return;
        }
        self.open(NoteKind::Bucket, || format!("bucket {}", bucket.id));
        let now = self.h.save();
        let within = self.within;
        self.within.bucket = true;
        self.resubmits += 1;
        self.depth += 1;
        self.run(&action_set::list(&bucket.actions));
        self.depth -= 1;
        if self.stop == Stop::Freezing {
            // The packet's own action set is for the packet itself.
            let set = std::mem::take(&mut self.action_set);
            self.conclude();
            self.action_set = set;
        }
        // What is wrong with the bucket's own packet concerns no other, as in OVS.
        if matches!(self.stop, Stop::Exit | Stop::Failed(TOO_MANY_LABELS | TOO_MANY_TAGS)) {
            self.stop = Stop::No;
        }
        self.within = within;
        self.h.restore(&now);
        self.close();
    }
}

/// `bundle` and `multipath`.
impl Walk<'_> {
    /// `bundle`, `bundle_load`.
    pub fn bundle(&mut self, bundle: &Bundle) {
        let alive = |port: &&OfPort| match **port {
            OfPort::CONTROLLER => false,
            port if port.is_port() && port != OfPort::LOCAL => self.link_up(port),
            _ => true,
        };
        let mut members = bundle.members.iter().filter(alive);
        let first = members.next();
        let port = match members.next() {
            Some(_) if bundle.highest_random_weight => {
                let all: Vec<OfPort> = bundle.members.iter().filter(alive).copied().collect();
                let hash = hash::fields(&mut self.h, bundle.fields, bundle.basis.into());
                all.into_iter().max_by_key(|p| hash::mix(hash, p.0.into()))
            }
            _ => first.copied(),
        };
        let port = port.unwrap_or(OfPort::NONE);
        match &bundle.dst {
            Some(dst) => self.assign(dst, port.0.into()),
            None => self.output(port),
        }
    }

    /// `multipath`.
    pub fn multipath(&mut self, m: &Multipath) {
        let link = match m.n_links {
            0 | 1 => 0,
            n => {
                let hash = hash::fields(&mut self.h, m.fields, m.basis.into());
                hash::link(m.algorithm, hash, n, m.arg)
            }
        };
        self.assign(&m.dst, link.into());
    }
}
