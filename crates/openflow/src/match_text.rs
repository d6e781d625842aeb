//! Matches as `ovs-ofctl` reads them, and the reading of what is printed.
//!
//! On purpose not as OVS, all of it tested beside the real one:
//! - `tun_ttl` and `tun_tos` can be matched, and ERSPAN's fields without its version.
//! - Options of tunnels (`tun_metadata`) need no map; they have 8 bytes at most.
//! - Masks that OVS leaves out when it prints (of `tun_gbp_flags`, ERSPAN, GTP-U and ICMP) are printed.
//! - 256 is no byte of an IPv4 address.
//! - There is no NSH.

mod flags;
mod print;
mod values;

use crate::error::ParseError;
use crate::field::{DL_VLAN_NONE, Field, Format, Prereq, View};
use crate::key::{FullKey, TUN_METADATA, TUN_METADATA_BYTES, TunnelKey};
use crate::matching::Match;
use crate::port::{OfPort, PortNames};
use crate::prereq;
use crate::registry::{field, fld, tun_metadata};
use crate::subfield::Subfield;
use flow::{Mac, ether_type, ip_proto};

pub use print::{format_key, format_masked, format_match};

/// Words that stand for an EtherType and an IP protocol (ovs-ofctl(8), "Flow Syntax").
const SHORTHANDS: [(&str, u16, Option<u8>); 14] = [
    ("ip", ether_type::IPV4, None),
    ("ipv6", ether_type::IPV6, None),
    ("icmp", ether_type::IPV4, Some(ip_proto::ICMP)),
    ("icmp6", ether_type::IPV6, Some(ip_proto::ICMPV6)),
    ("tcp", ether_type::IPV4, Some(ip_proto::TCP)),
    ("tcp6", ether_type::IPV6, Some(ip_proto::TCP)),
    ("udp", ether_type::IPV4, Some(ip_proto::UDP)),
    ("udp6", ether_type::IPV6, Some(ip_proto::UDP)),
    ("sctp", ether_type::IPV4, Some(ip_proto::SCTP)),
    ("sctp6", ether_type::IPV6, Some(ip_proto::SCTP)),
    ("arp", ether_type::ARP, None),
    ("rarp", ether_type::RARP, None),
    ("mpls", ether_type::MPLS, None),
    ("mplsm", ether_type::MPLS_MCAST, None),
];

/// Reads a match word by word.
#[derive(Debug, Clone, Default)]
pub struct MatchBuilder {
    built: Match,
    /// Something was said that OpenFlow 1.0 has no words for.
    extended: bool,
}

impl MatchBuilder {
    /// Adds `name` or `name=value`; a field that is said twice has the later value. Returns false if
    /// the name is neither a field nor a word like `tcp`.
    ///
    /// # Errors
    /// The value is none that the field can have.
    pub fn add(
        &mut self,
        name: &str,
        value: Option<&str>,
        names: &dyn PortNames,
    ) -> Result<bool, ParseError> {
        if name == "eth" {
            return Ok(true);
        }
        if let Some((_, dl_type, proto)) = SHORTHANDS.iter().find(|(n, ..)| *n == name) {
            self.put(fld::ETH_TYPE, (*dl_type).into(), u128::MAX);
            if let Some(proto) = proto {
                self.put(fld::NW_PROTO, (*proto).into(), u128::MAX);
            }
            return Ok(true);
        }
        if name.starts_with("nsh_") {
            return Err(ParseError::new(name, format!("{name}: this switch does not read NSH")));
        }
        let Some(field) = field(name) else { return Ok(false) };
        // As ovs-ofctl has it, a field without a value is any; some kinds of field do not take that.
        let said = value.filter(|v| !v.is_empty());
        let text = said.unwrap_or("0/0");
        let (value, mask) = field.parse_value(text, names).map_err(|e| match said {
            Some(_) => e,
            None => ParseError::new(name, e.reason),
        })?;
        if field == fld::IPV6_LABEL && value & !field.ones() != 0 {
            let reason = format!("{name}: OFPBMC_BAD_VALUE: {text} has more than 20 bits");
            return Err(ParseError::new(text, reason));
        }
        self.extended |= !is_openflow10(field, mask);
        self.set(field, value, mask);
        Ok(true)
    }

