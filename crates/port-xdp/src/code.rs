//! The XDP program's instructions (Documentation/bpf/standardization/instruction-set.rst), in two forms: one that gives a
//! packet to its queue's socket, and one that puts the VLAN tag back before, where the driver has taken that out.
//!
//! The tag is put into the frame itself and not left in front of it as metadata: so what is received needs no second look,
//! and no bytes that were left in a frame's headroom by another packet can be taken for a tag.

use rustix::fd::{AsRawFd, OwnedFd};

/// What becomes of a packet: an error, which drivers count and the tracepoint `xdp_exception` tells, or it goes to the host
/// (`XDP_ABORTED`, `XDP_PASS`).
const ABORTED: i32 = 0;
const PASS: i32 = 2;
/// Offsets in `struct xdp_md`: of the frame's first byte, of its end, of the queue's number.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;
/// Functions: `bpf_map_lookup_elem`, `bpf_xdp_adjust_head`, `bpf_redirect_map`.
const MAP_LOOKUP: i32 = 1;
const ADJUST_HEAD: i32 = 44;
const REDIRECT_MAP: i32 = 51;
/// Source of a call of a function of the kernel that is no helper (`BPF_PSEUDO_KFUNC_CALL`).
const KERNEL_FUNCTION: u8 = 2;

/// One instruction: operation, destination and source registers, offset, constant.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Instruction(u8, u8, i16, i32);

/// Operations: registers are numbers, memory is a register and an offset.
const fn set(to: u8, constant: i32) -> Instruction {
    Instruction(0xb7, to, 0, constant)
}
const fn copy(to: u8, from: u8) -> Instruction {
    Instruction(0xbf, from << 4 | to, 0, 0)
}
const fn add(to: u8, constant: i32) -> Instruction {
    Instruction(0x07, to, 0, constant)
}
const fn load32(to: u8, from: (u8, i16)) -> Instruction {
    Instruction(0x61, from.0 << 4 | to, from.1, 0)
}
const fn load16(to: u8, from: (u8, i16)) -> Instruction {
    Instruction(0x69, from.0 << 4 | to, from.1, 0)
}
const fn store32(to: (u8, i16), from: u8) -> Instruction {
    Instruction(0x63, from << 4 | to.0, to.1, 0)
}
const fn store16(to: (u8, i16), from: u8) -> Instruction {
    Instruction(0x6b, from << 4 | to.0, to.1, 0)
}
const fn call(function: i32) -> Instruction {
    Instruction(0x85, 0, 0, function)
}
/// Makes 16 bits big-endian.
const fn big_endian16(register: u8) -> Instruction {
    Instruction(0xdc, register, 0, 16)
}
/// `map` in a register: two instructions.
fn map_in(to: u8, map: &OwnedFd) -> [Instruction; 2] {
    [Instruction(0x18, 1 << 4 | to, 0, map.as_raw_fd()), Instruction(0, 0, 0, 0)]
}
const RETURN: Instruction = Instruction(0x95, 0, 0, 0);
/// Jumps over so many instructions: always, if a register is 0, if it is not, if one is above another.
const fn skip(n: usize) -> Instruction {
    Instruction(0x05, 0, n as i16, 0)
}
const fn skip_if_zero(register: u8, n: usize) -> Instruction {
    Instruction(0x15, register, n as i16, 0)
}
const fn skip_unless_zero(register: u8, n: usize) -> Instruction {
    Instruction(0x55, register, n as i16, 0)
}
const fn skip_if_above(register: u8, other: u8, n: usize) -> Instruction {
    Instruction(0x2d, other << 4 | register, n as i16, 0)
}

/// `return bpf_redirect_map(&map, context->rx_queue_index, XDP_PASS)`.
pub(crate) fn to_socket(map: &OwnedFd) -> Vec<Instruction> {
    let [low, high] = map_in(1, map);
    let queue = load32(2, (1, RX_QUEUE_INDEX));
    vec![queue, low, high, set(3, PASS), call(REDIRECT_MAP), RETURN]
}

/// The same, with the tag that the driver has taken out put back. `tag_of` is the number of the kernel's function
/// `bpf_xdp_metadata_rx_vlan_tag`. Only what goes to a socket is changed: the host finds the tag beside the frame. A frame
/// that has a tag and no room for it is dropped: without, it would belong to another network.
pub(crate) fn to_socket_with_tag(map: &OwnedFd, tag_of: i32) -> Vec<Instruction> {
    // Register 6 is the context; on the stack are the tag, which is written into four bytes there, and the queue.
    const CONTEXT: u8 = 6;
    const STACK: u8 = 10;
    const TPID: i16 = -8;
    const TCI: i16 = -6;
    const QUEUE: i16 = -4;
    let [low, high] = map_in(1, map);
    // The tag and where it goes, behind both addresses; until then register 2 is the frame, as it is to begin.
    let write_tag = [
        load32(4, (2, 4)),
        store32((2, 0), 4),
        load32(4, (2, 8)),
        store32((2, 4), 4),
        load32(4, (2, 12)),
        store32((2, 8), 4),
        load16(4, (STACK, TPID)),
        store16((2, 12), 4),
        load16(4, (STACK, TCI)),
        big_endian16(4),
        store16((2, 14), 4),
        // What is changed must not get to the host, should the socket go meanwhile.
        set(3, ABORTED),
    ];
    let give = [low, high, load32(2, (CONTEXT, RX_QUEUE_INDEX)), call(REDIRECT_MAP), RETURN];
    let abort = [set(0, ABORTED), RETURN];
    // From behind `write_tag` to `abort`: a jump and `PASS` are between it and `give`.
    let to_abort = 2 + give.len();
    let make_room = [
        copy(1, CONTEXT),
        set(2, -4),
        call(ADJUST_HEAD),
        skip_unless_zero(0, 5 + write_tag.len() + to_abort),
        load32(2, (CONTEXT, DATA)),
        load32(3, (CONTEXT, DATA_END)),
        copy(4, 2),
        add(4, 18),
        skip_if_above(4, 3, write_tag.len() + to_abort),
    ];
    // From behind `make_room` to `PASS`.
    let to_pass = write_tag.len() + 1;
    let find_socket = [
        load32(2, (CONTEXT, RX_QUEUE_INDEX)),
        store32((STACK, QUEUE), 2),
        copy(2, STACK),
        add(2, i32::from(QUEUE)),
        low,
        high,
        call(MAP_LOOKUP),
        skip_if_zero(0, make_room.len() + to_pass),
    ];
    let find_tag = [
        copy(CONTEXT, 1),
        set(3, 0),
        store32((STACK, TPID), 3),
        copy(2, STACK),
        add(2, i32::from(TPID)),
        copy(3, STACK),
        add(3, i32::from(TCI)),
        Instruction(0x85, KERNEL_FUNCTION << 4, 0, tag_of),
        skip_unless_zero(0, find_socket.len() + make_room.len() + to_pass),
    ];
    let pass = [skip(1), set(3, PASS)];
    [&find_tag[..], &find_socket, &make_room, &write_tag, &pass, &give, &abort].concat()
}
