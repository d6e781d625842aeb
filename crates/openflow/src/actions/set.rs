//! Actions that read and write fields by name: set_field, load, move, push, pop and the like.

use super::Cx;
use crate::action::Action;
use crate::error::ParseError;
use crate::field::Field;
use crate::number;
use crate::registry::field;
use crate::subfield::Subfield;

/// Splits `VALUE->NAME`.
pub(super) fn arrow(text: &str) -> Result<(&str, &str), ParseError> {
    let wrong = |reason: &str| ParseError::new(text, format!("{text}: {reason}"));
    let (value, name) = text.split_once("->").ok_or_else(|| wrong("missing `->'"))?;
    match name.is_empty() {
        false => Ok((value, name)),
        true => Err(wrong("missing field name following `->'")),
    }
}

/// Takes a subfield from the front of a text; what follows it is the second value.
pub(super) fn take_subfield(text: &str) -> Result<(Subfield, &str), ParseError> {
    let end = match text.find(['[', '-']) {
        Some(at) if text[at..].starts_with('[') => {
            text[at..].find(']').map_or(text.len(), |close| at + close + 1)
        }
        Some(at) => at,
        None => text.len(),
    };
    let (name, rest) = text.split_at(end);
    let subfield = Subfield::parse(name).map_err(|e| {
        // OVS repeats all of the text.
        let reason = e.reason.strip_prefix(name).map(|r| format!("{text}{r}"));
        ParseError::new(name, reason.unwrap_or(e.reason))
    })?;
    Ok((subfield, rest))
}

/// A subfield and nothing else.
pub(super) fn only_subfield(text: &str) -> Result<Subfield, ParseError> {
    match take_subfield(text)? {
        (subfield, "") => Ok(subfield),
        (_, rest) => Err(ParseError::new(rest, "unexpected input following field syntax")),
    }
}

/// The field with a name that is not NXM's or OXM's.
fn own_name(name: &str) -> Option<&'static Field> {
    field(name).filter(|f| f.name == name || f.alias == Some(name))
}

pub(super) fn parse_set_field(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let (value_text, name) = arrow(text)?;
    let wrong = |word: &str, reason: String| Err(ParseError::new(word, reason));
    let Some(field) = own_name(name) else {
        return wrong(name, format!("{name} is not a valid OXM field name"));
    };
    if !field.writable || field.nxm.or(field.oxm).is_none() {
        return wrong(name, format!("{name} is read-only"));
    }
    let (value, mask) = field.parse_value(value_text, cx.names)?;
    if value & !field.ones() != 0 {
        let reason = format!("{value_text} is not a valid value for field {name}");
        return wrong(value_text, reason);
    }
    // An exact value has all bits of its bytes.
    let exact = !value_text.contains('/');
    if !exact && mask & !field.ones() != 0 {
        return wrong(value_text, format!("{value_text}: invalid mask for field {name}"));
    }
    let mask = if exact { field.ones() } else { mask };
    Ok(Action::SetField { field, value: value & mask, mask })
}

pub(super) fn parse_load(text: &str, cx: Cx<'_>) -> Result<Action, ParseError> {
    let (value_text, name) = arrow(text)?;
    let dst = only_subfield(name)?;
    let value = number::integer(value_text).filter(|v| fits(*v, u32::from(dst.field.wire) * 8));
    let Some(value) = value else {
        return Err(ParseError::new(value_text, format!("{text}: cannot parse integer value")));
    };
    if !fits(value, dst.bits.into()) {
        let shown = dst.field.format(value, u128::MAX, cx.names);
        let reason = format!("{text}: value {shown} does not fit into {} bits", dst.bits);
        return Err(ParseError::new(value_text, reason));
    }
    Ok(Action::Load { dst, value })
}

/// True if a value needs no more than so many bits.
pub(super) fn fits(value: u128, bits: u32) -> bool {
    u128::BITS - value.leading_zeros() <= bits
}

pub(super) fn parse_move(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    let (src, rest) = take_subfield(text)?;
    let Some(name) = rest.strip_prefix("->") else {
        let reason = format!("{text}: missing `->' following source");
        return Err(ParseError::new(text, reason));
    };
    let dst = only_subfield(name)?;
    if src.bits != dst.bits {
        let reason = format!(
            "{text}: source field is {} bits wide but destination is {} bits wide",
            src.bits, dst.bits
        );
        return Err(ParseError::new(text, reason));
    }
    Ok(Action::Move { src, dst })
}

fn stack_subfield(text: &str) -> Result<Subfield, ParseError> {
    match take_subfield(text)? {
        (subfield, "") => Ok(subfield),
        (_, rest) => {
            let reason = format!("{rest}: trailing garbage following push or pop");
            Err(ParseError::new(rest, reason))
        }
    }
}

pub(super) fn parse_push(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    stack_subfield(text).map(Action::Push)
}

pub(super) fn parse_pop(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    stack_subfield(text).map(Action::Pop)
}

pub(super) fn parse_check_pkt_larger(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    let (len, name) = arrow(text)?;
    let dst = only_subfield(name)?;
    let len = number::u16(len.strip_suffix(')').unwrap_or(len), "packet length")?;
    match dst.bits {
        1 => Ok(Action::CheckPktLarger { len, dst }),
        _ => Err(ParseError::new(name, "Only 1-bit destination field is allowed")),
    }
}

pub(super) fn parse_delete_field(text: &str, _: Cx<'_>) -> Result<Action, ParseError> {
    let unknown = || ParseError::new(text, format!("unknown field `{text}'"));
    field(text).map(Action::DeleteField).ok_or_else(unknown)
}
