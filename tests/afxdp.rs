//! AF_XDP ports beside DPDK's driver for the same sockets (`net_af_xdp`), which counts what it sends and receives,
//! and what may be wrong on a host while they run.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::netns::{Namespace, on_host};
use lab::process;
use lab::switch::{BIN_DIR_VARIABLE, Kind, Switch};
use lab::testpmd::Testpmd;
use lab::{alone, guest, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// Frames that testpmd sends at once, `tx_first`: bursts of 32. Fewer than any ring on the way has room for: a veth's
/// own, of 256, is the smallest.
const BURSTS: u64 = 4;
const FRAMES: u64 = BURSTS * 32;
const REPEATS: u64 = 5;

fn add_port(switch: &Switch, name: &str, settings: &[&str]) -> Result<()> {
    let set = ["--no-wait", "add-port", "br0", name, "--", "set", "Interface", name];
    switch.ctl(&[&set, settings].concat()).map(drop)
}

fn wait_column(switch: &Switch, name: &str, column: &str, what: &str) -> Result<()> {
    wait::until(&format!("{column} of {name} to have {what}"), LIMIT, || {
        Ok(switch.interface(name, column)?.contains(what).then_some(()))
    })
}

fn wait_healthy(switch: &Switch, name: &str) -> Result<()> {
    wait::until(&format!("{name} to have no error"), LIMIT, || {
        Ok((switch.interface(name, "error")? == "[]").then_some(()))
    })
}

/// A veth pair without frames of its own: no IPv6.
fn quiet_wire(switch: &Switch, name: &str, to: &Namespace) -> Result<()> {
    let off = "sysctl -q -w net.ipv6.conf.default.disable_ipv6=1";
    on_host(switch, off)?;
    to.run(off)?;
    let pid = to.pid();
    on_host(switch, &format!("ip link add {name} type veth peer name {name}p netns {pid}"))?;
    on_host(switch, &format!("ip link set {name} up"))?;
    to.run(&format!("ip link set {name}p up")).map(drop)
}

#[test]
fn every_frame_of_dpdks_driver_comes_out_at_the_other_port() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    let far = Namespace::new()?;
    for name in ["xe0", "xe1"] {
        quiet_wire(&switch, name, &far)?;
        add_port(&switch, name, &["type=afxdp"])?;
        wait_column(&switch, name, "status", "native")?;
    }
    let (one, other) = (switch.ofport("xe0")?, switch.ofport("xe1")?);
    let flows =
        format!("in_port={one},actions=output:{other}\nin_port={other},actions=output:{one}\n");
    switch.set_flows("br0", &flows)?;
    let mut testpmd = Testpmd::on_netdevs(&far, &["xe0p", "xe1p"], 1)?;
    testpmd.command("set fwd rxonly")?;
    for round in 1..=REPEATS {
        testpmd.command(&format!("start tx_first {BURSTS}"))?;
        let mut counters = Vec::new();
        let came = wait::until("all frames at both ports", LIMIT, || {
            counters = testpmd.counters()?;
            Ok(counters.iter().all(|c| c.rx_packets >= round * FRAMES).then_some(()))
        });
        ensure!(came.is_ok(), "round {round}: {counters:?}");
        testpmd.stop_forwarding()?;
    }
    for (port, counters) in testpmd.counters()?.iter().enumerate() {
        let all = (counters.rx_packets, counters.tx_packets);
        ensure!(all == (REPEATS * FRAMES, REPEATS * FRAMES), "port {port}: {counters:?}");
        ensure!(counters.rx_bytes == counters.tx_bytes, "port {port}: {counters:?}");
    }
    for name in ["xe0", "xe1"] {
        wait::until(&format!("{name} to have counted all"), LIMIT, || {
            let statistics = switch.statistics(name)?;
            let counts = |key| statistics.get(key) == Some(&(REPEATS * FRAMES));
            Ok((counts("rx_packets") && counts("tx_packets")).then_some(()))
        })?;
        let statistics = switch.statistics(name)?;
        ensure!(statistics.get("rx_dropped") == Some(&0), "{name}: {statistics:?}");
        ensure!(statistics.get("tx_dropped") == Some(&0), "{name}: {statistics:?}");
    }
    switch.check_alive()
}

