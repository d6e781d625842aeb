//! What the tests share: a running daemon in a directory of its own, and programs that talk to it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails; far more than it ever takes.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a program gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit status; -1 for a signal.
    pub status: i32,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Run {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = output.status.code().unwrap_or(-1);
    Run { out: text(output.stdout), err: text(output.stderr), status }
}

/// A program of OVS, or a loud failure that says what to install.
pub fn debian(program: &str) -> Command {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
        std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
    });
    assert!(found, "{program} is not installed: it is in Debian's package openvswitch-switch");
    Command::new(program)
}

/// Time that this process ran: one that was stopped, or kept from its core, has not waited.
pub struct Patience {
    last: Instant,
    waited: Duration,
}

impl Patience {
    /// The longest that one look after the other may count for.
    const LOOK: Duration = Duration::from_millis(10);

    pub fn new() -> Patience {
        Patience { last: Instant::now(), waited: Duration::ZERO }
    }

    /// Counts the time since the last look, and says how much there was in all.
    pub fn waited(&mut self) -> Duration {
        let now = Instant::now();
        self.waited += (now - self.last).min(Patience::LOOK);
        self.last = now;
        self.waited
    }
}

/// Tries until `done` gives something; fails with `what` at the deadline.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let mut patience = Patience::new();
    loop {
        if let Some(t) = done() {
            return t;
        }
        assert!(patience.waited() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Our command line, built if it is not there yet.
pub fn vswitchctl() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_vswitchd")).with_file_name("vswitchctl");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "vswitchctl", "--target-dir"]);
        cargo.arg(path.parent().and_then(Path::parent).expect("a target directory"));
        if path.parent().is_some_and(|dir| dir.ends_with("release")) {
            cargo.arg("--release");
        }
        let built = run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
        assert!(built.status == 0 && path.is_file(), "building vswitchctl: {}", built.err);
        path
    });
    Command::new(program)
}

/// The daemon's program, in a network namespace of its own, so that bridges' own devices do not meet those
/// of other tests. Needs root; the process is the program's.
pub fn program() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--", env!("CARGO_BIN_EXE_vswitchd")]);
    command
}

/// The daemon's program with a run directory.
pub fn vswitchd(rundir: &Path) -> Command {
    let mut command = program();
    command.env_remove("VSWITCH_RUNDIR").arg("--rundir").arg(rundir);
    command
}

/// A running daemon; killed at drop.
pub struct Daemon {
    child: Option<Child>,
    /// Taken away at drop if it is ours.
    _temporary: Option<tempfile::TempDir>,
    rundir: PathBuf,
}

impl Daemon {
    /// A daemon in a directory of its own, configured when this returns.
    pub fn start() -> Daemon {
        let dir = tempfile::tempdir().expect("directory");
        let mut daemon = Daemon::start_in(dir.path());
        daemon._temporary = Some(dir);
        daemon
    }

    /// A daemon in this directory.
    pub fn start_in(rundir: &Path) -> Daemon {
        Daemon::start_with(rundir, &[] as &[&str])
    }

    /// A daemon with more options, configured when this returns.
    pub fn start_with<S: AsRef<OsStr>>(rundir: &Path, args: &[S]) -> Daemon {
        let daemon = Daemon::spawn(rundir, args);
        daemon.wait_log("configured");
        daemon
    }

    /// A daemon that need not become ready.
    pub fn spawn<S: AsRef<OsStr>>(rundir: &Path, args: &[S]) -> Daemon {
        Daemon::spawn_as(vswitchd(rundir), rundir, args)
    }

    /// A daemon on a faked machine, configured when this returns: `sysfs` has its nodes and devices.
    pub fn start_on(sysfs: &Path) -> Daemon {
        Daemon::start_faked("VSWITCH_SYSFS", sysfs)
    }

    /// A daemon with a variable that fakes what it is to see, configured when this returns.
    pub fn start_faked(variable: &str, value: impl AsRef<OsStr>) -> Daemon {
        let dir = tempfile::tempdir().expect("directory");
        let mut command = vswitchd(dir.path());
        command.env(variable, value);
        let mut daemon = Daemon::spawn_as(command, dir.path(), &[] as &[&str]);
        daemon.wait_log("configured");
        daemon._temporary = Some(dir);
        daemon
    }

