//! What the tests of this crate share: a small switch, flows as text, and OVS beside it.
#![allow(dead_code, reason = "not every test uses all of it")]

pub mod ovs;
pub mod steps;

use flow::{DpPort, FlowKey, Seen, Translate, Translation};
use openflow::{Command, FullKey, GroupCommand};
use pipeline::{BridgeConfig, Error, OfPort, Pipeline};

/// The number that OVS's dummy datapath gives a bridge's own port.
pub const DUMMY_LOCAL: u32 = 100;

/// Bridge `br0` with LOCAL and ports p1 to `n`, and the datapath numbers that OVS's dummy gives.
pub fn switch(n: u16) -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    p.add_port("br0", "br0", OfPort::LOCAL, DpPort(DUMMY_LOCAL)).expect("new");
    for i in 1..=n {
        p.add_port("br0", &format!("p{i}"), OfPort(i), DpPort(i.into())).expect("new");
    }
    p
}

/// `add-flows`: lines may begin with `delete` and the like.
pub fn add_flows(p: &Pipeline, text: &str, now_ms: u64) -> Result<(), Error> {
    flow_mods(p, text, Command::Add, now_ms)
}

/// Lines of flows for a command.
pub fn flow_mods(p: &Pipeline, text: &str, command: Command, now_ms: u64) -> Result<(), Error> {
    let names = p.names("br0")?;
    let mods = openflow::parse_flow_mods(text, command, &names)
        .map_err(|(line, e)| Error::FlowLine { line, reason: e.to_string() })?;
    p.flow_mods("br0", &mods, now_ms).map_err(|(_, e)| e)
}

/// Replaces all flows.
pub fn set_flows(p: &Pipeline, text: &str) {
    add_flows(p, &format!("delete\n{text}"), 0).unwrap_or_else(|e| panic!("{text}: {e}"));
}

/// Replaces all groups.
pub fn set_groups(p: &Pipeline, lines: &[&str]) {
    let names = p.names("br0").expect("there");
    let all = openflow::parse_group_mod("", GroupCommand::Delete, &names).expect("all");
    let add = |l: &&str| {
        openflow::parse_group_mod(l, GroupCommand::Add, &names)
            .unwrap_or_else(|e| panic!("{l}: {e}"))
    };
    let mods: Vec<_> = std::iter::once(all).chain(lines.iter().map(add)).collect();
    p.group_mods("br0", &mods, 0).unwrap_or_else(|(i, e)| panic!("{:?}: {e}", lines.get(i)));
}

/// `dump-flows`, without the header.
pub fn dump(p: &Pipeline, filter: &str, stats: bool, now_ms: u64) -> String {
    let names = p.names("br0").expect("there");
    let filter = openflow::parse_flow_mod(filter, Command::Delete, &names).expect("a filter");
    p.tables("br0").expect("there").dump_flows(&filter, now_ms, stats, &())
}

/// A packet as `ofproto/trace` takes it, for the datapath.
pub fn key(text: &str) -> FlowKey {
    let full: FullKey = openflow::parse_key(text, &()).unwrap_or_else(|e| panic!("{text}: {e}"));
    let in_port = match full.in_port.get() as u16 {
        0xfffe => DUMMY_LOCAL,
        n => n.into(),
    };
    FlowKey { in_port, ..full.pkt }
}

/// Translates and applies one packet.
pub fn send(p: &Pipeline, key: &FlowKey, now_ms: u64) -> Translation {
    let t = p.translate(key);
    t.effects.apply(&seen(1, 100, now_ms));
    t
}

/// Packets seen.
pub fn seen(packets: u64, bytes: u64, now_ms: u64) -> Seen {
    Seen { packets, bytes, tcp_flags: 0, now_ms }
}

/// `a` where the mask has bits, `b` elsewhere.
pub fn merge(mask: &flow::FlowMask, a: &FlowKey, b: &FlowKey) -> FlowKey {
    let mut words = [0; flow::WORDS];
    for (i, w) in words.iter_mut().enumerate() {
        let m = mask.bits().words()[i];
        *w = (a.words()[i] & m) | (b.words()[i] & !m);
    }
    zerocopy::transmute!(words)
}
