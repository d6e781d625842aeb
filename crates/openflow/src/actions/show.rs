//! Actions as `ovs-ofctl dump-flows` prints them.

use super::conntrack::show_ct;
use super::hash::{show_bundle, show_multipath};
use super::learn::show_learn;
use super::output::{HexBytes, show_controller, show_resubmit};
use super::sampling::show_sample;
use super::settle::needs_openflow13;
use crate::action::Action;
use crate::port::{OfPort, PortNames};
use crate::port_text::ShowPort;
use std::fmt;

/// A list of actions as text: `drop` if there are none.
pub fn format_actions(actions: &[Action], names: &dyn PortNames) -> String {
    ShowActions { list: actions, names, openflow13: needs_openflow13(actions) }.to_string()
}

/// Actions that print as a list.
pub(crate) struct ShowActions<'a> {
    pub(crate) list: &'a [Action],
    pub(crate) names: &'a dyn PortNames,
    /// As over OpenFlow 1.3 and not 1.0.
    pub(crate) openflow13: bool,
}

impl<'a> ShowActions<'a> {
    /// Others that lie in one of these.
    pub(super) fn nested(&self, list: &'a [Action]) -> ShowActions<'a> {
        ShowActions { list, ..*self }
    }
}

impl fmt::Display for ShowActions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.list.is_empty() {
            return f.write_str("drop");
        }
        for (i, action) in self.list.iter().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            self.show(f, action)?;
        }
        Ok(())
    }
}

