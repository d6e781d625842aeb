//! The host's side: its stack on bridges' own ports and on internal ports, netdevs with namespaces behind
//! them, and what the database says of links. The peer is Linux's own stack.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::netns::{Namespace, give, on_host, wire};
use lab::switch::{Kind, Switch};
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
    let add = if settings.is_empty() { &set[..3] } else { &set[..] };
    switch.ctl(&[add, settings].concat()).map(drop)
}

/// Waits until a column is as expected; returns how long that took.
fn wait_column(switch: &Switch, name: &str, column: &str, value: &str) -> Result<Duration> {
    let began = Instant::now();
    let what = format!("{column} of {name} to be {value}");
    wait::until(&what, LIMIT, || {
        Ok((switch.interface(name, column)?.trim_matches('"') == value).then_some(()))
    })?;
    Ok(began.elapsed())
}

/// The Ethernet address of a netdev, from `ip -br link`.
fn mac(brief: &str) -> Result<String> {
    Ok(brief.split_whitespace().nth(2).context("no address")?.to_owned())
}

#[test]
fn the_hosts_stack_reaches_namespaces_through_the_bridges_own_port() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let far = Namespace::new()?;
    on_host(&switch, "ip addr add 10.1.0.1/24 dev br0")?;
    wait_column(&switch, "br0", "admin_state", "down")?;
    on_host(&switch, "ip link set br0 up")?;
    wait_column(&switch, "br0", "link_state", "up")?;
    add_port(&switch, "int0", &["type=internal", "mtu_request=9000"])?;
    ensure!(on_host(&switch, "ip link show int0")?.contains("mtu 9000"));
    switch.ctl(&["set", "Interface", "br0", "mtu_request=9000"])?;
    give(&switch, "int0", &far, "10.1.0.2")?;
    on_host(&switch, &format!("{PING} 10.1.0.2"))?;
    far.run(&format!("{PING} -s 8000 10.1.0.1"))?;

    // What stays when the daemon is killed: names and addresses of the devices, not the devices.
    let before = mac(&on_host(&switch, "ip -br link show br0")?)?;
    let own = switch.interface("int0", "mac_in_use")?;
    ensure!(switch.interface("br0", "mac_in_use")?.contains(&before));
    ensure!(mac(&far.run("ip -br link show int0")?)? == own.trim_matches('"'));
    switch.kill()?;
    ensure!(!far.run("ip -br link")?.contains("int0"), "it goes with the process");
    switch.restart()?;
    wait_column(&switch, "int0", "ofport", "1")?;
    ensure!(mac(&on_host(&switch, "ip -br link show br0")?)? == before);
    ensure!(switch.interface("int0", "mac_in_use")? == own);

    on_host(&switch, "ip addr add 10.1.0.1/24 dev br0")?;
    on_host(&switch, "ip link set br0 up")?;
    give(&switch, "int0", &far, "10.1.0.2")?;
    on_host(&switch, &format!("{PING} 10.1.0.2"))?;
    switch.ctl(&["del-port", "br0", "int0"])?;
    ensure!(!far.run("ip -br link")?.contains("int0"), "it goes with its port");
    switch.ctl(&["del-br", "br0"])?;
    ensure!(!on_host(&switch, "ip -br link")?.contains("br0"));
    switch.check_alive()
}

