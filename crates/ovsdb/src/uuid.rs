//! Row identifiers (RFC 7047, section 3.1, `<uuid>`; RFC 4122 version 4).

use std::fmt;
use std::str::FromStr;

/// A 128-bit row identifier. Its order is that of its text.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

/// Length of the text form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
const TEXT_LEN: usize = 36;
/// Where the text form has its dashes.
const DASHES: [usize; 4] = [8, 13, 18, 23];

impl Uuid {
    /// All zeros: the default of uuid columns and the "no transaction" id of `monitor_cond_since`.
    pub const ZERO: Self = Self([0; 16]);

    /// A random (version 4) identifier from the kernel's random numbers.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            // Fails only on EINTR before the kernel's pool is ready, early in boot.
            if let Ok(n) =
                rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            {
                filled += n;
            }
        }
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// The identifier made of these 16 bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
pub struct ParseUuidError;

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let text = text.as_bytes();
        if text.len() != TEXT_LEN || DASHES.iter().any(|&at| text[at] != b'-') {
            return Err(ParseUuidError);
        }
        let mut bytes = [0; 16];
        let digits = text.iter().enumerate().filter(|(at, _)| !DASHES.contains(at));
        for (nth, (_, &digit)) in digits.enumerate() {
            let digit = (digit as char).to_digit(16).ok_or(ParseUuidError)?;
            bytes[nth / 2] = bytes[nth / 2] << 4 | digit as u8;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let uuid = Uuid::random();
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_ne!(uuid, Uuid::random());
        let text = "550e8400-e29b-41d4-a716-44665544000A";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text.to_lowercase());
        for bad in ["", "550e8400", "550e8400-e29b-41d4-a716-44665544000g", "é50e8400-e29b-41d4"] {
            assert_eq!(bad.parse::<Uuid>(), Err(ParseUuidError), "{bad}");
        }
        // A dash too many where a digit belongs, same length.
        assert!("550e8400-e29b-41d4-a716-4466-5440000".parse::<Uuid>().is_err());
    }
}
