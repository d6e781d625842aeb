//! OpenFlow actions and their text.

use crate::fields::similar;
use crate::port::OfPort;

/// Finds a port of the bridge by name.
pub(crate) type PortByName<'a> = &'a dyn Fn(&str) -> Option<OfPort>;
/// Gives the name of a port; `None` prints the number.
pub(crate) type NameOfPort<'a> = &'a dyn Fn(OfPort) -> Option<String>;

/// One action of a flow (ovs-actions(7)). No action at all drops the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfAction {
    /// To a port other than the one it came from.
    Output(OfPort),
    /// Back where it came from.
    InPort,
    /// As a learning switch does.
    Normal,
    /// To all ports but the one it came from.
    Flood,
    /// As `Flood`; the two differ once ports can be kept from flooding.
    All,
    /// To the bridge's own port.
    Local,
}

/// Names that ovs-actions(7) has and a later step brings.
const LATER: &[&str] = &[
    "table",
    "controller",
    "enqueue",
    "bundle",
    "bundle_load",
    "group",
    "strip_vlan",
    "pop_vlan",
    "push_vlan",
    "push_mpls",
    "pop_mpls",
    "mod_dl_src",
    "mod_dl_dst",
    "mod_vlan_vid",
    "mod_vlan_pcp",
    "set_vlan_vid",
    "set_vlan_pcp",
    "mod_nw_src",
    "mod_nw_dst",
    "mod_nw_tos",
    "mod_nw_ecn",
    "mod_nw_ttl",
    "mod_tp_src",
    "mod_tp_dst",
    "dec_ttl",
    "set_mpls_label",
    "set_mpls_tc",
    "set_mpls_ttl",
    "dec_mpls_ttl",
    "dec_nsh_ttl",
    "move",
    "load",
    "set_field",
    "push",
    "pop",
    "encap",
    "decap",
    "set_tunnel",
    "set_tunnel64",
    "set_queue",
    "pop_queue",
    "ct",
    "ct_clear",
    "learn",
    "conjunction",
    "multipath",
    "fin_timeout",
    "resubmit",
    "clone",
    "sample",
    "check_pkt_larger",
    "delete_field",
    "note",
    "exit",
    "meter",
    "clear_actions",
    "write_actions",
    "write_metadata",
    "goto_table",
    "apply_actions",
    "debug_recirc",
    "debug_slow",
    "none",
    "any",
];
/// Names that mean something here.
const KNOWN: &[&str] = &["output", "in_port", "normal", "flood", "all", "local", "drop"];

/// Parses what follows `actions=`.
pub(crate) fn parse(text: &str, port: PortByName<'_>) -> Result<Vec<OfAction>, String> {
    let mut out = Vec::new();
    let mut drop = false;
    let mut items = 0;
    for item in split(text) {
        items += 1;
        match parse_one(item, port)? {
            Some(action) => out.push(action),
            None => drop = true,
        }
    }
    if drop && items > 1 {
        return Err("\"drop\" must not be accompanied by any other action".to_owned());
    }
    Ok(out)
}

/// Splits at commas and white space outside parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    text.split(move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth <= 0 && (c == ',' || c.is_ascii_whitespace())
    })
    .filter(|s| !s.is_empty())
}

/// `None` is `drop`.
fn parse_one(item: &str, port: PortByName<'_>) -> Result<Option<OfAction>, String> {
    let at = item.find([':', '=', '(']).unwrap_or(item.len());
    let (name, rest) = item.split_at(at);
    let argument = rest.trim_start_matches([':', '=', '(']).trim_end_matches(')');
    let simple = match name.to_ascii_lowercase().as_str() {
        "output" => return output(argument, port).map(Some),
        "in_port" => OfAction::InPort,
        "normal" => OfAction::Normal,
        "flood" => OfAction::Flood,
        "all" => OfAction::All,
        "local" => OfAction::Local,
        "drop" => return no_argument(item, rest).map(|()| None),
        other if LATER.contains(&other) => {
            return Err(format!("action {other} is not supported yet"));
        }
        other if rest.is_empty() && starts_port(other, name, port) => {
            return output(name, port).map(Some);
        }
        other => {
            let hint = similar(other, KNOWN.iter().chain(LATER).copied());
            return Err(format!("unknown action {name}{hint}"));
        }
    };
    no_argument(item, rest)?;
    Ok(Some(simple))
}

/// A number or a port's name stands for an output.
fn starts_port(lower: &str, name: &str, port: PortByName<'_>) -> bool {
    lower.starts_with(|c: char| c.is_ascii_digit() || c == '"') || port(name).is_some()
}

fn no_argument(item: &str, rest: &str) -> Result<(), String> {
    match rest {
        "" => Ok(()),
        _ => Err(format!("{item}: this action takes no argument")),
    }
}

fn output(argument: &str, port: PortByName<'_>) -> Result<OfAction, String> {
    if argument.starts_with("port=") {
        return Err(format!("{argument}: output with max_len is not supported yet"));
    }
    if argument.eq_ignore_ascii_case("in_port") {
        return Ok(OfAction::InPort);
    }
    match parse_port(argument, port) {
        Some(OfPort::LOCAL) => Ok(OfAction::Local),
        Some(p) => Ok(OfAction::Output(p)),
        None if argument.contains('[') => {
            Err(format!("{argument}: output to a field is not supported yet"))
        }
        None => Err(format!(
            "{argument}: output to unknown port; give a number up to {}, LOCAL or the name of a port of this bridge",
            OfPort::MAX.0
        )),
    }
}

/// A port by number, name (also in quotes) or as `LOCAL`.
pub(crate) fn parse_port(text: &str, port: PortByName<'_>) -> Option<OfPort> {
    let name = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    match text.parse::<u16>() {
        Ok(n) => (n <= OfPort::MAX.0 || n == OfPort::LOCAL.0).then_some(OfPort(n)),
        Err(_) if text.eq_ignore_ascii_case("local") => Some(OfPort::LOCAL),
        Err(_) => port(name.unwrap_or(text)),
    }
}

/// A port's name as flow text has it, in quotes where it would not be read back otherwise.
pub(crate) fn port_text(number: OfPort, name: NameOfPort<'_>) -> String {
    let Some(text) = name(number).filter(|_| number != OfPort::LOCAL) else {
        return number.to_string();
    };
    let lower = text.to_ascii_lowercase();
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        && !KNOWN.contains(&lower.as_str())
        && !LATER.contains(&lower.as_str());
    if plain { text } else { format!("\"{text}\"") }
}

/// `output:2,NORMAL`, or `drop`.
pub(crate) fn format(actions: &[OfAction], name: NameOfPort<'_>) -> String {
    if actions.is_empty() {
        return "drop".to_owned();
    }
    let texts = actions.iter().map(|a| match a {
        OfAction::Output(p) => format!("output:{}", port_text(*p, name)),
        OfAction::InPort => "IN_PORT".to_owned(),
        OfAction::Normal => "NORMAL".to_owned(),
        OfAction::Flood => "FLOOD".to_owned(),
        OfAction::All => "ALL".to_owned(),
        OfAction::Local => "LOCAL".to_owned(),
    });
    texts.collect::<Vec<_>>().join(",")
}
