//! Monitors: which rows and columns a client watches, and what it is told when they change
//! (RFC 7047, sections 4.1.5 to 4.1.7; `monitor_cond` and `monitor_cond_since` as in
//! ovsdb-server(7)).

use serde_json::{Map, Value, json};

use crate::condition::Condition;
use crate::db::{Change, Database, Row};
use crate::error::{Error, Result};
use crate::members::{Kind, Members};
use crate::schema::{ColumnId, DatabaseSchema, TableId, TableSchema, UUID_COLUMN};
use crate::uuid::Uuid;

/// How a monitor reports, which follows from the request that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `monitor`: `update` with old and new values.
    V1,
    /// `monitor_cond`: `update2` with differences.
    V2,
    /// `monitor_cond_since`: `update3`, which also names the transaction.
    V3,
}

/// What a client watches in one database.
#[derive(Debug)]
pub struct Monitor {
    version: Version,
    tables: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    table: TableId,
    columns: Vec<(ColumnId, Select)>,
    /// Which events any of the requests wants reported, also for requests without columns.
    select: Select,
    condition: Condition,
}

/// Which events report a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Select {
    initial: bool,
    insert: bool,
    delete: bool,
    modify: bool,
}

/// What happened to a row, as far as a monitor's condition shows it.
enum Event<'a> {
    Initial(&'a Row),
    Insert(&'a Row),
    Delete(&'a Row),
    Modify(&'a Row, &'a Row),
}

impl Monitor {
    /// Reads `<monitor-requests>` or `<monitor-cond-requests>`.
    ///
    /// # Errors
    /// `syntax error` or `unknown column`.
    pub fn from_json(json: &Value, schema: &DatabaseSchema, version: Version) -> Result<Self> {
        let Some(requests) = json.as_object() else {
            return Err(Error::syntax(json, "monitor requests must be JSON object"));
        };
        let mut tables = Vec::new();
        for (name, requests) in requests {
            let Some(table) = schema.table_id(name) else {
                return Err(Error::new("syntax error", format!("no table named {name}")));
            };
            let mut watched = Watched {
                table,
                columns: Vec::new(),
                select: Select::NONE,
                condition: Condition::always(),
            };
            for request in one_or_many(requests) {
                watched.add_request(request, &schema.tables[table], version)?;
            }
            tables.push(watched);
        }
        tables.sort_by_key(|watched| watched.table);
        Ok(Self { version, tables })
    }

    /// How this monitor reports.
    pub fn version(&self) -> Version {
        self.version
    }

    /// `<table-updates>` with the rows that are there now.
    pub fn initial(&self, db: &Database) -> Value {
        let mut updates = Map::new();
        for watched in &self.tables {
            let table = &db.schema().tables[watched.table];
            let mut rows = Map::new();
            for row in db.rows(watched.table).filter(|row| watched.condition.any(row)) {
                if let Some(update) = watched.report(self.version, table, Event::Initial(row)) {
                    rows.insert(row.uuid().to_string(), update);
                }
            }
            if !rows.is_empty() {
                updates.insert(table.name.clone(), Value::Object(rows));
            }
        }
        Value::Object(updates)
    }

    /// `<table-updates>` for the changes of a transaction; `None` if nothing watched changed.
    pub fn changes(&self, schema: &DatabaseSchema, changes: &[Change]) -> Option<Value> {
        let mut updates = Map::new();
        for change in changes {
            let (id, uuid) = change.key;
            let Ok(at) = self.tables.binary_search_by_key(&id, |watched| watched.table) else {
                continue;
            };
            let (watched, table) = (&self.tables[at], &schema.tables[id]);
            let seen = |row: &'_ &Row| watched.condition.any(row);
            let event =
                match (change.old.as_deref().filter(seen), change.new.as_deref().filter(seen)) {
                    (None, None) => continue,
                    (None, Some(new)) => Event::Insert(new),
                    (Some(old), None) => Event::Delete(old),
                    (Some(old), Some(new)) => Event::Modify(old, new),
                };
            if let Some(update) = watched.report(self.version, table, event) {
                put_row(&mut updates, &table.name, uuid, update);
            }
        }
        (!updates.is_empty()).then_some(Value::Object(updates))
    }

    /// Takes the new conditions of a `monitor_cond_change`, and gives the `<table-updates>` for rows
    /// that come into or go out of sight with them.
    ///
    /// # Errors
    /// `syntax error` or `unknown column`; the conditions are as before then.
    pub fn change_conditions(&mut self, json: &Value, db: &Database) -> Result<Option<Value>> {
        let Some(requests) = json.as_object() else {
            return Err(Error::syntax(json, "monitor cond changes must be JSON object"));
        };
        let mut new_conditions = Vec::new();
        for (name, requests) in requests {
            let id = db.schema().table_id(name);
            let Some(at) =
                id.and_then(|id| self.tables.binary_search_by_key(&id, |w| w.table).ok())
            else {
                let text = format!("no table named {name} in monitor session");
                return Err(Error::new("syntax error", text));
            };
            let table = &db.schema().tables[self.tables[at].table];
            for request in one_or_many(requests) {
                let mut members = Members::of(request, format!("table {name}"))?;
                let clauses = members.optional("where", Kind::Array)?;
                members.finish()?;
                new_conditions.push((at, read_condition(clauses, table)?));
            }
        }
        let mut updates = Map::new();
        for (at, condition) in new_conditions {
            let old = std::mem::replace(&mut self.tables[at].condition, condition);
            let watched = &self.tables[at];
            let table = &db.schema().tables[watched.table];
            for row in db.rows(watched.table) {
                let event = match (old.any(row), watched.condition.any(row)) {
                    (false, true) => Event::Insert(row),
                    (true, false) => Event::Delete(row),
                    _ => continue,
                };
                if let Some(update) = watched.report(self.version, table, event) {
                    put_row(&mut updates, &table.name, row.uuid(), update);
                }
            }
        }
        Ok((!updates.is_empty()).then_some(Value::Object(updates)))
    }
}

impl Watched {
    fn add_request(&mut self, json: &Value, table: &TableSchema, version: Version) -> Result<()> {
        let mut members = Members::of(json, format!("table {}", table.name))?;
        let columns = members.optional("columns", Kind::Array)?;
        let select = members.optional("select", Kind::Object)?;
        let clauses = match version {
            Version::V1 => None,
            Version::V2 | Version::V3 => members.optional("where", Kind::Array)?,
        };
        members.finish()?;
        let select = Select::from_json(select, table)?;
        self.select = self.select.or(select);
        if clauses.is_some() {
            self.condition = read_condition(clauses, table)?;
        }
        let Some(columns) = columns else {
            let all = (0..table.columns.len()).filter(|&id| id != UUID_COLUMN);
            self.columns.extend(all.map(|id| (id, select)));
            return Ok(());
        };
        for name in columns.as_array().into_iter().flatten() {
            let Some(name) = name.as_str() else {
                return Err(Error::syntax(columns, "columns must be strings"));
            };
            let Some(id) = table.column_id(name) else {
                return Err(Error::syntax(columns, format!("{name} is not a valid column name")));
            };
            if self.columns.iter().any(|(other, _)| *other == id) {
                return Err(Error::syntax(
                    columns,
                    format!("column {name} mentioned more than once"),
                ));
            }
            self.columns.push((id, select));
        }
        Ok(())
    }

    /// The `<row-update>` for an event; `None` if no selected column has anything to say.
    fn report(&self, version: Version, table: &TableSchema, event: Event<'_>) -> Option<Value> {
        let chosen = |wanted: fn(&Select) -> bool| {
            self.columns.iter().filter(move |(_, select)| wanted(select)).map(|(id, _)| *id)
        };
        let initial: fn(&Select) -> bool = |select| select.initial;
        let insert: fn(&Select) -> bool = |select| select.insert;
        let (row, wanted, name) = match event {
            Event::Initial(row) => (row, initial, "initial"),
            Event::Insert(row) => (row, insert, "insert"),
            Event::Delete(old) => {
                return self.select.delete.then(|| match version {
                    Version::V1 => {
                        json!({ "old": old.to_json(table, chosen(|s| s.delete)) })
                    }
                    Version::V2 | Version::V3 => json!({ "delete": null }),
                });
            }
            Event::Modify(old, new) => {
                let changed: Vec<ColumnId> =
                    chosen(|s| s.modify).filter(|&id| old.get(id) != new.get(id)).collect();
                return (!changed.is_empty()).then(|| match version {
                    Version::V1 => json!({
                        "old": old.to_json(table, changed),
                        "new": new.to_json(table, chosen(|s| s.modify)),
                    }),
                    Version::V2 | Version::V3 => {
                        json!({ "modify": difference(table, old, new, &changed) })
                    }
                });
            }
        };
        wanted(&self.select).then(|| match version {
            Version::V1 => json!({ "new": row.to_json(table, chosen(wanted)) }),
            Version::V2 | Version::V3 => {
                let is_default =
                    |id: ColumnId| *row.get(id) == crate::Datum::default_of(&table.columns[id].ty);
                let columns = chosen(wanted).filter(|&id| !is_default(id));
                json!({ name: row.to_json(table, columns) })
            }
        })
    }
}

impl Select {
    const NONE: Self = Self { initial: false, insert: false, delete: false, modify: false };

    fn or(self, other: Self) -> Self {
        Self {
            initial: self.initial | other.initial,
            insert: self.insert | other.insert,
            delete: self.delete | other.delete,
            modify: self.modify | other.modify,
        }
    }

    fn from_json(json: Option<&Value>, table: &TableSchema) -> Result<Self> {
        let mut select = Self { initial: true, insert: true, delete: true, modify: true };
        let Some(json) = json else { return Ok(select) };
        let mut members = Members::of(json, format!("table {} select", table.name))?;
        for (name, flag) in [
            ("initial", &mut select.initial),
            ("insert", &mut select.insert),
            ("delete", &mut select.delete),
            ("modify", &mut select.modify),
        ] {
            if let Some(value) = members.optional(name, Kind::Boolean)? {
                *flag = value == &Value::Bool(true);
            }
        }
        members.finish()?;
        Ok(select)
    }
}

fn one_or_many(json: &Value) -> &[Value] {
    match json {
        Value::Array(many) => many,
        one => std::slice::from_ref(one),
    }
}

fn read_condition(clauses: Option<&Value>, table: &TableSchema) -> Result<Condition> {
    let clauses = clauses.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Condition::from_json(clauses, table, None)
}

fn difference(table: &TableSchema, old: &Row, new: &Row, columns: &[ColumnId]) -> Value {
    let member = |&id: &ColumnId| {
        let schema = &table.columns[id];
        (schema.name.clone(), old.get(id).diff(new.get(id), &schema.ty).to_json())
    };
    Value::Object(columns.iter().map(member).collect())
}

fn put_row(updates: &mut Map<String, Value>, table: &str, uuid: Uuid, update: Value) {
    let rows = updates.entry(table).or_insert_with(|| Value::Object(Map::new()));
    if let Some(rows) = rows.as_object_mut() {
        rows.insert(uuid.to_string(), update);
    }
}
