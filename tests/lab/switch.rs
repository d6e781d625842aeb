//! The switch under test: ours or OVS-DPDK, behind the same operations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::{ovs, wait};

/// Time for a daemon to start and answer on a loaded machine; DPDK's own start takes 2 to 5 s.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Time for one command of the CLI.
const COMMAND_LIMIT_S: &str = "60";

/// Time for one call on the command socket.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);

/// Environment: which switch the acceptance tests run against; `ours` (default) or `ovs-dpdk`.
pub const SWITCH_VARIABLE: &str = "LAB_SWITCH";

/// Environment: where `vswitchd` and `vswitchctl` are. Default: beside the program that asks.
pub const BIN_DIR_VARIABLE: &str = "VSWITCH_BIN_DIR";

static BIN_DIR: OnceLock<PathBuf> = OnceLock::new();

/// Makes this process take `vswitchd` and `vswitchctl` from `directory`. The first call counts.
pub fn use_binaries_in(directory: PathBuf) {
    let _ = BIN_DIR.set(directory);
}

/// Which switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `vswitchd` and `vswitchctl` as built.
    Ours,
    /// Debian's openvswitch-switch-dpdk.
    OvsDpdk,
}

impl Kind {
    /// The switch that the environment asks the tests to run against.
    pub fn from_environment() -> Result<Kind> {
        std::env::var(SWITCH_VARIABLE).map_or(Ok(Kind::Ours), |name| name.parse())
    }
}

impl std::str::FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Kind> {
        match name {
            "ours" => Ok(Kind::Ours),
            "ovs-dpdk" => Ok(Kind::OvsDpdk),
            _ => bail!("no switch is called {name}: say ours or ovs-dpdk"),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Kind::Ours => "ours",
            Kind::OvsDpdk => "ovs-dpdk",
        })
    }
}

/// Who listens on a vhost-user port's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketMode {
    /// `dpdkvhostuserclient`: the front end listens, the switch connects.
    SwitchConnects,
    /// `dpdkvhostuser`: the switch listens, the front end connects.
    SwitchListens,
}

/// A vhost-user port of the switch.
#[derive(Debug, Clone)]
pub struct VhostPort {
    /// Interface name in the switch.
    pub name: String,
    /// The port's socket.
    pub socket: PathBuf,
    /// Who listens on it.
    pub mode: SocketMode,
}

/// A running switch with a run directory of its own; stopped at drop.
#[derive(Debug)]
pub struct Switch {
    kind: Kind,
    /// Ours, if it is not the one of this workspace.
    program: Option<PathBuf>,
    daemon: Process,
    _surroundings: Option<ovs::Surroundings>,
    rundir: TempDir,
}

impl Switch {
    /// Starts the daemon with an empty configuration; it polls on the cores of `core_mask`.
    pub fn start(kind: Kind, core_mask: u64) -> Result<Switch> {
        Switch::start_with(kind, core_mask, &[])
    }

    /// The same with `settings` (`KEY=VALUE`) in `other_config`, from the start where that matters.
    pub fn start_with(kind: Kind, core_mask: u64, settings: &[&str]) -> Result<Switch> {
        Switch::start_program(kind, None, core_mask, settings)
    }

    /// The same with another build of ours than this workspace's, if `program` says so.
    pub fn start_program(
        kind: Kind,
        program: Option<PathBuf>,
        core_mask: u64,
        settings: &[&str],
    ) -> Result<Switch> {
        // Directly under /tmp and short: a socket's path has room for 107 bytes.
        let rundir = tempfile::Builder::new().prefix("lab-").tempdir_in("/tmp")?;
        let surroundings = match kind {
            Kind::Ours => None,
            Kind::OvsDpdk => Some(ovs::Surroundings::start(rundir.path(), core_mask, settings)?),
        };
        let daemon = start_daemon(kind, program.as_deref(), rundir.path())?;
        let mut switch = Switch { kind, program, daemon, _surroundings: surroundings, rundir };
        switch.wait_ready()?;
        if kind == Kind::Ours {
            let mask = format!("other_config:pmd-cpu-mask={core_mask:#x}");
            let settings: Vec<String> =
                settings.iter().map(|s| format!("other_config:{s}")).collect();
            let mut arguments = vec!["set", "Open_vSwitch", ".", &mask];
            arguments.extend(settings.iter().map(String::as_str));
            switch.ctl(&arguments)?;
        }
        Ok(switch)
    }

    /// Which one this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The daemon's process.
    pub fn daemon(&self) -> &Process {
        &self.daemon
    }

    /// Where the switch has its sockets and its database.
    pub fn rundir(&self) -> &Path {
        self.rundir.path()
    }

