//! Locks and atomics of what is model-checked: `tests/models` puts loom's in their place.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use parking_lot::Mutex;
