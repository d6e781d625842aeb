//! What a port may receive and send.

use crate::trtcm::Trtcm;
use crate::{Bucket, Limit, QueueCounts, QueueLimits};
use packet::{Burst, Packet, Set};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of an Ethernet header, which are not counted (as OVS's DPDK ports do not).
const ETHERNET: u64 = 14;

/// Tells the time: nanoseconds of a clock that never goes back.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The limits of a port; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes received, as [`policed_bytes`] counts.
    pub rx_bytes: Option<Limit>,
    /// Packets received.
    pub rx_packets: Option<Limit>,
    /// Bytes sent, as [`policed_bytes`] counts.
    pub tx_bytes: Option<Limit>,
    /// The same by queue, if there is no `tx_bytes`.
    pub tx_queues: Option<QueueLimits>,
}

/// Packets that a port's limits dropped, as on the wire, in the order of the switch's directions.
#[derive(Debug, Default)]
pub struct QosDrops {
    rx: AtomicU64,
    tx: AtomicU64,
    /// What each queue has counted that there was.
    queues: Mutex<BTreeMap<u16, Arc<QueueCounts>>>,
}

impl QosDrops {
    /// Packets dropped that were received.
    pub fn rx(&self) -> u64 {
        self.rx.load(Relaxed)
    }

    /// Packets dropped that were to be sent.
    pub fn tx(&self) -> u64 {
        self.tx.load(Relaxed)
    }

    /// The counts of a queue. Off the packet path.
    pub fn queue(&self, number: u16) -> Arc<QueueCounts> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(number).or_default().clone()
    }
}

/// The limits of a port at work. Shared by all threads that receive from it or send to it.
pub struct Policer {
    limits: Limits,
    rx_bytes: Option<Bucket>,
    rx_packets: Option<Bucket>,
    tx_bytes: Option<Bucket>,
    tx_queues: Option<Trtcm>,
    now: Now,
    drops: Arc<QosDrops>,
}

impl Policer {
    /// Full buckets. `drops` outlives a policer, so that counts never fall.
    pub fn new(limits: Limits, now: Now, drops: Arc<QosDrops>) -> Policer {
        Policer {
            rx_bytes: limits.rx_bytes.map(Bucket::new),
            rx_packets: limits.rx_packets.map(Bucket::new),
            tx_bytes: limits.tx_bytes.map(Bucket::new),
            tx_queues: limits.tx_queues.as_ref().map(|q| Trtcm::new(q, |n| drops.queue(n))),
            limits,
            now,
            drops,
        }
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Which packets of a burst that was just received may go on; the others are counted.
    #[inline(never)]
    pub fn receive(&self, burst: &Burst<'_>) -> Set {
        let all = Set::range(0, burst.len());
        if self.rx_bytes.is_none() && self.rx_packets.is_none() {
            return all;
        }
        let now = (self.now)();
        let packets = burst.packets();
        let mut passed = all;
        if let Some(bucket) = &self.rx_packets {
            let total = passed.len() as u64 + burst.more_on_wire(passed).0;
            passed = bucket.pass_together(now, passed, total, |i| packets[i].on_wire().0);
        }
        if let Some(bucket) = &self.rx_bytes {
            passed = pass_bytes(bucket, now, burst, passed);
        }
        count(&self.drops.rx, burst, all, passed);
        passed
    }

    /// Which packets of `set` may be sent; the others are counted.
    #[inline(never)]
    pub fn send(&self, burst: &Burst<'_>, set: Set) -> Set {
        let passed = match (&self.tx_bytes, &self.tx_queues) {
            (Some(bucket), _) => pass_bytes(bucket, (self.now)(), burst, set),
            (None, Some(queues)) => queues.pass((self.now)(), burst.packets(), set),
            (None, None) => return set,
        };
        count(&self.drops.tx, burst, set, passed);
        passed
    }
}

impl fmt::Debug for Policer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limits.fmt(f)
    }
}

/// Which packets of `set` there are bytes enough for.
fn pass_bytes(bucket: &Bucket, now: u64, burst: &Burst<'_>, set: Set) -> Set {
    let packets = burst.packets();
    let (more, more_bytes) = burst.more_on_wire(set);
    let bytes = set.map(|i| packets[i].len() as u64).sum::<u64>() + more_bytes;
    let total = bytes.saturating_sub(ETHERNET * (set.len() as u64 + more));
    bucket.pass_together(now, set, total, |i| policed_bytes(&packets[i]))
}

/// Counts those of `all` that did not pass, as on the wire. Several threads count here.
fn count(drops: &AtomicU64, burst: &Burst<'_>, all: Set, passed: Set) {
    let dropped = all.without(passed);
    if !dropped.is_empty() {
        drops.fetch_add(dropped.len() as u64 + burst.more_on_wire(dropped).0, Relaxed);
    }
}

/// What limits in bytes count of a packet: what follows the Ethernet header, tags included, of each
/// packet on the wire that it stands for.
#[inline(always)]
pub fn policed_bytes(packet: &Packet) -> u64 {
    let (packets, bytes) = packet.on_wire();
    bytes.saturating_sub(packets * ETHERNET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{BurstBuf, Lender, Offload, gso};

    struct Nobody;
    impl Lender for Nobody {
        fn give_back(&self) {}
    }

    #[test]
    fn what_counts() {
        let mut buf = BurstBuf::new();
        buf.push().expect("room").set_header(&[0; 114]);
        let burst = buf.lend(&Nobody);
        assert_eq!(policed_bytes(&burst.packets()[0]), 100);
        drop(burst);
        buf.clear();
        buf.push().expect("room").set_header(&[0; 128]);
        // 54 bytes of headers, and 74 of payload: segments of 30, 30 and 14.
        let offload = Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: gso::TCPV4,
            hdr_len: 54,
            gso_size: 30,
            csum_start: 34,
            csum_offset: 16,
        };
        buf.set_offload(offload);
        let burst = buf.lend(&Nobody);
        assert_eq!(policed_bytes(&burst.packets()[0]), 3 * 40 + 74);
        let limits = Limits { rx_packets: Some(Limit { rate: 1, burst: 3 }), ..Limits::default() };
        let drops = Arc::new(QosDrops::default());
        let policer = Policer::new(limits, Arc::new(|| 0), drops.clone());
        assert_eq!(policer.receive(&burst), Set::one(0));
        assert_eq!(policer.receive(&burst), Set::NONE);
        assert_eq!(drops.rx(), 3, "packets on the wire");
    }

    #[test]
    fn each_direction_has_limits_and_counts_of_its_own() {
        let drops = Arc::new(QosDrops::default());
        let limits = Limits {
            rx_packets: Some(Limit { rate: 1, burst: 3 }),
            rx_bytes: Some(Limit { rate: 1, burst: 200 }),
            tx_bytes: Some(Limit { rate: 1, burst: 100 }),
            tx_queues: None,
        };
        let policer = Policer::new(limits, Arc::new(|| 0), drops.clone());
        let mut buf = BurstBuf::new();
        for _ in 0..5 {
            buf.push().expect("room").set_header(&[0; 114]);
        }
        let burst = buf.lend(&Nobody);
        assert_eq!(policer.receive(&burst), Set::range(0, 2));
        assert_eq!(policer.send(&burst, Set::range(2, 5)), Set::one(2));
        assert_eq!((drops.rx(), drops.tx()), (3, 2));
    }
}
