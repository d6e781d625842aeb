//! VLAN tags and MPLS labels of a packet: pushed, popped, and changed.

use crate::headers::{Headers, TAG_PRESENT, WHOLE_TAG, is_ip, is_mpls, is_tag};
use flow::{FlowKey, FlowMask, Vlan, ether_type};
use openflow::Field;
use zerocopy::big_endian::{U16, U32};

/// "Bottom of stack" of an MPLS label (RFC 3032).
pub(crate) const BOTTOM: u32 = 0x100;
/// TTL of an MPLS label that is put on a packet without one (OVS).
const MPLS_TTL: u8 = 64;
/// Label "IPv6 explicit null" (RFC 3032, 2.1).
const MPLS_IPV6_NULL: u32 = 2;
/// DSCP in the TOS field.
const DSCP: u8 = 0xfc;
/// All bits of a label stack entry.
const WHOLE_LABEL: U32 = U32::new(u32::MAX);

/// The stack of an operation was too deep to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// VLAN tags.
impl Headers {
    /// Whether there is a tag.
    pub fn tagged(&mut self) -> bool {
        let mut bits = FlowKey::default();
        bits.vlan[0].tci = U16::new(TAG_PRESENT);
        self.depend(&bits);
        is_tag(&self.pkt().vlan[0])
    }

    /// Whether the frame ends within its first tag: it has a tag's EtherType, and no tag was read.
    pub fn tag_cut_short(&mut self) -> bool {
        matches!(self.dl_type(), ether_type::VLAN | ether_type::VLAN_AD) && !self.tagged()
    }

    /// Part of the first tag is written; the tag comes or goes with its presence bit.
    pub fn write_tag(&mut self, field: &'static Field, value: u128, mask: u128) {
        let had = self.tagged();
        if !had {
            // A tag that is not there has no bits but those that were written.
            let known = self.now.known.vlan[0];
            let tag = &mut self.now.key.pkt.vlan[0];
            (tag.tpid, tag.tci) = (tag.tpid & known.tpid, tag.tci & known.tci);
        }
        let before = self.now.key.pkt.vlan[0];
        field.set(&mut self.now.key, value, mask);
        match (had, is_tag(&self.pkt().vlan[0])) {
            (false, false) => self.know(field, mask),
            (false, true) => {
                let tag = self.now.key.pkt.vlan[0];
                self.now.key.pkt.vlan[0] = Vlan::default();
                self.put_tag(tag);
            }
            (true, true) => {
                let known = self.now.known.vlan[0];
                self.know(field, mask);
                let bits = self.now.known.vlan[0].tci.get() & !known.tci.get();
                // The packets of this megaflow have that value already.
                if self.pkt().vlan[0] == before && self.tag_seen(bits) {
                    self.now.known.vlan[0] = known;
                } else {
                    self.replace_tag();
                }
            }
            (true, false) => {
                self.now.key.pkt.vlan[0] = before;
                self.pop_vlan();
            }
        }
    }

    /// True if these bits of the first tag, which is the packet's own, are looked at.
    fn tag_seen(&self, bits: u16) -> bool {
        let own = self.now.vlan.origin(0).and_then(|o| self.mask.vlan.get(o));
        own.is_some_and(|seen| bits & !seen.tci.get() == 0)
    }

    /// The packet's own first tag, which was changed in part, gives way to one that is wholly known.
    fn replace_tag(&mut self) {
        if self.now.vlan.pushed == 0 {
            let mut bits = FlowKey::default();
            bits.vlan[0] = WHOLE_TAG;
            self.depend(&bits);
            self.now.known.vlan[0] = WHOLE_TAG;
            let tpid = &mut self.now.key.pkt.vlan[0].tpid;
            *tpid = if tpid.get() == 0 { U16::new(ether_type::VLAN) } else { *tpid };
            self.now.vlan.popped += 1;
            self.now.vlan.pushed = 1;
        }
    }

    /// Puts a tag in front of the others; a TPID of 0 is taken as 0x8100.
    fn put_tag(&mut self, tag: Vlan) {
        let tpid = match tag.tpid.get() {
            0 => ether_type::VLAN,
            tpid => tpid,
        };
        let now = &mut self.now;
        now.key.pkt.vlan = [Vlan { tpid: U16::new(tpid), ..tag }, now.key.pkt.vlan[0]];
        now.known.vlan = [WHOLE_TAG, now.known.vlan[0]];
        now.vlan.pushed += 1;
        self.dirty = true;
    }

    /// `push_vlan`: a tag of VLAN 0.
    pub fn push_vlan(&mut self, tpid: u16) -> Result<(), TooMany> {
        self.push_tag(Vlan { tpid: U16::new(tpid), tci: U16::new(TAG_PRESENT) })
    }

    /// Puts a whole tag, which depends on nothing that was not looked at, in front of the others.
    pub fn push_tag(&mut self, tag: Vlan) -> Result<(), TooMany> {
        self.flush();
        if usize::from(self.now.vlan.pushed) >= self.now.key.pkt.vlan.len() {
            return Err(TooMany);
        }
        if !is_tag(&self.pkt().vlan[0]) {
            self.now.key.pkt.vlan[0] = Vlan::default();
        }
        self.put_tag(tag);
        Ok(())
    }

