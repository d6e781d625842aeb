//! Makes a failing scenario small: fewer packets, flows, matches and actions, as long as it fails.

use crate::scenario::Scenario;

/// Trials at most: a trial costs some 50 ms.
const TRIALS: usize = 200;

/// The smallest scenario found for which `fails` still holds.
pub fn minimise(scenario: &Scenario, mut fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let mut best = scenario.clone();
    let mut left = TRIALS;
    let mut attempt = |best: &mut Scenario, candidate: Scenario| {
        if left == 0 || candidate == *best {
            return false;
        }
        left -= 1;
        let better = fails(&candidate);
        if better {
            *best = candidate;
        }
        better
    };
    loop {
        let before = best.clone();
        // Halves, quarters and so on of the packets and the flows, then single ones.
        shrink_list(&mut best, &mut attempt, |s| &mut s.inputs);
        shrink_list(&mut best, &mut attempt, |s| &mut s.flows);
        shrink_list(&mut best, &mut attempt, |s| &mut s.groups);
        shrink_list(&mut best, &mut attempt, |s| &mut s.changes);
        for flow in 0..best.flows.len() {
            shrink_text(&mut best, &mut attempt, |s| &mut s.flows[flow]);
        }
        for group in 0..best.groups.len() {
            shrink_text(&mut best, &mut attempt, |s| &mut s.groups[group]);
        }
        for change in 0..best.changes.len() {
            shrink_text(&mut best, &mut attempt, |s| &mut s.changes[change]);
        }
        if best == before {
            return best;
        }
    }
}

type Attempt<'a> = dyn FnMut(&mut Scenario, Scenario) -> bool + 'a;

fn shrink_list<T: Clone>(
    best: &mut Scenario,
    attempt: &mut Attempt<'_>,
    list: impl Fn(&mut Scenario) -> &mut Vec<T>,
) {
    let mut size = list(best).len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < list(best).len() {
            let mut candidate = best.clone();
            let items = list(&mut candidate);
            let end = (at + size).min(items.len());
            items.drain(at..end);
            if !attempt(best, candidate) {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
}

/// Drops parts of a flow or group between commas, in and out of parentheses.
fn shrink_text(
    best: &mut Scenario,
    attempt: &mut Attempt<'_>,
    text: impl Fn(&mut Scenario) -> &mut String,
) {
    let mut part = 0;
    while let Some(shorter) = without_part(text(best), part) {
        let mut candidate = best.clone();
        *text(&mut candidate) = shorter;
        if !attempt(best, candidate) {
            part += 1;
        }
    }
}

/// The text without its part number `n`; cookie, table and priority stay. `None` past the last.
fn without_part(text: &str, n: usize) -> Option<String> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(start..text.len());
    let keep = [
        "cookie=",
        "table=",
        "priority=",
        "actions=",
        "group_id=",
        "type=",
        "bucket=",
        "selection_method=",
        "fields(",
    ];
    let dispensable: Vec<_> = parts
        .iter()
        .filter(|p| {
            // Changes begin with a command and a space.
            let part = text[(*p).clone()].rsplit(' ').next().unwrap_or_default();
            !keep.iter().any(|k| part.starts_with(k))
        })
        .cloned()
        .collect();
    if let Some(range) = dispensable.get(n) {
        let from = range.start.saturating_sub(1);
        return Some(format!("{}{}", &text[..from], &text[range.end..]));
    }
    // The first action has `actions=` before it; a group has several such lists, and keeps it.
    if text.contains("bucket=") {
        return None;
    }
    let (head, actions) = text.split_once("actions=")?;
    let (_, rest) = actions.split_once(',')?;
    (n == dispensable.len() && !actions.split(',').next()?.contains('('))
        .then(|| format!("{head}actions={rest}"))
}
