//! The systems that are compared, behind the same few operations: set up once, and stopped unless measured.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::cpu::{self, ThreadTime};
use lab::floor::Floor;
use lab::netns::on_host;
use lab::process::Process;
use lab::progress::Step;
use lab::scene::{BRIDGE, LINK_LIMIT, PORTS};
use lab::switch::{self, SocketMode, Switch};
use lab::wait;
use serde::Serialize;
use unixctl::Client;

use super::SWITCH_CORE;
use super::nic;
use super::scenario::End;
use super::settings::{Applied, Settings};

/// Time in which testpmd notices that its guests have gone; it does not say so.
const FLOOR_FORGETS: Duration = Duration::from_millis(100);

/// The MTU unless a scenario has longer frames.
pub const MTU: u16 = 1500;

/// Which system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `vswitchd` as released.
    Ours,
    /// Another build of it (`--before`): what a change gives.
    Before,
    /// Debian's openvswitch-switch-dpdk.
    OvsDpdk,
    /// testpmd between two of DPDK's vhost devices: the floor without a switch.
    DpdkIo,
}

/// The program of [`Kind::Before`].
pub static BEFORE: OnceLock<PathBuf> = OnceLock::new();

/// All that are measured unless others are named, in the order in which reports show them.
pub const ALL: [Kind; 3] = [Kind::Ours, Kind::OvsDpdk, Kind::DpdkIo];

impl std::str::FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Kind> {
        let found = ALL.into_iter().chain([Kind::Before]).find(|kind| kind.name() == name);
        let known = "ours, before, ovs-dpdk or dpdk-io";
        found.with_context(|| format!("no system is called {name}: say {known}"))
    }
}

impl Kind {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Before => "before",
            Kind::OvsDpdk => "ovs-dpdk",
            Kind::DpdkIo => "dpdk-io",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What the polling thread says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PollStats {
    /// Time-stamp counter cycles of polls that had packets, for each packet.
    pub cycles_per_packet: Option<f64>,
    /// Packets of an output batch on average, where the system says it.
    pub batch: Option<f64>,
}

/// One stage of a packet's way, as the polling thread times it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Time-stamp counter cycles for each packet.
    pub cycles_per_packet: f64,
}

/// A running system with two vhost-user ports on which it listens.
pub struct System {
    kind: Kind,
    body: Body,
    idle_ports: u16,
    mtu: u16,
    tso: bool,
    ends: [End; 2],
    applied: Applied,
    /// Where guests wait for the switch to connect, if they do.
    listening: Option<[PathBuf; 2]>,
}

enum Body {
    Switch { switch: Box<Switch>, control: Client },
    Floor(Box<Floor>),
}

impl System {
    /// Starts it on the switch's core and stops it there.
    pub fn start(kind: Kind) -> Result<System> {
        System::start_with(kind, &[])
    }

    /// The same with `settings` in the database's `other_config`.
    pub fn start_with(kind: Kind, settings: &[&str]) -> Result<System> {
        let step = Step::start(format!("setting up {kind}"));
        let body = match kind {
            Kind::Ours => start_switch(switch::Kind::Ours, None, settings)?,
            Kind::Before => {
                let program = BEFORE.get().context("say with --before which program it is")?;
                start_switch(switch::Kind::Ours, Some(program.clone()), settings)?
            }
            Kind::OvsDpdk => start_switch(switch::Kind::OvsDpdk, None, settings)?,
            Kind::DpdkIo => Body::Floor(Box::new(Floor::start(SWITCH_CORE)?)),
        };
        let ends = [End::Guest; 2];
        let applied = Applied::none();
        let (idle_ports, mtu, tso, listening) = (0, MTU, false, None);
        let system = System { kind, body, idle_ports, mtu, tso, ends, applied, listening };
        system.process().prefer()?;
        system.pause()?;
        step.done();
        Ok(system)
    }

    /// Which one this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The switch, unless this is the floor.
    pub fn switch(&self) -> Option<&Switch> {
        match &self.body {
            Body::Switch { switch, .. } => Some(switch),
            Body::Floor(_) => None,
        }
    }

    /// Where guests connect to the two busy ports, or wait if [`System::guests_listen`].
    pub fn sockets(&self) -> [PathBuf; 2] {
        if let Some(sockets) = &self.listening {
            return sockets.clone();
        }
        match &self.body {
            Body::Switch { switch, .. } => PORTS.map(|port| switch.rundir().join(port)),
            Body::Floor(floor) => floor.sockets(),
        }
    }

    /// Makes the ports besides the two busy ones `count`; where their guests connect.
    pub fn set_idle_ports(&mut self, count: u16) -> Result<Vec<PathBuf>> {
        let Body::Switch { switch, .. } = &self.body else { return Ok(Vec::new()) };
        let name = |number: u16| format!("idle{number}");
        let removed: Vec<String> = (count..self.idle_ports).map(name).collect();
        let added: Vec<String> = (self.idle_ports..count).map(name).collect();
        switch.remove_ports(BRIDGE, &removed)?;
        switch.add_listening_ports(BRIDGE, &added, MTU)?;
        self.idle_ports = count;
        Ok((0..count).map(|number| switch.rundir().join(name(number))).collect())
    }

