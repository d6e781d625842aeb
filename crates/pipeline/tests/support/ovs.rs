//! A private Open vSwitch. Needs the Debian package `openvswitch-switch`, and fails without.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long OVS may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// All that ovs-ofctl may use to say a flow.
const VERSIONS: &str = "-OOpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15";

/// A private ovsdb-server and ovs-vswitchd with one bridge `br0` of dummy ports from p1.
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
    pub fn start(ports: u16) -> Ovs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ovs = Ovs { dir, children: Vec::new() };
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        ovs.run("ovsdb-tool", &["create", &ovs.at("conf.db"), schema]);
        ovs.spawn(
            "ovsdb-server",
            &[&ovs.at("conf.db"), &format!("--remote=punix:{}", ovs.at("db.sock"))],
        );
        let socket = PathBuf::from(ovs.at("db.sock"));
        ovs.wait("ovsdb-server's socket", || socket.exists().then_some(()));
        let db = format!("unix:{}", ovs.at("db.sock"));
        ovs.run("ovs-vsctl", &[&format!("--db={db}"), "--no-wait", "init"]);
        let control = format!("--unixctl={}", ovs.at("ctl"));
        ovs.spawn("ovs-vswitchd", &[&db, "--enable-dummy=override", "--disable-system", &control]);
        let mut add =
            format!("--db={db} --timeout=20 add-br br0 -- set bridge br0 datapath_type=dummy");
        for n in 1..=ports {
            add += &format!(
                " -- add-port br0 p{n} -- set interface p{n} type=dummy ofport_request={n}"
            );
        }
        ovs.run("ovs-vsctl", &add.split_whitespace().collect::<Vec<_>>());
        ovs
    }

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

    pub fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args).unwrap_or_else(|e| panic!("{program} {args:?}: {e}"))
    }

    pub fn ofctl(&self, command: &str, rest: &[&str]) -> Result<String, String> {
        let target = format!("unix:{}", self.at("br0.mgmt"));
        let words: Vec<&str> = command.split_whitespace().chain([target.as_str()]).collect();
        self.try_run("ovs-ofctl", &[&[VERSIONS], &words[..], rest].concat())
    }

    pub fn appctl(&self, args: &[&str]) -> String {
        let control = self.at("ctl");
        self.run("ovs-appctl", &[&["-t", control.as_str()], args].concat())
    }

    pub fn wait<T>(&self, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(it) = ready() {
                return it;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: not there after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Replaces all groups and flows.
    pub fn set(&self, groups: &[&str], flows: &str) {
        self.ofctl("del-flows", &[]).expect("deletes");
        self.ofctl("del-groups", &[]).expect("deletes");
        for group in groups {
            self.ofctl("add-group", &[group]).unwrap_or_else(|e| panic!("{group}: {e}"));
        }
        std::fs::write(self.at("flows"), flows).expect("a temporary file");
        // As most people do, and what only later versions can say.
        let target = format!("unix:{}", self.at("br0.mgmt"));
        let plain = match flows.contains("write_actions") {
            true => Err("OpenFlow 1.0 leaves it out without a word".to_owned()),
            false => self.try_run("ovs-ofctl", &["add-flows", &target, &self.at("flows")]),
        };
        let added = plain.or_else(|_| self.ofctl("add-flows", &[&self.at("flows")]));
        added.unwrap_or_else(|e| panic!("{flows}: {e}"));
    }

    /// The megaflow and the datapath actions that `ofproto/trace` prints for a packet.
    pub fn trace(&self, packet: &str) -> (String, String) {
        let text = self.appctl(&["ofproto/trace", "br0", packet]);
        let line = |start: &str| {
            let found = text.lines().rev().find_map(|l| l.strip_prefix(start));
            found.unwrap_or_else(|| panic!("{packet}: no {start} in {text}")).to_owned()
        };
        (line("Megaflow: "), line("Datapath actions: "))
    }

    /// Sends a frame and returns the match and the actions of the megaflow that it makes.
    pub fn megaflow(&self, port: u32, frame: &[u8]) -> (String, String) {
        self.appctl(&["dpctl/del-flows"]);
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        self.appctl(&["netdev-dummy/receive", &format!("p{port}"), &hex]);
        self.wait("a megaflow", || {
            let dump = self.appctl(&["dpctl/dump-flows"]);
            let mut lines = dump.lines().filter(|l| l.starts_with("recirc_id"));
            split_megaflow(lines.find(|l| l.contains(&format!("in_port({port})")))?)
        })
    }
}

/// Match and actions of one line of `dpctl/dump-flows`.
pub fn split_megaflow(line: &str) -> Option<(String, String)> {
    let (matches, rest) = line.split_once(", packets:")?;
    let (_, actions) = rest.split_once("actions:")?;
    Some((matches.to_owned(), actions.to_owned()))
}
