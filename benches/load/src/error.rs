//! What ends a measurement early: the network, or a broker that does not answer as the standard says.

use std::fmt;
use std::io;

/// Why a run could not go on. Wrong deliveries do not end a run; they are counted and reported.
#[derive(Debug)]
pub struct Error(pub String);

/// The result of everything that talks to the broker.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self(io::Error::from(error).to_string())
    }
}

/// An error made of words.
pub fn fault<T>(words: impl Into<String>) -> Result<T> {
    Err(Error(words.into()))
}
