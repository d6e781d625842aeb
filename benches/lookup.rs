//! The walk without rings: extraction, exact-match cache or megaflow classifier, execution.

use benches::{Endless, Nothing, udp_frame};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{Action, DpPort, FlowKey, FlowMask, Translate, Translation};
use packet::BURST;
use std::sync::Arc;

/// Sends everything to port 2. With masks, a flow looks at the source port and, by the flow, at one of
/// so many sets of the destination port's bits; with none, only at where a packet came in.
struct ToTwo {
    masks: u16,
}

impl Translate for ToTwo {
    fn translate(&self, key: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        if self.masks > 0 {
            mask.bits_mut().tp_src = u16::MAX.into();
            mask.bits_mut().tp_dst = (key.tp_src.get() % self.masks).into();
        }
        let actions = vec![Action::Output(DpPort(2))];
        Translation { mask, actions, effects: Arc::new(Nothing) }
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("walk without rings");
    group.throughput(Throughput::Elements(BURST as u64));
    // Name, masks, flows, whether the exact-match cache is asked.
    let cases = [
        ("one flow", 0, 1u16, true),
        ("1,000 flows, one megaflow", 0, 1000, true),
        ("1,000 flows, a megaflow each", 1, 1000, true),
        ("50,000 flows, a megaflow each", 1, 50_000, true),
        ("1,000 flows, classifier, 1 mask", 1, 1000, false),
        ("1,000 flows, classifier, 2 masks", 2, 1000, false),
        ("1,000 flows, classifier, 8 masks", 8, 1000, false),
        ("1,000 flows, classifier, 32 masks", 32, 1000, false),
    ];
    for (name, masks, flows, exact_match) in cases {
        let from = Arc::new(Endless::new((0..flows).map(udp_frame).collect()));
        let mut map = PortMap::default();
        map.set(DpPort(1), Some(from.clone()));
        map.set(DpPort(2), Some(from.clone()));
        let mut datapath = Datapath::new(1, Arc::<Registry>::default());
        let (translate, counters) = (ToTwo { masks }, WalkCounters::default());
        let punts = PuntQueue::default();
        let context = Context {
            ports: &map,
            translate: &translate,
            counters: &counters,
            punts: &punts,
            thread: 0,
            now_ms: 1,
            flow_limit: 200_000,
            exact_match,
        };
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| datapath.walk(&*from, 0, DpPort(1), &context));
        });
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
