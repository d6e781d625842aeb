//! Groups: `add-group(s)`, `mod-group`, `del-groups`, buckets, and dumps.

use super::explain;
use super::flows::{origin, said};
use super::lines::Line;
use super::{Answer, Call};
use crate::commands::settle;
use openflow::{GroupCommand, GroupMod, parse_group_mod};
use pipeline::Changes;

pub(super) fn add(call: &Call<'_>) -> Answer {
    change(call, GroupCommand::Add)
}

pub(super) fn modify(call: &Call<'_>) -> Answer {
    let may_create = call.options.may_create;
    change(call, if may_create { GroupCommand::AddOrModify } else { GroupCommand::Modify })
}

pub(super) fn delete(call: &Call<'_>) -> Answer {
    change(call, GroupCommand::Delete)
}

pub(super) fn insert(call: &Call<'_>) -> Answer {
    change(call, GroupCommand::InsertBuckets)
}

pub(super) fn remove(call: &Call<'_>) -> Answer {
    change(call, GroupCommand::RemoveBuckets)
}

/// Words that may begin a line of `add-groups`.
const COMMANDS: &[(&str, GroupCommand)] = &[
    ("add", GroupCommand::Add),
    ("modify", GroupCommand::Modify),
    ("add_or_mod", GroupCommand::AddOrModify),
    ("delete", GroupCommand::Delete),
    ("insert_bucket", GroupCommand::InsertBuckets),
    ("insert_buckets", GroupCommand::InsertBuckets),
    ("remove_bucket", GroupCommand::RemoveBuckets),
    ("remove_buckets", GroupCommand::RemoveBuckets),
];

/// The command that a line begins with, and the rest; without one it adds.
pub(super) fn command(line: &str) -> (GroupCommand, &str) {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match COMMANDS.iter().find(|(word, _)| *word == first) {
        Some((_, command)) => (*command, rest.trim_start()),
        None => (GroupCommand::Add, line),
    }
}

/// Applies what the call says, as flows are: see there.
fn change(call: &Call<'_>, default: GroupCommand) -> Answer {
    let mixed = call.options.file.is_some() && default == GroupCommand::Add;
    let refused = call.pipeline.change(call.bridge(), call.now_ms, |changes| {
        let mut refused = None;
        for line in said(call) {
            let (command, text) = if mixed { command(line.text) } else { (default, line.text) };
            let line = Line { text, ..line };
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

pub(super) fn parse(
    call: &Call<'_>,
    line: Line<'_>,
    command: GroupCommand,
) -> Result<GroupMod, String> {
    let parsed = parse_group_mod(line.text, command, call.reading());
    parsed.map_err(|e| explain::parse_error(origin(call, line), line.text, e))
}

pub(super) fn apply(
    call: &Call<'_>,
    changes: &mut Changes<'_>,
    line: Line<'_>,
    m: &GroupMod,
) -> Result<(), String> {
    let done = changes.group(m);
    done.map_err(|e| explain::refused(origin(call, line), line.text, &e.to_string()))
}

/// One group by its number, or all for what is no number, as `ovs-ofctl` has it.
pub(super) fn dump(call: &Call<'_>) -> Answer {
    let groups = call.pipeline.groups(call.bridge()).map_err(|e| e.to_string())?;
    let id = call.text().parse().ok();
    let text = groups.dump_groups(id, call.printing());
    Ok(format!("NXST_GROUP_DESC reply (xid=0x2):\n{text}"))
}

pub(super) fn stats(call: &Call<'_>) -> Answer {
    let id = match call.args.get(1) {
        None => None,
        Some(text) => {
            let line = Line { number: 1, text };
            let m = parse(call, line, GroupCommand::Delete)?;
            (!m.all).then_some(m.group.id)
        }
    };
    settle(call.switch);
    let groups = call.pipeline.groups(call.bridge()).map_err(|e| e.to_string())?;
    let tables = call.pipeline.tables(call.bridge()).map_err(|e| e.to_string())?;
    let text = groups.dump_group_stats(id, &tables, call.now_ms);
    Ok(format!("NXST_GROUP reply (xid=0x6):\n{text}"))
}

pub(super) fn features() -> String {
    let actions = "output enqueue set_vlan_vid set_vlan_pcp strip_vlan mod_dl_src mod_dl_dst \
                   mod_nw_src mod_nw_dst mod_nw_tos mod_tp_src mod_tp_dst";
    let mut out = "NXST_GROUP_FEATURES reply (xid=0x2):\n Group table:\n    Types:  0xf\n    \
                   Capabilities:  0x7\n"
        .to_owned();
    for kind in ["all", "select", "indirect", "fast failover"] {
        out += &format!("    {kind} group:\n       max_groups=0xffffff00\n");
        out += &format!("       actions: {actions}\n");
    }
    out
}
