//! Limits of ports, on the running switch.

use crate::bench::{DEADLINE, Daemon, Patience};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature::{GUEST_OFFLOADS, HOST_OFFLOADS};
use virtio_driver::{Config, Driver, NetHeader, Saturator, SocketMode};

/// How long a limit may take to be seen reached: other programs of this machine take their time too.
const PATIENCE: Duration = Duration::from_secs(20);
/// The one test at a time that wants a core for its load.
pub static LOAD: Mutex<()> = Mutex::new(());

fn guest(d: &Daemon, name: &str) -> Driver {
    guest_with(d, name, |config| config)
}

fn guest_with(d: &Daemon, name: &str, change: fn(Config) -> Config) -> Driver {
    let config = change(Config::new(SocketMode::Connect(d.rundir().join(name))));
    let driver = Driver::connect(config).expect("the switch answers");
    d.wait_column(name, "link_state", "up");
    driver
}

/// A switch with two ports, from the first of which all goes to the second.
fn two_ports() -> Daemon {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- set Open_vSwitch . other_config:pmd-cpu-mask=1");
    for name in ["a", "b"] {
        d.vsctl(&format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"));
    }
    d.appctl("ofctl/add-flow br0 priority=9,in_port=1,actions=output:2");
    d
}

/// Sends as fast as it goes for a while; frames received.
pub fn load(a: &mut Saturator<'_>, b: &mut Saturator<'_>, window: Duration) -> u64 {
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < window {
        a.turn().expect("the device follows the rules");
        received += u64::from(b.turn().expect("the device follows the rules").received);
    }
    received
}

/// Sends frames of `bytes` until `expected` frames came in a second, within 2 %. Never more, but for the
/// `burst` of a full bucket.
fn reaches(d: &Daemon, (a, b): (&mut Driver, &mut Driver), bytes: usize, limit: (f64, f64)) {
    let fill = |n: u16, frame: &mut Vec<u8>| Flow::between(1, 1, 2).frame(n.into(), bytes, frame);
    let a = a.pair(0).saturate(128, fill).expect("room");
    let b = b.pair(0).saturate(0, fill).expect("room");
    reaches_with(d, (a, b), &format!("{bytes} bytes"), limit);
}

/// As [`reaches`], whatever is sent.
fn reaches_with(
    d: &Daemon,
    (mut a, mut b): (Saturator<'_>, Saturator<'_>),
    what: &str,
    (expected, burst): (f64, f64),
) {
    let (start, mut received, mut ratio) = (Instant::now(), 0.0, 0.0);
    // More comes while the bucket is emptied, or less when nobody sends.
    while !(0.98..1.02).contains(&ratio) {
        assert!(start.elapsed() < PATIENCE, "{what}: {ratio} of the limit\n{}", d.log());
        let began = Instant::now();
        let got = load(&mut a, &mut b, Duration::from_secs(1)) as f64;
        ratio = got / (expected * began.elapsed().as_secs_f64());
        received += got;
        let most = expected * start.elapsed().as_secs_f64() * 1.005 + burst + 1.0;
        // What waited in the ring was sent before.
        assert!(received <= most + 256.0, "{what}: {received} of {most}");
    }
    // Everything comes back before the next frames are written.
    let mut patience = Patience::new();
    a.finish(|| patience.waited() < DEADLINE).expect("the device follows the rules");
    let mut rest = 2;
    b.finish(|| {
        rest -= 1;
        rest > 0
    })
    .expect("the device follows the rules");
}

/// A limit in bytes, which are those that follow the Ethernet header, as one in frames.
fn frames(rate: f64, burst: f64, frame: usize) -> (f64, f64) {
    (rate / (frame - 14) as f64, burst / (frame - 14) as f64)
}

fn count(d: &Daemon, counter: &str) -> u64 {
    d.appctl(&format!("coverage/read-counter {counter}")).trim().parse().expect("a number")
}

#[test]
fn egress_policing_holds_its_rate_and_changes_while_traffic_flows() {
    let _alone = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let d = two_ports();
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    d.vsctl(
        "set Port b qos=@q -- --id=@q create QoS type=egress-policer other-config:cir=25000 \
         other-config:cbs=65536",
    );
    assert_eq!(d.get("b", "error"), "[]");
    assert_eq!(d.appctl("qos/show b"), "QoS: b egress-policer\ncir: 25000\ncbs: 65536\n");
    assert_eq!(d.appctl("qos/show a"), "QoS not configured on a\n");
    let types = "QoS type: egress-policer\nQoS type: trtcm-policer\n";
    assert_eq!(d.appctl("qos/show-types b"), types);
    assert_eq!(d.try_appctl(&["qos/show", "nobody"]).status, 2);
    reaches(&d, (&mut a, &mut b), 64, frames(25_000.0, 65_536.0, 64));
    d.vsctl("set QoS . other_config:cir=300000");
    reaches(&d, (&mut a, &mut b), 1500, frames(300_000.0, 65_536.0, 1500));
    // A bucket smaller than many a frame limits, and does not stop; the operator is told.
    d.vsctl("set QoS . other_config:cir=400000 other_config:cbs=1000");
    let told = d.get("b", "error");
    assert!(told.contains("cbs=1000 is less than a super-frame; 65536 bytes"), "{told}");
    assert_eq!(d.log_lines("cbs=1000 is less").len(), 1, "{}", d.log());
    reaches(&d, (&mut a, &mut b), 1500, frames(400_000.0, 65_536.0, 1500));
    let drops = count(&d, "ovs_tx_qos_drops");
    assert!(drops > 1000, "{drops}");
    // What cannot be is told, and limits nothing.
    d.vsctl("set QoS . other_config:cir=0");
    assert!(
        d.get("b", "error").contains("cir=\\\"0\\\" is not in 1 to"),
        "{}",
        d.get("b", "error")
    );
    assert_eq!(d.appctl("qos/show b"), "QoS not configured on b\n");
    d.vsctl("-- --all destroy QoS -- clear Port b qos");
    assert_eq!(d.get("b", "error"), "[]");
    let before = count(&d, "ovs_tx_qos_drops");
    assert!(before >= drops);
    let fill = |n: u16, frame: &mut Vec<u8>| Flow::between(1, 1, 2).frame(n.into(), 1500, frame);
    let mut a = a.pair(0).saturate(64, fill).expect("room");
    let mut b = b.pair(0).saturate(0, fill).expect("room");
    load(&mut a, &mut b, Duration::from_millis(300));
    assert_eq!(count(&d, "ovs_tx_qos_drops"), before);
    // Written with the next statistics.
    d.wait_column("b", "statistics:ovs_tx_qos_drops", &before.to_string());
}

#[test]
fn ingress_policing_by_bits_and_by_packets() {
    let _alone = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let d = two_ports();
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    d.vsctl("set Interface a ingress_policing_rate=200 ingress_policing_burst=1000");
    reaches(&d, (&mut a, &mut b), 64, frames(25_000.0, 125_000.0, 64));
    d.vsctl("set Interface a ingress_policing_rate=2400 ingress_policing_burst=1000");
    reaches(&d, (&mut a, &mut b), 1500, frames(300_000.0, 125_000.0, 1500));
    d.vsctl(
        "set Interface a ingress_policing_rate=0 ingress_policing_kpkts_rate=1 \
         ingress_policing_kpkts_burst=1",
    );
    for bytes in [64, 1500] {
        reaches(&d, (&mut a, &mut b), bytes, (1000.0, 1000.0));
    }
    let drops = count(&d, "ovs_rx_qos_drops");
    assert!(drops > 1000, "{drops}");
    assert_eq!(count(&d, "ovs_tx_qos_drops"), 0);
    d.vsctl("set Interface a ingress_policing_kpkts_rate=0");
    assert_eq!(count(&d, "ovs_rx_qos_drops"), drops, "counts stay when limits go");
}

/// Packets on the wire of a super-frame, and the payload and headers of each.
const SEGMENTS: usize = 20;
const PAYLOAD: usize = 200;
const HEADERS: usize = 54;

/// A super-frame of TCP.
fn super_frame(_: u16, frame: &mut Vec<u8>) {
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    frame.extend(((HEADERS - 14 + SEGMENTS * PAYLOAD) as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.resize(HEADERS + SEGMENTS * PAYLOAD, 7);
}

#[test]
fn super_frames_take_what_they_are_on_the_wire() {
    let _alone = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let d = two_ports();
    let offloads = |config: Config| Config {
        tx_buffer: 8192,
        rx_buffer: 8192,
        ..config.with(HOST_OFFLOADS | GUEST_OFFLOADS)
    };
    let (mut a, mut b) = (guest_with(&d, "a", offloads), guest_with(&d, "b", offloads));
    let header = NetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: HEADERS as u16,
        gso_size: PAYLOAD as u16,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    let mut reaches = |what: &str, rate: f64, burst: f64, of_each: usize| {
        let a = a.pair(0).saturate_with(128, &header, super_frame).expect("room");
        let b = b.pair(0).saturate(0, super_frame).expect("room");
        let all = (SEGMENTS * of_each) as f64;
        reaches_with(&d, (a, b), what, (rate / all, burst / all));
    };
    // Each packet on the wire counts, with headers of its own.
    let bytes = HEADERS - 14 + PAYLOAD;
    d.vsctl("set Interface a ingress_policing_kpkts_rate=10 ingress_policing_kpkts_burst=1");
    reaches("packets", 10_000.0, 1000.0, 1);
    d.vsctl(
        "set Interface a ingress_policing_kpkts_rate=0 ingress_policing_rate=16000 \
         ingress_policing_burst=1000",
    );
    reaches("received bytes", 2e6, 125_000.0, bytes);
    d.vsctl(
        "set Interface a ingress_policing_rate=0 -- set Port b qos=@q -- --id=@q create QoS \
         type=egress-policer other-config:cir=3000000 other-config:cbs=65536",
    );
    reaches("sent bytes", 3e6, 65_536.0, bytes);
    for drops in ["ovs_rx_qos_drops", "ovs_tx_qos_drops"] {
        let drops = count(&d, drops);
        assert!(drops > 0 && drops.is_multiple_of(SEGMENTS as u64), "{drops}");
    }
}

/// Two queues of one port with rates of their own, chosen by flows; the sums of the port's two rates bound
/// them both.
#[test]
fn queues_have_rates_of_their_own_and_are_counted() {
    let _alone = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let d = two_ports();
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    d.vsctl(
        "set Port b qos=@q -- --id=@q create QoS type=trtcm-policer other_config:cir=150000 \
         other_config:cbs=65536 other_config:eir=150000 other_config:ebs=65536 queues:5=@n queues:6=@bad \
         -- --id=@n create Queue other_config:cir=25000 other_config:cbs=65536 -- --id=@bad create Queue \
         other_config:cir=9",
    );
    let told = d.get("b", "error");
    assert!(told.contains("queue 6: other_config:cbs must be in 1 to"), "{told}");
    // The default queue: the port's committed and excess rate.
    reaches(&d, (&mut a, &mut b), 1500, frames(300_000.0, 131_072.0, 1500));
    let stats = |queue: u16| -> Vec<u64> {
        let text = d.appctl(&format!("ofctl/queue-stats br0 b {queue}"));
        let line = text.lines().nth(1).unwrap_or_default().to_owned();
        assert!(line.starts_with(&format!("  port 2 queue {queue}: bytes=")), "{text}");
        let numbers = line.split(['=', ',']).filter_map(|n| n.parse().ok());
        numbers.collect()
    };
    let default = stats(0);
    assert_eq!(default[0], default[1] * 1486, "{default:?}");
    assert!(default[2] > 100 && default[2] == count(&d, "ovs_tx_qos_drops"), "{default:?}");
    assert_eq!(stats(5), [0, 0, 0]);
    // A flow chooses the other, which has no excess rate.
    d.appctl("ofctl/add-flow br0 priority=9,in_port=1,actions=set_queue:5,output:2");
    reaches(&d, (&mut a, &mut b), 64, frames(25_000.0, 65_536.0, 64));
    let narrow = stats(5);
    assert!(narrow[1] > 100 && narrow[2] > 100, "{narrow:?}");
    let shown = d.appctl("qos/show b");
    assert!(shown.starts_with("QoS: b trtcm-policer\ncir: 150000\neir: 150000\n"), "{shown}");
    assert!(
        shown.contains("\n\nQueue 5:\n  cir: 25000\n") && !shown.contains("Queue 6"),
        "{shown}"
    );
    let all = d.appctl("ofctl/queue-stats br0");
    assert!(all.starts_with("OFPST_QUEUE reply (xid=0x2): 2 queues\n"), "{all}");
    let config = d.appctl("ofctl/queue-get-config br0 2");
    assert_eq!(config, "OFPT_QUEUE_GET_CONFIG_REPLY (xid=0x2): port=2\nqueue 0:\nqueue 5:\n");
    assert_eq!(d.try_appctl(&["ofctl/queue-stats", "br0", "b", "7"]).status, 2);
    // A flow's queue that is not there is the default one.
    d.appctl("ofctl/add-flow br0 priority=9,in_port=1,actions=enqueue:2:77");
    reaches(&d, (&mut a, &mut b), 1500, frames(300_000.0, 131_072.0, 1500));
    assert!(stats(0)[1] > default[1]);
}
