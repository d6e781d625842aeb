//! The PMD threads of the daemon and what they poll; used by the control thread alone.

use crate::balance::{AutoBalance, Watch};
use crate::idle::{self, Idle};
use crate::numa::Topology;
use crate::place::Rules;
use crate::poll::{AT_ONCE, FRAMES_MAX, Injected, Plan, Thread, run};
use crate::sleep::SleepMax;
use crossbeam_queue::ArrayQueue;
use datapath::{Capture, PortMap, PuntQueue, Registry};
use flow::{Action, DpPort, Translate};
use packet::arch::cycles;
use port::Port;
use qos::Policer;
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

mod placing;

/// Measurement intervals that usage is averaged over, and their length: 60 seconds in all, as OVS
/// (`RXQ_INTERVAL_MAX`).
const INTERVALS: usize = 12;
/// How long usage is measured before it is noted.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How far back usage is known.
pub const MEASURED: Duration = INTERVAL.saturating_mul(INTERVALS as u32);

/// Milliseconds without a packet after which a thread waits for kicks, unless it is told otherwise.
/// Being woken takes some tens of microseconds, so who sends again after such a pause, or a longer one,
/// is slowed down by less than a hundredth of it; and 100 packets a second are polled for as ever.
const IDLE_WAIT_MS: u64 = 10;

/// The daemon's clock: milliseconds since it started, never going back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_cycles: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { start: Instant::now(), start_cycles: cycles() }
    }
}

impl Clock {
    /// Milliseconds since the daemon started, at least 1.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    /// Nanoseconds since the daemon started.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// [`cycles`] in a second, as measured since the daemon started.
    pub fn cycles_per_second(&self) -> f64 {
        let gone = cycles().wrapping_sub(self.start_cycles);
        gone as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }
}

/// A port to poll and send to.
#[derive(Clone)]
pub struct PortEntry {
    /// Its datapath number.
    pub number: DpPort,
    /// The port.
    pub port: Arc<dyn Port>,
    /// Its limits, if it has any.
    pub policer: Option<Arc<Policer>>,
    /// Those who watch it.
    pub captures: Vec<Arc<Capture>>,
    /// The NUMA node of its device, if it has one; else [`Port::node`] says.
    pub node: Option<usize>,
    /// Whether threads poll it.
    pub polled: bool,
    /// The worker thread does, and waits for its packets, since looking for them is a system call; else PMD
    /// threads do.
    pub by_worker: bool,
    /// Queues that are pinned to cores (`other_config:pmd-rxq-affinity`).
    pub affinity: BTreeMap<usize, usize>,
}

/// The core number that stands for the worker thread, which runs on any; OVS has the same for threads that
/// are not PMD threads.
pub const WORKER: usize = usize::MAX;

/// Cycles of one queue or thread, by interval.
#[derive(Default)]
struct Usage {
    last: u64,
    intervals: VecDeque<u64>,
}

impl Usage {
    fn sample(&mut self, total: u64) {
        self.intervals.push_back(total.saturating_sub(self.last));
        if self.intervals.len() > INTERVALS {
            self.intervals.pop_front();
        }
        self.last = total;
    }

    fn recent(&self) -> u64 {
        self.over(INTERVALS)
    }

    /// Of the last so many intervals.
    fn over(&self, intervals: usize) -> u64 {
        self.intervals.iter().rev().take(intervals).sum()
    }
}

/// A running thread.
struct Pmd {
    thread: Arc<Thread>,
    join: Option<JoinHandle<()>>,
    busy: Usage,
    total: Usage,
}

/// A queue's cycles, kept when it moves between threads.
#[derive(Default)]
struct QueueState {
    cycles: Arc<AtomicU64>,
    usage: Usage,
    /// What was logged of its being polled from another node: its node, and the thread's.
    told_cross: Option<(usize, usize)>,
}

/// What plans are made from: new ones are published only if any of it changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Inputs {
    cores: Vec<usize>,
    rules: Rules,
    ports: Vec<PortInput>,
}

