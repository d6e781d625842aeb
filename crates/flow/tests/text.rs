//! Keys to frames and to text, and back.

mod frames;

use flow::odp::{compose, format_match, format_match_all, number, parse_match};
use flow::{Extracted, FlowKey, FlowMask, Vlan, WORDS, extract, ip_proto, locate};
use frames::{Random, any_frame, frame};
use packet::checksum::{crc32c, internet, partial};
use zerocopy::IntoBytes;

fn key_of(frame: &[u8]) -> FlowKey {
    let mut out = Extracted::default();
    extract(frame, frame.len(), 7, &mut out).expect("all bytes are there");
    out.key
}

/// Lengths and checksums of a composed IP packet.
fn check_sums(f: &[u8]) {
    let (l, _) = locate(f, f.len());
    if l.end == 0 {
        return;
    }
    assert_eq!(l.end, f.len(), "the IP packet is all of the frame");
    let v4 = l.dl_type == 0x0800;
    let pseudo = if v4 {
        assert_eq!(internet(0, &f[l.network..l.network + 20]), 0, "IPv4 header");
        partial(0, &f[l.network + 12..l.network + 20])
    } else {
        partial(0, &f[l.network + 8..l.network + 40])
    };
    let segment = match l.transport {
        0 => return,
        at => &f[at..],
    };
    let pseudo = pseudo + u64::from(l.nw_proto) + segment.len() as u64;
    match l.nw_proto {
        ip_proto::TCP | ip_proto::UDP | ip_proto::ICMPV6 => {
            assert_eq!(internet(pseudo, segment), 0, "{f:02x?}");
        }
        ip_proto::ICMP | ip_proto::IGMP => assert_eq!(internet(0, segment), 0),
        ip_proto::SCTP => {
            let mut zeroed = segment.to_vec();
            zeroed[8..12].fill(0);
            assert_eq!(segment[8..12], crc32c(&zeroed).to_le_bytes());
        }
        _ => {}
    }
}

#[test]
fn a_composed_frame_has_the_fields_of_its_key() {
    let mut r = Random::new(3);
    for _ in 0..20_000 {
        let f = any_frame(&mut r);
        if f.len() < 14 {
            continue;
        }
        let key = key_of(&f);
        let composed = compose(&key);
        assert_eq!(key_of(&composed), key, "{f:02x?}\n{composed:02x?}");
        check_sums(&composed);
    }
}

#[test]
fn any_key_can_be_composed() {
    let mut r = Random::new(4);
    for _ in 0..5_000 {
        let words: [u64; WORDS] = std::array::from_fn(|_| r.next());
        let mut key: FlowKey = zerocopy::transmute!(words);
        key.dl_type.set(r.pick(&[0x0800, 0x86dd, 0x0806, 0x8847, 0x8100, 0x0600]));
        assert!(compose(&key).len() >= 14);
    }
}

/// Some bits of each field that packets like `key` have.
fn some_mask(r: &mut Random, key: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::default();
    if r.chance(4) {
        return FlowMask::exact();
    }
    for byte in mask.bits_mut().as_mut_bytes() {
        *byte |= match r.below(4) {
            0 => 0xff,
            1 => r.next() as u8,
            _ => 0,
        };
    }
    // Tags are matched with their presence, the inner one only with the outer.
    let m = mask.bits_mut();
    for (at, tag) in key.vlan.iter().enumerate() {
        let outer = at == 0 || m.vlan[0] != Vlan::default();
        m.vlan[at] = match tag.tci.get() & 0x1000 != 0 && outer && r.chance(2) {
            true => Vlan { tpid: 0xffff.into(), tci: (r.next() as u16 | 0x1000).into() },
            false => Vlan::default(),
        };
    }
    // Transport fields are matched with their protocol.
    m.nw_proto = r.pick(&[0, 0xff]);
    m.nw_frag &= 3;
    mask
}

#[test]
fn text_is_read_as_it_is_written() {
    let mut r = Random::new(5);
    for _ in 0..20_000 {
        let f = frame(&mut r);
        let key = key_of(&f);
        let mask = some_mask(&mut r, &key);
        let text = format_match(&mask.apply(&key), &mask, &number);
        let (k, m) = parse_match(&text, &|_| None).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(format_match(&k, &m, &number), text);
        let all = format_match_all(&key, &mask, &number);
        let (k, m) = parse_match(&all, &|_| None).unwrap_or_else(|e| panic!("{all}: {e}"));
        assert_eq!(
            format_match(&m.apply(&k), &m, &number),
            format_match(&m.apply(&key), &m, &number)
        );
        // Text has a field for all that such packets have.
        let exact = format_match(&key, &FlowMask::exact(), &number);
        let (k, _) = parse_match(&exact, &|_| None).unwrap_or_else(|e| panic!("{exact}: {e}"));
        let covered = match key.nw_proto {
            _ if matches!(key.dl_type.get(), 0x0806 | 0x8847 | 0x88cc) => true,
            ip_proto::ICMP | ip_proto::ICMPV6 => {
                (key.dl_type.get() == 0x0800) == (key.nw_proto == 1)
            }
            proto => proto != ip_proto::IGMP,
        };
        if covered && mask.apply(&key).nw_frag == 0 {
            let mut expected = key;
            for (tag, read) in expected.vlan.iter_mut().zip(k.vlan) {
                tag.tpid = read.tpid;
            }
            assert_eq!(k, expected, "{exact}");
        }
    }
}

