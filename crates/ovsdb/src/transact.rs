//! The operations of a `transact` request (RFC 7047, section 5.2), one after the other over a
//! [`Transaction`], so that either all of them take effect or none does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::condition::Condition;
use crate::datum::Datum;
use crate::db::{Change, Database, Row};
use crate::error::{Error, Result};
use crate::members::{Kind, Members};
use crate::mutation::Mutation;
use crate::schema::{ColumnId, TableId, TableSchema, UUID_COLUMN, VERSION_COLUMN};
use crate::txn::Transaction;
use crate::uuid::Uuid;
use crate::value::Symbols;

/// A transaction that succeeded and now has to be kept.
#[derive(Debug)]
pub struct Commit {
    /// What it changes; may be nothing.
    pub changes: Vec<Change>,
    /// Its `comment` operations, joined by newlines.
    pub comment: Option<String>,
    /// The client wants it on disk before the reply.
    pub durable: bool,
}

/// What came of executing a transaction.
#[derive(Debug)]
pub enum Outcome {
    /// All operations succeeded.
    Commit(Vec<Value>, Commit),
    /// One failed; the results say which and why.
    Failed(Vec<Value>),
    /// A `wait` does not hold yet. Execute again after the database changed, or when this much time
    /// has passed since the first execution (`None`: no limit).
    Wait(Option<Duration>),
}

/// Who executes, and since when.
pub trait Session {
    /// True if the client owns the lock called `name`.
    fn owns_lock(&self, name: &str) -> bool;
    /// Time since the request arrived.
    fn elapsed(&self) -> Duration;
}

/// Executes `operations`, changing nothing yet.
pub fn execute(db: &Database, operations: &[Value], session: &dyn Session) -> Outcome {
    let mut run = Run {
        txn: Transaction::new(db),
        symbols: Symbols::default(),
        comment: None,
        durable: false,
        session,
    };
    let mut results = Vec::with_capacity(operations.len() + 1);
    for (nth, operation) in operations.iter().enumerate() {
        let what = format!("ovsdb operation {} of {}", nth + 1, operations.len());
        match run.operation(operation, what) {
            Ok(Step::Result(result)) => results.push(result),
            Ok(Step::Wait(limit)) => return Outcome::Wait(limit),
            Err(error) => {
                results.push(error.to_json());
                results.resize(operations.len(), Value::Null);
                return Outcome::Failed(results);
            }
        }
    }
    let (comment, durable) = (run.comment, run.durable);
    match run.txn.finish() {
        Ok(changes) => Outcome::Commit(results, Commit { changes, comment, durable }),
        Err(error) => {
            results.push(error.to_json());
            Outcome::Failed(results)
        }
    }
}

/// How one operation went.
enum Step {
    Result(Value),
    Wait(Option<Duration>),
}

struct Run<'a> {
    txn: Transaction<'a>,
    symbols: Symbols,
    comment: Option<String>,
    durable: bool,
    session: &'a dyn Session,
}