impl ShowActions<'_> {
    fn show(&self, f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
        match action {
            Action::Output { port, max_len } => self.show_output(f, *port, *max_len),
            Action::OutputField { src, .. } => write!(f, "output:{src}"),
            Action::Controller(it) => show_controller(f, it),
            Action::Enqueue { port, queue } => {
                write!(f, "enqueue:{}:{queue}", ShowPort(*port, self.names))
            }
            Action::Bundle(it) => show_bundle(f, it, self.names),
            Action::Multipath(it) => show_multipath(f, it),
            Action::SetField { field, value, mask } => {
                // All valid bits together are no mask.
                let mask = if *mask == field.ones() { u128::MAX } else { *mask };
                write!(f, "set_field:{}->{}", field.format(*value, mask, self.names), field.name)
            }
            Action::Load { dst, value } => write!(f, "load:{}->{dst}", Hex(*value)),
            Action::Move { src, dst } => write!(f, "move:{src}->{dst}"),
            Action::Push(src) => write!(f, "push:{src}"),
            Action::Pop(dst) => write!(f, "pop:{dst}"),
            Action::CheckPktLarger { len, dst } => write!(f, "check_pkt_larger({len})->{dst}"),
            Action::DeleteField(field) => write!(f, "delete_field:{}", field.name),
            Action::Resubmit { port, table, ct } => {
                show_resubmit(f, (*port, *table, *ct), self.names)
            }
            Action::Learn(it) => show_learn(f, it, self.names),
            Action::Sample(it) => show_sample(f, it, self.names),
            Action::Ct(it) => show_ct(f, it, self),
            Action::Clone(list) => write!(f, "clone({})", self.nested(list)),
            Action::WriteActions(list) => write!(f, "write_actions({})", self.nested(list)),
            other => self.show_simple(f, other),
        }
    }

    /// Actions that are a name and a few numbers.
    fn show_simple(&self, f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
        match action {
            Action::Group(id) => write!(f, "group:{id}"),
            Action::SetVlanVid(vid) => write!(f, "mod_vlan_vid:{vid}"),
            Action::SetVlanPcp(pcp) => write!(f, "mod_vlan_pcp:{pcp}"),
            Action::StripVlan => {
                f.write_str(if self.openflow13 { "pop_vlan" } else { "strip_vlan" })
            }
            Action::PushVlan(tpid) => write!(f, "push_vlan:{tpid:#06x}"),
            Action::SetEthSrc(mac) => write!(f, "mod_dl_src:{mac}"),
            Action::SetEthDst(mac) => write!(f, "mod_dl_dst:{mac}"),
            Action::SetIpv4Src(ip) => write!(f, "mod_nw_src:{}", std::net::Ipv4Addr::from(*ip)),
            Action::SetIpv4Dst(ip) => write!(f, "mod_nw_dst:{}", std::net::Ipv4Addr::from(*ip)),
            Action::SetIpDscp(tos) => write!(f, "mod_nw_tos:{tos}"),
            Action::SetIpEcn(ecn) => write!(f, "mod_nw_ecn:{ecn}"),
            Action::SetIpTtl(ttl) => write!(f, "mod_nw_ttl:{ttl}"),
            Action::SetTpSrc(port) => write!(f, "mod_tp_src:{port}"),
            Action::SetTpDst(port) => write!(f, "mod_tp_dst:{port}"),
            Action::DecTtl(ids) => show_dec_ttl(f, ids),
            Action::SetMplsLabel(label) => write!(f, "set_mpls_label({label})"),
            Action::SetMplsTc(tc) => write!(f, "set_mpls_tc({tc})"),
            Action::SetMplsTtl(ttl) => write!(f, "set_mpls_ttl({ttl})"),
            Action::DecMplsTtl => f.write_str("dec_mpls_ttl"),
            Action::PushMpls(ethertype) => write!(f, "push_mpls:{ethertype:#06x}"),
            Action::PopMpls(ethertype) => write!(f, "pop_mpls:{ethertype:#06x}"),
            Action::SetTunnel { id, wide } => {
                write!(f, "set_tunnel{}:{}", if *wide { "64" } else { "" }, Hex((*id).into()))
            }
            Action::SetQueue(queue) => write!(f, "set_queue:{queue}"),
            Action::PopQueue => f.write_str("pop_queue"),
            Action::FinTimeout { idle, hard } => show_fin_timeout(f, *idle, *hard),
            Action::Conjunction { id, clause, n_clauses } => {
                write!(f, "conjunction({id},{}/{n_clauses})", u16::from(*clause) + 1)
            }
            Action::Note(bytes) => write!(f, "note:{}", HexBytes(bytes)),
            Action::Exit => f.write_str("exit"),
            Action::CtClear => f.write_str("ct_clear"),
            Action::Meter(id) => write!(f, "meter:{id}"),
            Action::ClearActions => f.write_str("clear_actions"),
            Action::WriteMetadata { value, mask: u64::MAX } => {
                write!(f, "write_metadata:{}", Hex((*value).into()))
            }
            Action::WriteMetadata { value, mask } => {
                write!(f, "write_metadata:{}/{}", Hex((*value).into()), Hex((*mask).into()))
            }
            Action::GotoTable(table) => write!(f, "goto_table:{table}"),
            // `show` has all others.
            _ => Ok(()),
        }
    }

    fn show_output(
        &self,
        f: &mut fmt::Formatter<'_>,
        port: OfPort,
        max_len: Option<u32>,
    ) -> fmt::Result {
        let shown = ShowPort(port, self.names);
        match max_len {
            Some(max_len) => write!(f, "output(port={shown},max_len={max_len})"),
            None if OfPort::RESERVED.iter().any(|(_, p)| *p == port) => write!(f, "{shown}"),
            None => write!(f, "output:{shown}"),
        }
    }
}

/// Hexadecimal, but `0` without a prefix.
pub(super) struct Hex(pub(super) u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n => write!(f, "{n:#x}"),
        }
    }
}

fn show_dec_ttl(f: &mut fmt::Formatter<'_>, ids: &[u16]) -> fmt::Result {
    if let [] | [0] = ids {
        return f.write_str("dec_ttl");
    }
    let ids: Vec<String> = ids.iter().map(u16::to_string).collect();
    write!(f, "dec_ttl({})", ids.join(","))
}

fn show_fin_timeout(f: &mut fmt::Formatter<'_>, idle: u16, hard: u16) -> fmt::Result {
    let mut parts = Vec::new();
    if idle != 0 {
        parts.push(format!("idle_timeout={idle}"));
    }
    if hard != 0 {
        parts.push(format!("hard_timeout={hard}"));
    }
    write!(f, "fin_timeout({})", parts.join(","))
}
