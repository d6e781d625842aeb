//! Matches and keys as text: what `ovs-ofctl dump-flows` and `ofproto/trace` print of them.

use super::flags::{self, FlagNames};
use super::values::hex;
use crate::field::Field;
use crate::key::{FullKey, FullMask, TUN_METADATA};
use crate::matching::Match;
use crate::port::PortNames;
use crate::prereq;
use crate::registry::{fld, reg, tun_metadata};
use flow::{DL_TYPE_NONE, FRAG_LATER, MPLS_LABELS, ether_type, ip_proto};

/// Bit of a VLAN tag's control information that says that there is a tag.
const TAG_PRESENT: u16 = 0x1000;
/// Bit of a label stack entry that says that it is the last (RFC 3032).
const MPLS_BOTTOM: u32 = 0x100;

/// `priority` that is not printed.
const DEFAULT_PRIORITY: u16 = crate::flow_mod::DEFAULT_PRIORITY;

/// A match as `dump-flows` prints it: empty if it matches everything. A priority is printed unless it
/// is the default one.
pub fn format_match(m: &Match, names: &dyn PortNames, priority: Option<u16>) -> String {
    let mut out = Words::new(&m.value, &m.mask, names);
    if let Some(priority) = priority.filter(|p| *p != DEFAULT_PRIORITY) {
        out.word(format!("priority={priority}"));
    }
    out.all(None)
}

/// The fields of a packet as the `Flow:` line of `ofproto/trace` prints them. Fields that come from
/// elsewhere than the packet are left out if they are 0. `pkt.recirc_id` may be set here.
pub fn format_key(key: &FullKey, names: &dyn PortNames) -> String {
    let mut mask = packet_mask(key);
    let zero = FullKey::default();
    for field in [fld::METADATA, fld::PKT_MARK, fld::CT_STATE, fld::CT_ZONE, fld::CT_MARK]
        .into_iter()
        .chain([fld::CT_LABEL, fld::SKB_PRIORITY, fld::DP_HASH, fld::PACKET_TYPE])
        .chain((0..16).map(reg))
    {
        if field.get(key) != field.get(&zero) {
            field.add_to(&mut mask, u128::MAX);
        }
    }
    add_tunnel(key, &mut mask);
    add_connection(key, &mut mask);
    let recirc = key.pkt.recirc_id;
    let words = Words { packet: true, ..Words::new(key, &mask, names) };
    words.all((recirc != 0).then_some(recirc))
}

/// The bits of a packet that were looked at, as the `Megaflow:` line of `ofproto/trace` prints them.
/// `pkt.recirc_id` may be set here.
pub fn format_masked(key: &FullKey, mask: &FullMask, names: &dyn PortNames) -> String {
    let mut mask = *mask;
    for (tag, mask) in key.pkt.vlan.iter().zip(&mut mask.0.pkt.vlan) {
        // That there is no tag is not said.
        if tag.tci.get() & TAG_PRESENT == 0 {
            mask.tci = 0.into();
        }
    }
    Words::new(key, &mask, names).all(Some(key.pkt.recirc_id))
}

/// All bits of the headers that a packet has.
fn packet_mask(key: &FullKey) -> FullMask {
    let mut mask = FullMask::default();
    let mut add = |fields: &[&'static Field]| {
        fields.iter().for_each(|f| f.add_to(&mut mask, u128::MAX));
    };
    add(&[fld::IN_PORT, fld::ETH_SRC, fld::ETH_DST, fld::ETH_TYPE, fld::VLAN_TCI]);
    let addresses = [fld::IP_SRC, fld::IP_DST];
    match prereq::ether_type_of(key) {
        ether_type::IPV4 => add(&addresses),
        ether_type::IPV6 => add(&[fld::IPV6_SRC, fld::IPV6_DST, fld::IPV6_LABEL]),
        ether_type::ARP | ether_type::RARP => {
            add(&addresses);
            add(&[fld::ARP_OP, fld::ARP_SHA, fld::ARP_THA]);
        }
        _ => {}
    }
    if prereq::is_ip(key) {
        add(&[fld::NW_PROTO, fld::NW_TOS, fld::NW_ECN, fld::NW_TTL, fld::IP_FRAG]);
        let transport = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP, ip_proto::ICMP];
        let other = [ip_proto::ICMPV6, ip_proto::IGMP];
        let proto = &key.pkt.nw_proto;
        let later = key.pkt.nw_frag & FRAG_LATER != 0;
        if !later && (transport.contains(proto) || other.contains(proto)) {
            add(&[fld::TCP_SRC, fld::TCP_DST]);
        }
        if fld::TCP_FLAGS.is_present(key) {
            add(&[fld::TCP_FLAGS]);
        }
        if fld::ND_TARGET.is_present(key) {
            add(&[fld::ND_TARGET, fld::ND_SLL, fld::ND_TLL]);
        }
    }
    let is_mpls = fld::MPLS_LABEL.is_present(key);
    let ends = key.pkt.mpls_lse.iter().position(|l| l.get() & MPLS_BOTTOM != 0);
    for lse in mask.0.pkt.mpls_lse.iter_mut().take(ends.unwrap_or(MPLS_LABELS) + 1) {
        *lse = if is_mpls { u32::MAX } else { 0 }.into();
    }
    if fld::VLAN_TCI.get(key) != 0 {
        mask.0.pkt.vlan[1].tci = u16::MAX.into();
    }
    mask
}

