//! The running switch: bridges and interfaces as they are, made to follow the configuration.

use crate::capture::Captures;
use crate::coverage::Coverage;
use crate::desired::{Bridge, Desired, Interface};
use crate::device::Opened;
use crate::interface::{Dirs, Spec, mtu, offers, spec};
use crate::mtus::Kept;
use crate::numbers::{claims, lowest, ordinary};
use crate::packet_ins::PacketIns;
use crate::police;
use crate::queues::CLOSING;
use crate::retry::Retry;
use datapath::{PUNTS_MAX, Steered};
use flow::DpPort;
use ovsdb::Uuid;
use pipeline::{OfPort, Pipeline};
use pmd::{Clock, Pool, PortEntry, Revalidator, SleepMax, Topology, parse_cpu_mask};
use port::{Counters, Port};
use port_kernel::Links;
use port_vhost::Offers;
use port_xdp::SharedFrames;
use qos::{Limits, Policer, QosDrops};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Megaflows kept by each thread unless `other_config:flow-limit` says otherwise, and idle time
/// after which one goes unless `other_config:max-idle` does, as in OVS.
const FLOW_LIMIT: u64 = 200_000;
const MAX_IDLE_MS: u64 = 10_000;
/// The highest `flow-limit`: a megaflow takes about 1 KB with its place in the tables, and there is
/// a table for each thread.
const FLOW_LIMIT_MAX: u64 = 1_000_000;
/// The highest datapath port number: each PMD thread has room for a burst to each, 33 bytes.
const DP_MAX: u32 = 65_535;
/// `Interface.ofport` of an interface that could not be opened.
pub(crate) const OFPORT_NONE: i64 = -1;

/// An interface that runs.
pub(crate) struct Running {
    pub(crate) uuid: Uuid,
    pub(crate) bridge: String,
    pub(crate) number: OfPort,
    pub(crate) dp: DpPort,
    pub(crate) opened: Opened,
    /// What the pipeline was told of its link.
    pub(crate) told_up: Option<bool>,
    /// What threads send through, if `tx-steering` is `hash`: its port, steered.
    steered: Option<Arc<dyn Port>>,
    /// Its limits, if it has any.
    policer: Option<Arc<Policer>>,
    /// What was said of it in its row.
    complaint: Option<String>,
    mtu: Kept,
    /// What they dropped so far.
    pub(crate) qos_drops: Arc<QosDrops>,
}

impl Running {
    /// What it counted.
    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.opened.counters();
        police::add(&mut counters, &self.qos_drops);
        counters
    }

    /// Spreads flows over its transmit queues from now on, or threads.
    fn steer(&mut self, name: &str, by_hash: bool) {
        if self.steered.is_some() == by_hash {
            return;
        }
        let port = self.opened.port().filter(|_| by_hash);
        let seed = RandomState::new().hash_one(name);
        self.steered = port.map(|port| Arc::new(Steered::new(port, seed)) as Arc<dyn Port>);
        let mode = if by_hash { "hash" } else { "thread" };
        info!("{name}: Tx packet steering mode has been set to '{mode}'");
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> Limits {
        self.policer.as_ref().map_or_else(Limits::default, |p| p.limits().clone())
    }

    /// Has these limits from now on: with full buckets, if they are others than before.
    fn police(&mut self, limits: Limits, clock: Clock) {
        if self.limits() == limits {
            return;
        }
        let limited = limits != Limits::default();
        let new = || Policer::new(limits, Arc::new(move || clock.now_ns()), self.qos_drops.clone());
        self.policer = limited.then(|| Arc::new(new()));
    }
}

/// What became of an interface's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ofport: i64,
    pub(crate) error: Option<String>,
}

/// What an interface is to be.
struct Wanted<'d> {
    bridge: &'d Bridge,
    interface: &'d Interface,
    spec: Result<Spec, String>,
    /// The OpenFlow number that it has a right to.
    number: Option<OfPort>,
}

impl Wanted<'_> {
    /// True if `opened` is what this asks for.
    fn opens(&self, opened: &Opened) -> bool {
        self.spec.as_ref().is_ok_and(|s| *s == opened.spec) && !opened.is_gone()
    }
}

