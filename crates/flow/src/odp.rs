//! The text of megaflows: OVS's datapath flow syntax, as `dpctl/dump-flows` prints it.
//!
//! A megaflow may be wider than OVS's for the same situation. Where its mask does not look at the
//! VLAN tag, it stands for tagged and untagged packets alike and is printed as untagged.

mod actions;
mod parse;

pub use crate::compose::compose;
pub use actions::format_actions;
pub use parse::parse_match;

use crate::key::{DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, Mac, Vlan};
use crate::{DpPort, MPLS_LABELS, ether_type, ip_proto};
use std::fmt::{Display, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::big_endian::U32;

/// Bit of a tag's `tci` that says that there is a tag.
const TAG_PRESENT: u16 = 0x1000;
/// The 12 flag bits of a TCP header, by bit number (RFC 9293, RFC 3168, RFC 3540).
const TCP_FLAGS: [&str; 12] =
    ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];

/// How a port is written: [`number`], or its name for `--names`.
pub type PortText<'a> = &'a dyn Fn(DpPort) -> String;

/// Ports by number, the default of `dpctl/dump-flows`.
pub fn number(port: DpPort) -> String {
    port.0.to_string()
}

/// The fields of `key` that `mask` looks at, for example
/// `recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)`. Ports are written by `port`.
pub fn format_match(key: &FlowKey, mask: &FlowMask, port: PortText<'_>) -> String {
    let out = format!(
        "recirc_id({}),in_port({}),packet_type(ns=0,id=0)",
        hex(key.recirc_id),
        port(DpPort(key.in_port))
    );
    headers(out, key, mask.bits(), false)
}

/// As [`format_match`], with the fields that are not looked at too, as `dpctl/dump-flows -m` prints
/// them: their masks are 0.
pub fn format_match_all(key: &FlowKey, mask: &FlowMask, port: PortText<'_>) -> String {
    let out = format!(
        "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),\
         recirc_id({}),dp_hash(0/0),in_port({}),packet_type(ns=0,id=0)",
        hex(key.recirc_id),
        port(DpPort(key.in_port))
    );
    headers(out, key, mask.bits(), true)
}

/// All headers of one packet, without what is not in it: `eth(…),eth_type(0x0800),ipv4(…),…`.
pub fn format_packet(key: &FlowKey) -> String {
    headers(String::new(), key, FlowMask::exact().bits(), false)
}

/// Appends all headers; `all` of their fields, or those in `m`.
fn headers(mut out: String, key: &FlowKey, m: &FlowKey, all: bool) -> String {
    eth(key, m, all).end(&mut out);
    let mut open = 0;
    for (tag, tag_mask) in key.vlan.iter().zip(&m.vlan) {
        let seen = if all { TAG_PRESENT } else { tag_mask.tci.get() };
        if (tag.tci.get() & seen & TAG_PRESENT) == 0 {
            break;
        }
        vlan(&mut out, tag, tag_mask);
        open += 1;
    }
    match key.dl_type.get() {
        DL_TYPE_NONE => push(&mut out, "eth_type(0/0xffff)"),
        t => push(&mut out, &format!("eth_type({t:#06x})")),
    }
    match key.dl_type.get() {
        ether_type::IPV4 => {
            ipv4(key, m, all).end(&mut out);
            transport(&mut out, key, m, all);
        }
        ether_type::IPV6 => {
            ipv6(key, m, all).end(&mut out);
            transport(&mut out, key, m, all);
        }
        ether_type::ARP | ether_type::RARP => arp(key, m, all).end(&mut out),
        ether_type::MPLS | ether_type::MPLS_MCAST => mpls(key, m, all).end(&mut out),
        _ => {}
    }
    out.extend(std::iter::repeat_n(')', open));
    out
}

/// Hexadecimal with a prefix, but zero without one, as C's `%#x`, which OVS prints with.
fn hex(value: u32) -> String {
    match value {
        0 => "0".to_owned(),
        v => format!("{v:#x}"),
    }
}

/// Appends one item of a comma-separated list; what follows `encap(` starts a new list.
fn push(out: &mut String, item: &str) {
    if !out.is_empty() && !out.ends_with('(') {
        out.push(',');
    }
    out.push_str(item);
}

/// `name(a=1,b=2/0x3)`: the fields of one header; nothing at all if no field is looked at.
struct Group {
    name: &'static str,
    /// Whether fields that are not looked at are written.
    all: bool,
    fields: String,
}

impl Group {
    fn new(name: &'static str, all: bool) -> Group {
        Group { name, all, fields: String::new() }
    }

    /// `name=value`, or `name=value/mask` if `mask` does not cover all bits.
    fn field(&mut self, name: &str, value: impl Display, partial: Option<String>) {
        push(&mut self.fields, &format!("{name}={value}"));
        if let Some(mask) = partial {
            self.fields.push('/');
            self.fields.push_str(&mask);
        }
    }

    fn mac(&mut self, name: &str, value: Mac, mask: Mac) {
        if self.all || mask != Mac::default() {
            let partial = (mask != Mac::BROADCAST).then(|| mask.to_string());
            self.field(name, value, partial);
        }
    }

