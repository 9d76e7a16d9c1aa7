//! The part of `auth` that the broker's core knows: the rules of access, without the logins and their network.

#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/auth/acl/mod.rs"]
pub mod acl;

#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/auth/entry.rs"]
pub mod entry;
