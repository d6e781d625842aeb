//! Flows: `add-flow(s)`, `mod-flows`, `del-flows`, `dump-flows`, `dump-aggregate`, and tables.

use super::explain::{self, Origin};
use super::lines::{self, Line};
use super::options::Names;
use super::{Answer, Call, sort};
use crate::commands::{settle, text};
use openflow::{Command, FlowMod, parse_flow_mod};
use pipeline::Changes;
use std::fmt::Write;
use tables::{DumpOptions, MAX_TABLE, Rule, TableConfig, Tables};

/// Table number that means all tables.
const ALL_TABLES: u8 = 255;

pub(super) fn add(call: &Call<'_>) -> Answer {
    change(call, Command::Add)
}

pub(super) fn modify(call: &Call<'_>) -> Answer {
    change(call, if call.options.strict { Command::ModifyStrict } else { Command::Modify })
}

pub(super) fn delete(call: &Call<'_>) -> Answer {
    change(call, if call.options.strict { Command::DeleteStrict } else { Command::Delete })
}

/// What the call says to change: its last argument, or each line of it if it is a file.
pub(super) fn said<'c>(call: &'c Call<'_>) -> Box<dyn Iterator<Item = Line<'c>> + 'c> {
    match call.options.file {
        Some(_) => Box::new(lines::lines(call.text())),
        None => Box::new(std::iter::once(Line { number: 1, text: call.text() })),
    }
}

/// Where a line of what the call says comes from.
pub(super) fn origin<'c>(call: &'c Call<'_>, line: Line<'_>) -> Origin<'c> {
    Origin { file: call.options.file.as_deref(), line: line.number }
}

/// Reads a flow.
pub(super) fn parse(call: &Call<'_>, line: Line<'_>, command: Command) -> Result<FlowMod, String> {
    let parsed = parse_flow_mod(line.text, command, call.reading());
    parsed.map_err(|e| explain::parse_error(origin(call, line), line.text, e))
}

/// Applies what the call says, in order. Text that does not parse changes nothing. A flow that the
/// tables refuse ends it: what came before stays, unless `--bundle` wants all or nothing.
fn change(call: &Call<'_>, default: Command) -> Answer {
    let refused = call.pipeline.change(call.bridge(), call.now_ms, |changes| {
        let mut refused = None;
        for line in said(call) {
            let (line, command) = command_of(call, line, default);
            let m = parse(call, line, command)?;
            if refused.is_some() {
                continue;
            }
            if let Err(why) = apply(call, changes, line, &m) {
                if call.options.bundle {
                    return Err(why);
                }
                refused = Some(why);
            }
        }
        Ok(refused)
    })?;
    refused.map_or(Ok(String::new()), Err)
}

/// A line of `add-flows` may say what to do.
fn command_of<'t>(call: &Call<'_>, line: Line<'t>, default: Command) -> (Line<'t>, Command) {
    if call.options.file.is_none() || default != Command::Add {
        return (line, default);
    }
    let (command, text) = lines::command(line.text);
    (Line { text, ..line }, command)
}

/// Applies one change, or says why not.
pub(super) fn apply(
    call: &Call<'_>,
    changes: &mut Changes<'_>,
    line: Line<'_>,
    m: &FlowMod,
) -> Result<(), String> {
    let done = changes.flow(m);
    done.map_err(|e| explain::refused(origin(call, line), line.text, &e.to_string()))
}

/// The flows that the call is about.
fn filter(call: &Call<'_>) -> Result<FlowMod, String> {
    parse(call, Line { number: 1, text: call.text() }, Command::Delete)
}

fn tables_of(call: &Call<'_>) -> Result<Tables, String> {
    call.pipeline.tables(call.bridge()).map_err(|e| e.to_string())
}

