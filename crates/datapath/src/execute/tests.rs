//! Actions at work in the walk, held against an interpreter that does them to one packet at a time,
//! without caches.

use super::*;
use crate::{Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{
    Effects, Extracted, FlowKey, FlowMask, Mac, PuntReason, Rewrite, Seen, Translate, Translation,
    Vlan, extract,
};
use packet::BurstBuf;
use port::sim::SimPort;
use proptest::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use zerocopy::big_endian::U32;

#[derive(Default)]
struct Told(AtomicU64);

impl Effects for Told {
    fn apply(&self, seen: &Seen) {
        self.0.fetch_add(seen.packets, Relaxed);
    }
}

/// Answers with one of some lists of actions, by recirculation and destination address; looks at no
/// more than these, or at more.
struct Program {
    lists: Vec<Vec<Action>>,
    wide: bool,
    generation: AtomicU64,
    told: Arc<Told>,
}

impl Program {
    fn new(lists: Vec<Vec<Action>>, wide: bool) -> Program {
        Program { lists, wide, generation: AtomicU64::new(0), told: Arc::default() }
    }

    fn actions(&self, key: &FlowKey) -> &[Action] {
        let turn = key.recirc_id as usize * 3 + usize::from(key.dl_dst.0[5]);
        let turn = turn + self.generation.load(Relaxed) as usize;
        &self.lists[turn % self.lists.len()]
    }
}

impl Translate for Program {
    fn translate(&self, key: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        mask.bits_mut().dl_dst = Mac::BROADCAST;
        if !self.wide {
            mask.bits_mut().vlan[0] = Vlan { tpid: 0xffff.into(), tci: 0xffff.into() };
            // Another mask for every other address.
            mask.bits_mut().dl_src.0[0] = key.dl_dst.0[5] & 1;
        }
        Translation { mask, actions: self.actions(key).to_vec(), effects: self.told.clone() }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }
}

/// What comes of one packet: frames by port, frames for controllers, and lookups that it took.
#[derive(Default)]
struct Outcome {
    sent: Vec<(u32, Vec<u8>)>,
    punted: Vec<Vec<u8>>,
    lookups: u64,
}

impl Outcome {
    fn look_up(&mut self, p: &Program, frame: &[u8], in_port: u32, recirc_id: u32, left: u8) {
        let mut out = Extracted::default();
        extract(frame, frame.len(), in_port, &mut out).expect("all bytes are there");
        out.key.recirc_id = recirc_id;
        self.lookups += 1;
        self.run(p, &mut frame.to_vec(), p.actions(&out.key), in_port, left);
    }

    fn run(&mut self, p: &Program, frame: &mut Vec<u8>, list: &[Action], in_port: u32, left: u8) {
        let mut cut = usize::MAX;
        for action in list {
            match action {
                Action::Output(to) => {
                    let n = frame.len().min(std::mem::replace(&mut cut, usize::MAX));
                    self.sent.push((to.0, frame[..n].to_vec()));
                }
                Action::Trunc(n) => cut = *n as usize,
                Action::Punt(punt) => {
                    let n = std::mem::replace(&mut cut, usize::MAX).min(punt.max_len.into());
                    self.punted.push(frame[..frame.len().min(n)].to_vec());
                }
                Action::Clone(list) => self.run(p, &mut frame.clone(), list, in_port, left),
                Action::Sample { probability, actions } => {
                    if *probability > 0 {
                        self.run(p, &mut frame.clone(), actions, in_port, left);
                    }
                }
                Action::CheckLen { limit, greater, less_equal } => {
                    // Padding behind an IP packet does not count.
                    let end = match locate(frame, frame.len()).0.end {
                        0 => frame.len(),
                        end => end.min(frame.len()),
                    };
                    let long = end > usize::from(*limit);
                    let list = if long { greater } else { less_equal };
                    self.run(p, &mut frame.clone(), list, in_port, left);
                }
                Action::Recirc(id) => {
                    if left > 0 {
                        self.look_up(p, frame, in_port, *id, left - 1);
                    }
                    return;
                }
                Action::SetMark(_) | Action::SetPriority(_) | Action::Meter(_) => {}
                change => match changed(frame, change) {
                    Some(new) => *frame = new,
                    None => return,
                },
            }
        }
    }
}

/// `rewrite.rs` has tests of its own.
fn changed(frame: &[u8], action: &Action) -> Option<Vec<u8>> {
    let mut buf = BurstBuf::new();
    let mut burst = buf.frame(frame)?;
    let b = &mut burst;
    let kept = match action {
        Action::Set(r) => {
            Changes::new(r).apply(b, 0);
            true
        }
        Action::PushVlan(v) => rewrite::push_vlan(b.packet_mut(0), *v),
        Action::PopVlan => {
            rewrite::pop_vlan(b.packet_mut(0));
            true
        }
        Action::PushMpls { ethertype, lse } => rewrite::push_mpls(b, 0, *ethertype, *lse),
        Action::PopMpls { ethertype } => {
            rewrite::pop_mpls(b, 0, *ethertype);
            true
        }
        _ => true,
    };
    kept.then(|| burst.copy_out(0, usize::MAX))
}

struct Lab {
    ports: Vec<Arc<SimPort>>,
    map: PortMap,
    counters: WalkCounters,
    punts: PuntQueue,
    registry: Arc<Registry>,
    datapath: Datapath,
    now_ms: Cell<u64>,
}

impl Lab {
    fn new() -> Lab {
        let ports: Vec<_> = (0..4).map(|i| Arc::new(SimPort::new(&format!("p{i}")))).collect();
        let mut map = PortMap::default();
        for (i, p) in ports.iter().enumerate() {
            map.set(DpPort(i as u32), Some(p.clone()));
        }
        let registry = Arc::<Registry>::default();
        let mut datapath = Datapath::new(1, registry.clone());
        datapath.check_flows(1, 0);
        Lab {
            ports,
            map,
            counters: WalkCounters::default(),
            punts: PuntQueue::default(),
            registry,
            datapath,
            now_ms: Cell::new(5),
        }
    }

    /// Sends frames in by port 1 in bursts; returns what came out.
    fn run(&mut self, program: &Program, frames: &[Vec<u8>]) -> Outcome {
        let c = Context {
            ports: &self.map,
            translate: program,
            counters: &self.counters,
            punts: &self.punts,
            thread: 0,
            now_ms: self.now_ms.get(),
            flow_limit: 1000,
            exact_match: true,
        };
        frames.iter().for_each(|f| self.ports[1].push(f));
        while self.datapath.walk(&*self.ports[1], 0, DpPort(1), &c) > 0 {}
        self.collect()
    }

    fn execute(&mut self, program: &Program, frame: &[u8], actions: &[Action]) -> Outcome {
        let c = Context {
            ports: &self.map,
            translate: program,
            counters: &self.counters,
            punts: &self.punts,
            thread: 0,
            now_ms: self.now_ms.get(),
            flow_limit: 1000,
            exact_match: true,
        };
        assert!(self.datapath.execute_frame(frame, DpPort(1), actions, &c));
        self.collect()
    }

    fn collect(&self) -> Outcome {
        let mut out = Outcome::default();
        for (i, p) in self.ports.iter().enumerate() {
            out.sent.extend(p.take().into_iter().map(|f| (i as u32, f)));
        }
        while let Some(p) = self.punts.pop() {
            out.punted.push(p.frame);
        }
        out
    }
}

fn frame(dst: u8, src: u8, len: usize) -> Vec<u8> {
    let key = FlowKey { dl_type: 0x0800.into(), nw_proto: 17, nw_ttl: 9, ..FlowKey::default() };
    let mut f = flow::compose(&key);
    f.resize(len.max(f.len()), 0x5a);
    (f[5], f[6], f[11]) = (dst, src, src);
    f
}

fn punt(max_len: u16) -> Action {
    Action::Punt(Box::new(Punt {
        reason: PuntReason::Action,
        bridge: 1,
        controller: 0,
        table: 3,
        cookie: 7,
        max_len,
        in_port: 1,
        userdata: vec![],
        metadata: String::new(),
    }))
}

fn set_ttl(ttl: u8) -> Action {
    let mut mask = FlowMask::empty();
    (mask.bits_mut().nw_ttl, mask.bits_mut().dl_src.0) = (0xff, [0, 0, 0, 0, 0, 0xff]);
    let value = FlowKey {
        dl_type: 0x0800.into(),
        nw_proto: 17,
        nw_ttl: ttl,
        dl_src: Mac([ttl; 6]),
        ..FlowKey::default()
    };
    Action::Set(Box::new(Rewrite { value, mask }))
}

fn set_dst(dst: u8) -> Action {
    let mut mask = FlowMask::empty();
    mask.bits_mut().dl_dst = Mac([0, 0, 0, 0, 0, 0xff]);
    let value = FlowKey { dl_dst: Mac([dst; 6]), dl_type: 0x0800.into(), ..FlowKey::default() };
    Action::Set(Box::new(Rewrite { value, mask }))
}

fn action() -> impl Strategy<Value = Action> {
    let leaf = prop_oneof![
        4 => (1u32..4).prop_map(|p| Action::Output(DpPort(p))),
        1 => (14u32..150).prop_map(Action::Trunc),
        1 => (1u8..4).prop_map(set_ttl),
        1 => (0u8..6).prop_map(set_dst),
        1 => (1u16..5).prop_map(|v| Action::PushVlan(Vlan { tpid: 0x8100.into(), tci: (v | 0x1000).into() })),
        1 => Just(Action::PopVlan),
        1 => (1u32..99).prop_map(|l| Action::PushMpls { ethertype: 0x8847, lse: U32::new(l << 12 | 0x140) }),
        1 => Just(Action::PopMpls { ethertype: 0x0800 }),
        1 => (20u16..200).prop_map(punt),
        1 => (0u32..4).prop_map(Action::Recirc),
        1 => Just(Action::Meter(1)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = || prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            list().prop_map(Action::Clone),
            (list(), any::<bool>()).prop_map(|(actions, all)| Action::Sample {
                probability: if all { u32::MAX } else { 0 },
                actions
            }),
            (list(), list(), 60u16..140).prop_map(|(greater, less_equal, limit)| {
                Action::CheckLen { limit, greater, less_equal }
            }),
        ]
    })
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Whatever the flows do: with caches and in batches, the same frames come out as one by one
    /// without, every lookup is told to the pipeline once, and no megaflow hit differs from a fresh
    /// answer (`check_flows` would panic).
    #[test]
    fn caches_and_batches_change_nothing(
        lists in prop::collection::vec(prop::collection::vec(action(), 0..5), 1..6),
        wide in any::<bool>(),
        rounds in prop::collection::vec(
            (prop::collection::vec((0u8..6, 0u8..3, 106usize..129), 1..80), any::<bool>()), 1..4),
    ) {
        let program = Program::new(lists, wide);
        let mut lab = Lab::new();
        let mut lookups = 0;
        for (frames, change) in rounds {
            let frames: Vec<_> = frames.into_iter().map(|(d, s, n)| frame(d, s, n)).collect();
            let mut expected = Outcome::default();
            for f in &frames {
                expected.look_up(&program, f, 1, 0, RECIRC_MAX);
            }
            // More may be asked for than the table of counted punts holds.
            prop_assume!(expected.punted.len() <= crate::PUNTS_MAX);
            let got = lab.run(&program, &frames);
            prop_assert_eq!(sorted(got.sent), sorted(expected.sent));
            prop_assert_eq!(sorted(got.punted), sorted(expected.punted));
            lookups += expected.lookups;
            if change {
                // As the revalidator does after a change.
                program.generation.fetch_add(1, Relaxed);
                for flow in lab.registry.flows() {
                    let answer = program.translate(&flow.origin);
                    flow.push_effects();
                    if !flow.still_right(&answer, program.generation()) {
                        lab.registry.kill(&flow);
                    }
                }
                while lab.datapath.clean() {}
                lab.registry.bury();
            }
        }
        for flow in lab.registry.flows() {
            flow.push_effects();
        }
        prop_assert_eq!(program.told.0.load(Relaxed), lookups);
        prop_assert_eq!(lab.counters.upcalls_not_installed.get(), 0);
    }

    /// The same for frames that are longer than what is private, made by the switch itself.
    #[test]
    fn long_frames_go_whole(
        actions in prop::collection::vec(action(), 0..6),
        lists in prop::collection::vec(prop::collection::vec(action(), 0..5), 1..4),
        len in 106usize..2000,
    ) {
        let program = Program::new(lists, false);
        let f = frame(1, 2, len);
        let mut expected = Outcome::default();
        expected.run(&program, &mut f.clone(), &actions, 1, RECIRC_MAX);
        let got = Lab::new().execute(&program, &f, &actions);
        prop_assert_eq!(sorted(got.sent), sorted(expected.sent));
        prop_assert_eq!(sorted(got.punted), sorted(expected.punted));
    }
}

