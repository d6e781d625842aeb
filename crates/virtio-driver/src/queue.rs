//! Receive and transmit queues: a ring and its buffers (virtio 1.3 section 5.1.6).

use crate::config::Config;
use crate::error::{Error, Violation};
use crate::layout::{Layout, MAX_PIECES, NetHeader};
use crate::mapping::Span;
use crate::memory::GuestMemory;
use crate::notify::Event;
use crate::ring::{Piece, Ring, RingFeatures, bytes_needed};
use crate::wire::feature;
use std::collections::VecDeque;

/// What a queue has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Frames received, or transmitted and reclaimed.
    pub frames: u64,
    /// Their bytes (receive only), virtio-net headers not counted.
    pub bytes: u64,
    /// Buffers that came back.
    pub buffers: u64,
    /// Kicks sent.
    pub kicks: u64,
    /// Breaches by [`Violation::kind`].
    pub violations: [u64; Violation::KINDS],
    /// Frames with `num_buffers` other than 1 where it must be 1 (5.1.6.4.1: VERSION_1 without MRG_RXBUF). DPDK 22.11 leaves it unset.
    pub num_buffers_unset: u64,
}

/// What both kinds of queue have: a ring, equal buffers found by token, tables, eventfds.
#[derive(Debug)]
pub(crate) struct Base {
    pub ring: Ring,
    ring_span: Span,
    packed: bool,
    ring_features: RingFeatures,
    buffers: Span,
    stride: usize,
    tables: Option<Span>,
    pub idle: VecDeque<u16>,
    pub kick: Event,
    pub call: Event,
    pub err: Option<Event>,
    pub header_len: usize,
    pub stats: QueueStats,
    name: &'static str,
    pieces: Vec<Piece>,
}

impl Base {
    fn new(
        config: &Config,
        features: u64,
        memory: &mut GuestMemory,
        buffer: u32,
        name: &'static str,
    ) -> Result<Base, Error> {
        let size = config.queue_size;
        let packed = features & feature::RING_PACKED != 0;
        let ring_features = RingFeatures::from_bits(features);
        let ring_span = memory.alloc(config.ring_region, bytes_needed(packed, size), "a ring")?;
        let stride = Config::stride(buffer);
        let count = usize::from(size);
        let buffers = memory.alloc(config.buffer_region, stride * count, "buffers")?;
        let indirect = features & feature::INDIRECT_DESC != 0;
        let table_bytes = Config::table_stride() * count;
        let tables = indirect
            .then(|| memory.alloc(config.buffer_region, table_bytes, "indirect tables"))
            .transpose()?;
        Ok(Base {
            ring: Ring::new(packed, size, ring_span.clone(), ring_features)?,
            ring_span,
            packed,
            ring_features,
            buffers,
            stride,
            tables,
            idle: (0..size).collect(),
            kick: Event::new()?,
            call: Event::new()?,
            err: config.error_events.then(Event::new).transpose()?,
            header_len: NetHeader::size(features),
            stats: QueueStats::default(),
            name,
            pieces: Vec::with_capacity(MAX_PIECES),
        })
    }

