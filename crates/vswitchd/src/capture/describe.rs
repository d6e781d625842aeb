//! Captured packets in words.

use datapath::{Captured, Direction};
use flow::{Extracted, extract, odp};
use packet::{Offload, gso};
use std::time::Duration;

/// A line for a packet: time of day (UTC), direction, length, and the headers as megaflows have them.
pub(super) fn line(time: Duration, port: &str, packet: &Captured) -> String {
    let mut out = Extracted::default();
    // Headers that were not kept are not told.
    let _ = extract(&packet.frame, packet.len, 0, &mut out);
    let way = match packet.direction {
        Direction::In => "in ",
        Direction::Out => "out",
    };
    let (second, micros) = (time.as_secs() % 86_400, time.subsec_micros());
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    let headers = odp::format_packet(&out.key);
    let more = offload(&packet.offload).map_or_else(String::new, |o| format!(" [{o}]"));
    format!(
        "{hours:02}:{minutes:02}:{seconds:02}.{micros:06} {port} {way} length {}: {headers}{more}\n",
        packet.len
    )
}

/// What is left to do for a packet; `None` for nothing.
pub(super) fn offload(o: &Offload) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(at) = o.partial_at() {
        parts.push(format!("checksum to be completed: from byte {}, stored at {at}", o.csum_start));
    }
    let kind = match o.gso_type & !gso::ECN {
        gso::NONE => None,
        gso::TCPV4 => Some("TCPv4"),
        gso::TCPV6 => Some("TCPv6"),
        _ => Some("UDP"),
    };
    if let Some(kind) = kind {
        let ecn = if o.gso_type & gso::ECN == 0 { "" } else { ", ECN" };
        parts.push(format!(
            "super-frame: {kind}{ecn}, gso_size {}, headers of {} bytes",
            o.gso_size, o.hdr_len
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_headers_and_offload() {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x04, 0x00, 0x00, 0x35, 0, 26, 0, 0]);
        frame.resize(60, 0);
        let offload = Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: gso::UDP_L4,
            hdr_len: 42,
            gso_size: 9,
            csum_start: 34,
            csum_offset: 6,
        };
        let direction = Direction::Out;
        let mut packet = Captured { time_ns: 0, direction, len: 60, offload, frame };
        let time = Duration::new(86_400 + 3_723, 4_005_999);
        assert_eq!(
            line(time, "vm1", &packet),
            "01:02:03.004005 vm1 out length 60: eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),\
             eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),\
             udp(src=1024,dst=53) [checksum to be completed: from byte 34, stored at 40; super-frame: \
             UDP, gso_size 9, headers of 42 bytes]\n"
        );
        packet.offload = Offload::default();
        packet.direction = Direction::In;
        packet.frame.truncate(16);
        let cut = line(time, "vm1", &packet);
        assert!(cut.contains(" in  length 60: eth(") && cut.ends_with(")\n"), "{cut}");
    }
}
