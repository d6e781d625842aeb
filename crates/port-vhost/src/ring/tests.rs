//! Model tests: naive drivers, written from the specification with no regard to speed, and random
//! operations. A failure names the seed; `Rng(seed)` repeats it.

use super::*;
use crate::mem::RegionSpec;
use packet::{Abilities, DropReason, Lender, Set};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const USER: u64 = 0x7f00_0000_0000;
const START: u64 = 0x10_0000;
/// Two regions side by side, so that a buffer can lie in both.
const REGION: u64 = 0x10_0000;
const DESC: u64 = START;
const DRIVER: u64 = START + 0x8000;
const DEVICE: u64 = START + 0x1_0000;
/// Where buffers lie: slots of a size that does not divide the distance to the second region.
const SLOTS: u64 = START + 0x2_0000;
const SLOT: u64 = 0x3000;
const SLOT_COUNT: u64 = (START + 2 * REGION - SLOTS) / SLOT;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

fn memory() -> Arc<GuestMemory> {
    let bell = Arc::new(EventFd::new(EFD_NONBLOCK).expect("eventfd"));
    let mut mem = GuestMemory::default();
    for i in 0..2 {
        let fd = memfd_create("ring-test", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, REGION).expect("size");
        let gpa = START + i * REGION;
        let spec = RegionSpec { gpa, size: REGION, user_addr: USER + gpa, offset: 0 };
        mem = mem.with(spec, fd.into(), &bell).expect("fits");
    }
    Arc::new(mem)
}

/// Guest memory as its owner sees it.
#[derive(Clone)]
struct Ram(Arc<GuestMemory>);

impl Ram {
    fn write(&self, mut gpa: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (p, n) = self.0.piece(gpa, bytes.len() as u64).expect("guest memory");
            // SAFETY: `piece` gives n bytes of mapped memory.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n as usize) };
            bytes = &bytes[n as usize..];
            gpa += n;
        }
    }
    fn read(&self, mut gpa: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < len {
            let (p, n) = self.0.piece(gpa, (len - out.len()) as u64).expect("guest memory");
            for i in 0..n as usize {
                // SAFETY: `piece` gives n bytes of mapped memory.
                out.push(unsafe { p.add(i).read_volatile() });
            }
            gpa += n;
        }
        out
    }
    fn u16(&self, gpa: u64) -> u16 {
        u16::from_le_bytes(self.read(gpa, 2).try_into().expect("2 bytes"))
    }
    fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.read(gpa, 4).try_into().expect("4 bytes"))
    }
    fn desc(&self, at: u64, p: &Part, a: u16, b: u16) {
        self.write(at, &p.gpa.to_le_bytes());
        self.write(at + 8, &p.len.to_le_bytes());
        self.write(at + 12, &a.to_le_bytes());
        self.write(at + 14, &b.to_le_bytes());
    }
}

/// A descriptor's buffer.
#[derive(Clone, Copy, Debug)]
struct Part {
    gpa: u64,
    len: u32,
}

/// The driver's side of a ring.
struct Naive {
    ram: Ram,
    packed: bool,
    size: u16,
    /// Descriptors of each buffer that the device has, by ID.
    out: BTreeMap<u16, Vec<u16>>,
    free: BTreeSet<u16>,
    avail: u16,
    used: u16,
    avail_wrap: bool,
    used_wrap: bool,
}

impl Naive {
    fn new(ram: Ram, packed: bool, size: u16, start: u16) -> Naive {
        let index = if packed { 0 } else { start };
        if !packed {
            ram.write(DRIVER + 2, &start.to_le_bytes());
            ram.write(DEVICE + 2, &start.to_le_bytes());
        }
        let (out, free) = (BTreeMap::new(), (0..size).collect());
        let (avail, used) = (index, index);
        Naive { ram, packed, size, out, free, avail, used, avail_wrap: true, used_wrap: true }
    }

    fn base(&self) -> u32 {
        if self.packed { 0x8000_8000 } else { self.used.into() }
    }

    /// Posts a buffer; `table` is where an indirect table goes. `None` if there is no room.
    fn post(&mut self, parts: &[Part], write: bool, table: Option<u64>) -> Option<u16> {
        let w = if write { F_WRITE } else { 0 };
        let Some(table) = table else { return self.post_direct(parts, w, 0) };
        if self.free.is_empty() {
            return None;
        }
        for (i, p) in parts.iter().enumerate() {
            let at = table + 16 * i as u64;
            match (self.packed, i + 1 < parts.len()) {
                (true, _) => self.ram.desc(at, p, 0, w),
                (false, true) => self.ram.desc(at, p, w | F_NEXT, i as u16 + 1),
                (false, false) => self.ram.desc(at, p, w, 0),
            }
        }
        self.post_direct(&[Part { gpa: table, len: 16 * parts.len() as u32 }], 0, F_INDIRECT)
    }