    /// Begins anew, as after a device reset: an empty ring at the same place, all buffers idle.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.ring =
            Ring::new(self.packed, self.ring.size(), self.ring_span.clone(), self.ring_features)?;
        self.idle = (0..self.ring.size()).collect();
        Ok(())
    }

    /// Moves the ring to newly allocated memory of a region.
    pub fn move_ring(&mut self, memory: &mut GuestMemory, region: u32) -> Result<(), Error> {
        let span = memory.alloc(region, bytes_needed(self.packed, self.ring.size()), "a ring")?;
        self.ring.move_to(span.clone());
        self.ring_span = span;
        Ok(())
    }

    /// Whether the ring, buffers or tables lie in guest addresses `from..to`.
    pub fn lies_in(&self, from: u64, to: u64) -> bool {
        let inside = |span: &Span| (from..to).contains(&span.gpa(0));
        inside(&self.ring_span) || inside(&self.buffers) || self.tables.as_ref().is_some_and(inside)
    }

    pub fn violated(&mut self, violation: Violation) -> Error {
        self.stats.violations[violation.kind()] += 1;
        Error::Violation { queue: self.name, violation }
    }

    /// Cuts `len` bytes of a token's buffer into `self.pieces`.
    fn cut(&mut self, token: u16, len: u32, layout: &Layout, writable: bool) -> Result<(), Error> {
        let at = usize::from(token) * self.stride;
        layout.cut(self.header_len as u32, len, self.buffers.gpa(at), writable, &mut self.pieces);
        let why = if self.pieces.len() > MAX_PIECES {
            "more pieces than a chain may have here"
        } else if !layout.indirect && self.pieces.len() > usize::from(self.ring.size()) {
            "more pieces than the ring has descriptors"
        } else if layout.indirect && self.tables.is_none() {
            "an indirect table, but INDIRECT_DESC was not negotiated"
        } else {
            return Ok(());
        };
        Err(Error::FrameTooLarge { len: len as usize, pieces: self.pieces.len(), why })
    }

    /// Copies header and frame to where `self.pieces` lie.
    fn fill(&mut self, header: &NetHeader, frame: &[u8]) {
        let header = &header.bytes()[..self.header_len];
        let offset = |piece: &Piece| (piece.gpa - self.buffers.gpa(0)) as usize;
        if let [only] = self.pieces.as_slice() {
            self.buffers.write(offset(only), header);
            self.buffers.write(offset(only) + header.len(), frame);
            return;
        }
        let whole = [header, frame].concat();
        let mut rest = whole.as_slice();
        for piece in &self.pieces {
            let (part, after) = rest.split_at(rest.len().min(piece.len as usize));
            self.buffers.write(offset(piece), part);
            rest = after;
        }
    }

    /// Posts `self.pieces`. False: the ring is full.
    fn post(&mut self, token: u16, indirect: bool) -> bool {
        match (&self.tables, indirect) {
            (Some(tables), true) => {
                let stride = Config::table_stride();
                let table = tables.part(usize::from(token) * stride, stride);
                self.ring.post_indirect(&table, &self.pieces, token).is_ok()
            }
            _ => self.ring.post(&self.pieces, token).is_ok(),
        }
    }

    /// Posts pieces as given, wherever they point.
    fn push_pieces(&mut self, pieces: &[Piece], indirect: bool) -> bool {
        let Some(&token) = self.idle.front() else { return false };
        self.pieces.clear();
        self.pieces.extend_from_slice(pieces);
        let posted = self.post(token, indirect);
        if posted {
            self.idle.pop_front();
        }
        posted
    }

    /// Shows the device what was posted, and kicks it if it wants that.
    pub fn flush(&mut self) {
        self.ring.publish();
        self.kick_if_asked();
    }

    pub fn kick_if_asked(&mut self) {
        if self.ring.should_kick() {
            self.kick.signal();
            self.stats.kicks += 1;
        }
    }

    /// Distance between buffers, bytes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Recycles used buffers; see [`Ring::recycle_with`]. `touch` also gets where in `buffers` the buffer begins.
    #[inline]
    pub fn recycle(
        &mut self,
        limit: u16,
        mut touch: impl FnMut(&Span, usize, u32),
    ) -> Result<crate::ring::Recycled, Error> {
        let (buffers, stride) = (&self.buffers, self.stride);
        let with = |token: u16, len| touch(buffers, usize::from(token) * stride, len);
        let done = match self.ring.recycle_with(limit, with) {
            Ok(done) => done,
            Err(violation) => return Err(self.violated(violation)),
        };
        if done.buffers > 0 {
            self.kick_if_asked();
            self.stats.buffers += u64::from(done.buffers);
        }
        Ok(done)
    }
}

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    pub(crate) base: Base,
}

