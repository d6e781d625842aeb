//! Network namespaces as hosts: each lives as long as a process that holds it.

use std::process::{Command, Stdio};

use anyhow::Result;
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::switch::Switch;

/// A network namespace of its own, with its loopback up; it goes at drop, with all that is in it.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
    _log: TempDir,
}

impl Namespace {
    /// An empty one. Needs root.
    pub fn new() -> Result<Namespace> {
        let log = TempDir::new()?;
        let mut command = process::command_in_own_network("sh");
        // Says when the program runs, and with it that it is in its own namespace.
        command.args(["-c", "echo ready; exec sleep infinity"]).stdin(Stdio::null());
        let mut holder = Process::start("namespace", &mut command, &log.path().join("log"))?;
        let limit = std::time::Duration::from_secs(30);
        holder.wait_log("ready", limit, 0, |t| t.contains("ready").then_some(()))?;
        let made = Namespace { holder, _log: log };
        made.run("ip link set lo up")?;
        Ok(made)
    }

    /// As `ip link set … netns` has it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs a command in it, words separated by spaces; returns what it prints.
    pub fn run(&self, line: &str) -> Result<String> {
        run_beside(self.pid(), line)
    }

    /// Starts a program in it.
    pub fn start(&self, line: &str, log: &std::path::Path) -> Result<Process> {
        let mut command = process::command("nsenter");
        command.args(["-t", &self.pid().to_string(), "-n", "--"]).args(line.split(' '));
        command.stdin(Stdio::null());
        Process::start(line, &mut command, log)
    }
}

/// Runs a command in the namespace of a process.
pub fn run_beside(pid: u32, line: &str) -> Result<String> {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "--"]).args(line.split(' '));
    process::output(&mut command)
}

/// Runs a command in the namespace of the switch's daemon: its host.
pub fn on_host(switch: &Switch, line: &str) -> Result<String> {
    run_beside(switch.daemon().id(), line)
}

/// Joins the switch's host and a namespace by a veth pair: `name` here, up, and `peer` there, up, with the
/// address `address/24`.
pub fn wire(switch: &Switch, name: &str, to: &Namespace, peer: &str, address: &str) -> Result<()> {
    let pid = to.pid();
    on_host(switch, &format!("ip link add {name} type veth peer name {peer} netns {pid}"))?;
    on_host(switch, &format!("ip link set {name} up"))?;
    to.run(&format!("ip addr add {address}/24 dev {peer}"))?;
    to.run(&format!("ip link set {peer} up")).map(drop)
}

/// Moves a netdev of the switch's host into a namespace, and gives it an address there.
pub fn give(switch: &Switch, name: &str, to: &Namespace, address: &str) -> Result<()> {
    on_host(switch, &format!("ip link set {name} netns {}", to.pid()))?;
    to.run(&format!("ip addr add {address}/24 dev {name}"))?;
    to.run(&format!("ip link set {name} up")).map(drop)
}
