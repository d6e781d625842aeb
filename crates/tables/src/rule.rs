//! One OpenFlow flow: what it matches, what it does, and how often it was used.

use crate::shape::Shape;
use crate::timeout::Shortened;
use flow::Seen;
use openflow::{Action, FlowMod, FullKey, Match, OfPort};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

/// What was asked for with a flow. `no_packet_counts` and `no_byte_counts` allow the switch not to count
/// (OpenFlow 1.3, A.3.4.1); as OVS, this one counts all the same and shows the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are ovs-ofctl(8)'s")]
pub struct RuleFlags {
    pub send_flow_rem: bool,
    pub check_overlap: bool,
    pub reset_counts: bool,
    pub no_packet_counts: bool,
    pub no_byte_counts: bool,
}

impl RuleFlags {
    pub(crate) fn of(m: &FlowMod) -> RuleFlags {
        RuleFlags {
            send_flow_rem: m.send_flow_rem,
            check_overlap: m.check_overlap,
            reset_counts: m.reset_counts,
            no_packet_counts: m.no_packet_counts,
            no_byte_counts: m.no_byte_counts,
        }
    }
}

/// How often a flow was used. Lives on while cached megaflows still report to it, and survives a
/// change of the flow's actions.
#[derive(Debug)]
pub struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    used_ms: AtomicU64,
}

impl Counts {
    pub(crate) fn new(now_ms: u64) -> Counts {
        Counts {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            used_ms: AtomicU64::new(now_ms),
        }
    }

    /// Adds packets that matched. The time of the last one never goes back.
    pub fn add(&self, seen: &Seen) {
        if seen.packets == 0 {
            return;
        }
        self.packets.fetch_add(seen.packets, Relaxed);
        self.bytes.fetch_add(seen.bytes, Relaxed);
        self.used_ms.fetch_max(seen.now_ms, Relaxed);
    }

    /// Packets that matched.
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// When the last one came, or else when the flow did, in milliseconds.
    pub fn used_ms(&self) -> u64 {
        self.used_ms.load(Relaxed)
    }
}

/// A flow of a table.
#[derive(Debug)]
pub struct Rule {
    /// Order of creation, for a stable order of printing.
    pub serial: u64,
    /// Cookie.
    pub cookie: u64,
    /// When it was added, in milliseconds.
    pub created_ms: u64,
    /// When its actions were given, in milliseconds.
    pub modified_ms: u64,
    /// Its table.
    pub table: u8,
    /// Higher ones win.
    pub priority: u16,
    /// The least important is evicted first.
    pub importance: u16,
    /// What was asked for with it.
    pub flags: RuleFlags,
    /// True if its actions are `conjunction(…)`: it is a part of matches and never matches itself.
    pub conjunctive: bool,
    /// What its packets get.
    pub actions: Arc<[Action]>,
    /// How often it was used.
    pub counts: Arc<Counts>,
    pub(crate) shape: Arc<Shape>,
    pub(crate) value: Box<[u64]>,
    idle_timeout: AtomicU16,
    hard_timeout: AtomicU16,
    shortened: Arc<Shortened>,
}

/// What a new flow has from where it is put.
pub(crate) struct Birth {
    pub serial: u64,
    pub table: u8,
    pub now_ms: u64,
    pub shape: Arc<Shape>,
    pub actions: Arc<[Action]>,
    pub shortened: Arc<Shortened>,
}

impl Rule {
    /// A new flow as `m` asks for.
    pub(crate) fn new(m: &FlowMod, birth: Birth) -> Rule {
        Rule {
            serial: birth.serial,
            cookie: m.new_cookie.unwrap_or(0),
            created_ms: birth.now_ms,
            modified_ms: birth.now_ms,
            table: birth.table,
            priority: m.priority,
            importance: m.importance,
            flags: RuleFlags::of(m),
            conjunctive: is_conjunctive(&m.actions),
            actions: birth.actions,
            counts: Arc::new(Counts::new(birth.now_ms)),
            value: birth.shape.value(&m.matches.value),
            shape: birth.shape,
            idle_timeout: AtomicU16::new(m.idle_timeout),
            hard_timeout: AtomicU16::new(m.hard_timeout),
            shortened: birth.shortened,
        }
    }

