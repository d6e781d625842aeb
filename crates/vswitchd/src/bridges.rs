//! Bridges of the running switch: their own port, their tables, and the state of their ports' links.

use crate::desired::{Bridge, BridgeMac, Desired, Interface};
use crate::interface::MTU_DEFAULT;
use crate::switch::{Running, Switch};
use flow::{DpPort, Mac};
use openflow::{
    Action, BucketPlace, Command, FlowMod, Group, GroupCommand, GroupMod, GroupType, Selection,
};
use pipeline::OfPort;
use tracing::{info, warn};

impl Switch {
    /// Removes bridges that are not wanted any more.
    pub(crate) fn remove_bridges(&mut self, desired: &Desired) {
        for name in self.pipeline.bridges() {
            if desired.bridges.iter().any(|b| b.name == name) {
                continue;
            }
            let _ = self.pipeline.remove_bridge(&name);
            if let Some(dp) = self.locals.remove(&name) {
                self.rest(dp);
            }
            info!("bridge {name}: deleted");
        }
        self.packet_ins.retain(|name| desired.bridges.iter().any(|b| b.name == name));
        self.closed_mirrors.retain(|name, _| desired.bridges.iter().any(|b| b.name == *name));
    }

    /// Adds the bridge or changes its settings.
    pub(crate) fn follow_bridge(&mut self, bridge: &Bridge) {
        let now = self.clock.now_ms();
        let before = self.desired.bridges.iter().find(|b| b.name == bridge.name).cloned();
        let (name, config) = (&bridge.name, bridge.config);
        if self.pipeline.set_bridge(name, config).is_err() {
            match self.pipeline.add_bridge(name, config, now) {
                Ok(()) => info!("bridge {name}: added"),
                Err(e) => warn!("bridge {name}: {e}"),
            }
            if bridge.secure {
                self.begin_anew(bridge, now);
            }
        } else if before.as_ref().is_some_and(|b| b.secure != bridge.secure) {
            self.begin_anew(bridge, now);
        }
        self.follow_local_port(name);
        self.follow_tables(before.as_ref(), bridge);
    }

    /// Removes all flows and groups, as OVS does when `fail_mode` changes; an ordinary bridge then has
    /// the flow that makes it a switch.
    fn begin_anew(&self, bridge: &Bridge, now_ms: u64) {
        let done = self.pipeline.change(&bridge.name, now_ms, |changes| {
            changes.group(&all_groups())?;
            changes.flow(&FlowMod::new(Command::Delete))?;
            if bridge.secure { Ok(()) } else { changes.flow(&normal()) }
        });
        if let Err(e) = done {
            warn!("bridge {}: {e}", bridge.name);
        }
    }

    /// The bridge's own port has a number, so that flows can name it; what is sent there is dropped and
    /// counted unless it has a device in the host.
    fn follow_local_port(&mut self, bridge: &str) {
        if self.locals.contains_key(bridge) {
            return;
        }
        let Some(dp) = self.free_dp() else {
            return warn!("bridge {bridge}: no port number is free for its own port");
        };
        match self.pipeline.add_port(bridge, bridge, OfPort::LOCAL, dp) {
            Ok(()) => {
                // It was added just now.
                let _ = self.pipeline.set_port_state(bridge, OfPort::LOCAL, false);
                self.locals.insert(bridge.to_owned(), dp);
            }
            Err(e) => warn!("bridge {bridge}: {e}"),
        }
    }

    /// Gives the bridge's ports their settings.
    pub(crate) fn follow_ports(&self, bridge: &Bridge) {
        for interface in &bridge.interfaces {
            let number = match self.running.get(&interface.name) {
                Some(r) => r.number,
                None if interface.name == bridge.name => OfPort::LOCAL,
                // It could not be opened.
                None => continue,
            };
            if let Err(e) = self.pipeline.set_port(&bridge.name, number, interface.port) {
                warn!("{}: {e}", interface.name);
            }
        }
    }

