//! What a list of datapath actions does, read from its text: which packets go where, with which
//! headers. Two lists are alike if they do the same, however they say it.

use flow::{FlowKey, ether_type};
use std::collections::BTreeMap;

/// A packet on its way: header fields by `header.field`, and the tags and labels in front, the
/// outermost last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    fields: BTreeMap<String, Value>,
    tags: Vec<String>,
    labels: Vec<String>,
    trunc: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(u64),
    Text(String),
}

/// Something that the datapath does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Output(String, State),
    Controller(String, State),
    Recirculate(State),
    CheckLen(String, Vec<Event>, Vec<Event>),
}

fn value(text: &str) -> Value {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    number.map_or_else(|| Value::Text(text.to_owned()), Value::Number)
}

impl State {
    /// The packet before anything is done to it.
    pub fn of(key: &FlowKey) -> State {
        let mut state = State {
            fields: BTreeMap::new(),
            tags: Vec::new(),
            labels: Vec::new(),
            trunc: String::new(),
        };
        let v4 = |a: u32| Value::Text(std::net::Ipv4Addr::from(a).to_string());
        let v6 = |a: [u8; 16]| Value::Text(std::net::Ipv6Addr::from(a).to_string());
        let n = |n: u32| Value::Number(n.into());
        let mac = |m: flow::Mac| Value::Text(m.to_string());
        let mut put = |name: &str, value: Value| state.fields.insert(name.to_owned(), value);
        put("skb_priority", n(0));
        put("skb_mark", n(0));
        put("eth.src", mac(key.dl_src));
        put("eth.dst", mac(key.dl_dst));
        let (tos, ttl) = (n(key.nw_tos.into()), n(key.nw_ttl.into()));
        match key.dl_type.get() {
            ether_type::IPV4 => {
                put("ipv4.src", v4(key.nw_src.get()));
                put("ipv4.dst", v4(key.nw_dst.get()));
                put("ipv4.tos", tos);
                put("ipv4.ttl", ttl);
            }
            ether_type::IPV6 => {
                put("ipv6.src", v6(key.ipv6_src));
                put("ipv6.dst", v6(key.ipv6_dst));
                put("ipv6.label", n(key.ipv6_label.get()));
                put("ipv6.tclass", tos);
                put("ipv6.hlimit", ttl);
                put("nd.target", v6(key.nd_target));
                put("nd.sll", mac(key.arp_sha));
                put("nd.tll", mac(key.arp_tha));
            }
            ether_type::ARP => {
                put("arp.sip", v4(key.nw_src.get()));
                put("arp.tip", v4(key.nw_dst.get()));
                put("arp.op", n(key.nw_proto.into()));
                put("arp.sha", mac(key.arp_sha));
                put("arp.tha", mac(key.arp_tha));
            }
            _ => {}
        }
        for (proto, a, b) in [
            (6, "tcp.src", "tcp.dst"),
            (17, "udp.src", "udp.dst"),
            (132, "sctp.src", "sctp.dst"),
            (1, "icmp.type", "icmp.code"),
            (58, "icmpv6.type", "icmpv6.code"),
        ] {
            if key.nw_proto == proto {
                put(a, n(key.tp_src.get().into()));
                put(b, n(key.tp_dst.get().into()));
            }
        }
        for tag in key.vlan.iter().rev().filter(|t| t.tci.get() != 0) {
            state.tags.push(format!("vid={},pcp={}", tag.tci.get() & 0xfff, tag.tci.get() >> 13));
        }
        for lse in key.mpls_lse.iter().rev().map(|l| l.get()).filter(|l| *l != 0) {
            let (label, tc) = (lse >> 12, lse >> 9 & 7);
            let (bos, ttl) = (lse >> 8 & 1, lse & 0xff);
            state.labels.push(format!("label={label},tc={tc},ttl={ttl},bos={bos}"));
        }
        state
    }

    /// `set(…)`.
    fn set(&mut self, text: &str) {
        let (header, rest) = text.split_once('(').unwrap_or((text, ""));
        let rest = rest.strip_suffix(')').unwrap_or(rest);
        match header {
            "skb_priority" | "skb_mark" => {
                self.fields.insert(header.to_owned(), value(rest));
            }
            "mpls" => {
                let top = self.labels.last_mut().expect("a label to be set");
                *top = merge_label(top, rest);
            }
            _ => {
                for field in split(rest) {
                    let (name, new) = field.split_once('=').expect("name=value");
                    let name = format!("{header}.{name}");
                    let new = match new.split_once('/') {
                        None => value(new),
                        Some((new, mask)) => self.masked(&name, new, mask),
                    };
                    self.fields.insert(name, new);
                }
            }
        }
    }

