//! Bursts: up to 32 packets whose payload is borrowed from a receive queue.
//!
//! A receive queue fills a [`BurstBuf`] (header copies, metadata, segment list) and lends it as a
//! [`Burst`]. Segments point into memory that a guest may write at any time, so nobody makes a slice
//! of them: they are only ever copied from, by raw pointer, by a transmit queue.

mod coalesce;

use crate::{Abilities, Offload, Set, arch};
use std::marker::PhantomData;

/// Packets in a burst at most: enough to hide memory latency by prefetching, small enough that the
/// headers of a burst stay in the first-level cache (measured: 600 cycles a packet at 1, 87 at 16,
/// 72 at 8 to 32). The same as OVS's `NETDEV_MAX_BURST`.
pub const BURST: usize = 32;
/// Free bytes before a frame, for headers that are pushed: two VLAN tags and an outer
/// Ethernet/IPv6/UDP/Geneve header with 32 bytes of options.
pub const HEADROOM: usize = 128;
/// Bytes of a frame that are copied privately when it is received: Ethernet, two tags, the longest
/// IPv4 header and TCP are 102.
pub const HEADER_BYTES: usize = 128;
/// Bytes of private header room: [`HEADER_BYTES`] and as much again for [`Burst::pull`]. The headroom
/// comes on top.
pub(crate) const HEADER_ROOM: usize = 256;
/// Longest frame in bytes: 64 KiB of IP packet plus Ethernet header and two tags, as TSO makes them.
pub const MAX_FRAME: usize = 65535 + 22;
/// Borrowed segments in one burst. A TSO frame of 4 KiB pages has 17; 32 of those are 544.
pub const MAX_SEGMENTS: usize = 1024;

/// A range of borrowed payload, readable until the burst ends, written by its owner at will.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'b> {
    ptr: *const u8,
    len: u32,
    loan: PhantomData<&'b [std::cell::Cell<u8>]>,
}

impl Segment<'_> {
    /// First byte. Read it only by copying: another process may be writing.
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True for an empty segment; receive queues never add one.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// One packet of a burst: metadata, and a private copy of its first bytes.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Packet {
    /// Length of the frame in bytes, private and borrowed part together.
    len: u32,
    /// Offset in `room` of the frame's first byte.
    head: u16,
    /// Bytes of the frame that are private.
    head_len: u16,
    seg_first: u16,
    seg_count: u16,
    /// What the sender left to be done.
    pub offload: Offload,
    /// The queue by which ports that have queues send it (OpenFlow's `set_queue`); 0 is the default.
    pub queue: u16,
    /// Puts a virtio-net header in front of a frame at a multiple of 16 bytes, so that none of the wide
    /// moves that fetch both crosses a cache line.
    _gap: [u8; 4],
    room: [u8; HEADROOM + HEADER_ROOM],
}

/// Metadata shares no cache line with the frame's bytes, and the stride is an odd number of lines,
/// so that the packets of a burst spread over all sets of the first-level cache.
const _: () = assert!(size_of::<Packet>() == 7 * 64);
const _: () = assert!((std::mem::offset_of!(Packet, room) + HEADROOM - 12).is_multiple_of(16));

impl Packet {
    const fn new() -> Self {
        Packet {
            len: 0,
            head: HEADROOM as u16,
            head_len: 0,
            seg_first: 0,
            seg_count: 0,
            offload: Offload::NONE,
            queue: 0,
            _gap: [0; 4],
            room: [0; HEADROOM + HEADER_ROOM],
        }
    }

    /// Length of the frame in bytes, without any virtio header.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a frame has at least an Ethernet header")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The private first bytes of the frame: at least an Ethernet header, and the whole frame if it
    /// is no longer than [`HEADER_BYTES`].
    #[inline(always)]
    pub fn header(&self) -> &[u8] {
        &self.room[usize::from(self.head)..][..usize::from(self.head_len)]
    }

