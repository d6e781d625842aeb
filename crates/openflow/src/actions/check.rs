//! Whether actions suit a flow: prerequisites of what they read and write, ranges, and what may lie in
//! an action set. OVS's errors are kept by name; its rules are seen in what it refuses.

use super::conntrack;
use super::rules::{Place, Rules};
use crate::action::{Action, Bundle, Ct, CtAlg, Learn, LearnSource, LearnSpec, Nat};
use crate::field::Field;
use crate::group::GROUP_MAX;
use crate::matching::Match;
use crate::meter::METER_MAX;
use crate::port::OfPort;
use crate::prereq;
use crate::registry::fld;
use crate::subfield::Subfield;
use flow::{ether_type, ip_proto};

/// OpenFlow's name of an error.
type Code = &'static str;

const INCONSISTENT: Code = "OFPBAC_MATCH_INCONSISTENT";
const BAD_ARGUMENT: Code = "OFPBAC_BAD_ARGUMENT";
const BAD_SET_ARGUMENT: Code = "OFPBAC_BAD_SET_ARGUMENT";
const BAD_SET_LEN: Code = "OFPBAC_BAD_SET_LEN";
const BAD_OUT_PORT: Code = "OFPBAC_BAD_OUT_PORT";
const BAD_OUT_GROUP: Code = "OFPBAC_BAD_OUT_GROUP";
const BAD_TABLE: Code = "OFPBIC_BAD_TABLE_ID";
const BAD_METER: Code = "OFPMMFC_INVALID_METER";
const BAD_TYPE: Code = "OFPBAC_BAD_TYPE";
const BAD_TAG: Code = "OFPBAC_BAD_TAG";

/// Checks that actions may stand in a flow of a table with a match: that each has what it reads and
/// writes (ovs-actions(7), "prerequisites"; earlier actions may add it or take it away), that numbers are
/// in range, that instructions are in order, and that tables are only gone to forwards.
///
/// # Errors
/// The reason, as `ovs-ofctl` gives it.
pub fn check_actions(actions: &[Action], matches: &Match, table: u8) -> Result<(), String> {
    let mut rules = Rules::new(Place::Flow);
    actions.iter().try_for_each(|action| rules.admit(action))?;
    check_in_flow(actions, matches, Some(table)).map_err(|(_, reason)| reason)
}

/// As [`check_actions`], for actions whose order is known to be right; errors come with the action's
/// place in the list. Without a table there is nowhere to go to.
pub(crate) fn check_in_flow(
    actions: &[Action],
    matches: &Match,
    table: Option<u8>,
) -> Result<(), (usize, String)> {
    let mut checker = Checker { matches, changed: None, table, formats: BOTH };
    for (i, action) in actions.iter().enumerate() {
        let checked = checker.check(action).and_then(|()| checker.usable());
        checked
            .map_err(|code| (i, format!("actions are invalid with specified match ({code})")))?;
    }
    Ok(())
}

/// Why a list cannot be used by a switch that does not track connections, if it cannot.
pub fn first_unsupported(actions: &[Action]) -> Option<&'static str> {
    actions.iter().find_map(|action| match action {
        Action::Ct(_) => Some("ct: connection tracking is not available yet"),
        Action::CtClear => Some("ct_clear: connection tracking is not available yet"),
        Action::Clone(list) | Action::WriteActions(list) => first_unsupported(list),
        _ => None,
    })
}

/// Which versions of OpenFlow can say a list. OpenFlow 1.0 knows no push_vlan and no meters, later
/// versions do not let actions lack their prerequisites.
#[derive(Clone, Copy)]
struct Formats {
    openflow10: bool,
    openflow13: bool,
}

const BOTH: Formats = Formats { openflow10: true, openflow13: true };

struct Checker<'a> {
    matches: &'a Match,
    /// The match as earlier actions changed what it is about.
    changed: Option<Box<Match>>,
    table: Option<u8>,
    formats: Formats,
}

