//! vswitchctl: the command line of the switch. It has the commands of `ovs-vsctl` (a client of the
//! configuration database), of `ovs-ofctl` and of `ovs-appctl` (sent to the daemon as text).
#![forbid(unsafe_code)]

mod bond;
mod bridge;
mod capture;
mod cli;
mod commands;
mod controller;
mod daemon;
mod database;
mod flow_commands;
mod flow_options;
mod flows;
mod help;
mod port;
mod progress;
mod records;
mod session;
mod show;
mod suggest;
mod table;
mod text;
mod view;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};

use cli::Request;
use commands::Exit;
use daemon::Family;

fn main() -> ExitCode {
    let error = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    if let Some(Exit(status)) = error.downcast_ref::<Exit>() {
        return ExitCode::from(*status);
    }
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    // One line, whatever the pieces it is made of.
    let line = format!("{error:#}").replace('\n', " ");
    eprintln!("vswitchctl: {line}");
    ExitCode::FAILURE
}

/// Whoever read our output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    let output = error.to_string() == "standard output";
    output && io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run() -> Result<()> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments
        .map(|word| word.into_string().map_err(|word| anyhow!("{word:?} is not UTF-8 text")))
        .collect::<Result<_>>()?;
    let rundir = std::env::var_os("VSWITCH_RUNDIR").filter(|dir| !dir.is_empty());
    let (options, first_options, words) = match cli::parse(arguments, rundir.map(Into::into))? {
        Request::Help(None) => return print(&help::all()),
        Request::Help(Some(command)) => return print(&help::about(&command)?),
        Request::Version => return print(concat!("vswitchctl ", env!("CARGO_PKG_VERSION"), "\n")),
        Request::Run { options, first_options, words } => (options, first_options, words),
    };
    match daemon::family(&words[0], words.len() - 1) {
        Family::Capture => capture::run(&options, &words),
        Family::Flows => flows::run(&options, first_options, &words),
        Family::Operations => daemon::run_operation(&options, &words),
        Family::Database => {
            let calls = cli::split_commands(first_options, words)?;
            session::run(&options, &calls)
        }
    }
}

fn print(text: &str) -> Result<()> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}
