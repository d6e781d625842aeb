//! The same flows and packets given to Open vSwitch and to the pipeline: flow text, flow changes,
//! megaflows, learned addresses. Needs the Debian package `openvswitch-switch`, and fails without.

use flow::{Action, DpPort, Extracted, FlowKey, FlowMask, Mac, Translate, extract, odp};
use pipeline::{BridgeConfig, DumpOptions, OfPort, Pipeline};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use zerocopy::big_endian::{U16, U32};

/// How long OVS may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number that OVS's dummy datapath gives a bridge's own port.
const DUMMY_LOCAL: u32 = 100;

/// A private ovsdb-server and ovs-vswitchd with one bridge `br0` of dummy ports p1 to p3.
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

impl Ovs {
    fn start() -> Ovs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ovs = Ovs { dir, children: Vec::new() };
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        ovs.run("ovsdb-tool", &["create", &ovs.at("conf.db"), schema]);
        ovs.spawn(
            "ovsdb-server",
            &[&ovs.at("conf.db"), &format!("--remote=punix:{}", ovs.at("db.sock"))],
        );
        let socket = PathBuf::from(ovs.at("db.sock"));
        ovs.wait("ovsdb-server's socket", || socket.exists().then_some(()));
        let db = format!("unix:{}", ovs.at("db.sock"));
        ovs.run("ovs-vsctl", &[&format!("--db={db}"), "--no-wait", "init"]);
        let control = format!("--unixctl={}", ovs.at("ctl"));
        ovs.spawn("ovs-vswitchd", &[&db, "--enable-dummy=override", "--disable-system", &control]);
        let add = "--timeout=20 add-br br0 -- set bridge br0 datapath_type=dummy \
            -- add-port br0 p1 -- set interface p1 type=dummy ofport_request=1 \
            -- add-port br0 p2 -- set interface p2 type=dummy ofport_request=2 \
            -- add-port br0 p3 -- set interface p3 type=dummy ofport_request=3";
        let mut args = vec![format!("--db={db}")];
        args.extend(add.split_whitespace().map(str::to_owned));
        ovs.run("ovs-vsctl", &args.iter().map(String::as_str).collect::<Vec<_>>());
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

