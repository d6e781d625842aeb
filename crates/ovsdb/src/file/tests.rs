//! Damage, crashes and full disks.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::Datum;
use crate::db::Row;
use crate::store::Store;
use crate::transact::Commit;
use crate::uuid::Uuid;

fn schema() -> DatabaseSchema {
    let json = json!({"name": "d", "version": "1.0.0", "tables": {
        "T": {"isRoot": true, "columns": {
            "name": {"type": "string"},
            "seen": {"type": "string", "ephemeral": true},
            "small": {"type": {"key": {"type": "integer", "maxInteger": 9}, "min": 0}},
            "c": {"type": {"key": {"type": "uuid", "refTable": "C"}, "min": 0}}}},
        "C": {"columns": {}}}});
    DatabaseSchema::from_json(&json).unwrap()
}

fn table_t(db: &Database) -> usize {
    db.schema().table_id("T").unwrap()
}

fn insert(db: &Database, name: &str) -> Change {
    let id = table_t(db);
    let table = &db.schema().tables[id];
    let mut row = Row::new(table, Uuid::random());
    row.set(table.column_id("name").unwrap(), Datum::scalar(name));
    Change { key: (id, row.uuid()), old: None, new: Some(row.into()) }
}

fn names(db: &Database) -> Vec<String> {
    let id = table_t(db);
    let column = db.schema().tables[id].column_id("name").unwrap();
    let mut names: Vec<String> =
        db.rows(id).filter_map(|row| Some(row.get(column).as_str()?.to_owned())).collect();
    names.sort();
    names
}

/// A file of a schema and two transactions, and where each record ends.
fn sample(path: &Path) -> (Vec<u8>, Vec<usize>) {
    let (mut file, mut db) = DbFile::open(path, &schema()).unwrap();
    let mut ends = vec![file.size() as usize];
    for name in ["first", "second"] {
        let change = insert(&db, name);
        file.append(db.schema(), std::slice::from_ref(&change), Some("why"), true).unwrap();
        db.apply(&[change]);
        ends.push(file.size() as usize);
    }
    (std::fs::read(path).unwrap(), ends)
}

fn corrupt(path: &Path) -> (usize, usize, usize, String) {
    match DbFile::open(path, &schema()) {
        Err(FileError::Corrupt { record, line, byte, what, .. }) => (record, line, byte, what),
        other => panic!("not found corrupt: {other:?}"),
    }
}

#[test]
fn a_record_cut_off_anywhere_is_left_out_and_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (bytes, ends) = sample(&path);
    for cut in 0..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        if cut < ends[0] {
            assert_eq!(corrupt(&path).0, 0, "cut at {cut}");
            assert_eq!(std::fs::read(&path).unwrap(), &bytes[..cut]);
            continue;
        }
        let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
        let (mut file, db) = DbFile::open(&path, &schema()).unwrap();
        assert_eq!(names(&db), &["first", "second"][..whole], "cut at {cut}");
        assert_eq!(std::fs::read(&path).unwrap(), &bytes[..cut], "opening writes nothing");
        file.append(db.schema(), &[insert(&db, "x")], None, false).unwrap();
        drop(file);
        let (_, db) = DbFile::open(&path, &schema()).unwrap();
        assert_eq!(names(&db).len(), whole + 1, "cut at {cut}");
    }
}

#[test]
fn every_flipped_byte_is_found_and_located() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (bytes, ends) = sample(&path);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let (record, line, byte, what) = corrupt(&path);
        let expected = ends.iter().filter(|&&end| end <= at).count();
        assert_eq!(record, expected, "byte {at}: {what}");
        let begin = if record == 0 { 0 } else { ends[record - 1] };
        assert!((begin..ends[record]).contains(&byte), "byte {at}: at {byte}: {what}");
        assert!(line == 2 * record + 1 || line == 2 * record + 2, "byte {at}: line {line}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "nothing is overwritten");
    }
}

#[test]
fn blocks_never_written_count_as_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (bytes, ends) = sample(&path);
    for from in ends[1]..bytes.len() {
        let mut zeroed = bytes.clone();
        zeroed[from..].fill(0);
        std::fs::write(&path, &zeroed).unwrap();
        // In a header zeros cannot be told from damage, unless nothing of it was written.
        let header = ends[1] + 1..ends[1] + 60;
        match DbFile::open(&path, &schema()) {
            Ok((_, db)) => assert_eq!(names(&db), ["first"]),
            Err(error) => assert!(header.contains(&from), "from {from}: {error}"),
        }
    }
}

