//! Virtual machines with one network device, commonly virtio-net on a vhost-user port, commanded over their console: QEMU's,
//! or user-mode Linux ([`crate::user_mode`]).

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::netns::Namespace;
use crate::packages::{QEMU, USER_MODE_LINUX};
use crate::process::{self, Process};
use crate::switch::{SocketMode, VhostPort};
use crate::{cpu, guest_image, user_mode};

/// Guest memory: enough for the kernel, the unpacked root file system and iperf3's buffers.
const MEMORY_MB: u32 = 256;

/// Time to boot: 8 to 15 s emulated on an idle core, much more when others have it.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// Time for one command in the guest; the longest is an iperf3 run of some seconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// The address that scenes give guest `number` (below 200).
pub fn address(number: u8) -> String {
    format!("10.9.0.{}", number + 1)
}

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Machine {
    /// QEMU, which emulates the processor: a stock kernel, and most of the time is the emulator's.
    #[default]
    Emulated,
    /// User-mode Linux: a kernel that is a program, its code run by the processor itself; one processor, one queue pair.
    UserMode,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Machine::Emulated => "qemu",
            Machine::UserMode => "user-mode",
        })
    }
}

impl FromStr for Machine {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Machine> {
        let found =
            [Machine::Emulated, Machine::UserMode].into_iter().find(|m| m.to_string() == name);
        found.with_context(|| format!("no guest is called {name}: say qemu or user-mode"))
    }
}

/// What a guest has.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What runs it.
    pub machine: Machine,
    /// Queue pairs, and as many processors; 0 is 1.
    pub queues: u16,
    /// Another network device of QEMU than virtio-net, as it calls it. It has one queue.
    pub nic: Option<&'static str>,
    /// Properties of its device for QEMU, as `guest_csum=off`.
    pub properties: &'static str,
    /// Programs besides those of every guest.
    pub programs: Vec<PathBuf>,
}

/// A running virtual machine; ended at drop.
#[derive(Debug)]
pub struct Guest {
    number: u8,
    machine: Machine,
    process: Process,
    console: ChildStdin,
    commands: u32,
    _dir: TempDir,
}

impl Guest {
    /// Starts guest `number` (its MAC address is 52:54:00:00:00:NUMBER) on `port`. Returns before it has booted:
    /// see [`Guest::wait_booted`].
    pub fn start(number: u8, port: &VhostPort, options: &Options) -> Result<Guest> {
        let dir = tempfile::Builder::new().prefix("lab-guest-").tempdir_in("/tmp")?;
        let (program, arguments) = match options.machine {
            Machine::Emulated => (QEMU, qemu_arguments(number, vhost_user(port, options), options)),
            Machine::UserMode => {
                let device = user_mode::vhost_user(dir.path(), port)?;
                (USER_MODE_LINUX, user_mode::arguments(device))
            }
        };
        Guest::start_as(number, process::command(program.file), arguments, dir, options)
    }

    /// The same on a tap of a namespace, that it reads and writes itself: for QEMU one made with `vnet_hdr`, and
    /// `multi_queue` for several queues.
    pub fn start_on_tap(
        number: u8,
        namespace: &Namespace,
        tap: &str,
        options: &Options,
    ) -> Result<Guest> {
        let dir = tempfile::Builder::new().prefix("lab-guest-").tempdir_in("/tmp")?;
        let (program, arguments) = match options.machine {
            Machine::Emulated => {
                (QEMU, qemu_arguments(number, vec![qemu_tap(tap, options)], options))
            }
            Machine::UserMode => (USER_MODE_LINUX, user_mode::arguments(user_mode::tap(tap))),
        };
        let mut command = process::command("nsenter");
        command.args(["-t", &namespace.pid().to_string(), "-n", "--", program.file]);
        Guest::start_as(number, command, arguments, dir, options)
    }

    /// QEMU's with UDP for a wire: each datagram is a frame. Those of the port `wire` of this host arrive at the guest,
    /// whose own go there, from the port `own`.
    pub fn start_on_udp(number: u8, wire: u16, own: u16, options: &Options) -> Result<Guest> {
        let dir = tempfile::Builder::new().prefix("lab-guest-").tempdir_in("/tmp")?;
        let netdev = format!("-netdev socket,id=n0,udp=127.0.0.1:{wire},localaddr=127.0.0.1:{own}");
        let arguments = qemu_arguments(number, vec![netdev], options);
        Guest::start_as(number, process::command(QEMU.file), arguments, dir, options)
    }

