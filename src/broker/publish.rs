//! A PUBLISH through the broker: the publisher's session, the retained store, the router, the receivers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::aliases::{Aliases, known_topic, resolve_alias};
use super::fan_out::{Also, Effects, FanOut, Receivers};
use super::sys::is_sys;
use super::turn_log::Retention;
use super::{Cause, Client, Core, Turn, Verdict};
use crate::config::{Limits, RefusedPublish};
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode};
use crate::router::{Asked, Judged, Lookup, Route, RouteCache, RouteList, RouteMatch, Routes};
use crate::session::{Message, Outgoing, Owner, Reception, Will};
use crate::storage::Record;

/// Steps of a match that a publish has at least, so that few are continued in another turn.
const MATCH_STEPS_MIN: u32 = 256;

/// What a connection keeps for its publishing.
pub(crate) struct Publisher {
    /// How its packets are decoded, and their answers encoded.
    version: ProtocolVersion,
    routes: RouteCache<Arc<Client>, Verdict>,
    /// What the listener does with a publish that the rules forbid.
    refused_publish: RefusedPublish,
    /// `limits.topic_alias_max`, as the client was told in CONNACK.
    topic_alias_max: u16,
    /// `limits.packet_bytes_max` in the same way; MQTT has no larger packets than four bytes can count.
    packet_bytes_max: u32,
    /// Acknowledgements of this turn, in the order of the packets.
    pub(crate) acks: Vec<u8>,
    /// Topics that the client lets numbers stand for; `None`: none yet.
    aliases: Option<Box<Aliases>>,
    /// A publish to more receivers than fit into a turn; nothing behind it is handled before it is done.
    pending: Option<Box<PendingPublish>>,
}

struct PendingPublish {
    fan_out: Box<FanOut>,
    qos: QoS,
    id: Option<PacketId>,
}

impl Publisher {
    /// `limits` are those by which the client was let in.
    pub(crate) fn new(version: ProtocolVersion, refused_publish: RefusedPublish, limits: &Limits) -> Self {
        Self {
            version,
            routes: RouteCache::default(),
            refused_publish,
            topic_alias_max: limits.topic_alias_max,
            packet_bytes_max: u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX),
            acks: Vec::new(),
            aliases: None,
            pending: None,
        }
    }

    /// Whether a publish has to be [continued](Core::continue_publish) before anything else.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether that needs a place among the fan-outs first.
    pub(crate) fn needs_place(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.fan_out.needs_place())
    }

    /// It has one.
    pub(crate) fn keep_place(&mut self, place: OwnedSemaphorePermit) {
        if let Some(pending) = &mut self.pending {
            pending.fan_out.keep_place(place);
        }
    }

    /// The rest of a publish whose client has left.
    pub(crate) fn take_fan_out(&mut self) -> Option<Box<FanOut>> {
        self.pending.take().map(|pending| pending.fan_out)
    }

    /// The topic of a PUBLISH, if it says one or its alias stands for one.
    pub(super) fn topic_of<'a>(&'a self, publish: &Publish<'a>) -> Option<&'a str> {
        match publish.properties.topic_alias {
            Some(alias) if publish.topic.is_empty() => known_topic(self.aliases.as_deref(), alias.get()),
            _ => Some(publish.topic),
        }
    }

    /// Bytes of the largest packet that the client may send.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max as usize
    }

    /// Adds SUBACK with one code per filter, in their order ([MQTT-3.9.3-1]).
    pub(super) fn answer_subscribe(&mut self, id: PacketId, codes: &[ReasonCode]) {
        encode::suback(&mut self.acks, self.version, id, codes);
    }

    /// Adds UNSUBACK with one code per filter, in their order.
    pub(super) fn answer_unsubscribe(&mut self, id: PacketId, codes: &[ReasonCode]) {
        encode::unsuback(&mut self.acks, self.version, id, codes);
    }

    /// Adds an acknowledgement.
    pub(crate) fn acknowledge(&mut self, kind: AckKind, id: PacketId, reason: ReasonCode) {
        encode::acknowledge(&mut self.acks, self.version, kind, id, reason);
    }
}

