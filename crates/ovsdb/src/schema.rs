//! Database schemas (RFC 7047, section 3.2): tables, columns, indexes; read from and printed to
//! their JSON.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::types::{AtomType, ColumnType};

/// The Open_vSwitch schema that the switch serves when it creates a database.
pub const OPEN_VSWITCH_SCHEMA: &str = include_str!("vswitch.schema.json");

/// Position of a table in [`DatabaseSchema::tables`].
pub type TableId = usize;
/// Position of a column in [`TableSchema::columns`] and of its value in a row.
pub type ColumnId = usize;

/// Position of `_uuid` in every table.
pub const UUID_COLUMN: ColumnId = 0;
/// Position of `_version` in every table.
pub const VERSION_COLUMN: ColumnId = 1;
/// Position of the first column that the schema itself defines.
pub const FIRST_COLUMN: ColumnId = 2;

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSchema {
    /// Its name; `_` begins only `_uuid` and `_version`.
    pub name: String,
    /// What it holds.
    pub ty: ColumnType,
    /// Not kept in the file.
    pub ephemeral: bool,
    /// May change after the row was inserted.
    pub mutable: bool,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSchema {
    /// Its name.
    pub name: String,
    /// `_uuid`, `_version`, then the schema's columns sorted by name.
    pub columns: Vec<ColumnSchema>,
    /// Most rows at the end of a transaction; `None` for no limit.
    pub max_rows: Option<usize>,
    /// Rows stay without being referenced. Rows of other tables are deleted with the last strong
    /// reference to them.
    pub is_root: bool,
    /// Sets of columns that together differ between any two rows.
    pub indexes: Vec<Vec<ColumnId>>,
}

/// A database schema.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSchema {
    /// Name of the database.
    pub name: String,
    /// `x.y.z`.
    pub version: String,
    /// Checksum of the schema's source as its author gave it; empty if not given.
    pub cksum: String,
    /// Tables, sorted by name.
    pub tables: Vec<TableSchema>,
}

