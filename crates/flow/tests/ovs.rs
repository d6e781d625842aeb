//! The fields that Open vSwitch reads from the same frames, by `ovs-ofctl parse-pcap`. Needs the
//! Debian package `openvswitch-switch`, and fails without.

mod frames;

use flow::{Extracted, FRAG_ANY, FRAG_LATER, FlowKey, ether_type, extract, ip_proto};
use frames::{Random, any_frame};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// Frames in all.
const FRAMES: usize = 40_000;

type Fields = BTreeMap<String, String>;

/// A capture file (the classic pcap format, Ethernet).
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, 65535, 1] {
        out.extend(word.to_le_bytes());
    }
    for f in frames {
        for word in [0, 0, f.len() as u32, f.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        out.extend(f);
    }
    out
}

fn tcp_flags(flags: u16) -> String {
    let names =
        ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
    let set: Vec<&str> = (0..12).filter(|bit| flags >> bit & 1 == 1).map(|b| names[b]).collect();
    if set.is_empty() { "0".to_owned() } else { set.join("|") }
}

/// The names and values that `ovs-ofctl` would print for this key.
fn printed(k: &FlowKey) -> Fields {
    let mut out = Fields::new();
    let mut put = |name: &str, value: String| {
        out.insert(name.to_owned(), value);
    };
    put("dl_src", k.dl_src.to_string());
    put("dl_dst", k.dl_dst.to_string());
    for (tag, suffix) in k.vlan.iter().zip(["", "1"]) {
        let tci = tag.tci.get();
        if tci & 0x1000 != 0 {
            put(&format!("dl_vlan{suffix}"), (tci & 0xfff).to_string());
            put(&format!("dl_vlan_pcp{suffix}"), (tci >> 13).to_string());
        }
    }
    let (dl_type, v4, v6) = (k.dl_type.get(), ether_type::IPV4, ether_type::IPV6);
    put("dl_type", format!("{dl_type:#06x}"));
    match dl_type {
        ether_type::ARP | ether_type::RARP => {
            put("arp_spa", Ipv4Addr::from(k.nw_src.get()).to_string());
            put("arp_tpa", Ipv4Addr::from(k.nw_dst.get()).to_string());
            put("arp_op", k.nw_proto.to_string());
            put("arp_sha", k.arp_sha.to_string());
            put("arp_tha", k.arp_tha.to_string());
        }
        ether_type::MPLS | ether_type::MPLS_MCAST => {
            let lse = k.mpls_lse.map(|lse| lse.get());
            put("mpls_label", (lse[0] >> 12).to_string());
            put("mpls_tc", (lse[0] >> 9 & 7).to_string());
            put("mpls_bos", (lse[0] >> 8 & 1).to_string());
            put("mpls_ttl", (lse[0] & 0xff).to_string());
            put("mpls_lse1", lse[1].to_string());
            put("mpls_lse2", lse[2].to_string());
        }
        _ if dl_type != v4 && dl_type != v6 => {}
        _ => {
            if dl_type == v4 {
                put("nw_src", Ipv4Addr::from(k.nw_src.get()).to_string());
                put("nw_dst", Ipv4Addr::from(k.nw_dst.get()).to_string());
            } else {
                put("ipv6_src", Ipv6Addr::from(k.ipv6_src).to_string());
                put("ipv6_dst", Ipv6Addr::from(k.ipv6_dst).to_string());
                put("ipv6_label", format!("{:#07x}", k.ipv6_label.get()));
            }
            put("nw_proto", k.nw_proto.to_string());
            put("nw_tos", (k.nw_tos & 0xfc).to_string());
            put("nw_ecn", (k.nw_tos & 3).to_string());
            put("nw_ttl", k.nw_ttl.to_string());
            let frag = match k.nw_frag {
                0 => "no",
                FRAG_ANY => "first",
                _ => "later",
            };
            put("nw_frag", frag.to_owned());
            if k.nw_frag & FRAG_LATER == 0 {
                transport(k, &mut put);
            }
        }
    }
    out
}

