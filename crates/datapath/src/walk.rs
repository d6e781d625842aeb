//! The walk: the way of a burst through the switch, from a receive queue to transmit queues.

use crate::budget::Company;
use crate::cache::Cache;
use crate::check::Check;
use crate::classifier::{Classifier, Waiting};
use crate::execute::Depth;
use crate::megaflow::{FlowState, Megaflow, Registry};
use crate::output::{Outputs, Sender};
use crate::stages::Stages;
use crate::{PortMap, PuntQueue, WalkCounters};
use flow::{
    Action, DpPort, Extracted, FlowKey, Need, Seen, Translate, Translation, extract, ip_proto,
};
use packet::arch::{HashKey, cycles, hash_more, hash6};
use packet::{BURST, Burst, BurstBuf, DropReason, Saved, Set};
use port::Port;
use std::sync::Arc;

/// A packet without a flow yet.
const MISS: u32 = u32::MAX;
/// Set in the number of a flow that is used for this burst only.
const PASSING: u32 = 1 << 31;
/// Flows looked at in one call of [`Datapath::clean`]: some microseconds of work.
const CLEAN_SLICE: usize = 256;

/// What a walk needs to know and is not the datapath's own.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// All ports.
    pub ports: &'a PortMap,
    /// Who decides about packets that no megaflow matches.
    pub translate: &'a dyn Translate,
    /// Where to count.
    pub counters: &'a WalkCounters,
    /// Where packets for controllers go.
    pub punts: &'a PuntQueue,
    /// Number of the calling thread, from 0.
    pub thread: usize,
    /// Milliseconds of a clock that never goes back.
    pub now_ms: u64,
    /// Megaflows to keep at most (OVS `flow-limit`).
    pub flow_limit: usize,
    /// Whether the exact-match cache is used (OVS `emc-insert-inv-prob` other than 0).
    pub exact_match: bool,
}

/// The caches of one PMD thread and its room for one burst.
pub struct Datapath {
    room: BurstBuf,
    state: State,
}

pub(crate) struct State {
    pub(crate) packets: Box<[Extracted; BURST]>,
    hashes: [u32; BURST],
    pub(crate) flow_of: [u32; BURST],
    cache: Cache,
    classifier: Classifier,
    flows: Vec<Option<Arc<Megaflow>>>,
    free: Vec<u32>,
    /// Flows that did not fit in the table, for the burst that needs them.
    passing: Vec<Arc<Megaflow>>,
    pub(crate) outputs: Outputs,
    /// Packets that actions will give back as they were.
    pub(crate) saved: Vec<Saved>,
    company: Company,
    stages: Stages,
    pub(crate) check: Check,
    pub(crate) random: u64,
    pub(crate) registry: Arc<Registry>,
    secret: HashKey,
    /// `registry.killed()` when the last complete cleaning began, and where the next one goes on.
    cleaned: u64,
    cleaning: Option<(u64, usize)>,
}

impl Datapath {
    /// Empty caches. `seed` makes the hashes of this thread unpredictable.
    pub fn new(seed: u64, registry: Arc<Registry>) -> Datapath {
        Datapath {
            room: BurstBuf::new(),
            state: State {
                packets: Box::new([Extracted::default(); BURST]),
                hashes: [0; BURST],
                flow_of: [MISS; BURST],
                cache: Cache::new(),
                classifier: Classifier::new(HashKey::new(!seed)),
                flows: Vec::new(),
                free: Vec::new(),
                passing: Vec::new(),
                outputs: Outputs::new(),
                saved: Vec::new(),
                company: Company::default(),
                stages: Stages::default(),
                check: Check::default(),
                random: seed | 1,
                registry,
                secret: HashKey::new(seed),
                cleaned: 0,
                cleaning: None,
            },
        }
    }

