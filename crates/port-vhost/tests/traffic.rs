//! Two guests exchange frames through two ports: every combination of features, one copy, and what
//! front ends do to a running port.

mod common;

use common::{Lab, PATIENCE, Traffic, exchange, ping, until, whole};
use packet::{DropReason, HEADER_BYTES};
use port::Port;
use port_vhost::Mode;
use std::time::Instant;
use virtio_driver::memory::RegionSpec;
use virtio_driver::payload::{Checker, Flow, MAX_FRAME};
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, Layout, MemoryStyle, MessageOrder};

const BOTH: [Mode; 2] = [Mode::Server, Mode::Client];

/// Features, bit by bit of `n`, and a configuration that goes with them.
fn featured(mut config: Config, n: usize) -> Config {
    let bits = [
        feature::RING_PACKED,
        feature::MRG_RXBUF,
        feature::IN_ORDER,
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
    ];
    for (i, bit) in bits.into_iter().enumerate() {
        config = if n >> i & 1 != 0 { config.with(bit) } else { config.without(bit) };
    }
    let mergeable = n & 2 != 0;
    config.rx_buffer = if mergeable { 2048 } else { 65_600 };
    config.queue_size = if mergeable { 128 } else { 16 };
    config.tx_buffer = 65_600;
    config
}

fn lengths(n: u64) -> usize {
    [64, 65, 128, 129, 141, 590, 1514, 2036, 2037, 9000, MAX_FRAME][n as usize % 11]
}

#[test]
fn all_features_carry_every_frame_whole() {
    // The other choices take turns, so that each meets each feature.
    let lab = Lab::new(&BOTH, 65_535);
    for n in 0..64usize {
        let more = n >> 5 ^ n.count_ones() as usize;
        let features = n & 31;
        let set = |port: usize, k: usize| {
            let mut config = featured(lab.guest(port), features);
            config.order = [MessageOrder::Qemu, MessageOrder::VirtioUser][k & 1];
            config.memory_style = [MemoryStyle::Table, MemoryStyle::Slots][k >> 1 & 1];
            config.queue_pairs = 1 + (more & 1) as u16;
            if more & 1 != 0 {
                config = config.with(feature::MQ);
            }
            config
        };
        let what = format!("features {features:05b}, variant {more}");
        let connect =
            |port, k| Driver::connect(set(port, k)).unwrap_or_else(|e| panic!("{what}: {e}"));
        let (mut a, mut b) = (connect(0, more), connect(1, n / 8));
        let indirect = features & 16 != 0;
        let layout = |n: u64| {
            let cut = [
                Layout::whole(),
                Layout::header_split(),
                Layout::pieces(3),
                Layout::lengths(&[5, 7, 0, 100]),
            ][n as usize % 4]
                .clone();
            if indirect && !n.is_multiple_of(3) { cut.indirect() } else { cut }
        };
        for pair in 0..1 + (more & 1) {
            let go = |flow| Traffic { pair, flow, window: 2, len: &lengths, layout: &layout };
            exchange(&what, &mut a, &mut b, &go(Flow::between(1, 1, 2)), 0..44);
            exchange(&what, &mut b, &mut a, &go(Flow::between(2, 2, 1)), 0..44);
        }
        drop((a, b));
        until("both disconnected", || lab.ports.iter().all(|p| !p.status().connected));
    }
    for port in &lab.ports {
        let c = port.counters();
        assert_eq!((c.rx_dropped, c.tx_dropped), (0, 0), "{c:?}");
        assert_eq!(port.session_counts(), (64, 0, 0));
    }
}

#[test]
fn legacy_drivers_have_a_shorter_header() {
    let lab = Lab::new(&BOTH, 1500);
    let legacy = |port| {
        let mut c = lab.guest(port).without(feature::VERSION_1 | feature::MRG_RXBUF);
        c.required = 0;
        c
    };
    let mut a = Driver::connect(legacy(0)).expect("connects");
    let mut b = Driver::connect(lab.guest(1)).expect("connects");
    ping("legacy and modern", &mut a, &mut b);
}

