//! Patch ports between bridges, beside Open vSwitch's: traces word for word but for the megaflow, which can
//! be wider here; learned addresses; statistics. Needs the Debian package `openvswitch-switch`.

mod support;

use flow::{DpPort, FlowKey, Translate};
use openflow::Command;
use pipeline::{BridgeConfig, Error, OfPort, PatchCounts, Pipeline, PortConfig};
use std::sync::Arc;
use support::ovs::Ovs;
use support::{DUMMY_LOCAL, key, seen, switch};

/// Patch ports: bridge, name, number, peer. Those of br1 come in a loop with br2's; one has no peer, one has
/// a peer that has another.
const PATCHES: &[(&str, &str, u16, &str)] = &[
    ("br0", "to-int", 20, "to-tun"),
    ("br1", "to-tun", 21, "to-int"),
    ("br1", "one", 22, "other"),
    ("br2", "other", 23, "one"),
    ("br0", "dangling", 24, "nobody"),
    ("br0", "unloved", 25, "to-tun"),
];

/// br0 with p1 and p2, br1 with p11, br2 with p12, joined in a row.
fn ours() -> Pipeline {
    let p = switch(2);
    for (n, port) in [(1, 11), (2, 12)] {
        let bridge = format!("br{n}");
        p.add_bridge(&bridge, BridgeConfig::default(), 0).expect("new");
        p.add_port(&bridge, &bridge, OfPort::LOCAL, DpPort(DUMMY_LOCAL + n)).expect("new");
        p.add_port(&bridge, &format!("p{port}"), OfPort(port), DpPort(port.into())).expect("new");
    }
    for (i, (bridge, name, number, peer)) in PATCHES.iter().enumerate() {
        let dp = DpPort(1000 + i as u32);
        p.add_patch_port(bridge, name, OfPort(*number), dp, PortConfig::default(), peer)
            .expect("new");
    }
    p
}

fn theirs() -> Ovs {
    let ovs = Ovs::start(2);
    let mut add = format!("--db=unix:{} --timeout=20", ovs.at("db.sock"));
    for (n, port) in [(1, 11), (2, 12)] {
        add += &format!(
            " -- add-br br{n} -- set bridge br{n} datapath_type=dummy -- add-port br{n} p{port} -- set \
             interface p{port} type=dummy ofport_request={port}"
        );
    }
    for (bridge, name, number, peer) in PATCHES {
        add += &format!(
            " -- add-port {bridge} {name} -- set interface {name} type=patch options:peer={peer} \
             ofport_request={number}"
        );
    }
    ovs.run("ovs-vsctl", &add.split_whitespace().collect::<Vec<_>>());
    ovs
}

fn set_flows(p: &Pipeline, bridge: &str, flows: &str) -> Result<(), Error> {
    let names = p.names(bridge)?;
    let mods = openflow::parse_flow_mods(&format!("delete\n{flows}"), Command::Add, &names)
        .map_err(|(line, e)| Error::FlowLine { line, reason: e.to_string() })?;
    p.flow_mods(bridge, &mods, 0).map_err(|(_, e)| e)
}

