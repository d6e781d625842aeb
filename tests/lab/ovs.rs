//! OVS-DPDK from Debian's packages: its database server, its daemon and its command-line tools.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::hugepages::Hugepages;
use crate::process::{self, Process};

const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// DPDK memory of the daemon. Its packet pool tries 262,144 buffers and then half as many until they fit; with less than
/// 1024 what is left over is sometimes too little for a second port, and a port with an MTU of 9000 needs a pool besides.
const MEMORY_MB: u64 = 2048;

/// Time for a program that only opens sockets to do so on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What the daemon needs besides itself: a database with the DPDK settings, its server, and hugepages.
#[derive(Debug)]
pub struct Surroundings {
    _server: Process,
    _hugepages: Hugepages,
}

impl Surroundings {
    /// Creates and serves a database in `rundir` that tells the daemon to poll on `core_mask`, with `settings` besides.
    pub fn start(rundir: &Path, core_mask: u64, settings: &[&str]) -> Result<Surroundings> {
        let database = rundir.join("conf.db");
        process::output(Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA))?;
        let socket = rundir.join("db.sock");
        let mut server = process::command("ovsdb-server");
        server.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
        server.arg("--unixctl=none").arg("--no-chdir").stdin(Stdio::null());
        server.env("OVS_RUNDIR", rundir);
        let mut server = Process::start("ovsdb-server", &mut server, &rundir.join("server.log"))?;
        server.wait_path(&socket, START_LIMIT)?;
        let hugepages = Hugepages::reserve(MEMORY_MB)?;
        let extra = format!("--file-prefix={} --no-pci --no-telemetry", file_prefix(rundir));
        let mut set = ctl(rundir);
        set.args(["--no-wait", "set", "Open_vSwitch", "."]);
        set.args(settings.iter().map(|setting| format!("other_config:{setting}")));
        process::output(set.args([
            "other_config:dpdk-init=true".to_owned(),
            format!("other_config:pmd-cpu-mask={core_mask:#x}"),
            format!("other_config:dpdk-socket-mem={MEMORY_MB}"),
            // Without it the packet pool takes every hugepage it finds, others' included.
            format!("other_config:dpdk-socket-limit={MEMORY_MB}"),
            format!("other_config:dpdk-hugepage-dir={}", hugepages.dir().display()),
            format!("other_config:dpdk-extra=\"{extra}\""),
        ]))?;
        Ok(Surroundings { _server: server, _hugepages: hugepages })
    }
}

/// The daemon in the foreground.
pub fn daemon(rundir: &Path) -> Command {
    let mut command = process::command_in_own_network(DAEMON);
    command.arg(format!("unix:{}", rundir.join("db.sock").display()));
    command.arg("--no-chdir").env("OVS_RUNDIR", rundir).stdin(Stdio::null());
    command
}

/// `ovs-vsctl` on the database in `rundir`.
pub fn ctl(rundir: &Path) -> Command {
    let mut command = process::command("ovs-vsctl");
    command.arg(format!("--db=unix:{}", rundir.join("db.sock").display()));
    command.arg("--timeout=60").env("OVS_RUNDIR", rundir);
    command
}

/// `ovs-ofctl` on the bridges of the daemon in `rundir`.
pub fn ofctl(rundir: &Path) -> Command {
    let mut command = process::command("ovs-ofctl");
    command.arg("--timeout=120").env("OVS_RUNDIR", rundir);
    command
}

/// `ovs-appctl` on the daemon with process id `pid`.
pub fn appctl(rundir: &Path, pid: u32) -> Command {
    let mut command = process::command("ovs-appctl");
    command.arg("-t").arg(control_socket(rundir, pid)).env("OVS_RUNDIR", rundir);
    command
}

/// The command socket of the daemon with process id `pid`.
pub fn control_socket(rundir: &Path, pid: u32) -> PathBuf {
    rundir.join(format!("ovs-vswitchd-dpdk.{pid}.ctl"))
}

/// Each DPDK process keeps its files under a name of its own.
fn file_prefix(rundir: &Path) -> String {
    rundir.file_name().map_or_else(|| "lab".into(), |n| n.to_string_lossy().into_owned())
}

/// Removes what DPDK leaves behind for the daemon of `rundir`.
pub fn clean_up(rundir: &Path) {
    let _ = std::fs::remove_dir_all(Path::new("/var/run/dpdk").join(file_prefix(rundir)));
}

/// Removes the sockets of `dpdkvhostuser` ports that a killed daemon has left: OVS would not listen on them again.
/// They bear their ports' names, the daemon's own sockets have an extension.
pub fn remove_stale_sockets(rundir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(rundir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() && entry.path().extension().is_none() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
