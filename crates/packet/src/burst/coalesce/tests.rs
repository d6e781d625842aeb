use crate::burst::{BurstBuf, HEADER_BYTES, Lender};
use crate::{BURST, Burst, DropReason, Offload, checksum};
use std::collections::BTreeMap;

struct Nobody;
impl Lender for Nobody {
    fn give_back(&self) {}
}

/// xorshift64
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A sender of TCP.
#[derive(Clone)]
struct Flow {
    v4: bool,
    tagged: bool,
    options: usize,
    port: u16,
    sequence: u32,
    id: u16,
    size: usize,
}

impl Flow {
    fn new(port: u16, r: &mut Random) -> Flow {
        Flow {
            v4: r.one_in(2),
            tagged: r.one_in(3),
            options: 4 * r.below(4),
            port,
            sequence: r.below(1 << 32) as u32,
            id: r.below(1 << 16) as u16,
            size: [30, 48, 100, 536, 1448][r.below(5)],
        }
    }

    fn network(&self) -> usize {
        if self.tagged { 18 } else { 14 }
    }

    fn transport(&self) -> usize {
        self.network() + if self.v4 { 20 } else { 40 }
    }

    /// The next frame, with `payload` bytes and these flags; its checksum covers the pseudo-header unless
    /// `complete`.
    fn frame(&mut self, payload: usize, flags: u8, complete: bool) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if self.tagged {
            f.extend([0x81, 0, 0, 5]);
        }
        let tcp = 20 + self.options + payload;
        match self.v4 {
            true => {
                f.extend([8, 0, 0x45, 0]);
                f.extend(((20 + tcp) as u16).to_be_bytes());
                f.extend(self.id.to_be_bytes());
                f.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            }
            false => {
                f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                f.extend((tcp as u16).to_be_bytes());
                f.extend([6, 64]);
                for last in [1, 2] {
                    f.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
                }
            }
        }
        f.extend(self.port.to_be_bytes());
        f.extend([0, 80]);
        f.extend(self.sequence.to_be_bytes());
        f.extend([0, 0, 0, 9, ((20 + self.options) as u8 / 4) << 4, flags, 1, 0, 0, 0, 0, 0]);
        f.extend(vec![1; self.options]);
        f.extend((0..payload).map(|i| (i * 7) as u8 ^ self.sequence as u8));
        self.sequence = self.sequence.wrapping_add(payload as u32);
        self.id = self.id.wrapping_add(1);
        self.finish(&mut f, complete);
        f
    }

    fn finish(&self, f: &mut [u8], complete: bool) {
        let (n, t) = (self.network(), self.transport());
        if self.v4 {
            f[n + 10..n + 12].fill(0);
            let sum = checksum::internet(0, &f[n..t]);
            f[n + 10..n + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses = if self.v4 { n + 12 } else { n + 8 };
        let pseudo = checksum::partial(6 + (f.len() - t) as u64, &f[addresses..t]);
        f[t + 16..t + 18].fill(0);
        let sum = match complete {
            true => checksum::internet(pseudo, &f[t..]),
            false => !checksum::internet(pseudo, &[]),
        };
        f[t + 16..t + 18].copy_from_slice(&sum.to_be_bytes());
    }

    fn left_to_do(&self) -> Offload {
        let csum_start = self.transport() as u16;
        Offload { flags: 1, csum_start, csum_offset: 16, ..Offload::default() }
    }
}

type Frame = (Vec<u8>, Offload);

/// A burst of these frames.
fn burst<'b>(buf: &'b mut BurstBuf, frames: &'b [Frame]) -> Burst<'b> {
    buf.clear();
    for (frame, offload) in frames {
        let (private, rest) = frame.split_at(frame.len().min(HEADER_BYTES));
        buf.push().expect("room").set_header(private);
        for piece in rest.chunks(1000) {
            // SAFETY: the frames outlive the burst.
            assert!(unsafe { buf.add_segment(piece.as_ptr(), piece.len()) });
        }
        if !offload.is_none() {
            buf.set_offload(*offload);
        }
    }
    buf.lend(&Nobody)
}

/// All frames of a burst as they go on the wire, checksums completed if they were.
fn cut(burst: &mut Burst<'_>, complete: bool) -> Result<Vec<Frame>, DropReason> {
    let mut all = Vec::new();
    for i in 0..burst.len() {
        let offload = burst.packets()[i].offload;
        if !offload.is_super() {
            all.push((burst.copy_out(i, usize::MAX), offload));
            continue;
        }
        let whole = burst.copy_out(i, usize::MAX);
        let abilities = crate::Abilities::CSUM
            .with(crate::Abilities::TSO4, true)
            .with(crate::Abilities::TSO6, true);
        assert_eq!(
            offload.check(&whole[..whole.len().min(128)], whole.len(), abilities),
            Ok(offload)
        );
        let mut cut = burst.cut(i)?;
        while let Some(n) = cut.advance() {
            let mut payload = vec![0; n];
            // SAFETY: it holds n bytes.
            unsafe { cut.copy(payload.as_mut_ptr(), n, complete) };
            let mut left = cut.offload();
            if complete {
                cut.complete();
                left = Offload::default();
            }
            all.push(([cut.headers(), &payload].concat(), left));
        }
    }
    Ok(all)
}

/// By flow, as far as ports tell.
fn by_flow(frames: &[Frame]) -> BTreeMap<Vec<u8>, Vec<&Frame>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for frame in frames {
        let f = &frame.0;
        let at = 14 + if f[12] == 0x81 { 4 } else { 0 };
        let ports = at + if f[at] >> 4 == 4 { 20 } else { 40 };
        let key = f.get(ports..ports + 2).unwrap_or_default().to_vec();
        flows.entry(key).or_default().push(frame);
    }
    flows
}