#[test]
fn what_ovs_prints_is_understood() {
    let port = |name: &str| (name == "p1").then_some(flow::DpPort(5));
    let long = "ufid:cb2a688a-4f78-4fba-b66d-a22031ee899e, skb_priority(0/0),skb_mark(0/0),\
        ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0x2),dp_hash(0/0),\
        in_port(p1),packet_type(ns=0,id=0),eth(src=02:00:00:00:00:02/00:00:00:00:00:00,\
        dst=02:00:00:00:00:01/00:00:00:00:00:00),eth_type(0x0800),ipv4(src=10.0.0.1/255.0.0.0,\
        dst=10.0.0.2/0.0.0.0,proto=6,tos=0/0,ttl=64/0,frag=no),tcp(src=1/0,dst=2),\
        tcp_flags(+syn-ack)";
    let (k, m) = parse_match(long, &port).expect("understood");
    assert_eq!(
        format_match(&k, &m, &number),
        "recirc_id(0x2),in_port(5),packet_type(ns=0,id=0),eth_type(0x0800),\
         ipv4(src=10.0.0.1/255.0.0.0,proto=6,frag=no),tcp(dst=2),tcp_flags(+syn-ack)"
    );
    let (k, m) = parse_match("in_port(3),eth_type(0x8847),mpls(label=1,tc=2,ttl=3,bos=0,label=4/0xfffff,tc=0/0,ttl=5/0x0,bos=1/1)", &port).expect("understood");
    assert_eq!((k.in_port, k.mpls_lse[0].get(), k.mpls_lse[1].get()), (3, 0x1403, 0x4105));
    assert_eq!(m.bits().mpls_lse.map(|lse| lse.get()), [u32::MAX, 0xffff_f100, 0]);
    let (k, _) = parse_match("eth_type(0x88a8),vlan(vid=1,pcp=2),encap(eth_type(0x8100),vlan(vid=3,pcp=0),encap(eth_type(0x0806),arp(op=1)))", &port).expect("understood");
    assert_eq!((k.vlan[0].tpid.get(), k.vlan[0].tci.get()), (0x88a8, 0x5001));
    assert_eq!((k.vlan[1].tpid.get(), k.vlan[1].tci.get(), k.nw_proto), (0x8100, 0x1003, 1));
}

#[test]
fn wrong_text_is_refused_with_its_place_and_reason() {
    for (text, expected) in [
        ("eth_type(0x0800", "a parenthesis is not closed"),
        ("foo(1)", "foo(1): this header is not known here"),
        ("ipv4(ttl=256)", "ipv4(ttl=256): ttl=256: 256 is more than 8 bits hold"),
        ("ipv4(src=1.2.3)", "ipv4(src=1.2.3): src=1.2.3: \"1.2.3\" is no address"),
        ("eth(src=1:2:3)", "eth(src=1:2:3): src=1:2:3: 1:2:3: invalid Ethernet address"),
        ("in_port(nowhere)", "in_port(nowhere): no such port"),
        ("tcp_flags(+foo)", "tcp_flags(+foo): foo: no such TCP flag"),
        ("ct_state(+trk)", "ct_state(+trk): no packet has ct_state here, so it must be 0"),
        ("bare", "\"bare\": a header like eth_type(0x0800) is expected"),
        ("encap(encap(encap()))", "nothing is enclosed more than twice"),
        ("mpls(label=1,label=2,label=3,label=4)", "more than three labels"),
    ] {
        let error = parse_match(text, &|_| None).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let mut r = Random::new(9);
    let pieces = [
        "eth",
        "(",
        ")",
        "ipv4(",
        "src=",
        "1.2.3.4",
        "/",
        ",",
        "0x",
        "é",
        "-",
        "+",
        "vlan(vid=1",
        "encap(",
    ];
    for _ in 0..20_000 {
        let text: String = (0..r.below(12)).map(|_| r.pick(&pieces)).collect();
        let _ = parse_match(&text, &|_| None);
    }
}
