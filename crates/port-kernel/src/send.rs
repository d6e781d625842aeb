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

/// Sends packets of a burst to a descriptor. Frames longer than `longest` bytes on the wire are dropped.
pub(crate) fn send(fd: &OwnedFd, burst: &mut Burst<'_>, set: Set, longest: usize, sent: &Sent) {
    let (mut packets, mut bytes, mut private, mut supers) = (0, 0, 0, 0);
    for i in set {
        let p = &burst.packets()[i];
        if p.offload.longest(p.len()) > longest {
            sent.dropped(DropReason::TxMtuExceeded, 1);
            continue;
        }
        let (n, on_wire) = p.on_wire();
        let (head, is_super) = (p.header().len() as u64, p.offload.is_super());
        let mut result = Err(DropReason::TxInvalidOffload);
        if p.suits(crate::ALL) {
            result = send_whole(fd, &p.offload, p.header(), burst.segments(i));
        }
        if is_super && result == Err(DropReason::TxInvalidOffload) {
            result = send_cut(fd, burst, i, sent);
        } else if is_super && result.is_ok() {
            supers += 1;
        }
        match result {
            Ok(()) => {
                packets += n;
                bytes += on_wire;
                private += head;
            }
            Err(reason) => sent.dropped(reason, n),
        }
    }
    sent.packets.fetch_add(packets, Relaxed);
    sent.bytes.fetch_add(bytes, Relaxed);
    sent.header_bytes.fetch_add(private, Relaxed);
    sent.payload_bytes.fetch_add(bytes.saturating_sub(private), Relaxed);
    sent.super_frames.fetch_add(supers, Relaxed);
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

/// Cuts a super-frame that the kernel does not take, and writes what comes of it.
#[cold]
#[inline(never)]
fn send_cut(fd: &OwnedFd, burst: &mut Burst<'_>, i: usize, sent: &Sent) -> Result<(), DropReason> {
    let mut out = [0u8; MAX_FRAME];
    let mut cut = burst.cut(i)?;
    while let Some(payload) = cut.advance() {
        // A segment is a frame, so it is no longer than that.
        let payload = payload.min(out.len());
        // SAFETY: `out` is writable for that many bytes.
        unsafe { cut.copy(out.as_mut_ptr(), payload, false) };
        send_pieces(fd, &cut.offload(), cut.headers(), &out[..payload])?;
        sent.segments.fetch_add(1, Relaxed);
    }
    Ok(())
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
