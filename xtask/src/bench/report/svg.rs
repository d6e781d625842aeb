//! Plots as SVG text: curves on linear or logarithmic axes, and horizontal bars.

use std::fmt::Write;

use super::super::sizes::size;

/// Size of a plot and of the room around it for labels, in pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// How an axis spreads its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By decades.
    Log10,
    /// By doublings; the values themselves are its marks.
    Log2,
    /// By powers of 16, in bytes.
    Bytes,
}

/// One axis.
pub struct Axis {
    /// What it shows, with the unit.
    pub label: &'static str,
    /// How.
    pub scale: Scale,
}

/// One curve.
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// A colour of CSS.
    pub colour: &'static str,
    /// Lengths of dashes and gaps, for what is secondary; empty for a solid line.
    pub dash: &'static str,
    /// Where; and whether the dot is hollow.
    pub points: Vec<(f64, f64, bool)>,
}

/// One axis laid out.
struct Span {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Span {
    fn new(scale: Scale, values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Span {
        let max = values.clone().fold(0.0, f64::max).max(1e-9);
        let min = values.fold(f64::INFINITY, f64::min).min(max);
        let (low, high) = match scale {
            Scale::Linear => (0.0, max * 1.08),
            Scale::Log10 => (10f64.powf(min.log10().floor()), 10f64.powf(max.log10().ceil())),
            Scale::Log2 | Scale::Bytes => (min, max.max(min * 2.0)),
        };
        let high = if high > low { high } else { low * 10.0 };
        Span { scale, low, high, from, to }
    }

    fn label(&self, value: f64) -> String {
        if self.scale == Scale::Bytes { size(value as u64) } else { short(value) }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            _ => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Values to mark.
    fn marks(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(self.high / 6.0);
                (0..=(self.high / step) as u32).map(|n| f64::from(n) * step).collect()
            }
            Scale::Log10 => {
                let decades = self.low.log10().round() as i32..=self.high.log10().round() as i32;
                decades.map(|exponent| 10f64.powi(exponent)).collect()
            }
            Scale::Bytes => {
                let powers = (0..8).map(|n| 16f64.powi(n));
                powers.filter(|m| (self.low..=self.high).contains(m)).collect()
            }
            Scale::Log2 => {
                let mut marks: Vec<f64> = values.collect();
                marks.sort_by(f64::total_cmp);
                marks.dedup();
                marks
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * decade).find(|s| *s >= least).unwrap_or(decade)
}

/// A number as short as a label wants it.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", trim(v / 1e6)),
        v if v >= 1e4 => format!("{}k", trim(v / 1e3)),
        v => trim(v),
    }
}

fn trim(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Curves in one frame, with a legend at the right.
pub fn curves(x: &Axis, y: &Axis, curves: &[Curve]) -> String {
    let xs = || curves.iter().flat_map(|c| c.points.iter().map(|p| p.0));
    let ys = || curves.iter().flat_map(|c| c.points.iter().map(|p| p.1));
    if xs().next().is_none() {
        return String::new();
    }
    let across = Span::new(x.scale, xs(), LEFT, WIDTH - RIGHT);
    let up = Span::new(y.scale, ys(), HEIGHT - BOTTOM, TOP);
    let mut out = open(HEIGHT);
    grid(&mut out, x, &across, &across.marks(xs()), y, &up, &up.marks(ys()));
    for (number, curve) in (0..).zip(curves) {
        draw_curve(&mut out, curve, &across, &up);
        legend(&mut out, number, &curve.name, curve.colour, curve.dash);
    }
    out + "</svg>\n"
}

fn open(height: f64) -> String {
    format!("<svg viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' role='img'>\n")
}

fn grid(out: &mut String, x: &Axis, across: &Span, xs: &[f64], y: &Axis, up: &Span, ys: &[f64]) {
    for &mark in ys {
        let at = up.place(mark);
        let _ = writeln!(
            out,
            "<line class='grid' x1='{LEFT}' x2='{:.1}' y1='{at:.1}' y2='{at:.1}'/>\
             <text class='mark' x='{:.1}' y='{:.1}' text-anchor='end'>{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(mark)
        );
    }
    for &mark in xs {
        let at = across.place(mark);
        let bottom = HEIGHT - BOTTOM;
        let _ = writeln!(
            out,
            "<line class='grid' x1='{at:.1}' x2='{at:.1}' y1='{TOP}' y2='{bottom}'/>\
             <text class='mark' x='{at:.1}' y='{}' text-anchor='middle'>{}</text>",
            bottom + 16.0,
            across.label(mark)
        );
    }
    let _ = writeln!(
        out,
        "<text class='axis' x='{:.1}' y='{}' text-anchor='middle'>{}</text>\
         <text class='axis' transform='translate(14 {:.1}) rotate(-90)' text-anchor='middle'>{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        x.label,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        y.label
    );
}

fn draw_curve(out: &mut String, curve: &Curve, across: &Span, up: &Span) {
    let at = |p: &(f64, f64, bool)| (across.place(p.0), up.place(p.1));
    let path: Vec<String> =
        curve.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (colour, dash) = (curve.colour, curve.dash);
    let _ = writeln!(
        out,
        "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2' stroke-dasharray='{dash}'/>",
        path.join(" ")
    );
    for point in &curve.points {
        let (x, y) = at(point);
        let fill = if point.2 { "white" } else { colour };
        let _ = writeln!(
            out,
            "<circle cx='{x:.1}' cy='{y:.1}' r='3.2' fill='{fill}' stroke='{colour}' stroke-width='1.5'>\
             <title>{}: {} at {}</title></circle>",
            curve.name,
            short(point.1),
            across.label(point.0)
        );
    }
}

fn legend(out: &mut String, number: u32, name: &str, colour: &str, dash: &str) {
    let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 10.0 + 19.0 * f64::from(number));
    let _ = writeln!(
        out,
        "<line x1='{x}' x2='{}' y1='{y}' y2='{y}' stroke='{colour}' stroke-width='2.5' stroke-dasharray='{dash}'/>\
         <text class='mark' x='{}' y='{}'>{name}</text>",
        x + 20.0,
        x + 26.0,
        y + 4.0
    );
}

/// One bar.
pub struct Bar {
    /// At its left; empty for a further bar of the same thing.
    pub label: String,
    /// A colour of CSS.
    pub colour: &'static str,
    /// Its length.
    pub value: f64,
    /// What is printed at its end.
    pub text: String,
    /// An interval around its end.
    pub interval: Option<(f64, f64)>,
    /// A mark to be compared with: a target, or a quartile.
    pub mark: Option<f64>,
}

/// Horizontal bars, one below the other; those without label stand close to the one before.
pub fn bars(bars: &[Bar], mark_class: &str) -> String {
    const LABELS: f64 = 190.0;
    const BAR: f64 = 16.0;
    let most = |b: &Bar| {
        [b.value, b.mark.unwrap_or(0.0), b.interval.map_or(0.0, |i| i.1)]
            .into_iter()
            .fold(0.0, f64::max)
    };
    let longest = bars.iter().map(most).fold(1e-9, f64::max);
    let room = WIDTH - LABELS - 150.0;
    let place = |value: f64| LABELS + value / longest * room;
    let (mut y, mut body) = (4.0, String::new());
    for bar in bars {
        y += if bar.label.is_empty() { 2.0 } else { 12.0 };
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            body,
            "<text class='label' x='{}' y='{:.1}' text-anchor='end'>{}</text>\
             <rect x='{LABELS}' y='{y:.1}' width='{:.1}' height='{BAR}' fill='{}' rx='2'/>\
             <text class='mark' x='{:.1}' y='{:.1}'>{}</text>",
            LABELS - 8.0,
            middle + 4.0,
            bar.label,
            place(bar.value) - LABELS,
            bar.colour,
            place(bar.interval.map_or(bar.value, |i| i.1.max(bar.value))) + 8.0,
            middle + 4.0,
            bar.text
        );
        if let Some((low, high)) = bar.interval {
            let (low, high) = (place(low), place(high));
            let _ = writeln!(
                body,
                "<path class='interval' d='M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v8M{high:.1} {0:.1}v8'/>",
                middle - 4.0
            );
        }
        if let Some(mark) = bar.mark {
            let at = place(mark);
            let _ = writeln!(
                body,
                "<line class='{mark_class}' x1='{at:.1}' x2='{at:.1}' y1='{:.1}' y2='{:.1}'/>",
                y - 3.0,
                y + BAR + 3.0
            );
        }
        y += BAR;
    }
    if bars.is_empty() { String::new() } else { open(y + 12.0) + &body + "</svg>\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        let all = [0.5, 3.0, 64.0, 1500.0, 10_000.0, 1_000_000.0].map(short);
        assert_eq!(all, ["0.5", "3", "64", "1500", "10k", "1M"]);
        assert_eq!([nice_step(0.3), nice_step(7.0), nice_step(21.0)], [0.5, 10.0, 50.0]);
    }

    #[test]
    fn plots_hold_their_points_and_nothing_of_nothing() {
        let x = Axis { label: "x", scale: Scale::Log10 };
        let y = Axis { label: "y", scale: Scale::Linear };
        assert!(curves(&x, &y, &[]).is_empty() && bars(&[], "target").is_empty());
        let points = vec![(1.0, 2.0, false), (100.0, 4.0, true)];
        let text =
            curves(&x, &y, &[Curve { name: "a".into(), colour: "red", dash: "5 4", points }]);
        assert_eq!(text.matches("<circle").count(), 2);
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}
