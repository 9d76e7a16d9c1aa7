//! Ends: of a connection, of a session, of the broker; and what the timers bring.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::client::signal;
use super::{Cause, Client, ClientState, Core, TICK_MS, Turn};
use crate::escape::escape;
use crate::session::Timestamp;

impl Core {
    /// A connection has ended. If it is still the session's, the session goes offline or ends, and the will is published unless
    /// DISCONNECT came.
    pub(crate) fn disconnected(&self, client: &Arc<Client>, epoch: u64, cause: &Cause) {
        self.metrics.closed.add(cause.label(), 1);
        let will = {
            let mut guard = client.lock();
            let state = &mut *guard;
            if state.link_of(epoch).is_none() {
                // Taken over: the successor has seen to everything.
                return;
            }
            state.link = None;
            self.metrics.clients_connected.decrement();
            state.session.detach();
            state.replays = None;
            self.timers.cancel(client, state);
            let will = state.session.take_will();
            if state.session.outlives_connection() {
                self.schedule_expiry(client, state);
            }
            will
        };
        if !client.lock().session.outlives_connection() {
            self.end_session(client);
        }
        if let Some(will) = will.filter(|_| *cause != Cause::Disconnect) {
            let mut turn = Turn::new();
            turn.begin(self.now());
            self.publish_will(&mut turn, &will);
            turn.finish(self);
        }
    }

    fn schedule_expiry(&self, client: &Arc<Client>, state: &mut ClientState) {
        if let Some(expiry) = self.limits.session_expiry {
            let at = self.now().after(expiry);
            state.expires_at = Some(at);
            self.timers.set(client, state, at);
        }
    }

    /// Ends a session: its subscriptions leave the router, its memory is given back, its client id is free.
    pub(crate) fn end_session(&self, client: &Arc<Client>) {
        self.end_locked(client, &mut client.lock());
        self.forget(client);
    }

    /// [`end_session`](Self::end_session), unless a connection has attached to it or an older one is not gone yet; `false` then.
    pub(crate) fn end_session_unless_attached(&self, client: &Arc<Client>) -> bool {
        let mut guard = client.lock();
        if guard.link.is_some() || guard.closing.is_some() {
            return false;
        }
        self.end_locked(client, &mut guard);
        drop(guard);
        self.forget(client);
        true
    }

    /// The part of the end that must not leave the client's lock between a decision and its execution.
    fn end_locked(&self, client: &Arc<Client>, state: &mut ClientState) {
        for filter in state.session.end() {
            self.router.unsubscribe(&filter, client.key);
        }
        state.replays = None;
        self.timers.cancel(client, state);
    }

    /// Frees the client id, if this client still has it. Not under the client's lock.
    fn forget(&self, client: &Client) {
        self.clients.remove_if(&client.id, |_, registered| registered.key == client.key);
    }

    /// Looks after due timers until the broker shuts down.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shut_down() => return,
            }
            let now = self.now();
            for client in self.timers.take_due(now) {
                // One client's fault must not take the clock from all others.
                if catch_unwind(AssertUnwindSafe(|| self.handle_timer(&client, now))).is_err() {
                    tracing::error!(client_id = %escape(&client.id), "a client's timer ended out of order");
                }
            }
        }
    }

    fn handle_timer(&self, client: &Arc<Client>, now: Timestamp) {
        let mut guard = client.lock();
        let state = &mut *guard;
        // It may have been set anew between being taken out and now.
        match state.timer {
            Some(tick) if tick <= now.as_millis() / TICK_MS => state.timer = None,
            _ => return,
        }
        if let Some(link) = &state.link {
            let Some(keep_alive) = link.keep_alive else { return };
            let deadline = keep_alive.deadline(client.last_heard());
            let next = if now < deadline {
                deadline
            } else {
                // The task reads its socket before it judges: packets may lie there unread if the broker itself was stopped.
                link.signal(signal::KEEP_ALIVE);
                now.after(Duration::from_secs(1))
            };
            self.timers.set(client, state, next);
        } else if let Some(at) = state.expires_at {
            if now < at {
                self.timers.set(client, state, at);
            } else {
                // Judged and ended under one lock: a connection that attaches in between would have a session that is over.
                let queued = state.session.queued();
                self.end_locked(client, state);
                drop(guard);
                self.forget(client);
                tracing::info!(
                    client_id = %escape(&client.id),
                    queued,
                    limit = "limits.session_expiry",
                    "session expired"
                );
                self.metrics.dropped.add("session_expired", queued as u64);
                self.metrics.sessions_expired.add(1);
            }
        }
    }

    /// Tells every connection to end after its output is written. Wills go first, while those who want them are still connected.
    pub(crate) fn begin_shutdown(&self) {
        self.shutting_down.store(true, std::sync::atomic::Ordering::Release);
        self.shutdown.notify_waiters();
        // Collected first: no guard of the registry lives across a delivery.
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        let mut turn = Turn::new();
        turn.begin(self.now());
        for client in &clients {
            let will = client.lock().session.take_will();
            if let Some(will) = will {
                self.publish_will(&mut turn, &will);
            }
        }
        turn.finish(self);
        for client in &clients {
            let mut state = client.lock();
            if let Some(link) = &mut state.link {
                link.close_cause.get_or_insert(Cause::Shutdown);
                link.signal(signal::CLOSE);
            }
        }
    }
}
