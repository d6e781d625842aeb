//! What all users of the pipeline share: the snapshot that readers use, and how it is replaced.

use crate::bridge::{Bridge, BridgeId};
use crate::error::Error;
use crate::events::Events;
use crate::frozen::FrozenTable;
use crate::learn::Learned;
use crate::port::PortId;
use arc_swap::ArcSwap;
use flow::DpPort;
use openflow::OfPort;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tables::Removed;

/// What readers see: everything but the MAC tables, as it was after one change. What a change does not
/// touch is shared with the snapshot before it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub bridges: BTreeMap<BridgeId, Arc<Bridge>>,
    pub by_name: Arc<BTreeMap<String, BridgeId>>,
    /// Where each datapath port belongs.
    pub by_dp: Arc<HashMap<DpPort, (BridgeId, OfPort)>>,
    /// Where packets come in that are sent to a patch port, of those that have a peer.
    pub patches: Arc<HashMap<PortId, (BridgeId, OfPort)>>,
}

impl Snapshot {
    /// Joins patch ports that name each other.
    pub fn join_patches(&mut self) {
        let mut by_name = HashMap::new();
        for bridge in self.bridges.values() {
            for port in bridge.ports.by_number.values() {
                if let Some(patch) = &port.patch {
                    by_name.insert(&*port.name, (bridge.id, port, &*patch.peer));
                }
            }
        }
        let mut patches = HashMap::new();
        for (name, (_, port, peer)) in &by_name {
            if let Some((bridge, other, back)) = by_name.get(peer)
                && back == name
            {
                patches.insert(port.id, (*bridge, other.number));
            }
        }
        self.patches = Arc::new(patches);
    }

    /// The bridge with a name.
    pub fn bridge(&self, name: &str) -> Result<&Arc<Bridge>, Error> {
        let found = self.by_name.get(name).and_then(|id| self.bridges.get(id));
        found.ok_or_else(|| Error::NoBridge(name.to_owned()))
    }
}

/// What only who makes a change has: numbers that are given out once.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub last_bridge: u32,
    pub last_port: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Core {
    pub snapshot: ArcSwap<Snapshot>,
    pub generation: Arc<AtomicU64>,
    /// Held while a change is made.
    pub changing: Mutex<Control>,
    /// Flows that are to be learned, and when they were seen, while somebody makes a change.
    pub queue: Mutex<Vec<(Arc<Learned>, u64)>>,
    /// Snapshots that were replaced, until nobody reads them: a polling thread that is the last to look
    /// at one must not be who frees the million flows that were deleted since.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    /// Flows with `send_flow_rem` that were removed, and from which bridge.
    pub removed: Mutex<VecDeque<(String, Removed)>>,
    pub frozen: Arc<FrozenTable>,
    pub events: Arc<Events>,
}

/// Removed flows that wait to be told of: enough for a second of a busy controller. When nobody takes
/// them, the oldest are forgotten.
const MAX_REMOVED: usize = 8192;

impl Core {
    /// Makes a change that nobody else makes one beside, and then learns what waited for its end.
    pub fn change<T>(&self, change: impl FnOnce(&mut Control) -> T) -> T {
        let out = change(&mut self.control());
        self.drain();
        self.bury();
        out
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // Snapshots are replaced as a whole, so a panic during a change leaves the one before it.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces a bridge whose ports are the same. `matters` says whether packets may be forwarded
    /// otherwise than before.
    pub fn put_bridge(&self, _: &mut Control, mut bridge: Bridge, matters: bool) {
        let removed = std::mem::take(&mut bridge.removed);
        if !removed.is_empty() {
            let mut all = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(removed.into_iter().map(|r| (bridge.name.clone(), r)));
            let surplus = all.len().saturating_sub(MAX_REMOVED);
            all.drain(..surplus);
        }
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.bridges.insert(bridge.id, Arc::new(bridge));
        self.publish(next, matters);
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Snapshot>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees replaced snapshots that nobody reads any more. Not for polling threads.
    pub fn bury(&self) {
        // Freed after the lock is let go.
        let gone: Vec<_> = self.retired().extract_if(.., |s| Arc::strong_count(s) == 1).collect();
        drop(gone);
    }

    /// Replaces the snapshot.
    pub fn publish(&self, next: Snapshot, matters: bool) {
        let old = self.snapshot.swap(Arc::new(next));
        self.retired().push(old);
        if matters {
            // After the tables: who sees the new number also sees the new tables.
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}
