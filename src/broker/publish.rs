//! A PUBLISH through the broker: the publisher's session, the retained store, the router, the receivers.

use std::sync::Arc;

use super::sys::is_sys;
use super::turn_log::Retention;
use super::{Cause, Client, Core, Turn, Verdict};
use crate::accounts::{Account, Accounts, Charge};
use crate::config::{Limits, RefusedPublish};
use crate::faults::{Fault, planted};
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode};
use crate::router::{Asked, Judged, Route, RouteCache};
use crate::session::{ALIAS_COST, Message, Outgoing, Owner, Reception, Will};
use crate::storage::Record;

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
}

/// Topics that a client lets numbers stand for: number 1 is the first.
struct Aliases {
    topics: Vec<Option<Box<str>>>,
    charge: Charge,
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
        let Publisher { version, routes, refused_publish, topic_alias_max, acks, aliases, .. } = publisher;
        let topic = match publish.properties.topic_alias {
            None => publish.topic,
            Some(alias) => {
                resolve_alias(&self.accounts, aliases, alias.get(), publish.topic, *topic_alias_max)?;
                let topics = aliases.as_ref().map_or(&[][..], |aliases| &aliases.topics);
                let known = topics.get(usize::from(alias.get()) - 1).and_then(Option::as_deref);
                known.ok_or(Cause::TopicAliasInvalid)?
            }
        };
        let mut received = None;
        let reception = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => {
                let mut state = client.lock();
                // What a durable session received it must still know after a crash ([MQTT-4.3.3-2]).
                received = state.session.is_durable().then_some(id.get());
                if planted(Fault::DupIsDuplicate) && publish.dup {
                    Reception::Repeated
                } else {
                    state.session.accept_publish(id)
                }
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
            Reception::New if !self.may_use(routes, client, topic) => {
                self.metrics.dropped.add("acl_write", 1);
                // MQTT 5 has a code for it; 3.1.1 knows the acknowledgement and the end of the connection ([MQTT-3.3.5-2]).
                if *refused_publish == RefusedPublish::Disconnect && !version.tells_refused_publish() {
                    return Err(Cause::PublishRefused);
                }
                ReasonCode::NotAuthorized
            }
            Reception::New => {
                let mut scratch = std::mem::take(&mut turn.scratch);
                let mut outgoing =
                    Outgoing::from_publish(publish, topic, *version, client.key, turn.now, &mut scratch);
                let retention = if publish.retain {
                    self.retain(&mut outgoing, Some((&client.id, client.user.as_ref())))
                } else {
                    Retention::None
                };
                let (routes, verdict) = self.routes_of(routes, client, topic);
                if verdict.left_out > 0 {
                    self.metrics.dropped.add("acl_read", verdict.left_out.into());
                }
                let reason =
                    if routes.is_empty() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
                self.deliver_all(turn, routes, &mut outgoing);
                let received = received
                    .filter(|_| !planted(Fault::Qos2IdNotStored))
                    .map(|id| Record::Received { session: client.key, id });
                let waited = publish.qos != QoS::AtMostOnce;
                turn.log.publish(self, &mut outgoing, retention, received.as_slice(), waited);
                turn.scratch = scratch;
                reason
            }
        };
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => encode::acknowledge(acks, *version, AckKind::PubAck, id, reason),
            (QoS::ExactlyOnce, Some(id)) => {
                if reason.is_error() {
                    client.lock().session.refuse_publish(id);
                }
                encode::acknowledge(acks, *version, AckKind::PubRec, id, reason);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the rules let this connection publish to the topic.
    fn may_use(&self, routes: &mut RouteCache<Arc<Client>, Verdict>, client: &Client, topic: &str) -> bool {
        !self.access.is_active() || self.routes_of(routes, client, topic).1.may_publish
    }

    /// Who receives what this connection publishes to the topic, and what the rules say of that.
    fn routes_of<'a>(
        &self,
        routes: &'a mut RouteCache<Arc<Client>, Verdict>,
        client: &Client,
        topic: &str,
    ) -> (&'a [Route<Arc<Client>>], Verdict) {
        // Without rules the verdict is about everybody.
        let about = |is_ruled: bool| if is_ruled { client.key } else { 0 };
        let publisher = about(self.access.is_active());
        let asked = Asked { router: &self.router, threads: &self.thread_routes, publisher, topic };
        routes.get(&asked, |routes| {
            let verdict = self.judge(Some(client), topic, routes);
            Judged { publisher: about(verdict.is_ruled), verdict }
        })
    }

