//! vswitchctl against a daemon: waiting for it to take over changes, and commands sent to it.

use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Kind, Server, debian, ours, run};
use ovsdb::client::Client;
use ovsdb::replica::Replica;
use serde_json::json;
use unixctl::Commands;

const PATIENCE: Duration = Duration::from_secs(20);

/// Takes over the next change as a daemon does, giving each interface without a number that port
/// number and that error.
fn take_over(server: &Server, ofport: i64, error: Option<&str>) -> thread::JoinHandle<()> {
    let client = Client::connect(server.socket()).unwrap();
    let error = error.map_or(json!(["set", []]), |text| json!(text));
    thread::spawn(move || {
        let mut replica =
            Replica::start(client, "Open_vSwitch", &[("Open_vSwitch", None)]).unwrap();
        loop {
            let root = replica.only_row("Open_vSwitch").map(|(_, row)| row.clone());
            let number = |column| root.as_ref().and_then(|row| row.integer(column)).unwrap_or(0);
            if number("next_cfg") > number("cur_cfg") {
                let new = json!([["ofport", "==", ["set", []]]]);
                let row = json!({"ofport": ofport, "error": error});
                let reached = json!({"cur_cfg": number("next_cfg")});
                let operations = vec![
                    json!({"op": "update", "table": "Interface", "where": new, "row": row}),
                    json!({"op": "update", "table": "Open_vSwitch", "where": [], "row": reached}),
                ];
                replica.transact(operations).unwrap();
                return;
            }
            assert!(replica.next_update(Some(PATIENCE)).unwrap(), "no change in time");
        }
    })
}

#[test]
fn waits_until_the_daemon_has_taken_over_and_tells_of_ports_that_failed() {
    for kind in [Kind::Debian, Kind::Ours] {
        check_waiting(&Server::start(kind));
    }
}

fn check_waiting(server: &Server) {
    let daemon = take_over(server, 1, None);
    let good = run(ours().args([&server.db(), "--timeout=20", "add-br", "br0"]));
    assert_eq!((good.status, good.err.as_str()), (0, ""));
    daemon.join().unwrap();

    let daemon = take_over(server, -1, Some("no such socket"));
    let bad = run(ours().args([&server.db(), "--timeout=20", "add-port", "br0", "p0"]));
    assert_eq!(bad.status, 65, "{bad:?}");
    assert_eq!(bad.err, "vswitchctl: interface p0 does not work: no such socket\n");
    daemon.join().unwrap();

    // What changes nothing waits for nobody.
    let same = ["--timeout=20", "--may-exist", "add-br", "br0"];
    assert_eq!(run(ours().arg(server.db()).args(same)).status, 0);
    let late = run(ours().args([&server.db(), "--timeout=1", "add-br", "br1"]));
    assert_eq!(late.status, 1);
    let expect = "vswitchctl: gave up after 1 s (--timeout) waiting for vswitchd to take over the \
                  change\n";
    assert_eq!(late.err, expect);
}

#[test]
fn wait_until_waits() {
    for kind in [Kind::Debian, Kind::Ours] {
        check_wait_until(&Server::start(kind));
    }
}

fn check_wait_until(server: &Server) {
    let set = ["--no-wait", "add-br", "br0"];
    assert_eq!(run(ours().arg(server.db()).args(set)).status, 0);
    let wait = ["--timeout=20", "wait-until", "Bridge", "br0", "external_ids:a=b", "--", "list-br"];
    let waiting = ours().arg(server.db()).args(wait).stdout(Stdio::piped()).spawn().unwrap();
    let set = ["--no-wait", "set", "Bridge", "br0", "external_ids:a=b"];
    assert_eq!(run(ours().arg(server.db()).args(set)).status, 0);
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"br0\n");
    let never = ["--timeout=1", "wait-until", "Bridge", "nope"];
    assert_eq!(run(ours().arg(server.db()).args(never)).status, 1);
}

/// Commands that change the same column at the same time: none is lost.
#[test]
fn simultaneous_changes_all_arrive() {
    for kind in [Kind::Debian, Kind::Ours] {
        check_simultaneous(&Server::start(kind));
    }
}