/// Flows of the three bridges.
type Flows = [&'static str; 3];

const NORMAL: &str = "priority=0,actions=NORMAL";

const FLOWS: &[Flows] = &[
    [NORMAL, NORMAL, NORMAL],
    ["actions=20", NORMAL, "actions=p12"],
    // What was written comes along and is undone behind; registers and the like do not come along.
    [
        "actions=load:5->NXM_NX_REG0[],set_field:7->metadata,mod_dl_src:02:00:00:00:00:99,20,2",
        "priority=9,reg0=5,actions=drop\npriority=8,metadata=7,actions=drop\n\
         priority=1,ip,dl_src=02:00:00:00:00:99,actions=mod_nw_ttl:9,p11",
        "actions=drop",
    ],
    // An exit, and a stack that is empty over there, end nothing here.
    ["actions=push:NXM_OF_IN_PORT[],20,pop:NXM_NX_REG1[],2", "actions=exit,11", "actions=drop"],
    ["actions=20,2", "actions=pop:NXM_NX_REG1[],11", "actions=drop"],
    // Back from where it came; to the input port of the other bridge.
    ["in_port=1,actions=20\nin_port=20,actions=2", "actions=in_port", "actions=drop"],
    ["actions=20", "actions=21", "actions=drop"],
    ["actions=24,25,2", NORMAL, NORMAL],
    ["actions=output(port=20,max_len=100),2", NORMAL, NORMAL],
    // Tags that one bridge pushes and the other looks at.
    [
        "actions=push_vlan:0x8100,set_field:4101->vlan_vid,20",
        "dl_vlan=5,actions=strip_vlan,11",
        "actions=drop",
    ],
    ["actions=all", "actions=flood", "actions=all"],
    ["actions=2,write_actions(output:20)", "actions=write_actions(output:11)", "actions=drop"],
];

const PACKETS: &[&str] = &[
    "in_port=1,tcp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,nw_ttl=64",
    "in_port=2,udp,dl_src=02:00:00:00:00:02,dl_dst=ff:ff:ff:ff:ff:ff,nw_ttl=64",
    "in_port=20,udp,dl_src=02:00:00:00:00:03,dl_dst=02:00:00:00:00:04,nw_ttl=64",
];

/// What is to be equal. `flooded` says that the order of outputs is nobody's business.
fn comparable(text: &str, flooded: bool) -> String {
    // How an assignment is written depends on the version of OpenFlow that it came by.
    let assigns = [
        "Megaflow: ",
        "load:",
        "set_field:",
        "mod_",
        "write_actions(",
        "push_vlan:",
        "strip_vlan",
        "pop_vlan",
    ];
    let other = |l: &&str| !assigns.iter().any(|w| l.trim_start().starts_with(w));
    let flow = text.lines().find_map(|l| l.strip_prefix("Flow: ")).unwrap_or_default();
    // OVS's may be unchanged without its saying so.
    let text = text.replace(&format!("Final flow: {flow}\n"), "Final flow: unchanged\n");
    let lines = text.lines().filter(other);
    let line = |l: &str| match l.strip_prefix("Datapath actions: ").filter(|_| flooded) {
        Some(actions) => {
            let mut actions: Vec<&str> = actions.split(',').collect();
            actions.sort_unstable();
            actions.join(",") + "\n"
        }
        None => l.trim_end().to_owned() + "\n",
    };
    lines.map(line).collect()
}

#[test]
fn traces_are_those_of_ovs() {
    let (ovs, p) = (theirs(), ours());
    for flows in FLOWS {
        for (n, text) in flows.iter().enumerate() {
            let bridge = format!("br{n}");
            set_flows(&p, &bridge, text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let target = format!("unix:{}", ovs.at(&format!("{bridge}.mgmt")));
            std::fs::write(ovs.at("flows"), text).expect("a temporary file");
            ovs.run("ovs-ofctl", &["-OOpenFlow15", "del-flows", &target]);
            ovs.run("ovs-ofctl", &["-OOpenFlow15", "add-flows", &target, &ovs.at("flows")]);
        }
        for packet in PACKETS {
            let want = ovs.appctl(&["ofproto/trace", "br0", packet]);
            let got = p.trace_command(&["br0", packet], 0).expect("traces");
            let flooded = ["NORMAL", "flood", "all"].iter().any(|w| flows.concat().contains(w));
            assert_eq!(
                comparable(&got, flooded),
                comparable(&want, flooded),
                "{flows:?}\n{packet}"
            );
        }
    }
}

#[test]
fn each_bridge_learns_and_both_ends_count() {
    let p = Pipeline::new();
    let mut counts: Vec<Arc<PatchCounts>> = Vec::new();
    for (n, own, peer) in [(0, "a", "b"), (1, "b", "a")] {
        let bridge = format!("br{n}");
        p.add_bridge(&bridge, BridgeConfig::default(), 0).expect("new");
        p.add_port(&bridge, &format!("p{n}"), OfPort(1), DpPort(n + 1)).expect("new");
        counts.push(
            p.add_patch_port(&bridge, own, OfPort(2), DpPort(n + 8), PortConfig::default(), peer)
                .expect("new"),
        );
    }
    let mut packet = key(PACKETS[0]);
    packet.in_port = 1;
    let t = p.translate(&packet);
    assert_eq!(t.actions, [flow::Action::Output(DpPort(2))]);
    t.effects.apply(&seen(3, 300, 1));
    assert_eq!((counts[0].sent(), counts[0].received()), ((3, 300), (0, 0)));
    assert_eq!((counts[1].sent(), counts[1].received()), ((0, 0), (3, 300)));
    let back = FlowKey { in_port: 2, dl_src: packet.dl_dst, dl_dst: packet.dl_src, ..packet };
    let t = p.translate(&back);
    t.effects.apply(&seen(1, 100, 2));
    assert_eq!(t.actions, [flow::Action::Output(DpPort(1))]);
    assert_eq!((counts[0].received(), counts[1].sent()), ((1, 100), (1, 100)));
    for bridge in ["br0", "br1"] {
        let learned = p.fdb_show(bridge, 2).expect("there");
        assert_eq!(learned.lines().count(), 3, "{learned}");
    }
    // A peer that goes leaves a port that leads nowhere.
    let before = p.generation();
    p.remove_port("br1", OfPort(2)).expect("there");
    assert!(p.generation() > before);
    assert_eq!(p.translate(&packet).actions, []);
}

/// Two patches between the same two bridges: a flood goes round until it may not any more.
#[test]
fn loops_are_bounded() {
    let p = Pipeline::new();
    for n in 0..2 {
        let (bridge, other) = (format!("br{n}"), 1 - n);
        p.add_bridge(&bridge, BridgeConfig::default(), 0).expect("new");
        p.add_port(&bridge, &format!("p{n}"), OfPort(1), DpPort(n + 1)).expect("new");
        for i in 2..5 {
            let (own, peer, dp) = (format!("x{n}{i}"), format!("x{other}{i}"), DpPort(10 * i + n));
            p.add_patch_port(&bridge, &own, OfPort(i as u16), dp, PortConfig::default(), &peer)
                .expect("new");
        }
    }
    let began = std::time::Instant::now();
    let t = p.translate(&FlowKey { in_port: 1, ..key(PACKETS[1]) });
    println!("{} actions after {:?}", t.actions.len(), began.elapsed());
    assert!(t.actions.len() <= 8192, "{}", t.actions.len());
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}
