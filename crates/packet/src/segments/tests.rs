use super::*;
use crate::{BurstBuf, HEADER_BYTES, Lender};

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

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.below(256) as u8).collect()
    }
}

/// Headers of a super-frame, and where they begin.
struct Super {
    head: Vec<u8>,
    payload: Vec<u8>,
    network: usize,
    transport: usize,
    tcp: bool,
    size: usize,
}

impl Super {
    fn random(r: &mut Random) -> Super {
        let (tcp, v4) = (r.below(3) > 0, r.below(2) == 0);
        let mut head = r.bytes(12);
        for tag in [[0x88, 0xa8], [0x81, 0x00]].iter().take(r.below(3)) {
            head.extend([tag[0], tag[1], r.below(256) as u8, 5]);
        }
        head.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
        let network = head.len();
        let protocol = if tcp { 6 } else { 17 };
        if v4 {
            let options = 4 * r.below(4);
            let mut ip = r.bytes(20 + options);
            (ip[0], ip[9]) = (0x45 + options as u8 / 4, protocol);
            ip[6..8].copy_from_slice(&[0x40, 0]);
            head.extend(ip);
        } else {
            let mut ip = r.bytes(40);
            ip[0] = 0x60 | ip[0] & 15;
            let extended = r.below(2) == 0;
            ip[6] = if extended { 60 } else { protocol };
            head.extend(ip);
            if extended {
                head.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
            }
        }
        let transport = head.len();
        let l4_len = if tcp { 20 + 4 * r.below(8) } else { 8 };
        let mut l4 = r.bytes(l4_len);
        if tcp {
            l4[12] = (l4.len() as u8 / 4) << 4;
        }
        head.extend(l4);
        let size = 48 + r.below(1500);
        let n = size + 1 + r.below(if tcp { 20_000 } else { size * 20 });
        let mut made = Super { payload: r.bytes(n), head, network, transport, tcp, size };
        let sum = made.pseudo(made.head.len() - transport + n);
        made.set_checksum(sum);
        made
    }

    fn v4(&self) -> bool {
        self.head[self.network] >> 4 == 4
    }

    fn field(&self) -> usize {
        self.transport + if self.tcp { 16 } else { 6 }
    }

