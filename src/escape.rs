//! Text that came from a client, made safe for a log line.
//!
//! What comes out has no control character, no quote or backslash that is not escaped, nothing invisible and nothing
//! that changes the direction of writing, and at most [`ESCAPED_CHARS_MAX`] characters and an ellipsis: whatever a
//! client calls itself, it cannot end the line, forge another or hide a part of it.

use std::fmt::{self, Write};

/// Most characters that [`escape`] writes, the ellipsis not counted.
pub(crate) const ESCAPED_CHARS_MAX: usize = 256;

/// `text` for a log line: `tracing::info!(client = %escape(id), "connected")`.
pub(crate) fn escape(text: &str) -> impl fmt::Display + '_ {
    Escaped(text)
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = ESCAPED_CHARS_MAX;
        for c in self.0.chars() {
            // std's table of what is printable leaves out controls, format characters (the bidirectional ones among
            // them), separators other than the space, private and unassigned characters.
            let escaped = c.escape_debug();
            let Some(left) = room.checked_sub(escaped.len()) else { return f.write_char('…') };
            room = left;
            write!(f, "{escaped}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_stays() {
        for text in ["", "sensor-1", "a b/c", "Küche/Wärme", "温度", "😀"] {
            assert_eq!(escape(text).to_string(), text);
        }
    }

    #[test]
    fn what_could_mislead_is_escaped() {
        for (text, escaped) in [
            ("a\nb", "a\\nb"),
            ("a\r\tb", "a\\r\\tb"),
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("\u{9b}", "\\u{9b}"),
            ("a\"b", "a\\\"b"),
            ("a\\nb", "a\\\\nb"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("a\u{200b}b", "a\\u{200b}b"),
            ("\u{feff}", "\\u{feff}"),
            ("\u{2028}", "\\u{2028}"),
            ("\u{85}", "\\u{85}"),
            ("\u{a0}", "\\u{a0}"),
            ("e\u{301}", "e\\u{301}"),
            ("\u{0}", "\\0"),
        ] {
            assert_eq!(escape(text).to_string(), escaped, "{text:?}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(escape(&"x".repeat(256)).to_string(), "x".repeat(256));
        assert_eq!(escape(&"x".repeat(257)).to_string(), "x".repeat(256) + "…");
        // An escape sequence is written whole or not at all.
        let text = "x".repeat(255) + "\n";
        assert_eq!(escape(&text).to_string(), "x".repeat(255) + "…");
        assert_eq!(escape(&"\n".repeat(65_535)).to_string(), "\\n".repeat(128) + "…");
    }

    proptest! {
        #[test]
        fn every_output_is_one_bounded_printable_line(text: String) {
            let escaped = escape(&text).to_string();
            prop_assert!(escaped.chars().count() <= ESCAPED_CHARS_MAX + 1);
            let mut after_backslash = false;
            for c in escaped.chars() {
                prop_assert!(!c.is_control());
                prop_assert!(c != '"' || after_backslash);
                after_backslash = c == '\\' && !after_backslash;
            }
            prop_assert!(!after_backslash);
        }
    }
}
