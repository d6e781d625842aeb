//! What many guests on one bridge get of one polling thread and of two, as this machine's two cores can show it: the
//! guests' thread fills all transmit rings and sleeps while the polling threads empty them, each on a core of its own.
//!
//! Guests send in pairs, each to the other. Their rings are written on the other core than the one that reads them, so
//! that no thread finds lines that it would not find where guests have cores of their own. Not a criterion bench: medians
//! over many heaps, packets for each thousand cycles of the thread that took longest.

use benches::{Pairs, listening_port, pin};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::DpPort;
use packet::arch::cycles;
use port_vhost::VhostPort;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Barrier};
use virtio_driver::config::{self, SocketMode};
use virtio_driver::wire::feature;
use virtio_driver::{Driver, Saturator};

/// Frames of each guest in a heap.
const DEPTH: u32 = 192;
const HEAPS: usize = 1001;

fn guest(dir: &Path, number: usize) -> (Arc<VhostPort>, Driver) {
    let (port, path) = listening_port(dir, &number.to_string());
    let mut config = config::Config::new(SocketMode::Connect(path)).with(feature::MRG_RXBUF);
    config.queue_size = 256;
    (port, Driver::connect(config).expect("the port answers"))
}

/// What the threads share.
struct Heap {
    begin: Barrier,
    end: Barrier,
    /// Threads that began: they wait for each other.
    running: AtomicUsize,
    /// The longest time that one took, cycles.
    longest: AtomicU64,
}

/// Empties the rings of its ports, heap after heap.
fn poll(
    core: usize,
    threads: usize,
    ports: &[(usize, Arc<VhostPort>)],
    map: &PortMap,
    heap: &Heap,
) {
    pin(core);
    let (counters, punts) = (WalkCounters::default(), PuntQueue::default());
    let context = Context {
        ports: map,
        translate: &Pairs,
        counters: &counters,
        punts: &punts,
        thread: core,
        now_ms: 1,
        flow_limit: 200_000,
        exact_match: true,
    };
    let mut datapath = Datapath::new(1, Arc::<Registry>::default());
    for n in 1..=HEAPS {
        heap.begin.wait();
        heap.running.fetch_add(1, AcqRel);
        while heap.running.load(Acquire) < n * threads {
            std::hint::spin_loop();
        }
        let (start, all) = (cycles(), ports.len() * DEPTH as usize);
        let mut taken = 0;
        while taken < all {
            for (number, port) in ports {
                taken += datapath.walk(&**port, 0, DpPort(*number as u32), &context);
            }
        }
        datapath.tell(&context);
        heap.longest.fetch_max(cycles() - start, AcqRel);
        heap.end.wait();
    }
}

/// Takes what came back and sends it again: all frames of a guest.
fn fill(guest: &mut Saturator<'_>, first: bool) {
    let mut sent = if first { DEPTH } else { 0 };
    loop {
        sent += guest.turn().expect("the switch keeps to the rules").sent;
        if sent >= DEPTH {
            return;
        }
    }
}

/// Packets for each thousand cycles of so many guests with so many threads.
fn case(guests: usize, threads: usize) -> f64 {
    let dir = tempfile::tempdir().expect("directory");
    let (ports, mut drivers): (Vec<_>, Vec<_>) = (1..=guests).map(|n| guest(dir.path(), n)).unzip();
    let mut map = PortMap::default();
    for (number, port) in (1..).zip(&ports) {
        map.set(DpPort(number), Some(port.clone()));
    }
    let ports: Vec<_> = (1..).zip(ports).collect();
    let mut sources: Vec<Saturator<'_>> = (0..)
        .zip(&mut drivers)
        .map(|(n, driver)| {
            let frame = benches::udp_frame(n);
            driver.pair(0).saturate(DEPTH as u16, |_, out| out.extend(frame)).expect("room")
        })
        .collect();
    let heap = Heap {
        begin: Barrier::new(threads + 1),
        end: Barrier::new(threads + 1),
        running: AtomicUsize::new(0),
        longest: AtomicU64::new(0),
    };
    let share = guests / threads;
    let mut spans: Vec<u64> = std::thread::scope(|s| {
        for (core, mine) in ports.chunks(share).enumerate() {
            let (map, heap) = (&map, &heap);
            s.spawn(move || poll(core, threads, mine, map, heap));
        }
        let spans = (0..HEAPS).map(|n| {
            for (core, mine) in sources.chunks_mut(share).enumerate() {
                pin(1 - core);
                mine.iter_mut().for_each(|guest| fill(guest, n == 0));
            }
            heap.begin.wait();
            heap.end.wait();
            heap.longest.swap(0, AcqRel)
        });
        spans.collect()
    });
    spans.sort_unstable();
    (guests * DEPTH as usize * 1000) as f64 / spans[HEAPS / 2] as f64
}

fn main() {
    println!("64-byte frames, {DEPTH} of each guest in a heap; medians of {HEAPS} heaps");
    let cases = [(2, 1), (14, 1), (14, 2)];
    let rates = cases.map(|(guests, threads)| {
        let rate = case(guests, threads);
        println!("{guests:2} guests, {threads} thread(s): {rate:5.1} packets in 1000 cycles");
        rate
    });
    println!("fourteen guests get {:.2} of what two do", rates[1] / rates[0]);
    println!("a second thread raises that {:.2} times", rates[2] / rates[1]);
}
