//! The report: one HTML file that needs nothing else.

mod plots;
mod sizes;
mod svg;
mod tables;

use super::outcome::Place;
use super::results::Results;
use super::scenario::Group;
use super::system::Kind;

/// Colours of the systems.
fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "#1d5fd0",
        Kind::Before => "#7a9fd8",
        Kind::OvsDpdk => "#d97a06",
        Kind::DpdkIo => "#8a929c",
    }
}

/// What a system is called.
fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "this switch",
        Kind::Before => "another build",
        Kind::OvsDpdk => "OVS-DPDK",
        Kind::DpdkIo => "DPDK, no switch",
    }
}

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;color:#1c2733;max-width:900px;margin:32px auto;padding:0 20px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:38px 0 6px;border-bottom:1px solid #dde3ea;padding-bottom:4px}
p{margin:6px 0 10px}.sub{color:#5b6875}
.cards{display:flex;flex-wrap:wrap;gap:14px;margin:20px 0}
.card{border:1px solid #dde3ea;border-radius:8px;padding:12px 16px;min-width:180px;flex:1}
.card b{display:block;font-size:26px;line-height:1.2}.card span{color:#5b6875;font-size:13px}
table{border-collapse:collapse;font-size:13.5px;margin:10px 0;width:100%}
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid #e6ebf0;font-variant-numeric:tabular-nums}
td:last-child{white-space:nowrap}th{color:#5b6875;font-weight:600}th:first-child,td:first-child{text-align:left}
tr.other td{color:#7a8591}
svg{max-width:100%;height:auto;display:block;margin:8px 0}svg text{font:12px system-ui,sans-serif;fill:#1c2733}
svg .mark{fill:#44505c}svg .axis{fill:#5b6875}svg .grid{stroke:#e6ebf0}
svg .interval{stroke:#111;stroke-width:1.3;fill:none}svg .target{stroke:#c01530;stroke-width:2;stroke-dasharray:3 2}
svg .quartile{stroke:#111;stroke-width:2}
.key{display:inline-block;width:12px;height:12px;border-radius:2px;margin:0 5px 0 14px;vertical-align:-1px}
.good{color:#0a7d33}.bad{color:#c01530}";

/// The whole page.
pub fn page(results: &Results) -> String {
    let mut body = String::new();
    body += &head(results);
    body += &cards(results);
    section(
        &mut body,
        "Packets a second, for each one of OVS-DPDK",
        RATIOS,
        &plots::ratios(results),
    );
    section(
        &mut body,
        "Cycles a packet",
        &format!("{CYCLES}{}", keys(results)),
        &plots::cycles(results),
    );
    section(&mut body, "Where the cycles go", STAGES, &plots::stages(results));
    let curves = results.latencies.iter().filter(|o| o.scenario.group == Group::Latency);
    for outcome in curves {
        let title = format!("Latency: {}", outcome.scenario.describe());
        let intro = format!(
            "{LATENCY} The offered loads are 10 to 90 % of the {:.2} Mpps that {} forwards of this load.",
            outcome.reference_pps / 1e6,
            self::title(outcome.reference)
        );
        section(
            &mut body,
            &title,
            &intro,
            &(plots::latency(outcome) + &tables::half_load(outcome)),
        );
    }
    section(&mut body, "Bursts and pauses", BURSTS, &tables::bursts(results));
    section(&mut body, "Settings of ports", SETTINGS, &tables::settings(results));
    section(&mut body, "Frame length", "", &tables::frames(results));
    section(&mut body, "Flows", FLOWS, &plots::flows(results));
    section(&mut body, "Megaflow masks", MASKS, &plots::masks(results));
    section(&mut body, "Idle ports", PORTS, &(plots::ports(results) + &tables::memory(results)));
    section(&mut body, "Message sizes, between virtual machines", SIZES, &sizes::all(results));
    section(&mut body, "All scenarios", ALL, &tables::all(results));
    if results.has_windows() {
        section(&mut body, "How it was measured", "", &notes(results));
    }
    format!(
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>Switch benchmark</title>\
         <style>{STYLE}</style></head><body>\n{body}</body></html>\n"
    )
}

const RATIOS: &str =
    "Median of pairs of windows, with its 95 % interval. The dashed line is what is to be reached.";
const CYCLES: &str = "Time-stamp counter cycles of the polling thread for each packet while it had packets: the bar is the \
    median over all windows, the line its lower quartile. ";
const STAGES: &str = "Cycles a packet by stage of its way through this switch, which times one burst in 64; 64 bytes, one flow each way.";
const LATENCY: &str = "From the time at which a frame was due, whether or not it could be sent then. One way, medians over windows.";
const BURSTS: &str = "Frames of 64 bytes, one way, that come so many at a time at the same average rate: 10, 30 and 50 % of what \
    OVS-DPDK forwards at most. Latency from the time at which a frame was due; cycles of the polling thread while it had packets.";
const SETTINGS: &str = "Cycles a packet of the polling thread, and how many more they are than without the settings; a mirrored packet is \
    one packet, its copy included. Copies are what the mirror's guest took.";
const FLOWS: &str = "Microflows each way through one NORMAL flow. Solid: each in turn; dashed: by popularity (zipf).";
const MASKS: &str =
    "As many megaflow masks in use, each by one flow in turn, exact-match caches off.";
const PORTS: &str =
    "Two ports are busy; the others have a guest each that is connected and silent.";
const SIZES: &str = "qperf between two QEMU guests on one machine. Their processors are emulated and share a core, which is most of \
    what is measured: the systems can be compared, the figures are not those of a real machine. Both \
    switches take TCP segments whole (userspace TSO). Medians; latency is half of a round trip, bandwidth what arrives.";
const ALL: &str = "Megapackets a second and cycles a packet. Where the host moved the cores during a scenario, the rounds \
    there stand in a grey row of their own. * the load had less than 5 % of its time to spare, so the system may be faster than this.";

/// Adds a section unless there is nothing to show.
fn section(body: &mut String, title: &str, intro: &str, content: &str) {
    if !content.is_empty() {
        *body += &format!("<h2>{title}</h2>\n<p class='sub'>{intro}</p>\n{content}");
    }
}

fn keys(results: &Results) -> String {
    let key = |&kind: &Kind| {
        format!("<span class='key' style='background:{}'></span>{}", colour(kind), title(kind))
    };
    results.systems.iter().map(key).collect()
}

fn head(results: &Results) -> String {
    let windows = match results.has_windows() {
        true => {
            format!(
                " {} rounds of {:.2} s windows a scenario.",
                results.rounds, results.window_seconds
            )
        }
        false => String::new(),
    };
    format!(
        "<h1>Guest to guest, beside OVS-DPDK</h1>\n<p class='sub'>{}, two cores, Linux {}; one polls, the other is both \
         guests.{windows}</p>\n",
        results.processor, results.kernel
    )
}

fn card(value: &str, what: &str) -> String {
    format!("<div class='card'><b>{value}</b><span>{what}</span></div>\n")
}

fn cards(results: &Results) -> String {
    let mut out = String::new();
    if let Some(outcome) = results.rate("64b") {
        let place = outcome.main.place;
        if let Some(pps) = outcome.main.ratio_to(Kind::OvsDpdk).and_then(|r| r.pps) {
            let what = format!(
                "times the packets of OVS-DPDK, 64 bytes, one flow ({:.2} to {:.2}; cores {place})",
                pps.low, pps.high
            );
            out += &card(&format!("{:.2} ×", pps.value), &what);
        }
        let cycles = |kind| outcome.main.figures_of(kind).and_then(|f| f.cycles_per_packet);
        if let Some(own) = cycles(results.systems[0]) {
            let others = results.systems[1..]
                .iter()
                .filter_map(|&k| Some(format!("{} {:.0}", title(k), cycles(k)?)));
            let others: Vec<String> = others.collect();
            out += &card(&format!("{own:.0}"), &format!("cycles a packet; {}", others.join(", ")));
        }
    }
    if let Some(latency) = results.latencies.iter().find(|o| o.scenario.group == Group::Latency) {
        let p99 = |kind| latency.half_load(kind).map(|p| p.p99_us);
        if let (Some(own), Some(other)) = (p99(Kind::Ours), p99(Kind::OvsDpdk)) {
            out += &card(
                &format!("{own:.1} µs"),
                &format!("p99 at half of OVS-DPDK's load; OVS-DPDK {other:.1} µs"),
            );
        }
    }
    if let Some(kb) = results.idle_port_kb(Kind::Ours) {
        out += &card(&format!("{kb:.0} KB"), "private memory for each further idle port");
    }
    if out.is_empty() { out } else { format!("<div class='cards'>{out}</div>\n") }
}

fn notes(results: &Results) -> String {
    let mut notes = vec![
        "Each system polls one core; on the other core one thread is the guests on both ports of each, a virtio driver that \
         writes its frames once and then only moves ring entries. The systems that are not being measured are stopped."
            .to_owned(),
        "Windows of a fraction of a second alternate, and the order turns from round to round. A ratio is the median of the \
         ratios of windows that stand side by side; its interval comes from drawing the pairs anew 10,000 times."
            .to_owned(),
        format!(
            "{} windows count. {} were discarded and taken again: something else had a core for over 3 % of the time, the \
             host took over 10 %, a thread stood still, or the cores were moved within a round.",
            results.counted(),
            results.discarded()
        ),
        "The host of a virtual machine moves its cores: at times they share a cache (near: a line goes there and back in 200 \
         to 300 cycles), at times not (far: 800 to 900), and then every figure changes. The time is taken before each window. \
         Figures are of the place in which more rounds were; hollow dots are far."
            .to_owned(),
    ];
    if results.systems.contains(&Kind::DpdkIo) {
        let floor = "DPDK without a switch is testpmd in io mode between two of DPDK's vhost devices. It looks at no header and no table.";
        notes.push(floor.to_owned());
    }
    if let Some(noise) = &results.noise
        && let Some(pps) = noise.main.ratios.first().and_then(|r| r.pps)
    {
        notes.push(format!(
            "Noise: OVS-DPDK against itself in the same way gave {:.3} ({:.3} to {:.3}), cores {}.",
            pps.value, pps.low, pps.high, noise.main.place
        ));
    }
    if let Some(load) =
        results.rate("64b").and_then(|o| o.main.figures.first()?.load_cycles_per_packet)
    {
        notes.push(format!("The load itself took {load:.0} cycles for each 64-byte packet, received and sent again."));
    }
    let far = results.rates.iter().filter(|o| o.main.place == Place::Far).count();
    notes.push(format!(
        "The cores were far in most rounds of {far} of {} scenarios.",
        results.rates.len()
    ));
    let items: String = notes.iter().map(|note| format!("<li>{note}</li>\n")).collect();
    format!("<ul>{items}</ul>\n")
}