#[derive(Debug, PartialEq, Eq)]
struct PortInput {
    number: DpPort,
    /// Address of the port: the plan that was made from it keeps it from being given to another.
    address: usize,
    /// Address of its limits, likewise; 0 without.
    policer: usize,
    /// Addresses of those who watch it.
    captures: Vec<usize>,
    node: Option<usize>,
    /// Queues to poll.
    queues: usize,
    by_worker: bool,
    affinity: BTreeMap<usize, usize>,
}

/// One queue, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxqView {
    /// Name of the port.
    pub port: String,
    /// The queue's number.
    pub queue: usize,
    /// Percentage of the thread's cycles over the last minute; `None` before the first measurement.
    pub usage: Option<u64>,
}

/// One thread, for people.
pub struct ThreadView {
    /// The core it is pinned to, or [`WORKER`].
    pub core: usize,
    /// That core's NUMA node.
    pub node: usize,
    /// It has pinned queues and gets no others.
    pub isolated: bool,
    /// Its queues.
    pub rxqs: Vec<RxqView>,
    /// Percentage of its cycles that were busy with no queue's packets; `None` before the first
    /// measurement.
    pub overhead: Option<u64>,
    /// Counters and megaflows.
    pub thread: Arc<Thread>,
}

/// All PMD threads.
pub struct Pool {
    topology: Topology,
    translate: Arc<dyn Translate>,
    clock: Clock,
    pmds: BTreeMap<usize, Pmd>,
    ports: Vec<PortEntry>,
    queues: HashMap<(DpPort, usize), QueueState>,
    generation: u64,
    published: Inputs,
    flow_limit: Arc<AtomicUsize>,
    exact_match: Arc<AtomicBool>,
    metrics: Arc<AtomicBool>,
    sleep_max: SleepMax,
    idle_wait_ms: Arc<AtomicU64>,
    rules: Rules,
    balance: AutoBalance,
    watch: Watch,
    /// Cores whose threads have pinned queues and get no others.
    isolated: HashSet<usize>,
    punts: Arc<PuntQueue>,
    sampled: Instant,
    /// Real time that stands for [`INTERVAL`].
    interval: Duration,
    /// What threads that ended had counted, so that sums never fall.
    ended: BTreeMap<&'static str, u64>,
}

impl Pool {
    /// No threads yet.
    pub fn new(
        topology: Topology,
        translate: Arc<dyn Translate>,
        clock: Clock,
        flow_limit: usize,
    ) -> Pool {
        Pool {
            topology,
            translate,
            clock,
            pmds: BTreeMap::new(),
            ports: Vec::new(),
            queues: HashMap::new(),
            generation: 0,
            published: Inputs::default(),
            flow_limit: Arc::new(AtomicUsize::new(flow_limit)),
            exact_match: Arc::new(AtomicBool::new(true)),
            metrics: Arc::default(),
            sleep_max: SleepMax::default(),
            idle_wait_ms: Arc::new(AtomicU64::new(IDLE_WAIT_MS)),
            rules: Rules::default(),
            balance: AutoBalance::default(),
            watch: Watch::default(),
            isolated: HashSet::new(),
            punts: Arc::default(),
            sampled: Instant::now(),
            interval: INTERVAL,
            ended: BTreeMap::new(),
        }
    }

    /// Runs threads on exactly these cores; those that the machine has not are left out. If none is
    /// left, it is the first core of each NUMA node.
    pub fn set_cores(&mut self, cores: &[usize]) {
        let (mut wanted, unknown): (Vec<usize>, Vec<usize>) =
            cores.iter().partition(|&&core| self.topology.node_of(core).is_some());
        if let Some(first) = unknown.first() {
            let n = unknown.len();
            warn!("pmd-cpu-mask: {n} of its cores are not to be had here, the first is {first}");
        }
        if wanted.is_empty() {
            wanted = self.topology.one_core_per_node();
        }
        wanted.sort_unstable();
        wanted.dedup();
        for &core in &wanted {
            if !self.pmds.contains_key(&core) {
                self.start(core);
            }
        }
        let gone: Vec<(usize, Pmd)> =
            self.pmds.extract_if(.., |c, _| *c != WORKER && !wanted.contains(c)).collect();
        // Other threads take the queues over before the old ones end. Meanwhile two may poll one
        // queue, in turn: a port lends a queue to one thread at a time.
        self.publish();
        for (core, pmd) in gone {
            self.end(core, pmd);
        }
    }