    /// The frame's first `N` bytes, if so many are private.
    #[inline(always)]
    pub fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        let (private, len) = self.private();
        // SAFETY: the private bytes are `len` bytes of `room`, whatever is done to the packet.
        (len >= N).then(|| unsafe { &*private.cast() })
    }

    /// Where the private first bytes are, and how many: [`Packet::header`] for those who copy it.
    #[inline(always)]
    pub fn private(&self) -> (*const u8, usize) {
        (self.room.as_ptr().wrapping_add(usize::from(self.head)), usize::from(self.head_len))
    }

    /// The private first bytes, to be rewritten by actions.
    #[inline(always)]
    pub fn header_mut(&mut self) -> &mut [u8] {
        &mut self.room[usize::from(self.head)..][..usize::from(self.head_len)]
    }

    /// Packets on the wire that this one stands for, and their bytes.
    #[inline(always)]
    pub fn on_wire(&self) -> (u64, u64) {
        self.offload.on_wire(self.len())
    }

    /// True if a receiver that can do `abilities` can be given the packet as it is.
    #[inline(always)]
    pub fn suits(&self, abilities: Abilities) -> bool {
        abilities.accept(&self.offload)
            && !(self.offload.is_super() && crate::offload::is_labelled(self.header()))
    }

    /// Opens a gap of `n` bytes, `at` bytes into the frame, for a header that is pushed, and returns it;
    /// its content is arbitrary. `None`, changing nothing, if there is no room in front of the frame or
    /// the first `at` bytes are not private.
    pub fn insert(&mut self, at: usize, n: usize) -> Option<&mut [u8]> {
        let head = usize::from(self.head);
        if n > head || at > usize::from(self.head_len) {
            return None;
        }
        self.room.copy_within(head..head + at, head - n);
        self.head -= n as u16;
        self.head_len += n as u16;
        self.len += n as u32;
        self.offload.shift(n as i32);
        Some(&mut self.room[head - n + at..][..n])
    }

    /// Takes `n` bytes out, `at` bytes into the frame. Returns false, changing nothing, if they are not
    /// all private.
    pub fn remove(&mut self, at: usize, n: usize) -> bool {
        let head = usize::from(self.head);
        if at + n > usize::from(self.head_len) {
            return false;
        }
        self.room.copy_within(head..head + at, head + n);
        self.head += n as u16;
        self.head_len -= n as u16;
        self.len -= n as u32;
        self.offload.shift(-(n as i32));
        true
    }

    /// Starts the packet with private bytes alone.
    ///
    /// # Panics
    /// If there are more than [`HEADER_BYTES`].
    pub fn set_header(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= HEADER_BYTES);
        self.room[HEADROOM..][..bytes.len()].copy_from_slice(bytes);
        self.head_len = bytes.len() as u16;
        self.len = bytes.len() as u32;
    }

    /// Appends `n` bytes copied from `src` to the private part, while it has no borrowed part.
    ///
    /// # Safety
    /// `src` is readable for `n` bytes.
    ///
    /// # Panics
    /// If the private part would exceed [`HEADER_BYTES`].
    pub unsafe fn fetch_more(&mut self, src: *const u8, n: usize) {
        let used = usize::from(self.head_len);
        assert!(self.seg_count == 0 && used + n <= HEADER_BYTES);
        // SAFETY: HEADROOM + used + n is inside `room` by the assertion; `src` by the caller.
        unsafe {
            std::ptr::copy_nonoverlapping(src, self.room.as_mut_ptr().add(HEADROOM + used), n)
        };
        self.head_len += n as u16;
        self.len += n as u32;
    }
}

/// Whoever lent the payload of a burst, told when the burst is over.
pub trait Lender {
    /// All packets of the last burst are done with: give their buffers back to the sender.
    fn give_back(&self);
}

/// Lender of what needs not be given back.
struct Nobody;

impl Lender for Nobody {
    fn give_back(&self) {}
}

