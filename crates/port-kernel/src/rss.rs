//! How a NIC spreads what it receives among its queues: a hash of addresses and ports picks an entry of a table, and that
//! names the queue (`ethtool -x`).

use crate::sys::ethtool;
use std::io::{ErrorKind, Result};

/// Commands of ethtool (linux/ethtool.h).
const GET_TABLE: u32 = 0x38;
const SET_TABLE: u32 = 0x39;
const GET_ALL: u32 = 0x46;
/// Entries of a table at most; NICs have up to a few thousand.
const TABLE_MAX: u32 = 1 << 16;
/// What a hash function is called, by its bit (`ETH_RSS_HASH_TOP` and so on).
const FUNCTIONS: [(u32, &str); 3] = [(1, "toeplitz"), (2, "xor"), (4, "crc32")];

/// What a netdev says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// A queue for each entry.
    pub table: Vec<u32>,
    /// Bytes of the hash's key.
    pub key: u32,
    /// The hash.
    pub function: &'static str,
}

impl Rss {
    /// The queues that the table names are those from 0 to `queues`, each as often as any other or once more.
    pub fn is_even(&self, queues: u32) -> bool {
        let mut times = vec![0; queues as usize];
        for &queue in &self.table {
            let Some(n) = times.get_mut(queue as usize) else { return false };
            *n += 1;
        }
        let (least, most) = (times.iter().min(), times.iter().max());
        least.zip(most).is_some_and(|(least, most)| most - least <= 1)
    }

    /// A table of so many entries that names each of the queues from 0 to `queues` as often as any other.
    pub fn even(entries: usize, queues: u32) -> Vec<u32> {
        (0..queues.max(1)).cycle().take(entries).collect()
    }

    /// All queues that the table names are below that.
    pub fn is_below(&self, queues: u32) -> bool {
        self.table.iter().all(|&queue| queue < queues)
    }
}

/// How a netdev spreads what it receives.
///
/// # Errors
/// The kernel's: `EOPNOTSUPP` if it does not.
pub fn rss(name: &str) -> Result<Rss> {
    // command, context, sizes of table and key; hash function, flags, reserved
    let mut all = [GET_ALL, 0, 0, 0, 0, 0];
    ethtool(name, &mut all)?;
    let (entries, key) = (all[2], all[3]);
    if entries == 0 || entries > TABLE_MAX {
        return Err(ErrorKind::Unsupported.into());
    }
    let mut table = vec![0; 2 + entries as usize];
    (table[0], table[1]) = (GET_TABLE, entries);
    ethtool(name, &mut table[..])?;
    table.drain(..2);
    let [bits, ..] = all[4].to_ne_bytes();
    let function = FUNCTIONS.iter().find(|f| f.0 == u32::from(bits));
    Ok(Rss { table, key, function: function.map_or("unknown", |f| f.1) })
}

/// Gives a netdev this table; without entries, the driver's own.
///
/// # Errors
/// The kernel's.
pub fn set_rss_table(name: &str, table: &[u32]) -> Result<()> {
    let mut words = vec![SET_TABLE, table.len() as u32];
    words.extend(table);
    ethtool(name, &mut words[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(table: &[u32]) -> Rss {
        Rss { table: table.to_vec(), key: 40, function: "toeplitz" }
    }

    #[test]
    fn tables_are_even_or_not() {
        assert!(with(&[0, 1, 2, 0, 1, 2, 0, 1]).is_even(3));
        assert!(with(&[1, 0]).is_even(2));
        assert!(!with(&[0, 1, 2, 0, 1, 2, 0, 1]).is_even(4), "one gets nothing");
        assert!(!with(&[0, 1, 2, 3]).is_even(3), "one is not there");
        assert!(!with(&[0, 0, 0, 1]).is_even(2));
        assert!(with(&[0, 0, 0, 1]).is_below(2) && !with(&[0, 2]).is_below(2));
        assert!(!with(&[0]).is_even(0));
        assert_eq!(Rss::even(5, 2), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn who_has_no_table_says_so() {
        assert!(rss("lo").is_err());
        assert!(set_rss_table("no-such-netdev", &[]).is_err());
    }
}
