//! Per-packet offload metadata: what a sender left for somebody later to do.

use crate::DropReason;
use crate::checksum;

/// Offload state of one packet, in the terms of the virtio-net header (virtio 1.3, 5.1.6): its first ten
/// bytes, in the same order.
///
/// What a guest says is checked when the packet is received ([`Offload::check`]), so whoever has a packet
/// may rely on it: checksums lie in the frame, and a super-frame is TCP or UDP over IP whose headers are
/// `hdr_len` bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offload {
    /// [`Offload::NEEDS_CSUM`], [`Offload::DATA_VALID`].
    pub flags: u8,
    /// [`gso`], with [`gso::ECN`].
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and transport headers; of super-frames only.
    pub hdr_len: u16,
    /// Payload bytes of each segment to be made.
    pub gso_size: u16,
    /// Where checksumming starts, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is stored, in bytes after `csum_start`.
    pub csum_offset: u16,
}

/// Kinds of super-frames (virtio 1.3, 5.1.6, `VIRTIO_NET_HDR_GSO_*`).
pub mod gso {
    /// Not a super-frame.
    pub const NONE: u8 = 0;
    /// TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// UDP datagrams of equal size, over either.
    pub const UDP_L4: u8 = 5;
    /// Flag: TCP with congestion notification (the first segment alone keeps CWR).
    pub const ECN: u8 = 0x80;
}

/// Datagrams in a super-frame of UDP at most, as Linux has it (`UDP_MAX_SEGMENTS`).
const UDP_SEGMENTS: usize = 128;
/// Payload of a segment of a TCP super-frame at least, as Linux has it (`TCP_MIN_SND_MSS`): a sender that
/// could have a frame cut into bytes would buy thousands of packets with one.
pub(crate) const TCP_PAYLOAD: usize = 48;
/// IPv6 extension headers that are looked through for the transport header.
const EXTENSIONS: usize = 8;

/// What a peer can be given, or may ask for, beyond whole frames with their checksums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities(u8);

impl Abilities {
    /// Nothing.
    pub const NONE: Abilities = Abilities(0);
    /// Checksums that are to be completed.
    pub const CSUM: Abilities = Abilities(1);
    /// Super-frames of TCP over IPv4.
    pub const TSO4: Abilities = Abilities(2);
    /// Super-frames of TCP over IPv6.
    pub const TSO6: Abilities = Abilities(4);
    /// Super-frames of TCP with [`gso::ECN`].
    pub const ECN: Abilities = Abilities(8);
    /// Super-frames of UDP.
    pub const USO: Abilities = Abilities(16);

    /// These, and `more` if `on`.
    pub const fn with(self, more: Abilities, on: bool) -> Abilities {
        if on { Abilities(self.0 | more.0) } else { self }
    }

    /// True if all of `other` are among these.
    pub const fn has(self, other: Abilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if a packet can be given as it is.
    #[inline(always)]
    pub fn accept(self, o: &Offload) -> bool {
        o.needed().is_some_and(|needed| self.has(needed))
    }
}

impl Offload {
    /// Nothing is left to do, and nothing is known.
    pub const NONE: Offload =
        Offload { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };
    /// Flag: the checksum covers the pseudo-header only, and is to be completed.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag: the checksum was found right.
    pub const DATA_VALID: u8 = 2;
    /// Bytes of the virtio-net header that this is.
    pub const BYTES: usize = 10;

    /// Reads the first bytes of a virtio-net header; `None` if there are fewer.
    pub fn from_device(header: &[u8]) -> Option<Offload> {
        let b: &[u8; Self::BYTES] = header.first_chunk()?;
        let half = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        Some(Offload {
            flags: b[0],
            gso_type: b[1],
            hdr_len: half(2),
            gso_size: half(4),
            csum_start: half(6),
            csum_offset: half(8),
        })
    }

    /// The first bytes of a virtio-net header, as two words to be stored in native order.
    #[inline(always)]
    pub fn words(&self) -> (u64, u16) {
        let first = u64::from(self.flags)
            | u64::from(self.gso_type) << 8
            | u64::from(self.hdr_len) << 16
            | u64::from(self.gso_size) << 32
            | u64::from(self.csum_start) << 48;
        (first.to_le(), self.csum_offset.to_le())
    }

    /// True if nothing is left to do for this packet.
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.flags & Self::NEEDS_CSUM == 0 && self.gso_type == gso::NONE
    }

    /// True if the checksum covers the pseudo-header only.
    #[inline(always)]
    pub fn needs_csum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// True for super-frames.
    #[inline(always)]
    pub fn is_super(&self) -> bool {
        self.gso_type != gso::NONE
    }

