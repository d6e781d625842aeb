//! Records of the database file: cutting the log into records, replaying them into a database, and
//! the JSON of new ones.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use sha1::{Digest, Sha1};

use crate::datum::Datum;
use crate::db::{Change, Database, Row};
use crate::schema::{DatabaseSchema, TableSchema};
use crate::txn::Transaction;
use crate::uuid::Uuid;

/// How a record of a standalone database begins.
const MAGIC: &str = "OVSDB JSON ";
/// Longest header line: the magic, a 20-digit length, a space, 40 digits of SHA-1, a newline.
const MAX_HEADER: usize = MAGIC.len() + 20 + 1 + 40 + 1;

/// Where and how a log is damaged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt {
    pub record: usize,
    pub line: usize,
    pub byte: usize,
    pub what: String,
}

/// A log that was read.
pub(crate) struct Log {
    pub db: Database,
    /// Bytes up to the end of the last whole record.
    pub end: usize,
}

/// A record with its header, as it is in the file.
pub(crate) fn frame(json: &Value) -> Vec<u8> {
    let mut body = json.to_string().into_bytes();
    body.push(b'\n');
    let mut record = format!("{MAGIC}{} {}\n", body.len(), hex_sha1(&body)).into_bytes();
    record.extend(body);
    record
}

fn hex_sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a whole log.
pub(crate) fn read_log(bytes: &[u8]) -> Result<Log, Corrupt> {
    let mut reader = Reader { bytes, at: 0, line: 1, record: 0 };
    if bytes.is_empty() {
        return Err(reader.corrupt(0, "the file is empty: no schema"));
    }
    let schema = match reader.next()? {
        Some(json) => DatabaseSchema::from_json(&json).map_err(|error| Corrupt {
            record: 0,
            line: 2,
            byte: 0,
            what: format!("not a schema: {error}"),
        })?,
        None => return Err(reader.corrupt(0, "the schema is cut off")),
    };
    let mut replay = Replay::new(schema);
    loop {
        let (record, line, byte) = (reader.record, reader.line, reader.at);
        let Some(json) = reader.next()? else { break };
        replay.transaction(&json).map_err(|what| Corrupt { record, line: line + 1, byte, what })?;
    }
    let end = reader.at;
    let finished = replay.finish();
    finished.map(|db| Log { db, end }).map_err(|what| reader.corrupt(0, &what))
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Where the next record begins.
    at: usize,
    line: usize,
    record: usize,
}

impl Reader<'_> {
    fn corrupt(&self, offset: usize, what: &str) -> Corrupt {
        let line = self.line;
        Corrupt { record: self.record, line, byte: self.at + offset, what: what.to_owned() }
    }

    /// The next record; `None` at the end of the log or of its whole records.
    fn next(&mut self) -> Result<Option<Value>, Corrupt> {
        let rest = &self.bytes[self.at..];
        // Where a crash came between the growing of the file and the writing of the data.
        if rest.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let header_end = rest.iter().take(MAX_HEADER).position(|&byte| byte == b'\n');
        let Some(header_end) = header_end else {
            return match could_begin_header(rest) {
                true => Ok(None),
                false => Err(self.corrupt(0, &format!("expected \"{MAGIC}<length> <sha1>\""))),
            };
        };
        let header = std::str::from_utf8(&rest[..header_end]).unwrap_or_default();
        if header.starts_with("OVSDB CLUSTER") {
            return Err(self.corrupt(0, "a clustered database; only standalone ones can be opened"));
        }
        let Some((length, sha1)) = parse_header(header) else {
            return Err(self.corrupt(0, &format!("expected \"{MAGIC}<length> <sha1>\"")));
        };
        let start = header_end + 1;
        let Some(body) = start.checked_add(length).and_then(|end| rest.get(start..end)) else {
            // A record has its only newline at its end; one here means that the length is wrong,
            // not that the rest of the record is missing.
            return match rest[start..].contains(&b'\n') {
                true => {
                    Err(self.corrupt(0, "the record's length reaches past the end of the file"))
                }
                false => Ok(None),
            };
        };
        if hex_sha1(body) != sha1 {
            // JSON has no NUL: as above, but the crash came in the middle of the data.
            if start + length == rest.len() && body.ends_with(b"\0") {
                return Ok(None);
            }
            self.line += 1;
            return Err(self.corrupt(start, "the record does not have its SHA-1 checksum"));
        }
        let json = serde_json::from_slice(body).map_err(|error| {
            let line = error.line().saturating_sub(1);
            let before: usize =
                body.split_inclusive(|&b| b == b'\n').take(line).map(<[u8]>::len).sum();
            let offset = start + before + error.column().saturating_sub(1);
            self.line += 1 + line;
            self.corrupt(offset, &format!("not JSON: {error}"))
        })?;
        self.at += start + length;
        self.line += 1 + body.iter().filter(|&&byte| byte == b'\n').count();
        self.record += 1;
        Ok(Some(json))
    }
}

/// True if `rest`, which ends the file without a newline, can be the beginning of a header.
fn could_begin_header(rest: &[u8]) -> bool {
    let magic = MAGIC.as_bytes();
    let common = rest.len().min(magic.len());
    let plain = |&byte: &u8| byte == b' ' || byte.is_ascii_hexdigit();
    rest.len() < MAX_HEADER && rest[..common] == magic[..common] && rest[common..].iter().all(plain)
}

fn parse_header(header: &str) -> Option<(usize, &str)> {
    let (length, sha1) = header.strip_prefix(MAGIC)?.split_once(' ')?;
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    let is_sha1 = sha1.len() == 40 && sha1.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((length.parse().ok().filter(|_| digits)?, Some(sha1).filter(|_| is_sha1)?))
}

