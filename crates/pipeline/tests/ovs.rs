//! The same flows and frames given to Open vSwitch and to the pipeline: megaflows, learned addresses,
//! changes of flows. Needs the Debian package `openvswitch-switch`, and fails without.

mod support;

use flow::{Extracted, Mac, Translate, extract, odp};
use openflow::Command;
use pipeline::Pipeline;
use support::ovs::Ovs;
use support::{add_flows, dump, flow_mods, seen, set_flows, switch};

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// As people call ovs-ofctl, who name no version of OpenFlow. The header of a dump is left out.
fn plain(ovs: &Ovs, command: &str, rest: &[&str]) -> Result<String, String> {
    let target = format!("unix:{}", ovs.at("br0.mgmt"));
    let words: Vec<&str> = command.split_whitespace().chain([target.as_str()]).collect();
    let out = ovs.try_run("ovs-ofctl", &[&words[..], rest].concat())?;
    Ok(out.lines().filter(|l| !l.starts_with("NXST")).map(|l| l.to_owned() + "\n").collect())
}

/// Sequences of flow changes leave the same tables.
#[test]
fn flow_changes() {
    let ovs = Ovs::start(3);
    let p = switch(3);
    let start = "cookie=1,priority=5,in_port=1,actions=2\n\
        cookie=2,table=4,priority=5,in_port=1,dl_src=02:00:00:00:00:01,actions=2\n\
        # comment\n\ncookie=3, in_port=2,actions=in_port\n\
        priority=9,dl_src=02:00:00:00:00:00/ff:ff:00:00:00:00,actions=local\n";
    let commands = [
        "mod-flows in_port=1,actions=3",
        "mod-flows table=4,actions=3",
        "mod-flows actions=drop",
        "mod-flows cookie=2/-1,actions=3",
        "mod-flows cookie=9,in_port=1,actions=3",
        "mod-flows in_port=7,actions=3",
        "mod-flows priority=7,in_port=7,actions=3",
        "mod-flows cookie=9/-1,in_port=7,actions=3",
        "mod-flows in_port=1",
        "del-flows in_port=1",
        "mod-flows table=7,in_port=7,actions=3",
        "mod-flows out_port=2,actions=3",
        "del-flows priority=5",
        "del-flows cookie=1",
        "del-flows cookie=1/-1",
        "del-flows out_port=2",
        "del-flows out_port=LOCAL",
        "del-flows actions=2",
        "del-flows in_port=1,actions=2",
        "del-flows table=4",
        "del-flows cookie=1/0x1",
        "del-flows dl_src=02:00:00:00:00:01",
        "del-flows dl_src=02:00:00:00:00:00/ff:00:00:00:00:00",
        "add-flow priority=5,in_port=1,actions=normal",
        "del-flows in_port=p2",
    ];
    for command in commands {
        ovs.set(&[], start);
        set_flows(&p, start);
        let (verb, text) = command.split_once(' ').expect("two words");
        let theirs = plain(&ovs, verb, &[text]);
        let mine = match verb {
            "add-flow" => add_flows(&p, text, 0),
            "mod-flows" => flow_mods(&p, text, Command::Modify, 0),
            _ => flow_mods(&p, text, Command::Delete, 0),
        };
        assert_eq!(mine.is_ok(), theirs.is_ok(), "{command}: {mine:?} {theirs:?}");
        let theirs = plain(&ovs, "--no-stats dump-flows", &[]).expect("dumps");
        let mine = dump(&p, "", false, 0);
        assert_eq!(sorted(&mine), sorted(&theirs), "{command}");
    }
    ovs.set(&[], start);
    set_flows(&p, start);
    for filter in [
        "in_port=1",
        "out_port=2",
        "cookie=2/-1",
        "table=0,in_port=1",
        "table=4",
        "dl_src=02:00:00:00:00:01",
    ] {
        let theirs = plain(&ovs, "--no-stats dump-flows", &[filter]).expect("dumps");
        let mine = dump(&p, filter, false, 0);
        assert_eq!(sorted(&mine), sorted(&theirs), "{filter}");
    }
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// An Ethernet frame of 60 bytes or more; `head` is what follows the addresses.
fn frame(dst: [u8; 6], src: [u8; 6], head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut f = [&dst[..], &src, head, body].concat();
    f.resize(f.len().max(60), 0);
    f
}

fn ip(frag: u16) -> Vec<u8> {
    let mut b = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    b[6..8].copy_from_slice(&frag.to_be_bytes());
    let sum: u32 = b.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    b[10..12].copy_from_slice(&sum.to_be_bytes());
    b.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    b
}

fn arp(op: u8, sender: u8, target: u8) -> Vec<u8> {
    let mut b = vec![0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, sender, 10, 0, 0, sender];
    b.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, target]);
    b
}

