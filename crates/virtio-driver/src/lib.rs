//! A guest's side of virtio-net over vhost-user: what QEMU and a guest kernel do together, in one small library, so that tests and
//! benches can drive a switch (or DPDK's own vhost) without a virtual machine.
//!
//! [`Driver`] is the principal type: it owns guest memory ([`memory`]), speaks the protocol as the *front end* ([`session`],
//! [`handshake`]) and drives receive and transmit rings ([`ring`], [`queue`]). It believes nothing the device writes: each used id,
//! order and length is checked, a breach is a [`Violation`] that is returned and counted, never a panic. [`payload`] makes frames whose
//! every byte can be checked on the way back; [`saturate`] is the path for benches, which touches rings and nothing else; [`paced`] the
//! one that measures latency.
//!
//! The low-level [`Session`] sends any message in any order, malformed ones included.
#![deny(unsafe_code)]

pub mod config;
pub mod dirty_log;
pub mod driver;
pub mod error;
pub mod handshake;
pub mod layout;
pub mod mapping;
pub mod memory;
pub mod notify;
pub mod paced;
pub mod payload;
pub mod queue;
pub mod reconfigure;
pub mod ring;
pub mod saturate;
pub mod session;
pub mod wire;

pub use config::{Config, MemoryStyle, MessageOrder, SocketMode};
pub use driver::{Driver, Pair};
pub use error::{Error, Violation};
pub use layout::{Layout, NetHeader};
pub use queue::{RxQueue, TxQueue};
pub use saturate::{Loop, Saturator, Stamp};
pub use session::{Message, Session};
pub use wire::Request;
