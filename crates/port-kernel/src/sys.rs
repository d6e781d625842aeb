//! System calls that nobody wraps: ioctls of netdevs and taps, options of packet sockets.

use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io::{Error, Result};
use std::mem::size_of;

/// Bytes of a netdev's name, without the zero byte at its end.
const NAME_MAX: usize = libc::IFNAMSIZ - 1;
/// `PACKET_IGNORE_OUTGOING` of packet(7): frames that the host sends are not received.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Checks that a netdev can have this name.
///
/// # Errors
/// A line for the row's `error` column.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(format!(
            "a netdev's name has 1 to {NAME_MAX} bytes, \"{name}\" has {}",
            name.len()
        ));
    }
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c == '\0';
    if name == "." || name == ".." || name.contains(bad) {
        return Err(format!("no netdev can be called \"{name}\""));
    }
    Ok(())
}

/// A request of netdevice(7) for a netdev.
fn request(name: &str) -> Result<libc::ifreq> {
    check_name(name).map_err(Error::other)?;
    // SAFETY: integers, arrays of them, and pointers: zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// An ioctl whose argument is a `T` that the kernel reads and may write.
fn ioctl<T>(fd: impl AsFd, number: libc::Ioctl, argument: &mut T) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: callers pass the type that the ioctl is for, and it lives until the call returns.
    match unsafe { libc::ioctl(raw, number, std::ptr::from_mut(argument)) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A socket to ask about netdevs.
fn control() -> Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Sets the MTU of a netdev, in bytes.
///
/// # Errors
/// The kernel's.
pub fn set_mtu(name: &str, mtu: u32) -> Result<()> {
    let mut r = request(name)?;
    r.ifr_ifru.ifru_mtu = i32::try_from(mtu).map_err(Error::other)?;
    ioctl(control()?, libc::SIOCSIFMTU, &mut r)
}

/// Brings a netdev up or down.
///
/// # Errors
/// The kernel's.
pub fn set_up(name: &str, up: bool) -> Result<()> {
    let (mut r, control) = (request(name)?, control()?);
    ioctl(&control, libc::SIOCGIFFLAGS, &mut r)?;
    let flag = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel has just filled in this member.
    let flags = unsafe { r.ifr_ifru.ifru_flags };
    r.ifr_ifru.ifru_flags = if up { flags | flag } else { flags & !flag };
    ioctl(&control, libc::SIOCSIFFLAGS, &mut r)
}

/// Queues of a netdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// That receive, and as many as there can be.
    pub rx: u32,
    /// See `rx`.
    pub rx_max: u32,
    /// That send.
    pub tx: u32,
    /// As many as there can be.
    pub tx_max: u32,
}

/// How a netdev's queues are divided: `struct ethtool_channels` (linux/ethtool.h).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    /// So many that receive, and as many that send.
    pub fn of(count: u32) -> Channels {
        Channels { rx: count, tx: count, ..Channels::default() }
    }

    /// Those that receive.
    pub fn count(&self) -> u32 {
        self.rx + self.combined
    }
}

/// Commands of the same.
const GET_CHANNELS: u32 = 0x3c;
const SET_CHANNELS: u32 = 0x3d;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Asks a netdev's driver something. What `argument` begins with says what, and how much of it the kernel reads and
/// writes, all of it at most.
pub(crate) fn ethtool<T: ?Sized>(name: &str, argument: &mut T) -> Result<()> {
    let mut r = request(name)?;
    r.ifr_ifru.ifru_data = std::ptr::from_mut(argument).cast();
    // The argument is borrowed while the call lasts.
    ioctl(control()?, SIOCETHTOOL, &mut r)
}

/// The queues of a netdev.
///
/// # Errors
/// The kernel's; not every driver says them.
pub fn queues(name: &str) -> Result<Queues> {
    let mut c = Channels { command: GET_CHANNELS, ..Channels::default() };
    ethtool(name, &mut c)?;
    Ok(Queues {
        rx: c.count(),
        rx_max: c.max_rx.max(c.max_combined),
        tx: c.tx + c.combined,
        tx_max: c.max_tx.max(c.max_combined),
    })
}

