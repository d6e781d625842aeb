//! What operators set on the two busy ports, in words that both switches read.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::process::Process;
use lab::scene::{BRIDGE, PORTS};
use lab::switch::Switch;
use serde::Serialize;

use super::system::Kind;

/// The port that gets mirrored packets.
const WATCHER: &str = "watcher";

/// Time for a capture to begin.
const CAPTURE_LIMIT: Duration = Duration::from_secs(10);

/// Settings of the busy ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settings {
    /// None.
    Plain,
    /// Both are access ports of one VLAN.
    Access,
    /// Both are policed both ways, by limits that the load does not reach.
    Policed,
    /// Every packet is mirrored to a third vhost-user port, whose guest takes it.
    Mirrored,
    /// `vswitchctl capture` of one of them writes to /dev/null. OVS has nothing like it.
    Captured,
    /// AF_XDP ports share frames. OVS has nothing like it.
    Shared,
}

/// Access ports' VLAN.
const TAG: &str = "tag=7";
/// Frames that two ports of one queue take, and as many again.
const SHARED: [&str; 2] = ["other_config", "xdp-shared-frames=24576"];
/// 100 Gbit/s in bytes and in kilobits a second, and buckets that many bursts fit.
const EGRESS: [&str; 2] = ["other_config:cir=12500000000", "other_config:cbs=10000000"];
const INGRESS: [&str; 2] = ["ingress_policing_rate=100000000", "ingress_policing_burst=80000"];

impl Settings {
    /// In words, if there are any.
    pub fn describe(self) -> Option<&'static str> {
        Some(match self {
            Settings::Plain => return None,
            Settings::Access => "access ports of one VLAN",
            Settings::Policed => "policed both ways on both ports, limits not reached",
            Settings::Mirrored => "every packet mirrored to a third port",
            Settings::Captured => "one port captured to /dev/null",
            Settings::Shared => "frames shared by both ports",
        })
    }

    /// Whether a system can be set so.
    pub fn known_to(self, kind: Kind) -> bool {
        match kind {
            Kind::Ours | Kind::Before => true,
            Kind::OvsDpdk => !matches!(self, Settings::Captured | Settings::Shared),
            Kind::DpdkIo => self == Settings::Plain,
        }
    }

    fn set(self, switch: &Switch) -> Result<()> {
        let each = |port: &'static str| -> Vec<&str> {
            match self {
                Settings::Access => vec!["--", "set", "Port", port, TAG],
                Settings::Policed => {
                    let [rate, burst] = INGRESS;
                    let egress = ["--", "set", "Port", port, "qos=@q"];
                    [&egress[..], &["--", "set", "Interface", port, rate, burst]].concat()
                }
                _ => vec![],
            }
        };
        let once: Vec<&str> = match self {
            Settings::Plain | Settings::Captured | Settings::Access => vec![],
            Settings::Shared => [&["--", "add", "Open_vSwitch", "."][..], &SHARED].concat(),
            Settings::Policed => {
                let [cir, cbs] = EGRESS;
                vec!["--", "--id=@q", "create", "QoS", "type=egress-policer", cir, cbs]
            }
            Settings::Mirrored => {
                let watcher = ["--", "add-port", BRIDGE, WATCHER];
                let kind = ["--", "set", "Interface", WATCHER, "type=dpdkvhostuser"];
                let get = ["--", "--id=@p", "get", "Port", WATCHER];
                let create = ["--", "--id=@m", "create", "Mirror", "name=watch", "select-all=true"];
                let to = ["output-port=@p", "--", "set", "Bridge", BRIDGE, "mirrors=@m"];
                [&watcher[..], &kind, &get, &create, &to].concat()
            }
        };
        run(switch, once.into_iter().chain(PORTS.into_iter().flat_map(each)).collect())
    }

    fn unset(self, switch: &Switch) -> Result<()> {
        let each = |port: &'static str| -> Vec<&str> {
            match self {
                Settings::Access => vec!["--", "clear", "Port", port, "tag"],
                Settings::Policed => {
                    let [rate, burst] = ["ingress_policing_rate=0", "ingress_policing_burst=0"];
                    let egress = ["--", "clear", "Port", port, "qos"];
                    [&egress[..], &["--", "set", "Interface", port, rate, burst]].concat()
                }
                _ => vec![],
            }
        };
        let once: &[&str] = match self {
            Settings::Plain | Settings::Captured | Settings::Access => &[],
            Settings::Shared => {
                &["--", "remove", "Open_vSwitch", ".", "other_config", "xdp-shared-frames"]
            }
            Settings::Policed => &["--", "--all", "destroy", "QoS"],
            Settings::Mirrored => {
                &["--", "clear", "Bridge", BRIDGE, "mirrors", "--", "del-port", BRIDGE, WATCHER]
            }
        };
        run(switch, PORTS.into_iter().flat_map(each).chain(once.iter().copied()).collect())
    }
}

fn run(switch: &Switch, words: Vec<&str>) -> Result<()> {
    if words.is_empty() { Ok(()) } else { switch.ctl(&words).map(drop) }
}

/// What is set on a system now.
#[derive(Debug)]
pub struct Applied {
    settings: Settings,
    /// The client of a capture.
    capture: Option<Process>,
}

impl Applied {
    /// Nothing.
    pub fn none() -> Applied {
        Applied { settings: Settings::Plain, capture: None }
    }

    /// Sets it on a switch that has nothing set.
    pub fn set(&mut self, switch: &Switch, settings: Settings) -> Result<()> {
        settings.set(switch).with_context(|| format!("setting {settings:?}"))?;
        self.settings = settings;
        if settings == Settings::Captured {
            let words = ["capture", PORTS[0], "-w", "/dev/null"];
            let mut client = switch.start_ctl("a capture", &words)?;
            let begun = |text: &str| text.contains("capturing").then_some(());
            client.wait_log("the capture to begin", CAPTURE_LIMIT, 0, begun)?;
            self.capture = Some(client);
        }
        Ok(())
    }

    /// Takes it away again.
    pub fn unset(&mut self, switch: &Switch) -> Result<()> {
        if let Some(mut client) = self.capture.take() {
            client.stop()?;
        }
        self.settings.unset(switch)?;
        self.settings = Settings::Plain;
        Ok(())
    }

    /// The port whose guest takes mirrored packets, if there is one.
    pub fn watcher(&self) -> Option<&'static str> {
        (self.settings == Settings::Mirrored).then_some(WATCHER)
    }
}
