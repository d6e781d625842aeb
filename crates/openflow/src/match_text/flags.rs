//! Sets of named bits as text: `syn|ack` for the whole field, `+syn-ack` for some of its bits.

use super::values::{Number, number};

/// The names of a field's bits.
pub(super) struct FlagNames {
    /// Bit number `n` is called `names[n]`; what has no name is not to be used.
    names: &'static [&'static str],
    /// What the field is called in messages about unknown flags, and about repeated ones.
    kinds: (&'static str, &'static str),
}

impl FlagNames {
    /// Of a TCP header (RFC 9293, RFC 3168, RFC 3540).
    pub(super) const TCP: FlagNames = FlagNames {
        names: &[
            "fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]",
        ],
        kinds: ("TCP flag(s)", "TCP flag"),
    };
    /// Of a tunnel's header.
    pub(super) const TUNNEL: FlagNames =
        FlagNames { names: &["oam"], kinds: ("tunnel flag(s)", "tunnel flag") };
    /// Of a tracked connection.
    pub(super) const CT_STATE: FlagNames = FlagNames {
        names: &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"],
        kinds: ("ct_state flag(s)", "ct_state flag"),
    };

    fn all(&self) -> u128 {
        (1 << self.names.len()) - 1
    }

    fn bit(&self, name: &str) -> Option<u128> {
        self.names.iter().position(|n| *n == name).map(|n| 1 << n)
    }
}

/// Reads `5`, `5/7`, `a|b` or `+a-b` as value and mask.
///
/// # Errors
/// A flag is unknown or repeated.
pub(super) fn parse(text: &str, flags: &FlagNames) -> Result<(u128, u128), String> {
    let unknown = |name: &str| format!("{name}: unknown {}", flags.kinds.0);
    if text.starts_with(['+', '-']) {
        return parse_signed(text, flags);
    }
    let known = |t: &str| match number(t) {
        Number::Is(n) if n & !flags.all() == 0 => Some(n),
        _ => None,
    };
    if let Some((value, mask)) = text.split_once('/') {
        return known(value).zip(known(mask)).ok_or_else(|| unknown(text));
    }
    let words = text.split('|').filter(|w| !w.is_empty());
    let bits = match number(text) {
        Number::Not => words.map(|w| flags.bit(w)).try_fold(0, |all, bit| Some(all | bit?)),
        _ => known(text),
    };
    Ok((bits.ok_or_else(|| unknown(text))?, u128::MAX))
}

fn parse_signed(text: &str, flags: &FlagNames) -> Result<(u128, u128), String> {
    let (mut value, mut mask) = (0, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let set = rest.starts_with('+');
        let word = &rest[1..];
        let end = word.find(['+', '-']).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        let bit = flags.bit(name).ok_or_else(|| format!("{name}: unknown {}", flags.kinds.0))?;
        if mask & bit != 0 {
            return Err(format!("{name}: Each {} can be specified only once", flags.kinds.1));
        }
        mask |= bit;
        value |= if set { bit } else { 0 };
        rest = after;
    }
    Ok((value, mask))
}

/// `a|b` if all known bits are looked at, else `+a-b`.
pub(super) fn format(value: u128, mask: u128, flags: &FlagNames) -> String {
    if mask & flags.all() != flags.all() {
        return format_masked(value, mask, flags);
    }
    let set = flags.names.iter().enumerate().filter(|(n, _)| value >> n & 1 == 1);
    let words: Vec<&str> = set.map(|(_, name)| *name).collect();
    match words.is_empty() {
        true => "0".to_owned(),
        false => words.join("|"),
    }
}

/// `+a-b`.
pub(super) fn format_masked(value: u128, mask: u128, flags: &FlagNames) -> String {
    let mut out = String::new();
    for (n, name) in flags.names.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1) {
        out.push(if value >> n & 1 == 1 { '+' } else { '-' });
        out.push_str(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for (value, mask) in [(0x12, 0xfff), (0, 0xfff), (2, 0x12), (0x200, 0x300)] {
            let text = format(value, mask, &FlagNames::TCP);
            let (v, m) = parse(&text, &FlagNames::TCP).expect(&text);
            assert_eq!((v, m & 0xfff), (value, mask), "{text}");
        }
        assert!(parse("+syn-syn", &FlagNames::TCP).is_err());
        assert!(parse("é", &FlagNames::TCP).is_err());
        assert!(parse("+é", &FlagNames::TCP).is_err());
    }
}
