//! SUBSCRIBE and UNSUBSCRIBE, and the replay of retained messages in slices.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use ahash::RandomState;

use super::budget::cost;
use super::client::Replay;
use super::refusal::Refusal;
use super::turn_log::Retention;
use super::{Client, ClientState, Core, Kept, Publisher, Turn, flush};
use crate::accounts::{Account, Charge, Room, signed};
use crate::escape::escape;
use crate::protocol::{
    QoS, ReasonCode, RetainHandling, SharedFilter, Subscribe, SubscribeOptions, Unsubscribe,
};
use crate::router::{ReplayCursor, SubscriptionOptions};
use crate::session::{Delivered, Expiry, FilterOptions, Granted, Outgoing, SubscribeError};
use crate::storage::{Record, SubscribeRecord};

/// Steps through the retained topics in one slice: some tens of microseconds.
const REPLAY_STEPS: usize = 128;

/// Filters whose replays are looked through for one that is asked for again.
const REPEATED_MAX: usize = 64;

/// Steps to find out whether a new subscription is owed anything.
const LOOK_STEPS: usize = 16;

impl Core {
    /// SUBSCRIBE: every filter as if it had come alone, one combined answer ([MQTT-3.8.4-4]). Retained messages follow in
    /// [`replay`](Self::replay), after SUBACK, which is added to `publisher.acks`.
    pub(crate) fn subscribe(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        subscribe: &Subscribe<'_>,
    ) {
        let mut codes = Vec::with_capacity(subscribe.count());
        let mut refused = 0;
        let mut state = client.lock();
        for (filter, options) in subscribe.filters() {
            let asked = (filter, options, subscribe.subscription_id);
            codes.push(self.subscribe_one(turn, client, &mut state, asked, &mut refused));
        }
        drop(state);
        publisher.answer_subscribe(subscribe.packet_id, &codes);
        self.log_refused_filters(client, refused);
    }

