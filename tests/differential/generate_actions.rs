//! Actions of generated flows and groups.

use crate::fields::{FIELDS, Field, Needs};
use crate::generate_match::Known;
use crate::generate_rewrite::*;
use crate::rng::Rng;
use crate::scenario::PORTS;
use crate::vocabulary::*;

/// What actions may refer to, and what kind of actions a scenario is about.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tables in use, in the order in which packets go through them.
    pub tables: Vec<u8>,
    /// Groups that are there.
    pub groups: Vec<u32>,
    /// `learn` and what else changes tables.
    pub learns: bool,
    /// `NORMAL`.
    pub normal: bool,
    /// Jumps back to earlier tables.
    pub loops: bool,
    /// Parts of tags are written.
    pub odd_tags: bool,
    /// The flow being made goes by OpenFlow 1.5: it may have instructions and push tags, but its
    /// actions must suit its match. Otherwise it goes by OpenFlow 1.0 and is the other way round.
    pub modern: bool,
    /// Priorities for learned flows; each is used once.
    pub learn_priority: u16,
    /// Cookie for learned flows; each is used once.
    pub learn_cookie: u64,
}

/// Kinds of actions, by how often they are tried.
const KINDS: &[(usize, Make)] = &[
    (20, output),
    (3, output_cut),
    (4, output_field),
    (3, flood),
    (2, controller),
    (22, set_field),
    (10, load),
    (18, move_field),
    (8, legacy_set),
    (6, push_vlan),
    (6, strip_vlan),
    (5, push_mpls),
    (6, pop_mpls),
    (3, set_mpls),
    (6, dec_ttl),
    (2, set_tunnel),
    (2, queue),
    (10, resubmit),
    (6, group),
    (4, clone_some),
    (4, stack),
    (2, note),
    (4, check_larger),
    (3, multipath),
    (3, bundle),
    (2, fin_timeout),
    (2, sample),
    (6, learn),
    (1, exit),
];

/// Makes one or more actions, or none if it does not apply. The last argument is the depth of
/// nesting.
type Make = fn(&mut Rng, &mut Plan, usize, &mut Known, u8) -> Option<String>;

/// Actions for a flow of table number `at` of the plan.
pub fn actions(rng: &mut Rng, plan: &mut Plan, at: usize, mut known: Known) -> String {
    if rng.chance(4) {
        return "drop".to_owned();
    }
    plan.modern = rng.chance(40);
    let mut list = some(rng, plan, at, &mut known, 5, 0);
    if plan.modern && rng.chance(40) {
        list.extend(instructions(rng, plan, at, &mut known));
        if rng.chance(10) {
            list.insert(0, "meter:1".to_owned());
        }
    } else if rng.chance(85) {
        list.push(match at + 1 < plan.tables.len() && rng.chance(75) {
            true => format!("resubmit(,{})", plan.tables[rng.range(at + 1, plan.tables.len() - 1)]),
            false => format!("output:{}", port(rng)),
        });
    }
    if list.is_empty() { "drop".to_owned() } else { list.join(",") }
}

/// Actions for a bucket, which no match has said anything to.
pub fn bucket_actions(rng: &mut Rng, plan: &mut Plan) -> String {
    let last = plan.tables.len() - 1;
    plan.modern = true;
    let mut list = some(rng, plan, last, &mut Known::NOTHING.clone(), 2, 1);
    list.retain(|a| !a.starts_with("learn") && !a.contains("check_pkt_larger"));
    list.push(format!("output:{}", port(rng)));
    list.join(",")
}

fn some(
    rng: &mut Rng,
    plan: &mut Plan,
    at: usize,
    known: &mut Known,
    most: usize,
    depth: u8,
) -> Vec<String> {
    let mut list = Vec::new();
    for _ in 0..rng.below(most + 1) {
        let make = rng.weighted(KINDS);
        list.extend(make(rng, plan, at, known, depth));
    }
    list
}

/// What comes after all actions, in the order in which it must be.
fn instructions(rng: &mut Rng, plan: &mut Plan, at: usize, known: &mut Known) -> Vec<String> {
    let mut list = Vec::new();
    if rng.chance(15) {
        list.push("clear_actions".to_owned());
    }
    if rng.chance(70) {
        let mut set = Vec::new();
        for _ in 0..rng.range(1, 4) {
            let make: Make = rng.pick(&[
                output as Make,
                set_field,
                push_vlan,
                strip_vlan,
                dec_ttl,
                group,
                push_mpls,
                output,
            ]);
            set.extend(make(rng, plan, at, known, 1));
        }
        if !set.is_empty() {
            list.push(format!("write_actions({})", set.join(",")));
        }
    }
    if rng.chance(20) {
        let mask = rng.pick(&["", "/0xff", "/0xffffffff00000000"]);
        list.push(format!("write_metadata:{:#x}{mask}", rng.pick(&NUMBERS)));
    }
    if at + 1 < plan.tables.len() && rng.chance(80) {
        let table = plan.tables[rng.range(at + 1, plan.tables.len() - 1)];
        list.push(format!("goto_table:{table}"));
    }
    list
}