    /// Runs a program; what it prints, or what it complains of.
    fn try_run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let out = self.command(program, args).output();
        let out = out.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        });
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args).unwrap_or_else(|e| panic!("{program} {args:?}: {e}"))
    }

    fn ofctl(&self, command: &str, rest: &[&str]) -> Result<String, String> {
        let target = format!("unix:{}", self.at("br0.mgmt"));
        let words: Vec<&str> = command.split_whitespace().chain([target.as_str()]).collect();
        self.try_run("ovs-ofctl", &[&words, rest].concat())
    }

    fn appctl(&self, args: &[&str]) -> String {
        let control = self.at("ctl");
        self.run("ovs-appctl", &[&["-t", control.as_str()], args].concat())
    }

    fn wait<T>(&self, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(it) = ready() {
                return it;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: not there after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a frame and returns the match and the actions of the megaflow that it makes.
    fn megaflow(&self, port: u32, frame: &[u8]) -> (String, String) {
        self.appctl(&["dpctl/del-flows"]);
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        self.appctl(&["netdev-dummy/receive", &format!("p{port}"), &hex]);
        self.wait("a megaflow", || {
            let dump = self.appctl(&["dpctl/dump-flows"]);
            let mut lines = dump.lines().filter(|l| l.starts_with("recirc_id"));
            split_megaflow(lines.find(|l| l.contains(&format!("in_port({port})")))?)
        })
    }
}

fn split_megaflow(line: &str) -> Option<(String, String)> {
    let (matches, rest) = line.split_once(", packets:")?;
    let (_, actions) = rest.split_once("actions:")?;
    Some((matches.to_owned(), actions.to_owned()))
}

/// The same bridge here, with the datapath numbers that OVS gives.
fn ours() -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    p.add_port("br0", "br0", OfPort::LOCAL, DpPort(DUMMY_LOCAL)).expect("new");
    for n in 1..=3u16 {
        p.add_port("br0", &format!("p{n}"), OfPort(n), DpPort(n.into())).expect("new");
    }
    p
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Flows are read and printed as ovs-ofctl does.
#[test]
fn flow_text() {
    let ovs = Ovs::start();
    let flows = [
        "priority=0 actions=NORMAL",
        "priority=5,in_port=1,dl_src=02:00:00:00:00:01/ff:ff:00:00:00:00 actions=output:2,p3,IN_PORT",
        "priority=5,in_port=p2 actions=drop",
        "cookie=0x55,priority=65535,dl_vlan=10,dl_vlan_pcp=3 actions=flood,all,local,normal",
        "in_port=LOCAL,dl_vlan=0xffff,arp actions=1,2",
        "in_port=65534,vlan_tci=0x1000/0x1000,ip actions=output:1,output:2,in_port",
        "dl_type=0x1234,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=",
        "table=3,dl_dst=02:00:00:00:00:01,vlan_vid=0x100a/0x100f,vlan_pcp=2,mplsm,actions=3",
        "dl_type=0x05ff,ipv6 actions=3",
        "vlan_vid=0x1000/0x1000 actions=3",
        "vlan_vid=0x1005 actions=3",
        "dl_type=0x05ff,dl_vlan=5 actions=3",
        "priority=1,,in_port=1 ,actions=drop",
        "in_port=0 actions=drop",
        "dl_src=* actions=1",
        "actions=output:1,output=2,output(3),65534",
        "vlan_tci=0x1064/0x1fff actions=1",
        "vlan_tci=0x1064/0x0fff actions=1",
        "vlan_tci=0x2064/0x1fff actions=1",
        "vlan_tci=0x0064 actions=1",
        "vlan_tci=0xf064 actions=1",
        "vlan_tci=0/0x1000 actions=1",
        "dl_src=02:00:00:00:00:00/00:00:00:00:00:00 actions=1",
        "dl_src=2:0:0:0:0:1/FF:ff:ff:ff:ff:ff actions=1",
        "eth_src=02:00:00:00:00:01,eth_dst=00:00:00:00:00:05,eth_type=0x806,actions=2",
        "ip,arp,actions=drop",
        "rarp,cookie=0xffffffffffffffff,table=253,actions=\"p1\"",
        "mpls,duration=5s,n_packets=1,n_bytes=4,actions=1",
        "dl_type=5,priority=0x10,actions=drop",
        "in_port=65279 actions=65279",
        "dl_vlan=0,actions=in_port",
        "dl_vlan_pcp=0,actions=in_port",
    ];
    let p = ours();
    for (options, stats, names) in [
        ("--no-stats dump-flows", false, false),
        ("--no-stats --names dump-flows", false, true),
        ("--names dump-flows", true, true),
    ] {
        for text in flows {
            ovs.ofctl("del-flows", &[]).expect("deletes");
            ovs.ofctl("add-flow", &[text]).unwrap_or_else(|e| panic!("{text}: {e}"));
            p.del_flows("br0", "").expect("deletes");
            p.add_flow("br0", text, 0).unwrap_or_else(|e| panic!("{text}: {e}"));
            let theirs = ovs.ofctl(options, &[]).expect("dumps");
            let mine = p.dump_flows("br0", "", DumpOptions { names, stats }, 0).expect("dumps");
            assert_eq!(without_duration(&mine), without_duration(&theirs), "{text}");
            ovs.ofctl("add-flow", &[mine.trim()]).unwrap_or_else(|e| panic!("{mine}: {e}"));
            p.add_flows("br0", &theirs, 0).unwrap_or_else(|e| panic!("{theirs}: {e}"));
        }
    }
    // In a file with flows that OpenFlow 1.0 cannot say, ovs-ofctl sends a tag without its presence
    // bit as it is, which matches nothing, and keeps "any address" apart from "any packet".
    let alike =
        |f: &&&str| !f.contains("0x0064 ") && !f.contains("dl_src=* ") && !f.contains("/00:");
    let all = flows.iter().filter(alike).copied().collect::<Vec<_>>().join("\n");
    std::fs::write(ovs.at("flows"), &all).expect("a temporary file");
    ovs.ofctl("del-flows", &[]).expect("deletes");
    ovs.ofctl("add-flows", &[&ovs.at("flows")]).expect("adds");
    p.add_flows("br0", &format!("delete\n{all}"), 0).expect("adds");
    let theirs = ovs.ofctl("--no-stats dump-flows", &[]).expect("dumps");
    let options = DumpOptions { names: false, stats: false };
    let mine = p.dump_flows("br0", "", options, 0).expect("dumps");
    assert_eq!(sorted(&mine), sorted(&theirs));
}

fn without_duration(dump: &str) -> String {
    let line = |l: &str| match l.split_once(" duration=") {
        Some((a, rest)) => format!("{a}{}\n", rest.split_once(',').map_or("", |(_, b)| b)),
        None => format!("{l}\n"),
    };
    dump.lines().map(line).collect()
}

/// What one refuses, the other refuses.
#[test]
fn refusals() {
    let ovs = Ovs::start();
    let p = ours();
    let wrong = [
        "foo=1,actions=drop",
        "in_port=abc actions=drop",
        "dl_src=1 actions=drop",
        "in_port=1",
        "priority=99999,actions=drop",
        "priority=x actions=drop",
        "table=300 actions=drop",
        "table=254 actions=drop",
        "actions=foo",
        "actions=output",
        "actions=output:",
        "actions=output:foo",
        "actions=drop,1",
        "actions=1,drop",
        "cookie=zz,actions=drop",
        "dl_type=0x10000,actions=drop",
        "actions=output:70000",
        "dl_src=1:2:3:4:5:6:7,actions=drop",
        "in_port,actions=drop",
        "dl_vlan=any actions=drop",
        "dl_type=0x88/0xff actions=1",
        "in_port=1/2 actions=1",
        "actions=0x2",
        "cookie=1/2,actions=2",
        "out_port=2,actions=2",
    ];
    for text in wrong {
        ovs.ofctl("add-flow", &[text]).expect_err(text);
        p.add_flow("br0", text, 0).expect_err(text);
    }
}

/// Sequences of flow changes leave the same tables.
#[test]
fn flow_changes() {
    let ovs = Ovs::start();
    let p = ours();
    let start = "cookie=1,priority=5,in_port=1,actions=2\n\
        cookie=2,table=4,priority=5,in_port=1,dl_src=02:00:00:00:00:01,actions=2\n\
        # comment\n\ncookie=3, in_port=2,actions=in_port\n\
        priority=9,dl_src=02:00:00:00:00:00/ff:ff:00:00:00:00,actions=local\n";
    std::fs::write(ovs.at("flows"), start).expect("a temporary file");
    let commands = [
        "mod-flows in_port=1,actions=3",
        "mod-flows table=4,actions=3",
        "mod-flows actions=drop",
        "mod-flows cookie=2/-1,actions=3",
        "mod-flows cookie=9,in_port=1,actions=3",
        "mod-flows in_port=7,actions=3",
        "mod-flows priority=7,in_port=7,actions=3",
        "mod-flows cookie=9/-1,in_port=7,actions=3",
        "mod-flows in_port=1",
        "del-flows in_port=1",
        "mod-flows table=7,in_port=7,actions=3",
        "mod-flows out_port=2,actions=3",
        "del-flows priority=5",
        "del-flows cookie=1",
        "del-flows cookie=1/-1",
        "del-flows out_port=2",
        "del-flows out_port=LOCAL",
        "del-flows actions=2",
        "del-flows in_port=1,actions=2",
        "del-flows table=4",
        "del-flows cookie=1/0x1",
        "del-flows dl_src=02:00:00:00:00:01",
        "del-flows dl_src=02:00:00:00:00:00/ff:00:00:00:00:00",
        "add-flow priority=5,in_port=1,actions=normal",
        "del-flows in_port=p2",
    ];
    for command in commands {
        ovs.ofctl("del-flows", &[]).expect("deletes");
        ovs.ofctl("add-flows", &[&ovs.at("flows")]).expect("adds");
        p.add_flows("br0", &format!("delete\n{start}"), 0).expect("adds");
        let (verb, text) = command.split_once(' ').expect("two words");
        let theirs = ovs.ofctl(verb, &[text]);
        let mine = match verb {
            "add-flow" => p.add_flow("br0", text, 0),
            "mod-flows" => p.mod_flows("br0", text, 0),
            _ => p.del_flows("br0", text),
        };
        assert_eq!(mine.is_ok(), theirs.is_ok(), "{command}: {mine:?} {theirs:?}");
        let theirs = ovs.ofctl("--no-stats dump-flows", &[]).expect("dumps");
        let options = DumpOptions { names: false, stats: false };
        let mine = p.dump_flows("br0", "", options, 0).expect("dumps");
        assert_eq!(sorted(&mine), sorted(&theirs), "{command}");
    }
    p.add_flows("br0", &format!("delete\n{start}"), 0).expect("adds");
    ovs.ofctl("del-flows", &[]).expect("deletes");
    ovs.ofctl("add-flows", &[&ovs.at("flows")]).expect("adds");
    for filter in [
        "in_port=1",
        "out_port=2",
        "cookie=2/-1",
        "table=0,in_port=1",
        "table=4",
        "dl_src=02:00:00:00:00:01",
    ] {
        let theirs = ovs.ofctl("--no-stats dump-flows", &[filter]).expect("dumps");
        let options = DumpOptions { names: false, stats: false };
        let mine = p.dump_flows("br0", filter, options, 0).expect("dumps");
        assert_eq!(sorted(&mine), sorted(&theirs), "{filter}");
    }
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// An Ethernet frame of 60 bytes or more; `head` is what follows the addresses.
fn frame(dst: [u8; 6], src: [u8; 6], head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut f = [&dst[..], &src, head, body].concat();
    f.resize(f.len().max(60), 0);
    f
}

fn ip(frag: u16) -> Vec<u8> {
    let mut b = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    b[6..8].copy_from_slice(&frag.to_be_bytes());
    let sum: u32 = b.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    b[10..12].copy_from_slice(&sum.to_be_bytes());
    b.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    b
}

fn arp(op: u8, sender: u8, target: u8) -> Vec<u8> {
    let mut b = vec![0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, sender, 10, 0, 0, sender];
    b.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, target]);
    b
}

