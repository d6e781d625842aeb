//! What the tables of learned addresses and groups did, of all bridges that were: `coverage/show`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Something that is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    MacLearned,
    MacExpired,
    MacEvicted,
    MacMoved,
    GroupLearned,
    GroupExpired,
    GroupEvicted,
}

/// OVS's names, in the order of [`Event`]; it counts groups that had to make room with those that expired.
const NAMES: [&str; 7] = [
    "mac_learning_learned",
    "mac_learning_expired",
    "mac_learning_evicted",
    "mac_learning_moved",
    "mcast_snooping_learned",
    "mcast_snooping_expired",
    "mcast_snooping_evicted",
];

/// How often each happened.
#[derive(Debug, Default)]
pub(crate) struct Events([AtomicU64; NAMES.len()]);

impl Events {
    pub fn add(&self, event: Event, n: u64) {
        self.0[event as usize].fetch_add(n, Relaxed);
    }

    pub fn list(&self) -> [(&'static str, u64); NAMES.len()] {
        std::array::from_fn(|i| (NAMES[i], self.0[i].load(Relaxed)))
    }
}