#[test]
fn devices_of_the_switch_have_the_lowest_mtu_of_their_bridge() -> Result<()> {
    let _alone = alone();
    let switch = start()?;
    let mtu = |name: &str, value: &str| wait_column(&switch, name, "mtu", value).map(drop);
    add_port(&switch, "int0", &["type=internal"])?;
    add_port(&switch, "int1", &["type=internal", "mtu_request=1700"])?;
    // One that asks counts, those that do not follow.
    mtu("int0", "1700")?;
    mtu("br0", "1700")?;
    on_host(&switch, "ip link add v0 type veth peer name v0p")?;
    on_host(&switch, "ip link set v0 mtu 1400")?;
    add_port(&switch, "v0", &[])?;
    mtu("int0", "1400")?;
    mtu("int1", "1700")?;
    on_host(&switch, "ip link set v0 mtu 1450")?;
    mtu("int0", "1450")?;
    ensure!(on_host(&switch, "ip link show br0")?.contains("mtu 1450"));
    // The host may have less, not more.
    on_host(&switch, "ip link set int0 mtu 1300")?;
    mtu("int0", "1300")?;
    on_host(&switch, "ip link set int0 mtu 1600")?;
    mtu("int0", "1450")?;
    switch.ctl(&["del-port", "br0", "v0", "--", "clear", "Interface", "int1", "mtu_request"])?;
    for name in ["int0", "int1", "br0"] {
        mtu(name, "1500")?;
    }
    Ok(())
}

/// As in OVS: whoever changes it, and whether the device goes and comes.
#[test]
fn an_mtu_that_is_asked_for_is_set_again() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let far = Namespace::new()?;
    let linux_has = |name: &str, mtu: u32| {
        wait::until(&format!("an MTU of {mtu} of {name}"), LIMIT, || {
            let shown = on_host(&switch, &format!("ip link show {name}"));
            Ok(shown.is_ok_and(|text| text.contains(&format!("mtu {mtu} "))).then_some(()))
        })
    };
    let veth = "ip link add v0 type veth peer name v0p";
    on_host(&switch, veth)?;
    add_port(&switch, "v0", &["mtu_request=1400"])?;
    add_port(&switch, "int0", &["type=internal", "mtu_request=1350"])?;
    for other in [1300, 1450] {
        on_host(&switch, &format!("ip link set v0 mtu {other}"))?;
        on_host(&switch, &format!("ip link set int0 mtu {other}"))?;
        linux_has("v0", 1400)?;
        linux_has("int0", 1350)?;
    }
    // Elsewhere it is that host's, until it is back.
    on_host(&switch, &format!("ip link set int0 netns {}", far.pid()))?;
    far.run("ip link set int0 mtu 1200")?;
    wait_column(&switch, "int0", "mtu", "1200")?;
    far.run(&format!("ip link set int0 netns {}", switch.daemon().id()))?;
    linux_has("int0", 1350)?;
    wait_column(&switch, "int0", "mtu", "1350")?;
    for name in ["v0", "int0"] {
        on_host(&switch, &format!("ip link del {name}"))?;
    }
    linux_has("int0", 1350)?;
    on_host(&switch, veth)?;
    linux_has("v0", 1400)?;
    let log = switch.daemon().log_from(0)?;
    let again = log.matches("mtu_request=1350 is set again").count();
    ensure!((2..20).contains(&again), "{log}");
    switch.check_alive()
}

