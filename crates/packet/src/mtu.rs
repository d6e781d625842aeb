//! Which frames an MTU allows.

use crate::Packet;

/// Bytes of an Ethernet header, which MTUs do not count.
const ETHERNET: usize = 14;
/// Bytes of a VLAN tag, and how many of them MTUs do not count either.
const TAG: usize = 4;
const TAGS: usize = 2;
/// Types of VLAN tags: IEEE 802.1Q and 802.1ad.
const TYPES: [[u8; 2]; TAGS] = [[0x81, 0x00], [0x88, 0xa8]];

/// Bytes of the longest frame without tags that an MTU of `mtu` bytes allows.
#[inline(always)]
pub fn longest_untagged(mtu: u32) -> usize {
    mtu as usize + ETHERNET
}

impl Packet {
    /// Whether an MTU whose longest untagged frame has `longest` bytes allows it: a super-frame, whether it allows its
    /// segments. Up to two VLAN tags make a frame longer, so one that a flow pushes does not shorten what may be sent.
    #[inline(always)]
    pub fn fits(&self, longest: usize) -> bool {
        let len = self.offload.longest(self.len());
        len <= longest || len <= longest + tag_bytes(self.header())
    }
}

/// Bytes of a frame's outermost tags, as far as MTUs do not count them.
#[cold]
fn tag_bytes(frame: &[u8]) -> usize {
    let is_tag = |n: &usize| {
        let kind = frame.get(ETHERNET - 2 + n * TAG..).and_then(|rest| rest.first_chunk::<2>());
        kind.is_some_and(|kind| TYPES.contains(kind))
    };
    TAG * (0..TAGS).take_while(is_tag).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BurstBuf, Lender, Offload, gso};

    struct Nobody;
    impl Lender for Nobody {
        fn give_back(&self) {}
    }

    /// A frame of `len` bytes whose types from the Ethernet header on are `types`.
    fn frame(types: &[u16], len: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for kind in types {
            frame.extend(kind.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.resize(len, 0);
        frame
    }

    #[test]
    fn each_tag_allows_four_bytes_more_and_a_third_does_not() {
        let (ip, q, ad) = (0x0800, 0x8100, 0x88a8);
        let cases: [(&[u16], usize); 8] = [
            (&[ip], 0),
            (&[ip, q, q], 0),
            (&[q, ip], 4),
            (&[ad, ip], 4),
            (&[ad, q, ip], 8),
            (&[q, q, ip], 8),
            (&[q, q, q, ip], 8),
            (&[0x9100, q, ip], 0),
        ];
        for (types, more) in cases {
            let most = longest_untagged(68) + more;
            for len in [most - 9, most, most + 1, most + 9] {
                let mut buf = BurstBuf::new();
                buf.push().expect("room").set_header(&frame(types, len));
                let burst = buf.lend(&Nobody);
                let fits = burst.packets()[0].fits(longest_untagged(68));
                assert_eq!(fits, len <= most, "{types:x?}, {len} bytes");
            }
        }
    }

    #[test]
    fn segments_count_and_not_the_super_frame() {
        let mut buf = BurstBuf::new();
        buf.push().expect("room").set_header(&frame(&[0x8100, 0x0800], 128));
        let offload = Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: gso::TCPV4,
            hdr_len: 58,
            gso_size: 40,
            csum_start: 38,
            csum_offset: 16,
        };
        buf.set_offload(offload);
        let burst = buf.lend(&Nobody);
        // The first segment has 98 bytes, four of which are a tag.
        assert!(burst.packets()[0].fits(longest_untagged(80)));
        assert!(!burst.packets()[0].fits(longest_untagged(79)));
    }
}