/// The daemon without the right to lock as much memory as it likes (CAP_IPC_LOCK).
#[test]
fn frames_that_cannot_be_locked_are_told_and_heal() -> Result<()> {
    let _alone = alone();
    let dir = tempfile::TempDir::new()?;
    let script = dir.path().join("vswitchd");
    let program = binary("vswitchd")?;
    let line = "exec prlimit --memlock=65536: setpriv --bounding-set -ipc_lock --";
    std::fs::write(&script, format!("#!/bin/sh\n{line} {} \"$@\"\n", program.display()))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;

    let mut switch = Switch::start_program(Kind::Ours, Some(script), 0x1, &[])?;
    switch.add_bridge("br0")?;
    let far = Namespace::new()?;
    quiet_wire(&switch, "xe0", &far)?;
    // Small rings: 2 MiB of frames, and as much for each mode that is tried first, until the kernel lets go of it.
    let settings = ["type=afxdp", "options:n_rxq_desc=64", "options:n_txq_desc=64"];
    add_port(&switch, "xe0", &settings)?;
    wait_column(&switch, "xe0", "error", "cannot be locked in memory")?;
    ensure!(switch.interface("xe0", "ofport")? == "-1");
    // Others are not disturbed.
    add_port(&switch, "int0", &["type=internal"])?;
    wait_column(&switch, "int0", "link_state", "down")?;
    wait_healthy(&switch, "int0")?;

    let pid = switch.daemon().id().to_string();
    let mut raise = process::command("prlimit");
    process::output(raise.args(["--pid", &pid, "--memlock=8388608:"]))?;
    wait_healthy(&switch, "xe0")?;
    wait_column(&switch, "xe0", "status", "native")?;
    switch.check_alive()
}

#[test]
fn the_netdev_keeps_the_queues_that_are_asked_for() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    let far = Namespace::new()?;
    quiet_wire(&switch, "xe0", &far)?;
    on_host(&switch, "ethtool -L xe0 rx 2 tx 2")?;
    far.run("ethtool -L xe0p rx 2 tx 2")?;
    add_port(&switch, "xe0", &["type=afxdp"])?;
    wait_column(&switch, "xe0", "status", "netdev_rxq=\"2\"")?;
    let log = switch.daemon().log_from(0)?;
    ensure!(log.contains("xe0 has 2 receive queues, and one is polled"), "{log}");
    switch.ctl(&["--no-wait", "set", "Interface", "xe0", "options:n_rxq=1"])?;
    wait_column(&switch, "xe0", "status", "netdev_rxq=\"1\"")?;
    far.run("ethtool -L xe0p rx 2 tx 1")?;
    on_host(&switch, "ethtool -L xe0 rx 2 tx 2")?;
    wait::until("one queue again", LIMIT, || {
        let shown = on_host(&switch, "ethtool -l xe0")?;
        let now = shown.split("Current").nth(1).unwrap_or_default();
        Ok(now.lines().any(|l| l.split_whitespace().eq(["RX:", "1"])).then_some(()))
    })?;
    wait_healthy(&switch, "xe0")?;
    switch.check_alive()
}

/// Receive and send queues of a netdev, as `ethtool -l` shows them now.
fn channels(shown: &str) -> [String; 2] {
    let now = shown.split("Current").nth(1).unwrap_or_default();
    ["RX:", "TX:"].map(|what| {
        let count = now.lines().find_map(|l| l.strip_prefix(what));
        count.unwrap_or_default().trim().to_owned()
    })
}