/// Translates, applies, and prints as `dpctl/dump-flows` does.
fn megaflow(p: &Pipeline, port: u32, frame: &[u8]) -> (String, String) {
    let mut out = Extracted::default();
    extract(frame, frame.len(), port, &mut out).expect("all bytes are there");
    let t = p.translate(&out.key);
    t.effects.apply(1, frame.len() as u64, 0);
    let key = t.mask.apply(&out.key);
    (odp::format_match(&key, &t.mask, &odp::number), odp::format_actions(&t.actions, &odp::number))
}

/// Actions without their order: OVS floods in the order of a hash table.
fn unordered(actions: &str) -> Vec<&str> {
    let mut list: Vec<&str> = actions.split(',').collect();
    list.sort_unstable();
    list
}

/// OVS prints the priority bits that a frame had even where the megaflow does not look at them.
fn without_unseen_priority(text: &str) -> String {
    let mut out = text.to_owned();
    for pcp in 1..8 {
        out = out.replace(&format!(",pcp={pcp}/0x0"), "");
    }
    out
}

/// NORMAL: the same frames make the same megaflows, actions and table of addresses.
#[test]
fn normal() {
    let ovs = Ovs::start();
    let p = ours();
    let all = [0xff; 6];
    let ipv4 = [8, 0];
    let frames = [
        (1, frame(mac(2), mac(1), &ipv4, &ip(0))),
        (2, frame(mac(1), mac(2), &ipv4, &ip(0))),
        (1, frame(mac(2), mac(1), &ipv4, &ip(0x2000))),
        (1, frame(mac(2), mac(1), &ipv4, &ip(0x2010))),
        (1, frame(all, mac(1), &ipv4, &ip(0))),
        (1, frame([1, 0, 0x5e, 0, 0, 5], mac(1), &ipv4, &ip(0))),
        (1, frame(all, mac(1), &[8, 6], &arp(1, 1, 2))),
        (1, frame(all, mac(1), &[8, 6], &arp(1, 1, 1))),
        (1, frame(all, mac(1), &[8, 6], &arp(2, 1, 2))),
        (1, frame(all, mac(1), &[8, 6], &arp(3, 1, 2))),
        (2, frame(mac(1), mac(2), &[8, 6], &arp(2, 2, 1))),
        (1, frame(all, mac(1), &[0x81, 0, 0x60, 10, 8, 6], &arp(1, 1, 2))),
        (1, frame(mac(2), mac(1), &[0x81, 0, 0, 10, 8, 0], &ip(0))),
        (2, frame(mac(1), mac(2), &[0x81, 0, 0, 10, 8, 0], &ip(0))),
        (2, frame(mac(1), mac(2), &[0x88, 0xa8, 0, 11, 8, 0], &ip(0))),
        (1, frame(mac(2), mac(1), &[0x81, 0, 0x60, 0, 8, 0], &ip(0))),
        (1, frame(mac(1), [3, 0, 0, 0, 0, 1], &[0x12, 0x34], &[])),
        (3, frame(mac(1), mac(3), &[0, 46], &[0; 46])),
        (3, frame(mac(3), mac(3), &[0x12, 0x34], &[])),
        (3, frame(mac(2), mac(1), &[0x12, 0x34], &[])),
        (1, frame(mac(2), mac(1), &[0x12, 0x34], &[])),
        (1, frame(mac(3), mac(1), &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 0, 59, 1])),
        (1, frame(mac(3), mac(1), &[0x88, 0x47], &[0, 0, 0x51, 9])),
        (1, frame([1, 0x80, 0xc2, 0, 0, 0], mac(9), &[0x12, 0x34], &[])),
        (1, frame([1, 0x80, 0xc2, 0, 0, 15], mac(9), &[0x12, 0x34], &[])),
        (1, frame([1, 0x80, 0xc2, 0, 0, 16], mac(8), &[0x12, 0x34], &[])),
    ];
    for (i, (port, frame)) in frames.iter().enumerate() {
        let (theirs, mine) = (ovs.megaflow(*port, frame), megaflow(&p, *port, frame));
        assert_eq!(without_unseen_priority(&theirs.0), mine.0, "frame {i}");
        assert_eq!(unordered(&mine.1), unordered(&theirs.1), "frame {i}");
    }
    let macs = |text: &str| {
        let mut rows: Vec<String> = text.lines().skip(1).map(|l| l[..31].to_owned()).collect();
        rows.sort();
        (text.lines().next().map(str::to_owned), rows)
    };
    let theirs = ovs.appctl(&["fdb/show", "br0"]);
    assert_eq!(macs(&p.fdb_show("br0", 0).expect("there")), macs(&theirs));
    let static_entry = ["br0", "br0", "7", "02:00:00:00:00:aa"];
    let theirs = ovs.appctl(&[&["fdb/add"], &static_entry[..]].concat());
    assert_eq!(p.fdb_add("br0", "br0", "7", "02:00:00:00:00:aa").expect("adds"), theirs);
    let theirs = ovs.appctl(&["fdb/flush", "br0"]);
    assert_eq!(p.fdb_flush(Some("br0")).expect("flushes"), theirs);
    let theirs = ovs.appctl(&["fdb/show", "br0"]);
    assert_eq!(p.fdb_show("br0", 0).expect("there"), theirs);
    let lines = |text: &str| {
        text.lines().map(|l| l.split(':').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let theirs = ovs.appctl(&["fdb/stats-show", "br0"]);
    assert_eq!(lines(&p.fdb_stats_show("br0").expect("there")), lines(&theirs));
}

/// Reserved addresses: the same are dropped.
#[test]
fn reserved_addresses() {
    let ovs = Ovs::start();
    let p = ours();
    let mut addresses: Vec<[u8; 6]> = Vec::new();
    addresses.extend((0..18).map(|n| [0x01, 0x80, 0xc2, 0, 0, n]));
    addresses.extend((0..9).map(|n| [0x00, 0xe0, 0x2b, 0, 0, n]));
    addresses.extend((0xbe..0xd1).map(|n| [0x01, 0x00, 0x0c, 0xcc, 0xcc, n]));
    addresses.extend([
        [1, 0, 0x0c, 0xcd, 0xcd, 0xcd],
        [1, 0, 0x0c, 0, 0, 0],
        [1, 0, 0x0c, 0, 0, 1],
    ]);
    for dst in addresses {
        let frame = frame(dst, mac(1), &[0x12, 0x34], &[]);
        let (theirs, mine) = (ovs.megaflow(1, &frame).1, megaflow(&p, 1, &frame).1);
        assert_eq!(unordered(&mine), unordered(&theirs), "{}", Mac(dst));
    }
}

/// Flows with outputs: the same actions, and masks that are OVS's or, where named, wider.
#[test]
fn outputs() {
    let ovs = Ovs::start();
    let p = ours();
    let flows = "in_port=1 actions=output:2\n\
        priority=9,in_port=2,dl_src=02:01:00:00:00:00/00:01:00:00:00:00,\
        dl_dst=00:00:00:00:00:02/00:00:00:00:00:03 actions=all,in_port,output:1,2,3,local\n\
        priority=9,in_port=3,dl_vlan=10 actions=flood,drop\n";
    let flows = flows.replace("flood,drop", "flood");
    std::fs::write(ovs.at("flows"), &flows).expect("a temporary file");
    ovs.ofctl("del-flows", &[]).expect("deletes");
    ovs.ofctl("add-flows", &[&ovs.at("flows")]).expect("adds");
    p.add_flows("br0", &format!("delete\n{flows}"), 0).expect("adds");
    let port_1 = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)";
    let cases = [
        (1, frame(mac(2), mac(1), &[8, 0], &ip(0)), None),
        // No flow of port 1 looks at the tag, so one megaflow does for frames with and without.
        (1, frame(mac(2), mac(1), &[0x81, 0, 0, 10, 8, 0], &ip(0)), Some(port_1)),
        (1, frame(mac(2), mac(1), &[8, 6], &arp(1, 1, 2)), None),
        (1, frame(mac(2), mac(1), &[0, 46], &[]), None),
        (2, frame(mac(2), mac(1), &[8, 0], &ip(0)), None),
        (2, frame(mac(2), [2, 1, 0, 0, 0, 1], &[8, 0], &ip(0)), None),
        (3, frame(mac(2), mac(1), &[8, 0], &ip(0)), None),
        (3, frame(mac(2), mac(1), &[0x81, 0, 0, 10, 8, 0], &ip(0)), None),
        (3, frame(mac(2), mac(1), &[0x81, 0, 0x40, 11, 8, 0], &ip(0)), None),
    ];
    for (i, (port, frame, wider)) in cases.iter().enumerate() {
        let (theirs, mine) = (ovs.megaflow(*port, frame), megaflow(&p, *port, frame));
        let expected = wider.map_or_else(|| without_unseen_priority(&theirs.0), str::to_owned);
        let masked = without_unseen_values(&expected);
        assert_eq!(without_unseen_values(&mine.0), masked, "frame {i}");
        assert_eq!(unordered(&mine.1), unordered(&theirs.1), "frame {i}");
    }
}

