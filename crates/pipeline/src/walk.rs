//! One packet's way through the tables: lists of actions, one inside the other.
//!
//! The same walk serves upcalls, revalidation, packet-outs and tracing, and has no side effect: what
//! packets cause is gathered in [`Caused`]. Recursion is bounded by [`MAX_NESTING`], work by
//! [`MAX_STEPS`].

use crate::bridge::Bridge;
use crate::caused::Caused;
use crate::core::{Core, Snapshot};
use crate::frozen::Todo;
use crate::headers::Headers;
use crate::note::{NoteKind, Notes};
use crate::port::Port;
use crate::tagging::TooMany;
use flow::Action as Step;
use openflow::{Action, OfPort, PortNames, format_actions, format_match};
use std::sync::Arc;
use tables::Rule;
use zerocopy::big_endian::U32;

/// How often tables may be entered from the same or a later table, one inside the other (OVS).
const MAX_DEPTH: u32 = 64;
/// How many lists of actions may be run one inside the other. Each takes up to 4.5 kB of stack in debug
/// builds, and much less in others; threads that translate have 8 MB. OVS has no such limit, but no
/// pipeline is known that nests more than its 254 tables.
const MAX_NESTING: u32 = 512;
/// Table entries and group buckets in all (OVS).
const MAX_RESUBMITS: u32 = 4096;
/// Actions run in all: `check_pkt_larger` runs what follows it twice, so that twenty of them would take
/// a second. No real pipeline comes near.
const MAX_STEPS: u32 = 65_536;
/// Datapath actions in one list (OVS stops at 64 kB, which is 8,000 outputs).
const MAX_ACTIONS: usize = 8192;
/// Values on the stack (OVS stops at 64 kB).
const MAX_STACK: usize = 4096;

/// Why a packet is dropped that is given more headers than fit.
pub(crate) const TOO_MANY_TAGS: &str = "Too many VLAN tags";
pub(crate) const TOO_MANY_LABELS: &str = "Too many MPLS labels";

/// Whether and why the walk goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It goes on.
    No,
    /// `exit`.
    Exit,
    /// The packet must be read again; what is left to do is kept.
    Freezing,
    /// The packet is dropped: why.
    Failed(&'static str),
}

/// Which flow's actions are being run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub table: u8,
    pub rule: Option<&'a Arc<Rule>>,
}

impl Place<'_> {
    /// Cookie of the flow; all ones if there is none (OVS).
    pub fn cookie(&self) -> u64 {
        self.rule.map_or(u64::MAX, |r| r.cookie)
    }
}

/// Why actions are run, which decides the reason that controllers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Within {
    pub action_set: bool,
    pub bucket: bool,
    pub packet_out: bool,
}

/// A walk under way.
pub(crate) struct Walk<'a> {
    pub core: &'a Arc<Core>,
    pub snapshot: &'a Snapshot,
    pub bridge: &'a Bridge,
    pub h: Headers,
    /// Datapath actions so far.
    pub out: Vec<Step>,
    pub caused: Caused,
    pub place: Place<'a>,
    pub within: Within,
    /// Queue that the packet came with, to which `pop_queue` goes back.
    pub first_priority: U32,
    pub stop: Stop,
    pub stack: Vec<u128>,
    pub action_set: Vec<Action>,
    /// Mirrors that the packet was sent to, a bit each.
    pub mirrored: u32,
    /// Bytes that outputs are cut to, for a mirror.
    pub snaplen: Option<u16>,
    /// What is left to do when the packet comes back, innermost first.
    pub todo: Vec<Todo>,
    pub depth: u32,
    pub nesting: u32,
    pub resubmits: u32,
    steps: u32,
    pub notes: Option<Notes>,
    /// Whoever asked will apply the effects, which only matters for what is noted.
    pub side_effects: bool,
}

