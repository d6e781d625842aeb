//! Checksum offload and TSO between two QEMU guests: on without being asked for, and whole where only one side
//! has them. The guest without them checks every checksum in software.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lab::alone;
use lab::guest::{self, Guest, Options};
use lab::scene::{PORTS, TwoGuests};
use lab::switch::{Kind, SocketMode};

/// Seconds of iperf3.
const SECONDS: u32 = 4;
/// Environment: the step between sizes of datagrams, 1 for all 65,507.
const STEP_VARIABLE: &str = "UDP_SIZES_STEP";
/// A prime: with it a run takes seconds, and no size is a multiple of another.
const STEP: usize = 331;

/// Sizes asked for by one command.
const PART: usize = 8000;

/// A device that takes and gives nothing but whole frames.
const NO_OFFLOADS: &str = "csum=off,host_tso4=off,host_tso6=off,host_ecn=off,\
                           guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,gso=off";

#[test]
fn offloads_are_on_and_whole_between_guests() -> Result<()> {
    let _alone = alone();
    let mut scene = scene("")?;
    for guest in &mut scene.guests {
        let features = guest.run("ethtool -k eth0")?;
        for feature in [
            "tx-checksumming: on",
            "scatter-gather: on",
            "tcp-segmentation-offload: on",
            "tx-tcp-segmentation: on",
            "tx-tcp6-segmentation: on",
            "rx-checksumming: on",
        ] {
            ensure!(features.contains(feature), "no `{feature}` in\n{features}");
        }
    }
    talk(&mut scene)?;
    for port in PORTS {
        let status = scene.switch.interface(port, "status")?;
        for key in ["tx_tcp_csum_offload", "tx_tcp_seg_offload", "rx_csum_offload", "userspace-tso"]
        {
            let wanted = [format!("{key}=\"true\""), format!("{key}=true")];
            ensure!(wanted.iter().any(|w| status.contains(w)), "{port}: {key} in {status}");
        }
        let statistics = scene.switch.statistics(port)?;
        ensure!(statistics["tx_super_frames"] > 100, "{statistics:?}");
        ensure!(statistics["tx_sw_segments"] == 0 && statistics["tx_sw_checksums"] == 0);
    }
    scene.switch.check_alive()
}

#[test]
fn a_guest_without_offloads_gets_whole_frames() -> Result<()> {
    let _alone = alone();
    let mut scene = scene(NO_OFFLOADS)?;
    let features = scene.guests[1].run("ethtool -k eth0")?;
    ensure!(features.contains("tx-checksumming: off"), "{features}");
    status_has(&scene, PORTS[1], "tx_tcp_csum_offload", false)?;
    talk(&mut scene)?;
    let statistics = scene.switch.statistics(PORTS[1])?;
    ensure!(statistics["tx_sw_segments"] > 100, "{statistics:?}");
    ensure!(statistics["tx_sw_checksums"] > 100, "{statistics:?}");
    ensure!(statistics["tx_super_frames"] == 0, "{statistics:?}");
    scene.switch.check_alive()
}

fn scene(second: &'static str) -> Result<TwoGuests> {
    let programs = vec![PathBuf::from(env!("CARGO_BIN_EXE_udp-sizes"))];
    let [first, second] = ["", second].map(|properties| Options {
        properties,
        programs: programs.clone(),
        ..Options::default()
    });
    TwoGuests::start_with(Kind::Ours, 0x1, SocketMode::SwitchConnects, [&first, &second])
}

/// The interface's row says whether that was negotiated.
fn status_has(scene: &TwoGuests, port: &str, key: &str, value: bool) -> Result<()> {
    let status = scene.switch.interface(port, "status")?;
    ensure!(
        status.replace('"', "").contains(&format!("{key}={value}")),
        "{port}: {key} in {status}"
    );
    Ok(())
}

/// TCP both ways, pings and datagrams of many sizes; nobody finds a wrong checksum.
fn talk(scene: &mut TwoGuests) -> Result<()> {
    let [client, server] = &mut scene.guests;
    let address = guest::address(server.number());
    for size in [1, 1472, 1473, 8000, 60_000] {
        client.run(&format!("ping -c 2 -W 5 -s {size} {address}"))?;
    }
    server.run("udp-sizes echo & iperf3 -s -D")?;
    for direction in ["", " -R"] {
        let report = client.run(&format!("iperf3 -f m -t {SECONDS} -c {address}{direction}"))?;
        let rate = report.lines().rev().find(|l| l.contains("receiver"));
        println!("iperf3{direction}: {}", rate.context("no rate")?.trim());
    }
    let step = std::env::var(STEP_VARIABLE).map_or(Ok(STEP), |s| s.parse())?;
    // In parts, as a command of a guest has its time.
    let parts = [(1, 2000, step.min(7))].into_iter();
    let parts =
        parts.chain((2001..=65_507).step_by(PART).map(|from| (from, from + PART - 1, step)));
    for (from, to, step) in parts {
        let to = to.min(65_507);
        println!("UDP: {}", client.run(&format!("udp-sizes ask {address} {from} {to} {step}"))?);
    }
    no_wrong_checksums(client)?;
    no_wrong_checksums(server)
}

/// The guest's kernel found no wrong checksum.
fn no_wrong_checksums(guest: &mut Guest) -> Result<()> {
    let text = guest.run("cat /proc/net/snmp")?;
    for protocol in ["Ip:", "Icmp:", "Tcp:", "Udp:"] {
        let mut lines = text.lines().filter(|l| l.starts_with(protocol));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let both = names.split_whitespace().zip(values.split_whitespace());
        for (name, value) in both {
            let wrong = matches!(name, "InCsumErrors" | "InHdrErrors")
                || protocol != "Udp:" && name == "InErrs";
            ensure!(
                !wrong || value == "0",
                "guest {}: {protocol} {name} is {value}",
                guest.number()
            );
        }
    }
    Ok(())
}
