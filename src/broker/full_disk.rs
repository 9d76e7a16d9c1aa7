//! A full disk: what goes on, and what waits until there is room.
//!
//! What is put on record while the log takes nothing that grows (`Log::is_full`), and why that has a
//! bound. Whoever adds a record finds its line here, or adds one.
//!
//! | what comes | what it would record | what is done |
//! |---|---|---|
//! | PUBLISH that is retained, or goes to kept sessions | the message | [`needs_disk`](Core::needs_disk): it waits |
//! | SUBSCRIBE of a kept session | each filter that is new or changed | [`needs_room_to_subscribe`](Core::needs_room_to_subscribe): it waits, if there is such a filter |
//! | retained messages for a kept session | a copy of each | [`replay_waits`](Core::replay_waits): it waits, and goes on when there is room |
//! | CONNECT of a client id that is not known | the session, its will | [`comes_in`](Core::comes_in): it waits, and is refused |
//! | CONNECT of one that is | a line of the session, its will; the will's message when it goes | the same: it has a part of the reserve, and is refused when that is used up |
//! | messages from one session to another | each anew | `Log::room_to_hand_over`: they have a part of the reserve, and wait |
//! | UNSUBSCRIBE | an end, once for each filter that there is | it goes on: no more of these can come than the checkpoint has filters, and the reserve has room for two checkpoints |
//! | PUBACK, PUBREC, PUBCOMP, PUBREL | an end, once for each delivery or packet id | it goes on |
//! | what a session leaves and was not sent | runs of their numbers, again when its client comes back | it goes on: out of date with the next one |
//! | wills that are due | their messages | they go on: each was paid for when it came, or is in the checkpoint |
//! | the end of a connection or session | a line | it goes on: paid for by CONNECT |
//!
//! What was recorded and is out of date is freed behind the next checkpoint, which on a full disk is
//! written whenever something can be gained by it; so a part of the reserve that was taken for
//! something that does not last comes back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::budget::cost;
use super::subscribe::told;
use super::{Budget, Client, ClientState, Core, Publisher};
use crate::escape::escape;
use crate::protocol::{Connect, ConnectWill, Publish, QoS, Subscribe, SubscribeOptions};
use crate::router::{Route, RouteCursor, SubscriptionOptions};
use crate::storage::{LetIn, Log};

/// Steps for finding out who gets a message. What takes longer counts as in need of the disk.
const STEPS_MAX: usize = 4_096;
/// Bytes that one who gets a stored message takes in the log, about.
pub(super) const DELIVERY_BYTES: usize = 48;
/// Bytes that a connection takes there besides names, about: that it came, and that it went.
const CONNECTION_BYTES: usize = 256;
/// A client that comes to drain and brings no more than so many bytes is let in whatever there is: it
/// is the only way back, and what it brings is out of date with its next connection.
const ALWAYS_BYTES: usize = 1_024;

impl Core {
    /// Whether a PUBLISH would make the log grow: it is retained, its QoS 2 packet id has to outlive a
    /// crash, or somebody gets it whose session is kept.
    pub(crate) fn needs_disk(
        &self,
        budget: &mut Budget,
        client: &Client,
        publisher: &Publisher,
        publish: &Publish<'_>,
    ) -> bool {
        if publish.retain {
            return true;
        }
        if publish.qos == QoS::AtMostOnce {
            return false;
        }
        if publish.qos == QoS::ExactlyOnce && client.lock().session.is_durable() {
            return true;
        }
        // Without a topic it is refused.
        let Some(topic) = publisher.topic_of(publish) else { return false };
        let (mut cursor, mut routes) = (RouteCursor::default(), Vec::new());
        let mut steps = STEPS_MAX;
        let is_whole = self.router.route_from(topic, &mut cursor, &mut steps, &mut routes);
        let looks = STEPS_MAX - steps + routes.len();
        budget.spend(u32::try_from(looks).unwrap_or(u32::MAX));
        !is_whole || routes.iter().any(stores)
    }

