//! The walk: the way of a burst through the switch, from a receive queue to transmit queues.

use crate::cache::Cache;
use crate::classifier::Classifier;
use crate::megaflow::{FlowState, Megaflow, Registry};
use crate::output::{Outputs, Sender};
use crate::{PortMap, WalkCounters};
use flow::{Action, DpPort, Extracted, Need, Translate, extract};
use packet::arch::{HashKey, hash_more, hash6};
use packet::{BURST, Burst, BurstBuf, DropReason};
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
    /// Number of the calling thread, from 0.
    pub thread: usize,
    /// Milliseconds of a clock that never goes back.
    pub now_ms: u64,
    /// Megaflows to keep at most (OVS `flow-limit`).
    pub flow_limit: usize,
}

/// The caches of one PMD thread and its room for one burst.
pub struct Datapath {
    room: BurstBuf,
    state: State,
}

struct State {
    packets: Box<[Extracted; BURST]>,
    hashes: [u32; BURST],
    flow_of: [u32; BURST],
    cache: Cache,
    classifier: Classifier,
    flows: Vec<Option<Arc<Megaflow>>>,
    free: Vec<u32>,
    /// Flows that did not fit in the table, for the burst that needs them.
    passing: Vec<Arc<Megaflow>>,
    outputs: Outputs,
    registry: Arc<Registry>,
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
        // 1. Receive: headers are copied, payload is borrowed until `burst` is dropped.
        let Some(mut burst) = port.rx(queue, &mut self.room) else {
            return 0;
        };
        let n = burst.len();
        let s = &mut self.state;
        // 2. Read the keys.
        s.extract(&mut burst, number);
        // 3. Look them up, in the exact-match cache and then among the megaflows.
        let misses = s.look_up(n, c);
        // 4. Ask the pipeline about the rest.
        if misses > 0 {
            s.upcall(&burst, c);
        }
        // 5. Execute the actions, run by run of packets with the same flow.
        let sender =
            Sender { burst: &mut burst, ports: c.ports, counters: c.counters, thread: c.thread };
        s.execute(n, sender, c);
        c.counters.received.add(n as u64);
        // 6. All was sent; dropping the burst gives the descriptors back.
        n
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
            let mut hash = hash6(out.key.hot(), &self.secret);
            if out.long {
                hash = hash_more(hash, &out.key.words()[flow::HOT_WORDS..], &self.secret);
            }
            self.hashes[i] = hash;
            self.cache.prefetch(hash);
        }
    }

    /// Fills `flow_of`; returns how many packets have no flow.
    #[inline(always)]
    fn look_up(&mut self, n: usize, c: &Context<'_>) -> usize {
        let (mut hits, mut misses) = (0, 0);
        for i in 0..n {
            let packet = &self.packets[i];
            let right = |f: u32| is_right(&self.flows, f, packet);
            match self.cache.find(self.hashes[i], right) {
                Some(flow) => {
                    self.flow_of[i] = flow;
                    hits += 1;
                }
                None => {
                    self.flow_of[i] = self.classify(i, c);
                    misses += usize::from(self.flow_of[i] == MISS);
                }
            }
        }
        c.counters.emc_hits.add(hits);
        misses
    }

    /// Looks for packet `i` among the megaflows and remembers what was found.
    #[inline(never)]
    fn classify(&mut self, i: usize, c: &Context<'_>) -> u32 {
        let packet = &self.packets[i];
        let (found, searched) = self.classifier.find(packet, |f| is_right(&self.flows, f, packet));
        let Some(flow) = found else { return MISS };
        c.counters.megaflow_hits.add(1);
        c.counters.subtable_lookups.add(searched as u64);
        let flows = &self.flows;
        self.cache.insert(self.hashes[i], flow, |f| is_gone(flows, f));
        flow
    }

    /// Asks the pipeline about all packets without a flow.
    #[inline(never)]
    fn upcall(&mut self, burst: &Burst<'_>, c: &Context<'_>) {
        self.passing.clear();
        for i in 0..burst.len() {
            if self.flow_of[i] != MISS {
                continue;
            }
            // An earlier packet of this burst may have brought the flow in.
            self.flow_of[i] = self.classify(i, c);
            if self.flow_of[i] != MISS {
                continue;
            }
            let key = &self.packets[i].key;
            c.counters.upcalls.add(1);
            let bytes = burst.packets()[i].len() as u64;
            let mut generation = c.translate.generation();
            let mut answer = c.translate.translate(key);
            answer.effects.apply(1, bytes, c.now_ms);
            // The packet itself may have changed the answer: it taught the switch where its sender is.
            if generation != c.translate.generation() {
                generation = c.translate.generation();
                answer = c.translate.translate(key);
            }
            let flow = Arc::new(Megaflow::new(key, bytes, answer, generation, c.now_ms));
            self.flow_of[i] = self.install(flow, i, c);
        }
    }

    fn install(&mut self, flow: Arc<Megaflow>, i: usize, c: &Context<'_>) -> u32 {
        let index = self.free.last().copied().unwrap_or(self.flows.len() as u32);
        let room = self.flows.len() - self.free.len() < c.flow_limit;
        if !room || !self.classifier.insert(&flow, index) {
            c.counters.upcalls_not_installed.add(1);
            self.passing.push(flow);
            return PASSING | (self.passing.len() - 1) as u32;
        }
        self.free.pop();
        self.registry.add(flow.clone());
        // A change since the pipeline was asked may have been swept for already.
        if flow.needs_check(c.translate.generation()) {
            self.registry.kill(&flow);
        }
        let flows = &self.flows;
        self.cache.insert(self.hashes[i], index, |f| is_gone(flows, f));
        match self.flows.get_mut(index as usize) {
            Some(slot) => *slot = Some(flow),
            None => self.flows.push(Some(flow)),
        }
        index
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
                flags |= self.packets[end].key.tcp_flags.get();
                end += 1;
            }
            let run = (end - start) as u64;
            let flow = if number & PASSING == 0 {
                let flow = self.flows[number as usize].as_deref();
                if let Some(flow) = flow {
                    flow.count(run, bytes, flags, c.now_ms);
                }
                flow
            } else {
                self.passing.get((number & !PASSING) as usize).map(|f| &**f)
            };
            let actions = flow.map_or(&[][..], |f| &f.actions);
            if actions.is_empty() {
                c.counters.drops.add(DropReason::Pipeline, run);
            }
            for action in actions {
                match *action {
                    Action::Output(to) => {
                        for i in start..end {
                            self.outputs.add(to, i as u8, &mut sender);
                        }
                    }
                }
            }
            start = end;
        }
        self.outputs.flush(&mut sender);
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

/// True if flow number `f` is alive and `packet` belongs to it.
#[inline(always)]
fn is_right(flows: &[Option<Arc<Megaflow>>], f: u32, packet: &Extracted) -> bool {
    matches!(flows.get(f as usize), Some(Some(flow)) if flow.matches(packet))
}

/// True if there is no flow number `f` any more.
fn is_gone(flows: &[Option<Arc<Megaflow>>], f: u32) -> bool {
    !matches!(flows.get(f as usize), Some(Some(_)))
}

/// Headers go on beyond the private bytes: fetches more of them, as long as there is room.
#[cold]
fn extract_deep(b: &mut Burst<'_>, i: usize, mut want: usize, number: DpPort, out: &mut Extracted) {
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
