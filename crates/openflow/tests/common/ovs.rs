//! A private ovsdb-server and ovs-vswitchd with one bridge `br0`: the judge of what flows mean. Needs
//! the Debian package `openvswitch-switch`, and fails without.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long OVS may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The ports of the bridge. Some names need quotes.
pub const PORTS: [(&str, u16); 4] = [("p1", 1), ("p2", 2), ("a-b", 5), ("normal", 6)];

pub struct Ovs {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Already gone is as good as stopped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ovs {
    pub fn start() -> Ovs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ovs = Ovs { dir, children: Vec::new() };
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        ovs.run("ovsdb-tool", &["create", &ovs.at("conf.db"), schema]);
        let remote = format!("--remote=punix:{}", ovs.at("db.sock"));
        ovs.spawn("ovsdb-server", &[&ovs.at("conf.db"), &remote]);
        let (socket, start) = (PathBuf::from(ovs.at("db.sock")), Instant::now());
        while !socket.exists() {
            assert!(start.elapsed() < PATIENCE, "ovsdb-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let db = format!("unix:{}", ovs.at("db.sock"));
        ovs.run("ovs-vsctl", &[&format!("--db={db}"), "--no-wait", "init"]);
        let control = format!("--unixctl={}", ovs.at("ctl"));
        ovs.spawn("ovs-vswitchd", &[&db, "--enable-dummy=override", "--disable-system", &control]);
        let mut add =
            format!("--db={db} --timeout=20 add-br br0 -- set bridge br0 datapath_type=dummy");
        for (name, n) in PORTS {
            add += &format!(
                " -- add-port br0 {name} -- set interface {name} type=dummy ofport_request={n}"
            );
        }
        ovs.run("ovs-vsctl", &add.split(' ').collect::<Vec<_>>());
        ovs
    }

    /// A file in its directory.
    pub fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("OVS_RUNDIR", self.dir.path()).env("OVS_LOGDIR", self.dir.path());
        command
    }

    fn spawn(&mut self, program: &str, args: &[&str]) {
        let mut command = self.command(program, args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        self.children.push(child.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        }));
    }

    /// Runs a program; what it prints, or what it complains of.
    pub fn try_run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let out = self.command(program, args).output();
        let out = out.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        });
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args).unwrap_or_else(|e| panic!("{program} {args:?}: {e}"))
    }

    /// `ovs-ofctl OPTIONS COMMAND br0 REST`, with options and command in one string.
    pub fn ofctl(&self, command: &str, rest: &[&str]) -> Result<String, String> {
        let target = format!("unix:{}", self.at("br0.mgmt"));
        let words = ["-vconsole:off"].into_iter().chain(command.split_whitespace());
        let words: Vec<&str> = words.chain([target.as_str()]).collect();
        self.try_run("ovs-ofctl", &[&words, rest].concat())
    }
}

/// Why `ovs-ofctl` refused something, from what it complained of: its sentence, or the name of the
/// switch's error.
pub fn reason(complaint: &str) -> String {
    if let Some(said) = complaint.lines().find_map(|l| l.strip_prefix("ovs-ofctl: ")) {
        return said.to_owned();
    }
    let code = complaint.lines().find(|l| l.starts_with("OFPT_ERROR"));
    code.and_then(|l| l.rsplit(' ').next()).unwrap_or(complaint).to_owned()
}