    /// The same flow with what a modification changes.
    pub(crate) fn modified(
        &self,
        actions: Arc<[Action]>,
        cookie: Option<u64>,
        now_ms: u64,
    ) -> Rule {
        Rule {
            serial: self.serial,
            cookie: cookie.unwrap_or(self.cookie),
            created_ms: self.created_ms,
            modified_ms: now_ms,
            table: self.table,
            priority: self.priority,
            importance: self.importance,
            flags: self.flags,
            conjunctive: is_conjunctive(&actions),
            actions,
            counts: Arc::clone(&self.counts),
            shape: Arc::clone(&self.shape),
            value: self.value.clone(),
            idle_timeout: AtomicU16::new(self.idle_timeout()),
            hard_timeout: AtomicU16::new(self.hard_timeout()),
            shortened: Arc::clone(&self.shortened),
        }
    }

    /// Which packets.
    pub fn matches(&self) -> Match {
        self.shape.matching(&self.value)
    }

    /// True if a packet matches.
    pub fn agrees(&self, key: &FullKey) -> bool {
        self.shape.agrees(key, &self.value)
    }

    /// Seconds without a packet after which it is removed; 0 for never.
    pub fn idle_timeout(&self) -> u16 {
        self.idle_timeout.load(Relaxed)
    }

    /// Seconds after which it is removed; 0 for never.
    pub fn hard_timeout(&self) -> u16 {
        self.hard_timeout.load(Relaxed)
    }

    /// `fin_timeout`: makes the timeouts shorter; 0 leaves one as it is. Changes nothing if they are
    /// shorter already.
    pub fn shorten(self: &Arc<Rule>, idle: u16, hard: u16) {
        let idle = reduce(&self.idle_timeout, idle);
        if reduce(&self.hard_timeout, hard) || idle {
            self.shortened.note(self);
        }
    }

    /// When and why it ends if no packet comes, in milliseconds.
    pub(crate) fn end(&self) -> Option<(u64, crate::Reason)> {
        let at = |from: u64, seconds: u16, reason| {
            let end = from.saturating_add(u64::from(seconds) * 1000);
            (seconds != 0).then_some((end, reason))
        };
        let hard = at(self.modified_ms, self.hard_timeout(), crate::Reason::HardTimeout);
        let idle = at(self.counts.used_ms(), self.idle_timeout(), crate::Reason::IdleTimeout);
        match (hard, idle) {
            (Some(h), Some(i)) => Some(if i.0 < h.0 { i } else { h }),
            (h, i) => h.or(i),
        }
    }

    /// True if one of its actions outputs to `port` (`out_port=` of `ovs-ofctl`).
    pub fn outputs_to(&self, port: OfPort) -> bool {
        any_action(&self.actions, &|a| match a {
            // As in OVS, an output that cuts the packet is not found by its port.
            Action::Output { port: p, max_len: None } | Action::Enqueue { port: p, .. } => {
                *p == port
            }
            Action::Controller(_) => port == OfPort::CONTROLLER,
            _ => false,
        })
    }

    /// True if one of its actions uses `group` (`out_group=` of `ovs-ofctl`).
    pub fn uses_group(&self, group: u32) -> bool {
        any_action(&self.actions, &|a| matches!(a, Action::Group(g) if *g == group))
    }

    /// True if one of its actions uses `meter`.
    pub fn uses_meter(&self, meter: u32) -> bool {
        any_action(&self.actions, &|a| matches!(a, Action::Meter(m) if *m == meter))
    }

    /// True if one of its actions uses a meter.
    pub(crate) fn uses_meters(&self) -> bool {
        any_action(&self.actions, &|a| matches!(a, Action::Meter(_)))
    }
}

fn is_conjunctive(actions: &[Action]) -> bool {
    actions.iter().any(|a| matches!(a, Action::Conjunction { .. }))
}

/// True if `test` is true of an action or of one inside it. Nesting is bounded where actions are read.
pub(crate) fn any_action(actions: &[Action], test: &impl Fn(&Action) -> bool) -> bool {
    actions.iter().any(|a| {
        test(a)
            || match a {
                Action::WriteActions(inner) | Action::Clone(inner) => any_action(inner, test),
                Action::Ct(ct) => any_action(&ct.exec, test),
                _ => false,
            }
    })
}

/// Reduces a timeout; false if there was nothing to reduce.
fn reduce(timeout: &AtomicU16, to: u16) -> bool {
    let less = |t| (to != 0 && (t == 0 || to < t)).then_some(to);
    timeout.fetch_update(Relaxed, Relaxed, less).is_ok()
}