    /// Ends a thread that has no place in the plan any more.
    fn end(&mut self, core: usize, mut pmd: Pmd) {
        pmd.stop(core);
        for (name, n) in pmd.thread.counters.read() {
            *self.ended.entry(name).or_default() += n;
        }
    }

    /// Ends all threads. What they had counted stays.
    pub fn stop(&mut self) {
        for (core, pmd) in std::mem::take(&mut self.pmds) {
            self.end(core, pmd);
        }
        self.ports.clear();
        self.published = Inputs::default();
    }

    /// Sums of all threads' counters by name, of those that ended too.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = self.ended.clone();
        for pmd in self.pmds.values() {
            for (name, n) in pmd.thread.counters.read() {
                *sums.entry(name).or_default() += n;
            }
        }
        sums
    }

    fn start(&mut self, core: usize) {
        if let Err(e) = self.try_start(core) {
            warn!("{} cannot be created: {e}", called(core));
        }
    }

    fn try_start(&mut self, core: usize) -> std::io::Result<()> {
        let waker = idle::waker()?;
        let idle = Idle::new(waker.clone())?;
        let used = |n: &usize| self.pmds.values().any(|p| p.thread.number == *n);
        let number = (0..).find(|n| !used(n)).unwrap_or(0);
        let thread = Arc::new(Thread {
            core,
            number,
            plan: Default::default(),
            following: AtomicU64::new(0),
            counters: Default::default(),
            cleared: Default::default(),
            registry: Arc::<Registry>::default(),
            flow_limit: self.flow_limit.clone(),
            exact_match: self.exact_match.clone(),
            perf: Default::default(),
            metrics: self.metrics.clone(),
            punts: self.punts.clone(),
            sleep_max_us: AtomicU64::new(sleep_of(&self.sleep_max, core)),
            idle_wait_ms: match core {
                // Its queues tell at once, and it has no core of its own to poll on.
                WORKER => Arc::new(AtomicU64::new(AT_ONCE)),
                _ => self.idle_wait_ms.clone(),
            },
            waker,
            frames: ArrayQueue::new(FRAMES_MAX),
            stop: Default::default(),
        });
        let (shared, translate, clock) = (thread.clone(), self.translate.clone(), self.clock);
        let seed = RandomState::new().hash_one(core);
        let name = if core == WORKER { "worker".to_owned() } else { format!("pmd-c{core:02}") };
        let named = std::thread::Builder::new().name(name);
        let join = named.stack_size(crate::STACK_BYTES).spawn(move || {
            if core != WORKER {
                pin(core);
            }
            // Or else the kernel makes short sleeps up to 50 us longer, to wake for several at once.
            if let Err(e) = set_current_timer_slack(NonZeroU64::new(1)) {
                warn!("{} sleeps for longer than asked: {e}", called(core));
            }
            run(&shared, &*translate, clock, seed, idle);
        })?;
        info!("{} created", called(core));
        let (busy, total) = Default::default();
        self.pmds.insert(core, Pmd { thread, join: Some(join), busy, total });
        Ok(())
    }

    /// Polls and sends to exactly these ports. When this returns, no thread uses a port that is not
    /// among them.
    pub fn set_ports(&mut self, ports: Vec<PortEntry>) {
        self.ports = ports;
        if self.ports.iter().any(|p| p.by_worker) && !self.pmds.contains_key(&WORKER) {
            self.start(WORKER);
        }
        self.publish();
    }

    /// Assigns queues anew, if the number of a port's queues changed.
    pub fn replan(&mut self) {
        self.publish();
    }

    fn inputs(&self) -> Inputs {
        let input = |entry: &PortEntry| PortInput {
            number: entry.number,
            address: Arc::as_ptr(&entry.port).addr(),
            policer: entry.policer.as_ref().map_or(0, |p| Arc::as_ptr(p).addr()),
            captures: entry.captures.iter().map(|c| Arc::as_ptr(c).addr()).collect(),
            node: entry.node.or_else(|| entry.port.node()),
            queues: if entry.polled { entry.port.rx_queues() } else { 0 },
            by_worker: entry.by_worker,
            affinity: entry.affinity.clone(),
        };
        Inputs {
            cores: self.pmds.keys().copied().collect(),
            rules: self.rules,
            ports: self.ports.iter().map(input).collect(),
        }
    }

    /// Gives each thread a new plan, if it differs from the one before, and waits until it follows it.
    fn publish(&mut self) {
        let inputs = self.inputs();
        if inputs == self.published {
            return;
        }
        let plans = self.assign(&inputs);
        self.published = inputs;
        self.generation += 1;
        let mut map = PortMap::default();
        for entry in &self.ports {
            map.set(entry.number, Some(entry.port.clone()));
            map.police(entry.number, entry.policer.clone());
            map.capture(entry.number, entry.captures.clone());
        }
        let map = Arc::new(map);
        // Kept until no thread follows them: a thread never frees a plan, or a port with it.
        let mut old = Vec::new();
        for (pmd, rxqs) in self.pmds.values().zip(plans) {
            let plan = Plan { generation: self.generation, rxqs, ports: map.clone() };
            old.push(pmd.thread.plan.swap(Arc::new(plan)));
            pmd.wake();
        }
        for pmd in self.pmds.values() {
            wait(|| pmd.has_ended() || pmd.thread.following.load(Acquire) >= self.generation);
        }
    }

    /// Whether threads use their exact-match caches.
    pub fn set_exact_match(&mut self, on: bool) {
        self.exact_match.store(on, Relaxed);
    }

    /// Whether threads keep histograms of what they do.
    pub fn set_metrics(&mut self, on: bool) {
        self.metrics.store(on, Relaxed);
    }

    /// How long threads may sleep between rounds.
    pub fn set_sleep_max(&mut self, max: SleepMax) {
        for (&core, pmd) in &self.pmds {
            pmd.thread.sleep_max_us.store(sleep_of(&max, core), Relaxed);
        }
        self.sleep_max = max;
    }

    /// What [`Pool::set_sleep_max`] was told last.
    pub fn sleep_max(&self) -> &SleepMax {
        &self.sleep_max
    }

    /// Milliseconds without a packet after which a thread waits for guests' kicks instead of polling;
    /// 0 for never, `None` for the default.
    pub fn set_idle_wait(&mut self, ms: Option<u64>) {
        self.idle_wait_ms.store(ms.unwrap_or(IDLE_WAIT_MS).min(AT_ONCE - 1), Relaxed);
    }

    /// Changes how many megaflows a thread keeps at most.
    pub fn set_flow_limit(&mut self, limit: usize) {
        self.flow_limit.store(limit, Relaxed);
    }

    /// How many megaflows a thread keeps at most.
    pub fn flow_limit(&self) -> usize {
        self.flow_limit.load(Relaxed)
    }

    /// Packets that flows and threads want controllers to see.
    pub fn punts(&self) -> &Arc<PuntQueue> {
        &self.punts
    }

    /// Has a polling thread do `actions` to a frame, as if it had come in by `in_port`, and waits
    /// until that is done, some tens of microseconds. Returns false if nobody did it: there is no
    /// thread, or 1024 frames wait already. What the frame causes besides (`Effects`) is left to the
    /// caller.
    pub fn execute(&self, frame: Vec<u8>, in_port: DpPort, actions: Vec<Action>) -> bool {
        let Some(pmd) = self.pmds.values().find(|pmd| !pmd.has_ended()) else {
            return false;
        };
        let done = Arc::new(AtomicBool::new(false));
        let job = Injected { frame, in_port, actions, done: done.clone() };
        if pmd.thread.frames.push(job).is_err() {
            return false;
        }
        pmd.wake();
        wait(|| pmd.has_ended() || done.load(Acquire));
        done.load(Acquire)
    }

    /// Takes `interval` for [`INTERVAL`] when usage is measured, so that tests need not wait for a minute of it.
    pub fn fake_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Takes the next measurement of usage if it is time.
    pub fn sample(&mut self) {
        if self.sampled.elapsed() < self.interval {
            return;
        }
        self.sampled = Instant::now();
        for queue in self.queues.values_mut() {
            queue.usage.sample(queue.cycles.load(Relaxed));
        }
        for pmd in self.pmds.values_mut() {
            let c = &pmd.thread.counters;
            let busy = c.busy_cycles.get();
            pmd.busy.sample(busy);
            pmd.total.sample(busy + c.idle_cycles.get() + c.sleep_cycles.get());
        }
        self.balance_if_due();
    }

    /// False before the first [`Pool::set_cores`], and if the system gave no thread.
    pub fn has_threads(&self) -> bool {
        !self.pmds.is_empty()
    }

    /// The threads, by core.
    pub fn threads(&self) -> Vec<ThreadView> {
        self.threads_over(MEASURED)
    }

    /// The threads, by core, with their usage over the last `time`, [`MEASURED`] at most.
    pub fn threads_over(&self, time: Duration) -> Vec<ThreadView> {
        let intervals = time.as_secs().div_ceil(INTERVAL.as_secs()) as usize;
        self.pmds.values().map(|pmd| self.view(pmd, intervals)).collect()
    }

    fn view(&self, pmd: &Pmd, intervals: usize) -> ThreadView {
        let total = pmd.total.over(intervals);
        let percent = |part: u64| (total > 0).then(|| part * 100 / total);
        let mut of_queues = 0;
        let mut rxqs = Vec::new();
        for rxq in &pmd.thread.plan.load().rxqs {
            let state = self.queues.get(&(rxq.number, rxq.queue));
            let recent = state.map_or(0, |s| s.usage.over(intervals));
            of_queues += recent;
            let port = rxq.port.name().to_owned();
            rxqs.push(RxqView { port, queue: rxq.queue, usage: percent(recent) });
        }
        rxqs.sort_by(|a, b| (&a.port, a.queue).cmp(&(&b.port, b.queue)));
        ThreadView {
            core: pmd.thread.core,
            node: self.topology.node_of(pmd.thread.core).unwrap_or(0),
            isolated: self.isolated.contains(&pmd.thread.core),
            rxqs,
            overhead: percent(pmd.busy.over(intervals).saturating_sub(of_queues)),
            thread: pmd.thread.clone(),
        }
    }
}

