//! Actions other than plain output, done action by action to sets of packets of one burst.
//!
//! Outputs are collected by port and name packets by index; before a packet changes that waits to be
//! sent, all that wait are sent. So a run of packets that is rewritten and then output, which is the
//! usual case, is still sent as one batch with the rest of the burst.

use crate::output::Sender;
use crate::rewrite::{self, Changes};
use crate::walk::{Context, State};
use crate::{Megaflow, Punted};
use flow::{Action, DpPort, Punt, Snoop, locate};
use packet::{DropReason, Packet, Set};
use std::sync::Arc;

/// How often a packet may be recirculated (OVS `MAX_RECIRC_DEPTH`).
const RECIRC_MAX: u8 = 6;
/// Actions within actions, between two recirculations: more than any pipeline makes, little enough for
/// the stack.
const NESTING_MAX: u8 = 16;

/// Bytes of a packet that the pipeline is shown: a frame of the largest MTU. What is longer is cut, and
/// not believed then.
const SNOOPED_MAX: usize = 9728;

/// How far in the work is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Depth {
    recirculations: u8,
    nesting: u8,
}

impl State {
    /// Does what `flow` says to `set`.
    #[inline(never)]
    pub(crate) fn execute_flow(
        &mut self,
        set: Set,
        flow: Arc<Megaflow>,
        depth: Depth,
        s: &mut Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) {
        if flow.actions.is_empty() {
            c.counters.drops.add(DropReason::Pipeline, set.len() as u64);
        }
        self.run(set, &flow.actions, depth, s, c);
    }

    /// Does `actions` to the packets of `set`.
    pub(crate) fn run(
        &mut self,
        mut set: Set,
        actions: &[Action],
        depth: Depth,
        s: &mut Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) {
        let mut cut = None;
        for (k, action) in actions.iter().enumerate() {
            if set.is_empty() {
                return;
            }
            let last = k + 1 == actions.len();
            match action {
                Action::Output(to) => self.output(set, *to, cut.take(), s),
                Action::Trunc(len) => cut = Some(*len as usize),
                Action::Set(_)
                | Action::PushVlan(_)
                | Action::PopVlan
                | Action::PushMpls { .. }
                | Action::PopMpls { .. }
                | Action::SetPriority(_) => set = self.change(set, action, s),
                Action::Recirc(id) => return self.recirculate(set, *id, depth, s, c),
                Action::Punt(punt) => self.punt(set, punt, cut.take(), s, c),
                Action::Snoop(snoop) => set = self.snoop(set, snoop, s, c),
                Action::Sample { probability, actions } => {
                    let all = *probability == u32::MAX;
                    let chosen = set.filter(|_| all || self.random() < *probability);
                    self.aside(chosen, actions, last, depth, s, c);
                }
                Action::Clone(actions) => self.aside(set, actions, last, depth, s, c),
                Action::CheckLen { limit, greater, less_equal } => {
                    let longer = |i: usize| unpadded(&s.burst.packets()[i]) > usize::from(*limit);
                    let long = set.filter(longer);
                    self.aside(long, greater, last, depth, s, c);
                    self.aside(set.without(long), less_equal, last, depth, s, c);
                }
                // No port sees marks yet, and there are no meters yet.
                Action::SetMark(_) | Action::Meter(_) => {}
            }
        }
    }

    fn output(&mut self, set: Set, to: DpPort, cut: Option<usize>, s: &mut Sender<'_, '_, '_>) {
        let Some(len) = cut else {
            self.outputs.add(to, set, s);
            self.outputs.wait(set);
            return;
        };
        self.settle(set, s);
        let base = self.save(set, s);
        for i in set {
            match s.burst.truncate(i, len) {
                true => self.outputs.add(to, Set::one(i), s),
                false => s.counters.drops.add(DropReason::NoHeadroom, 1),
            }
        }
        self.outputs.flush(s);
        self.restore(set, base, s);
    }

    /// Sends what waits, if any packet of `set` does: they are about to change.
    fn settle(&mut self, set: Set, s: &mut Sender<'_, '_, '_>) {
        if self.outputs.waiting().meets(set) {
            self.outputs.flush(s);
        }
    }

    /// Changes the packets of `set`; returns those that remain.
    fn change(&mut self, set: Set, action: &Action, s: &mut Sender<'_, '_, '_>) -> Set {
        self.settle(set, s);
        let burst = &mut *s.burst;
        let remaining = match action {
            Action::Set(rewrite) => {
                let changes = Changes::new(rewrite);
                set.for_each(|i| changes.apply(burst, i));
                set
            }
            Action::PushVlan(vlan) => {
                set.filter(|i| rewrite::push_vlan(burst.packet_mut(i), *vlan))
            }
            Action::PopVlan => {
                set.for_each(|i| rewrite::pop_vlan(burst.packet_mut(i)));
                set
            }
            Action::PushMpls { ethertype, lse } => {
                set.filter(|i| rewrite::push_mpls(burst, i, *ethertype, *lse))
            }
            Action::PopMpls { ethertype } => {
                set.for_each(|i| rewrite::pop_mpls(burst, i, *ethertype));
                set
            }
            Action::SetPriority(priority) => {
                // Queues of higher numbers cannot be configured.
                let queue = u16::try_from(*priority).unwrap_or(0);
                set.for_each(|i| burst.packet_mut(i).queue = queue);
                set
            }
            _ => set,
        };
        s.counters.drops.add(DropReason::NoHeadroom, set.without(remaining).len() as u64);
        remaining
    }

