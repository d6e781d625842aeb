//! The daemon as a process: going to the background, and the pid file that admits one at a time.

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set for the process in the background.
const DETACHED: &str = "VSWITCHD_DETACHED";
/// What it writes when it is ready.
const READY: &[u8] = b"ready\n";

/// True in the process in the background.
pub(crate) fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Starts this program again in the background and waits until it says that it is ready.
pub(crate) fn detach() -> Result<()> {
    let program = std::env::current_exe().context("finding this program to start it again")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the background process")?;
    let mut said: Vec<u8> = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        let mut buf = [0; 16];
        while said != READY {
            match out.read(&mut buf) {
                Ok(n) if n > 0 => said.extend(&buf[..n]),
                _ => break,
            }
        }
    }
    if said == READY {
        return Ok(());
    }
    let status = child.wait().context("waiting for the background process")?;
    bail!("the background process ended before it was ready ({status})")
}

/// In the background: leaves the terminal's session.
pub(crate) fn leave_session() {
    if is_detached() {
        let _ = rustix::process::setsid();
    }
}

/// In the background: tells the waiting parent, and lets go of its standard streams.
pub(crate) fn ready() -> Result<()> {
    if is_detached() {
        std::io::stdout().write_all(READY)?;
        std::io::stdout().flush()?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
    }
    Ok(())
}

/// The pid file, locked while the daemon runs and removed when it ends.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Writes the process ID.
    ///
    /// # Errors
    /// If another daemon holds the file.
    pub(crate) fn create(path: &Path) -> Result<PidFile> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("{}", path.display()))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!("{}: already running as pid {}", path.display(), pid.trim());
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(PidFile { path: path.to_owned(), _locked: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
