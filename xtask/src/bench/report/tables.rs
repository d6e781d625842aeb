//! The tables of the report.

use std::fmt::Write;

use super::super::latency;
use super::super::outcome::{Outcome, Summary};
use super::super::results::Results;
use super::super::scenario::{Group, Offload, Pace};
use super::super::statistics::median;
use super::super::system::Kind;
use super::{plots, title};

/// Memory growth for each further port that is to be kept below, in KB.
const PORT_KB_TARGET: f64 = 256.0;
/// The header in front of each frame in a buffer.
const VIRTIO_HEADER_BYTES: f64 = 12.0;

/// A row of a table.
pub fn row(cells: &[String], class: &str) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr class='{class}'>{cells}</tr>\n")
}

/// A table; nothing if it has no rows.
pub fn table(heads: &[String], rows: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    format!("<table><tr>{heads}</tr>\n{rows}</table>\n")
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |v| format!("{v:.digits$}"))
}

fn ratio(summary: &Summary, to: Kind) -> String {
    let pps = summary.ratio_to(to).and_then(|r| r.pps);
    pps.map_or("–".to_owned(), |r| format!("{:.2} ({:.2}–{:.2})", r.value, r.low, r.high))
}

/// What the systems make of longer frames.
pub fn frames(results: &Results) -> String {
    let mut heads = vec!["frame".to_owned()];
    for &kind in &results.systems {
        heads.push(format!("{}, Mpps", title(kind)));
        heads.push("Gbit/s".to_owned());
        heads.push("cycles".to_owned());
    }
    heads.push("ratio to OVS-DPDK".to_owned());
    let of_group = |o: &&Outcome| o.scenario.group == Group::Frames || o.scenario.name == "64b";
    let outcomes: Vec<&Outcome> = results.rates.iter().filter(of_group).collect();
    if outcomes.len() < 2 {
        return String::new();
    }
    let mut rows = String::new();
    for outcome in outcomes {
        let bytes = outcome.scenario.arriving_bytes();
        let name = outcome.scenario.name;
        let mut cells = vec![format!("{name}: {bytes} bytes, cores {}", outcome.main.place)];
        for &kind in &results.systems {
            let figures = outcome.main.figures_of(kind);
            cells.push(number(figures.map(|f| f.pps / 1e6), 2));
            let measured = bytes_a_frame(outcome, kind).unwrap_or(bytes.into());
            cells.push(number(figures.map(|f| f.pps * measured * 8.0 / 1e9), 1));
            cells.push(number(figures.and_then(|f| f.cycles_per_packet), 0));
        }
        cells.push(match outcome.scenario.offload {
            Offload::Cut => "other work: not cut".to_owned(),
            _ => ratio(&outcome.main, Kind::OvsDpdk),
        });
        rows += &row(&cells, "");
    }
    table(&heads, &rows)
}

/// What settings of ports cost.
pub fn settings(results: &Results) -> String {
    let mut heads = vec!["scenario".to_owned()];
    for &kind in &results.systems {
        heads.push(format!("{}, cycles", title(kind)));
        heads.push("over plain".to_owned());
        heads.push("copies".to_owned());
    }
    let mut rows = String::new();
    for outcome in results.rates.iter().filter(|o| o.scenario.group == Group::Settings) {
        let over = results.over_plain(outcome);
        let name = outcome.scenario.name;
        let mut cells = vec![format!("{name}, cores {}", outcome.main.place)];
        for &kind in &results.systems {
            let figures = outcome.main.figures_of(kind);
            let more = over.iter().find(|(of, _)| *of == kind);
            cells.push(number(figures.and_then(|f| f.cycles_per_packet), 0));
            cells.push(more.map_or("–".to_owned(), |(_, cycles)| format!("{cycles:+.0}")));
            cells.push(number(outcome.copies_a_packet(kind).filter(|copies| *copies > 0.0), 2));
        }
        rows += &row(&cells, "");
    }
    table(&heads, &rows)
}

/// Bytes of what arrived in a buffer, without virtio-net header: super-frames that were not cut fill theirs.
fn bytes_a_frame(outcome: &Outcome, kind: Kind) -> Option<f64> {
    let windows = outcome.rounds.iter().flatten().filter(|w| w.system == kind);
    Some(median(windows.filter_map(|w| w.bytes_a_buffer).collect())? - VIRTIO_HEADER_BYTES)
}