impl TxQueue {
    pub(crate) fn new(
        config: &Config,
        features: u64,
        memory: &mut GuestMemory,
    ) -> Result<TxQueue, Error> {
        Base::new(config, features, memory, config.tx_buffer, "transmit")
            .map(|base| TxQueue { base })
    }

    /// Copies a frame into a buffer and posts it; [`TxQueue::flush`] sends it. False: no buffer or descriptor is free.
    pub fn push(
        &mut self,
        header: &NetHeader,
        frame: &[u8],
        layout: &Layout,
    ) -> Result<bool, Error> {
        let base = &mut self.base;
        let total = base.header_len + frame.len();
        if total > base.stride {
            let why = "longer than a transmit buffer (Config::tx_buffer)";
            return Err(Error::FrameTooLarge { len: frame.len(), pieces: 1, why });
        }
        let Some(&token) = base.idle.front() else { return Ok(false) };
        base.cut(token, total as u32, layout, false)?;
        base.fill(header, frame); // before posting: a packed descriptor is visible at once
        if !base.post(token, layout.indirect) {
            return Ok(false);
        }
        base.idle.pop_front();
        Ok(true)
    }

    /// Posts pieces as given, for descriptors that point nowhere or say nonsense. False: no room.
    pub fn push_pieces(&mut self, pieces: &[Piece], indirect: bool) -> bool {
        self.base.push_pieces(pieces, indirect)
    }

    /// Sends what was pushed.
    pub fn flush(&mut self) {
        self.base.flush();
    }

    /// Takes back what the device has sent; the number of frames.
    pub fn reclaim(&mut self) -> Result<usize, Error> {
        let mut count = 0;
        while let Some(used) =
            self.base.ring.pop().map_err(|violation| self.base.violated(violation))?
        {
            self.base.idle.push_back(used.token);
            self.base.stats.buffers += 1;
            self.base.stats.frames += 1;
            count += 1;
        }
        Ok(count)
    }

    /// Frames the device holds, or has returned without being reclaimed.
    pub fn in_flight(&self) -> u16 {
        self.base.ring.outstanding()
    }

    /// Where this queue's kicks go, for tests that spoil it.
    pub fn kick_event(&self) -> &Event {
        &self.base.kick
    }

    /// Frames that may still be pushed.
    pub fn room(&self) -> usize {
        self.base.idle.len().min(usize::from(self.base.ring.free()))
    }

    /// Counters.
    pub fn stats(&self) -> &QueueStats {
        &self.base.stats
    }

    /// The ring's bytes in guest memory, for tests that spoil them; [`crate::ring::Parts`] says what is where.
    pub fn ring_memory(&self) -> &Span {
        &self.base.ring_span
    }

    /// The ring, for tests that look at it or spoil it.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.base.ring
    }
}

/// A receive queue.
#[derive(Debug)]
pub struct RxQueue {
    pub(crate) base: Base,
    layout: Layout,
    buffer: u32,
    mergeable: bool,
    frame: Vec<u8>,
}

impl RxQueue {
    pub(crate) fn new(
        config: &Config,
        features: u64,
        memory: &mut GuestMemory,
    ) -> Result<RxQueue, Error> {
        let base = Base::new(config, features, memory, config.rx_buffer, "receive")?;
        let mergeable = features & feature::MRG_RXBUF != 0;
        Ok(RxQueue {
            base,
            layout: config.rx_layout.clone(),
            buffer: config.rx_buffer,
            mergeable,
            frame: Vec::new(),
        })
    }

    /// Posts every idle buffer that the ring has room for.
    pub fn refill(&mut self) -> Result<usize, Error> {
        let mut count = 0;
        while let Some(&token) = self.base.idle.front() {
            self.base.cut(token, self.buffer, &self.layout, true)?;
            if !self.base.post(token, self.layout.indirect) {
                break;
            }
            self.base.idle.pop_front();
            count += 1;
        }
        if count > 0 {
            self.base.flush();
        }
        Ok(count)
    }

