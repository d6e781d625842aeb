//! What the datapath does with a packet once its megaflow is known.

use crate::{FlowKey, FlowMask, Vlan};
use zerocopy::big_endian::U32;

/// A datapath port number: unique among all bridges of the daemon, unlike OpenFlow port numbers,
/// which are unique in a bridge. Port 0 is never given out to a user's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DpPort(pub u32);

/// One step of a megaflow's action list; an empty list drops the packet. Each step works on the
/// packet as the steps before left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sends the packet, as it is now, to a port.
    Output(DpPort),
    /// Cuts what the next output sends to so many bytes, 14 or more.
    Trunc(u32),
    /// Gives header fields new values. Headers that the packet does not have stay as they are not.
    Set(Box<Rewrite>),
    /// Sets the packet's mark, which only kernel ports and tunnels see.
    SetMark(u32),
    /// Sets the packet's queue, which only ports with queues see.
    SetPriority(u32),
    /// Adds a VLAN tag in front of all others.
    PushVlan(Vlan),
    /// Removes the outermost VLAN tag.
    PopVlan,
    /// Adds an MPLS label stack entry; `ethertype` is 0x8847 or 0x8848.
    PushMpls {
        /// EtherType that the frame gets.
        ethertype: u16,
        /// The entry.
        lse: U32,
    },
    /// Removes the outermost MPLS label stack entry.
    PopMpls {
        /// EtherType that the frame gets.
        ethertype: u16,
    },
    /// Reads the packet's fields again and looks it up with this `recirc_id`. Always the last step.
    Recirc(u32),
    /// Hands a copy to whoever listens to the bridge's controller actions.
    Punt(Box<Punt>),
    /// Shows the packet to the pipeline, which learns from what it says.
    Snoop(Snoop),
    /// Does `actions` to a share of the packets, which go on afterwards as they were before.
    Sample {
        /// Of `u32::MAX`.
        probability: u32,
        /// What to do.
        actions: Vec<Action>,
    },
    /// Does `actions` to a copy.
    Clone(Vec<Action>),
    /// Decides by the frame's length, without its device header.
    CheckLen {
        /// Bytes.
        limit: u16,
        /// For longer frames; goes on afterwards as before.
        greater: Vec<Action>,
        /// For all others.
        less_equal: Vec<Action>,
    },
    /// Limits the rate, when meters come; until then it does nothing.
    Meter(u32),
}

/// New values of header fields: those with bits in `mask`, among `dl_src`, `dl_dst`, `nw_src`,
/// `nw_dst`, `nw_tos`, `nw_ttl`, `ipv6_src`, `ipv6_dst`, `ipv6_label`, `tp_src`, `tp_dst`, `arp_sha`,
/// `arp_tha`, `nd_target`, ARP's `nw_proto` and the first `mpls_lse`; which of them a packet has is
/// said by `value`'s `dl_type` and `nw_proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// The values; `dl_type` and `nw_proto` are always filled in.
    pub value: FlowKey,
    /// Which bits change.
    pub mask: FlowMask,
}

/// Where a packet came in that says who wants which multicast group (IGMP, MLD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snoop {
    /// The bridge, by the pipeline's number for it.
    pub bridge: u32,
    /// OpenFlow port.
    pub port: u16,
    /// The VLAN that it is in, 0 to 4095.
    pub vlan: u16,
}

/// A packet on its way to a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punt {
    /// Why.
    pub reason: PuntReason,
    /// The bridge, by the pipeline's number for it.
    pub bridge: u32,
    /// Which controller.
    pub controller: u16,
    /// Table that sent it.
    pub table: u8,
    /// Cookie of the flow that sent it.
    pub cookie: u64,
    /// Bytes to keep at most.
    pub max_len: u16,
    /// OpenFlow port that it came in by.
    pub in_port: u16,
    /// For the controller alone (`controller(userdata=…)`).
    pub userdata: Vec<u8>,
    /// Metadata, registers and the like at that point, as the pipeline prints them.
    pub metadata: String,
}

/// Why a packet goes to a controller, numbered as OpenFlow 1.4's `OFPR_*` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are OpenFlow's")]
pub enum PuntReason {
    NoMatch = 0,
    Action = 1,
    InvalidTtl = 2,
    ActionSet = 3,
    Group = 4,
    PacketOut = 5,
}
