//! Deliveries to the client: sent at once, queued, or dropped at a bound; acknowledgements; sending again after a reconnect.

use std::sync::Arc;

use super::inflight::Awaiting;
use super::message::Message;
use super::out_buffer::Keep;
use super::outgoing::{Layout, Outgoing, SHARE_PAYLOAD_ABOVE};
use super::queue::{Body, DeliveryExtra, QueuedMessage};
use super::terms::TopicForm;
use super::{DropReason, Session, State};
use crate::protocol::encode::{self, AckKind, PublishHeader, PublishPropertiesOut};
use crate::protocol::{PacketId, ProtocolVersion, QoS, ReasonCode};

/// QoS 1 and 2 messages wait un-encoded, sharing their body with others, while more output than this is unwritten.
pub(super) const ENCODE_AHEAD_BYTES: usize = 256 * 1024;

/// The part of `limits.queue_bytes_max` that messages on their way may fill, and no less than what
/// is encoded ahead: beyond it the client's window is not filled further.
const KEPT_PART: usize = 4;

/// Under which subscription a message is delivered.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// The granted QoS.
    pub qos: QoS,
    /// The RETAIN flag as it is to be sent.
    pub retain: bool,
    /// Identifiers of the matching subscriptions.
    pub subscription_ids: &'a [u32],
    /// The whole filter of the shared subscription it comes by.
    pub shared: Option<&'a Arc<str>>,
}

impl Granted<'_> {
    /// A plain subscription.
    pub const fn with_qos(qos: QoS) -> Self {
        Self { qos, retain: false, subscription_ids: &[], shared: None }
    }

    fn extra(&self) -> Option<Box<DeliveryExtra>> {
        (!self.subscription_ids.is_empty() || self.shared.is_some()).then(|| {
            Box::new(DeliveryExtra {
                subscription_ids: Box::from(self.subscription_ids),
                shared: self.shared.cloned(),
            })
        })
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It stands in the output.
    Sent,
    /// It waits in the queue.
    Queued,
    /// It is dropped.
    Dropped(DropReason),
    /// The session is over; nobody is there to miss it.
    Ended,
}

/// How ready a session is to take a message: the order in which the members of a shared subscription are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Connected, with room: a message would be sent at once.
    Ready,
    /// Connected; a message would wait.
    Busy,
    /// Without connection.
    Away,
    /// Over.
    Ended,
}

/// What an acknowledgement from the client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// A step of a delivery.
    Accepted,
    /// No delivery waits for it: a repetition after a reconnect, or an error of the client. Harmless.
    Unknown,
}

impl Session {
    /// A message for this client.
    pub fn deliver(&mut self, outgoing: &mut Outgoing<'_>, granted: &Granted<'_>) -> Delivered {
        let qos = lower(outgoing.qos(), granted.qos);
        match self.state {
            State::Ended => Delivered::Ended,
            State::Connected if qos == QoS::AtMostOnce => self.deliver_qos0(outgoing, granted),
            State::Connected if self.is_ready() && !self.must_be_committed(qos) => {
                self.begin(outgoing, qos, granted)
            }
            State::Offline if qos == QoS::AtMostOnce => Delivered::Dropped(DropReason::OfflineQos0),
            State::Connected | State::Offline => self.enqueue(outgoing, qos, granted),
        }
    }

    /// A retained message of a new subscription, outside the queue's bounds: the caller sends it only while
    /// [`has_room_for_replay`](Self::has_room_for_replay).
    pub fn deliver_retained(&mut self, outgoing: &mut Outgoing<'_>, granted: &Granted<'_>) -> Delivered {
        let qos = lower(outgoing.qos(), granted.qos);
        if self.state != State::Connected {
            Delivered::Ended
        } else if qos == QoS::AtMostOnce {
            self.append_publish(outgoing, qos, granted, None)
        } else if self.inflight.is_exhausted() {
            Delivered::Ended
        } else if self.durable.is_some() && (!self.queue.is_empty() || self.must_be_committed(qos)) {
            // Behind what waits already: positions come in order.
            self.push(outgoing, qos, granted)
        } else {
            self.begin(outgoing, qos, granted)
        }
    }