/// A packet as it was at one time of its burst ([`Burst::save`]).
pub struct Saved {
    packet: Packet,
    /// Its place: the burst's storage, which burst it was there, and its index.
    of: (usize, u64, usize),
}

/// Storage of one burst. A PMD thread has one and fills it again and again.
#[derive(Debug)]
pub struct BurstBuf {
    packets: Box<[Packet; BURST]>,
    count: usize,
    segments: Vec<Segment<'static>>,
    /// Memory for payload of joined packets that was private. Reached by pointers only.
    spill: Vec<u8>,
    /// Packets for which something may be left to do.
    offloaded: Set,
    /// Those of them that are super-frames.
    supers: Set,
    /// Counts bursts.
    turn: u64,
}

impl Default for BurstBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl BurstBuf {
    /// Allocates storage; nothing is allocated later.
    pub fn new() -> Self {
        BurstBuf {
            packets: Box::new([const { Packet::new() }; BURST]),
            count: 0,
            offloaded: Set::NONE,
            supers: Set::NONE,
            segments: Vec::with_capacity(MAX_SEGMENTS),
            spill: Vec::with_capacity(coalesce::SPILL),
            turn: 0,
        }
    }

    /// Forgets what was there.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.count = 0;
        self.segments.clear();
        (self.offloaded, self.supers) = (Set::NONE, Set::NONE);
        self.turn = self.turn.wrapping_add(1);
    }

    /// Packets put in since [`BurstBuf::clear`].
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if no packet was put in.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Room for segments in this burst.
    pub fn segments_left(&self) -> usize {
        MAX_SEGMENTS - self.segments.len()
    }

    /// A burst of one packet, `bytes`, that no receive queue lends: for frames made by the switch.
    /// `None` if it is no frame: shorter than 14 bytes or longer than [`MAX_FRAME`].
    pub fn frame<'b>(&'b mut self, bytes: &'b [u8]) -> Option<Burst<'b>> {
        if !(14..=MAX_FRAME).contains(&bytes.len()) {
            return None;
        }
        self.clear();
        let (private, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES));
        self.push()?.set_header(private);
        if !rest.is_empty() {
            // SAFETY: `bytes` is borrowed for 'b, and dropping the burst clears the buffer.
            unsafe { self.add_segment(rest.as_ptr(), rest.len()) };
        }
        Some(self.lend(&Nobody))
    }

    /// Adds an empty packet and returns it. `None` if the burst is full.
    #[inline(always)]
    pub fn push(&mut self) -> Option<&mut Packet> {
        let p = self.packets.get_mut(self.count)?;
        self.count += 1;
        p.head = HEADROOM as u16;
        p.head_len = 0;
        p.len = 0;
        (p.seg_first, p.seg_count) = (0, 0);
        p.offload = Offload::NONE;
        p.queue = 0;
        Some(p)
    }

    /// Adds a packet of `len` private bytes that lie behind a device header of `H` bytes at `src`. Returns
    /// that device header; `None` if the burst is full.
    ///
    /// # Safety
    /// `src` is readable for `H + len` bytes.
    ///
    /// # Panics
    /// If `len` exceeds [`HEADER_BYTES`].
    #[inline(always)]
    pub unsafe fn fetch<const H: usize>(&mut self, src: *const u8, len: usize) -> Option<&[u8; H]> {
        const { assert!(H <= 16) };
        assert!(len <= HEADER_BYTES);
        let p = self.packets.get_mut(self.count)?;
        self.count += 1;
        p.head = HEADROOM as u16;
        (p.head_len, p.len) = (len as u16, len as u32);
        (p.seg_first, p.seg_count, p.offload, p.queue) = (0, 0, Offload::NONE, 0);
        // SAFETY: H <= HEADROOM and len <= HEADER_BYTES, so this is inside `room`; `src` by the caller.
        unsafe { arch::copy_small(src, p.room.as_mut_ptr().add(HEADROOM - H), H + len) };
        p.room[..HEADROOM].last_chunk()
    }

    /// Says what is left to do for the packet added last.
    #[inline(always)]
    pub fn set_offload(&mut self, offload: Offload) {
        if let Some(p) = self.last() {
            p.offload = offload;
            self.note_offload(self.count - 1, &offload);
        }
    }

    #[inline(always)]
    fn note_offload(&mut self, i: usize, offload: &Offload) {
        self.offloaded = self.offloaded.with(Set::one(i));
        if offload.is_super() {
            self.supers = self.supers.with(Set::one(i));
        }
    }

    /// The packet added last, to be filled further. `None` before the first [`BurstBuf::push`].
    #[inline(always)]
    pub fn last(&mut self) -> Option<&mut Packet> {
        self.packets.get_mut(self.count.wrapping_sub(1))
    }

    /// Takes back the packet added last, with its segments.
    pub fn pop(&mut self) {
        if self.count > 0 {
            self.count -= 1;
            let gone = Set::one(self.count);
            (self.offloaded, self.supers) =
                (self.offloaded.without(gone), self.supers.without(gone));
            let p = &self.packets[self.count];
            if p.seg_count > 0 {
                self.segments.truncate(usize::from(p.seg_first));
            }
        }
    }

    /// Adds borrowed payload to the packet added last. Returns false, adding nothing, if the burst
    /// has no room for another segment or no packet, or `len` is 0.
    ///
    /// # Safety
    /// `ptr` stays readable for `len` bytes until the [`Lender`] that the buffer is then lent with
    /// is told to take it back, or the buffer is cleared.
    #[inline]
    pub unsafe fn add_segment(&mut self, ptr: *const u8, len: usize) -> bool {
        if self.count == 0 || self.segments.len() == MAX_SEGMENTS || len == 0 {
            return false;
        }
        let Ok(len32) = u32::try_from(len) else {
            return false;
        };
        let p = &mut self.packets[self.count - 1];
        if p.seg_count == 0 {
            p.seg_first = self.segments.len() as u16;
        }
        self.segments.push(Segment { ptr, len: len32, loan: PhantomData });
        p.seg_count += 1;
        p.len += len32;
        true
    }

    /// Lends what was filled in. Dropping the burst tells `lender`.
    #[inline(always)]
    pub fn lend<'b>(&'b mut self, lender: &'b dyn Lender) -> Burst<'b> {
        Burst { buf: self, lender }
    }
}