impl Run<'_> {
    fn operation(&mut self, json: &Value, what: String) -> Result<Step> {
        let mut members = Members::of(json, what)?;
        let name = members.required("op", Kind::Id)?.as_str().unwrap_or_default();
        let result = match name {
            "insert" => self.insert(members),
            "select" => self.select(members),
            "update" => self.update(members),
            "mutate" => self.mutate(members),
            "delete" => self.delete(members),
            "wait" => return self.wait(members),
            "commit" => self.commit(members),
            "abort" => {
                members.finish()?;
                Err(Error::new("aborted", "aborted by request"))
            }
            "comment" => self.comment(members),
            "assert" => self.assert(members),
            _ => Err(members.wrong(&format!("No operation \"{name}\""))),
        };
        result.map(Step::Result)
    }

    fn table(&self, members: &mut Members<'_>) -> Result<TableId> {
        let name = members.required("table", Kind::String)?.as_str().unwrap_or_default();
        let table = self.txn.db.schema().table_id(name);
        table.ok_or_else(|| members.wrong(&format!("No table named {name}.")))
    }

    fn condition(&mut self, json: &Value, table: TableId) -> Result<Condition> {
        let clauses = json.as_array().map(Vec::as_slice).unwrap_or_default();
        Condition::from_json(clauses, self.txn.table(table), Some(&mut self.symbols))
    }

    /// Databases whose name begins with `_` describe the server; clients only read them.
    fn may_change(&self, operation: &str) -> Result<()> {
        let name = &self.txn.db.schema().name;
        if !name.starts_with('_') {
            return Ok(());
        }
        let text =
            format!("{operation} operation not allowed on table in reserved database {name}");
        Err(Error::new("not allowed", text))
    }

    fn insert(&mut self, mut members: Members<'_>) -> Result<Value> {
        let id = self.table(&mut members)?;
        let table = self.txn.table(id);
        let name = members.optional("uuid-name", Kind::Id)?;
        let wanted = members.optional("uuid", Kind::String)?;
        let row_json = members.required("row", Kind::Object)?;
        members.finish()?;
        let mut uuid = Uuid::random();
        if let Some(wanted) = wanted {
            let text = wanted.as_str().unwrap_or_default();
            let parsed = text.parse();
            uuid = parsed.map_err(|_| Error::syntax(wanted, "bad uuid"))?;
            if self.txn.row((id, uuid)).is_some() {
                let text = "This UUID would duplicate a UUID already present within the table or \
                            deleted within the same transaction.";
                return Err(Error::new("duplicate uuid", text).about(wanted));
            }
        }
        if let Some(name) = name {
            let symbol = name.as_str().unwrap_or_default();
            let text = "This \"uuid-name\" appeared on an earlier \"insert\" operation.";
            let created = match wanted {
                None => self.symbols.create(symbol),
                Some(_) => self.symbols.create_as(symbol, uuid),
            };
            uuid = created.ok_or_else(|| Error::new("duplicate uuid-name", text).about(name))?;
        }
        let mut row = Row::new(table, uuid);
        for (column, value) in read_row(row_json, table, Some(&mut self.symbols))? {
            if column != UUID_COLUMN && column != VERSION_COLUMN {
                row.set(column, value);
            }
        }
        // Defaults may break constraints, such as an enumeration without the empty string.
        for (column, schema) in table.own_columns() {
            row.get(column).check(&schema.ty)?;
        }
        self.may_change("insert")?;
        self.txn.put(id, row);
        Ok(json!({ "uuid": ["uuid", uuid.to_string()] }))
    }

    fn select(&mut self, mut members: Members<'_>) -> Result<Value> {
        let id = self.table(&mut members)?;
        let table = self.txn.table(id);
        let condition = members.required("where", Kind::Array)?;
        let columns = members.optional("columns", Kind::Array)?;
        members.finish()?;
        let condition = self.condition(condition, id)?;
        let columns = read_columns(columns, table)?;
        let rows = self.txn.matching(id, &condition);
        let rows: Vec<Value> =
            rows.iter().map(|row| row.to_json(table, columns.iter().copied())).collect();
        Ok(json!({ "rows": rows }))
    }

    fn update(&mut self, mut members: Members<'_>) -> Result<Value> {
        let id = self.table(&mut members)?;
        let table = self.txn.table(id);
        let condition = members.required("where", Kind::Array)?;
        let row_json = members.required("row", Kind::Object)?;
        let whole = members.json();
        members.finish()?;
        self.may_change("update")?;
        let values = read_row(row_json, table, Some(&mut self.symbols))?;
        for (column, _) in &values {
            let schema = &table.columns[*column];
            if !schema.mutable {
                let text = format!(
                    "Cannot update immutable column {} in table {}.",
                    schema.name, table.name
                );
                return Err(Error::constraint(text).about(whole));
            }
        }
        let condition = self.condition(condition, id)?;
        let rows = self.txn.matching(id, &condition);
        for row in &rows {
            let mut row = Row::clone(row);
            for (column, value) in &values {
                row.set(*column, value.clone());
            }
            self.txn.put(id, row);
        }
        Ok(json!({ "count": rows.len() }))
    }

    fn mutate(&mut self, mut members: Members<'_>) -> Result<Value> {
        let id = self.table(&mut members)?;
        let table = self.txn.table(id);
        let condition = members.required("where", Kind::Array)?;
        let list = members.required("mutations", Kind::Array)?;
        members.finish()?;
        self.may_change("mutate")?;
        let mut mutations = Vec::new();
        for mutation in list.as_array().into_iter().flatten() {
            mutations.push(Mutation::from_json(mutation, table, Some(&mut self.symbols))?);
        }
        let condition = self.condition(condition, id)?;
        let rows = self.txn.matching(id, &condition);
        for row in &rows {
            let mut row = Row::clone(row);
            for mutation in &mutations {
                mutation.apply(&mut row, table)?;
            }
            self.txn.put(id, row);
        }
        Ok(json!({ "count": rows.len() }))
    }

    fn delete(&mut self, mut members: Members<'_>) -> Result<Value> {
        let id = self.table(&mut members)?;
        let condition = members.required("where", Kind::Array)?;
        members.finish()?;
        self.may_change("delete")?;
        let condition = self.condition(condition, id)?;
        let rows = self.txn.matching(id, &condition);
        for row in &rows {
            self.txn.delete((id, row.uuid()));
        }
        Ok(json!({ "count": rows.len() }))
    }

    fn wait(&mut self, mut members: Members<'_>) -> Result<Step> {
        let id = self.table(&mut members)?;
        let table = self.txn.table(id);
        let timeout = members.optional("timeout", Kind::Integer)?;
        let condition = members.required("where", Kind::Array)?;
        let columns = members.optional("columns", Kind::Array)?;
        let until = members.required("until", Kind::String)?;
        let rows = members.required("rows", Kind::Array)?;
        members.finish()?;
        let want_equal = match until.as_str() {
            Some("==") => true,
            Some("!=") => false,
            _ => return Err(Error::syntax(until, "\"until\" must be \"==\" or \"!=\"")),
        };
        let condition = self.condition(condition, id)?;
        let columns = read_columns(columns, table)?;
        let limit = match timeout {
            None => None,
            Some(json) => match json.as_u64() {
                Some(milliseconds) => Some(Duration::from_millis(milliseconds)),
                None => return Err(Error::syntax(json, "timeout must be nonnegative")),
            },
        };
        let project = |row: &Row| -> Vec<Datum> {
            columns.iter().map(|&column| row.get(column).clone()).collect()
        };
        let mut expected = Vec::new();
        for json in rows.as_array().into_iter().flatten() {
            let mut row = Row::new(table, Uuid::ZERO);
            row.set(VERSION_COLUMN, Datum::scalar(Uuid::ZERO));
            for (column, value) in read_row(json, table, Some(&mut self.symbols))? {
                row.set(column, value);
            }
            expected.push(project(&row));
        }
        let mut found: Vec<_> =
            self.txn.matching(id, &condition).iter().map(|row| project(row)).collect();
        // Rows are compared as sets.
        for rows in [&mut expected, &mut found] {
            rows.sort_unstable();
            rows.dedup();
        }
        if (expected == found) == want_equal {
            return Ok(Step::Result(json!({})));
        }
        let elapsed = self.session.elapsed();
        match limit {
            Some(limit) if limit.is_zero() => {
                Err(Error::new("timed out", "\"where\" clause test failed"))
            }
            Some(limit) if elapsed >= limit => {
                let text = format!("\"wait\" timed out after {} ms", elapsed.as_millis());
                Err(Error::new("timed out", text))
            }
            limit => Ok(Step::Wait(limit)),
        }
    }

    fn commit(&mut self, mut members: Members<'_>) -> Result<Value> {
        let durable = members.required("durable", Kind::Boolean)?;
        members.finish()?;
        self.durable |= durable == &Value::Bool(true);
        Ok(json!({}))
    }

    fn comment(&mut self, mut members: Members<'_>) -> Result<Value> {
        let text = members.required("comment", Kind::String)?.as_str().unwrap_or_default();
        members.finish()?;
        // OVS's own programs cannot read a NUL back from the file.
        let text = text.replace('\0', "");
        match &mut self.comment {
            Some(comment) => {
                comment.push('\n');
                comment.push_str(&text);
            }
            none => *none = Some(text),
        }
        Ok(json!({}))
    }

    fn assert(&mut self, mut members: Members<'_>) -> Result<Value> {
        let lock = members.required("lock", Kind::Id)?.as_str().unwrap_or_default();
        members.finish()?;
        match self.session.owns_lock(lock) {
            true => Ok(json!({})),
            false => Err(Error::new("not owner", format!("Asserted lock {lock} not held."))),
        }
    }
}

