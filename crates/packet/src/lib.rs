//! Packets and bursts: what a receive queue lends, the walk looks at, and transmit queues copy out.
//!
//! A [`Packet`] is a private copy of a frame's first bytes plus a range of borrowed payload
//! [`Segment`]s; it lives in a [`BurstBuf`] and is reached only through a [`Burst`], whose lifetime
//! is that of the receive queue's loan. When the `Burst` is dropped, the descriptors go back.
//!
//! This crate knows no port, no flow and no thread. It is one of the few that hold `unsafe`: in
//! [`arch`] (processor-specific instructions), [`burst`] and [`segments`] (the borrowed segments).

pub mod arch;
pub mod burst;
pub mod checksum;
mod drop_reason;
mod mtu;
mod offload;
pub mod segments;
mod set;

pub use burst::{
    BURST, Burst, BurstBuf, HEADER_BYTES, HEADROOM, Lender, MAX_FRAME, Packet, Saved, Segment,
};
pub use drop_reason::{DropCounts, DropReason};
pub use mtu::longest_untagged;
pub use offload::{Abilities, Offload, gso};
pub use segments::Segments;
pub use set::Set;
