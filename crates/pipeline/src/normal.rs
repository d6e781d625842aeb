//! The NORMAL action: a learning switch (ovs-actions(7), "The OVS Normal Pipeline").
//!
//! Which VLAN a frame is in, and with which tags it leaves, is in [`crate::normal_tags`].

use crate::fdb::{Address, Lesson};
use crate::headers::{Headers, is_ip};
use crate::normal_tags::{Inside, first_id, takes};
use crate::note::NoteKind;
use crate::port::{Port, PortUse};
use crate::tagging::TooMany;
use crate::vlan::PortConfig;
use crate::walk::Walk;
use flow::{FlowKey, Mac, ether_type};
use openflow::OfPort;
use std::sync::Arc;
use zerocopy::big_endian::U32;

/// ARP operations (RFC 826).
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

/// True for addresses that bridges keep to the link: IEEE 802.1D's and vendors' protocols of the
/// same kind (ovs-vswitchd.conf.db(5), `forward-bpdu`).
pub(crate) fn is_reserved(dst: Mac) -> bool {
    match dst.0 {
        // STP, pause, LACP, LLDP and others.
        [0x01, 0x80, 0xc2, 0, 0, last] => last < 0x10,
        // Extreme's EDP and EAPS.
        [0x00, 0xe0, 0x2b, 0, 0, last] => matches!(last, 0x00 | 0x04 | 0x06),
        // Cisco's ISL; CDP, VTP, PVST+ and their neighbours; uplink fast.
        [0x01, 0x00, 0x0c, 0, 0, 0] | [0x01, 0x00, 0x0c, 0xcd, 0xcd, 0xcd] => true,
        [0x01, 0x00, 0x0c, 0xcc, 0xcc, last] => {
            matches!(last, 0xc0..=0xc7 | 0xcc | 0xcd)
        }
        _ => false,
    }
}

/// True for an ARP broadcast that announces its sender: any reply, or a request for its own address.
fn is_gratuitous_arp(h: &mut Headers) -> bool {
    // A packet whose label was just popped is not known to be ARP: its type was said by the flow.
    if h.dl_type() != ether_type::ARP || h.pkt().dl_dst != Mac::BROADCAST || h.now.was_mpls {
        return false;
    }
    h.depend(&FlowKey { nw_proto: 0xff, ..FlowKey::default() });
    match h.pkt().nw_proto {
        ARP_REPLY => true,
        ARP_REQUEST => {
            let all = U32::new(u32::MAX);
            h.depend(&FlowKey { nw_src: all, nw_dst: all, ..FlowKey::default() });
            h.pkt().nw_src == h.pkt().nw_dst
        }
        _ => false,
    }
}

impl Walk<'_> {
    /// Runs NORMAL.
    #[inline(never)]
    pub fn normal(&mut self) {
        let from = self.port(self.in_port());
        if from.is_none() && !matches!(self.in_port(), OfPort::NONE | OfPort::CONTROLLER) {
            let port = self.in_port();
            self.note(NoteKind::Error, || format!("received packet on unknown port {port}"));
            return self.warn("no input bundle, dropping");
        }
        if self.h.tag_cut_short() {
            return self.warn("partial VLAN tag, dropping");
        }
        let (dst, src) = self.h.addresses();
        if self.bridge.is_mirror_output(self.in_port()) {
            return self.warn("input port is mirror output port, dropping");
        }
        let id = first_id(&mut self.h);
        // Whatever comes from a controller is as from a trunk of all VLANs.
        let trunk = PortConfig::default();
        let settings = from.map_or(&trunk, |p| &p.config);
        if !takes(settings, id) {
            return self.warn("disallowed VLAN VID for this input port, dropping");
        }
        let inside = Inside::new(&mut self.h, settings, id, self.bridge.config.vlan_limit);
        let vlan = inside.vlan;
        if !self.bridge.config.forward_bpdu && is_reserved(dst) {
            return self.detail("packet has reserved destination MAC, dropping");
        }
        let learns = !self.bridge.config.flood_vlans.has(vlan);
        if let Some(from) = from.filter(|_| learns && !src.is_multicast()) {
            let gratuitous_arp = is_gratuitous_arp(&mut self.h);
            let address = Address { vlan, mac: src };
            if self.notes.is_some() && self.side_effects {
                self.note_lesson(address, from);
            }
            self.caused.lesson(
                &self.bridge.fdb,
                Lesson { address, port: from.id, gratuitous_arp, bond: false },
            );
        }
        if let Some(mdb) = &self.bridge.mdb
            && dst.is_multicast()
            && dst != Mac::BROADCAST
            && is_ip(self.h.dl_type())
        {
            return self.multicast(mdb, &inside);
        }
        if dst.is_multicast() || !learns {
            self.detail("no learned MAC for destination, flooding");
            return self.flood_vlan(&inside);
        }
        // It is known from this very packet by now, as in OVS.
        if src == dst && from.is_some() && self.side_effects {
            return self.detail("learned port is input port, dropping");
        }
        // The lock is let go before anything else is done.
        let found = self.bridge.fdb.lock().lookup(Address { vlan, mac: dst });
        match found {
            None => {
                self.detail("no learned MAC for destination, flooding");
                self.flood_vlan(&inside);
            }
            Some((id, _)) if from.is_some_and(|f: &Arc<Port>| f.id == id) => {
                self.detail("learned port is input port, dropping");
            }
            Some((_, number)) => {
                self.detail("forwarding to learned port");
                if let Some(port) = self.port(number) {
                    self.forward(&inside, port);
                }
            }
        }
    }

    /// Says that an address will be learned, if it is not known to be there already.
    fn note_lesson(&mut self, address: Address, from: &Port) {
        let known = self.bridge.fdb.lock().lookup(address);
        if known.is_none_or(|(id, _)| id != from.id) {
            self.note(NoteKind::Detail, || {
                let Address { vlan, mac } = address;
                format!("learned that {mac} is on port {} in VLAN {vlan}", from.name)
            });
        }
    }

    /// To all ports that carry the frame's VLAN, but the one that it came in by.
    pub(crate) fn flood_vlan(&mut self, inside: &Inside) {
        let (bridge, from) = (self.bridge, self.in_port());
        for port in bridge.ports.by_number.values().filter(|p| p.number != from) {
            let open = !bridge.is_mirror_output(port.number) && !port.usage.has(PortUse::NO_FLOOD);
            if open && inside.reaches(&mut self.h, &port.config) {
                self.forward(inside, port);
            }
        }
    }

    /// To a port, with the tags that it leaves that port with.
    pub(crate) fn forward(&mut self, inside: &Inside, port: &Port) {
        let Some(tags) = inside.leaving(&mut self.h, &port.config) else {
            return self.send(port.number);
        };
        let saved = self.h.save();
        match inside.put(&mut self.h, tags) {
            Ok(()) => self.send(port.number),
            Err(TooMany) => self.warn("Too many VLAN tags"),
        }
        self.h.restore(&saved);
    }
}
