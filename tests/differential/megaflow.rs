//! What `ofproto/trace` says about a packet: its megaflow and its datapath actions.

use crate::ours::Names;
use flow::FlowMask;
use openflow::{FullMask, MatchBuilder};

/// One switch's answer for one packet.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The bits that it depended on.
    pub mask: FlowMask,
    /// Datapath actions as they are written.
    pub actions: String,
}

/// Reads OVS's. `None` if the translation failed, or the packet goes through the tables more than once.
pub fn theirs(trace: &str) -> Option<Answer> {
    let line = |start: &str| trace.lines().find_map(|l| l.strip_prefix(start));
    if trace.contains("Translation failed") || trace.contains("recirc(") {
        return None;
    }
    let mut builder = MatchBuilder::default();
    let mut more = FullMask::default();
    for word in line("Megaflow: ")?.split(',') {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let inner = &mut more.0.pkt;
        match name {
            // What every megaflow has, and what is none of the packet's.
            "recirc_id" | "eth" | "skb_priority" | "in_port" | "pkt_mark" => {}
            n if n.starts_with("ct_") || n.starts_with("tun_") => {}
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

/// A field that flows can only match whole, with a mask.
fn partly(name: &str, value: Option<&str>, mask: &mut FullMask) -> Option<()> {
    let (_, bits) = value?.split_once('/')?;
    let bits = u128::from_str_radix(bits.strip_prefix("0x")?, 16).ok()?;
    openflow::field(name)?.add_to(mask, bits);
    Some(())
}

/// The fields of which `ours` looks at bits that `theirs` leaves open.
pub fn excess(ours: &FlowMask, theirs: &FlowMask) -> Vec<String> {
    let mut only = FullMask::default();
    let pairs = ours.bits().words().iter().zip(theirs.bits().words());
    for (word, (o, t)) in only.0.words_mut().iter_mut().zip(pairs) {
        *word = o & !t;
    }
    (only.0.pkt.in_port, only.0.pkt.recirc_id) = (0, 0);
    // OVS looks at a tag's EtherType where it looks at the tag, and does not say so.
    only.0.pkt.vlan.iter_mut().for_each(|v| v.tpid = 0.into());
    let fields = openflow::fields().iter().filter(|f| f.get(&only.0) != 0);
    fields.map(|f| format!("{} {:#x}", f.name, f.get(&only.0))).collect()
}

/// The steps of datapath actions that decide what goes where: without `set`, of which OVS has more or
/// less than this switch where the packet has the value already, and without steps at the end that
/// nobody sees the outcome of. Outputs next to each other are sorted: OVS floods in the order of a hash
/// table.
pub fn steps(actions: &str) -> String {
    let mut steps: Vec<String> = split(actions).into_iter().filter_map(step).collect();
    while steps.last().is_some_and(|s| !is_seen(s)) {
        steps.pop();
    }
    for run in steps.chunk_by_mut(|a, b| is_output(a) && is_output(b)) {
        run.sort_unstable();
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
        "set" => None,
        // For whom it is depends on sockets and identifiers.
        "userspace" => Some(name.to_owned()),
        "clone" | "gt" | "le" => Some(format!("{name}({})", steps(inside))),
        "check_pkt_len" => {
            let parts = split(inside).into_iter().map(|p| step(p).unwrap_or_default());
            Some(format!("{name}({})", parts.collect::<Vec<_>>().join(",")))
        }
        _ => Some(text.to_owned()),
    }
}

fn is_output(step: &str) -> bool {
    step.bytes().all(|b| b.is_ascii_digit())
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
