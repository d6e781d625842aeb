//! Columns that OVS acts on and this switch does not yet: whoever sets one is told.

use ovsdb::replica::Row;

/// Columns by table.
const IGNORED: &[(&str, &[&str])] = &[
    ("Open_vSwitch", &["ssl", "manager_options"]),
    (
        "Bridge",
        &["auto_attach", "controller", "ipfix", "netflow", "rstp_enable", "sflow", "stp_enable"],
    ),
    ("Port", &["lacp"]),
    ("Interface", &["bfd", "cfm_mpid", "lldp"]),
];

/// A line for each such column of a row of `table` that asks for something; `what` names the row.
pub(crate) fn complaints(table: &str, what: &str, row: &Row) -> Vec<String> {
    let columns = IGNORED.iter().filter(|(of, _)| *of == table).flat_map(|(_, columns)| *columns);
    let asking = columns.filter(|column| asks(row, column)).copied();
    let offload =
        table == "Open_vSwitch" && row.map_value("other_config", "hw-offload") == Some("true");
    let asking = asking.chain(offload.then_some("other_config:hw-offload"));
    asking.map(|column| format!("{what}{column} is not implemented: ignored")).collect()
}

/// Whether a column is other than what stands for nothing.
fn asks(row: &Row, column: &str) -> bool {
    match column {
        // Maps, of which OVS takes no notice without this.
        "bfd" | "lldp" => row.map_value(column, "enable") == Some("true"),
        "lacp" => row.optional_string(column).is_some_and(|mode| mode != "off"),
        _ => row.boolean(column) || row.integer(column).is_some() || !row.uuids(column).is_empty(),
    }
}
