//! OpenFlow port numbers and names.

use std::fmt;

/// An OpenFlow port number, unique in its bridge; the numbers are OpenFlow 1.0's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfPort(pub u16);

impl OfPort {
    /// The highest number of an ordinary port (OpenFlow 1.0, 5.2.1: OFPP_MAX is 0xff00).
    pub const MAX: OfPort = OfPort(0xfeff);
    /// OpenFlow 1.3's OFPP_UNSET: no output port in the action set.
    pub const UNSET: OfPort = OfPort(0xfff7);
    /// Back where the packet came from.
    pub const IN_PORT: OfPort = OfPort(0xfff8);
    /// Through the tables again (packet-out only).
    pub const TABLE: OfPort = OfPort(0xfff9);
    /// As an ordinary switch would.
    pub const NORMAL: OfPort = OfPort(0xfffa);
    /// All ports but the input port and those with NO_FLOOD.
    pub const FLOOD: OfPort = OfPort(0xfffb);
    /// All ports but the input port.
    pub const ALL: OfPort = OfPort(0xfffc);
    /// To the controller.
    pub const CONTROLLER: OfPort = OfPort(0xfffd);
    /// The bridge's own port.
    pub const LOCAL: OfPort = OfPort(0xfffe);
    /// No port (OFPP_NONE, OFPP_ANY).
    pub const NONE: OfPort = OfPort(0xffff);
    /// The reserved ports by name.
    pub const RESERVED: [(&'static str, OfPort); 10] = [
        ("UNSET", OfPort::UNSET),
        ("IN_PORT", OfPort::IN_PORT),
        ("TABLE", OfPort::TABLE),
        ("NORMAL", OfPort::NORMAL),
        ("FLOOD", OfPort::FLOOD),
        ("ALL", OfPort::ALL),
        ("CONTROLLER", OfPort::CONTROLLER),
        ("LOCAL", OfPort::LOCAL),
        ("ANY", OfPort::NONE),
        ("NONE", OfPort::NONE),
    ];

    /// True for numbers that ports of a bridge may have: 1 to 65279, and LOCAL.
    pub fn is_port(self) -> bool {
        matches!(self.0, 1..=0xfeff | 0xfffe)
    }
}

impl fmt::Display for OfPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OfPort::RESERVED.iter().find(|(_, p)| p == self) {
            Some((name, _)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// Names of ports (and, later, tables) of one bridge, for reading and printing flows.
pub trait PortNames {
    /// The name of a port.
    fn name(&self, port: OfPort) -> Option<&str>;
    /// The port with a name.
    fn number(&self, name: &str) -> Option<OfPort>;
}

/// No names are known.
impl PortNames for () {
    fn name(&self, _: OfPort) -> Option<&str> {
        None
    }
    fn number(&self, _: &str) -> Option<OfPort> {
        None
    }
}
