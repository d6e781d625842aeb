//! The invariant that a PMD thread allocates nothing on the hit path, checked by counting.
//!
//! The only test in its binary, so that no other test allocates meanwhile.

use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{
    Action, DpPort, Effects, FlowKey, FlowMask, Mac, Rewrite, Seen, Translate, Translation, Vlan,
};
use packet::{BURST, Burst, BurstBuf, Lender, Set};
use port::{Counters, Port};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

thread_local! {
    /// Calls by this thread: the test harness has others.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Nothing is counted while a thread ends.
    let _ = CALLS.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        count();
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

    fn tx(&self, _: usize, _: &mut Burst<'_>, _: Set) {}

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

struct Nothing;
impl Effects for Nothing {
    fn apply(&self, _: &Seen) {}
}

/// A megaflow for each sender: output to two ports, or all that can be done to a packet first.
struct BySource {
    plain: bool,
}

impl BySource {
    fn actions(&self, key: &FlowKey) -> Vec<Action> {
        if self.plain || key.recirc_id != 0 {
            return vec![Action::Output(DpPort(1)), Action::Output(DpPort(2))];
        }
        let mut mask = FlowMask::empty();
        mask.bits_mut().dl_dst = Mac::BROADCAST;
        vec![
            Action::Output(DpPort(2)),
            Action::Set(Box::new(Rewrite { value: FlowKey::default(), mask })),
            Action::PushVlan(Vlan { tpid: 0x8100.into(), tci: 0x1001.into() }),
            Action::Clone(vec![Action::PopVlan, Action::Output(DpPort(1))]),
            Action::Trunc(40),
            Action::Output(DpPort(1)),
            Action::Recirc(1),
        ]
    }
}

impl Translate for BySource {
    fn translate(&self, key: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        mask.bits_mut().dl_src = Mac::BROADCAST;
        Translation { mask, actions: self.actions(key), effects: Arc::new(Nothing) }
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn calls_in_10_000_bursts(translate: &BySource) -> u64 {
    let port = Arc::new(Endless(AtomicU64::new(0)));
    let mut ports = PortMap::default();
    ports.set(DpPort(1), Some(port.clone()));
    ports.set(DpPort(2), Some(port.clone()));
    let counters = WalkCounters::default();
    let mut datapath = Datapath::new(1, Arc::<Registry>::default());
    // Asking the pipeline allocates.
    datapath.check_flows(0, 0);
    let context = Context {
        ports: &ports,
        translate,
        counters: &counters,
        punts: &PuntQueue::default(),
        thread: 0,
        now_ms: 1,
        flow_limit: 1000,
        exact_match: true,
    };
    for _ in 0..10 {
        datapath.walk(&*port, 0, DpPort(1), &context);
    }
    let upcalls = counters.upcalls.get();
    let before = CALLS.get();
    for _ in 0..10_000 {
        datapath.walk(&*port, 0, DpPort(1), &context);
        datapath.clean();
        datapath.rank();
    }
    assert_eq!(counters.upcalls.get(), upcalls);
    assert_eq!(counters.drops.total(), 0);
    CALLS.get() - before
}

#[test]
fn the_hit_path_allocates_nothing() {
    for plain in [true, false] {
        assert_eq!(calls_in_10_000_bursts(&BySource { plain }), 0, "plain output: {plain}");
    }
}
