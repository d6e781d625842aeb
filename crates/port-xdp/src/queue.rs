//! One queue: a socket, its rings and frames.

use crate::alarm::Alarm;
use crate::repair::left_to_do;
use crate::ring::Ring;
use crate::shared::Share;
use crate::sys::{self, Statistics};
use crate::transmit::Metadata;
use crate::umem::{FRAME, Umem};
use packet::{BURST, Burst, BurstBuf, DropReason, HEADER_BYTES, Lender, MAX_FRAME};
use port::{Counters, Finished, QueueCounters, Wait, Waker, hold};
use rustix::fd::OwnedFd;
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::*};

/// Frames that one packet takes at most: three hold the longest MTU, 9702. Received ones may have one for each page
/// of a socket buffer (`MAX_SKB_FRAGS`) and one for its head.
pub(crate) const TX_PARTS: usize = 3;
pub(crate) const RX_PARTS: usize = 18;

/// `XDP_PKT_CONTD`, an option of descriptors: the packet goes on in the next one (linux/if_xdp.h; Linux 6.6).
pub(crate) const CONTINUED: u32 = 1;

/// Bytes in front of frames that are sent, where the kernel may be left something to do: of each, for it wants them to be
/// inside of the frame even if it is told nothing.
pub(crate) const METADATA: usize = size_of::<Metadata>();

/// Bytes in front of a received frame (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;

/// A descriptor (`xdp_desc`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}

/// The frame that an address is in.
pub(crate) fn frame_of(at: u64) -> u64 {
    at & !(FRAME as u64 - 1)
}

/// Something that one thread at a time has.
pub(crate) struct Claim<T> {
    /// A state of [`port::hold`].
    word: AtomicU8,
    pub(crate) value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only by who changed `word` from `FREE` to `HELD`, until it is `FREE` again.
unsafe impl<T: Send> Sync for Claim<T> {}

impl<T> Claim<T> {
    pub(crate) fn new(value: T) -> Claim<T> {
        Claim { word: AtomicU8::new(hold::FREE), value: UnsafeCell::new(value) }
    }

    pub(crate) fn try_take(&self) -> bool {
        self.word.compare_exchange(hold::FREE, hold::HELD, Acquire, Relaxed).is_ok()
    }

    /// As `try_take`, but waits for another thread as [`hold::wait`] does.
    pub(crate) fn take(&self) -> bool {
        let again = || self.try_take().then_some(());
        self.try_take() || hold::wait(&[&self.word], again).is_some()
    }

    pub(crate) fn release(&self) {
        self.word.store(hold::FREE, Release);
    }
}

/// What receiving needs.
pub(crate) struct Rx {
    pub(crate) ring: Ring<Descriptor>,
    pub(crate) fill: Ring<u64>,
    /// Frames of the burst that is out.
    pub(crate) lent: Vec<u64>,
}

/// What sending needs.
pub(crate) struct Tx {
    pub(crate) ring: Ring<Descriptor>,
    pub(crate) completion: Ring<u64>,
    pub(crate) free: Vec<u64>,
    /// Frames that were sent, and are still in the bursts that they came in.
    pub(crate) waiting: Vec<u64>,
}

impl Tx {
    /// Takes back what the kernel has sent.
    pub(crate) fn take_back(&mut self, share: Option<&Share>) {
        let Tx { completion, free, waiting, .. } = self;
        if let Some(share) = share
            && !waiting.is_empty()
        {
            free.extend(waiting.extract_if(.., |frame| share.is_idle(*frame)));
        }
        while let Some(frame) = completion.pop().map(frame_of) {
            match share {
                Some(share) if !share.owns(frame) => {}
                Some(share) if !share.is_idle(frame) => waiting.push(frame),
                _ => free.push(frame),
            }
        }
        completion.release();
    }
}

/// See the module's documentation. Fields are dropped in this order: what uses memory before the memory.
pub(crate) struct Queue {
    pub(crate) rx: Claim<Rx>,
    pub(crate) tx: Claim<Tx>,
    pub(crate) socket: OwnedFd,
    pub(crate) alarm: Alarm,
    /// If it shares frames with others, and why not if it was to.
    pub(crate) share: Option<Share>,
    pub(crate) unshared: Option<String>,
    pub(crate) umem: Arc<Umem>,
    /// Bytes in front of what is sent: [`METADATA`] if the kernel completes checksums, else none.
    pub(crate) metadata: usize,
    /// Whether packets may be longer than a frame.
    pub(crate) parts: bool,
    /// Whether to look for checksums that were left to be done.
    pub(crate) repair: bool,
    /// Whether to join segments of TCP.
    pub(crate) gro: bool,
    /// Whether a poll that finds nothing has the driver look.
    pub(crate) busy_poll: bool,
    pub(crate) received: QueueCounters,
    pub(crate) sent: QueueCounters,
}

impl Queue {
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn has_huge_pages(&self) -> bool {
        self.umem.huge
    }

    /// Bytes of the longest frame that can be received.
    pub(crate) fn longest_received(&self) -> usize {
        if self.parts { TX_PARTS * FRAME } else { FRAME - KERNEL_HEADROOM }
    }

