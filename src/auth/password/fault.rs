//! Why a password file cannot be used: every fault of it, with its line, and never with anything of a hash.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing that is wrong with a line. Displayed as `passwords:7: user "ada": …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordFault {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong and what is to be done; names the user if that is known, escaped for a log.
    pub problem: String,
}

impl fmt::Display for PasswordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.problem)
    }
}

/// Why a password file cannot be used. Displayed with one fault on each line.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read.
    #[error("cannot read the password file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is larger than [`super::FILE_BYTES_MAX`].
    #[error("the password file {} is larger than {} bytes", path.display(), super::FILE_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Lines of it are wrong; never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<PasswordFault>),
}
