//! Actions that choose by a hash of the packet: `multipath`, `bundle` and `bundle_load`.

use super::Cx;
use super::set::only_subfield;
use crate::action::{Action, Bundle, HashFields, Multipath, MultipathAlgorithm};
use crate::error::ParseError;
use crate::number;
use crate::pairs::split;
use crate::port::PortNames;
use crate::port_text::{ShowPort, parse_port};
use std::fmt;

const FIELDS: [(&str, HashFields); 7] = [
    ("eth_src", HashFields::EthSrc),
    ("symmetric_l4", HashFields::SymmetricL4),
    ("symmetric_l3l4", HashFields::SymmetricL3L4),
    ("symmetric_l3l4+udp", HashFields::SymmetricL3L4Udp),
    ("nw_src", HashFields::NwSrc),
    ("nw_dst", HashFields::NwDst),
    ("symmetric_l3", HashFields::SymmetricL3),
];

const ALGORITHMS: [(&str, MultipathAlgorithm); 4] = [
    ("modulo_n", MultipathAlgorithm::ModuloN),
    ("hash_threshold", MultipathAlgorithm::HashThreshold),
    ("hrw", MultipathAlgorithm::Hrw),
    ("iter_hash", MultipathAlgorithm::IterHash),
];

/// The most links that a multipath action chooses from (ovs-actions(7), "multipath").
const MAX_LINKS: u32 = 65536;

fn name_of<T: PartialEq>(table: &[(&'static str, T)], it: &T) -> &'static str {
    table.iter().find(|(_, t)| t == it).map_or("", |(name, _)| name)
}

/// One of a table, by its name; `what` is what it stands for in the action's whole `text`.
fn named<T: Copy>(
    table: &[(&str, T)],
    word: &str,
    text: &str,
    what: &str,
) -> Result<T, ParseError> {
    let found = table.iter().find(|(name, _)| *name == word).map(|(_, t)| *t);
    found.ok_or_else(|| ParseError::new(word, format!("{text}: unknown {what} `{word}'")))
}

/// The next of the words that commas or spaces separate.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|w| !w.is_empty())
}

pub(super) fn parse_multipath(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    let all: Vec<&str> = words(text).take(6).collect();
    let [fields, basis, algorithm, n_links, arg, dst] = all[..] else {
        let reason = format!("{text}: not enough arguments to multipath action");
        return Err(ParseError::new(text, reason));
    };
    let fields = named(&FIELDS, fields, text, "fields")?;
    let basis = number::u16(basis, "basis")?;
    let algorithm = named(&ALGORITHMS, algorithm, text, "algorithm")?;
    let links = number::u32(n_links)?;
    let arg = number::u32(arg)?;
    let wrong = |reason: String| Err(ParseError::new(n_links, format!("{text}: {reason}")));
    if !(1..=MAX_LINKS).contains(&links) {
        return wrong(format!("n_links {links} is not in valid range 1 to {MAX_LINKS}"));
    }
    let dst = only_subfield(dst)?;
    if dst.bits < 16 && links > 1 << dst.bits {
        return wrong(format!(
            "{}-bit destination field has {} possible values, less than specified n_links {links}",
            dst.bits,
            1 << dst.bits
        ));
    }
    let it = Multipath { fields, basis, algorithm, n_links: links, arg, dst };
    Ok(Action::Multipath(Box::new(it)))
}

pub(super) fn show_multipath(f: &mut fmt::Formatter<'_>, it: &Multipath) -> fmt::Result {
    let (fields, algorithm) = (name_of(&FIELDS, &it.fields), name_of(&ALGORITHMS, &it.algorithm));
    let (basis, links, arg, dst) = (it.basis, it.n_links, it.arg, it.dst);
    write!(f, "multipath({fields},{basis},{algorithm},{links},{arg},{dst})")
}

pub(super) fn parse_bundle(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    parse_any_bundle(text, cx, false)
}

pub(super) fn parse_bundle_load(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    parse_any_bundle(text, cx, true)
}

const BUNDLE_ALGORITHMS: [(&str, bool); 2] = [("hrw", true), ("active_backup", false)];

fn parse_any_bundle(text: &str, cx: Cx<'_>, load: bool) -> Result<Action, ParseError> {
    let not_enough =
        || ParseError::new(text, format!("{text}: not enough arguments to bundle action"));
    let (head, members) = split_members(text, load).ok_or_else(not_enough)?;
    let [fields, basis, algorithm, kind, dst @ ..] = &head[..] else { return Err(not_enough()) };
    let (word, rest) = members;
    if !["members", "slaves"].contains(&word) {
        let reason = format!("{text}: missing member delimiter, expected `members', got `{word}'");
        return Err(ParseError::new(word, reason));
    }
    let mut members = Vec::new();
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let ends = |b| matches!(b, b',' | b' ' | b'[' | b']');
    for word in split(rest, ends).filter(|w| !w.is_empty()) {
        let bad = || ParseError::new(word, format!("{word}: bad port number"));
        members.push(parse_port(word, cx.names).ok_or_else(bad)?);
    }
    let fields = named(&FIELDS, fields, text, "fields")?;
    let basis = number::u16(basis, "basis")?;
    let highest_random_weight = named(&BUNDLE_ALGORITHMS, algorithm, text, "algorithm")?;
    if *kind != "ofport" {
        return Err(ParseError::new(kind, format!("{text}: unknown member_type `{kind}'")));
    }
    let dst = dst.first().map(|word| only_subfield(word)).transpose()?;
    let it = Bundle { fields, basis, highest_random_weight, dst, members };
    Ok(Action::Bundle(Box::new(it)))
}

/// The words before the members, four or (with `load`) five, then the word that announces the members
/// and what follows it.
fn split_members(text: &str, load: bool) -> Option<(Vec<&str>, (&str, &str))> {
    let mut rest = text;
    let mut head = Vec::new();
    for _ in 0..if load { 5 } else { 4 } {
        rest = rest.trim_start_matches([',', ' ']);
        let end = rest.find([',', ' '])?;
        head.push(&rest[..end]);
        rest = &rest[end..];
    }
    rest = rest[1..].trim_start_matches([' ', ':']);
    let end = rest.find([' ', ':']).unwrap_or(rest.len());
    (end > 0).then(|| (head, rest.split_at(end)))
}

pub(super) fn show_bundle(
    f: &mut fmt::Formatter<'_>,
    it: &Bundle,
    names: &dyn PortNames,
) -> fmt::Result {
    let action = if it.dst.is_some() { "bundle_load" } else { "bundle" };
    let fields = name_of(&FIELDS, &it.fields);
    let algorithm = name_of(&BUNDLE_ALGORITHMS, &it.highest_random_weight);
    write!(f, "{action}({fields},{},{algorithm},ofport,", it.basis)?;
    if let Some(dst) = it.dst {
        write!(f, "{dst},")?;
    }
    f.write_str("members:")?;
    for (i, port) in it.members.iter().enumerate() {
        write!(f, "{}{}", if i > 0 { "," } else { "" }, ShowPort(*port, names))?;
    }
    f.write_str(")")
}
