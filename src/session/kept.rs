//! `Kept`: the message of a delivery under way, for as long as it may have to be sent again.

use std::sync::Arc;

use super::message::{Message, message_cost};
use crate::ledger::{Position, Stored};

/// See the module's documentation. In memory, or in the log only (it is read back when it is to be
/// sent again); none if it is never sent again: the session ends with its connection, or the client
/// has the message. What is in the log only is a message without content that has a place: every
/// delivery has this value, and a second kind of pointer would make it larger.
#[derive(Debug, Default)]
pub(super) struct Kept(Option<Arc<Message>>);

impl From<Option<Arc<Message>>> for Kept {
    fn from(message: Option<Arc<Message>>) -> Self {
        Self(message)
    }
}

impl From<Result<Arc<Message>, Stored>> for Kept {
    fn from(message: Result<Arc<Message>, Stored>) -> Self {
        Self(Some(message.unwrap_or_else(|place| Arc::new(Message::hollow(place)))))
    }
}

impl Kept {
    pub(super) const NOTHING: Self = Self(None);

    /// Bytes of one that is in the log only: a message without content.
    pub(super) const STORED: usize = message_cost(0);

    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is in the log only.
    pub(super) fn is_stored(&self) -> bool {
        self.0.as_ref().is_some_and(|message| message.is_hollow())
    }

    /// The message, if it is in memory.
    pub(super) fn loaded(&self) -> Option<&Arc<Message>> {
        self.0.as_ref().filter(|message| !message.is_hollow())
    }

    /// Its place in the log, if it has one.
    pub(super) fn stored(&self) -> Option<&Stored> {
        self.0.as_ref()?.stored()
    }

    /// Bytes that it holds in memory: as a whole, and what of that is this delivery's own.
    pub(super) fn memory(&self) -> (usize, u32) {
        match &self.0 {
            None => (0, 0),
            Some(message) if message.is_hollow() => (0, Self::STORED as u32),
            Some(message) => {
                (message.memory(), u32::try_from(message.memory_of_holder()).unwrap_or(u32::MAX))
            }
        }
    }

    /// Leaves it to the log, if that has written it and it is one of those for which `wanted` holds.
    /// One that is shared stays while its place in the log would take each of its holders more than
    /// their part of it.
    pub(super) fn unload(&mut self, written: Position, wanted: impl Fn(&Message) -> bool) {
        if let Some(message) = self.loaded()
            && wanted(message)
            && (!message.is_shared() || message.memory() > Self::STORED * Arc::strong_count(message))
            && let Some(stored) = message.stored()
            && stored.position() < written
        {
            let place = Stored::new(stored.ledger(), stored.position(), stored.bytes());
            self.0 = Some(Arc::new(Message::hollow(place)));
        }
    }

    /// What another client can be sent; `None` if there is nothing.
    pub(super) fn into_message(self) -> Option<Result<Arc<Message>, Stored>> {
        let message = self.0?;
        if !message.is_hollow() {
            return Some(Ok(message));
        }
        let stored = message.stored()?;
        Some(Err(Stored::new(stored.ledger(), stored.position(), stored.bytes())))
    }
}
