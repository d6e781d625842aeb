//! The meters of one bridge (OpenFlow 1.3, 5.7), and what changes them. They are kept and shown; what
//! limits is not here.

use crate::dump::seconds;
use crate::tables::{Reason, Removed, Tables};
use openflow::{Meter, MeterCommand, MeterMod};
use std::fmt::Write;
use std::sync::Arc;

/// Meters that a bridge can have (OVS's userspace datapath says `max_meter:262144`).
pub const MAX_METERS: usize = 262_144;
/// Bands that a meter can have (OVS's userspace datapath says `max_bands:8`).
pub const MAX_BANDS: usize = 8;

/// Why a change of meters was refused, printed as OpenFlow's name of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MeterModError {
    /// The meter to be added is there already.
    #[error("OFPMMFC_METER_EXISTS")]
    MeterExists,
    /// The meter to be changed is not there.
    #[error("OFPMMFC_UNKNOWN_METER")]
    UnknownMeter,
    /// There are [`MAX_METERS`] already.
    #[error("OFPMMFC_OUT_OF_METERS")]
    OutOfMeters,
    /// More than [`MAX_BANDS`].
    #[error("OFPMMFC_OUT_OF_BANDS")]
    OutOfBands,
    /// A band of another kind than `drop`.
    #[error("OFPMMFC_BAD_BAND")]
    BadBand,
}

/// A meter of a bridge.
#[derive(Debug)]
pub struct MeterEntry {
    /// What it does.
    pub meter: Meter,
    /// When it was added, in milliseconds.
    pub created_ms: u64,
}

/// The meters of one bridge. Copying is cheap, and a changed copy leaves the original as it was.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    meters: imbl::OrdMap<u32, Arc<MeterEntry>>,
}

impl Meters {
    /// The meter with a number.
    pub fn get(&self, id: u32) -> Option<&Arc<MeterEntry>> {
        self.meters.get(&id)
    }

    /// All meters, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<MeterEntry>> {
        self.meters.values()
    }

    /// Applies one change. Flows that use a deleted meter have to go too:
    /// [`Tables::remove_users_of_meter`].
    ///
    /// # Errors
    /// If it is refused; then nothing has changed.
    pub fn apply(&mut self, m: &MeterMod, now_ms: u64) -> Result<(), MeterModError> {
        let id = m.meter.id;
        let old = self.meters.get(&id);
        let created_ms = match (m.command, old) {
            (MeterCommand::Delete, _) => {
                match m.all {
                    true => self.meters.clear(),
                    false => drop(self.meters.remove(&id)),
                }
                return Ok(());
            }
            (MeterCommand::Add, Some(_)) => return Err(MeterModError::MeterExists),
            (MeterCommand::Modify, None) => return Err(MeterModError::UnknownMeter),
            (MeterCommand::Add, None) if self.meters.len() >= MAX_METERS => {
                return Err(MeterModError::OutOfMeters);
            }
            (MeterCommand::Add, None) => now_ms,
            (MeterCommand::Modify, Some(old)) => old.created_ms,
        };
        if m.meter.bands.len() > MAX_BANDS {
            return Err(MeterModError::OutOfBands);
        }
        if m.meter.bands.iter().any(|b| b.remark.is_some()) {
            return Err(MeterModError::BadBand);
        }
        self.meters.insert(id, Arc::new(MeterEntry { meter: m.meter.clone(), created_ms }));
        Ok(())
    }

    /// One meter, or all, as `ovs-ofctl dump-meters` prints them below the header.
    ///
    /// # Errors
    /// If the one that is named is not there.
    pub fn dump_meters(&self, id: Option<u32>) -> Result<String, MeterModError> {
        let all = self.chosen(id)?.into_iter().map(|m| openflow::format_meter(&m.meter));
        let all: Vec<String> = all.map(|m| m.trim_end().to_owned() + "\n").collect();
        Ok(all.join("\n"))
    }

    /// Use of one meter, or of all, as `ovs-ofctl meter-stats` prints it below the header.
    ///
    /// # Errors
    /// If the one that is named is not there.
    pub fn dump_meter_stats(
        &self,
        id: Option<u32>,
        tables: &Tables,
        now_ms: u64,
    ) -> Result<String, MeterModError> {
        let mut all = Vec::new();
        for m in self.chosen(id)? {
            let mut out = String::new();
            let users = tables.rules().filter(|r| r.uses_meter(m.meter.id)).count();
            let age = seconds(now_ms.saturating_sub(m.created_ms));
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "meter:{} flow_count:{users} packet_in_count:0 byte_in_count:0 duration:{age}s bands:",
                m.meter.id
            );
            for i in 0..m.meter.bands.len() {
                let _ = writeln!(out, "{i}: packet_count:0 byte_count:0");
            }
            all.push(out);
        }
        Ok(all.join("\n"))
    }

    fn chosen(&self, id: Option<u32>) -> Result<Vec<&Arc<MeterEntry>>, MeterModError> {
        match id {
            None => Ok(self.iter().collect()),
            Some(id) => self.get(id).map(|m| vec![m]).ok_or(MeterModError::UnknownMeter),
        }
    }
}

impl Tables {
    /// Removes the flows that use the meters that `m` deletes.
    pub fn remove_users_of_meter(&mut self, m: &MeterMod) -> Vec<Removed> {
        if m.command != MeterCommand::Delete {
            return Vec::new();
        }
        let id = m.meter.id;
        self.remove_if(
            Reason::MeterDelete,
            |r| if m.all { r.uses_meters() } else { r.uses_meter(id) },
        )
    }
}
