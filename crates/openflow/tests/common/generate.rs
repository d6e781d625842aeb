//! Random flows, groups and meters that a switch takes: well-formed text whose actions suit its match.
//! The same seed gives the same text.

/// A small generator of random numbers (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number of up to so many bits; small and large ones are as likely.
    pub fn bits(&mut self, bits: u32) -> u128 {
        let wide = u128::from(self.next()) << 64 | u128::from(self.next());
        let used = self.below(u64::from(bits) + 1) as u32;
        if used == 0 { 0 } else { wide >> (128 - used) }
    }
}

/// What is known of a packet: which actions suit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub ether: Ether,
    /// TCP 6, UDP 17, SCTP 132, ICMP 1, ICMPv6 58; 0 if not known.
    pub proto: u8,
    pub tags: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ether {
    Unknown,
    Arp,
    Ipv4,
    Ipv6,
    Mpls,
}

impl Packet {
    fn is_ip(self) -> bool {
        matches!(self.ether, Ether::Ipv4 | Ether::Ipv6)
    }
    fn has_ports(self) -> bool {
        self.is_ip() && matches!(self.proto, 6 | 17 | 132)
    }
}

const MATCHES: [(&str, Ether, u8); 13] = [
    ("", Ether::Unknown, 0),
    ("arp", Ether::Arp, 0),
    ("ip", Ether::Ipv4, 0),
    ("ipv6", Ether::Ipv6, 0),
    ("tcp", Ether::Ipv4, 6),
    ("udp", Ether::Ipv4, 17),
    ("sctp", Ether::Ipv4, 132),
    ("icmp", Ether::Ipv4, 1),
    ("tcp6", Ether::Ipv6, 6),
    ("udp6", Ether::Ipv6, 17),
    ("icmp6", Ether::Ipv6, 58),
    ("mpls", Ether::Mpls, 0),
    ("ip", Ether::Ipv4, 0),
];

/// The first words of a match, and what they say of its packets.
pub fn packet(rng: &mut Rng) -> (String, Packet) {
    let (text, ether, proto) = rng.pick(&MATCHES);
    let mut words = Vec::from([text.to_owned()]);
    let tags = u8::from(rng.once_in(4));
    if tags > 0 {
        words.push(format!("dl_vlan={}", rng.below(4095)));
    }
    if rng.once_in(3) {
        words.push(format!("in_port={}", 1 + rng.below(2)));
    }
    words.retain(|w| !w.is_empty());
    (words.join(","), Packet { ether, proto, tags })
}

/// Whether something suits a packet.
type Suits = fn(Packet) -> bool;

type FieldRow = (&'static str, &'static str, u32, Suits);

