//! Differences from Open vSwitch 3.1 that are to stay, each with the reason why ours is right.
//!
//! Packets that meet one are withheld from the comparison of generated scenarios. Each has an example,
//! of which a test makes sure that it is as it says.

use flow::{Action, FlowKey, Rewrite, ether_type, ip_proto, locate};

/// A packet, and what is to be made of it.
pub struct Case<'a> {
    /// As it came in.
    pub frame: &'a [u8],
    /// Its fields.
    pub key: &'a FlowKey,
    /// What the datapath here will do with it.
    pub actions: &'a [Action],
    /// The actions of flows that it goes through, one on each line. If it is to come back and go through
    /// more of them, all flows.
    pub text: &'a str,
    /// Why it is dropped, if its translation failed.
    pub error: Option<&'a str>,
    /// It goes through a flow that OVS may overlook, see `conjunctions.rs`.
    pub overlooked: bool,
}

/// A difference that is no failure.
pub struct Known {
    /// What differs, and why ours stays as it is.
    pub why: &'static str,
    /// True if a packet meets it.
    pub meets: fn(&Case<'_>) -> bool,
    /// Flows of an example.
    pub flows: &'static [&'static str],
    /// Its packet, which comes in by port 1, in hexadecimal digits.
    pub packet: &'static str,
    /// What OVS sends to port 2; a space between two frames.
    pub theirs: &'static str,
    /// What this switch sends there.
    pub ours: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        why: "A tag pushed on two. OVS keeps two tags of a packet and loses the innermost then; nobody \
              asked for that, and here it stays. (Where flows push more than two themselves, be it that \
              they write into a tag that was not there, the packet is dropped and `ofproto/trace` says \
              why.)",
        meets: |c| {
            let pushed = c.text.matches("push_vlan").count();
            tags(c.frame) + pushed > 2 || c.error == Some("Too many VLAN tags")
        },
        flows: &["actions=push_vlan:0x88a8,output:2"],
        packet: "0200000000020200000000018100000a8100000b12340000",
        theirs: "02000000000202000000000188a800008100000a12340000",
        ours: "02000000000202000000000188a800008100000a8100000b12340000",
    },
    Known {
        why: "An address or an ICMP field of a later fragment is set. Such a fragment has no transport header; \
              OVS takes its data for one and changes bytes of them as if they were type, code and checksum.",
        meets: |c| {
            let later = c.key.nw_frag & flow::FRAG_LATER != 0;
            later && any(c.actions, &sets_address_or_transport)
        },
        flows: &["ip,actions=mod_nw_dst:10.0.0.9,output:2"],
        packet: "02000000000202000000000108004500002400000064\
                 4011658c0a0000010a0000020011223344556677889900aabbccddee",
        theirs: "02000000000202000000000108004500002400000064\
                 401165850a0000010a0000090011223344556670889900aabbccddee",
        ours: "02000000000202000000000108004500002400000064\
               401165850a0000010a0000090011223344556677889900aabbccddee",
    },
    Known {
        why: "A label is pushed on, or taken from, a frame with a length field and LLC. OVS puts the \
              EtherType in the place of the length and the label behind the LLC header, which no \
              receiver can read; here the frame stays one with LLC.",
        meets: |c| {
            let at = 12 + 4 * tags(c.frame);
            let has_length = c.frame.get(at..at + 2).is_some_and(|t| t[0] < 6);
            let mpls = |a: &Action| matches!(a, Action::PushMpls { .. } | Action::PopMpls { .. });
            has_length && any(c.actions, &mpls)
        },
        flows: &["actions=push_mpls:0x8847,output:2"],
        packet: "020000000002020000000001000eaaaa030000001234010203040506",
        theirs: "0200000000020200000000018847aaaa03000000123400000140010203040506",
        ours: "020000000002020000000001000eaaaa03000000884700000140010203040506",
    },
    Known {
        why: "Fields are set in a packet with the EtherType of ARP that is no ARP of IPv4 over \
              Ethernet. It has no such fields; OVS overwrites what is there, and ends itself if it is \
              too short.",
        meets: |c| {
            let at = 14 + 4 * tags(c.frame);
            let usual = c.frame.get(at..at + 6) == Some(&[0, 1, 8, 0, 6, 4]);
            let whole = c.frame.len() >= at + 28;
            let arp = [ether_type::ARP, ether_type::RARP].contains(&c.key.dl_type.get());
            arp && !(usual && whole) && any(c.actions, &|a| matches!(a, Action::Set(_)))
        },
        flows: &["arp,actions=set_field:3->arp_op,output:2"],
        packet: "ffffffffffff0200000000010806\
                 00010801060400020200000000010a0000010200000000020a000002",
        theirs: "ffffffffffff0200000000010806\
                 00010801060400030200000000010a0000010200000000020a000002",
        ours: "ffffffffffff0200000000010806\
               00010801060400020200000000010a0000010200000000020a000002",
    },
    Known {
        why: "Network or transport fields are set in a packet whose IP protocol, or ARP operation, is 0 \
              or becomes 0. OVS takes 0 for a sign that there is no such header and leaves it alone.",
        meets: |c| {
            let network = [ether_type::IPV4, ether_type::IPV6, ether_type::ARP, ether_type::RARP];
            let zero = |a: &Action| match a {
                Action::Set(r) => r.mask.bits().nw_proto != 0 && r.value.nw_proto == 0,
                _ => false,
            };
            let is = c.key.nw_proto == 0 && any(c.actions, &sets_more_than_ethernet);
            network.contains(&c.key.dl_type.get()) && (is || any(c.actions, &zero))
        },
        flows: &["ip,actions=mod_nw_dst:10.0.0.9,output:2"],
        packet: "020000000002020000000001080045000014000000004000\
                 66e70a0000010a000002",
        theirs: "020000000002020000000001080045000014000000004000\
                 66e70a0000010a000002",
        ours: "020000000002020000000001080045000014000000004000\
               66e00a0000010a000009",
    },
    Known {
        why: "The source address is set of an IPv6 packet with a routing header that is not at its end. \
              The source counts in transport checksums as ever; OVS only sees to the checksum if there \
              is no such header.",
        meets: |c| {
            let routed = locate(c.frame, c.frame.len()).0.routed;
            let source = |m: &FlowKey| m.ipv6_src != [0; 16];
            routed && any(c.actions, &|a| matches!(a, Action::Set(r) if source(r.mask.bits())))
        },
        flows: &["ipv6,actions=set_field:fe80::3->ipv6_src,output:2"],
        packet: "02000000000202000000000186dd6000000000102b40\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 1100000100000000003500350008827f",
        theirs: "02000000000202000000000186dd6000000000102b40\
                 fe800000000000000000000000000003fe800000000000000000000000000002\
                 1100000100000000003500350008827f",
        ours: "02000000000202000000000186dd6000000000102b40\
               fe800000000000000000000000000003fe800000000000000000000000000002\
               1100000100000000003500350008827d",
    },
    Known {
        why: "A label is changed in a packet with the EtherType of MPLS that is too short for one. OVS \
              pushes a label instead.",
        meets: |c| {
            let mpls = [ether_type::MPLS, ether_type::MPLS_MCAST].contains(&c.key.dl_type.get());
            let short = c.frame.len() < locate(c.frame, c.frame.len()).0.network + 4;
            mpls && short && any(c.actions, &sets_more_than_ethernet)
        },
        flows: &["mpls,actions=set_mpls_ttl(1),output:2"],
        packet: "0200000000020200000000018847",
        theirs: "020000000002020000000001884700000001",
        ours: "0200000000020200000000018847",
    },
    Known {
        why: "Fields of neighbour discovery are set in a packet with an option that has no length or goes \
              on beyond the packet. RFC 4861, 4.6, has such packets dropped, and what comes in front of \
              the option is all that is read of them here; OVS writes into the option.",
        meets: |c| {
            is_discovery(c.key)
                && !has_whole_options(c.frame)
                && any(c.actions, &sets_more_than_ethernet)
        },
        flows: &["icmp6,icmpv6_type=135,actions=set_field:2->nd_options_type,output:2"],
        packet: "02000000000202000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 870000000000000020010db80000000000000000000000010100ffffffffffff",
        theirs: "02000000000202000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 87004be60000000020010db80000000000000000000000010200ffffffffffff",
        ours: "02000000000202000000000186dd6000000000203aff\
               fe800000000000000000000000000001fe800000000000000000000000000002\
               870000000000000020010db80000000000000000000000010100ffffffffffff",
    },
    Known {
        why: "Reserved bits or an option's type are set in a neighbour solicitation or advertisement with a \
              wrong checksum or with extension headers. OVS computes the checksum anew, which makes a wrong \
              one right, and with extension headers a right one wrong; here it is changed as the field was, \
              as with all other fields in both.",
        meets: |c| {
            let extra = |a: &Action| match a {
                Action::Set(r) => {
                    r.mask.bits().igmp_group.get() != 0 || r.mask.bits().tcp_flags.get() != 0
                }
                _ => false,
            };
            any(c.actions, &extra) && !is_right_icmp6(c.frame)
        },
        flows: &["icmp6,icmpv6_type=135,actions=set_field:1->nd_reserved,output:2"],
        packet: "02000000000202000000000186dd6000000000183aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 870000010000000020010db8000000000000000000000001",
        theirs: "02000000000202000000000186dd6000000000183aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 87004ded0000000120010db8000000000000000000000001",
        ours: "02000000000202000000000186dd6000000000183aff\
               fe800000000000000000000000000001fe800000000000000000000000000002\
               870000000000000120010db8000000000000000000000001",
    },
    Known {
        why: "A part of neighbour discovery's reserved bits or options' type is set. OVS clears the others, \
              unless a flow matched them.",
        meets: |c| {
            let part = |a: &Action| match a {
                Action::Set(r) => {
                    let m = r.mask.bits();
                    let kind = m.tcp_flags.get() & 0xff;
                    !matches!(m.igmp_group.get(), 0 | u32::MAX) || !matches!(kind, 0 | 0xff)
                }
                _ => false,
            };
            any(c.actions, &part)
        },
        flows: &["icmp6,icmpv6_type=135,actions=load:1->ERICOXM_OF_ICMPV6_ND_RESERVED[7],output:2"],
        packet: "02000000000202000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 87007a1ae000000020010db800000000000000000000000101010200000000ee",
        theirs: "02000000000202000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 870049770000008020010db800000000000000000000000101010200000000ee",
        ours: "02000000000202000000000186dd6000000000203aff\
               fe800000000000000000000000000001fe800000000000000000000000000002\
               8700799ae000008020010db800000000000000000000000101010200000000ee",
    },
    Known {
        why: "The type of neighbour discovery's options is moved elsewhere. OVS moves 0, though it matches the \
              type.",
        meets: |c| {
            ["move", "push"]
                .iter()
                .any(|a| c.text.contains(&format!("{a}:ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE")))
        },
        flows: &["icmp6,icmpv6_type=135,\
             actions=move:ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE[]->NXM_OF_ETH_DST[0..7],output:2"],
        packet: "0200000000ee02000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 870000000000000020010db80000000000000000000000010101020000000001",
        theirs: "02000000000002000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 870000000000000020010db80000000000000000000000010101020000000001",
        ours: "02000000000102000000000186dd6000000000203aff\
               fe800000000000000000000000000001fe800000000000000000000000000002\
               870000000000000020010db80000000000000000000000010101020000000001",
    },
    Known {
        why: "Labels are pushed and popped again, and the EtherType is another then than it was. OVS sends the \
              packet with its old EtherType.",
        meets: |c| c.text.contains("push_mpls") && c.text.contains("pop_mpls"),
        flows: &[
            "table=0,actions=push_mpls:0x8847,push_mpls:0x8847,pop_mpls:0x0800,resubmit(,1)",
            "table=1,actions=output:2",
        ],
        packet: "02000000000202000000000112340000",
        theirs: "02000000000202000000000112340000",
        ours: "02000000000202000000000108000000",
    },
    Known {
        why: "A label stack entry is all zero or becomes so: label 0, class 0, TTL 0 and not the bottom. It is \
              an entry like others; to OVS there is none.",
        meets: |c| {
            let entries = c.key.mpls_lse.iter().map(|l| l.get());
            let bottom = entries.clone().position(|l| l & 0x100 != 0).unwrap_or(2);
            let one_field = |l: u32| {
                let fields = [0xffff_f000, 0xe00, 0x1ff];
                fields.iter().filter(|f| l & *f != 0).count() < 2
            };
            let mpls = [ether_type::MPLS, ether_type::MPLS_MCAST].contains(&c.key.dl_type.get());
            let changed = ["mpls", "MPLS"].iter().any(|name| c.text.contains(name));
            mpls && changed && entries.take(bottom + 1).any(one_field)
        },
        flows: &["mpls,actions=set_mpls_tc(0),output:2"],
        packet: "020000000002020000000001884700000a00",
        theirs: "0200000000020200000000018847",
        ours: "020000000002020000000001884700000000",
    },
    Known {
        why: "NORMAL gets a packet with two tags, one of which says nothing (VLAN 0, priority 0). It is sent \
              without that tag if it is the outer one; OVS takes off both then, and the inner one alone if it \
              is that.",
        meets: |c| {
            let empty = |at: usize| [c.frame[at] & 0xef, c.frame[at + 1]] == [0, 0];
            tags(c.frame) > 1 && (empty(14) || empty(18)) && c.text.contains("NORMAL")
        },
        flows: &["actions=normal", "dl_src=02:00:00:00:00:02,actions=output:77"],
        packet: "0200000000020200000000018100000081000005123400",
        theirs: "020000000002020000000001123400",
        ours: "02000000000202000000000181000005123400",
    },
    Known {
        why: "`check_pkt_larger` measures an IP packet with padding behind it that was given a label. With a \
              label there is no telling what is padding; OVS remembers how much there was before.",
        meets: |c| {
            let padded = (1..c.frame.len()).contains(&locate(c.frame, c.frame.len()).0.end);
            padded && c.text.contains("check_pkt_larger") && c.text.contains("push_mpls")
        },
        flows: &["actions=push_mpls:0x8847,check_pkt_larger(40)->NXM_NX_REG0[0],\
             move:NXM_NX_REG0[0..7]->NXM_OF_ETH_SRC[0..7],output:2"],
        packet: "020000000002020000000001080045000014000000004006\
                 66e10a0000010a000002aabbccddeeff",
        theirs: "020000000002020000000000884700000140450000140000\
                 0000400666e10a0000010a000002aabbccddeeff",
        ours: "020000000002020000000001884700000140450000140000\
               0000400666e10a0000010a000002aabbccddeeff",
    },
    Known {
        why: "A tag of a packet with the drop eligible bit is written. Neither has a field for the bit, and \
              both lose it when they put a new tag in the place of the old one; where the values are the \
              same already, that depends on how much of the tag the megaflow looks at.",
        meets: |c| {
            let mut first_bytes = c.frame.iter().skip(14).step_by(4).take(tags(c.frame).min(2));
            let eligible = first_bytes.any(|b| b & 0x10 != 0);
            eligible && any(c.actions, &|a| matches!(a, Action::PushVlan(_)))
        },
        flows: &["actions=load:0x7ff->NXM_OF_VLAN_TCI[1..11],output:2"],
        packet: "0200000000020200000000018100ffff12340000",
        theirs: "0200000000020200000000018100ffff12340000",
        ours: "0200000000020200000000018100efff12340000",
    },
    Known {
        why: "A frame is cut by `output` with `max_len` and the datapath pushes or pops a tag or a label \
              between. OVS cuts off as many bytes as the frame was too long before that, so it comes \
              out longer or shorter than `max_len` says.",
        meets: |c| resizes_what_is_cut(c.actions),
        flows: &["actions=push_vlan:0x8100,output(port=2,max_len=20)"],
        packet: "02000000000202000000000112340102030405060708090a0b0c",
        theirs: "020000000002020000000001810000001234010203040506",
        ours: "0200000000020200000000018100000012340102",
    },
    Known {
        why: "An action set is done after `check_pkt_larger`. OVS does it for larger packets and then, \
              at the end, again, even if it was cleared.",
        meets: |c| c.text.contains("write_actions") && c.text.contains("check_pkt_larger"),
        flows: &[
            "table=0,actions=resubmit(,1),check_pkt_larger(14)->NXM_NX_REG0[0]",
            "table=1,actions=write_actions(output:2)",
        ],
        packet: "0200000000020200000000011234000000",
        theirs: "0200000000020200000000011234000000 0200000000020200000000011234000000",
        ours: "0200000000020200000000011234000000",
    },
    Known {
        why: "`vlan_tci` is written without the bit that says that there is a tag, in a packet with two. \
              That takes off the outer tag; OVS takes off both.",
        meets: |c| {
            let words = ["->NXM_OF_VLAN_TCI", "pop:NXM_OF_VLAN_TCI"];
            let writes = words.iter().any(|w| c.text.contains(w));
            // OVS also remembers the EtherType of the tag for the next one.
            let other = c.frame.get(12..14) == Some(&[0x88, 0xa8]) || c.text.contains("0x88a8");
            let pushes = c.text.contains("push_vlan") || c.text.contains("mod_vlan");
            writes && (other || tags(c.frame) + usize::from(pushes) > 1)
        },
        flows: &["actions=load:0->NXM_OF_VLAN_TCI[12],output:2"],
        packet: "0200000000020200000000018100000a8100000b12340000",
        theirs: "02000000000202000000000112340000",
        ours: "0200000000020200000000018100000b12340000",
    },
    Known {
        why: "All parts of a conjunction match and no flow has its id, or one of low priority. The search for \
              that flow is to ignore parts of conjunctions (ovs-fields(7)); OVS also passes over flows of lower \
              priority that have the match of a part, and so takes one of still lower priority.",
        meets: |c| c.overlooked,
        flows: &[
            "priority=9,ip,nw_src=10.0.0.1,actions=conjunction(1,1/2)",
            "priority=9,ip,nw_dst=10.0.0.2,actions=conjunction(1,2/2)",
            "priority=5,ip,nw_src=10.0.0.1,actions=output:2",
            "priority=1,actions=set_field:02:00:00:00:00:03->eth_dst,output:2",
        ],
        packet: "020000000002020000000001080045000014000000004006\
                 66e10a0000010a000002",
        theirs: "020000000003020000000001080045000014000000004006\
                 66e10a0000010a000002",
        ours: "020000000002020000000001080045000014000000004006\
               66e10a0000010a000002",
    },
    Known {
        why: "The operation of an ARP packet is set to 255. OVS writes 65535: it has one function for values \
              and masks, and 255 is how a mask of all 16 bits begins.",
        meets: |c| {
            let all = |a: &Action| match a {
                Action::Set(r) => r.mask.bits().nw_proto != 0 && r.value.nw_proto == 0xff,
                _ => false,
            };
            [ether_type::ARP, ether_type::RARP].contains(&c.key.dl_type.get())
                && any(c.actions, &all)
        },
        flows: &["arp,actions=set_field:255->arp_op,output:2"],
        packet: "ffffffffffff0200000000010806\
                 00010800060400020200000000010a0000010200000000020a000002",
        theirs: "ffffffffffff0200000000010806\
                 000108000604ffff0200000000010a0000010200000000020a000002",
        ours: "ffffffffffff0200000000010806\
               00010800060400ff0200000000010a0000010200000000020a000002",
    },
    Known {
        why: "The last label is taken off, the EtherType stays that of MPLS, and a label is set. That is then \
              what was behind the last one. OVS counts labels by their bits and sees one before and one \
              after, so it changes the one that was to be gone; or none, if what is set is 0.",
        meets: |c| {
            let labels = c.key.mpls_lse.iter().position(|l| l.get() & 0x100 != 0).map(|i| i + 1);
            labels.is_some_and(|n| sets_behind_labels(c.actions, n))
        },
        flows: &["mpls,actions=pop_mpls:0x8847,set_mpls_ttl(5),output:2"],
        packet: "020000000002020000000001884700011140aabbccdd",
        theirs: "020000000002020000000001884700000005aabbccdd",
        ours: "0200000000020200000000018847aabbcc05",
    },
    Known {
        why: "A field of neighbour discovery is set to 0 that is read as 0 and is something else: the type of \
              options none of which is a link-layer address; the target and the addresses if an option is \
              there twice, which makes them void. They are read so in both and can be written; OVS leaves \
              them, because they are 0 already.",
        meets: |c| {
            let layers = locate(c.frame, c.frame.len()).0;
            let options = is_discovery(c.key) && layers.end > layers.transport + 24;
            options && any(c.actions, &|a| matches!(a, Action::Set(r) if zeroes_unread(r, c.key)))
        },
        flows: &["icmp6,icmpv6_type=136,actions=set_field:0->nd_options_type,output:2"],
        packet: "02000000000202000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 880000000000000020010db80000000000000000000000010501020000000001",
        theirs: "02000000000202000000000186dd6000000000203aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 880000000000000020010db80000000000000000000000010501020000000001",
        ours: "02000000000202000000000186dd6000000000203aff\
               fe800000000000000000000000000001fe800000000000000000000000000002\
               880005000000000020010db80000000000000000000000010001020000000001",
    },
    Known {
        why: "The type of options is set in a packet of neighbour discovery without options that has padding \
              behind it. OVS writes into the padding.",
        meets: |c| {
            let layers = locate(c.frame, c.frame.len()).0;
            let kind = |m: &FlowKey| m.tcp_flags.get() & 0xff != 0;
            is_discovery(c.key)
                && layers.end == layers.transport + 24
                && c.frame.len() > layers.end
                && any(c.actions, &|a| matches!(a, Action::Set(r) if kind(r.mask.bits())))
        },
        flows: &["icmp6,icmpv6_type=136,actions=set_field:2->nd_options_type,output:2"],
        packet: "02000000000202000000000186dd6000000000183aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 88004cee0000000020010db8000000000000000000000001000000000000",
        theirs: "02000000000202000000000186dd6000000000183aff\
                 fe800000000000000000000000000001fe800000000000000000000000000002\
                 88004cee0000000020010db8000000000000000000000001020000000000",
        ours: "02000000000202000000000186dd6000000000183aff\
               fe800000000000000000000000000001fe800000000000000000000000000002\
               88004cee0000000020010db8000000000000000000000001000000000000",
    },
    Known {
        why: "A part of vlan_vid is written with the bit that says that there is a tag. Flows are kept here as \
              OpenFlow 1.0 and 1.3 say them, whose `load` has not that bit; OVS does the same over both, and \
              keeps it over OpenFlow 1.5, by which the comparison has to load flows into it.",
        meets: |c| {
            // It shows only where the tag that the flow demands is gone again.
            c.text.contains("OXM_OF_VLAN_VID[") && c.text.contains("strip_vlan")
        },
        flows: &[
            "actions=resubmit(,1),strip_vlan",
            "table=1,actions=push_vlan:0x8100,\
             write_actions(set_field:0x1000/0x1800->vlan_vid,output:2)",
        ],
        packet: "02000000000202000000000112340000",
        theirs: "0200000000020200000000018100000012340000",
        ours: "02000000000202000000000112340000",
    },
    Known {
        why: "A clone has the packet come back, and more is to be done with the packet itself. OVS stops at the \
              clone.",
        meets: |c| goes_on_after_recirculated_clone(c.actions),
        flows: &["mpls,actions=clone(pop_mpls:0x86dd,set_field:::->ipv6_src,output:1),output:2"],
        packet: "020000000002020000000001884700003140600000000000000000000000\
                 0000000000000000000000000000000000000000000000000000",
        theirs: "",
        ours: "020000000002020000000001884700003140600000000000000000000000\
               0000000000000000000000000000000000000000000000000000",
    },
];

