//! The plots of the report.

use super::super::latency;
use super::super::outcome::{Outcome, Place};
use super::super::results::Results;
use super::super::scenario::{Flows, Group, Scenario};
use super::super::statistics::median;
use super::super::system::Kind;
use super::svg::{self, Axis, Bar, Curve, Scale};
use super::{colour, title};

/// Packets a second of the first system for each of OVS-DPDK, where there is a target or a headline.
pub fn ratios(results: &Results) -> String {
    let shown = |o: &&Outcome| o.scenario.headline || o.scenario.target_ratio.is_some();
    let bar = |outcome: &Outcome| {
        let pps = outcome.main.ratio_to(Kind::OvsDpdk)?.pps?;
        let far = if outcome.main.place == Place::Far { ", far" } else { "" };
        Some(Bar {
            label: outcome.scenario.name.to_owned(),
            colour: colour(results.systems[0]),
            value: pps.value,
            text: format!("{:.2}{far}", pps.value),
            interval: Some((pps.low, pps.high)),
            mark: outcome.scenario.target_ratio,
        })
    };
    let bars: Vec<Bar> = results.rates.iter().filter(shown).filter_map(bar).collect();
    svg::bars(&bars, "target")
}

/// Cycles a packet of each system in the headline scenarios.
pub fn cycles(results: &Results) -> String {
    let mut bars = Vec::new();
    for outcome in results.rates.iter().filter(|o| o.scenario.headline) {
        let mut label = outcome.scenario.name.to_owned();
        for figures in &outcome.main.figures {
            let Some(value) = figures.cycles_per_packet else { continue };
            let bursts =
                if figures.full_bursts() == Some(false) { ", bursts not full" } else { "" };
            bars.push(Bar {
                label: std::mem::take(&mut label),
                colour: colour(figures.system),
                value,
                text: format!("{value:.0}{bursts}"),
                interval: None,
                mark: figures.cycles_lower_quartile,
            });
        }
    }
    svg::bars(&bars, "quartile")
}

/// Stages of the base case.
pub fn stages(results: &Results) -> String {
    let Some(outcome) = results.rate("64b") else { return String::new() };
    let bar = |stage: &super::super::system::Stage| Bar {
        label: stage.name.clone(),
        colour: colour(Kind::Ours),
        value: stage.cycles_per_packet,
        text: format!("{:.1}", stage.cycles_per_packet),
        interval: None,
        mark: None,
    };
    svg::bars(&outcome.stages.iter().map(bar).collect::<Vec<_>>(), "target")
}

/// p50, p99 and p99.9 of each system against offered load.
pub fn latency(outcome: &latency::Outcome) -> String {
    let hollow = outcome.place == Place::Far;
    let systems: Vec<Kind> =
        outcome.points.iter().map(|p| p.system).fold(Vec::new(), |mut all, system| {
            if !all.contains(&system) {
                all.push(system);
            }
            all
        });
    type Percentile = (&'static str, &'static str, fn(&latency::Point) -> f64);
    let percentiles: [Percentile; 3] =
        [("p50", "2 3", |p| p.p50_us), ("p99", "", |p| p.p99_us), ("p99.9", "7 4", |p| p.p999_us)];
    let curve = |system: Kind, (name, dash, get): Percentile| Curve {
        name: format!("{} {name}", title(system)),
        colour: colour(system),
        dash,
        points: outcome
            .points
            .iter()
            .filter(|p| p.system == system)
            .map(|p| (p.offered_pps / 1e6, get(p), hollow))
            .collect(),
    };
    let curves: Vec<Curve> =
        systems.iter().flat_map(|&s| percentiles.map(|percentile| curve(s, percentile))).collect();
    let x = Axis { label: "offered load, Mpps", scale: Scale::Linear };
    svg::curves(&x, &Axis { label: "latency, µs", scale: Scale::Log10 }, &curves)
}

