//! `diff-flows`: how the flows of two bridges or files differ, as `ovs-ofctl` prints it.

use super::explain::{self, Origin};
use super::names::BridgeNames;
use super::{Answer, Call, lines};
use openflow::{
    Action, Command, DEFAULT_PRIORITY, FlowMod, PortNames, format_actions, format_match,
    parse_flow_mod,
};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tables::Rule;

/// What makes a flow the same: table, priority, and match as text.
type Key = (u8, Reverse<u16>, String);
/// All else that is compared, as text.
type Flows = BTreeMap<Key, String>;

/// The arguments are two pairs: `bridge` and its name, or `file:NAME` and its text.
pub(super) fn run(call: &Call<'_>) -> Answer {
    let mut names = BridgeNames::default();
    for pair in call.args.chunks(2) {
        if let ["bridge", bridge] = pair {
            let ports = call.pipeline.ports(bridge);
            names = BridgeNames::new(ports.map_err(|_| format!("{bridge} is not a bridge"))?);
        }
    }
    let reading = names.read(call.options.names);
    let printing = names.print(call.options.names);
    let mut sources = Vec::new();
    for pair in call.args.chunks(2) {
        sources.push(match pair {
            ["bridge", bridge] => of_bridge(call, bridge, printing)?,
            [kind, text] if kind.starts_with("file:") => {
                of_file(&kind["file:".len()..], text, reading, printing)?
            }
            _ => return Err("each source is \"bridge NAME\" or \"file:NAME TEXT\"".to_owned()),
        });
    }
    let [first, second] = &sources[..] else {
        return Err("there are two sources to compare".to_owned());
    };
    Ok(difference(first, second))
}

fn difference(first: &Flows, second: &Flows) -> String {
    let mut out = String::new();
    let keys: std::collections::BTreeSet<&Key> = first.keys().chain(second.keys()).collect();
    for key in keys {
        let (a, b) = (first.get(key), second.get(key));
        if a == b {
            continue;
        }
        for (sign, version) in [('-', a), ('+', b)] {
            if let Some(rest) = version {
                out.push(sign);
                if key.0 != 0 {
                    out += &format!("table={} ", key.0);
                }
                out += &format!("{} {rest}\n", key.2);
            }
        }
    }
    out
}

fn of_bridge(call: &Call<'_>, bridge: &str, names: &dyn PortNames) -> Result<Flows, String> {
    let tables = call.pipeline.tables(bridge).map_err(|e| e.to_string())?;
    Ok(tables.rules().map(|r| of_rule(r, names)).collect())
}

fn of_rule(r: &Rule, names: &dyn PortNames) -> (Key, String) {
    let timeouts = [r.idle_timeout(), r.hard_timeout(), r.importance];
    let rest = version(r.cookie, timeouts, &r.actions, names);
    (key(r.table, r.priority, &r.matches(), names), rest)
}

fn of_file(
    name: &str,
    text: &str,
    reading: &dyn PortNames,
    printing: &dyn PortNames,
) -> Result<Flows, String> {
    let mut flows = Flows::new();
    for line in lines::lines(text) {
        let m = parse_flow_mod(line.text, Command::Add, reading).map_err(|e| {
            let origin = Origin { file: Some(name), line: line.number };
            explain::parse_error(origin, line.text, e)
        })?;
        let (key, version) = of_mod(&m, printing);
        flows.insert(key, version);
    }
    Ok(flows)
}

fn of_mod(m: &FlowMod, names: &dyn PortNames) -> (Key, String) {
    let timeouts = [m.idle_timeout, m.hard_timeout, m.importance];
    let rest = version(m.new_cookie.unwrap_or(0), timeouts, &m.actions, names);
    (key(m.table.unwrap_or(0), m.priority, &m.matches, names), rest)
}

fn key(table: u8, priority: u16, matches: &openflow::Match, names: &dyn PortNames) -> Key {
    let shown = (priority != DEFAULT_PRIORITY).then_some(priority);
    (table, Reverse(priority), format_match(matches, names, shown))
}

/// Cookie, idle timeout, hard timeout and importance where there are any, and actions.
fn version(
    cookie: u64,
    [idle, hard, importance]: [u16; 3],
    actions: &[Action],
    names: &dyn PortNames,
) -> String {
    let mut out = String::new();
    if cookie != 0 {
        out += &format!("cookie={cookie:#x} ");
    }
    for (name, value) in
        [("idle_timeout", idle), ("hard_timeout", hard), ("importance", importance)]
    {
        if value != 0 {
            out += &format!("{name}={value} ");
        }
    }
    out + "actions=" + &format_actions(actions, names)
}
