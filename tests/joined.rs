//! Hosts joined: a Linux bridge with a switch's bridge, two switches with a wire between them, a guest with its
//! host, and a host with the wire that a switch uses too. The peers are Linux's own stack and QEMU.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::guest::{self, Guest};
use lab::netns::{Namespace, give, on_host, run_beside, wire};
use lab::scene::LINK_LIMIT;
use lab::switch::{Kind, SocketMode, Switch};
use lab::{alone, wait};

const LIMIT: Duration = Duration::from_secs(30);
const PING: &str = "ping -c 3 -i 0.1 -W 2";

fn start() -> Result<Switch> {
    let switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    Ok(switch)
}

fn add_port(switch: &Switch, name: &str, settings: &[&str]) -> Result<()> {
    let set = ["add-port", "br0", name, "--", "set", "Interface", name];
    switch.ctl(&[&set, settings].concat()).map(drop)
}

/// Serves iperf3 in a namespace as long as it is kept.
fn serve(switch: &Switch, at: &Namespace) -> Result<lab::process::Process> {
    let log = switch.rundir().join(format!("iperf.{}", at.pid()));
    let mut server = at.start("iperf3 -s --forceflush", &log)?;
    server.wait_log("listening", LIMIT, 0, |t| t.contains("listening").then_some(()))?;
    Ok(server)
}

/// Both ways for a second each; the sum of what the receivers got must be something.
fn iperf(from: &Namespace, to: &str) -> Result<()> {
    for way in ["", " -R"] {
        let line = format!("timeout 20 iperf3 -f m -t 1 -c {to}{way}");
        // The server may not be done with the run before, and refuses another.
        let report = wait::until(&line, LIMIT, || Ok(from.run(&line).ok()))?;
        println!("{to}{way}: {}", received(&report)?);
    }
    Ok(())
}

/// The rate that the receiver had, which must not be nothing.
fn received(report: &str) -> Result<String> {
    let line = report.lines().rev().find(|l| l.contains("receiver"));
    let line = line.with_context(|| format!("iperf3 reported no rate:\n{report}"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| w.ends_with("bits/sec")).context("no rate")?;
    ensure!(words[at - 1].parse::<f64>()? > 0.0, "{report}");
    Ok(words[at - 1..=at].join(" "))
}

#[test]
fn a_linux_bridge_is_joined_by_an_internal_port_and_by_veth() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let (linux, ours) = (Namespace::new()?, Namespace::new()?);
    on_host(&switch, "ip link add lbr type bridge")?;
    on_host(&switch, "ip link set lbr up")?;
    // A host behind the Linux bridge, and one behind ours.
    wire(&switch, "v0", &linux, "v0p", "10.2.0.1")?;
    on_host(&switch, "ip link set v0 master lbr")?;
    add_port(&switch, "int0", &["type=internal"])?;
    give(&switch, "int0", &ours, "10.2.0.2")?;
    let _server = serve(&switch, &ours)?;
    let talk = || -> Result<()> {
        linux.run(&format!("{PING} 10.2.0.2"))?;
        ours.run(&format!("{PING} -s 8000 10.2.0.1"))?;
        iperf(&linux, "10.2.0.2")
    };
    ensure!(linux.run("ping -c 1 -W 1 10.2.0.2").is_err(), "they are not joined yet");

    add_port(&switch, "j0", &["type=internal"])?;
    on_host(&switch, "ip link set j0 master lbr up")?;
    talk().context("by an internal port")?;
    let learned = switch.appctl(&["fdb/show", "br0"])?;
    let port = switch.ofport("j0")?.to_string();
    ensure!(learned.lines().any(|l| l.split_whitespace().next() == Some(&port)), "{learned}");
    switch.ctl(&["del-port", "br0", "j0"])?;

    on_host(&switch, "ip link add j1 type veth peer name j1p")?;
    on_host(&switch, "ip link set j1 up")?;
    on_host(&switch, "ip link set j1p master lbr up")?;
    add_port(&switch, "j1", &["type=system"])?;
    talk().context("by veth")?;
    switch.check_alive()
}

/// Two switches on two hosts, whose NICs `w` are the ends of a wire, with a namespace behind each.
fn two_hosts(kind: &str) -> Result<()> {
    let mut hosts = [start()?, start()?];
    let pid = hosts[1].daemon().id();
    on_host(&hosts[0], &format!("ip link add w type veth peer name w netns {pid}"))?;
    let behind = [Namespace::new()?, Namespace::new()?];
    for (n, (host, namespace)) in hosts.iter().zip(&behind).enumerate() {
        on_host(host, "ip link set w up")?;
        if kind == "afxdp" {
            // What goes over a real wire has its checksums.
            on_host(host, "ethtool -K w tx off")?;
        }
        add_port(host, "w", &[&format!("type={kind}")])?;
        add_port(host, "int0", &["type=internal"])?;
        give(host, "int0", namespace, &format!("10.3.0.{}", n + 1))?;
    }
    behind[0].run(&format!("{PING} 10.3.0.2"))?;
    behind[1].run(&format!("{PING} -s 8000 10.3.0.1"))?;
    let _server = serve(&hosts[1], &behind[1])?;
    iperf(&behind[0], "10.3.0.2")?;
    for host in &mut hosts {
        let learned = host.appctl(&["fdb/show", "br0"])?;
        let wire = host.ofport("w")?.to_string();
        ensure!(learned.lines().any(|l| l.split_whitespace().next() == Some(&wire)), "{learned}");
        host.check_alive()?;
    }
    Ok(())
}