    /// `strip_vlan`.
    pub fn pop_vlan(&mut self) {
        self.flush();
        if !self.tagged() {
            return;
        }
        self.dirty = true;
        let now = &mut self.now;
        now.vlan.pop();
        let last = now.vlan.origin(1).and_then(|o| self.original.0.get(o));
        // What lies below the tags that are read is taken as nothing, as OVS does.
        now.key.pkt.vlan = [now.key.pkt.vlan[1], last.copied().unwrap_or_default()];
        now.known.vlan = [now.known.vlan[1], Vlan::default()];
    }
}

/// MPLS labels.
impl Headers {
    /// Labels on the packet, up to as many as are read; the last of them may not be the bottom.
    fn labels(&mut self) -> usize {
        if !is_mpls(self.dl_type()) {
            return 0;
        }
        for i in 0..flow::MPLS_LABELS {
            let mut bits = FlowKey::default();
            bits.mpls_lse[i] = U32::new(BOTTOM);
            self.depend(&bits);
            if self.pkt().mpls_lse[i].get() & BOTTOM != 0 {
                return i + 1;
            }
        }
        // No bottom: either there are more than are read, or the packet is cut short (as in OVS).
        let mpls_lse = [WHOLE_LABEL; flow::MPLS_LABELS];
        self.depend(&FlowKey { mpls_lse, ..FlowKey::default() });
        self.pkt().mpls_lse.iter().rposition(|lse| lse.get() != 0).map_or(0, |last| last + 1)
    }

    /// `push_mpls`. Everything before must be committed.
    pub fn push_mpls(&mut self, ethertype: u16) -> Result<(), TooMany> {
        self.flush();
        let lse = match self.labels() {
            0 => self.first_label(),
            n if n < flow::MPLS_LABELS => {
                let mut bits = FlowKey::default();
                bits.mpls_lse[0] = WHOLE_LABEL;
                self.depend(&bits);
                self.pkt().mpls_lse[0].get() & !BOTTOM
            }
            _ => return Err(TooMany),
        };
        let now = &mut self.now;
        let [a, b, _] = now.key.pkt.mpls_lse;
        now.key.pkt.mpls_lse = [U32::new(lse), a, b];
        let [a, b, _] = now.known.mpls_lse;
        now.known.mpls_lse = [WHOLE_LABEL, a, b];
        now.key.pkt.dl_type = U16::new(ethertype);
        now.known.dl_type = U16::new(u16::MAX);
        now.mpls.pushed += 1;
        self.dirty = true;
        Ok(())
    }

    /// The label of a packet that had none; what is behind it is no longer to be seen.
    fn first_label(&mut self) -> u32 {
        let (mut tc, mut ttl, mut label) = (0, MPLS_TTL, 0);
        if is_ip(self.dl_type()) {
            self.depend(&FlowKey { nw_tos: DSCP, nw_ttl: 0xff, ..FlowKey::default() });
            tc = self.pkt().nw_tos & DSCP;
            ttl = if self.pkt().nw_ttl == 0 { MPLS_TTL } else { self.pkt().nw_ttl };
        }
        if self.dl_type() == ether_type::IPV6 {
            label = MPLS_IPV6_NULL;
        }
        let pkt = self.now.key.pkt;
        let FlowKey { dl_dst, dl_src, dl_type, vlan, mpls_lse, .. } = pkt;
        self.now.key.pkt =
            FlowKey { dl_dst, dl_src, dl_type, vlan, mpls_lse, ..FlowKey::default() };
        let known = self.now.known;
        let FlowKey { dl_dst, dl_src, dl_type, vlan, mpls_lse, .. } = known;
        let mut all = FlowMask::exact();
        *all.bits_mut() = FlowKey { dl_dst, dl_src, dl_type, vlan, mpls_lse, ..*all.bits() };
        self.now.known = *all.bits();
        // The class has 3 bits: the lower ones of the DSCP (OVS).
        label << 12 | u32::from(tc >> 2 & 7) << 9 | BOTTOM | u32::from(ttl)
    }

    /// `pop_mpls`; nothing for packets without labels. To become something other than MPLS, a packet
    /// loses all its labels (OVS): no receiver could read the rest.
    pub fn pop_mpls(&mut self, ethertype: u16) -> Result<(), TooMany> {
        self.flush();
        let n = self.labels();
        if n == 0 {
            return Ok(());
        }
        if n == flow::MPLS_LABELS && self.pkt().mpls_lse[n - 1].get() & BOTTOM == 0 {
            return Err(TooMany);
        }
        for _ in 0..if is_mpls(ethertype) { 1 } else { n } {
            self.drop_label();
        }
        let now = &mut self.now;
        now.key.pkt.dl_type = U16::new(ethertype);
        now.known.dl_type = U16::new(u16::MAX);
        now.was_mpls |= !is_mpls(ethertype);
        self.dirty = true;
        Ok(())
    }

    fn drop_label(&mut self) {
        let now = &mut self.now;
        now.mpls.pop();
        let last = now.mpls.origin(2).and_then(|o| self.original.1.get(o));
        let [_, a, b] = now.key.pkt.mpls_lse;
        now.key.pkt.mpls_lse = [a, b, last.copied().unwrap_or_default()];
        let [_, a, b] = now.known.mpls_lse;
        now.known.mpls_lse = [a, b, U32::ZERO];
    }
}
