//! Commands about the datapath: ports and PMD threads.

use super::settle;
use crate::daemon::{Shared, locked};
use crate::interface::What;
use crate::switch::{Running, Switch};
use ::datapath::WalkCounts;
use pipeline::OfPort;
use pmd::ThreadView;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use unixctl::Commands;

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("dpif/show", "", 0..=0, move |_| Ok(show(&locked(&s))));
    let s = switch.clone();
    c.add("dpctl/show", "[-s] [dp]", 0..=2, move |_| Ok(dpctl_show(&locked(&s))));
    let s = switch.clone();
    c.add("memory/show", "", 0..=0, move |_| Ok(memory(&locked(&s))));
    let s = switch.clone();
    c.add("dpif-netdev/pmd-rxq-show", "[-pmd core] [-secs secs] [dp]", 0..=5, move |a| {
        let (secs, rest) = secs_asked(a)?;
        let only = core_asked(&rest)?;
        let mut threads = locked(&s).pool.threads_over(secs);
        threads.retain(|t| !t.is_worker() && only.is_none_or(|core| core == t.core));
        let head = format!("Displaying last {} seconds pmd usage %\n", secs.as_secs());
        Ok(head + &threads.iter().map(rxqs).collect::<String>())
    });
    let s = switch.clone();
    c.add("dpif-netdev/pmd-rxq-rebalance", "[dp]", 0..=1, move |a| {
        core_asked(a)?;
        locked(&s).pool.rebalance();
        Ok("pmd rxq rebalance requested.\n".to_owned())
    });
    let s = switch.clone();
    c.add("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", 0..=3, move |a| {
        let only = core_asked(a)?;
        let texts = threads(&s, only).iter().map(stats).collect::<String>();
        let worker = locked(&s).pool.threads().iter().any(ThreadView::is_worker);
        Ok(if worker { texts } else { texts + &main_thread_stats() })
    });
    let s = switch.clone();
    c.add("dpif-netdev/pmd-stats-clear", "[-pmd core] [dp]", 0..=3, move |a| {
        for t in threads(&s, core_asked(a)?) {
            t.thread.clear();
        }
        Ok(String::new())
    });
    let s = switch.clone();
    c.add("dpif-netdev/pmd-sleep-show", "[-pmd core] [dp]", 0..=3, move |a| {
        let only = core_asked(a)?;
        let default_us = locked(&s).pool.sleep_max().default_us;
        let head = format!("Default max sleep: {default_us:4} us\n");
        Ok(head + &pmds(&s, only).iter().map(sleeps).collect::<String>())
    });
    let s = switch.clone();
    c.add("dpctl/del-flows", "[dp]", 0..=1, move |_| {
        purge(&s);
        Ok(String::new())
    });
    let s = switch.clone();
    c.add("revalidator/purge", "", 0..=0, move |_| {
        purge(&s);
        settle(&s);
        Ok(String::new())
    });
    c.add("dpctl/dump-dps", "", 0..=0, |_| Ok("netdev@ovs-netdev\n".to_owned()));
    let s = switch.clone();
    c.add("dpif/dump-dps", "", 0..=0, move |_| {
        let bridges = locked(&s).pipeline.bridges();
        Ok(bridges.into_iter().map(|name| format!("netdev@{name}\n")).collect())
    });
    let s = switch.clone();
    c.add("upcall/show", "", 0..=0, move |_| Ok(upcalls(&locked(&s))));
    let s = switch.clone();
    c.add("revalidator/wait", "", 0..=0, move |_| {
        settle(&s);
        Ok(String::new())
    });
}

