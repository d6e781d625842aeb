//! Debian's ovs-vswitchd with its dummy datapath: the same code as its DPDK datapath, no privilege.
//!
//! Packets go in by `netdev-dummy/receive` and come out in a capture file for each port. After each
//! packet a mark is sent the same way, which the first flow of table 0 sends to all ports: what is
//! in a port's file between two marks was caused by the packet between them.

use crate::scenario::{DOWN, Input, METER, Observed, Outputs, PORTS, Scenario, hex};
use anyhow::{Context, Result, ensure};
use lab::process::{self, Process};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Time that it may take to start or to answer on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time that it may take to be gone after it has closed its sockets.
const ENDING: Duration = Duration::from_secs(2);
/// Pause between two looks at the capture files.
const LOOK: Duration = Duration::from_micros(200);
/// EtherType of marks (IEEE 802, "local experimental 1"); generated packets never have it.
pub const MARK_TYPE: u16 = 0x88b5;
/// Cookie of the flow for marks.
const MARK_COOKIE: u64 = 0xfffe_ffff;
/// Filter for learned flows: their cookies have this bit.
const LEARNED: &str = "cookie=0x10000/0x10000";
/// Packets given in one call: a dummy port queues 100 frames and drops more.
const CALL: usize = 40;
/// Largest frame that the ports send.
const MTU: usize = 9000;

/// A private ovsdb-server and ovs-vswitchd with bridge `br0` and [`PORTS`].
pub struct Ovs {
    control: unixctl::Client,
    taps: Vec<Tap>,
    mark: u32,
    daemon: Process,
    db: String,
    _server: Process,
    dir: tempfile::TempDir,
}

/// The capture file of one port, read as it grows.
struct Tap {
    file: File,
    unread: Vec<u8>,
    frames: Vec<Vec<u8>>,
    last_mark: u32,
}

impl Ovs {
    /// Starts it.
    pub fn start() -> Result<Ovs> {
        lab::packages::ensure(&[lab::packages::OVS])?;
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        process::output(Command::new("ovsdb-tool").arg("create").arg(at("conf.db")).arg(SCHEMA))?;
        let command = |program: &str| {
            let mut c = process::command(program);
            c.env("OVS_RUNDIR", dir.path()).env("OVS_LOGDIR", dir.path()).stdin(Stdio::null());
            c
        };
        let db = format!("unix:{}", at("db.sock").display());
        let mut server = command("ovsdb-server");
        server.arg(at("conf.db")).arg(format!("--remote=p{db}")).arg("--unixctl=none");
        let mut server = Process::start("ovsdb-server", &mut server, &at("server.log"))?;
        server.wait_path(&at("db.sock"), PATIENCE)?;
        let vsctl = |arguments: &str| {
            let mut c = Command::new("ovs-vsctl");
            // The socket is there some time before it is listened to.
            c.arg(format!("--db={db}"))
                .args(["--retry", "--timeout=30"])
                .args(arguments.split_whitespace());
            process::output(&mut c)
        };
        // Two tags are read here; OVS reads one unless told otherwise.
        vsctl("--no-wait -- init -- set Open_vSwitch . other_config:vlan-limit=2")?;
        let mut daemon = command("ovs-vswitchd");
        daemon.arg(&db).args(["--enable-dummy=override", "--disable-system"]);
        daemon.arg(format!("--unixctl={}", at("ctl").display()));
        let mut daemon = Process::start("ovs-vswitchd", &mut daemon, &at("daemon.log"))?;
        daemon.wait_path(&at("ctl"), PATIENCE)?;
        vsctl(&bridge(dir.path()))?;
        let mut taps = Vec::new();
        for (name, ..) in PORTS {
            let path = at(&format!("{name}.pcap"));
            daemon.wait_path(&path, PATIENCE)?;
            taps.push(Tap::open(&path)?);
        }
        let mut control = unixctl::Client::connect(at("ctl"))?;
        control.set_timeout(Some(PATIENCE))?;
        let mut ovs = Ovs { control, taps, mark: 0, daemon, db, _server: server, dir };
        ovs.set_up()?;
        Ok(ovs)
    }

    /// Takes a port down and adds the meter.
    fn set_up(&mut self) -> Result<()> {
        let (name, number, _) = PORTS[DOWN];
        self.appctl("netdev-dummy/set-admin-state", &[name, "down"])?;
        lab::wait::until("the port to be down", PATIENCE, || {
            let port = self.ofctl(&["dump-ports-desc"], &[&number.to_string()])?;
            Ok(port.map_err(anyhow::Error::msg)?.contains("LINK_DOWN").then_some(()))
        })?;
        let added = self.ofctl(&["-O", "OpenFlow15", "add-meter"], &[METER])?;
        added.map(drop).map_err(anyhow::Error::msg)
    }

