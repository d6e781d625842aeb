//! Two guests on one bridge, of QEMU and of user-mode Linux: ping and iperf3, in both socket modes and with two queue pairs.

use anyhow::{Context, Result, ensure};
use lab::alone;
use lab::guest::{self, Machine};
use lab::scene::{PORTS, TwoGuests};
use lab::switch::{Kind, SocketMode};

/// Seconds of iperf3.
const SECONDS: u32 = 5;

/// What devices are told whose guests have an MTU of their own.
const HOST_MTU: &str = "host_mtu=2000";
const MTU: u16 = 2000;

/// Mbit/s below which something is wrong rather than slow; emulated guests reach some hundreds on an idle machine.
const LEAST_MBITS: f64 = 10.0;

#[test]
fn guests_talk_when_the_switch_connects() -> Result<()> {
    talk(SocketMode::SwitchConnects, 1, "")
}

#[test]
fn guests_talk_when_the_switch_listens() -> Result<()> {
    talk(SocketMode::SwitchListens, 1, HOST_MTU)
}

#[test]
fn guests_talk_over_two_queues() -> Result<()> {
    talk(SocketMode::SwitchConnects, 2, "")
}

/// Another front end than QEMU's: Linux' own driver for vhost-user.
#[test]
fn guests_of_user_mode_linux_talk_when_the_switch_connects() -> Result<()> {
    let machine = Machine::UserMode;
    talk_with(SocketMode::SwitchConnects, guest::Options { machine, ..Default::default() })
}

#[test]
fn guests_of_user_mode_linux_talk_when_the_switch_listens() -> Result<()> {
    let machine = Machine::UserMode;
    talk_with(SocketMode::SwitchListens, guest::Options { machine, ..Default::default() })
}

fn talk(mode: SocketMode, queues: u16, properties: &'static str) -> Result<()> {
    talk_with(mode, guest::Options { queues, properties, ..guest::Options::default() })
}

fn talk_with(mode: SocketMode, options: guest::Options) -> Result<()> {
    let _alone = alone();
    let (queues, properties) = (options.queues.max(1), options.properties);
    let kind = Kind::from_environment()?;
    let mut scene = TwoGuests::start_with(kind, 0x1, mode, [&options, &options])?;
    if properties == HOST_MTU && kind == Kind::Ours {
        mtu_reaches_guests(&mut scene)?;
    }
    let [client, server] = &mut scene.guests;
    let addresses = [guest::address(client.number()), guest::address(server.number())];
    client.run(&format!("ping -c 3 -W 2 {}", addresses[1]))?;
    server.run(&format!("ping -c 3 -W 2 {}", addresses[0]))?;
    // A full frame and one in fragments: nothing is cut off.
    client.run(&format!("ping -c 2 -W 2 -s 1472 {}", addresses[1]))?;
    client.run(&format!("ping -c 2 -W 2 -s 8000 {}", addresses[1]))?;
    server.run("iperf3 -s -D")?;
    let iperf = format!("iperf3 -f m -t {SECONDS} -P {queues} -c {}", addresses[1]);
    for direction in ["", " -R"] {
        server.wait_iperf3()?;
        let report = client.run(&format!("{iperf}{direction}"))?;
        let mbits = received_mbits(&report)?;
        println!("{mode:?}, {queues} queues{direction}: {mbits} Mbit/s");
        ensure!(mbits >= LEAST_MBITS, "only {mbits} Mbit/s:\n{report}");
    }
    for number in 0..queues {
        client.run(&format!("test -d /sys/class/net/eth0/queues/rx-{number}"))?;
    }
    serves_all_queues(&scene, queues)?;
    for port in PORTS {
        let statistics = scene.switch.statistics(port)?;
        if scene.switch.kind() == Kind::OvsDpdk && !statistics.contains_key("rx_packets") {
            // OVS 3.1 counts nothing on `dpdkvhostuser` ports.
            continue;
        }
        for counter in ["rx_packets", "tx_packets"] {
            let value = statistics.get(counter).copied().unwrap_or(0);
            ensure!(value > 100, "{port}: {counter} is {value}");
        }
    }
    scene.switch.check_alive()
}

/// Guests have the MTU that their devices' property says, which the ports have too. A packet of exactly that size passes; a
/// port whose MTU is one less drops and counts it.
fn mtu_reaches_guests(scene: &mut TwoGuests) -> Result<()> {
    let request = |port: &str, mtu: u16| {
        scene.switch.ctl(&["set", "Interface", port, &format!("mtu_request={mtu}")])
    };
    for port in PORTS {
        request(port, MTU)?;
    }
    let [client, server] = &mut scene.guests;
    for guest in [&mut *client, &mut *server] {
        let mtu = guest.run("cat /sys/class/net/eth0/mtu")?;
        ensure!(mtu == MTU.to_string(), "the guest's MTU is {mtu}");
        let (status, _) = guest.try_run(&format!("ip link set eth0 mtu {}", MTU + 1))?;
        ensure!(status != 0, "the guest's MTU can be raised");
    }
    // Less the headers of IPv4 and ICMP.
    let ping = format!("ping -c 2 -W 1 -s {} {}", MTU - 28, guest::address(server.number()));
    client.run(&ping)?;
    request(PORTS[1], MTU - 1)?;
    let (status, said) = client.try_run(&ping)?;
    ensure!(status != 0, "a packet longer than the MTU passed: {said}");
    let drops = scene.switch.appctl(&["coverage/read-counter", "ovs_tx_mtu_exceeded_drops"])?;
    ensure!(drops.trim() == "2", "dropped: {drops}");
    request(PORTS[1], MTU)?;
    client.run(&ping).map(drop)
}

/// Each queue of each port is polled by some core.
fn serves_all_queues(scene: &TwoGuests, queues: u16) -> Result<()> {
    let shown = scene.switch.appctl(&["dpif-netdev/pmd-rxq-show"])?;
    let lines: Vec<String> =
        shown.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for port in PORTS {
        for queue in 0..queues {
            let wanted = format!("port: {port} queue-id: {queue} (enabled)");
            ensure!(lines.iter().any(|l| l.starts_with(&wanted)), "no `{wanted}` in\n{shown}");
        }
    }
    Ok(())
}

/// The last rate in iperf3's summary of the receiving side.
fn received_mbits(report: &str) -> Result<f64> {
    let is_rate = |l: &&str| l.contains("receiver") && l.contains("Mbits/sec");
    let line = report
        .lines()
        .rev()
        .find(is_rate)
        .with_context(|| format!("iperf3 reported no rate:\n{report}"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|w| *w == "Mbits/sec").context("no unit")?;
    let rate = words.get(unit.wrapping_sub(1)).context("no rate")?;
    rate.parse().with_context(|| format!("iperf3 rate {rate}"))
}
