//! All bridges of the daemon: the snapshot that readers use, and the changes to it.

use crate::bridge::{Bridge, BridgeConfig, SharedFdb};
use crate::error::Error;
use crate::port::{OfPort, Port, PortId};
use crate::translate::{self, Listener, Note};
use arc_swap::ArcSwap;
use flow::{DpPort, FlowKey, Translate, Translation};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What readers see: everything but the MAC tables, as it was after one change.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    bridges: BTreeMap<String, Arc<Bridge>>,
    /// Which bridge each datapath port belongs to.
    bridge_of: HashMap<DpPort, Arc<Bridge>>,
}

/// Numbers that are given out once.
#[derive(Debug, Default)]
struct Serials {
    flow: u64,
    port: u64,
}

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

/// The bridges. Changes come from one control thread (others would wait for each other);
/// [`Translate`] is asked by any thread at any time and waits for none of them.
#[derive(Debug)]
pub struct Pipeline {
    snapshot: ArcSwap<Snapshot>,
    generation: Arc<AtomicU64>,
    /// Held while a change is made.
    changing: Mutex<Serials>,
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline::new()
    }
}

impl Translate for Pipeline {
    fn translate(&self, key: &FlowKey) -> Translation {
        self.walk(key, None)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl Pipeline {
    /// No bridges yet.
    pub fn new() -> Pipeline {
        Pipeline {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            generation: Arc::new(AtomicU64::new(1)),
            changing: Mutex::new(Serials::default()),
        }
    }

    /// As [`Translate::translate`], telling `listener` what is decided on the way.
    pub fn translate_noting(&self, key: &FlowKey, listener: &mut dyn FnMut(Note)) -> Translation {
        self.walk(key, Some(listener))
    }

    fn walk(&self, key: &FlowKey, listener: Option<Listener<'_>>) -> Translation {
        let dp = DpPort(key.in_port);
        let snapshot = self.snapshot.load();
        let Some(bridge) = snapshot.bridge_of.get(&dp) else {
            return translate::dropped(key);
        };
        match bridge.by_dp.get(&dp) {
            Some(port) => translate::translate(bridge, port, key, listener),
            None => translate::dropped(key),
        }
    }

    fn serials(&self) -> MutexGuard<'_, Serials> {
        // Snapshots are replaced as a whole, so a panic during a change leaves the one before it.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bridge as it is now.
    pub(crate) fn bridge(&self, name: &str) -> Result<Arc<Bridge>, Error> {
        let snapshot = self.snapshot.load();
        let found = snapshot.bridges.get(name).cloned();
        found.ok_or_else(|| Error::NoBridge(name.to_owned()))
    }

    /// All bridges as they are now.
    pub(crate) fn all_bridges(&self) -> Vec<Arc<Bridge>> {
        self.snapshot.load().bridges.values().cloned().collect()
    }

    /// Changes a copy of a bridge, with the serial number of the last flow at hand, and makes it the
    /// bridge if the change succeeds.
    pub(crate) fn change_bridge<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Bridge, &mut u64) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut serials = self.serials();
        let mut bridge = Bridge::clone(&*self.bridge(name)?);
        let answer = change(&mut bridge, &mut serials.flow)?;
        self.publish(name, Some(bridge));
        Ok(answer)
    }

    /// Puts a changed bridge, or none, in the place of bridge `name`.
    fn publish(&self, name: &str, bridge: Option<Bridge>) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.bridge_of.retain(|_, b| b.name != name);
        match bridge.map(Arc::new) {
            Some(bridge) => {
                let ports = bridge.by_dp.keys().map(|dp| (*dp, Arc::clone(&bridge)));
                next.bridge_of.extend(ports);
                next.bridges.insert(name.to_owned(), bridge);
            }
            None => {
                next.bridges.remove(name);
            }
        }
        self.snapshot.store(Arc::new(next));
        // After the tables: who sees the new number also sees the new tables.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds a bridge without ports, with the one flow `priority=0,actions=NORMAL`.
    ///
    /// # Errors
    /// [`Error::BridgeExists`].
    pub fn add_bridge(&self, name: &str, config: BridgeConfig, now_ms: u64) -> Result<(), Error> {
        let mut serials = self.serials();
        if self.bridge(name).is_ok() {
            return Err(Error::BridgeExists(name.to_owned()));
        }
        serials.flow += 1;
        let fdb = Arc::new(SharedFdb::new(Arc::clone(&self.generation)));
        fdb.change(|f| f.configure(config.mac_aging_s, config.mac_table_size));
        let mut bridge = Bridge::new(name, fdb, serials.flow, now_ms);
        bridge.config = config;
        self.publish(name, Some(bridge));
        Ok(())
    }

