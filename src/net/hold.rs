//! When a connection is not read for a moment, though bytes may lie in its socket.

use std::future::Future;
use std::task::Context;
use std::time::Duration;

use super::connection::Connection;
use crate::escape::escape;

/// How long a publisher is held when a receiver that keeps reading is close to its bound.
pub(super) const HOLD: Duration = Duration::from_millis(2);

impl Connection {
    /// A client above its rate is not read for as long as it takes.
    pub(super) fn hold_if_too_fast(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(rate) = &mut self.rate else { return false };
        let Some((time, limit)) = rate.owes(self.core.now()) else { return false };
        self.core.metrics.held.add(limit, 1);
        if rate.tell_once() {
            tracing::warn!(
                client_id = %escape(&self.client.id),
                peer = %self.peer,
                limit = %format_args!("limits.{limit}"),
                "a client sends faster than it may and is read more slowly; told once per connection"
            );
        }
        self.hold_for(time, cx)
    }

    pub(super) fn hold_for(&mut self, time: Duration, cx: &mut Context<'_>) -> bool {
        let mut hold = Box::pin(tokio::time::sleep(time));
        let pending = hold.as_mut().poll(cx).is_pending();
        if pending {
            self.hold = Some(hold);
        }
        pending
    }
}
