//! Changes of one bridge that are made one after the other and come into force together.

use crate::bridge::Bridge;
use crate::change::{flow_mod, forget_learned, group_mod, meter_mod};
use crate::error::Error;
use crate::pipeline::Pipeline;
use openflow::{FlowMod, GroupMod, MeterMod};
use tables::{Reason, Rule, Tables};

/// A bridge that is being changed. Nobody else sees the changes before all are made, nor ever if one
/// fails and the caller gives up.
#[derive(Debug)]
pub struct Changes<'a> {
    bridge: &'a mut Bridge,
    now_ms: u64,
}

impl Changes<'_> {
    /// Applies a change of flows.
    ///
    /// # Errors
    /// As of [`Pipeline::flow_mods`]; then this change is not made.
    pub fn flow(&mut self, m: &FlowMod) -> Result<(), Error> {
        flow_mod(self.bridge, m, self.now_ms)
    }

    /// Applies a change of groups.
    ///
    /// # Errors
    /// As of [`Pipeline::group_mods`]; then this change is not made.
    pub fn group(&mut self, m: &GroupMod) -> Result<(), Error> {
        group_mod(self.bridge, m, self.now_ms)
    }

    /// Applies a change of meters.
    ///
    /// # Errors
    /// As of [`Pipeline::meter_mods`]; then this change is not made.
    pub fn meter(&mut self, m: &MeterMod) -> Result<(), Error> {
        meter_mod(self.bridge, m, self.now_ms)
    }

    /// The tables as changed so far.
    pub fn tables(&self) -> &Tables {
        &self.bridge.tables
    }

    /// Deletes flows.
    pub fn remove_if(&mut self, chosen: impl Fn(&Rule) -> bool) {
        let gone = self.bridge.tables.remove_if(Reason::Delete, chosen);
        self.bridge.gone(gone);
    }
}

/// For who tells people.
impl From<Error> for String {
    fn from(error: Error) -> String {
        error.to_string()
    }
}

impl Pipeline {
    /// Changes a bridge. Flows are checked and applied one by one, so that a million of them need not
    /// be held at once; they come into force together, or not at all if `change` fails. Other changes
    /// wait meanwhile, packets do not.
    ///
    /// # Errors
    /// What `change` fails with, or [`Error::NoBridge`].
    pub fn change<T, E: From<Error>>(
        &self,
        bridge: &str,
        now_ms: u64,
        change: impl FnOnce(&mut Changes<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.change_bridge(bridge, |bridge| {
            let answer = change(&mut Changes { bridge, now_ms })?;
            forget_learned(bridge);
            Ok((answer, true))
        })
    }
}
