//! The revalidator: a thread that keeps megaflows right and tells the pipeline what they forwarded.

use crate::pool::Clock;
use datapath::{Megaflow, Registry};
use flow::Translate;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the revalidator looks whether the pipeline changed.
const LOOK: Duration = Duration::from_millis(50);
/// How often it reads statistics and looks for idle flows (OVS `max-revalidator`).
const SWEEP_MS: u64 = 500;

/// How long a sweep checks all megaflows after a change, in milliseconds. From then on it ends those
/// unchecked that nobody used for a while, so that it is over in time: should a packet come after all,
/// asking about it costs no more than the check.
const CHECK_ALL_MS: u64 = 250;
/// Not used for this long is a while.
const UNUSED_MS: u64 = 1000;
/// Checks between two looks at the clock.
const CHECKS_PER_LOOK: u64 = 64;

/// Settings that can change while it runs.
#[derive(Debug)]
pub struct Limits {
    /// A megaflow without packets for this long is removed, in milliseconds (OVS `max-idle`).
    pub max_idle_ms: AtomicU64,
    /// Megaflows after the last sweep, for `upcall/show`.
    pub flows: AtomicUsize,
    /// The most that there ever were.
    pub flows_max: AtomicUsize,
    /// Milliseconds that the last sweep took.
    pub dump_ms: AtomicU64,
    /// Milliseconds of a sweep in which all megaflows are checked, used or not.
    pub check_all_ms: AtomicU64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_idle_ms: AtomicU64::new(10_000),
            flows: AtomicUsize::new(0),
            flows_max: AtomicUsize::new(0),
            dump_ms: AtomicU64::new(0),
            check_all_ms: AtomicU64::new(CHECK_ALL_MS),
        }
    }
}

struct Shared {
    translate: Arc<dyn Translate>,
    clock: Clock,
    registries: Mutex<Vec<Arc<Registry>>>,
    limits: Limits,
    stop: AtomicBool,
    sweeps: AtomicU64,
}

/// The running thread. Dropping it ends it.
pub struct Revalidator {
    shared: Arc<Shared>,
    join: Option<JoinHandle<()>>,
}

impl Revalidator {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(translate: Arc<dyn Translate>, clock: Clock) -> std::io::Result<Revalidator> {
        let shared = Arc::new(Shared {
            translate,
            clock,
            registries: Mutex::default(),
            limits: Limits::default(),
            stop: AtomicBool::new(false),
            sweeps: AtomicU64::new(0),
        });
        let its = shared.clone();
        let named = std::thread::Builder::new().name("revalidator".into());
        let join = named.stack_size(crate::STACK_BYTES).spawn(move || its.run())?;
        Ok(Revalidator { shared, join: Some(join) })
    }

    /// Looks after exactly these threads' megaflows from now on.
    pub fn set_registries(&self, registries: Vec<Arc<Registry>>) {
        *self.shared.registries.lock().unwrap_or_else(PoisonError::into_inner) = registries;
    }

    /// Settings and measurements.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Sweeps so far. What was stale when this was N is gone when it is N + 2: one sweep may have been
    /// half way, the next is a whole one.
    pub fn sweeps(&self) -> u64 {
        self.shared.sweeps.load(Acquire)
    }

    /// Waits until a complete sweep has begun and ended after this call (`revalidator/wait`).
    pub fn wait(&self) {
        let goal = self.shared.sweeps.load(Acquire) + 2;
        self.kick();
        while self.shared.sweeps.load(Acquire) < goal && !self.shared.stop.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
            self.kick();
        }
    }

    fn kick(&self) {
        if let Some(join) = &self.join {
            join.thread().unpark();
        }
    }
}

