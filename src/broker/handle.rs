//! `Handle`: what a connection's task shares with those who want something of it: signals in, and the news that it is gone.
//!
//! One per connection, not per client: what is left for a connection that is ending must not reach its successor on the same session.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::signals::Signals;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Handle {
    signals: Signals,
    is_gone: AtomicBool,
    /// What lay in its socket when a successor asked was read.
    is_read: AtomicBool,
    /// The client was told why its connection ends, or cannot be.
    is_told: AtomicBool,
    /// One of the two above has come true.
    news: Notify,
}

impl Handle {
    /// Leaves signals; `true` if some are new, so that the task must be woken.
    pub(crate) fn leave(&self, bits: u8) -> bool {
        self.signals.leave(bits)
    }

    /// Takes the signals; called by the connection's task only.
    pub(crate) fn take_signals(&self) -> u8 {
        self.signals.take()
    }

    /// Nobody needs to tell the client any more why its connection ends.
    pub(super) fn set_told(&self) {
        self.is_told.store(true, Ordering::Release);
    }

    /// Whether the connection's own task has to tell the client.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }

    /// The task is gone and its socket closed.
    pub(crate) fn set_gone(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    /// The task has read what there was.
    pub(crate) fn set_read(&self) {
        self.is_read.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Waits until the task is gone.
    pub(super) async fn gone(&self) {
        self.wait_until(|| self.is_gone.load(Ordering::Acquire)).await;
    }

    /// Waits until the task has read what there was, or is gone.
    pub(super) async fn read(&self) {
        self.wait_until(|| self.is_read.load(Ordering::Acquire) || self.is_gone.load(Ordering::Acquire))
            .await;
    }

    async fn wait_until(&self, is_true: impl Fn() -> bool) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Registered before the flags are read, so that news between the two is not missed.
            news.as_mut().enable();
            if is_true() {
                return;
            }
            news.await;
        }
    }
}
