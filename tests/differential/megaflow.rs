//! What `ofproto/trace` says about a packet: its megaflow and its datapath actions.

use crate::ours::Names;
use flow::{FRAG_LATER, FlowKey, FlowMask, ether_type, ip_proto};
use openflow::{FullMask, MatchBuilder};
use zerocopy::big_endian::U16;

/// The bit of a tag's control information that says that there is a tag.
const TAG_PRESENT: u16 = 0x1000;

/// One switch's answer for one packet.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The bits that it depended on.
    pub mask: FlowMask,
    /// Datapath actions as they are written.
    pub actions: String,
}

/// Reads OVS's for a packet with so many tags. `None` if the translation failed, or the packet goes
/// through the tables more than once.
pub fn theirs(trace: &str, tags: usize) -> Option<Answer> {
    let line = |start: &str| trace.lines().find_map(|l| l.strip_prefix(start));
    if trace.contains("Translation failed") || trace.contains("recirc(") {
        return None;
    }
    let mut builder = MatchBuilder::default();
    let mut more = FullMask::default();
    for (i, tag) in more.0.pkt.vlan.iter_mut().enumerate() {
        // The EtherTypes of a megaflow, which are always whole, say where the tags end.
        tag.tci = if i < tags { TAG_PRESENT } else { u16::MAX }.into();
    }
    let words = line("Megaflow: ")?;
    let later = words.contains("nw_frag=later");
    for word in words.split(',') {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let inner = &mut more.0.pkt;
        match name {
            // What every megaflow has, and what is none of the packet's.
            "recirc_id" | "eth" | "skb_priority" | "in_port" | "pkt_mark" => {}
            n if n.starts_with("ct_") || n.starts_with("tun_") => {}
            // What a later fragment has none of: no flow may match both.
            n if later && is_transport(n) => {}
            "vlan_tci1" | "dl_vlan1" | "dl_vlan_pcp1" => inner.vlan[1].tci = u16::MAX.into(),
            "mpls_lse1" => inner.mpls_lse[1] = u32::MAX.into(),
            "mpls_lse2" => inner.mpls_lse[2] = u32::MAX.into(),
            _ if !builder.add(name, value, &Names).unwrap_or(false) => {
                partly(name, value, &mut more).unwrap_or_else(|| panic!("{word} in\n{trace}"));
            }
            _ => {}
        }
    }
    let built = builder.finish().unwrap_or_else(|e| panic!("{e}\n{trace}"));
    more.add(&built.mask);
    Some(Answer { mask: more.megaflow(), actions: line("Datapath actions: ")?.to_owned() })
}

/// True for ports and flags of TCP and its like.
fn is_transport(name: &str) -> bool {
    let (layer, field) = name.split_once('_').unwrap_or_default();
    matches!(layer, "tp" | "tcp" | "udp" | "sctp") && matches!(field, "src" | "dst" | "flags")
}

/// A field that flows can only match whole, with a mask.
fn partly(name: &str, value: Option<&str>, mask: &mut FullMask) -> Option<()> {
    let (_, bits) = value?.split_once('/')?;
    let bits = u128::from_str_radix(bits.strip_prefix("0x")?, 16).ok()?;
    openflow::field(name)?.add_to(mask, bits);
    Some(())
}

/// The bits of a mask that tell packets with these headers apart: others are zero in all of them.
pub fn telling(key: &FlowKey, mask: &FlowMask) -> FlowKey {
    let mut m = *mask.bits();
    (m.in_port, m.recirc_id, m.dl_type) = Default::default();
    // OVS looks at a tag's EtherType where it looks at the tag, and does not say so.
    m.vlan.iter_mut().for_each(|v| v.tpid = Default::default());
    let dl_type = key.dl_type.get();
    let (ipv4, ipv6) = (dl_type == ether_type::IPV4, dl_type == ether_type::IPV6);
    let arp = matches!(dl_type, ether_type::ARP | ether_type::RARP);
    let whole = (ipv4 || ipv6) && key.nw_frag & FRAG_LATER == 0;
    let icmp = whole && [ip_proto::ICMP, ip_proto::ICMPV6].contains(&key.nw_proto);
    let transport = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP].contains(&key.nw_proto) && whole;
    let discovery = icmp && ipv6 && [135, 136].contains(&key.tp_src.get());
    if !matches!(dl_type, ether_type::MPLS | ether_type::MPLS_MCAST) {
        m.mpls_lse = Default::default();
    }
    if !ipv4 && !arp {
        (m.nw_src, m.nw_dst) = Default::default();
    }
    if !ipv6 {
        (m.ipv6_src, m.ipv6_dst, m.ipv6_label) = Default::default();
    }
    if !ipv4 && !ipv6 {
        (m.nw_tos, m.nw_ttl, m.nw_frag) = Default::default();
        m.nw_proto &= if arp { u8::MAX } else { 0 };
    }
    let ports = if transport { u16::MAX } else { u16::from(icmp) * 0xff };
    m.tp_src &= U16::new(ports);
    m.tp_dst &= U16::new(ports);
    if !discovery && !arp {
        (m.arp_sha, m.arp_tha) = Default::default();
    }
    if !discovery {
        (m.nd_target, m.igmp_group) = Default::default();
    }
    let flags = if transport && key.nw_proto == ip_proto::TCP { 0xfff } else { 0 };
    m.tcp_flags &= U16::new(if discovery { 0xff } else { flags });
    m
}

