//! The daemon as a process: going to the background, and the pid file that admits one at a time.

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Set for the process in the background.
const DETACHED: &str = "VSWITCHD_DETACHED";
/// What it writes when it is ready.
const READY: &[u8] = b"ready\n";

/// True in the process in the background.
pub(crate) fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Starts this program again in the background and waits until it says that it is ready. If it ends
/// before, it has said why, and its exit status is ours.
pub(crate) fn detach() -> Result<ExitCode> {
    let program = std::env::current_exe().context("finding this program to start it again")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the background process")?;
    let mut said: Vec<u8> = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(READY.len() as u64).read_to_end(&mut said).context("the background process")?;
    }
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().context("waiting for the background process")?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) if code != 0 => Ok(ExitCode::from(code)),
        _ => bail!("the background process ended before it was ready ({status})"),
    }
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
        let context = || format!("pid file {}", path.display());
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .with_context(context)?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                bail!("{}: already running as pid {}", path.display(), pid.trim());
            }
            // A daemon that ended just now may have removed the file that we opened.
            let ours = file.metadata().with_context(context)?;
            if std::fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()))
            {
                file.set_len(0).with_context(context)?;
                writeln!(file, "{}", std::process::id()).with_context(context)?;
                return Ok(PidFile { path: path.to_owned(), _locked: file });
            }
        }
    }
}

/// True for names of sockets that the daemon makes for its own time only: control sockets, and those of
/// captures.
fn is_temporary(name: &str) -> bool {
    let middle = |prefix: &str, suffix: &str| name.strip_prefix(prefix)?.strip_suffix(suffix);
    let control = middle("vswitchd.", ".ctl").is_some_and(|pid| pid.parse::<u32>().is_ok());
    control || middle("capture.", ".sock").is_some()
}

/// Removes control sockets that daemons in this run directory left when they were killed. To be
/// called with the pid file locked.
pub(crate) fn remove_stale_controls(rundir: &Path) {
    for entry in std::fs::read_dir(rundir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(is_temporary) {
            continue;
        }
        let refused = |e: std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(entry.path()).is_err_and(refused) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
