//! Cutting super-frames and completing checksums, held against Linux: a super-frame goes into a tap that is
//! joined by a bridge to one whose owner takes whole frames only, so that the kernel cuts it. What comes out is
//! to be what `Segments` makes of the same super-frame, byte for byte. Needs root.

use packet::checksum::{internet, partial};
use packet::{Abilities, Burst, BurstBuf, Offload, Set, gso};
use port::Port;
use port_kernel::TapPort;
use std::process::Command;
use std::time::{Duration, Instant};

const ALL: Abilities = Abilities::CSUM
    .with(Abilities::TSO4, true)
    .with(Abilities::TSO6, true)
    .with(Abilities::ECN, true)
    .with(Abilities::USO, true);
const FRAMES: usize = 600;
/// How long the kernel may take for a frame on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const TO: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

fn run(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    let out = command.args(words).output().expect("iproute2 is installed");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Two taps on a Linux bridge, in a namespace of this thread's own.
fn joined() -> (TapPort, TapPort) {
    // SAFETY: the thread's network namespace alone is its own from now on; no memory is concerned.
    let done = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    done.expect("root");
    let from = TapPort::open("sa", 1, 1500, ALL).expect("root");
    let to = TapPort::open("sb", 1, 1500, Abilities::NONE).expect("root");
    run("ip link add lb type bridge stp_state 0 mcast_snooping 0");
    for name in ["sa", "sb"] {
        run(&format!("ip link set {name} master lb addrgenmode none up"));
    }
    run("ip link set lb addrgenmode none up");
    (from, to)
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

/// A frame that is being made.
struct Frame {
    bytes: Vec<u8>,
    network: usize,
    transport: usize,
    v4: bool,
    tcp: bool,
}

impl Frame {
    /// Headers up to IP's, with options, extension headers and a tag.
    fn begin(r: &mut Random) -> Frame {
        let (tcp, v4) = (r.below(3) > 0, r.below(2) == 0);
        let mut f = TO.to_vec();
        f.extend([2, 0, 0, 0, 0, 1]);
        if r.below(3) == 0 {
            f.extend([0x81, 0x00, 0x20, 5]);
        }
        let network = f.len() + 2;
        let protocol = if tcp { 6 } else { 17 };
        if v4 {
            let options = r.below(4);
            f.extend([8, 0, 0x45 + options as u8, 0, 0, 0]);
            f.extend(r.bytes(2));
            f.extend([0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            f.extend(vec![1; 4 * options]);
        } else {
            let extended = r.below(2) == 0;
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, if extended { 60 } else { protocol }, 64]);
            for last in [1, 2] {
                f.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
            if extended {
                f.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
            }
        }
        Frame { transport: f.len(), bytes: f, network, v4, tcp }
    }

    /// The transport header; the super-frame's type.
    fn transport(&mut self, r: &mut Random) -> u8 {
        let f = &mut self.bytes;
        f.extend([0x12, 0x34, 0x56, 0x78]);
        if !self.tcp {
            f.extend([0; 4]);
            return gso::UDP_L4;
        }
        let options = 4 * r.below(6);
        f.extend(r.bytes(8));
        let flags = [0x10, 0x18, 0x19, 0x11, 0x98][r.below(5)];
        f.extend([((20 + options) as u8 / 4) << 4, flags, 1, 0, 0, 0, 0, 0]);
        f.extend(vec![1; options]);
        let ecn = if flags & 0x80 != 0 { gso::ECN } else { 0 };
        ecn | if self.v4 { gso::TCPV4 } else { gso::TCPV6 }
    }

    /// Lengths, the IP header's checksum, and the pseudo-header's.
    fn finish(&mut self) {
        let (len, network, transport) = (self.bytes.len(), self.network, self.transport);
        let f = &mut self.bytes;
        let mut put = |at: usize, value: usize| {
            f[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
        };
        match self.v4 {
            true => put(network + 2, len - network),
            false => put(network + 4, len - network - 40),
        }
        if !self.tcp {
            put(transport + 4, len - transport);
        }
        if self.v4 {
            let sum = internet(0, &f[network..transport]);
            f[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses =
            if self.v4 { network + 12..network + 20 } else { network + 8..network + 40 };
        let protocol = if self.tcp { 6 } else { 17 };
        let sum = partial(0, &f[addresses]) + protocol + (len - transport) as u64;
        let at = transport + if self.tcp { 16 } else { 6 };
        f[at..at + 2].copy_from_slice(&(!internet(sum, &[])).to_be_bytes());
    }
}

/// A super-frame of TCP or UDP over either IP; or a frame whose checksum is to be completed.
fn super_frame(r: &mut Random) -> (Vec<u8>, Offload) {
    let mut made = Frame::begin(r);
    let kind = made.transport(r);
    let (headers, whole, size) = (made.bytes.len(), r.below(5) == 0, 200 + r.below(1100));
    let payload = match whole {
        true => r.below(1300),
        false => size + 1 + r.below(if made.tcp { 20_000 } else { size * 10 }),
    };
    made.bytes.extend(r.bytes(payload));
    made.finish();
    let checksum = Offload {
        flags: Offload::NEEDS_CSUM,
        csum_start: made.transport as u16,
        csum_offset: if made.tcp { 16 } else { 6 },
        ..Offload::default()
    };
    if whole {
        return (made.bytes, checksum);
    }
    let (hdr_len, gso_size) = (headers as u16, size as u16);
    (made.bytes, Offload { gso_type: kind, hdr_len, gso_size, ..checksum })
}

/// What goes on the wire by our own doing.
fn ours(burst: &mut Burst<'_>) -> Vec<Vec<u8>> {
    if !burst.packets()[0].offload.is_super() {
        burst.complete_checksum(0).expect("private");
        return vec![burst.copy_out(0, usize::MAX)];
    }
    let mut cut = burst.cut(0).expect("private");
    let mut all = Vec::new();
    while let Some(n) = cut.advance() {
        let mut payload = vec![0; n];
        // SAFETY: it holds n bytes.
        unsafe { cut.copy(payload.as_mut_ptr(), n, true) };
        cut.complete();
        all.push([cut.headers(), &payload].concat());
    }
    all
}

#[test]
fn segments_are_those_of_the_kernel() {
    let (from, to) = joined();
    let mut r = Random(0x0f1e_2d3c_4b5a_6978);
    let (mut buf, mut received) = (BurstBuf::new(), BurstBuf::new());
    let mut cut = 0;
    for n in 0..FRAMES {
        let (frame, offload) = super_frame(&mut r);
        let checked = offload.check(&frame[..frame.len().min(128)], frame.len(), ALL);
        let checked = checked.unwrap_or_else(|e| panic!("frame {n}: {e:?}, {offload:?}"));
        let mut burst = buf.frame(&frame).expect("a frame");
        burst.set_offload(0, checked);
        from.tx(0, &mut burst, Set::one(0));
        let expected = ours(&mut burst);
        cut += usize::from(expected.len() > 1);
        let deadline = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        while got.len() < expected.len() {
            assert!(Instant::now() < deadline, "frame {n}: {} of {}", got.len(), expected.len());
            let Some(burst) = to.rx(0, &mut received) else { continue };
            for i in 0..burst.len() {
                let whole = burst.copy_out(i, usize::MAX);
                // The kernel's own frames have other receivers.
                if whole[..6] == TO {
                    assert!(burst.packets()[i].offload.is_none(), "frame {n} is not finished");
                    got.push(whole);
                }
            }
        }
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(got, expected, "frame {n}, segment {i}, {offload:?}");
        }
    }
    assert!(cut > FRAMES / 2, "{cut}");
}
