//! Child processes that die with their owner, log to a file, and can be paused.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Time a process gets to end by itself after SIGTERM: a DPDK process needs about a second to release its memory.
const TERM_GRACE: Duration = Duration::from_secs(8);

/// How much of a log an error message quotes, in bytes.
const QUOTED_LOG_BYTES: u64 = 2_000;

/// A program whose process is sent SIGKILL by the kernel when the thread that starts it ends.
///
/// `setpriv` and `setsid` (util-linux, essential in Debian) set that, and a session of its own so that Ctrl-C at the
/// terminal reaches the owner only, before they become the program: the process id is the program's. Owners must therefore not hand a process on to a thread that outlives theirs.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "setsid"]).arg(program);
    command
}

/// Like [`command`], and for root in a network namespace of its own: the bridges' own interfaces then neither
/// appear on this machine nor meet another switch's. Sockets with paths are shared as ever.
pub fn command_in_own_network(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command(program);
    }
    let mut command = command("unshare");
    command.args(["--net", "--"]).arg(program);
    command
}

/// A running process; ended at drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (see [`command`]); what it prints is appended to `log`. Its standard input stays as
    /// `command` has it.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it writes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its standard input, once, if `command` piped it.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Fails, quoting the end of the log, if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended ({}); its last words:\n{}",
                self.name,
                describe(status),
                self.log_tail()
            );
        }
        Ok(())
    }

    /// What was logged from byte `from` on; bytes that are not text are replaced.
    pub fn log_from(&self, from: u64) -> Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Bytes logged so far.
    pub fn log_len(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |m| m.len())
    }

    /// The end of the log, for error messages.
    pub fn log_tail(&self) -> String {
        self.log_from(self.log_len().saturating_sub(QUOTED_LOG_BYTES)).unwrap_or_default()
    }

    /// Waits until `found` sees what it wants in what was logged from byte `from` on.
    pub fn wait_log<T>(
        &mut self,
        what: &str,
        limit: Duration,
        from: u64,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let result = wait::until(&format!("{what} from {}", self.name), limit, || {
            if let Some(value) = found(&self.log_from(from)?) {
                return Ok(Some(value));
            }
            self.check_alive()?;
            Ok(None)
        });
        result.with_context(|| format!("{} log ends:\n{}", self.name, self.log_tail()))
    }

    /// Waits until `path` exists while the process lives.
    pub fn wait_path(&mut self, path: &Path, limit: Duration) -> Result<()> {
        wait::until(&format!("{} to create {}", self.name, path.display()), limit, || {
            self.check_alive()?;
            Ok(path.exists().then_some(()))
        })
    }

    /// Stops the process where it stands (SIGSTOP); [`Process::resume`] lets it go on.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets all its threads go before what else wants their cores (nice -20). Needs root.
    pub fn prefer(&self) -> Result<()> {
        rustix::process::setpriority_pgrp(Some(self.pid()?), -20)
            .with_context(|| format!("cannot prefer {}", self.name))?;
        // Where the kernel groups sessions, a process's own nice value counts only within its session.
        let group = PathBuf::from(format!("/proc/{}/autogroup", self.id()));
        if group.exists() {
            std::fs::write(&group, "-20")
                .with_context(|| format!("cannot prefer {}", self.name))?;
        }
        Ok(())
    }

    /// Undoes [`Process::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, as a crash would, and reaps it.
    pub fn kill(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL after a grace time. Returns the exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.resume()?;
        self.signal(Signal::TERM)?;
        let start = std::time::Instant::now();
        // Not `wait::until`: stopping must also work after an interrupt.
        while start.elapsed() < TERM_GRACE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.context("process id out of range")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to tell an error to; the kernel still ends the process when this thread goes.
        let _ = self.stop();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// Runs a short command to its end and returns its standard output; fails with its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}").replace('"', "");
    let out = command.stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("cannot run {line}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{line}: {}: {}", describe(out.status), said.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