    /// Whether a SUBSCRIBE would make the log grow: the session is kept, and some filter of it is new
    /// or has other options. A client that comes back and asks for what it has is answered.
    pub(crate) fn needs_room_to_subscribe(
        &self,
        budget: &mut Budget,
        client: &Client,
        subscribe: &Subscribe<'_>,
    ) -> bool {
        let state = client.lock();
        if !state.session.is_durable() {
            return false;
        }
        budget.spend(u32::try_from(subscribe.count()).unwrap_or(u32::MAX).saturating_mul(cost::FILTER));
        let id = subscribe.subscription_id;
        subscribe.filters().any(|(filter, options)| !is_same(&state, filter, options, id))
    }

    /// Whether retained messages that a session is owed wait for room: each would go on record with a
    /// body of its own.
    pub(super) fn replay_waits(&self, state: &ClientState) -> bool {
        if self.log.as_ref().is_none_or(|log| !log.is_full()) {
            return false;
        }
        let next = state.replays.as_ref().and_then(|replays| replays.front());
        state.session.is_durable() && next.is_some_and(|next| next.options.qos != QoS::AtMostOnce)
    }

    /// Whether a client of which something will be stored comes in while the log takes nothing that
    /// grows. One that is known has a part of the reserve for that: above all one for which something
    /// waits, for it makes room by taking that. Others wait, where that helps.
    pub(super) async fn comes_in(&self, log: &Log, connect: &Connect<'_>, patience: Duration) -> bool {
        let known = self.clients.get(connect.client_id).map(|entry| Arc::clone(entry.value()));
        let is_known = known.is_some();
        if let Some(client) = known {
            let drains = {
                let state = client.lock();
                state.session.queued() + state.session.unfinished() > 0
            };
            let bytes = self.bytes_to_let_in(connect, &client);
            let why = if drains { LetIn::ToDrain } else { LetIn::AsKnown };
            let is_little = drains && connect.will.is_none() && bytes <= ALWAYS_BYTES;
            if is_little || log.may_let_in(bytes, why) {
                return true;
            }
        }
        if self.has_room_soon(log, patience).await {
            return true;
        }
        if let Some(untold) = self.told.tell("full disk", self.now()) {
            tracing::warn!(
                client_id = %escape(connect.client_id),
                is_known,
                will_bytes = connect.will.as_ref().map(will_bytes),
                untold,
                "the disk is full or fails: clients of which something would have to be stored are refused until there is room, \
                 but for those that come for what waits for them and bring little; told every ten seconds at most"
            );
        }
        false
    }

    /// Bytes that go on record, ends not counted, if this client comes in and goes without a word.
    fn bytes_to_let_in(&self, connect: &Connect<'_>, client: &Client) -> usize {
        let names = connect.client_id.len() + client.user.as_ref().map_or(0, |user| user.len());
        let of_will = connect.will.as_ref().map_or(0, |will| {
            let (mut cursor, mut routes) = (RouteCursor::default(), Vec::new());
            let mut steps = STEPS_MAX;
            let is_whole = self.router.route_from(will.topic, &mut cursor, &mut steps, &mut routes);
            let receivers = if is_whole { routes.len() } else { STEPS_MAX };
            // Itself, then the message.
            2 * (will_bytes(will) + names + DELIVERY_BYTES) + receivers * DELIVERY_BYTES
        });
        CONNECTION_BYTES + 2 * names + of_will
    }
}

/// Whether the session has this very subscription.
fn is_same(
    state: &ClientState,
    filter: &str,
    asked: SubscribeOptions,
    subscription_id: Option<NonZeroU32>,
) -> bool {
    let SubscribeOptions { qos, no_local, retain_as_published, .. } = asked;
    let options = SubscriptionOptions { qos, no_local, retain_as_published, subscription_id };
    state.session.options_of(filter) == Some(told(options))
}

/// Bytes of a will that may go on record.
fn will_bytes(will: &ConnectWill<'_>) -> usize {
    let mut forwarded = Vec::new();
    will.properties.write_forwardable(&mut forwarded);
    will.topic.len() + will.payload.len() + forwarded.len()
}

/// Whether what goes there may have to be stored. Of a group any member may get it.
fn stores(route: &Route<Arc<Client>>) -> bool {
    let client = &route.subscriber;
    client.group.is_some() || route.options.qos != QoS::AtMostOnce && client.lock().session.is_durable()
}
