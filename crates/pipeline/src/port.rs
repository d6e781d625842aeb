//! Ports of a bridge as the pipeline sees them.

use crate::error::Error;
use crate::vlan::PortConfig;
use flow::DpPort;
pub use openflow::OfPort;

/// Checks that a port of a bridge may have this number.
pub(crate) fn check(port: OfPort) -> Result<(), Error> {
    if port.is_port() { Ok(()) } else { Err(Error::BadOfPort(port.0)) }
}

/// Identity of one port over its life. Never given out twice, so that what is still known of a
/// removed port cannot be taken for news of its successor with the same OpenFlow number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PortId(pub u64);

/// One port of a bridge.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub id: PortId,
    pub name: String,
    pub number: OfPort,
    pub dp: DpPort,
    /// Its link is up, which fast failover, bundles and select groups ask for.
    pub link_up: bool,
    pub config: PortConfig,
}
