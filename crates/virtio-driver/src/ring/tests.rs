//! Both rings against a device side written here from the specification, without the driver's code: model runs, then each violation.

use super::*;
use crate::mapping::Span;
use crate::memory::{GuestMemory, RegionSpec};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicU16, AtomicU32};

/// A chain as the device found it.
#[derive(Debug, Clone)]
struct Seen {
    id: u16,
    descs: u16,
    pieces: Vec<(u64, u32, bool)>,
}

/// The device: whole memory, ring location, cursors.
struct Device {
    packed: bool,
    all: Span,
    ring: Span,
    size: u16,
    avail: u16,
    used: u16,
    avail_wrap: bool,
    used_wrap: bool,
}

impl Device {
    fn desc(&self, span: &Span, at: usize) -> (u64, u32, u16, u16) {
        let mut b = Vec::new();
        span.read(at * 16, 16, &mut b);
        let low = u64::from_le_bytes(b[..8].try_into().unwrap());
        let len = u32::from_le_bytes(b[8..12].try_into().unwrap());
        (low, len, u16::from_le_bytes([b[12], b[13]]), u16::from_le_bytes([b[14], b[15]]))
    }

    fn u16_at(&self, at: usize) -> u16 {
        self.ring.shared::<AtomicU16>(at, 1)[0].load(Acquire)
    }

    fn set_u16(&self, at: usize, value: u16) {
        self.ring.shared::<AtomicU16>(at, 1)[0].store(value, Release);
    }

    fn set_u32(&self, at: usize, value: u32) {
        self.ring.shared::<AtomicU32>(at, 1)[0].store(value, Release);
    }

    fn table(&self, gpa: u64, len: u32) -> Span {
        self.all.part((gpa - self.all.gpa(0)) as usize, len as usize)
    }

    fn take(&mut self) -> Option<Seen> {
        if self.packed { self.take_packed() } else { self.take_split() }
    }

    fn take_split(&mut self) -> Option<Seen> {
        let parts = Parts::of(false, self.size);
        if self.u16_at(parts.avail + 2) == self.avail {
            return None;
        }
        let id = self.u16_at(parts.avail + 4 + 2 * usize::from(self.avail % self.size));
        self.avail = self.avail.wrapping_add(1);
        let (mut table, mut at, mut descs) = (self.ring.clone(), id, 0);
        let mut pieces = Vec::new();
        loop {
            let (gpa, len, flags, next) = self.desc(&table, at.into());
            if flags & 4 != 0 {
                assert_eq!(flags, 4);
                (table, at, descs) = (self.table(gpa, len), 0, 1);
                continue;
            }
            pieces.push((gpa, len, flags & 2 != 0));
            if flags & 1 == 0 {
                let descs = if descs == 1 { 1 } else { pieces.len() as u16 };
                return Some(Seen { id, descs, pieces });
            }
            at = next;
        }
    }

    fn take_packed(&mut self) -> Option<Seen> {
        let mut pieces = Vec::new();
        let mut descs = 0;
        loop {
            let (gpa, len, id, flags) = self.desc(&self.ring, self.avail.into());
            let fresh =
                (flags & 0x80 != 0) == self.avail_wrap && (flags & 0x8000 != 0) != self.avail_wrap;
            if !fresh {
                assert!(pieces.is_empty(), "a chain must appear whole");
                return None;
            }
            descs += 1;
            self.avail += 1;
            if self.avail == self.size {
                (self.avail, self.avail_wrap) = (0, !self.avail_wrap);
            }
            if flags & 4 != 0 {
                let table = self.table(gpa, len);
                for i in 0..len as usize / 16 {
                    let (gpa, len, _, flags) = self.desc(&table, i);
                    pieces.push((gpa, len, flags & 2 != 0));
                }
            } else {
                pieces.push((gpa, len, flags & 2 != 0));
            }
            if flags & 1 == 0 {
                return Some(Seen { id, descs, pieces });
            }
        }
    }