/// OVS prints a partly masked address with the bits that the first packet had outside the mask.
fn without_unseen_values(text: &str) -> String {
    let Some((before, rest)) = text.split_once("eth(") else {
        return text.to_owned();
    };
    let (eth, after) = rest.split_once(')').expect("closed");
    let fields = eth.split(',').map(|field| {
        let (name, value) = field.split_once('=').expect("name=value");
        match value.split_once('/') {
            None => field.to_owned(),
            Some((value, mask)) => {
                let (v, m): (Mac, Mac) = (value.parse().expect("mac"), mask.parse().expect("mac"));
                let masked = std::array::from_fn(|i| v.0[i] & m.0[i]);
                format!("{name}={}/{mask}", Mac(masked))
            }
        }
    });
    format!("{before}eth({}){after}", fields.collect::<Vec<_>>().join(","))
}

/// OVS reads the megaflow text of every header and prints it back the same.
#[test]
fn datapath_flow_text() {
    let ovs = Ovs::start();
    for (key, mask) in datapath_flows() {
        let key = mask.apply(&key);
        let mine = odp::format_match(&key, &mask, &odp::number);
        let text = mine.as_str();
        ovs.appctl(&["dpctl/del-flows"]);
        let actions = odp::format_actions(
            &[Action::Output(DpPort(2)), Action::Output(DpPort(3))],
            &odp::number,
        );
        ovs.appctl(&["dpctl/add-flow", text, &actions]);
        let dump = ovs.appctl(&["dpctl/dump-flows"]);
        let line = dump.lines().find(|l| l.starts_with("recirc_id")).expect("one flow");
        assert_eq!(split_megaflow(line), Some((mine, actions)));
    }
    assert_eq!(odp::format_actions(&[], &odp::number), "drop");
    let names = |p: DpPort| format!("vm{}", p.0);
    let key = FlowKey { in_port: 4, dl_type: U16::new(0x1234), ..FlowKey::default() };
    assert_eq!(
        odp::format_match(&key, &FlowMask::default(), &names),
        "recirc_id(0),in_port(vm4),packet_type(ns=0,id=0),eth_type(0x1234)"
    );
}

