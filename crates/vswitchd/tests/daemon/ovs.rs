//! Debian's Open vSwitch beside ours.

use crate::bench::{Run, debian, run, wait_for};
use std::path::Path;
use std::process::{Child, Stdio};

/// Debian's ovs-vswitchd with its database, on dummy devices; killed at drop.
pub struct Ovs {
    children: Vec<Child>,
    dir: tempfile::TempDir,
}

impl Ovs {
    pub fn start() -> Ovs {
        let dir = tempfile::tempdir().expect("directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let made = run(debian("ovsdb-tool").args(["create", &path("conf.db"), schema]));
        assert_eq!(made.status, 0, "{made:?}");
        let quiet = ["-vconsole:off", "-vsyslog:off"];
        let mut db = debian("ovsdb-server");
        db.args([path("conf.db"), format!("--remote=punix:{}", path("db.sock"))]).args(quiet);
        db.arg(format!("--unixctl={}", path("db.ctl"))).stdin(Stdio::null());
        let mut ovs = Ovs { children: vec![db.spawn().expect("starts")], dir };
        wait_for("ovsdb-server", || (ovs.vsctl("--no-wait init").status == 0).then_some(()));
        let mut vswitchd = debian("ovs-vswitchd");
        vswitchd.arg(format!("unix:{}", ovs.path("db.sock"))).args(quiet).stdin(Stdio::null());
        vswitchd.arg(format!("--unixctl={}", ovs.path("ovs.ctl"))).arg("--enable-dummy=override");
        vswitchd.args(["--disable-system", "-vANY:file:off"]).env("OVS_RUNDIR", ovs.dir.path());
        ovs.children.push(vswitchd.spawn().expect("starts"));
        ovs
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub fn vsctl(&self, command: &str) -> Run {
        let db = format!("--db=unix:{}", self.path("db.sock"));
        run(debian("ovs-vsctl").args(["--timeout=25", &db]).args(command.split_whitespace()))
    }

    /// `ovs-ofctl` on bridge `br0`, started in `dir`, with `input` on standard input.
    pub fn ofctl(&self, dir: &Path, args: &[String], input: &str) -> Run {
        let mut command = debian("ovs-ofctl");
        command.current_dir(dir).env("OVS_RUNDIR", self.dir.path());
        let target = format!("unix:{}", self.path("br0.mgmt"));
        command.args(args.iter().map(|a| if a == "br0" { &target } else { a }));
        run_with(&mut command, input)
    }

    pub fn appctl(&self, command: &str) -> Run {
        let socket = self.path("ovs.ctl");
        run(debian("ovs-appctl").args(["-t", &socket]).args(command.split_whitespace()))
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a program to its end with something to read.
pub fn run_with(command: &mut std::process::Command, input: &str) -> Run {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(input.as_bytes()).expect("written");
    file.rewind().expect("rewound");
    let output = command.stdin(Stdio::from(file)).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = output.status.code().unwrap_or(-1);
    Run { out: text(output.stdout), err: text(output.stderr), status }
}
