//! Files that change flows and groups together (ovs-ofctl(8), "bundle").

use crate::error::ParseError;
use crate::flow_mod::{Command, FlowMod};
use crate::flow_text::{lines, read_line};
use crate::group::GroupMod;
use crate::group_text::read_group_line;
use crate::port::PortNames;

/// One line of such a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleMod {
    /// `flow …`
    Flow(Box<FlowMod>),
    /// `group …`
    Group(GroupMod),
}

/// Reads a file of changes: lines begin with `flow` or `group`, then may name a command (`add` if not).
///
/// # Errors
/// The first line that is wrong, by its number from 1, and what is wrong with it.
pub fn parse_bundle(
    text: &str,
    names: &dyn PortNames,
) -> Result<Vec<BundleMod>, (usize, ParseError)> {
    let read = |line| read_change(line, names).map_err(|e: ParseError| e.locate(line));
    lines(text).map(|(n, line)| read(line).map_err(|e| (n, e))).collect()
}

fn read_change(line: &str, names: &dyn PortNames) -> Result<BundleMod, ParseError> {
    let start = line.trim_start();
    let (word, rest) = start.split_at(start.find([',', ' ', '\t', '\r']).unwrap_or(start.len()));
    match word {
        "flow" => read_line(rest, Command::Add, names).map(|it| BundleMod::Flow(Box::new(it))),
        "group" => read_group_line(rest, names).map(BundleMod::Group),
        "packet-out" => Err(ParseError::new(word, "packet-out in a file is not available")),
        _ => Err(ParseError::new(word, format!("Unsupported bundle message type: {word}"))),
    }
}
