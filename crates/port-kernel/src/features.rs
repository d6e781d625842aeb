//! What a driver can do for XDP programs and AF_XDP sockets, asked of the kernel's generic netlink family `netdev`
//! (Documentation/netlink/specs/netdev.yaml; Linux 6.8 for what is asked here).

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io::{Error, ErrorKind, Result};

/// The family of families, its command to find one, the attributes of that (linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The command that asks for a netdev, and its attributes.
const GET_DEVICE: u8 = 1;
const INDEX: u16 = 1;
const RX_METADATA_FEATURES: u16 = 5;
const XSK_FEATURES: u16 = 6;
/// A driver that tells an XDP program the VLAN tag that it took out of a frame ("vlan-tag").
const VLAN_TAG: u64 = 1 << 2;
/// A driver that completes checksums of what it sends without a copy ("tx-checksum").
const TX_CHECKSUM: u64 = 1 << 1;

/// Bytes of a netlink header, and of one with the generic header behind it.
const HEADER: usize = 16;
const BOTH: usize = HEADER + 4;
/// The type of a message that says an error.
const ERROR: u16 = 2;

/// What the driver of a netdev can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It completes checksums of what AF_XDP sends with zero-copy.
    pub tx_checksum: bool,
    /// It tells XDP programs the VLAN tag that it took out of a frame.
    pub rx_vlan_tag: bool,
}

/// What the driver of the netdev with this index can do for XDP programs and AF_XDP.
///
/// # Errors
/// The kernel's: there is no such netdev, or it is too old to say.
pub fn xdp_features(index: u32) -> Result<XdpFeatures> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let ask = |family, command, attribute, value: &[u8]| {
        socket.send(&question(family, command, attribute, value), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        refused(&answer).map(|()| answer)
    };
    let family = ask(CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
    let family =
        attribute(&family, FAMILY_ID).and_then(|v| Some(u16::from_ne_bytes(*v.first_chunk()?)));
    let family = family.ok_or(ErrorKind::InvalidData)?;
    let device = ask(family, GET_DEVICE, INDEX, &index.to_ne_bytes())?;
    let has = |kind, bit| {
        let bits = attribute(&device, kind).and_then(|v| v.first_chunk());
        bits.is_some_and(|v| u64::from_ne_bytes(*v) & bit != 0)
    };
    Ok(XdpFeatures {
        tx_checksum: has(XSK_FEATURES, TX_CHECKSUM),
        rx_vlan_tag: has(RX_METADATA_FEATURES, VLAN_TAG),
    })
}

/// A request with one attribute.
fn question(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    const VERSION: u8 = 1;
    let attribute_len = 4 + value.len();
    let mut m = vec![0; HEADER];
    m.extend([command, VERSION, 0, 0]);
    m.extend((attribute_len as u16).to_ne_bytes());
    m.extend(attribute.to_ne_bytes());
    m.extend(value);
    m.resize(BOTH + attribute_len.next_multiple_of(4), 0);
    let len = m.len() as u32;
    m[..4].copy_from_slice(&len.to_ne_bytes());
    m[4..6].copy_from_slice(&family.to_ne_bytes());
    m[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    m
}

/// An error if the answer is one.
fn refused(answer: &[u8]) -> Result<()> {
    let kind = answer.get(4..6).and_then(|v| v.first_chunk()).map(|v| u16::from_ne_bytes(*v));
    let code = answer.get(HEADER..).and_then(|v| v.first_chunk()).map(|v| i32::from_ne_bytes(*v));
    match (kind, code) {
        (Some(ERROR), Some(code)) => Err(Error::from_raw_os_error(code.wrapping_neg())),
        (Some(_), Some(_)) => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// The value of an attribute of an answer.
fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = answer.get(BOTH..)?;
    loop {
        let half = |at: usize| Some(u16::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let (len, kind) = (usize::from(half(0)?), half(2)?);
        let value = rest.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_answers_are_not_believed() {
        // A question has the form of an answer.
        let mut answer = question(9, 1, 3, &[7; 5]);
        answer.extend(&question(9, 1, XSK_FEATURES, &TX_CHECKSUM.to_ne_bytes())[BOTH..]);
        assert_eq!(attribute(&answer, 3), Some(&[7; 5][..]));
        assert_eq!(attribute(&answer, XSK_FEATURES), Some(&TX_CHECKSUM.to_ne_bytes()[..]));
        assert_eq!(attribute(&answer, 4), None);
        for len in 0..answer.len() {
            assert_eq!(attribute(&answer[..len], XSK_FEATURES), None, "{len}");
        }
        answer[BOTH..BOTH + 2].fill(0);
        assert_eq!(attribute(&answer, XSK_FEATURES), None, "an attribute without a length");
        assert!(refused(&[0; 8]).is_err());
    }

    #[test]
    fn the_kernel_is_asked() {
        // The loopback has none of it. A kernel without the family says so.
        match xdp_features(1) {
            Ok(can) => assert_eq!(can, XdpFeatures::default()),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOENT), "{e}"),
        }
        assert!(xdp_features(u32::MAX >> 1).is_err());
    }
}
