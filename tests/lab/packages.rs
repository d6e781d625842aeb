//! Debian packages: which ones a command needs, and how they get here.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::guest::Machine;
use crate::progress::Step;
use crate::wait;

/// A Debian package and a file by whose presence it is known to be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Name in the archive.
    pub name: &'static str,
    /// A file the package puts on the machine and that is used here.
    pub file: &'static str,
}

impl Package {
    /// Whether it is on this machine.
    pub fn is_installed(&self) -> bool {
        Path::new(self.file).exists()
    }
}

/// QEMU for the guests.
pub const QEMU: Package = Package { name: "qemu-system-x86", file: "/usr/bin/qemu-system-x86_64" };
/// Linux as a program, with its modules: a guest whose processor is not emulated.
pub const USER_MODE_LINUX: Package =
    Package { name: "user-mode-linux", file: "/usr/bin/linux.uml" };
/// The traffic generator in the guests.
pub const IPERF3: Package = Package { name: "iperf3", file: "/usr/bin/iperf3" };
/// What a guest's device can do.
pub const ETHTOOL: Package = Package { name: "ethtool", file: "/usr/sbin/ethtool" };
/// Latency and bandwidth by message size.
pub const QPERF: Package = Package { name: "qperf", file: "/usr/bin/qperf" };
/// The guests' user space besides those.
pub const BUSYBOX: Package = Package { name: "busybox-static", file: "/usr/bin/busybox" };
/// DPDK's testpmd, which Debian ships with the development tools; brings every poll mode driver along.
pub const TESTPMD: Package = Package { name: "dpdk-dev", file: "/usr/bin/dpdk-testpmd" };
/// ovs-vsctl, which must work against our database, and the database server and its schema.
pub const OVS: Package = Package { name: "openvswitch-switch", file: "/usr/bin/ovs-vsctl" };
/// The switch that the bench compares with.
pub const OVS_DPDK: Package = Package {
    name: "openvswitch-switch-dpdk",
    file: "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
};
/// Callgrind, which counts instructions.
pub const VALGRIND: Package = Package { name: "valgrind", file: "/usr/bin/valgrind" };
/// Which address answers.
pub const PING: Package = Package { name: "iputils-ping", file: "/usr/bin/ping" };
/// Namespaces' netdevs.
pub const IP: Package = Package { name: "iproute2", file: "/usr/sbin/ip" };

/// What guests of a kind need.
pub fn for_machine(machine: Machine) -> &'static [Package] {
    match machine {
        Machine::Emulated => FOR_GUESTS,
        Machine::UserMode => &[USER_MODE_LINUX, IPERF3, ETHTOOL, BUSYBOX],
    }
}

/// What two QEMU guests need.
pub const FOR_GUESTS: &[Package] = &[QEMU, IPERF3, ETHTOOL, BUSYBOX];
/// What `cargo xtask test` needs.
pub const FOR_TEST: &[Package] =
    &[QEMU, USER_MODE_LINUX, IPERF3, ETHTOOL, BUSYBOX, PING, IP, TESTPMD, OVS, OVS_DPDK, VALGRIND];
/// What `cargo xtask instructions` needs.
pub const FOR_INSTRUCTIONS: &[Package] = &[VALGRIND];
/// What `cargo xtask bench` needs.
pub const FOR_BENCH: &[Package] = &[TESTPMD, OVS, OVS_DPDK];

/// Makes sure that `packages` are installed: with apt-get if this is root, else fails with the one command to run.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|p| !p.is_installed()).map(|p| p.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !rustix::process::geteuid().is_root() {
        bail!("Debian packages are missing; install them with\n\n    sudo {install}\n");
    }
    let mut step = Step::start(format!("installing {}", missing.join(" ")));
    if apt_get(&mut step, &install_arguments(&missing)).is_err() {
        // A fresh machine has no package lists yet, or old ones.
        apt_get(&mut step, &["update"])?;
        apt_get(&mut step, &install_arguments(&missing))?;
    }
    step.done();
    match packages.iter().find(|p| !p.is_installed()) {
        Some(p) => bail!("package {} is installed, but {} is not there", p.name, p.file),
        None => Ok(()),
    }
}

fn install_arguments<'a>(missing: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    arguments
}

/// Runs apt-get, showing its current line; fails with its last lines.
fn apt_get(step: &mut Step, arguments: &[&str]) -> Result<()> {
    let mut child = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot run apt-get: this needs Debian")?;
    let mut said = Vec::new();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            step.say(&line);
            said.push(line);
        }
    }
    let status = child.wait()?;
    wait::check_interrupted()?;
    if !status.success() {
        let tail = said.split_off(said.len().saturating_sub(5)).join("\n");
        bail!("apt-get {} failed ({status}):\n{tail}", arguments.join(" "));
    }
    Ok(())
}