    /// A CLI command in `ovs-vsctl`'s grammar; returns what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = match self.kind {
            Kind::Ours => our_ctl(self.rundir())?,
            Kind::OvsDpdk => ovs::ctl(self.rundir()),
        };
        process::output(command.args(arguments)).with_context(|| self.quoted_log())
    }

    /// Starts a command of ours that goes on until it is stopped.
    pub fn start_ctl(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = process::command(our_binary("vswitchctl")?);
        command.arg("--rundir").arg(self.rundir()).args(arguments).stdin(Stdio::null());
        Process::start(name, &mut command, &self.rundir().join(format!("{}.out", arguments[0])))
    }

    /// A command in `ovs-appctl`'s grammar, such as `["dpif/show"]`; returns what it prints.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = match self.kind {
            Kind::Ours => our_ctl(self.rundir())?,
            Kind::OvsDpdk => ovs::appctl(self.rundir(), self.daemon.id()),
        };
        process::output(command.args(arguments)).with_context(|| self.quoted_log())
    }

    /// A command in `ovs-ofctl`'s grammar; returns what it prints.
    pub fn ofctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = match self.kind {
            Kind::Ours => our_ctl(self.rundir())?,
            Kind::OvsDpdk => ovs::ofctl(self.rundir()),
        };
        process::output(command.args(arguments)).with_context(|| self.quoted_log())
    }

    /// Makes the flows of `bridge` what `flows` says, one on each line.
    pub fn set_flows(&self, bridge: &str, flows: &str) -> Result<()> {
        let file = self.rundir().join("flows.txt");
        std::fs::write(&file, flows)?;
        self.ofctl(&["del-flows", bridge])?;
        self.ofctl(&["add-flows", bridge, &file.display().to_string()]).map(drop)
    }

    /// A connection to the daemon's command socket: calls on it start no process.
    pub fn control(&self) -> Result<unixctl::Client> {
        let pid = self.daemon.id();
        let socket = match self.kind {
            Kind::Ours => self.rundir().join(format!("vswitchd.{pid}.ctl")),
            Kind::OvsDpdk => ovs::control_socket(self.rundir(), pid),
        };
        let mut client = unixctl::Client::connect(socket)?;
        client.set_timeout(Some(CONTROL_LIMIT))?;
        Ok(client)
    }

    /// Adds a bridge of the userspace datapath.
    pub fn add_bridge(&self, bridge: &str) -> Result<()> {
        let set = ["--", "set", "Bridge", bridge, "datapath_type=netdev"];
        self.ctl(&[&["add-br", bridge], &set[..]].concat()).map(drop)
    }

    /// Adds a vhost-user port; its queues follow what the front end brings.
    pub fn add_vhost_port(&self, bridge: &str, name: &str, mode: SocketMode) -> Result<VhostPort> {
        let socket = match mode {
            SocketMode::SwitchConnects => self.rundir().join(format!("{name}.sock")),
            SocketMode::SwitchListens => self.rundir().join(name),
        };
        let path = format!("options:vhost-server-path={}", socket.display());
        let mut arguments = vec!["add-port", bridge, name, "--", "set", "Interface", name];
        match mode {
            SocketMode::SwitchConnects => arguments.extend(["type=dpdkvhostuserclient", &path]),
            SocketMode::SwitchListens => arguments.push("type=dpdkvhostuser"),
        }
        self.ctl(&arguments)?;
        let error = self.interface(name, "error")?;
        if error != "[]" && error != "\"\"" {
            bail!("port {name}: {error}; {}", self.quoted_log());
        }
        Ok(VhostPort { name: name.to_owned(), socket, mode })
    }

    /// Adds vhost-user ports on which the switch listens (at `RUNDIR/NAME`), in one transaction.
    pub fn add_listening_ports(&self, bridge: &str, names: &[String], mtu: u16) -> Result<()> {
        let mtu = format!("mtu_request={mtu}");
        let mut arguments = Vec::new();
        for name in names {
            arguments.extend(["--", "add-port", bridge, name, "--", "set", "Interface", name]);
            arguments.extend(["type=dpdkvhostuser", &mtu]);
        }
        if arguments.is_empty() { Ok(()) } else { self.ctl(&arguments).map(drop) }
    }

    /// Removes ports, in one transaction.
    pub fn remove_ports(&self, bridge: &str, names: &[String]) -> Result<()> {
        let arguments: Vec<&str> =
            names.iter().flat_map(|name| ["--", "del-port", bridge, name]).collect();
        if arguments.is_empty() { Ok(()) } else { self.ctl(&arguments).map(drop) }
    }

    /// One column of an interface as the CLI prints it.
    pub fn interface(&self, name: &str, column: &str) -> Result<String> {
        Ok(self.ctl(&["get", "Interface", name, column])?.trim().to_owned())
    }

    /// The OpenFlow port number of an interface.
    pub fn ofport(&self, name: &str) -> Result<u32> {
        let text = self.interface(name, "ofport")?;
        text.parse().with_context(|| format!("ofport of {name} is {text}"))
    }

    /// The counters of an interface, by the names of the `statistics` column.
    pub fn statistics(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        parse_statistics(&self.interface(name, "statistics")?)
    }

    /// Waits until the front ends of all `ports` are connected and their queues run.
    pub fn wait_link_up(&self, ports: &[&str], limit: Duration) -> Result<()> {
        self.wait_link(ports, "up", limit)
    }

    /// Waits until the `link_state` of all `ports` is `state`.
    pub fn wait_link(&self, ports: &[&str], state: &str, limit: Duration) -> Result<()> {
        for port in ports {
            let what = format!("port {port} to be {state}");
            wait::until(&what, limit, || {
                Ok((self.interface(port, "link_state")? == state).then_some(()))
            })
            .with_context(|| self.quoted_log())?;
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    /// Starts the daemon again on the same run directory.
    pub fn restart(&mut self) -> Result<()> {
        if self.kind == Kind::OvsDpdk {
            ovs::remove_stale_sockets(self.rundir.path())?;
        }
        self.daemon = start_daemon(self.kind, self.program.as_deref(), self.rundir.path())?;
        self.wait_ready()
    }

    /// Stops the daemon with SIGTERM and tells whether it ended well.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.daemon.stop()?;
        // OVS lets the signal end it after its cleaning up; ours exits.
        if self.kind == Kind::Ours && !status.success() {
            bail!("the daemon ended with {status} on SIGTERM; {}", self.quoted_log());
        }
        Ok(())
    }

    /// Fails, with the end of its log, if the daemon has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.daemon.check_alive().with_context(|| self.quoted_log())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let probe: &[&str] = match self.kind {
            Kind::Ours => &["show"],
            Kind::OvsDpdk => &["version"],
        };
        wait::until("the switch to answer", START_LIMIT, || {
            self.check_alive()?;
            Ok(self.appctl(probe).is_ok().then_some(()))
        })
        .with_context(|| self.quoted_log())
    }

    /// The ends of the daemon's logs, for error messages.
    fn quoted_log(&self) -> String {
        let file = std::fs::read_to_string(log_file(self.rundir())).unwrap_or_default();
        let from = file.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
        format!("{} said:\n{}{}", self.kind, self.daemon.log_tail(), &file[from..])
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.daemon.stop();
        if self.kind == Kind::OvsDpdk {
            ovs::clean_up(self.rundir.path());
        }
    }
}

