//! vhost-user on the wire: request numbers, header flags, feature bits and message bodies.
//!
//! Source: the vhost-user protocol specification and virtio 1.3; all integers are little endian on the hosts served here.

use std::fmt;

/// A request number. Any value may be sent, so that unknown requests can be tried on a back end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request(pub u32);

macro_rules! requests {
    ($($name:ident = $number:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the names are the specification's own")]
        impl Request {
            $(pub const $name: Request = Request($number);)*
            fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

requests! {
    GET_FEATURES = 1, SET_FEATURES = 2, SET_OWNER = 3, RESET_OWNER = 4, SET_MEM_TABLE = 5, SET_LOG_BASE = 6, SET_LOG_FD = 7,
    SET_VRING_NUM = 8, SET_VRING_ADDR = 9, SET_VRING_BASE = 10, GET_VRING_BASE = 11, SET_VRING_KICK = 12, SET_VRING_CALL = 13,
    SET_VRING_ERR = 14, GET_PROTOCOL_FEATURES = 15, SET_PROTOCOL_FEATURES = 16, GET_QUEUE_NUM = 17, SET_VRING_ENABLE = 18,
    SEND_RARP = 19, NET_SET_MTU = 20, SET_BACKEND_REQ_FD = 21, IOTLB_MSG = 22, SET_VRING_ENDIAN = 23, GET_CONFIG = 24,
    SET_CONFIG = 25, GET_INFLIGHT_FD = 31, SET_INFLIGHT_FD = 32, RESET_DEVICE = 34, GET_MAX_MEM_SLOTS = 36, ADD_MEM_REG = 37,
    REM_MEM_REG = 38, SET_STATUS = 39, GET_STATUS = 40,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "request {}", self.0),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Protocol version, in the low two bits of a header's flags.
pub const FLAG_VERSION: u32 = 1;
/// This message is a reply.
pub const FLAG_REPLY: u32 = 1 << 2;
/// The sender waits for an acknowledgement (REPLY_ACK).
pub const FLAG_NEED_REPLY: u32 = 1 << 3;
/// Bytes of a message header: request, flags, size.
pub const HEADER_LEN: usize = 12;
/// The largest body accepted from a back end. The largest legal reply is a configuration space of 256 bytes; more is a confused peer.
pub const MAX_BODY: usize = 4096;
/// File descriptors in one message at most: a memory table of 32 regions is the most any back end takes.
pub const MAX_FDS: usize = 32;
/// Regions one SET_MEM_TABLE may carry (specification: 8).
pub const MAX_TABLE_REGIONS: usize = 8;

/// Device feature bits (virtio 1.3, 5.1.3 and 6).
pub mod feature {
    #![allow(missing_docs, reason = "the names are the specification's own")]
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const GUEST_UFO: u64 = 1 << 10;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const MQ: u64 = 1 << 22;
    /// vhost's VHOST_F_LOG_ALL.
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    /// vhost-user's VHOST_USER_F_PROTOCOL_FEATURES.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
    pub const GUEST_USO4: u64 = 1 << 54;
    pub const GUEST_USO6: u64 = 1 << 55;
    pub const HOST_USO: u64 = 1 << 56;

    /// All that a device may be asked to do for the driver.
    pub const HOST_OFFLOADS: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO;
    /// All that a driver may be given.
    pub const GUEST_OFFLOADS: u64 =
        GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;
}

/// Protocol feature bits of vhost-user.
pub mod protocol {
    #![allow(missing_docs, reason = "the names are the specification's own")]
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const RARP: u64 = 1 << 2;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const MTU: u64 = 1 << 4;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
}

/// Device status bits (virtio 1.3, 2.1).
pub mod status {
    #![allow(missing_docs, reason = "the names are the specification's own")]
    pub const ACKNOWLEDGE: u64 = 1;
    pub const DRIVER: u64 = 2;
    pub const DRIVER_OK: u64 = 4;
    pub const FEATURES_OK: u64 = 8;
}

/// Marks a SET_VRING_KICK, CALL or ERR that carries no descriptor.
pub const VRING_NO_FD: u64 = 1 << 8;

/// A body of one 64-bit number.
pub fn u64_body(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// A vring state body: ring index and a number.
pub fn vring_state(index: u32, num: u32) -> Vec<u8> {
    [index.to_le_bytes(), num.to_le_bytes()].concat()
}

/// A ring's place, as SET_VRING_ADDR says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VringAddr {
    /// Ring index.
    pub index: u32,
    /// Bit 0: log writes to the used ring.
    pub flags: u32,
    /// User address of the descriptor table (packed: descriptor ring).
    pub desc: u64,
    /// User address of the used ring (packed: device event suppression).
    pub used: u64,
    /// User address of the available ring (packed: driver event suppression).
    pub avail: u64,
    /// Guest address the used ring is logged at.
    pub log: u64,
}

impl VringAddr {
    /// The body.
    pub fn body(&self) -> Vec<u8> {
        let mut body = vring_state(self.index, self.flags);
        for word in [self.desc, self.used, self.avail, self.log] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body
    }
}

/// A memory region, as SET_MEM_TABLE and ADD_MEM_REG say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemRegion {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes.
    pub size: u64,
    /// The front end's own address, which SET_VRING_ADDR uses.
    pub user_addr: u64,
    /// Where the region begins in its file.
    pub mmap_offset: u64,
}

impl MemRegion {
    fn bytes(&self) -> Vec<u8> {
        [self.gpa, self.size, self.user_addr, self.mmap_offset]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
    /// The body of ADD_MEM_REG and REM_MEM_REG: padding, then the region.
    pub fn single_body(&self) -> Vec<u8> {
        [vec![0; 8], self.bytes()].concat()
    }
}

/// The body of SET_MEM_TABLE: a count, padding, then the regions.
pub fn mem_table(regions: &[MemRegion]) -> Vec<u8> {
    let mut body = vring_state(regions.len() as u32, 0);
    for region in regions {
        body.extend(region.bytes());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_sizes_of_the_specification() {
        let region = MemRegion { gpa: 1, size: 2, user_addr: 3, mmap_offset: 4 };
        assert_eq!(mem_table(&[region, region]).len(), 8 + 2 * 32);
        assert_eq!(region.single_body().len(), 40);
        assert_eq!(region.single_body()[8], 1);
        let addr = VringAddr { index: 7, flags: 1, desc: 2, used: 3, avail: 4, log: 5 };
        assert_eq!(addr.body().len(), 40);
        assert_eq!(
            (addr.body()[0], addr.body()[8], addr.body()[16], addr.body()[24]),
            (7, 2, 3, 4)
        );
        assert_eq!(Request::SET_MEM_TABLE.to_string(), "SET_MEM_TABLE");
        assert_eq!(Request(99).to_string(), "request 99");
    }
}
