//! Commands about what controls the switch: controllers, fail mode, managers, SSL, emer-reset.

use anyhow::{Result, bail};
use ovsdb::{Datum, Uuid};

use crate::bridge;
use crate::cli::Invocation;
use crate::commands::Context;
use crate::view::ROOT;

/// Where targets hang: the table that refers to them, its row and column, and their own table.
struct Holder {
    table: &'static str,
    row: Uuid,
    column: &'static str,
    targets: &'static str,
}

fn controllers(ctx: &Context, name: &str) -> Result<Holder> {
    // The controllers of a fake bridge are those of its parent.
    let row = bridge::get(&ctx.view, name)?.row;
    Ok(Holder { table: "Bridge", row, column: "controller", targets: "Controller" })
}

fn managers(ctx: &Context) -> Result<Holder> {
    let (row, _) = ctx.view.root()?;
    Ok(Holder { table: ROOT, row, column: "manager_options", targets: "Manager" })
}

fn print_targets(ctx: &mut Context, holder: &Holder) -> Result<()> {
    let rows = ctx.view.get(holder.table, holder.row, holder.column)?;
    let mut targets: Vec<String> = rows
        .uuids()
        .filter_map(|row| Some(ctx.view.row(holder.targets, row)?.string("target").to_owned()))
        .collect();
    targets.sort();
    targets.iter().for_each(|target| ctx.print(target));
    Ok(())
}

fn delete_targets(ctx: &mut Context, holder: &Holder) -> Result<()> {
    for row in ctx.view.get(holder.table, holder.row, holder.column)?.uuids() {
        ctx.view.delete(holder.targets, row);
    }
    ctx.view.set(holder.table, holder.row, holder.column, Datum::empty_set())
}

fn set_targets(
    ctx: &mut Context,
    holder: &Holder,
    call: &Invocation,
    targets: &[String],
) -> Result<()> {
    let probe = match call.option("inactivity-probe").map(str::parse::<i64>) {
        Some(Err(_)) => bail!("--inactivity-probe takes a number of milliseconds"),
        Some(Ok(probe)) => Some(probe),
        None => None,
    };
    delete_targets(ctx, holder)?;
    let mut targets = targets.to_vec();
    targets.sort();
    targets.dedup();
    for target in targets {
        check_target(ctx, &target);
        let row = Uuid::random();
        ctx.view.insert(holder.targets, row)?;
        ctx.view.set(holder.targets, row, "target", Datum::scalar(target))?;
        if let Some(probe) = probe {
            ctx.view.set(holder.targets, row, "inactivity_probe", Datum::scalar(probe))?;
        }
        ctx.view.add_reference(holder.table, holder.row, holder.column, row)?;
    }
    Ok(())
}

fn check_target(ctx: &mut Context, target: &str) {
    let kinds = ["tcp:", "ssl:", "unix:", "ptcp:", "pssl:", "punix:"];
    if !kinds.iter().any(|kind| target.starts_with(kind)) {
        ctx.warn(format!("target \"{target}\" begins with none of {}", kinds.join(" ")));
    }
}

/// `get-controller BRIDGE`
pub fn get_controller(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let holder = controllers(ctx, &call.args[0])?;
    print_targets(ctx, &holder)
}

/// `del-controller BRIDGE`
pub fn del_controller(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let holder = controllers(ctx, &call.args[0])?;
    delete_targets(ctx, &holder)
}

/// `[--inactivity-probe=MSECS] set-controller BRIDGE TARGET...`
pub fn set_controller(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let row = bridge::get_real(&ctx.view, &call.args[0])?.row;
    let holder = Holder { table: "Bridge", row, column: "controller", targets: "Controller" };
    set_targets(ctx, &holder, call, &call.args[1..])
}

/// `get-manager`
pub fn get_manager(ctx: &mut Context, _: &Invocation) -> Result<()> {
    let holder = managers(ctx)?;
    print_targets(ctx, &holder)
}

/// `del-manager`
pub fn del_manager(ctx: &mut Context, _: &Invocation) -> Result<()> {
    let holder = managers(ctx)?;
    delete_targets(ctx, &holder)
}

/// `[--inactivity-probe=MSECS] set-manager TARGET...`
pub fn set_manager(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let holder = managers(ctx)?;
    set_targets(ctx, &holder, call, &call.args)
}

