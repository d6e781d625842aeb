//! The walk without rings: extraction, exact-match cache or megaflow classifier, execution.

use benches::{Endless, udp_frame};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datapath::{Context, Datapath, PortMap, Registry, WalkCounters};
use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Translate, Translation};
use packet::BURST;
use std::sync::Arc;

struct Nothing;
impl Effects for Nothing {
    fn apply(&self, _: u64, _: u64, _: u64) {}
}

/// Sends everything to port 2, looking at the transport ports or only at where a packet came in.
struct ToTwo {
    ports: bool,
}

impl Translate for ToTwo {
    fn translate(&self, _: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        if self.ports {
            mask.bits_mut().tp_src = u16::MAX.into();
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
    let cases = [
        ("one flow", false, 1u16),
        ("1,000 flows, one megaflow", false, 1000),
        ("1,000 flows, a megaflow each", true, 1000),
        ("50,000 flows, a megaflow each", true, 50_000),
    ];
    for (name, ports, flows) in cases {
        let from = Arc::new(Endless::new((0..flows).map(udp_frame).collect()));
        let mut map = PortMap::default();
        map.set(DpPort(1), Some(from.clone()));
        map.set(DpPort(2), Some(from.clone()));
        let mut datapath = Datapath::new(1, Arc::<Registry>::default());
        let (translate, counters) = (ToTwo { ports }, WalkCounters::default());
        let context = Context {
            ports: &map,
            translate: &translate,
            counters: &counters,
            thread: 0,
            now_ms: 1,
            flow_limit: 200_000,
        };
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| datapath.walk(&*from, 0, DpPort(1), &context));
        });
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
