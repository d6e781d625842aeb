//! Frames written to a descriptor, each by one call: a virtio-net header, the private bytes, and what is
//! borrowed, which the kernel copies straight out of the memory that it is in.

use packet::{Burst, DropReason, MAX_FRAME, Offload, Segment, Set};
use port::Counters;
use rustix::fd::{AsRawFd, OwnedFd};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of the header in front of each frame.
pub(crate) const VNET: usize = Offload::BYTES;
/// Pieces that the kernel takes in one call (`IOV_MAX`).
const PIECES: usize = 1024;

/// What was sent, and what was not. Written by several threads, so by locked additions: a system call for
/// each packet is dearer by far.
#[derive(Default)]
pub(crate) struct Sent {
    packets: AtomicU64,
    bytes: AtomicU64,
    header_bytes: AtomicU64,
    payload_bytes: AtomicU64,
    super_frames: AtomicU64,
    segments: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
}

impl Sent {
    pub(crate) fn dropped(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].fetch_add(n, Relaxed);
    }

    /// Adds the counts to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Counters) {
        sum.tx_packets += self.packets.load(Relaxed);
        sum.tx_bytes += self.bytes.load(Relaxed);
        sum.tx_header_bytes += self.header_bytes.load(Relaxed);
        sum.tx_payload_bytes += self.payload_bytes.load(Relaxed);
        sum.tx_super_frames += self.super_frames.load(Relaxed);
        sum.tx_segments += self.segments.load(Relaxed);
        for (to, n) in sum.drops.iter_mut().zip(&self.drops) {
            *to += n.load(Relaxed);
            sum.tx_dropped += n.load(Relaxed);
        }
    }
}

/// What went out in one call.
#[derive(Default)]
struct Sum {
    packets: u64,
    bytes: u64,
    /// Bytes that were private.
    private: u64,
    super_frames: u64,
    segments: u64,
}

/// Sends packets of a burst to a descriptor. Frames for which an MTU whose longest untagged frame has `longest` bytes is
/// too small are dropped.
pub(crate) fn send(fd: &OwnedFd, burst: &mut Burst<'_>, set: Set, longest: usize, sent: &Sent) {
    let mut sum = Sum::default();
    for i in set {
        let p = &burst.packets()[i];
        if !p.fits(longest) {
            sent.dropped(DropReason::TxMtuExceeded, 1);
            continue;
        }
        let (n, on_wire) = p.on_wire();
        let is_super = p.offload.is_super();
        let mut result = Err(DropReason::TxInvalidOffload);
        if p.suits(crate::ALL) {
            result = send_whole(fd, &p.offload, p.header(), burst.segments(i));
        }
        match result {
            Ok(()) => {
                sum.packets += n;
                sum.bytes += on_wire;
                sum.private += p.header().len() as u64;
                sum.super_frames += u64::from(is_super);
            }
            Err(DropReason::TxInvalidOffload) if is_super => send_cut(fd, burst, i, sent, &mut sum),
            Err(reason) => sent.dropped(reason, n),
        }
    }
    sent.packets.fetch_add(sum.packets, Relaxed);
    sent.bytes.fetch_add(sum.bytes, Relaxed);
    sent.header_bytes.fetch_add(sum.private, Relaxed);
    sent.payload_bytes.fetch_add(sum.bytes.saturating_sub(sum.private), Relaxed);
    sent.super_frames.fetch_add(sum.super_frames, Relaxed);
    sent.segments.fetch_add(sum.segments, Relaxed);
}

/// The header in front of a frame.
fn header(offload: &Offload) -> [u8; VNET] {
    let mut vnet = [0; VNET];
    let (first, last) = offload.words();
    vnet[..8].copy_from_slice(&first.to_ne_bytes());
    vnet[8..].copy_from_slice(&last.to_ne_bytes());
    vnet
}

