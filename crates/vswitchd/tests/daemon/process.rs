//! The daemon as a process: background, ends, files, and mistakes on its command line.

use crate::bench::{Daemon, debian, files, program, run, vswitchd, wait_for};
use std::path::Path;
use std::process::Command;

/// Ends a process that is not our child, at drop.
struct Background(u32);

impl Background {
    fn of(pid_file: &Path) -> Background {
        let text = std::fs::read_to_string(pid_file).expect("the pid file is there");
        Background(text.trim().parse().expect("a process ID"))
    }

    fn signal(&self, signal: &str) {
        run(Command::new("kill").args([signal, &self.0.to_string()]));
    }

    fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|s| !s.contains(") Z "))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.signal("-KILL");
    }
}

#[test]
fn detach_returns_when_configured_and_sigterm_leaves_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let mut first = Daemon::start_in(dir.path());
    first.vsctl("add-br br0 -- add-port br0 a -- set Interface a type=dpdkvhostuser");
    first.end("-TERM");
    let (pid_file, log) = (dir.path().join("other.pid"), dir.path().join("log"));
    std::fs::remove_file(&log).expect("the first one's log");
    let mut command = vswitchd(dir.path());
    command.arg("--detach").arg("--pidfile").arg(&pid_file).arg("--log-file").arg(&log);
    let parent = run(&mut command);
    assert_eq!((parent.status, &*parent.out, &*parent.err), (0, "", ""));
    let d = Background::of(&pid_file);
    // Configured already: the port's socket is there, and the database knows.
    assert!(files(dir.path()).contains(&"a".to_owned()));
    let db = format!("--db=unix:{}/db.sock", dir.path().display());
    let column = run(debian("ovs-vsctl").args([&db, "get", "Interface", "a", "link_state"]));
    assert_eq!(column.out, "down\n");
    assert!(std::fs::read_to_string(&log).expect("log file").contains("configured"));
    d.signal("-TERM");
    wait_for("end", || (!d.runs()).then_some(()));
    assert_eq!(files(dir.path()), ["conf.db"]);
}

#[test]
fn detach_fails_with_the_childs_one_line() {
    let d = Daemon::start();
    let second = run(vswitchd(d.rundir()).arg("--detach"));
    assert_eq!((second.status, second.err.lines().count()), (1, 1), "{}", second.err);
    assert!(second.err.contains("already running as pid"));
}

#[test]
fn exit_answers_when_everything_has_ended() {
    let mut d = Daemon::start();
    d.vsctl("add-br br0 -- add-port br0 a -- set Interface a type=dpdkvhostuser");
    assert_eq!(d.appctl("exit"), "");
    let left: Vec<String> = d.files().into_iter().filter(|f| !f.ends_with(".ctl")).collect();
    assert_eq!(left, ["conf.db"], "ports, database and pid file are gone when it answers");
    assert_eq!(d.wait_end(), 0);
    assert_eq!(d.files(), ["conf.db"]);
}

#[test]
fn the_run_directory_may_come_from_the_environment_and_is_made() {
    let dir = tempfile::tempdir().expect("directory");
    let rundir = dir.path().join("a/b");
    let mut command = program();
    let parent = run(command.env("VSWITCH_RUNDIR", &rundir).arg("--detach"));
    assert_eq!((parent.status, &*parent.err), (0, ""));
    let _d = Background::of(&rundir.join("vswitchd.pid"));
    assert!(rundir.join("db.sock").exists());
}

#[test]
fn mistakes_get_one_clear_line() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let long = dir.path().join("x".repeat(120));
    let name = |p: &Path| p.display().to_string();
    let (fine, file, long) = (name(&dir.path().join("run")), name(&file), name(&long));
    let under_file = format!("{file}/x");
    let cases: &[(&[&str], &str)] = &[
        (&["--rundir", &file], &file),
        (&["--rundir", &under_file], &under_file),
        (&["--rundir", &long], "107"),
        (&["--rundir", &fine, "--db", "/nonexistent/conf.db"], "/nonexistent/"),
        (&["--rundir", &fine, "--pidfile", "/nonexistent/pid"], "pid file /nonexistent/pid"),
        (&["--rundir", &fine, "--log-file", "/nonexistent/log"], "log file /nonexistent/log"),
        (&["--rundir", &fine, "--config", "/nonexistent.toml"], "start file /nonexistent.toml"),
        (&["--rundir", &fine, "--ovsdb", "tcp:1.2.3.4:6640"], "only unix:PATH"),
    ];
    for (args, told) in cases {
        let mut command = program();
        let run = run(command.env_remove("VSWITCH_RUNDIR").args(*args));
        assert_eq!(run.status, 1, "{args:?}: {run:?}");
        let lines: Vec<&str> = run.err.lines().filter(|l| !l.contains(" INFO ")).collect();
        assert_eq!(lines.len(), 1, "{args:?}: {run:?}");
        assert!(lines[0].starts_with("vswitchd: ") && lines[0].contains(told), "{args:?}: {run:?}");
    }
}
