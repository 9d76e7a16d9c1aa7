//! Deliveries to the client: sent at once, queued, or dropped at a bound; acknowledgements; sending again after a reconnect.

use std::sync::Arc;

use super::inflight::Awaiting;
use super::message::{Message, Outgoing, SHARE_PAYLOAD_ABOVE};
use super::queue::QueuedMessage;
use super::{DropReason, Session, State};
use crate::protocol::encode::{self, AckKind, PublishHeader};
use crate::protocol::{PacketId, QoS};

/// QoS 1 and 2 messages wait un-encoded, sharing their body with others, while more output than this is unwritten.
const ENCODE_AHEAD_BYTES: usize = 256 * 1024;

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

/// What an acknowledgement from the client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// A step of a delivery.
    Accepted,
    /// No delivery waits for it: a repetition after a reconnect, or an error of the client. Harmless.
    Unknown,
}

impl Session {
    /// A message for this client under a subscription of QoS `granted`. `retain` is the flag as it is to be sent.
    pub fn deliver(&mut self, outgoing: &mut Outgoing<'_>, granted: QoS, retain: bool) -> Delivered {
        let qos = lower(outgoing.qos(), granted);
        match self.state {
            State::Ended => Delivered::Ended,
            State::Connected if qos == QoS::AtMostOnce => self.deliver_qos0(outgoing, retain),
            State::Connected
                if self.may_begin() && self.queue.is_empty() && self.resend_next >= self.resend_end =>
            {
                self.begin(outgoing, qos, retain);
                Delivered::Sent
            }
            State::Offline if qos == QoS::AtMostOnce => Delivered::Dropped(DropReason::OfflineQos0),
            State::Connected | State::Offline => self.enqueue(outgoing, qos, retain),
        }
    }

    /// A retained message of a new subscription, outside the queue's bounds: the caller sends it only while
    /// [`has_room_for_replay`](Self::has_room_for_replay).
    pub fn deliver_retained(&mut self, outgoing: &mut Outgoing<'_>, granted: QoS) {
        let qos = lower(outgoing.qos(), granted);
        if self.state != State::Connected {
            return;
        }
        if qos == QoS::AtMostOnce {
            self.append_publish(outgoing, qos, true, None);
        } else if !self.inflight.is_exhausted() {
            self.begin(outgoing, qos, true);
        }
    }

    /// Whether a retained message may be sent now: what was sent before is nearly written, and the window is open.
    pub fn has_room_for_replay(&self) -> bool {
        self.state == State::Connected && self.resend_next >= self.resend_end && self.may_begin()
    }

    /// How many retained messages may be sent before [`has_room_for_replay`](Self::has_room_for_replay) is asked again.
    pub fn replay_room(&self) -> usize {
        usize::from(self.limits.inflight_max).saturating_sub(self.inflight.unfinished())
    }

