//! Actions that send packets somewhere: to a port, a controller, a table, or a list of actions.

use super::rules::Place;
use super::{Cx, parse_nested};
use crate::action::{Action, Controller, ControllerReason};
use crate::error::ParseError;
use crate::number;
use crate::pairs::{Pairs, split};
use crate::port::{OfPort, PortNames};
use crate::port_text::{ShowPort, parse_port};
use crate::subfield::Subfield;
use std::fmt;

/// What a truncated packet has at least: an Ethernet header (ovs-actions(7), "output").
const MIN_TRUNCATED: u32 = 14;

/// A whole packet to a port.
pub(super) fn to_port(port: OfPort) -> Action {
    match port {
        OfPort::CONTROLLER => Action::Controller(Box::default()),
        _ => Action::Output { port, max_len: None },
    }
}

pub(super) fn parse(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    if text.contains("port") && text.contains("max_len") {
        return parse_truncated(text, cx);
    }
    if let Some(port) = parse_port(text, cx.names) {
        return Ok(to_port(port));
    }
    let unknown = |_| ParseError::new(text, format!("{text}: output to unknown port"));
    let src = Subfield::parse(text).map_err(unknown)?;
    Ok(Action::OutputField { src, max_len: u16::MAX })
}

fn parse_truncated(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let (mut port, mut max_len) = (OfPort(0), 0);
    for pair in Pairs::new(text) {
        let wrong = |reason: String| ParseError::new(pair.value, reason);
        match pair.key {
            "port" => {
                let unknown = || wrong(format!("output to unknown truncate port: {}", pair.value));
                port = parse_port(pair.value, cx.names).ok_or_else(unknown)?;
                if port.0 > OfPort::MAX.0 && ![OfPort::LOCAL, OfPort::IN_PORT].contains(&port) {
                    let reason = format!("output to unsupported truncate port: {}", pair.value);
                    return Err(wrong(reason));
                }
            }
            "max_len" => {
                max_len = number::u32(pair.value)?;
                if max_len < MIN_TRUNCATED {
                    return Err(wrong(format!(
                        "max_len {max_len} is less than the minimum value {MIN_TRUNCATED}"
                    )));
                }
            }
            key => {
                let reason = format!("invalid key '{key}' in output_trunc argument");
                return Err(ParseError::new(key, reason));
            }
        }
    }
    Ok(Action::Output { port, max_len: Some(max_len) })
}

pub(super) fn parse_enqueue(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let port = split(text, |b| matches!(b, b':' | b',')).next().unwrap_or("");
    let queue = text.get(port.len() + 1..).unwrap_or("");
    let parts = Some((port, queue)).filter(|_| !port.is_empty() && !queue.is_empty());
    let Some((port, queue)) = parts else {
        let reason = "\"enqueue\" syntax is \"enqueue:PORT:QUEUE\" or \"enqueue(PORT,QUEUE)\"";
        return Err(ParseError::new(text, reason));
    };
    let unknown = || ParseError::new(port, format!("{port}: enqueue to unknown port"));
    let port = parse_port(port, cx.names).ok_or_else(unknown)?;
    Ok(Action::Enqueue { port, queue: number::u32(queue)? })
}

pub(super) fn parse_controller(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    let mut it = Controller::default();
    if text.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        it.max_len = number::u16(text, "max_len")?;
        return Ok(Action::Controller(Box::new(it)));
    }
    for pair in Pairs::new(text) {
        match pair.key {
            "reason" => it.reason = reason(pair.value)?,
            "max_len" => it.max_len = number::u16(pair.value, pair.key)?,
            "id" => it.id = number::u16(pair.value, pair.key)?,
            "userdata" => {
                let bad = "bad hex digit in `controller' action `userdata'";
                it.userdata = hex_bytes(pair.value, bad)?;
            }
            "pause" => it.pause = true,
            "meter_id" => it.meter_id = Some(number::u32(pair.value)?).filter(|id| *id != 0),
            key => {
                let reason = format!("unknown key \"{key}\" parsing controller action");
                return Err(ParseError::new(key, reason));
            }
        }
    }
    Ok(Action::Controller(Box::new(it)))
}