impl<'a> Walk<'a> {
    pub fn new(
        core: &'a Arc<Core>,
        snapshot: &'a Snapshot,
        bridge: &'a Bridge,
        h: Headers,
    ) -> Walk<'a> {
        Walk {
            core,
            snapshot,
            bridge,
            first_priority: h.now.key.skb_priority,
            h,
            out: Vec::with_capacity(4),
            caused: Caused::new(),
            place: Place { table: 0, rule: None },
            within: Within::default(),
            stop: Stop::No,
            stack: Vec::new(),
            action_set: Vec::new(),
            mirrored: 0,
            snaplen: None,
            todo: Vec::new(),
            depth: 0,
            nesting: 0,
            resubmits: 0,
            steps: 0,
            notes: None,
            side_effects: true,
        }
    }

    /// The port that the packet came in by, as actions may have changed it.
    pub fn in_port(&self) -> OfPort {
        OfPort(self.h.now.key.in_port.get() as u16)
    }

    /// A port of the bridge.
    pub fn port(&self, number: OfPort) -> Option<&'a Arc<Port>> {
        self.bridge.ports.by_number.get(&number)
    }

    /// What ports are called in notes.
    fn names(&self) -> &'a dyn PortNames {
        match self.notes.as_ref().is_some_and(|n| n.named) {
            true => self.bridge,
            false => &(),
        }
    }

    /// Sends the packet through a table and all that it leads to.
    pub fn table(&mut self, table: u8, in_port: OfPort) {
        if !self.may_enter() {
            return;
        }
        let tables = &self.bridge.tables;
        let find = |key: &_, seen: &mut _| tables.lookup(table, key, seen);
        let rule: Option<&'a Arc<Rule>> = self.h.look_up(in_port.0.into(), find);
        self.caused.table(tables.counters(table), rule.is_some());
        let Some(rule) = rule else {
            self.open(NoteKind::Table, || format!("{table:2}. No match."));
            self.note(NoteKind::Action, || "drop".to_owned());
            return self.close();
        };
        let names = self.names();
        self.open(NoteKind::Table, || describe(rule, names));
        self.caused.rule(rule);
        let deeper = u32::from(self.place.rule.is_some() && table <= self.place.table);
        let before = std::mem::replace(&mut self.place, Place { table, rule: Some(rule) });
        self.resubmits += 1;
        self.depth += deeper;
        self.run(&rule.actions);
        self.depth -= deeper;
        self.place = before;
        self.close();
    }

    /// Whether another table or group can be entered.
    pub fn may_enter(&mut self) -> bool {
        let why = if self.depth >= MAX_DEPTH {
            self.note(NoteKind::Error, || format!("over max translation depth {MAX_DEPTH}"));
            "Recursion too deep"
        } else if self.nesting >= MAX_NESTING {
            self.note(NoteKind::Error, || format!("over {MAX_NESTING} nested lists of actions"));
            "Recursion too deep"
        } else if self.resubmits >= MAX_RESUBMITS {
            self.note(NoteKind::Error, || format!("over {MAX_RESUBMITS} resubmit actions"));
            "Too many resubmits"
        } else if self.out.len() > MAX_ACTIONS {
            self.error("resubmits yielded over 64 kB of actions");
            self.stop = Stop::Exit;
            return false;
        } else if self.stack.len() > MAX_STACK {
            self.error("resubmits yielded over 64 kB of stack");
            "Stack too deep"
        } else {
            return true;
        };
        self.stop = Stop::Failed(why);
        false
    }

    /// Runs a list of actions, or as much of it as is run now.
    pub fn run(&mut self, actions: &[Action]) {
        if actions.is_empty() {
            self.note(NoteKind::Action, || "drop".to_owned());
        }
        self.nesting += 1;
        for (i, action) in actions.iter().enumerate() {
            self.count_step();
            if self.stop != Stop::No {
                break;
            }
            if self.h.now.was_mpls && !is_outer(action) {
                self.stop = Stop::Freezing;
                self.postpone(&actions[i..]);
                break;
            }
            let names = self.names();
            self.note(NoteKind::Action, || format_actions(std::slice::from_ref(action), names));
            let over = self.step(action, &actions[i + 1..]);
            if self.stop == Stop::Freezing {
                self.postpone(&actions[i + 1..]);
            }
            if over {
                break;
            }
        }
        self.nesting -= 1;
    }

    /// Counts work that a packet's way may only have so much of; false if it is too much.
    pub fn count_step(&mut self) -> bool {
        self.steps += 1;
        let fine = self.steps <= MAX_STEPS;
        if !fine {
            self.note(NoteKind::Error, || format!("over {MAX_STEPS} actions"));
            self.stop = Stop::Failed("Too many actions");
        }
        fine
    }

    /// Runs one action, `rest` being what follows it. True if the rest is not to be run.
    fn step(&mut self, action: &Action, rest: &[Action]) -> bool {
        match action {
            Action::Output { port, max_len: None } => self.output(*port),
            Action::Output { port, max_len: Some(n) } => self.output_trunc(*port, *n),
            Action::OutputField { src, max_len } => self.output_field(src, *max_len),
            Action::Controller(c) => self.controller(c),
            Action::Enqueue { port, queue } => self.enqueue(*port, *queue),
            Action::Group(id) => return self.group(*id),
            Action::Bundle(bundle) => self.bundle(bundle),
            Action::Multipath(multipath) => self.multipath(multipath),
            Action::DecTtl(controllers) => return self.dec_ttl(controllers),
            Action::DecMplsTtl => return self.dec_mpls_ttl(),
            Action::PushVlan(tpid) => self.checked(|h| h.push_vlan(*tpid), TOO_MANY_TAGS),
            Action::PushMpls(t) => {
                self.commit();
                self.checked(|h| h.push_mpls(*t), TOO_MANY_LABELS);
            }
            Action::PopMpls(t) => self.checked(|h| h.pop_mpls(*t), TOO_MANY_LABELS),
            Action::StripVlan => self.h.pop_vlan(),
            Action::Resubmit { port, table, .. } => {
                let port = port.filter(|p| *p != OfPort::IN_PORT).unwrap_or_else(|| self.in_port());
                self.table(table.unwrap_or(self.place.table), port);
            }
            Action::GotoTable(table) => self.table(*table, self.in_port()),
            Action::Learn(learn) => {
                // As much work as so many actions.
                self.steps = self.steps.saturating_add(learn.specs.len() as u32);
                self.learn(learn);
            }
            Action::FinTimeout { idle, hard } => {
                if let Some(rule) = self.place.rule {
                    self.caused.fin_timeout(rule, *idle, *hard);
                }
            }
            Action::Push(src) => {
                let value = self.h.read(src);
                self.stack.push(value);
            }
            Action::Pop(dst) => match self.stack.pop() {
                Some(value) => self.assign(dst, value),
                None => self.error("stack underflow"),
            },
            Action::Clone(actions) => self.clone_packet(actions, rest.is_empty()),
            Action::CheckPktLarger { len, dst } => {
                self.check_len(*len, dst, rest);
                return true;
            }
            Action::Exit => self.stop = Stop::Exit,
            Action::ClearActions => self.clear_actions(),
            Action::WriteActions(actions) => self.write_actions(actions),
            Action::Conjunction { .. } => self.warn("executing no-op conjunction action"),
            // Nothing is sampled without a collector (as in OVS), nothing is limited before meters
            // come, and connection tracking is refused when the flow is added.
            Action::Sample(_) | Action::Meter(_) | Action::Note(_) => {}
            Action::Ct(_) | Action::CtClear => {}
            other => self.rewrite(other),
        }
        false
    }

    /// An operation on the packet's tags or labels; too many of them drop the packet.
    fn checked(
        &mut self,
        change: impl FnOnce(&mut Headers) -> Result<(), TooMany>,
        why: &'static str,
    ) {
        if change(&mut self.h).is_err() {
            self.error(why);
            self.stop = Stop::Failed(why);
        }
    }

    /// Brings the datapath's packet to what it is here.
    pub fn commit(&mut self) {
        self.h.commit(&mut self.out);
    }
}

