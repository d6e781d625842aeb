//! System calls of sockets and programs.

use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::io::{Error, Result};
use std::mem::size_of;

/// An error if a system call returned less than 0.
fn checked(n: libc::c_long) -> Result<libc::c_long> {
    if n < 0 { Err(Error::last_os_error()) } else { Ok(n) }
}

/// Commands of bpf(2).
pub(crate) const MAP_CREATE: libc::c_int = 0;
pub(crate) const MAP_UPDATE_ELEM: libc::c_int = 2;
pub(crate) const PROG_LOAD: libc::c_int = 5;
pub(crate) const LINK_CREATE: libc::c_int = 28;
pub(crate) const LINK_DETACH: libc::c_int = 34;

/// bpf(2). Pointers in `attributes` must point to what the command reads.
pub(crate) fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<libc::c_long> {
    let (at, size) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: the kernel reads `size` bytes of `attributes`; these commands write nothing.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, at, size) })
}

/// As [`bpf`], for commands that return a descriptor.
pub(crate) fn bpf_fd<T>(command: libc::c_int, attributes: &T) -> Result<OwnedFd> {
    let raw = bpf(command, attributes)?;
    // SAFETY: the kernel gave it just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })
}

/// A new socket.
pub(crate) fn socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: numbers.
    let raw = checked(unsafe { libc::socket(libc::AF_XDP, kind, 0) }.into())?;
    // SAFETY: the kernel gave it just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })
}

/// Sets an option of a socket.
pub(crate) fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<()> {
    let (at, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of `value`.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, at, len) };
    checked(done.into()).map(drop)
}

/// How long the kernel may look for packets in a call that finds none, in microseconds, and how many it takes at most.
/// A call that must not wait looks once.
const BUSY_POLL: [(libc::c_int, libc::c_int); 3] =
    [(libc::SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, 20), (libc::SO_BUSY_POLL_BUDGET, 64)];

/// Has calls on a socket run the driver's receiving.
pub(crate) fn prefer_busy_poll(socket: &OwnedFd) -> Result<()> {
    for (option, value) in BUSY_POLL {
        let (at, len) = (std::ptr::from_ref(&value).cast(), size_of_val(&value) as libc::socklen_t);
        // SAFETY: the kernel reads `len` bytes of `value`.
        let done =
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, len) };
        checked(done.into())?;
    }
    Ok(())
}

/// Reads an option of a socket. `T` consists of integers.
pub(crate) fn get<T: Default>(socket: &OwnedFd, option: libc::c_int) -> Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    let (at, len) = (std::ptr::from_mut(&mut value).cast(), &raw mut len);
    // SAFETY: the kernel writes at most `len` bytes of `value`, and any bytes are integers.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, at, len) };
    checked(done.into()).map(|_| value)
}

/// Where the parts of a ring are: producer's index, consumer's, descriptors, flags.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct RingOffsets {
    pub(crate) producer: u64,
    pub(crate) consumer: u64,
    pub(crate) descriptors: u64,
    pub(crate) flags: u64,
}

/// Of all rings of a socket (`xdp_mmap_offsets`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Offsets {
    pub(crate) rx: RingOffsets,
    pub(crate) tx: RingOffsets,
    pub(crate) fill: RingOffsets,
    pub(crate) completion: RingOffsets,
}

/// What the kernel counts of a socket (`xdp_statistics`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Statistics {
    pub(crate) rx_dropped: u64,
    pub(crate) rx_invalid: u64,
    pub(crate) tx_invalid: u64,
    pub(crate) rx_ring_full: u64,
    pub(crate) fill_ring_empty: u64,
    pub(crate) tx_ring_empty: u64,
}

/// Binds a socket to a queue.
pub(crate) fn bind(socket: &OwnedFd, index: u32, queue: u32, flags: u16) -> Result<()> {
    bind_to(socket, index, queue, flags, 0)
}

/// Binds a socket to a queue, with the frames that another has (Linux 5.10). That one's flags go for it too.
pub(crate) fn bind_as(socket: &OwnedFd, index: u32, queue: u32, other: &OwnedFd) -> Result<()> {
    bind_to(socket, index, queue, libc::XDP_SHARED_UMEM, other.as_raw_fd() as u32)
}

fn bind_to(socket: &OwnedFd, index: u32, queue: u32, flags: u16, other: u32) -> Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: other,
    };
    let (at, len) = (std::ptr::from_ref(&address).cast(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of `address`.
    checked(unsafe { libc::bind(socket.as_raw_fd(), at, len) }.into()).map(drop)
}

/// Has the kernel send what is in the transmit ring.
pub(crate) fn kick_tx(socket: &OwnedFd) {
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
    // SAFETY: nothing is pointed to. What it cannot do now is tried with the next burst.
    unsafe { libc::sendto(fd, std::ptr::null(), 0, flags, std::ptr::null(), 0) };
}

/// Has the kernel look at the fill ring.
pub(crate) fn kick_rx(socket: &OwnedFd) {
    let (fd, flags, none) = (socket.as_raw_fd(), libc::MSG_DONTWAIT, std::ptr::null_mut());
    // SAFETY: nothing is pointed to.
    unsafe { libc::recvfrom(fd, none, 0, flags, std::ptr::null_mut(), std::ptr::null_mut()) };
}
