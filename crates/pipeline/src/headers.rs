//! The packet as the actions so far have left it, and which bits of the original the answer depends on.
//!
//! # What is tracked
//! - `mask`: bits of the *original* packet that something was decided by.
//! - `now.key`: the packet's fields as they are now.
//! - `now.known`: bits of `now.key` that are the same for every packet that agrees with this one in
//!   `mask`: constants that actions wrote, and what they copied (copying reads the source, so it is in
//!   `mask`). All other bits are still the original's own. Registers, metadata and all else that does
//!   not come from the packet's headers is always known.
//! - `base`: the packet as the datapath will have it after the actions that were emitted so far.
//!
//! # The rule
//! Whoever looks at bits of `now.key` adds those that are not known to `mask` ([`Headers::depend`]).
//! So by induction, packets that agree in `mask` take the same path, have the same known bits, and
//! get the same actions, which is what a megaflow stands for.
//!
//! A field that is only written is not looked at: a datapath `Set` is emitted for each bit that is
//! known and was not ([`Headers::commit`](crate::commit)), unless the bit is in `mask` and the packet
//! has that value already. OVS looks at what it writes, so its megaflows are narrower.
//!
//! VLAN tags and MPLS labels change position when tags are pushed or popped; [`Tags`] leads from where
//! they are to where they were.

use crate::tags::Tags;
use flow::{Action, FlowKey, FlowMask, Mac, Vlan, WORDS, ether_type};
use openflow::{Field, FullKey, FullMask, Subfield, TunnelKey};
use std::mem::{offset_of, size_of};
use zerocopy::big_endian::{U16, U32};

/// Presence bit of a VLAN tag.
pub(crate) const TAG_PRESENT: u16 = 0x1000;
/// All bits of a tag.
pub(crate) const WHOLE_TAG: Vlan = Vlan { tpid: U16::new(u16::MAX), tci: U16::new(u16::MAX) };
/// Where a packet's own fields end in a [`FullKey`].
const PACKET_END: usize = offset_of!(FullKey, pkt) + size_of::<FlowKey>();

/// A key's words, to be changed.
pub(crate) fn words_mut(key: &mut FlowKey) -> &mut [u64; WORDS] {
    zerocopy::transmute_mut!(key)
}

/// True for tags that are there.
pub(crate) fn is_tag(tag: &Vlan) -> bool {
    tag.tci.get() & TAG_PRESENT != 0
}

/// True for the EtherTypes of MPLS.
pub(crate) fn is_mpls(dl_type: u16) -> bool {
    matches!(dl_type, ether_type::MPLS | ether_type::MPLS_MCAST)
}

/// True for the EtherTypes of IPv4 and IPv6.
pub(crate) fn is_ip(dl_type: u16) -> bool {
    matches!(dl_type, ether_type::IPV4 | ether_type::IPV6)
}

/// The packet as it is now: what a clone or a bucket gets a copy of.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    pub key: FullKey,
    pub(crate) known: FlowKey,
    pub(crate) vlan: Tags,
    pub(crate) mpls: Tags,
    /// The last MPLS label was popped: what is behind it was not read yet.
    pub was_mpls: bool,
}

/// The packet as the datapath has it.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub key: FlowKey,
    pub known: FlowKey,
    pub vlan: Tags,
    pub mpls: Tags,
    pub mark: u32,
    pub priority: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Headers {
    pub now: Now,
    pub base: Base,
    pub(crate) mask: FlowKey,
    pub(crate) original: ([Vlan; 2], [U32; flow::MPLS_LABELS]),
    /// Bits of `now.key` that lookups looked at and that are not in `mask` yet; only those of the
    /// packet count.
    seen: FullMask,
    /// Something was written since the last commit.
    pub(crate) dirty: bool,
}

impl Headers {
    /// A packet as it came in. Every megaflow matches the bits of `mask`.
    pub fn new(key: FullKey, mask: &FlowMask) -> Headers {
        let mask = FlowKey { in_port: 0, recirc_id: 0, ..*mask.bits() };
        let base = Base {
            key: key.pkt,
            known: FlowKey::default(),
            vlan: Tags::default(),
            mpls: Tags::default(),
            mark: key.pkt_mark.get(),
            priority: key.skb_priority.get(),
        };
        let now = Now {
            key,
            known: FlowKey::default(),
            vlan: Tags::default(),
            mpls: Tags::default(),
            was_mpls: false,
        };
        let original = (key.pkt.vlan, key.pkt.mpls_lse);
        Headers { now, base, mask, original, seen: FullMask::default(), dirty: false }
    }