    /// Where the checksum is that covers the pseudo-header only.
    pub fn partial_at(&self) -> Option<usize> {
        let at = usize::from(self.csum_start) + usize::from(self.csum_offset);
        self.needs_csum().then_some(at)
    }

    /// What a receiver must be able to do to get the packet as it is; `None` if there is no such thing.
    #[inline(always)]
    fn needed(&self) -> Option<Abilities> {
        const TCPV4_ECN: u8 = gso::TCPV4 | gso::ECN;
        const TCPV6_ECN: u8 = gso::TCPV6 | gso::ECN;
        let needed = Abilities::NONE.with(Abilities::CSUM, self.needs_csum());
        let needed = needed.with(Abilities::ECN, self.gso_type & gso::ECN != 0);
        Some(match self.gso_type {
            gso::NONE => needed,
            gso::TCPV4 | TCPV4_ECN => needed.with(Abilities::TSO4, true),
            gso::TCPV6 | TCPV6_ECN => needed.with(Abilities::TSO6, true),
            gso::UDP_L4 => needed.with(Abilities::USO, true),
            _ => return None,
        })
    }

    /// Packets on the wire that a frame of `len` bytes stands for, and their bytes.
    #[inline(always)]
    pub fn on_wire(&self, len: usize) -> (u64, u64) {
        if !self.is_super() {
            return (1, len as u64);
        }
        let headers = usize::from(self.hdr_len);
        let n = len.saturating_sub(headers).div_ceil(usize::from(self.gso_size).max(1)).max(1);
        (n as u64, (len + (n - 1) * headers) as u64)
    }

    /// Bytes of the longest packet on the wire that a frame of `len` bytes stands for.
    #[inline(always)]
    pub fn longest(&self, len: usize) -> usize {
        match self.is_super() {
            true => len.min(usize::from(self.hdr_len) + usize::from(self.gso_size)),
            false => len,
        }
    }

    /// The frame became `n` bytes longer in front of what is to be checksummed.
    pub(crate) fn shift(&mut self, n: i32) {
        if !self.is_none() {
            let moved = |at: u16| (i32::from(at) + n).clamp(0, i32::from(u16::MAX)) as u16;
            self.hdr_len = moved(self.hdr_len);
            self.csum_start = moved(self.csum_start);
        }
    }

    /// What [`Offload::check`] says of a frame of `len` bytes if its checksum is to be completed, as the sender
    /// may ask, and nothing else is asked for. That is the usual packet, so it takes few instructions.
    #[inline(always)]
    pub fn checksum_alone(&self, len: usize) -> Option<Offload> {
        let Offload { csum_start, csum_offset, .. } = *self;
        let inside =
            csum_start >= 14 && usize::from(csum_start) + usize::from(csum_offset) + 2 <= len;
        (self.needs_csum() && !self.is_super() && inside).then_some(Offload {
            flags: Self::NEEDS_CSUM,
            gso_type: gso::NONE,
            hdr_len: 0,
            gso_size: 0,
            csum_start,
            csum_offset,
        })
    }

    /// Checks what a sender that may do `allowed` says of a frame of `len` bytes, of which `header` are the
    /// first. What is only a hint is corrected: the length of the headers, and a super-frame that is no
    /// longer than one segment.
    ///
    /// # Errors
    /// Each lie has a reason of its own.
    pub fn check(
        mut self,
        header: &[u8],
        len: usize,
        allowed: Abilities,
    ) -> Result<Offload, DropReason> {
        self.flags &= Self::NEEDS_CSUM;
        if !self.needed().is_some_and(|needed| allowed.has(needed)) {
            return Err(DropReason::RxInvalidOffload);
        }
        let at = usize::from(self.csum_start);
        let inside = at >= 14 && at + usize::from(self.csum_offset) + 2 <= len;
        if self.needs_csum() && !inside {
            return Err(DropReason::RxChecksumOutside);
        }
        if !self.is_super() {
            debug_assert!(self.checksum_alone(len).is_some() == self.needs_csum());
            return Ok(Offload { hdr_len: 0, gso_size: 0, ..self });
        }
        // Segments get checksums, so there must be a place for them (virtio 1.3, 5.1.6.2.1).
        if !self.needs_csum() || usize::from(self.hdr_len) > len {
            return Err(DropReason::RxSuperFrameHeaders);
        }
        let headers = self.headers(header).ok_or(DropReason::RxSuperFrameHeaders)?;
        let payload = len.checked_sub(headers).ok_or(DropReason::RxSuperFrameHeaders)?;
        let size = usize::from(self.gso_size);
        let is_udp = self.gso_type == gso::UDP_L4;
        let least = if is_udp { payload.div_ceil(UDP_SEGMENTS).max(1) } else { TCP_PAYLOAD };
        if size < least || headers + size > usize::from(u16::MAX) {
            return Err(DropReason::RxSegmentSize);
        }
        if payload <= size {
            return Ok(Offload { gso_type: gso::NONE, hdr_len: 0, gso_size: 0, ..self });
        }
        // `headers` is at most `len` and reaches no further than 60 bytes beyond a u16, checked above.
        Ok(Offload { hdr_len: headers as u16, ..self })
    }

