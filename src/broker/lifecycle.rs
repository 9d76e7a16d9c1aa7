//! Ends: of a connection, of a session, of the broker; and what the timers bring.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::client::{KeepFor, signal};
use super::fan_out::{FanOut, Publishing};
use super::hand_over::SLICE_FILTERS;
use super::last_words::LastWords;
use super::turn_log::TurnLog;
use super::{Cause, Client, ClientState, Core, Handle, TICK_MS, Turn};
use crate::escape::escape;
use crate::session::{GivenUp, Timestamp, Will};
use crate::storage::{Begun, Record};

impl Core {
    /// A connection has ended. If it is still the session's, the session goes offline or ends, and the will is published unless
    /// DISCONNECT came.
    ///
    /// What is left to be done goes to [`settle_end`](Self::settle_end).
    pub(crate) fn disconnected(&self, client: &Arc<Client>, epoch: u64, cause: &Cause) -> Disconnected {
        self.metrics.closed.add(cause.label(), 1);
        let is_short = self.is_closed_for_memory(cause);
        let mut turn = Turn::new();
        turn.begin(self);
        let (handle, will, left, last_words) = {
            let mut guard = client.lock();
            let state = &mut *guard;
            let Some(mut link) = state.link.take_if(|link| link.epoch == epoch) else {
                // Taken over: the successor has seen to everything.
                return Disconnected::default();
            };
            let last_words = LastWords::take(&mut link, &mut state.session, is_short);
            // A successor waits until the will is out: it must not come after what the new connection publishes.
            state.closing = Some(Arc::clone(&link.handle));
            self.metrics.clients_connected.decrement();
            state.session.detach();
            self.settle(client, state);
            self.timers.cancel(client, state);
            let mut turn_log = TurnLog::default();
            let mut will = state.session.take_will();
            if *cause == (Cause::Disconnect { with_will: false })
                && let Some(dropped) = will.take()
            {
                turn_log.end_will(&dropped, true);
            }
            let will = self.go_offline(client, state, will);
            if state.session.is_durable() && state.keep_for != KeepFor::Nothing {
                turn_log.record(&self.detached(client, state), false);
            }
            let on_record = turn_log.commit(self);
            let is_asked = matches!(cause, Cause::Disconnect { .. });
            let last_words = last_words.not_before(on_record.filter(|_| is_asked));
            let left = (state.keep_for == KeepFor::Nothing).then(|| self.end_locked(client, state));
            (link.handle, will, left, last_words)
        };
        let of_will = will.and_then(|will| self.publish_will(&mut turn, client, &will));
        let of_end = match left {
            Some(left) => self.forget(&mut turn, client, left),
            None => {
                self.hand_over_of_absent(client);
                None
            }
        };
        let fan_outs = [of_will, of_end];
        turn.finish(self);
        Disconnected { last_words, is_short, fan_outs, handle: Some(handle) }
    }

    /// Brings the end of a connection to its end; others get their turns in between. Returns what
    /// the client is still to be sent.
    pub(crate) async fn settle_end(&self, client: &Client, mut end: Disconnected) -> LastWords {
        self.complete_fan_outs(std::mem::take(&mut end.fan_outs)).await;
        self.settle_end_now(client, end)
    }

    /// The same at once, where nobody can wait.
    pub(crate) fn settle_end_now(&self, client: &Client, end: Disconnected) -> LastWords {
        let Disconnected { last_words, fan_outs, handle, .. } = end;
        fan_outs.into_iter().flatten().for_each(|fan_out| self.complete_fan_out_now(fan_out));
        let mut state = client.lock();
        // Its successor may go on now.
        if let (Some(closing), Some(handle)) = (&state.closing, &handle)
            && Arc::ptr_eq(closing, handle)
        {
            state.closing = None;
        }
        last_words
    }

