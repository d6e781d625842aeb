//! Commands that change the interfaces of a bond.

use anyhow::{Result, bail};

use crate::cli::Invocation;
use crate::commands::Context;
use crate::{bridge, port};

/// `[--may-exist] add-bond-iface BOND IFACE`
pub fn add_bond_iface(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let (bond, iface) = (&call.args[0], &call.args[1]);
    let Some((_, port)) = port::find(&ctx.view, bond) else {
        bail!("no port named {bond}");
    };
    if call.has("may-exist")
        && let Some((_, at, _)) = port::find_iface(&ctx.view, iface)
    {
        let other = ctx.view.row("Port", at).map(|row| row.string("name").to_owned());
        match at == port {
            true => return Ok(()),
            false => bail!("interface {iface} exists, but in port {}", other.unwrap_or_default()),
        }
    }
    bridge::check_free(&ctx.view, iface, "interface")?;
    port::insert_iface(ctx, port, iface)
}

/// `[--if-exists] del-bond-iface [BOND] IFACE`
pub fn del_bond_iface(ctx: &mut Context, call: &Invocation) -> Result<()> {
    let name = call.args.last().map_or("", String::as_str);
    let Some((_, at, iface)) = port::find_iface(&ctx.view, name) else {
        match call.has("if-exists") {
            true => return Ok(()),
            false => bail!("no interface named {name}"),
        }
    };
    if call.args.len() == 2 {
        let bond = &call.args[0];
        let Some((_, port)) = port::find(&ctx.view, bond) else {
            bail!("no port named {bond}");
        };
        if port != at {
            bail!("port {bond} has no interface {name}");
        }
    }
    if port::ifaces_of(&ctx.view, at).len() < 2 {
        bail!("interface {name} is the only one of its port; del-port deletes the port");
    }
    ctx.view.delete("Interface", iface);
    ctx.view.drop_reference("Port", at, "interfaces", iface)
}
