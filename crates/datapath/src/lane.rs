//! The shortest way: bursts whose packets all belong to the megaflow that the port's last packets had.
//!
//! Such a packet needs no key. Its megaflow says which bits of a frame's first 54 bytes must have which
//! value for the frame to be untagged TCP or UDP over IPv4, without options and no fragment, and to match
//! ([`Template`]); the frame is compared with that as it is. One guest that sends to another is served
//! like this whatever the tables look like, as long as all that is done is output. If a single packet of
//! the burst is another one, all go the ordinary way.

use crate::megaflow::Megaflow;
use flow::{ether_type, ip_proto};
use packet::Packet;
use packet::arch::{Quarter, masked_equal};

/// Ethernet, IPv4 and TCP headers.
const BYTES: usize = 54;
/// Where the quarters of a template are in a frame; the last two overlap.
const AT: [usize; 4] = [0, 16, 32, BYTES - 16];

/// What a frame's first bytes must be to belong to a megaflow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template {
    mask: [Quarter; 4],
    value: [Quarter; 4],
    tcp: bool,
}

impl Template {
    /// `None` if the megaflow does more than output, looks at other fields, or was made by a packet of
    /// another kind.
    pub(crate) fn new(flow: &Megaflow) -> Option<Template> {
        let key = &flow.origin;
        let tcp = key.nw_proto == ip_proto::TCP;
        let plain = key.dl_type.get() == ether_type::IPV4
            && (tcp || key.nw_proto == ip_proto::UDP)
            && key.vlan[0].tci.get() == 0
            && key.nw_frag == 0
            && key.recirc_id == 0;
        if !plain || !flow.wildcards.is_hot_only() || flow.outputs().is_none() {
            return None;
        }
        let m = flow.wildcards.bits();
        let (mut mask, mut value) = ([0; BYTES], [0; BYTES]);
        let mut put = |at: usize, m: &[u8], v: &[u8]| {
            for (i, (m, v)) in m.iter().zip(v).enumerate() {
                (mask[at + i], value[at + i]) = (*m, m & v);
            }
        };
        put(0, &m.dl_dst.0, &key.dl_dst.0);
        put(6, &m.dl_src.0, &key.dl_src.0);
        // EtherType, version and length of the header: what makes the rest be where it is.
        put(12, &[0xff; 3], &[0x08, 0x00, 0x45]);
        put(15, &[m.nw_tos], &[key.nw_tos]);
        put(20, &[0x3f, 0xff], &[0, 0]);
        put(22, &[m.nw_ttl, 0xff], &[key.nw_ttl, key.nw_proto]);
        put(26, m.nw_src.as_ref(), key.nw_src.as_ref());
        put(30, m.nw_dst.as_ref(), key.nw_dst.as_ref());
        put(34, m.tp_src.as_ref(), key.tp_src.as_ref());
        put(36, m.tp_dst.as_ref(), key.tp_dst.as_ref());
        if tcp {
            let [high, low] = m.tcp_flags.to_bytes();
            put(46, &[high & 0x0f, low], &key.tcp_flags.to_bytes());
        }
        Some(Template {
            mask: quarters(&mask).map(|q| Quarter(*q)),
            value: quarters(&value).map(|q| Quarter(*q)),
            tcp,
        })
    }

    /// The packet's TCP flags if it belongs to the megaflow. `None` also for lengths that contradict
    /// each other, which the parser deals with.
    #[inline(always)]
    fn matches(&self, packet: &Packet) -> Option<u16> {
        let b: &[u8; BYTES] = packet.first()?;
        let equal = masked_equal(quarters(b), &self.mask, &self.value);
        let total = usize::from(u16::from_be_bytes([b[16], b[17]]));
        let (headers, flags) = match self.tcp {
            true => (20 + usize::from(b[46] >> 4) * 4, u16::from_be_bytes([b[46] & 0x0f, b[47]])),
            false => (28, 0),
        };
        let fits = headers >= 28 + 12 * usize::from(self.tcp) && total >= headers;
        (equal && fits && 14 + total <= packet.len()).then_some(flags)
    }

