//! Differences from Open vSwitch 3.1 that are to stay, each with the reason why ours is right.
//!
//! Packets that meet one are withheld from the comparison of generated scenarios. Each has an example,
//! of which a test makes sure that it is as it says.

use flow::{Action, Extracted, FlowKey, Rewrite, ether_type, ip_proto};

/// A difference that is no failure.
pub struct Known {
    /// What differs, and why ours stays as it is.
    pub why: &'static str,
    /// True if a packet with these fields, of which this is to be made here, meets it.
    pub meets: fn(&[u8], &FlowKey, &[Action]) -> bool,
    /// Flows of an example.
    pub flows: &'static [&'static str],
    /// Its packet, which comes in by port 1, in hexadecimal digits.
    pub packet: &'static str,
    /// What OVS sends to port 2.
    pub theirs: &'static str,
    /// What this switch sends there.
    pub ours: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        why: "A tag pushed on two. OVS keeps two tags of a packet and loses the innermost then; \
              nobody asked for that, and here it stays.",
        meets: |frame, _, actions| most_tags(actions, &mut tags(frame)) > 2,
        flows: &["actions=push_vlan:0x88a8,output:2"],
        packet: "0200000000020200000000018100000a8100000b12340000",
        theirs: "02000000000202000000000188a800008100000a12340000",
        ours: "02000000000202000000000188a800008100000a8100000b12340000",
    },
    Known {
        why: "An address of a later fragment is set. Such a fragment has no transport header; OVS \
              takes its data for one and changes two bytes of them as if they were a checksum.",
        meets: |_, key, actions| {
            let later = key.nw_frag & flow::FRAG_LATER != 0;
            let with_sum = [ip_proto::TCP, ip_proto::UDP, ip_proto::ICMPV6, ip_proto::SCTP];
            later && with_sum.contains(&key.nw_proto) && any(actions, &sets_address)
        },
        flows: &["ip,actions=mod_nw_dst:10.0.0.9,output:2"],
        packet: "0200000000020200000000010800450000\
                 24000000644011658c0a0000010a0000020011223344556677889900aabbccddee",
        theirs: "",
        ours: "",
    },
    Known {
        why: "A label is pushed on, or taken from, a frame with a length field and LLC. OVS puts the \
              EtherType in the place of the length and the label behind the LLC header, which no \
              receiver can read; here the frame stays one with LLC.",
        meets: |frame, _, actions| {
            let at = 12 + 4 * tags(frame);
            let has_length = frame.get(at..at + 2).is_some_and(|t| t[0] < 6);
            let mpls = |a: &Action| matches!(a, Action::PushMpls { .. } | Action::PopMpls { .. });
            has_length && any(actions, &mpls)
        },
        flows: &["actions=push_mpls:0x8847,output:2"],
        packet: "020000000002020000000001000eaaaa030000001234010203040506",
        theirs: "",
        ours: "",
    },
    Known {
        why: "Fields are set in a packet with the EtherType of ARP that is no ARP of IPv4 over \
              Ethernet. It has no such fields; OVS overwrites what is there, and ends itself if it is \
              too short.",
        meets: |frame, key, actions| {
            let at = 14 + 4 * tags(frame);
            let usual = frame.get(at..at + 6) == Some(&[0, 1, 8, 0, 6, 4]);
            let whole = frame.len() >= at + 28;
            let arp = [ether_type::ARP, ether_type::RARP].contains(&key.dl_type.get());
            arp && !(usual && whole) && any(actions, &|a| matches!(a, Action::Set(_)))
        },
        flows: &["arp,actions=set_field:3->arp_op,output:2"],
        packet: "ffffffffffff0200000000010806\
                 00010801060400020200000000010a0000010200000000020a000002",
        theirs: "ffffffffffff0200000000010806\
                 00010801060400030200000000010a0000010200000000020a000002",
        ours: "ffffffffffff0200000000010806\
               00010801060400020200000000010a0000010200000000020a000002",
    },
];

/// True if the packet, of which `actions` are to be made here, meets a known difference.
pub fn meets(frame: &[u8], packet: &Extracted, actions: &[Action]) -> bool {
    KNOWN.iter().any(|k| (k.meets)(frame, &packet.key, actions))
}

/// VLAN tags of a frame.
fn tags(frame: &[u8]) -> usize {
    let types = frame.get(12..).unwrap_or_default().chunks_exact(4);
    types.take_while(|t| matches!(t[..2], [0x81, 0x00] | [0x88, 0xa8])).count()
}

/// The most tags during `actions`, and in `tags` how many there are in the end.
fn most_tags(actions: &[Action], tags: &mut usize) -> usize {
    let mut most = *tags;
    for action in actions {
        match action {
            Action::PushVlan(_) => *tags += 1,
            Action::PopVlan => *tags = tags.saturating_sub(1),
            other => {
                for inner in nested(other) {
                    most = most.max(most_tags(inner, &mut tags.clone()));
                }
            }
        }
        most = most.max(*tags);
    }
    most
}

fn any(actions: &[Action], wanted: &dyn Fn(&Action) -> bool) -> bool {
    actions.iter().any(|a| wanted(a) || nested(a).iter().any(|inner| any(inner, wanted)))
}

fn nested(action: &Action) -> Vec<&[Action]> {
    match action {
        Action::Clone(actions) | Action::Sample { actions, .. } => vec![actions],
        Action::CheckLen { greater, less_equal, .. } => vec![greater, less_equal],
        _ => Vec::new(),
    }
}

fn sets_address(action: &Action) -> bool {
    let Action::Set(rewrite) = action else { return false };
    let Rewrite { mask, .. } = &**rewrite;
    let m = mask.bits();
    m.nw_src.get() != 0 || m.nw_dst.get() != 0 || m.ipv6_src != [0; 16] || m.ipv6_dst != [0; 16]
}
