//! The server against our client, Debian's `ovs-appctl` and clients that misbehave.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::Client;

fn commands() -> Commands {
    let mut commands = Commands::new("vswitchd 1.2.3\n");
    commands.add("echo", "TEXT...", 1..=3, |args| Ok(args.join("|") + "\n"));
    commands.add("fail", "", 0..=0, |_| Err("it failed\nfor two reasons".to_owned()));
    commands.add("dpif-netdev/with-a-long-name", "[dp]", 0..=1, |_| Ok("x".repeat(3 << 20)));
    commands
}

fn start() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(dir.path().join("s.ctl"), commands()).unwrap();
    (dir, server)
}

fn call(client: &mut Client, method: &str, params: &[&str]) -> Result<String, String> {
    client.set_timeout(Some(Duration::from_secs(20))).unwrap();
    let params: Vec<String> = params.iter().map(|p| (*p).to_owned()).collect();
    client.call(method, &params).unwrap()
}

/// Standard output, standard error and success of Debian's `ovs-appctl`.
fn appctl(server: &Server, args: &[&str]) -> (String, String, bool) {
    let run = Command::new("ovs-appctl").arg("-t").arg(server.path()).args(args).output();
    let run = run.expect("ovs-appctl (Debian package openvswitch-switch) must be installed");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(run.stdout), text(run.stderr), run.status.success())
}

#[test]
fn our_client_gets_results_and_errors_on_one_connection() {
    let (_dir, server) = start();
    let mut client = Client::connect(server.path()).unwrap();
    assert_eq!(call(&mut client, "echo", &["a", "b c", "\"ü\n"]), Ok("a|b c|\"ü\n\n".to_owned()));
    assert_eq!(call(&mut client, "fail", &[]), Err("it failed\nfor two reasons\n".to_owned()));
    assert_eq!(call(&mut client, "version", &[]), Ok("vswitchd 1.2.3\n".to_owned()));
    let large = call(&mut client, "dpif-netdev/with-a-long-name", &[]).unwrap();
    assert_eq!(large.len(), (3 << 20) + 1);
}

#[test]
fn debians_appctl_works() {
    let (_dir, server) = start();
    let (out, _, ok) = appctl(&server, &["echo", "a", "b"]);
    assert_eq!((out.as_str(), ok), ("a|b\n", true));

    let (out, _, ok) = appctl(&server, &["list-commands"]);
    assert!(ok);
    let expect = "The available commands are:\n  \
                  dpif-netdev/with-a-long-name [dp]\n  \
                  echo                    TEXT...\n  \
                  fail                    \n  \
                  list-commands           \n  \
                  version                 \n";
    assert_eq!(out, expect);

    let (_, err, ok) = appctl(&server, &["fail"]);
    assert!(!ok && err.starts_with("it failed\nfor two reasons\n"), "{err}");
    let (out, _, _) = appctl(&server, &["dpif-netdev/with-a-long-name"]);
    assert!(out.starts_with("xxx") && out.len() >= 3 << 20);
}

#[test]
fn commands_say_how_they_are_called() {
    let (_dir, server) = start();
    for (name, usage) in [("echo", "echo TEXT..."), ("fail", "fail"), ("version", "version")] {
        let (out, _, ok) = appctl(&server, &[name, "--help"]);
        assert_eq!((out, ok), (format!("Usage: {usage}\n"), true));
    }
    let (out, _, _) = appctl(&server, &["echo", "--help", "x"]);
    assert_eq!(out, "--help|x\n", "only alone");
    let mut client = Client::connect(server.path()).unwrap();
    let text = call(&mut client, "foo", &["--help"]).unwrap_err();
    assert!(text.contains("not a valid command"), "{text}");
}

#[test]
fn mistakes_are_worded_as_by_ovs() {
    let (_dir, server) = start();
    let mut client = Client::connect(server.path()).unwrap();
    for (method, args, expect) in [
        ("foo", &[][..], "\"foo\" is not a valid command (use \"list-commands\""),
        ("echo", &[], "\"echo\" command requires at least 1 arguments"),
        ("echo", &["1", "2", "3", "4"], "\"echo\" command takes at most 3 arguments"),
        ("version", &["x"], "\"version\" command takes at most 0 arguments"),
    ] {
        let text = call(&mut client, method, args).unwrap_err();
        assert!(text.starts_with(expect), "{text}");
    }
}

/// Sends raw bytes and returns all that comes back until the server closes.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(server.path()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn bytes_that_are_no_request_close_only_their_connection() {
    let (_dir, server) = start();
    let deep = "[".repeat(100_000);
    let deep_object = "{\"a\":".repeat(100_000);
    for bytes in ["x", "7", "[]", "{}", "{\"id\":1}", "{\"method\":\"echo\"}", &deep, &deep_object]
    {
        assert_eq!(raw(&server, bytes.as_bytes()), "", "{:.20}", bytes);
    }
    assert_eq!(raw(&server, b"\xff\xfe{}"), "");
    let two = b" {\"id\":[1],\"method\":\"echo\",\"params\":[2]}{\"id\":null,\"method\":\"echo\",\
                \"params\":[\"x\"]} ";
    let expect = "{\"id\":[1],\"result\":null,\"error\":\"\\\"echo\\\" command has non-string \
                  argument\\n\"}\n{\"id\":null,\"result\":\"x\\n\",\"error\":null}\n";
    assert_eq!(raw(&server, two), expect);
    assert!(appctl(&server, &["version"]).2);
}

