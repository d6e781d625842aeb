//! Cutting super-frames into the packets that go on the wire, and completing checksums, at the last moment:
//! when the receiver's buffers are there, so that payload is copied once, straight into them.
//!
//! What comes out is what Linux makes of the same super-frame, byte for byte (`tests/segmentation.rs`).

use crate::arch;
use crate::burst::{Burst, HEADER_ROOM, Segment};
use crate::checksum;
use crate::offload::{gso, network, never_zero};
use crate::{DropReason, Offload};

/// A sum of 16-bit words of bytes that come in parts.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    /// In native order, not folded.
    sum: u64,
    /// The next byte is the second of a word.
    odd: bool,
}

impl Running {
    /// Adds what [`arch::sum`] gave for `len` bytes.
    fn add(&mut self, part: u64, len: usize) {
        let folded = checksum::fold(part);
        self.sum += u64::from(if self.odd { folded.swap_bytes() } else { folded });
        self.odd ^= len % 2 == 1;
    }

    /// The checksum, to be stored.
    fn finish(self) -> [u8; 2] {
        never_zero(!checksum::fold(self.sum)).to_ne_bytes()
    }
}

/// What follows a frame's headers, to be read once from front to back.
#[derive(Debug)]
struct Payload<'s> {
    private: &'s [u8],
    borrowed: &'s [Segment<'s>],
    /// Bytes read of the first borrowed piece.
    at: usize,
}

impl Payload<'_> {
    /// The next piece, `most` bytes at most.
    fn next(&mut self, most: usize) -> Option<(*const u8, usize)> {
        if !self.private.is_empty() {
            let (now, later) = self.private.split_at(most.min(self.private.len()));
            self.private = later;
            return Some((now.as_ptr(), now.len()));
        }
        let piece = self.borrowed.first()?;
        let n = most.min(piece.len() - self.at);
        let ptr = piece.as_ptr().wrapping_add(self.at);
        self.at += n;
        if self.at == piece.len() {
            self.borrowed = &self.borrowed[1..];
            self.at = 0;
        }
        Some((ptr, n))
    }
}

/// A super-frame being cut: [`Segments::advance`] for each segment, then its payload and its headers in
/// any order ([`Segments::copy`], [`Segments::headers`]).
#[derive(Debug)]
pub struct Segments<'s> {
    head: [u8; HEADER_ROOM],
    head_len: usize,
    network: usize,
    transport: usize,
    is_v4: bool,
    is_tcp: bool,
    /// Payload of a segment.
    size: usize,
    /// The super-frame's checksum without the length that its pseudo-header has.
    partial: u64,
    id: u16,
    sequence: u32,
    tcp_flags: u8,
    /// Segments begun, and payload that was not begun.
    index: u32,
    left: usize,
    payload: Payload<'s>,
    sum: Running,
}

/// TCP flags that the last segment alone has.
const FIN_PSH: u8 = 0x09;
/// The flag that the first segment alone has.
const CWR: u8 = 0x80;

