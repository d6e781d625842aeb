//! Random transactions on a small database: after each, what must hold holds by brute force, a
//! failed one has changed nothing, monitors have told the truth, and the file gives it all back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::db::{Database, RowKey};
use crate::file::DbFile;
use crate::monitor::{Monitor, Version};
use crate::schema::{DatabaseSchema, VERSION_COLUMN};
use crate::transact::{Outcome, Session, execute};
use crate::types::RefType;
use crate::{ColumnType, Datum, Uuid};

const SCHEMA: &str = r#"{"name": "model", "version": "1.0.0", "tables": {
  "Root": {"isRoot": true, "indexes": [["name"]], "maxRows": 5, "columns": {
    "name": {"type": "string"},
    "count": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 9}}},
    "seen": {"type": {"key": "integer", "min": 0}, "ephemeral": true},
    "children": {"type": {"key": {"type": "uuid", "refTable": "Child"}, "min": 0, "max": 4}},
    "friends": {"type": {"key": {"type": "uuid", "refTable": "Child", "refType": "weak"},
                         "min": 0, "max": "unlimited"}},
    "mixed": {"type": {"key": {"type": "uuid", "refTable": "Root", "refType": "weak"},
                       "value": {"type": "uuid", "refTable": "Child"},
                       "min": 0, "max": "unlimited"}}}},
  "Child": {"columns": {
    "label": {"type": "string"},
    "next": {"type": {"key": {"type": "uuid", "refTable": "Child"}, "min": 0}},
    "owner": {"type": {"key": {"type": "uuid", "refTable": "Root", "refType": "weak"},
                       "min": 0}}}}}}"#;

struct Nobody;
impl Session for Nobody {
    fn owns_lock(&self, _: &str) -> bool {
        false
    }
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

fn schema() -> DatabaseSchema {
    DatabaseSchema::from_text(SCHEMA).unwrap()
}

/// One random operation; small numbers pick rows and names.
#[derive(Clone, Debug)]
enum Op {
    Root(u8),
    Child(u8),
    Link(&'static str, u8, u8),
    Unlink(&'static str, u8, u8),
    Mix(u8, u8, u8),
    Count(u8, i64),
    See(u8, i64),
    Rename(u8, u8),
    Next(u8, u8),
    Own(u8, u8),
    DeleteRoot(u8),
    DeleteChild(u8),
    Abort,
}

fn any_op() -> impl Strategy<Value = Op> {
    let set = prop_oneof![Just("children"), Just("friends")];
    let n = 0..6u8;
    prop_oneof![
        8 => n.clone().prop_map(Op::Root),
        16 => n.clone().prop_map(Op::Child),
        32 => (set.clone(), n.clone(), n.clone()).prop_map(|(set, a, b)| Op::Link(set, a, b)),
        8 => (set, n.clone(), n.clone()).prop_map(|(set, a, b)| Op::Unlink(set, a, b)),
        12 => (n.clone(), n.clone(), n.clone()).prop_map(|(a, b, c)| Op::Mix(a, b, c)),
        8 => (n.clone(), -3..5i64).prop_map(|(a, by)| Op::Count(a, by)),
        4 => (n.clone(), 0..3i64).prop_map(|(a, value)| Op::See(a, value)),
        4 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Rename(a, b)),
        12 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Next(a, b)),
        8 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Own(a, b)),
        1 => n.clone().prop_map(Op::DeleteRoot),
        1 => n.prop_map(Op::DeleteChild),
        1 => Just(Op::Abort),
    ]
}

