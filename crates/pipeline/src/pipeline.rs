//! All bridges of the daemon, as whoever uses the pipeline sees them.

use crate::bridge::{Bridge, BridgeConfig, BridgeId, Learned, Ports};
use crate::core::{Core, Snapshot};
use crate::error::Error;
use crate::fdb::Fdb;
use crate::mirror::{MAX_MIRRORS, Mirror, MirrorConfig};
use crate::port::{self, OfPort, Patch, PatchCounts, Port, PortId, PortUse};
use crate::translate::{self, Noted};
use crate::vlan::PortConfig;
use flow::{DpPort, FlowKey, Snoop, Translate, Translation};
use openflow::{Action, FullKey, PortNames};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A port as the daemon may ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its bridge.
    pub bridge: String,
    /// Its name.
    pub name: String,
    /// Its OpenFlow number.
    pub number: OfPort,
    /// Its datapath number.
    pub dp: DpPort,
}

/// The bridges. Changes wait for each other; [`Translate`] is asked by any thread at any time and waits
/// for none of them.
#[derive(Debug, Default)]
pub struct Pipeline {
    pub(crate) core: Arc<Core>,
}

/// Packets and bytes that mirrors selected, by [`MirrorConfig::id`].
pub type MirrorStatistics = Vec<(u128, (u64, u64))>;

/// The ports of a bridge as they were, by name.
#[derive(Debug, Clone)]
pub struct Names(Arc<Bridge>);

impl PortNames for Names {
    fn name(&self, port: OfPort) -> Option<&str> {
        self.0.name(port)
    }

    fn number(&self, name: &str) -> Option<OfPort> {
        self.0.number(name)
    }
}

impl Translate for Pipeline {
    fn translate(&self, key: &FlowKey) -> Translation {
        translate::packet(&self.core, key, None).0
    }

    fn generation(&self) -> u64 {
        self.core.generation.load(Ordering::Acquire)
    }

    fn snoop(&self, snoop: &Snoop, frame: &[u8], now_ms: u64) {
        self.core.snapshot.load().snoop(snoop, frame, now_ms);
    }
}

/// Translation.
impl Pipeline {
    /// No bridges yet.
    pub fn new() -> Pipeline {
        Pipeline::default()
    }

    /// As [`Translate::translate`], with all that was decided on the way. `side_effects` says whether
    /// the caller will apply the translation's effects. `None` if no bridge takes the packet.
    pub fn translate_noting(&self, key: &FlowKey, side_effects: bool) -> Option<Noted> {
        translate::packet(&self.core, key, Some(side_effects)).1.map(|n| *n)
    }

    /// What `actions` do with a packet of a bridge, with registers and the like as in `key`, that is said
    /// to have come in by `in_port`, which may be [`OfPort::CONTROLLER`] or [`OfPort::NONE`]. Nothing is cached: the mask tells nothing.
    ///
    /// # Errors
    /// The bridge is unknown, or an action is not supported or does not suit the packet.
    pub fn packet_out(
        &self,
        bridge: &str,
        in_port: OfPort,
        actions: &[Action],
        key: &FullKey,
    ) -> Result<Translation, Error> {
        let bridge = self.bridge(bridge)?;
        check_out(actions)?;
        Ok(translate::packet_out(&self.core, &bridge, in_port, actions, key, None).0)
    }

    /// As [`Pipeline::packet_out`], with all that was decided on the way.
    ///
    /// # Errors
    /// As [`Pipeline::packet_out`].
    pub fn packet_out_noting(
        &self,
        bridge: &str,
        in_port: OfPort,
        actions: &[Action],
        key: &FullKey,
        side_effects: bool,
    ) -> Result<Option<Noted>, Error> {
        let bridge = self.bridge(bridge)?;
        check_out(actions)?;
        let tracing = Some(side_effects);
        let (_, noted) = translate::packet_out(&self.core, &bridge, in_port, actions, key, tracing);
        Ok(noted.map(|n| *n))
    }

    /// Packets that are to come back, as states that are kept for them.
    pub fn recirculations(&self) -> usize {
        self.core.frozen.len()
    }
}

