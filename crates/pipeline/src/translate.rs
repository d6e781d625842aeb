//! One packet's way through the tables: from its key to datapath actions, the bits that these
//! depended on, and what its packets cause.
//!
//! The same walk serves upcalls, revalidation and tracing; a trace also listens to its [`Note`]s.

use crate::action::OfAction;
use crate::bridge::{Bridge, SharedFdb};
use crate::fdb::Lesson;
use crate::port::{OfPort, Port};
use crate::rule::{Counts, Rule};
use flow::{Action, Effects, FlowKey, FlowMask, Translation, ether_type};
use std::sync::Arc;
use zerocopy::big_endian::U16;

/// The table that packets enter by.
const FIRST_TABLE: u8 = 0;
/// Presence bit of a VLAN tag.
const TAG_PRESENT: u16 = 0x1000;

/// Something decided on the way, for tracing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A table was looked up.
    Table {
        /// The table.
        table: u8,
        /// Priority and cookie of the flow that matched, if one did.
        flow: Option<(u16, u64)>,
    },
    /// Why the packet goes where it goes.
    Reason(&'static str),
}

/// Listens to a walk.
pub(crate) type Listener<'a> = &'a mut dyn FnMut(Note);

/// A walk under way.
pub(crate) struct Walk<'a, 'l> {
    pub bridge: &'a Bridge,
    /// The packet; `in_port` is the OpenFlow number.
    pub key: FlowKey,
    pub mask: FlowMask,
    pub actions: Vec<Action>,
    pub lesson: Option<Lesson>,
    /// Counts of the flows that matched.
    counts: Vec<Arc<Counts>>,
    listener: Option<Listener<'l>>,
}

/// What packets of one megaflow cause.
#[derive(Debug)]
struct Caused {
    counts: Vec<Arc<Counts>>,
    lesson: Option<(Arc<SharedFdb>, Lesson)>,
}

impl Effects for Caused {
    fn apply(&self, packets: u64, bytes: u64, now_ms: u64) {
        if packets == 0 {
            return;
        }
        for counts in &self.counts {
            counts.add(packets, bytes);
        }
        if let Some((fdb, lesson)) = &self.lesson {
            fdb.change(|fdb| fdb.learn(lesson, now_ms));
        }
    }
}

/// What every megaflow of packets like `key` matches, whatever the tables say: fragments are told
/// apart, as OVS does.
fn first_mask(key: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::default();
    if matches!(key.dl_type.get(), ether_type::IPV4 | ether_type::IPV6) {
        mask.bits_mut().nw_frag = 0xff;
    }
    mask
}

/// A packet that no bridge takes.
pub(crate) fn dropped(key: &FlowKey) -> Translation {
    Translation {
        mask: first_mask(key),
        actions: Vec::new(),
        effects: Arc::new(Caused { counts: Vec::new(), lesson: None }),
    }
}

/// Sends a packet that came in by `from` through the tables of `bridge`.
pub(crate) fn translate(
    bridge: &Bridge,
    from: &Port,
    key: &FlowKey,
    listener: Option<Listener<'_>>,
) -> Translation {
    let mut walk = Walk {
        bridge,
        key: FlowKey { in_port: from.number.0.into(), ..*key },
        mask: first_mask(key),
        actions: Vec::new(),
        lesson: None,
        counts: Vec::new(),
        listener,
    };
    walk.table(FIRST_TABLE, from);
    walk.finish()
}

impl Walk<'_, '_> {
    /// Says why, if somebody listens.
    pub fn note(&mut self, reason: &'static str) {
        if let Some(listener) = &mut self.listener {
            listener(Note::Reason(reason));
        }
    }

    fn table(&mut self, table: u8, from: &Port) {
        let bridge = self.bridge;
        let found = bridge.tables.get(&table);
        let rule = found.and_then(|t| t.lookup(&self.key, &mut self.mask));
        if let Some(listener) = &mut self.listener {
            let flow = rule.map(|r| (r.priority, r.cookie));
            listener(Note::Table { table, flow });
        }
        match rule {
            Some(rule) => self.run(rule, from),
            None => self.note("no flow matches, dropping"),
        }
    }

    fn run(&mut self, rule: &Rule, from: &Port) {
        self.counts.push(Arc::clone(&rule.counts));
        for action in rule.actions.iter() {
            match *action {
                OfAction::Output(number) => self.output(number, from),
                OfAction::Local => self.output(OfPort::LOCAL, from),
                OfAction::InPort => self.actions.push(Action::Output(from.dp)),
                OfAction::Normal => self.normal(from),
                OfAction::Flood | OfAction::All => self.flood(from),
            }
        }
    }

    /// To a port, unless the packet came from there (that needs `in_port`) or it does not exist.
    pub fn output(&mut self, number: OfPort, from: &Port) {
        if number == from.number {
            return self.note("skipping output to input port");
        }
        match self.bridge.ports.get(&number) {
            Some(port) => self.actions.push(Action::Output(port.dp)),
            None => self.note("output to nonexistent port, skipping"),
        }
    }

    fn finish(mut self) -> Translation {
        // Whoever looks at part of a tag depends on there being one.
        for tag in &mut self.mask.bits_mut().vlan {
            if tag.tci.get() != 0 {
                tag.tci = U16::new(tag.tci.get() | TAG_PRESENT);
                tag.tpid = U16::new(u16::MAX);
            }
        }
        let fdb = &self.bridge.fdb;
        Translation {
            mask: self.mask,
            actions: self.actions,
            effects: Arc::new(Caused {
                counts: self.counts,
                lesson: self.lesson.map(|l| (Arc::clone(fdb), l)),
            }),
        }
    }
}