    /// Whether a retained message may be sent now: what was sent before is nearly written, and the window is open.
    pub fn has_room_for_replay(&self) -> bool {
        self.state == State::Connected
            && self.resend_next >= self.resend_end
            && self.may_begin()
            && self.replay_room() > 0
    }

    /// How many retained messages may be sent before [`has_room_for_replay`](Self::has_room_for_replay) is asked again.
    pub fn replay_room(&self) -> usize {
        let queued = if self.durable.is_some() { self.queue.len() } else { 0 };
        self.window().saturating_sub(self.inflight.unfinished() + queued)
    }

    /// How ready it is to take one more message.
    pub fn readiness(&self) -> Readiness {
        match self.state {
            State::Ended => Readiness::Ended,
            State::Offline => Readiness::Away,
            State::Connected if self.is_ready() => Readiness::Ready,
            State::Connected => Readiness::Busy,
        }
    }

    /// PUBACK, PUBREC or PUBCOMP from the client. Opens the window for what waits. (PUBREL: see `release`.)
    ///
    /// An error in PUBACK or PUBREC ends the delivery: it is not sent again ([MQTT-4.4.0-2], [MQTT-4.3.3-9]).
    pub fn handle_ack(&mut self, kind: AckKind, id: PacketId, reason: ReasonCode) -> AckOutcome {
        let accepted = match kind {
            AckKind::PubAck => self.end_delivery(id, Awaiting::PubAck),
            AckKind::PubComp => self.end_delivery(id, Awaiting::PubComp),
            AckKind::PubRec if reason.is_error() => self.end_delivery(id, Awaiting::PubRec),
            AckKind::PubRec => self.handle_pubrec(id),
            AckKind::PubRel => false,
        };
        if accepted {
            self.pump();
            AckOutcome::Accepted
        } else {
            AckOutcome::Unknown
        }
    }

    pub(super) fn end_delivery(&mut self, id: PacketId, awaited: Awaiting) -> bool {
        let ended = self.inflight.advance(id, awaited, Awaiting::Nothing);
        if let Some(sequence) = ended {
            self.finish(sequence);
        }
        ended.is_some()
    }

    fn handle_pubrec(&mut self, id: PacketId) -> bool {
        let advanced = self.inflight.advance(id, Awaiting::PubRec, Awaiting::PubComp);
        // PUBREL answers a repeated or unknown PUBREC as well, else the client would repeat it for ever.
        if self.state == State::Connected
            && !self.inflight.awaits(id, Awaiting::PubAck)
            && !self.complete_durably(id, advanced)
        {
            let known = advanced.is_some() || self.inflight.awaits(id, Awaiting::PubComp);
            let version = self.terms.version;
            self.out.append_with(Keep::Always, |out| encode_pubrel(out, version, id, known));
        }
        advanced.is_some()
    }

    /// `n` bytes of output are written: more may be sent.
    pub fn output_written(&mut self, n: usize) {
        self.out.written(n);
        self.pump();
    }

    /// Bytes the client makes the broker hold: unwritten output and waiting messages.
    pub fn held_bytes(&self) -> usize {
        self.out.pending() + self.queue.bytes()
    }

    pub(super) fn window(&self) -> usize {
        usize::from(self.limits.inflight_max.min(self.terms.receive_maximum))
    }

    /// Messages on their way that may have to be sent again hold no more memory than this, but for
    /// the last of them.
    pub(super) fn kept_bytes_max(&self) -> usize {
        (self.limits.queue_bytes_max / KEPT_PART).max(ENCODE_AHEAD_BYTES)
    }

    pub(super) fn may_begin(&self) -> bool {
        let unfinished = self.inflight.unfinished();
        unfinished < self.window()
            && !self.inflight.is_exhausted()
            && self.out.pending() < ENCODE_AHEAD_BYTES
            && (unfinished == 0 || self.inflight.kept_bytes() < self.kept_bytes_max())
    }