    /// Makes the busy ports a guest's or a wire's, while no guest is connected.
    pub fn set_ends(&mut self, ends: [End; 2]) -> Result<()> {
        let Body::Switch { switch, .. } = &self.body else { return Ok(()) };
        for (at, port) in PORTS.into_iter().enumerate() {
            let far_end = self.far_end(at);
            match (self.ends[at], ends[at]) {
                (End::Guest, End::Nic) => {
                    switch.remove_ports(BRIDGE, &[port.to_owned()])?;
                    nic::wire(switch, port, &far_end)?;
                    switch.ctl(&[
                        "add-port",
                        BRIDGE,
                        port,
                        "--",
                        "set",
                        "Interface",
                        port,
                        "type=afxdp",
                        "options:xdp-mode=native",
                    ])?;
                }
                (End::Nic, End::Guest) => {
                    switch.remove_ports(BRIDGE, &[port.to_owned()])?;
                    on_host(switch, &format!("ip link del {port}"))?;
                    switch.add_listening_ports(BRIDGE, &[port.to_owned()], self.mtu)?;
                }
                _ => {}
            }
            self.ends[at] = ends[at];
        }
        Ok(())
    }

    /// The netdev on this host that is the far end of busy port number `at`, if that is a wire's.
    pub fn far_end(&self, at: usize) -> String {
        format!("far{}-{at}", self.process().id())
    }

    /// Makes the MTU of the busy ports `mtu`, of which no guest may be connected.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<()> {
        let Body::Switch { switch, .. } = &self.body else { return Ok(()) };
        if mtu != self.mtu {
            // OVS 3.1 was seen to leave a port that had a guest before at its old MTU.
            let names = PORTS.map(str::to_owned);
            switch.remove_ports(BRIDGE, &names)?;
            switch.add_listening_ports(BRIDGE, &names, mtu)?;
            self.mtu = mtu;
        }
        Ok(())
    }

    /// Sets what has not been set on the busy ports; where the guest that takes mirrored packets connects, if there is one.
    pub fn apply(&mut self, settings: Settings) -> Result<Option<PathBuf>> {
        let Body::Switch { switch, .. } = &self.body else { return Ok(None) };
        self.applied.set(switch, settings)?;
        Ok(self.applied.watcher().map(|port| switch.rundir().join(port)))
    }

    /// Takes away what [`System::apply`] set.
    pub fn unapply(&mut self) -> Result<()> {
        let Body::Switch { switch, .. } = &self.body else { return Ok(()) };
        self.applied.unset(switch)
    }

    /// Lets guests leave checksums and segmentation to the switch, which OVS-DPDK does not by default and has to be
    /// started again for. Ours offers them always; a guest that does not ask for them is not concerned.
    pub fn set_tso(&mut self, on: bool) -> Result<()> {
        let Body::Switch { switch, control } = &mut self.body else { return Ok(()) };
        if self.kind != Kind::OvsDpdk || on == self.tso {
            return Ok(());
        }
        let step = Step::start(format!("starting {} again, TSO {on}", self.kind));
        let setting = format!("other_config:userspace-tso-enable={on}");
        switch.ctl(&["--no-wait", "set", "Open_vSwitch", ".", &setting])?;
        switch.stop()?;
        switch.restart()?;
        *control = switch.control()?;
        // OVS 3.1 offers no segmentation on ports on which it listens.
        let names = PORTS.map(str::to_owned);
        switch.remove_ports(BRIDGE, &names)?;
        self.listening = None;
        if on {
            let add = |port| switch.add_vhost_port(BRIDGE, port, SocketMode::SwitchConnects);
            self.listening = Some([add(PORTS[0])?.socket, add(PORTS[1])?.socket]);
        } else {
            switch.add_listening_ports(BRIDGE, &names, self.mtu)?;
        }
        self.tso = on;
        self.process().prefer()?;
        step.done();
        Ok(())
    }

    /// Whether the switch connects to its guests.
    pub fn guests_listen(&self) -> bool {
        self.listening.is_some()
    }

    fn process(&self) -> &Process {
        match &self.body {
            Body::Switch { switch, .. } => switch.daemon(),
            Body::Floor(floor) => floor.process(),
        }
    }

    /// Stops it where it stands.
    pub fn pause(&self) -> Result<()> {
        self.process().pause()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.process().resume()
    }

    /// Fails if its process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Switch { switch, .. } => switch.check_alive(),
            Body::Floor(floor) => floor.clear(),
        }
    }

    /// Waits until the guests of both busy ports are seen.
    pub fn wait_link_up(&self) -> Result<()> {
        match &self.body {
            Body::Switch { switch, .. } => switch.wait_link_up(&PORTS, LINK_LIMIT),
            // Devices of `net_vhost` work as soon as the last message is answered.
            Body::Floor(_) => Ok(()),
        }
    }

    /// Waits until the guests of both busy ports are gone.
    pub fn wait_link_down(&self) -> Result<()> {
        match &self.body {
            Body::Switch { switch, .. } => {
                let guests = PORTS.iter().zip(self.ends).filter(|(_, end)| *end == End::Guest);
                let guests: Vec<&str> = guests.map(|(port, _)| *port).collect();
                switch.wait_link(&guests, "down", LINK_LIMIT)
            }
            Body::Floor(_) => wait::pass(FLOOR_FORGETS),
        }
    }

    /// Its polling thread begins to count anew.
    pub fn clear_stats(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Switch { control, .. } => call(control, "dpif-netdev/pmd-stats-clear").map(drop),
            Body::Floor(floor) => floor.clear(),
        }
    }

    /// What its polling thread counted since [`System::clear_stats`].
    pub fn stats(&mut self) -> Result<PollStats> {
        match &mut self.body {
            Body::Switch { control, .. } => {
                Ok(parse_stats(&call(control, "dpif-netdev/pmd-stats-show")?))
            }
            Body::Floor(floor) => {
                let cycles_per_packet = floor.spent()?.map(|spent| spent.cycles_per_packet);
                Ok(PollStats { cycles_per_packet, batch: None })
            }
        }
    }

    /// Cycles that its polling thread spent on packets since [`System::clear_stats`].
    pub fn processing_cycles(&mut self) -> Result<u64> {
        let Body::Switch { control, .. } = &mut self.body else { bail!("this is no switch") };
        let text = call(control, "dpif-netdev/pmd-stats-show")?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix("processing cycles: "));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("no processing cycles in {text}"))
    }

    /// Cycles per packet of each stage of its way through the switch, if it says them.
    pub fn stages(&mut self) -> Vec<Stage> {
        let Body::Switch { control, .. } = &mut self.body else { return Vec::new() };
        call(control, "dpif-netdev/pmd-perf-show")
            .map_or_else(|_| Vec::new(), |text| parse_stages(&text))
    }

    /// Scheduler times of its threads.
    pub fn threads(&self) -> Result<Vec<ThreadTime>> {
        cpu::threads(self.process().id())
    }

    /// Its private memory in kilobytes.
    pub fn private_memory_kb(&self) -> Result<u64> {
        cpu::private_memory_kb(self.process().id())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // A stopped process could not end by itself.
        let _ = self.resume();
    }
}

