//! What `vswitchctl` offers of `ovs-ofctl`: `ofctl/NAME` with options and arguments as there.

mod bundle;
mod diff;
mod explain;
mod flows;
mod groups;
mod hint;
mod lines;
mod meters;
mod names;
mod options;
mod packet_out;
mod ports;
mod queues;
mod replace;
mod sort;

use super::Answer;
use crate::daemon::{Shared, locked};
use openflow::{ParseError, PortNames};
use options::Options;
use pipeline::Pipeline;
use std::ops::RangeInclusive;
use std::sync::Arc;
use unixctl::Commands;

pub(crate) use names::BridgeNames;

/// Options that a command may have: what `Commands` is told, which counts all words.
const OPTIONS_MAX: usize = 64;

/// A command that was called.
struct Call<'a> {
    switch: &'a Shared,
    options: Options,
    /// Its arguments; of most, the first is the bridge.
    args: Vec<&'a str>,
    pipeline: Arc<Pipeline>,
    now_ms: u64,
    names: BridgeNames,
}

impl<'a> Call<'a> {
    fn new(switch: &'a Shared, words: &'a [String]) -> Result<Call<'a>, String> {
        let (options, args) = Options::take(words)?;
        let (pipeline, now_ms) = super::at(switch);
        let names = BridgeNames::default();
        Ok(Call { switch, options, args, pipeline, now_ms, names })
    }

    /// Looks the first argument up.
    fn with_bridge(mut self) -> Result<Call<'a>, String> {
        let bridge = self.bridge();
        let ports = self.pipeline.ports(bridge);
        let ports = ports.map_err(|_| format!("{bridge} is not a bridge"))?;
        self.names = BridgeNames::new(ports);
        Ok(self)
    }

    /// The first argument.
    fn bridge(&self) -> &'a str {
        self.args.first().copied().unwrap_or_default()
    }

    /// The argument after the bridge, empty if there is none.
    fn text(&self) -> &'a str {
        self.args.get(1).copied().unwrap_or_default()
    }

    /// Names for reading flows.
    fn reading(&self) -> &dyn PortNames {
        self.names.read(self.options.names)
    }

    /// Names for printing flows.
    fn printing(&self) -> &dyn PortNames {
        self.names.print(self.options.names)
    }
}

