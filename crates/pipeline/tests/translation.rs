//! Translations of random tables and packets: every packet that agrees with a translated one in the
//! mask gets the same answer, whatever the tables do; and the flow that matches is the one that a
//! table searched flow by flow gives.

mod support;

use flow::{Action, DpPort, FlowKey, FlowMask, Mac, Translate, ip_proto};
use openflow::{Command, parse_match};
use pipeline::{
    BridgeConfig, MirrorConfig, MirrorOutput, OfPort, Pipeline, PortColumns, PortConfig, Selected,
    VlanSet,
};
use proptest::prelude::*;
use proptest::sample::select;
use support::{add_flows, flow_mods, key, merge, seen, set_flows, set_groups, switch};
use zerocopy::big_endian::{U16, U32};

/// What flows match, by kind of packet.
const MATCHES: &[&[&str]] = &[
    &["", "in_port=1", "in_port=2", "reg0=0", "reg0=1", "reg1=0x10000/0x10000", "metadata=5/0xf"],
    &[
        "eth_dst=02:00:00:00:00:02",
        "eth_src=02:00:00:00:00:00/ff:ff:ff:ff:ff:f0",
        "vlan_tci=0/0x1000",
    ],
    &[
        "dl_vlan=5",
        "vlan_tci=0x1000/0x1000",
        "dl_vlan_pcp=3",
        "vlan_tci=0x1005/0x1fff",
        "dl_vlan=0",
    ],
    &[
        "ip",
        "ip,nw_dst=10.0.0.0/24",
        "ip,nw_src=10.0.0.1",
        "ip,nw_ttl=1",
        "ip,nw_tos=4",
        "ip,ip_frag=no",
    ],
    &["tcp", "tcp,tcp_dst=80", "tcp,tcp_src=0x100/0xff00", "tcp,tcp_flags=+syn", "udp,udp_dst=53"],
    &["ipv6", "tcp6,tcp_dst=80", "ipv6,ipv6_dst=fe80::/16", "icmp6,icmpv6_type=135,icmpv6_code=0"],
    &["arp", "arp,arp_op=1", "arp,arp_tpa=10.0.0.2"],
    &["mpls", "mpls,mpls_label=5", "mpls,mpls_bos=1", "mplsm,mpls_tc=1"],
];

/// Actions that suit the packets of each kind, and those of the first any.
const ACTIONS: &[&[&str]] = &[
    &[
        "output:1",
        "output:2",
        "output:3",
        "in_port",
        "normal",
        "flood",
        "LOCAL",
        "load:1->reg0[]",
        "load:0->reg0[]",
        "load:5->metadata",
        "move:reg0[0..15]->reg1[16..31]",
        "move:eth_src->eth_dst",
        "mod_dl_dst:02:00:00:00:00:02",
        "mod_dl_src:02:00:00:00:00:07",
        "load:0x3->eth_src[0..7]",
        "move:eth_dst[0..3]->reg0[0..3]",
        "mod_vlan_vid:5",
        "mod_vlan_pcp:3",
        "strip_vlan",
        "push_vlan:0x8100",
        "load:0x1005->vlan_tci",
        "load:7->vlan_tci[0..11]",
        "load:0->vlan_tci",
        "move:vlan_tci->reg1[0..15]",
        "move:reg1[0..15]->vlan_tci",
        "resubmit(,1)",
        "resubmit(2,2)",
        "resubmit(,3)",
        "push:eth_src[]",
        "pop:eth_dst[]",
        "push:reg1[]",
        "pop:reg0[0..7]",
        "exit",
        "set_queue:3",
        "pop_queue",
        "output:reg0[0..1]",
        "clone(mod_dl_dst:02:00:00:00:00:09,output:2)",
        "clone(strip_vlan,output:3,load:1->reg0[])",
        "clone(output(port=2,max_len=60),push_vlan:0x88a8,3)",
        "check_pkt_larger(100)->reg0[0]",
        "output(port=3,max_len=64)",
        "controller",
        "group:1",
        "group:2",
        "group:3",
        "load:2->in_port",
        "load:9->NXM_NX_PKT_MARK[]",
        "multipath(symmetric_l4,0,modulo_n,4,0,reg0[0..7])",
        "bundle(nw_src,0,hrw,ofport,members:2,3)",
        "learn(table=9,eth_dst=eth_src,load:reg0[0..7]->reg1[0..7])",
    ],
    &[],
    &["set_field:4103->vlan_vid", "set_field:1->vlan_pcp"],
    &[
        "dec_ttl",
        "mod_nw_src:10.0.0.7",
        "mod_nw_dst:10.0.0.2",
        "move:ip_src->ip_dst",
        "mod_nw_ttl:1",
        "mod_nw_tos:8",
        "mod_nw_ecn:1",
        "set_field:10.0.0.0/255.0.0.0->ip_dst",
        "push_mpls:0x8847",
        "clone(dec_ttl,2)",
        "clone(push_mpls:0x8847,set_mpls_label:5,3)",
        "move:nw_ttl->reg0[0..7]",
    ],
    &["mod_tp_src:7", "mod_tp_dst:80", "move:tcp_src->tcp_dst", "load:1->tcp_dst[0..3]"],
    &["dec_ttl", "move:ipv6_src->ipv6_dst", "mod_nw_ttl:9", "push_mpls:0x8848"],
    &["set_field:2->arp_op", "move:arp_spa->arp_tpa", "move:arp_sha->arp_tha", "load:1->arp_spa"],
    &[
        "pop_mpls:0x0800",
        "pop_mpls:0x8847",
        "push_mpls:0x8847",
        "set_mpls_label:9",
        "set_mpls_tc:1",
        "set_mpls_ttl:3",
        "dec_mpls_ttl",
        "clone(pop_mpls:0x0800,3)",
        "move:mpls_label->reg1[0..19]",
    ],
];