impl Core {
    /// A PUBLISH from a client. Its acknowledgement is added to `publisher.acks`.
    ///
    /// # Errors
    /// The connection is to end: the client broke a rule it was told.
    pub(crate) fn publish(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        publish: &Publish<'_>,
    ) -> Result<(), Cause> {
        let Publisher { version, routes, refused_publish, topic_alias_max, acks, aliases, pending, .. } =
            publisher;
        let topic = match publish.properties.topic_alias {
            None => publish.topic,
            Some(alias) => {
                resolve_alias(&self.accounts, aliases, alias.get(), publish.topic, *topic_alias_max)?;
                known_topic(aliases.as_deref(), alias.get()).ok_or(Cause::TopicAliasInvalid)?
            }
        };
        let mut received = None;
        let reception = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => {
                let mut state = client.lock();
                // What a durable session received it must still know after a crash ([MQTT-4.3.3-2]).
                received = state.session.is_durable().then_some(id.get());
                state.session.accept_publish(id)
            }
            _ => Reception::New,
        };
        let reason = match reception {
            Reception::TooMany => return Err(Cause::ReceiveMaximumExceeded),
            Reception::Repeated => {
                // The first may still be on its way to the disk.
                if received.is_some() {
                    turn.log.wait();
                }
                ReasonCode::Success
            }
            Reception::New if is_sys(topic) => {
                self.metrics.dropped.add("sys_topic", 1);
                ReasonCode::Success
            }
            Reception::New if self.refuses_topic(client, topic) => ReasonCode::TopicNameInvalid,
            Reception::New if self.refuses_payload(&publish.properties, publish.payload) => {
                self.metrics.dropped.add("payload_format_invalid", 1);
                ReasonCode::PayloadFormatInvalid
            }
            Reception::New => {
                let mut steps = turn.budget.left().max(MATCH_STEPS_MIN) as usize;
                let before = steps;
                let lookup = self.routes_within(routes, client, topic, &mut steps);
                turn.budget.spend(u32::try_from(before - steps).unwrap_or(u32::MAX));
                let (receivers, verdict) = match &lookup {
                    Lookup::Found(routes, verdict) => (Receivers::Known(*routes), *verdict),
                    // Who receives it is judged when all are found.
                    Lookup::Begun(_) => {
                        (Receivers::Known(Routes::Own(&[])), self.judge(Some(client), topic, &mut Vec::new()))
                    }
                };
                if !verdict.may_publish {
                    self.metrics.dropped.add("acl_write", 1);
                    // MQTT 5 has a code for it; 3.1.1 knows the acknowledgement and the end of the
                    // connection ([MQTT-3.3.5-2]).
                    if *refused_publish == RefusedPublish::Disconnect && !version.tells_refused_publish() {
                        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
                            // It was not taken: sent again under other rules, it is new.
                            refuse_publish(turn, client, id, received);
                        }
                        return Err(Cause::PublishRefused);
                    }
                    ReasonCode::NotAuthorized
                } else {
                    let mut scratch = std::mem::take(&mut turn.scratch);
                    let mut outgoing =
                        Outgoing::from_publish(publish, topic, *version, client.key, turn.now, &mut scratch);
                    let retention = if publish.retain {
                        self.retain(&turn.log, &mut outgoing, Some((&client.id, client.user.as_ref())))
                    } else {
                        Retention::None
                    };
                    if verdict.left_out > 0 {
                        self.metrics.dropped.add("acl_read", verdict.left_out.into());
                    }
                    let also =
                        received.map_or(Also::Nothing, |id| Also::Received { session: client.key, id });
                    let effects = Effects { retention, also, waited: publish.qos != QoS::AtMostOnce };
                    let is_heard =
                        matches!(&receivers, Receivers::Known(routes) if !routes.as_slice().is_empty());
                    let receivers = match lookup {
                        Lookup::Begun(begun) => Receivers::Matching(begun),
                        Lookup::Found(..) => receivers,
                    };
                    let fan_out = self.fan_out(turn, receivers, &mut outgoing, effects);
                    turn.scratch = scratch;
                    if let Some(mut fan_out) = fan_out {
                        fan_out.hold_back_successors(client);
                        // Its answer comes with its last slice.
                        let (qos, id) = (publish.qos, publish.packet_id);
                        *pending = Some(Box::new(PendingPublish { fan_out, qos, id }));
                        return Ok(());
                    }
                    if is_heard { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers }
                }
            }
        };
        turn.budget.spend_bytes(publish.payload.len());
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => encode::acknowledge(acks, *version, AckKind::PubAck, id, reason),
            (QoS::ExactlyOnce, Some(id)) => {
                if reason.is_error() {
                    refuse_publish(turn, client, id, received);
                }
                encode::acknowledge(acks, *version, AckKind::PubRec, id, reason);
            }
            _ => {}
        }
        Ok(())
    }

    /// The next slice of a publish that did not fit into its turn; with the last one comes its
    /// answer. Nothing happens while it needs a place.
    pub(crate) fn continue_publish(&self, turn: &mut Turn, client: &Client, publisher: &mut Publisher) {
        let Some(mut pending) = publisher.pending.take_if(|pending| !pending.fan_out.needs_place()) else {
            return;
        };
        if !self.continue_fan_out(turn, &mut pending.fan_out, Some((client, publisher))) {
            publisher.pending = Some(pending);
            return;
        }
        let is_heard = pending.fan_out.has_receivers();
        let reason = if is_heard { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
        match (pending.qos, pending.id) {
            (QoS::AtLeastOnce, Some(id)) => publisher.acknowledge(AckKind::PubAck, id, reason),
            (QoS::ExactlyOnce, Some(id)) => publisher.acknowledge(AckKind::PubRec, id, reason),
            _ => {}
        }
    }

    /// Who receives what this connection publishes to the topic, and what the rules say of that, if
    /// it takes no more than about so many steps to find out.
    fn routes_within<'a>(
        &self,
        routes: &'a mut RouteCache<Arc<Client>, Verdict>,
        client: &Client,
        topic: &str,
        steps: &mut usize,
    ) -> Lookup<'a, Arc<Client>, Verdict> {
        let asked = self.asked(client, topic);
        routes.get_within(&asked, steps, |routes| self.judged(client, topic, routes))
    }

    /// Lets go of what the connection of a client keeps of routes that do not hold any more.
    pub(crate) fn let_go_of_routes(&self, client: &Client, publisher: &mut Publisher) {
        if publisher.routes.let_go(&self.router, &self.thread_routes) {
            client.keeps_routes.store(true, Ordering::Relaxed);
        }
    }

    /// Judges the receivers of a match that took several turns. `by`: who publishes, if it is a
    /// client; its cache keeps them.
    pub(super) fn judge_found(
        &self,
        by: Option<(&Client, &mut Publisher)>,
        topic: &str,
        mut found: RouteMatch<Arc<Client>>,
    ) -> RouteList<Arc<Client>> {
        let (routes, verdict) = match by {
            Some((client, publisher)) => {
                let judged = self.judged(client, topic, &mut found.routes);
                publisher.routes.put(&self.asked(client, topic), found, judged)
            }
            None => {
                let verdict = self.judge(None, topic, &mut found.routes);
                (found.routes.into(), verdict)
            }
        };
        if verdict.left_out > 0 {
            self.metrics.dropped.add("acl_read", verdict.left_out.into());
        }
        routes
    }

    /// What is judged is kept.
    fn judged(&self, client: &Client, topic: &str, routes: &mut Vec<Route<Arc<Client>>>) -> Judged<Verdict> {
        client.keeps_routes.store(true, Ordering::Relaxed);
        let verdict = self.judge(Some(client), topic, routes);
        Judged { publisher: about(client, verdict.is_ruled), verdict }
    }

    fn asked<'a>(&'a self, client: &Client, topic: &'a str) -> Asked<'a, Arc<Client>, Verdict> {
        let publisher = about(client, self.access.is_active());
        Asked { router: &self.router, threads: &self.thread_routes, publisher, topic }
    }

    /// A message of the broker itself or of a program it is embedded in. `Some`: what did not fit
    /// into the turn.
    #[must_use = "the rest has to be delivered"]
    pub(crate) fn publish_message(
        &self,
        turn: &mut Turn,
        message: &Arc<Message>,
        retain: bool,
    ) -> Option<Box<FanOut>> {
        self.publish_message_of(turn, (0, None), message, retain, Also::Nothing)
    }

    /// The same on behalf of a session, by its key and its owner; `also` goes on record together with it.
    fn publish_message_of(
        &self,
        turn: &mut Turn,
        (publisher, owner): (u64, Option<&Owner>),
        message: &Arc<Message>,
        retain: bool,
        also: Also,
    ) -> Option<Box<FanOut>> {
        let mut scratch = std::mem::take(&mut turn.scratch);
        let mut outgoing = Outgoing::from_message(message, turn.now, &mut scratch)
            .with_retain(retain)
            .with_publisher(publisher);
        let source = owner.map(|owner| (&owner.client_id, owner.user.as_ref()));
        let retention = if retain { self.retain(&turn.log, &mut outgoing, source) } else { Retention::None };
        // A will waits: a device's end must not be forgotten, nor told twice.
        let waited = matches!(also, Also::WillEnd(_));
        let effects = Effects { retention, also, waited };
        let Some(place) = self.background.take_place() else {
            let rest = self.fan_out(turn, Receivers::InLine, &mut outgoing, effects);
            turn.scratch = scratch;
            return rest;
        };
        let mut found = Box::new(RouteMatch::begin(&self.router, message.topic()));
        let mut steps = turn.budget.left().max(MATCH_STEPS_MIN) as usize;
        let before = steps;
        let is_whole = found.go_on(&self.router, message.topic(), &mut steps);
        turn.budget.spend(u32::try_from(before - steps).unwrap_or(u32::MAX));
        let rest = if is_whole {
            let left_out = self.judge(None, message.topic(), &mut found.routes).left_out;
            if left_out > 0 {
                self.metrics.dropped.add("acl_read", left_out.into());
            }
            let receivers = Receivers::Known(Routes::Own(&found.routes));
            let mut rest = self.fan_out(turn, receivers, &mut outgoing, effects);
            if let Some(rest) = &mut rest {
                rest.keep_place(place);
            }
            rest
        } else {
            Some(self.begin_match(turn, found, Some(place), &mut outgoing, effects))
        };
        turn.scratch = scratch;
        rest
    }

    /// Whether the payload is to be refused for not being what its format indicator says (section 3.3.2.3.2).
    pub(super) fn refuses_payload(&self, properties: &PublishProperties<'_>, payload: &[u8]) -> bool {
        self.limits.checks_payload_format()
            && properties.payload_format_indicator == Some(1)
            && std::str::from_utf8(payload).is_err()
    }

    /// The will of a connection of `client` that ended without DISCONNECT. `Some`: what did not fit
    /// into the turn; it holds back the client's next connection, whose messages are to come behind it.
    #[must_use = "the rest has to be delivered"]
    pub(crate) fn publish_will(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        will: &Will,
    ) -> Option<Box<FanOut>> {
        let mut rest = self.publish_will_of(turn, client.key, will);
        if let Some(rest) = &mut rest {
            rest.hold_back_successors(client);
        }
        rest
    }

    /// The same by the session's key. The will goes off the record in the same frame, so that it is published once whatever happens.
    #[must_use = "the rest has to be delivered"]
    pub(super) fn publish_will_of(
        &self,
        turn: &mut Turn,
        publisher: u64,
        will: &Will,
    ) -> Option<Box<FanOut>> {
        if is_sys(&will.topic) {
            self.metrics.dropped.add("sys_topic", 1);
            turn.log.end_will(will, true);
            return None;
        }
        if !self.may_publish(&will.owner, &will.topic) {
            self.metrics.dropped.add("acl_write", 1);
            turn.log.end_will(will, true);
            return None;
        }
        self.metrics.wills_published.add(1);
        let also = if will.key == 0 { Also::Nothing } else { Also::WillEnd(will.key) };
        let message = will.message(turn.now);
        let rest = self.publish_message_of(turn, (publisher, Some(&will.owner)), &message, will.retain, also);
        turn.log.wait();
        rest
    }
}

/// Whom a verdict is about: without rules it is about everybody.
fn about(client: &Client, is_ruled: bool) -> u64 {
    if is_ruled { client.key } else { 0 }
}

/// The id of a QoS 2 PUBLISH that is not taken is free again. `received`: the same id, if the session
/// is durable. A checkpoint may have found it there since it came; this turn is open, so the record
/// is behind that checkpoint's position, and on disk before it counts. The answer waits for it, so that
/// a client whose messages are all refused is held with all others when the log is full.
#[cold]
fn refuse_publish(turn: &mut Turn, client: &Client, id: PacketId, received: Option<u16>) {
    client.lock().session.refuse_publish(id);
    if let Some(id) = received {
        turn.log.record(&Record::Released { session: client.key, id }, true);
    }
}

#[cfg(test)]
mod tests;
