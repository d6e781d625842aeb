//! Clients that send nonsense, or too much, or do not read: it must be their own problem only.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use common::{DEADLINE, Ours, Raw, is_closed, push, wait_until};
use ovsdb::jsonrpc::{MAX_MESSAGE_BYTES, Message};
use ovsdb::server::{MAX_CLIENTS, Server};
use ovsdb::service::{MAX_BACKLOG, MAX_LOCKS, MAX_MONITORS, MAX_WAITING};
use serde_json::{Value, json};

fn connect(ours: &Ours) -> UnixStream {
    UnixStream::connect(ours.socket()).unwrap()
}

/// The server answers somebody else, and holds nothing of what was attempted.
fn assert_well(ours: &Ours, rows: usize) {
    let mut client = Raw::connect(&ours.socket());
    let select = json!({"op": "select", "table": "QoS", "where": [], "columns": ["_uuid"]});
    let result = client.transact(vec![select]);
    assert_eq!(result[0]["rows"].as_array().unwrap().len(), rows);
}

fn insert(name: &str) -> Value {
    json!({"op": "insert", "table": "QoS", "row": {"type": name}})
}

#[test]
fn garbage_is_answered_by_disconnecting() {
    let ours = Ours::start();
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"id\":0,\"method\":\"echo\",\"params\":{deep}");
    for garbage in [
        &b"\xff\xfe\x00\x01garbage"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"id\":0,}",
        b"{}",
        b"{\"id\":0,\"method\":\"echo\",\"params\":[\"\xc3\x28\"]}",
        b"{\"id\":0,\"method\":\"echo\",\"params\":[\"\\ud800\"]}",
        b"[]",
        b"}",
        deep.as_bytes(),
        nested.as_bytes(),
    ] {
        let mut stream = connect(&ours);
        push(&mut stream, garbage);
        assert!(is_closed(&mut stream), "{:?}", String::from_utf8_lossy(garbage));
    }
    assert_well(&ours, 0);
}

#[test]
fn half_a_message_stalls_nobody_and_does_nothing() {
    let ours = Ours::start();
    let whole = Message::Request {
        id: json!(1),
        method: "transact".into(),
        params: json!(["Open_vSwitch", insert("half")]),
    };
    let bytes = whole.to_bytes();
    for cut in [1, 10, bytes.len() / 2, bytes.len() - 1] {
        let mut stream = connect(&ours);
        assert!(push(&mut stream, &bytes[..cut]));
        assert_well(&ours, 0);
        drop(stream);
        assert_well(&ours, 0);
    }
    // The rest of it, later, byte by byte, and it is done.
    let mut stream = connect(&ours);
    bytes.iter().for_each(|byte| assert!(push(&mut stream, &[*byte])));
    let mut raw = Raw::over(stream);
    assert!(matches!(raw.receive(), Message::Reply { .. }));
    assert_well(&ours, 1);
}

#[test]
fn a_line_of_100_megabytes_is_cut_short() {
    let ours = Ours::start();
    let mut stream = connect(&ours);
    push(&mut stream, b"{\"id\":1,\"method\":\"echo\",\"params\":[\"");
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while sent < 100 << 20 && push(&mut stream, &chunk) {
        sent += chunk.len();
    }
    assert!(sent < 2 * MAX_MESSAGE_BYTES, "{sent} bytes were taken");
    assert!(is_closed(&mut stream));
    assert_well(&ours, 0);
}

#[test]
fn a_client_that_leaves_while_its_transaction_waits_leaves_nothing() {
    let ours = Ours::start();
    let mut waiting = Raw::connect(&ours.socket());
    let wait = json!({"op": "wait", "table": "Queue", "where": [], "columns": ["dscp"],
                      "until": "!=", "rows": []});
    waiting.send("transact", json!(["Open_vSwitch", wait, insert("late")]));
    waiting.call("lock", json!(["l"]));
    let mut other = Raw::connect(&ours.socket());
    assert_eq!(other.call("lock", json!(["l"])), json!({"locked": false}));
    drop(waiting);
    // The lock says that the server has noticed.
    assert!(matches!(other.receive(), Message::Notification { method, .. } if method == "locked"));
    other.transact(vec![json!({"op": "insert", "table": "Queue", "row": {}})]);
    assert_well(&ours, 0);
}

