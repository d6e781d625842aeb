//! Reading the text of datapath matches, as `dpctl/dump-flows` prints them and `ofproto/trace` takes
//! them.

use super::{LSE, TAG_PRESENT, TCP_FLAGS};
use crate::key::{DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, Mac, Vlan};
use crate::{DpPort, MPLS_LABELS, ether_type};
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32};

/// How a field's value is written.
#[derive(Clone, Copy)]
enum Kind {
    Mac,
    Ipv4,
    Ipv6,
    /// A number of at most so many bits.
    Number(u32),
}
use Kind::{Ipv4, Ipv6, Number};

/// Header, field, how it is written, and where it is in a [`FlowKey`].
type Field = (&'static str, &'static str, Kind, usize, usize);

macro_rules! fields {
    ($($header:literal $name:literal $kind:expr, $member:ident, $size:literal;)*) => {
        &[$(($header, $name, $kind, offset_of!(FlowKey, $member), $size),)*]
    };
}

const FIELDS: &[Field] = fields! {
    "eth" "src" Kind::Mac, dl_src, 6;
    "eth" "dst" Kind::Mac, dl_dst, 6;
    "ipv4" "src" Ipv4, nw_src, 4;
    "ipv4" "dst" Ipv4, nw_dst, 4;
    "ipv4" "proto" Number(8), nw_proto, 1;
    "ipv4" "tos" Number(8), nw_tos, 1;
    "ipv4" "ttl" Number(8), nw_ttl, 1;
    "ipv6" "src" Ipv6, ipv6_src, 16;
    "ipv6" "dst" Ipv6, ipv6_dst, 16;
    "ipv6" "label" Number(20), ipv6_label, 4;
    "ipv6" "proto" Number(8), nw_proto, 1;
    "ipv6" "tclass" Number(8), nw_tos, 1;
    "ipv6" "hlimit" Number(8), nw_ttl, 1;
    "tcp" "src" Number(16), tp_src, 2;
    "tcp" "dst" Number(16), tp_dst, 2;
    "udp" "src" Number(16), tp_src, 2;
    "udp" "dst" Number(16), tp_dst, 2;
    "sctp" "src" Number(16), tp_src, 2;
    "sctp" "dst" Number(16), tp_dst, 2;
    "icmp" "type" Number(8), tp_src, 2;
    "icmp" "code" Number(8), tp_dst, 2;
    "icmpv6" "type" Number(8), tp_src, 2;
    "icmpv6" "code" Number(8), tp_dst, 2;
    "arp" "sip" Ipv4, nw_src, 4;
    "arp" "tip" Ipv4, nw_dst, 4;
    "arp" "op" Number(8), nw_proto, 1;
    "arp" "sha" Kind::Mac, arp_sha, 6;
    "arp" "tha" Kind::Mac, arp_tha, 6;
    "nd" "target" Ipv6, nd_target, 16;
    "nd" "sll" Kind::Mac, arp_sha, 6;
    "nd" "tll" Kind::Mac, arp_tha, 6;
    "nd_ext" "nd_reserved" Number(32), igmp_group, 4;
    "nd_ext" "nd_options_type" Number(16), tcp_flags, 2;
};

/// What OVS prints and no packet here has yet: understood where it says nothing.
const WITHOUT_MEANING: [&str; 9] = [
    "skb_priority",
    "skb_mark",
    "ct_state",
    "ct_zone",
    "ct_mark",
    "ct_label",
    "dp_hash",
    "packet_type",
    "ct_tuple4",
];

/// Reads what [`super::format_match`] writes, and what OVS writes for the same. Ports are numbers, or
/// names that `port` knows. The mask has all bits of a field that is given without a mask.
///
/// # Errors
/// A sentence that says which part of the text is wrong and why.
pub fn parse_match(
    text: &str,
    port: &dyn Fn(&str) -> Option<DpPort>,
) -> Result<(FlowKey, FlowMask), String> {
    let mut out =
        Parsed { key: FlowKey::default(), mask: FlowMask::default(), tags: 0, open: 0, port };
    out.key.dl_type = U16::new(DL_TYPE_NONE);
    let mut rest = text.trim();
    if rest.starts_with("ufid:") {
        rest = rest.split_once(',').map_or("", |(_, rest)| rest);
    }
    out.headers(rest)?;
    Ok((out.key, out.mask))
}

struct Parsed<'a> {
    key: FlowKey,
    mask: FlowMask,
    /// VLAN tags so far.
    tags: usize,
    /// `encap` so far.
    open: usize,
    port: &'a dyn Fn(&str) -> Option<DpPort>,
}

