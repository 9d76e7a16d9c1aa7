//! Ends: of a connection, of a session, of the broker; and what the timers bring.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::client::{KeepFor, signal};
use super::turn_log::TurnLog;
use super::{Cause, Client, ClientState, Core, TICK_MS, Turn};
use crate::escape::escape;
use crate::faults::{Fault, planted};
use crate::ledger::Position;
use crate::session::{Session, SharedMessage, Timestamp, Will};
use crate::storage::{Begun, Record};

impl Core {
    /// A connection has ended. If it is still the session's, the session goes offline or ends, and the will is published unless
    /// DISCONNECT came.
    /// `Some`: where the log has it that the will is not to be published; the socket is not closed before that.
    pub(crate) fn disconnected(&self, client: &Arc<Client>, epoch: u64, cause: &Cause) -> Option<Position> {
        self.metrics.closed.add(cause.label(), 1);
        let (handle, will, left, on_record) = {
            let mut guard = client.lock();
            let state = &mut *guard;
            let Some(link) = state.link.take_if(|link| link.epoch == epoch) else {
                // Taken over: the successor has seen to everything.
                return None;
            };
            // A successor waits until the will is out: it must not come after what the new connection publishes.
            state.closing = Some(Arc::clone(&link.handle));
            self.metrics.clients_connected.decrement();
            state.session.detach();
            self.settle(client, state);
            state.replays = None;
            self.timers.cancel(client, state);
            let mut turn_log = TurnLog::default();
            let mut will = state.session.take_will();
            if *cause == (Cause::Disconnect { with_will: false })
                && !planted(Fault::WillOnDisconnect)
                && let Some(dropped) = will.take()
            {
                turn_log.end_will(&dropped, true);
            }
            let will = self.go_offline(client, state, will);
            if state.session.is_durable() && state.keep_for != KeepFor::Nothing {
                let (keep, begun) = (state.keep_for.time(), begun(&state.session));
                let since = self.wall_clock(self.now());
                turn_log.record(&Record::Detached { session: client.key, since, keep, begun }, false);
            }
            let on_record = turn_log.commit(self);
            let left = (state.keep_for == KeepFor::Nothing).then(|| self.end_locked(client, state));
            (link.handle, will, left, on_record)
        };
        let mut turn = Turn::new();
        turn.begin(self.now());
        if let Some(will) = will {
            self.publish_will(&mut turn, client, &will);
        }
        match left {
            Some(left) => self.forget(client, left),
            None => self.hand_over_of_absent(&mut turn, client),
        }
        turn.finish(self);
        let mut state = client.lock();
        if state.closing.as_ref().is_some_and(|closing| Arc::ptr_eq(closing, &handle)) {
            state.closing = None;
        }
        on_record
    }

    /// Sets what is to happen while the session has no connection; returns a will that is due at once.
    fn go_offline(&self, client: &Arc<Client>, state: &mut ClientState, will: Option<Will>) -> Option<Will> {
        let now = self.now();
        state.expires_at = match state.keep_for {
            KeepFor::Time(time) => Some(now.after(time)),
            KeepFor::Nothing | KeepFor::Ever => None,
        };
        let due = match will {
            // The will waits for its delay or the end of the session, whichever comes first (MQTT 5 [MQTT-3.1.2-8]).
            Some(will) if !will.delay.is_zero() && state.keep_for != KeepFor::Nothing => {
                state.delayed_will = Some(Box::new((now.after(will.delay), will)));
                None
            }
            will => will,
        };
        if let Some(at) = state.offline_deadline() {
            self.timers.set(client, state, at);
        }
        due
    }

    /// Messages of shared subscriptions that a session without connection has not acknowledged go to members that are connected, if
    /// there are any.
    fn hand_over_of_absent(&self, turn: &mut Turn, client: &Arc<Client>) {
        let shared = client.lock().session.shared_filters();
        let served: Vec<_> =
            shared.into_iter().filter(|filter| self.has_connected_member(filter, client.key)).collect();
        if served.is_empty() {
            return;
        }
        let (durable, messages) = {
            let mut state = client.lock();
            if state.link.is_some() {
                // It is back already.
                return;
            }
            let durable = state.session.is_durable();
            let taken =
                state.session.take_shared(|filter| served.iter().any(|served| **served == **filter), true);
            self.settle(client, &mut state);
            (durable, taken)
        };
        self.hand_over(turn, durable.then_some(client.key), messages);
    }

