//! DPDK's testpmd as a vhost-user back end with two ports in `io` mode: what enters one leaves the other.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use virtio_driver::payload::{Checker, Flow};
use virtio_driver::{Config, Driver, Error, Layout, NetHeader, SocketMode};

/// One testpmd at a time: it polls, and the machine may have two cores.
static ALONE: Mutex<()> = Mutex::new(());
/// The longest any single step may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Lines of testpmd's output that a failure shows.
const OUTPUT_LINES: usize = 25;

/// How testpmd is started.
#[derive(Clone, Copy)]
pub struct Options {
    /// testpmd connects to the drivers' sockets.
    pub client: bool,
    /// Queue pairs of each port.
    pub queues: u16,
}

impl Default for Options {
    fn default() -> Options {
        Options { client: false, queues: 1 }
    }
}

/// A running testpmd; killed and waited for on drop.
pub struct Testpmd {
    child: Child,
    dir: TempDir,
    options: Options,
    _alone: MutexGuard<'static, ()>,
}

impl Testpmd {
    pub fn start(options: Options) -> Testpmd {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(dir.path(), options);
        Testpmd { child, dir, options, _alone: alone }
    }

    pub fn socket(&self, port: usize) -> PathBuf {
        self.dir.path().join(format!("port{port}.sock"))
    }

    /// A configuration for the driver of one port.
    pub fn config(&self, port: usize) -> Config {
        let path = self.socket(port);
        let socket =
            if self.options.client { SocketMode::Listen(path) } else { SocketMode::Connect(path) };
        Config { queue_pairs: self.options.queues, patience: PATIENCE, ..Config::new(socket) }
    }

    /// Both ports' drivers.
    pub fn drivers(&mut self, change: impl Fn(Config) -> Config) -> [Driver; 2] {
        [0, 1].map(|port| match Driver::connect(change(self.config(port))) {
            Ok(driver) => driver,
            Err(error) => panic!("port {port}: {error}\n{}", self.output()),
        })
    }

    /// Kills testpmd as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`Testpmd::kill`].
    pub fn restart(&mut self) {
        for port in 0..2 {
            if !self.options.client {
                let _ = std::fs::remove_file(self.socket(port));
            }
        }
        self.child = spawn(self.dir.path(), self.options);
    }

    /// What it printed; ends it.
    pub fn output(&mut self) -> String {
        self.kill();
        let mut text = String::new();
        let _ = std::fs::File::open(self.dir.path().join("log"))
            .and_then(|mut log| log.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n")
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("testpmd said:\n{}", self.output());
        }
        self.kill();
    }
}

fn spawn(dir: &Path, options: Options) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new("dpdk-testpmd");
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let lcores = if cores > 1 { "0@0,1@1" } else { "0@0,1@0" };
    command.args([
        "--no-huge",
        "-m",
        "256",
        "--no-pci",
        "--no-shconf",
        "--no-telemetry",
        "--lcores",
        lcores,
    ]);
    for port in 0..2 {
        let socket = dir.join(format!("port{port}.sock"));
        let (client, queues) = (u8::from(options.client), options.queues);
        command.arg(format!(
            "--vdev=net_vhost{port},iface={},client={client},queues={queues}",
            socket.display()
        ));
    }
    command.args([
        "--",
        "--forward-mode=io",
        "--disable-link-check",
        "--nb-cores=1",
        "--no-flush-rx",
        "--total-num-mbufs=32768",
    ]);
    command.args([format!("--rxq={}", options.queues), format!("--txq={}", options.queues)]);
    // Its standard input stays open (it stops at a line); in a group of its own, a terminal's ^C leaves it to `Drop`.
    command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
    command.spawn().expect("dpdk-testpmd must run: install the Debian package `dpdk`")
}

/// Frames kept on their way at most: less than any ring here holds, so that nothing is dropped for want of room.
pub const WINDOW: u64 = 100;

/// What to send.
pub struct Traffic<'a> {
    pub frames: u64,
    pub lengths: &'a [usize],
    pub layouts: &'a [Layout],
}

