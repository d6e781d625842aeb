//! The database as the commands of one line see it: the replica with their own changes on top, and
//! the transaction that makes these changes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use ovsdb::replica::{Replica, Row};
use ovsdb::{DatabaseSchema, Datum, TableSchema, Uuid};
use serde_json::{Map, Value, json};

/// The table whose only row is the root of everything.
pub const ROOT: &str = "Open_vSwitch";

/// The replica with changes on top.
#[derive(Debug)]
pub struct View<'a> {
    base: &'a Replica,
    /// Rows changed or inserted, by table; `None` for rows deleted.
    changed: BTreeMap<String, BTreeMap<Uuid, Option<Row>>>,
}

/// What a transaction gave.
#[derive(Debug)]
pub struct Committed {
    /// Real identifiers of inserted rows by those used before.
    pub inserted: BTreeMap<Uuid, Uuid>,
    /// The number that the daemon's `cur_cfg` reaches when it has taken over the change.
    pub next_cfg: Option<i64>,
}

impl Committed {
    /// Reads the results of a transaction made of `operations`.
    pub fn read(operations: &[Value], results: &[Value]) -> Self {
        let mut inserted = BTreeMap::new();
        let mut next_cfg = None;
        for (operation, result) in operations.iter().zip(results) {
            let ours = operation["uuid-name"].as_str().and_then(named_uuid);
            let real = result["uuid"][1].as_str().and_then(|uuid| uuid.parse().ok());
            inserted.extend(ours.zip(real));
            if operation["op"] == "select" {
                next_cfg = result["rows"][0]["next_cfg"].as_i64();
            }
        }
        Self { inserted, next_cfg }
    }
}

impl<'a> View<'a> {
    /// A view without changes.
    pub fn new(base: &'a Replica) -> Self {
        Self { base, changed: BTreeMap::new() }
    }

    /// The schema.
    pub fn schema(&self) -> &'a DatabaseSchema {
        self.base.schema()
    }

    /// A table's schema; an error for one that this database lacks.
    pub fn table(&self, name: &str) -> Result<&'a TableSchema> {
        let table = self.schema().table(name);
        table.ok_or_else(|| anyhow!("the database has no table {name}"))
    }

    /// A row, if it exists.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        match self.changed.get(table).and_then(|rows| rows.get(&uuid)) {
            Some(changed) => changed.as_ref(),
            None => self.base.row(table, uuid),
        }
    }

    /// All rows of a table: those that exist already, then those inserted.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Row)> {
        let (base, changed) = (self.base.rows(table), self.changed.get(table));
        let current = move |(uuid, row)| match changed.and_then(|changed| changed.get(uuid)) {
            Some(changed) => Some((*uuid, changed.as_ref()?)),
            None => Some((*uuid, row)),
        };
        let inserted = changed.into_iter().flatten().filter(|(uuid, _)| !base.contains_key(uuid));
        let inserted = inserted.filter_map(|(uuid, row)| Some((*uuid, row.as_ref()?)));
        base.iter().filter_map(current).chain(inserted)
    }

    /// The only row of [`ROOT`].
    pub fn root(&self) -> Result<(Uuid, &Row)> {
        let row = self.rows(ROOT).next();
        row.ok_or_else(|| anyhow!("the database has no {ROOT} row"))
    }

    /// Inserts the root row if the database is empty.
    pub fn init(&mut self) -> Result<()> {
        if self.root().is_ok() {
            return Ok(());
        }
        self.insert(ROOT, Uuid::random())
    }

    /// A column's value.
    pub fn get(&self, table: &str, uuid: Uuid, column: &str) -> Result<Datum> {
        let value = self.row(table, uuid).and_then(|row| row.get(column));
        value.cloned().ok_or_else(|| anyhow!("table {table} has no row {uuid} or column {column}"))
    }

    /// Sets a column's value.
    pub fn set(&mut self, table: &str, uuid: Uuid, column: &str, value: Datum) -> Result<()> {
        let row = self.row(table, uuid).cloned();
        let mut row = row.ok_or_else(|| anyhow!("table {table} has no row {uuid}"))?;
        row.set(column, value);
        self.put(table, uuid, Some(row));
        Ok(())
    }

    /// Adds a row to a column that refers to rows.
    pub fn add_reference(&mut self, table: &str, uuid: Uuid, column: &str, to: Uuid) -> Result<()> {
        let value = self.get(table, uuid, column)?.union(&Datum::scalar(to));
        self.set(table, uuid, column, value)
    }

    /// Takes a row out of a column that refers to rows.
    pub fn drop_reference(
        &mut self,
        table: &str,
        uuid: Uuid,
        column: &str,
        to: Uuid,
    ) -> Result<()> {
        let value = self.get(table, uuid, column)?.subtract(&Datum::scalar(to));
        self.set(table, uuid, column, value)
    }

    /// Inserts a row of default values. The server chooses its real identifier.
    pub fn insert(&mut self, table: &str, uuid: Uuid) -> Result<()> {
        let columns = self.table(table)?.own_columns();
        let defaults = columns.map(|(_, c)| (c.name.clone(), Datum::default_of(&c.ty))).collect();
        self.put(table, uuid, Some(Row::new(defaults)));
        Ok(())
    }

    /// Deletes a row.
    pub fn delete(&mut self, table: &str, uuid: Uuid) {
        self.put(table, uuid, None);
    }

    fn put(&mut self, table: &str, uuid: Uuid, row: Option<Row>) {
        self.changed.entry(table.to_owned()).or_default().insert(uuid, row);
    }

    /// All changes: table, row, its old and its new columns.
    fn changes(&self) -> impl Iterator<Item = (&str, Uuid, Option<&Row>, Option<&Row>)> {
        self.changed.iter().flat_map(move |(table, rows)| {
            rows.iter().map(move |(uuid, row)| {
                (table.as_str(), *uuid, self.base.row(table, *uuid), row.as_ref())
            })
        })
    }

    /// The operations of RFC 7047, section 5.2 that make the changes; none if there are none.
    pub fn operations(&self) -> Vec<Value> {
        let new = self.changes().filter(|(_, _, old, new)| old.is_none() && new.is_some());
        let inserted: BTreeSet<Uuid> = new.map(|(_, uuid, _, _)| uuid).collect();
        let (mut waits, mut operations) = (Vec::new(), Vec::new());
        for (table, uuid, old, new) in self.changes() {
            match (old, new) {
                (Some(old), Some(new)) => {
                    let (wait, update) = update_ops(table, uuid, old, new, &inserted).unzip();
                    waits.extend(wait);
                    operations.extend(update);
                }
                (None, Some(new)) => operations.push(self.insert_op(table, uuid, new, &inserted)),
                // Rows of other tables go with the last reference to them, and only then.
                (Some(_), None) if self.schema().table(table).is_some_and(|t| t.is_root) => {
                    operations.push(json!({"op": "delete", "table": table, "where": this(uuid)}));
                }
                (_, None) => {}
            }
        }
        waits.extend(operations);
        waits
    }

    fn insert_op(&self, table: &str, uuid: Uuid, row: &Row, inserted: &BTreeSet<Uuid>) -> Value {
        let schema = self.schema().table(table);
        let is_default = |name: &str, value: &Datum| {
            let column = schema.and_then(|schema| schema.column(name));
            column.is_some_and(|column| Datum::default_of(&column.ty) == *value)
        };
        let values: Map<String, Value> = row
            .columns()
            .filter(|(name, value)| !is_default(name, value))
            .map(|(name, value)| (name.to_owned(), with_names(value.to_json(), inserted)))
            .collect();
        json!({"op": "insert", "table": table, "uuid-name": row_name(uuid), "row": values})
    }

    /// True for a row that the line inserts into a table whose rows need a reference to live.
    pub fn is_new_and_not_root(&self, uuid: Uuid) -> bool {
        let needy = |table: &str| self.schema().table(table).is_some_and(|table| !table.is_root);
        self.changes().any(|(table, of, old, new)| {
            of == uuid && old.is_none() && new.is_some() && needy(table)
        })
    }

    /// The operations that count the root row's `next_cfg` up and read it.
    pub fn count_operations(&self) -> Result<Vec<Value>> {
        let (uuid, _) = self.root()?;
        let row = match self.base.row(ROOT, uuid) {
            Some(_) => this(uuid),
            // A row being inserted is addressed by its name.
            None => json!([["_uuid", "==", ["named-uuid", row_name(uuid)]]]),
        };
        let count = json!([["next_cfg", "+=", 1]]);
        Ok(vec![
            json!({"op": "mutate", "table": ROOT, "where": row, "mutations": count}),
            json!({"op": "select", "table": ROOT, "where": row, "columns": ["next_cfg"]}),
        ])
    }
}

