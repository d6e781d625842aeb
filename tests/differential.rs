//! The same flow tables and the same packets given to Debian's Open vSwitch and to this switch: the
//! same frames come out of the same ports, and the same flows count them.
//!
//! Scenarios are generated from seeds. `DIFFERENTIAL_CASES` says how many (60 unless told),
//! `DIFFERENTIAL_SEED` where to begin. A failure prints the smallest scenario that still fails.

#[path = "differential/bench.rs"]
mod bench;
#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/conjunctions.rs"]
mod conjunctions;
#[path = "differential/fields.rs"]
mod fields;
#[path = "differential/generate_actions.rs"]
mod generate_actions;
#[path = "differential/generate_match.rs"]
mod generate_match;
#[path = "differential/generate_packet.rs"]
mod generate_packet;
#[path = "differential/generate_rewrite.rs"]
mod generate_rewrite;
#[path = "differential/generate_table.rs"]
mod generate_table;
#[path = "differential/known.rs"]
mod known;
#[path = "differential/megaflow.rs"]
mod megaflow;
#[path = "differential/minimise.rs"]
mod minimise;
#[path = "differential/multicast.rs"]
mod multicast;
#[path = "differential/ours.rs"]
mod ours;
#[path = "differential/ovs.rs"]
mod ovs;
#[path = "differential/ports.rs"]
mod ports;
#[path = "differential/rng.rs"]
mod rng;
#[path = "differential/scenario.rs"]
mod scenario;
#[path = "differential/vocabulary.rs"]
mod vocabulary;

use bench::Bench;
use scenario::{Input, Scenario, bytes, hex};

/// Scenarios, unless `DIFFERENTIAL_CASES` says otherwise.
const CASES: u64 = 60;
/// Packets of each.
const PACKETS: usize = 60;
/// Packets of each that are traced: a trace takes OVS some milliseconds.
const TRACED: usize = 10;
/// Failures explained before the test gives up: each takes some seconds to make small.
const EXPLAINED: u64 = 5;

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(default, |t| t.parse().unwrap_or_else(|e| panic!("{name}={t}: {e}")))
}

/// Generated tables, generated packets.
#[test]
fn same_frames_and_same_statistics() {
    let first = setting("DIFFERENTIAL_SEED", 1);
    let cases = setting("DIFFERENTIAL_CASES", CASES);
    let mut bench = Bench::default();
    let (mut failed, mut packets, mut forwarded, mut flows, mut hit) = (Vec::new(), 0, 0, 0, 0);
    for seed in first..first + cases {
        let scenario = generate_table::scenario(seed, PACKETS);
        let outcome = bench.compare(&scenario).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        let Some(outcome) = outcome else {
            println!("seed {seed}: OVS ended by itself");
            continue;
        };
        packets += outcome.theirs.outputs.len();
        forwarded += outcome.theirs.outputs.iter().filter(|o| !o.is_empty()).count();
        flows += outcome.ran.flows.len();
        hit += outcome.theirs.counts.values().filter(|c| c.0 > 0).count();
        if let Some(difference) = outcome.difference {
            failed.push((scenario, difference));
        }
    }
    println!(
        "{cases} tables with {flows} flows, {hit} of them hit; {packets} packets, {forwarded} of \
         them forwarded, {} withheld; OVS ended by itself {} times",
        bench.withheld, bench.aborts
    );
    let explained = setting("DIFFERENTIAL_EXPLAIN", EXPLAINED) as usize;
    for (scenario, difference) in failed.iter().take(explained) {
        let story = bench.explain(scenario, difference);
        println!("{}", story.unwrap_or_else(|e| format!("seed {}: {e:?}", scenario.seed)));
    }
    let seeds: Vec<u64> = failed.iter().map(|(s, _)| s.seed).collect();
    assert!(failed.is_empty(), "{} of {cases} scenarios differ; seeds {seeds:?}", failed.len());
    assert!(bench.aborts as u64 <= cases / 20 + 1, "OVS ended too often to be of use");
}

/// Each known difference is what `known.rs` says that it is.
#[test]
fn known_differences_are_as_listed() {
    let mut bench = Bench::default();
    for known in known::KNOWN {
        let scenario = Scenario {
            seed: 0,
            groups: Vec::new(),
            flows: (1..).zip(known.flows).map(|(i, f)| format!("cookie={i},{f}")).collect(),
            changes: Vec::new(),
            stateful: false,
            inputs: vec![Input { port: 0, frame: bytes(known.packet) }],
        };
        let theirs = bench.ovs().and_then(|ovs| ovs.run(&scenario)).expect(known.why);
        let ours = ours::Ours::load(&scenario).and_then(|o| o.run(&scenario)).expect(known.why);
        let met = ours.withheld.clone();
        let sent = |o: scenario::Observed| o.outputs[0].get(&1).cloned().unwrap_or_default();
        let hex = |frames: Vec<Vec<u8>>| frames.iter().map(|f| hex(f)).collect::<Vec<_>>();
        let listed = |frames: &str| frames.split_whitespace().map(bytes).collect();
        assert_eq!(hex(sent(theirs)), hex(listed(known.theirs)), "OVS: {}", known.why);
        assert_eq!(hex(sent(ours)), hex(listed(known.ours)), "here: {}", known.why);
        assert!(met.contains(&0), "the example meets it: {}", known.why);
    }
}

/// What `ofproto/trace` says of the same packets: the same steps of datapath actions, and megaflows that
/// look at no more bits of a packet.
///
/// Which bits tell a packet from a flow that it does not match is a matter of choice where several would
/// do, and the order of OVS's tables is not known here. So it is the number of bits that is compared,
/// and one packet in a hundred may have more.
#[test]
fn same_steps_and_no_narrower_megaflows() {
    let first = setting("DIFFERENTIAL_SEED", 1);
    let cases = setting("DIFFERENTIAL_CASES", CASES);
    let mut bench = Bench::default();
    let mut sums = bench::Megaflows::default();
    for seed in first..first + cases {
        let scenario = generate_table::scenario(seed, TRACED);
        let compared = bench.compare_megaflows(&scenario, &mut sums);
        compared.unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
    }
    println!(
        "{} packets: {} megaflows are wider than OVS's, {} are narrower, {} differ in steps",
        sums.packets,
        sums.wider,
        sums.narrower.len(),
        sums.steps.len()
    );
    assert!(sums.packets > 2 * cases, "too few to tell");
    assert!(sums.steps.is_empty(), "{}", sums.steps.join("\n"));
    let allowed = sums.packets as usize / 100;
    assert!(sums.narrower.len() <= allowed, "{}", sums.narrower.join("\n"));
}