/// Everything that runs.
pub(crate) struct Switch {
    pub(crate) rundir: PathBuf,
    /// `/sys`, or a faked one.
    sysfs: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) pool: Pool,
    pub(crate) revalidator: Arc<Revalidator>,
    pub(crate) coverage: Coverage,
    /// What controllers would be told.
    pub(crate) packet_ins: PacketIns,
    /// Who watches ports.
    pub(crate) captures: Captures,
    /// By name, which is unique in the daemon.
    pub(crate) running: BTreeMap<String, Running>,
    /// Datapath numbers of the bridges' own ports.
    pub(crate) locals: BTreeMap<String, DpPort>,
    /// The lowest MTU of each bridge's interfaces.
    pub(crate) mtus: BTreeMap<String, u32>,
    /// What the kernel says of netdevs.
    pub(crate) links: Arc<Links>,
    /// Memory that AF_XDP ports share, if they do.
    shared_frames: Option<Arc<SharedFrames>>,
    /// By the interface's row.
    pub(crate) outcomes: BTreeMap<Uuid, Outcome>,
    /// What interfaces that are gone counted, so that sums never fall.
    pub(crate) departed: Counters,
    pub(crate) desired: Desired,
    /// What was said of mirrors that have no output, by bridge.
    pub(crate) closed_mirrors: BTreeMap<String, BTreeSet<String>>,
    wanted_mask: Option<String>,
    /// Interfaces that could not be opened, though what they need is there.
    refused: BTreeMap<String, Retry>,
    /// When a port was closed last, or may have been by the end of a daemon before this.
    closed: Instant,
    /// Datapath numbers that were given up, and the count of the revalidator's sweeps from which on
    /// they may be given out again.
    resting: Vec<(DpPort, u64)>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

