//! `learn` (ovs-actions(7), "learn").

use super::Cx;
use super::set::{fits, only_subfield, take_subfield};
use super::show::Hex;
use crate::action::{Action, Learn, LearnSource, LearnSpec};
use crate::error::ParseError;
use crate::flow_mod::DEFAULT_PRIORITY;
use crate::number;
use crate::pairs::{Pair, Pairs};
use crate::port::PortNames;
use crate::subfield::Subfield;
use std::fmt;

/// The table that learned flows go to if none is named (ovs-actions(7), "learn").
pub const LEARN_TABLE: u8 = 1;

pub(super) fn parse(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let mut it = Learn {
        idle_timeout: 0,
        hard_timeout: 0,
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        priority: DEFAULT_PRIORITY,
        table: LEARN_TABLE,
        cookie: 0,
        send_flow_rem: false,
        delete_learned: false,
        limit: 0,
        result_dst: None,
        specs: Vec::new(),
    };
    for pair in Pairs::new(text) {
        if !parse_property(&mut it, pair, text)? {
            it.specs.push(parse_spec(pair, text, cx)?);
        }
    }
    Ok(Action::Learn(Box::new(it)))
}

/// Sets a property of the flow; false if the key is not one.
fn parse_property(it: &mut Learn, pair: Pair<'_>, text: &str) -> Result<bool, ParseError> {
    let key = pair.key;
    // A property without a value is 0.
    let value = if pair.value.is_empty() { "0" } else { pair.value };
    match key {
        "table" => it.table = parse_table(pair.value, text)?,
        "priority" => it.priority = number::u16(value, key)?,
        "idle_timeout" => it.idle_timeout = number::u16(value, key)?,
        "hard_timeout" => it.hard_timeout = number::u16(value, key)?,
        "fin_idle_timeout" => it.fin_idle_timeout = number::u16(value, key)?,
        "fin_hard_timeout" => it.fin_hard_timeout = number::u16(value, key)?,
        "cookie" => it.cookie = number::u64(value)?,
        "send_flow_rem" => it.send_flow_rem = true,
        "delete_learned" => it.delete_learned = true,
        "limit" => it.limit = number::u32(value)?,
        "result_dst" => {
            let dst = only_subfield(pair.value)?;
            if dst.bits != 1 {
                let reason = "result_dst in 'learn' action must be a single bit";
                return Err(ParseError::new(value, reason));
            }
            it.result_dst = Some(dst);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn parse_table(word: &str, text: &str) -> Result<u8, ParseError> {
    match number::table(word) {
        None => Err(ParseError::new(word, format!("unknown table \"{word}\""))),
        Some(u8::MAX) => {
            let reason = format!("{text}: table id 255 not valid for `learn' action");
            Err(ParseError::new(word, reason))
        }
        Some(table) => Ok(table),
    }
}

fn parse_spec(pair: Pair<'_>, text: &str, cx: Cx<'_>) -> Result<LearnSpec, ParseError> {
    let Pair { key, value } = pair;
    match key {
        "load" => return parse_load(value),
        "output" => return only_subfield(value).map(LearnSpec::Output),
        _ => {}
    }
    // Of `NAME` and `NAME[...]`, anything else is not the field's business.
    let Some(dst) = only_subfield(key).ok() else {
        return Err(ParseError::new(key, format!("{text}: unknown keyword {key}")));
    };
    if dst.field.nxm.or(dst.field.oxm).is_none() {
        let name = dst.field.name;
        let reason = format!("{text}: experimenter OXM field '{name}' not supported");
        return Err(ParseError::new(key, reason));
    }
    if value.is_empty() {
        return Ok(LearnSpec::Match { dst, src: LearnSource::Field(dst) });
    }
    let no_field = match only_subfield(value) {
        Ok(src) if src.bits == dst.bits => {
            return Ok(LearnSpec::Match { dst, src: LearnSource::Field(src) });
        }
        Ok(src) => {
            let widths = format!("bit widths of {key} ({}) and {value} ({})", dst.bits, src.bits);
            return Err(ParseError::new(value, format!("{text}: {widths} differ")));
        }
        Err(e) => e.reason,
    };
    let no_value = match constant(dst, value, text, cx.names) {
        Ok(n) => return Ok(LearnSpec::Match { dst, src: LearnSource::Constant(n) }),
        Err(reason) => reason,
    };
    let reason = format!(
        "{text}: {key} value {value} cannot be parsed as a subfield ({no_field}) \
         or an immediate value ({no_value})"
    );
    Err(ParseError::new(value, reason))
}

/// A value for `dst`, written as its field's values are; or the reason why it is none.
fn constant(dst: Subfield, word: &str, text: &str, names: &dyn PortNames) -> Result<u128, String> {
    let (value, _) = dst.field.parse_value(word, names).map_err(|e| e.reason)?;
    if word.contains('/') {
        return Err(format!("{word}: wildcards not allowed here"));
    }
    // What names a tag's VLAN may say that there is a tag.
    let whole = dst.bits == dst.field.bits && value & !dst.field.ones() == 0;
    match whole || fits(value, dst.bits.into()) {
        true => Ok(value),
        false => {
            let shown = dst.field.format(value, u128::MAX, names);
            Err(format!("{text}: value {shown} does not fit into {} bits", dst.bits))
        }
    }
}

fn parse_load(text: &str) -> Result<LearnSpec, ParseError> {
    let wrong = |word: &str, reason: String| Err(ParseError::new(word, reason));
    let Some((src_text, dst_text)) = text.split_once("->") else {
        return wrong(text, format!("load: missing `->' in `{text}'"));
    };
    if src_text.is_empty() {
        return wrong(text, format!("load: missing source before `->' in `{text}'"));
    }
    // Names begin with letters.
    if !src_text.starts_with(|c: char| c.is_ascii_digit()) {
        let (src, rest) = take_subfield(text)?;
        if !rest.starts_with("->") {
            return wrong(rest, format!("load: garbage before `->' in `{text}'"));
        }
        let dst = only_subfield(dst_text)?;
        if src.bits != dst.bits {
            let widths = format!(
                "source field is {} bits wide but destination is {} bits wide",
                src.bits, dst.bits
            );
            return wrong(text, format!("{text}: {widths}"));
        }
        return Ok(LearnSpec::Load { dst, src: LearnSource::Field(src) });
    }
    let Some(value) = number::integer(src_text) else {
        return wrong(src_text, format!("load: garbage before `->' in `{text}'"));
    };
    let dst = only_subfield(dst_text)?;
    match fits(value, dst.bits.into()) {
        true => Ok(LearnSpec::Load { dst, src: LearnSource::Constant(value) }),
        false => wrong(src_text, format!("{text}: value does not fit into {} bits", dst.bits)),
    }
}

pub(super) fn show_learn(
    f: &mut fmt::Formatter<'_>,
    it: &Learn,
    names: &dyn PortNames,
) -> fmt::Result {
    write!(f, "learn(table={}", it.table)?;
    let numbers = [
        ("idle_timeout", it.idle_timeout, 0),
        ("hard_timeout", it.hard_timeout, 0),
        ("fin_idle_timeout", it.fin_idle_timeout, 0),
        ("fin_hard_timeout", it.fin_hard_timeout, 0),
        ("priority", it.priority, DEFAULT_PRIORITY),
    ];
    for (name, n, _) in numbers.into_iter().filter(|(_, n, usual)| n != usual) {
        write!(f, ",{name}={n}")?;
    }
    for (name, _) in [("send_flow_rem", it.send_flow_rem), ("delete_learned", it.delete_learned)]
        .iter()
        .filter(|(_, set)| *set)
    {
        write!(f, ",{name}")?;
    }
    if it.cookie != 0 {
        write!(f, ",cookie={:#x}", it.cookie)?;
    }
    if it.limit != 0 {
        write!(f, ",limit={}", it.limit)?;
    }
    if let Some(dst) = it.result_dst {
        write!(f, ",result_dst={dst}")?;
    }
    for spec in &it.specs {
        f.write_str(",")?;
        show_spec(f, spec, names)?;
    }
    f.write_str(")")
}

fn show_spec(f: &mut fmt::Formatter<'_>, spec: &LearnSpec, names: &dyn PortNames) -> fmt::Result {
    match spec {
        LearnSpec::Match { dst, src: LearnSource::Constant(value) } => {
            if dst.bits == dst.field.bits {
                let shown = dst.field.format(*value, u128::MAX, names);
                return write!(f, "{}={shown}", dst.field.name);
            }
            write!(f, "{dst}={}", Hex(*value))
        }
        LearnSpec::Match { dst, src: LearnSource::Field(src) } if src == dst => write!(f, "{dst}"),
        LearnSpec::Match { dst, src: LearnSource::Field(src) } => write!(f, "{dst}={src}"),
        LearnSpec::Load { dst, src: LearnSource::Constant(value) } => {
            write!(f, "load:{}->{dst}", Hex(*value))
        }
        LearnSpec::Load { dst, src: LearnSource::Field(src) } => write!(f, "load:{src}->{dst}"),
        LearnSpec::Output(src) => write!(f, "output:{src}"),
    }
}
