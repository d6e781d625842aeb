//! Match fields by name: what each puts into a match, and how a match is printed.

use crate::action::{NameOfPort, PortByName, parse_port, port_text};
use crate::port::OfPort;
use crate::rule::Match;
use flow::{Mac, ether_type};
use zerocopy::big_endian::U16;

/// Bits of a tag's `tci`: VLAN ID, presence, priority.
const VID: u16 = 0x0fff;
const PRESENT: u16 = 0x1000;
const PCP: u16 = 0xe000;

/// Keywords that stand for an EtherType.
const PROTOCOLS: &[(&str, u16)] = &[
    ("ip", ether_type::IPV4),
    ("ipv6", ether_type::IPV6),
    ("arp", ether_type::ARP),
    ("rarp", ether_type::RARP),
    ("mpls", ether_type::MPLS),
    ("mplsm", ether_type::MPLS_MCAST),
];
/// Fields that a flow can match.
const KNOWN: &[&str] = &[
    "in_port",
    "dl_src",
    "eth_src",
    "dl_dst",
    "eth_dst",
    "dl_type",
    "eth_type",
    "dl_vlan",
    "dl_vlan_pcp",
    "vlan_tci",
    "vlan_vid",
    "vlan_pcp",
];
/// What ovs-fields(7) and ovs-ofctl(8) have besides, for a later step.
const LATER: &[&str] = &[
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "tcp6",
    "udp6",
    "sctp6",
    "icmp6",
    "eth",
    "ip_src",
    "ip_dst",
    "nw_src",
    "nw_dst",
    "nw_proto",
    "ip_proto",
    "nw_tos",
    "ip_dscp",
    "nw_ecn",
    "ip_ecn",
    "nw_ttl",
    "ip_frag",
    "nw_frag",
    "tp_src",
    "tp_dst",
    "tcp_src",
    "tcp_dst",
    "tcp_flags",
    "udp_src",
    "udp_dst",
    "sctp_src",
    "sctp_dst",
    "icmp_type",
    "icmp_code",
    "icmpv6_type",
    "icmpv6_code",
    "ipv6_src",
    "ipv6_dst",
    "ipv6_label",
    "arp_op",
    "arp_spa",
    "arp_tpa",
    "arp_sha",
    "arp_tha",
    "nd_target",
    "nd_sll",
    "nd_tll",
    "nd_reserved",
    "nd_options_type",
    "mpls_label",
    "mpls_tc",
    "mpls_bos",
    "mpls_ttl",
    "tun_id",
    "tunnel_id",
    "tun_src",
    "tun_dst",
    "tun_ipv6_src",
    "tun_ipv6_dst",
    "tun_flags",
    "tun_ttl",
    "tun_tos",
    "tun_gbp_id",
    "tun_gbp_flags",
    "in_port_oxm",
    "metadata",
    "pkt_mark",
    "skb_priority",
    "ct_state",
    "ct_zone",
    "ct_mark",
    "ct_label",
    "ct_nw_src",
    "ct_nw_dst",
    "ct_nw_proto",
    "ct_tp_src",
    "ct_tp_dst",
    "ct_ipv6_src",
    "ct_ipv6_dst",
    "conj_id",
    "actset_output",
    "packet_type",
    "recirc_id",
    "dp_hash",
    "idle_timeout",
    "hard_timeout",
    "importance",
    "send_flow_rem",
    "check_overlap",
    "reset_counts",
    "no_packet_counts",
    "no_byte_counts",
    "out_group",
    "allow_hidden_fields",
];

/// `; did you mean …?` for the nearest of `names`, or nothing if none is near.
pub(crate) fn similar<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = names.map(|n| (distance(word, n), n)).min();
    match near {
        Some((d, name)) if d <= 2 && d * 3 <= word.len() => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// Number of letters to insert, remove or change (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A number in decimal, or hexadecimal after `0x`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A number for `field` that is at most `max`.
pub(crate) fn bounded(field: &str, text: &str, max: u64) -> Result<u64, String> {
    match number(text) {
        Some(n) if n <= max => Ok(n),
        Some(_) => Err(format!("{text}: value too large for {field}, which is at most {max}")),
        None => Err(format!("{text}: bad value for {field}: not a number")),
    }
}

fn no_mask(field: &str, value: &str) -> Result<(), String> {
    match value.contains('/') {
        true => Err(format!("{value}: invalid mask for field {field}")),
        false => Ok(()),
    }
}

/// Adds `field=value` to `m`.
pub(crate) fn set(
    m: &mut Match,
    field: &str,
    value: &str,
    port: PortByName<'_>,
) -> Result<(), String> {
    if !KNOWN.contains(&field) {
        return Err(unknown(field));
    }
    if value == "*" {
        return Ok(());
    }
    match field {
        "in_port" => {
            let Some(p) = parse_port(value, port) else {
                return Err(format!("{value}: invalid or unknown port for in_port"));
            };
            m.value.in_port = p.0.into();
            m.mask.bits_mut().in_port = u32::MAX;
        }
        "dl_src" | "eth_src" => {
            (m.value.dl_src, m.mask.bits_mut().dl_src) = masked_mac(value)?;
        }
        "dl_dst" | "eth_dst" => {
            (m.value.dl_dst, m.mask.bits_mut().dl_dst) = masked_mac(value)?;
        }
        "dl_type" | "eth_type" => {
            no_mask(field, value)?;
            set_type(m, bounded(field, value, 0xffff)? as u16);
        }
        _ => set_vlan(m, field, value)?,
    }
    Ok(())
}

/// Adds a keyword without a value, such as `ip`.
pub(crate) fn set_keyword(m: &mut Match, word: &str) -> Result<(), String> {
    match PROTOCOLS.iter().find(|(name, _)| *name == word) {
        Some((_, ethertype)) => {
            set_type(m, *ethertype);
            Ok(())
        }
        None if KNOWN.contains(&word) => Err(format!("field {word} missing value")),
        None => Err(unknown(word)),
    }
}

fn unknown(word: &str) -> String {
    let numbered = ["reg", "xreg", "xxreg", "tun_metadata", "nsh_"];
    let is_numbered = numbered.iter().any(|p| word.starts_with(p) && word != *p);
    if LATER.contains(&word) || is_numbered {
        return format!("field {word} is not supported yet");
    }
    if PROTOCOLS.iter().any(|(name, _)| *name == word) {
        return format!("{word} takes no value");
    }
    let more = ["table", "priority", "cookie", "actions"];
    let names = KNOWN.iter().chain(&more).chain(LATER).copied();
    let hint = similar(word, names.chain(PROTOCOLS.iter().map(|(n, _)| *n)));
    match hint.is_empty() {
        true => format!("unknown keyword {word}; known are {}", KNOWN.join(", ")),
        false => format!("unknown keyword {word}{hint}"),
    }
}

fn set_type(m: &mut Match, ethertype: u16) {
    m.value.dl_type = U16::new(ethertype);
    m.mask.bits_mut().dl_type = U16::new(u16::MAX);
}

fn masked_mac(text: &str) -> Result<(Mac, Mac), String> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value.parse::<Mac>()?, mask.parse::<Mac>()?),
        None => (text.parse::<Mac>()?, Mac::BROADCAST),
    };
    let mut kept = value;
    for (v, m) in kept.0.iter_mut().zip(mask.0) {
        *v &= m;
    }
    Ok((kept, mask))
}

