//! Restarts: the same ports with the same numbers, whatever the end before was.

use crate::bench::{Daemon, debian, files, run, vswitchd};

/// Names and numbers of all ports, and all that `dpif/show` says.
fn ports(d: &Daemon) -> String {
    d.appctl("dpif/show").lines().skip(1).collect::<Vec<_>>().join("\n")
}

fn configure(d: &Daemon) {
    d.vsctl("add-br br0 -- add-br br1");
    for (bridge, name, more) in [
        ("br0", "c", ""),
        ("br0", "b", "ofport_request=40"),
        ("br0", "a", "mtu_request=3000"),
        ("br1", "d", ""),
        ("br0", "e", "mtu_request=20000"),
    ] {
        d.vsctl(&format!(
            "add-port {bridge} {name} -- set Interface {name} type=dpdkvhostuser {more}"
        ));
    }
    d.vsctl("del-port a -- set Open_vSwitch . other_config:max-idle=20000");
}

#[test]
fn the_same_ports_and_numbers_after_sigterm_and_after_kill() {
    let dir = tempfile::tempdir().expect("directory");
    let mut d = Daemon::start_in(dir.path());
    configure(&d);
    let before = ports(&d);
    let numbers = d.vsctl("--format=csv --columns=name,ofport list Interface");
    assert!(before.contains("b 40/"), "{before}");

    assert_eq!(d.end("-TERM"), 0);
    // The ports' sockets, db.sock, the pid file and the control socket are gone.
    assert_eq!(files(dir.path()), ["conf.db"]);
    let mut d = Daemon::start_in(dir.path());
    // Datapath numbers may differ, the ports' own must not.
    let own = |text: &str| {
        let lines = text.lines().map(|l| l.split('/').next().unwrap_or_default().to_owned());
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        lines
    };
    assert_eq!(own(&ports(&d)), own(&before));
    assert_eq!(d.vsctl("--format=csv --columns=name,ofport list Interface"), numbers);

    assert_eq!(d.end("-KILL"), -1);
    assert!(files(dir.path()).len() > 4, "{:?}", files(dir.path()));
    let d = Daemon::start_in(dir.path());
    assert_eq!(own(&ports(&d)), own(&before));
    let controls: Vec<_> = d.files().into_iter().filter(|f| f.ends_with(".ctl")).collect();
    assert_eq!(controls, [format!("vswitchd.{}.ctl", d.pid())], "the stale one is gone");
    let pid = std::fs::read_to_string(dir.path().join("vswitchd.pid")).expect("pid file");
    assert_eq!(pid.trim(), d.pid().to_string());
    assert!(d.files().contains(&"b".to_owned()));
}

#[test]
fn a_second_daemon_is_refused_with_one_line() {
    let d = Daemon::start();
    let second = run(&mut vswitchd(d.rundir()));
    assert_eq!(second.status, 1);
    let expected = format!(
        "vswitchd: {}: already running as pid {}\n",
        d.rundir().join("vswitchd.pid").display(),
        d.pid()
    );
    assert_eq!(second.err, expected);
    // With another pid file it is the database that is in use.
    let pid_file = d.rundir().join("second.pid");
    let second = run(vswitchd(d.rundir()).arg("--pidfile").arg(&pid_file));
    assert_eq!(second.status, 1);
    let last = second.err.lines().last().unwrap_or_default();
    assert!(last.starts_with("vswitchd: ") && last.contains("conf.db"), "{}", second.err);
    assert!(!pid_file.exists());
    d.vsctl("add-br br0");
}

#[test]
fn a_corrupt_database_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("directory");
    let mut d = Daemon::start_in(dir.path());
    d.vsctl("add-br br0");
    d.vsctl("add-br br1");
    d.end("-TERM");
    let file = dir.path().join("conf.db");
    let mut bytes = std::fs::read(&file).expect("conf.db");
    // In the middle of a record that others follow.
    let at = bytes.windows(5).position(|w| w == b"\"br0\"").expect("the bridge is in it") + 1;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let refused = run(&mut vswitchd(dir.path()));
    assert_eq!(refused.status, 1);
    let told = refused.err.lines().last().unwrap_or_default();
    assert!(told.contains("conf.db") && told.contains("line ") && told.contains("byte "), "{told}");
    assert_eq!(std::fs::read(&file).expect("conf.db"), bytes);
    assert_eq!(files(dir.path()), ["conf.db"]);
    // No database at all, but something else.
    std::fs::write(&file, "hello\n").expect("written");
    let refused = run(&mut vswitchd(dir.path()));
    assert_eq!((refused.status, std::fs::read(&file).expect("conf.db")), (1, b"hello\n".to_vec()));
}

#[test]
fn a_database_made_by_ovsdb_tool_works() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("conf.db");
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    let made = run(debian("ovsdb-tool").arg("create").arg(&file).arg(schema));
    assert_eq!(made.status, 0, "{made:?}");
    let mut d = Daemon::start_in(dir.path());
    d.vsctl("add-br br0 -- add-port br0 a -- set Interface a type=dpdkvhostuser");
    assert_eq!(d.get("a", "ofport"), "1");
    assert_eq!(d.end("-TERM"), 0);
    // And the other way round: it still is one of theirs.
    let dump = run(debian("ovsdb-tool")
        .arg("query")
        .arg(&file)
        .arg(r#"["Open_vSwitch",{"op":"select","table":"Bridge","where":[],"columns":["name"]}]"#));
    assert!(dump.out.contains("\"br0\""), "{dump:?}");
    let d = Daemon::start_in(dir.path());
    assert_eq!(d.get("a", "ofport"), "1");
}
