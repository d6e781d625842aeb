//! Mirrors: copies of what comes and goes by selected ports or in selected VLANs, sent to a port or
//! into a VLAN (ovs-vswitchd.conf.db(5), "Mirror Table").
//!
//! A packet goes to a mirror once at most, whatever becomes of it, and to one of those that have the
//! same output. Nothing but copies leaves a mirror's output port by NORMAL.

use crate::bridge::Bridge;
use crate::normal::is_reserved;
use crate::normal_tags::{Inside, first_id, takes};
use crate::port::{OfPort, Port, PortUse};
use crate::vlan::VlanSet;
use crate::walk::Walk;
use flow::{DL_TYPE_NONE, Mac, Seen};
use openflow::Match;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mirrors of a bridge: a bit each in what a walk remembers (and as in OVS).
pub const MAX_MIRRORS: usize = 32;

/// Where the spanning tree's frames go (IEEE 802.1D, 7.12.3).
const STP: Mac = Mac([1, 0x80, 0xc2, 0, 0, 0]);

/// Ports that a mirror selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// `select_all`.
    All,
    /// By OpenFlow number.
    Ports(BTreeSet<OfPort>),
}

impl Selected {
    fn has(&self, port: OfPort) -> bool {
        match self {
            Selected::All => true,
            Selected::Ports(ports) => ports.contains(&port),
        }
    }
}

/// Where a mirror sends its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorOutput {
    /// `output_port`.
    Port(OfPort),
    /// `output_vlan`: all ports that carry it (RSPAN).
    Vlan(u16),
}

/// A mirror's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// Tells it from others, and keeps its statistics when its settings change.
    pub id: u128,
    /// `select_src_port`: ports whose arriving packets are selected.
    pub src: Selected,
    /// `select_dst_port`: ports whose departing packets are selected.
    pub dst: Selected,
    /// `select_vlan`; all if empty.
    pub vlans: VlanSet,
    /// `filter`: what packets look like that are mirrored, as they are then; all if there is none. Its `in_port`
    /// is not looked at.
    pub filter: Option<Arc<Match>>,
    /// `output_port` or `output_vlan`.
    pub output: MirrorOutput,
    /// Bytes of each packet at most, 14 to 65535.
    pub snaplen: Option<u16>,
}

/// Statistics of a mirror.
#[derive(Debug, Default)]
pub(crate) struct MirrorCounts {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl MirrorCounts {
    pub fn add(&self, seen: &Seen) {
        self.packets.fetch_add(seen.packets, Ordering::Relaxed);
        self.bytes.fetch_add(seen.bytes, Ordering::Relaxed);
    }

    /// Packets and bytes that were selected, before they were cut.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// A mirror of a bridge.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    pub config: MirrorConfig,
    pub counts: Arc<MirrorCounts>,
}

impl Bridge {
    /// Whether the port is kept for what a mirror sends there.
    pub fn is_mirror_output(&self, port: OfPort) -> bool {
        self.mirrors.iter().any(|m| m.config.output == MirrorOutput::Port(port))
    }
}

impl Walk<'_> {
    /// Mirrors a packet that just came in; false if it is to be dropped, because the port receives nothing
    /// or is kept for what a mirror sends there.
    pub fn arrives(&mut self) -> bool {
        if !self.is_received() {
            return false;
        }
        if self.bridge.is_mirror_output(self.in_port()) {
            self.error("dropping packet received on port reserved exclusively for mirroring");
            return false;
        }
        if let Some(port) = self.port(self.in_port()).filter(|_| !self.bridge.mirrors.is_empty()) {
            self.mirror(port, |m| &m.src);
        }
        true
    }

    /// Whether the port that the packet came in by receives such packets.
    fn is_received(&mut self) -> bool {
        let Some(usage) = self.port(self.in_port()).map(|p| p.usage) else { return true };
        let (all, stp) = (usage.has(PortUse::NO_RECEIVE), usage.has(PortUse::NO_RECEIVE_STP));
        let closed = match all == stp {
            true => all,
            false if self.h.dl_type() == DL_TYPE_NONE && self.h.addresses().0 == STP => stp,
            false => all,
        };
        !closed && !usage.has(PortUse::DOWN)
    }

    /// Mirrors a packet that leaves by a port, as it leaves.
    #[inline]
    pub fn mirror_departure(&mut self, port: &Port) {
        if !self.bridge.mirrors.is_empty() {
            self.mirror(port, |m| &m.dst);
        }
    }

    #[inline(never)]
    fn mirror(&mut self, port: &Port, by: fn(&MirrorConfig) -> &Selected) {
        let bridge = self.bridge;
        for (n, mirror) in bridge.mirrors.iter().enumerate() {
            let config = &mirror.config;
            if self.mirrored & 1 << n != 0 || !by(config).has(port.number) {
                continue;
            }
            // What lies below the tags that are read is no tag.
            let limit = bridge.config.vlan_limit;
            let origin = self.h.now.vlan.origin(0);
            let limit = if origin.is_some_and(|o| o >= limit.into()) { 0 } else { limit };
            let id = if limit > 0 { first_id(&mut self.h) } else { 0 };
            if !takes(&port.config, id) {
                return;
            }
            let inside = Inside::new(&mut self.h, &port.config, id, limit);
            if !config.vlans.is_empty() && !config.vlans.has(inside.vlan) {
                continue;
            }
            if config.filter.as_deref().is_some_and(|filter| !self.agrees(filter)) {
                continue;
            }
            for (n, other) in bridge.mirrors.iter().enumerate() {
                self.mirrored |= u32::from(other.config.output == config.output) << n;
            }
            self.caused.mirror(&mirror.counts);
            let before = std::mem::replace(&mut self.snaplen, config.snaplen);
            self.send_copy(&inside, config.output);
            self.snaplen = before;
        }
    }

    /// Whether the packet as it is now is one of those that `filter` matches.
    fn agrees(&mut self, filter: &Match) -> bool {
        self.h.look_up(self.in_port().0.into(), |key, seen| {
            let words = seen.0.words_mut().iter_mut().zip(filter.mask.words());
            words.for_each(|(seen, bits)| *seen |= bits);
            filter.mask.agrees(key, &filter.value)
        })
    }

    fn send_copy(&mut self, inside: &Inside, to: MirrorOutput) {
        let bridge = self.bridge;
        match to {
            MirrorOutput::Port(number) => {
                if let Some(port) = self.port(number) {
                    self.forward(inside, port);
                }
            }
            MirrorOutput::Vlan(vlan) if inside.vlan != vlan => {
                let (dst, _) = self.h.addresses();
                if is_reserved(dst) {
                    return;
                }
                let inside = inside.moved(&mut self.h, vlan);
                for port in bridge.ports.by_number.values() {
                    let open = !bridge.is_mirror_output(port.number);
                    if open && inside.reaches(&mut self.h, &port.config) {
                        self.forward(&inside, port);
                    }
                }
            }
            MirrorOutput::Vlan(_) => {}
        }
    }
}
