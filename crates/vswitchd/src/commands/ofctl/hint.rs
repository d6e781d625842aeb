//! "did you mean": the nearest of the names that a flow may use.

/// Words of flows that are no fields (ovs-ofctl(8), "Flow Syntax").
const KEYWORDS: &[&str] = &[
    "actions",
    "table",
    "priority",
    "cookie",
    "idle_timeout",
    "hard_timeout",
    "importance",
    "out_port",
    "out_group",
    "send_flow_rem",
    "check_overlap",
    "reset_counts",
];

/// Longest word that is compared: longer than any name.
const NAME_MAX: usize = 40;

/// What goes before and after the name that was not understood.
const UNKNOWN: &[(&str, &str)] = &[
    ("unknown keyword ", ""),
    ("field ", " missing value"),
    ("", " is not a valid OXM field name"),
    ("", ": unknown field name"),
];

/// Something to add to a reason that says a name is unknown; nothing if no name is near.
pub(super) fn hint(reason: &str) -> String {
    let mut names = UNKNOWN.iter().filter_map(|(before, after)| {
        let name = reason.strip_prefix(before)?.strip_suffix(after)?;
        (!name.contains(' ') && name.len() <= NAME_MAX).then_some(name)
    });
    let Some(given) = names.next() else { return String::new() };
    let fields = openflow::fields().iter().flat_map(|f| [Some(f.name), f.alias]).flatten();
    let near = fields
        .chain(KEYWORDS.iter().copied())
        .map(|name| (distance(given.as_bytes(), name.as_bytes()), name))
        .min();
    match near {
        // A third of the letters wrong is still a slip; more is another word.
        Some((d, name)) if d > 0 && d <= given.len() / 3 => format!("; did you mean \"{name}\"?"),
        _ => String::new(),
    }
}

/// Number of letters to insert, delete or replace (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found() {
        for (reason, expect) in [
            ("unknown keyword nw_dts", "; did you mean \"nw_dst\"?"),
            ("unknown keyword pirority", "; did you mean \"priority\"?"),
            ("field send_flow_rm missing value", "; did you mean \"send_flow_rem\"?"),
            ("unknown keyword frobnicate", ""),
            ("unknown keyword foo", ""),
            ("must specify an action", ""),
            ("drop must not be accompanied by any other action: unknown field name", ""),
        ] {
            assert_eq!(hint(reason), expect, "{reason}");
        }
    }
}
