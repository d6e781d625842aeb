//! The pipeline: bridges, their OpenFlow tables, and MAC learning.
//!
//! [`Pipeline`] answers [`flow::Translate`]: given a packet's key it says what to do with it and
//! which bits of the key that depended on. It knows no packet bytes, no thread and no clock; every
//! call that needs the time is given it in milliseconds.
//!
//! Readers (polling threads, the revalidator, tracing) work on a snapshot that the control thread
//! replaces as a whole; only the MAC table of a bridge is behind a lock, held for one lookup.
//!
//! On purpose not as OVS:
//! - A megaflow looks at the VLAN tag only if a flow or NORMAL does, and at fields that are written only
//!   if something else looks at them; OVS's always do. Masks that OVS gets wrong are right here (the
//!   priority of VLAN 0 under NORMAL, labels that are put back after a bucket popped them).
//! - `dl_vlan` and `dl_vlan_pcp` beyond their range are refused; OVS drops the excess bits.
//! - An address seen on a new port moves there only if that sight is not older than the last one.
//! - Two VLAN tags are read. A third one pushed drops the packet, where OVS loses count of them.
//! - A select group without fields hashes both ends' addresses and ports here; OVS has the datapath hash
//!   and looks the packet up again. Which bucket or link a packet gets is not the same.
//! - What follows `check_pkt_larger` in its list is run for both answers, each with the action set as it
//!   was; OVS runs the action set twice for the larger packets.
//! - Nested lists of actions end at 512, OVS's at 64 turns through the same or earlier tables only.
//! - A packet that leaves by several selected ports is mirrored as it leaves the one with the lowest
//!   number; OVS goes by a hash table.
//! - A table miss drops. Packets for controllers that `pause` go on at once.
#![forbid(unsafe_code)]

mod action_set;
mod branch;
mod bridge;
mod caused;
mod change;
mod commands;
mod commands_change;
mod commit;
mod core;
mod error;
mod events;
mod fdb;
mod frozen;
mod hash;
mod headers;
mod learn;
mod mdb;
mod membership;
mod mirror;
mod multicast;
mod normal;
mod normal_tags;
mod note;
mod output;
mod patch;
mod pipeline;
mod port;
mod rewrite;
mod spread;
mod tagging;
mod tags;
mod trace;
mod trace_command;
mod translate;
mod vlan;
mod walk;

pub use bridge::{BridgeConfig, DEFAULT_VLAN_LIMIT, MAX_VLAN_LIMIT, Snooping};
pub use change::Refused;
pub use commands_change::Changes;
pub use error::Error;
pub use fdb::{
    DEFAULT_AGING_S, DEFAULT_TABLE_SIZE, GRAT_ARP_LOCK_MS, MAX_AGING_S, MAX_TABLE_SIZE,
    MIN_AGING_S, MIN_TABLE_SIZE,
};
pub use mdb::{
    DEFAULT_MCAST_AGING_S, DEFAULT_MCAST_TABLE_SIZE, MAX_MCAST_AGING_S, MAX_MCAST_TABLE_SIZE,
    MIN_MCAST_AGING_S, MIN_MCAST_TABLE_SIZE,
};
pub use mirror::{MAX_MIRRORS, MirrorConfig, MirrorOutput, Selected};
pub use note::{Note, NoteKind};
pub use pipeline::{MirrorStatistics, Names, Pipeline, PortInfo};
pub use port::{OfPort, PatchCounts, PortUse};
pub use translate::Noted;
pub use vlan::{PortColumns, PortConfig, PriorityTags, VlanMode, VlanSet};