/// Fields that actions write: name, wire name, bits, and what the packet must be.
const FIELDS: [FieldRow; 25] = [
    ("reg0", "NXM_NX_REG0", 32, |_| true),
    ("reg7", "NXM_NX_REG7", 32, |_| true),
    ("reg15", "NXM_NX_REG15", 32, |_| true),
    ("xreg3", "OXM_OF_PKT_REG3", 64, |_| true),
    ("xxreg1", "NXM_NX_XXREG1", 128, |_| true),
    ("metadata", "OXM_OF_METADATA", 64, |_| true),
    ("pkt_mark", "NXM_NX_PKT_MARK", 32, |_| true),
    ("tun_id", "NXM_NX_TUN_ID", 64, |_| true),
    ("in_port", "NXM_OF_IN_PORT", 16, |_| true),
    ("eth_src", "NXM_OF_ETH_SRC", 48, |_| true),
    ("eth_dst", "NXM_OF_ETH_DST", 48, |_| true),
    ("vlan_tci", "NXM_OF_VLAN_TCI", 16, |_| true),
    ("vlan_pcp", "OXM_OF_VLAN_PCP", 3, |p| p.tags > 0),
    ("ip_src", "NXM_OF_IP_SRC", 32, |p| p.ether == Ether::Ipv4),
    ("ip_dst", "NXM_OF_IP_DST", 32, |p| p.ether == Ether::Ipv4),
    ("ipv6_src", "NXM_NX_IPV6_SRC", 128, |p| p.ether == Ether::Ipv6),
    ("ipv6_label", "NXM_NX_IPV6_LABEL", 20, |p| p.ether == Ether::Ipv6),
    ("nw_ttl", "NXM_NX_IP_TTL", 8, Packet::is_ip),
    ("nw_ecn", "NXM_NX_IP_ECN", 2, Packet::is_ip),
    ("arp_op", "NXM_OF_ARP_OP", 16, |p| p.ether == Ether::Arp),
    ("arp_spa", "NXM_OF_ARP_SPA", 32, |p| p.ether == Ether::Arp),
    ("arp_sha", "NXM_NX_ARP_SHA", 48, |p| p.ether == Ether::Arp),
    ("mpls_label", "OXM_OF_MPLS_LABEL", 20, |p| p.ether == Ether::Mpls),
    ("tcp_dst", "NXM_OF_TCP_DST", 16, |p| p.is_ip() && p.proto == 6),
    ("udp_src", "NXM_OF_UDP_SRC", 16, |p| p.is_ip() && p.proto == 17),
];

fn field(rng: &mut Rng, p: Packet) -> FieldRow {
    let fit: Vec<FieldRow> = FIELDS.into_iter().filter(|(.., suits)| suits(p)).collect();
    rng.pick(&fit)
}

/// A value as a field's values are written.
fn value(rng: &mut Rng, name: &str, bits: u32) -> String {
    let n = rng.bits(bits);
    match name {
        "eth_src" | "eth_dst" | "arp_sha" => mac(n as u64),
        "ip_src" | "ip_dst" | "arp_spa" => std::net::Ipv4Addr::from(n as u32).to_string(),
        // It is kept in 8 of its 16 bits.
        "arp_op" => (n & 0xff).to_string(),
        // Those that begin with zeros are printed in one of two ways.
        "ipv6_src" => std::net::Ipv6Addr::from(n | 1 << 127).to_string(),
        "in_port" => rng.pick(&["1", "2", "LOCAL", "77"]).to_owned(),
        // Larger decimal numbers than 64 bits have are not read.
        _ if n > u128::from(u64::MAX) || rng.once_in(2) => format!("{n:#x}"),
        _ => n.to_string(),
    }
}

fn mac(n: u64) -> String {
    let bytes: Vec<String> = n.to_be_bytes()[2..].iter().map(|b| format!("{b:02x}")).collect();
    bytes.join(":")
}

/// Part of a field, and how many bits it has.
fn subfield(rng: &mut Rng, p: Packet) -> (String, u32) {
    let (name, wire, bits, _) = field(rng, p);
    let name = rng.pick(&[name, wire]);
    if rng.once_in(2) {
        return (format!("{name}[]"), bits);
    }
    let first = rng.below(u64::from(bits)) as u32;
    let width = 1 + rng.below(u64::from(bits - first)) as u32;
    (part(name, first, width), width)
}

fn part(name: &str, first: u32, width: u32) -> String {
    match width {
        1 => format!("{name}[{first}]"),
        _ => format!("{name}[{first}..{}]", first + width - 1),
    }
}

/// Any part of a register that has this many bits.
fn register(rng: &mut Rng, width: u32) -> String {
    let (name, bits) = match width {
        ..=32 => (format!("reg{}", rng.below(16)), 32),
        33..=64 => (format!("xreg{}", rng.below(8)), 64),
        _ => (format!("xxreg{}", rng.below(4)), 128),
    };
    let first = rng.below(u64::from(bits - width) + 1) as u32;
    part(&name, first, width)
}

