//! Who may connect and who may do what: what is checked, apart from who asks.
//!
//! The modules here are leaves. They know neither connections nor the broker; what they need (a time, an address, the bytes of a
//! file) is handed in, and what is slow or blocks says so. Each is a value that is built from its settings and its files; a reload builds a
//! new one. Everything fails closed: what cannot be read or judged lets nobody in.

pub mod acl;
pub mod entry;
pub(crate) mod gate;
pub mod http;
pub mod jwt;
mod lanes;
pub mod password;
pub mod pool;
pub mod throttle;
