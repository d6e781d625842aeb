//! Actions that are a name and a few numbers: changes of headers, queues, tunnels, tables, timeouts.

use super::Cx;
use crate::action::Action;
use crate::error::ParseError;
use crate::number;
use crate::pairs::Pairs;
use flow::Mac;
use std::net::Ipv4Addr;

type Parsed = Result<Action, ParseError>;

/// A number that must be at most `max`; `what` is what it stands for.
fn at_most<T: Into<u32> + Copy>(word: &str, n: T, max: u32, what: &str) -> Result<T, ParseError> {
    match n.into() <= max {
        true => Ok(n),
        false => Err(ParseError::new(word, format!("{word}: not a valid {what}"))),
    }
}

pub(super) fn parse_mod_vlan_vid(word: &str, _: Cx<'_>) -> Parsed {
    let vid = number::u16(word, "VLAN VID")?;
    at_most(word, vid, 0xfff, "VLAN VID").map(Action::SetVlanVid)
}

pub(super) fn parse_mod_vlan_pcp(word: &str, _: Cx<'_>) -> Parsed {
    let pcp = number::u8(word, "VLAN PCP")?;
    at_most(word, pcp, 7, "VLAN PCP").map(Action::SetVlanPcp)
}

pub(super) fn parse_push_vlan(word: &str, _: Cx<'_>) -> Parsed {
    match number::u16(word, "ethertype")? {
        tpid @ (0x8100 | 0x88a8) => Ok(Action::PushVlan(tpid)),
        _ => Err(ParseError::new(word, format!("{word}: not a valid VLAN ethertype"))),
    }
}

fn mac(word: &str) -> Result<Mac, ParseError> {
    let wrong = || ParseError::new(word, format!("invalid mac address {word}"));
    let mut bytes = [0; 6];
    let mut parts = word.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|p| (1..=2).contains(&p.len())).ok_or_else(wrong)?;
        let hex = part.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| hex).ok_or_else(wrong)?;
    }
    match parts.next() {
        None => Ok(Mac(bytes)),
        Some(_) => Err(wrong()),
    }
}

pub(super) fn parse_mod_dl_src(word: &str, _: Cx<'_>) -> Parsed {
    mac(word).map(Action::SetEthSrc)
}

pub(super) fn parse_mod_dl_dst(word: &str, _: Cx<'_>) -> Parsed {
    mac(word).map(Action::SetEthDst)
}

fn ipv4(word: &str) -> Result<u32, ParseError> {
    let wrong = || ParseError::new(word, format!("{word}: could not convert to IP address"));
    word.parse::<Ipv4Addr>().map(u32::from).map_err(|_| wrong())
}

pub(super) fn parse_mod_nw_src(word: &str, _: Cx<'_>) -> Parsed {
    ipv4(word).map(Action::SetIpv4Src)
}

pub(super) fn parse_mod_nw_dst(word: &str, _: Cx<'_>) -> Parsed {
    ipv4(word).map(Action::SetIpv4Dst)
}

pub(super) fn parse_mod_nw_tos(word: &str, _: Cx<'_>) -> Parsed {
    match number::u8(word, "TOS")? {
        tos if tos & 3 == 0 => Ok(Action::SetIpDscp(tos)),
        _ => Err(ParseError::new(word, format!("{word}: not a valid TOS"))),
    }
}

pub(super) fn parse_mod_nw_ecn(word: &str, _: Cx<'_>) -> Parsed {
    let ecn = number::u8(word, "ECN")?;
    at_most(word, ecn, 3, "ECN").map(Action::SetIpEcn)
}

pub(super) fn parse_mod_nw_ttl(word: &str, _: Cx<'_>) -> Parsed {
    number::u8(word, "TTL").map(Action::SetIpTtl)
}

pub(super) fn parse_mod_tp_src(word: &str, _: Cx<'_>) -> Parsed {
    number::u16(word, "source port").map(Action::SetTpSrc)
}

pub(super) fn parse_mod_tp_dst(word: &str, _: Cx<'_>) -> Parsed {
    number::u16(word, "destination port").map(Action::SetTpDst)
}

pub(super) fn parse_dec_ttl(text: &str, _: Cx<'_>) -> Parsed {
    if text.is_empty() {
        return Ok(Action::DecTtl(vec![0]));
    }
    let words = text.split([',', ' ', ')']).filter(|w| !w.is_empty());
    let ids: Vec<u16> = words.map(|w| number::u16(w, "controller id")).collect::<Result<_, _>>()?;
    match ids.is_empty() {
        true => {
            let reason = "dec_ttl_cnt_ids: expected at least one controller id.";
            Err(ParseError::new(text, reason))
        }
        false => Ok(Action::DecTtl(ids)),
    }
}

