//! Time as the session sees it: milliseconds handed in from outside, so that tests run on virtual time.

use std::time::Duration;

/// A moment on the broker's monotonic clock, in milliseconds since it started. Wall-clock jumps do not touch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A moment from milliseconds since the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment and `duration` later; stays at the end of time rather than wrap.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// From `earlier` until now; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Keep alive of a connection (MQTT 3.1.1 section 3.1.2.10): how long a client may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    limit_ms: u64,
}

impl KeepAlive {
    /// From the seconds of CONNECT; `None` for 0, which turns it off.
    pub fn from_seconds(seconds: u16) -> Option<Self> {
        // One and a half times the client's figure ([MQTT-3.1.2-24]).
        (seconds > 0).then(|| Self { limit_ms: u64::from(seconds) * 1_500 })
    }

    /// When a client that was heard last at `last` has been silent too long.
    pub fn deadline(self, last: Timestamp) -> Timestamp {
        Timestamp(last.0.saturating_add(self.limit_ms))
    }
}
