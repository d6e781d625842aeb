//! Guest to guest through real rings on two cores: what a packet costs the polling thread, all in, when
//! the exact-match cache has it, and when only the megaflow classifier does.
//!
//! One thread is the switch (rings, keys, caches, rings), another both guests. The time-stamp counter is
//! read around bursts that had packets, so idle polling does not count. Not a criterion bench: what
//! matters is the median of many short windows, in cycles a packet.
//!
//! At the end a third port provokes a new mask with every packet (tuple-space explosion), and the guests'
//! packets a second are compared with those without it, in windows that alternate.

use benches::{Endless, Nothing, listening_port, pin, udp_frame};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{Action, DpPort, FlowKey, FlowMask, Translate, Translation};
use packet::arch::cycles;
use port_vhost::VhostPort;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use virtio_driver::config::{self, SocketMode};
use virtio_driver::{Driver, wire};

/// Descriptors of a ring; each transmit buffer holds a flow of its own.
const RING: u16 = 1024;
/// Windows for each case, and their length.
const WINDOWS: usize = 31;
const WINDOW: Duration = Duration::from_millis(40);

/// The port that provokes masks, how many different packets it sends, and how many a second.
const ATTACKER: DpPort = DpPort(3);
const ATTACK_FRAMES: u16 = 18_000;
const ATTACK_PPS: u32 = 10_000;

/// From port 1 to port 2 and back. The transport source port decides; `masks` different masks are made
/// by which bits of the destination port a flow looks at.
struct Across {
    masks: u16,
}

