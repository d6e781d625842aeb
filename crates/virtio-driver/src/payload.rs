//! Frames whose every byte can be foretold, and the check of what comes back: loss, duplication, reordering and corruption per flow.
//!
//! A frame is Ethernet, IPv4, UDP (checksum 0, which RFC 768 allows) and a body: magic, flow, frame length, sequence number, then bytes
//! from a generator seeded with all of these. The least frame is 60 bytes, what Ethernet's 64 are without the checksum.

use std::collections::BTreeMap;

/// Bytes of Ethernet, IPv4 and UDP headers.
pub const HEADERS: usize = 42;
/// Magic, flow, length, sequence number.
const BODY_HEAD: usize = 16;
/// The shortest frame.
pub const MIN_FRAME: usize = 60;
/// The longest frame: IPv4's total length is 16 bits.
pub const MAX_FRAME: usize = 14 + 65535;
const MAGIC: u32 = 0x7665_7269; // "veri"

/// Sequence numbers remembered for a flow at most, one bit each (8 MiB); beyond, a frame counts as foreign.
pub const MAX_SEQUENCE: u64 = 1 << 26;

/// One flow: who talks to whom, and its generator's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Names the flow; also its UDP source port's offset and the low bits of both IPv4 addresses.
    pub id: u16,
    /// Ethernet source.
    pub source: [u8; 6],
    /// Ethernet destination.
    pub destination: [u8; 6],
    /// Seed of the body.
    pub seed: u64,
}

impl Flow {
    /// A flow between two locally administered addresses made of `from` and `to`.
    pub fn between(id: u16, from: u8, to: u8) -> Flow {
        Flow {
            id,
            source: [2, 0, 0, 0, 0, from],
            destination: [2, 0, 0, 0, 0, to],
            seed: 0x5eed ^ u64::from(id),
        }
    }

    /// Writes frame `sequence` of `len` bytes (kept within [`MIN_FRAME`] and [`MAX_FRAME`]) in place of what is in `out`.
    pub fn frame(&self, sequence: u64, len: usize, out: &mut Vec<u8>) {
        let len = len.clamp(MIN_FRAME, MAX_FRAME);
        out.clear();
        out.extend_from_slice(&self.destination);
        out.extend_from_slice(&self.source);
        out.extend_from_slice(&[0x08, 0x00]);
        out.extend_from_slice(&self.ipv4((len - 14) as u16));
        let udp_len = (len - 34) as u16;
        for word in [4096 + (self.id & 0x7fff), 9, udp_len, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&(len as u16).to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        let mut state =
            self.seed ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (len as u64) << 48;
        while out.len() < len {
            let bytes = next(&mut state).to_le_bytes();
            let take = bytes.len().min(len - out.len());
            out.extend_from_slice(&bytes[..take]);
        }
    }

    fn ipv4(&self, total: u16) -> [u8; 20] {
        let [high, low] = self.id.to_be_bytes();
        let [len_high, len_low] = total.to_be_bytes();
        let from = self.source[5];
        let to = self.destination[5];
        let mut ip = [
            0x45, 0, len_high, len_low, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, from, high, low, 10, to,
            high, low,
        ];
        let sum: u32 =
            ip.chunks_exact(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        [ip[10], ip[11]] = (!(folded as u16)).to_be_bytes();
        ip
    }
}

/// SplitMix64: a public-domain generator, good enough to make each byte depend on seed and position.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What came back of one flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowReport {
    /// Good frames, each counted once.
    pub received: u64,
    /// Good frames seen before.
    pub duplicated: u64,
    /// Good frames that came after a later one.
    pub reordered: u64,
    /// Frames with a wrong byte or length.
    pub corrupt: u64,
    /// Highest sequence number, plus one.
    pub end: u64,
}

impl FlowReport {
    /// Frames missing of `sent`.
    pub fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.received)
    }
}

#[derive(Debug)]
struct Expected {
    flow: Flow,
    report: FlowReport,
    seen: Vec<u64>,
}

/// Checks frames against the flows it knows.
#[derive(Debug, Default)]
pub struct Checker {
    flows: BTreeMap<u16, Expected>,
    scratch: Vec<u8>,
    /// Frames of no known flow (a kernel's or a switch's own).
    pub foreign: u64,
}