const REASONS: [(&str, ControllerReason); 6] = [
    ("no_match", ControllerReason::NoMatch),
    ("action", ControllerReason::Action),
    ("invalid_ttl", ControllerReason::InvalidTtl),
    ("action_set", ControllerReason::ActionSet),
    ("group", ControllerReason::Group),
    ("packet_out", ControllerReason::PacketOut),
];

fn reason(word: &str) -> Result<ControllerReason, ParseError> {
    let found = REASONS.iter().find(|(name, _)| *name == word).map(|(_, reason)| *reason);
    found.ok_or_else(|| ParseError::new(word, format!("unknown reason \"{word}\"")))
}

/// Bytes as pairs of hexadecimal digits, with dots between them where one likes.
pub(super) fn hex_bytes(text: &str, bad: &str) -> Result<Vec<u8>, ParseError> {
    let wrong = || ParseError::new(text, bad);
    let digits = |b: &[u8]| b.iter().all(u8::is_ascii_hexdigit);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.trim_start_matches('.');
        if rest.is_empty() {
            break;
        }
        let pair = rest.get(..2).filter(|p| digits(p.as_bytes())).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(pair, 16).map_err(|_| wrong())?);
        rest = &rest[2..];
    }
    Ok(bytes)
}

pub(super) fn show_controller(f: &mut fmt::Formatter<'_>, it: &Controller) -> fmt::Result {
    if it.is_plain() {
        return write!(f, "CONTROLLER:{}", it.max_len);
    }
    let mut parts = Vec::new();
    if it.reason != ControllerReason::Action {
        let name = REASONS.iter().find(|(_, r)| *r == it.reason).map_or("", |(name, _)| name);
        parts.push(format!("reason={name}"));
    }
    if it.max_len != u16::MAX {
        parts.push(format!("max_len={}", it.max_len));
    }
    if it.id != 0 {
        parts.push(format!("id={}", it.id));
    }
    if !it.userdata.is_empty() {
        parts.push(format!("userdata={}", HexBytes(&it.userdata)));
    }
    if it.pause {
        parts.push("pause".into());
    }
    if let Some(meter) = it.meter_id {
        parts.push(format!("meter_id={meter}"));
    }
    write!(f, "controller({})", parts.join(","))
}

/// `01.02.03`
pub(super) struct HexBytes<'a>(pub(super) &'a [u8]);

impl fmt::Display for HexBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

pub(super) fn parse_resubmit(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let mut words = split(text, |b| b == b',');
    let (port_word, table_word) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut port = OfPort::IN_PORT;
    if !port_word.is_empty() {
        let unknown =
            || ParseError::new(port_word, format!("{port_word}: resubmit to unknown port"));
        port = parse_port(port_word, cx.names).ok_or_else(unknown)?;
    }
    let mut table = u8::MAX;
    if !table_word.is_empty() {
        let unknown =
            || ParseError::new(table_word, format!("{table_word}: resubmit to unknown table"));
        table = number::table(table_word).ok_or_else(unknown)?;
    }
    let ct = match words.next() {
        None | Some("") => false,
        Some("ct") => true,
        Some(word) => return Err(ParseError::new(word, format!("{word}: unknown parameter"))),
    };
    if port == OfPort::IN_PORT && table == u8::MAX {
        let reason = "at least one \"in_port\" or \"table\" must be specified on resubmit";
        return Err(ParseError::new(text, reason));
    }
    let port = Some(port).filter(|p| *p != OfPort::IN_PORT);
    Ok(Action::Resubmit { port, table: Some(table).filter(|t| *t != u8::MAX), ct })
}

pub(super) fn show_resubmit(
    f: &mut fmt::Formatter<'_>,
    (port, table, ct): (Option<OfPort>, Option<u8>, bool),
    names: &dyn PortNames,
) -> fmt::Result {
    match (port, table) {
        (Some(port), None) if !ct => return write!(f, "resubmit:{}", ShowPort(port, names)),
        (Some(port), _) => write!(f, "resubmit({},", ShowPort(port, names))?,
        (None, _) => f.write_str("resubmit(,")?,
    }
    if let Some(table) = table {
        write!(f, "{table}")?;
    }
    f.write_str(if ct { ",ct)" } else { ")" })
}

pub(super) fn parse_clone(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    parse_nested(text, cx, Place::Clone).map(Action::Clone)
}

pub(super) fn parse_write_actions(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    parse_nested(text, cx, Place::WriteActions).map(Action::WriteActions)
}
