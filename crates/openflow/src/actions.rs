//! Actions as text (ovs-actions(7)): lists of them are read here, and each kind in a file of its own.

mod check;
mod conntrack;
mod hash;
mod learn;
mod modify;
mod output;
mod rules;
mod sampling;
mod set;
mod settle;
mod show;
mod table;

use crate::action::{Action, Actions};
use crate::error::ParseError;
use crate::pairs::{Pair, Pairs};
use crate::port::PortNames;
use crate::port_text::parse_port;
use rules::{Place, Rules};

pub(crate) use check::check_in_flow;
pub use check::{check_actions, first_unsupported};
pub use learn::LEARN_TABLE;
pub use settle::settle_actions;
pub use show::format_actions;

/// How many lists of actions may lie in each other (`clone` in `clone`), the flow's own one counted:
/// OVS's own limit, which keeps the stack of whoever walks through them small.
pub const MAX_NESTING: usize = 100;

/// What reading an action needs to know.
#[derive(Clone, Copy)]
struct Cx<'a> {
    names: &'a dyn PortNames,
    /// How many lists this one lies in.
    depth: usize,
}

/// Reads a list of actions and instructions as `actions=` has it.
///
/// # Errors
/// An action is unknown or badly written, or may not stand where it does (ovs-actions(7), "Instruction
/// ordering"). Whether it suits a flow's match is said by [`check_actions`].
pub fn parse_actions(text: &str, names: &dyn PortNames) -> Result<Actions, ParseError> {
    read_actions(text, names).map_err(|e| e.locate(text))
}

/// Bytes of a list of actions at most. OpenFlow's messages have 64 kB, and a list takes about as much
/// there as it does in text.
const MAX_TEXT: usize = 65_535;

/// As [`parse_actions`], of a part of a longer text.
pub(crate) fn read_actions(text: &str, names: &dyn PortNames) -> Result<Actions, ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError::new("", "input too big: more than 64 kB of actions"));
    }
    parse_list(text, Cx { names, depth: 0 }, Place::Flow)
}

/// Reads a list action by action.
pub(crate) struct ListReader<'a> {
    cx: Cx<'a>,
    list: Actions,
    rules: Rules,
    drop: Option<&'a str>,
}

impl<'a> ListReader<'a> {
    fn new(cx: Cx<'a>, place: Place) -> ListReader<'a> {
        ListReader { cx, list: Actions::new(), rules: Rules::new(place), drop: None }
    }

    /// For the actions of a bucket, which cannot have instructions.
    pub(crate) fn bucket(names: &'a dyn PortNames) -> ListReader<'a> {
        ListReader::new(Cx { names, depth: 0 }, Place::Bucket)
    }

    /// Adds an action.
    pub(crate) fn add(&mut self, pair: Pair<'a>) -> Result<(), ParseError> {
        if pair.key.eq_ignore_ascii_case("drop") {
            self.drop = Some(pair.key);
            return Ok(());
        }
        let action = parse_action(pair, self.cx)?;
        self.rules.admit(&action).map_err(|reason| ParseError::new(pair.key, reason))?;
        self.list.push(action);
        Ok(())
    }

    /// The list, once all is said.
    pub(crate) fn finish(self) -> Result<Actions, ParseError> {
        let alone = self.list.is_empty();
        let Some(drop) = self.drop.filter(|_| !alone) else { return Ok(self.list) };
        let reason = "\"drop\" must not be accompanied by any other action or instruction";
        Err(ParseError::new(drop, reason))
    }
}

fn parse_list(text: &str, cx: Cx<'_>, place: Place) -> Result<Actions, ParseError> {
    if cx.depth >= MAX_NESTING {
        return Err(ParseError::new(text, "Action nested too deeply"));
    }
    let mut reader = ListReader::new(cx, place);
    for pair in Pairs::new(text) {
        reader.add(pair)?;
    }
    reader.finish()
}

/// The word that the action with this number begins with, counted as the list has them.
pub(crate) fn nth_word(text: &str, n: usize) -> &str {
    let pairs = Pairs::new(text).filter(|pair| !pair.key.eq_ignore_ascii_case("drop"));
    pairs.map(|pair| pair.key).nth(n).unwrap_or(text)
}

fn parse_action(pair: Pair<'_>, cx: Cx<'_>) -> Result<Action, ParseError> {
    if let Some(parse) = table::find(pair.key) {
        return parse(pair.value, cx).map_err(|e| or_key(e, pair.key));
    }
    match parse_port(pair.key, cx.names) {
        Some(port) => Ok(output::to_port(port)),
        None => Err(ParseError::new(pair.key, format!("unknown action {}", pair.key))),
    }
}

/// Where a value is missing, the key is what to look at.
fn or_key(error: ParseError, key: &str) -> ParseError {
    match error.word.is_empty() {
        true => ParseError::new(key, error.reason),
        false => error,
    }
}

/// Reads what lies in an action, one level deeper.
fn parse_nested(text: &str, cx: Cx<'_>, place: Place) -> Result<Actions, ParseError> {
    parse_list(text, Cx { depth: cx.depth + 1, ..cx }, place)
}
