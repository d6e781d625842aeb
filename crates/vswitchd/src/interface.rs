//! Interfaces of all types: opened as their rows say, and described for their rows. The only place
//! that knows the port drivers.

use crate::desired::Interface;
use port::Port;
use port_vhost::{Config, Mode, Offers, VhostPort};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Types that work, for `Open_vSwitch.iface_types`.
pub(crate) const TYPES: &[&str] =
    &["dpdkvhostuser", "dpdkvhostuserclient", "vhost-user", "vhost-user-client"];
/// MTU of an interface that asks for none.
const MTU_DEFAULT: u32 = 1500;
/// Bytes of a Unix socket's path, without the zero byte at its end (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// Switches for offloads of one interface; the first is OVS's name of the switch for all.
const TSO: &str = "userspace-tso-enable";
const CSUM: &str = "userspace-csum-enable";
/// The range that `mtu_request` may have (as OVS's DPDK ports).
const MTU_RANGE: std::ops::RangeInclusive<i64> = 68..=9702;

/// What an interface is opened from: if any of it changes, it is opened anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    kind: &'static str,
    mode: Mode,
    path: PathBuf,
}

impl Spec {
    /// Refuses a path that can never be a socket's.
    fn checked(self, what: &str) -> Result<Spec, String> {
        let (path, bytes) = (self.path.display(), self.path.as_os_str().as_bytes());
        match bytes.len() {
            0 => Err(format!("{what} is empty")),
            n if n > SOCKET_PATH_MAX => Err(format!(
                "{what} is {n} bytes long, and a socket's path has at most {SOCKET_PATH_MAX}"
            )),
            _ if bytes.contains(&0) => Err(format!("{what} contains a zero byte")),
            _ if self.path.is_dir() => Err(format!("{what}: {path} is a directory")),
            _ => Ok(self),
        }
    }

    /// The socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
            let spec = Spec { kind: "dpdkvhostuserclient", mode: Mode::Client, path: path.into() };
            spec.checked("options:vhost-server-path")
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
            Spec { kind: "dpdkvhostuser", mode: Mode::Server, path }.checked("the socket")
        }
        "" | "system" => Err("netdevs of the kernel (type system) are not supported yet".into()),
        other => Err(format!("type \"{other}\" is not supported; there are {}", TYPES.join(", "))),
    }
}

/// The MTU that an interface's row asks for. One that cannot be is answered by the default, so that
/// the interface works all the same, and by a line for the row's `error` column.
pub(crate) fn mtu(i: &Interface) -> (u32, Option<String>) {
    match i.mtu_request {
        None => (MTU_DEFAULT, None),
        Some(m) if MTU_RANGE.contains(&m) => (m as u32, None),
        Some(m) => {
            let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
            let text =
                format!("mtu_request {m} is not in {least} to {most}; {MTU_DEFAULT} is used");
            (MTU_DEFAULT, Some(text))
        }
    }
}

/// What an interface offers its guests, and a line for its row's `error` column if a setting is none. `tso`
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

/// An open interface.
pub(crate) struct Opened {
    pub(crate) spec: Spec,
    vhost: Arc<VhostPort>,
}

impl Opened {
    /// Opens an interface. `on_change` is called when its state changes.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn open(
        name: &str,
        spec: Spec,
        mtu: u32,
        offers: Offers,
        on_change: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Opened, String> {
        let config = Config {
            name: name.to_owned(),
            mode: spec.mode,
            path: spec.path.clone(),
            mtu,
            offers,
            on_change,
        };
        let vhost = VhostPort::open(config).map_err(|e| format!("cannot open: {e}"))?;
        Ok(Opened { spec, vhost: Arc::new(vhost) })
    }

    /// The port that packets go through.
    pub(crate) fn port(&self) -> Arc<dyn Port> {
        self.vhost.clone()
    }

    /// Changes the MTU.
    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.vhost.set_mtu(mtu);
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.vhost.mtu()
    }

    /// Changes what guests are offered that come from now on.
    pub(crate) fn set_offers(&self, offers: Offers) {
        self.vhost.set_offers(offers);
    }

    /// Ends the interface. PMD threads may still hold the port, and find it without queues.
    pub(crate) fn close(&self) {
        self.vhost.close();
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.spec.kind
    }

    /// True if a guest is there.
    pub(crate) fn link_is_up(&self) -> bool {
        let s = self.vhost.status();
        s.connected && s.vring_sizes.iter().any(|&n| n > 0)
    }

    /// Receive and transmit queues.
    pub(crate) fn queues(&self) -> (usize, usize) {
        let pairs = self.vhost.rx_queues();
        (pairs, pairs)
    }

    /// The row's `status` column.
    pub(crate) fn status(&self) -> BTreeMap<String, String> {
        let s = self.vhost.status();
        let (connections, errors, faults) = self.vhost.session_counts();
        let (n_rxq, n_txq) = self.queues();
        let mode = if self.spec.mode == Mode::Client { "client" } else { "server" };
        let state = if s.connected { "connected" } else { "disconnected" };
        let mut map: BTreeMap<String, String> = [
            ("mode", mode.to_owned()),
            ("status", state.to_owned()),
            ("socket", self.vhost.path().display().to_string()),
            ("mtu", self.mtu().to_string()),
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
        assert_eq!((s.mode, s.path), (Mode::Server, "/run/x/p1".into()));
        let s = spec(&row("vhost-user-client", &[("vhost-server-path", "/a")]), dirs);
        assert_eq!(s.expect("works").kind, "dpdkvhostuserclient");
        let error = |r: &Interface| spec(r, dirs).expect_err("must be refused");
        assert!(error(&row("dpdkvhostuserclient", &[])).contains("vhost-server-path"));
        assert!(error(&row("gre", &[])).contains("gre"));
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
            spec(&row("dpdkvhostuser", &[]), dirs).map(|s| s.path)
        };
        assert_eq!(below("vms"), Ok("/run/x/vms/p1".into()));
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
    fn mtus() {
        let mtu = |m| mtu(&Interface { mtu_request: m, ..row("dpdkvhostuser", &[]) });
        assert_eq!((mtu(None), mtu(Some(68))), ((1500, None), (68, None)));
        assert_eq!(mtu(Some(9702)), (9702, None));
        for bad in [67, 9703, -1] {
            assert!(matches!(mtu(Some(bad)), (1500, Some(_))));
        }
    }
}