    /// A message of the broker itself or of a program it is embedded in.
    pub(crate) fn publish_message(&self, turn: &mut Turn, message: &Arc<Message>, retain: bool) {
        self.publish_message_of(turn, (0, None), message, retain, &[]);
    }

    /// The same on behalf of a session, by its key and its owner; `also` goes on record together with it.
    fn publish_message_of(
        &self,
        turn: &mut Turn,
        (publisher, owner): (u64, Option<&Owner>),
        message: &Arc<Message>,
        retain: bool,
        also: &[Record<'_>],
    ) {
        let mut scratch = std::mem::take(&mut turn.scratch);
        let mut outgoing = Outgoing::from_message(message, turn.now, &mut scratch)
            .with_retain(retain)
            .with_publisher(publisher);
        let source = owner.map(|owner| (&owner.client_id, owner.user.as_ref()));
        let retention = if retain { self.retain(&mut outgoing, source) } else { Retention::None };
        let mut routes: Vec<Route<Arc<Client>>> = Vec::new();
        self.router.route(message.topic(), &mut routes);
        let left_out = self.judge(None, message.topic(), &mut routes).left_out;
        if left_out > 0 {
            self.metrics.dropped.add("acl_read", left_out.into());
        }
        self.deliver_all(turn, &routes, &mut outgoing);
        turn.log.publish(self, &mut outgoing, retention, also, false);
        turn.scratch = scratch;
    }

    /// Whether the payload is to be refused for not being what its format indicator says (section 3.3.2.3.2).
    pub(super) fn refuses_payload(&self, properties: &PublishProperties<'_>, payload: &[u8]) -> bool {
        self.limits.checks_payload_format()
            && properties.payload_format_indicator == Some(1)
            && std::str::from_utf8(payload).is_err()
    }

    /// The will of a connection of `client` that ended without DISCONNECT.
    pub(crate) fn publish_will(&self, turn: &mut Turn, client: &Client, will: &Will) {
        self.publish_will_of(turn, client.key, will);
    }

    /// The same by the session's key. The will goes off the record in the same frame, so that it is published once whatever happens.
    pub(super) fn publish_will_of(&self, turn: &mut Turn, publisher: u64, will: &Will) {
        if is_sys(&will.topic) {
            self.metrics.dropped.add("sys_topic", 1);
            self.drop_will(turn, Some(will));
            return;
        }
        if !self.may_publish(&will.owner, &will.topic) {
            self.metrics.dropped.add("acl_write", 1);
            self.drop_will(turn, Some(will));
            return;
        }
        self.metrics.wills_published.add(1);
        let ended = (will.key != 0).then_some(Record::WillEnd { will: will.key });
        let message = will.message(turn.now);
        self.publish_message_of(
            turn,
            (publisher, Some(&will.owner)),
            &message,
            will.retain,
            ended.as_slice(),
        );
        // Without delay: a device's end must not be forgotten, nor told twice.
        turn.log.wait();
    }

    /// A will that is not to be published goes off the record; waited for, so that it is not published after a crash.
    pub(super) fn drop_will(&self, turn: &mut Turn, will: Option<&Will>) {
        if let Some(will) = will.filter(|will| will.key != 0) {
            turn.log.record(&Record::WillEnd { will: will.key }, true);
        }
    }
}

/// Notes the topic an alias stands for from now on, if the packet names one (MQTT 5 section 3.3.2.3.4).
fn resolve_alias(
    accounts: &Arc<Accounts>,
    aliases: &mut Option<Box<Aliases>>,
    alias: u16,
    topic: &str,
    alias_max: u16,
) -> Result<(), Cause> {
    if alias > alias_max {
        return Err(Cause::TopicAliasInvalid);
    }
    if topic.is_empty() {
        return Ok(());
    }
    let Aliases { topics, charge } = &mut **aliases.get_or_insert_with(|| {
        Box::new(Aliases { topics: Vec::new(), charge: Charge::new(accounts, Account::Aliases, 0) })
    });
    let index = usize::from(alias) - 1;
    if topics.len() <= index {
        topics.resize(index + 1, None);
    }
    if let Some(place) = topics.get_mut(index)
        && place.as_deref() != Some(topic)
    {
        if let Some(before) = place.take() {
            charge.shrink(before.len() + ALIAS_COST);
        }
        if !charge.grow_lasting(topic.len() + ALIAS_COST) {
            return Err(Cause::MemoryMax);
        }
        *place = Some(Box::from(topic));
    }
    Ok(())
}