    fn post_direct(&mut self, parts: &[Part], w: u16, extra: u16) -> Option<u16> {
        if self.free.len() < parts.len() {
            return None;
        }
        // In no particular order: the last free ones first.
        let mine: Vec<u16> = parts.iter().map(|_| self.free.pop_last().expect("free")).collect();
        let id = mine[0];
        let mut first = None;
        for (i, p) in parts.iter().enumerate() {
            let next = if i + 1 < parts.len() { F_NEXT } else { 0 };
            let flags = w | next | extra;
            if !self.packed {
                let to = mine.get(i + 1).copied().unwrap_or(0xffff);
                self.ram.desc(DESC + 16 * u64::from(mine[i]), p, flags, to);
                continue;
            }
            let bits = if self.avail_wrap { 1 << 7 } else { 1 << 15 };
            let at = DESC + 16 * u64::from(self.avail);
            if i == 0 {
                first = Some((at, *p, flags | bits));
            } else {
                self.ram.desc(at, p, id, flags | bits);
            }
            self.avail += 1;
            if self.avail == self.size {
                (self.avail, self.avail_wrap) = (0, !self.avail_wrap);
            }
        }
        if let Some((at, p, flags)) = first {
            self.ram.desc(at, &p, id, flags);
        } else {
            let entry = DRIVER + 4 + 2 * u64::from(self.avail % self.size);
            self.ram.write(entry, &id.to_le_bytes());
            self.avail = self.avail.wrapping_add(1);
            self.ram.write(DRIVER + 2, &self.avail.to_le_bytes());
        }
        assert!(self.out.insert(id, mine).is_none());
        Some(id)
    }

