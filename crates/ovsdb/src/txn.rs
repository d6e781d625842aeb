//! A transaction in progress: the database as it was, and over it the rows that the transaction
//! has inserted, changed or deleted. Dropping it is aborting it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::condition::Condition;
use crate::db::{Change, Database, Row, RowKey};
use crate::error::Result;
use crate::schema::{TableId, TableSchema};
use crate::uuid::Uuid;

/// A transaction in progress.
#[derive(Debug)]
pub struct Transaction<'db> {
    pub(crate) db: &'db Database,
    /// Touched rows as they are now; `None` when deleted.
    pub(crate) touched: BTreeMap<RowKey, Option<Arc<Row>>>,
}

impl<'db> Transaction<'db> {
    /// A transaction that has done nothing.
    pub fn new(db: &'db Database) -> Self {
        Self { db, touched: BTreeMap::new() }
    }

    /// The schema of a table.
    pub fn table(&self, table: TableId) -> &'db TableSchema {
        &self.db.schema().tables[table]
    }

    /// A row as the transaction sees it.
    pub fn row(&self, key: RowKey) -> Option<&Arc<Row>> {
        match self.touched.get(&key) {
            Some(row) => row.as_ref(),
            None => self.db.row(key),
        }
    }

    /// Inserts a row or replaces it.
    pub fn put(&mut self, table: TableId, row: Row) {
        self.touched.insert((table, row.uuid()), Some(Arc::new(row)));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: RowKey) {
        self.touched.insert(key, None);
    }

    /// The rows of a table that satisfy `condition`, in the order of their identifiers.
    pub fn matching(&self, table: TableId, condition: &Condition) -> Vec<Arc<Row>> {
        if let Some(uuid) = condition.only_row() {
            let row = self.row((table, uuid)).filter(|row| condition.all(row));
            return row.cloned().into_iter().collect();
        }
        let untouched =
            self.db.rows(table).filter(|row| !self.touched.contains_key(&(table, row.uuid())));
        let range = (table, Uuid::ZERO)..(table + 1, Uuid::ZERO);
        let touched = self.touched.range(range).filter_map(|(_, row)| row.as_ref());
        let matching = untouched.chain(touched).filter(|row| condition.all(row));
        let mut rows: Vec<Arc<Row>> = matching.cloned().collect();
        rows.sort_by_key(|row| row.uuid());
        rows
    }

    /// Completes the transaction: drops what did not change, collects garbage, clears dangling weak
    /// references and checks that the result is consistent. Gives the changes to make.
    ///
    /// # Errors
    /// `referential integrity violation` or `constraint violation`; the database is as before.
    pub fn finish(mut self) -> Result<Vec<Change>> {
        self.drop_unchanged();
        crate::integrity::enforce(&mut self)?;
        self.drop_unchanged();
        let db = self.db;
        let change = |(key, new): (RowKey, Option<Arc<Row>>)| {
            let new = new.map(|mut row| {
                Arc::make_mut(&mut row).touch();
                row
            });
            Change { key, old: db.row(key).cloned(), new }
        };
        Ok(self.touched.into_iter().map(change).collect())
    }

    fn drop_unchanged(&mut self) {
        let db = self.db;
        self.touched.retain(|&key, new| match (db.row(key), new) {
            (None, None) => false,
            (Some(old), Some(new)) => !old.same_content(new),
            _ => true,
        });
    }
}
