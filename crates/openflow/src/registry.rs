//! The fields: one table of all that flows can match and actions can read or write (ovs-fields(7)),
//! except NSH's, which this switch does not read.
//!
//! The order is OVS's own, in which lists of fields are printed.

mod entries;

use crate::field::{Field, Format, Maskable, Oxm, Prereq, View};
use entries::{FIRST, OPTIONS, PACKET, REGS, SECOND, XREGS, XXREGS};
use std::collections::HashMap;
use std::sync::LazyLock;

/// All fields, in OVS's order.
pub fn fields() -> &'static [Field] {
    &FIELDS
}

/// The field with a name: its own, its alias, or that of OXM or NXM.
pub fn field(name: &str) -> Option<&'static Field> {
    static BY_NAME: LazyLock<HashMap<&str, &Field>> = LazyLock::new(|| {
        let wire = |o: Option<Oxm>| o.map(|o| o.name);
        let names = |f: &'static Field| [Some(f.name), f.alias, wire(f.nxm), wire(f.oxm)];
        let all = FIELDS.iter().flat_map(|f| names(f).into_iter().flatten().map(move |n| (n, f)));
        all.chain(SYNONYMS).collect()
    });
    BY_NAME.get(name).copied()
}

/// Register 0 to 15; numbers wrap.
pub fn reg(n: u8) -> &'static Field {
    &FIELDS[REGS_AT + usize::from(n) % REGS.len()]
}

/// `tun_metadata0` to `tun_metadata63`; numbers wrap.
pub fn tun_metadata(n: u8) -> &'static Field {
    &FIELDS[OPTIONS_AT + usize::from(n) % OPTIONS.len()]
}

/// Names that have changed in the life of OpenFlow and OVS.
const SYNONYMS: [(&str, &Field); 3] = [
    ("OXM_OF_ACTSET_OUTPUT", fld::ACTSET_OUTPUT),
    ("OXM_OF_TCP_FLAGS", fld::TCP_FLAGS),
    ("NXOXM_ET_DP_HASH", fld::DP_HASH),
];

/// OXM and NXM classes (OpenFlow 1.5.1, 7.2.3.1 and A; OVS's Nicira extensions).
mod class {
    pub(super) const NXM_OF: u16 = 0x0000;
    pub(super) const NXM_NX: u16 = 0x0001;
    pub(super) const ERICSSON: u16 = 0x1000;
    pub(super) const OPENFLOW: u16 = 0x8000;
    pub(super) const PACKET_REGS: u16 = 0x8001;
    pub(super) const EXPERIMENTER: u16 = 0xffff;
}

/// Experimenters: Open Networking Foundation, Nicira.
const ONF: u32 = 0x4f4e_4600;
const NICIRA: u32 = 0x0000_2320;

impl Field {
    /// A field of `bits` bits in as many bytes as these take, starting at byte `at`; it can neither
    /// be matched in part nor be written, and has no prerequisites.
    pub(super) const fn new(name: &'static str, at: usize, bits: u8, format: Format) -> Field {
        Field {
            name,
            alias: None,
            nxm: None,
            oxm: None,
            at: at as u16,
            bytes: bits.div_ceil(8),
            shift: 0,
            bits,
            valid: u128::MAX >> (128 - bits as u32),
            wire: bits.div_ceil(8),
            view: View::Plain,
            maskable: Maskable::No,
            format,
            prereq: Prereq::None,
            writable: false,
        }
    }

    /// Lies `shift` bits up in `bytes` bytes.
    pub(super) const fn within(self, bytes: u8, shift: u8) -> Field {
        Field { bytes, shift, ..self }
    }

    pub(super) const fn alias(self, name: &'static str) -> Field {
        Field { alias: Some(name), ..self }
    }

    pub(super) const fn nxm(self, name: &'static str, class: u16, number: u8) -> Field {
        Field { nxm: Some(Oxm { name, class, number, experimenter: 0 }), ..self }
    }

    pub(super) const fn oxm(self, name: &'static str, number: u8) -> Field {
        let oxm = Oxm { name, class: class::OPENFLOW, number, experimenter: 0 };
        Field { oxm: Some(oxm), ..self }
    }

    /// An experimenter's name that takes the place of NXM's.
    pub(super) const fn nxm_exp(self, name: &'static str, experimenter: u32, number: u8) -> Field {
        let class = class::EXPERIMENTER;
        Field { nxm: Some(Oxm { name, class, number, experimenter }), ..self }
    }

    /// An experimenter's name that takes the place of OXM's.
    pub(super) const fn oxm_exp(self, name: &'static str, experimenter: u32, number: u8) -> Field {
        let class = class::EXPERIMENTER;
        Field { oxm: Some(Oxm { name, class, number, experimenter }), ..self }
    }

