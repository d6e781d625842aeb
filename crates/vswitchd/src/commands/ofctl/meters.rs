//! Meters: kept and shown; they limit when a later step brings that.

use super::explain::{self, Origin};
use super::{Answer, Call, done};
use openflow::{MeterCommand, MeterMod, parse_meter_mod};
use tracing::warn;

pub(super) fn add(call: &Call<'_>) -> Answer {
    change(call, MeterCommand::Add)
}

pub(super) fn modify(call: &Call<'_>) -> Answer {
    change(call, MeterCommand::Modify)
}

pub(super) fn delete(call: &Call<'_>) -> Answer {
    change(call, MeterCommand::Delete)
}

const ARGUMENT: Origin<'_> = Origin { file: None, line: 1 };

fn parse(call: &Call<'_>, command: MeterCommand) -> Result<MeterMod, String> {
    let parsed = parse_meter_mod(call.text(), command);
    parsed.map_err(|e| explain::parse_error(ARGUMENT, call.text(), e))
}

fn change(call: &Call<'_>, command: MeterCommand) -> Answer {
    let m = parse(call, command)?;
    let changed = call.pipeline.change(call.bridge(), call.now_ms, |changes| {
        let done = changes.meter(&m);
        done.map_err(|e| explain::refused(ARGUMENT, call.text(), &e.to_string()))
    });
    if changed.is_ok() && command != MeterCommand::Delete {
        let (bridge, id) = (call.bridge(), m.meter.id);
        warn!("bridge {bridge}: meter {id} passes everything: limiting is not implemented");
    }
    done(changed)
}

/// The meter that is asked for, `None` for all.
fn asked(call: &Call<'_>) -> Result<Option<u32>, String> {
    let m = parse(call, MeterCommand::Delete)?;
    Ok((!m.all).then_some(m.meter.id))
}

pub(super) fn dump(call: &Call<'_>) -> Answer {
    let id = asked(call)?;
    let meters = call.pipeline.meters(call.bridge()).map_err(|e| e.to_string())?;
    let text = meters.dump_meters(id);
    let text = text.map_err(|e| explain::refused(ARGUMENT, call.text(), &e.to_string()))?;
    Ok(format!("OFPST_METER_CONFIG reply (OF1.3) (xid=0x2):\n{text}"))
}

pub(super) fn stats(call: &Call<'_>) -> Answer {
    let id = asked(call)?;
    let meters = call.pipeline.meters(call.bridge()).map_err(|e| e.to_string())?;
    let tables = call.pipeline.tables(call.bridge()).map_err(|e| e.to_string())?;
    let text = meters.dump_meter_stats(id, &tables, call.now_ms);
    let text = text.map_err(|e| explain::refused(ARGUMENT, call.text(), &e.to_string()))?;
    Ok(format!("OFPST_METER reply (OF1.3) (xid=0x2):\n{text}"))
}

pub(super) fn features() -> String {
    "OFPST_METER_FEATURES reply (OF1.3) (xid=0x2):\nmax_meter:4294901760 max_bands:8 \
     max_color:0\nband_types: drop\ncapabilities: kbps pktps burst stats\n"
        .to_owned()
}
