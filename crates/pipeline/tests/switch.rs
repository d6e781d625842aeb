//! Bridges as learning switches: what goes where, what is learned, what changes the generation.

mod support;

use flow::{Action, DpPort, FlowKey, Mac, Translate};
use openflow::Command;
use pipeline::{BridgeConfig, Error, NoteKind, OfPort, Pipeline};
use support::{add_flows, dump, flow_mods, seen, set_flows};
use zerocopy::big_endian::U16;

/// Ports 1 to 3 are datapath ports 11 to 13, and LOCAL is 10.
fn switch() -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    p.add_port("br0", "br0", OfPort::LOCAL, DpPort(10)).expect("new");
    for n in 1..=3u16 {
        p.add_port("br0", &format!("p{n}"), OfPort(n), DpPort(u32::from(n) + 10)).expect("new");
    }
    p
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn key(in_port: u32, src: Mac, dst: Mac) -> FlowKey {
    FlowKey { in_port, dl_src: src, dl_dst: dst, dl_type: U16::new(0x0800), ..FlowKey::default() }
}

/// Sends one packet; returns the datapath ports it goes to.
fn send(p: &Pipeline, key: &FlowKey, now_ms: u64) -> Vec<u32> {
    ports(&support::send(p, key, now_ms).actions)
}

fn ports(actions: &[Action]) -> Vec<u32> {
    let port = |a: &Action| match a {
        Action::Output(p) => p.0,
        other => panic!("{other:?}"),
    };
    actions.iter().map(port).collect()
}

#[test]
fn floods_then_learns() {
    let p = switch();
    assert_eq!(send(&p, &key(11, mac(1), mac(2)), 0), [12, 13, 10]);
    assert_eq!(send(&p, &key(12, mac(2), mac(1)), 0), [11]);
    assert_eq!(send(&p, &key(11, mac(1), mac(2)), 0), [12]);
    assert_eq!(send(&p, &key(11, mac(1), Mac::BROADCAST), 0), [12, 13, 10]);
    assert_eq!(send(&p, &key(12, mac(9), mac(2)), 0), [0u32; 0], "it is on the input port");
    assert_eq!(send(&p, &key(99, mac(9), mac(2)), 0), [0u32; 0], "no such port");
    let dump = dump(&p, "", true, 5100);
    assert_eq!(
        dump,
        " cookie=0x0, duration=5.100s, table=0, n_packets=5, n_bytes=500, idle_age=5, \
         priority=0 actions=NORMAL\n"
    );
}

#[test]
fn vlans_learn_apart() {
    let p = switch();
    let mut tagged = key(11, mac(1), mac(2));
    tagged.vlan[0].tpid = U16::new(0x8100);
    tagged.vlan[0].tci = U16::new(0x1064);
    send(&p, &tagged, 0);
    assert_eq!(send(&p, &key(12, mac(2), mac(1)), 0), [11, 13, 10]);
    tagged.in_port = 12;
    (tagged.dl_src, tagged.dl_dst) = (mac(2), mac(1));
    assert_eq!(send(&p, &tagged, 0), [11]);
    assert!(
        p.fdb_show("br0", 1000).expect("there").contains("    1   100  02:00:00:00:00:01    1\n")
    );
}

