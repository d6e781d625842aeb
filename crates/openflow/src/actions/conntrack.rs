//! `ct` (ovs-actions(7), "ct").

use super::rules::Place;
use super::set::only_subfield;
use super::show::ShowActions;
use super::{Cx, parse_nested};
use crate::action::{Action, Actions, Ct, CtAlg, CtZone, Nat};
use crate::error::ParseError;
use crate::number;
use crate::pairs::Pairs;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ALGS: [(&str, CtAlg); 2] = [("ftp", CtAlg::Ftp), ("tftp", CtAlg::Tftp)];

pub(super) fn parse(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let mut it = Ct {
        commit: false,
        force: false,
        table: None,
        zone: CtZone::Number(0),
        alg: None,
        nat: None,
        exec: Actions::new(),
    };
    for pair in Pairs::new(text) {
        let wrong = |reason: String| ParseError::new(pair.value, reason);
        match pair.key {
            "commit" => it.commit = true,
            "force" => it.force = true,
            "table" => it.table = Some(parse_table(pair.value)?),
            "zone" => it.zone = parse_zone(pair.value)?,
            "alg" => {
                let alg = ALGS.iter().find(|(name, _)| *name == pair.value).map(|(_, alg)| *alg);
                let unknown = || wrong(format!("invalid conntrack helper \"{}\"", pair.value));
                it.alg = Some(alg.ok_or_else(unknown)?);
            }
            "nat" if it.nat.is_some() => {
                return Err(ParseError::new(pair.key, "ct action with more than one nat"));
            }
            "nat" => it.nat = Some(parse_nat(pair.value)?),
            "exec" => it.exec.extend(parse_nested(pair.value, cx, Place::Ct)?),
            key => {
                let reason = format!("invalid argument to \"ct\" action: `{key}'");
                return Err(ParseError::new(key, reason));
            }
        }
    }
    if it.force && !it.commit {
        return Err(ParseError::new(text, "\"force\" flag requires \"commit\" flag."));
    }
    Ok(Action::Ct(Box::new(it)))
}

fn parse_table(word: &str) -> Result<u8, ParseError> {
    match number::table(word) {
        None => Err(ParseError::new(word, format!("unknown table {word}"))),
        Some(u8::MAX) => Err(ParseError::new(word, "invalid table 0xff")),
        Some(table) => Ok(table),
    }
}

fn parse_zone(word: &str) -> Result<CtZone, ParseError> {
    if let Ok(zone) = number::u16(word, "zone") {
        return Ok(CtZone::Number(zone));
    }
    let field = only_subfield(word)?;
    match field.bits {
        16 => Ok(CtZone::Field(field)),
        bits => {
            let reason = format!("zone n_bits {bits} not within valid range [16..16]");
            Err(ParseError::new(word, reason))
        }
    }
}

fn parse_nat(text: &str) -> Result<Nat, ParseError> {
    let mut it = Nat::default();
    let mut flags = false;
    for pair in Pairs::new(text) {
        match pair.key {
            "src" | "dst" if it.src || it.dst => {
                let reason = "May only specify one of \"src\" or \"dst\".";
                return Err(ParseError::new(pair.key, reason));
            }
            key @ ("src" | "dst") => {
                (it.src, it.dst) = (key == "src", key == "dst");
                parse_range(&mut it, pair.value)?;
            }
            "persistent" => (it.persistent, flags) = (true, true),
            "hash" => (it.hash, flags) = (true, true),
            "random" => (it.random, flags) = (true, true),
            key => {
                let reason = format!("invalid key \"{key}\" in \"nat\" argument");
                return Err(ParseError::new(key, reason));
            }
        }
    }
    let reason = match () {
        () if flags && !it.src && !it.dst => "Flags allowed only with \"src\" or \"dst\".",
        () if it.hash && it.random => "Both \"hash\" and \"random\" are not allowed.",
        () => {
            // They say how to choose from a range.
            if it.addresses.is_none() {
                (it.persistent, it.hash, it.random) = (false, false, false);
            }
            return Ok(it);
        }
    };
    Err(ParseError::new(text, reason))
}