    /// The packet's fields as they are now.
    pub fn pkt(&self) -> &FlowKey {
        &self.now.key.pkt
    }

    /// EtherType, which every megaflow matches.
    pub fn dl_type(&self) -> u16 {
        self.now.key.pkt.dl_type.get()
    }

    /// The bits of the original packet that were looked at, to be asked for once.
    pub fn mask(&mut self) -> FlowMask {
        self.flush();
        // Whoever looks at part of a tag depends on there being one.
        for tag in &mut self.mask.vlan {
            if tag.tci.get() != 0 {
                tag.tci = U16::new(tag.tci.get() | TAG_PRESENT);
                tag.tpid = U16::new(u16::MAX);
            }
        }
        let mut out = FlowMask::default();
        let all = words_mut(out.bits_mut()).iter_mut();
        all.zip(self.mask.words()).for_each(|(o, m)| *o |= m);
        out
    }

    /// Bits of the original packet that are looked at, where position does not change.
    pub(crate) fn mask_words(&self) -> &[u64; WORDS] {
        self.mask.words()
    }

    /// True if all bits of the original packet's VLAN tag are looked at.
    pub(crate) fn whole_tag_seen(&self, origin: usize) -> bool {
        self.mask.vlan.get(origin) == Some(&WHOLE_TAG)
    }

    /// Bits that are looked at of the original packet's label.
    pub(crate) fn label_seen(&self, origin: usize) -> u32 {
        self.mask.mpls_lse.get(origin).map_or(0, |l| l.get())
    }

    /// Looks something up by the key as if the packet had come in by `in_port`; `find` adds what it
    /// looks at to its second argument. Of a fragment, first or later, no flow sees ports (OVS
    /// `frags=normal`).
    pub fn look_up<T>(
        &mut self,
        in_port: u32,
        find: impl FnOnce(&FullKey, &mut FullMask) -> T,
    ) -> T {
        let (port, ports) = (self.now.key.in_port, (self.pkt().tp_src, self.pkt().tp_dst));
        self.now.key.in_port = U32::new(in_port);
        let fragment = self.pkt().nw_frag & flow::FRAG_ANY != 0;
        if fragment {
            (self.now.key.pkt.tp_src, self.now.key.pkt.tp_dst) = (U16::ZERO, U16::ZERO);
        }
        let found = find(&self.now.key, &mut self.seen);
        (self.now.key.pkt.tp_src, self.now.key.pkt.tp_dst) = ports;
        self.now.key.in_port = port;
        found
    }

    /// Takes what was looked at into the mask. To be called before the key changes.
    pub(crate) fn flush(&mut self) {
        let seen = std::mem::take(&mut self.seen.0.pkt);
        self.depend(&seen);
    }

    /// The answer depends on these bits of the key as it is now.
    pub fn depend(&mut self, bits: &FlowKey) {
        let mut new = *bits;
        let words = words_mut(&mut new).iter_mut();
        words.zip(self.now.known.words()).for_each(|(n, k)| *n &= !k);
        if self.now.vlan != Tags::default() {
            let at = std::mem::take(&mut new.vlan);
            for (i, tag) in at.iter().enumerate() {
                if let Some(o) = self.now.vlan.origin(i).and_then(|o| new.vlan.get_mut(o)) {
                    *o = *tag;
                }
            }
        }
        if self.now.mpls != Tags::default() {
            let at = std::mem::take(&mut new.mpls_lse);
            for (i, lse) in at.iter().enumerate() {
                if let Some(o) = self.now.mpls.origin(i).and_then(|o| new.mpls_lse.get_mut(o)) {
                    *o = *lse;
                }
            }
        }
        let words = words_mut(&mut self.mask).iter_mut();
        words.zip(new.words()).for_each(|(m, n)| *m |= n);
    }

    /// The answer depends on bits (right-aligned) of a field.
    pub fn depend_on(&mut self, field: &Field, bits: u128) {
        if usize::from(field.at) < PACKET_END {
            field.add_to(&mut self.seen, bits);
        }
    }