impl Drop for Revalidator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.kick();
        if let Some(join) = self.join.take() {
            let _ = join.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut generation = None;
        let mut swept_ms = 0;
        while !self.stop.load(Relaxed) {
            let waited = std::time::Instant::now();
            std::thread::park_timeout(LOOK);
            let kicked = waited.elapsed() < LOOK;
            let (now_ms, current) = (self.clock.now_ms(), self.translate.generation());
            let changed = generation != Some(current);
            if changed || kicked || now_ms - swept_ms >= SWEEP_MS {
                generation = Some(current);
                swept_ms = now_ms;
                self.sweep(current, now_ms);
                self.limits.dump_ms.store(self.clock.now_ms() - now_ms, Relaxed);
                self.sweeps.fetch_add(1, Release);
            }
        }
    }

    fn sweep(&self, generation: u64, now_ms: u64) {
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let max_idle = self.limits.max_idle_ms.load(Relaxed);
        let (began, check_all) = (self.clock.now_ms(), self.limits.check_all_ms.load(Relaxed));
        let (mut alive, mut checks, mut late) = (0, 0u64, false);
        let mut right = |flow: &Megaflow, unused: u64| {
            if !flow.needs_check(generation) {
                return true;
            }
            if checks.is_multiple_of(CHECKS_PER_LOOK) {
                late = self.clock.now_ms() - began >= check_all;
            }
            checks += 1;
            (!late || unused <= UNUSED_MS)
                && flow.still_right(&self.translate.translate(&flow.origin), generation)
        };
        for registry in registries {
            registry.visit(|flow| {
                flow.push_effects();
                let used = flow.stats().used_ms.max(flow.created_ms);
                let unused = now_ms.saturating_sub(used);
                if unused <= max_idle && right(flow, unused) {
                    alive += 1;
                } else {
                    registry.kill(flow);
                }
            });
        }
        self.limits.flows.store(alive, Relaxed);
        self.limits.flows_max.fetch_max(alive, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::{Context, Datapath, PortMap, PuntQueue, WalkCounters};
    use flow::{Action, DpPort, Effects, FlowKey, FlowMask, Seen, Translation};
    use port::sim::SimPort;

    #[derive(Default)]
    struct Changing {
        to: AtomicU64,
        generation: AtomicU64,
        told: Arc<Told>,
    }
    #[derive(Default)]
    struct Told(AtomicU64);
    impl Effects for Told {
        fn apply(&self, seen: &Seen) {
            self.0.fetch_add(seen.packets, Relaxed);
        }
    }
    impl Translate for Changing {
        fn translate(&self, _: &FlowKey) -> Translation {
            let actions = vec![Action::Output(DpPort(self.to.load(Relaxed) as u32))];
            Translation { mask: FlowMask::default(), actions, effects: self.told.clone() }
        }
        fn generation(&self) -> u64 {
            self.generation.load(Relaxed)
        }
    }

    #[test]
    fn a_change_of_the_pipeline_reaches_cached_flows() {
        let pipeline = Arc::new(Changing { to: AtomicU64::new(2), ..Default::default() });
        let registry = Arc::<Registry>::default();
        let reval = Revalidator::start(pipeline.clone(), Clock::default()).expect("thread");
        reval.set_registries(vec![registry.clone()]);
        let ports: Vec<_> = (0..4).map(|i| Arc::new(SimPort::new(&format!("p{i}")))).collect();
        let mut map = PortMap::default();
        for (i, p) in ports.iter().enumerate() {
            map.set(DpPort(i as u32), Some(p.clone()));
        }
        let (counters, punts) = (WalkCounters::default(), PuntQueue::default());
        let mut datapath = Datapath::new(7, registry.clone());
        let mut send = || {
            let context = Context {
                ports: &map,
                translate: &*pipeline,
                counters: &counters,
                punts: &punts,
                thread: 0,
                now_ms: 1,
                flow_limit: 10,
                exact_match: true,
            };
            ports[1].push(&[0; 60]);
            datapath.walk(&*ports[1], 0, DpPort(1), &context);
            datapath.clean();
        };
        send();
        send();
        reval.wait();
        assert_eq!((ports[2].take().len(), pipeline.told.0.load(Relaxed)), (2, 2));
        pipeline.to.store(3, Relaxed);
        pipeline.generation.store(1, Relaxed);
        reval.wait();
        send();
        assert_eq!((ports[2].take().len(), ports[3].take().len()), (0, 1));
        reval.wait();
        assert_eq!((registry.len(), pipeline.told.0.load(Relaxed)), (1, 3));
    }

    /// A megaflow for each source address, and what asking costs.
    #[derive(Default)]
    struct BySource {
        asked: AtomicU64,
        generation: AtomicU64,
        told: Arc<Told>,
    }
    impl Translate for BySource {
        fn translate(&self, _: &FlowKey) -> Translation {
            self.asked.fetch_add(1, Relaxed);
            let mut mask = FlowMask::default();
            mask.bits_mut().dl_src = flow::Mac::BROADCAST;
            Translation { mask, actions: vec![], effects: self.told.clone() }
        }
        fn generation(&self) -> u64 {
            self.generation.load(Relaxed)
        }
    }

    fn shared(pipeline: &Arc<BySource>, registry: &Arc<Registry>) -> Shared {
        Shared {
            translate: pipeline.clone(),
            clock: Clock::default(),
            registries: Mutex::new(vec![registry.clone()]),
            limits: Limits::default(),
            stop: AtomicBool::new(false),
            sweeps: AtomicU64::new(0),
        }
    }

    /// Makes `flows` megaflows at `now_ms`, and a packet more for the first `busy` of them later.
    fn fill(pipeline: &BySource, datapath: &mut Datapath, flows: u32, busy: u32) {
        let port = Arc::new(SimPort::new("p"));
        let (counters, punts, map) = Default::default();
        for (count, now_ms) in [(flows, 1), (busy, 5000)] {
            for i in 0..count {
                let mut frame = [0; 60];
                frame[8..12].copy_from_slice(&i.to_be_bytes());
                port.push(&frame);
                if port.waiting() == 32 || i + 1 == count {
                    let context = Context {
                        ports: &map,
                        translate: pipeline,
                        counters: &counters,
                        punts: &punts,
                        thread: 0,
                        now_ms,
                        flow_limit: 1_000_000,
                        exact_match: true,
                    };
                    datapath.walk(&*port, 0, DpPort(1), &context);
                }
            }
        }
    }

    #[test]
    fn when_time_runs_out_only_flows_in_use_are_checked_after_a_change() {
        for (check_all_ms, checked) in [(0, 7), (u64::MAX, 1000)] {
            let (flows, alive) = (1000, checked as usize);
            let (pipeline, registry) = (Arc::<BySource>::default(), Arc::<Registry>::default());
            let mut datapath = Datapath::new(7, registry.clone());
            fill(&pipeline, &mut datapath, flows, 7);
            let s = shared(&pipeline, &registry);
            s.limits.check_all_ms.store(check_all_ms, Relaxed);
            let asked = pipeline.asked.load(Relaxed);
            s.sweep(0, 5100);
            assert_eq!(s.limits.flows.load(Relaxed), flows as usize, "nothing changed");
            assert_eq!(pipeline.asked.load(Relaxed), asked);
            assert_eq!(pipeline.told.0.load(Relaxed), u64::from(flows) + 7);
            pipeline.generation.store(1, Relaxed);
            s.sweep(1, 5100);
            assert_eq!(pipeline.asked.load(Relaxed) - asked, checked);
            assert_eq!(s.limits.flows.load(Relaxed), alive);
            while datapath.clean() {}
            s.sweep(1, 5100);
            assert_eq!((registry.len(), pipeline.asked.load(Relaxed) - asked), (alive, checked));
            s.sweep(1, 50_000);
            assert_eq!(s.limits.flows.load(Relaxed), 0, "idle");
        }
    }
}
