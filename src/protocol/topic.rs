//! The rules of topic names and topic filters (section 4.7).
//!
//! Everything here goes along the string once and without recursion: a topic of 65,535 slashes is 65,536
//! levels and no deeper stack. [`matches()`] is the plain definition that faster structures are tested
//! against, not what routes.

use super::error::TopicError;

/// The longest topic name or topic filter, in bytes of UTF-8: what a two-byte length can say.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Whether one may publish to this topic.
///
/// # Errors
/// If it is empty [MQTT-4.7.3-1], longer than [`TOPIC_BYTES_MAX`] [MQTT-4.7.3-3], or contains U+0000
/// [MQTT-4.7.3-2] or a wildcard [MQTT-3.3.2-2]. Of several faults the first in this order, then in the order
/// of the string.
pub fn validate_topic_name(topic: &str) -> Result<(), TopicError> {
    validate_length(topic)?;
    for &byte in topic.as_bytes() {
        match byte {
            0 => return Err(TopicError::Nul),
            b'+' | b'#' => return Err(TopicError::WildcardInName),
            _ => {}
        }
    }
    Ok(())
}

/// Whether one may subscribe to this filter.
///
/// # Errors
/// If it is empty [MQTT-4.7.3-1], longer than [`TOPIC_BYTES_MAX`] [MQTT-4.7.3-3], or contains U+0000
/// [MQTT-4.7.3-2], a `#` that is not the whole of the last level [MQTT-4.7.1-2], or a `+` that is not the
/// whole of a level [MQTT-4.7.1-3]. Of several faults the first in this order, then in the order of the
/// string.
pub fn validate_topic_filter(filter: &str) -> Result<(), TopicError> {
    validate_length(filter)?;
    // What stands before and after a byte; the ends of the filter count as separators.
    let bytes = filter.as_bytes();
    let mut before = b'/';
    for (index, &byte) in bytes.iter().enumerate() {
        let after = bytes.get(index + 1);
        match byte {
            0 => return Err(TopicError::Nul),
            b'#' if before != b'/' || after.is_some() => return Err(TopicError::MisplacedMultiLevel),
            b'+' if before != b'/' || after.is_some_and(|&after| after != b'/') => {
                return Err(TopicError::MisplacedSingleLevel);
            }
            _ => {}
        }
        before = byte;
    }
    Ok(())
}

