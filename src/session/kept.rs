//! `Kept`: the message of a delivery under way, for as long as it may have to be sent again.

use std::sync::Arc;

use super::message::Message;
use crate::ledger::{Position, Stored};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) enum Kept {
    /// It is never sent again: the session ends with its connection, or the client has the message.
    #[default]
    Nothing,
    /// In memory.
    Loaded(Arc<Message>),
    /// In the log only; it is read back when it is to be sent again.
    Stored(Box<Stored>),
}

impl From<Option<Arc<Message>>> for Kept {
    fn from(message: Option<Arc<Message>>) -> Self {
        message.map_or(Self::Nothing, Self::Loaded)
    }
}

impl Kept {
    pub(super) fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// Its place in the log, if it has one.
    pub(super) fn stored(&self) -> Option<&Stored> {
        match self {
            Self::Nothing => None,
            Self::Loaded(message) => message.stored(),
            Self::Stored(stored) => Some(stored),
        }
    }

    /// Bytes that it holds in memory: as a whole, and what of that is this delivery's own.
    pub(super) fn memory(&self) -> (usize, u32) {
        match self {
            Self::Loaded(message) => {
                (message.memory(), u32::try_from(message.memory_of_holder()).unwrap_or(u32::MAX))
            }
            Self::Nothing | Self::Stored(_) => (0, 0),
        }
    }

    /// Leaves it to the log, if that has written it and it is one of those for which `wanted` holds.
    pub(super) fn unload(&mut self, written: Position, wanted: impl Fn(&Message) -> bool) {
        if let Self::Loaded(message) = self
            && wanted(message)
            && let Some(stored) = message.stored()
            && stored.position() < written
        {
            let place = Stored::new(stored.ledger(), stored.position(), stored.bytes());
            *self = Self::Stored(Box::new(place));
        }
    }

    /// What another client can be sent; `None` if there is nothing.
    pub(super) fn into_message(self) -> Option<Result<Arc<Message>, Stored>> {
        match self {
            Self::Nothing => None,
            Self::Loaded(message) => Some(Ok(message)),
            Self::Stored(stored) => Some(Err(*stored)),
        }
    }
}