/// A veth receives natively with as many queues as its other end sends with, or more. Who asks for fewer is told the
/// number, and what could not be had leaves no traces.
#[test]
fn a_netdev_keeps_its_queues_when_its_port_cannot_be_opened() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    let two = "numrxqueues 2 numtxqueues 2";
    on_host(&switch, &format!("ip link add xe0 {two} type veth peer name xe0p {two}"))?;
    on_host(&switch, "ip link set xe0 up")?;
    on_host(&switch, "ip link set xe0p up")?;
    let has = |rx: &str, tx: &str| -> Result<()> {
        let has = channels(&on_host(&switch, "ethtool -l xe0")?);
        ensure!(has == [rx, tx], "{has:?}");
        Ok(())
    };
    has("2", "2")?;
    let native = "options:xdp-mode=native";
    add_port(&switch, "xe0", &["type=afxdp", native, "options:n_rxq=1"])?;
    wait_column(&switch, "xe0", "error", "that sends with 2, so options:n_rxq=2, or")?;
    has("2", "2")?;
    // As asked for, only not natively.
    switch.ctl(&["set", "Interface", "xe0", "options:xdp-mode=best-effort"])?;
    wait_healthy(&switch, "xe0")?;
    wait_column(&switch, "xe0", "status", "xdp-mode=generic")?;
    has("1", "1")?;
    let log = switch.daemon().log_from(0)?;
    ensure!(log.contains("native is not to be had: a veth"), "{log}");
    // What does it, it says; it heals by itself when the cause goes at the other end.
    switch.ctl(&["set", "Interface", "xe0", native, "options:n_rxq=2"])?;
    wait_healthy(&switch, "xe0")?;
    switch.ctl(&["--no-wait", "set", "Interface", "xe0", "options:n_rxq=1"])?;
    wait_column(&switch, "xe0", "error", "options:n_rxq=2")?;
    on_host(&switch, "ethtool -L xe0p tx 1")?;
    wait_healthy(&switch, "xe0")?;
    has("1", "1")?;
    switch.check_alive()
}

/// Nobody waits for queues that the kernel does not take back, and they are had as soon as it does.
#[test]
fn queues_that_are_not_to_be_had_keep_nobody_waiting() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    let far = Namespace::new()?;
    quiet_wire(&switch, "xe0", &far)?;
    add_port(&switch, "xe0", &["type=afxdp", "options:xdp-mode=native", "options:n_rxq=1"])?;
    wait_column(&switch, "xe0", "status", "native")?;
    // More queues than are asked for, and before they are taken back the other end sends to them all.
    let pid = switch.daemon().id().to_string();
    process::output(process::command("kill").args(["-STOP", &pid]))?;
    on_host(&switch, "ethtool -L xe0 rx 2 tx 1")?;
    far.run("ethtool -L xe0p tx 2")?;
    process::output(process::command("kill").args(["-CONT", &pid]))?;
    let change = |n: usize| {
        let id = format!("external_ids:n={n}");
        switch.ctl(&[
            "set",
            "Bridge",
            "br0",
            &format!("other_config:mac-aging-time={}", 100 + n),
        ])?;
        switch.ctl(&["set", "Interface", "xe0", &id])
    };
    change(0)?;
    wait_column(&switch, "xe0", "error", "does not take options:n_rxq=1")?;
    let began = std::time::Instant::now();
    for n in 1..=10 {
        change(n)?;
    }
    let took = began.elapsed();
    println!("ten changes: {took:?}");
    ensure!(took < Duration::from_secs(3), "300 ms each: {took:?}");
    far.run("ethtool -L xe0p tx 1")?;
    wait_healthy(&switch, "xe0")?;
    let has = channels(&on_host(&switch, "ethtool -l xe0")?);
    ensure!(has[0] == "1", "{has:?}");
    switch.check_alive()
}