/// Two operations: one that fails if somebody else changed these columns meanwhile, so that
/// the commands are run again on the new state, and one that changes them.
fn update_ops(
    table: &str,
    uuid: Uuid,
    old: &Row,
    new: &Row,
    inserted: &BTreeSet<Uuid>,
) -> Option<(Value, Value)> {
    let changed: Vec<(&str, &Datum, &Datum)> = new
        .columns()
        .filter_map(|(name, value)| Some((name, old.get(name)?, value)))
        .filter(|(_, before, after)| before != after)
        .collect();
    if changed.is_empty() {
        return None;
    }
    let columns: Vec<&str> = changed.iter().map(|(name, _, _)| *name).collect();
    let before: Map<String, Value> =
        changed.iter().map(|(name, old, _)| ((*name).to_owned(), old.to_json())).collect();
    let after: Map<String, Value> = changed
        .iter()
        .map(|(name, _, new)| ((*name).to_owned(), with_names(new.to_json(), inserted)))
        .collect();
    let wait = json!({"op": "wait", "table": table, "where": this(uuid), "columns": columns,
                      "until": "==", "rows": [before], "timeout": 0});
    let update = json!({"op": "update", "table": table, "where": this(uuid), "row": after});
    Some((wait, update))
}

fn this(uuid: Uuid) -> Value {
    json!([["_uuid", "==", ["uuid", uuid.to_string()]]])
}

fn row_name(uuid: Uuid) -> String {
    format!("row{uuid}").replace('-', "_")
}

fn named_uuid(name: &str) -> Option<Uuid> {
    name.strip_prefix("row")?.replace('_', "-").parse().ok()
}

/// References to rows inserted by the same transaction go by name (RFC 7047, section 5.1).
fn with_names(value: Value, inserted: &BTreeSet<Uuid>) -> Value {
    let Value::Array(items) = value else { return value };
    if let [Value::String(tag), Value::String(text)] = items.as_slice()
        && tag == "uuid"
        && let Ok(uuid) = text.parse::<Uuid>()
        && inserted.contains(&uuid)
    {
        return json!(["named-uuid", row_name(uuid)]);
    }
    items.into_iter().map(|item| with_names(item, inserted)).collect()
}