    fn spawn_as<S: AsRef<OsStr>>(mut command: Command, rundir: &Path, args: &[S]) -> Daemon {
        let _ = std::fs::remove_file(rundir.join("log"));
        command.arg("--log-file").arg(rundir.join("log")).args(args);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the daemon starts");
        Daemon { child: Some(child), _temporary: None, rundir: rundir.to_owned() }
    }

    pub fn rundir(&self) -> &Path {
        &self.rundir
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.rundir.join("log")).unwrap_or_default()
    }

    /// Lines of the log that contain `text`.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|l| l.contains(text)).map(str::to_owned).collect()
    }

    pub fn wait_log(&self, text: &str) {
        wait_for(&format!("log line with {text:?}"), || {
            assert!(self.runs(), "the daemon has ended:\n{}", self.log());
            self.log().contains(text).then_some(())
        });
    }

    /// True while the process has not ended.
    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|s| !s.contains(") Z "))
    }

    /// `ovs-vsctl` on its database.
    pub fn try_vsctl(&self, args: &[&str]) -> Run {
        let db = format!("--db=unix:{}", self.rundir.join("db.sock").display());
        run(debian("ovs-vsctl").arg("--timeout=25").arg(db).args(args))
    }

    /// As [`Daemon::try_vsctl`], for what must work: its output without the last line's end. A command
    /// is split at blanks.
    pub fn vsctl(&self, command: &str) -> String {
        let run = self.try_vsctl(&command.split_whitespace().collect::<Vec<_>>());
        assert_eq!((run.status, &*run.err), (0, ""), "ovs-vsctl {command}: {}", self.log());
        run.out.trim_end().to_owned()
    }

    /// A column of an interface.
    pub fn get(&self, interface: &str, column: &str) -> String {
        self.vsctl(&format!("get Interface {interface} {column}"))
    }

    /// Waits until a column of an interface is `value`.
    pub fn wait_column(&self, interface: &str, column: &str, value: &str) {
        let command = format!("--timeout=25 wait-until Interface {interface} {column}={value}");
        let run = self.try_vsctl(&command.split_whitespace().collect::<Vec<_>>());
        assert_eq!(run.status, 0, "{command}: {run:?}\n{}", self.log());
    }

    /// `ovs-appctl` on its control socket.
    pub fn try_appctl(&self, args: &[&str]) -> Run {
        let socket = self.rundir.join(format!("vswitchd.{}.ctl", self.pid()));
        run(debian("ovs-appctl").arg("-t").arg(socket).args(args))
    }

    /// As [`Daemon::try_appctl`], for what must work. A command is split at blanks.
    pub fn appctl(&self, command: &str) -> String {
        let run = self.try_appctl(&command.split_whitespace().collect::<Vec<_>>());
        assert_eq!((run.status, &*run.err), (0, ""), "ovs-appctl {command}");
        run.out
    }

    /// Sends a signal and waits for the end; the exit status, -1 for a signal.
    pub fn end(&mut self, signal: &str) -> i32 {
        self.signal(signal);
        self.wait_end()
    }

    /// Sends a signal, as `-TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert_eq!(run(Command::new("kill").args([signal, &pid])).status, 0);
    }

    /// Waits for the end; the exit status, -1 for a signal.
    pub fn wait_end(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let mut patience = Patience::new();
        loop {
            if let Some(status) = child.try_wait().expect("its status") {
                return status.code().unwrap_or(-1);
            }
            if patience.waited() > DEADLINE {
                let _ = child.kill();
                panic!("the daemon does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Names in the run directory, but for the test's own.
    pub fn files(&self) -> Vec<String> {
        files(&self.rundir)
    }
}

/// Names in a run directory, but for the log and what starts with a dot.
pub fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("readable");
    let mut names: Vec<String> = entries
        .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "log" && !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
