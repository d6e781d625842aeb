//! Which actions may stand where: the order of instructions, and what may lie in what. It does not
//! depend on a flow's match.

use crate::action::Action;
use crate::field::Field;
use crate::registry::fld;

/// Where a list of actions stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a flow or a packet-out.
    Flow,
    Bucket,
    Clone,
    WriteActions,
    /// In `exec` of `ct`.
    Ct,
}

/// Judges the actions of a list, one after the other.
pub(super) struct Rules {
    place: Place,
    /// The instruction that the last action belongs to, by rank; none yet is below all.
    last: Option<(u8, &'static str)>,
    conjunction: bool,
    /// The first action that must not stand beside a conjunction.
    other: Option<&'static str>,
}

impl Rules {
    pub(super) fn new(place: Place) -> Rules {
        Rules { place, last: None, conjunction: false, other: None }
    }

    /// The reason why an action may not come next, in OVS's words.
    pub(super) fn admit(&mut self, action: &Action) -> Result<(), String> {
        let (rank, name) = instruction(action);
        let meter = matches!(action, Action::Meter(_));
        if self.place != Place::Flow && rank != APPLY.0 && !meter {
            return Err(format!("{name} instruction not allowed here"));
        }
        self.admit_nested(action)?;
        self.admit_beside_conjunction(action)?;
        if let Some((last, last_name)) = self.last.replace((rank, name)) {
            if rank == last && rank != APPLY.0 {
                return Err(format!(
                    "duplicate {name} instruction not allowed, for OpenFlow 1.1+ compatibility"
                ));
            }
            if rank < last {
                return Err(format!(
                    "invalid instruction ordering: {name} must appear before {last_name}, \
                     for OpenFlow 1.1+ compatibility"
                ));
            }
        }
        Ok(())
    }

    fn admit_nested(&self, action: &Action) -> Result<(), String> {
        let set = written(action);
        if self.place != Place::Ct && set.is_some_and(is_tracked) {
            return Err("cannot set CT fields outside of ct action".into());
        }
        let outer = match self.place {
            Place::Flow | Place::Bucket => return Ok(()),
            Place::Clone => "clone",
            Place::WriteActions => "write_actions",
            Place::Ct => "ct",
        };
        match set {
            None if self.place == Place::Ct || matches!(action, Action::Meter(_)) => {
                Err(format!("{outer} action doesn't support nested action {}", name(action)))
            }
            Some(field) if self.place == Place::Ct && !is_tracked(field) => {
                Err(format!("ct action doesn't support nested modification of {}", field.name))
            }
            _ => Ok(()),
        }
    }

    fn admit_beside_conjunction(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Conjunction { .. } => self.conjunction = true,
            Action::Note(_) => {}
            other => self.other = self.other.or(Some(name(other))),
        }
        match self.other.filter(|_| self.conjunction) {
            None => Ok(()),
            Some(other) => Err(format!(
                "\"conjunction\" actions may be used along with \"note\" but not any other kind of \
                 action (such as the \"{other}\" action used here)"
            )),
        }
    }
}

const APPLY: (u8, &str) = (1, "apply_actions");

/// Rank and name of the instruction that an action is or belongs to (OpenFlow 1.3, 5.9).
fn instruction(action: &Action) -> (u8, &'static str) {
    match action {
        Action::Meter(_) => (0, "meter"),
        Action::ClearActions => (2, "clear_actions"),
        Action::WriteActions(_) => (3, "write_actions"),
        Action::WriteMetadata { .. } => (4, "write_metadata"),
        Action::GotoTable(_) => (5, "goto_table"),
        _ => APPLY,
    }
}

/// The field that an action is there to write.
pub(super) fn written(action: &Action) -> Option<&'static Field> {
    match action {
        Action::SetField { field, .. } => Some(field),
        Action::Load { dst, .. } | Action::Move { dst, .. } => Some(dst.field),
        _ => None,
    }
}

/// True for what only connection tracking writes.
pub(super) fn is_tracked(field: &Field) -> bool {
    [fld::CT_MARK, fld::CT_LABEL].contains(&field)
}

/// What OVS calls an action in its messages.
pub(super) fn name(action: &Action) -> &'static str {
    match action {
        Action::Output { max_len: None, .. } => "output",
        Action::Output { .. } => "output_trunc",
        Action::OutputField { .. } => "output_reg",
        // OVS keeps the plain form as an output.
        Action::Controller(c) if c.is_plain() => "output",
        Action::Controller(_) => "controller",
        Action::Enqueue { .. } => "enqueue",
        Action::Group(_) => "group",
        Action::Bundle(_) => "bundle",
        Action::SetField { .. } | Action::Load { .. } => "set_field",
        Action::Move { .. } => "move",
        Action::SetVlanVid(_) => "set_vlan_vid",
        Action::SetVlanPcp(_) => "set_vlan_pcp",
        Action::StripVlan => "strip_vlan",
        Action::PushVlan(_) => "push_vlan",
        Action::SetEthSrc(_) => "mod_dl_src",
        Action::SetEthDst(_) => "mod_dl_dst",
        Action::SetIpv4Src(_) => "mod_nw_src",
        Action::SetIpv4Dst(_) => "mod_nw_dst",
        Action::SetIpDscp(_) => "mod_nw_tos",
        Action::SetIpEcn(_) => "mod_nw_ecn",
        Action::SetIpTtl(_) => "mod_nw_ttl",
        Action::SetTpSrc(_) => "mod_tp_src",
        Action::SetTpDst(_) => "mod_tp_dst",
        Action::DecTtl(_) => "dec_ttl",
        Action::SetMplsLabel(_) => "set_mpls_label",
        Action::SetMplsTc(_) => "set_mpls_tc",
        Action::SetMplsTtl(_) => "set_mpls_ttl",
        Action::DecMplsTtl => "dec_mpls_ttl",
        Action::PushMpls(_) => "push_mpls",
        Action::PopMpls(_) => "pop_mpls",
        Action::SetTunnel { .. } => "set_tunnel",
        Action::SetQueue(_) => "set_queue",
        Action::PopQueue => "pop_queue",
        Action::FinTimeout { .. } => "fin_timeout",
        Action::Resubmit { .. } => "resubmit",
        Action::Learn(_) => "learn",
        Action::Multipath(_) => "multipath",
        Action::Conjunction { .. } => "conjunction",
        Action::Push(_) => "push",
        Action::Pop(_) => "pop",
        Action::Clone(_) => "clone",
        Action::Note(_) => "note",
        Action::Exit => "exit",
        Action::CheckPktLarger { .. } => "check_pkt_larger",
        Action::Sample(_) => "sample",
        Action::DeleteField(_) => "delete_field",
        Action::Ct(_) => "ct",
        Action::CtClear => "ct_clear",
        Action::Meter(_) => "meter",
        Action::ClearActions => "clear_actions",
        Action::WriteActions(_) => "write_actions",
        Action::WriteMetadata { .. } => "write_metadata",
        Action::GotoTable(_) => "goto_table",
    }
}
