//! Bridges as learning switches: what goes where, what is learned, what changes the generation.

use flow::{Action, DpPort, FlowKey, Mac, Translate};
use pipeline::{BridgeConfig, DumpOptions, Error, Note, OfPort, Pipeline};
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
    let t = p.translate(key);
    t.effects.apply(1, 100, now_ms);
    ports(&t.actions)
}

fn ports(actions: &[Action]) -> Vec<u32> {
    let port = |a: &Action| match a {
        Action::Output(p) => p.0,
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
    let dump = p.dump_flows("br0", "", DumpOptions::default(), 5100).expect("dumps");
    assert_eq!(
        dump,
        " cookie=0x0, duration=5.1s, table=0, n_packets=5, n_bytes=500, priority=0 actions=NORMAL\n"
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
    changes(&|| t.effects.apply(1, 60, 0), true, "learned");
    changes(&|| t.effects.apply(7, 700, 100_000), false, "seen again");
    changes(&|| t.effects.apply(0, 0, 999_000), false, "nothing was seen");
    changes(&|| p.expire(399_999), false, "the cached megaflow kept it alive");
    changes(
        &|| {
            send(&p, &key(12, mac(1), mac(2)), 150_000);
        },
        true,
        "moved",
    );
    changes(&|| t.effects.apply(1, 60, 120_000), false, "the old megaflow reports late");
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
            p.add_flow("br0", "in_port=1,actions=drop", 0).expect("adds");
        },
        true,
        "flow",
    );
    changes(
        &|| {
            p.add_flow("br0", "in_port=1", 0).expect_err("no actions");
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
    p.add_flow("br1", "actions=1,2,3,local,all", 0).expect("valid");
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
    stale.effects.apply(1, 60, 10);
    assert_eq!(send(&p, &key(12, mac(2), mac(1)), 0), [11, 13, 10], "floods: not learned");
}

#[test]
fn reserved_addresses_stay_on_the_link_unless_told() {
    let p = switch();
    let stp = key(11, mac(1), Mac([0x01, 0x80, 0xc2, 0, 0, 0]));
    let mut why = Vec::new();
    let t = p.translate_noting(&stp, &mut |note| why.push(note));
    t.effects.apply(1, 60, 0);
    assert!(t.actions.is_empty());
    assert_eq!(why[0], Note::Table { table: 0, flow: Some((0, 0)) });
    assert_eq!(why[1], Note::Reason("packet has reserved destination MAC, dropping"));
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
fn wrong_flows_are_refused_in_one_line() {
    let p = switch();
    let cases = [
        ("in_port=1", "must specify an action: the flow has no actions="),
        ("foo=1,actions=drop", "unknown keyword foo; known are in_port, dl_src"),
        ("dl_scr=02:00:00:00:00:01,actions=drop", "unknown keyword dl_scr; did you mean dl_src?"),
        ("prority=1,actions=drop", "unknown keyword prority; did you mean priority?"),
        ("ip,nw_src=10.0.0.1,actions=drop", "field nw_src is not supported yet"),
        ("reg5=1,actions=drop", "field reg5 is not supported yet"),
        ("tcp,actions=drop", "field tcp is not supported yet"),
        ("idle_timeout=5,actions=drop", "field idle_timeout is not supported yet"),
        ("in_port,actions=drop", "field in_port missing value"),
        ("in_port=abc actions=drop", "abc: invalid or unknown port for in_port"),
        ("in_port=1/2 actions=drop", "1/2: invalid or unknown port for in_port"),
        ("dl_src=1 actions=drop", "1: invalid Ethernet address"),
        ("dl_src=1:2:3:4:5:6/ff actions=drop", "ff: invalid Ethernet address"),
        (
            "dl_type=0x10000,actions=drop",
            "0x10000: value too large for dl_type, which is at most 65535",
        ),
        ("dl_type=0x88/0xff,actions=drop", "0x88/0xff: invalid mask for field dl_type"),
        ("priority=x actions=drop", "x: bad value for priority: not a number"),
        ("table=300 actions=drop", "300: unknown table; tables are 0 to 253"),
        ("dl_vlan=5000,actions=drop", "5000: value too large for dl_vlan, which is at most 4095"),
        ("actions=foo", "unknown action foo"),
        ("actions=norml", "unknown action norml; did you mean normal?"),
        ("actions=mod_dl_src:1:2:3:4:5:6", "action mod_dl_src is not supported yet"),
        ("actions=resubmit(,1)", "action resubmit is not supported yet"),
        ("actions=set_field:1->reg1", "action set_field is not supported yet"),
        ("actions=output:foo", "foo: output to unknown port; give a number up to 65279"),
        ("actions=70000", "70000: output to unknown port"),
        ("actions=drop,1", "\"drop\" must not be accompanied by any other action"),
        ("cookie=1/2,actions=1", "flow additions cannot use a cookie mask"),
        ("é=1,actions=1", "unknown keyword é"),
        ("actions=é", "unknown action é"),
    ];
    for (text, expected) in cases {
        let told = p.add_flow("br0", text, 0).expect_err(text).to_string();
        assert!(told.starts_with(expected), "{text}: {told}");
        assert!(!told.contains('\n'));
    }
    let told = p.del_flows("br0", "cookie=1").expect_err("no mask").to_string();
    assert!(told.contains("e.g. cookie=1/-1"), "{told}");
}

#[test]
fn many_flows_load_all_or_none() {
    let p = switch();
    let before = p.dump_flows("br0", "", DumpOptions::default(), 0).expect("dumps");
    let text = "# comment\n\nin_port=1,actions=2\nin_port=2,actions=out:1\n";
    let told = p.add_flows("br0", text, 0).expect_err("line 4 is wrong").to_string();
    assert_eq!(told, "line 4: unknown action out");
    assert_eq!(p.dump_flows("br0", "", DumpOptions::default(), 0).expect("dumps"), before);
    p.add_flows("br0", "delete\nadd in_port=p2,actions=p1 # x\nmodify in_port=2,actions=p3", 0)
        .expect("valid");
    let options = DumpOptions { names: true, stats: false };
    let dump = p.dump_flows("br0", "", options, 0).expect("dumps");
    assert_eq!(dump, " in_port=p2 actions=output:p3\n");
}

#[test]
fn modifying_keeps_counts_and_adding_again_resets_them() {
    let p = switch();
    p.add_flow("br0", "in_port=1,actions=2", 0).expect("valid");
    send(&p, &key(11, mac(1), mac(2)), 0);
    let old = p.translate(&key(11, mac(1), mac(2)));
    p.mod_flows("br0", "actions=3", 0).expect("valid");
    old.effects.apply(2, 200, 0);
    let dump =
        |p: &Pipeline| p.dump_flows("br0", "in_port=1", DumpOptions::default(), 0).expect("ok");
    assert!(dump(&p).contains("n_packets=3, n_bytes=300, in_port=1 actions=output:3"));
    p.add_flow("br0", "in_port=1,actions=3", 0).expect("valid");
    assert!(dump(&p).contains("n_packets=0, n_bytes=0, in_port=1 actions=output:3"));
}

/// Readers see each change whole while it is made.
#[test]
fn readers_run_beside_changes() {
    let p = switch();
    p.add_flows("br0", "delete\nin_port=1,actions=2,3", 0).expect("valid");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let t = p.translate(&key(11, mac(1), mac(2)));
                    t.effects.apply(1, 1, 0);
                    let out = ports(&t.actions);
                    assert!(out == [12, 13] || out == [13, 12], "{out:?}");
                }
            });
        }
        for i in 0..300 {
            let order = if i % 2 == 0 { "3,2" } else { "2,3" };
            p.add_flows("br0", &format!("delete\nin_port=1,actions={order}"), 0).expect("valid");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
