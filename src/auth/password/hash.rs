//! One password hash: the text of it read, a password checked against it, the text of a new one.
//!
//! | text | what it is | written by |
//! |---|---|---|
//! | `$argon2id$v=19$m=…,t=…,p=…$salt$hash` | Argon2id (RFC 9106) | `ternmq passwd`, mosquitto from 2.1 on |
//! | `$7$iterations$salt$hash` | PBKDF2 with HMAC-SHA-512 | mosquitto from 2.0 on |
//! | `$6$salt$hash` | SHA-512 of password and salt, once | mosquitto up to 1.6 |
//! | `PBKDF2$sha512$iterations$salt$hash`, or `sha256` | PBKDF2 | mosquitto-go-auth, Home Assistant's add-on |
//! | `$2a$`, `$2b$`, `$2y$` | bcrypt; it looks at the first 72 bytes of a password | mosquitto-go-auth |
//!
//! Salt and hash are base 64, with or without padding. (NUL bytes at the end of a short password are nothing to PBKDF2, as HMAC fills its key
//! with them.) A hash that would take unreasonably long or much memory to compute is refused when
//! it is read, so that no file can hang the broker. The text of a hash is in no message.

use std::num::NonZeroU32;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::SecureRandom;
use aws_lc_rs::{digest, pbkdf2, rand};
use base64ct::{Base64Unpadded, Encoding};

/// Most iterations of PBKDF2: about two seconds of one core. (OWASP asks for 210,000 with SHA-512.)
pub const PBKDF2_ITERATIONS_MAX: u32 = 2_000_000;
/// Most memory of Argon2, in KiB: each thread of the hashing pool may need so much at one time.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most memory times passes of Argon2, in KiB: about two seconds of one core.
pub const ARGON2_WORK_KIB_MAX: u32 = 2 * 1024 * 1024;
/// Most lanes of Argon2; they are computed one after the other.
pub const ARGON2_LANES_MAX: u32 = 16;
/// Largest cost of bcrypt: 2^15 rounds, about two seconds of one core.
pub const BCRYPT_COST_MAX: u32 = 15;

/// Memory of new Argon2id hashes in KiB, passes and lanes: the second of the equivalent choices in OWASP's Password Storage Cheat Sheet.
const NEW_ARGON2: (u32, u32, u32) = (19 * 1024, 2, 1);
const NEW_SALT_LEN: usize = 16;
const NEW_HASH_LEN: usize = 32;

/// Bounds of decoded salts and hashes. A hash of less than 16 bytes would be met by chance too soon.
const SALT_LEN_MAX: usize = 1024;
const HASH_LEN_MIN: usize = 16;
const HASH_LEN_MAX: usize = 128;
const SHA512_LEN: usize = 64;

/// What is computed, and at what cost: all that decides how long a check takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Sha512,
    Pbkdf2Sha256 { iterations: u32 },
    Pbkdf2Sha512 { iterations: u32 },
    Bcrypt { cost: u32 },
    Argon2id { version: u32, memory_kib: u32, passes: u32, lanes: u32 },
}

impl Kind {
    /// What `ternmq passwd` makes.
    pub(super) const NEW: Kind =
        Kind::Argon2id { version: 0x13, memory_kib: NEW_ARGON2.0, passes: NEW_ARGON2.1, lanes: NEW_ARGON2.2 };
}

/// A hash. No `Debug`: nothing of it goes into a log.
#[derive(Clone, Hash)]
pub(super) struct Hash {
    pub(super) kind: Kind,
    salt: Vec<u8>,
    expected: Vec<u8>,
}

/// What is wrong with the text of a hash, and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HashError {
    #[error(
        "this is no hash that TernMQ knows (perhaps a password in plain text?); set the password with `ternmq passwd`"
    )]
    Unknown,
    #[error("nothing after the colon; set a password with `ternmq passwd`")]
    Empty,
    #[error("the {0} hash is not complete; set the password again with `ternmq passwd`")]
    Malformed(&'static str),
    #[error(
        "the {kind} hash asks for {what} of {value}, at most {max} is taken; set the password again with `ternmq passwd`"
    )]
    Cost { kind: &'static str, what: &'static str, value: u64, max: u64 },
}