fn start_switch(kind: switch::Kind, program: Option<PathBuf>, settings: &[&str]) -> Result<Body> {
    let switch = Switch::start_program(kind, program, 1 << SWITCH_CORE, settings)?;
    switch.add_bridge(BRIDGE)?;
    switch.add_listening_ports(BRIDGE, &PORTS.map(str::to_owned), MTU)?;
    let control = switch.control()?;
    Ok(Body::Switch { switch: Box::new(switch), control })
}

fn call(control: &mut Client, method: &str) -> Result<String> {
    match control.call(method, &[])? {
        Ok(text) => Ok(text),
        Err(text) => bail!("{method}: {text}"),
    }
}

/// Reads `pmd-stats-show`. The first thread is the polling one.
pub fn parse_stats(text: &str) -> PollStats {
    let value = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    PollStats {
        cycles_per_packet: value("avg processing cycles per packet:"),
        batch: value("avg. packets per output batch:"),
    }
}

/// Reads lines like `  stage receive: 45.2 cycles/pkt`.
fn parse_stages(text: &str) -> Vec<Stage> {
    let stage = |line: &str| {
        let (name, rest) = line.trim().strip_prefix("stage ")?.split_once(':')?;
        let cycles_per_packet = rest.split_whitespace().next()?.parse().ok()?;
        Some(Stage { name: name.trim().to_owned(), cycles_per_packet })
    };
    text.lines().filter_map(stage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_read_as_both_switches_print_them() {
        let text = "pmd thread numa_id 0 core_id 0:\n  avg. packets per output batch: 31.50\n  \
                    avg cycles per packet: 700.50 (7/1)\n  avg processing cycles per packet: 585.25 (5/1)\n\
                    main thread:\n  avg. packets per output batch: 0.00\n";
        let stats = PollStats { cycles_per_packet: Some(585.25), batch: Some(31.5) };
        assert_eq!(parse_stats(text), stats);
        assert_eq!(parse_stats("nothing"), PollStats::default());
    }

    #[test]
    fn stages_are_read_where_they_are() {
        let text = "Time: 1\n  stage receive: 45.2 cycles/pkt\n  stage look up: 30 cycles/pkt\n  stage x\n";
        let names: Vec<_> =
            parse_stages(text).into_iter().map(|s| (s.name, s.cycles_per_packet)).collect();
        assert_eq!(names, [("receive".to_owned(), 45.2), ("look up".to_owned(), 30.0)]);
        assert!(parse_stages("nothing").is_empty());
    }

    #[test]
    fn names_are_read_back() {
        for kind in ALL {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        }
        assert!("vpp".parse::<Kind>().is_err());
    }
}