/// Where actions stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A flow that OpenFlow 1.0 can say.
    Flow,
    /// A flow that may push VLAN tags.
    Flow13,
    Clone,
    ActionSet,
}

type Maker = fn(&mut Rng, &mut Packet) -> String;

/// Actions that suit any packet and may stand in an action set.
const COMMON: [Maker; 12] = [
    |r, _| format!("output:{}", r.pick(&["1", "2", "65000", "p1"])),
    |r, _| r.pick(&["NORMAL", "flood", "ALL", "LOCAL", "IN_PORT"]).to_owned(),
    |r, _| match r.below(2) {
        0 => "CONTROLLER".to_owned(),
        _ => format!("controller:{}", r.below(65536)),
    },
    |r, _| format!("set_queue:{}", r.bits(32)),
    |r, _| format!("mod_dl_src:{}", mac(r.bits(48) as u64)),
    |r, _| format!("mod_dl_dst:{}", mac(r.bits(48) as u64)),
    |r, _| format!("set_tunnel:{:#x}", r.bits(40)),
    |r, _| format!("set_tunnel64:{:#x}", r.bits(64)),
    |r, p| set_field(r, p),
    |r, p| set_field(r, p),
    |r, p| load(r, p),
    |r, p| {
        let (src, width) = subfield(r, *p);
        format!("move:{src}->{}", register(r, width))
    },
];

/// Actions that change what the packet is, or need it to be something.
const HEADERS: [(Suits, Maker); 9] = [
    (
        |p| p.ether == Ether::Ipv4,
        |r, _| {
            format!(
                "mod_nw_{}:{}",
                r.pick(&["src", "dst"]),
                std::net::Ipv4Addr::from(r.bits(32) as u32)
            )
        },
    ),
    (Packet::is_ip, |r, _| format!("mod_nw_tos:{}", r.below(64) * 4)),
    (Packet::is_ip, |r, _| format!("mod_nw_{}", r.pick(&["ecn:2", "ttl:64", "ttl:0", "ecn:0"]))),
    (Packet::is_ip, |_, _| "dec_ttl".to_owned()),
    (Packet::has_ports, |r, _| format!("mod_tp_{}:{}", r.pick(&["src", "dst"]), r.bits(16))),
    (
        |p| p.ether == Ether::Mpls,
        |r, _| {
            r.pick(&["set_mpls_label:77", "set_mpls_tc:5", "set_mpls_ttl:9", "dec_mpls_ttl"])
                .to_owned()
        },
    ),
    (
        |p| p.ether != Ether::Unknown,
        |_, p| {
            (p.ether, p.proto) = (Ether::Mpls, 0);
            "push_mpls:0x8847".to_owned()
        },
    ),
    (
        |p| p.ether == Ether::Mpls,
        |r, p| {
            let (text, ether) = r.pick(&[
                ("pop_mpls:0x0800", Ether::Ipv4),
                ("pop_mpls:0x86dd", Ether::Ipv6),
                ("pop_mpls:0x8847", Ether::Mpls),
            ]);
            (p.ether, p.proto) = (ether, 0);
            text.to_owned()
        },
    ),
    (
        |p| p.tags > 0,
        |_, p| {
            p.tags -= 1;
            "strip_vlan".to_owned()
        },
    ),
];