impl Hash {
    /// Reads the text of a hash.
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        let Some((first, rest)) = text.split_once('$') else {
            return Err(if text.is_empty() { HashError::Empty } else { HashError::Unknown });
        };
        if first == "PBKDF2" {
            return parse_pbkdf2(rest);
        }
        if !first.is_empty() {
            return Err(HashError::Unknown);
        }
        match rest.split_once('$') {
            Some(("6", rest)) => parse_6(rest),
            Some(("7", rest)) => parse_7(rest),
            Some(("argon2id", rest)) => parse_argon2id(rest),
            Some(("2a" | "2b" | "2y", rest)) => parse_bcrypt(text, rest),
            _ => Err(HashError::Unknown),
        }
    }

    /// A hash which no password is known to meet, and which takes as long as any other of its kind.
    pub(super) fn decoy(kind: Kind) -> Self {
        let expected_len = match kind {
            Kind::Sha512 | Kind::Pbkdf2Sha512 { .. } => SHA512_LEN,
            Kind::Bcrypt { .. } => BCRYPT_HASH_LEN,
            Kind::Pbkdf2Sha256 { .. } | Kind::Argon2id { .. } => NEW_HASH_LEN,
        };
        Self { kind, salt: vec![0; BCRYPT_SALT_LEN], expected: vec![0; expected_len] }
    }

    /// Whether `password` is the one. Takes what the kind costs whatever the answer; blocks for that time.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        #[cfg(test)]
        super::tests::note_computation(self.kind);
        let mut computed = vec![0; self.expected.len()];
        self.compute(password, &mut computed) && verify_slices_are_equal(&computed, &self.expected).is_ok()
    }

    /// Whether [`Hash::matches`] comes as far as the comparison.
    #[cfg(test)]
    pub(super) fn can_be_computed(&self) -> bool {
        self.compute(b"x", &mut vec![0; self.expected.len()])
    }

    /// Fills `computed` as `expected` was filled; false if that cannot be done.
    fn compute(&self, password: &[u8], computed: &mut [u8]) -> bool {
        match self.kind {
            Kind::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                let digest = context.finish();
                let right_len = computed.len() == digest.as_ref().len();
                computed.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
                right_len
            }
            Kind::Pbkdf2Sha256 { iterations } => {
                self.compute_pbkdf2(pbkdf2::PBKDF2_HMAC_SHA256, iterations, password, computed)
            }
            Kind::Pbkdf2Sha512 { iterations } => {
                self.compute_pbkdf2(pbkdf2::PBKDF2_HMAC_SHA512, iterations, password, computed)
            }
            Kind::Bcrypt { cost } => self.compute_bcrypt(cost, password, computed),
            Kind::Argon2id { version, memory_kib, passes, lanes } => {
                let Ok(version) = Version::try_from(version) else { return false };
                let Ok(params) = Params::new(memory_kib, passes, lanes, Some(computed.len())) else {
                    return false;
                };
                let argon2 = Argon2::new(Algorithm::Argon2id, version, params);
                argon2.hash_password_into(password, &self.salt, computed).is_ok()
            }
        }
    }

    fn compute_pbkdf2(
        &self,
        algorithm: pbkdf2::Algorithm,
        iterations: u32,
        password: &[u8],
        computed: &mut [u8],
    ) -> bool {
        let Some(iterations) = NonZeroU32::new(iterations) else { return false };
        pbkdf2::derive(algorithm, iterations, &self.salt, password, computed);
        true
    }

    fn compute_bcrypt(&self, cost: u32, password: &[u8], computed: &mut [u8]) -> bool {
        let Ok(salt) = <[u8; BCRYPT_SALT_LEN]>::try_from(self.salt.as_slice()) else { return false };
        // The algorithm takes the NUL at the end of a C string with it, as far as 72 bytes reach.
        let terminated: Vec<u8> = password.iter().copied().chain([0]).take(BCRYPT_PASSWORD_LEN_MAX).collect();
        let digest = bcrypt::bcrypt(cost, salt, &terminated);
        computed.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        computed.len() == BCRYPT_HASH_LEN
    }
}

