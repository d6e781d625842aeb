//! Opening a queue: its socket, rings and frames.

use crate::alarm::Alarm;
use crate::queue::{Claim, METADATA, Queue, RX_PARTS, Rx, Tx};
use crate::ring::Ring;
use crate::shared::{Asked, Memory, Terms};
use crate::sys::{self, Offsets};
use crate::umem::{FRAME, Umem};
use crate::{Config, Mode, named};
use packet::BURST;
use rustix::fd::OwnedFd;
use std::io::{Error, ErrorKind, Result};

/// `XDP_USE_SG`, a flag of bind: packets may be in several frames (linux/if_xdp.h; Linux 6.6).
const USE_PARTS: u16 = 1 << 4;

/// Gives the kernel the frames; those sent have `metadata` bytes in front (Linux 6.8).
fn register(socket: &OwnedFd, umem: &Umem, metadata: usize) -> Result<()> {
    let area = libc::xdp_umem_reg {
        addr: umem.base(),
        len: umem.bytes() as u64,
        chunk_size: FRAME as u32,
        headroom: 0,
        flags: if metadata > 0 { libc::XDP_UMEM_TX_METADATA_LEN } else { 0 },
        tx_metadata_len: metadata as u32,
    };
    sys::set(socket, libc::XDP_UMEM_REG, &area).map_err(|e| match e.raw_os_error() {
        // As `mmap` has it.
        Some(libc::ENOBUFS) => Error::new(ErrorKind::OutOfMemory, e),
        _ => e,
    })
}

/// As [`register`], with room for metadata if the kernel knows that; returns its bytes.
fn register_for(socket: &OwnedFd, umem: &Umem, csum: bool) -> Result<usize> {
    if csum && register(socket, umem, METADATA).is_ok() {
        return Ok(METADATA);
    }
    let locked = "frames cannot be locked in memory (limit of locked memory: ulimit -l)";
    register(socket, umem, 0).map_err(|e| named(e, locked))?;
    Ok(0)
}

/// Receive frames of a queue: those in the receive ring, and those that are out.
fn fill_size(config: &Config) -> u32 {
    config.rx_size * 2
}

impl Queue {
    /// Opens queue `number` of a netdev, with frames of its own if it can have none of those that are shared.
    pub(crate) fn open(config: &Config, number: u32, mode: Mode) -> Result<Queue> {
        let zero_copy = mode == Mode::ZeroCopy;
        let csum = config.tx_csum && (!zero_copy || config.driver_csum);
        let asked = Asked { zero_copy, csum, long_frames: config.long_frames };
        let frames = (fill_size(config) + config.tx_size) as usize;
        let mut why = None;
        if let Some(shared) = &config.shared {
            let mut turn = shared.turn();
            match shared.take(&mut turn, frames, asked) {
                Err(e) => why = Some(e),
                Ok(memory) => {
                    let first = memory.joined.is_none();
                    match Queue::open_with(config, number, mode, asked, memory) {
                        // What the first of an area is refused has to do with the queue.
                        Err(e) if !first && e.kind() != ErrorKind::ResourceBusy => {
                            why = Some(e.to_string());
                        }
                        opened => return opened,
                    }
                }
            }
        }
        let memory = Memory::own(frames).map_err(|e| named(e, "memory for frames"))?;
        let queue = Queue::open_with(config, number, mode, asked, memory)?;
        Ok(Queue { unshared: why, ..queue })
    }

    fn open_with(
        config: &Config,
        number: u32,
        mode: Mode,
        asked: Asked,
        memory: Memory,
    ) -> Result<Queue> {
        let Memory { umem, frames, share, joined } = memory;
        let socket = sys::socket().map_err(|e| named(e, "a socket"))?;
        let metadata = match &joined {
            Some((_, terms)) => terms.metadata,
            None => register_for(&socket, &umem, asked.csum)?,
        };
        let (rx, tx) = rings(&socket, config, &frames)?;
        let parts = match &joined {
            Some((others, terms)) => {
                // One whose netdev is about to go has it no more.
                let join = |other| sys::bind_as(&socket, config.index, number, other);
                let unbound = Err(ErrorKind::NotConnected.into());
                others.iter().fold(unbound, |done, other| done.or_else(|_| join(other)))?;
                terms.parts
            }
            None => bind(&socket, config, number, asked.zero_copy)?,
        };
        // From now on the kernel has the frames for longer than the socket.
        if let Some(share) = &share {
            share.bound(&socket, asked, Terms { metadata, parts })?;
        }
        if config.busy_poll {
            let needs = "busy polling (options:xdp-busy-poll) needs Linux 5.11 and CAP_NET_ADMIN";
            sys::prefer_busy_poll(&socket).map_err(|e| named(e, needs))?;
        }
        let repair = config.csum_repair.unwrap_or(mode != Mode::ZeroCopy);
        let (received, sent) = Default::default();
        Ok(Queue {
            rx: Claim::new(rx),
            tx: Claim::new(tx),
            socket,
            alarm: Alarm::new()?,
            share,
            umem,
            unshared: None,
            metadata,
            parts,
            repair,
            gro: config.gro,
            busy_poll: config.busy_poll,
            received,
            sent,
        })
    }
}

/// Makes a socket's rings; the kernel may receive into the first frames.
fn rings(socket: &OwnedFd, config: &Config, frames: &[u64]) -> Result<(Rx, Tx)> {
    let (rx_size, tx_size, fill_size) = (config.rx_size, config.tx_size, fill_size(config));
    for (option, size) in [
        (libc::XDP_UMEM_FILL_RING, fill_size),
        (libc::XDP_UMEM_COMPLETION_RING, tx_size),
        (libc::XDP_RX_RING, rx_size),
        (libc::XDP_TX_RING, tx_size),
    ] {
        sys::set(socket, option, &size).map_err(|e| named(e, "a ring"))?;
    }
    let offsets: Offsets = sys::get(socket, libc::XDP_MMAP_OFFSETS)?;
    let mut fill = Ring::map(socket, libc::XDP_UMEM_PGOFF_FILL_RING, fill_size, offsets.fill)?;
    let at = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
    let completion = Ring::map(socket, at, tx_size, offsets.completion)?;
    let (received, free) = frames.split_at(fill_size as usize);
    for &frame in received {
        fill.push(frame);
    }
    fill.publish();
    let ring = Ring::map(socket, libc::XDP_PGOFF_RX_RING as u64, rx_size, offsets.rx)?;
    let rx = Rx { ring, fill, lent: Vec::with_capacity(BURST + RX_PARTS) };
    let ring = Ring::map(socket, libc::XDP_PGOFF_TX_RING as u64, tx_size, offsets.tx)?;
    let (free, waiting) = (free.to_vec(), Vec::with_capacity(tx_size as usize));
    let tx = Tx { ring, completion, free, waiting };
    Ok((rx, tx))
}

/// Binds a socket that has frames to a queue. True if packets may be in several.
fn bind(socket: &OwnedFd, config: &Config, number: u32, zero_copy: bool) -> Result<bool> {
    let copy = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
    let flags = copy | libc::XDP_USE_NEED_WAKEUP;
    let bind = |more| sys::bind(socket, config.index, number, flags | more);
    // Older kernels do not know the flag, and not every driver can do it.
    let parts = config.long_frames && bind(USE_PARTS).is_ok();
    if !parts {
        bind(0)?;
    }
    Ok(parts)
}