/// Reads `ADDRESS[-ADDRESS][:PORT[-PORT]]`; IPv6 addresses may stand in brackets. Address or port 0 is
/// none.
fn parse_range(it: &mut Nat, text: &str) -> Result<(), ParseError> {
    let invalid = || ParseError::new(text, format!("invalid nat range \"{text}\""));
    let garbage = |rest: &str| {
        if rest.is_empty() {
            return Err(invalid());
        }
        let at = text.len() - rest.len();
        let reason = format!("garbage ({rest}) after nat range \"{text}\" (pos: {at})");
        Err(ParseError::new(rest, reason))
    };
    if text.is_empty() {
        return Ok(());
    }
    // OVS takes ports without an address for nothing at all.
    if text.starts_with(':') && !text.starts_with("::") {
        return Err(invalid());
    }
    let Some((first, mut rest)) = take_address(text) else {
        return garbage(text.trim_start_matches(is_address_char));
    };
    let mut last = first;
    if let Some(second) = rest.strip_prefix('-') {
        (last, rest) = take_address(second).ok_or_else(invalid)?;
        if last.is_ipv4() != first.is_ipv4() || last < first {
            return Err(invalid());
        }
    }
    if let Some(ports) = rest.strip_prefix(':') {
        let (low, mut after) = take_port(ports).ok_or_else(invalid)?;
        let mut high = low;
        if let Some(second) = after.strip_prefix('-') {
            (high, after) = take_port(second).ok_or_else(invalid)?;
            if high < low {
                return Err(invalid());
            }
        }
        if first.is_unspecified() || low == 0 && high != 0 {
            return Err(invalid());
        }
        it.ports = Some((low, high)).filter(|(low, _)| *low != 0);
        rest = after;
    }
    if !rest.is_empty() {
        return garbage(rest);
    }
    it.addresses = Some((first, last)).filter(|(first, _)| !first.is_unspecified());
    Ok(())
}

fn is_address_char(c: char) -> bool {
    c.is_ascii_hexdigit() || c == ':' || c == '.'
}

/// An address from the front of a text, and the rest.
fn take_address(text: &str) -> Option<(IpAddr, &str)> {
    let v4_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if let Ok(v4) = text[..v4_end].parse::<Ipv4Addr>() {
        return Some((v4.into(), &text[v4_end..]));
    }
    let (inner, bracket) = match text.strip_prefix('[') {
        Some(inner) => (inner, "]"),
        None => (text, ""),
    };
    let end = inner.find(|c| !is_address_char(c)).unwrap_or(inner.len());
    let v6 = inner[..end].parse::<Ipv6Addr>().ok()?;
    Some((v6.into(), inner[end..].strip_prefix(bracket)?))
}

fn take_port(text: &str) -> Option<(u16, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

pub(super) fn show_ct(f: &mut fmt::Formatter<'_>, it: &Ct, all: &ShowActions<'_>) -> fmt::Result {
    let mut parts = Vec::new();
    let mut say = |set: bool, word: &str| {
        if set {
            parts.push(word.to_owned());
        }
    };
    say(it.commit, "commit");
    say(it.force, "force");
    if let Some(table) = it.table {
        parts.push(format!("table={table}"));
    }
    match it.zone {
        CtZone::Number(0) => {}
        CtZone::Number(zone) => parts.push(format!("zone={zone}")),
        CtZone::Field(field) => parts.push(format!("zone={field}")),
    }
    if let Some(nat) = &it.nat {
        parts.push(ShowNat(nat).to_string());
    }
    if !it.exec.is_empty() {
        parts.push(format!("exec({})", all.nested(&it.exec)));
    }
    if let Some(alg) = it.alg {
        let name = ALGS.iter().find(|(_, a)| *a == alg).map_or("", |(name, _)| name);
        parts.push(format!("alg={name}"));
    }
    write!(f, "ct({})", parts.join(","))
}

struct ShowNat<'a>(&'a Nat);

impl fmt::Display for ShowNat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        let direction = match (it.src, it.dst) {
            (true, _) => "src",
            (_, true) => "dst",
            _ => return f.write_str("nat"),
        };
        write!(f, "nat({direction}")?;
        if let Some((first, last)) = it.addresses {
            let brackets = first.is_ipv6() && it.ports.is_some();
            let show = |a: IpAddr| if brackets { format!("[{a}]") } else { a.to_string() };
            write!(f, "={}", show(first))?;
            if first != last {
                write!(f, "-{}", show(last))?;
            }
            match it.ports {
                Some((low, high)) if low != high => write!(f, ":{low}-{high}")?,
                Some((low, _)) => write!(f, ":{low}")?,
                None => {}
            }
        }
        for (set, word) in
            [(it.persistent, ",persistent"), (it.hash, ",hash"), (it.random, ",random")]
        {
            f.write_str(if set { word } else { "" })?;
        }
        f.write_str(")")
    }
}

/// True if an action says what only a connection that is committed can have.
pub(super) fn needs_commit(it: &Ct) -> bool {
    !it.exec.is_empty() || it.nat.is_some_and(|nat| nat.src || nat.dst)
}
