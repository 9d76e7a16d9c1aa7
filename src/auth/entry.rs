//! `EntryId`: which entry of a password file a login was good by, so that a reload can tell whose entry counts no more.

use std::hash::Hash;
use std::num::NonZeroU64;
use std::sync::LazyLock;

/// The same for the same user with the same hash in any file, and another one otherwise: a keyed digest, of this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(NonZeroU64);

static KEYS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

impl EntryId {
    /// For a user with a hash.
    pub fn of(user: &str, hash: &impl Hash) -> Self {
        // One bit less, so that a connection without an entry needs no more room.
        Self(NonZeroU64::MIN | KEYS.hash_one((user, hash)))
    }
}
