//! A copy in memory of some tables of a database, kept up to date by monitoring.
//!
//! Works with servers that know `monitor_cond_since` or `monitor_cond` (ovsdb-server(7)) and
//! with those that know only `monitor` (RFC 7047, section 4.1.5).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::client::{Client, ClientError, transact_params, transact_results};
use crate::datum::Datum;
use crate::error::Error;
use crate::jsonrpc::Message;
use crate::schema::{ColumnId, DatabaseSchema, TableSchema};
use crate::uuid::Uuid;

/// Name of our monitor on the connection.
const MONITOR_ID: &str = "replica";

/// A row: the monitored columns by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    columns: BTreeMap<String, Datum>,
}

/// The rows of a table.
pub type Rows = BTreeMap<Uuid, Row>;

/// What to copy: tables with their columns, `None` for all columns. Tables and columns that the
/// server's schema lacks are left out, so that older and newer schemas work.
pub type Selection<'a> = &'a [(&'a str, Option<&'a [&'a str]>)];

/// What a message meant to a replica.
#[derive(Debug)]
pub enum Event {
    /// Rows changed.
    Updated,
    /// The reply to [`Replica::send_transact`] with this number.
    Reply(u64, Result<Vec<Value>, ClientError>),
    /// Whether we hold the lock of this name now.
    Lock(String, bool),
    /// Nothing of interest.
    Other,
}

/// The copy and the connection that keeps it up to date.
#[derive(Debug)]
pub struct Replica {
    client: Client,
    schema: DatabaseSchema,
    tables: BTreeMap<String, Table>,
}

/// What is copied of a table.
#[derive(Debug)]
struct Table {
    /// The monitored columns.
    columns: Vec<ColumnId>,
    rows: Rows,
}

impl Row {
    /// A row of these columns.
    pub fn new(columns: BTreeMap<String, Datum>) -> Self {
        Self { columns }
    }

    /// The value of a column; `None` if it is not monitored.
    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.columns.get(column)
    }

    /// Sets the value of a column of this copy; the database does not change.
    pub fn set(&mut self, column: &str, value: Datum) {
        self.columns.insert(column.to_owned(), value);
    }

    /// All monitored columns, by name.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Datum)> {
        self.columns.iter().map(|(name, datum)| (name.as_str(), datum))
    }

    /// A string column; empty if it is optional and unset.
    pub fn string(&self, column: &str) -> &str {
        self.get(column).and_then(Datum::as_str).unwrap_or_default()
    }

    /// An optional string column.
    pub fn optional_string(&self, column: &str) -> Option<&str> {
        self.get(column).and_then(Datum::as_str)
    }

    /// An integer column, optional or not.
    pub fn integer(&self, column: &str) -> Option<i64> {
        self.get(column).and_then(Datum::as_integer)
    }

    /// A set of integers.
    pub fn integers(&self, column: &str) -> Vec<i64> {
        self.get(column).into_iter().flat_map(Datum::keys).filter_map(|a| a.as_integer()).collect()
    }

    /// A boolean column; `false` if it is optional and unset.
    pub fn boolean(&self, column: &str) -> bool {
        self.get(column).and_then(Datum::as_bool).unwrap_or_default()
    }

    /// A set of strings, sorted.
    pub fn strings(&self, column: &str) -> Vec<&str> {
        self.get(column).into_iter().flat_map(Datum::keys).filter_map(|a| a.as_str()).collect()
    }

    /// The value for `key` in a map of strings, such as `other_config:pmd-cpu-mask`.
    pub fn map_value(&self, column: &str, key: &str) -> Option<&str> {
        self.get(column)?.get_str(key)
    }

    /// A map of strings.
    pub fn string_map(&self, column: &str) -> BTreeMap<String, String> {
        let pairs = self.get(column).into_iter().flat_map(Datum::pairs);
        let text = |(k, v): (&crate::Atom, &crate::Atom)| {
            Some((k.as_str()?.to_owned(), v.as_str()?.to_owned()))
        };
        pairs.filter_map(text).collect()
    }

    /// The rows that a column refers to: the elements of a set or the values of a map.
    pub fn uuids(&self, column: &str) -> Vec<Uuid> {
        let datum = self.get(column);
        let atoms = datum.into_iter().flat_map(|datum| match datum.is_map() {
            true => datum.values().collect::<Vec<_>>(),
            false => datum.keys().collect(),
        });
        atoms.filter_map(|atom| atom.as_uuid()).collect()
    }

    /// The row that a column refers to, if it is set.
    pub fn uuid(&self, column: &str) -> Option<Uuid> {
        self.get(column).and_then(Datum::as_uuid)
    }
}

impl Replica {
    /// Reads the schema of `database` and copies the selected tables.
    ///
    /// # Errors
    /// Those of [`Client::call`], and [`ClientError::Unexpected`] for a server that does not
    /// follow the protocol.
    pub fn start(
        mut client: Client,
        database: &str,
        selection: Selection<'_>,
    ) -> Result<Self, ClientError> {
        let schema = fetch_schema(&mut client, database)?;
        Self::start_with_schema(client, schema, selection)
    }

    /// As [`Replica::start`] with the schema already at hand ([`fetch_schema`]).
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub fn start_with_schema(
        client: Client,
        schema: DatabaseSchema,
        selection: Selection<'_>,
    ) -> Result<Self, ClientError> {
        let mut requests = Map::new();
        let mut tables = BTreeMap::new();
        for (name, columns) in selection {
            let Some(table) = schema.table(name) else { continue };
            let wanted = |column: &str| columns.is_none_or(|wanted| wanted.contains(&column));
            let columns = table.own_columns().filter(|(_, column)| wanted(&column.name));
            let (columns, names): (Vec<ColumnId>, Vec<&str>) =
                columns.map(|(id, column)| (id, column.name.as_str())).unzip();
            requests.insert((*name).to_owned(), json!([{ "columns": names }]));
            tables.insert((*name).to_owned(), Table { columns, rows: Rows::new() });
        }
        let mut replica = Self { client, schema, tables };
        replica.begin(Value::Object(requests))?;
        Ok(replica)
    }

    /// Starts monitoring by the newest method that the server knows.
    fn begin(&mut self, requests: Value) -> Result<(), ClientError> {
        let database = self.schema.name.clone();
        let plain = json!([database, MONITOR_ID, requests]);
        let mut since = plain.clone();
        if let Some(params) = since.as_array_mut() {
            params.push(Uuid::ZERO.to_string().into());
        }
        if let Some(reply) = unless_unknown(self.client.call("monitor_cond_since", since))? {
            // [found, last transaction, updates]
            return self.apply(&reply[2], Self::apply_update2).map(drop);
        }
        if let Some(reply) = unless_unknown(self.client.call("monitor_cond", plain.clone()))? {
            return self.apply(&reply, Self::apply_update2).map(drop);
        }
        let reply = self.client.call("monitor", plain)?;
        self.apply(&reply, Self::apply_update1).map(drop)
    }

    /// The schema of the server's database.
    pub fn schema(&self) -> &DatabaseSchema {
        &self.schema
    }

    /// The rows of a table; none for a table that is not copied.
    pub fn rows(&self, table: &str) -> &Rows {
        static NONE: Rows = Rows::new();
        self.tables.get(table).map_or(&NONE, |table| &table.rows)
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        self.rows(table).get(&uuid)
    }

    /// The only row of a table such as `Open_vSwitch`; `None` if there is none yet.
    pub fn only_row(&self, table: &str) -> Option<(Uuid, &Row)> {
        self.rows(table).iter().next().map(|(uuid, row)| (*uuid, row))
    }

    /// The first row whose string column `name` is `value`.
    pub fn find(&self, table: &str, column: &str, value: &str) -> Option<(Uuid, &Row)> {
        let mut rows = self.rows(table).iter();
        rows.find(|(_, row)| row.string(column) == value).map(|(uuid, row)| (*uuid, row))
    }

    /// The connection, for calls of other kinds.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs a transaction and waits for its results.
    ///
    /// # Errors
    /// As [`Client::transact`].
    pub fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>, ClientError> {
        let database = self.schema.name.clone();
        self.client.transact(&database, operations)
    }

    /// Sends a transaction without waiting; its results come as [`Event::Reply`] with the number
    /// returned here.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the server takes nothing.
    pub fn send_transact(&mut self, operations: Vec<Value>) -> Result<u64, ClientError> {
        self.client.send("transact", transact_params(&self.schema.name, operations))
    }

    /// Asks for the lock `name` (RFC 7047, section 4.1.8) and says whether we hold it. If not, an
    /// [`Event::Lock`] tells when we do; another client may also steal it later.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn lock(&mut self, name: &str) -> Result<bool, ClientError> {
        let reply = self.client.call("lock", json!([name]))?;
        let held = reply.get("locked").and_then(Value::as_bool);
        held.ok_or_else(|| ClientError::Unexpected("a strange reply to lock".to_owned()))
    }

    /// Waits for the next change of the rows: `true` if one came within `timeout` (`None` waits
    /// for ever). Changes of locks are passed over.
    ///
    /// # Errors
    /// As [`Client::next_notification`], and for updates that make no sense.
    pub fn next_update(&mut self, timeout: Option<Duration>) -> Result<bool, ClientError> {
        let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        loop {
            let left = deadline
                .map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
            let Some(message) = self.client.next_notification(left)? else {
                return Ok(false);
            };
            if let Event::Updated = self.handle(message)? {
                return Ok(true);
            }
        }
    }

    /// Lets a thread read the connection and give what comes to `deliver`, usually the sending
    /// half of the owner's channel; the owner hands each message to [`Replica::handle`].
    ///
    /// # Errors
    /// As [`Client::read_in_thread`].
    pub fn read_in_thread(
        &mut self,
        deliver: impl FnMut(Result<Message, ClientError>) -> bool + Send + 'static,
    ) -> Result<(), ClientError> {
        self.client.read_in_thread(deliver)
    }

    /// Takes a message of the connection: applies updates, sorts out the rest.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] for updates that do not fit the schema or the rows, and when
    /// the server ends the monitoring: the copy is of no use then, connect anew.
    pub fn handle(&mut self, message: Message) -> Result<Event, ClientError> {
        match message {
            Message::Notification { method, params } => self.handle_notification(&method, &params),
            Message::Reply { id, result } => Ok(match id.as_u64() {
                Some(id) => Event::Reply(id, transact_results(result)),
                None => Event::Other,
            }),
            Message::Error { id, error } => {
                let error = Error::from_json(&error).unwrap_or_else(|| Error::bare("unknown"));
                let method = "transact".to_owned();
                Ok(match id.as_u64() {
                    Some(id) => Event::Reply(id, Err(ClientError::Server { method, error })),
                    None => Event::Other,
                })
            }
            Message::Request { .. } => Ok(Event::Other),
        }
    }

    fn handle_notification(&mut self, method: &str, params: &Value) -> Result<Event, ClientError> {
        let name = || params[0].as_str().unwrap_or_default().to_owned();
        let changed = match method {
            "locked" => return Ok(Event::Lock(name(), true)),
            "stolen" => return Ok(Event::Lock(name(), false)),
            "monitor_canceled" => {
                let text = "monitor_canceled: the database went away or changed its schema";
                return Err(ClientError::Unexpected(text.to_owned()));
            }
            _ if params[0].as_str() != Some(MONITOR_ID) => false,
            "update" => self.apply(&params[1], Self::apply_update1)?,
            "update2" => self.apply(&params[1], Self::apply_update2)?,
            "update3" => self.apply(&params[2], Self::apply_update2)?,
            _ => false,
        };
        Ok(if changed { Event::Updated } else { Event::Other })
    }

    /// Applies `<table-updates>` row by row with `one`; says whether there was any.
    fn apply(
        &mut self,
        updates: &Value,
        one: fn(&TableSchema, &mut Table, Uuid, &Value) -> Result<(), Error>,
    ) -> Result<bool, ClientError> {
        let strange = |error: Error| ClientError::Unexpected(format!("a strange update: {error}"));
        let tables = updates.as_object();
        let tables = tables.ok_or_else(|| strange(Error::syntax(updates, "not an object")))?;
        let mut any = false;
        for (name, rows) in tables {
            let (Some(schema), Some(copy)) = (self.schema.table(name), self.tables.get_mut(name))
            else {
                return Err(strange(Error::bare("a table that is not monitored")));
            };
            for (uuid, update) in rows.as_object().into_iter().flatten() {
                let uuid = uuid.parse().map_err(|_| strange(Error::bare("a row without uuid")))?;
                one(schema, copy, uuid, update).map_err(strange)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// `<row-update>` of RFC 7047, section 4.1.6: the whole new row, or none if it went.
    fn apply_update1(
        schema: &TableSchema,
        table: &mut Table,
        uuid: Uuid,
        update: &Value,
    ) -> Result<(), Error> {
        match update.get("new") {
            None | Some(Value::Null) => {
                table.rows.remove(&uuid);
            }
            Some(new) => {
                let row = table.rows.entry(uuid).or_default();
                set_columns(schema, &table.columns, row, new)?;
            }
        }
        Ok(())
    }

    /// `<row-update2>` of ovsdb-server(7): whole rows without their default values, differences,
    /// or null.
    fn apply_update2(
        schema: &TableSchema,
        table: &mut Table,
        uuid: Uuid,
        update: &Value,
    ) -> Result<(), Error> {
        let (kind, columns) = match update.as_object().and_then(|update| update.iter().next()) {
            Some((kind, columns)) => (kind.as_str(), columns),
            None => return Err(Error::syntax(update, "empty")),
        };
        match kind {
            "initial" | "insert" => {
                let mut row = Row::default();
                set_columns(schema, &table.columns, &mut row, columns)?;
                table.rows.insert(uuid, row);
            }
            "modify" => {
                let row = table.rows.get_mut(&uuid);
                let row = row.ok_or_else(|| Error::syntax(update, "no such row"))?;
                change_columns(schema, row, columns)?;
            }
            "delete" => {
                table.rows.remove(&uuid);
            }
            _ => return Err(Error::syntax(update, "unknown kind")),
        }
        Ok(())
    }
}

/// Reads the schema of `database` from the server.
///
/// # Errors
/// As [`Client::call`], and [`ClientError::Unexpected`] for a schema that cannot be read.
pub fn fetch_schema(client: &mut Client, database: &str) -> Result<DatabaseSchema, ClientError> {
    let schema = client.call("get_schema", json!([database]))?;
    DatabaseSchema::from_json(&schema)
        .map_err(|error| ClientError::Unexpected(format!("a strange schema: {error}")))
}

/// `None` if the server does not know the method.
fn unless_unknown(reply: Result<Value, ClientError>) -> Result<Option<Value>, ClientError> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(ClientError::Server { error, .. }) if error.tag == "unknown method" => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the monitored columns from `given`; those that are not given keep their value or, in a new
/// row, get their default.
fn set_columns(
    table: &TableSchema,
    monitored: &[ColumnId],
    row: &mut Row,
    given: &Value,
) -> Result<(), Error> {
    for &id in monitored {
        let column = &table.columns[id];
        let datum = match given.get(&column.name) {
            Some(json) => Datum::from_json(json, &column.ty, None)?,
            None if row.columns.contains_key(&column.name) => continue,
            None => Datum::default_of(&column.ty),
        };
        row.columns.insert(column.name.clone(), datum);
    }
    Ok(())
}

fn change_columns(table: &TableSchema, row: &mut Row, columns: &Value) -> Result<(), Error> {
    for (name, json) in columns.as_object().into_iter().flatten() {
        let (Some(column), Some(old)) = (table.column(name), row.columns.get_mut(name)) else {
            return Err(Error::syntax(columns, "no such column"));
        };
        // A difference may have more or fewer elements than the column.
        let diff = Datum::from_json_any_size(json, &column.ty, None)?;
        *old = old.apply_diff(&diff, &column.ty)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
