//! One virtqueue of a port, as PMD threads and the session share it.

use crate::call::Call;
use crate::claim::{Claim, Claimed};
use crate::ring::{AnyRing, RingFault};
use packet::{Burst, BurstBuf, DropReason, Lender, Set};
use port::{QueueCounters, Wait, Waker};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::*, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// [`packet::arch::cycles`] for which a thread that polls again tries to claim the ring that it waited for, which the
/// session may hold: 100 us at 3 GHz.
const KICKS_CLAIM_CYCLES: u64 = 300_000;

/// How long the session waits for a ring before it looks why it is held.
const PATIENCE: Duration = Duration::from_millis(20);

/// What a thread needs that waits for a guest's kick.
#[derive(Debug, Default)]
struct Kicks {
    /// Where the guest's kicks come.
    event: Option<Arc<OwnedFd>>,
    /// The thread that waits.
    waiter: Option<Arc<Waker>>,
}

/// A virtqueue. The session starts and stops its ring; PMD threads use it while it runs.
#[derive(Debug)]
pub(crate) struct Vring {
    ring: Claim<Option<AnyRing>>,
    /// Where its interrupts go, for the session alone.
    call: Mutex<Option<Arc<Call>>>,
    /// Not touched on the packet path.
    kicks: Mutex<Kicks>,
    /// The ring runs and is enabled; looked at before the claim is tried.
    live: AtomicBool,
    /// The rule its guest broke, if the ring was stopped for that; 0 if not.
    fault: AtomicU8,
    /// Where a ring was stopped for a fault, as `VHOST_USER_GET_VRING_BASE` reports it.
    fault_base: AtomicU32,
    /// Tells the session that there is a fault.
    bell: Arc<EventFd>,
    pub(crate) counters: QueueCounters,
}

impl Vring {
    pub(crate) fn new(bell: Arc<EventFd>) -> Vring {
        Vring {
            ring: Claim::new(None),
            call: Mutex::default(),
            kicks: Mutex::default(),
            live: AtomicBool::new(false),
            fault: AtomicU8::new(0),
            fault_base: AtomicU32::new(0),
            bell,
            counters: QueueCounters::default(),
        }
    }

