//! Password files in mosquitto's format: one `user:hash` on each line, lines that start with `#` and blank lines apart.
//!
//! [`PasswordFile`] reads a file as a whole or not at all: with one fault in it nobody gets in, and all of its faults are told at once. The
//! kinds of hashes are in `hash.rs`. As in mosquitto, blanks around the user's name and the hash do not count, and a byte
//! order mark and the CR of Windows are skipped.
//!
//! A check computes exactly one hash whether the user is there or not; for one who is not, of the kind and cost that most of the file has.
//! (In a file of several kinds the time of an answer can show the kind of a user's hash, and so that there is such a user: keep to one kind.)
//!
//! [`edit`] and [`store`] are the writing side, for `ternmq passwd`.

pub mod edit;
mod fault;
mod hash;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::Read;
use std::path::Path;

pub use self::fault::{PasswordFault, PasswordFileError};
pub use self::hash::{
    ARGON2_LANES_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_WORK_KIB_MAX, BCRYPT_COST_MAX, NewHashError,
    PBKDF2_ITERATIONS_MAX, new_hash,
};
use self::hash::{Hash, Kind};
use super::entry::EntryId;
use crate::escape::escape;

/// Largest password file that is read: some 400,000 users.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Longest user name and password in bytes: what CONNECT can carry (MQTT 3.1.1 section 1.5.3, 3.1.3.5).
pub const TEXT_LEN_MAX: usize = 65_535;

/// The users of a password file and the hashes of their passwords.
pub struct PasswordFile {
    users: HashMap<Box<str>, Hash, ahash::RandomState>,
    /// Stands in for the hash of a user who is not there.
    decoy: Hash,
}

impl PasswordFile {
    /// Reads the file at `path`. Blocks for the reading, not for any hashing.
    ///
    /// # Errors
    /// [`PasswordFileError`]: it cannot be read, it is too large, or every fault in it.
    pub fn read(path: &Path) -> Result<Self, PasswordFileError> {
        let bytes = read_bounded(path)?;
        Self::parse(path, &bytes).map_err(PasswordFileError::Faults)
    }

    /// Reads the bytes of a file; `path` is for the faults.
    ///
    /// # Errors
    /// Every fault; never empty.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Vec<PasswordFault>> {
        let mut users = HashMap::with_hasher(ahash::RandomState::new());
        let mut lines_of_users: HashMap<&str, usize, ahash::RandomState> = HashMap::default();
        let mut faults = Vec::new();
        for (index, line) in lines(bytes).enumerate() {
            let line_number = index + 1;
            let mut fault = |problem| {
                faults.push(PasswordFault { path: path.to_owned(), line: line_number, problem });
            };
            match Line::read(line) {
                Ok(Line::Nothing) => {}
                Ok(Line::User { name, hash }) => {
                    if let Some(first) = lines_of_users.get(name) {
                        fault(format!("user \"{}\" is on line {first} already", escape(name)));
                        continue;
                    }
                    lines_of_users.insert(name, line_number);
                    match Hash::parse(hash) {
                        Ok(hash) => drop(users.insert(Box::from(name), hash)),
                        Err(error) => fault(format!("user \"{}\": {error}", escape(name))),
                    }
                }
                Err(problem) => fault(problem.to_owned()),
            }
        }
        if faults.is_empty() { Ok(Self { decoy: decoy(&users), users }) } else { Err(faults) }
    }

    /// Whether `user` has this password. Computes one hash, whatever the answer, and blocks for as long as that takes (some
    /// 50 ms with the hashes of `ternmq passwd`): call it on the [pool](crate::auth::pool), not where connections are served.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        match self.users.get(user) {
            Some(hash) => hash.matches(password),
            None => {
                // Whether a stroke of luck met the decoy is of no interest.
                let _ = self.decoy.matches(password);
                false
            }
        }
    }

    /// The entry of a user, if there is one.
    pub fn entry(&self, user: &str) -> Option<EntryId> {
        self.users.get(user).map(|hash| EntryId::of(user, hash))
    }

    /// Whether the file has this user.
    pub fn contains(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// How many users the file has.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether the file has no user.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What weakens the file without making it wrong, one line for each.
    pub fn warnings(&self) -> Vec<String> {
        let mut weak = 0;
        let mut kinds = std::collections::BTreeSet::new();
        for hash in self.users.values() {
            weak += usize::from(hash.kind == Kind::Sha512);
            kinds.insert(hash.kind);
        }
        let mut warnings = Vec::new();
        if weak > 0 {
            warnings.push(format!(
                "{weak} of {} users have $6$ hashes, whose passwords are guessed quickly by whoever gets the file; set them \
                 again with `ternmq passwd`",
                self.users.len()
            ));
        }
        if kinds.len() > 1 {
            warnings.push(format!(
                "{} kinds of hashes: the time of an answer can show whether a user exists; set the passwords again with \
                 `ternmq passwd`",
                kinds.len()
            ));
        }
        warnings
    }
}

impl std::fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordFile").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

/// The kind that most users have; of two equally frequent ones the one that stands later in [`Kind`], which is the dearer.
fn decoy<S: BuildHasher>(users: &HashMap<Box<str>, Hash, S>) -> Hash {
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    users.values().for_each(|hash| *kinds.entry(hash.kind).or_default() += 1);
    let prevailing = kinds.into_iter().max_by_key(|(_, users)| *users);
    Hash::decoy(prevailing.map_or(Kind::NEW, |(kind, _)| kind))
}

/// A file's bytes, no more than [`FILE_BYTES_MAX`].
fn read_bounded(path: &Path) -> Result<Vec<u8>, PasswordFileError> {
    let failed = |error| PasswordFileError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(PasswordFileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Lines without their ends; a byte order mark is no part of the first.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).split(|byte| *byte == b'\n')
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// A comment, or blank.
    Nothing,
    User {
        name: &'a str,
        hash: &'a str,
    },
}

impl<'a> Line<'a> {
    fn read(line: &'a [u8]) -> Result<Self, &'static str> {
        if line.first() == Some(&b'#') || line.trim_ascii().is_empty() {
            return Ok(Line::Nothing);
        }
        let line = str::from_utf8(line).map_err(|_| "not UTF-8")?;
        let (name, hash) = line.split_once(':').ok_or("expected user:hash, but there is no colon")?;
        let is_blank = |c: char| c.is_ascii_whitespace();
        let (name, hash) = (name.trim_matches(is_blank), hash.trim_matches(is_blank));
        if name.is_empty() {
            return Err("there is no user name before the colon");
        }
        if name.len() > TEXT_LEN_MAX {
            return Err("the user name is longer than the 65,535 bytes that CONNECT can carry");
        }
        Ok(Line::User { name, hash })
    }
}