    /// Adds some bits of a field, whose others stay as they are.
    pub(crate) fn add_part(&mut self, part: &Subfield, value: u128) {
        if *part == Subfield::whole(part.field) {
            return self.set(part.field, value, part.mask());
        }
        part.set(&mut self.built.value, value);
        part.add_to(&mut self.built.mask);
        self.extended = true;
    }

    /// Replaces what is said of a field. Bits of the value that it cannot have are dropped.
    fn set(&mut self, field: &'static Field, value: u128, mask: u128) {
        let tag = fld::VLAN_TCI;
        let other = |bits: u128| tag.get(&self.built.mask.0) & bits != 0;
        match field.view {
            View::DlVlan if mask == 0 => {
                let alone = if other(PCP) { 0 } else { TAG_PRESENT };
                self.replace(tag, VID | alone, 0, 0);
            }
            View::DlVlan if value == DL_VLAN_NONE => self.put(tag, 0, u128::MAX),
            View::DlVlan => {
                let bits = VID | TAG_PRESENT;
                self.replace(tag, bits, value & VID | TAG_PRESENT, bits);
            }
            View::Tag if mask == 0 => {
                let alone = if other(VID) { 0 } else { TAG_PRESENT };
                self.replace(tag, PCP | alone, 0, 0);
            }
            View::Tag => {
                let bits = PCP | TAG_PRESENT;
                self.replace(tag, bits, value << field.shift & PCP | TAG_PRESENT, bits);
            }
            // ICMP's type and code share a place with ports, which they replace.
            _ if is_icmp(field) => {
                let source = field.at == fld::ICMP_TYPE.at;
                self.put(
                    if source { fld::TCP_SRC } else { fld::TCP_DST },
                    value,
                    (mask & 0xff) * 0x101,
                );
            }
            // So does the type of neighbour discovery's options, with TCP's flags.
            _ if field == fld::ND_OPTIONS_TYPE => {
                self.put(fld::TCP_FLAGS, value, if mask == 0 { 0 } else { u128::MAX });
            }
            _ => self.put(field, value, mask),
        }
        if let Some(option) = option_number(field) {
            let bit = 1 << option;
            let present = |t: &mut TunnelKey| t.present = (t.present.get() | bit).into();
            present(&mut self.built.mask.0.tunnel);
            present(&mut self.built.value.tunnel);
        }
    }

    /// Replaces all bits of a field.
    fn put(&mut self, field: &'static Field, value: u128, mask: u128) {
        self.replace(field, field.ones(), value, mask);
    }

    /// Replaces the bits `which` of a field.
    fn replace(&mut self, field: &'static Field, which: u128, value: u128, mask: u128) {
        field.set(&mut self.built.mask.0, mask, which);
        field.set(&mut self.built.value, value & mask, which);
    }

    /// The match, normalised as OVS does: fields whose prerequisites the match does not state are left
    /// out.
    ///
    /// # Errors
    /// The fields contradict each other, or cannot be matched by flows.
    pub fn finish(self) -> Result<Match, ParseError> {
        let mut m = self.built;
        check(&m).map_err(|reason| ParseError::new("", reason))?;
        if m.value.packet_type.get() == 0 {
            m.mask.0.packet_type = 0.into();
        }
        m.mask = prereq::possible(&m);
        if m.mask.0.ct_nw_proto == 0 {
            (m.mask.0.ct_tp_src, m.mask.0.ct_tp_dst) = Default::default();
        }
        m.value = m.mask.apply(&m.value);
        let tag = fld::VLAN_TCI;
        let (tci, bits) = (tag.get(&m.value), tag.get(&m.mask.0));
        let whole = bits == tag.ones() || bits == fld::VLAN_VID.ones();
        let ip = m.mask.0.pkt.nw_proto | m.mask.0.pkt.nw_tos != 0;
        let ipv6 = ip && m.value.pkt.dl_type.get() == ether_type::IPV6;
        if whole && tci & TAG_PRESENT == 0 && !self.extended && !ipv6 {
            // OpenFlow 1.0 says by the same number that there is no tag, whatever else is in it.
            tag.set(&mut m.value, 0, tag.ones());
            tag.add_to(&mut m.mask, tag.ones());
        }
        Ok(m)
    }