    pub(super) const fn masked(self) -> Field {
        Field { maskable: Maskable::Bits, ..self }
    }

    pub(super) const fn rw(self) -> Field {
        Field { writable: true, ..self }
    }

    pub(super) const fn needs(self, prereq: Prereq) -> Field {
        Field { prereq, ..self }
    }

    pub(super) const fn view(self, view: View) -> Field {
        Field { view, ..self }
    }

    /// Values have these bits, and so many bytes on the wire.
    pub(super) const fn values(self, valid: u128, wire: u8) -> Field {
        Field { valid, wire, ..self }
    }

    /// A copy, for the table alone: everywhere else a field is known by its address.
    const fn entry(&self) -> Field {
        Field { ..*self }
    }
}

const OPTIONS_AT: usize = FIRST.len();
const REGS_AT: usize = OPTIONS_AT + OPTIONS.len() + SECOND.len();
const COUNT: usize = REGS_AT + REGS.len() + XREGS.len() + XXREGS.len() + PACKET.len();

static FIELDS: [Field; COUNT] = join([&FIRST, &OPTIONS, &SECOND, &REGS, &XREGS, &XXREGS, &PACKET]);

const fn join<const PARTS: usize>(parts: [&[Field]; PARTS]) -> [Field; COUNT] {
    let mut all = [const { Field::new("", 0, 1, Format::Hex) }; COUNT];
    let (mut part, mut n) = (0, 0);
    while part < PARTS {
        let mut i = 0;
        while i < parts[part].len() {
            all[n] = parts[part][i].entry();
            i += 1;
            n += 1;
        }
        part += 1;
    }
    assert!(n == COUNT);
    all
}

/// The field called `name`, which must exist.
const fn named(name: &str) -> &'static Field {
    let mut n = 0;
    while n < COUNT {
        if same(FIELDS[n].name.as_bytes(), name.as_bytes()) {
            return &FIELDS[n];
        }
        n += 1;
    }
    panic!("no such field")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

macro_rules! constants {
    ($($id:ident = $name:literal,)+) => {
        /// Fields by name, for code.
        pub mod fld {
            #![expect(missing_docs, reason = "the names are the fields' own")]
            use super::{Field, named};
            $(pub const $id: &Field = named($name);)+
        }
    };
}

