//! Commands that the running daemon answers: those of `ovs-ofctl` about flows, and those of
//! `ovs-appctl`. They go over unixctl as text.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cli::Options;
use crate::commands::Exit;
use crate::suggest::did_you_mean;

/// A command about flows, sent as `ofctl/NAME`.
pub struct FlowCommand {
    /// Its name.
    pub name: &'static str,
    /// Its arguments as help shows them.
    pub usage: &'static str,
    /// Fewest and most arguments.
    pub args: (usize, usize),
    /// The argument that names a file, whose text is sent instead; `-` is standard input.
    pub file: Option<usize>,
}

/// The flow commands that are known; the daemon says which of them it can do.
#[rustfmt::skip]
pub const OFCTL: &[FlowCommand] = &[
    FlowCommand { name: "show", usage: "BRIDGE", args: (1, 1), file: None },
    FlowCommand { name: "dump-flows", usage: "BRIDGE [FLOW]", args: (1, 2), file: None },
    FlowCommand { name: "dump-aggregate", usage: "BRIDGE [FLOW]", args: (1, 2), file: None },
    FlowCommand { name: "dump-tables", usage: "BRIDGE", args: (1, 1), file: None },
    FlowCommand { name: "dump-ports", usage: "BRIDGE [PORT]", args: (1, 2), file: None },
    FlowCommand { name: "dump-ports-desc", usage: "BRIDGE [PORT]", args: (1, 2), file: None },
    FlowCommand { name: "add-flow", usage: "BRIDGE FLOW", args: (2, 2), file: None },
    FlowCommand { name: "add-flows", usage: "BRIDGE FILE", args: (2, 2), file: Some(1) },
    FlowCommand { name: "mod-flows", usage: "BRIDGE FLOW", args: (2, 2), file: None },
    FlowCommand { name: "del-flows", usage: "BRIDGE [FLOW]", args: (1, 2), file: None },
    FlowCommand { name: "replace-flows", usage: "BRIDGE FILE", args: (2, 2), file: Some(1) },
    FlowCommand { name: "diff-flows", usage: "BRIDGE FILE", args: (2, 2), file: Some(1) },
    FlowCommand { name: "bundle", usage: "BRIDGE FILE", args: (2, 2), file: Some(1) },
    FlowCommand { name: "add-group", usage: "BRIDGE GROUP", args: (2, 2), file: None },
    FlowCommand { name: "add-groups", usage: "BRIDGE FILE", args: (2, 2), file: Some(1) },
    FlowCommand { name: "mod-group", usage: "BRIDGE GROUP", args: (2, 2), file: None },
    FlowCommand { name: "del-groups", usage: "BRIDGE [GROUP]", args: (1, 2), file: None },
    FlowCommand { name: "insert-buckets", usage: "BRIDGE GROUP", args: (2, 2), file: None },
    FlowCommand { name: "remove-buckets", usage: "BRIDGE GROUP", args: (2, 2), file: None },
    FlowCommand { name: "dump-groups", usage: "BRIDGE [GROUP]", args: (1, 2), file: None },
    FlowCommand { name: "dump-group-stats", usage: "BRIDGE [GROUP]", args: (1, 2), file: None },
    FlowCommand { name: "add-meter", usage: "BRIDGE METER", args: (2, 2), file: None },
    FlowCommand { name: "mod-meter", usage: "BRIDGE METER", args: (2, 2), file: None },
    FlowCommand { name: "del-meter", usage: "BRIDGE METER", args: (2, 2), file: None },
    FlowCommand { name: "del-meters", usage: "BRIDGE [METER]", args: (1, 2), file: None },
    FlowCommand { name: "dump-meters", usage: "BRIDGE [METER]", args: (1, 2), file: None },
    FlowCommand { name: "meter-stats", usage: "BRIDGE [METER]", args: (1, 2), file: None },
    FlowCommand { name: "packet-out", usage: "BRIDGE PACKET-OUT", args: (2, 2), file: None },
    FlowCommand { name: "mod-port", usage: "BRIDGE PORT ACTION", args: (3, 3), file: None },
    FlowCommand { name: "get-frags", usage: "BRIDGE", args: (1, 1), file: None },
    FlowCommand { name: "set-frags", usage: "BRIDGE MODE", args: (2, 2), file: None },
    FlowCommand { name: "ct-flush", usage: "BRIDGE [ARG]...", args: (1, 4), file: None },
    FlowCommand { name: "ct-flush-zone", usage: "BRIDGE ZONE", args: (2, 2), file: None },
];

/// Commands whose last argument may be `-` for standard input (ovs-ofctl(8)).
const STANDARD_INPUT: &[&str] =
    &["add-flow", "mod-flows", "del-flows", "add-group", "mod-group", "del-groups"];

/// Options of the flow commands that the daemon is told.
const OFCTL_FLAGS: &[&str] = &[
    "--strict",
    "--names",
    "--no-names",
    "--stats",
    "--no-stats",
    "--bundle",
    "--rsort",
    "--sort",
    "--readd",
    "--more",
    "--may-create",
    "-m",
];

/// Largest file read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Exit status when the daemon refuses an operation, as of `ovs-appctl`.
const REFUSED: u8 = 2;