fn transport(k: &FlowKey, put: &mut dyn FnMut(&str, String)) {
    let v6 = k.dl_type.get() == ether_type::IPV6;
    let (src, dst) = (k.tp_src.get(), k.tp_dst.get());
    match k.nw_proto {
        ip_proto::ICMPV6 if v6 => {
            put("icmp_type", src.to_string());
            put("icmp_code", dst.to_string());
            if matches!(src, 135 | 136) && dst == 0 {
                put("nd_target", Ipv6Addr::from(k.nd_target).to_string());
                put("nd_sll", k.arp_sha.to_string());
                put("nd_tll", k.arp_tha.to_string());
            }
        }
        ip_proto::ICMP if !v6 => {
            put("icmp_type", src.to_string());
            put("icmp_code", dst.to_string());
        }
        ip_proto::TCP => {
            put("tcp_flags", tcp_flags(k.tcp_flags.get()));
            put("tp_src", src.to_string());
            put("tp_dst", dst.to_string());
        }
        // ICMP over the other version of IP.
        ip_proto::UDP | ip_proto::SCTP | ip_proto::IGMP | ip_proto::ICMP | ip_proto::ICMPV6 => {
            put("tp_src", src.to_string());
            put("tp_dst", dst.to_string());
        }
        _ => {}
    }
}

/// A line of `ovs-ofctl`, with the names of protocols spelled out.
fn read(line: &str) -> Fields {
    let protocols: &[(&str, &[(&str, &str)])] = &[
        ("ip", &[("dl_type", "0x0800")]),
        ("icmp", &[("dl_type", "0x0800"), ("nw_proto", "1")]),
        ("tcp", &[("dl_type", "0x0800"), ("nw_proto", "6")]),
        ("udp", &[("dl_type", "0x0800"), ("nw_proto", "17")]),
        ("sctp", &[("dl_type", "0x0800"), ("nw_proto", "132")]),
        ("ipv6", &[("dl_type", "0x86dd")]),
        ("icmp6", &[("dl_type", "0x86dd"), ("nw_proto", "58")]),
        ("tcp6", &[("dl_type", "0x86dd"), ("nw_proto", "6")]),
        ("udp6", &[("dl_type", "0x86dd"), ("nw_proto", "17")]),
        ("sctp6", &[("dl_type", "0x86dd"), ("nw_proto", "132")]),
        ("arp", &[("dl_type", "0x0806")]),
        ("rarp", &[("dl_type", "0x8035")]),
        ("mpls", &[("dl_type", "0x8847")]),
        ("mplsm", &[("dl_type", "0x8848")]),
    ];
    let mut out = Fields::new();
    for item in line.split(',') {
        match item.split_once('=') {
            // A tag that is not there has this value and no other.
            Some(("in_port", _) | ("vlan_tci" | "vlan_tci1", "0x0000")) => {}
            Some((name, value)) => {
                out.insert(name.to_owned(), value.to_owned());
            }
            None => {
                let protocol = protocols.iter().find(|p| p.0 == item);
                let protocol = protocol.unwrap_or_else(|| panic!("{item} in {line}"));
                out.extend(protocol.1.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
            }
        }
    }
    // Labels that are not there are not printed.
    if out.contains_key("mpls_label") {
        for name in ["mpls_lse1", "mpls_lse2"] {
            out.entry(name.to_owned()).or_insert_with(|| "0".to_owned());
        }
    }
    out
}

#[test]
fn the_same_fields_are_read_from_whole_cut_and_corrupted_frames() {
    let mut r = Random::new(20);
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(|_| any_frame(&mut r)).collect();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("frames.pcap");
    std::fs::write(&file, pcap(&frames)).expect("written");
    let out = Command::new("ovs-ofctl").arg("parse-pcap").arg(&file).output();
    let out = out.unwrap_or_else(|e| {
        panic!("ovs-ofctl: {e}; install the Debian package openvswitch-switch")
    });
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), frames.len());
    let mut kinds = BTreeMap::<String, usize>::new();
    for (frame, line) in frames.iter().zip(lines) {
        let mut out = Extracted::default();
        extract(frame, frame.len(), 0, &mut out).expect("all bytes are there");
        assert!(out.long || out.key.words()[flow::HOT_WORDS..].iter().all(|&w| w == 0));
        // Network service headers have no fields here.
        if out.key.dl_type.get() == 0x894f {
            continue;
        }
        assert_eq!(printed(&out.key), read(line), "{frame:02x?}\n{line}");
        *kinds.entry(line.split(',').next().unwrap_or("").to_owned()).or_default() += 1;
    }
    for kind in ["tcp", "udp", "sctp", "icmp", "ip", "tcp6", "icmp6", "ipv6", "arp", "mpls"] {
        assert!(kinds.get(kind).is_some_and(|&n| n > 50), "too few of {kind}: {kinds:?}");
    }
}
