//! `replace-flows`: makes a bridge have the flows of a file and no others.
//!
//! The file is read line by line and never held as flows, since these take much more memory than its
//! text.

use super::flows::{apply, parse, said};
use super::lines::Line;
use super::{Answer, Call};
use openflow::{Command, FlowMod};
use std::collections::HashSet;
use tables::{Rule, Tables};

pub(super) fn run(call: &Call<'_>) -> Answer {
    let bridge = call.bridge();
    call.pipeline.change(bridge, call.now_ms, |changes| {
        // First what stays, so that what goes makes room in full tables.
        let (mut stays, mut changes_later) = (HashSet::new(), HashSet::new());
        let mut new: Vec<Line<'_>> = Vec::new();
        for line in said(call) {
            let m = parse(call, line, Command::Add)?;
            let old = same(changes.tables(), &m);
            stays.extend(old.map(|rule| rule.serial));
            match old {
                // Of several lines for one flow the last counts.
                Some(rule) if is_as(rule, &m) && !changes_later.contains(&rule.serial) => {
                    if call.options.readd {
                        new.push(line);
                    }
                }
                Some(rule) => {
                    changes_later.insert(rule.serial);
                    new.push(line);
                }
                None => new.push(line),
            }
        }
        changes.remove_if(|rule| !stays.contains(&rule.serial));
        for line in new {
            let m = parse(call, line, Command::Add)?;
            apply(call, changes, line, &m)?;
        }
        Ok(String::new())
    })
}

/// The flow with the same table, match and priority.
fn same<'t>(tables: &'t Tables, m: &FlowMod) -> Option<&'t Rule> {
    let filter = FlowMod {
        command: Command::DeleteStrict,
        table: Some(m.table.unwrap_or(0)),
        cookie_filter: (0, 0),
        actions: Vec::new(),
        ..m.clone()
    };
    tables.select(&filter).first().map(|r| &***r)
}

/// True if the flow is in all else as `m` says.
fn is_as(rule: &Rule, m: &FlowMod) -> bool {
    rule.cookie == m.new_cookie.unwrap_or(0)
        && rule.idle_timeout() == m.idle_timeout
        && rule.hard_timeout() == m.hard_timeout
        && rule.importance == m.importance
        && rule.flags.send_flow_rem == m.send_flow_rem
        && *rule.actions == *m.actions
}