constants! {
    DP_HASH = "dp_hash",
    PACKET_TYPE = "packet_type",
    CONJ_ID = "conj_id",
    TUN_ID = "tun_id",
    TUN_SRC = "tun_src",
    TUN_DST = "tun_dst",
    TUN_IPV6_SRC = "tun_ipv6_src",
    TUN_IPV6_DST = "tun_ipv6_dst",
    TUN_FLAGS = "tun_flags",
    TUN_TTL = "tun_ttl",
    TUN_TOS = "tun_tos",
    TUN_GBP_ID = "tun_gbp_id",
    TUN_GBP_FLAGS = "tun_gbp_flags",
    TUN_ERSPAN_IDX = "tun_erspan_idx",
    TUN_ERSPAN_VER = "tun_erspan_ver",
    TUN_ERSPAN_DIR = "tun_erspan_dir",
    TUN_ERSPAN_HWID = "tun_erspan_hwid",
    TUN_GTPU_FLAGS = "tun_gtpu_flags",
    TUN_GTPU_MSGTYPE = "tun_gtpu_msgtype",
    METADATA = "metadata",
    IN_PORT = "in_port",
    IN_PORT_OXM = "in_port_oxm",
    ACTSET_OUTPUT = "actset_output",
    SKB_PRIORITY = "skb_priority",
    PKT_MARK = "pkt_mark",
    CT_STATE = "ct_state",
    CT_ZONE = "ct_zone",
    CT_MARK = "ct_mark",
    CT_LABEL = "ct_label",
    CT_NW_PROTO = "ct_nw_proto",
    CT_NW_SRC = "ct_nw_src",
    CT_NW_DST = "ct_nw_dst",
    CT_IPV6_SRC = "ct_ipv6_src",
    CT_IPV6_DST = "ct_ipv6_dst",
    CT_TP_SRC = "ct_tp_src",
    CT_TP_DST = "ct_tp_dst",
    REG0 = "reg0",
    XREG0 = "xreg0",
    XXREG0 = "xxreg0",
    ETH_SRC = "eth_src",
    ETH_DST = "eth_dst",
    ETH_TYPE = "eth_type",
    VLAN_TCI = "vlan_tci",
    DL_VLAN = "dl_vlan",
    VLAN_VID = "vlan_vid",
    DL_VLAN_PCP = "dl_vlan_pcp",
    VLAN_PCP = "vlan_pcp",
    MPLS_LABEL = "mpls_label",
    MPLS_TC = "mpls_tc",
    MPLS_BOS = "mpls_bos",
    MPLS_TTL = "mpls_ttl",
    IP_SRC = "ip_src",
    IP_DST = "ip_dst",
    IPV6_SRC = "ipv6_src",
    IPV6_DST = "ipv6_dst",
    IPV6_LABEL = "ipv6_label",
    NW_PROTO = "nw_proto",
    NW_TOS = "nw_tos",
    IP_DSCP = "ip_dscp",
    NW_ECN = "nw_ecn",
    NW_TTL = "nw_ttl",
    IP_FRAG = "ip_frag",
    ARP_OP = "arp_op",
    ARP_SPA = "arp_spa",
    ARP_TPA = "arp_tpa",
    ARP_SHA = "arp_sha",
    ARP_THA = "arp_tha",
    TCP_SRC = "tcp_src",
    TCP_DST = "tcp_dst",
    TCP_FLAGS = "tcp_flags",
    UDP_SRC = "udp_src",
    UDP_DST = "udp_dst",
    SCTP_SRC = "sctp_src",
    SCTP_DST = "sctp_dst",
    ICMP_TYPE = "icmp_type",
    ICMP_CODE = "icmp_code",
    ICMPV6_TYPE = "icmpv6_type",
    ICMPV6_CODE = "icmpv6_code",
    ND_TARGET = "nd_target",
    ND_SLL = "nd_sll",
    ND_TLL = "nd_tll",
    ND_RESERVED = "nd_reserved",
    ND_OPTIONS_TYPE = "nd_options_type",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FullKey, FullMask};

    #[test]
    fn every_name_is_one_field() {
        for (n, f) in fields().iter().enumerate() {
            for name in [Some(f.name), f.alias, f.nxm.map(|o| o.name), f.oxm.map(|o| o.name)] {
                let found = name.map(|name| field(name).expect(name));
                assert!(found.is_none_or(|found| found == f), "{name:?}");
            }
            assert!(fields()[..n].iter().all(|g| g.name != f.name), "{}", f.name);
        }
        assert_eq!(field("OXM_OF_TCP_FLAGS"), Some(fld::TCP_FLAGS));
        assert_eq!((field("reg15"), field("reg16")), (Some(reg(15)), None));
        assert_eq!(field("tun_metadata63"), Some(tun_metadata(63)));
    }

    /// What is set is read again, within what the field can have, and changes nothing else.
    #[test]
    fn values_stay_in_their_place() {
        let ones = FullKey::default();
        for f in fields() {
            let mut key = FullKey::default();
            f.set(&mut key, u128::MAX, f.ones());
            let all = f.get(&key);
            let expected = match f.name {
                // All ones is no tag at all.
                "dl_vlan" => 0,
                _ => f.ones(),
            };
            assert_eq!(all, expected, "{}", f.name);
            let mut mask = FullMask::default();
            f.add_to(&mut mask, f.ones());
            assert!(mask.agrees(&key, &mask.apply(&key)) && mask.apply(&key) == key, "{}", f.name);
            f.set(&mut key, 0, f.ones());
            let tag = matches!(f.view, View::Tag | View::DlVlan);
            assert_eq!(key != ones, tag, "{}: a tag stays", f.name);
        }
    }

    #[test]
    fn tags_come_and_go() {
        let mut key = FullKey::default();
        fld::VLAN_PCP.set(&mut key, 3, 7);
        assert_eq!(fld::VLAN_TCI.get(&key), 0x7000);
        fld::DL_VLAN.set(&mut key, 5, 0xffff);
        assert_eq!((fld::VLAN_TCI.get(&key), fld::DL_VLAN.get(&key)), (0x7005, 5));
        assert_eq!(fld::VLAN_VID.get(&key), 0x1005);
        fld::DL_VLAN.set(&mut key, 0xffff, 0xffff);
        assert_eq!(fld::VLAN_TCI.get(&key), 0);
        fld::VLAN_VID.set(&mut key, 6, 0xfff);
        assert_eq!(fld::VLAN_TCI.get(&key), 6, "the presence bit is a part of vlan_vid");
    }

    #[test]
    fn reserved_ports_have_32_bits_in_one_view() {
        let mut key = FullKey::default();
        fld::IN_PORT.set(&mut key, 0xfffe, 0xffff);
        assert_eq!(fld::IN_PORT_OXM.get(&key), 0xffff_fffe);
        fld::IN_PORT_OXM.set(&mut key, 0xffff_fffd, u128::MAX);
        assert_eq!((fld::IN_PORT.get(&key), key.in_port.get()), (0xfffd, 0xfffd));
    }
}
