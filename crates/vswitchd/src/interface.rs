//! What interfaces' rows ask for, by type. What comes of it is in `device`.

use crate::desired::Interface;
use port_kernel::{Links, MAX_TAP_QUEUES};
use port_vhost::{Mode, Offers};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Types that work, for `Open_vSwitch.iface_types`.
pub(crate) const TYPES: &[&str] = &[
    "afxdp",
    "dpdk",
    "dpdkvhostuser",
    "dpdkvhostuserclient",
    "internal",
    "patch",
    "system",
    "tap",
    "vhost-user",
    "vhost-user-client",
];
/// MTU of an interface that asks for none.
pub(crate) const MTU_DEFAULT: u32 = 1500;
/// Bytes of a Unix socket's path, without the zero byte at its end (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// Switches for offloads of one interface; the first is OVS's name of the switch for all.
const TSO: &str = "userspace-tso-enable";
const CSUM: &str = "userspace-csum-enable";
/// Receive coalescing of netdevs, by the name that the kernel has for the feature (`ethtool -k`). Without being asked
/// for it is not done: whoever gets whole frames at last pays for looking.
const GRO: &str = "rx-gro";
/// Whether a poll that finds nothing has the driver look.
const BUSY_POLL: &str = "xdp-busy-poll";
/// Whether checksums are left to the kernel and the driver in what is sent.
const TX_CSUM: &str = "xdp-tx-csum";
/// Whether checksums that senders on this host left to be done are recognised.
const CSUM_REPAIR: &str = "rx-csum-repair";
/// The range that `mtu_request` may have (as OVS's DPDK ports).
const MTU_RANGE: std::ops::RangeInclusive<i64> = 68..=9702;

/// What an interface is opened from: if any of it changes, it is opened anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// As the type is called in texts.
    pub(crate) kind: &'static str,
    pub(crate) what: What,
}

/// What of the types differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A guest's device, over this socket.
    Vhost { mode: Mode, path: PathBuf },
    /// A device that the switch makes in the host.
    Tap { queues: usize },
    /// A netdev that the host has; `gro` joins segments of TCP that come.
    Netdev { gro: bool },
    /// A netdev's queues through AF_XDP.
    Xdp(Xdp),
    /// One end of a patch between bridges.
    Patch { peer: String },
}

/// What is asked of AF_XDP, as [`port_xdp::Config`] has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xdp {
    pub(crate) netdev: String,
    pub(crate) mode: Option<port_xdp::Mode>,
    /// `n_rxq`, if it is said.
    pub(crate) queues: Option<usize>,
    pub(crate) rx_size: u32,
    pub(crate) tx_size: u32,
    pub(crate) csum_repair: Option<bool>,
    pub(crate) tx_csum: bool,
    pub(crate) gro: bool,
    pub(crate) busy_poll: bool,
    /// Frames that all such interfaces of the switch share; 0 if they do not.
    pub(crate) shared_frames: usize,
}

impl Spec {
    /// A guest's device; refuses a path that can never be a socket's.
    fn vhost(kind: &'static str, mode: Mode, path: PathBuf, what: &str) -> Result<Spec, String> {
        let bytes = path.as_os_str().as_bytes();
        match bytes.len() {
            0 => Err(format!("{what} is empty")),
            n if n > SOCKET_PATH_MAX => Err(format!(
                "{what} is {n} bytes long, and a socket's path has at most {SOCKET_PATH_MAX}"
            )),
            _ if bytes.contains(&0) => Err(format!("{what} contains a zero byte")),
            _ if path.is_dir() => Err(format!("{what}: {} is a directory", path.display())),
            _ => Ok(Spec { kind, what: What::Vhost { mode, path } }),
        }
    }

    /// The same where interfaces through AF_XDP share so many frames.
    pub(crate) fn sharing(mut self, frames: usize) -> Spec {
        if let What::Xdp(x) = &mut self.what {
            x.shared_frames = frames;
        }
        self
    }