    /// Bytes of the headers of a super-frame, if it is one of TCP or UDP as it says. Trusts nothing.
    fn headers(&self, h: &[u8]) -> Option<usize> {
        let l4 = usize::from(self.csum_start);
        let tcp = self.gso_type != gso::UDP_L4;
        let protocol = if tcp { 6 } else { 17 };
        if self.csum_offset != if tcp { 16 } else { 6 } {
            return None;
        }
        let network = network(h)?;
        let is_v4 = match self.gso_type & !gso::ECN {
            gso::TCPV4 => true,
            gso::TCPV6 => false,
            _ => h.get(network)? >> 4 == 4,
        };
        match is_v4 {
            true => {
                let first = *h.get(network)?;
                let whole = network + usize::from(first & 15) * 4 == l4 && first >> 4 == 4;
                let fragment = u16::from_be_bytes([*h.get(network + 6)?, *h.get(network + 7)?]);
                let plain = first & 15 >= 5 && fragment & 0x3fff == 0;
                (whole && plain && *h.get(network + 9)? == protocol).then_some(())?;
            }
            false => extensions(h, network, l4, protocol)?,
        }
        if !tcp {
            return Some(l4 + 8);
        }
        let bytes = usize::from(*h.get(l4 + 12)? >> 4) * 4;
        (bytes >= 20).then_some(l4 + bytes)
    }

    /// Completes the checksum of a whole frame.
    pub fn complete(&mut self, frame: &mut [u8]) {
        let (Some(at), start) = (self.partial_at(), usize::from(self.csum_start)) else { return };
        if let Some(covered) = frame.get(start..)
            && at + 2 <= frame.len()
        {
            let sum = never_zero(checksum::internet(0, covered));
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        *self = Offload::default();
    }
}

/// A checksum as it is stored: 0 says "none" in UDP, and its other form is as good everywhere.
pub(crate) fn never_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// True for frames with MPLS labels, which no receiver cuts.
pub(crate) fn is_labelled(h: &[u8]) -> bool {
    let mut types = h.get(12..).unwrap_or_default().chunks_exact(4);
    let inner = types.find(|t| !matches!(t[..2], [0x81, 0x00] | [0x88, 0xa8]));
    inner.is_some_and(|t| matches!(t[..2], [0x88, 0x47 | 0x48]))
}

/// Where the IP header begins: behind tags, and behind MPLS labels if there are any. `None` if there is
/// none, or of another version than its EtherType says.
pub(crate) fn network(h: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match h.get(at..at + 2)? {
            [0x81, 0x00] | [0x88, 0xa8] => at += 4,
            [0x88, 0x47 | 0x48] => break,
            [0x08, 0x00] => return (h.get(at + 2)? >> 4 == 4).then_some(at + 2),
            [0x86, 0xdd] => return (h.get(at + 2)? >> 4 == 6).then_some(at + 2),
            _ => return None,
        }
    }
    at += 2;
    // The bottom of the stack has its bit set.
    while h.get(at + 2)? & 1 == 0 {
        at += 4;
    }
    Some(at + 4)
}

/// Follows the extension headers of IPv6 to where the transport header is said to be (RFC 8200, 4).
fn extensions(h: &[u8], network: usize, l4: usize, protocol: u8) -> Option<()> {
    if h.get(network)? >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (*h.get(network + 6)?, network + 40);
    for _ in 0..EXTENSIONS {
        if at >= l4 {
            break;
        }
        // Hop-by-hop options, routing, destination options; a fragment cannot be cut.
        if !matches!(next, 0 | 43 | 60) {
            return None;
        }
        (next, at) = (*h.get(at)?, at + (usize::from(*h.get(at + 1)?) + 1) * 8);
    }
    (at == l4 && next == protocol).then_some(())
}

#[cfg(test)]
mod tests;
