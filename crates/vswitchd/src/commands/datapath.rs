//! Commands about the datapath: ports, PMD threads, megaflows.

use crate::daemon::{Shared, locked};
use crate::switch::Switch;
use ::datapath::{FlowState, FlowStats, Megaflow, WalkCounters};
use flow::{DpPort, odp};
use pmd::ThreadView;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use unixctl::Commands;

/// A thread's core and its megaflows.
type FlowsOfCore = (usize, Vec<Arc<Megaflow>>);

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("dpif/show", "", 0..=0, move |_| Ok(show(&locked(&s))));
    let s = switch.clone();
    c.add("dpif-netdev/pmd-rxq-show", "[-pmd core] [dp]", 0..=3, move |a| {
        let only = core_asked(a)?;
        Ok(threads(&s, only).iter().map(rxqs).collect())
    });
    let s = switch.clone();
    c.add("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", 0..=3, move |a| {
        let only = core_asked(a)?;
        let texts = threads(&s, only).iter().map(stats).collect::<String>();
        Ok(texts + &main_thread_stats())
    });
    let s = switch.clone();
    c.add("dpif-netdev/pmd-stats-clear", "[-pmd core] [dp]", 0..=3, move |a| {
        for t in threads(&s, core_asked(a)?) {
            t.thread.counters.clear();
        }
        Ok(String::new())
    });
    let s = switch.clone();
    c.add("dpctl/dump-flows", "[-m] [--names] [pmd=core] [dp]", 0..=4, move |a| {
        dump_flows(&s, a, None)
    });
    let s = switch.clone();
    c.add("dpif/dump-flows", "[-m] [--names] bridge", 1..=3, move |a| {
        let bridge = a.iter().find(|w| !w.starts_with('-')).ok_or("which bridge?")?;
        if !locked(&s).pipeline.bridges().contains(bridge) {
            return Err(format!("no such bridge \"{bridge}\""));
        }
        dump_flows(&s, a, Some(bridge))
    });
    let s = switch.clone();
    c.add("dpctl/del-flows", "[dp]", 0..=1, move |_| {
        for t in locked(&s).pool.threads() {
            for flow in t.thread.registry.flows() {
                t.thread.registry.kill(&flow);
            }
        }
        Ok(String::new())
    });
    let s = switch.clone();
    c.add("upcall/show", "", 0..=0, move |_| Ok(upcalls(&locked(&s))));
    let s = switch.clone();
    c.add("revalidator/wait", "", 0..=0, move |_| {
        locked(&s).revalidator.wait();
        Ok(String::new())
    });
}

/// The core in `-pmd CORE`.
fn core_asked(args: &[String]) -> Result<Option<usize>, String> {
    let Some(at) = args.iter().position(|a| a == "-pmd") else { return Ok(None) };
    let core = args.get(at + 1).and_then(|c| c.parse().ok());
    core.map(Some).ok_or_else(|| "-pmd must be followed by a core number".into())
}

fn threads(switch: &Shared, only: Option<usize>) -> Vec<ThreadView> {
    let mut threads = locked(switch).pool.threads();
    threads.retain(|t| only.is_none_or(|core| core == t.core));
    threads
}

/// Packets that a megaflow matched, and packets that none did.
fn hit_and_missed(s: &Switch) -> (u64, u64) {
    let mut sum = (0, 0);
    for t in s.pool.threads() {
        let c = &t.thread.counters;
        sum.0 += c.emc_hits.get() + c.megaflow_hits.get();
        sum.1 += c.upcalls.get();
    }
    sum
}

fn show(s: &Switch) -> String {
    let (hit, missed) = hit_and_missed(s);
    let mut out = format!("netdev@ovs-netdev: hit:{hit} missed:{missed}\n");
    for bridge in &s.desired.bridges {
        out += &format!("  {}:\n", bridge.name);
        // The bridge's own port has no device of its own in the host yet.
        out += &format!("    {} 65534/none: (internal)\n", bridge.name);
        for (name, r) in s.running.iter().filter(|(_, r)| r.bridge == bridge.name) {
            let (rx, tx) = r.opened.queues();
            out += &format!(
                "    {name} {}/{}: ({}: configured_rx_queues={rx}, configured_tx_queues={tx}, \
                 mtu={}, requested_rx_queues={rx}, requested_tx_queues={tx})\n",
                r.number.0,
                r.dp.0,
                r.opened.kind(),
                r.opened.mtu()
            );
        }
    }
    out
}

fn percent(p: Option<u64>) -> String {
    p.map_or_else(|| "NOT AVAIL".to_owned(), |p| format!("{p:2} %"))
}