#[test]
fn devices_are_followed_into_other_namespaces() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let far = Namespace::new()?;
    add_port(&switch, "int0", &["type=internal"])?;
    on_host(&switch, "ip link set int0 up")?;
    wait_column(&switch, "int0", "link_state", "up")?;
    let index = switch.interface("int0", "ifindex")?;
    on_host(&switch, &format!("ip link set int0 netns {}", far.pid()))?;
    let steps = [
        // It arrives down.
        ("ip addr show int0", "admin_state", "down"),
        ("ip addr show int0", "link_state", "down"),
        ("ip link set int0 up", "admin_state", "up"),
        ("ip addr show int0", "link_state", "up"),
        ("ip link set int0 mtu 1300", "mtu", "1300"),
        ("ip link set int0 address 02:00:00:00:00:77", "mac_in_use", "02:00:00:00:00:77"),
        ("ip link set int0 down", "link_state", "down"),
        ("ip link set int0 up", "link_state", "up"),
    ];
    for (command, column, value) in steps {
        far.run(command)?;
        let took = wait_column(&switch, "int0", column, value)?;
        println!("{command}: in the database after {took:?}");
        ensure!(took < Duration::from_secs(2), "{took:?}");
    }
    ensure!(switch.interface("int0", "status:namespace")?.contains("another"));
    // What is sent to a device that is down is dropped here, and counted.
    far.run("ip link set int0 down")?;
    wait_column(&switch, "int0", "link_state", "down")?;
    let pid = switch.daemon().id();
    far.run(&format!("ip link set int0 netns {pid}"))?;
    on_host(&switch, "ip link set int0 up")?;
    wait_column(&switch, "int0", "link_state", "up")?;
    ensure!(!switch.interface("int0", "status")?.contains("namespace"), "it is back");
    // Away again, on to a third namespace under another name, to a fourth, and back, where its number is somebody's now.
    let others = [Namespace::new()?, Namespace::new()?];
    let mut at = &far;
    on_host(&switch, &format!("ip link set int0 netns {}", far.pid()))?;
    for (round, to) in others.iter().enumerate() {
        wait_column(&switch, "int0", "link_state", "down")?;
        at.run("ip link set int0 up")?;
        wait_column(&switch, "int0", "link_state", "up")?;
        at.run(&format!("ip link set int0 netns {}", to.pid()))?;
        let took = wait_column(&switch, "int0", "admin_state", "down")?;
        println!("move {round}: in the database after {took:?}");
        let mtu = 1400 + round;
        to.run(&format!("ip link set int0 up mtu {mtu}"))?;
        wait_column(&switch, "int0", "mtu", &mtu.to_string())?;
        wait_column(&switch, "int0", "link_state", "up")?;
        to.run("ip link set int0 down")?;
        at = to;
    }
    wait_column(&switch, "int0", "link_state", "down")?;
    on_host(&switch, &format!("ip link add other index {index} type veth peer name otherp"))?;
    at.run(&format!("ip link set int0 netns {pid}"))?;
    on_host(&switch, "ip link set int0 up mtu 1450")?;
    wait_column(&switch, "int0", "mtu", "1450")?;
    ensure!(switch.interface("int0", "ifindex")? != index);
    give(&switch, "int0", &far, "10.1.0.2")?;
    on_host(&switch, "ip addr add 10.1.0.1/24 dev br0")?;
    on_host(&switch, "ip link set br0 up")?;
    on_host(&switch, &format!("{PING} 10.1.0.2"))?;
    switch.check_alive()
}

#[test]
fn devices_that_the_host_deletes_are_made_again() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    add_port(&switch, "int0", &["type=internal"])?;
    let is_new = |why: &str, before: &str| {
        wait::until(&format!("a new int0 after {why}"), LIMIT, || {
            let now = switch.interface("int0", "ifindex")?;
            Ok((now != before && now != "0" && now != "[]").then_some(now))
        })
    };
    let first = switch.interface("int0", "ifindex")?;
    on_host(&switch, "ip link del int0")?;
    let second = is_new("it was deleted", &first)?;
    on_host(&switch, "ip link show int0")?;
    // As when a container ends with its device.
    let container = Namespace::new()?;
    on_host(&switch, &format!("ip link set int0 netns {}", container.pid()))?;
    wait::until("int0 to be seen elsewhere", LIMIT, || {
        Ok(switch.interface("int0", "status")?.contains("another").then_some(()))
    })?;
    drop(container);
    is_new("its namespace ended", &second)?;
    on_host(&switch, "ip link set int0 up")?;
    wait_column(&switch, "int0", "link_state", "up")?;
    on_host(&switch, "ip link del br0")?;
    wait::until("a new br0", LIMIT, || Ok(on_host(&switch, "ip link show br0").ok()))?;
    switch.check_alive()
}