    /// True if [`MatchBuilder::finish`] leaves out something that was said.
    pub fn is_lossy(&self) -> bool {
        !prereq::possible(&self.built).covers(&self.built.mask)
    }
}

/// Parts of a VLAN tag's control information.
const PCP: u128 = 0xe000;
const TAG_PRESENT: u128 = 0x1000;
const VID: u128 = 0xfff;

fn is_icmp(field: &Field) -> bool {
    matches!(field.prereq, Prereq::Icmpv4 | Prereq::Icmpv6)
}

fn option_number(field: &Field) -> Option<usize> {
    let first = tun_metadata(0).at;
    let n = usize::from(field.at.checked_sub(first)?) / TUN_METADATA_BYTES;
    (n < TUN_METADATA && field == tun_metadata(n as u8)).then_some(n)
}

/// What a switch refuses, with OpenFlow's name for the error.
fn check(m: &Match) -> Result<(), String> {
    let mask = &m.mask.0;
    if mask.dp_hash.get() != 0 {
        return Err("OFPBRC_EPERM: flows cannot match on dp_hash".to_owned());
    }
    if mask.skb_priority.get() != 0 {
        return Err("OFPBAC_MATCH_INCONSISTENT: flows cannot match on skb_priority".to_owned());
    }
    let p = &mask.pkt;
    let tagged = p.vlan[0].tci.get() != 0;
    let ethernet = p.dl_type.get() != 0 || p.dl_src != Mac::default() || p.dl_dst != Mac::default();
    if m.value.packet_type.get() != 0 && (ethernet || tagged) {
        return Err("OFPBMC_BAD_PREREQ: a packet of another type has no Ethernet fields".to_owned());
    }
    let transports = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP];
    let fields = [fld::TCP_SRC, fld::TCP_DST, fld::TCP_FLAGS];
    let later = m.value.pkt.nw_frag & p.nw_frag & flow::FRAG_LATER != 0;
    if later
        && transports.contains(&m.value.pkt.nw_proto)
        && fields.iter().any(|f| f.get(mask) != 0)
    {
        let why = "later fragments have no ports and no TCP flags (OFPBMC_BAD_PREREQ)";
        return Err(why.to_owned());
    }
    check_connection(m)
}

fn check_connection(m: &Match) -> Result<(), String> {
    let mask = &m.mask.0;
    let ipv4 = mask.ct_nw_src.get() | mask.ct_nw_dst.get() != 0;
    let ipv6 = [mask.ct_ipv6_src, mask.ct_ipv6_dst] != [[0; 16]; 2];
    if (ipv4 || ipv6 || mask.ct_nw_proto != 0) && !prereq::matches_known_connection(m) {
        return Err(
            "OFPBMC_BAD_PREREQ: fields of a connection need a ct_state of one that is known, \
            for example ct_state=+trk+est or ct_state=+trk-inv"
                .to_owned(),
        );
    }
    let dl_type = prereq::ether_type_of(&m.value);
    if ipv4 && dl_type != ether_type::IPV4 || ipv6 && dl_type != ether_type::IPV6 {
        return Err(
            "OFPBAC_MATCH_INCONSISTENT: ct_nw_src and ct_nw_dst need ip, and ct_ipv6_src and \
            ct_ipv6_dst need ipv6"
                .to_owned(),
        );
    }
    Ok(())
}

/// True if OpenFlow 1.0 can say this of a field, which is what `ovs-ofctl` then does.
fn is_openflow10(field: &Field, mask: u128) -> bool {
    const WHOLE: [&Field; 21] = [
        fld::IN_PORT,
        fld::ETH_SRC,
        fld::ETH_DST,
        fld::ETH_TYPE,
        fld::VLAN_TCI,
        fld::VLAN_VID,
        fld::VLAN_PCP,
        fld::DL_VLAN,
        fld::DL_VLAN_PCP,
        fld::NW_PROTO,
        fld::NW_TOS,
        fld::IP_DSCP,
        fld::ARP_OP,
        fld::TCP_SRC,
        fld::TCP_DST,
        fld::UDP_SRC,
        fld::UDP_DST,
        fld::SCTP_SRC,
        fld::SCTP_DST,
        fld::ICMP_TYPE,
        fld::ICMP_CODE,
    ];
    const PREFIX: [&Field; 4] = [fld::IP_SRC, fld::IP_DST, fld::ARP_SPA, fld::ARP_TPA];
    let prefix = (mask as u32).leading_ones() == mask.count_ones();
    mask == 0 || WHOLE.contains(&field) && mask == field.ones() || PREFIX.contains(&field) && prefix
}

