//! The running switch: bridges and interfaces as they are, made to follow the configuration.

use crate::coverage::Coverage;
use crate::desired::{Bridge, Desired, Interface};
use crate::interface::{Dirs, Opened, mtu, spec};
use flow::DpPort;
use ovsdb::Uuid;
use pipeline::{OfPort, Pipeline};
use pmd::{Clock, Pool, PortEntry, Revalidator, Topology, parse_cpu_mask};
use port::Counters;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tracing::{info, warn};

/// Megaflows kept by each thread unless `other_config:flow-limit` says otherwise, and idle time
/// after which one goes unless `other_config:max-idle` does, as in OVS.
const FLOW_LIMIT: u64 = 200_000;
const MAX_IDLE_MS: u64 = 10_000;
/// `Interface.ofport` of an interface that could not be opened.
pub(crate) const OFPORT_NONE: i64 = -1;

/// An interface that runs.
pub(crate) struct Running {
    pub(crate) uuid: Uuid,
    pub(crate) bridge: String,
    pub(crate) number: OfPort,
    pub(crate) dp: DpPort,
    pub(crate) opened: Opened,
}

/// What became of an interface's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ofport: i64,
    pub(crate) error: Option<String>,
}

/// Everything that runs.
pub(crate) struct Switch {
    pub(crate) rundir: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) pool: Pool,
    pub(crate) revalidator: Revalidator,
    pub(crate) coverage: Coverage,
    /// By name, which is unique in the daemon.
    pub(crate) running: BTreeMap<String, Running>,
    /// By the interface's row.
    pub(crate) outcomes: BTreeMap<Uuid, Outcome>,
    /// What interfaces that are gone counted, so that sums never fall.
    pub(crate) departed: Counters,
    pub(crate) desired: Desired,
    wanted_mask: Option<String>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

impl Switch {
    /// A switch without bridges. `notify` is called, from any thread, when an interface changes.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn new(
        rundir: PathBuf,
        notify: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Switch> {
        let clock = Clock::default();
        let pipeline = Arc::new(Pipeline::new());
        let topology = Topology::read("/sys/devices/system/node".as_ref());
        let revalidator = Revalidator::start(pipeline.clone(), clock)?;
        let pool = Pool::new(topology, pipeline.clone(), clock, FLOW_LIMIT as usize);
        Ok(Switch {
            rundir,
            clock,
            pipeline,
            pool,
            revalidator,
            coverage: Coverage::default(),
            running: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            departed: Counters::default(),
            desired: Desired::default(),
            wanted_mask: None,
            notify,
        })
    }

    /// Makes everything as `desired` says. What cannot be is in [`Switch::outcomes`]; it disturbs
    /// nothing else.
    pub(crate) fn follow(&mut self, desired: Desired) {
        self.follow_settings(&desired);
        self.remove_stale(&desired);
        for bridge in &desired.bridges {
            self.follow_bridge(bridge);
        }
        let rows: Vec<Uuid> =
            desired.bridges.iter().flat_map(|b| &b.interfaces).map(|i| i.uuid).collect();
        self.outcomes.retain(|uuid, _| rows.contains(uuid));
        for bridge in &desired.bridges {
            for i in &bridge.interfaces {
                let outcome = self.follow_interface(bridge, i, &desired);
                if let Some(error) = &outcome.error
                    && self.outcomes.get(&i.uuid) != Some(&outcome)
                {
                    warn!("{}: {error}", i.name);
                }
                self.outcomes.insert(i.uuid, outcome);
            }
        }
        self.desired = desired;
        self.publish_ports();
    }

    fn follow_settings(&mut self, desired: &Desired) {
        let mask = desired.other_config.get("pmd-cpu-mask").cloned();
        if self.wanted_mask != mask || self.pool.threads().is_empty() {
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
            let threads = self.pool.threads();
            let registries = threads.iter().map(|t| t.thread.registry.clone()).collect();
            self.revalidator.set_registries(registries);
        }
        let limit = desired.number("flow-limit").unwrap_or(FLOW_LIMIT);
        self.pool.set_flow_limit(limit as usize);
        let idle = desired.number("max-idle").unwrap_or(MAX_IDLE_MS);
        self.revalidator.limits().max_idle_ms.store(idle.max(500), Relaxed);
    }

