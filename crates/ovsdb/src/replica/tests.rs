//! The replica against Debian's `ovsdb-server`, and against scripted servers of older kinds.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::*;
use crate::jsonrpc::Connection;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATIENCE: Duration = Duration::from_secs(20);

/// Debian's server on an empty database in a directory of its own.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("conf.db");
        let made = Command::new("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA).status();
        assert!(made.expect("ovsdb-tool (package openvswitch-common) must be installed").success());
        let child = Command::new("ovsdb-server")
            .arg(&file)
            .arg(format!("--remote=punix:{}/db.sock", dir.path().display()))
            .arg(format!("--unixctl={}/s.ctl", dir.path().display()))
            .args(["-vconsole:off", "-vsyslog:off"])
            .stdin(Stdio::null())
            .spawn()
            .expect("ovsdb-server (package openvswitch-common) must be installed");
        Self { child, dir }
    }

    fn connect(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::connect(self.dir.path().join("db.sock")) {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn insert_bridge(name: &str, other: Value) -> Vec<Value> {
    vec![
        json!({"op": "insert", "table": "Bridge", "uuid-name": "b",
               "row": {"name": name, "other_config": other}}),
        json!({"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}}),
    ]
}

#[test]
fn follows_debians_server() {
    let server = Server::start();
    follows(server.connect());
    follows_locks(|| server.connect());
}

#[test]
fn follows_our_server() {
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("conf.db"), dir.path().join("db.sock"));
    let server = crate::server::Server::start(&file, &socket).unwrap();
    follows(Client::connect(&socket).unwrap());
    follows_locks(|| Client::from_stream(server.connect_in_process().unwrap()).unwrap());
}

fn follows(client: Client) {
    let selection: Selection =
        &[("Bridge", None), ("Open_vSwitch", Some(&["bridges", "no-such-column"])), ("Gone", None)];
    let mut replica = Replica::start(client, "Open_vSwitch", selection).unwrap();
    assert!(replica.only_row("Open_vSwitch").is_none());

    let other = json!(["map", [["a", "1"], ["b", "2"]]]);
    let results = replica.transact(insert_bridge("br0", other)).unwrap();
    assert_eq!(results.len(), 2);
    assert!(replica.next_update(Some(PATIENCE)).unwrap());
    let (uuid, bridge) = replica.find("Bridge", "name", "br0").unwrap();
    assert_eq!(bridge.map_value("other_config", "b"), Some("2"));
    assert_eq!(bridge.optional_string("fail_mode"), None);
    assert!(!bridge.boolean("stp_enable"));
    let (_, root) = replica.only_row("Open_vSwitch").unwrap();
    assert_eq!(root.uuids("bridges"), [uuid]);
    assert_eq!(root.get("external_ids"), None);

    // A difference: one key changes, one goes, one comes.
    let change = json!({"op": "update", "table": "Bridge", "where": [], "row": {
        "other_config": ["map", [["a", "9"], ["c", "3"]]], "fail_mode": "secure",
        "flood_vlans": ["set", [5, 7]]}});
    replica.transact(vec![change]).unwrap();
    assert!(replica.next_update(Some(PATIENCE)).unwrap());
    let bridge = replica.row("Bridge", uuid).unwrap();
    let expect = [("a", "9"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(bridge.string_map("other_config"), expect.into());
    assert_eq!(bridge.optional_string("fail_mode"), Some("secure"));
    assert_eq!(bridge.integers("flood_vlans"), [5, 7]);

    replica.transact(vec![json!({"op": "delete", "table": "Open_vSwitch", "where": []})]).unwrap();
    assert!(replica.next_update(Some(PATIENCE)).unwrap());
    assert!(replica.rows("Bridge").is_empty() && replica.rows("Open_vSwitch").is_empty());
    assert!(!replica.next_update(Some(Duration::from_millis(1))).unwrap());
}

#[test]
fn refusals_leave_the_connection_usable() {
    let server = Server::start();
    let mut replica =
        Replica::start(server.connect(), "Open_vSwitch", &[("Bridge", None)]).unwrap();
    let bad = json!({"op": "insert", "table": "Bridge", "row": {"fail_mode": "x"}});
    let error = replica.transact(vec![bad]).unwrap_err();
    assert!(!error.should_reconnect(), "{error}");
    assert!(error.to_string().contains("not one of the allowed values"), "{error}");
    replica.transact(insert_bridge("br0", json!(["map", []]))).unwrap();

    let error = Replica::start(server.connect(), "No_such_db", &[]).unwrap_err();
    assert!(matches!(error, ClientError::Server { .. }), "{error}");
}

/// Two clients that want the same lock, the second with a thread that reads.
fn follows_locks(connect: impl Fn() -> Client) {
    let mut first = Replica::start(connect(), "Open_vSwitch", &[("Bridge", None)]).unwrap();
    let mut second = Replica::start(connect(), "Open_vSwitch", &[("Bridge", None)]).unwrap();
    assert!(first.lock("ovs_vswitchd").unwrap());
    assert!(!second.lock("ovs_vswitchd").unwrap());

    let (tell, told) = mpsc::channel();
    second.read_in_thread(move |message| tell.send(message).is_ok()).unwrap();
    let next = |replica: &mut Replica| {
        let message = told.recv_timeout(PATIENCE).expect("a message in time").unwrap();
        replica.handle(message).unwrap()
    };
    // An operation that asserts the lock fails while the other holds it.
    let with_lock = |name: &str| {
        let mut operations = insert_bridge(name, json!(["map", []]));
        operations.push(json!({"op": "assert", "lock": "ovs_vswitchd"}));
        operations
    };
    let id = second.send_transact(with_lock("br0")).unwrap();
    match next(&mut second) {
        Event::Reply(got, Err(error)) => {
            assert_eq!(got, id);
            assert!(error.to_string().contains("not owner"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    drop(first);
    assert!(matches!(next(&mut second), Event::Lock(name, true) if name == "ovs_vswitchd"));
    let id = second.send_transact(with_lock("br0")).unwrap();
    // The update and the reply come in either order.
    let (mut updated, mut replied) = (false, false);
    while !(updated && replied) {
        match next(&mut second) {
            Event::Updated => updated = true,
            Event::Reply(got, Ok(_)) => replied = got == id,
            other => panic!("{other:?}"),
        }
    }
    assert!(second.find("Bridge", "name", "br0").is_some());
}

#[test]
fn a_reading_thread_tells_of_the_death_of_the_server() {
    let server = Server::start();
    let mut replica =
        Replica::start(server.connect(), "Open_vSwitch", &[("Bridge", None)]).unwrap();
    let (tell, told) = mpsc::channel();
    replica.read_in_thread(move |message| tell.send(message).is_ok()).unwrap();
    drop(server);
    assert!(told.recv_timeout(PATIENCE).unwrap().is_err());
    assert!(told.recv_timeout(PATIENCE).is_err(), "it is told once");
}

/// A server that answers each call in turn by the script and then sends `updates`.
fn scripted(replies: Vec<(&'static str, Value)>, updates: Vec<Message>) -> Client {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = Connection::new(theirs);
    thread::spawn(move || {
        for (expect, result) in replies {
            let Ok(Message::Request { id, method, .. }) = server.receive() else { return };
            let reply = match method == expect {
                true => Message::Reply { id, result },
                false => Message::Error { id, error: json!("unknown method") },
            };
            let _ = server.send(&reply);
            if method != expect {
                // Asked by a newer name: the same reply is for the next try.
                let Ok(Message::Request { id, .. }) = server.receive() else { return };
                let _ = server.send(&Message::Error { id, error: json!("unknown method") });
                let Ok(Message::Request { id, method, .. }) = server.receive() else { return };
                assert_eq!(method, "monitor");
                let result = json!({"Bridge": {UUID: {"new": {"name": "old"}}}});
                let _ = server.send(&Message::Reply { id, result });
            }
        }
        for update in updates {
            let _ = server.send(&update);
        }
        // Stays open until the client goes.
        let _ = server.receive();
    });
    Client::from_stream(ours).unwrap()
}

const UUID: &str = "11111111-2222-4333-8444-555555555555";

fn schema() -> Value {
    DatabaseSchema::open_vswitch().unwrap().to_json()
}

fn update(method: &str, params: Value) -> Message {
    Message::Notification { method: method.to_owned(), params }
}

#[test]
fn falls_back_to_the_monitor_of_the_rfc() {
    let updates = vec![
        update("update", json!(["other", {"Bridge": {UUID: {"new": {"name": "not ours"}}}}])),
        update(
            "update",
            json!([MONITOR_ID, {"Bridge": {UUID: {"old": {"name": "old"},
            "new": {"name": "new", "fail_mode": "secure"}}}}]),
        ),
        update("update", json!([MONITOR_ID, {"Bridge": {UUID: {"old": {"name": "new"}}}}])),
    ];
    let replies = vec![("get_schema", schema()), ("monitor", json!(null))];
    let client = scripted(replies, updates);
    let mut replica = Replica::start(client, "Open_vSwitch", &[("Bridge", None)]).unwrap();
    assert!(replica.find("Bridge", "name", "old").is_some());
    assert!(replica.next_update(Some(PATIENCE)).unwrap());
    let (_, row) = replica.find("Bridge", "name", "new").unwrap();
    assert_eq!(row.string("fail_mode"), "secure");
    assert!(replica.next_update(Some(PATIENCE)).unwrap());
    assert!(replica.rows("Bridge").is_empty());
}

#[test]
fn updates_that_make_no_sense_are_errors() {
    let none = json!([false, UUID, {}]);
    for bad in [
        json!({"Bridge": {UUID: {"modify": {"name": "x"}}}}),
        json!({"Bridge": {"not a uuid": {"insert": {}}}}),
        json!({"Bridge": {UUID: {"insert": {"name": 7}}}}),
        json!({"Bridge": {UUID: {"upsert": {}}}}),
        json!({"Bridge": {UUID: {}}}),
        json!({"Port": {UUID: {"insert": {}}}}),
        json!([]),
    ] {
        let updates = vec![update("update3", json!([MONITOR_ID, UUID, bad]))];
        let replies = vec![("get_schema", schema()), ("monitor_cond_since", none.clone())];
        let client = scripted(replies, updates);
        let mut replica = Replica::start(client, "Open_vSwitch", &[("Bridge", None)]).unwrap();
        let error = replica.next_update(Some(PATIENCE)).unwrap_err();
        assert!(error.should_reconnect(), "{bad}: {error}");
    }
    let replies = vec![("get_schema", schema()), ("monitor_cond_since", none)];
    let client = scripted(replies, vec![update("monitor_canceled", json!([MONITOR_ID]))]);
    let mut replica = Replica::start(client, "Open_vSwitch", &[("Bridge", None)]).unwrap();
    assert!(replica.next_update(Some(PATIENCE)).is_err());
}