    /// Bytes and TCP flags of these packets, if all belong to the megaflow.
    #[inline(always)]
    pub(crate) fn all(&self, packets: &[Packet]) -> Option<(u64, u16)> {
        let (mut bytes, mut flags) = (0, 0);
        for packet in packets {
            flags |= self.matches(packet)?;
            bytes += packet.len() as u64;
        }
        Some((bytes, flags))
    }
}

#[inline(always)]
fn quarters(bytes: &[u8; BYTES]) -> [&[u8; 16]; 4] {
    AT.map(|at| bytes[at..].first_chunk().expect("all quarters lie within the template"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{Action, DpPort, Effects, Extracted, FlowMask, Seen, Translation, extract};
    use packet::BurstBuf;
    use std::sync::Arc;

    struct Nothing;
    impl Effects for Nothing {
        fn apply(&self, _: &Seen) {}
    }

    /// xorshift64
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n as u64) as usize
        }
    }

    fn frame(tcp: bool) -> Vec<u8> {
        let mut f = vec![0; 70];
        f[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        f[12..24].copy_from_slice(&[8, 0, 0x45, 3, 0, 50, 0, 7, 0x40, 0, 64, 17]);
        f[26..38].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4]);
        if tcp {
            (f[23], f[46], f[47]) = (6, 0x50, 0x12);
        }
        f
    }

    /// A few bytes of the headers changed, or bits of them.
    fn spoil(f: &mut Vec<u8>, random: &mut Random) {
        for _ in 0..random.below(3) {
            let at = random.below(f.len().min(54));
            f[at] = match random.below(3) {
                0 => f[at] ^ 1 << random.below(8),
                1 => [0x81, 6, 17, 0x45, 0x46, 0, 0x60][random.below(7)],
                _ => random.below(256) as u8,
            };
        }
        if random.below(4) == 0 {
            f.truncate(30 + random.below(40));
        }
    }

    /// The parser and the megaflow decide: a template says yes only where they do, and for plain frames
    /// always where they do.
    #[test]
    fn a_template_says_what_the_parser_and_the_megaflow_say() {
        let mut random = Random(0x1234_5678_9abc_def1);
        let (mut templates, mut hits, mut misses) = (0, 0, 0);
        for _ in 0..4_000 {
            let mut origin = frame(random.below(2) == 0);
            spoil(&mut origin, &mut random);
            let mut key = Extracted::default();
            if extract(&origin, origin.len(), 1, &mut key).is_err() {
                continue;
            }
            let mut mask = FlowMask::default();
            for byte in zerocopy::IntoBytes::as_mut_bytes(mask.bits_mut()).iter_mut().take(48) {
                *byte = [0, 0, 0xff, random.below(256) as u8][random.below(4)];
            }
            let actions = vec![Action::Output(DpPort(2))];
            let answer = Translation { mask, actions, effects: Arc::new(Nothing) };
            let flow = Megaflow::new(&key.key, Seen::default(), answer, 0, 0);
            let Some(template) = Template::new(&flow) else { continue };
            templates += 1;
            for _ in 0..50 {
                let mut f = origin.clone();
                spoil(&mut f, &mut random);
                let mut buf = BurstBuf::new();
                let burst = buf.frame(&f).expect("a frame");
                let said = template.matches(&burst.packets()[0]);
                let mut key = Extracted::default();
                let read = extract(&f, f.len(), 1, &mut key).is_ok();
                let right = read && flow.matches(&key);
                match said {
                    Some(flags) => {
                        assert!(right, "{f:x?}");
                        assert_eq!(flags, crate::walk::tcp_flags(&key.key));
                        hits += 1;
                    }
                    None => {
                        // IP's version, which OVS does not look at, and lengths are as they should be.
                        let plain = f[14] == 0x45 && f[16..18] == [0, 50] && f.len() >= 64;
                        let plain = plain && (f[23] == 17 || f[46] == 0x50);
                        assert!(!plain || !right || f[..] != origin[..], "its own packet: {f:x?}");
                        misses += 1;
                    }
                }
            }
        }
        assert!(templates > 500 && hits > 5_000 && misses > 5_000, "{templates} {hits} {misses}");
    }
}
