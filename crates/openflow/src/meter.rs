//! Meters, as they are said. Their text is in `meter_text.rs`.

/// One band of a meter (OpenFlow 1.3, 5.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterBand {
    /// `dscp_remark` with its precedence level, or `drop`.
    pub remark: Option<u8>,
    /// In the meter's unit.
    pub rate: u32,
    /// In the meter's unit; 0 for none.
    pub burst: u32,
}

/// A meter. It is kept and shown; what limits is a later step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Its number: 1 to [`METER_MAX`], [`METER_SLOWPATH`] or [`METER_CONTROLLER`].
    pub id: u32,
    /// Rates are in packets a second and not kbit/s.
    pub pktps: bool,
    /// `burst` of the bands is used.
    pub burst: bool,
    /// Counted.
    pub stats: bool,
    /// What happens above which rate.
    pub bands: Vec<MeterBand>,
}

/// The highest number that an ordinary meter can have (OpenFlow 1.3, OFPM_MAX).
pub const METER_MAX: u32 = 0xffff_0000;
/// OpenFlow 1.3's meter for packets to the slow path.
pub const METER_SLOWPATH: u32 = 0xffff_fffd;
/// OpenFlow 1.3's meter for packets to the controller.
pub const METER_CONTROLLER: u32 = 0xffff_fffe;

/// What a [`MeterMod`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeterCommand {
    /// Adds a meter that must not be there yet.
    Add,
    /// Replaces a meter that must be there.
    Modify,
    /// Removes one meter or all.
    Delete,
}

/// A change of the meter table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterMod {
    /// What to do.
    pub command: MeterCommand,
    /// `meter=all`, or none named to be deleted: every meter. Only with `Delete`.
    pub all: bool,
    /// The meter with its number. For `Delete`, only the number counts.
    pub meter: Meter,
}
