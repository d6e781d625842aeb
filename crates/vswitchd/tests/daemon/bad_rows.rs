//! Rows that cannot work: each is named once in the log and in its own columns, and nothing else
//! notices.

use crate::bench::Daemon;
use std::time::{Duration, Instant};

/// The row, what `error` contains, whether it runs all the same.
const ROWS: &[(&str, &str, bool)] = &[
    ("type=nonsense", "type \\\"nonsense\\\" is not supported", false),
    ("type=internal options:n_rxq=0", "options:n_rxq=\\\"0\\\" is not a number", false),
    ("type=system", "the host has no netdev", false),
    ("type=dpdkvhostuserclient", "options:vhost-server-path is missing", false),
    ("type=dpdkvhostuserclient options:vhost-server-path=/tmp", "is a directory", false),
    ("type=dpdkvhostuserclient options:vhost-server-path=LONG", "bytes long", false),
    ("type=dpdkvhostuserclient options:vhost-server-path=GOOD", "the socket of interface", false),
    ("type=dpdkvhostuser mtu_request=20000", "mtu_request 20000 is not in 68 to 9702", true),
    ("type=dpdkvhostuser mtu_request=5", "mtu_request 5 is not in", true),
];

#[test]
fn a_bad_row_is_told_once_and_takes_no_other_port_down() {
    let d = Daemon::start();
    let good = d.rundir().join("good.sock").display().to_string();
    d.vsctl(&format!(
        "add-br br0 -- add-port br0 good -- set Interface good type=dpdkvhostuserclient \
         options:vhost-server-path={good} -- add-port br0 good2 -- set Interface good2 \
         type=dpdkvhostuser"
    ));
    let state = || {
        let columns = |i| ["_uuid", "ofport", "error", "status"].map(|c| d.get(i, c));
        (columns("good"), columns("good2"))
    };
    let before = state();
    for (n, (settings, error, runs)) in ROWS.iter().enumerate() {
        let settings = settings.replace("LONG", &"x".repeat(200)).replace("GOOD", &good);
        let add = format!("add-port br0 bad{n} -- set Interface bad{n} {settings}");
        d.try_vsctl(&add.split_whitespace().collect::<Vec<_>>());
        let ofport = d.get(&format!("bad{n}"), "ofport");
        assert_eq!(ofport != "-1", *runs, "{settings}: {ofport}");
        let told = d.get(&format!("bad{n}"), "error");
        assert!(told.contains(error), "{settings}: {told}");
    }
    // Names that are odd: one that would leave the directory, and ones that are taken there.
    for (name, error) in [
        ("a/../../b", "may not contain /"),
        ("..", "is a directory"),
        ("conf.db", "in use"),
        ("db.sock", "another process listens"),
    ] {
        let add = ["--no-wait", "add-port", "br0", name, "--", "set", "Interface", name];
        let run = d.try_vsctl(&[&add[..], &["type=dpdkvhostuser"]].concat());
        assert_eq!(run.status, 0, "{run:?}");
        d.wait_column(name, "ofport", "-1");
        let told = d.get(name, "error");
        assert!(told.contains(error), "{name}: {told}");
    }
    d.vsctl(
        "--no-wait add-port br0 bond -- --id=@i create Interface name=other type=dpdkvhostuser -- \
         add Port bond interfaces @i",
    );
    d.wait_column("other", "ofport", "-1");
    assert!(d.get("other", "error").contains("bonds are not supported"));
    // More changes, so that everything is looked at again and again.
    for n in 0..5 {
        d.vsctl(&format!("set Open_vSwitch . external_ids:n={n} other_config:max-idle={n}0000"));
    }
    assert_eq!(before, state());
    for n in 0..ROWS.len() {
        let lines = d.log_lines(&format!(" bad{n}: "));
        let warnings = lines.iter().filter(|l| l.contains("WARN")).count();
        assert_eq!(warnings, 1, "one line for bad{n}: {lines:?}");
    }
}