fn out(p: u32) -> Action {
    Action::Output(DpPort(p))
}

#[test]
fn a_rewritten_run_is_sent_in_one_batch() {
    let mut lab = Lab::new();
    let program = Program::new(vec![vec![set_ttl(3), out(2)]], true);
    let frames: Vec<_> = (0..32).map(|i| frame(0, i, 106)).collect();
    lab.run(&program, &frames);
    assert_eq!((lab.counters.tx_batches.get(), lab.counters.tx_packets.get()), (1, 32));
    let program = Program::new(vec![vec![out(2), set_ttl(3), out(3), out(2)]], true);
    let mut lab = Lab::new();
    let got = lab.run(&program, &frames);
    assert_eq!(lab.counters.tx_batches.get(), 3, "before the change, and after it");
    assert_eq!(got.sent.iter().filter(|(p, f)| *p == 2 && f[22] == 9).count(), 32);
    assert_eq!(got.sent.iter().filter(|(p, f)| *p == 2 && f[22] == 3).count(), 32);
}

#[test]
fn endless_recirculation_and_nesting_end_and_are_counted() {
    let mut lab = Lab::new();
    let program = Program::new(vec![vec![Action::Recirc(0)]], true);
    lab.run(&program, &[frame(0, 0, 106)]);
    assert_eq!(lab.counters.drops.get(DropReason::RecircTooDeep), 1);
    assert_eq!(lab.counters.recirculated.get(), u64::from(RECIRC_MAX));
    let mut list = vec![out(2)];
    for _ in 0..40 {
        list = vec![Action::Clone(list), out(3)];
    }
    let got = lab.execute(&program, &frame(0, 0, 106), &list);
    assert_eq!(got.sent.len(), usize::from(NESTING_MAX) + 1);
    assert_eq!(lab.counters.drops.get(DropReason::NestingTooDeep), 1);
}

