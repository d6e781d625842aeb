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
//! - A megaflow looks at the VLAN tag only if a flow or NORMAL does; OVS's always does.
//! - `dl_vlan` and `dl_vlan_pcp` beyond their range are refused; OVS drops the excess bits.
//! - NORMAL leaves a priority tag (VLAN 0, priority 0) on the frame; OVS removes it.
//! - An address seen on a new port moves there only if that sight is not older than the last one.
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
mod fdb;
mod frozen;
mod hash;
mod headers;
mod learn;
mod normal;
mod note;
mod output;
mod pipeline;
mod port;
mod rewrite;
mod spread;
mod tags;
mod trace;
mod trace_command;
mod translate;
mod walk;

pub use bridge::BridgeConfig;
pub use change::Refused;
pub use commands_change::Changes;
pub use error::Error;
pub use fdb::{
    DEFAULT_AGING_S, DEFAULT_TABLE_SIZE, GRAT_ARP_LOCK_MS, MAX_AGING_S, MAX_TABLE_SIZE,
    MIN_AGING_S, MIN_TABLE_SIZE,
};
pub use note::{Note, NoteKind};
pub use pipeline::{Names, Pipeline, PortInfo};
pub use port::OfPort;
pub use translate::Noted;