/// `dl_vlan`, `vlan_vid`, `dl_vlan_pcp`, `vlan_pcp` and `vlan_tci` (ovs-fields(7), "VLAN Fields").
fn set_vlan(m: &mut Match, field: &str, value: &str) -> Result<(), String> {
    let (text, mask_text) = match value.split_once('/') {
        Some((v, mask)) => (v, Some(mask)),
        None => (value, None),
    };
    if !matches!(field, "vlan_tci" | "vlan_vid") {
        no_mask(field, value)?;
    }
    let (tci, mask) = match field {
        // 0xffff is OpenFlow 1.0's OFP_VLAN_NONE: packets without a tag.
        "dl_vlan" if number(text) == Some(0xffff) => (0, u16::MAX),
        "dl_vlan" => (bounded(field, text, 0xfff)? as u16 | PRESENT, VID | PRESENT),
        "dl_vlan_pcp" | "vlan_pcp" => {
            ((bounded(field, text, 7)? as u16) << 13 | PRESENT, PCP | PRESENT)
        }
        _ => {
            let full = if field == "vlan_vid" { VID | PRESENT } else { u16::MAX };
            let tci = bounded(field, text, full.into())? as u16;
            match mask_text {
                Some(mask) => (tci, bounded(field, mask, full.into())? as u16),
                // Without the presence bit there is no tag, and then no other bit is set.
                None if tci & PRESENT == 0 => (0, u16::MAX),
                None => (tci, full),
            }
        }
    };
    let had = (m.value.vlan[0].tci.get(), m.mask.bits().vlan[0].tci.get());
    m.value.vlan[0].tci = U16::new((had.0 & !mask) | (tci & mask));
    m.mask.bits_mut().vlan[0].tci = U16::new(had.1 | mask);
    Ok(())
}

/// The match as `ovs-ofctl dump-flows` prints it; empty if it matches everything.
pub(crate) fn format(m: &Match, name: NameOfPort<'_>) -> Vec<String> {
    let (v, mask) = (&m.value, m.mask.bits());
    let mut out = Vec::new();
    let ethertype = v.dl_type.get();
    let has_type = mask.dl_type.get() != 0;
    let protocol = PROTOCOLS.iter().find(|(_, t)| has_type && *t == ethertype);
    out.extend(protocol.map(|(name, _)| (*name).to_owned()));
    if mask.in_port != 0 {
        out.push(format!("in_port={}", port_text(OfPort(v.in_port as u16), name)));
    }
    format_vlan(&mut out, v.vlan[0].tci.get(), mask.vlan[0].tci.get());
    format_mac(&mut out, "dl_src", v.dl_src, mask.dl_src);
    format_mac(&mut out, "dl_dst", v.dl_dst, mask.dl_dst);
    if has_type && protocol.is_none() {
        out.push(format!("dl_type={ethertype:#06x}"));
    }
    out
}

fn format_mac(out: &mut Vec<String>, name: &str, value: Mac, mask: Mac) {
    match mask {
        Mac([0, 0, 0, 0, 0, 0]) => {}
        Mac::BROADCAST => out.push(format!("{name}={value}")),
        _ => out.push(format!("{name}={value}/{mask}")),
    }
}

fn format_vlan(out: &mut Vec<String>, tci: u16, mask: u16) {
    let (vid, pcp) = (mask & VID, mask & PCP);
    let whole = (vid == 0 || vid == VID) && (pcp == 0 || pcp == PCP) && vid | pcp != 0;
    if mask == 0 {
    } else if mask & tci & PRESENT != 0 && whole {
        if vid != 0 {
            out.push(format!("dl_vlan={}", tci & VID));
        }
        if pcp != 0 {
            out.push(format!("dl_vlan_pcp={}", tci >> 13));
        }
    } else {
        let partial = format!("/{mask:#06x}");
        let partial = if mask == u16::MAX { "" } else { &partial };
        out.push(format!("vlan_tci={tci:#06x}{partial}"));
    }
}