impl Parsed<'_> {
    fn headers(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text.trim_start_matches([',', ' ']);
        while !rest.is_empty() {
            let (name, content, after) = split_header(rest)?;
            self.header(name, content).map_err(|e| format!("{name}({content}): {e}"))?;
            rest = after.trim_start_matches([',', ' ']);
        }
        Ok(())
    }

    fn header(&mut self, name: &str, content: &str) -> Result<(), String> {
        match name {
            "recirc_id" => self.key.recirc_id = value_of(content, 32)? as u32,
            "in_port" => {
                let number = || value_of(content, 32).ok().map(|n| DpPort(n as u32));
                let found = (self.port)(content).or_else(number);
                self.key.in_port = found.ok_or("no such port")?.0;
            }
            "eth_type" => {
                let (value, mask) = number(content, 16)?;
                let none = value == 0 && mask != 0;
                self.key.dl_type = U16::new(if none { DL_TYPE_NONE } else { value as u16 });
            }
            "vlan" => self.vlan(content)?,
            "encap" => {
                if self.open == self.key.vlan.len() {
                    return Err("nothing is enclosed more than twice".to_owned());
                }
                self.open += 1;
                // What the tag encloses has an EtherType of its own, or none.
                self.key.dl_type = U16::new(DL_TYPE_NONE);
                self.headers(content)?;
            }
            "mpls" => self.mpls(content)?,
            "tcp_flags" => self.tcp_flags(content)?,
            _ if WITHOUT_MEANING.contains(&name) => without_meaning(name, content)?,
            _ => self.fields(name, content)?,
        }
        Ok(())
    }

    fn fields(&mut self, header: &str, content: &str) -> Result<(), String> {
        if !FIELDS.iter().any(|f| f.0 == header) {
            return Err("this header is not known here".to_owned());
        }
        for (name, text) in assignments(content) {
            if name == "frag" && header.starts_with("ipv") {
                self.frag(text)?;
                continue;
            }
            let field = FIELDS.iter().find(|f| f.0 == header && f.1 == name);
            let field = field.ok_or_else(|| format!("{name}: no such field"))?;
            self.field(field, text).map_err(|e| format!("{name}={text}: {e}"))?;
        }
        Ok(())
    }

    fn field(&mut self, &(_, _, kind, at, size): &Field, text: &str) -> Result<(), String> {
        let (value, mask): ([u8; 16], [u8; 16]) = match kind {
            Kind::Mac => pair(text, |t| t.parse::<Mac>().map(|m| right_aligned(&m.0)), None)?,
            Ipv4 => {
                pair(text, |t| address::<Ipv4Addr>(t).map(|a| right_aligned(&a.octets())), Some(4))?
            }
            Ipv6 => pair(text, |t| address::<Ipv6Addr>(t).map(|a| a.octets()), Some(16))?,
            Number(bits) => {
                let (value, mask) = number(text, bits)?;
                (right_aligned(&value.to_be_bytes()), right_aligned(&mask.to_be_bytes()))
            }
        };
        self.key.as_mut_bytes()[at..at + size].copy_from_slice(&value[16 - size..]);
        let mask_bytes = self.mask.bits_mut().as_mut_bytes();
        mask_bytes[at..at + size].copy_from_slice(&mask[16 - size..]);
        Ok(())
    }

    fn frag(&mut self, text: &str) -> Result<(), String> {
        let (value, mask) = text.split_once('/').unwrap_or((text, "0x3"));
        self.key.nw_frag = match value {
            "no" => 0,
            "first" => FRAG_ANY,
            "later" => FRAG_ANY | FRAG_LATER,
            _ => return Err(format!("frag={text}: one of no, first and later is expected")),
        };
        self.mask.bits_mut().nw_frag = value_of(mask, 2)? as u8;
        Ok(())
    }

    fn vlan(&mut self, content: &str) -> Result<(), String> {
        let slot = self.tags;
        let (Some(tag), Some(tag_mask)) =
            (self.key.vlan.get_mut(slot), self.mask.bits_mut().vlan.get_mut(slot))
        else {
            return Err("more than two tags".to_owned());
        };
        let (mut tci, mut mask) = (TAG_PRESENT, TAG_PRESENT);
        for (name, text) in assignments(content) {
            let (shift, bits) = match name {
                "vid" => (0, 12),
                "pcp" => (13, 3),
                "cfi" => (12, 1),
                _ => return Err(format!("{name}: no such field")),
            };
            let (value, seen) = number(text, bits)?;
            tci |= (value as u16) << shift;
            mask |= (seen as u16) << shift;
        }
        // The EtherType read last is the tag's.
        let tpid = match self.key.dl_type.get() {
            DL_TYPE_NONE => ether_type::VLAN,
            tpid => tpid,
        };
        *tag = Vlan { tpid: U16::new(tpid), tci: U16::new(tci) };
        *tag_mask = Vlan { tpid: U16::new(0xffff), tci: U16::new(mask) };
        self.tags += 1;
        Ok(())
    }

    /// The fields of one entry after those of another.
    fn mpls(&mut self, content: &str) -> Result<(), String> {
        let mut entries = [(0u32, 0u32); MPLS_LABELS];
        let (mut at, mut seen) = (0, [false; LSE.len()]);
        for (name, text) in assignments(content) {
            let part = LSE.iter().position(|p| p.0 == name);
            let part = part.ok_or_else(|| format!("{name}: no such field"))?;
            if seen[part] {
                (at, seen) = (at + 1, [false; LSE.len()]);
            }
            seen[part] = true;
            let entry = entries.get_mut(at).ok_or("more than three labels")?;
            let (_, shift, full) = LSE[part];
            let (value, mask) = number(text, full.count_ones())?;
            entry.0 |= (value as u32) << shift;
            entry.1 |= (mask as u32) << shift;
        }
        self.key.mpls_lse = entries.map(|(value, _)| U32::new(value));
        self.mask.bits_mut().mpls_lse = entries.map(|(_, mask)| U32::new(mask));
        Ok(())
    }

    /// `syn|ack`, `+syn-ack`, or a number.
    fn tcp_flags(&mut self, text: &str) -> Result<(), String> {
        let (mut value, mut mask) = (0u16, 0u16);
        if text.starts_with(['+', '-']) {
            for part in split_before_signs(text) {
                let (sign, name) = part.split_at(1);
                let bit = 1u16 << flag(name)?;
                mask |= bit;
                value |= if sign == "+" { bit } else { 0 };
            }
        } else if text.starts_with(|c: char| c.is_ascii_digit()) {
            let (v, m) = number(text, 12)?;
            (value, mask) = (v as u16, m as u16);
        } else {
            mask = 0xfff;
            for name in text.split('|') {
                value |= 1 << flag(name)?;
            }
        }
        self.key.tcp_flags = U16::new(value);
        self.mask.bits_mut().tcp_flags = U16::new(mask);
        Ok(())
    }
}