fn port(rng: &mut Rng) -> String {
    match rng.below(20) {
        0 => "in_port".to_owned(),
        1 => "77".to_owned(),
        _ => rng.pick(&PORTS).1.to_string(),
    }
}

fn output(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    Some(format!("output:{}", port(rng)))
}

fn output_cut(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let len = rng.pick(&[14, 15, 20, 34, 42, 60, 100, 1000]);
    Some(format!("output(port={},max_len={len})", rng.pick(&PORTS).1))
}

/// The register is set first, or the port would be none most times.
fn output_field(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let port = rng.range(1, 7);
    Some(format!("load:{port}->NXM_NX_REG2[4..19],output:NXM_NX_REG2[4..19]"))
}

fn flood(rng: &mut Rng, plan: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let word = rng.pick(&["flood", "all", "local", "in_port", "normal", "normal"]);
    (word != "normal" || plan.normal).then(|| word.to_owned())
}

fn controller(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    Some(
        rng.pick(&["controller", "controller(max_len=64)", "controller(reason=action,id=1)"])
            .into(),
    )
}

fn set_tunnel(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    Some(match rng.chance(50) {
        true => format!("set_tunnel:{:#x}", rng.pick(&[1, 2, 0xffff_ffffu32])),
        false => format!("set_tunnel64:{:#x}", rng.pick(&NUMBERS)),
    })
}

fn queue(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    Some(match rng.below(3) {
        0 => format!("set_queue:{}", rng.below(3)),
        1 => "pop_queue".to_owned(),
        _ => format!("enqueue({},{})", rng.pick(&PORTS).1, rng.below(3)),
    })
}

fn resubmit(rng: &mut Rng, plan: &mut Plan, at: usize, known: &mut Known, _: u8) -> Option<String> {
    let from = if plan.loops && rng.chance(30) { 0 } else { at + 1 };
    if from >= plan.tables.len() {
        return None;
    }
    let table = plan.tables[rng.range(from, plan.tables.len() - 1)];
    // Whatever is done there, the packet comes back another.
    *known = Known { vlan: known.vlan, ..*known };
    Some(match rng.below(5) {
        0 => format!("resubmit({},{table})", rng.pick(&PORTS).1),
        1 if plan.loops => format!("resubmit:{}", rng.pick(&PORTS).1),
        _ => format!("resubmit(,{table})"),
    })
}

fn group(rng: &mut Rng, plan: &mut Plan, _: usize, _: &mut Known, depth: u8) -> Option<String> {
    (!plan.groups.is_empty() && depth < 2).then(|| format!("group:{}", rng.pick(&plan.groups)))
}

fn clone_some(
    rng: &mut Rng,
    plan: &mut Plan,
    at: usize,
    known: &mut Known,
    depth: u8,
) -> Option<String> {
    if depth > 1 {
        return None;
    }
    let inner = some(rng, plan, at, &mut known.clone(), 3, depth + 1);
    Some(format!("clone({})", [inner, vec![format!("output:{}", port(rng))]].concat().join(",")))
}

fn stack(
    rng: &mut Rng,
    plan: &mut Plan,
    at: usize,
    known: &mut Known,
    depth: u8,
) -> Option<String> {
    let readable: Vec<&Field> =
        FIELDS.iter().filter(|f| !f.nxm.is_empty() && known.allows(f.needs)).collect();
    let from = rng.pick(&readable);
    let (text, width) = part(rng, from, None)?;
    let between = match depth {
        0 => some(rng, plan, at, &mut known.clone(), 1, 1),
        _ => Vec::new(),
    };
    let to = crate::fields::field(rng.pick(&["reg0", "reg1", "dl_src", "dl_dst", "xreg1"]));
    let width = if rng.chance(80) { width.min(usize::from(to.bits)) } else { 8 };
    let (to, _) = part(rng, to, Some(width))?;
    let mut list = vec![format!("push:{text}")];
    // What is between must not change what the fields are allowed for.
    list.extend(between.into_iter().filter(|a| a.starts_with("output") || a.starts_with("note")));
    list.push(format!("pop:{to}"));
    Some(list.join(","))
}

fn note(_: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    Some("note:01.02.03".to_owned())
}