    /// Ends a session: its subscriptions leave the router, its memory is given back, its client id is free, a will that waited is
    /// published.
    pub(crate) fn end_session(&self, client: &Arc<Client>) {
        let left = self.end_locked(client, &mut client.lock());
        self.forget(client, left);
    }

    /// [`end_session`](Self::end_session), unless a connection has attached to it or an older one is not gone yet; `false` then.
    pub(crate) fn end_session_unless_attached(&self, client: &Arc<Client>) -> bool {
        let mut guard = client.lock();
        if guard.link.is_some() || guard.closing.is_some() {
            return false;
        }
        let left = self.end_locked(client, &mut guard);
        drop(guard);
        self.forget(client, left);
        true
    }

    /// The part of the end that must not leave the client's lock between a decision and its execution.
    fn end_locked(&self, client: &Arc<Client>, state: &mut ClientState) -> LeftBehind {
        let unacknowledged = state.session.take_shared(|_| true, true);
        if state.session.is_durable() && !planted(Fault::CleanSessionResurrected) {
            let mut turn_log = TurnLog::default();
            turn_log.record(&Record::SessionEnd { session: client.key }, true);
            if let Some(end) = turn_log.commit(self) {
                state.on_record = end;
            }
        }
        for (filter, _) in state.session.end().iter() {
            self.remove_subscription(filter, client.key);
        }
        self.settle(client, state);
        state.replays = None;
        // A route that somebody keeps may hold the client for long.
        state.local = None;
        self.timers.cancel(client, state);
        LeftBehind { unacknowledged, will: state.delayed_will.take() }
    }

    /// Frees the client id, if this client still has it, and sees to what the session left behind. Not under the client's lock.
    fn forget(&self, client: &Client, left: LeftBehind) {
        self.clients.remove_if(&client.id, |_, registered| registered.key == client.key);
        if left.unacknowledged.is_empty() && left.will.is_none() {
            return;
        }
        let mut turn = Turn::new();
        turn.begin(self.now());
        self.hand_over(&mut turn, None, left.unacknowledged);
        if let Some(will) = left.will {
            self.publish_will(&mut turn, client, &will.1);
        }
        turn.finish(self);
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
        if let Some(link) = &mut state.link {
            if link.login_ends.is_some_and(|ends| ends <= now) {
                link.close_cause.get_or_insert(Cause::LoginExpired);
                link.signal(signal::CLOSE);
                return;
            }
            let Some(deadline) = link.deadline(client.last_heard()) else { return };
            let next = if now < deadline {
                deadline
            } else {
                // The task reads its socket before it judges: packets may lie there unread if the broker itself was stopped.
                link.signal(signal::KEEP_ALIVE);
                now.after(Duration::from_secs(1))
            };
            self.timers.set(client, state, next);
            return;
        }
        if state.expires_at.is_some_and(|at| at <= now) {
            // Judged and ended under one lock: a connection that attaches in between would have a session that is over.
            let queued = state.session.queued();
            let left = self.end_locked(client, state);
            drop(guard);
            self.forget(client, left);
            tracing::info!(
                client_id = %escape(&client.id),
                queued,
                limit = "limits.session_expiry",
                "session expired"
            );
            self.metrics.dropped.add("session_expired", queued as u64);
            self.metrics.sessions_expired.add(1);
            return;
        }
        let due_will = state.delayed_will.take_if(|will| will.0 <= now);
        if let Some(at) = state.offline_deadline() {
            self.timers.set(client, state, at);
        }
        drop(guard);
        if let Some(will) = due_will {
            let mut turn = Turn::new();
            turn.begin(now);
            self.publish_will(&mut turn, client, &will.1);
            turn.finish(self);
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
            let wills = {
                let mut state = client.lock();
                let delayed = state.delayed_will.take().map(|will| will.1);
                [state.session.take_will(), delayed]
            };
            for will in wills.into_iter().flatten() {
                self.publish_will(&mut turn, client, &will);
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

/// What was sent to a session, for the log.
pub(super) fn begun(session: &Session) -> Begun {
    let (at_least_once, exactly_once) = session.begun();
    Begun { at_least_once, exactly_once }
}

/// What a session that ends leaves to be done.
struct LeftBehind {
    unacknowledged: Vec<SharedMessage>,
    will: Option<Box<(Timestamp, Will)>>,
}
