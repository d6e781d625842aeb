//! What `ofproto/trace` says about a packet: its megaflow and its datapath actions.

use crate::ours::Names;
use flow::{FlowKey, FlowMask};
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
    let mut inner = FlowKey::default();
    for word in line("Megaflow: ")?.split(',') {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        match name {
            // What every megaflow has, and what is none of the packet's.
            "recirc_id" | "eth" | "skb_priority" | "in_port" => {}
            "vlan_tci1" | "dl_vlan1" | "dl_vlan_pcp1" => inner.vlan[1].tci = u16::MAX.into(),
            "mpls_lse1" => inner.mpls_lse[1] = u32::MAX.into(),
            "mpls_lse2" => inner.mpls_lse[2] = u32::MAX.into(),
            _ => match builder.add(name, value, &Names) {
                Ok(true) => {}
                other => panic!("{word} in a megaflow of OVS: {other:?}\n{trace}"),
            },
        }
    }
    let built = builder.finish().unwrap_or_else(|e| panic!("{e}\n{trace}"));
    let mut mask = built.mask.megaflow();
    let mut more = FlowMask::empty();
    *more.bits_mut() = inner;
    mask.add(&more);
    Some(Answer { mask, actions: line("Datapath actions: ")?.to_owned() })
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

/// Datapath actions without what is not to be compared: whom a packet is punted to.
pub fn plain(actions: &str) -> String {
    let mut out = String::new();
    let mut rest = actions;
    while let Some((before, after)) = rest.split_once("userspace(") {
        out += before;
        out += "userspace";
        let mut depth = 1;
        let end = after.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        rest = end.map_or("", |e| &after[e + 1..]);
    }
    out + rest
}