    /// Does `actions` to packets that then go on as they were, unless that was the last action.
    fn aside(
        &mut self,
        set: Set,
        actions: &[Action],
        last: bool,
        mut depth: Depth,
        s: &mut Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) {
        if depth.nesting == NESTING_MAX {
            c.counters.drops.add(DropReason::NestingTooDeep, set.len() as u64);
            return;
        }
        depth.nesting += 1;
        if last || !actions.iter().any(changes_packet) {
            return self.run(set, actions, depth, s, c);
        }
        let base = self.save(set, s);
        self.run(set, actions, depth, s, c);
        self.settle(set, s);
        self.restore(set, base, s);
    }

    /// Remembers packets as they are; returns where.
    fn save(&mut self, set: Set, s: &mut Sender<'_, '_, '_>) -> usize {
        let base = self.saved.len();
        self.saved.extend(set.map(|i| s.burst.save(i)));
        base
    }

    fn restore(&mut self, set: Set, base: usize, s: &mut Sender<'_, '_, '_>) {
        for (i, saved) in set.zip(&self.saved[base..]) {
            s.burst.restore(i, saved);
        }
        self.saved.truncate(base);
    }

    fn punt(
        &mut self,
        set: Set,
        punt: &Punt,
        cut: Option<usize>,
        s: &mut Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) {
        let max = cut.unwrap_or(usize::MAX).min(punt.max_len.into());
        for i in set {
            let in_port = DpPort(self.packets[i].key.in_port);
            let taken = c.punts.push(|| Punted {
                frame: s.burst.copy_finished(i, max),
                len: s.burst.packets()[i].len(),
                in_port,
                punt: punt.clone(),
            });
            if !taken {
                c.counters.drops.add(DropReason::PuntQueueFull, 1);
            }
        }
    }

    /// Shows packets to the pipeline; returns those that it saw. Each costs its port an upcall, and is
    /// dropped if there is none left.
    fn snoop(
        &mut self,
        set: Set,
        snoop: &Snoop,
        s: &mut Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) -> Set {
        set.filter(|i| {
            let asked = self.take_upcall(self.packets[i].key.in_port, c);
            if asked {
                let frame = s.burst.copy_finished(i, SNOOPED_MAX);
                c.translate.snoop(snoop, &frame, c.now_ms);
            }
            asked
        })
    }

    /// Reads the keys again and does what the flows say that then match.
    fn recirculate(
        &mut self,
        set: Set,
        id: u32,
        mut depth: Depth,
        s: &mut Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) {
        if depth.recirculations == RECIRC_MAX {
            c.counters.drops.add(DropReason::RecircTooDeep, set.len() as u64);
            return;
        }
        depth = Depth { recirculations: depth.recirculations + 1, nesting: 0 };
        c.counters.recirculated.add(set.len() as u64);
        for i in set {
            let in_port = DpPort(self.packets[i].key.in_port);
            self.extract_one(s.burst, i, in_port, id);
        }
        if self.look_up(set, c) > 0 {
            self.upcall(set, s.burst, c);
        }
        let mut rest = set;
        while let Some(first) = rest.first() {
            let number = self.flow_of[first];
            let mut of_run = true;
            let run = rest.filter(|i| {
                of_run &= self.flow_of[i] == number;
                of_run
            });
            rest = rest.without(run);
            if let Some(flow) = self.flow(number) {
                let flow = flow.clone();
                self.count(run, number, &flow, s, c);
                self.execute_flow(run, flow, depth, s, c);
            }
        }
    }

    fn count(
        &self,
        run: Set,
        number: u32,
        flow: &Megaflow,
        s: &Sender<'_, '_, '_>,
        c: &Context<'_>,
    ) {
        let (mut bytes, mut flags) = (0, 0);
        for i in run {
            bytes += s.burst.packets()[i].len() as u64;
            flags |= crate::walk::tcp_flags(&self.packets[i].key);
        }
        if !State::is_passing(number) {
            let (more, more_bytes) = s.burst.more_on_wire(run);
            flow.count(run.len() as u64 + more, bytes + more_bytes, flags, c.now_ms);
        }
    }

    /// The next of a sequence that need not be unpredictable (xorshift).
    fn random(&mut self) -> u32 {
        let mut x = self.random;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        (x >> 32) as u32
    }
}

/// Whether packets are other packets after `action`.
fn changes_packet(action: &Action) -> bool {
    match action {
        Action::Set(_)
        | Action::PushVlan(_)
        | Action::PopVlan
        | Action::PushMpls { .. }
        | Action::PopMpls { .. }
        | Action::SetPriority(_)
        | Action::Recirc(_) => true,
        // Whatever is last in a list is done without a copy.
        Action::Sample { actions, .. } | Action::Clone(actions) => {
            actions.iter().any(changes_packet)
        }
        Action::CheckLen { greater, less_equal, .. } => {
            greater.iter().chain(less_equal).any(changes_packet)
        }
        _ => false,
    }
}

/// Length of a frame without Ethernet's padding behind an IP packet, which `check_pkt_larger` does not
/// count (OVS); of a super-frame, that of its segments.
fn unpadded(packet: &Packet) -> usize {
    if packet.offload.is_super() {
        return packet.offload.longest(packet.len());
    }
    match locate(packet.header(), packet.len()).0.end {
        0 => packet.len(),
        end => end.min(packet.len()),
    }
}

#[cfg(test)]
mod tests;