    /// The next used buffer: its ID and the length written.
    fn poll(&mut self) -> Option<(u16, u32)> {
        let (id, len) = if self.packed {
            let at = DESC + 16 * u64::from(self.used);
            let flags = self.ram.u16(at + 14);
            if [flags >> 7 & 1, flags >> 15] != [u16::from(self.used_wrap); 2] {
                return None;
            }
            (self.ram.u16(at + 12), self.ram.u32(at + 8))
        } else {
            if self.used == self.ram.u16(DEVICE + 2) {
                return None;
            }
            let at = DEVICE + 4 + 8 * u64::from(self.used % self.size);
            self.used = self.used.wrapping_add(1);
            (self.ram.u32(at) as u16, self.ram.u32(at + 4))
        };
        let mine = self.out.remove(&id).unwrap_or_else(|| panic!("buffer {id} came back twice"));
        if self.packed {
            self.used += mine.len() as u16;
            if self.used >= self.size {
                (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
            }
        }
        self.free.extend(mine);
        Some((id, len))
    }
}

fn start(
    mem: &Arc<GuestMemory>,
    n: &Naive,
    base: u32,
    event: bool,
    header: usize,
    m: bool,
) -> AnyRing {
    let user = |gpa| USER + gpa;
    let spec = RingSpec {
        size: n.size,
        desc: user(DESC),
        driver: user(DRIVER),
        device: user(DEVICE),
        base,
        event_idx: event,
        header,
        mergeable: m,
        abilities: Abilities::NONE,
    };
    match n.packed {
        true => {
            let l = Packed::new(&spec, mem).expect("valid");
            AnyRing::Packed(Ring::new(l, mem.clone(), &spec, None))
        }
        false => {
            let l = Split::new(&spec, mem).expect("valid");
            AnyRing::Split(Ring::new(l, mem.clone(), &spec, None))
        }
    }
}

/// Slots of guest memory for buffers.
struct Slots(Vec<u64>);

impl Slots {
    fn new() -> Slots {
        Slots((0..SLOT_COUNT).collect())
    }
    /// Room for a buffer and a table behind it, at a random distance from the slot's start.
    fn take(&mut self, rng: &mut Rng) -> Option<u64> {
        let i = rng.below(self.0.len().max(1) as u64) as usize;
        (i < self.0.len()).then(|| self.0.swap_remove(i))
    }
}

fn slot_at(slot: u64) -> u64 {
    SLOTS + slot * SLOT
}

/// Cuts `len` bytes of a slot into pieces: one, header apart, or anywhere, with empty ones.
fn cut(rng: &mut Rng, slot: u64, len: usize, header: usize, most: usize) -> Vec<Part> {
    let mut gpa = slot_at(slot) + rng.below(64);
    let mut cuts: Vec<usize> = match rng.below(4) {
        0 | 1 => vec![],
        2 => vec![header.min(len)],
        _ => (0..rng.below(most as u64)).map(|_| rng.below(len as u64 + 1) as usize).collect(),
    };
    cuts.truncate(most.saturating_sub(1));
    cuts.extend([0, len]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|w| {
            let part = Part { gpa, len: (w[1] - w[0]) as u32 };
            gpa += u64::from(part.len);
            part
        })
        .collect()
}

struct Nobody;
impl Lender for Nobody {
    fn give_back(&self) {}
}

fn frame_of(burst: &Burst<'_>, i: usize) -> Vec<u8> {
    let mut out = burst.packets()[i].header().to_vec();
    for s in burst.segments(i) {
        for k in 0..s.len() {
            // SAFETY: the segment is lent for the burst's life.
            out.push(unsafe { s.as_ptr().add(k).read_volatile() });
        }
    }
    out
}

const SIZES: [(bool, u16); 7] =
    [(false, 1), (false, 8), (false, 256), (true, 1), (true, 7), (true, 64), (true, 250)];

#[test]
fn every_frame_of_a_transmit_ring_arrives_whole_and_every_buffer_goes_back_once() {
    for (case, (packed, size)) in SIZES.into_iter().cycle().take(28).enumerate() {
        let seed = 0x1234_5678_9abc + case as u64 * 77;
        let mut rng = Rng(seed);
        let mem = memory();
        let first = 0xfff0u16.wrapping_add(rng.below(32) as u16);
        let mut driver = Naive::new(Ram(mem.clone()), packed, size, first);
        let header = if rng.chance(50) { 12 } else { 10 };
        let mut ring = start(&mem, &driver, driver.base(), rng.chance(50), header, header == 12);
        let counters = QueueCounters::default();
        let mut slots = Slots::new();
        let mut sent: VecDeque<Vec<u8>> = VecDeque::new();
        let mut held: BTreeMap<u16, u64> = BTreeMap::new();
        let mut buf = BurstBuf::new();
        for round in 0..120 {
            let what = format!("seed {seed:#x}, packed {packed}, size {size}, round {round}");
            for _ in 0..rng.below(50) {
                let Some(slot) = slots.take(&mut rng) else { break };
                let len = match rng.below(3) {
                    0 => 14 + rng.below(120),
                    1 => 60 + rng.below(1500),
                    _ => 14 + rng.below(9000),
                } as usize;
                let device = match header {
                    12 => vec![0; 12],
                    _ => vec![0; 10],
                };
                let bytes = [device, rng.bytes(len)].concat();
                let most = if rng.chance(50) { 20 } else { usize::from(size.min(6)) };
                let parts = cut(&mut rng, slot, bytes.len(), header, most);
                let mut at = 0;
                for p in &parts {
                    driver.ram.write(p.gpa, &bytes[at..at + p.len as usize]);
                    at += p.len as usize;
                }
                let table = slot_at(slot) + SLOT - 0x400;
                let indirect = parts.len() > usize::from(size.min(6)) || rng.chance(30);
                match driver.post(&parts, false, indirect.then_some(table)) {
                    Some(id) => {
                        held.insert(id, slot);
                        sent.push_back(bytes[header..].to_vec());
                    }
                    None => slots.0.push(slot),
                }
            }
            loop {
                ring.rx(&mut buf, &counters).unwrap_or_else(|e| panic!("{what}: {e}"));
                let n = buf.len();
                if n > 0 {
                    let burst = buf.lend(&Nobody);
                    for i in 0..n {
                        let want = sent.pop_front().unwrap_or_else(|| panic!("{what}: too many"));
                        assert!(frame_of(&burst, i) == want, "{what}: frame {i} differs");
                    }
                }
                ring.give_back();
                if n == 0 {
                    break;
                }
            }
            while let Some((id, len)) = driver.poll() {
                assert_eq!(len, 0, "{what}");
                slots.0.push(held.remove(&id).expect("posted"));
            }
            assert!(sent.is_empty() && held.is_empty(), "{what}: {} frames stay", sent.len());
            if rng.chance(10) {
                // Stopped and started: goes on where it was.
                let base = ring.base();
                ring = start(&mem, &driver, base, rng.chance(50), header, header == 12);
            }
        }
        assert_eq!(counters.drops.total(), 0, "seed {seed:#x}");
    }
}

/// A burst of random frames in memory of this test.
fn fill(rng: &mut Rng, buf: &mut BurstBuf, frames: &[Vec<u8>]) {
    buf.clear();
    for f in frames {
        let p = buf.push().expect("room");
        let head = f.len().min(packet::HEADER_BYTES);
        p.set_header(&f[..head]);
        let mut rest = &f[head..];
        while !rest.is_empty() {
            let n = 1 + rng.below(rest.len() as u64) as usize;
            // SAFETY: the frames outlive the burst.
            assert!(unsafe { buf.add_segment(rest.as_ptr(), n) });
            rest = &rest[n..];
        }
    }
}

/// What a receive ring must do with `frames`, given its buffers' lengths; the frames delivered.
fn expect(
    room: &mut VecDeque<usize>,
    frames: &[Vec<u8>],
    header: usize,
    mergeable: bool,
) -> (Vec<usize>, [u64; 2]) {
    let (mut delivered, mut full, mut small) = (Vec::new(), 0, 0);
    for (i, f) in frames.iter().enumerate() {
        let need = header + f.len();
        let mut have = 0;
        let most = if mergeable { room.len() } else { room.len().min(1) };
        let take = (0..=most).find(|&k| {
            have += if k > 0 { room[k - 1] } else { 0 };
            have >= need
        });
        match take {
            Some(k) => {
                room.drain(..k);
                delivered.push(i);
            }
            None if !mergeable && !room.is_empty() => small += 1,
            None => {
                full = (frames.len() - i) as u64;
                break;
            }
        }
    }
    (delivered, [full, small])
}

/// Takes used buffers until they have `want` bytes; returns those and the number of buffers.
fn take_frame(
    what: &str,
    driver: &mut Naive,
    held: &mut BTreeMap<u16, (u64, Vec<Part>)>,
    slots: &mut Slots,
    want: usize,
) -> (Vec<u8>, u16) {
    let (mut got, mut buffers) = (Vec::new(), 0);
    while got.len() < want {
        let (id, len) = driver.poll().unwrap_or_else(|| panic!("{what}: buffers are missing"));
        let (slot, parts) = held.remove(&id).expect("posted");
        slots.0.push(slot);
        let read = |p: &Part| driver.ram.read(p.gpa, p.len as usize);
        let whole: Vec<u8> = parts.iter().flat_map(read).collect();
        assert!(len as usize <= whole.len(), "{what}: used length {len}");
        got.extend(&whole[..len as usize]);
        buffers += 1;
    }
    assert_eq!(got.len(), want, "{what}");
    (got, buffers)
}

#[test]
fn every_frame_to_a_receive_ring_is_written_whole_or_counted() {
    for (case, (packed, size)) in SIZES.into_iter().cycle().take(56).enumerate() {
        let seed = 0x0bad_cafe_0001 + case as u64 * 131;
        let mut rng = Rng(seed);
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), packed, size, 0xffe0);
        let mergeable = rng.chance(60);
        let header = if mergeable || rng.chance(50) { 12 } else { 10 };
        let mut ring = start(&mem, &driver, driver.base(), rng.chance(50), header, mergeable);
        let counters = QueueCounters::default();
        let mut slots = Slots::new();
        let mut held: BTreeMap<u16, (u64, Vec<Part>)> = BTreeMap::new();
        let mut room = VecDeque::new();
        let (mut full, mut small) = (0, 0);
        let mut buf = BurstBuf::new();
        for round in 0..100 {
            let what = format!("seed {seed:#x}, packed {packed}, size {size}, round {round}");
            for _ in 0..rng.below(64) {
                let Some(slot) = slots.take(&mut rng) else { break };
                let cap = match rng.below(if mergeable { 4 } else { 2 }) {
                    0 => 2048,
                    1 => 9200,
                    2 => 64 + rng.below(400),
                    _ => rng.below(40),
                } as usize;
                let most = usize::from(size.min(5));
                let parts = if rng.chance(60) {
                    vec![Part { gpa: slot_at(slot) + rng.below(64), len: cap as u32 }]
                } else {
                    cut(&mut rng, slot, cap, header, most)
                };
                let table = rng.chance(30).then_some(slot_at(slot) + SLOT - 0x400);
                match driver.post(&parts, true, table) {
                    Some(id) => {
                        held.insert(id, (slot, parts));
                        room.push_back(cap);
                    }
                    None => slots.0.push(slot),
                }
            }
            let frames: Vec<Vec<u8>> = (0..rng.below(33))
                .map(|_| {
                    let len =
                        if rng.chance(70) { 60 + rng.below(100) } else { 60 + rng.below(9000) };
                    rng.bytes(len as usize)
                })
                .collect();
            fill(&mut rng, &mut buf, &frames);
            let (delivered, dropped) = expect(&mut room, &frames, header, mergeable);
            let all = if frames.is_empty() { Set::NONE } else { Set::range(0, frames.len()) };
            let sent = ring.tx(&mut buf.lend(&Nobody), all, usize::MAX - 12, &counters);
            sent.unwrap_or_else(|e| panic!("{what}: {e}"));
            (full, small) = (full + dropped[0], small + dropped[1]);
            assert_eq!(counters.drops.get(DropReason::TxRingFull), full, "{what}");
            assert_eq!(counters.drops.get(DropReason::TxBufferTooSmall), small, "{what}");
            for i in delivered {
                let want = header + frames[i].len();
                let (got, buffers) = take_frame(&what, &mut driver, &mut held, &mut slots, want);
                assert!(got[header..] == frames[i], "{what}: frame {i} differs");
                assert!(got[..10].iter().all(|&b| b == 0), "{what}: header {:?}", &got[..12]);
                let says = (header == 12).then(|| u16::from_le_bytes([got[10], got[11]]));
                assert!(says.is_none_or(|n| n == buffers), "{what}: {says:?} buffers, {buffers}");
            }
            assert_eq!(driver.poll(), None, "{what}: a buffer too many");
            assert_eq!(held.len(), room.len(), "{what}");
        }
    }
}

