//! What a misspelt word was probably meant to be.

/// Words longer than this are not compared: no keyword is that long, and the comparison is quadratic.
const LONGEST: usize = 40;

/// The candidate nearest to `word` in spelling, if it is near; case does not count.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    // One slip in a short word, two in a longer one: `go` is not meant to be `id`.
    let allowed = if length < 4 { 1 } else { 2 };
    let near = |candidate: &'a str| {
        let distance = distance(&word, &candidate.to_lowercase());
        (distance <= allowed && distance < length).then_some((distance, candidate))
    };
    candidates.into_iter().filter_map(near).min().map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, deleted, replaced or swapped with their neighbour to get from one word to the
/// other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(LONGEST + 3).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    let mut previous = None;
    for (line, c) in from.chars().enumerate() {
        let mut next = vec![line + 1];
        for (column, wanted) in to.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let swapped = column.checked_sub(1).filter(|left| to.get(*left) == Some(&c) && previous == Some(*wanted));
            let best = [
                at(&row, column) + usize::from(c != *wanted),
                at(&row, column + 1) + 1,
                at(&next, column) + 1,
                swapped.map_or(usize::MAX, |left| at(&before, left) + 1),
            ];
            next.extend(best.into_iter().min());
        }
        before = std::mem::replace(&mut row, next);
        previous = Some(c);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_recognised_and_other_words_are_not() {
        let names = ["COPY", "CMD", "RUN", "ENTRYPOINT", "ENV"];
        for (word, expected) in [
            ("COPPY", Some("COPY")),
            ("copyy", Some("COPY")),
            ("CPOY", Some("COPY")),
            ("ENTRIPIONT", Some("ENTRYPOINT")),
            ("RUNN", Some("RUN")),
            ("CM", Some("CMD")),
            ("BANANA", None),
            ("", None),
            ("X", None),
        ] {
            assert_eq!(closest(word, names), expected, "{word}");
        }
        assert_eq!(closest(&"x".repeat(1 << 20), names), None);
    }
}
