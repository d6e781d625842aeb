//! The start file: applied, applied again, and its mistakes.

use crate::bench::{Daemon, run, vswitchd};

const FILE: &str = r#"
[other-config]
flow-limit = "5000"
[[bridge]]
name = "br0"
other-config = { mac-aging-time = "77" }
[[bridge.port]]
name = "vm1"
type = "dpdkvhostuserclient"
options = { vhost-server-path = "/nonexistent/vm1.sock" }
ofport-request = 5
[[bridge.port]]
name = "vm2"
type = "dpdkvhostuser"
mtu-request = 4000
"#;

#[test]
fn it_is_applied_and_applied_again_without_duplicates() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("start.toml");
    std::fs::write(&file, FILE).expect("written");
    let args = [std::ffi::OsStr::new("--config"), file.as_os_str()];
    let mut d = Daemon::start_with(dir.path(), &args);
    let state = |d: &Daemon| {
        let columns = "--columns=_uuid,name,type,options,ofport,mtu,error list Interface";
        d.vsctl(&format!("--format=csv {columns}"))
    };
    let before = state(&d);
    assert_eq!(d.vsctl("list-ports br0"), "vm1\nvm2");
    assert_eq!((d.get("vm1", "ofport"), d.get("vm2", "mtu")), ("5".into(), "4000".into()));
    assert_eq!(d.vsctl("get Bridge br0 other_config:mac-aging-time"), "\"77\"");
    // What was added by command stays; what was changed by command is put back.
    d.vsctl(
        "add-port br0 vm3 -- set Interface vm3 type=dpdkvhostuser -- set Interface vm2 \
             mtu_request=2000 -- set Open_vSwitch . other_config:max-idle=30000",
    );
    d.end("-TERM");
    let d = Daemon::start_with(dir.path(), &args);
    assert_eq!(d.vsctl("list-ports br0"), "vm1\nvm2\nvm3");
    d.vsctl("del-port vm3");
    assert_eq!(state(&d), before);
    let settings = d.vsctl("get Open_vSwitch . other_config");
    assert_eq!(settings, "{flow-limit=\"5000\", max-idle=\"30000\"}");
}

#[test]
fn mistakes_are_located_and_conflicts_named() {
    let dir = tempfile::tempdir().expect("directory");
    let mut d = Daemon::start_in(dir.path());
    d.vsctl("add-br br9 -- add-port br9 vm1 -- set Interface vm1 type=dpdkvhostuser");
    d.end("-TERM");
    let conf = std::fs::read(dir.path().join("conf.db")).expect("conf.db");
    let file = dir.path().join("start.toml");
    let twice = format!("{FILE}[[bridge.port]]\nname = \"vm1\"\ntype = \"dpdkvhostuser\"\n");
    let cases: &[(String, &[&str])] = &[
        (FILE.replace("mtu-request", "mtu-requst"), &["line 15, column 1", "`mtu-request`?"]),
        (FILE.replace("= 5", "= \"five\""), &["line 11, column 18", "u16"]),
        (FILE.replace("= 5", "= 70000"), &["line 11, column 18", "70000"]),
        (FILE.replace("[[bridge.port]]", "[[bridge.port]"), &["line 7"]),
        (twice, &["port vm1 (bridge br0) is there twice"]),
        (FILE.to_owned(), &["port vm1 is to be in bridge br0, but is in bridge br9 already"]),
    ];
    for (text, told) in cases {
        std::fs::write(&file, text).expect("written");
        let run = run(vswitchd(dir.path()).arg("--config").arg(&file));
        assert_eq!(run.status, 1, "{run:?}");
        let last = run.err.lines().last().unwrap_or_default();
        assert!(told.iter().all(|t| last.contains(t)), "{told:?}: {}", run.err);
    }
    assert_eq!(std::fs::read(dir.path().join("conf.db")).expect("conf.db"), conf);
}