impl Switch {
    /// A switch without bridges. `notify` is called, from any thread, when an interface changes.
    ///
    /// # Errors
    /// If the system gives no thread, or says nothing of netdevs.
    pub(crate) fn new(
        rundir: PathBuf,
        sysfs: PathBuf,
        notify: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Switch> {
        let changed = notify.clone();
        let links = Links::start(Box::new(move || changed()))?;
        let clock = Clock::default();
        let pipeline = Arc::new(Pipeline::new());
        let topology = Topology::of_this_process(&sysfs);
        let revalidator = Arc::new(Revalidator::start(pipeline.clone(), clock)?);
        let pool = Pool::new(topology, pipeline.clone(), clock, FLOW_LIMIT as usize);
        Ok(Switch {
            rundir,
            sysfs,
            clock,
            pipeline,
            pool,
            revalidator,
            coverage: Coverage::default(),
            packet_ins: PacketIns::default(),
            captures: Captures::default(),
            running: BTreeMap::new(),
            locals: BTreeMap::new(),
            mtus: BTreeMap::new(),
            links,
            shared_frames: None,
            outcomes: BTreeMap::new(),
            departed: Counters::default(),
            desired: Desired::default(),
            closed_mirrors: BTreeMap::new(),
            wanted_mask: None,
            refused: BTreeMap::new(),
            closed: Instant::now(),
            resting: Vec::new(),
            notify,
        })
    }

    /// Makes everything as `desired` says. What cannot be is in [`Switch::outcomes`]; it disturbs
    /// nothing else.
    pub(crate) fn follow(&mut self, desired: Desired) {
        for complaint in &desired.complaints {
            if !self.desired.complaints.contains(complaint) {
                warn!("{complaint}");
            }
        }
        self.follow_settings(&desired);
        let wanted = self.wanted(&desired);
        let mut moving = self.take_away(&desired, &wanted);
        for bridge in &desired.bridges {
            self.follow_bridge(bridge);
        }
        let mut outcomes = BTreeMap::new();
        // What is there already comes first, so that nothing new takes its place.
        let there = |name: &str| self.running.contains_key(name) || moving.contains_key(name);
        let (mut order, new): (Vec<&str>, Vec<&str>) = wanted.keys().partition(|n| there(n));
        order.extend(new);
        for name in order {
            let w = &wanted[name];
            let outcome = self.follow_interface(w, &wanted, moving.remove(name));
            if let Some(error) = &outcome.error
                && self.outcomes.get(&w.interface.uuid).map(|o| &o.error) != Some(&outcome.error)
            {
                warn!("{name}: {error}");
            }
            outcomes.insert(w.interface.uuid, outcome);
        }
        self.outcomes = outcomes;
        for bridge in &desired.bridges {
            self.follow_ports(bridge);
            self.follow_mirrors(bridge);
        }
        self.desired = desired;
        self.follow_addresses();
        self.follow_mtus();
        self.links_changed();
        self.publish_ports();
    }

    fn follow_settings(&mut self, desired: &Desired) {
        let mask = desired.other_config.get("pmd-cpu-mask").cloned();
        if self.wanted_mask != mask || !self.pool.has_threads() {
            let cores = match mask.as_deref().map(parse_cpu_mask) {
                None => Vec::new(),
                Some(Ok(cores)) => cores,
                Some(Err(e)) => {
                    warn!("{e}; one core of each NUMA node is used");
                    Vec::new()
                }
            };
            self.pool.set_cores(&cores);
            self.wanted_mask = mask;
            self.tell_revalidator();
        }
        let limit = desired.number("flow-limit").unwrap_or(FLOW_LIMIT);
        self.pool.set_flow_limit(limit.min(FLOW_LIMIT_MAX) as usize);
        // The inverse of a probability in OVS; here, 0 turns the cache off and all else is 1.
        self.pool.set_exact_match(desired.number("emc-insert-inv-prob") != Some(0));
        let metrics = desired.other_config.get("pmd-perf-metrics");
        self.pool.set_metrics(metrics.is_some_and(|v| v == "true"));
        self.pool.set_idle_wait(desired.number("pmd-idle-wait"));
        self.pool.set_rules(desired.rules());
        self.pool.set_auto_balance(desired.auto_balance());
        self.pool.set_sleep_max(SleepMax::parse(desired.sleep_max()).0);
        let frames = desired.shared_frames();
        if self.shared_frames.as_ref().map_or(0, |s| s.count()) != frames {
            self.shared_frames = (frames > 0).then(|| Arc::new(SharedFrames::new(frames)));
        }
        let idle = desired.number("max-idle").unwrap_or(MAX_IDLE_MS);
        self.revalidator.limits().max_idle_ms.store(idle.max(500), Relaxed);
    }

    /// What each interface is to be, by name, which is unique in the database.
    fn wanted<'d>(&self, desired: &'d Desired) -> BTreeMap<&'d str, Wanted<'d>> {
        let vhost_sock_dir = desired.other_config.get("vhost-sock-dir").map(String::as_str);
        let dirs = Dirs { rundir: &self.rundir, vhost_sock_dir };
        let shared_frames = desired.shared_frames();
        let mut wanted = BTreeMap::new();
        for bridge in &desired.bridges {
            let has = |i: &Interface| match self.running.get(&i.name) {
                Some(r) if r.bridge == bridge.name => Some(r.number),
                _ => i.ofport.and_then(ordinary),
            };
            let others: Vec<&Interface> = bridge.interfaces.iter().filter(|i| !i.local).collect();
            let claims = claims(&others, has);
            for interface in &bridge.interfaces {
                let spec = spec(interface, dirs).map(|spec| spec.sharing(shared_frames));
                let claimed = || claims.get(&interface.uuid).copied();
                let number = if interface.local { Some(OfPort::LOCAL) } else { claimed() };
                wanted.insert(&*interface.name, Wanted { bridge, interface, spec, number });
            }
        }
        wanted
    }

    /// Closes what is not wanted any more, or must be opened anew, and removes bridges that are gone.
    /// What only moves to another bridge or number is taken from its bridge, but stays open: its guest
    /// notices nothing.
    fn take_away(
        &mut self,
        desired: &Desired,
        wanted: &BTreeMap<&str, Wanted<'_>>,
    ) -> BTreeMap<String, Running> {
        let in_place = |name: &String, r: &mut Running| {
            wanted.get(&**name).is_some_and(|w| {
                w.opens(&r.opened) && w.bridge.name == r.bridge && w.number == Some(r.number)
            })
        };
        let taken: BTreeMap<String, Running> =
            self.running.extract_if(.., |name, r| !in_place(name, r)).collect();
        let (mut moving, mut closing) = (BTreeMap::new(), Vec::new());
        for (name, r) in taken {
            info!("bridge {}: deleted interface {name} on port {}", r.bridge, r.number.0);
            if r.number == OfPort::LOCAL {
                // The number stays as long as the bridge; only its device goes.
                let _ = self.pipeline.set_port_state(&r.bridge, r.number, false);
                closing.push(r);
                continue;
            }
            if let Err(e) = self.pipeline.remove_port(&r.bridge, r.number) {
                warn!("{name}: {e}");
            }
            // At once, so that nothing else that moves or is new gets it meanwhile.
            self.rest(r.dp);
            let stays = |w: &Wanted<'_>| w.opens(&r.opened) && !r.opened.is_patch();
            if wanted.get(&*name).is_some_and(stays) {
                moving.insert(name, r);
            } else {
                closing.push(r);
            }
        }
        self.close(closing);
        self.remove_bridges(desired);
        moving
    }

