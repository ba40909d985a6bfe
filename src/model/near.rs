//! "Did you mean …": the nearest known name to one that is not known. Refuses to guess when nothing is close.

/// The most edits at which two names still pass for the same one mistyped.
const EDITS_MAX: usize = 2;
/// Names longer than this are not compared; no name of ours is.
const LENGTH_MAX: usize = 64;

/// The known name closest to `wrong`, if one is close enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (edits(wrong, name), name))
        .filter(|(edits, name)| *edits <= EDITS_MAX && *edits < name.len())
        .min()
        .map(|(_, name)| name)
}

/// " (did you mean `x`?)" or nothing, ready to end a sentence with.
pub fn hint<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// The Levenshtein distance between two names, in bytes.
fn edits(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > LENGTH_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cheapest = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = cheapest;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["habits", "habit_logs"];
        assert_eq!(nearest("habit", known), Some("habits"));
        assert_eq!(nearest("habit_log", known), Some("habit_logs"));
        assert_eq!(nearest("invoices", known), None);
        assert_eq!(nearest(&"x".repeat(1000), known), None);
    }
}
