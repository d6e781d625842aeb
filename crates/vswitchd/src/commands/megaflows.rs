//! Commands about megaflows: `dpctl/dump-flows` and `dpif/dump-flows`.

use super::datapath::{check_datapath, threads};
use crate::daemon::{Shared, locked};
use ::datapath::{FlowState, FlowStats, Megaflow};
use flow::{DpPort, odp};
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
}

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("dpctl/dump-flows", "[-m] [--names] [pmd=core] [dp]", 0..=4, move |a| {
        let (options, words) = options(a)?;
        words.iter().try_for_each(|word| check_datapath(word))?;
        Ok(dump(&s, &options, None))
    });
    let s = switch.clone();
    c.add("dpif/dump-flows", "[-m] [--names] bridge", 1..=4, move |a| {
        let (options, words) = options(a)?;
        let [bridge] = words[..] else { return Err("dpif/dump-flows: name one bridge".into()) };
        if !locked(&s).pipeline.bridges().contains(bridge) {
            return Err(format!("no such bridge \"{bridge}\""));
        }
        Ok(dump(&s, &options, Some(bridge)))
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
            w => match w.strip_prefix("pmd=") {
                Some(core) => {
                    let number = core.parse().map_err(|_| format!("pmd={core}: not a core number"));
                    options.core = Some(number?);
                }
                None if w.starts_with('-') => return Err(format!("unknown option {w}")),
                None => words.push(word),
            },
        }
    }
    Ok((options, words))
}

fn dump(switch: &Shared, options: &Options, bridge: Option<&str>) -> String {
    // Copy what is needed, so that the switch is not held while a long text is made.
    let threads = threads(switch, options.core);
    let (names, ports, now_ms) = {
        let s = locked(switch);
        let names: HashMap<u32, String> =
            s.running.iter().map(|(name, r)| (r.dp.0, name.clone())).collect();
        let of = |b: &str| s.running.values().filter(|r| r.bridge == b).map(|r| r.dp.0).collect();
        let ports: Option<Vec<u32>> = bridge.map(of);
        (names, ports, s.clock.now_ms())
    };
    let name = |p: DpPort| match names.get(&p.0).filter(|_| options.names) {
        Some(name) => name.clone(),
        None => p.0.to_string(),
    };
    let wanted = |f: &&Arc<Megaflow>| {
        f.state() == FlowState::Live && ports.as_ref().is_none_or(|p| p.contains(&f.origin.in_port))
    };
    let mut out = String::new();
    for t in threads {
        let mut header = bridge.is_none();
        for flow in t.thread.registry.flows().iter().filter(wanted) {
            if std::mem::take(&mut header) {
                out += &format!("flow-dump from pmd on cpu core: {}\n", t.core);
            }
            if options.more {
                out += &format!("{}, ", ufid(flow, t.core));
            }
            out += &line(flow, &name, now_ms, if options.more { ", dp:ovs" } else { "" });
        }
    }
    out
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