#[test]
fn tcp_passes_in_super_frames() -> Result<()> {
    let _alone = alone();
    let switch = start()?;
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    add_port(&switch, "int0", &["type=internal"])?;
    give(&switch, "int0", &near, "10.1.0.1")?;
    wire(&switch, "v0", &far, "v0p", "10.1.0.2")?;
    add_port(&switch, "v0", &[])?;
    near.run(&format!("{PING} 10.1.0.2"))?;
    let log = switch.rundir().join("iperf.log");
    let mut server = far.start("iperf3 -s --forceflush", &log)?;
    server.wait_log("listening", LIMIT, 0, |t| t.contains("listening").then_some(()))?;
    iperf(&near, "iperf3 -t 1 -c 10.1.0.2")?;
    iperf(&near, "iperf3 -t 1 -R -c 10.1.0.2")?;
    for port in ["int0", "v0"] {
        let passed = |counter: &str| -> Result<Option<()>> {
            let n = switch.statistics(port)?.get(counter).copied();
            Ok(n.is_some_and(|n| n > 100).then_some(()))
        };
        for counter in ["rx_super_frames", "tx_super_frames"] {
            wait::until(&format!("{counter} of {port}"), LIMIT, || passed(counter))?;
        }
        let dropped = switch.statistics(port)?.get("rx_invalid_hwol_drops").copied();
        ensure!(dropped == Some(0), "{port}: {dropped:?}");
    }
    // Without offloads the host cuts its own frames, and a netdev's are cut here.
    switch.ctl(&["set", "Interface", "int0", "options:userspace-csum-enable=false"])?;
    iperf(&near, "iperf3 -t 1 -c 10.1.0.2")
}

/// A server that is not done with the run before refuses another, which is then tried again.
fn iperf(from: &Namespace, line: &str) -> Result<()> {
    wait::until(line, LIMIT, || match from.run(line) {
        Err(e) if ["refused", "busy", "reset"].iter().any(|w| e.to_string().contains(w)) => {
            Ok(None)
        }
        done => done.map(|_| Some(())),
    })
}

#[test]
fn a_netdev_that_goes_and_comes_is_followed() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let far = Namespace::new()?;
    switch.ctl(&["--no-wait", "add-port", "br0", "v0"])?;
    wait_column(&switch, "v0", "error", "the host has no netdev v0")?;
    add_port(&switch, "int0", &["type=internal"])?;
    on_host(&switch, "ip link add v0 type veth peer name v0p")?;
    wait_column(&switch, "v0", "error", "[]")?;
    wait_column(&switch, "v0", "admin_state", "down")?;
    on_host(&switch, "ip link set v0p up")?;
    let steps = [
        ("ip link set v0 up", "admin_state", "up"),
        ("ip link set v0 mtu 1400", "mtu", "1400"),
        ("ip link set v0 address 02:00:00:00:00:77", "mac_in_use", "02:00:00:00:00:77"),
        ("ip link set v0p down", "link_state", "down"),
        ("ip link set v0p up", "link_state", "up"),
    ];
    for (command, column, value) in steps {
        on_host(&switch, command)?;
        let took = wait_column(&switch, "v0", column, value)?;
        println!("{command}: in the database after {took:?}");
        ensure!(took < Duration::from_secs(2), "{took:?}");
    }
    ensure!(switch.interface("v0", "link_resets")?.parse::<u64>()? >= 2);
    ensure!(switch.interface("v0", "ifindex")?.parse::<u64>()? > 1);
    switch.ctl(&["set", "Interface", "v0", "mtu_request=1300"])?;
    ensure!(on_host(&switch, "ip link show v0")?.contains("mtu 1300"));

    on_host(&switch, "ip link del v0")?;
    wait_column(&switch, "v0", "error", "the host has no netdev v0")?;
    wait_column(&switch, "v0", "ofport", "-1")?;
    give(&switch, "int0", &far, "10.1.0.1")?;
    let other = Namespace::new()?;
    wire(&switch, "v0", &other, "v0p", "10.1.0.2")?;
    wait_column(&switch, "v0", "error", "[]")?;
    far.run(&format!("{PING} 10.1.0.2"))?;
    switch.check_alive()
}

