//! What the kernel says of netdevs, followed through rtnetlink(7).

use crate::{TapPort, sys};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::fd::{AsRawFd, OwnedFd};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::warn;

/// The multicast group of links (`RTMGRP_LINK`).
const LINKS: u32 = 1;
/// Bytes of events that wait before the kernel says that some were lost: those of thousands of netdevs.
const EVENT_BUFFER: usize = 4 << 20;
/// Bytes of one event at most; they take one or two thousand, more with a NIC's many virtual functions.
const EVENT_MAX: usize = 256 << 10;

/// A netdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index, which no other has while it exists.
    pub index: u32,
    /// Its name now.
    pub name: String,
    /// Its Ethernet address; zeros if it has none.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The host wants it up (`IFF_UP`).
    pub admin_up: bool,
    /// It has a carrier (`IFF_RUNNING`).
    pub link_up: bool,
    /// Times that the carrier came or went while it was watched.
    pub resets: u64,
    /// The index of a veth's other end, if that is in the same namespace.
    pub other_end: Option<u32>,
}

/// The netdevs of this network namespace, as they are, and those that have moved from here to another.
#[derive(Default)]
pub struct Links {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Those that are here, by index.
    here: BTreeMap<u32, Link>,
    /// Those that have moved, by the index that they had here.
    away: BTreeMap<u32, Away>,
}

/// A netdev in another namespace. Events come from there too. Only of what moves on to a third one they say no more than
/// that it has gone, for what another namespace calls a third says nothing here: it has to be searched for.
struct Away {
    /// The kernel's number for that namespace, in this one.
    namespace: i32,
    /// The netdev's index there.
    index: u32,
    /// As it is there; `None` before anything was heard, and after it has left.
    link: Option<Link>,
}

impl Links {
    /// Reads what there is, and follows it on a thread of its own, which calls `on_change` after each
    /// change.
    ///
    /// # Errors
    /// If the kernel has no rtnetlink, or gives no thread.
    pub fn start(on_change: Box<dyn Fn() + Send>) -> Result<Arc<Links>> {
        let links = Arc::new(Links::default());
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.set_rx_buf_sz(EVENT_BUFFER)?;
        // Of namespaces that a netdev moved to as well; who may not ask for that loses sight of it there.
        let _ = events.set_listen_all_namespaces(true);
        events.bind(&SocketAddr::new(0, LINKS))?;
        // What changes from now on waits at the socket.
        links.ask(None)?;
        let followed = links.clone();
        std::thread::Builder::new().name("links".into()).spawn(move || {
            let mut buffer = vec![0; EVENT_MAX];
            loop {
                match sys::receive_event(&events, &mut buffer) {
                    Ok((bytes, None)) => take(&mut followed.table(), &buffer[..bytes], |_| {}),
                    Ok((bytes, Some(namespace))) => {
                        let bytes = &buffer[..bytes];
                        if !take_from(&mut followed.table(), namespace, bytes) {
                            continue;
                        }
                    }
                    // Events were lost: everything is asked for anew.
                    Err(_) => {
                        if let Err(e) = followed.ask(None) {
                            warn!("netdevs cannot be followed any more: {e}");
                            return;
                        }
                        followed.ask_away();
                    }
                }
                on_change();
            }
        })?;
        Ok(links)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The netdev with this index, as far as is known.
    pub fn by_index(&self, index: u32) -> Option<Link> {
        self.table().here.get(&index).cloned()
    }

    /// The netdev with this name, as far as is known.
    pub fn by_name(&self, name: &str) -> Option<Link> {
        self.table().here.values().find(|l| l.name == name).cloned()
    }

    /// The netdev that had this index here and is in another namespace now, as far as is known.
    pub fn away(&self, index: u32) -> Option<Link> {
        self.table().away.get(&index)?.link.clone()
    }

    /// Whether the netdev that had this index here last is in another namespace. Another may have the index here.
    pub fn is_away(&self, index: u32) -> bool {
        self.table().away.contains_key(&index)
    }

    /// The netdev with this name, asked for now.
    pub fn find(&self, name: &str) -> Option<Link> {
        self.ask(Some(name)).ok()?;
        self.by_name(name)
    }

    /// Asks for one netdev, or for all. Events wait meanwhile, so what is said is never older than what
    /// is known.
    fn ask(&self, name: Option<&str>) -> Result<()> {
        let mut table = self.table();
        let mut message = LinkMessage::default();
        message.attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
        let flags = if name.is_none() { NLM_F_DUMP } else { 0 };
        let socket = request(RouteNetlinkMessage::GetLink(message), flags)?;
        let mut heard = Vec::new();
        let mut over = false;
        while !over {
            let (bytes, _) = socket.recv_from_full()?;
            over = name.is_some();
            take(&mut table, &bytes, |event| match event {
                Heard::Link(index) => heard.push(index),
                Heard::End => over = true,
            });
        }
        table.here.retain(|index, link| match name {
            None => heard.contains(index),
            Some(name) => link.name != name || heard.contains(index),
        });
        Ok(())
    }

    /// Asks for those that have moved away.
    fn ask_away(&self) {
        let mut table = self.table();
        for away in table.away.values_mut() {
            let mut message = LinkMessage::default();
            message.header.index = away.index;
            away.link = ask_there(away.namespace, message, away.link.as_ref());
        }
    }

    /// Searches for a device of our own that is out of sight, having moved on from one namespace to another, and follows it
    /// there. `index` is the one that it had here last; returns the one by which it is known from now on, another if it
    /// came back under that.
    ///
    /// # Errors
    /// The kernel's, or it has moved on meanwhile.
    pub fn search(&self, device: &TapPort, index: u32) -> Result<u32> {
        let (namespace, name) = device.place()?;
        if is_own(&namespace)? {
            let link = self.find(&name).ok_or(ErrorKind::NotFound)?;
            self.table().away.remove(&index);
            return Ok(link.index);
        }
        let namespace = number(&namespace)?;
        // Events from there wait meanwhile.
        let mut table = self.table();
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name));
        let link = ask_there(namespace, message, None).ok_or(ErrorKind::NotFound)?;
        table.away.insert(index, Away { namespace, index: link.index, link: Some(link) });
        Ok(index)
    }
}

