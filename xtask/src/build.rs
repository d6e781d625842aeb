//! Running cargo on this workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use lab::wait;

/// Runs `cargo ARGUMENTS` with its output shown; `what` names it in the error.
pub fn cargo(what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).envs(environment.iter().copied());
    let status = command.status().context("cannot run cargo")?;
    wait::check_interrupted()?;
    if !status.success() {
        bail!("{what} ({status})");
    }
    Ok(())
}

/// Builds the daemon and the CLI as released and returns the directory they are in.
pub fn release() -> Result<PathBuf> {
    cargo("the build failed", &["build", "--release", "-p", "vswitchd", "-p", "vswitchctl"], &[])?;
    Ok(target()?.join("release"))
}

/// Cargo's build directory.
pub fn target() -> Result<PathBuf> {
    // This program is in TARGET/PROFILE.
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).context("not run from cargo's build directory")?;
    Ok(target.to_owned())
}
