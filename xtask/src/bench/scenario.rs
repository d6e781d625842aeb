//! What is measured: a table of scenarios, each of which differs from the base case in one respect or two.

use serde::Serialize;

/// Kinds of virtio ring and receive buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ring {
    /// Split, a frame in one buffer.
    Split,
    /// Split, a frame in as many buffers as it takes: what QEMU's guests use.
    SplitMergeable,
    /// Packed, mergeable.
    Packed,
}

/// Microflows of each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flows {
    /// Each in turn.
    Uniform(u32),
    /// Drawn by popularity.
    Zipf(u32),
}

impl Flows {
    /// How many.
    pub fn count(self) -> u32 {
        match self {
            Flows::Uniform(count) | Flows::Zipf(count) => count,
        }
    }
}

/// What the switch is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// One flow: NORMAL.
    Normal,
    /// One flow for each port: to the other.
    PortToPort,
    /// Ten tables, each of which looks at something else.
    TenTables,
    /// As many OpenFlow flows and so megaflows each way, all with one mask; without exact-match cache.
    Megaflows(u32),
    /// As many masks in use each way; without exact-match cache.
    Masks(u32),
}

impl Table {
    /// Whether the switches' exact-match caches are used.
    pub fn exact_match(self) -> bool {
        !matches!(self, Table::Megaflows(_) | Table::Masks(_))
    }

    /// Whether DPDK's forwarder without flows is to be compared.
    fn has_floor(self) -> bool {
        matches!(self, Table::Normal | Table::PortToPort)
    }
}

/// How frames come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// Sent again as soon as the switch has taken them.
    Saturating,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scenario {
    /// Names it on the command line and in results.
    pub name: &'static str,
    /// The plot or table it belongs to.
    pub group: Group,
    /// Frame length in bytes, without frame check sequence.
    pub frame_bytes: u16,
    /// Microflows.
    pub flows: Flows,
    /// Flow table.
    pub table: Table,
    /// Rings.
    pub ring: Ring,
    /// Queue pairs of each busy port, all on one polling thread.
    pub queues: u16,
    /// Whether both guests send.
    pub both_ways: bool,
    /// Connected ports, of which two are busy.
    pub ports: u16,
    /// How frames come.
    pub pace: Pace,
    /// Part of a run without `--all`.
    pub headline: bool,
    /// What the first system is to reach: times the packets per second of OVS-DPDK.
    pub target_ratio: Option<f64>,
}

/// Where a scenario is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Ring kinds at 64 bytes.
    Rings,
    /// Frame lengths.
    Frames,
    /// Microflows, uniform and zipf.
    Flows,
    /// Megaflow masks.
    Masks,
    /// Ports, two of them busy.
    Ports,
    /// What does not fit elsewhere.
    Others,
}

/// What the others differ from.
const BASE: Scenario = Scenario {
    name: "64b",
    group: Group::Rings,
    frame_bytes: 64,
    flows: Flows::Uniform(1),
    table: Table::Normal,
    ring: Ring::SplitMergeable,
    queues: 1,
    both_ways: true,
    ports: 2,
    pace: Pace::Saturating,
    headline: true,
    target_ratio: Some(3.0),
};

/// All scenarios.
pub const ALL: &[Scenario] = &[
    BASE,
    Scenario { name: "64b-split", ring: Ring::Split, ..BASE },
    Scenario { name: "64b-packed", ring: Ring::Packed, ..BASE },
];

/// The outside check, which has a module of its own.
pub const TESTPMD: Scenario =
    Scenario { name: "testpmd", group: Group::Others, target_ratio: Some(1.5), ..BASE };

impl Scenario {
    /// Whether DPDK's forwarder without a switch does the same work.
    pub fn has_floor(&self) -> bool {
        self.table.has_floor() && self.queues == 1 && self.ports == 2
    }
}
