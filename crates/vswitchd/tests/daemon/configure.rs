//! Bridges and ports by command, and what the database says of them.

use crate::bench::{Daemon, run, vswitchctl};

#[test]
fn ports_come_and_go_and_rows_say_so() {
    let d = Daemon::start();
    let sock = d.rundir().join("vm1.sock");
    d.vsctl("add-br br0");
    d.vsctl(&format!(
        "add-port br0 vm1 -- set Interface vm1 type=dpdkvhostuserclient \
         options:vhost-server-path={}",
        sock.display()
    ));
    d.vsctl("add-port br0 vm2 -- set Interface vm2 type=dpdkvhostuser mtu_request=9000");
    assert_eq!(d.vsctl("list-ports br0"), "vm1\nvm2");
    let columns = |name: &str| {
        let all = ["ofport", "error", "admin_state", "link_state", "mtu", "mac_in_use"];
        all.map(|c| d.get(name, c)).join(" ")
    };
    assert_eq!(columns("vm1"), "1 [] up down 1500 \"00:00:00:00:00:00\"");
    assert_eq!(columns("vm2"), "2 [] up down 9000 \"00:00:00:00:00:00\"");
    assert_eq!(d.get("br0", "ofport"), "65534");
    let status = d.get("vm1", "status");
    let socket = format!("socket=\"{}\"", sock.display());
    assert!(status.contains("mode=client") && status.contains(&socket), "{status}");
    assert!(status.contains("status=disconnected"), "{status}");
    // There at once, not five seconds later.
    assert!(d.get("vm1", "statistics").contains("rx_packets=0"));
    let types = d.vsctl("get Open_vSwitch . iface_types");
    assert!(types.contains("dpdkvhostuser,") && types.contains("dpdkvhostuserclient"), "{types}");
    assert_eq!(d.vsctl("get Open_vSwitch . datapath_types"), "[netdev]");
    assert_eq!(d.vsctl("get Bridge br0 datapath_id").len(), 18);
    let configured = d.vsctl("get Open_vSwitch . next_cfg cur_cfg");
    let (next, cur) = configured.split_once('\n').expect("two lines");
    assert_eq!(next, cur);
    assert!(d.files().contains(&"vm2".to_owned()), "the switch listens on RUNDIR/vm2");

    d.vsctl("set Interface vm2 mtu_request=1400");
    assert_eq!(d.get("vm2", "mtu"), "1400");
    d.vsctl("del-port br0 vm2");
    assert!(!d.files().contains(&"vm2".to_owned()), "its socket is gone");
    assert_eq!(d.vsctl("list-ports br0"), "vm1");
    d.vsctl("del-br br0");
    assert_eq!(d.appctl("dpif/show"), "netdev@ovs-netdev: hit:0 missed:0\n");
}

#[test]
fn a_failing_interface_is_told_to_ovs_vsctl() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    let add = ["add-port", "br0", "x", "--", "set", "Interface", "x", "type=nonsense"];
    let run = d.try_vsctl(&add);
    assert!(run.err.contains("type \"nonsense\" is not supported"), "{run:?}");
    assert_eq!(d.get("x", "ofport"), "-1");
    assert!(d.get("x", "error").contains("dpdkvhostuserclient"));
    // Mended, it works, and the error goes.
    d.vsctl("set Interface x type=dpdkvhostuser");
    assert_eq!(d.get("x", "error"), "[]");
    assert_eq!(d.get("x", "ofport"), "1");
}

/// The same commands to two daemons, one by each client: the same output and the same databases.
#[test]
fn vswitchctl_and_ovs_vsctl_agree() {
    let commands = [
        "add-br br0",
        "--may-exist add-br br0",
        "add-br br1 -- set Bridge br1 other_config:mac-aging-time=60",
        "add-port br0 vm1 -- set Interface vm1 type=dpdkvhostuserclient \
         options:vhost-server-path=/nonexistent/vm1.sock ofport_request=7",
        "add-port br0 vm2 -- set Interface vm2 type=dpdkvhostuser",
        "add-port br1 vm3 -- set Interface vm3 type=dpdkvhostuser mtu_request=2000",
        "list-br",
        "list-ports br0",
        "iface-to-br vm3",
        "get Interface vm1 ofport error type options",
        "get Interface vm3 mtu ofport link_state",
        "--columns=name,ofport,mtu list Interface vm2",
        "set Open_vSwitch . other_config:pmd-cpu-mask=0x1 other_config:flow-limit=1000",
        "get Open_vSwitch . other_config",
        "del-port vm2",
        "--if-exists del-port vm2",
        "del-br br1",
        "list-ports br1",
        "br-exists br1",
        "add-port br0 vm1",
        "get Interface nonesuch ofport",
        "show-nonsense",
    ];
    let (a, b) = (Daemon::start(), Daemon::start());
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let theirs = a.try_vsctl(&words);
        let ours = run(vswitchctl().arg("--rundir").arg(b.rundir()).args(&words));
        assert_eq!(theirs.status == 0, ours.status == 0, "{command}: {theirs:?} {ours:?}");
        assert_eq!(theirs.out, ours.out, "{command}: {theirs:?} {ours:?}");
        assert_eq!(theirs.err.is_empty(), ours.err.is_empty(), "{command}: {theirs:?} {ours:?}");
    }
    let columns = [
        ("Open_vSwitch", "other_config,iface_types,datapath_types,next_cfg,cur_cfg"),
        ("Bridge", "name,other_config,datapath_version"),
        ("Port", "name,tag,trunks"),
        ("Interface", "name,type,options,ofport,ofport_request,error,mtu,mtu_request,link_state"),
    ];
    for (table, columns) in columns {
        let list = |d: &Daemon| {
            let columns = format!("--columns={columns}");
            let mut rows: Vec<String> = d
                .vsctl(&format!("--format=csv --no-heading {columns} list {table}"))
                .lines()
                .map(str::to_owned)
                .collect();
            rows.sort();
            rows
        };
        assert_eq!(list(&a), list(&b), "{table}");
    }
}

#[test]
fn everything_in_the_run_directory_has_sane_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-port br0 vm1 -- set Interface vm1 type=dpdkvhostuser");
    for entry in std::fs::read_dir(d.rundir()).expect("readable") {
        let path = entry.expect("readable").path();
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o002, 0, "{} may be written by anybody: {mode:o}", path.display());
        if path.ends_with("conf.db") || path.ends_with("log") {
            assert_eq!(mode & 0o007, 0, "{} may be read by anybody: {mode:o}", path.display());
        }
    }
}
