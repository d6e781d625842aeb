//! What happens to flows in time: counts, timeouts, copies, eviction.

use flow::Seen;
use openflow::{Command, FlowMod, FullKey, FullMask, parse_flow_mod};
use std::sync::Arc;
use tables::{Reason, Removed, Rule, TableConfig, Tables};

fn flow_mod(text: &str, command: Command) -> FlowMod {
    parse_flow_mod(text, command, &()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn add(tables: &mut Tables, text: &str, now_ms: u64) {
    tables.apply(&flow_mod(text, Command::Add), now_ms).expect(text);
}

fn all() -> FlowMod {
    flow_mod("", Command::Delete)
}

/// The only flow.
fn only(tables: &Tables) -> Arc<Rule> {
    match tables.select(&all())[..] {
        [rule] => Arc::clone(rule),
        ref rules => panic!("{} flows", rules.len()),
    }
}

fn packet(now_ms: u64) -> Seen {
    Seen { packets: 1, bytes: 100, tcp_flags: 0, now_ms }
}

fn cookies(removed: &[Removed]) -> Vec<(u64, Reason)> {
    removed.iter().map(|r| (r.rule.cookie, r.reason)).collect()
}

#[test]
fn timeouts_end_flows_when_they_are_over() {
    let mut t = Tables::new();
    add(&mut t, "cookie=1,in_port=1,idle_timeout=10,actions=drop", 1000);
    add(&mut t, "cookie=2,in_port=2,hard_timeout=20,actions=drop", 1000);
    add(&mut t, "cookie=3,in_port=3,idle_timeout=10,hard_timeout=15,actions=drop", 1000);
    add(&mut t, "cookie=4,in_port=4,actions=drop", 1000);
    let rules: Vec<Arc<Rule>> = t.select(&all()).into_iter().cloned().collect();
    assert!(t.expire(10_999).is_empty());
    // Packets put off the idle timeout, but not the hard one.
    rules[2].counts.add(&packet(9_000));
    assert_eq!(cookies(&t.expire(11_000)), [(1, Reason::IdleTimeout)]);
    assert!(t.expire(15_999).is_empty());
    assert_eq!(cookies(&t.expire(16_000)), [(3, Reason::HardTimeout)]);
    // A modification begins the hard timeout anew.
    t.apply(&flow_mod("in_port=2,cookie=2,actions=1", Command::Modify), 20_000).expect("modifies");
    assert!(t.expire(39_999).is_empty());
    assert_eq!(cookies(&t.expire(40_000)), [(2, Reason::HardTimeout)]);
    assert!(t.expire(u64::MAX).is_empty());
    assert_eq!(only(&t).cookie, 4);
}

#[test]
fn fin_timeout_makes_timeouts_shorter() {
    let mut t = Tables::new();
    add(&mut t, "in_port=1,idle_timeout=100,hard_timeout=5,actions=drop", 0);
    add(&mut t, "in_port=2,actions=drop", 0);
    for rule in t.select(&all()) {
        rule.shorten(3, 50);
    }
    let timeouts = |r: &&Arc<Rule>| (r.idle_timeout(), r.hard_timeout());
    let mut now: Vec<_> = t.select(&all()).iter().map(timeouts).collect();
    now.sort_unstable();
    assert_eq!(now, [(3, 5), (3, 50)]);
    // What a copy finds out that is dropped is found out again.
    assert!(t.is_due(0) && t.clone().expire(2_999).is_empty() && t.is_due(0));
    assert!(t.expire(2_999).is_empty() && t.expire(2_999).is_empty() && !t.is_due(2_999));
    assert!(t.is_due(3_000));
    assert_eq!(t.clone().expire(3_000).len(), 2);
    assert_eq!(t.expire(3_000).len(), 2);
    // One that was replaced meanwhile stays.
    add(&mut t, "in_port=2,actions=drop", 4_000);
    let old = only(&t);
    add(&mut t, "in_port=2,actions=1", 4_000);
    old.shorten(1, 1);
    assert!(t.expire(1_000_000).is_empty());
    // 0 leaves a timeout as it is.
    only(&t).shorten(0, 0);
    assert_eq!((only(&t).idle_timeout(), only(&t).hard_timeout()), (0, 0));
}

#[test]
fn flows_that_are_gone_do_not_end_again() {
    let mut t = Tables::new();
    add(&mut t, "in_port=1,idle_timeout=1,actions=drop", 0);
    t.apply(&flow_mod("", Command::Delete), 0).expect("deletes");
    add(&mut t, "in_port=1,idle_timeout=1,actions=drop", 5_000);
    add(&mut t, "in_port=1,idle_timeout=9,actions=drop", 5_500);
    assert!(t.expire(14_499).is_empty());
    assert_eq!(t.expire(14_500).len(), 1);
    assert!(t.is_empty());
}

#[test]
fn counts_survive_a_modification_and_not_a_replacement() {
    let mut t = Tables::new();
    add(&mut t, "in_port=1,cookie=5,actions=1", 1_000);
    let old = only(&t);
    old.counts.add(&packet(1_500));
    old.counts.add(&Seen { packets: 0, bytes: 0, tcp_flags: 0, now_ms: 9_000 });
    t.apply(&flow_mod("in_port=1,actions=2", Command::Modify), 3_000).expect("modifies");
    // Cached megaflows still report to the flow that they were made from.
    old.counts.add(&packet(2_000));
    let line = " cookie=0x0, duration=3.500s, table=0, n_packets=2, n_bytes=200, idle_age=2, \
                hard_age=1, in_port=1 actions=output:2\n";
    assert_eq!(t.dump_flows(&all(), 4_500, true, &()), line);
    let sums = "NXST_AGGREGATE reply (xid=0x4): packet_count=2 byte_count=200 flow_count=1\n";
    assert_eq!(t.dump_aggregate(&all()), sums);
    t.apply(&flow_mod("in_port=1,reset_counts,actions=3", Command::Modify), 5_000)
        .expect("modifies");
    assert_eq!(only(&t).counts.packets(), 0);
    only(&t).counts.add(&packet(5_500));
    add(&mut t, "in_port=1,send_flow_rem,importance=3,idle_timeout=9,actions=1", 6_000);
    let line = " cookie=0x0, duration=1s, table=0, n_packets=0, n_bytes=0, idle_timeout=9, \
                send_flow_rem importance=3, idle_age=1, in_port=1 actions=output:1\n";
    assert_eq!(t.dump_flows(&all(), 7_000, true, &()), line);
}

/// A bundle that fails is a copy that is dropped.
#[test]
fn a_changed_copy_leaves_the_original_as_it_was() {
    let mut t = Tables::new();
    for port in 1..100 {
        let timeout = port % 5;
        add(
            &mut t,
            &format!("table={},in_port={port},idle_timeout={timeout},actions=1", port % 3),
            0,
        );
    }
    let before = t.dump_flows(&all(), 0, true, &());
    let mut copy = t.clone();
    copy.apply(&flow_mod("in_port=7", Command::Delete), 0).expect("deletes");
    copy.apply(&flow_mod("actions=2", Command::Modify), 0).expect("modifies");
    add(&mut copy, "in_port=500,actions=1", 0);
    copy.set_table_config(
        1,
        TableConfig { flow_limit: Some(10), evict: true, ..Default::default() },
    );
    assert!(!copy.expire(4_000).is_empty());
    assert_ne!(copy.dump_flows(&all(), 0, true, &()), before);
    drop(copy);
    assert_eq!(t.dump_flows(&all(), 0, true, &()), before);
    // What it looked at in the queue of timeouts does not matter to the original either.
    assert!(t.expire(999).is_empty());
    assert_eq!(t.expire(1_000).len(), 20);
    assert_eq!(t.expire(4_000).len(), 60);
    assert_eq!(t.len(), 19);
}

#[test]
fn eviction_takes_the_flow_that_would_end_first() {
    let mut t = Tables::new();
    t.set_table_config(0, TableConfig { flow_limit: Some(2), evict: true, ..Default::default() });
    add(&mut t, "cookie=1,in_port=1,idle_timeout=10,actions=1", 0);
    add(&mut t, "cookie=2,in_port=2,idle_timeout=20,actions=1", 0);
    let first = t.select(&flow_mod("in_port=1", Command::Delete))[0].clone();
    // Its packet makes it end later than the other.
    first.counts.add(&packet(15_000));
    let third = flow_mod("cookie=3,in_port=3,idle_timeout=99,actions=1", Command::Add);
    assert_eq!(cookies(&t.apply(&third, 15_000).expect("adds")), [(2, Reason::Eviction)]);
    // A lower limit evicts at once, and unimportant flows before others.
    t.apply(
        &flow_mod("cookie=4,in_port=3,importance=1,idle_timeout=1,actions=1", Command::Add),
        16_000,
    )
    .expect("replaces");
    let config = TableConfig { flow_limit: Some(1), evict: true, ..Default::default() };
    assert_eq!(cookies(&t.set_table_config(0, config)), [(1, Reason::Eviction)]);
    // Nothing to evict: refused, and nothing has changed.
    add(&mut t, "cookie=5,in_port=3,actions=1", 17_000);
    let refused = t.apply(&flow_mod("in_port=4,idle_timeout=5,actions=1", Command::Add), 17_000);
    assert_eq!(refused.expect_err("full").to_string(), "OFPFMFC_TABLE_FULL");
    assert_eq!(only(&t).cookie, 5);
}

#[test]
fn configured_prefixes_decide_what_is_followed() {
    let mut t = Tables::new();
    add(&mut t, "priority=2,ip,nw_dst=10.0.0.0/24,actions=1", 0);
    add(&mut t, "priority=1,actions=drop", 0);
    let mut key = FullKey::default();
    (key.pkt.dl_type, key.pkt.nw_dst) = (0x800.into(), 0x8000_0000.into());
    let bits = |t: &Tables| {
        let mut seen = FullMask::default();
        assert!(t.lookup(0, &key, &mut seen).is_some());
        seen.0.pkt.nw_dst.get().count_ones()
    };
    assert_eq!(bits(&t), 1);
    let prefixes = |fields| TableConfig { prefixes: Some(fields), ..Default::default() };
    t.set_table_config(0, prefixes(Vec::new()));
    assert_eq!((bits(&t), t.len()), (24, 2));
    t.set_table_config(0, prefixes(vec![openflow::field("nw_dst").expect("known")]));
    assert_eq!(bits(&t), 1);
}

/// ovs-fields(7): if the search for a conjunction's id finds no flow of its own, the others have their turn
/// by priority. That one has the same match as a part of the conjunction takes nothing from it, as it does
/// in OVS 3.1, which takes flow 4 here.
#[test]
fn a_conjunction_without_a_flow_hides_no_other() {
    let mut t = Tables::new();
    add(&mut t, "cookie=1,priority=9,ip,nw_src=10.0.0.1,actions=conjunction(1,1/2)", 0);
    add(&mut t, "cookie=2,priority=9,ip,nw_dst=10.0.0.2,actions=conjunction(1,2/2)", 0);
    add(&mut t, "cookie=3,priority=5,ip,nw_src=10.0.0.1,actions=2", 0);
    add(&mut t, "cookie=4,priority=1,actions=3", 0);
    let key =
        openflow::parse_match("ip,nw_src=10.0.0.1,nw_dst=10.0.0.2", &()).expect("a match").value;
    let found = |t: &Tables| t.lookup(0, &key, &mut FullMask::default()).map(|r| r.cookie);
    assert_eq!(found(&t), Some(3));
    // A flow for the id competes by its priority like any other.
    add(&mut t, "cookie=5,priority=4,conj_id=1,actions=4", 0);
    assert_eq!(found(&t), Some(3));
    add(&mut t, "cookie=6,priority=6,conj_id=1,actions=4", 0);
    assert_eq!(found(&t), Some(6));
}
