//! The text of megaflows: OVS's datapath flow syntax, as `dpctl/dump-flows` prints it.
//!
//! A megaflow may be wider than OVS's for the same situation. Where its mask does not look at the
//! VLAN tag, it stands for tagged and untagged packets alike and is printed as untagged.

use crate::key::{DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, Mac, Vlan};
use crate::{Action, DpPort, ether_type, ip_proto};
use std::fmt::{Display, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

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
    let m = mask.bits();
    let mut out = format!(
        "recirc_id({}),in_port({}),packet_type(ns=0,id=0)",
        hex(key.recirc_id),
        port(DpPort(key.in_port))
    );
    let mut eth = Group::new("eth");
    eth.mac("src", key.dl_src, m.dl_src);
    eth.mac("dst", key.dl_dst, m.dl_dst);
    eth.end(&mut out);
    let mut open = 0;
    for (tag, tag_mask) in key.vlan.iter().zip(&m.vlan) {
        if (tag.tci.get() & tag_mask.tci.get() & TAG_PRESENT) == 0 {
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
        ether_type::IPV4 => ipv4(&mut out, key, m),
        ether_type::IPV6 => ipv6(&mut out, key, m),
        ether_type::ARP | ether_type::RARP => arp(&mut out, key, m),
        ether_type::MPLS | ether_type::MPLS_MCAST => mpls(&mut out, key, m),
        _ => {}
    }
    out.extend(std::iter::repeat_n(')', open));
    out
}

/// The action list, for example `1,2`, or `drop` if it is empty. Ports are written by `port`.
pub fn format_actions(actions: &[Action], port: PortText<'_>) -> String {
    if actions.is_empty() {
        return "drop".to_owned();
    }
    let texts: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Output(p) => port(*p),
        })
        .collect();
    texts.join(",")
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
    fields: String,
}

impl Group {
    fn new(name: &'static str) -> Group {
        let fields = String::new();
        Group { name, fields }
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
        if mask != Mac::default() {
            let partial = (mask != Mac::BROADCAST).then(|| mask.to_string());
            self.field(name, value, partial);
        }
    }

    fn ipv4(&mut self, name: &str, value: u32, mask: u32) {
        if mask != 0 {
            let partial = (mask != u32::MAX).then(|| Ipv4Addr::from(mask).to_string());
            self.field(name, Ipv4Addr::from(value), partial);
        }
    }

    fn ipv6(&mut self, name: &str, value: [u8; 16], mask: [u8; 16]) {
        if mask != [0; 16] {
            let partial = (mask != [0xff; 16]).then(|| Ipv6Addr::from(mask).to_string());
            self.field(name, Ipv6Addr::from(value), partial);
        }
    }

    /// A number whose bits are those of `full`, in decimal with a hexadecimal mask.
    fn number(&mut self, name: &str, value: u32, mask: u32, full: u32) {
        if mask != 0 {
            let partial = (mask != full).then(|| format!("{mask:#x}"));
            self.field(name, value, partial);
        }
    }

    /// As [`Group::number`], in hexadecimal.
    fn hex(&mut self, name: &str, value: u32, mask: u32, full: u32) {
        if mask != 0 {
            let partial = (mask != full).then(|| format!("{mask:#x}"));
            self.field(name, hex(value), partial);
        }
    }

    fn end(self, out: &mut String) {
        if !self.fields.is_empty() {
            push(out, &format!("{}({})", self.name, self.fields));
        }
    }
}

