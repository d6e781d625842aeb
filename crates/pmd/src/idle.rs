//! Waiting for guests' kicks: what a thread does that has found nothing for a while.
//!
//! It asks each of its queues to be told of packets ([`port::Port::wait_for`]), which looks at the
//! queue once more after asking, and blocks until one tells or the thread's own [`Waker`] is rung: for
//! a new plan, a frame of the switch itself, the end, or a queue that starts. Whatever came before the
//! asking is seen by the look, whatever comes after signals, so no wake-up is lost; [`LONGEST`] bounds
//! what a guest that does not keep to this loses by it.
//!
//! Guests' events are taken as edges and their descriptors are never read: front ends share them, and can
//! make a read block. One that signals for ever makes its thread poll, as it would without this. Devices
//! of the kernel are readable while they have packets: the wait itself looks at them, in one system call.

use crate::poll::Rxq;
use port::{Wait, Waker};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The longest wait: megaflows that the revalidator ended are removed, and the clock is looked at, ten
/// times a second, which costs less than a thousandth of a core.
const LONGEST: Duration = Duration::from_millis(100);
/// Events taken from the kernel at once; which they are does not matter.
const EVENTS: usize = 64;

/// A new thread's waker.
pub(crate) fn waker() -> std::io::Result<Arc<Waker>> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(Arc::new(Waker::new(eventfd(0, flags)?)))
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There was none: something is to be done, or a queue has to be polled.
    AtOnce,
    /// By a guest or by the waker.
    Called,
    /// [`LONGEST`] went by.
    Nothing,
}

/// What a thread waits with.
pub(crate) struct Idle {
    waker: Arc<Waker>,
    epoll: OwnedFd,
    /// What `epoll` watches besides the waker. Held, so that no other descriptor gets its number.
    watched: Vec<Watched>,
}

/// A descriptor that tells of packets.
struct Watched {
    source: Arc<OwnedFd>,
    /// By edges, else for as long as it is readable.
    flags: EventFlags,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Watched) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.flags == other.flags
    }
}

impl Idle {
    pub(crate) fn new(waker: Arc<Waker>) -> std::io::Result<Idle> {
        let epoll = watch(&waker, &[])?;
        Ok(Idle { waker, epoll, watched: Vec::new() })
    }

    /// Lets go of all descriptors that were watched.
    pub(crate) fn forget(&mut self) {
        if !self.watched.is_empty()
            && let Ok(epoll) = watch(&self.waker, &[])
        {
            (self.epoll, self.watched) = (epoll, Vec::new());
        }
    }

    /// Waits for packets on `rxqs` or for the waker. `due` says whether anything else is to be done
    /// that the waker was rung for; it is asked after earlier rings were forgotten.
    pub(crate) fn wait(&mut self, rxqs: &[Rxq], due: impl Fn() -> bool) -> Woken {
        // What guests signalled while the thread polled is dealt with and forgotten. A signal that comes
        // after the first asking may be among it, so everything is looked at again.
        let ready = !self.ask(rxqs)
            || self.has_edges() && (self.take_events(Duration::ZERO).is_err() || !self.ask(rxqs));
        let woken = if ready || due() {
            Woken::AtOnce
        } else {
            match self.take_events(LONGEST) {
                Ok(0) => Woken::Nothing,
                // An interrupted wait is one that ended for no known reason.
                _ => Woken::Called,
            }
        };
        for rxq in rxqs {
            rxq.port.wait_over(rxq.queue, &self.waker);
        }
        woken
    }

    /// Asks all queues to be told of packets. False if one has to be polled.
    fn ask(&mut self, rxqs: &[Rxq]) -> bool {
        let mut signals = Vec::with_capacity(self.watched.len());
        for rxq in rxqs {
            match rxq.port.wait_for(rxq.queue, &self.waker) {
                Wait::Poll => return false,
                Wait::Quiet => {}
                Wait::Signal(source) => {
                    signals.push(Watched { source, flags: EventFlags::IN | EventFlags::ET });
                }
                Wait::Readable(source) => signals.push(Watched { source, flags: EventFlags::IN }),
            }
        }
        if signals == self.watched {
            return true;
        }
        // Made anew: one that is closed here may live on elsewhere, and would be watched for ever.
        // What was signalled already is an event at once.
        match watch(&self.waker, &signals) {
            Ok(epoll) => {
                (self.epoll, self.watched) = (epoll, signals);
                true
            }
            Err(_) => false,
        }
    }

    fn has_edges(&self) -> bool {
        self.watched.iter().any(|w| w.flags.contains(EventFlags::ET))
    }

    /// Takes the events that there are, waiting for one for `patience`; their number.
    fn take_events(&self, patience: Duration) -> rustix::io::Result<usize> {
        let timeout = Timespec {
            tv_sec: patience.as_secs().cast_signed(),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut events = [std::mem::MaybeUninit::uninit(); EVENTS];
        let (taken, _) = epoll::wait(&self.epoll, &mut events, Some(&timeout))?;
        Ok(taken.len())
    }
}

/// An epoll descriptor for these, and for the waker by edges.
fn watch(waker: &Waker, signals: &[Watched]) -> rustix::io::Result<OwnedFd> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, waker.as_fd(), EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
    for Watched { source, flags } in signals {
        epoll::add(&epoll, source, EventData::new_u64(0), *flags)?;
    }
    Ok(epoll)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::DpPort;
    use packet::{Burst, BurstBuf, Set};
    use port::{Counters, Port};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Instant;

