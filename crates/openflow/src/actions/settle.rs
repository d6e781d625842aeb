//! The form in which actions are kept.
//!
//! The same change of a header can be said in several ways (`mod_dl_src`, `set_field`, `load`), and which
//! of them `ovs-ofctl dump-flows` prints depends on what OpenFlow can say: flows go to OVS and come back
//! as OpenFlow 1.0 with Nicira's extensions unless only OpenFlow 1.3 has the instructions that they need.
//! Flows are kept here in the form that is printed, so that printing needs no second thought and a
//! dump, read again, gives the very same actions.

use crate::action::{Action, Actions};
use crate::field::{Field, View};
use crate::matching::Match;
use crate::prereq;
use crate::registry::fld;
use crate::subfield::Subfield;
use flow::{FRAG_LATER, Mac, ether_type, ip_proto};

/// The most bits that OpenFlow 1.0's `load` can carry (Nicira's NXAST_REG_LOAD).
const LOAD_BITS: u8 = 64;

/// True for lists that OpenFlow 1.0 cannot say: with push_vlan, meter, or an instruction.
pub(super) fn needs_openflow13(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::PushVlan(_)
        | Action::GotoTable(_)
        | Action::WriteActions(_)
        | Action::ClearActions
        | Action::Meter(_) => true,
        Action::Clone(list) => needs_openflow13(list),
        _ => false,
    })
}

/// A flow's actions in the form in which they are kept and printed.
pub fn settle_actions(actions: Actions, matches: &Match) -> Actions {
    settle(actions, Known::of(matches))
}

/// What is known for certain of the packets that come to an action.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// VLAN tags that there are at least.
    tags: u8,
    /// EtherType, or 0.
    dl_type: u16,
    /// IP protocol, or 0.
    nw_proto: u8,
    /// They may lack the transport header.
    later: bool,
}

impl Known {
    fn of(matches: &Match) -> Known {
        let value = &matches.value;
        Known {
            tags: (fld::VLAN_TCI.get(value) & 0x1000 != 0).into(),
            dl_type: prereq::ether_type_of(value),
            nw_proto: value.pkt.nw_proto,
            later: value.pkt.nw_frag & FRAG_LATER != 0,
        }
    }

    fn is_ip(self) -> bool {
        matches!(self.dl_type, ether_type::IPV4 | ether_type::IPV6)
    }

    fn is_mpls(self) -> bool {
        matches!(self.dl_type, ether_type::MPLS | ether_type::MPLS_MCAST)
    }

    /// What an action makes of the packets.
    fn after(mut self, action: &Action) -> Known {
        match action {
            Action::PushVlan(_) => self.tags = self.tags.saturating_add(1),
            Action::StripVlan => self.tags = self.tags.saturating_sub(1),
            Action::SetVlanVid(_) | Action::SetVlanPcp(_) => self.tags = self.tags.max(1),
            Action::SetField { field, value, .. } if *field == fld::VLAN_TCI => {
                self.tags = (value & 0x1000 != 0).into();
            }
            Action::Load { dst, value } if dst.field == fld::VLAN_TCI => {
                self.tags = (value << dst.first & 0x1000 != 0).into();
            }
            Action::PushMpls(dl_type) => (self.dl_type, self.nw_proto) = (*dl_type, 0),
            Action::PopMpls(dl_type) => self.dl_type = *dl_type,
            _ => {}
        }
        self
    }
}

/// Actions in the form in which they are kept, for packets of which this is known.
fn settle(actions: Actions, known: Known) -> Actions {
    let openflow13 = needs_openflow13(&actions);
    let settled = Settler { openflow13, known }.list(actions);
    // What needed OpenFlow 1.3 may have come to nothing.
    match openflow13 && !needs_openflow13(&settled) {
        true => Settler { openflow13: false, known }.list(settled),
        false => settled,
    }
}

struct Settler {
    openflow13: bool,
    known: Known,
}

