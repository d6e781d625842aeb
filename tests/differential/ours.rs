//! This switch in this process: the pipeline and the datapath, with ports that are lists of frames.

use crate::conjunctions;
use crate::known::Case;
use crate::megaflow::Answer;
use crate::scenario::{DOWN, Input, METER, Observed, Outputs, PORTS, Scenario};
use anyhow::{Context as _, Result};
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters};
use flow::{Action, DpPort, Extracted, FlowKey, Translation, extract, odp};
use openflow::{Command, FlowMod, GroupCommand, MeterCommand, OfPort, PortNames};
use packet::{BURST, Burst, BurstBuf, HEADER_BYTES, Lender, Set};
use pipeline::{BridgeConfig, MAX_VLAN_LIMIT, Note, NoteKind, Noted, Pipeline};
use pmd::{Clock, Revalidator};
use port::{Counters, Port};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tables::Rule;

const BRIDGE: &str = "br0";
/// The time at which everything happens.
const NOW_MS: u64 = 1000;
/// Megaflows to keep: more than any scenario makes.
const FLOW_LIMIT: usize = 10_000;

/// The names of [`PORTS`].
pub struct Names;

impl PortNames for Names {
    fn name(&self, port: OfPort) -> Option<&str> {
        PORTS.iter().find(|(_, number, _)| *number == port).map(|(name, ..)| *name)
    }
    fn number(&self, name: &str) -> Option<OfPort> {
        PORTS.iter().find(|(n, ..)| *n == name).map(|(_, number, _)| *number)
    }
}

/// A port: which of its frames wait to be received, and those that were sent.
struct Wire {
    name: &'static str,
    frames: Arc<[Input]>,
    waiting: Mutex<VecDeque<usize>>,
    sent: Mutex<Vec<Vec<u8>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lender for Wire {
    fn give_back(&self) {}
}

impl Port for Wire {
    fn name(&self) -> &str {
        self.name
    }

    fn rx_queues(&self) -> usize {
        1
    }

    /// As many frames as are short enough to be copied whole, or one that is not.
    fn rx<'b>(&'b self, _: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        let mut waiting = locked(&self.waiting);
        let first = &self.frames[*waiting.front()?].frame;
        if first.len() > HEADER_BYTES {
            waiting.pop_front();
            return buf.frame(first);
        }
        buf.clear();
        while let Some(&next) = waiting.front() {
            let frame = &self.frames[next].frame;
            if frame.len() > HEADER_BYTES || buf.len() == BURST {
                break;
            }
            buf.push()?.set_header(frame);
            waiting.pop_front();
        }
        Some(buf.lend(self))
    }

