//! A served database: what is in memory, and the file it is kept in.

use crate::datum::Datum;
use crate::db::{Change, Database, Row};
use crate::error::{Error, Result};
use crate::file::DbFile;
use crate::schema::DatabaseSchema;
use crate::transact::Commit;
use crate::uuid::Uuid;

/// Schema of the `_Server` database, by which clients learn which databases there are
/// (ovsdb-server(5)).
const SERVER_SCHEMA: &str = r#"{"name": "_Server", "version": "1.2.0",
 "tables": {"Database": {"columns": {
    "name": {"type": "string"},
    "model": {"type": {"key": {"type": "string",
                               "enum": ["set", ["standalone", "clustered", "relay"]]}}},
    "schema": {"type": {"key": "string", "min": 0}},
    "connected": {"type": "boolean"},
    "leader": {"type": "boolean"},
    "cid": {"type": {"key": "uuid", "min": 0}},
    "sid": {"type": {"key": "uuid", "min": 0}},
    "index": {"type": {"key": "integer", "min": 0}}}}}}"#;

/// A database being served.
#[derive(Debug)]
pub(crate) struct Store {
    pub db: Database,
    /// None for `_Server`, which clients cannot change.
    file: Option<DbFile>,
    /// Which commit was the last.
    pub last_commit: Uuid,
}

/// A commit that has been kept.
#[derive(Debug)]
pub(crate) struct Committed {
    pub id: Uuid,
    pub changes: Vec<Change>,
}

impl Store {
    /// The database in a file.
    pub fn new(db: Database, file: DbFile) -> Self {
        Self { db, file: Some(file), last_commit: Uuid::random() }
    }

    #[cfg(test)]
    pub fn file_mut(&mut self) -> &mut DbFile {
        self.file.as_mut().expect("not _Server")
    }

    /// The `_Server` database, which describes `databases` and itself.
    pub fn server(databases: &[&DatabaseSchema]) -> Result<Self> {
        let schema = DatabaseSchema::from_text(SERVER_SCHEMA)?;
        let mut db = Database::new(schema.clone());
        let table = &schema.tables[0];
        let mut changes = Vec::new();
        for described in databases.iter().copied().chain([&schema]) {
            let uuid = Uuid::random();
            let mut row = Row::new(table, uuid);
            for (name, value) in [
                ("name", Datum::scalar(described.name.as_str())),
                ("model", Datum::scalar("standalone")),
                ("schema", Datum::scalar(described.to_json().to_string())),
                ("connected", Datum::scalar(true)),
                ("leader", Datum::scalar(true)),
            ] {
                if let Some(id) = table.column_id(name) {
                    row.set(id, value);
                }
            }
            changes.push(Change { key: (0, uuid), old: None, new: Some(row.into()) });
        }
        db.apply(&changes);
        Ok(Self { db, file: None, last_commit: Uuid::ZERO })
    }

    /// Keeps a commit in the file, then in memory. `None` if it changes nothing.
    ///
    /// # Errors
    /// `I/O error` if the file cannot be written; nothing has changed then.
    pub fn commit(&mut self, commit: Commit) -> Result<Option<Committed>> {
        let Commit { changes, comment, durable } = commit;
        // Without a file this is `_Server`, which transactions cannot change.
        let Some(file) = &mut self.file else { return Ok(None) };
        let appended = file.append(self.db.schema(), &changes, comment.as_deref(), durable);
        appended.map_err(|error| {
            let path = file.path().display();
            tracing::error!("{path}: cannot write a transaction: {error}");
            Error::new("I/O error", format!("{path}: cannot write the transaction: {error}"))
        })?;
        if changes.is_empty() {
            return Ok(None);
        }
        self.db.apply(&changes);
        if file.wants_compaction()
            && let Err(error) = file.compact(&self.db)
        {
            tracing::warn!("{}: cannot compact the database: {error}", file.path().display());
        }
        self.last_commit = Uuid::random();
        Ok(Some(Committed { id: self.last_commit, changes }))
    }
}