    /// Writes a used element that stands for `count` chains and `descs` descriptors.
    fn give(&mut self, id: u32, len: u32, count: u16, descs: u16) {
        if !self.packed {
            let parts = Parts::of(false, self.size);
            let at = parts.used + 4 + 8 * usize::from(self.used % self.size);
            self.set_u32(at, id);
            self.set_u32(at + 4, len);
            self.used = self.used.wrapping_add(count);
            self.set_u16(parts.used + 2, self.used);
            return;
        }
        let at = usize::from(self.used) * 16;
        // Written to or not (2.8.6); without the flag the length is noise.
        let write = if len > 0 { 2 } else { 0 };
        let flags = write | if self.used_wrap { 0x8080 } else { 0 };
        self.set_u32(at + 8, if len > 0 { len } else { 0xdead_beef });
        self.set_u16(at + 12, id as u16);
        self.set_u16(at + 14, flags);
        self.used += descs;
        if self.used >= self.size {
            (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
        }
    }

    fn give_seen(&mut self, seen: &Seen, len: u32) {
        self.give(seen.id.into(), len, 1, seen.descs);
    }
}

const SIZE: u16 = 16;

fn make(packed: bool, features: RingFeatures) -> (Ring, Device, GuestMemory) {
    let mut memory = GuestMemory::new(&[RegionSpec::of(64 << 10)]).unwrap();
    let span = memory.alloc(0, bytes_needed(packed, SIZE), "ring").unwrap();
    let all = memory.regions()[0].span().clone();
    let ring = Ring::new(packed, SIZE, span.clone(), features).unwrap();
    let device = Device {
        packed,
        all,
        ring: span,
        size: SIZE,
        avail: 0,
        used: 0,
        avail_wrap: true,
        used_wrap: true,
    };
    (ring, device, memory)
}

fn kinds() -> impl Iterator<Item = (bool, RingFeatures)> {
    (0..8).map(|bits| {
        (bits & 1 != 0, RingFeatures { in_order: bits & 2 != 0, event_idx: bits & 4 != 0 })
    })
}

struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// Random posting, using and popping; every chain must come back once, with its token and length, in order where that was agreed.
fn model(packed: bool, features: RingFeatures, seed: u64) {
    let (mut ring, mut device, mut memory) = make(packed, features);
    let tables = memory.alloc(0, 512 * usize::from(SIZE), "tables").unwrap();
    let mut random = Random(seed);
    let mut idle: VecDeque<u16> = (0..SIZE).collect();
    let mut posted: BTreeMap<u16, Vec<Piece>> = BTreeMap::new();
    let mut held: VecDeque<(u16, Seen)> = VecDeque::new();
    let mut due: VecDeque<Used> = VecDeque::new();
    let mut order: VecDeque<u16> = VecDeque::new();
    for step in 0..20_000u64 {
        match random.below(4) {
            0 => {
                let Some(&token) = idle.front() else { continue };
                let piece = |i: u64, r: &mut Random| Piece {
                    gpa: 0x9000 + step * 64 + i,
                    len: 1 + r.below(2000) as u32,
                    writable: i > 0,
                };
                let pieces: Vec<Piece> =
                    (0..1 + random.below(5)).map(|i| piece(i, &mut random)).collect();
                let table = tables.part(512 * usize::from(token), 512);
                let done = match random.below(3) {
                    0 => ring.post_indirect(&table, &pieces, token),
                    _ => ring.post(&pieces, token),
                };
                if done.is_ok() {
                    idle.pop_front();
                    order.push_back(token);
                    posted.insert(token, pieces);
                } else {
                    assert!(usize::from(ring.free()) < pieces.len());
                }
                ring.publish();
            }
            1 => {
                let Some(seen) = device.take() else { continue };
                let token = order.pop_front().expect("the device found what was not posted");
                let expected: Vec<_> =
                    posted[&token].iter().map(|p| (p.gpa, p.len, p.writable)).collect();
                assert_eq!(seen.pieces, expected);
                held.push_back((token, seen));
            }
            2 => {
                let at = if features.in_order {
                    0
                } else {
                    random.below(held.len().max(1) as u64) as usize
                };
                let Some((token, seen)) = held.remove(at) else { continue };
                let len = random.below(u64::from(writable_bytes(&posted[&token])) + 1) as u32;
                device.give_seen(&seen, len);
                due.push_back(Used { token, len });
            }
            _ => {
                assert_eq!(ring.has_used(), !due.is_empty());
                let used = ring.pop().unwrap();
                assert_eq!(used, due.pop_front());
                if let Some(used) = used {
                    posted.remove(&used.token);
                    idle.push_back(used.token);
                }
            }
        }
        assert_eq!(usize::from(ring.outstanding()), posted.len());
    }
}

#[test]
fn model_runs() {
    for (packed, features) in kinds() {
        for seed in 0..5 {
            model(packed, features, seed);
        }
    }
}

fn whole(token: u16) -> [Piece; 1] {
    [Piece { gpa: 0x1000 * u64::from(token + 1), len: 100, writable: true }]
}

fn filled(packed: bool, features: RingFeatures) -> (Ring, Device, GuestMemory) {
    let (mut ring, device, memory) = make(packed, features);
    (0..SIZE).for_each(|token| ring.post(&whole(token), token).unwrap());
    assert_eq!(ring.post(&whole(0), 0), Err(Full));
    ring.publish();
    (ring, device, memory)
}

#[test]
fn recycling_keeps_every_buffer_going_round() {
    for (packed, features) in kinds() {
        let (mut ring, mut device, _memory) = filled(packed, features);
        let mut random = Random(9);
        let mut held: Vec<Seen> = Vec::new();
        let mut given = 0;
        let mut back = 0;
        for _ in 0..5_000 {
            while let Some(seen) = device.take() {
                assert_eq!(seen.pieces.len(), 1);
                held.push(seen);
            }
            for _ in 0..random.below(8) {
                let at = if features.in_order {
                    0
                } else {
                    random.below(held.len().max(1) as u64) as usize
                };
                if at < held.len() {
                    device.give_seen(&held.remove(at), 60);
                    given += 1;
                }
            }
            let done = ring.recycle(5).unwrap();
            assert_eq!(done.bytes, 60 * u64::from(done.buffers));
            back += done.buffers;
        }
        back += ring.recycle(100).unwrap().buffers;
        assert_eq!(back, given);
        let mut all: Vec<u64> =
            std::iter::from_fn(|| device.take()).chain(held).map(|s| s.pieces[0].0).collect();
        all.sort_unstable();
        let expected: Vec<u64> = (1..=u64::from(SIZE)).map(|n| 0x1000 * n).collect();
        assert_eq!(
            all, expected,
            "each buffer must be in the ring once, packed {packed} {features:?}"
        );
    }
}

#[test]
fn one_used_element_may_stand_for_a_batch_in_order() {
    for packed in [false, true] {
        for recycle in [false, true] {
            let features = RingFeatures { in_order: true, event_idx: false };
            let (mut ring, mut device, _memory) = filled(packed, features);
            let seen: Vec<Seen> = (0..4).map(|_| device.take().unwrap()).collect();
            device.give(seen[3].id.into(), 7, 4, 4);
            if recycle {
                assert_eq!(ring.recycle(64).unwrap().buffers, 4);
                assert_eq!(ring.outstanding(), SIZE);
                continue;
            }
            let lens: Vec<_> =
                std::iter::from_fn(|| ring.pop().unwrap()).map(|u| (u.token, u.len)).collect();
            assert_eq!(lens, [(0, 100), (1, 100), (2, 100), (3, 7)]);
        }
    }
}

/// Each bad element gives its violation, once, and the next good one comes through.
fn bad(
    packed: bool,
    features: RingFeatures,
    recycle: bool,
    spoil: impl Fn(&mut Device, &[Seen]),
    expected: Violation,
) {
    let (mut ring, mut device, _memory) = filled(packed, features);
    let seen: Vec<Seen> = (0..4).map(|_| device.take().unwrap()).collect();
    spoil(&mut device, &seen);
    let found = if recycle {
        ring.recycle(64).unwrap_err()
    } else {
        loop {
            match ring.pop() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no violation, {expected:?} expected"),
                Err(violation) => break violation,
            }
        }
    };
    assert_eq!(found, expected, "packed {packed} recycle {recycle} {features:?}");
    device.give_seen(&seen[2], 1);
    if !features.in_order {
        assert_eq!(ring.pop(), Ok(Some(Used { token: 2, len: 1 })));
    }
}

