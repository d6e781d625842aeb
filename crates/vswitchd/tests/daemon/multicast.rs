//! Multicast snooping, and how ports are used, as guests see it.

use crate::bench::{Daemon, run, vswitchctl, wait_for};
use crate::traffic::{add_port, guest, receive, send, take};
use virtio_driver::Driver;

/// An IPv4 frame to `group`, which is 224.0.0.0 and these bytes.
fn ipv4(from: u8, group: [u8; 3], proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![1, 0, 0x5e, group[0] & 0x7f, group[1], group[2], 2, 0, 0, 0, 0, from, 8, 0];
    f.extend([0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 1, proto, 0, 0, 10, 0, 0, from]);
    f.extend([224, group[0], group[1], group[2]]);
    f.extend(payload);
    f
}

/// With its checksum (RFC 1071).
fn igmp(from: u8, to: [u8; 3], mut message: Vec<u8>) -> Vec<u8> {
    let words = message.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, 2, &message)
}

/// An IGMPv3 report with one record: type 4 joins, type 3 leaves (RFC 3376, 4.2.12).
fn report(from: u8, record: u8, group: [u8; 3]) -> Vec<u8> {
    let [a, b, c] = group;
    let message = vec![0x22, 0, 0, 0, 0, 0, 0, 1, record, 0, 0, 0, 224, a, b, c];
    igmp(from, [0, 0, 22], message)
}

fn data(from: u8, group: [u8; 3], mark: u8) -> Vec<u8> {
    ipv4(from, group, 17, &[4, 0, 4, 0, 0, 12, 0, 0, mark, mark, mark, mark])
}

fn wait_mdb(d: &Daemon, what: &str, is: impl Fn(&str) -> bool) -> String {
    wait_for(what, || Some(d.appctl("mdb/show br0")).filter(|m| is(m)))
}

/// The next frame of each but `guests[0]`, which sends `frame` and then one that all get.
fn heard(guests: &mut [Driver], frame: &[u8]) -> Vec<bool> {
    let mut last = data(1, [0, 0, 251], 0);
    last[6] = 6;
    send(&mut guests[0], frame);
    send(&mut guests[0], &last);
    let heard = guests[1..].iter_mut().map(|g| {
        let mut frames = Vec::new();
        wait_for("the last frame", || {
            frames.extend(receive(g));
            frames.contains(&last).then_some(())
        });
        frames.contains(&frame.to_vec())
    });
    heard.collect()
}

/// Waits until who gets `frame` from `guests[0]` is as expected: megaflows of before go soon.
fn expect(what: &str, guests: &mut [Driver], frame: &[u8], expected: &[bool]) {
    wait_for(what, || (heard(guests, frame) == expected).then_some(()));
}

