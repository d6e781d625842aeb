//! One entry of the field registry, and parts of fields. The entries are in `registry.rs`.

use crate::key::{FullKey, FullMask};

/// Whether a field can be matched in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maskable {
    /// The whole field or nothing.
    No,
    /// Any of its bits.
    Bits,
}

/// How a value is written (ovs-fields(7), "Format").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `15`
    Decimal,
    /// `0xf`
    Hex,
    /// `02:00:00:00:00:01`
    Ethernet,
    /// `10.0.0.1`, a prefix mask as `/8`
    Ipv4,
    /// `fe80::1`, a prefix mask as `/64`
    Ipv6,
    /// OpenFlow port, 16 bits
    Port16,
    /// OpenFlow port, 32 bits
    Port32,
    /// `no`, `yes`, `first`, `later`, `not_later`
    Frag,
    /// `+syn-ack`
    TcpFlags,
    /// `+oam`
    TunnelFlags,
    /// `+trk+new`
    CtState,
    /// `(0,0x800)`
    PacketType,
}

/// What a packet must be for the field to exist (ovs-fields(7), "Prerequisites").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ovs-fields(7)'s")]
pub enum Prereq {
    None,
    Ethernet,
    Vlan,
    Arp,
    Ipv4,
    Ipv6,
    /// IPv4 or IPv6
    Ip,
    Mpls,
    Tcp,
    Udp,
    Sctp,
    Icmpv4,
    Icmpv6,
    /// Neighbour solicitation or advertisement
    Nd,
    NdSolicit,
    NdAdvert,
    /// A connection that connection tracking knows
    Ct,
}

/// How a field's value differs from the bits that it is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// It does not.
    Plain,
    /// A part of a VLAN tag: the tag is there once the part is set or matched.
    Tag,
    /// `dl_vlan`: as `Tag`, but setting it to 0xffff removes the tag.
    DlVlan,
    /// A 32-bit port number that is kept in 16 bits: reserved ones have ones above (OpenFlow 1.1,
    /// 5.2.1: OFPP_MAX is 0xffffff00).
    Port32,
}

/// A name in an OXM or NXM class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oxm {
    /// For example `NXM_OF_ETH_SRC`.
    pub name: &'static str,
    /// The class, or 0xffff for an experimenter's.
    pub class: u16,
    /// The number in the class.
    pub number: u8,
    /// Which experimenter, if the class is 0xffff, and else 0.
    pub experimenter: u32,
}

/// A field that flows can match and actions can read or write. There is one of each, in the registry;
/// fields are the same if their addresses are.
#[derive(Debug)]
pub struct Field {
    /// The name that is printed.
    pub name: &'static str,
    /// Another name that is understood.
    pub alias: Option<&'static str>,
    /// Nicira's name and number.
    pub nxm: Option<Oxm>,
    /// OpenFlow's name and number.
    pub oxm: Option<Oxm>,
    /// Where the bytes that hold it begin in a [`FullKey`].
    pub at: u16,
    /// How many bytes these are, 1 to 16.
    pub bytes: u8,
    /// Bits of these bytes below the field's least significant bit.
    pub shift: u8,
    /// Width in bits, 1 to 128: what a [`Subfield`](crate::Subfield) can be part of.
    pub bits: u8,
    /// The bits that a value can have: usually as many as `bits`. `vlan_vid` has one more, which says
    /// that there is a tag, `dl_vlan` has 16 for 0xffff, `nw_tos` has only the upper six.
    pub valid: u128,
    /// Bytes of a value on the wire and in text.
    pub wire: u8,
    /// How the value differs from the bits that it is kept in.
    pub view: View,
    /// Whether it can be matched in part.
    pub maskable: Maskable,
    /// How it is written.
    pub format: Format,
    /// What must be there for it to exist.
    pub prereq: Prereq,
    /// Whether actions may change it.
    pub writable: bool,
}

impl PartialEq for Field {
    fn eq(&self, other: &Field) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for Field {}

/// The bit of a VLAN tag that says that there is one.
const TAG_PRESENT: u128 = 0x1000;
/// The 12 bits of a VLAN ID.
const VLAN_ID: u128 = 0xfff;
/// `dl_vlan` of a packet without a tag (OpenFlow 1.0, OFP_VLAN_NONE).
pub(crate) const DL_VLAN_NONE: u128 = 0xffff;

impl Field {
    /// All bits that its value can have, right-aligned.
    pub fn ones(&self) -> u128 {
        self.valid
    }

    /// Its name in NXM or else OXM, which is how actions print fields; its own name if it has neither.
    pub fn wire_name(&self) -> &'static str {
        self.nxm.or(self.oxm).map_or(self.name, |o| o.name)
    }

    /// Its value in a key, right-aligned.
    pub fn get(&self, key: &FullKey) -> u128 {
        let value = read(key, self) >> self.shift & self.valid;
        match self.view {
            View::DlVlan => value & VLAN_ID,
            View::Port32 if value >= 0xff00 => value | 0xffff_0000,
            _ => value,
        }
    }

    /// Sets the bits of `mask` (right-aligned) to those of `value`.
    pub fn set(&self, key: &mut FullKey, value: u128, mask: u128) {
        let mut mask = mask & self.valid;
        let tag = matches!(self.view, View::Tag | View::DlVlan);
        if self.view == View::DlVlan && value & mask == DL_VLAN_NONE {
            return write(key, self, 0);
        }
        if tag {
            mask &= u128::MAX >> (128 - u32::from(self.bits));
        }
        if mask == 0 {
            return;
        }
        let word = read(key, self) & !(mask << self.shift) | (value & mask) << self.shift;
        write(key, self, if tag { word | TAG_PRESENT } else { word });
    }

    /// Adds the bits of `bits` (right-aligned) to a mask.
    pub fn add_to(&self, mask: &mut FullMask, bits: u128) {
        let bits = match (self.view, bits & self.valid) {
            (View::DlVlan, b) if b != 0 => b & VLAN_ID | TAG_PRESENT,
            (View::Tag, b) if b != 0 => b << self.shift | TAG_PRESENT,
            (_, b) => b << self.shift,
        };
        let word = read(&mask.0, self) | bits;
        write(&mut mask.0, self, word);
    }
}

fn read(key: &FullKey, field: &Field) -> u128 {
    let (at, n) = (usize::from(field.at), usize::from(field.bytes));
    let mut word = [0; 16];
    word[16 - n..].copy_from_slice(&zerocopy::IntoBytes::as_bytes(key)[at..at + n]);
    u128::from_be_bytes(word)
}

/// Bits beyond the bytes that hold the field are dropped.
fn write(key: &mut FullKey, field: &Field, word: u128) {
    let (at, n) = (usize::from(field.at), usize::from(field.bytes));
    let bytes = zerocopy::IntoBytes::as_mut_bytes(key);
    bytes[at..at + n].copy_from_slice(&word.to_be_bytes()[16 - n..]);
}
