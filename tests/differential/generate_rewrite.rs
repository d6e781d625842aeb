//! Generated actions that change packets, metadata and registers.

use crate::fields::{FIELDS, Field, Kind, Matching, Needs};
use crate::generate_actions::Plan;
use crate::generate_match::Known;
use crate::rng::Rng;
use crate::vocabulary::*;

/// A field that may be written, most often one of the protocol's own.
fn writable(rng: &mut Rng, known: &Known) -> &'static Field {
    let candidates: Vec<&Field> =
        FIELDS.iter().filter(|f| f.writable && known.allows(f.needs)).collect();
    let own: Vec<&Field> =
        candidates.iter().copied().filter(|f| f.needs != Needs::Nothing).collect();
    let packets: Vec<&Field> =
        candidates.iter().copied().filter(|f| f.kind != Kind::Number).collect();
    match rng.below(10) {
        0..5 if !own.is_empty() => rng.pick(&own),
        0..7 => rng.pick(&packets),
        _ => rng.pick(&candidates),
    }
}

pub fn set_field(
    rng: &mut Rng,
    plan: &mut Plan,
    _: usize,
    known: &mut Known,
    _: u8,
) -> Option<String> {
    let field = writable(rng, known);
    let value = field.value(rng);
    if field.name == "vlan_tci" {
        // In OpenFlow 1.0 that is `strip_vlan`, in 1.5 it is not (see `known.rs`).
        if plan.modern && value == 0 {
            return None;
        }
        known.vlan = value & 0x1000 != 0;
    }
    note_change(field, known);
    let maskable = field.matching == Matching::Bits && field.name != "vlan_tci";
    match plan.modern && maskable && rng.chance(30) {
        true => {
            let mask = field.mask(rng);
            Some(format!("set_field:{}->{}", field.masked_text(value & mask, mask), field.name))
        }
        false => Some(format!("set_field:{}->{}", field.text(value), field.name)),
    }
}

/// A field by which others are recognised no longer says what it said.
fn note_change(field: &Field, known: &mut Known) {
    if field.name.starts_with("icmpv6") {
        known.l4 = Some(L4::Icmp);
    }
}

/// True for what takes most packets out of the comparison (see `known.rs`): parts of `vlan_tci`, with or
/// without its presence bit.
fn is_odd(plan: &Plan, field: &Field) -> bool {
    field.name == "vlan_tci" && !plan.odd_tags
}

/// A run of bits of a field, of a width if one is given.
pub fn part(rng: &mut Rng, field: &Field, width: Option<usize>) -> Option<(String, usize)> {
    let bits = usize::from(field.bits);
    let width = match width {
        Some(w) if w > bits => return None,
        Some(w) => w,
        None if rng.chance(50) => bits.min(64),
        None => rng.range(1, bits.min(64)),
    };
    let first = rng.below(bits - width + 1);
    let last = first + width - 1;
    Some(match (first, last) {
        (0, l) if l == bits - 1 && rng.chance(50) => (format!("{}[]", field.nxm), width),
        (f, l) if f == l => (format!("{}[{f}]", field.nxm), width),
        (f, l) => (format!("{}[{f}..{l}]", field.nxm), width),
    })
}

pub fn load(rng: &mut Rng, plan: &mut Plan, _: usize, known: &mut Known, _: u8) -> Option<String> {
    let field = writable(rng, known);
    // OpenFlow 1.5 makes a `set_field` of it, for which some values are wrong, be it that flows are dumped.
    if ["vlan_vid", "arp_op"].contains(&field.name) || is_odd(plan, field) {
        return None;
    }
    if field.name == "vlan_tci" {
        known.vlan = false;
    }
    note_change(field, known);
    let (text, width) = part(rng, field, None)?;
    let value = field.value(rng) & (u128::MAX >> (128 - width));
    Some(format!("load:{value:#x}->{text}"))
}

/// Moves something, more often than not to where it shows in the packet.
pub fn move_field(
    rng: &mut Rng,
    plan: &mut Plan,
    _: usize,
    known: &mut Known,
    _: u8,
) -> Option<String> {
    let readable: Vec<&Field> =
        FIELDS.iter().filter(|f| !f.nxm.is_empty() && known.allows(f.needs)).collect();
    let from = rng.pick(&readable);
    let to = if rng.chance(40) {
        crate::fields::field(rng.pick(&["dl_src", "dl_dst", "reg0", "reg1"]))
    } else {
        writable(rng, known)
    };
    if from.name == to.name || is_odd(plan, to) {
        return None;
    }
    if to.name == "vlan_tci" {
        known.vlan = false;
    }
    note_change(to, known);
    let most = usize::from(from.bits.min(to.bits));
    let width = if rng.chance(60) { most } else { rng.range(1, most) };
    let (from, _) = part(rng, from, Some(width))?;
    let (to, _) = part(rng, to, Some(width))?;
    Some(format!("move:{from}->{to}"))
}

