//! Waiting for the log: until something is committed, until there is room, until it is closed.
//!
//! None of it holds a lock while it waits, and each may be dropped at any moment.

use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

use super::log::Log;
use crate::ledger::Position;

impl Log {
    /// Wakes once when [`committed`](Self::committed) has reached `end`; at once if it has. Also
    /// wakes when the log is closed.
    pub(crate) fn wake_at(&self, end: Position, waker: &Waker) {
        self.shared.wake_at(end, waker);
    }

    /// How many wait for [`committed`](Self::committed).
    #[cfg(test)]
    pub(crate) fn waiters(&self) -> usize {
        self.shared.waiters()
    }

    /// Waits until [`committed`](Self::committed) has reached `end`: for ever, if the log is closed before.
    pub(crate) fn wait(&self, end: Position) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(move |context| {
            if self.committed() >= end {
                return Poll::Ready(());
            }
            self.wake_at(end, context.waker());
            // Woken at once if it came meanwhile.
            Poll::Pending
        })
    }

    /// The same; `false` if the log is closed before.
    pub(crate) fn wait_unless_closed(&self, end: Position) -> impl Future<Output = bool> + Send + '_ {
        poll_fn(move |context| {
            if self.committed() >= end {
                return Poll::Ready(true);
            }
            // Registered before it is asked: the closing wakes everybody who stands there.
            self.wake_at(end, context.waker());
            if self.is_closed() { Poll::Ready(self.committed() >= end) } else { Poll::Pending }
        })
    }

    /// Waits until it is closed, by [`close`](Self::close) or by a panic of its thread.
    pub(crate) fn until_closed(&self) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(move |context| {
            self.wake_at(Position::from_u64(u64::MAX), context.waker());
            if self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Wakes once when it is no longer full; at once if it is not. Also wakes when the log is closed.
    pub(crate) fn wake_when_not_full(&self, waker: &Waker) {
        self.shared.wake_when_not_full(waker);
    }

    /// Waits until it is not full; also ends when the log is closed.
    pub(crate) fn wait_not_full(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut is_woken = false;
        poll_fn(move |context| {
            let was_woken = std::mem::replace(&mut is_woken, true);
            if !self.is_full() || was_woken && self.is_closed() {
                return Poll::Ready(());
            }
            self.wake_when_not_full(context.waker());
            Poll::Pending
        })
    }
}
