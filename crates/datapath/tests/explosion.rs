//! A tenant who provokes as many masks and flows as he can (tuple-space explosion, as Csikor et al.
//! describe it) harms nobody but himself.

use datapath::{Context, Datapath, MASKS_MAX, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Seen, Translate, Translation, compose};
use packet::DropReason;
use port::sim::SimPort;
use std::collections::HashSet;
use std::sync::Arc;
use zerocopy::big_endian::U32;

const ATTACKER: u32 = 1;
const VICTIM: u32 = 2;
const ALLOWED: u32 = 3;
const DENIED: u32 = 4;

struct Nothing;
impl Effects for Nothing {
    fn apply(&self, _: &Seen) {}
}

/// One rule for the attacker, who may choose his packets: whatever differs from it in a bit is told
/// from it by the bits up to that one, in each of three fields.
struct OneRule;
const RULE: (u32, u32, u16) = (0x0a00_0001, 0xc0a8_0101, 443);

/// The bits of `width` that tell `value` from `rule`, and whether it is the same.
fn prefix(value: u32, rule: u32, width: u32) -> (u32, bool) {
    let ones = u32::MAX >> (32 - width);
    match value ^ rule {
        0 => (ones, true),
        differ => (ones & !(u32::MAX >> 1 >> differ.leading_zeros()), false),
    }
}

impl Translate for OneRule {
    fn translate(&self, key: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        let m = mask.bits_mut();
        let same = if key.in_port == ATTACKER {
            let (src, a) = prefix(key.nw_src.get(), RULE.0, 32);
            let (dst, b) = prefix(key.nw_dst.get(), RULE.1, 32);
            let (port, c) = prefix(key.tp_dst.get().into(), RULE.2.into(), 16);
            (m.nw_src, m.nw_dst, m.tp_dst) = (U32::new(src), U32::new(dst), (port as u16).into());
            a && b && c
        } else {
            // Two masks: by the upper or by the lower half of the port.
            let high = key.tp_dst.get() >= 0x8000;
            m.tp_dst = if high { 0xff00 } else { 0x80ff }.into();
            true
        };
        let to = if same { ALLOWED } else { DENIED };
        let actions = vec![Action::Output(DpPort(to))];
        Translation { mask, actions, effects: Arc::new(Nothing) }
    }

    fn generation(&self) -> u64 {
        0
    }
}

struct Lab {
    ports: Vec<Arc<SimPort>>,
    map: PortMap,
    counters: WalkCounters,
    punts: PuntQueue,
    registry: Arc<Registry>,
    datapath: Datapath,
    now_ms: u64,
    flow_limit: usize,
    noise: u64,
}

impl Lab {
    fn new(flow_limit: usize) -> Lab {
        let ports: Vec<_> = (0..5).map(|i| Arc::new(SimPort::new(&format!("p{i}")))).collect();
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
            now_ms: 1,
            flow_limit,
            noise: 1,
        }
    }

    /// The exact-match cache never knows this packet: its address is new, and no mask looks at it.
    fn push(&mut self, port: u32, src: u32, dst: u32, tp_dst: u16) {
        self.noise += 1;
        let mut key = FlowKey { dl_type: 0x0800.into(), nw_proto: 17, ..FlowKey::default() };
        (key.nw_src, key.nw_dst, key.tp_dst) = (U32::new(src), U32::new(dst), tp_dst.into());
        key.dl_src.0.copy_from_slice(&self.noise.to_be_bytes()[2..]);
        self.ports[port as usize].push(&compose(&key));
    }

    /// One burst of each port, then a millisecond later.
    fn turn(&mut self) {
        let c = Context {
            ports: &self.map,
            translate: &OneRule,
            counters: &self.counters,
            punts: &self.punts,
            thread: 0,
            now_ms: self.now_ms,
            flow_limit: self.flow_limit,
            exact_match: true,
        };
        for number in [ATTACKER, VICTIM] {
            self.datapath.walk(&*self.ports[number as usize], 0, DpPort(number), &c);
        }
        self.now_ms += 1;
        if self.now_ms.is_multiple_of(1000) {
            self.datapath.rank();
        }
    }

    /// Sends packets of the victim's two flows; returns subtables searched for each, in hundredths.
    fn victim_lookups(&mut self) -> u64 {
        let (hits, searched) = self.victim_counts();
        for i in 0..3200u32 {
            let port = if i % 10 == 0 { 0x8001 } else { 80 };
            self.push(VICTIM, 1, i, port);
            if i % 32 == 31 {
                self.turn();
            }
        }
        let (hits_after, searched_after) = self.victim_counts();
        assert_eq!(hits_after - hits, 3200, "every packet finds its megaflow");
        assert_eq!(self.ports[ALLOWED as usize].take().len(), 3200);
        (searched_after - searched) * 100 / (hits_after - hits)
    }

    fn victim_counts(&self) -> (u64, u64) {
        // A packet with the flow of the port's last one counts as the cache's.
        let hits = self.counters.megaflow_hits.get() + self.counters.emc_hits.get();
        (hits, self.counters.subtable_lookups.get())
    }

    fn masks_of(&self, port: u32) -> usize {
        let flows = self.registry.flows();
        let of_port = flows.iter().filter(|f| f.origin.in_port == port);
        of_port.map(|f| f.wildcards).collect::<HashSet<_>>().len()
    }
}

