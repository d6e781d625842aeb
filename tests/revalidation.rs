//! 100,000 megaflows are corrected in time after any change of tables, groups, learned addresses or
//! ports, while packets go on.
//!
//! The figure that counts is that of a release build (`cargo test --release`); with debug assertions
//! the bound is looser, and printed figures are larger.

use datapath::{Context, Datapath, FlowState, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{Action, DpPort, Translate};
use openflow::{Command, GroupCommand, OfPort};
use pipeline::{BridgeConfig, Pipeline};
use pmd::{Clock, Revalidator};
use port::sim::SimPort;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Megaflows that one change makes stale.
const MEGAFLOWS: u32 = 100_000;
/// Packets without a megaflow that are sent at once: a port may ask for so many at least.
const SLICE: u32 = 500;
/// In this time all must be gone or right: 500 ms, and more where nothing is optimised.
const LIMIT: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 500 });
/// Pause between two looks at the megaflows: looking takes the time of some of them.
const LOOK: Duration = Duration::from_millis(5);
const BRIDGE: &str = "br0";
/// One flow for all packets of port 1 whose megaflows nevertheless differ, because what is written
/// into the packet does.
const SPREAD: &str = "priority=10,in_port=1,ip,\
    actions=move:NXM_OF_IP_DST[]->NXM_OF_IP_SRC[],resubmit(,1)";

struct Scene {
    pipeline: Arc<Pipeline>,
    clock: Clock,
    ports: Vec<Arc<SimPort>>,
    map: PortMap,
    counters: WalkCounters,
    punts: PuntQueue,
    registry: Arc<Registry>,
    datapath: Datapath,
    revalidator: Revalidator,
    /// The datapath's time: it runs ahead, because upcalls are rationed by time.
    now_ms: u64,
}

impl Scene {
    /// Ports 1 to 3, the groups, and table 1 with one flow that does `actions`.
    fn new(groups: &str, actions: &str) -> Scene {
        let pipeline = Arc::new(Pipeline::new());
        pipeline.add_bridge(BRIDGE, BridgeConfig::default(), 0).expect("new");
        let (mut ports, mut map) = (Vec::new(), PortMap::default());
        for n in 1..=3u16 {
            let name = format!("p{n}");
            pipeline.add_port(BRIDGE, &name, OfPort(n), DpPort(n.into())).expect("new");
            ports.push(Arc::new(SimPort::new(&name)));
            map.set(DpPort(n.into()), Some(ports[usize::from(n) - 1].clone()));
        }
        let registry = Arc::<Registry>::default();
        let clock = Clock::default();
        let revalidator = Revalidator::start(pipeline.clone(), clock).expect("a thread");
        revalidator.set_registries(vec![registry.clone()]);
        let scene = Scene {
            pipeline,
            clock,
            ports,
            map,
            counters: WalkCounters::default(),
            punts: PuntQueue::default(),
            datapath: Datapath::new(1, registry.clone()),
            registry,
            revalidator,
            now_ms: 0,
        };
        scene.groups(groups, GroupCommand::Add);
        scene.flow(SPREAD, Command::Add);
        scene.flow(&format!("table=1,actions={actions}"), Command::Add);
        // Nothing idles out before it is looked at.
        let limits = scene.revalidator.limits();
        limits.max_idle_ms.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
        scene
    }

    fn flow(&self, text: &str, command: Command) {
        let change = openflow::parse_flow_mod(text, command, &()).expect(text);
        let done = self.pipeline.flow_mods(BRIDGE, &[change], self.clock.now_ms());
        done.unwrap_or_else(|(_, e)| panic!("{text}: {e}"));
    }

    fn groups(&self, text: &str, command: GroupCommand) {
        for line in text.lines() {
            let change = openflow::parse_group_mod(line, command, &()).expect(line);
            let done = self.pipeline.group_mods(BRIDGE, &[change], self.clock.now_ms());
            done.unwrap_or_else(|(_, e)| panic!("{line}: {e}"));
        }
    }

    fn walk(&mut self, port: usize) {
        let context = Context {
            ports: &self.map,
            translate: &*self.pipeline,
            counters: &self.counters,
            punts: &self.punts,
            thread: 0,
            now_ms: self.now_ms,
            flow_limit: 2 * MEGAFLOWS as usize,
            exact_match: true,
        };
        let number = DpPort(port as u32);
        while self.datapath.walk(&*self.ports[port - 1], 0, number, &context) > 0 {}
    }

