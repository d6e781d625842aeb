//! What can be configured of a table, and what it counts.

use crate::prefix::Address;
use flow::FlowKey;
use openflow::{Field, FullKey, Subfield};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Configuration of a table (`Flow_Table` of ovs-vswitchd.conf.db(5)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableConfig {
    /// Its name.
    pub name: Option<String>,
    /// Flows that it takes at most.
    pub flow_limit: Option<u32>,
    /// What a full table does with a new flow: make room by evicting one, or refuse it.
    pub evict: bool,
    /// Flows that agree in these are a group; the largest group is evicted from.
    pub groups: Vec<Subfield>,
    /// Address fields of which prefixes are followed; `None` for the default: IPv4 and IPv6 source
    /// and destination. Of more than four the first four count.
    pub prefixes: Option<Vec<&'static Field>>,
}

impl TableConfig {
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let pkt = offset_of!(FullKey, pkt);
        let address = |at: usize, bytes| Address { at: (pkt + at) as u16, bytes };
        match &self.prefixes {
            Some(fields) => fields.iter().map(|f| Address { at: f.at, bytes: f.bytes }).collect(),
            None => vec![
                address(offset_of!(FlowKey, nw_src), 4),
                address(offset_of!(FlowKey, nw_dst), 4),
                address(offset_of!(FlowKey, ipv6_src), 16),
                address(offset_of!(FlowKey, ipv6_dst), 16),
            ],
        }
    }
}

/// Lookups in one table. All copies of a bridge's tables count in the same place.
#[derive(Debug, Default)]
pub struct TableCounters {
    lookups: AtomicU64,
    matches: AtomicU64,
}

impl TableCounters {
    /// Adds packets that were looked up, and those of them that found a flow.
    pub fn add(&self, lookups: u64, matches: u64) {
        self.lookups.fetch_add(lookups, Relaxed);
        self.matches.fetch_add(matches, Relaxed);
    }

    /// Packets that were looked up.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Relaxed)
    }

    /// Packets that found a flow.
    pub fn matches(&self) -> u64 {
        self.matches.load(Relaxed)
    }
}
