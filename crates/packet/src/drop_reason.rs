//! Why a packet was dropped: every drop has one of these names and is counted under it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The reason for a drop. Where Open vSwitch has a coverage counter for the same thing, its
        /// name is kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// All reasons, in the order in which they are shown.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// The counter's name as `coverage/show` and interface statistics print it.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Received frame shorter than an Ethernet header (or than its virtio-net header).
    RxShortFrame = "rx_short_frame_drops",
    /// Received frame longer than [`crate::MAX_FRAME`].
    RxOversize = "rx_oversize_drops",
    /// Received frame in more pieces than a burst can hold.
    RxTooManySegments = "rx_too_many_segments_drops",
    /// Received frame asks for an offload that was not negotiated.
    RxInvalidOffload = "rx_invalid_hwol_drops",
    /// The checksum that a received frame asks for lies outside the frame.
    RxChecksumOutside = "rx_csum_outside_drops",
    /// A received super-frame is not what it says it is: its headers are others, or not whole.
    RxSuperFrameHeaders = "rx_gso_headers_drops",
    /// A received super-frame is to be cut into segments of no size, of too many, or too long ones.
    RxSegmentSize = "rx_gso_size_drops",
    /// Received frames found the queue in the kernel full.
    RxKernelFull = "rx_kernel_full_drops",
    /// Received frame beyond what the port's ingress policing lets pass.
    RxQos = "ovs_rx_qos_drops",
    /// The pipeline decided to drop the packet.
    Pipeline = "drop_action_of_pipeline",
    /// Output to a port that does not exist (any more).
    InvalidPort = "datapath_drop_invalid_port",
    /// A header was to be pushed and the packet has no room in front of it.
    NoHeadroom = "datapath_drop_no_headroom",
    /// The packet was recirculated too often.
    RecircTooDeep = "datapath_drop_recirc_error",
    /// Actions within actions within actions, too many of them.
    NestingTooDeep = "drop_action_recursion_too_deep",
    /// The packet's port asked the pipeline more often than is its due.
    UpcallBudget = "datapath_drop_upcall_budget",
    /// A copy for a controller found the queue full.
    PuntQueueFull = "datapath_drop_userspace_action_error",
    /// The packet was beyond what the QoS of its output port lets pass.
    TxQos = "ovs_tx_qos_drops",
    /// The receiving ring has no free buffer.
    TxRingFull = "ovs_tx_failure_drops",
    /// The receiver is not connected, or all of its receive queues are disabled.
    TxNoQueue = "tx_no_queue_drops",
    /// Another thread held the queue too long.
    TxContention = "tx_contention_drops",
    /// The frame is longer than the receiving port's MTU allows.
    TxMtuExceeded = "ovs_tx_mtu_exceeded_drops",
    /// The receiver's posted buffer is smaller than the frame and cannot be merged with others.
    TxBufferTooSmall = "tx_buffer_too_small_drops",
    /// What the sender left to do cannot be done here: the headers are longer than what is private.
    TxInvalidOffload = "ovs_tx_invalid_hwol_drops",
    /// The receiving ring broke a rule of virtio and was disabled.
    TxRingBroken = "tx_ring_broken_drops",
}

/// One counter for each [`DropReason`]. Written by one thread at a time, read by any.
#[derive(Debug, Default)]
pub struct DropCounts([AtomicU64; DropReason::ALL.len()]);

impl DropCounts {
    /// Counts `n` drops. Plain load and store: the caller is the only writer.
    pub fn add(&self, reason: DropReason, n: u64) {
        let c = &self.0[reason as usize];
        c.store(c.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Drops counted for `reason` so far.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// Drops of all reasons so far.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|c| c.load(Relaxed)).sum()
    }
}
