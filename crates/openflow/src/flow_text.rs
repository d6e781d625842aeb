//! Flows as lines of text (ovs-ofctl(8), "Flow Syntax").

use crate::actions::{check_in_flow, nth_word, read_actions, settle_actions};
use crate::error::ParseError;
use crate::field::Maskable;
use crate::flow_mod::{Command, DEFAULT_PRIORITY, FlowMod};
use crate::match_text::MatchBuilder;
use crate::matching::Match;
use crate::number;
use crate::pairs::{Pair, Pairs};
use crate::port::PortNames;
use crate::port_text::parse_port;
use crate::subfield::Subfield;

/// Which keywords a command takes besides its match.
#[derive(Clone, Copy)]
struct Grammar {
    /// `actions`, timeouts and flags
    flow: bool,
    priority: bool,
    importance: bool,
    /// `out_port`, `out_group`
    filter: bool,
}

impl Command {
    fn grammar(self) -> Grammar {
        let flow = matches!(self, Command::Add | Command::Modify | Command::ModifyStrict);
        Grammar {
            flow,
            priority: flow || self == Command::DeleteStrict,
            importance: self == Command::Add,
            filter: !flow,
        }
    }
}

/// Reads a flow as `ovs-ofctl` takes it for a command. With [`Command::Delete`] it is also what selects
/// flows to be shown.
///
/// # Errors
/// A word is not understood, is not for this command, or the actions do not suit the match.
pub fn parse_flow_mod(
    line: &str,
    command: Command,
    names: &dyn PortNames,
) -> Result<FlowMod, ParseError> {
    read(line, command, names).map_err(|e| e.locate(line))
}

fn read(line: &str, command: Command, names: &dyn PortNames) -> Result<FlowMod, ParseError> {
    let grammar = command.grammar();
    let (head, actions) = match grammar.flow {
        true => {
            let missing = || ParseError::new(line, "must specify an action");
            let (head, actions) = split_actions(line).ok_or_else(missing)?;
            (head, Some(actions))
        }
        false => (line, None),
    };
    let mut flow = FlowMod::new(command);
    let mut builder = MatchBuilder::default();
    for pair in Pairs::new(head) {
        if !read_flag(&mut flow, pair, grammar)
            && !read_property(&mut flow, pair, grammar, names)?
            && !builder.add(pair.key, Some(pair.value).filter(|v| !v.is_empty()), names)?
        {
            if pair.key.contains('[') {
                let (part, value) = read_part(pair, names)?;
                builder.add_part(&part, value);
                continue;
            }
            let reason = match pair.value {
                "" => format!("field {} missing value", pair.key),
                _ => format!("unknown keyword {}", pair.key),
            };
            return Err(ParseError::new(pair.key, reason));
        }
    }
    flow.matches = builder.finish()?;
    if let Some(text) = actions {
        let list = read_actions(text, names)?;
        let table = if command == Command::Add { flow.table.or(Some(0)) } else { flow.table };
        check_in_flow(&list, &flow.matches, table)
            .map_err(|(i, reason)| ParseError::new(nth_word(text, i), reason))?;
        flow.actions = settle_actions(list, &flow.matches);
    }
    Ok(flow)
}

/// Reads `FIELD[FIRST..LAST]=VALUE`.
fn read_part(pair: Pair<'_>, names: &dyn PortNames) -> Result<(Subfield, u128), ParseError> {
    let Pair { key, value } = pair;
    let part = Subfield::parse(key)?;
    let Some(n) = number::integer(value) else {
        let reason = format!("{key}: cannot parse integer value: {value}");
        return Err(ParseError::new(key, reason));
    };
    if u128::BITS - n.leading_zeros() > part.bits.into() {
        let shown = part.field.format(n, u128::MAX, names);
        let reason = format!("{key}: value {shown} does not fit into {} bits", part.bits);
        return Err(ParseError::new(value, reason));
    }
    if part.field.maskable == Maskable::No && part != Subfield::whole(part.field) {
        let reason = format!("{key}: {} can only be matched whole", part.field.name);
        return Err(ParseError::new(key, reason));
    }
    Ok((part, n))
}

/// The parts of a flow before and after `actions=`.
fn split_actions(line: &str) -> Option<(&str, &str)> {
    let at = line.find("action")?;
    let (head, rest) = line.split_at(at);
    rest.split_once('=').map(|(_, actions)| (head, actions))
}

impl FlowMod {
    /// A command for all packets, with what holds where nothing is said.
    pub fn new(command: Command) -> FlowMod {
        FlowMod {
            command,
            table: None,
            matches: Match::any(),
            priority: DEFAULT_PRIORITY,
            cookie_filter: (0, 0),
            new_cookie: None,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            out_port: None,
            out_group: None,
            send_flow_rem: false,
            check_overlap: false,
            reset_counts: false,
            no_packet_counts: false,
            no_byte_counts: false,
            actions: Vec::new(),
        }
    }
}

/// Sets a flag; false if the word is none.
fn read_flag(flow: &mut FlowMod, pair: Pair<'_>, grammar: Grammar) -> bool {
    let flag = match pair.key {
        _ if !grammar.flow => return false,
        "send_flow_rem" => &mut flow.send_flow_rem,
        "check_overlap" => &mut flow.check_overlap,
        "reset_counts" => &mut flow.reset_counts,
        "no_packet_counts" => &mut flow.no_packet_counts,
        "no_byte_counts" => &mut flow.no_byte_counts,
        // There are no hidden tables here.
        "no_readonly_table" | "allow_hidden_fields" => return true,
        _ => return false,
    };
    *flag = true;
    true
}

