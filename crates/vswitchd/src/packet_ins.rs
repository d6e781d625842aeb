//! What controllers would be told: packets sent to them and flows that are gone, kept for each bridge
//! until somebody reads them (`ofproto/packet-ins`).

use crate::commands::BridgeNames;
use datapath::Punted;
use flow::{Extracted, PuntReason, extract, ip_proto, locate};
use openflow::{FullKey, OfPort, PortNames, format_key, format_match};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use tables::{Reason, Removed};

/// Messages kept for one bridge: more than anybody reads, few enough to print at once.
const MESSAGES_MAX: usize = 1000;
/// Bytes of packets kept for one bridge.
const BYTES_MAX: usize = 1 << 20;

/// One message.
enum Message {
    Packet(Box<Punted>),
    Removed(String),
}

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Message::Packet(p) => p.frame.len() + p.punt.metadata.len() + p.punt.userdata.len(),
            Message::Removed(text) => text.len(),
        }
    }
}

/// The messages of one bridge.
#[derive(Default)]
struct Kept {
    messages: VecDeque<Message>,
    bytes: usize,
    packets: u64,
    removals: u64,
    /// Those that newer ones took the place of.
    lost: u64,
}

impl Kept {
    fn push(&mut self, message: Message) {
        self.bytes += message.bytes();
        self.messages.push_back(message);
        while self.messages.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            if self.pop().is_none() {
                return;
            }
            self.lost += 1;
        }
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes();
        Some(message)
    }
}

/// The messages of all bridges.
#[derive(Default)]
pub(crate) struct PacketIns {
    by_bridge: BTreeMap<String, Kept>,
}

impl PacketIns {
    /// Keeps a packet.
    pub(crate) fn packet(&mut self, bridge: &str, packet: Punted) {
        let kept = self.of(bridge);
        kept.packets += 1;
        kept.push(Message::Packet(Box::new(packet)));
    }

    /// Keeps what is said of a flow that is gone.
    pub(crate) fn removed(&mut self, bridge: &str, removed: &Removed, now_ms: u64) {
        let kept = self.of(bridge);
        kept.removals += 1;
        kept.push(Message::Removed(removal(removed, now_ms)));
    }

    fn of(&mut self, bridge: &str) -> &mut Kept {
        self.by_bridge.entry(bridge.to_owned()).or_default()
    }

    /// Forgets bridges that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.by_bridge.retain(|name, _| is_there(name));
    }

    /// Takes the oldest messages of a bridge, `count` at most, as `ovs-ofctl monitor` prints them, and
    /// says in a last line how many there were. `unqueued` packets of any bridge were lost before they
    /// got here.
    pub(crate) fn read(
        &mut self,
        bridge: &str,
        count: usize,
        names: &BridgeNames,
        unqueued: u64,
    ) -> String {
        let kept = self.of(bridge);
        let mut out = String::new();
        for _ in 0..count {
            match kept.pop() {
                Some(Message::Packet(p)) => out += &packet_in(&p, names),
                Some(Message::Removed(text)) => out += &text,
                None => break,
            }
        }
        let _ = writeln!(
            out,
            "{bridge}: {} packets and {} flow removals so far, {} to be read, {} overwritten unread; \
             {unqueued} packets of all bridges lost for want of room",
            kept.packets,
            kept.removals,
            kept.messages.len(),
            kept.lost
        );
        out
    }
}

fn reason(reason: PuntReason) -> &'static str {
    match reason {
        PuntReason::NoMatch => "no_match",
        PuntReason::Action => "action",
        PuntReason::InvalidTtl => "invalid_ttl",
        PuntReason::ActionSet => "action_set",
        PuntReason::Group => "group",
        PuntReason::PacketOut => "packet_out",
    }
}

