//! The driver's side of a virtqueue, split ([`split`], virtio 1.3 section 2.7) or packed ([`packed`], 2.8).
//!
//! A *chain* is posted with a *token* (which the caller uses to find its buffer again) and comes back from [`Ring::pop`] once the device
//! has used it. [`Ring::recycle`] is the bench path: it takes back what was used and posts the same buffers again, touching nothing else.

use crate::error::{Error, Violation};
use crate::mapping::Span;
use crate::memory::CACHE_LINE;
use crate::wire::feature;
use packed::PackedRing;
use split::SplitRing;

pub mod packed;
pub mod split;
#[cfg(test)]
mod tests;

/// Descriptor continues in another (split: `next`; packed: the following slot).
pub const DESC_NEXT: u16 = 1;
/// The device writes this buffer.
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;
/// Bytes of a descriptor, in both formats.
pub const DESC_LEN: usize = 16;
/// The largest queue (2.7: 32768); DPDK and vhost-user back ends stop there too.
pub const MAX_QUEUE_SIZE: u16 = 32768;

/// One buffer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Guest address.
    pub gpa: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it (receive) or reads it (transmit).
    pub writable: bool,
}

/// A chain the device has finished with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The token it was posted with.
    pub token: u16,
    /// Bytes the device says it wrote, at most what was posted.
    pub len: u32,
}

/// What [`Ring::recycle`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recycled {
    /// Buffers taken back and posted again.
    pub buffers: u32,
    /// Bytes the device wrote into them.
    pub bytes: u64,
}

/// The ring has too few free descriptors for the chain, or its token is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The features that shape a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// Buffers are used in the order they were made available.
    pub in_order: bool,
    /// Notification by event index.
    pub event_idx: bool,
}

impl RingFeatures {
    /// From negotiated feature bits.
    pub fn from_bits(bits: u64) -> RingFeatures {
        RingFeatures {
            in_order: bits & feature::IN_ORDER != 0,
            event_idx: bits & feature::EVENT_IDX != 0,
        }
    }
}

/// The three addresses of a ring, in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table, or packed descriptor ring.
    pub desc: u64,
    /// Available ring, or driver event suppression.
    pub avail: u64,
    /// Used ring, or device event suppression.
    pub used: u64,
    /// Guest address of the used ring (packed: of the descriptor ring), where writes are logged.
    pub log: u64,
}

/// Where the parts of a ring lie in its span; the descriptors come first.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// Available ring, or driver event suppression.
    pub avail: usize,
    /// Used ring, or device event suppression.
    pub used: usize,
    /// Bytes in all.
    pub total: usize,
}

impl Parts {
    /// The offsets for a queue of `size` descriptors.
    pub fn of(packed: bool, size: u16) -> Parts {
        let n = usize::from(size);
        let (avail_len, used_len) = if packed { (4, 4) } else { (6 + 2 * n, 6 + 8 * n) };
        let avail = (n * DESC_LEN).next_multiple_of(CACHE_LINE);
        let used = (avail + avail_len).next_multiple_of(CACHE_LINE);
        Parts { avail, used, total: used + used_len }
    }
}

/// Bytes of guest memory a ring takes.
pub fn bytes_needed(packed: bool, size: u16) -> usize {
    Parts::of(packed, size).total
}

/// The second word of a split or indirect descriptor: length, flags, next.
pub(crate) fn split_word(len: u32, flags: u16, next: u16) -> u64 {
    (u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48).to_le()
}

/// The second word of a packed descriptor: length, id, flags.
pub(crate) fn packed_word(len: u32, id: u16, flags: u16) -> u64 {
    (u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48).to_le()
}

/// Bytes the device may write into a chain.
pub(crate) fn writable_bytes(pieces: &[Piece]) -> u32 {
    pieces.iter().filter(|p| p.writable).map(|p| p.len).fold(0, u32::saturating_add)
}

/// Whether an event index lies in (old, new] (2.7.10, `vring_need_event`).
pub(crate) fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Either kind of ring.
#[derive(Debug)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

macro_rules! both {
    ($self:expr, $ring:ident => $body:expr) => {
        match $self {
            Ring::Split($ring) => $body,
            Ring::Packed($ring) => $body,
        }
    };
}