type Run = fn(&Call<'_>) -> Answer;

/// Name, arguments as help shows them, how many, what it does.
type Row = (&'static str, &'static str, RangeInclusive<usize>, Run);

/// Commands whose first argument is a bridge.
#[rustfmt::skip]
const OF_BRIDGE: &[Row] = &[
    ("add-flow", "bridge flow", 2..=2, flows::add),
    ("add-flows", "bridge flows", 2..=2, flows::add),
    ("mod-flows", "[--strict] bridge flow", 2..=2, flows::modify),
    ("del-flows", "[--strict] bridge [flow]", 1..=2, flows::delete),
    ("replace-flows", "bridge flows", 2..=2, replace::run),
    ("dump-flows", "[--names] [--no-stats] [--sort[=field]] bridge [flow]", 1..=2, flows::dump),
    ("dump-aggregate", "bridge [flow]", 1..=2, flows::aggregate),
    ("dump-tables", "bridge", 1..=1, flows::tables),
    ("dump-table-features", "bridge", 1..=1, |_| later("OpenFlow 1.3")),
    ("dump-table-desc", "bridge", 1..=1, flows::table_desc),
    ("mod-table", "bridge table setting", 3..=3, flows::mod_table),
    ("add-group", "bridge group", 2..=2, groups::add),
    ("add-groups", "bridge groups", 2..=2, groups::add),
    ("mod-group", "[--may-create] bridge group", 2..=2, groups::modify),
    ("del-groups", "bridge [group]", 1..=2, groups::delete),
    ("insert-buckets", "bridge group", 2..=2, groups::insert),
    ("remove-buckets", "bridge group", 2..=2, groups::remove),
    ("dump-groups", "bridge [group]", 1..=2, groups::dump),
    ("dump-group-stats", "bridge [group]", 1..=2, groups::stats),
    ("dump-group-features", "bridge", 1..=1, |_| Ok(groups::features())),
    ("add-meter", "bridge meter", 2..=2, meters::add),
    ("mod-meter", "bridge meter", 2..=2, meters::modify),
    ("del-meter", "bridge [meter]", 1..=2, meters::delete),
    ("del-meters", "bridge [meter]", 1..=2, meters::delete),
    ("dump-meter", "bridge meter", 2..=2, meters::dump),
    ("dump-meters", "bridge [meter]", 1..=2, meters::dump),
    ("meter-stats", "bridge [meter]", 1..=2, meters::stats),
    ("meter-features", "bridge", 1..=1, |_| Ok(meters::features())),
    ("bundle", "bridge changes", 2..=2, bundle::run),
    ("packet-out", "bridge packet-out | bridge in_port actions packet...", 2..=OPTIONS_MAX, packet_out::run),
    ("show", "bridge", 1..=1, ports::show),
    ("dump-desc", "bridge", 1..=1, |_| Ok(ports::desc())),
    ("dump-ports", "bridge [port]", 1..=2, ports::stats),
    ("dump-ports-desc", "bridge [port]", 1..=2, ports::dump_desc),
    ("mod-port", "bridge port action", 3..=3, ports::modify),
    ("queue-stats", "bridge [port [queue]]", 1..=3, queues::stats),
    ("queue-get-config", "bridge [port [queue]]", 1..=3, queues::config),
    ("get-frags", "bridge", 1..=1, |_| Ok("normal\n".to_owned())),
    ("set-frags", "bridge mode", 2..=2, set_frags),
    ("add-tlv-map", "bridge map", 2..=2, |_| later("tunnels")),
    ("del-tlv-map", "bridge [map]", 1..=2, |_| later("tunnels")),
    ("dump-tlv-map", "bridge", 1..=1, |_| later("tunnels")),
    ("ct-flush", "bridge [arg]...", 1..=4, |_| later("connection tracking")),
    ("ct-flush-zone", "bridge zone", 2..=2, |_| later("connection tracking")),
    ("monitor", "bridge [arg]...", 1..=OPTIONS_MAX, follow),
    ("snoop", "bridge", 1..=1, follow),
];

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    for (name, usage, args, run) in OF_BRIDGE {
        let s = switch.clone();
        c.add(&format!("ofctl/{name}"), usage, 0..=usize::MAX, move |words| {
            let call = Call::new(&s, words)?;
            check_count(name, args, call.args.len())?;
            run(&call.with_bridge()?)
        });
    }
    let s = switch.clone();
    c.add("ofctl/diff-flows", "source source", 0..=usize::MAX, move |words| {
        let call = Call::new(&s, words)?;
        check_count("diff-flows", &(4..=4), call.args.len())?;
        diff::run(&call)
    });
}

/// What is wrong with a match that is an argument.
pub(super) fn explain_argument(text: &str, error: ParseError) -> String {
    explain::parse_error(explain::Origin { file: None, line: 1 }, text, error)
}

/// In the words of `ovs-ofctl`.
fn check_count(name: &str, args: &RangeInclusive<usize>, given: usize) -> Result<(), String> {
    let (min, max) = (args.start(), args.end());
    if given < *min {
        return Err(format!("'{name}' command requires at least {min} arguments"));
    }
    if given > *max {
        return Err(format!("'{name}' command takes at most {max} arguments"));
    }
    Ok(())
}

/// What comes with a later step.
fn later(with: &str) -> Answer {
    Err(format!("this is not possible yet: it comes with {with}"))
}

fn follow(call: &Call<'_>) -> Answer {
    let bridge = call.bridge();
    Err(format!(
        "this is not possible yet: it comes with OpenFlow; until then \"ofproto/packet-ins \
         {bridge}\" prints what controllers would get"
    ))
}

fn set_frags(call: &Call<'_>) -> Answer {
    match call.text() {
        "normal" => Ok(String::new()),
        mode @ ("drop" | "reassemble" | "nx-match") => {
            Err(format!("{}: fragment handling mode \"{mode}\" is not supported", call.bridge()))
        }
        mode => Err(format!("{mode}: unknown fragment handling mode")),
    }
}

/// Answers nothing.
fn done<E>(result: Result<(), E>) -> Result<String, E> {
    result.map(|()| String::new())
}