/// Reads a whole match: words separated by commas or white space.
///
/// # Errors
/// A word is not understood, or they contradict each other.
pub fn parse_match(text: &str, names: &dyn PortNames) -> Result<Match, ParseError> {
    let builder = build(text, names).map_err(|e| e.locate(text))?;
    builder.finish().map_err(|e| e.locate(text))
}

/// Reads the fields of one packet, as for `ofproto/trace`. What is not said is 0, but `in_port`, which
/// is then none.
///
/// # Errors
/// A word is not understood, a field is said only in part, or the packet cannot have it.
pub fn parse_key(text: &str, names: &dyn PortNames) -> Result<FullKey, ParseError> {
    let mut said = MatchBuilder::default();
    said.put(fld::IN_PORT, OfPort::NONE.0.into(), u128::MAX);
    let mut fields = Vec::new();
    for word in Words(text) {
        let (name, value) = split(word);
        let wrong = |why: String| Err(ParseError::new(word, why).locate(text));
        match (field(name), value) {
            (Some(f), value) => {
                let bad = |why: &str| wrong(format!("bad value for {name} ({why})"));
                match f.parse_value(value.unwrap_or(""), names) {
                    Err(e) => return bad(&e.reason),
                    Ok((_, mask)) if mask != f.ones() && f.format != Format::CtState => {
                        return bad(&format!(
                            "{}: wildcards not allowed here",
                            value.unwrap_or("")
                        ));
                    }
                    Ok(_) => fields.push((f, word)),
                }
            }
            (None, None) => {}
            _ => return wrong(format!("unknown field {name}")),
        }
        if !said.add(name, value, names).map_err(|e| e.locate(text))? {
            return wrong(format!("unknown field {name}"));
        }
    }
    let key = said.built.value;
    match fields.into_iter().find(|(f, _)| !may_have(f, &key)) {
        Some((_, word)) => {
            let why = format!("prerequisites not met for setting {}", split(word).0);
            Err(ParseError::new(word, why).locate(text))
        }
        None => Ok(key),
    }
}

/// True if a packet has a field, or another one that is in the same place and printed by its name.
fn may_have(field: &Field, key: &FullKey) -> bool {
    let alike: &[&Field] = match field.prereq {
        Prereq::Tcp if field != fld::TCP_FLAGS => &[fld::NW_PROTO],
        Prereq::Icmpv4 => &[fld::ICMPV6_TYPE],
        // Of neighbour discovery both addresses are printed.
        Prereq::NdSolicit | Prereq::NdAdvert => &[fld::ND_TARGET],
        _ => &[],
    };
    field.is_present(key) || alike.iter().any(|f| f.is_present(key))
}

/// The words of a text, which commas or white space separate; not so between parentheses.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let separates = |c: char| c == ',' || c.is_ascii_whitespace();
        let rest = self.0.trim_start_matches(separates);
        let mut depth = 0_u32;
        let ends = |c: char| {
            depth = match c {
                '(' => depth + 1,
                ')' => depth.saturating_sub(1),
                _ => depth,
            };
            depth == 0 && separates(c)
        };
        let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        self.0 = after;
        (!word.is_empty()).then_some(word)
    }
}

/// `name=value`, or a name alone.
fn split(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    }
}

fn build(text: &str, names: &dyn PortNames) -> Result<MatchBuilder, ParseError> {
    let mut builder = MatchBuilder::default();
    for word in Words(text) {
        let (name, value) = split(word);
        if !builder.add(name, value, names)? {
            let reason = match value.filter(|v| !v.is_empty()) {
                Some(_) => format!("unknown keyword {name}"),
                None => format!("field {name} missing value"),
            };
            return Err(ParseError::new(word, reason));
        }
    }
    Ok(builder)
}

#[cfg(test)]
mod tests;