#[test]
fn packets_without_room_for_another_header_are_dropped_and_counted() {
    let mut lab = Lab::new();
    let program = Program::new(vec![vec![]], true);
    let tag = Vlan { tpid: 0x8100.into(), tci: 0x1001.into() };
    let mut list = vec![Action::PushVlan(tag); packet::HEADROOM / 4];
    list.push(out(2));
    assert_eq!(lab.execute(&program, &frame(0, 0, 106), &list).sent.len(), 1);
    list.insert(0, Action::PushVlan(tag));
    list.insert(0, out(3));
    let got = lab.execute(&program, &frame(0, 0, 106), &list);
    assert_eq!(got.sent, [(3, frame(0, 0, 106))]);
    assert_eq!(lab.counters.drops.get(DropReason::NoHeadroom), 1);
}

#[test]
fn punts_carry_frame_and_reason_and_are_lost_when_nobody_takes_them() {
    let mut lab = Lab::new();
    lab.punts = PuntQueue::new(2);
    let program = Program::new(vec![vec![punt(60), out(2)]], true);
    let c = Context {
        ports: &lab.map,
        translate: &program,
        counters: &lab.counters,
        punts: &lab.punts,
        thread: 0,
        now_ms: 1,
        flow_limit: 10,
        exact_match: true,
    };
    (0..5).for_each(|i| lab.ports[1].push(&frame(0, i, 106)));
    lab.datapath.walk(&*lab.ports[1], 0, DpPort(1), &c);
    assert_eq!((lab.punts.lost(), lab.ports[2].take().len()), (3, 5));
    assert_eq!(lab.counters.drops.get(DropReason::PuntQueueFull), 3);
    let p = lab.punts.pop().expect("the first");
    assert_eq!((p.frame, p.len, p.in_port), (frame(0, 0, 106)[..60].to_vec(), 106, DpPort(1)));
    assert_eq!((p.punt.cookie, p.punt.table), (7, 3));
}