    /// Removes what is not wanted any more, or must be opened anew.
    fn remove_stale(&mut self, desired: &Desired) {
        let dirs = |d: &'static str| desired.other_config.get(d).cloned();
        let sock_dir = dirs("vhost-sock-dir");
        let rundir = self.rundir.clone();
        let keep = |name: &str, r: &Running| {
            let wanted = desired.bridges.iter().find_map(|b| {
                let i = b.interfaces.iter().find(|i| i.name == name)?;
                Some((b, i))
            });
            let dirs = Dirs { rundir: &rundir, vhost_sock_dir: sock_dir.as_deref() };
            wanted.is_some_and(|(b, i)| {
                b.name == r.bridge
                    && spec(i, dirs).is_ok_and(|s| s == r.opened.spec)
                    && wanted_number(i).is_none_or(|n| n == r.number || self.is_taken(&b.name, n))
            })
        };
        let stale: Vec<String> = self
            .running
            .iter()
            .filter(|(name, r)| !keep(name, r))
            .map(|(name, _)| name.clone())
            .collect();
        let mut closing = Vec::new();
        for name in stale {
            let Some(r) = self.running.remove(&name) else { continue };
            if let Err(e) = self.pipeline.remove_port(&r.bridge, r.number) {
                warn!("{name}: {e}");
            }
            info!("bridge {}: deleted interface {name} on port {}", r.bridge, r.number.0);
            closing.push(r);
        }
        if !closing.is_empty() {
            // No thread uses the ports after this.
            self.publish_ports();
        }
        for r in closing {
            r.opened.close();
            add(&mut self.departed, &r.opened.port().counters());
        }
        for name in self.pipeline.bridges() {
            if !desired.bridges.iter().any(|b| b.name == name) {
                let _ = self.pipeline.remove_bridge(&name);
                info!("bridge {name}: deleted");
            }
        }
    }

    fn follow_bridge(&mut self, bridge: &Bridge) {
        let now = self.clock.now_ms();
        if self.pipeline.set_bridge(&bridge.name, bridge.config).is_err() {
            match self.pipeline.add_bridge(&bridge.name, bridge.config, now) {
                Ok(()) => info!("bridge {}: added", bridge.name),
                Err(e) => warn!("bridge {}: {e}", bridge.name),
            }
        }
    }

    fn follow_interface(&mut self, bridge: &Bridge, i: &Interface, desired: &Desired) -> Outcome {
        if is_local(bridge, i) {
            return Outcome { ofport: OfPort::LOCAL.0.into(), error: None };
        }
        match self.open(bridge, i, desired) {
            Ok(number) => Outcome { ofport: number.0.into(), error: None },
            Err(e) => Outcome { ofport: OFPORT_NONE, error: Some(e) },
        }
    }

    /// Opens an interface unless it is open, and returns its number.
    fn open(
        &mut self,
        bridge: &Bridge,
        i: &Interface,
        desired: &Desired,
    ) -> Result<OfPort, String> {
        let mtu = mtu(i)?;
        if let Some(r) = self.running.get_mut(&i.name) {
            r.opened.set_mtu(mtu);
            r.uuid = i.uuid;
            return Ok(r.number);
        }
        let sock_dir = desired.other_config.get("vhost-sock-dir").map(String::as_str);
        let spec = spec(i, Dirs { rundir: &self.rundir, vhost_sock_dir: sock_dir })?;
        let number = self.choose_number(bridge, i)?;
        let used: Vec<u32> = self.running.values().map(|r| r.dp.0).collect();
        let dp =
            (1..).map(DpPort).find(|d| !used.contains(&d.0)).ok_or("no port number is free")?;
        let notify = self.notify.clone();
        let opened = Opened::open(&i.name, spec, mtu, Box::new(move || notify()))?;
        if let Err(e) = self.pipeline.add_port(&bridge.name, &i.name, number, dp) {
            opened.close();
            return Err(e.to_string());
        }
        info!("bridge {}: added interface {} on port {}", bridge.name, i.name, number.0);
        let bridge = bridge.name.clone();
        self.running.insert(i.name.clone(), Running { uuid: i.uuid, bridge, number, dp, opened });
        Ok(number)
    }

