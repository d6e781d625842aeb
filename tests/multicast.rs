//! Multicast snooping among Linux's own stacks: hosts in namespaces that join and leave a group, and a Linux
//! bridge as the querier that hears of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::netns::{Namespace, give, wire};
use lab::switch::{Kind, Switch};
use lab::{alone, wait};

const LIMIT: Duration = Duration::from_secs(30);
const GROUP: &str = "239.1.1.1";
/// Packets sent to the group at a time: more than anything else that a port gets meanwhile.
const PINGS: u64 = 50;

/// Waits until `mdb/show` is as wanted.
fn wait_mdb(switch: &Switch, what: &str, is: impl Fn(&str) -> bool) -> Result<()> {
    wait::until(what, LIMIT, || Ok(is(&switch.appctl(&["mdb/show", "br0"])?).then_some(())))
}

/// Packets that were sent to each port while the first namespace sent [`PINGS`] to the group.
fn ping(switch: &Switch, from: &Namespace, ports: &[&str]) -> Result<Vec<u64>> {
    let sent = || -> Result<Vec<u64>> {
        let one = |p: &&str| Ok(switch.statistics(p)?.get("tx_packets").copied().unwrap_or(0));
        ports.iter().map(one).collect()
    };
    let before = sent()?;
    // Nobody answers: it is what the ports get that counts.
    let _ = from.run(&format!("ping -c {PINGS} -i 0.002 -W 0.1 {GROUP}"));
    Ok(sent()?.iter().zip(before).map(|(now, before)| now - before).collect())
}

/// Waits until a ping reaches just these ports: statistics and megaflows follow by and by.
fn expect(switch: &Switch, from: &Namespace, ports: &[&str], gets: &[bool]) -> Result<()> {
    wait::until(&format!("packets for {gets:?} of {ports:?}"), LIMIT, || {
        let sent = ping(switch, from, ports)?;
        Ok(sent.iter().map(|n| *n >= PINGS).eq(gets.iter().copied()).then_some(()))
    })
}

#[test]
fn only_members_and_routers_get_a_group() -> Result<()> {
    let _alone = alone();
    let mut switch = Switch::start(Kind::Ours, 0x1)?;
    switch.add_bridge("br0")?;
    switch.ctl(&["set", "Bridge", "br0", "mcast_snooping_enable=true"])?;
    let mut hosts = Vec::new();
    for n in 1..=3 {
        let (name, host) = (format!("mc{n}"), Namespace::new()?);
        switch.ctl(&[
            "add-port",
            "br0",
            &name,
            "--",
            "set",
            "Interface",
            &name,
            "type=internal",
        ])?;
        give(&switch, &name, &host, &format!("10.1.0.{n}"))?;
        host.run(&format!("ip route add 224.0.0.0/4 dev {name}"))?;
        hosts.push(host);
    }
    let ports = ["mc2", "mc3"];
    expect(&switch, &hosts[0], &ports, &[true, true])?;

    // Hosts say by themselves what they want of IPv6.
    wait_mdb(&switch, "a report by MLD", |m| m.contains("ff02::1:ff"))?;
    hosts[1].run(&format!("ip addr add {GROUP}/32 dev mc2 autojoin"))?;
    wait_mdb(&switch, "a member", |m| m.contains(&format!("    2     0  {GROUP} ")))?;
    expect(&switch, &hosts[0], &ports, &[true, false])?;

    let far = Namespace::new()?;
    wire(&switch, "mcv", &far, "mcvp", "10.1.0.9")?;
    let querier =
        "mcast_snooping 1 mcast_querier 1 mcast_query_use_ifaddr 1 mcast_query_interval 100";
    far.run(&format!("ip link add mcbr type bridge {querier} mcast_startup_query_interval 50"))?;
    far.run("ip addr flush dev mcvp")?;
    far.run("ip addr add 10.1.0.9/24 dev mcbr")?;
    far.run("ip link set mcvp master mcbr")?;
    far.run("ip link set mcbr up")?;
    switch.ctl(&["add-port", "br0", "mcv"])?;
    wait_mdb(&switch, "a querier", |m| m.contains("    4     0  querier "))?;
    // What it asked was answered, and the answer was forwarded to it.
    wait::until("the querier to know the group", LIMIT, || {
        Ok(far.run("bridge mdb show dev mcbr")?.contains(GROUP).then_some(()))
    })?;
    expect(&switch, &hosts[0], &["mc2", "mc3", "mcv"], &[true, false, true])?;

    hosts[1].run(&format!("ip addr del {GROUP}/32 dev mc2"))?;
    wait_mdb(&switch, "no member", |m| !m.contains(GROUP))?;
    hosts[2].run(&format!("ip addr add {GROUP}/32 dev mc3 autojoin"))?;
    wait_mdb(&switch, "another member", |m| m.contains(&format!("    3     0  {GROUP} ")))?;
    expect(&switch, &hosts[0], &["mc2", "mc3", "mcv"], &[false, true, true])?;
    ensure!(switch.appctl(&["mdb/flush", "br0"])? == "table successfully flushed\n");
    switch.check_alive()
}
