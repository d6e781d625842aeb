//! OpenFlow port numbers: which interface of a bridge gets which.
//!
//! A function of the configuration and of the numbers that interfaces have, so that a restart, which
//! finds the latter in the database, comes to the same result.

use crate::desired::Interface;
use ovsdb::Uuid;
use pipeline::OfPort;
use std::collections::BTreeMap;

/// The numbers that `interfaces` of one bridge have a right to; those that are left out take any that
/// is free. `has` is the number that an interface has or had last. In the order of right: whoever has
/// what it asks for, whoever asks, whoever has. Between equals the order of `interfaces` decides.
pub(crate) fn claims(
    interfaces: &[&Interface],
    has: impl Fn(&Interface) -> Option<OfPort>,
) -> BTreeMap<Uuid, OfPort> {
    let mut given: BTreeMap<OfPort, Uuid> = BTreeMap::new();
    let mut claims = BTreeMap::new();
    let mut give = |i: &Interface, number: OfPort| {
        if !claims.contains_key(&i.uuid) && !given.contains_key(&number) {
            given.insert(number, i.uuid);
            claims.insert(i.uuid, number);
        }
    };
    for i in interfaces {
        if let Some(n) = asked(i).filter(|n| has(i) == Some(*n)) {
            give(i, n);
        }
    }
    for i in interfaces {
        if let Some(n) = asked(i) {
            give(i, n);
        }
    }
    for i in interfaces {
        if let Some(n) = has(i) {
            give(i, n);
        }
    }
    claims
}

/// `ofport_request`, if it is a number for ports.
pub(crate) fn asked(i: &Interface) -> Option<OfPort> {
    ordinary(i.ofport_request?)
}

/// `n` as the number of an ordinary port.
pub(crate) fn ordinary(n: i64) -> Option<OfPort> {
    let n = OfPort(u16::try_from(n).ok()?);
    (n.is_port() && n != OfPort::LOCAL).then_some(n)
}

/// The lowest number that neither `claimed` nor `taken` says yes to.
pub(crate) fn lowest(
    claimed: impl Fn(OfPort) -> bool,
    taken: impl Fn(OfPort) -> bool,
) -> Option<OfPort> {
    (1..=OfPort::MAX.0).map(OfPort).find(|&n| !claimed(n) && !taken(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u8, ofport_request: Option<i64>, ofport: Option<i64>) -> Interface {
        let uuid = format!("00000000-0000-0000-0000-0000000000{id:02x}").parse().expect("uuid");
        Interface { uuid, ofport_request, ofport, ..Interface::default() }
    }

    fn numbers(rows: &[Interface]) -> Vec<Option<u16>> {
        let all: Vec<&Interface> = rows.iter().collect();
        let claims = claims(&all, |i| i.ofport.and_then(ordinary));
        rows.iter().map(|i| claims.get(&i.uuid).map(|n| n.0)).collect()
    }

    #[test]
    fn requests_come_before_history_and_history_before_nothing() {
        assert_eq!(numbers(&[row(1, None, Some(1)), row(2, Some(1), None)]), [None, Some(1)]);
        assert_eq!(numbers(&[row(1, Some(5), Some(1)), row(2, None, Some(2))]), [Some(5), Some(2)]);
        // Who has what both ask for keeps it, whatever its name.
        let both = [row(1, Some(3), Some(4)), row(2, Some(3), Some(3))];
        assert_eq!(numbers(&both), [Some(4), Some(3)]);
        // A swap.
        let swap = [row(1, Some(2), Some(1)), row(2, Some(1), Some(2))];
        assert_eq!(numbers(&swap), [Some(2), Some(1)]);
        assert_eq!(
            numbers(&[row(1, Some(70_000), Some(-1)), row(2, None, Some(65534))]),
            [None; 2]
        );
    }

    #[test]
    fn the_lowest_free_number() {
        assert_eq!(lowest(|n| n.0 == 1, |n| n.0 == 2), Some(OfPort(3)));
        assert_eq!(lowest(|_| true, |_| false), None);
    }
}