/// Whether a namespace is the one that this process is in.
fn is_own(namespace: &OwnedFd) -> Result<bool> {
    let (it, own) = (rustix::fs::fstat(namespace)?, rustix::fs::stat("/proc/thread-self/ns/net")?);
    Ok((it.st_dev, it.st_ino) == (own.st_dev, own.st_ino))
}

/// The kernel's number for a namespace, in this one; it gets one if it has none, for events come only from those that have.
fn number(namespace: &OwnedFd) -> Result<i32> {
    let fd = NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned());
    let mut message = NsidMessage::default();
    message.attributes = vec![fd.clone(), NsidAttribute::Id(-1)];
    // Refused if it has one.
    request(RouteNetlinkMessage::NewNsId(message), NLM_F_ACK)?.recv_from_full()?;
    let mut message = NsidMessage::default();
    message.attributes.push(fd);
    let (answer, _) = request(RouteNetlinkMessage::GetNsId(message), 0)?.recv_from_full()?;
    let mut number = None;
    each(&answer, |payload| {
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(m)) = payload {
            number = m.attributes.iter().find_map(|a| match a {
                NsidAttribute::Id(n) if *n >= 0 => Some(*n),
                _ => None,
            });
        }
    });
    number.ok_or_else(|| ErrorKind::NotFound.into())
}

/// Asks for a netdev of another namespace.
fn ask_there(namespace: i32, mut which: LinkMessage, before: Option<&Link>) -> Option<Link> {
    which.attributes.push(LinkAttribute::IfNetnsId(namespace));
    let socket = request(RouteNetlinkMessage::GetLink(which), 0).ok()?;
    let (answer, _) = socket.recv_from_full().ok()?;
    let mut found = None;
    each(&answer, |payload| {
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) = payload {
            found = link(&m, before);
        }
    });
    found
}

/// Asks the kernel something; the answer comes at the socket.
fn request(message: RouteNetlinkMessage, flags: u16) -> Result<Socket> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let payload = NetlinkPayload::from(message);
    let mut request = NetlinkMessage::new(header, payload);
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    Ok(socket)
}

/// Calls `look` with each message of the kernel in `bytes`.
fn each(bytes: &[u8], mut look: impl FnMut(NetlinkPayload<RouteNetlinkMessage>)) {
    let mut rest = bytes;
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
        let len = (message.header.length as usize).next_multiple_of(4);
        look(message.payload);
        match rest.get(len.max(16)..) {
            Some(more) if !more.is_empty() => rest = more,
            _ => return,
        }
    }
}

