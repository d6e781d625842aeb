//! VLAN tags under NORMAL: the VLAN that a frame is in by the port that it came in by, whether a port
//! carries it, and the tags that it leaves that port with (ovs-actions(7), "The OVS Normal Pipeline").
//!
//! Only bits that decide something are looked at: a frame from one trunk to another is forwarded by
//! the ID of its first tag, whatever else its tags say.

use crate::headers::{Headers, TAG_PRESENT, WHOLE_TAG, is_tag};
use crate::tagging::TooMany;
use crate::vlan::{PortConfig, PriorityTags, VlanMode};
use flow::{FlowKey, Vlan, ether_type};
use zerocopy::big_endian::U16;

/// VLAN ID of a tag.
const VID: u16 = 0x0fff;
/// Priority of a tag.
const PCP: u16 = 0xe000;

/// Tags of a frame, first to last.
type Tags = [Option<Tag>; 3];

/// A tag that a frame is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The frame's own, by position.
    Own(u8),
    /// One that is put there.
    New(Vlan),
}

/// The tags of a frame inside the switch, first to last, and what its own are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inside {
    tags: Tags,
    /// Own tags that are read.
    own: u8,
    /// The VLAN that it is in.
    pub vlan: u16,
}

/// Looks at bits of an own tag.
fn bits(h: &mut Headers, at: u8, bits: u16) -> u16 {
    let at = usize::from(at);
    let mut mask = FlowKey::default();
    if let Some(tag) = mask.vlan.get_mut(at) {
        tag.tci = U16::new(bits);
    }
    h.depend(&mask);
    h.pkt().vlan.get(at).map_or(0, |tag| tag.tci.get() & bits)
}

/// Looks at an own tag, or at its absence.
fn whole(h: &mut Headers, at: u8) -> Vlan {
    bits(h, at, TAG_PRESENT);
    let at = usize::from(at);
    let tag = h.pkt().vlan.get(at).copied().unwrap_or_default();
    if !is_tag(&tag) {
        return Vlan::default();
    }
    let mut mask = FlowKey::default();
    if let Some(bits) = mask.vlan.get_mut(at) {
        *bits = WHOLE_TAG;
    }
    h.depend(&mask);
    tag
}

/// The first tag: its ID, 0 if there is no tag.
pub(crate) fn first_id(h: &mut Headers) -> u16 {
    if h.tagged() { bits(h, 0, VID) } else { 0 }
}

/// Whether a port takes a frame whose first tag has this ID (0 without a tag).
pub(crate) fn takes(port: &PortConfig, id: u16) -> bool {
    match port.mode {
        VlanMode::Access => id == 0,
        VlanMode::Trunk => port.trunks.has(id),
        VlanMode::NativeTagged | VlanMode::NativeUntagged => id == 0 || port.trunks.has(id),
        VlanMode::Dot1qTunnel => port.cvlans.has(id),
    }
}

impl Inside {
    /// A frame that came in by a port with these settings, its first tag being of VLAN `id`. No more
    /// than `limit` own tags are read.
    pub fn new(h: &mut Headers, port: &PortConfig, id: u16, limit: u8) -> Inside {
        // Whether there is a tag was looked at for its ID.
        let first = (limit > 0 && is_tag(&h.pkt().vlan[0])).then_some(Tag::Own(0));
        let mut inside =
            Inside { tags: [first, None, None], own: u8::from(first.is_some()), vlan: id };
        let native = match port.mode {
            VlanMode::Access => true,
            VlanMode::NativeTagged | VlanMode::NativeUntagged => id == 0,
            VlanMode::Trunk | VlanMode::Dot1qTunnel => false,
        };
        if first.is_some() && limit > 1 {
            // Whether it is there is looked at when it matters.
            inside.own = 2;
            inside.tags[1] = Some(Tag::Own(1));
        }
        if native {
            let old = if first.is_some() { whole(h, 0) } else { Vlan::default() };
            let tpid = if is_tag(&old) { old.tpid } else { U16::new(ether_type::VLAN) };
            let tci = port.tag | old.tci.get() & PCP | TAG_PRESENT;
            inside.tags[0] = Some(Tag::New(Vlan { tpid, tci: U16::new(tci) }));
            inside.vlan = port.tag;
            if port.mode == VlanMode::Access {
                inside.tags[1] = None;
            }
        }
        if port.mode == VlanMode::Dot1qTunnel {
            let tci = U16::new(port.tag | TAG_PRESENT);
            let tag = Tag::New(Vlan { tpid: U16::new(port.qinq_ethtype), tci });
            inside.tags = [Some(tag), inside.tags[0], inside.tags[1]];
            inside.vlan = port.tag;
        }
        inside
    }