    /// Takes one burst from a receive queue and sends it where it belongs. Returns how many packets
    /// there were.
    #[inline]
    pub fn walk(
        &mut self,
        port: &dyn Port,
        queue: usize,
        number: DpPort,
        c: &Context<'_>,
    ) -> usize {
        self.state.stages.begin();
        // 1. Receive: headers are copied, payload is borrowed until `burst` is dropped.
        let Some(mut burst) = port.rx(queue, &mut self.room) else {
            return 0;
        };
        let n = burst.len();
        let s = &mut self.state;
        s.stages.mark(&c.counters.receive_cycles);
        s.outputs.untold.tell(c.ports, c.thread);
        s.stages.mark(&c.counters.tell_cycles);
        c.counters.received.add(n as u64);
        s.company.note(number, c.now_ms);
        let mut all = Set::range(0, n);
        if let Some((_, Some(extras))) = c.ports.with_extras(number) {
            all = extras.receive(&mut burst, c.thread);
            if all.is_empty() {
                s.outputs.untold.taken(number, queue);
                return n;
            }
        }
        let mut sender =
            Sender { burst: &mut burst, ports: c.ports, counters: c.counters, thread: c.thread };
        // 2 to 5 in one, if all packets belong to the megaflow of the last ones.
        let whole = all.len() == n && !s.check.is_on();
        if !whole || !s.lane(number, &mut sender, c) {
            // 2. Read the keys.
            s.extract(sender.burst, number);
            // 3. Look them up: is it the port's last flow again, in the exact-match cache, among the megaflows.
            s.passing.clear();
            if all.len() < n {
                // What the port's limits dropped has no flow.
                s.flow_of[..n].fill(MISS);
            }
            let misses = s.look_up(all, c);
            s.stages.mark(&c.counters.look_up_cycles);
            if s.check.is_on() {
                s.check(all, c);
            }
            // 4. Ask the pipeline about the rest.
            if misses > 0 {
                s.upcall(all, sender.burst, c);
                s.stages.skip();
            }
            // 5. Execute the actions, run by run of packets with the same flow.
            s.execute(n, sender, c);
        }
        s.outputs.untold.taken(number, queue);
        // 6. All was sent; dropping the burst gives the descriptors back.
        drop(burst);
        s.stages.end(n, c.counters);
        n
    }

    /// Does `actions` to a frame that came by no queue, as if it had come in by `in_port`: for packets
    /// that are made here (OpenFlow's packet-out). Returns false if it is no frame.
    pub fn execute_frame(
        &mut self,
        frame: &[u8],
        in_port: DpPort,
        actions: &[Action],
        c: &Context<'_>,
    ) -> bool {
        let Some(mut burst) = self.room.frame(frame) else {
            return false;
        };
        let s = &mut self.state;
        s.passing.clear();
        s.extract_one(&mut burst, 0, in_port, 0);
        let mut sender =
            Sender { burst: &mut burst, ports: c.ports, counters: c.counters, thread: c.thread };
        s.outputs.fit(c.ports);
        s.run(Set::range(0, 1), actions, Depth::default(), &mut sender, c);
        s.outputs.flush(&mut sender);
        true
    }

    /// Compares the megaflow of one in `one_in` packets that hit one with a fresh answer of the
    /// pipeline, if the megaflow is known to be right for what the pipeline is now; 0 compares none. A
    /// difference that is still there `patience_ms` later is an error of ours: a panic where debug
    /// assertions are on, or else the megaflow is killed and counted. (A pipeline that changes shows
    /// its new self a moment before its new generation, hence the patience.)
    ///
    /// Debug builds compare one in 32 with a patience of a second; release builds none.
    pub fn check_flows(&mut self, one_in: u32, patience_ms: u64) {
        self.state.check = Check::new(one_in, patience_ms);
    }

    /// Interrupts those who want it for the last burst: to be called when there is no next one, which
    /// would do it. Who could not be told is told the next time.
    #[inline]
    pub fn tell(&mut self, c: &Context<'_>) {
        self.state.outputs.untold.tell(c.ports, c.thread);
    }

    /// Removes some of the megaflows that the revalidator ended. To be called now and then between
    /// bursts. Returns true if there may be more.
    pub fn clean(&mut self) -> bool {
        self.state.clean()
    }

    /// Puts the subtables that are hit most first. To be called about once a second.
    pub fn rank(&mut self) {
        self.state.classifier.rank();
    }
}

impl State {
    #[inline(always)]
    fn extract(&mut self, burst: &mut Burst<'_>, number: DpPort) {
        for i in 0..burst.len() {
            let p = &burst.packets()[i];
            let out = &mut self.packets[i];
            if let Err(Need(want)) = extract(p.header(), p.len(), number.0, out) {
                extract_deep(burst, i, want, number, out);
            }
        }
    }