/// The operation as JSON. Rows are named by existing identifiers, or by the names of rows that the
/// same transaction inserts (`inserted`).
fn to_json(op: &Op, db: &Database, inserted: &mut BTreeSet<String>) -> Value {
    let existing = |table: &str, n: u8| {
        let rows: Vec<Uuid> =
            db.rows(db.schema().table_id(table).unwrap()).map(|row| row.uuid()).collect();
        (!rows.is_empty()).then(|| rows[n as usize % rows.len()])
    };
    let row = |table: &str, n: u8| {
        let name = format!("{table}{n}");
        let any_new = inserted.iter().find(|name| name.starts_with(table));
        match (existing(table, n), any_new) {
            _ if inserted.contains(&name) => json!(["named-uuid", name]),
            (Some(uuid), _) => json!(["uuid", uuid.to_string()]),
            (None, Some(new)) => json!(["named-uuid", new]),
            (None, None) => json!(["uuid", Uuid::ZERO.to_string()]),
        }
    };
    let at = |table: &str, n: u8| json!([["_uuid", "==", row(table, n)]]);
    let mutate = |a: u8, mutation: Value| json!({"op": "mutate", "table": "Root", "where": at("Root", a), "mutations": [mutation]});
    let update = |table: &str, a: u8, values: Value| json!({"op": "update", "table": table, "where": at(table, a), "row": values});
    match op {
        Op::Root(n) | Op::Child(n) => {
            let table = if matches!(op, Op::Root(_)) { "Root" } else { "Child" };
            let column = if table == "Root" { "name" } else { "label" };
            let name = format!("{table}{n}");
            let json =
                json!({"op": "insert", "table": table, "row": {column: name}, "uuid-name": name});
            inserted.insert(name);
            json
        }
        Op::Link(set, a, b) => mutate(*a, json!([set, "insert", row("Child", *b)])),
        Op::Unlink(set, a, b) => mutate(*a, json!([set, "delete", row("Child", *b)])),
        Op::Mix(a, b, c) => {
            mutate(*a, json!(["mixed", "insert", ["map", [[row("Root", *b), row("Child", *c)]]]]))
        }
        Op::Count(a, by) => mutate(*a, json!(["count", "+=", by])),
        Op::See(a, value) => update("Root", *a, json!({ "seen": value })),
        Op::Rename(a, b) => update("Root", *a, json!({ "name": format!("Root{b}") })),
        Op::Next(a, b) => update("Child", *a, json!({ "next": row("Child", *b) })),
        Op::Own(a, b) => update("Child", *a, json!({ "owner": row("Root", *b) })),
        Op::DeleteRoot(a) => json!({"op": "delete", "table": "Root", "where": at("Root", *a)}),
        Op::DeleteChild(a) => json!({"op": "delete", "table": "Child", "where": at("Child", *a)}),
        Op::Abort => json!({"op": "abort"}),
    }
}

type Content = BTreeMap<(String, String), Value>;

/// Everything in the database, `_version` and, if asked, ephemeral columns left out.
fn content(db: &Database, ephemeral: bool) -> Content {
    let mut content = Content::new();
    for (id, table) in db.schema().tables.iter().enumerate() {
        for row in db.rows(id) {
            let columns = table.own_columns().filter(|(_, column)| ephemeral || !column.ephemeral);
            let key = (table.name.clone(), row.uuid().to_string());
            content.insert(key, row.to_json(table, columns.map(|(id, _)| id)));
        }
    }
    content
}

/// All that must hold, found out without the database's own counts and indexes.
fn check_invariants(db: &Database) {
    let mut strong: BTreeMap<RowKey, usize> = BTreeMap::new();
    let mut weak: BTreeSet<(RowKey, RowKey)> = BTreeSet::new();
    for (id, table) in db.schema().tables.iter().enumerate() {
        let mut names = BTreeSet::new();
        for row in db.rows(id) {
            for (column, schema) in table.own_columns() {
                row.get(column).check(&schema.ty).unwrap();
                assert!(row.get(column).fits(&schema.ty));
            }
            for reference in db.references(id, row) {
                assert!(db.row(reference.target).is_some(), "a dangling reference");
                match reference.strength {
                    RefType::Strong => *strong.entry(reference.target).or_default() += 1,
                    RefType::Weak => {
                        weak.insert((reference.target, (id, row.uuid())));
                    }
                }
            }
            for index in 0..table.indexes.len() {
                assert!(names.insert((index, db.index_key(id, index, row))), "a duplicate");
            }
        }
        let indexed: usize = db.tables[id].indexes.iter().map(|index| index.len()).sum();
        assert_eq!(indexed, names.len());
        assert!(table.max_rows.is_none_or(|max| db.rows(id).count() <= max));
    }
    for (id, table) in db.schema().tables.iter().enumerate() {
        for row in db.rows(id) {
            let key = (id, row.uuid());
            let count = strong.get(&key).copied().unwrap_or(0);
            assert_eq!(db.strong_count(key), count);
            assert!(table.is_root || count > 0, "garbage");
            let sources: BTreeSet<RowKey> = db.weak_sources(key).collect();
            let expected = weak.iter().filter(|(target, _)| *target == key).map(|(_, from)| *from);
            assert_eq!(sources, expected.collect());
        }
    }
}

/// A client's copy of the database, kept up to date by what a monitor tells it.
struct Copy {
    monitor: Monitor,
    rows: Content,
}

impl Copy {
    fn new(version: Version) -> Self {
        let all = |table: &crate::TableSchema| {
            let names: Vec<_> = table.own_columns().map(|(_, column)| &column.name).collect();
            (table.name.clone(), json!({ "columns": names }))
        };
        let requests = Value::Object(schema().tables.iter().map(all).collect());
        let monitor = Monitor::from_json(&requests, &schema(), version).unwrap();
        Self { monitor, rows: Content::new() }
    }

