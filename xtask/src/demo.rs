//! `cargo xtask demo`: two virtual machines talk through the switch, and the switch shows what it saw.

use std::time::Instant;

use anyhow::Result;
use lab::progress::Step;
use lab::scene::{BRIDGE, PORTS, TwoGuests};
use lab::switch::{Kind, SocketMode};
use lab::{guest, packages};

use crate::build;

/// Start the switch and two QEMU guests, show ping and iperf3 between them and what the switch counted.
///
/// Takes 1 to 3 minutes and leaves nothing running. The guests are emulated, so their iperf3 shows that the
/// switch works, not how fast it is: that is what `cargo xtask bench` is for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo
  cargo xtask demo --switch ovs-dpdk       the same with Debian's OVS-DPDK, to compare")]
pub struct Arguments {
    /// The switch to show: ours or ovs-dpdk
    #[arg(long, default_value_t = Kind::Ours)]
    switch: Kind,
    /// Seconds of iperf3
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

/// Runs the demo.
pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    println!("Two virtual machines, one switch ({}).", arguments.switch);
    packages::ensure(packages::FOR_GUESTS)?;
    match arguments.switch {
        Kind::Ours => lab::switch::use_binaries_in(build::release()?),
        Kind::OvsDpdk => packages::ensure(packages::FOR_BENCH)?,
    }
    let step = Step::start("starting the switch, booting two guests (emulated: 10 to 60 s)");
    let mut scene = TwoGuests::start(arguments.switch, 0x1, SocketMode::SwitchConnects, 1)?;
    step.done();
    guests_talk(&mut scene, arguments.seconds)?;
    show_switch(&scene)?;
    let step = Step::start("stopping everything");
    let TwoGuests { guests, mut switch } = scene;
    drop(guests);
    switch.stop()?;
    drop(switch);
    step.done();
    println!("Done in {} s.", start.elapsed().as_secs());
    Ok(())
}

fn guests_talk(scene: &mut TwoGuests, seconds: u32) -> Result<()> {
    let [first, second] = &mut scene.guests;
    let address = guest::address(second.number());
    let commands = [
        "ip addr show dev eth0".to_owned(),
        format!("ping -c 3 {address}"),
        format!("iperf3 -c {address} -t {seconds}"),
    ];
    second.run("iperf3 -s -D")?;
    for command in commands {
        println!("\nguest 0 $ {command}\n{}", first.run(&command)?);
    }
    Ok(())
}

fn show_switch(scene: &TwoGuests) -> Result<()> {
    let (ctl, appctl) = match scene.switch.kind() {
        Kind::Ours => ("vswitchctl", "vswitchctl"),
        Kind::OvsDpdk => ("ovs-vsctl", "ovs-appctl"),
    };
    for port in PORTS {
        println!("\n$ {ctl} get Interface {port} statistics");
        println!("{}", scene.switch.interface(port, "statistics")?);
    }
    let shown: [&[&str]; 5] = [
        &["dpif/show"],
        &["dpctl/dump-flows"],
        &["fdb/show", BRIDGE],
        &["dpif-netdev/pmd-rxq-show"],
        &["dpif-netdev/pmd-stats-show"],
    ];
    for command in shown {
        println!("\n$ {appctl} {}", command.join(" "));
        println!("{}", scene.switch.appctl(command)?.trim_end());
    }
    Ok(())
}