impl Ring {
    /// A ring of `size` descriptors in `span`, whose bytes are zeroed. Errors if the size is not legal (split: a power of two).
    pub fn new(packed: bool, size: u16, span: Span, features: RingFeatures) -> Result<Ring, Error> {
        if size == 0 || size > MAX_QUEUE_SIZE || (!packed && !size.is_power_of_two()) {
            return Err(Error::Config(format!(
                "queue size {size}: 1 to {MAX_QUEUE_SIZE}, and a power of two unless packed"
            )));
        }
        span.fill(0);
        Ok(if packed {
            Ring::Packed(PackedRing::new(size, span, features))
        } else {
            Ring::Split(SplitRing::new(size, span, features))
        })
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        both!(self, r => r.size())
    }
    /// Descriptors free.
    pub fn free(&self) -> u16 {
        both!(self, r => r.free())
    }
    /// Chains the device holds, or has returned without our having seen them.
    pub fn outstanding(&self) -> u16 {
        both!(self, r => r.outstanding())
    }
    /// Makes a chain ready; [`Ring::publish`] shows it to the device. `token` must be below the queue size and not in use.
    pub fn post(&mut self, pieces: &[Piece], token: u16) -> Result<(), Full> {
        both!(self, r => r.post(pieces, token))
    }
    /// Writes `pieces` as a table at the start of `table` and makes one descriptor of it ready (2.7.5.3, 2.8.7).
    pub fn post_indirect(
        &mut self,
        table: &Span,
        pieces: &[Piece],
        token: u16,
    ) -> Result<(), Full> {
        if pieces.is_empty() || pieces.len() * DESC_LEN > table.len() {
            return Err(Full);
        }
        both!(self, r => r.post_indirect(table, pieces, token))
    }
    /// Shows the device what was posted.
    pub fn publish(&mut self) {
        both!(self, r => r.publish())
    }
    /// Whether the device asked to be kicked for what was published since the last call.
    pub fn should_kick(&mut self) -> bool {
        both!(self, r => r.should_kick())
    }
    /// Takes back one used chain.
    pub fn pop(&mut self) -> Result<Option<Used>, Violation> {
        both!(self, r => r.pop())
    }
    /// Whether [`Ring::pop`] would find something; touches no state.
    pub fn has_used(&self) -> bool {
        both!(self, r => r.has_used())
    }
    /// Takes back up to `limit` used buffers, posts them again as they are and publishes them.
    pub fn recycle(&mut self, limit: u16) -> Result<Recycled, Violation> {
        self.recycle_with(limit, |_, _| ())
    }
    /// Like [`Ring::recycle`]; `touch` gets the token of each buffer, and the bytes the device wrote into it, while it is not the
    /// device's.
    #[inline]
    pub fn recycle_with(
        &mut self,
        limit: u16,
        touch: impl FnMut(u16, u32),
    ) -> Result<Recycled, Violation> {
        both!(self, r => r.recycle(limit, touch))
    }
    /// Asks the device for a call at its next used buffer. Look at [`Ring::has_used`] afterwards, before sleeping.
    pub fn ask_for_call(&mut self) {
        both!(self, r => r.ask_for_call())
    }
    /// Asks the device for no calls.
    pub fn refuse_calls(&mut self) {
        both!(self, r => r.refuse_calls())
    }
    /// Where the device is to go on, from what the ring itself says: the value of SET_VRING_BASE after the back end was lost.
    ///
    /// Right only for devices that use buffers in order, as there is no record of who held what.
    pub fn resume_base(&self) -> u32 {
        both!(self, r => r.resume_base())
    }
    /// The ring's addresses.
    pub fn addresses(&self) -> RingAddresses {
        both!(self, r => r.addresses())
    }
    /// Moves the ring's bytes to `span`; the device must be stopped. Chains stay posted.
    pub fn move_to(&mut self, span: Span) {
        both!(self, r => r.move_to(span))
    }
}

/// Writes an indirect table. Entries of a packed ring carry no chain flag or link: the table's order is the chain.
pub(crate) fn write_table(table: &Span, pieces: &[Piece], packed: bool) {
    let mut bytes = Vec::with_capacity(pieces.len() * DESC_LEN);
    for (i, piece) in pieces.iter().enumerate() {
        let write = if piece.writable { DESC_WRITE } else { 0 };
        let more = i + 1 < pieces.len();
        let second = match (packed, more) {
            (true, _) => packed_word(piece.len, 0, write),
            (false, true) => split_word(piece.len, write | DESC_NEXT, i as u16 + 1),
            (false, false) => split_word(piece.len, write, 0),
        };
        bytes.extend_from_slice(&piece.gpa.to_le_bytes());
        bytes.extend_from_slice(&second.to_ne_bytes());
    }
    table.write(0, &bytes);
}