impl ThreadView {
    /// True for the worker thread.
    pub fn is_worker(&self) -> bool {
        self.core == WORKER
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pmd {
    fn wake(&self) {
        self.thread.waker.ring();
    }

    /// True if the thread runs no more, as after a panic: nothing is to be waited for then.
    fn has_ended(&self) -> bool {
        self.join.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn stop(&mut self, core: usize) {
        self.thread.stop.store(true, Relaxed);
        self.wake();
        match self.join.take().map(JoinHandle::join) {
            Some(Err(_)) => warn!("{} had panicked", called(core)),
            _ => info!("{} destroyed", called(core)),
        }
        for flow in self.thread.registry.flows() {
            flow.push_effects();
        }
    }
}

/// How long a thread may sleep between rounds: the worker waits for its queues instead.
fn sleep_of(max: &SleepMax, core: usize) -> u64 {
    if core == WORKER { 0 } else { max.of_core(core) }
}

/// A thread's name in the log.
fn called(core: usize) -> String {
    match core {
        WORKER => "worker thread".to_owned(),
        core => format!("PMD thread on core {core}"),
    }
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(e) = sched_setaffinity(None, &set) {
        warn!("PMD thread cannot be pinned to core {core}: {e}");
    }
}

/// Waits for something that a PMD thread does between two bursts.
fn wait(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        if start.elapsed() < Duration::from_millis(1) {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{Action, Effects, FlowKey, FlowMask, Seen, Translation};
    use packet::{Burst, BurstBuf, Set};
    use port::sim::SimPort;

    struct Nothing;
    impl Effects for Nothing {
        fn apply(&self, _: &Seen) {}
    }

    /// Port 1 to port 2 and back.
    struct Cross;
    impl Translate for Cross {
        fn translate(&self, key: &FlowKey) -> Translation {
            let actions = vec![Action::Output(DpPort(3 - key.in_port))];
            Translation { mask: FlowMask::default(), actions, effects: Arc::new(Nothing) }
        }
        fn generation(&self) -> u64 {
            0
        }
    }

    fn entry(number: u32, port: &Arc<SimPort>) -> PortEntry {
        PortEntry {
            number: DpPort(number),
            port: port.clone(),
            policer: None,
            captures: Vec::new(),
            node: None,
            polled: true,
            by_worker: false,
            affinity: BTreeMap::new(),
        }
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "no {what} within 20 s");
            std::thread::yield_now();
        }
    }

    fn pool() -> Pool {
        let topology = Topology::read(std::path::Path::new("/nonexistent"));
        let mut pool = Pool::new(topology, Arc::new(Cross), Clock::default(), 100);
        pool.set_cores(&[]);
        pool
    }

    #[test]
    fn only_changes_are_published() {
        let mut pool = pool();
        let (a, b) = (Arc::new(SimPort::new("a")), Arc::new(SimPort::new("b")));
        pool.set_ports(vec![entry(1, &a), entry(2, &b)]);
        let generation = pool.generation;
        pool.replan();
        pool.set_ports(vec![entry(1, &a), entry(2, &b)]);
        pool.set_cores(&[]);
        assert_eq!(pool.generation, generation);
        pool.set_ports(vec![entry(1, &a), entry(3, &b)]);
        assert_eq!(pool.generation, generation + 1);
        pool.set_cores(&[70_000, 80_000]);
        assert_eq!(pool.generation, generation + 1, "cores that are not there change nothing");
    }

    #[test]
    fn a_thread_that_panicked_is_not_waited_for_and_sums_do_not_fall() {
        struct Broken;
        impl Translate for Broken {
            fn translate(&self, _: &FlowKey) -> Translation {
                panic!("on purpose")
            }
            fn generation(&self) -> u64 {
                0
            }
        }
        let topology = Topology::read(std::path::Path::new("/nonexistent"));
        let mut pool = Pool::new(topology, Arc::new(Broken), Clock::default(), 100);
        pool.set_cores(&[]);
        let a = Arc::new(SimPort::new("a"));
        pool.set_ports(vec![entry(1, &a)]);
        a.push(&[1; 60]);
        until("end of the thread", || pool.pmds.values().all(Pmd::has_ended));
        pool.set_ports(Vec::new());
        let received = pool.counters()["datapath_received"];
        pool.stop();
        assert_eq!(pool.counters()["datapath_received"], received);
    }

    #[test]
    fn threads_follow_plans_and_move_packets() {
        let mut pool = pool();
        let (a, b) = (Arc::new(SimPort::new("a")), Arc::new(SimPort::new("b")));
        pool.set_ports(vec![entry(1, &a), entry(2, &b)]);
        a.push(&[1; 60]);
        until("frame at b", || b.counters().tx_packets == 1);
        let views = pool.threads();
        assert_eq!(views[0].rxqs.iter().map(|q| &*q.port).collect::<Vec<_>>(), ["a", "b"]);
        // A port that was taken away is no longer held by any thread.
        pool.set_ports(vec![entry(1, &a)]);
        until("release of b", || Arc::strong_count(&b) == 1);
        a.push(&[1; 60]);
        let dropped =
            || pool.threads()[0].thread.counters.drops.get(packet::DropReason::InvalidPort);
        until("drop", || dropped() == 1);
    }

    #[test]
    fn a_thread_waits_only_if_it_misses_nothing_by_it() {
        let mut pool = pool();
        let sleeps = |pool: &Pool| pool.counters()["datapath_sleep_iterations"];
        until("a wait of a thread without queues", || sleeps(&pool) > 0);
        let a = Arc::new(SimPort::new("a"));
        pool.set_idle_wait(Some(1));
        pool.set_ports(vec![entry(1, &a)]);
        let before = sleeps(&pool);
        let rounds = |pool: &Pool| pool.counters()["datapath_idle_iterations"];
        let (start, began) = (rounds(&pool), Instant::now());
        until("rounds of a thread that cannot wait", || {
            rounds(&pool) > start + 10_000 && began.elapsed() > Duration::from_millis(20)
        });
        assert_eq!(sleeps(&pool), before, "a simulated port has to be polled");
        pool.set_sleep_max(SleepMax::parse("0,0:50").0);
        until("sleeps by load", || sleeps(&pool) > before + 10);
        pool.set_sleep_max(SleepMax::default());
        pool.set_ports(Vec::new());
        until("waits without queues", || sleeps(&pool) > before + 20);
    }

    #[test]
    fn frames_of_the_switch_itself_are_executed_by_a_thread() {
        let mut pool = pool();
        let (a, b) = (Arc::new(SimPort::new("a")), Arc::new(SimPort::new("b")));
        pool.set_ports(vec![entry(1, &a), entry(2, &b)]);
        let out = |p| vec![Action::Output(DpPort(p))];
        assert!(pool.execute(vec![7; 60], DpPort(1), out(2)));
        assert_eq!((a.take().len(), b.take()), (0, vec![vec![7; 60]]), "sent when it returns");
        assert!(pool.execute(vec![8; 60], DpPort(1), vec![Action::Recirc(5)]));
        assert_eq!(b.take(), [vec![8; 60]], "what recirculates is looked up and asked about");
        pool.set_ports(Vec::new());
        assert!(
            pool.execute(vec![7; 60], DpPort(1), out(2)),
            "also by a thread that polls nothing"
        );
        pool.stop();
        assert!(!pool.execute(vec![7; 60], DpPort(1), out(2)), "nobody is there");
    }

    /// Has a packet whenever it is asked, if it is polled, and notes whether it was told of what was
    /// sent to it.
    #[derive(Default)]
    struct Probe {
        rounds: AtomicU64,
        untold: AtomicBool,
        late: AtomicU64,
    }

    impl packet::Lender for Probe {
        fn give_back(&self) {}
    }

    impl Port for Probe {
        fn name(&self) -> &str {
            "probe"
        }
        fn rx_queues(&self) -> usize {
            1
        }
        fn rx<'b>(&'b self, _: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
            self.rounds.fetch_add(1, Relaxed);
            self.late.fetch_add(self.untold.load(Relaxed).into(), Relaxed);
            buf.clear();
            buf.push()?.set_header(&[1; 60]);
            Some(buf.lend(self))
        }
        fn tx(&self, _: usize, _: &mut Burst<'_>, _: Set) {
            self.untold.store(true, Relaxed);
        }
        fn tell_sent(&self, _: usize) -> bool {
            self.untold.store(false, Relaxed);
            true
        }
        fn counters(&self) -> port::Counters {
            port::Counters::default()
        }
    }

    /// The probe as port 1, and as port 2 that its packets go to.
    fn to_itself(probe: &Arc<Probe>, polled: bool) -> Vec<PortEntry> {
        let entry = |n| {
            let (number, port) = (DpPort(n), probe.clone() as Arc<dyn Port>);
            PortEntry {
                number,
                port,
                policer: None,
                captures: Vec::new(),
                node: None,
                polled: polled && n == 1,
                by_worker: false,
                affinity: BTreeMap::new(),
            }
        };
        vec![entry(1), entry(2)]
    }

    #[test]
    fn guests_are_told_before_their_thread_sleeps_waits_or_ends() {
        let probe = Arc::<Probe>::default();
        let mut pool = pool();
        pool.set_sleep_max(SleepMax::parse("5").0);
        pool.set_ports(to_itself(&probe, true));
        until("packets", || probe.rounds.load(Relaxed) > 100);
        // The first round is not followed by a sleep.
        assert!(probe.late.load(Relaxed) <= 1, "told before each sleep");
        pool.set_sleep_max(SleepMax::default());
        let from = probe.rounds.load(Relaxed);
        until("packets", || probe.rounds.load(Relaxed) > from + 100);
        pool.stop();
        assert!(!probe.untold.load(Relaxed), "told before the end");

        let mut pool = self::pool();
        pool.set_ports(to_itself(&probe, false));
        assert!(pool.execute(vec![7; 60], DpPort(1), vec![Action::Output(DpPort(2))]));
        assert!(!probe.untold.load(Relaxed), "told before it waits");
    }
}
