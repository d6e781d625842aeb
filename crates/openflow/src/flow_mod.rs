//! A change of the flow tables, as one line of `ovs-ofctl` says it.

use crate::action::Actions;
use crate::matching::Match;
use crate::port::OfPort;

/// What a [`FlowMod`] does (OpenFlow 1.0, 5.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Adds a flow, in place of one with the same match and priority.
    Add,
    /// Gives other actions to all flows within the match.
    Modify,
    /// Gives other actions to the flow with this match and priority.
    ModifyStrict,
    /// Removes all flows within the match.
    Delete,
    /// Removes the flow with this match and priority.
    DeleteStrict,
}

/// `priority` of a flow that names none (`ovs-ofctl`, OFP_DEFAULT_PRIORITY).
pub const DEFAULT_PRIORITY: u16 = 32768;

/// A change of the flow tables, or a filter of flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowMod {
    /// What to do.
    pub command: Command,
    /// The table; `None` is the first for additions, and all for everything else.
    pub table: Option<u8>,
    /// Which packets.
    pub matches: Match,
    /// Higher ones win.
    pub priority: u16,
    /// `cookie=VALUE/MASK`: only flows that have these bits. A mask of 0 means all.
    pub cookie_filter: (u64, u64),
    /// `cookie=VALUE`: what a new flow gets, or a changed one if given.
    pub new_cookie: Option<u64>,
    /// Seconds without a packet after which it is removed; 0 for never.
    pub idle_timeout: u16,
    /// Seconds after which it is removed; 0 for never.
    pub hard_timeout: u16,
    /// `importance`: the least important is evicted first.
    pub importance: u16,
    /// Only flows that output to this port.
    pub out_port: Option<OfPort>,
    /// Only flows that use this group.
    pub out_group: Option<u32>,
    /// `send_flow_rem`: controllers are told of its removal.
    pub send_flow_rem: bool,
    /// `check_overlap`: refused if a flow of the same priority could match the same packet.
    pub check_overlap: bool,
    /// `reset_counts`
    pub reset_counts: bool,
    /// `no_packet_counts`
    pub no_packet_counts: bool,
    /// `no_byte_counts`
    pub no_byte_counts: bool,
    /// What its packets get.
    pub actions: Actions,
}
