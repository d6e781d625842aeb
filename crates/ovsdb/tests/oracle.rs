//! Our server against OVS's: the same commands and messages to both must give the same answers, and
//! each must read the other's files.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Ours, Raw, Theirs, run, run_ok, tool, wait_until, without_uuids};
use ovsdb::DatabaseSchema;
use ovsdb::jsonrpc::Message;
use serde_json::{Value, json};

/// Commands as an operator would type them, good and bad ones.
const VSCTL: &[&str] = &[
    "init",
    "show",
    "add-br br0",
    "add-br br0",
    "--may-exist add-br br0 -- set Bridge br0 datapath_type=netdev",
    "add-port br0 vhu0 -- set Interface vhu0 type=dpdkvhostuserclient options:vhost-server-path=/x",
    "--id=@q create QoS type=linux-htb queues:1=@k -- --id=@k create Queue other_config:max-rate=9 \
     -- set Port vhu0 qos=@q",
    "add-bond br0 bond0 e0 e1 bond_mode=active-backup lacp=active",
    "set Port vhu0 tag=4096",
    "set Port vhu0 tag=7 trunks=1,2,3",
    "set Interface vhu0 ofport_request=0",
    "set Interface nosuch type=internal",
    "set Port vhu0 bond_mode=zzz",
    "list Port vhu0",
    "get Interface vhu0 options:vhost-server-path type name ofport",
    "get Port vhu0 tag trunks qos",
    "remove Port vhu0 trunks 2 -- get Port vhu0 trunks",
    "clear Port vhu0 trunks -- add Port vhu0 trunks 9 10 -- get Port vhu0 trunks",
    "--id=@m create Mirror name=m0 select-all=true output-port=@p -- --id=@p get Port vhu0 -- \
     set Bridge br0 mirrors=@m",
    "list Mirror",
    "add-br br1",
    "add-port br1 vhu0",
    "--columns=name,type find Interface type=dpdkvhostuserclient",
    "list-br",
    "list-ports br0",
    "list-ifaces br0",
    "iface-to-br e1",
    "br-exists nosuch",
    "set-controller br0 tcp:127.0.0.1:6653",
    "get-controller br0",
    "set-manager ptcp:6640",
    "br-set-external-id br0 a b -- br-get-external-id br0",
    "set-fail-mode br0 secure -- get-fail-mode br0",
    "set Open_vSwitch . other_config:pmd-cpu-mask=0x3 external_ids:system-id=s",
    "--if-exists del-port br0 nosuch",
    "del-port br0 nosuch",
    "del-port br0 vhu0",
    "list Mirror",
    "wait-until Bridge br0 fail_mode=secure",
    "destroy Bridge br1",
    "show",
    "list Open_vSwitch",
    "list Interface",
    "emer-reset",
    "del-br br0",
    "--format=json list Interface",
    "show",
];

