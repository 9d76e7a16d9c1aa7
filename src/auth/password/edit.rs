//! A password file changed in one user, as bytes: every other line stays as it is, in its place, whether it can be read or not.
//!
//! Where a user stands on several lines (a fault to [`super::PasswordFile`]) the first is changed and the others go: there is one password
//! afterwards. Lines keep their ends; a new line gets the end that the last line has.

use super::{Line, TEXT_LEN_MAX, lines};

/// Why a name cannot stand in a password file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is none.
    #[error("the user name is empty")]
    Empty,
    /// The file would read it as two fields.
    #[error("a user name in a password file cannot have a colon")]
    Colon,
    /// The line would be a comment.
    #[error("a user name in a password file cannot start with #")]
    Comment,
    /// Blanks at its ends do not count when the file is read.
    #[error("a user name in a password file cannot start or end with a blank")]
    Blank,
    /// Line ends would break the line, and no client may send the others (MQTT 3.1.1 section 1.5.3).
    #[error("a user name cannot have control characters")]
    Control,
    /// No client can send it.
    #[error("the user name is longer than the 65,535 bytes that CONNECT can carry")]
    TooLong,
}

/// Whether a line of this user can be written that is read as the same user again.
///
/// # Errors
/// The first reason against it.
pub fn check_name(user: &str) -> Result<(), NameError> {
    let is_blank = |c: char| c.is_ascii_whitespace();
    if user.is_empty() {
        Err(NameError::Empty)
    } else if user.len() > TEXT_LEN_MAX {
        Err(NameError::TooLong)
    } else if user.contains(char::is_control) {
        Err(NameError::Control)
    } else if user.contains(':') {
        Err(NameError::Colon)
    } else if user.starts_with(is_blank) || user.ends_with(is_blank) {
        Err(NameError::Blank)
    } else if user.starts_with('#') {
        Err(NameError::Comment)
    } else if user.starts_with('\u{feff}') {
        // At the start of a file it would be taken for a byte order mark.
        Err(NameError::Control)
    } else {
        Ok(())
    }
}

/// The file with this hash for `user`, on the user's line or on a new last one.
///
/// # Errors
/// The name cannot stand in such a file.
pub fn set(file: &[u8], user: &str, hash: &str) -> Result<Vec<u8>, NameError> {
    check_name(user)?;
    let new_line = format!("{user}:{hash}");
    let (mut edited, was_there) = rewrite(file, user, Some(new_line.as_bytes()));
    if !was_there {
        let end: &[u8] = if has_windows_ends(file) { b"\r\n" } else { b"\n" };
        if edited.ends_with(b"\r") {
            edited.push(b'\n');
        } else if !edited.is_empty() && !edited.ends_with(b"\n") {
            edited.extend_from_slice(end);
        }
        edited.extend_from_slice(new_line.as_bytes());
        edited.extend_from_slice(end);
    }
    Ok(edited)
}

/// The file without `user`; `None` if it has no such user.
pub fn remove(file: &[u8], user: &str) -> Option<Vec<u8>> {
    let (edited, was_there) = rewrite(file, user, None);
    was_there.then_some(edited)
}

/// The file with the first line of `user` replaced and the others left out, and whether there was one.
fn rewrite(file: &[u8], user: &str, mut new_line: Option<&[u8]>) -> (Vec<u8>, bool) {
    let mut edited = Vec::with_capacity(file.len() + 256);
    let mut was_there = false;
    if let Some(mark) = file.get(..file.len() - without_mark(file).len()) {
        edited.extend_from_slice(mark);
    }
    for line in without_mark(file).split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !is_line_of(text, user) {
            edited.extend_from_slice(line);
            continue;
        }
        was_there = true;
        if let Some(new_line) = new_line.take() {
            edited.extend_from_slice(new_line);
            edited.extend_from_slice(line.strip_prefix(text).unwrap_or(b"\n"));
        }
    }
    (edited, was_there)
}

fn is_line_of(line: &[u8], user: &str) -> bool {
    matches!(Line::read(line), Ok(Line::User { name, .. }) if name == user)
}

