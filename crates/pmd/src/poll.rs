//! The poll loop of a PMD thread.

use crate::idle::{Idle, Woken};
use crate::perf::{Column, Columns, Perf, Round};
use crate::pool::Clock;
use crate::sleep::{BUSY_PACKETS, LoadSleep};
use crate::turns::Turns;
use arc_swap::{ArcSwap, Cache};
use crossbeam_queue::ArrayQueue;
use datapath::{Context, Datapath, PortMap, PuntQueue, Registry, WalkCounters, WalkCounts};
use flow::{Action, DpPort, Translate};
use packet::arch::cycles;
use port::{Port, Waker};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Cycles between looks at the clock and other housekeeping: some tens of microseconds.
const HOUSEKEEPING_CYCLES: u64 = 100_000;
/// Milliseconds between rankings of the subtables, as in OVS (`DPCLS_OPTIMIZATION_INTERVAL`).
const RANK_MS: u64 = 1000;

/// A value of [`Thread::idle_wait_ms`]: it waits as soon as it has looked in vain.
pub(crate) const AT_ONCE: u64 = u64::MAX;

/// A receive queue to poll.
pub struct Rxq {
    /// The port.
    pub port: Arc<dyn Port>,
    /// Its datapath number.
    pub number: DpPort,
    /// The queue's number at the port.
    pub queue: usize,
    /// Cycles spent on this queue's packets.
    pub cycles: Arc<AtomicU64>,
}

/// Frames that wait for one thread to execute them: what a controller's burst of packet-outs needs.
pub(crate) const FRAMES_MAX: usize = 1024;
/// Frames executed between two looks at the queues, so that receive queues do not run over meanwhile.
const FRAMES_AT_ONCE: usize = 32;

/// A frame that comes from the switch itself.
pub(crate) struct Injected {
    pub(crate) frame: Vec<u8>,
    /// The port that it is taken to have come in by.
    pub(crate) in_port: DpPort,
    pub(crate) actions: Vec<Action>,
    /// Set when it was executed.
    pub(crate) done: Arc<AtomicBool>,
}

/// What a thread is to do. Immutable: a new one is published when anything changes.
#[derive(Default)]
pub struct Plan {
    /// Counts plans, so that the thread can say which it follows.
    pub generation: u64,
    /// The queues to poll, in this order.
    pub rxqs: Vec<Rxq>,
    /// Where packets can go.
    pub ports: Arc<PortMap>,
}

/// What a PMD thread and the control thread share.
pub struct Thread {
    /// The core it is pinned to.
    pub core: usize,
    /// Its number, from 0; also the transmit queue that it prefers.
    pub number: usize,
    /// What it does.
    pub plan: ArcSwap<Plan>,
    /// The plan that it follows; it has no reference to anything of an older one.
    pub following: AtomicU64,
    /// What it counted. Only the thread itself writes there.
    pub counters: WalkCounters,
    /// Histograms, if `metrics` is set. Only the thread itself writes there.
    pub(crate) perf: Perf,
    /// Whether to keep them (`other_config:pmd-perf-metrics`).
    pub metrics: Arc<AtomicBool>,
    /// When statistics were last cleared.
    pub(crate) cleared: Mutex<Cleared>,
    /// Its megaflows.
    pub registry: Arc<Registry>,
    /// Megaflows to keep at most.
    pub flow_limit: Arc<AtomicUsize>,
    /// Whether the exact-match cache is used.
    pub exact_match: Arc<AtomicBool>,
    /// Packets for controllers, of all threads.
    pub punts: Arc<PuntQueue>,
    /// Longest sleep after a round of its queues, microseconds; 0 is none
    /// (`other_config:pmd-sleep-max`).
    pub sleep_max_us: AtomicU64,
    /// Milliseconds without a packet after which it waits for kicks; 0 is never
    /// (`other_config:pmd-idle-wait`), [`u64::MAX`] at once.
    pub idle_wait_ms: Arc<AtomicU64>,
    /// Ends its wait.
    pub(crate) waker: Arc<Waker>,
    /// Frames to execute.
    pub(crate) frames: ArrayQueue<Injected>,
    /// To end.
    pub stop: AtomicBool,
}

/// A time at which statistics began from zero.
#[derive(Debug, Clone)]
pub(crate) struct Cleared {
    at: Instant,
    /// What had been counted.
    counts: WalkCounts,
    columns: Columns,
}

impl Default for Cleared {
    fn default() -> Self {
        Cleared { at: Instant::now(), counts: WalkCounts::default(), columns: Columns::default() }
    }
}

impl Thread {
    fn cleared(&self) -> MutexGuard<'_, Cleared> {
        self.cleared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it counted since statistics were last cleared.
    pub fn counts(&self) -> WalkCounts {
        self.counters.counts().since(&self.cleared().counts)
    }

    /// How long ago that was.
    pub fn counted_for(&self) -> Duration {
        self.cleared().at.elapsed()
    }

    /// Histograms of what it did since then, in the order in which OVS shows them.
    pub fn columns(&self) -> Vec<Column> {
        let earlier = self.cleared().columns;
        self.perf.columns(&self.counters, &earlier)
    }

    /// Cycles of upcalls since then.
    pub fn upcall_cycles(&self) -> u64 {
        let earlier = self.cleared().columns;
        self.counters.upcall_spans.bins().since(&earlier.upcall_spans).sum
    }

