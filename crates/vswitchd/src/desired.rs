//! The configuration as plain values, read from the database's rows.

use ovsdb::Uuid;
use ovsdb::replica::{Replica, Row, Selection};
use pipeline::BridgeConfig;
use std::collections::BTreeMap;

/// What the daemon follows, and what it writes: it compares before it writes.
pub(crate) const SELECTION: Selection<'static> = &[
    (
        "Open_vSwitch",
        Some(&[
            "bridges",
            "next_cfg",
            "cur_cfg",
            "other_config",
            "iface_types",
            "datapath_types",
            "dpdk_initialized",
            "ovs_version",
        ]),
    ),
    (
        "Bridge",
        Some(&[
            "name",
            "datapath_type",
            "ports",
            "other_config",
            "datapath_id",
            "datapath_version",
        ]),
    ),
    ("Port", Some(&["name", "interfaces"])),
    (
        "Interface",
        Some(&[
            "name",
            "type",
            "options",
            "other_config",
            "mtu_request",
            "ofport_request",
            "ofport",
            "error",
            "mac_in_use",
            "mtu",
            "admin_state",
            "link_state",
            "status",
            "statistics",
        ]),
    ),
];

/// An interface as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) mtu_request: Option<i64>,
    pub(crate) ofport_request: Option<i64>,
    /// The number that it had last.
    pub(crate) ofport: Option<i64>,
    /// It is one of several of its port.
    pub(crate) bonded: bool,
}

/// A bridge as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) datapath_id: String,
    pub(crate) config: BridgeConfig,
    pub(crate) interfaces: Vec<Interface>,
}

/// All that the daemon follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) root: Option<Uuid>,
    pub(crate) next_cfg: i64,
    pub(crate) other_config: BTreeMap<String, String>,
    pub(crate) bridges: Vec<Bridge>,
}

impl Desired {
    /// Reads the configuration.
    pub(crate) fn read(db: &Replica) -> Desired {
        let Some((uuid, root)) = db.only_row("Open_vSwitch") else { return Desired::default() };
        let mut bridges: Vec<Bridge> = root
            .uuids("bridges")
            .into_iter()
            .filter_map(|uuid| Some(bridge(db, uuid, db.row("Bridge", uuid)?)))
            .collect();
        bridges.sort_by(|a, b| a.name.cmp(&b.name));
        Desired {
            root: Some(uuid),
            next_cfg: root.integer("next_cfg").unwrap_or(0),
            other_config: root.string_map("other_config"),
            bridges,
        }
    }

    /// An integer of `other_config`, if it is there and one.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.other_config.get(key)?.parse().ok()
    }
}

fn bridge(db: &Replica, uuid: Uuid, row: &Row) -> Bridge {
    let mut interfaces = Vec::new();
    for port in row.uuids("ports").into_iter().filter_map(|p| db.row("Port", p)) {
        let members = port.uuids("interfaces");
        let bonded = members.len() > 1;
        for uuid in members {
            if let Some(row) = db.row("Interface", uuid) {
                interfaces.push(interface(uuid, row, bonded));
            }
        }
    }
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    let number = |key| row.map_value("other_config", key).and_then(|v| v.parse().ok());
    let default = BridgeConfig::default();
    let config = BridgeConfig {
        mac_aging_s: number("mac-aging-time").unwrap_or(default.mac_aging_s),
        mac_table_size: number("mac-table-size").unwrap_or(default.mac_table_size),
        forward_bpdu: row.map_value("other_config", "forward-bpdu") == Some("true"),
    };
    let name = row.string("name").to_owned();
    Bridge { uuid, name, datapath_id: datapath_id(uuid, row), config, interfaces }
}

/// `other_config:datapath-id`, or one made from `other_config:hwaddr`, or from the row's own ID, so
/// that it stays when the daemon starts again.
fn datapath_id(uuid: Uuid, row: &Row) -> String {
    let given = row.map_value("other_config", "datapath-id").unwrap_or_default();
    let given = given.trim_start_matches("0x");
    if given.len() == 16 && given.bytes().all(|b| b.is_ascii_hexdigit()) {
        return given.to_lowercase();
    }
    let hwaddr = row.map_value("other_config", "hwaddr").and_then(|h| h.parse::<flow::Mac>().ok());
    let [a, b, c, d, e, f] = hwaddr.map_or_else(
        || {
            let u = uuid.as_bytes();
            // Locally administered, unicast (IEEE 802, 8.2).
            [u[10] & 0xfc | 2, u[11], u[12], u[13], u[14], u[15]]
        },
        |mac| mac.0,
    );
    format!("0000{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}

fn interface(uuid: Uuid, row: &Row, bonded: bool) -> Interface {
    Interface {
        uuid,
        name: row.string("name").to_owned(),
        kind: row.string("type").to_owned(),
        options: row.string_map("options"),
        mtu_request: row.integer("mtu_request"),
        ofport_request: row.integer("ofport_request"),
        ofport: row.integer("ofport"),
        bonded,
    }
}