#[test]
fn violations_are_named() {
    for (packed, features) in kinds() {
        for recycle in [false, true] {
            let check = |spoil: &dyn Fn(&mut Device, &[Seen]), expected| {
                bad(packed, features, recycle, spoil, expected)
            };
            check(
                &|d, _| d.give(40_000, 0, 1, 1),
                Violation::IdOutOfRange { id: 40_000, size: SIZE },
            );
            check(
                &|d, _| d.give(SIZE.into(), 0, 1, 1),
                Violation::IdOutOfRange { id: SIZE.into(), size: SIZE },
            );
            check(
                &|d, s| d.give(s[0].id.into(), 101, 1, 1),
                Violation::LengthTooLong { id: 0, len: 101, posted: 100 },
            );
            if features.in_order {
                // Beyond what the device could have used: for split, ahead of the used index.
                if !packed {
                    check(
                        &|d, s| d.give(s[1].id.into(), 0, 1, 1),
                        Violation::OutOfOrder { id: 1, oldest: 0 },
                    );
                }
            } else if !packed || !recycle {
                let twice = |d: &mut Device, s: &[Seen]| {
                    d.give_seen(&s[1], 0);
                    d.give_seen(&s[1], 0);
                };
                check(&twice, Violation::NotOutstanding { id: 1 });
            }
        }
    }
    let features = RingFeatures::default();
    let (mut ring, mut device, _memory) = filled(false, features);
    device.used = SIZE;
    device.give(0, 0, 1, 1);
    let ahead = Violation::UsedIndexAhead { used: SIZE + 1, last: 0, outstanding: SIZE };
    assert_eq!(ring.pop(), Err(ahead));
    assert_eq!(ring.recycle(9), Err(ahead));
}

