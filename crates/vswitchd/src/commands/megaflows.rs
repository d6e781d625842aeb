//! Commands about megaflows: `dpctl/dump-flows` and `dpif/dump-flows`.

use super::Answer;
use super::datapath::{check_datapath, threads};
use crate::daemon::{Shared, locked};
use ::datapath::{FlowState, FlowStats, Megaflow};
use flow::{DpPort, odp};
use openflow::{FullKey, Match, OfPort, PortNames};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use unixctl::Commands;

/// What to print.
#[derive(Debug, Default)]
struct Options {
    /// `-m`: with each flow's unique ID.
    more: bool,
    /// `--names`: ports by name.
    names: bool,
    /// `pmd=CORE`: of this thread only.
    core: Option<usize>,
    /// `filter=MATCH`: those whose packets match; ports are the datapath's.
    filter: Option<String>,
    /// `type=…` asks for flows in a place where none are.
    elsewhere: bool,
}

/// `type=`: where flows may be, and whether they are there.
const TYPES: &[(&str, bool)] = &[
    ("all", true),
    ("ovs", true),
    ("non-offloaded", true),
    ("tc", false),
    ("dpdk", false),
    ("offloaded", false),
    ("partially-offloaded", false),
];

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    let usage = "[-m] [--names] [dp] [filter=..] [type=..] [pmd=..]";
    c.add("dpctl/dump-flows", usage, 0..=6, move |a| {
        let (options, words) = options(a)?;
        words.iter().try_for_each(|word| check_datapath(word))?;
        dump(&s, &options, None)
    });
    let s = switch.clone();
    c.add("dpif/dump-flows", "[-m] [--names | --no-names] bridge", 1..=4, move |a| {
        let (options, words) = options(a)?;
        let [bridge] = words[..] else { return Err("dpif/dump-flows: name one bridge".into()) };
        if !locked(&s).pipeline.bridges().contains(bridge) {
            return Err(format!("no such bridge \"{bridge}\""));
        }
        dump(&s, &options, Some(bridge))
    });
}

/// The options among `args`, and the other words.
fn options(args: &[String]) -> Result<(Options, Vec<&String>), String> {
    let mut options = Options::default();
    let mut words = Vec::new();
    for word in args {
        match &**word {
            "-m" | "--more" => options.more = true,
            "--names" => options.names = true,
            "--no-names" => options.names = false,
            w => match w.split_once('=') {
                Some(("pmd", core)) => {
                    let number = core.parse().map_err(|_| format!("pmd={core}: not a core number"));
                    options.core = Some(number?);
                }
                Some(("filter", text)) => options.filter = Some(text.to_owned()),
                Some(("type", name)) => {
                    let row = TYPES.iter().find(|(t, _)| *t == name);
                    let (_, here) = row.ok_or_else(|| format!("Failed to parse type ({name})"))?;
                    options.elsewhere = !here;
                }
                _ if w.starts_with('-') => return Err(format!("unknown option {w}")),
                _ => words.push(word),
            },
        }
    }
    Ok((options, words))
}

fn dump(switch: &Shared, options: &Options, bridge: Option<&str>) -> Answer {
    // Copy what is needed, so that the switch is not held while a long text is made.
    let threads = threads(switch, options.core);
    let (names, ports, now_ms) = {
        let s = locked(switch);
        let ports = s.running.iter().map(|(name, r)| (r.dp.0, name.clone()));
        let locals = s.locals.iter().map(|(name, dp)| (dp.0, name.clone()));
        let names: HashMap<u32, String> = ports.chain(locals).collect();
        let of = |b: &str| s.running.values().filter(|r| r.bridge == b).map(|r| r.dp.0).collect();
        let ports: Option<Vec<u32>> = bridge.map(of);
        (names, ports, s.clock.now_ms())
    };
    let name = |p: DpPort| match names.get(&p.0).filter(|_| options.names) {
        Some(name) => name.clone(),
        None => p.0.to_string(),
    };
    let filter = options.filter.as_deref().map(|text| filter(text, &names)).transpose()?;
    let wanted = |f: &&Arc<Megaflow>| {
        f.state() == FlowState::Live
            && !options.elsewhere
            && ports.as_ref().is_none_or(|p| p.contains(&f.origin.in_port))
            && filter.as_ref().is_none_or(|m| passes(m, f))
    };
    let mut out = String::new();
    for t in threads {
        let mut header = bridge.is_none();
        for flow in t.thread.registry.flows().iter().filter(wanted) {
            if std::mem::take(&mut header) {
                out += &match t.is_worker() {
                    true => "flow-dump from the main thread:\n".to_owned(),
                    false => format!("flow-dump from pmd on cpu core: {}\n", t.core),
                };
            }
            if options.more {
                out += &format!("{}, ", ufid(flow, t.core));
            }
            out += &line(flow, &name, now_ms, if options.more { ", dp:ovs" } else { "" });
        }
    }
    Ok(out)
}

/// The datapath's ports, by their names.
struct DpNames<'a>(&'a HashMap<u32, String>);

impl PortNames for DpNames<'_> {
    fn name(&self, port: OfPort) -> Option<&str> {
        self.0.get(&port.0.into()).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<OfPort> {
        let (number, _) = self.0.iter().find(|(_, n)| *n == name)?;
        u16::try_from(*number).ok().map(OfPort)
    }
}

fn filter(text: &str, names: &HashMap<u32, String>) -> Result<Match, String> {
    let parsed = openflow::parse_match(text, &DpNames(names));
    parsed.map_err(|e| format!("Failed to parse filter ({e})"))
}

/// True if what the flow's packets have in common is within the filter.
fn passes(filter: &Match, f: &Megaflow) -> bool {
    let key = FullKey::new(&f.key(), f.origin.in_port);
    filter.mask.agrees(&key, &filter.value)
}

/// A name for the flow: the same as long as it lives, and no other's.
fn ufid(f: &Megaflow, core: usize) -> String {
    let half = |n: u8| {
        let mut hasher = DefaultHasher::new();
        (n, core, f.key().words(), f.wildcards.bits().words()).hash(&mut hasher);
        hasher.finish()
    };
    let (a, b) = (half(0), half(1));
    let (a1, a2, a3) = (a >> 32, a >> 16 & 0xffff, a & 0xffff);
    format!("ufid:{a1:08x}-{a2:04x}-{a3:04x}-{:04x}-{:012x}", b >> 48, b & 0xffff_ffff_ffff)
}

fn line(f: &Megaflow, name: odp::PortText<'_>, now_ms: u64, more: &str) -> String {
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
        "{}, packets:{packets}, bytes:{bytes}, used:{used}{flags}{more}, actions:{}\n",
        odp::format_match(&f.key(), &f.wildcards, name),
        odp::format_actions(&f.actions, name)
    )
}

/// TCP flags as OVS abbreviates them.
fn tcp_flag_letters(flags: u16) -> String {
    "FSRP.UEC".chars().enumerate().filter(|(i, _)| flags & 1 << i != 0).map(|(_, c)| c).collect()
}
