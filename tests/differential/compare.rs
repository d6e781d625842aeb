//! Where two switches did not do the same.

use crate::scenario::{Observed, Scenario, hex, show};
use std::collections::BTreeMap;
use std::fmt;

/// Words of ovs-ofctl for flows that it cannot send in the version of OpenFlow that it is told to
/// use. They are no judgement of the flow.
const NOT_SENDABLE: [&str; 2] = ["usable flow formats", "Invalid value for set field"];

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A flow that only one of them takes, and why the other does not.
    Refused { flow: usize, by: &'static str, why: String },
    /// What came out for a packet.
    Output { packet: usize },
    /// The statistics of the flows with a cookie: packets and bytes, OVS's and ours.
    Counts { cookie: u64, theirs: (u64, u64), ours: (u64, u64) },
    /// Flows that packets added.
    Learned { theirs: Vec<String>, ours: Vec<String> },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Refused { flow, by, why } => {
                write!(f, "flow {flow} refused by {by}: {why}")
            }
            Difference::Output { packet } => write!(f, "output of packet {packet}"),
            Difference::Counts { cookie, theirs, ours } => {
                write!(f, "packets and bytes of flow {cookie:#x}: OVS {theirs:?}, here {ours:?}")
            }
            Difference::Learned { theirs, ours } => {
                writeln!(f, "learned flows: OVS")?;
                theirs.iter().try_for_each(|l| writeln!(f, "    {l}"))?;
                writeln!(f, "  here")?;
                ours.iter().try_for_each(|l| writeln!(f, "    {l}"))
            }
        }
    }
}

impl Difference {
    /// What kind of difference, for a minimised scenario to have the same.
    pub fn kind(&self) -> u8 {
        match self {
            Difference::Refused { .. } => 0,
            Difference::Output { .. } => 1,
            Difference::Counts { .. } => 2,
            Difference::Learned { .. } => 3,
        }
    }
}

/// The first flow, or change, that only one of them refuses.
pub fn refusals(
    theirs: &BTreeMap<usize, String>,
    ours: &BTreeMap<usize, String>,
) -> Option<Difference> {
    let only = |a: &BTreeMap<usize, String>, b: &BTreeMap<usize, String>, by| {
        let judged = |why: &str| !NOT_SENDABLE.iter().any(|w| why.contains(w));
        let mut only = a.iter().filter(|(i, why)| !b.contains_key(i) && judged(why));
        only.next().map(|(i, w)| Difference::Refused { flow: *i, by, why: w.clone() })
    };
    only(ours, theirs, "us").or_else(|| only(theirs, ours, "OVS"))
}

/// The first difference in what came out, in the flows' statistics, and in the flows learned.
pub fn first(theirs: &Observed, ours: &Observed) -> Option<Difference> {
    if let Some(difference) = refusals(&theirs.refused, &ours.refused) {
        return Some(difference);
    }
    let pairs = theirs.outputs.iter().zip(&ours.outputs);
    if let Some(packet) = pairs.into_iter().position(|(t, o)| t != o) {
        return Some(Difference::Output { packet });
    }
    if theirs.learned != ours.learned {
        let (theirs, ours) = (theirs.learned.clone(), ours.learned.clone());
        return Some(Difference::Learned { theirs, ours });
    }
    if ours.uncounted {
        return None;
    }
    for cookie in theirs.counts.keys().chain(ours.counts.keys()) {
        let of = |o: &Observed| o.counts.get(cookie).copied().unwrap_or_default();
        let (theirs, ours) = (of(theirs), of(ours));
        if theirs != ours {
            return Some(Difference::Counts { cookie: *cookie, theirs, ours });
        }
    }
    None
}

/// The whole story of a failure.
pub fn report(
    scenario: &Scenario,
    difference: &Difference,
    theirs: &Observed,
    ours: &Observed,
    traces: &[(usize, String, String)],
) -> String {
    let mut out = format!("seed {}: {difference}\n", scenario.seed);
    if let Difference::Refused { flow, .. } = difference {
        out += &format!("  {}\n", scenario.flows.get(*flow).map_or("a change", |f| f));
        return out;
    }
    for line in scenario.groups.iter().chain(&scenario.flows).chain(&scenario.changes) {
        out += &format!("  {line}\n");
    }
    for (i, input) in scenario.inputs.iter().enumerate() {
        let port = crate::scenario::PORTS[input.port].0;
        out += &format!("  packet {i} by {port}: {}\n", hex(&input.frame));
        for (time, at) in [i, i + scenario.inputs.len()].into_iter().enumerate() {
            if let (Some(t), Some(o)) = (theirs.outputs.get(at), ours.outputs.get(at)) {
                let when = ["", " after the changes"][time];
                out += &format!("   OVS{when}:\n{}   here:\n{}", show(t), show(o));
            }
        }
    }
    for (packet, theirs, ours) in traces {
        out += &format!("  OVS traces packet {packet}:\n{theirs}\n  here:\n{ours}\n");
    }
    out
}