    /// Ends interfaces that are not among those that run any more.
    fn close(&mut self, closing: Vec<Running>) {
        if closing.is_empty() {
            return;
        }
        // No thread uses the ports after this.
        self.publish_ports();
        for r in closing {
            r.opened.close();
            add(&mut self.departed, &r.counters());
        }
        self.closed = Instant::now();
    }

    fn follow_interface(
        &mut self,
        w: &Wanted<'_>,
        all: &BTreeMap<&str, Wanted<'_>>,
        moving: Option<Running>,
    ) -> Outcome {
        let (mtu, mtu_error) = mtu(w.interface);
        let tso = self.desired.other_config.get("userspace-tso-enable").map(String::as_str);
        let (offers, offers_error) = offers(w.interface, tso);
        if !self.running.contains_key(&w.interface.name)
            && let Err(e) = self.add(w, all, moving, offers)
        {
            self.note_refusal(w);
            // Flows can name a bridge's own port all the same.
            let local = w.interface.local && self.locals.contains_key(&w.bridge.name);
            let ofport = if local { OfPort::LOCAL.0.into() } else { OFPORT_NONE };
            return Outcome { ofport, error: Some(e) };
        }
        let clock = self.clock;
        let Some(r) = self.running.get_mut(&w.interface.name) else {
            return Outcome { ofport: OFPORT_NONE, error: None };
        };
        r.uuid = w.interface.uuid;
        r.opened.set_offers(offers);
        let (limits, limits_error) = police::limits(w.interface);
        r.police(limits, clock);
        r.steer(&w.interface.name, w.interface.steer_by_hash && !r.opened.is_patch());
        let mtu_error = mtu_error.or(r.mtu.set(&w.interface.name, &r.opened, mtu).err());
        let queues_error = r.opened.keep_queues().err();
        r.complaint = r.opened.complaint();
        let error =
            mtu_error.or(queues_error).or(offers_error).or(limits_error).or(r.complaint.clone());
        Outcome { ofport: r.number.0.into(), error }
    }

    /// Adds an interface to its bridge, opening it unless it is one that moves.
    fn add(
        &mut self,
        w: &Wanted<'_>,
        all: &BTreeMap<&str, Wanted<'_>>,
        moving: Option<Running>,
        offers: Offers,
    ) -> Result<(), String> {
        let (bridge, name) = (&w.bridge.name, &w.interface.name);
        let number = self.choose_number(w, all)?;
        // Another number in another bridge: a megaflow of the old one may still name it.
        let old = moving.as_ref().filter(|r| r.bridge == *bridge).map(|r| r.dp);
        let local = self.local_dp(bridge).filter(|_| w.interface.local);
        let dp = local.or(old).or_else(|| self.free_dp()).ok_or("no port number is free")?;
        let mut limited = None;
        let opened = match moving {
            Some(r) => {
                limited = Some((r.policer, r.qos_drops));
                r.opened
            }
            None => self.open(name, w.spec.clone()?, offers)?,
        };
        let settings = w.interface.port;
        if local.is_none()
            && let Err(e) = opened.join(&self.pipeline, bridge, name, (number, dp), settings)
        {
            opened.close();
            return Err(e.to_string());
        }
        info!("bridge {bridge}: added interface {name} on port {}", number.0);
        let (uuid, bridge) = (w.interface.uuid, bridge.clone());
        let (policer, qos_drops) = limited.unwrap_or_default();
        let running = Running {
            uuid,
            bridge,
            number,
            dp,
            opened,
            told_up: None,
            steered: None,
            policer,
            complaint: None,
            mtu: Kept::default(),
            qos_drops,
        };
        self.running.insert(name.clone(), running);
        Ok(())
    }