    /// Takes a burst and lends it.
    pub(crate) fn rx<'b>(&'b self, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        buf.clear();
        if !self.rx.try_take() {
            return None;
        }
        // SAFETY: taken just now.
        let rx = unsafe { &mut *self.rx.value.get() };
        let (mut private, mut borrowed) = (0, 0);
        while rx.lent.len() < BURST {
            let Some(d) = self.next(rx) else { break };
            let fetched = match d.options & CONTINUED {
                0 => self.fetch(buf, &d),
                _ => self.fetch_parts(buf, &d, rx),
            };
            match fetched {
                Ok((head, len)) => {
                    if self.repair
                        && let Some(p) = buf.last()
                        && let Some(offload) = left_to_do(p.header(), len)
                    {
                        buf.set_offload(offload);
                    }
                    private += head as u64;
                    borrowed += (len - head) as u64;
                }
                Err(reason) => self.received.drops.add(reason, 1),
            }
        }
        if rx.lent.is_empty() {
            if self.busy_poll {
                sys::kick_rx(&self.socket);
            }
            self.rx.release();
            return None;
        }
        rx.ring.release();
        if buf.is_empty() {
            // Frames that made no packet go back at once.
            self.give_back();
            return None;
        }
        self.received.burst(buf.len() as u64, private, borrowed);
        let mut burst = buf.lend(self);
        if self.gro {
            // Packets and bytes were counted as they came.
            let super_frames = burst.coalesce() as u64;
            self.received.finished(&Finished { super_frames, ..Finished::default() });
        }
        Some(burst)
    }

    /// What was received next. Its frame is lent.
    fn next(&self, rx: &mut Rx) -> Option<Descriptor> {
        loop {
            let d = rx.ring.pop()?;
            let frame = frame_of(d.at);
            if self.share.as_ref().is_none_or(|share| share.owns(frame)) {
                rx.lent.push(frame);
                return Some(d);
            }
            self.received.drops.add(DropReason::RxOversize, 1);
        }
    }

    fn fetch(&self, buf: &mut BurstBuf, d: &Descriptor) -> Result<(usize, usize), DropReason> {
        let len = d.len as usize;
        if len < 14 {
            return Err(DropReason::RxShortFrame);
        }
        let ptr = self.umem.at(d.at, len).ok_or(DropReason::RxOversize)?;
        let head = len.min(HEADER_BYTES);
        // SAFETY: `at` found the frame inside the area.
        unsafe { buf.fetch::<0>(ptr, head) }.ok_or(DropReason::RxTooManySegments)?;
        // SAFETY: as above; the frame is the kernel's again only when the burst is given back.
        if len > head && !unsafe { buf.add_segment(ptr.wrapping_add(head), len - head) } {
            buf.pop();
            return Err(DropReason::RxTooManySegments);
        }
        Ok((head, len))
    }

    /// As [`Queue::fetch`], for a packet in several frames. The kernel publishes all of them at once.
    #[cold]
    fn fetch_parts(
        &self,
        buf: &mut BurstBuf,
        first: &Descriptor,
        rx: &mut Rx,
    ) -> Result<(usize, usize), DropReason> {
        let mut fetched = self.fetch(buf, first);
        loop {
            let Some(d) = self.next(rx) else {
                if fetched.is_ok() {
                    buf.pop();
                }
                return Err(DropReason::RxTooManySegments);
            };
            if let Ok((_, len)) = &mut fetched {
                let n = d.len as usize;
                // SAFETY: `at` found the bytes inside the area; they are the kernel's again only when the burst is
                // given back.
                let added =
                    self.umem.at(d.at, n).is_some_and(|ptr| unsafe { buf.add_segment(ptr, n) });
                if added && *len + n <= MAX_FRAME {
                    *len += n;
                } else {
                    buf.pop();
                    fetched = Err(DropReason::RxOversize);
                }
            }
            if d.options & CONTINUED == 0 {
                return fetched;
            }
        }
    }

    pub(crate) fn add_to(&self, sum: &mut Counters) {
        self.received.add_rx(sum);
        self.sent.add_tx(sum);
        let kernel: Statistics = sys::get(&self.socket, libc::XDP_STATISTICS).unwrap_or_default();
        let lost = kernel.rx_dropped + kernel.rx_ring_full + kernel.rx_invalid;
        sum.drops[DropReason::RxKernelFull as usize] += lost;
        sum.rx_dropped += lost;
        sum.drops[DropReason::TxRingBroken as usize] += kernel.tx_invalid;
        sum.tx_dropped += kernel.tx_invalid;
    }

    pub(crate) fn wait_for(&self, waker: &Arc<Waker>) -> Wait {
        let alarm = self.alarm.arm(&self.socket, waker);
        if !self.rx.try_take() {
            return Wait::Poll;
        }
        // SAFETY: taken just now.
        let rx = unsafe { &*self.rx.value.get() };
        let more = rx.ring.has_more();
        self.rx.release();
        match alarm {
            Ok(alarm) if !more => Wait::Signal(alarm),
            _ => Wait::Poll,
        }
    }

    pub(crate) fn wait_over(&self, waker: &Arc<Waker>) {
        self.alarm.disarm(&self.socket, waker);
    }
}

impl Lender for Queue {
    fn give_back(&self) {
        // SAFETY: the burst that is over kept the claim.
        let rx = unsafe { &mut *self.rx.value.get() };
        let any = !rx.lent.is_empty();
        while let Some(frame) = rx.lent.pop() {
            // There is room for all receive frames.
            rx.fill.push(self.share.as_ref().map_or(frame, |share| share.back(frame)));
        }
        if any {
            rx.fill.publish();
            if rx.fill.needs_wakeup() {
                sys::kick_rx(&self.socket);
            }
        }
        self.rx.release();
    }
}
