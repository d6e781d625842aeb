//! What a driver is to be: socket, order of messages, memory, queues, features.

use crate::error::Error;
use crate::layout::{Layout, MAX_PIECES};
use crate::memory::{CACHE_LINE, RegionSpec};
use crate::ring::{DESC_LEN, bytes_needed};
use crate::wire::{feature, protocol};
use std::path::PathBuf;
use std::time::Duration;

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMode {
    /// The back end listens on this path; the driver connects.
    Connect(PathBuf),
    /// The driver listens on this path (and removes it on drop); the back end connects, and may again.
    Listen(PathBuf),
}

/// Whose order of messages to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOrder {
    /// QEMU 7.2: call descriptors and SET_VRING_ENABLE before SET_FEATURES, none after the rings are set up; SET_FEATURES once a pair.
    Qemu,
    /// DPDK's virtio-user: SET_FEATURES, memory, rings, and SET_VRING_ENABLE last.
    VirtioUser,
}

/// How the back end is told of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryStyle {
    /// All regions in one SET_MEM_TABLE.
    Table,
    /// One ADD_MEM_REG per region; needs CONFIGURE_MEM_SLOTS.
    Slots,
}

/// A driver's configuration. [`Config::new`] gives one that works with any vhost-user back end.
#[derive(Debug, Clone)]
pub struct Config {
    /// Socket and role.
    pub socket: SocketMode,
    /// Order of messages.
    pub order: MessageOrder,
    /// How memory is announced.
    pub memory_style: MemoryStyle,
    /// Guest memory; empty: one region of the size needed.
    pub regions: Vec<RegionSpec>,
    /// Whether the region that is made if none are given lies in pages of 2 MiB.
    pub huge_pages: bool,
    /// Region the rings go to.
    pub ring_region: u32,
    /// Region the buffers go to.
    pub buffer_region: u32,
    /// Receive and transmit pairs, 1 to 256.
    pub queue_pairs: u16,
    /// Descriptors in each ring.
    pub queue_size: u16,
    /// Device features wanted; what is offered of them is taken.
    pub features: u64,
    /// Device features without which connecting fails.
    pub required: u64,
    /// Protocol features wanted; what is offered of them is taken.
    pub protocol_features: u64,
    /// Sent with NET_SET_MTU where that was negotiated. Bytes.
    pub mtu: Option<u16>,
    /// Bytes of a receive buffer, virtio-net header included.
    pub rx_buffer: u32,
    /// How a receive buffer is cut into descriptors.
    pub rx_layout: Layout,
    /// Bytes of a transmit buffer, virtio-net header included.
    pub tx_buffer: u32,
    /// Whether each ring gets an error eventfd (SET_VRING_ERR).
    pub error_events: bool,
    /// How long connecting and each answer may take.
    pub patience: Duration,
}

impl Config {
    /// One pair of 256 descriptors, split ring, all features of a plain frame path, virtio-user's order, a memory table.
    pub fn new(socket: SocketMode) -> Config {
        Config {
            socket,
            order: MessageOrder::VirtioUser,
            memory_style: MemoryStyle::Table,
            regions: Vec::new(),
            huge_pages: false,
            ring_region: 0,
            buffer_region: 0,
            queue_pairs: 1,
            queue_size: 256,
            features: feature::VERSION_1
                | feature::MRG_RXBUF
                | feature::INDIRECT_DESC
                | feature::PROTOCOL_FEATURES,
            required: feature::VERSION_1,
            protocol_features: protocol::MQ
                | protocol::REPLY_ACK
                | protocol::RARP
                | protocol::MTU
                | protocol::CONFIGURE_MEM_SLOTS
                | protocol::STATUS,
            mtu: None,
            rx_buffer: 2048,
            rx_layout: Layout::whole(),
            tx_buffer: 2048,
            error_events: false,
            patience: Duration::from_secs(5),
        }
    }

    /// Asks for more device features, as a must.
    pub fn with(mut self, features: u64) -> Config {
        self.features |= features;
        self.required |= features;
        self
    }

    /// Asks for none of these device features.
    pub fn without(mut self, features: u64) -> Config {
        self.features &= !features;
        self.required &= !features;
        self
    }

    /// The distance between buffers of `len` bytes: an odd number of cache lines, so that the lines with the headers do
    /// not all fall into the same few sets of a cache, as they would at 2048 bytes.
    pub(crate) fn stride(len: u32) -> usize {
        ((len as usize).div_ceil(CACHE_LINE) | 1) * CACHE_LINE
    }

    /// Bytes of indirect tables, one per buffer.
    pub(crate) fn table_stride() -> usize {
        MAX_PIECES * DESC_LEN
    }

    /// The regions to make: those given, or one that holds all.
    pub(crate) fn region_specs(&self) -> Vec<RegionSpec> {
        if !self.regions.is_empty() {
            return self.regions.clone();
        }
        let rings = 2 * bytes_needed(false, self.queue_size.max(1)) + 4 * CACHE_LINE;
        let slot = Config::stride(self.rx_buffer)
            + Config::stride(self.tx_buffer)
            + 2 * Config::table_stride();
        let pair = rings + usize::from(self.queue_size) * slot + 8 * CACHE_LINE;
        let size = (pair * usize::from(self.queue_pairs)) as u64;
        vec![RegionSpec { huge: self.huge_pages, ..RegionSpec::of(size) }]
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        if !(1..=256).contains(&self.queue_pairs) {
            return wrong(format!("{} queue pairs; 1 to 256 are possible", self.queue_pairs));
        }
        if self.rx_buffer < 64 || self.tx_buffer < 64 {
            return wrong(
                "buffers hold at least 64 bytes: a virtio-net header and a short frame".into(),
            );
        }
        if self.memory_style == MemoryStyle::Slots
            && self.protocol_features & protocol::CONFIGURE_MEM_SLOTS == 0
        {
            return wrong("memory by slots needs the protocol feature CONFIGURE_MEM_SLOTS".into());
        }
        Ok(())
    }
}
