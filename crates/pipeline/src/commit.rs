//! From what the actions so far made of the packet to datapath actions.
//!
//! The order is OVS's: Ethernet addresses, popped MPLS labels if the packet is no longer MPLS, network
//! and transport fields, MPLS labels otherwise, VLAN tags, queue, mark.

use crate::headers::{Headers, is_ip, is_mpls, is_tag, words_mut};
use crate::tagging::BOTTOM;
use crate::tags::Tags;
use flow::{Action, FlowKey, FlowMask, Mac, Rewrite, Vlan, WORDS, ether_type};
use std::mem::offset_of;
use std::sync::LazyLock;
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32};

/// Fields that the datapath can give new values, by layer.
struct Layers {
    ethernet: FlowKey,
    ip: FlowKey,
    arp: FlowKey,
    nothing: FlowKey,
}

static LAYERS: LazyLock<Layers> = LazyLock::new(|| {
    let nothing = FlowKey::default();
    let all = *FlowMask::exact().bits();
    let FlowKey { nw_src, nw_dst, nw_tos, nw_ttl, ipv6_src, ipv6_dst, .. } = all;
    let FlowKey { tp_src, tp_dst, arp_sha, arp_tha, nd_target, nw_proto, .. } = all;
    let FlowKey { igmp_group, tcp_flags, .. } = all;
    let ipv6_label = U32::new(0xf_ffff);
    let ethernet = FlowKey { dl_dst: Mac::BROADCAST, dl_src: Mac::BROADCAST, ..nothing };
    let arp = FlowKey { nw_src, nw_dst, nw_proto, arp_sha, arp_tha, ..nothing };
    let ip = FlowKey { nw_src, nw_dst, nw_tos, nw_ttl, ipv6_src, ipv6_dst, ipv6_label, ..nothing };
    let ip = FlowKey { tp_src, tp_dst, arp_sha, arp_tha, nd_target, igmp_group, tcp_flags, ..ip };
    Layers { ethernet, ip, arp, nothing }
});

/// Emits what leads from `base` to `now`.
pub(crate) fn commit(h: &mut Headers, out: &mut Vec<Action>) {
    let (was, is) = (h.base.key.dl_type.get(), h.dl_type());
    let upper = match is {
        // Not read since the label before it was popped.
        _ if h.now.was_mpls => &LAYERS.nothing,
        t if is_ip(t) => &LAYERS.ip,
        ether_type::ARP | ether_type::RARP => &LAYERS.arp,
        _ => &LAYERS.nothing,
    };
    if is_mpls(was) && !is_mpls(is) {
        set(h, &[&LAYERS.ethernet], out);
        labels(h, out);
        set(h, &[upper], out);
    } else {
        set(h, &[&LAYERS.ethernet, upper], out);
        labels(h, out);
    }
    tags(h, out);
    let (priority, mark) = (h.now.key.skb_priority.get(), h.now.key.pkt_mark.get());
    if priority != h.base.priority {
        h.base.priority = priority;
        out.push(Action::SetPriority(priority));
    }
    if mark != h.base.mark {
        h.base.mark = mark;
        out.push(Action::SetMark(mark));
    }
}

/// Gives fields of some layers their values.
fn set(h: &mut Headers, layers: &[&FlowKey], out: &mut Vec<Action>) {
    let mut writable = [0; WORDS];
    for layer in layers {
        writable.iter_mut().zip(layer.words()).for_each(|(w, l)| *w |= l);
    }
    let (known, base_known) = (*h.now.known.words(), *h.base.known.words());
    let mut back = FlowKey::default();
    for (i, b) in words_mut(&mut back).iter_mut().enumerate() {
        *b = writable[i] & base_known[i] & !known[i];
    }
    // What was changed and is now to be as it was: that has to be looked at.
    h.depend(&back);
    let mut needed = FlowKey::default();
    for (i, needed) in words_mut(&mut needed).iter_mut().enumerate() {
        let (is, was) = (h.pkt().words()[i], h.base.key.words()[i]);
        let undecided = known[i] & !(base_known[i] | h.mask_words()[i]);
        let bits = writable[i] & (undecided | (known[i] | base_known[i]) & (is ^ was));
        *needed = bits;
        words_mut(&mut h.base.key)[i] = was & !writable[i] | is & writable[i];
        words_mut(&mut h.base.known)[i] = base_known[i] & !writable[i] | known[i] & writable[i];
    }
    if needed == FlowKey::default() {
        return;
    }
    let decided: [u64; WORDS] = std::array::from_fn(|i| writable[i] & (known[i] | base_known[i]));
    let mask = whole_fields(&needed, &zerocopy::transmute!(decided));
    let value = mask.apply(h.pkt());
    emit_set(h, value, mask, out);
}

