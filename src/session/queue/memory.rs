//! What a queue holds in memory: for counting it, for leaving it to the log, and for giving it up.
//!
//! A message costs its body while it is loaded, and its entry in any case.

use std::collections::VecDeque;

use super::{Body, DeliveryExtra, FRONT_BYTES, FRONT_MESSAGES, MessageQueue, Parts, QueuedMessage};
use crate::ledger::Position;
use crate::protocol::QoS;

/// Bytes of an entry.
const ENTRY: usize = size_of::<QueuedMessage>();

/// A queue with room for no more than this keeps it.
const ROOM_KEPT: usize = 64;

/// Room for entries that a queue takes first.
const FIRST_ROOM: usize = 4;

/// Up to here a queue that is full doubles its room.
const DOUBLED_TO: usize = 1024;

impl DeliveryExtra {
    /// Bytes that it takes in memory, with what the allocator adds.
    pub(in crate::session) fn memory(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD + size_of_val(&*self.subscription_ids)
    }
}

impl MessageQueue {
    /// Bytes charged for those of the waiting messages that are in memory.
    pub(in crate::session) fn loaded_bytes(&self) -> usize {
        self.bytes - self.log.as_ref().map_or(0, |parts| parts.stored_bytes)
    }

    /// Bytes that are this queue's alone: its entries, and bodies that are not charged once for all
    /// who hold them.
    pub(in crate::session) fn own_bytes(&self) -> usize {
        self.loaded_bytes().saturating_add_signed(self.aside) + self.entry_bytes()
    }

    /// Bytes of the entries, and of the room for more of them that is taken already.
    pub(in crate::session) fn entry_bytes(&self) -> usize {
        // An empty queue has room for a few.
        if self.messages.is_empty() { 0 } else { self.messages.capacity() * ENTRY }
    }

    /// The client is gone: no room is kept for what may come.
    pub(in crate::session) fn rest(&mut self) {
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// Leaves to the log what stands behind the front and is written; the front as well if `nobody_reads`.
    pub(in crate::session) fn unload(&mut self, nobody_reads: bool) {
        let Some(parts) = &mut self.log else { return };
        let average = self.bytes / self.messages.len().max(1);
        let keep = if nobody_reads { 0 } else { FRONT_MESSAGES.min(FRONT_BYTES / average.max(1)) };
        if parts.stored == 0 {
            parts.front = self.messages.len().min(keep);
        }
        let written = parts.ledger.written();
        while let Some(message) = self.messages.get_mut(parts.front + parts.stored)
            && let Some(shared) = leave_to_log(message, parts, written)
        {
            self.aside += shared;
            parts.stored += 1;
        }
        if parts.stored == 0 {
            parts.front = self.messages.len();
        }
    }

    /// Leaves to the log whatever is written, for want of memory: also a front that was read back
    /// before, and what stands behind a message whose turn goes on.
    pub(in crate::session) fn unload_all(&mut self) {
        let Some(parts) = &mut self.log else { return };
        let written = parts.ledger.written();
        for message in &mut self.messages {
            if let Some(shared) = leave_to_log(message, parts, written) {
                self.aside += shared;
            }
        }
        self.count_parts();
    }

    /// Takes out messages that are in memory, oldest first, until `bytes` are given back. What is
    /// on its way to the log stays: it leaves memory when it is there. At QoS 2 what may have been
    /// sent before a restart stays.
    pub(in crate::session) fn shed(&mut self, bytes: usize) -> Vec<QueuedMessage> {
        let mut left = bytes;
        let is_durable = self.log.is_some();
        self.take_if(|message| {
            let is_begun = message.again && message.qos == QoS::ExactlyOnce;
            let is_logged = is_durable && message.qos != QoS::AtMostOnce;
            let is_taken = left > 0 && message.body.is_loaded() && !is_begun && !is_logged;
            if is_taken {
                left = left.saturating_sub(message.cost as usize);
            }
            is_taken
        })
    }

    /// Takes out the oldest messages, wherever their bodies are, until entries take no more than
    /// `bytes`. At QoS 2 what may have been sent before a restart stays.
    pub(in crate::session) fn shed_entries(&mut self, bytes: usize) -> Vec<QueuedMessage> {
        let mut left = self.messages.len().saturating_sub(bytes / ENTRY);
        let taken = self.take_if(|message| {
            let is_begun = message.again && message.qos == QoS::ExactlyOnce;
            let is_taken = left > 0 && !is_begun;
            left -= usize::from(is_taken);
            is_taken
        });
        self.messages.shrink_to_fit();
        taken
    }

    /// Makes room for more entries: twice as many while there are few, and then an eighth more, for
    /// room that is not used counts as well.
    #[cold]
    pub(super) fn grow(&mut self) {
        let capacity = self.messages.capacity();
        let more = if capacity < DOUBLED_TO { capacity.max(FIRST_ROOM) } else { capacity / 8 };
        self.messages.reserve_exact(more);
    }

    /// Gives back room for entries after many have gone.
    #[inline]
    pub(super) fn shrink(&mut self) {
        let capacity = self.messages.capacity();
        if capacity > ROOM_KEPT && self.messages.len() < capacity / 4 {
            self.messages.shrink_to(capacity / 2);
        }
    }
}

/// Leaves a body to the log, if it is written there; `Some`: what of its cost is no longer charged
/// once for all who hold it.
fn leave_to_log(message: &mut QueuedMessage, parts: &mut Parts, written: Position) -> Option<isize> {
    let Body::Loaded(loaded) = &message.body else { return None };
    let stored = loaded.stored().filter(|stored| stored.position() < written)?;
    let (position, bytes) = (stored.position(), stored.bytes());
    parts.ledger.add(position, bytes);
    parts.stored_bytes += message.cost as usize;
    let shared = message.shared();
    message.body = Body::Stored(position, bytes);
    Some(shared)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::Message;

    #[test]
    fn a_long_queue_takes_an_eighth_more_room_than_it_needs() {
        let mut queue = MessageQueue::default();
        let message = Arc::new(Message::new("t", "m", QoS::AtLeastOnce));
        for sequence in 0..20_000 {
            queue.push(QueuedMessage {
                sequence,
                body: Body::Loaded(Arc::clone(&message)),
                cost: 1,
                qos: QoS::AtLeastOnce,
                retain: false,
                again: false,
                extra: None,
            });
            let (room, needed) = (queue.entry_bytes() / ENTRY, queue.len());
            assert!(room <= 2 * needed.max(FIRST_ROOM), "{room} for {needed}");
            assert!(needed <= 2 * DOUBLED_TO || room <= needed + needed / 8, "{room} for {needed}");
        }
    }
}
