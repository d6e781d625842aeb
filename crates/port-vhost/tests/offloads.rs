//! Checksums and super-frames between two guests: passed on whole where the receiver can take them, finished
//! in its buffers where not; lies are dropped and counted.

mod common;

use common::{Lab, PATIENCE, until};
use packet::DropReason;
use packet::checksum::{internet, partial};
use port_vhost::{Mode, Offers};
use std::time::Instant;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, Layout, NetHeader};

const BOTH: [Mode; 2] = [Mode::Server, Mode::Client];
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;

/// A frame of TCP (or UDP) with `payload` bytes that is to be cut into pieces of `size`.
fn super_frame(kind: u8, v6: bool, payload: usize, size: u16) -> (NetHeader, Vec<u8>) {
    let l4_len = if kind == UDP { 8 } else { 32 } + payload;
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let protocol = if kind == UDP { 17 } else { 6 };
    if v6 {
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend((l4_len as u16).to_be_bytes());
        f.extend([protocol, 64]);
        f.extend((0..32).map(|i| if i == 0 || i == 16 { 0xfe } else { i }));
    } else {
        f.extend([8, 0, 0x45, 0]);
        f.extend((l4_len as u16 + 20).to_be_bytes());
        f.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = internet(0, &f[14..34]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let start = f.len();
    f.extend([0x12, 0x34, 0x56, 0x78]);
    if kind == UDP {
        f.extend((l4_len as u16).to_be_bytes());
        f.extend([0, 0]);
    } else {
        f.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0x80, 0x19, 1, 0, 0, 0, 0, 0]);
        f.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    }
    let headers = f.len();
    f.extend((0..payload).map(|i| (i * i / 7) as u8));
    let offset = if kind == UDP { 6 } else { 16 };
    let sum = !internet(pseudo(&f, start), &[]);
    f[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    let header = NetHeader {
        flags: 1,
        gso_type: kind,
        hdr_len: headers as u16,
        gso_size: size,
        csum_start: start as u16,
        csum_offset: offset as u16,
        num_buffers: 0,
    };
    (header, f)
}

/// The pseudo-header's sum of a frame whose transport header is at `start`.
fn pseudo(f: &[u8], start: usize) -> u64 {
    let addresses = if f[14] >> 4 == 4 { 26..34 } else { 22..54 };
    let protocol = if f[14] >> 4 == 4 { f[23] } else { f[20] };
    partial(0, &f[addresses]) + u64::from(protocol) + (f.len() - start) as u64
}

/// Checks that a frame is whole in itself, and returns its payload and its sequence number.
fn verified(header: &NetHeader, mut f: Vec<u8>) -> (Vec<u8>, u32) {
    let v4 = f[14] >> 4 == 4;
    let start = if v4 { 34 } else { 54 };
    let (tcp, field) = match if v4 { f[23] } else { f[20] } {
        6 => (true, start + 16),
        _ => (false, start + 6),
    };
    if v4 {
        assert_eq!(internet(0, &f[14..34]), 0, "the IP header's checksum");
        assert_eq!(usize::from(u16::from_be_bytes([f[16], f[17]])), f.len() - 14);
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([f[18], f[19]])), f.len() - 54);
    }
    if header.flags & 1 != 0 {
        assert_eq!(
            (usize::from(header.csum_start), field - start),
            (start, header.csum_offset.into())
        );
        let stored = u16::from_be_bytes([f[field], f[field + 1]]);
        assert_eq!(stored, !internet(pseudo(&f, start), &[]), "the pseudo-header's sum");
        let sum = internet(0, &f[start..]);
        f[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    assert_eq!(internet(pseudo(&f, start), &f[start..]), 0, "the transport checksum");
    let sequence = u32::from_be_bytes([f[start + 4], f[start + 5], f[start + 6], f[start + 7]]);
    let headers = if tcp { 32 } else { 8 };
    (f.split_off(start + headers), sequence)
}

fn guest(config: Config, features: u64) -> Driver {
    let mut config = config.with(features);
    (config.tx_buffer, config.queue_size) = (65_600, 256);
    if config.features & feature::MRG_RXBUF == 0 && features & feature::GUEST_TSO4 != 0 {
        config.rx_buffer = 65_600;
    }
    Driver::connect(config).expect("connects")
}

/// Sends a frame, waits until it was dealt with, and returns what came of it.
fn through(
    a: &mut Driver,
    b: &mut Driver,
    header: &NetHeader,
    frame: &[u8],
    layout: &Layout,
) -> Vec<(NetHeader, Vec<u8>)> {
    a.tx_chain(0, header, &[frame], layout).expect("sends");
    assert!(a.drain_tx(0, Instant::now() + PATIENCE).expect("drains"));
    let mut got = Vec::new();
    b.rx(0, 10_000, |header, frame| got.push((*header, frame.to_vec()))).expect("receives");
    got
}

const PLAIN: u64 = 0;
const CSUM: u64 = feature::GUEST_CSUM;
const ALL: u64 = feature::GUEST_OFFLOADS;

#[test]
fn every_receiver_gets_what_it_can_take() {
    let kinds = [(TCP4, false), (TCP6, true), (UDP, false), (UDP, true)];
    for n in 0..24usize {
        let lab = Lab::new(&BOTH, 1500);
        let (takes, rings, mergeable) =
            ([PLAIN, CSUM, ALL][n % 3], [0, feature::RING_PACKED][n / 3 % 2], n / 6 % 2 == 0);
        let mut a = guest(lab.guest(0), feature::HOST_OFFLOADS | rings);
        let to = lab.guest(1);
        let to = if mergeable { to } else { to.without(feature::MRG_RXBUF) };
        let mut b = guest(to, takes | rings);
        for (k, (kind, v6)) in kinds.into_iter().enumerate() {
            let payload = [1401, 2800, 20_000, 64_000][(n + k) % 4];
            let (header, frame) = super_frame(kind, v6, payload, 1400);
            let layout =
                [Layout::whole(), Layout::pieces(17), Layout::header_split()][n % 3].clone();
            let layout = if n % 2 == 0 { layout.indirect() } else { layout };
            let got = through(&mut a, &mut b, &header, &frame, &layout);
            let what = format!("variant {n}, kind {kind}, v6 {v6}, {payload} bytes");
            let all = &frame[usize::from(header.hdr_len)..];
            if takes == ALL {
                assert_eq!(got.len(), 1, "{what}");
                assert_eq!(got[0].1, frame, "{what}");
                let as_sent = NetHeader { num_buffers: got[0].0.num_buffers, ..header };
                assert_eq!(got[0].0, as_sent, "{what}");
                continue;
            }
            assert_eq!(got.len(), payload.div_ceil(1400), "{what}");
            let mut joined = Vec::new();
            for (header, frame) in got {
                assert_eq!((header.flags, header.gso_type), (u8::from(takes == CSUM), 0), "{what}");
                let (part, sequence) = verified(&header, frame);
                if kind != UDP {
                    assert_eq!(
                        sequence,
                        0xffff_ff00u32.wrapping_add(joined.len() as u32),
                        "{what}"
                    );
                }
                joined.extend(part);
            }
            assert!(joined == all, "{what}");
        }
        let (from, to) = (lab.counters(0), lab.counters(1));
        assert_eq!((from.rx_dropped, to.tx_dropped), (0, 0), "{to:?}");
        assert_eq!(
            (from.rx_packets, from.rx_bytes),
            (to.tx_packets, to.tx_bytes),
            "as on the wire"
        );
        let whole = if takes == ALL { 4 } else { 0 };
        assert_eq!((from.rx_super_frames, to.tx_super_frames), (4, whole));
        let cut = if takes == ALL { 0 } else { from.rx_packets };
        let completed = if takes == PLAIN { cut } else { 0 };
        assert_eq!((to.tx_segments, to.tx_checksums), (cut, completed));
    }
}

#[test]
fn checksums_are_completed_only_for_who_cannot() {
    for takes in [PLAIN, CSUM] {
        let lab = Lab::new(&BOTH, 1500);
        let mut a = guest(lab.guest(0), feature::CSUM);
        let mut b = guest(lab.guest(1), takes);
        for (payload, pieces) in (0..1400).step_by(97).zip(1..) {
            let (header, frame) = super_frame(UDP, pieces % 2 == 0, payload, 0);
            let header = NetHeader { gso_type: 0, hdr_len: 0, ..header };
            let got = through(&mut a, &mut b, &header, &frame, &Layout::pieces(pieces));
            let [(said, got)] = &got[..] else { panic!("{} frames", got.len()) };
            assert_eq!(said.flags, u8::from(takes == CSUM));
            assert_eq!(verified(said, got.clone()).0, frame[usize::from(header.csum_start) + 8..]);
        }
        assert_eq!(lab.counters(1).tx_checksums, if takes == CSUM { 0 } else { 15 });
    }
}

#[test]
fn lies_are_dropped_each_with_its_reason() {
    use DropReason::*;
    for layout in [Layout::whole(), Layout::pieces(5)] {
        let lab = Lab::new(&BOTH, 1500);
        let mut a = guest(lab.guest(0), feature::CSUM | feature::HOST_TSO4);
        let mut b = guest(lab.guest(1), ALL);
        let (good, frame) = super_frame(TCP4, false, 5000, 1448);
        let lies = [
            (NetHeader { csum_start: 6000, ..good }, RxChecksumOutside),
            (NetHeader { csum_start: 65_535, csum_offset: 65_535, ..good }, RxChecksumOutside),
            (NetHeader { csum_start: 0, csum_offset: 0, ..good }, RxChecksumOutside),
            (NetHeader { gso_size: 0, ..good }, RxSegmentSize),
            (NetHeader { gso_size: 1, ..good }, RxSegmentSize),
            (NetHeader { gso_size: 65_535, ..good }, RxSegmentSize),
            (NetHeader { hdr_len: 60_000, ..good }, RxSuperFrameHeaders),
            (NetHeader { csum_start: 14, ..good }, RxSuperFrameHeaders),
            (NetHeader { flags: 0, ..good }, RxSuperFrameHeaders),
            (NetHeader { gso_type: TCP6, ..good }, RxInvalidOffload),
            (NetHeader { gso_type: UDP, ..good }, RxInvalidOffload),
            (NetHeader { gso_type: 3, ..good }, RxInvalidOffload),
            (NetHeader { gso_type: TCP4 | 0x80, ..good }, RxInvalidOffload),
            (NetHeader { gso_type: 0x7f, ..good }, RxInvalidOffload),
        ];
        for (lie, reason) in &lies {
            let before = lab.drops(0, *reason);
            assert!(through(&mut a, &mut b, lie, &frame, &layout).is_empty(), "{lie:?}");
            assert_eq!(lab.drops(0, *reason), before + 1, "{lie:?}");
        }
        let (_, udp) = super_frame(UDP, false, 5000, 1448);
        assert!(through(&mut a, &mut b, &good, &udp, &layout).is_empty(), "no TCP");
        assert_eq!(lab.counters(0).rx_dropped, lies.len() as u64 + 1);
        // The number of buffers is the device's to say (virtio 1.3, 5.1.6.2.1).
        let odd = NetHeader { num_buffers: 65_535, flags: 0xff, ..good };
        assert_eq!(through(&mut a, &mut b, &odd, &frame, &layout).len(), 1);
    }
}

#[test]
fn who_has_too_little_room_is_counted_for() {
    let lab = Lab::new(&BOTH, 1000);
    let mut a = guest(lab.guest(0), feature::HOST_OFFLOADS);
    let (header, frame) = super_frame(TCP4, false, 20_000, 1448);
    let mut b = guest(lab.guest(1), ALL);
    assert!(through(&mut a, &mut b, &header, &frame, &Layout::whole()).is_empty());
    assert_eq!(lab.drops(1, DropReason::TxMtuExceeded), 1, "segments longer than the MTU");
    let fits = NetHeader { gso_size: 900, ..header };
    assert_eq!(through(&mut a, &mut b, &fits, &frame, &Layout::whole()).len(), 1);
    // Takes super-frames, but posted buffers of a segment's size and cannot merge: it gets segments.
    drop(b);
    until("the guest is gone", || !lab.ports[1].status().connected);
    let small = lab.guest(1).without(feature::MRG_RXBUF).with(ALL);
    let mut b = Driver::connect(small).expect("connects");
    let got = through(&mut a, &mut b, &fits, &frame, &Layout::whole());
    assert_eq!(got.len(), 23);
    assert!(got.into_iter().all(|(h, f)| !verified(&h, f).0.is_empty()));
    // Not even that.
    drop(b);
    until("the guest is gone", || !lab.ports[1].status().connected);
    let mut small = lab.guest(1).without(feature::MRG_RXBUF).with(ALL);
    small.rx_buffer = 512;
    let mut b = Driver::connect(small).expect("connects");
    assert!(through(&mut a, &mut b, &fits, &frame, &Layout::whole()).is_empty());
    assert_eq!(lab.drops(1, DropReason::TxBufferTooSmall), 23);
    // A ring that runs out in the middle.
    drop(b);
    until("the guest is gone", || !lab.ports[1].status().connected);
    let mut small = lab.guest(1);
    small.queue_size = 8;
    let mut b = Driver::connect(small).expect("connects");
    let got = through(&mut a, &mut b, &fits, &frame, &Layout::whole());
    assert_eq!((got.len(), lab.drops(1, DropReason::TxRingFull)), (8, 15));
}

#[test]
fn offloads_can_be_switched_off() {
    let all = feature::HOST_OFFLOADS | feature::GUEST_OFFLOADS;
    let checksums = feature::CSUM | feature::GUEST_CSUM;
    let lab = Lab::new(&[Mode::Server; 3], 1500);
    let each = [(Offers::Nothing, 0), (Offers::Checksums, checksums), (Offers::All, all)];
    for (port, (offers, agreed)) in each.into_iter().enumerate() {
        lab.ports[port].set_offers(offers);
        let mut config = lab.guest(port);
        config.features |= all;
        let guest = Driver::connect(config).expect("connects");
        assert_eq!(guest.agreed().features & all, agreed);
    }
}
