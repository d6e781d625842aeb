//! What the kernel says of netdevs, followed through rtnetlink(7).

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::BTreeMap;
use std::io::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::warn;

/// The multicast group of links (`RTMGRP_LINK`).
const LINKS: u32 = 1;
/// Bytes of events that wait before the kernel says that some were lost: those of thousands of netdevs.
const EVENT_BUFFER: usize = 4 << 20;

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
}

/// The netdevs of this network namespace, as they are.
#[derive(Default)]
pub struct Links {
    table: Mutex<BTreeMap<u32, Link>>,
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
        events.bind(&SocketAddr::new(0, LINKS))?;
        // What changes from now on waits at the socket.
        links.ask(None)?;
        let followed = links.clone();
        std::thread::Builder::new().name("links".into()).spawn(move || {
            loop {
                match events.recv_from_full() {
                    Ok((bytes, _)) => followed.take(&mut followed.table(), &bytes, |_| {}),
                    // Events were lost: everything is asked for anew.
                    Err(_) => {
                        if let Err(e) = followed.ask(None) {
                            warn!("netdevs cannot be followed any more: {e}");
                            return;
                        }
                    }
                }
                on_change();
            }
        })?;
        Ok(links)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u32, Link>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The netdev with this index, as far as is known.
    pub fn by_index(&self, index: u32) -> Option<Link> {
        self.table().get(&index).cloned()
    }

    /// The netdev with this name, as far as is known.
    pub fn by_name(&self, name: &str) -> Option<Link> {
        self.table().values().find(|l| l.name == name).cloned()
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
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        match name {
            Some(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
            None => header.flags |= NLM_F_DUMP,
        }
        let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(message));
        let mut request = NetlinkMessage::new(header, payload);
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&bytes, 0)?;
        let before = std::mem::take(&mut *table);
        // Counts of what is heard of again go on.
        table.clone_from(&before);
        let mut heard = Vec::new();
        let mut over = false;
        while !over {
            let (bytes, _) = socket.recv_from_full()?;
            over = name.is_some();
            self.take(&mut table, &bytes, |event| match event {
                Heard::Link(index) => heard.push(index),
                Heard::End => over = true,
            });
        }
        table.retain(|index, link| match name {
            None => heard.contains(index),
            Some(name) => link.name != name || heard.contains(index),
        });
        Ok(())
    }

    /// Takes in messages of the kernel.
    fn take(&self, table: &mut BTreeMap<u32, Link>, bytes: &[u8], mut heard: impl FnMut(Heard)) {
        let mut rest = bytes;
        while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
            let len = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) => {
                    heard(Heard::Link(m.header.index));
                    note(table, &m);
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(m)) => {
                    table.remove(&m.header.index);
                }
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => heard(Heard::End),
                _ => {}
            }
            match rest.get(len.max(16)..) {
                Some(more) if !more.is_empty() => rest = more,
                _ => return,
            }
        }
    }
}

/// What a message was.
enum Heard {
    Link(u32),
    /// Nothing follows.
    End,
}

/// Notes how a netdev is now.
fn note(table: &mut BTreeMap<u32, Link>, m: &LinkMessage) {
    let flags = m.header.flags;
    let before = table.get(&m.header.index);
    let mut link = Link {
        index: m.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        admin_up: flags.contains(LinkFlags::Up),
        link_up: flags.contains(LinkFlags::Running),
        resets: 0,
    };
    for attribute in &m.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(a) => link.mac = a[..].try_into().unwrap_or_default(),
            _ => {}
        }
    }
    // Wireless events are messages about the link too, and say nothing of it.
    if link.name.is_empty() {
        return;
    }
    if let Some(b) = before {
        link.resets = b.resets + u64::from(b.link_up != link.link_up);
    }
    table.insert(link.index, link);
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
