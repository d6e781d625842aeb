//! Finding tables, columns and rows from what people type, and conditions on rows.

use std::cmp::Ordering;

use anyhow::{Result, anyhow, bail};
use ovsdb::replica::Row;
use ovsdb::{Atom, ColumnSchema, ColumnType, DatabaseSchema, Datum, TableSchema, Uuid};

use crate::suggest::did_you_mean;
use crate::text::{self, Names};
use crate::view::View;

/// Other ways to name a row than by UUID (ovs-vsctl(8)).
enum NamedBy {
    /// `.` is the only row.
    Dot,
    /// A column of the row itself.
    Column(&'static str),
    /// The row that this column of another table's row refers to, that one being found by name.
    Via(&'static str, &'static str),
}

/// How rows of each table are named.
const NAMED_BY: &[(&str, NamedBy)] = &[
    ("AutoAttach", NamedBy::Via("Bridge", "auto_attach")),
    ("Bridge", NamedBy::Column("name")),
    ("Controller", NamedBy::Via("Bridge", "controller")),
    ("Flow_Sample_Collector_Set", NamedBy::Column("id")),
    ("Flow_Table", NamedBy::Column("name")),
    ("IPFIX", NamedBy::Via("Bridge", "ipfix")),
    ("Interface", NamedBy::Column("name")),
    ("Manager", NamedBy::Column("target")),
    ("Mirror", NamedBy::Column("name")),
    ("NetFlow", NamedBy::Via("Bridge", "netflow")),
    ("Open_vSwitch", NamedBy::Dot),
    ("Port", NamedBy::Column("name")),
    ("QoS", NamedBy::Via("Port", "qos")),
    ("SSL", NamedBy::Dot),
    ("sFlow", NamedBy::Via("Bridge", "sflow")),
];

/// Fewest digits of a UUID that may stand for all of it.
const UUID_DIGITS_MIN: usize = 4;

/// The table meant by `given`: its name in any case, with `-` for `_`, or a unique beginning.
pub fn table<'a>(schema: &'a DatabaseSchema, given: &str) -> Result<&'a TableSchema> {
    let names = || schema.tables.iter().map(|table| table.name.as_str());
    match unabbreviate(given, names()) {
        Ok(at) => Ok(&schema.tables[at]),
        Err(Some(several)) => bail!("table \"{given}\" may be {several}"),
        Err(None) => bail!("no table \"{given}\"{}", did_you_mean(given, names())),
    }
}

/// The column meant by `given`, as with [`table`]. `_uuid` counts as a column where `with_uuid`.
pub fn column<'a>(
    table: &'a TableSchema,
    given: &str,
    with_uuid: bool,
) -> Result<&'a ColumnSchema> {
    if with_uuid && given == "_uuid" {
        return table.column("_uuid").ok_or_else(|| anyhow!("no column _uuid"));
    }
    let columns: Vec<&ColumnSchema> = table.own_columns().map(|(_, column)| column).collect();
    let names = || columns.iter().map(|column| column.name.as_str());
    let name = &table.name;
    match unabbreviate(given, names()) {
        Ok(at) => Ok(columns[at]),
        Err(Some(several)) => bail!("column \"{given}\" of table {name} may be {several}"),
        Err(None) => {
            bail!("table {name} has no column \"{given}\"{}", did_you_mean(given, names()))
        }
    }
}

/// Position of the name meant; the candidates if there are several, `None` if there is none.
fn unabbreviate<'a>(
    given: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<usize, Option<String>> {
    let fold = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let wanted = fold(given);
    let mut begins = Vec::new();
    for (at, name) in names.enumerate() {
        let folded = fold(name);
        if folded == wanted {
            return Ok(at);
        }
        if !wanted.is_empty() && folded.starts_with(&wanted) {
            begins.push((at, name));
        }
    }
    match begins.as_slice() {
        [] => Err(None),
        [(at, _)] => Ok(*at),
        several => Err(Some(several.iter().map(|(_, n)| *n).collect::<Vec<_>>().join(" or "))),
    }
}