/// A burst on loan. Packets and payload can be used while it lives and not longer:
///
/// ```compile_fail
/// # use packet::{Burst, Segment};
/// fn keep<'a>(burst: Burst<'a>) -> Vec<Segment<'a>> {
///     burst.segments(0).to_vec() // the segments would outlive the loan
/// }
/// ```
pub struct Burst<'b> {
    buf: &'b mut BurstBuf,
    lender: &'b dyn Lender,
}

impl Burst<'_> {
    /// Packets in the burst, 1 to [`BURST`].
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.buf.count
    }

    /// True if there is no packet.
    pub fn is_empty(&self) -> bool {
        self.buf.count == 0
    }

    /// All packets, in the order of arrival.
    #[inline(always)]
    pub fn packets(&self) -> &[Packet] {
        &self.buf.packets[..self.buf.count]
    }

    /// Packets for which something is left to do, and some for which that was done meanwhile.
    #[inline(always)]
    pub fn offloaded(&self) -> Set {
        self.buf.offloaded
    }

    /// Super-frames, and some that no longer are.
    #[inline(always)]
    pub fn supers(&self) -> Set {
        self.buf.supers
    }

    /// Packets and bytes that these packets are more on the wire than here, because of super-frames.
    #[inline(always)]
    pub fn more_on_wire(&self, set: Set) -> (u64, u64) {
        if self.supers().meets(set) { self.more(set) } else { (0, 0) }
    }

    #[inline(never)]
    fn more(&self, set: Set) -> (u64, u64) {
        set.map(|i| &self.buf.packets[i]).fold((0, 0), |(packets, bytes), p| {
            let (n, len) = p.on_wire();
            (packets + n - 1, bytes + len - p.len() as u64)
        })
    }

    /// Says what is left to do for packet `i`.
    pub fn set_offload(&mut self, i: usize, offload: Offload) {
        self.packet_mut(i).offload = offload;
        self.buf.note_offload(i, &offload);
    }

    /// One packet, to be changed.
    #[inline(always)]
    pub fn packet_mut(&mut self, i: usize) -> &mut Packet {
        &mut self.buf.packets[..self.buf.count][i]
    }

    /// The borrowed part of packet `i`, in order; it follows the private header.
    #[inline(always)]
    pub fn segments(&self, i: usize) -> &[Segment<'_>] {
        let p = &self.buf.packets[i];
        &self.buf.segments[usize::from(p.seg_first)..][..usize::from(p.seg_count)]
    }

    /// Makes the first `want` bytes of packet `i` private, if the frame is that long and there is
    /// room for them (256 bytes of the frame as received); returns the private part. For headers
    /// deeper than [`HEADER_BYTES`].
    pub fn pull(&mut self, i: usize, want: usize) -> &[u8] {
        let buf = &mut *self.buf;
        let p = &mut buf.packets[i];
        while usize::from(p.head_len) < want && p.seg_count > 0 {
            let s = &mut buf.segments[usize::from(p.seg_first)];
            let used = usize::from(p.head_len);
            let at = usize::from(p.head) + used;
            let n = (want - used).min(s.len()).min(p.room.len() - at);
            if n == 0 {
                break;
            }
            // SAFETY: the segment is readable for its length (`add_segment`), n is within it and
            // within `room`.
            unsafe {
                std::ptr::copy_nonoverlapping(s.ptr, p.room.as_mut_ptr().add(at), n);
                s.ptr = s.ptr.add(n);
            }
            s.len -= n as u32;
            p.head_len += n as u16;
            if s.len == 0 {
                p.seg_first += 1;
                p.seg_count -= 1;
            }
        }
        p.header()
    }
}