/// The text of a new Argon2id hash of `password`; blocks for as long as hashing takes.
///
/// # Errors
/// The system gives no random bytes or no memory.
pub fn new_hash(password: &[u8]) -> Result<String, NewHashError> {
    let mut salt = vec![0; NEW_SALT_LEN];
    rand::SystemRandom::new().fill(&mut salt).map_err(|_| NewHashError)?;
    let hash = Hash { kind: Kind::NEW, salt, expected: Vec::new() };
    let mut computed = [0; NEW_HASH_LEN];
    if !hash.compute(password, &mut computed) {
        return Err(NewHashError);
    }
    let (memory_kib, passes, lanes) = NEW_ARGON2;
    let (salt, hash) = (Base64Unpadded::encode_string(&hash.salt), Base64Unpadded::encode_string(&computed));
    Ok(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}"))
}

/// A hash could not be made: the system gives no random bytes or no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot hash the password: no random bytes or no memory")]
pub struct NewHashError;

const BCRYPT_SALT_LEN: usize = 16;
const BCRYPT_HASH_LEN: usize = 23;
const BCRYPT_PASSWORD_LEN_MAX: usize = 72;

fn parse_6(rest: &str) -> Result<Hash, HashError> {
    let name = "$6$";
    let [salt, hash] = fields(rest).ok_or(HashError::Malformed(name))?;
    hash_of(name, Kind::Sha512, salt, hash, SHA512_LEN..=SHA512_LEN)
}

fn parse_7(rest: &str) -> Result<Hash, HashError> {
    let name = "$7$";
    let [iterations, salt, hash] = fields(rest).ok_or(HashError::Malformed(name))?;
    let iterations = pbkdf2_iterations(name, iterations)?;
    hash_of(name, Kind::Pbkdf2Sha512 { iterations }, salt, hash, SHA512_LEN..=SHA512_LEN)
}

fn parse_pbkdf2(rest: &str) -> Result<Hash, HashError> {
    let name = "PBKDF2";
    let [digest, iterations, salt, hash] = fields(rest).ok_or(HashError::Malformed(name))?;
    let iterations = pbkdf2_iterations(name, iterations)?;
    let kind = match digest {
        "sha512" => Kind::Pbkdf2Sha512 { iterations },
        "sha256" => Kind::Pbkdf2Sha256 { iterations },
        _ => return Err(HashError::Unknown),
    };
    hash_of(name, kind, salt, hash, HASH_LEN_MIN..=HASH_LEN_MAX)
}