/// A burst as it may come; the frames of each flow mostly in order.
fn mixture(r: &mut Random, complete: bool) -> Vec<Frame> {
    let mut flows: Vec<Flow> = (0..1 + r.below(12)).map(|n| Flow::new(n as u16, r)).collect();
    let mut frames = Vec::new();
    let busy = 1 + r.below(flows.len());
    while frames.len() < BURST {
        let flow = &mut flows[r.below(busy)];
        let mut payload = flow.size;
        if r.one_in(12) {
            payload = r.below(1448);
        }
        let flags = if r.one_in(12) {
            [0x18, 0x11, 0x19, 0x50, 0x90, 0x14, 0x12][r.below(7)]
        } else {
            0x10
        };
        let mut frame = flow.frame(payload, flags, complete);
        let t = flow.transport();
        if r.one_in(15) {
            // Another value somewhere in the headers, with right checksums.
            let at = [flow.network() + 1, flow.network() + 4, t + 4, t + 7, t + 11, t + 14, t + 19]
                [r.below(7)];
            frame[at] ^= 1 << r.below(8);
            flow.finish(&mut frame, complete);
        }
        match r.below(40) {
            // A wrong checksum, or wrong data.
            0 => frame[t + 16] ^= 1,
            1 => *frame.last_mut().expect("a frame") ^= 0x40,
            2 => frame.resize(frame.len() + 6, 0),
            3 => flow.sequence = flow.sequence.wrapping_add(9),
            _ => {}
        }
        let left = if complete { Offload::default() } else { flow.left_to_do() };
        frames.push((frame, left));
    }
    frames
}

#[test]
fn what_is_joined_and_cut_again_is_what_came_in_the_order_of_each_flow() {
    let (mut r, mut buf) = (Random(0x9e37_79b9_7f4a_7c15), BurstBuf::new());
    let (mut all, mut joined) = (0, 0);
    for round in 0..3000 {
        let complete = round % 2 == 0;
        let frames = mixture(&mut r, complete);
        let mut burst = burst(&mut buf, &frames);
        let made = burst.coalesce();
        let supers = (0..burst.len()).filter(|&i| burst.packets()[i].offload.is_super()).count();
        assert_eq!((supers, burst.supers().len()), (made, made));
        let packets = burst.more_on_wire(crate::Set::range(0, burst.len())).0 + burst.len() as u64;
        assert_eq!(packets, frames.len() as u64, "counted as on the wire");
        all += frames.len();
        joined += frames.len() - burst.len();
        let got = cut(&mut burst, complete).expect("headers are private");
        assert_eq!(by_flow(&got), by_flow(&frames), "round {round}");
    }
    assert!(joined > all / 4, "{joined} of {all}");
}

#[test]
fn one_stream_becomes_one_frame() {
    let (mut r, mut buf) = (Random(7), BurstBuf::new());
    for (size, expected) in [(1448, 1), (4000, 2)] {
        let mut flow = Flow { size, ..Flow::new(1, &mut r) };
        let frames: Vec<Frame> =
            (0..BURST).map(|_| (flow.frame(size, 0x10, true), Offload::default())).collect();
        let mut burst = burst(&mut buf, &frames);
        assert_eq!((burst.coalesce(), burst.len()), (expected, expected), "{size}");
        assert_eq!(burst.packets()[0].offload.gso_size, size as u16);
        assert!(cut(&mut burst, true).expect("private") == frames);
    }
}

#[test]
fn flags_that_end_a_stream_and_short_segments_are_the_last() {
    let (mut r, mut buf) = (Random(3), BurstBuf::new());
    let mut flow = Flow::new(1, &mut r);
    let mut frames: Vec<Frame> = Vec::new();
    for (n, flags) in [(500, 0x10), (500, 0x18), (500, 0x10), (20, 0x10), (500, 0x10), (500, 0x11)]
    {
        frames.push((flow.frame(n, flags, true), Offload::default()));
    }
    let mut burst = burst(&mut buf, &frames);
    assert_eq!((burst.coalesce(), burst.len()), (3, 3));
    assert!(cut(&mut burst, true).expect("private") == frames);
}

/// Whatever the bytes are, frames come out as they came in.
#[test]
fn hostile_frames_are_left_alone() {
    let (mut r, mut buf) = (Random(0x0123_4567_89ab_cdef), BurstBuf::new());
    for _ in 0..4000 {
        let complete = r.one_in(2);
        let mut frames = mixture(&mut r, complete);
        for (frame, offload) in &mut frames {
            for _ in 0..r.below(3) {
                let at = r.below(frame.len().min(90));
                frame[at] = match r.below(3) {
                    0 => frame[at] ^ 1 << r.below(8),
                    1 => [0, 0xff, 0x45, 0x60, 6, 0x81, 0x88, 0x47][r.below(8)],
                    _ => r.below(256) as u8,
                };
            }
            if r.one_in(8) {
                frame.truncate(14 + r.below(100));
            }
            // What a port's receive queue would have checked.
            let allowed = crate::Abilities::CSUM;
            let head = &frame[..frame.len().min(HEADER_BYTES)];
            *offload = offload.check(head, frame.len(), allowed).unwrap_or_default();
        }
        let mut burst = burst(&mut buf, &frames);
        burst.coalesce();
        let mut got = cut(&mut burst, complete).expect("headers are private");
        drop(burst);
        got.sort_by(|a, b| a.0.cmp(&b.0));
        frames.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(got == frames);
    }
}