    /// Whether a message of this QoS is sent only after the log has it: else, after a crash, its packet id could stand for another one.
    fn must_be_committed(&self, qos: QoS) -> bool {
        qos == QoS::ExactlyOnce && self.durable.is_some()
    }

    fn is_ready(&self) -> bool {
        self.may_begin() && self.queue.is_empty() && self.resend_next >= self.resend_end
    }

    fn deliver_qos0(&mut self, outgoing: &mut Outgoing<'_>, granted: &Granted<'_>) -> Delivered {
        let cost = outgoing.cost();
        if cost > self.limits.queue_bytes_max {
            return Delivered::Dropped(DropReason::TooLarge);
        }
        if self.out.pending() + self.queue.bytes() + cost > self.limits.queue_bytes_max {
            return Delivered::Dropped(DropReason::QueueFullQos0);
        }
        self.append_publish(outgoing, QoS::AtMostOnce, granted, None)
    }

    fn enqueue(&mut self, outgoing: &mut Outgoing<'_>, qos: QoS, granted: &Granted<'_>) -> Delivered {
        let limits = &self.limits;
        match self.queue.admits(
            outgoing.cost(),
            self.out.pending(),
            limits.queue_messages_max,
            limits.queue_bytes_max,
        ) {
            Ok(()) => self.push(outgoing, qos, granted),
            Err(reason) => Delivered::Dropped(reason),
        }
    }

    fn push(&mut self, outgoing: &mut Outgoing<'_>, qos: QoS, granted: &Granted<'_>) -> Delivered {
        let sequence = self.assign();
        self.queue.push(QueuedMessage {
            sequence,
            body: Body::Loaded(outgoing.keep()),
            cost: u32::try_from(outgoing.cost()).unwrap_or(u32::MAX),
            qos,
            retain: granted.retain,
            again: false,
            extra: granted.extra(),
        });
        self.queue.unload(self.state == State::Offline);
        Delivered::Queued
    }

    fn begin(&mut self, outgoing: &mut Outgoing<'_>, qos: QoS, granted: &Granted<'_>) -> Delivered {
        let properties = outgoing.properties_out();
        if !self.fits(
            outgoing.topic().len(),
            true,
            &properties,
            granted.subscription_ids,
            outgoing.payload().len(),
        ) {
            return Delivered::Dropped(DropReason::ClientPacketMax);
        }
        let keeps = self.outlives_connection || granted.shared.is_some();
        let kept = keeps.then(|| outgoing.keep());
        let extra = if keeps { granted.extra() } else { None };
        let id = self.enter(None, qos, granted.retain, kept, extra);
        self.append_publish(outgoing, qos, granted, Some(id))
    }

    /// Whether a PUBLISH is within the client's Maximum Packet Size. If it is not, it is dropped and treated as delivered
    /// ([MQTT-3.1.2-24], [MQTT-3.1.2-25]).
    pub(super) fn fits(
        &self,
        topic_len: usize,
        has_id: bool,
        properties: &PublishPropertiesOut<'_>,
        ids: &[u32],
        payload_len: usize,
    ) -> bool {
        if self.terms.packet_bytes_max == usize::MAX {
            return true;
        }
        let properties = PublishPropertiesOut { subscription_ids: ids, ..*properties };
        let len = encode::publish_len(self.terms.version, topic_len, has_id, &properties, payload_len);
        len <= self.terms.packet_bytes_max
    }

