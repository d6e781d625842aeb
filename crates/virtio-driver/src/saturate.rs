//! The path for benches: frames are written once, then only rings are touched; what comes back is counted, not read.

use crate::driver::Pair;
use crate::error::Error;
use crate::layout::{Layout, NetHeader};
use crate::mapping::Span;
use std::sync::Arc;

/// Buffers handled in one turn of each queue. Larger bursts than a switch's 32 let it always find a full one.
pub const TURN: u16 = 64;

/// How many buffers ahead lines are asked for before they are stamped: what a core has under way at once.
pub(crate) const STAMP_AHEAD: usize = 8;

/// What one turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Frames taken back from the device and sent again.
    pub sent: u32,
    /// Buffers received (frames, as long as each fits one buffer) and posted again.
    pub received: u32,
    /// Bytes received, virtio-net headers included.
    pub bytes: u64,
}

/// Four bytes of each frame that change every time it is sent, so that a few buffers carry any number of flows.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Where in the frame; 34 are the UDP ports of a plain IPv4 frame.
    pub at: usize,
    /// What is written, one after another and then from the beginning. Several queues may share it.
    pub values: Arc<[[u8; 4]]>,
    /// The value to begin with.
    pub next: usize,
}

impl Stamp {
    #[inline]
    fn take(&mut self) -> [u8; 4] {
        if self.next >= self.values.len() {
            self.next = 0;
        }
        let value = self.values[self.next];
        self.next += 1;
        value
    }
}

/// Drives one pair at full speed. Ids, lengths and order are checked; payload is not.
#[derive(Debug)]
pub struct Saturator<'a> {
    pair: &'a mut Pair,
    /// Frames that were filled in.
    depth: u16,
    sending: bool,
    stamp: Option<Stamp>,
    /// Whether received frames are read, and what was read, so that reading is not optimised away.
    reading: bool,
    seen: u64,
}

impl Pair {
    /// Fills `depth` transmit buffers with frames from `fill` (which gets the frame's number and an empty vector), to be sent over and
    /// over from the first [`Saturator::turn`] on. Everything sent before must have been reclaimed. With `depth` 0 it only receives.
    pub fn saturate(
        &mut self,
        depth: u16,
        fill: impl FnMut(u16, &mut Vec<u8>),
    ) -> Result<Saturator<'_>, Error> {
        self.saturate_with(depth, &NetHeader::default(), fill)
    }

    /// As [`Pair::saturate`], each frame with this header.
    pub fn saturate_with(
        &mut self,
        depth: u16,
        header: &NetHeader,
        mut fill: impl FnMut(u16, &mut Vec<u8>),
    ) -> Result<Saturator<'_>, Error> {
        if !self.rx.is_single() {
            return Err(Error::Config(
                "saturating needs receive buffers of one descriptor or an indirect table".into(),
            ));
        }
        self.tx.reclaim()?;
        if self.tx.in_flight() != 0 || usize::from(depth) > self.tx.room() {
            let why = format!(
                "{depth} frames do not fit: {} in flight, room for {}",
                self.tx.in_flight(),
                self.tx.room()
            );
            return Err(Error::Config(why));
        }
        self.rx.refill()?;
        let mut frame = Vec::new();
        for number in 0..depth {
            frame.clear();
            fill(number, &mut frame);
            if !self.tx.push(header, &frame, &Layout::whole())? {
                return Err(Error::Config(format!(
                    "frame {number} found no room in the transmit ring"
                )));
            }
        }
        Ok(Saturator { pair: self, depth, sending: false, stamp: None, reading: false, seen: 0 })
    }
}

impl Saturator<'_> {
    /// Changes each frame from its second sending on.
    ///
    /// # Errors
    /// If there are no values, or they do not lie inside a buffer.
    pub fn stamp(&mut self, stamp: Stamp) -> Result<(), Error> {
        let base = &self.pair.tx.base;
        if stamp.values.is_empty() || base.header_len + stamp.at + 4 > base.stride() {
            return Err(Error::Config("a stamp needs values and a place inside the frame".into()));
        }
        self.stamp = Some(stamp);
        Ok(())
    }

    /// Reads the first bytes of each frame received from now on, as a guest that looks at headers would: their cache line changes cores.
    pub fn read_frames(&mut self) {
        self.reading = true;
    }

    /// All that was read, folded into a number.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// One look at both queues. Never waits. (Not to be inlined into a crate that is built with less optimisation.)
    #[inline(never)]
    pub fn turn(&mut self) -> Result<Turn, Error> {
        if !self.sending {
            self.pair.tx.flush();
            self.sending = true;
        }
        let (base, seen) = (&mut self.pair.rx.base, &mut self.seen);
        let at = base.header_len;
        let received = if self.reading {
            base.recycle(TURN, |buffers, buffer, _| {
                *seen ^= u64::from_le_bytes(buffers.array(buffer + at))
            })?
        } else {
            base.recycle(TURN, |_, _, _| ())?
        };
        let sent = if self.depth > 0 { self.send_again()? } else { 0 };
        Ok(Turn { sent, received: received.buffers, bytes: received.bytes })
    }

    #[inline]
    fn send_again(&mut self) -> Result<u32, Error> {
        let base = &mut self.pair.tx.base;
        let Some(stamp) = &mut self.stamp else {
            return Ok(base.recycle(TURN, |_, _, _| ())?.buffers);
        };
        let at = base.header_len + stamp.at;
        let ahead = STAMP_AHEAD * base.stride() + at;
        let write = |buffers: &Span, buffer: usize, _| {
            // The device keeps the order as a rule, so this will be its turn soon; its line is on the other core.
            buffers.prefetch_write(buffer + ahead);
            buffers.write(buffer + at, &stamp.take());
        };
        Ok(base.recycle(TURN, write)?.buffers)
    }

    /// Stops sending: takes frames back without posting them again, and goes on receiving, until the device holds no frame or `more` says
    /// no. What was received meanwhile.
    pub fn finish(self, mut more: impl FnMut() -> bool) -> Result<Turn, Error> {
        let mut total = Turn::default();
        while more() {
            let received = self.pair.rx.base.recycle(TURN, |_, _, _| ())?;
            total.received += received.buffers;
            total.bytes += received.bytes;
            total.sent += self.pair.tx.reclaim()? as u32;
            if self.pair.tx.in_flight() == 0 {
                break;
            }
        }
        Ok(total)
    }
}

/// Two ports driven by one thread: each sends to the other.
#[derive(Debug)]
pub struct Loop<'a> {
    /// One port.
    pub a: Saturator<'a>,
    /// The other.
    pub b: Saturator<'a>,
}

impl Loop<'_> {
    /// One turn of both ports: what `a` and `b` did.
    #[inline]
    pub fn turn(&mut self) -> Result<(Turn, Turn), Error> {
        Ok((self.a.turn()?, self.b.turn()?))
    }
}
