//! What packets cause: flows learned, timeouts shortened, statistics, recirculation.

mod support;

use flow::{Action, FlowKey, PuntReason, Seen, Translate, Translation};
use openflow::{Command, FullKey, OfPort};
use pipeline::Pipeline;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use support::{add_flows, dump, flow_mods, key, seen, send, set_flows, set_groups, switch};

const TCP: &str = "in_port=1,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,dl_type=0x0800,\
    nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_proto=6,nw_ttl=64,tp_src=1000,tp_dst=80";

fn outputs(t: &Translation) -> Vec<u32> {
    let ports = t.actions.iter().filter_map(|a| match a {
        Action::Output(p) => Some(p.0),
        _ => None,
    });
    ports.collect()
}

/// A switch that learns by flows alone: table 1 says where addresses are.
const LEARNING: &str = "table=0,actions=learn(table=1,hard_timeout=10,NXM_OF_VLAN_TCI[0..11],\
    NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),resubmit(,1)\n\
    table=1,priority=0,actions=flood";

#[test]
fn a_learned_flow_is_met_by_the_next_packet() {
    let p = switch(3);
    set_flows(&p, LEARNING);
    let there = key(TCP);
    let back = FlowKey { in_port: 2, dl_src: there.dl_dst, dl_dst: there.dl_src, ..there };
    assert_eq!(outputs(&p.translate(&there)), [2, 3, 100]);
    assert!(!dump(&p, "table=1", false, 0).contains("dl_dst"), "asking teaches nothing");
    send(&p, &there, 0);
    assert_eq!(outputs(&send(&p, &back, 0)), [1]);
    assert_eq!(outputs(&send(&p, &there, 0)), [2]);
    assert_eq!(
        dump(&p, "table=1,dl_dst=02:00:00:00:00:01", false, 0),
        " table=1, hard_timeout=10, vlan_tci=0x0000/0x0fff,dl_dst=02:00:00:00:00:01 actions=output:1\n"
    );
}

#[test]
fn what_is_learned_again_lasts_and_what_is_not_ends() {
    let p = switch(3);
    set_flows(&p, LEARNING);
    let t = send(&p, &key(TCP), 0);
    let generation = p.generation();
    for now in (1..=20).map(|s| s * 1000) {
        t.effects.apply(&seen(1, 60, now));
        p.expire(now);
    }
    assert_eq!(p.generation(), generation, "nothing that matters has changed");
    assert!(dump(&p, "table=1", false, 0).contains("dl_dst"));
    p.expire(29_000);
    assert!(dump(&p, "table=1", false, 0).contains("dl_dst"));
    p.expire(30_100);
    assert!(!dump(&p, "table=1", false, 0).contains("dl_dst"));
    assert_ne!(p.generation(), generation);
    t.effects.apply(&seen(1, 60, 31_000));
    assert!(dump(&p, "table=1", false, 0).contains("dl_dst"), "a late packet teaches again");
}

#[test]
fn learning_stops_at_its_limit_and_says_so() {
    let p = switch(3);
    set_flows(
        &p,
        "table=0,actions=learn(table=1,limit=2,cookie=7,result_dst=reg0[0],eth_src,load:1->reg1[]),resubmit(,2)\n\
         table=2,reg0=1,actions=2\ntable=2,reg0=0,actions=3",
    );
    let from = |n: u8| FlowKey { dl_src: flow::Mac([2, 0, 0, 0, 0, n]), ..key(TCP) };
    for n in 1..=2 {
        assert_eq!(outputs(&send(&p, &from(n), 0)), [2]);
    }
    assert_eq!(outputs(&send(&p, &from(3), 0)), [3]);
    assert_eq!(outputs(&send(&p, &from(1), 0)), [2], "it is there already");
    assert_eq!(dump(&p, "table=1", false, 0).lines().count(), 2);
    flow_mods(&p, "table=1,dl_src=02:00:00:00:00:01", Command::Delete, 0).expect("deletes");
    assert_eq!(outputs(&send(&p, &from(3), 0)), [2]);
}

