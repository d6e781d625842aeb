//! Ports of a bridge as the pipeline sees them.

use crate::error::Error;
use flow::DpPort;
use std::fmt;

/// An OpenFlow port number, unique in its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfPort(pub u16);

impl OfPort {
    /// The bridge's own port, OFPP_LOCAL of OpenFlow 1.0.
    pub const LOCAL: OfPort = OfPort(0xfffe);
    /// The highest number of an ordinary port; what is above has a meaning of its own
    /// (OpenFlow 1.0, 5.2.1: OFPP_MAX is 0xff00).
    pub const MAX: OfPort = OfPort(0xfeff);

    /// Checks that a port of a bridge may have this number.
    ///
    /// # Errors
    /// [`Error::BadOfPort`] for 0 and for reserved numbers other than `LOCAL`.
    pub fn check(self) -> Result<(), Error> {
        match self.0 {
            1..=0xfeff | 0xfffe => Ok(()),
            other => Err(Error::BadOfPort(other)),
        }
    }
}

impl fmt::Display for OfPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            OfPort::LOCAL => f.pad("LOCAL"),
            OfPort(n) => f.pad(&n.to_string()),
        }
    }
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
}
