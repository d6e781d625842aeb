//! The question that the datapath asks of the pipeline, and its answer.

use crate::{Action, FlowKey, FlowMask, Snoop};
use std::sync::Arc;

/// What is to be done with all packets that look like one packet.
#[derive(Clone)]
pub struct Translation {
    /// The bits of the key that the decision looked at. Any packet that agrees in these bits gets
    /// the same actions.
    pub mask: FlowMask,
    /// What to do; empty means drop.
    pub actions: Vec<Action>,
    /// What else packets of this flow cause: flow statistics, addresses learned.
    pub effects: Arc<dyn Effects>,
}

/// Decides about packets. Answering has no side effect, so that the same code serves upcalls,
/// revalidation and tracing; what a packet causes is in [`Translation::effects`].
pub trait Translate: Send + Sync {
    /// Decides what to do with packets like `key`.
    fn translate(&self, key: &FlowKey) -> Translation;

    /// Learns from a packet that was shown by [`Action::Snoop`]. Called by polling threads: it must not
    /// wait for long.
    fn snoop(&self, _: &Snoop, _frame: &[u8], _now_ms: u64) {}

    /// A number that changes whenever an earlier answer may no longer be right.
    fn generation(&self) -> u64;
}

/// Packets of one megaflow, since the last time it was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All TCP flags in them.
    pub tcp_flags: u16,
    /// When the last one came, in milliseconds of a clock that never goes back.
    pub now_ms: u64,
}

/// What packets cause besides being forwarded.
pub trait Effects: Send + Sync {
    /// Tells what was seen. Called by polling threads for a flow's first packet and by the revalidator
    /// afterwards: it must not wait for long.
    fn apply(&self, seen: &Seen);
}
