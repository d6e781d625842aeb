//! DPDK's testpmd as the virtio drivers of one or more vhost-user ports: load that counts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::netns::Namespace;
use crate::process::{self, Process};
use crate::switch::{SocketMode, VhostPort};
use crate::wait;

/// DPDK memory for the packet pool and the rings of two ports.
pub const MEMORY_MB: u64 = 256;

/// Packet buffers: more than all rings of two ports with two queue pairs hold; testpmd's own choice would not fit.
const PACKET_BUFFERS: u32 = 16_384;

const PROMPT: &str = "testpmd> ";

/// Time until the prompt: DPDK's start, and with a listening socket the switch's connection.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Time for a command, `quit` included, on a loaded machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How long counters must stand still before a drain is over.
const QUIET: Duration = Duration::from_millis(300);

/// How the virtio drivers present themselves; the default is what QEMU's guest of today uses.
#[derive(Debug, Clone)]
pub struct Options {
    /// Queue pairs of each port.
    pub queues: u16,
    /// Descriptors in each ring, a power of two.
    pub queue_size: u16,
    /// Packed rings instead of split.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// DPDK's vectorized data path.
    pub vectorized: bool,
    /// A hugetlbfs to take memory from; without one, ordinary memory.
    pub hugepages: Option<PathBuf>,
    /// The core that forwards.
    pub core: usize,
    /// Length of the frames it makes, without frame check sequence.
    pub frame_bytes: u16,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            queues: 1,
            queue_size: 1024,
            packed: false,
            mergeable: true,
            in_order: false,
            vectorized: false,
            hugepages: None,
            core: 0,
            frame_bytes: 64,
        }
    }
}

/// Counters of one port of testpmd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received from the switch.
    pub rx_packets: u64,
    /// Bytes of them, without frame check sequence.
    pub rx_bytes: u64,
    /// Frames given to the switch.
    pub tx_packets: u64,
    /// Bytes of them, without frame check sequence.
    pub tx_bytes: u64,
}

/// A running testpmd at its prompt.
#[derive(Debug)]
pub struct Testpmd {
    process: Process,
    stdin: ChildStdin,
    dir: TempDir,
}

impl Testpmd {
    /// Starts testpmd with a virtio driver on each of `ports` and waits until it is connected to all of them.
    /// The MAC address of its port N is 02:10:00:00:00:N, so two testpmds have the same.
    pub fn start(options: &Options, ports: &[&VhostPort]) -> Result<Testpmd> {
        let dir = new_dir()?;
        for port in ports.iter().filter(|p| p.mode == SocketMode::SwitchConnects) {
            // A killed testpmd leaves its socket, and the next one would not listen on it.
            let _ = std::fs::remove_file(&port.socket);
        }
        let arguments = arguments(options, dir.path(), ports);
        let mut this = Testpmd::launch(dir, &arguments)?;
        this.command("set fwd io")?;
        this.command(&format!("set txpkts {}", options.frame_bytes))?;
        Ok(this)
    }

    /// Starts testpmd with AF_XDP (`net_af_xdp`) on netdevs of a namespace, in ordinary memory; frames are of 64 bytes.
    pub fn on_netdevs(namespace: &Namespace, netdevs: &[&str], core: usize) -> Result<Testpmd> {
        let dir = new_dir()?;
        let mut arguments = common_arguments(core, dir.path());
        arguments.extend(["--no-huge".to_owned(), "-m".to_owned(), MEMORY_MB.to_string()]);
        for (index, netdev) in netdevs.iter().enumerate() {
            arguments.push(format!("--vdev=net_af_xdp{index},iface={netdev}"));
        }
        arguments.extend(["--", "-i", "--nb-cores=1"].map(str::to_owned));
        arguments.push(format!("--total-num-mbufs={PACKET_BUFFERS}"));
        let mut command = process::command("nsenter");
        command.args(["-t", &namespace.pid().to_string(), "-n", "--", "stdbuf"]);
        Testpmd::launch_by(command, dir, &arguments)
    }

