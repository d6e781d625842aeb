//! Rows of Mirror: read, given to the pipeline, and their statistics.

use crate::desired::Bridge;
use crate::switch::Switch;
use openflow::{Match, parse_match};
use ovsdb::Uuid;
use ovsdb::replica::{Replica, Row};
use pipeline::{MAX_MIRRORS, MirrorConfig, MirrorOutput, OfPort, Selected, VlanSet};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::warn;

/// Characters of a mirror's filter at most; the log has to hold a wrong one.
const FILTER_MAX: usize = 1024;

/// Where a mirror sends to, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The interface of the port.
    Port(String),
    Vlan(u16),
}

/// A mirror as configured; ports are named by their interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) uuid: Uuid,
    name: String,
    all: bool,
    src: BTreeSet<String>,
    dst: BTreeSet<String>,
    vlans: VlanSet,
    filter: Option<Arc<Match>>,
    output: Output,
    snaplen: Option<u16>,
}

/// The mirrors of a row of Bridge; those without an output are left out. `complain` is told of what
/// cannot be followed.
pub(crate) fn read(db: &Replica, bridge: &Row, complain: &mut dyn FnMut(String)) -> Vec<Mirror> {
    let rows = bridge.uuids("mirrors").into_iter();
    let mut mirrors: Vec<Mirror> =
        rows.filter_map(|uuid| mirror(db, uuid, db.row("Mirror", uuid)?, complain)).collect();
    mirrors.sort_by(|a, b| (&a.name, a.uuid).cmp(&(&b.name, b.uuid)));
    if mirrors.len() > MAX_MIRRORS {
        complain(format!("it has {} mirrors, of which {MAX_MIRRORS} work", mirrors.len()));
        mirrors.truncate(MAX_MIRRORS);
    }
    mirrors
}

fn mirror(db: &Replica, uuid: Uuid, row: &Row, complain: &mut dyn FnMut(String)) -> Option<Mirror> {
    let name = row.string("name").to_owned();
    let interfaces = |column: &str| -> BTreeSet<String> {
        let ports = row.uuids(column).into_iter().filter_map(|p| db.row("Port", p));
        let members = ports.flat_map(|p| p.uuids("interfaces"));
        members.filter_map(|i| Some(db.row("Interface", i)?.string("name").to_owned())).collect()
    };
    let vlan = row.integer("output_vlan").and_then(|v| u16::try_from(v).ok());
    let output = match (interfaces("output_port").pop_first(), vlan) {
        (Some(port), vlan) => {
            if vlan.is_some() {
                complain(format!("mirror {name} has an output_port; its output_vlan is ignored"));
            }
            Output::Port(port)
        }
        (None, Some(vlan)) => Output::Vlan(vlan),
        (None, None) => {
            complain(format!("mirror {name} has neither output_port nor output_vlan; ignored"));
            return None;
        }
    };
    let filter = match filter(row.string("filter")) {
        Ok(filter) => filter,
        Err(why) => {
            complain(format!("mirror {name} is off: its filter is wrong: {why}"));
            return None;
        }
    };
    Some(Mirror {
        uuid,
        name,
        all: row.boolean("select_all"),
        src: interfaces("select_src_port"),
        dst: interfaces("select_dst_port"),
        vlans: VlanSet::of(row.integers("select_vlan")),
        filter,
        output,
        snaplen: row.integer("snaplen").and_then(|n| u16::try_from(n).ok()),
    })
}

/// Reads the column `filter`: a flow's match, of which ports are no part (as in OVS).
fn filter(text: &str) -> Result<Option<Arc<Match>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > FILTER_MAX {
        return Err(format!("it has {} characters, {FILTER_MAX} are the most", text.len()));
    }
    let m = parse_match(text, &()).map_err(|e| format!("{text}: {}", e.locate(text)))?;
    if m.mask.0.in_port.get() != 0 {
        return Err("it may not match in_port; select_src_port says where packets come from".into());
    }
    Ok(Some(Arc::new(m)))
}

impl Switch {
    /// Gives the bridge its mirrors; ports that are not there are not selected.
    pub(crate) fn follow_mirrors(&mut self, bridge: &Bridge) {
        self.tell_of_closed_outputs(bridge);
        let number = |name: &String| match self.running.get(name) {
            Some(r) if r.bridge == bridge.name => Some(r.number),
            _ => (*name == bridge.name).then_some(OfPort::LOCAL),
        };
        let ports = |all: bool, names: &BTreeSet<String>| match all {
            true => Selected::All,
            false => Selected::Ports(names.iter().filter_map(number).collect()),
        };
        let config = |m: &Mirror| {
            let output = match &m.output {
                Output::Vlan(vlan) => MirrorOutput::Vlan(*vlan),
                Output::Port(name) => MirrorOutput::Port(number(name)?),
            };
            Some(MirrorConfig {
                id: u128::from_be_bytes(*m.uuid.as_bytes()),
                src: ports(m.all, &m.src),
                dst: ports(m.all, &m.dst),
                vlans: m.vlans,
                filter: m.filter.clone(),
                output,
                snaplen: m.snaplen,
            })
        };
        let configs: Vec<MirrorConfig> = bridge.mirrors.iter().filter_map(config).collect();
        if let Err(e) = self.pipeline.set_mirrors(&bridge.name, &configs) {
            warn!("bridge {}: {e}", bridge.name);
        }
    }

    /// Logs mirrors whose output port is not open, once until it is.
    fn tell_of_closed_outputs(&mut self, bridge: &Bridge) {
        let is_here = |port: &String| {
            let running = self.running.get(port).is_some_and(|r| r.bridge == bridge.name);
            running || *port == bridge.name
        };
        let closed = bridge.mirrors.iter().filter_map(|m| match &m.output {
            Output::Port(port) if !is_here(port) => Some(format!(
                "bridge {}: mirror {} does not work: its output_port {port} is not open (see the error of \
                 Interface {port})",
                bridge.name, m.name
            )),
            _ => None,
        });
        let closed: BTreeSet<String> = closed.collect();
        let told = self.closed_mirrors.entry(bridge.name.clone()).or_default();
        closed.difference(told).for_each(|text| warn!("{text}"));
        *told = closed;
    }

    /// Packets and bytes of a bridge's mirrors, by their rows.
    pub(crate) fn mirror_counts(&self, bridge: &Bridge) -> Vec<(Uuid, (u64, u64))> {
        let counts = self.pipeline.mirror_counts(&bridge.name).unwrap_or_default();
        let row =
            |id| bridge.mirrors.iter().find(|m| u128::from_be_bytes(*m.uuid.as_bytes()) == id);
        counts.into_iter().filter_map(|(id, c)| Some((row(id)?.uuid, c))).collect()
    }
}
