//! One case: flow tables, groups and packets, and what came out.

use openflow::OfPort;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The ports of the bridge on both sides: name, OpenFlow number, datapath number.
pub const PORTS: [(&str, OfPort, u32); 7] = [
    ("p1", OfPort(1), 1),
    ("p2", OfPort(2), 2),
    ("p3", OfPort(3), 3),
    ("p4", OfPort(4), 4),
    ("p5", OfPort(5), 5),
    ("p6", OfPort(6), 6),
    ("br0", OfPort::LOCAL, 100),
];

/// The port whose link is down, as an index into [`PORTS`]. Groups and bundles pass it over; packets are sent
/// to it all the same.
pub const DOWN: usize = 5;
/// The meter that there is. Nothing exceeds it.
pub const METER: &str = "meter=1,pktps,band=type=drop,rate=1000000";

/// A frame and the port that it comes in by, as an index into [`PORTS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Index into [`PORTS`].
    pub port: usize,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

/// The frames that one packet caused, by port (index into [`PORTS`]), in the order of each port.
pub type Outputs = BTreeMap<usize, Vec<Vec<u8>>>;

/// What is loaded into both switches and sent through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Makes it again.
    pub seed: u64,
    /// Groups, as `ovs-ofctl add-group` reads them.
    pub groups: Vec<String>,
    /// Flows, as `ovs-ofctl add-flow` reads them.
    pub flows: Vec<String>,
    /// Changes of the flows as a file for `ovs-ofctl add-flows` has them (`delete …`, `modify …`).
    /// If there are any, all packets are sent again after them.
    pub changes: Vec<String>,
    /// Packets may change the tables, so they go through one at a time and without caches.
    pub stateful: bool,
    /// Packets, in order.
    pub inputs: Vec<Input>,
}

/// What a switch did with a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Indices of the changes that it refused, and what it said.
    pub refused: BTreeMap<usize, String>,
    /// For each packet, and for each again after the changes.
    pub outputs: Vec<Outputs>,
    /// Packets and bytes of the flows with each cookie.
    pub counts: BTreeMap<u64, (u64, u64)>,
    /// Flows that packets added, without statistics, sorted.
    pub learned: Vec<String>,
    /// Packets, by index, that met a difference listed in `known.rs`.
    pub withheld: BTreeSet<usize>,
    /// There were packets that OVS does not always count.
    pub uncounted: bool,
}

impl Scenario {
    /// True if OVS is to forget its megaflows after each packet: because packets change the tables, or
    /// because a part of a label is set, when the megaflow of one packet gives others its TTL and class,
    /// or because a tag is taken off and the same put on again, when it leaves others their TPID.
    pub fn alone(&self) -> bool {
        let labels = ["->mpls_", "_MPLS_", "set_mpls", "dec_mpls"];
        let text = self.text();
        let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
        self.stateful || has(&labels) || has(&["strip_vlan", "pop_vlan"]) && self.has_service_tags()
    }

    /// True if packets have tags of IEEE 802.1ad.
    fn has_service_tags(&self) -> bool {
        self.inputs.iter().any(|i| {
            let types = i.frame.get(12..).unwrap_or_default().chunks_exact(4);
            types.take(crate::known::tags(&i.frame)).any(|t| t[..2] == [0x88, 0xa8])
        })
    }

    /// Groups, flows and changes.
    pub fn text(&self) -> String {
        [self.groups.join("\n"), self.flows.join("\n"), self.changes.join("\n")].join("\n")
    }

    /// Cookies of the scenario's own flows are 1 to this.
    pub fn last_cookie(&self) -> u64 {
        let own = self.flows.iter().chain(&self.changes);
        let cookies = own.map(|f| crate::ovs::number(f, "cookie="));
        cookies.max().unwrap_or(0)
    }
}

/// A frame as hexadecimal digits.
pub fn hex(frame: &[u8]) -> String {
    frame.iter().fold(String::with_capacity(frame.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Outputs for a person.
pub fn show(outputs: &Outputs) -> String {
    if outputs.is_empty() {
        return "    nothing\n".to_owned();
    }
    let mut out = String::new();
    for (port, frames) in outputs {
        for frame in frames {
            let _ = writeln!(out, "    {:>3} {}", PORTS[*port].0, hex(frame));
        }
    }
    out
}

/// The bytes of hexadecimal digits; others are passed over.
pub fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.chars().filter_map(|c| Some(c.to_digit(16)? as u8)).collect();
    digits.chunks_exact(2).map(|d| d[0] << 4 | d[1]).collect()
}