impl Checker<'_> {
    fn now(&self) -> &Match {
        self.changed.as_deref().unwrap_or(self.matches)
    }

    fn change(&mut self) -> &mut Match {
        self.changed.get_or_insert_with(|| Box::new(*self.matches))
    }

    fn dl_type(&self) -> u16 {
        prereq::ether_type_of(&self.now().value)
    }

    fn is_mpls(&self) -> bool {
        matches!(self.dl_type(), ether_type::MPLS | ether_type::MPLS_MCAST)
    }

    fn is_tagged(&self) -> bool {
        is_tagged(self.now())
    }

    /// OpenFlow 1.0 forgives what is missing.
    fn want(&mut self, holds: bool) -> Result<(), Code> {
        self.formats.openflow13 &= holds;
        Ok(())
    }

    fn only_openflow13(&mut self) -> Result<(), Code> {
        self.formats.openflow10 = false;
        Ok(())
    }

    fn usable(&self) -> Result<(), Code> {
        demand(self.formats.openflow10 || self.formats.openflow13, INCONSISTENT)
    }

    fn check(&mut self, action: &Action) -> Result<(), Code> {
        match action {
            Action::Output { port, .. } => demand(is_output(*port), BAD_OUT_PORT),
            Action::Enqueue { port, .. } => {
                let own = [OfPort::IN_PORT, OfPort::LOCAL].contains(port);
                demand(own || port.0 <= OfPort::MAX.0, BAD_OUT_PORT)
            }
            Action::OutputField { src, .. } => self.check_source(*src),
            Action::Bundle(it) => self.check_bundle(it),
            Action::Multipath(it) => self.check_target(it.dst),
            Action::SetField { field, value, mask } => self.check_set(field, *value, *mask),
            Action::Load { dst, value } => {
                // What a part of a field is set to says nothing of its other bits.
                self.check_set(dst.field, value << dst.first, value << dst.first)
            }
            Action::Move { src, dst } => {
                self.check_source(*src)?;
                self.check_target(*dst)
            }
            Action::Push(src) => self.check_source(*src),
            Action::Pop(dst) | Action::CheckPktLarger { dst, .. } => self.check_target(*dst),
            Action::DeleteField(field) => {
                demand(field.name.starts_with("tun_metadata"), BAD_ARGUMENT)
            }
            Action::Group(id) => demand(*id <= GROUP_MAX, BAD_OUT_GROUP),
            Action::Resubmit { ct: true, .. } => {
                demand(prereq::matches_known_connection(self.now()), INCONSISTENT)
            }
            Action::Learn(it) => self.check_learn(it),
            Action::Ct(it) => self.check_ct(it),
            Action::Clone(list) => self.check_nested(list),
            Action::WriteActions(list) => {
                demand(list.iter().all(in_action_set), BAD_TYPE)?;
                // It is not run in this order, so what is missing here may be there then.
                self.fork().check_list(list)
            }
            Action::Meter(id) => {
                demand((1..=METER_MAX).contains(id), BAD_METER)?;
                self.only_openflow13()
            }
            Action::GotoTable(to) => demand(self.table.is_none_or(|from| *to > from), BAD_TABLE),
            other => self.check_headers(other),
        }
    }

    /// Actions on headers, some of which change what the packet is.
    fn check_headers(&mut self, action: &Action) -> Result<(), Code> {
        match action {
            Action::SetVlanVid(_) | Action::SetVlanPcp(_) => {
                self.tag();
                Ok(())
            }
            Action::StripVlan => {
                let tagged = self.is_tagged();
                self.strip();
                self.want(tagged)
            }
            Action::PushVlan(tpid) => {
                demand(matches!(tpid, 0x8100 | 0x88a8), BAD_ARGUMENT)?;
                demand(!self.is_doubly_tagged(), BAD_TAG)?;
                self.push_tag();
                self.only_openflow13()
            }
            Action::SetIpv4Src(_) | Action::SetIpv4Dst(_) => {
                let ipv4 = self.dl_type() == ether_type::IPV4;
                self.want(ipv4)
            }
            Action::SetIpDscp(_) | Action::DecTtl(_) => {
                let ip = prereq::is_ip(&self.now().value);
                self.want(ip)
            }
            // OpenFlow 1.0 says these with `load`, which forgives nothing.
            Action::SetIpEcn(_) | Action::SetIpTtl(_) => {
                demand(prereq::is_ip(&self.now().value), INCONSISTENT)
            }
            Action::SetTpSrc(_) | Action::SetTpDst(_) => {
                let transports = [fld::TCP_SRC, fld::UDP_SRC, fld::SCTP_SRC];
                let met = transports.iter().any(|f| f.prereqs_met(self.now()));
                self.want(met)
            }
            Action::SetMplsLabel(_)
            | Action::SetMplsTc(_)
            | Action::SetMplsTtl(_)
            | Action::DecMplsTtl => {
                let mpls = self.is_mpls();
                self.want(mpls)
            }
            Action::PushMpls(dl_type) => {
                let mpls = [ether_type::MPLS, ether_type::MPLS_MCAST].contains(dl_type);
                demand(mpls, BAD_ARGUMENT)?;
                self.become_type(*dl_type);
                Ok(())
            }
            Action::PopMpls(dl_type) => {
                let mpls = self.is_mpls();
                self.become_type(*dl_type);
                self.want(mpls)
            }
            Action::FinTimeout { .. } => {
                let tcp = self.now().value.pkt.nw_proto == ip_proto::TCP;
                self.want(tcp)
            }
            _ => Ok(()),
        }
    }

    fn check_source(&self, src: Subfield) -> Result<(), Code> {
        demand(src.field.prereqs_met(self.now()), INCONSISTENT)
    }

    fn check_target(&self, dst: Subfield) -> Result<(), Code> {
        check_target(dst, self.now())
    }

    fn check_set(&mut self, field: &'static Field, value: u128, mask: u128) -> Result<(), Code> {
        check_target(Subfield::whole(field), self.now())?;
        if field == fld::VLAN_TCI {
            // Truncation is right: it has 16 bits.
            self.change().value.pkt.vlan[0].tci = (value as u16).into();
        }
        // It can be matched without a tag, but not set.
        demand(field != fld::VLAN_VID || self.is_tagged(), INCONSISTENT)?;
        if field == fld::VLAN_VID && mask & TAG_PRESENT != 0 && value & TAG_PRESENT == 0 {
            // OpenFlow 1.3 has a bit for the tag's presence, which must be set.
            demand(self.formats.openflow10, BAD_SET_ARGUMENT)?;
            return self.want(false);
        }
        Ok(())
    }

    fn check_bundle(&self, it: &Bundle) -> Result<(), Code> {
        let member =
            |p: &OfPort| p.0 <= OfPort::MAX.0 || p.0 >= OfPort::UNSET.0 && *p != OfPort::CONTROLLER;
        demand(it.members.iter().all(member), BAD_OUT_PORT)?;
        let Some(dst) = it.dst else { return Ok(()) };
        demand(dst.bits >= 16, BAD_ARGUMENT)?;
        self.check_target(dst)
    }

    fn check_learn(&self, it: &Learn) -> Result<(), Code> {
        // What the learned flow matches, as far as it is known now.
        let mut learned = Box::new(Match::any());
        for spec in &it.specs {
            match spec {
                LearnSpec::Match { src: LearnSource::Field(src), .. }
                | LearnSpec::Load { src: LearnSource::Field(src), .. }
                | LearnSpec::Output(src) => self.check_source(*src)?,
                _ => {}
            }
            match spec {
                LearnSpec::Match { dst, src } => {
                    demand(dst.field.prereqs_met(&learned), INCONSISTENT)?;
                    demand(dst.field.nxm.or(dst.field.oxm).is_some(), BAD_SET_LEN)?;
                    if let LearnSource::Constant(value) = src {
                        dst.add_to(&mut learned.mask);
                        dst.set(&mut learned.value, *value);
                    }
                }
                LearnSpec::Load { dst, .. } => check_target(*dst, &learned)?,
                LearnSpec::Output(_) => {}
            }
        }
        it.result_dst.map_or(Ok(()), |dst| self.check_target(dst))
    }

    fn check_ct(&self, it: &Ct) -> Result<(), Code> {
        let (dl_type, proto) = (self.dl_type(), self.now().value.pkt.nw_proto);
        let ipv4 = dl_type == ether_type::IPV4;
        demand(ipv4 || dl_type == ether_type::IPV6, INCONSISTENT)?;
        if let crate::action::CtZone::Field(src) = it.zone {
            self.check_source(src)?;
        }
        let helped = match it.alg {
            None => true,
            Some(CtAlg::Ftp) => proto == ip_proto::TCP,
            Some(CtAlg::Tftp) => proto == ip_proto::UDP,
        };
        demand(helped, INCONSISTENT)?;
        if let Some(Nat { addresses: Some((first, _)), .. }) = it.nat {
            demand(first.is_ipv4() == ipv4, INCONSISTENT)?;
        }
        demand(it.commit || !conntrack::needs_commit(it), BAD_ARGUMENT)?;
        self.fork().check_list(&it.exec)
    }

    /// For a list whose effects end with it.
    fn fork(&self) -> Checker<'_> {
        Checker { matches: self.now(), changed: None, table: None, formats: self.formats }
    }

    fn check_nested(&mut self, list: &[Action]) -> Result<(), Code> {
        let mut fork = self.fork();
        fork.check_list(list)?;
        self.formats = fork.formats;
        Ok(())
    }

    fn check_list(&mut self, list: &[Action]) -> Result<(), Code> {
        list.iter().try_for_each(|action| self.check(action))
    }

    /// There is a tag now, if there was none.
    fn tag(&mut self) {
        if !self.is_tagged() {
            self.push_tag();
        }
    }

    fn is_doubly_tagged(&self) -> bool {
        self.now().value.pkt.vlan[1].tci.get() & 0x1000 != 0
    }

    fn push_tag(&mut self) {
        let vlan = &mut self.change().value.pkt.vlan;
        vlan[1] = vlan[0];
        vlan[0].tci = 0x1000.into();
    }

    fn strip(&mut self) {
        if self.is_tagged() {
            let vlan = &mut self.change().value.pkt.vlan;
            vlan[0] = vlan[1];
            vlan[1] = flow::Vlan::default();
        }
    }

    /// The packet's EtherType changed, and with it all that is known of its protocol.
    fn become_type(&mut self, dl_type: u16) {
        let from = self.dl_type();
        let pkt = &mut self.change().value.pkt;
        pkt.dl_type = dl_type.into();
        if [ether_type::MPLS, ether_type::MPLS_MCAST].contains(&dl_type) && from != dl_type {
            pkt.nw_proto = 0;
        }
    }
}

