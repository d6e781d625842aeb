//! The walk with simulated ports and a pipeline that is one function.

use super::*;
use flow::{Effects, FlowKey, FlowMask, Mac, Translation};
use port::sim::SimPort;
use proptest::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Forwards by destination address: address ending in `n` goes to port `n`; 0 drops; 255 floods to
/// all but the input port. Looks at the destination only, or at everything.
#[derive(Default)]
struct ByDestination {
    exact: bool,
    asked: AtomicU64,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told(Mutex<(u64, u64)>);

impl Effects for Told {
    fn apply(&self, seen: &Seen) {
        let mut t = self.0.lock().expect("not poisoned");
        *t = (t.0 + seen.packets, t.1 + seen.bytes);
    }
}

impl Translate for ByDestination {
    fn translate(&self, key: &FlowKey) -> Translation {
        self.asked.fetch_add(1, Relaxed);
        let mut mask = if self.exact { FlowMask::exact() } else { FlowMask::default() };
        mask.bits_mut().dl_dst = Mac::BROADCAST;
        let actions = match key.dl_dst.0[5] {
            0 => vec![],
            255 => {
                (1..4).filter(|&p| p != key.in_port).map(|p| Action::Output(DpPort(p))).collect()
            }
            n => vec![Action::Output(DpPort(n.into()))],
        };
        Translation { mask, actions, effects: self.told.clone() }
    }

    fn generation(&self) -> u64 {
        0
    }
}

struct Bench {
    ports: Vec<Arc<SimPort>>,
    map: PortMap,
    pipeline: ByDestination,
    counters: WalkCounters,
    punts: PuntQueue,
    registry: Arc<Registry>,
    datapath: Datapath,
    flow_limit: usize,
}

impl Bench {
    fn new(exact: bool) -> Bench {
        let ports: Vec<_> = (0..4).map(|i| Arc::new(SimPort::new(&format!("p{i}")))).collect();
        let mut map = PortMap::default();
        for (i, p) in ports.iter().enumerate() {
            map.set(DpPort(i as u32), Some(p.clone()));
        }
        let registry = Arc::<Registry>::default();
        let datapath = Datapath::new(1, registry.clone());
        let pipeline = ByDestination { exact, ..Default::default() };
        Bench {
            ports,
            map,
            pipeline,
            counters: WalkCounters::default(),
            punts: PuntQueue::default(),
            registry,
            datapath,
            flow_limit: 1000,
        }
    }

    fn run(&mut self) {
        let c = Context {
            ports: &self.map,
            translate: &self.pipeline,
            counters: &self.counters,
            punts: &self.punts,
            thread: 0,
            now_ms: 5,
            flow_limit: self.flow_limit,
            exact_match: true,
        };
        for (i, p) in self.ports.iter().enumerate() {
            while self.datapath.walk(&**p, 0, DpPort(i as u32), &c) > 0 {}
        }
    }
}

fn frame(dst: u8, tag: u8) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, 9, 0x90, tag];
    f.resize(60, tag);
    f
}

#[test]
fn first_packet_asks_the_rest_hit_the_cache() {
    let mut b = Bench::new(false);
    for i in 0..40 {
        b.ports[1].push(&frame(2, i));
    }
    b.run();
    let out = b.ports[2].take();
    assert_eq!(out.len(), 40);
    assert!((0..40).all(|i| out[usize::from(i)] == frame(2, i)), "order or content changed");
    // The EtherType differs from frame to frame and is always part of the mask.
    assert_eq!(b.counters.upcalls.get(), 40);
    for i in 0..40 {
        b.ports[1].push(&frame(2, i));
    }
    b.run();
    assert_eq!((b.counters.upcalls.get(), b.counters.emc_hits.get()), (40, 40));
    assert_eq!(b.ports[1].bursts_returned(), 4);
}