#[test]
fn a_device_that_the_host_has_already_is_not_taken() -> Result<()> {
    let _alone = alone();
    let switch = start()?;
    on_host(&switch, "ip link add taken type veth peer name other")?;
    // Which others could read from.
    on_host(&switch, "ip tuntap add dev shared mode tap multi_queue")?;
    for name in ["taken", "shared"] {
        let before = mac(&on_host(&switch, &format!("ip -br link show {name}"))?)?;
        let add = ["--no-wait", "add-port", "br0", name, "--", "set", "Interface", name];
        switch.ctl(&[&add[..], &["type=internal"]].concat())?;
        wait_column(&switch, name, "ofport", "-1")?;
        let error = switch.interface(name, "error")?;
        ensure!(error.contains(&format!("the host has a {name} already")), "{error}");
        ensure!(on_host(&switch, &format!("ip -br link show {name}"))?.contains(&before));
        on_host(&switch, &format!("ip link del {name}"))?;
        wait_column(&switch, name, "error", "[]")?;
    }
    Ok(())
}

#[test]
fn patches_join_bridges() -> Result<()> {
    let _alone = alone();
    let switch = start()?;
    switch.add_bridge("br1")?;
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    add_port(&switch, "int0", &["type=internal"])?;
    switch.ctl(&["add-port", "br1", "int1", "--", "set", "Interface", "int1", "type=internal"])?;
    give(&switch, "int0", &near, "10.1.0.1")?;
    give(&switch, "int1", &far, "10.1.0.2")?;
    let patch = |bridge: &str, name: &str, peer: &str| {
        let peer = format!("options:peer={peer}");
        let set = ["--", "set", "Interface", name, "type=patch", &peer];
        switch.ctl(&[&["--no-wait", "add-port", bridge, name], &set[..]].concat())
    };
    patch("br0", "one", "other")?;
    wait_column(&switch, "one", "link_state", "up")?;
    ensure!(near.run("ping -c 1 -W 1 10.1.0.2").is_err(), "the peer is not there yet");
    patch("br1", "other", "one")?;
    wait_column(&switch, "other", "ofport", "2")?;
    near.run(&format!("{PING} 10.1.0.2"))?;
    let megaflows = switch.appctl(&["dpctl/dump-flows"])?;
    ensure!(!megaflows.contains("recirc("), "one look-up for both bridges:\n{megaflows}");
    let shown = switch.appctl(&["dpif/show"])?;
    ensure!(shown.contains("    one 2/none: (patch: peer=other)\n"), "{shown}");
    for (port, counter) in [("one", "tx_packets"), ("other", "rx_packets"), ("one", "rx_packets")] {
        wait::until(&format!("{counter} of {port}"), LIMIT, || {
            Ok((switch.statistics(port)?.get(counter) > Some(&2)).then_some(()))
        })?;
    }
    patch("br0", "self", "self")?;
    wait_column(&switch, "self", "error", "patch peer must not be self")?;
    Ok(())
}

#[test]
fn jumbo_frames_pass_af_xdp_in_several_parts() -> Result<()> {
    let _alone = alone();
    let switch = start()?;
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    for (name, to, address) in [("v0", &near, "10.1.0.1"), ("v1", &far, "10.1.0.2")] {
        wire(&switch, name, to, &format!("{name}p"), address)?;
        to.run(&format!("ip link set {name}p mtu 9000"))?;
        add_port(&switch, name, &["type=afxdp", "mtu_request=9000"])?;
        wait_column(&switch, name, "mtu", "9000")?;
    }
    // With the IP header and ICMP's, exactly the MTU.
    near.run(&format!("{PING} -M do -s 8972 10.1.0.2"))?;
    let log = switch.rundir().join("iperf.log");
    let mut server = near.start("iperf3 -s --forceflush", &log)?;
    server.wait_log("listening", LIMIT, 0, |t| t.contains("listening").then_some(()))?;
    far.run("timeout 20 iperf3 -t 1 -c 10.1.0.1")?;
    ensure!(switch.interface("v0", "error")? == "[]");
    // Frames beyond a smaller MTU are not sent.
    switch.ctl(&["set", "Interface", "v1", "mtu_request=8000"])?;
    wait_column(&switch, "v1", "mtu", "8000")?;
    ensure!(near.run("ping -c 1 -W 1 -M do -s 8972 10.1.0.2").is_err());
    near.run(&format!("{PING} -M do -s 7972 10.1.0.2"))?;
    wait::until("a drop", LIMIT, || {
        let dropped = switch.statistics("v1")?.get("ovs_tx_mtu_exceeded_drops").copied();
        Ok(dropped.is_some_and(|n| n > 0).then_some(()))
    })
}

