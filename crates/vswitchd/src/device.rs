//! Open interfaces of all types, and what is told of them. The only place that knows the port drivers.

use crate::interface::{MTU_DEFAULT, Spec, What};
use crate::{queues, tags};
use flow::{DpPort, Mac};
use packet::Abilities;
use pipeline::{OfPort, PatchCounts, Pipeline, PortConfig};
use port::{Counters, Port};
use port_kernel::{Link, Links, NetdevPort, TapPort};
use port_vhost::{Config, Mode, Offers, VhostPort};
use port_xdp::{SharedFrames, XdpPort};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The driver's part.
enum Device {
    Vhost(Arc<VhostPort>),
    Tap(Arc<TapPort>),
    Netdev(Arc<NetdevPort>),
    Xdp(Arc<XdpPort>),
    /// The pipeline does it; what it counts is known when it has the port.
    Patch(OnceLock<Arc<PatchCounts>>),
}

/// An open interface.
pub(crate) struct Opened {
    pub(crate) spec: Spec,
    device: Device,
    links: Arc<Links>,
    /// The netdev's index here, as it is or was last; 0 for none.
    index: AtomicU32,
    /// What is put back when it is closed.
    before: queues::Before,
    tags_before: tags::Before,
    /// A NIC receives what is for others while this is held: guests' addresses and VLANs are not its own.
    _promiscuous: Option<OwnedFd>,
}

/// What an interface's row says of its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) admin_up: bool,
    pub(crate) link_up: bool,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    /// Of netdevs.
    pub(crate) ifindex: Option<u32>,
    pub(crate) resets: u64,
}