    /// Forwards the whole burst by its port's last megaflow; false if that is not right for all of it.
    #[inline(always)]
    fn lane(&mut self, number: DpPort, sender: &mut Sender<'_, '_, '_>, c: &Context<'_>) -> bool {
        let guess = self.classifier.guess(number.0);
        let Some(template) = &guess.template else { return false };
        let Some(Some(flow)) = self.flows.get(guess.flow as usize) else { return false };
        let packets = sender.burst.packets();
        let all = Set::range(0, packets.len());
        let Some((bytes, flags)) = template.all(packets) else { return false };
        // Ports of very high numbers share a guess.
        let own = flow.is_live() && flow.origin.in_port == number.0;
        let Some(outputs) = flow.outputs().filter(|_| own) else { return false };
        let (more_packets, more_bytes) = sender.burst.more_on_wire(all);
        flow.count(all.len() as u64 + more_packets, bytes + more_bytes, flags, c.now_ms);
        match c.exact_match {
            true => c.counters.emc_hits.add(all.len() as u64),
            false => c.counters.megaflow_hits.add(all.len() as u64),
        }
        if outputs.is_empty() {
            c.counters.drops.add(DropReason::Pipeline, all.len() as u64);
        }
        self.stages.mark(&c.counters.look_up_cycles);
        self.outputs.fit(c.ports);
        for &to in outputs {
            self.outputs.add(to, all, sender);
        }
        self.send_all(sender, c);
        true
    }

    /// Reads the key of packet `i` for a lookup with `recirc_id`.
    pub(crate) fn extract_one(
        &mut self,
        burst: &mut Burst<'_>,
        i: usize,
        in_port: DpPort,
        recirc_id: u32,
    ) {
        let out = &mut self.packets[i];
        extract_deep(burst, i, 0, in_port, out);
        out.key.recirc_id = recirc_id;
    }

    /// Fills `flow_of` for these packets of one port; returns how many have no flow.
    ///
    /// Any megaflow that matches is right, so the one that the port's last packets had is tried before
    /// a hash is made.
    #[inline(always)]
    pub(crate) fn look_up(&mut self, set: Set, c: &Context<'_>) -> usize {
        let Some(first) = set.first() else { return 0 };
        let in_port = self.packets[first].key.in_port;
        let guess = self.classifier.guess(in_port).flow;
        let mut waiting = Waiting::new();
        for i in set {
            self.flow_of[i] = guess;
            if !is_right(&self.flows, guess, &self.packets[i]) {
                self.flow_of[i] = MISS;
                waiting.push(i);
            }
        }
        let hits = (set.len() - waiting.list().len()) as u64;
        match c.exact_match {
            true => c.counters.emc_hits.add(hits),
            false => c.counters.megaflow_hits.add(hits),
        }
        if waiting.list().is_empty() {
            return 0;
        }
        if c.exact_match {
            self.look_up_exact(&mut waiting, c);
        }
        let misses = if waiting.list().is_empty() { 0 } else { self.classify(waiting, c) };
        let ends = set.last().map(|last| [self.flow_of[first], self.flow_of[last]]);
        let guess = ends.filter(|[a, b]| a == b && !Self::is_passing(*a)).map_or(MISS, |[a, _]| a);
        let flows = &self.flows;
        self.classifier.set_guess(in_port, guess, || flows.get(guess as usize)?.as_deref());
        misses
    }

    /// Looks for packets in the exact-match cache and takes those that are there from `waiting`.
    #[inline(always)]
    fn look_up_exact(&mut self, waiting: &mut Waiting, c: &Context<'_>) {
        for &i in waiting.list() {
            let i = usize::from(i);
            let packet = &self.packets[i];
            let mut hash = hash6(packet.key.hot(), &self.secret);
            if packet.long {
                hash = hash_more(hash, &packet.key.words()[flow::HOT_WORDS..], &self.secret);
            }
            self.hashes[i] = hash;
            self.cache.prefetch(hash);
        }
        let before = waiting.list().len();
        waiting.retain(|_, i| {
            let right = |f: u32| is_right(&self.flows, f, &self.packets[i]);
            match self.cache.find(self.hashes[i], right) {
                Some(flow) => {
                    self.flow_of[i] = flow;
                    false
                }
                None => true,
            }
        });
        c.counters.emc_hits.add((before - waiting.list().len()) as u64);
    }

    /// Looks for these packets among the megaflows and remembers what was found; returns how many were
    /// not.
    #[inline(never)]
    fn classify(&mut self, mut waiting: Waiting, c: &Context<'_>) -> usize {
        let State { packets, flows, flow_of, cache, hashes, .. } = self;
        for i in waiting.list() {
            flow_of[usize::from(*i)] = MISS;
        }
        let before = waiting.list().len();
        let fetch = |f: u32| {
            if let Some(Some(flow)) = flows.get(f as usize) {
                flow.prefetch();
            }
        };
        let right = |f: u32, i: usize| is_right(flows, f, &packets[i]);
        let searched = self.classifier.find(packets, &mut waiting, fetch, right, |i, flow| {
            flow_of[i] = flow;
            if c.exact_match {
                cache.insert(hashes[i], flow, |f| is_gone(flows, f));
            }
        });
        let misses = waiting.list().len();
        c.counters.megaflow_hits.add((before - misses) as u64);
        c.counters.subtable_lookups.add(searched as u64);
        misses
    }

