//! Port and interface commands.

use anyhow::{Result, bail};
use ovsdb::replica::Row;
use ovsdb::{Datum, Uuid};

use crate::bridge::{self, Bridge};
use crate::cli::Invocation;
use crate::commands::Context;
use crate::database;
use crate::suggest::did_you_mean;
use crate::view::View;

/// Ports of a bridge but its local one, by name. Ports on the VLAN of a fake bridge are that
/// bridge's and not its parent's.
pub fn ports(view: &View, bridge: &Bridge) -> Vec<(String, Uuid)> {
    let bridges = bridge::bridges(view);
    let mut ports: Vec<(String, Uuid)> = Vec::new();
    for uuid in view.row("Bridge", bridge.row).map(|row| row.uuids("ports")).unwrap_or_default() {
        let Some(port) = view.row("Port", uuid) else { continue };
        let name = port.string("name");
        let owner = owner(&bridges, bridge.row, port);
        if owner.is_some_and(|owner| owner.name == bridge.name && owner.name != name) {
            ports.push((name.to_owned(), uuid));
        }
    }
    ports.sort();
    ports
}

/// Which of `bridges` a port of the real bridge `row` counts to; `None` for one that stands for a
/// fake bridge itself.
fn owner<'b>(bridges: &'b [Bridge], row: Uuid, port: &Row) -> Option<&'b Bridge> {
    if bridge::fake_vlan(port).is_some() {
        return None;
    }
    let tag = port.integer("tag");
    let on_vlan = |b: &&Bridge| b.fake.as_ref().is_some_and(|fake| Some(fake.vlan) == tag);
    let here = || bridges.iter().filter(|bridge| bridge.row == row);
    here().find(on_vlan).or_else(|| here().find(|bridge| bridge.fake.is_none()))
}

/// The port called `name`, unless it is the local port of a bridge, and its bridge.
pub fn find(view: &View, name: &str) -> Option<(Bridge, Uuid)> {
    for (row, bridge) in view.rows("Bridge") {
        for uuid in bridge.uuids("ports") {
            let Some(port) = view.row("Port", uuid) else { continue };
            if port.string("name") == name {
                let bridges = bridge::bridges(view);
                let owner = owner(&bridges, row, port).filter(|owner| owner.name != name)?;
                return Some((owner.clone(), uuid));
            }
        }
    }
    None
}

fn no_port(view: &View, name: &str) -> String {
    let names: Vec<&str> = view.rows("Port").map(|(_, row)| row.string("name")).collect();
    format!("no port named {name}{}", did_you_mean(name, names))
}

/// The interface called `name`, unless it is that of a local port, its bridge and its port.
pub fn find_iface(view: &View, name: &str) -> Option<(Bridge, Uuid, Uuid)> {
    for (row, bridge) in view.rows("Bridge") {
        for port in bridge.uuids("ports") {
            for iface in ifaces_of(view, port) {
                if view.row("Interface", iface).is_some_and(|i| i.string("name") == name) {
                    let bridges = bridge::bridges(view);
                    let port_row = view.row("Port", port)?;
                    let owner = owner(&bridges, row, port_row)?;
                    let local = owner.name == port_row.string("name");
                    return (!local).then(|| (owner.clone(), port, iface));
                }
            }
        }
    }
    None
}

/// The interfaces of a port.
pub fn ifaces_of(view: &View, port: Uuid) -> Vec<Uuid> {
    view.row("Port", port).map(|port| port.uuids("interfaces")).unwrap_or_default()
}

fn iface_names(view: &View, port: Uuid) -> Vec<String> {
    let name = |iface: Uuid| Some(view.row("Interface", iface)?.string("name").to_owned());
    let mut names: Vec<String> = ifaces_of(view, port).into_iter().filter_map(name).collect();
    names.sort();
    names
}

/// `list-ports BRIDGE`
pub fn list_ports(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = bridge::get(&ctx.view, &call.args[0])?;
    for (name, _) in ports(&ctx.view, &bridge) {
        ctx.print(&name);
    }
    Ok(())
}

/// `list-ifaces BRIDGE`
pub fn list_ifaces(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = bridge::get(&ctx.view, &call.args[0])?;
    let ports = ports(&ctx.view, &bridge);
    let mut names: Vec<String> =
        ports.iter().flat_map(|(_, port)| iface_names(&ctx.view, *port)).collect();
    names.sort();
    names.retain(|name| *name != bridge.name);
    names.iter().for_each(|name| ctx.print(name));
    Ok(())
}

/// `[--may-exist] add-port BRIDGE PORT [COLUMN[:KEY]=VALUE]...`
pub fn add_port(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let name = call.args[1].as_str();
    add(ctx, call, &[name], &call.args[2..])
}

/// `[--may-exist] [--fake-iface] add-bond BRIDGE PORT IFACE... [COLUMN[:KEY]=VALUE]...`
pub fn add_bond(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let rest = &call.args[2..];
    let count = rest.iter().position(|arg| arg.contains('=')).unwrap_or(rest.len());
    if count < 2 {
        bail!(
            "a bond needs at least 2 interfaces, {count} given; usage: add-bond BRIDGE PORT IFACE \
             IFACE..."
        );
    }
    let ifaces: Vec<&str> = rest[..count].iter().map(String::as_str).collect();
    add(ctx, call, &ifaces, &rest[count..])
}

