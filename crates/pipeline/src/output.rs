//! Actions that send the packet somewhere.

use crate::note::NoteKind;
use crate::port::{Port, PortUse};
use crate::walk::{Walk, Within};
use flow::{Action as Step, Punt, PuntReason};
use openflow::{
    Controller, ControllerReason, FullKey, Match, OfPort, Subfield, fields, fld, format_match,
};
use std::mem::offset_of;
use zerocopy::big_endian::U32;

/// The shortest that a packet can be cut to: an Ethernet header.
const MIN_TRUNC: u32 = 14;

impl Walk<'_> {
    /// `output:PORT`, with the meaning of reserved ports.
    pub fn output(&mut self, port: OfPort) {
        match port {
            OfPort::IN_PORT => self.send(self.in_port()),
            OfPort::TABLE => self.table(0, self.in_port()),
            OfPort::NORMAL => self.normal(),
            OfPort::FLOOD => self.flood(|p| !p.usage.has(PortUse::NO_FLOOD)),
            OfPort::ALL => self.flood(|_| true),
            OfPort::CONTROLLER => self.punt(self.reason(), 0, u16::MAX, &[]),
            OfPort::NONE => {}
            port if port == self.in_port() => self.warn("skipping output to input port"),
            port => self.send(port),
        }
    }

    /// To a port, wherever the packet came from.
    pub fn send(&mut self, port: OfPort) {
        match self.port(port) {
            Some(port) => self.emit(port),
            None => self.warn("Nonexistent output port"),
        }
    }

    /// To a port of this bridge: out into the datapath, or through a patch.
    pub fn emit(&mut self, port: &Port) {
        if port.usage.has(PortUse::NO_FORWARD) {
            return self.detail("OFPPC_NO_FWD set, skipping output");
        }
        if port.usage.has(PortUse::DOWN) {
            return self.detail("port is down, skipping output");
        }
        if self.is_protected(port) {
            return self.warn("Flow is between protected ports, skipping output.");
        }
        match &port.patch {
            None => {
                self.commit();
                self.out.extend(self.snaplen.map(|n| Step::Trunc(n.into())));
                self.out.push(Step::Output(port.dp));
                self.mirror_departure(port);
            }
            Some(patch) => {
                self.cross(port, patch);
                self.mirror_departure(port);
            }
        }
    }

    /// Whether this port and the one that the packet came in by are both protected.
    fn is_protected(&self, to: &Port) -> bool {
        to.config.protected && self.port(self.in_port()).is_some_and(|p| p.config.protected)
    }

    /// To these ports of the bridge but the one that the packet came in by.
    fn flood(&mut self, chosen: impl Fn(&Port) -> bool) {
        let (from, bridge) = (self.in_port(), self.bridge);
        for port in bridge.ports.by_number.values().filter(|p| p.number != from && chosen(p)) {
            self.emit(port);
        }
    }

    /// `output(port=PORT,max_len=N)`.
    pub fn output_trunc(&mut self, port: OfPort, max_len: u32) {
        let reserved =
            [OfPort::TABLE, OfPort::NORMAL, OfPort::FLOOD, OfPort::ALL, OfPort::CONTROLLER];
        if reserved.contains(&port) || port == OfPort::NONE {
            let text = || format!("output_trunc does not support port: {port}");
            self.note(NoteKind::Warn, text);
        } else if port == self.in_port() {
            self.warn("skipping output to input port");
        } else if self.port(port).is_none_or(|p| p.patch.is_some()) {
            let text = || format!("output_trunc does not support patch port {port}");
            self.note(NoteKind::Error, text);
        } else {
            self.out.push(Step::Trunc(max_len.max(MIN_TRUNC)));
            self.send(port);
        }
    }

    /// `output:SUBFIELD`.
    pub fn output_field(&mut self, src: &Subfield, max_len: u16) {
        let value = self.h.read(src);
        let Ok(port) = u16::try_from(value) else {
            return self.note(NoteKind::Warn, || format!("output port {value} is out of range"));
        };
        self.note(NoteKind::Detail, || format!("output port is {port}"));
        match OfPort(port) {
            OfPort::CONTROLLER => self.punt(self.reason(), 0, max_len, &[]),
            port => self.output(port),
        }
    }

    /// `enqueue`.
    pub fn enqueue(&mut self, port: OfPort, queue: u32) {
        let before = self.h.now.key.skb_priority;
        self.h.now.key.skb_priority = U32::new(queue);
        match port {
            OfPort::IN_PORT => self.send(self.in_port()),
            port if port == self.in_port() => self.warn("skipping output to input port"),
            port => self.send(port),
        }
        self.h.now.key.skb_priority = before;
    }
}

