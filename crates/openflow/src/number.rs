//! Numbers as `ovs-ofctl` reads them: `0x` is hexadecimal, a leading `0` octal.
//!
//! Where OVS silently cuts off what does not fit, the number is refused here.

use crate::error::ParseError;

/// A number of any base, without a sign.
pub(crate) fn integer(text: &str) -> Option<u128> {
    let (digits, base) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // `from_str_radix` alone would take a sign.
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u128::from_str_radix(digits, base).ok()).flatten()
}

/// A number of up to 64 bits; `-1` is the highest one.
fn wrapping(word: &str, max: u64) -> Result<u64, ParseError> {
    if word.is_empty() {
        return Err(ParseError::new(word, "missing required numeric argument"));
    }
    let wrong = || ParseError::new(word, format!("invalid numeric format {word}"));
    let magnitude = integer(word.strip_prefix('-').unwrap_or(word)).ok_or_else(wrong)?;
    let n = u64::try_from(magnitude).ok().filter(|n| *n <= max).ok_or_else(wrong)?;
    Ok(if word.starts_with('-') { n.wrapping_neg() & max } else { n })
}

pub(crate) fn u64(word: &str) -> Result<u64, ParseError> {
    wrapping(word, u64::MAX)
}

pub(crate) fn u32(word: &str) -> Result<u32, ParseError> {
    // The limit makes it fit.
    wrapping(word, u64::from(u32::MAX)).map(|n| n as u32)
}

/// A number of 16 bits; `what` is what it stands for.
pub(crate) fn u16(word: &str, what: &str) -> Result<u16, ParseError> {
    let n = integer(word).and_then(|n| n.try_into().ok());
    n.ok_or_else(|| ParseError::new(word, format!("invalid {what} \"{word}\"")))
}

/// A number of 8 bits; `what` is what it stands for.
pub(crate) fn u8(word: &str, what: &str) -> Result<u8, ParseError> {
    let n = integer(word).and_then(|n| n.try_into().ok());
    n.ok_or_else(|| ParseError::new(word, format!("invalid {what} \"{word}\"")))
}

/// The number of a table, 0 to 255, which is always decimal. Tables have no names yet.
pub(crate) fn table(word: &str) -> Option<u8> {
    word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_and_limits() {
        let cases = [("0", Some(0)), ("010", Some(8)), ("0xfF", Some(255)), ("08", None)];
        for (text, n) in cases.into_iter().chain([("", None), ("+1", None), ("0x", None)]) {
            assert_eq!(integer(text), n, "{text}");
        }
        assert_eq!(u32("-1"), Ok(u32::MAX));
        assert_eq!(u64("-2"), Ok(u64::MAX - 1));
        assert_eq!(
            u32("4294967296").map_err(|e| e.reason),
            u32("x").map_err(|_| "invalid numeric format 4294967296".to_owned())
        );
        assert_eq!(
            u16("65536", "priority").expect_err("too big").reason,
            "invalid priority \"65536\""
        );
        assert_eq!(u64("").expect_err("none").reason, "missing required numeric argument");
    }
}
