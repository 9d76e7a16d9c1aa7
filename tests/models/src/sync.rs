//! loom's in place of what `src/sync.rs` gives the broker, with the same faces.

pub(crate) use loom::sync::Arc;
use loom::sync::MutexGuard;
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Each thread of a model has its own.
pub(crate) fn shard_of_this_thread() -> usize {
    loom::thread_local! {
        static SHARD: usize = 0;
    }
    // One shard for all: the harder case, for their counters are the same.
    SHARD.with(|shard| *shard)
}

/// A lock without poisoning.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