    /// Runs ovs-vsctl, and waits until the daemon has followed.
    pub fn vsctl(&self, arguments: &[String]) -> Result<()> {
        let mut c = Command::new("ovs-vsctl");
        c.arg(format!("--db={}", self.db)).arg("--timeout=30").args(arguments);
        process::output(&mut c).map(drop)
    }

    /// Calls a command of its control socket.
    pub fn appctl(&mut self, command: &str, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let answer = self.control.call(command, &arguments)?;
        answer.map_err(|e| anyhow::anyhow!("{command} {}: {e}", arguments.join(" ")))
    }

    /// Runs ovs-ofctl on the bridge; the inner result is what it printed or complained of.
    pub fn ofctl(&self, options: &[&str], rest: &[&str]) -> Result<Result<String, String>> {
        let mut c = Command::new("ovs-ofctl");
        let target = format!("unix:{}", self.dir.path().join("br0.mgmt").display());
        c.args(options).arg(target).args(rest).env("OVS_RUNDIR", self.dir.path());
        let out = c.stdin(Stdio::null()).output().context("cannot run ovs-ofctl")?;
        Ok(match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
        })
    }

    /// Loads a scenario, sends its packets and says what came of it.
    pub fn run(&mut self, scenario: &Scenario) -> Result<Observed> {
        self.load(scenario)?;
        self.run_loaded(scenario)
    }

    /// Sends the packets of the scenario that was loaded last.
    pub fn run_loaded(&mut self, scenario: &Scenario) -> Result<Observed> {
        let mut outputs = self.send(&scenario.inputs, scenario.alone())?;
        // What is not counted before the changes would be counted for the flows that come with them.
        self.appctl("revalidator/purge", &[])?;
        let mut refused = BTreeMap::new();
        for (i, change) in scenario.changes.iter().enumerate() {
            let options = if needs_instructions(change) { &INSTRUCTIONS[..] } else { &[] };
            if let Err(why) = self.add_flows(options, &[change])? {
                refused.insert(i, why);
            }
        }
        // They may have met the flow for marks.
        self.add_flows(&[], &[&mark_flow()])?.map_err(anyhow::Error::msg)?;
        self.appctl("revalidator/purge", &[])?;
        if !scenario.changes.is_empty() {
            outputs.extend(self.send(&scenario.inputs, scenario.alone())?);
            self.appctl("revalidator/purge", &[])?;
        }
        // OpenFlow 1.0 has no words for instructions, and 1.5 has others for what was learned.
        let dump = self.ofctl(&[&INSTRUCTIONS[..], &["dump-flows"]].concat(), &[])?;
        let dump = dump.map_err(|e| anyhow::anyhow!("dump-flows: {e}"))?;
        let last = scenario.last_cookie();
        let learned = match scenario.text().contains("learn(") {
            true => self.ofctl(&["dump-flows"], &[LEARNED])?.map_err(anyhow::Error::msg)?,
            false => String::new(),
        };
        let mut counts = sums(&dump);
        for flow in scenario.flows.iter().chain(&scenario.changes) {
            // Deleted, or written in words of one version that another cannot decode.
            let cookie = number(flow, "cookie=");
            if cookie != 0 && !counts.contains_key(&cookie) {
                counts.extend(self.count(cookie)?.map(|c| (cookie, c)));
            }
        }
        for (cookie, c) in sums(&learned) {
            counts.entry(cookie).or_insert(c);
        }
        let learned = own(&learned, last);
        Ok(Observed { outputs, refused, counts, learned, ..Observed::default() })
    }

    /// Puts groups and flows in the place of what was there; returns which flows were refused.
    pub fn load(&mut self, scenario: &Scenario) -> Result<BTreeMap<usize, String>> {
        self.ofctl(&["del-flows"], &[])?.map_err(anyhow::Error::msg)?;
        self.appctl("fdb/flush", &["br0"])?;
        self.ofctl(&["-O", "OpenFlow15", "del-groups"], &[])?.map_err(anyhow::Error::msg)?;
        for group in &scenario.groups {
            let added = self.ofctl(&["-O", "OpenFlow15", "add-group"], &[group])?;
            added.map_err(|e| anyhow::anyhow!("{group}: {e}"))?;
        }
        let mark = mark_flow();
        let (mut old, mut new) = (vec![mark.as_str()], Vec::new());
        for flow in &scenario.flows {
            if needs_instructions(flow) { new.push(flow.as_str()) } else { old.push(flow) }
        }
        let all = self.add_flows(&[], &old)?.and(self.add_flows(&INSTRUCTIONS, &new)?);
        if all.is_ok() {
            return Ok(BTreeMap::new());
        }
        let mut refused = BTreeMap::new();
        self.ofctl(&["del-flows"], &[])?.map_err(anyhow::Error::msg)?;
        self.add_flows(&[], &[&mark])?.map_err(anyhow::Error::msg)?;
        for (i, flow) in scenario.flows.iter().enumerate() {
            let options = if needs_instructions(flow) { &INSTRUCTIONS[..] } else { &[] };
            if let Err(why) = self.add_flows(options, &[flow])? {
                refused.insert(i, why);
            }
        }
        Ok(refused)
    }

    fn add_flows(&self, options: &[&str], flows: &[&str]) -> Result<Result<String, String>> {
        if flows.is_empty() {
            return Ok(Ok(String::new()));
        }
        let file = self.dir.path().join("flows");
        std::fs::write(&file, flows.join("\n"))?;
        let file = file.to_str().context("a plain path")?;
        self.ofctl(&[options, &["add-flows"]].concat(), &[file])
    }

    /// Sends packets; `alone` waits for the consequences of each before the next.
    fn send(&mut self, inputs: &[Input], alone: bool) -> Result<Vec<Outputs>> {
        let mut all = Vec::with_capacity(inputs.len());
        let mut rest = inputs;
        while let Some(first) = rest.first() {
            let n = rest.iter().take(CALL).take_while(|i| i.port == first.port).count();
            let n = if alone { 1 } else { n };
            // Not what the packets before made of the tables or left in the caches.
            if alone {
                self.appctl("revalidator/purge", &[])?;
            }
            all.extend(self.send_some(first.port, &rest[..n])?);
            rest = &rest[n..];
        }
        Ok(all)
    }

    /// Sends packets by one port.
    fn send_some(&mut self, port: usize, inputs: &[Input]) -> Result<Vec<Outputs>> {
        let from = self.mark;
        let mut arguments = vec![PORTS[port].0.to_owned()];
        for input in inputs {
            self.mark += 1;
            arguments.push(hex(&input.frame));
            arguments.push(hex(&mark_frame(self.mark)));
        }
        let answer = self.control.call("netdev-dummy/receive", &arguments)?;
        ensure!(answer.is_ok(), "netdev-dummy/receive: {answer:?}");
        let start = Instant::now();
        while self.taps.iter().any(|t| t.last_mark != self.mark) {
            for tap in &mut self.taps {
                tap.read()?;
            }
            self.daemon.check_alive()?;
            ensure!(start.elapsed() < PATIENCE, "ovs-vswitchd: no mark after {PATIENCE:?}");
            std::thread::sleep(LOOK);
        }
        let mut outputs = vec![Outputs::new(); inputs.len()];
        for (port, tap) in self.taps.iter_mut().enumerate() {
            let mut at = 0;
            for frame in tap.frames.drain(..) {
                match mark_of(&frame) {
                    Some(mark) => at = (mark - from) as usize,
                    None if is_of_mark(&frame) => {}
                    None => outputs[at].entry(port).or_default().push(frame),
                }
            }
        }
        Ok(outputs)
    }

    /// Packets and bytes of the flows with a cookie, if there is one.
    fn count(&self, cookie: u64) -> Result<Option<(u64, u64)>> {
        let sums = self.ofctl(&["dump-aggregate"], &[&format!("cookie={cookie:#x}/-1")])?;
        let sums = sums.map_err(anyhow::Error::msg)?;
        let there = number(&sums, "flow_count=") > 0;
        Ok(there.then(|| (number(&sums, "packet_count="), number(&sums, "byte_count="))))
    }

    /// True if the daemon is gone, or about to be: it ends some time after its sockets do.
    pub fn has_ended(&mut self) -> bool {
        let ended = || Ok(self.daemon.check_alive().is_err().then_some(()));
        lab::wait::until("ovs-vswitchd to end", ENDING, ended).is_ok()
    }

    /// `ofproto/trace` of a packet.
    pub fn trace(&mut self, input: &Input) -> Result<String> {
        let port = format!("in_port={}", PORTS[input.port].1.0);
        self.appctl("ofproto/trace", &["br0", &port, &hex(&input.frame)])
    }
}