/// A curve of each system over scenarios, where `x` says where they stand.
fn by_scenario(
    results: &Results,
    x: impl Fn(&Scenario) -> Option<f64>,
    y: fn(&super::super::outcome::Figures) -> Option<f64>,
    name: impl Fn(Kind) -> String,
    dash: &'static str,
) -> Vec<Curve> {
    let curve = |&system: &Kind| {
        let point = |outcome: &Outcome| {
            let value = y(outcome.main.figures_of(system)?)?;
            Some((x(&outcome.scenario)?, value, outcome.main.place == Place::Far))
        };
        let points: Vec<_> = results.rates.iter().filter_map(point).collect();
        (points.len() > 1).then(|| Curve {
            name: name(system),
            colour: colour(system),
            dash,
            points,
        })
    };
    results.systems.iter().filter_map(curve).collect()
}

fn is_base(scenario: &Scenario) -> bool {
    scenario.name == "64b"
}

/// Cycles a packet by number of flows.
pub fn flows(results: &Results) -> String {
    let of_group = |s: &Scenario| s.group == Group::Flows || is_base(s);
    let uniform = |s: &Scenario| match s.flows {
        Flows::Uniform(count) if of_group(s) => Some(f64::from(count)),
        _ => None,
    };
    let zipf = |s: &Scenario| match s.flows {
        Flows::Zipf(count) if of_group(s) => Some(f64::from(count)),
        _ => None,
    };
    let name = |kind: Kind| title(kind).to_owned();
    let mut curves = by_scenario(results, uniform, |f| f.cycles_per_packet, name, "");
    let name = |kind: Kind| format!("{}, zipf", title(kind));
    curves.extend(by_scenario(results, zipf, |f| f.cycles_per_packet, name, "5 4"));
    let x = Axis { label: "microflows each way", scale: Scale::Log10 };
    svg::curves(&x, &Axis { label: "cycles a packet", scale: Scale::Linear }, &curves)
}

/// Cycles a packet by number of masks.
pub fn masks(results: &Results) -> String {
    let place = |s: &Scenario| (s.group == Group::Masks).then(|| f64::from(s.flows.count()));
    let name = |kind: Kind| title(kind).to_owned();
    let curves = by_scenario(results, place, |f| f.cycles_per_packet, name, "");
    let x = Axis { label: "megaflow masks", scale: Scale::Log2 };
    svg::curves(&x, &Axis { label: "cycles a packet", scale: Scale::Log10 }, &curves)
}

/// Packets a second by number of ports.
pub fn ports(results: &Results) -> String {
    let place = |s: &Scenario| (s.group == Group::Ports || is_base(s)).then(|| f64::from(s.ports));
    let name = |kind: Kind| title(kind).to_owned();
    let curves = by_scenario(results, place, |f| Some(f.pps / 1e6), name, "");
    let x = Axis { label: "ports", scale: Scale::Log2 };
    let plot = svg::curves(&x, &Axis { label: "Mpps", scale: Scale::Linear }, &curves);
    plot + &share_kept(results).unwrap_or_default()
}

/// What is left of the two-port rate with 128 ports.
fn share_kept(results: &Results) -> Option<String> {
    let (base, many) = (results.rate("64b")?, results.rate("ports-128")?);
    if base.main.place != many.main.place {
        return Some("<p>The cores were not in the same place with 2 and with 128 ports: not to be compared.</p>\n".into());
    }
    let pps = |outcome: &Outcome, kind| Some(outcome.main.figures_of(kind)?.pps);
    let share = |&kind: &Kind| {
        let share = pps(many, kind)? / pps(base, kind)? * 100.0;
        Some(format!("{} keeps {share:.0} %", title(kind)))
    };
    let shares: Vec<String> = results.systems.iter().filter_map(share).collect();
    Some(format!("<p>With 128 ports, of the rate with two: {}.</p>\n", shares.join(", ")))
}

/// Median share of the time that the load had to spare for a system, 0 to 1.
pub fn load_idle(outcome: &Outcome, at: usize) -> Option<f64> {
    median(outcome.rounds.iter().filter_map(|round| round.get(at)?.load_idle).collect())
}
