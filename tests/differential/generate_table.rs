//! Whole scenarios: tables of flows, groups, and packets that hit them.

use crate::generate_actions::{Plan, actions, bucket_actions};
use crate::generate_match::{Known, matches};
use crate::generate_packet::frame;
use crate::rng::Rng;
use crate::scenario::{Input, PORTS, Scenario};
use crate::vocabulary::Shape;

/// Cookies of learned flows begin here, with a bit that `ovs.rs` filters by; those of the scenario's
/// own count from 1.
const LEARN_COOKIE: u64 = 0x1_0000;
/// Learned flows come before all others, which have lower priorities.
const LEARN_PRIORITY: u16 = 40_000;

/// Makes the scenario of a seed with so many packets.
pub fn scenario(seed: u64, packets: usize) -> Scenario {
    let mut rng = Rng::new(seed);
    let rng = &mut rng;
    let all_tables = [0, 1, 2, 3, 10, 100, 253];
    let mut plan = Plan {
        tables: all_tables[..rng.range(1, 5)].to_vec(),
        groups: Vec::new(),
        learns: rng.chance(20),
        normal: rng.chance(15),
        loops: rng.chance(4),
        odd_tags: rng.chance(3),
        modern: false,
        learn_priority: LEARN_PRIORITY,
        learn_cookie: LEARN_COOKIE,
    };
    let groups = if rng.chance(30) { groups(rng, &mut plan) } else { Vec::new() };
    // A scenario is about a few kinds of packets, so that they meet flows made for them.
    let shapes: Vec<Shape> = (0..rng.range(2, 5)).map(|_| Shape::random(rng)).collect();
    let mut flows = Vec::new();
    for at in 0..plan.tables.len() {
        flows.extend(table(rng, &mut plan, at, &shapes));
    }
    number(&mut flows, 1);
    let changes =
        if rng.chance(25) { changes(rng, &mut plan, &shapes, &flows) } else { Vec::new() };
    let mut inputs: Vec<Input> = (0..packets)
        .map(|_| {
            let shape = if rng.chance(90) { rng.pick(&shapes) } else { Shape::random(rng) };
            Input { port: rng.familiar(&[0, 1, 2, 3, 4, 5, 6]), frame: frame(rng, &shape) }
        })
        .collect();
    let stateful = plan.normal || plan.learns;
    if !stateful {
        // Fewer calls: packets of one port go together. The caches still see them mixed.
        inputs.sort_by_key(|i| i.port);
    }
    Scenario { seed, groups, flows, changes, stateful, inputs }
}

/// Flows for table number `at`. No two that a packet could match have the same priority: which of
/// them is taken is not defined.
fn table(rng: &mut Rng, plan: &mut Plan, at: usize, shapes: &[Shape]) -> Vec<String> {
    let id = plan.tables[at];
    let mut wanted: Vec<(Shape, Vec<String>, Known)> = (0..rng.range(1, 8))
        .map(|_| {
            let shape = rng.pick(shapes);
            let (words, known) = matches(rng, &shape);
            (shape, words, known)
        })
        .collect();
    // Mostly the narrow before the wide, or the wide ones would take all packets.
    if rng.chance(80) {
        wanted.sort_by_key(|(_, words, _)| words.len());
    }
    let mut flows = Vec::new();
    for (i, (shape, words, known)) in wanted.into_iter().enumerate() {
        let priority = 100 * (i as u16 + 1);
        if rng.chance(6) {
            flows.extend(conjunction(rng, plan, at, &shape, priority));
            continue;
        }
        let actions = actions(rng, plan, at, known);
        flows.push(flow(id, priority, &words, &actions));
    }
    if rng.chance(70) {
        let actions = actions(rng, plan, at, Known::NOTHING);
        flows.push(flow(id, 0, &[], &actions));
    }
    flows
}

fn flow(table: u8, priority: u16, words: &[String], actions: &str) -> String {
    let mut all = vec![format!("table={table}"), format!("priority={priority}")];
    all.extend_from_slice(words);
    format!("{},actions={actions}", all.join(","))
}

