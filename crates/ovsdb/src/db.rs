//! The database in memory: rows, unique indexes, and who refers to whom. It changes only by
//! `Database::apply`, with the changes of a transaction that was found to be consistent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::datum::Datum;
use crate::schema::{ColumnId, DatabaseSchema, TableId, TableSchema, UUID_COLUMN, VERSION_COLUMN};
use crate::types::RefType;
use crate::uuid::Uuid;
use crate::value::Atom;

/// Which row: its table and its identifier.
pub type RowKey = (TableId, Uuid);

/// A row: one value for each column of its table, `_uuid` and `_version` included.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    values: Vec<Datum>,
}

impl Row {
    /// A row of default values with a fresh version.
    pub fn new(table: &TableSchema, uuid: Uuid) -> Self {
        let defaults = table.columns.iter().map(|column| Datum::default_of(&column.ty));
        let mut row = Self { values: defaults.collect() };
        row.values[UUID_COLUMN] = Datum::scalar(uuid);
        row.touch();
        row
    }

    /// The row's identifier.
    pub fn uuid(&self) -> Uuid {
        self.values[UUID_COLUMN].as_uuid().unwrap_or(Uuid::ZERO)
    }

    /// The value of a column.
    ///
    /// # Panics
    /// If `column` is not one of the row's table.
    pub fn get(&self, column: ColumnId) -> &Datum {
        &self.values[column]
    }

    /// Replaces the value of a column; the caller has checked it against the column's type.
    ///
    /// # Panics
    /// If `column` is not one of the row's table.
    pub fn set(&mut self, column: ColumnId, value: Datum) {
        self.values[column] = value;
    }

    /// Gives the row a fresh `_version`.
    pub(crate) fn touch(&mut self) {
        self.values[VERSION_COLUMN] = Datum::scalar(Uuid::random());
    }

    /// True if all columns but `_version` are equal.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        let mut pairs = self.values.iter().zip(&other.values).enumerate();
        pairs.all(|(id, (mine, others))| id == VERSION_COLUMN || mine == others)
    }

    /// The given columns as a `<row>`.
    pub fn to_json(
        &self,
        table: &TableSchema,
        columns: impl IntoIterator<Item = ColumnId>,
    ) -> Value {
        let member = |id: ColumnId| (table.columns[id].name.clone(), self.values[id].to_json());
        Value::Object(columns.into_iter().map(member).collect::<Map<_, _>>())
    }
}

/// What a transaction does to one row: `None` before it is inserted or after it is deleted.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which row.
    pub key: RowKey,
    /// The row before.
    pub old: Option<Arc<Row>>,
    /// The row after.
    pub new: Option<Arc<Row>>,
}

/// A reference from one row to another, as found in a row's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub column: ColumnId,
    pub target: RowKey,
    pub strength: RefType,
}

/// A column of which the keys or the values are references.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefColumn {
    pub column: ColumnId,
    pub in_values: bool,
    pub target: TableId,
    pub strength: RefType,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub rows: BTreeMap<Uuid, Arc<Row>>,
    /// For each of the schema's indexes, which row has which values.
    pub indexes: Vec<HashMap<Vec<Datum>, Uuid>>,
}

/// A database: a schema and the rows of its tables.
#[derive(Debug)]
pub struct Database {
    schema: Arc<DatabaseSchema>,
    pub(crate) tables: Vec<Table>,
    ref_columns: Vec<Vec<RefColumn>>,
    /// Number of strong references to each row that has any.
    strong: HashMap<RowKey, usize>,
    /// For each row with weak references to it, who refers.
    weak: HashMap<RowKey, BTreeSet<RowKey>>,
}

impl Database {
    /// An empty database.
    pub fn new(schema: DatabaseSchema) -> Self {
        let empty = |table: &TableSchema| Table {
            rows: BTreeMap::new(),
            indexes: vec![HashMap::new(); table.indexes.len()],
        };
        Self {
            tables: schema.tables.iter().map(empty).collect(),
            ref_columns: schema.tables.iter().map(|table| ref_columns(&schema, table)).collect(),
            schema: Arc::new(schema),
            strong: HashMap::new(),
            weak: HashMap::new(),
        }
    }

    /// The schema.
    pub fn schema(&self) -> &Arc<DatabaseSchema> {
        &self.schema
    }