    fn open(&self, name: &str, spec: Spec, offers: Offers) -> Result<Opened, String> {
        if let Some(path) = spec.path() {
            let mut others = self.running.iter();
            let other = others.find(|(_, r)| r.opened.spec.path() == Some(path));
            if let Some((other, _)) = other {
                return Err(format!("{} is the socket of interface {other}", path.display()));
            }
        }
        let notify = self.notify.clone();
        let (shared, links) = (self.shared_frames.clone(), &self.links);
        let patience = CLOSING.saturating_sub(self.closed.elapsed());
        Opened::open(name, spec, offers, shared, links, Box::new(move || notify()), patience)
    }

    /// The number that is the interface's by right, else the lowest that no other of the bridge has.
    fn choose_number(
        &self,
        w: &Wanted<'_>,
        all: &BTreeMap<&str, Wanted<'_>>,
    ) -> Result<OfPort, String> {
        let bridge = &w.bridge.name;
        let here: BTreeSet<OfPort> =
            all.values().filter(|o| o.bridge.name == *bridge).filter_map(|o| o.number).collect();
        let taken: BTreeSet<OfPort> =
            self.running.values().filter(|r| r.bridge == *bridge).map(|r| r.number).collect();
        w.number
            .or_else(|| lowest(|n| here.contains(&n), |n| taken.contains(&n)))
            .ok_or_else(|| format!("bridge {bridge} has no port number left"))
    }

    /// The lowest datapath port number that is neither in use nor rests.
    pub(crate) fn free_dp(&mut self) -> Option<DpPort> {
        let sweeps = self.revalidator.sweeps();
        self.resting.retain(|(_, until)| *until > sweeps);
        let ports = self.running.values().map(|r| r.dp.0);
        let used: BTreeSet<u32> = ports.chain(self.locals.values().map(|dp| dp.0)).collect();
        let resting: BTreeSet<u32> = self.resting.iter().map(|(dp, _)| dp.0).collect();
        (1..=DP_MAX).find(|n| !used.contains(n) && !resting.contains(n)).map(DpPort)
    }

    /// Keeps a number from being given out again before no megaflow can name it any more: what was
    /// decided for one bridge must not reach another.
    pub(crate) fn rest(&mut self, dp: DpPort) {
        self.resting.push((dp, self.revalidator.sweeps() + 2));
    }

    /// Ends everything, in the order in which nobody misses anything: polling, then the ports.
    pub(crate) fn stop(&mut self) {
        self.pool.stop();
        for (_, r) in std::mem::take(&mut self.running) {
            r.opened.close();
        }
        self.desired = Desired::default();
    }

    pub(crate) fn publish_ports(&mut self) {
        let entry = |(name, r): (&String, &Running)| {
            let port = r.steered.clone().or_else(|| r.opened.port())?;
            let mut rows = self.desired.bridges.iter().flat_map(|b| &b.interfaces);
            let row = rows.find(|i| i.uuid == r.uuid);
            let affinity = row.map(|i| i.affinity.clone()).unwrap_or_default();
            Some(PortEntry {
                number: r.dp,
                port,
                policer: r.policer.clone(),
                captures: self.captures.of(name),
                node: r.opened.device_node(&self.sysfs),
                polled: true,
                by_worker: r.opened.by_worker(),
                affinity,
            })
        };
        self.pool.set_ports(self.running.iter().filter_map(entry).collect());
        self.tell_revalidator();
    }

    /// Shows the revalidator the threads that there are.
    fn tell_revalidator(&self) {
        let threads = self.pool.threads();
        let registries = threads.iter().map(|t| t.thread.registry.clone()).collect();
        self.revalidator.set_registries(registries);
    }

    /// An interface or a netdev changed: assigns its queues anew, and tells of its link. What was waiting
    /// for a netdev that has come is opened, and what lost its netdev is closed.
    pub(crate) fn interface_changed(&mut self) {
        let other = |r: &Running| {
            r.opened.is_gone() || r.mtu.is_due(&r.opened) || r.opened.complaint() != r.complaint
        };
        self.running.values().for_each(|r| r.opened.keep_tags());
        if self.running.values().any(other) || self.awaited_has_come() {
            let desired = self.desired.clone();
            return self.follow(desired);
        }
        self.pool.replan();
        self.follow_mtus();
        self.links_changed();
    }

