//! Values of fields as text: `5`, `0x5/0xff`, `10.0.0.0/8`, `+syn-ack`. The rules and the messages are
//! those of `ovs-ofctl`.

use super::flags::{self, FlagNames};
use crate::error::ParseError;
use crate::field::{Field, Format, Maskable};
use crate::port::{OfPort, PortNames};
use crate::port_text::{ShowPort, parse_port};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Values of `ip_frag` by name, with the bits that they look at.
const FRAGMENTS: [(&str, u128, u128); 5] =
    [("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("later", 3, 3), ("not_later", 0, 2)];

impl Field {
    /// Reads `VALUE` or `VALUE/MASK`, or `*` for any, as value and mask, both right-aligned. The value
    /// can have bits beyond those that are [valid](Field::ones), which matches drop and actions refuse.
    ///
    /// # Errors
    /// The text is not a value of this field, or the field cannot be matched in part.
    pub fn parse_value(
        &self,
        text: &str,
        names: &dyn PortNames,
    ) -> Result<(u128, u128), ParseError> {
        if text == "*" {
            return Ok((0, 0));
        }
        let read = match self.format {
            Format::Decimal | Format::Hex => parse_numbers(self, text),
            Format::Ethernet => parse_macs(text),
            Format::Ipv4 => parse_ipv4(text),
            Format::Ipv6 => parse_ipv6(text),
            Format::Port16 | Format::Port32 => parse_port_value(self, text, names),
            Format::Frag => parse_fragment(text),
            Format::TcpFlags => flags::parse(text, &FlagNames::TCP),
            Format::TunnelFlags => flags::parse(text, &FlagNames::TUNNEL),
            Format::CtState => flags::parse(text, &FlagNames::CT_STATE),
            Format::PacketType => parse_packet_type(text),
        };
        let (value, mask) = read.map_err(|reason| ParseError::new(text, reason))?;
        let all = u128::MAX >> (128 - 8 * u32::from(self.wire));
        match mask & all {
            0 => Ok((0, 0)),
            m if m == all || self.format == Format::PacketType => Ok((value, self.valid)),
            m if self.maskable == Maskable::Bits => Ok((value, m & self.valid)),
            _ => {
                let reason = format!("{text}: invalid mask for field {}", self.name);
                Err(ParseError::new(text, reason))
            }
        }
    }
}

type Parsed = Result<(u128, u128), String>;

/// What a number's text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Is(u128),
    /// More than 128 bits in hexadecimal, or 64 in other bases.
    TooLarge,
    /// Not a number.
    Not,
}

/// Reads a number as C's `strtoull` with base 0 does: decimal, `0x` or octal with a leading `0`, with a
/// sign that wraps. Hexadecimal numbers can have 128 bits, others 64.
pub(super) fn number(text: &str) -> Number {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digits = hex.trim_start_matches('0');
        return match hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            false => Number::Not,
            true if digits.is_empty() => Number::Is(0),
            true => u128::from_str_radix(digits, 16).map_or(Number::TooLarge, Number::Is),
        };
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Number::Not;
    }
    match u64::from_str_radix(digits, radix) {
        Ok(n) => Number::Is(u128::from(if negative { n.wrapping_neg() } else { n })),
        Err(_) => Number::TooLarge,
    }
}

/// One number that fits the field's bytes; `what` is `value` or `mask`.
fn sized_number(field: &Field, text: &str, whole: &str, what: &str) -> Result<u128, String> {
    let (bytes, name) = (u32::from(field.wire), field.name);
    match number(text) {
        Number::Is(n) if bytes == 16 || n >> (8 * bytes) == 0 => Ok(n),
        Number::Not => Err(format!("{whole}: bad syntax for {name} {what}")),
        _ => Err(format!("{whole}: {what} too large for {bytes}-byte field {name}")),
    }
}

fn parse_numbers(field: &Field, text: &str) -> Parsed {
    let Some((value, mask)) = text.split_once('/') else {
        return Ok((sized_number(field, text, text, "value")?, u128::MAX));
    };
    let value = sized_number(field, value, text, "value")?;
    Ok((value, sized_number(field, mask, text, "mask")?))
}