fn log_file(rundir: &Path) -> PathBuf {
    rundir.join("vswitchd.log")
}

fn start_daemon(kind: Kind, program: Option<&Path>, rundir: &Path) -> Result<Process> {
    let mut command = match kind {
        Kind::Ours => {
            let program = program.map_or_else(|| our_binary("vswitchd"), |p| Ok(p.to_owned()))?;
            let mut command = process::command_in_own_network(program);
            command.arg("--rundir").arg(rundir).arg("--log-file").arg(log_file(rundir));
            command.stdin(Stdio::null());
            command
        }
        Kind::OvsDpdk => ovs::daemon(rundir),
    };
    Process::start("the switch", &mut command, &rundir.join("daemon.out"))
}

fn our_ctl(rundir: &Path) -> Result<Command> {
    let mut command = Command::new("timeout");
    command.arg(COMMAND_LIMIT_S).arg(our_binary("vswitchctl")?).arg("--rundir").arg(rundir);
    Ok(command)
}

/// A program of this workspace: where [`use_binaries_in`] or `VSWITCH_BIN_DIR` says, else in the build directory of the caller's profile.
fn our_binary(name: &str) -> Result<PathBuf> {
    let chosen = BIN_DIR.get().cloned();
    let dir = match chosen.or_else(|| std::env::var_os(BIN_DIR_VARIABLE).map(PathBuf::from)) {
        Some(dir) => dir,
        None => {
            // TARGET/PROFILE/xtask or TARGET/PROFILE/deps/TEST
            let exe = std::env::current_exe()?;
            let dir = exe.parent().context("this program has no directory")?;
            if dir.ends_with("deps") { dir.parent().unwrap_or(dir).into() } else { dir.into() }
        }
    };
    let path = dir.join(name);
    if !path.exists() {
        bail!(
            "{} is not built: run `cargo build` (or `cargo build --release` and set {BIN_DIR_VARIABLE})",
            path.display()
        );
    }
    Ok(path)
}

/// Reads `{name=value, name=value}`.
fn parse_statistics(text: &str) -> Result<BTreeMap<String, u64>> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    let inner = inner.with_context(|| format!("statistics are not a map: {text}"))?;
    let pair = |item: &str| -> Result<(String, u64)> {
        let (name, value) = item.split_once('=').with_context(|| format!("no = in {item}"))?;
        let value = value.parse().with_context(|| format!("statistics: {item}"))?;
        Ok((name.trim_matches('"').to_owned(), value))
    };
    inner.split(',').map(str::trim).filter(|item| !item.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_as_the_cli_prints_them() {
        let map = parse_statistics("{rx_bytes=64, \"rx_1_to_64_packets\"=1}").unwrap();
        assert_eq!(map["rx_bytes"], 64);
        assert_eq!(map["rx_1_to_64_packets"], 1);
        assert!(parse_statistics("{}").unwrap().is_empty());
        assert!(parse_statistics("{rx_bytes}").is_err());
        assert!(parse_statistics("nothing").is_err());
    }
}
