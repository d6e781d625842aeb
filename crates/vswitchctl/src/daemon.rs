//! Commands that the running daemon answers, and how they reach it: over unixctl, as text.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cli::Options;
use crate::commands::Exit;
use crate::flow_commands;

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
    /// The daemon, for as long as packets are wanted.
    Capture,
}

/// The family of a command; `arguments` is how many words follow it.
pub fn family(name: &str, arguments: usize) -> Family {
    match name {
        "capture" => Family::Capture,
        _ if is_operation(name) => Family::Operations,
        // Without a bridge it is the one that prints the configuration.
        "show" if arguments == 0 => Family::Database,
        _ if flow_commands::find(name).is_some() => Family::Flows,
        _ => Family::Database,
    }
}

/// Whether a command is of the `ovs-appctl` family.
pub fn is_operation(name: &str) -> bool {
    name.contains('/') || matches!(name, "version" | "list-commands" | "exit")
}

/// Sends a command of the `ovs-appctl` family as it stands.
pub fn run_operation(options: &Options, words: &[String]) -> Result<()> {
    match call(options, options.timeout, &words[0], &words[1..])? {
        Ok(text) => print(&text),
        Err(text) => {
            eprintln!("vswitchctl: {}", text.trim_end());
            Err(Exit(REFUSED).into())
        }
    }
}

/// Asks the daemon. The inner result is its answer, or why it refuses.
///
/// # Errors
/// If it cannot be reached, or is silent for `timeout`.
pub fn call(
    options: &Options,
    timeout: Option<Duration>,
    method: &str,
    args: &[String],
) -> Result<Result<String, String>> {
    let path = socket(options)?;
    let mut client = match unixctl::Client::connect(&path) {
        Ok(client) => client,
        Err(unixctl::Error::Connect { path, source }) => bail!(
            "cannot reach vswitchd at {}: {source}; it is not running any more, start it again",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    };
    client.set_timeout(timeout)?;
    match client.call(method, args) {
        // The daemon may be gone before its answer to this one.
        Err(unixctl::Error::Closed { .. }) if method == "exit" => Ok(Ok(String::new())),
        answer => Ok(answer?),
    }
}

/// Prints to standard output.
pub fn print(text: &str) -> Result<()> {
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
        assert_eq!(family("capture", 1), Family::Capture);
    }
}
