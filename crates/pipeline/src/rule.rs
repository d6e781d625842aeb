//! One OpenFlow flow: what it matches, what it does, and how often it was used.

use crate::action::OfAction;
use crate::port::OfPort;
use flow::{FlowKey, FlowMask};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The highest table that takes flows: OVS keeps 254 to itself, and 255 means "all tables".
pub(crate) const MAX_TABLE: u8 = 253;
/// `priority` of a flow that names none (`ovs-ofctl`, OFP_DEFAULT_PRIORITY).
pub(crate) const DEFAULT_PRIORITY: u16 = 32768;

/// The packets that a flow applies to: those that agree with `value` in the bits of `mask`.
///
/// Here, and while tables are looked up, a key's `in_port` is the OpenFlow number in the bridge and
/// not the datapath's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// Zero in all bits outside `mask`.
    pub value: FlowKey,
    pub mask: FlowMask,
}

impl Match {
    /// Matches every packet.
    pub fn any() -> Match {
        Match { value: FlowKey::default(), mask: FlowMask::empty() }
    }

    /// True if every packet that matches `self` also matches `wider`.
    pub fn is_within(&self, wider: &Match) -> bool {
        let (m, w) = (self.mask.bits().words(), wider.mask.bits().words());
        m.iter().zip(w).all(|(m, w)| w & !m == 0) && wider.mask.agrees(&self.value, &wider.value)
    }
}

/// How often a flow was used. Lives on while cached megaflows still report to it, and survives a
/// change of the flow's actions.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
}

impl Counts {
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// A flow of a table.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Order of creation, for a stable order of printing.
    pub serial: u64,
    pub priority: u16,
    pub cookie: u64,
    pub matches: Match,
    pub actions: Arc<[OfAction]>,
    pub created_ms: u64,
    pub counts: Arc<Counts>,
}

impl Rule {
    /// True if an action names `port` as its output (`out_port=` of `ovs-ofctl`).
    pub fn outputs_to(&self, port: OfPort) -> bool {
        self.actions.iter().any(|a| match a {
            OfAction::Output(p) => *p == port,
            OfAction::Local => port == OfPort::LOCAL,
            _ => false,
        })
    }
}