/// Actions that may not stand in an action set.
const FLOW_ONLY: [Maker; 18] = [
    |r, _| controller(r),
    |r, p| {
        let (src, _) = subfield(r, *p);
        format!("push:{src}")
    },
    |r, p| {
        let (dst, _) = subfield(r, *p);
        format!("pop:{dst}")
    },
    |r, _| format!("output(port={},max_len={})", r.pick(&["1", "LOCAL", "2"]), 14 + r.below(2000)),
    |r, _| {
        let width = 1 + r.below(32) as u32;
        format!("output:{}", register(r, width))
    },
    |r, _| format!("note:{:016x}", r.next()),
    |_, _| "exit".to_owned(),
    |_, _| "pop_queue".to_owned(),
    |r, _| format!("resubmit({},{})", r.pick(&["", "1", "2", "LOCAL"]), r.below(255)),
    |r, _| format!("resubmit:{}", 1 + r.below(100)),
    |r, _| format!("check_pkt_larger({})->{}", r.bits(16), register(r, 1)),
    |r, p| multipath(r, *p),
    |r, _| bundle(r),
    |r, _| sample(r),
    |r, p| learn(r, *p),
    |r, p| learn(r, *p),
    |r, p| {
        let mut inner = *p;
        let n = r.below(3);
        format!("clone({})", list(r, &mut inner, Place::Clone, n))
    },
    |r, p| match p.proto {
        6 => format!("fin_timeout(idle_timeout={},hard_timeout={})", r.below(9), r.below(9)),
        _ if p.is_ip() => conntrack(r, *p),
        _ => "exit".to_owned(),
    },
];

fn controller(r: &mut Rng) -> String {
    let mut parts = Vec::new();
    let reason =
        r.pick(&["action", "no_match", "invalid_ttl", "action_set", "group", "packet_out"]);
    let all = [
        format!("reason={reason}"),
        format!("max_len={}", r.below(65536)),
        format!("id={}", r.below(65536)),
        format!("userdata={:08x}", r.next() as u32),
        "pause".to_owned(),
        format!("meter_id={}", 1 + r.below(1000)),
    ];
    for part in all {
        if r.once_in(2) {
            parts.push(part);
        }
    }
    format!("controller({})", parts.join(","))
}

fn set_field(r: &mut Rng, p: &mut Packet) -> String {
    let (name, _, bits, _) = field(r, *p);
    if name == "vlan_tci" {
        // Without the bit of a tag it takes the tag away, which actions after it may need.
        p.tags = 1;
        return format!("set_field:{:#x}->vlan_tci", r.bits(16) | 0x1000);
    }
    let maskable = bits >= 32 && name.contains("reg") || name == "metadata" || name == "pkt_mark";
    if maskable && r.once_in(2) {
        let (value, mask) = (r.bits(bits), r.bits(bits) | 1);
        return format!("set_field:{:#x}/{mask:#x}->{name}", value & mask);
    }
    format!("set_field:{}->{name}", value(r, name, bits))
}

fn load(r: &mut Rng, p: &mut Packet) -> String {
    let (dst, width) = subfield(r, *p);
    if dst.contains("vlan_tci") || dst.contains("VLAN_TCI") {
        // OVS takes what a part is set to for the whole, which may have no tag then.
        p.tags = 1;
        return format!("load:{:#x}->NXM_OF_VLAN_TCI[]", r.bits(16) | 0x1000);
    }
    format!("load:{:#x}->{dst}", r.bits(width))
}

fn multipath(r: &mut Rng, _: Packet) -> String {
    let fields = r.pick(&HASHES);
    let algorithm = r.pick(&["modulo_n", "hash_threshold", "hrw", "iter_hash"]);
    let width = 8 + r.below(24) as u32;
    let (basis, links, arg) = (r.below(65536), 1 + r.below(256), r.bits(32));
    format!("multipath({fields},{basis},{algorithm},{links},{arg},{})", register(r, width))
}

const HASHES: [&str; 7] = [
    "eth_src",
    "symmetric_l4",
    "symmetric_l3l4",
    "symmetric_l3l4+udp",
    "nw_src",
    "nw_dst",
    "symmetric_l3",
];

fn bundle(r: &mut Rng) -> String {
    let fields = r.pick(&HASHES);
    let algorithm = r.pick(&["hrw", "active_backup"]);
    let ports: Vec<String> = (0..1 + r.below(4)).map(|_| (1 + r.below(9)).to_string()).collect();
    let (basis, ports) = (r.below(65536), ports.join(","));
    if r.once_in(2) {
        return format!("bundle({fields},{basis},{algorithm},ofport,members:{ports})");
    }
    let width = 16 + r.below(17) as u32;
    let dst = register(r, width);
    format!("bundle_load({fields},{basis},{algorithm},ofport,{dst},members:{ports})")
}

