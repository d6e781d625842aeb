//! The ports of a datapath by number: an immutable snapshot that PMD threads read.

use flow::DpPort;
use port::Port;
use qos::Policer;
use std::sync::Arc;

/// Ports by datapath port number.
#[derive(Clone, Default)]
pub struct PortMap(Vec<Option<Place>>);

/// A port, and its limits if it has any.
#[derive(Clone)]
struct Place {
    port: Arc<dyn Port>,
    policer: Option<Arc<Policer>>,
}

impl PortMap {
    /// Puts `port` at `number`, replacing what was there, without limits.
    pub fn set(&mut self, number: DpPort, port: Option<Arc<dyn Port>>) {
        let i = number.0 as usize;
        if self.0.len() <= i {
            self.0.resize(i + 1, None);
        }
        self.0[i] = port.map(|port| Place { port, policer: None });
    }

    /// Limits the port with this number, if there is one.
    pub fn police(&mut self, number: DpPort, policer: Option<Arc<Policer>>) {
        if let Some(Some(place)) = self.0.get_mut(number.0 as usize) {
            place.policer = policer;
        }
    }

    /// The port with this number.
    #[inline(always)]
    pub fn get(&self, number: DpPort) -> Option<&dyn Port> {
        Some(&*self.0.get(number.0 as usize)?.as_ref()?.port)
    }

    /// The port with this number, and its limits.
    #[inline(always)]
    pub(crate) fn policed(&self, number: DpPort) -> Option<(&dyn Port, Option<&Policer>)> {
        let place = self.0.get(number.0 as usize)?.as_ref()?;
        Some((&*place.port, place.policer.as_deref()))
    }

    /// One more than the highest number in use.
    pub fn end(&self) -> usize {
        self.0.len()
    }
}