    /// The socket, which two interfaces cannot share.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.what {
            What::Vhost { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether what could keep it from being opened is in the host as it is now: a netdev that has to be there, or one that
    /// has the name of a device of our own.
    pub(crate) fn is_possible(&self, name: &str, links: &Links) -> bool {
        match &self.what {
            What::Tap { .. } => links.by_name(name).is_none(),
            _ => self.netdev(name).is_some_and(|netdev| links.by_name(netdev).is_some()),
        }
    }

    /// The netdev that has to be there.
    pub(crate) fn netdev<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match &self.what {
            What::Netdev { .. } => Some(name),
            What::Xdp(x) => Some(&x.netdev),
            _ => None,
        }
    }
}

/// Where the daemon's own sockets are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirs<'a> {
    pub(crate) rundir: &'a Path,
    /// `other_config:vhost-sock-dir`, a directory below the run directory.
    pub(crate) vhost_sock_dir: Option<&'a str>,
}

/// What an interface's row asks for.
///
/// # Errors
/// A line for the row's `error` column.
pub(crate) fn spec(i: &Interface, dirs: Dirs<'_>) -> Result<Spec, String> {
    if i.bonded {
        return Err("bonds are not supported yet: give the port one interface".into());
    }
    match &*i.kind {
        "dpdkvhostuserclient" | "vhost-user-client" => {
            let Some(path) = i.options.get("vhost-server-path") else {
                return Err("options:vhost-server-path is missing: set it to the socket that the \
                            front end listens on"
                    .into());
            };
            let what = "options:vhost-server-path";
            Spec::vhost("dpdkvhostuserclient", Mode::Client, path.into(), what)
        }
        "dpdkvhostuser" | "vhost-user" => {
            if i.name.contains(['/', '\\']) {
                return Err("the name becomes a socket's and may not contain / or \\".into());
            }
            let dir = Path::new(dirs.vhost_sock_dir.unwrap_or_default());
            if dir.components().any(|c| !matches!(c, Component::Normal(_))) {
                return Err("other_config:vhost-sock-dir must be a directory below the run \
                            directory, without .. and without a / in front"
                    .into());
            }
            let path = dirs.rundir.join(dir).join(&i.name);
            Spec::vhost("dpdkvhostuser", Mode::Server, path, "the socket")
        }
        "patch" => patch(i),
        "afxdp" => {
            port_kernel::check_name(&i.name)?;
            xdp(i, "afxdp", i.name.clone())
        }
        "dpdk" => {
            let address = i.options.get("dpdk-devargs").ok_or(
                "options:dpdk-devargs is missing: set it to the PCI address of a network device that its \
                 kernel driver has, as in 0000:01:00.0",
            )?;
            xdp(i, "dpdk", netdev_of_pci(Path::new("/sys/bus/pci/devices"), address)?)
        }
        "internal" => tap(i, "internal"),
        "tap" => tap(i, "tap"),
        // A bridge's own interface may have no type.
        "" if i.local => tap(i, "internal"),
        "" | "system" => {
            port_kernel::check_name(&i.name)?;
            let gro = truth(i, GRO)?.unwrap_or(false);
            Ok(Spec { kind: "system", what: What::Netdev { gro } })
        }
        other => Err(format!("type \"{other}\" is not supported; there are {}", TYPES.join(", "))),
    }
}