impl Burst<'_> {
    /// Remembers packet `i` as it is now, for [`Burst::restore`].
    pub fn save(&mut self, i: usize) -> Saved {
        // What is pulled later is gone from the segments, so all that ever can be is pulled first.
        self.pull(i, usize::MAX);
        Saved { packet: self.buf.packets[i].clone(), of: self.place(i) }
    }

    /// Makes packet `i` what it was when `saved` was made of it.
    ///
    /// # Panics
    /// If that was another packet or another burst.
    pub fn restore(&mut self, i: usize, saved: &Saved) {
        // A packet's length is that of its parts, which transmit queues rely on.
        assert!(saved.of == self.place(i));
        self.buf.packets[i].clone_from(&saved.packet);
    }

    fn place(&self, i: usize) -> (usize, u64, usize) {
        (self.buf.packets.as_ptr().addr(), self.buf.turn, i)
    }

    /// Cuts packet `i` to `len` bytes. Returns false, changing nothing, if the burst has no room for
    /// the segments that remain. [`Burst::restore`] undoes it.
    pub fn truncate(&mut self, i: usize, len: usize) -> bool {
        let buf = &mut *self.buf;
        let p = &mut buf.packets[i];
        if len >= p.len() {
            return true;
        }
        let private = usize::from(p.head_len).min(len);
        let mut left = len - private;
        let (from, count) = (usize::from(p.seg_first), usize::from(p.seg_count));
        let first = buf.segments.len();
        for at in from..from + count {
            if left == 0 {
                break;
            }
            if buf.segments.len() == MAX_SEGMENTS {
                buf.segments.truncate(first);
                return false;
            }
            let mut s = buf.segments[at];
            s.len = s.len.min(left as u32);
            left -= s.len();
            buf.segments.push(s);
        }
        (p.len, p.head_len) = (len as u32, private as u16);
        // Whatever its checksum was to be, it is not that of what is left.
        p.offload = Offload::default();
        p.seg_first = first as u16;
        p.seg_count = (buf.segments.len() - first) as u16;
        true
    }

    /// A copy of the first `max` bytes of packet `i`, or of all of it.
    pub fn copy_out(&self, i: usize, max: usize) -> Vec<u8> {
        let mut out = vec![0; self.buf.packets[i].len().min(max)];
        self.copy_to(i, &mut out);
        out
    }

    /// Copies the first bytes of packet `i` to `out`, as many as there are and fit; returns how many.
    pub fn copy_to(&self, i: usize, out: &mut [u8]) -> usize {
        let p = &self.buf.packets[i];
        let len = p.len().min(out.len());
        let private = p.header().len().min(len);
        out[..private].copy_from_slice(&p.header()[..private]);
        let mut rest = &mut out[private..len];
        for s in self.segments(i) {
            let n = s.len().min(rest.len());
            // SAFETY: the segment is readable for its length (`add_segment`), and n is within both.
            unsafe { std::ptr::copy_nonoverlapping(s.as_ptr(), rest.as_mut_ptr(), n) };
            rest = &mut rest[n..];
        }
        len
    }
}

