//! Finding the topics that a wildcard filter matches in a sorted list of topics, without looking at all of them.
//!
//! Topics are compared bytewise, which is not the order of their levels: `/` sorts after `!`, `-` and `.`, so
//! "a", "a-b/x", "a/x" is the order, and the topics below "a" do not follow "a" at once; but those that begin
//! with "a/" do stand together, between "a/" and "a0" (`0` is the byte after `/`).
//! [`judge`] looks at one topic and says where the scan goes on: nothing between the topic and that place can
//! match. Places only ever lie after the topic, so a scan ends.

use super::split_level;

/// What to do after looking at a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The topic matches; go on with the one after it.
    Match,
    /// It does not, and the one after it may.
    Next,
    /// It does not; the first that may is at or after the text put into `seek`.
    Seek,
    /// Neither it nor any after it matches.
    End,
}

/// Compares a topic with a filter and finds the next place where a match is possible.
pub(super) fn judge(filter: &str, topic: &str, seek: &mut String) -> Verdict {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        seek.clear();
        seek.push('%'); // the byte after '$'
        return Verdict::Seek;
    }
    // The topic up to `start` has been matched; `plus_end` is where its last level under a '+' ends.
    let (mut start, mut plus_end) = (0, None);
    let mut filter = filter;
    loop {
        let (level, after) = split_level(filter);
        if level == "#" && after.is_none() {
            return Verdict::Match;
        }
        let tail = &topic[start..];
        let (name, below) = split_level(tail);
        let end = start + name.len();
        if level == "+" {
            plus_end = Some(end);
        } else if name != level {
            return literal_ahead(topic, start, level, after, plus_end, seek);
        }
        match (after, below) {
            (None | Some("#"), None) => return Verdict::Match,
            // Topics with other names under this '+' may come before those below this topic.
            (Some(_), None) if level == "+" => return Verdict::Next,
            (Some(_), None) => return seek_to(seek, &[topic, "/"]),
            (None, Some(_)) => return after_subtree(topic, plus_end, seek),
            (Some(rest), Some(_)) => {
                filter = rest;
                start = end + 1;
            }
        }
    }
}

/// The level at `start` is not the literal one wanted: go there if it is ahead, else leave what lies above.
fn literal_ahead(
    topic: &str,
    start: usize,
    level: &str,
    after: Option<&str>,
    plus_end: Option<usize>,
    seek: &mut String,
) -> Verdict {
    let (above, tail) = topic.split_at(start);
    let ahead = tail < level;
    // "a-b" lies between "a" and "a/".
    let between = || tail.strip_prefix(level).is_some_and(|more| more.as_bytes() < b"/".as_slice());
    match after {
        None | Some("#") if ahead => seek_to(seek, &[above, level]),
        Some(_) if ahead || between() => seek_to(seek, &[above, level, "/"]),
        _ => after_subtree(topic, plus_end, seek),
    }
}

/// Nothing more below the last level under a '+' can match: go to the next name there.
fn after_subtree(topic: &str, plus_end: Option<usize>, seek: &mut String) -> Verdict {
    match plus_end.and_then(|end| topic.get(..end)) {
        Some(above) => seek_to(seek, &[above, "0"]),
        None => Verdict::End,
    }
}

fn seek_to(seek: &mut String, parts: &[&str]) -> Verdict {
    seek.clear();
    seek.extend(parts.iter().copied());
    Verdict::Seek
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::matches;
    use crate::router::tests::{filters, topics};

    fn scan(filter: &str, names: &BTreeSet<String>) -> (Vec<String>, usize) {
        let (mut hits, mut steps, mut seek) = (Vec::new(), 0, String::new());
        let mut range = names.range::<str, _>((Bound::Unbounded, Bound::Unbounded));
        while let Some(name) = range.next() {
            steps += 1;
            match judge(filter, name, &mut seek) {
                Verdict::Match => hits.push(name.clone()),
                Verdict::Next => {}
                Verdict::Seek => {
                    assert!(seek.as_str() > name.as_str(), "{filter} at {name} goes back to {seek}");
                    range = names.range::<str, _>((Bound::Included(seek.as_str()), Bound::Unbounded));
                }
                Verdict::End => break,
            }
        }
        (hits, steps)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn finds_what_the_rule_matches(filter in filters(), names in prop::collection::btree_set(topics(), 0..60)) {
            let (hits, steps) = scan(&filter, &names);
            let expected: Vec<_> = names.iter().filter(|name| matches(name, &filter)).cloned().collect();
            prop_assert_eq!(hits, expected);
            prop_assert!(steps <= names.len());
        }
    }

    #[test]
    fn bytes_below_the_slash_do_not_hide_topics() {
        let names: BTreeSet<String> =
            ["a", "a!", "a!/x", "a-b", "a-b/x", "a.", "a/x", "a/x!", "a/x/y", "a0/x"].map(Into::into).into();
        assert_eq!(scan("a/x", &names).0, ["a/x"]);
        assert_eq!(scan("a/#", &names).0, ["a", "a/x", "a/x!", "a/x/y"]);
        assert_eq!(scan("+/x", &names).0, ["a!/x", "a-b/x", "a/x", "a0/x"]);
        assert_eq!(scan("+/x/#", &names).0, ["a!/x", "a-b/x", "a/x", "a/x/y", "a0/x"]);
    }

    #[test]
    fn steps_follow_the_matches_and_not_the_topics() {
        let names: BTreeSet<String> = (0..100)
            .flat_map(|site| (0..100).map(move |device| format!("site{site}/device{device}/temp")))
            .collect();
        assert_eq!(scan("site7/#", &names), (scan("site7/+/temp", &names).0, 102));
        let (hits, steps) = scan("+/device50/temp", &names);
        assert_eq!(hits.len(), 100);
        assert!(steps <= 301, "{steps} steps for 100 matches in 10,000 topics");
        let (hits, steps) = scan("+/nothing/+", &names);
        assert_eq!(hits.len(), 0);
        assert!(steps <= 101, "{steps} steps over 100 sites");
    }
}
