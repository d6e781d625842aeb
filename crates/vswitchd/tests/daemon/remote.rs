//! The daemon as a client of Debian's `ovsdb-server`.

use crate::bench::{Daemon, debian, run, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Their server on `DIR/db.sock`; killed at drop.
struct Theirs {
    child: Child,
    dir: PathBuf,
}

impl Theirs {
    fn start(dir: &Path) -> Theirs {
        let file = dir.join("conf.db");
        if !file.exists() {
            let schema = "/usr/share/openvswitch/vswitch.ovsschema";
            let made = run(debian("ovsdb-tool").arg("create").arg(&file).arg(schema));
            assert_eq!(made.status, 0, "{made:?}");
        }
        let mut command = debian("ovsdb-server");
        command.arg(&file).arg(format!("--remote=punix:{}/db.sock", dir.display()));
        command.arg(format!("--unixctl={}/db.ctl", dir.display()));
        command.args(["-vconsole:off", "-vsyslog:off"]).stdin(Stdio::null());
        let theirs = Theirs { child: command.spawn().expect("starts"), dir: dir.to_owned() };
        wait_for("ovsdb-server", || (theirs.vsctl("--no-wait init").status == 0).then_some(()));
        theirs
    }

    fn vsctl(&self, command: &str) -> crate::bench::Run {
        let db = format!("--db=unix:{}/db.sock", self.dir.display());
        run(debian("ovs-vsctl").args(["--timeout=25", &db]).args(command.split_whitespace()))
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_follows_survives_a_restart_and_waits_its_turn() {
    let dir = tempfile::tempdir().expect("directory");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for d in [&one, &two] {
        std::fs::create_dir(d).expect("made");
    }
    let remote = format!("unix:{}/db.sock", dir.path().display());
    // Before there is any server: it waits.
    let mut first = Daemon::spawn(&one, &["--ovsdb", &remote]);
    first.wait_log("trying again every second");
    let theirs = Theirs::start(dir.path());
    first.wait_log("configured");
    let add = "add-br br0 -- add-port br0 a -- set Interface a type=dpdkvhostuser";
    assert_eq!(theirs.vsctl(add).status, 0);
    assert_eq!(theirs.vsctl("get Interface a ofport link_state").out, "1\ndown\n");
    assert!(one.join("a").exists() && !one.join("db.sock").exists());

    // A second daemon waits for the lock and touches nothing.
    let mut second = Daemon::spawn(&two, &["--ovsdb", &remote]);
    second.wait_log("another vswitchd process is running");
    assert!(!two.join("a").exists());

    // The server goes and comes back: ports stay, and later changes are followed. Whichever daemon
    // gets the lock, the ports are of that one alone.
    drop(theirs);
    first.wait_log("database connection lost");
    assert!(one.join("a").exists(), "the switch goes on");
    let theirs = Theirs::start(dir.path());
    let add = "add-port br0 b -- set Interface b type=dpdkvhostuser";
    let run = theirs.vsctl(add);
    assert_eq!((run.status, &*run.err), (0, ""));
    let has = |dir: &Path| dir.join("a").exists() && dir.join("b").exists();
    wait_for("ports in one place", || (has(&one) != has(&two)).then_some(()));
    assert_eq!(theirs.vsctl("get Interface a ofport link_state").out, "1\ndown\n");

    // The one that has the lock ends: the other takes over.
    let (active, idle_dir) = if has(&one) { (&mut first, &two) } else { (&mut second, &one) };
    assert_eq!(active.end("-TERM"), 0);
    wait_for("the other takes over", || has(idle_dir).then_some(()));
    assert_eq!(theirs.vsctl("get Interface a ofport").out, "1\n");
}
