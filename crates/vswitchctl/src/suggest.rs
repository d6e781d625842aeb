//! "did you mean": the nearest of a set of names to one that was not found.

/// The name nearest to `given`, as the end of an error sentence; nothing if none is near.
pub fn did_you_mean<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let given = fold(given);
    let near = names.into_iter().map(|name| (distance(&given, &fold(name)), name)).min();
    match near {
        // A third of the letters wrong is still a slip; more is another word.
        Some((distance, name)) if distance <= 1 + given.len() / 3 => {
            format!("; did you mean \"{name}\"?")
        }
        _ => String::new(),
    }
}

fn fold(name: &str) -> Vec<u8> {
    name.bytes().map(|byte| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() }).collect()
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
    fn finds_slips_and_nothing_else() {
        let names = ["add-port", "add-br", "del-port", "list"];
        assert_eq!(did_you_mean("ad-port", names), "; did you mean \"add-port\"?");
        assert_eq!(did_you_mean("LIST_", names), "; did you mean \"list\"?");
        assert_eq!(did_you_mean("frobnicate", names), "");
    }
}