    /// Starts testpmd with these arguments and waits for its prompt.
    pub(crate) fn launch(dir: TempDir, arguments: &[String]) -> Result<Testpmd> {
        Testpmd::launch_by(process::command("stdbuf"), dir, arguments)
    }

    /// The same by a command that ends in `stdbuf`.
    fn launch_by(mut command: Command, dir: TempDir, arguments: &[String]) -> Result<Testpmd> {
        command.args(["-o0", "dpdk-testpmd"]).args(arguments);
        command.stdin(Stdio::piped());
        let mut process = Process::start("testpmd", &mut command, &dir.path().join("testpmd.log"))?;
        let stdin = process.take_stdin().context("testpmd has no standard input")?;
        let prompt = |log: &str| log.contains(PROMPT).then_some(());
        process.wait_log("the prompt", START_LIMIT, 0, prompt)?;
        Ok(Testpmd { process, stdin, dir })
    }

    /// Where it has its log.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs one command at the prompt and returns what it printed.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let from = self.process.log_len();
        writeln!(self.stdin, "{line}").context("testpmd takes no more commands")?;
        let answer = |log: &str| log.split_once(PROMPT).map(|(answer, _)| answer.to_owned());
        self.process.wait_log(&format!("an answer to `{line}`"), COMMAND_LIMIT, from, answer)
    }

    /// Puts `bursts` of 32 frames on every queue and forwards from then on whatever comes back:
    /// port 0 to 1 and 1 to 0.
    pub fn start_loop(&mut self, bursts: u16) -> Result<()> {
        self.command("set fwd io")?;
        self.command(&format!("start tx_first {bursts}")).map(drop)
    }

    /// Takes what comes and sends nothing.
    pub fn start_sink(&mut self) -> Result<()> {
        self.command("set fwd rxonly")?;
        self.command("start").map(drop)
    }

    /// Ends forwarding.
    pub fn stop_forwarding(&mut self) -> Result<()> {
        self.command("stop").map(drop)
    }

    /// Ends forwarding and takes frames still in flight until none come any more.
    pub fn drain(&mut self) -> Result<()> {
        self.stop_forwarding()?;
        self.start_sink()?;
        let mut last = (self.counters()?, Instant::now());
        wait::until("the last frames to arrive", COMMAND_LIMIT, || {
            let now = self.counters()?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((last.1.elapsed() > QUIET).then_some(()))
        })?;
        self.stop_forwarding()
    }

    /// The counters of all ports, in order.
    pub fn counters(&mut self) -> Result<Vec<PortCounters>> {
        parse_counters(&self.command("show port stats all")?)
    }

    /// Frames received by all ports together.
    pub fn received(&mut self) -> Result<u64> {
        Ok(self.counters()?.iter().map(|c| c.rx_packets).sum())
    }

    /// Waits until the ports have received `frames` more than at the call.
    pub fn wait_received(&mut self, frames: u64, limit: Duration) -> Result<()> {
        let from = self.received()?;
        let what = format!("testpmd to receive {frames} frames");
        wait::until(&what, limit, || Ok((self.received()? >= from + frames).then_some(())))
    }

    /// Extended counters of one port, such as `rx_q0_good_packets`.
    pub fn extended_counters(&mut self, port: usize) -> Result<BTreeMap<String, u64>> {
        let text = self.command(&format!("show port xstats {port}"))?;
        let pair = |line: &str| {
            let (name, value) = line.trim().split_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(pair).collect())
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ =
            std::fs::remove_dir_all(Path::new("/var/run/dpdk").join(file_prefix(self.dir.path())));
    }
}

/// Directly under /tmp and short: a socket's path has room for 107 bytes.
pub(crate) fn new_dir() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("lab-testpmd-").tempdir_in("/tmp")?)
}

/// Each DPDK process keeps its files under a name of its own.
pub(crate) fn file_prefix(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "lab".into(), |n| n.to_string_lossy().into_owned())
}