    /// Sets what is to happen while the session has no connection; returns a will that is due at once.
    fn go_offline(&self, client: &Arc<Client>, state: &mut ClientState, will: Option<Will>) -> Option<Will> {
        let now = self.now();
        let due = match will {
            // The will waits for its delay or the end of the session, whichever comes first (MQTT 5 [MQTT-3.1.2-8]).
            Some(will) if !will.delay.is_zero() && state.keep_for != KeepFor::Nothing => {
                state.delayed_will = Some(Box::new((now.after(will.delay), will)));
                None
            }
            will => will,
        };
        self.set_expiry(client, state);
        due
    }

    /// The time for which a session without connection is kept begins now.
    pub(super) fn set_expiry(&self, client: &Arc<Client>, state: &mut ClientState) {
        state.expires_at = match state.keep_for {
            KeepFor::Time(time) => Some(self.now().after(time)),
            KeepFor::Nothing | KeepFor::Ever => None,
        };
        match state.offline_deadline() {
            Some(at) => self.timers.set(client, state, at),
            None => self.timers.cancel(client, state),
        }
    }

    /// Messages of shared subscriptions that a session without connection has not acknowledged go to
    /// members that are connected, if there are any: as soon as the log has room. A client that is
    /// back before that has them again. What is on record does not go to those whose sessions are not.
    pub(super) fn hand_over_of_absent(&self, client: &Arc<Client>) {
        let (held, is_durable) = {
            let state = client.lock();
            (state.session.shared_held(), state.session.is_durable())
        };
        let served: HashSet<_> = held
            .into_iter()
            .filter(|filter| self.has_connected_member(filter, client.key, is_durable))
            .collect();
        if served.is_empty() {
            return;
        }
        let mut guard = client.lock();
        let state = &mut *guard;
        if state.link.is_some() {
            // It is back already.
            return;
        }
        let taken = state.session.take_shared(|filter| served.contains(filter), GivenUp::WhileAway);
        self.settle(client, state);
        self.give_away(client, state, taken);
    }

    /// Ends a session: its subscriptions leave the router, its memory is given back, its client id is free, a will that waited is
    /// published.
    pub(crate) fn end_session(&self, client: &Arc<Client>) {
        let mut turn = Turn::new();
        turn.begin(self);
        let left = self.end_locked(client, &mut client.lock());
        let fan_out = self.forget(&mut turn, client, left);
        turn.finish(self);
        if let Some(fan_out) = fan_out {
            self.complete_fan_out_now(fan_out);
        }
    }

    /// [`end_session`](Self::end_session), unless a connection has attached to it or an older one is not gone yet; `false` then.
    pub(crate) async fn end_session_unless_attached(&self, client: &Arc<Client>) -> bool {
        let Ok(fan_out) = self.end_unattached(client) else { return false };
        if let Some(fan_out) = fan_out {
            self.complete_fan_out(fan_out).await;
        }
        true
    }

    fn end_unattached(&self, client: &Arc<Client>) -> Result<Option<Box<FanOut>>, IsAttached> {
        let mut turn = Turn::new();
        turn.begin(self);
        let mut guard = client.lock();
        if guard.link.is_some() || guard.closing.is_some() {
            return Err(IsAttached);
        }
        let left = self.end_locked(client, &mut guard);
        drop(guard);
        let fan_out = self.forget(&mut turn, client, left);
        turn.finish(self);
        Ok(fan_out)
    }