    /// True if packets can pass.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Relaxed)
    }

    /// Replaces the ring, waiting until no PMD thread uses it; returns the one that ran.
    pub(crate) fn replace(&self, mut ring: Option<AnyRing>, enabled: bool) -> Option<AnyRing> {
        let live = ring.is_some() && enabled;
        let mut held = self.claim();
        if let (Some(ring), Some(was)) = (&mut ring, &*held) {
            ring.take_over(was);
        }
        self.live.store(live, Relaxed);
        let was = std::mem::replace(&mut *held, ring);
        drop(held);
        self.wake();
        was
    }

    /// Lets packets pass, or not, if there is a ring.
    pub(crate) fn enable(&self, on: bool) {
        let held = self.claim();
        self.live.store(on && held.is_some(), Relaxed);
        drop(held);
        self.wake();
    }

    fn kicks(&self) -> MutexGuard<'_, Kicks> {
        self.kicks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes where the guest's kicks come.
    pub(crate) fn set_kick(&self, event: Option<Arc<OwnedFd>>) {
        self.kicks().event = event;
        self.wake();
    }

    /// Has a thread that waits look at the ring again. To be called after a change, without the claim.
    fn wake(&self) {
        if let Some(waiter) = &self.kicks().waiter {
            waiter.ring();
        }
    }

    /// See [`port::Port::wait_for`]. What the session changes before this looks is seen here; for what
    /// it changes after, it finds `waiter`.
    pub(crate) fn wait_for(&self, waiter: &Arc<Waker>) -> Wait {
        let mut kicks = self.kicks();
        kicks.waiter = Some(waiter.clone());
        let Some(mut held) = self.ring.try_claim() else {
            return Wait::Poll;
        };
        let Some(ring) = held.as_mut().filter(|_| self.is_live()) else {
            return Wait::Quiet;
        };
        match &kicks.event {
            Some(event) if !ring.ask_for_kicks() => Wait::Signal(event.clone()),
            _ => Wait::Poll,
        }
    }

    /// See [`port::Port::wait_over`]. Does nothing if another thread waits by now.
    pub(crate) fn wait_over(&self, waiter: &Arc<Waker>) {
        let mut kicks = self.kicks();
        if kicks.waiter.take_if(|w| Arc::ptr_eq(w, waiter)).is_none() {
            return;
        }
        // In vain only if the session lost its processor meanwhile; then the guest kicks for nothing
        // until the next time.
        if let Some(mut held) = self.ring.claim_within(KICKS_CLAIM_CYCLES)
            && let Some(ring) = held.as_mut()
        {
            ring.refuse_kicks();
        }
    }

    /// Changes where the ring's interrupts go.
    pub(crate) fn set_call(&self, call: Option<Arc<Call>>) {
        let mut ring = self.claim();
        if let Some(ring) = &mut *ring {
            ring.set_call(call.clone());
        }
        drop(ring);
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    /// Claims the ring, waiting as long as it takes: for the session.
    fn claim(&self) -> Claimed<'_, Option<AnyRing>> {
        loop {
            match self.ring.claim_for(PATIENCE) {
                Some(held) => return held,
                None => self.unblock(),
            };
        }
    }

    /// Interrupts the guest for what was published, if it wants that. Not for the session, which nobody
    /// would free from a descriptor that its front end made blocking (see [`Vring::unblock`]).
    #[cold]
    fn tell_now(&self, ring: &mut AnyRing) {
        fence(SeqCst);
        ring.tell(&self.counters);
    }

    /// Sees to it that no PMD thread waits in a call. True if the front end had made that possible.
    pub(crate) fn unblock(&self) -> bool {
        let call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        call.as_ref().is_some_and(|call| call.unblock())
    }

    /// The rule that was broken since the last call, and where the ring stands.
    pub(crate) fn take_fault(&self) -> Option<(RingFault, u32)> {
        // The claim orders what `broken` wrote.
        let _held = self.claim();
        let fault = RingFault::from_code(self.fault.swap(0, Relaxed))?;
        Some((fault, self.fault_base.load(Relaxed)))
    }

    /// Stops a ring that broke a rule. The session says so in the log.
    #[cold]
    fn broken(&self, ring: &mut Option<AnyRing>, fault: RingFault) {
        if let Some(mut ring) = ring.take() {
            self.tell_now(&mut ring);
            self.fault_base.store(ring.base(), Relaxed);
        }
        self.live.store(false, Relaxed);
        self.fault.store(fault as u8, Relaxed);
        let _ = self.bell.write(1);
    }

    /// Takes a burst out of a guest's transmit ring.
    #[inline(always)]
    pub(crate) fn rx<'b>(&'b self, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        if !self.is_live() {
            return None;
        }
        let mut held = self.ring.try_claim()?;
        // Again, as the session may have disabled it just before the claim.
        let ring = held.as_mut().filter(|_| self.is_live())?;
        match ring.rx(buf, &self.counters) {
            Ok(()) if buf.is_empty() => {
                // Nothing new; or nothing but malformed frames, and then nobody hears of a burst.
                if ring.give_back() {
                    self.tell_now(ring);
                }
                None
            }
            Ok(()) => {
                held.lend();
                Some(buf.lend(self))
            }
            Err(fault) => {
                buf.clear();
                self.broken(&mut held, fault);
                None
            }
        }
    }

    /// As `tell_now`, for a thread that has passed a full memory barrier since. False if the ring is
    /// claimed: by the session, by another thread that sends, or by this one while a burst is out.
    #[inline(always)]
    pub(crate) fn tell(&self) -> bool {
        let Some(mut held) = self.ring.try_claim() else { return false };
        if let Some(ring) = &mut *held {
            ring.tell(&self.counters);
        }
        true
    }

    /// See [`port::Port::waiting`].
    pub(crate) fn waiting(&self) -> usize {
        let held = self.ring.try_claim();
        held.and_then(|ring| Some(ring.as_ref()?.waiting())).unwrap_or(0)
    }

    /// Puts packets, none longer than `longest`, into a guest's receive ring. False if another thread
    /// has it for too long, and nothing was done.
    #[inline(always)]
    pub(crate) fn tx(&self, burst: &mut Burst<'_>, set: Set, longest: usize) -> bool {
        let Some(mut held) = self.ring.claim() else {
            return false;
        };
        let Some(ring) = held.as_mut().filter(|_| self.is_live()) else {
            self.counters.drops.add(DropReason::TxNoQueue, set.len() as u64);
            return true;
        };
        if let Err(fault) = ring.tx(burst, set, longest, &self.counters) {
            self.broken(&mut held, fault);
        }
        true
    }
}

impl Lender for Vring {
    #[inline(always)]
    fn give_back(&self) {
        if let Some(mut held) = self.ring.resume()
            && let Some(ring) = held.as_mut()
        {
            ring.give_back();
        }
    }
}