/// OpenFlow 1.0, which ovs-ofctl speaks by preference, has no instructions: it would send a resubmit
/// for `goto_table` and nothing at all for `write_actions`. Nor does it push tags, and of a `set_field`
/// with a mask it drops the mask where there is an old action for the field.
const INSTRUCTIONS: [&str; 2] = ["-O", "OpenFlow15"];

fn needs_instructions(flow: &str) -> bool {
    let words =
        ["write_actions", "clear_actions", "goto_table", "write_metadata", "meter", "push_vlan"];
    let mut sets = flow.split("set_field:").skip(1);
    let masked = |set: &str| set.split_once("->").is_some_and(|(value, _)| value.contains('/'));
    words.iter().any(|word| flow.contains(word)) || sets.any(masked)
}

/// Arguments of ovs-vsctl that make the bridge.
fn bridge(dir: &Path) -> String {
    let mut out = "add-br br0 -- set bridge br0 datapath_type=dummy fail-mode=secure".to_owned();
    for (name, number, _) in PORTS {
        if name != "br0" {
            out += &format!(" -- add-port br0 {name} -- set interface {name} type=dummy");
            out += &format!(" ofport_request={}", number.0);
        }
        let file = dir.join(name);
        out += &format!(" -- set interface {name} mtu_request={MTU}");
        out += &format!(" options:tx_pcap={}.pcap", file.display());
    }
    out
}

