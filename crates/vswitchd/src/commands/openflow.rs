//! Commands about bridges, their flows and MAC tables.

use crate::daemon::{Shared, locked};
use crate::switch::Switch;
use pipeline::{DumpOptions, OfPort, Pipeline};
use std::sync::Arc;
use unixctl::Commands;

/// What a command about a bridge needs: the pipeline, without the switch's lock, and the time.
fn at(switch: &Shared) -> (Arc<Pipeline>, u64) {
    let s = locked(switch);
    (s.pipeline.clone(), s.clock.now_ms())
}

/// Waits until what megaflows forwarded has been told to flows and MAC tables. The switch is not held
/// meanwhile.
pub(super) fn settle(switch: &Shared) {
    let revalidator = locked(switch).revalidator.clone();
    revalidator.wait();
}

type Answer = Result<String, String>;

fn text<E: std::fmt::Display>(r: Result<String, E>) -> Answer {
    r.map_err(|e| e.to_string())
}

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    add_fdb(c, switch);
    let s = switch.clone();
    c.add("ofctl/add-flow", "bridge flow", 2..=2, move |a| {
        let (p, now) = at(&s);
        text(p.add_flow(&a[0], &a[1], now))
    });
    let s = switch.clone();
    c.add("ofctl/add-flows", "bridge flows", 2..=2, move |a| {
        let (p, now) = at(&s);
        text(p.add_flows(&a[0], &a[1], now))
    });
    let s = switch.clone();
    c.add("ofctl/mod-flows", "bridge flow", 2..=2, move |a| {
        let (p, now) = at(&s);
        text(p.mod_flows(&a[0], &a[1], now))
    });
    let s = switch.clone();
    c.add("ofctl/del-flows", "bridge [match]", 1..=2, move |a| {
        let (p, _) = at(&s);
        text(p.del_flows(&a[0], a.get(1).map_or("", String::as_str)))
    });
    let s = switch.clone();
    c.add("ofctl/dump-flows", "[--names] [--no-stats] bridge [match]", 1..=4, move |a| {
        let (p, now) = at(&s);
        let names = a.iter().any(|w| w == "--names");
        let stats = !a.iter().any(|w| w == "--no-stats");
        let words: Vec<&String> = a.iter().filter(|w| !w.starts_with("--")).collect();
        let bridge = words.first().ok_or("dump-flows: which bridge?")?;
        let filter = words.get(1).map_or("", |w| w.as_str());
        // What megaflows forwarded is told to the flows now and then; for this, now.
        settle(&s);
        text(p.dump_flows(bridge, filter, DumpOptions { names, stats }, now))
    });
    let s = switch.clone();
    c.add("ofctl/show", "bridge", 1..=1, move |a| show(&locked(&s), &a[0]));
    let s = switch.clone();
    c.add("ofctl/dump-ports", "bridge [port]", 1..=2, move |a| {
        dump_ports(&locked(&s), &a[0], a.get(1).map(String::as_str))
    });
}

fn add_fdb(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("fdb/show", "bridge", 1..=1, move |a| {
        settle(&s);
        let (p, now) = at(&s);
        text(p.fdb_show(&a[0], now))
    });
    let s = switch.clone();
    c.add("fdb/flush", "[bridge]", 0..=1, move |a| {
        text(at(&s).0.fdb_flush(a.first().map(String::as_str)))
    });
    let s = switch.clone();
    c.add("fdb/stats-show", "bridge", 1..=1, move |a| text(at(&s).0.fdb_stats_show(&a[0])));
    let s = switch.clone();
    c.add("fdb/stats-clear", "[bridge]", 0..=1, move |a| {
        text(at(&s).0.fdb_stats_clear(a.first().map(String::as_str)))
    });
    let s = switch.clone();
    c.add("fdb/add", "bridge port vlan mac", 4..=4, move |a| {
        text(at(&s).0.fdb_add(&a[0], &a[1], &a[2], &a[3]))
    });
    let s = switch.clone();
    c.add("fdb/del", "bridge vlan mac", 3..=3, move |a| {
        text(at(&s).0.fdb_del(&a[0], &a[1], &a[2]))
    });
}

/// As `ovs-ofctl show` prints a features reply.
fn show(s: &Switch, bridge: &str) -> Answer {
    let Some(b) = s.desired.bridges.iter().find(|b| b.name == bridge) else {
        return Err(format!("{bridge} is not a bridge"));
    };
    let mut out = format!("OFPT_FEATURES_REPLY (xid=0x2): dpid:{}\n", b.datapath_id);
    out += "n_tables:254, n_buffers:0\n";
    out += "capabilities: FLOW_STATS TABLE_STATS PORT_STATS\n";
    out += "actions: output\n";
    let mut ports: Vec<_> = s.running.iter().filter(|(_, r)| r.bridge == bridge).collect();
    ports.sort_by_key(|(_, r)| r.number);
    for (name, r) in ports {
        let state = if r.opened.link_is_up() { "0" } else { "LINK_DOWN" };
        out += &format!(" {}({name}): addr:00:00:00:00:00:00\n", r.number);
        out += &format!("     config:     0\n     state:      {state}\n");
        out += "     speed: 0 Mbps now, 0 Mbps max\n";
    }
    out += &format!(" LOCAL({bridge}): addr:00:00:00:00:00:00\n");
    out += "     config:     PORT_DOWN\n     state:      LINK_DOWN\n";
    out += "     speed: 0 Mbps now, 0 Mbps max\n";
    Ok(out + "OFPT_GET_CONFIG_REPLY (xid=0x4): frags=normal miss_send_len=0\n")
}

/// As `ovs-ofctl dump-ports` prints a port statistics reply.
fn dump_ports(s: &Switch, bridge: &str, only: Option<&str>) -> Answer {
    if !s.desired.bridges.iter().any(|b| b.name == bridge) {
        return Err(format!("{bridge} is not a bridge"));
    }
    let wanted =
        |name: &str, number: OfPort| only.is_none_or(|o| o == name || o == number.0.to_string());
    let mut ports: Vec<_> =
        s.running.iter().filter(|(n, r)| r.bridge == bridge && wanted(n, r.number)).collect();
    if let (Some(only), true) = (only, ports.is_empty()) {
        return Err(format!("{only}: unknown port of bridge {bridge}"));
    }
    ports.sort_by_key(|(_, r)| r.number);
    let mut out = format!("OFPST_PORT reply (xid=0x2): {} ports\n", ports.len());
    for (_, r) in ports {
        let c = r.opened.port().counters();
        out += &format!(
            "  port {:>4}: rx pkts={}, bytes={}, drop={}, errs=0, frame=0, over=0, crc=0\n",
            r.number, c.rx_packets, c.rx_bytes, c.rx_dropped
        );
        out += &format!(
            "             tx pkts={}, bytes={}, drop={}, errs=0, coll=0\n",
            c.tx_packets, c.tx_bytes, c.tx_dropped
        );
    }
    Ok(out)
}
