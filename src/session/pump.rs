//! What is sent when there is room: deliveries of an earlier connection again, then what waits in the queue.

use std::sync::Arc;

use super::inflight::Awaiting;
use super::message::{Expiry, Message};
use super::out_buffer::Keep;
use super::outbound::ENCODE_AHEAD_BYTES;
use super::queue::{DeliveryExtra, QueuedMessage};
use super::{Session, State};
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{PacketId, QoS, ReasonCode};

impl Session {
    /// Whether a packet that waits could be sent now.
    pub fn can_send(&self) -> bool {
        if self.state != State::Connected {
            false
        } else if self.resend_next < self.resend_end {
            self.may_resend()
        } else {
            self.queue
                .front()
                .is_some_and(|(queued, message)| self.may_begin() && !self.must_wait(queued.qos, message))
        }
    }

    /// Sends what can be sent: the log has moved on, or what stood before it is gone.
    pub fn send_more(&mut self) {
        self.pump();
    }

    /// The client's Receive Maximum holds for what is sent again as well ([MQTT-4.9.0-2]), and may
    /// be lower than the last time.
    fn may_resend(&self) -> bool {
        self.out.pending() < ENCODE_AHEAD_BYTES
            && self.inflight.under_way() < usize::from(self.terms.receive_maximum)
            && !self.pubrel_must_wait()
            && !self.resend_is_stored()
    }

    /// Sends again what is unfinished from before, then what waits, as far as window and output allow.
    pub(super) fn pump(&mut self) {
        if self.state != State::Connected {
            return;
        }
        while self.resend_next < self.resend_end && self.may_resend() {
            self.resend_next = self.resend(self.resend_next);
        }
        if self.resend_next < self.resend_end {
            return;
        }
        while self.may_begin()
            && let Some((queued, message)) = self.queue.front()
            && !self.must_wait(queued.qos, message)
            && let Some((queued, message)) = self.queue.pop()
        {
            self.begin_queued(queued, message);
        }
    }

    /// Enters a delivery among those under way; `sequence` is the position it was given in the queue of a durable session.
    pub(super) fn enter(
        &mut self,
        sequence: Option<u64>,
        qos: QoS,
        retain: bool,
        message: Option<Arc<Message>>,
        extra: Option<Box<DeliveryExtra>>,
    ) -> PacketId {
        match sequence {
            _ if self.durable.is_none() => self.inflight.begin(qos, retain, message, extra),
            Some(sequence) => self.inflight.begin_at(sequence, qos, retain, message, extra),
            None => {
                let sequence = self.assign();
                self.inflight.begin_at(sequence, qos, retain, message, extra)
            }
        }
    }

    fn begin_queued(&mut self, queued: QueuedMessage, message: Arc<Message>) {
        let QueuedMessage { sequence, qos, retain, again, extra, .. } = queued;
        if message.expiry(self.now) == Expiry::Over {
            self.expired += 1;
            self.finish(sequence);
            return;
        }
        let ids = extra.as_ref().map_or(&[][..], |extra| &extra.subscription_ids);
        let properties = message.properties_out(self.now);
        if !self.fits(message.topic().len(), true, &properties, ids, message.payload().len()) {
            self.too_large += 1;
            self.finish(sequence);
            return;
        }
        let keeps = self.outlives_connection || extra.as_ref().is_some_and(|extra| extra.shared.is_some());
        let kept = keeps.then(|| Arc::clone(&message));
        let id = self.enter(Some(sequence), qos, retain, kept, if keeps { extra.clone() } else { None });
        let ids = extra.as_ref().map_or(&[][..], |extra| &extra.subscription_ids);
        self.append_owned(&message, again, qos, retain, Some(id), ids);
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
        let awaiting = delivery.awaiting;
        let qos = match awaiting {
            Awaiting::PubAck => Some(QoS::AtLeastOnce),
            Awaiting::PubRec => Some(QoS::ExactlyOnce),
            Awaiting::PubComp | Awaiting::Nothing => None,
        };
        match (qos, delivery.kept.loaded().cloned()) {
            (Some(qos), Some(message)) => {
                // DUP says that this may have been sent before ([MQTT-3.3.1-1]).
                let (retain, extra) = (delivery.retain, delivery.extra.clone());
                let ids = extra.as_ref().map_or(&[][..], |extra| &extra.subscription_ids);
                let properties = message.properties_out(self.now);
                if self.fits(message.topic().len(), true, &properties, ids, message.payload().len()) {
                    self.inflight.sent_again(id);
                    self.append_owned(&message, true, qos, retain, Some(id), ids);
                } else {
                    // This connection's client takes less than the last one's.
                    self.end_delivery(id, awaiting);
                    self.too_large += 1;
                }
            }
            // Given up for want of memory: it is lost to this client.
            (Some(_), None) => {
                self.end_delivery(id, awaiting);
            }
            (None, _) => {
                self.inflight.sent_again(id);
                let version = self.terms.version;
                self.out.append_with(Keep::Always, |out| {
                    encode::acknowledge(out, version, AckKind::PubRel, id, ReasonCode::Success)
                });
            }
        }
        let next = self.inflight.next_unfinished(position + 1).map(|(position, ..)| position);
        next.filter(|next| *next < self.resend_end).unwrap_or(self.resend_end)
    }
}
