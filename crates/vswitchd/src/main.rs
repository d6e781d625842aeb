//! `vswitchd`: the daemon. It serves the configuration database, follows it, and runs the switch.
#![forbid(unsafe_code)]

mod commands;
mod coverage;
mod daemon;
mod desired;
mod interface;
mod log;
mod options;
mod process;
mod report;
mod startfile;
mod switch;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let result = if options.detach && !process::is_detached() {
        process::detach()
    } else {
        daemon::run(&options)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vswitchd: {e:#}");
            ExitCode::FAILURE
        }
    }
}