/// Where the fields that can be set lie in a key, in bytes.
static FIELDS: [(usize, usize); 17] = [
    (offset_of!(FlowKey, dl_dst), 6),
    (offset_of!(FlowKey, dl_src), 6),
    (offset_of!(FlowKey, nw_proto), 1),
    (offset_of!(FlowKey, nw_src), 4),
    (offset_of!(FlowKey, nw_dst), 4),
    (offset_of!(FlowKey, tp_src), 2),
    (offset_of!(FlowKey, tp_dst), 2),
    (offset_of!(FlowKey, tcp_flags), 2),
    (offset_of!(FlowKey, nw_tos), 1),
    (offset_of!(FlowKey, nw_ttl), 1),
    (offset_of!(FlowKey, ipv6_src), 16),
    (offset_of!(FlowKey, ipv6_dst), 16),
    (offset_of!(FlowKey, ipv6_label), 4),
    (offset_of!(FlowKey, igmp_group), 4),
    (offset_of!(FlowKey, arp_sha), 6),
    (offset_of!(FlowKey, arp_tha), 6),
    (offset_of!(FlowKey, nd_target), 16),
];

/// A field of which a bit is to be set is set as far as it is decided, which is easier to read than
/// the bits that differ.
fn whole_fields(needed: &FlowKey, decided: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::empty();
    let (needed, decided) = (needed.as_bytes(), decided.as_bytes());
    let bytes = mask.bits_mut().as_mut_bytes();
    for (at, len) in FIELDS {
        let field = at..at + len;
        if needed[field.clone()].iter().any(|b| *b != 0) {
            bytes[field.clone()].copy_from_slice(&decided[field]);
        }
    }
    mask
}

/// A `Set` with what the datapath needs to know about the packet: its EtherType, and its protocol and
/// type where the transport layer changes.
fn emit_set(h: &mut Headers, mut value: FlowKey, mask: FlowMask, out: &mut Vec<Action>) {
    let m = mask.bits();
    let dl_type = h.base.key.dl_type;
    value.dl_type = dl_type;
    if is_ip(dl_type.get()) {
        let options = m.arp_sha != Mac::default() || m.arp_tha != Mac::default();
        let words = m.nd_target != [0; 16] || m.igmp_group.get() != 0 || m.tcp_flags.get() != 0;
        let discovery = options || words;
        if discovery {
            h.depend(&FlowKey { tp_src: U16::new(u16::MAX), ..FlowKey::default() });
            value.tp_src = h.pkt().tp_src;
        }
        if discovery || m.tp_src.get() != 0 || m.tp_dst.get() != 0 {
            h.depend(&FlowKey { nw_proto: 0xff, ..FlowKey::default() });
            value.nw_proto = h.pkt().nw_proto;
        }
    }
    out.push(Action::Set(Box::new(Rewrite { value, mask })));
}

/// VLAN tags.
fn tags(h: &mut Headers, out: &mut Vec<Action>) {
    keep_tag(h);
    let (from, to) = (h.base.vlan, h.now.vlan);
    let (was, is) = (h.base.key.vlan, h.pkt().vlan);
    let (pop, push) = from.steps(to, common(&was, &is, from, to));
    out.extend((0..pop).map(|_| Action::PopVlan));
    for i in (0..usize::from(push)).rev() {
        let mut whole = FlowKey::default();
        if let Some(tag) = whole.vlan.get_mut(i) {
            *tag = Vlan { tpid: U16::new(u16::MAX), tci: U16::new(u16::MAX) };
            h.depend(&whole);
            if is_tag(&is[i]) {
                out.push(Action::PushVlan(is[i]));
            }
        }
    }
    (h.base.vlan, h.base.key.vlan, h.base.known.vlan) = (to, is, h.now.known.vlan);
}

/// A tag of the packet that was replaced by one that is the same stays, if that is so for all packets
/// of the megaflow.
fn keep_tag(h: &mut Headers) {
    let (from, to) = (h.base.vlan, h.now.vlan);
    if from.pushed == 0 && to.pushed > 0 && to.popped == from.popped + 1 {
        let (was, is) = (h.base.key.vlan[0], h.pkt().vlan[usize::from(to.pushed) - 1]);
        if was == is && h.whole_tag_seen(usize::from(from.popped)) {
            h.now.vlan = Tags { popped: from.popped, pushed: to.pushed - 1 };
        }
    }
}

