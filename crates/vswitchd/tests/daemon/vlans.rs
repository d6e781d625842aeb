//! Settings of ports that concern VLANs, as guests see them.

use crate::bench::{Daemon, wait_for};
use crate::traffic::{add_port, frame, guest, receive, send};

/// The first tag of a frame, or its EtherType and what follows.
fn tag(frame: &[u8]) -> String {
    frame[12..16].iter().map(|b| format!("{b:02x}")).collect()
}

/// Each change of the row is what the next frame meets, though megaflows of before are there.
#[test]
fn modes_of_a_running_port() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for port in ["a", "b"] {
        add_port(&d, "br0", port);
    }
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    let frame = frame(1, 2, 0);
    let plain = tag(&frame);
    for (row, expected) in [
        ("tag=10", "8100000a".to_owned()),
        ("tag=20", "81000014".to_owned()),
        ("vlan_mode=native-untagged", "81000014".to_owned()),
        ("vlan_mode=dot1q-tunnel", "88a80014".to_owned()),
        ("other_config:qinq-ethtype=802.1q", "81000014".to_owned()),
        ("vlan_mode=trunk", plain.clone()),
    ] {
        d.vsctl(&format!("set Port a {row}"));
        wait_for(row, || {
            send(&mut a, &frame);
            receive(&mut b).iter().any(|f| tag(f) == expected).then_some(())
        });
    }
    assert_eq!(d.vsctl("get Interface a error"), "[]");
}

/// What is not known is answered by the default and told once; the port works.
#[test]
fn settings_that_are_not_known() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for port in ["a", "b"] {
        add_port(&d, "br0", port);
    }
    d.vsctl("set Port a other_config:priority-tags=sometimes tag=5 trunks=6");
    d.wait_log("port a: other_config:priority-tags=\"sometimes\" is none of never, if-nonzero");
    d.wait_log("port a: tag makes it an access port, which has no trunks");
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    send(&mut a, &frame(1, 2, 0));
    assert_eq!(tag(&receive(&mut b)[0]), "81000005");
}