#[test]
fn merged_frames_say_how_many_buffers_they_take() {
    for packed in [false, true] {
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), packed, 16, 0);
        let mut ring = start(&mem, &driver, driver.base(), false, 12, true);
        for i in 0..8 {
            driver.post(&[Part { gpa: slot_at(i), len: 100 }], true, None).expect("room");
        }
        let mut buf = BurstBuf::new();
        fill(&mut Rng(5), &mut buf, &[vec![7; 288], vec![8; 60]]);
        let c = QueueCounters::default();
        ring.tx(&mut buf.lend(&Nobody), Set::range(0, 2), 65535, &c).expect("no fault");
        let lens: Vec<u32> = std::iter::from_fn(|| driver.poll()).map(|(_, len)| len).collect();
        assert_eq!(lens, [100, 100, 100, 72]);
        assert_eq!(driver.ram.u16(slot_at(0) + 10), 3);
        assert_eq!(driver.ram.u16(slot_at(3) + 10), 1);
    }
}

#[test]
fn a_burst_ends_before_it_has_too_many_pieces() {
    for packed in [false, true] {
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), packed, 256, 0);
        let mut ring = start(&mem, &driver, driver.base(), false, 12, true);
        let (mut buf, c) = (BurstBuf::new(), QueueCounters::default());
        for slot in 0..32 {
            let part = |i: u64| Part { gpa: slot_at(slot) + 4 * i, len: 4 };
            let parts: Vec<Part> = (0..100).map(part).collect();
            let table = slot_at(slot) + 0x1000;
            driver.post(&parts, false, Some(table)).expect("room");
        }
        let mut frames = 0;
        for burst in 0..8 {
            ring.rx(&mut buf, &c).expect("no fault");
            assert!(buf.len() < 11, "burst {burst} of {}", buf.len());
            frames += buf.len();
            ring.give_back();
        }
        assert_eq!((frames, c.drops.total()), (32, 0));
    }
}

