//! OpenFlow ports as `ovs-ofctl` reads and prints them.

use crate::port::{OfPort, PortNames};
use std::fmt;

/// First reserved number of OpenFlow 1.1 and later (OFPP_MAX); the 16-bit numbers here are 0xffff0000
/// less.
const FIRST_RESERVED_32: u32 = 0xffff_ff00;

/// Reads a port: a decimal number, a reserved name in any case, or the name of a port, in double
/// quotes if it looks like something else.
pub fn parse_port(word: &str, names: &dyn PortNames) -> Option<OfPort> {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
        let n: u32 = word.parse().ok()?;
        return match n {
            0..=0xffff => Some(OfPort(n as u16)),
            FIRST_RESERVED_32.. => Some(OfPort((n & 0xffff) as u16)),
            _ => None,
        };
    }
    if let Some(quoted) = word.strip_prefix('"') {
        return names.number(&unquoted(quoted.strip_suffix('"')?)?);
    }
    let reserved = OfPort::RESERVED.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    reserved.map(|(_, port)| *port).or_else(|| names.number(word))
}

/// The name without the backslashes that quoting needs.
fn unquoted(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

/// A port as it is printed: by its name if it has one, else by its reserved name or number.
pub(crate) struct ShowPort<'a>(pub(crate) OfPort, pub(crate) &'a dyn PortNames);

impl fmt::Display for ShowPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reserved = OfPort::RESERVED.iter().any(|(_, port)| *port == self.0);
        match self.1.name(self.0).filter(|_| !reserved) {
            Some(name) => ShowName(name).fmt(f),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A name of a port or table as it is printed: in double quotes if it looks like something else.
#[derive(Debug, Clone, Copy)]
pub struct ShowName<'a>(pub &'a str);

impl fmt::Display for ShowName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_plain(self.0) {
            true => f.write_str(self.0),
            false => {
                write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
            }
        }
    }
}

/// True if a name needs no quotes.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;
    impl PortNames for Names {
        fn name(&self, port: OfPort) -> Option<&str> {
            [(1, "p1"), (2, "a \"b"), (3, "12"), (0xfffe, "br0")]
                .into_iter()
                .find(|(n, _)| *n == port.0)
                .map(|(_, name)| name)
        }
        fn number(&self, name: &str) -> Option<OfPort> {
            (0..4).map(OfPort).find(|p| self.name(*p) == Some(name))
        }
    }

    #[test]
    fn ports() {
        let cases = [
            ("7", Some(7), "7"),
            ("p1", Some(1), "p1"),
            ("\"p1\"", Some(1), "p1"),
            ("\"a \\\"b\"", Some(2), "\"a \\\"b\""),
            ("\"12\"", Some(3), "\"12\""),
            ("12", Some(12), "12"),
            ("65534", Some(0xfffe), "LOCAL"),
            ("4294967294", Some(0xfffe), "LOCAL"),
            ("None", Some(0xffff), "ANY"),
            ("70000", None, ""),
            ("0x1", None, ""),
            ("-1", None, ""),
            ("\"p1", None, ""),
            ("", None, ""),
        ];
        for (text, number, shown) in cases {
            let port = parse_port(text, &Names);
            assert_eq!(port, number.map(OfPort), "{text}");
            if let Some(port) = port {
                assert_eq!(ShowPort(port, &Names).to_string(), shown, "{text}");
            }
        }
    }
}
