//! A port in memory, for tests of what stands above ports: frames are pushed in and taken out.

use crate::{Counters, Port};
use packet::{Burst, BurstBuf, HEADER_BYTES, Lender, Set};
use std::collections::VecDeque;
use std::sync::Mutex;

/// Frames waiting to be received by the switch, and frames that the switch sent.
#[derive(Debug, Default)]
struct State {
    input: VecDeque<Vec<u8>>,
    output: Vec<Vec<u8>>,
    returned: u64,
    counters: Counters,
}

/// A simulated port with one receive queue, owned by a test. Frames of more than [`HEADER_BYTES`]
/// are cut there when they are received; what is sent comes out whole.
#[derive(Debug)]
pub struct SimPort {
    name: String,
    state: Mutex<State>,
}

impl SimPort {
    /// A port without frames.
    pub fn new(name: &str) -> Self {
        SimPort { name: name.to_owned(), state: Mutex::default() }
    }

    /// Gives the switch a frame to receive.
    pub fn push(&self, frame: &[u8]) {
        self.locked().input.push_back(frame.to_vec());
    }

    /// Frames that the switch has not received yet.
    pub fn waiting(&self) -> usize {
        self.locked().input.len()
    }

    /// Takes what the switch sent since the last call.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.locked().output)
    }

    /// How often a burst was given back.
    pub fn bursts_returned(&self) -> u64 {
        self.locked().returned
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Lender for SimPort {
    fn give_back(&self) {
        self.locked().returned += 1;
    }
}

impl Port for SimPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx_queues(&self) -> usize {
        1
    }

    fn rx<'b>(&'b self, _queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        buf.clear();
        let mut state = self.locked();
        while let Some(frame) = state.input.pop_front() {
            let n = frame.len().min(HEADER_BYTES);
            let Some(p) = buf.push() else {
                state.input.push_front(frame);
                break;
            };
            p.set_header(&frame[..n]);
            state.counters.rx_packets += 1;
            state.counters.rx_bytes += n as u64;
        }
        drop(state);
        if buf.is_empty() { None } else { Some(buf.lend(self)) }
    }

    fn tx(&self, _thread: usize, burst: &mut Burst<'_>, set: Set) {
        let mut state = self.locked();
        for i in set {
            let frame = burst.copy_out(i, usize::MAX);
            state.counters.tx_packets += 1;
            state.counters.tx_bytes += frame.len() as u64;
            state.output.push(frame);
        }
    }

    fn counters(&self) -> Counters {
        self.locked().counters.clone()
    }
}