fn check_out(actions: &[Action]) -> Result<(), Error> {
    match openflow::first_unsupported(actions) {
        Some(what) => Err(Error::Unsupported(what.to_owned())),
        None => Ok(()),
    }
}

/// Bridges and ports.
impl Pipeline {
    /// The bridge as it is now.
    pub(crate) fn bridge(&self, name: &str) -> Result<Arc<Bridge>, Error> {
        self.core.snapshot.load().bridge(name).cloned()
    }

    /// All bridges as they are now, by name.
    pub(crate) fn all_bridges(&self) -> Vec<Arc<Bridge>> {
        let snapshot = self.core.snapshot.load();
        snapshot.by_name.values().filter_map(|id| snapshot.bridges.get(id)).cloned().collect()
    }

    /// The ports of a bridge by name, for reading and printing flows.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn names(&self, bridge: &str) -> Result<Names, Error> {
        Ok(Names(self.bridge(bridge)?))
    }

    /// The number of a bridge, by which packets for controllers name it.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn bridge_number(&self, bridge: &str) -> Result<u32, Error> {
        Ok(self.bridge(bridge)?.id.0)
    }

    /// The bridge with a number.
    pub fn bridge_name(&self, number: u32) -> Option<String> {
        let snapshot = self.core.snapshot.load();
        snapshot.bridges.get(&BridgeId(number)).map(|b| b.name.clone())
    }

    /// Puts a bridge whose ports are others than before, or a new one, into the snapshot.
    fn publish_ports(&self, bridge: Bridge) {
        let mut next = Snapshot::clone(&self.core.snapshot.load());
        let mut by_dp = HashMap::clone(&next.by_dp);
        by_dp.retain(|_, (id, _)| *id != bridge.id);
        by_dp.extend(bridge.ports.by_dp.iter().map(|(dp, p)| (*dp, (bridge.id, p.number))));
        next.by_dp = Arc::new(by_dp);
        next.bridges.insert(bridge.id, Arc::new(bridge));
        next.join_patches();
        self.core.publish(next, true);
    }

    /// Adds a bridge without ports, with the one flow `priority=0,actions=NORMAL`.
    ///
    /// # Errors
    /// [`Error::BridgeExists`].
    pub fn add_bridge(&self, name: &str, config: BridgeConfig, now_ms: u64) -> Result<(), Error> {
        self.core.change(|control| {
            let mut next = Snapshot::clone(&self.core.snapshot.load());
            if next.by_name.contains_key(name) {
                return Err(Error::BridgeExists(name.to_owned()));
            }
            control.last_bridge += 1;
            let id = BridgeId(control.last_bridge);
            let fdb =
                Arc::new(Learned::new(Fdb::new(self.core.events.clone()), &self.core.generation));
            let mut bridge = Bridge::new(id, name, fdb, now_ms);
            bridge.configure(config, &self.core);
            let mut by_name = BTreeMap::clone(&next.by_name);
            by_name.insert(name.to_owned(), id);
            next.by_name = Arc::new(by_name);
            next.bridges.insert(id, Arc::new(bridge));
            self.core.publish(next, true);
            Ok(())
        })
    }

    /// Changes a bridge's settings.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn set_bridge(&self, name: &str, config: BridgeConfig) -> Result<(), Error> {
        self.change_bridge(name, |bridge| {
            let matters = bridge.config != config;
            bridge.configure(config, &self.core);
            Ok(((), matters))
        })
    }

    /// Removes a bridge with its ports, flows and learned addresses.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        self.core.change(|_| {
            let bridge = self.bridge(name)?;
            let mut next = Snapshot::clone(&self.core.snapshot.load());
            let mut by_dp = HashMap::clone(&next.by_dp);
            by_dp.retain(|_, (id, _)| *id != bridge.id);
            let mut by_name = BTreeMap::clone(&next.by_name);
            by_name.remove(name);
            (next.by_dp, next.by_name) = (Arc::new(by_dp), Arc::new(by_name));
            next.bridges.remove(&bridge.id);
            next.join_patches();
            self.core.publish(next, true);
            for port in bridge.ports.by_number.values() {
                bridge.forget_port(port.id);
            }
            Ok(())
        })
    }

    /// Adds a port, whose link is up. `number` and `dp` are the caller's choice.
    ///
    /// # Errors
    /// If the bridge is not there, the number is not one for ports, or name, number (in the bridge)
    /// or datapath port (in any bridge) are in use.
    pub fn add_port(
        &self,
        bridge: &str,
        name: &str,
        number: OfPort,
        dp: DpPort,
    ) -> Result<(), Error> {
        self.add_port_with(bridge, name, number, dp, PortConfig::default())
    }

    /// As [`Pipeline::add_port`], with settings that its first packet already meets.
    ///
    /// # Errors
    /// As [`Pipeline::add_port`].
    pub fn add_port_with(
        &self,
        bridge: &str,
        name: &str,
        number: OfPort,
        dp: DpPort,
        config: PortConfig,
    ) -> Result<(), Error> {
        self.add(bridge, name, number, dp, config, None)
    }

    /// Adds a patch port, which is joined to the patch port `peer`, of this bridge or of another, as soon as
    /// there is one whose peer is this. `dp` is a number that no port of the datapath has. Returns what
    /// will be counted.
    ///
    /// # Errors
    /// As [`Pipeline::add_port`].
    pub fn add_patch_port(
        &self,
        bridge: &str,
        name: &str,
        number: OfPort,
        dp: DpPort,
        config: PortConfig,
        peer: &str,
    ) -> Result<Arc<PatchCounts>, Error> {
        let counts = Arc::<PatchCounts>::default();
        let patch = Patch { peer: peer.to_owned(), counts: Arc::clone(&counts) };
        self.add(bridge, name, number, dp, config, Some(patch))?;
        Ok(counts)
    }

    fn add(
        &self,
        bridge: &str,
        name: &str,
        number: OfPort,
        dp: DpPort,
        config: PortConfig,
        patch: Option<Patch>,
    ) -> Result<(), Error> {
        self.core.change(|control| {
            let mut bridge = Bridge::clone(&*self.bridge(bridge)?);
            port::check(number)?;
            let exists = |port: String| Error::PortExists { bridge: bridge.name.clone(), port };
            if bridge.port_by_name(name).is_some() {
                return Err(exists(name.to_owned()));
            }
            if bridge.ports.by_number.contains_key(&number) {
                return Err(exists(number.to_string()));
            }
            if let Some(other) = self.port_by_dp(dp) {
                return Err(Error::DpPortExists { bridge: other.bridge, port: dp });
            }
            control.last_port += 1;
            let id = PortId(control.last_port);
            let mut ports = Ports::clone(&bridge.ports);
            let name = name.to_owned();
            let usage = PortUse::default();
            ports.put(Port { id, name, number, dp, patch, link_up: true, config, usage });
            bridge.ports = Arc::new(ports);
            // Before the first packet from it can teach anything.
            bridge.fdb.lock().add_port(id, number);
            self.publish_ports(bridge);
            Ok(())
        })
    }

    /// Removes a port and the addresses and groups learned on it.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NoPort`].
    pub fn remove_port(&self, bridge: &str, number: OfPort) -> Result<(), Error> {
        self.core.change(|_| {
            let mut bridge = Bridge::clone(&*self.bridge(bridge)?);
            let mut ports = Ports::clone(&bridge.ports);
            let Some(port) = ports.remove(number) else {
                return Err(no_port(&bridge, &number.to_string()));
            };
            bridge.ports = Arc::new(ports);
            self.publish_ports(bridge.clone());
            bridge.forget_port(port.id);
            Ok(())
        })
    }

    /// Says whether a port's link is up, which fast failover groups, bundles and buckets with
    /// `watch_port` go by.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NoPort`].
    pub fn set_port_state(&self, bridge: &str, number: OfPort, link_up: bool) -> Result<(), Error> {
        self.change_port(bridge, number, |port| port.link_up = link_up)
    }

    /// Changes how a port is used (OpenFlow's port modification).
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NoPort`].
    pub fn set_port_use(
        &self,
        bridge: &str,
        number: OfPort,
        what: PortUse,
        on: bool,
    ) -> Result<(), Error> {
        self.change_port(bridge, number, |port| port.usage = port.usage.with(what, on))
    }

    /// How a port is used; as any, if it is not there.
    pub fn port_use(&self, bridge: &str, number: OfPort) -> PortUse {
        let bridge = self.bridge(bridge).ok();
        let port = bridge.as_ref().and_then(|b| b.ports.by_number.get(&number));
        port.map_or_else(PortUse::default, |p| p.usage)
    }

    /// Changes a port's settings. Addresses that were learned on it in VLANs of before age as others do;
    /// what it said of multicast groups is forgotten.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NoPort`].
    pub fn set_port(&self, bridge: &str, number: OfPort, config: PortConfig) -> Result<(), Error> {
        let mut changed = None;
        self.change_port(bridge, number, |port| {
            changed = (port.config != config).then_some(port.id);
            port.config = config;
        })?;
        if let (Some(id), Some(mdb)) = (changed, &self.bridge(bridge)?.mdb) {
            mdb.change(|m| m.remove_port(id));
        }
        Ok(())
    }

    /// What the tables of learned addresses and groups did so far, in OVS's names.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.core.events.list().into_iter()
    }

    /// Gives a bridge its mirrors, the first [`MAX_MIRRORS`] of them. Those that were there before keep
    /// their statistics.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn set_mirrors(&self, bridge: &str, configs: &[MirrorConfig]) -> Result<(), Error> {
        self.change_bridge(bridge, |bridge| {
            let configs = &configs[..configs.len().min(MAX_MIRRORS)];
            let before = &bridge.mirrors;
            if before.iter().map(|m| &m.config).eq(configs) {
                return Ok(((), false));
            }
            let counts = |c: &MirrorConfig| {
                let same = before.iter().find(|m| m.config.id == c.id);
                same.map_or_else(Arc::default, |m| Arc::clone(&m.counts))
            };
            let mirror = |c: &MirrorConfig| Mirror { config: c.clone(), counts: counts(c) };
            bridge.mirrors = Arc::new(configs.iter().map(mirror).collect());
            Ok(((), true))
        })
    }

    /// Packets and bytes that each mirror of a bridge selected, by its [`MirrorConfig::id`].
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn mirror_counts(&self, bridge: &str) -> Result<MirrorStatistics, Error> {
        let bridge = self.bridge(bridge)?;
        Ok(bridge.mirrors.iter().map(|m| (m.config.id, m.counts.get())).collect())
    }

    fn change_port(
        &self,
        bridge: &str,
        number: OfPort,
        change: impl FnOnce(&mut Port),
    ) -> Result<(), Error> {
        self.change_bridge(bridge, |bridge| {
            let Some(before) = bridge.ports.by_number.get(&number) else {
                return Err(no_port(bridge, &number.to_string()));
            };
            let mut port = Port::clone(before);
            change(&mut port);
            let settings = |p: &Port| (p.link_up, p.config, p.usage);
            let matters = settings(&port) != settings(before);
            if matters {
                let mut ports = Ports::clone(&bridge.ports);
                ports.put(port);
                bridge.ports = Arc::new(ports);
            }
            Ok(((), matters))
        })
    }

    /// The names of all bridges, sorted.
    pub fn bridges(&self) -> Vec<String> {
        self.core.snapshot.load().by_name.keys().cloned().collect()
    }

    /// The ports of a bridge by OpenFlow number; `LOCAL` comes last.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn ports(&self, bridge: &str) -> Result<Vec<PortInfo>, Error> {
        let bridge = self.bridge(bridge)?;
        Ok(bridge.ports.by_number.values().map(|p| info(&bridge, p)).collect())
    }

    /// The port with a datapath number.
    pub fn port_by_dp(&self, dp: DpPort) -> Option<PortInfo> {
        let snapshot = self.core.snapshot.load();
        let (id, number) = snapshot.by_dp.get(&dp)?;
        let bridge = snapshot.bridges.get(id)?;
        Some(info(bridge, bridge.ports.by_number.get(number)?))
    }
}

fn info(bridge: &Bridge, port: &Port) -> PortInfo {
    PortInfo {
        bridge: bridge.name.clone(),
        name: port.name.clone(),
        number: port.number,
        dp: port.dp,
    }
}

pub(crate) fn no_port(bridge: &Bridge, port: &str) -> Error {
    Error::NoPort { bridge: bridge.name.clone(), port: port.to_owned() }
}