    fn set_checksum(&mut self, sum: u16) {
        let at = self.field();
        self.head[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// The pseudo-header's sum for that many bytes behind the IP header.
    fn pseudo(&self, len: usize) -> u16 {
        let n = self.network;
        let addresses = if self.v4() { n + 12..n + 20 } else { n + 8..n + 40 };
        let sum = checksum::partial(0, &self.head[addresses]) + len as u64;
        checksum::fold(sum + if self.tcp { 6 } else { 17 })
    }

    fn offload(&self) -> Offload {
        Offload {
            flags: 1,
            gso_type: match (self.tcp, self.v4()) {
                (false, _) => gso::UDP_L4,
                (_, true) => gso::TCPV4,
                _ => gso::TCPV6,
            },
            hdr_len: self.head.len() as u16,
            gso_size: self.size as u16,
            csum_start: self.transport as u16,
            csum_offset: (self.field() - self.transport) as u16,
        }
    }

    /// The segments, each made from scratch.
    fn segments(&self) -> Vec<Vec<u8>> {
        let last = self.payload.len().div_ceil(self.size) - 1;
        let chunks = self.payload.chunks(self.size).enumerate();
        chunks
            .map(|(i, payload)| {
                let mut one = Super { head: self.head.clone(), payload: payload.to_vec(), ..*self };
                let (n, t, behind) =
                    (self.network, self.transport, self.head.len() - self.transport);
                let l4_len = behind + payload.len();
                let h = &mut one.head;
                if self.v4() {
                    put(h, n + 2, (t - n + l4_len) as u16);
                    let id = get(h, n + 4).wrapping_add(i as u16);
                    put(h, n + 4, id);
                    put(h, n + 10, 0);
                    let sum = checksum::internet(0, &h[n..t]);
                    put(h, n + 10, sum);
                } else {
                    put(h, n + 4, (t - n - 40 + l4_len) as u16);
                }
                if self.tcp {
                    let sequence = u32::from(get(h, t + 4)) << 16 | u32::from(get(h, t + 6));
                    let sequence = sequence.wrapping_add((i * self.size) as u32);
                    h[t + 4..t + 8].copy_from_slice(&sequence.to_be_bytes());
                    h[t + 13] &=
                        if i == last { 0xff } else { 0xf6 } & if i == 0 { 0xff } else { 0x7f };
                } else {
                    put(h, t + 4, l4_len as u16);
                }
                one.set_checksum(0);
                let start = u64::from(one.pseudo(l4_len)) + checksum::partial(0, &one.head[t..]);
                one.set_checksum(never_zero(checksum::internet(start, payload)));
                [one.head, one.payload].concat()
            })
            .collect()
    }

    /// Puts it into a burst, its borrowed part in pieces of any length.
    fn fill(&self, buf: &mut BurstBuf, frame: &[u8], r: &mut Random) {
        buf.clear();
        let private = frame.len().min(HEADER_BYTES);
        buf.push().expect("room").set_header(&frame[..private]);
        let mut rest = &frame[private..];
        while !rest.is_empty() {
            let n = rest.len().min(1 + r.below(3000));
            // SAFETY: the frame outlives the burst.
            assert!(unsafe { buf.add_segment(rest.as_ptr(), n) });
            rest = &rest[n..];
        }
        buf.set_offload(self.offload());
    }
}

#[test]
fn segments_are_those_made_from_scratch() {
    let mut r = Random(0x1357_9bdf_0246_8ace);
    let mut buf = BurstBuf::new();
    for round in 0..3000 {
        let made = Super::random(&mut r);
        let frame = [&made.head[..], &made.payload].concat();
        made.fill(&mut buf, &frame, &mut r);
        let mut burst = buf.lend(&Nobody);
        let expected = made.segments();
        let wire = burst.packets()[0].on_wire();
        let bytes = expected.iter().map(Vec::len).sum::<usize>();
        assert_eq!(wire, (expected.len() as u64, bytes as u64));
        let mut cut = burst.cut(0).expect("its headers are private");
        assert_eq!(cut.rest(), expected.len());
        for (i, want) in expected.iter().enumerate() {
            let payload = cut.advance().expect("a segment");
            let mut out = vec![0; payload];
            let (first, complete) = (r.below(payload + 1), r.below(4) > 0);
            // SAFETY: `out` holds the payload.
            unsafe {
                cut.copy(out.as_mut_ptr(), first, complete);
                cut.copy(out.as_mut_ptr().add(first), payload - first, complete);
            }
            let offload = cut.offload();
            if complete {
                cut.complete();
            }
            let mut got = [cut.headers(), &out].concat();
            if !complete {
                { offload }.complete(&mut got);
            }
            assert_eq!(&got, want, "round {round}, segment {i}");
        }
        assert_eq!((cut.advance(), cut.rest()), (None, 0));
    }
}

#[test]
fn checksums_are_completed_in_place() {
    let mut r = Random(42);
    let mut buf = BurstBuf::new();
    for _ in 0..2000 {
        let made = Super::random(&mut r);
        let mut frame = [&made.head[..], &made.payload].concat();
        made.fill(&mut buf, &frame, &mut r);
        let mut burst = buf.lend(&Nobody);
        burst.packet_mut(0).offload.gso_type = gso::NONE;
        burst.complete_checksum(0).expect("private");
        assert!(burst.packets()[0].offload.is_none());
        made.offload().complete(&mut frame);
        assert_eq!(burst.copy_out(0, usize::MAX), frame);
        let again = burst.copy_out(0, usize::MAX);
        burst.complete_checksum(0).expect("nothing to do");
        assert_eq!(burst.copy_out(0, usize::MAX), again);
    }
}

#[test]
fn what_cannot_be_private_is_refused() {
    let mut buf = BurstBuf::new();
    let mut r = Random(1);
    let made = Super::random(&mut r);
    let frame = [&made.head[..], &made.payload].concat();
    made.fill(&mut buf, &frame, &mut r);
    let mut burst = buf.lend(&Nobody);
    for (start, headers) in [(300, 320), (10, 40), (made.transport as u16, 20)] {
        let packet = burst.packet_mut(0);
        (packet.offload.csum_start, packet.offload.hdr_len) = (start, headers);
        assert_eq!(burst.cut(0).err(), Some(DropReason::TxInvalidOffload), "{start} {headers}");
    }
    let partial = Offload { flags: 1, csum_start: 299, csum_offset: 6, ..Offload::default() };
    burst.packet_mut(0).offload = partial;
    assert_eq!(burst.complete_checksum(0), Err(DropReason::TxInvalidOffload));
}
