//! `vswitchd`: the daemon. It serves the configuration database, follows it, and runs the switch.
#![forbid(unsafe_code)]

mod bridges;
mod capture;
mod commands;
mod coverage;
mod daemon;
mod database;
mod desired;
mod device;
mod flow_table;
mod follow;
mod ignored;
mod interface;
mod log;
mod mirror;
mod mtus;
mod numbers;
mod options;
mod packet_ins;
mod police;
mod process;
mod queues;
mod report;
mod retry;
mod startfile;
mod switch;
mod tags;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let result = if options.detach && !process::is_detached() {
        process::detach()
    } else {
        daemon::run(&options).map(|()| ExitCode::SUCCESS)
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("vswitchd: {e:#}");
            ExitCode::FAILURE
        }
    }
}
