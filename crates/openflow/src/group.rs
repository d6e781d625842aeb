//! Groups, as they are said. Their text is in `group_text.rs`.

use crate::action::Actions;
use crate::field::Field;
use crate::port::OfPort;

/// How a group uses its buckets (OpenFlow 1.3, 5.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupType {
    /// All buckets, each with its own copy.
    All,
    /// One, chosen by hash and weight.
    Select,
    /// The only one.
    Indirect,
    /// The first that is alive.
    FastFailover,
}

/// One alternative of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its number, unique in the group.
    pub id: u32,
    /// Share of a select group's packets.
    pub weight: u16,
    /// Port whose link makes it alive.
    pub watch_port: OfPort,
    /// Group whose life makes it alive.
    pub watch_group: Option<u32>,
    /// What it does.
    pub actions: Actions,
}

/// How a select group chooses (ovs-ofctl(8), `selection_method`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// `hash`, `dp_hash` or none.
    pub method: Option<String>,
    /// Seed or algorithm of the hash.
    pub param: u64,
    /// Fields that are hashed, with their masks right-aligned; none for the default ones.
    pub fields: Vec<(&'static Field, u128)>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number, at most 0xffffff00.
    pub id: u32,
    /// How it uses its buckets.
    pub kind: GroupType,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
    /// How a select group chooses.
    pub selection: Selection,
}

/// The highest number that a group or a bucket can have (OpenFlow 1.3, OFPG_MAX).
pub const GROUP_MAX: u32 = 0xffff_ff00;

/// What a [`GroupMod`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupCommand {
    /// Adds a group that must not be there yet.
    Add,
    /// Replaces a group that must be there.
    Modify,
    /// Adds or replaces a group.
    AddOrModify,
    /// Removes one group or all.
    Delete,
    /// Adds buckets to a group.
    InsertBuckets,
    /// Removes buckets from a group.
    RemoveBuckets,
}

/// Where buckets are inserted, or which are removed (`command_bucket_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketPlace {
    /// All of them (removal only).
    All,
    /// Before the first, or the first.
    First,
    /// After the last, or the last.
    Last,
    /// After the one with this number, or this one.
    Id(u32),
}

/// A change of the group table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMod {
    /// What to do.
    pub command: GroupCommand,
    /// `group_id=all`, or none named to be deleted: every group. Only with `Delete`.
    pub all: bool,
    /// The group with its number. For `Delete`, only the number counts; for `InsertBuckets` and
    /// `RemoveBuckets`, the number and the buckets.
    pub group: Group,
    /// For `InsertBuckets` and `RemoveBuckets`.
    pub place: BucketPlace,
}
