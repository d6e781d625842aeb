//! `cargo xtask test`: everything that must hold, the quick stages first, stopping at the first that fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::packages;
use lab::switch::BIN_DIR_VARIABLE;

use crate::build;

/// Run all checks and tests, installing what they need.
///
/// A test that cannot run for want of a package or a privilege is a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test
  cargo xtask test --fast                  formatting, lints and unit tests only: no packages, no root")]
pub struct Arguments {
    /// Only what needs neither root nor packages
    #[arg(long)]
    fast: bool,
}

/// One line of what is about to be done.
struct Stage {
    name: &'static str,
    /// The cargo command.
    cargo: &'static [&'static str],
    /// Belongs to `--fast`.
    fast: bool,
}

/// A stage that runs one test of the laboratory, its parts one at a time as they poll cores.
macro_rules! lab_test {
    ($name:literal, $test:literal $(, $more:literal)*) => {
        Stage {
            name: $name,
            cargo: &["test", "-p", "lab", "--test", $test, "--", "--test-threads=1" $(, $more)*],
            fast: false,
        }
    };
}

/// In this order. Where tests poll cores they run one at a time.
const STAGES: &[Stage] = &[
    Stage { name: "formatting", cargo: &["fmt", "--all", "--check"], fast: true },
    Stage {
        name: "lints",
        cargo: &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
        fast: true,
    },
    Stage {
        name: "unit tests",
        cargo: &["test", "--workspace", "--lib", "--bins", "--quiet"],
        fast: true,
    },
    Stage {
        name: "documentation",
        cargo: &[
            "doc",
            "--workspace",
            "--no-deps",
            "--quiet",
            "--config",
            "build.rustdocflags=['-Dwarnings']",
        ],
        fast: true,
    },
    Stage {
        name: "documentation examples",
        cargo: &["test", "--workspace", "--doc", "--quiet"],
        fast: true,
    },
    Stage {
        name: "tests of the libraries from outside",
        cargo: &[
            "test",
            "--workspace",
            "--exclude",
            "lab",
            "--exclude",
            "vswitchd",
            "--exclude",
            "vswitchctl",
            "--test",
            "*",
            "--quiet",
            "--",
            "--test-threads=1",
        ],
        fast: false,
    },
    Stage {
        name: "release build",
        cargo: &["build", "--release", "-p", "vswitchd", "-p", "vswitchctl"],
        fast: false,
    },
    Stage { name: "instructions per packet", cargo: &["xtask", "instructions"], fast: false },
    Stage {
        name: "the daemon and the CLI as processes",
        cargo: &["test", "-p", "vswitchd", "-p", "vswitchctl", "--tests", "--", "--test-threads=1"],
        fast: false,
    },
    lab_test!("flow tables and packets beside Open vSwitch", "differential"),
    lab_test!("stale megaflows", "revalidation", "--nocapture"),
    lab_test!("testpmd as virtio driver", "testpmd"),
    lab_test!("the host's stack and namespaces", "host"),
    lab_test!("AF_XDP, with DPDK's driver as the peer", "afxdp"),
    lab_test!("Linux bridges, wires, a guest and its host", "joined"),
    lab_test!("multicast between hosts", "multicast"),
    lab_test!("rates that limits hold", "limits"),
    lab_test!("two bridges", "bridges"),
    lab_test!("two QEMU guests", "guests"),
    lab_test!("offloads between QEMU guests", "offloads"),
    lab_test!("receive coalescing", "coalescing"),
    lab_test!("kill and restart", "restart"),
    Stage {
        name: "every bench scenario for a moment",
        cargo: &["xtask", "bench", "--smoke"],
        fast: false,
    },
];

/// Runs the stages.
pub fn run(arguments: &Arguments) -> Result<()> {
    let stages: Vec<&Stage> = STAGES.iter().filter(|s| s.fast || !arguments.fast).collect();
    println!("About to run:");
    for (number, stage) in stages.iter().enumerate() {
        println!("{:3}. {}", number + 1, stage.name);
    }
    if !arguments.fast {
        packages::ensure(packages::FOR_TEST)?;
    }
    // The switch under test is the one that users get. Beside xtask's own profile directory.
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).context("not run from cargo's build directory")?;
    let release = target.join("release").display().to_string();
    let environment = [(BIN_DIR_VARIABLE, release.as_str())];

    let mut times = Vec::new();
    let mut result = Ok(());
    for (number, stage) in stages.iter().enumerate() {
        println!("\n== {}/{} {}", number + 1, stages.len(), stage.name);
        let start = Instant::now();
        result = build::cargo(stage.name, stage.cargo, &environment);
        times.push((stage.name, start.elapsed()));
        if result.is_err() {
            break;
        }
    }
    print_times(&times);
    let done = times.len();
    result.with_context(|| format!("stage {done} of {}", stages.len()))?;
    println!("\nAll {done} stages passed.");
    Ok(())
}

fn print_times(times: &[(&str, Duration)]) {
    println!("\nseconds  stage");
    for (name, time) in times {
        println!("{:7.1}  {name}", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("{:7.1}  together", total.as_secs_f64());
}