#[test]
fn the_generation_follows_what_matters() {
    let p = switch();
    let changes = |what: &dyn Fn(), expected: bool, why: &str| {
        let before = p.generation();
        what();
        assert_eq!(p.generation() != before, expected, "{why}");
    };
    let t = p.translate(&key(11, mac(1), mac(2)));
    changes(
        &|| {
            p.translate(&key(11, mac(1), mac(2)));
        },
        false,
        "asking changes nothing",
    );
    changes(&|| t.effects.apply(&seen(1, 60, 0)), true, "learned");
    changes(&|| t.effects.apply(&seen(7, 700, 100_000)), false, "seen again");
    changes(&|| t.effects.apply(&seen(0, 0, 999_000)), false, "nothing was seen");
    changes(&|| p.expire(399_999), false, "the cached megaflow kept it alive");
    changes(
        &|| {
            send(&p, &key(12, mac(1), mac(2)), 150_000);
        },
        true,
        "moved",
    );
    changes(&|| t.effects.apply(&seen(1, 60, 120_000)), false, "the old megaflow reports late");
    changes(&|| p.expire(450_000), true, "expired");
    changes(
        &|| {
            send(&p, &key(12, mac(1), mac(2)), 450_000);
        },
        true,
        "learned again",
    );
    changes(
        &|| {
            p.fdb_flush(None).expect("flushes");
        },
        true,
        "flushed",
    );
    changes(
        &|| {
            p.fdb_flush(Some("br0")).expect("flushes");
        },
        false,
        "nothing to flush",
    );
    changes(
        &|| {
            p.fdb_add("br0", "p1", "0", "02:00:00:00:00:09").expect("adds");
        },
        true,
        "static",
    );
    changes(
        &|| {
            add_flows(&p, "in_port=1,actions=drop", 0).expect("adds");
        },
        true,
        "flow",
    );
    changes(
        &|| {
            add_flows(&p, "in_port=1,actions=ct_clear", 0).expect_err("not yet");
        },
        false,
        "refused",
    );
    changes(&|| p.remove_port("br0", OfPort(3)).expect("there"), true, "port");
    changes(&|| p.set_bridge("br0", BridgeConfig::default()).expect("there"), false, "same");
    assert!(p.fdb_stats_show("br0").expect("there").contains("port moved MAC entries  : 1"));
}

#[test]
fn bridges_never_exchange_frames() {
    let p = switch();
    p.add_bridge("br1", BridgeConfig::default(), 0).expect("new");
    for n in 1..=2u16 {
        p.add_port("br1", &format!("q{n}"), OfPort(n), DpPort(u32::from(n) + 20)).expect("new");
    }
    assert_eq!(send(&p, &key(11, mac(1), mac(2)), 0), [12, 13, 10]);
    assert_eq!(send(&p, &key(21, mac(2), mac(1)), 0), [22], "br0's addresses mean nothing here");
    let names = p.names("br1").expect("there");
    let flow = openflow::parse_flow_mod("actions=1,2,3,local,all", Command::Add, &names);
    p.flow_mods("br1", &[flow.expect("valid")], 0).expect("valid");
    assert_eq!(send(&p, &key(21, mac(2), mac(1)), 0), [22, 22]);
    p.remove_bridge("br1").expect("there");
    assert_eq!(send(&p, &key(21, mac(2), mac(1)), 0), [0u32; 0]);
    assert_eq!(send(&p, &key(11, mac(1), mac(2)), 0), [12, 13, 10]);
}

#[test]
fn a_removed_port_is_forgotten_at_once_and_for_good() {
    let p = switch();
    send(&p, &key(11, mac(1), mac(2)), 0);
    let stale = p.translate(&key(11, mac(1), mac(2)));
    p.remove_port("br0", OfPort(1)).expect("there");
    assert_eq!(send(&p, &key(12, mac(2), mac(1)), 0), [13, 10]);
    p.add_port("br0", "again", OfPort(1), DpPort(11)).expect("free again");
    stale.effects.apply(&seen(1, 60, 10));
    assert_eq!(send(&p, &key(12, mac(2), mac(1)), 0), [11, 13, 10], "floods: not learned");
}

#[test]
fn reserved_addresses_stay_on_the_link_unless_told() {
    let p = switch();
    let stp = key(11, mac(1), Mac([0x01, 0x80, 0xc2, 0, 0, 0]));
    let noted = p.translate_noting(&stp, true).expect("a port of br0");
    let t = &noted.translation;
    t.effects.apply(&seen(1, 60, 0));
    assert!(t.actions.is_empty());
    let table = &noted.notes[0].notes[0];
    assert_eq!((table.kind, table.text.as_str()), (NoteKind::Table, " 0. priority 0"));
    let why = table.notes.last().expect("a reason");
    assert_eq!(why.text, "packet has reserved destination MAC, dropping");
    assert_eq!(p.fdb_show("br0", 0).expect("there").lines().count(), 1, "nothing learned");
    let config = BridgeConfig { forward_bpdu: true, ..BridgeConfig::default() };
    p.set_bridge("br0", config).expect("there");
    assert_eq!(send(&p, &stp, 0), [12, 13, 10]);
}