/// Sets what is not in the match; false if the word is something else.
fn read_property(
    flow: &mut FlowMod,
    pair: Pair<'_>,
    grammar: Grammar,
    names: &dyn PortNames,
) -> Result<bool, ParseError> {
    let Pair { key, value } = pair;
    let wrong = |reason: String| ParseError::new(value, reason);
    match key {
        _ if value.is_empty() => return Ok(false),
        "table" => {
            let unknown = || wrong(format!("unknown table \"{value}\""));
            let table = number::table(value).ok_or_else(unknown)?;
            flow.table = Some(table).filter(|t| *t != u8::MAX);
        }
        "cookie" => read_cookie(flow, value)?,
        "priority" if grammar.priority => flow.priority = number::u16(value, key)?,
        "importance" if grammar.importance => flow.importance = number::u16(value, key)?,
        "idle_timeout" if grammar.flow => flow.idle_timeout = number::u16(value, key)?,
        "hard_timeout" if grammar.flow => flow.hard_timeout = number::u16(value, key)?,
        "out_port" if grammar.filter => {
            let unknown = || wrong(format!("{value} is not a valid OpenFlow port"));
            let port = parse_port(value, names).ok_or_else(unknown)?;
            flow.out_port = Some(port).filter(|p| *p != crate::port::OfPort::NONE);
        }
        "out_group" if grammar.filter => flow.out_group = read_group(value)?,
        // A dump has these; they say nothing of the flow.
        "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads `VALUE`, which is set, or `VALUE/MASK`, which selects flows.
fn read_cookie(flow: &mut FlowMod, text: &str) -> Result<(), ParseError> {
    let Some((value, mask)) = text.split_once('/') else {
        if !flow.command.grammar().flow {
            let reason = "cannot set cookie (to match on a cookie, specify a mask, e.g. cookie=";
            return Err(ParseError::new(text, format!("{reason}{text}/-1)")));
        }
        flow.new_cookie = Some(number::u64(text)?);
        return Ok(());
    };
    if flow.command == Command::Add {
        return Err(ParseError::new(text, "flow additions cannot use a cookie mask"));
    }
    flow.cookie_filter = (number::u64(value)?, number::u64(mask)?);
    Ok(())
}

fn read_group(word: &str) -> Result<Option<u32>, ParseError> {
    if word.eq_ignore_ascii_case("any") {
        return Ok(None);
    }
    // OFPG_ALL, which no flow names.
    if word.eq_ignore_ascii_case("all") {
        return Ok(Some(0xffff_fffc));
    }
    let wrong = |_| ParseError::new(word, format!("{word} is not a valid OpenFlow group"));
    number::u32(word).map(Some).map_err(wrong)
}

/// The lines of a file that say something, with their numbers from 1; comments are cut off.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.split('\n').enumerate();
    let told = numbered.map(|(i, line)| (i + 1, line.split('#').next().unwrap_or("")));
    told.filter(|(_, line)| !line.trim().is_empty())
}

/// Takes the first word from a line, if it is one of these or, as `ovs-ofctl` has it, the beginning of
/// one.
pub(crate) fn keyword<'a, T: Copy>(line: &'a str, words: &[(&str, T)]) -> Option<(T, &'a str)> {
    let line = line.trim_start();
    let end = line.find([',', ' ', '\t', '\r']).unwrap_or(line.len());
    let (first, rest) = line.split_at(end);
    let found = words.iter().find(|(word, _)| !first.is_empty() && word.starts_with(first));
    found.map(|(_, it)| (*it, rest))
}

/// What a line of a file can begin with (ovs-ofctl(8), "add-flows"), in the order in which beginnings
/// are looked for.
const COMMANDS: [(&str, Command); 5] = [
    ("add", Command::Add),
    ("delete", Command::Delete),
    ("delete_strict", Command::DeleteStrict),
    ("modify", Command::Modify),
    ("modify_strict", Command::ModifyStrict),
];

/// Reads one line of a file. If the command is to add, the line can name another.
pub(crate) fn read_line(
    line: &str,
    command: Command,
    names: &dyn PortNames,
) -> Result<FlowMod, ParseError> {
    let named = keyword(line, &COMMANDS).filter(|_| command == Command::Add);
    let (command, rest) = named.unwrap_or((command, line));
    read(rest, command, names).map_err(|e| e.locate(line))
}

/// The flows of a file, one after the other, each with the number of its line: a [`FlowMod`] is large,
/// and a file may have a million.
///
/// Empty lines and what follows `#` do not count. If the command is to add, lines can begin with `add`,
/// `modify`, `modify_strict`, `delete` or `delete_strict`.
pub fn flow_mods<'a>(
    text: &'a str,
    command: Command,
    names: &'a dyn PortNames,
) -> impl Iterator<Item = (usize, Result<FlowMod, ParseError>)> + 'a {
    lines(text).map(move |(number, line)| (number, read_line(line, command, names)))
}

/// All flows of a file, as [`flow_mods`] reads them.
///
/// # Errors
/// The first line that is wrong, by its number from 1, and what is wrong with it.
pub fn parse_flow_mods(
    text: &str,
    command: Command,
    names: &dyn PortNames,
) -> Result<Vec<FlowMod>, (usize, ParseError)> {
    flow_mods(text, command, names).map(|(line, it)| it.map_err(|e| (line, e))).collect()
}