const GROUPS: &[&str] = &[
    "group_id=1,type=all,bucket=actions=mod_dl_dst:02:00:00:00:00:08,output:2,bucket=actions=output:3,strip_vlan,\
     bucket=actions=resubmit(,3)",
    "group_id=2,type=select,bucket=weight:2,actions=output:2,bucket=weight:3,actions=dec_ttl,output:3",
    "group_id=3,type=ff,bucket=watch_port:9,actions=output:2,bucket=watch_port:3,actions=pop_mpls:0x0800,group:1",
];

/// One flow as text; not all that come out are valid.
fn flow_strategy() -> impl Strategy<Value = String> {
    let kind = 0..MATCHES.len();
    (0u8..4, 0u16..6, kind).prop_flat_map(|(table, priority, kind)| {
        let actions: Vec<&str> = [ACTIONS[0], ACTIONS[kind], ACTIONS[kind], ACTIONS[kind]].concat();
        let list = proptest::collection::vec(select(actions), 0..6);
        let instructions = select(
            &[
                "",
                "",
                "",
                ",write_actions(output:3,mod_dl_dst:02:00:00:00:00:0a)",
                ",goto_table:2",
                ",write_metadata:5/0xff",
                ",write_actions(group:1,strip_vlan),goto_table:3",
                ",clear_actions",
            ][..],
        );
        (select(MATCHES[kind]), list, instructions).prop_map(move |(m, list, instructions)| {
            let list = if list.is_empty() { "drop".to_owned() } else { list.join(",") };
            // An instruction alone needs no action before it.
            let list =
                if list == "drop" && !instructions.is_empty() { "note:01".into() } else { list };
            format!("table={table},priority={priority},{m} actions={list}{instructions}")
        })
    })
}

fn mac() -> impl Strategy<Value = Mac> {
    // Few addresses, so that flows and packets meet, some of them multicast.
    (select(vec![2u8, 2, 2, 3, 0xff]), 0u8..2, 0u8..4).prop_map(|(a, b, c)| Mac([a, b, 0, 0, 0, c]))
}

fn tag() -> impl Strategy<Value = Option<(u16, u16)>> {
    let tci = (select(vec![0u16, 5, 6]), select(vec![0u16, 3]));
    let tag = (select(vec![0x8100u16, 0x88a8]), tci);
    proptest::option::of(tag.prop_map(|(tpid, (vid, pcp))| (tpid, 0x1000 | vid | pcp << 13)))
}

