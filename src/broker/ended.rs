//! Sessions and groups that have ended, and are held by those who keep them among the receivers of a
//! topic: connections ([`RouteCache`]) and threads ([`ThreadRoutes`]).
//!
//! What is left of such a session is little, but for its client id: its charge has moved to
//! [`Account::Ended`], so a new one finds room at once. A route of it does not hold any more, since
//! its subscriptions have left the router; but that is seen only when its topic is used again. So
//! when there are many of them the threads' tables are gone through, and the connections that keep
//! routes are told to look at theirs.
//!
//! [`RouteCache`]: crate::router::RouteCache
//! [`ThreadRoutes`]: crate::router::ThreadRoutes

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::signal;
use super::{Client, Core};
use crate::accounts::Account;
use crate::session::Timestamp;

/// Less than this is left alone: some fifty sessions.
const LEFT_ALONE_BYTES: usize = 64 * 1024;
/// More is let go of after so long at most; from this part of `limits.memory_max` on sooner.
const PAUSE_MAX_MS: u64 = 30_000;
const MUCH_PART: usize = 64;
const PAUSE_MIN_MS: u64 = 1_000;

/// When it was done last, in milliseconds of the broker's clock.
#[derive(Default)]
pub(super) struct LetGo {
    last: AtomicU64,
}

impl Core {
    /// Has ended sessions let go of, if there are many. For the timers, which come by often.
    pub(super) async fn let_go_if_due(&self, now: Timestamp) {
        let held = self.accounts.of(Account::Ended);
        let is_much = held >= self.accounts.max() / MUCH_PART;
        let pause = if is_much { PAUSE_MIN_MS } else { PAUSE_MAX_MS };
        let since = now.as_millis().saturating_sub(self.let_go.last.load(Ordering::Relaxed));
        if held >= LEFT_ALONE_BYTES && since >= pause {
            self.let_go.last.store(now.as_millis(), Ordering::Relaxed);
            self.let_go_of_ended().await;
        }
    }

    /// Has whoever keeps routes let go of those that do not hold any more.
    async fn let_go_of_ended(&self) {
        self.thread_routes.let_go(&self.router);
        // Collected first: no guard of the registry is held while a client's lock is taken.
        let keep = self.clients.iter().filter(|entry| entry.keeps_routes.load(Ordering::Relaxed));
        let keep: Vec<Arc<Client>> = keep.map(|entry| Arc::clone(entry.value())).collect();
        for client in keep {
            // Before it is told: it says so again if it keeps some.
            client.keeps_routes.store(false, Ordering::Relaxed);
            if let Some(link) = &client.lock().link {
                link.signal(signal::ROUTES);
            }
            // Most publishers may be among them: others get their turns in between.
            tokio::task::consume_budget().await;
        }
    }
}