/// Same lines in any order: rows come in the order of their random identifiers.
fn comparable(text: &str) -> Vec<String> {
    let text = without_uuids(text);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn vsctl(socket: &std::path::Path, command: &str) -> (Option<i32>, Vec<String>, Vec<String>) {
    let db = format!("--db=unix:{}", socket.display());
    let mut arguments = vec![db.as_str(), "--no-wait", "--timeout=20"];
    arguments.extend(command.split_whitespace());
    let output = run("ovs-vsctl", &arguments);
    let text = |bytes: &[u8]| comparable(&String::from_utf8_lossy(bytes));
    // Log lines begin with a time.
    let errors = String::from_utf8_lossy(&output.stderr)
        .lines()
        .map(|line| line.split_once('|').map_or(line, |(_, rest)| rest).to_owned() + "\n")
        .collect::<String>();
    (output.status.code(), text(&output.stdout), text(errors.as_bytes()))
}

fn dump(socket: &std::path::Path) -> Vec<String> {
    let remote = format!("unix:{}", socket.display());
    comparable(&run_ok("ovsdb-client", &["--format=csv", "dump", &remote]))
}

#[test]
fn ovs_vsctl_sees_no_difference() {
    let (mut ours, theirs) = (Ours::start(), Theirs::start());
    for command in VSCTL {
        let (mine, other) = (vsctl(&ours.socket(), command), vsctl(&theirs.socket(), command));
        assert_eq!(mine, other, "ovs-vsctl {command}");
        assert_eq!(dump(&ours.socket()), dump(&theirs.socket()), "after ovs-vsctl {command}");
    }
    ours.restart();
    assert_eq!(dump(&ours.socket()), dump(&theirs.socket()), "after a restart");
}

/// Ours is the schema of OVS 3.1, with what later versions have that works here.
#[test]
fn the_schema_is_that_of_ovs_and_a_mirrors_filter() {
    let text = std::fs::read_to_string("/usr/share/openvswitch/vswitch.ovsschema").unwrap();
    let theirs = DatabaseSchema::from_text(&text).unwrap().to_json();
    let mut ours = DatabaseSchema::open_vswitch().unwrap().to_json();
    let columns = ours["tables"]["Mirror"]["columns"].as_object_mut().unwrap();
    assert!(columns.remove("filter").is_some());
    assert_eq!((&ours["version"], &theirs["version"]), (&json!("8.3.2"), &json!("8.3.1")));
    assert_eq!(ours["tables"], theirs["tables"]);
}

#[test]
fn ovs_vsctl_has_no_warnings() {
    let ours = Ours::start();
    let (code, _, errors) = vsctl(&ours.socket(), "init -- add-br br0 -- show");
    assert_eq!((code, errors), (Some(0), vec![]));
    let tables = DatabaseSchema::open_vswitch().unwrap().tables;
    for table in tables {
        let (code, _, errors) = vsctl(&ours.socket(), &format!("list {}", table.name));
        assert_eq!((code, errors), (Some(0), vec![]), "list {}", table.name);
    }
}

/// Every message of a conversation, answers and notifications alike, is the same.
#[test]
fn a_conversation_goes_the_same_way() {
    let (ours, theirs) = (Ours::start(), Theirs::start());
    let (mut mine, mut other) = (Raw::connect(&ours.socket()), Raw::connect(&theirs.socket()));
    let script = include_str!("conversation.jsonl");
    for (nth, line) in script.lines().enumerate() {
        let call: Value = serde_json::from_str(line).unwrap();
        let method = call[0].as_str().unwrap();
        let of_mine = messages(mine.call_all(method, call[1].clone()));
        let of_other = messages(other.call_all(method, call[1].clone()));
        assert_eq!(of_mine, of_other, "line {}: {line}", nth + 1);
    }
}

/// Messages as sorted text, without what is random.
fn messages(received: Vec<Message>) -> Vec<String> {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(sorted).collect();
                // Rows of a result and elements of a set of rows come in random order.
                items.sort_by_key(|item| without_uuids(&item.to_string()));
                Value::Array(items)
            }
            Value::Object(object) => {
                let mut members: Vec<_> =
                    object.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
                members.sort_by(|a, b| {
                    (without_uuids(&a.0), without_uuids(&a.1.to_string()))
                        .cmp(&(without_uuids(&b.0), without_uuids(&b.1.to_string())))
                });
                Value::Object(members.into_iter().collect())
            }
            other => other.clone(),
        }
    }
    let text = |message: &Message| {
        let text = without_uuids(&sorted(&message.to_json()).to_string());
        // The time, and which of two rows is named first, are left to chance.
        let random = ["timed out after ", "First row, with"].iter().find_map(|cut| text.find(cut));
        text[..random.unwrap_or(text.len())].to_owned()
    };
    let mut texts: Vec<String> = received.iter().map(text).collect();
    texts.sort();
    texts
}

#[test]
fn locks_go_the_same_way() {
    let (ours, theirs) = (Ours::start(), Theirs::start());
    let talk = |socket: &std::path::Path| {
        let (mut a, mut b, mut c) =
            (Raw::connect(socket), Raw::connect(socket), Raw::connect(socket));
        let mut log = vec![
            a.call("lock", json!(["l"])),
            b.call("lock", json!(["l"])),
            c.call("steal", json!(["l"])),
            a.receive().to_json(),
            a.transact(vec![json!({"op": "assert", "lock": "l"})]),
            c.transact(vec![json!({"op": "assert", "lock": "l"})]),
            c.call("unlock", json!(["l"])),
            a.receive().to_json(),
            a.transact(vec![json!({"op": "assert", "lock": "l"})]),
        ];
        drop(a);
        log.push(b.receive().to_json());
        log
    };
    assert_eq!(talk(&ours.socket()), talk(&theirs.socket()));
}

