//! Changes of flows, groups and meters: all or nothing, and in force at once.

use crate::bridge::Bridge;
use crate::error::Error;
use crate::learn;
use crate::pipeline::Pipeline;
use openflow::{
    Action, BundleMod, Command, FlowMod, GroupCommand, GroupMod, MeterMod, check_actions,
    first_unsupported,
};
use std::sync::{Arc, PoisonError};
use tables::{Groups, Meters, Reason, Removed, TableConfig, Tables};

/// Which of several changes was refused, counted from 0, and why.
pub type Refused = (usize, Error);

impl Pipeline {
    /// Changes a copy of a bridge, and makes it the bridge if the change succeeds. The change says
    /// with its answer whether packets may be forwarded otherwise than before.
    pub(crate) fn change_bridge<T, E: From<Error>>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Bridge) -> Result<(T, bool), E>,
    ) -> Result<T, E> {
        self.core.change(|control| {
            let mut bridge = Bridge::clone(&*self.bridge(name)?);
            let (answer, matters) = change(&mut bridge)?;
            self.core.put_bridge(control, bridge, matters);
            Ok(answer)
        })
    }

    /// Applies changes of flows, in order; all of them or, if one is refused, none.
    ///
    /// # Errors
    /// The first change that is refused: the bridge is unknown, an action is not supported, does not
    /// suit the match or names a group or meter that is not there, or the tables refuse it.
    pub fn flow_mods(&self, bridge: &str, mods: &[FlowMod], now_ms: u64) -> Result<(), Refused> {
        if mods.is_empty() {
            return self.bridge(bridge).map(|_| ()).map_err(|e| (0, e));
        }
        self.change_numbered(bridge, |bridge| {
            for (i, m) in mods.iter().enumerate() {
                flow_mod(bridge, m, now_ms).map_err(|e| (i, e))?;
            }
            forget_learned(bridge);
            Ok(())
        })
    }

    /// Applies changes of groups, as [`Pipeline::flow_mods`]. Flows that use a group that is deleted
    /// go with it.
    ///
    /// # Errors
    /// The first change that is refused.
    pub fn group_mods(&self, bridge: &str, mods: &[GroupMod], now_ms: u64) -> Result<(), Refused> {
        self.change_numbered(bridge, |bridge| {
            for (i, m) in mods.iter().enumerate() {
                group_mod(bridge, m, now_ms).map_err(|e| (i, e))?;
            }
            forget_learned(bridge);
            Ok(())
        })
    }

    /// Applies changes of flows and groups together, as [`Pipeline::flow_mods`].
    ///
    /// # Errors
    /// The first change that is refused.
    pub fn bundle(&self, bridge: &str, mods: &[BundleMod], now_ms: u64) -> Result<(), Refused> {
        self.change_numbered(bridge, |bridge| {
            for (i, m) in mods.iter().enumerate() {
                let applied = match m {
                    BundleMod::Flow(m) => flow_mod(bridge, m, now_ms),
                    BundleMod::Group(m) => group_mod(bridge, m, now_ms),
                };
                applied.map_err(|e| (i, e))?;
            }
            forget_learned(bridge);
            Ok(())
        })
    }

    /// Applies changes of meters, as [`Pipeline::flow_mods`]. Flows that use a meter that is deleted
    /// go with it.
    ///
    /// # Errors
    /// The first change that is refused.
    pub fn meter_mods(&self, bridge: &str, mods: &[MeterMod], now_ms: u64) -> Result<(), Refused> {
        self.change_numbered(bridge, |bridge| {
            for (i, m) in mods.iter().enumerate() {
                meter_mod(bridge, m, now_ms).map_err(|e| (i, e))?;
            }
            forget_learned(bridge);
            Ok(())
        })
    }

    fn change_numbered(
        &self,
        bridge: &str,
        change: impl FnOnce(&mut Bridge) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        self.change_bridge(bridge, |b| change(b).map(|()| ((), true)).map_err(Numbered))
            .map_err(|Numbered(refused)| refused)
    }

    /// Configures a table. Flows that are too many for it then are evicted if it evicts.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn set_table_config(
        &self,
        bridge: &str,
        table: u8,
        config: TableConfig,
    ) -> Result<(), Error> {
        self.change_bridge(bridge, |bridge| {
            if bridge.tables.table_config(table) == Some(&config) {
                return Ok(((), false));
            }
            let gone = bridge.tables.set_table_config(table, config);
            let matters = !gone.is_empty();
            bridge.gone(gone);
            forget_learned(bridge);
            Ok(((), matters))
        })
    }

    /// The tables of a bridge as they are now.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn tables(&self, bridge: &str) -> Result<Tables, Error> {
        Ok(self.bridge(bridge)?.tables.clone())
    }

    /// The groups of a bridge as they are now.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn groups(&self, bridge: &str) -> Result<Groups, Error> {
        Ok(self.bridge(bridge)?.groups.clone())
    }

    /// The meters of a bridge as they are now.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn meters(&self, bridge: &str) -> Result<Meters, Error> {
        Ok(self.bridge(bridge)?.meters.clone())
    }

    /// Forgets addresses and groups and removes flows whose time is over, and learns what waits. To be called
    /// about once a second.
    pub fn expire(&self, now_ms: u64) {
        for bridge in self.all_bridges() {
            bridge.fdb.change(|f| f.expire(now_ms));
            if let Some(mdb) = &bridge.mdb {
                mdb.change(|m| m.expire(now_ms));
            }
            if !bridge.tables.is_due(now_ms) {
                continue;
            }
            // What was only put in another order is kept as well, or it were done again each second.
            // The bridge may be gone by now, and then there is nothing to do.
            let _ = self.change_bridge(&bridge.name, |bridge| {
                let gone = bridge.tables.expire(now_ms);
                let matters = !gone.is_empty();
                if matters {
                    bridge.gone(gone);
                    forget_learned(bridge);
                }
                Ok::<_, Error>(((), matters))
            });
        }
        self.core.drain();
        self.core.bury();
    }
}

