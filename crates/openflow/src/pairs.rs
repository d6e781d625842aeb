//! `key`, `key:value`, `key=value` and `key(value)`, separated by commas or white space: the syntax of
//! flows, actions and groups (ovs-actions(7), "Action Syntax").

/// What separates pairs.
const SEPARATORS: [char; 5] = [',', ' ', '\t', '\r', '\n'];

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair<'a> {
    pub(crate) key: &'a str,
    /// What stands between the parentheses, or after `:` or `=`; else empty. Of `key(a)->b` it is
    /// `a)->b`.
    pub(crate) value: &'a str,
}

/// The pairs of a text, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Pairs<'a> {
    pub(crate) fn new(text: &'a str) -> Pairs<'a> {
        Pairs { rest: text }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        let text = self.rest.trim_start_matches(SEPARATORS);
        if text.is_empty() {
            self.rest = text;
            return None;
        }
        let ends_key = |b: u8| matches!(b, b':' | b'=' | b'(') || is_separator(b);
        let end = text.bytes().position(ends_key).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let (value, rest) = match rest.bytes().next() {
            Some(b':' | b'=') => rest[1..].split_at(value_end(&rest[1..], is_separator)),
            Some(b'(') => parenthesized(&rest[1..]),
            _ => (&rest[..0], rest),
        };
        self.rest = rest;
        Some(Pair { key, value })
    }
}

/// The parts of a text between bytes that `ends` one, which do not count in quotes and parentheses.
pub(crate) fn split<'a>(
    text: &'a str,
    ends: impl Fn(u8) -> bool + 'a,
) -> impl Iterator<Item = &'a str> + 'a {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, after) = text.split_at(value_end(text, &ends));
        // Separators are ASCII.
        rest = after.get(1..);
        Some(part)
    })
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\t' | b'\r' | b'\n')
}

/// The value up to the parenthesis that closes it, and what follows; `->` belongs to the value.
fn parenthesized(text: &str) -> (&str, &str) {
    let close = value_end(text, |b| b == b')');
    let (value, rest) = text.split_at(close);
    if rest.starts_with(")->") {
        return text.split_at(close + value_end(rest, is_separator));
    }
    (value, rest.strip_prefix(')').unwrap_or(rest))
}

/// Where a value ends: at the first byte that `ends` it outside of inner parentheses and of quotes, which
/// names of ports may need.
fn value_end(text: &str, ends: impl Fn(u8) -> bool) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' if at > 0 && text.as_bytes()[at - 1] == b'\\' => {}
            b'"' => at += quoted_len(&text[at + 1..]).unwrap_or(0),
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth == 0 && ends(byte) => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Longest name that may stand in quotes, in bytes: names of network devices have 15, those of OVS's
/// virtual ports may be longer. It keeps a text of many quotes from being read over and over.
const MAX_QUOTED: usize = 255;

/// How many bytes there are up to the quote that closes a name, with it. A quote that none closes means
/// nothing.
fn quoted_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let closes = |i: usize| bytes[i] == b'"' && (i == 0 || bytes[i - 1] != b'\\');
    (0..bytes.len().min(MAX_QUOTED)).find(|i| closes(*i)).map(|i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&str, &str)> {
        Pairs::new(text).map(|p| (p.key, p.value)).collect()
    }

    #[test]
    fn keys_and_values() {
        assert_eq!(
            pairs(" a,b=1 c:2\r\n,,d(e(f),\"g)\"),h(i)j"),
            [("a", ""), ("b", "1"), ("c", "2"), ("d", "e(f),\"g)\""), ("h", "i"), ("j", "")]
        );
        assert_eq!(pairs("x(1)->y[0..1],z"), [("x", "1)->y[0..1]"), ("z", "")]);
        assert_eq!(pairs("load:5->reg0[],o:\"a,b\""), [("load", "5->reg0[]"), ("o", "\"a,b\"")]);
        assert_eq!(pairs("in_port = 1"), [("in_port", ""), ("", ""), ("1", "")]);
        assert_eq!(pairs("clone(a(b"), [("clone", "a(b")]);
        assert_eq!(pairs(r#"o:"a\",b",p:"c"#), [("o", r#""a\",b""#), ("p", "\"c")]);
        assert_eq!(pairs(" ,"), []);
    }
}
