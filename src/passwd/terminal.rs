//! A question on the terminal whose answer is not shown.
//!
//! The terminal's own editing of lines is off while we ask: it would turn the interrupt key into a signal, and the signal would leave
//! the terminal without echo. So the few keys that matter are understood here, and the terminal is as before when [`ask`] returns.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line of more bytes than are taken.
    TooLong,
    /// The key for the end of the input on an empty line, or the terminal has gone.
    End,
    /// The interrupt key.
    Interrupt,
}

/// Asks on standard error and reads from the terminal that standard input is.
///
/// # Errors
/// Those of the terminal.
pub(super) fn ask(question: &str, len_max: usize) -> io::Result<Answer> {
    let silent = Silent::start()?;
    let mut errors = io::stderr().lock();
    write!(errors, "{question}")?;
    errors.flush()?;
    let mut line = LineEditor { line: Vec::new(), len_max, is_too_long: false };
    let answer = loop {
        let mut byte = [0];
        if io::stdin().lock().read(&mut byte)? == 0 {
            break Answer::End;
        }
        if let Some(answer) = line.feed(byte[0]) {
            break answer;
        }
    };
    drop(silent);
    // The end of the line was not shown either.
    writeln!(errors)?;
    Ok(answer)
}

/// The terminal without echo, until this is dropped.
struct Silent {
    before: Termios,
}

impl Silent {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        // What was typed ahead was shown; it is not taken for a password.
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

struct LineEditor {
    line: Vec<u8>,
    len_max: usize,
    is_too_long: bool,
}

impl LineEditor {
    /// Takes a byte from the keyboard; gives the answer when it is complete.
    fn feed(&mut self, byte: u8) -> Option<Answer> {
        match byte {
            b'\n' | b'\r' if self.is_too_long => return Some(Answer::TooLong),
            b'\n' | b'\r' => return Some(Answer::Line(std::mem::take(&mut self.line))),
            // Ctrl-C.
            0x03 => return Some(Answer::Interrupt),
            // Ctrl-D.
            0x04 if self.line.is_empty() => return Some(Answer::End),
            0x04 => {}
            // Backspace, as terminals send it: one character of UTF-8.
            0x08 | 0x7f => while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            0x15 => {
                self.line.clear();
                self.is_too_long = false;
            }
            _ if self.line.len() < self.len_max => self.line.push(byte),
            _ => self.is_too_long = true,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Option<Answer> {
        let mut line = LineEditor { line: Vec::new(), len_max: 8, is_too_long: false };
        let mut answers: Vec<_> = keys.iter().filter_map(|byte| line.feed(*byte)).collect();
        assert!(answers.len() < 2, "{answers:?}");
        answers.pop()
    }

    #[test]
    fn keys_are_understood() {
        let line = |text: &str| Some(Answer::Line(text.as_bytes().to_vec()));
        assert_eq!(typed(b"secret\r"), line("secret"));
        assert_eq!(typed(b"\n"), line(""));
        assert_eq!(typed("aü\x7fb\r".as_bytes()), line("ab"));
        assert_eq!(typed(b"\x7f\x08a\n"), line("a"));
        assert_eq!(typed(b"wrong\x15right\n"), line("right"));
        assert_eq!(typed(b"a\x04b\n"), line("ab"));
        assert_eq!(typed(b"\x04"), Some(Answer::End));
        assert_eq!(typed(b"secr\x03"), Some(Answer::Interrupt));
        assert_eq!(typed(b"12345678\n"), line("12345678"));
        assert_eq!(typed(b"123456789\n"), Some(Answer::TooLong));
        assert_eq!(typed(b"123456789\x15ok\n"), line("ok"));
        assert_eq!(typed(b"unfinished"), None);
    }
}