#[test]
fn a_port_gives_up_queues_while_it_runs() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let queues = "numrxqueues 2 numtxqueues 2";
    on_host(&switch, &format!("ip link add v0 {queues} type veth peer name far {queues}"))?;
    on_host(&switch, "ip link set v0 up")?;
    add_port(&switch, "v0", &["type=afxdp", "options:n_rxq=2"])?;
    for n in ["1", "2", "1"] {
        switch.ctl(&["set", "Interface", "v0", &format!("options:n_rxq={n}")])?;
        let (error, ofport) = (switch.interface("v0", "error")?, switch.interface("v0", "ofport")?);
        ensure!(error == "[]" && ofport != "-1", "{n} queues: {error}");
    }
    switch.check_alive()
}

/// What keeps a netdev's queues from being had is told in the row, and over when its cause is.
#[test]
fn af_xdp_heals_when_what_is_in_its_way_goes() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    wire(&switch, "v0", &near, "v0p", "10.1.0.1")?;
    add_port(&switch, "int0", &["type=internal"])?;
    give(&switch, "int0", &far, "10.1.0.2")?;
    let set = |setting: &str| switch.ctl(&["--no-wait", "set", "Interface", "v0", setting]);
    let wait_error = |what: &str| {
        wait::until(&format!("an error about {what}"), LIMIT, || {
            Ok(switch.interface("v0", "error")?.contains(what).then_some(()))
        })
    };

    // Another's program.
    let host = std::fs::File::open(format!("/proc/{}/ns/net", switch.daemon().id()))?;
    let (done, wait_done) = std::sync::mpsc::channel::<()>();
    let (opened, wait_opened) = std::sync::mpsc::channel();
    let index = first_number(&on_host(&switch, "ip -o link show v0")?)?;
    let other = std::thread::spawn(move || -> Result<()> {
        let network = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&host), Some(network))?;
        let port = port_xdp::XdpPort::open(&port_xdp::Config {
            rx_size: 64,
            tx_size: 64,
            long_frames: false,
            ..port_xdp::Config::new("other", index)
        });
        opened.send(port.is_ok())?;
        let _ = wait_done.recv();
        port.map(drop).map_err(Into::into)
    });
    ensure!(wait_opened.recv()?, "the other program is not there");
    switch.ctl(&["--no-wait", "add-port", "br0", "v0"])?;
    set("type=afxdp")?;
    wait_error("another XDP program is attached")?;
    drop(done);
    other.join().map_err(|_| anyhow::anyhow!("the other one panicked"))??;
    wait_column(&switch, "v0", "error", "[]")?;
    near.run(&format!("{PING} 10.1.0.2"))?;

    // More queues than there can be, and then as many as are made.
    set("options:n_rxq=16")?;
    wait_error("queues at most")?;
    near.run("ethtool -L v0p rx 2 tx 1")?;
    set("options:n_rxq=2")?;
    wait_column(&switch, "v0", "error", "[]")?;
    wait_column(&switch, "v0", "status:netdev_rxq", "2")?;
    wait_column(&switch, "v0", "status:n_rxq", "2")?;
    near.run(&format!("{PING} 10.1.0.2"))?;

    // It goes, and one without XDP comes.
    on_host(&switch, "ip link del v0")?;
    wait_error("the host has no netdev v0")?;
    set("options:xdp-mode=native")?;
    switch.ctl(&["--no-wait", "remove", "Interface", "v0", "options", "n_rxq"])?;
    on_host(&switch, "ip link add v0 type bridge")?;
    wait_error("the driver has no XDP")?;
    set("options:xdp-mode=best-effort")?;
    wait_column(&switch, "v0", "error", "[]")?;
    wait_column(&switch, "v0", "status:xdp-mode", "generic")?;
    switch.check_alive()
}

