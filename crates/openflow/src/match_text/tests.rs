//! Properties of the text of matches. What it is exactly is compared with OVS's in `tests/`.

use super::*;
use crate::registry::fields;
use proptest::prelude::*;

/// A field with a value and a mask, as bits.
fn said() -> impl Strategy<Value = (usize, u128, u128)> {
    let mask = prop_oneof![3 => Just(u128::MAX), 1 => any::<u128>()];
    (0..fields().len(), any::<u128>(), mask)
}

/// Kinds of packets, so that fields have a chance to be allowed.
fn kind() -> impl Strategy<Value = &'static str> {
    let kinds =
        ["ip", "tcp", "udp6", "icmp", "icmp6,icmp_type=135,icmp_code=0", "arp", "mpls", "eth"];
    prop::sample::select(kinds.to_vec())
}

fn text_of(kind: &str, said: &[(usize, u128, u128)]) -> String {
    let mut text = kind.to_owned();
    for (n, value, mask) in said {
        let f = &fields()[*n];
        let mask = match f.maskable {
            crate::Maskable::Bits => mask & f.ones(),
            crate::Maskable::No => f.ones(),
        };
        text.push_str(&format!(",{}={}", f.name, f.format(value & mask & f.ones(), mask, &())));
    }
    text
}

proptest! {
    /// What is printed of a match is read as the same match.
    #[test]
    fn round_trip(kind in kind(), said in prop::collection::vec(said(), 0..6)) {
        let text = text_of(kind, &said);
        if let Ok(m) = parse_match(&text, &()) {
            prop_assert_eq!(m.mask.apply(&m.value), m.value);
            let printed = format_match(&m, &(), Some(7));
            let again = printed.strip_prefix("priority=7").expect("a priority").trim_start_matches(',');
            let read = parse_match(again, &());
            // A tag that is not there cannot be told from no tag in the words of OpenFlow 1.0.
            let half = again.contains("vlan_tci");
            prop_assert!(read.as_ref() == Ok(&m) || half, "{text} -> {printed} -> {read:?}");
        }
    }

    /// Any text is read or refused, with its place.
    #[test]
    fn any_text(text in "[a-z0-9_=/:.,+|()\\- é]{0,40}", name in 0..fields().len(), tail in "\\PC{0,12}") {
        let _ = parse_key(&text, &());
        let text = format!("{text},{}={tail}", fields()[name].name);
        if let Err(e) = parse_match(&text, &()) {
            prop_assert!(e.word.is_empty() || e.at.is_some(), "{e:?}");
        }
    }

    /// A packet's text is read as the packet, as far as it has names.
    #[test]
    fn keys(kind in kind(), port in 0u16..0xff00, n in any::<u32>()) {
        let key = parse_key(&format!("{kind},in_port={port},reg3={n},tun_id={n}"), &()).expect("fine");
        let text = format_key(&key, &());
        if !text.contains("mpls_lse1") {
            prop_assert_eq!(parse_key(&text, &()).map(|k| format_key(&k, &())), Ok(text));
        }
    }
}

#[test]
fn the_place_is_told() {
    let at = |text: &str| parse_match(text, &()).expect_err(text).to_string();
    assert_eq!(at("ip,foo=1"), "unknown keyword foo (at character 4: \"foo=1\")");
    assert_eq!(at("ip, nw_src=x"), "x: invalid IP address (at character 12: \"x\")");
    assert_eq!(at("bar"), "field bar missing value (at character 1: \"bar\")");
}

#[test]
fn what_is_left_out_is_known() {
    let said = |text: &str| {
        let mut builder = MatchBuilder::default();
        for word in Words(text) {
            let (name, value) = split(word);
            assert_eq!(builder.add(name, value, &()), Ok(true), "{word}");
        }
        builder.is_lossy()
    };
    assert!(said("nw_src=1.2.3.4") && said("tcp,nd_target=::1"));
    assert!(!said("ip,nw_src=1.2.3.4") && !said("tcp,tp_dst=80") && !said("eth"));
}

#[test]
fn prerequisites() {
    let m = |text: &str| parse_match(text, &()).expect(text);
    for (field, text, met) in [
        (fld::TCP_DST, "tcp", true),
        (fld::TCP_DST, "udp", false),
        (fld::TCP_DST, "tcp,nw_frag=later", false),
        (fld::TCP_DST, "tcp,nw_frag=first", true),
        (fld::ICMP_TYPE, "icmp,nw_frag=later", true),
        (fld::ND_TARGET, "icmp6,icmp_type=135,icmp_code=0,nw_frag=later", true),
        (fld::IP_SRC, "ipv6", false),
        (fld::NW_TTL, "ipv6", true),
        (fld::ARP_OP, "rarp", true),
        (fld::VLAN_PCP, "dl_vlan=5", true),
        (fld::VLAN_PCP, "vlan_tci=0", false),
        (fld::ND_SLL, "icmp6,icmp_type=135,icmp_code=0", true),
        (fld::ND_SLL, "icmp6,icmp_type=136,icmp_code=0", false),
        (fld::CT_NW_PROTO, "ct_state=+trk-inv", true),
        (fld::CT_NW_PROTO, "ct_state=+trk", false),
        (fld::MPLS_LABEL, "mplsm", true),
        (fld::ETH_SRC, "", true),
    ] {
        assert_eq!(field.prereqs_met(&m(text)), met, "{} {text}", field.name);
    }
}