/// The time in `-secs SECS`, made whole intervals of measurement as in OVS: the longest unless it is one of
/// them; and the other words.
fn secs_asked(args: &[String]) -> Result<(Duration, Vec<String>), String> {
    let Some(at) = args.iter().position(|a| a == "-secs") else {
        return Ok((pmd::MEASURED, args.to_vec()));
    };
    let text = args.get(at + 1).ok_or("-secs must be followed by a number of seconds")?;
    let interval = pmd::INTERVAL.as_secs();
    let asked = text.parse().ok().map(|secs: u64| secs.div_ceil(interval).saturating_mul(interval));
    let asked = asked.map(Duration::from_secs).filter(|t| !t.is_zero() && *t <= pmd::MEASURED);
    Ok((asked.unwrap_or(pmd::MEASURED), [&args[..at], &args[at + 2..]].concat()))
}

/// The core in `-pmd CORE`; the only other word there may be is the datapath's name.
pub(super) fn core_asked(args: &[String]) -> Result<Option<usize>, String> {
    let (mut core, mut words) = (None, args.iter());
    while let Some(word) = words.next() {
        if word == "-pmd" {
            let number = words.next().and_then(|c| c.parse().ok());
            core = Some(number.ok_or("-pmd must be followed by a core number")?);
        } else {
            check_datapath(word)?;
        }
    }
    Ok(core)
}

/// Forgets all megaflows.
fn purge(switch: &Shared) {
    for t in threads(switch, None) {
        for flow in t.thread.registry.flows() {
            t.thread.registry.kill(&flow);
        }
    }
}

/// There is one datapath, under the name that OVS gives its own in userspace.
pub(super) fn check_datapath(name: &str) -> Result<(), String> {
    match name {
        "netdev@ovs-netdev" | "ovs-netdev" => Ok(()),
        _ => Err(format!("unknown option or datapath \"{name}\"; there is netdev@ovs-netdev")),
    }
}

pub(super) fn threads(switch: &Shared, only: Option<usize>) -> Vec<ThreadView> {
    let mut threads = locked(switch).pool.threads();
    threads.retain(|t| only.is_none_or(|core| core == t.core));
    threads
}