    /// One packet of each of so many megaflows, which goes to `to`.
    fn send(&mut self, destinations: std::ops::Range<u32>, to: usize) {
        let wanted = destinations.len();
        for destination in destinations {
            self.ports[0].push(&frame(1, 2, destination));
            if destination % SLICE == 0 {
                self.now_ms += 1000;
                self.walk(1);
            }
        }
        self.now_ms += 1000;
        self.walk(1);
        let sent: Vec<usize> = self.ports.iter().map(|p| p.take().len()).collect();
        assert_eq!(sent[to - 1], wanted, "packets for port {to} of those sent, {sent:?}");
    }

    /// A packet from a sender on another port, which the switch learns from.
    fn announce(&mut self, sender: u8, port: usize) {
        self.ports[port - 1].push(&frame(sender, 9, 0));
        self.walk(port);
        self.ports.iter().for_each(|p| drop(p.take()));
    }

    /// Live megaflows of port 1 that go anywhere but to `to`.
    fn stale(&self, to: u32) -> usize {
        let flows = self.registry.flows();
        let spread = flows.iter().filter(|f| f.state() == FlowState::Live && f.key().in_port == 1);
        spread.filter(|f| f.actions.last() != Some(&Action::Output(DpPort(to)))).count()
    }

    /// Makes the megaflows, which go to port 2, then changes something after which they belong to
    /// port 3, and waits until they know.
    fn corrected(mut self, what: &str, change: impl FnOnce(&mut Scene)) {
        let start = Instant::now();
        self.send(0..MEGAFLOWS, 2);
        let made = start.elapsed();
        assert!(self.registry.len() >= MEGAFLOWS as usize, "{} megaflows", self.registry.len());
        assert_eq!(self.stale(2), 0);
        // Quiet before the change, so that what is measured is its sweep.
        self.revalidator.wait();
        let start = Instant::now();
        change(&mut self);
        while self.stale(3) > 0 {
            assert!(start.elapsed() < LIMIT, "{what}: {} are stale after {LIMIT:?}", self.stale(3));
            std::thread::sleep(LOOK);
            while self.datapath.clean() {}
        }
        let took = start.elapsed();
        println!("{what}: {MEGAFLOWS} megaflows, made in {made:?}, corrected in {took:?}");
        assert!(took < LIMIT, "{what}: {took:?}");
        // Packets are forwarded as the pipeline says now.
        self.send(0..1000, 3);
    }
}

/// IPv4 from host `src` to host `dst`, with a destination address of its own.
fn frame(src: u8, dst: u8, destination: u32) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
    f.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1]);
    f.extend((0x0b00_0000 + destination).to_be_bytes());
    f.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    f.resize(60, 0);
    f
}

#[test]
fn a_change_of_tables_corrects_megaflows() {
    Scene::new("", "output:2")
        .corrected("tables", |s| s.flow("table=1,actions=output:3", Command::Modify));
}

#[test]
fn a_change_of_groups_corrects_megaflows() {
    let group = "group_id=1,type=indirect,bucket=output:2";
    Scene::new(group, "group:1").corrected("groups", |s| {
        s.groups("group_id=1,type=indirect,bucket=output:3", GroupCommand::Modify);
    });
}

#[test]
fn learning_corrects_megaflows() {
    let mut scene = Scene::new("", "normal");
    scene.flow("priority=1,actions=normal", Command::Add);
    scene.announce(2, 2);
    scene.corrected("learning", |s| s.announce(2, 3));
}

#[test]
fn a_port_that_goes_down_corrects_megaflows() {
    let group = "group_id=1,type=ff,bucket=watch_port:2,output:2,bucket=watch_port:3,output:3";
    Scene::new(group, "group:1").corrected("ports", |s| {
        s.pipeline.set_port_state(BRIDGE, OfPort(2), false).expect("there");
    });
}

#[test]
fn unchanged_megaflows_stay() {
    let mut scene = Scene::new("", "output:2");
    scene.send(0..1000, 2);
    let before = scene.counters.upcalls.get();
    scene.flow("table=7,actions=drop", Command::Add);
    assert!(scene.pipeline.generation() > 0);
    scene.revalidator.wait();
    scene.send(0..1000, 2);
    assert_eq!(scene.counters.upcalls.get(), before, "no megaflow had to be made again");
}
