//! Locks and atomics of what is model-checked. `tests/models` compiles those files with loom's in
//! their place, so they take them from here and from nowhere else.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

pub(crate) use parking_lot::Mutex;