#[test]
fn payload_is_copied_exactly_once() {
    for (case, len) in [60, HEADER_BYTES, 1500, 9000, MAX_FRAME].into_iter().enumerate() {
        for packed in [0, 1] {
            let lab = Lab::new(&BOTH, 65_535);
            let mut a =
                Driver::connect(featured(lab.guest(0), 0b10010 | packed)).expect("connects");
            let mut b =
                Driver::connect(featured(lab.guest(1), 0b10010 | packed)).expect("connects");
            const N: u64 = 100;
            let flow = Flow::between(case as u16, 1, 2);
            let t = Traffic { pair: 0, flow, window: 3, len: &|_| len, layout: &whole };
            exchange("one copy", &mut a, &mut b, &t, 0..N);
            let private = N * len.min(HEADER_BYTES) as u64;
            let all = N * len as u64;
            let (from, to) = (lab.counters(0), lab.counters(1));
            assert_eq!((from.rx_packets, from.rx_bytes, from.rx_header_bytes), (N, all, private));
            assert_eq!((to.tx_packets, to.tx_bytes, to.tx_header_bytes), (N, all, private));
            assert_eq!(to.tx_payload_bytes, all - private, "frames of {len}");
            assert_eq!((from.tx_packets, to.rx_packets, to.tx_dropped), (0, 0, 0));
        }
    }
}

/// Sends frames that may be dropped while `change` goes on; each arrives whole or is counted.
fn unsettle(
    what: &str,
    lab: &Lab,
    a: &mut Driver,
    b: &mut Driver,
    sequence: &mut u64,
    change: impl FnOnce(&mut Driver, &mut Driver),
) {
    let flow = Flow::between(9, 1, 2);
    let mut checker = Checker::new(&[flow]);
    let before = lab.counters(1);
    let mut frames = Vec::new();
    for n in 0..40 {
        let mut frame = Vec::new();
        flow.frame(*sequence + n, 60 + 31 * n as usize, &mut frame);
        frames.push(frame);
    }
    *sequence += 40;
    assert_eq!(a.tx(0, &frames).expect("sends"), 40);
    change(a, b);
    let (mut got, mut lost) = (0, 0);
    until(what, || {
        a.reclaim(0).expect("reclaims");
        let n = b.rx(0, 64, |_, f| assert!(checker.check(f), "{what}: wrong bytes"));
        got += n.expect("receives") as u64;
        lost = lab.counters(1).tx_dropped - before.tx_dropped;
        got + lost == 40
    });
    assert!(a.drain_tx(0, Instant::now() + PATIENCE).expect("drains"), "{what}");
    assert_eq!(checker.report(9).duplicated, 0, "{what}");
    ping(what, a, b);
}

#[test]
fn front_ends_change_everything_under_traffic() {
    for n in 0..8usize {
        let lab = Lab::new(&BOTH, 9000);
        let set = |port: usize| {
            let mut c = lab.guest(port);
            c.memory_style = [MemoryStyle::Table, MemoryStyle::Slots][n & 1];
            c.order = [MessageOrder::Qemu, MessageOrder::VirtioUser][n >> 1 & 1];
            c.regions = vec![RegionSpec::of(8 << 20), RegionSpec::of(1 << 20)];
            if n & 4 != 0 { c.with(feature::RING_PACKED) } else { c }
        };
        let what = |s: &str| format!("{s}, variant {n}");
        let mut a = Driver::connect(set(0)).expect("connects");
        let mut b = Driver::connect(set(1)).expect("connects");
        let s = &mut 0;
        for round in 0..3 {
            let spec = RegionSpec { mmap_offset: 4096 * round, ..RegionSpec::of(1 << 20) };
            let mut id = 0;
            unsettle(&what("region added"), &lab, &mut a, &mut b, s, |a, b| {
                id = b.add_region(&spec).expect("adds");
                a.add_region(&spec).expect("adds");
            });
            unsettle(&what("rings moved"), &lab, &mut a, &mut b, s, |a, b| {
                b.move_pair(0, id).expect("moves");
                a.move_pair(0, id).expect("moves");
            });
            unsettle(&what("rings moved back, region removed"), &lab, &mut a, &mut b, s, |a, b| {
                for d in [a, b] {
                    d.move_pair(0, 1).expect("moves");
                    d.remove_region(id).expect("removes");
                }
            });
            unsettle(&what("memory announced again"), &lab, &mut a, &mut b, s, |_, b| {
                if b.config().memory_style == MemoryStyle::Table {
                    b.resend_memory().expect("resends");
                }
            });
            unsettle(&what("disabled and enabled"), &lab, &mut a, &mut b, s, |a, b| {
                for on in [false, true] {
                    b.set_ring_enabled(0, on).expect("enables");
                    a.set_ring_enabled(1, on).expect("enables");
                }
            });
            unsettle(&what("stopped and started"), &lab, &mut a, &mut b, s, |a, b| {
                for d in [a, b] {
                    let bases = d.stop_pair(0).expect("stops");
                    assert_eq!(bases, [d.ring_base(0), d.ring_base(1)], "variant {n}");
                    d.start_pair(0, bases).expect("starts");
                }
            });
            unsettle(&what("receiver reconnected"), &lab, &mut a, &mut b, s, |_, b| {
                b.reconnect().expect("reconnects");
            });
            unsettle(&what("sender reconnected"), &lab, &mut a, &mut b, s, |a, _| {
                a.reconnect().expect("reconnects");
            });
        }
        for p in &lab.ports {
            assert_eq!(p.session_counts(), (4, 0, 0), "variant {n}");
        }
    }
}