pub(super) fn dump(call: &Call<'_>) -> Answer {
    let filter = filter(call)?;
    // What megaflows forwarded is told to the flows now and then; for this, now.
    settle(call.switch);
    let tables = tables_of(call)?;
    let stats = !call.options.no_stats;
    let options = DumpOptions { stats, table_names: call.options.names == Names::Print };
    if call.options.sort.is_empty() {
        return Ok(tables.dump_flows(&filter, call.now_ms, options, call.printing()));
    }
    let mut rules: Vec<&Rule> = tables.select(&filter).into_iter().map(|r| &**r).collect();
    sort::sort(&mut rules, &call.options.sort);
    let one = |rule: &&Rule| {
        let only = exactly(rule, &filter);
        tables.dump_flows(&only, call.now_ms, options, call.printing())
    };
    Ok(rules.iter().map(one).collect())
}

/// A filter for one flow.
fn exactly(rule: &Rule, filter: &FlowMod) -> FlowMod {
    FlowMod {
        command: Command::DeleteStrict,
        table: Some(rule.table),
        priority: rule.priority,
        matches: rule.matches(),
        ..filter.clone()
    }
}

pub(super) fn aggregate(call: &Call<'_>) -> Answer {
    let filter = filter(call)?;
    settle(call.switch);
    Ok(tables_of(call)?.dump_aggregate(&filter))
}

pub(super) fn tables(call: &Call<'_>) -> Answer {
    settle(call.switch);
    Ok(tables_of(call)?.dump_tables())
}

pub(super) fn table_desc(call: &Call<'_>) -> Answer {
    let tables = tables_of(call)?;
    let mut out = "OFPST_TABLE_DESC reply (OF1.4) (xid=0x2):".to_owned();
    for table in 0..=MAX_TABLE {
        let config = tables.table_config(table);
        let _ = write!(out, "\n  table {table}");
        if let Some(name) = config.and_then(|c| c.name.as_deref()) {
            let _ = write!(out, " (\"{name}\")");
        }
        let evicts = config.is_some_and(|c| c.evict);
        out += match evicts {
            true => ":\n   eviction=on eviction_flags=OTHER|IMPORTANCE|LIFETIME\n",
            false => ":\n   eviction=off eviction_flags=OTHER|IMPORTANCE|LIFETIME\n",
        };
        out += "   vacancy=off\n";
    }
    Ok(out)
}

pub(super) fn mod_table(call: &Call<'_>) -> Answer {
    let (name, setting) = (call.args[1], call.args[2]);
    let change = table_setting(setting)?;
    let tables = tables_of(call)?;
    let by_name = || {
        let named =
            |t: &u8| tables.table_config(*t).is_some_and(|c| c.name.as_deref() == Some(name));
        (0..=MAX_TABLE).find(named)
    };
    let number = match name {
        "all" | "ALL" => Some(ALL_TABLES),
        _ => name.parse().ok().filter(|n| *n <= MAX_TABLE || *n == ALL_TABLES).or_else(by_name),
    };
    let number = number.ok_or_else(|| format!("unknown table \"{name}\""))?;
    let wanted = if number == ALL_TABLES { 0..=MAX_TABLE } else { number..=number };
    for table in wanted {
        let mut config = tables.table_config(table).cloned().unwrap_or_default();
        change(&mut config);
        let done = call.pipeline.set_table_config(call.bridge(), table, config);
        text(done.map(|()| String::new()))?;
    }
    Ok(String::new())
}

type SetTable = Box<dyn Fn(&mut TableConfig)>;

fn table_setting(setting: &str) -> Result<SetTable, String> {
    match setting {
        "evict" => Ok(Box::new(|c| c.evict = true)),
        "noevict" => Ok(Box::new(|c| c.evict = false)),
        "novacancy" => Ok(Box::new(|_| {})),
        "drop" | "continue" | "controller" => Err(format!(
            "table_mod '{setting}' is not supported; a flow of priority 0 does the same"
        )),
        _ if setting.starts_with("vacancy:") => Err(format!(
            "table_mod '{setting}' is not possible yet: controllers come with OpenFlow"
        )),
        _ => match setting.strip_prefix("name:").map(str::to_owned) {
            Some(name) => {
                let name = Some(name).filter(|n| !n.is_empty());
                Ok(Box::new(move |c| c.name.clone_from(&name)))
            }
            None => Err(format!("invalid table_mod setting {setting}")),
        },
    }
}
