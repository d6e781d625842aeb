//! The expected texts are what Open vSwitch 3.1 prints for the same actions.

use super::*;
use crate::{DpPort, FlowKey, FlowMask, PuntReason, Vlan, odp::number};
use zerocopy::big_endian::U32;

fn text(action: Action) -> String {
    format_actions(&[action], &number)
}

fn set(value: FlowKey, fill: impl Fn(&mut FlowKey)) -> String {
    let mut mask = FlowMask::empty();
    fill(mask.bits_mut());
    text(Action::Set(Box::new(Rewrite { value, mask })))
}

fn key(dl_type: u16, nw_proto: u8) -> FlowKey {
    FlowKey { dl_type: dl_type.into(), nw_proto, ..FlowKey::default() }
}

#[test]
fn rewrites() {
    let mut k = key(0x0800, 6);
    k.dl_src = "02:00:00:00:00:09".parse().expect("an address");
    (k.nw_src, k.nw_ttl, k.tp_src) = (U32::new(7), 63, 99.into());
    assert_eq!(set(k, |m| m.dl_src.0 = [0xff; 6]), "set(eth(src=02:00:00:00:00:09))");
    assert_eq!(
        set(k, |m| {
            (m.nw_src, m.nw_ttl, m.tp_src) = (U32::new(15), 0xff, 0xffff.into());
        }),
        "set(ipv4(src=0.0.0.7/0.0.0.15,ttl=63)),set(tcp(src=99))"
    );
    k.tp_src = 1.into();
    assert_eq!(set(k, |m| m.tp_src = 0xff.into()), "set(tcp(src=1/0xff))");
    let mut k = key(0x0800, 1);
    k.tp_src = 3.into();
    assert_eq!(
        set(k, |m| (m.tp_src, m.tp_dst) = (0xffff.into(), 0xffff.into())),
        "set(icmp(type=3,code=0))"
    );
    let mut k = key(0x86dd, 17);
    k.ipv6_src = "fe80::1".parse::<std::net::Ipv6Addr>().expect("an address").octets();
    (k.ipv6_label, k.nw_tos, k.nw_ttl) = (U32::new(5), 2, 9);
    assert_eq!(
        set(k, |m| {
            m.ipv6_src = [0xff; 16];
            (m.ipv6_label, m.nw_tos, m.nw_ttl) = (U32::new(0xf_ffff), 3, 0xff);
        }),
        "set(ipv6(src=fe80::1,label=0x5,tclass=0x2/0x3,hlimit=9))"
    );
    let mut k = key(0x0806, 2);
    (k.nw_src, k.arp_tha.0) = (U32::new(0x0101_0101), [2, 0, 0, 0, 0, 7]);
    assert_eq!(
        set(k, |m| (m.nw_src, m.nw_proto, m.arp_tha.0) = (U32::new(!0), 0xff, [0xff; 6])),
        "set(arp(sip=1.1.1.1,op=2,tha=02:00:00:00:00:07))"
    );
    let mut k = key(0x86dd, 58);
    (k.tp_src, k.nd_target[15], k.arp_sha.0) = (135.into(), 7, [2, 0, 0, 0, 0, 7]);
    assert_eq!(
        set(k, |m| (m.nd_target, m.arp_sha.0) = ([0xff; 16], [0xff; 6])),
        "set(nd(target=::7,sll=02:00:00:00:00:07))"
    );
    let mut k = key(0x8847, 0);
    k.mpls_lse[0] = U32::new(5 << 12 | 0x100);
    assert_eq!(set(k, |m| m.mpls_lse[0] = U32::new(!0)), "set(mpls(label=5,tc=0,ttl=0,bos=1))");
}

#[test]
fn tags_labels_and_metadata() {
    let tag = |tpid: u16, tci: u16| Action::PushVlan(Vlan { tpid: tpid.into(), tci: tci.into() });
    assert_eq!(text(tag(0x88a8, 0x1005)), "push_vlan(tpid=0x88a8,vid=5,pcp=0)");
    assert_eq!(text(tag(0x8100, 0x7006)), "push_vlan(vid=6,pcp=3)");
    assert_eq!(text(Action::PopVlan), "pop_vlan");
    assert_eq!(
        text(Action::PushMpls { ethertype: 0x8847, lse: U32::new(5 << 12 | 0x103) }),
        "push_mpls(label=5,tc=0,ttl=3,bos=1,eth_type=0x8847)"
    );
    assert_eq!(text(Action::PopMpls { ethertype: 0x800 }), "pop_mpls(eth_type=0x800)");
    let actions = [Action::SetPriority(5), Action::SetMark(1), Action::Output(DpPort(2))];
    assert_eq!(format_actions(&actions, &number), "set(skb_priority(0x5)),set(skb_mark(0x1)),2");
    assert_eq!(text(Action::Recirc(1)), "recirc(0x1)");
    assert_eq!(text(Action::Meter(1)), "meter(1)");
    assert_eq!(
        format_actions(&[Action::Trunc(100), Action::Output(DpPort(2))], &number),
        "trunc(100),2"
    );
}

#[test]
fn lists_within_actions() {
    let out = || vec![Action::Output(DpPort(2))];
    assert_eq!(
        text(Action::CheckLen { limit: 100, greater: vec![], less_equal: out() }),
        "check_pkt_len(size=100,gt(drop),le(2))"
    );
    assert_eq!(text(Action::Clone(out())), "clone(2)");
    assert_eq!(
        text(Action::Sample { probability: u32::MAX / 2, actions: out() }),
        "sample(sample=50.0%,actions(2))"
    );
    let punt = Punt {
        reason: PuntReason::Action,
        bridge: 0,
        controller: 3,
        table: 0,
        cookie: 0,
        max_len: 100,
        in_port: 1,
        userdata: vec![],
        metadata: String::new(),
    };
    assert_eq!(
        text(Action::Punt(Box::new(punt))),
        "userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=0,\
         rule_cookie=0,controller_id=3,max_len=100))"
    );
    assert_eq!(format_actions(&[], &number), "drop");
}