/// A switch whose bridge's own port is a host, and another host at the far end of the wire of `xe0`, an AF_XDP port whose
/// `option` is off, refused when it is neither, and on at last.
fn two_hosts(option: &str) -> Result<(Switch, Namespace)> {
    let switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    let far = Namespace::new()?;
    quiet_wire(&switch, "xe0", &far)?;
    far.run("ip addr add 10.1.0.2/24 dev xe0p")?;
    on_host(&switch, "ip addr add 10.1.0.1/24 dev br0")?;
    on_host(&switch, "ip link set br0 up")?;
    add_port(&switch, "xe0", &["type=afxdp"])?;
    wait_column(&switch, "xe0", "status", &format!("{option}=\"false\""))?;
    let set = |value: &str| {
        let column = format!("options:{option}={value}");
        switch.ctl(&["--no-wait", "set", "Interface", "xe0", &column])
    };
    set("sometimes")?;
    wait_column(&switch, "xe0", "error", "neither true nor false")?;
    set("true")?;
    wait_healthy(&switch, "xe0")?;
    wait_column(&switch, "xe0", "status", &format!("{option}=\"true\""))?;
    Ok((switch, far))
}

/// With busy polling the same frames come.
#[test]
fn busy_polling_forwards_and_is_shown() -> Result<()> {
    let _alone = alone();
    let (mut switch, far) = two_hosts("xdp-busy-poll")?;
    far.run("ping -c 3 -i 0.1 -W 2 10.1.0.1")?;
    switch.check_alive()
}

/// A host's TCP, whose checksums are left to be done, ends at another host's stack with none of them completed in software.
#[test]
fn checksums_are_left_to_the_kernel_where_that_is_asked_for() -> Result<()> {
    let _alone = alone();
    let (mut switch, far) = two_hosts("xdp-tx-csum")?;
    let mut server = far.start("iperf3 -s --forceflush", &switch.rundir().join("iperf.log"))?;
    server.wait_log("listening", LIMIT, 0, |t| t.contains("listening").then_some(()))?;
    // Its last megabytes may be lost when it ends.
    on_host(&switch, "iperf3 -n 32M -c 10.1.0.2")?;
    let counted = wait::until("most bytes to be counted", LIMIT, || {
        let statistics = switch.statistics("xe0")?;
        let most = statistics.get("tx_bytes") >= Some(&(16 << 20));
        Ok(most.then_some(statistics))
    })?;
    ensure!(counted.get("tx_sw_checksums") == Some(&0), "{counted:?}");
    switch.check_alive()
}

/// What becomes of tags that a veth's peer leaves to the device is told, whatever the kernel and the mode can do.
#[test]
fn where_tags_are_is_shown_and_what_is_lost_is_told() -> Result<()> {
    let _alone = alone();
    let dir = tempfile::TempDir::new()?;
    let script = dir.path().join("vswitchd");
    // A kernel that does not say its functions' numbers.
    let lines = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let program = binary("vswitchd")?;
    let line = format!("exec unshare -m sh -c '{lines}' sh {} \"$@\"", program.display());
    std::fs::write(&script, format!("#!/bin/sh\n{line}\n"))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    for (program, mode, status) in [
        (None, "best-effort", "from the driver's metadata"),
        (None, "generic", "lost where the peer leaves them to the device"),
        (Some(script), "native", "lost where the peer leaves them to the device"),
    ] {
        let hidden = program.is_some();
        let mut switch = Switch::start_program(Kind::Ours, program, 0x1, &[])?;
        switch.add_bridge("br0")?;
        let far = Namespace::new()?;
        quiet_wire(&switch, "xe0", &far)?;
        add_port(&switch, "xe0", &["type=afxdp", &format!("options:xdp-mode={mode}")])?;
        wait_column(&switch, "xe0", "status", &format!("rx_vlan=\"{status}\""))?;
        wait_healthy(&switch, "xe0")?;
        let log = switch.daemon().log_from(0)?;
        let told = log.contains("on the peer, ethtool -K PEER tx-vlan-hw-insert off");
        ensure!(told == (mode != "best-effort"), "{mode}: {log}");
        ensure!(log.contains("xe0: the driver is not asked for VLAN tags") == hidden, "{log}");
        switch.check_alive()?;
    }
    Ok(())
}