#[test]
fn a_waiting_transaction_can_be_cancelled() {
    let ours = Ours::start();
    let mut client = Raw::connect(&ours.socket());
    let wait = json!({"op": "wait", "table": "Queue", "where": [], "columns": ["dscp"],
                      "until": "!=", "rows": []});
    let id = client.send("transact", json!(["Open_vSwitch", wait, insert("late")]));
    // Another connection cannot.
    let mut other = Raw::connect(&ours.socket());
    let cancel = |id: &Value| {
        Message::Notification { method: "cancel".into(), params: json!([id]) }.to_bytes()
    };
    let mut stream = connect(&ours);
    assert!(push(&mut stream, &cancel(&id)));
    let mut stranger = Raw::over(stream);
    stranger.call("echo", json!([]));
    client.call("echo", json!([]));
    let own = client.send("transact", json!(["Open_vSwitch", wait]));
    client.notify("cancel", json!([own]));
    let answer = client.receive();
    assert_eq!(answer, Message::Error { id: own, error: "canceled".into() });
    other.transact(vec![json!({"op": "insert", "table": "Queue", "row": {}})]);
    assert!(matches!(client.receive(), Message::Reply { id: of, .. } if of == id));
    assert_well(&ours, 1);
}

#[test]
fn a_slow_reader_is_disconnected_and_delays_nobody() {
    let ours = Ours::start();
    let mut slow = Raw::connect(&ours.socket());
    slow.call("monitor", json!(["Open_vSwitch", null, {"QoS": {}}]));
    let mut busy = Raw::connect(&ours.socket());
    busy.transact(vec![insert("x")]);
    let begin = Instant::now();
    let (mut written, size) = (0, 256 << 10);
    while written < 3 * MAX_BACKLOG {
        let row = json!({"type": format!("{written}{}", "y".repeat(size))});
        let update = json!({"op": "update", "table": "QoS", "where": [], "row": row});
        assert_eq!(busy.transact(vec![update])[0]["count"], 1);
        written += size;
    }
    assert!(begin.elapsed() < DEADLINE);
    // What its socket had taken is still there; then the end, long before all that was written.
    let mut received = 0;
    while let Ok(message) = slow.try_receive() {
        received += message.to_bytes().len();
    }
    assert!(received < 2 * MAX_BACKLOG, "{received}");
    assert_well(&ours, 1);
}

#[test]
fn requests_sent_without_reading_replies_are_all_answered() {
    let ours = Ours::start();
    let mut stream = connect(&ours);
    let request = |id: u64| Message::Request {
        id: json!(id),
        method: "get_schema".into(),
        params: json!(["Open_vSwitch"]),
    };
    let all: Vec<u8> = (0..3000).flat_map(|id| request(id).to_bytes()).collect();
    // Writing blocks once the server reads no more, so a thread of its own writes.
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&all));
    // Others are served meanwhile.
    assert_well(&ours, 0);
    stream.flush().unwrap();
    let mut raw = Raw::over(stream);
    for id in 0..3000 {
        assert!(matches!(raw.receive(), Message::Reply { id: of, .. } if of == json!(id)));
    }
    writing.join().unwrap().unwrap();
}

