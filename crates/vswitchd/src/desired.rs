//! The configuration as plain values, read from the database's rows.

use crate::flow_table;
use crate::ignored;
use crate::mirror::{self, Mirror};
use crate::police::{Ingress, Qos};
use flow::Mac;
use ovsdb::Uuid;
use ovsdb::replica::{Replica, Row, Selection};
use pipeline::{
    BridgeConfig, DEFAULT_VLAN_LIMIT, MAX_VLAN_LIMIT, PortColumns, PortConfig, Snooping, VlanSet,
};
use pmd::{Assign, AutoBalance, Rules, SleepMax};
use port_xdp::MAX_SHARED_FRAMES;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tables::TableConfig;

/// Frames that AF_XDP ports share, of `Open_vSwitch.other_config`.
const SHARED_FRAMES: &str = "xdp-shared-frames";

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
            "ovs_version",
            "ssl",
            "manager_options",
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
            "fail_mode",
            "flow_tables",
            "flood_vlans",
            "mcast_snooping_enable",
            "mirrors",
            "auto_attach",
            "controller",
            "ipfix",
            "netflow",
            "rstp_enable",
            "sflow",
            "stp_enable",
        ]),
    ),
    (
        "Mirror",
        Some(&[
            "name",
            "select_all",
            "select_src_port",
            "select_dst_port",
            "select_vlan",
            "output_port",
            "output_vlan",
            "snaplen",
            "filter",
            "statistics",
        ]),
    ),
    ("Flow_Table", Some(&["name", "flow_limit", "overflow_policy", "groups", "prefixes"])),
    (
        "Port",
        Some(&[
            "name",
            "interfaces",
            "vlan_mode",
            "tag",
            "trunks",
            "cvlans",
            "protected",
            "other_config",
            "qos",
            "lacp",
        ]),
    ),
    ("QoS", Some(&["type", "other_config", "queues"])),
    ("Queue", Some(&["other_config"])),
    (
        "Interface",
        Some(&[
            "name",
            "type",
            "options",
            "other_config",
            "mtu_request",
            "ofport_request",
            "mac",
            "ingress_policing_rate",
            "ingress_policing_burst",
            "ingress_policing_kpkts_rate",
            "ingress_policing_kpkts_burst",
            "bfd",
            "cfm_mpid",
            "lldp",
            "ofport",
            "error",
            "mac_in_use",
            "ifindex",
            "mtu",
            "admin_state",
            "link_state",
            "link_resets",
            "status",
            "statistics",
        ]),
    ),
];

/// An interface as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) mtu_request: Option<i64>,
    pub(crate) ofport_request: Option<i64>,
    /// The number that it had last.
    pub(crate) ofport: Option<i64>,
    /// What its guest may send.
    pub(crate) ingress: Ingress,
    /// The QoS of its port.
    pub(crate) qos: Option<Qos>,
    /// It is one of several of its port.
    pub(crate) bonded: bool,
    /// It is its bridge's own.
    pub(crate) local: bool,
    /// `other_config:pmd-rxq-affinity`: cores of queues.
    pub(crate) affinity: BTreeMap<usize, usize>,
    /// `other_config:tx-steering` is `hash`: flows have transmit queues, not threads.
    pub(crate) steer_by_hash: bool,
    /// The address that its device is to have. An internal one that asks for none gets one that stays
    /// when the daemon starts again.
    pub(crate) mac: Option<Mac>,
    /// Settings of its port.
    pub(crate) port: PortConfig,
}

/// Where a bridge's own address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BridgeMac {
    /// `other_config:hwaddr`.
    Given(Mac),
    /// The lowest of its netdevs', or else this.
    OfPorts(Mac),
}

/// A bridge as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) datapath_id: String,
    /// The address that its own interface has if nothing else says one: of `other_config:hwaddr`, or made
    /// from the row's ID.
    pub(crate) mac: BridgeMac,
    pub(crate) config: BridgeConfig,
    /// `fail_mode=secure`: it begins without the flow that makes it an ordinary switch.
    pub(crate) secure: bool,
    /// Tables that have a configuration.
    pub(crate) flow_tables: BTreeMap<u8, TableConfig>,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) mirrors: Vec<Mirror>,
}

/// All that the daemon follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) root: Option<Uuid>,
    pub(crate) next_cfg: i64,
    pub(crate) other_config: BTreeMap<String, String>,
    pub(crate) bridges: Vec<Bridge>,
    /// What is wrong with it and was answered by a default: each to be logged once.
    pub(crate) complaints: Vec<String>,
}