/// Two hosts behind ports that share frames: no payload between them is copied until sharing ends.
#[test]
fn what_one_port_received_another_sends_without_a_copy() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    let share = |frames: &str| {
        let setting = format!("other_config:xdp-shared-frames={frames}");
        switch.ctl(&["--no-wait", "set", "Open_vSwitch", ".", &setting])
    };
    share("4096")?;
    let hosts = [Namespace::new()?, Namespace::new()?];
    for (i, host) in hosts.iter().enumerate() {
        let name = format!("xe{i}");
        quiet_wire(&switch, &name, host)?;
        host.run(&format!("ip addr add 10.1.0.{}/24 dev {name}p", i + 1))?;
        add_port(
            &switch,
            &name,
            &["type=afxdp", "options:n_rxq_desc=512", "options:n_txq_desc=512"],
        )?;
    }
    wait_column(&switch, "xe1", "status", "umem=\"shared, 3072 of 4096 frames\"")?;
    // One that is too much has its own.
    quiet_wire(&switch, "xe2", &hosts[0])?;
    add_port(&switch, "xe2", &["type=afxdp"])?;
    wait_column(&switch, "xe2", "status", "umem=own")?;
    let told = "xe2: queue 0 shares no frames, so what it passes on is copied: it needs 6144 frames, and 1024 of 4096 are left";
    let log = switch.daemon().log_from(0)?;
    ensure!(log.contains(told), "{log}");

    let copied = || -> Result<u64> {
        Ok(switch.appctl(&["coverage/read-counter", "payload_copied_bytes"])?.trim().parse()?)
    };
    let ping = "ping -q -c 200 -i 0.002 -W 2 -s 1400 -p 1234567890abcdef 10.1.0.2";
    // What has no address yet floods, and of that only one is no copy.
    hosts[0].run("ping -c 3 -i 0.1 -W 2 10.1.0.2")?;
    let before = copied()?;
    let sent = switch.statistics("xe1")?.get("tx_bytes").copied();
    hosts[0].run(ping)?;
    ensure!(copied()? == before, "{before}, {}", copied()?);
    wait::until("bytes to be counted", LIMIT, || {
        let now = switch.statistics("xe1")?.get("tx_bytes").copied();
        Ok((now >= sent.map(|n| n + 200 * 1442)).then_some(()))
    })?;
    let mut server =
        hosts[1].start("iperf3 -s --forceflush", &switch.rundir().join("iperf.log"))?;
    server.wait_log("listening", LIMIT, 0, |t| t.contains("listening").then_some(()))?;
    hosts[0].run("iperf3 -n 32M -c 10.1.0.2")?;
    ensure!(copied()? - before < 1 << 20, "{} of 32 MiB", copied()? - before);

    // A change opens the ports anew.
    share("0")?;
    for name in ["xe0", "xe1", "xe2"] {
        wait_column(&switch, name, "status", "umem=own")?;
    }
    hosts[0].run("ping -c 3 -i 0.1 -W 2 10.1.0.2")?;
    let before = copied()?;
    hosts[0].run(ping)?;
    ensure!(copied()? >= before + 400 * 1300, "{before}, {}", copied()?);
    share("2000000")?;
    let told = "other_config:xdp-shared-frames=2000000 is more than 1048576; none are shared";
    wait::until("the log to tell it", LIMIT, || {
        Ok(switch.daemon().log_from(0)?.contains(told).then_some(()))
    })?;
    drop(server);
    switch.check_alive()
}

