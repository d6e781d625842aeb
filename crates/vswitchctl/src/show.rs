//! `show`: the switch as an indented tree.

use anyhow::Result;
use ovsdb::{Datum, Uuid};

use crate::cli::Invocation;
use crate::commands::Context;
use crate::view::{ROOT, View};

/// A table in the tree: the column that names its rows, and the columns shown below. Columns that
/// refer to a table of the tree are shown as its rows.
struct Level {
    table: &'static str,
    name: Option<&'static str>,
    columns: &'static [&'static str],
}

const LEVELS: &[Level] = &[
    Level { table: ROOT, name: None, columns: &["manager_options", "bridges", "ovs_version"] },
    Level {
        table: "Bridge",
        name: Some("name"),
        columns: &["controller", "fail_mode", "datapath_type", "ports"],
    },
    Level { table: "Port", name: Some("name"), columns: &["tag", "trunks", "interfaces"] },
    Level { table: "Interface", name: Some("name"), columns: &["type", "options", "error"] },
    Level { table: "Controller", name: Some("target"), columns: &["is_connected"] },
    Level { table: "Manager", name: Some("target"), columns: &["is_connected"] },
];

/// Tables whose changing columns the tree shows.
pub const STATUS_OF: &[&str] = &["Controller", "Manager"];

/// `show`
pub fn show(ctx: &mut Context, _: &Invocation) -> Result<()> {
    let (root, _) = ctx.view.root()?;
    let mut lines = Vec::new();
    show_row(&ctx.view, &LEVELS[0], root, 0, &mut lines)?;
    lines.iter().for_each(|line| ctx.print(line));
    Ok(())
}

fn show_row(
    view: &View,
    level: &Level,
    uuid: Uuid,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<()> {
    let table = view.table(level.table)?;
    let indent = "    ".repeat(depth);
    match level.name.and_then(|name| table.column(name)) {
        Some(name) => {
            let name = view.get(level.table, uuid, &name.name)?.to_text(&name.ty);
            lines.push(format!("{indent}{} {name}", level.table));
        }
        None => lines.push(format!("{indent}{uuid}")),
    }
    for column in level.columns.iter().filter_map(|column| table.column(column)) {
        let datum = view.get(level.table, uuid, &column.name)?;
        let target = column.ty.key.ref_table.as_deref();
        if let Some(below) = LEVELS.iter().find(|level| Some(level.table) == target) {
            for row in sorted(view, below, &datum) {
                show_row(view, below, row, depth + 1, lines)?;
            }
        } else if !datum.is_empty() && datum != Datum::default_of(&column.ty) {
            lines.push(format!("{indent}    {}: {}", column.name, datum.to_text(&column.ty)));
        }
    }
    Ok(())
}

/// The rows that exist, by name.
fn sorted(view: &View, level: &Level, rows: &Datum) -> Vec<Uuid> {
    let name = level.name.unwrap_or_default();
    let named = |row: Uuid| Some((view.row(level.table, row)?.string(name).to_owned(), row));
    let mut rows: Vec<(String, Uuid)> = rows.uuids().filter_map(named).collect();
    rows.sort();
    rows.into_iter().map(|(_, row)| row).collect()
}