/// Address, length, flags, next.
type RawDesc = (u64, u32, u16, u16);

/// What a ring says to one buffer given as raw descriptors in a table of 8.
fn fault(packed: bool, write: bool, descs: &[RawDesc]) -> Result<(), RingFault> {
    let mem = memory();
    let driver = Naive::new(Ram(mem.clone()), packed, 8, 0);
    let mut ring = start(&mem, &driver, driver.base(), false, 12, true);
    for (i, &(gpa, len, flags, next)) in descs.iter().enumerate() {
        let at = DESC + 16 * i as u64;
        let (a, b) = if packed { (0, flags | 1 << 7) } else { (flags, next) };
        driver.ram.desc(at, &Part { gpa, len }, a, b);
    }
    driver.ram.write(DRIVER + 2, &1u16.to_le_bytes());
    let (mut buf, c) = (BurstBuf::new(), QueueCounters::default());
    if !write {
        return ring.rx(&mut buf, &c);
    }
    fill(&mut Rng(1), &mut buf, &[vec![0; 64]]);
    let result = ring.tx(&mut buf.lend(&Nobody), Set::one(0), 65535, &c);
    assert_eq!(c.drops.get(DropReason::TxRingBroken), u64::from(result.is_err()));
    result
}

#[test]
fn rings_that_lie_are_found_out() {
    use RingFault::*;
    let ok = slot_at(0);
    let end = START + 2 * REGION;
    let looped: Vec<_> = (0..8).map(|i| (ok, 64, F_NEXT, (i + 1) % 8)).collect();
    for packed in [false, true] {
        let rx = |d: &[_]| fault(packed, false, d);
        let tx = |d: &[_]| fault(packed, true, d);
        assert_eq!(rx(&looped), Err(Loop), "packed {packed}");
        assert_eq!(rx(&[(ok, 0, F_NEXT, 0); 8]), Err(Loop));
        assert_eq!(rx(&[(end, 64, 0, 0)]), Err(BadAddress));
        assert_eq!(rx(&[(end - 63, 64, 0, 0)]), Err(BadAddress));
        assert_eq!(rx(&[(end - 64, 64, 0, 0)]), Ok(()));
        assert_eq!(rx(&[(0, 64, 0, 0)]), Err(BadAddress));
        assert_eq!(rx(&[(u64::MAX - 5, 64, 0, 0)]), Err(BadAddress));
        assert_eq!(rx(&[(ok, u32::MAX, 0, 0)]), Err(BadAddress));
        assert_eq!(rx(&[(ok, 64, F_WRITE, 0)]), Err(Direction));
        assert_eq!(rx(&[(ok, 64, F_NEXT, 1), (ok, 64, F_WRITE, 0)]), Err(Direction));
        assert_eq!(tx(&[(ok, 2048, 0, 0)]), Err(Direction));
        assert_eq!(tx(&[(end, 2048, F_WRITE, 0)]), Err(BadAddress));
        assert_eq!(tx(&[(ok, 2048, F_WRITE, 0)]), Ok(()));
        for len in [0, 15, 17, 16 * (1 << 15) + 16, u32::MAX] {
            assert_eq!(rx(&[(ok, len, F_INDIRECT, 0)]), Err(Indirect), "table of {len}");
        }
        assert_eq!(rx(&[(ok, 16, F_INDIRECT | F_NEXT, 1)]), Err(Indirect));
        assert_eq!(rx(&[(end - 8, 16, F_INDIRECT, 0)]), Err(BadAddress));
        for len in [0, 1, 11, 12, 13, 25] {
            assert_eq!(rx(&[(ok, len, 0, 0)]), Ok(()), "a short frame is dropped, not a fault");
        }
    }
    assert_eq!(fault(false, false, &[(ok, 64, F_NEXT, 8)]), Err(BadIndex));
    assert_eq!(fault(false, false, &[(ok, 64, F_NEXT, 0xffff)]), Err(BadIndex));
}

