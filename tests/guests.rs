//! Two QEMU guests on one bridge: ping and iperf3, in both socket modes and with two queue pairs.

use anyhow::{Context, Result, ensure};
use lab::scene::{PORTS, TwoGuests};
use lab::switch::{Kind, SocketMode};
use lab::{alone, guest};

/// Seconds of iperf3.
const SECONDS: u32 = 5;

/// Mbit/s below which something is wrong rather than slow; emulated guests reach some hundreds on an idle machine.
const LEAST_MBITS: f64 = 10.0;

#[test]
fn guests_talk_when_the_switch_connects() -> Result<()> {
    talk(SocketMode::SwitchConnects, 1)
}

#[test]
fn guests_talk_when_the_switch_listens() -> Result<()> {
    talk(SocketMode::SwitchListens, 1)
}

#[test]
fn guests_talk_over_two_queues() -> Result<()> {
    talk(SocketMode::SwitchConnects, 2)
}

fn talk(mode: SocketMode, queues: u16) -> Result<()> {
    let _alone = alone();
    let mut scene = TwoGuests::start(Kind::from_environment()?, 0x1, mode, queues)?;
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