/// Keys and masks that use every field, with whole and with partial masks.
fn datapath_flows() -> Vec<(FlowKey, FlowMask)> {
    let base = |dl_type: u16, nw_proto: u8| {
        let mut mask = FlowMask::default();
        // Given a flow without addresses, OVS takes it for one of packets without Ethernet.
        mask.bits_mut().dl_src = Mac([0xff; 6]);
        mask.bits_mut().nw_proto = if nw_proto == 0 { 0 } else { 0xff };
        let ip = matches!(dl_type, 0x0800 | 0x86dd);
        mask.bits_mut().nw_frag = if ip { 0xff } else { 0 };
        let key = FlowKey {
            in_port: 1,
            dl_src: Mac(mac(1)),
            dl_dst: Mac(mac(2)),
            dl_type: U16::new(dl_type),
            nw_proto,
            nw_frag: 0,
            nw_src: U32::new(0x0a00_0001),
            nw_dst: U32::new(0x0a00_0102),
            tp_src: U16::new(0x0105),
            tp_dst: U16::new(80),
            tcp_flags: U16::new(0x12),
            nw_tos: 0x28,
            nw_ttl: 64,
            ipv6_src: std::array::from_fn(|i| if i < 2 { 0xfe } else { i as u8 }),
            ipv6_dst: std::array::from_fn(|i| u8::from(i == 15)),
            ipv6_label: U32::new(0x1_2345),
            arp_sha: Mac(mac(1)),
            arp_tha: Mac(mac(2)),
            mpls_lse: U32::new(0x0012_3540),
            nd_target: [0x20; 16],
            ..FlowKey::default()
        };
        (key, mask)
    };
    let mut out = Vec::new();
    let mut add = |dl_type, proto, change: &dyn Fn(&mut FlowKey, &mut FlowKey)| {
        let (mut key, mut mask) = base(dl_type, proto);
        change(&mut key, mask.bits_mut());
        out.push((key, mask));
    };
    let ones = (U16::new(0xffff), U32::new(u32::MAX));
    add(0x1234, 0, &|_, m| m.dl_src = Mac([0xff; 6]));
    add(0x1234, 0, &|_, m| m.dl_dst = Mac([0xff, 0xff, 0, 0, 0, 0]));
    add(0x1234, 0, &|_, m| m.dl_dst = Mac([0xff; 6]));
    for (tpid, tci, mask) in
        [(0x8100, 0x700a, 0xffff), (0x8100, 0x1005, 0x1fff), (0x8100, 0x1003, 0x100f)]
    {
        add(0x0800, 6, &|k, m| {
            (k.vlan[0].tpid, k.vlan[0].tci) = (U16::new(tpid), U16::new(tci));
            (m.vlan[0].tpid, m.vlan[0].tci) = (ones.0, U16::new(mask));
            m.tp_dst = ones.0;
        });
    }
    add(0x0800, 0, &|_, m| (m.nw_src, m.nw_dst) = (U32::new(0xff00_0000), ones.1));
    add(0x0800, 0, &|_, m| (m.nw_tos, m.nw_ttl) = (0xfc, 0xff));
    add(0x0800, 0, &|k, m| (k.nw_tos, m.nw_tos, m.nw_ttl) = (0, 0xff, 0xf0));
    add(0x0800, 6, &|k, m| (k.nw_frag, m.tp_dst) = (1, ones.0));
    add(0x0800, 6, &|k, m| (k.nw_frag, m.nw_src) = (3, ones.1));
    add(0x0800, 6, &|_, m| (m.tp_src, m.tp_dst) = (U16::new(0xff00), ones.0));
    add(0x0800, 6, &|_, m| (m.tp_dst, m.tcp_flags) = (ones.0, U16::new(0x0fff)));
    add(0x0800, 6, &|_, m| (m.tp_dst, m.tcp_flags) = (ones.0, U16::new(0x0006)));
    add(0x0800, 17, &|_, m| (m.tp_src, m.tp_dst) = (ones.0, ones.0));
    add(0x0800, 132, &|_, m| m.tp_src = ones.0);
    add(0x0800, 1, &|k, m| {
        (k.tp_src, k.tp_dst) = (U16::new(8), U16::new(0));
        (m.tp_src, m.tp_dst) = (ones.0, ones.0);
    });
    add(0x86dd, 0, &|_, m| (m.ipv6_src[0], m.ipv6_src[1], m.ipv6_dst) = (0xff, 0xff, [0xff; 16]));
    add(0x86dd, 0, &|_, m| (m.ipv6_label, m.nw_tos, m.nw_ttl) = (U32::new(0xf_ffff), 0xff, 0xff));
    add(0x86dd, 6, &|_, m| (m.tp_src, m.ipv6_label) = (ones.0, U32::new(0xf0)));
    add(0x86dd, 58, &|k, m| {
        (k.tp_src, k.tp_dst) = (U16::new(135), U16::new(0));
        (m.tp_src, m.tp_dst) = (ones.0, ones.0);
        (m.nd_target, m.arp_sha) = ([0xff; 16], Mac([0xff; 6]));
    });
    add(0x0806, 1, &|_, m| (m.nw_src, m.nw_dst) = (ones.1, U32::new(0xffff_ff00)));
    add(0x0806, 2, &|_, m| (m.arp_sha, m.arp_tha) = (Mac([0xff; 6]), Mac([0xff, 0, 0, 0, 0, 0])));
    add(0x8847, 0, &|_, m| m.mpls_lse = ones.1);
    add(0x8847, 0, &|_, m| m.mpls_lse = U32::new(0x00ff_f1ff));
    out
}
