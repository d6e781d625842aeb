//! User-mode Linux as a guest: Debian's package has the kernel, with vhost-user, as a program.

use std::path::Path;

use anyhow::Result;

use crate::relay;
use crate::switch::VhostPort;

/// Guest memory: iperf3's buffers, and an unpacked root file system.
const MEMORY_MB: u32 = 256;

/// How packets of a tap come to its own network driver, in bursts and with segments left whole.
const TAP: &str = "transport=tap,depth=128,gro=1";

/// The kernel's argument for a virtio-net device on a port; what it connects to is in `dir`.
pub(crate) fn vhost_user(dir: &Path, port: &VhostPort) -> Result<String> {
    let socket = dir.join("front");
    relay::start(&socket, port)?;
    // 1: a network card (virtio 1.3, 5).
    Ok(format!("virtio_uml.device={}:1", socket.display()))
}

/// The kernel's argument for a device on a tap.
pub(crate) fn tap(name: &str) -> String {
    format!("vec0:{TAP},ifname={name}")
}

/// The program's arguments besides its root file system.
pub(crate) fn arguments(device: String) -> Vec<String> {
    let fixed = "con=null con0=fd:0,fd:1 quiet loglevel=3 panic=-1";
    let mut arguments: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    arguments.extend([format!("mem={MEMORY_MB}M"), device]);
    arguments
}

/// Run in the guest, makes its device what one of QEMU's would be.
pub(crate) fn name_device(number: u8) -> String {
    format!(
        "[ -e /sys/class/net/eth0 ] || ip link set vec0 name eth0; \
         ip link set eth0 address 52:54:00:00:00:{number:02x}"
    )
}
