//! The groups of one bridge (OpenFlow 1.3, 5.6), and what changes them.

use crate::dump::seconds;
use crate::rule::any_action;
use crate::tables::{Reason, Removed, Tables};
use flow::Seen;
use openflow::{
    Action, Bucket, BucketPlace, Group, GroupCommand, GroupMod, GroupType, OfPort, PortNames,
};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ways of choosing a bucket that `selection_method` can name.
const SELECTION_METHODS: [&str; 2] = ["hash", "dp_hash"];

/// Why a change of groups was refused, printed as OpenFlow's name of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupModError {
    /// The group to be added is there already.
    #[error("OFPGMFC_GROUP_EXISTS")]
    GroupExists,
    /// The group to be changed is not there.
    #[error("OFPGMFC_UNKNOWN_GROUP")]
    UnknownGroup,
    /// An indirect group has not exactly one bucket, or a fast failover group has a bucket that watches
    /// nothing.
    #[error("OFPGMFC_INVALID_GROUP")]
    InvalidGroup,
    /// Two of the buckets have the same number.
    #[error("OFPGMFC_BAD_BUCKET")]
    BadBucket,
    /// A bucket with this number is there already.
    #[error("OFPGMFC_BUCKET_EXISTS")]
    BucketExists,
    /// The bucket that is named is not there.
    #[error("OFPGMFC_UNKNOWN_BUCKET")]
    UnknownBucket,
    /// The selection method is unknown, or the group is no select group.
    #[error("OFPBPC_BAD_VALUE")]
    BadSelection,
}

/// Packets and bytes.
#[derive(Debug, Default)]
struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, seen: &Seen) {
        self.packets.fetch_add(seen.packets, Relaxed);
        self.bytes.fetch_add(seen.bytes, Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// How often a group and each of its buckets were used. A change of the group begins anew, but for
/// buckets that stay while others come and go.
#[derive(Debug)]
pub struct GroupCounts {
    whole: Count,
    buckets: Box<[Arc<Count>]>,
}

impl GroupCounts {
    /// Zero, but for buckets that `old` has too.
    fn new(group: &Group, old: Option<&GroupEntry>) -> GroupCounts {
        let kept = |b: &Bucket| {
            let old = old?;
            let at = position(&old.group.buckets, b.id).ok()?;
            old.counts.buckets.get(at).cloned()
        };
        let buckets = group.buckets.iter().map(|b| kept(b).unwrap_or_default());
        GroupCounts { whole: Count::default(), buckets: buckets.collect() }
    }

    /// Adds packets of the group that used one of its buckets, by its position.
    pub fn add(&self, bucket: usize, seen: &Seen) {
        if let Some(count) = self.buckets.get(bucket) {
            count.add(seen);
        }
    }

    /// Adds packets of the group as a whole.
    pub fn add_whole(&self, seen: &Seen) {
        self.whole.add(seen);
    }

    /// Packets and bytes of the whole group.
    pub fn whole(&self) -> (u64, u64) {
        self.whole.get()
    }

    /// Packets and bytes of each bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().map(|c| c.get())
    }
}

/// A group of a bridge.
#[derive(Debug)]
pub struct GroupEntry {
    /// What it does.
    pub group: Group,
    /// When it was added, in milliseconds.
    pub created_ms: u64,
    /// How often it was used.
    pub counts: Arc<GroupCounts>,
}

impl GroupEntry {
    fn new(group: Group, created_ms: u64, kept: Option<&GroupEntry>) -> Arc<GroupEntry> {
        let counts = Arc::new(GroupCounts::new(&group, kept));
        Arc::new(GroupEntry { group, created_ms, counts })
    }
}

/// The groups of one bridge. Copying is cheap, and a changed copy leaves the original as it was.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    groups: imbl::OrdMap<u32, Arc<GroupEntry>>,
}

impl Groups {
    /// The group with a number.
    pub fn get(&self, id: u32) -> Option<&Arc<GroupEntry>> {
        self.groups.get(&id)
    }