#[test]
fn one_megaflow_serves_packets_that_differ_where_it_does_not_look() {
    let mut b = Bench::new(false);
    for i in 0..10 {
        let mut f = frame(3, 0);
        f[11] = i;
        b.ports[1].push(&f);
    }
    b.run();
    assert_eq!(b.ports[3].take().len(), 10);
    assert_eq!((b.counters.upcalls.get(), b.counters.megaflow_hits.get()), (1, 9));
    let flows = b.registry.flows();
    assert_eq!((flows.len(), flows[0].stats().packets), (1, 10));
}

#[test]
fn floods_drops_and_output_to_missing_ports_are_counted() {
    let mut b = Bench::new(false);
    b.ports[1].push(&frame(255, 0));
    b.ports[1].push(&frame(0, 0));
    b.ports[1].push(&frame(77, 0));
    b.run();
    assert_eq!((b.ports[2].take().len(), b.ports[3].take().len()), (1, 1));
    assert_eq!(b.counters.drops.get(DropReason::Pipeline), 1);
    assert_eq!(b.counters.drops.get(DropReason::InvalidPort), 1);
}

#[test]
fn a_full_flow_table_still_forwards() {
    let mut b = Bench::new(true);
    b.flow_limit = 5;
    for i in 0..32 {
        b.ports[1].push(&frame(2, i));
    }
    b.run();
    assert_eq!(b.ports[2].take().len(), 32);
    assert_eq!(b.counters.upcalls_not_installed.get(), 27);
    assert_eq!(b.registry.len(), 5);
    assert_eq!(b.pipeline.told.0.lock().expect("not poisoned").0, 32);
}

#[test]
fn a_killed_flow_matches_no_more_and_its_place_is_used_again() {
    let mut b = Bench::new(false);
    b.ports[1].push(&frame(2, 0));
    b.ports[1].push(&frame(2, 0));
    b.run();
    let old = b.registry.flows().remove(0);
    b.registry.kill(&old);
    b.ports[1].push(&frame(2, 0));
    b.run();
    assert_eq!((b.counters.upcalls.get(), b.registry.len()), (2, 2));
    while b.datapath.clean() {}
    assert_eq!(old.state(), FlowState::Removed);
    b.registry.bury();
    assert_eq!(b.registry.len(), 1);
    assert_eq!(Arc::strong_count(&old), 1, "nobody else holds it");
    b.ports[1].push(&frame(2, 0));
    b.run();
    assert_eq!(b.counters.upcalls.get(), 2);
    for f in b.registry.flows() {
        f.push_effects();
    }
    let told = *b.pipeline.told.0.lock().expect("not poisoned");
    assert_eq!(told, (4, 240), "each packet is told exactly once");
}

proptest! {
    /// Whatever is sent and whichever flows are ended meanwhile: the switch does what the pipeline
    /// says for each packet alone.
    #[test]
    fn caches_never_change_the_answer(steps in proptest::collection::vec(
        (1u8..4, prop_oneof![Just(0u8), 1u8..4, Just(255)], 0u8..6, any::<bool>()), 1..200),
        exact in any::<bool>())
    {
        let mut b = Bench::new(exact);
        for (from, to, tag, kill) in steps {
            let f = frame(to, tag);
            b.ports[usize::from(from)].push(&f);
            b.run();
            for p in 1..4u8 {
                let expect = usize::from(to == p || to == 255 && p != from);
                let out = b.ports[usize::from(p)].take();
                prop_assert_eq!(out.len(), expect);
                prop_assert!(out.iter().all(|o| *o == f));
            }
            if kill && let Some(flow) = b.registry.flows().last() {
                b.registry.kill(flow);
                if tag % 2 == 0 {
                    while b.datapath.clean() {}
                    b.registry.bury();
                }
            }
        }
    }
}

