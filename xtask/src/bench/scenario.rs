//! What is measured: a table of scenarios, each of which differs from the base case in one respect or two.

use serde::Serialize;

use super::settings::Settings;

/// What is at the other side of a busy port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// A guest on a vhost-user port.
    Guest,
    /// A wire at an AF_XDP port: a veth pair, at whose far end is an AF_XDP socket too.
    Nic,
}

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

/// What guests leave to the switch, and take from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// Nothing: frames are whole.
    None,
    /// Checksums.
    Checksums,
    /// Checksums and super-frames, which both guests send and take.
    SuperFrames,
    /// As before, but the receivers take whole frames only: super-frames are cut by this switch. OVS-DPDK 3.1 gives
    /// them whole, over as many buffers as that takes, so the two do not do the same work.
    Cut,
}

/// How frames come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// Sent again as soon as the switch has taken them.
    Saturating,
    /// At one rate after another, in bursts of so many frames; latency is measured.
    Paced {
        /// Frames that are due at the same time.
        burst: u32,
    },
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scenario {
    /// Names it on the command line and in results.
    pub name: &'static str,
    /// The plot or table it belongs to.
    pub group: Group,
    /// What sends and receives: the first sends always, the second if both do.
    pub ends: [End; 2],
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
    /// Connected ports.
    pub ports: u16,
    /// How many of them are busy, in pairs: two, or more where all ends are guests.
    pub busy: u16,
    /// Offloads.
    pub offload: Offload,
    /// What is set on the busy ports.
    pub settings: Settings,
    /// Whether guests write each frame's headers and read those of what they get, as programs do; else their cache lines
    /// stay with the switch.
    pub touched: bool,
    /// How frames come.
    pub pace: Pace,
    /// Part of a run without `--all`.
    pub headline: bool,
    /// What this switch is to reach: times the packets per second of OVS-DPDK.
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
    /// Latency against offered load.
    Latency,
    /// Bursts and pauses at some offered loads.
    Bursts,
    /// What settings of the busy ports cost.
    Settings,
    /// What does not fit elsewhere.
    Others,
}

/// What the others differ from.
const BASE: Scenario = Scenario {
    name: "64b",
    group: Group::Rings,
    ends: [End::Guest; 2],
    frame_bytes: 64,
    flows: Flows::Uniform(1),
    table: Table::Normal,
    ring: Ring::SplitMergeable,
    queues: 1,
    both_ways: true,
    ports: 2,
    busy: 2,
    offload: Offload::None,
    settings: Settings::Plain,
    touched: false,
    pace: Pace::Saturating,
    headline: true,
    target_ratio: Some(3.0),
};

/// Not part of a run without `--all`, and without a target.
const MORE: Scenario = Scenario { headline: false, target_ratio: None, ..BASE };

const fn frames(name: &'static str, frame_bytes: u16) -> Scenario {
    Scenario { name, group: Group::Frames, frame_bytes, ..MORE }
}

const fn flows(name: &'static str, flows: Flows) -> Scenario {
    Scenario { name, group: Group::Flows, flows, ..MORE }
}

const fn masks(name: &'static str, masks: u32) -> Scenario {
    let (flows, table) = (Flows::Uniform(masks), Table::Masks(masks));
    Scenario { name, group: Group::Masks, flows, table, ..MORE }
}

const fn ports(name: &'static str, ports: u16) -> Scenario {
    Scenario { name, group: Group::Ports, ports, ..MORE }
}

const fn paced(name: &'static str, burst: u32) -> Scenario {
    // One way, so that what is sent is known to be what should come.
    Scenario { name, group: Group::Latency, pace: Pace::Paced { burst }, both_ways: false, ..MORE }
}

const fn bursts(name: &'static str, burst: u32) -> Scenario {
    Scenario { group: Group::Bursts, ..paced(name, burst) }
}

const fn settings(name: &'static str, frame_bytes: u16, settings: Settings) -> Scenario {
    Scenario { name, group: Group::Settings, frame_bytes, settings, ..MORE }
}

const fn nics(name: &'static str, ends: [End; 2], target: f64) -> Scenario {
    let (group, target_ratio) = (Group::Others, Some(target));
    // One way, so that what a wire takes is known to be what the other should get.
    Scenario { name, group, ends, both_ways: false, target_ratio, ..MORE }
}

