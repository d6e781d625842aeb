//! Fields and matches compared with `ovs-ofctl`'s. Needs the Debian package `openvswitch-switch`, and
//! fails without.

use openflow::{Field, Oxm, Prereq, fields, fld, format_match, parse_match};
use std::io::Write;
use std::process::{Command, Stdio};

/// What `ovs-ofctl` prints and complains of, and whether it liked it.
fn ofctl(args: &[&str], input: &str) -> (String, String, bool) {
    let mut command = Command::new("ovs-ofctl");
    command.arg("-vANY:off").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| {
        panic!("ovs-ofctl: {e}; install the Debian package openvswitch-switch")
    });
    let mut pipe = child.stdin.take().expect("a pipe");
    // It may end without reading all.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let out = child.wait_with_output().expect("it ends");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (text(&out.stdout), text(&out.stderr), out.status.success())
}

/// What `ovs-ofctl` makes of a match: its text when printed, or why not.
fn theirs(text: &str) -> Result<String, String> {
    let flow = format!("{text}{}actions=drop", if text.is_empty() { "" } else { "," });
    let (said, complaint, liked) = ofctl(&["parse-flow", &flow], "");
    if let Some((_, error)) = said.split_once("decode error: ") {
        return Err(error.split("***").next().unwrap_or_default().to_owned());
    }
    if !liked {
        return Err(complaint.trim().trim_start_matches("ovs-ofctl: ").to_owned());
    }
    let line = said.lines().find_map(|l| l.split_once(": ADD ")).expect("one flow").1;
    Ok(line.strip_suffix("actions=drop").expect("actions").trim_end().to_owned())
}

fn ours(text: &str) -> Result<String, String> {
    match parse_match(text, &()) {
        Ok(m) => Ok(format_match(&m, &(), None)),
        Err(e) => Err(e.reason),
    }
}

/// Both refuse, for the same reason: in the same words, or with OpenFlow's name for the error.
fn same_reason(ours: &str, theirs: &str) -> bool {
    let code =
        |t: &str| t.split([':', ' ', '(', ')']).find(|w| w.starts_with("OFPB")).map(str::to_owned);
    ours == theirs || code(ours).is_some() && code(ours) == code(theirs)
}