#[test]
fn a_wait_ends_with_the_commit_that_fulfils_it() {
    let (ours, theirs) = (Ours::start(), Theirs::start());
    let talk = |socket: &std::path::Path| {
        let (mut a, mut b) = (Raw::connect(socket), Raw::connect(socket));
        let wait = json!({"op": "wait", "table": "QoS", "where": [], "columns": ["type"],
                          "until": "==", "rows": [{"type": "done"}]});
        let insert = json!({"op": "insert", "table": "Queue", "row": {}});
        a.send("transact", json!(["Open_vSwitch", wait, insert]));
        a.send("transact", json!(["Open_vSwitch", wait]));
        a.send("echo", json!(["still answering"]));
        let mut log = vec![a.receive()];
        b.transact(vec![json!({"op": "insert", "table": "QoS", "row": {"type": "done"}})]);
        log.extend([a.receive(), a.receive()]);
        messages(log)
    };
    assert_eq!(talk(&ours.socket()), talk(&theirs.socket()));
}

#[test]
fn ovsdb_client_gets_what_it_asks_for() {
    let (ours, theirs) = (Ours::start(), Theirs::start());
    for command in [
        "list-dbs",
        "get-schema-version",
        "list-tables",
        "list-columns",
        "dump _Server Database name model connected leader cid sid index",
        "query [\"Open_vSwitch\",{\"op\":\"select\",\"table\":\"QoS\",\"where\":[]}]",
        "transact [\"Open_vSwitch\",{\"op\":\"insert\",\"table\":\"QoS\",\"row\":{\"type\":\"a\"}}]",
        "transact [\"Open_vSwitch\",{\"op\":\"abort\"}]",
        "backup",
    ] {
        let ask = |socket: &std::path::Path| {
            let remote = format!("unix:{}", socket.display());
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.insert(1, &remote);
            comparable(&run_ok("ovsdb-client", &arguments))
        };
        let (mine, other) = (ask(&ours.socket()), ask(&theirs.socket()));
        match command {
            // The records carry checksums and times.
            "backup" => assert_eq!(mine.len(), other.len()),
            // The order of columns is that of the schema's text.
            _ => assert_eq!(mine, other, "ovsdb-client {command}"),
        }
    }
    let schema = |socket: &std::path::Path| {
        let remote = format!("unix:{}", socket.display());
        let text = run_ok("ovsdb-client", &["get-schema", &remote, "Open_vSwitch"]);
        DatabaseSchema { cksum: String::new(), ..DatabaseSchema::from_text(&text).unwrap() }
    };
    assert_eq!(schema(&ours.socket()), schema(&theirs.socket()));
}

#[test]
fn ovsdb_client_monitor_prints_changes() {
    let ours = Ours::start();
    let remote = format!("unix:{}", ours.socket().display());
    for command in ["monitor", "monitor-cond"] {
        let mut arguments = vec!["--format=csv", command, &remote, "Open_vSwitch"];
        if command == "monitor-cond" {
            arguments.push("[[\"name\",\"!=\",\"x\"]]");
        }
        arguments.extend(["Bridge", "name"]);
        let child = tool("ovsdb-client").args(&arguments).stdout(Stdio::piped()).spawn();
        let mut child = common::Running(child.expect(common::NEEDED));
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let name = format!("br-{command}");
        let table = json!({"op": "insert", "table": "Bridge", "row": {"name": name},
                           "uuid-name": "b"});
        let root = json!({"op": "insert", "table": "Open_vSwitch", "row": {}});
        let link = json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
                          "mutations": [["bridges", "insert", ["named-uuid", "b"]]]});
        let mut client = Raw::connect(&ours.socket());
        client.transact(vec![root]); // Only the first time; refused later.
        client.transact(vec![table, link]);
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.ends_with(&name));
        assert!(found.is_some_and(|line| without_uuids(&line).starts_with("UUID,")));
    }
}

