//! Histograms of a thread's rounds, as OVS keeps them with `other_config:pmd-perf-metrics=true`.

use datapath::{Bins, Counter, Histogram, WalkCounters};
use packet::BURST;
use port::Port;

/// What is kept of one thread's rounds. The bins are OVS's.
#[derive(Debug)]
pub struct Perf {
    cycles: Histogram,
    packets: Histogram,
    packet_cycles: Histogram,
    batch: Histogram,
    queue: Histogram,
    upcalls: Histogram,
    /// Bursts.
    batches: Counter,
    /// Cycles of rounds that had packets.
    busy_cycles: Counter,
}

impl Default for Perf {
    fn default() -> Perf {
        Perf {
            cycles: Histogram::log(500, 24_000_000),
            packets: Histogram::log(0, 1000),
            packet_cycles: Histogram::linear(100, 30_000),
            batch: Histogram::linear(0, 32),
            queue: Histogram::log(0, 512),
            upcalls: Histogram::linear(0, 30),
            batches: Counter::default(),
            busy_cycles: Counter::default(),
        }
    }
}

/// All counts at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Columns {
    rounds: [Bins; 6],
    pub(crate) upcall_spans: Bins,
    batches: u64,
    busy_cycles: u64,
}

/// One histogram, for people.
#[derive(Debug, Clone)]
pub struct Column {
    /// What was counted, as OVS calls it above the bins.
    pub title: &'static str,
    /// And above the average.
    pub average_title: &'static str,
    /// The largest value of each bin; the last one has none.
    pub bounds: Vec<u64>,
    /// Values by bin.
    pub counts: Vec<u64>,
    /// The average of all values.
    pub average: f64,
    /// Whether the average has decimals.
    pub decimals: bool,
}

/// A round that is under way.
pub(crate) struct Round {
    upcalls_before: u64,
    batches: u64,
    longest: u64,
}

impl Round {
    pub(crate) fn new(counters: &WalkCounters) -> Round {
        Round { upcalls_before: counters.upcalls.get(), batches: 0, longest: 0 }
    }

    /// A burst of `n` packets was taken from this queue.
    pub(crate) fn batch(&mut self, n: usize, port: &dyn Port, queue: usize) {
        self.batches += 1;
        // After a burst that is not full there is nothing.
        let left = if n == BURST { port.waiting(queue) } else { 0 };
        self.longest = self.longest.max((n + left) as u64);
    }
}

impl Perf {
    /// Counts a round of `packets` packets and `cycles` cycles.
    pub(crate) fn add(&self, round: &Round, packets: usize, cycles: u64, counters: &WalkCounters) {
        let packets = packets as u64;
        self.cycles.add(cycles);
        self.packets.add(packets);
        self.queue.add(round.longest);
        self.upcalls.add(counters.upcalls.get().wrapping_sub(round.upcalls_before));
        if let Some(each) = cycles.checked_div(packets) {
            self.packet_cycles.add(each);
            self.batch.add(packets / round.batches.max(1));
            self.batches.add(round.batches);
            self.busy_cycles.add(cycles);
        }
    }

    fn rounds(&self) -> [&Histogram; 6] {
        let Perf { cycles, packets, packet_cycles, batch, queue, upcalls, .. } = self;
        [cycles, packets, packet_cycles, batch, queue, upcalls]
    }

    pub(crate) fn read(&self, counters: &WalkCounters) -> Columns {
        Columns {
            rounds: self.rounds().map(Histogram::bins),
            upcall_spans: counters.upcall_spans.bins(),
            batches: self.batches.get(),
            busy_cycles: self.busy_cycles.get(),
        }
    }

    /// What was counted after `earlier`.
    pub(crate) fn columns(&self, counters: &WalkCounters, earlier: &Columns) -> Vec<Column> {
        let now = self.read(counters);
        let rounds: [Bins; 6] = std::array::from_fn(|i| now.rounds[i].since(&earlier.rounds[i]));
        let spans = now.upcall_spans.since(&earlier.upcall_spans);
        let packets = rounds[1].sum as f64;
        // Of all packets and of all bursts, not of rounds.
        let per_packet = (now.busy_cycles - earlier.busy_cycles) as f64 / packets.max(1.0);
        let per_batch = packets / ((now.batches - earlier.batches) as f64).max(1.0);
        let column = |title, histogram: &Histogram, bins: Bins, decimals| Column {
            title,
            average_title: title,
            bounds: histogram.bounds().to_vec(),
            counts: bins.counts.to_vec(),
            average: bins.average(),
            decimals,
        };
        let [cycles, all, packet_cycles, batch, queue, upcalls] = self.rounds();
        let waiting = column("max vhost qlen", queue, rounds[4], true);
        vec![
            column("cycles/it", cycles, rounds[0], false),
            column("packets/it", all, rounds[1], true),
            Column { average: per_packet, ..column("cycles/pkt", packet_cycles, rounds[2], false) },
            Column { average: per_batch, ..column("pkts/batch", batch, rounds[3], true) },
            Column { average_title: "vhost qlen", ..waiting },
            column("upcalls/it", upcalls, rounds[5], true),
            column("cycles/upcall", &counters.upcall_spans, spans, false),
        ]
    }
}