/// The tag's EtherType, the tag, and the opening of what it encloses.
fn vlan(out: &mut String, tag: &Vlan, mask: &Vlan) {
    let tpid = match tag.tpid.get() {
        0 => ether_type::VLAN,
        tpid => tpid,
    };
    push(out, &format!("eth_type({tpid:#06x})"));
    let (tci, tci_mask) = (u32::from(tag.tci.get()), u32::from(mask.tci.get()));
    let mut group = Group::new("vlan");
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

fn ipv4(out: &mut String, key: &FlowKey, m: &FlowKey) {
    let mut ip = Group::new("ipv4");
    ip.ipv4("src", key.nw_src.get(), m.nw_src.get());
    ip.ipv4("dst", key.nw_dst.get(), m.nw_dst.get());
    ip.number("proto", key.nw_proto.into(), m.nw_proto.into(), 0xff);
    ip.hex("tos", key.nw_tos.into(), m.nw_tos.into(), 0xff);
    ip.number("ttl", key.nw_ttl.into(), m.nw_ttl.into(), 0xff);
    frag(&mut ip, key, m);
    ip.end(out);
    transport(out, key, m);
}

fn ipv6(out: &mut String, key: &FlowKey, m: &FlowKey) {
    let mut ip = Group::new("ipv6");
    ip.ipv6("src", key.ipv6_src, m.ipv6_src);
    ip.ipv6("dst", key.ipv6_dst, m.ipv6_dst);
    ip.hex("label", key.ipv6_label.get(), m.ipv6_label.get() & 0xf_ffff, 0xf_ffff);
    ip.number("proto", key.nw_proto.into(), m.nw_proto.into(), 0xff);
    ip.hex("tclass", key.nw_tos.into(), m.nw_tos.into(), 0xff);
    ip.number("hlimit", key.nw_ttl.into(), m.nw_ttl.into(), 0xff);
    frag(&mut ip, key, m);
    ip.end(out);
    transport(out, key, m);
    if key.nw_proto == ip_proto::ICMPV6 {
        let mut nd = Group::new("nd");
        nd.ipv6("target", key.nd_target, m.nd_target);
        nd.mac("sll", key.arp_sha, m.arp_sha);
        nd.mac("tll", key.arp_tha, m.arp_tha);
        nd.end(out);
    }
}

fn transport(out: &mut String, key: &FlowKey, m: &FlowKey) {
    let (name, src, dst) = match key.nw_proto {
        ip_proto::TCP => ("tcp", "src", "dst"),
        ip_proto::UDP => ("udp", "src", "dst"),
        ip_proto::SCTP => ("sctp", "src", "dst"),
        ip_proto::ICMP => ("icmp", "type", "code"),
        ip_proto::ICMPV6 => ("icmpv6", "type", "code"),
        _ => return,
    };
    // ICMP's type and code are 8 bits wide in 16-bit words.
    let full = if src == "type" { 0xff } else { 0xffff };
    let mut ports = Group::new(name);
    ports.number(src, key.tp_src.get().into(), u32::from(m.tp_src.get()) & full, full);
    ports.number(dst, key.tp_dst.get().into(), u32::from(m.tp_dst.get()) & full, full);
    ports.end(out);
    let flags = m.tcp_flags.get() & 0xfff;
    if key.nw_proto == ip_proto::TCP && flags != 0 {
        push(out, &format!("tcp_flags({})", tcp_flags(key.tcp_flags.get(), flags)));
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
    if out.is_empty() { "0".to_owned() } else { out }
}

fn arp(out: &mut String, key: &FlowKey, m: &FlowKey) {
    let mut arp = Group::new("arp");
    arp.ipv4("sip", key.nw_src.get(), m.nw_src.get());
    arp.ipv4("tip", key.nw_dst.get(), m.nw_dst.get());
    arp.number("op", key.nw_proto.into(), m.nw_proto.into(), 0xff);
    arp.mac("sha", key.arp_sha, m.arp_sha);
    arp.mac("tha", key.arp_tha, m.arp_tha);
    arp.end(out);
}

/// One label stack entry (RFC 3032), printed whole as soon as a bit of it is looked at.
fn mpls(out: &mut String, key: &FlowKey, m: &FlowKey) {
    let (lse, mask) = (key.mpls_lse.get(), m.mpls_lse.get());
    if mask == 0 {
        return;
    }
    let mut group = Group::new("mpls");
    for (name, shift, full) in
        [("label", 12, 0xf_ffff), ("tc", 9, 7), ("ttl", 0, 0xff), ("bos", 8, 1)]
    {
        let part = mask >> shift & full;
        let partial = match (mask, part) {
            (u32::MAX, _) => None,
            _ if name == "bos" || part == 0 => Some(part.to_string()),
            _ => Some(format!("{part:#x}")),
        };
        group.field(name, lse >> shift & full, partial);
    }
    group.end(out);
}
