//! The only parser on the packet path: from a frame's first bytes to its [`FlowKey`].
//!
//! A header that is cut short or contradicts itself ends the extraction there: the fields before it
//! are set, those of it and after it stay zero. That is what OVS does, so the same flows match.

use crate::key::{
    DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey, HOT_WORDS, Mac, WORDS, ether_type, ip_proto,
};
use zerocopy::big_endian::{U16, U32};

/// Extension headers of one IPv6 packet that are followed: as many as fit into the bytes of a frame
/// that are ever at hand on the packet path (256). Real packets have at most four.
const MAX_IPV6_EXTENSIONS: usize = 32;
/// Options of one neighbour discovery packet that are read, for the same reason.
const MAX_ND_OPTIONS: usize = 32;

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

/// Where the headers of a frame are, for those who change them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layers {
    /// EtherType of what the Ethernet header and its tags enclose; 0 if the frame is cut short.
    pub dl_type: u16,
    /// Offset of the first byte after Ethernet header, VLAN tags and SNAP header.
    pub network: usize,
    /// IP protocol of the transport header.
    pub nw_proto: u8,
    /// Offset of the first byte after all IP headers; 0 if the packet is not IP, is a later fragment,
    /// or has its IP headers cut short. How much of a transport header is there is for the reader to
    /// see.
    pub transport: usize,
    /// Offset of the end of the IP packet; Ethernet's padding is beyond it.
    pub end: usize,
    /// IPv6 with a routing header that has segments left: the destination address is not the final
    /// one that transport checksums count.
    pub routed: bool,
}

