//! Netdevs that are there already (`type=system`), by a packet socket.
//!
//! `recvmmsg(2)` takes a burst in one call, straight into the queue's buffers. Mapped rings would save that
//! copy's system call, but the kernel copies each packet into them all the same, their frames are of one
//! size, so that super-frames of 64 KB would need a ring of as many bytes each, and those of version 3, which
//! has none of that, have no virtio-net header.

use crate::receive::{Got, Receiver, Slot};
use crate::send::{Sent, send};
use crate::sys;
use packet::{BURST, Burst, BurstBuf, DropReason, Set, longest_untagged};
use port::{Counters, Port, Wait, Waker};
use rustix::fd::{AsRawFd, OwnedFd};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes that wait in the kernel before packets are dropped: some milliseconds at 10 Gbit/s.
const KERNEL_BUFFER: usize = 4 << 20;

/// A netdev of the kernel, by its index.
pub struct NetdevPort {
    name: String,
    index: u32,
    socket: Arc<OwnedFd>,
    receiver: Receiver,
    mtu: AtomicU32,
    sent: Sent,
    /// Packets that the kernel dropped because we were too slow.
    overflowed: AtomicU64,
}

impl NetdevPort {
    /// Opens the netdev with this index and name. With `gro` segments of TCP that come in one burst are joined to
    /// super-frames ([`Burst::coalesce`]), as far as the kernel has not done that.
    ///
    /// # Errors
    /// If there is none any more, or this process may not.
    pub fn open(name: &str, index: u32, mtu: u32, gro: bool) -> std::io::Result<NetdevPort> {
        Ok(NetdevPort {
            name: name.to_owned(),
            index,
            socket: Arc::new(sys::open_packet_socket(index, KERNEL_BUFFER)?),
            receiver: Receiver::new(gro),
            mtu: AtomicU32::new(mtu),
            sent: Sent::default(),
            overflowed: AtomicU64::new(0),
        })
    }

    /// The netdev's index, which no other has while it exists.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The longest IP packet that is sent, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Relaxed)
    }

    /// Changes what [`NetdevPort::mtu`] says; the netdev's own is the host's affair.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Relaxed);
    }
}

impl Port for NetdevPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx_queues(&self) -> usize {
        1
    }

    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        if queue > 0 {
            return None;
        }
        self.receiver.rx(buf, |slots, got| read(&self.socket, slots, got))
    }

    fn tx(&self, _thread: usize, burst: &mut Burst<'_>, set: Set) {
        let longest = longest_untagged(self.mtu());
        send(&self.socket, burst, set, longest, &self.sent);
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.sent.add_to(&mut sum);
        self.receiver.counters.add_rx(&mut sum);
        // The kernel forgets its count when it has told it.
        let more = sys::packet_socket_drops(&self.socket);
        let overflowed = self.overflowed.fetch_add(more, Relaxed) + more;
        sum.drops[DropReason::RxKernelFull as usize] += overflowed;
        sum.rx_dropped += overflowed;
        sum
    }

    fn wait_for(&self, queue: usize, _waker: &Arc<Waker>) -> Wait {
        match queue {
            0 => Wait::Readable(self.socket.clone()),
            _ => Wait::Quiet,
        }
    }
}

/// `tpacket_auxdata` of packet(7).
#[repr(C)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}
/// Flags of `status`: there was a tag, and its TPID is known (`TP_STATUS_VLAN_VALID`,
/// `TP_STATUS_VLAN_TPID_VALID`).
const TAG: u32 = 1 << 4;
const TPID: u32 = 1 << 6;

/// Room for what the kernel says of a packet besides.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);
const AUXDATA: usize = size_of::<AuxData>();
const CONTROL: usize = size_of::<libc::cmsghdr>() + AUXDATA.next_multiple_of(8);

/// Reads a burst.
fn read(socket: &OwnedFd, slots: &mut [Slot], got: &mut dyn FnMut(usize, &Slot, Got)) {
    let mut pieces = [const { MaybeUninit::<[libc::iovec; 3]>::uninit() }; BURST];
    let mut controls = [const { Control([0; CONTROL]) }; BURST];
    // SAFETY: integers and pointers: zeros are a value.
    let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
    let count = slots.len().min(BURST);
    for i in 0..count {
        let header = &mut messages[i].msg_hdr;
        header.msg_iov = pieces[i].write(slots[i].pieces()).as_mut_ptr();
        header.msg_iovlen = 3;
        header.msg_control = controls[i].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: each message's pieces and control bytes are ours and live until the call returns.
    let n = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            flags,
            std::ptr::null_mut(),
        )
    };
    let n = usize::try_from(n).unwrap_or(0);
    for (i, message) in messages.iter().take(n).enumerate() {
        let tag = tag(&controls[i], message.msg_hdr.msg_controllen);
        got(i, &slots[i], Got { bytes: message.msg_len as usize, tag });
    }
}

/// The tag that the kernel took out of a frame, if it says that it did.
fn tag(control: &Control, len: usize) -> Option<[u8; 4]> {
    let start = size_of::<libc::cmsghdr>();
    if len < start + AUXDATA {
        return None;
    }
    // SAFETY: it is long enough, aligned, and all its fields are integers.
    let header: libc::cmsghdr = unsafe { control.0.as_ptr().cast::<libc::cmsghdr>().read() };
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: as above.
    let aux = unsafe { control.0.as_ptr().add(start).cast::<AuxData>().read() };
    if aux.status & TAG == 0 {
        return None;
    }
    let known = aux.status & TPID != 0;
    let tpid = if known { aux.vlan_tpid } else { 0x8100 };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), aux.vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}