    /// The same frame in another VLAN.
    pub fn moved(&self, h: &mut Headers, vlan: u16) -> Inside {
        let first = match self.tags[0] {
            Some(Tag::Own(at)) => whole(h, at),
            Some(Tag::New(tag)) => tag,
            None => Vlan::default(),
        };
        let tpid = if is_tag(&first) { first.tpid } else { U16::new(ether_type::VLAN) };
        let tci = U16::new(vlan | first.tci.get() & PCP | TAG_PRESENT);
        let [_, second, third] = self.tags;
        Inside { tags: [Some(Tag::New(Vlan { tpid, tci })), second, third], vlan, ..*self }
    }

    /// The ID of the second tag, 0 if there is none.
    fn second_id(&self, h: &mut Headers) -> u16 {
        match self.tags[1] {
            None => 0,
            Some(Tag::Own(at)) => match bits(h, at, TAG_PRESENT) {
                0 => 0,
                _ => bits(h, at, VID),
            },
            Some(Tag::New(tag)) => tag.tci.get() & VID,
        }
    }

    /// Whether a frame that is flooded goes to a port with these settings.
    pub fn reaches(&self, h: &mut Headers, port: &PortConfig) -> bool {
        match port.mode {
            VlanMode::Access => self.vlan == port.tag && self.second_id(h) == 0,
            VlanMode::Dot1qTunnel => self.vlan == port.tag && port.cvlans.has(self.second_id(h)),
            _ => port.trunks.has(self.vlan),
        }
    }

    /// The tags that a frame leaves a port with, unless they are the ones that it has.
    pub fn leaving(&self, h: &mut Headers, port: &PortConfig) -> Option<Tags> {
        let mut tags = self.tags;
        match port.mode {
            VlanMode::Access => tags = [None; 3],
            VlanMode::NativeUntagged if self.vlan == port.tag => tags = [tags[1], tags[2], None],
            VlanMode::Dot1qTunnel => tags = [tags[1], tags[2], None],
            _ => {}
        }
        self.prioritise(h, port.priority_tags, &mut tags);
        let unread = || self.own == 0 && tags == [None; 3];
        (tags[0] != Some(Tag::Own(0)) && !unread()).then_some(tags)
    }

    /// The first tag gets the priority of the frame's own where the port says so, and one that says
    /// nothing goes.
    fn prioritise(&self, h: &mut Headers, how: PriorityTags, tags: &mut Tags) {
        // Inside, a frame without a tag is one with a tag that says nothing.
        if how != PriorityTags::Never && self.own > 0 && tags[0] != Some(Tag::Own(0)) {
            let priority = bits(h, 0, PCP);
            let first = match tags[0] {
                Some(Tag::Own(at)) => whole(h, at),
                Some(Tag::New(tag)) => tag,
                None => Vlan::default(),
            };
            if is_tag(&first) || priority != 0 {
                let tci = U16::new(first.tci.get() & VID | priority | TAG_PRESENT);
                let tpid = match first.tpid.get() {
                    0 => U16::new(ether_type::VLAN),
                    _ => first.tpid,
                };
                tags[0] = Some(Tag::New(Vlan { tpid, tci }));
            }
        }
        let empty = match tags[0] {
            Some(Tag::Own(at)) => bits(h, at, VID) == 0 && bits(h, at, PCP) == 0,
            Some(Tag::New(tag)) => tag.tci.get() & (VID | PCP) == 0,
            None => false,
        };
        if empty && how != PriorityTags::Always {
            *tags = [tags[1], tags[2], None];
        }
    }

    /// Replaces the frame's tags, but for those at the end that are its own.
    pub fn put(&self, h: &mut Headers, tags: Tags) -> Result<(), TooMany> {
        let new = tags.iter().take_while(|t| !matches!(t, Some(Tag::Own(_)))).flatten();
        let new: Vec<Tag> = new.copied().collect();
        let gone = match tags.get(new.len()) {
            Some(Some(Tag::Own(at))) => *at,
            _ => self.own,
        };
        (0..gone).for_each(|_| h.pop_vlan());
        for tag in new.into_iter().rev() {
            if let Tag::New(tag) = tag {
                h.push_tag(tag)?;
            }
        }
        Ok(())
    }
}
