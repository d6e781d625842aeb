//! Joining segments of TCP that came in one burst into super-frames: receive coalescing, for ports whose
//! netdev hands over each frame as it was on the wire.
//!
//! The rules are those of Linux's GRO, and stricter where [`Segments`](crate::Segments) could not make the
//! frames again byte for byte: all headers are equal but what counts on (IPv4's identification, sequence
//! numbers), checksums are right or left to do, payloads are of equal size but the last. A frame that is not
//! joined stays behind all frames of its flow that came before it.

use super::{BURST, Burst, MAX_SEGMENTS, Segment};
use crate::offload::{TCP_PAYLOAD, gso, is_labelled, network};
use crate::{HEADER_BYTES, Offload, Packet, Set, checksum};
use std::marker::PhantomData;

/// Flows of which the next segment is waited for; with one more the oldest is given up. As Linux has it
/// (`MAX_GRO_SKBS`).
const FLOWS: usize = 8;
/// Bytes for payload that was private: all of a burst's private bytes would fit.
pub(super) const SPILL: usize = BURST * HEADER_BYTES;
/// No packet follows.
const END: u8 = u8::MAX;

/// TCP flags (RFC 9293, 3.1). Of the first kind a frame has none, or is alone; a frame with one of the second
/// is the last of its super-frame.
const ALONE: u8 = 0x80 | 0x20 | 0x04 | 0x02;
const LAST: u8 = 0x08 | 0x01;
const ACK: u8 = 0x10;

/// A segment of TCP over IP, without options of IP and not a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    network: usize,
    transport: usize,
    /// Bytes of all headers.
    headers: usize,
    v4: bool,
}

/// What a packet is to coalescing.
enum Kind {
    /// Nothing to do with TCP.
    Other,
    /// Perhaps of a flow, and it cannot be said of which.
    Unclear,
    /// A segment; true if it may be joined with others.
    Tcp(Shape, bool),
}

/// A super-frame that is being put together.
#[derive(Clone, Copy, Default)]
struct Open {
    /// The packets that are its first and last.
    first: usize,
    last: usize,
    /// What the next frame has to have.
    sequence: u32,
    id: u16,
    /// Bytes so far.
    len: usize,
    /// Payload of each.
    size: usize,
}

/// The open super-frames, oldest first.
#[derive(Default)]
struct Flows {
    open: [Open; FLOWS],
    count: usize,
}

impl Flows {
    fn remove(&mut self, at: usize) {
        self.open.copy_within(at + 1..self.count, at);
        self.count -= 1;
    }

    fn push(&mut self, open: Open) {
        if self.count == FLOWS {
            self.remove(0);
        }
        self.open[self.count] = open;
        self.count += 1;
    }
}

