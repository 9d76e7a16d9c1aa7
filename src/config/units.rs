//! Sizes and durations as people write them: "16MB", "1GiB", "500ms", "30d", "1h30m".
//!
//! Decimal size units are powers of 1,000 (KB, MB, GB, TB), binary ones powers of 1,024 (KiB, MiB, GiB, TiB). What
//! `format_*` writes, `parse_*` reads back to the same value; a fraction, a sign or a duration without unit is refused.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TIB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GIB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MIB", 1 << 20),
    ("MB", 1_000_000),
    ("KIB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// The spelling of a unit in what is printed; reading does not mind the case.
const SIZE_NAMES: [&str; 9] = ["TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB", "B"];

/// Descending; a compound duration names each unit once, in this order. Values in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Splits leading decimal digits off; `None` when there are none or they do not fit.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// Bytes of "16MB", "64 KiB" or "4096".
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (count, unit) = number(text.trim())?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(count);
    }
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    count.checked_mul(*bytes)
}

/// The shortest exact way to write a number of bytes.
pub(crate) fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let exact = SIZE_UNITS.iter().zip(SIZE_NAMES).filter(|((_, unit), _)| bytes.is_multiple_of(*unit));
    let best = exact.min_by_key(|((_, unit), _)| bytes / unit);
    best.map_or_else(|| format!("{bytes}B"), |((_, unit), name)| format!("{}{name}", bytes / unit))
}

/// The time of "10s", "500ms" or "1h30m"; a number without unit is refused.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut units = DURATION_UNITS.iter();
    let mut total = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (count, after) = number(rest)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        // `find` moves the iterator on: a unit that was passed cannot come again.
        let (_, millis) = units.find(|(unit, _)| *unit == name)?;
        total = total.checked_add(count.checked_mul(*millis)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(total))
}

/// The time in its units, largest first; what is below a millisecond is cut off.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in DURATION_UNITS {
        if millis >= unit {
            text.push_str(&format!("{}{name}", millis / unit));
            millis %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("16MB", 16_000_000),
            ("16mb", 16_000_000),
            ("64 KB", 64_000),
            (" 64KiB ", 65_536),
            ("3MiB", 3 << 20),
            ("1GB", 1_000_000_000),
            ("1GiB", 1 << 30),
            ("2TB", 2_000_000_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn bad_sizes_are_refused() {
        for text in [
            "",
            "MB",
            "-1",
            "+1",
            "1.5MB",
            "1M",
            "16 M B",
            "16MBs",
            "1e6",
            "18446744073709551616",
            "99999999TB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            ("1d 2h 3m 4s 5ms", 93_784_005),
            ("90m", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in
            ["", "10", "0", "s", "-1s", "1.5s", "10 sec", "5m1h", "1s1s", "1m 2", "10S", "999999999999d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_shortest_exact_unit_is_written() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1KB"),
            (1_024, "1KiB"),
            (4_096, "4KiB"),
            (64_000, "64KB"),
            (16_000_000, "16MB"),
            (268_435_460, "268435460B"),
            (1 << 30, "1GiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(format_duration(Duration::from_secs(30 * 86_400)), "30d");
        assert_eq!(format_duration(Duration::from_millis(5_400_500)), "1h30m500ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64, millis in 0u64..u64::MAX / 2) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
