//! What is said of a text that is wrong: the reason in the words of `ovs-ofctl`, then the line with
//! a mark under the part that is meant.

use super::hint::hint;
use openflow::ParseError;

/// Longest part of a line that is shown; more does not fit a terminal's line.
const SHOWN: usize = 76;
/// Of that, how much before the mark.
const BEFORE: usize = 40;

/// Where a text comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The file, if it is one.
    pub(super) file: Option<&'a str>,
    /// The line in it, from 1.
    pub(super) line: usize,
}

impl Origin<'_> {
    /// `FILE:LINE: `, or nothing for an argument.
    pub(super) fn prefix(self) -> String {
        self.file.map_or_else(String::new, |file| format!("{file}:{}: ", self.line))
    }
}

/// What is wrong with `text`, a line of `origin`.
pub(super) fn parse_error(origin: Origin<'_>, text: &str, error: ParseError) -> String {
    let error = error.locate(text);
    let mut out = origin.prefix() + &error.reason + &hint(&error.reason);
    if let Some(at) = error.at {
        let width = error.word.chars().count().max(1);
        out += &marked(text, at - 1, width);
    }
    out
}

/// Why the tables refuse the flow in `text`.
pub(super) fn refused(origin: Origin<'_>, text: &str, reason: &str) -> String {
    let mut out = origin.prefix() + reason;
    if let Some((_, meaning)) = MEANINGS.iter().find(|(name, _)| reason == *name) {
        out += &format!(": {meaning}");
    }
    out + "\n  " + &excerpt(text.trim(), 0)
}

/// The line, and under it a mark `width` characters wide from character `at` (from 0) on.
fn marked(text: &str, at: usize, width: usize) -> String {
    let from = at.saturating_sub(BEFORE);
    let start = if text.chars().count() <= SHOWN { 0 } else { from };
    let lead = if start > 0 { "…" } else { "" };
    let shown = excerpt(text, start);
    let indent = at - start + lead.chars().count();
    let room = (shown.chars().count() + 1).saturating_sub(indent).max(1);
    format!("\n  {shown}\n  {}{}", " ".repeat(indent), "^".repeat(width.min(room)))
}

/// What is shown of a line, from a character on; nothing in it moves the cursor.
fn excerpt(text: &str, start: usize) -> String {
    let mut rest = text.chars().skip(start).map(|c| if c.is_control() { ' ' } else { c });
    let mut shown = String::from(if start > 0 { "…" } else { "" });
    shown.extend(rest.by_ref().take(SHOWN));
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

/// OpenFlow's names of errors, for people.
const MEANINGS: &[(&str, &str)] = &[
    (
        "OFPFMFC_OVERLAP",
        "a flow of the same priority could match the same packets, and check_overlap was asked for",
    ),
    ("OFPFMFC_TABLE_FULL", "the table has as many flows as its Flow_Table row allows (flow_limit)"),
    ("OFPBRC_EPERM", "table 254 is the switch's own"),
    ("OFPBRC_BAD_TABLE_ID", "there is no such table; they are 0 to 253"),
    ("OFPBAC_BAD_OUT_GROUP", "there is no such group; add it first"),
    ("OFPBAC_BAD_OUT_PORT", "there is no such port"),
    ("OFPMMFC_INVALID_METER", "there is no such meter; add it first"),
    ("OFPMMFC_UNKNOWN_METER", "there is no such meter"),
    ("OFPMMFC_METER_EXISTS", "the meter is there already; change it with mod-meter"),
    ("OFPMMFC_BAD_BAND", "of bands there is only drop"),
    ("OFPGMFC_GROUP_EXISTS", "the group is there already; change it with mod-group"),
    ("OFPGMFC_UNKNOWN_GROUP", "there is no such group; with --may-create it is made"),
    ("OFPGMFC_UNKNOWN_BUCKET", "the group has no such bucket"),
    ("OFPGMFC_BUCKET_EXISTS", "the group has a bucket of this number already"),
    ("OFPGMFC_LOOP", "a group would use itself"),
    ("OFPGMFC_OUT_OF_GROUPS", "there are too many groups"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENT: Origin<'_> = Origin { file: None, line: 1 };

    fn error(text: &str, word: &str) -> String {
        let at = text.find(word).expect("a part");
        let error = ParseError::new(&text[at..at + word.len()], "unknown keyword foo");
        parse_error(Origin { file: Some("f"), line: 3 }, text, error)
    }

    #[test]
    fn the_mark_stands_under_the_word() {
        assert_eq!(
            error("table=1,foo=1,actions=drop", "foo=1"),
            "f:3: unknown keyword foo\n  table=1,foo=1,actions=drop\n          ^^^^^"
        );
        assert_eq!(error("ü\tfoo", "foo"), "f:3: unknown keyword foo\n  ü foo\n    ^^^");
        let elsewhere = ParseError::new("x", "must specify an action");
        assert_eq!(parse_error(ARGUMENT, "ip", elsewhere), "must specify an action");
    }

    #[test]
    fn of_long_lines_the_part_that_matters_is_shown() {
        let text = format!("{}foo{}", "a".repeat(100), "b".repeat(100));
        let out = error(&text, "foo");
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[1].starts_with("  …aaa") && lines[1].ends_with("bbb…"), "{out}");
        assert_eq!(
            lines[1].find("foo").map(|at| lines[1][..at].chars().count()),
            lines[2].find('^')
        );
        assert!(error(&text, "f").lines().all(|l| l.chars().count() <= SHOWN + 4));
        // A mark does not go on beyond what is shown.
        let wide = error(&text, &text[50..]);
        assert!(wide.lines().all(|l| l.chars().count() <= SHOWN + 5), "{wide}");
    }

    #[test]
    fn refusals_are_explained() {
        let out = refused(ARGUMENT, " ip,actions=group:5", "OFPBAC_BAD_OUT_GROUP");
        assert!(out.starts_with("OFPBAC_BAD_OUT_GROUP: there is no such group"), "{out}");
        assert!(out.ends_with("\n  ip,actions=group:5"), "{out}");
    }
}