/// Sends both ways on every pair, and checks each byte that comes back. Sequence numbers begin at `first`. Nothing may be lost,
/// doubled, reordered or changed.
pub fn exchange(drivers: &mut [Driver; 2], checkers: &mut Checkers, traffic: &Traffic<'_>) {
    let deadline = Instant::now() + PATIENCE;
    let pairs = usize::from(drivers[0].config().queue_pairs);
    let end = checkers.sent + traffic.frames;
    for pair in 0..pairs {
        let mut sent = [checkers.sent; 2];
        loop {
            let got = [0, 1].map(|to| checkers.good(to, pair));
            if got == [end; 2] {
                break;
            }
            if Instant::now() > deadline {
                let missing = [0, 1].map(|to| {
                    checkers.by_port[to].missing(flow(1 - to, pair).id, sent[1 - to], 100)
                });
                panic!(
                    "pair {pair}: got {got:?} of {end}, sent {sent:?}; missing {missing:?}; {}",
                    stats(drivers, pair)
                );
            }
            for from in 0..2 {
                let flow = flow(from, pair);
                while sent[from] < end && sent[from] - got[1 - from] < WINDOW {
                    let length = traffic.lengths[sent[from] as usize % traffic.lengths.len()];
                    let layout = &traffic.layouts[sent[from] as usize % traffic.layouts.len()];
                    let mut frame = Vec::new();
                    flow.frame(sent[from], length, &mut frame);
                    if drivers[from]
                        .tx_chain(pair, &NetHeader::default(), &[&frame], layout)
                        .unwrap()
                        == 0
                    {
                        break;
                    }
                    sent[from] += 1;
                }
            }
            for (driver, checker) in drivers.iter_mut().zip(&mut checkers.by_port) {
                driver.wait_rx(pair, Instant::now() + Duration::from_millis(20)).unwrap();
                let check = |_: &NetHeader, frame: &[u8]| {
                    assert!(checker.check(frame), "a spoilt frame: {frame:02x?}")
                };
                driver.rx(pair, 256, check).unwrap();
            }
        }
        for driver in drivers.iter_mut() {
            assert!(driver.drain_tx(pair, deadline).unwrap(), "transmit buffers never came back");
        }
    }
    checkers.sent = end;
    for to in 0..2 {
        for pair in 0..pairs {
            let report = checkers.by_port[to].report(flow(1 - to, pair).id);
            assert_eq!(
                (report.duplicated, report.reordered, report.corrupt),
                (0, 0, 0),
                "port {to} pair {pair}: {report:?}"
            );
        }
    }
}

fn stats(drivers: &mut [Driver; 2], pair: usize) -> String {
    drivers
        .iter_mut()
        .map(|d| {
            let pair = d.pair(pair);
            format!(
                "rx {:?} {:?}; tx {:?} {:?}; ",
                pair.rx.stats(),
                pair.rx.outstanding(),
                pair.tx.stats(),
                pair.tx.in_flight()
            )
        })
        .collect()
}

/// The flow from a port on a pair.
pub fn flow(from: usize, pair: usize) -> Flow {
    Flow::between((from * 100 + pair) as u16, from as u8 + 1, 2 - from as u8)
}

/// What has come back so far, over several exchanges.
pub struct Checkers {
    by_port: [Checker; 2],
    pub sent: u64,
}

impl Checkers {
    pub fn new(pairs: usize) -> Checkers {
        let flows = |to: usize| (0..pairs).map(|pair| flow(1 - to, pair)).collect::<Vec<_>>();
        Checkers { by_port: [0, 1].map(|to| Checker::new(&flows(to))), sent: 0 }
    }

    fn good(&self, to: usize, pair: usize) -> u64 {
        self.by_port[to].report(flow(1 - to, pair).id).received
    }
}

/// Waits until the back end has closed the connection.
pub fn wait_gone(driver: &mut Driver) {
    let deadline = Instant::now() + PATIENCE;
    while !driver.disconnected().unwrap() {
        match driver.wait_rx(0, deadline) {
            Ok(true) => drop(driver.rx(0, 256, |_, _| {})),
            Ok(false) => panic!("the back end should be gone"),
            Err(Error::Disconnected { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
