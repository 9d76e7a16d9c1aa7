//! Durable state.

mod record;