/// A packet of any kind, as extraction leaves it.
fn key_strategy() -> impl Strategy<Value = FlowKey> {
    let small = || 0u8..3;
    let link = (1u32..4, mac(), mac(), tag(), tag());
    let net = (small(), small(), select(vec![0u8, 1, 2, 64]), select(vec![0u8, 4, 7]), small());
    let tp = (select(vec![7u16, 80, 53, 0x101, 135]), select(vec![0u16, 80, 53]), any::<u16>());
    (select(vec![0x0800u16, 0x0806, 0x86dd, 0x8847, 0x1234]), link, net, tp, 0u8..4).prop_map(
        |(dl_type, (in_port, dl_src, dl_dst, outer, inner), net, tp, n)| {
            let mut k = FlowKey {
                in_port,
                dl_src,
                dl_dst,
                dl_type: U16::new(dl_type),
                ..FlowKey::default()
            };
            let inner = if outer.is_some() { inner } else { None };
            for (tag, it) in k.vlan.iter_mut().zip([outer, inner]) {
                if let Some((tpid, tci)) = it {
                    (tag.tpid, tag.tci) = (U16::new(tpid), U16::new(tci));
                }
            }
            let (src, dst, ttl, tos, frag) = net;
            match dl_type {
                0x0800 | 0x86dd => internet(&mut k, dl_type, (src, dst, ttl, tos), frag, n, tp),
                0x0806 => {
                    k.nw_proto = 1 + n % 2;
                    (k.nw_src, k.nw_dst) = (address(src), address(dst));
                    (k.arp_sha, k.arp_tha) = (dl_src, Mac([0; 6]));
                }
                0x8847 => {
                    for (i, lse) in k.mpls_lse.iter_mut().enumerate().take(usize::from(n.min(3))) {
                        let bottom = u32::from(i + 1 == usize::from(n)) << 8;
                        let (label, tc) = (u32::from(src) + 4, u32::from(dst));
                        *lse = U32::new(label << 12 | tc << 9 | bottom | u32::from(ttl));
                    }
                }
                _ => {}
            }
            k
        },
    )
}

fn address(n: u8) -> U32 {
    U32::new(0x0a00_0000 | u32::from(n))
}

type Net = (u8, u8, u8, u8);

fn internet(k: &mut FlowKey, dl_type: u16, net: Net, frag: u8, n: u8, tp: (u16, u16, u16)) {
    let (src, dst, ttl, tos) = net;
    (k.nw_ttl, k.nw_tos) = (ttl, tos);
    k.nw_frag = [0, flow::FRAG_ANY, flow::FRAG_ANY | flow::FRAG_LATER][usize::from(frag)];
    if dl_type == 0x0800 {
        (k.nw_src, k.nw_dst) = (address(src), address(dst));
        k.nw_proto = [ip_proto::TCP, ip_proto::UDP, ip_proto::ICMP, 47][usize::from(n)];
    } else {
        (k.ipv6_src[0], k.ipv6_src[15]) = (0xfe, src);
        (k.ipv6_dst[0], k.ipv6_dst[1], k.ipv6_dst[15]) = (0xfe, 0x80, dst);
        k.nw_proto = [ip_proto::TCP, ip_proto::UDP, ip_proto::ICMPV6, 47][usize::from(n)];
    }
    if k.nw_frag & flow::FRAG_LATER == 0 && n < 3 {
        (k.tp_src, k.tp_dst) = (U16::new(tp.0), U16::new(tp.1));
        if n == 2 {
            (k.tp_src, k.tp_dst) = (U16::new(tp.0 & 0xff), U16::new(0));
        }
        if n == 0 {
            k.tcp_flags = U16::new(tp.2 & 0xfff);
        }
    }
}

/// A switch with those of the flows that are valid; how many were.
fn build(flows: &[String]) -> (Pipeline, usize) {
    let p = switch(4);
    set_flows(&p, "");
    set_groups(&p, GROUPS);
    let taken = flows.iter().filter(|f| add_flows(&p, f, 0).is_ok()).count();
    (p, taken)
}

fn port_strategy() -> impl Strategy<Value = PortConfig> {
    let modes = ["access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel"];
    let vlans = || proptest::collection::vec(select(vec![0i64, 3, 5, 7]), 0..3);
    let rest = (vlans(), vlans(), select(vec!["never", "if-nonzero", "always"]), any::<bool>());
    (select(modes.to_vec()), select(vec![0i64, 5, 7]), rest).prop_map(
        |(mode, tag, (trunks, cvlans, priority_tags, protected))| {
            let columns = PortColumns {
                vlan_mode: Some(mode),
                tag: Some(tag),
                trunks,
                cvlans,
                priority_tags: Some(priority_tags),
                protected,
                ..PortColumns::default()
            };
            PortConfig::new(&columns, |_| {})
        },
    )
}

