//! Who may connect and who may do what: what is checked, apart from who asks.
//!
//! The modules here are leaves. They know neither connections nor the broker; what they need (a time, an address, the bytes of a
//! file) is handed in, and what is slow or blocks says so. Everything fails closed: what cannot be read lets nobody in.

pub mod password;
pub mod pool;
pub mod throttle;
pub mod acl;