    fn update(&mut self, db: &Database, updates: Option<Value>) {
        for (table, rows) in updates.iter().flat_map(|updates| updates.as_object().unwrap()) {
            for (uuid, update) in rows.as_object().unwrap() {
                self.update_row(db, (table.clone(), uuid.clone()), update);
            }
        }
    }

    fn update_row(&mut self, db: &Database, key: (String, String), update: &Value) {
        let table = db.schema().table(&key.0).unwrap();
        if let Some(new) = update.get("new") {
            self.rows.insert(key, new.clone());
        } else if let Some(columns) = update.get("insert") {
            let defaults = table
                .own_columns()
                .map(|(_, column)| (column.name.clone(), Datum::default_of(&column.ty).to_json()));
            let mut row = Value::Object(defaults.collect());
            for (name, value) in columns.as_object().unwrap() {
                row[name] = value.clone();
            }
            assert!(self.rows.insert(key, row).is_none());
        } else if let Some(columns) = update.get("modify") {
            let row = self.rows.get_mut(&key).unwrap();
            for (name, diff) in columns.as_object().unwrap() {
                let ty: &ColumnType = &table.column(name).unwrap().ty;
                let old = Datum::from_json(&row[name], ty, None).unwrap();
                let diff = Datum::from_json_any_size(diff, ty, None).unwrap();
                row[name] = old.apply_diff(&diff, ty).unwrap().to_json();
            }
        } else {
            assert!(self.rows.remove(&key).is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn transactions_keep_the_database_consistent(
        history in proptest::collection::vec(
            (proptest::collection::vec(any_op(), 1..6), any::<u8>()), 1..25),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let (mut file, mut db) = DbFile::open(&path, &schema()).unwrap();
        let mut copies = [Copy::new(Version::V1), Copy::new(Version::V2)];
        for (ops, chance) in history {
            let mut inserted = BTreeSet::new();
            let ops: Vec<Value> = ops.iter().map(|op| to_json(op, &db, &mut inserted)).collect();
            let before = content(&db, true);
            match execute(&db, &ops, &Nobody) {
                Outcome::Failed(results) => {
                    prop_assert!(results.iter().any(|result| result.get("error").is_some()));
                    prop_assert_eq!(content(&db, true), before);
                }
                Outcome::Commit(results, commit) => {
                    prop_assert_eq!(results.len(), ops.len());
                    file.append(db.schema(), &commit.changes, None, chance & 1 == 0).unwrap();
                    db.apply(&commit.changes);
                    for copy in &mut copies {
                        let updates = copy.monitor.changes(db.schema(), &commit.changes);
                        copy.update(&db, updates);
                    }
                    for change in &commit.changes {
                        let version = |row: &Option<std::sync::Arc<crate::db::Row>>| {
                            row.as_ref().map(|row| row.get(VERSION_COLUMN).clone())
                        };
                        prop_assert_ne!(version(&change.old), version(&change.new));
                    }
                }
                Outcome::Wait(_) => prop_assert!(false, "nothing waits"),
            }
            check_invariants(&db);
            for copy in &copies {
                prop_assert_eq!(&copy.rows, &content(&db, true));
            }
            if chance > 230 {
                file.compact(&db).unwrap();
            } else if chance > 200 {
                drop(file);
                let kept = content(&db, false);
                (file, db) = DbFile::open(&path, &schema()).unwrap();
                prop_assert_eq!(content(&db, false), kept);
                // What is ephemeral is gone, so the copies start anew.
                for copy in &mut copies {
                    let version = copy.monitor.version();
                    *copy = Copy::new(version);
                    copy.rows = content(&db, true);
                }
            }
        }
        drop(file);
        let (_, again) = DbFile::open(&path, &schema()).unwrap();
        prop_assert_eq!(content(&again, false), content(&db, false));
    }
}

/// Histories like those above do commit and do build up rows, so the test above tests something.
#[test]
fn random_histories_do_commit() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut commits, mut rows) = (0, 0);
    for _ in 0..40 {
        let mut db = Database::new(schema());
        for _ in 0..25 {
            let ops = proptest::collection::vec(any_op(), 1..6).new_tree(&mut runner).unwrap();
            let mut inserted = BTreeSet::new();
            let ops: Vec<Value> =
                ops.current().iter().map(|op| to_json(op, &db, &mut inserted)).collect();
            if let Outcome::Commit(_, commit) = execute(&db, &ops, &Nobody) {
                commits += usize::from(!commit.changes.is_empty());
                db.apply(&commit.changes);
            }
            rows += content(&db, true).len();
        }
    }
    // Rows are picked by random identifiers, so no two runs are alike; seen: about 370 commits
    // of 1,000 transactions, and 1,800 rows counted.
    assert!(commits > 200 && rows > 900, "{commits} commits, {rows} rows");
}