impl TableSchema {
    /// Position of the column called `name`.
    pub fn column_id(&self, name: &str) -> Option<ColumnId> {
        match name {
            "_uuid" => Some(UUID_COLUMN),
            "_version" => Some(VERSION_COLUMN),
            _ => {
                let columns = &self.columns[FIRST_COLUMN..];
                let at = columns.binary_search_by(|column| column.name.as_str().cmp(name)).ok()?;
                Some(FIRST_COLUMN + at)
            }
        }
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&ColumnSchema> {
        self.column_id(name).map(|id| &self.columns[id])
    }

    /// The columns that the schema defines, with their positions.
    pub fn own_columns(&self) -> impl Iterator<Item = (ColumnId, &ColumnSchema)> {
        self.columns.iter().enumerate().skip(FIRST_COLUMN)
    }

    fn from_json(name: &str, json: &Value) -> Result<Self> {
        let object = members(json, "table schema")?;
        let mut columns = vec![pseudo_column("_uuid", false), pseudo_column("_version", true)];
        let named = object.get("columns").and_then(Value::as_object);
        let named = named.ok_or_else(|| Error::syntax(json, "table schema lacks \"columns\""))?;
        for (column, json) in named {
            columns.push(ColumnSchema::from_json(column, json)?);
        }
        columns[FIRST_COLUMN..].sort_by(|a, b| a.name.cmp(&b.name));
        let max_rows = match object.get("maxRows") {
            None => None,
            Some(max) => match max.as_u64().filter(|&max| max > 0) {
                Some(max) => Some(usize::try_from(max).unwrap_or(usize::MAX)),
                None => return Err(Error::syntax(json, "maxRows must be at least 1")),
            },
        };
        let is_root = flag(object, "isRoot", false, json)?;
        let mut table =
            Self { name: name.to_owned(), columns, max_rows, is_root, indexes: Vec::new() };
        if let Some(indexes) = object.get("indexes") {
            table.indexes = table.read_indexes(indexes)?;
        }
        Ok(table)
    }

    fn read_indexes(&self, json: &Value) -> Result<Vec<Vec<ColumnId>>> {
        let wrong = |what: &str| Error::syntax(json, format!("indexes of {}: {what}", self.name));
        let mut indexes = Vec::new();
        for names in json.as_array().ok_or_else(|| wrong("not an array"))? {
            let mut index = Vec::new();
            for name in names.as_array().ok_or_else(|| wrong("not an array of arrays"))? {
                let name = name.as_str().ok_or_else(|| wrong("not a column name"))?;
                let id = self.column_id(name).ok_or_else(|| wrong("no such column"))?;
                if self.columns[id].ephemeral || index.contains(&id) {
                    return Err(wrong("a column is ephemeral or named twice"));
                }
                index.push(id);
            }
            if index.is_empty() {
                return Err(wrong("no column"));
            }
            indexes.push(index);
        }
        Ok(indexes)
    }

    fn to_json(&self, show_root: bool) -> Value {
        let mut object = Map::new();
        let columns = self.own_columns().map(|(_, column)| (column.name.clone(), column.to_json()));
        object.insert("columns".into(), Value::Object(columns.collect()));
        if let Some(max_rows) = self.max_rows {
            object.insert("maxRows".into(), max_rows.into());
        }
        if show_root && self.is_root {
            object.insert("isRoot".into(), true.into());
        }
        if !self.indexes.is_empty() {
            let names = |index: &Vec<ColumnId>| -> Value {
                index.iter().map(|&id| self.columns[id].name.as_str()).collect()
            };
            object.insert("indexes".into(), self.indexes.iter().map(names).collect());
        }
        Value::Object(object)
    }
}

impl ColumnSchema {
    fn from_json(name: &str, json: &Value) -> Result<Self> {
        if name.starts_with('_') {
            return Err(Error::syntax(json, format!("column name \"{name}\" begins with \"_\"")));
        }
        let object = members(json, "column schema")?;
        let ty = object.get("type").ok_or_else(|| Error::syntax(json, "column lacks \"type\""))?;
        Ok(Self {
            name: name.to_owned(),
            ty: ColumnType::from_json(ty)?,
            ephemeral: flag(object, "ephemeral", false, json)?,
            mutable: flag(object, "mutable", true, json)?,
        })
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("type".into(), self.ty.to_json());
        if self.ephemeral {
            object.insert("ephemeral".into(), true.into());
        }
        if !self.mutable {
            object.insert("mutable".into(), false.into());
        }
        Value::Object(object)
    }
}

impl DatabaseSchema {
    /// The schema that the switch serves, [`OPEN_VSWITCH_SCHEMA`].
    ///
    /// # Errors
    /// Never for the text this crate is built with; a test reads it.
    pub fn open_vswitch() -> Result<Self> {
        Self::from_text(OPEN_VSWITCH_SCHEMA)
    }

    /// Reads a `<database-schema>` from text.
    ///
    /// # Errors
    /// `syntax error` for text that is not JSON or not a schema.
    pub fn from_text(text: &str) -> Result<Self> {
        let json = serde_json::from_str(text)
            .map_err(|error| Error::new("syntax error", format!("schema is not JSON: {error}")))?;
        Self::from_json(&json)
    }

    /// Reads a `<database-schema>`.
    ///
    /// # Errors
    /// `syntax error` for anything RFC 7047 does not allow there.
    pub fn from_json(json: &Value) -> Result<Self> {
        let object = members(json, "database schema")?;
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let need = |name: &str| {
            let lacking = || Error::syntax(json, format!("schema lacks \"{name}\""));
            text(name).map(str::to_owned).ok_or_else(lacking)
        };
        let mut schema = Self {
            name: need("name")?,
            version: text("version").unwrap_or_default().to_owned(),
            cksum: text("cksum").unwrap_or_default().to_owned(),
            tables: Vec::new(),
        };
        let tables = object.get("tables").and_then(Value::as_object);
        for (name, table) in tables.ok_or_else(|| Error::syntax(json, "schema lacks \"tables\""))? {
            if name.starts_with('_') {
                let text = format!("table name \"{name}\" begins with \"_\"");
                return Err(Error::syntax(json, text));
            }
            schema.tables.push(TableSchema::from_json(name, table)?);
        }
        schema.tables.sort_by(|a, b| a.name.cmp(&b.name));
        schema.check_references()?;
        // A schema that marks no table as root predates garbage collection: all tables are roots.
        if !schema.tables.iter().any(|table| table.is_root) {
            schema.tables.iter_mut().for_each(|table| table.is_root = true);
        }
        Ok(schema)
    }

