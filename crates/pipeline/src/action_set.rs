//! The action set (OpenFlow 1.3, 5.10; ovs-actions(7), "Action Sets"): what is kept until the end of
//! the pipeline, or run as a group's bucket.

use crate::note::NoteKind;
use crate::walk::{Stop, Walk};
use openflow::{Action, OfPort, format_actions};

/// Where an action stands among those of which only the last one of a kind counts.
fn slot(action: &Action) -> Option<usize> {
    match action {
        Action::StripVlan => Some(0),
        Action::PopMpls(_) => Some(1),
        Action::PushMpls(_) => Some(2),
        Action::PushVlan(_) => Some(3),
        Action::DecMplsTtl => Some(4),
        Action::DecTtl(_) => Some(5),
        _ => None,
    }
}
const SLOTS: usize = 6;

/// What decides where the packet goes: only the last one of the first kind that there is counts.
fn destination(action: &Action) -> Option<usize> {
    match action {
        Action::Group(_) => Some(0),
        Action::Output { max_len: None, .. } => Some(1),
        Action::Controller(c) if c.is_plain() => Some(1),
        Action::Resubmit { .. } => Some(2),
        Action::Ct(_) => Some(3),
        _ => None,
    }
}
const DESTINATIONS: usize = 4;

/// True for actions that give something a value, which are run in the order in which they were written.
fn sets(action: &Action) -> bool {
    matches!(
        action,
        Action::SetField { .. }
            | Action::Load { .. }
            | Action::Move { .. }
            | Action::SetVlanVid(_)
            | Action::SetVlanPcp(_)
            | Action::SetEthSrc(_)
            | Action::SetEthDst(_)
            | Action::SetIpv4Src(_)
            | Action::SetIpv4Dst(_)
            | Action::SetIpDscp(_)
            | Action::SetIpEcn(_)
            | Action::SetIpTtl(_)
            | Action::SetTpSrc(_)
            | Action::SetTpDst(_)
            | Action::SetMplsLabel(_)
            | Action::SetMplsTc(_)
            | Action::SetMplsTtl(_)
            | Action::SetTunnel { .. }
            | Action::SetQueue(_)
    )
}

/// An action set in the order in which it is run; nothing if the packet would go nowhere.
pub(crate) fn in_order(set: &[Action]) -> Vec<&Action> {
    let mut slots = [None; SLOTS];
    let mut destinations = [None; DESTINATIONS];
    let mut others = Vec::with_capacity(set.len());
    for action in set {
        match (slot(action), destination(action), action) {
            (Some(n), ..) => slots[n] = Some(action),
            (_, Some(n), _) => destinations[n] = Some(action),
            _ if sets(action) => others.push(action),
            // No action of a set; a group's bucket may have it nevertheless, to no effect (OVS).
            _ => {}
        }
    }
    match destinations.into_iter().flatten().next() {
        Some(last) => slots.into_iter().flatten().chain(others).chain([last]).collect(),
        None => Vec::new(),
    }
}

/// As [`in_order`], as a list of its own.
pub(crate) fn list(set: &[Action]) -> Vec<Action> {
    in_order(set).into_iter().cloned().collect()
}

impl Walk<'_> {
    /// `write_actions`.
    pub fn write_actions(&mut self, actions: &[Action]) {
        if !self.action_set.iter().any(|a| matches!(a, Action::Group(_))) {
            for action in actions {
                match action {
                    Action::Output { port, .. } => self.set_actset_output(*port),
                    Action::Controller(_) => self.set_actset_output(OfPort::CONTROLLER),
                    Action::Group(_) => {
                        self.set_actset_output(OfPort::UNSET);
                        break;
                    }
                    _ => {}
                }
            }
        }
        self.action_set.extend_from_slice(actions);
        self.note_action_set("is");
    }

    /// `clear_actions`.
    pub fn clear_actions(&mut self) {
        self.note_action_set("was");
        self.action_set.clear();
        self.set_actset_output(OfPort::UNSET);
    }

    fn note_action_set(&mut self, verb: &str) {
        if self.notes.is_some() {
            let text = match list(&self.action_set) {
                list if list.is_empty() => format!("action set {verb} empty"),
                list => format!("action set {verb}: {}", format_actions(&list, &())),
            };
            self.note(NoteKind::Detail, || text);
        }
    }

    /// Runs the action set, which is empty then.
    pub fn run_action_set(&mut self) {
        if self.action_set.is_empty() {
            return;
        }
        let set = std::mem::take(&mut self.action_set);
        self.open(NoteKind::Table, || "--. Executing action set:".to_owned());
        if self.stop == Stop::No {
            let list = list(&set);
            if !list.is_empty() {
                self.within.action_set = true;
                self.run(&list);
                self.within.action_set = false;
            }
        }
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(text: &str) -> String {
        let set = openflow::parse_actions(text, &()).expect(text);
        format_actions(&list(&set), &())
    }

    #[test]
    fn the_order_is_the_specifications() {
        for (set, run) in [
            (
                "set_field:02:00:00:00:00:09->eth_dst,set_queue:5,set_queue:6,load:7->reg0,dec_ttl,dec_ttl,\
                 push_vlan:0x88a8,push_vlan:0x8100,push_mpls:0x8847,output:2,output:3,strip_vlan",
                "pop_vlan,push_mpls:0x8847,push_vlan:0x8100,dec_ttl,set_field:02:00:00:00:00:09->eth_dst,\
                 set_queue:5,set_queue:6,load:0x7->NXM_NX_REG0[],output:3",
            ),
            ("output:4,group:1,output:3", "group:1"),
            ("resubmit(,1),output:2", "output:2"),
            (
                "clone(output:5),note:01,push:reg0,pop:reg1,set_queue:3,pop_queue,output:2",
                "set_queue:3,output:2",
            ),
            ("output:2,output(port=3,max_len=100),controller(id=4)", "output:2"),
            ("resubmit(,1),dec_ttl", "dec_ttl,resubmit(,1)"),
        ] {
            assert_eq!(ordered(set), run, "{set}");
        }
        assert!(in_order(&openflow::parse_actions("dec_ttl", &()).expect("parses")).is_empty());
    }
}
