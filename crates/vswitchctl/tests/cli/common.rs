//! Database servers and command lines for the tests of vswitchctl.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that serves an empty Open_vSwitch database on `DIR/db.sock`.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Debian's `ovsdb-server`.
    Debian,
    /// The server that the switch itself runs.
    Ours,
}

enum Running {
    Debian(Child),
    Ours { _server: ovsdb::server::Server },
}

/// A running server with a directory of its own.
pub struct Server {
    running: Running,
    dir: tempfile::TempDir,
}

/// What a command line gave.
#[derive(Debug)]
pub struct Run {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit status.
    pub status: i32,
}

/// The program, or a loud failure that says what to install.
pub fn debian(program: &str) -> Command {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
        std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
    });
    assert!(found, "{program} is not installed: it is in Debian's package openvswitch-switch");
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = match kind {
            Kind::Debian => Running::Debian(start_debian(dir.path())),
            Kind::Ours => {
                let (file, socket) = (dir.path().join("conf.db"), dir.path().join("db.sock"));
                let server = ovsdb::server::Server::start(&file, &socket).unwrap();
                Running::Ours { _server: server }
            }
        };
        let server = Self { running, dir };
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(server.socket()).is_err() {
            assert!(Instant::now() < deadline, "{kind:?} does not listen in time");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// The database's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    /// `--db=…` for the command lines.
    pub fn db(&self) -> String {
        format!("--db=unix:{}", self.socket().display())
    }

    /// All rows: one JSON object for each table.
    pub fn dump(&self) -> String {
        let remote = format!("unix:{}", self.socket().display());
        let run = run(debian("ovsdb-client").args(["-f", "json", "dump", &remote, "Open_vSwitch"]));
        assert_eq!(run.status, 0, "{}", run.err);
        run.out
    }
}

fn start_debian(dir: &Path) -> Child {
    let file = dir.join("conf.db");
    let made = run(debian("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA));
    assert_eq!(made.status, 0, "{}", made.err);
    debian("ovsdb-server")
        .arg(&file)
        .arg(format!("--remote=punix:{}/db.sock", dir.display()))
        .arg(format!("--unixctl={}/db.ctl", dir.display()))
        .args(["-vconsole:off", "-vsyslog:off"])
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Running::Debian(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap_or(-1);
    Run { out: text(output.stdout), err: text(output.stderr), status }
}

/// Our program, away from the environment's run directory.
pub fn ours() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchctl"));
    command.env_remove("VSWITCH_RUNDIR").stdin(Stdio::null());
    command
}

/// Words of a test's command line: cut at spaces, `'…'` keeps them together.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut any) = (String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            other => word.push(other),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}
