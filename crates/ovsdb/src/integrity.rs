//! What must hold at the end of a transaction (RFC 7047, sections 3.2 and 4.1.3): strong references
//! have targets, rows of non-root tables are referenced or else deleted, dangling weak references
//! vanish, tables are not too full and index values are unique.
//!
//! The work is proportional to the transaction, not to the database.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::datum::Datum;
use crate::db::{RefColumn, Row, RowKey};
use crate::error::{Error, Result};
use crate::schema::TableId;
use crate::txn::Transaction;
use crate::types::RefType;

/// Completes `txn` with the changes that follow from its own, or says why it cannot be committed.
pub(crate) fn enforce(txn: &mut Transaction<'_>) -> Result<()> {
    let mut counts = StrongCounts::default();
    for (&key, new) in &txn.touched {
        if let Some(old) = txn.db.row(key) {
            counts.add(txn, key.0, old, -1);
        }
        if let Some(new) = new {
            counts.add(txn, key.0, new, 1);
        }
    }
    check_strong(txn, &counts)?;
    // Clearing a weak reference may drop the last strong one to another row (a map can hold both),
    // and deleting that row may leave more dangling weak references.
    loop {
        collect_garbage(txn, &mut counts);
        if !clear_weak(txn, &mut counts)? {
            break;
        }
    }
    check_sizes(txn)?;
    check_indexes(txn)
}

/// How the transaction changes the number of strong references to rows.
#[derive(Default)]
struct StrongCounts(HashMap<RowKey, i64>);

impl StrongCounts {
    fn add(&mut self, txn: &Transaction<'_>, table: TableId, row: &Row, by: i64) {
        for reference in txn.db.references(table, row) {
            if reference.strength == RefType::Strong {
                *self.0.entry(reference.target).or_default() += by;
            }
        }
    }

    /// References to `key` as things stand.
    fn of(&self, txn: &Transaction<'_>, key: RowKey) -> i64 {
        txn.db.strong_count(key) as i64 + self.0.get(&key).copied().unwrap_or(0)
    }
}

fn check_strong(txn: &Transaction<'_>, counts: &StrongCounts) -> Result<()> {
    let deleted = txn.touched.iter().filter(|(_, row)| row.is_none()).map(|(&key, _)| key);
    let referenced = counts.0.keys().copied();
    let suspects: BTreeSet<RowKey> = deleted.chain(referenced).collect();
    for key in suspects {
        let remaining = counts.of(txn, key);
        if remaining > 0 && txn.row(key).is_none() {
            return Err(match txn.db.row(key) {
                Some(_) => Error::integrity(format!(
                    "cannot delete {} row {} because of {remaining} remaining reference(s)",
                    txn.table(key.0).name,
                    key.1
                )),
                None => dangling(txn, key),
            });
        }
    }
    Ok(())
}

fn dangling(txn: &Transaction<'_>, target: RowKey) -> Error {
    let to_table = &txn.table(target.0).name;
    for (&(table, uuid), row) in &txn.touched {
        let Some(row) = row else { continue };
        if let Some(found) = txn.db.references(table, row).find(|found| found.target == target) {
            let from = txn.table(table);
            return Error::integrity(format!(
                "Table {} column {} row {uuid} references nonexistent row {} in table {to_table}.",
                from.name, from.columns[found.column].name, target.1
            ));
        }
    }
    Error::integrity(format!("row {} does not exist in table {to_table}", target.1))
}

/// Deletes the rows of non-root tables that nothing refers to any more.
fn collect_garbage(txn: &mut Transaction<'_>, counts: &mut StrongCounts) {
    let mut suspects: Vec<RowKey> = txn.touched.keys().chain(counts.0.keys()).copied().collect();
    while let Some(key) = suspects.pop() {
        if txn.table(key.0).is_root || counts.of(txn, key) > 0 {
            continue;
        }
        let Some(row) = txn.row(key).cloned() else { continue };
        counts.add(txn, key.0, &row, -1);
        suspects.extend(txn.db.references(key.0, &row).map(|reference| reference.target));
        txn.delete(key);
    }
}

/// Removes weak references to rows that do not exist; true if there were any.
fn clear_weak(txn: &mut Transaction<'_>, counts: &mut StrongCounts) -> Result<bool> {
    let mut sources: BTreeSet<RowKey> = BTreeSet::new();
    for (&key, row) in &txn.touched {
        match row {
            Some(_) => {
                sources.insert(key);
            }
            None => sources.extend(txn.db.weak_sources(key)),
        }
    }
    let mut cleared = false;
    for key in sources {
        let Some(row) = txn.row(key).cloned() else { continue };
        let new = without_dangling(txn, key, &row)?;
        if let Some(new) = new {
            counts.add(txn, key.0, &row, -1);
            counts.add(txn, key.0, &new, 1);
            txn.put(key.0, new);
            cleared = true;
        }
    }
    Ok(cleared)
}