    fn check_references(&self) -> Result<()> {
        for table in &self.tables {
            for column in &table.columns {
                for base in [Some(&column.ty.key), column.ty.value.as_ref()].into_iter().flatten() {
                    let target = base.ref_table.as_deref();
                    if let Some(target) = target.filter(|name| self.table_id(name).is_none()) {
                        let text = format!(
                            "table {} column {} refers to table {target}, which does not exist",
                            table.name, column.name
                        );
                        return Err(Error::new("syntax error", text));
                    }
                }
            }
        }
        Ok(())
    }

    /// The `<database-schema>`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("name".into(), self.name.as_str().into());
        if !self.version.is_empty() {
            object.insert("version".into(), self.version.as_str().into());
        }
        if !self.cksum.is_empty() {
            object.insert("cksum".into(), self.cksum.as_str().into());
        }
        // Where all tables are roots, saying so of none means the same.
        let show_root = self.tables.iter().any(|table| !table.is_root);
        let tables = self.tables.iter().map(|t| (t.name.clone(), t.to_json(show_root)));
        object.insert("tables".into(), Value::Object(tables.collect()));
        Value::Object(object)
    }

    /// Position of the table called `name`.
    pub fn table_id(&self, name: &str) -> Option<TableId> {
        self.tables.binary_search_by(|table| table.name.as_str().cmp(name)).ok()
    }

    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&TableSchema> {
        self.table_id(name).map(|id| &self.tables[id])
    }
}

fn pseudo_column(name: &str, ephemeral: bool) -> ColumnSchema {
    let ty = ColumnType::scalar(AtomType::Uuid);
    ColumnSchema { name: name.to_owned(), ty, ephemeral, mutable: false }
}

fn members<'a>(json: &'a Value, what: &str) -> Result<&'a Map<String, Value>> {
    json.as_object().ok_or_else(|| Error::syntax(json, format!("{what} is not an object")))
}

fn flag(object: &Map<String, Value>, name: &str, default: bool, json: &Value) -> Result<bool> {
    match object.get(name) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Error::syntax(json, format!("\"{name}\" is not true or false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn our_schema_reads_and_survives_printing() {
        let schema = DatabaseSchema::open_vswitch().unwrap();
        assert_eq!(schema.name, "Open_vSwitch");
        let again = DatabaseSchema::from_json(&schema.to_json()).unwrap();
        assert_eq!(schema, again);
        let bridge = schema.table("Bridge").unwrap();
        assert!(!bridge.is_root);
        assert_eq!(bridge.indexes, vec![vec![bridge.column_id("name").unwrap()]]);
        assert!(schema.table("Interface").unwrap().column("statistics").unwrap().ephemeral);
    }

    #[test]
    fn mistakes_are_refused() {
        let refuse = |tables: Value| {
            DatabaseSchema::from_json(&json!({"name": "d", "tables": tables})).unwrap_err()
        };
        refuse(json!({"t": {"columns": {"_c": {"type": "string"}}}}));
        refuse(json!({"t": {"columns": {"c": {"type": "text"}}}}));
        refuse(json!({"t": {"columns": {"c": {"type": {"key": "string", "min": 2}}}}}));
        refuse(json!({"t": {"columns": {"c": {"type": {"key": "string", "max": 0}}}}}));
        refuse(json!({"t": {"columns": {}, "indexes": [["c"]]}}));
        refuse(json!({"t": {"columns": {"c": {"type": {"key":
            {"type": "uuid", "refTable": "none"}}}}}}));
        refuse(json!({"t": {"columns": {"c": {"type": {"key":
            {"type": "integer", "minInteger": 2, "maxInteger": 1}}}}}}));
        refuse(json!({"t": []}));
        refuse(json!([]));
    }
}