/// At the limit, what is there is neither changed nor forgotten.
#[test]
fn a_learned_flow_stays_as_it_is_at_the_limit() {
    let p = switch(3);
    set_flows(
        &p,
        "table=0,actions=learn(table=1,limit=1,hard_timeout=10,result_dst=reg0[0],\
         NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),resubmit(,2)\n\
         table=2,reg0=1,actions=2\ntable=2,reg0=0,actions=LOCAL",
    );
    let from = |in_port: u32| FlowKey { in_port, ..key(TCP) };
    assert_eq!(outputs(&send(&p, &from(1), 0)), [2]);
    assert_eq!(outputs(&send(&p, &from(3), 1000)), [100], "it would output to port 3");
    let learned = || dump(&p, "table=1", false, 0);
    assert!(learned().ends_with("actions=output:1\n"), "{}", learned());
    assert_eq!(outputs(&send(&p, &from(1), 8000)), [2]);
    p.expire(15_000);
    assert!(learned().ends_with("actions=output:1\n"), "its time began anew");
    p.expire(18_100);
    assert_eq!(learned(), "");
}

/// A flow that had packets is looked at again when they could be too long ago, not each second.
#[test]
fn timeouts_are_put_in_order_once() {
    let p = switch(3);
    set_flows(&p, "idle_timeout=5,actions=2");
    send(&p, &key(TCP), 4000);
    let due = |now: u64| p.tables("br0").expect("there").is_due(now);
    let generation = p.generation();
    assert!(due(6000));
    p.expire(6000);
    assert!(!due(8900) && due(9000));
    assert_eq!(p.generation(), generation, "no packet is forwarded otherwise");
    p.expire(9000);
    assert_eq!(dump(&p, "", false, 0), "");
    assert_ne!(p.generation(), generation);
}

#[test]
fn learned_flows_go_with_their_teacher_if_asked() {
    let p = switch(3);
    let learn = |cookie: u8| {
        format!("learn(table=1,delete_learned,cookie={cookie},eth_src,load:1->reg1[])")
    };
    set_flows(
        &p,
        &format!(
            "in_port=1,actions={}\nin_port=2,actions={0}\nin_port=3,actions={}",
            learn(1),
            learn(2)
        ),
    );
    for port in 1..=3 {
        let src = flow::Mac([2, 0, 0, 0, 0, port]);
        send(&p, &FlowKey { in_port: port.into(), dl_src: src, ..key(TCP) }, 0);
    }
    let learned = || dump(&p, "table=1", false, 0).lines().count();
    assert_eq!(learned(), 3);
    flow_mods(&p, "table=0,in_port=1", Command::Delete, 0).expect("deletes");
    assert_eq!(learned(), 3, "port 2 still teaches cookie 1");
    flow_mods(&p, "table=0,in_port=2,actions=drop", Command::Modify, 0).expect("changes");
    assert_eq!(learned(), 1);
    flow_mods(&p, "table=0", Command::Delete, 0).expect("deletes");
    assert_eq!(learned(), 0);
}

/// Who teaches waits for nobody: while others change flows, and everything is learned in the end.
#[test]
fn teaching_goes_on_beside_changes() {
    let p = switch(3);
    set_flows(&p, LEARNING);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut n = 0u32;
            while !done.load(Relaxed) {
                n += 1;
                add_flows(&p, &format!("table=5,priority=1,in_port={},actions=2", n % 50), 0)
                    .expect("valid");
            }
        });
        let taught: Vec<_> = (0..2)
            .map(|thread: u8| {
                let p = &p;
                s.spawn(move || {
                    for n in 0..=250 {
                        let dl_src = flow::Mac([2, 0, 0, 1, thread, n]);
                        send(p, &FlowKey { dl_src, ..key(TCP) }, 0);
                    }
                })
            })
            .collect();
        taught.into_iter().for_each(|t| t.join().expect("taught"));
        done.store(true, Relaxed);
    });
    p.expire(0);
    assert_eq!(dump(&p, "table=1", false, 0).matches("dl_dst").count(), 502);
}