    fn start_as(
        number: u8,
        mut command: Command,
        arguments: Vec<String>,
        dir: TempDir,
        options: &Options,
    ) -> Result<Guest> {
        let image = guest_image::prepare(options.machine, &options.programs)?;
        command.args(arguments);
        match options.machine {
            Machine::Emulated => {
                command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs)
            }
            Machine::UserMode => command.arg(format!("initrd={}", image.initramfs.display())),
        };
        command.stdin(Stdio::piped());
        let name = format!("guest {number}");
        let mut process = Process::start(&name, &mut command, &dir.path().join("console.log"))?;
        let console = process.take_stdin().context("the guest has no console")?;
        let machine = options.machine;
        Ok(Guest { number, machine, process, console, commands: 0, _dir: dir })
    }

    /// Its number.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The process that is its machine.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until it takes commands.
    pub fn wait_booted(&mut self) -> Result<()> {
        let ready = |log: &str| log.contains("<<ready").then_some(());
        self.process.wait_log("the end of booting", BOOT_LIMIT, 0, ready)?;
        if self.machine == Machine::UserMode {
            self.run(&user_mode::name_device(self.number))?;
        }
        Ok(())
    }

    /// Waits until the guest's iperf3 listens: after it was started, and again after each run.
    pub fn wait_iperf3(&mut self) -> Result<()> {
        self.run("until netstat -ltn | grep -q :5201; do usleep 50000; done").map(drop)
    }

    /// Keeps it on one core, once it has booted.
    pub fn pin(&self, core: usize) -> Result<()> {
        cpu::pin_process(self.process.id(), core)?;
        // Programs of user-mode Linux are processes of the host.
        cpu::children(self.process.id())?
            .into_iter()
            .try_for_each(|pid| cpu::pin_process(pid, core))
    }

    /// Runs a shell command in the guest; returns what it printed, or fails with it if its status is not 0.
    pub fn run(&mut self, command: &str) -> Result<String> {
        match self.try_run(command)? {
            (0, said) => Ok(said),
            (status, said) => {
                bail!("guest {}: `{command}` ended with {status}: {said}", self.number)
            }
        }
    }

    /// Runs a shell command in the guest; returns its exit status and what it printed.
    pub fn try_run(&mut self, command: &str) -> Result<(i32, String)> {
        self.commands += 1;
        let number = self.commands;
        let from = self.process.log_len();
        writeln!(self.console, "{number} {command}").context("the guest's console is closed")?;
        self.process.wait_log(&format!("the end of `{command}`"), COMMAND_LIMIT, from, |log| {
            answer(log, number)
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing in it is worth an orderly shutdown.
        let _ = self.process.kill();
    }
}

/// A network device whose back end is a port of a switch.
fn vhost_user(port: &VhostPort, options: &Options) -> Vec<String> {
    let queues = options.queues.max(1);
    let chardev = match port.mode {
        SocketMode::SwitchConnects => "server=on",
        SocketMode::SwitchListens => "reconnect=1",
    };
    vec![
        format!("-chardev socket,id=c0,path={},{chardev}", port.socket.display()),
        format!("-netdev vhost-user,id=n0,chardev=c0,queues={queues}"),
    ]
}

fn qemu_tap(tap: &str, options: &Options) -> String {
    let queues = options.queues.max(1);
    format!("-netdev tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off,queues={queues}")
}

fn qemu_arguments(number: u8, netdev: Vec<String>, options: &Options) -> Vec<String> {
    let queues = options.queues.max(1);
    let comma = if options.properties.is_empty() { "" } else { "," };
    let nic = options.nic.map_or_else(
        || {
            let mq = if queues > 1 { "on" } else { "off" };
            // vectors=0: QEMU 7.2 emulating a processor crashes on MSI-X of a vhost-user device.
            format!("virtio-net-pci,mq={mq},vectors=0")
        },
        str::to_owned,
    );
    let device = format!(
        "{nic},netdev=n0,mac=52:54:00:00:00:{number:02x},rombar=0{comma}{}",
        options.properties,
    );
    let mut arguments = vec![
        "-nodefaults -no-user-config -display none -no-reboot -serial stdio -accel tcg".to_owned(),
        format!("-m {MEMORY_MB}M -smp {queues}"),
        format!("-object memory-backend-memfd,id=m,size={MEMORY_MB}M,share=on -numa node,memdev=m"),
    ];
    arguments.extend(netdev);
    arguments.push(format!("-device {device}"));
    let mut arguments: Vec<String> =
        arguments.iter().flat_map(|a| a.split(' ')).map(str::to_owned).collect();
    arguments.extend(["-append".to_owned(), "console=ttyS0 quiet loglevel=3 panic=-1".to_owned()]);
    arguments
}

/// Finds the answer to command `number` in what the console printed.
fn answer(log: &str, number: u32) -> Option<(i32, String)> {
    let log = log.replace('\r', "");
    let (_, rest) = log.split_once(&format!("<<{number}\n"))?;
    let (said, status) = rest.split_once(&format!("\n>>{number} "))?;
    let (status, _) = status.split_once('\n')?;
    Some((status.parse().ok()?, said.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_number_and_status() {
        assert_eq!(answer("<<3\r\nhello\r\n\r\n>>3 0\r\n", 3), Some((0, "hello".into())));
        assert_eq!(answer("<<3\r\n\r\n>>3 127\r\n", 3), Some((127, String::new())));
        assert_eq!(answer("<<3\r\nhello\r\n", 3), None);
        assert_eq!(answer("<<2\r\nhello\r\n\r\n>>2 0\r\n", 3), None);
        assert_eq!(answer("<<3\r\n\r\n>>3 1", 3), None, "the status may be cut off");
    }
}