/// Makes a netdev have `count` queues of each kind, combined ones where it has those. Returns what it had.
///
/// # Errors
/// The kernel's.
pub fn set_queues(name: &str, count: u32) -> Result<Channels> {
    let mut c = Channels { command: GET_CHANNELS, ..Channels::default() };
    ethtool(name, &mut c)?;
    let before = c;
    (c.rx, c.tx, c.combined) = if c.max_combined > 0 { (0, 0, count) } else { (count, count, 0) };
    put_back_queues(name, c)?;
    Ok(before)
}

/// Gives a netdev queues as it had them.
///
/// # Errors
/// The kernel's.
pub fn put_back_queues(name: &str, mut before: Channels) -> Result<()> {
    before.command = SET_CHANNELS;
    ethtool(name, &mut before)
}

/// Sets the Ethernet address of a netdev.
///
/// # Errors
/// The kernel's.
pub fn set_mac(name: &str, mac: [u8; 6]) -> Result<()> {
    let mut r = request(name)?;
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac) {
        *to = from.cast_signed();
    }
    r.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
    ioctl(control()?, libc::SIOCSIFHWADDR, &mut r)
}

/// Opens the namespace that a tap is in (linux/if_tun.h).
const TUNGETDEVNETNS: libc::Ioctl = 0x54e3;

/// Opens one queue of a tap device. The first one makes the device, and fails with `EBUSY` if there is one of that name,
/// which others may read from; it goes with its last queue.
pub(crate) fn open_tap(name: &str, first: bool) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = open("/dev/net/tun", flags, Mode::empty())?;
    let mut r = request(name)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let flags = flags | if first { libc::IFF_TUN_EXCL } else { 0 };
    r.ifr_ifru.ifru_flags = flags as libc::c_short;
    ioctl(&tap, libc::TUNSETIFF, &mut r)?;
    let mut bytes = crate::send::VNET as libc::c_int;
    ioctl(&tap, libc::TUNSETVNETHDRSZ, &mut bytes)?;
    let mut on: libc::c_int = 1;
    ioctl(&tap, libc::TUNSETVNETLE, &mut on)?;
    Ok(tap)
}