    /// Asks the pipeline about all packets of `set` without a flow.
    #[inline(never)]
    pub(crate) fn upcall(&mut self, set: Set, burst: &Burst<'_>, c: &Context<'_>) {
        for i in set {
            if self.flow_of[i] != MISS {
                continue;
            }
            // An earlier packet of this burst may have brought the flow in.
            let mut alone = Waiting::new();
            alone.push(i);
            if self.classify(alone, c) == 0 {
                continue;
            }
            if !self.take_upcall(self.packets[i].key.in_port, c) {
                continue;
            }
            c.counters.upcalls.add(1);
            let from = cycles();
            self.flow_of[i] = self.ask(i, burst.packets()[i].on_wire(), c);
            c.counters.upcall_spans.add(cycles().wrapping_sub(from));
        }
    }

    /// Whether a port may have the pipeline deal with a packet, which is counted as dropped if not.
    pub(crate) fn take_upcall(&mut self, in_port: u32, c: &Context<'_>) -> bool {
        let alone = self.company.is_alone();
        let may = self.classifier.budget(in_port).take_upcall(c.now_ms, alone);
        if !may {
            c.counters.drops.add(DropReason::UpcallBudget, 1);
        }
        may
    }

    /// Asks the pipeline about packet `i`, which is as many packets and bytes on the wire, and keeps the
    /// answer; returns the flow's number.
    fn ask(&mut self, i: usize, (packets, bytes): (u64, u64), c: &Context<'_>) -> u32 {
        let key = &self.packets[i].key;
        let generation = c.translate.generation();
        let answer = c.translate.translate(key);
        let seen = Seen { packets, bytes, tcp_flags: tcp_flags(key), now_ms: c.now_ms };
        answer.effects.apply(&seen);
        let now = c.translate.generation();
        if now == generation {
            let flow = self.megaflow(i, answer, seen, generation, c);
            return self.install(flow, i, c);
        }
        // The packet itself may have changed the answer: it taught the switch where its sender is, or
        // a flow. That is for those after it; this one goes by what was before, as in OVS.
        let fresh = c.translate.translate(key);
        if fresh.actions == answer.actions {
            let flow = self.megaflow(i, fresh, seen, now, c);
            return self.install(flow, i, c);
        }
        let later = self.megaflow(i, fresh, Seen::default(), now, c);
        self.install(later, i, c);
        let flow = self.megaflow(i, answer, seen, generation, c);
        self.pass(flow)
    }

    /// A megaflow for packets like packet `i`, with what its effects were told already.
    fn megaflow(
        &mut self,
        i: usize,
        mut answer: Translation,
        told: Seen,
        generation: u64,
        c: &Context<'_>,
    ) -> Arc<Megaflow> {
        let key = &self.packets[i].key;
        answer.mask = self.classifier.mask(key.in_port, &answer.mask);
        Arc::new(Megaflow::new(key, told, answer, generation, c.now_ms))
    }

    /// Uses a flow for this burst only.
    fn pass(&mut self, flow: Arc<Megaflow>) -> u32 {
        self.passing.push(flow);
        PASSING | (self.passing.len() - 1) as u32
    }

    fn install(&mut self, flow: Arc<Megaflow>, i: usize, c: &Context<'_>) -> u32 {
        let index = self.free.last().copied().unwrap_or(self.flows.len() as u32);
        let total = self.flows.len() - self.free.len();
        let budget = self.classifier.budget(flow.origin.in_port);
        let room = budget.allows_flow(total, c.flow_limit);
        if !room || !self.classifier.insert(&flow, index) {
            c.counters.upcalls_not_installed.add(1);
            return self.pass(flow);
        }
        self.free.pop();
        self.registry.add(flow.clone());
        // A change since the pipeline was asked may have been swept for already.
        if flow.needs_check(c.translate.generation()) {
            self.registry.kill(&flow);
        }
        let flows = &self.flows;
        if c.exact_match {
            self.cache.insert(self.hashes[i], index, |f| is_gone(flows, f));
        }
        match self.flows.get_mut(index as usize) {
            Some(slot) => *slot = Some(flow),
            None => self.flows.push(Some(flow)),
        }
        index
    }

    /// The flow with this number, unless it is [`MISS`].
    #[inline(always)]
    pub(crate) fn flow(&self, number: u32) -> Option<&Arc<Megaflow>> {
        flow_of(&self.flows, &self.passing, number)
    }