impl Desired {
    /// Reads the configuration.
    pub(crate) fn read(db: &Replica) -> Desired {
        let Some((uuid, root)) = db.only_row("Open_vSwitch") else { return Desired::default() };
        let (seen, complaints) = (BTreeSet::new(), Vec::new());
        let mut reading = Reading { db, seen, complaints, vlan_limit: DEFAULT_VLAN_LIMIT };
        reading.ignored("Open_vSwitch", "", root);
        reading.vlan_limit = match reading.number("other_config", root, "vlan-limit") {
            None => DEFAULT_VLAN_LIMIT,
            Some(n @ 1..=2) => n as u8,
            // No limit but that of the switch.
            Some(_) => MAX_VLAN_LIMIT,
        };
        let rows =
            root.uuids("bridges").into_iter().filter_map(|b| Some((b, db.row("Bridge", b)?)));
        let mut rows: Vec<(Uuid, &Row)> = rows.collect();
        rows.sort_by_key(|(_, row)| row.string("name"));
        let bridges = rows.into_iter().map(|(uuid, row)| reading.bridge(uuid, row)).collect();
        for key in [
            "flow-limit",
            "max-idle",
            "stats-update-interval",
            "pmd-idle-wait",
            "pmd-auto-lb-load-threshold",
            "pmd-auto-lb-improvement-threshold",
            "pmd-auto-lb-rebal-interval",
            SHARED_FRAMES,
        ] {
            let _: Option<u64> = reading.number("other_config", root, key);
        }
        let mut desired = Desired {
            root: Some(uuid),
            next_cfg: root.integer("next_cfg").unwrap_or(0),
            other_config: root.string_map("other_config"),
            bridges,
            complaints: reading.complaints,
        };
        if let Some(text) = desired.other_config.get("pmd-rxq-assign")
            && Assign::parse(text).is_none()
        {
            let text = format!("other_config:pmd-rxq-assign=\"{text}\" is none of cycles, group, ");
            desired.complaints.push(text + "roundrobin; cycles is used");
        }
        if let Some(frames) = desired.number(SHARED_FRAMES)
            && frames > MAX_SHARED_FRAMES as u64
        {
            desired.complaints.push(format!(
                "other_config:{SHARED_FRAMES}={frames} is more than {MAX_SHARED_FRAMES}; none are shared"
            ));
        }
        let complain = |part| {
            let text =
                format!("other_config:pmd-sleep-max: \"{part}\" is neither a number from 0 on");
            text + " nor one for a core, as in 8:50; it is left out"
        };
        let wrong: Vec<String> =
            SleepMax::parse(desired.sleep_max()).1.into_iter().map(complain).collect();
        desired.complaints.extend(wrong);
        desired
    }

    /// `other_config:pmd-sleep-max`, or what it was called before OVS 3.2.
    pub(crate) fn sleep_max(&self) -> &str {
        let keys = ["pmd-sleep-max", "pmd-maxsleep"];
        keys.iter().find_map(|&k| self.other_config.get(k)).map_or("", String::as_str)
    }

    /// Frames that interfaces through AF_XDP share; 0 if they do not.
    pub(crate) fn shared_frames(&self) -> usize {
        let frames = self.number(SHARED_FRAMES).and_then(|n| usize::try_from(n).ok());
        frames.filter(|n| *n <= MAX_SHARED_FRAMES).unwrap_or(0)
    }

    /// By which rules queues are placed.
    pub(crate) fn rules(&self) -> Rules {
        let set = |key: &str| self.other_config.get(key).map(String::as_str);
        let assign = set("pmd-rxq-assign").and_then(Assign::parse).unwrap_or_default();
        Rules { assign, isolate: set("pmd-rxq-isolate") != Some("false") }
    }

    /// Whether and when queues are placed anew by themselves.
    pub(crate) fn auto_balance(&self) -> AutoBalance {
        let default = AutoBalance::default();
        let percent = |key, default| self.number(key).filter(|n| *n <= 100).unwrap_or(default);
        let minutes =
            self.number("pmd-auto-lb-rebal-interval").filter(|m| (1..=20_000).contains(m));
        AutoBalance {
            on: self.other_config.get("pmd-auto-lb").is_some_and(|v| v == "true"),
            load: percent("pmd-auto-lb-load-threshold", default.load),
            improvement: percent("pmd-auto-lb-improvement-threshold", default.improvement),
            interval: minutes.map_or(default.interval, |m| Duration::from_secs(60 * m)),
        }
    }