impl Burst<'_> {
    /// Joins segments of TCP that follow each other in their flow to super-frames; returns how many of those
    /// there are. Packets that were joined are no longer in the burst; the others keep their order.
    pub fn coalesce(&mut self) -> usize {
        let mut flows = Flows::default();
        let mut next = [END; BURST];
        let mut firsts = Set::NONE;
        for i in 0..self.len() {
            match kind(&self.packets()[i]) {
                Kind::Other => {}
                Kind::Unclear => flows.count = 0,
                Kind::Tcp(shape, joins) => {
                    if let Some(open) = self.follow(&mut flows, i, &shape, joins) {
                        next[open.last] = i as u8;
                        firsts = firsts.with(Set::one(open.first));
                    }
                }
            }
        }
        if firsts.is_empty() {
            return 0;
        }
        let (mut made, mut joined) = (0, Set::NONE);
        for first in firsts {
            if let Some(others) = self.join(first, &next) {
                made += 1;
                joined = joined.with(others);
            }
        }
        self.remove(joined);
        made
    }

    /// Looks for the super-frame that packet `i` belongs to, and returns it as it was before. Without one the
    /// packet may begin one.
    fn follow(&self, flows: &mut Flows, i: usize, shape: &Shape, joins: bool) -> Option<Open> {
        let p = &self.packets()[i];
        let (h, payload) = (p.header(), p.len().saturating_sub(shape.headers));
        let flags = h[shape.transport + 13];
        let sequence = half(h, shape.transport + 4, shape.transport + 6);
        let id = if shape.v4 { word(h, shape.network + 4) } else { 0 };
        let same = |o: &Open| same_flow(self.packets()[o.first].header(), h, shape);
        if let Some(at) = flows.open[..flows.count].iter().position(same) {
            let open = flows.open[at];
            let fits = joins
                && (open.sequence, open.id) == (sequence, id)
                && payload <= open.size
                && open.len + payload - shape.network <= usize::from(u16::MAX)
                && self.agree(open.first, i, shape)
                && (open.first != open.last || self.is_right(open.first, shape))
                && self.is_right(i, shape);
            if fits && payload == open.size && flags & LAST == 0 {
                flows.open[at] = open.with(i, payload, shape);
            } else {
                flows.remove(at);
            }
            if fits {
                return Some(open);
            }
        }
        if joins && flags & LAST == 0 && payload >= TCP_PAYLOAD {
            let open = Open { first: i, last: i, sequence, id, len: shape.headers, size: payload };
            flows.push(open.with(i, payload, shape));
        }
        None
    }

    /// True if the headers of two segments are equal but for what differs within a super-frame.
    fn agree(&self, a: usize, b: usize, shape: &Shape) -> bool {
        let (p, q) = (&self.packets()[a], &self.packets()[b]);
        if p.offload != q.offload {
            return false;
        }
        let (a, b) = (p.header(), q.header());
        let Shape { network: n, transport: t, headers, v4 } = *shape;
        let equal = |from: usize, to: usize| a[from..to] == b[from..to];
        let network = match v4 {
            // Not the length, the identification and the checksum.
            true => equal(0, n + 2) && equal(n + 6, n + 10) && equal(n + 12, t),
            false => equal(0, n + 4) && equal(n + 6, t),
        };
        // From here on both are known to have headers of the same lengths.
        network
            && equal(t + 8, t + 13)
            && (a[t + 13] ^ b[t + 13]) & !LAST == 0
            && equal(t + 14, t + 16)
            && equal(t + 18, headers)
    }

    /// True if a segment's checksums are right, and as they would be made anew: a zero has two forms. A
    /// checksum that is left to do has to be the pseudo-header's.
    fn is_right(&self, i: usize, shape: &Shape) -> bool {
        let p = &self.packets()[i];
        let (h, at) = (p.header(), shape.transport + 16);
        let ip = &h[shape.network..shape.transport];
        if shape.v4 && (checksum::internet(0, ip) != 0 || word(h, shape.network + 10) == 0xffff) {
            return false;
        }
        let pseudo = pseudo(h, shape, p.len());
        match p.offload.partial_at() {
            Some(partial) => partial == at && word(h, at) == pseudo,
            None => word(h, at) != 0 && self.adds_up(i, shape.transport, pseudo),
        }
    }

    /// Makes a super-frame of packet `first` and those that follow it; returns the others. `None`, changing
    /// nothing, if the burst has no room for its segments.
    fn join(&mut self, first: usize, next: &[u8; BURST]) -> Option<Set> {
        let Kind::Tcp(shape, _) = kind(&self.packets()[first]) else { return None };
        let start = self.buf.segments.len();
        let others =
            std::iter::successors(Some(first), |&i| (next[i] != END).then(|| usize::from(next[i])));
        let (mut joined, mut last) = (Set::NONE, first);
        for i in others {
            if !self.append_payload(i, shape.headers, i == first) {
                self.buf.segments.truncate(start);
                return None;
            }
            last = i;
            joined = joined.with(Set::one(i));
        }
        let flags = self.packets()[last].header()[shape.transport + 13] & LAST;
        let borrowed: usize = self.buf.segments[start..].iter().map(Segment::len).sum();
        let size = self.packets()[first].len() - shape.headers;
        let count = self.buf.segments.len() - start;
        let p = self.packet_mut(first);
        (p.seg_first, p.seg_count) = (start as u16, count as u16);
        p.len = u32::from(p.head_len) + borrowed as u32;
        finish(p, &shape, size, flags);
        let offload = p.offload;
        self.buf.note_offload(first, &offload);
        Some(joined.without(Set::one(first)))
    }

    /// Adds the payload of packet `i` to the list of segments; private bytes are copied aside, unless they
    /// stay where they are. False if there is no room.
    fn append_payload(&mut self, i: usize, headers: usize, stays: bool) -> bool {
        let buf = &mut *self.buf;
        let p = &buf.packets[i];
        let private = &p.header()[headers..];
        if buf.segments.len() + usize::from(p.seg_count) + 1 > MAX_SEGMENTS {
            return false;
        }
        if !stays && !private.is_empty() {
            // SAFETY: each packet has a place of its own of HEADER_BYTES, and `kind` refuses more private
            // payload. The place is written once in a burst, before anybody else knows it.
            let ptr = unsafe {
                let to = buf.spill.as_mut_ptr().add(i * HEADER_BYTES);
                std::ptr::copy_nonoverlapping(private.as_ptr(), to, private.len());
                to
            };
            buf.segments.push(Segment { ptr, len: private.len() as u32, loan: PhantomData });
        }
        let from = usize::from(p.seg_first);
        buf.segments.extend_from_within(from..from + usize::from(p.seg_count));
        true
    }

    /// Takes packets out of the burst.
    fn remove(&mut self, gone: Set) {
        let buf = &mut *self.buf;
        let (mut offloaded, mut supers, mut to) = (Set::NONE, Set::NONE, 0);
        for i in Set::range(0, buf.count).without(gone) {
            let moved = |set: Set| if set.meets(Set::one(i)) { Set::one(to) } else { Set::NONE };
            offloaded = offloaded.with(moved(buf.offloaded));
            supers = supers.with(moved(buf.supers));
            if to < i {
                let (front, back) = buf.packets.split_at_mut(i);
                front[to].clone_from(&back[0]);
            }
            to += 1;
        }
        (buf.count, buf.offloaded, buf.supers) = (to, offloaded, supers);
    }
}

