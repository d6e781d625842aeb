//! Bridge commands. A *fake* bridge is a port of a real one, its parent, that stands for a VLAN.

use anyhow::{Result, anyhow, bail};
use ovsdb::replica::Row;
use ovsdb::{Atom, Datum, Uuid};

use crate::cli::Invocation;
use crate::commands::{Context, Exit};
use crate::port;
use crate::suggest::did_you_mean;
use crate::view::{ROOT, View};

/// A bridge, real or fake.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its row, or its parent's if it is fake.
    pub row: Uuid,
    /// What makes it fake.
    pub fake: Option<Fake>,
}

/// What makes a bridge fake.
#[derive(Clone, Debug)]
pub struct Fake {
    /// The port that stands for it.
    pub port: Uuid,
    /// Its VLAN.
    pub vlan: i64,
    /// Name of its parent.
    pub parent: String,
}

/// Valid VLANs of fake bridges (ovs-vsctl(8)).
const VLAN_MAX: i64 = 4095;

/// All bridges, sorted by name.
pub fn bridges(view: &View) -> Vec<Bridge> {
    let mut all = Vec::new();
    for (row, bridge) in view.rows("Bridge") {
        all.push(Bridge { name: bridge.string("name").to_owned(), row, fake: None });
        for uuid in bridge.uuids("ports") {
            let Some(port) = view.row("Port", uuid) else { continue };
            if let Some(vlan) = fake_vlan(port) {
                let parent = bridge.string("name").to_owned();
                let fake = Some(Fake { port: uuid, vlan, parent });
                all.push(Bridge { name: port.string("name").to_owned(), row, fake });
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The VLAN of a port that stands for a fake bridge.
pub fn fake_vlan(port: &Row) -> Option<i64> {
    let vlan = port.integer("tag").filter(|tag| (0..=VLAN_MAX).contains(tag))?;
    port.boolean("fake_bridge").then_some(vlan)
}

/// The bridge called `name`, if there is one.
pub fn find(view: &View, name: &str) -> Option<Bridge> {
    bridges(view).into_iter().find(|bridge| bridge.name == name)
}

/// The bridge called `name`; an error if there is none.
pub fn get(view: &View, name: &str) -> Result<Bridge> {
    let all = bridges(view);
    let near = || did_you_mean(name, all.iter().map(|bridge| bridge.name.as_str()));
    let found = all.iter().find(|bridge| bridge.name == name);
    found.cloned().ok_or_else(|| anyhow!("no bridge named {name}{}", near()))
}

/// As [`get`], refusing fake bridges.
pub fn get_real(view: &View, name: &str) -> Result<Bridge> {
    let bridge = get(view, name)?;
    match &bridge.fake {
        None => Ok(bridge),
        Some(fake) => bail!("{name} is a fake bridge; use its parent {}", fake.parent),
    }
}

/// Refuses a name that a bridge, a port or an interface has.
pub fn check_free(view: &View, name: &str, what: &str) -> Result<()> {
    let conflict = |holder: String| Err(anyhow!("cannot create {what} {name}: {holder} exists"));
    if find(view, name).is_some() {
        return conflict(format!("a bridge named {name}"));
    }
    if let Some((bridge, _)) = port::find(view, name) {
        return conflict(format!("a port named {name} on bridge {}", bridge.name));
    }
    if let Some((bridge, _, _)) = port::find_iface(view, name) {
        return conflict(format!("an interface named {name} on bridge {}", bridge.name));
    }
    Ok(())
}

/// `[--may-exist] add-br BRIDGE [PARENT VLAN]`
pub fn add_br(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let name = &call.args[0];
    if name.is_empty() {
        bail!("the name of a bridge cannot be empty");
    }
    let fake = match (call.arg(1), call.arg(2)) {
        (Some(parent), Some(vlan)) => {
            let number = vlan.parse().ok().filter(|vlan| (0..=VLAN_MAX).contains(vlan));
            let Some(number) = number else {
                bail!("add-br: VLAN \"{vlan}\" is not a number from 0 to {VLAN_MAX}");
            };
            Some((parent, number))
        }
        (None, _) => None,
        (Some(_), None) => bail!("a fake bridge needs a VLAN; usage: add-br BRIDGE [PARENT VLAN]"),
    };
    if call.has("may-exist")
        && let Some(bridge) = find(&ctx.view, name)
    {
        return check_is(&bridge, fake);
    }
    check_free(&ctx.view, name, "bridge")?;
    match fake {
        None => add_real(ctx, name),
        Some((parent, vlan)) => add_fake(ctx, name, parent, vlan),
    }
}

/// `--may-exist` accepts only a bridge of the kind asked for.
fn check_is(bridge: &Bridge, wanted: Option<(&str, i64)>) -> Result<()> {
    let name = &bridge.name;
    match (&bridge.fake, wanted) {
        (None, None) => Ok(()),
        (None, Some(_)) => bail!("{name} exists, but as a real bridge"),
        (Some(fake), None) => {
            bail!("{name} exists, but as a fake bridge on VLAN {} of {}", fake.vlan, fake.parent)
        }
        (Some(fake), Some((parent, vlan))) => match fake.parent == parent && fake.vlan == vlan {
            true => Ok(()),
            false => bail!("{name} exists, but on VLAN {} of {}", fake.vlan, fake.parent),
        },
    }
}

fn add_real(ctx: &mut Context, name: &str) -> Result<()> {
    let port = port::insert(ctx, name, &[name])?;
    set_internal(ctx, port)?;
    let bridge = Uuid::random();
    ctx.view.insert("Bridge", bridge)?;
    ctx.view.set("Bridge", bridge, "name", Datum::scalar(name))?;
    ctx.view.set("Bridge", bridge, "ports", Datum::scalar(port))?;
    let (root, _) = ctx.view.root()?;
    ctx.view.add_reference(ROOT, root, "bridges", bridge)
}

fn add_fake(ctx: &mut Context, name: &str, parent: &str, vlan: i64) -> Result<()> {
    let parent = get(&ctx.view, parent)?;
    if parent.fake.is_some() {
        bail!("cannot create bridge {name}: its parent {} is a fake bridge itself", parent.name);
    }
    let on_vlan =
        |b: &Bridge| b.row == parent.row && b.fake.as_ref().is_some_and(|fake| fake.vlan == vlan);
    if let Some(other) = bridges(&ctx.view).iter().find(|bridge| on_vlan(bridge)) {
        bail!("bridge {} already has the fake bridge {} on VLAN {vlan}", parent.name, other.name);
    }
    let port = port::insert(ctx, name, &[name])?;
    set_internal(ctx, port)?;
    ctx.view.set("Port", port, "fake_bridge", Datum::scalar(true))?;
    ctx.view.set("Port", port, "tag", Datum::scalar(vlan))?;
    ctx.view.add_reference("Bridge", parent.row, "ports", port)
}

fn set_internal(ctx: &mut Context, port: Uuid) -> Result<()> {
    let ifaces = ctx.view.row("Port", port).map(|port| port.uuids("interfaces"));
    for iface in ifaces.unwrap_or_default() {
        ctx.view.set("Interface", iface, "type", Datum::scalar("internal"))?;
    }
    Ok(())
}

/// `[--if-exists] del-br BRIDGE`
pub fn del_br(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = match call.has("if-exists") {
        true => match find(&ctx.view, &call.args[0]) {
            Some(bridge) => bridge,
            None => return Ok(()),
        },
        false => get(&ctx.view, &call.args[0])?,
    };
    if let Some(fake) = &bridge.fake {
        for (_, port) in port::ports(&ctx.view, &bridge) {
            port::delete(ctx, bridge.row, port)?;
        }
        return port::delete(ctx, bridge.row, fake.port);
    }
    let ports = ctx.view.row("Bridge", bridge.row).map(|row| row.uuids("ports"));
    for port in ports.unwrap_or_default() {
        port::delete(ctx, bridge.row, port)?;
    }
    let (root, _) = ctx.view.root()?;
    ctx.view.drop_reference(ROOT, root, "bridges", bridge.row)?;
    ctx.view.delete("Bridge", bridge.row);
    Ok(())
}

/// `[--real|--fake] list-br`
pub fn list_br(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let (real, fake) = (call.has("real"), call.has("fake"));
    for bridge in bridges(&ctx.view) {
        // Both options ask for both kinds, as none does.
        if real == fake || bridge.fake.is_some() == fake {
            ctx.print(&bridge.name);
        }
    }
    Ok(())
}

/// `br-exists BRIDGE`
pub fn br_exists(ctx: &mut Context, call: &Invocation) -> Result<()> {
    match find(&ctx.view, &call.args[0]) {
        Some(_) => Ok(()),
        None => Err(Exit(2).into()),
    }
}

/// `br-to-vlan BRIDGE`
pub fn br_to_vlan(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = get(&ctx.view, &call.args[0])?;
    ctx.print(&bridge.fake.map_or(0, |fake| fake.vlan).to_string());
    Ok(())
}

/// `br-to-parent BRIDGE`
pub fn br_to_parent(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = get(&ctx.view, &call.args[0])?;
    ctx.print(&bridge.fake.map_or(bridge.name, |fake| fake.parent));
    Ok(())
}

/// Where the external ids of a bridge are: table, row, prefix of the keys.
fn external_ids(bridge: &Bridge) -> (&'static str, Uuid, &'static str) {
    match &bridge.fake {
        None => ("Bridge", bridge.row, ""),
        Some(fake) => ("Port", fake.port, "fake-bridge-"),
    }
}

/// `br-set-external-id BRIDGE KEY [VALUE]`
pub fn br_set_external_id(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = get(&ctx.view, &call.args[0])?;
    let (table, row, prefix) = external_ids(&bridge);
    let key = Atom::from(format!("{prefix}{}", call.args[1]));
    let ids = ctx.view.get(table, row, "external_ids")?;
    let ids = match call.arg(2) {
        Some(value) => Datum::map([(key, Atom::from(value))]).union(&ids),
        None => ids.subtract(&Datum::scalar(key)),
    };
    ctx.view.set(table, row, "external_ids", ids)
}

/// `br-get-external-id BRIDGE [KEY]`
pub fn br_get_external_id(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let bridge = get(&ctx.view, &call.args[0])?;
    let (table, row, prefix) = external_ids(&bridge);
    let ids = ctx.view.row(table, row).map(|row| row.string_map("external_ids"));
    for (key, value) in ids.unwrap_or_default() {
        let Some(key) = key.strip_prefix(prefix) else { continue };
        match call.arg(1) {
            None => ctx.print(&format!("{key}={value}")),
            Some(wanted) if wanted == key => ctx.print(&value),
            Some(_) => {}
        }
    }
    Ok(())
}