/// The tunnel's fields, if the packet came through one.
fn add_tunnel(key: &FullKey, mask: &mut FullMask) {
    let (t, m) = (&key.tunnel, &mut mask.0.tunnel);
    if t.id.get() != 0 {
        m.id = u64::MAX.into();
    }
    if t.dst.get() == 0 && t.ipv6_dst == [0; 16] {
        return;
    }
    (m.src, m.dst) = (u32::MAX.into(), u32::MAX.into());
    (m.ipv6_src, m.ipv6_dst) = ([0xff; 16], [0xff; 16]);
    (m.gbp_id, m.gbp_flags, m.erspan_ver) = (u16::MAX.into(), u8::MAX, u8::MAX);
    (m.tos, m.ttl, m.gtpu_flags, m.gtpu_msgtype) = (u8::MAX, u8::MAX, u8::MAX, u8::MAX);
    m.flags = u16::MAX.into();
    m.present = t.present;
    for n in (0..TUN_METADATA).filter(|n| t.present.get() >> n & 1 == 1) {
        m.metadata[n] = [0xff; 8];
    }
}

/// The original direction of a connection, if it is known.
fn add_connection(key: &FullKey, mask: &mut FullMask) {
    if key.ct_nw_proto == 0 {
        return;
    }
    let ports = [fld::CT_NW_PROTO, fld::CT_TP_SRC, fld::CT_TP_DST];
    let addresses = match prereq::ether_type_of(key) {
        ether_type::IPV4 => [fld::CT_NW_SRC, fld::CT_NW_DST],
        _ => [fld::CT_IPV6_SRC, fld::CT_IPV6_DST],
    };
    ports.into_iter().chain(addresses).for_each(|f| f.add_to(mask, u128::MAX));
}

/// What is printed, word by word.
struct Words<'a> {
    key: &'a FullKey,
    mask: &'a FullMask,
    names: &'a dyn PortNames,
    words: Vec<String>,
    /// All of a packet is printed, and not what a flow says of it.
    packet: bool,
}

