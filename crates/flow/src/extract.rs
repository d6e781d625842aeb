//! The only parser on the packet path: from a frame's first bytes to its [`FlowKey`].
//!
//! A header that is cut short or contradicts itself ends the extraction there: the fields before it
//! are set, those of it and after it stay zero. That is what OVS does, so the same flows match.

use crate::key::{
    DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey, HOT_WORDS, Mac, WORDS, ether_type, ip_proto,
};
use zerocopy::big_endian::{U16, U32};

/// Extension headers of one IPv6 packet that are followed; a packet with more keeps the number of
/// the next one as its protocol and has no transport fields. Real packets have at most four.
const MAX_IPV6_EXTENSIONS: usize = 16;

/// A key, and whether it uses more than its hot words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extracted {
    /// The packet's fields.
    pub key: FlowKey,
    /// True if words beyond [`crate::HOT_WORDS`] may be non-zero.
    pub long: bool,
}

impl Extracted {
    /// Sets the hot words, and the others to zero.
    #[inline(always)]
    fn set_hot(&mut self, hot: [u64; HOT_WORDS]) {
        if self.long {
            *self = Extracted::default();
        }
        let words: &mut [u64; WORDS] = zerocopy::transmute_mut!(&mut self.key);
        words[..HOT_WORDS].copy_from_slice(&hot);
    }
}

/// The frame has more headers than the bytes at hand: extract again with this many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need(pub usize);

/// A cursor over the bytes at hand of a longer frame.
struct Frame<'a> {
    bytes: &'a [u8],
    /// Length of the frame, or of the IP packet once that is known, whichever is shorter.
    len: usize,
}

impl<'a> Frame<'a> {
    /// `N` bytes at `at`; `Ok(None)` if the frame ends before.
    #[inline(always)]
    fn get<const N: usize>(&self, at: usize) -> Result<Option<&'a [u8; N]>, Need> {
        if at + N > self.len {
            return Ok(None);
        }
        match self.bytes.get(at..).and_then(<[u8]>::first_chunk) {
            Some(b) => Ok(Some(b)),
            None => Err(Need(at + N)),
        }
    }
}

/// Reads the fields of a frame of `len` bytes whose first bytes are `bytes`, received on `in_port`,
/// into `out`.
///
/// # Errors
/// [`Need`] if the headers go on beyond `bytes`.
#[inline]
pub fn extract(bytes: &[u8], len: usize, in_port: u32, out: &mut Extracted) -> Result<(), Need> {
    if let Some(words) = plain_ipv4(bytes, len, in_port) {
        out.set_hot(words);
        return Ok(());
    }
    extract_any(bytes, len, in_port, out)
}

/// The hot words of an untagged frame with TCP or UDP over IPv4 without options or fragments, which
/// most frames are; `None` for any other, and for one that is wrong in any way.
///
/// Whole words are made from whole words of the frame: a key written in pieces and hashed in words
/// cannot be forwarded from the store buffer and costs 25 cycles more. A test holds it to the same
/// answers as the parser for everything.
#[inline(always)]
fn plain_ipv4(bytes: &[u8], len: usize, in_port: u32) -> Option<[u64; HOT_WORDS]> {
    // Ethernet, IPv4 and TCP headers.
    let b: &[u8; 54] = bytes.first_chunk()?;
    let le = |at: usize| u64::from_le_bytes(array(&b[at..at + 8]));
    let total = usize::from(be16(&b[16..18]));
    let proto = b[23];
    let (header, flags) = match proto {
        ip_proto::TCP => (40, u64::from(b[46] & 0x0f) | u64::from(b[47]) << 8),
        ip_proto::UDP => (28, 0),
        _ => return None,
    };
    let fragment = be16(&b[20..22]) & 0x3fff;
    let plain = b[12..15] == [0x08, 0x00, 0x45] && fragment == 0;
    if !plain || total < header || 14 + total > len {
        return None;
    }
    let (tos, ttl) = (u64::from(b[15]), u64::from(b[22]));
    let ports = le(34) & 0xffff_ffff;
    let port = in_port.to_ne_bytes();
    Some([
        le(0).to_le(),
        (le(8) & 0x0000_ffff_ffff_ffff | u64::from(proto) << 48).to_le(),
        u64::from_ne_bytes([port[0], port[1], port[2], port[3], 0, 0, 0, 0]),
        0,
        le(26).to_le(),
        (ports | flags << 32 | tos << 48 | ttl << 56).to_le(),
    ])
}