    /// Whether what an interface needs is there, unless it never works.
    fn is_possible(&self, name: &str, w: &Wanted<'_>) -> bool {
        w.spec.as_ref().is_ok_and(|s| s.is_possible(name, &self.links))
    }

    /// Has an interface left alone for some time that cannot be opened though what it needs is there.
    fn note_refusal(&mut self, w: &Wanted<'_>) {
        let name = &w.interface.name;
        let before = self.refused.remove(name);
        if self.is_possible(name, w) {
            self.refused.insert(name.clone(), Retry::after(before));
        }
    }

    /// True if there is a netdev for an interface that has none, or a name for a device is free; where that was so before
    /// and did not help, some time later, for what was in the way may be gone.
    fn awaited_has_come(&mut self) -> bool {
        let wanted = self.wanted(&self.desired);
        let waiting = wanted.iter().filter(|(name, _)| !self.running.contains_key(**name));
        let possible = waiting.filter(|(name, w)| self.is_possible(name, w));
        let possible: BTreeSet<String> = possible.map(|(name, _)| (*name).to_owned()).collect();
        self.refused.retain(|name, _| possible.contains(name));
        possible.iter().any(|name| self.refused.get(name).is_none_or(Retry::is_due))
    }

    /// See [`Pool::fake_interval`].
    pub(crate) fn fake_load_interval(&mut self, interval: Duration) {
        self.pool.fake_interval(interval);
    }

    /// What is due every second.
    pub(crate) fn tick(&mut self) {
        // Nobody tells of a device that ended with the namespace that it had moved to, of an MTU that was left alone for long
        // enough, nor of sockets that have let go of queues.
        let is_due = |r: &Running| {
            r.opened.is_gone() || r.mtu.is_due(&r.opened) || r.opened.has_other_queues()
        };
        self.running.values().for_each(|r| r.opened.keep_tags());
        if self.running.values().any(is_due) || self.awaited_has_come() {
            let desired = self.desired.clone();
            self.follow(desired);
        }
        self.pool.sample();
        let counts = self.events();
        self.coverage.sample(counts);
    }

    /// Takes in what controllers would be told.
    pub(crate) fn collect_messages(&mut self) {
        let now = self.clock.now_ms();
        for (bridge, removed) in self.pipeline.take_removed() {
            self.packet_ins.removed(&bridge, &removed, now);
        }
        // No more than fit at once: a flood must not keep the thread here.
        for _ in 0..PUNTS_MAX {
            let Some(packet) = self.pool.punts().pop() else { return };
            if let Some(bridge) = self.pipeline.bridge_name(packet.punt.bridge) {
                self.packet_ins.packet(&bridge, packet);
            }
        }
    }

    /// All counted events by name, for `coverage/show`.
    pub(crate) fn events(&self) -> BTreeMap<String, u64> {
        let walks = self.pool.counters().into_iter();
        let mut events: BTreeMap<String, u64> =
            walks.map(|(name, n)| (name.to_owned(), n)).collect();
        let mut sum = self.departed.clone();
        for r in self.running.values() {
            add(&mut sum, &r.counters());
        }
        for (&reason, n) in packet::DropReason::ALL.iter().zip(sum.drops) {
            *events.entry(reason.name().to_owned()).or_default() += n;
        }
        events.extend(self.pipeline.events().map(|(name, n)| (name.to_owned(), n)));
        events.insert("vhost_notification".into(), sum.notifications);
        events.insert("payload_copied_bytes".into(), sum.tx_payload_bytes);
        events.insert("header_fetched_bytes".into(), sum.rx_header_bytes);
        events.insert("header_stored_bytes".into(), sum.tx_header_bytes);
        events
    }
}

fn add(sum: &mut Counters, more: &Counters) {
    sum.rx_packets += more.rx_packets;
    sum.rx_bytes += more.rx_bytes;
    sum.rx_dropped += more.rx_dropped;
    sum.tx_packets += more.tx_packets;
    sum.tx_bytes += more.tx_bytes;
    sum.tx_dropped += more.tx_dropped;
    sum.rx_header_bytes += more.rx_header_bytes;
    sum.tx_header_bytes += more.tx_header_bytes;
    sum.tx_payload_bytes += more.tx_payload_bytes;
    sum.notifications += more.notifications;
    for (a, b) in sum.drops.iter_mut().zip(more.drops) {
        *a += b;
    }
}