/// Translates, applies, and prints as `dpctl/dump-flows` does.
fn megaflow(p: &Pipeline, port: u32, frame: &[u8]) -> (String, String) {
    let mut out = Extracted::default();
    extract(frame, frame.len(), port, &mut out).expect("all bytes are there");
    let t = p.translate(&out.key);
    t.effects.apply(&seen(1, frame.len() as u64, 0));
    let key = t.mask.apply(&out.key);
    (odp::format_match(&key, &t.mask, &odp::number), odp::format_actions(&t.actions, &odp::number))
}

/// Actions without their order: OVS floods in the order of a hash table.
fn unordered(actions: &str) -> Vec<&str> {
    let mut list: Vec<&str> = actions.split(',').collect();
    list.sort_unstable();
    list
}

/// OVS prints the priority bits that a frame had even where the megaflow does not look at them.
fn without_unseen_priority(text: &str) -> String {
    let mut out = text.to_owned();
    for pcp in 1..8 {
        out = out.replace(&format!(",pcp={pcp}/0x0"), "");
    }
    out
}

/// NORMAL: the same frames make the same megaflows, actions and table of addresses.
#[test]
fn normal() {
    let ovs = Ovs::start(3);
    let p = switch(3);
    let all = [0xff; 6];
    let ipv4 = [8, 0];
    let frames = [
        (1, frame(mac(2), mac(1), &ipv4, &ip(0))),
        (2, frame(mac(1), mac(2), &ipv4, &ip(0))),
        (1, frame(mac(2), mac(1), &ipv4, &ip(0x2000))),
        (1, frame(mac(2), mac(1), &ipv4, &ip(0x2010))),
        (1, frame(all, mac(1), &ipv4, &ip(0))),
        (1, frame([1, 0, 0x5e, 0, 0, 5], mac(1), &ipv4, &ip(0))),
        (1, frame(all, mac(1), &[8, 6], &arp(1, 1, 2))),
        (1, frame(all, mac(1), &[8, 6], &arp(1, 1, 1))),
        (1, frame(all, mac(1), &[8, 6], &arp(2, 1, 2))),
        (1, frame(all, mac(1), &[8, 6], &arp(3, 1, 2))),
        (2, frame(mac(1), mac(2), &[8, 6], &arp(2, 2, 1))),
        (1, frame(all, mac(1), &[0x81, 0, 0x60, 10, 8, 6], &arp(1, 1, 2))),
        (1, frame(mac(2), mac(1), &[0x81, 0, 0, 10, 8, 0], &ip(0))),
        (2, frame(mac(1), mac(2), &[0x81, 0, 0, 10, 8, 0], &ip(0))),
        (2, frame(mac(1), mac(2), &[0x88, 0xa8, 0, 11, 8, 0], &ip(0))),
        (1, frame(mac(2), mac(1), &[0x81, 0, 0x60, 0, 8, 0], &ip(0))),
        (1, frame(mac(1), [3, 0, 0, 0, 0, 1], &[0x12, 0x34], &[])),
        (3, frame(mac(1), mac(3), &[0, 46], &[0; 46])),
        (3, frame(mac(3), mac(3), &[0x12, 0x34], &[])),
        (3, frame(mac(2), mac(1), &[0x12, 0x34], &[])),
        (1, frame(mac(2), mac(1), &[0x12, 0x34], &[])),
        (1, frame(mac(3), mac(1), &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 0, 59, 1])),
        (1, frame(mac(3), mac(1), &[0x88, 0x47], &[0, 0, 0x51, 9])),
        (1, frame([1, 0x80, 0xc2, 0, 0, 0], mac(9), &[0x12, 0x34], &[])),
        (1, frame([1, 0x80, 0xc2, 0, 0, 15], mac(9), &[0x12, 0x34], &[])),
        (1, frame([1, 0x80, 0xc2, 0, 0, 16], mac(8), &[0x12, 0x34], &[])),
    ];
    for (i, (port, frame)) in frames.iter().enumerate() {
        let (theirs, mine) = (ovs.megaflow(*port, frame), megaflow(&p, *port, frame));
        // OVS forgets that it looked at the priority of VLAN 0, by which the tag stays or goes.
        let mine_0 = mine.0.replace("vid=0,pcp=3", "vid=0");
        assert_eq!(without_unseen_priority(&theirs.0), mine_0, "frame {i}");
        assert_eq!(unordered(&mine.1), unordered(&theirs.1), "frame {i}");
    }
    let macs = |text: &str| {
        let mut rows: Vec<String> = text.lines().skip(1).map(|l| l[..31].to_owned()).collect();
        rows.sort();
        (text.lines().next().map(str::to_owned), rows)
    };
    let theirs = ovs.appctl(&["fdb/show", "br0"]);
    assert_eq!(macs(&p.fdb_show("br0", 0).expect("there")), macs(&theirs));
    let static_entry = ["br0", "br0", "7", "02:00:00:00:00:aa"];
    let theirs = ovs.appctl(&[&["fdb/add"], &static_entry[..]].concat());
    assert_eq!(p.fdb_add("br0", "br0", "7", "02:00:00:00:00:aa").expect("adds"), theirs);
    let theirs = ovs.appctl(&["fdb/flush", "br0"]);
    assert_eq!(p.fdb_flush(Some("br0")).expect("flushes"), theirs);
    let theirs = ovs.appctl(&["fdb/show", "br0"]);
    assert_eq!(p.fdb_show("br0", 0).expect("there"), theirs);
    let lines = |text: &str| {
        text.lines().map(|l| l.split(':').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let theirs = ovs.appctl(&["fdb/stats-show", "br0"]);
    assert_eq!(lines(&p.fdb_stats_show("br0").expect("there")), lines(&theirs));
}

/// Reserved addresses: the same are dropped.
#[test]
fn reserved_addresses() {
    let ovs = Ovs::start(3);
    let p = switch(3);
    let mut addresses: Vec<[u8; 6]> = Vec::new();
    addresses.extend((0..18).map(|n| [0x01, 0x80, 0xc2, 0, 0, n]));
    addresses.extend((0..9).map(|n| [0x00, 0xe0, 0x2b, 0, 0, n]));
    addresses.extend((0xbe..0xd1).map(|n| [0x01, 0x00, 0x0c, 0xcc, 0xcc, n]));
    addresses.extend([
        [1, 0, 0x0c, 0xcd, 0xcd, 0xcd],
        [1, 0, 0x0c, 0, 0, 0],
        [1, 0, 0x0c, 0, 0, 1],
    ]);
    for dst in addresses {
        let frame = frame(dst, mac(1), &[0x12, 0x34], &[]);
        let (theirs, mine) = (ovs.megaflow(1, &frame).1, megaflow(&p, 1, &frame).1);
        assert_eq!(unordered(&mine), unordered(&theirs), "{}", Mac(dst));
    }
}

/// Flows with outputs: the same actions, and masks that are OVS's or, where named, wider.
#[test]
fn outputs() {
    let ovs = Ovs::start(3);
    let p = switch(3);
    let flows = "in_port=1 actions=output:2\n\
        priority=9,in_port=2,dl_src=02:01:00:00:00:00/00:01:00:00:00:00,\
        dl_dst=00:00:00:00:00:02/00:00:00:00:00:03 actions=all,in_port,output:1,2,3,local\n\
        priority=9,in_port=3,dl_vlan=10 actions=flood,drop\n";
    let flows = flows.replace("flood,drop", "flood");
    ovs.set(&[], &flows);
    set_flows(&p, &flows);
    let port_1 = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)";
    let cases = [
        (1, frame(mac(2), mac(1), &[8, 0], &ip(0)), None),
        // No flow of port 1 looks at the tag, so one megaflow does for frames with and without.
        (1, frame(mac(2), mac(1), &[0x81, 0, 0, 10, 8, 0], &ip(0)), Some(port_1)),
        (1, frame(mac(2), mac(1), &[8, 6], &arp(1, 1, 2)), None),
        (1, frame(mac(2), mac(1), &[0, 46], &[]), None),
        (2, frame(mac(2), mac(1), &[8, 0], &ip(0)), None),
        (2, frame(mac(2), [2, 1, 0, 0, 0, 1], &[8, 0], &ip(0)), None),
        (3, frame(mac(2), mac(1), &[8, 0], &ip(0)), None),
        (3, frame(mac(2), mac(1), &[0x81, 0, 0, 10, 8, 0], &ip(0)), None),
        (3, frame(mac(2), mac(1), &[0x81, 0, 0x40, 11, 8, 0], &ip(0)), None),
    ];
    for (i, (port, frame, wider)) in cases.iter().enumerate() {
        let (theirs, mine) = (ovs.megaflow(*port, frame), megaflow(&p, *port, frame));
        let expected = wider.map_or_else(|| without_unseen_priority(&theirs.0), str::to_owned);
        let masked = without_unseen_values(&expected);
        assert_eq!(without_unseen_values(&mine.0), masked, "frame {i}");
        assert_eq!(unordered(&mine.1), unordered(&theirs.1), "frame {i}");
    }
}

/// OVS prints a partly masked address with the bits that the first packet had outside the mask.
fn without_unseen_values(text: &str) -> String {
    let Some((before, rest)) = text.split_once("eth(") else {
        return text.to_owned();
    };
    let (eth, after) = rest.split_once(')').expect("closed");
    let fields = eth.split(',').map(|field| {
        let (name, value) = field.split_once('=').expect("name=value");
        match value.split_once('/') {
            None => field.to_owned(),
            Some((value, mask)) => {
                let (v, m): (Mac, Mac) = (value.parse().expect("mac"), mask.parse().expect("mac"));
                let masked = std::array::from_fn(|i| v.0[i] & m.0[i]);
                format!("{name}={}/{mask}", Mac(masked))
            }
        }
    });
    format!("{before}eth({}){after}", fields.collect::<Vec<_>>().join(","))
}