/// A cursor over the bytes at hand of a longer frame.
struct Frame<'a> {
    bytes: &'a [u8],
    /// Length of the frame, or of the IP packet once that is known, whichever is shorter.
    len: usize,
    layers: Layers,
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
    // Both headers: TCP's says how long it is, and at least five words.
    let (headers, flags, long_enough) = match proto {
        ip_proto::TCP => {
            let flags = u64::from(b[46] & 0x0f) | u64::from(b[47]) << 8;
            (20 + usize::from(b[46] >> 4) * 4, flags, b[46] >= 0x50)
        }
        ip_proto::UDP => (28, 0, true),
        _ => return None,
    };
    let fragment = be16(&b[20..22]) & 0x3fff;
    let plain = b[12..15] == [0x08, 0x00, 0x45] && fragment == 0;
    if !plain || !long_enough || total < headers || 14 + total > len {
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

/// Finds the headers of a frame of `len` bytes whose first bytes are `bytes`.
///
/// # Errors
/// [`Need`] if the headers go on beyond `bytes`; what was found before that comes with it.
#[inline]
pub fn locate(bytes: &[u8], len: usize) -> (Layers, Result<(), Need>) {
    if plain_ipv4(bytes, len, 0).is_some() {
        let end = 14 + usize::from(be16(&bytes[16..18]));
        let (network, transport, nw_proto, routed) = (14, 34, bytes[23], false);
        let dl_type = ether_type::IPV4;
        return (Layers { dl_type, network, nw_proto, transport, end, routed }, Ok(()));
    }
    let mut frame = Frame { bytes, len, layers: Layers::default() };
    let result = read(&mut frame, &mut Extracted::default());
    (frame.layers, result)
}

/// [`extract`] for every kind of frame.
#[inline(never)]
fn extract_any(bytes: &[u8], len: usize, in_port: u32, out: &mut Extracted) -> Result<(), Need> {
    *out = Extracted::default();
    out.key.in_port = in_port;
    read(&mut Frame { bytes, len, layers: Layers::default() }, out)
}

#[inline]
fn read(frame: &mut Frame<'_>, out: &mut Extracted) -> Result<(), Need> {
    let key = &mut out.key;
    let Some(eth) = frame.get::<14>(0)? else {
        return Ok(());
    };
    key.dl_dst = Mac(array(&eth[0..6]));
    key.dl_src = Mac(array(&eth[6..12]));
    let mut dl_type = be16(&eth[12..14]);
    let mut at = 14;
    if dl_type == ether_type::VLAN || dl_type == ether_type::VLAN_AD {
        (dl_type, at) = vlans(frame, key, dl_type)?;
    }
    if dl_type < 0x600 {
        (dl_type, at) = llc(frame, at)?;
    }
    key.dl_type = U16::new(dl_type);
    (frame.layers.dl_type, frame.layers.network) = (dl_type, at);
    match dl_type {
        ether_type::IPV4 => ipv4(frame, at, key, &mut out.long),
        ether_type::IPV6 => {
            out.long = true;
            ipv6(frame, at, key)
        }
        ether_type::ARP | ether_type::RARP => {
            out.long = true;
            arp(frame, at, key)
        }
        ether_type::MPLS | ether_type::MPLS_MCAST => {
            out.long = true;
            mpls(frame, at, key)
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

/// RFC 3032: label stack entries to the bottom of the stack, as many as the key has room for.
#[inline(never)]
fn mpls(frame: &Frame<'_>, mut at: usize, key: &mut FlowKey) -> Result<(), Need> {
    for entry in &mut key.mpls_lse {
        let Some(lse) = frame.get::<4>(at)? else { break };
        *entry = U32::from_bytes(*lse);
        if lse[2] & 1 != 0 {
            break;
        }
        at += 4;
    }
    Ok(())
}

/// RFC 791. The version is not looked at, as in OVS. Lengths that contradict each other leave all IP fields unset.
#[inline(always)]
fn ipv4(frame: &mut Frame<'_>, at: usize, key: &mut FlowKey, long: &mut bool) -> Result<(), Need> {
    let Some(ip) = frame.get::<20>(at)? else {
        return Ok(());
    };
    let header = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(be16(&ip[2..4]));
    if header < 20 || total < header || at + total > frame.len {
        return Ok(());
    }
    frame.len = at + total;
    frame.layers.end = frame.len;
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
    (frame.layers.nw_proto, frame.layers.transport) = (key.nw_proto, at + header);
    transport(frame, at + header, key.nw_proto, key, long)
}

/// TCP (RFC 9293), UDP (RFC 768) and SCTP (RFC 9260) ports; ICMP, IGMP and ICMPv6 over either version
/// of IP, as in OVS.
#[inline(always)]
fn transport(
    frame: &Frame<'_>,
    at: usize,
    proto: u8,
    key: &mut FlowKey,
    long: &mut bool,
) -> Result<(), Need> {
    let ports = match proto {
        ip_proto::TCP => {
            let Some(b) = frame.get::<20>(at)? else {
                return Ok(());
            };
            if !tcp_header_fits(b[12], frame.len - at) {
                return Ok(());
            }
            key.tcp_flags = U16::new(be16(&b[12..14]) & 0x0fff);
            b.first_chunk()
        }
        ip_proto::UDP => frame.get::<8>(at)?.and_then(|b| b.first_chunk()),
        ip_proto::SCTP => frame.get::<12>(at)?.and_then(|b| b.first_chunk()),
        ip_proto::ICMP | ip_proto::IGMP | ip_proto::ICMPV6 => {
            return messages(frame, at, proto, key, long);
        }
        _ => None,
    };
    if let Some([a, b, c, d]) = ports {
        key.tp_src = U16::from_bytes([*a, *b]);
        key.tp_dst = U16::from_bytes([*c, *d]);
    }
    Ok(())
}

/// RFC 792, RFC 3376 and RFC 4443: type and code, and what else there is.
#[inline(never)]
fn messages(
    frame: &Frame<'_>,
    at: usize,
    proto: u8,
    key: &mut FlowKey,
    long: &mut bool,
) -> Result<(), Need> {
    let Some(b) = frame.get::<8>(at)? else {
        return Ok(());
    };
    key.tp_src = U16::new(b[0].into());
    key.tp_dst = U16::new(b[1].into());
    // RFC 4861: neighbour solicitation and advertisement.
    let discovery = proto == ip_proto::ICMPV6 && matches!(b[..2], [135 | 136, 0]);
    if discovery || proto == ip_proto::IGMP {
        *long = true;
        key.igmp_group = U32::from_bytes(array(&b[4..8]));
    }
    if discovery { neighbour_discovery(frame, at, key) } else { Ok(()) }
}

/// True if the header length that a TCP header states, in the upper four bits of `offset`, is possible
/// in a segment of `size` bytes.
#[inline(always)]
pub fn tcp_header_fits(offset: u8, size: usize) -> bool {
    let header = usize::from(offset >> 4) * 4;
    (20..=size).contains(&header)
}

/// RFC 8200, with the extension headers up to the transport header. If these are cut short, only
/// the addresses are fields of the packet.
#[inline(never)]
fn ipv6(frame: &mut Frame<'_>, at: usize, key: &mut FlowKey) -> Result<(), Need> {
    let Some(ip) = frame.get::<40>(at)? else {
        return Ok(());
    };
    let payload = usize::from(be16(&ip[4..6]));
    if at + 40 + payload > frame.len {
        return Ok(());
    }
    frame.len = at + 40 + payload;
    frame.layers.end = frame.len;
    key.ipv6_src = array(&ip[8..24]);
    key.ipv6_dst = array(&ip[24..40]);
    let Some((proto, at, frag)) = ipv6_extensions(frame, at + 40, ip[6])? else {
        return Ok(());
    };
    let word = u32::from_be_bytes(array(&ip[0..4]));
    key.ipv6_label = U32::new(word & 0x000f_ffff);
    key.nw_tos = (word >> 20) as u8;
    key.nw_ttl = ip[7];
    key.nw_proto = proto;
    key.nw_frag = frag;
    if key.nw_frag & FRAG_LATER != 0 {
        return Ok(());
    }
    (frame.layers.nw_proto, frame.layers.transport) = (proto, at);
    transport(frame, at, proto, key, &mut true)
}

/// Protocol and offset of what follows the extension headers, the first of which is of kind `next`,
/// and what they say of fragments; `None` if they are cut short. A later fragment's protocol is that of the fragment header, as in OVS.
#[inline(always)]
fn ipv6_extensions(
    frame: &mut Frame<'_>,
    mut at: usize,
    mut next: u8,
) -> Result<Option<(u8, usize, u8)>, Need> {
    let mut frag = 0;
    for _ in 0..MAX_IPV6_EXTENSIONS {
        // Hop-by-hop, routing, destination options (RFC 8200), authentication (RFC 4302), fragment.
        if !matches!(next, 0 | 43 | 60 | 51 | 44) {
            return Ok(Some((next, at, frag)));
        }
        let Some(b) = frame.get::<8>(at)? else {
            return Ok(None);
        };
        let size = match next {
            // Counts in 4-byte units.
            51 => (usize::from(b[1]) + 2) * 4,
            44 => 8,
            _ => (usize::from(b[1]) + 1) * 8,
        };
        if at + size > frame.len {
            return Ok(None);
        }
        frame.layers.routed |= next == 43 && b[3] > 0;
        if next == 44 {
            let offset = be16(&b[2..4]);
            if offset & 0xfff8 != 0 {
                return Ok(Some((44, at, FRAG_ANY | FRAG_LATER)));
            }
            if offset != 0 {
                frag = FRAG_ANY;
            }
        }
        (next, at) = (b[0], at + size);
    }
    Ok(None)
}

/// RFC 4861: target and link-layer options.
fn neighbour_discovery(frame: &Frame<'_>, at: usize, key: &mut FlowKey) -> Result<(), Need> {
    let Some(b) = frame.get::<24>(at)? else {
        return Ok(());
    };
    key.nd_target = array(&b[8..24]);
    let mut option = at + 24;
    for _ in 0..MAX_ND_OPTIONS {
        let Some(o) = frame.get::<8>(option)? else {
            return Ok(());
        };
        let size = usize::from(o[1]) * 8;
        // An option without length or beyond the packet ends the list.
        if size == 0 || option + size > frame.len {
            return Ok(());
        }
        let slot = match o[0] {
            1 if size == 8 => Some(&mut key.arp_sha),
            2 if size == 8 => Some(&mut key.arp_tha),
            _ => None,
        };
        if let Some(slot) = slot {
            // The same option twice makes target and options void.
            if *slot != Mac::default() {
                (key.nd_target, key.arp_sha, key.arp_tha) = Default::default();
                return Ok(());
            }
            *slot = Mac(array(&o[2..8]));
            if key.tcp_flags.get() == 0 {
                key.tcp_flags = U16::new(o[0].into());
            }
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
        for (at, value) in [(14, 0x44), (14, 0x4f), (16, 0xff), (17, 5)] {
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
    fn neighbour_discovery_and_igmp_have_a_word_more() {
        // OVS matches this frame with nd_reserved=0xa0000001,nd_options_type=1.
        let mut f = vec![2; 12];
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        f.extend([0xfe; 32]);
        f.extend([135, 0, 0, 0, 0xa0, 0, 0, 1]);
        f.extend([0xfd; 16]);
        f.extend([1, 1, 2, 0, 0, 0, 0, 0xaa]);
        let k = key_of(&f);
        assert_eq!((k.igmp_group.get(), k.tcp_flags.get()), (0xa000_0001, 1));
        assert_eq!((k.nd_target, k.arp_sha), ([0xfd; 16], Mac([2, 0, 0, 0, 0, 0xaa])));
        let mut f = vec![2; 12];
        f.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 1, 2, 3, 4, 224, 0, 0, 1]);
        f.extend([0x16, 0, 0, 0, 239, 1, 1, 1]);
        let k = key_of(&f);
        assert_eq!((k.tp_src.get(), k.igmp_group.get()), (0x16, 0xef01_0101));
    }

    #[test]
    fn labels_are_read_to_the_bottom_of_the_stack() {
        let entries = [0x10u32, 0x20, 0x30, 0x40];
        for bottom in 0..4 {
            let mut f = vec![2; 12];
            f.extend([0x88, 0x47]);
            for (at, entry) in entries.iter().enumerate() {
                f.extend((entry << 12 | u32::from(at == bottom) << 8).to_be_bytes());
            }
            let read = key_of(&f).mpls_lse.map(|lse| lse.get() >> 12);
            let expected: Vec<u32> =
                (0..3).map(|at| if at <= bottom { entries[at] } else { 0 }).collect();
            assert_eq!(read[..], expected, "bottom at {bottom}");
        }
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
