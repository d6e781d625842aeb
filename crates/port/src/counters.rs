//! Counters of a queue, written by whoever holds the queue, and their sums.

use packet::{DropCounts, DropReason};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one direction of one queue, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    header_bytes: AtomicU64,
    payload_bytes: AtomicU64,
    notifications: AtomicU64,
    super_frames: AtomicU64,
    segments: AtomicU64,
    checksums: AtomicU64,
    /// Packets that did not get through, by reason.
    pub drops: DropCounts,
}

/// What was done about offloads in one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Finished {
    /// Super-frames that passed whole.
    pub super_frames: u64,
    /// Packets and bytes that they are more on the wire than here.
    pub more_packets: u64,
    /// See `more_packets`; and bytes of packets that were passed on without being copied.
    pub more_bytes: u64,
    /// Segments cut in software.
    pub segments: u64,
    /// Checksums completed in software.
    pub checksums: u64,
}

/// Adds to a counter that has one writer: no locked instruction.
fn bump(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl QueueCounters {
    /// Counts a burst: packets, frame bytes, and how many of them were copied to or from private
    /// headers and how many as payload. Call only while holding the queue.
    #[inline(always)]
    pub fn burst(&self, packets: u64, header_bytes: u64, payload_bytes: u64) {
        bump(&self.packets, packets);
        bump(&self.bytes, header_bytes + payload_bytes);
        bump(&self.header_bytes, header_bytes);
        bump(&self.payload_bytes, payload_bytes);
    }

    /// Counts what was done about offloads. Packets and bytes are counted as they are on the wire, so what
    /// super-frames stand for is added to what [`QueueCounters::burst`] counted.
    pub fn finished(&self, done: &Finished) {
        bump(&self.super_frames, done.super_frames);
        bump(&self.packets, done.more_packets);
        bump(&self.bytes, done.more_bytes);
        bump(&self.segments, done.segments);
        bump(&self.checksums, done.checksums);
    }

    /// Counts one interrupt sent to the guest.
    pub fn notified(&self) {
        bump(&self.notifications, 1);
    }

    /// Adds this queue's counts to `sum` as received packets.
    pub fn add_rx(&self, sum: &mut Counters) {
        sum.rx_packets += self.packets.load(Relaxed);
        sum.rx_bytes += self.bytes.load(Relaxed);
        sum.rx_super_frames += self.super_frames.load(Relaxed);
        sum.rx_header_bytes += self.header_bytes.load(Relaxed);
        sum.notifications += self.notifications.load(Relaxed);
        sum.rx_dropped += sum.add_drops(&self.drops);
    }

    /// Adds this queue's counts to `sum` as sent packets.
    pub fn add_tx(&self, sum: &mut Counters) {
        sum.tx_packets += self.packets.load(Relaxed);
        sum.tx_bytes += self.bytes.load(Relaxed);
        sum.tx_super_frames += self.super_frames.load(Relaxed);
        sum.tx_segments += self.segments.load(Relaxed);
        sum.tx_checksums += self.checksums.load(Relaxed);
        sum.tx_header_bytes += self.header_bytes.load(Relaxed);
        sum.tx_payload_bytes += self.payload_bytes.load(Relaxed);
        sum.notifications += self.notifications.load(Relaxed);
        sum.tx_dropped += sum.add_drops(&self.drops);
    }
}

/// Sums of a port's counters. Directions are the switch's: `rx` came from the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the Interface table's statistics")]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    /// Bytes copied from guests into private headers.
    pub rx_header_bytes: u64,
    /// Bytes copied from private headers into guests.
    pub tx_header_bytes: u64,
    /// Bytes copied from guest to guest directly: each payload byte is here once for each receiver.
    pub tx_payload_bytes: u64,
    /// Interrupts sent to the guest.
    pub notifications: u64,
    /// Super-frames received; packets and bytes count what they stand for on the wire.
    pub rx_super_frames: u64,
    /// Super-frames sent whole.
    pub tx_super_frames: u64,
    /// Packets sent that were cut from super-frames in software.
    pub tx_segments: u64,
    /// Checksums completed in software.
    pub tx_checksums: u64,
    /// Drops by [`DropReason`], in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Adds drops to the sums by reason and returns their total.
    pub fn add_drops(&mut self, drops: &DropCounts) -> u64 {
        for (sum, &reason) in self.drops.iter_mut().zip(DropReason::ALL) {
            *sum += drops.get(reason);
        }
        drops.total()
    }
}