    fn is_taken(&self, bridge: &str, number: OfPort) -> bool {
        self.running.values().any(|r| r.bridge == bridge && r.number == number)
    }

    /// The number asked for, else the one that it had, else the lowest that no other interface of
    /// the bridge has or had.
    fn choose_number(&self, bridge: &Bridge, i: &Interface) -> Result<OfPort, String> {
        let free = |n: &OfPort| !self.is_taken(&bridge.name, *n);
        let last = i.ofport.and_then(|n| u16::try_from(n).ok()).map(OfPort);
        let last = last.filter(|n| n.check().is_ok() && *n != OfPort::LOCAL);
        if let Some(n) = wanted_number(i).filter(free).or(last.filter(free)) {
            return Ok(n);
        }
        let others = |n: &OfPort| {
            let n = i64::from(n.0);
            let claims = |o: &Interface| o.ofport == Some(n) || o.ofport_request == Some(n);
            bridge.interfaces.iter().any(|o| o.uuid != i.uuid && claims(o))
        };
        let mut numbers = (1..=OfPort::MAX.0).map(OfPort).filter(free);
        numbers
            .clone()
            .find(|n| !others(n))
            .or_else(|| numbers.next())
            .ok_or_else(|| format!("bridge {} has no port number left", bridge.name))
    }

    fn publish_ports(&mut self) {
        let entry = |r: &Running| PortEntry {
            number: r.dp,
            port: r.opened.port(),
            node: None,
            polled: true,
        };
        self.pool.set_ports(self.running.values().map(entry).collect());
    }

    /// An interface's queues changed: assigns them anew.
    pub(crate) fn queues_changed(&mut self) {
        self.pool.replan();
    }

    /// What is due every second.
    pub(crate) fn tick(&mut self) {
        self.pipeline.expire(self.clock.now_ms());
        self.pool.sample();
        let counts = self.events();
        self.coverage.sample(counts);
    }

    /// All counted events by name, for `coverage/show`.
    pub(crate) fn events(&self) -> BTreeMap<String, u64> {
        let mut events = BTreeMap::new();
        for t in self.pool.threads() {
            for (name, n) in t.thread.counters.read() {
                *events.entry(format!("datapath_{name}")).or_default() += n;
            }
        }
        let mut sum = self.departed.clone();
        for r in self.running.values() {
            add(&mut sum, &r.opened.port().counters());
        }
        for (&reason, n) in packet::DropReason::ALL.iter().zip(sum.drops) {
            *events.entry(reason.name().to_owned()).or_default() += n;
        }
        events.insert("vhost_notification".into(), sum.notifications);
        events.insert("payload_copied_bytes".into(), sum.tx_payload_bytes);
        events.insert("header_fetched_bytes".into(), sum.rx_header_bytes);
        events.insert("header_stored_bytes".into(), sum.tx_header_bytes);
        events
    }
}

/// The bridge's own interface: its device in the host comes with kernel ports.
fn is_local(bridge: &Bridge, i: &Interface) -> bool {
    i.name == bridge.name && (i.kind == "internal" || i.kind.is_empty())
}

/// `ofport_request`, if it is a number for ports.
fn wanted_number(i: &Interface) -> Option<OfPort> {
    let n = OfPort(u16::try_from(i.ofport_request?).ok()?);
    (n.check().is_ok() && n != OfPort::LOCAL).then_some(n)
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
