//! `MessageQueue`: QoS 1 and 2 messages that wait for their client, oldest first, bounded in messages and in bytes.
//!
//! With a durable log only the ends of a long queue are in memory: the front that is sent next, and the back that is not written yet.
//! What is between is a place in the log, 40 bytes a message, and comes back by [`wanted`](MessageQueue::wanted) and
//! [`provide`](MessageQueue::provide) when the client gets there.

mod memory;

use std::collections::VecDeque;
use std::sync::Arc;

use super::DropReason;
use super::message::Message;
use crate::ledger::{Ledger, Position, Stored};
use crate::protocol::QoS;

/// A message that waits, with how it is to be delivered.
#[derive(Debug)]
pub(super) struct QueuedMessage {
    /// In a durable session: its position among the session's deliveries, for good.
    pub(super) sequence: u64,
    pub(super) body: Body,
    /// Bytes charged for it.
    pub(super) cost: u32,
    /// The lower of the publisher's and the granted QoS.
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// It may have been sent before a restart.
    pub(super) again: bool,
    pub(super) extra: Option<Box<DeliveryExtra>>,
}

/// Where the message is.
#[derive(Debug)]
pub(super) enum Body {
    Loaded(Arc<Message>),
    /// In the log only: where, and how many bytes its frame has.
    Stored(Position, u32),
}

impl Body {
    pub(super) fn is_loaded(&self) -> bool {
        matches!(self, Self::Loaded(_))
    }
}

impl QueuedMessage {
    /// What of its cost is charged once for all who hold it, and not to this one.
    fn shared(&self) -> isize {
        match &self.body {
            Body::Loaded(message) if message.is_shared() => self.cost as isize,
            Body::Loaded(_) | Body::Stored(..) => 0,
        }
    }

    /// What it counts in [`MessageQueue::aside`].
    fn aside(&self) -> isize {
        let extra = self.extra.as_ref().map_or(0, |extra| extra.memory());
        isize::try_from(extra).unwrap_or(isize::MAX) - self.shared()
    }
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
    /// By how much what is charged to this client alone differs from the bytes in memory: what few
    /// deliveries have besides, less what is charged once for all who hold it.
    aside: isize,
    /// In a durable session.
    log: Option<Box<Parts>>,
}

/// Which part of a queue is in memory: the front, and what stands behind the stored part.
#[derive(Debug)]
struct Parts {
    /// Messages at the front that are in memory; all of them while `stored` is 0.
    front: usize,
    /// Behind those: messages that are in the log only.
    stored: usize,
    /// Bytes charged for all messages that are in the log only.
    stored_bytes: usize,
    /// Where what is stored is accounted for.
    ledger: Arc<Ledger>,
}

impl Parts {
    /// Goes over messages in memory to the next that are not, after those at the front.
    fn find_stored(&mut self, messages: &VecDeque<QueuedMessage>) {
        self.front += messages.iter().skip(self.front).take_while(|message| message.body.is_loaded()).count();
        let behind = messages.iter().skip(self.front);
        self.stored = behind.take_while(|message| !message.body.is_loaded()).count();
    }
}

/// What a connected client's queue keeps in memory at its front before the rest is left to the log.
const FRONT_MESSAGES: usize = 4_096;
const FRONT_BYTES: usize = 4 * 1024 * 1024;
/// With fewer messages at the front, and more in the log, those had better be read back.
const REFILL_BELOW: usize = 256;