/// Says what may be left to do in frames that a tap's host sends (`TUN_F_*`).
pub(crate) fn set_tap_offload(tap: &OwnedFd, flags: libc::c_uint) -> Result<()> {
    // SAFETY: the argument is a number.
    match unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The Ethernet address of a tap, in whatever namespace it is.
pub(crate) fn tap_mac(tap: &OwnedFd) -> Option<[u8; 6]> {
    // SAFETY: zeros are a value, see `request`.
    let mut r: libc::ifreq = unsafe { std::mem::zeroed() };
    ioctl(tap, libc::SIOCGIFHWADDR, &mut r).ok()?;
    // SAFETY: the ioctl has written an address, and any bytes are one.
    let data = unsafe { r.ifr_ifru.ifru_hwaddr.sa_data };
    Some([0, 1, 2, 3, 4, 5].map(|i: usize| data[i].cast_unsigned()))
}

/// The namespace that a tap is in now, and its name there (Linux 5.3).
pub(crate) fn tap_place(tap: &OwnedFd) -> Result<(OwnedFd, String)> {
    // SAFETY: no argument is looked at.
    let raw = unsafe { libc::ioctl(tap.as_raw_fd(), TUNGETDEVNETNS) };
    if raw < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel gave it just now, and nobody else has it.
    let namespace = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: zeros are a value, see `request`.
    let mut r: libc::ifreq = unsafe { std::mem::zeroed() };
    ioctl(tap, libc::TUNGETIFF, &mut r)?;
    let name = r.ifr_name.iter().map(|c| c.cast_unsigned()).take_while(|&c| c != 0).collect();
    Ok((namespace, String::from_utf8(name).map_err(Error::other)?))
}

fn set_option<T>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: T) -> Result<()> {
    let (at, len) = (std::ptr::from_ref(&value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of `value`.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, at, len) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Has a netdev receive frames for all addresses and of all VLANs, until what is returned is dropped.
///
/// # Errors
/// The kernel's.
pub fn promiscuous(index: u32) -> Result<OwnedFd> {
    let socket = packet_socket()?;
    make_promiscuous(&socket, index)?;
    Ok(socket)
}

fn make_promiscuous(socket: &OwnedFd, index: u32) -> Result<()> {
    let promiscuous = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, promiscuous)
}

/// A packet socket (packet(7)) that receives nothing.
fn packet_socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: numbers. Protocol 0 receives nothing until it is bound.
    let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if raw < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel gave it just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A packet socket on the netdev with this index: promiscuous, with virtio-net headers, told of tags that the kernel
/// took out, without what the host itself sends.
pub(crate) fn open_packet_socket(index: u32, buffer: usize) -> Result<OwnedFd> {
    let socket = packet_socket()?;
    let packet = libc::SOL_PACKET;
    set_option(&socket, packet, libc::PACKET_VNET_HDR, 1i32)?;
    set_option(&socket, packet, libc::PACKET_AUXDATA, 1i32)?;
    set_option(&socket, packet, PACKET_IGNORE_OUTGOING, 1i32)?;
    // More than an ordinary limit, which root may have.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer as i32)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, buffer as i32)?;
    make_promiscuous(&socket, index)?;
    // SAFETY: integers: zeros are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let (at, len) = (std::ptr::from_ref(&address).cast(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of `address`.
    match unsafe { libc::bind(socket.as_raw_fd(), at, len) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(socket),
    }
}

/// Packets that a packet socket had no room for since this was asked last.
pub(crate) fn packet_socket_drops(socket: &OwnedFd) -> u64 {
    #[repr(C)]
    struct Stats {
        packets: u32,
        drops: u32,
    }
    let mut stats = Stats { packets: 0, drops: 0 };
    let mut len = size_of::<Stats>() as libc::socklen_t;
    let (at, len) = (std::ptr::from_mut(&mut stats).cast(), &raw mut len);
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: the kernel writes at most `len` bytes of `stats`.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, at, len) } {
        0 => stats.drops.into(),
        _ => 0,
    }
}

/// Room for one control message with a number in it.
#[repr(C, align(8))]
struct NumberControl([u8; 32]);
/// `NETLINK_LISTEN_ALL_NSID` (netlink(7)), which is the type of its control messages too.
const LISTEN_ALL_NSID: libc::c_int = 8;

/// Waits for an event at a netlink socket; its length, and the number of the namespace that it is about
/// unless that is the socket's own.
///
/// # Errors
/// The kernel's; `ENOBUFS` if events were lost, or this one is longer than `buffer`.
pub(crate) fn receive_event(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
) -> Result<(usize, Option<i32>)> {
    let mut control = NumberControl([0; 32]);
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: integers and pointers: zeros are a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    (message.msg_control, message.msg_controllen) = (control.0.as_mut_ptr().cast(), 32);
    // SAFETY: the message's piece and control bytes are ours and live until the call returns.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
    let n = usize::try_from(n).map_err(|_| Error::last_os_error())?;
    if n > buffer.len() {
        return Err(Error::from_raw_os_error(libc::ENOBUFS));
    }
    // SAFETY: the kernel has filled the control bytes in, and their length; it gives the first header or
    // none.
    let head = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: a header that is there is inside of the control bytes, which are aligned for it.
    let is_it = unsafe { head.as_ref() }
        .is_some_and(|h| (h.cmsg_level, h.cmsg_type) == (libc::SOL_NETLINK, LISTEN_ALL_NSID));
    // SAFETY: its data, a number, follow it, inside of the control bytes.
    let namespace = is_it.then(|| unsafe { libc::CMSG_DATA(head).cast::<i32>().read_unaligned() });
    Ok((n, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "br-int", "eth0.5", "fifteen-letters"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "tap%d", "sixteen-letters-"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