#[test]
fn the_end_of_a_connection_shortens_timeouts() {
    let p = switch(3);
    set_flows(&p, "idle_timeout=60,tcp,actions=fin_timeout(idle_timeout=5),2");
    let t = send(&p, &key(TCP), 0);
    p.expire(20_000);
    assert!(dump(&p, "", false, 0).contains("idle_timeout=60"));
    t.effects.apply(&Seen { tcp_flags: 0x11, ..seen(1, 60, 21_000) });
    assert!(dump(&p, "", false, 0).contains("idle_timeout=5"));
    p.expire(27_000);
    assert_eq!(dump(&p, "", false, 0), "");
}

#[test]
fn each_rule_table_and_bucket_is_counted() {
    let p = switch(3);
    set_flows(&p, "");
    set_groups(
        &p,
        &["group_id=1,type=ff,bucket=watch_port=3,actions=3,bucket=watch_port=2,actions=2"],
    );
    set_flows(&p, "actions=resubmit(,1),resubmit(,9)\ntable=1,actions=group:1");
    p.set_port_state("br0", OfPort(3), false).expect("there");
    send(&p, &key(TCP), 0).effects.apply(&seen(4, 400, 10));
    assert_eq!(dump(&p, "", true, 10).matches("n_packets=5, n_bytes=500").count(), 2);
    let tables = p.tables("br0").expect("there");
    let counts = |t| (tables.counters(t).lookups(), tables.counters(t).matches());
    assert_eq!((counts(0), counts(1), counts(9)), ((5, 5), (5, 5), (5, 0)));
    let groups = p.groups("br0").expect("there");
    let counts = &groups.get(1).expect("there").counts;
    assert_eq!(counts.whole(), (5, 500));
    assert_eq!(counts.buckets().collect::<Vec<_>>(), [(0, 0), (5, 500)]);
}

/// Groups that watch each other, themselves, and each the next in two ways: what they come to is known
/// at once, and a packet finds nothing alive but at the end of the chain.
#[test]
fn groups_may_watch_each_other_in_any_way() {
    let p = switch(3);
    let watching = |kind: &str, n: u32, next: u32| {
        format!(
            "group_id={n},type={kind},bucket=watch_group={next},actions=1,\
             bucket=watch_group={next},actions=2"
        )
    };
    for kind in ["ff", "select"] {
        let mut groups: Vec<String> = (1..200).map(|n| watching(kind, n, n + 1)).collect();
        groups.push(watching(kind, 300, 300));
        let sent = |p: &Pipeline, groups: &[String], id: u32| {
            set_flows(p, "");
            set_groups(p, &groups.iter().map(String::as_str).collect::<Vec<_>>());
            set_flows(p, &format!("actions=group:{id}"));
            outputs(&p.translate(&FlowKey { in_port: 3, ..key(TCP) }))
        };
        assert!(sent(&p, &groups, 1).is_empty() && sent(&p, &groups, 300).is_empty());
        groups.push("group_id=200,type=ff,bucket=watch_port=2,actions=2".to_owned());
        assert_eq!(sent(&p, &groups, 1).len(), 1, "{kind}");
    }
}

