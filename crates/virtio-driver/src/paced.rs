//! The path for latency: equal frames that carry eight bytes of the caller's, sent when the caller says, and those bytes back.
//!
//! The caller has the clock. Put the time at which a frame *should* go into it, not the time at which it went: what waits for room then
//! counts as latency too.

use crate::error::Error;
use crate::layout::{Layout, NetHeader};
use crate::mapping::Span;
use crate::queue::{RxQueue, TxQueue};
use crate::saturate::{STAMP_AHEAD, TURN};

/// Bytes of a mark.
const MARK_LEN: usize = 8;

/// Sends one frame over and over, each time with another mark.
///
/// All its frames are with the device from the beginning (with a mark of 0); each that the device gives back can be sent anew.
#[derive(Debug)]
pub struct Sender<'a> {
    tx: &'a mut TxQueue,
    /// Where the mark is in a buffer.
    at: usize,
}

impl TxQueue {
    /// Sends `depth` copies of `frame`; marks go to byte `at` of it. Everything sent before must have been reclaimed.
    pub fn sender(&mut self, frame: &[u8], at: usize, depth: u16) -> Result<Sender<'_>, Error> {
        self.reclaim()?;
        if self.in_flight() != 0 || at + MARK_LEN > frame.len() {
            let why = "a sender needs all buffers idle and its mark inside the frame";
            return Err(Error::Config(why.into()));
        }
        let mut frame = frame.to_vec();
        frame[at..at + MARK_LEN].fill(0);
        for number in 0..depth {
            if !self.push(&NetHeader::default(), &frame, &Layout::whole())? {
                let why = format!("frame {number} found no room in the transmit ring");
                return Err(Error::Config(why));
            }
        }
        self.flush();
        let at = self.base.header_len + at;
        Ok(Sender { tx: self, at })
    }
}

impl Sender<'_> {
    /// Sends as many of the frames that came back as there are, up to `limit`, each with the next mark that `mark` gives. Their number.
    pub fn send(&mut self, limit: u16, mark: &mut dyn FnMut() -> u64) -> Result<u32, Error> {
        let at = self.at;
        let ahead = STAMP_AHEAD * self.tx.base.stride() + at;
        let write = |buffers: &Span, buffer: usize, _| {
            buffers.prefetch_write(buffer + ahead);
            buffers.write(buffer + at, &mark().to_le_bytes());
        };
        Ok(self.tx.base.recycle(limit, write)?.buffers)
    }
}

/// Gives out the marks of what is received.
#[derive(Debug)]
pub struct Receiver<'a> {
    rx: &'a mut RxQueue,
    /// Where the mark is in a buffer.
    at: usize,
}

impl RxQueue {
    /// Expects marks at byte `at` of each frame, which must fit one buffer.
    pub fn receiver(&mut self, at: usize) -> Result<Receiver<'_>, Error> {
        if !self.is_single() {
            return Err(Error::Config("marks need receive buffers of one descriptor".into()));
        }
        self.refill()?;
        let at = self.base.header_len + at;
        Ok(Receiver { rx: self, at })
    }
}

impl Receiver<'_> {
    /// Gives the mark of each waiting frame, of [`TURN`] at most, to `take`; shorter frames have none. The number of frames.
    pub fn receive(&mut self, take: &mut dyn FnMut(u64)) -> Result<u32, Error> {
        let at = self.at;
        let done = self.rx.base.recycle(TURN, |buffers, buffer, len| {
            if len as usize >= at + MARK_LEN {
                take(u64::from_le_bytes(buffers.array(buffer + at)));
            }
        })?;
        Ok(done.buffers)
    }
}
