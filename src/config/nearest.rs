//! The key somebody meant: the known one that differs least from an unknown one.

/// The candidate nearest to `unknown`, if one is near enough to be worth naming. The last segment alone counts too:
/// `queue_bytes_max` at the top level means `limits.queue_bytes_max`.
pub(crate) fn nearest<'a>(unknown: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Both are as short as keys are; a value that is not must not cost quadratic time.
    if unknown.len() > 128 {
        return None;
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let distances = candidates.map(|candidate| {
        let whole = distance(unknown, candidate);
        let segment = distance(&last(unknown), &last(candidate)) + 1;
        (whole.min(segment), candidate)
    });
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (unknown.len() / 3).max(2)).then_some(candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(previous[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("bind", "bind", 0),
            ("bnid", "bind", 1),
            ("bin", "bind", 1),
            ("bond", "bind", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn only_near_keys_are_named() {
        let keys = ["data_dir", "limits.queue_bytes_max", "limits.queue_messages_max", "log.level"];
        let nearest = |text| nearest(text, keys.iter().copied());
        assert_eq!(nearest("data_dri"), Some("data_dir"));
        assert_eq!(nearest("limits.queue_byte_max"), Some("limits.queue_bytes_max"));
        assert_eq!(nearest("queue_messages_max"), Some("limits.queue_messages_max"));
        assert_eq!(nearest("persistence"), None);
        assert_eq!(nearest(&"x".repeat(1000)), None);
    }
}