#[test]
fn fast_failover_follows_the_links() {
    let p = switch(3);
    set_flows(&p, "");
    set_groups(
        &p,
        &[
            "group_id=2,type=ff,bucket=watch_port=3,actions=3",
            "group_id=1,type=ff,bucket=watch_port=2,actions=2,bucket=watch_group=2,actions=group:2",
        ],
    );
    set_flows(&p, "actions=group:1");
    let goes = |expected: &[u32]| assert_eq!(outputs(&p.translate(&key(TCP))), expected);
    goes(&[2]);
    let generation = p.generation();
    p.set_port_state("br0", OfPort(2), true).expect("there");
    assert_eq!(p.generation(), generation, "it was up before");
    p.set_port_state("br0", OfPort(2), false).expect("there");
    assert_ne!(p.generation(), generation);
    goes(&[3]);
    p.remove_port("br0", OfPort(3)).expect("there");
    goes(&[]);
    p.set_port_state("br0", OfPort(2), true).expect("there");
    goes(&[2]);
    p.set_port_state("br0", OfPort(3), true).expect_err("gone");
}

/// A select group spreads flows by weight, keeps each where it is, and looks at what it hashes.
#[test]
fn select_groups_spread_by_weight() {
    let p = switch(3);
    set_flows(&p, "");
    let group = |rest: &str| {
        format!(
            "group_id=1,type=select,{rest}bucket=weight:10,actions=2,bucket=weight:30,actions=3"
        )
    };
    let spread = || {
        let ports = (0..4000u16).map(|n| {
            let k = FlowKey { tp_src: n.into(), ..key(TCP) };
            let t = p.translate(&k);
            assert_eq!(outputs(&p.translate(&k)), outputs(&t));
            (outputs(&t)[0], t.mask)
        });
        ports.collect::<Vec<_>>()
    };
    for (rest, looks_at_source) in [
        ("", true),
        ("selection_method=hash,fields(tcp_src),", true),
        ("selection_method=hash,fields(tcp_dst),", false),
    ] {
        set_flows(&p, "");
        set_groups(&p, &[&group(rest)]);
        set_flows(&p, "actions=group:1");
        let spread = spread();
        let second = spread.iter().filter(|(port, _)| *port == 2).count();
        let fair = if looks_at_source { 850..1150 } else { 0..4001 };
        assert!(fair.contains(&second), "{rest}: {second}");
        assert!(spread.iter().all(|(_, m)| (m.bits().tp_src.get() != 0) == looks_at_source));
    }
}

#[test]
fn a_popped_label_brings_the_packet_back() {
    let p = switch(3);
    set_flows(
        &p,
        "mpls,actions=load:5->reg0[],pop_mpls:0x0800,resubmit(,1),3\n\
         table=1,reg0=5,tcp,tcp_dst=80,actions=dec_ttl,2\ntable=1,actions=4",
    );
    let mpls = key("in_port=1,dl_type=0x8847,mpls_label=9,mpls_ttl=7,mpls_bos=1");
    let first = p.translate(&mpls);
    let [Action::PopMpls { ethertype: 0x0800 }, Action::Recirc(id)] = first.actions[..] else {
        panic!("{:?}", first.actions)
    };
    assert_eq!(p.translate(&mpls).actions, first.actions, "the same state has the same number");
    let again = FlowKey { recirc_id: id, ..key(TCP) };
    let t = p.translate(&again);
    assert_eq!(outputs(&t), [2, 3]);
    assert!(matches!(t.actions[0], Action::Set(_)));
    assert_eq!((t.mask.bits().tp_dst.get(), t.mask.bits().recirc_id), (0xffff, u32::MAX));
    t.effects.apply(&seen(1, 60, 0));
    assert!(dump(&p, "table=1,tcp", true, 0).contains("n_packets=1"));
    assert_eq!(p.recirculations(), 1);
    drop(first);
    assert_eq!(p.recirculations(), 0);
    assert!(p.translate(&again).actions.is_empty(), "nobody knows what was to be done");
}