#[test]
fn what_does_not_fit_the_schema_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let uuid = Uuid::random().to_string();
    for (json, word) in [
        (json!({"Nope": {}}), "no table Nope"),
        (json!({"T": []}), "not an object"),
        (json!({"T": {"x": {}}}), "not a UUID"),
        (json!({"T": {&uuid: null}}), "does not exist"),
        (json!({"T": {&uuid: {"nope": 1}}}), "no column nope"),
        (json!({"T": {&uuid: {"_uuid": ["uuid", &uuid]}}}), "no column _uuid"),
        (json!({"T": {&uuid: {"name": 1}}}), "expected string"),
        (json!({"T": {&uuid: {"small": 10}}}), "maximum allowed value 9"),
        (json!({"T": {&uuid: {"c": ["uuid", &uuid]}}}), "references nonexistent row"),
        (json!([]), "not an object"),
    ] {
        let mut bytes = record::frame(&schema().to_json());
        let start = bytes.len();
        bytes.extend(record::frame(&json));
        std::fs::write(&path, &bytes).unwrap();
        let (_, line, byte, what) = corrupt(&path);
        assert!(what.contains(word), "{what}");
        // A dangling reference is only known to be one at the end.
        assert!((line, byte) == (4, start) || (line, byte) == (5, bytes.len()), "{what}");
    }
    std::fs::write(&path, "hello\n").unwrap();
    assert_eq!((corrupt(&path).1, corrupt(&path).2), (1, 0));
    std::fs::write(&path, "").unwrap();
    assert!(corrupt(&path).3.contains("empty"));
    std::fs::write(&path, "OVSDB CLUSTER 1 abc\n").unwrap();
    assert!(corrupt(&path).3.contains("clustered"));
    let other = DatabaseSchema { name: "other".into(), ..schema() };
    std::fs::write(&path, record::frame(&other.to_json())).unwrap();
    let error = DbFile::open(&path, &schema()).unwrap_err();
    assert!(matches!(error, FileError::WrongDatabase { .. }), "{error}");
}

#[test]
fn json_errors_name_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut bytes = record::frame(&schema().to_json());
    let body = b"{\"T\": nope}\n";
    let header = format!("OVSDB JSON {} {}\n", body.len(), {
        use sha1::{Digest, Sha1};
        Sha1::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let start = bytes.len() + header.len();
    bytes.extend(header.as_bytes());
    bytes.extend(body);
    std::fs::write(&path, &bytes).unwrap();
    let (record, line, byte, what) = corrupt(&path);
    assert_eq!((record, line), (1, 4), "{what}");
    assert!((start + 6..start + 9).contains(&byte), "{byte} of {start}: {what}");
}

#[test]
fn a_full_disk_fails_the_transaction_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (file, db) = DbFile::open(&path, &schema()).unwrap();
    let mut store = Store::new(db, file);
    let commit = |store: &Store, name| Commit {
        changes: vec![insert(&store.db, name)],
        comment: None,
        durable: true,
    };
    let first = commit(&store, "kept");
    store.commit(first).unwrap();
    // What the kernel says on a full disk, without filling one.
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let real = std::mem::replace(&mut store.file_mut().file, full);
    let lost = commit(&store, "lost");
    let error = store.commit(lost).unwrap_err();
    assert_eq!(error.tag, "I/O error");
    assert!(error.details.unwrap().contains("No space left"));
    assert_eq!(names(&store.db), ["kept"]);
    store.file_mut().file = real;
    let second = commit(&store, "later");
    store.commit(second).unwrap();
    drop(store);
    let (_, db) = DbFile::open(&path, &schema()).unwrap();
    assert_eq!(names(&db), ["kept", "later"]);
}

#[test]
fn the_log_is_compacted_when_it_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("db"), dir.path().join("link"));
    drop(DbFile::open(&path, &schema()).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::symlink("db", &link).unwrap();
    let (file, db) = DbFile::open(&link, &schema()).unwrap();
    let mut store = Store::new(db, file);
    let mut change = insert(&store.db, "");
    let column = store.db.schema().table("T").unwrap().column_id("name").unwrap();
    let (mut most, mut last) = (0, 0);
    for n in 0..100 {
        let mut row = Row::clone(change.new.as_ref().unwrap());
        let name = format!("{n}{}", "x".repeat(100_000));
        row.set(column, Datum::scalar(name));
        let old = change.new.take().filter(|_| n > 0);
        change = Change { key: change.key, old, new: Some(row.into()) };
        let changes = vec![change.clone()];
        store.commit(Commit { changes, comment: None, durable: false }).unwrap();
        last = std::fs::metadata(&path).unwrap().len();
        most = most.max(last);
    }
    assert!(most < COMPACT_MIN_GROWTH + 400_000, "grew to {most}");
    assert!(last < most);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
    drop(store);
    let (_, db) = DbFile::open(&link, &schema()).unwrap();
    assert!(names(&db)[0].starts_with("99x"));
}

#[test]
fn ephemeral_changes_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (mut file, mut db) = DbFile::open(&path, &schema()).unwrap();
    let change = insert(&db, "a");
    file.append(db.schema(), std::slice::from_ref(&change), None, false).unwrap();
    db.apply(std::slice::from_ref(&change));
    let size = file.size();
    let mut row = Row::clone(change.new.as_ref().unwrap());
    let seen = db.schema().table("T").unwrap().column_id("seen").unwrap();
    row.set(seen, Datum::scalar("yes"));
    let change = Change { key: change.key, old: change.new, new: Some(row.into()) };
    file.append(db.schema(), &[change], Some("comment"), true).unwrap();
    assert_eq!(file.size(), size);
}