    /// Configures the tables whose rows changed, came or went.
    fn follow_tables(&self, before: Option<&Bridge>, bridge: &Bridge) {
        let old = before.map(|b| &b.flow_tables);
        let gone = old.into_iter().flatten().filter(|(n, _)| !bridge.flow_tables.contains_key(n));
        let gone = gone.map(|(n, _)| (*n, Default::default()));
        let here = bridge.flow_tables.iter().map(|(n, c)| (*n, c.clone()));
        for (number, config) in gone.chain(here) {
            if old.and_then(|o| o.get(&number)) == Some(&config) {
                continue;
            }
            let done = self.pipeline.set_table_config(&bridge.name, number, config);
            if let Err(e) = done {
                warn!("bridge {}: flow table {number}: {e}", bridge.name);
            }
        }
    }

    /// Gives devices in the host their addresses: what their rows ask for; a bridge's own that asks for
    /// none has the bridge's, which is the lowest of its netdevs' unless it is given (as in OVS).
    pub(crate) fn follow_addresses(&self) {
        for bridge in &self.desired.bridges {
            for i in &bridge.interfaces {
                let Some(r) = self.running.get(&i.name) else { continue };
                let of_bridge = || i.local.then(|| self.bridge_mac(bridge));
                if let Some(Err(e)) = i.mac.or_else(of_bridge).map(|mac| r.opened.set_mac(mac)) {
                    warn!("{}: {e}", i.name);
                }
            }
        }
    }

    /// Gives devices of our own that ask for no MTU the lowest of their bridge's other interfaces, or the
    /// default if there are none, as OVS does: what the host sends then fits all of them.
    pub(crate) fn follow_mtus(&mut self) {
        let asked = |i: &Interface| i.mtu_request.is_some();
        for bridge in &self.desired.bridges {
            let running =
                bridge.interfaces.iter().filter_map(|i| Some((i, self.running.get(&i.name)?)));
            let counts = |i: &Interface, r: &Running| {
                !r.opened.is_patch() && (asked(i) || !r.opened.is_own())
            };
            let lowest =
                running.clone().filter(|(i, r)| counts(i, r)).map(|(_, r)| r.opened.state().mtu);
            let lowest = lowest.min().unwrap_or(MTU_DEFAULT);
            let new = self.mtus.insert(bridge.name.clone(), lowest) != Some(lowest);
            for (i, r) in running.filter(|(i, _)| !asked(i)) {
                if let Err(e) = r.opened.follow_mtu(lowest, new) {
                    warn!("{}: {e}", i.name);
                }
            }
        }
        let there = |name: &String| self.desired.bridges.iter().any(|b| b.name == *name);
        self.mtus.retain(|name, _| there(name));
    }

    fn bridge_mac(&self, bridge: &Bridge) -> Mac {
        let made = match bridge.mac {
            BridgeMac::Given(mac) => return mac,
            BridgeMac::OfPorts(mac) => mac,
        };
        let netdevs = self.running.values();
        let netdevs = netdevs.filter(|r| r.bridge == bridge.name && r.opened.kind() == "system");
        let macs = netdevs.map(|r| r.opened.state().mac).filter(|m| m.0 != [0; 6]);
        macs.min_by_key(|m| m.0).unwrap_or(made)
    }

    /// Tells the pipeline of links that came up or went down.
    pub(crate) fn links_changed(&mut self) {
        for r in self.running.values_mut() {
            r.opened.follow_link();
            let up = r.opened.link_is_up();
            if r.told_up != Some(up) {
                r.told_up = Some(up);
                // A port that is not there any more has no state.
                let _ = self.pipeline.set_port_state(&r.bridge, r.number, up);
            }
        }
    }

    /// The datapath number of a bridge's own port.
    pub(crate) fn local_dp(&self, bridge: &str) -> Option<DpPort> {
        self.locals.get(bridge).copied()
    }
}

/// `priority=0,actions=NORMAL`.
fn normal() -> FlowMod {
    let port = OfPort::NORMAL;
    let actions = vec![Action::Output { port, max_len: None }];
    FlowMod { table: Some(0), priority: 0, actions, ..FlowMod::new(Command::Add) }
}

/// Deletes all groups.
fn all_groups() -> GroupMod {
    let (kind, selection) = (GroupType::All, Selection::default());
    GroupMod {
        command: GroupCommand::Delete,
        all: true,
        group: Group { id: 0, kind, buckets: Vec::new(), selection },
        place: BucketPlace::All,
    }
}
