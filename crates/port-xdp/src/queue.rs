//! One queue: a socket, its rings and frames.

use crate::alarm::Alarm;
use crate::ring::Ring;
use crate::sys::{self, Offsets, Statistics};
use crate::umem::{FRAME, Umem};
use crate::{Config, Mode, named};
use packet::arch::cycles;
use packet::{
    Abilities, BURST, Burst, BurstBuf, DropReason, HEADER_BYTES, Lender, Offload, Packet, Segment,
    Set,
};
use port::{Counters, Finished, QueueCounters, Wait, Waker};
use rustix::fd::OwnedFd;
use std::cell::UnsafeCell;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

/// Cycles for which a thread tries to send while another does: a burst takes that long.
const SPIN: u64 = 50_000;

/// Frames that the kernel sends in one call where it copies (`TX_BATCH_SIZE`).
const KICK: u32 = 32;

/// A descriptor (`xdp_desc`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Descriptor {
    at: u64,
    len: u32,
    options: u32,
}

/// Something that one thread at a time has.
struct Claim<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only by who changed `taken` from false to true.
unsafe impl<T: Send> Sync for Claim<T> {}

impl<T> Claim<T> {
    fn new(value: T) -> Claim<T> {
        Claim { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    fn try_take(&self) -> bool {
        !self.taken.swap(true, Acquire)
    }

    fn release(&self) {
        self.taken.store(false, Release);
    }
}

/// What receiving needs.
struct Rx {
    ring: Ring<Descriptor>,
    fill: Ring<u64>,
    /// Frames of the burst that is out.
    lent: Vec<u64>,
}

/// What sending needs.
struct Tx {
    ring: Ring<Descriptor>,
    completion: Ring<u64>,
    free: Vec<u64>,
}

/// See the module's documentation. Fields are dropped in this order: what uses memory before the memory.
pub(crate) struct Queue {
    rx: Claim<Rx>,
    tx: Claim<Tx>,
    socket: OwnedFd,
    alarm: Alarm,
    umem: Umem,
    received: QueueCounters,
    sent: QueueCounters,
}

impl Queue {
    /// Opens queue `number` of a netdev.
    pub(crate) fn open(config: &Config, number: u32, mode: Mode) -> Result<Queue> {
        let socket = sys::socket().map_err(|e| named(e, "a socket"))?;
        let (rx_size, tx_size) = (config.rx_size, config.tx_size);
        // The fill ring can hold all receive frames: those in the receive ring, and those that are out.
        let fill_size = rx_size * 2;
        let frames = fill_size + tx_size;
        let umem = Umem::new(frames as usize).map_err(|e| named(e, "memory for frames"))?;
        let area = libc::xdp_umem_reg {
            addr: umem.base(),
            len: umem.bytes() as u64,
            chunk_size: FRAME as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        let locked = "frames cannot be locked in memory (limit of locked memory: ulimit -l)";
        sys::set(&socket, libc::XDP_UMEM_REG, &area).map_err(|e| named(e, locked))?;
        for (option, size) in [
            (libc::XDP_UMEM_FILL_RING, fill_size),
            (libc::XDP_UMEM_COMPLETION_RING, tx_size),
            (libc::XDP_RX_RING, rx_size),
            (libc::XDP_TX_RING, tx_size),
        ] {
            sys::set(&socket, option, &size).map_err(|e| named(e, "a ring"))?;
        }
        let offsets: Offsets = sys::get(&socket, libc::XDP_MMAP_OFFSETS)?;
        let mut fill = Ring::map(&socket, libc::XDP_UMEM_PGOFF_FILL_RING, fill_size, offsets.fill)?;
        let at = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        let completion = Ring::map(&socket, at, tx_size, offsets.completion)?;
        let ring = Ring::map(&socket, libc::XDP_PGOFF_RX_RING as u64, rx_size, offsets.rx)?;
        for frame in 0..u64::from(fill_size) {
            fill.push(frame * FRAME as u64);
        }
        fill.publish();
        let rx = Rx { ring, fill, lent: Vec::with_capacity(BURST) };
        let ring = Ring::map(&socket, libc::XDP_PGOFF_TX_RING as u64, tx_size, offsets.tx)?;
        let free = (fill_size..frames).map(|n| u64::from(n) * FRAME as u64).collect();
        let tx = Tx { ring, completion, free };
        let copy = if mode == Mode::ZeroCopy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        sys::bind(&socket, config.index, number, copy | libc::XDP_USE_NEED_WAKEUP)?;
        let (received, sent) = Default::default();
        let (rx, tx, alarm) = (Claim::new(rx), Claim::new(tx), Alarm::new()?);
        Ok(Queue { rx, tx, socket, alarm, umem, received, sent })
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn has_huge_pages(&self) -> bool {
        self.umem.huge
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
            let Some(d) = rx.ring.pop() else { break };
            rx.lent.push(d.at & !(FRAME as u64 - 1));
            match self.fetch(buf, &d) {
                Ok((head, len)) => {
                    private += head as u64;
                    borrowed += (len - head) as u64;
                }
                Err(reason) => self.received.drops.add(reason, 1),
            }
        }
        if rx.lent.is_empty() {
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
        Some(buf.lend(self))
    }

    fn fetch(
        &self,
        buf: &mut BurstBuf,
        d: &Descriptor,
    ) -> std::result::Result<(usize, usize), DropReason> {
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

    /// Sends packets of a burst. False if another thread sent for too long.
    pub(crate) fn tx(&self, burst: &mut Burst<'_>, set: Set, longest: usize) -> bool {
        let start = cycles();
        while !self.tx.try_take() {
            if cycles().wrapping_sub(start) > SPIN {
                return false;
            }
            std::hint::spin_loop();
        }
        // SAFETY: taken just now.
        let tx = unsafe { &mut *self.tx.value.get() };
        while let Some(frame) = tx.completion.pop() {
            tx.free.push(frame & !(FRAME as u64 - 1));
        }
        tx.completion.release();
        tx.ring.begin();
        let mut done = Finished::default();
        let mut sum = (0, 0, 0);
        for i in set {
            let p = &burst.packets()[i];
            let (n, bytes, head) = (p.on_wire().0, p.on_wire().1, p.header().len() as u64);
            let result = match p.offload.longest(p.len()) > longest.min(FRAME) {
                true => Err(DropReason::TxMtuExceeded),
                false => self.put(tx, burst, i, &mut done),
            };
            match result {
                Ok(()) => sum = (sum.0 + n, sum.1 + head, sum.2 + bytes.saturating_sub(head)),
                Err(reason) => self.sent.drops.add(reason, n),
            }
        }
        tx.ring.publish();
        self.sent.burst(sum.0, sum.1, sum.2);
        if done != Finished::default() {
            self.sent.finished(&done);
        }
        if tx.ring.needs_wakeup() {
            for _ in 0..tx.ring.pushed().div_ceil(KICK) {
                sys::kick_tx(&self.socket);
            }
        }
        self.tx.release();
        true
    }

    /// Puts a packet into the transmit ring, in as many frames as it takes.
    fn put(
        &self,
        tx: &mut Tx,
        burst: &mut Burst<'_>,
        i: usize,
        done: &mut Finished,
    ) -> std::result::Result<(), DropReason> {
        if !burst.packets()[i].suits(Abilities::NONE) {
            return self.put_finished(tx, burst, i, done);
        }
        self.put_whole(tx, &burst.packets()[i], burst.segments(i))
    }

    fn put_whole(
        &self,
        tx: &mut Tx,
        p: &Packet,
        borrowed: &[Segment<'_>],
    ) -> std::result::Result<(), DropReason> {
        let (at, mut to) = self.frame(tx, p.len())?;
        let parts = [(p.header().as_ptr(), p.header().len())].into_iter();
        for (from, n) in parts.chain(borrowed.iter().map(|s| (s.as_ptr(), s.len()))) {
            // SAFETY: the parts are readable while the burst is borrowed, and together as long as the
            // packet, for which `frame` found room.
            unsafe {
                std::ptr::copy_nonoverlapping(from, to, n);
                to = to.add(n);
            }
        }
        tx.ring.push(Descriptor { at, len: p.len() as u32, options: 0 });
        Ok(())
    }

    /// Completes checksums and cuts super-frames.
    #[cold]
    fn put_finished(
        &self,
        tx: &mut Tx,
        burst: &mut Burst<'_>,
        i: usize,
        done: &mut Finished,
    ) -> std::result::Result<(), DropReason> {
        if !burst.packets()[i].offload.is_super() {
            burst.complete_checksum(i)?;
            done.checksums += 1;
            debug_assert!(burst.packets()[i].offload == Offload::default());
            return self.put_whole(tx, &burst.packets()[i], burst.segments(i));
        }
        let mut cut = burst.cut(i)?;
        while let Some(payload) = cut.advance() {
            let head = cut.headers().len();
            let (at, to) = self.frame(tx, head + payload)?;
            // SAFETY: `frame` found room for both.
            unsafe {
                cut.copy(to.add(head), payload, true);
                cut.complete();
                std::ptr::copy_nonoverlapping(cut.headers().as_ptr(), to, head);
            }
            tx.ring.push(Descriptor { at, len: (head + payload) as u32, options: 0 });
            done.segments += 1;
        }
        Ok(())
    }

    /// A free frame for `len` bytes, and room for its descriptor.
    fn frame(&self, tx: &mut Tx, len: usize) -> std::result::Result<(u64, *mut u8), DropReason> {
        if len > FRAME {
            return Err(DropReason::TxMtuExceeded);
        }
        if !tx.ring.has_room() {
            return Err(DropReason::TxRingFull);
        }
        let at = tx.free.pop().ok_or(DropReason::TxRingFull)?;
        let to = self.umem.at(at, FRAME).ok_or(DropReason::TxRingBroken)?;
        Ok((at, to))
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
            rx.fill.push(frame);
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
