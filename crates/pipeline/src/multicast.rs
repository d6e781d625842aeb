//! Multicast under NORMAL where it is snooped: packets go to the ports that asked for their group, and to
//! those that all of it goes to (RFC 4541; ovs-vswitchd.conf.db(5), `mcast_snooping_enable`).
//!
//! What says who wants what (IGMP, MLD) is beyond a packet's key. So translation, which stays without
//! side effects, has the datapath show each such packet to [`Snapshot::snoop`].

use crate::bridge::{BridgeId, SharedMdb};
use crate::core::Snapshot;
use crate::mdb::{Group, Heard};
use crate::membership::{IGMP_QUERY, MLD_QUERY, Said, is_igmp_report, is_mld, read};
use crate::normal_tags::Inside;
use crate::port::Port;
use crate::walk::Walk;
use flow::{Action as Step, FlowKey, Snoop, ether_type, ip_proto};
use openflow::OfPort;
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::big_endian::{U16, U32};

/// Groups that are for everybody on the link: 224.0.0.0/24, where not all say what they want (RFC 4541,
/// 2.1.2), and ff02::1, which nobody joins (RFC 3810, 6).
fn is_for_all(address: Ipv6Addr) -> bool {
    match address.to_ipv4_mapped() {
        Some(address) => address.octets()[..3] == [224, 0, 0],
        None => address == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    }
}

/// What a packet is to snooping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Hosts say what they want, which only routers need to hear.
    Report,
    /// Routers ask, which all hear.
    Query,
    /// Another message of IGMP, which all hear and nothing is learned from.
    Other,
    /// For a group.
    Data(Ipv6Addr),
}

impl Walk<'_> {
    /// Forwards a packet of IP to a multicast address.
    pub fn multicast(&mut self, mdb: &SharedMdb, inside: &Inside) {
        let kind = self.multicast_kind();
        if matches!(kind, Kind::Report | Kind::Query) {
            self.show_to_snooping(inside.vlan);
        }
        let group = match kind {
            Kind::Report => None,
            Kind::Query | Kind::Other => {
                self.detail("multicast traffic, flooding");
                return self.flood_vlan(inside);
            }
            Kind::Data(address) if is_for_all(address) => {
                self.detail("RFC4541: section 2.1.2, item 2, flooding");
                return self.flood_vlan(inside);
            }
            Kind::Data(address) => Some(Group { vlan: inside.vlan, address }),
        };
        let (members, routers) = {
            let mdb = mdb.lock();
            let members = group.map(|g| mdb.members(g).map(<[_]>::to_vec));
            (members, mdb.routers(inside.vlan).to_vec())
        };
        let floods = self.bridge.config.snooping.is_some_and(|s| s.flood_unregistered);
        if members == Some(None) && floods {
            self.detail("unregistered multicast, flooding");
            return self.flood_vlan(inside);
        }
        let members = members.flatten().unwrap_or_default();
        let (bridge, from) = (self.bridge, self.in_port());
        let is_one = |heard: &[Heard], port: &Port| heard.iter().any(|h| h.port == port.id);
        for port in bridge.ports.by_number.values().filter(|p| p.number != from) {
            let (flagged, as_flagged) = match kind {
                Kind::Report => {
                    (port.config.mcast_flood_reports, "forwarding report to mcast flagged port")
                }
                _ => (port.config.mcast_flood, "forwarding to mcast flood port"),
            };
            // Members and routers sent in this VLAN themselves.
            let why = if is_one(&members, port) {
                "forwarding to mcast group port"
            } else if is_one(&routers, port) {
                "forwarding to mcast router port"
            } else if flagged && inside.reaches(&mut self.h, &port.config) {
                as_flagged
            } else {
                continue;
            };
            if !bridge.is_mirror_output(port.number) {
                self.detail(why);
                self.forward(inside, port);
            }
        }
    }

    fn multicast_kind(&mut self) -> Kind {
        self.h.depend(&FlowKey { nw_proto: 0xff, ..FlowKey::default() });
        let (dl_type, proto) = (self.h.dl_type(), self.h.pkt().nw_proto);
        if matches!((dl_type, proto), (ether_type::IPV4, ip_proto::IGMP)) {
            return match self.message_type() {
                kind if is_igmp_report(kind) => Kind::Report,
                IGMP_QUERY => Kind::Query,
                _ => Kind::Other,
            };
        }
        if matches!((dl_type, proto), (ether_type::IPV6, ip_proto::ICMPV6)) {
            match self.message_type() {
                MLD_QUERY => return Kind::Query,
                kind if is_mld(kind) => return Kind::Report,
                _ => {}
            }
        }
        let all = U32::new(u32::MAX);
        if dl_type == ether_type::IPV4 {
            self.h.depend(&FlowKey { nw_dst: all, ..FlowKey::default() });
            return Kind::Data(Ipv4Addr::from(self.h.pkt().nw_dst.get()).to_ipv6_mapped());
        }
        self.h.depend(&FlowKey { ipv6_dst: [0xff; 16], ..FlowKey::default() });
        Kind::Data(self.h.pkt().ipv6_dst.into())
    }

    /// The type of an IGMP or ICMPv6 message.
    fn message_type(&mut self) -> u16 {
        self.h.depend(&FlowKey { tp_src: U16::new(u16::MAX), ..FlowKey::default() });
        self.h.pkt().tp_src.get()
    }

    /// Has each such packet shown to [`Snapshot::snoop`], unless it came in by no port.
    fn show_to_snooping(&mut self, vlan: u16) {
        let port = self.in_port();
        if self.port(port).is_some() {
            let snoop = Snoop { bridge: self.bridge.id.0, port: port.0, vlan };
            self.out.push(Step::Snoop(snoop));
        }
    }
}

impl Snapshot {
    /// Learns from a packet what is wanted by a port and whether there is a router behind it.
    pub fn snoop(&self, snoop: &Snoop, frame: &[u8], now_ms: u64) {
        let Some(bridge) = self.bridges.get(&BridgeId(snoop.bridge)) else { return };
        let Some(port) = bridge.ports.by_number.get(&OfPort(snoop.port)) else { return };
        // All goes there anyway.
        let Some(mdb) = bridge.mdb.as_ref().filter(|_| !port.config.mcast_flood) else { return };
        let heard = Heard { port: port.id, number: port.number, seen_ms: now_ms };
        let vlan = snoop.vlan;
        mdb.change(|mdb| {
            let mut changed = false;
            read(frame, |said| {
                changed |= match said {
                    Said::Query => mdb.router(vlan, heard),
                    Said::Join(address) => mdb.join(Group { vlan, address }, heard),
                    // There may be others behind it who still want the group.
                    Said::Leave(_) if port.config.mcast_flood_reports => false,
                    Said::Leave(address) => mdb.leave(Group { vlan, address }, port.id),
                }
            });
            changed
        });
    }
}