fn answer(
    p: &Pipeline,
    key: &FlowKey,
) -> (FlowMask, Vec<Action>, std::sync::Arc<dyn flow::Effects>) {
    let t = p.translate(key);
    (t.mask, t.actions, t.effects)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_mask_says_all_that_mattered(
        flows in proptest::collection::vec(flow_strategy(), 5..30),
        keys in proptest::collection::vec(key_strategy(), 2..14),
        noise in any::<[u64; flow::WORDS]>(),
    ) {
        let (p, _) = build(&flows);
        // Some addresses are known before.
        for key in &keys[..keys.len() / 2] {
            p.translate(key).effects.apply(&seen(1, 64, 0));
        }
        let noise: FlowKey = zerocopy::transmute!(noise);
        for key in &keys {
            // Effects are kept: as long as they live, a recirculation keeps its number.
            let (mask, actions, _effects) = answer(&p, key);
            for other in keys.iter().chain([&noise]) {
                let twin = merge(&mask, key, other);
                prop_assert!(mask.agrees(key, &twin));
                let (twin_mask, twin_actions, _) = answer(&p, &twin);
                prop_assert_eq!(&twin_actions, &actions, "{:#?}\n{:?}\n{:?}", flows, key, twin);
                prop_assert_eq!(twin_mask, mask, "{:#?}\n{:?}\n{:?}", flows, key, twin);
            }
        }
    }

    /// The same for NORMAL under settings of ports, with a mirror.
    #[test]
    fn settings_of_ports_too(
        ports in proptest::collection::vec(port_strategy(), 4),
        (limit, selected, to_vlan) in (1u8..3, select(vec![0i64, 5, 7]), any::<bool>()),
        filter in select(vec!["", "tcp", "dl_vlan=5", "ip,nw_dst=10.0.0.0/24", "tcp,tp_dst=80"]),
        keys in proptest::collection::vec(key_strategy(), 2..10),
    ) {
        let p = switch(4);
        let config = BridgeConfig { vlan_limit: limit, ..BridgeConfig::default() };
        p.set_bridge("br0", config).expect("there");
        for (n, port) in (1..).zip(&ports) {
            p.set_port("br0", OfPort(n), *port).expect("there");
        }
        let port = MirrorOutput::Port(OfPort(4));
        p.set_mirrors("br0", &[MirrorConfig {
            id: 1,
            src: Selected::Ports([OfPort(1)].into()),
            dst: Selected::All,
            vlans: VlanSet::of([selected]),
            filter: Some(parse_match(filter, &()).expect("right").into()),
            output: if to_vlan { MirrorOutput::Vlan(7) } else { port },
            snaplen: None,
        }]).expect("there");
        for key in &keys[..keys.len() / 2] {
            p.translate(key).effects.apply(&seen(1, 64, 0));
        }
        for key in &keys {
            let (mask, actions, _) = answer(&p, key);
            for other in &keys {
                let twin = merge(&mask, key, other);
                let (twin_mask, twin_actions, _) = answer(&p, &twin);
                prop_assert_eq!(&twin_actions, &actions, "{:#?}\n{:?}\n{:?}", ports, key, twin);
                prop_assert_eq!(twin_mask, mask, "{:#?}\n{:?}\n{:?}", ports, key, twin);
            }
        }
    }

    /// The same for packets that come back after recirculation.
    #[test]
    fn packets_that_come_back_too(
        flows in proptest::collection::vec(flow_strategy(), 5..30),
        first in key_strategy(),
        keys in proptest::collection::vec(key_strategy(), 2..10),
    ) {
        let (p, _) = build(&flows);
        let labels = ["table=0,priority=99,mpls actions=pop_mpls:0x0800,resubmit(,1),3"];
        add_flows(&p, labels[0], 0).expect("valid");
        let mut first = first;
        first.dl_type = U16::new(0x8847);
        first.mpls_lse[0] = U32::new(0x5140);
        let (_, actions, _effects) = answer(&p, &first);
        let Some(Action::Recirc(id)) = actions.last() else {
            panic!("a popped label is looked behind: {actions:?}");
        };
        for key in keys.iter().map(|k| FlowKey { recirc_id: *id, ..*k }) {
            let (mask, actions, _effects) = answer(&p, &key);
            for other in &keys {
                let twin = merge(&mask, &key, other);
                let (twin_mask, twin_actions, _) = answer(&p, &twin);
                prop_assert_eq!(&twin_actions, &actions, "{:?}\n{:?}\n{:?}", flows, key, twin);
                prop_assert_eq!(twin_mask, mask);
            }
        }
    }

    /// Of flows that only match, the first that a plain search finds gives the actions.
    #[test]
    fn the_flow_that_matches_is_the_first_that_a_plain_search_finds(
        matches in proptest::collection::vec((0..MATCHES.len(), any::<proptest::sample::Index>()), 0..30),
        keys in proptest::collection::vec(key_strategy(), 1..20),
        gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let p = switch(4);
        let mut flows: Vec<Option<&str>> =
            matches.iter().map(|(kind, i)| Some(*i.get(MATCHES[*kind]))).collect();
        let text = flows.iter().enumerate().map(|(i, m)| {
            format!("cookie={i},priority={i},{} actions=set_queue:{i},IN_PORT\n", m.unwrap_or(""))
        });
        set_flows(&p, &text.collect::<String>());
        for index in gone.iter().filter(|_| !matches.is_empty()) {
            let i = index.index(matches.len());
            flow_mods(&p, &format!("cookie={i}/-1"), Command::Delete, 0).expect("deletes");
            flows[i] = None;
        }
        for key in &keys {
            let full = openflow::FullKey::new(key, key.in_port);
            let plain = flows.iter().rposition(|m| m.is_some_and(|m| {
                let m = parse_match(m, &()).expect("valid");
                // Flows do not see the ports of fragments.
                let mut full = full;
                if key.nw_frag != 0 {
                    (full.pkt.tp_src, full.pkt.tp_dst) = (U16::ZERO, U16::ZERO);
                }
                m.mask.agrees(&full, &m.value)
            }));
            let expected = match plain {
                None => vec![],
                Some(0) => vec![Action::Output(DpPort(key.in_port))],
                Some(i) => vec![Action::SetPriority(i as u32), Action::Output(DpPort(key.in_port))],
            };
            prop_assert_eq!(p.translate(key).actions, expected);
        }
    }
}