/// To controllers.
impl Walk<'_> {
    /// `controller(…)`. Waiting for the controller's answer (`pause`) is not known: the packet goes on.
    pub fn controller(&mut self, c: &Controller) {
        let plain = c.id == 0 && c.userdata.is_empty();
        let reason = match c.reason {
            ControllerReason::Action if plain => self.reason(),
            ControllerReason::Action => self.reason_of_rule(),
            ControllerReason::NoMatch => PuntReason::NoMatch,
            ControllerReason::InvalidTtl => PuntReason::InvalidTtl,
            ControllerReason::ActionSet => PuntReason::ActionSet,
            ControllerReason::Group => PuntReason::Group,
            ControllerReason::PacketOut => PuntReason::PacketOut,
        };
        self.punt(reason, c.id, c.max_len, &c.userdata);
        if c.pause {
            self.warn("pause is not supported, the packet goes on");
        }
    }

    /// Why a plain `controller` sends the packet.
    fn reason(&self) -> PuntReason {
        match self.within {
            Within { packet_out: true, .. } => PuntReason::PacketOut,
            Within { bucket: true, .. } => PuntReason::Group,
            Within { action_set: true, .. } => PuntReason::ActionSet,
            _ => self.reason_of_rule(),
        }
    }

    /// The flow that matches all packets with the lowest priority stands for "no flow matches"
    /// (OpenFlow 1.3, 5.4).
    fn reason_of_rule(&self) -> PuntReason {
        let last = |r: &tables::Rule| r.priority == 0 && r.matches().mask.is_empty();
        match self.place.rule.is_some_and(|r| last(r)) {
            true => PuntReason::NoMatch,
            false => PuntReason::Action,
        }
    }

    /// Hands a copy to controllers.
    #[inline(never)]
    pub fn punt(&mut self, reason: PuntReason, controller: u16, max_len: u16, userdata: &[u8]) {
        self.commit();
        self.out.push(Step::Punt(Box::new(Punt {
            reason,
            bridge: self.bridge.id.0,
            controller,
            table: self.place.table,
            cookie: self.place.cookie(),
            max_len,
            in_port: self.in_port().0,
            userdata: userdata.to_vec(),
            metadata: metadata(&self.h.now.key),
        })));
    }
}

/// Registers, metadata and the like that are not zero, as a match; mostly there are none.
fn metadata(key: &FullKey) -> String {
    let first = offset_of!(FullKey, in_port) / size_of::<u64>();
    let ports = 1;
    if key.words()[first + ports..].iter().all(|w| *w == 0) {
        return String::new();
    }
    let mut m = Match::any();
    let end = first * size_of::<u64>();
    let hidden = [fld::IN_PORT, fld::IN_PORT_OXM, fld::ACTSET_OUTPUT, fld::SKB_PRIORITY];
    for field in fields().iter().filter(|f| usize::from(f.at) >= end && !hidden.contains(f)) {
        let value = field.get(key);
        // Registers also are halves and quarters of longer ones, which are not said again.
        if value != 0 && !field.name.starts_with('x') {
            field.set(&mut m.value, value, field.ones());
            field.add_to(&mut m.mask, field.ones());
        }
    }
    format_match(&m, &(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_what_is_not_zero() {
        let mut key = FullKey::new(&flow::FlowKey::default(), 7);
        key.actset_output = U32::new(0xfff7);
        assert_eq!(metadata(&key), "");
        key.regs[3] = U32::new(5);
        key.metadata.set(0x10);
        assert_eq!(metadata(&key), "reg3=0x5,metadata=0x10");
    }
}