/// Reads a `<row>`: values for some columns of `table`.
pub(crate) fn read_row(
    json: &Value,
    table: &TableSchema,
    mut symbols: Option<&mut Symbols>,
) -> Result<Vec<(ColumnId, Datum)>> {
    let Some(object) = json.as_object() else {
        return Err(Error::syntax(json, "row must be JSON object"));
    };
    let mut values = Vec::with_capacity(object.len());
    for (name, value) in object {
        let column = crate::condition::column_named(name, table, json)?;
        let ty = &table.columns[column].ty;
        values.push((column, Datum::from_json(value, ty, symbols.as_deref_mut())?));
    }
    Ok(values)
}

/// Reads a list of column names; without one, all columns are meant.
fn read_columns(json: Option<&Value>, table: &TableSchema) -> Result<Vec<ColumnId>> {
    let Some(json) = json else { return Ok((0..table.columns.len()).collect()) };
    let mut columns = Vec::new();
    for name in json.as_array().into_iter().flatten() {
        let name = name
            .as_str()
            .ok_or_else(|| Error::syntax(json, "array of distinct column names expected"))?;
        let Some(column) = table.column_id(name) else {
            return Err(Error::syntax(json, format!("{name} is not a valid column name")));
        };
        if columns.contains(&column) {
            return Err(Error::syntax(json, "array of distinct column names expected"));
        }
        columns.push(column);
    }
    Ok(columns)
}