fn without_dangling(txn: &Transaction<'_>, key: RowKey, row: &Arc<Row>) -> Result<Option<Row>> {
    let mut new = None;
    for ref_column in txn.db.ref_columns(key.0) {
        if ref_column.strength != RefType::Weak {
            continue;
        }
        let column = ref_column.column;
        let datum = new.as_ref().unwrap_or(&**row).get(column);
        let kept = keep_existing(txn, ref_column, datum);
        if kept.len() == datum.len() {
            continue;
        }
        let schema = &txn.table(key.0).columns[column];
        if !kept.fits(&schema.ty) {
            return Err(Error::constraint(format!(
                "Deletion of rows referenced weakly by column {} of {} row {} would leave it with \
                 {} elements, fewer than its minimum of {}.",
                schema.name,
                txn.table(key.0).name,
                key.1,
                kept.len(),
                schema.ty.min
            )));
        }
        new.get_or_insert_with(|| Row::clone(row)).set(column, kept);
    }
    Ok(new)
}

fn keep_existing(txn: &Transaction<'_>, ref_column: &RefColumn, datum: &Datum) -> Datum {
    let exists = |atom: &crate::value::Atom| {
        atom.as_uuid().is_some_and(|uuid| txn.row((ref_column.target, uuid)).is_some())
    };
    if datum.is_map() {
        let keep = datum
            .pairs()
            .filter(|(key, value)| exists(if ref_column.in_values { value } else { key }));
        Datum::map(keep.map(|(key, value)| (key.clone(), value.clone())))
    } else {
        Datum::set(datum.keys().filter(|atom| exists(atom)).cloned())
    }
}

fn check_sizes(txn: &Transaction<'_>) -> Result<()> {
    let tables: BTreeSet<TableId> = txn.touched.keys().map(|&(table, _)| table).collect();
    for id in tables {
        let table = txn.table(id);
        let Some(max) = table.max_rows else { continue };
        let mut rows = txn.db.tables[id].rows.len();
        for (&key, new) in txn.touched.iter().filter(|(key, _)| key.0 == id) {
            rows += usize::from(new.is_some());
            rows -= usize::from(txn.db.row(key).is_some());
        }
        if rows > max {
            return Err(Error::constraint(format!(
                "transaction causes \"{}\" table to contain {rows} rows, greater than the \
                 schema-defined limit of {max} row(s)",
                table.name
            )));
        }
    }
    Ok(())
}

fn check_indexes(txn: &Transaction<'_>) -> Result<()> {
    let mut seen: HashMap<(TableId, usize, Vec<Datum>), RowKey> = HashMap::new();
    for (&key, row) in &txn.touched {
        let Some(row) = row else { continue };
        for index in 0..txn.table(key.0).indexes.len() {
            let values = txn.db.index_key(key.0, index, row);
            let before = txn.db.tables[key.0].indexes[index].get(&values);
            let before = before.map(|&uuid| (key.0, uuid));
            // A touched row is compared by its new values, in `seen`.
            let other = before.filter(|other| !txn.touched.contains_key(other));
            let other = other.or_else(|| seen.get(&(key.0, index, values.clone())).copied());
            if let Some(other) = other {
                return Err(duplicate(txn, key, other, index, &values));
            }
            seen.insert((key.0, index, values), key);
        }
    }
    Ok(())
}

fn duplicate(
    txn: &Transaction<'_>,
    first: RowKey,
    second: RowKey,
    index: usize,
    values: &[Datum],
) -> Error {
    let table = txn.table(first.0);
    let columns = &table.indexes[index];
    let names: Vec<_> =
        columns.iter().map(|&id| format!("\"{}\"", table.columns[id].name)).collect();
    let texts = values.iter().zip(columns).map(|(v, &id)| v.to_text(&table.columns[id].ty));
    let history = |key: RowKey| match (txn.db.row(key), txn.touched.contains_key(&key)) {
        (None, _) => "was inserted by this transaction".to_owned(),
        (Some(_), false) => "existed in the database before this transaction and was not modified \
                             by the transaction"
            .to_owned(),
        (Some(old), true) if txn.db.index_key(key.0, index, old) == values => {
            "existed in the database before this transaction, which modified some of the row's \
             columns but not any columns in this index"
                .to_owned()
        }
        (Some(_), true) => "had other values in this index before the transaction".to_owned(),
    };
    Error::constraint(format!(
        "Transaction causes multiple rows in \"{}\" table to have identical values ({}) for index \
         on column{} {}.  First row, with UUID {}, {}.  Second row, with UUID {}, {}.",
        table.name,
        texts.collect::<Vec<_>>().join(", "),
        if names.len() == 1 { "" } else { "s" },
        names.join(" and "),
        first.1,
        history(first),
        second.1,
        history(second)
    ))
}
