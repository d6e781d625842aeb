//! The invariant that a PMD thread allocates nothing on the hit path, checked by counting.
//!
//! The only test in its binary, so that no other test allocates meanwhile.

use datapath::{Context, Datapath, PortMap, Registry, WalkCounters};
use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Translate, Translation};
use packet::{BURST, Burst, BurstBuf, Lender};
use port::{Counters, Port};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;
static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Always has a full burst from 64 senders.
struct Endless(AtomicU64);

impl Lender for Endless {
    fn give_back(&self) {}
}

impl Port for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    fn rx_queues(&self) -> usize {
        1
    }

    fn rx<'b>(&'b self, _: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        buf.clear();
        let mut frame = [0u8; 60];
        for _ in 0..BURST {
            frame[11] = (self.0.fetch_add(1, Relaxed) % 64) as u8;
            buf.push()?.set_header(&frame);
        }
        Some(buf.lend(self))
    }

    fn tx(&self, _: usize, _: &mut Burst<'_>, _: &[u8]) {}

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

struct Nothing;
impl Effects for Nothing {
    fn apply(&self, _: u64, _: u64, _: u64) {}
}

/// A megaflow for each sender, output to two ports.
struct BySource;
impl Translate for BySource {
    fn translate(&self, _: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        mask.bits_mut().dl_src = flow::Mac::BROADCAST;
        let actions = vec![Action::Output(DpPort(1)), Action::Output(DpPort(2))];
        Translation { mask, actions, effects: Arc::new(Nothing) }
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[test]
fn the_hit_path_allocates_nothing() {
    let port = Arc::new(Endless(AtomicU64::new(0)));
    let mut ports = PortMap::default();
    ports.set(DpPort(1), Some(port.clone()));
    ports.set(DpPort(2), Some(port.clone()));
    let counters = WalkCounters::default();
    let mut datapath = Datapath::new(1, Arc::<Registry>::default());
    let context = Context {
        ports: &ports,
        translate: &BySource,
        counters: &counters,
        thread: 0,
        now_ms: 1,
        flow_limit: 1000,
    };
    for _ in 0..10 {
        datapath.walk(&*port, 0, DpPort(1), &context);
    }
    assert_eq!(counters.upcalls.get(), 64);
    let before = CALLS.load(Relaxed);
    for _ in 0..10_000 {
        datapath.walk(&*port, 0, DpPort(1), &context);
        datapath.clean();
        datapath.rank();
    }
    assert_eq!(CALLS.load(Relaxed) - before, 0, "calls of the allocator in 10,000 bursts");
    assert_eq!(counters.upcalls.get(), 64);
}