/// Ethernet, IPv4 and TCP headers, and as much payload as Linux puts into a super-frame of TCP over Ethernet.
const SUPER_FRAME: u16 = 66 + 45 * 1448;

/// All scenarios.
pub const ALL: &[Scenario] = &[
    BASE,
    Scenario { name: "64b-split", ring: Ring::Split, ..BASE },
    Scenario { name: "64b-packed", ring: Ring::Packed, ..BASE },
    Scenario { group: Group::Others, touched: true, headline: true, ..frames("64b-touched", 64) },
    Scenario {
        group: Group::Others,
        flows: Flows::Uniform(1000),
        table: Table::Megaflows(1000),
        headline: true,
        target_ratio: Some(2.5),
        ..frames("megaflows-1000", 64)
    },
    frames("256b", 256),
    Scenario { headline: true, target_ratio: Some(2.0), ..frames("1500b", 1500) },
    frames("9000b", 9000),
    Scenario { offload: Offload::Checksums, ..frames("1500b-csum", 1500) },
    Scenario {
        offload: Offload::SuperFrames,
        headline: true,
        target_ratio: Some(2.0),
        ..frames("64k-tso", SUPER_FRAME)
    },
    Scenario { offload: Offload::Cut, ..frames("64k-cut", SUPER_FRAME) },
    flows("flows-64", Flows::Uniform(64)),
    flows("flows-1000", Flows::Uniform(1000)),
    flows("flows-10k", Flows::Uniform(10_000)),
    flows("flows-100k", Flows::Uniform(100_000)),
    flows("flows-1m", Flows::Uniform(1_000_000)),
    flows("zipf-64", Flows::Zipf(64)),
    flows("zipf-1000", Flows::Zipf(1000)),
    flows("zipf-10k", Flows::Zipf(10_000)),
    flows("zipf-100k", Flows::Zipf(100_000)),
    flows("zipf-1m", Flows::Zipf(1_000_000)),
    masks("masks-1", 1),
    masks("masks-2", 2),
    masks("masks-4", 4),
    masks("masks-8", 8),
    masks("masks-16", 16),
    masks("masks-32", 32),
    masks("masks-64", 64),
    masks("masks-128", 128),
    Scenario { group: Group::Others, queues: 2, ..frames("queues-2", 64) },
    Scenario { group: Group::Others, both_ways: false, ..frames("one-way", 64) },
    Scenario { group: Group::Others, table: Table::PortToPort, ..frames("port-to-port", 64) },
    Scenario { group: Group::Others, table: Table::TenTables, ..frames("ten-tables", 64) },
    settings("64b-access", 64, Settings::Access),
    settings("64b-policed", 64, Settings::Policed),
    settings("64b-mirrored", 64, Settings::Mirrored),
    settings("1500b-mirrored", 1500, Settings::Mirrored),
    settings("64b-captured", 64, Settings::Captured),
    nics("nic-nic", [End::Nic, End::Nic], 1.5),
    Scenario { settings: Settings::Shared, ..nics("nic-nic-shared", [End::Nic, End::Nic], 1.5) },
    Scenario { frame_bytes: 1500, ..nics("nic-nic-1500b", [End::Nic, End::Nic], 1.5) },
    Scenario {
        frame_bytes: 1500,
        settings: Settings::Shared,
        ..nics("nic-nic-1500b-shared", [End::Nic, End::Nic], 1.5)
    },
    nics("guest-nic", [End::Guest, End::Nic], 2.0),
    nics("nic-guest", [End::Nic, End::Guest], 2.0),
    ports("ports-8", 8),
    ports("ports-32", 32),
    Scenario { headline: true, ..ports("ports-128", 128) },
    Scenario { group: Group::Others, ports: 14, busy: 14, ..frames("guests-14", 64) },
    Scenario {
        group: Group::Others,
        ports: 14,
        busy: 14,
        touched: true,
        ..frames("guests-14-touched", 64)
    },
    Scenario { headline: true, ..paced("latency", 1) },
    paced("latency-bursts", 64),
    bursts("bursts-1", 1),
    bursts("bursts-4", 4),
    bursts("bursts-32", 32),
];

