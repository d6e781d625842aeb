//! The XDP program: what a queue receives goes to its socket, if it has one, else to the host.

use crate::sys::{LINK_CREATE, LINK_DETACH, MAP_CREATE, MAP_UPDATE_ELEM, PROG_LOAD, bpf, bpf_fd};
use crate::{Mode, named};
use rustix::fd::{AsRawFd, OwnedFd};
use std::io::Result;

/// `BPF_MAP_TYPE_XSKMAP`, `BPF_PROG_TYPE_XDP`, `BPF_XDP` (linux/bpf.h).
const XSKMAP: u32 = 17;
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (linux/if_link.h).
const GENERIC: u32 = 1 << 1;
const DRIVER: u32 = 1 << 2;
/// `BPF_F_XDP_HAS_FRAGS`: the program does not mind packets in several pieces (Linux 5.18).
const HAS_FRAGMENTS: u32 = 1 << 5;
/// What becomes of a packet whose queue has no socket (`XDP_PASS`).
const PASS: i32 = 2;
/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;
/// The function `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;

/// One instruction: operation, destination and source registers, offset, constant.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

/// `return bpf_redirect_map(&map, context->rx_queue_index, XDP_PASS)`.
fn instructions(map: &OwnedFd) -> [Instruction; 6] {
    let registers = |destination: u8, source: u8| source << 4 | destination;
    [
        // r2 = *(u32 *)(r1 + 16)
        Instruction(0x61, registers(2, 1), RX_QUEUE_INDEX, 0),
        // r1 = map, in two halves
        Instruction(0x18, registers(1, 1), 0, map.as_raw_fd()),
        Instruction(0, 0, 0, 0),
        // r3 = XDP_PASS
        Instruction(0xb7, registers(3, 0), 0, PASS),
        // r0 = bpf_redirect_map(r1, r2, r3)
        Instruction(0x85, 0, 0, REDIRECT_MAP),
        // return r0
        Instruction(0x95, 0, 0, 0),
    ]
}

/// The program as it is attached; it is removed at drop, or with the process.
pub(crate) struct Program {
    map: OwnedFd,
    link: OwnedFd,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Closing the last descriptor does it too, but later.
        let _ = bpf(LINK_DETACH, &[self.link.as_raw_fd().cast_unsigned()]);
    }
}

impl Program {
    /// Attaches it to a netdev.
    pub(crate) fn attach(
        index: u32,
        queues: u32,
        mode: Mode,
        long_frames: bool,
    ) -> Result<Program> {
        // map_type, key_size, value_size, max_entries
        let map = bpf_fd(MAP_CREATE, &[XSKMAP, 4, 4, queues]);
        let map = map.map_err(|e| named(e, "a map of sockets"))?;
        // A kernel that knows no fragments has none.
        let program = match long_frames {
            true => load(&map, HAS_FRAGMENTS).or_else(|_| load(&map, 0)),
            false => load(&map, 0),
        };
        let program = program.map_err(|e| named(e, "loading the XDP program"))?;
        let flags = if mode == Mode::Generic { GENERIC } else { DRIVER };
        // prog_fd, target_ifindex, attach_type, flags
        let attributes = [program.as_raw_fd().cast_unsigned(), index, ATTACH_XDP, flags];
        let link = bpf_fd(LINK_CREATE, &attributes).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => std::io::Error::new(
                std::io::ErrorKind::ResourceBusy,
                "another XDP program is attached to the netdev (`ip link show` names it); it stays",
            ),
            Some(libc::EOPNOTSUPP) => named(e, "the driver has no XDP"),
            _ => named(e, "attaching the XDP program"),
        })?;
        Ok(Program { map, link })
    }

    /// Has a queue's packets go to a socket.
    pub(crate) fn give(&self, queue: u32, socket: &OwnedFd) -> Result<()> {
        #[repr(C)]
        struct Update {
            map: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let value = socket.as_raw_fd();
        let update = Update {
            map: self.map.as_raw_fd().cast_unsigned(),
            key: std::ptr::from_ref(&queue).expose_provenance() as u64,
            value: std::ptr::from_ref(&value).expose_provenance() as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &update).map(drop)
    }
}

fn load(map: &OwnedFd, flags: u32) -> Result<OwnedFd> {
    /// The first attributes of `BPF_PROG_LOAD`, to `expected_attach_type`.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        index: u32,
        attach: u32,
    }
    let instructions = instructions(map);
    let license = c"Apache-2.0";
    let load = Load {
        kind: PROGRAM_XDP,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name: *b"vswitch_xsk\0\0\0\0\0",
        index: 0,
        attach: ATTACH_XDP,
    };
    bpf_fd(PROG_LOAD, &load)
}
