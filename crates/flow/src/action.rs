//! What the datapath does with a packet once its megaflow is known.

/// A datapath port number: unique among all bridges of the daemon, unlike OpenFlow port numbers,
/// which are unique in a bridge. Port 0 is never given out to a user's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DpPort(pub u32);

/// One step of a megaflow's action list; an empty list drops the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sends the packet, as it is now, to a port.
    Output(DpPort),
}
