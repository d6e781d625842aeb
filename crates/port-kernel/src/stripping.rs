//! Whether a NIC takes the VLAN tag out of what it receives and hands it over beside the frame (`ethtool -k`), and having
//! it not do that.

use crate::sys::ethtool;
use std::io::{Error, ErrorKind, Result};

/// Commands of ethtool, and the set of names that features have (linux/ethtool.h).
const GET_DRIVER: u32 = 0x03;
const GET_NAMES: u32 = 0x1b;
const GET_SIZES: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
const FEATURES: u32 = 4;
/// Words of `struct ethtool_drvinfo`, and of a name.
const DRIVER_WORDS: usize = 49;
const NAME_WORDS: usize = 8;
/// Features that there are at most: Linux has some 70.
const FEATURES_MAX: u32 = 1024;

/// What takes tags out: those of customers (802.1Q) and those of providers (802.1ad).
const STRIPPING: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

/// A feature by which tags are taken out of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripping {
    /// As `ethtool -k` calls it.
    pub name: &'static str,
    bit: usize,
}

/// The features of a netdev that take tags out of what it receives and are on.
///
/// # Errors
/// The kernel's.
pub fn stripping(netdev: &str) -> Result<Vec<Stripping>> {
    let (names, blocks) = names(netdev)?;
    // Of each block: available, wanted, active, never changed.
    let mut all = vec![0; 2 + blocks * 4];
    (all[0], all[1]) = (GET_FEATURES, blocks as u32);
    ethtool(netdev, &mut all[..])?;
    let is_on = |bit: usize| all[2 + bit / 32 * 4 + 2] >> (bit % 32) & 1 == 1;
    let of = |name| Some(Stripping { name, bit: names.iter().position(|n| n == name)? });
    Ok(STRIPPING.into_iter().filter_map(of).filter(|s| is_on(s.bit)).collect())
}

/// Turns such features on or off.
///
/// # Errors
/// The kernel's, or a line that names those that the driver left as they were.
pub fn set_stripping(netdev: &str, features: &[Stripping], on: bool) -> Result<()> {
    let (_, blocks) = names(netdev)?;
    // Of each block: which ones are meant, and how they are to be.
    let mut all = vec![0; 2 + blocks * 2];
    (all[0], all[1]) = (SET_FEATURES, blocks as u32);
    for &Stripping { bit, .. } in features {
        let (at, mask) = (2 + bit / 32 * 2, 1 << (bit % 32));
        all[at] |= mask;
        all[at + 1] |= if on { mask } else { 0 };
    }
    ethtool(netdev, &mut all[..])?;
    // What is fixed, or needs something else, is no error.
    let now = stripping(netdev)?;
    let left: Vec<_> = features.iter().filter(|f| now.contains(f) != on).map(|f| f.name).collect();
    if left.is_empty() {
        return Ok(());
    }
    let (left, to) = (left.join(", "), if on { "on" } else { "off" });
    Err(Error::other(format!("the driver does not turn {to} {left}")))
}

/// The name of a netdev's driver.
///
/// # Errors
/// The kernel's.
pub fn driver(netdev: &str) -> Result<String> {
    let mut words = [0; DRIVER_WORDS];
    words[0] = GET_DRIVER;
    ethtool(netdev, &mut words)?;
    Ok(name(&words[1..1 + NAME_WORDS]))
}

/// The names of all features, by bit, and how many words have one bit of each.
fn names(netdev: &str) -> Result<(Vec<String>, usize)> {
    // command, reserved, sets that are asked for (64 bits), sizes
    let mut sizes = [GET_SIZES, 0, 1 << FEATURES, 0, 0];
    ethtool(netdev, &mut sizes)?;
    let count = sizes[4];
    if count == 0 || count > FEATURES_MAX {
        return Err(ErrorKind::Unsupported.into());
    }
    let mut words = vec![0; 3 + count as usize * NAME_WORDS];
    words[..3].copy_from_slice(&[GET_NAMES, FEATURES, count]);
    ethtool(netdev, &mut words[..])?;
    let names = words[3..].chunks_exact(NAME_WORDS).map(name).collect();
    Ok((names, count.div_ceil(32) as usize))
}

/// Text that ends at a zero byte.
fn name(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|w| w.to_ne_bytes()).take_while(|&b| b != 0);
    bytes.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netdev_that_strips_nothing_says_so_and_is_not_changed() {
        assert_eq!(stripping("lo").expect("says its features"), []);
        let (names, blocks) = names("lo").expect("there are names");
        let bit = names.iter().position(|n| n == STRIPPING[0]).expect("it is known");
        assert!(bit < blocks * 32 && names.contains(&STRIPPING[1].to_owned()));
        let feature = Stripping { name: STRIPPING[0], bit };
        set_stripping("lo", &[feature], false).expect("it is off");
        // Who may not, and a driver that cannot.
        assert!(set_stripping("lo", &[feature], true).is_err());
        assert!(stripping("no-such-netdev").is_err());
        assert!(driver("no-such-netdev").is_err());
    }
}
