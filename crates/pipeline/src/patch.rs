//! Patch ports: a packet that is sent to one goes on in its peer's bridge, within the same translation, so
//! that a megaflow knows nothing of it.

use crate::note::NoteKind;
use crate::port::{Patch, Port};
use crate::translate::FIRST_TABLE;
use crate::walk::{Stop, Walk};
use openflow::{FullKey, OfPort};
use std::mem::{replace, take};
use zerocopy::big_endian::U32;

impl Walk<'_> {
    /// Sends the packet through the patch that begins at `port`. The other bridge begins with what the
    /// packet itself is: no registers, no metadata, no action set; and whatever becomes of the packet there
    /// is nothing to this bridge (as in OVS).
    #[inline(never)]
    pub fn cross(&mut self, port: &Port, patch: &Patch) {
        let snapshot = self.snapshot;
        let place = snapshot.patches.get(&port.id);
        let found = place.and_then(|(id, number)| {
            let bridge = snapshot.bridges.get(id)?;
            Some((bridge, bridge.ports.by_number.get(number)?))
        });
        let Some((bridge, peer)) = found else { return };
        let Some(other_end) = &peer.patch else { return };
        self.caused.patch(&patch.counts, &other_end.counts);
        self.open(NoteKind::Bridge, || format!("bridge(\"{}\")", bridge.name));
        let here = replace(&mut self.bridge, bridge);
        let now = self.h.save();
        let kept = (take(&mut self.stack), take(&mut self.action_set), take(&mut self.todo));
        let (within, mirrored) = (take(&mut self.within), take(&mut self.mirrored));
        let key = &mut self.h.now.key;
        *key = FullKey {
            pkt_mark: key.pkt_mark,
            skb_priority: key.skb_priority,
            packet_type: key.packet_type,
            ..FullKey::new(&key.pkt, peer.number.0.into())
        };
        key.actset_output = U32::new(OfPort::UNSET.0.into());
        if self.arrives() {
            self.table(FIRST_TABLE, peer.number);
        }
        self.conclude();
        self.close();
        self.h.restore(&now);
        (self.stack, self.action_set, self.todo) = kept;
        (self.within, self.mirrored) = (within, mirrored);
        self.bridge = here;
        self.stop = Stop::No;
    }
}