#[test]
fn a_disabled_queue_moves_nothing() {
    let lab = Lab::new(&BOTH, 1500);
    let mut a = Driver::connect(lab.guest(0)).expect("connects");
    let mut b = Driver::connect(lab.guest(1)).expect("connects");
    let mut frame = Vec::new();
    Flow::between(1, 1, 2).frame(0, 100, &mut frame);
    b.set_ring_enabled(0, false).expect("disables");
    a.tx(0, &[&frame]).expect("sends");
    until("the drop is counted", || lab.drops(1, DropReason::TxNoQueue) == 1);
    b.set_ring_enabled(0, true).expect("enables");
    a.set_ring_enabled(1, false).expect("disables");
    a.tx(0, &[&frame]).expect("sends");
    lab.settle();
    assert_eq!((lab.counters(0).rx_packets, lab.counters(1).tx_packets), (1, 0));
    a.set_ring_enabled(1, true).expect("enables");
    until("the frame comes", || b.rx(0, 1, |_, f| assert_eq!(f, frame)).expect("receives") == 1);
    a.reset().expect("resets");
    ping("after a reset", &mut a, &mut b);
}

/// Frames of a burst that only their tags make longer than the MTU pass, in order, beside those that are too long, shorter ones, and
/// such as do not fit one buffer.
#[test]
fn tags_do_not_count_to_the_mtu() {
    const LENGTHS: [(usize, usize); 9] = [
        (0, 60),
        (1, 1518),
        (0, 1515),
        (2, 1522),
        (0, 1514),
        (1, 1519),
        (3, 1522),
        (3, 1523),
        (0, 61),
    ];
    for (kind, rx_buffer) in [(0, 4096), (feature::RING_PACKED, 4096), (0, 256)] {
        let lab = Lab::new(&BOTH, 1500);
        let mut a = Driver::connect(lab.guest(0).with(kind)).expect("connects");
        let mut to = lab.guest(1).with(kind | feature::MRG_RXBUF);
        to.rx_buffer = rx_buffer;
        let mut b = Driver::connect(to).expect("connects");
        let mut frames = Vec::new();
        for (number, (tags, len)) in (0..).zip(LENGTHS) {
            let mut frame = Vec::new();
            Flow::between(1, 1, 2).frame(number, len - 4 * tags, &mut frame);
            (0..tags).for_each(|_| drop(frame.splice(12..12, [0x88, 0xa8, 0, 7])));
            frames.push(frame);
        }
        a.tx(0, &frames).expect("sends");
        assert!(a.drain_tx(0, Instant::now() + PATIENCE).expect("drains"));
        assert_eq!(lab.drops(1, DropReason::TxMtuExceeded), 3);
        [7, 5, 2].into_iter().for_each(|long| drop(frames.remove(long)));
        let mut came = Vec::new();
        b.rx(0, 64, |_, frame| came.push(frame.to_vec())).expect("receives");
        assert_eq!(came, frames, "{kind:#x}, buffers of {rx_buffer}");
    }
}

