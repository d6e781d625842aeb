//! The pipeline's part of the operator's commands: text in, text out, grammar and layout as those of
//! `ovs-ofctl` and `ovs-appctl`.

use crate::bridge::Bridge;
use crate::error::Error;
use crate::fdb::{self, Address};
use crate::flow_mod::{self, FlowMod, Stamp};
use crate::flow_text::{self, DumpOptions, FlowText, Purpose};
use crate::pipeline::{Pipeline, no_port};
use crate::port::OfPort;
use flow::Mac;
use std::sync::Arc;

/// Highest VLAN number that `fdb/add` takes.
const MAX_VLAN: u16 = 4095;

/// Turns one line of `add-flows` into a change. A word before the flow says which; none adds.
type Parse = fn(FlowText) -> FlowMod;
const LINE_VERBS: &[(&str, Purpose, Parse)] = &[
    ("add", Purpose::Add, FlowMod::Add),
    ("modify", Purpose::Modify, FlowMod::Modify),
    ("delete", Purpose::Select, FlowMod::Delete),
];

fn parse(bridge: &Bridge, text: &str, purpose: Purpose) -> Result<FlowText, String> {
    let port = |name: &str| bridge.port_by_name(name).map(|p| p.number);
    flow_text::parse(text, purpose, &port)
}

fn parse_line(bridge: &Bridge, line: &str) -> Result<FlowMod, String> {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match LINE_VERBS.iter().find(|(verb, ..)| *verb == first) {
        Some((_, purpose, change)) => parse(bridge, rest, *purpose).map(change),
        None if first == "modify_strict" || first == "delete_strict" => {
            Err(format!("{first} is not supported yet"))
        }
        None => parse(bridge, line, Purpose::Add).map(FlowMod::Add),
    }
}

/// Flows.
impl Pipeline {
    /// Parses and applies changes to the tables of a bridge, all or none.
    fn change_flows(
        &self,
        bridge: &str,
        now_ms: u64,
        changes: impl FnOnce(&Bridge) -> Result<Vec<FlowMod>, Error>,
    ) -> Result<String, Error> {
        self.change_bridge(bridge, |bridge, next_serial| {
            let mut stamp = Stamp { next_serial, now_ms };
            for change in changes(bridge)? {
                flow_mod::apply(&mut bridge.tables, change, &mut stamp);
            }
            Ok(String::new())
        })
    }

    /// `add-flow BRIDGE FLOW`: adds a flow, or replaces the one with the same table, match and
    /// priority. Answers nothing.
    ///
    /// # Errors
    /// [`Error::NoBridge`]; [`Error::Flow`] saying what is wrong with the text.
    pub fn add_flow(&self, bridge: &str, text: &str, now_ms: u64) -> Result<String, Error> {
        self.change_flows(bridge, now_ms, |b| {
            let flow = parse(b, text, Purpose::Add).map_err(Error::Flow)?;
            Ok(vec![FlowMod::Add(flow)])
        })
    }

    /// `add-flows BRIDGE FILE`: one flow a line, with `#` comments and empty lines; a line may begin
    /// with `add`, `modify` or `delete`. Applies all lines at once, or none. Answers nothing.
    ///
    /// # Errors
    /// [`Error::NoBridge`]; [`Error::FlowLine`] for the first line that is wrong.
    pub fn add_flows(&self, bridge: &str, text: &str, now_ms: u64) -> Result<String, Error> {
        self.change_flows(bridge, now_ms, |b| {
            let mut changes = Vec::new();
            for (i, line) in text.lines().enumerate() {
                let line = line.split('#').next().unwrap_or("").trim();
                if !line.is_empty() {
                    let change = parse_line(b, line);
                    let line = i + 1;
                    changes.push(change.map_err(|reason| Error::FlowLine { line, reason })?);
                }
            }
            Ok(changes)
        })
    }

    /// `mod-flows BRIDGE FLOW`: gives the flows that the match includes new actions (and the cookie,
    /// where it is not a filter `cookie=VALUE/MASK`); adds the flow if there are none. Answers nothing.
    ///
    /// # Errors
    /// As [`Pipeline::add_flow`].
    pub fn mod_flows(&self, bridge: &str, text: &str, now_ms: u64) -> Result<String, Error> {
        self.change_flows(bridge, now_ms, |b| {
            let flow = parse(b, text, Purpose::Modify).map_err(Error::Flow)?;
            Ok(vec![FlowMod::Modify(flow)])
        })
    }

