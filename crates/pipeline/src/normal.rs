//! The NORMAL action: a learning switch (ovs-actions(7), "The OVS Normal Pipeline").
//!
//! All ports are trunks of all VLANs; frames leave with the tag they came with.

use crate::fdb::{Address, Lesson};
use crate::port::Port;
use crate::translate::Walk;
use flow::{Action, FlowKey, FlowMask, Mac, ether_type};
use zerocopy::big_endian::{U16, U32};

/// VLAN ID and presence of a tag.
const VID_AND_PRESENCE: u16 = 0x1fff;
/// ARP operations (RFC 826).
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

/// True for addresses that bridges keep to the link: IEEE 802.1D's and vendors' protocols of the
/// same kind (ovs-vswitchd.conf.db(5), `forward-bpdu`).
fn is_reserved(dst: Mac) -> bool {
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

/// Where the VLAN of a frame is decided. Looks at the first tag.
fn vlan_of(key: &FlowKey, mask: &mut FlowMask) -> u16 {
    let seen = &mut mask.bits_mut().vlan[0];
    seen.tpid = U16::new(u16::MAX);
    seen.tci = U16::new(seen.tci.get() | VID_AND_PRESENCE);
    key.vlan[0].tci.get() & 0x0fff
}

/// True for an ARP broadcast that announces its sender: any reply, or a request for its own address.
fn is_gratuitous_arp(key: &FlowKey, mask: &mut FlowMask) -> bool {
    if key.dl_type.get() != ether_type::ARP || key.dl_dst != Mac::BROADCAST {
        return false;
    }
    let seen = mask.bits_mut();
    seen.nw_proto = 0xff;
    match key.nw_proto {
        ARP_REPLY => true,
        ARP_REQUEST => {
            seen.nw_src = U32::new(u32::MAX);
            seen.nw_dst = U32::new(u32::MAX);
            key.nw_src == key.nw_dst
        }
        _ => false,
    }
}

impl Walk<'_, '_> {
    /// Runs NORMAL for the packet from `from`.
    pub fn normal(&mut self, from: &Port) {
        let key = self.key;
        self.mask.bits_mut().dl_src = Mac::BROADCAST;
        self.mask.bits_mut().dl_dst = Mac::BROADCAST;
        let vlan = vlan_of(&key, &mut self.mask);
        if !self.bridge.config.forward_bpdu && is_reserved(key.dl_dst) {
            self.note("packet has reserved destination MAC, dropping");
            return;
        }
        if !key.dl_src.is_multicast() {
            self.lesson = Some(Lesson {
                address: Address { vlan, mac: key.dl_src },
                port: from.id,
                gratuitous_arp: is_gratuitous_arp(&key, &mut self.mask),
                bond: false,
            });
        }
        if key.dl_dst.is_multicast() {
            self.note("multicast or broadcast destination, flooding");
            return self.flood(from);
        }
        let address = Address { vlan, mac: key.dl_dst };
        // The lock is let go before anything else is done.
        let found = self.bridge.fdb.lock().lookup(address);
        match found {
            None => {
                self.note("no learned MAC for destination, flooding");
                self.flood(from);
            }
            Some((id, _)) if id == from.id => {
                self.note("learned port is input port, dropping");
            }
            Some((_, number)) => {
                self.note("forwarding to learned port");
                self.output(number, from);
            }
        }
    }

    /// To every port of the bridge but `from`.
    pub fn flood(&mut self, from: &Port) {
        let others = self.bridge.ports.values().filter(|p| p.id != from.id);
        self.actions.extend(others.map(|p| Action::Output(p.dp)));
    }
}