/// `get-fail-mode BRIDGE`
pub fn get_fail_mode(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = bridge::get(&ctx.view, &call.args[0])?;
    let mode = ctx.view.row("Bridge", bridge.row).map(|row| row.string("fail_mode").to_owned());
    if let Some(mode) = mode.filter(|mode| !mode.is_empty()) {
        ctx.print(&mode);
    }
    Ok(())
}

/// `del-fail-mode BRIDGE`
pub fn del_fail_mode(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = bridge::get_real(&ctx.view, &call.args[0])?;
    ctx.view.set("Bridge", bridge.row, "fail_mode", Datum::empty_set())
}

/// `set-fail-mode BRIDGE MODE`
pub fn set_fail_mode(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = bridge::get_real(&ctx.view, &call.args[0])?;
    let mode = call.args[1].as_str();
    if !matches!(mode, "standalone" | "secure") {
        bail!("fail mode \"{mode}\" is neither standalone nor secure");
    }
    ctx.view.set("Bridge", bridge.row, "fail_mode", Datum::scalar(mode))
}

/// `get-ssl`
pub fn get_ssl(ctx: &mut Context, _: &Invocation) -> Result<()> {
    let row = ctx.view.root()?.1.uuid("ssl");
    let Some(ssl) = row.and_then(|row| ctx.view.row("SSL", row)).cloned() else {
        return Ok(());
    };
    ctx.print(&format!("Private key: {}", ssl.string("private_key")));
    ctx.print(&format!("Certificate: {}", ssl.string("certificate")));
    ctx.print(&format!("CA Certificate: {}", ssl.string("ca_cert")));
    ctx.print(&format!("Bootstrap: {}", ssl.boolean("bootstrap_ca_cert")));
    Ok(())
}

/// `del-ssl`
pub fn del_ssl(ctx: &mut Context, _: &Invocation) -> Result<()> {
    let (root, row) = ctx.view.root()?;
    if let Some(ssl) = row.uuid("ssl") {
        ctx.view.delete("SSL", ssl);
        ctx.view.set(ROOT, root, "ssl", Datum::empty_set())?;
    }
    Ok(())
}

/// `[--bootstrap] set-ssl PRIVATE-KEY CERTIFICATE CA-CERTIFICATE`
pub fn set_ssl(ctx: &mut Context, call: &Invocation) -> Result<()> {
    del_ssl(ctx, call)?;
    let (root, _) = ctx.view.root()?;
    let ssl = Uuid::random();
    ctx.view.insert("SSL", ssl)?;
    for (column, value) in ["private_key", "certificate", "ca_cert"].into_iter().zip(&call.args) {
        ctx.view.set("SSL", ssl, column, Datum::scalar(value.as_str()))?;
    }
    ctx.view.set("SSL", ssl, "bootstrap_ca_cert", Datum::scalar(call.has("bootstrap")))?;
    ctx.view.set(ROOT, root, "ssl", Datum::scalar(ssl))
}

/// Columns that `emer-reset` empties.
const RESET: &[(&str, &[&str])] = &[
    ("Bridge", &["controller", "fail_mode", "mirrors", "netflow", "sflow", "ipfix"]),
    ("Port", &["other_config"]),
    (ROOT, &["manager_options", "ssl"]),
];

/// `emer-reset`
pub fn emer_reset(ctx: &mut Context, _: &Invocation) -> Result<()> {
    for (name, columns) in RESET {
        let table = ctx.view.table(name)?;
        let rows: Vec<Uuid> = ctx.view.rows(name).map(|(uuid, _)| uuid).collect();
        for row in rows {
            for column in columns.iter().filter_map(|column| table.column(column)) {
                ctx.view.set(name, row, &column.name, Datum::default_of(&column.ty))?;
            }
        }
    }
    let bridges: Vec<Uuid> = ctx.view.rows("Bridge").map(|(uuid, _)| uuid).collect();
    for bridge in bridges {
        // The address of a bridge stays, so that it stays reachable.
        let address =
            ctx.view.row("Bridge", bridge).and_then(|row| row.map_value("other_config", "hwaddr"));
        let kept = Datum::string_map(address.map(|address| ("hwaddr", address)));
        ctx.view.set("Bridge", bridge, "other_config", kept)?;
    }
    let ifaces: Vec<Uuid> = ctx.view.rows("Interface").map(|(uuid, _)| uuid).collect();
    for iface in ifaces {
        for column in ["ingress_policing_rate", "ingress_policing_burst"] {
            ctx.view.set("Interface", iface, column, Datum::scalar(0))?;
        }
    }
    Ok(())
}