/// A guest is the host here, for virtio-net is a NIC that spreads what it receives by a table (RSS).
#[test]
fn a_nic_spreads_what_it_receives_among_the_queues_that_are_polled() -> Result<()> {
    let _alone = alone();
    let wire = Namespace::new()?;
    wire.run("ip tuntap add t0 mode tap vnet_hdr multi_queue")?;
    wire.run("ip link set t0 up")?;
    let dir = tempfile::TempDir::new()?;
    let programs = ["vswitchd", "vswitchctl"].map(|name| stripped(name, dir.path()));
    let programs = programs.into_iter().collect::<Result<_>>()?;
    let properties = "rss=on,hash=on";
    let options = guest::Options { queues: 2, properties, programs, ..Default::default() };
    let mut host = guest::Guest::start_on_tap(1, &wire, "t0", &options)?;
    host.wait_booted()?;
    let ctl = |arguments: &str| format!("vswitchctl --rundir /run {arguments}");
    let status = |text: &str| {
        let get = ctl("get Interface eth0 status");
        format!("until {get} | grep '{text}'; do sleep 0.1; done")
    };
    let options = "options:n_rxq_desc=64 options:n_txq_desc=64 options:xdp-tx-csum=true";
    let add = |host: &mut guest::Guest, queues| {
        let add = "add-port br0 eth0 -- set Interface eth0 type=afxdp";
        host.run(&ctl(&format!("{add} {options} options:n_rxq={queues}")))?;
        let told = format!("128 entries of {queues} queues, evenly; toeplitz, 40 bytes of key");
        host.run(&status(&told))
    };
    host.run("ip link set eth0 up && mkdir -p /run && vswitchd --rundir /run --log-file /run/log --detach")?;
    host.run(&ctl("--no-wait add-br br0"))?;

    // Somebody has it spread three to one.
    host.run("ethtool -L eth0 combined 2 && ethtool -X eth0 weight 3 1")?;
    ensure!(named(&mut host)? == [96, 32], "as it was set");
    add(&mut host, 2)?;
    ensure!(named(&mut host)? == [64, 64], "evenly");
    // Older kernels complete no checksums for AF_XDP, so that is done in software, and told.
    let release = host.run("uname -r")?;
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let by_kernel = (numbers.next(), numbers.next()) >= (Some(6), Some(8));
    host.run(&status(&format!("xdp-tx-csum=\"{by_kernel}\"")))?;
    let told = host.run("grep -c 'eth0: checksums are completed in software' /run/log || true")?;
    ensure!(told == if by_kernel { "0" } else { "1" }, "{release}: {told}");
    host.run(&ctl("del-port eth0"))?;
    host.run("until ethtool -x eth0 | grep '96:.*1  *1  *1'; do sleep 0.1; done")?;
    ensure!(named(&mut host)? == [96, 32], "put back");

    // Linux alone does not give one queue while that table names two.
    let refused = host.try_run("ethtool -L eth0 combined 1")?;
    ensure!(refused.0 != 0, "{}", refused.1);
    add(&mut host, 1)?;
    ensure!(named(&mut host)? == [128], "none for a queue that is not polled");
    host.run("ethtool -l eth0 | grep -A5 Current | grep 'Combined:.*1'")?;
    // What was there before names a queue too many now, so it is the driver's own.
    host.run(&ctl("del-port eth0"))?;
    host.run("until ethtool -L eth0 combined 2; do sleep 0.1; done")?;
    add(&mut host, 2)?;
    ensure!(named(&mut host)? == [64, 64]);
    host.run(&ctl("list Interface eth0 | grep 'error *: \\[\\]'")).map(drop)
}

/// A frame of VLAN 7 from this address to a guest's.
fn of_vlan_7(source: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9];
    frame.extend([2, 0, 0, 0, 0, source, 0x81, 0, 0, 7, 0x88, 0xb5]);
    frame.resize(64, 0);
    frame
}