/// Notes.
impl Walk<'_> {
    /// Notes something, if somebody listens.
    #[inline]
    pub fn note(&mut self, kind: NoteKind, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.add(kind, text());
        }
    }

    /// Opens a note that encloses what comes until [`Walk::close`].
    #[inline]
    pub fn open(&mut self, kind: NoteKind, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.open(kind, text());
        }
    }

    pub fn close(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.close();
        }
    }

    pub fn detail(&mut self, text: &str) {
        self.note(NoteKind::Detail, || text.to_owned());
    }

    pub fn warn(&mut self, text: &str) {
        self.note(NoteKind::Warn, || text.to_owned());
    }

    pub fn error(&mut self, text: &str) {
        self.note(NoteKind::Error, || text.to_owned());
    }
}

/// A flow that was found, as `ofproto/trace` says it.
fn describe(rule: &Rule, names: &dyn PortNames) -> String {
    let mut matches = format_match(&rule.matches(), names, None);
    if !matches.is_empty() {
        matches.push_str(", ");
    }
    let cookie = match rule.cookie {
        0 => String::new(),
        cookie => format!(", cookie {cookie:#x}"),
    };
    format!("{:2}. {matches}priority {}{cookie}", rule.table, rule.priority)
}

/// True for actions that do not need what lies behind a label that was popped (as in OVS).
fn is_outer(action: &Action) -> bool {
    match action {
        Action::Output { port, .. } => *port != OfPort::TABLE,
        Action::OutputField { .. }
        | Action::Enqueue { .. }
        | Action::Group(_)
        | Action::SetVlanVid(_)
        | Action::SetVlanPcp(_)
        | Action::SetEthSrc(_)
        | Action::SetEthDst(_)
        | Action::SetTunnel { .. }
        | Action::SetQueue(_) => true,
        Action::SetField { field, .. } => crate::rewrite::is_outer_field(field),
        Action::Load { dst, .. } => crate::rewrite::is_outer_field(dst.field),
        _ => false,
    }
}