/// Whether a message published to `topic` goes to a subscriber of `filter`.
///
/// Both should be valid; for others the answer is of no use, but there is one. Levels compare byte by byte
/// [MQTT-4.7.3-4]; `a/#` matches `a` too; a filter that begins with a wildcard does not match a topic that
/// begins with `$` [MQTT-4.7.2-1].
pub fn matches(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    let mut filter_levels = filter.split('/').peekable();
    while let Some(filter_level) = filter_levels.next() {
        if filter_level == "#" && filter_levels.peek().is_none() {
            return true;
        }
        match topic_levels.next() {
            Some(topic_level) if filter_level == "+" || filter_level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// The levels of a topic name or topic filter: one more than it has `/`.
pub fn levels_count(topic: &str) -> usize {
    1 + topic.bytes().filter(|&byte| byte == b'/').count()
}

/// Whether U+0000, `+` or `#` is among these bytes, sixteen at a time: compilers have instructions for that.
#[inline]
pub(crate) fn forbidden_in_topic_name(bytes: &[u8]) -> bool {
    let (blocks, _) = bytes.as_chunks::<16>();
    let Some(last) = bytes.last_chunk::<16>() else { return forbidden_in_short_name(bytes) };
    let mut found = [0; 16];
    for block in blocks {
        note_forbidden(&mut found, block);
    }
    // The last sixteen bytes once more as one block are cheaper than up to fifteen bytes one by one.
    note_forbidden(&mut found, last);
    u128::from_ne_bytes(found) != 0
}

/// Sets the places where the block has U+0000, `+` or `#`.
#[inline]
fn note_forbidden(found: &mut [u8; 16], block: &[u8; 16]) {
    for (found, byte) in found.iter_mut().zip(block) {
        *found |= u8::from(*byte == 0) | u8::from(byte & !DIFFERENCE == b'#');
    }
}

/// The same for fewer than sixteen bytes: eight at a time.
#[inline]
fn forbidden_in_short_name(bytes: &[u8]) -> bool {
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            forbidden_in_word(u64::from_ne_bytes(*first)) | forbidden_in_word(u64::from_ne_bytes(*last)) != 0
        }
        _ => bytes.iter().any(|byte| matches!(byte, 0 | b'+' | b'#')),
    }
}

/// `+` and `#` are one bit apart, so one test serves for both.
const DIFFERENCE: u8 = b'+' ^ b'#';
const _: () = assert!(DIFFERENCE.is_power_of_two() && b'+' & DIFFERENCE != 0);

/// Not 0 if, and only if, a byte of the word is 0, `+` or `#`.
#[inline]
const fn forbidden_in_word(word: u64) -> u64 {
    zero_in_word(word) | zero_in_word((word & !(ONES * DIFFERENCE as u64)) ^ (ONES * b'#' as u64))
}

/// Not 0 if, and only if, a byte of the word is 0: subtracting 1 sets the upper bit of a byte that had it
/// clear only in a zero byte or, by the borrow, in a byte above one.
#[inline]
const fn zero_in_word(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// Each byte 1.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

fn validate_length(topic: &str) -> Result<(), TopicError> {
    match topic.len() {
        0 => Err(TopicError::Empty),
        1..=TOPIC_BYTES_MAX => Ok(()),
        bytes => Err(TopicError::TooLong { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_judged() {
        for good in ["a", "/", "//", " ", "a b/c", "$SYS/x", "\u{feff}", "\u{e9}/\u{1f600}"] {
            assert_eq!(validate_topic_name(good), Ok(()), "{good:?}");
        }
        assert_eq!(validate_topic_name(""), Err(TopicError::Empty));
        assert_eq!(validate_topic_name("a\0"), Err(TopicError::Nul));
        for bad in ["+", "#", "a/+", "a+/b", "a/#", "\u{e9}#"] {
            assert_eq!(validate_topic_name(bad), Err(TopicError::WildcardInName), "{bad:?}");
        }
    }

    #[test]
    fn topic_filters_are_judged() {
        for good in [
            "a",
            "/",
            "#",
            "+",
            "/#",
            "+/#",
            "a/#",
            "a/+/b",
            "+/+",
            "/+",
            "+/",
            "//+//#",
            "$SYS/#",
            "\u{e9}/+/\u{e9}",
        ] {
            assert_eq!(validate_topic_filter(good), Ok(()), "{good:?}");
        }
        assert_eq!(validate_topic_filter(""), Err(TopicError::Empty));
        assert_eq!(validate_topic_filter("a/\0/#"), Err(TopicError::Nul));
        for bad in ["a#", "#a", "#/", "#/a", "a/#/b", "##", "/a#", "\u{e9}#"] {
            assert_eq!(validate_topic_filter(bad), Err(TopicError::MisplacedMultiLevel), "{bad:?}");
        }
        for bad in ["a+", "+a", "++", "+#", "a/+b", "a/b+/c", "\u{e9}+", "+\u{e9}"] {
            assert_eq!(validate_topic_filter(bad), Err(TopicError::MisplacedSingleLevel), "{bad:?}");
        }
    }

    #[test]
    fn topics_too_long_are_refused() {
        let longest = "a".repeat(TOPIC_BYTES_MAX);
        assert_eq!(validate_topic_name(&longest), Ok(()));
        assert_eq!(validate_topic_filter(&longest), Ok(()));
        let longer = "\u{e9}".repeat(TOPIC_BYTES_MAX / 2 + 1);
        let error = Err(TopicError::TooLong { bytes: TOPIC_BYTES_MAX + 1 });
        assert_eq!(validate_topic_name(&longer), error);
        assert_eq!(validate_topic_filter(&longer), error);
    }

    #[test]
    fn matching_follows_the_standards_examples() {
        for (filter, topics) in [
            ("sport/tennis/player1/#", &["sport/tennis/player1", "sport/tennis/player1/ranking"][..]),
            ("sport/#", &["sport", "sport/", "sport/a/b/c"]),
            ("#", &["a", "/", "a/b/c", "//"]),
            ("sport/tennis/+", &["sport/tennis/player1", "sport/tennis/"]),
            ("+/+", &["/finance", "a/b"]),
            ("/+", &["/finance"]),
            ("+", &["finance"]),
            ("sport/+/#", &["sport/a", "sport/a/b", "sport/"]),
            ("$SYS/#", &["$SYS/a", "$SYS"]),
            ("$SYS/monitor/+", &["$SYS/monitor/Clients"]),
            ("a/+", &["a/$b"]),
            ("\u{e9}/+", &["\u{e9}/\u{e9}"]),
        ] {
            for topic in topics {
                assert!(matches(topic, filter), "{topic} does not match {filter}");
            }
        }
        for (filter, topics) in [
            ("sport/tennis/+", &["sport/tennis/player1/ranking", "sport/tennis"][..]),
            ("sport/+", &["sport", "sport/a/b"]),
            ("+", &["/finance", "a/b"]),
            ("/+", &["finance", "a/finance"]),
            ("sport/#", &["sports", "Sport", "spor"]),
            ("sport/+/#", &["sport"]),
            ("a", &["a/", "/a", "A", "ab"]),
            ("a/b", &["a", "a/b/c"]),
            ("e\u{301}", &["\u{e9}"]),
            // [MQTT-4.7.2-1]
            ("#", &["$SYS", "$SYS/a", "$"]),
            ("+", &["$SYS"]),
            ("+/monitor/Clients", &["$SYS/monitor/Clients"]),
            ("+/#", &["$SYS/a"]),
        ] {
            for topic in topics {
                assert!(!matches(topic, filter), "{topic} matches {filter}");
            }
        }
    }

    #[test]
    fn levels_are_counted() {
        for (topic, count) in [("", 1), ("a", 1), ("/", 2), ("a/b", 2), ("/a/", 3)] {
            assert_eq!(levels_count(topic), count);
        }
        let deep = "/".repeat(TOPIC_BYTES_MAX);
        assert_eq!(levels_count(&deep), 65_536);
        assert_eq!(validate_topic_filter(&deep), Ok(()));
        assert!(matches(&deep, &deep) && matches(&deep, "#"));
    }

    /// Every value of a byte beside every other: borrows between bytes must neither hide nor invent one.
    #[test]
    fn forbidden_bytes_are_found_in_pairs_of_any_bytes() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let expected = [first, second].iter().any(|byte| [0, b'+', b'#'].contains(byte));
                for (len, place) in (2..50).map(|len| (len, usize::from(first ^ second) % (len - 1))) {
                    let mut bytes = [b'a'; 50];
                    bytes[place] = first;
                    bytes[place + 1] = second;
                    assert_eq!(forbidden_in_topic_name(&bytes[..len]), expected, "{bytes:?}");
                }
                assert_eq!(forbidden_in_topic_name(&[first, second]), expected);
            }
        }
    }
}
