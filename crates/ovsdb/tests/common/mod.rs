//! What the integration tests share: our server, OVS's server, OVS's programs, raw connections.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ovsdb::jsonrpc::{Connection, Message};
use ovsdb::server::Server;
use serde_json::{Value, json};

/// How long anything may take before a test fails; far more than it ever takes.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Our server in a directory of its own.
pub struct Ours {
    pub server: Option<Server>,
    pub dir: tempfile::TempDir,
}

impl Ours {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("conf.db"), &dir.path().join("db.sock"));
        Self { server: Some(server.unwrap()), dir }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("conf.db")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    pub fn restart(&mut self) {
        self.stop();
        self.server = Some(Server::start(&self.file(), &self.socket()).unwrap());
    }
}

/// A process that ends with its test, also when the test fails.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// OVS's ovsdb-server with a database of OVS's own schema.
pub struct Theirs {
    child: Child,
    pub dir: tempfile::TempDir,
}

impl Theirs {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("conf.db");
        let created = tool("ovsdb-tool")
            .arg("create")
            .arg(&file)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/vswitch.schema.json"))
            .output()
            .expect(NEEDED);
        assert!(created.status.success(), "{created:?}");
        Self::serve(dir)
    }

    /// Serves the `conf.db` in `dir`.
    pub fn serve(dir: tempfile::TempDir) -> Self {
        let socket = dir.path().join("db.sock");
        let child = tool("ovsdb-server")
            .arg(dir.path().join("conf.db"))
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", dir.path().join("ctl").display()))
            .args(["--no-chdir", "-vconsole:off"])
            .stdin(Stdio::null())
            .spawn()
            .expect(NEEDED);
        wait_until("ovsdb-server listens", || UnixStream::connect(&socket).is_ok());
        Self { child, dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    /// Stops it and gives its directory.
    pub fn stop(mut self) -> PathBuf {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dir.path().to_owned()
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const NEEDED: &str = "this test needs Debian's openvswitch-switch and openvswitch-common \
                          (ovs-vsctl, ovsdb-client, ovsdb-tool, ovsdb-server): install them";

/// One of OVS's programs; they are in /usr/sbin too, which not every PATH has.
pub fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    // Nothing of a switch that may be running on this machine is to be touched.
    command.env("OVS_RUNDIR", "/nonexistent").env("OVS_DBDIR", "/nonexistent");
    command
}

/// Runs one of OVS's programs; it must be installed.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    tool(name).args(arguments).stdin(Stdio::null()).output().expect(NEEDED)
}

/// As [`run`], must succeed, gives its standard output; anything on standard error is a failure.
pub fn run_ok(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{name} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `text` with every UUID replaced, so that two databases can be compared.
pub fn without_uuids(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let candidate: String = chars[at..(at + 36).min(chars.len())].iter().collect();
        if candidate.parse::<ovsdb::Uuid>().is_ok() {
            out.push_str("UUID");
            at += 36;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// A raw connection.
pub struct Raw {
    connection: Connection<UnixStream>,
    next_id: u64,
}

impl Raw {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        Self::over(stream)
    }

    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { connection: Connection::new(stream), next_id: 0 }
    }

    pub fn send(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = json!(self.next_id);
        let request = Message::Request { id: id.clone(), method: method.into(), params };
        self.connection.send(&request).unwrap();
        id
    }

    pub fn notify(&mut self, method: &str, params: Value) {
        let message = Message::Notification { method: method.into(), params };
        self.connection.send(&message).unwrap();
    }

    pub fn try_send(&mut self, method: &str, params: Value) -> bool {
        let message = Message::Request { id: json!(0), method: method.into(), params };
        self.connection.send(&message).is_ok()
    }

    pub fn try_receive(&mut self) -> Result<Message, ovsdb::jsonrpc::ProtocolError> {
        self.connection.receive()
    }

    pub fn receive(&mut self) -> Message {
        self.connection.receive().unwrap()
    }

    /// Calls, and gives everything received up to the reply, the reply last.
    pub fn call_all(&mut self, method: &str, params: Value) -> Vec<Message> {
        let id = self.send(method, params);
        let mut received = Vec::new();
        loop {
            let message = self.receive();
            let is_reply = matches!(&message,
                Message::Reply { id: of, .. } | Message::Error { id: of, .. } if *of == id);
            received.push(message);
            if is_reply {
                return received;
            }
        }
    }

    /// Calls and gives the result; notifications are dropped.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        match self.call_all(method, params).pop() {
            Some(Message::Reply { result, .. }) => result,
            other => panic!("{method}: {other:?}"),
        }
    }

    pub fn transact(&mut self, mut operations: Vec<Value>) -> Value {
        operations.insert(0, json!("Open_vSwitch"));
        self.call("transact", operations.into())
    }
}

/// True once the peer has closed the stream.
pub fn is_closed(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Writes what the stream takes; false once the peer is gone.
pub fn push(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).is_ok()
}
