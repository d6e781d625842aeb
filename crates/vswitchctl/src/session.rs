//! One run of a line of database commands: read the database, run the commands, commit all they
//! changed in one transaction, wait for the daemon to take it over.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use ovsdb::Uuid;
use ovsdb::client::{Client, ClientError};
use ovsdb::replica::{self, Replica};
use serde_json::{Value, json};

use crate::cli::{Invocation, Options};
use crate::commands::{Context, Exit, NotYet, Output};
use crate::view::{Committed, ROOT, View};
use crate::{records, show};

/// The database's name in its schema.
const DATABASE: &str = "Open_vSwitch";
/// Pause between attempts to connect with `--retry`.
const RETRY: Duration = Duration::from_millis(100);
/// Exit status when the daemon could not bring up a new port (that of `ovs-vsctl` since 3.6).
const PORT_FAILED: u8 = 65;

/// Runs the commands and prints what they print.
pub fn run(options: &Options, calls: &[Invocation]) -> Result<()> {
    let deadline = Deadline::new(options.timeout);
    let mut client = connect(options, &deadline)?;
    client.set_call_timeout(deadline.left()?);
    let schema = replica::fetch_schema(&mut client, DATABASE)?;
    let selection = select(&schema, calls);
    let selection: Vec<(&str, Option<&[&str]>)> =
        selection.iter().map(|(name, columns)| (*name, columns.as_deref())).collect();
    let mut replica = Replica::start_with_schema(client, schema.clone(), &selection)?;
    loop {
        replica.client().set_call_timeout(deadline.left()?);
        let Some(committed) = attempt(options, calls, &mut replica)? else {
            // Something was not as the commands wanted or saw it: look again when it changed.
            if !replica.next_update(deadline.left()?)? {
                return Err(deadline.passed("a condition in the database"));
            }
            continue;
        };
        return match committed.next_cfg.filter(|_| options.wait) {
            Some(next_cfg) => wait_for_daemon(&mut replica, &deadline, &committed, next_cfg),
            None => Ok(()),
        };
    }
}

/// `--timeout` as a point in time.
struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    /// What is left; `None` without a limit.
    fn left(&self) -> Result<Option<Duration>> {
        let left = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        match left {
            Some(Duration::ZERO) => Err(self.passed("the database")),
            left => Ok(left),
        }
    }

    fn passed(&self, waiting_for: &str) -> anyhow::Error {
        let seconds = self.timeout.unwrap_or_default().as_secs();
        anyhow!("gave up after {seconds} s (--timeout) waiting for {waiting_for}")
    }
}

fn connect(options: &Options, deadline: &Deadline) -> Result<Client> {
    let path = match &options.db {
        None => options.rundir.join("db.sock"),
        Some(remote) => match remote.strip_prefix("unix:") {
            Some(path) => PathBuf::from(path),
            None => bail!(
                "--db={remote}: only unix:PATH is possible, as in --db=unix:/run/vswitch/db.sock"
            ),
        },
    };
    loop {
        let source = match Client::connect(&path) {
            Ok(client) => return Ok(client),
            Err(ClientError::Connect { source, .. }) => source,
            Err(error) => return Err(error.into()),
        };
        if !options.retry {
            let path = path.display();
            bail!(
                "cannot reach the database at {path}: {source}; is vswitchd running? Start it, or \
                 say where it runs with --rundir DIR or --db unix:PATH"
            );
        }
        deadline.left()?;
        std::thread::sleep(RETRY);
    }
}

/// What to read: the configuration, and the columns that change all the time only of tables that
/// a command names.
fn select<'a>(
    schema: &'a ovsdb::DatabaseSchema,
    calls: &[Invocation],
) -> Vec<(&'a str, Option<Vec<&'a str>>)> {
    let mut whole: Vec<&str> = Vec::new();
    for call in calls {
        let named = call.arg(0).and_then(|name| records::table(schema, name).ok());
        whole.extend(named.map(|table| table.name.as_str()));
        if call.name == "show" {
            whole.extend(show::STATUS_OF);
        }
    }
    let columns = |table: &'a ovsdb::TableSchema| {
        let lasting = table.own_columns().filter(|(_, column)| !column.ephemeral);
        lasting.map(|(_, column)| column.name.as_str()).collect()
    };
    let tables = schema.tables.iter();
    tables
        .map(|table| {
            let name = table.name.as_str();
            (name, (!whole.contains(&name)).then(|| columns(table)))
        })
        .collect()
}

