//! Ports to the host's kernel: devices of our own ([`TapPort`]: `internal`, `tap` and bridges' own ports),
//! netdevs that are there ([`NetdevPort`]: `system`), and what the kernel says of links ([`Links`]).
//!
//! Each packet costs a system call or a copy in the kernel, so PMD threads do not poll these ports: a worker
//! thread does, which waits for their descriptors (`pmd`). PMD threads send to them.
//!
//! Frames have a virtio-net header in front of them on both kinds of descriptors, so checksums and
//! super-frames pass as they do between guests.
//!
//! `unsafe` is in [`sys`] (system calls without a safe wrapper), [`receive`] and [`send`] (buffers that are
//! lent, memory of guests that the kernel copies from).

mod features;
mod links;
mod netdev;
mod receive;
mod rss;
mod send;
mod stripping;
mod sys;
mod tap;

pub use features::{XdpFeatures, xdp_features};
pub use links::{Link, Links};
pub use netdev::NetdevPort;
pub use rss::{Rss, rss, set_rss_table};
pub use stripping::{Stripping, driver, set_stripping, stripping};
pub use sys::{
    Channels, Queues, check_name, promiscuous, put_back_queues, queues, set_mac, set_mtu,
    set_queues, set_up,
};
pub use tap::TapPort;

use packet::Abilities;

/// What Linux takes in frames that are sent, and may leave to do in those received. What it knows not
/// (super-frames of UDP before 6.2), it refuses, and is given cut.
const ALL: Abilities = Abilities::CSUM
    .with(Abilities::TSO4, true)
    .with(Abilities::TSO6, true)
    .with(Abilities::ECN, true)
    .with(Abilities::USO, true);

/// Receive queues of a tap at most: a worker thread polls them all, and Linux spreads flows among them.
pub const MAX_TAP_QUEUES: usize = 16;
