//! MTUs of guests' ports.

use crate::bench::Daemon;
use crate::traffic::{receive, send};
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, SocketMode};

/// Bytes of an Ethernet header and of a VLAN tag, which the MTU does not count.
const HEADER: usize = 14;
const TAG: usize = 4;

/// A guest that insists on being told an MTU (`host_mtu` of QEMU), with buffers for any frame.
fn guest(d: &Daemon, name: &str) -> Driver {
    let socket = SocketMode::Connect(d.rundir().join(name));
    let mut config = Config::new(socket).with(feature::MTU);
    (config.rx_buffer, config.tx_buffer) = (10_000, 10_000);
    let driver = Driver::connect(config).expect("the switch offers VIRTIO_NET_F_MTU");
    d.wait_column(name, "link_state", "up");
    driver
}

/// Writes a frame of `bytes` bytes with so many tags in them.
fn write(tags: usize, bytes: usize, frame: &mut Vec<u8>) {
    Flow::between(1, 1, 2).frame(0, bytes - TAG * tags, frame);
    for _ in 0..tags {
        frame.splice(12..12, [0x81, 0x00, 0, 7]);
    }
}

/// Up to the MTU frames pass, longer by four bytes for each of two tags; longer ones are dropped and counted, and the
/// next one passes.
#[test]
fn frames_up_to_the_mtu_pass_and_longer_ones_are_counted() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for name in ["a", "b"] {
        d.vsctl(&format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"));
    }
    // Not to the bridge's own port, which has another MTU.
    d.appctl("ofctl/add-flow br0 priority=9,in_port=1,actions=output:2");
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    let mut frame = Vec::new();
    for (round, mtu) in [(1, 4000_usize), (2, 9702)] {
        d.vsctl(&format!("set Interface b mtu_request={mtu}"));
        assert_eq!(d.get("b", "mtu"), mtu.to_string());
        let most = mtu + HEADER;
        for (tags, bytes) in [
            (0, most),
            (0, most + 1),
            (1, most + TAG),
            (1, most + TAG + 1),
            (2, most + 2 * TAG),
            (2, most + 2 * TAG + 1),
            (3, most + 2 * TAG + 1),
            (0, 64),
        ] {
            write(tags, bytes, &mut frame);
            send(&mut a, &frame);
            if bytes > most + TAG * tags.min(2) {
                continue;
            }
            let came = receive(&mut b);
            assert_eq!(came.iter().map(Vec::len).collect::<Vec<_>>(), [bytes], "MTU {mtu}");
            assert_eq!(came[0], frame);
        }
        let drops = 4 * round;
        let counter = d.appctl("coverage/read-counter ovs_tx_mtu_exceeded_drops");
        assert_eq!(counter.trim(), drops.to_string(), "MTU {mtu}");
        d.wait_column("b", "statistics:ovs_tx_mtu_exceeded_drops", &drops.to_string());
    }
}