/// [`extract`] for every kind of frame.
#[inline(never)]
fn extract_any(bytes: &[u8], len: usize, in_port: u32, out: &mut Extracted) -> Result<(), Need> {
    *out = Extracted::default();
    let key = &mut out.key;
    key.in_port = in_port;
    let mut frame = Frame { bytes, len };
    let Some(eth) = frame.get::<14>(0)? else {
        return Ok(());
    };
    key.dl_dst = Mac(array(&eth[0..6]));
    key.dl_src = Mac(array(&eth[6..12]));
    let mut dl_type = be16(&eth[12..14]);
    let mut at = 14;
    if dl_type == ether_type::VLAN || dl_type == ether_type::VLAN_AD {
        (dl_type, at) = vlans(&frame, key, dl_type)?;
    }
    if dl_type < 0x600 {
        (dl_type, at) = llc(&frame, at)?;
    }
    key.dl_type = U16::new(dl_type);
    match dl_type {
        ether_type::IPV4 => ipv4(&mut frame, at, key, &mut out.long),
        ether_type::IPV6 => {
            out.long = true;
            ipv6(&mut frame, at, key)
        }
        ether_type::ARP | ether_type::RARP => {
            out.long = true;
            arp(&frame, at, key)
        }
        ether_type::MPLS | ether_type::MPLS_MCAST => {
            out.long = true;
            if let Some(lse) = frame.get::<4>(at)? {
                key.mpls_lse = U32::from_bytes(*lse);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn array<const N: usize>(b: &[u8]) -> [u8; N] {
    b.try_into().expect("the caller slices N bytes")
}

#[inline(always)]
fn be16(b: &[u8]) -> u16 {
    u16::from_be_bytes(array(b))
}

/// Up to two tags; returns the EtherType after them and where its payload starts.
#[inline(never)]
fn vlans(frame: &Frame<'_>, key: &mut FlowKey, mut tpid: u16) -> Result<(u16, usize), Need> {
    let mut at = 14;
    for tag in &mut key.vlan {
        if tpid != ether_type::VLAN && tpid != ether_type::VLAN_AD {
            break;
        }
        let Some(b) = frame.get::<4>(at)? else { break };
        tag.tpid = U16::new(tpid);
        tag.tci = U16::new(be16(&b[0..2]) | 0x1000);
        tpid = be16(&b[2..4]);
        at += 4;
    }
    Ok((tpid, at))
}

/// IEEE 802.3 frames: the EtherType of a SNAP header, or none.
#[inline(never)]
fn llc(frame: &Frame<'_>, at: usize) -> Result<(u16, usize), Need> {
    let snap = [0xaa, 0xaa, 0x03, 0, 0, 0];
    match frame.get::<8>(at)? {
        Some(b) if b[..6] == snap && be16(&b[6..8]) >= 0x600 => Ok((be16(&b[6..8]), at + 8)),
        _ => Ok((DL_TYPE_NONE, at)),
    }
}

/// RFC 791. Lengths that contradict each other leave all IP fields unset.
#[inline(always)]
fn ipv4(frame: &mut Frame<'_>, at: usize, key: &mut FlowKey, long: &mut bool) -> Result<(), Need> {
    let Some(ip) = frame.get::<20>(at)? else {
        return Ok(());
    };
    let header = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(be16(&ip[2..4]));
    if ip[0] >> 4 != 4 || header < 20 || total < header || at + total > frame.len {
        return Ok(());
    }
    frame.len = at + total;
    let frag = be16(&ip[6..8]);
    if frag & 0x3fff != 0 {
        key.nw_frag = FRAG_ANY | if frag & 0x1fff != 0 { FRAG_LATER } else { 0 };
    }
    key.nw_tos = ip[1];
    key.nw_ttl = ip[8];
    key.nw_proto = ip[9];
    key.nw_src = U32::from_bytes(array(&ip[12..16]));
    key.nw_dst = U32::from_bytes(array(&ip[16..20]));
    if key.nw_frag & FRAG_LATER != 0 {
        return Ok(());
    }
    match key.nw_proto {
        ip_proto::ICMP => icmp(frame, at + header, key),
        ip_proto::IGMP => {
            if let Some(b) = frame.get::<8>(at + header)? {
                *long = true;
                key.tp_src = U16::new(b[0].into());
                key.tp_dst = U16::new(b[1].into());
                key.igmp_group = U32::from_bytes(array(&b[4..8]));
            }
            Ok(())
        }
        proto => transport(frame, at + header, proto, key),
    }
}

/// TCP (RFC 9293), UDP (RFC 768) and SCTP (RFC 9260) ports.
#[inline(always)]
fn transport(frame: &Frame<'_>, at: usize, proto: u8, key: &mut FlowKey) -> Result<(), Need> {
    let ports = match proto {
        ip_proto::TCP => {
            let Some(b) = frame.get::<20>(at)? else {
                return Ok(());
            };
            key.tcp_flags = U16::new(be16(&b[12..14]) & 0x0fff);
            b.first_chunk()
        }
        ip_proto::UDP => frame.get::<8>(at)?.and_then(|b| b.first_chunk()),
        ip_proto::SCTP => frame.get::<12>(at)?.and_then(|b| b.first_chunk()),
        _ => None,
    };
    if let Some([a, b, c, d]) = ports {
        key.tp_src = U16::from_bytes([*a, *b]);
        key.tp_dst = U16::from_bytes([*c, *d]);
    }
    Ok(())
}

/// RFC 792 and RFC 4443: type and code.
fn icmp(frame: &Frame<'_>, at: usize, key: &mut FlowKey) -> Result<(), Need> {
    if let Some(b) = frame.get::<8>(at)? {
        key.tp_src = U16::new(b[0].into());
        key.tp_dst = U16::new(b[1].into());
    }
    Ok(())
}

/// RFC 8200, with the extension headers up to the transport header.
#[inline(never)]
fn ipv6(frame: &mut Frame<'_>, mut at: usize, key: &mut FlowKey) -> Result<(), Need> {
    let Some(ip) = frame.get::<40>(at)? else {
        return Ok(());
    };
    let payload = usize::from(be16(&ip[4..6]));
    if ip[0] >> 4 != 6 || at + 40 + payload > frame.len {
        return Ok(());
    }
    frame.len = at + 40 + payload;
    let word = u32::from_be_bytes(array(&ip[0..4]));
    key.ipv6_label = U32::new(word & 0x000f_ffff);
    key.nw_tos = (word >> 20) as u8;
    key.nw_ttl = ip[7];
    key.ipv6_src = array(&ip[8..24]);
    key.ipv6_dst = array(&ip[24..40]);
    let mut next = ip[6];
    at += 40;
    for _ in 0..MAX_IPV6_EXTENSIONS {
        let step = match next {
            // Hop-by-hop, routing, destination options, mobility (RFC 8200, RFC 6275).
            0 | 43 | 60 | 135 => {
                let Some(b) = frame.get::<8>(at)? else {
                    return Ok(());
                };
                next = b[0];
                (usize::from(b[1]) + 1) * 8
            }
            // Authentication header counts in 4-byte units (RFC 4302).
            51 => {
                let Some(b) = frame.get::<8>(at)? else {
                    return Ok(());
                };
                next = b[0];
                (usize::from(b[1]) + 2) * 4
            }
            // Fragment header (RFC 8200, 4.5).
            44 => {
                let Some(b) = frame.get::<8>(at)? else {
                    return Ok(());
                };
                next = b[0];
                let offset = be16(&b[2..4]);
                if offset & 0xfff9 != 0 {
                    key.nw_frag = FRAG_ANY;
                }
                if offset & 0xfff8 != 0 {
                    key.nw_frag = FRAG_ANY | FRAG_LATER;
                    key.nw_proto = next;
                    return Ok(());
                }
                8
            }
            _ => break,
        };
        at += step;
    }
    key.nw_proto = next;
    match next {
        ip_proto::ICMPV6 => {
            icmp(frame, at, key)?;
            neighbour_discovery(frame, at, key)
        }
        _ => transport(frame, at, next, key),
    }
}

/// RFC 4861: target and link-layer options of neighbour solicitation (135) and advertisement (136).
fn neighbour_discovery(frame: &Frame<'_>, at: usize, key: &mut FlowKey) -> Result<(), Need> {
    let (kind, code) = (key.tp_src.get(), key.tp_dst.get());
    if code != 0 || (kind != 135 && kind != 136) {
        return Ok(());
    }
    let Some(b) = frame.get::<24>(at)? else {
        return Ok(());
    };
    key.nd_target = array(&b[8..24]);
    let mut option = at + 24;
    while let Some(o) = frame.get::<8>(option)? {
        let size = usize::from(o[1]) * 8;
        // An option without length, beyond the packet or given twice makes all of it void.
        let slot = match o[0] {
            1 if size == 8 => Some(&mut key.arp_sha),
            2 if size == 8 => Some(&mut key.arp_tha),
            _ => None,
        };
        let twice = slot.as_ref().is_some_and(|s| **s != Mac::default());
        if size == 0 || option + size > frame.len || twice {
            (key.nd_target, key.arp_sha, key.arp_tha) = Default::default();
            return Ok(());
        }
        if let Some(slot) = slot {
            *slot = Mac(array(&o[2..8]));
        }
        option += size;
    }
    Ok(())
}

/// RFC 826 for Ethernet and IPv4; other kinds have no fields.
#[inline(never)]
fn arp(frame: &Frame<'_>, at: usize, key: &mut FlowKey) -> Result<(), Need> {
    let Some(b) = frame.get::<28>(at)? else {
        return Ok(());
    };
    if b[..6] != [0, 1, 0x08, 0, 6, 4] {
        return Ok(());
    }
    let op = be16(&b[6..8]);
    if op <= 0xff {
        key.nw_proto = op as u8;
    }
    key.arp_sha = Mac(array(&b[8..14]));
    key.nw_src = U32::from_bytes(array(&b[14..18]));
    key.arp_tha = Mac(array(&b[18..24]));
    key.nw_dst = U32::from_bytes(array(&b[24..28]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn key_of(frame: &[u8]) -> FlowKey {
        let mut out = Extracted::default();
        extract(frame, frame.len(), 1, &mut out).expect("all bytes are there");
        assert!(out.long || out.key.words()[HOT_WORDS..].iter().all(|&w| w == 0));
        out.key
    }

    fn build(b: etherparse::PacketBuilderStep<etherparse::UdpHeader>, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        b.write(&mut out, &vec![0x5a; n]).expect("fits");
        out
    }

    #[test]
    fn tagged_udp_over_ipv4() {
        let f = build(
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
                .single_vlan(100.try_into().expect("12 bits"))
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 63)
                .udp(1000, 2000),
            10,
        );
        let k = key_of(&f);
        assert_eq!((k.dl_src, k.dl_dst), (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])));
        assert_eq!((k.vlan[0].tpid.get(), k.vlan[0].tci.get()), (0x8100, 0x1064));
        assert_eq!((k.dl_type.get(), k.nw_proto, k.nw_ttl), (0x800, 17, 63));
        assert_eq!((k.nw_src.get(), k.nw_dst.get()), (0x0a00_0001, 0x0a00_0002));
        assert_eq!((k.tp_src.get(), k.tp_dst.get(), k.in_port), (1000, 2000, 1));
    }

    #[test]
    fn padding_after_the_ip_packet_changes_nothing() {
        let mut f = build(
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(7, 8),
            0,
        );
        let k = key_of(&f);
        f.resize(200, 0xff);
        assert_eq!(key_of(&f), k);
    }

    #[test]
    fn contradicting_ip_lengths_leave_only_ethernet() {
        let good = build(
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(7, 8),
            0,
        );
        for (at, value) in [(14, 0x44), (14, 0x55), (16, 0xff), (17, 5)] {
            let mut f = good.clone();
            f[at] = value;
            if at == 17 {
                f[16] = 0;
            }
            let k = key_of(&f);
            assert_eq!((k.dl_type.get(), k.nw_src.get(), k.nw_proto), (0x800, 0, 0), "byte {at}");
        }
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut f = build(
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(7, 8),
            0,
        );
        f[20] = 0x20;
        let k = key_of(&f);
        assert_eq!((k.nw_frag, k.tp_src.get()), (FRAG_ANY, 7));
        f[21] = 1;
        let k = key_of(&f);
        assert_eq!((k.nw_frag, k.tp_src.get()), (FRAG_ANY | FRAG_LATER, 0));
    }

    #[test]
    fn a_header_beyond_the_private_bytes_asks_for_more() {
        let f =
            build(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 9).udp(7, 8), 0);
        let mut out = Extracted::default();
        assert_eq!(extract(&f[..54], f.len(), 1, &mut out), Err(Need(62)));
        assert_eq!(extract(&f[..62], f.len(), 1, &mut out), Ok(()));
        assert_eq!(out.key.tp_dst.get(), 8);
    }

    #[test]
    fn arp_request() {
        let mut f = vec![0xff; 6];
        f.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        f.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        let k = key_of(&f);
        assert_eq!((k.nw_proto, k.nw_src.get(), k.nw_dst.get()), (1, 0x0a00_0001, 0x0a00_0002));
        assert_eq!(k.arp_sha, Mac([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn length_field_frames_have_no_type_unless_snap() {
        let mut f = vec![1; 12];
        f.extend([0, 46]);
        f.resize(60, 0);
        assert_eq!(key_of(&f).dl_type.get(), DL_TYPE_NONE);
        f[14..22].copy_from_slice(&[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd]);
        assert_eq!(key_of(&f).dl_type.get(), 0x86dd);
    }

    proptest! {
        /// Any bytes and any cut: no panic, and what is at hand never changes what is read.
        #[test]
        fn any_bytes(frame in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200,
                     kind in 0usize..6) {
            let mut frame = frame;
            let types = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x88, 0x47], [0, 9]];
            if frame.len() > 14 { frame[12..14].copy_from_slice(&types[kind]); }
            if frame.len() > 20 && kind == 0 { frame[14] = 0x40 | (frame[14] & 0xf); frame[16] = 0; }
            if frame.len() > 20 && kind == 1 { frame[14] = 0x60; frame[18] = 0; }
            let mut whole = Extracted::default();
            extract(&frame, frame.len(), 3, &mut whole).expect("all bytes are there");
            let mut part = Extracted::default();
            match extract(&frame[..cut.min(frame.len())], frame.len(), 3, &mut part) {
                Ok(()) => prop_assert_eq!(part.key, whole.key),
                Err(Need(n)) => prop_assert!(n > cut && n <= frame.len()),
            }
        }

        /// The short way gives the same keys as the long way, or leaves the frame to it.
        #[test]
        fn the_short_way_agrees(edits in proptest::collection::vec((12usize..60, any::<u8>()), 0..3),
                                tcp in any::<bool>(), len in 54usize..80, cut in 40usize..70) {
            let mut f = [7u8; 80];
            f[12..24].copy_from_slice(&[8, 0, 0x45, 3, 0, 46, 0, 0, 0x40, 0, 64, if tcp { 6 } else { 17 }]);
            for (at, value) in edits { f[at] = value; }
            let bytes = &f[..cut.min(len)];
            let mut long = Extracted::default();
            let slow = extract_any(bytes, len, 5, &mut long);
            // What was there before must not shine through.
            let mut short = Extracted::default();
            extract_any(&[0xff; 60], 60, 9, &mut short).expect("all bytes are there");
            short.long = true;
            short.key.nd_target = [9; 16];
            prop_assert_eq!(extract(bytes, len, 5, &mut short), slow);
            if slow.is_ok() {
                prop_assert_eq!((short.key, short.long), (long.key, long.long));
            }
        }

        /// An independent parser reads the same ports and addresses.
        #[test]
        fn agrees_with_etherparse(src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(),
                                  sp in any::<u16>(), dp in any::<u16>(), n in 0usize..64) {
            let f = build(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 9).udp(sp, dp), n);
            let k = key_of(&f);
            let p = etherparse::SlicedPacket::from_ethernet(&f).expect("well formed");
            let Some(etherparse::NetSlice::Ipv4(ip)) = p.net else { panic!("IPv4") };
            let Some(etherparse::TransportSlice::Udp(udp)) = p.transport else { panic!("UDP") };
            prop_assert_eq!(k.nw_src.get(), u32::from_be_bytes(ip.header().source()));
            prop_assert_eq!(k.nw_dst.get(), u32::from_be_bytes(ip.header().destination()));
            prop_assert_eq!((k.tp_src.get(), k.tp_dst.get()),
                            (udp.source_port(), udp.destination_port()));
        }
    }
}
