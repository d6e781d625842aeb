//! Upcalls: what a packet costs that no megaflow matches, through ten OpenFlow tables.

use benches::{Endless, udp_frame};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{DpPort, Extracted, Translate, extract};
use openflow::{Command, OfPort, parse_flow_mods};
use packet::BURST;
use pipeline::{BridgeConfig, Pipeline};
use std::sync::Arc;

/// Bursts in one round: nearly all flows of a table.
const BURSTS: usize = 31;

/// A pipeline as a cloud host has it: ten tables, each with a thousand flows, of which one matches.
fn ten_tables() -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    for n in 1..=2u16 {
        p.add_port("br0", &format!("p{n}"), OfPort(n), DpPort(n.into())).expect("new");
    }
    let mut flows = String::new();
    for i in 0..1000 {
        let (hi, lo) = (i / 256, i % 256);
        flows += &format!("table=0,priority=10,in_port={},actions=resubmit(,1)\n", 1 + i % 900);
        flows += &format!(
            "table=1,priority=10,dl_dst=02:00:00:00:{hi:02x}:{lo:02x},actions=load:{i}->NXM_NX_REG0[],resubmit(,2)\n"
        );
        flows += &format!("table=2,priority=10,ip,nw_dst=10.{hi}.{lo}.0/24,actions=resubmit(,3)\n");
        flows += &format!(
            "table=3,priority=10,ip,nw_src=10.{hi}.{lo}.0/24,actions=load:1->NXM_NX_REG1[],resubmit(,4)\n"
        );
        flows += &format!("table=4,priority=10,udp,tp_dst={},actions=resubmit(,5)\n", 1500 + i);
        flows += &format!("table=5,priority=10,reg0={i},actions=resubmit(,6)\n");
        flows += &format!(
            "table=6,priority=10,reg0={i},reg1=1,actions=set_field:{i}->metadata,resubmit(,7)\n"
        );
        flows += &format!("table=7,priority=10,metadata={i},ip,actions=resubmit(,8)\n");
        flows += &format!("table=8,priority=10,udp,reg0={i},actions=dec_ttl,resubmit(,9)\n");
        flows += &format!("table=9,priority=10,reg0={i},actions=output:2\n");
    }
    flows += "table=2,priority=1,actions=resubmit(,3)\n";
    flows += "table=3,priority=1,actions=load:1->NXM_NX_REG1[],resubmit(,4)\n";
    flows += "table=4,priority=1,actions=resubmit(,5)\n";
    let mods = parse_flow_mods(&flows, Command::Add, &()).expect("the flows are right");
    p.flow_mods("br0", &mods, 0).expect("the flows are right");
    p
}

fn run(c: &mut Criterion) {
    let p = ten_tables();
    let keys: Vec<_> = (0..1024u16)
        .map(|i| {
            let mut out = Extracted::default();
            let frame = udp_frame(i);
            extract(&frame, frame.len(), 1, &mut out).expect("whole");
            out.key
        })
        .collect();
    let mut group = c.benchmark_group("upcall");
    group.throughput(Throughput::Elements(keys.len() as u64));
    assert_eq!(p.translate(&keys[0]).actions.len(), 2, "a new TTL and an output");
    group.bench_function("translate, ten tables", |b| {
        b.iter_batched(
            || &keys,
            |keys| keys.iter().for_each(|k| drop(std::hint::black_box(p.translate(k)))),
            BatchSize::SmallInput,
        );
    });
    // Frames of 31 bursts, each of which needs a megaflow of its own.
    let frames: Vec<[u8; 64]> = (0..BURSTS as u16 * BURST as u16)
        .map(|i| {
            let mut frame = udp_frame(1);
            frame[27..29].copy_from_slice(&i.to_be_bytes());
            frame
        })
        .collect();
    let from = Arc::new(Endless::new(frames.clone()));
    let mut map = PortMap::default();
    map.set(DpPort(1), Some(from.clone()));
    map.set(DpPort(2), Some(from.clone()));
    let (counters, punts) = (WalkCounters::default(), PuntQueue::default());
    let context = Context {
        ports: &map,
        translate: &p,
        counters: &counters,
        punts: &punts,
        thread: 0,
        now_ms: 1,
        flow_limit: 200_000,
        exact_match: true,
    };
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function("all in, ten tables", |b| {
        b.iter_batched_ref(
            || Datapath::new(1, Arc::<Registry>::default()),
            |datapath| {
                for _ in 0..BURSTS {
                    datapath.walk(&*from, 0, DpPort(1), &context);
                }
            },
            BatchSize::PerIteration,
        );
    });
    let (upcalls, received) = (counters.upcalls.get(), counters.received.get());
    assert_eq!(upcalls, received, "every packet made a megaflow");
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
