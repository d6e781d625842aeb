//! The names of actions, and how each is read.

use super::modify as m;
use super::{Cx, conntrack, hash, learn, output, sampling, set};
use crate::action::Action;
use crate::error::ParseError;

/// Reads an action's value.
pub(super) type Parse = fn(&str, Cx<'_>) -> Result<Action, ParseError>;

/// How the action with a name is read. Case does not matter.
pub(super) fn find(name: &str) -> Option<Parse> {
    NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, parse)| *parse)
}

/// The most used first.
const NAMES: [(&str, Parse); 66] = [
    ("output", output::parse),
    ("resubmit", output::parse_resubmit),
    ("load", set::parse_load),
    ("set_field", set::parse_set_field),
    ("move", set::parse_move),
    ("goto_table", m::parse_goto_table),
    ("group", m::parse_group),
    ("controller", output::parse_controller),
    ("learn", learn::parse),
    ("ct", conntrack::parse),
    ("mod_dl_src", m::parse_mod_dl_src),
    ("mod_dl_dst", m::parse_mod_dl_dst),
    ("mod_nw_src", m::parse_mod_nw_src),
    ("mod_nw_dst", m::parse_mod_nw_dst),
    ("mod_nw_tos", m::parse_mod_nw_tos),
    ("mod_nw_ecn", m::parse_mod_nw_ecn),
    ("mod_nw_ttl", m::parse_mod_nw_ttl),
    ("mod_tp_src", m::parse_mod_tp_src),
    ("mod_tp_dst", m::parse_mod_tp_dst),
    ("mod_vlan_vid", m::parse_mod_vlan_vid),
    ("set_vlan_vid", m::parse_mod_vlan_vid),
    ("mod_vlan_pcp", m::parse_mod_vlan_pcp),
    ("set_vlan_pcp", m::parse_mod_vlan_pcp),
    ("strip_vlan", |_, _| Ok(Action::StripVlan)),
    ("pop_vlan", |_, _| Ok(Action::StripVlan)),
    ("push_vlan", m::parse_push_vlan),
    ("dec_ttl", m::parse_dec_ttl),
    ("set_mpls_label", m::parse_set_mpls_label),
    ("set_mpls_tc", m::parse_set_mpls_tc),
    ("set_mpls_ttl", m::parse_set_mpls_ttl),
    ("dec_mpls_ttl", |_, _| Ok(Action::DecMplsTtl)),
    ("push_mpls", m::parse_push_mpls),
    ("pop_mpls", m::parse_pop_mpls),
    ("set_tunnel", m::parse_set_tunnel),
    ("set_tunnel64", m::parse_set_tunnel64),
    ("set_queue", m::parse_set_queue),
    ("pop_queue", |_, _| Ok(Action::PopQueue)),
    ("enqueue", output::parse_enqueue),
    ("fin_timeout", m::parse_fin_timeout),
    ("conjunction", m::parse_conjunction),
    ("multipath", hash::parse_multipath),
    ("bundle", hash::parse_bundle),
    ("bundle_load", hash::parse_bundle_load),
    ("push", set::parse_push),
    ("pop", set::parse_pop),
    ("clone", output::parse_clone),
    ("note", sampling::parse_note),
    ("exit", |_, _| Ok(Action::Exit)),
    ("check_pkt_larger", set::parse_check_pkt_larger),
    ("sample", sampling::parse_sample),
    ("delete_field", set::parse_delete_field),
    ("ct_clear", |_, _| Ok(Action::CtClear)),
    ("meter", m::parse_meter),
    ("clear_actions", |_, _| Ok(Action::ClearActions)),
    ("write_actions", output::parse_write_actions),
    ("write_metadata", m::parse_write_metadata),
    ("output_reg", output::parse),
    ("set_nw_ttl", m::parse_mod_nw_ttl),
    ("apply_actions", |v, _| refuse(v, "apply_actions is the default instruction")),
    ("nat", |v, _| refuse(v, "Cannot have NAT action outside of \"ct\" action")),
    ("unroll_xlate", |v, _| {
        refuse(v, "UNROLL is an internal action that shouldn't be used via OpenFlow")
    }),
    ("encap", |v, _| refuse(v, UNAVAILABLE)),
    ("decap", |v, _| refuse(v, UNAVAILABLE)),
    ("dec_nsh_ttl", |v, _| refuse(v, UNAVAILABLE)),
    ("debug_recirc", |v, _| refuse(v, DEBUG)),
    ("debug_slow", |v, _| refuse(v, DEBUG)),
];

/// The switch knows no packets but Ethernet frames.
const UNAVAILABLE: &str = "encap, decap and NSH actions are not available";
const DEBUG: &str = "debugging actions are not available";

fn refuse(word: &str, reason: &str) -> Result<Action, ParseError> {
    Err(ParseError::new(word, reason))
}