fn parse_argon2id(rest: &str) -> Result<Hash, HashError> {
    let name = "$argon2id$";
    let malformed = HashError::Malformed(name);
    // Hashes from before version 1.3 do not say their version.
    let (version, rest) = match rest.strip_prefix("v=").map(|rest| rest.split_once('$')) {
        Some(Some(("19", rest))) => (0x13, rest),
        Some(Some(("16", rest))) => (0x10, rest),
        Some(_) => return Err(malformed),
        None => (0x10, rest),
    };
    let [costs, salt, hash] = fields(rest).ok_or_else(|| malformed.clone())?;
    let mut costs = costs.split(',');
    let mut cost = |prefix| number(costs.next()?.strip_prefix(prefix)?);
    let (Some(memory_kib), Some(passes), Some(lanes)) = (cost("m="), cost("t="), cost("p=")) else {
        return Err(malformed);
    };
    if costs.next().is_some() || passes == 0 || lanes == 0 {
        return Err(malformed);
    }
    let at_most = |what, value, max: u32| at_most(name, what, value, max);
    let memory_kib = at_most("m (memory in KiB)", memory_kib, ARGON2_MEMORY_KIB_MAX)?;
    at_most(
        "m times t (memory in KiB and passes)",
        passes.saturating_mul(memory_kib.into()),
        ARGON2_WORK_KIB_MAX,
    )?;
    let passes = at_most("t (passes)", passes, ARGON2_WORK_KIB_MAX)?;
    let lanes = at_most("p (lanes)", lanes, ARGON2_LANES_MAX)?;
    let hash = hash_of(
        name,
        Kind::Argon2id { version, memory_kib, passes, lanes },
        salt,
        hash,
        HASH_LEN_MIN..=HASH_LEN_MAX,
    )?;
    let can_be_computed = memory_kib >= 8 * lanes && hash.salt.len() >= argon2::MIN_SALT_LEN;
    can_be_computed.then_some(hash).ok_or(malformed)
}

fn parse_bcrypt(text: &str, rest: &str) -> Result<Hash, HashError> {
    let name = "bcrypt";
    let malformed = HashError::Malformed(name);
    let (Ok(parts), Some((cost, _))) = (bcrypt::HashParts::from_str(text), rest.split_once('$')) else {
        return Err(malformed);
    };
    let cost = number(cost).filter(|cost| *cost >= 4).ok_or_else(|| malformed.clone())?;
    let cost = at_most(name, "cost", cost, BCRYPT_COST_MAX)?;
    let hash = text.get(text.len() - BCRYPT_HASH_TEXT_LEN..).and_then(decode_bcrypt).ok_or(malformed)?;
    Ok(Hash { kind: Kind::Bcrypt { cost }, salt: parts.get_salt_raw().to_vec(), expected: hash })
}

const BCRYPT_HASH_TEXT_LEN: usize = 31;

fn decode_bcrypt(text: &str) -> Option<Vec<u8>> {
    let decoded = base64ct::Base64Bcrypt::decode_vec(text).ok()?;
    (decoded.len() == BCRYPT_HASH_LEN).then_some(decoded)
}

/// Exactly `N` fields between dollar signs.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split('$').collect::<Vec<_>>().try_into().ok()
}

/// A whole number in plain digits, as every writer of hashes gives it.
fn number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

fn pbkdf2_iterations(name: &'static str, text: &str) -> Result<u32, HashError> {
    let iterations = number(text).filter(|n| *n > 0).ok_or(HashError::Malformed(name))?;
    at_most(name, "iterations", iterations, PBKDF2_ITERATIONS_MAX)
}

fn at_most(kind: &'static str, what: &'static str, value: u64, max: u32) -> Result<u32, HashError> {
    let error = HashError::Cost { kind, what, value, max: max.into() };
    u32::try_from(value).ok().filter(|value| *value <= max).ok_or(error)
}

fn hash_of(
    name: &'static str,
    kind: Kind,
    salt: &str,
    hash: &str,
    hash_len: std::ops::RangeInclusive<usize>,
) -> Result<Hash, HashError> {
    let decode = |text: &str| {
        let unpadded = text.trim_end_matches('=');
        let is_padding_right =
            text.len() == unpadded.len() || text.len() == unpadded.len().next_multiple_of(4);
        is_padding_right.then(|| Base64Unpadded::decode_vec(unpadded).ok()).flatten()
    };
    let salt = decode(salt).filter(|salt| (1..=SALT_LEN_MAX).contains(&salt.len()));
    let expected = decode(hash).filter(|hash| hash_len.contains(&hash.len()));
    match (salt, expected) {
        (Some(salt), Some(expected)) => Ok(Hash { kind, salt, expected }),
        _ => Err(HashError::Malformed(name)),
    }
}
