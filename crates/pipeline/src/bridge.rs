//! One bridge in a snapshot: ports, tables and settings as they are between two changes.

use crate::core::Core;
use crate::fdb::{DEFAULT_AGING_S, DEFAULT_TABLE_SIZE, Fdb};
use crate::mdb::{DEFAULT_MCAST_AGING_S, DEFAULT_MCAST_TABLE_SIZE, Mdb};
use crate::mirror::Mirror;
use crate::port::{Port, PortId};
use crate::vlan::VlanSet;
use flow::DpPort;
use openflow::{Action, Command, FlowMod, OfPort, PortNames};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tables::{Groups, Meters, Removed, Tables};

/// Settings of a bridge, from its `other_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeConfig {
    /// `mac-aging-time` in seconds, [`crate::MIN_AGING_S`] to [`crate::MAX_AGING_S`]; values outside
    /// are taken as the limit.
    pub mac_aging_s: u32,
    /// `mac-table-size` in entries, [`crate::MIN_TABLE_SIZE`] to [`crate::MAX_TABLE_SIZE`]; values
    /// outside are taken as the limit.
    pub mac_table_size: u32,
    /// `forward-bpdu`: NORMAL forwards frames to reserved multicast addresses too.
    pub forward_bpdu: bool,
    /// `flood_vlans`: no addresses are learned in these.
    pub flood_vlans: VlanSet,
    /// `other_config:vlan-limit` of the switch, 1 or 2: tags that NORMAL reads. Flows always see two.
    pub vlan_limit: u8,
    /// `mcast_snooping_enable`: multicast goes to those who want it. `None` floods it.
    pub snooping: Option<Snooping>,
}

/// Settings of multicast snooping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snooping {
    /// `mcast-snooping-aging-time` in seconds, [`crate::MIN_MCAST_AGING_S`] to
    /// [`crate::MAX_MCAST_AGING_S`]; values outside are taken as the limit.
    pub aging_s: u32,
    /// `mcast-snooping-table-size` in groups, [`crate::MIN_MCAST_TABLE_SIZE`] to
    /// [`crate::MAX_MCAST_TABLE_SIZE`]; values outside are taken as the limit.
    pub table_size: u32,
    /// Packets for groups that nobody joined go to all ports; with
    /// `mcast-snooping-disable-flood-unregistered` only to routers.
    pub flood_unregistered: bool,
}

impl Default for Snooping {
    fn default() -> Self {
        Snooping {
            aging_s: DEFAULT_MCAST_AGING_S,
            table_size: DEFAULT_MCAST_TABLE_SIZE,
            flood_unregistered: true,
        }
    }
}

/// `other_config:vlan-limit` of a switch that names none (ovs-vswitchd.conf.db(5)).
pub const DEFAULT_VLAN_LIMIT: u8 = 1;
/// The most tags that are read, also for `vlan-limit=0`.
pub const MAX_VLAN_LIMIT: u8 = 2;

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig {
            mac_aging_s: DEFAULT_AGING_S,
            mac_table_size: DEFAULT_TABLE_SIZE,
            forward_bpdu: false,
            flood_vlans: VlanSet::EMPTY,
            vlan_limit: DEFAULT_VLAN_LIMIT,
            snooping: None,
        }
    }
}

/// A table of a bridge as its users share it: locked for each use, and every change that can alter a
/// translation shows in the pipeline's generation.
#[derive(Debug)]
pub(crate) struct Learned<T> {
    table: Mutex<T>,
    generation: Arc<AtomicU64>,
}

/// The MAC table.
pub(crate) type SharedFdb = Learned<Fdb>;
/// The multicast table.
pub(crate) type SharedMdb = Learned<Mdb>;

impl<T> Learned<T> {
    pub fn new(table: T, generation: &Arc<AtomicU64>) -> Learned<T> {
        Learned { table: Mutex::new(table), generation: Arc::clone(generation) }
    }

    /// For reading.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // A panic elsewhere while it was locked leaves a table whose entries are each valid.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a change; `change` says whether packets may go elsewhere from now on.
    pub fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.lock());
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }
}

/// Which bridge: never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BridgeId(pub u32);

/// The ports of a bridge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports {
    /// By OpenFlow number, which is the order of flooding.
    pub by_number: BTreeMap<OfPort, Arc<Port>>,
    pub by_dp: HashMap<DpPort, Arc<Port>>,
    pub by_name: HashMap<String, OfPort>,
}