fn without_mark(file: &[u8]) -> &[u8] {
    file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file)
}

fn has_windows_ends(file: &[u8]) -> bool {
    let last_full = lines(file).filter(|line| !line.is_empty()).last();
    last_full.is_some_and(|line| line.ends_with(b"\r"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_new_user_comes_last() {
        for (before, after) in [
            ("", "ada:H\n"),
            ("# note\n\nbob:x\n", "# note\n\nbob:x\nada:H\n"),
            ("bob:x", "bob:x\nada:H\n"),
            ("bob:x\r\n", "bob:x\r\nada:H\r\n"),
            ("bob:x\r", "bob:x\r\nada:H\r\n"),
            ("#ada:x\nadam:x\n", "#ada:x\nadam:x\nada:H\n"),
            ("Ada:x\n", "Ada:x\nada:H\n"),
        ] {
            assert_eq!(text(set(before.as_bytes(), "ada", "H").expect("a name")), after, "{before:?}");
        }
    }

    #[test]
    fn a_user_keeps_the_place_and_others_their_lines() {
        for (before, after) in [
            ("ada:x\nbob:y\n", "ada:H\nbob:y\n"),
            ("# c\nbob : y\nada:x\nno colon\n\n", "# c\nbob : y\nada:H\nno colon\n\n"),
            ("ada:x", "ada:H"),
            ("ada:x\r\nbob:y\r\n", "ada:H\r\nbob:y\r\n"),
            (" ada :x\n", "ada:H\n"),
            ("ada:x\nbob:y\nada:z\n", "ada:H\nbob:y\n"),
            ("\u{feff}ada:x\n", "\u{feff}ada:H\n"),
        ] {
            assert_eq!(text(set(before.as_bytes(), "ada", "H").expect("a name")), after, "{before:?}");
        }
    }

    #[test]
    fn a_user_is_removed_and_nothing_else() {
        for (before, after) in [
            ("ada:x\n", Some("")),
            ("bob:y\nada:x", Some("bob:y\n")),
            ("# ada\nada:x\r\nadam:y\n", Some("# ada\nadam:y\n")),
            ("ada:x\nada:y\n", Some("")),
            ("#ada:x\nbob:ada\n", None),
            ("", None),
        ] {
            assert_eq!(remove(before.as_bytes(), "ada").map(text), after.map(str::to_owned), "{before:?}");
        }
    }

    #[test]
    fn names_that_would_be_read_otherwise_are_refused() {
        let long = "x".repeat(TEXT_LEN_MAX + 1);
        for (name, error) in [
            ("", NameError::Empty),
            ("a:b", NameError::Colon),
            ("#a", NameError::Comment),
            (" a", NameError::Blank),
            ("a ", NameError::Blank),
            ("a\nb", NameError::Control),
            ("a\r", NameError::Control),
            ("a\u{85}b", NameError::Control),
            ("\u{feff}a", NameError::Control),
            (&long, NameError::TooLong),
        ] {
            assert_eq!(set(b"", name, "H"), Err(error), "{name:?}");
        }
        for name in ["a", "a b", "a#", "ü/+%$", &long[1..]] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_again_and_other_lines_stay(
            file in prop::collection::vec(prop::sample::select(b"ab:#$ \r\n\xc3\xbc".to_vec()), 0..80),
            user: String,
        ) {
            let Ok(edited) = set(&file, &user, "$6$x") else { return Ok(()) };
            let of_user = |file: &[u8]| lines(file).filter(|line| is_line_of(line, &user)).count();
            prop_assert_eq!(of_user(&edited), 1);
            let others = |file: &[u8]| -> Vec<Vec<u8>> {
                let line = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                lines(file).map(line).filter(|line| !line.is_empty() && !is_line_of(line, &user)).collect()
            };
            prop_assert_eq!(others(&edited), others(&file));
            let removed = remove(&edited, &user).expect("there");
            prop_assert_eq!(of_user(&removed), 0);
            prop_assert_eq!(others(&removed), others(&file));
        }
    }
}
