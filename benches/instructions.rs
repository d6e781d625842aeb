//! What `cargo xtask instructions` counts: the switch's side of one case, a fixed number of times.
//!
//! Without an argument it names the cases, one a line. With a case's name it does that case and prints
//! by how many packets (polls, for the idle queue) the instructions are to be divided. One thread plays
//! the guests and the switch in turn, through real rings and the whole walk, so every run executes the
//! same instructions; the clock stands still. Counted by callgrind are those within [`measured`], whose
//! name `xtask` relies on.
#![forbid(unsafe_code)]

use benches::{udp_frame, udp6_frame};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters, WalkCounts};
use flow::DpPort;
use openflow::{Command, OfPort, parse_flow_mods};
use packet::BURST;
use pipeline::{BridgeConfig, Pipeline};
use port::Port;
use port_vhost::{Config, Mode, VhostPort};
use qos::{Limit, Limits, Policer};
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use virtio_driver::config::{self, SocketMode};
use virtio_driver::wire::feature::{CSUM, GUEST_CSUM, MRG_RXBUF, RING_PACKED};
use virtio_driver::{Driver, NetHeader, Saturator, Stamp};

/// Walks that are counted: whole rounds of 1,000 flows and of rings of 256.
const WALKS: usize = 1000;
/// Walks before: every flow has its megaflow, all that grows has grown, and the thread owns its rings,
/// which it does after 1,024 claims.
const WARM_UP: usize = 2000;
/// Frames that the sender has in its ring: more than two bursts, so that all bursts are full.
const DEPTH: u16 = 128;
/// Of many flows.
const MANY: u16 = 1000;
/// Where the transport ports of a plain IPv4 frame are, in bytes.
const PORTS_AT: usize = 34;
/// How long a message to a port may take under callgrind on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent and what becomes of it.
struct Case {
    name: &'static str,
    /// Of all guests' devices, besides those that every device has. With checksums those of frames are left to
    /// whoever receives them.
    features: u64,
    /// Sent by port 1 again and again; nothing for an idle queue.
    frame: Option<fn() -> Vec<u8>>,
    /// Flows that frames belong to in turn, by their transport ports.
    flows: u16,
    /// Whether the exact-match cache is used.
    exact_match: bool,
    /// The flow table, besides a flow for each of many.
    table: &'static str,
    /// Ports that get each frame, from 2 on.
    receivers: u16,
    /// Whether ports have limits, which let everything pass: by bytes, in both directions.
    policed: bool,
}

/// The plainest case; others differ from it.
const PLAIN: Case = Case {
    name: "64 B, one flow, split, mergeable",
    features: MRG_RXBUF,
    frame: Some(short),
    flows: 1,
    exact_match: true,
    table: "actions=output:2",
    receivers: 1,
    policed: false,
};

const REWRITING: &str = "ip,actions=set_field:02:00:00:00:00:09->eth_dst,\
    set_field:10.0.0.9->ip_dst,dec_ttl,push_vlan:0x8100,set_field:4196->vlan_vid,output:2";

const CASES: &[Case] = &[
    PLAIN,
    Case { name: "64 B, one flow, split, not mergeable", features: 0, ..PLAIN },
    Case { name: "64 B, one flow, packed", features: MRG_RXBUF | RING_PACKED, ..PLAIN },
    Case { name: "64 B, 1,000 flows, exact-match cache", flows: MANY, ..PLAIN },
    Case {
        name: "64 B, 1,000 flows, megaflow classifier",
        flows: MANY,
        exact_match: false,
        ..PLAIN
    },
    Case { name: "1500 B, one flow", frame: Some(long), ..PLAIN },
    Case {
        name: "1500 B, checksums left to do",
        features: MRG_RXBUF | CSUM | GUEST_CSUM,
        frame: Some(long),
        ..PLAIN
    },
    Case { name: "64 B, rewritten and tagged", table: REWRITING, ..PLAIN },
    Case { name: "68 B, VLAN tag", frame: Some(tagged), ..PLAIN },
    Case { name: "78 B, IPv6", frame: Some(|| udp6_frame().to_vec()), ..PLAIN },
    Case { name: "64 B, flood to 8 ports", table: "actions=flood", receivers: 8, ..PLAIN },
    // What a mirror comes to in the datapath.
    Case { name: "64 B, mirrored", table: "actions=output:3,output:2", receivers: 2, ..PLAIN },
    Case { name: "64 B, policed on both sides", policed: true, ..PLAIN },
    Case { name: "1500 B, policed on both sides", frame: Some(long), policed: true, ..PLAIN },
    Case { name: "idle queue, each poll", frame: None, ..PLAIN },
];