#[test]
fn indirect_tables_that_lie_are_found_out() {
    let (mem, table) = (memory(), slot_at(3));
    let tables: [(&[RawDesc], RingFault); 5] = [
        (&[(table, 16, F_INDIRECT, 0)], RingFault::Indirect),
        (&[(slot_at(1), 60, F_NEXT, 9), (0, 0, 0, 0)], RingFault::BadIndex),
        (&[(slot_at(1), 60, F_NEXT, 0), (0, 0, 0, 0)], RingFault::Loop),
        (&[(slot_at(1), 60, F_NEXT, 1), (slot_at(1), 4, F_WRITE, 0)], RingFault::Direction),
        (&[(slot_at(1), 60, F_NEXT, 1), (1, 4, 0, 0)], RingFault::BadAddress),
    ];
    for (entries, want) in tables {
        let mut driver = Naive::new(Ram(mem.clone()), false, 8, 0);
        let mut ring = start(&mem, &driver, 0, false, 12, true);
        for (i, &(gpa, len, flags, next)) in entries.iter().enumerate() {
            driver.ram.desc(table + 16 * i as u64, &Part { gpa, len }, flags, next);
        }
        let len = 16 * entries.len() as u32;
        driver.post_direct(&[Part { gpa: table, len }], 0, F_INDIRECT).expect("room");
        let c = QueueCounters::default();
        assert_eq!(ring.rx(&mut BurstBuf::new(), &c), Err(want));
    }
}

#[test]
fn an_available_index_that_jumps_is_found_out() {
    for (jump, want) in
        [(8, Ok(())), (9, Err(RingFault::AvailJump)), (0xffff, Err(RingFault::AvailJump))]
    {
        let mem = memory();
        let driver = Naive::new(Ram(mem.clone()), false, 8, 100);
        let mut ring = start(&mem, &driver, 100, false, 12, true);
        driver.ram.write(DRIVER + 2, &100u16.wrapping_add(jump).to_le_bytes());
        for i in 0..8 {
            driver.ram.desc(DESC + 16 * i, &Part { gpa: slot_at(0), len: 72 }, 0, 0);
        }
        let c = QueueCounters::default();
        assert_eq!(ring.rx(&mut BurstBuf::new(), &c), want, "by {jump}");
    }
}

#[test]
fn need_event_is_the_formula_of_the_specification() {
    let mut rng = Rng(42);
    for _ in 0..200_000 {
        let old = rng.next() as u16;
        let new = old.wrapping_add(rng.below(70_000) as u16);
        let event = old.wrapping_add(rng.below(70_000) as u16).wrapping_sub(10);
        // In words: counting on from `old`, the index after `event` comes no later than `new`.
        let steps = new.wrapping_sub(old);
        let at = event.wrapping_sub(old);
        assert_eq!(split::need_event(event, new, old), at < steps, "{event} {new} {old}");
    }
}