impl Settler {
    fn list(&mut self, actions: Actions) -> Actions {
        let mut out = Actions::with_capacity(actions.len());
        for action in actions {
            self.one(action, &mut out);
        }
        out.shrink_to_fit();
        out
    }

    /// A list in another action, whose effects end with it.
    fn nested(&self, actions: Actions) -> Actions {
        Settler { ..*self }.list(actions)
    }

    fn one(&mut self, action: Action, out: &mut Actions) {
        let before = self.known;
        self.known = before.after(&action);
        match action {
            Action::Clone(list) => out.push(Action::Clone(self.nested(list))),
            Action::WriteActions(list) => {
                let list = self.nested(list);
                // Nothing is left of an empty one.
                if !list.is_empty() {
                    out.push(Action::WriteActions(list));
                }
            }
            Action::Ct(mut ct) => {
                ct.exec = self.nested(std::mem::take(&mut ct.exec));
                out.push(Action::Ct(ct));
            }
            Action::Load { dst, value } => load(dst, value, out),
            Action::SetField { field, value, mask } if mask != field.ones() => {
                load_masked(field, value, mask, out);
            }
            Action::SetField { field, value, .. } if !self.openflow13 => set_10(field, value, out),
            Action::Enqueue { port, queue } if self.openflow13 => out.extend([
                Action::SetQueue(queue),
                Action::Output { port, max_len: None },
                Action::PopQueue,
            ]),
            other => out.push(match self.openflow13 {
                true => to_13(other, before),
                false => to_10(other),
            }),
        }
    }
}

/// Tunnel options have no fixed width on the wire, so OVS says `set_field` for all of them.
fn is_option(field: &Field) -> bool {
    field.name.starts_with("tun_metadata")
}

/// `load` in parts that fit.
fn load(dst: Subfield, value: u128, out: &mut Actions) {
    if is_option(dst.field) {
        let (value, mask) = (value << dst.first, dst.mask());
        return out.push(Action::SetField { field: dst.field, value, mask });
    }
    let mut done = 0;
    while done < dst.bits {
        let bits = (dst.bits - done).min(LOAD_BITS);
        let part = Subfield { field: dst.field, first: dst.first + done, bits };
        let value = value >> done & u128::MAX >> (128 - u32::from(bits));
        out.push(Action::Load { dst: part, value });
        done += bits;
    }
}

/// A masked `set_field` as a `load` of each run of bits.
fn load_masked(field: &'static Field, value: u128, mask: u128, out: &mut Actions) {
    if is_option(field) {
        return out.push(Action::SetField { field, value, mask });
    }
    let mut mask = mask & u128::MAX >> (128 - u32::from(field.bits));
    while mask != 0 {
        // Both are at most 128, and below it unless the other is 0.
        let first = mask.trailing_zeros() as u8;
        let bits = (mask >> first).trailing_ones() as u8;
        let run = Subfield { field, first, bits };
        load(run, (value & run.mask()) >> first, out);
        mask &= !run.mask();
    }
}

/// `set_field` of a whole field over OpenFlow 1.0.
fn set_10(field: &'static Field, value: u128, out: &mut Actions) {
    // Truncation is right: the value is in the field's bits.
    let (byte, half, word) = (value as u8, value as u16, value as u32);
    let mac = || Mac(std::array::from_fn(|i| (value >> (40 - 8 * i)) as u8));
    let action = match field {
        f if f == fld::ETH_SRC => Action::SetEthSrc(mac()),
        f if f == fld::ETH_DST => Action::SetEthDst(mac()),
        f if f == fld::IP_SRC => Action::SetIpv4Src(word),
        f if f == fld::IP_DST => Action::SetIpv4Dst(word),
        f if f == fld::NW_TOS => Action::SetIpDscp(byte),
        f if f == fld::IP_DSCP => Action::SetIpDscp(byte << 2),
        f if f == fld::TCP_SRC || f == fld::UDP_SRC => Action::SetTpSrc(half),
        f if f == fld::TCP_DST || f == fld::UDP_DST => Action::SetTpDst(half),
        f if f == fld::VLAN_VID => Action::SetVlanVid(half & 0xfff),
        f if f == fld::VLAN_PCP => Action::SetVlanPcp(byte),
        f if f == fld::VLAN_TCI && half & 0x1000 == 0 => Action::StripVlan,
        f if f == fld::VLAN_TCI => {
            out.push(Action::SetVlanVid(half & 0xfff));
            Action::SetVlanPcp((half >> 13) as u8)
        }
        f if f.view == View::Port32 => {
            return load(Subfield::whole(f), port_32(value), out);
        }
        _ => return load(Subfield::whole(field), value, out),
    };
    out.push(action);
}

