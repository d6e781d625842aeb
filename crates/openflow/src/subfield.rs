//! Parts of fields, as actions name them: `NXM_NX_REG0[0..15]`.

use crate::error::ParseError;
use crate::field::Field;
use crate::key::{FullKey, FullMask};
use crate::registry::field;
use std::fmt;

/// A run of bits of a field, `NAME[first..last]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subfield {
    /// The field.
    pub field: &'static Field,
    /// Its first bit, from the least significant.
    pub first: u8,
    /// How many bits, 1 to 128.
    pub bits: u8,
}

impl Subfield {
    /// The whole of a field.
    pub fn whole(field: &'static Field) -> Subfield {
        Subfield { field, first: 0, bits: field.bits }
    }

    /// Its bits in the field.
    pub fn mask(&self) -> u128 {
        u128::MAX >> (128 - u32::from(self.bits)) << self.first
    }

    /// Its value in a key, right-aligned.
    pub fn get(&self, key: &FullKey) -> u128 {
        (self.field.get(key) & self.mask()) >> self.first
    }

    /// Sets it in a key.
    pub fn set(&self, key: &mut FullKey, value: u128) {
        self.field.set(key, value << self.first, self.mask());
    }

    /// Adds its bits to a mask.
    pub fn add_to(&self, mask: &mut FullMask) {
        self.field.add_to(mask, self.mask());
    }

    /// Reads `NAME`, `NAME[]`, `NAME[5]` or `NAME[0..5]`, where the name is any of the field's.
    ///
    /// # Errors
    /// The name is unknown, the syntax is wrong, or the bits are not all in the field.
    pub fn parse(text: &str) -> Result<Subfield, ParseError> {
        let wrong = |reason: String| ParseError::new(text, reason);
        let (name, bits) = match text.split_once('[') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let Some(field) = field(name) else {
            return Err(wrong(format!("{text}: unknown field `{name}'")));
        };
        let Some(rest) = bits else { return Ok(Subfield::whole(field)) };
        let Some(range) = rest.strip_suffix(']') else {
            return Err(wrong(format!("{text}: {SYNTAX}")));
        };
        let Some((first, last)) = parse_range(range, field.bits) else {
            return Err(wrong(format!("{text}: {SYNTAX}")));
        };
        let width = u32::from(field.bits);
        let beyond = |which: &str, bit: u32| {
            format!(
                "{text}: {which} bit {bit} is not valid because field is only {width} bits wide"
            )
        };
        if first > last {
            return Err(wrong(format!("{text}: starting bit {first} is after ending bit {last}")));
        }
        if first >= width {
            return Err(wrong(beyond("starting", first)));
        }
        if last >= width {
            return Err(wrong(beyond("ending", last)));
        }
        // Both are below the field's width, which is at most 128.
        Ok(Subfield { field, first: first as u8, bits: (last - first + 1) as u8 })
    }
}

/// What is said of other brackets.
const SYNTAX: &str = "syntax error expecting [] or [<bit>] or [<start>..<end>]";

/// What stands in the brackets, as first and last bit.
fn parse_range(range: &str, width: u8) -> Option<(u32, u32)> {
    if range.is_empty() {
        return Some((0, u32::from(width) - 1));
    }
    match range.split_once("..") {
        Some((first, last)) => Some((first.trim().parse().ok()?, last.trim().parse().ok()?)),
        None => range.trim().parse().ok().map(|bit| (bit, bit)),
    }
}

impl fmt::Display for Subfield {
    /// As OVS prints it: Nicira's name before OpenFlow's, brackets always.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.wire_name())?;
        let last = self.first + self.bits - 1;
        match self.bits {
            b if b == self.field.bits => f.write_str("[]"),
            1 => write!(f, "[{}]", self.first),
            _ => write!(f, "[{}..{last}]", self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::reg;

    #[test]
    fn texts() {
        for (text, shown) in [
            ("reg0", "NXM_NX_REG0[]"),
            ("NXM_NX_REG0[]", "NXM_NX_REG0[]"),
            ("reg0[0..31]", "NXM_NX_REG0[]"),
            ("reg0[5]", "NXM_NX_REG0[5]"),
            ("reg0[0..5]", "NXM_NX_REG0[0..5]"),
            ("dl_vlan[]", "dl_vlan[]"),
            ("ip_dscp", "OXM_OF_IP_DSCP[]"),
        ] {
            assert_eq!(Subfield::parse(text).expect(text).to_string(), shown);
        }
        for (text, reason) in [
            ("reg0[32]", "starting bit 32 is not valid because field is only 32 bits wide"),
            ("reg0[0..32]", "ending bit 32 is not valid because field is only 32 bits wide"),
            ("reg0[3..1]", "starting bit 3 is after ending bit 1"),
            ("reg0[3.1]", SYNTAX),
            ("reg0[3", SYNTAX),
            ("reg0[-1]", SYNTAX),
            ("foo[]", "unknown field `foo'"),
        ] {
            let error = Subfield::parse(text).expect_err(text);
            assert_eq!(error.reason, format!("{text}: {reason}"));
        }
    }

    #[test]
    fn a_part_is_read_and_set_alone() {
        let part = Subfield { field: reg(1), first: 4, bits: 8 };
        let (mut key, mut mask) = (FullKey::default(), FullMask::default());
        key.regs[1] = u32::MAX.into();
        part.set(&mut key, 0x5a);
        part.add_to(&mut mask);
        assert_eq!((key.regs[1].get(), part.get(&key)), (0xffff_f5af, 0x5a));
        assert_eq!(mask.0.regs[1].get(), 0xff0);
    }
}