/// How many new tags, from the last one, are the same.
fn common<T: PartialEq>(was: &[T], is: &[T], from: Tags, to: Tags) -> u8 {
    let (a, b) = (usize::from(from.pushed), usize::from(to.pushed));
    let (Some(was), Some(is)) = (was.get(..a), is.get(..b)) else { return 0 };
    was.iter().rev().zip(is.iter().rev()).take_while(|(a, b)| a == b).count() as u8
}

/// MPLS labels.
fn labels(h: &mut Headers, out: &mut Vec<Action>) {
    let (from, to) = (h.base.mpls, h.now.mpls);
    let (was, is) = (h.base.key.mpls_lse, h.pkt().mpls_lse);
    let dl_type = h.now.key.pkt.dl_type;
    let same = common(&was, &is, from, to);
    // If just the first label that the datapath has differs, it is given another value.
    let fix = from.popped == to.popped && from.pushed == same + 1 && to.pushed >= from.pushed;
    let (pop, push) = from.steps(to, same + u8::from(fix));
    for left in (0..pop).rev() {
        let ethertype = match left {
            0 => dl_type.get(),
            _ if !is_mpls(dl_type.get()) => ether_type::MPLS,
            _ => dl_type.get(),
        };
        out.push(Action::PopMpls { ethertype });
        let [_, a, b] = h.base.key.mpls_lse;
        h.base.key.mpls_lse = [a, b, U32::ZERO];
        let [_, a, b] = h.base.known.mpls_lse;
        h.base.known.mpls_lse = [a, b, U32::ZERO];
        h.base.mpls.pop();
        h.base.key.dl_type = U16::new(ethertype);
    }
    if pop == 0 && push == 0 && h.base.key.dl_type != dl_type {
        ethertype(dl_type.get(), out);
    }
    let push = usize::from(push);
    first_label(h, push, out);
    for i in (0..push).rev() {
        let mut whole = FlowKey::default();
        if let Some(lse) = whole.mpls_lse.get_mut(i) {
            *lse = U32::new(u32::MAX);
            h.depend(&whole);
            out.push(Action::PushMpls { ethertype: dl_type.get(), lse: is[i] });
        }
    }
    (h.base.mpls, h.base.key.mpls_lse) = (to, is);
    h.base.known.mpls_lse = h.now.known.mpls_lse;
    h.base.key.dl_type = dl_type;
}

/// Gives the packet another EtherType, which the datapath does where it takes a label off.
fn ethertype(ethertype: u16, out: &mut Vec<Action>) {
    out.push(Action::PushMpls { ethertype: ether_type::MPLS, lse: U32::new(BOTTOM) });
    out.push(Action::PopMpls { ethertype });
}

/// Gives the first label of the datapath's packet, which will be at position `at`, its value.
fn first_label(h: &mut Headers, at: usize, out: &mut Vec<Action>) {
    let (Some(is), Some(known)) = (h.pkt().mpls_lse.get(at), h.now.known.mpls_lse.get(at)) else {
        return;
    };
    let (is, known) = (is.get(), known.get());
    let (was, base_known) = (h.base.key.mpls_lse[0].get(), h.base.known.mpls_lse[0].get());
    if !is_mpls(h.base.key.dl_type.get()) || (known | base_known) == 0 {
        return;
    }
    let mut back = FlowKey::default();
    back.mpls_lse[at] = U32::new(base_known & !known);
    h.depend(&back);
    let seen = h.base.mpls.origin(0).map_or(0, |o| h.label_seen(o));
    let bits = known & !(base_known | seen) | (known | base_known) & (is ^ was);
    if bits != 0 {
        let (mut value, mut mask) = (FlowKey::default(), FlowMask::empty());
        value.mpls_lse[0] = U32::new(is & bits);
        mask.bits_mut().mpls_lse[0] = U32::new(bits);
        emit_set(h, value, mask, out);
    }
}

/// Removes steps at the end that nobody sees the outcome of.
pub(crate) fn trim(actions: &mut Vec<Action>) {
    while let Some(last) = actions.last() {
        match last {
            Action::Output(_)
            | Action::Recirc(_)
            | Action::Punt(_)
            | Action::Snoop(_)
            | Action::Sample { .. }
            | Action::CheckLen { .. }
            | Action::Meter(_) => return,
            Action::Clone(inner) if inner.is_empty() => drop(actions.pop()),
            // A copy for the last time is the packet itself.
            Action::Clone(_) => {
                if let Some(Action::Clone(inner)) = actions.pop() {
                    actions.extend(inner);
                }
                return;
            }
            _ => drop(actions.pop()),
        }
    }
}