    /// `del-flows BRIDGE [MATCH]`: deletes the flows that the match includes; all if it is empty.
    /// Answers nothing.
    ///
    /// # Errors
    /// As [`Pipeline::add_flow`].
    pub fn del_flows(&self, bridge: &str, text: &str) -> Result<String, Error> {
        self.change_flows(bridge, 0, |b| {
            let flow = parse(b, text, Purpose::Select).map_err(Error::Flow)?;
            Ok(vec![FlowMod::Delete(flow)])
        })
    }

    /// `dump-flows BRIDGE [MATCH]`: the flows that the match includes, one a line, by table, then
    /// falling priority, then order of creation. [`Pipeline::add_flows`] takes what it prints.
    ///
    /// # Errors
    /// As [`Pipeline::add_flow`].
    pub fn dump_flows(
        &self,
        bridge: &str,
        filter: &str,
        options: DumpOptions,
        now_ms: u64,
    ) -> Result<String, Error> {
        let bridge = self.bridge(bridge)?;
        let filter = parse(&bridge, filter, Purpose::Select).map_err(Error::Flow)?;
        let name = |number: OfPort| {
            let port = bridge.ports.get(&number).filter(|_| options.names);
            port.map(|p| p.name.clone())
        };
        Ok(flow_mod::dump(&bridge.tables, &filter, now_ms, options.stats, &name))
    }
}

/// MAC tables.
impl Pipeline {
    /// `fdb/show BRIDGE`.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_show(&self, bridge: &str, now_ms: u64) -> Result<String, Error> {
        let rows = self.bridge(bridge)?.fdb.lock().rows();
        Ok(fdb::show(rows, now_ms))
    }

    /// `fdb/stats-show BRIDGE`.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_stats_show(&self, bridge: &str) -> Result<String, Error> {
        Ok(self.bridge(bridge)?.fdb.lock().stats(bridge))
    }

    /// `fdb/stats-clear [BRIDGE]`: of all bridges if none is named.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_stats_clear(&self, bridge: Option<&str>) -> Result<String, Error> {
        for bridge in self.named_or_all(bridge)? {
            bridge.fdb.lock().clear_stats();
        }
        Ok("statistics successfully cleared\n".to_owned())
    }

    /// `fdb/flush [BRIDGE]`: forgets what was learned, of all bridges if none is named; static
    /// entries stay.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_flush(&self, bridge: Option<&str>) -> Result<String, Error> {
        for bridge in self.named_or_all(bridge)? {
            bridge.fdb.change(|f| f.flush());
        }
        Ok("table successfully flushed\n".to_owned())
    }

    /// `fdb/add BRIDGE PORT VLAN MAC`: a static entry; the port by name or number. Answers a line if
    /// it takes the place of another.
    ///
    /// # Errors
    /// For an unknown bridge or port, a bad VLAN or address, or a table full of static entries.
    pub fn fdb_add(
        &self,
        bridge: &str,
        port: &str,
        vlan: &str,
        mac: &str,
    ) -> Result<String, Error> {
        let bridge = self.bridge(bridge)?;
        let Some(id) = bridge.find_port(port).map(|p| p.id) else {
            return Err(no_port(&bridge, port));
        };
        let address = address(vlan, mac)?;
        let mut answer = Ok(None);
        bridge.fdb.change(|f| {
            answer = f.add_static(address, id);
            answer.is_ok()
        });
        match answer {
            Ok(None) => Ok(String::new()),
            Ok(Some(old)) => Ok(format!("Overriding already existing static entry on {old}\n")),
            Err(()) => Err(Error::FdbFull(bridge.name.clone())),
        }
    }

    /// `fdb/del BRIDGE VLAN MAC`: removes a static entry. Answers nothing.
    ///
    /// # Errors
    /// For an unknown bridge, a bad VLAN or address, or if there is no such static entry.
    pub fn fdb_del(&self, bridge: &str, vlan: &str, mac: &str) -> Result<String, Error> {
        let bridge = self.bridge(bridge)?;
        let address = address(vlan, mac)?;
        match bridge.fdb.change(|f| f.remove_static(address)) {
            true => Ok(String::new()),
            false => Err(Error::NoStaticMac(format!("{mac} in VLAN {vlan}"))),
        }
    }

    fn named_or_all(&self, bridge: Option<&str>) -> Result<Vec<Arc<Bridge>>, Error> {
        match bridge {
            Some(name) => Ok(vec![self.bridge(name)?]),
            None => Ok(self.all_bridges()),
        }
    }
}

fn address(vlan: &str, mac: &str) -> Result<Address, Error> {
    let number = vlan.parse().ok().filter(|v| *v <= MAX_VLAN);
    let vlan = number.ok_or_else(|| Error::BadVlan(vlan.to_owned()))?;
    let mac: Mac = mac.parse().map_err(|_| Error::BadMac(mac.to_owned()))?;
    Ok(Address { vlan, mac })
}
