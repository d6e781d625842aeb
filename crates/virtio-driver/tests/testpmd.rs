//! The driver against DPDK's vhost library: every ring format and feature, both socket modes, changes while running.

mod common;

use common::{Checkers, Options, PATIENCE, Testpmd, Traffic, exchange, wait_gone};
use std::time::Instant;
use virtio_driver::memory::RegionSpec;
use virtio_driver::wire::feature::{
    EVENT_IDX, IN_ORDER, INDIRECT_DESC, MQ, MRG_RXBUF, RING_PACKED,
};
use virtio_driver::{Config, Layout, Loop, MessageOrder};

const LENGTHS: [usize; 7] = [60, 64, 65, 128, 590, 1500, 1514];

static WHOLE: std::sync::LazyLock<[Layout; 1]> = std::sync::LazyLock::new(|| [Layout::whole()]);

fn quick() -> Traffic<'static> {
    Traffic { frames: 300, lengths: &LENGTHS, layouts: &*WHOLE }
}

fn both_ways(options: Options, change: impl Fn(Config) -> Config) {
    let mut testpmd = Testpmd::start(options);
    let mut drivers = testpmd.drivers(change);
    let mut checkers = Checkers::new(usize::from(options.queues));
    exchange(&mut drivers, &mut checkers, &Traffic { frames: 3000, ..quick() });
}

#[test]
fn split_mergeable() {
    both_ways(Options::default(), |config| config.with(MRG_RXBUF));
}

#[test]
fn split_not_mergeable_with_event_index() {
    both_ways(Options::default(), |config| config.without(MRG_RXBUF).with(EVENT_IDX));
}

#[test]
fn split_in_order() {
    both_ways(Options::default(), |config| config.with(IN_ORDER));
}

#[test]
fn packed_mergeable_with_event_index() {
    both_ways(Options::default(), |config| config.with(RING_PACKED | MRG_RXBUF | EVENT_IDX));
}

#[test]
fn packed_not_mergeable() {
    both_ways(Options::default(), |config| config.with(RING_PACKED).without(MRG_RXBUF));
}

#[test]
fn packed_in_order() {
    both_ways(Options::default(), |config| config.with(RING_PACKED | IN_ORDER));
    both_ways(Options::default(), |config| config.with(RING_PACKED | IN_ORDER).without(MRG_RXBUF));
}

#[test]
fn two_queue_pairs_in_qemus_order_and_a_packed_ring_of_odd_size() {
    let options = Options { queues: 2, ..Options::default() };
    both_ways(options, |config| Config { order: MessageOrder::Qemu, ..config.with(MQ) });
    both_ways(options, |config| Config { queue_size: 200, ..config.with(MQ | RING_PACKED) });
}

#[test]
fn the_back_end_connects_to_us() {
    let options = Options { client: true, ..Options::default() };
    both_ways(options, |config| config);
    both_ways(options, |config| Config { order: MessageOrder::Qemu, ..config });
}

#[test]
fn chains_and_indirect_tables() {
    let layouts = [
        Layout::whole(),
        Layout::header_split(),
        Layout::pieces(5),
        Layout::lengths(&[5, 7, 30]),
        Layout::header_split().indirect(),
        Layout::pieces(17).indirect(),
    ];
    let lengths = [60, 61, 300, 1514, 9000, 16000];
    for extra in [0, RING_PACKED, EVENT_IDX] {
        for mergeable in [MRG_RXBUF, 0] {
            let mut testpmd = Testpmd::start(Options::default());
            let mut drivers = testpmd.drivers(|config| {
                let config = config.without(MRG_RXBUF).with(extra | mergeable | INDIRECT_DESC);
                // Mergeable: a long frame spans many small buffers. Otherwise one buffer takes it whole, in four descriptors.
                // (In a table: DPDK 22.11's packed batch takes four chained descriptors for four buffers and so loses three frames.)
                let big = (17_000, Layout::pieces(4).indirect());
                let (rx_buffer, rx_layout) =
                    if mergeable == 0 { big } else { (1024, Layout::whole()) };
                Config { rx_buffer, rx_layout, tx_buffer: 17_000, queue_size: 1024, ..config }
            });
            let traffic = Traffic { frames: 1200, lengths: &lengths, layouts: &layouts };
            exchange(&mut drivers, &mut Checkers::new(1), &traffic);
        }
    }
}

