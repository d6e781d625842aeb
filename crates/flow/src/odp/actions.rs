//! The text of datapath actions.

use super::{PortText, arp, eth, hex, ipv4, ipv6, is_nd, lse_fields, mpls, nd, ports};
use crate::{Action, Punt, Rewrite, Vlan, ether_type};

/// The action list, for example `1,2` or `push_vlan(vid=5,pcp=0),2`, or `drop` if it is empty. Ports
/// are written by `port`.
pub fn format_actions(actions: &[Action], port: PortText<'_>) -> String {
    if actions.is_empty() {
        return "drop".to_owned();
    }
    let texts: Vec<String> = actions.iter().map(|action| format_action(action, port)).collect();
    texts.join(",")
}

fn format_action(action: &Action, port: PortText<'_>) -> String {
    let list = |actions: &[Action]| format_actions(actions, port);
    match action {
        Action::Output(p) => port(*p),
        Action::Trunc(len) => format!("trunc({len})"),
        Action::Set(rewrite) => format_set(rewrite),
        Action::SetMark(mark) => format!("set(skb_mark({}))", hex(*mark)),
        Action::SetPriority(priority) => format!("set(skb_priority({}))", hex(*priority)),
        Action::PushVlan(vlan) => format_push_vlan(vlan),
        Action::PopVlan => "pop_vlan".to_owned(),
        Action::PushMpls { ethertype, lse } => {
            let mut entry = super::Group::new("push_mpls", false);
            lse_fields(&mut entry, lse.get(), None);
            format!("push_mpls({},eth_type={ethertype:#x})", entry.fields)
        }
        Action::PopMpls { ethertype } => format!("pop_mpls(eth_type={ethertype:#x})"),
        Action::Recirc(id) => format!("recirc({})", hex(*id)),
        Action::Snoop(_) => "userspace(pid=0,slow_path(action))".to_owned(),
        Action::Punt(punt) => format_punt(punt),
        Action::Sample { probability, actions } => {
            let percent = f64::from(*probability) * 100.0 / f64::from(u32::MAX);
            format!("sample(sample={percent:.1}%,actions({}))", list(actions))
        }
        Action::Clone(actions) => format!("clone({})", list(actions)),
        Action::CheckLen { limit, greater, less_equal } => {
            format!("check_pkt_len(size={limit},gt({}),le({}))", list(greater), list(less_equal))
        }
        Action::Meter(meter) => format!("meter({meter})"),
    }
}

/// One `set(…)` for each header that changes.
fn format_set(rewrite: &Rewrite) -> String {
    let (key, m) = (&rewrite.value, rewrite.mask.bits());
    let mut groups = vec![eth(key, m, false)];
    match key.dl_type.get() {
        ether_type::IPV4 => groups.push(ipv4(key, m, false)),
        ether_type::IPV6 => groups.push(ipv6(key, m, false)),
        ether_type::ARP | ether_type::RARP => groups.push(arp(key, m, false)),
        ether_type::MPLS | ether_type::MPLS_MCAST => groups.push(first_label(key, m)),
        _ => {}
    }
    if matches!(key.dl_type.get(), ether_type::IPV4 | ether_type::IPV6) {
        groups.extend(ports(key, m, false));
    }
    if is_nd(key) {
        groups.extend(nd(key, m, false));
    }
    let texts: Vec<String> =
        groups.into_iter().filter_map(|g| g.text()).map(|text| format!("set({text})")).collect();
    texts.join(",")
}

fn first_label(key: &crate::FlowKey, m: &crate::FlowKey) -> super::Group {
    let (lse, mask) = (key.mpls_lse[0].get(), m.mpls_lse[0].get());
    let mut group = mpls(key, &Default::default(), false);
    if mask != 0 {
        lse_fields(&mut group, lse, (mask != u32::MAX).then_some(mask));
    }
    group
}

fn format_push_vlan(vlan: &Vlan) -> String {
    let (tpid, tci) = (vlan.tpid.get(), vlan.tci.get());
    let tpid = match tpid {
        ether_type::VLAN => String::new(),
        other => format!("tpid={other:#06x},"),
    };
    format!("push_vlan({tpid}vid={},pcp={})", tci & 0xfff, tci >> 13)
}

/// OVS numbers the state in which a packet waits for its controller; here there is none.
fn format_punt(punt: &Punt) -> String {
    format!(
        "userspace(pid=0,controller(reason={},dont_send=0,continuation=0,recirc_id=0,\
         rule_cookie={},controller_id={},max_len={}))",
        punt.reason as u8,
        match punt.cookie {
            0 => "0".to_owned(),
            cookie => format!("{cookie:#x}"),
        },
        punt.controller,
        punt.max_len
    )
}

#[cfg(test)]
mod tests;