fn check_simultaneous(server: &Server) {
    assert_eq!(run(ours().args(["--no-wait", &server.db(), "add-br", "br0"])).status, 0);
    let names: Vec<String> = (0..12).map(|n| format!("p{n:02}")).collect();
    let add = |(n, name): (usize, &String)| {
        let mut command = if n % 4 == 3 { debian("ovs-vsctl") } else { ours() };
        let args = ["--no-wait", "--timeout=20", &server.db(), "add-port", "br0", name];
        command.args(args).spawn().unwrap()
    };
    for mut child in names.iter().enumerate().map(add).collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
    }
    let list = run(ours().args([&server.db(), "list-ports", "br0"]));
    assert_eq!(list.out.lines().collect::<Vec<_>>(), names);
}

/// A control socket that answers with what it was asked, and its pid file.
fn daemon_in(rundir: &Path) -> (unixctl::Server, mpsc::Receiver<Vec<String>>) {
    let (tell, told) = mpsc::channel();
    let mut commands = Commands::new("vswitchd 9.9\n");
    let names = [
        "ofctl/add-flow",
        "ofctl/add-flows",
        "ofctl/replace-flows",
        "ofctl/diff-flows",
        "ofctl/dump-flows",
        "ofctl/show",
        "dpif/show",
    ];
    for name in names {
        let tell = tell.clone();
        commands.add(name, "[ARG]...", 0..=9, move |args| {
            let mut words = vec![name.to_owned()];
            words.extend(args.iter().cloned());
            let _ = tell.send(words);
            Ok(format!("{name} done\n"))
        });
    }
    commands.add("ofctl/del-flows", "", 0..=9, |_| Err("no bridge br9".to_owned()));
    let pid = std::process::id();
    std::fs::write(rundir.join("vswitchd.pid"), format!("{pid}\n")).unwrap();
    let socket = rundir.join(format!("vswitchd.{pid}.ctl"));
    (unixctl::Server::bind(socket, commands).unwrap(), told)
}

#[test]
fn flow_and_operation_commands_reach_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, told) = daemon_in(dir.path());
    let file = dir.path().join("flows");
    std::fs::write(&file, "a\nb\n").unwrap();
    let file = file.to_str().unwrap();
    let check = |args: &[&str], expect: &[&str]| {
        let run = run(ours().env("VSWITCH_RUNDIR", dir.path()).args(args));
        assert_eq!((run.status, run.err.as_str()), (0, ""), "{args:?}");
        assert_eq!(run.out, format!("{} done\n", expect[0]));
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expect, "{args:?}");
    };
    let flow = "table=0,actions=normal";
    check(&["add-flow", "br0", flow], &["ofctl/add-flow", "br0", flow]);
    check(&["-OOpenFlow13", "add-flow", "br0", flow], &["ofctl/add-flow", "br0", flow]);
    check(&["add-flow", "br0", "-O", "OpenFlow13", flow], &["ofctl/add-flow", "br0", flow]);
    let told_file = format!("--file={file}");
    check(&["add-flows", "br0", file], &["ofctl/add-flows", &told_file, "br0", "a\nb\n"]);
    check(
        &["--bundle", "replace-flows", "-t", "9", "br0", file],
        &["ofctl/replace-flows", "--bundle", &told_file, "br0", "a\nb\n"],
    );
    check(&["--names", "dump-flows", "br0"], &["ofctl/dump-flows", "--names", "br0"]);
    check(
        &["dump-flows", "br0", "table=1", "--names"],
        &["ofctl/dump-flows", "--names", "br0", "table=1"],
    );
    check(&["show", "br0"], &["ofctl/show", "br0"]);
    check(&["dpif/show"], &["dpif/show"]);
    check(&["dpif/show", "-x", "--y"], &["dpif/show", "-x", "--y"]);

    let ours_here = || {
        let mut command = ours();
        command.arg(format!("--rundir={}", dir.path().display()));
        command
    };
    let version = run(ours_here().arg("version"));
    assert_eq!((version.status, version.out.as_str()), (0, "vswitchd 9.9\n"));
    let list = run(ours_here().arg("list-commands"));
    assert!(list.out.starts_with("The available commands are:\n"), "{list:?}");
    let refused = run(ours_here().args(["del-flows", "br9"]));
    assert_eq!(
        (refused.status, refused.err.as_str()),
        (1, "vswitchctl: del-flows: no bridge br9\n")
    );
    let unknown = run(ours_here().arg("dpif/shwo"));
    assert_eq!(unknown.status, 2);
    assert!(unknown.err.starts_with("vswitchctl: \"dpif/shwo\" is not a valid command"));
    let missing = run(ours_here().args(["add-flows", "br0", "/nowhere/flows"]));
    assert_eq!(missing.status, 1);
    assert!(
        missing.err.starts_with("vswitchctl: /nowhere/flows: cannot be read: No such"),
        "{missing:?}"
    );
    assert_eq!(missing.err.lines().count(), 1);
}