    /// An integer of `other_config`, if it is there and one.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.other_config.get(key)?.parse().ok()
    }
}

/// One reading of the rows.
struct Reading<'a> {
    db: &'a Replica,
    /// Interfaces met so far: nothing in the schema keeps two ports from having the same.
    seen: BTreeSet<Uuid>,
    complaints: Vec<String>,
    vlan_limit: u8,
}

impl Reading<'_> {
    fn bridge(&mut self, uuid: Uuid, row: &Row) -> Bridge {
        let name = row.string("name").to_owned();
        self.ignored("Bridge", &format!("bridge {name}: "), row);
        let mut interfaces = self.interfaces(&name, row);
        interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        self.same_requests(&name, &interfaces);
        let mut number = |key| {
            let value: Option<u64> = self.number(&format!("bridge {name}: other_config"), row, key);
            value.map(|v| u32::try_from(v).unwrap_or(u32::MAX))
        };
        let default = BridgeConfig::default();
        let flood_vlans = VlanSet::of(row.integers("flood_vlans"));
        let is_on = |key| row.map_value("other_config", key) == Some("true");
        let snooped = Snooping::default();
        let snooping = row.boolean("mcast_snooping_enable").then(|| Snooping {
            aging_s: number("mcast-snooping-aging-time").unwrap_or(snooped.aging_s),
            table_size: number("mcast-snooping-table-size").unwrap_or(snooped.table_size),
            flood_unregistered: !is_on("mcast-snooping-disable-flood-unregistered"),
        });
        let config = BridgeConfig {
            mac_aging_s: number("mac-aging-time").unwrap_or(default.mac_aging_s),
            mac_table_size: number("mac-table-size").unwrap_or(default.mac_table_size),
            forward_bpdu: is_on("forward-bpdu"),
            flood_vlans,
            vlan_limit: self.vlan_limit,
            snooping,
        };
        let datapath_type = row.string("datapath_type");
        if !["", "system", "netdev"].contains(&datapath_type) {
            let text = format!("bridge {name}: unknown datapath_type \"{datapath_type}\"");
            self.complaints.push(text + "; there is only netdev, which is used");
        }
        let complaints = &mut self.complaints;
        let mut complain = |text| complaints.push(format!("bridge {name}: {text}"));
        let flow_tables = flow_table::read(self.db, row, &mut complain);
        let secure = row.optional_string("fail_mode") == Some("secure");
        let mirrors = mirror::read(self.db, row, &mut complain);
        let (datapath_id, mac) = (datapath_id(uuid, row), bridge_mac(uuid, row));
        Bridge { uuid, datapath_id, mac, name, config, secure, flow_tables, interfaces, mirrors }
    }

    fn interfaces(&mut self, bridge: &str, row: &Row) -> Vec<Interface> {
        let mut interfaces = Vec::new();
        for port in row.uuids("ports").into_iter().filter_map(|p| self.db.row("Port", p)) {
            let members = port.uuids("interfaces");
            let bonded = members.len() > 1;
            let config = self.port(port);
            let qos = Qos::of(self.db, port);
            for uuid in members {
                let Some(row) = self.db.row("Interface", uuid) else { continue };
                if self.seen.insert(uuid) {
                    self.ignored("Interface", &format!("interface {}: ", row.string("name")), row);
                    let steering = row.map_value("other_config", "tx-steering");
                    if let Some(other) = steering.filter(|s| !["hash", "thread"].contains(s)) {
                        let name = row.string("name");
                        self.complaints.push(format!(
                            "interface {name}: other_config:tx-steering=\"{other}\" is neither thread nor \
                             hash; thread is used"
                        ));
                    }
                    let mut interface = interface(uuid, row, bonded, bridge, config);
                    interface.qos = qos.clone();
                    interfaces.push(interface);
                } else {
                    let name = row.string("name");
                    let text = format!("bridge {bridge}: interface {name} is in another port too");
                    self.complaints.push(text + "; it stays there");
                }
            }
        }
        interfaces
    }

    /// Complains of what a row asks for in vain.
    fn ignored(&mut self, table: &str, what: &str, row: &Row) {
        self.complaints.extend(ignored::complaints(table, what, row));
    }

    /// Settings of a row of Port.
    fn port(&mut self, row: &Row) -> PortConfig {
        let is_on = |key| row.map_value("other_config", key) == Some("true");
        let columns = PortColumns {
            vlan_mode: row.optional_string("vlan_mode"),
            tag: row.integer("tag"),
            trunks: row.integers("trunks"),
            cvlans: row.integers("cvlans"),
            qinq_ethtype: row.map_value("other_config", "qinq-ethtype"),
            priority_tags: row.map_value("other_config", "priority-tags"),
            protected: row.boolean("protected"),
            mcast_flood: is_on("mcast-snooping-flood"),
            mcast_flood_reports: is_on("mcast-snooping-flood-reports"),
        };
        let name = row.string("name");
        self.ignored("Port", &format!("port {name}: "), row);
        PortConfig::new(&columns, |c| self.complaints.push(format!("port {name}: {c}")))
    }

    /// Complains of interfaces of one bridge that ask for the same number.
    fn same_requests(&mut self, bridge: &str, interfaces: &[Interface]) {
        let mut by_number = BTreeMap::new();
        for i in interfaces {
            let Some(n) = i.ofport_request else { continue };
            if let Some(first) = by_number.insert(n, &i.name) {
                let who = format!("bridge {bridge}: {first} and {} both have", i.name);
                self.complaints.push(format!("{who} ofport_request={n}; one gets another number"));
            }
        }
    }

    /// A number in `other_config`; complains if it is none.
    fn number(&mut self, what: &str, row: &Row, key: &str) -> Option<u64> {
        let text = row.map_value("other_config", key)?;
        let number = text.parse().ok();
        if number.is_none() {
            let text = format!("{what}:{key}=\"{text}\" is not a number from 0 on");
            self.complaints.push(text + "; the default is used");
        }
        number
    }
}

