//! Names of a bridge's ports, as one command sees them.

use super::options::Names;
use openflow::PortNames;
use pipeline::{OfPort, PortInfo};
use std::collections::{BTreeMap, HashMap};

/// The ports of a bridge.
#[derive(Debug, Default)]
pub(crate) struct BridgeNames {
    by_number: BTreeMap<u16, String>,
    by_name: HashMap<String, OfPort>,
}

impl BridgeNames {
    pub(crate) fn new(ports: Vec<PortInfo>) -> BridgeNames {
        let by_name = ports.iter().map(|p| (p.name.clone(), p.number)).collect();
        let by_number = ports.into_iter().map(|p| (p.number.0, p.name)).collect();
        BridgeNames { by_number, by_name }
    }

    /// For reading flows.
    pub(super) fn read(&self, names: Names) -> &dyn PortNames {
        if names == Names::No { &() } else { self }
    }

    /// For printing flows.
    pub(super) fn print(&self, names: Names) -> &dyn PortNames {
        if names == Names::Print { self } else { &() }
    }
}

impl PortNames for BridgeNames {
    fn name(&self, port: OfPort) -> Option<&str> {
        self.by_number.get(&port.0).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<OfPort> {
        self.by_name.get(name).copied()
    }
}