fn parse_macs(text: &str) -> Parsed {
    let invalid = || format!("{text}: invalid Ethernet address");
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value, Some(mask)),
        None => (text, None),
    };
    let value = mac(value).ok_or_else(invalid)?;
    match mask {
        Some(mask) => Ok((value, mac(mask).ok_or_else(invalid)?)),
        None => Ok((value, u128::MAX)),
    }
}

/// Six hexadecimal bytes; leading zeros may be left out or be too many.
fn mac(text: &str) -> Option<u128> {
    let mut parts = text.split(':');
    let mut value = 0;
    for _ in 0..6 {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        value = value << 8 | u128::from(u8::from_str_radix(part, 16).ok()?);
    }
    parts.next().is_none().then_some(value)
}

/// `ADDRESS`, `ADDRESS/BITS` or `ADDRESS/ADDRESS`, for addresses of `width` bits.
fn parse_address(
    text: &str,
    family: &str,
    width: u32,
    address: fn(&str) -> Option<u128>,
) -> Parsed {
    let invalid = || match family {
        "IPv4" => format!("{text}: invalid IP address"),
        _ => format!("{text}: invalid IPv6 address"),
    };
    let Some((value, mask)) = text.split_once('/') else {
        return Ok((address(text).ok_or_else(invalid)?, u128::MAX));
    };
    let value = address(value).ok_or_else(invalid)?;
    if let Some(mask) = address(mask) {
        return Ok((value, mask));
    }
    match mask.parse::<i64>().map_err(|_| invalid())? {
        bits @ 0..=128 if bits <= i64::from(width) => Ok((value, prefix(bits as u32, width))),
        _ => Err(format!(
            "{text}: {family} network prefix bits not between 0 and {width}, inclusive"
        )),
    }
}

/// The mask of `bits` leading bits of `width`.
fn prefix(bits: u32, width: u32) -> u128 {
    let all = u128::MAX >> (128 - width);
    all & !all.checked_shr(bits).unwrap_or(0)
}

fn parse_ipv4(text: &str) -> Parsed {
    let address = |t: &str| t.parse::<Ipv4Addr>().ok().map(|a| u128::from(a.to_bits()));
    parse_address(text, "IPv4", 32, address)
}

fn parse_ipv6(text: &str) -> Parsed {
    let address = |t: &str| t.parse::<Ipv6Addr>().ok().map(|a| a.to_bits());
    parse_address(text, "IPv6", 128, address)
}

fn parse_port_value(field: &Field, text: &str, names: &dyn PortNames) -> Parsed {
    match parse_port(text, names) {
        Some(port) => Ok((u128::from(port.0), u128::MAX)),
        None if field.format == Format::Port32 => {
            Err(format!("{text}: port value out of range for {}", field.name))
        }
        None => Err(format!("{text}: invalid or unknown port for {}", field.name)),
    }
}

fn parse_fragment(text: &str) -> Parsed {
    match FRAGMENTS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text)) {
        // Both bits are all there is.
        Some((_, value, 3)) => Ok((*value, u128::MAX)),
        Some((_, value, mask)) => Ok((*value, *mask)),
        None => Err(format!(
            "{text}: unknown fragment type (valid types are \"no\", \"yes\", \"first\", \"later\", \
             \"not_later\""
        )),
    }
}

/// `(NAMESPACE,TYPE)`.
fn parse_packet_type(text: &str) -> Parsed {
    let wrong = |what: &str, at: &str| format!("{at}: bad syntax for packet type {what}");
    let Some(rest) = text.strip_prefix('(') else { return Err(wrong("missing '('", text)) };
    let Some((namespace, rest)) = rest.split_once(',') else {
        return Err(wrong("missing ','", rest));
    };
    let half = |t: &str| match number(t) {
        Number::Is(n @ 0..=0xffff) => Some(n),
        _ => None,
    };
    let namespace = half(namespace).ok_or_else(|| wrong("namespace", namespace))?;
    let Some(kind) = rest.strip_suffix(')') else { return Err(wrong("missing ')'", rest)) };
    let kind = half(kind).ok_or_else(|| wrong("ns_type", rest))?;
    Ok((namespace << 16 | kind, u128::MAX))
}