    /// True for the number of a flow that is not in the table.
    #[inline(always)]
    pub(crate) fn is_passing(number: u32) -> bool {
        number & PASSING != 0
    }

    /// Executes the actions of all packets and sends what they output.
    #[inline(always)]
    fn execute(&mut self, n: usize, mut sender: Sender<'_, '_, '_>, c: &Context<'_>) {
        self.outputs.fit(c.ports);
        let mut start = 0;
        while start < n {
            let number = self.flow_of[start];
            let mut end = start;
            let (mut bytes, mut flags) = (0, 0);
            while end < n && self.flow_of[end] == number {
                bytes += sender.burst.packets()[end].len() as u64;
                flags |= tcp_flags(&self.packets[end].key);
                end += 1;
            }
            let run = (end - start) as u64;
            let from = std::mem::replace(&mut start, end);
            // Packets that are not to be asked about have none, and were counted.
            let Some(flow) = flow_of(&self.flows, &self.passing, number) else { continue };
            if !Self::is_passing(number) {
                let (more, more_bytes) = sender.burst.more_on_wire(Set::range(from, end));
                flow.count(run + more, bytes + more_bytes, flags, c.now_ms);
            }
            match flow.outputs() {
                Some([]) => c.counters.drops.add(DropReason::Pipeline, run),
                Some(outputs) => {
                    for &to in outputs {
                        self.outputs.add(to, Set::range(from, end), &mut sender);
                    }
                }
                None => {
                    let set = Set::range(from, end);
                    self.execute_flow(set, flow.clone(), Depth::default(), &mut sender, c);
                }
            }
        }
        self.send_all(&mut sender, c);
    }

    /// Sends everything that the burst's actions have output.
    #[inline(always)]
    fn send_all(&mut self, sender: &mut Sender<'_, '_, '_>, c: &Context<'_>) {
        self.stages.mark(&c.counters.execute_cycles);
        self.outputs.flush(sender);
        self.stages.mark(&c.counters.transmit_cycles);
    }

    fn clean(&mut self) -> bool {
        let killed = self.registry.killed();
        let (goal, from) = match self.cleaning {
            Some(at) => at,
            None if killed == self.cleaned => return false,
            None => (killed, 0),
        };
        let to = (from + CLEAN_SLICE).min(self.flows.len());
        for index in from..to {
            let dead = |f: &mut Arc<Megaflow>| f.state() == FlowState::Dead;
            if let Some(flow) = self.flows[index].take_if(dead) {
                self.classifier.remove(&flow, index as u32);
                self.free.push(index as u32);
                flow.removed();
            }
        }
        if to < self.flows.len() {
            self.cleaning = Some((goal, to));
            return true;
        }
        self.cleaning = None;
        self.cleaned = goal;
        killed != goal
    }
}

/// The TCP flags of a packet; the field has another meaning for other protocols.
#[inline(always)]
pub(crate) fn tcp_flags(key: &FlowKey) -> u16 {
    if key.nw_proto == ip_proto::TCP { key.tcp_flags.get() } else { 0 }
}

/// The flow with this number: one of the table, or of the burst's own; `None` for [`MISS`].
#[inline(always)]
fn flow_of<'a>(
    flows: &'a [Option<Arc<Megaflow>>],
    passing: &'a [Arc<Megaflow>],
    number: u32,
) -> Option<&'a Arc<Megaflow>> {
    if State::is_passing(number) {
        return passing.get((number & !PASSING) as usize);
    }
    flows.get(number as usize)?.as_ref()
}

/// True if flow number `f` is alive and `packet` belongs to it.
#[inline(always)]
fn is_right(flows: &[Option<Arc<Megaflow>>], f: u32, packet: &Extracted) -> bool {
    matches!(flows.get(f as usize), Some(Some(flow)) if flow.matches(packet))
}

/// True if there is no flow number `f` any more.
fn is_gone(flows: &[Option<Arc<Megaflow>>], f: u32) -> bool {
    !matches!(flows.get(f as usize), Some(Some(_)))
}

/// As [`extract`], and fetches headers beyond the private bytes as long as there is room, at least
/// `want` bytes.
#[cold]
pub(crate) fn extract_deep(
    b: &mut Burst<'_>,
    i: usize,
    mut want: usize,
    number: DpPort,
    out: &mut Extracted,
) {
    loop {
        let len = b.packets()[i].len();
        let header = b.pull(i, want);
        let have = header.len();
        match extract(header, len, number.0, out) {
            Ok(()) => return,
            Err(Need(more)) if more > have && have >= want => want = more,
            // Deeper than the room: what was read so far stands, as for a header cut short.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