/// Writes one frame.
fn send_whole(
    fd: &OwnedFd,
    offload: &Offload,
    head: &[u8],
    borrowed: &[Segment<'_>],
) -> Result<(), DropReason> {
    let vnet = header(offload);
    let mut list = [const { MaybeUninit::<libc::iovec>::uninit() }; PIECES];
    let parts = [(vnet.as_ptr(), VNET), (head.as_ptr(), head.len())];
    let parts = parts.into_iter().chain(borrowed.iter().map(|s| (s.as_ptr(), s.len())));
    if borrowed.len() + 2 > PIECES {
        return Err(DropReason::TxBufferTooSmall);
    }
    let mut n = 0;
    for (to, (at, len)) in list.iter_mut().zip(parts) {
        to.write(libc::iovec { iov_base: at.cast_mut().cast(), iov_len: len });
        n += 1;
    }
    // SAFETY: the first `n` pieces were written just now; the kernel only reads what they point to, which
    // is readable while the burst is borrowed.
    match unsafe { libc::writev(fd.as_raw_fd(), list.as_ptr().cast(), n) } {
        -1 => Err(reason(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
        _ => Ok(()),
    }
}

/// Why the kernel does not take a frame.
#[cold]
fn reason(errno: i32) -> DropReason {
    match errno {
        libc::EMSGSIZE => DropReason::TxMtuExceeded,
        libc::EIO | libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADFD => {
            DropReason::TxNoQueue
        }
        libc::EINVAL => DropReason::TxInvalidOffload,
        libc::EFAULT => DropReason::TxRingBroken,
        _ => DropReason::TxRingFull,
    }
}

/// Cuts a super-frame that the kernel does not take, and writes what comes of it. With a segment that is not
/// taken those behind it are dropped; those before it are out.
#[cold]
#[inline(never)]
fn send_cut(fd: &OwnedFd, burst: &mut Burst<'_>, i: usize, sent: &Sent, sum: &mut Sum) {
    let mut out = [0u8; MAX_FRAME];
    let mut cut = match burst.cut(i) {
        Ok(cut) => cut,
        Err(reason) => return sent.dropped(reason, burst.packets()[i].on_wire().0),
    };
    while let Some(payload) = cut.advance() {
        // A segment is a frame, so it is no longer than that.
        let payload = payload.min(out.len());
        // SAFETY: `out` is writable for that many bytes.
        unsafe { cut.copy(out.as_mut_ptr(), payload, false) };
        if let Err(reason) = send_pieces(fd, &cut.offload(), cut.headers(), &out[..payload]) {
            return sent.dropped(reason, 1 + cut.rest() as u64);
        }
        sum.packets += 1;
        sum.segments += 1;
        sum.bytes += (cut.headers().len() + payload) as u64;
        sum.private += cut.headers().len() as u64;
    }
}

/// Writes a frame in two pieces of our own.
fn send_pieces(
    fd: &OwnedFd,
    offload: &Offload,
    head: &[u8],
    rest: &[u8],
) -> Result<(), DropReason> {
    let vnet = header(offload);
    let pieces = [&vnet[..], head, rest].map(std::io::IoSlice::new);
    let done = rustix::io::writev(fd, &pieces);
    done.map(drop).map_err(|e| reason(e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{BurstBuf, gso};
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    const SIZE: usize = 1000;
    /// Ethernet, a label (which nobody but us cuts behind), IPv4 and TCP.
    const HEADERS: usize = 58;

    /// A super-frame of `segments` segments.
    fn labelled(segments: usize) -> (Vec<u8>, Offload) {
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0x47, 0, 1, 0x11, 64];
        f.extend([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        f.resize(HEADERS + segments * SIZE, 7);
        let offload = Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: gso::TCPV4,
            hdr_len: HEADERS as u16,
            gso_size: SIZE as u16,
            csum_start: 38,
            csum_offset: 16,
        };
        (f, offload)
    }

    #[test]
    fn a_tag_does_not_count_to_the_mtu() {
        let (unix, flags) = (AddressFamily::UNIX, SocketFlags::NONBLOCK);
        let (to, from) =
            rustix::net::socketpair(unix, SocketType::DGRAM, flags, None).expect("two");
        let sent = Sent::default();
        let offer = |types: &[u8], len: usize| {
            let mut frame = [&[2; 12], types].concat();
            frame.resize(len, 0);
            let mut buf = BurstBuf::new();
            let mut burst = buf.frame(&frame).expect("a frame");
            send(&to, &mut burst, Set::one(0), packet::longest_untagged(1000), &sent);
            let mut message = vec![0; 2000];
            rustix::io::read(&from, &mut message).is_ok_and(|n| n == VNET + len)
        };
        assert_eq!([1014, 1015].map(|len| offer(&[8, 0], len)), [true, false]);
        assert_eq!([1018, 1019].map(|len| offer(&[0x81, 0, 0, 7, 8, 0], len)), [true, false]);
        let mut sum = Counters::default();
        sent.add_to(&mut sum);
        assert_eq!(sum.drops[DropReason::TxMtuExceeded as usize], 2);
    }

    #[test]
    fn segments_before_one_that_is_not_taken_count_as_sent() {
        // A socket that takes some messages and then no more, as a full queue does.
        let (unix, flags) = (AddressFamily::UNIX, SocketFlags::NONBLOCK);
        let pair = rustix::net::socketpair(unix, SocketType::DGRAM, flags, None);
        let (to, from) = pair.expect("sockets");
        rustix::net::sockopt::set_socket_send_buffer_size(&to, 4 * SIZE).expect("a size");
        let (frame, offload) = labelled(60);
        let (mut buf, sent) = (BurstBuf::new(), Sent::default());
        let mut burst = buf.frame(&frame).expect("a frame");
        burst.set_offload(0, offload);
        send(&to, &mut burst, Set::one(0), 1600, &sent);
        let (mut packets, mut bytes, mut message) = (0, 0, vec![0; 2000]);
        while let Ok(n) = rustix::io::read(&from, &mut message) {
            packets += 1;
            bytes += (n - VNET) as u64;
        }
        let mut sum = Counters::default();
        sent.add_to(&mut sum);
        assert!((1..60).contains(&packets), "{packets}");
        assert_eq!((sum.tx_packets, sum.tx_bytes, sum.tx_segments), (packets, bytes, packets));
        assert_eq!((sum.tx_dropped, sum.tx_super_frames), (60 - packets, 0));
        assert_eq!(sum.drops[DropReason::TxRingFull as usize], 60 - packets);
        assert_eq!(sum.tx_payload_bytes, packets * SIZE as u64);
    }
}