/// Compares the reading and printing of matches, and of what was printed.
fn compare(matches: &[&str]) {
    let mut wrong = Vec::new();
    for text in matches {
        match (ours(text), theirs(text)) {
            (Ok(mine), Ok(other)) if mine == other => {
                let again = ours(&mine);
                // A tag that is not there cannot be said in the words that OVS prints it with.
                if again.as_deref() != Ok(&mine) && again != theirs(&mine) {
                    wrong.push(format!("{text}: {mine} is read as {again:?}"));
                }
            }
            (Err(mine), Err(other)) if same_reason(&mine, &other) => {}
            (mine, other) => wrong.push(format!("{text}:\n  ours   {mine:?}\n  theirs {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines of a list, without comments.
fn lines(list: &str) -> Vec<&str> {
    list.lines().filter(|l| !l.starts_with('#')).collect()
}

#[test]
fn matches_are_read_and_printed_alike() {
    compare(&lines(include_str!("matches.txt")));
}

/// Where ours differs on purpose: what it makes of a match, and why.
#[test]
fn differences() {
    let cases = [
        // Fields that OVS has but cannot be told of by OpenFlow.
        ("tun_ttl=5", "tun_ttl=5"),
        ("tun_tos=5", "tun_tos=5"),
        // OVS looks at the mask but prints the value alone, so that its dump does not say the flow.
        ("tun_gbp_flags=5/7", "tun_gbp_flags=0x5/0x7"),
        ("tun_gtpu_flags=5/7", "tun_gtpu_flags=0x5/0x7"),
        // OVS prints these under names that it does not read.
        ("tun_gtpu_flags=5", "tun_gtpu_flags=0x5"),
        ("tun_gtpu_msgtype=5", "tun_gtpu_msgtype=5"),
        ("tun_erspan_ver=1/1", "tun_erspan_ver=0x1/0x1"),
        ("icmp,tp_src=8/0xf", "icmp,tp_src=0x8/0xf"),
        // OVS drops these silently unless the version is matched too.
        ("tun_erspan_idx=5", "tun_erspan_idx=0x5"),
        ("tun_erspan_dir=1", "tun_erspan_dir=1"),
        ("tun_erspan_hwid=5", "tun_erspan_hwid=0x5"),
        // ICMP's type has 8 bits, and an ERSPAN version 4.
        ("icmp,tp_src=300", "icmp,icmp_type=44"),
        ("tun_erspan_ver=22", "tun_erspan_ver=6"),
        // Without a map of options OVS does not know how long they are; ours have 8 bytes.
        ("tun_metadata0=1/0xff", "tun_metadata0=0x1/0xff"),
    ];
    for (text, mine) in cases {
        assert_eq!(ours(text).as_deref(), Ok(mine), "{text}");
        assert_ne!(theirs(text).as_deref(), Ok(mine), "{text}: no longer different");
    }
    let refused = [
        // OVS takes 256 for 0.
        "ip,nw_src=256.1.1.1",
        // The switch itself refuses what ovs-ofctl lets through.
        "dp_hash=5",
        "tun_metadata0=0x12345678901234567",
        "packet_type=(1,0x800)/5",
        // There is no NSH here.
        "nsh_flags=1",
    ];
    for text in refused {
        assert!(ours(text).is_err(), "{text}");
    }
}

/// A generator of numbers that is the same everywhere (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// A random value of a field, with a mask sometimes.
fn value_of(field: &Field, r: &mut Random) -> String {
    use openflow::Format as F;
    let masked = r.below(3) == 0;
    match field.format {
        F::Decimal | F::Hex => {
            let bits = u32::from(field.bits).min(60);
            let n = (r.below(1 << 30) as u64) << 30 | r.below(1 << 30) as u64;
            let value = n & ((1 << bits) - 1);
            match masked {
                true => format!("{value:#x}/{:#x}", r.below(1 << bits.min(16))),
                false => value.to_string(),
            }
        }
        F::Ethernet => r.pick(&["02:00:00:00:00:01", "1:2:3:4:5:6/ff:ff:ff:0:0:0", "*"]).to_owned(),
        F::Ipv4 => {
            r.pick(&["10.0.0.1", "10.1.0.0/16", "1.2.3.4/255.0.255.0", "0.0.0.0/0"]).to_owned()
        }
        F::Ipv6 => r.pick(&["fe80::1", "2001:db8::/32", "::1/::ff", "::ffff:1.2.3.4"]).to_owned(),
        F::Port16 | F::Port32 => r.pick(&["1", "LOCAL", "65534", "none", "x"]).to_owned(),
        F::Frag => r.pick(&["no", "yes", "first", "later", "not_later", "maybe"]).to_owned(),
        F::TcpFlags => r.pick(&["+syn-ack", "syn|fin", "0x12/0x3f", "0", "+ns"]).to_owned(),
        F::TunnelFlags => r.pick(&["oam", "-oam", "0"]).to_owned(),
        F::CtState => r.pick(&["+trk+est", "+trk-inv", "trk|new", "0x21/0x21", "-trk"]).to_owned(),
        F::PacketType => r.pick(&["(0,0)", "(1,0x800)"]).to_owned(),
    }
}

#[test]
fn generated_matches() {
    let words =
        ["ip", "ipv6", "tcp", "tcp6", "udp", "udp6", "icmp", "icmp6", "arp", "mpls", "sctp"];
    let known: Vec<&Field> = fields()
        .iter()
        // Their differences are listed above.
        .filter(|f| !f.name.starts_with("tun_") || f.name == "tun_id" || f.name == "tun_src")
        .filter(|f| !["dp_hash", "packet_type"].contains(&f.name))
        .collect();
    let mut r = Random(20_230_417);
    let mut matches = Vec::new();
    while matches.len() < 400 {
        let word = r.pick(&words);
        let mut text = vec![word.to_owned()];
        for _ in 0..1 + r.below(5) {
            let field = known[r.below(known.len())];
            // Two of three are fields that such packets have.
            let fits = parse_match(word, &()).is_ok_and(|m| field.prereqs_met(&m));
            if fits || r.below(3) == 0 {
                let name = field.alias.filter(|_| r.below(2) == 0).unwrap_or(field.name);
                text.push(format!("{name}={}", value_of(field, &mut r)));
            }
        }
        // A masked port of ICMP is among the differences.
        if !(word.starts_with("icmp") && text.iter().any(|t| t.contains("p_") && t.contains('/'))) {
            matches.push(text.join(","));
        }
    }
    compare(&matches.iter().map(String::as_str).collect::<Vec<_>>());
}

/// What a match must say before it can say a field, as `ovs-ofctl parse-nxm` reads it.
fn prelude(prereq: Prereq) -> &'static str {
    match prereq {
        Prereq::None | Prereq::Ethernet => "",
        Prereq::Vlan => "OXM_OF_VLAN_VID(1001), ",
        Prereq::Arp => "NXM_OF_ETH_TYPE(0806), ",
        Prereq::Ipv4 | Prereq::Ip => "NXM_OF_ETH_TYPE(0800), ",
        Prereq::Ipv6 => "NXM_OF_ETH_TYPE(86dd), ",
        Prereq::Mpls => "NXM_OF_ETH_TYPE(8847), ",
        Prereq::Tcp => "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_PROTO(06), ",
        Prereq::Udp => "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_PROTO(11), ",
        Prereq::Sctp => "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_PROTO(84), ",
        Prereq::Icmpv4 => "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_PROTO(01), ",
        Prereq::Icmpv6 => "NXM_OF_ETH_TYPE(86dd), NXM_OF_IP_PROTO(3a), ",
        Prereq::Nd | Prereq::NdSolicit => {
            "NXM_OF_ETH_TYPE(86dd), NXM_OF_IP_PROTO(3a), NXM_NX_ICMPV6_TYPE(87), \
             NXM_NX_ICMPV6_CODE(00), "
        }
        Prereq::NdAdvert => {
            "NXM_OF_ETH_TYPE(86dd), NXM_OF_IP_PROTO(3a), NXM_NX_ICMPV6_TYPE(88), \
             NXM_NX_ICMPV6_CODE(00), "
        }
        Prereq::Ct => "NXM_OF_ETH_TYPE(0800), NXM_NX_CT_STATE(00000022), NXM_NX_CT_NW_PROTO(06), ",
    }
}

/// One field by its numbers, with the value 1, or the lowest that it can have.
fn by_number(field: &Field, oxm: &Oxm) -> String {
    let value = if field.name == "nw_tos" { 4 } else { 1_u128 };
    let length = field.wire;
    let digits = usize::from(length) * 2;
    let header = match oxm.experimenter {
        0 => format!("{:04x}{:02x}{length:02x}", oxm.class, oxm.number << 1),
        e => format!("{:04x}{:02x}{:02x}{e:08x}", oxm.class, oxm.number << 1, length + 4),
    };
    let mut before = prelude(field.prereq);
    match field.name {
        "tun_erspan_idx" => before = "NXOXM_ET_ERSPAN_VER(01), ",
        "tun_erspan_dir" | "tun_erspan_hwid" => before = "NXOXM_ET_ERSPAN_VER(02), ",
        _ => {}
    }
    if field == fld::CT_NW_PROTO {
        before = before.trim_end_matches("NXM_NX_CT_NW_PROTO(06), ");
    }
    format!("{before}{header}({value:0digits$x})\n")
}

/// Every class and number is that of the name: `ovs-ofctl` is given the numbers and prints the names.
#[test]
fn numbers() {
    for field in fields() {
        let registers = ["xreg", "xxreg"].iter().any(|p| field.name.starts_with(p));
        let addresses = field.name.starts_with("ct_ipv6");
        // Printed as what they are part of, or in need of what others must not have.
        if registers || addresses || [fld::VLAN_VID, fld::VLAN_PCP].contains(&field) {
            continue;
        }
        if let Some(nxm) = &field.nxm {
            let (said, complaint, _) = ofctl(&["parse-nxm"], &by_number(field, nxm));
            let is = ["(", "_W("].iter().any(|end| said.contains(&format!("{}{end}", nxm.name)));
            assert!(is, "{}: {said}{complaint}", field.name);
        }
        if let Some(oxm) = &field.oxm {
            let (said, complaint, _) = ofctl(&["parse-oxm", "OpenFlow15"], &by_number(field, oxm));
            let name = oxm.name.replace("ONFOXM_ET", "OXM_OF");
            assert!(said.contains(&format!("{name}(")), "{}: {said}{complaint}", field.name);
        }
    }
}

/// What actions may write, and how wide fields are, is what `ovs-ofctl` says.
#[test]
fn widths() {
    for field in fields().iter().filter(|f| f.nxm.is_some() || f.oxm.is_some()) {
        // Options have 124 bytes in OVS.
        if field.name.starts_with("tun_metadata") {
            continue;
        }
        let flow = format!("actions=load:0->{}[{}]", field.wire_name(), field.bits);
        let (_, complaint, _) = ofctl(&["parse-flow", &flow], "");
        let expected = format!("field is only {} bits wide", field.bits);
        assert!(complaint.contains(&expected), "{}: {complaint}", field.name);
        let text = format!("{}[{}]", field.wire_name(), field.bits);
        let mine = openflow::Subfield::parse(&text).expect_err("beyond its end");
        assert!(complaint.contains(&mine.reason), "{}: {complaint} {}", field.name, mine.reason);
    }
}