/// The outside check, which has a module of its own.
pub const TESTPMD: Scenario =
    Scenario { name: "testpmd", group: Group::Others, target_ratio: Some(1.5), ..BASE };

impl Scenario {
    /// Whether DPDK's forwarder without a switch does the same work.
    pub fn has_floor(&self) -> bool {
        let same_work = self.table.has_floor() && self.flows == Flows::Uniform(1);
        let guests = self.ends == [End::Guest; 2];
        let same_work = same_work && self.settings == Settings::Plain;
        same_work && guests && self.queues == 1 && self.ports == 2 && self.offload == Offload::None
    }

    /// The scenario that differs from it in having no settings, if it has some.
    pub fn plain(&self) -> Option<&'static Scenario> {
        let plain = |s: &&Scenario| {
            let Scenario { name, group, headline, target_ratio, .. } = **s;
            let without = Scenario { settings: Settings::Plain, ..*self };
            **s == Scenario { name, group, headline, target_ratio, ..without }
        };
        if self.settings == Settings::Plain { None } else { ALL.iter().find(plain) }
    }

    /// Bytes of the frames that arrive.
    pub fn arriving_bytes(&self) -> u16 {
        match self.offload {
            Offload::Cut => 66 + 1448,
            _ => self.frame_bytes,
        }
    }

    /// In words: what differs from the base case.
    pub fn describe(&self) -> String {
        let mut words = vec![format!("{} bytes", self.frame_bytes)];
        match self.flows {
            Flows::Uniform(1) => {}
            Flows::Uniform(n) => words.push(format!("{n} flows each way")),
            Flows::Zipf(n) => words.push(format!("{n} flows each way, zipf")),
        }
        words.push(match self.table {
            Table::Normal => "NORMAL".to_owned(),
            Table::PortToPort => "port to port".to_owned(),
            Table::TenTables => "ten tables".to_owned(),
            Table::Megaflows(n) => format!("{n} megaflows of one mask, no exact-match cache"),
            Table::Masks(n) => format!("{n} megaflow masks, no exact-match cache"),
        });
        words.push(match self.ring {
            Ring::Split => "split rings".to_owned(),
            Ring::SplitMergeable => "split mergeable rings".to_owned(),
            Ring::Packed => "packed rings".to_owned(),
        });
        match self.ends {
            [End::Guest, End::Guest] => {}
            [End::Nic, End::Nic] => words.push("AF_XDP to AF_XDP".to_owned()),
            [End::Guest, End::Nic] => words.push("guest to AF_XDP".to_owned()),
            [End::Nic, End::Guest] => words.push("AF_XDP to guest".to_owned()),
        }
        if self.queues > 1 {
            words.push(format!("{} queues", self.queues));
        }
        words.push(if self.both_ways { "both ways" } else { "one way" }.to_owned());
        match self.offload {
            Offload::None => {}
            Offload::Checksums => words.push("checksums left to do".to_owned()),
            Offload::SuperFrames => words.push("super-frames of TCP".to_owned()),
            Offload::Cut => words.push(
                "super-frames of TCP to guests that take none, which OVS-DPDK 3.1 gives them all the same; \
                 packets are buffers, and most super-frames find too few of them"
                    .to_owned(),
            ),
        }
        words.extend(self.settings.describe().map(str::to_owned));
        if self.touched {
            words.push("guests write and read headers".to_owned());
        }
        if self.ports > 2 {
            words.push(format!("{} ports, {} of them busy", self.ports, self.busy));
        }
        match self.pace {
            Pace::Saturating => {}
            Pace::Paced { burst: 1 } => words.push("latency by offered load".to_owned()),
            Pace::Paced { burst } => {
                words.push(format!("latency by offered load, bursts of {burst}"))
            }
        }
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_with_settings_have_one_without_to_compare_with() {
        let plain = |name: &str| ALL.iter().find(|s| s.name == name)?.plain().map(|s| s.name);
        assert_eq!(plain("64b-mirrored"), Some("64b"));
        assert_eq!(plain("1500b-mirrored"), Some("1500b"));
        assert_eq!(plain("64b"), None);
        let with = ALL.iter().filter(|s| s.settings != Settings::Plain);
        assert!(with.into_iter().all(|s| s.plain().is_some()));
    }
}