#[test]
fn packet_out_runs_actions_of_its_own() {
    let p = switch(3);
    set_flows(&p, "in_port=CONTROLLER,actions=3\npriority=0,actions=controller");
    let full = FullKey::new(&key(TCP).clone(), 0);
    let out = |port: OfPort, actions: &str| {
        let actions = openflow::parse_actions(actions, &()).expect("valid");
        p.packet_out("br0", port, &actions, &full)
    };
    assert_eq!(
        outputs(&out(OfPort::CONTROLLER, "mod_dl_dst:02:00:00:00:00:09,1,table").expect("runs")),
        [1, 3]
    );
    assert_eq!(outputs(&out(OfPort(1), "in_port,1,2").expect("runs")), [1, 2]);
    assert_eq!(outputs(&out(OfPort::NONE, "normal").expect("runs")), [1, 2, 3, 100]);
    let punt = out(OfPort::NONE, "controller").expect("runs");
    assert!(matches!(&punt.actions[..], [Action::Punt(p)] if p.reason == PuntReason::PacketOut));
    assert!(out(OfPort(1), "ct_clear").is_err());
    assert!(p.packet_out("br9", OfPort(1), &[], &full).is_err());
}

#[test]
fn controllers_are_told_where_and_why() {
    let p = switch(3);
    set_flows(
        &p,
        "table=0,actions=load:5->reg3[],write_metadata:0x10,goto_table:1\n\
         table=1,cookie=0x77,actions=controller(id=4,max_len=99,userdata=01.02)\n",
    );
    let t = p.translate(&key(TCP));
    let [Action::Punt(punt)] = &t.actions[..] else { panic!("{:?}", t.actions) };
    assert_eq!((punt.table, punt.cookie, punt.controller, punt.max_len), (1, 0x77, 4, 99));
    assert_eq!((punt.userdata.as_slice(), punt.in_port), (&[1, 2][..], 1));
    assert_eq!(punt.metadata, "reg3=0x5,metadata=0x10");
    assert_eq!(p.bridge_name(punt.bridge), Some("br0".to_owned()));
    assert_eq!(p.bridge_number("br0").expect("there"), punt.bridge);
}

/// Whatever is loaded, one packet costs a bounded amount of work and stack.
#[test]
fn loops_and_explosions_end() {
    // A polling thread's stack.
    let small = std::thread::Builder::new().stack_size(2 << 20);
    let run = small.spawn(|| {
        let p = switch(3);
        let error = |p: &Pipeline| {
            p.translate_noting(&key(TCP), false).expect("a port").error.unwrap_or("none")
        };
        set_flows(&p, "actions=resubmit(,0)");
        assert_eq!(error(&p), "Recursion too deep");
        let chain = |step: &dyn Fn(u8) -> String| {
            (0..253).map(|t| format!("table={t},actions={}\n", step(t))).collect::<String>()
        };
        set_flows(&p, &(chain(&|t| format!("resubmit(,{})", t + 1)) + "table=253,actions=2"));
        assert_eq!(outputs(&p.translate(&key(TCP))), [2]);
        set_flows(
            &p,
            &(chain(&|t| format!("clone(resubmit(,{}))", t + 1))
                + "table=253,actions=resubmit(,0)"),
        );
        assert_eq!(error(&p), "Recursion too deep");
        set_flows(
            &p,
            &(chain(&|t| format!("resubmit(,{0}),resubmit(,{0})", t + 1)) + "table=253,actions=2"),
        );
        assert_eq!(error(&p), "Too many resubmits");
        let checks =
            (0..30).map(|n| format!("check_pkt_larger(100)->reg0[{n}],")).collect::<String>();
        set_flows(&p, &format!("actions={checks}2"));
        assert_eq!(error(&p), "Too many actions");
        set_flows(&p, "");
        let buckets = |to: u32| {
            format!(
                "group_id={},type=all{}",
                to - 1,
                format!(",bucket=actions=group:{to}").repeat(9)
            )
        };
        let lines: Vec<String> = (2..20)
            .map(buckets)
            .chain(["group_id=19,type=all,bucket=actions=2".to_owned()])
            .collect();
        set_groups(&p, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        set_flows(&p, "actions=group:1");
        assert_eq!(error(&p), "Too many resubmits");
    });
    run.expect("a thread").join().expect("no overflow");
}