    /// Reads part of a field.
    pub fn read(&mut self, part: &Subfield) -> u128 {
        self.depend_on(part.field, part.mask());
        part.get(&self.now.key)
    }

    /// Whether the packet has the header that a field is in.
    pub fn has(&mut self, field: &Field) -> bool {
        field.add_prereqs(&mut self.seen);
        field.is_present(&self.now.key)
    }

    /// Writes bits (right-aligned) of a field. Whether the packet has it was asked before.
    pub fn write(&mut self, field: &'static Field, value: u128, mask: u128) {
        let at = usize::from(field.at);
        if at >= PACKET_END {
            if at >= offset_of!(FullKey, tunnel) {
                self.note_option(at);
            }
            return field.set(&mut self.now.key, value, mask);
        }
        self.flush();
        self.dirty = true;
        let vlan = offset_of!(FullKey, pkt) + offset_of!(FlowKey, vlan);
        match at {
            at if (vlan..vlan + size_of::<[Vlan; 2]>()).contains(&at) => {
                self.write_tag(field, value, mask);
            }
            _ => {
                field.set(&mut self.now.key, value, mask);
                self.know(field, mask);
            }
        }
    }

    /// A tunnel option that is given a value is there.
    fn note_option(&mut self, at: usize) {
        let first = offset_of!(FullKey, tunnel) + offset_of!(TunnelKey, metadata);
        let tunnel = &mut self.now.key.tunnel;
        let (all, each) = (tunnel.metadata.len(), tunnel.metadata[0].len());
        if let Some(n) = at.checked_sub(first).map(|n| n / each).filter(|n| *n < all) {
            tunnel.present.set(tunnel.present.get() | 1 << n);
        }
    }

    /// `delete_field` of a tunnel option.
    pub fn delete_option(&mut self, field: &'static Field) {
        field.set(&mut self.now.key, 0, u128::MAX);
        let first = offset_of!(FullKey, tunnel) + offset_of!(TunnelKey, metadata);
        let tunnel = &mut self.now.key.tunnel;
        let (all, each) = (tunnel.metadata.len(), tunnel.metadata[0].len());
        let n = usize::from(field.at).checked_sub(first).map(|n| n / each);
        if let Some(n) = n.filter(|n| *n < all) {
            tunnel.present.set(tunnel.present.get() & !(1 << n));
        }
    }

    /// Bits of a field are known from now on.
    pub(crate) fn know(&mut self, field: &Field, bits: u128) {
        // The packet's part of `seen` is empty after a flush.
        field.add_to(&mut self.seen, bits);
        let bits = std::mem::take(&mut self.seen.0.pkt);
        let words = words_mut(&mut self.now.known).iter_mut();
        words.zip(bits.words()).for_each(|(k, b)| *k |= b);
    }
}

/// Copies.
impl Headers {
    /// The packet as it is now, to come back to.
    pub fn save(&mut self) -> Box<Now> {
        self.flush();
        Box::new(self.now.clone())
    }

    /// Back to a packet that was saved.
    pub fn restore(&mut self, saved: &Now) {
        self.flush();
        self.now = saved.clone();
        self.dirty = true;
    }

    /// Brings the datapath's packet to what it is here.
    pub fn commit(&mut self, out: &mut Vec<Action>) {
        if self.dirty || self.marks_differ() {
            self.flush();
            crate::commit::commit(self, out);
            self.dirty = false;
        }
    }

    fn marks_differ(&self) -> bool {
        let key = &self.now.key;
        (key.pkt_mark.get(), key.skb_priority.get()) != (self.base.mark, self.base.priority)
    }
}

/// Reads of whole fields that are decided by often.
impl Headers {
    /// Both Ethernet addresses, destination first.
    pub fn addresses(&mut self) -> (Mac, Mac) {
        let both = FlowKey { dl_dst: Mac::BROADCAST, dl_src: Mac::BROADCAST, ..FlowKey::default() };
        self.depend(&both);
        (self.pkt().dl_dst, self.pkt().dl_src)
    }

    /// TTL or hop limit.
    pub fn ttl(&mut self) -> u8 {
        self.depend(&FlowKey { nw_ttl: 0xff, ..FlowKey::default() });
        self.pkt().nw_ttl
    }
}