/// A netdev's queues through AF_XDP, with OVS's options and defaults.
fn xdp(i: &Interface, kind: &'static str, netdev: String) -> Result<Spec, String> {
    use port_xdp::{MAX_QUEUES, Mode};
    let mode = match i.options.get("xdp-mode").map_or("best-effort", String::as_str) {
        "best-effort" => None,
        "native-with-zerocopy" => Some(Mode::ZeroCopy),
        "native" => Some(Mode::Native),
        "generic" => Some(Mode::Generic),
        other => {
            return Err(format!(
                "options:xdp-mode is \"{other}\"; there are best-effort, native-with-zerocopy, native \
                 and generic"
            ));
        }
    };
    let asked = number(i, "n_rxq", 1, 1..=MAX_QUEUES)?;
    let queues = i.options.contains_key("n_rxq").then_some(asked);
    let csum_repair = truth(i, CSUM_REPAIR)?;
    let tx_csum = truth(i, TX_CSUM)?.unwrap_or(false);
    let busy_poll = truth(i, BUSY_POLL)?.unwrap_or(false);
    let size = |key| {
        let size = number(i, key, 2048, 64..=8192)?;
        let fits = size.is_power_of_two();
        fits.then_some(size as u32)
            .ok_or_else(|| format!("options:{key}={size} is not a power of two"))
    };
    let (rx_size, tx_size) = (size("n_rxq_desc")?, size("n_txq_desc")?);
    let gro = truth(i, GRO)?.unwrap_or(false);
    let shared_frames = 0;
    let x = Xdp {
        netdev,
        mode,
        queues,
        rx_size,
        tx_size,
        csum_repair,
        tx_csum,
        gro,
        busy_poll,
        shared_frames,
    };
    Ok(Spec { kind, what: What::Xdp(x) })
}

/// An option that is true or false.
fn truth(i: &Interface, key: &str) -> Result<Option<bool>, String> {
    match i.options.get(key).map(String::as_str) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(format!("options:{key} is \"{other}\", neither true nor false")),
    }
}

/// The netdev of a PCI device, below `devices` of sysfs.
fn netdev_of_pci(devices: &Path, address: &str) -> Result<String, String> {
    let hex = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    if address.is_empty() || !address.chars().all(hex) || address.starts_with('.') {
        return Err(format!("options:dpdk-devargs=\"{address}\" is no PCI address"));
    }
    let found = std::fs::read_dir(devices.join(address).join("net"));
    let mut names = found.into_iter().flatten().flatten();
    let name = names.next().and_then(|entry| entry.file_name().into_string().ok());
    name.ok_or_else(|| {
        format!(
            "PCI device {address} has no netdev: is it there, and has its kernel driver got it?"
        )
    })
}

/// One end of a patch. The peer may come later.
fn patch(i: &Interface) -> Result<Spec, String> {
    let peer = i.options.get("peer").filter(|p| !p.is_empty());
    let peer = peer.ok_or(
        "patch type requires valid 'peer' argument: set options:peer to the name of a patch port of \
         another bridge",
    )?;
    if i.options.len() > 1 {
        return Err("patch type takes only a 'peer' argument".into());
    }
    if *peer == i.name {
        return Err("patch peer must not be self".into());
    }
    Ok(Spec { kind: "patch", what: What::Patch { peer: peer.clone() } })
}

/// A device that is made in the host.
fn tap(i: &Interface, kind: &'static str) -> Result<Spec, String> {
    port_kernel::check_name(&i.name)?;
    let queues = number(i, "n_rxq", 1, 1..=MAX_TAP_QUEUES)?;
    Ok(Spec { kind, what: What::Tap { queues } })
}

/// A number among the options.
fn number(
    i: &Interface,
    key: &str,
    default: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    let Some(text) = i.options.get(key) else { return Ok(default) };
    let number = text.parse().ok().filter(|n| range.contains(n));
    let (least, most) = (range.start(), range.end());
    number.ok_or_else(|| format!("options:{key}=\"{text}\" is not a number from {least} to {most}"))
}

/// The MTU that an interface's row asks for. One that cannot be counts as none, so that
/// the interface works all the same, and is answered by a line for the row's `error` column.
pub(crate) fn mtu(i: &Interface) -> (Option<u32>, Option<String>) {
    match i.mtu_request {
        None => (None, None),
        Some(m) if MTU_RANGE.contains(&m) => (Some(m as u32), None),
        Some(m) => {
            let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
            let text =
                format!("mtu_request {m} is not in {least} to {most} and counts for nothing");
            (None, Some(text))
        }
    }
}