/// The generator is worth something: most of its flows are valid.
#[test]
fn most_random_flows_are_valid() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let all = proptest::collection::vec(flow_strategy(), 400).new_tree(&mut runner);
    let flows = all.expect("generates").current();
    let (_, taken) = build(&flows);
    assert!(taken > 250, "{taken} of 400");
}

/// Nothing more than necessary is looked at.
#[test]
fn masks_are_narrow() {
    let p = switch(3);
    let base = key("in_port=1,dl_type=0x1234");
    set_flows(&p, "priority=9,in_port=2,dl_src=02:00:00:00:00:01,actions=3\nin_port=1,actions=2");
    assert_eq!(p.translate(&base).mask, FlowMask::default(), "no flow of port 1 looks at dl_src");
    let other = FlowKey { in_port: 2, ..base };
    let mask = p.translate(&other).mask;
    assert_eq!((mask.bits().dl_src, mask.bits().dl_dst), (Mac::BROADCAST, Mac([0; 6])));
    add_flows(&p, "priority=10,in_port=2,actions=1", 0).expect("valid");
    assert_eq!(p.translate(&other).mask, FlowMask::default(), "a winner hides lower priorities");
}

/// What is only written is not looked at.
#[test]
fn writing_is_not_looking() {
    let p = switch(3);
    let tcp = "tcp,in_port=1,nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_ttl=9,tp_src=7,tp_dst=8";
    for (flow, seen) in [
        (
            "ip,actions=mod_dl_dst:02:00:00:00:00:09,mod_nw_dst:1.2.3.4,mod_nw_ttl:5,2",
            "ip,nw_frag=no",
        ),
        ("tcp,actions=mod_tp_dst:80,2", "tcp,nw_frag=no"),
        ("ip,actions=push_vlan:0x8100,2,strip_vlan,3", "ip,nw_frag=no"),
        ("ip,actions=dec_ttl,2", "ip,nw_frag=no,nw_ttl=9"),
        ("ip,actions=load:5->NXM_OF_IP_DST[],move:ip_dst->reg0[],2", "ip,nw_frag=no"),
        ("ip,actions=mod_nw_ttl:3,resubmit(,1);table=1,ip,nw_ttl=3,actions=2", "ip,nw_frag=no"),
        (
            "ip,actions=clone(mod_dl_dst:02:00:00:00:00:09,2),3",
            "ip,nw_frag=no,dl_dst=00:00:00:00:00:00",
        ),
    ] {
        set_flows(&p, &flow.replace(';', "\n"));
        let t = p.translate(&key(tcp));
        let m = parse_match(seen, &()).expect(seen);
        let mut expected = FlowMask::default();
        let mut said = FlowMask::empty();
        *said.bits_mut() = m.mask.0.pkt;
        expected.add(&said);
        assert_eq!(t.mask, expected, "{flow}");
        assert!(!t.actions.is_empty());
    }
}