#[test]
fn samples_are_about_the_share_that_was_asked_for() {
    let mut lab = Lab::new();
    let list = vec![Action::Sample { probability: u32::MAX / 4, actions: vec![out(3)] }, out(2)];
    let program = Program::new(vec![list], true);
    let frames: Vec<_> = (0..4000).map(|i| frame(0, i as u8, 106)).collect();
    let got = lab.run(&program, &frames);
    let sampled = got.sent.iter().filter(|(p, _)| *p == 3).count();
    assert!((800..1200).contains(&sampled), "{sampled} of 4000");
}

#[test]
#[should_panic(expected = "a cached megaflow differs from what the pipeline says")]
fn a_megaflow_that_is_too_wide_is_found() {
    /// Decides by source address, and does not say so.
    struct Liar(Arc<Told>);
    impl Translate for Liar {
        fn translate(&self, key: &FlowKey) -> Translation {
            let actions = vec![out(key.dl_src.0[5].into())];
            Translation { mask: FlowMask::default(), actions, effects: self.0.clone() }
        }
        fn generation(&self) -> u64 {
            0
        }
    }
    let lab = &mut Lab::new();
    let program = Liar(Arc::default());
    let c = Context {
        ports: &lab.map,
        translate: &program,
        counters: &lab.counters,
        punts: &lab.punts,
        thread: 0,
        now_ms: 1,
        flow_limit: 10,
        exact_match: true,
    };
    for src in [2, 3, 3] {
        lab.ports[1].push(&frame(0, src, 106));
        lab.datapath.walk(&*lab.ports[1], 0, DpPort(1), &c);
    }
}