/// Where a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The configuration database.
    Database,
    /// The daemon, about flows.
    Flows,
    /// The daemon, as it stands.
    Operations,
}

/// The family of a command; `arguments` is how many words follow it.
pub fn family(name: &str, arguments: usize) -> Family {
    match name {
        "version" | "list-commands" | "exit" => Family::Operations,
        _ if name.contains('/') => Family::Operations,
        // Without a bridge it is the one that prints the configuration.
        "show" if arguments == 0 => Family::Database,
        _ if OFCTL.iter().any(|command| command.name == name) => Family::Flows,
        _ => Family::Database,
    }
}

/// True for options of the flow commands.
pub fn is_option(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    OFCTL_FLAGS.contains(&name)
}

/// Sends a flow command; `words` begins with its name.
pub fn run_flows(options: &Options, first_options: Vec<String>, words: &[String]) -> Result<()> {
    let name = &words[0];
    let command = OFCTL.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| anyhow!("unknown command \"{name}\""))?;
    let (mut told, mut args) = (first_options, Vec::new());
    let mut rest = words[1..].iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            // Versions of OpenFlow: text has none.
            "-O" | "-F" | "--protocols" | "--flow-format" => drop(rest.next()),
            _ if is_ignored(word) => {}
            _ if is_option(word) => told.push(word.clone()),
            "--" => bail!("{name} cannot be joined with other commands by --; run it by itself"),
            _ if word.starts_with("--") => {
                let known = OFCTL_FLAGS.iter().copied();
                bail!("command {name} has no option {word}{}", did_you_mean(word, known));
            }
            _ => args.push(word.clone()),
        }
    }
    let (min, max) = command.args;
    if !(min..=max).contains(&args.len()) {
        let what = if args.len() < min { "too few" } else { "too many" };
        bail!("{what} arguments to {name}; usage: {name} {}", command.usage);
    }
    if let Some(file) = command.file {
        args[file] = read_file(&args[file])?;
    } else if STANDARD_INPUT.contains(&name.as_str())
        && let Some(last) = args.last_mut().filter(|last| *last == "-")
    {
        *last = read_file("-")?;
    }
    told.extend(args);
    match call(options, &format!("ofctl/{name}"), &told)? {
        Ok(text) => print(&text),
        Err(text) => {
            eprintln!("vswitchctl: {name}: {}", text.trim_end());
            Err(Exit(1).into())
        }
    }
}

fn is_ignored(word: &str) -> bool {
    ["-O", "-F", "--protocols=", "--flow-format=", "--color"].iter().any(|o| word.starts_with(o))
}

/// Sends a command of the `ovs-appctl` family as it stands.
pub fn run_operation(options: &Options, words: &[String]) -> Result<()> {
    match call(options, &words[0], &words[1..])? {
        Ok(text) => print(&text),
        Err(text) => {
            eprintln!("vswitchctl: {}", text.trim_end());
            Err(Exit(REFUSED).into())
        }
    }
}

fn call(options: &Options, method: &str, args: &[String]) -> Result<Result<String, String>> {
    let path = socket(options)?;
    let mut client = match unixctl::Client::connect(&path) {
        Ok(client) => client,
        Err(unixctl::Error::Connect { path, source }) => bail!(
            "cannot reach vswitchd at {}: {source}; it is not running any more, start it again",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    };
    client.set_timeout(options.timeout)?;
    match client.call(method, args) {
        // The daemon may be gone before its answer to this one.
        Err(unixctl::Error::Closed { .. }) if method == "exit" => Ok(Ok(String::new())),
        answer => Ok(answer?),
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("standard output")
}

/// The daemon's control socket.
fn socket(options: &Options) -> Result<PathBuf> {
    if let Some(target) = options.target.as_deref().filter(|target| target.contains('/')) {
        return Ok(target.into());
    }
    let pid_file = options.rundir.join("vswitchd.pid");
    let pid = match fs::read_to_string(&pid_file) {
        Ok(pid) => pid,
        Err(error) => bail!(
            "vswitchd is not running in {} ({}: {error}); start it, or say where it runs with \
             --rundir DIR",
            options.rundir.display(),
            pid_file.display()
        ),
    };
    match pid.trim().parse::<u32>() {
        Ok(pid) => Ok(options.rundir.join(format!("vswitchd.{pid}.ctl"))),
        Err(_) => bail!("{}: not a process number; is vswitchd running?", pid_file.display()),
    }
}

fn read_file(name: &str) -> Result<String> {
    let mut text = String::new();
    let read = match name {
        "-" => std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text),
        _ => fs::File::open(Path::new(name))
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    let shown = if name == "-" { "standard input" } else { name };
    let bytes = read.with_context(|| shown.to_owned())?;
    if bytes as u64 > FILE_BYTES_MAX {
        bail!("{shown}: larger than {} MiB; cut it into several files", FILE_BYTES_MAX >> 20);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        assert_eq!(family("show", 0), Family::Database);
        assert_eq!(family("show", 1), Family::Flows);
        assert_eq!(family("add-port", 2), Family::Database);
        assert_eq!(family("add-flow", 2), Family::Flows);
        assert_eq!(family("dpif/show", 0), Family::Operations);
        assert_eq!(family("version", 0), Family::Operations);
    }
}
