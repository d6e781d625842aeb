//! `sample` and `note`.

use super::Cx;
use super::output::hex_bytes;
use crate::action::{Action, Sample, SampleDirection};
use crate::error::ParseError;
use crate::number;
use crate::pairs::Pairs;
use crate::port::{OfPort, PortNames};
use crate::port_text::{ShowPort, parse_port};
use std::fmt;

/// A note has 6 bytes and any number of times 8 more: what makes an action of OpenFlow, which it is
/// filled up to (OpenFlow 1.0, 5.2.4).
const NOTE_BYTES: usize = 6;
/// OpenFlow's actions are multiples of so many bytes.
const ACTION_ALIGN: usize = 8;

pub(super) fn parse_note(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    let mut bytes = hex_bytes(text, "bad hex digit in `note' argument")?;
    let beyond = bytes.len().saturating_sub(NOTE_BYTES).next_multiple_of(ACTION_ALIGN);
    bytes.resize(NOTE_BYTES + beyond, 0);
    Ok(Action::Note(bytes))
}

pub(super) fn parse_sample(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let mut it = Sample {
        probability: 0,
        collector_set_id: 0,
        obs_domain_id: 0,
        obs_point_id: 0,
        sampling_port: None,
        direction: SampleDirection::Default,
    };
    for pair in Pairs::new(text) {
        let wrong = |reason: String| ParseError::new(pair.value, reason);
        match pair.key {
            "probability" => {
                it.probability = number::u16(pair.value, pair.key)?;
                if it.probability == 0 {
                    return Err(wrong(format!("invalid probability value \"{}\"", pair.value)));
                }
            }
            "collector_set_id" => it.collector_set_id = number::u32(pair.value)?,
            "obs_domain_id" => it.obs_domain_id = number::u32(pair.value)?,
            "obs_point_id" => it.obs_point_id = number::u32(pair.value)?,
            "sampling_port" => {
                let port = parse_port(pair.value, cx.names);
                let port = port.ok_or_else(|| wrong(format!("{}: unknown port", pair.value)))?;
                it.sampling_port = Some(port).filter(|p| *p != OfPort::NONE);
            }
            "ingress" => it.direction = SampleDirection::Ingress,
            "egress" => it.direction = SampleDirection::Egress,
            key => {
                let reason = format!("invalid key \"{key}\" in \"sample\" argument");
                return Err(ParseError::new(key, reason));
            }
        }
    }
    if it.probability == 0 {
        let reason = "non-zero \"probability\" must be specified on sample";
        return Err(ParseError::new(text, reason));
    }
    Ok(Action::Sample(it))
}

pub(super) fn show_sample(
    f: &mut fmt::Formatter<'_>,
    it: &Sample,
    names: &dyn PortNames,
) -> fmt::Result {
    write!(f, "sample(probability={},collector_set_id={}", it.probability, it.collector_set_id)?;
    write!(f, ",obs_domain_id={},obs_point_id={}", it.obs_domain_id, it.obs_point_id)?;
    if let Some(port) = it.sampling_port {
        write!(f, ",sampling_port={}", ShowPort(port, names))?;
    }
    f.write_str(match it.direction {
        SampleDirection::Default => ")",
        SampleDirection::Ingress => ",ingress)",
        SampleDirection::Egress => ",egress)",
    })
}