/// Sends to port 2, until a packet was seen; then to port 3.
#[derive(Default)]
struct Teaching(Arc<Taught>);
#[derive(Default)]
struct Taught {
    generation: AtomicU64,
    packets: AtomicU64,
}
impl Effects for Taught {
    fn apply(&self, seen: &Seen) {
        self.generation.store(1, Relaxed);
        self.packets.fetch_add(seen.packets, Relaxed);
    }
}
impl Translate for Teaching {
    fn translate(&self, _: &FlowKey) -> Translation {
        let to = if self.generation() == 0 { 2 } else { 3 };
        let actions = vec![Action::Output(DpPort(to))];
        Translation { mask: FlowMask::default(), actions, effects: self.0.clone() }
    }
    fn generation(&self) -> u64 {
        self.0.generation.load(Relaxed)
    }
}

#[test]
fn what_a_packet_teaches_is_for_those_after_it() {
    let mut b = Bench::new(false);
    let pipeline = Teaching::default();
    for n in 0..3 {
        b.ports[1].push(&frame(2, n));
    }
    let c = Context {
        ports: &b.map,
        translate: &pipeline,
        counters: &b.counters,
        punts: &b.punts,
        thread: 0,
        now_ms: 5,
        flow_limit: 1000,
        exact_match: true,
    };
    b.datapath.walk(&*b.ports[1], 0, DpPort(1), &c);
    assert_eq!((b.ports[2].take().len(), b.ports[3].take().len()), (1, 2));
    b.registry.flows().iter().for_each(|f| f.push_effects());
    assert_eq!(pipeline.0.packets.load(Relaxed), 3, "each is told once");
}

/// A UDP frame to the address that ends in `dst`.
fn udp(dst: u8, tag: u8) -> Vec<u8> {
    let mut f = frame(dst, tag);
    f[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17]);
    f
}

/// Bursts of one flow are not looked up any more, see `lane.rs`; nothing else may be different for it.
/// Without checks, as they look packets up that the lane does not.
#[test]
fn bursts_of_one_flow_are_forwarded_and_counted_like_others() {
    let mut b = Bench::new(false);
    b.datapath.check_flows(0, 0);
    let send = |b: &mut Bench, frames: &[Vec<u8>]| {
        frames.iter().for_each(|f| b.ports[1].push(f));
        b.run();
        [2, 3].map(|p: usize| b.ports[p].take())
    };
    let same: Vec<_> = (0..32).map(|i| udp(2, i)).collect();
    for _ in 0..4 {
        assert_eq!(send(&mut b, &same), [same.clone(), vec![]]);
    }
    assert!(b.datapath.state.classifier.guess(1).template.is_some(), "the lane is open");
    let mut mixed = same.clone();
    mixed[20] = udp(3, 20);
    for _ in 0..2 {
        let [two, three] = send(&mut b, &mixed);
        assert_eq!((two.len(), three), (31, vec![mixed[20].clone()]));
    }
    let flows = b.registry.flows();
    let counted: Vec<_> = flows.iter().map(|f| (f.stats().packets, f.stats().bytes)).collect();
    assert_eq!(counted, [(4 * 32 + 62, (4 * 32 + 62) * 60), (2, 120)]);
    send(&mut b, &same);
    let asked = b.counters.upcalls.get();
    b.registry.kill(&flows[0]);
    assert_eq!(send(&mut b, &same)[0].len(), 32);
    assert_eq!(b.counters.upcalls.get(), asked + 1, "a flow that ended is not used");
}

/// Ports with very high numbers share one place in the classifier.
#[test]
fn the_lane_of_one_port_is_not_for_another() {
    struct ByPort;
    impl Translate for ByPort {
        fn translate(&self, key: &FlowKey) -> Translation {
            let mut mask = FlowMask::default();
            mask.bits_mut().in_port = u32::MAX;
            let actions = vec![Action::Output(DpPort(key.in_port - 70_000))];
            Translation { mask, actions, effects: Arc::<Told>::default() }
        }
        fn generation(&self) -> u64 {
            0
        }
    }
    let mut b = Bench::new(false);
    b.datapath.check_flows(0, 0);
    let c = Context {
        ports: &b.map,
        translate: &ByPort,
        counters: &b.counters,
        punts: &b.punts,
        thread: 0,
        now_ms: 5,
        flow_limit: 1000,
        exact_match: true,
    };
    for n in [2usize, 2, 2, 3, 3, 2] {
        (0..32).for_each(|i| b.ports[0].push(&udp(9, i)));
        b.datapath.walk(&*b.ports[0], 0, DpPort(70_000 + n as u32), &c);
        assert_eq!(b.ports[n].take().len(), 32);
    }
}