impl Ports {
    /// Adds a port, or replaces the one with its number, name and datapath port.
    pub fn put(&mut self, port: Port) {
        let port = Arc::new(port);
        self.by_name.insert(port.name.clone(), port.number);
        self.by_dp.insert(port.dp, Arc::clone(&port));
        self.by_number.insert(port.number, port);
    }

    /// Removes a port.
    pub fn remove(&mut self, number: OfPort) -> Option<Arc<Port>> {
        let port = self.by_number.remove(&number)?;
        self.by_name.remove(&port.name);
        self.by_dp.remove(&port.dp);
        Some(port)
    }
}

/// A bridge. Copying is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    pub id: BridgeId,
    pub name: String,
    pub config: BridgeConfig,
    pub ports: Arc<Ports>,
    pub tables: Tables,
    pub groups: Groups,
    pub meters: Meters,
    /// Flows removed by the change under way that somebody wants to hear of.
    pub removed: Vec<Removed>,
    /// What flows learn that have `delete_learned`; `None` if there are no such flows.
    pub teachers: Option<Arc<BTreeSet<(u64, u8)>>>,
    pub fdb: Arc<SharedFdb>,
    /// If multicast is snooped.
    pub mdb: Option<Arc<SharedMdb>>,
    pub mirrors: Arc<Vec<Mirror>>,
}

impl Bridge {
    /// A bridge without ports whose only flow is `priority=0,actions=NORMAL`.
    pub fn new(id: BridgeId, name: &str, fdb: Arc<SharedFdb>, now_ms: u64) -> Bridge {
        let mut tables = Tables::new();
        // An empty table without a limit takes any flow.
        let _ = tables.apply(&normal(), now_ms);
        Bridge {
            id,
            name: name.to_owned(),
            config: BridgeConfig::default(),
            ports: Arc::default(),
            tables,
            groups: Groups::default(),
            meters: Meters::default(),
            removed: Vec::new(),
            teachers: None,
            fdb,
            mdb: None,
            mirrors: Arc::default(),
        }
    }

    /// Remembers flows that were removed, for whoever asked to be told (`send_flow_rem`).
    pub fn gone(&mut self, removed: Vec<Removed>) {
        self.removed.extend(removed.into_iter().filter(|r| r.rule.flags.send_flow_rem));
    }

    /// Gives it settings; tables are made and dropped as these say.
    pub fn configure(&mut self, config: BridgeConfig, core: &Core) {
        self.config = config;
        self.fdb.change(|f| f.configure(config.mac_aging_s, config.mac_table_size));
        self.mdb = config.snooping.map(|Snooping { aging_s, table_size, .. }| {
            let new = || {
                let mdb = Mdb::new(aging_s, table_size, core.events.clone());
                Arc::new(Learned::new(mdb, &core.generation))
            };
            let mdb = self.mdb.take().unwrap_or_else(new);
            mdb.change(|m| m.configure(aging_s, table_size));
            mdb
        });
    }

    /// Forgets what was learned on a port that is gone.
    pub fn forget_port(&self, port: PortId) {
        self.fdb.change(|f| f.remove_port(port));
        if let Some(mdb) = &self.mdb {
            mdb.change(|m| m.remove_port(port));
        }
    }

    pub fn port_by_name(&self, name: &str) -> Option<&Arc<Port>> {
        self.ports.by_number.get(self.ports.by_name.get(name)?)
    }

    /// A port by number, name or as `LOCAL`.
    pub fn find_port(&self, text: &str) -> Option<&Arc<Port>> {
        self.ports.by_number.get(&openflow::parse_port(text, self)?)
    }
}

/// The flow that a fresh bridge has.
fn normal() -> FlowMod {
    let mut flow = FlowMod::new(Command::Add);
    flow.priority = 0;
    flow.actions = vec![Action::Output { port: OfPort::NORMAL, max_len: None }];
    flow
}

impl PortNames for Bridge {
    fn name(&self, port: OfPort) -> Option<&str> {
        self.ports.by_number.get(&port).map(|p| p.name.as_str())
    }

    fn number(&self, name: &str) -> Option<OfPort> {
        self.ports.by_name.get(name).copied()
    }
}