pub fn legacy_set(
    rng: &mut Rng,
    plan: &mut Plan,
    _: usize,
    known: &mut Known,
    _: u8,
) -> Option<String> {
    let ip = known.allows(Needs::Ipv4);
    let text = match rng.below(11) {
        // OpenFlow 1.5 has no "set or push".
        0 | 1 if known.vlan || !plan.modern => {
            known.vlan = true;
            match rng.chance(50) {
                true => format!("mod_vlan_vid:{}", rng.pick(&VIDS)),
                false => format!("mod_vlan_pcp:{}", rng.below(8)),
            }
        }
        2 => format!("mod_dl_src:02:00:00:00:00:{:02x}", rng.below(256)),
        3 => format!("mod_dl_dst:02:00:00:00:00:{:02x}", rng.below(256)),
        4 if ip => format!("mod_nw_src:10.0.0.{}", rng.below(4)),
        5 if ip => format!("mod_nw_dst:10.0.0.{}", rng.below(4)),
        6 if ip => format!("mod_nw_tos:{}", 4 * rng.below(64)),
        7 if ip => format!("mod_nw_ecn:{}", rng.below(4)),
        8 if ip => format!("mod_nw_ttl:{}", rng.pick(&TTLS)),
        9 if known.allows(Needs::Tcp) => {
            format!("mod_tp_src:{}", rng.pick(&TP_PORTS))
        }
        10 if known.allows(Needs::Udp) => {
            format!("mod_tp_dst:{}", rng.pick(&TP_PORTS))
        }
        _ => return None,
    };
    Some(text)
}

pub fn push_vlan(
    rng: &mut Rng,
    plan: &mut Plan,
    _: usize,
    known: &mut Known,
    _: u8,
) -> Option<String> {
    if !plan.modern {
        return None;
    }
    known.vlan = true;
    let push = format!("push_vlan:{}", rng.pick(&["0x8100", "0x8100", "0x88a8"]));
    Some(match rng.chance(60) {
        true => format!("{push},set_field:{:#x}->vlan_vid", 0x1000 | rng.pick(&VIDS)),
        false => push,
    })
}

pub fn strip_vlan(
    rng: &mut Rng,
    plan: &mut Plan,
    _: usize,
    known: &mut Known,
    _: u8,
) -> Option<String> {
    if plan.modern && !known.vlan {
        return None;
    }
    let word = if known.vlan && rng.chance(50) { "pop_vlan" } else { "strip_vlan" };
    known.vlan = false;
    Some(word.to_owned())
}

pub fn push_mpls(
    rng: &mut Rng,
    _: &mut Plan,
    _: usize,
    known: &mut Known,
    _: u8,
) -> Option<String> {
    known.l3 = Some(L3::Mpls(1));
    known.l4 = None;
    let push = format!("push_mpls:{}", rng.pick(&["0x8847", "0x8847", "0x8848"]));
    Some(match rng.chance(60) {
        true => format!("{push},set_field:{}->mpls_label", rng.pick(&LABELS)),
        false => push,
    })
}

pub fn pop_mpls(rng: &mut Rng, _: &mut Plan, _: usize, known: &mut Known, _: u8) -> Option<String> {
    if !known.allows(Needs::Mpls) {
        return None;
    }
    let (text, l3) = rng.pick(&[
        ("0x0800", Some(L3::Ipv4)),
        ("0x0800", Some(L3::Ipv4)),
        ("0x8847", Some(L3::Mpls(1))),
        ("0x86dd", Some(L3::Ipv6)),
        ("0x1234", None),
    ]);
    known.l3 = l3;
    known.l4 = None;
    Some(format!("pop_mpls:{text}"))
}

pub fn set_mpls(rng: &mut Rng, _: &mut Plan, _: usize, known: &mut Known, _: u8) -> Option<String> {
    known.allows(Needs::Mpls).then(|| match rng.below(4) {
        0 => format!("set_mpls_label({})", rng.pick(&LABELS)),
        1 => format!("set_mpls_tc({})", rng.below(8)),
        2 => format!("set_mpls_ttl({})", rng.pick(&TTLS)),
        _ => "dec_mpls_ttl".to_owned(),
    })
}

pub fn dec_ttl(rng: &mut Rng, _: &mut Plan, _: usize, known: &mut Known, _: u8) -> Option<String> {
    let text = rng.pick(&["dec_ttl", "dec_ttl", "dec_ttl(1,2)"]);
    known.allows(Needs::Ip).then(|| text.to_owned())
}