fn rxqs(t: &ThreadView) -> String {
    let mut out = String::from("Displaying last 60 seconds pmd usage %\n");
    out += &format!("pmd thread numa_id {} core_id {}:\n  isolated : false\n", t.node, t.core);
    for q in &t.rxqs {
        out += &format!(
            "  port: {:<16}  queue-id: {:2} (enabled)   pmd usage: {}\n",
            q.port,
            q.queue,
            percent(q.usage)
        );
    }
    out + &format!("  overhead: {}\n", percent(t.overhead))
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn packet_stats(c: &WalkCounters) -> String {
    let received = c.received.get();
    let megaflow = c.megaflow_hits.get();
    let lost = c.upcalls_not_installed.get();
    let mut out = format!("  packets received: {received}\n");
    out += "  packet recirculations: 0\n";
    let passes = if received > 0 { 1.0 } else { 0.0 };
    out += &format!("  avg. datapath passes per packet: {passes:.2}\n");
    out += "  phwol hits: 0\n  mfex opt hits: 0\n  simple match hits: 0\n";
    out += &format!("  emc hits: {}\n  smc hits: 0\n", c.emc_hits.get());
    out += &format!("  megaflow hits: {megaflow}\n");
    out += &format!(
        "  avg. subtable lookups per megaflow hit: {:.2}\n",
        ratio(c.subtable_lookups.get(), megaflow)
    );
    out += &format!("  miss with success upcall: {}\n", c.upcalls.get() - lost);
    out += &format!("  miss with failed upcall: {lost}\n");
    let batch = ratio(c.tx_packets.get(), c.tx_batches.get());
    out + &format!("  avg. packets per output batch: {batch:.2}\n")
}

fn stats(t: &ThreadView) -> String {
    let c = &t.thread.counters;
    let mut out = format!("pmd thread numa_id {} core_id {}:\n", t.node, t.core);
    out += &packet_stats(c);
    let (idle, busy, packets) = (c.idle_cycles.get(), c.busy_cycles.get(), c.received.get());
    let total = idle + busy;
    if total == 0 {
        return out;
    }
    let share = |part| 100.0 * ratio(part, total);
    out += &format!("  idle cycles: {idle} ({:.2}%)\n", share(idle));
    out += &format!("  processing cycles: {busy} ({:.2}%)\n", share(busy));
    if packets > 0 {
        let (all, own) = (ratio(total, packets), ratio(busy, packets));
        out += &format!("  avg cycles per packet: {all:.2} ({total}/{packets})\n");
        out += &format!("  avg processing cycles per packet: {own:.2} ({busy}/{packets})\n");
    }
    out
}

/// The main thread moves no packets here; scripts expect its section all the same.
fn main_thread_stats() -> String {
    format!("main thread:\n{}", packet_stats(&WalkCounters::default()))
}

fn upcalls(s: &Switch) -> String {
    let limits = s.revalidator.limits();
    let (now, max) = (limits.flows.load(Relaxed), limits.flows_max.load(Relaxed));
    let limit = s.pool.flow_limit();
    let mut out = String::from("netdev@ovs-netdev:\n");
    out += &format!("  flows         : (current {now}) (avg {now}) (max {max}) (limit {limit})\n");
    out += &format!("  dump duration : {}ms\n", limits.dump_ms.load(Relaxed));
    out + "  ufid enabled : true\n"
}

fn dump_flows(switch: &Shared, args: &[String], bridge: Option<&str>) -> Result<String, String> {
    let verbose = args.iter().any(|a| a == "-m" || a == "--more");
    let by_name = args.iter().any(|a| a == "--names");
    let only = match args.iter().find_map(|a| a.strip_prefix("pmd=")) {
        Some(core) => Some(core.parse::<usize>().map_err(|_| format!("pmd={core}: no core"))?),
        None => None,
    };
    // Copy what is needed, so that the switch is not held while a long text is made.
    let (flows, names, ports, now_ms) = {
        let s = locked(switch);
        let threads = s.pool.threads();
        let flows: Vec<FlowsOfCore> = threads
            .iter()
            .filter(|t| only.is_none_or(|core| core == t.core))
            .map(|t| (t.core, t.thread.registry.flows()))
            .collect();
        let names: HashMap<u32, String> =
            s.running.iter().map(|(name, r)| (r.dp.0, name.clone())).collect();
        let of = |b: &str| s.running.values().filter(|r| r.bridge == b).map(|r| r.dp.0).collect();
        let ports: Option<Vec<u32>> = bridge.map(of);
        (flows, names, ports, s.clock.now_ms())
    };
    let name = |p: DpPort| match names.get(&p.0).filter(|_| by_name) {
        Some(name) => name.clone(),
        None => p.0.to_string(),
    };
    let mut out = String::new();
    for (core, flows) in flows {
        let wanted = |f: &&Arc<Megaflow>| {
            f.state() == FlowState::Live
                && ports.as_ref().is_none_or(|p| p.contains(&f.origin.in_port))
        };
        let lines: String = flows.iter().filter(wanted).map(|f| line(f, &name, now_ms)).collect();
        if !lines.is_empty() && bridge.is_none() {
            out += &format!("flow-dump from pmd on cpu core: {core}\n");
        }
        out += &lines;
    }
    // All that there is to say is in the plain form already.
    let _ = verbose;
    Ok(out)
}

fn line(f: &Megaflow, name: odp::PortText<'_>, now_ms: u64) -> String {
    let FlowStats { packets, bytes, used_ms, tcp_flags } = f.stats();
    let used = match used_ms {
        0 => "never".to_owned(),
        ms => format!("{:.3}s", now_ms.saturating_sub(ms) as f64 / 1000.0),
    };
    let flags = if tcp_flags == 0 {
        String::new()
    } else {
        format!(", flags:{}", tcp_flag_letters(tcp_flags))
    };
    format!(
        "{}, packets:{packets}, bytes:{bytes}, used:{used}{flags}, actions:{}\n",
        odp::format_match(&f.key(), &f.wildcards, name),
        odp::format_actions(&f.actions, name)
    )
}

/// TCP flags as OVS abbreviates them.
fn tcp_flag_letters(flags: u16) -> String {
    "FSRP.UEC".chars().enumerate().filter(|(i, _)| flags & 1 << i != 0).map(|(_, c)| c).collect()
}