    /// The part of the end that must not leave the client's lock between a decision and its
    /// execution. In a turn.
    ///
    /// What others are to get of it is given away in slices, and its end goes on record behind that
    /// (`hand_over`); a session without such things ends here.
    fn end_locked(&self, client: &Arc<Client>, state: &mut ClientState) -> LeftBehind {
        // Two may have a reason at once: its connection has ended it, and a successor does not want it.
        if state.session.is_ended() {
            return LeftBehind::default();
        }
        let is_durable = state.session.is_durable();
        let begun = begun(state);
        let unacknowledged = state.session.take_shared(|_| true, GivenUp::ForGood);
        let mut filters = state.session.end();
        let will = state.delayed_will.take();
        if filters.len() <= SLICE_FILTERS {
            for (filter, _) in std::mem::take(&mut filters).iter() {
                self.remove_subscription(filter, client.key, state);
            }
        }
        let unacknowledged = self.of_groups_that_go_on(unacknowledged);
        self.give_away(client, state, unacknowledged);
        if state.leaving.is_some() || !filters.is_empty() {
            if let Some(end) = self.end_in_slices(client, state, is_durable, begun, filters) {
                state.on_record = end;
            }
        } else if is_durable {
            let mut turn_log = TurnLog::default();
            turn_log.record(&Record::SessionEnd { session: client.key }, true);
            if let Some(end) = turn_log.commit(self) {
                state.on_record = end;
            }
        }
        self.settle(client, state);
        if state.leaving.is_none() {
            client.end_charge();
        }
        // A route that somebody keeps may hold the client for a while.
        (state.replays, state.local) = (None, None);
        let _ = state.filed_worse.take_if(|worse| worse.is_empty());
        self.timers.cancel(client, state);
        // Under the lock: who sees that the session is over waits for its will.
        let publishing = will.is_some().then(|| Publishing::of(client));
        LeftBehind { will, publishing }
    }

    /// Frees the client id, if this client still has it, and publishes a will that waited. Not
    /// under the client's lock.
    #[must_use = "the rest of the will has to be delivered"]
    fn forget(&self, turn: &mut Turn, client: &Arc<Client>, left: LeftBehind) -> Option<Box<FanOut>> {
        self.note_departed(client);
        self.clients.remove_if(&client.id, |_, registered| registered.key == client.key);
        let fan_out = left.will.and_then(|will| self.publish_will(turn, client, &will.1));
        turn.published.extend(left.publishing);
        if client.lock().leaving.is_none() {
            self.leaving.remove(&client.key);
        }
        fan_out
    }

    /// Looks after due timers until the broker shuts down.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shut_down() => return,
            }
            if tick.is_multiple_of(1_000 / TICK_MS) {
                self.forget_departed();
            }
            self.look_at_clock();
            let now = self.now();
            self.let_go_if_due(now).await;
            for client in self.timers.take_due(now) {
                // One client's fault must not take the clock from all others.
                let handled = catch_unwind(AssertUnwindSafe(|| self.handle_timer(&client, now)));
                // Thousands may be due at once: others get their turns in between.
                match handled {
                    Ok(Due::Little) => tokio::task::consume_budget().await,
                    Ok(Due::Turn(fan_out)) => {
                        // The clock of all others does not wait for it.
                        fan_out.into_iter().for_each(|fan_out| self.complete_later(fan_out));
                        tokio::task::yield_now().await;
                    }
                    Err(_) => {
                        tracing::error!(client_id = %escape(&client.id), "a client's timer panicked");
                    }
                }
            }
        }
    }

    fn handle_timer(&self, client: &Arc<Client>, now: Timestamp) -> Due {
        let mut turn = Turn::new();
        turn.begin(self);
        let mut guard = client.lock();
        let state = &mut *guard;
        // It may have been set anew between being taken out and now.
        match state.timer {
            Some(tick) if tick <= now.as_millis() / TICK_MS => state.timer = None,
            _ => return Due::Little,
        }
        if let Some(link) = &mut state.link {
            if link.login_ends.is_some_and(|ends| ends <= now) {
                link.close_cause.get_or_insert(Cause::LoginExpired);
                link.signal(signal::CLOSE);
                return Due::Little;
            }
            let Some(deadline) = link.deadline(client.last_heard()) else { return Due::Little };
            let next = if now < deadline {
                deadline
            } else {
                // The task reads its socket before it judges: packets may lie there unread if the broker itself was stopped.
                link.signal(signal::KEEP_ALIVE);
                now.after(Duration::from_secs(1))
            };
            self.timers.set(client, state, next);
            return Due::Little;
        }
        if state.expires_at.is_some_and(|at| at <= now) {
            // Judged and ended under one lock: a connection that attaches in between would have a session that is over.
            let queued = state.session.queued();
            let left = self.end_locked(client, state);
            drop(guard);
            let fan_out = self.forget(&mut turn, client, left);
            turn.finish(self);
            tracing::info!(
                client_id = %escape(&client.id),
                queued,
                limit = "limits.session_expiry",
                "session expired"
            );
            self.metrics.dropped.add("session_expired", queued as u64);
            self.metrics.sessions_expired.add(1);
            return Due::Turn(fan_out);
        }
        let due_will = state.delayed_will.take_if(|will| will.0 <= now);
        // Under the lock, to the end of the turn: what a successor publishes comes behind it.
        let _publishing = due_will.is_some().then(|| Publishing::of(client));
        if let Some(at) = state.offline_deadline() {
            self.timers.set(client, state, at);
        }
        drop(guard);
        let fan_out = due_will.and_then(|will| self.publish_will(&mut turn, client, &will.1));
        turn.finish(self);
        Due::Turn(fan_out)
    }

    /// From now on nobody comes in, and those who wait for the end hear of it; every client is told to end.
    pub(crate) fn begin_shutdown(&self) {
        self.shutting_down.store(true, std::sync::atomic::Ordering::Release);
        self.shutdown.notify_waiters();
        self.end_clients();
    }

    /// Tells every connection to end after its output is written. Wills go first, while those who
    /// want them are still connected: a turn for each client, so that a checkpoint under way finds
    /// each will in its session or on record.
    fn end_clients(&self) {
        let clients = self.all_clients();
        for client in &clients {
            let mut turn = Turn::new();
            turn.begin(self);
            let wills = {
                let mut state = client.lock();
                // One that a client which is coming back has called off is in memory, off the record.
                let is_durable = state.session.is_durable();
                let delayed = state.delayed_will.take_if(|will| will.1.key != 0 || !is_durable);
                let delayed = delayed.map(|will| will.1);
                [state.session.take_will(), delayed]
            };
            let wills = wills.into_iter().flatten();
            let fan_outs: Vec<_> =
                wills.filter_map(|will| self.publish_will(&mut turn, client, &will)).collect();
            turn.finish(self);
            fan_outs.into_iter().for_each(|fan_out| self.complete_fan_out_now(fan_out));
        }
        for client in &clients {
            let mut state = client.lock();
            if let Some(link) = &mut state.link {
                link.close_cause.get_or_insert(Cause::Shutdown);
                link.signal(signal::CLOSE);
            }
        }
    }
}

