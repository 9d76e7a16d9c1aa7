//! Who may come in: the methods by which a client proves who it is. Each is a value that is built from its settings and its
//! files, and answers questions; a reload builds a new one. None of them knows the broker.
//!
//! Everything fails closed: what cannot be judged lets nobody in.

pub mod http;
pub mod jwt;