#[test]
fn refusals_say_what_is_wrong() {
    let p = switch();
    let dp = DpPort(50);
    let told = |r: Result<(), Error>| r.expect_err("refused").to_string();
    assert_eq!(told(p.add_bridge("br0", BridgeConfig::default(), 0)), "bridge br0 exists already");
    assert_eq!(told(p.remove_bridge("x")), "no such bridge: x");
    assert_eq!(told(p.add_port("br0", "p1", OfPort(9), dp)), "bridge br0 has a port p1 already");
    assert_eq!(told(p.add_port("br0", "p9", OfPort(1), dp)), "bridge br0 has a port 1 already");
    assert!(told(p.add_port("br0", "p9", OfPort(0), dp)).starts_with("0 is not an OpenFlow port"));
    assert_eq!(
        told(p.add_port("br0", "p9", OfPort(9), DpPort(11))),
        "datapath port 11 is in use by bridge br0"
    );
    assert_eq!(told(p.remove_port("br0", OfPort(9))), "bridge br0 has no port 9");
}

#[test]
fn many_changes_are_made_all_or_none() {
    let p = switch();
    let before = dump(&p, "", false, 0);
    let generation = p.generation();
    for (text, number, why) in [
        ("in_port=1,actions=2\nin_port=2,actions=group:7", 1, "OFPBAC_BAD_OUT_GROUP"),
        ("delete\nin_port=1,actions=clone(2,ct_clear)", 1, "ct_clear: connection tracking"),
        ("in_port=1,actions=meter:4", 0, "OFPMMFC_INVALID_METER"),
        (
            "in_port=1,actions=2\nin_port=1,check_overlap,dl_type=0x1234,actions=3",
            1,
            "OFPFMFC_OVERLAP",
        ),
    ] {
        let names = p.names("br0").expect("there");
        let mods = openflow::parse_flow_mods(text, Command::Add, &names).expect(text);
        let (i, told) = p.flow_mods("br0", &mods, 0).expect_err(text);
        assert!(i == number && told.to_string().contains(why), "{text}: {i} {told}");
        assert!(!told.to_string().contains('\n'));
        assert_eq!(
            (dump(&p, "", false, 0), p.generation()),
            (before.clone(), generation),
            "{text}"
        );
    }
    add_flows(&p, "delete\nadd in_port=p2,actions=p1 # x\nmodify in_port=2,actions=p3", 0)
        .expect("valid");
    assert_eq!(dump(&p, "", false, 0), " in_port=2 actions=output:3\n");
}

#[test]
fn modifying_keeps_counts_and_adding_again_resets_them() {
    let p = switch();
    add_flows(&p, "in_port=1,actions=2", 0).expect("valid");
    send(&p, &key(11, mac(1), mac(2)), 0);
    let old = p.translate(&key(11, mac(1), mac(2)));
    flow_mods(&p, "actions=3", Command::Modify, 0).expect("valid");
    old.effects.apply(&seen(2, 200, 0));
    let text = dump(&p, "in_port=1", true, 0);
    assert!(
        text.contains("n_packets=3, n_bytes=300, idle_age=0, in_port=1 actions=output:3"),
        "{text}"
    );
    add_flows(&p, "in_port=1,actions=3", 0).expect("valid");
    let text = dump(&p, "in_port=1", true, 0);
    assert!(
        text.contains("n_packets=0, n_bytes=0, idle_age=0, in_port=1 actions=output:3"),
        "{text}"
    );
}

/// Readers see each change whole while it is made.
#[test]
fn readers_run_beside_changes() {
    let p = switch();
    set_flows(&p, "in_port=1,actions=2,3");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let t = p.translate(&key(11, mac(1), mac(2)));
                    t.effects.apply(&seen(1, 1, 0));
                    let out = ports(&t.actions);
                    assert!(out == [12, 13] || out == [13, 12], "{out:?}");
                }
            });
        }
        for i in 0..300 {
            let order = if i % 2 == 0 { "3,2" } else { "2,3" };
            set_flows(&p, &format!("in_port=1,actions={order}"));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