impl Segments<'_> {
    /// Begins the next segment; `None` after the last. Returns the bytes of its payload.
    pub fn advance(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let payload = self.size.min(self.left);
        self.left -= payload;
        self.sum = Running::default();
        self.network_header(payload);
        self.transport_header(payload);
        self.index += 1;
        Some(payload)
    }

    fn network_header(&mut self, payload: usize) {
        let (at, end) = (self.network, self.head_len + payload);
        if self.is_v4 {
            put(&mut self.head, at + 2, (end - at) as u16);
            put(&mut self.head, at + 4, self.id.wrapping_add(self.index as u16));
            put(&mut self.head, at + 10, 0);
            let sum = checksum::internet(0, &self.head[at..self.transport]);
            put(&mut self.head, at + 10, sum);
        } else {
            put(&mut self.head, at + 4, (end - at - 40) as u16);
        }
    }

    fn transport_header(&mut self, payload: usize) {
        let (at, end) = (self.transport, self.head_len + payload);
        // Not complemented: what is to be added is the pseudo-header with this segment's length.
        let partial = checksum::fold(self.partial + (end - at) as u64);
        if self.is_tcp {
            let sequence = self.sequence.wrapping_add(self.index * self.size as u32);
            self.head[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            let last = if self.left > 0 { FIN_PSH } else { 0 };
            let first = if self.index > 0 { CWR } else { 0 };
            self.head[at + 13] = self.tcp_flags & !last & !first;
            put(&mut self.head, at + 16, partial);
        } else {
            put(&mut self.head, at + 4, (end - at) as u16);
            put(&mut self.head, at + 6, partial);
        }
    }

    /// The segment's headers. Its checksum covers the pseudo-header, unless it was completed.
    pub fn headers(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// What is left to do for the segment if its checksum is not completed.
    pub fn offload(&self) -> Offload {
        Offload {
            flags: Offload::NEEDS_CSUM,
            csum_start: self.transport as u16,
            csum_offset: if self.is_tcp { 16 } else { 6 },
            ..Offload::default()
        }
    }

    /// Copies the next `len` bytes of payload to `dst`, and adds them to the checksum if `sum`. Bytes that
    /// there are not are left as they are.
    ///
    /// # Safety
    /// `dst` is writable for `len` bytes and is none of the frame's.
    pub unsafe fn copy(&mut self, mut dst: *mut u8, mut len: usize, sum: bool) {
        while len > 0 {
            let Some((src, n)) = self.payload.next(len) else { return };
            // SAFETY: pieces are readable while the burst is borrowed, and n <= len.
            unsafe {
                match sum {
                    true => self.sum.add(arch::copy_sum(src, dst, n), n),
                    false => std::ptr::copy_nonoverlapping(src, dst, n),
                }
                dst = dst.add(n);
            }
            len -= n;
        }
    }

    /// Completes the checksum, after all payload of the segment was copied and added to it.
    pub fn complete(&mut self) {
        let transport = &self.head[self.transport..self.head_len];
        let mut sum = self.sum;
        debug_assert!(transport.len().is_multiple_of(2));
        // An even number of bytes, so it does not matter that they come last.
        sum.odd = false;
        // SAFETY: it is a slice.
        sum.add(unsafe { arch::sum(transport.as_ptr(), transport.len()) }, transport.len());
        let at = self.transport + if self.is_tcp { 16 } else { 6 };
        self.head[at..at + 2].copy_from_slice(&sum.finish());
    }

    /// Segments that were not begun.
    pub fn rest(&self) -> usize {
        self.left.div_ceil(self.size)
    }
}

/// Adds up all bytes.
fn add_all(mut bytes: Payload<'_>) -> Running {
    let mut sum = Running::default();
    while let Some((ptr, n)) = bytes.next(usize::MAX) {
        // SAFETY: pieces are readable while the burst is borrowed.
        sum.add(unsafe { arch::sum(ptr, n) }, n);
    }
    sum
}

fn put(h: &mut [u8], at: usize, value: u16) {
    h[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get(h: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([h[at], h[at + 1]])
}

impl Burst<'_> {
    /// Packet `i`, a super-frame, to be cut.
    ///
    /// # Errors
    /// If its headers do not fit into what can be private.
    pub fn cut(&mut self, i: usize) -> Result<Segments<'_>, DropReason> {
        let offload = self.packets()[i].offload;
        let head_len = usize::from(offload.hdr_len);
        self.pull(i, head_len);
        let packet = &self.packets()[i];
        let (transport, len) = (usize::from(offload.csum_start), packet.len());
        let is_tcp = offload.gso_type != gso::UDP_L4;
        let smallest = transport + if is_tcp { 20 } else { 8 };
        let header = packet.header();
        let network = network(header).filter(|n| n + 20 <= transport);
        let (Some(network), true) = (network, smallest <= head_len && head_len <= header.len())
        else {
            return Err(DropReason::TxInvalidOffload);
        };
        let is_v4 = header[network] >> 4 == 4;
        if !is_v4 && network + 40 > transport || offload.gso_size == 0 {
            return Err(DropReason::TxInvalidOffload);
        }
        let mut head = [0; HEADER_ROOM];
        head[..head_len].copy_from_slice(&header[..head_len]);
        let field = transport + if is_tcp { 16 } else { 6 };
        // The pseudo-header's length, taken out again: ones' complement.
        let without = checksum::fold((len - transport) as u64) ^ 0xffff;
        Ok(Segments {
            head_len,
            network,
            transport,
            is_v4,
            is_tcp,
            size: offload.gso_size.into(),
            partial: u64::from(get(&head, field)) + u64::from(without),
            id: get(&head, network + 4),
            sequence: u32::from(get(&head, transport + 4)) << 16
                | u32::from(get(&head, transport + 6)),
            tcp_flags: if is_tcp { head[transport + 13] } else { 0 },
            head,
            index: 0,
            left: len - head_len,
            payload: Payload { private: &header[head_len..], borrowed: self.segments(i), at: 0 },
            sum: Running::default(),
        })
    }

    /// As [`Burst::copy_out`], with the checksum completed: for those who cannot. A super-frame stays one.
    pub fn copy_finished(&self, i: usize, max: usize) -> Vec<u8> {
        let mut offload = self.packets()[i].offload;
        if offload.is_none() {
            return self.copy_out(i, max);
        }
        let mut frame = self.copy_out(i, usize::MAX);
        offload.complete(&mut frame);
        frame.truncate(max);
        frame
    }

    /// True if all of packet `i` from `start` on, which is private, and the sum of its pseudo-header make a right
    /// checksum.
    pub(crate) fn adds_up(&self, i: usize, start: usize, pseudo: u16) -> bool {
        let private = self.packets()[i].header().get(start..).unwrap_or_default();
        let sum = add_all(Payload { private, borrowed: self.segments(i), at: 0 });
        checksum::fold(sum.sum + u64::from(pseudo.to_be())) == 0xffff
    }

    /// Completes the checksum of packet `i`, if it is not a super-frame and its checksum covers the
    /// pseudo-header only.
    ///
    /// # Errors
    /// If the checksum lies behind what can be private.
    pub fn complete_checksum(&mut self, i: usize) -> Result<(), DropReason> {
        let offload = self.packets()[i].offload;
        let Some(at) = offload.partial_at() else { return Ok(()) };
        let start = usize::from(offload.csum_start);
        self.pull(i, at + 2);
        let header = self.packets()[i].header();
        let private = header.get(start..).filter(|_| at + 2 <= header.len());
        let private = private.ok_or(DropReason::TxInvalidOffload)?;
        let sum = add_all(Payload { private, borrowed: self.segments(i), at: 0 });
        let packet = self.packet_mut(i);
        packet.header_mut()[at..at + 2].copy_from_slice(&sum.finish());
        packet.offload = Offload::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
