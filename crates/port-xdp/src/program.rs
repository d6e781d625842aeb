//! The XDP program: what a queue receives goes to its socket, if it has one, else to the host.

use crate::code::{Instruction, to_socket, to_socket_with_tag};
use crate::sys::{LINK_CREATE, LINK_DETACH, MAP_CREATE, MAP_UPDATE_ELEM, PROG_LOAD, bpf, bpf_fd};
use crate::{Config, Mode, named};
use aya_obj::btf::{Btf, BtfKind};
use rustix::fd::{AsRawFd, OwnedFd};
use std::ffi::CStr;
use std::io::{Error, ErrorKind, Result};
use std::sync::OnceLock;

/// `BPF_MAP_TYPE_XSKMAP`, `BPF_PROG_TYPE_XDP`, `BPF_XDP` (linux/bpf.h).
const XSKMAP: u32 = 17;
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (linux/if_link.h).
const GENERIC: u32 = 1 << 1;
const DRIVER: u32 = 1 << 2;
/// `BPF_F_XDP_HAS_FRAGS`: the program does not mind packets in several pieces (Linux 5.18).
const HAS_FRAGMENTS: u32 = 1 << 5;
/// `BPF_F_XDP_DEV_BOUND_ONLY`: the program is for one netdev, and may ask its driver (Linux 6.3).
const ONE_NETDEV: u32 = 1 << 6;

/// The kernel's function that says a frame's tag (Linux 6.8).
const TAG_OF: &str = "bpf_xdp_metadata_rx_vlan_tag";

/// The program as it is attached; it is removed at drop, or with the process.
pub(crate) struct Program {
    map: OwnedFd,
    link: OwnedFd,
    /// Whether it puts back tags that the driver takes out, or why it does not though it was asked for.
    pub(crate) tags: Option<Result<()>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Closing the last descriptor does it too, but later.
        let _ = bpf(LINK_DETACH, &[self.link.as_raw_fd().cast_unsigned()]);
    }
}

impl Program {
    /// Attaches it to a netdev.
    pub(crate) fn attach(config: &Config, mode: Mode) -> Result<Program> {
        // map_type, key_size, value_size, max_entries
        let map = bpf_fd(MAP_CREATE, &[XSKMAP, 4, 4, config.queues as u32]);
        let map = map.map_err(|e| named(e, "a map of sockets"))?;
        let (index, fragments) = (config.index, if config.long_frames { HAS_FRAGMENTS } else { 0 });
        let mut tags = None;
        // Behind the driver nobody can ask it.
        if config.driver_tags && mode != Mode::Generic {
            let loaded = tag_function().and_then(|f| {
                // Linux lets nobody else call its functions, so this one may be had under that license too.
                let license = c"Dual MIT/GPL";
                load(&to_socket_with_tag(&map, f), license, fragments | ONE_NETDEV, index)
            });
            match loaded.and_then(|program| link(&program, index, mode)) {
                Ok(link) => return Ok(Program { map, link, tags: Some(Ok(())) }),
                Err(e) if e.kind() == ErrorKind::ResourceBusy => return Err(e),
                Err(e) => tags = Some(Err(e)),
            }
        }
        let load = |flags| load(&to_socket(&map), c"Apache-2.0", flags, 0);
        // A kernel that knows no fragments has none.
        let program = load(fragments).or_else(|e| if fragments == 0 { Err(e) } else { load(0) });
        let program = program.map_err(|e| named(e, "loading the XDP program"))?;
        let link = link(&program, index, mode)?;
        Ok(Program { map, link, tags })
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

/// The number of the kernel's function that says a frame's tag: it is the same until the next boot.
fn tag_function() -> Result<i32> {
    static NUMBER: OnceLock<std::result::Result<i32, String>> = OnceLock::new();
    let found = NUMBER.get_or_init(|| {
        let found = Btf::from_sys_fs()
            .and_then(|types| types.id_by_type_name_kind(TAG_OF, BtfKind::Func))
            .map_err(|e| format!("the kernel's function {TAG_OF} (Linux 6.8): {e}"))?;
        Ok(found.cast_signed())
    });
    found.clone().map_err(|e| Error::new(ErrorKind::Unsupported, e))
}

/// Attaches a program.
fn link(program: &OwnedFd, index: u32, mode: Mode) -> Result<OwnedFd> {
    let flags = if mode == Mode::Generic { GENERIC } else { DRIVER };
    // prog_fd, target_ifindex, attach_type, flags
    let attributes = [program.as_raw_fd().cast_unsigned(), index, ATTACH_XDP, flags];
    bpf_fd(LINK_CREATE, &attributes).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Error::new(
            ErrorKind::ResourceBusy,
            "another XDP program is attached to the netdev (`ip link show` names it); it stays",
        ),
        Some(libc::EOPNOTSUPP) => named(e, "the driver has no XDP"),
        _ => named(e, "attaching the XDP program"),
    })
}

/// Gives the kernel a program, for the netdev `index` if the flags say that it is for one.
fn load(code: &[Instruction], license: &CStr, flags: u32, index: u32) -> Result<OwnedFd> {
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
    let load = Load {
        kind: PROGRAM_XDP,
        count: code.len() as u32,
        instructions: code.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name: *b"vswitch_xsk\0\0\0\0\0",
        index,
        attach: ATTACH_XDP,
    };
    bpf_fd(PROG_LOAD, &load)
}
