//! `packet-out`: sends packets as a controller would.

use super::explain::{self, Origin};
use super::flows::origin;
use super::lines::Line;
use super::{Answer, Call, locked};
use flow::{DpPort, Extracted, Seen, extract};
use openflow::{Action, Actions, Field, FullKey, ParseError, PortNames, parse_actions, parse_port};
use pipeline::OfPort;
use tables::Groups;

/// Shortest and longest frame that is sent: an Ethernet header, and what a port can be given.
const FRAME_MIN: usize = 14;
const FRAME_MAX: usize = 65_535;

/// What separates the parts.
const SEPARATORS: &[char] = &[',', ' ', '\t'];

/// A packet, where it is taken to have come in, and what is done with it.
#[derive(Debug)]
pub(super) struct PacketOut {
    in_port: OfPort,
    frame: Vec<u8>,
    /// Registers and the like that it begins with: field, value, mask.
    fields: Vec<(&'static Field, u128, u128)>,
    actions: Actions,
}

pub(super) fn run(call: &Call<'_>) -> Answer {
    if let [_, text] = call.args[..] {
        let packet = parse(call, Line { number: 1, text })?;
        return send(call, packet).map(|()| String::new());
    }
    let [_, port, actions, packets @ ..] = &call.args[..] else {
        return Err("'packet-out' command requires at least 2 arguments".to_owned());
    };
    if packets.is_empty() {
        return Err(format!("no packet; after the actions \"{actions}\" comes one in hexadecimal"));
    }
    let number = parse_port(port, call.reading());
    let in_port = number.ok_or_else(|| format!("{}: unknown port `{port}'", call.bridge()))?;
    check_in_port(in_port, port)?;
    let parsed = read_actions(actions, call.reading());
    let actions = parsed.map_err(|e| explain::parse_error(ARGUMENT, actions, e))?;
    for packet in packets {
        let frame = hex(packet).map_err(str::to_owned)?;
        let fields = Vec::new();
        send(call, PacketOut { in_port, frame, fields, actions: actions.clone() })?;
    }
    Ok(String::new())
}

const ARGUMENT: Origin<'_> = Origin { file: None, line: 1 };

/// Reads `in_port=…,packet=…,actions=…` with pipeline fields (ovs-ofctl(8), "Packet-Out Syntax").
pub(super) fn parse(call: &Call<'_>, line: Line<'_>) -> Result<PacketOut, String> {
    let parsed = read(call, line.text);
    parsed.map_err(|e| explain::parse_error(origin(call, line), line.text, e))
}

fn read(call: &Call<'_>, text: &str) -> Result<PacketOut, ParseError> {
    let names = call.reading();
    let (head, actions) = text.split_once("actions=").unwrap_or((text, ""));
    let mut in_port = OfPort::NONE;
    let mut frame = None;
    let mut fields = Vec::new();
    for part in head.split(SEPARATORS).filter(|p| !p.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if value.is_empty() {
            return Err(ParseError::new(part, format!("field {key} missing value")));
        }
        match key {
            "in_port" => {
                let wrong = || format!("{value} is not a valid OpenFlow port");
                in_port =
                    parse_port(value, names).ok_or_else(|| ParseError::new(value, wrong()))?;
                check_in_port(in_port, value).map_err(|e| ParseError::new(value, e))?;
            }
            "packet" => {
                let wrong = |e| ParseError::new(value, format!("packet: {e}"));
                frame = Some(hex(value).map_err(wrong)?);
            }
            _ => {
                let field = pipeline_field(key).map_err(|e| ParseError::new(part, e))?;
                let (value, mask) = field.parse_value(value, names)?;
                fields.push((field, value, mask));
            }
        }
    }
    let frame = frame.ok_or_else(|| ParseError::new("", "must specify packet"))?;
    Ok(PacketOut { in_port, frame, fields, actions: read_actions(actions, names)? })
}

/// Instructions belong to flows.
const INSTRUCTIONS: &[&str] = &["goto_table", "write_actions", "clear_actions", "write_metadata"];

fn read_actions(text: &str, names: &dyn PortNames) -> Result<Actions, ParseError> {
    let actions = parse_actions(text, names)?;
    let name = |a: &Action| match a {
        Action::GotoTable(_) => Some(INSTRUCTIONS[0]),
        Action::WriteActions(_) => Some(INSTRUCTIONS[1]),
        Action::ClearActions => Some(INSTRUCTIONS[2]),
        Action::WriteMetadata { .. } => Some(INSTRUCTIONS[3]),
        _ => None,
    };
    let Some(name) = actions.iter().find_map(name) else { return Ok(actions) };
    let word = text.find(name).and_then(|at| text.get(at..at + name.len())).unwrap_or(text);
    Err(ParseError::new(word, format!("{name} instruction not allowed here")))
}

/// True if a group that the actions name is not there. Nesting is bounded where actions are read.
fn lacks_group(groups: &Groups, actions: &[Action]) -> bool {
    actions.iter().any(|a| match a {
        Action::Group(id) => groups.get(*id).is_none(),
        Action::Clone(inner) => lacks_group(groups, inner),
        _ => false,
    })
}

/// A packet can come in by a port of its own, or by none.
fn check_in_port(port: OfPort, text: &str) -> Result<(), String> {
    let reserved = port.0 > OfPort::MAX.0;
    match !reserved || [OfPort::LOCAL, OfPort::NONE, OfPort::CONTROLLER].contains(&port) {
        true => Ok(()),
        false => Err(format!("{text} is not a valid OpenFlow port for PACKET_OUT")),
    }
}

/// Fields that a packet has beside its bytes.
fn pipeline_field(name: &str) -> Result<&'static Field, String> {
    let field = openflow::field(name).ok_or_else(|| format!("unknown keyword {name}"))?;
    let of_packet = size_of::<flow::FlowKey>();
    let ours = usize::from(field.at) >= of_packet
        && !field.name.starts_with("ct_")
        && !["actset_output", "conj_id", "dp_hash"].contains(&field.name);
    match ours {
        true => Ok(field),
        false => Err(format!("{name} is not a valid pipeline field for PACKET_OUT")),
    }
}