#[test]
fn each_reads_the_others_file() {
    let mut ours = Ours::start();
    let theirs = Theirs::start();
    for command in VSCTL.iter().take_while(|command| **command != "emer-reset") {
        vsctl(&ours.socket(), command);
        vsctl(&theirs.socket(), command);
    }
    let expected = dump(&theirs.socket());
    // OVS's tools read our file, while we serve it.
    let file = ours.file().display().to_string();
    assert_eq!(run_ok("ovsdb-tool", &["db-version", &file]).trim(), "8.3.2");
    assert_eq!(run_ok("ovsdb-tool", &["db-name", &file]).trim(), "Open_vSwitch");
    let log = run_ok("ovsdb-tool", &["show-log", "-mmm", &file]);
    assert!(log.contains("vhost-server-path=\"/x\"") && log.contains("add-br br0"), "{log}");
    let query = "[\"Open_vSwitch\",{\"op\":\"select\",\"table\":\"Bridge\",\"where\":[]}]";
    assert!(run_ok("ovsdb-tool", &["query", &file, query]).contains("br0"));
    // OVS's server serves our file.
    ours.stop();
    let dir = std::mem::replace(&mut ours.dir, tempfile::tempdir().unwrap());
    let served = Theirs::serve(dir);
    assert_eq!(dump(&served.socket()), expected);
    // We serve OVS's file, as it is and compacted by OVS.
    let their_file = theirs.dir.path().join("conf.db");
    std::fs::copy(&their_file, ours.file()).unwrap();
    ours.restart();
    assert_eq!(dump(&ours.socket()), expected);
    ours.stop();
    run_ok("ovsdb-tool", &["compact", &ours.file().display().to_string()]);
    ours.restart();
    assert_eq!(dump(&ours.socket()), expected);
}

#[test]
fn ovsdb_server_and_we_exclude_each_other() {
    let theirs = Theirs::start();
    let file = theirs.dir.path().join("conf.db");
    let error = ovsdb::server::Server::start(&file, &theirs.dir.path().join("other.sock"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("another process") && error.contains("conf.db"), "{error}");
    // The other way round.
    let ours = Ours::start();
    let output = run(
        "ovsdb-server",
        &[
            &ours.file().display().to_string(),
            &format!("--unixctl={}", ours.dir.path().join("ctl").display()),
            "--no-chdir",
        ],
    );
    assert!(!output.status.success(), "{output:?}");
    // And a second one of ours.
    let other = ovsdb::server::Server::start(&ours.file(), &ours.dir.path().join("other.sock"));
    assert!(other.unwrap_err().to_string().contains("another process"));
    wait_until("the first still answers", || {
        Raw::connect(&ours.socket()).call("echo", json!([1])) == json!([1])
    });
}

/// OVS's own switch, with its built-in dummy devices, configured through our database: its monitors,
/// its lock, its ephemeral columns and the `cur_cfg` handshake.
#[test]
fn ovs_vswitchd_runs_on_it() {
    let ours = Ours::start();
    let remote = format!("unix:{}", ours.socket().display());
    let mut switch = tool("ovs-vswitchd");
    switch.arg(&remote).args(["--enable-dummy=override", "--disable-system", "--no-chdir"]);
    switch.arg(format!("--unixctl={}", ours.dir.path().join("ctl").display()));
    switch.arg("-vconsole:off").stdin(Stdio::null());
    switch.env("OVS_RUNDIR", ours.dir.path());
    let mut switch = common::Running(switch.spawn().expect(common::NEEDED));
    let db = format!("--db={remote}");
    // Without --no-wait, ovs-vsctl returns when the switch has applied the configuration.
    let ask = |command: &str| {
        let mut arguments = vec![db.as_str(), "--timeout=20"];
        arguments.extend(command.split_whitespace());
        let output = run("ovs-vsctl", &arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    ask("add-br br0 -- set Bridge br0 datapath_type=dummy \
         -- add-port br0 p1 -- set Interface p1 type=dummy ofport_request=7");
    assert_eq!(ask("get Interface p1 ofport"), "7\n");
    let numbers = ask("get Open_vSwitch . cur_cfg -- get Open_vSwitch . next_cfg");
    assert_eq!(numbers, "1\n1\n");
    wait_until("statistics arrive", || ask("get Interface p1 statistics").contains("rx_packets=0"));
    assert_eq!(ask("get Interface p1 link_state"), "up\n");
    ask("del-port p1");
    assert_eq!(ask("list-ports br0"), "");
    switch.0.kill().unwrap();
}
