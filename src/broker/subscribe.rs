//! SUBSCRIBE and UNSUBSCRIBE, and the replay of retained messages in slices.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use ahash::RandomState;

use super::client::Replay;
use super::{Client, ClientState, Core, Turn, flush};
use crate::escape::escape;
use crate::protocol::{QoS, Subscribe, SubscribeReasonCode, Unsubscribe, levels_count};
use crate::router::{ReplayCursor, SubscriptionOptions};
use crate::session::{Message, Outgoing, SubscribeError};

/// Steps through the retained topics in one slice: some tens of microseconds.
const REPLAY_STEPS: usize = 128;

impl Core {
    /// SUBSCRIBE: every filter as if it had come alone, one combined answer ([MQTT-3.8.4-4]). Retained messages follow in
    /// [`replay`](Self::replay), after SUBACK.
    pub(crate) fn subscribe(&self, turn: &mut Turn, client: &Arc<Client>, subscribe: &Subscribe<'_>) {
        let mut codes = Vec::with_capacity(subscribe.count());
        let mut refused = 0_u64;
        let mut guard = client.lock();
        let state = &mut *guard;
        for (filter, qos) in subscribe.filters() {
            match self.add_subscription(client, state, filter, qos) {
                Ok(filter) => {
                    codes.push(SubscribeReasonCode::Success(qos));
                    self.owe_retained(state, filter, qos);
                }
                Err(why) => {
                    codes.push(SubscribeReasonCode::Failure);
                    self.metrics.dropped.add(why, 1);
                    refused += 1;
                }
            }
        }
        state.session.out.lend(flush::take_spare);
        state.session.send_suback(subscribe.packet_id, &codes);
        promise_flush(turn, client, state);
        drop(guard);
        if refused > 0 {
            tracing::warn!(
                client_id = %escape(&client.id),
                refused,
                subscriptions_max = self.limits.subscriptions_max,
                topic_levels_max = self.limits.topic_levels_max,
                "filters refused with 0x80: limits.subscriptions_max or limits.topic_levels_max"
            );
        }
    }

    /// Notes that the retained messages of this filter are to be sent ([MQTT-3.3.1-6]).
    fn owe_retained(&self, state: &mut ClientState, filter: Arc<str>, granted: QoS) {
        let nothing_there = if is_wildcard(&filter) {
            self.retained.is_empty()
        } else {
            self.retained.get(&filter).is_none()
        };
        if nothing_there {
            return;
        }
        let replays = state.replays.get_or_insert_default();
        if replays.len() > 2 * state.session.subscriptions() + 16 {
            // A client that subscribes again and again without reading: what it is owed last, once for each filter it still has.
            let mut seen: HashSet<Arc<str>, RandomState> = HashSet::default();
            let mut kept: VecDeque<Replay> = VecDeque::new();
            for replay in replays.drain(..).rev() {
                if !state.session.is_subscribed(&replay.filter) {
                    continue;
                }
                if seen.insert(Arc::clone(&replay.filter)) {
                    kept.push_front(replay);
                }
            }
            **replays = kept;
        }
        replays.push_back(Replay { filter, granted, cursor: ReplayCursor::default() });
    }

    /// Enters a filter into the session and the router; `Err` names the limit.
    pub(crate) fn add_subscription(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        filter: &str,
        qos: QoS,
    ) -> Result<Arc<str>, &'static str> {
        // Exact filters cost one entry however many levels they have; those with wildcards a node a level.
        if is_wildcard(filter) && levels_count(filter) > self.limits.topic_levels_max {
            return Err("topic_levels_max");
        }
        let filter = state.session.subscribe(filter, qos).map_err(|error| match error {
            SubscribeError::TooMany => "subscriptions_max",
            SubscribeError::Ended => "session_ended",
        })?;
        // Under the client's lock, so that the end of the session finds every filter that is in the router.
        self.router.subscribe(&filter, Arc::clone(client), SubscriptionOptions { qos });
        Ok(filter)
    }

    /// UNSUBSCRIBE: answered whether or not anything matched ([MQTT-3.10.4-5]).
    pub(crate) fn unsubscribe(&self, turn: &mut Turn, client: &Arc<Client>, unsubscribe: &Unsubscribe<'_>) {
        let mut guard = client.lock();
        let state = &mut *guard;
        for filter in unsubscribe.filters() {
            if state.session.unsubscribe(filter).is_some() {
                self.router.unsubscribe(filter, client.key);
            }
        }
        state.session.out.lend(flush::take_spare);
        state.session.send_unsuback(unsubscribe.packet_id);
        promise_flush(turn, client, state);
    }

    /// Sends a slice of the retained messages that new subscriptions are owed ([MQTT-3.3.1-6]), as far as the client reads.
    /// `true` if more could be sent at once.
    ///
    /// Fetched and handed over under the client's lock: a newer message of the topic is stored before it is delivered, so the older one
    /// cannot come after it.
    pub(crate) fn replay(&self, turn: &mut Turn, client: &Arc<Client>) -> bool {
        let mut guard = client.lock();
        let state = &mut *guard;
        let mut found: Vec<Arc<Message>> = Vec::new();
        let mut slices = 0;
        while state.session.has_room_for_replay()
            && let Some(replays) = &mut state.replays
            && let Some(replay) = replays.front_mut()
        {
            // One step at a time when the window is nearly closed: what is fetched must be sent.
            let room = state.session.replay_room();
            let unsubscribed = !state.session.is_subscribed(&replay.filter);
            let steps = room.min(REPLAY_STEPS);
            let done =
                unsubscribed || self.retained.replay(&replay.filter, &mut replay.cursor, steps, &mut found);
            let granted = replay.granted;
            if done {
                replays.pop_front();
            }
            if replays.is_empty() {
                state.replays = None;
            }
            if !found.is_empty() {
                state.session.out.lend(flush::take_spare);
            }
            for message in found.drain(..) {
                let mut scratch = std::mem::take(&mut turn.scratch);
                let mut outgoing = Outgoing::from_message(&message, &mut scratch);
                state.session.deliver_retained(&mut outgoing, granted);
                turn.sent += 1;
                turn.scratch = scratch;
            }
            slices += 1;
            if slices >= 4 {
                break;
            }
        }
        if state.session.out.has_output() {
            promise_flush(turn, client, state);
        }
        state.replays.is_some() && state.session.has_room_for_replay()
    }
}

impl Core {
    /// Has the client's output written at the end of the turn.
    pub(crate) fn promise_flush(&self, turn: &mut Turn, client: &Arc<Client>, state: &mut ClientState) {
        promise_flush(turn, client, state);
    }
}

fn promise_flush(turn: &mut Turn, client: &Arc<Client>, state: &mut ClientState) {
    if let Some(link) = &mut state.link
        && !link.flush_promised
    {
        link.flush_promised = true;
        turn.touch(client);
    }
}

fn is_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}