impl Drop for Burst<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // No segment outlives the loan.
        self.buf.clear();
        self.lender.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Owner(Cell<u32>);
    impl Lender for Owner {
        fn give_back(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn filled(buf: &mut BurstBuf, frame: &[u8], before: usize, pieces: &[usize]) {
        let head = (frame.len()).min(HEADER_BYTES + before);
        // SAFETY: the frame outlives the burst in these tests.
        let fetched = unsafe {
            match before {
                0 => buf.fetch::<0>(frame.as_ptr(), head).is_some(),
                _ => buf.fetch::<12>(frame.as_ptr(), head - 12).is_some(),
            }
        };
        assert!(fetched, "room");
        let mut rest = &frame[head..];
        for &n in pieces {
            // SAFETY: as above.
            assert!(unsafe { buf.add_segment(rest.as_ptr(), n) });
            rest = &rest[n..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_burst_gives_back_once_when_dropped() {
        let (mut buf, owner) = (BurstBuf::new(), Owner(Cell::new(0)));
        filled(&mut buf, &[7; 64], 0, &[]);
        let burst = buf.lend(&owner);
        assert_eq!((burst.len(), owner.0.get()), (1, 0));
        drop(burst);
        assert_eq!(owner.0.get(), 1);
    }

    #[test]
    fn header_and_segments_make_the_frame() {
        let frame: Vec<u8> = (0..1500u32).map(|i| i as u8).collect();
        let (mut buf, owner) = (BurstBuf::new(), Owner(Cell::new(0)));
        filled(&mut buf, &frame, 12, &[1000, 360]);
        let burst = buf.lend(&owner);
        assert_eq!(burst.packets()[0].len(), 1488);
        assert_eq!(burst.packets()[0].header(), &frame[12..140]);
        assert_eq!(burst.segments(0).iter().map(Segment::len).sum::<usize>(), 1360);
    }

    #[test]
    fn pull_makes_more_private_and_keeps_the_length() {
        let frame: Vec<u8> = (0..600u32).map(|i| i as u8).collect();
        let (mut buf, owner) = (BurstBuf::new(), Owner(Cell::new(0)));
        filled(&mut buf, &frame, 0, &[10, 462]);
        let mut burst = buf.lend(&owner);
        assert_eq!(burst.pull(0, 200), &frame[..200]);
        assert_eq!(burst.segments(0).len(), 1);
        assert_eq!(burst.segments(0)[0].len(), 400);
        assert_eq!(burst.pull(0, 10_000), &frame[..256], "room is 256");
        assert_eq!(burst.packets()[0].len(), 600);
    }

    #[test]
    fn a_full_burst_refuses_more() {
        let mut buf = BurstBuf::new();
        for _ in 0..BURST {
            assert!(buf.push().is_some());
        }
        assert!(buf.push().is_none());
        let byte = [0u8; 1];
        for _ in 0..MAX_SEGMENTS {
            // SAFETY: never lent.
            assert!(unsafe { buf.add_segment(byte.as_ptr(), 1) });
        }
        // SAFETY: never lent.
        assert!(!unsafe { buf.add_segment(byte.as_ptr(), 1) });
        buf.pop();
        assert_eq!((buf.len(), buf.segments_left()), (BURST - 1, MAX_SEGMENTS));
    }

    #[test]
    fn headers_are_pushed_and_popped_within_the_room() {
        let frame: Vec<u8> = (0..200u32).map(|i| i as u8).collect();
        let (mut buf, owner) = (BurstBuf::new(), Owner(Cell::new(0)));
        filled(&mut buf, &frame, 0, &[72]);
        let mut burst = buf.lend(&owner);
        let p = burst.packet_mut(0);
        p.offload = Offload { flags: 1, hdr_len: 54, csum_start: 34, ..Offload::default() };
        p.insert(12, 4).expect("room").copy_from_slice(&[0xaa; 4]);
        assert_eq!(
            (p.header()[..12].to_vec(), &p.header()[12..17]),
            (frame[..12].to_vec(), &[0xaa, 0xaa, 0xaa, 0xaa, 12][..])
        );
        assert_eq!((p.len(), p.header().len(), p.offload.csum_start), (204, 132, 38));
        assert!(p.insert(200, 4).is_none(), "not private there");
        assert_eq!((0..100).take_while(|_| p.insert(0, 4).is_some()).count(), 31);
        assert!(p.remove(0, 124) && p.remove(12, 4));
        assert_eq!((p.header(), p.len(), p.offload.csum_start), (&frame[..128], 200, 34));
        assert!(!p.remove(127, 2), "not private");
        assert_eq!(burst.copy_out(0, 1000), frame);
    }

    #[test]
    fn what_is_saved_comes_back_whatever_is_done_meanwhile() {
        let frame: Vec<u8> = (0..900u32).map(|i| (i / 3) as u8).collect();
        let (mut buf, owner) = (BurstBuf::new(), Owner(Cell::new(0)));
        filled(&mut buf, &frame, 0, &[100, 300, 372]);
        let mut burst = buf.lend(&owner);
        burst.packet_mut(0).insert(0, 8).expect("room").copy_from_slice(&[9; 8]);
        let saved = burst.save(0);
        assert!(burst.packet_mut(0).remove(0, 50));
        burst.pull(0, 1000);
        burst.packet_mut(0).header_mut().fill(0);
        for len in [850, 700, 300, 5] {
            assert!(burst.truncate(0, len));
            assert_eq!(burst.copy_out(0, 1000).len(), len);
            assert_eq!(burst.packets()[0].len(), len);
        }
        burst.restore(0, &saved);
        let mut expected = vec![9; 8];
        expected.extend(&frame);
        assert_eq!(burst.copy_out(0, 2000), expected);
        assert!(burst.truncate(0, 700));
        assert_eq!(burst.copy_out(0, 2000), expected[..700]);
        burst.restore(0, &saved);
        assert_eq!(burst.copy_out(0, 20), expected[..20]);
    }

    #[test]
    fn frames_of_our_own_are_bursts_too() {
        let mut buf = BurstBuf::new();
        assert!(buf.frame(&[0; 13]).is_none() && buf.frame(&vec![0; MAX_FRAME + 1]).is_none());
        let frame: Vec<u8> = (0..2000u32).map(|i| i as u8).collect();
        let burst = buf.frame(&frame).expect("a frame");
        assert_eq!((burst.len(), burst.copy_out(0, 5000)), (1, frame.clone()));
        drop(burst);
        assert!(buf.is_empty(), "nothing of it can be lent again");
    }
}