fn common_arguments(core: usize, dir: &Path) -> Vec<String> {
    vec![
        // The prompt's thread and the forwarding thread share the core.
        format!("--lcores=0@{core},1@{core}"),
        "--no-pci".to_owned(),
        "--no-telemetry".to_owned(),
        format!("--file-prefix={}", file_prefix(dir)),
    ]
}

fn arguments(options: &Options, dir: &Path, ports: &[&VhostPort]) -> Vec<String> {
    let mut arguments = common_arguments(options.core, dir);
    // One region: with a file for each page the memory table would not fit in a message.
    arguments.push("--single-file-segments".to_owned());
    match &options.hugepages {
        Some(mount) => {
            arguments.push(format!("--huge-dir={}", mount.display()));
            arguments.push(format!("--socket-mem={MEMORY_MB}"));
        }
        None => arguments.extend(["--no-huge".to_owned(), "-m".to_owned(), MEMORY_MB.to_string()]),
    }
    for (index, port) in ports.iter().enumerate() {
        let server = u8::from(port.mode == SocketMode::SwitchConnects);
        arguments.push(format!(
            "--vdev=net_virtio_user{index},path={},server={server},queues={},queue_size={},mac=02:10:00:00:00:{index:02x},\
             packed_vq={},mrg_rxbuf={},in_order={},vectorized={}",
            port.socket.display(),
            options.queues,
            options.queue_size,
            u8::from(options.packed),
            u8::from(options.mergeable),
            u8::from(options.in_order),
            u8::from(options.vectorized),
        ));
    }
    let descriptors = options.queue_size.min(1024);
    arguments.extend(["--", "-i", "--nb-cores=1"].map(str::to_owned));
    arguments.push(format!("--rxq={0}", options.queues));
    arguments.push(format!("--txq={0}", options.queues));
    arguments.push(format!("--rxd={descriptors}"));
    arguments.push(format!("--txd={descriptors}"));
    arguments.push(format!("--total-num-mbufs={PACKET_BUFFERS}"));
    arguments
}

/// Reads `show port stats all`.
fn parse_counters(text: &str) -> Result<Vec<PortCounters>> {
    let mut ports = Vec::new();
    for line in text.lines() {
        if line.contains("NIC statistics for port") {
            ports.push(PortCounters::default());
        }
        let Some(port) = ports.last_mut() else { continue };
        let line = line.trim();
        if line.starts_with("RX-packets:") {
            port.rx_packets = field(line, "RX-packets:")?;
            port.rx_bytes = field(line, "RX-bytes:")?;
        } else if line.starts_with("TX-packets:") {
            port.tx_packets = field(line, "TX-packets:")?;
            port.tx_bytes = field(line, "TX-bytes:")?;
        }
    }
    anyhow::ensure!(!ports.is_empty(), "testpmd printed no statistics:\n{text}");
    Ok(ports)
}

fn field(line: &str, name: &str) -> Result<u64> {
    let rest = line.split_once(name).map(|(_, rest)| rest.trim_start());
    let rest = rest.with_context(|| format!("no {name} in `{line}`"))?;
    let digits = rest.split_whitespace().next().unwrap_or_default();
    digits.parse().with_context(|| format!("{name} in `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_port_by_port() {
        let text = "
  ######################## NIC statistics for port 0  ########################
  RX-packets: 5          RX-missed: 0          RX-bytes:  300
  RX-errors: 0
  TX-packets: 7          TX-errors: 0          TX-bytes:  420
  ######################## NIC statistics for port 1  ########################
  RX-packets: 7          RX-missed: 0          RX-bytes:  420
  TX-packets: 5          TX-errors: 0          TX-bytes:  300
";
        let ports = parse_counters(text).unwrap();
        assert_eq!(ports.len(), 2);
        assert_eq!((ports[0].rx_packets, ports[0].tx_bytes), (5, 420));
        assert_eq!((ports[1].rx_bytes, ports[1].tx_packets), (420, 5));
        assert!(parse_counters("nothing").is_err());
    }
}