    /// How the topic is to be sent; a number for it is introduced if the client allows more, and its bytes besides the name.
    fn topic_form(
        &mut self,
        topic: &str,
        has_id: bool,
        properties: &PublishPropertiesOut<'_>,
        payload_len: usize,
    ) -> TopicForm {
        if self.aliases.is_none() {
            return TopicForm::Name;
        }
        let introduced = PublishPropertiesOut { topic_alias: Some(u16::MAX), ..*properties };
        let ids = properties.subscription_ids;
        let may_introduce = self.fits(topic.len(), has_id, &introduced, ids, payload_len);
        // A number takes more bytes than a name of one or two.
        let may_use = self.fits(0, has_id, &introduced, ids, payload_len);
        match self.aliases.as_mut().map(|aliases| aliases.form(topic, may_introduce)) {
            Some(TopicForm::Alias(_)) if !may_use => TopicForm::Name,
            form => form.unwrap_or(TopicForm::Name),
        }
    }

    pub(super) fn append_owned(
        &mut self,
        message: &Arc<Message>,
        dup: bool,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        subscription_ids: &[u32],
    ) {
        let properties = PublishPropertiesOut { subscription_ids, ..message.properties_out(self.now) };
        let form =
            self.topic_form(message.topic(), packet_id.is_some(), &properties, message.payload().len());
        let (topic, topic_alias) = named(form, message.topic());
        let properties = PublishPropertiesOut { topic_alias, ..properties };
        let header = PublishHeader { dup, qos, retain, topic, packet_id };
        let payload = message.payload();
        let version = self.terms.version;
        // What introduces a number for its topic must arrive: later packets have the number alone.
        let keep = if qos == QoS::AtMostOnce && !matches!(form, TopicForm::Introduced(_)) {
            Keep::UnlessShort
        } else {
            Keep::Always
        };
        let head = |out: &mut Vec<u8>| {
            encode::publish_header(out, version, &header, &properties, payload.len());
        };
        if payload.len() > SHARE_PAYLOAD_ABOVE {
            self.out.append_large(keep, Arc::clone(message), head);
        } else {
            self.out.append_with(keep, |out| {
                head(out);
                out.extend_from_slice(payload);
            });
        }
    }

    fn append_publish(
        &mut self,
        outgoing: &mut Outgoing<'_>,
        qos: QoS,
        granted: &Granted<'_>,
        id: Option<PacketId>,
    ) -> Delivered {
        let retain = granted.retain;
        if outgoing.payload().len() > SHARE_PAYLOAD_ABOVE
            || !granted.subscription_ids.is_empty()
            || self.aliases.is_some()
        {
            let properties = outgoing.properties_out();
            let (topic_len, payload_len) = (outgoing.topic().len(), outgoing.payload().len());
            if id.is_none()
                && !self.fits(topic_len, false, &properties, granted.subscription_ids, payload_len)
            {
                return Delivered::Dropped(DropReason::ClientPacketMax);
            }
            let message = outgoing.message();
            self.append_owned(&message, false, qos, retain, id, granted.subscription_ids);
            return Delivered::Sent;
        }
        let image = outgoing.image(Layout { version: self.terms.version, has_id: id.is_some() });
        if image.bytes.len() > self.terms.packet_bytes_max {
            return Delivered::Dropped(DropReason::ClientPacketMax);
        }
        let patch = id.map(|id| (image.packet_id_offset, id.get()));
        self.out.append_patched(image.bytes, first_byte(qos, retain), patch);
        Delivered::Sent
    }
}

/// The topic name and alias of a form.
fn named(form: TopicForm, topic: &str) -> (&str, Option<u16>) {
    match form {
        TopicForm::Name => (topic, None),
        TopicForm::Introduced(alias) => (topic, Some(alias)),
        TopicForm::Alias(alias) => ("", Some(alias)),
    }
}

/// PUBREL; `known`: whether a delivery is under way that it belongs to.
pub(super) fn encode_pubrel(out: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, known: bool) {
    let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
    encode::acknowledge(out, version, AckKind::PubRel, id, reason);
}

/// The first byte of a PUBLISH sent for the first time.
fn first_byte(qos: QoS, retain: bool) -> u8 {
    0x30 | ((qos as u8) << 1) | u8::from(retain)
}

fn lower(a: QoS, b: QoS) -> QoS {
    if (a as u8) < (b as u8) { a } else { b }
}
