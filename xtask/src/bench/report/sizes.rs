//! Figures by message size: a plot and a table for each test.

use super::super::results::Results;
use super::super::sizes::{Point, TESTS, Test, figure, size, unit};
use super::super::system::Kind;
use super::svg::{self, Axis, Curve, Scale};
use super::tables::{row, table};
use super::{colour, title};

/// All tests that were run.
pub fn all(results: &Results) -> String {
    TESTS.iter().map(|&test| one(results, test)).collect()
}

fn of(results: &Results, test: Test, system: Kind) -> Vec<&Point> {
    results.sizes.iter().filter(|p| p.test == test && p.system == system).collect()
}

fn one(results: &Results, test: Test) -> String {
    let systems = results.systems.iter().map(|&kind| (kind, of(results, test, kind)));
    let systems: Vec<(Kind, Vec<&Point>)> = systems.filter(|(_, p)| !p.is_empty()).collect();
    if systems.is_empty() {
        return String::new();
    }
    let curve = |(kind, points): &(Kind, Vec<&Point>)| Curve {
        name: title(*kind).to_owned(),
        colour: colour(*kind),
        dash: "",
        points: points.iter().map(|p| (p.bytes as f64, p.value, false)).collect(),
    };
    let curves: Vec<Curve> = systems.iter().map(curve).collect();
    let x = Axis { label: "message size", scale: Scale::Bytes };
    let plot = svg::curves(&x, &Axis { label: unit(test), scale: Scale::Log10 }, &curves);
    format!("<h3>{test}</h3>\n{plot}{}", figures(&systems))
}

fn figures(systems: &[(Kind, Vec<&Point>)]) -> String {
    let mut heads = vec!["message".to_owned()];
    heads.extend(systems.iter().map(|(kind, _)| title(*kind).to_owned()));
    heads.extend((systems.len() > 1).then(|| format!("ratio to {}", title(systems[1].0))));
    let mut sizes: Vec<u64> = systems.iter().flat_map(|(_, p)| p.iter().map(|p| p.bytes)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let line = |&bytes: &u64| {
        let value = |(_, points): &(Kind, Vec<&Point>)| {
            points.iter().find(|p| p.bytes == bytes).map(|p| p.value)
        };
        let values: Vec<Option<f64>> = systems.iter().map(value).collect();
        let mut cells = vec![size(bytes)];
        cells.extend(values.iter().map(|v| v.map_or("–".to_owned(), figure)));
        if let [own, other, ..] = values[..] {
            let ratio = own.zip(other).map(|(own, other)| format!("{:.2}", own / other));
            cells.push(ratio.unwrap_or("–".to_owned()));
        }
        row(&cells, "")
    };
    table(&heads, &sizes.iter().map(line).collect::<String>())
}