/// As an NXT_PACKET_IN2 is printed.
fn packet_in(p: &Punted, names: &dyn PortNames) -> String {
    let mut out = "NXT_PACKET_IN2 (xid=0x0):".to_owned();
    if p.punt.table != 0 {
        let _ = write!(out, " table_id={}", p.punt.table);
    }
    if p.punt.cookie != u64::MAX {
        let _ = write!(out, " cookie={:#x}", p.punt.cookie);
    }
    let (total, kept) = (p.len, p.frame.len());
    let comma = if p.punt.metadata.is_empty() { "" } else { "," };
    let from = OfPort(p.punt.in_port);
    let _ = write!(out, " total_len={total} {}{comma}in_port={from}", p.punt.metadata);
    let _ = write!(out, " (via {}) data_len={kept} (unbuffered)", reason(p.punt.reason));
    if total != kept {
        out += " (***total_len != data_len***)";
    }
    if !p.punt.userdata.is_empty() {
        let hex: Vec<String> = p.punt.userdata.iter().map(|b| format!("{b:02x}")).collect();
        let _ = write!(out, "\n userdata={}", hex.join("."));
    }
    let _ = writeln!(out, "\n{}", packet(&p.frame, names));
    out
}

/// A packet's fields and its transport checksum, in one line.
fn packet(frame: &[u8], names: &dyn PortNames) -> String {
    let mut read = Extracted::default();
    // What is cut short is shown as far as it goes.
    let _ = extract(frame, frame.len(), 0, &mut read);
    let key = FullKey::new(&read.key, 0);
    let text = format_key(&key, names);
    let text = text.replacen("in_port=0,", "", 1);
    text + &checksum(frame, &read)
}

/// Where the checksum is in a transport header, its length, and how it is called.
const CHECKSUMS: &[(u8, usize, usize, &str)] = &[
    (ip_proto::TCP, 16, 20, "tcp_csum"),
    (ip_proto::UDP, 6, 8, "udp_csum"),
    (ip_proto::ICMP, 2, 8, "icmp_csum"),
    (ip_proto::ICMPV6, 2, 8, "icmp6_csum"),
];

fn checksum(frame: &[u8], read: &Extracted) -> String {
    let row = CHECKSUMS.iter().find(|(proto, ..)| *proto == read.key.nw_proto);
    let Some((_, at, header, name)) = row else { return String::new() };
    let (layers, _) = locate(frame, frame.len());
    let transport = layers.transport;
    match frame.get(transport..).filter(|l4| transport != 0 && l4.len() >= *header) {
        Some(l4) => format!(" {name}:{:x}", u16::from_be_bytes([l4[*at], l4[*at + 1]])),
        None => String::new(),
    }
}

/// As an NXT_FLOW_REMOVED is printed.
fn removal(removed: &Removed, now_ms: u64) -> String {
    let rule = &removed.rule;
    let reason = match removed.reason {
        Reason::IdleTimeout => "idle",
        Reason::HardTimeout => "hard",
        Reason::Delete => "delete",
        Reason::GroupDelete => "group_delete",
        Reason::MeterDelete => "meter_delete",
        Reason::Eviction => "eviction",
    };
    let priority = (rule.priority != openflow::DEFAULT_PRIORITY).then_some(rule.priority);
    let age = now_ms.saturating_sub(rule.created_ms);
    let mut out = format!(
        "OFPT_FLOW_REMOVED (xid=0x0): {} reason={reason}",
        format_match(&rule.matches(), &(), priority)
    );
    if rule.table != 0 {
        let _ = write!(out, " table_id={}", rule.table);
    }
    if rule.cookie != 0 {
        let _ = write!(out, " cookie:{:#x}", rule.cookie);
    }
    let _ = write!(out, " duration{}.{:03}s idle{}", age / 1000, age % 1000, rule.idle_timeout());
    if rule.hard_timeout() != 0 {
        let _ = write!(out, " hard{}", rule.hard_timeout());
    }
    let _ = writeln!(out, " pkts{} bytes{}", rule.counts.packets(), rule.counts.bytes());
    out
}
