//! Commands about bridges under the names of `ovs-appctl`: `ofproto/…`, `bridge/…`.

use super::{Answer, BridgeNames, at, settle};
use crate::daemon::{Shared, locked};
use openflow::{DEFAULT_PRIORITY, format_actions, format_match};
use std::fmt::Write;
use std::sync::Arc;
use tables::Rule;
use unixctl::Commands;

/// Words of `ofproto/trace`: place, flow, packet, and an option for each time that the packet comes back
/// from connection tracking.
const TRACE_WORDS_MAX: usize = 32;

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("ofproto/list", "", 0..=0, move |_| {
        Ok(at(&s).0.bridges().into_iter().map(|name| name + "\n").collect())
    });
    let s = switch.clone();
    c.add("bridge/dump-flows", "[--offload-stats] bridge", 1..=2, move |a| {
        let words: Vec<&String> = a.iter().filter(|w| *w != "--offload-stats").collect();
        match words[..] {
            [bridge] => dump_flows(&s, bridge, words.len() != a.len()),
            _ => Err("bridge/dump-flows: name one bridge".to_owned()),
        }
    });
    let s = switch.clone();
    let usage = "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]";
    c.add("ofproto/trace", usage, 1..=TRACE_WORDS_MAX, move |a| {
        let words: Vec<&str> = a.iter().map(String::as_str).collect();
        let (pipeline, now) = at(&s);
        pipeline.trace_command(&words, now)
    });
    let s = switch.clone();
    c.add("ofproto/packet-ins", "bridge [count]", 1..=2, move |a| {
        let count = match a.get(1) {
            None => usize::MAX,
            Some(n) => n.parse().map_err(|_| format!("{n}: not a number of messages"))?,
        };
        packet_ins(&s, &a[0], count)
    });
}

fn packet_ins(switch: &Shared, bridge: &str, count: usize) -> Answer {
    let ports = at(switch).0.ports(bridge).map_err(|e| e.to_string())?;
    let names = BridgeNames::new(ports);
    let mut s = locked(switch);
    s.collect_messages();
    let lost = s.pool.punts().lost();
    Ok(s.packet_ins.read(bridge, count, &names, lost))
}

/// All flows, as `ovs-appctl bridge/dump-flows` prints them.
fn dump_flows(switch: &Shared, bridge: &str, offload: bool) -> Answer {
    settle(switch);
    let (pipeline, now) = at(switch);
    let tables = pipeline.tables(bridge).map_err(|_| "Unknown bridge".to_owned())?;
    let mut rules: Vec<&Arc<Rule>> = tables.rules().collect();
    rules.sort_by_key(|r| (r.table, std::cmp::Reverse(r.priority), r.serial));
    let mut out = String::new();
    for r in rules {
        if r.table != 0 {
            let _ = write!(out, "table_id={}, ", r.table);
        }
        let age = now.saturating_sub(r.created_ms) / 1000;
        let (packets, bytes) = (r.counts.packets(), r.counts.bytes());
        let _ = write!(out, "duration={age}s, n_packets={packets}, n_bytes={bytes}, ");
        if offload {
            out += "n_offload_packets=0, n_offload_bytes=0, ";
        }
        let priority = (r.priority != DEFAULT_PRIORITY).then_some(r.priority);
        let matches = format_match(&r.matches(), &(), priority);
        let _ = writeln!(out, "{matches},actions={}", format_actions(&r.actions, &()));
    }
    Ok(out)
}