    /// One filter of a SUBSCRIBE, under the client's lock; its code in the answer. Counts it if a
    /// limit refuses it.
    pub(super) fn subscribe_one(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        state: &mut ClientState,
        (filter, options, subscription_id): (&str, SubscribeOptions, Option<NonZeroU32>),
        refused: &mut u64,
    ) -> ReasonCode {
        turn.budget.spend(self.cost_of(filter));
        let SubscribeOptions { qos, no_local, retain_as_published, retain_handling } = options;
        let options = SubscriptionOptions { qos, no_local, retain_as_published, subscription_id };
        if self.access.refuses_subscriptions() && !self.may_subscribe(client, filter) {
            self.metrics.dropped.add("acl_subscribe", 1);
            return ReasonCode::NotAuthorized;
        }
        let Added { new, shared } = match self.add_subscription(client, state, filter, options) {
            Ok(added) => added,
            Err(refusal) => {
                self.metrics.dropped.add(refusal.label(), 1);
                *refused += 1;
                return refusal.reason_code();
            }
        };
        if state.session.is_durable() {
            // Also if nothing has changed: the first SUBSCRIBE may be on its way to the disk still.
            turn.log.wait();
            if new != Newness::Same {
                let record = SubscribeRecord {
                    session: client.key,
                    qos,
                    no_local,
                    retain_as_published,
                    subscription_id: subscription_id.map_or(0, NonZeroU32::get),
                    filter,
                };
                turn.log.record(&Record::Subscribe(record), true);
            }
        }
        let wanted = match retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => new == Newness::New,
            RetainHandling::DoNotSend => false,
        };
        // Members of a group are not sent retained messages (MQTT 5 section 4.8.2).
        if wanted && !shared {
            self.owe_retained(state, filter, options);
        }
        ReasonCode::granted(qos)
    }

    /// What it costs to add this filter.
    fn cost_of(&self, filter: &str) -> u32 {
        let looks = !self.retained.is_empty() && filter.contains(['+', '#']);
        if looks { cost::FILTER + cost::LOOK } else { cost::FILTER }
    }

    /// Tells that some of a SUBSCRIBE were refused; a client can cause that as often as it likes.
    pub(super) fn log_refused_filters(&self, client: &Client, refused: u64) {
        if refused == 0 {
            return;
        }
        let Some(untold) = self.told.tell("refused filters", self.now()) else { return };
        let limits = self.limits.now();
        tracing::warn!(
            client_id = %escape(&client.id),
            refused,
            subscriptions_max = limits.subscriptions_max,
            subscription_bytes_max = limits.subscription_bytes_max,
            topic_levels_max = limits.topic_levels_max,
            topic_bytes_max = limits.topic_bytes_max,
            memory_max = self.accounts.max(),
            untold,
            "filters refused: limits.subscriptions_max, limits.subscription_bytes_max, limits.topic_levels_max, \
             limits.topic_bytes_max or limits.memory_max, or no valid shared subscription; told every ten seconds at most"
        );
    }

    /// Notes that the retained messages of this filter are to be sent ([MQTT-3.3.1-6]).
    fn owe_retained(&self, state: &mut ClientState, filter: &str, options: SubscriptionOptions) {
        // Mostly there is nothing, and a note for each filter of a large SUBSCRIBE would take more memory than its subscription. What is retained
        // after this look is delivered: the filter is in the router already.
        if !self.retained.may_match(filter, LOOK_STEPS) {
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
        if replays.len() <= REPEATED_MAX {
            // What is left of an earlier replay of it comes with this one.
            replays.retain(|replay| *replay.filter != *filter);
        }
        let bytes = size_of::<Replay>() + filter.len();
        let charge = Charge::new(&self.accounts, Account::Subscriptions, bytes);
        let (filter, cursor) = (Arc::from(filter), ReplayCursor::default());
        replays.push_back(Replay { filter, options, cursor, _charge: charge });
    }

    /// Enters a filter into the session and the router, or the group it names.
    pub(crate) fn add_subscription(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<Added, Refusal> {
        self.enter_subscription(client, state, filter, options, Room::Needed)
    }

    /// The same for one that the session had when the broker stopped: there is room for it,
    /// whatever `limits.memory_max` is today.
    pub(super) fn restore_subscription(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<Added, Refusal> {
        self.enter_subscription(client, state, filter, options, Room::Given)
    }

    fn enter_subscription(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        filter: &str,
        options: SubscriptionOptions,
        room: Room,
    ) -> Result<Added, Refusal> {
        if let Some(limit) = self.topic_limit(filter) {
            return Err(Refusal::Topic(limit));
        }
        let shared = SharedFilter::parse(filter).map_err(|_| Refusal::BadSharedFilter)?;
        let before = state.session.options_of(filter);
        let is_new = state.session.subscribe(filter, told(options)).map_err(|error| match error {
            SubscribeError::TooMany => Refusal::TooMany,
            SubscribeError::TooManyBytes => Refusal::TooManyBytes,
            SubscribeError::Ended => Refusal::SessionEnded,
        })?;
        let cost = subscription_cost(filter);
        if is_new && !self.accounts.take_lasting(Account::Subscriptions, cost, room) {
            state.session.unsubscribe(filter);
            return Err(Refusal::Memory);
        }
        if before == Some(told(options)) {
            // In the router already.
            return Ok(Added { new: Newness::Same, shared: shared.is_some() });
        }
        let new = if is_new { Newness::New } else { Newness::Changed };
        // Under the client's lock, so that the end of the session finds every filter that is in the router.
        match &shared {
            None => {
                self.router.subscribe(filter, Arc::clone(client), options);
            }
            Some(shared) => {
                // Who had it before is in the group already.
                if !self.join_group(shared, filter, client, state, options, room) {
                    self.accounts.add(Account::Subscriptions, -signed(cost));
                    state.session.unsubscribe(filter);
                    return Err(Refusal::Memory);
                }
            }
        }
        Ok(Added { new, shared: shared.is_some() })
    }

    /// Takes a filter of a session out of the router, or the session out of the group it names.
    pub(super) fn remove_subscription(&self, filter: &str, key: u64, state: &mut ClientState) {
        self.accounts.add(Account::Subscriptions, -signed(subscription_cost(filter)));
        match SharedFilter::parse(filter) {
            Ok(Some(shared)) => self.leave_group(&shared, filter, key, state),
            _ => {
                self.router.unsubscribe(filter, key);
            }
        }
    }

    /// UNSUBSCRIBE: answered whether or not anything matched ([MQTT-3.10.4-5]).
    /// UNSUBACK is added to `publisher.acks`.
    pub(crate) fn unsubscribe(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        let mut codes = Vec::with_capacity(unsubscribe.count());
        let mut given_up: Vec<&str> = Vec::new();
        let mut guard = client.lock();
        let state = &mut *guard;
        for filter in unsubscribe.filters() {
            let code = self.unsubscribe_one(turn, client, state, filter);
            if code == ReasonCode::Success && filter.starts_with("$share/") {
                given_up.push(filter);
            }
            codes.push(code);
            turn.budget.spend(cost::FILTER);
        }
        self.give_away_of(turn, client, state, |shared| given_up.contains(&shared), given_up.is_empty());
        drop(guard);
        publisher.answer_unsubscribe(unsubscribe.packet_id, &codes);
    }

    /// One filter of an UNSUBSCRIBE, under the client's lock; its code in the answer.
    pub(super) fn unsubscribe_one(
        &self,
        turn: &mut Turn,
        client: &Client,
        state: &mut ClientState,
        filter: &str,
    ) -> ReasonCode {
        let is_there = state.session.unsubscribe(filter);
        if state.session.is_durable() {
            // Also if there is none: who took it, for an earlier connection, may not be on record yet.
            turn.log.wait();
            if is_there {
                turn.log.record(&Record::Unsubscribe { session: client.key, filter }, true);
            }
        }
        if !is_there {
            return ReasonCode::NoSubscriptionExisted;
        }
        self.remove_subscription(filter, client.key, state);
        ReasonCode::Success
    }

    /// What came by shared subscriptions that were given up and has not begun goes to other
    /// members. Once for a packet: it goes through the whole queue.
    pub(super) fn give_away_of(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        state: &mut ClientState,
        is_given_up: impl Fn(&str) -> bool,
        is_none: bool,
    ) {
        if !is_none {
            turn.budget
                .spend(u32::try_from(state.session.queued() / cost::MESSAGES_PER_UNIT).unwrap_or(u32::MAX));
            self.give_up(client, state, is_given_up);
        }
    }

    /// Sends a slice of the retained messages that new subscriptions are owed ([MQTT-3.3.1-6]), as far as the client reads.
    /// `true` if more could be sent at once.
    ///
    /// Fetched and handed over under the client's lock: a newer message of the topic is stored before it is delivered, so the older one
    /// cannot come after it.
    pub(crate) fn replay(&self, turn: &mut Turn, client: &Arc<Client>) -> bool {
        let mut guard = client.lock();
        let state = &mut *guard;
        let mut found: Vec<Kept> = Vec::new();
        let mut slices = 0;
        while state.may_replay()
            && !self.replay_waits(state)
            && let Some(replays) = &mut state.replays
            && let Some(replay) = replays.front_mut()
        {
            // One step at a time when the window is nearly closed: what is fetched must be sent.
            let steps = state.session.replay_room().min(REPLAY_STEPS);
            let unsubscribed = !state.session.is_subscribed(&replay.filter);
            let done =
                unsubscribed || self.retained.replay(&replay.filter, &mut replay.cursor, steps, &mut found);
            let options = replay.options;
            if done {
                replays.pop_front();
            }
            if replays.is_empty() {
                state.replays = None;
            }
            if !found.is_empty() {
                state.session.out.lend(flush::take_spare);
            }
            self.send_retained(turn, client, state, &mut found, options);
            slices += 1;
            if slices >= 4 {
                break;
            }
        }
        if state.session.out.has_output() {
            turn.promise_flush(client, state);
        }
        state.may_replay() && !self.replay_waits(state)
    }

    fn send_retained(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        state: &mut ClientState,
        found: &mut Vec<Kept>,
        options: SubscriptionOptions,
    ) {
        let id = options.subscription_id.map(NonZeroU32::get);
        let granted =
            Granted { retain: true, subscription_ids: id.as_slice(), ..Granted::with_qos(options.qos) };
        for Kept { mut message, .. } in found.drain(..) {
            if message.expiry(turn.now) == Expiry::Over {
                self.forget_expired(&message);
                continue;
            }
            if !self.may_receive(client, message.topic()) {
                self.metrics.dropped.add("acl_read", 1);
                continue;
            }
            if !self.may_still_be_there(&message) {
                self.metrics.dropped.add("acl_source", 1);
                continue;
            }
            let on_record = state.session.is_durable()
                && message.qos() != QoS::AtMostOnce
                && options.qos != QoS::AtMostOnce;
            if on_record {
                // Its delivery goes on record with a body of its own: it may long outlive what is retained.
                message = Arc::new(message.without_place());
            }
            let mut scratch = std::mem::take(&mut turn.scratch);
            let mut outgoing = Outgoing::from_message(&message, turn.now, &mut scratch);
            match state.session.at(turn.now).deliver_retained(&mut outgoing, &granted) {
                Delivered::Dropped(reason) => turn.count_drop(reason, 1),
                Delivered::Ended => {}
                Delivered::Sent | Delivered::Queued => {
                    turn.sent += 1;
                    outgoing.charge_to(&self.accounts);
                    if on_record {
                        self.note_durable(turn, client, state, &outgoing, &granted);
                        turn.log.publish(self, &mut outgoing, Retention::None, &[], false);
                    }
                }
            }
            turn.scratch = scratch;
        }
    }
}

/// A subscription that was made.
pub(crate) struct Added {
    new: Newness,
    shared: bool,
}

/// Whether the session had the subscription before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newness {
    New,
    /// With other options.
    Changed,
    /// Just so.
    Same,
}

/// Bytes that a filter takes in session and router, where most take less (`tests/memory.rs`).
fn subscription_cost(filter: &str) -> usize {
    subscriptions_cost(1, filter.len())
}

/// The same for so many filters of so many bytes together.
pub(super) fn subscriptions_cost(filters: usize, bytes: usize) -> usize {
    3 * bytes + 64 * filters
}

/// The options as the session keeps them, for the log.
pub(super) fn told(options: SubscriptionOptions) -> FilterOptions {
    let SubscriptionOptions { qos, no_local, retain_as_published, subscription_id } = options;
    FilterOptions { qos, no_local, retain_as_published, subscription_id }
}