/// What an interface offers its guests, or its host, and a line for its row's `error` column if a setting is none. `tso`
/// is `other_config:userspace-tso-enable` of the switch, which an interface can overrule.
pub(crate) fn offers(i: &Interface, tso: Option<&str>) -> (Offers, Option<String>) {
    let mut error = None;
    let mut enabled = |key: &str, value: Option<&str>| match value {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            error =
                Some(format!("options:{key} is \"{other}\", neither true nor false; true is used"));
            true
        }
    };
    let option = |key: &str| i.options.get(key).map(String::as_str);
    let all = match option(TSO).is_some() {
        true => enabled(TSO, option(TSO)),
        false => tso != Some("false"),
    };
    match (enabled(CSUM, option(CSUM)), all) {
        (false, _) => (Offers::Nothing, error),
        (true, false) => (Offers::Checksums, error),
        (true, true) => (Offers::All, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, options: &[(&str, &str)]) -> Interface {
        Interface {
            name: "p1".into(),
            kind: kind.into(),
            options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Interface::default()
        }
    }

    #[test]
    fn types() {
        let dirs = Dirs { rundir: Path::new("/run/x"), vhost_sock_dir: None };
        let s = spec(&row("dpdkvhostuser", &[]), dirs).expect("works");
        assert_eq!(s.what, What::Vhost { mode: Mode::Server, path: "/run/x/p1".into() });
        let s = spec(&row("vhost-user-client", &[("vhost-server-path", "/a")]), dirs);
        assert_eq!(s.expect("works").kind, "dpdkvhostuserclient");
        let error = |r: &Interface| spec(r, dirs).expect_err("must be refused");
        assert!(error(&row("dpdkvhostuserclient", &[])).contains("vhost-server-path"));
        assert!(error(&row("gre", &[])).contains("gre"));
        let tap = spec(&row("tap", &[("n_rxq", "4")]), dirs).expect("works");
        assert_eq!(tap.what, What::Tap { queues: 4 });
        for bad in ["0", "17", "x", ""] {
            assert!(error(&row("internal", &[("n_rxq", bad)])).contains("n_rxq"));
        }
        let netdev = |options: &[(&str, &str)]| spec(&row("", options), dirs).map(|s| s.what);
        assert_eq!(netdev(&[]), Ok(What::Netdev { gro: false }));
        assert_eq!(netdev(&[(GRO, "true")]), Ok(What::Netdev { gro: true }));
        let xdp = spec(&row("afxdp", &[("n_rxq", "2"), ("n_rxq_desc", "1024")]), dirs);
        let wanted = Xdp {
            netdev: "p1".to_owned(),
            mode: None,
            queues: Some(2),
            rx_size: 1024,
            tx_size: 2048,
            csum_repair: None,
            tx_csum: false,
            gro: false,
            busy_poll: false,
            shared_frames: 0,
        };
        let sharing = Xdp { shared_frames: 512, ..wanted.clone() };
        let xdp = xdp.expect("works");
        assert_eq!(xdp.what, What::Xdp(wanted));
        assert_eq!(xdp.sharing(512).what, What::Xdp(sharing), "which is opened anew");
        for option in [
            ("n_rxq", "17"),
            ("n_txq_desc", "1000"),
            ("xdp-mode", "fast"),
            (CSUM_REPAIR, "1"),
            (TX_CSUM, "auto"),
            (GRO, "on"),
            (BUSY_POLL, "yes"),
        ] {
            assert!(error(&row("afxdp", &[option])).contains(option.0));
        }
        let patch = |options: &[(&str, &str)]| spec(&row("patch", options), dirs);
        let peer = patch(&[("peer", "p2")]).expect("works");
        assert_eq!(peer.what, What::Patch { peer: "p2".into() });
        for (options, why) in [
            (&[][..], "requires valid 'peer'"),
            (&[("peer", "")], "requires valid 'peer'"),
            (&[("peer", "p1")], "must not be self"),
            (&[("peer", "p2"), ("x", "y")], "only a 'peer'"),
        ] {
            assert!(patch(options).is_err_and(|e| e.contains(why)), "{options:?}");
        }
        let own = spec(&Interface { local: true, ..row("", &[]) }, dirs).expect("works");
        assert_eq!(own.what, What::Tap { queues: 1 });
        assert!(error(&Interface { name: "a/b".into(), ..row("system", &[]) }).contains("a/b"));
        assert!(error(&Interface { bonded: true, ..row("dpdkvhostuser", &[]) }).contains("bond"));
        assert!(error(&Interface { name: "a/b".into(), ..row("vhost-user", &[]) }).contains('/'));
    }

    #[test]
    fn paths_that_can_never_work() {
        let dirs = Dirs { rundir: Path::new("/run/x"), vhost_sock_dir: None };
        let client =
            |path: &str| spec(&row("dpdkvhostuserclient", &[("vhost-server-path", path)]), dirs);
        assert!(client(&"x".repeat(107)).is_ok());
        for (path, why) in [("", "empty"), (&*"x".repeat(108), "108"), ("/tmp", "directory")] {
            assert!(client(path).is_err_and(|e| e.contains(why)), "{path:?}");
        }
        assert!(client("a\0b").is_err());
        let below = |dir| {
            let dirs = Dirs { rundir: Path::new("/run/x"), vhost_sock_dir: Some(dir) };
            spec(&row("dpdkvhostuser", &[]), dirs).map(|s| s.path().map(Path::to_owned))
        };
        assert_eq!(below("vms"), Ok(Some("/run/x/vms/p1".into())));
        assert!(below("/etc").is_err() && below("a/../../etc").is_err() && below("..").is_err());
    }

    #[test]
    fn offers_of_the_switch_and_of_one_interface() {
        let of = |options: &[(&str, &str)], tso| offers(&row("dpdkvhostuser", options), tso);
        assert_eq!(of(&[], None), (Offers::All, None));
        assert_eq!(of(&[], Some("false")), (Offers::Checksums, None));
        assert_eq!(of(&[(TSO, "true")], Some("false")), (Offers::All, None));
        assert_eq!(of(&[(TSO, "false")], Some("true")), (Offers::Checksums, None));
        assert_eq!(of(&[(CSUM, "false")], None), (Offers::Nothing, None));
        assert!(matches!(of(&[(CSUM, "no")], None), (Offers::All, Some(e)) if e.contains(CSUM)));
    }

    #[test]
    fn pci_devices_are_their_netdevs() {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir_all(dir.path().join("0000:01:00.0/net/eth7")).expect("directory");
        assert_eq!(netdev_of_pci(dir.path(), "0000:01:00.0"), Ok("eth7".into()));
        assert!(netdev_of_pci(dir.path(), "0000:02:00.0").is_err_and(|e| e.contains("no netdev")));
        for bad in ["", "../x", "eth7", "."] {
            assert!(netdev_of_pci(dir.path(), bad).is_err_and(|e| e.contains("no PCI")), "{bad:?}");
        }
    }

    #[test]
    fn mtus() {
        let mtu = |m| mtu(&Interface { mtu_request: m, ..row("dpdkvhostuser", &[]) });
        assert_eq!((mtu(None), mtu(Some(68))), ((None, None), (Some(68), None)));
        assert_eq!(mtu(Some(9702)), (Some(9702), None));
        for bad in [67, 9703, -1] {
            let wrong = format!("mtu_request {bad} is not in 68 to 9702 and counts for nothing");
            assert_eq!(mtu(Some(bad)), (None, Some(wrong)));
        }
    }
}