/// Labels that are pushed and popped again leave an EtherType behind.
#[test]
fn a_label_that_comes_and_goes_changes_the_ethertype() {
    let p = switch(3);
    let (other, label) = ("in_port=1,dl_type=0x1234", "in_port=1,mpls,mpls_label=4,mpls_bos=1");
    let push = "push_mpls(label=0,tc=0,ttl=0,bos=1,eth_type=0x8847)";
    for (actions, packet, expected) in [
        ("push_mpls:0x8847,pop_mpls:0x0800,2", other, "pop_mpls(eth_type=0x800),2"),
        ("push_mpls:0x8848,pop_mpls:0x8848,2", label, "pop_mpls(eth_type=0x8848),2"),
    ] {
        set_flows(&p, &format!("actions={actions}"));
        let t = p.translate(&key(packet));
        let done = flow::odp::format_actions(&t.actions, &flow::odp::number);
        assert_eq!(done, format!("{push},{expected}"), "{actions}");
    }
    set_flows(&p, "actions=push_mpls:0x8847,pop_mpls:0x1234,2");
    assert_eq!(p.translate(&key(other)).actions, [Action::Output(DpPort(2))], "the same again");
}

/// What a solicitation was given is written before it is something else.
#[test]
fn neighbour_discovery_ends_with_its_type() {
    let p = switch(3);
    let solicitation = key("icmp6,in_port=1,icmpv6_type=135,icmpv6_code=0,nd_target=fe80::2");
    let target = "icmp6,icmpv6_type=135,icmpv6_code=0,actions=set_field:fe80::9->nd_target";
    for (then, actions) in [
        ("set_field:128->icmpv6_type,2", "set(nd(target=fe80::9)),set(icmpv6(type=128)),2"),
        ("load:1->icmpv6_code[],2", "set(nd(target=fe80::9)),set(icmpv6(code=1)),2"),
        ("move:reg0[0..7]->icmpv6_type[],2", "set(nd(target=fe80::9)),set(icmpv6(type=0)),2"),
        ("2", "set(nd(target=fe80::9)),2"),
    ] {
        set_flows(&p, &format!("{target},{then}"));
        let t = p.translate(&solicitation);
        let done = flow::odp::format_actions(&t.actions, &flow::odp::number);
        assert_eq!(done, actions, "{then}");
    }
}

/// Two tags: OVS, told to read two, does the same but for `push_vlan`, where it loses the inner one.
#[test]
fn two_tags() {
    let p = switch(3);
    let mut qinq = key("in_port=1,tcp,dl_vlan=7,dl_vlan_pcp=3,tp_dst=80");
    qinq.vlan[0].tpid = U16::new(0x88a8);
    (qinq.vlan[1].tpid, qinq.vlan[1].tci) = (U16::new(0x8100), U16::new(0x3008));
    // Bits that are looked at of the outer and the inner tag's control information.
    for (flow, actions, outer, inner) in [
        ("actions=strip_vlan,2,strip_vlan,3", "pop_vlan,2,pop_vlan,3", 0x1000, 0x1000),
        (
            "actions=clone(strip_vlan,2),3",
            "pop_vlan,2,push_vlan(tpid=0x88a8,vid=7,pcp=3),3",
            0xffff,
            0,
        ),
        ("actions=push_vlan:0x8100,2", "push_vlan(vid=0,pcp=0),2", 0, 0),
        (
            "actions=push_vlan:0x8100,strip_vlan,resubmit(,1);table=1,actions=strip_vlan,2",
            "pop_vlan,2",
            0x1000,
            0,
        ),
        (
            "actions=strip_vlan,mod_vlan_vid:9,2",
            "pop_vlan,pop_vlan,push_vlan(vid=9,pcp=1),2",
            0x1000,
            0xf000,
        ),
        (
            "actions=strip_vlan,resubmit(,1);table=1,dl_vlan=8,actions=2",
            "pop_vlan,2",
            0x1000,
            0x1fff,
        ),
        ("dl_vlan=7,actions=resubmit(,1);table=1,dl_vlan=8,actions=2", "drop", 0x1fff, 0),
    ] {
        set_flows(&p, &flow.replace(';', "\n"));
        let t = p.translate(&qinq);
        assert_eq!(flow::odp::format_actions(&t.actions, &flow::odp::number), actions, "{flow}");
        let seen = t.mask.bits().vlan.map(|tag| tag.tci.get());
        assert_eq!(seen, [outer, inner], "{flow}");
    }
}