    fn masked(&self, name: &str, new: &str, mask: &str) -> Value {
        match (value(new), value(mask), self.fields.get(name)) {
            (Value::Number(n), Value::Number(m), Some(Value::Number(old))) => {
                Value::Number(old & !m | n & m)
            }
            (Value::Text(n), Value::Text(m), Some(Value::Text(old))) => {
                Value::Text(masked_address(old, &n, &m))
            }
            other => panic!("{name}={new}/{mask}: {other:?}"),
        }
    }
}

/// Only addresses are masked in text.
fn masked_address(old: &str, new: &str, mask: &str) -> String {
    if let (Ok(o), Ok(n), Ok(m)) = (old.parse(), new.parse(), mask.parse()) {
        let [o, n, m] = [o, n, m].map(|a: std::net::Ipv4Addr| a.to_bits());
        return std::net::Ipv4Addr::from_bits(o & !m | n & m).to_string();
    }
    let parse = |t: &str| t.parse::<flow::Mac>().unwrap_or_else(|e| panic!("{e}"));
    let (o, n, m) = (parse(old), parse(new), parse(mask));
    flow::Mac(std::array::from_fn(|i| o.0[i] & !m.0[i] | n.0[i] & m.0[i])).to_string()
}

/// `label=5,tc=3/0x7,…` over what was there.
fn merge_label(old: &str, new: &str) -> String {
    let mut fields: BTreeMap<String, u64> = BTreeMap::new();
    for (text, first) in [(old, true), (new, false)] {
        for field in text.split(',') {
            let (name, v) = field.split_once('=').expect("name=value");
            let (v, mask) = v.split_once('/').unwrap_or((v, "0xffffffff"));
            let (Value::Number(v), Value::Number(mask)) = (value(v), value(mask)) else {
                panic!("{text}")
            };
            let entry = fields.entry(name.to_owned()).or_default();
            *entry = if first { v } else { *entry & !mask | v & mask };
        }
    }
    let get = |name: &str| fields.get(name).copied().unwrap_or(0);
    format!("label={},tc={},ttl={},bos={}", get("label"), get("tc"), get("ttl"), get("bos"))
}

/// Items between commas that are not inside parentheses.
pub fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut out) = (0, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[from..]);
    out.into_iter().filter(|s| !s.is_empty()).collect()
}

fn inside<'a>(step: &'a str, name: &str) -> Option<&'a str> {
    step.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// Value of one of the arguments `a=1,b=2`.
fn argument(text: &str, name: &str) -> String {
    let found = split(text).into_iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default().to_owned()
}

/// What the actions do with a packet.
pub fn run(actions: &str, mut state: State) -> Vec<Event> {
    let mut out = Vec::new();
    if actions == "drop" {
        return out;
    }
    for step in split(actions) {
        if let Some(set) = inside(step, "set") {
            state.set(set);
        } else if let Some(tag) = inside(step, "push_vlan") {
            let (vid, pcp) = (argument(tag, "vid"), argument(tag, "pcp"));
            state.tags.push(format!("vid={vid},pcp={pcp}"));
        } else if step == "pop_vlan" {
            state.tags.pop().expect("a tag to be popped");
        } else if let Some(label) = inside(step, "push_mpls") {
            let get = |name| argument(label, name);
            let (l, tc, ttl, bos) = (get("label"), get("tc"), get("ttl"), get("bos"));
            state.labels.push(format!("label={l},tc={tc},ttl={ttl},bos={bos}"));
        } else if step.starts_with("pop_mpls") {
            state.labels.pop().expect("a label to be popped");
        } else if let Some(len) = inside(step, "trunc") {
            state.trunc = len.to_owned();
        } else if let Some(inner) = inside(step, "clone") {
            out.extend(run(inner, state.clone()));
        } else if let Some(check) = inside(step, "check_pkt_len") {
            let part = |name| split(check).into_iter().find_map(|p| inside(p, name));
            let branch = |name| run(part(name).expect("both branches"), state.clone());
            out.push(Event::CheckLen(argument(check, "size"), branch("gt"), branch("le")));
        } else if let Some(userspace) = inside(step, "userspace") {
            let inner = split(userspace).into_iter().find_map(|p| inside(p, "controller"));
            let inner = inner.expect("a controller action");
            // Inside OVS, the reason "table-miss flow entry" has a number of its own.
            let inner = inner.replace("reason=6,", "reason=0,");
            let what = ["reason", "controller_id", "max_len"].map(|name| argument(&inner, name));
            out.push(Event::Controller(what.join("/"), state.clone()));
        } else if step.starts_with("recirc") {
            out.push(Event::Recirculate(state.clone()));
        } else {
            assert!(step.parse::<u32>().is_ok(), "{step} in {actions}");
            out.push(Event::Output(step.to_owned(), state.clone()));
            state.trunc.clear();
        }
    }
    out
}