/// The row of `table` meant by `given`, if there is one.
pub fn find_row(
    view: &View,
    names: &Names,
    table: &TableSchema,
    given: &str,
) -> Result<Option<Uuid>> {
    if let Ok(uuid) = given.parse::<Uuid>()
        && view.row(&table.name, uuid).is_some()
    {
        return Ok(Some(uuid));
    }
    if given.starts_with('@') {
        let uuid = names.defined(given);
        return Ok(uuid.filter(|uuid| view.row(&table.name, *uuid).is_some()));
    }
    if let Some((_, by)) = NAMED_BY.iter().find(|(name, _)| *name == table.name)
        && let Some(uuid) = find_named(view, table, by, given)?
    {
        return Ok(Some(uuid));
    }
    let digits = given.len() >= UUID_DIGITS_MIN
        && given.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if !digits {
        return Ok(None);
    }
    let given = given.to_ascii_lowercase();
    let begins = |uuid: &Uuid| uuid.to_string().starts_with(&given);
    let mut rows = view.rows(&table.name).map(|(uuid, _)| uuid).filter(begins);
    match (rows.next(), rows.next()) {
        (Some(_), Some(_)) => bail!("several rows of table {} begin with {given}", table.name),
        (first, _) => Ok(first),
    }
}

fn find_named(view: &View, table: &TableSchema, by: &NamedBy, given: &str) -> Result<Option<Uuid>> {
    match by {
        NamedBy::Dot => {
            let mut rows = view.rows(&table.name);
            Ok(rows.next().filter(|_| given == ".").map(|(uuid, _)| uuid))
        }
        NamedBy::Column(column) => {
            let matches = |row: &Row| match row.get(column).and_then(Datum::as_atom) {
                Some(Atom::String(text)) => text == given,
                Some(atom) => atom.to_string() == given,
                None => false,
            };
            let mut rows = view.rows(&table.name).filter(|(_, row)| matches(row));
            match (rows.next(), rows.next()) {
                (Some(_), Some(_)) => {
                    bail!("several rows of table {} have {column} {given}; use a UUID", table.name)
                }
                (first, _) => Ok(first.map(|(uuid, _)| uuid)),
            }
        }
        NamedBy::Via(other, column) => {
            let mut rows = view.rows(other).filter(|(_, row)| row.string("name") == given);
            let target = rows.next().and_then(|(_, row)| row.uuid(column));
            Ok(target.filter(|uuid| view.row(&table.name, *uuid).is_some()))
        }
    }
}

/// As [`find_row`]; a row that does not exist is an error.
pub fn row(view: &View, names: &Names, table: &TableSchema, given: &str) -> Result<Uuid> {
    if let Some(uuid) = find_row(view, names, table, given)? {
        return Ok(uuid);
    }
    let rows: Vec<&Row> = view.rows(&table.name).map(|(_, row)| row).collect();
    let near =
        did_you_mean(given, rows.iter().map(|row| row.string("name")).filter(|n| !n.is_empty()));
    let name = &table.name;
    match name.as_str() {
        "Open_vSwitch" | "SSL" => {
            bail!("table {name} has no row \"{given}\"; its only row is \".\"")
        }
        _ => bail!("table {name} has no row \"{given}\"{near}"),
    }
}

/// `COLUMN[:KEY]` and, where one was asked for, an operator and a value.
#[derive(Debug)]
pub struct Clause<'a, 't> {
    /// The column.
    pub column: &'a ColumnSchema,
    /// The key after the colon.
    pub key: Option<&'t str>,
    /// The operator, of those allowed.
    pub operator: &'static str,
    /// What follows it.
    pub value: &'t str,
}

/// The operator of `set` and `create`.
pub const ASSIGN: &[&str] = &["="];
/// The operators of `find` and `wait-until`, each before those that it begins with.
pub const COMPARE: &[&str] = &[
    "{not-in}", "{in}", "{!=}", "{<=}", "{>=}", "{=}", "{<}", "{>}", "!=", "<=", ">=", "=", "<",
    ">",
];

