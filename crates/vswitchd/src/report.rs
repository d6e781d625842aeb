//! What the daemon writes to the database: results, status and statistics, where they changed.

use crate::database::LOCK;
use crate::switch::{Running, Switch};
use ovsdb::replica::{Replica, Row};
use ovsdb::{Atom, Datum, Uuid};
use packet::DropReason;
use port::Counters;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Version of this program, for `Open_vSwitch.ovs_version`.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Collects changes of rows as operations of one transaction.
struct Changes<'a> {
    db: &'a Replica,
    operations: Vec<Value>,
}

impl Changes<'_> {
    /// Sets those of `columns` that differ from what the database has.
    fn set(&mut self, table: &str, uuid: Uuid, columns: &[(&str, Datum)]) {
        let Some(row) = self.db.row(table, uuid) else { return };
        let differs = |(name, value): &&(&str, Datum)| row.get(name) != Some(value);
        // A database with an older schema may lack a column; what is not monitored is not written.
        let known = |(name, _): &&(&str, Datum)| row.get(name).is_some();
        let changed: Map<String, Value> = columns
            .iter()
            .filter(known)
            .filter(differs)
            .map(|(name, value)| ((*name).to_owned(), value.to_json()))
            .collect();
        if !changed.is_empty() {
            self.operations.push(json!({
                "op": "update",
                "table": table,
                "where": [["_uuid", "==", ["uuid", uuid.to_string()]]],
                "row": changed,
            }));
        }
    }
}

fn strings<'s>(values: impl IntoIterator<Item = &'s str>) -> Datum {
    Datum::set(values.into_iter().map(|s| Atom::String(s.to_owned())))
}

fn optional(value: Option<Atom>) -> Datum {
    Datum::set(value)
}

fn string(value: &str) -> Atom {
    Atom::String(value.to_owned())
}

/// Operations that tell what became of the configuration, with `cur_cfg` if all of it was followed,
/// and of the interfaces' state. `statistics` says whether counters are written too.
pub(crate) fn operations(switch: &Switch, db: &Replica, statistics: bool) -> Vec<Value> {
    let mut changes = Changes { db, operations: Vec::new() };
    for bridge in &switch.desired.bridges {
        changes.set(
            "Bridge",
            bridge.uuid,
            &[
                ("datapath_id", optional(Some(string(&bridge.datapath_id)))),
                ("datapath_version", Datum::scalar(string("<built-in>"))),
            ],
        );
    }
    let running_rows: BTreeSet<Uuid> = switch.running.values().map(|r| r.uuid).collect();
    for (uuid, outcome) in &switch.outcomes {
        changes.set(
            "Interface",
            *uuid,
            &[
                ("ofport", optional(Some(Atom::Integer(outcome.ofport)))),
                ("error", optional(outcome.error.as_deref().map(string))),
            ],
        );
        if !running_rows.contains(uuid) {
            changes.set(
                "Interface",
                *uuid,
                &[
                    ("link_state", Datum::empty_set()),
                    ("admin_state", Datum::empty_set()),
                    ("mac_in_use", Datum::empty_set()),
                    ("ifindex", Datum::empty_set()),
                    ("mtu", Datum::empty_set()),
                    ("link_resets", Datum::empty_set()),
                    ("status", Datum::empty_map()),
                    ("statistics", Datum::empty_map()),
                ],
            );
        }
    }
    for r in switch.running.values() {
        running(&mut changes, r, statistics);
    }
    for bridge in switch.desired.bridges.iter().filter(|_| statistics) {
        for (uuid, (packets, bytes)) in switch.mirror_counts(bridge) {
            let counts = [("tx_packets", packets), ("tx_bytes", bytes)];
            let map = counts.map(|(k, n)| (string(k), Atom::Integer(n as i64)));
            changes.set("Mirror", uuid, &[("statistics", Datum::map(map))]);
        }
    }
    if let Some(root) = switch.desired.root {
        changes.set(
            "Open_vSwitch",
            root,
            &[
                ("cur_cfg", Datum::scalar(Atom::Integer(switch.desired.next_cfg))),
                ("datapath_types", strings(["netdev"])),
                ("iface_types", strings(crate::interface::TYPES.iter().copied())),
            ],
        );
    }
    if !changes.operations.is_empty() {
        // Should another daemon have taken over meanwhile, nothing of this is written.
        changes.operations.insert(0, json!({"op": "assert", "lock": LOCK}));
    }
    changes.operations
}

/// State and statistics of an interface that runs.
fn running(changes: &mut Changes<'_>, r: &Running, statistics: bool) {
    let up = |on: bool| optional(Some(string(if on { "up" } else { "down" })));
    let state = r.opened.state();
    let columns = [
        ("mac_in_use", optional(Some(string(&state.mac.to_string())))),
        ("ifindex", optional(Some(Atom::Integer(state.ifindex.unwrap_or(0).into())))),
        ("mtu", optional(Some(Atom::Integer(state.mtu.into())))),
        ("admin_state", up(state.admin_up)),
        ("link_state", up(state.link_up)),
        ("link_resets", optional(Some(Atom::Integer(state.resets as i64)))),
        ("status", Datum::string_map(r.opened.status())),
    ];
    changes.set("Interface", r.uuid, &columns);
    let row = changes.db.row("Interface", r.uuid);
    let none_yet = row.is_some_and(|row| row.get("statistics") == Some(&Datum::empty_map()));
    if statistics || none_yet {
        let counters = statistics_of(&r.counters());
        let map = counters.into_iter().map(|(k, v)| (Atom::String(k), Atom::Integer(v)));
        changes.set("Interface", r.uuid, &[("statistics", Datum::map(map))]);
    }
}

/// Names and values for `Interface.statistics`.
fn statistics_of(c: &Counters) -> BTreeMap<String, i64> {
    let mut map: BTreeMap<String, i64> = [
        ("rx_packets", c.rx_packets),
        ("rx_bytes", c.rx_bytes),
        ("rx_dropped", c.rx_dropped),
        ("rx_errors", 0),
        ("tx_packets", c.tx_packets),
        ("tx_bytes", c.tx_bytes),
        ("tx_dropped", c.tx_dropped),
        ("tx_errors", 0),
        ("guest_notifications", c.notifications),
        ("rx_super_frames", c.rx_super_frames),
        ("tx_super_frames", c.tx_super_frames),
        ("tx_sw_segments", c.tx_segments),
        ("tx_sw_checksums", c.tx_checksums),
    ]
    .map(|(name, n)| (name.to_owned(), n as i64))
    .into();
    for (reason, n) in DropReason::ALL.iter().zip(c.drops) {
        // Those that concern no port are counted elsewhere.
        if reason.name().contains("rx_") || reason.name().contains("tx_") {
            map.insert(reason.name().to_owned(), n as i64);
        }
    }
    map
}

/// Operations that make the root row, if a new database has none, and say which program serves it.
pub(crate) fn root_operations(db: &Replica) -> Vec<Value> {
    match db.only_row("Open_vSwitch") {
        None => vec![json!({
            "op": "insert",
            "table": "Open_vSwitch",
            "row": { "ovs_version": VERSION },
        })],
        Some((uuid, row)) => {
            let mut changes = Changes { db, operations: Vec::new() };
            if Row::optional_string(row, "ovs_version").is_none() {
                let version = ("ovs_version", optional(Some(string(VERSION))));
                changes.set("Open_vSwitch", uuid, &[version]);
            }
            changes.operations
        }
    }
}
