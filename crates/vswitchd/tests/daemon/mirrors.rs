//! Mirrors of a running switch.

use crate::bench::{Daemon, wait_for};
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