/// What OpenFlow 1.0 has no action for.
fn to_10(action: Action) -> Action {
    let load = |field, value: u8| Action::Load { dst: Subfield::whole(field), value: value.into() };
    match action {
        Action::SetIpEcn(ecn) => load(fld::NW_ECN, ecn),
        Action::SetIpTtl(ttl) => load(fld::NW_TTL, ttl),
        other => other,
    }
}

/// What OpenFlow 1.3 says with `set_field`, where the packets are known to have the field: `set_field`
/// is not for others.
fn to_13(action: Action, known: Known) -> Action {
    let ipv4 = known.dl_type == ether_type::IPV4;
    let target = match &action {
        Action::SetEthSrc(mac) => Some((fld::ETH_SRC, mac_value(*mac))),
        Action::SetEthDst(mac) => Some((fld::ETH_DST, mac_value(*mac))),
        Action::SetIpv4Src(ip) if ipv4 => Some((fld::IP_SRC, (*ip).into())),
        Action::SetIpv4Dst(ip) if ipv4 => Some((fld::IP_DST, (*ip).into())),
        Action::SetIpDscp(tos) if known.is_ip() => Some((fld::IP_DSCP, (tos >> 2).into())),
        Action::SetIpEcn(ecn) if known.is_ip() => Some((fld::NW_ECN, (*ecn).into())),
        Action::SetMplsLabel(n) if known.is_mpls() => Some((fld::MPLS_LABEL, (*n).into())),
        Action::SetMplsTc(tc) if known.is_mpls() => Some((fld::MPLS_TC, (*tc).into())),
        Action::SetTunnel { id, .. } => Some((fld::TUN_ID, (*id).into())),
        // Without a tag they would add one.
        Action::SetVlanVid(vid) if known.tags > 0 => {
            Some((fld::VLAN_VID, u128::from(*vid) | 0x1000))
        }
        Action::SetVlanPcp(pcp) if known.tags > 0 => Some((fld::VLAN_PCP, (*pcp).into())),
        Action::SetTpSrc(port) => transport(known).map(|(src, _)| (src, (*port).into())),
        Action::SetTpDst(port) => transport(known).map(|(_, dst)| (dst, (*port).into())),
        _ => None,
    };
    match target {
        Some((field, value)) => Action::SetField { field, value, mask: field.ones() },
        None => action,
    }
}

/// The fields of the ports of a protocol.
fn transport(known: Known) -> Option<(&'static Field, &'static Field)> {
    match known.nw_proto {
        _ if !known.is_ip() || known.later => None,
        ip_proto::TCP => Some((fld::TCP_SRC, fld::TCP_DST)),
        ip_proto::UDP => Some((fld::UDP_SRC, fld::UDP_DST)),
        ip_proto::SCTP => Some((fld::SCTP_SRC, fld::SCTP_DST)),
        _ => None,
    }
}

/// A port as OpenFlow 1.1 and later number it: reserved ones have ones above (OFPP_MAX, 0xffffff00).
fn port_32(port: u128) -> u128 {
    match port {
        0xff00..=0xffff => port | 0xffff_0000,
        _ => port,
    }
}

fn mac_value(mac: Mac) -> u128 {
    mac.0.iter().fold(0, |n, byte| n << 8 | u128::from(*byte))
}