#[test]
fn a_packed_ring_goes_on_after_its_device_was_killed() {
    let mut stale = 0;
    for seed in 1..200u64 {
        let mut rng = Rng(seed * 0x9e37_79b9);
        let size = [5, 8, 33][rng.below(3) as usize];
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), true, size, 0);
        let c = QueueCounters::default();
        let mut buf = BurstBuf::new();
        let mut current = start(&mem, &driver, 0x8000_8000, false, 12, true);
        let mut seen = 0;
        for round in 0..20 {
            let post = |driver: &mut Naive, rng: &mut Rng| {
                let most = size.min(4) as usize;
                let parts = cut(rng, 0, 80, 12, most);
                driver.post(&parts, false, None)
            };
            let n = 1 + rng.below(u64::from(size));
            let posted = (0..n).filter_map(|_| post(&mut driver, &mut rng)).count();
            current.rx(&mut buf, &c).expect("no fault");
            let kill = rng.chance(40);
            if kill {
                // Dies after some of the burst was given, before that is published.
                let AnyRing::Packed(r) = &mut current else { unreachable!("packed") };
                let given = rng.below(r.lent_count as u64 + 1) as usize;
                let given = if given == 1 { 0 } else { given };
                for k in 0..given {
                    let lent = r.lent[k];
                    r.layout.give(&[lent]);
                }
                // QEMU's base is from the start; a driver that looks gives its own place.
                let own = u32::from(driver.used) | u32::from(driver.used_wrap) << 15;
                let first = packed::Place::new(0, true);
                let old = given == 0 && r.layout.contradict(first);
                stale += usize::from(old);
                let base = if old { 0x8000_8000 } else { own };
                current = start(&mem, &driver, base, false, 12, true);
                current.rx(&mut buf, &c).expect("no fault");
            }
            current.give_back();
            let back = std::iter::from_fn(|| driver.poll()).count();
            assert_eq!(back, posted, "seed {seed}, round {round}, killed {kill}");
            seen += back;
        }
        assert!(seen >= 20);
    }
    assert!(stale > 100, "{stale} times a base from long ago");
}

#[test]
fn frames_behind_a_buffer_of_very_many_pieces_arrive_whole() {
    for (packed, count) in [980, 992, 993, 1000, 1024].map(|n| [(false, n), (true, n)]).concat() {
        let what = format!("packed {packed}, {count} pieces");
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), packed, 64, 0);
        let mut ring = start(&mem, &driver, driver.base(), false, 12, true);
        let (mut buf, c, mut rng) = (BurstBuf::new(), QueueCounters::default(), Rng(7));
        let mut sent = Vec::new();
        // Nearly all pieces lie behind the private bytes: each takes a segment.
        let at = slot_at(2);
        let lens = std::iter::once(12 + 129).chain(std::iter::repeat_n(1, count - 1));
        let parts: Vec<Part> = lens
            .scan(at, |gpa, len| {
                *gpa += len;
                Some(Part { gpa: *gpa - len, len: len as u32 })
            })
            .collect();
        sent.push(rng.bytes(129 + count - 1));
        driver.ram.write(at, &[[0; 12].as_slice(), &sent[0]].concat());
        driver.post(&parts, false, Some(slot_at(0))).expect("room");
        for slot in 3..50 {
            let frame = rng.bytes(200);
            driver.ram.write(slot_at(slot), &[[0; 12].as_slice(), &frame].concat());
            driver.post(&[Part { gpa: slot_at(slot), len: 212 }], false, None).expect("room");
            sent.push(frame);
        }
        let mut got = Vec::new();
        for _ in 0..4 {
            ring.rx(&mut buf, &c).expect("no fault");
            let burst = buf.lend(&Nobody);
            got.extend((0..burst.len()).map(|i| frame_of(&burst, i)));
            drop(burst);
            ring.give_back();
        }
        assert_eq!(c.drops.total(), 0, "{what}");
        assert!(got == sent, "{what}: {} frames of {}", got.len(), sent.len());
    }
}

/// A ring of 32768 times the same buffer, all of them available: `flags` and an address and length
/// in the second region.
fn full_ring(packed: bool, mergeable: bool, (gpa, len, flags): (u64, u32, u16)) -> (Ram, AnyRing) {
    const SIZE: u64 = 1 << 15;
    let mem = memory();
    let ram = Ram(mem.clone());
    let (driver, device) = (START + 0x8_0000, START + 0xa_0000);
    for i in 0..SIZE {
        let (a, b) = if packed { (i as u16, flags | 1 << 7) } else { (flags, 0) };
        ram.desc(START + 16 * i, &Part { gpa, len }, a, b);
        if !packed {
            ram.write(driver + 4 + 2 * i, &(i as u16).to_le_bytes());
        }
    }
    if !packed {
        ram.write(driver + 2, &(SIZE as u16).to_le_bytes());
    }
    let (desc, driver, device) = (USER + START, USER + driver, USER + device);
    let (size, base, header) = (SIZE as u16, 0x8000, 12);
    let spec = RingSpec {
        size,
        desc,
        driver,
        device,
        base,
        event_idx: false,
        header,
        mergeable,
        abilities: Abilities::NONE,
    };
    let ring = if packed {
        let l = Packed::new(&spec, &mem).expect("valid");
        AnyRing::Packed(Ring::new(l, mem, &spec, None))
    } else {
        let l = Split::new(&spec, &mem).expect("valid");
        AnyRing::Split(Ring::new(l, mem, &spec, None))
    };
    (ram, ring)
}

