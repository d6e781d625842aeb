//! Mirrors of a running switch.

use crate::bench::{Daemon, run, vswitchctl, wait_for};
use crate::traffic::{add_port, frame, guest, receive, send};

/// Copies come to the output port, cut and counted, and nothing else does; a mirror that has no output
/// is told of and disturbs nothing.
#[test]
fn copies_come_to_the_output_port() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for port in ["a", "b", "m"] {
        add_port(&d, "br0", port);
    }
    d.vsctl(
        "-- --id=@m get Port m -- --id=@a get Port a -- --id=@x create Mirror name=x output_port=@m \
         select_src_port=@a snaplen=40 -- --id=@y create Mirror name=y select_all=true \
         -- set Bridge br0 mirrors=@x,@y",
    );
    d.wait_log("mirror y has neither output_port nor output_vlan; ignored");
    let (mut a, mut b, mut m) = (guest(&d, "a"), guest(&d, "b"), guest(&d, "m"));
    send(&mut a, &frame(1, 2, 7));
    assert_eq!(receive(&mut b), [frame(1, 2, 7)]);
    assert_eq!(receive(&mut m), [&frame(1, 2, 7)[..40]]);
    // From the other side nothing is selected: what comes next is from the first side again.
    send(&mut b, &frame(2, 1, 8));
    assert_eq!(receive(&mut a), [frame(2, 1, 8)]);
    send(&mut a, &frame(1, 2, 9));
    assert_eq!(receive(&mut m), [&frame(1, 2, 9)[..40]]);
    wait_for("statistics", || {
        let text = d.vsctl("get Mirror x statistics");
        text.contains("tx_packets=2}").then_some(())
    });
}

/// Only packets that the filter matches are mirrored, also when megaflows are there already; one that is wrong is told of, with
/// its mirror off and all else as ever.
#[test]
fn a_filter_says_which_packets_are_mirrored() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for port in ["a", "b", "m"] {
        add_port(&d, "br0", port);
    }
    d.vsctl(
        "-- --id=@m get Port m -- --id=@x create Mirror name=x output_port=@m select_all=true \
         -- set Bridge br0 mirrors=@x",
    );
    let (mut a, mut b, mut m) = (guest(&d, "a"), guest(&d, "b"), guest(&d, "m"));
    // So that a mirror that is off gets nothing as one port more.
    send(&mut b, &frame(2, 1, 0));
    assert_eq!(receive(&mut a), receive(&mut m));
    let mut sequence = 0;
    // A copy too many is the first that comes the next time.
    let mut check = |filter: &str, mirrored: bool| {
        // ovs-vsctl 3.1 knows no such column.
        let words = ["set", "Mirror", "x", &format!("filter={filter:?}")];
        let told = run(vswitchctl().arg("--rundir").arg(d.rundir()).args(words));
        assert_eq!(told.status, 0, "{}", told.err);
        d.appctl("revalidator/wait");
        for _ in 0..3 {
            sequence += 1;
            send(&mut a, &frame(1, 2, sequence));
            assert_eq!(receive(&mut b), [frame(1, 2, sequence)]);
            if mirrored {
                assert_eq!(receive(&mut m), [frame(1, 2, sequence)], "{filter}");
            }
        }
    };
    check("", true);
    check("tcp", false);
    check("udp", true);
    check("in_port=1", false);
    d.wait_log("mirror x is off: its filter is wrong: it may not match in_port");
    check("udp,nw_dst=10.2.0.1", true);
    check("udp,nw_dst=10.2.0.9", false);
    check("ip", true);
    check("nonsense=1", false);
    d.wait_log("mirror x is off: its filter is wrong: nonsense=1:");
    check(&"a".repeat(2000), false);
    d.wait_log("mirror x is off: its filter is wrong: it has 2000 characters, 1024 are the most");
    check("udp,udp_dst=0/0x8000", true);
    let flows = d.appctl("dpctl/dump-flows");
    assert!(flows.contains("eth_type(0x0800)"), "{flows}");
}

/// A mirror to a port that is not open is told of, once, and works when it is open.
#[test]
fn an_output_port_that_is_not_open_is_told() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for port in ["a", "b"] {
        add_port(&d, "br0", port);
    }
    d.try_vsctl(&["add-port", "br0", "m", "--", "set", "Interface", "m", "type=nonsense"]);
    d.vsctl("-- --id=@m get Port m -- --id=@x create Mirror name=x select_all=true output_port=@m -- set Bridge br0 mirrors=@x");
    let line = "mirror x does not work: its output_port m is not open";
    d.wait_log(line);
    d.vsctl("set Bridge br0 other_config:mac-aging-time=100");
    assert_eq!(d.log_lines(line).len(), 1, "{}", d.log());
    d.vsctl("set Interface m type=dpdkvhostuser");
    let (mut a, mut m) = (guest(&d, "a"), guest(&d, "m"));
    send(&mut a, &frame(1, 2, 7));
    assert_eq!(receive(&mut m), [frame(1, 2, 7)]);
}