    fn ipv4(&mut self, name: &str, value: u32, mask: u32) {
        if self.all || mask != 0 {
            let partial = (mask != u32::MAX).then(|| Ipv4Addr::from(mask).to_string());
            self.field(name, Ipv4Addr::from(value), partial);
        }
    }

    fn ipv6(&mut self, name: &str, value: [u8; 16], mask: [u8; 16]) {
        if self.all || mask != [0; 16] {
            let partial = (mask != [0xff; 16]).then(|| Ipv6Addr::from(mask).to_string());
            self.field(name, Ipv6Addr::from(value), partial);
        }
    }

    /// A number whose bits are those of `full`, in decimal with a hexadecimal mask.
    fn number(&mut self, name: &str, value: u32, mask: u32, full: u32) {
        if self.all || mask != 0 {
            let partial = (mask != full).then(|| hex(mask));
            self.field(name, value, partial);
        }
    }

    /// As [`Group::number`], in hexadecimal.
    fn hex(&mut self, name: &str, value: u32, mask: u32, full: u32) {
        if self.all || mask != 0 {
            let partial = (mask != full).then(|| hex(mask));
            self.field(name, hex(value), partial);
        }
    }

    fn text(self) -> Option<String> {
        (!self.fields.is_empty()).then(|| format!("{}({})", self.name, self.fields))
    }

    fn end(self, out: &mut String) {
        if let Some(text) = self.text() {
            push(out, &text);
        }
    }
}

fn eth(key: &FlowKey, m: &FlowKey, all: bool) -> Group {
    let mut eth = Group::new("eth", all);
    eth.mac("src", key.dl_src, m.dl_src);
    eth.mac("dst", key.dl_dst, m.dl_dst);
    eth
}

/// The tag's EtherType, the tag, and the opening of what it encloses.
fn vlan(out: &mut String, tag: &Vlan, mask: &Vlan) {
    let tpid = match tag.tpid.get() {
        0 => ether_type::VLAN,
        tpid => tpid,
    };
    push(out, &format!("eth_type({tpid:#06x})"));
    let (tci, tci_mask) = (u32::from(tag.tci.get()), u32::from(mask.tci.get()));
    let mut group = Group::new("vlan", false);
    let vid_mask = match tci_mask & 0xfff {
        0xfff => None,
        partial => Some(format!("{partial:#x}")),
    };
    group.field("vid", tci & 0xfff, vid_mask);
    let (pcp, pcp_mask) = (tci >> 13, tci_mask >> 13);
    if pcp_mask != 0 || pcp != 0 {
        let partial = (pcp_mask != 7).then(|| format!("{pcp_mask:#x}"));
        group.field("pcp", pcp, partial);
    }
    group.end(out);
    push(out, "encap(");
}

fn frag(group: &mut Group, key: &FlowKey, m: &FlowKey) {
    let full = FRAG_ANY | FRAG_LATER;
    if m.nw_frag & full != 0 {
        let text = match key.nw_frag & full {
            0 => "no",
            FRAG_ANY => "first",
            _ => "later",
        };
        let partial = (m.nw_frag & full != full).then(|| format!("{:#x}", m.nw_frag & full));
        group.field("frag", text, partial);
    }
}

fn ipv4(key: &FlowKey, m: &FlowKey, all: bool) -> Group {
    let mut ip = Group::new("ipv4", all);
    ip.ipv4("src", key.nw_src.get(), m.nw_src.get());
    ip.ipv4("dst", key.nw_dst.get(), m.nw_dst.get());
    ip.number("proto", key.nw_proto.into(), m.nw_proto.into(), 0xff);
    ip.hex("tos", key.nw_tos.into(), m.nw_tos.into(), 0xff);
    ip.number("ttl", key.nw_ttl.into(), m.nw_ttl.into(), 0xff);
    frag(&mut ip, key, m);
    ip
}

fn ipv6(key: &FlowKey, m: &FlowKey, all: bool) -> Group {
    let mut ip = Group::new("ipv6", all);
    ip.ipv6("src", key.ipv6_src, m.ipv6_src);
    ip.ipv6("dst", key.ipv6_dst, m.ipv6_dst);
    ip.hex("label", key.ipv6_label.get(), m.ipv6_label.get() & 0xf_ffff, 0xf_ffff);
    ip.number("proto", key.nw_proto.into(), m.nw_proto.into(), 0xff);
    ip.hex("tclass", key.nw_tos.into(), m.nw_tos.into(), 0xff);
    ip.number("hlimit", key.nw_ttl.into(), m.nw_ttl.into(), 0xff);
    frag(&mut ip, key, m);
    ip
}