    /// A port whose answer to [`Port::wait_for`] a test decides.
    struct Told {
        answer: Mutex<Wait>,
        asked: AtomicUsize,
        over: AtomicUsize,
    }

    impl Told {
        fn new(answer: Wait) -> Arc<Told> {
            let answer = Mutex::new(answer);
            Arc::new(Told { answer, asked: AtomicUsize::new(0), over: AtomicUsize::new(0) })
        }

        fn set(&self, answer: Wait) {
            *self.answer.lock().expect("no panic") = answer;
        }
    }

    impl Port for Told {
        fn name(&self) -> &str {
            "told"
        }
        fn rx_queues(&self) -> usize {
            1
        }
        fn rx<'b>(&'b self, _: usize, _: &'b mut BurstBuf) -> Option<Burst<'b>> {
            None
        }
        fn tx(&self, _: usize, _: &mut Burst<'_>, _: Set) {}
        fn counters(&self) -> Counters {
            Counters::default()
        }
        fn wait_for(&self, _: usize, _: &Arc<Waker>) -> Wait {
            self.asked.fetch_add(1, Relaxed);
            self.answer.lock().expect("no panic").clone()
        }
        fn wait_over(&self, _: usize, _: &Arc<Waker>) {
            self.over.fetch_add(1, Relaxed);
        }
    }

    fn event() -> Arc<OwnedFd> {
        Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"))
    }

    fn signal(event: &OwnedFd) {
        rustix::io::write(event, &1u64.to_ne_bytes()).expect("not full");
    }

    fn rxqs(ports: &[&Arc<Told>]) -> Vec<Rxq> {
        let rxq = |p: &&Arc<Told>| Rxq {
            port: (*p).clone(),
            number: DpPort(1),
            queue: 0,
            cycles: Arc::default(),
        };
        ports.iter().map(rxq).collect()
    }

    fn idle() -> (Arc<Waker>, Idle) {
        let waker = waker().expect("an eventfd");
        let idle = Idle::new(waker.clone()).expect("an epoll descriptor");
        (waker, idle)
    }

    #[test]
    fn one_queue_that_must_be_polled_keeps_its_thread_from_waiting() {
        let (_waker, mut idle) = idle();
        let (quiet, polled) = (Told::new(Wait::Quiet), Told::new(Wait::Poll));
        let both = rxqs(&[&quiet, &polled]);
        assert_eq!(idle.wait(&both, || false), Woken::AtOnce);
        let counts = |p: &Told| (p.asked.load(Relaxed), p.over.load(Relaxed));
        assert_eq!((counts(&quiet), counts(&polled)), ((1, 1), (1, 1)), "asked, and that is over");
        assert_eq!(idle.wait(&rxqs(&[&quiet]), || true), Woken::AtOnce, "something is due");
    }

    #[test]
    fn a_wait_ends_by_itself() {
        let (_waker, mut idle) = idle();
        let quiet = rxqs(&[&Told::new(Wait::Quiet), &Told::new(Wait::Signal(event()))]);
        for _ in 0..2 {
            let start = Instant::now();
            assert_eq!(idle.wait(&quiet, || false), Woken::Nothing);
            assert!(start.elapsed() >= LONGEST, "{:?}", start.elapsed());
        }
    }

    #[test]
    fn a_wait_ends_by_a_signal_that_nobody_reads_and_by_the_waker() {
        let (waker, mut idle) = idle();
        let (first, second) = (event(), event());
        let port = Told::new(Wait::Signal(first.clone()));
        let queues = rxqs(&[&port]);
        // Whatever was signalled before the port was asked is known: the port says what is there.
        signal(&first);
        waker.ring();
        assert_eq!(idle.wait(&queues, || false), Woken::Nothing);
        let wake_by = |idle: &mut Idle, wake: &(dyn Fn() + Sync)| {
            let asked = port.asked.load(Relaxed);
            std::thread::scope(|s| {
                s.spawn(|| {
                    while port.asked.load(Relaxed) < asked + 2 {
                        std::thread::yield_now();
                    }
                    wake();
                });
                idle.wait(&queues, || false)
            })
        };
        for _ in 0..3 {
            assert_eq!(wake_by(&mut idle, &|| signal(&first)), Woken::Called);
            assert_eq!(wake_by(&mut idle, &|| waker.ring()), Woken::Called);
        }
        // The descriptor that counts is the one that the port names last; the former is forgotten,
        // though it is still open.
        port.set(Wait::Signal(second.clone()));
        assert_eq!(wake_by(&mut idle, &|| signal(&first)), Woken::Nothing);
        assert_eq!(wake_by(&mut idle, &|| signal(&second)), Woken::Called);
        let held = Arc::strong_count(&first);
        assert_eq!(held, 1, "and is not held");
    }

    #[test]
    fn a_wait_ends_at_once_for_as_long_as_a_device_is_readable() {
        let (_waker, mut idle) = idle();
        let device = event();
        let queues = rxqs(&[&Told::new(Wait::Readable(device.clone()))]);
        signal(&device);
        for _ in 0..3 {
            assert_eq!(idle.wait(&queues, || false), Woken::Called);
        }
        rustix::io::read(&*device, &mut [0; 8]).expect("a count");
        assert_eq!(idle.wait(&queues, || false), Woken::Nothing);
    }
}
