//! Flow files: lines with comments, as `ovs-ofctl` reads them.

use openflow::Command;

/// One line that says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its number, from 1.
    pub(super) number: usize,
    /// What it says, without comment and blanks around it.
    pub(super) text: &'a str,
}

/// The lines of a file, without comments and lines that say nothing. Headers of dumps
/// (`NXST_FLOW reply (xid=0x4):`) say nothing, so that what `ovs-ofctl` prints can be loaded.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let numbered = text.lines().enumerate();
    let lines = numbered.map(|(i, line)| {
        let text = line.split('#').next().unwrap_or_default().trim();
        Line { number: i + 1, text }
    });
    lines.filter(|line| !line.text.is_empty() && !is_header(line.text))
}

fn is_header(line: &str) -> bool {
    let reply = line.split_once(" reply ").filter(|(_, rest)| rest.ends_with("):"));
    reply.is_some_and(|(kind, _)| kind.starts_with("NXST_") || kind.starts_with("OFPST_"))
}

/// Words that may begin a line of `add-flows`.
const COMMANDS: &[(&str, Command)] = &[
    ("add", Command::Add),
    ("modify", Command::Modify),
    ("modify_strict", Command::ModifyStrict),
    ("delete", Command::Delete),
    ("delete_strict", Command::DeleteStrict),
];

/// The command that a line begins with, and the rest; without one it adds.
pub(super) fn command(line: &str) -> (Command, &str) {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match COMMANDS.iter().find(|(word, _)| *word == first) {
        Some((_, command)) => (*command, rest.trim_start()),
        None => (Command::Add, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_headers_say_nothing() {
        let text = "NXST_FLOW reply (xid=0x4):\n a=1 # b\n\n# c\r\n\tdelete  ip\r\n\
                    OFPST_FLOW reply (OF1.3) (xid=0x2):\nlast";
        let found: Vec<(usize, &str)> = lines(text).map(|l| (l.number, l.text)).collect();
        assert_eq!(found, [(2, "a=1"), (5, "delete  ip"), (7, "last")]);
    }

    #[test]
    fn a_line_may_begin_with_what_to_do() {
        assert_eq!(command("delete_strict  ip"), (Command::DeleteStrict, "ip"));
        assert_eq!(command("delete"), (Command::Delete, ""));
        assert_eq!(command("deleted=1 x"), (Command::Add, "deleted=1 x"));
    }
}