/// Ports, or type and code; none for protocols that have neither, and for later fragments.
fn ports(key: &FlowKey, m: &FlowKey, all: bool) -> Option<Group> {
    let (name, src, dst) = match key.nw_proto {
        _ if key.nw_frag & FRAG_LATER != 0 => return None,
        ip_proto::TCP => ("tcp", "src", "dst"),
        ip_proto::UDP => ("udp", "src", "dst"),
        ip_proto::SCTP => ("sctp", "src", "dst"),
        ip_proto::ICMP if key.dl_type.get() == ether_type::IPV4 => ("icmp", "type", "code"),
        ip_proto::ICMPV6 if key.dl_type.get() == ether_type::IPV6 => ("icmpv6", "type", "code"),
        _ => return None,
    };
    // ICMP's type and code are 8 bits wide in 16-bit words.
    let full = if src == "type" { 0xff } else { 0xffff };
    let mut ports = Group::new(name, all);
    ports.number(src, key.tp_src.get().into(), u32::from(m.tp_src.get()) & full, full);
    ports.number(dst, key.tp_dst.get().into(), u32::from(m.tp_dst.get()) & full, full);
    Some(ports)
}

/// True for neighbour solicitations and advertisements.
fn is_nd(key: &FlowKey) -> bool {
    key.dl_type.get() == ether_type::IPV6
        && key.nw_proto == ip_proto::ICMPV6
        && matches!(key.tp_src.get(), 135 | 136)
}

fn nd(key: &FlowKey, m: &FlowKey, all: bool) -> [Group; 2] {
    let mut nd = Group::new("nd", all);
    nd.ipv6("target", key.nd_target, m.nd_target);
    nd.mac("sll", key.arp_sha, m.arp_sha);
    nd.mac("tll", key.arp_tha, m.arp_tha);
    let mut more = Group::new("nd_ext", all);
    more.hex("nd_reserved", key.igmp_group.get(), m.igmp_group.get(), u32::MAX);
    more.number("nd_options_type", key.tcp_flags.get().into(), m.tcp_flags.get().into(), 0xffff);
    [nd, more]
}

fn transport(out: &mut String, key: &FlowKey, m: &FlowKey, all: bool) {
    let Some(ports) = ports(key, m, all) else { return };
    ports.end(out);
    let flags = m.tcp_flags.get() & 0xfff;
    if key.nw_proto == ip_proto::TCP && (all || flags != 0) {
        push(out, &format!("tcp_flags({})", tcp_flags(key.tcp_flags.get(), flags)));
    }
    if is_nd(key) {
        nd(key, m, all).into_iter().for_each(|group| group.end(out));
    }
}

/// `syn|ack`, or `+syn-ack` where only some flags are looked at.
fn tcp_flags(value: u16, mask: u16) -> String {
    let mut out = String::new();
    for (bit, name) in TCP_FLAGS.iter().enumerate() {
        let (set, seen) = (value >> bit & 1 == 1, mask >> bit & 1 == 1);
        // Writing to a String cannot fail.
        let _ = match (mask == 0xfff, seen, set) {
            (true, _, true) if out.is_empty() => write!(out, "{name}"),
            (true, _, true) => write!(out, "|{name}"),
            (false, true, true) => write!(out, "+{name}"),
            (false, true, false) => write!(out, "-{name}"),
            _ => Ok(()),
        };
    }
    match (out.is_empty(), mask) {
        (true, 0) => "0/0".to_owned(),
        (true, _) => "0".to_owned(),
        (false, _) => out,
    }
}

fn arp(key: &FlowKey, m: &FlowKey, all: bool) -> Group {
    let mut arp = Group::new("arp", all);
    arp.ipv4("sip", key.nw_src.get(), m.nw_src.get());
    arp.ipv4("tip", key.nw_dst.get(), m.nw_dst.get());
    arp.number("op", key.nw_proto.into(), m.nw_proto.into(), 0xff);
    arp.mac("sha", key.arp_sha, m.arp_sha);
    arp.mac("tha", key.arp_tha, m.arp_tha);
    arp
}

/// The parts of a label stack entry (RFC 3032): name, lowest bit, bits.
const LSE: [(&str, u32, u32); 4] =
    [("label", 12, 0xf_ffff), ("tc", 9, 7), ("ttl", 0, 0xff), ("bos", 8, 1)];

/// All label stack entries that the packet has, as soon as a bit of one is looked at.
fn mpls(key: &FlowKey, m: &FlowKey, all: bool) -> Group {
    let mut group = Group::new("mpls", all);
    if !all && m.mpls_lse.iter().all(|lse| lse.get() == 0) {
        return group;
    }
    let bottom = |lse: &U32| lse.get() & 0x100 != 0;
    let depth = key.mpls_lse.iter().position(bottom).map_or(MPLS_LABELS, |last| last + 1);
    let exact = m.mpls_lse[..depth].iter().all(|lse| lse.get() == u32::MAX);
    for (lse, mask) in key.mpls_lse.iter().zip(&m.mpls_lse).take(depth) {
        lse_fields(&mut group, lse.get(), (!exact).then_some(mask.get()));
    }
    group
}

/// One entry; its masks too, if there is one to write.
fn lse_fields(group: &mut Group, lse: u32, mask: Option<u32>) {
    for (name, shift, full) in LSE {
        let partial = mask.map(|mask| match (name, mask >> shift & full) {
            ("tc" | "bos", part) => format!("{part:x}"),
            (_, part) => format!("{part:#x}"),
        });
        group.field(name, lse >> shift & full, partial);
    }
}