impl MessageQueue {
    /// A queue whose messages may be left to the log.
    pub(super) fn durable(ledger: Arc<Ledger>) -> Self {
        let mut queue = Self::default();
        queue.log = Some(Box::new(Parts { front: 0, stored: 0, stored_bytes: 0, ledger }));
        queue
    }

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
        self.bytes += message.cost as usize;
        self.aside += message.aside();
        if let Some(parts) = &mut self.log {
            // Counted again where the counts may have become wrong: at the back.
            let len = self.messages.len();
            match &message.body {
                Body::Loaded(_) if parts.stored == 0 => parts.front = len + 1,
                Body::Loaded(_) => {}
                Body::Stored(position, bytes) => {
                    parts.ledger.add(*position, *bytes);
                    parts.stored_bytes += message.cost as usize;
                    if parts.stored == 0 || parts.front + parts.stored == len {
                        parts.stored += 1;
                    }
                }
            }
        }
        if self.messages.len() == self.messages.capacity() {
            self.grow();
        }
        self.messages.push_back(message);
    }

    /// A row of messages of a restart, in their order.
    pub(super) fn extend(&mut self, messages: impl ExactSizeIterator<Item = QueuedMessage>) {
        self.messages.reserve_exact(messages.len());
        for message in messages {
            self.push(message);
        }
    }

    /// The messages that had better be read back now: sequence and place of each, at most `max` and
    /// no more than `bytes_max`, but for one that is larger, oldest first.
    pub(super) fn wanted(&self, max: usize, bytes_max: usize) -> Vec<(u64, Position)> {
        let (front, stored) = self.log.as_ref().map_or((0, 0), |parts| (parts.front, parts.stored));
        let first = self.messages.iter().skip(front).take(max.min(stored));
        let mut bytes = 0;
        first
            .take_while(|message| {
                let within = bytes == 0 || bytes + message.cost as usize <= bytes_max;
                bytes += message.cost as usize;
                within
            })
            .filter_map(|message| match message.body {
                Body::Stored(position, _) => Some((message.sequence, position)),
                Body::Loaded(_) => None,
            })
            .collect()
    }

    /// Whether the front has become so short that more should be read back, in messages and in bytes.
    pub(super) fn wants(&self) -> bool {
        self.log.as_ref().is_some_and(|parts| {
            let is_short = parts.front == 0
                || parts.front < REFILL_BELOW && self.bytes - parts.stored_bytes < FRONT_BYTES;
            parts.stored > 0 && is_short
        })
    }

    /// A message read back, or `None` if it cannot be read: then it is taken out. `false` if it was not asked for, or not in this order.
    pub(super) fn provide(&mut self, sequence: u64, read: Option<Message>) -> bool {
        let Some(parts) = &mut self.log else { return false };
        let Some(message) = self.messages.get_mut(parts.front) else { return false };
        let Body::Stored(position, bytes) = message.body else { return false };
        if message.sequence != sequence || parts.stored == 0 {
            return false;
        }
        parts.stored -= 1;
        parts.stored_bytes -= message.cost as usize;
        match read {
            Some(read) => {
                read.set_stored(Stored::new(&parts.ledger, position, bytes));
                message.body = Body::Loaded(Arc::new(read));
                self.aside -= message.shared();
                parts.front += 1;
            }
            None => {
                self.bytes -= message.cost as usize;
                self.aside -= message.aside();
                self.messages.remove(parts.front);
            }
        }
        parts.ledger.subtract(position, bytes);
        if parts.stored == 0 {
            parts.find_stored(&self.messages);
        }
        true
    }

    /// Takes out the messages for which `wanted` holds, in their order.
    pub(super) fn take_if(&mut self, mut wanted: impl FnMut(&QueuedMessage) -> bool) -> Vec<QueuedMessage> {
        // Often there are none, and then nothing is moved.
        let Some(first) = self.messages.iter().position(&mut wanted) else { return Vec::new() };
        let mut taken = Vec::new();
        let mut kept = Vec::with_capacity(self.messages.len() - first);
        for (n, message) in self.messages.drain(first..).enumerate() {
            // The first was asked for already; `wanted` may count.
            if n == 0 || wanted(&message) { taken.push(message) } else { kept.push(message) }
        }
        self.messages.extend(kept);
        self.bytes -= taken.iter().map(|message| message.cost as usize).sum::<usize>();
        self.aside -= taken.iter().map(QueuedMessage::aside).sum::<isize>();
        self.shrink();
        self.count_parts();
        taken
    }

    /// Takes messages back that were taken out, each to where it was; without a log they go before
    /// those that came meanwhile.
    pub(super) fn put_back(&mut self, messages: Vec<QueuedMessage>) {
        if let Some(parts) = &self.log {
            for message in &messages {
                if let Body::Stored(position, bytes) = message.body {
                    parts.ledger.add(position, bytes);
                }
            }
        }
        self.bytes += messages.iter().map(|message| message.cost as usize).sum::<usize>();
        self.aside += messages.iter().map(QueuedMessage::aside).sum::<isize>();
        let came_meanwhile = std::mem::take(&mut self.messages);
        self.messages = messages.into_iter().chain(came_meanwhile).collect();
        // Those of one sequence, where there is no log, stay in this order.
        self.messages.make_contiguous().sort_by_key(|message| message.sequence);
        self.count_parts();
    }

    /// Counts anew what is in memory and what is not.
    fn count_parts(&mut self) {
        let Some(parts) = &mut self.log else { return };
        let stored = self.messages.iter().filter(|message| !message.body.is_loaded());
        parts.stored_bytes = stored.map(|message| message.cost as usize).sum();
        parts.front = 0;
        parts.find_stored(&self.messages);
    }

    /// What was taken out as stored is not needed any more.
    pub(super) fn release(&self, body: &Body) {
        if let (Body::Stored(position, bytes), Some(parts)) = (body, &self.log) {
            parts.ledger.subtract(*position, *bytes);
        }
    }

    /// The next message, if it is in memory.
    pub(super) fn front(&self) -> Option<(&QueuedMessage, &Arc<Message>)> {
        let message = self.messages.front()?;
        match &message.body {
            Body::Loaded(body) => Some((message, body)),
            Body::Stored(..) => None,
        }
    }

    /// Takes the next message, if it is in memory.
    pub(super) fn pop(&mut self) -> Option<(QueuedMessage, Arc<Message>)> {
        let body = Arc::clone(self.front()?.1);
        let message = self.messages.pop_front()?;
        self.bytes -= message.cost as usize;
        self.aside -= message.aside();
        if let Some(parts) = &mut self.log {
            parts.front = parts.front.saturating_sub(1);
        }
        self.shrink();
        Some((message, body))
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &QueuedMessage> {
        self.messages.iter()
    }

    /// Sequences of the waiting messages, as runs: first and length.
    pub(super) fn sequences(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for message in &self.messages {
            match runs.last_mut() {
                Some((first, length)) if *first + *length == message.sequence => *length += 1,
                _ => runs.push((message.sequence, 1)),
            }
        }
        runs
    }

    /// Behind the last message that may have been sent before a restart.
    pub(super) fn end_of_repeated(&self, qos: QoS) -> u64 {
        let last = self.messages.iter().rev().find(|message| message.again && message.qos == qos);
        last.map_or(0, |last| last.sequence + 1)
    }

    fn find(&self, sequence: u64) -> Option<usize> {
        self.messages.binary_search_by_key(&sequence, |message| message.sequence).ok()
    }

    /// Where the message with this sequence is in the log; `None` if it is not in the queue.
    pub(super) fn position_of(&self, sequence: u64) -> Option<Position> {
        match &self.messages.get(self.find(sequence)?)?.body {
            Body::Stored(position, _) => Some(*position),
            Body::Loaded(message) => Some(message.stored()?.position()),
        }
    }

    /// The message with this sequence was copied from one place in the log to another.
    pub(super) fn moved(&mut self, sequence: u64, from: Position, to: Position) {
        let Some(message) = self.find(sequence).and_then(|index| self.messages.get_mut(index)) else {
            return;
        };
        match &mut message.body {
            Body::Loaded(message) => {
                if let Some(stored) = message.stored() {
                    stored.move_to(from, to);
                }
            }
            Body::Stored(position, bytes) => {
                if let Some(parts) = &self.log
                    && *position == from
                {
                    parts.ledger.add(to, *bytes);
                    parts.ledger.subtract(from, *bytes);
                    *position = to;
                }
            }
        }
    }
}

impl Drop for MessageQueue {
    fn drop(&mut self) {
        let Some(parts) = &self.log else { return };
        for message in &self.messages {
            if let Body::Stored(position, bytes) = message.body {
                parts.ledger.subtract(position, bytes);
            }
        }
    }
}
