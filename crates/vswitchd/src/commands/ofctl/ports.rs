//! Ports of a bridge: `show`, `dump-ports`, `dump-ports-desc`, `mod-port`.

use super::options::Names;
use super::{Answer, Call, Options, locked};
use crate::switch::{Running, Switch};
use flow::Mac;
use openflow::parse_port;
use pipeline::{OfPort, PortUse};
use port::Counters;
use std::fmt::Write;

/// A port, for printing.
pub(super) struct Shown<'s> {
    pub(super) number: OfPort,
    name: &'s str,
    /// `None` is a bridge's own that has no device.
    pub(super) running: Option<&'s Running>,
}

/// The ports of a bridge in the order of their numbers.
pub(super) fn ports<'s>(s: &'s Switch, bridge: &'s str) -> Vec<Shown<'s>> {
    let here = s.running.iter().filter(|(_, r)| r.bridge == bridge);
    let mut out: Vec<Shown<'_>> =
        here.map(|(name, r)| Shown { number: r.number, name, running: Some(r) }).collect();
    if out.iter().all(|p| p.number != OfPort::LOCAL) {
        out.push(Shown { number: OfPort::LOCAL, name: bridge, running: None });
    }
    out.sort_by_key(|p| p.number);
    out
}

/// The ports that the argument after the bridge names; all for none or `ANY`.
pub(super) fn chosen<'s>(call: &Call<'s>, s: &'s Switch) -> Result<Vec<Shown<'s>>, String> {
    let mut ports = ports(s, call.bridge());
    let wanted = match call.text() {
        "" => OfPort::NONE,
        text => number(call, text)?,
    };
    ports.retain(|p| wanted == OfPort::NONE || wanted == p.number);
    Ok(ports)
}

fn number(call: &Call<'_>, text: &str) -> Result<OfPort, String> {
    let number = parse_port(text, call.reading());
    number.ok_or_else(|| format!("{}: unknown port `{text}'", call.bridge()))
}

/// As `ovs-ofctl show` prints a features reply.
pub(super) fn show(call: &Call<'_>) -> Answer {
    let s = locked(call.switch);
    let bridge = call.bridge();
    let known = s.desired.bridges.iter().find(|b| b.name == bridge);
    let id = known.map_or("0000000000000000", |b| b.datapath_id.as_str());
    let mut out = format!("OFPT_FEATURES_REPLY (xid=0x2): dpid:{id}\n");
    out += "n_tables:254, n_buffers:0\n";
    out += "capabilities: FLOW_STATS TABLE_STATS PORT_STATS ARP_MATCH_IP\n";
    out += "actions: output enqueue set_vlan_vid set_vlan_pcp strip_vlan mod_dl_src mod_dl_dst \
            mod_nw_src mod_nw_dst mod_nw_tos mod_tp_src mod_tp_dst\n";
    ports(&s, bridge).iter().for_each(|p| describe(&mut out, &s, bridge, p));
    Ok(out + "OFPT_GET_CONFIG_REPLY (xid=0x4): frags=normal miss_send_len=0\n")
}

/// As `ovs-ofctl dump-ports-desc` prints its reply.
pub(super) fn dump_desc(call: &Call<'_>) -> Answer {
    let s = locked(call.switch);
    let mut out = "OFPST_PORT_DESC reply (xid=0x2):\n".to_owned();
    chosen(call, &s)?.iter().for_each(|p| describe(&mut out, &s, call.bridge(), p));
    Ok(out)
}

fn describe(out: &mut String, s: &Switch, bridge: &str, p: &Shown<'_>) {
    let state = p.running.map(|r| r.opened.state());
    let config = s.pipeline.port_use(bridge, p.number);
    let down = state.as_ref().is_none_or(|s| !s.admin_up);
    let config = config.with(PortUse::DOWN, down || config.has(PortUse::DOWN));
    let mac = state.as_ref().map_or(Mac([0; 6]), |s| s.mac);
    let state = if state.is_some_and(|s| s.link_up) { "0" } else { "LINK_DOWN" };
    let _ = writeln!(out, " {}({}): addr:{mac}", p.number, p.name);
    let _ = writeln!(out, "     config:     {config}\n     state:      {state}");
    *out += "     speed: 0 Mbps now, 0 Mbps max\n";
}

/// As `ovs-ofctl dump-ports` prints a port statistics reply.
pub(super) fn stats(call: &Call<'_>) -> Answer {
    let s = locked(call.switch);
    let mut ports = chosen(call, &s)?;
    // The bridge's own comes first, as in OVS.
    ports.sort_by_key(|p| (p.number != OfPort::LOCAL, p.number));
    let mut out = format!("OFPST_PORT reply (xid=0x2): {} ports\n", ports.len());
    for p in ports {
        let c = p.running.map_or_else(Counters::default, |r| r.counters());
        let _ = writeln!(
            out,
            "  port {:>2}: rx pkts={}, bytes={}, drop={}, errs=0, frame=0, over=0, crc=0\n           \
             tx pkts={}, bytes={}, drop={}, errs=0, coll=0",
            label(&p, &call.options),
            c.rx_packets,
            c.rx_bytes,
            c.rx_dropped,
            c.tx_packets,
            c.tx_bytes,
            c.tx_dropped
        );
    }
    Ok(out)
}

pub(super) fn label(p: &Shown<'_>, options: &Options) -> String {
    match options.names == Names::Print && p.number != OfPort::LOCAL {
        true => p.name.to_owned(),
        false => p.number.to_string(),
    }
}

/// As `ovs-ofctl dump-desc` prints its reply.
pub(super) fn desc() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "OFPST_DESC reply (xid=0x2):\nManufacturer: vswitch\nHardware: userspace virtual switch\n\
         Software: {version}\nSerial Num: None\nDP Description: None\n"
    )
}

pub(super) fn modify(call: &Call<'_>) -> Answer {
    let (name, action) = (call.args[1], call.args[2]);
    let Some((_, what, on)) = PortUse::words().find(|(word, ..)| *word == action) else {
        let known: Vec<&str> = PortUse::words().map(|(word, ..)| word).collect();
        return Err(format!(
            "unknown mod-port command '{action}' (there are {})",
            known.join(", ")
        ));
    };
    let bridge = call.bridge();
    let number = parse_port(name, call.reading());
    let Some(number) = number.filter(|n| openflow::PortNames::name(&call.names, *n).is_some())
    else {
        return Err(format!("{bridge}: couldn't find port `{name}'"));
    };
    let s = locked(call.switch);
    let running = s.running.values().find(|r| r.bridge == bridge && r.number == number);
    if let Some(r) = running.filter(|_| what == PortUse::DOWN)
        && r.opened.set_up(!on).map_err(|e| format!("{name}: {e}"))?
    {
        // The kernel keeps it.
        return Ok(String::new());
    }
    s.pipeline.set_port_use(bridge, number, what, on).map_err(|e| e.to_string())?;
    Ok(String::new())
}