fn demand(holds: bool, code: Code) -> Result<(), Code> {
    if holds { Ok(()) } else { Err(code) }
}

fn check_target(dst: Subfield, matches: &Match) -> Result<(), Code> {
    demand(dst.field.prereqs_met(matches), INCONSISTENT)?;
    // What has no number in NXM or OXM cannot be said in OpenFlow.
    demand(dst.field.nxm.or(dst.field.oxm).is_some(), BAD_SET_LEN)?;
    demand(dst.field.writable, BAD_SET_ARGUMENT)
}

/// True if a match is only for packets with a VLAN tag.
fn is_tagged(matches: &Match) -> bool {
    fld::VLAN_TCI.get(&matches.value) & TAG_PRESENT != 0
}

/// The bit of a VLAN tag that says that there is one.
const TAG_PRESENT: u128 = 0x1000;

/// True for ports that packets can be sent to: not ANY, UNSET, or numbers that no port has.
fn is_output(port: OfPort) -> bool {
    port.0 <= OfPort::MAX.0 || (OfPort::IN_PORT.0..=OfPort::LOCAL.0).contains(&port.0)
}

/// True for actions that an action set may have (OVS's list; OpenFlow 1.3, 5.10, has fewer).
fn in_action_set(action: &Action) -> bool {
    if let Action::Controller(it) = action {
        return it.is_plain();
    }
    !matches!(
        action,
        Action::Learn(_)
            | Action::Clone(_)
            | Action::Note(_)
            | Action::Enqueue { .. }
            | Action::Exit
            | Action::Conjunction { .. }
            | Action::FinTimeout { .. }
            | Action::Push(_)
            | Action::Pop(_)
            | Action::PopQueue
            | Action::Multipath(_)
            | Action::Bundle(_)
            | Action::Sample(_)
            | Action::CheckPktLarger { .. }
            | Action::OutputField { .. }
            | Action::Output { max_len: Some(_), .. }
            | Action::DeleteField(_)
    )
}
