//! What a session gives up of shared subscriptions (MQTT 5 section 4.8.2), for another member.

use std::collections::HashSet;
use std::sync::Arc;

use super::Session;
use super::message::Message;
use super::queue::{Body, QueuedMessage};
use crate::ledger::Stored;
use crate::protocol::QoS;

/// A message that a member of a shared subscription did not acknowledge, for another member.
#[derive(Debug)]
pub struct SharedMessage {
    /// The whole filter, `$share/{name}/{filter}`.
    pub filter: Arc<str>,
    /// The message, or its place in the log.
    pub message: Result<Arc<Message>, Stored>,
    /// What the delivery was called in the session that gives it up.
    pub sequence: u64,
}

impl SharedMessage {
    /// Its place in the log, if it has one.
    pub fn stored(&self) -> Option<&Stored> {
        match &self.message {
            Ok(message) => message.stored(),
            Err(stored) => Some(stored),
        }
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

    /// Gives up what came by shared subscriptions for which `wanted` holds and has not begun, for other members; with `unacknowledged` also
    /// what was sent at QoS 1 and not acknowledged (only when the connection is gone: an acknowledgement must not come later).
    pub fn take_shared(
        &mut self,
        wanted: impl Fn(&Arc<str>) -> bool,
        unacknowledged: bool,
    ) -> Vec<SharedMessage> {
        let shared_of = |queued: &QueuedMessage| queued.extra.as_ref().and_then(|extra| extra.shared.clone());
        let begun = if unacknowledged { self.inflight.take_shared_qos1(&wanted) } else { Vec::new() };
        let mut taken: Vec<SharedMessage> = begun
            .into_iter()
            .map(|(sequence, filter, message)| SharedMessage { filter, message, sequence })
            .collect();
        // At QoS 2 what may have been sent before a restart is begun, and stays.
        let is_begun = |queued: &QueuedMessage| queued.again && queued.qos == QoS::ExactlyOnce;
        let is_wanted = |queued: &QueuedMessage| {
            let shared = queued.extra.as_ref().and_then(|extra| extra.shared.as_ref());
            !is_begun(queued) && shared.is_some_and(&wanted)
        };
        for queued in self.queue.take_if(is_wanted) {
            let Some(filter) = shared_of(&queued) else { continue };
            let message = match (&queued.body, &self.durable) {
                (Body::Loaded(message), _) => Ok(Arc::clone(message)),
                (Body::Stored(position, bytes), Some(durable)) => {
                    Err(Stored::new(&durable.ledger, *position, *bytes))
                }
                (Body::Stored(..), None) => continue,
            };
            self.queue.release(&queued.body);
            taken.push(SharedMessage { filter, message, sequence: queued.sequence });
        }
        taken
    }
}
