//! Ports of a bridge as the pipeline sees them.

use crate::error::Error;
use crate::vlan::PortConfig;
use flow::{DpPort, Seen};
pub use openflow::{OfPort, PortUse};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Checks that a port of a bridge may have this number.
pub(crate) fn check(port: OfPort) -> Result<(), Error> {
    if port.is_port() { Ok(()) } else { Err(Error::BadOfPort(port.0)) }
}

/// Identity of one port over its life. Never given out twice, so that what is still known of a
/// removed port cannot be taken for news of its successor with the same OpenFlow number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PortId(pub u64);

/// One end of a patch: what is sent to it comes in by its peer, a patch port of another bridge whose peer
/// it is.
#[derive(Debug, Clone)]
pub(crate) struct Patch {
    /// The peer's name.
    pub peer: String,
    pub counts: Arc<PatchCounts>,
}

/// Packets that went through one end of a patch.
#[derive(Debug, Default)]
pub struct PatchCounts {
    /// Packets and bytes that came in by it.
    rx: [AtomicU64; 2],
    /// Packets and bytes that were sent to it.
    tx: [AtomicU64; 2],
}

impl PatchCounts {
    /// Packets and bytes that came in by it.
    pub fn received(&self) -> (u64, u64) {
        (self.rx[0].load(Relaxed), self.rx[1].load(Relaxed))
    }

    /// Packets and bytes that were sent to it.
    pub fn sent(&self) -> (u64, u64) {
        (self.tx[0].load(Relaxed), self.tx[1].load(Relaxed))
    }

    /// Counts what went from here to `peer`.
    pub(crate) fn crossed(&self, peer: &PatchCounts, seen: &Seen) {
        for counts in [&self.tx, &peer.rx] {
            counts[0].fetch_add(seen.packets, Relaxed);
            counts[1].fetch_add(seen.bytes, Relaxed);
        }
    }
}

/// One port of a bridge.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub id: PortId,
    pub name: String,
    pub number: OfPort,
    pub dp: DpPort,
    /// What it is if it has no port in the datapath.
    pub patch: Option<Patch>,
    /// Its link is up, which fast failover, bundles and select groups ask for.
    pub link_up: bool,
    pub config: PortConfig,
    /// What OpenFlow says of its use.
    pub usage: PortUse,
}
