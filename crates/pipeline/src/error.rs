//! What a person is told when a request cannot be done.

use flow::DpPort;

/// Why a bridge, port, flow or address could not be changed or shown. Each prints as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No bridge has that name.
    #[error("no such bridge: {0}")]
    NoBridge(String),
    /// A bridge of that name is there already.
    #[error("bridge {0} exists already")]
    BridgeExists(String),
    /// The bridge has no such port.
    #[error("bridge {bridge} has no port {port}")]
    NoPort {
        /// The bridge.
        bridge: String,
        /// The port's name or OpenFlow number, as asked for.
        port: String,
    },
    /// The port's name or OpenFlow number is used in the bridge already.
    #[error("bridge {bridge} has a port {port} already")]
    PortExists {
        /// The bridge.
        bridge: String,
        /// The port's name or OpenFlow number.
        port: String,
    },
    /// The datapath port belongs to another port, of this or another bridge.
    #[error("datapath port {} is in use by bridge {bridge}", .port.0)]
    DpPortExists {
        /// The bridge that has it.
        bridge: String,
        /// The datapath port.
        port: DpPort,
    },
    /// The OpenFlow number is outside what a port may have.
    #[error("{0} is not an OpenFlow port number: they are 1 to 65279, and 65534 for LOCAL")]
    BadOfPort(u16),
    /// A flow, group or meter is wrong or refused: the reason, in the words of OVS.
    #[error("{0}")]
    Flow(String),
    /// An action that this switch does not have, and why.
    #[error("{0}")]
    Unsupported(String),
    /// A flow's text is wrong in a line of many; line numbers start at 1.
    #[error("line {line}: {reason}")]
    FlowLine {
        /// The line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An Ethernet address is wrong.
    #[error("{0}: not an Ethernet address like 02:00:00:00:00:01")]
    BadMac(String),
    /// A VLAN number is wrong.
    #[error("{0}: not a VLAN number from 0 to 4095")]
    BadVlan(String),
    /// `fdb/del` names an entry that was not added with `fdb/add`.
    #[error("could not find static mac entry {0}")]
    NoStaticMac(String),
    /// The MAC table has no room for another static entry.
    #[error("the MAC table of bridge {0} is full of static entries; raise mac-table-size")]
    FdbFull(String),
    /// The bridge has no multicast table.
    #[error("multicast snooping is disabled")]
    NotSnooping,
}
