//! MTUs that rows ask for: they stay, as in OVS, also when somebody else changes a netdev's, or when it comes back from
//! another namespace.

use crate::device::Opened;
use std::time::{Duration, Instant};
use tracing::info;

/// How long an MTU that was set again is left alone at least: another program may want it otherwise all the time.
const AGAIN: Duration = Duration::from_millis(500);

/// What became of an interface's `mtu_request`.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    asked: Option<u32>,
    /// The MTU that the netdev had when the kernel refused what is asked for.
    refused: Option<u32>,
    /// When it was set again.
    again: Option<Instant>,
}

impl Kept {
    /// Sets the MTU that is asked for.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn set(
        &mut self,
        name: &str,
        opened: &Opened,
        asked: Option<u32>,
    ) -> Result<(), String> {
        if let Some((asked, has)) = self.other(opened).filter(|(before, _)| asked == Some(*before))
        {
            info!("{name}: somebody made its MTU {has}; mtu_request={asked} is set again");
            self.again = Some(Instant::now());
        }
        self.asked = asked;
        let done = opened.set_mtu(asked);
        self.refused = done.as_ref().err().and_then(|_| opened.link_mtu());
        done
    }

    /// What is asked for and what the netdev has, if that is something else.
    fn other(&self, opened: &Opened) -> Option<(u32, u32)> {
        self.asked.zip(opened.link_mtu()).filter(|(asked, has)| asked != has)
    }

    /// Whether it has to be set again.
    pub(crate) fn is_due(&self, opened: &Opened) -> bool {
        let other = self.other(opened).filter(|(_, has)| self.refused != Some(*has));
        other.is_some() && self.again.is_none_or(|at| at.elapsed() >= AGAIN)
    }
}