/// Takes in messages about this namespace.
fn take(table: &mut Table, bytes: &[u8], mut heard: impl FnMut(Heard)) {
    each(bytes, |payload| match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) => {
            heard(Heard::Link(m.header.index));
            note(&mut table.here, &m);
            // It is back; as long as it is seen elsewhere, another has its index.
            let index = m.header.index;
            if table.here.contains_key(&index)
                && table.away.get(&index).is_some_and(|away| away.link.is_none())
            {
                table.away.remove(&index);
            }
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(m)) => {
            let link = table.here.remove(&m.header.index);
            match moved_to(&m) {
                // What comes of it there is said next.
                Some((namespace, index)) => {
                    table.away.insert(m.header.index, Away { namespace, index, link })
                }
                None => table.away.remove(&m.header.index),
            };
        }
        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => heard(Heard::End),
        _ => {}
    });
}

/// Takes in messages about another namespace; true if they were about a netdev that has moved there.
fn take_from(table: &mut Table, namespace: i32, bytes: &[u8]) -> bool {
    let mut ours = false;
    each(bytes, |payload| {
        let (m, gone) = match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) => (m, false),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(m)) => (m, true),
            _ => return,
        };
        let it = |a: &&mut Away| (a.namespace, a.index) == (namespace, m.header.index);
        let Some(away) = table.away.values_mut().find(it) else { return };
        away.link = if gone { None } else { link(&m, away.link.as_ref()).or(away.link.take()) };
        ours = true;
    });
    ours
}

/// The namespace that a netdev has moved to, and its index there.
fn moved_to(m: &LinkMessage) -> Option<(i32, u32)> {
    let namespace = m.attributes.iter().find_map(|a| match a {
        LinkAttribute::NewNetnsId(n) => Some(*n),
        _ => None,
    })?;
    let index = m.attributes.iter().find_map(|a| match a {
        LinkAttribute::NewIfIndex(i) => u32::try_from(*i).ok(),
        _ => None,
    });
    Some((namespace, index.unwrap_or(m.header.index)))
}

/// What a message was.
enum Heard {
    Link(u32),
    /// Nothing follows.
    End,
}

/// Notes how a netdev is now.
fn note(table: &mut BTreeMap<u32, Link>, m: &LinkMessage) {
    if let Some(link) = link(m, table.get(&m.header.index)) {
        table.insert(link.index, link);
    }
}

/// A netdev as a message has it; `None` if it says nothing of it, as wireless events.
fn link(m: &LinkMessage, before: Option<&Link>) -> Option<Link> {
    let flags = m.header.flags;
    let mut link = Link {
        index: m.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        admin_up: flags.contains(LinkFlags::Up),
        link_up: flags.contains(LinkFlags::Running),
        resets: 0,
        other_end: None,
    };
    let is_veth = |info: &[LinkInfo]| info.contains(&LinkInfo::Kind(InfoKind::Veth));
    let (mut veth, mut elsewhere) = (false, false);
    for attribute in &m.attributes {
        match attribute {
            LinkAttribute::Link(index) => link.other_end = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(info) => veth = is_veth(info),
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(a) => link.mac = a[..].try_into().unwrap_or_default(),
            _ => {}
        }
    }
    if link.name.is_empty() {
        return None;
    }
    // Others have what they are on top of there.
    link.other_end.take_if(|_| !veth || elsewhere);
    if let Some(b) = before {
        link.resets = b.resets + u64::from(b.link_up != link.link_up);
    }
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_and_nothing_else_by_its_name() {
        let links = Links::start(Box::new(|| {})).expect("rtnetlink");
        let lo = links.by_name("lo").expect("every namespace has one");
        assert_eq!(links.find("lo"), Some(lo.clone()));
        assert_eq!(links.by_index(lo.index), Some(lo));
        assert_eq!(links.find("no-such-netdev"), None);
    }

    #[test]
    fn carriers_are_counted() {
        let mut table = BTreeMap::new();
        let mut m = LinkMessage::default();
        m.header.index = 7;
        m.attributes.push(LinkAttribute::IfName("p1".into()));
        for (flags, up, resets) in [
            (LinkFlags::Up, false, 0),
            (LinkFlags::Running, true, 1),
            (LinkFlags::Running, true, 1),
        ] {
            m.header.flags = flags;
            note(&mut table, &m);
            assert_eq!((table[&7].link_up, table[&7].resets), (up, resets));
        }
    }
}