    /// A row.
    pub fn row(&self, (table, uuid): RowKey) -> Option<&Arc<Row>> {
        self.tables.get(table)?.rows.get(&uuid)
    }

    /// All rows of a table in the order of their identifiers; none if there is no such table.
    pub fn rows(&self, table: TableId) -> impl Iterator<Item = &Arc<Row>> {
        self.tables.get(table).into_iter().flat_map(|table| table.rows.values())
    }

    /// Number of strong references to a row.
    pub(crate) fn strong_count(&self, key: RowKey) -> usize {
        self.strong.get(&key).copied().unwrap_or(0)
    }

    /// The rows with weak references to a row.
    pub(crate) fn weak_sources(&self, key: RowKey) -> impl Iterator<Item = RowKey> {
        self.weak.get(&key).into_iter().flat_map(|sources| sources.iter().copied())
    }

    /// The columns of a table that hold references.
    pub(crate) fn ref_columns(&self, table: TableId) -> &[RefColumn] {
        &self.ref_columns[table]
    }

    /// All references in a row of `table`.
    pub(crate) fn references<'a>(
        &'a self,
        table: TableId,
        row: &'a Row,
    ) -> impl Iterator<Item = Reference> + 'a {
        self.ref_columns[table].iter().flat_map(|ref_column| {
            let RefColumn { column, in_values, target, strength } = *ref_column;
            let datum = row.get(column);
            let values = in_values.then(|| datum.values()).into_iter().flatten();
            let keys = (!in_values).then(|| datum.keys()).into_iter().flatten();
            let to = move |uuid| Reference { column, target: (target, uuid), strength };
            keys.chain(values).filter_map(Atom::as_uuid).map(to)
        })
    }

    /// The values of one index in a row.
    pub(crate) fn index_key(&self, table: TableId, index: usize, row: &Row) -> Vec<Datum> {
        let columns = &self.schema.tables[table].indexes[index];
        columns.iter().map(|&column| row.get(column).clone()).collect()
    }

    /// Makes the changes of a consistent transaction.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        // All old values leave before any new one arrives: two rows may swap their index values.
        for change in changes {
            if let Some(old) = &change.old {
                self.forget(change.key, old);
            }
        }
        for change in changes {
            if let Some(new) = &change.new {
                self.learn(change.key, new);
            }
        }
    }

    fn forget(&mut self, key: RowKey, row: &Arc<Row>) {
        let (table, uuid) = key;
        self.tables[table].rows.remove(&uuid);
        for index in 0..self.tables[table].indexes.len() {
            let values = self.index_key(table, index, row);
            self.tables[table].indexes[index].remove(&values);
        }
        for reference in self.references(table, row).collect::<Vec<_>>() {
            match reference.strength {
                RefType::Strong => decrement(&mut self.strong, reference.target),
                RefType::Weak => {
                    if let Some(sources) = self.weak.get_mut(&reference.target) {
                        sources.remove(&key);
                        if sources.is_empty() {
                            self.weak.remove(&reference.target);
                        }
                    }
                }
            }
        }
    }

    fn learn(&mut self, key: RowKey, row: &Arc<Row>) {
        let (table, uuid) = key;
        for index in 0..self.tables[table].indexes.len() {
            let values = self.index_key(table, index, row);
            self.tables[table].indexes[index].insert(values, uuid);
        }
        for reference in self.references(table, row).collect::<Vec<_>>() {
            match reference.strength {
                RefType::Strong => *self.strong.entry(reference.target).or_default() += 1,
                RefType::Weak => {
                    self.weak.entry(reference.target).or_default().insert(key);
                }
            }
        }
        self.tables[table].rows.insert(uuid, row.clone());
    }
}

fn decrement(counts: &mut HashMap<RowKey, usize>, key: RowKey) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

fn ref_columns(schema: &DatabaseSchema, table: &TableSchema) -> Vec<RefColumn> {
    let mut found = Vec::new();
    for (column, column_schema) in table.own_columns() {
        let ty = &column_schema.ty;
        for (in_values, base) in [(false, Some(&ty.key)), (true, ty.value.as_ref())] {
            let Some(base) = base else { continue };
            let target = base.ref_table.as_deref().and_then(|name| schema.table_id(name));
            if let Some(target) = target {
                found.push(RefColumn { column, in_values, target, strength: base.ref_type });
            }
        }
    }
    found
}
