//! What a buffer holds and how it is cut: the virtio-net header (virtio 1.3 section 5.1.6) and descriptor layouts.

use crate::ring::Piece;
use crate::wire::feature;

/// Descriptors of one chain at most: a 64 KiB frame in 4 KiB pages takes 17, Linux sends up to 19.
pub const MAX_PIECES: usize = 64;

/// The virtio-net header, in host order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// NEEDS_CSUM 1, DATA_VALID 2.
    pub flags: u8,
    /// NONE 0, TCPV4 1, UDP 3, TCPV6 4, UDP_L4 5, ECN 0x80.
    pub gso_type: u8,
    /// Bytes of headers before the payload.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where checksumming starts.
    pub csum_start: u16,
    /// Where the checksum goes, from there.
    pub csum_offset: u16,
    /// Buffers of a received frame.
    pub num_buffers: u16,
}

impl NetHeader {
    /// Its size with these features: 12 bytes with `num_buffers`, else 10 (legacy only).
    pub fn size(features: u64) -> usize {
        if features & (feature::VERSION_1 | feature::MRG_RXBUF) != 0 { 12 } else { 10 }
    }

    /// Its 12 bytes.
    pub fn bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words =
            [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> NetHeader {
        let word =
            |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        NetHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }
}

/// How a buffer (virtio-net header, then frame) is cut into descriptors.
///
/// The pieces of one buffer lie in reverse order in memory, so a device that takes a chain for one stretch is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    cut: Cut,
    pub(crate) indirect: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cut {
    Whole,
    AfterHeader,
    Equal(usize),
    At(Vec<u32>),
}

impl Layout {
    /// One descriptor.
    pub fn whole() -> Layout {
        Layout { cut: Cut::Whole, indirect: false }
    }
    /// The virtio-net header in a descriptor of its own.
    pub fn header_split() -> Layout {
        Layout { cut: Cut::AfterHeader, indirect: false }
    }
    /// `count` pieces as equal as can be; the header may straddle them.
    pub fn pieces(count: usize) -> Layout {
        Layout { cut: Cut::Equal(count.max(1)), indirect: false }
    }
    /// Pieces of these lengths, and one of what is left.
    pub fn lengths(lengths: &[u32]) -> Layout {
        Layout { cut: Cut::At(lengths.to_vec()), indirect: false }
    }
    /// The same in an indirect table (needs INDIRECT_DESC).
    pub fn indirect(mut self) -> Layout {
        self.indirect = true;
        self
    }
    pub(crate) fn is_single(&self) -> bool {
        self.cut == Cut::Whole || self.indirect
    }

    /// Cuts `total` bytes that begin at `gpa`. Empty pieces are left out.
    pub(crate) fn cut(
        &self,
        header: u32,
        total: u32,
        gpa: u64,
        writable: bool,
        out: &mut Vec<Piece>,
    ) {
        out.clear();
        let mut done = 0;
        let mut push = |len: u32| {
            let len = len.min(total - done);
            done += len;
            if len > 0 {
                out.push(Piece { gpa: gpa + u64::from(total - done), len, writable });
            }
        };
        match &self.cut {
            Cut::Whole => {}
            Cut::AfterHeader => push(header),
            Cut::Equal(count) => (1..*count).for_each(|_| push((total / *count as u32).max(1))),
            Cut::At(lengths) => lengths.iter().for_each(|&len| push(len)),
        }
        push(total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(layout: Layout, total: u32) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        layout.cut(12, total, 1000, true, &mut out);
        assert!(out.iter().all(|piece| piece.writable));
        out.iter().map(|piece| (piece.gpa, piece.len)).collect()
    }

    #[test]
    fn pieces_cover_the_buffer_in_reverse() {
        assert_eq!(cut(Layout::whole(), 72), [(1000, 72)]);
        assert_eq!(cut(Layout::header_split(), 72), [(1060, 12), (1000, 60)]);
        assert_eq!(cut(Layout::pieces(3), 10), [(1007, 3), (1004, 3), (1000, 4)]);
        assert_eq!(cut(Layout::pieces(5), 2), [(1001, 1), (1000, 1)]);
        assert_eq!(cut(Layout::lengths(&[4, 0, 9]), 10), [(1006, 4), (1000, 6)]);
    }

    #[test]
    fn headers_go_there_and_back() {
        let header = NetHeader {
            flags: 1,
            gso_type: 4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0x1234,
        };
        assert_eq!(NetHeader::parse(&header.bytes()), header);
        assert_eq!(header.bytes()[10..], [0x34, 0x12]);
        assert_eq!((NetHeader::size(0), NetHeader::size(feature::VERSION_1)), (10, 12));
    }
}