/// A guest is the host here, whose NIC takes VLAN tags out of frames, and its driver has no XDP to ask of them. It also
/// drops what is for other addresses or of VLANs that the host itself has not, unless it is promiscuous.
#[test]
fn a_nic_that_takes_tags_out_is_told_to_leave_them() -> Result<()> {
    let _alone = alone();
    let wire = UdpSocket::bind("127.0.0.1:0")?;
    // QEMU takes this one, which is free.
    let to = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let dir = tempfile::TempDir::new()?;
    let programs = ["vswitchd", "vswitchctl"].map(|name| stripped(name, dir.path()));
    let programs = programs.into_iter().collect::<Result<_>>()?;
    let options = guest::Options { nic: Some("vmxnet3"), programs, ..Default::default() };
    let mut host = guest::Guest::start_on_udp(1, wire.local_addr()?.port(), to.port(), &options)?;
    host.wait_booted()?;
    let ctl = |arguments: &str| format!("vswitchctl --rundir /run {arguments}");
    let until = |line: &str| format!("until {line}; do sleep 0.1; done");
    let strips = |how: &str| until(&format!("ethtool -k eth0 | grep 'rx-vlan-offload: {how}'"));
    // IFF_PROMISC is 256.
    let promiscuous =
        |flag: u32| format!("[ $(( $(cat /sys/class/net/eth0/flags) & 256 )) = {flag} ]");
    // The switch learns the sender's address in the VLAN that the frame has for it.
    let comes = |host: &mut guest::Guest, source: u8, vlan: &str| {
        wire.send_to(&of_vlan_7(source), to)?;
        let learned = format!(
            "vswitchctl --rundir /run fdb/show br0 | grep '{vlan}  02:00:00:00:00:0{source}'"
        );
        host.run(&until(&learned))
    };
    host.run(&strips("on"))?;
    host.run("ip link set eth0 up && mkdir -p /run && vswitchd --rundir /run --log-file /run/log --detach")?;
    host.run(&ctl("--no-wait add-br br0"))?;
    let add = "add-port br0 eth0 -- set Interface eth0 type=afxdp";
    host.run(&ctl(&format!("{add} options:n_rxq_desc=64 options:n_txq_desc=64")))?;
    host.run(&until(&ctl("get Interface eth0 status | grep 'rx_vlan=\"in the frames\"'")))?;
    host.run(&strips("off"))?;
    comes(&mut host, 1, " 7")?;
    host.run(&promiscuous(256))?;
    // Somebody else turns it on.
    host.run("ethtool -K eth0 rxvlan on")?;
    host.run(&strips("off"))?;
    comes(&mut host, 2, " 7")?;
    host.run(
        "grep 'eth0 leaves VLAN tags in what it receives, with rx-vlan-hw-parse off' /run/log",
    )?;
    host.run(&ctl("del-port eth0"))?;
    host.run(&strips("on"))?;
    host.run(&until(&promiscuous(0)))?;
    Ok(())
}

/// How many entries of the table name each queue.
fn named(host: &mut guest::Guest) -> Result<Vec<usize>> {
    let shown = host.run("ethtool -x eth0")?;
    let mut counts = Vec::new();
    for line in shown.lines().take_while(|l| !l.contains("key")) {
        let Some((_, queues)) = line.split_once(": ").filter(|l| l.0.trim().parse::<u32>().is_ok())
        else {
            continue;
        };
        for queue in queues.split_whitespace() {
            let queue: usize = queue.parse()?;
            counts.resize(counts.len().max(queue + 1), 0);
            counts[queue] += 1;
        }
    }
    Ok(counts)
}

/// A program of this build.
fn binary(name: &str) -> Result<std::path::PathBuf> {
    let directory = match std::env::var_os(BIN_DIR_VARIABLE) {
        Some(directory) => directory.into(),
        None => std::env::current_exe()?.ancestors().nth(2).unwrap_or("".as_ref()).to_owned(),
    };
    Ok(directory.join(name))
}

/// A program of this build without what only debuggers read.
fn stripped(name: &str, into: &std::path::Path) -> Result<std::path::PathBuf> {
    let out = into.join(name);
    process::output(process::command("strip").arg("-o").arg(&out).arg(binary(name)?))?;
    Ok(out)
}