    /// Starts statistics from zero (`dpif-netdev/pmd-stats-clear`).
    pub fn clear(&self) {
        *self.cleared() = Cleared {
            at: Instant::now(),
            counts: self.counters.counts(),
            columns: self.perf.read(&self.counters),
        };
    }

    /// True if there is something to do besides polling the queues of `plan`.
    fn is_due(&self, plan: &Plan) -> bool {
        self.stop.load(Relaxed)
            || !self.frames.is_empty()
            || self.plan.load().generation != plan.generation
    }

    /// Milliseconds without a packet after which to wait for some.
    fn patience_ms(&self, plan: &Plan) -> u64 {
        match self.idle_wait_ms.load(Relaxed) {
            // There is nothing to poll.
            _ if plan.rxqs.is_empty() => 0,
            0 => u64::MAX,
            AT_ONCE => 0,
            ms => ms,
        }
    }

    /// Counts a sleep that began at `from` and ends now; returns now, in cycles.
    fn slept(&self, from: u64) -> u64 {
        let now = cycles();
        self.counters.sleep_cycles.add(now.wrapping_sub(from));
        // The worker's waits say nothing of PMD threads' load.
        if self.core != crate::WORKER {
            self.counters.sleep_iterations.add(1);
        }
        now
    }
}

/// Runs until [`Thread::stop`].
pub(crate) fn run(
    thread: &Thread,
    translate: &dyn Translate,
    clock: Clock,
    seed: u64,
    mut idle: Idle,
) {
    let mut datapath = Datapath::new(seed, thread.registry.clone());
    let mut plan = Cache::new(&thread.plan);
    let mut now_ms = clock.now_ms();
    let mut ranked_ms = 0;
    let mut kept_house = 0;
    let mut turns = Turns::new(0);
    let mut sleep = LoadSleep::default();
    // When there last was a packet or a reason to look for some.
    let mut active_ms = now_ms;
    let mut last = cycles();
    let is_worker = thread.core == crate::WORKER;
    loop {
        let plan: &Arc<Plan> = plan.load();
        if thread.following.load(Relaxed) != plan.generation {
            // A device goes with its last descriptor: none is kept of a port that is gone.
            idle.forget();
            thread.following.store(plan.generation, Release);
            turns = Turns::new(plan.rxqs.len());
            active_ms = now_ms;
        }
        let mut packets = 0;
        let mut round = thread.metrics.load(Relaxed).then(|| Round::new(&thread.counters));
        let context = Context {
            ports: &plan.ports,
            translate,
            counters: &thread.counters,
            punts: &thread.punts,
            thread: thread.number,
            now_ms,
            flow_limit: thread.flow_limit.load(Relaxed),
            exact_match: thread.exact_match.load(Relaxed),
        };
        if thread.stop.load(Relaxed) {
            return datapath.tell(&context);
        }
        let began = last;
        for k in 0..turns.looks() {
            let i = turns.look(k);
            let Some(rxq) = plan.rxqs.get(i).filter(|_| turns.may(i)) else { continue };
            let n = datapath.walk(&*rxq.port, rxq.queue, rxq.number, &context);
            if n > 0 {
                packets += n;
                if n >= BUSY_PACKETS {
                    sleep.busy();
                }
                if let Some(round) = &mut round {
                    round.batch(n, &*rxq.port, rxq.queue);
                }
                let now = cycles();
                let spent = now.wrapping_sub(last);
                rxq.cycles.store(rxq.cycles.load(Relaxed) + spent, Relaxed);
                turns.took(i, spent);
                last = now;
            } else {
                turns.idled(i);
            }
        }
        turns.end_round();
        if packets == 0 {
            datapath.tell(&context);
        }
        last = cycles();
        let c = &thread.counters;
        let (spent, turns) = if packets > 0 {
            active_ms = now_ms;
            (&c.busy_cycles, &c.busy_iterations)
        } else {
            (&c.idle_cycles, &c.idle_iterations)
        };
        spent.add(last.wrapping_sub(began));
        turns.add(1);
        if let Some(round) = round {
            thread.perf.add(&round, packets, last.wrapping_sub(began), c);
        }
        let sleep_us = sleep.after_round(thread.sleep_max_us.load(Relaxed));
        if sleep_us > 0 {
            datapath.tell(&context);
            std::thread::sleep(Duration::from_micros(sleep_us));
            last = thread.slept(last);
        }
        // Looking in vain is a system call for the worker, and its core may have other work.
        if last.wrapping_sub(kept_house) > HOUSEKEEPING_CYCLES || (packets == 0 && is_worker) {
            kept_house = last;
            now_ms = clock.now_ms();
            let more = datapath.clean();
            for _ in 0..FRAMES_AT_ONCE {
                let Some(f) = thread.frames.pop() else { break };
                datapath.execute_frame(&f.frame, f.in_port, &f.actions, &context);
                datapath.tell(&context);
                f.done.store(true, Release);
            }
            if now_ms.saturating_sub(ranked_ms) >= RANK_MS {
                ranked_ms = now_ms;
                datapath.rank();
            }
            if packets == 0 && !more && now_ms.saturating_sub(active_ms) >= thread.patience_ms(plan)
            {
                let began = cycles();
                let woken = idle.wait(&plan.rxqs, || thread.is_due(plan));
                now_ms = clock.now_ms();
                if woken != Woken::Nothing {
                    active_ms = now_ms;
                }
                if woken != Woken::AtOnce {
                    c.idle_cycles.add(began.wrapping_sub(last));
                    last = thread.slept(began);
                }
            }
        }
    }
}
