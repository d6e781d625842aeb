//! VLAN tags of what a netdev receives through AF_XDP. A NIC may take them out of the frames, and a veth's peer may leave
//! them to be put in; both hand them over beside the frame, and a socket gets the frame alone: a packet of a VLAN would come
//! untagged, and so into another network. Where the XDP program cannot ask the driver for them, a NIC is told to leave them in.

use port_kernel::Stripping;
use std::sync::OnceLock;

/// What was turned off, if something was.
#[derive(Default)]
pub(crate) struct Before(OnceLock<Vec<Stripping>>);

impl Before {
    /// Has a netdev leave tags in the frames, if it takes any out.
    ///
    /// # Errors
    /// Why it goes on taking some out.
    pub(crate) fn turn_off(&self, netdev: &str) -> std::io::Result<()> {
        let on = port_kernel::stripping(netdev)?;
        if on.is_empty() {
            return Ok(());
        }
        let done = port_kernel::set_stripping(netdev, &on, false);
        let left = port_kernel::stripping(netdev)?;
        let off: Vec<_> = on.into_iter().filter(|f| !left.contains(f)).collect();
        let names: Vec<_> = off.iter().map(|f| f.name).collect();
        if !names.is_empty() {
            tracing::info!(
                "{netdev} leaves VLAN tags in what it receives, with {} off: beside the frames they would be lost",
                names.join(" and ")
            );
            let _ = self.0.set(off);
        }
        done
    }

    /// The same once its port is open, of which the log tells where tags are lost.
    pub(crate) fn take(&self, netdev: &str) {
        if is_veth(netdev) {
            tracing::warn!(
                "{netdev} has its VLAN tags beside the frames where its peer leaves them to the device, as VLAN devices and \
                 bridges of Linux do, and those are lost: on the peer, ethtool -K PEER tx-vlan-hw-insert off \
                 tx-vlan-stag-hw-insert off; or xdp-mode native with Linux 6.8"
            );
            return;
        }
        if let Err(e) = self.turn_off(netdev) {
            tracing::warn!(
                "{netdev} takes VLAN tags out of what it receives, and those are lost: packets of VLANs come untagged \
                 (ethtool -K {netdev} rx-vlan-hw-parse off): {e}"
            );
        }
    }

    /// Turns off again what was turned off, should somebody have turned it on.
    pub(crate) fn keep(&self, netdev: &str) {
        let Some(off) = self.0.get() else { return };
        let now = port_kernel::stripping(netdev).unwrap_or_default();
        if off.iter().any(|f| now.contains(f))
            && port_kernel::set_stripping(netdev, off, false).is_ok()
        {
            tracing::info!("{netdev} leaves VLAN tags in what it receives again");
        }
    }

    /// Puts back what was changed.
    pub(crate) fn put_back(&self, netdev: &str) {
        let Some(off) = self.0.get() else { return };
        if let Err(e) = port_kernel::set_stripping(netdev, off, true) {
            tracing::warn!(
                "{netdev} takes VLAN tags out of what it receives as before no more: {e}"
            );
        }
    }
}

fn is_veth(netdev: &str) -> bool {
    port_kernel::driver(netdev).is_ok_and(|driver| driver == "veth")
}

/// The row's status of it; `kept` if the XDP program asks the driver.
pub(crate) fn told(netdev: &str, kept: bool) -> &'static str {
    if kept {
        "from the driver's metadata"
    } else if is_veth(netdev) {
        "lost where the peer leaves them to the device"
    } else {
        match port_kernel::stripping(netdev) {
            Ok(on) if on.is_empty() => "in the frames",
            Ok(_) => "taken out by the NIC, and lost",
            Err(_) => "unknown: the NIC does not say whether it takes them out",
        }
    }
}
