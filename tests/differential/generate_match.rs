//! Matches of generated flows.

use crate::fields::{FIELDS, Field, Matching, Needs};
use crate::rng::Rng;
use crate::scenario::PORTS;
use crate::vocabulary::*;

/// What a flow's match says about its packets, and what its actions made of that so far.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// There is a tag, for sure.
    pub vlan: bool,
    /// The protocol above Ethernet, if it is known.
    pub l3: Option<L3>,
    /// The protocol above IP, if it is known.
    pub l4: Option<L4>,
}

impl Known {
    /// Nothing.
    pub const NOTHING: Known = Known { vlan: false, l3: None, l4: None };

    /// True if a field with these prerequisites may be used.
    pub fn allows(&self, needs: Needs) -> bool {
        let v4 = matches!(self.l3, Some(L3::Ipv4 | L3::Snap));
        let v6 = self.l3 == Some(L3::Ipv6);
        let l4 = |wanted| self.l4 == Some(wanted);
        match needs {
            Needs::Nothing => true,
            Needs::Vlan => self.vlan,
            Needs::Mpls => matches!(self.l3, Some(L3::Mpls(_))),
            Needs::Arp => self.l3 == Some(L3::Arp),
            Needs::Ipv4 => v4,
            Needs::Ipv6 => v6,
            Needs::Ip => v4 || v6,
            Needs::Tcp => l4(L4::Tcp),
            Needs::Udp => l4(L4::Udp),
            Needs::Sctp => l4(L4::Sctp),
            Needs::Icmp4 => v4 && l4(L4::Icmp),
            Needs::Icmp6 => v6 && matches!(self.l4, Some(L4::Icmp | L4::Nd(_))),
            Needs::Nd => matches!(self.l4, Some(L4::Nd(_))),
            Needs::Solicit => l4(L4::Nd(135)),
            Needs::Advert => l4(L4::Nd(136)),
        }
    }
}

/// A match for packets of a kind, as text without priority, and what it says.
pub fn matches(rng: &mut Rng, shape: &Shape) -> (Vec<String>, Known) {
    let mut words = Vec::new();
    let mut known = Known::NOTHING;
    if rng.chance(25) {
        words.push(format!("in_port={}", rng.familiar(&PORTS).1));
    }
    if rng.chance(20) {
        words.extend(vlan(rng, shape, &mut known));
    }
    if rng.chance(75) {
        words.extend(protocol(rng, shape, &mut known));
    }
    let mut candidates: Vec<&Field> = FIELDS
        .iter()
        .filter(|f| f.matching != Matching::Never && known.allows(f.needs))
        .filter(|f| words.is_empty() || !f.name.contains("vlan"))
        .filter(|f| known.l4.is_none() || f.name != "nw_proto")
        .filter(|f| !(known.allows(Needs::Nd) && f.name.starts_with("icmpv6")))
        .collect();
    // Each field once, and no two that are made of the same bits.
    for _ in 0..rng.weighted(&[(40, 0), (35, 1), (15, 2), (7, 3), (3, 5)]) {
        // The protocol's own fields are the interesting ones.
        let own: Vec<&Field> =
            candidates.iter().copied().filter(|f| f.needs != Needs::Nothing).collect();
        let field = if !own.is_empty() && rng.chance(70) {
            rng.pick(&own)
        } else if !candidates.is_empty() {
            rng.pick(&candidates)
        } else {
            break;
        };
        if words.iter().any(|w| is_word_for(w, field.name)) {
            continue;
        }
        candidates.retain(|f| !overlap(f, field));
        words.push(one(rng, field));
    }
    if known.allows(Needs::Ip) && rng.chance(12) {
        let fragment = rng.pick(&["no", "yes", "first", "later", "not_later"]);
        words.push(format!("ip_frag={fragment}"));
    }
    (words, known)
}

fn is_word_for(word: &str, name: &str) -> bool {
    word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

/// True if both are names for some of the same bits.
fn overlap(a: &Field, b: &Field) -> bool {
    let family = |f: &Field| match f.name {
        n if n.contains("vlan") => "vlan",
        "nw_tos" | "ip_dscp" => "dscp",
        n if n.contains("reg0") || n.contains("reg1") || n.starts_with("reg2") => {
            // xxreg0 holds reg0 to reg3, xreg0 reg0 and reg1, xreg1 reg2 and reg3.
            if n == "reg15" { "reg15" } else { "reg0-3" }
        }
        n => n,
    };
    family(a) == family(b)
}

fn one(rng: &mut Rng, field: &Field) -> String {
    let value = field.value(rng);
    if field.matching == Matching::Bits && rng.chance(45) {
        let mask = field.mask(rng);
        // What is outside the mask must not matter; some readers insist on zeros there.
        return format!("{}={}", field.name, field.masked_text(value & mask, mask));
    }
    format!("{}={}", field.name, field.text(value))
}

fn vlan(rng: &mut Rng, shape: &Shape, known: &mut Known) -> Vec<String> {
    let vid = rng.familiar(&VIDS);
    if shape.tags == 0 && rng.chance(70) {
        return vec![rng.pick(&["vlan_tci=0", "vlan_tci=0x0000/0x1000", "dl_vlan=0xffff"]).into()];
    }
    known.vlan = true;
    match rng.below(5) {
        0 => vec![format!("dl_vlan={vid}")],
        1 => vec![format!("dl_vlan={vid},dl_vlan_pcp={}", rng.pick(&[0, 3, 7]))],
        2 => vec!["vlan_tci=0x1000/0x1000".to_owned()],
        3 => vec![format!("vlan_vid={:#x}", 0x1000 | vid)],
        _ => vec![format!("vlan_vid={:#x}/{:#x}", 0x1000 | vid & 0x0f, 0x100f)],
    }
}

/// The words that say which protocol, as far as the flow cares.
fn protocol(rng: &mut Rng, shape: &Shape, known: &mut Known) -> Vec<String> {
    known.l3 = Some(shape.l3);
    let word = match shape.l3 {
        L3::Other => return vec![format!("dl_type={:#06x}", rng.familiar(&ETHER_TYPES))],
        L3::Llc => return vec!["dl_type=0x05ff".to_owned()],
        L3::Arp => return vec!["arp".to_owned()],
        L3::Rarp => return vec!["rarp".to_owned()],
        L3::Mpls(_) => {
            return vec![rng.weighted(&[(80, "mpls"), (20, "mplsm")]).to_owned()];
        }
        L3::Ipv4 | L3::Snap => "ip",
        L3::Ipv6 => "ipv6",
    };
    if rng.chance(30) {
        return vec![word.to_owned()];
    }
    known.l4 = Some(shape.l4);
    let six = if word == "ip" { "" } else { "6" };
    match shape.l4 {
        L4::Tcp => vec![format!("tcp{six}")],
        L4::Udp => vec![format!("udp{six}")],
        L4::Sctp => vec![format!("sctp{six}")],
        L4::Icmp => vec![format!("icmp{six}")],
        L4::Nd(kind) => vec!["icmp6".to_owned(), format!("icmpv6_type={kind},icmpv6_code=0")],
        L4::Igmp => vec![word.to_owned(), "nw_proto=2".to_owned()],
        L4::Other => vec![word.to_owned(), format!("nw_proto={}", rng.pick(&[47, 50, 4]))],
    }
}