/// Says what a value that is missing would be.
fn expected<'a>(word: &'a str, what: &str) -> Result<&'a str, ParseError> {
    match word {
        "" => Err(ParseError::new(word, format!("set_mpls_{what}: expected {what}."))),
        _ => Ok(word),
    }
}

pub(super) fn parse_set_mpls_label(word: &str, _: Cx<'_>) -> Parsed {
    let label = number::u32(expected(word, "label")?)?;
    at_most(word, label, 0xf_ffff, "MPLS label").map(Action::SetMplsLabel)
}

pub(super) fn parse_set_mpls_tc(word: &str, _: Cx<'_>) -> Parsed {
    let tc = number::u8(expected(word, "tc")?, "MPLS TC")?;
    at_most(word, tc, 7, "MPLS TC").map(Action::SetMplsTc)
}

pub(super) fn parse_set_mpls_ttl(word: &str, _: Cx<'_>) -> Parsed {
    number::u8(expected(word, "ttl")?, "MPLS TTL").map(Action::SetMplsTtl)
}

pub(super) fn parse_push_mpls(word: &str, _: Cx<'_>) -> Parsed {
    number::u16(word, "push_mpls").map(Action::PushMpls)
}

pub(super) fn parse_pop_mpls(word: &str, _: Cx<'_>) -> Parsed {
    number::u16(word, "pop_mpls").map(Action::PopMpls)
}

pub(super) fn parse_set_tunnel(word: &str, _: Cx<'_>) -> Parsed {
    let id = number::u64(word)?;
    Ok(Action::SetTunnel { id, wide: id > u32::MAX.into() })
}

pub(super) fn parse_set_tunnel64(word: &str, _: Cx<'_>) -> Parsed {
    number::u64(word).map(|id| Action::SetTunnel { id, wide: true })
}

pub(super) fn parse_set_queue(word: &str, _: Cx<'_>) -> Parsed {
    number::u32(word).map(Action::SetQueue)
}

pub(super) fn parse_group(word: &str, _: Cx<'_>) -> Parsed {
    number::u32(word).map(Action::Group)
}

pub(super) fn parse_meter(word: &str, _: Cx<'_>) -> Parsed {
    number::u32(word).map(Action::Meter)
}

pub(super) fn parse_goto_table(word: &str, _: Cx<'_>) -> Parsed {
    let unknown = || ParseError::new(word, format!("unknown table \"{word}\""));
    number::table(word).map(Action::GotoTable).ok_or_else(unknown)
}

pub(super) fn parse_write_metadata(text: &str, _: Cx<'_>) -> Parsed {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number::u64(value)?, number::u64(mask)?),
        None => (number::u64(text)?, u64::MAX),
    };
    Ok(Action::WriteMetadata { value, mask })
}

pub(super) fn parse_fin_timeout(text: &str, _: Cx<'_>) -> Parsed {
    let (mut idle, mut hard) = (0, 0);
    for pair in Pairs::new(text) {
        match pair.key {
            "idle_timeout" => idle = number::u16(pair.value, pair.key)?,
            "hard_timeout" => hard = number::u16(pair.value, pair.key)?,
            key => {
                let reason = format!("invalid key '{key}' in 'fin_timeout' argument");
                return Err(ParseError::new(key, reason));
            }
        }
    }
    Ok(Action::FinTimeout { idle, hard })
}

pub(super) fn parse_conjunction(text: &str, _: Cx<'_>) -> Parsed {
    let wrong = |reason: &str| ParseError::new(text, reason);
    let parts = text.split_once(',').and_then(|(id, rest)| {
        let (clause, n) = rest.split_once('/')?;
        let id = number::u32(id.trim()).ok()?;
        Some((id, number::integer(clause.trim())?, number::integer(n.trim())?))
    });
    let Some((id, clause, n)) = parts else {
        return Err(wrong("\"conjunction\" syntax is \"conjunction(id,i/n)\""));
    };
    let reason = match () {
        () if n < 2 => "conjunction must have at least 2 clauses",
        () if n > 64 => "conjunction must have at most 64 clauses",
        () if clause < 1 => "clause index must be positive",
        () if clause > n => "clause index must be less than or equal to number of clauses",
        // Both are at most 64.
        () => {
            return Ok(Action::Conjunction { id, clause: clause as u8 - 1, n_clauses: n as u8 });
        }
    };
    Err(wrong(reason))
}