#[test]
fn drops_have_their_names() {
    let lab = Lab::new(&BOTH, 1500);
    let mut a = Driver::connect(lab.guest(0)).expect("connects");
    let mut small = lab.guest(1).without(feature::MRG_RXBUF);
    (small.queue_size, small.rx_buffer) = (8, 512);
    let mut b = Driver::connect(small).expect("connects");
    let flow = Flow::between(1, 1, 2);
    let frame = |len: usize| {
        let mut f = Vec::new();
        flow.frame(0, len, &mut f);
        f
    };
    let reclaimed = |a: &mut Driver| a.drain_tx(0, Instant::now() + PATIENCE).expect("drains");
    // 1500 bytes of packet, 14 of Ethernet header.
    a.tx(0, &[frame(1515), frame(1600)]).expect("sends");
    assert!(reclaimed(&mut a));
    assert_eq!(lab.drops(1, DropReason::TxMtuExceeded), 2);
    a.tx(0, &[frame(1514), frame(501), frame(500)]).expect("sends");
    assert!(reclaimed(&mut a));
    assert_eq!(lab.drops(1, DropReason::TxBufferTooSmall), 2, "512 hold 500 and a header");
    a.tx(0, &vec![frame(100); 20]).expect("sends");
    assert!(reclaimed(&mut a));
    assert_eq!(lab.drops(1, DropReason::TxRingFull), 13, "one of 8 buffers was taken");
    assert_eq!(b.rx(0, 64, |_, _| {}).expect("receives"), 8);
    let header = virtio_driver::NetHeader { flags: 1, csum_start: 34, ..Default::default() };
    a.tx_chain(0, &header, &[frame(100)], &Layout::whole()).expect("sends");
    a.tx_chain(0, &header, &[frame(100)], &Layout::pieces(4)).expect("sends");
    a.tx(0, &[[0u8; 13]]).expect("sends");
    a.tx(0, &[[0u8; 0]]).expect("sends");
    assert!(reclaimed(&mut a));
    assert_eq!(lab.drops(0, DropReason::RxInvalidOffload), 2);
    assert_eq!(lab.drops(0, DropReason::RxShortFrame), 2);
    let c = lab.counters(1);
    assert_eq!((c.tx_packets, c.tx_dropped), (8, 17));
    drop(b);
    until("the guest is gone", || !lab.ports[1].status().connected);
    a.tx(0, &[frame(100)]).expect("sends");
    assert!(reclaimed(&mut a));
    assert_eq!(lab.drops(1, DropReason::TxNoQueue), 1);
}

#[test]
fn interrupts_come_when_asked_for_and_not_else() {
    for n in 0..4 {
        let lab = Lab::new(&BOTH, 1500);
        let set = |port| {
            let c = lab.guest(port);
            let c = if n & 1 != 0 { c.with(feature::EVENT_IDX) } else { c };
            if n & 2 != 0 { c.with(feature::RING_PACKED) } else { c }
        };
        let mut a = Driver::connect(set(0)).expect("connects");
        let mut b = Driver::connect(set(1)).expect("connects");
        ping("polling", &mut a, &mut b);
        lab.settle();
        let quiet = [0, 1].map(|p| lab.counters(p).notifications);
        let first = if n == 1 { 2 } else { 0 };
        // With a split ring's event index, a device that just started has to call once a ring.
        assert!(quiet.iter().all(|&q| q <= 4 + first), "variant {n}: {quiet:?}");
        let t = Traffic {
            pair: 0,
            flow: Flow::between(3, 1, 2),
            window: 16,
            len: &|_| 100,
            layout: &whole,
        };
        exchange("polling", &mut a, &mut b, &t, 0..2000);
        lab.settle();
        let calls = lab.counters(1).notifications - quiet[1];
        assert!(calls <= 1, "variant {n}: {calls} interrupts, none was asked for");
        let mut frame = Vec::new();
        Flow::between(3, 1, 2).frame(1, 100, &mut frame);
        for k in 0..20 {
            lab.settle();
            let before = lab.counters(1).notifications;
            b.pair(0).rx.ring().ask_for_call();
            a.tx(0, &[&frame]).expect("sends");
            until("the interrupt", || lab.counters(1).notifications == before + 1);
            b.pair(0).rx.ring().refuse_calls();
            until("the frame", || b.rx(0, 1, |_, _| {}).expect("receives") == 1);
            if k < 3 {
                // And through the descriptor itself: a lost call would take half a second each.
                a.tx(0, &[&frame]).expect("sends");
                assert!(b.wait_rx(0, Instant::now() + PATIENCE).expect("waits"));
                until("the frame", || b.rx(0, 1, |_, _| {}).expect("receives") == 1);
            }
        }
    }
}
