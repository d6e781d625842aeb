//! The path for benches: frames are written once, then only rings are touched; what comes back is counted, not read.

use crate::driver::Pair;
use crate::error::Error;
use crate::layout::{Layout, NetHeader};

/// Buffers handled in one turn of each queue. Larger bursts than a switch's 32 let it always find a full one.
pub const TURN: u16 = 64;

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

/// Drives one pair at full speed. Ids, lengths and order are checked; payload is not.
#[derive(Debug)]
pub struct Saturator<'a> {
    pair: &'a mut Pair,
    /// Frames that were filled in.
    depth: u16,
    sending: bool,
}

impl Pair {
    /// Fills `depth` transmit buffers with frames from `fill` (which gets the frame's number and an empty vector), to be sent over and
    /// over from the first [`Saturator::turn`] on. Everything sent before must have been reclaimed. With `depth` 0 it only receives.
    pub fn saturate(
        &mut self,
        depth: u16,
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
            if !self.tx.push(&NetHeader::default(), &frame, &Layout::whole())? {
                return Err(Error::Config(format!(
                    "frame {number} found no room in the transmit ring"
                )));
            }
        }
        Ok(Saturator { pair: self, depth, sending: false })
    }
}

impl Saturator<'_> {
    /// One look at both queues. Never waits.
    #[inline]
    pub fn turn(&mut self) -> Result<Turn, Error> {
        if !self.sending {
            self.pair.tx.flush();
            self.sending = true;
        }
        let received = self.pair.rx.base.recycle(TURN)?;
        let sent = if self.depth > 0 { self.pair.tx.base.recycle(TURN)?.buffers } else { 0 };
        Ok(Turn { sent, received: received.buffers, bytes: received.bytes })
    }

    /// Stops sending: takes frames back without posting them again, and goes on receiving, until the device holds no frame or `more` says
    /// no. What was received meanwhile.
    pub fn finish(self, mut more: impl FnMut() -> bool) -> Result<Turn, Error> {
        let mut total = Turn::default();
        while more() {
            let received = self.pair.rx.base.recycle(TURN)?;
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