fn check_larger(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let len = rng.pick(&[14, 42, 59, 60, 61, 100, 1500]);
    let bit = rng.below(4);
    Some(format!(
        "check_pkt_larger({len})->NXM_NX_REG0[{bit}],move:NXM_NX_REG0[0..7]->NXM_OF_ETH_SRC[0..7]"
    ))
}

/// One link, so that the hash does not matter.
fn multipath(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let fields = rng.pick(&["eth_src", "symmetric_l4", "symmetric_l3l4", "nw_src", "symmetric_l3"]);
    let algorithm = rng.pick(&["modulo_n", "hash_threshold", "hrw", "iter_hash"]);
    Some(format!("multipath({fields},{},{algorithm},1,0,NXM_NX_REG1[0..7])", rng.below(100)))
}

/// One member, or the first that is there.
fn bundle(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let port = rng.pick(&PORTS).1;
    Some(match rng.below(3) {
        0 => format!("bundle(eth_src,0,hrw,ofport,members:{port})"),
        1 => format!("bundle(symmetric_l4,7,active_backup,ofport,members:77,{port},1)"),
        _ => format!("bundle_load(nw_src,0,hrw,ofport,NXM_NX_REG0[0..15],members:{port})"),
    })
}

fn fin_timeout(rng: &mut Rng, _: &mut Plan, _: usize, known: &mut Known, _: u8) -> Option<String> {
    let idle = rng.pick(&[100, 200]);
    known.allows(Needs::Tcp).then(|| format!("fin_timeout(idle_timeout={idle},hard_timeout=300)"))
}

fn sample(rng: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    let probability = rng.pick(&[1, 65535]);
    Some(format!(
        "sample(probability={probability},collector_set_id=1,obs_domain_id=2,obs_point_id=3)"
    ))
}

fn exit(_: &mut Rng, _: &mut Plan, _: usize, _: &mut Known, _: u8) -> Option<String> {
    Some("exit".to_owned())
}

/// Teaches a later table something about the packet's sender.
fn learn(rng: &mut Rng, plan: &mut Plan, at: usize, known: &mut Known, _: u8) -> Option<String> {
    if !plan.learns || at + 1 >= plan.tables.len() {
        return None;
    }
    plan.learn_priority += 1;
    plan.learn_cookie += 1;
    let table = plan.tables[rng.range(at + 1, plan.tables.len() - 1)];
    let mut parts = vec![
        format!("table={table}"),
        format!("priority={}", plan.learn_priority),
        format!("cookie={:#x}", plan.learn_cookie),
    ];
    if rng.chance(30) {
        parts.push(format!("limit={}", rng.range(1, 3)));
        if rng.chance(50) {
            parts.push("result_dst=NXM_NX_REG0[8]".to_owned());
        }
    }
    if rng.chance(20) {
        parts.push("idle_timeout=100,hard_timeout=200".to_owned());
    }
    parts.extend(learn_specs(rng, known));
    Some(format!("learn({})", parts.join(",")))
}

fn learn_specs(rng: &mut Rng, known: &Known) -> Vec<String> {
    let mut specs = vec![
        rng.pick(&[
            "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]",
            "NXM_OF_ETH_SRC[]",
            "NXM_OF_VLAN_TCI[0..11]",
            "NXM_OF_ETH_DST[0..15]=NXM_OF_ETH_SRC[0..15]",
            "NXM_NX_REG1[]=NXM_NX_REG0[]",
            "NXM_OF_IN_PORT[]",
            "reg15=0x1",
        ])
        .to_owned(),
    ];
    if known.allows(Needs::Ipv4) && rng.chance(50) {
        specs.push("eth_type=0x800".to_owned());
        specs.push(
            rng.pick(&["NXM_OF_IP_DST[]=NXM_OF_IP_SRC[]", "NXM_OF_IP_SRC[]", "nw_src=10.0.0.1"])
                .to_owned(),
        );
    }
    if known.allows(Needs::Tcp) && rng.chance(50) && specs.len() > 1 {
        specs.push("nw_proto=6,NXM_OF_TCP_DST[]=NXM_OF_TCP_SRC[]".to_owned());
    }
    if rng.chance(50) {
        specs.push(
            rng.pick(&[
                "load:NXM_OF_ETH_SRC[0..31]->NXM_NX_REG0[]",
                "load:0x5->NXM_NX_REG1[]",
                "load:NXM_OF_IN_PORT[]->NXM_NX_REG0[0..15]",
                "load:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
            ])
            .to_owned(),
        );
    }
    specs.push("output:NXM_OF_IN_PORT[]".to_owned());
    specs
}
