//! How a port is used: OpenFlow 1.0's `ofp_port_config` (5.2.1), set by `ovs-ofctl mod-port` and printed by
//! `ovs-ofctl show`.

use std::fmt;

/// What is set of a port; nothing is unless somebody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortUse(u8);

impl PortUse {
    /// It neither receives nor sends.
    pub const DOWN: PortUse = PortUse(1);
    /// No spanning tree on it: there is none, so this is only shown.
    pub const NO_STP: PortUse = PortUse(1 << 1);
    /// What comes in by it is dropped, but for what [`PortUse::NO_RECEIVE_STP`] is for.
    pub const NO_RECEIVE: PortUse = PortUse(1 << 2);
    /// Frames of the spanning tree (LLC, to its address) that come in by it are dropped.
    pub const NO_RECEIVE_STP: PortUse = PortUse(1 << 3);
    /// Nothing is flooded to it, by `flood` or by `normal`.
    pub const NO_FLOOD: PortUse = PortUse(1 << 4);
    /// Nothing is sent to it.
    pub const NO_FORWARD: PortUse = PortUse(1 << 5);
    /// No controller is told of packets from it that no flow matches: none ever is, so this is only shown.
    pub const NO_PACKET_IN: PortUse = PortUse(1 << 6);

    /// Whether all of `what` is set.
    pub fn has(self, what: PortUse) -> bool {
        self.0 & what.0 == what.0
    }

    /// The same with `what` set or not.
    #[must_use]
    pub fn with(self, what: PortUse, on: bool) -> PortUse {
        PortUse(if on { self.0 | what.0 } else { self.0 & !what.0 })
    }

    /// The words of `mod-port`: each with what it is about, and whether that is then set.
    pub fn words() -> impl Iterator<Item = (&'static str, PortUse, bool)> {
        TABLE.iter().flat_map(|(what, _, clear, set)| [(*clear, *what, false), (*set, *what, true)])
    }
}

/// For each: its name in OVS's output, and the words of `mod-port` that clear and set it.
const TABLE: &[(PortUse, &str, &str, &str)] = &[
    (PortUse::DOWN, "PORT_DOWN", "up", "down"),
    (PortUse::NO_STP, "NO_STP", "stp", "no-stp"),
    (PortUse::NO_RECEIVE, "NO_RECV", "receive", "no-receive"),
    (PortUse::NO_RECEIVE_STP, "NO_RECV_STP", "receive-stp", "no-receive-stp"),
    (PortUse::NO_FLOOD, "NO_FLOOD", "flood", "no-flood"),
    (PortUse::NO_FORWARD, "NO_FWD", "forward", "no-forward"),
    (PortUse::NO_PACKET_IN, "NO_PACKET_IN", "packet-in", "no-packet-in"),
];

/// As `ovs-ofctl show` prints it.
impl fmt::Display for PortUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            TABLE.iter().filter(|(what, ..)| self.has(*what)).map(|(_, name, ..)| *name).collect();
        f.write_str(if names.is_empty() { "0".to_owned() } else { names.join(" ") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names() {
        let mut all = PortUse::default();
        assert_eq!(all.to_string(), "0");
        for (_, what, on) in PortUse::words() {
            all = all.with(what, on);
        }
        let names = "PORT_DOWN NO_STP NO_RECV NO_RECV_STP NO_FLOOD NO_FWD NO_PACKET_IN";
        assert_eq!(all.to_string(), names);
        let find = |word: &str| PortUse::words().find(|(w, ..)| *w == word).expect("a word");
        let (_, what, on) = find("flood");
        assert!(!on && !all.with(what, on).has(PortUse::NO_FLOOD));
        assert_eq!(find("no-stp"), ("no-stp", PortUse::NO_STP, true));
    }
}