#[test]
fn clients_beyond_the_limit_are_turned_away() {
    let ours = Ours::start();
    let mut clients: Vec<Raw> = (0..MAX_CLIENTS).map(|_| Raw::connect(&ours.socket())).collect();
    for client in &mut clients {
        client.call("echo", json!([]));
    }
    assert!(is_closed(&mut connect(&ours)));
    // The switch itself always gets in.
    let mut own = Raw::over(ours.server.as_ref().unwrap().connect_in_process().unwrap());
    own.call("echo", json!([]));
    clients.truncate(MAX_CLIENTS - 1);
    wait_until("there is room again", || {
        let mut raw = Raw::connect(&ours.socket());
        raw.try_send("echo", json!([])) && raw.try_receive().is_ok()
    });
}

#[test]
fn monitors_locks_and_waits_are_limited_per_client() {
    let ours = Ours::start();
    let mut client = Raw::connect(&ours.socket());
    let refused = |messages: Vec<Message>| match messages.last() {
        Some(Message::Error { error, .. }) => error["error"] == "resources exhausted",
        _ => false,
    };
    for n in 0..=MAX_MONITORS {
        let answer = client.call_all("monitor", json!(["Open_vSwitch", n, {"QoS": {}}]));
        assert_eq!(refused(answer), n == MAX_MONITORS);
    }
    for n in 0..=MAX_LOCKS {
        let answer = client.call_all("lock", json!([format!("l{n}")]));
        assert_eq!(refused(answer), n == MAX_LOCKS);
    }
    let wait = json!({"op": "wait", "table": "Queue", "where": [], "columns": ["dscp"],
                      "until": "!=", "rows": []});
    for _ in 0..MAX_WAITING {
        client.send("transact", json!(["Open_vSwitch", wait]));
    }
    assert!(refused(client.call_all("transact", json!(["Open_vSwitch", wait]))));
    client.call("echo", json!([]));
}

#[test]
fn the_socket_is_taken_over_only_from_the_dead() {
    let mut ours = Ours::start();
    let second = ours.dir.path().join("second.db");
    let error = Server::start(&second, &ours.socket()).unwrap_err().to_string();
    assert!(error.contains("another process serves this socket"), "{error}");
    assert_well(&ours, 0);
    let mut client = connect(&ours);
    ours.stop();
    assert!(is_closed(&mut client));
    assert!(!ours.socket().exists());
    // A socket file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(ours.socket()).unwrap());
    ours.restart();
    assert_well(&ours, 0);
    ours.stop();
    // A file that is no socket is somebody's.
    std::fs::write(ours.socket(), "precious").unwrap();
    let error = Server::start(&ours.file(), &ours.socket()).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(ours.socket()).unwrap(), "precious");
    let long = ours.dir.path().join("x".repeat(120));
    let error = Server::start(&ours.file(), &long).unwrap_err().to_string();
    assert!(error.contains("107 bytes"), "{error}");
}

#[test]
fn a_corrupt_file_is_refused_at_start() {
    let mut ours = Ours::start();
    let mut client = Raw::connect(&ours.socket());
    client.transact(vec![insert("a")]);
    client.transact(vec![insert("b")]);
    ours.stop();
    let mut bytes = std::fs::read(ours.file()).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    std::fs::write(ours.file(), &bytes).unwrap();
    let error = Server::start(&ours.file(), &ours.socket()).unwrap_err().to_string();
    assert!(error.contains("conf.db: line 6, byte ") && error.contains("SHA-1"), "{error}");
    assert_eq!(std::fs::read(ours.file()).unwrap(), bytes);
    assert!(!ours.socket().exists());
}

#[test]
fn a_reply_larger_than_the_socket_arrives_whole() {
    // A peer that reads nothing at all while a big reply is due, then reads it whole.
    let ours = Ours::start();
    let mut client = Raw::connect(&ours.socket());
    let big = "z".repeat(3 << 20);
    client.transact(vec![insert(&big)]);
    let select = json!({"op": "select", "table": "QoS", "where": []});
    client.send("transact", json!(["Open_vSwitch", select, select]));
    assert_well(&ours, 1);
    let Message::Reply { result, .. } = client.receive() else { panic!() };
    assert_eq!(result[1]["rows"][0]["type"].as_str().map(str::len), Some(big.len()));
}