/// Flows of one conjunctive match of two or three clauses, and the flow for its packets.
fn conjunction(
    rng: &mut Rng,
    plan: &mut Plan,
    at: usize,
    shape: &Shape,
    priority: u16,
) -> Vec<String> {
    let id = u32::from(priority) + at as u32;
    let table = plan.tables[at];
    let n = rng.range(2, 3);
    let mut flows = Vec::new();
    for clause in 1..=n {
        for _ in 0..rng.range(1, 3) {
            let (words, _) = matches(rng, shape);
            // Clauses that are the same flow would replace each other.
            let text = format!("conjunction({id},{clause}/{n})");
            let line = flow(table, priority, &words, &text);
            let same = line.split(",actions=").next().map(str::to_owned);
            if !flows
                .iter()
                .any(|f: &String| f.split(",actions=").next().map(str::to_owned) == same)
            {
                flows.push(line);
            }
        }
    }
    let actions = actions(rng, plan, at, Known::NOTHING);
    flows.push(flow(table, priority + 1, &[format!("conj_id={id}")], &actions));
    flows
}

/// Gives each flow a cookie of its own, by which its statistics are found.
fn number(flows: &mut [String], first: usize) {
    for (i, flow) in flows.iter_mut().enumerate() {
        *flow = format!("cookie={:#x},{flow}", first + i);
    }
}

/// Changes of the flows in the middle of the traffic.
fn changes(rng: &mut Rng, plan: &mut Plan, shapes: &[Shape], flows: &[String]) -> Vec<String> {
    let mut changes = Vec::new();
    for _ in 0..rng.range(1, 4) {
        let at = rng.below(plan.tables.len());
        let table = plan.tables[at];
        let shape = rng.pick(shapes);
        let (mut words, known) = matches(rng, &shape);
        // That there is no tag is said otherwise in OpenFlow 1.0 and 1.5, and so not found again.
        words.retain(|w| !w.contains("vlan"));
        let known = Known { vlan: false, ..known };
        let words = words.join(",");
        let some = &flows[rng.below(flows.len())];
        let (matched, _) = some.split_once(",actions=").unwrap_or((some, ""));
        // Without the cookie, which would be a filter, or with its mask a whole one.
        let (cookie, matched) = matched.split_once(',').unwrap_or(("", matched));
        let matched = if matched.contains("vlan") { "table=0,priority=9" } else { matched };
        changes.push(match rng.below(6) {
            0 => format!("delete {cookie}/-1"),
            1 => format!("delete {}", format!("table={table},{words}").trim_end_matches(',')),
            2 => format!("delete_strict {matched}"),
            // In OpenFlow 1.0, which these go by, a flow that is modified gets a new cookie, or 0.
            3 => format!("modify_strict {matched},actions=output:{}", rng.range(1, 6)),
            4 => format!("modify table={table},{words},actions=output:{}", rng.range(1, 6)),
            _ => {
                let flow = format!("table={table},priority={},{words}", 10_000 + changes.len());
                let flow = flow.trim_end_matches(',');
                let mut flow = [format!("{flow},actions={}", actions(rng, plan, at, known))];
                number(&mut flow, 0x1000 + changes.len());
                format!("add {}", flow[0])
            }
        });
    }
    changes
}

/// Groups whose choice does not depend on a hash.
fn groups(rng: &mut Rng, plan: &mut Plan) -> Vec<String> {
    let mut out = Vec::new();
    for id in 1..=rng.range(1, 3) as u32 {
        let kind = rng.pick(&["all", "all", "indirect", "ff", "select"]);
        let buckets = match kind {
            "all" | "ff" => rng.range(1, 3),
            _ => 1,
        };
        let mut text = format!("group_id={id},type={kind}");
        if kind == "select" {
            // Left to itself, OVS 3.1 hashes in the datapath and recirculates, and then aborts if the
            // group is in the action set as well.
            text += ",selection_method=hash,fields(eth_src)";
        }
        for _ in 0..buckets {
            let watch = match kind {
                "ff" => format!("watch_port:{},", rng.pick(&PORTS[..6]).1.0),
                _ => String::new(),
            };
            text += &format!(",bucket={watch}actions={}", bucket_actions(rng, plan));
        }
        out.push(text);
        // Groups after this one may use it.
        plan.groups.push(id);
    }
    out
}