#[test]
fn multicast_goes_to_those_who_want_it() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    assert_eq!(
        d.try_appctl(&["mdb/show", "br0"]).err.lines().next(),
        Some("multicast snooping is disabled")
    );
    d.vsctl("set Bridge br0 mcast_snooping_enable=true");
    let names = ["a", "b", "c"];
    names.iter().for_each(|n| add_port(&d, "br0", n));
    let mut guests: Vec<Driver> = names.iter().map(|n| guest(&d, n)).collect();
    let group = [1, 1, 1];
    expect("nobody said anything yet", &mut guests, &data(1, group, 1), &[true, true]);

    // Reports that look alike to a megaflow are seen one by one.
    for n in 1..=20 {
        send(&mut guests[1], &report(2, 4, [1, 1, n]));
    }
    let mdb = wait_mdb(&d, "20 groups", |m| m.lines().count() == 21);
    assert!(mdb.contains("\n    2     0  224.1.1.1           "), "{mdb}");
    let counter = |name: &str| d.appctl(&format!("coverage/read-counter {name}"));
    assert_eq!(counter("mcast_snooping_learned"), "20\n");
    // One guest has two addresses.
    assert_eq!(counter("mac_learning_learned"), "3\n");
    assert!(d.appctl("dpctl/dump-flows").contains("actions:userspace(pid=0,slow_path(action))"));
    expect("the member", &mut guests, &data(1, group, 2), &[true, false]);
    send(&mut guests[2], &report(3, 4, group));
    wait_mdb(&d, "another member", |m| m.contains("    3     0  224.1.1.1 "));
    expect("both", &mut guests, &data(1, group, 3), &[true, true]);

    // Leaves, and a query: its sender gets everything, reports too, which no host gets.
    send(&mut guests[1], &report(2, 3, group));
    send(&mut guests[2], &report(3, 3, group));
    wait_mdb(&d, "no member", |m| !m.contains("224.1.1.1 "));
    let query = igmp(3, [0, 0, 1], vec![0x11, 100, 0, 0, 0, 0, 0, 0]);
    send(&mut guests[2], &query);
    wait_mdb(&d, "a querier", |m| m.contains("    3     0  querier  "));
    expect("the router", &mut guests, &report(1, 4, group), &[false, true]);
    expect("member and router", &mut guests, &data(1, [1, 1, 5], 4), &[true, true]);
    expect("nobody's group", &mut guests, &data(1, [9, 9, 9], 5), &[true, true]);
    d.vsctl("set Bridge br0 other_config:mcast-snooping-disable-flood-unregistered=true");
    expect("only the router", &mut guests, &data(1, [9, 9, 9], 6), &[false, true]);

    // What goes with a port, and with the table.
    d.vsctl("del-port br0 c");
    guests.truncate(2);
    wait_mdb(&d, "no querier", |m| !m.contains("querier") && m.contains("224.1.1.9 "));
    expect("still the member", &mut guests, &data(1, [1, 1, 5], 7), &[true]);
    assert_eq!(d.appctl("mdb/flush br0"), "table successfully flushed\n");
    assert_eq!(d.appctl("mdb/show br0"), " port  VLAN  GROUP                Age\n");
    expect("no member", &mut guests, &data(1, [1, 1, 5], 8), &[false]);
    d.vsctl("set Port b other_config:mcast-snooping-flood=true");
    expect("a flood port", &mut guests, &data(1, [1, 1, 5], 9), &[true]);
    d.vsctl("set Bridge br0 mcast_snooping_enable=false -- clear Port b other_config");
    assert_eq!(d.try_appctl(&["mdb/flush", "br0"]).status, 2);
    expect("all again", &mut guests, &data(1, [1, 1, 5], 10), &[true]);
}

/// Whether what one guest sends reaches another; a third gets it in any case, and then all have got it.
fn reaches(guests: &mut [Driver], from: usize, to: usize, third: usize) -> bool {
    let frame = data(from as u8, [0, 0, 251], 1);
    take(&mut guests[to]);
    send(&mut guests[from], &frame);
    wait_for("the third guest's", || receive(&mut guests[third]).contains(&frame).then_some(()));
    take(&mut guests[to]).contains(&frame)
}

/// What `mod-port` sets of how a port is used: where packets go, and what `show` says.
#[test]
fn use_of_ports() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    let names = ["a", "b", "c"];
    names.iter().for_each(|n| add_port(&d, "br0", n));
    let mut guests: Vec<Driver> = names.iter().map(|n| guest(&d, n)).collect();
    let ctl = |args: &[&str]| run(vswitchctl().arg("--rundir").arg(d.rundir()).args(args));
    let config = || {
        let shown = ctl(&["show", "br0"]).out;
        let (_, after) =
            shown.split_once("(b): addr:00:00:00:00:00:00\n     config:     ").expect("b");
        after.lines().next().unwrap_or_default().to_owned()
    };
    for (set, clear, name) in [
        ("no-flood", "flood", "NO_FLOOD"),
        ("no-forward", "forward", "NO_FWD"),
        ("down", "up", "PORT_DOWN"),
    ] {
        assert_eq!(ctl(&["mod-port", "br0", "b", set]).err, "");
        assert_eq!(config(), name);
        wait_for(set, || (!reaches(&mut guests, 0, 1, 2)).then_some(()));
        assert_eq!(ctl(&["mod-port", "br0", "b", clear]).err, "");
        assert_eq!(config(), "0");
        wait_for(clear, || reaches(&mut guests, 0, 1, 2).then_some(()));
    }
    for set in ["no-receive", "no-receive-stp"] {
        assert_eq!(ctl(&["mod-port", "br0", "b", set]).err, "");
    }
    // It still gets what others send.
    assert!(reaches(&mut guests, 0, 1, 2));
    let frame = data(9, [0, 0, 251], 1);
    wait_for("nothing that it sends to be forwarded", || {
        send(&mut guests[1], &frame);
        send(&mut guests[2], &data(2, [0, 0, 251], 1));
        (!receive(&mut guests[0]).contains(&frame)).then_some(())
    });
}