/// True if the packet meets a known difference.
pub fn meets(case: &Case<'_>) -> bool {
    KNOWN.iter().any(|k| (k.meets)(case))
}

/// True for packets of which OVS counts none but the first of each megaflow: it cannot read its own
/// megaflow back, and so not find the flows whose statistics they belong to.
pub fn is_uncounted(key: &FlowKey) -> bool {
    match key.dl_type.get() {
        ether_type::ARP | ether_type::RARP => key.nw_proto == 0xff,
        ether_type::MPLS | ether_type::MPLS_MCAST => key.mpls_lse[0].get() == 0,
        _ => false,
    }
}

/// VLAN tags of a frame.
pub fn tags(frame: &[u8]) -> usize {
    let types = frame.get(12..).unwrap_or_default().chunks_exact(4);
    types.take_while(|t| matches!(t[..2], [0x81, 0x00] | [0x88, 0xa8])).count()
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

/// True if a clone that ends with the packet coming back is not the last action.
fn goes_on_after_recirculated_clone(actions: &[Action]) -> bool {
    let returns = |a: &Action| matches!(a, Action::Clone(list) if any(list, &|a| matches!(a, Action::Recirc(_))));
    let before_last = actions.split_last().map_or(actions, |(_, before)| before);
    before_last.iter().any(returns)
        || actions.iter().any(|a| nested(a).into_iter().any(goes_on_after_recirculated_clone))
}

/// True if a label is set when all `labels` of the packet are gone.
fn sets_behind_labels(actions: &[Action], mut labels: usize) -> bool {
    actions.iter().any(|a| {
        match a {
            Action::PopMpls { .. } => labels = labels.saturating_sub(1),
            Action::PushMpls { .. } => labels += 1,
            _ => {}
        }
        let sets = matches!(a, Action::Set(r) if r.mask.bits().mpls_lse[0].get() != 0);
        labels == 0 && sets || nested(a).iter().any(|inner| sets_behind_labels(inner, labels))
    })
}

/// True for neighbour solicitations and advertisements.
fn is_discovery(key: &FlowKey) -> bool {
    let icmp6 = key.dl_type.get() == ether_type::IPV6 && key.nw_proto == ip_proto::ICMPV6;
    icmp6 && matches!(key.tp_src.get(), 135 | 136)
}

/// True if a field of neighbour discovery is set to 0 that the key does not have, though the packet
/// has options: their type if that is not read, else what is void.
fn zeroes_unread(rewrite: &Rewrite, key: &FlowKey) -> bool {
    let zeroes = |bits: fn(&FlowKey) -> u128| {
        let mask = bits(rewrite.mask.bits());
        mask != 0 && bits(&rewrite.value) & mask == 0
    };
    if key.tcp_flags.get() == 0 {
        return zeroes(|k| (k.tcp_flags.get() & 0xff).into());
    }
    let void = [key.arp_sha, key.arp_tha] == [flow::Mac::default(); 2];
    void && (zeroes(|k| u128::from_be_bytes(k.nd_target))
        || zeroes(|k| number(k.arp_sha))
        || zeroes(|k| number(k.arp_tha)))
}

fn number(address: flow::Mac) -> u128 {
    address.0.iter().fold(0, |n, b| n << 8 | u128::from(*b))
}

/// True if the options of a neighbour solicitation or advertisement end where the packet does.
fn has_whole_options(frame: &[u8]) -> bool {
    let layers = locate(frame, frame.len()).0;
    let Some(mut rest) = frame.get(layers.transport + 24..layers.end) else { return false };
    while let [_, units, ..] = rest {
        match rest.get(8 * usize::from(*units)..) {
            Some(after) if *units > 0 => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// True for an ICMPv6 packet without extension headers that has the checksum that it should have.
fn is_right_icmp6(frame: &[u8]) -> bool {
    let layers = locate(frame, frame.len()).0;
    let (from, to) = (layers.network + 8, layers.network + 40);
    let (Some(addresses), Some(body)) =
        (frame.get(from..to), frame.get(layers.transport..layers.end))
    else {
        return false;
    };
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0));
    let sum: u32 = addresses.chunks(2).chain(body.chunks(2)).map(word).sum();
    let sum = sum + u32::from(ip_proto::ICMPV6) + body.len() as u32;
    sum != 0 && sum.is_multiple_of(0xffff) && layers.transport == to
}

fn sets_more_than_ethernet(action: &Action) -> bool {
    let Action::Set(rewrite) = action else { return false };
    let addresses = flow::Mac::default();
    let rest = FlowKey { dl_src: addresses, dl_dst: addresses, ..*rewrite.mask.bits() };
    rest != FlowKey::default()
}

/// True if a frame becomes longer or shorter between being cut and being sent.
fn resizes_what_is_cut(actions: &[Action]) -> bool {
    let lists = actions.split(|a| matches!(a, Action::Output(_)));
    let cut =
        |list: &[Action]| list.iter().skip_while(|a| !matches!(a, Action::Trunc(_))).any(resizes);
    let within = |a: &Action| nested(a).into_iter().any(resizes_what_is_cut);
    lists.into_iter().any(cut) || actions.iter().any(within)
}

/// True for actions that make a frame longer or shorter.
fn resizes(action: &Action) -> bool {
    matches!(
        action,
        Action::PushVlan(_) | Action::PopVlan | Action::PushMpls { .. } | Action::PopMpls { .. }
    )
}

fn sets_address_or_transport(action: &Action) -> bool {
    let Action::Set(rewrite) = action else { return false };
    let Rewrite { mask, .. } = &**rewrite;
    let m = mask.bits();
    let of_4 = m.nw_src.get() | m.nw_dst.get() != 0;
    let of_6 = [m.ipv6_src, m.ipv6_dst] != [[0; 16]; 2];
    of_4 || of_6 || m.tp_src.get() | m.tp_dst.get() != 0
}
