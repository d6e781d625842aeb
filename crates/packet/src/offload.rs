//! Per-packet offload metadata: what a sender left for somebody later to do.

/// Offload state of one packet, in the terms of the virtio-net header (virtio 1.3, 5.1.6).
///
/// Ports that announce no offload feature produce and accept only the default value. Checksum and
/// segmentation offload will fill the fields; every packet carries them from the start so that the
/// packet's shape does not change then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offload {
    /// `VIRTIO_NET_HDR_F_*`: 1 needs checksum, 2 data valid.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`: 0 none, 1 TCPv4, 4 TCPv6, 5 UDP_L4, 0x80 ECN.
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and transport headers.
    pub hdr_len: u16,
    /// Payload bytes of each segment to be made.
    pub gso_size: u16,
    /// Where checksumming starts, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is stored, in bytes after `csum_start`.
    pub csum_offset: u16,
}

impl Offload {
    /// The frame became `n` bytes longer in front of what is to be checksummed.
    pub(crate) fn shift(&mut self, n: i32) {
        if !self.is_none() {
            let moved = |at: u16| (i32::from(at) + n).clamp(0, i32::from(u16::MAX)) as u16;
            self.hdr_len = moved(self.hdr_len);
            self.csum_start = moved(self.csum_start);
        }
    }

    /// True if nothing is left to do for this packet.
    pub fn is_none(&self) -> bool {
        self.flags == 0 && self.gso_type == 0
    }
}
