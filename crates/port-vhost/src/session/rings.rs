//! The rings of a connected front end: started when all is known of them, stopped, reported.

use super::Session;
use crate::call::Call;
use crate::features::{bit, can_take, has, may_ask};
use crate::message::ProtocolError;
use crate::ring::{AnyRing, Packed, Ring, RingSpec, Split};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use vhost::vhost_user::message::FrontendReq as Req;

/// What a front end said of one ring.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) size: u32,
    /// Descriptor table, driver area, device area, in the front end's addresses.
    pub(super) addrs: Option<[u64; 3]>,
    pub(super) base: u32,
    /// SET_VRING_KICK came since the ring last stopped.
    pub(super) kicked: bool,
    /// What SET_VRING_ENABLE said last.
    pub(super) enabled: Option<bool>,
    pub(super) call: Option<Arc<Call>>,
    pub(super) err: Option<Call>,
    pub(super) running: bool,
}

impl Session<'_> {
    pub(super) fn restart_rings(&mut self) {
        for i in 0..self.rings.len() {
            self.stop(i);
            self.start(i);
        }
        self.changed();
    }

    pub(super) fn is_enabled(&self, i: usize) -> bool {
        let by_default = !has(self.features, bit::PROTOCOL_FEATURES);
        self.rings[i].enabled.unwrap_or(by_default)
    }

    /// Starts ring `i` if all that it needs is known.
    pub(super) fn start(&mut self, i: usize) {
        let s = &self.rings[i];
        let (Some([desc, driver, device]), true, false) = (s.addrs, s.kicked, s.running) else {
            return;
        };
        if s.size == 0 || self.mem.len() == 0 {
            return;
        }
        let modern = has(self.features, bit::VERSION_1);
        let mergeable = has(self.features, bit::MRG_RXBUF);
        let spec = RingSpec {
            size: s.size as u16,
            desc,
            driver,
            device,
            base: s.base,
            event_idx: has(self.features, bit::EVENT_IDX),
            header: if modern || mergeable { 12 } else { 10 },
            mergeable,
            abilities: match super::is_transmit(i) {
                true => may_ask(self.features),
                false => can_take(self.features),
            },
        };
        let call = s.call.clone();
        let mem = self.mem.clone();
        let ring = if has(self.features, bit::RING_PACKED) {
            Packed::new(&spec, &mem).map(|l| AnyRing::Packed(Ring::new(l, mem, &spec, call)))
        } else {
            Split::new(&spec, &mem).map(|l| AnyRing::Split(Ring::new(l, mem, &spec, call)))
        };
        let Some(ring) = ring else {
            let size = spec.size;
            self.shared.warn(format_args!(
                "vring {i} not started: its addresses or size {size} are wrong"
            ));
            return;
        };
        self.rings[i].running = true;
        self.shared.vring(i).replace(Some(ring), self.is_enabled(i));
    }

    /// Stops ring `i`, remembering where it was.
    pub(super) fn stop(&mut self, i: usize) {
        if !self.rings[i].running {
            return;
        }
        match self.shared.vring(i).replace(None, false) {
            Some(ring) => {
                self.rings[i].running = false;
                self.rings[i].base = ring.base();
            }
            // It broke a rule, and only the front end may start it again.
            None => self.report_fault(i),
        }
    }

    pub(super) fn reset(&mut self) {
        for i in 0..self.rings.len() {
            self.stop(i);
            self.shared.vring(i).set_call(None);
            self.shared.vring(i).set_kick(None);
            self.rings[i] = Setup::default();
        }
        self.changed();
    }

    /// Tells of rings that broke a rule.
    pub(super) fn report_faults(&mut self) {
        for i in 0..self.rings.len() {
            self.report_fault(i);
        }
        self.changed();
    }

    /// If ring `i` broke a rule, says so: a log line, a counter, and the front end's error
    /// descriptor. The ring stays stopped until the front end kicks it again.
    pub(super) fn report_fault(&mut self, i: usize) {
        let Some((fault, base)) = self.shared.vring(i).take_fault() else { return };
        self.shared.ring_faults.fetch_add(1, Relaxed);
        self.shared.warn(format_args!("vring {i} disabled: {fault}"));
        let ring = &mut self.rings[i];
        (ring.running, ring.kicked, ring.base) = (false, false, base);
        if let Some(err) = &ring.err {
            err.unblock();
            err.tell();
        }
    }

    /// Publishes which queues there are now.
    pub(super) fn changed(&self) {
        let sizes: Vec<u16> =
            self.rings.iter().map(|r| if r.running { r.size as u16 } else { 0 }).collect();
        let live = |i: usize| self.rings[i].running && self.is_enabled(i);
        let last = |parity| (0..sizes.len()).rev().find(|&i| i % 2 == parity && live(i));
        let rx = last(1).map_or(1, |i| i / 2 + 1);
        let tx = last(0).map_or(0, |i| i / 2 + 1);
        let was = (self.shared.rx_queues.swap(rx, Relaxed), self.shared.node.load(Relaxed));
        let node = self.node().map_or(was.1, |n| n as i32);
        self.shared.node.store(node, Relaxed);
        self.shared.tx_queues.store(tx, Relaxed);
        let mut status = self.shared.status();
        let before = (status.vring_sizes.clone(), status.features, was);
        status.vring_sizes = sizes;
        status.features = self.features;
        let now = (status.vring_sizes.clone(), status.features, (rx, node));
        drop(status);
        if before != now {
            (self.shared.on_change)();
        }
    }

    /// The NUMA node of the first ring that runs, by which the guest's queues are placed.
    fn node(&self) -> Option<usize> {
        let [descriptors, ..] = self.rings.iter().find(|r| r.running)?.addrs?;
        let at = self.mem.user(descriptors, 1)?;
        crate::numa::node_of(std::ptr::NonNull::new(at)?)
    }

    /// Finds a call descriptor that its front end has made blocking again, and frees whoever waits.
    pub(super) fn check_calls(&self) -> Result<(), ProtocolError> {
        let blocking = |i: &usize| self.rings[*i].call.is_some() && self.shared.vring(*i).unblock();
        match (0..self.rings.len()).find(blocking) {
            Some(i) => {
                let what = format!("the call descriptor of vring {i} was made blocking");
                Err(ProtocolError::Value { code: Req::SET_VRING_CALL as u32, what })
            }
            None => Ok(()),
        }
    }
}