    /// Changes a bridge's settings.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn set_bridge(&self, name: &str, config: BridgeConfig) -> Result<(), Error> {
        let _changing = self.serials();
        let mut bridge = Bridge::clone(&*self.bridge(name)?);
        let fdb = &bridge.fdb;
        fdb.change(|f| f.configure(config.mac_aging_s, config.mac_table_size));
        if bridge.config != config {
            bridge.config = config;
            self.publish(name, Some(bridge));
        }
        Ok(())
    }

    /// Removes a bridge with its ports, flows and learned addresses.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        let _changing = self.serials();
        let bridge = self.bridge(name)?;
        self.publish(name, None);
        for port in bridge.ports.values() {
            bridge.fdb.change(|f| f.remove_port(port.id));
        }
        Ok(())
    }

    /// Adds a port. `number` and `dp` are the caller's choice.
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
        let mut serials = self.serials();
        let mut bridge = Bridge::clone(&*self.bridge(bridge)?);
        number.check()?;
        let exists = |port: String| Error::PortExists { bridge: bridge.name.clone(), port };
        if bridge.port_by_name(name).is_some() {
            return Err(exists(name.to_owned()));
        }
        if bridge.ports.contains_key(&number) {
            return Err(exists(number.to_string()));
        }
        if let Some(other) = self.snapshot.load().bridge_of.get(&dp) {
            return Err(Error::DpPortExists { bridge: other.name.clone(), port: dp });
        }
        serials.port += 1;
        let id = PortId(serials.port);
        let port = Arc::new(Port { id, name: name.to_owned(), number, dp });
        bridge.ports.insert(number, Arc::clone(&port));
        bridge.by_dp.insert(dp, port);
        // Before the first packet from it can teach anything.
        bridge.fdb.lock().add_port(id, number);
        let name = bridge.name.clone();
        self.publish(&name, Some(bridge));
        Ok(())
    }

    /// Removes a port and the addresses learned on it.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NoPort`].
    pub fn remove_port(&self, bridge: &str, number: OfPort) -> Result<(), Error> {
        let _changing = self.serials();
        let mut bridge = Bridge::clone(&*self.bridge(bridge)?);
        let name = bridge.name.clone();
        let Some(port) = bridge.ports.remove(&number) else {
            return Err(no_port(&bridge, &number.to_string()));
        };
        bridge.by_dp.remove(&port.dp);
        let fdb = Arc::clone(&bridge.fdb);
        self.publish(&name, Some(bridge));
        fdb.change(|f| f.remove_port(port.id));
        Ok(())
    }

    /// The names of all bridges, sorted.
    pub fn bridges(&self) -> Vec<String> {
        self.snapshot.load().bridges.keys().cloned().collect()
    }

    /// The ports of a bridge by OpenFlow number; `LOCAL` comes last.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn ports(&self, bridge: &str) -> Result<Vec<PortInfo>, Error> {
        let bridge = self.bridge(bridge)?;
        Ok(bridge.ports.values().map(|p| info(&bridge, p)).collect())
    }

    /// The port with a datapath number.
    pub fn port_by_dp(&self, dp: DpPort) -> Option<PortInfo> {
        let snapshot = self.snapshot.load();
        let bridge = snapshot.bridge_of.get(&dp)?;
        Some(info(bridge, bridge.by_dp.get(&dp)?))
    }

    /// Forgets the learned addresses that were not seen for their bridge's ageing time. To be called
    /// about once a second.
    pub fn expire(&self, now_ms: u64) {
        for bridge in self.snapshot.load().bridges.values() {
            bridge.fdb.change(|f| f.expire(now_ms));
        }
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