fn short() -> Vec<u8> {
    let mut frame = udp_frame(1).to_vec();
    // A checksum, of any value: one that is there is updated when an address changes.
    frame[40] = 1;
    frame
}

fn long() -> Vec<u8> {
    let mut frame = short();
    frame.resize(1500, 0);
    frame[16..18].copy_from_slice(&1486u16.to_be_bytes());
    frame[38..40].copy_from_slice(&1466u16.to_be_bytes());
    frame
}

fn tagged() -> Vec<u8> {
    let mut frame = short();
    frame.splice(12..12, [0x81, 0, 0, 100]);
    frame
}

/// A bridge with the case's ports and flows.
fn pipeline(case: &Case) -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    for n in 1..=1 + case.receivers {
        p.add_port("br0", &format!("p{n}"), OfPort(n), DpPort(n.into())).expect("new");
    }
    let mut flows = format!("priority=1,{}\n", case.table);
    if case.flows > 1 {
        for n in 0..case.flows {
            flows += &format!("priority=2,udp,tp_src={n},{}\n", case.table);
        }
    }
    let mods = parse_flow_mods(&flows, Command::Add, &()).expect("the flows are right");
    p.flow_mods("br0", &mods, 0).expect("the flows are right");
    p
}

/// A port of the switch and the guest on it.
fn guest(dir: &Path, number: u16, features: u64) -> (Arc<VhostPort>, Driver) {
    let path = dir.join(number.to_string());
    let port = VhostPort::open(Config {
        name: number.to_string(),
        mode: Mode::Server,
        path: path.clone(),
        mtu: 1500,
        offers: port_vhost::Offers::All,
        on_change: Box::new(|| ()),
    })
    .expect("socket in a temporary directory");
    let mut config =
        config::Config::new(SocketMode::Connect(path)).without(MRG_RXBUF).with(features);
    config.patience = PATIENCE;
    (Arc::new(port), Driver::connect(config).expect("the port answers"))
}

/// The guest that sends.
fn sender<'a>(driver: &'a mut Driver, case: &Case) -> Saturator<'a> {
    let Some(frame) = case.frame else {
        return receiver(driver);
    };
    let fill = |_, room: &mut Vec<u8>| room.extend(frame());
    let header = match case.features & CSUM != 0 {
        true => NetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..NetHeader::default() },
        false => NetHeader::default(),
    };
    let mut sender = driver.pair(0).saturate_with(DEPTH, &header, fill).expect("frames fit");
    if case.flows > 1 {
        let values = (0..case.flows).map(|flow| {
            let [hi, lo] = flow.to_be_bytes();
            [hi, lo, 7, 208]
        });
        let stamp = Stamp { at: PORTS_AT, values: values.collect(), next: 0 };
        sender.stamp(stamp).expect("frames have ports");
    }
    sender
}

/// A guest that only receives.
fn receiver(driver: &mut Driver) -> Saturator<'_> {
    driver.pair(0).saturate(0, |_, _| ()).expect("buffers fit")
}

/// What is counted: one poll of one queue, and all that follows from it. Returns packets.
#[inline(never)]
fn measured(datapath: &mut Datapath, port: &dyn Port, c: &Context<'_>) -> usize {
    black_box(walk(datapath, port, c))
}

