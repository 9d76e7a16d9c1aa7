//! The queue of an in-process subscriber: messages as values, bounded like a client's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::protocol::QoS;
use crate::session::{Delivered, DropReason, Granted, Message, Outgoing, SessionLimits};

/// A message as an in-process subscriber receives it.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
}

impl ReceivedMessage {
    /// The topic name.
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// The application payload.
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// The lower of the publisher's and the granted QoS.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Whether it was sent because of the new subscription ([MQTT-3.3.1-8]).
    pub fn retain(&self) -> bool {
        self.retain
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct LocalQueue {
    messages: VecDeque<ReceivedMessage>,
    bytes: usize,
    waker: Option<Waker>,
}

impl LocalQueue {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a message, or says at which bound it is dropped.
    pub(crate) fn push(
        &mut self,
        outgoing: &mut Outgoing<'_>,
        granted: &Granted<'_>,
        limits: &SessionLimits,
    ) -> Delivered {
        let cost = outgoing.cost();
        if cost > limits.queue_bytes_max {
            return Delivered::Dropped(DropReason::TooLarge);
        }
        if self.messages.len() >= limits.queue_messages_max {
            return Delivered::Dropped(DropReason::QueueFull);
        }
        if self.bytes + cost > limits.queue_bytes_max {
            return Delivered::Dropped(DropReason::QueueFullBytes);
        }
        let message = outgoing.keep();
        let qos = lower(message.qos(), granted.qos);
        self.bytes += cost;
        self.messages.push_back(ReceivedMessage { message, qos, retain: false });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Delivered::Sent
    }

    /// Adds retained messages of the new subscription before what came in since; the receiver asks for these in slices.
    pub(crate) fn push_retained(&mut self, messages: Vec<Arc<Message>>, granted: QoS) {
        for message in messages.into_iter().rev() {
            self.bytes += message.cost();
            let qos = lower(message.qos(), granted);
            self.messages.push_front(ReceivedMessage { message, qos, retain: true });
        }
    }

    /// Whether a slice of retained messages is not used up yet.
    pub(crate) fn starts_with_retained(&self) -> bool {
        self.messages.front().is_some_and(|message| message.retain)
    }

    pub(crate) fn pop(&mut self) -> Option<ReceivedMessage> {
        let received = self.messages.pop_front()?;
        self.bytes -= received.message.cost();
        Some(received)
    }

    pub(crate) fn wake_on_message(&mut self, waker: &Waker) {
        self.waker = Some(waker.clone());
    }
}

fn lower(a: QoS, b: QoS) -> QoS {
    if (a as u8) < (b as u8) { a } else { b }
}