    /// All groups, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.groups.values()
    }

    /// Applies one change. As in OVS, a bucket may name a group that is not there, or one that leads
    /// back to this: whoever runs groups has to bound the depth.
    ///
    /// Flows that use a deleted group have to go too: [`Tables::remove_users_of_group`].
    ///
    /// # Errors
    /// If it is refused; then nothing has changed.
    pub fn apply(&mut self, m: &GroupMod, now_ms: u64) -> Result<(), GroupModError> {
        let id = m.group.id;
        let old = self.groups.get(&id);
        match (m.command, old) {
            (GroupCommand::Add, Some(_)) => return Err(GroupModError::GroupExists),
            (GroupCommand::Delete, _) if m.all => self.groups.clear(),
            (GroupCommand::Delete, _) => {
                self.groups.remove(&id);
            }
            (GroupCommand::Add | GroupCommand::AddOrModify, None) => {
                check(&m.group)?;
                self.groups.insert(id, GroupEntry::new(m.group.clone(), now_ms, None));
            }
            (_, None) => return Err(GroupModError::UnknownGroup),
            (GroupCommand::InsertBuckets | GroupCommand::RemoveBuckets, Some(old)) => {
                let buckets = match m.command {
                    GroupCommand::InsertBuckets => insert(&old.group.buckets, m)?,
                    _ => remove(&old.group.buckets, m.place)?,
                };
                let group = Group { buckets, ..old.group.clone() };
                let entry = GroupEntry::new(group, old.created_ms, Some(old));
                self.groups.insert(id, entry);
            }
            (GroupCommand::Modify | GroupCommand::AddOrModify, Some(old)) => {
                check(&m.group)?;
                self.groups.insert(id, GroupEntry::new(m.group.clone(), old.created_ms, None));
            }
        }
        Ok(())
    }

    /// One group, or all, one a line, as `ovs-ofctl dump-groups` prints them below the header.
    pub fn dump_groups(&self, id: Option<u32>, names: &dyn PortNames) -> String {
        let lines = self.chosen(id).map(|g| openflow::format_group(&g.group, names));
        lines.map(|l| format!(" {l}\n")).collect()
    }

    /// Counts of one group or all, one a line, as `ovs-ofctl dump-group-stats` prints them below the
    /// header.
    pub fn dump_group_stats(&self, id: Option<u32>, tables: &Tables, now_ms: u64) -> String {
        let mut out = String::new();
        for g in self.chosen(id) {
            let age = seconds(now_ms.saturating_sub(g.created_ms));
            let users = tables.rules().filter(|r| r.uses_group(g.group.id)).count();
            let (packets, bytes) = g.counts.whole();
            // Writing to a String cannot fail.
            let _ = write!(out, " group_id={},duration={age}s,ref_count={users}", g.group.id);
            let _ = write!(out, ",packet_count={packets},byte_count={bytes}");
            for (i, (packets, bytes)) in g.counts.buckets().enumerate() {
                let _ = write!(out, ",bucket{i}:packet_count={packets},byte_count={bytes}");
            }
            out.push('\n');
        }
        out
    }

    fn chosen(&self, id: Option<u32>) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.iter().filter(move |g| id.is_none_or(|id| g.group.id == id))
    }
}

impl Tables {
    /// Removes the flows that use the groups that `m` deletes.
    pub fn remove_users_of_group(&mut self, m: &GroupMod) -> Vec<Removed> {
        if m.command != GroupCommand::Delete {
            return Vec::new();
        }
        self.remove_if(Reason::GroupDelete, |r| {
            any_action(&r.actions, &|a| match a {
                Action::Group(g) => m.all || *g == m.group.id,
                _ => false,
            })
        })
    }
}

/// OVS's checks of a whole group.
fn check(group: &Group) -> Result<(), GroupModError> {
    let select = group.kind == GroupType::Select;
    let watches = |b: &Bucket| b.watch_port != OfPort::NONE || b.watch_group.is_some();
    let valid = match group.kind {
        GroupType::Indirect => group.buckets.len() == 1,
        GroupType::FastFailover => group.buckets.iter().all(watches),
        GroupType::All | GroupType::Select => true,
    };
    if !valid {
        return Err(GroupModError::InvalidGroup);
    }
    if let Some(method) = group.selection.method.as_deref()
        && (!select || !SELECTION_METHODS.contains(&method))
    {
        return Err(GroupModError::BadSelection);
    }
    unique(&group.buckets)
}

fn unique(buckets: &[Bucket]) -> Result<(), GroupModError> {
    let ids: BTreeSet<u32> = buckets.iter().map(|b| b.id).collect();
    if ids.len() == buckets.len() { Ok(()) } else { Err(GroupModError::BadBucket) }
}

fn position(buckets: &[Bucket], id: u32) -> Result<usize, GroupModError> {
    buckets.iter().position(|b| b.id == id).ok_or(GroupModError::UnknownBucket)
}

/// `buckets` with those of `m` among them.
fn insert(buckets: &[Bucket], m: &GroupMod) -> Result<Vec<Bucket>, GroupModError> {
    let fresh = &m.group.buckets;
    unique(fresh)?;
    let at = match m.place {
        BucketPlace::First => 0,
        BucketPlace::Last | BucketPlace::All => buckets.len(),
        BucketPlace::Id(id) => position(buckets, id)? + 1,
    };
    if fresh.iter().any(|f| buckets.iter().any(|b| b.id == f.id)) {
        return Err(GroupModError::BucketExists);
    }
    let (before, after) = buckets.split_at(at);
    Ok([before, fresh.as_slice(), after].concat())
}

/// `buckets` without some.
fn remove(buckets: &[Bucket], place: BucketPlace) -> Result<Vec<Bucket>, GroupModError> {
    let gone = match place {
        BucketPlace::All => 0..buckets.len(),
        BucketPlace::First => 0..1.min(buckets.len()),
        BucketPlace::Last => buckets.len().saturating_sub(1)..buckets.len(),
        BucketPlace::Id(id) => {
            let at = position(buckets, id)?;
            at..at + 1
        }
    };
    Ok([&buckets[..gone.start], &buckets[gone.end..]].concat())
}
