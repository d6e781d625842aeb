//! What can go wrong: failures of the connection ([`Error`]) and breaches of the virtio contract by the device ([`Violation`]).

use crate::wire::Request;
use std::io;
use std::path::PathBuf;

/// A device broke a rule of virtio 1.3 in what it wrote to a ring or a header.
///
/// The ring that returned it stays usable: the offending element is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A used element names a buffer that cannot exist (2.7.8, 2.8.6).
    #[error("used id {id} is outside the ring of {size}")]
    IdOutOfRange {
        /// The id the device wrote.
        id: u32,
        /// The queue size.
        size: u16,
    },
    /// A used element names a buffer that the device does not hold: never posted, or returned twice.
    #[error("used id {id} is not outstanding: it was never posted, or it came back twice")]
    NotOutstanding {
        /// The id the device wrote.
        id: u16,
    },
    /// More bytes written than the buffer's device-writable part holds.
    #[error("used id {id} reports {len} bytes written into a buffer of {posted}")]
    LengthTooLong {
        /// The id the device wrote.
        id: u16,
        /// The length the device wrote.
        len: u32,
        /// Device-writable bytes in that buffer.
        posted: u32,
    },
    /// VIRTIO_F_IN_ORDER was negotiated and a buffer came back before an older one (2.7.9, 2.8.9).
    #[error("used id {id} came back out of order: the oldest outstanding buffer is {oldest}")]
    OutOfOrder {
        /// The id the device wrote.
        id: u16,
        /// The id that was due.
        oldest: u16,
    },
    /// The used index of a split ring is ahead of the available index.
    #[error(
        "used index {used} is beyond what was made available ({outstanding} outstanding, last seen {last})"
    )]
    UsedIndexAhead {
        /// The index in memory.
        used: u16,
        /// The last index seen.
        last: u16,
        /// Buffers the device held.
        outstanding: u16,
    },
    /// A received frame is shorter than its virtio-net header.
    #[error("a received buffer of {len} bytes is shorter than the {header} byte virtio-net header")]
    HeaderShort {
        /// Bytes the device wrote.
        len: u32,
        /// The header's size with the negotiated features.
        header: u32,
    },
    /// `num_buffers` of a mergeable frame is zero, or more than the device returned together (5.1.6.4).
    #[error("num_buffers is {num_buffers} but only {returned} buffers were returned together")]
    MergeCount {
        /// What the header says.
        num_buffers: u16,
        /// Buffers found in the ring.
        returned: u16,
    },
}

impl Violation {
    /// How many kinds there are.
    pub const KINDS: usize = 7;

    /// A number below [`Violation::KINDS`] naming the kind, for counters.
    pub fn kind(&self) -> usize {
        match self {
            Violation::IdOutOfRange { .. } => 0,
            Violation::NotOutstanding { .. } => 1,
            Violation::LengthTooLong { .. } => 2,
            Violation::OutOfOrder { .. } => 3,
            Violation::UsedIndexAhead { .. } => 4,
            Violation::HeaderShort { .. } => 5,
            Violation::MergeCount { .. } => 6,
        }
    }
}

/// A failure of the driver or of its connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed; `what` says which step.
    #[error("{what}: {source}")]
    Io {
        /// The step.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The socket could not be reached before the deadline.
    #[error("nobody answered on {path} in time; is the back end running?")]
    NoPeer {
        /// The socket.
        path: PathBuf,
    },
    /// The back end closed the connection.
    #[error("the back end closed the connection while we were {doing}")]
    Disconnected {
        /// What was going on.
        doing: &'static str,
    },
    /// No answer before the deadline.
    #[error("no answer to {request} before the deadline")]
    NoAnswer {
        /// The request.
        request: Request,
    },
    /// An answer that does not fit its question.
    #[error("answer to {request} is wrong: {why}")]
    BadAnswer {
        /// The request.
        request: Request,
        /// What is wrong.
        why: String,
    },
    /// REPLY_ACK carried a non-zero code: the back end refused.
    #[error("the back end refused {request} with code {code}")]
    Refused {
        /// The request.
        request: Request,
        /// The code, as the back end sent it.
        code: u64,
    },
    /// A required feature bit is not offered.
    #[error(
        "the back end does not offer required feature bits {missing:#x} (it offers {offered:#x})"
    )]
    MissingFeatures {
        /// Bits not offered.
        missing: u64,
        /// Bits offered.
        offered: u64,
    },
    /// The back end has fewer queue pairs than asked for.
    #[error("the back end has {has} queue pairs, {wanted} were asked for")]
    TooFewQueues {
        /// Pairs of the back end.
        has: u64,
        /// Pairs of the configuration.
        wanted: u16,
    },
    /// A configuration that cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// A guest memory region is too small.
    #[error("region {region} has no room for {len} bytes of {what}; make it larger")]
    OutOfMemory {
        /// The region's id.
        region: u32,
        /// Bytes asked for.
        len: u64,
        /// What for.
        what: &'static str,
    },
    /// A region that does not exist, or is in use.
    #[error("region {region}: {why}")]
    Region {
        /// The region's id.
        region: u32,
        /// Why not.
        why: &'static str,
    },
    /// A frame that fits no transmit buffer, or a layout with more pieces than a chain may have.
    #[error("a frame of {len} bytes in {pieces} pieces does not fit: {why}")]
    FrameTooLarge {
        /// Its bytes.
        len: usize,
        /// The pieces asked for.
        pieces: usize,
        /// The limit it breaks.
        why: &'static str,
    },
    /// The device broke virtio's rules.
    #[error("device violation on {queue} queue: {violation}")]
    Violation {
        /// `receive` or `transmit`.
        queue: &'static str,
        /// The breach.
        violation: Violation,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
    pub(crate) fn sys(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |errno| Error::Io { what, source: errno.into() }
    }
}