    fn tx(&self, _: usize, burst: &mut Burst<'_>, set: Set) {
        for i in set {
            locked(&self.sent).push(burst.copy_out(i, usize::MAX));
        }
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// The switch with a scenario loaded.
pub struct Ours {
    /// Decides.
    pub pipeline: Arc<Pipeline>,
    /// Flows that it refused, and why.
    pub refused: BTreeMap<usize, String>,
    last_cookie: u64,
    withheld: BTreeSet<usize>,
    uncounted: bool,
    ports: Vec<Arc<Wire>>,
    map: PortMap,
    counters: WalkCounters,
    punts: PuntQueue,
    registry: Arc<Registry>,
    datapath: Datapath,
}

impl Ours {
    /// A switch with the scenario's groups and flows, as far as it accepts them.
    pub fn load(scenario: &Scenario) -> Result<Ours> {
        let pipeline = Arc::new(Pipeline::new());
        // As OVS is told.
        let config = BridgeConfig { vlan_limit: MAX_VLAN_LIMIT, ..BridgeConfig::default() };
        pipeline.add_bridge(BRIDGE, config, NOW_MS)?;
        let frames: Arc<[Input]> = scenario.inputs.clone().into();
        let (mut ports, mut map) = (Vec::new(), PortMap::default());
        for (name, number, dp) in PORTS {
            pipeline.add_port(BRIDGE, name, number, DpPort(dp))?;
            let wire = Wire {
                name,
                frames: frames.clone(),
                waiting: Mutex::default(),
                sent: Mutex::default(),
            };
            ports.push(Arc::new(wire));
            map.set(DpPort(dp), Some(ports[ports.len() - 1].clone()));
        }
        pipeline.set_port_state(BRIDGE, PORTS[DOWN].1, false)?;
        let meter = openflow::parse_meter_mod(METER, MeterCommand::Add)?;
        pipeline.meter_mods(BRIDGE, &[meter], NOW_MS).map_err(|(_, e)| e)?;
        let delete = flow("", Command::Delete).map_err(anyhow::Error::msg)?;
        pipeline.flow_mods(BRIDGE, &[delete], NOW_MS).map_err(|(_, e)| e)?;
        for group in &scenario.groups {
            let group = openflow::parse_group_mod(group, GroupCommand::Add, &Names)
                .with_context(|| group.clone())?;
            pipeline.group_mods(BRIDGE, &[group], NOW_MS).map_err(|(_, e)| e)?;
        }
        let mut refused = BTreeMap::new();
        for (i, text) in scenario.flows.iter().enumerate() {
            let added = flow(text, Command::Add).and_then(|m| {
                pipeline.flow_mods(BRIDGE, &[m], NOW_MS).map_err(|(_, e)| e.to_string())
            });
            if let Err(why) = added {
                refused.insert(i, why);
            }
        }
        let registry = Arc::<Registry>::default();
        Ok(Ours {
            pipeline,
            refused,
            last_cookie: scenario.last_cookie(),
            withheld: BTreeSet::new(),
            uncounted: false,
            ports,
            map,
            counters: WalkCounters::default(),
            punts: PuntQueue::default(),
            datapath: Datapath::new(1, registry.clone()),
            registry,
        })
    }

    /// Sends the packets one by one, so that what each caused is known.
    pub fn run(mut self, scenario: &Scenario) -> Result<Observed> {
        let mut outputs = self.send(scenario)?;
        let refused = self.change(scenario)?;
        if !scenario.changes.is_empty() {
            outputs.extend(self.send(scenario)?);
        }
        self.observe(outputs, refused)
    }

    fn send(&mut self, scenario: &Scenario) -> Result<Vec<Outputs>> {
        let mut outputs = Vec::with_capacity(scenario.inputs.len());
        for (i, input) in scenario.inputs.iter().enumerate() {
            if scenario.stateful {
                self.forget()?;
            }
            if self.meets_known(input, scenario) {
                self.withheld.insert(i);
            }
            locked(&self.ports[input.port].waiting).push_back(i);
            self.walk(input.port);
            outputs.push(self.sent());
        }
        Ok(outputs)
    }

    /// True if a packet meets one of the known differences.
    fn meets_known(&mut self, input: &Input, scenario: &Scenario) -> bool {
        let Some((key, Some(noted))) = self.translate(input) else { return false };
        self.uncounted |= crate::known::is_uncounted(&key);
        let actions = &noted.translation.actions;
        let comes_back = actions.iter().any(|a| matches!(a, Action::Recirc(_)));
        let mut text = if comes_back { scenario.text() } else { String::new() };
        add_actions(&noted.notes, &mut text);
        let tables = self.pipeline.tables(BRIDGE).ok();
        let rules: Vec<_> = tables.iter().flat_map(|t| t.rules()).cloned().collect();
        let mut overlooked = conjunctions::overlooked(&rules);
        let overlooked = overlooked.any(|r| comes_back || is_found(&noted.notes, r));
        let (frame, error) = (&input.frame, noted.error);
        crate::known::meets(&Case { frame, key: &key, actions, text: &text, error, overlooked })
    }

    /// Sends the packets in bursts, port by port. The outputs are those of all packets together.
    pub fn run_bursts(mut self, scenario: &Scenario) -> Result<Observed> {
        let mut outputs = vec![self.send_bursts(scenario)];
        let refused = self.change(scenario)?;
        if !scenario.changes.is_empty() {
            outputs.push(self.send_bursts(scenario));
        }
        self.observe(outputs, refused)
    }

    fn send_bursts(&mut self, scenario: &Scenario) -> Outputs {
        for (i, input) in scenario.inputs.iter().enumerate() {
            locked(&self.ports[input.port].waiting).push_back(i);
        }
        for port in 0..PORTS.len() {
            self.walk(port);
        }
        self.sent()
    }

    /// Changes the flows, and lets the revalidator correct the megaflows.
    fn change(&mut self, scenario: &Scenario) -> Result<BTreeMap<usize, String>> {
        let mut refused = BTreeMap::new();
        if scenario.changes.is_empty() {
            return Ok(refused);
        }
        let revalidator = Revalidator::start(self.pipeline.clone(), Clock::default())?;
        revalidator.set_registries(vec![self.registry.clone()]);
        for (i, text) in scenario.changes.iter().enumerate() {
            let parsed = openflow::parse_flow_mods(text, Command::Add, &Names);
            let done = parsed.map_err(|(_, e)| e.to_string()).and_then(|mods| {
                self.pipeline.flow_mods(BRIDGE, &mods, NOW_MS).map_err(|(_, e)| e.to_string())
            });
            if let Err(why) = done {
                refused.insert(i, why);
            }
        }
        revalidator.wait();
        while self.datapath.clean() {}
        Ok(refused)
    }

    fn translate(&self, input: &Input) -> Option<(FlowKey, Option<Noted>)> {
        let mut out = Extracted::default();
        let dp = PORTS[input.port].2;
        extract(&input.frame, input.frame.len(), dp, &mut out).ok()?;
        Some((out.key, self.pipeline.translate_noting(&out.key, false)))
    }

    /// A packet's fields and the megaflow that it would make now; `None` if it meets a known
    /// difference.
    pub fn answer(&mut self, input: &Input, scenario: &Scenario) -> Option<(FlowKey, Answer)> {
        if self.meets_known(input, scenario) {
            return None;
        }
        let (key, noted) = self.translate(input)?;
        let Translation { mask, actions, .. } = noted?.translation;
        Some((key, Answer { mask, actions: odp::format_actions(&actions, &odp::number) }))
    }

    /// `ofproto/trace` of a packet.
    pub fn trace(&self, input: &Input) -> String {
        let port = format!("in_port={}", PORTS[input.port].1.0);
        let trace = self.pipeline.trace(BRIDGE, &port, Some(&input.frame), false, NOW_MS);
        trace.unwrap_or_else(|e| e.to_string())
    }

    fn walk(&mut self, port: usize) {
        let context = Context {
            ports: &self.map,
            translate: &*self.pipeline,
            counters: &self.counters,
            punts: &self.punts,
            thread: 0,
            now_ms: NOW_MS,
            flow_limit: FLOW_LIMIT,
            exact_match: true,
        };
        while self.datapath.walk(&*self.ports[port], 0, DpPort(PORTS[port].2), &context) > 0 {}
    }

    /// Everything that was sent since the last call.
    fn sent(&self) -> Outputs {
        let mut all = Outputs::new();
        for (port, wire) in self.ports.iter().enumerate() {
            let frames = std::mem::take(&mut *locked(&wire.sent));
            if !frames.is_empty() {
                all.insert(port, frames);
            }
        }
        all
    }

    /// Ends all megaflows and applies what packets caused, as the revalidator would in time.
    fn forget(&mut self) -> Result<()> {
        for flow in self.registry.flows() {
            self.registry.kill(&flow);
        }
        while self.datapath.clean() {}
        self.registry.bury();
        self.pipeline.expire(NOW_MS);
        Ok(())
    }

    fn observe(
        mut self,
        outputs: Vec<Outputs>,
        refused: BTreeMap<usize, String>,
    ) -> Result<Observed> {
        self.forget()?;
        let withheld = std::mem::take(&mut self.withheld);
        let uncounted = self.uncounted;
        let mut observed =
            Observed { outputs, refused, withheld, uncounted, ..Observed::default() };
        let tables = self.pipeline.tables(BRIDGE)?;
        for rule in tables.rules() {
            let counts = observed.counts.entry(rule.cookie).or_insert((0, 0));
            counts.0 += rule.counts.packets();
            counts.1 += rule.counts.bytes();
        }
        let all = flow("", Command::Delete).map_err(anyhow::Error::msg)?;
        let dump = tables.dump_flows(&all, NOW_MS, false, &());
        observed.learned = crate::ovs::own(&dump, self.last_cookie);
        Ok(observed)
    }
}

/// The actions among notes, one on each line.
fn add_actions(notes: &[Note], text: &mut String) {
    for note in notes {
        if note.kind == NoteKind::Action {
            *text += "\n";
            *text += &note.text;
        }
        add_actions(&note.notes, text);
    }
}

/// True if a flow, which has a cookie of its own, is noted to be found.
fn is_found(notes: &[Note], rule: &Rule) -> bool {
    let cookie = format!(", cookie {:#x}", rule.cookie);
    notes
        .iter()
        .any(|n| n.kind == NoteKind::Table && n.text.ends_with(&cookie) || is_found(&n.notes, rule))
}

fn flow(text: &str, command: Command) -> Result<FlowMod, String> {
    openflow::parse_flow_mod(text, command, &Names).map_err(|e| e.to_string())
}
