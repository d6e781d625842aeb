//! Flows as text: what `ovs-ofctl add-flow`, `mod-flows`, `del-flows` and `dump-flows` take, and what
//! `dump-flows` prints.

use crate::action::{self, NameOfPort, OfAction, PortByName, parse_port};
use crate::fields::{self, bounded, number};
use crate::port::OfPort;
use crate::rule::{DEFAULT_PRIORITY, MAX_TABLE, Match, Rule};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a flow's text is for; it decides which words may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new flow.
    Add,
    /// New actions for the flows that match.
    Modify,
    /// Choice of flows to delete or to show.
    Select,
}

/// A parsed flow text.
#[derive(Debug, Clone)]
pub(crate) struct FlowText {
    /// `None` for all tables.
    pub table: Option<u8>,
    pub priority: u16,
    /// The cookie to give.
    pub cookie: u64,
    /// Cookie and mask to choose flows by.
    pub cookie_filter: Option<(u64, u64)>,
    pub out_port: Option<OfPort>,
    pub matches: Match,
    pub actions: Arc<[OfAction]>,
}

/// How flows are printed.
#[derive(Debug, Clone, Copy)]
pub struct DumpOptions {
    /// Ports by name instead of number (`--names`).
    pub names: bool,
    /// Duration and counts too; off is `--no-stats`.
    pub stats: bool,
}

impl Default for DumpOptions {
    /// Numbers, with statistics.
    fn default() -> Self {
        DumpOptions { names: false, stats: true }
    }
}

/// Parses one flow.
pub(crate) fn parse(
    text: &str,
    purpose: Purpose,
    port: PortByName<'_>,
) -> Result<FlowText, String> {
    let mut flow = FlowText {
        table: None,
        priority: DEFAULT_PRIORITY,
        cookie: 0,
        cookie_filter: None,
        out_port: None,
        matches: Match::any(),
        actions: Arc::new([]),
    };
    let (fields, actions) = split_actions(text);
    match (purpose, actions) {
        (Purpose::Select, Some(_)) => {
            return Err("unknown keyword actions: no actions are given here".to_owned());
        }
        (Purpose::Select, None) => {}
        (_, None) => {
            words(fields).try_for_each(|w| word(&mut flow, w, purpose, port))?;
            return Err("must specify an action: the flow has no actions=".to_owned());
        }
        (_, Some(actions)) => flow.actions = action::parse(actions, port)?.into(),
    }
    words(fields).try_for_each(|w| word(&mut flow, w, purpose, port))?;
    let value = flow.matches.mask.apply(&flow.matches.value);
    flow.matches.value = value;
    Ok(flow)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| c == ',' || c.is_ascii_whitespace();
    text.split(separates).filter(|w| !w.is_empty())
}

/// What comes before `actions=`, and what after it.
fn split_actions(text: &str) -> (&str, Option<&str>) {
    for name in ["actions=", "action="] {
        let mut from = 0;
        while let Some(at) = text[from..].find(name).map(|i| i + from) {
            let starts_word = text[..at].ends_with(|c: char| c == ',' || c.is_ascii_whitespace());
            if at == 0 || starts_word {
                return (&text[..at], Some(&text[at + name.len()..]));
            }
            from = at + name.len();
        }
    }
    (text, None)
}

/// One `name=value` or keyword.
fn word(
    flow: &mut FlowText,
    word: &str,
    purpose: Purpose,
    port: PortByName<'_>,
) -> Result<(), String> {
    let Some((name, value)) = word.split_once('=') else {
        return fields::set_keyword(&mut flow.matches, word);
    };
    match (name, purpose) {
        ("table", _) => flow.table = table(value)?,
        ("priority", Purpose::Add | Purpose::Modify) => {
            flow.priority = bounded(name, value, 0xffff)? as u16;
        }
        ("priority", Purpose::Select) => {
            return Err("unknown keyword priority: it has no meaning without --strict".to_owned());
        }
        ("cookie", _) => cookie(flow, value, purpose)?,
        ("out_port", Purpose::Add | Purpose::Modify) => {
            return Err("unknown keyword out_port: it chooses flows to delete or show".to_owned());
        }
        ("out_port", Purpose::Select) => {
            let p = parse_port(value, port);
            flow.out_port = Some(p.ok_or_else(|| format!("{value}: unknown port for out_port"))?);
        }
        // What dump-flows prints can be loaded again.
        ("duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age", Purpose::Add) => {}
        _ => fields::set(&mut flow.matches, name, value, port)?,
    }
    Ok(())
}

fn table(value: &str) -> Result<Option<u8>, String> {
    match number(value) {
        Some(255) => Ok(None),
        Some(n) if n <= MAX_TABLE.into() => Ok(Some(n as u8)),
        _ => Err(format!("{value}: unknown table; tables are 0 to {MAX_TABLE}")),
    }
}

fn cookie(flow: &mut FlowText, value: &str, purpose: Purpose) -> Result<(), String> {
    let read = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        _ => number(text).ok_or_else(|| format!("{text}: bad value for cookie: not a number")),
    };
    match (value.split_once('/'), purpose) {
        (Some(_), Purpose::Add) => Err("flow additions cannot use a cookie mask".to_owned()),
        (Some((cookie, mask)), _) => {
            flow.cookie_filter = Some((read(cookie)?, read(mask)?));
            Ok(())
        }
        (None, Purpose::Select) => Err(format!(
            "cannot set cookie (to match on a cookie, specify a mask, e.g. cookie={value}/-1)"
        )),
        (None, _) => {
            flow.cookie = read(value)?;
            Ok(())
        }
    }
}

/// One flow as a line of `dump-flows`, without the line's end.
pub(crate) fn format(
    table: u8,
    rule: &Rule,
    now_ms: u64,
    stats: bool,
    name: NameOfPort<'_>,
) -> String {
    let mut out = " ".to_owned();
    // Writing to a String cannot fail.
    if stats || rule.cookie != 0 {
        let _ = write!(out, "cookie={:#x}, ", rule.cookie);
    }
    if stats {
        let _ = write!(out, "duration={}s, ", seconds(now_ms.saturating_sub(rule.created_ms)));
    }
    if stats || table != 0 {
        let _ = write!(out, "table={table}, ");
    }
    if stats {
        let (packets, bytes) = (&rule.counts.packets, &rule.counts.bytes);
        let _ =
            write!(out, "n_packets={}, n_bytes={}, ", packets.load(Relaxed), bytes.load(Relaxed));
    }
    let mut matches = Vec::new();
    if rule.priority != DEFAULT_PRIORITY {
        matches.push(format!("priority={}", rule.priority));
    }
    matches.extend(fields::format(&rule.matches, name));
    out.push_str(&matches.join(","));
    if !matches.is_empty() {
        out.push(' ');
    }
    out.push_str("actions=");
    out.push_str(&action::format(&rule.actions, name));
    out
}

/// Seconds with as many decimals as say something: `5`, `5.1`, `0.013`.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