#[test]
fn numbers_that_are_none_are_told_once_and_answered_by_defaults() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-port br0 a -- set Interface a type=dpdkvhostuser");
    d.vsctl(
        "set Open_vSwitch . other_config:flow-limit=garbage other_config:max-idle=-5 \
         other_config:stats-update-interval=1e3 -- set Bridge br0 \
         other_config:mac-aging-time=soon datapath_type=strange",
    );
    for what in ["flow-limit", "max-idle", "stats-update-interval", "mac-aging-time", "strange"] {
        assert_eq!(d.log_lines(what).len(), 1, "{what}: {}", d.log());
    }
    assert!(d.appctl("upcall/show").contains("(limit 200000)"));
    d.vsctl("set Open_vSwitch . other_config:flow-limit=99999999999999999999");
    assert!(d.appctl("upcall/show").contains("(limit 200000)"));
    d.vsctl("set Open_vSwitch . other_config:flow-limit=18446744073709551615");
    assert!(d.appctl("upcall/show").contains("(limit 1000000)"));
    // A mask of 2,000 cores that are not there, and one that is no mask: one line each, no thread lost.
    for (mask, told) in [("f".repeat(500), "pmd-cpu-mask: "), ("0xyz".into(), "not a hexadecimal")]
    {
        d.vsctl(&format!("set Open_vSwitch . other_config:pmd-cpu-mask={mask}"));
        assert_eq!(d.log_lines(told).len(), 1, "{}", d.log());
        assert!(d.appctl("dpif-netdev/pmd-rxq-show").contains("port: a"));
    }
    let refused = d.try_vsctl(&["set", "Interface", "a", "ofport_request=70000"]);
    assert_ne!(refused.status, 0, "out of the schema's range");
    assert_eq!(d.get("a", "ofport"), "1");
}

/// What OVS does and this switch does not yet is told, once, and disturbs nothing.
#[test]
fn columns_without_effect_are_told_once() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-port br0 a -- set Interface a type=dpdkvhostuser");
    let none = "is not implemented";
    assert_eq!(d.log_lines(none), [""; 0], "nothing is asked for");
    // What stands for nothing is not told either.
    d.vsctl("set Bridge br0 stp_enable=false -- set Port a lacp=off -- set Interface a bfd:enable=false lldp:x=y");
    assert_eq!(d.log_lines(none), [""; 0]);
    d.vsctl(
        "set Bridge br0 stp_enable=true rstp_enable=true netflow=@n sflow=@s ipfix=@i controller=@c -- --id=@n create \
         NetFlow targets=\"127.0.0.1:9\" -- --id=@s create sFlow targets=\"127.0.0.1:9\" -- --id=@i create IPFIX \
         targets=\"127.0.0.1:9\" -- --id=@c create Controller target=\"tcp:127.0.0.1\" -- set Port a lacp=active -- set \
         Interface a bfd:enable=true cfm_mpid=7 lldp:enable=true -- set Open_vSwitch . manager_options=@m ssl=@t other_config:hw-offload=true -- \
         --id=@m create Manager target=\"ptcp:6640\" -- --id=@t create SSL private_key=a certificate=b ca_cert=c",
    );
    for n in 0..3 {
        d.vsctl(&format!("set Bridge br0 other_config:mac-aging-time=10{n}"));
    }
    let rows = [
        (
            "bridge br0: ",
            &["stp_enable", "rstp_enable", "netflow", "sflow", "ipfix", "controller"][..],
        ),
        ("port a: ", &["lacp"]),
        ("interface a: ", &["bfd", "cfm_mpid", "lldp"]),
        (" ", &["manager_options", "ssl", "other_config:hw-offload"]),
    ];
    for (what, columns) in rows {
        for column in columns {
            let line = format!("{what}{column} is not implemented: ignored");
            assert_eq!(d.log_lines(&line).len(), 1, "{line}: {}", d.log());
        }
    }
    assert_eq!(d.log_lines(none).len(), 13, "{}", d.log());
    assert_eq!((d.get("a", "ofport"), d.get("a", "error")), ("1".into(), "[]".into()));
    d.appctl("ofctl/add-meter br0 meter=3,kbps,band=type=drop,rate=1000");
    assert_eq!(d.log_lines("meter 3 passes everything").len(), 1, "{}", d.log());
}

/// Clients that send garbage, half of something, or never read, hold up nobody.
#[test]
fn hostile_clients_hold_up_nobody() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let d = Daemon::start();
    let mut kept = Vec::new();
    for socket in ["db.sock".to_owned(), format!("vswitchd.{}.ctl", d.pid())] {
        for bytes in [&b"\0\xff\xfe garbage"[..], b"{\"id\":0,\"method\":\"list-com", b"[[[[[[[[[["]
        {
            let mut stream = UnixStream::connect(d.rundir().join(&socket)).expect("it listens");
            let _ = stream.write_all(bytes);
            kept.push(stream);
        }
        // One that asks and asks and never reads.
        let mut stream = UnixStream::connect(d.rundir().join(&socket)).expect("it listens");
        stream.set_write_timeout(Some(Duration::from_millis(50))).expect("settable");
        let ask = b"{\"id\":0,\"method\":\"list-commands\",\"params\":[]}".repeat(500);
        while kept.len() < 200 && stream.write_all(&ask).is_ok() {}
        kept.push(stream);
    }
    let start = Instant::now();
    d.vsctl("add-br br0");
    assert!(d.appctl("dpif/show").contains("br0"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