#[test]
fn a_request_without_end_is_cut_off() {
    let (_dir, server) = start();
    let mut bytes = b"{\"id\":1,\"method\":\"echo\",\"params\":[\"".to_vec();
    bytes.resize(REQUEST_BYTES_MAX as usize + 1000, b'a');
    assert_eq!(raw(&server, &bytes), "");
    assert!(appctl(&server, &["version"]).2);
}

#[test]
fn silent_clients_and_slow_readers_lose_their_place_to_new_ones() {
    let (_dir, server) = start();
    let mut idle = Vec::new();
    for i in 0..3 * CLIENTS_MAX {
        let mut stream = UnixStream::connect(server.path()).unwrap();
        if i % 2 == 0 {
            // Asks for more than the socket buffers hold and never reads it.
            let ask = b"{\"id\":1,\"method\":\"dpif-netdev/with-a-long-name\",\"params\":[]}";
            let _ = stream.write_all(ask);
        }
        idle.push(stream);
    }
    let mut client = Client::connect(server.path()).unwrap();
    assert_eq!(call(&mut client, "echo", &["a"]), Ok("a\n".to_owned()));
    assert!(server.shared.lock_clients().by_id.len() <= CLIENTS_MAX);
}

#[test]
fn a_command_that_blocks_holds_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let mut commands = commands();
    commands.add("wait", "", 0..=0, move |_| {
        gone.lock().unwrap().recv().map(|()| "went".to_owned()).map_err(|e| e.to_string())
    });
    let server = Server::bind(dir.path().join("s.ctl"), commands).unwrap();
    let mut waiting = Client::connect(server.path()).unwrap();
    let waiter = thread::spawn(move || waiting.call("wait", &[]).unwrap());
    let mut client = Client::connect(server.path()).unwrap();
    assert_eq!(call(&mut client, "echo", &["a"]), Ok("a\n".to_owned()));
    go.send(()).unwrap();
    assert_eq!(waiter.join().unwrap(), Ok("went\n".to_owned()));
}

#[test]
fn the_socket_is_private_goes_away_and_replaces_only_a_dead_one() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, server) = start();
    let path = server.path().to_owned();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    let error = Server::bind(&path, commands()).err().unwrap();
    assert!(error.to_string().contains("another running process"), "{error}");
    drop(server);
    assert!(!path.exists());

    drop(UnixListener::bind(&path).unwrap());
    drop(Server::bind(&path, commands()).unwrap());

    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(Server::bind(&file, commands()).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn dropping_the_server_ends_its_clients() {
    let (_dir, server) = start();
    let mut client = Client::connect(server.path()).unwrap();
    assert!(call(&mut client, "version", &[]).is_ok());
    drop(server);
    assert!(client.call("version", &[]).is_err());
}

#[test]
fn the_command_that_stops_the_server_is_still_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let mut commands = commands();
    commands.add("exit", "", 0..=0, move |_| {
        let _ = stop.send(());
        Ok("y".repeat(1 << 20))
    });
    let server = Server::bind(dir.path().join("s.ctl"), commands).unwrap();
    let mut client = Client::connect(server.path()).unwrap();
    let dropper = thread::spawn(move || {
        stopped.recv().unwrap();
        drop(server);
    });
    assert_eq!(client.call("exit", &[]).unwrap().unwrap().len(), (1 << 20) + 1);
    dropper.join().unwrap();
}

#[test]
fn a_command_that_panics_ends_its_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut commands = commands();
    commands.add("fail", "", 0..=0, |_| panic!("on purpose"));
    let server = Server::bind(dir.path().join("s.ctl"), commands).unwrap();
    // More often than there are places.
    for _ in 0..=CLIENTS_MAX {
        let mut client = Client::connect(server.path()).unwrap();
        assert!(client.call("fail", &[]).is_err());
    }
    let mut client = Client::connect(server.path()).unwrap();
    assert!(client.call("version", &[]).unwrap().is_ok());
}

#[test]
fn commands_have_the_stack_that_deep_flow_tables_need() {
    fn deep(n: u32) -> u32 {
        let room = std::hint::black_box([n; 1024]);
        if n == 0 { 0 } else { deep(n - 1) + room[0] / n }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut commands = commands();
    // 4 MB and more.
    commands.add("deep", "", 0..=0, |_| Ok(deep(1000).to_string()));
    let server = Server::bind(dir.path().join("s.ctl"), commands).unwrap();
    let mut client = Client::connect(server.path()).unwrap();
    assert_eq!(client.call("deep", &[]).unwrap().unwrap(), "1000\n");
}
