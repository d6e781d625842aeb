use super::*;
use std::collections::{BTreeMap, VecDeque};

/// Numbers that look random, by a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

const RECEIVE: usize = 16;
const SEND: usize = 8;

/// A queue, and where its frames are.
struct Model {
    share: Share,
    fill: VecDeque<u64>,
    /// Of the burst that is out, and what is in them.
    lent: Vec<(u64, u64)>,
    free: Vec<u64>,
    sending: Vec<u64>,
    waiting: Vec<u64>,
}

impl Model {
    fn open(frames: &SharedFrames) -> std::result::Result<Model, String> {
        let memory = frames.take(&mut frames.turn(), RECEIVE + SEND, Asked::default())?;
        let (fill, free) = memory.frames.split_at(RECEIVE);
        let share = memory.share.expect("shared");
        let (fill, free) = (fill.to_vec().into(), free.to_vec());
        Ok(Model { share, fill, free, lent: vec![], sending: vec![], waiting: vec![] })
    }

    fn lends(&mut self, content: &mut BTreeMap<u64, u64>, packet: &mut u64) {
        for _ in 0..4.min(self.fill.len()) {
            let frame = self.fill.pop_front().expect("counted");
            assert!(self.share.owns(frame), "what the kernel has is the queue's");
            *packet += 1;
            content.insert(frame, *packet);
            self.lent.push((frame, *packet));
        }
    }

    fn gives_back(&mut self) {
        for (frame, _) in self.lent.drain(..) {
            self.fill.push_back(self.share.back(frame));
        }
        assert_eq!(self.fill.len(), RECEIVE, "as many as before");
    }

    /// As `Tx::take_back`.
    fn completes(&mut self, count: usize) {
        let count = count.min(self.sending.len());
        self.free.extend(self.waiting.extract_if(.., |f| self.share.is_idle(*f)));
        for frame in self.sending.drain(..count) {
            assert!(self.share.owns(frame));
            let idle = self.share.is_idle(frame);
            if idle { &mut self.free } else { &mut self.waiting }.push(frame);
        }
    }

    fn sends(&mut self, lent: u64, packet: u64, content: &mut BTreeMap<u64, u64>) -> bool {
        let Some(own) = self.free.pop() else { return false };
        assert!(self.share.owns(own) && self.share.is_idle(own));
        let exchanged = self.share.exchange(lent, own);
        if exchanged {
            self.sending.push(lent);
        } else {
            content.insert(own, packet);
            self.sending.push(own);
        }
        exchanged
    }

    fn all(&self) -> Vec<u64> {
        let lent = self.lent.iter().map(|(f, _)| self.share_of(*f));
        let others = [&self.free, &self.sending, &self.waiting].into_iter().flatten().copied();
        self.fill.iter().copied().chain(lent).chain(others).collect()
    }

    /// What it is to get for a frame that is lent.
    fn share_of(&self, lent: u64) -> u64 {
        let frame = self.share.frame(lent).expect("in the area");
        address(frame.instead.load(Relaxed) as usize)
    }
}

/// No frame is in two places or lost, whatever is received, sent by whom, closed and opened; and what is in a burst
/// stays there until the burst is over.
#[test]
fn frames_have_one_owner_each() {
    for seed in 1..=20 {
        let mut random = Random(0x9e37_79b9 * seed);
        let frames = SharedFrames::new(512);
        let (mut content, mut packet, mut exchanged, mut copied) = (BTreeMap::new(), 0, 0, 0);
        let mut queues: Vec<Model> = (0..4).map(|_| Model::open(&frames).expect("room")).collect();
        for _ in 0..5000 {
            let (from, to) = (random.below(queues.len()), random.below(queues.len()));
            match random.below(100) {
                0..30 if queues[from].lent.is_empty() => {
                    queues[from].lends(&mut content, &mut packet);
                }
                0..75 if !queues[from].lent.is_empty() => {
                    let (lent, n) = queues[from].lent[random.below(queues[from].lent.len())];
                    match queues[to].sends(lent, n, &mut content) {
                        true => exchanged += 1,
                        false => copied += 1,
                    }
                }
                75..85 => queues[from].gives_back(),
                85..98 => queues[from].completes(random.below(SEND + 1)),
                98 => {
                    // A queue can only go when its burst is over.
                    queues[from].gives_back();
                    queues.remove(from);
                    queues.push(Model::open(&frames).expect("there is room for more"));
                }
                _ => {}
            }
            for queue in &queues {
                for (frame, packet) in &queue.lent {
                    assert_eq!(content[frame], *packet, "written while it was lent (seed {seed})");
                }
            }
            let mut all = Vec::new();
            for queue in &queues {
                let mut its = queue.all();
                assert_eq!(its.len(), RECEIVE + SEND, "seed {seed}");
                assert!(its.iter().all(|f| queue.share.owns(*f)), "seed {seed}");
                all.append(&mut its);
            }
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), queues.len() * (RECEIVE + SEND), "in two places (seed {seed})");
        }
        assert!(exchanged > 500 && copied > 100, "{exchanged} {copied}");
        let (used, all) = queues[0].share.use_of_all();
        let idle = queues.iter().flat_map(|q| q.lent.iter()).count();
        assert!(used >= 4 * (RECEIVE + SEND) && used <= 4 * (RECEIVE + SEND) + idle);
        assert_eq!(all, 512);
    }
}

#[test]
fn there_is_no_more_than_there_is_and_what_is_left_behind_comes_back() {
    let frames = SharedFrames::new(100);
    let take = |count| {
        let memory = frames.take(&mut frames.turn(), count, Asked::default())?;
        Ok::<_, String>(memory.share.expect("shared"))
    };
    let one = take(300).expect("room");
    assert_eq!(one.use_of_all(), (300, 512), "whole huge pages");
    let error = take(300).expect_err("no room");
    assert_eq!(error, "it needs 300 frames, and 212 of 512 are left");
    let two = take(212).expect("room");
    drop(one);
    let one = take(300).expect("never bound, so there at once");
    let socket = OwnedFd::from(std::fs::File::open("/dev/null").expect("there"));
    one.bound(&socket, Asked::default(), Terms::default()).expect("descriptors");
    let other = Asked { zero_copy: true, ..Asked::default() };
    assert!(
        frames
            .take(&mut frames.turn(), 1, other)
            .err()
            .expect("differs")
            .contains("asks for zero-copy, none")
    );
    let start = Instant::now();
    drop(one);
    assert_eq!(two.use_of_all(), (512, 512), "the kernel may use them");
    let one = take(300).expect("is waited for");
    assert!(start.elapsed() >= QUEUE_LIMIT);
    one.bound(&socket, Asked::default(), Terms::default()).expect("descriptors");
    drop(one);
    std::thread::sleep(QUEUE_LIMIT);
    assert_eq!(two.use_of_all(), (212, 512), "and then no more");
    let one = take(300).expect("room");
    assert!(!two.owns(address(512)) && !two.is_idle(address(512)) && !two.exchange(0, u64::MAX));
    drop((one, two));
    assert!(frames.turn().upgrade().is_none(), "the area goes with the last");
}
