//! One bridge in a snapshot: ports, tables and settings as they are between two changes.

use crate::action::{self, OfAction};
use crate::classifier::Table;
use crate::fdb::{DEFAULT_AGING_S, DEFAULT_TABLE_SIZE, Fdb};
use crate::flow_mod::Tables;
use crate::port::{OfPort, Port};
use crate::rule::{Counts, Match, Rule};
use flow::DpPort;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig {
            mac_aging_s: DEFAULT_AGING_S,
            mac_table_size: DEFAULT_TABLE_SIZE,
            forward_bpdu: false,
        }
    }
}

/// The MAC table of a bridge as its users share it: locked for each use, and every change that can
/// alter a translation shows in the pipeline's generation.
#[derive(Debug)]
pub(crate) struct SharedFdb {
    fdb: Mutex<Fdb>,
    generation: Arc<AtomicU64>,
}

impl SharedFdb {
    pub fn new(generation: Arc<AtomicU64>) -> SharedFdb {
        let fdb = Mutex::new(Fdb::new());
        SharedFdb { fdb, generation }
    }

    /// For reading.
    pub fn lock(&self) -> MutexGuard<'_, Fdb> {
        // A panic elsewhere while it was locked leaves a table whose entries are each valid.
        self.fdb.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a change; `change` says whether packets may go elsewhere from now on.
    pub fn change(&self, change: impl FnOnce(&mut Fdb) -> bool) -> bool {
        let changed = change(&mut self.lock());
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }
}

/// A bridge.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    pub name: String,
    pub config: BridgeConfig,
    /// By OpenFlow number, which is the order of flooding.
    pub ports: BTreeMap<OfPort, Arc<Port>>,
    pub by_dp: HashMap<DpPort, Arc<Port>>,
    pub tables: Tables,
    pub fdb: Arc<SharedFdb>,
}

impl Bridge {
    /// A bridge without ports whose only flow is `priority=0,actions=NORMAL`.
    pub fn new(name: &str, fdb: Arc<SharedFdb>, serial: u64, now_ms: u64) -> Bridge {
        let default = Rule {
            serial,
            priority: 0,
            cookie: 0,
            matches: Match::any(),
            actions: Arc::new([OfAction::Normal]),
            created_ms: now_ms,
            counts: Arc::new(Counts::default()),
        };
        let mut table = Table::default();
        table.insert(Arc::new(default));
        Bridge {
            name: name.to_owned(),
            config: BridgeConfig::default(),
            ports: BTreeMap::new(),
            by_dp: HashMap::new(),
            tables: BTreeMap::from([(0, Arc::new(table))]),
            fdb,
        }
    }

    pub fn port_by_name(&self, name: &str) -> Option<&Arc<Port>> {
        self.ports.values().find(|p| p.name == name)
    }

    /// A port by number, name or as `LOCAL`.
    pub fn find_port(&self, text: &str) -> Option<&Arc<Port>> {
        let number = action::parse_port(text, &|name| self.port_by_name(name).map(|p| p.number));
        self.ports.get(&number?)
    }
}