/// PMD threads: those that have a core.
pub(super) fn pmds(switch: &Shared, only: Option<usize>) -> Vec<ThreadView> {
    let mut threads = threads(switch, only);
    threads.retain(|t| !t.is_worker());
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

/// An interface's type and queues, as `dpif/show` and `dpctl/show` have them in parentheses.
fn device(r: &Running) -> String {
    let (kind, mtu, (rx, tx)) = (r.opened.kind(), r.opened.state().mtu, r.opened.queues());
    if let What::Patch { peer } = &r.opened.spec.what {
        return format!("patch: peer={peer}");
    }
    if r.opened.by_worker() && rx == 1 {
        return kind.to_owned();
    }
    format!(
        "{kind}: configured_rx_queues={rx}, configured_tx_queues={tx}, mtu={mtu}, \
         requested_rx_queues={rx}, requested_tx_queues={tx}"
    )
}

fn dpctl_show(s: &Switch) -> String {
    let (hit, missed) = hit_and_missed(s);
    let flows: usize = s.pool.threads().iter().map(|t| t.thread.registry.len()).sum();
    // Nothing waits for an answer here, so no miss is ever lost.
    let mut out = format!("netdev@ovs-netdev:\n  lookups: hit:{hit} missed:{missed} lost:0\n");
    out += &format!("  flows: {flows}\n");
    let devices = s.running.iter().filter(|(_, r)| !r.opened.is_patch());
    let devices = devices.map(|(name, r)| (r.dp.0, name, device(r)));
    let locals = s.locals.iter().filter(|(name, _)| !s.running.contains_key(*name));
    let locals = locals.map(|(name, dp)| (dp.0, name, "internal".to_owned()));
    let mut ports: Vec<_> = devices.chain(locals).collect();
    ports.sort();
    for (dp, name, device) in ports {
        out += &format!("  port {dp}: {name} ({device})\n");
    }
    out
}

/// What takes memory, by number.
fn memory(s: &Switch) -> String {
    let threads = s.pool.threads();
    let flows: usize = threads.iter().map(|t| t.thread.registry.len()).sum();
    let rxqs: usize = threads.iter().map(|t| t.rxqs.len()).sum();
    let (bridges, ports) = (s.desired.bridges.len(), s.running.len());
    format!(
        "bridges:{bridges} megaflows:{flows} pmds:{} ports:{ports} rxqs:{rxqs}\n",
        threads.len()
    )
}

fn show(s: &Switch) -> String {
    let (hit, missed) = hit_and_missed(s);
    let mut out = format!("netdev@ovs-netdev: hit:{hit} missed:{missed}\n");
    for bridge in &s.desired.bridges {
        out += &format!("  {}:\n", bridge.name);
        let dp = s.local_dp(&bridge.name).map_or("none".to_owned(), |dp| dp.0.to_string());
        out += &format!("    {} 65534/{dp}: (internal)\n", bridge.name);
        let others = |r: &Running| r.bridge == bridge.name && r.number != OfPort::LOCAL;
        for (name, r) in s.running.iter().filter(|(_, r)| others(r)) {
            // A patch has no port in the datapath.
            let dp = if r.opened.is_patch() { "none".to_owned() } else { r.dp.0.to_string() };
            out += &format!("    {name} {}/{dp}: ({})\n", r.number.0, device(r));
        }
    }
    out
}

fn percent(p: Option<u64>) -> String {
    p.map_or_else(|| "NOT AVAIL".to_owned(), |p| format!("{p:2} %"))
}

fn rxqs(t: &ThreadView) -> String {
    let mut out = format!("pmd thread numa_id {} core_id {}:\n", t.node, t.core);
    out += &format!("  isolated : {}\n", t.isolated);
    for q in &t.rxqs {
        out += &format!(
            "  port: {:<16}  queue-id: {:2} (enabled)   pmd usage: {}\n",
            q.port,
            q.queue,
            percent(q.usage)
        );
    }
    if t.rxqs.is_empty() {
        return out;
    }
    out + &format!("  overhead: {}\n", percent(t.overhead))
}

fn sleeps(t: &ThreadView) -> String {
    let max_us = t.thread.sleep_max_us.load(Relaxed);
    let head = format!("pmd thread numa_id {} core_id {}:\n", t.node, t.core);
    head + &format!("  max sleep: {max_us:4} us\n")
}

pub(super) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn packet_stats(c: &WalkCounts) -> String {
    let received = c.received;
    let megaflow = c.megaflow_hits;
    let lost = c.upcalls_not_installed;
    let mut out = format!("  packets received: {received}\n");
    out += &format!("  packet recirculations: {}\n", c.recirculated);
    let passes = ratio(received + c.recirculated, received);
    out += &format!("  avg. datapath passes per packet: {passes:.2}\n");
    out += "  phwol hits: 0\n  mfex opt hits: 0\n  simple match hits: 0\n";
    out += &format!("  emc hits: {}\n  smc hits: 0\n", c.emc_hits);
    out += &format!("  megaflow hits: {megaflow}\n");
    out += &format!(
        "  avg. subtable lookups per megaflow hit: {:.2}\n",
        ratio(c.subtable_lookups, megaflow)
    );
    out += &format!("  miss with success upcall: {}\n", c.upcalls - lost);
    out += &format!("  miss with failed upcall: {lost}\n");
    let batch = ratio(c.tx_packets, c.tx_batches);
    out + &format!("  avg. packets per output batch: {batch:.2}\n")
}

fn stats(t: &ThreadView) -> String {
    let c = &t.thread.counts();
    let mut out = match t.is_worker() {
        // The one in OVS that is no PMD thread, and does what this does.
        true => "main thread:\n".to_owned(),
        false => format!("pmd thread numa_id {} core_id {}:\n", t.node, t.core),
    };
    out += &packet_stats(c);
    let (idle, busy, packets) = (c.idle_cycles, c.busy_cycles, c.received);
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

/// Scripts expect the section of the main thread though nothing is polled by a worker.
fn main_thread_stats() -> String {
    format!("main thread:\n{}", packet_stats(&WalkCounts::default()))
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