#[test]
fn another_ports_masks_cost_nothing() {
    let mut lab = Lab::new(200_000);
    lab.push(VICTIM, 1, 1, 80);
    lab.push(VICTIM, 1, 1, 0x8001);
    lab.turn();
    lab.ports[ALLOWED as usize].take();
    lab.victim_lookups();
    let before = lab.victim_lookups();
    // All combinations of first differing bits: 33 * 33 * 17 masks.
    let bit = |n: u32, width: u32| if n == width { 0 } else { 1 << n };
    let mut sent = 0;
    for (a, b, c) in (0..33 * 33 * 17).map(|i| (i % 33, i / 33 % 33, i / (33 * 33))) {
        let (src, dst) = (RULE.0 ^ bit(a, 32), RULE.1 ^ bit(b, 32));
        lab.push(ATTACKER, src, dst, RULE.2 ^ bit(c, 16) as u16);
        sent += 1;
        if sent % 32 == 0 {
            lab.turn();
        }
    }
    lab.turn();
    assert_eq!(lab.masks_of(ATTACKER), MASKS_MAX + 1);
    assert_eq!(lab.ports[ALLOWED as usize].take().len(), 1, "one packet is what the rule allows");
    assert_eq!(lab.ports[DENIED as usize].take().len(), sent - 1);
    assert_eq!(lab.victim_lookups(), before, "hundredths of a lookup");
    // The attacker's own packets are found within his budget.
    let (hits, searched) = lab.victim_counts();
    for i in 0..64 {
        lab.push(ATTACKER, RULE.0 ^ 1 << (i % 32), RULE.1, RULE.2);
        lab.turn();
    }
    let (hits_after, searched_after) = lab.victim_counts();
    assert!(searched_after - searched <= (hits_after - hits) * (MASKS_MAX as u64 + 1));
    assert_eq!(lab.counters.drops.get(DropReason::UpcallBudget), 0, "he was alone");
}

#[test]
fn nobody_fills_the_table_or_takes_the_thread() {
    let mut lab = Lab::new(3000);
    // The attacker's packets are nearly all new, because his masks are used up; the victim opens a new flow now and then.
    let (mut sent, mut random) = (0u32, 1u32);
    for round in 0..400u32 {
        for _ in 0..32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bit = |shift: u32| 1 << (random >> shift & 15);
            lab.push(ATTACKER, RULE.0 ^ bit(8), RULE.1 ^ bit(16), RULE.2 ^ bit(24) as u16);
            sent += 1;
        }
        lab.push(VICTIM, 1, 1, (0x8000 + round / 4 * 0x100) as u16 | 0x8000);
        lab.push(VICTIM, 1, 1, (round % 128) as u16);
        lab.turn();
    }
    assert_eq!(lab.ports[ALLOWED as usize].take().len(), 800, "nothing of the victim's is lost");
    let asked_too_much = lab.counters.drops.get(DropReason::UpcallBudget);
    let answered = lab.ports[DENIED as usize].take().len() as u64;
    assert_eq!(answered + asked_too_much, sent.into(), "each packet is sent or counted");
    // 1,024 at once and 16 a millisecond.
    assert!(lab.counters.upcalls.get() < 1024 + 400 * 16 + 1000, "{}", lab.counters.upcalls.get());
    assert!(asked_too_much > 0);
    let flows = lab.registry.flows();
    let victims = flows.iter().filter(|f| f.origin.in_port == VICTIM).count();
    assert!(victims > 100, "{victims} of the victim's flows are in the table");
    assert!(flows.len() < 3000, "and there is room for more: {}", flows.len());
}