impl Translate for Across {
    fn translate(&self, key: &FlowKey) -> Translation {
        let mut mask = FlowMask::default();
        if key.in_port == ATTACKER.0 {
            mask.bits_mut().nw_src = (0x9e37_79b9 * u32::from(key.tp_src.get())).into();
            mask.bits_mut().tp_src = key.tp_src;
            return Translation { mask, actions: Vec::new(), effects: Arc::new(Nothing) };
        }
        mask.bits_mut().tp_src = u16::MAX.into();
        mask.bits_mut().tp_dst = (key.tp_src.get() % self.masks).into();
        let to = if key.in_port == 1 { 2 } else { 1 };
        Translation { mask, actions: vec![Action::Output(DpPort(to))], effects: Arc::new(Nothing) }
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn guest(dir: &Path, name: &str) -> (Arc<VhostPort>, Driver) {
    let (port, path) = listening_port(dir, name);
    let mut config = config::Config::new(SocketMode::Connect(path)).with(wire::feature::MRG_RXBUF);
    config.queue_size = RING;
    (port, Driver::connect(config).expect("the port answers"))
}

/// Both guests, each sending `flows` flows over and over, until `stop`.
fn load(mut a: Driver, mut b: Driver, flows: u16, stop: &AtomicBool) {
    pin(1);
    let depth = flows.clamp(128, RING - 24);
    let fill = |n: u16, frame: &mut Vec<u8>| frame.extend_from_slice(&udp_frame(n % flows));
    let mut a = a.pair(0).saturate(depth, fill).expect("frames fit");
    let mut b = b.pair(0).saturate(depth, fill).expect("frames fit");
    while !stop.load(Relaxed) {
        a.turn().expect("the switch keeps to the rules");
        b.turn().expect("the switch keeps to the rules");
    }
}

/// Cycles a packet of one window, and packets a second.
fn window(
    datapath: &mut Datapath,
    ports: &[Arc<VhostPort>; 2],
    attacker: Option<&Endless>,
    c: &Context<'_>,
) -> (f64, f64) {
    let (mut packets, mut spent) = (0, 0);
    let began = Instant::now();
    let mut attacked = 0;
    while began.elapsed() < WINDOW {
        for _ in 0..64 {
            for (port, number) in ports.iter().zip([1, 2]) {
                let before = cycles();
                let n = datapath.walk(&**port, 0, DpPort(number), c);
                if n > 0 {
                    packets += n;
                    spent += cycles() - before;
                }
            }
        }
        let due = (began.elapsed().as_secs_f64() * f64::from(ATTACK_PPS)) as usize;
        if let Some(attacker) = attacker
            && attacked < due
        {
            // Upcalls are rationed by time.
            let now_ms = c.now_ms + began.elapsed().as_millis() as u64;
            attacked += datapath.walk(attacker, 0, ATTACKER, &Context { now_ms, ..*c });
        }
    }
    (spent as f64 / packets as f64, packets as f64 / began.elapsed().as_secs_f64())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Two guests on rings, and a switch between them while `measure` runs.
fn scene(
    flows: u16,
    masks: u16,
    exact_match: bool,
    measure: impl FnOnce(&mut Datapath, &[Arc<VhostPort>; 2], &Context<'_>),
) {
    let dir = tempfile::tempdir().expect("directory");
    let (port_a, driver_a) = guest(dir.path(), "a");
    let (port_b, driver_b) = guest(dir.path(), "b");
    let mut map = PortMap::default();
    map.set(DpPort(1), Some(port_a.clone()));
    map.set(DpPort(2), Some(port_b.clone()));
    let (translate, counters) = (Across { masks }, WalkCounters::default());
    let (punts, stop) = (PuntQueue::default(), AtomicBool::new(false));
    let context = Context {
        ports: &map,
        translate: &translate,
        counters: &counters,
        punts: &punts,
        thread: 0,
        now_ms: 1,
        flow_limit: 200_000,
        exact_match,
    };
    let mut datapath = Datapath::new(1, Arc::<Registry>::default());
    let ports = [port_a, port_b];
    std::thread::scope(|s| {
        s.spawn(|| load(driver_a, driver_b, flows, &stop));
        // Caches and rings become as they stay.
        window(&mut datapath, &ports, None, &context);
        datapath.rank();
        measure(&mut datapath, &ports, &context);
        stop.store(true, Relaxed);
    });
}

fn case(name: &str, flows: u16, masks: u16, exact_match: bool) {
    scene(flows, masks, exact_match, |datapath, ports, c| {
        let windows: Vec<_> = (0..WINDOWS).map(|_| window(datapath, ports, None, c)).collect();
        let cost = median(windows.iter().map(|w| w.0).collect());
        let rate = median(windows.iter().map(|w| w.1).collect());
        println!("{name:44} {cost:6.0} cycles/packet {:7.3} Mpps", rate / 1e6);
    });
}

/// The guests' packets a second beside an attack, as a share of those without it.
fn attack(exact_match: bool) {
    let attacker = Endless::new((0..ATTACK_FRAMES).map(udp_frame).collect());
    scene(1000, 1, exact_match, |datapath, ports, c| {
        // All its masks, as far as they fit.
        let mut now_ms = 1000;
        for _ in 0..2 * ATTACK_FRAMES / 32 {
            now_ms += 10;
            datapath.walk(&attacker, 0, ATTACKER, &Context { now_ms, ..*c });
        }
        let ratios = (0..WINDOWS).map(|_| {
            now_ms += 1000;
            let c = &Context { now_ms, ..*c };
            let (_, without) = window(datapath, ports, None, c);
            window(datapath, ports, Some(&attacker), c).1 / without
        });
        let share = median(ratios.collect()) * 100.0;
        let cache = if exact_match { "with" } else { "without" };
        let searched = c.counters.subtable_lookups.get();
        println!(
            "{ATTACK_PPS} packets/s that provoke masks, {cache} exact-match cache: \
             {share:.1} % of the rate ({searched} lookups)"
        );
    });
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| name.contains(o.as_str()));
    pin(0);
    println!("64-byte frames, both ways, one polling core; medians of {WINDOWS} windows");
    let run = |name: &str, flows, masks, exact_match| {
        if wanted(name) {
            case(name, flows, masks, exact_match);
        }
    };
    run("1 flow, exact-match cache", 1, 1, true);
    run("1,000 flows, exact-match cache", 1000, 1, true);
    for masks in [1, 2, 4, 8, 16, 32] {
        run(&format!("1,000 flows, megaflow classifier, {masks} masks"), 1000, masks, false);
    }
    if wanted("attack") {
        attack(true);
        attack(false);
    }
}