#[test]
fn limits_drop_on_both_sides_and_the_rest_passes_in_order() {
    use qos::{Limit, Limits, Policer, QosDrops};
    let mut b = Bench::new(false);
    let drops = Arc::new(QosDrops::default());
    let mut police = |port, limits| {
        let policer = Policer::new(limits, Arc::new(|| 7), drops.clone());
        b.map.police(DpPort(port), Some(Arc::new(policer)));
    };
    let limit = |burst| Some(Limit { rate: 1, burst });
    police(1, Limits { rx_packets: limit(10), ..Limits::default() });
    // Six frames of 60 bytes without their Ethernet headers.
    police(2, Limits { tx_bytes: limit(6 * 46), ..Limits::default() });
    for i in 0..40 {
        b.ports[1].push(&frame(2 + i % 2, i));
    }
    // Another port's frames are nothing to the first one's limit.
    b.ports[0].push(&frame(3, 99));
    b.run();
    let tags = |frames: Vec<Vec<u8>>| frames.iter().map(|f| f[13]).collect::<Vec<_>>();
    assert_eq!(tags(b.ports[2].take()), [0, 2, 4, 6, 8]);
    assert_eq!(tags(b.ports[3].take()), [99, 1, 3, 5, 7, 9]);
    assert_eq!((drops.rx(), drops.tx()), (30, 0));
    // The limit of the port that is sent to: one more passes.
    for i in 0..3 {
        b.ports[0].push(&frame(2, i));
    }
    b.run();
    assert_eq!(tags(b.ports[2].take()), [0]);
    assert_eq!((drops.rx(), drops.tx()), (30, 2));
    assert_eq!(b.ports[1].bursts_returned(), 2, "bursts that are dropped go back too");
}

#[test]
fn queues_are_those_that_actions_set_before_each_output() {
    use qos::{Limit, Limits, Policer, QosDrops, QueueLimits, TwoRates};
    let mut b = Bench::new(false);
    let all = Some(Limit { rate: 1 << 30, burst: 1 << 30 });
    let wide = TwoRates { committed: all, excess: None };
    let queues = [(5, TwoRates::default())].into();
    let limits =
        Limits { tx_queues: Some(QueueLimits { port: wide, queues }), ..Limits::default() };
    for port in [1, 2] {
        let policer = Policer::new(limits.clone(), Arc::new(|| 7), Arc::<QosDrops>::default());
        b.map.police(DpPort(port), Some(Arc::new(policer)));
    }
    let c = Context {
        ports: &b.map,
        translate: &b.pipeline,
        counters: &b.counters,
        punts: &b.punts,
        thread: 0,
        now_ms: 5,
        flow_limit: 1000,
        exact_match: true,
    };
    let out = |port| Action::Output(DpPort(port));
    let mut sent = |actions: &[Action]| {
        b.datapath.execute_frame(&frame(2, 1), DpPort(3), actions, &c);
        [1, 2].map(|p: usize| b.ports[p].take().len())
    };
    assert_eq!(sent(&[out(1), out(2)]), [1, 1]);
    // Queue 5 lets nothing pass; queue 6 is not there, so the port's rates hold.
    let set = Action::SetPriority;
    assert_eq!(sent(&[set(5), out(1), set(6), out(2)]), [0, 1]);
    assert_eq!(sent(&[out(1), set(5), out(2)]), [1, 0]);
    assert_eq!(sent(&[Action::Clone(vec![set(5), out(1)]), out(2)]), [0, 1]);
    // The next frame begins without.
    assert_eq!(sent(&[out(1), out(2)]), [1, 1]);
}