impl Opened {
    /// Opens an interface. AF_XDP ports have `shared` frames. `on_change` is called when its state changes. For `patience`
    /// at most the kernel is waited for that may still have something of what was closed before.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn open(
        name: &str,
        spec: Spec,
        offers: Offers,
        shared: Option<Arc<SharedFrames>>,
        links: &Arc<Links>,
        on_change: Box<dyn Fn() + Send + Sync>,
        patience: Duration,
    ) -> Result<Opened, String> {
        let (mut link, before, tags_before) =
            (None, queues::Before::default(), tags::Before::default());
        let mut promiscuous = None;
        let device = match &spec.what {
            What::Vhost { mode, path } => {
                let (name, path) = (name.to_owned(), path.clone());
                let (mode, mtu) = (*mode, MTU_DEFAULT);
                let config = Config { name, mode, path, mtu, offers, on_change };
                let port = VhostPort::open(config).map_err(|e| format!("cannot open: {e}"))?;
                Device::Vhost(Arc::new(port))
            }
            What::Tap { queues } => {
                let tap = TapPort::open(name, *queues, MTU_DEFAULT, abilities(offers));
                let tap = tap.map_err(|e| match links.find(name) {
                    Some(_) => {
                        format!("cannot make the device, the host has a {name} already: {e}")
                    }
                    None => format!("cannot make the device: {e}"),
                })?;
                link = links.find(name);
                Device::Tap(Arc::new(tap))
            }
            What::Netdev { gro } => {
                let found = links.find(name);
                let found = found.ok_or_else(|| format!("the host has no netdev {name}"))?;
                let netdev = NetdevPort::open(name, found.index, found.mtu, *gro);
                let netdev = netdev.map_err(|e| format!("cannot open: {e}"))?;
                link = Some(found);
                Device::Netdev(Arc::new(netdev))
            }
            What::Xdp(x) => {
                let netdev = &x.netdev;
                let found = links.find(netdev);
                let found = found.ok_or_else(|| format!("the host has no netdev {netdev}"))?;
                match x.queues {
                    Some(queues) => before
                        .take(netdev, queues as u32, patience)
                        .inspect_err(|_| before.undo(netdev))?,
                    None => queues::tell_unpolled(netdev),
                }
                // Who cannot say it cannot do it.
                let driver = port_kernel::xdp_features(found.index).unwrap_or_default();
                // Nothing is received before that whose tag would be lost.
                if !driver.rx_vlan_tag || x.mode == Some(port_xdp::Mode::Generic) {
                    let _ = tags_before.turn_off(netdev);
                }
                let config = port_xdp::Config {
                    name: name.to_owned(),
                    index: found.index,
                    mode: x.mode,
                    queues: x.queues.unwrap_or(1),
                    rx_size: x.rx_size,
                    tx_size: x.tx_size,
                    mtu: found.mtu,
                    long_frames: true,
                    csum_repair: x.csum_repair,
                    tx_csum: x.tx_csum,
                    driver_csum: driver.tx_checksum,
                    driver_tags: driver.rx_vlan_tag,
                    gro: x.gro,
                    busy_poll: x.busy_poll,
                    shared,
                    patience,
                    senders: senders_to(&found, links),
                };
                let port = XdpPort::open(&config).map_err(|e| {
                    before.undo(netdev);
                    tags_before.put_back(netdev);
                    format!("cannot open: {e}")
                })?;
                if !port.keeps_tags() {
                    tags_before.take(netdev);
                }
                promiscuous = port_kernel::promiscuous(found.index)
                    .inspect_err(|e| {
                        tracing::warn!(
                            "{netdev} is not promiscuous, so it may lose what is for guests: {e}"
                        )
                    })
                    .ok();
                link = Some(found);
                Device::Xdp(Arc::new(port))
            }
            What::Patch { .. } => Device::Patch(OnceLock::new()),
        };
        let index = AtomicU32::new(link.map_or(0, |l| l.index));
        let opened = Opened {
            spec,
            device,
            links: links.clone(),
            index,
            before,
            tags_before,
            _promiscuous: promiscuous,
        };
        opened.follow_link();
        Ok(opened)
    }

    /// The port that packets go through, unless they only go from bridge to bridge.
    pub(crate) fn port(&self) -> Option<Arc<dyn Port>> {
        Some(match &self.device {
            Device::Vhost(port) => port.clone(),
            Device::Tap(port) => port.clone(),
            Device::Netdev(port) => port.clone(),
            Device::Xdp(port) => port.clone(),
            Device::Patch(_) => return None,
        })
    }

    /// Puts the interface into its bridge.
    ///
    /// # Errors
    /// The pipeline's.
    pub(crate) fn join(
        &self,
        pipeline: &Pipeline,
        bridge: &str,
        name: &str,
        (number, dp): (OfPort, DpPort),
        settings: PortConfig,
    ) -> Result<(), pipeline::Error> {
        let (Device::Patch(counts), What::Patch { peer }) = (&self.device, &self.spec.what) else {
            return pipeline.add_port_with(bridge, name, number, dp, settings);
        };
        // It is added once: one that moves is opened anew.
        let _ = counts.set(pipeline.add_patch_port(bridge, name, number, dp, settings, peer)?);
        Ok(())
    }

    /// What it has counted.
    pub(crate) fn counters(&self) -> Counters {
        let Device::Patch(counts) = &self.device else {
            return self.port().map_or_else(Counters::default, |port| port.counters());
        };
        let Some(counts) = counts.get() else { return Counters::default() };
        let ((rx_packets, rx_bytes), (tx_packets, tx_bytes)) = (counts.received(), counts.sent());
        Counters { rx_packets, rx_bytes, tx_packets, tx_bytes, ..Counters::default() }
    }

    /// True for a device that the switch makes in the host.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.device, Device::Tap(_))
    }

    /// True if packets only go from bridge to bridge.
    pub(crate) fn is_patch(&self) -> bool {
        matches!(self.device, Device::Patch(_))
    }

    /// Whether the worker thread waits for its packets.
    pub(crate) fn by_worker(&self) -> bool {
        matches!(self.device, Device::Tap(_) | Device::Netdev(_))
    }

    /// The NUMA node that `sysfs` says a NIC is on.
    pub(crate) fn device_node(&self, sysfs: &Path) -> Option<usize> {
        let Device::Xdp(_) = self.device else { return None };
        let device = sysfs.join("class/net").join(self.link()?.name).join("device/numa_node");
        // A device of no node has -1.
        std::fs::read_to_string(device).ok()?.trim().parse().ok()
    }

    /// What the kernel says of the netdev.
    fn link(&self) -> Option<Link> {
        let index = self.index.load(Relaxed);
        let is_other = matches!(self.device, Device::Tap(_)) && self.links.is_away(index);
        self.links.by_index(index).filter(|_| !is_other)
    }

    /// The same wherever the netdev is now, as far as is known.
    fn link_anywhere(&self) -> Option<Link> {
        self.link().or_else(|| self.links.away(self.index.load(Relaxed)))
    }

    /// True if what it was opened from is there no more. A device of our own may have moved to another namespace, and
    /// goes with that or when the host deletes it.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.device {
            Device::Netdev(port) => self.link().is_none_or(|l| l.name != port.name()),
            Device::Xdp(_) => self.link().is_none(),
            Device::Tap(port) => port.mac().is_none(),
            Device::Vhost(_) | Device::Patch(_) => false,
        }
    }

    /// Has frames limited to the MTU that the netdev has now, and none sent to a device that is down.
    pub(crate) fn follow_link(&self) {
        if let (Device::Tap(port), None) = (&self.device, self.link_anywhere())
            && let Ok(index) = self.links.search(port, self.index.load(Relaxed))
        {
            self.index.store(index, Relaxed);
        }
        match (&self.device, self.link_anywhere()) {
            (Device::Tap(port), Some(link)) => {
                port.set_mtu(link.mtu);
                port.set_up(link.admin_up);
            }
            // Where nothing is known of it: the kernel says it when it is asked.
            (Device::Tap(port), None) => port.set_up(true),
            (Device::Netdev(port), Some(link)) => port.set_mtu(link.mtu),
            (Device::Xdp(port), Some(link)) => port.set_mtu(link.mtu),
            _ => {}
        }
    }

    /// What is wrong with it as it is now, for the row's `error` column.
    pub(crate) fn complaint(&self) -> Option<String> {
        let Device::Xdp(port) = &self.device else { return None };
        let (mtu, most) = (port.mtu(), port.mtu_limit());
        if mtu > most {
            return Some(format!(
                "the netdev's MTU is {mtu}, and frames beyond {most} are lost: the kernel or the driver has no \
                 multi-buffer AF_XDP (Linux 6.6); set mtu_request={most} or less"
            ));
        }
        let (netdev, asked) = self.asked_queues()?;
        queues::unpolled(&netdev, asked)
    }

    /// The netdev whose queue count the row asks for, and that.
    fn asked_queues(&self) -> Option<(String, u32)> {
        let What::Xdp(x) = &self.spec.what else { return None };
        Some((self.link()?.name, x.queues? as u32))
    }

    /// Whether the netdev gives queues what it receives that are not polled, or has fewer than the row asks for.
    pub(crate) fn has_other_queues(&self) -> bool {
        self.asked_queues()
            .is_some_and(|(netdev, asked)| queues::unpolled(&netdev, asked).is_some())
    }

    /// Has the netdev leave VLAN tags in frames again, where somebody else (`ethtool`) changed that.
    pub(crate) fn keep_tags(&self) {
        if let Some(link) = self.link() {
            self.tags_before.keep(&link.name);
        }
    }

    /// Gives the netdev again the queues that the row asks for, where somebody else (`ethtool`) changed them. Waits for
    /// nothing: what is in the way is another's.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn keep_queues(&self) -> Result<(), String> {
        let Some((netdev, asked)) = self.asked_queues() else { return Ok(()) };
        self.before.take(&netdev, asked, Duration::ZERO)
    }

    /// Changes what guests are offered that come from now on, and what the host may leave to do in frames.
    pub(crate) fn set_offers(&self, offers: Offers) {
        match &self.device {
            Device::Vhost(port) => port.set_offers(offers),
            Device::Tap(port) => port.set_abilities(abilities(offers)),
            // A socket hands on what the netdev got, whatever is offered.
            // AF_XDP leaves nothing to do.
            Device::Netdev(_) | Device::Xdp(_) | Device::Patch(_) => {}
        }
    }

    /// Sets the MTU that is asked for. Without, netdevs keep theirs and others have the default.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn set_mtu(&self, asked: Option<u32>) -> Result<(), String> {
        if let Device::Vhost(port) = &self.device {
            port.set_mtu(asked.unwrap_or(MTU_DEFAULT));
        }
        let (Some(mtu), Some(link)) = (asked, self.link()) else { return Ok(()) };
        if link.mtu != mtu {
            let done = port_kernel::set_mtu(&link.name, mtu);
            done.map_err(|e| format!("the MTU cannot be {mtu}: {e}"))?;
            self.links.find(&link.name);
            self.follow_link();
        }
        Ok(())
    }

    /// The MTU that its netdev has here.
    pub(crate) fn link_mtu(&self) -> Option<u32> {
        Some(self.link()?.mtu)
    }

    /// Gives a device of our own its bridge's MTU: always if that is new, else only if the device's is larger,
    /// since its host may want a smaller one.
    ///
    /// # Errors
    /// A line for the log.
    pub(crate) fn follow_mtu(&self, mtu: u32, new: bool) -> Result<(), String> {
        let (Device::Tap(_), Some(link)) = (&self.device, self.link()) else { return Ok(()) };
        if link.mtu > mtu || (new && link.mtu != mtu) { self.set_mtu(Some(mtu)) } else { Ok(()) }
    }

    /// Sets the address of a device of our own.
    ///
    /// # Errors
    /// A line for the log.
    pub(crate) fn set_mac(&self, mac: Mac) -> Result<(), String> {
        let Device::Tap(_) = self.device else { return Ok(()) };
        let Some(link) = self.link().filter(|l| l.mac != mac.0) else { return Ok(()) };
        let done = port_kernel::set_mac(&link.name, mac.0);
        done.map_err(|e| format!("address {mac} cannot be set: {e}"))?;
        self.links.find(&link.name);
        Ok(())
    }

    /// Brings a netdev up or down; false if there is none that could be.
    ///
    /// # Errors
    /// Why the kernel does not.
    pub(crate) fn set_up(&self, up: bool) -> Result<bool, String> {
        let Some(link) = self.link() else { return Ok(false) };
        port_kernel::set_up(&link.name, up)
            .map_err(|e| format!("{} is left as it is: {e}", link.name))?;
        self.links.find(&link.name);
        self.follow_link();
        Ok(true)
    }

    /// Ends the interface. PMD threads may still hold the port, and find it without queues; a device of
    /// our own goes with the last reference.
    pub(crate) fn close(&self) {
        if let Some(link) = self.link() {
            self.before.put_back(&link.name);
            self.tags_before.put_back(&link.name);
        }
        if let Device::Vhost(port) = &self.device {
            port.close();
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.spec.kind
    }

    pub(crate) fn state(&self) -> State {
        let none = State {
            admin_up: true,
            link_up: true,
            mac: Mac([0; 6]),
            mtu: MTU_DEFAULT,
            ifindex: None,
            resets: 0,
        };
        let of_link = |mtu, mac: Option<[u8; 6]>| match self.link_anywhere() {
            Some(l) => State {
                admin_up: l.admin_up,
                link_up: l.link_up,
                mac: Mac(l.mac),
                mtu: l.mtu,
                ifindex: Some(l.index),
                resets: l.resets,
            },
            // It cannot be seen where it is.
            None => State { mtu, mac: Mac(mac.unwrap_or_default()), ..none.clone() },
        };
        match &self.device {
            Device::Vhost(port) => {
                let s = port.status();
                let link_up = s.connected && s.vring_sizes.iter().any(|&n| n > 0);
                State { link_up, mtu: port.mtu(), ..none }
            }
            Device::Tap(port) => of_link(port.mtu(), port.mac()),
            Device::Netdev(port) => of_link(port.mtu(), None),
            Device::Xdp(port) => of_link(port.mtu(), None),
            Device::Patch(_) => none,
        }
    }

    /// True if packets can be sent: a guest is there, or the netdev has a carrier.
    pub(crate) fn link_is_up(&self) -> bool {
        self.state().link_up
    }

    /// Receive and transmit queues.
    pub(crate) fn queues(&self) -> (usize, usize) {
        let pairs = self.port().map_or(0, |port| port.rx_queues());
        (pairs, pairs)
    }

    /// The row's `status` column.
    pub(crate) fn status(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        match &self.device {
            Device::Vhost(port) => return self.vhost_status(port),
            Device::Patch(_) => return map,
            Device::Tap(_) => map.insert("driver_name".to_owned(), "tun".to_owned()),
            Device::Netdev(_) => map.insert("driver_name".to_owned(), self.driver_name()),
            Device::Xdp(port) => {
                map.insert("xdp-mode".to_owned(), port.mode().name().to_owned());
                map.insert("max_mtu".to_owned(), port.mtu_limit().to_string());
                map.insert("xdp-busy-poll".to_owned(), port.busy_polls().to_string());
                map.insert("xdp-tx-csum".to_owned(), port.leaves_checksums().to_string());
                map.insert("rx-csum-repair".to_owned(), port.repairs_checksums().to_string());
                if let Some(link) = self.link() {
                    let tags = tags::told(&link.name, port.keeps_tags());
                    map.insert("rx_vlan".to_owned(), tags.to_owned());
                }
                if let Some(queues) = self.link().and_then(|l| port_kernel::queues(&l.name).ok()) {
                    map.insert("netdev_rxq".to_owned(), queues.rx.to_string());
                    map.insert("netdev_max_rxq".to_owned(), queues.rx_max.to_string());
                }
                if let Some(rss) = self.link().and_then(|l| port_kernel::rss(&l.name).ok()) {
                    map.insert("rss".to_owned(), queues::told(&rss));
                }
                map.insert("use-need-wakeup".to_owned(), "true".to_owned());
                let umem = port.shared_frames().map_or_else(
                    || "own".to_owned(),
                    |(used, all)| format!("shared, {used} of {all} frames"),
                );
                map.insert("umem".to_owned(), umem);
                map.insert("huge-pages".to_owned(), port.huge_pages().to_string());
                map.insert("driver_name".to_owned(), self.driver_name())
            }
        };
        if self.link().is_none() {
            map.insert("namespace".into(), "another".into());
        }
        let (n_rxq, n_txq) = self.queues();
        map.insert("n_rxq".into(), n_rxq.to_string());
        map.insert("n_txq".into(), n_txq.to_string());
        map
    }

    /// The kernel's driver of a netdev; software devices have none.
    fn driver_name(&self) -> String {
        let link = self.link();
        let driver = link.and_then(|l| {
            let path = Path::new("/sys/class/net").join(l.name).join("device/driver");
            Some(std::fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
        });
        driver.unwrap_or_else(|| "none".to_owned())
    }

    fn vhost_status(&self, port: &VhostPort) -> BTreeMap<String, String> {
        let s = port.status();
        let (connections, errors, faults) = port.session_counts();
        let (n_rxq, n_txq) = self.queues();
        let mode = if port.mode() == Mode::Client { "client" } else { "server" };
        let state = if s.connected { "connected" } else { "disconnected" };
        let mut map: BTreeMap<String, String> = [
            ("mode", mode.to_owned()),
            ("status", state.to_owned()),
            ("socket", port.path().display().to_string()),
            ("mtu", port.mtu().to_string()),
            ("n_rxq", n_rxq.to_string()),
            ("n_txq", n_txq.to_string()),
            ("num_connections", connections.to_string()),
            ("num_protocol_errors", errors.to_string()),
            ("num_ring_faults", faults.to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        if s.connected {
            map.insert("features".into(), format!("0x{:016x}", s.features));
            for (name, on) in s.offloads() {
                map.insert(name.into(), on.to_string());
            }
            if let Some(node) = port.node() {
                map.insert("numa".into(), node.to_string());
            }
            map.insert("num_of_vrings".into(), s.vring_sizes.len().to_string());
            map.insert("num_mem_regions".into(), s.mem_regions.to_string());
            for (i, size) in s.vring_sizes.iter().enumerate() {
                map.insert(format!("vring_{i}_size"), size.to_string());
            }
        }
        if let Some(e) = s.last_error {
            map.insert("last_error".into(), e);
        }
        map
    }
}

/// The queues that send to a netdev, where that is a veth whose other end is in this namespace.
fn senders_to(link: &Link, links: &Links) -> Option<u32> {
    let other = links.by_index(link.other_end?)?;
    Some(port_kernel::queues(&other.name).ok()?.tx)
}

/// What the host may leave to do in frames that it sends. ECN and UDP are part of all.
fn abilities(offers: Offers) -> Abilities {
    let all = Abilities::TSO4.with(Abilities::TSO6, true).with(Abilities::ECN, true);
    let all = all.with(Abilities::USO, true);
    let none = Abilities::NONE;
    none.with(Abilities::CSUM, offers != Offers::Nothing).with(all, offers == Offers::All)
}