impl Open {
    /// With packet `i` at its end.
    fn with(self, i: usize, payload: usize, shape: &Shape) -> Open {
        Open {
            last: i,
            sequence: self.sequence.wrapping_add(payload as u32),
            id: self.id.wrapping_add(u16::from(shape.v4)),
            len: self.len + payload,
            ..self
        }
    }
}

fn kind(p: &Packet) -> Kind {
    let h = p.header();
    let Some(network) = network(h).filter(|_| !is_labelled(h)) else { return Kind::Other };
    let v4 = h[network] >> 4 == 4;
    let (transport, protocol) = match v4 {
        true => (network + 20, h.get(network + 9)),
        false => (network + 40, h.get(network + 6)),
    };
    match protocol {
        Some(6) => {}
        // Extension headers, behind which there may be TCP.
        Some(0 | 43 | 44 | 51 | 60) if !v4 => return Kind::Unclear,
        _ => return Kind::Other,
    }
    let Some(offset) = h.get(transport + 12).map(|b| usize::from(b >> 4) * 4) else {
        return Kind::Unclear;
    };
    let (headers, fragment) = (transport + offset, word(h, network + 6) & 0xbfff);
    let odd = v4 && (h[network] != 0x45 || fragment != 0);
    if odd || offset < 20 || headers > h.len().min(HEADER_BYTES) {
        return Kind::Unclear;
    }
    let said = match v4 {
        true => network + usize::from(word(h, network + 2)),
        false => transport + usize::from(word(h, network + 4)),
    };
    let whole = said == p.len() && headers < said && h.len() - headers <= HEADER_BYTES;
    let flags = h[transport + 13];
    let joins = whole && flags & (ALONE | ACK) == ACK && !p.offload.is_super();
    Kind::Tcp(Shape { network, transport, headers, v4 }, joins)
}

/// True if two packets, one of which has this shape, are of one flow: addresses and ports are equal.
fn same_flow(a: &[u8], b: &[u8], shape: &Shape) -> bool {
    let addresses = shape.network + if shape.v4 { 12 } else { 8 };
    // Of another shape: what is looked at is not what it seems to be, and so differs in the version or a tag.
    a.get(12..14) == b.get(12..14)
        && a.get(addresses..shape.transport + 4) == b.get(addresses..shape.transport + 4)
}

/// The sum of the pseudo-header of a segment in a frame of `len` bytes.
fn pseudo(h: &[u8], shape: &Shape, len: usize) -> u16 {
    let addresses = shape.network + if shape.v4 { 12 } else { 8 };
    let rest = 6 + (len - shape.transport) as u64;
    checksum::fold(checksum::partial(rest, &h[addresses..shape.transport]))
}

/// Makes the headers of `p`, which has all payload, those of a super-frame.
fn finish(p: &mut Packet, shape: &Shape, size: usize, flags: u8) {
    let len = p.len();
    let Shape { network: n, transport: t, headers, v4 } = *shape;
    let sum = pseudo(p.header(), shape, len);
    let h = p.header_mut();
    let mut put = |at: usize, value: u16| h[at..at + 2].copy_from_slice(&value.to_be_bytes());
    put(t + 16, sum);
    match v4 {
        true => {
            put(n + 2, (len - n) as u16);
            put(n + 10, 0);
        }
        false => put(n + 4, (len - t) as u16),
    }
    h[t + 13] |= flags;
    if v4 {
        let sum = checksum::internet(0, &h[n..t]);
        h[n + 10..n + 12].copy_from_slice(&sum.to_be_bytes());
    }
    p.offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: if v4 { gso::TCPV4 } else { gso::TCPV6 },
        hdr_len: headers as u16,
        gso_size: size as u16,
        csum_start: t as u16,
        csum_offset: 16,
    };
}

fn word(h: &[u8], at: usize) -> u16 {
    h.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn half(h: &[u8], high: usize, low: usize) -> u32 {
    u32::from(word(h, high)) << 16 | u32::from(word(h, low))
}

#[cfg(test)]
mod tests;