/// Rows as they are built up from the log.
struct Replay {
    schema: DatabaseSchema,
    tables: Vec<BTreeMap<Uuid, Row>>,
}

impl Replay {
    fn new(schema: DatabaseSchema) -> Self {
        let tables = schema.tables.iter().map(|_| BTreeMap::new()).collect();
        Self { schema, tables }
    }

    /// Replays one transaction; the error says what in it is wrong.
    fn transaction(&mut self, json: &Value) -> Result<(), String> {
        let object = json.as_object().ok_or("a transaction is not an object")?;
        let is_diff = object.get("_is_diff") == Some(&Value::Bool(true));
        for (name, rows) in object.iter().filter(|(name, _)| !name.starts_with('_')) {
            let id = self.schema.table_id(name);
            let id = id.ok_or_else(|| format!("the schema has no table {name}"))?;
            let table = &self.schema.tables[id];
            let rows = rows.as_object().ok_or_else(|| format!("rows of {name}: not an object"))?;
            for (uuid_text, row) in rows {
                let wrong = |what: String| format!("table {name} row {uuid_text}: {what}");
                let uuid: Uuid = uuid_text.parse().map_err(|_| wrong("not a UUID".into()))?;
                if row.is_null() {
                    let removed = self.tables[id].remove(&uuid);
                    removed.ok_or_else(|| wrong("deleted, but does not exist".into()))?;
                    continue;
                }
                let rows = &mut self.tables[id];
                match rows.get_mut(&uuid) {
                    Some(existing) => replay_row(existing, row, table, is_diff).map_err(wrong)?,
                    None => {
                        let mut new = Row::new(table, uuid);
                        replay_row(&mut new, row, table, false).map_err(wrong)?;
                        rows.insert(uuid, new);
                    }
                }
            }
        }
        Ok(())
    }

    /// The database, found consistent as a whole.
    fn finish(self) -> Result<Database, String> {
        let mut db = Database::new(self.schema);
        let mut all = Transaction::new(&db);
        for (id, rows) in self.tables.into_iter().enumerate() {
            rows.into_values().for_each(|row| all.put(id, row));
        }
        let changes = all.finish().map_err(|error| format!("the rows do not fit: {error}"))?;
        db.apply(&changes);
        Ok(db)
    }
}

fn replay_row(row: &mut Row, json: &Value, table: &TableSchema, diff: bool) -> Result<(), String> {
    for (name, value) in json.as_object().ok_or("not an object")? {
        let id = table.column_id(name).filter(|_| !name.starts_with('_'));
        let id = id.ok_or_else(|| format!("the schema has no column {name}"))?;
        let ty = &table.columns[id].ty;
        let value = if diff {
            let any_size = Datum::from_json_any_size(value, ty, None);
            any_size.and_then(|change| row.get(id).apply_diff(&change, ty))
        } else {
            Datum::from_json(value, ty, None)
        };
        row.set(id, value.map_err(|error| format!("column {name}: {error}"))?);
    }
    Ok(())
}

/// The record of a transaction: differences for changed rows, non-default values for new ones.
/// `None` if there is nothing to keep.
pub(crate) fn transaction_json(
    schema: &DatabaseSchema,
    changes: &[Change],
    comment: Option<&str>,
) -> Option<Value> {
    let mut tables = Map::new();
    for change in changes {
        let table = &schema.tables[change.key.0];
        let row = match (&change.old, &change.new) {
            (_, None) => Value::Null,
            (None, Some(new)) => kept_columns(table, |id| {
                let default = Datum::default_of(&table.columns[id].ty);
                (*new.get(id) != default).then(|| new.get(id).to_json())
            }),
            (Some(old), Some(new)) => {
                let row = kept_columns(table, |id| {
                    let (old, new) = (old.get(id), new.get(id));
                    (old != new).then(|| old.diff(new, &table.columns[id].ty).to_json())
                });
                if row.as_object().is_some_and(Map::is_empty) {
                    continue;
                }
                row
            }
        };
        let rows = tables.entry(&table.name).or_insert_with(|| Value::Object(Map::new()));
        if let Some(rows) = rows.as_object_mut() {
            rows.insert(change.key.1.to_string(), row);
        }
    }
    if tables.is_empty() {
        return None;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    tables.insert("_date".into(), u64::try_from(since_1970.as_millis()).unwrap_or(0).into());
    tables.insert("_is_diff".into(), true.into());
    if let Some(comment) = comment {
        tables.insert("_comment".into(), comment.into());
    }
    Some(Value::Object(tables))
}

/// The record that makes all of `db` out of nothing; `None` if it is empty.
pub(crate) fn snapshot_json(db: &Database) -> Option<Value> {
    let tables = 0..db.schema().tables.len();
    let insert = |id| {
        db.rows(id).map(move |row| Change {
            key: (id, row.uuid()),
            old: None,
            new: Some(row.clone()),
        })
    };
    let changes: Vec<Change> = tables.flat_map(insert).collect();
    transaction_json(db.schema(), &changes, Some("compacting database"))
}

fn kept_columns(
    table: &TableSchema,
    value: impl Fn(crate::schema::ColumnId) -> Option<Value>,
) -> Value {
    let kept = table.own_columns().filter(|(_, column)| !column.ephemeral);
    let members = kept.filter_map(|(id, column)| Some((column.name.clone(), value(id)?)));
    Value::Object(members.collect())
}