impl Pipeline {
    /// Flows with `send_flow_rem` that were removed since the last time somebody asked, and from which
    /// bridge, in order.
    pub fn take_removed(&self) -> Vec<(String, Removed)> {
        let mut all = self.core.removed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all).into()
    }
}

/// Lets a refusal with its number pass through [`Pipeline::change_bridge`].
struct Numbered(Refused);

impl From<Error> for Numbered {
    fn from(error: Error) -> Self {
        Numbered((0, error))
    }
}

/// Applies a change of flows to a bridge.
pub(crate) fn flow_mod(bridge: &mut Bridge, m: &FlowMod, now_ms: u64) -> Result<(), Error> {
    if !matches!(m.command, Command::Delete | Command::DeleteStrict) {
        check(bridge, m)?;
        if bridge.teachers.is_none() && learn::deletes_learned(&m.actions) {
            bridge.teachers = Some(Arc::default());
        }
    }
    let gone = bridge.tables.apply(m, now_ms).map_err(|e| Error::Flow(e.to_string()))?;
    bridge.gone(gone);
    Ok(())
}

/// Checks that the actions of a new or changed flow can be run.
fn check(bridge: &Bridge, m: &FlowMod) -> Result<(), Error> {
    if let Some(what) = first_unsupported(&m.actions) {
        return Err(Error::Unsupported(what.to_string()));
    }
    check_actions(&m.actions, &m.matches, m.table.unwrap_or(0)).map_err(Error::Flow)?;
    check_references(bridge, &m.actions)
}

/// Groups and meters that flows name must be there (OpenFlow 1.3, 6.4). Nesting is bounded where
/// actions are read.
fn check_references(bridge: &Bridge, actions: &[Action]) -> Result<(), Error> {
    for action in actions {
        match action {
            Action::Group(id) if bridge.groups.get(*id).is_none() => {
                return Err(Error::Flow("OFPBAC_BAD_OUT_GROUP".to_owned()));
            }
            Action::Meter(id) if bridge.meters.get(*id).is_none() => {
                return Err(Error::Flow("OFPMMFC_INVALID_METER".to_owned()));
            }
            Action::Clone(inner) | Action::WriteActions(inner) => check_references(bridge, inner)?,
            _ => {}
        }
    }
    Ok(())
}

/// Applies a change of groups to a bridge.
pub(crate) fn group_mod(bridge: &mut Bridge, m: &GroupMod, now_ms: u64) -> Result<(), Error> {
    if m.command != GroupCommand::Delete {
        for bucket in &m.group.buckets {
            if let Some(what) = first_unsupported(&bucket.actions) {
                return Err(Error::Unsupported(what.to_string()));
            }
        }
    }
    bridge.groups.apply(m, now_ms).map_err(|e| Error::Flow(e.to_string()))?;
    let gone = bridge.tables.remove_users_of_group(m);
    bridge.gone(gone);
    Ok(())
}

/// Applies a change of meters to a bridge.
pub(crate) fn meter_mod(bridge: &mut Bridge, m: &MeterMod, now_ms: u64) -> Result<(), Error> {
    bridge.meters.apply(m, now_ms).map_err(|e| Error::Flow(e.to_string()))?;
    let gone = bridge.tables.remove_users_of_meter(m);
    bridge.gone(gone);
    Ok(())
}

/// `delete_learned`: flows whose last teacher is gone go too. What they taught themselves follows.
pub(crate) fn forget_learned(bridge: &mut Bridge) {
    let Some(mut before) = bridge.teachers.take() else { return };
    loop {
        let now = learn::teachers(&bridge.tables);
        let orphans: Vec<_> = before.difference(&now).copied().collect();
        before = Arc::new(now);
        if orphans.is_empty() {
            break;
        }
        let gone =
            bridge.tables.remove_if(Reason::Delete, |r| orphans.contains(&(r.cookie, r.table)));
        bridge.gone(gone);
    }
    bridge.teachers = (!before.is_empty()).then_some(before);
}