/// The number that a line begins with.
fn first_number(line: &str) -> Result<u32> {
    let digits = line.split(':').next().context("an empty line")?;
    digits.trim().parse().with_context(|| line.to_owned())
}

#[test]
fn queues_of_netdevs_are_polled_through_af_xdp() -> Result<()> {
    let _alone = alone();
    let mut switch = start()?;
    let (near, far, third) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    for (name, to, address) in [("v0", &near, "10.1.0.1"), ("v1", &far, "10.1.0.2")] {
        // A veth pair leaves checksums to its other end: they are completed here.
        wire(&switch, name, to, &format!("{name}p"), address)?;
    }
    add_port(&switch, "v0", &["type=afxdp"])?;
    add_port(&switch, "v1", &["type=afxdp", "options:xdp-mode=generic"])?;
    add_port(&switch, "int0", &["type=internal"])?;
    give(&switch, "int0", &third, "10.1.0.3")?;
    for (port, mode) in [("v0", "native"), ("v1", "generic")] {
        ensure!(switch.ctl(&["get", "Interface", port, "status:xdp-mode"])?.contains(mode));
    }
    for (from, to) in [(&near, "10.1.0.2"), (&near, "10.1.0.3"), (&third, "10.1.0.2")] {
        from.run(&format!("{PING} {to}"))?;
    }
    let log = switch.rundir().join("iperf.log");
    let mut server = near.start("iperf3 -s --forceflush", &log)?;
    server.wait_log("listening", LIMIT, 0, |t| t.contains("listening").then_some(()))?;
    // From another netdev, and from the host in super-frames that are cut.
    for from in [&far, &third] {
        iperf(from, "timeout 20 iperf3 -t 1 -c 10.1.0.1")?;
    }
    // It is the repair that does it.
    switch.ctl(&["set", "Interface", "v0", "options:rx-csum-repair=false"])?;
    ensure!(far.run("timeout 2 iperf3 -t 1 -c 10.1.0.1").is_err(), "checksums came whole");
    switch.ctl(&["remove", "Interface", "v0", "options", "rx-csum-repair"])?;
    iperf(&third, "timeout 20 iperf3 -t 1 -c 10.1.0.1")?;
    wait::until("segments", LIMIT, || {
        Ok((switch.statistics("v0")?.get("tx_sw_segments") > Some(&100)).then_some(()))
    })?;
    let shown = switch.appctl(&["dpif-netdev/pmd-rxq-show"])?;
    ensure!(shown.contains("port: v0") && !shown.contains("port: int0"), "{shown}");

    let attached = |switch: &Switch| -> Result<bool> {
        Ok(on_host(switch, "ip link show v0")?.contains("xdp"))
    };
    ensure!(attached(&switch)?);
    switch.ctl(&["set", "Interface", "v0", "type=system"])?;
    wait_column(&switch, "v0", "error", "[]")?;
    ensure!(!attached(&switch)?, "the program goes with its port");
    near.run(&format!("{PING} 10.1.0.2"))?;
    switch.ctl(&["set", "Interface", "v0", "type=afxdp"])?;
    near.run(&format!("{PING} 10.1.0.2"))?;
    switch.ctl(&["--no-wait", "set", "Interface", "v0", "options:n_rxq=9"])?;
    wait::until("an error", LIMIT, || {
        Ok(switch.interface("v0", "error")?.contains("queue").then_some(()))
    })?;
    switch.ctl(&["remove", "Interface", "v0", "options", "n_rxq"])?;
    near.run(&format!("{PING} 10.1.0.2"))?;
    switch.check_alive()
}
