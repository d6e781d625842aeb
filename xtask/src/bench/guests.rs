//! A system with two guests, for what is measured between virtual machines.
//!
//! All systems and their guests run at once; those whose turn it is not are stopped. The guests share one core, and the
//! processors of QEMU's are emulated, so their own time is in every figure, and far more of it than the switch's: systems
//! can be compared, machines cannot. User-mode Linux (`--guests user-mode`) leaves more of it to the switch.

use std::path::PathBuf;

use anyhow::{Context, Result};
use lab::guest::{self, Guest, Machine, Options};
use lab::progress::Step;
use lab::scene::{BRIDGE, PORTS};
use lab::switch::{SocketMode, VhostPort};

use super::LOAD_CORE;
use super::system::{Kind, System};

/// How virtual machines are run, and what lets the switch they share a machine with sleep.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What runs them.
    pub machine: Machine,
    /// The longest sleep of a polling thread, in microseconds.
    pub sleep_us: u16,
}

/// A system with its guests, on whose first device each has its address.
pub struct Scene {
    /// First to be dropped.
    pub guests: [Guest; 2],
    /// The system.
    pub system: System,
}

/// Starts a system for virtual machines that measure bandwidth: all take segments of TCP whole from guests, and their
/// threads sleep for up to `sleep_us` microseconds at low load.
pub fn start_system(kind: Kind, sleep_us: u16) -> Result<System> {
    // By the name that it had up to OVS 3.1.
    let sleep = format!("pmd-maxsleep={sleep_us}");
    System::start_with(kind, &["userspace-tso-enable=true", &sleep])
}

impl Scene {
    /// Boots the guests, with `programs` besides those of every guest, and stops all.
    pub fn start(kind: Kind, programs: Vec<PathBuf>, run: Run) -> Result<Scene> {
        let system = start_system(kind, run.sleep_us)?;
        let step = Step::start(format!("booting two guests on {kind}"));
        system.resume()?;
        let ports = connecting_ports(&system)?;
        let options = Options { machine: run.machine, programs, ..Options::default() };
        let mut guests =
            [Guest::start(0, &ports[0], &options)?, Guest::start(1, &ports[1], &options)?];
        for guest in &mut guests {
            guest.wait_booted()?;
            guest.pin(LOAD_CORE)?;
            let address = guest::address(guest.number());
            guest.run(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"))?;
        }
        system.wait_link_up()?;
        let scene = Scene { guests, system };
        scene.pause()?;
        step.done();
        Ok(scene)
    }

    /// Stops all of it.
    pub fn pause(&self) -> Result<()> {
        self.guests.iter().try_for_each(|guest| guest.process().pause())?;
        self.system.pause()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.system.resume()?;
        self.guests.iter().try_for_each(|guest| guest.process().resume())
    }
}

/// The system's ports made anew, so that it connects to its guests: that is how switches are set up for QEMU, and OVS 3.1
/// passes no TCP between guests on ports where it listens while segments are taken whole.
fn connecting_ports(system: &System) -> Result<[VhostPort; 2]> {
    let switch = system.switch().context("guests need a switch")?;
    switch.remove_ports(BRIDGE, &PORTS.map(str::to_owned))?;
    let port = |name| switch.add_vhost_port(BRIDGE, name, SocketMode::SwitchConnects);
    Ok([port(PORTS[0])?, port(PORTS[1])?])
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A stopped process could not end by itself.
        let _ = self.resume();
    }
}
