//! The database commands: list, find, get, set, add, remove, clear, create, destroy, wait-until.

use anyhow::{Result, anyhow, bail};
use ovsdb::{ColumnSchema, ColumnType, Datum, TableSchema, UNLIMITED, Uuid};

use crate::cli::Invocation;
use crate::commands::{Context, NotYet};
use crate::records::{self, ASSIGN, COMPARE};
use crate::table::Table;
use crate::text;

/// `list TABLE [RECORD…]`
pub fn list(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let mut rows = Vec::new();
    for given in &call.args[1..] {
        rows.extend(ctx.row(table, given, call.has("if-exists"))?);
    }
    if call.args.len() == 1 {
        rows = ctx.view.rows(&table.name).map(|(uuid, _)| uuid).collect();
    }
    print_rows(ctx, call, table, &rows)
}

/// `find TABLE [CONDITION…]`
pub fn find(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let conditions: Vec<_> = call.args[1..]
        .iter()
        .map(|given| records::clause(table, given, COMPARE))
        .collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for (uuid, row) in ctx.view.rows(&table.name) {
        let mut all = true;
        for condition in &conditions {
            all &= records::meets(row, uuid, condition, &mut ctx.names)?;
        }
        rows.extend(all.then_some(uuid));
    }
    print_rows(ctx, call, table, &rows)
}

fn print_rows(
    ctx: &mut Context,
    call: &Invocation,
    table: &TableSchema,
    rows: &[Uuid],
) -> Result<()> {
    let columns: Vec<&ColumnSchema> = match call.option("columns") {
        Some(names) => {
            let names = names.split([',', ' ']).filter(|name| !name.is_empty());
            names.map(|name| records::column(table, name, true)).collect::<Result<_>>()?
        }
        None => {
            let uuid = table.column("_uuid").into_iter();
            uuid.chain(table.own_columns().map(|(_, column)| column)).collect()
        }
    };
    let headings = columns.iter().map(|column| column.name.clone()).collect();
    let mut out = Table { headings, rows: Vec::new() };
    for &uuid in rows {
        let cells = columns.iter().map(|c| Ok((value(ctx, table, uuid, c)?, &c.ty)));
        out.rows.push(cells.collect::<Result<_>>()?);
    }
    ctx.print_table(&out);
    Ok(())
}

/// A column's value, where `_uuid` is one too.
fn value(ctx: &Context, table: &TableSchema, uuid: Uuid, column: &ColumnSchema) -> Result<Datum> {
    match column.name.as_str() {
        "_uuid" => Ok(Datum::scalar(uuid)),
        name => ctx.view.get(&table.name, uuid, name),
    }
}

/// `get TABLE RECORD [COLUMN[:KEY]…]`
pub fn get(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let if_exists = call.has("if-exists");
    if if_exists && call.has("id") {
        bail!("get takes --id or --if-exists, not both");
    }
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let Some(uuid) = ctx.row(table, &call.args[1], if_exists)? else {
        return Ok(());
    };
    if let Some(name) = call.option("id") {
        ctx.names.define(name, uuid)?;
    }
    for given in &call.args[2..] {
        let clause = records::clause(table, given, &[])?;
        let datum = value(ctx, table, uuid, clause.column)?;
        let Some(key) = clause.key else {
            ctx.print(&datum.to_text(&clause.column.ty));
            continue;
        };
        let (atom, _) = records::map_key(clause.column, key, &mut ctx.names)?;
        match datum.get(&atom) {
            Some(value) => ctx.print(&value.to_string()),
            None if if_exists => ctx.print(""),
            None => {
                let (name, row) = (&clause.column.name, &call.args[1]);
                let keys: Vec<String> = datum.keys().map(ToString::to_string).collect();
                let near = crate::suggest::did_you_mean(key, keys.iter().map(String::as_str));
                bail!("column {name} of {} \"{row}\" has no key \"{key}\"{near}", table.name);
            }
        }
    }
    Ok(())
}

/// `set TABLE RECORD COLUMN[:KEY]=VALUE…`
pub fn set(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    match ctx.row(table, &call.args[1], call.has("if-exists"))? {
        Some(uuid) => assign(ctx, table, uuid, &call.args[2..], false),
        None => Ok(()),
    }
}

/// Sets columns of a row from `COLUMN[:KEY]=VALUE` arguments. Columns that may not change are
/// allowed while the row is `new`.
pub fn assign(
    ctx: &mut Context,
    table: &TableSchema,
    uuid: Uuid,
    settings: &[String],
    new: bool,
) -> Result<()> {
    for given in settings {
        let clause = records::clause(table, given, ASSIGN)?;
        let column = clause.column;
        if !new {
            check_mutable(table, column)?;
        }
        let in_column = |error| anyhow!("{} {}: {error}", table.name, column.name);
        let datum = match clause.key {
            None => text::datum(clause.value, &column.ty, &mut ctx.names).map_err(in_column)?,
            Some(key) => {
                let (key, value_type) = records::map_key(column, key, &mut ctx.names)?;
                let value = text::atom(clause.value, &value_type, &mut ctx.names);
                let pair = Datum::map([(key, value.map_err(in_column)?)]);
                pair.union(&ctx.view.get(&table.name, uuid, &column.name)?)
            }
        };
        ctx.view.set(&table.name, uuid, &column.name, datum)?;
    }
    Ok(())
}

