//! The ports of a datapath by number: an immutable snapshot that PMD threads read.

use flow::DpPort;
use port::Port;
use std::sync::Arc;

/// Ports by datapath port number.
#[derive(Clone, Default)]
pub struct PortMap(Vec<Option<Arc<dyn Port>>>);

impl PortMap {
    /// Puts `port` at `number`, replacing what was there.
    pub fn set(&mut self, number: DpPort, port: Option<Arc<dyn Port>>) {
        let i = number.0 as usize;
        if self.0.len() <= i {
            self.0.resize(i + 1, None);
        }
        self.0[i] = port;
    }

    /// The port with this number.
    #[inline(always)]
    pub fn get(&self, number: DpPort) -> Option<&dyn Port> {
        self.0.get(number.0 as usize)?.as_deref()
    }

    /// One more than the highest number in use.
    pub fn end(&self) -> usize {
        self.0.len()
    }
}