/// Every scenario, every system.
pub fn all(results: &Results) -> String {
    let mut heads = vec!["scenario".to_owned(), "cores".to_owned(), "rounds".to_owned()];
    for &kind in &results.systems {
        heads.push(format!("{}, Mpps", title(kind)));
        heads.push("cycles".to_owned());
    }
    heads.push("ratio to OVS-DPDK".to_owned());
    let mut rows = String::new();
    for outcome in &results.rates {
        rows += &row(&cells(results, outcome, &outcome.main), "");
        if let Some(elsewhere) = &outcome.elsewhere {
            rows += &row(&cells(results, outcome, elsewhere), "other");
        }
    }
    table(&heads, &rows)
}

fn cells(results: &Results, outcome: &Outcome, summary: &Summary) -> Vec<String> {
    let scenario = &outcome.scenario;
    let name = format!("<span title='{}'>{}</span>", scenario.describe(), scenario.name);
    let mut cells = vec![name, summary.place.to_string(), summary.rounds.to_string()];
    for &kind in &results.systems {
        let figures = summary.figures_of(kind);
        let at = summary.figures.iter().position(|f| f.system == kind);
        let idle = at.and_then(|at| plots::load_idle(outcome, at));
        let limited = if idle.is_some_and(|share| share < 0.05) { " *" } else { "" };
        cells.push(number(figures.map(|f| f.pps / 1e6), 2) + limited);
        cells.push(number(figures.and_then(|f| f.cycles_per_packet), 0));
    }
    cells.push(ratio(summary, Kind::OvsDpdk));
    cells
}

/// Latency at half load.
pub fn half_load(outcome: &latency::Outcome) -> String {
    let heads = ["at half load", "p50 µs", "p99 µs", "p99.9 µs", "lost"].map(str::to_owned);
    let half = outcome.points.iter().filter(|p| p.share == latency::HALF);
    let rows: String = half
        .map(|p| {
            let lost = format!("{:.4} %", p.lost * 100.0);
            let times = [p.p50_us, p.p99_us, p.p999_us].map(|us| format!("{us:.1}"));
            let [p50, p99, p999] = times;
            row(&[title(p.system).to_owned(), p50, p99, p999, lost], "")
        })
        .collect();
    let mut out = table(&heads, &rows);
    if let Some(ratio) = outcome.half_load_p99_ratio {
        let _ = writeln!(
            out,
            "<p>p99 at half load, window by window: {:.2} times OVS-DPDK's (95 % interval {:.2} to {:.2}).</p>",
            ratio.value, ratio.low, ratio.high
        );
    }
    out
}

/// Bursts of one length after another at the same average rate.
pub fn bursts(results: &Results) -> String {
    let heads =
        ["burst", "Mpps", "system", "p50 µs", "p99 µs", "p99.9 µs", "cycles a packet", "lost"];
    let of_group = results.latencies.iter().filter(|o| o.scenario.group == Group::Bursts);
    let mut rows = String::new();
    for outcome in of_group {
        let Pace::Paced { burst } = outcome.scenario.pace else { continue };
        for p in &outcome.points {
            let mut cells = vec![
                format!("{burst}, cores {}", outcome.place),
                format!("{:.2}", p.offered_pps / 1e6),
                title(p.system).to_owned(),
            ];
            cells.extend([p.p50_us, p.p99_us, p.p999_us].map(|us| format!("{us:.1}")));
            cells.push(number(p.cycles_per_packet, 0));
            cells.push(format!("{:.4} %", p.lost * 100.0));
            rows += &row(&cells, "");
        }
    }
    table(&heads.map(str::to_owned), &rows)
}

/// Private memory by ports.
pub fn memory(results: &Results) -> String {
    let heads = ["private memory (RssAnon)", "2 ports", "128 ports", "for each idle port"]
        .map(str::to_owned);
    let memory = |name: &str, kind: Kind| {
        let all = &results.rate(name)?.private_memory_kb;
        all.iter().find(|(k, _)| *k == kind).map(|m| m.1 as f64 / 1024.0)
    };
    let rows: String = results
        .systems
        .iter()
        .filter_map(|&kind| {
            let kb = results.idle_port_kb(kind)?;
            let class = if kb < PORT_KB_TARGET { "good" } else { "bad" };
            let cell = format!("<span class='{class}'>{kb:.1} KB</span>");
            let mb = |name| format!("{} MB", number(memory(name, kind), 1));
            Some(row(&[title(kind).to_owned(), mb("64b"), mb("ports-128"), cell], ""))
        })
        .collect();
    table(&heads, &rows)
}