    /// Gives each waiting frame (up to `limit`), with its header, to `take` and posts the buffers again. The number of frames.
    ///
    /// On a violation the frames before it were given; the next call goes on after it.
    pub fn receive(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&NetHeader, &[u8]),
    ) -> Result<usize, Error> {
        let mut count = 0;
        let mut result = Ok(());
        while count < limit {
            match self.next_frame() {
                Ok(Some(header)) => take(&header, &self.frame[self.base.header_len..]),
                Ok(None) => break,
                Err(violation) => {
                    result = Err(self.base.violated(violation));
                    break;
                }
            }
            count += 1;
        }
        self.refill()?;
        result.map(|()| count)
    }

    /// Collects one frame, of one or several buffers, into `self.frame`.
    fn next_frame(&mut self) -> Result<Option<NetHeader>, Violation> {
        self.frame.clear();
        let Some(first) = self.base.ring.pop()? else { return Ok(None) };
        self.collect(first.token, first.len);
        let header_len = self.base.header_len;
        if (first.len as usize) < header_len {
            return Err(Violation::HeaderShort { len: first.len, header: header_len as u32 });
        }
        let header = NetHeader::parse(&self.frame[..header_len]);
        if self.mergeable {
            self.collect_rest(header.num_buffers)?;
        } else if header_len == 12 && header.num_buffers != 1 {
            self.base.stats.num_buffers_unset += 1;
        }
        self.base.stats.frames += 1;
        self.base.stats.bytes += (self.frame.len() - header_len) as u64;
        Ok(Some(header))
    }

    /// The further buffers of a merged frame; all must have been returned with the first (5.1.6.4).
    fn collect_rest(&mut self, num_buffers: u16) -> Result<(), Violation> {
        if num_buffers == 0 {
            return Err(Violation::MergeCount { num_buffers, returned: 1 });
        }
        for returned in 1..num_buffers {
            let used =
                self.base.ring.pop()?.ok_or(Violation::MergeCount { num_buffers, returned })?;
            self.collect(used.token, used.len);
        }
        Ok(())
    }

    /// Appends what the device wrote into a buffer, and makes the buffer idle.
    fn collect(&mut self, token: u16, len: u32) {
        let base = &mut self.base;
        let at = usize::from(token) * base.stride;
        self.layout.cut(
            base.header_len as u32,
            self.buffer,
            base.buffers.gpa(at),
            true,
            &mut base.pieces,
        );
        let mut left = len as usize;
        for piece in &base.pieces {
            let part = left.min(piece.len as usize);
            base.buffers.read((piece.gpa - base.buffers.gpa(0)) as usize, part, &mut self.frame);
            left -= part;
        }
        base.idle.push_back(token);
        base.stats.buffers += 1;
    }

    /// Counters.
    pub fn stats(&self) -> &QueueStats {
        &self.base.stats
    }

    /// The ring's bytes in guest memory, for tests that spoil them; [`crate::ring::Parts`] says what is where.
    pub fn ring_memory(&self) -> &Span {
        &self.base.ring_span
    }

    /// The ring, for tests that look at it or spoil it.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.base.ring
    }

    /// Posts pieces as given, for descriptors that point nowhere or say nonsense. False: no room.
    pub fn push_pieces(&mut self, pieces: &[Piece], indirect: bool) -> bool {
        self.base.push_pieces(pieces, indirect)
    }

    /// Buffers the device holds, or has returned without being received.
    pub fn outstanding(&self) -> u16 {
        self.base.ring.outstanding()
    }

    /// Whether each buffer is one descriptor, as [`Ring::recycle`] on a packed ring needs.
    pub(crate) fn is_single(&self) -> bool {
        self.layout.is_single()
    }
}
