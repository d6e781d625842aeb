//! Stands between a vhost-user front end that connects and its back end, and withholds features from the front end that it
//! would pass on to its guest without being able to serve them.
//!
//! QEMU serves the control queue of virtio-net itself, so back ends offer what goes with it; user-mode Linux leaves that
//! queue to the back end too, and its guest would wait for an answer for ever. Of packed rings it says that they begin at
//! 0 with a wrap counter of 0, where virtio has them begin with 1: OVS-DPDK then waits for ever.

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::switch::{SocketMode, VhostPort};

/// Of virtio-net, all that goes with its control queue: guest offloads, the queue itself, receive modes, VLANs, extra
/// modes, announcements, queue pairs, MAC addresses. And packed rings.
const WITHHELD: u64 = 1 << 2 | 0b111_1111 << 17 | 1 << 34;
/// The request of which the answer is changed, the message's number.
const GET_FEATURES: u32 = 1;
/// Bytes of a message's header: request, flags, bytes of the body.
const HEADER: usize = 12;
/// Descriptors of a message at most.
const FDS: usize = 8;

/// Has a front end that will connect to `front` talk to a port's back end. It goes on in threads of its own until one of
/// them closes its connection.
pub fn start(front: &Path, port: &VhostPort) -> Result<()> {
    let listen = |at: &Path| {
        UnixListener::bind(at).with_context(|| format!("cannot listen on {}", at.display()))
    };
    let listener = listen(front)?;
    let back = match port.mode {
        SocketMode::SwitchConnects => Some(listen(&port.socket)?),
        SocketMode::SwitchListens => None,
    };
    let socket = port.socket.clone();
    thread::spawn(move || -> Result<()> {
        let (front, _) = listener.accept()?;
        let back = match back {
            Some(listener) => listener.accept()?.0,
            None => UnixStream::connect(socket)?,
        };
        let (from, to) = (back.try_clone()?, front.try_clone()?);
        thread::spawn(move || pass_on(from, to, true));
        pass_on(front, back, false);
        Ok(())
    });
    Ok(())
}

/// Passes messages on until there are no more, and ends both connections.
fn pass_on(mut from: UnixStream, to: UnixStream, answers: bool) {
    while let Ok(Some(())) = pass_one(&mut from, &to, answers) {}
    for end in [from, to] {
        let _ = end.shutdown(std::net::Shutdown::Both);
    }
}

/// None at the end.
fn pass_one(from: &mut UnixStream, to: &UnixStream, answers: bool) -> Result<Option<()>> {
    let mut message = vec![0; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let read = recvmsg(&*from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if read == 0 {
        return Ok(None);
    }
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    from.read_exact(&mut message[read..])?;
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| message[at + i]));
    let (request, body) = (word(0), word(8) as usize);
    message.resize(HEADER + body, 0);
    from.read_exact(&mut message[HEADER..])?;
    if answers && request == GET_FEATURES {
        let body: [u8; 8] = message[HEADER..].try_into().context("features of another size")?;
        let left = u64::from_ne_bytes(body) & !WITHHELD;
        message[HEADER..].copy_from_slice(&left.to_ne_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    // These messages are small: a stream takes one whole.
    sendmsg(to, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(Some(()))
}
