//! The OpenFlow tables of one bridge: flows, groups and meters, and all that changes them.
//!
//! [`Tables`], [`Groups`] and [`Meters`] are values: copying one is cheap whatever it holds, a copy
//! that is changed shares all else with the original, and who holds a copy sees no change of another.
//! So readers need no lock, a bundle of changes is made on a copy that is published at its end, and a
//! bundle that fails is a copy that is dropped. Only what counts packets is common to all copies.
//!
//! Nothing here runs an action, reads a packet or a clock.
#![forbid(unsafe_code)]

mod config;
mod conjunction;
mod dump;
mod eviction;
mod flow_mod;
mod groups;
mod meters;
mod prefix;
mod rule;
mod shape;
mod subtable;
mod table;
mod tables;
mod timeout;

pub use config::{TableConfig, TableCounters};
pub use dump::DumpOptions;
pub use flow_mod::FlowModError;
pub use groups::{GroupCounts, GroupEntry, GroupModError, Groups};
pub use meters::{MAX_BANDS, MAX_METERS, MeterEntry, MeterModError, Meters};
pub use rule::{Counts, Rule, RuleFlags};
pub use tables::{MAX_TABLE, Reason, Removed, Tables};