fn check_mutable(table: &TableSchema, column: &ColumnSchema) -> Result<()> {
    if !column.mutable {
        bail!("column {} of table {} cannot change once its row exists", column.name, table.name);
    }
    Ok(())
}

/// The table, row and column that `add` and `remove` change; `None` if there is no such row and
/// that is allowed.
fn target<'a>(
    ctx: &Context<'a>,
    call: &Invocation,
) -> Result<Option<(&'a TableSchema, Uuid, &'a ColumnSchema)>> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let Some(uuid) = ctx.row(table, &call.args[1], call.has("if-exists"))? else {
        return Ok(None);
    };
    let column = records::column(table, &call.args[2], false)?;
    check_mutable(table, column)?;
    Ok(Some((table, uuid, column)))
}

fn set_checked(
    ctx: &mut Context,
    table: &TableSchema,
    uuid: Uuid,
    column: &ColumnSchema,
    datum: Datum,
) -> Result<()> {
    if !datum.fits(&column.ty) {
        let (count, name) = (datum.len(), &column.name);
        let (bound, limit) = match count < column.ty.min as usize {
            true => ("least", column.ty.min),
            false => ("most", column.ty.max),
        };
        bail!(
            "that leaves {count} values in column {name} of table {}, which takes at {bound} \
               {limit}",
            table.name
        );
    }
    ctx.view.set(&table.name, uuid, &column.name, datum)
}

/// `add TABLE RECORD COLUMN [KEY=]VALUE…`
pub fn add(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let Some((table, uuid, column)) = target(ctx, call)? else { return Ok(()) };
    let mut datum = ctx.view.get(&table.name, uuid, &column.name)?;
    for given in &call.args[3..] {
        // In a map the new value replaces that of a key that is there already.
        datum = text::datum_any_size(given, &column.ty, &mut ctx.names)?.union(&datum);
    }
    set_checked(ctx, table, uuid, column, datum)
}

/// `remove TABLE RECORD COLUMN VALUE|KEY|KEY=VALUE…`
pub fn remove(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let Some((table, uuid, column)) = target(ctx, call)? else { return Ok(()) };
    let mut datum = ctx.view.get(&table.name, uuid, &column.name)?;
    let keys = ColumnType { key: column.ty.key.clone(), value: None, min: 0, max: UNLIMITED };
    for given in &call.args[3..] {
        let gone = match text::datum_any_size(given, &column.ty, &mut ctx.names) {
            Err(_) if column.ty.is_map() => text::datum(given, &keys, &mut ctx.names)?,
            gone => gone?,
        };
        datum = datum.subtract(&gone);
    }
    set_checked(ctx, table, uuid, column, datum)
}

/// `clear TABLE RECORD COLUMN…`
pub fn clear(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let Some(uuid) = ctx.row(table, &call.args[1], call.has("if-exists"))? else {
        return Ok(());
    };
    for given in &call.args[2..] {
        let column = records::column(table, given, false)?;
        check_mutable(table, column)?;
        if column.ty.min > 0 {
            bail!("column {} of table {} cannot be empty", column.name, table.name);
        }
        ctx.view.set(&table.name, uuid, &column.name, Datum::default_of(&column.ty))?;
    }
    Ok(())
}

/// `[--id=@NAME] create TABLE COLUMN[:KEY]=VALUE…`
pub fn create(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let uuid = match call.option("id") {
        Some(name) => ctx.names.create(name)?,
        None => Uuid::random(),
    };
    if !table.is_root && call.option("id").is_none() {
        ctx.warn(format!(
            "a row of table {} that nothing refers to is deleted at once; give it --id=@NAME and \
             refer to it",
            table.name
        ));
    }
    ctx.view.insert(&table.name, uuid)?;
    assign(ctx, table, uuid, &call.args[1..], true)?;
    // Replaced by the identifier that the server chose once it has.
    ctx.print(&uuid.to_string());
    Ok(())
}

/// `destroy TABLE RECORD…`, `--all destroy TABLE`
pub fn destroy(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let all = call.has("all");
    if all && call.args.len() > 1 {
        bail!("destroy takes --all or records, not both");
    }
    if all && call.has("if-exists") {
        bail!("destroy takes --all or --if-exists, not both");
    }
    let mut rows: Vec<Uuid> = Vec::new();
    for given in &call.args[1..] {
        rows.extend(ctx.row(table, given, call.has("if-exists"))?);
    }
    if all {
        rows = ctx.view.rows(&table.name).map(|(uuid, _)| uuid).collect();
    }
    for uuid in rows {
        ctx.view.delete(&table.name, uuid);
    }
    Ok(())
}

/// `wait-until TABLE RECORD [CONDITION…]`
pub fn wait_until(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let table = records::table(ctx.view.schema(), &call.args[0])?;
    let conditions: Vec<_> = call.args[2..]
        .iter()
        .map(|given| records::clause(table, given, COMPARE))
        .collect::<Result<_>>()?;
    let uuid = records::find_row(&ctx.view, &ctx.names, table, &call.args[1])?;
    let Some(uuid) = uuid else { return Err(NotYet.into()) };
    let Some(row) = ctx.view.row(&table.name, uuid) else { return Err(NotYet.into()) };
    for condition in &conditions {
        if !records::meets(row, uuid, condition, &mut ctx.names)? {
            return Err(NotYet.into());
        }
    }
    Ok(())
}