/// Reads `COLUMN[:KEY]`, and `OPERATOR VALUE` after it if `operators` is not empty.
pub fn clause<'a, 't>(
    table: &'a TableSchema,
    given: &'t str,
    operators: &[&'static str],
) -> Result<Clause<'a, 't>> {
    let (name, mut rest) = text::token(given)?;
    if name.is_empty() {
        bail!("\"{given}\" lacks a column name at its start");
    }
    let column = column(table, name, operators.is_empty())?;
    let mut key = None;
    if let Some(after) = rest.strip_prefix(':') {
        let (word, after) = text::token(after)?;
        if word.is_empty() {
            bail!("\"{given}\" lacks a key after the colon");
        }
        (key, rest) = (Some(word), after);
    }
    if operators.is_empty() {
        if !rest.is_empty() {
            bail!("\"{given}\": \"{rest}\" does not belong there; expected COLUMN or COLUMN:KEY");
        }
        return Ok(Clause { column, key, operator: "", value: "" });
    }
    let operator = operators.iter().find(|operator| rest.starts_with(**operator));
    let value = operator.map(|operator| &rest[operator.len()..]);
    match (operator, value) {
        (Some(operator), Some(value)) if !value.is_empty() => {
            Ok(Clause { column, key, operator, value })
        }
        (Some(operator), _) => bail!(
            "\"{given}\" lacks a value after \"{operator}\"; write '\"\"' for an empty string"
        ),
        (None, _) if operators.len() == 1 => {
            bail!("\"{given}\" lacks \"=\" and a value; expected COLUMN[:KEY]=VALUE")
        }
        (None, _) => bail!("\"{given}\" lacks an operator such as = or != and a value"),
    }
}

/// Whether a row meets a condition (ovs-vsctl(8), "find").
pub fn meets(row: &Row, uuid: Uuid, clause: &Clause, names: &mut Names) -> Result<bool> {
    let have = match clause.column.name.as_str() {
        "_uuid" => Datum::scalar(uuid),
        name => row.get(name).cloned().unwrap_or_else(Datum::empty_set),
    };
    let Some(key) = clause.key else {
        let want = match clause.operator.starts_with('{') {
            true => text::datum_any_size(clause.value, &clause.column.ty, names)?,
            false => text::datum(clause.value, &clause.column.ty, names)?,
        };
        return Ok(compare(&have, clause.operator, &want));
    };
    let (key, value_type) = map_key(clause.column, key, names)?;
    let value = have.get(&key).cloned();
    if clause.operator.starts_with('{') {
        let set = ColumnType { key: value_type, value: None, min: 0, max: ovsdb::UNLIMITED };
        let want = text::datum(clause.value, &set, names)?;
        return Ok(compare(&Datum::set(value), clause.operator, &want));
    }
    let want = text::atom(clause.value, &value_type, names)?;
    Ok(value.is_some_and(|v| compare(&Datum::scalar(v), clause.operator, &Datum::scalar(want))))
}

/// A key of a map column and the type of the map's values.
pub fn map_key(
    column: &ColumnSchema,
    key: &str,
    names: &mut Names,
) -> Result<(Atom, ovsdb::BaseType)> {
    let Some(value) = &column.ty.value else {
        bail!("column {} is not a map, so it has no key \"{key}\"", column.name);
    };
    Ok((text::atom(key, &column.ty.key, names)?, value.clone()))
}

fn compare(have: &Datum, operator: &str, want: &Datum) -> bool {
    // Fewer elements is less; then keys are compared, then values.
    let order = || {
        let sizes = have.len().cmp(&want.len());
        let keys = || have.keys().cmp(want.keys());
        sizes.then_with(keys).then_with(|| have.values().cmp(want.values()))
    };
    match operator {
        "=" | "{=}" => have == want,
        "!=" | "{!=}" => have != want,
        "<" => order() == Ordering::Less,
        ">" => order() == Ordering::Greater,
        "<=" => order() != Ordering::Greater,
        ">=" => order() != Ordering::Less,
        "{<=}" | "{in}" => want.includes_all(have),
        "{<}" => want.includes_all(have) && have != want,
        "{>=}" => have.includes_all(want),
        "{>}" => have.includes_all(want) && have != want,
        _ => want.excludes_all(have),
    }
}