/// `+a` and `-b` of `+a-b`.
fn split_before_signs(text: &str) -> Vec<&str> {
    let starts: Vec<usize> = text.match_indices(['+', '-']).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &text[start..end]).collect()
}

fn flag(name: &str) -> Result<usize, String> {
    TCP_FLAGS.iter().position(|f| *f == name).ok_or_else(|| format!("{name}: no such TCP flag"))
}

/// `name(content)rest`, with balanced parentheses in the content.
fn split_header(text: &str) -> Result<(&str, &str, &str), String> {
    let wrong = || format!("{text:?}: a header like eth_type(0x0800) is expected");
    let open = text.find('(').ok_or_else(wrong)?;
    let name = &text[..open];
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(wrong());
    }
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return Ok((name, &text[open + 1..at], &text[at + 1..])),
            b')' => depth -= 1,
            _ => {}
        }
    }
    Err(format!("{text:?}: a parenthesis is not closed"))
}

/// The items of `a=1,b=2`; an item without a value has an empty one.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.split_once('=').unwrap_or((item, "")))
}

fn right_aligned(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out[16 - bytes.len()..].copy_from_slice(bytes);
    out
}

/// `value` or `value/mask`; for addresses of `prefix` bytes the mask may be a prefix length.
fn pair(
    text: &str,
    read: impl Fn(&str) -> Result<[u8; 16], String>,
    prefix: Option<usize>,
) -> Result<([u8; 16], [u8; 16]), String> {
    let Some((value, mask)) = text.split_once('/') else {
        return Ok((read(text)?, [0xff; 16]));
    };
    let mask = match (prefix, mask.parse::<u32>()) {
        (Some(bytes), Ok(bits)) if bits as usize <= bytes * 8 => {
            let host = bytes as u32 * 8 - bits;
            u128::MAX.checked_shl(host).unwrap_or(0).to_be_bytes()
        }
        _ => read(mask)?,
    };
    Ok((read(value)?, mask))
}

fn address<A: std::str::FromStr>(text: &str) -> Result<A, String> {
    text.parse().map_err(|_| format!("{text:?} is no address"))
}

/// `value` or `value/mask`, decimal or hexadecimal, of at most `bits` bits.
fn number(text: &str, bits: u32) -> Result<(u64, u64), String> {
    match text.split_once('/') {
        Some((value, mask)) => Ok((value_of(value, bits)?, value_of(mask, bits)?)),
        None => Ok((value_of(text, bits)?, u64::MAX >> (64 - bits))),
    }
}

fn value_of(text: &str, bits: u32) -> Result<u64, String> {
    let text = text.trim();
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match value {
        Ok(v) if v <= u64::MAX >> (64 - bits) => Ok(v),
        Ok(_) => Err(format!("{text} is more than {bits} bits hold")),
        Err(_) => Err(format!("{text:?} is no number")),
    }
}

/// Accepts a field that no packet has here, as long as it is not matched or its value is zero.
fn without_meaning(name: &str, content: &str) -> Result<(), String> {
    let zero = |text: &str| text.trim_start_matches("0x").bytes().all(|b| b == b'0');
    let open = content.split_once('/').is_some_and(|(_, mask)| zero(mask));
    let plain = name == "packet_type" && content == "ns=0,id=0";
    match open || plain || zero(content) {
        true => Ok(()),
        false => Err(format!("no packet has {name} here, so it must be 0")),
    }
}