fn add(ctx: &mut Context, call: &Invocation, ifaces: &[&str], settings: &[String]) -> Result<()> {
    let name = call.args[1].as_str();
    let bridge = bridge::get(&ctx.view, &call.args[0])?;
    if name.is_empty() || ifaces.contains(&"") {
        bail!("the name of a port or interface cannot be empty");
    }
    if call.has("may-exist")
        && let Some((at, port)) = find(&ctx.view, name)
    {
        return check_is(ctx, &bridge, &at, port, name, ifaces);
    }
    bridge::check_free(&ctx.view, name, "port")?;
    for iface in ifaces {
        bridge::check_free(&ctx.view, iface, "interface")?;
    }
    let port = insert(ctx, name, ifaces)?;
    if let Some(fake) = &bridge.fake {
        ctx.view.set("Port", port, "tag", Datum::scalar(fake.vlan))?;
    }
    if call.has("fake-iface") {
        ctx.view.set("Port", port, "bond_fake_iface", Datum::scalar(true))?;
    }
    let table = ctx.view.table("Port")?;
    database::assign(ctx, table, port, settings, true)?;
    ctx.view.add_reference("Bridge", bridge.row, "ports", port)
}

/// `--may-exist` accepts only the same interfaces on the same bridge.
fn check_is(
    ctx: &Context,
    wanted: &Bridge,
    at: &Bridge,
    port: Uuid,
    name: &str,
    ifaces: &[&str],
) -> Result<()> {
    if at.name != wanted.name {
        bail!("port {name} exists, but on bridge {} and not on {}", at.name, wanted.name);
    }
    let mut expect: Vec<&str> = ifaces.to_vec();
    expect.sort_unstable();
    let has = iface_names(&ctx.view, port);
    if has != expect {
        let (has, expect) = (has.join(", "), expect.join(", "));
        bail!("port {name} exists, but with interfaces {has} and not {expect}");
    }
    Ok(())
}

/// Inserts a port with new interfaces, in no bridge yet.
pub fn insert(ctx: &mut Context, name: &str, ifaces: &[&str]) -> Result<Uuid> {
    let port = Uuid::random();
    ctx.view.insert("Port", port)?;
    ctx.view.set("Port", port, "name", Datum::scalar(name))?;
    // An element that names no row would do harm, so the default goes.
    ctx.view.set("Port", port, "interfaces", Datum::empty_set())?;
    for iface in ifaces {
        insert_iface(ctx, port, iface)?;
    }
    Ok(port)
}

/// Inserts an interface of a port.
pub fn insert_iface(ctx: &mut Context, port: Uuid, name: &str) -> Result<()> {
    let uuid = Uuid::random();
    ctx.view.insert("Interface", uuid)?;
    ctx.view.set("Interface", uuid, "name", Datum::scalar(name))?;
    ctx.view.add_reference("Port", port, "interfaces", uuid)
}

/// Deletes a port of the real bridge `bridge` and its interfaces.
pub fn delete(ctx: &mut Context, bridge: Uuid, port: Uuid) -> Result<()> {
    for iface in ifaces_of(&ctx.view, port) {
        ctx.view.delete("Interface", iface);
    }
    ctx.view.delete("Port", port);
    ctx.view.drop_reference("Bridge", bridge, "ports", port)
}

/// `[--if-exists] [--with-iface] del-port [BRIDGE] PORT`
pub fn del_port(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let name = call.args.last().map_or("", String::as_str);
    let wanted = match call.arg(1) {
        Some(_) => Some(bridge::get(&ctx.view, &call.args[0])?),
        None => None,
    };
    let optional = call.has("if-exists");
    let mut found = find(&ctx.view, name);
    if found.is_none() && call.has("with-iface") {
        found = find_iface(&ctx.view, name).map(|(bridge, port, _)| (bridge, port));
    }
    let Some((at, port)) = found else {
        if optional {
            return Ok(());
        }
        if bridge::find(&ctx.view, name).is_some() {
            bail!("port {name} is the local port of bridge {name}; del-br {name} deletes both");
        }
        bail!("{}", no_port(&ctx.view, name));
    };
    if let Some(wanted) = wanted
        && wanted.name != at.name
    {
        bail!("bridge {} has no port {name}; it is on bridge {}", wanted.name, at.name);
    }
    delete(ctx, at.row, port)
}

/// `port-to-br PORT`
pub fn port_to_br(ctx: &mut Context, call: &Invocation) -> Result<()> {
    match find(&ctx.view, &call.args[0]) {
        Some((bridge, _)) => ctx.print(&bridge.name),
        None => bail!("{}", no_port(&ctx.view, &call.args[0])),
    }
    Ok(())
}

/// `iface-to-br IFACE`
pub fn iface_to_br(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let name = &call.args[0];
    let Some((bridge, _, _)) = find_iface(&ctx.view, name) else {
        let names: Vec<&str> = ctx.view.rows("Interface").map(|(_, r)| r.string("name")).collect();
        bail!("no interface named {name}{}", did_you_mean(name, names));
    };
    ctx.print(&bridge.name);
    Ok(())
}
