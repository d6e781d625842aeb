use super::*;
use packet::{BurstBuf, Lender, gso};

struct Nobody;
impl Lender for Nobody {
    fn give_back(&self) {}
}

/// A burst of frames that are `i` throughout.
fn burst<'b>(buf: &'b mut BurstBuf, lens: &[usize]) -> Burst<'b> {
    buf.clear();
    for (i, len) in lens.iter().enumerate() {
        buf.push().expect("room").set_header(&vec![i as u8; *len]);
    }
    buf.lend(&Nobody)
}

fn capture(filter: Option<Filter>, snaplen: usize) -> (Arc<Capture>, Reader) {
    Capture::new(filter, snaplen, 2, Arc::new(|| 7))
}

#[test]
fn frames_come_with_their_direction_length_and_offload() {
    let (capture, mut reader) = capture(None, 70);
    let mut buf = BurstBuf::new();
    let mut b = burst(&mut buf, &[60, 100, 64]);
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: gso::TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };
    b.set_offload(1, offload);
    capture.take(&mut b, Set::range(0, 2), Direction::In, 0);
    capture.take(&mut b, Set::one(2), Direction::Out, 1);
    capture.take(&mut b, Set::NONE, Direction::Out, 1);
    let said = |i: u8, kept, len, direction, offload| Captured {
        time_ns: 7,
        direction,
        len,
        offload,
        frame: vec![i; kept],
    };
    let none = Offload::default();
    assert_eq!(
        reader.take(),
        [
            said(0, 60, 60, Direction::In, none),
            said(1, 70, 100, Direction::In, offload),
            said(2, 64, 64, Direction::Out, none),
        ]
    );
    assert_eq!(reader.take(), []);
    assert_eq!(capture.counts(), Counts { captured: 3, ..Counts::default() });
    // A thread that came later, and a capture that has ended.
    capture.take(&mut b, Set::one(2), Direction::Out, 2);
    assert_eq!(capture.counts().no_room, 1);
    capture.end();
    capture.take(&mut b, Set::one(2), Direction::Out, 1);
    assert_eq!((reader.take(), capture.counts().captured), (vec![], 3));
}

#[test]
fn the_filter_decides() {
    let mut mask = FlowMask::empty();
    mask.bits_mut().dl_src.0 = [0xff; 6];
    let key = FlowKey { dl_src: flow::Mac([1; 6]), ..FlowKey::default() };
    let (capture, mut reader) = capture(Some(Filter { key, mask }), 1000);
    let mut buf = BurstBuf::new();
    let mut b = burst(&mut buf, &[60, 61, 62]);
    capture.take(&mut b, Set::range(0, 3), Direction::In, 0);
    let frames: Vec<_> = reader.take().into_iter().map(|p| p.frame).collect();
    assert_eq!(frames, [vec![1; 61]]);
    assert_eq!(capture.counts(), Counts { captured: 1, ..Counts::default() });
}

#[test]
fn what_is_beyond_the_budget_is_counted_and_costs_no_room() {
    let (capture, mut reader) = capture(None, 1000);
    let mut buf = BurstBuf::new();
    let mut b = burst(&mut buf, &[60; 32]);
    // A twentieth of a second of looks, since no time passes.
    let bursts = (2 * LOOKS_PER_SECOND / SAVED_PART / 32) as usize;
    let mut got = 0;
    for _ in 0..bursts {
        capture.take(&mut b, Set::range(0, 32), Direction::In, 0);
        got += reader.take().len() as u64;
    }
    let counts = capture.counts();
    assert_eq!((got, counts.captured), (LOOKS_PER_SECOND / SAVED_PART, got));
    assert_eq!((counts.over_budget, counts.no_room), (bursts as u64 * 32 - got, 0));
}

#[test]
fn nobody_waits_for_a_reader_that_does_not_read() {
    let clock = Arc::new(AtomicU64::new(1));
    let now = clock.clone();
    let (capture, mut reader) = Capture::new(None, 128, 1, Arc::new(move || now.load(Relaxed)));
    let mut buf = BurstBuf::new();
    let mut b = burst(&mut buf, &[128; 32]);
    let rounds = 2 * RING_BYTES / (HEAD + 128) / 32;
    for _ in 0..rounds {
        clock.fetch_add(1_000_000, Relaxed);
        capture.take(&mut b, Set::range(0, 32), Direction::Out, 0);
    }
    let counts = capture.counts();
    assert_eq!(counts.captured, (RING_BYTES / (HEAD + 128)) as u64);
    assert_eq!(counts.captured + counts.no_room, rounds as u64 * 32);
    let read = reader.take();
    assert_eq!(read.len() as u64, counts.captured);
    assert!(read.iter().enumerate().all(|(n, p)| p.frame == vec![(n % 32) as u8; 128]));
    // And it goes on.
    clock.fetch_add(1_000_000, Relaxed);
    capture.take(&mut b, Set::range(0, 32), Direction::Out, 0);
    assert_eq!(reader.take().len(), 32);
}
