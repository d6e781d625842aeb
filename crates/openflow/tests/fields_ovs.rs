//! Matches in the tables of a real switch, and packets as its `ofproto/trace` prints them. Needs the
//! Debian package `openvswitch-switch`, and fails without.

use openflow::{OfPort, PortNames, format_key, format_match, parse_key, parse_match};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long OVS may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A private ovsdb-server and ovs-vswitchd with one bridge `br0` of some dummy ports.
struct Ovs {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Already gone is as good as stopped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Names that need quotes and names that do not.
const PORTS: [(&str, u16); 6] =
    [("p1", 1), ("p2", 2), ("1a", 3), ("p-1", 4), ("_x", 5), ("p_1", 6)];

impl Ovs {
    fn start() -> Ovs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ovs = Ovs { dir, children: Vec::new() };
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        ovs.run("ovsdb-tool", &["create", &ovs.at("conf.db"), schema]);
        let remote = format!("--remote=punix:{}", ovs.at("db.sock"));
        ovs.spawn("ovsdb-server", &[&ovs.at("conf.db"), &remote]);
        let (socket, start) = (PathBuf::from(ovs.at("db.sock")), Instant::now());
        while !socket.exists() {
            assert!(start.elapsed() < PATIENCE, "ovsdb-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let db = format!("--db=unix:{}", ovs.at("db.sock"));
        ovs.run("ovs-vsctl", &[&db, "--no-wait", "init"]);
        let control = format!("--unixctl={}", ovs.at("ctl"));
        let args = [&db[5..], "--enable-dummy=override", "--disable-system", &control];
        ovs.spawn("ovs-vswitchd", &args);
        let mut add: Vec<String> = "--timeout=20 add-br br0 -- set bridge br0 datapath_type=dummy"
            .split(' ')
            .map(str::to_owned)
            .collect();
        for (name, number) in PORTS {
            let port = format!(
                "-- add-port br0 {name} -- set interface {name} type=dummy ofport_request={number}"
            );
            add.extend(port.split(' ').map(str::to_owned));
        }
        let args: Vec<&str> =
            [db.as_str()].into_iter().chain(add.iter().map(String::as_str)).collect();
        ovs.run("ovs-vsctl", &args);
        ovs
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("OVS_RUNDIR", self.dir.path()).env("OVS_LOGDIR", self.dir.path());
        command
    }

    fn spawn(&mut self, program: &str, args: &[&str]) {
        let mut command = self.command(program, args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        self.children.push(child.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        }));
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let out = self.command(program, args).output();
        let out = out.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        });
        let complaint = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {args:?}: {complaint}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn ofctl(&self, command: &[&str], rest: &[&str]) -> String {
        let target = format!("unix:{}", self.at("br0.mgmt"));
        self.run("ovs-ofctl", &[command, &[target.as_str()], rest].concat())
    }
}

struct Names;

impl PortNames for Names {
    fn name(&self, port: OfPort) -> Option<&str> {
        PORTS.iter().find(|(_, n)| *n == port.0).map(|(name, _)| *name)
    }
    fn number(&self, name: &str) -> Option<OfPort> {
        PORTS.iter().find(|(n, _)| *n == name).map(|(_, n)| OfPort(*n))
    }
}

/// The match of each flow of a dump, by cookie.
fn by_cookie(dump: &str) -> Vec<(usize, String)> {
    let mut flows: Vec<(usize, String)> = dump
        .lines()
        .filter_map(|l| l.trim().strip_prefix("cookie=0x")?.split_once(", "))
        .map(|(cookie, rest)| {
            let matched = rest.strip_suffix("actions=drop").expect("no more than that").trim_end();
            // A table or a priority keeps flows with the same match apart.
            let keeps = |w: &&str| !w.trim().starts_with("table=");
            let words: Vec<&str> = matched.split(' ').filter(keeps).collect();
            (usize::from_str_radix(cookie, 16).expect("a number"), words.join(" "))
        })
        .collect();
    flows.sort();
    flows
}

/// All flows of a file, loaded into the real switch at once, are dumped as ours print them; and what
/// ours print is loaded and dumped as the same again.
#[test]
fn tables() {
    let ovs = Ovs::start();
    let texts: Vec<&str> = include_str!("matches.txt")
        .lines()
        .filter(|l| {
            parse_match(l, &Names).is_ok_and(|m| !format_match(&m, &(), None).contains("tun_m"))
        })
        // A file is loaded by other messages than a single flow, which say other things of tags that
        // are not there.
        .filter(|l| !["vlan_tci=0x0005", "vlan_vid=5", "vlan_vid=0", "vlan_vid=0x2000"].contains(l))
        .chain([
            "in_port=p1",
            "in_port=p2,ip",
            "in_port=\"p-1\"",
            "in_port=1a",
            "in_port=\"_x\"",
            "in_port=p_1",
        ])
        .chain(["in_port=LOCAL,tcp", "in_port=77", "actset_output=p2"])
        .collect();
    assert!(texts.len() > 200, "only {} matches", texts.len());
    // Each flow has a table for itself, or flows with the same match would replace each other.
    texts.chunks(250).for_each(|part| load_and_dump(&ovs, part));
}

fn load_and_dump(ovs: &Ovs, texts: &[&str]) {
    let mine: Vec<_> = texts.iter().map(|t| parse_match(t, &Names).expect("as before")).collect();
    for (names, option) in [(&() as &dyn PortNames, "--no-names"), (&Names, "--names")] {
        let printed: Vec<String> = mine.iter().map(|m| format_match(m, names, None)).collect();
        let printed: Vec<&str> = printed.iter().map(String::as_str).collect();
        for loaded in [texts, &printed] {
            let flow = |(n, text): (usize, &&str)| {
                let comma = if text.is_empty() { "" } else { "," };
                format!("table={n},cookie={:#x},{text}{comma}actions=drop\n", n + 1)
            };
            let file: String = loaded.iter().enumerate().map(flow).collect();
            std::fs::write(ovs.at("flows"), file).expect("a temporary file");
            ovs.ofctl(&["del-flows"], &[]);
            ovs.ofctl(&["add-flows"], &[&ovs.at("flows")]);
            let dump = by_cookie(&ovs.ofctl(&[option, "--no-stats", "dump-flows"], &[]));
            assert_eq!(dump.len(), texts.len());
            for ((cookie, text), mine) in dump.iter().zip(&printed) {
                assert_eq!(mine, text, "{} {option}", texts[cookie - 1]);
            }
        }
    }
}

/// A packet's fields as `ofproto/trace` prints them.
#[test]
fn packets() {
    let ovs = Ovs::start();
    let control = ovs.at("ctl");
    for text in include_str!("keys.txt").lines() {
        let trace = ovs.run("ovs-appctl", &["-t", &control, "ofproto/trace", "br0", text]);
        let flow = trace.lines().find_map(|l| l.strip_prefix("Flow: ")).expect("a flow");
        let key = parse_key(text, &Names).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(format_key(&key, &()), flow, "{text}");
        // OVS prints more tags and labels than have names.
        if flow.contains("vlan_tci1") || flow.contains("mpls_lse1") {
            continue;
        }
        let again = parse_key(flow, &()).unwrap_or_else(|e| panic!("{flow}: {e}"));
        assert_eq!(format_key(&again, &()), flow);
    }
}
