//! A megaflow: a masked key, its actions and its statistics; and the list of a thread's megaflows
//! that the revalidator works on.

use flow::{
    Action, DpPort, Effects, Extracted, FlowKey, FlowMask, HOT_WORDS, Seen, Translation, WORDS,
};
use packet::arch::prefetch_read;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Life of a megaflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// Packets match it.
    Live,
    /// The revalidator found it stale or idle: no packet matches it any more.
    Dead,
    /// Its thread has no reference to it any more.
    Removed,
}

/// Counts of one megaflow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Packets, with the one that made the flow.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the last one came, in milliseconds; 0 if none did.
    pub used_ms: u64,
    /// TCP flags seen.
    pub tcp_flags: u16,
}

/// Words of a key that only long packets have.
const REST: usize = WORDS - HOT_WORDS;

/// A cached decision. Its thread matches packets against it and counts; the revalidator reads the
/// counts and ends it.
///
/// A packet without IPv6, ARP or MPLS touches the first three cache lines and no more.
#[repr(C, align(64))]
pub struct Megaflow {
    mask: [u64; HOT_WORDS],
    dead: AtomicBool,
    hot_only: bool,
    plain: bool,
    state: AtomicU8,
    tcp_flags: AtomicU16,
    used_ms: AtomicU64,
    // The second line.
    key: [u64; HOT_WORDS],
    outputs: Box<[DpPort]>,
    // The third.
    packets: AtomicU64,
    bytes: AtomicU64,
    /// What to do with its packets.
    pub actions: Box<[Action]>,
    /// The pipeline's generation that it is known to be right for.
    checked: AtomicU64,
    /// When it was made.
    pub created_ms: u64,
    mask_rest: [u64; REST],
    key_rest: [u64; REST],
    /// The packet that made it.
    pub origin: FlowKey,
    /// What its packets cause, and how many were told so far.
    effects: Mutex<(Arc<dyn Effects>, FlowStats)>,
    /// Both parts of its mask.
    pub wildcards: FlowMask,
}

const _: () = assert!(std::mem::offset_of!(Megaflow, key) == 64);
const _: () = assert!(std::mem::offset_of!(Megaflow, packets) == 128);

impl Megaflow {
    /// A megaflow for packets like `key`. `told` is what the answer's effects were told already of
    /// packets that it will count. `generation` is the pipeline's from before it was asked.
    pub fn new(
        key: &FlowKey,
        told: Seen,
        answer: Translation,
        generation: u64,
        now_ms: u64,
    ) -> Megaflow {
        let Translation { mask, actions, effects } = answer;
        let (outputs, plain) = plain_outputs(&actions);
        let told = FlowStats { packets: told.packets, bytes: told.bytes, ..FlowStats::default() };
        let (masked, (hot, rest)) = (mask.apply(key), halves(mask.bits()));
        Megaflow {
            mask: hot,
            mask_rest: rest,
            key: halves(&masked).0,
            key_rest: halves(&masked).1,
            dead: AtomicBool::new(false),
            hot_only: mask.is_hot_only(),
            state: AtomicU8::new(FlowState::Live as u8),
            tcp_flags: AtomicU16::new(0),
            plain,
            actions: actions.into(),
            outputs,
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            used_ms: AtomicU64::new(0),
            created_ms: now_ms,
            checked: AtomicU64::new(generation),
            origin: *key,
            effects: Mutex::new((effects, told)),
            wildcards: mask,
        }
    }

    /// True if a packet belongs to this megaflow and it is alive.
    #[inline(always)]
    pub fn matches(&self, packet: &Extracted) -> bool {
        let words = packet.key.words();
        let mut differ = 0;
        for (i, word) in words[..HOT_WORDS].iter().enumerate() {
            differ |= (word & self.mask[i]) ^ self.key[i];
        }
        if !self.hot_only {
            for (i, word) in words[HOT_WORDS..].iter().enumerate() {
                differ |= (word & self.mask_rest[i]) ^ self.key_rest[i];
            }
        }
        differ == 0 && !self.dead.load(Relaxed)
    }