#[test]
fn a_packed_buffer_returned_twice_in_a_burst_is_seen_when_recycling() {
    let (mut ring, mut device, _memory) = filled(true, RingFeatures::default());
    let seen = device.take().unwrap();
    device.give_seen(&seen, 0);
    device.give_seen(&seen, 0);
    assert_eq!(ring.recycle(64), Err(Violation::NotOutstanding { id: 0 }));
}

#[test]
fn kicks_follow_the_devices_wish() {
    for (packed, features) in kinds() {
        let (mut ring, device, _memory) = make(packed, features);
        let parts = Parts::of(packed, SIZE);
        let post = |ring: &mut Ring, token| {
            ring.post(&whole(token), token).unwrap();
            ring.publish();
            ring.should_kick()
        };
        assert!(post(&mut ring, 0), "a zeroed ring asks for kicks");
        assert!(!ring.should_kick(), "nothing new, no kick");
        // Only at the fourth buffer, or never.
        match (packed, features.event_idx) {
            (false, true) => device.set_u16(parts.used + 4 + 8 * usize::from(SIZE), 3),
            (false, false) => device.set_u16(parts.used, 1),
            (true, true) => {
                device.set_u16(parts.used, 3 | 0x8000);
                device.set_u16(parts.used + 2, 2);
            }
            (true, false) => device.set_u16(parts.used + 2, 1),
        }
        let kicks: Vec<bool> = (1..6).map(|token| post(&mut ring, token)).collect();
        assert_eq!(
            kicks,
            [false, false, features.event_idx, false, false],
            "packed {packed} {features:?}"
        );
    }
}

#[test]
fn call_wishes_are_written() {
    for (packed, features) in kinds() {
        let (mut ring, mut device, _memory) = filled(packed, features);
        let parts = Parts::of(packed, SIZE);
        let event_at = parts.avail + 4 + 2 * usize::from(SIZE);
        let seen = device.take().unwrap();
        device.give_seen(&seen, 0);
        ring.pop().unwrap().unwrap();
        ring.ask_for_call();
        match (packed, features.event_idx) {
            (false, true) => assert_eq!(device.u16_at(event_at), 1),
            (false, false) => assert_eq!(device.u16_at(parts.avail), 0),
            (true, true) => assert_eq!(
                (device.u16_at(parts.avail), device.u16_at(parts.avail + 2)),
                (0x8001, 2)
            ),
            (true, false) => assert_eq!(device.u16_at(parts.avail + 2), 0),
        }
        ring.refuse_calls();
        match (packed, features.event_idx) {
            (false, true) => {
                assert_eq!((device.u16_at(event_at), device.u16_at(parts.avail)), (0, 0))
            }
            (false, false) => assert_eq!(device.u16_at(parts.avail), 1),
            (true, _) => assert_eq!(device.u16_at(parts.avail + 2), 1),
        }
    }
}

#[test]
fn a_moved_ring_and_its_base_go_on_where_they_were() {
    for (packed, features) in kinds() {
        let (mut ring, mut device, mut memory) = filled(packed, features);
        let seen: Vec<Seen> = (0..3).map(|_| device.take().unwrap()).collect();
        device.give_seen(&seen[0], 5);
        ring.pop().unwrap().unwrap();
        device.give_seen(&seen[1], 6);
        assert_eq!(ring.resume_base(), if packed { 0x8002_8002 } else { 2 });
        let to = memory.alloc(0, bytes_needed(packed, SIZE), "ring").unwrap();
        let before = ring.addresses();
        ring.move_to(to.clone());
        assert_ne!(ring.addresses().desc, before.desc);
        device.ring.fill(0x5a); // nothing is to be found at the old place
        device.ring = to;
        device.give_seen(&seen[2], 7);
        assert_eq!(ring.pop(), Ok(Some(Used { token: 1, len: 6 })));
        assert_eq!(ring.pop(), Ok(Some(Used { token: 2, len: 7 })));
        assert_eq!(device.take().unwrap().pieces[0].0, 0x4000);
    }
}

#[test]
fn sizes_are_checked() {
    let mut memory = GuestMemory::new(&[RegionSpec::of(64 << 10)]).unwrap();
    let span = memory.alloc(0, 4096, "ring").unwrap();
    for (packed, size, good) in [
        (false, 100, false),
        (true, 100, true),
        (false, 0, false),
        (true, 0, false),
        (false, 64, true),
    ] {
        assert_eq!(Ring::new(packed, size, span.clone(), RingFeatures::default()).is_ok(), good);
    }
}