/// A source is a file or a bridge as ovs-ofctl decides, and what the daemon prints are differences.
#[test]
fn diff_flows_tells_files_from_bridges_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, told) = daemon_in(dir.path());
    std::fs::write(dir.path().join("flows"), "a\n").unwrap();
    let file = dir.path().join("flows");
    let file = file.to_str().unwrap();
    let mut command = ours();
    command.current_dir(dir.path()).env("VSWITCH_RUNDIR", dir.path());
    let run = run(command.args(["diff-flows", "br0", "flows"]));
    assert_eq!((run.status, run.err.as_str()), (2, ""));
    let expect = ["ofctl/diff-flows", "bridge", "br0", "file:flows", "a\n"];
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expect);
    for (line, why) in [
        (vec!["diff-flows", file, "./flows"], "./flows: cannot be read"),
        (vec!["diff-flows", file], "requires at least 2 arguments"),
    ] {
        let run = crate::common::run(ours().env("VSWITCH_RUNDIR", dir.path()).args(line));
        assert!(run.status == 1 && run.err.contains(why), "{run:?}");
    }
}

#[test]
fn standard_input_is_read_where_a_file_is_dash() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let (_server, told) = daemon_in(dir.path());
    for (command, name) in [("add-flows", "ofctl/add-flows"), ("add-flow", "ofctl/add-flow")] {
        let mut command = ours()
            .args([command, "br0", "-"])
            .env("VSWITCH_RUNDIR", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        command.stdin.take().unwrap().write_all(b"actions=drop\n").unwrap();
        assert!(command.wait().unwrap().success());
        let expect = [name, "--file=-", "br0", "actions=drop\n"];
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expect);
    }
}

#[test]
fn a_daemon_that_does_not_run_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let check = |args: &[&str], expect: &str| {
        let run = run(ours().env("VSWITCH_RUNDIR", dir.path()).args(args));
        assert_eq!(run.status, 1, "{run:?}");
        assert!(run.err.starts_with("vswitchctl: ") && run.err.contains(expect), "{run:?}");
        assert!(run.err.lines().count() == 1 && run.err.contains("--rundir DIR"), "{run:?}");
    };
    check(&["show"], "is vswitchd running?");
    check(&["dpif/show"], "vswitchd is not running");
    check(&["add-flow", "br0", "actions=drop"], "vswitchd is not running");
    let begin = Instant::now();
    let args = ["--retry", "--timeout=1", "list-br"];
    assert_eq!(run(ours().env("VSWITCH_RUNDIR", dir.path()).args(args)).status, 1);
    assert!(begin.elapsed() >= Duration::from_millis(900));
    std::fs::write(dir.path().join("vswitchd.pid"), "1\n").unwrap();
    let dead = run(ours().env("VSWITCH_RUNDIR", dir.path()).arg("dpif/show"));
    assert!(dead.status == 1 && dead.err.contains("not running any more"), "{dead:?}");
}

#[test]
fn help_names_every_command() {
    let help = run(ours().arg("--help"));
    assert_eq!((help.status, help.err.as_str()), (0, ""));
    for word in ["add-port BRIDGE PORT", "dump-flows BRIDGE", "wait-until", "--rundir DIR"] {
        assert!(help.out.contains(word), "{word}");
    }
    for args in [["add-port", "--help"], ["help", "add-port"]] {
        let about = run(ours().args(args));
        assert!(about.status == 0 && about.out.contains("[--may-exist] add-port BRIDGE PORT"));
    }
    assert_eq!(run(ours().args(["help", "ad-port"])).status, 1);
    assert!(run(ours().arg("-V")).out.starts_with("vswitchctl "));
}