fn sample(r: &mut Rng) -> String {
    let mut text = format!("sample(probability={}", 1 + r.below(65535));
    for key in ["collector_set_id", "obs_domain_id", "obs_point_id"] {
        if r.once_in(2) {
            text += &format!(",{key}={}", r.bits(32));
        }
    }
    text + r.pick(&[")", ",sampling_port=1)", ",sampling_port=LOCAL,egress)", ",ingress)"])
}

fn learn(r: &mut Rng, p: Packet) -> String {
    let mut parts = vec![format!("table={}", r.below(255))];
    for (key, max) in [("idle_timeout", 9), ("hard_timeout", 65536), ("fin_idle_timeout", 9)]
        .into_iter()
        .chain([("fin_hard_timeout", 9), ("priority", 65536), ("cookie", u64::MAX), ("limit", 99)])
    {
        if r.once_in(4) {
            parts.push(format!("{key}={}", r.below(max)));
        }
    }
    for flag in ["send_flow_rem", "delete_learned"] {
        if r.once_in(6) {
            parts.push(flag.to_owned());
        }
    }
    if r.once_in(6) {
        parts.push(format!("result_dst={}", register(r, 1)));
    }
    for _ in 0..r.below(5) {
        let (src, width) = subfield(r, p);
        let dst = register(r, width);
        parts.push(match r.below(8) {
            0 => "NXM_OF_VLAN_TCI[0..11]".to_owned(),
            1 => "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]".to_owned(),
            2 => format!("eth_src={}", mac(r.bits(48) as u64)),
            3 => format!("{dst}={:#x}", r.bits(width)),
            4 => format!("{dst}={src}"),
            5 => format!("load:{src}->{dst}"),
            6 => format!("load:{:#x}->{dst}", r.bits(width)),
            _ => "output:NXM_OF_IN_PORT[]".to_owned(),
        });
    }
    format!("learn({})", parts.join(","))
}

fn conntrack(r: &mut Rng, p: Packet) -> String {
    let mut parts = Vec::new();
    let commit = r.once_in(2);
    if commit {
        parts.push("commit".to_owned());
    }
    if commit && r.once_in(3) {
        parts.push("force".to_owned());
    }
    if r.once_in(3) {
        parts.push(format!("table={}", r.below(255)));
    }
    if r.once_in(3) {
        parts.push(r.pick(&["zone=5", "zone=NXM_NX_REG0[0..15]", "zone=65535"]).to_owned());
    }
    if !commit {
        parts.extend(r.once_in(3).then(|| "nat".to_owned()));
        return format!("ct({})", parts.join(","));
    }
    let ranges = match p.ether {
        Ether::Ipv4 => ["nat(src=10.0.0.1)", "nat(dst=10.0.0.1-10.0.0.9:80-90,random)", "nat(src)"],
        _ => ["nat(src=fe80::1)", "nat(dst=[fe80::1]-[fe80::9]:80,persistent)", "nat"],
    };
    if r.once_in(2) {
        parts.push(r.pick(&ranges).to_owned());
    }
    if r.once_in(2) {
        let mark = format!("set_field:{:#x}->ct_mark", r.bits(32));
        let label = format!("load:{:#x}->NXM_NX_CT_LABEL[3..20]", r.bits(18));
        parts.push(format!("exec({mark},{label})"));
    }
    format!("ct({})", parts.join(","))
}