/// What was sent to a session, for the log: also what it is giving away and may take back.
pub(super) fn begun(state: &ClientState) -> Begun {
    let (at_least_once, exactly_once) = state.session.begun();
    let leaving = state.leaving.as_ref().map_or(0, |leaving| leaving.begun());
    Begun { at_least_once: at_least_once.max(leaving), exactly_once }
}

/// What is left to be done when a connection has ended.
#[derive(Default)]
pub(crate) struct Disconnected {
    last_words: LastWords,
    /// Memory is short: what its task has of the output is left out as well, but for a packet that
    /// has begun.
    is_short: bool,
    /// Of its will, and of one that its session's end brings about.
    fan_outs: [Option<Box<FanOut>>; 2],
    /// A successor waits for this one.
    handle: Option<Arc<Handle>>,
}

impl Disconnected {
    /// What the client is still to be sent.
    pub(crate) fn last_words(&self) -> &LastWords {
        &self.last_words
    }

    /// Whether what its task has of the output is left out.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Whether a will is on its way to many, which takes time.
    pub(crate) fn takes_long(&self) -> bool {
        self.fan_outs.iter().any(Option::is_some)
    }
}

/// What a timer that was due has brought.
enum Due {
    /// Nothing, or a word to a task.
    Little,
    /// A turn: a session has ended, or a will is published, of which this is left.
    Turn(Option<Box<FanOut>>),
}

/// A connection is attached to the session, or an older one is not gone yet.
struct IsAttached;

/// What a session that ends leaves to be done.
#[derive(Default)]
struct LeftBehind {
    will: Option<Box<(Timestamp, Will)>>,
    /// Nobody comes in with its client id before that is published.
    publishing: Option<Publishing>,
}