/// Runs the commands once. `None`: they must run again on a newer state.
fn attempt(
    options: &Options,
    calls: &[Invocation],
    replica: &mut Replica,
) -> Result<Option<Committed>> {
    let mut ctx = Context::new(View::new(replica), &options.style);
    ctx.view.init()?;
    let mut outputs = Vec::new();
    for call in calls {
        match ctx.run(call) {
            Ok(output) => outputs.push(output),
            Err(error) if error.is::<NotYet>() => return Ok(None),
            Err(error) if calls.len() > 1 && !error.is::<Exit>() => {
                return Err(error.context(format!("in \"{}\"", call.text())));
            }
            Err(error) => return Err(error),
        }
    }
    ctx.names.check()?;
    warn_unreferenced(&mut ctx);
    let (view, warnings) = (ctx.view, ctx.warnings);
    let mut operations = view.operations();
    let mut committed = Committed { inserted: BTreeMap::new(), next_cfg: None };
    if !operations.is_empty() && !options.dry_run {
        if options.wait {
            operations.extend(view.count_operations()?);
        }
        operations.push(comment(calls));
        match replica.transact(operations.clone()) {
            Ok(results) => committed = Committed::read(&operations, &results),
            // Another client changed what we read.
            Err(ClientError::Server { error, .. }) if error.tag == "timed out" => return Ok(None),
            Err(ClientError::Server { error, .. }) => bail!("the database refuses this: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    for warning in warnings {
        eprintln!("vswitchctl: warning: {warning}");
    }
    print_outputs(options, &outputs, &committed.inserted)?;
    Ok(Some(committed))
}

fn warn_unreferenced(ctx: &mut Context) {
    let unused: Vec<String> = ctx
        .names
        .unused()
        .filter(|(_, uuid)| ctx.view.is_new_and_not_root(*uuid))
        .map(|(name, _)| format!("nothing refers to the row {name}, so it is deleted at once"))
        .collect();
    ctx.warnings.extend(unused);
}

/// The line in the database's log that says who did it.
fn comment(calls: &[Invocation]) -> Value {
    let line: Vec<String> = calls.iter().map(Invocation::text).collect();
    json!({"op": "comment", "comment": format!("vswitchctl: {}", line.join(" -- "))})
}

/// Prints what the commands printed, with the identifiers that the server gave to new rows.
fn print_outputs(
    options: &Options,
    outputs: &[Output],
    inserted: &BTreeMap<Uuid, Uuid>,
) -> Result<()> {
    let mut text = String::new();
    for output in outputs {
        match &output.table {
            Some(table) => text.push_str(table),
            None if options.oneline => {
                let line = output.text.strip_suffix('\n').unwrap_or(&output.text);
                text.push_str(&line.replace('\\', "\\\\").replace('\n', "\\n"));
                text.push('\n');
            }
            None => text.push_str(&output.text),
        }
    }
    for (ours, real) in inserted {
        text = text.replace(&ours.to_string(), &real.to_string());
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("standard output")
}

/// Waits until the daemon has taken over the change, then tells what became of new interfaces.
fn wait_for_daemon(
    replica: &mut Replica,
    deadline: &Deadline,
    committed: &Committed,
    next_cfg: i64,
) -> Result<()> {
    let reached = |replica: &Replica| {
        let root = replica.only_row(ROOT);
        root.is_none_or(|(_, row)| row.integer("cur_cfg").is_some_and(|cur| cur >= next_cfg))
    };
    while !reached(replica) {
        if !replica.next_update(deadline.left()?)? {
            return Err(deadline.passed("vswitchd to take over the change"));
        }
    }
    let mut failed = false;
    for uuid in committed.inserted.values() {
        let Some(iface) = replica.row("Interface", *uuid) else { continue };
        let error = iface.optional_string("error").unwrap_or_default();
        let up = iface.integer("ofport").is_some_and(|ofport| ofport > 0);
        if !up || !error.is_empty() {
            let error =
                if error.is_empty() { "no reason given; see the log of vswitchd" } else { error };
            eprintln!("vswitchctl: interface {} does not work: {error}", iface.string("name"));
            failed = true;
        }
    }
    if failed { Err(Exit(PORT_FAILED).into()) } else { Ok(()) }
}