#[test]
fn queues_stop_and_start_and_rings_move_to_other_memory() {
    for extra in [0, RING_PACKED] {
        let mut testpmd = Testpmd::start(Options::default());
        let with_offset = RegionSpec { mmap_offset: 8192, ..RegionSpec::of(1 << 20) };
        let regions = vec![RegionSpec::of(4 << 20), with_offset];
        let mut drivers = testpmd.drivers(|config| Config {
            regions: regions.clone(),
            ring_region: 1,
            ..config.with(extra)
        });
        let mut checkers = Checkers::new(1);
        exchange(&mut drivers, &mut checkers, &quick());
        let bases = drivers[0].stop_pair(0).unwrap();
        // The low half: DPDK leaves out a packed ring's used position.
        let stands = [0, 1].map(|ring| drivers[0].ring_base(ring) & 0xffff);
        assert_eq!(
            bases.map(|base| base & 0xffff),
            stands,
            "stopped with chains read but not returned"
        );
        drivers[0].start_pair(0, bases).unwrap();
        exchange(&mut drivers, &mut checkers, &quick());
        let added = drivers[0].add_region(&RegionSpec::of(1 << 20)).unwrap();
        exchange(&mut drivers, &mut checkers, &quick());
        drivers[0].move_pair(0, added).unwrap();
        exchange(&mut drivers, &mut checkers, &quick());
        drivers[0].remove_region(1).unwrap();
        exchange(&mut drivers, &mut checkers, &quick());
        assert!(drivers[0].remove_region(added).is_err(), "the rings are there");
        for on in [false, true] {
            (0..2).for_each(|ring| drivers[1].set_ring_enabled(ring, on).unwrap());
        }
        exchange(&mut drivers, &mut checkers, &quick());
    }
}

#[test]
fn a_reset_device_works_again() {
    for extra in [0, RING_PACKED] {
        let mut testpmd = Testpmd::start(Options::default());
        let mut drivers = testpmd.drivers(|config| config.with(extra));
        let mut checkers = Checkers::new(1);
        for _ in 0..2 {
            exchange(&mut drivers, &mut checkers, &quick());
            drivers.iter_mut().for_each(|driver| driver.reset().unwrap());
        }
        exchange(&mut drivers, &mut checkers, &quick());
    }
}

#[test]
fn rings_survive_a_restart_of_the_back_end() {
    for client in [false, true] {
        for extra in [0, RING_PACKED] {
            let mut testpmd = Testpmd::start(Options { client, ..Options::default() });
            let mut drivers = testpmd.drivers(|config| config.with(extra));
            let mut checkers = Checkers::new(1);
            exchange(&mut drivers, &mut checkers, &quick());
            testpmd.kill();
            drivers.iter_mut().for_each(wait_gone);
            testpmd.restart();
            drivers.iter_mut().for_each(|driver| driver.reconnect().unwrap());
            exchange(&mut drivers, &mut checkers, &quick());
            // And the other way: the front end goes and comes back.
            if !client {
                drivers[0].disconnect();
                drivers[0].reconnect().unwrap();
                exchange(&mut drivers, &mut checkers, &quick());
            }
        }
    }
}

#[test]
fn the_dirty_log_shows_received_pages_only() {
    let mut testpmd = Testpmd::start(Options::default());
    let log = virtio_driver::wire::protocol::LOG_SHMFD;
    let mut drivers = testpmd
        .drivers(|config| Config { protocol_features: config.protocol_features | log, ..config });
    let mut checkers = Checkers::new(1);
    drivers[0].start_log().unwrap();
    exchange(&mut drivers, &mut checkers, &quick());
    let receive = drivers[0].pair(0).rx.ring_memory().gpa(0);
    let log = drivers[0].stop_log().unwrap().unwrap();
    assert!(log.is_dirty(receive + 4096 + 64), "the used ring is written");
    let dirty = log.take();
    let region = drivers[0].memory().regions()[0].descriptor();
    assert!(dirty.iter().all(|gpa| (region.gpa..region.gpa + region.size).contains(gpa)));
    assert!(
        dirty.len() > 50 && dirty.len() < (region.size / 4096) as usize * 3 / 4,
        "{} dirty pages",
        dirty.len()
    );
    exchange(&mut drivers, &mut checkers, &quick());
}

#[test]
fn saturating_moves_buffers_round() {
    for extra in
        [0, RING_PACKED, IN_ORDER, RING_PACKED | IN_ORDER, EVENT_IDX, RING_PACKED | EVENT_IDX]
    {
        let mut testpmd = Testpmd::start(Options::default());
        let [mut a, mut b] =
            testpmd.drivers(|config| Config { queue_size: 256, ..config.with(extra) });
        let fill = |from: usize| {
            move |n: u16, frame: &mut Vec<u8>| common::flow(from, 0).frame(n.into(), 60, frame)
        };
        let mut both = Loop {
            a: a.pair(0).saturate(128, fill(0)).unwrap(),
            b: b.pair(0).saturate(128, fill(1)).unwrap(),
        };
        let deadline = Instant::now() + PATIENCE;
        let (mut sent, mut received, mut bytes) = (0u64, 0u64, 0u64);
        while received < 100_000 {
            let (x, y) = both.turn().unwrap();
            sent += u64::from(x.sent + y.sent);
            received += u64::from(x.received + y.received);
            bytes += x.bytes + y.bytes;
            assert!(Instant::now() < deadline, "sent {sent}, received {received}");
        }
        assert_eq!(bytes, received * 72);
        assert!(sent + 256 >= received);
        let more = || Instant::now() < deadline;
        both.a.finish(more).unwrap();
        both.b.finish(more).unwrap();
        assert_eq!(a.pair(0).tx.in_flight() + b.pair(0).tx.in_flight(), 0);
    }
}