/// Sends 32 frames of `len` bytes; returns how many were written, found the ring full, and found
/// its first buffer too small.
fn send_32(ring: &mut AnyRing, len: usize) -> [u64; 3] {
    let (mut buf, c) = (BurstBuf::new(), QueueCounters::default());
    fill(&mut Rng(3), &mut buf, &vec![vec![9; len]; 32]);
    ring.tx(&mut buf.lend(&Nobody), Set::range(0, 32), 65535, &c).expect("no fault");
    let [full, small] =
        [DropReason::TxRingFull, DropReason::TxBufferTooSmall].map(|r| c.drops.get(r));
    [32 - c.drops.total(), full, small]
}

#[test]
fn a_transmit_call_walks_a_bounded_number_of_pieces() {
    let there = START + REGION;
    for packed in [false, true] {
        // Each frame takes 912 pieces: two of them, and what is left is not enough for a third.
        let (_, mut ring) = full_ring(packed, true, (there, 1, F_WRITE));
        let whole = (tx::TX_PIECES / 912) as u64;
        assert_eq!(send_32(&mut ring, 900), [whole, 32 - whole, 0], "packed {packed}");
        assert_eq!(send_32(&mut ring, 1500), [0, 32, 0], "more pieces than a frame may have");
        // Tables of 1000 pieces, each too small: walked until the budget is spent.
        let (ram, mut ring) = full_ring(packed, false, (there, 16_000, F_INDIRECT));
        for i in 0..1000 {
            let part = Part { gpa: there + 0x8000, len: 1 };
            let next = if i < 999 { F_NEXT } else { 0 };
            let (a, b) = if packed { (0, F_WRITE) } else { (F_WRITE | next, i as u16 + 1) };
            ram.desc(there + 16 * i, &part, a, b);
        }
        let tried = tx::TX_PIECES.div_ceil(1000) as u64;
        assert_eq!(send_32(&mut ring, 1500), [0, 32 - tried, tried], "packed {packed}");
    }
}

#[test]
fn an_indirect_table_may_lie_anywhere() {
    for (packed, off) in [false, true].map(|p| [(p, 0), (p, 1), (p, 4), (p, 15)]).concat() {
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), packed, 8, 0);
        let mut ring = start(&mem, &driver, driver.base(), false, 12, true);
        let frame = Rng(9).bytes(300);
        driver.ram.write(slot_at(1), &[[0; 12].as_slice(), &frame].concat());
        let part = |at, len| Part { gpa: slot_at(1) + at, len };
        let parts = [part(0, 12), part(12, 100), part(112, 200)];
        driver.post(&parts, false, Some(slot_at(0) + off)).expect("room");
        let (mut buf, c) = (BurstBuf::new(), QueueCounters::default());
        ring.rx(&mut buf, &c).expect("no fault");
        assert!(frame_of(&buf.lend(&Nobody), 0) == frame, "packed {packed}, at {off}");
    }
}

/// Interrupts are put off, see `Ring::tell`; what happens to the ring meanwhile changes nothing.
#[test]
fn who_waits_for_an_interrupt_is_not_forgotten() {
    let event = || Arc::new(EventFd::new(EFD_NONBLOCK).expect("eventfd"));
    for packed in [false, true] {
        let mem = memory();
        let mut driver = Naive::new(Ram(mem.clone()), packed, 8, 0);
        let vring = crate::vring::Vring::new(event());
        vring.replace(Some(start(&mem, &driver, driver.base(), false, 12, true)), true);
        let calls = [event(), event()];
        let call = |n: usize| Call::Event(calls[n].try_clone().expect("another"));
        vring.set_call(Some(Arc::new(call(0))));
        let mut buf = BurstBuf::new();
        let mut pass = |driver: &mut Naive, len: u32| {
            driver.post(&[Part { gpa: slot_at(1), len }], false, None).expect("room");
            let packets = vring.rx(&mut buf).map_or(0, |burst| burst.len());
            driver.poll().expect("given back");
            packets
        };
        assert_eq!(pass(&mut driver, 72), 1);
        assert!(calls[0].read().is_err(), "not yet");
        assert!(vring.tell());
        assert_eq!(calls[0].read().expect("told"), 1);
        assert_eq!(pass(&mut driver, 20), 0, "too short for a frame");
        assert_eq!(calls[0].read().expect("though nobody hears of the burst"), 1);
        assert_eq!(pass(&mut driver, 72), 1);
        let base = u32::from(driver.used) | u32::from(driver.used_wrap) << 15;
        let ring = start(&mem, &driver, base, false, 12, true);
        vring.replace(Some(ring), false);
        vring.set_call(Some(Arc::new(call(1))));
        assert!(vring.tell());
        assert_eq!(calls[1].read().expect("another ring, disabled, and another descriptor"), 1);
        driver.post(&[Part { gpa: slot_at(1), len: 72 }], false, None).expect("room");
        vring.enable(true);
        let burst = vring.rx(&mut buf).expect("a burst");
        assert!(!vring.tell(), "while a burst is out");
        drop(burst);
        assert!(calls[1].read().is_err() && vring.tell());
        assert_eq!(calls[1].read().expect("now"), 1);
    }
}