/// A number in hexadecimal with a prefix, but zero without one, as C's `%#x` prints.
pub(super) fn hex(value: u128) -> String {
    match value {
        0 => "0".to_owned(),
        v => format!("{v:#x}"),
    }
}

fn mac_text(value: u128) -> String {
    let bytes = value.to_be_bytes();
    let parts: Vec<String> = bytes[10..].iter().map(|b| format!("{b:02x}")).collect();
    parts.join(":")
}

/// `/` and the mask of an address, in the shortest way; nothing if all bits are looked at.
fn address_mask(mask: u128, width: u32, address: impl Fn(u128) -> String) -> String {
    let bits = mask.count_ones();
    match mask == prefix(bits, width) {
        true if bits == width => String::new(),
        true => format!("/{bits}"),
        false => format!("/{}", address(mask)),
    }
}

impl Field {
    /// A value with its mask, both right-aligned, as flows and `set_field` print it; `*` if the mask
    /// is 0.
    pub fn format(&self, value: u128, mask: u128, names: &dyn PortNames) -> String {
        let mask = mask & self.valid;
        let full = mask == self.valid;
        let ipv4 = |v: u128| Ipv4Addr::from_bits(v as u32).to_string();
        let ipv6 = |v: u128| Ipv6Addr::from_bits(v).to_string();
        if mask == 0 && !matches!(self.format, Format::Decimal | Format::Hex) {
            return "*".to_owned();
        }
        match self.format {
            Format::Decimal if full => value.to_string(),
            Format::Decimal | Format::Hex if full => hex(value),
            Format::Decimal | Format::Hex => format!("{}/{}", hex(value), hex(mask)),
            Format::Ethernet if full => mac_text(value),
            Format::Ethernet => format!("{}/{}", mac_text(value), mac_text(mask)),
            Format::Ipv4 => ipv4(value) + &address_mask(mask, 32, ipv4),
            Format::Ipv6 => ipv6(value) + &address_mask(mask, 128, ipv6),
            Format::Port16 | Format::Port32 => ShowPort(OfPort(value as u16), names).to_string(),
            Format::Frag => match FRAGMENTS.iter().find(|(_, v, m)| (*v, *m) == (value, mask)) {
                Some((name, ..)) => (*name).to_owned(),
                None => "<error>".to_owned(),
            },
            Format::TcpFlags => flags::format(value, mask, &FlagNames::TCP),
            Format::TunnelFlags => flags::format_masked(value, mask, &FlagNames::TUNNEL),
            Format::CtState => flags::format(value, mask, &FlagNames::CT_STATE),
            // Namespace 1 is that of EtherTypes.
            Format::PacketType if value >> 16 == 1 => format!("(1,{:#x})", value & 0xffff),
            Format::PacketType => format!("({},{})", value >> 16, value & 0xffff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        let is = Number::Is;
        let cases = [
            ("5", is(5)),
            ("010", is(8)),
            ("0x10", is(16)),
            ("0x", is(0)),
            ("-1", is(u128::from(u64::MAX))),
            ("0", is(0)),
            ("", Number::Not),
            ("1x", Number::Not),
            ("08", Number::Not),
            ("0x+1", Number::Not),
            ("99999999999999999999", Number::TooLarge),
            ("0x100000000000000000000000000000000", Number::TooLarge),
        ];
        for (text, value) in cases {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn prefixes_have_as_many_bits() {
        assert_eq!(prefix(0, 32), 0);
        assert_eq!(prefix(8, 32), 0xff00_0000);
        assert_eq!(prefix(32, 32), 0xffff_ffff);
        assert_eq!(prefix(128, 128), u128::MAX);
        assert_eq!(prefix(0, 128), 0);
    }
}
