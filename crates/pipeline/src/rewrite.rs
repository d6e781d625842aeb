//! Actions that change header fields, metadata and registers.

use crate::note::NoteKind;
use crate::walk::Walk;
use flow::{Mac, ip_proto};
use openflow::{Action, Field, OfPort, Prereq, Subfield, fld};
use zerocopy::big_endian::{U32, U64};

/// The largest TTL that must not be counted down any more.
const LAST_TTL: u8 = 1;
/// VLAN ID, presence and priority in a tag's `vlan_tci`.
const VID: u128 = 0x0fff;
const TAG_PRESENT: u128 = 0x1000;
const PCP: u128 = 0xe000;
/// DSCP and ECN in the TOS field.
const DSCP: u128 = 0xfc;
const ECN: u128 = 0x03;

fn number(mac: &Mac) -> u128 {
    mac.0.iter().fold(0, |n, b| n << 8 | u128::from(*b))
}

/// True for fields that are in front of the network layer.
pub(crate) fn is_outer_field(field: &Field) -> bool {
    matches!(field.prereq, Prereq::None | Prereq::Ethernet | Prereq::Vlan)
}

impl Walk<'_> {
    /// Runs an action that changes fields; any other does nothing.
    pub fn rewrite(&mut self, action: &Action) {
        match action {
            Action::SetField { field, value, mask } => self.set_field(field, *value, *mask),
            Action::Load { dst, value } => {
                self.set_field(dst.field, value << dst.first, dst.mask())
            }
            Action::Move { src, dst } => {
                if self.h.has(src.field) && self.h.has(dst.field) {
                    let value = self.h.read(src);
                    self.assign(dst, value);
                }
            }
            // These push a tag if there is none, whatever its value.
            Action::SetVlanVid(vid) => {
                self.h.write(fld::VLAN_TCI, u128::from(*vid) | TAG_PRESENT, VID | TAG_PRESENT);
            }
            Action::SetVlanPcp(pcp) => {
                self.h.write(
                    fld::VLAN_TCI,
                    u128::from(*pcp) << 13 | TAG_PRESENT,
                    PCP | TAG_PRESENT,
                );
            }
            Action::SetTunnel { id, .. } => self.h.now.key.tunnel.id = U64::new(*id),
            Action::SetQueue(queue) => self.h.now.key.skb_priority = U32::new(*queue),
            Action::PopQueue => {
                self.h.now.key.skb_priority = self.first_priority;
                let queue = self.first_priority.get();
                let text = if queue == 0 { "0".to_owned() } else { format!("{queue:#x}") };
                self.note(NoteKind::Detail, || format!("queue = {text}"));
            }
            Action::WriteMetadata { value, mask } => {
                let metadata = &mut self.h.now.key.metadata;
                *metadata = U64::new(metadata.get() & !mask | value & mask);
            }
            Action::DeleteField(field) => self.h.delete_option(field),
            other => {
                if let Some((field, value, mask)) = self.whole_field(other)
                    && self.h.has(field)
                {
                    self.write(field, value, mask);
                }
            }
        }
    }

    /// Writes a field that the packet has.
    fn write(&mut self, field: &'static Field, value: u128, mask: u128) {
        // These say which fields there are. What was written to the old ones comes first, while the
        // datapath's packet has them.
        if [fld::ICMPV6_TYPE, fld::ICMPV6_CODE].contains(&field) {
            self.commit();
        }
        self.h.write(field, value, mask);
    }

    /// The field that an older action with a name of its own writes.
    fn whole_field(&mut self, action: &Action) -> Option<(&'static Field, u128, u128)> {
        let whole = |field: &'static Field, value| (field, value, field.ones());
        Some(match action {
            Action::SetEthSrc(mac) => whole(fld::ETH_SRC, number(mac)),
            Action::SetEthDst(mac) => whole(fld::ETH_DST, number(mac)),
            Action::SetIpv4Src(ip) => whole(fld::IP_SRC, u128::from(*ip)),
            Action::SetIpv4Dst(ip) => whole(fld::IP_DST, u128::from(*ip)),
            Action::SetIpDscp(tos) => (fld::NW_TOS, u128::from(*tos), DSCP),
            Action::SetIpEcn(ecn) => (fld::NW_ECN, u128::from(*ecn), ECN),
            Action::SetIpTtl(ttl) => whole(fld::NW_TTL, u128::from(*ttl)),
            Action::SetTpSrc(port) => whole(self.transport()?.0, u128::from(*port)),
            Action::SetTpDst(port) => whole(self.transport()?.1, u128::from(*port)),
            Action::SetMplsLabel(label) => whole(fld::MPLS_LABEL, u128::from(*label)),
            Action::SetMplsTc(tc) => whole(fld::MPLS_TC, u128::from(*tc)),
            Action::SetMplsTtl(ttl) => whole(fld::MPLS_TTL, u128::from(*ttl)),
            _ => return None,
        })
    }

    /// The port fields of the packet's transport protocol.
    fn transport(&mut self) -> Option<(&'static Field, &'static Field)> {
        self.h.depend_on(fld::NW_PROTO, fld::NW_PROTO.ones());
        match self.h.pkt().nw_proto {
            ip_proto::TCP => Some((fld::TCP_SRC, fld::TCP_DST)),
            ip_proto::UDP => Some((fld::UDP_SRC, fld::UDP_DST)),
            ip_proto::SCTP => Some((fld::SCTP_SRC, fld::SCTP_DST)),
            _ => None,
        }
    }

    fn set_field(&mut self, field: &'static Field, value: u128, mask: u128) {
        match self.h.has(field) {
            true => self.write(field, value, mask),
            false => {
                let text = || format!("unmet prerequisites for {}, set_field ignored", field.name);
                self.note(NoteKind::Warn, text);
            }
        }
    }

    /// Writes a value that was not known when the flow was made, and notes it.
    pub fn assign(&mut self, dst: &Subfield, value: u128) {
        if !self.h.has(dst.field) {
            return;
        }
        self.write(dst.field, value << dst.first, dst.mask());
        let key = &self.h.now.key;
        if let Some(notes) = &mut self.notes {
            let now = dst.field.format(dst.get(key) << dst.first, dst.mask(), &());
            let now = match dst.mask() == dst.field.ones() {
                true => now,
                false => match dst.get(key) {
                    0 => "0".to_owned(),
                    n => format!("{n:#x}"),
                },
            };
            notes.add(NoteKind::Detail, format!("{dst} is now {now}"));
        }
    }

    /// `dec_ttl`; true if the packet's life is over, which ends the list of actions.
    pub fn dec_ttl(&mut self, controllers: &[u16]) -> bool {
        if !crate::headers::is_ip(self.h.dl_type()) {
            return false;
        }
        let ttl = self.h.ttl();
        if ttl > LAST_TTL {
            self.h.write(fld::NW_TTL, u128::from(ttl - 1), 0xff);
            return false;
        }
        for controller in controllers {
            self.punt(flow::PuntReason::InvalidTtl, *controller, u16::MAX, &[]);
        }
        self.warn(match self.h.dl_type() {
            flow::ether_type::IPV6 => "IPv6 decrement TTL exception",
            _ => "IPv4 decrement TTL exception",
        });
        true
    }

    /// `dec_mpls_ttl`, as [`Walk::dec_ttl`].
    pub fn dec_mpls_ttl(&mut self) -> bool {
        if !self.h.has(fld::MPLS_TTL) {
            // What follows is for packets with a label (OVS).
            return true;
        }
        let ttl = self.h.read(&Subfield::whole(fld::MPLS_TTL));
        if ttl > u128::from(LAST_TTL) {
            self.h.write(fld::MPLS_TTL, ttl - 1, 0xff);
            return false;
        }
        self.punt(flow::PuntReason::InvalidTtl, 0, u16::MAX, &[]);
        self.warn("MPLS decrement TTL exception");
        true
    }

    /// Changes which output the action set is said to have; see [`Walk::write_actions`].
    pub fn set_actset_output(&mut self, port: OfPort) {
        self.h.now.key.actset_output = U32::new(port.0.into());
    }
}
