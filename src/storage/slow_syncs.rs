//! A disk that takes long for a sync is told of: nobody else can say why answers do not come.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A sync that takes as long is told.
const SLOW: Duration = Duration::from_secs(1);
/// At most this often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// When one was told of last.
#[derive(Debug, Default)]
pub(super) struct SlowSyncs(Mutex<Option<Instant>>);

impl SlowSyncs {
    /// Runs a sync, and tells of it if it takes long.
    pub(super) fn watch<T>(&self, sync: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = sync();
        let took = began.elapsed();
        if took >= SLOW {
            let mut told = self.0.lock();
            if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                *told = Some(Instant::now());
                tracing::warn!(
                    seconds = took.as_secs(),
                    "the disk took long for a sync: whoever waited for it was not answered meanwhile; \
                     told every ten seconds at most"
                );
            }
        }
        result
    }
}
