//! The frames of the load: UDP over IPv4, told apart by their ports.

use std::sync::Arc;

use virtio_driver::NetHeader;

/// Where the UDP ports are in a frame without VLAN tag or IPv4 options.
pub const PORTS_AT: usize = 34;

/// The destination port of flows that differ in the source port only.
const DESTINATION: u16 = 2000;

/// Exponent of the zipf distribution: the usual model of flow popularity.
const ZIPF_EXPONENT: f64 = 1.0;

/// Draws of a zipf sequence: enough for its tail to appear, little enough (1 MiB) to stay in the caches.
const ZIPF_DRAWS: usize = 1 << 18;

/// Writes the frame of `bytes` bytes that guest `from` sends to the other of its pair (0 and 1, 2 and 3, ...) in flow `flow`.
pub fn write(from: u8, flow: u32, bytes: usize, out: &mut Vec<u8>) {
    let to = from ^ 1;
    out.clear();
    out.extend_from_slice(&[2, 0, 0, 0, 0, 0x10 + to, 2, 0, 0, 0, 0, 0x10 + from, 8, 0]);
    let [high, low] = ((bytes - 14) as u16).to_be_bytes();
    let mut ip =
        [0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1 + from, 10, 0, 0, 1 + to];
    let sum: u32 = ip.chunks_exact(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    [ip[10], ip[11]] = (!(folded as u16)).to_be_bytes();
    out.extend_from_slice(&ip);
    out.extend_from_slice(&ports(flow));
    // Checksum 0: none, so that the ports can be changed alone.
    let [high, low] = ((bytes - 34) as u16).to_be_bytes();
    out.extend_from_slice(&[high, low, 0, 0]);
    out.resize(bytes, 0x5a);
}

/// TCP headers of a super-frame, with timestamps.
const TCP_BYTES: usize = 32;
/// Payload of a segment of a super-frame.
const SEGMENT: u16 = 1448;

/// The virtio-net header of what [`write()`] or [`write_tcp`] wrote, if its checksum is to be completed.
pub fn header(tcp: bool) -> NetHeader {
    NetHeader {
        flags: 1,
        gso_type: u8::from(tcp),
        hdr_len: if tcp { 34 + TCP_BYTES as u16 } else { 0 },
        gso_size: if tcp { SEGMENT } else { 0 },
        csum_start: 34,
        csum_offset: if tcp { 16 } else { 6 },
        num_buffers: 0,
    }
}

/// As [`write()`], a super-frame of TCP.
pub fn write_tcp(from: u8, flow: u32, bytes: usize, out: &mut Vec<u8>) {
    write(from, flow, bytes, out);
    out[23] = 6;
    // The IP header's checksum: 6 in the place of 17.
    let sum = u32::from(u16::from_be_bytes([out[24], out[25]])) + 11;
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    out[24..26].copy_from_slice(&folded.to_be_bytes());
    out[38..50].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0]);
    out[50..54].fill(0);
    out[54..66].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
}

/// The UDP ports of a flow: the low half of its number in the source, the high half on top of the destination.
pub fn ports(flow: u32) -> [u8; 4] {
    let [a, b] = (flow as u16).to_be_bytes();
    let [c, d] = (DESTINATION + (flow >> 16) as u16).to_be_bytes();
    [a, b, c, d]
}

/// Each of `flows` flows in turn.
pub fn uniform(flows: u32) -> Arc<[[u8; 4]]> {
    (0..flows).map(ports).collect()
}

/// Flows drawn by a zipf distribution over `flows`; the same draws every time.
pub fn zipf(flows: u32) -> Arc<[[u8; 4]]> {
    let mut total = 0.0;
    let cumulated: Vec<f64> = (1..=flows)
        .map(|rank| {
            total += f64::from(rank).powf(-ZIPF_EXPONENT);
            total
        })
        .collect();
    let mut random = super::statistics::Random::new();
    let draw = |_| {
        let at = random.share() * total;
        ports(cumulated.partition_point(|&c| c < at) as u32)
    };
    (0..ZIPF_DRAWS).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_length_and_a_right_checksum() {
        let mut frame = Vec::new();
        write(0, 70_000, 64, &mut frame);
        assert_eq!(frame.len(), 64);
        let words = frame[14..34].chunks_exact(2);
        let sum: u32 = words.map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(frame[PORTS_AT..PORTS_AT + 4], ports(70_000));
    }

    #[test]
    fn super_frames_have_a_right_checksum_too() {
        let mut frame = Vec::new();
        write_tcp(1, 3, 65_226, &mut frame);
        let words = frame[14..34].chunks_exact(2);
        let sum: u32 = words.map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
        assert_eq!(((sum & 0xffff) + (sum >> 16), frame.len(), frame[23]), (0xffff, 65_226, 6));
    }

    #[test]
    fn zipf_prefers_the_first_flows() {
        let draws = zipf(1000);
        let share =
            |flow| draws.iter().filter(|d| **d == ports(flow)).count() as f64 / draws.len() as f64;
        assert!(share(0) > 1.8 * share(1) && share(1) > 5.0 * share(20));
        assert_eq!(uniform(3).to_vec(), [ports(0), ports(1), ports(2)]);
    }
}