impl<'a> Words<'a> {
    fn new(key: &'a FullKey, mask: &'a FullMask, names: &'a dyn PortNames) -> Words<'a> {
        Words { key, mask, names, words: Vec::new(), packet: false }
    }

    fn word(&mut self, word: impl Into<String>) {
        self.words.push(word.into());
    }

    /// `name=value`, if a bit of the field is looked at.
    fn field_as(&mut self, name: &str, field: &'static Field) {
        let mask = field.get(&self.mask.0);
        if mask != 0 {
            let text = field.format(field.get(self.key) & mask, mask, self.names);
            self.word(format!("{name}={text}"));
        }
    }

    fn fields(&mut self, fields: &[&'static Field]) {
        fields.iter().for_each(|f| self.field_as(f.name, f));
    }

    /// Everything, in OVS's order. A megaflow, or a packet that was recirculated, says its
    /// `recirc_id` and that it is Ethernet.
    fn all(mut self, recirc: Option<u32>) -> String {
        self.fields(&[fld::PKT_MARK]);
        if let Some(id) = recirc {
            self.word(format!("recirc_id={}", hex(id.into())));
        }
        self.fields(&[fld::DP_HASH, fld::CONJ_ID, fld::SKB_PRIORITY, fld::ACTSET_OUTPUT]);
        self.fields(&[fld::CT_STATE]);
        if self.mask.0.ct_zone.get() != 0 {
            self.word(format!("ct_zone={}", self.key.ct_zone));
        }
        self.fields(&[fld::CT_MARK, fld::CT_LABEL, fld::CT_NW_SRC, fld::CT_NW_DST]);
        self.fields(&[fld::CT_IPV6_SRC, fld::CT_IPV6_DST, fld::CT_NW_PROTO]);
        self.fields(&[fld::CT_TP_SRC, fld::CT_TP_DST]);
        match (self.mask.0.packet_type.get(), self.key.packet_type.get()) {
            (0, _) | (_, 0) if recirc.is_some() => self.word("eth"),
            (0, _) | (_, 0) => {}
            _ => self.fields(&[fld::PACKET_TYPE]),
        }
        let (dl_type, nw_proto) = self.shorthand();
        (0..16).for_each(|n| self.fields(&[reg(n)]));
        self.tunnel();
        self.fields(&[fld::METADATA, fld::IN_PORT]);
        self.vlans();
        self.field_as("dl_src", fld::ETH_SRC);
        self.field_as("dl_dst", fld::ETH_DST);
        if !dl_type && self.mask.0.pkt.dl_type.get() != 0 {
            self.word(format!("dl_type={:#06x}", self.key.pkt.dl_type));
        }
        self.network(nw_proto);
        self.transport();
        self.words.join(",")
    }

    /// The EtherType if it is looked at.
    fn dl_type(&self) -> u16 {
        match (self.mask.0.pkt.dl_type.get(), self.key.packet_type.get()) {
            (0, 0) => DL_TYPE_NONE,
            _ => prereq::ether_type_of(self.key),
        }
    }

    /// The IP protocol if it is looked at.
    fn nw_proto(&self) -> Option<u8> {
        (self.mask.0.pkt.nw_proto != 0).then_some(self.key.pkt.nw_proto)
    }

    /// A word like `tcp`; whether the EtherType and the protocol are said by it.
    fn shorthand(&mut self) -> (bool, bool) {
        if self.mask.0.pkt.dl_type.get() == 0 {
            return (false, false);
        }
        let (dl_type, proto) = (self.key.pkt.dl_type.get(), self.nw_proto());
        let has =
            |(_, t, p): &&(&str, u16, Option<u8>)| *t == dl_type && p.is_some() && *p == proto;
        let alone = |(_, t, p): &&(&str, u16, Option<u8>)| *t == dl_type && p.is_none();
        let known = super::SHORTHANDS.iter();
        match known.clone().find(has).or_else(|| known.clone().find(alone)) {
            Some((name, _, proto)) => {
                self.word(*name);
                (true, proto.is_some())
            }
            None => (false, false),
        }
    }

    fn tunnel(&mut self) {
        self.fields(&[fld::TUN_ID, fld::TUN_SRC, fld::TUN_DST]);
        self.fields(&[fld::TUN_IPV6_SRC, fld::TUN_IPV6_DST]);
        self.fields(&[fld::TUN_GBP_ID, fld::TUN_GBP_FLAGS, fld::TUN_TOS, fld::TUN_TTL]);
        self.fields(&[fld::TUN_ERSPAN_VER, fld::TUN_ERSPAN_IDX]);
        self.fields(&[fld::TUN_ERSPAN_DIR, fld::TUN_ERSPAN_HWID]);
        if self.packet {
            self.field_as("gtpu_flags", fld::TUN_GTPU_FLAGS);
            self.field_as("gtpu_msgtype", fld::TUN_GTPU_MSGTYPE);
            if self.mask.0.tunnel.flags.get() != 0 {
                let flags =
                    flags::format(self.key.tunnel.flags.get().into(), 1, &FlagNames::TUNNEL);
                self.word(format!("tun_flags={flags}"));
            }
        } else {
            // OVS prints the first two under names that it does not read.
            self.fields(&[fld::TUN_GTPU_FLAGS, fld::TUN_GTPU_MSGTYPE, fld::TUN_FLAGS]);
        }
        for n in 0..TUN_METADATA {
            let field = tun_metadata(n as u8);
            let (present, bits) = (&self.mask.0.tunnel.present, field.get(&self.mask.0));
            if present.get() >> n & 1 == 0 {
                continue;
            }
            match bits {
                0 => self.word(field.name),
                _ => self.fields(&[field]),
            }
        }
    }

    /// Tags as `dl_vlan` and `dl_vlan_pcp` where these say all, else as `vlan_tci`.
    fn vlans(&mut self) {
        let tags = self.key.pkt.vlan.iter().zip(&self.mask.0.pkt.vlan);
        for (n, (tag, mask)) in tags.enumerate() {
            let (tci, bits) = (tag.tci.get() & mask.tci.get(), mask.tci.get());
            let suffix = if n == 0 { String::new() } else { n.to_string() };
            let (vid, pcp) = (bits & 0xfff, bits & 0xe000);
            let parts = (vid == 0xfff || vid == 0) && (pcp == 0xe000 || pcp == 0) && vid | pcp != 0;
            if bits == 0 {
                continue;
            }
            if tci & TAG_PRESENT != 0 && parts {
                if vid != 0 {
                    self.word(format!("dl_vlan{suffix}={}", tci & 0xfff));
                }
                if pcp != 0 {
                    self.word(format!("dl_vlan_pcp{suffix}={}", tci >> 13));
                }
            } else if bits == 0xffff {
                self.word(format!("vlan_tci{suffix}={tci:#06x}"));
            } else {
                self.word(format!("vlan_tci{suffix}={tci:#06x}/{bits:#06x}"));
            }
        }
    }

    fn network(&mut self, proto_said: bool) {
        let dl_type = self.dl_type();
        let arp = matches!(dl_type, ether_type::ARP | ether_type::RARP);
        if dl_type == ether_type::IPV6 {
            self.fields(&[fld::IPV6_SRC, fld::IPV6_DST]);
            let bits = fld::IPV6_LABEL.get(&self.mask.0);
            let label = fld::IPV6_LABEL.get(self.key) & bits;
            match bits {
                0 => {}
                b if b == fld::IPV6_LABEL.ones() => self.word(format!("ipv6_label={label:#07x}")),
                b => self.word(format!("ipv6_label={label:#07x}/{b:#07x}")),
            }
        } else if arp {
            self.fields(&[fld::ARP_SPA, fld::ARP_TPA, fld::ARP_OP, fld::ARP_SHA, fld::ARP_THA]);
        } else {
            self.field_as("nw_src", fld::IP_SRC);
            self.field_as("nw_dst", fld::IP_DST);
        }
        if !arp && !proto_said {
            self.fields(&[fld::NW_PROTO]);
        }
        self.fields(&[fld::NW_TOS, fld::NW_ECN, fld::NW_TTL]);
        self.fields(&[fld::MPLS_LABEL, fld::MPLS_TC, fld::MPLS_TTL, fld::MPLS_BOS]);
        let inner = self.key.pkt.mpls_lse.iter().zip(&self.mask.0.pkt.mpls_lse).enumerate().skip(1);
        for (n, (lse, mask)) in inner {
            match mask.get() {
                0 => {}
                u32::MAX => self.word(format!("mpls_lse{n}={}", hex(lse.get().into()))),
                mask => {
                    let value = hex((lse.get() & mask).into());
                    self.word(format!("mpls_lse{n}={value}/{mask:#x}"));
                }
            }
        }
        self.field_as("nw_frag", fld::IP_FRAG);
    }

    fn transport(&mut self) {
        let proto = self.nw_proto().filter(|_| prereq::is_ip(self.key));
        let icmp = matches!(
            (self.dl_type(), proto),
            (ether_type::IPV4, Some(ip_proto::ICMP)) | (ether_type::IPV6, Some(ip_proto::ICMPV6))
        );
        for (port, name, part, part_name) in [
            (fld::TCP_SRC, "tp_src", fld::ICMP_TYPE, "icmp_type"),
            (fld::TCP_DST, "tp_dst", fld::ICMP_CODE, "icmp_code"),
        ] {
            // ICMP's fields can be looked at in part by the names of the ports alone.
            match icmp && part.get(&self.mask.0) == part.ones() {
                true => self.field_as(part_name, part),
                false => self.field_as(name, port),
            }
        }
        if proto == Some(ip_proto::TCP) {
            self.fields(&[fld::TCP_FLAGS]);
        }
        if icmp && fld::ND_TARGET.is_present(self.key) {
            self.fields(&[fld::ND_TARGET, fld::ND_SLL, fld::ND_TLL]);
            self.fields(&[fld::ND_RESERVED, fld::ND_OPTIONS_TYPE]);
        }
    }
}
