//! OpenFlow's vocabulary: fields, matches, actions, groups and changes of flows, with their text as
//! `ovs-ofctl` reads and writes it.
//!
//! Nothing here knows a table, a port or a packet: [`Pipeline`](../pipeline/index.html) keeps flows and
//! runs them. What is in this crate is what a flow *says*.
#![forbid(unsafe_code)]

mod action;
mod actions;
mod bundle_text;
mod error;
mod field;
mod flow_mod;
mod flow_text;
mod group;
mod group_text;
mod key;
mod match_text;
mod matching;
mod meter;
mod meter_text;
mod number;
mod pairs;
mod port;
mod port_text;
mod port_use;
mod prereq;
mod registry;
mod subfield;

pub use action::*;
pub use actions::{
    LEARN_TABLE, MAX_NESTING, check_actions, first_unsupported, format_actions, parse_actions,
    settle_actions,
};
pub use bundle_text::{BundleMod, parse_bundle};
pub use error::ParseError;
pub use field::{Field, Format, Maskable, Oxm, Prereq, View};
pub use flow_mod::*;
pub use flow_text::{flow_mods, parse_flow_mod, parse_flow_mods};
pub use group::*;
pub use group_text::{format_group, parse_group_mod, parse_group_mods};
pub use key::{FullKey, FullMask, KEY_WORDS, TunnelKey};
pub use match_text::{
    MatchBuilder, format_key, format_masked, format_match, parse_key, parse_match,
};
pub use matching::Match;
pub use meter::*;
pub use meter_text::{format_meter, format_meter_id, parse_meter_mod};
pub use port::{OfPort, PortNames};
pub use port_text::{ShowName, parse_port};
pub use port_use::PortUse;
pub use registry::{field, fields, fld, reg, tun_metadata};
pub use subfield::Subfield;
