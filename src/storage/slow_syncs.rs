//! A disk that takes long for a sync is told of: nobody else can say why answers do not come.

use std::time::{Duration, Instant};

/// A sync that takes as long is told.
const SLOW: Duration = Duration::from_secs(1);
/// At most this often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// When one was told of last.
#[derive(Debug, Default)]
pub(super) struct SlowSyncs {
    told: Option<Instant>,
}

impl SlowSyncs {
    /// A sync that began then has ended.
    pub(super) fn tell_if_slow(&mut self, began: Instant) {
        let now = Instant::now();
        let took = now - began;
        if took >= SLOW && self.told.is_none_or(|told| now - told >= TOLD_EVERY) {
            self.told = Some(now);
            tracing::warn!(
                seconds = took.as_secs(),
                "the disk took long for a sync: whoever waited for it was not answered meanwhile; \
                 told every ten seconds at most"
            );
        }
    }
}
