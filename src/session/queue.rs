//! `MessageQueue`: QoS 1 and 2 messages that wait for their client, oldest first, bounded in messages and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::DropReason;
use super::message::Message;
use crate::protocol::QoS;

/// A message that waits, with how it is to be delivered.
#[derive(Debug)]
pub(super) struct QueuedMessage {
    pub(super) message: Arc<Message>,
    /// The lower of the publisher's and the granted QoS.
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) extra: Option<Box<DeliveryExtra>>,
}

/// What few deliveries have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeliveryExtra {
    /// Identifiers of the matching subscriptions ([MQTT-3.3.4-3]).
    pub(super) subscription_ids: Box<[u32]>,
    /// The whole filter of the shared subscription it came by.
    pub(super) shared: Option<Arc<str>>,
}

/// See the module's documentation. The bounds are given with each call: they belong to the broker's configuration.
#[derive(Debug, Default)]
pub(super) struct MessageQueue {
    messages: VecDeque<QueuedMessage>,
    bytes: usize,
}

impl MessageQueue {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes charged for the waiting messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a message of this cost may come in beside `other_bytes` the client holds elsewhere.
    pub(super) fn admits(
        &self,
        cost: usize,
        other_bytes: usize,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(), DropReason> {
        if cost > bytes_max {
            Err(DropReason::TooLarge)
        } else if self.messages.len() >= messages_max {
            Err(DropReason::QueueFull)
        } else if self.bytes.saturating_add(other_bytes).saturating_add(cost) > bytes_max {
            Err(DropReason::QueueFullBytes)
        } else {
            Ok(())
        }
    }

    pub(super) fn push(&mut self, message: QueuedMessage) {
        self.bytes += message.message.cost();
        self.messages.push_back(message);
    }

    /// Takes out the messages for which `wanted` holds, in their order.
    pub(super) fn take_if(&mut self, wanted: impl Fn(&QueuedMessage) -> bool) -> Vec<QueuedMessage> {
        let (taken, kept): (Vec<_>, VecDeque<_>) = {
            let mut taken = Vec::new();
            let mut kept = VecDeque::new();
            for message in self.messages.drain(..) {
                if wanted(&message) {
                    taken.push(message);
                } else {
                    kept.push_back(message);
                }
            }
            (taken, kept)
        };
        self.messages = kept;
        self.bytes -= taken.iter().map(|message| message.message.cost()).sum::<usize>();
        taken
    }

    pub(super) fn pop(&mut self) -> Option<QueuedMessage> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.message.cost();
        if self.messages.is_empty() && self.messages.capacity() > 64 {
            self.messages = VecDeque::new();
        }
        Some(message)
    }
}
