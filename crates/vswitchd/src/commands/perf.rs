//! `dpif-netdev/pmd-perf-show`: what PMD threads did with their time, in the text of OVS. Lines that OVS
//! has not say what each stage of a packet's way takes. Histories of rounds (`-it`, `-ms`) are not kept: who asks for one
//! is told so.

use super::datapath::{core_asked, pmds, ratio};
use crate::daemon::{Shared, locked};
use ::datapath::WalkCounts;
use pmd::{Column, ThreadView};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use unixctl::Commands;

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    let usage = "[-nh] [-it iter-history-len] [-ms ms-history-len] [-pmd core] [dp]";
    c.add("dpif-netdev/pmd-perf-show", usage, 0..=8, move |args| {
        let only = core_asked(&without_histogram_options(args)?)?;
        let hz = locked(&s).clock.cycles_per_second();
        let hidden = args.iter().any(|word| word == "-nh");
        let text = |t: &ThreadView| {
            let shown = !hidden && t.thread.metrics.load(Relaxed);
            show(t, hz) + &if shown { histograms(&t.thread.columns()) } else { String::new() }
        };
        Ok(pmds(&s, only).iter().map(text).collect())
    });
}

/// The arguments that say which threads; the others say what else to show.
fn without_histogram_options(args: &[String]) -> Result<Vec<String>, String> {
    let (mut rest, mut words) = (Vec::new(), args.iter());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-nh" => {}
            "-it" | "-ms" => {
                let number = words.next().and_then(|n| n.parse::<u32>().ok());
                let number =
                    number.ok_or_else(|| format!("{word} must be followed by a number"))?;
                if number > 0 {
                    return Err(format!(
                        "{word} {number}: histories of rounds are not kept; leave it out"
                    ));
                }
            }
            _ => rest.push(word.clone()),
        }
    }
    Ok(rest)
}

fn show(t: &ThreadView, hz: f64) -> String {
    let (c, duration) = (t.thread.counts(), t.thread.counted_for());
    let mut out = format!("\nTime: {}\n", time_of_day());
    out += &format!("Measurement duration: {:.3} s\n\n", duration.as_secs_f64());
    out += &format!("pmd thread numa_id {} core_id {}:\n\n", t.node, t.core);
    out += &iterations(&c, duration, hz);
    let upcalls_us = t.thread.upcall_cycles() as f64 * 1e6 / hz;
    out += &received(&c, duration, upcalls_us);
    out += &sent(&c, duration);
    out + &stages(&c)
}

/// The time of day in UTC, with milliseconds.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (s, ms) = (now.as_secs(), now.subsec_millis());
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600 % 24, s / 60 % 60, s % 60)
}

fn iterations(c: &WalkCounts, duration: Duration, hz: f64) -> String {
    let all = c.idle_iterations + c.busy_iterations;
    let used = c.idle_cycles + c.busy_cycles;
    let us = |cycles: u64| cycles as f64 * 1e6 / hz;
    let line = |name: &str, n: u64, tail: String| format!("  {name:<18}{n:14}  ({tail})\n");
    let of_used = |part| format!("{:5.1} % of used cycles", 100.0 * ratio(part, used));
    let each = if all == 0 { 0.0 } else { us(used + c.sleep_cycles) / all as f64 };
    let of_time = 100.0 * us(used) / 1e6 / duration.as_secs_f64().max(1e-9);
    let of_all = 100.0 * ratio(c.sleep_iterations, all);
    let slept = us(c.sleep_cycles);
    let nap = if c.sleep_iterations == 0 { 0.0 } else { slept / c.sleep_iterations as f64 };
    line("Iterations:", all, format!("{each:.2} us/it"))
        + &line("- Used TSC cycles:", used, format!("{of_time:5.1} % of total cycles"))
        + &line("- idle iterations:", c.idle_iterations, of_used(c.idle_cycles))
        + &line("- busy iterations:", c.busy_iterations, of_used(c.busy_cycles))
        + &format!(
            "  - sleep iterations:{:13}  ({of_all:5.1} % of iterations)\n",
            c.sleep_iterations
        )
        + &format!("  Sleep time (us):    {slept:12.0}  ({nap:3.0} us/iteration avg.)\n")
}