/// Not to be inlined, so that warm-up and measurement run the same code.
#[inline(never)]
fn walk(datapath: &mut Datapath, port: &dyn Port, c: &Context<'_>) -> usize {
    datapath.walk(port, 0, DpPort(1), c)
}

/// All that a case needs but the guests.
struct Switch<'a> {
    datapath: Datapath,
    from: &'a VhostPort,
    context: Context<'a>,
}

type Walk = fn(&mut Datapath, &dyn Port, &Context<'_>) -> usize;

/// Lets guests and switch do so many rounds. Returns the packets that the guests received.
fn rounds(n: usize, switch: &mut Switch<'_>, guests: &mut [Saturator<'_>], walk: Walk) -> u64 {
    let mut received = 0;
    for _ in 0..n {
        walk(&mut switch.datapath, switch.from, &switch.context);
        for guest in &mut *guests {
            received += u64::from(guest.turn().expect("the switch keeps to the rules").received);
        }
    }
    received
}

/// Makes sure that the case was what it says it is.
fn check(case: &Case, counts: &WalkCounts, received: u64) {
    let packets = if case.frame.is_some() { (WALKS * BURST) as u64 } else { 0 };
    assert_eq!(counts.received, packets, "all bursts are full");
    assert_eq!(received, packets * u64::from(case.receivers), "all packets arrive");
    let hits = if case.exact_match { counts.emc_hits } else { counts.megaflow_hits };
    assert_eq!(hits, packets, "all packets hit");
}

/// Limits that nothing reaches.
fn unreached() -> Arc<Policer> {
    let limit = Some(Limit { rate: 1 << 40, burst: 1 << 50 });
    let limits = Limits { rx_bytes: limit, tx_bytes: limit, ..Limits::default() };
    Arc::new(Policer::new(limits, Arc::new(|| 1), Arc::default()))
}

/// Does the case. Returns by what its instructions are to be divided.
fn run(case: &Case) -> usize {
    let dir = tempfile::tempdir().expect("directory");
    let (ports, mut drivers): (Vec<_>, Vec<_>) =
        (1..=1 + case.receivers).map(|n| guest(dir.path(), n, case.features)).unzip();
    let mut map = PortMap::default();
    for (port, number) in ports.iter().zip(1..) {
        map.set(DpPort(number), Some(port.clone()));
        map.police(DpPort(number), case.policed.then(unreached));
    }
    let (pipeline, counters, punts) =
        (pipeline(case), WalkCounters::default(), PuntQueue::default());
    let context = Context {
        ports: &map,
        translate: &pipeline,
        counters: &counters,
        punts: &punts,
        thread: 0,
        now_ms: 1,
        flow_limit: 200_000,
        exact_match: case.exact_match,
    };
    for port in &ports {
        let agreed = port.status().features & (MRG_RXBUF | RING_PACKED | CSUM | GUEST_CSUM);
        assert_eq!(agreed, case.features, "the rings are the case's");
    }
    let datapath = Datapath::new(1, Arc::<Registry>::default());
    let mut switch = Switch { datapath, from: &ports[0], context };
    let (first, others) = drivers.split_at_mut(1);
    let mut guests = vec![sender(&mut first[0], case)];
    guests.extend(others.iter_mut().map(receiver));
    rounds(WARM_UP, &mut switch, &mut guests, walk);
    switch.datapath.rank();
    let before = counters.counts();
    let received = rounds(WALKS, &mut switch, &mut guests, measured);
    check(case, &counters.counts().since(&before), received);
    if case.frame.is_some() { WALKS * BURST } else { WALKS }
}

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    };
    let Some(case) = CASES.iter().find(|case| case.name == wanted) else {
        eprintln!("no case is called {wanted}; without an argument their names are printed");
        return ExitCode::FAILURE;
    };
    println!("{}", run(case));
    ExitCode::SUCCESS
}