#[test]
fn two_switches_are_joined_by_packet_sockets_on_a_wire() -> Result<()> {
    let _alone = alone();
    two_hosts("system")
}

#[test]
fn two_switches_are_joined_by_af_xdp_on_a_wire() -> Result<()> {
    let _alone = alone();
    two_hosts("afxdp")
}

/// Who reaches whom: true where a ping is answered.
fn check_table(what: &str, table: &[(&str, u32, &str, bool)]) -> Result<()> {
    for (name, pid, to, reaches) in table {
        let count = if *reaches { PING } else { "ping -c 1 -W 1" };
        match (run_beside(*pid, &format!("{count} {to}")), reaches) {
            (Ok(_), true) | (Err(_), false) => {}
            (Ok(_), false) => bail!("{what}: {name} reaches {to}"),
            (Err(e), true) => return Err(e.context(format!("{what}: {name} to {to}"))),
        }
    }
    Ok(())
}

/// A host with an address on its NIC, which the switch has too: with a packet socket both have the wire,
/// though not each other; what AF_XDP takes, the host does not see.
#[test]
fn a_nic_is_shared_with_the_host_by_packet_sockets_and_taken_over_by_af_xdp() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let (peer, vm) = (Namespace::new()?, Namespace::new()?);
    wire(&switch, "nic", &peer, "wire", "5.5.5.11")?;
    peer.run("ethtool -K wire tx off")?;
    on_host(&switch, "ip addr add 5.5.5.22/24 dev nic")?;
    add_port(&switch, "int0", &["type=internal"])?;
    give(&switch, "int0", &vm, "5.5.5.44")?;
    let host = switch.daemon().id();
    let table = |with_host: bool| {
        [
            ("peer", peer.pid(), "5.5.5.22", with_host),
            ("peer", peer.pid(), "5.5.5.44", true),
            ("host", host, "5.5.5.11", with_host),
            ("host", host, "5.5.5.44", false),
            ("vm", vm.pid(), "5.5.5.11", true),
            ("vm", vm.pid(), "5.5.5.22", false),
        ]
    };
    add_port(&switch, "nic", &["type=system"])?;
    check_table("as an ordinary netdev", &table(true))?;
    switch.ctl(&["set", "Interface", "nic", "type=afxdp"])?;
    peer.run("ip neigh flush dev wire")?;
    on_host(&switch, "ip neigh flush dev nic")?;
    check_table("taken over", &table(false))?;
    switch.ctl(&["del-port", "br0", "nic"])?;
    peer.run("ip neigh flush dev wire")?;
    on_host(&switch, "ip neigh flush dev nic")?;
    peer.run(&format!("{PING} 5.5.5.22")).context("given back")?;
    switch.check_alive()
}

#[test]
fn a_guest_and_its_host_talk_in_super_frames() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let port = switch.add_vhost_port("br0", "vm", SocketMode::SwitchConnects)?;
    let mut vm = Guest::start(0, &port, &guest::Options::default())?;
    let other = Namespace::new()?;
    add_port(&switch, "int0", &["type=internal"])?;
    give(&switch, "int0", &other, "10.9.0.100")?;
    // The host itself, by the bridge's own port.
    on_host(&switch, "ip addr add 10.9.0.101/24 dev br0")?;
    on_host(&switch, "ip link set br0 up")?;
    vm.wait_booted()?;
    let address = guest::address(0);
    vm.run(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"))?;
    switch.wait_link_up(&["vm"], LINK_LIMIT)?;
    let features = vm.run("ethtool -k eth0")?;
    ensure!(features.contains("tcp-segmentation-offload: on"), "{features}");
    on_host(&switch, &format!("{PING} {address}"))?;
    other.run(&format!("{PING} -s 8000 {address}"))?;
    vm.run("ping -c 3 -W 2 10.9.0.101")?;
    vm.run("iperf3 -s -D")?;
    for namespace in [other.pid(), switch.daemon().id()] {
        for way in ["", " -R"] {
            let line = format!("timeout 60 iperf3 -f m -t 2 -c {address}{way}");
            // Between two runs the server closes its socket for a moment, and resets who came too early.
            let report = wait::until(&line, LIMIT, || Ok(run_beside(namespace, &line).ok()))?;
            println!("{line}: {}", received(&report)?);
        }
    }
    for (port, counter) in [("vm", "rx_super_frames"), ("vm", "tx_super_frames")] {
        wait::until(&format!("{counter} of {port}"), LIMIT, || {
            Ok((switch.statistics(port)?.get(counter) > Some(&20)).then_some(()))
        })?;
    }
    switch.check_alive()
}