fn hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let nibble = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let bytes = digits.chunks(2).map(|pair| match pair {
        [a, b] => Some(nibble(*a)? << 4 | nibble(*b)?),
        _ => None,
    });
    let frame: Option<Vec<u8>> = bytes.collect();
    match frame {
        None => Err("Trailing garbage in packet data"),
        Some(f) if f.len() < FRAME_MIN => Err("Packet data too short for Ethernet"),
        Some(f) if f.len() > FRAME_MAX => Err("Packet data too long"),
        Some(f) => Ok(f),
    }
}

/// Has the packet sent; what it causes is applied before.
pub(super) fn send(call: &Call<'_>, p: PacketOut) -> Result<(), String> {
    let mut out = Extracted::default();
    let len = p.frame.len();
    // The whole frame is there: what a header lacks is lacking in the packet.
    let _ = extract(&p.frame, len, 0, &mut out);
    let mut key = FullKey::new(&out.key, u32::from(p.in_port.0));
    for (field, value, mask) in &p.fields {
        field.set(&mut key, *value, *mask);
    }
    let bridge = call.bridge();
    let groups = call.pipeline.groups(bridge).map_err(|e| e.to_string())?;
    if lacks_group(&groups, &p.actions) {
        return Err(explain::refused(ARGUMENT, call.text(), "OFPBAC_BAD_OUT_GROUP"));
    }
    let said = call.pipeline.packet_out(bridge, p.in_port, &p.actions, &key);
    let translation = said.map_err(|e| explain::refused(ARGUMENT, call.text(), &e.to_string()))?;
    let seen = Seen { packets: 1, bytes: len as u64, tcp_flags: 0, now_ms: call.now_ms };
    translation.effects.apply(&seen);
    if translation.actions.is_empty() {
        return Ok(());
    }
    let s = locked(call.switch);
    let from = s.running.values().find(|r| r.bridge == bridge && r.number == p.in_port);
    let from = from.map_or(DpPort(0), |r| r.dp);
    match s.pool.execute(p.frame, from, translation.actions) {
        true => Ok(()),
        false => Err("no thread could send the packet; try again".to_owned()),
    }
}
