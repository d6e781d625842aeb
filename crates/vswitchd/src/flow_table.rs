//! `Flow_Table` rows: what is configured of a bridge's OpenFlow tables.

use openflow::{Field, Subfield};
use ovsdb::replica::{Replica, Row};
use std::collections::BTreeMap;
use tables::TableConfig;

/// Most fields of which prefixes are followed, as the column's limit in OVS.
const PREFIXES_MAX: usize = 3;
/// The word that switches prefix tracking off.
const NO_PREFIXES: &str = "none";
/// Fields that are addresses (ovs-vswitchd.conf.db(5), `Flow_Table`, `prefixes`).
const ADDRESSES: &[&str] = &[
    "tun_id",
    "tun_src",
    "tun_dst",
    "tun_ipv6_src",
    "tun_ipv6_dst",
    "nw_src",
    "nw_dst",
    "ip_src",
    "ip_dst",
    "ipv6_src",
    "ipv6_dst",
];

/// The tables of a bridge that have a configuration. What is wrong in them is said to `complain`, and
/// left out.
pub(crate) fn read(
    db: &Replica,
    bridge: &Row,
    complain: &mut dyn FnMut(String),
) -> BTreeMap<u8, TableConfig> {
    let Some(column) = bridge.get("flow_tables") else { return BTreeMap::new() };
    let mut tables = BTreeMap::new();
    for (number, uuid) in column.pairs() {
        let (Some(number), Some(uuid)) = (number.as_integer(), uuid.as_uuid()) else { continue };
        let Some(row) = db.row("Flow_Table", uuid) else { continue };
        match u8::try_from(number) {
            Ok(number) if number <= tables::MAX_TABLE => {
                let mut told = |text: String| complain(format!("flow table {number}: {text}"));
                tables.insert(number, table(row, &mut told));
            }
            _ => complain(format!("flow table {number}: there is none, they are 0 to 253")),
        }
    }
    tables
}

fn table(row: &Row, complain: &mut dyn FnMut(String)) -> TableConfig {
    let limit = row.integer("flow_limit");
    TableConfig {
        name: row.optional_string("name").map(str::to_owned).filter(|n| !n.is_empty()),
        // More than fit in the number are as good as no limit.
        flow_limit: limit.and_then(|l| u32::try_from(l).ok()),
        evict: row.optional_string("overflow_policy") == Some("evict"),
        groups: groups(&row.strings("groups"), complain),
        prefixes: prefixes(&row.strings("prefixes"), complain),
    }
}

fn groups(texts: &[&str], complain: &mut dyn FnMut(String)) -> Vec<Subfield> {
    let mut out = Vec::new();
    for text in texts {
        match Subfield::parse(text) {
            Ok(subfield) => out.push(subfield),
            Err(e) => complain(format!("groups: {e}; it is left out")),
        }
    }
    out
}

/// `None` for the default.
fn prefixes(names: &[&str], complain: &mut dyn FnMut(String)) -> Option<Vec<&'static Field>> {
    if names.is_empty() {
        return None;
    }
    let mut fields: Vec<&'static Field> = Vec::new();
    for name in names.iter().filter(|n| **n != NO_PREFIXES) {
        match openflow::field(name).filter(|_| ADDRESSES.contains(name)) {
            _ if fields.len() == PREFIXES_MAX => {
                complain(format!("prefixes: {name} is one too many; it is left out"));
            }
            Some(field) if fields.contains(&field) => {}
            Some(field) => fields.push(field),
            None => {
                let known = ADDRESSES.join(", ");
                complain(format!("prefixes: {name} is not an address field ({known})"));
            }
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ovsdb::{Atom, Datum};

    fn row(columns: &[(&str, &[&str])]) -> Row {
        let set =
            |values: &[&str]| Datum::set(values.iter().map(|v| Atom::String((*v).to_owned())));
        let columns = columns.iter().map(|(name, values)| ((*name).to_owned(), set(values)));
        Row::new(columns.collect())
    }

    fn table_of(columns: &[(&str, &[&str])]) -> (TableConfig, Vec<String>) {
        let mut complaints = Vec::new();
        let config = table(&row(columns), &mut |c| complaints.push(c));
        (config, complaints)
    }

    #[test]
    fn rows_become_configurations() {
        assert_eq!(table_of(&[]), (TableConfig::default(), vec![]));
        let (t, told) = table_of(&[
            ("name", &["main"]),
            ("overflow_policy", &["evict"]),
            ("groups", &["NXM_OF_IN_PORT[]", "reg0[0..3]"]),
            ("prefixes", &["nw_dst", "ip_dst", "ipv6_src"]),
        ]);
        assert_eq!(
            (t.name.as_deref(), t.evict, t.groups.len(), told),
            (Some("main"), true, 2, vec![])
        );
        assert_eq!(t.prefixes.map(|p| p.len()), Some(2), "two names of one field");
        assert_eq!(table_of(&[("prefixes", &["none"])]).0.prefixes, Some(vec![]));
    }

    #[test]
    fn what_is_wrong_is_said_and_left_out() {
        let (t, told) =
            table_of(&[("groups", &["foo[]", "reg0[]"]), ("prefixes", &["tcp_src", "nw_src"])]);
        assert_eq!((t.groups.len(), t.prefixes.map(|p| p.len())), (1, Some(1)));
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("foo") && told[1].contains("tcp_src is not an address field"),
            "{told:?}"
        );
    }
}