    /// True as long as packets may match.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        !self.dead.load(Relaxed)
    }

    /// Fetches what a packet touches into the cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        prefetch_read((&raw const self.mask).cast());
        prefetch_read((&raw const self.key).cast());
        prefetch_read((&raw const self.packets).cast());
    }

    /// The ports that packets go to, if that is all there is to do.
    #[inline(always)]
    pub(crate) fn outputs(&self) -> Option<&[DpPort]> {
        self.plain.then_some(&self.outputs)
    }

    /// Counts packets. Only the owning thread calls this.
    #[inline(always)]
    pub(crate) fn count(&self, packets: u64, bytes: u64, tcp_flags: u16, now_ms: u64) {
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
        self.used_ms.store(now_ms, Relaxed);
        // Last: whoever reads these packets reads all their bytes.
        self.packets.store(self.packets.load(Relaxed) + packets, Release);
        if tcp_flags != 0 {
            self.tcp_flags.store(self.tcp_flags.load(Relaxed) | tcp_flags, Relaxed);
        }
    }

    /// Counts so far.
    pub fn stats(&self) -> FlowStats {
        FlowStats {
            packets: self.packets.load(Acquire),
            bytes: self.bytes.load(Relaxed),
            used_ms: self.used_ms.load(Relaxed),
            tcp_flags: self.tcp_flags.load(Relaxed),
        }
    }

    /// The key that packets match, with all other bits cleared.
    pub fn key(&self) -> FlowKey {
        self.wildcards.apply(&self.origin)
    }

    /// Whether packets match it.
    pub fn state(&self) -> FlowState {
        match self.state.load(Acquire) {
            0 => FlowState::Live,
            1 => FlowState::Dead,
            _ => FlowState::Removed,
        }
    }

    /// Ends it: no packet matches from now on. Its thread removes it when it comes by.
    pub fn kill(&self) {
        self.dead.store(true, Relaxed);
        let _ = self.state.compare_exchange(
            FlowState::Live as u8,
            FlowState::Dead as u8,
            AcqRel,
            Relaxed,
        );
    }

    /// Its thread holds no reference any more, except the one that the registry has.
    pub(crate) fn removed(&self) {
        self.state.store(FlowState::Removed as u8, Release);
    }

    /// Tells what packets cause, for those counted since the last call.
    pub fn push_effects(&self) {
        let now = self.stats();
        let mut held = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        // The first packet is told before it is counted.
        let packets = now.packets.saturating_sub(held.1.packets);
        if packets > 0 {
            let bytes = now.bytes.saturating_sub(held.1.bytes);
            held.1 = now;
            let effects = held.0.clone();
            drop(held);
            effects.apply(&Seen { packets, bytes, tcp_flags: now.tcp_flags, now_ms: now.used_ms });
        }
    }

    /// True if the pipeline changed since this flow was last known to be right. `generation` is the
    /// pipeline's now.
    pub fn needs_check(&self, generation: u64) -> bool {
        self.checked.load(Acquire) != generation
    }

    /// True if `answer`, given today for the packet that made this megaflow, still allows it. Takes
    /// over the answer's effects if so, and is known to be right for `generation`, which was the
    /// pipeline's before it was asked.
    pub fn still_right(&self, answer: &Translation, generation: u64) -> bool {
        let right = self.agrees(answer);
        if right {
            let mut held = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
            held.0 = answer.effects.clone();
            drop(held);
            self.checked.store(generation, Release);
        }
        right
    }

    /// True if `answer` allows this megaflow: the same actions, and no bit looked at that the megaflow
    /// leaves open.
    pub(crate) fn agrees(&self, answer: &Translation) -> bool {
        let mut wider = answer.mask;
        wider.add(&self.wildcards);
        wider == self.wildcards && *answer.actions == *self.actions
    }
}

/// The ports of a list of outputs, and whether it is one: nothing but outputs.
fn plain_outputs(actions: &[Action]) -> (Box<[DpPort]>, bool) {
    let port = |action: &Action| match action {
        Action::Output(port) => Some(*port),
        _ => None,
    };
    match actions.iter().map(port).collect::<Option<Vec<_>>>() {
        Some(ports) => (ports.into(), true),
        None => (Box::default(), false),
    }
}

/// The hot words of a key, and the others.
fn halves(key: &FlowKey) -> ([u64; HOT_WORDS], [u64; REST]) {
    let words = key.words();
    (*key.hot(), std::array::from_fn(|i| words[HOT_WORDS + i]))
}

/// All megaflows of one thread: appended to by the thread on a miss, swept by the revalidator.
#[derive(Default)]
pub struct Registry {
    /// Made since the list was looked at last. Nobody holds this for longer than it takes to append
    /// one or to take all, so a thread that makes a flow never waits for a long list.
    new: Mutex<Vec<Arc<Megaflow>>>,
    /// All others. Its thread never touches this.
    flows: Mutex<Vec<Arc<Megaflow>>>,
    /// Flows killed so far: the thread looks for them when this changes.
    killed: AtomicU64,
}

/// Flows that are visited before others get a chance to see the list: some milliseconds of work.
const VISIT_SLICE: usize = 1024;

impl Registry {
    fn old(&self) -> MutexGuard<'_, Vec<Arc<Megaflow>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Arc<Megaflow>>> {
        let mut flows = self.old();
        let new = std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner));
        flows.extend(new);
        flows
    }

    pub(crate) fn add(&self, flow: Arc<Megaflow>) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push(flow);
    }

    /// All that are not removed.
    pub fn flows(&self) -> Vec<Arc<Megaflow>> {
        self.locked().clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a flow and lets its thread know.
    pub fn kill(&self, flow: &Megaflow) {
        flow.kill();
        self.killed.fetch_add(1, Release);
    }

    pub(crate) fn killed(&self) -> u64 {
        self.killed.load(Acquire)
    }

    /// Calls `visit` for each flow that is alive, a slice at a time: who wants the list meanwhile waits
    /// for a slice and not for all. Frees what its thread has removed, after a last word on what it
    /// caused.
    pub fn visit(&self, mut visit: impl FnMut(&Megaflow)) {
        let (mut from, mut removed) = (0, false);
        loop {
            let flows = if from == 0 { self.locked() } else { self.old() };
            let to = (from + VISIT_SLICE).min(flows.len());
            // Only the one thread that visits takes flows out, so places do not move.
            for flow in flows.get(from..to).unwrap_or_default() {
                match flow.state() {
                    FlowState::Live => visit(flow),
                    FlowState::Dead => {}
                    FlowState::Removed => removed = true,
                }
            }
            if to >= flows.len() {
                break;
            }
            from = to;
        }
        if removed {
            self.bury();
        }
    }

    /// Frees what its thread has removed, after a last word on what it caused.
    pub fn bury(&self) {
        let gone: Vec<_> = {
            let mut flows = self.locked();
            flows.extract_if(.., |f| f.state() == FlowState::Removed).collect()
        };
        for flow in gone {
            flow.push_effects();
        }
    }
}
