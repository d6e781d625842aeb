//! The daemon's command line.

use clap::Parser;
use std::path::PathBuf;

/// A userspace virtual switch for virtual machines.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "vswitchd",
    version,
    after_help = "Examples:\n  vswitchd --rundir /run/vswitch\n  vswitchd --config config/two-vms.toml \
                  --log-file /var/log/vswitchd.log --detach\n  vswitchd --ovsdb \
                  unix:/run/openvswitch/db.sock\n\nConfigure it with vswitchctl, as you would Open \
                  vSwitch with ovs-vsctl:\n  vswitchctl add-br br0\n  vswitchctl add-port br0 vm1 -- \
                  set Interface vm1 type=dpdkvhostuserclient \
                  options:vhost-server-path=/run/vm1.sock"
)]
pub(crate) struct Options {
    /// Where sockets, the pid file and the database are.
    #[arg(long, value_name = "DIR", env = "VSWITCH_RUNDIR", default_value = "/run/vswitch")]
    pub(crate) rundir: PathBuf,
    /// The database file to serve [default: RUNDIR/conf.db].
    #[arg(long, value_name = "FILE", conflicts_with = "ovsdb")]
    pub(crate) db: Option<PathBuf>,
    /// Follow the database of a running ovsdb-server instead of serving one (unix:PATH).
    #[arg(long, value_name = "REMOTE")]
    pub(crate) ovsdb: Option<String>,
    /// A start file with bridges, ports and options to have, see config/.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Where to write the process ID [default: RUNDIR/vswitchd.pid].
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Also write the log to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Where the host says which cores and devices are on which NUMA node. Another tree than /sys is a faked
    /// machine, for tests of placement.
    #[arg(long, value_name = "DIR", env = "VSWITCH_SYSFS", default_value = "/sys", hide = true)]
    pub(crate) sysfs: PathBuf,
    /// Seconds that pass for five when loads are measured, for tests of what follows a minute of load.
    #[arg(long, value_name = "SECONDS", env = "VSWITCH_LOAD_INTERVAL", hide = true)]
    pub(crate) load_interval: Option<u64>,
    /// Run in the background; returns when the switch is configured.
    #[arg(long)]
    pub(crate) detach: bool,
}

impl Options {
    pub(crate) fn db_file(&self) -> PathBuf {
        self.db.clone().unwrap_or_else(|| self.rundir.join("conf.db"))
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.pidfile.clone().unwrap_or_else(|| self.rundir.join("vswitchd.pid"))
    }
}
