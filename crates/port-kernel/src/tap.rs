//! Devices that the switch makes in the host: `internal`, `tap`, and bridges' own ports.

use crate::receive::{Got, Receiver, Slot};
use crate::send::{Sent, send};
use crate::{MAX_TAP_QUEUES, sys};
use packet::{Abilities, Burst, BurstBuf, DropReason, Set, longest_untagged};
use port::{Counters, Port, Wait, Waker};
use rustix::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// One queue of the device.
struct Queue {
    fd: Arc<OwnedFd>,
    receiver: Receiver,
}

/// A tap device, which goes with the last reference to it.
pub struct TapPort {
    name: String,
    queues: Vec<Queue>,
    mtu: AtomicU32,
    /// The host has it up, as far as is known.
    up: AtomicBool,
    sent: Sent,
}

impl TapPort {
    /// Makes the device, down, with `queues` queues, 1 to [`MAX_TAP_QUEUES`]. The host may leave to do in
    /// its frames what `abilities` says.
    ///
    /// # Errors
    /// If a netdev has the name, or this process may not make one.
    pub fn open(
        name: &str,
        queues: usize,
        mtu: u32,
        abilities: Abilities,
    ) -> std::io::Result<TapPort> {
        let mut open = Vec::new();
        for queue in 0..queues.clamp(1, MAX_TAP_QUEUES) {
            let fd = Arc::new(sys::open_tap(name, queue == 0)?);
            open.push(Queue { fd, receiver: Receiver::new(false) });
        }
        let (mtu, sent) = (AtomicU32::new(mtu), Sent::default());
        let up = AtomicBool::new(true);
        let port = TapPort { name: name.to_owned(), queues: open, mtu, up, sent };
        port.set_abilities(abilities);
        Ok(port)
    }

    /// Says whether the host has the device up: what is sent to one that is down is dropped without asking
    /// the kernel, so that a bridge's own port that nobody uses costs floods no system call.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// Changes what the host may leave to do in frames that it sends from now on.
    pub fn set_abilities(&self, abilities: Abilities) {
        let flag = |ability, flag| if abilities.has(ability) { flag } else { 0 };
        let flags = flag(Abilities::CSUM, libc::TUN_F_CSUM)
            | flag(Abilities::TSO4, libc::TUN_F_TSO4)
            | flag(Abilities::TSO6, libc::TUN_F_TSO6)
            | flag(Abilities::ECN, libc::TUN_F_TSO_ECN);
        let udp = flag(Abilities::USO, libc::TUN_F_USO4 | libc::TUN_F_USO6);
        // One queue speaks for the device.
        let Some(queue) = self.queues.first() else { return };
        let done = sys::set_tap_offload(&queue.fd, flags | udp);
        // Before Linux 6.2 there are no super-frames of UDP.
        if let Err(e) = done.or_else(|_| sys::set_tap_offload(&queue.fd, flags)) {
            tracing::warn!("{}: the host cannot be offered offloads: {e}", self.name);
        }
    }

    /// The device's Ethernet address, also if it has moved to another namespace.
    pub fn mac(&self) -> Option<[u8; 6]> {
        sys::tap_mac(&self.queues.first()?.fd)
    }

    /// The namespace that the device is in, and its name there.
    ///
    /// # Errors
    /// The kernel's, before Linux 5.3.
    pub(crate) fn place(&self) -> std::io::Result<(OwnedFd, String)> {
        let queue = self.queues.first().ok_or(std::io::ErrorKind::NotFound)?;
        sys::tap_place(&queue.fd)
    }

    /// The longest IP packet that is sent, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Relaxed)
    }

    /// Changes what [`TapPort::mtu`] says; the device's own is the host's affair.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Relaxed);
    }
}

impl Port for TapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx_queues(&self) -> usize {
        self.queues.len()
    }

    fn rx<'b>(&'b self, queue: usize, buf: &'b mut BurstBuf) -> Option<Burst<'b>> {
        let queue = self.queues.get(queue)?;
        queue.receiver.rx(buf, |slots, got| read(&queue.fd, slots, got))
    }

    fn tx(&self, thread: usize, burst: &mut Burst<'_>, set: Set) {
        let longest = longest_untagged(self.mtu());
        match self.queues.get(thread % self.queues.len().max(1)) {
            Some(queue) if self.up.load(Relaxed) => {
                send(&queue.fd, burst, set, longest, &self.sent)
            }
            _ => self.sent.dropped(DropReason::TxNoQueue, set.len() as u64),
        }
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.sent.add_to(&mut sum);
        for queue in &self.queues {
            queue.receiver.counters.add_rx(&mut sum);
        }
        sum
    }

    fn wait_for(&self, queue: usize, _waker: &Arc<Waker>) -> Wait {
        self.queues.get(queue).map_or(Wait::Quiet, |q| Wait::Readable(q.fd.clone()))
    }
}

/// Reads frames until there are no more, or no slots.
fn read(fd: &OwnedFd, slots: &mut [Slot], got: &mut dyn FnMut(usize, &Slot, Got)) {
    for (i, slot) in slots.iter_mut().enumerate() {
        let pieces = slot.pieces();
        // SAFETY: the pieces are the slot's, writable and borrowed until the call returns.
        let n = unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) };
        match usize::try_from(n) {
            Ok(bytes) if bytes > 0 => got(i, slot, Got { bytes, tag: None }),
            _ => return,
        }
    }
}