impl Checker {
    /// A checker for these flows.
    pub fn new(flows: &[Flow]) -> Checker {
        let entry = |flow: &Flow| {
            (flow.id, Expected { flow: *flow, report: FlowReport::default(), seen: Vec::new() })
        };
        Checker { flows: flows.iter().map(entry).collect(), ..Checker::default() }
    }

    /// Looks at one frame; true if all of it is as sent.
    pub fn check(&mut self, frame: &[u8]) -> bool {
        let body = frame
            .get(HEADERS..HEADERS + BODY_HEAD)
            .and_then(|b| <[u8; BODY_HEAD]>::try_from(b).ok());
        let Some(body) = body.filter(|b| b[..4] == MAGIC.to_be_bytes()) else {
            self.foreign += 1;
            return false;
        };
        let id = u16::from_be_bytes([body[4], body[5]]);
        let len = usize::from(u16::from_be_bytes([body[6], body[7]]));
        let [.., a, b, c, d, e, f, g, h] = body;
        let sequence = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let Some(expected) = self.flows.get_mut(&id).filter(|_| sequence < MAX_SEQUENCE) else {
            self.foreign += 1;
            return false;
        };
        // 65,536 and more do not fit the field: compare modulo, and let the bytes decide.
        let len = if len == frame.len() & 0xffff { frame.len() } else { len };
        expected.flow.frame(sequence, len, &mut self.scratch);
        if self.scratch != frame {
            expected.report.corrupt += 1;
            return false;
        }
        expected.count(sequence);
        true
    }

    /// The first `limit` sequence numbers below `sent` that never came back.
    pub fn missing(&self, id: u16, sent: u64, limit: usize) -> Vec<u64> {
        let Some(expected) = self.flows.get(&id) else { return Vec::new() };
        let seen = |n: u64| {
            expected.seen.get((n / 64) as usize).is_some_and(|word| word & (1 << (n % 64)) != 0)
        };
        (0..sent).filter(|&n| !seen(n)).take(limit).collect()
    }

    /// What came back of a flow; nothing if it is not known.
    pub fn report(&self, id: u16) -> FlowReport {
        self.flows.get(&id).map_or_else(FlowReport::default, |expected| expected.report)
    }
}

impl Expected {
    fn count(&mut self, sequence: u64) {
        let (word, bit) = ((sequence / 64) as usize, 1u64 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.report.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.report.received += 1;
        if sequence < self.report.end {
            self.report.reordered += 1;
        }
        self.report.end = self.report.end.max(sequence + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let flow = Flow::between(3, 1, 2);
        for len in [60, 61, 64, 1514, 65535, 65536, MAX_FRAME] {
            let mut frame = Vec::new();
            flow.frame(7, len, &mut frame);
            assert_eq!(frame.len(), len);
            assert!(Checker::new(&[flow]).check(&frame));
            for at in (0..len).step_by(len / 60) {
                let mut checker = Checker::new(&[flow]);
                frame[at] ^= 0x10;
                assert!(!checker.check(&frame), "byte {at} of {len}");
                assert_eq!(checker.report(3).received, 0);
                frame[at] ^= 0x10;
            }
            assert!(!Checker::new(&[flow]).check(&frame[..len - 1]));
        }
    }

    #[test]
    fn loss_duplication_and_order_are_counted() {
        let flow = Flow::between(1, 1, 2);
        let mut checker = Checker::new(&[flow]);
        let mut frame = Vec::new();
        for sequence in [0, 1, 5, 3, 3, 6] {
            flow.frame(sequence, 100, &mut frame);
            checker.check(&frame);
        }
        let report = checker.report(1);
        let counts =
            (report.received, report.duplicated, report.reordered, report.corrupt, report.lost(8));
        assert_eq!(counts, (5, 1, 1, 0, 3));
        assert_eq!(checker.missing(1, 8, 10), [2, 4, 7]);
        Flow::between(2, 1, 2).frame(0, 100, &mut frame);
        checker.check(&frame);
        assert_eq!(checker.foreign, 1);
    }
}
