//! What a run prints as it goes.

use super::latency;
use super::measure::Window;
use super::outcome::{Figures, Outcome, Summary};
use super::system::Kind;

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.1}"))
}

/// One window of a saturating load.
pub fn window(window: &Window) {
    println!(
        "  {:9} {:7.3} Mpps of {} bytes, {:>7} cycles/packet, batch {:>5}, load {:>5} and idle {:>4} %{}{}",
        window.system,
        window.pps / 1e6,
        number(window.bytes_a_buffer),
        number(window.stats.cycles_per_packet),
        number(window.stats.batch),
        number(window.load_cycles_per_packet),
        number(window.load_idle.map(|share| share * 100.0)),
        match window.copies_a_packet {
            0.0 => String::new(),
            copies => format!(", {copies:.2} copies a packet"),
        },
        window.discarded.map_or(String::new(), |why| format!("   discarded: {why}")),
    );
}

/// One system at one load, in microseconds from the time at which a frame was due.
pub fn point(point: &latency::Point) {
    println!(
        "  {:9} {:3.0} % {:7.3} Mpps: p50 {:7.1} us, p99 {:7.1}, p99.9 {:7.1}, {:>6} cycles/packet, lost {:.4} %, {} windows",
        point.system,
        point.share * 100.0,
        point.offered_pps / 1e6,
        point.p50_us,
        point.p99_us,
        point.p999_us,
        number(point.cycles_per_packet),
        point.lost * 100.0,
        point.windows,
    );
}

/// What a scenario came to.
pub fn outcome(outcome: &Outcome) {
    println!("{}: {} windows discarded", outcome.scenario.name, outcome.discarded.len());
    summary(&outcome.main);
    if let Some(elsewhere) = &outcome.elsewhere {
        summary(elsewhere);
    }
}

/// What settings cost.
pub fn over_plain(over: &[(Kind, f64)]) {
    for (system, cycles) in over {
        println!("  {system:9} {cycles:+.1} cycles/packet over the same without settings");
    }
}

fn summary(summary: &Summary) {
    println!(
        "  {} rounds with the cores {}: a line takes {:.0} cycles there and back",
        summary.rounds, summary.place, summary.round_trip_cycles
    );
    for figures in &summary.figures {
        println!("    {}", describe(figures));
    }
    for ratio in &summary.ratios {
        if let Some(pps) = ratio.pps {
            println!("    {} / {}: packets {pps}", ratio.of, ratio.to);
        }
        if let Some(cycles) = ratio.cycles {
            println!("    {} / {}: cycles  {cycles}", ratio.of, ratio.to);
        }
    }
}

fn describe(figures: &Figures) -> String {
    let bursts = if figures.full_bursts() == Some(false) { " (bursts not full)" } else { "" };
    format!(
        "{:9} median {:.3} Mpps, {} cycles/packet, lower quartile {}{bursts}; load {}",
        figures.system,
        figures.pps / 1e6,
        number(figures.cycles_per_packet),
        number(figures.cycles_lower_quartile),
        number(figures.load_cycles_per_packet),
    )
}

/// What a latency scenario came to.
pub fn latency_outcome(outcome: &latency::Outcome) {
    if let Some(ratio) = outcome.half_load_p99_ratio {
        println!("  p99 at half load: {ratio} times that of {}", outcome.reference);
    }
}
