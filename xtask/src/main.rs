//! The project's own commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`,
//! `cargo xtask instructions`.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod instructions;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for working on the switch; each installs the Debian packages it needs (as root) or says which.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Subcommands,
}

const EXAMPLES: &str = "Examples:
  cargo xtask demo                         two virtual machines talk through the switch
  cargo xtask test                         everything that must hold before a change goes in
  cargo xtask test --fast                  the same without virtual machines and testpmd
  cargo xtask bench                        next to OVS-DPDK and to DPDK without a switch
  cargo xtask instructions                 instructions per packet, beside what is recorded";

#[derive(Debug, Subcommand)]
enum Subcommands {
    Demo(demo::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Instructions(instructions::Arguments),
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    if let Err(error) = stop_on_signal() {
        eprintln!("cannot handle signals: {error}");
        return ExitCode::FAILURE;
    }
    let result = match command_line.command {
        Subcommands::Demo(arguments) => demo::run(&arguments),
        Subcommands::Test(arguments) => test::run(&arguments),
        Subcommands::Bench(arguments) => bench::run(&arguments),
        Subcommands::Instructions(arguments) => instructions::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nfailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// On Ctrl-C or SIGTERM every wait ends with an error, so that what was started is stopped by its owners;
/// a second signal ends this process at once, and the kernel what it started.
fn stop_on_signal() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        let mut seen = signals.forever();
        if seen.next().is_some() {
            eprintln!("\nstopping what was started ...");
            lab::wait::interrupt();
        }
        if seen.next().is_some() {
            std::process::exit(130);
        }
    });
    Ok(())
}