fn kpps(packets: u64, duration: Duration) -> f64 {
    packets as f64 / 1e3 / duration.as_secs_f64().max(1e-9)
}

fn received(c: &WalkCounts, duration: Duration, upcalls_us: f64) -> String {
    if c.received == 0 {
        return format!("  Rx packets:         {:12}\n", 0);
    }
    let passes = c.received + c.recirculated;
    let share = |part| 100.0 * ratio(part, passes);
    let none = |name: &str| format!("  {name:<20}{:12}  ({:5.1} %)\n", 0, 0.0);
    let lost = c.upcalls_not_installed;
    format!(
        "  Rx packets:         {:12}  ({:.0} Kpps, {:.0} cycles/pkt)\n",
        c.received,
        kpps(c.received, duration),
        ratio(c.busy_cycles, c.received)
    ) + &format!(
        "  Datapath passes:    {passes:12}  ({:.2} passes/pkt)\n",
        ratio(passes, c.received)
    ) + &none("- PHWOL hits:")
        + &none("- MFEX Opt hits:")
        + &none("- Simple Match hits:")
        + &format!("  - EMC hits:         {:12}  ({:5.1} %)\n", c.emc_hits, share(c.emc_hits))
        + &none("- SMC hits:")
        + &format!(
            "  - Megaflow hits:    {:12}  ({:5.1} %, {:.2} subtbl lookups/hit)\n",
            c.megaflow_hits,
            share(c.megaflow_hits),
            ratio(c.subtable_lookups, c.megaflow_hits)
        )
        + &format!(
            "  - Upcalls:          {:12}  ({:5.1} %, {:.1} us/upcall)\n",
            c.upcalls - lost,
            share(c.upcalls - lost),
            upcalls_us / c.upcalls.max(1) as f64
        )
        + &format!("  - Lost upcalls:     {lost:12}  ({:5.1} %)\n", share(lost))
}

fn sent(c: &WalkCounts, duration: Duration) -> String {
    if c.tx_packets == 0 {
        return format!("  Tx packets:         {:12}\n\n", 0);
    }
    format!(
        "  Tx packets:         {:12}  ({:.0} Kpps)\n  Tx batches:         {:12}  ({:.2} pkts/batch)\n",
        c.tx_packets,
        kpps(c.tx_packets, duration),
        c.tx_batches,
        ratio(c.tx_packets, c.tx_batches)
    )
}

/// What the stages of a packet's way take, as far as some packets were timed. Upcalls are not among it.
fn stages(c: &WalkCounts) -> String {
    if c.timed_packets == 0 {
        return String::new();
    }
    let stages = [
        ("receive", c.receive_cycles),
        ("tell", c.tell_cycles),
        ("look up", c.look_up_cycles),
        ("execute", c.execute_cycles),
        ("transmit", c.transmit_cycles),
        ("give back", c.give_back_cycles),
    ];
    let line = |(name, cycles)| {
        let name = format!("stage {name}:");
        format!("  {name:<18} {:13.1}  cycles/pkt\n", ratio(cycles, c.timed_packets))
    };
    let head = format!("  Timed packets:      {:12}  (one burst in 64)\n", c.timed_packets);
    stages.into_iter().map(line).fold(head, |all, line| all + &line)
}

fn histograms(columns: &[Column]) -> String {
    let row = |cell: &dyn Fn(&Column) -> String| {
        let cells: Vec<String> = columns.iter().map(cell).collect();
        format!("   {}\n", cells.join("  "))
    };
    let mut out = String::from("\nHistograms\n") + &row(&|c| format!("{:<21}", c.title));
    for bin in 0..::datapath::BINS {
        let bound = |c: &Column| match bin + 1 < ::datapath::BINS {
            true => c.bounds[bin].to_string(),
            false => ">".to_owned(),
        };
        out += &row(&|c| format!("{:<9} {:<11}", bound(c), c.counts[bin]));
    }
    out += &format!("{:-<154}\n", "");
    out += &row(&|c| format!("{:<21}", c.average_title));
    out + &row(&|c| format!("{:<21.*}", if c.decimals { 5 } else { 0 }, c.average))
}