/// A list of up to `n` actions, at least one.
fn list(rng: &mut Rng, p: &mut Packet, place: Place, n: u64) -> String {
    let mut out = Vec::new();
    for _ in 0..=n {
        let p_now = *p;
        let headers: Vec<Maker> =
            HEADERS.into_iter().filter(|(suits, _)| suits(p_now)).map(|(_, make)| make).collect();
        out.push(match rng.below(6) {
            0 | 1 if !headers.is_empty() => rng.pick(&headers)(rng, p),
            2 | 3 if place != Place::ActionSet => rng.pick(&FLOW_ONLY)(rng, p),
            // Two tags are as many as there can be.
            4 if place == Place::Flow13 && p.tags == 0 => {
                p.tags += 1;
                rng.pick(&["push_vlan:0x8100", "push_vlan:0x88a8"]).to_owned()
            }
            4 if place == Place::Flow => vlan(rng, p),
            _ => rng.pick(&COMMON)(rng, p),
        });
    }
    out.join(",")
}

fn vlan(rng: &mut Rng, p: &mut Packet) -> String {
    p.tags = p.tags.max(1);
    match rng.below(2) {
        0 => format!("mod_vlan_vid:{}", rng.below(4096)),
        _ => format!("mod_vlan_pcp:{}", rng.below(8)),
    }
}

/// Actions for a packet. With `openflow13` there is something in them that only OpenFlow 1.3 can say.
pub fn actions(rng: &mut Rng, mut p: Packet, openflow13: bool) -> String {
    let n = rng.below(6);
    if !openflow13 {
        return list(rng, &mut p, Place::Flow, n);
    }
    let mut parts = Vec::new();
    if rng.once_in(4) {
        parts.push("meter:1".to_owned());
    }
    if !rng.once_in(4) {
        parts.push(list(rng, &mut p, Place::Flow13, n));
    }
    if rng.once_in(3) {
        parts.push("clear_actions".to_owned());
    }
    if rng.once_in(2) {
        let n = rng.below(4);
        let mut later = p;
        parts.push(format!("write_actions({})", list(rng, &mut later, Place::ActionSet, n)));
    }
    if rng.once_in(3) {
        parts.push(format!("write_metadata:{:#x}/{:#x}", rng.bits(64), rng.bits(64)));
    }
    parts.push(format!("goto_table:{}", 1 + rng.below(253)));
    parts.join(",")
}

/// A group with a number.
pub fn group(rng: &mut Rng, id: u32) -> String {
    let kind = rng.pick(&["all", "select", "indirect", "ff"]);
    let mut text = format!("group_id={id},type={kind}");
    if kind == "select" {
        text += rng.pick(&[
            "",
            ",selection_method=dp_hash",
            ",selection_method=hash,selection_method_param=7",
            ",selection_method=hash,fields(ip_dst,ip_src=255.255.0.0,nw_proto)",
            ",selection_method=hash,fields=eth_src",
        ]);
    }
    for _ in 0..if kind == "indirect" { 1 } else { rng.below(4) } {
        text += ",bucket=";
        if kind == "select" && rng.once_in(2) {
            text += &format!("weight={},", rng.below(65536));
        }
        if kind == "ff" {
            text += &format!("watch_port={},", 1 + rng.below(2));
        }
        let mut p = Packet { ether: Ether::Unknown, proto: 0, tags: 0 };
        let n = rng.below(3);
        text += &format!("actions={}", list(rng, &mut p, Place::ActionSet, n));
    }
    text
}

/// A meter with a number.
pub fn meter(rng: &mut Rng, id: u32) -> String {
    let burst = rng.once_in(2);
    let flags = format!("{}{}", rng.pick(&["kbps", "pktps"]), if burst { " burst" } else { "" });
    let mut text = format!("meter={id} {flags}{} bands=", rng.pick(&["", " stats"]));
    for _ in 0..1 + rng.below(3) {
        text += &format!(" type=drop rate={}", 1 + rng.bits(30));
        if burst {
            text += &format!(" burst_size={}", 1 + rng.bits(20));
        }
    }
    text
}