/// `other_config:datapath-id`, or one made from `other_config:hwaddr`, or from the row's own ID, so
/// that it stays when the daemon starts again.
fn datapath_id(uuid: Uuid, row: &Row) -> String {
    let given = row.map_value("other_config", "datapath-id").unwrap_or_default();
    let given = given.trim_start_matches("0x");
    if given.len() == 16 && given.bytes().all(|b| b.is_ascii_hexdigit()) {
        return given.to_lowercase();
    }
    let (BridgeMac::Given(mac) | BridgeMac::OfPorts(mac)) = bridge_mac(uuid, row);
    let [a, b, c, d, e, f] = mac.0;
    format!("0000{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}

fn bridge_mac(uuid: Uuid, row: &Row) -> BridgeMac {
    let given = row.map_value("other_config", "hwaddr").and_then(|h| h.parse().ok());
    given.map_or_else(|| BridgeMac::OfPorts(mac_of(uuid)), BridgeMac::Given)
}

/// An address made from a row's ID.
fn mac_of(uuid: Uuid) -> Mac {
    let u = uuid.as_bytes();
    // Locally administered, unicast (IEEE 802, 8.2).
    Mac([u[10] & 0xfc | 2, u[11], u[12], u[13], u[14], u[15]])
}

/// Reads `QUEUE:CORE,…`. What is neither is left out.
fn affinity(text: &str) -> BTreeMap<usize, usize> {
    let pair = |part: &str| {
        let (queue, core) = part.trim().split_once(':')?;
        Some((queue.parse().ok()?, core.parse().ok()?))
    };
    text.split(',').filter_map(pair).collect()
}

fn interface(uuid: Uuid, row: &Row, bonded: bool, bridge: &str, port: PortConfig) -> Interface {
    let (name, kind) = (row.string("name"), row.string("type"));
    let local = name == bridge && ["internal", ""].contains(&kind);
    let asked = row.optional_string("mac").and_then(|m| m.parse().ok());
    let stays = (kind == "internal" && !local).then(|| mac_of(uuid));
    Interface {
        uuid,
        name: name.to_owned(),
        kind: kind.to_owned(),
        local,
        affinity: affinity(row.map_value("other_config", "pmd-rxq-affinity").unwrap_or_default()),
        steer_by_hash: row.map_value("other_config", "tx-steering") == Some("hash"),
        mac: asked.or(stays),
        options: row.string_map("options"),
        mtu_request: row.integer("mtu_request"),
        ofport_request: row.integer("ofport_request"),
        ofport: row.integer("ofport"),
        ingress: Ingress::read(row),
        qos: None,
        bonded,
        port,
    }
}