/// How many bits.
pub fn count(bits: &FlowKey) -> u32 {
    bits.words().iter().map(|w| w.count_ones()).sum()
}

/// The fields of which `ours` has bits that `theirs` has not.
pub fn excess(ours: &FlowKey, theirs: &FlowKey) -> Vec<String> {
    let mut only = FullMask::default();
    let pairs = ours.words().iter().zip(theirs.words());
    for (word, (o, t)) in only.0.words_mut().iter_mut().zip(pairs) {
        *word = o & !t;
    }
    let fields = openflow::fields().iter().filter(|f| f.get(&only.0) != 0);
    fields.map(|f| format!("{} {:#x}", f.name, f.get(&only.0))).collect()
}

/// The steps of datapath actions that decide what goes where: without `set`, of which OVS has more or
/// less than this switch where the packet has the value already, and without steps at the end that
/// nobody sees the outcome of. Outputs next to each other are sorted: OVS floods in the order of a hash
/// table. So are changes of tags and pushed labels: labels go behind tags whichever is first, and the
/// EtherType is that of the last label.
pub fn steps(actions: &str) -> String {
    let mut steps: Vec<String> = Vec::new();
    for next in split(actions).into_iter().filter_map(step) {
        match (steps.last().map(String::as_str), next.as_str()) {
            (Some("pop_vlan"), "push_vlan") => drop(steps.pop()),
            _ => steps.push(next),
        }
    }
    while let Some(last) = steps.pop() {
        // A copy for the last time may be the packet itself.
        match last.strip_prefix("clone(").and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => steps.extend(split(inner).into_iter().map(str::to_owned)),
            None if is_seen(&last) => {
                steps.push(last);
                break;
            }
            None => {}
        }
    }
    for run in steps.chunk_by_mut(|a, b| is_output(a) && is_output(b)) {
        run.sort_unstable();
    }
    for run in steps.chunk_by_mut(|a, b| is_stacking(a) && is_stacking(b)) {
        // The tags, then the labels, each in their order.
        run.sort_by_key(|step| is_label(step));
        for step in run.split_last_mut().into_iter().flat_map(|(_, before)| before) {
            step.truncate(step.find(",eth_type").unwrap_or(step.len()));
        }
    }
    if steps.is_empty() { "drop".to_owned() } else { steps.join(",") }
}

/// One step, if it is to be compared.
fn step(text: &str) -> Option<String> {
    let Some((name, rest)) = text.split_once('(') else {
        return (text != "drop").then(|| text.to_owned());
    };
    let inside = rest.strip_suffix(')').unwrap_or(rest);
    match name {
        // Meters are kept here and do nothing yet.
        "set" | "meter" => None,
        // A tag is set by taking it off and putting another on.
        "push_vlan" => Some(name.to_owned()),
        // For whom it is depends on sockets and identifiers.
        "userspace" => Some(name.to_owned()),
        "clone" | "gt" | "le" => Some(format!("{name}({})", steps(inside))),
        "check_pkt_len" => {
            let parts = split(inside).into_iter().map(|p| step(p).unwrap_or_default());
            let parts = parts.collect::<Vec<_>>().join(",");
            (!parts.ends_with("gt(drop),le(drop)")).then(|| format!("{name}({parts})"))
        }
        _ => Some(text.to_owned()),
    }
}

fn is_output(step: &str) -> bool {
    step.bytes().all(|b| b.is_ascii_digit())
}

fn is_label(step: &str) -> bool {
    step.starts_with("push_mpls")
}

fn is_stacking(step: &str) -> bool {
    ["push_vlan", "pop_vlan"].contains(&step) || is_label(step)
}

fn is_seen(step: &str) -> bool {
    is_output(step) || ["userspace", "clone", "check_pkt_len"].iter().any(|s| step.starts_with(s))
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .collect()
}
