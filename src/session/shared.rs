//! What a session gives up of shared subscriptions (MQTT 5 section 4.8.2), for another member.

use std::collections::HashSet;
use std::sync::Arc;

use super::Session;
use super::inflight::TakenDelivery;
use super::message::Message;
use super::queue::{Body, DeliveryExtra, QueuedMessage};
use crate::ledger::Stored;
use crate::protocol::{PacketId, QoS};

/// A message that a member of a shared subscription did not acknowledge, for another member.
#[derive(Debug)]
pub struct SharedMessage {
    /// The whole filter, `$share/{name}/{filter}`.
    pub filter: Arc<str>,
    /// The message, or its place in the log.
    pub message: Result<Arc<Message>, Stored>,
    /// What the delivery was called in the session that gives it up. 0 in one that is not durable.
    pub sequence: u64,
    /// How that session was to deliver it; `None`: it has given it up for good.
    pub origin: Option<Box<Origin>>,
}

/// How a message was to be delivered by a session that may take it back.
#[derive(Debug)]
pub struct Origin {
    /// Its position and its packet id, if it was sent.
    sent: Option<(u64, PacketId)>,
    qos: QoS,
    retain: bool,
    again: bool,
    cost: u32,
    extra: Box<DeliveryExtra>,
}

/// What a session gives up, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// What has not begun, for good: it has left the subscription.
    Waiting,
    /// Also what was sent at QoS 1 and not acknowledged, until its client is back.
    WhileAway,
    /// The same for good: it ends.
    ForGood,
}

impl SharedMessage {
    /// Its place in the log, if it has one.
    pub fn stored(&self) -> Option<&Stored> {
        match &self.message {
            Ok(message) => message.stored(),
            Err(stored) => Some(stored),
        }
    }

    /// Bytes of what is known about its delivery, with what the allocator adds; its place here and
    /// its message are not in it.
    pub fn origin_bytes(&self) -> usize {
        const OVERHEAD: usize = 16;
        self.origin.as_ref().map_or(0, |origin| OVERHEAD + size_of::<Origin>() + origin.extra.memory())
    }

    /// Whether it may have been sent.
    pub fn is_begun(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.sent.is_some() || origin.again)
    }
}

impl Session {
    /// The shared subscriptions of which it has messages that are not acknowledged.
    pub fn shared_held(&self) -> HashSet<Arc<str>> {
        let waiting = self.queue.iter().filter_map(|queued| queued.extra.as_ref());
        let mut held: HashSet<_> = waiting.filter_map(|extra| extra.shared.clone()).collect();
        let mut from = 0;
        while let Some((position, _, delivery)) = self.inflight.next_unfinished(from) {
            held.extend(delivery.extra.as_ref().and_then(|extra| extra.shared.clone()));
            from = position + 1;
        }
        held
    }

    /// Gives up what came by shared subscriptions for which `wanted` holds, for other members. What was
    /// sent only when the connection is gone: an acknowledgement must not come later.
    pub fn take_shared(
        &mut self,
        wanted: impl Fn(&Arc<str>) -> bool,
        given_up: GivenUp,
    ) -> Vec<SharedMessage> {
        let begun = match given_up {
            GivenUp::Waiting => Vec::new(),
            GivenUp::WhileAway | GivenUp::ForGood => self.inflight.take_shared_qos1(&wanted),
        };
        let comes_back = given_up == GivenUp::WhileAway;
        let is_durable = self.durable.is_some();
        let mut taken = Vec::with_capacity(begun.len());
        for TakenDelivery { position, id, retain, extra, message } in begun {
            let Some(filter) = extra.shared.clone() else { continue };
            let (sent, qos) = (Some((position, id)), QoS::AtLeastOnce);
            let origin =
                comes_back.then(|| Box::new(Origin { sent, qos, retain, again: true, cost: 0, extra }));
            let sequence = if is_durable { position } else { 0 };
            taken.push(SharedMessage { filter, message, sequence, origin });
        }
        // At QoS 2 what may have been sent before a restart is begun, and stays.
        let is_begun = |queued: &QueuedMessage| queued.again && queued.qos == QoS::ExactlyOnce;
        let is_wanted = |queued: &QueuedMessage| {
            let shared = queued.extra.as_ref().and_then(|extra| extra.shared.as_ref());
            !is_begun(queued) && shared.is_some_and(&wanted)
        };
        for queued in self.queue.take_if(is_wanted) {
            let message = match (&queued.body, &self.durable) {
                (Body::Loaded(message), _) => Ok(Arc::clone(message)),
                (Body::Stored(position, bytes), Some(durable)) => {
                    Err(Stored::new(&durable.ledger, *position, *bytes))
                }
                (Body::Stored(..), None) => continue,
            };
            self.queue.release(&queued.body);
            let QueuedMessage { sequence, cost, qos, retain, again, extra, .. } = queued;
            let Some(extra) = extra else { continue };
            let Some(filter) = extra.shared.clone() else { continue };
            let origin = comes_back.then(|| Box::new(Origin { sent: None, qos, retain, again, cost, extra }));
            taken.push(SharedMessage { filter, message, sequence, origin });
        }
        taken
    }

    /// Takes back, oldest first, what it has given up while it was away and nobody has got: what was
    /// sent keeps its id, what waited its place. Before its next connection begins.
    pub fn take_back(&mut self, messages: Vec<SharedMessage>) {
        let (mut begun, mut waiting) = (Vec::new(), Vec::new());
        for SharedMessage { message, sequence, origin, .. } in messages {
            let Some(origin) = origin else { continue };
            let Origin { sent, qos, retain, again, cost, extra } = *origin;
            if let Some((position, id)) = sent {
                begun.push(TakenDelivery { position, id, retain, extra, message });
                continue;
            }
            let (body, place) = match message {
                Ok(message) => (Body::Loaded(message), None),
                // Its place is given up when the queue has it.
                Err(place) => (Body::Stored(place.position(), place.bytes()), Some(place)),
            };
            let extra = Some(extra);
            waiting.push((QueuedMessage { sequence, body, cost, qos, retain, again, extra }, place));
        }
        let (waiting, places): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        self.inflight.put_back(begun);
        if !waiting.is_empty() {
            self.queue.put_back(waiting);
        }
        drop(places);
    }
}