fn mark_flow() -> String {
    let ports: Vec<String> = PORTS.iter().map(|(_, number, _)| number.to_string()).collect();
    format!(
        "cookie={MARK_COOKIE:#x},priority=65535,dl_type={MARK_TYPE:#x},actions={},in_port",
        ports.join(",")
    )
}

fn mark_frame(mark: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 0xff];
    frame.extend(MARK_TYPE.to_be_bytes());
    frame.extend(mark.to_be_bytes());
    frame
}

/// Whether a frame is a mark or a copy of one, with whatever tags.
fn is_of_mark(frame: &[u8]) -> bool {
    frame.starts_with(&mark_frame(0)[..12])
}

fn mark_of(frame: &[u8]) -> Option<u32> {
    let (head, tail) = frame.split_first_chunk::<14>()?;
    let mark = u32::from_be_bytes(*tail.first_chunk()?);
    (head[12..] == MARK_TYPE.to_be_bytes() && tail.len() == 4).then_some(mark)
}

impl Tap {
    /// Passes over the file's header.
    fn open(path: &Path) -> Result<Tap> {
        let mut file = File::open(path)?;
        file.read_exact(&mut [0; 24])?;
        Ok(Tap { file, unread: Vec::new(), frames: Vec::new(), last_mark: 0 })
    }

    fn read(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.unread)?;
        let mut rest = &self.unread[..];
        // Each record has seconds, microseconds, length here and length then, in this machine's order.
        while let Some((head, tail)) = rest.split_first_chunk::<16>() {
            let len = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let Some((frame, after)) = tail.split_at_checked(len) else { break };
            if let Some(mark) = mark_of(frame) {
                self.last_mark = mark;
            }
            self.frames.push(frame.to_vec());
            rest = after;
        }
        let used = self.unread.len() - rest.len();
        self.unread.drain(..used);
        Ok(())
    }
}

/// Packets and bytes by cookie in a dump of flows.
fn sums(dump: &str) -> BTreeMap<u64, (u64, u64)> {
    let mut counts = BTreeMap::new();
    for line in dump.lines().filter(|l| l.contains("cookie=")) {
        let cookie = number(line, "cookie=");
        if cookie != MARK_COOKIE {
            let sum: &mut (u64, u64) = counts.entry(cookie).or_default();
            *sum = (sum.0 + number(line, "n_packets="), sum.1 + number(line, "n_bytes="));
        }
    }
    counts
}

/// The flows of a dump with cookies after `last`, without statistics, sorted.
pub fn own(dump: &str, last: u64) -> Vec<String> {
    let lines = dump.lines().filter(|l| l.contains("cookie=") && number(l, "cookie=") > last);
    let mut lines: Vec<String> = lines.map(without_statistics).collect();
    lines.sort_unstable();
    lines
}

/// The number after `word`, 0 if there is none.
pub fn number(line: &str, word: &str) -> u64 {
    let Some((_, rest)) = line.split_once(word) else { return 0 };
    let text = rest.split([',', ' ', 's', '/', '\n']).next().unwrap_or_default();
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    }
}

/// A line of dump-flows without what depends on time and packets.
fn without_statistics(line: &str) -> String {
    let volatile = ["duration=", "n_packets=", "n_bytes=", "idle_age=", "hard_age="];
    let words = line.trim().split(", ");
    let kept: Vec<&str> = words.filter(|w| !volatile.iter().any(|v| w.starts_with(v))).collect();
    kept.join(", ")
}