    /// PUBACK, PUBREC or PUBCOMP from the client. Opens the window for what waits. (PUBREL: see `release`.)
    pub fn handle_ack(&mut self, kind: AckKind, id: PacketId) -> AckOutcome {
        let accepted = match kind {
            AckKind::PubAck => self.inflight.advance(id, Awaiting::PubAck, Awaiting::Nothing),
            AckKind::PubComp => self.inflight.advance(id, Awaiting::PubComp, Awaiting::Nothing),
            AckKind::PubRec => {
                let accepted = self.inflight.advance(id, Awaiting::PubRec, Awaiting::PubComp);
                // PUBREL answers a repeated or unknown PUBREC as well, else the client would repeat it for ever.
                if self.state == State::Connected && !self.inflight.awaits(id, Awaiting::PubAck) {
                    self.out.append(&encode::ack(AckKind::PubRel, id));
                }
                accepted
            }
            AckKind::PubRel => false,
        };
        if accepted {
            self.pump();
            AckOutcome::Accepted
        } else {
            AckOutcome::Unknown
        }
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

    /// Sends again what is unfinished from before, then what waits, as far as window and output allow.
    pub(super) fn pump(&mut self) {
        if self.state != State::Connected {
            return;
        }
        while self.resend_next < self.resend_end && self.out.pending() < ENCODE_AHEAD_BYTES {
            self.resend_next = self.resend(self.resend_next);
        }
        if self.resend_next < self.resend_end {
            return;
        }
        while self.may_begin()
            && let Some(queued) = self.queue.pop()
        {
            self.begin_owned(queued);
        }
    }

    fn may_begin(&self) -> bool {
        self.inflight.unfinished() < usize::from(self.limits.inflight_max)
            && !self.inflight.is_exhausted()
            && self.out.pending() < ENCODE_AHEAD_BYTES
    }

    fn deliver_qos0(&mut self, outgoing: &mut Outgoing<'_>, retain: bool) -> Delivered {
        let cost = outgoing.cost();
        if cost > self.limits.queue_bytes_max {
            return Delivered::Dropped(DropReason::TooLarge);
        }
        if self.out.pending() + self.queue.bytes() + cost > self.limits.queue_bytes_max {
            return Delivered::Dropped(DropReason::QueueFullQos0);
        }
        self.append_publish(outgoing, QoS::AtMostOnce, retain, None);
        Delivered::Sent
    }

    fn enqueue(&mut self, outgoing: &mut Outgoing<'_>, qos: QoS, retain: bool) -> Delivered {
        let limits = &self.limits;
        match self.queue.admits(
            outgoing.cost(),
            self.out.pending(),
            limits.queue_messages_max,
            limits.queue_bytes_max,
        ) {
            Ok(()) => {
                self.queue.push(QueuedMessage { message: outgoing.message(), qos, retain });
                Delivered::Queued
            }
            Err(reason) => Delivered::Dropped(reason),
        }
    }

    fn begin(&mut self, outgoing: &mut Outgoing<'_>, qos: QoS, retain: bool) {
        let kept = self.outlives_connection.then(|| outgoing.message());
        let id = self.inflight.begin(qos, retain, kept);
        self.append_publish(outgoing, qos, retain, Some(id));
    }

    fn begin_owned(&mut self, queued: QueuedMessage) {
        let QueuedMessage { message, qos, retain } = queued;
        let kept = self.outlives_connection.then(|| Arc::clone(&message));
        let id = self.inflight.begin(qos, retain, kept);
        self.append_owned(
            &message,
            PublishHeader { dup: false, qos, retain, topic: message.topic(), packet_id: Some(id) },
        );
    }

    /// Sends the oldest unfinished delivery from a position on again, with its old id ([MQTT-4.4.0-1]); returns where the next one is. What
    /// was acknowledged meanwhile is passed over.
    fn resend(&mut self, from: u64) -> u64 {
        let Some((position, id, delivery)) = self.inflight.next_unfinished(from) else {
            return self.resend_end;
        };
        if position >= self.resend_end {
            return self.resend_end;
        }
        let qos = match delivery.awaiting {
            Awaiting::PubAck => Some(QoS::AtLeastOnce),
            Awaiting::PubRec => Some(QoS::ExactlyOnce),
            Awaiting::PubComp | Awaiting::Nothing => None,
        };
        match (qos, delivery.message.clone()) {
            (Some(qos), Some(message)) => {
                // DUP says that this may have been sent before ([MQTT-3.3.1-1]).
                let retain = delivery.retain;
                let header =
                    PublishHeader { dup: true, qos, retain, topic: message.topic(), packet_id: Some(id) };
                self.append_owned(&message, header);
            }
            // Not kept: a session that ends with its connection never sends again.
            (Some(_), None) => {}
            (None, _) => self.out.append(&encode::ack(AckKind::PubRel, id)),
        }
        let next = self.inflight.next_unfinished(position + 1).map(|(position, ..)| position);
        next.filter(|next| *next < self.resend_end).unwrap_or(self.resend_end)
    }

    fn append_owned(&mut self, message: &Arc<Message>, header: PublishHeader<'_>) {
        let payload = message.payload();
        if payload.len() > SHARE_PAYLOAD_ABOVE {
            self.out.append_with(|out| {
                encode::publish_header(out, &header, payload.len());
            });
            self.out.append_payload(Arc::clone(message));
        } else {
            self.out.append_with(|out| encode::publish(out, &header, payload));
        }
    }

    fn append_publish(&mut self, outgoing: &mut Outgoing<'_>, qos: QoS, retain: bool, id: Option<PacketId>) {
        if outgoing.payload().len() > SHARE_PAYLOAD_ABOVE {
            let message = outgoing.message();
            let header = PublishHeader { dup: false, qos, retain, topic: message.topic(), packet_id: id };
            self.append_owned(&message, header);
            return;
        }
        let image = outgoing.image(id.is_some());
        let patch = id.map(|id| (image.packet_id_offset, id.get()));
        self.out.append_patched(image.bytes, first_byte(qos, retain), patch);
    }
}

/// The first byte of a PUBLISH sent for the first time.
fn first_byte(qos: QoS, retain: bool) -> u8 {
    0x30 | ((qos as u8) << 1) | u8::from(retain)
}

fn lower(a: QoS, b: QoS) -> QoS {
    if (a as u8) < (b as u8) { a } else { b }
}
