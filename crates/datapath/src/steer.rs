//! `tx-steering=hash`: a port's transmit queues chosen by flow instead of by thread.

use flow::{Extracted, FlowKey, extract};
use packet::arch::{HashKey, hash6};
use packet::{BURST, Burst, BurstBuf, Packet, Set};
use port::{Counters, Port, Wait, Waker};
use std::sync::Arc;

/// A port whose packets are spread over all of its transmit queues, each flow (addresses, protocol and
/// ports) on one of them, whichever thread sends. So one thread can use all queues of a guest, at the price
/// of a look at each packet and of queues that threads share. Ports that are not steered so stay as they are
/// and pay nothing.
pub struct Steered {
    port: Arc<dyn Port>,
    key: HashKey,
}

impl Steered {
    /// Steers what is sent to `port`; `seed` is to be random, so that nobody can choose a queue.
    pub fn new(port: Arc<dyn Port>, seed: u64) -> Steered {
        Steered { port, key: HashKey::new(seed) }
    }

    /// The queue, of `queues`, for a packet.
    fn queue(&self, packet: &Packet, queues: usize) -> usize {
        let mut found = Extracted::default();
        // Headers that go on beyond the bytes at hand: those before them tell enough.
        let _ = extract(packet.header(), packet.len(), 0, &mut found);
        hash6(&flow_words(&found.key), &self.key) as usize % queues
    }
}

/// What is the same in all packets of a flow. Fragments have no ports, but in the first, so none is looked
/// at; what is not IP has its Ethernet addresses.
fn flow_words(key: &FlowKey) -> [u64; 6] {
    let halves = |a: &[u8; 16]| {
        let [high, low] = [&a[..8], &a[8..]].map(|h| h.try_into().unwrap_or_default());
        (u64::from_ne_bytes(high), u64::from_ne_bytes(low))
    };
    let ports = match key.nw_frag {
        0 => u64::from(key.tp_src.get()) << 16 | u64::from(key.tp_dst.get()),
        _ => 0,
    };
    let ports = ports | u64::from(key.nw_proto) << 32 | u64::from(key.dl_type.get()) << 40;
    let v4 = u64::from(key.nw_src.get()) << 32 | u64::from(key.nw_dst.get());
    let ((a, b), (c, d)) = (halves(&key.ipv6_src), halves(&key.ipv6_dst));
    if v4 | a | b | c | d == 0 {
        let mac = |m: flow::Mac| m.0.iter().fold(0, |word, &b| word << 8 | u64::from(b));
        return [mac(key.dl_src), mac(key.dl_dst), ports, 0, 0, 0];
    }
    [v4, ports, a, b, c, d]
}

impl Port for Steered {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn rx_queues(&self) -> usize {
        self.port.rx_queues()
    }

    fn tx_queues(&self) -> usize {
        self.port.tx_queues()
    }

    fn node(&self) -> Option<usize> {
        self.port.node()
    }

    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        self.port.rx(queue, buf)
    }

    fn waiting(&self, queue: usize) -> usize {
        self.port.waiting(queue)
    }

    fn tx(&self, thread: usize, burst: &mut Burst<'_>, set: Set) {
        let queues = self.port.tx_queues();
        if queues < 2 {
            return self.port.tx(thread, burst, set);
        }
        let mut chosen = [0; BURST];
        for i in set {
            chosen[i] = self.queue(&burst.packets()[i], queues);
        }
        let mut left = set;
        while let Some(first) = left.first() {
            let queue = chosen[first];
            let together = left.filter(|i| chosen[i] == queue);
            self.port.tx(queue, burst, together);
            left = left.without(together);
        }
    }

    fn tell_taken(&self, queue: usize) -> bool {
        self.port.tell_taken(queue)
    }

    fn tell_sent(&self, thread: usize) -> bool {
        match self.port.tx_queues() {
            0 | 1 => self.port.tell_sent(thread),
            // Each is told, also behind one that could not be.
            queues => (0..queues).filter(|queue| !self.port.tell_sent(*queue)).count() == 0,
        }
    }

    fn counters(&self) -> Counters {
        self.port.counters()
    }

    fn wait_for(&self, queue: usize, waker: &Arc<Waker>) -> Wait {
        self.port.wait_for(queue, waker)
    }

    fn wait_over(&self, queue: usize, waker: &Arc<Waker>) {
        self.port.wait_over(queue, waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use port::sim::SimPort;

    /// A frame of TCP over IPv4 with these ports and flags.
    fn tcp(source: u16, flags: u8, fragment: u16) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 40, 0, 0];
        f.extend(fragment.to_be_bytes());
        f.extend([64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend(source.to_be_bytes());
        f.extend([0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 1, 1, 0, 0, 0, 0]);
        f
    }

    fn queue(steered: &Steered, frame: &[u8]) -> usize {
        let mut buf = BurstBuf::new();
        let burst = buf.frame(frame).expect("fits");
        steered.queue(&burst.packets()[0], 4)
    }

    #[test]
    fn a_flow_keeps_its_queue_and_flows_use_them_all() {
        let steered = Steered::new(Arc::new(SimPort::new("p")), 7);
        let of = |source, flags| queue(&steered, &tcp(source, flags, 0));
        let mut used = [0; 4];
        for source in 1000..1400 {
            assert_eq!(of(source, 0x02), of(source, 0x18), "flags are no part of it");
            used[of(source, 0x10)] += 1;
        }
        assert!(used.iter().all(|&n| (50..150).contains(&n)), "{used:?}");
        let fragments = [0x2000, 0x0005].map(|f| queue(&steered, &tcp(1234, 0, f)));
        assert_eq!(fragments[0], fragments[1], "all fragments go one way");
        let arp = |last| {
            let mut f = vec![0xff; 60];
            f[11] = last;
            f[12..14].copy_from_slice(&[0x90, 0x00]);
            queue(&steered, &f)
        };
        assert!((0..32).any(|n| arp(n) != arp(0)), "what is not IP goes by its addresses");
    }
}
